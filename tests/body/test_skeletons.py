"""Names and orders of other skeletons."""

from __future__ import annotations

import pytest

from wholebody.body import RIGS
from wholebody.body.joints import JOINTS_144, PARENTS, SMPLX_JOINTS
from wholebody.body.skeletons import (
    SKELETONS,
    SMPL_JOINTS,
    SMPLH_JOINTS,
    parents,
    rig_names,
    rows,
    skeleton,
)
from wholebody.errors import BadInput

COUNTS = {"smpl": 24, "smplh": 52, "smplx": 55, "coco_wholebody": 133, "human36m": 17, "openpose_25": 25,
          "openpose_135": 135, "mixamo": 55, "unity": 55}  # fmt: skip


@pytest.mark.parametrize("name", SKELETONS)
def test_each_has_its_own_number_of_joints_all_named_differently(name: str) -> None:
    own = [joint for joint, _ in skeleton(name)]
    assert len(own) == COUNTS[name] == len(set(own))
    known = [ours for _, ours in skeleton(name) if ours is not None]
    assert set(known) <= set(JOINTS_144) and len(known) >= len(own) - 1
    assert [JOINTS_144[row] if row >= 0 else None for row in rows(name)] == [ours for _, ours in skeleton(name)]


@pytest.mark.parametrize("name", SKELETONS)
def test_left_stays_left(name: str) -> None:
    for own, ours in skeleton(name):
        if ours is None or own.lower().startswith("face"):
            continue
        plain = own.removeprefix("mixamorig:")
        if ours.startswith("left_"):
            assert plain.startswith(("left", "L"))
        elif ours.startswith("right_"):
            assert plain.startswith(("right", "R"))
        else:
            assert not plain.startswith(("left_", "right_", "Left", "Right"))


def test_places_that_everybody_knows() -> None:
    assert skeleton("openpose_25")[8] == ("MidHip", "pelvis")
    assert skeleton("openpose_25")[4] == ("RWrist", "right_wrist")
    assert skeleton("openpose_135")[16] == ("RAnkle", "right_ankle")
    assert skeleton("openpose_135")[25] == ("LThumb1", "left_thumb1")
    assert skeleton("openpose_135")[45] == ("RThumb1", "right_thumb1")
    assert skeleton("openpose_135")[65] == ("Face0", "right_contour_1")
    assert skeleton("human36m")[9][0] == "Nose" and skeleton("human36m")[16] == ("RWrist", "right_wrist")
    assert SMPL_JOINTS[22:] == ("left_hand", "right_hand") and SMPLH_JOINTS[22] == "left_index1"
    assert rig_names("mixamo")[SMPLX_JOINTS.index("left_pinky2")] == "mixamorig:LeftHandPinky2"
    assert rig_names("mixamo")[SMPLX_JOINTS.index("right_elbow")] == "mixamorig:RightForeArm"
    assert rig_names("unity")[SMPLX_JOINTS.index("right_pinky3")] == "RightLittleDistal"
    assert rig_names("unity")[SMPLX_JOINTS.index("left_eyeball")] == "LeftEye"


def test_trees_of_the_smaller_bodies() -> None:
    assert parents(SMPLX_JOINTS) == PARENTS
    assert parents(SMPL_JOINTS) == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
    tree = parents(SMPLH_JOINTS)
    assert [tree[22 + 3 * k] for k in range(10)] == [20] * 5 + [21] * 5


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="mixamo"):
        skeleton("blender")
    with pytest.raises(BadInput, match=", ".join(RIGS)):
        rig_names("smpl")
