"""Twelve strong poses, by name, as turns (rad) about x, y, z of single joints from the T-pose.

The left arm lies along +x: a negative turn about z lowers it, about y brings it forward. Signs mirror on the right.
"""

import numpy as np

from wholebody.body.open_body import MIRROR_AXIS_ANGLE

from . import rig
from .rig import J

Turns = dict[str, tuple[float, float, float]]
FLEX = {"index": (1.35, 1.55, 1.0), "middle": (1.35, 1.6, 1.0), "ring": (1.35, 1.6, 1.0), "pinky": (1.35, 1.55, 1.0)}
FLEX |= {"thumb": (0.5, 0.7, 0.9)}


def _both(**left: tuple[float, float, float]) -> Turns:
    """The same turn on both sides, mirrored."""
    out: Turns = {}
    for joint, turn in left.items():
        out[f"left_{joint}"] = turn
        out[f"right_{joint}"] = (turn[0], -turn[1], -turn[2])
    return out


STRONG: dict[str, Turns] = {
    "arms down": _both(shoulder=(0, 0, -1.2), collar=(0, 0, -0.1)),
    "sitting": _both(hip=(-1.5, 0, 0.1), knee=(1.5, 0, 0), shoulder=(0, -0.5, -1.1), elbow=(0, -1.0, 0)),
    "arms overhead": _both(collar=(0, 0, 0.45), shoulder=(0, 0, 0.95), elbow=(0, -0.2, 0)),
    "twisted forearms": _both(shoulder=(0, -0.6, -0.4), elbow=(0, -1.4, 0), wrist=(1.3, 0, 0)),
    "running": {
        "left_hip": (-1.1, 0, 0),
        "left_knee": (1.5, 0, 0),
        "right_hip": (0.45, 0, 0),
        "right_knee": (0.7, 0, 0),
        "left_shoulder": (0.2, 0.6, -1.1),
        "left_elbow": (0, -1.5, 0),
        "right_shoulder": (0.2, 0.6, 1.1),
        "right_elbow": (0, 1.5, 0),
        "spine3": (0.1, 0.3, 0),
        "right_ankle": (0.4, 0, 0),
    },
    "bow": {"spine1": (0.5, 0, 0), "spine2": (0.4, 0, 0), "spine3": (0.3, 0, 0), "neck": (0.3, 0, 0)}
    | _both(hip=(-0.7, 0, 0), shoulder=(0, 0, -0.8)),
    "squat": {"spine1": (0.4, 0, 0)}
    | _both(hip=(-1.9, 0.2, 0.35), knee=(2.2, 0, 0), ankle=(-0.4, 0, 0), shoulder=(0, -1.3, -0.2)),
    "high kick": {"left_hip": (-1.8, 0, 0.2), "left_knee": (0.2, 0, 0), "right_knee": (0.2, 0, 0)}
    | {"spine1": (-0.2, 0, 0), "left_ankle": (0.5, 0, 0)}
    | _both(shoulder=(0, -0.3, -0.5), elbow=(0, -1.8, 0)),
    "lunge and look back": {
        "left_hip": (-1.2, 0, 0.1),
        "left_knee": (1.3, 0, 0),
        "right_hip": (0.5, 0, 0),
        "spine1": (0, 0.35, 0),
        "spine2": (0, 0.35, 0),
        "spine3": (0, 0.3, 0),
        "neck": (0, 0.4, 0),
        "head": (0, 0.5, 0),
        "right_shoulder": (0, 0.9, 0.2),
        "left_shoulder": (0, 0.6, -0.3),
    },
    "hand on hip, hand on head": {
        "left_shoulder": (0.9, 0, -0.9),
        "left_elbow": (0, -1.9, 0),
        "right_collar": (0, 0, -0.3),
        "right_shoulder": (0.4, 0.3, -0.8),
        "right_elbow": (0, 2.2, 0),
        "spine2": (0, 0, 0.2),
        "head": (0, 0, -0.3),
    },
    "hugging oneself": _both(shoulder=(0.2, -1.2, -0.5), elbow=(0.3, -2.0, 0), collar=(0, -0.25, 0)),
    "legs apart, leaning": {
        "spine1": (0, 0, 0.4),
        "spine2": (0, 0, 0.3),
        "neck": (0, 0, 0.3),
        "left_hip": (0, 0.3, 0.8),
        "right_hip": (0, -0.3, -0.8),
        "left_shoulder": (0, 0, -0.6),
        "right_collar": (0, 0, -0.4),
        "right_shoulder": (0, 0, -0.8),
    },
}


def pose(turns: Turns) -> np.ndarray:
    """Axis-angle (55,3)."""
    out = np.zeros((55, 3))
    for joint, turn in turns.items():
        out[J[joint]] = turn
    return out


def fist(finger_axes: np.ndarray, pointing: bool = False) -> np.ndarray:
    """Both hands as fists, or pointing with the index finger: axis-angle (55,3), the mean hand not added."""
    out = np.zeros((55, 3))
    for row, finger in enumerate(rig.FINGERS):
        for k in range(3):
            if not (pointing and finger == "index"):
                out[J[f"left_{finger}{k + 1}"]] = FLEX[finger][k] * finger_axes[row, 0]
    out[J["left_thumb1"]] += 0.5 * finger_axes[rig.FINGERS.index("thumb"), 2] + [0, -0.3, 0]
    out[J["right_index1"] : J["right_thumb3"] + 1] = out[J["left_index1"] : J["left_thumb3"] + 1] * MIRROR_AXIS_ANGLE
    return out
