"""Your own pictures in COCO form, with SMPL-X parameters if you have them. docs/own-data.md walks through it.

    images/..., annotations/{train,val,test}.json, optionally annotations/{train,val,test}_smplx.json

Keypoints map by the names that `categories` gives: those of COCO and COCO-WholeBody (`left_wrist`, `face-3`,
`left_thumb1`, ...) or the published ones (`L_Wrist`, `Face_18`, ...). COCO-WholeBody's own lists (`foot_kpts`, ...) and
part boxes are read where an annotation has them. Parameters are in NeuralAnnot's form, by annotation id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, JOINTS_137
from wholebody.data.readers import coco_format as coco
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import BadInput
from wholebody.files.coco import is_crowd
from wholebody.files.json_stream import items, top_level

SPLITS: tuple[str, ...] = ("train", "val", "test")
BODIES = ("smplx", "open")
_WHOLEBODY = ("foot_kpts", "face_kpts", "lefthand_kpts", "righthand_kpts")


def read(root: Path, split: str, damaged: str = "error") -> Iterator[Sample]:
    """damaged: what to do about parameters that are not finite, see `coco_format.DAMAGED`."""
    coco.require("Own", root, split)
    path = root / "annotations" / f"{split}.json"
    rows = _rows(path, _keypoint_names(path))
    fits_path = root / "annotations" / f"{split}_smplx.json"
    fits, more = _fits(fits_path, damaged) if fits_path.exists() else (None, {})
    for annotation, image in coco.annotated_people(path):
        sample = _person(path, annotation, image, rows, fits, more)
        if sample is not None:
            yield sample


def _person(
    path: Path,
    annotation: Mapping[str, Any],
    image: Mapping[str, Any],
    rows: Sequence[int | None],
    fits: coco.Fits | None,
    more: Mapping[str, Mapping[str, Any]],
) -> Sample | None:
    if is_crowd(annotation):
        return None
    hw = coco.picture_hw(path, image)
    box = coco.cut_box(coco.numbers(path, annotation, "bbox", 4), hw)
    if box is None:
        return None
    key = str(coco.entry_of(path, annotation, "id"))
    known = tuple(bool(annotation.get(f"{part}_valid")) for part in coco.PARTS)
    fields = fits.fields(key, known, *_extrinsics(path, more.get(key, {}))) if fits else {}
    if fields:
        fields["body"], fields["flat_hand"] = more[key]["body"], more[key]["flat_hand"]
    return masked_sample(
        key,
        box,
        dataset="Own",
        image_path=f"images/{coco.entry_of(path, image, 'file_name')}",
        image_hw=hw,
        **_keypoints(path, annotation, rows, hw),
        **coco.box_fields(*(coco.part_box(path, annotation, part) for part in coco.PARTS)),
        **fields,
    )


def _keypoint_names(path: Path) -> list[str]:
    for key, value in top_level(path):
        if key == "categories":
            for category in value.elements():
                if isinstance(category, Mapping) and "keypoints" in category:
                    return [str(name) for name in category["keypoints"]]
    return []


def _rows(path: Path, names: Sequence[str]) -> list[int | None]:
    """Which of the 137 each keypoint is; None for one that the 137 lack."""
    coco_rows = dict(zip(COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, strict=True))
    rows = [JOINTS_137.index(name) if name in JOINTS_137 else coco_rows.get(name) for name in names]
    if names and not any(row is not None for row in rows):
        raise BadInput(
            f"{path}: none of the keypoint names {', '.join(names[:5])}, ... is known. Use COCO's (left_wrist, ...), "
            "COCO-WholeBody's (left_thumb1, face-0, ...) or the published ones (L_Wrist, ...)"
        )
    return rows


def _keypoints(
    path: Path, annotation: Mapping[str, Any], rows: Sequence[int | None], hw: tuple[int, int]
) -> dict[str, Any]:
    if "keypoints" not in annotation:
        return {}
    if all(name in annotation for name in _WHOLEBODY):
        return coco.wholebody_fields(path, annotation, hw)
    if not rows:
        raise BadInput(f"{path}: 'categories' names no keypoints, so those of {annotation.get('id')} mean nothing")
    points = coco.numbers(path, annotation, "keypoints", len(rows), 3)
    joints, flags = np.zeros((137, 2)), np.zeros(137)
    for row, point in zip(rows, points, strict=True):
        # A wrist may come twice (from the body and as the root of its hand): the first that is annotated counts.
        if row is not None and flags[row] == 0:
            joints[row], flags[row] = point[:2], point[2]
    return coco.joint_fields(joints, flags, hw, occluded=flags == 1)


def _fits(path: Path, damaged: str) -> tuple[coco.Fits, dict[str, dict[str, Any]]]:
    """The parameters, and what this form adds to NeuralAnnot's: body, flat_hand, R and t of the camera."""
    fits, more = coco.Fits(path, damaged), {}
    for key, entry in items(path):
        param = coco.entry_of(path, entry, "smplx_param")
        camera = entry.get("cam_param") or {}  # without: the shape and pose are known, and not where the person stands
        fits.add(key, param, camera)
        body = str(param.get("body", "smplx"))
        if body not in BODIES:
            raise BadInput(f"{path}: 'body' of {key} is {body!r}; use one of {', '.join(BODIES)}")
        more[key] = {**camera, "body": body, "flat_hand": bool(param.get("flat_hand", body == "open"))}
    return fits, more


def _extrinsics(path: Path, camera: Mapping[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
    if "R" not in camera:
        return None, None
    return coco.numbers(path, camera, "R", 3, 3), coco.numbers(path, camera, "t", 3) if "t" in camera else None
