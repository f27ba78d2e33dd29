"""What the bake knows of joints: their numbers, mirrors and MakeHuman's places for them. Which bones make up each is
told in `wholebody.body.makehuman`."""

import numpy as np

from wholebody.body.joints import PARENTS, SMPLX_JOINTS, flip_permutation
from wholebody.body.makehuman import BONES, FINGERS, SIDES, joint_of_bone

__all__ = ["BONES", "FINGERS", "MIRRORED_JOINT", "SIDES", "J", "descendants", "head_bones", "joint_of_bone", "tip_bone"]

J = {name: k for k, name in enumerate(SMPLX_JOINTS)}
MIRRORED_JOINT = np.array(flip_permutation(SMPLX_JOINTS))


def head_bones(joint: str) -> list[str]:
    """The bones whose heads, averaged, are where MakeHuman has this joint."""
    if joint == "pelvis":
        return ["spine04"]
    if joint.endswith("_foot"):
        s = "L" if joint.startswith("left") else "R"
        return [f"toe2-1.{s}", f"toe3-1.{s}"]
    return BONES[joint][:1]


def tip_bone(side: str, finger: str) -> str:
    """The bone whose tail is the tip of the finger."""
    return BONES[f"{side}_{finger}3"][0]


def descendants(joint: int) -> list[int]:
    """All joints below this one in the tree."""
    below = [joint]
    for k in range(joint + 1, 55):
        if PARENTS[k] in below:
            below.append(k)
    return below[1:]
