"""The kinematic tree: torch and numpy against a slow twin, and the parts of it that are used alone."""

import numpy as np
import pytest
import torch

from wholebody.body.joints import PARENTS, ROTATIONS_53, ROTATIONS_53_FROM_55, SMPLX_JOINTS
from wholebody.body.kinematics import (
    BODY_TREE,
    KinematicTree,
    chain,
    moved_places,
    pose_arrays,
    tree_rotations,
    turn_of,
)
from wholebody.data.sample import axis_angle_to_matrix

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


def naive(rotations, rest, parents):
    turns, places = [rotations[0]], [rest[0]]
    for joint in range(1, len(parents)):
        above = parents[joint]
        turns.append(turns[above] @ rotations[joint])
        places.append(places[above] + turns[above] @ (rest[joint] - rest[above]))
    return np.stack(turns), np.stack(places)


@pytest.mark.parametrize("parents", [PARENTS, PARENTS[:22], SMPL_PARENTS], ids=["smplx", "body", "smpl"])
def test_both_forms_pose_the_tree_as_a_walk_over_its_joints_does(parents):
    rng = np.random.default_rng(3)
    rotations = axis_angle_to_matrix(rng.normal(0, 1, (4, len(parents), 3)))
    rest = rng.normal(0, 0.5, (4, len(parents), 3))
    expected = [np.stack(part) for part in zip(*map(naive, rotations, rest, [parents] * 4), strict=True)]
    in_torch = KinematicTree(parents).pose(torch.from_numpy(rotations), torch.from_numpy(rest))
    for form in (in_torch, pose_arrays(rotations, rest, parents)):
        for found, true in zip(form, expected, strict=True):
            np.testing.assert_allclose(np.asarray(found), true, atol=1e-12)
    one = pose_arrays(rotations[2], rest[2], parents)
    many = pose_arrays(rotations, rest[2], parents)  # one skeleton for all
    np.testing.assert_allclose(one[0], expected[0][2], atol=1e-12)
    np.testing.assert_allclose(one[1], expected[1][2], atol=1e-12)
    np.testing.assert_allclose(many[1][2], expected[1][2], atol=1e-12)


def test_places_follow_the_shape_linearly():
    rng = np.random.default_rng(6)
    rotations = torch.from_numpy(axis_angle_to_matrix(rng.normal(0, 1, (2, 55, 3))))
    rest = torch.from_numpy(rng.normal(0, 0.5, (55, 3, 4)))
    turns, _ = BODY_TREE.pose(rotations, rest[..., 0].expand(2, 55, 3))
    places = moved_places(turns, rest)
    for one in range(4):
        torch.testing.assert_close(places[..., one], BODY_TREE.pose(rotations, rest[..., one].expand(2, 55, 3))[1])


def test_posing_arrays_leaves_what_it_is_given_and_its_precision_alone():
    rng = np.random.default_rng(4)
    rotations = axis_angle_to_matrix(rng.normal(0, 1, (2, 55, 3))).astype(np.float32)
    rest = rng.normal(0, 0.5, (55, 3)).astype(np.float32)
    kept = rotations.copy(), rest.copy()
    turns, places = pose_arrays(rotations, rest)
    assert turns.dtype == places.dtype == np.float32
    np.testing.assert_array_equal(rotations, kept[0])
    np.testing.assert_array_equal(rest, kept[1])


def test_one_joint_is_turned_along_its_chain_as_in_the_whole_tree():
    wrist = SMPLX_JOINTS.index("left_wrist")
    names = [SMPLX_JOINTS[joint] for joint in chain(wrist)]
    assert names == "pelvis spine1 spine2 spine3 left_collar left_shoulder left_elbow left_wrist".split()
    rng = np.random.default_rng(5)
    rotations = torch.from_numpy(axis_angle_to_matrix(rng.normal(0, 1, (3, 55, 3))))
    whole, _ = BODY_TREE.pose(rotations, torch.zeros(3, 55, 3, dtype=torch.float64))
    torch.testing.assert_close(turn_of(rotations[:, :22], wrist), whole[:, wrist])


def test_rotations_of_networks_stand_at_their_joints_and_eyes_look_ahead():
    numbered = torch.arange(2 * 53 * 9, dtype=torch.float64).reshape(2, 53, 3, 3)
    tree = tree_rotations(numbered)
    assert tree.shape == (2, 55, 3, 3) and len(ROTATIONS_53) == 53
    torch.testing.assert_close(tree[:, list(ROTATIONS_53_FROM_55)], numbered, rtol=0, atol=0)
    for eye in ("left_eyeball", "right_eyeball"):
        assert (tree[:, SMPLX_JOINTS.index(eye)] == torch.eye(3)).all()
