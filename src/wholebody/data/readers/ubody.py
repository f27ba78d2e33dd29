"""UBody: upper bodies in videos of 15 scenes, with COCO-WholeBody keypoints and SMPL-X parameters.

    images/SCENE/.../VIDEO/000001.png (from videos/SCENE/...), annotations/SCENE/{keypoint,smplx}_annotation.json
    splits/{intra,inter}_scene_test_list.npy: names of the videos that are for testing

`train` and `test` are the published (intra-scene) split, `inter_train` and `inter_test` the other one. Left out, as in
the published code: crowds, people without keypoints or with an empty box, those marked invalid, those without
parameters. Every 10th annotation is what the published code trains on, every 100th what it tests on (`every`).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wholebody.data.readers import coco_format as coco
from wholebody.data.readers.mscoco import read_fits
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import BadInput
from wholebody.files.npz import read_npy

SPLITS: tuple[str, ...] = ("train", "test", "inter_train", "inter_test")

_HAND_SHRINK = 0.65
"""The set draws its hand boxes wide; this brings them to 1.2 times the hand, as other sets have them."""
_FACE_GROW = 1.2


def read(
    root: Path, split: str, every: int = 1, scenes: tuple[str, ...] | None = None, damaged: str = "error"
) -> Iterator[Sample]:
    """Scene after scene; the scene is the first part of a sample's `id`.

    Args:
        every: use each scene's annotations number every, 2 every, ... in the file's order, before anybody is left out.
        scenes: names of folders in `annotations`; default all.
        damaged: see `coco_format.DAMAGED`.
    """
    coco.require("UBody", root, split)
    there = sorted(path.parent.name for path in root.glob("annotations/*/keypoint_annotation.json"))
    unknown = [scene for scene in scenes or () if scene not in there]
    if unknown:
        raise BadInput(f"UBody in {root} has no scene {', '.join(unknown)}: there are {', '.join(there)}")
    testing = test_videos(root / "splits" / f"{'inter' if 'inter' in split else 'intra'}_scene_test_list.npy")
    for scene in scenes or there:
        folder = root / "annotations" / scene
        path = folder / "keypoint_annotation.json"
        if not (folder / "smplx_annotation.json").exists():
            raise BadInput(
                f"UBody's scene {scene} lacks smplx_annotation.json in {folder}: fetch the annotations again"
            )
        fits = read_fits(folder / "smplx_annotation.json", damaged)
        for number, (annotation, image) in enumerate(coco.annotated_people(path), start=1):
            if number % every:
                continue
            name = str(coco.entry_of(path, image, "file_name")).lstrip("/")
            if (video_of(path, name) in testing) != split.endswith("test"):
                continue
            sample = person(path, annotation, image, scene, fits)
            if sample is not None:
                yield sample


def test_videos(path: Path) -> Container[str]:
    """The names in one of the lists of `splits`."""
    names = read_npy(path)
    if names.ndim != 1 or not all(isinstance(name, str) for name in names.tolist()):
        raise BadInput(f"{path} holds no list of video names; fetch it again")
    return frozenset(names.tolist())


def video_of(path: Path, file_name: str) -> str:
    """`x/Magic_show_S1_Trim1/000016.png` -> `Magic_show_S1`, the name that the lists use."""
    parts = PurePosixPath(file_name).parts
    if len(parts) < 2:
        raise BadInput(f"{path}: the picture {file_name!r} lies in no video's folder; fetch the file again")
    return parts[-2].split("_Trim")[0]


def person(
    path: Path, annotation: Mapping[str, Any], image: Mapping[str, Any], scene: str, fits: coco.Fits | None
) -> Sample | None:
    """One annotation; None if it is not a usable person. fits: None to do without parameters."""
    if coco.entry_of(path, annotation, "iscrowd") or not coco.entry_of(path, annotation, "num_keypoints"):
        return None
    key = str(coco.entry_of(path, annotation, "id"))
    if not coco.entry_of(path, annotation, "valid_label") or (fits is not None and key not in fits):
        return None
    hw = coco.picture_hw(path, image)
    box = coco.cut_box(coco.numbers(path, annotation, "bbox", 4), hw)
    if box is None:
        return None
    hands = [_scaled(coco.part_box(path, annotation, part), _HAND_SHRINK) for part in coco.PARTS[:2]]
    face = None
    if coco.entry_of(path, annotation, "face_valid"):
        # The set's own face boxes are rough: the published code goes by the keypoints.
        points = coco.numbers(path, annotation, "face_kpts", 68, 3)[:, :2]
        face = _scaled(np.concatenate([points.min(0), points.max(0)]), _FACE_GROW)
    known = tuple(bool(coco.entry_of(path, annotation, f"{part}_valid")) for part in coco.PARTS)
    name = str(coco.entry_of(path, image, "file_name")).lstrip("/")
    return masked_sample(
        f"{scene}/{key}",
        box,
        dataset="UBody",
        image_path=f"images/{scene}/{name}",
        image_hw=hw,
        **coco.wholebody_fields(path, _with_body_keypoints(annotation), hw),
        **coco.box_fields(*hands, face),
        **(fits.fields(key, known) if fits else {}),
    )


def _scaled(box: np.ndarray | None, factor: float) -> np.ndarray | None:
    if box is None:
        return None
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * factor
    return np.concatenate([centre - half, centre + half])


def _with_body_keypoints(annotation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Files that MMPose converted have the fitted body's 133 projected joints where the 17 annotated ones were: those
    are then not known."""
    keypoints = annotation.get("keypoints")
    if isinstance(keypoints, list) and len(keypoints) == 133 and isinstance(keypoints[0], list):
        return {**annotation, "keypoints": [0] * 51}
    return annotation
