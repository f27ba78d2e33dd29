"""MSCOCO 2017 with COCO-WholeBody's keypoints and, for training, NeuralAnnot's SMPL-X parameters.

    images/{train2017,val2017}/*.jpg
    annotations/coco_wholebody_{train,val}_v1.0.json, annotations/MSCOCO_train_SMPLX.json

Left out, as in the published code: crowds, people without a keypoint, and those whose box is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wholebody.data.readers import coco_format as coco
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import BadInput
from wholebody.files.json_stream import items

SPLITS: tuple[str, ...] = ("train", "val")


def read(root: Path, split: str, damaged: str = "error") -> Iterator[Sample]:
    """damaged: what to do about parameters that are not finite, see `coco_format.DAMAGED`."""
    coco.require("MSCOCO", root, split)
    path = root / "annotations" / f"coco_wholebody_{split}_v1.0.json"
    fits = read_fits(root / "annotations" / "MSCOCO_train_SMPLX.json", damaged) if split == "train" else None
    for annotation, image in coco.annotated_people(path):
        sample = person(path, annotation, image, f"images/{split}2017", fits)
        if sample is not None:
            yield sample


def read_fits(path: Path, damaged: str = "error") -> coco.Fits:
    """NeuralAnnot's parameters by annotation: {id: {"smplx_param": ..., "cam_param": ...}}."""
    fits = coco.Fits(path, damaged)
    for key, entry in items(path):
        if not isinstance(entry, Mapping):
            raise BadInput(f"{path}: the entry of annotation {key} is a {type(entry).__name__}; fetch the file again")
        fits.add(key, coco.entry_of(path, entry, "smplx_param"), coco.entry_of(path, entry, "cam_param"))
    return fits


def person(
    path: Path, annotation: Mapping[str, Any], image: Mapping[str, Any], folder: str, fits: coco.Fits | None
) -> Sample | None:
    """One annotation; None if it is not a usable person."""
    if coco.entry_of(path, annotation, "iscrowd") or not coco.entry_of(path, annotation, "num_keypoints"):
        return None
    hw = coco.picture_hw(path, image)
    box = coco.cut_box(coco.numbers(path, annotation, "bbox", 4), hw)
    if box is None:
        return None
    key = str(coco.entry_of(path, annotation, "id"))
    known = tuple(bool(coco.entry_of(path, annotation, f"{part}_valid")) for part in coco.PARTS)
    return masked_sample(
        key,
        box,
        dataset="MSCOCO",
        image_path=f"{folder}/{coco.entry_of(path, image, 'file_name')}",
        image_hw=hw,
        **coco.wholebody_fields(path, annotation, hw),
        **coco.box_fields(*(coco.part_box(path, annotation, part) for part in coco.PARTS)),
        **(fits.fields(key, known) if fits else {}),
    )
