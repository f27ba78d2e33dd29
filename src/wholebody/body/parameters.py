"""Body parameters under the turns of the camera that crops make: mirror and rotation.

A body whose parameters move as here projects, by the camera that `geometry.camera.warp_camera` gives, onto the pixels
that the crop moves.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wholebody.body.joints import SMPLX_JOINTS, flip_permutation
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle, mirror_axis_angle

_MIRRORED = flip_permutation(SMPLX_JOINTS).tolist()


def mirror_pose(pose: Tensor) -> Tensor:
    """All 55 axis-angle rotations (..., 55, 3) of the mirror image (x -> -x): sides change places.

    The pose holds whole rotations (`BodyModel.full_pose`): of poses relative to a relaxed hand it is right only if
    the two relaxed hands mirror each other, as they do in the licensed files and in the open body.
    """
    return mirror_axis_angle(pose[..., _MIRRORED, :])


def turn_body(pose: Tensor, transl: Tensor, pelvis: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Pose (..., 55, 3) and translation (..., 3) after the camera frame takes `turn` (3, 3), mirror or rotation.

    Args:
        pelvis: (..., 3), where the pelvis is with this shape in the rest pose (`BodyModel.rest_pelvis`): a body turns
            about its pelvis, not about the origin of its frame.
        turn: orthogonal; of negative determinant in a mirror, as `geometry.camera.turn_of_affine` gives it.
    """
    mirrored = torch.linalg.det(turn) < 0
    mirror = torch.diag(turn.new_tensor([-1.0, 1.0, 1.0]))
    where = (transl + pelvis) @ turn.mT
    if bool(mirrored):
        pose, turn = mirror_pose(pose), turn @ mirror
        pelvis = pelvis @ mirror
    root = matrix_to_axis_angle(turn @ axis_angle_to_matrix(pose[..., 0, :]))
    return torch.cat([root[..., None, :], pose[..., 1:, :]], -2), where - pelvis
