"""MPII in COCO form with NeuralAnnot's parameters of the body alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from data.forge.coco_lists import write_picture
from data.forge.people import ForgedPerson, View, blank

WH = (320, 240)
# MPII's 16 points, and which of the body's each is here. `Thorax` and `Head_top` have no counterpart in the 137.
POINTS = (
    ("R_Ankle", "right_ankle"), ("R_Knee", "right_knee"), ("R_Hip", "right_hip"), ("L_Hip", "left_hip"),
    ("L_Knee", "left_knee"), ("L_Ankle", "left_ankle"), ("Pelvis", "pelvis"), ("Thorax", "spine3"), ("Neck", "neck"),
    ("Head_top", "head"), ("R_Wrist", "right_wrist"), ("R_Elbow", "right_elbow"), ("R_Shoulder", "right_shoulder"),
    ("L_Shoulder", "left_shoulder"), ("L_Elbow", "left_elbow"), ("L_Wrist", "left_wrist"),
)  # fmt: skip
UNKNOWN = "R_Ankle"
"""Not annotated of any person."""


def views(people: list[ForgedPerson]) -> list[View]:
    return [p.view(WH) for p in people]


def forge(root: Path, people: list[ForgedPerson]) -> None:
    images, annotations, fits = [], [], {}
    for view in views(people):
        number = view.person.number
        name = f"images/{5808361 + number:09d}.jpg"
        canvas = blank(WH, number)
        view.draw(canvas)
        write_picture(root / "data" / name, canvas)
        images.append({"id": number, "file_name": name, "width": WH[0], "height": WH[1]})
        points = np.array([[*view.px(ours), float(name != UNKNOWN)] for name, ours in POINTS])
        points[points[:, 2] == 0] = 0
        usual = {
            "id": 50 + number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 100.0,
            "bbox": view.box_xywh(), "num_keypoints": int(points[:, 2].sum()), "keypoints": points.ravel().tolist(),
        }  # fmt: skip
        annotations += [usual, {**usual, "id": 5000 + number, "bbox": [5.0, 5.0, 10.0, 0.0]}]
        if view.person.fitted:
            fits[str(50 + number)] = {
                "smplx_param": view.person.smplx_param(hands_and_face=False),
                "cam_param": {"focal": view.focal.tolist(), "princpt": view.principal.tolist()},
            }
    folder = root / "data" / "annotations"
    folder.mkdir(parents=True)
    # The released file has the annotations before the pictures in some copies.
    (folder / "train.json").write_text(json.dumps({"annotations": annotations, "images": images, "categories": []}))
    (folder / "MPII_train_SMPLX_NeuralAnnot.json").write_text(json.dumps(fits))
