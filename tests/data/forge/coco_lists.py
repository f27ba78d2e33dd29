"""Keypoints and boxes as COCO-WholeBody writes them, for the forges of the sets that use its form."""

from __future__ import annotations

import cv2
import numpy as np
from data.forge.people import View

COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
FEET = [f"{side}_{point}" for side in ("left", "right") for point in ("big_toe", "small_toe", "heel")]
FINGERS = ("thumb", "index", "middle", "ring", "pinky")


def hand(side: str) -> list[str]:
    """The 21 points of a hand, from its root at the wrist."""
    return [f"{side}_wrist"] + [f"{side}_{finger}{k}" for finger in FINGERS for k in ("1", "2", "3", "_tip")]


def flat(points: np.ndarray, flags: np.ndarray) -> list[float]:
    """x, y, v, x, y, v, ...; zeros where v is 0"""
    rows = np.column_stack([points, flags]) * (flags > 0)[:, None]
    return [float(x) for x in rows.ravel()]


def lists(view: View, whole_pixels: bool = False, hidden: tuple[str, ...] = ()) -> dict:
    """The five lists, the parts' flags and boxes. whole_pixels: body and feet are integers, as COCO's are.
    hidden: names of the body that are annotated though hidden (v = 1)."""

    def body(names) -> list[float]:
        points = np.array([view.px(name) for name in names])
        flags = np.where(view.inside(points), 2, 0)
        flags[[name in hidden for name in names]] = 1
        values = flat(points.round() if whole_pixels else points, flags)
        return [int(v) for v in values] if whole_pixels else values

    def part(points: np.ndarray, known: bool) -> list[float]:
        return flat(points, np.full(len(points), float(known)))

    person = view.person
    face = view.joints_144[[*range(127, 144), *range(76, 127)]]
    boxes = {"lefthand": view.left_hand_box, "righthand": view.right_hand_box, "face": view.face_box}
    return {
        "keypoints": body(COCO_17),
        "foot_kpts": body(FEET),
        "lefthand_kpts": part(np.array([view.px(n) for n in hand("left")]), person.left_hand_known),
        "righthand_kpts": part(np.array([view.px(n) for n in hand("right")]), person.right_hand_known),
        "face_kpts": part(face, person.face_known),
        "foot_valid": True,
        **{f"{name}_valid": box is not None for name, box in boxes.items()},
        **{f"{name}_box": xywh(box) for name, box in boxes.items()},
    }


def xywh(box: np.ndarray | None) -> list[float]:
    if box is None:
        return [0.0, 0.0, 0.0, 0.0]
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def write_picture(path, canvas: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), canvas[..., ::-1])


def neural_annot(view: View, **changes) -> dict:
    """One entry of NeuralAnnot's file of a set without calibrated cameras."""
    return {
        "smplx_param": view.person.smplx_param() | changes,
        "cam_param": {"focal": view.focal.tolist(), "princpt": view.principal.tolist()},
    }
