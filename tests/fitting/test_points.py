"""The keypoints of the fit are the body's own, and their derivatives are what differences say."""

from __future__ import annotations

import pytest
import torch
from conftest_fitting import ROWS

from wholebody.body.layer import BodyModel
from wholebody.fitting.points import TURNING, KeypointBody
from wholebody.geometry.rotation import axis_angle_to_matrix


def _pose(seed: int, count: int = 2):
    generator = torch.Generator().manual_seed(seed)
    rotations = axis_angle_to_matrix(0.4 * torch.randn(count, 55, 3, generator=generator).double())
    rotations[:, 23:25] = torch.eye(3).double()  # no keypoint follows the eyes
    return rotations, torch.randn(count, 20, generator=generator).double()


def test_points_are_those_of_the_body_layer(body):
    rotations, coefficients = _pose(0)
    points = KeypointBody(body)(rotations, coefficients).points
    whole = BodyModel.load(flat_hand_mean=True, dtype=torch.float64)
    joints = whole.from_matrices(rotations, coefficients[:, :10], coefficients[:, 10:]).joints
    torch.testing.assert_close(points, whole.joints_137(joints)[:, ROWS], atol=1e-6, rtol=0)


def test_points_of_the_licensed_layout(smplx_body):
    rotations, coefficients = _pose(1)
    points = KeypointBody(smplx_body)(rotations, 0.1 * coefficients).points
    out = smplx_body.from_matrices(
        rotations.float(), 0.1 * coefficients[:, :10].float(), 0.1 * coefficients[:, 10:].float()
    )
    torch.testing.assert_close(points.float(), smplx_body.joints_137(out.joints)[:, ROWS], atol=1e-4, rtol=0)


@pytest.mark.parametrize("what", ["turn", "shape"])
def test_derivatives_are_differences(body, what, monkeypatch):
    rotations, coefficients = _pose(2)
    keypoints = KeypointBody(body)
    # Correctives are left out of the derivatives on purpose; hold them still, so that the rest must agree to the digit.
    of_pose, eye = keypoints.body._rest_vertices, torch.eye(3).double().expand(2, 55, 3, 3)
    monkeypatch.setattr(keypoints.body, "_rest_vertices", lambda c, r: of_pose(c, eye))
    here, small = keypoints(rotations, coefficients), 1e-6
    if what == "shape":
        for k in range(0, 20, 3):
            there = keypoints(rotations, coefficients + small * torch.eye(20).double()[k])
            torch.testing.assert_close((there.points - here.points) / small, here.by_shape[..., k], atol=1e-5, rtol=0)
        return
    for row in (0, 3, 9, 15, 16, 18, 22, 30, 52):
        for axis in range(3):
            turned = rotations.clone()
            turned[:, TURNING[row]] @= axis_angle_to_matrix(small * torch.eye(3).double()[axis])
            there = keypoints(turned, coefficients)
            torch.testing.assert_close(
                (there.points - here.points) / small, here.by_turn[:, :, :, row, axis], atol=1e-5, rtol=0
            )
