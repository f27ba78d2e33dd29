import numpy as np
import pytest
import torch

from wholebody.body.joints import ROTATIONS_53, SMPLX_JOINTS
from wholebody.data.sample import Sample, axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.geometry.rotation import axis_angle_to_matrix as torch_axis_angle_to_matrix


def some_sample(rng, **changes):
    known = {
        "id": "a", "body": "open", "box_xyxy": np.array([1.0, 2, 30, 40]), "focal_px": np.full(2, 100.0),
        "principal_px": np.zeros(2), "full_pose": rng.normal(0, 1, (55, 3)), "betas": rng.normal(0, 1, 10),
        "expression": rng.normal(0, 1, 10), "transl": np.array([0, 0, 3.0]), "joints_px": rng.uniform(0, 40, (137, 2)),
        "joints_cam": rng.normal(0, 1, (137, 3)), "joint_valid": np.ones(137, bool),
        "joint_visible": np.ones(137, bool),
    }  # fmt: skip
    return Sample(**(known | changes))


def test_rotations_are_those_of_torch_and_come_back():
    rng = np.random.default_rng(0)
    axis = rng.normal(0, 1, (400, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.concatenate([[0, 1e-9, 1e-6, np.pi, np.pi - 1e-7, np.pi - 1e-3], rng.uniform(0, np.pi, 394)])
    rotvec = axis * angle[:, None]
    matrix = axis_angle_to_matrix(rotvec)
    np.testing.assert_allclose(matrix, torch_axis_angle_to_matrix(torch.from_numpy(rotvec)).numpy(), atol=1e-7)
    back = matrix_to_axis_angle(matrix)
    np.testing.assert_allclose(axis_angle_to_matrix(back), matrix, atol=1e-9)
    plain = (angle < 3.1) & (angle > 1e-5)
    np.testing.assert_allclose(back[plain], rotvec[plain], atol=1e-7)
    assert np.linalg.norm(back, axis=1).max() <= np.pi + 1e-9


def test_the_53_rotations_are_picked_by_name_and_keep_what_is_unknown():
    rng = np.random.default_rng(1)
    valid = np.ones(55, bool)
    valid[SMPLX_JOINTS.index("jaw")] = valid[SMPLX_JOINTS.index("left_index1")] = False
    sample = some_sample(rng, pose_valid=valid)
    matrices, known = sample.rotations_53()
    for name, row in (
        ("Jaw", "jaw"),
        ("Pelvis", "pelvis"),
        ("L_Index_1", "left_index1"),
        ("R_Thumb_3", "right_thumb3"),
    ):
        k, j = ROTATIONS_53.index(name), SMPLX_JOINTS.index(row)
        np.testing.assert_allclose(matrices[k], axis_angle_to_matrix(sample.full_pose[j]))
        assert known[k] == valid[j]
    assert known.sum() == 51


def test_a_sample_cannot_be_changed_by_accident():
    with pytest.raises(AttributeError):
        some_sample(np.random.default_rng(0)).betas = np.zeros(10)
