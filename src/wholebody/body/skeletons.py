"""How other programs and sets call our joints, and in which order: one table for all maps between skeletons.

Every skeleton is a list of (its own name, our name), ours being one of `joints.JOINTS_144`, or None where the body has
no such point. `rows(name)` gives where each is found among the 144.
"""

from __future__ import annotations

import numpy as np

from wholebody.body import RIGS
from wholebody.body.joints import (
    COCO_WHOLEBODY,
    COCO_WHOLEBODY_FROM_137,
    FACE_CONTOUR,
    FACE_LANDMARKS,
    FROM_144,
    JOINTS_144,
    LEFT_HAND_JOINTS,
    PARENTS,
    RIGHT_HAND_JOINTS,
    SMPLX_JOINTS,
)
from wholebody.errors import BadInput

Skeleton = tuple[tuple[str, str | None], ...]

_BODY_22 = SMPLX_JOINTS[:22]
SMPL_JOINTS = (*_BODY_22, "left_hand", "right_hand")
"""The 24 joints of SMPL; its hands are one piece each, which turns about the root of the middle finger."""
SMPLH_JOINTS = (*_BODY_22, *LEFT_HAND_JOINTS, *RIGHT_HAND_JOINTS)
"""The 52 joints of SMPL-H."""
_SIDES = (("left", "Left"), ("right", "Right"))
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")

# fmt: off
_OPENPOSE_25 = (
    ("Nose", "nose"), ("Neck", "neck"), ("RShoulder", "right_shoulder"), ("RElbow", "right_elbow"),
    ("RWrist", "right_wrist"), ("LShoulder", "left_shoulder"), ("LElbow", "left_elbow"), ("LWrist", "left_wrist"),
    ("MidHip", "pelvis"), ("RHip", "right_hip"), ("RKnee", "right_knee"), ("RAnkle", "right_ankle"),
    ("LHip", "left_hip"), ("LKnee", "left_knee"), ("LAnkle", "left_ankle"), ("REye", "right_eye"), ("LEye", "left_eye"),
    ("REar", "right_ear"), ("LEar", "left_ear"), ("LBigToe", "left_big_toe"), ("LSmallToe", "left_small_toe"),
    ("LHeel", "left_heel"), ("RBigToe", "right_big_toe"), ("RSmallToe", "right_small_toe"), ("RHeel", "right_heel"),
)
# The 135 of OpenPose's whole-body model: another order of the body, and no joint in the middle of the hips.
_OPENPOSE_135_BODY = (
    "Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist", "LHip",
    "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle", "UpperNeck", "HeadTop", "LBigToe", "LSmallToe", "LHeel", "RBigToe",
    "RSmallToe", "RHeel",
)
_HUMAN36M_17 = (
    ("Pelvis", "pelvis"), ("RHip", "right_hip"), ("RKnee", "right_knee"), ("RAnkle", "right_ankle"),
    ("LHip", "left_hip"), ("LKnee", "left_knee"), ("LAnkle", "left_ankle"), ("Spine", "spine2"), ("Neck", "neck"),
    ("Nose", "nose"), ("Head", None), ("LShoulder", "left_shoulder"), ("LElbow", "left_elbow"),
    ("LWrist", "left_wrist"), ("RShoulder", "right_shoulder"), ("RElbow", "right_elbow"), ("RWrist", "right_wrist"),
)
_MIXAMO = {
    "pelvis": "Hips", "spine1": "Spine", "spine2": "Spine1", "spine3": "Spine2", "neck": "Neck", "head": "Head",
    "jaw": "Jaw", "hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase", "collar": "Shoulder",
    "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand", "eyeball": "Eye",
}
_UNITY = {
    "pelvis": "Hips", "spine1": "Spine", "spine2": "Chest", "spine3": "UpperChest", "neck": "Neck", "head": "Head",
    "jaw": "Jaw", "hip": "UpperLeg", "knee": "LowerLeg", "ankle": "Foot", "foot": "Toes", "collar": "Shoulder",
    "shoulder": "UpperArm", "elbow": "LowerArm", "wrist": "Hand", "eyeball": "Eye",
}
# fmt: on


