"""Rotations between their three forms: 6D columns, matrices, axis-angle. Thin, differentiable, for any batch shape.

All functions keep dtype and device, have finite gradients at the identity and near half a turn, and contain no
data-dependent branch, so that they compile and export.
"""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from the 6D form (..., 6) that the networks predict.

    The six numbers are a 3×2 matrix in row-major order: its two columns, orthonormalised, are the first two columns
    of the rotation (the published layout). Any batch shape is right, a batch of three too (the published code takes
    its cross product along the wrong axis there).
    """
    columns = rotation_6d.unflatten(-1, (3, 2))
    # The clamp keeps an all-zero prediction finite; it is far below any length that a network gives.
    return roma.special_gramschmidt(columns, epsilon=1e-12)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """The 6D form (..., 6) of rotation matrices (..., 3, 3): inverse of `rotation_6d_to_matrix`."""
    return matrix[..., :2].flatten(-2)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) from axis-angle vectors (..., 3) in radians."""
    return roma.rotvec_to_rotmat(axis_angle)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3) in radians, of length at most pi, from rotation matrices (..., 3, 3)."""
    return roma.rotmat_to_rotvec(matrix)


def rotation_6d_to_axis_angle(rotation_6d: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3) in radians from the 6D form (..., 6)."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(rotation_6d))


def rotation_about_z(angle: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) about the camera's viewing axis by `angle` (...) radians.

    A positive angle turns x (right) towards y (down): clockwise as seen in the picture.
    """
    cos, sin, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def mirrored(rotations: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) as seen in a mirror across the plane x = 0."""
    sign = rotations.new_tensor((-1.0, 1.0, 1.0))
    return rotations * sign[:, None] * sign


def mirror_axis_angle(axis_angle: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3) of the rotations as seen in a mirror across the plane x = 0: (x, -y, -z)."""
    return axis_angle * axis_angle.new_tensor([1.0, -1.0, -1.0])
