"""Which of MakeHuman's 163 bones make up each of the 55 joints: in the bake, and between the open body and Anny."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.errors import AssetMissing

FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # the order of the joints
_MAKEHUMAN_FINGER = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
SIDES = (("left", "L", 1.0), ("right", "R", -1.0))  # name, MakeHuman's suffix, sign of x


def _bones_of_joint() -> dict[str, list[str]]:
    bones = {
        "pelvis": ["root", "pelvis.L", "pelvis.R", "spine05", "spine04"],
        "spine1": ["spine03"],
        "spine2": ["spine02"],
        "spine3": ["spine01", "breast.L", "breast.R"],
        "neck": ["neck01", "neck02", "neck03"],
        "head": ["head"],
        "jaw": ["jaw"],
    }
    for side, s, _ in SIDES:
        toes = [f"toe{t}-{k}.{s}" for t in range(1, 6) for k in ((1, 2) if t == 1 else (1, 2, 3))]
        limbs = {
            "hip": ["upperleg01", "upperleg02"],
            "knee": ["lowerleg01", "lowerleg02"],
            "ankle": ["foot"],
            "collar": ["clavicle", "shoulder01"],
            "shoulder": ["upperarm01", "upperarm02"],
            "elbow": ["lowerarm01", "lowerarm02"],
            "wrist": ["wrist", "metacarpal1", "metacarpal2", "metacarpal3", "metacarpal4"],
            "eyeball": ["eye"],
        }
        bones |= {f"{side}_{joint}": [f"{bone}.{s}" for bone in names] for joint, names in limbs.items()}
        bones[f"{side}_foot"] = toes
        for finger in FINGERS:
            for k in (1, 2, 3):
                bones[f"{side}_{finger}{k}"] = [f"finger{_MAKEHUMAN_FINGER[finger]}-{k}.{s}"]
    return bones


BONES = _bones_of_joint()


def joint_of_bone(labels: Sequence[str], bone_parents: Sequence[int]) -> np.ndarray:
    """For each bone the joint that carries it: its own, or that of its nearest ancestor that has one. (B,)"""
    joint = {bone: SMPLX_JOINTS.index(name) for name, bones in BONES.items() for bone in bones}
    out = []
    for bone in range(len(labels)):
        while labels[bone] not in joint:
            bone = bone_parents[bone]
        out.append(joint[labels[bone]])
    return np.array(out)


def check_package() -> None:
    """AssetMissing where the package is not installed; imports nothing."""
    from importlib.util import find_spec

    if find_spec("anny") is None:
        raise AssetMissing("Anny's own parameters need the package anny: pip install '.[anny]'.")
