"""Rotations between their three forms: 6D columns, matrices, axis-angle. Differentiable, for any batch shape.

All functions keep dtype and device, have finite gradients at the identity and near half a turn, and contain no
data-dependent branch, so that they compile and export. The formulas are the textbook's; `roma` has them too, and the
tests compare with it, but importing it takes longer than all else that a first prediction needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def rotation_6d_to_matrix(rotation_6d: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices (..., 3, 3) from the 6D form (..., 6) that the networks predict.

    The six numbers are a 3×2 matrix in row-major order: its two columns, orthonormalised, are the first two columns
    of the rotation (the published layout). Any batch shape is right, a batch of three too (the published code takes
    its cross product along the wrong axis there).
    """
    first, second = rotation_6d.unflatten(-1, (3, 2)).unbind(-1)
    x = _unit(first)
    y = _unit(second - (x * second).sum(-1, keepdim=True) * x)
    return torch.stack([x, y, torch.linalg.cross(x, y, dim=-1)], -1)


def _unit(vectors: Tensor) -> Tensor:
    # The clamp keeps an all-zero prediction finite; it is far below any length that a network gives.
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp_min(1e-12)


def matrix_to_rotation_6d(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 6"]:
    """The 6D form (..., 6) of rotation matrices (..., 3, 3): inverse of `rotation_6d_to_matrix`."""
    return matrix[..., :2].flatten(-2)


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices (..., 3, 3) from axis-angle vectors (..., 3) in radians, by Rodrigues' formula."""
    squared = axis_angle.square().sum(-1)[..., None, None]
    # Below this the series are exact in double precision; the other branch must not divide by zero there.
    small = squared < 1e-8
    angle = torch.where(small, 1.0, squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, 2 * ((angle / 2).sin() / angle).square())
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    outer = axis_angle[..., :, None] * axis_angle[..., None, :]
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return eye + sine * cross + cosine * (outer - squared * eye)


def matrix_to_axis_angle(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Axis-angle vectors (..., 3) in radians, of length at most pi, from rotation matrices (..., 3, 3)."""
    quaternion = matrix_to_quaternion(matrix)
    vector, scalar = quaternion[..., :3], quaternion[..., 3:]
    sign = torch.where(scalar < 0, -1.0, 1.0).to(matrix.dtype)  # of the two quaternions, the one of the shorter turn
    vector, scalar = vector * sign, scalar * sign
    squared = vector.square().sum(-1, keepdim=True)
    small = squared < 1e-8
    sine = torch.where(small, 1.0, squared).sqrt()
    # By the half angle: its sine is the vector's length, its cosine the scalar. Near zero, the series of angle / sine.
    factor = torch.where(small, 2 + squared / 3, 2 * torch.atan2(sine, scalar) / sine)
    return factor * vector


def matrix_to_quaternion(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternions (..., 4), x y z w, of either sign, from rotation matrices (..., 3, 3).

    Shepperd's method: all four rows of the quaternion's products with itself follow from the matrix; the one with the
    largest diagonal is the most precise.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    rows = [
        torch.stack([1 + a - e - i, b + d, c + g, h - f], -1),
        torch.stack([b + d, 1 - a + e - i, f + h, c - g], -1),
        torch.stack([c + g, f + h, 1 - a - e + i, d - b], -1),
        torch.stack([h - f, c - g, d - b, 1 + a + e + i], -1),
    ]
    best = torch.stack([a - e - i, e - a - i, i - a - e, a + e + i], -1).argmax(-1)
    products = torch.stack(rows, -2)
    row = products.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    return row / torch.linalg.vector_norm(row, dim=-1, keepdim=True)


def rotation_6d_to_axis_angle(rotation_6d: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3"]:
    """Axis-angle vectors (..., 3) in radians from the 6D form (..., 6)."""
    return matrix_to_axis_angle(rotation_6d_to_matrix(rotation_6d))


def mirrored(rotations: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrices (..., 3, 3) as seen in a mirror across the plane x = 0."""
    sign = rotations.new_tensor((-1.0, 1.0, 1.0))
    return rotations * sign[:, None] * sign
