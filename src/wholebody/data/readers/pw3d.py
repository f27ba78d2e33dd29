"""3DPW: people outdoors, followed by a moving camera, with SMPL bodies from inertial sensors.

    data/3DPW_{train,validation,test}.json
        images: id, file_name, sequence, width, height, cam_param {focal, princpt[, R, t]}
        annotations: id, image_id, bbox, smpl_param {pose (72), shape (10), trans (3), gender}
    imageFiles/SEQUENCE/FILE_NAME  (or data/imageFiles/...)

The bodies are SMPL's, of the actor's gender: their pose means the same in SMPL-X, their shape does not. The 14 joints
that results on this set are given for are regressed from the SMPL mesh: `wholebody.evaluation.smpl`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.data.readers import coco_format as coco
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import BadInput

SPLITS = ("train", "validation", "test")
GENDERS = {"m": "male", "male": "male", "f": "female", "female": "female", "n": "neutral", "neutral": "neutral"}


def read(root: Path, split: str, damaged: str = "error") -> Iterator[Sample]:
    """The people of one split of 3DPW, in the order of the file; those with an empty box are left out.

    Args:
        damaged: what to do about parameters that are not numbers, see `coco_format.DAMAGED`.
    """
    if damaged not in coco.DAMAGED:
        raise BadInput(f"damaged={damaged!r}: use one of {', '.join(coco.DAMAGED)}")
    coco.require("PW3D", root, split)
    path = root / "data" / f"3DPW_{split}.json"
    pictures = "data/imageFiles" if (root / "data" / "imageFiles").is_dir() else "imageFiles"
    for annotation, image in coco.annotated_people(path):
        picture_hw = coco.picture_hw(path, image)
        box = coco.cut_box(coco.numbers(path, annotation, "bbox", 4), picture_hw)
        if box is None:
            continue
        sequence, name = coco.entry_of(path, image, "sequence"), coco.entry_of(path, image, "file_name")
        yield masked_sample(
            f"PW3D/{split}/{coco.entry_of(path, annotation, 'id')}",
            box,
            dataset="PW3D",
            image_path=f"{pictures}/{sequence}/{name}",
            image_hw=picture_hw,
            **_camera_and_body(path, image.get("cam_param"), annotation.get("smpl_param"), damaged),
        )


def _camera_and_body(path: Path, camera: Mapping | None, body: Mapping | None, damaged: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if camera:
        focal, principal = (coco.numbers(path, camera, key, 2) for key in ("focal", "princpt"))
        fields = {"focal_px": focal, "principal_px": principal, "camera_valid": bool(body)}
    if not body:
        return fields
    try:
        pose, betas, transl = (
            coco.numbers(path, body, key, size) for key, size in (("pose", 72), ("shape", 10), ("trans", 3))
        )
    except BadInput:
        if damaged == "mask":
            return fields | {"camera_valid": False}
        raise
    full_pose, pose_valid = np.zeros((55, 3)), np.zeros(55, bool)
    # SMPL's joints 0 to 21 are SMPL-X's; its last two are its hands, of which nothing was measured.
    full_pose[:22], pose_valid[:22] = pose.reshape(24, 3)[:22], True
    fields |= {
        "body": "smpl",
        "gender": GENDERS.get(str(body.get("gender", "")).lower(), "neutral"),
        "full_pose": full_pose,
        "pose_valid": pose_valid,
        "betas": betas,
        "shape_valid": True,
        "transl": transl,
        "flat_hand": False,
    }
    if camera and "R" in camera:
        shift = coco.numbers(path, camera, "t", 3) if "t" in camera else np.zeros(3)
        fields |= coco.in_camera_frame(full_pose, transl, coco.numbers(path, camera, "R", 3, 3), shift)
    return fields
