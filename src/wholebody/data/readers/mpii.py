"""MPII Human Pose in COCO form, with NeuralAnnot's SMPL-X parameters.

    data/images/*.jpg, data/annotations/train.json, data/annotations/MPII_train_SMPLX_NeuralAnnot.json

Pictures are named relative to `data`. People without parameters stay, with their 16 keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.data.readers import coco_format as coco
from wholebody.data.readers.mscoco import read_fits
from wholebody.data.sample import Sample, masked_sample

SPLITS: tuple[str, ...] = ("train",)

JOINTS = (
    "R_Ankle", "R_Knee", "R_Hip", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Thorax", "Neck", "Head_top", "R_Wrist",
    "R_Elbow", "R_Shoulder", "L_Shoulder", "L_Elbow", "L_Wrist",
)  # fmt: skip


def read(root: Path, split: str, damaged: str = "error") -> Iterator[Sample]:
    """damaged: what to do about parameters that are not finite, see `coco_format.DAMAGED`."""
    coco.require("MPII", root, split)
    folder = root / "data" / "annotations"
    path = folder / "train.json"
    fits = read_fits(folder / "MPII_train_SMPLX_NeuralAnnot.json", damaged)
    for annotation, image in coco.annotated_people(path):
        sample = person(path, annotation, image, fits)
        if sample is not None:
            yield sample


def person(
    path: Path, annotation: Mapping[str, Any], image: Mapping[str, Any], fits: coco.Fits | None
) -> Sample | None:
    """One annotation; None if its box is empty."""
    hw = coco.picture_hw(path, image)
    box = coco.cut_box(coco.numbers(path, annotation, "bbox", 4), hw)
    if box is None:
        return None
    key = str(coco.entry_of(path, annotation, "id"))
    fit = coco.without(fits.fields(key), *coco.GUESSED) if fits else {}
    return masked_sample(
        key,
        box,
        dataset="MPII",
        image_path=f"data/{coco.entry_of(path, image, 'file_name')}",
        image_hw=hw,
        **keypoint_fields(coco.numbers(path, annotation, "keypoints", len(JOINTS), 3), hw),
        **fit,
    )


def keypoint_fields(keypoints: np.ndarray, hw: tuple[int, int]) -> dict[str, Any]:
    """Fields of a `Sample` from MPII's 16 keypoints (16, 3): pixels and a flag, 0 where not annotated."""
    joints, _ = coco.joints_by_name(JOINTS, keypoints)
    valid = joints[:, 2] > 0
    inside = (joints[:, :2] >= 0).all(1) & (joints[:, 0] <= hw[1] - 1) & (joints[:, 1] <= hw[0] - 1)
    return {"joints_px": joints[:, :2], "joint_valid": valid, "joint_visible": valid & inside}