def _mixamo(joint: str) -> str:
    side, _, part = joint.partition("_")
    if not part:
        return f"mixamorig:{_MIXAMO[joint]}"
    finger, k = part.rstrip("123"), part[-1]
    rest = f"Hand{finger.capitalize()}{k}" if finger in _FINGERS else _MIXAMO[part]
    return f"mixamorig:{side.capitalize()}{rest}"


def _unity(joint: str) -> str:
    side, _, part = joint.partition("_")
    if not part:
        return _UNITY[joint]
    finger, k = part.rstrip("123"), part[-1]
    if finger not in _FINGERS:
        return side.capitalize() + _UNITY[part]
    name = "Little" if finger == "pinky" else finger.capitalize()
    return f"{side.capitalize()}{name}{('Proximal', 'Intermediate', 'Distal')[int(k) - 1]}"


def _openpose_135() -> Skeleton:
    body = dict(_OPENPOSE_25) | {"UpperNeck": "neck", "HeadTop": None}
    hands = [
        (f"{side[0].upper()}{finger.capitalize()}{k + 1}", f"{side}_{finger}{end}")
        for side, _ in _SIDES
        for finger in _FINGERS
        for k, end in enumerate(("1", "2", "3", "_tip"))
    ]
    face: list[tuple[str, str | None]] = [(f"Face{k}", name) for k, name in enumerate((*FACE_CONTOUR, *FACE_LANDMARKS))]
    face += [("Face68", "right_eyeball"), ("Face69", "left_eyeball")]
    return (*((name, body[name]) for name in _OPENPOSE_135_BODY), *hands, *face)


SKELETONS: dict[str, Skeleton] = {
    "smpl": tuple((name, name.replace("_hand", "_middle1")) for name in SMPL_JOINTS),
    "smplh": tuple((name, name) for name in SMPLH_JOINTS),
    "smplx": tuple((name, name) for name in SMPLX_JOINTS),
    "coco_wholebody": tuple(
        (name, JOINTS_144[FROM_144[row]]) for name, row in zip(COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, strict=True)
    ),
    "human36m": _HUMAN36M_17,
    "openpose_25": _OPENPOSE_25,
    "openpose_135": _openpose_135(),
    "mixamo": tuple((_mixamo(name), name) for name in SMPLX_JOINTS),
    "unity": tuple((_unity(name), name) for name in SMPLX_JOINTS),
}
"""Skeletons by name: (own name, our name or None) of each joint, in the skeleton's order."""


def skeleton(name: str) -> Skeleton:
    """The skeleton of that name. BadInput names the known ones."""
    if name not in SKELETONS:
        raise BadInput(f"there is no skeleton {name!r}; known: {', '.join(SKELETONS)}.")
    return SKELETONS[name]


def rows(name: str) -> np.ndarray:
    """Which of the 144 each joint of a skeleton is (int64); -1 where the body has no such point."""
    return np.array([-1 if ours is None else JOINTS_144.index(ours) for _, ours in skeleton(name)], np.int64)


def rig_names(name: str) -> tuple[str, ...]:
    """What a rig (`RIGS`) calls each of the 55 joints of the tree, in their order."""
    if name not in RIGS:
        raise BadInput(f"there is no rig {name!r}; known: {', '.join(RIGS)}.")
    return tuple(own for own, _ in SKELETONS[name])


def parents(names: tuple[str, ...]) -> tuple[int, ...]:
    """The tree of some of our joints (SMPL's hands among them): who is missing gives way to its own parent."""
    result = []
    for name in names:
        if name in ("left_hand", "right_hand"):
            result.append(names.index(name.replace("hand", "wrist")))
            continue
        above = PARENTS[SMPLX_JOINTS.index(name)]
        while above >= 0 and SMPLX_JOINTS[above] not in names:
            above = PARENTS[above]
        result.append(-1 if above < 0 else names.index(SMPLX_JOINTS[above]))
    return tuple(result)
