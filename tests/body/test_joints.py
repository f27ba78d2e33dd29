"""The joint sets against the published lists, and what must hold of any mirror or map."""

import json
from pathlib import Path

import numpy as np
import pytest

from wholebody.body import joints as J

PUBLISHED = json.loads((Path(__file__).parents[1] / "oracle" / "joints.json").read_text())


def test_sets_are_the_published_ones():
    assert list(J.JOINTS_137) == PUBLISHED["joints_137"]
    assert list(J.JOINTS_65) == PUBLISHED["joints_65"]
    assert list(J.FROM_144) == PUBLISHED["from_144"]
    assert [name.replace("Spine_", "Spine") for name in PUBLISHED["rotations_53"]] == [
        name.replace("Spine_", "Spine") for name in J.ROTATIONS_53
    ]


def test_roots_and_parts_are_the_published_ones():
    for key, name in (("root", "Pelvis"), ("lwrist", "L_Wrist"), ("rwrist", "R_Wrist"), ("neck", "Neck")):
        assert J.index(name, J.JOINTS_137) == PUBLISHED[f"{key}_137"]
    for ours, theirs in (("body", "body"), ("left_hand", "lhand"), ("right_hand", "rhand"), ("face", "face")):
        part = J.PARTS_137[ours]
        assert [part.start, part.stop - 1] == PUBLISHED["parts_137"][theirs]
    for key, name in (("pelvis", "pelvis"), ("lwrist", "left_wrist"), ("rwrist", "right_wrist"), ("neck", "neck")):
        assert J.index(name, J.SMPLX_JOINTS) == PUBLISHED["J_regressor_rows"][key]


def test_mirror_pairs_derived_from_names_are_the_published_ones():
    assert sorted(map(sorted, PUBLISHED["flip_pairs_137"])) == [list(pair) for pair in J.flip_pairs(J.JOINTS_137)]
    assert sorted(map(sorted, PUBLISHED["flip_pairs_53"])) == [list(pair) for pair in J.flip_pairs(J.ROTATIONS_53)]


@pytest.mark.parametrize("names", [J.SMPLX_JOINTS, J.JOINTS_144, J.JOINTS_137, J.ROTATIONS_53, J.COCO_WHOLEBODY])
def test_mirroring_twice_is_nothing_and_every_sided_joint_has_a_partner(names):
    order = J.flip_permutation(names)
    assert (order[order] == np.arange(len(names))).all()
    for i, name in enumerate(names):
        assert names[order[i]] == J.mirrored_name(name)
        if name.startswith(("left", "right", "L_", "R_")):
            assert order[i] != i, name
    assert len(set(names)) == len(names)


def test_mirror_of_the_tree_is_the_tree():
    order, parents = J.flip_permutation(J.SMPLX_JOINTS), np.array(J.PARENTS)
    assert (parents[order][1:] == order[parents[1:]]).all()
    assert all(p < i for i, p in enumerate(J.PARENTS))


def test_coco_wholebody_follows_names():
    assert len(J.COCO_WHOLEBODY) == 133
    rows = np.array(J.COCO_WHOLEBODY_FROM_137)
    own = {
        "left_hip": "L_Hip", "nose": "Nose", "right_heel": "R_Heel", "left_hand_root": "L_Wrist", "face-0": "Face_56",
        "face-8": "Face_64", "face-17": "Face_5", "face-67": "Face_55", "right_pinky_finger4": "R_Pinky_4",
        "left_forefinger1": "L_Index_1", "left_thumb1": "L_Thumb_1",
    }  # fmt: skip
    for coco, name in own.items():
        assert J.JOINTS_137[rows[J.COCO_WHOLEBODY.index(coco)]] == name
    # A mirror of the picture must be the same whichever set it is done in (Face_3 and Face_4 are not used here).
    assert (rows[J.flip_permutation(J.COCO_WHOLEBODY)] == J.flip_permutation(J.JOINTS_137)[rows]).all()


def test_coco_wholebody_is_the_published_order(oracle):
    names = [str(n).replace("_Wrist_Hand", "_Wrist") for n in oracle("db_coord")["in/MSCOCO/joints_name"]]
    names.remove("Pelvis")  # the published reader adds it, and moves the face behind the hands
    names = names[:23] + names[65:] + names[23:65]
    assert [J.JOINTS_137[row] for row in J.COCO_WHOLEBODY_FROM_137] == names


def test_rotations_point_at_the_tree():
    assert len(J.ROTATIONS_53_FROM_55) == 53
    assert set(J.ROTATIONS_53_FROM_55) == set(range(55)) - {23, 24}
    assert J.SMPLX_JOINTS[J.ROTATIONS_53_FROM_55[-1]] == "jaw"


def test_unknown_name_says_which():
    with pytest.raises(KeyError, match="L_Tail"):
        J.index("L_Tail", J.JOINTS_137)
