"""A person's truth in the frame of a crop.

A crop is an affine map of the picture: a mirror, a rotation, a scale and a shift. The picture, its 2D points, the 3D
joints, the root's rotation and the camera move by it together; everything here follows from that one map.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from wholebody.body.joints import JOINTS_137, ROTATIONS_53, flip_permutation
from wholebody.data.augment import CROP_HW
from wholebody.data.sample import Sample
from wholebody.geometry.camera import turn_of_affine
from wholebody.geometry.crop import apply_affine

Targets = Callable[[Sample, np.ndarray], dict[str, np.ndarray]]
"""From a person and the map from the picture's pixels to the crop's (2, 3) to what a network is asked about it, by
name. What networks are trained towards is the objective's own (`training.own.targets`, `training.published.targets`)
and handed in; `in_crop`, below, is the truth itself."""

_PELVIS = JOINTS_137.index("Pelvis")
_SWAP, _SWAP_53 = flip_permutation(JOINTS_137), flip_permutation(ROTATIONS_53)  # once: looked up by name, they are slow
_MIRROR = np.diag([-1.0, 1.0, 1.0])


def in_crop(sample: Sample, crop_from_image: np.ndarray, crop_hw: tuple[int, int] = CROP_HW) -> dict[str, np.ndarray]:
    """The truth of one person in the frame of one crop, float32.

    Args:
        sample: the person; missing truth is masked in it, never zero that counts.
        crop_from_image: 2×3 affine map from picture pixels to crop pixels, with or without a mirror.
        crop_hw: the crop's height and width in pixels.

    Returns:
        rotations (53, 3, 3): ROTATIONS_53 as matrices, the root's in the (rotated, mirrored) camera frame;
        rotation_valid (53,); betas (10,), expression (10,); joints_cam (137, 3): metres, camera frame, pelvis at the
        origin; joints_crop (137, 2): pixels of the crop; joint_valid (137,): known; joint_inside (137,): known and
        inside the crop; joint_cam_valid (137,): known in space, and so is the pelvis; focal_crop (2,),
        principal_crop (2,): the camera that sees the turned joints in the crop, zeros where camera_valid () is 0;
        shape_valid (), expression_valid ().
    """
    turn = turn_of_affine(crop_from_image)
    mirrored = is_mirrored(crop_from_image)
    about_z = turn @ _MIRROR if mirrored else turn
    joints_crop = apply_affine(sample.joints_px, crop_from_image)
    joints_cam = sample.joints_cam - sample.joints_cam[_PELVIS]
    rotations, rotation_valid = sample.rotations_53()
    known, known_cam = sample.joint_valid.astype(bool), sample.joint_cam_known
    known_cam = known_cam & known_cam[_PELVIS]
    if mirrored:
        joints_crop, joints_cam, known = joints_crop[_SWAP], joints_cam[_SWAP] @ _MIRROR, known[_SWAP]
        known_cam = known_cam[_SWAP]
        rotations, rotation_valid = _MIRROR @ rotations[_SWAP_53] @ _MIRROR, rotation_valid[_SWAP_53]
    # Exact for square pixels; where a set's are not quite square, no pinhole camera sees a rotated crop exactly.
    focal = (crop_from_image[:, :2] @ np.diag(sample.focal_px) @ turn[:2, :2].T).diagonal()
    principal = apply_affine(sample.principal_px[None], crop_from_image)[0]
    height, width = crop_hw
    inside = known & (joints_crop >= 0).all(1) & (joints_crop[:, 0] < width) & (joints_crop[:, 1] < height)
    found = {
        "rotations": np.concatenate([about_z[None] @ rotations[:1], rotations[1:]]),
        "rotation_valid": rotation_valid,
        "betas": sample.betas,
        "expression": sample.expression,
        "joints_cam": joints_cam @ about_z.T,
        "joints_crop": joints_crop,
        "joint_valid": known,
        "joint_inside": inside,
        "joint_cam_valid": known_cam,
        "focal_crop": focal * sample.camera_valid,
        "principal_crop": principal * sample.camera_valid,
        "camera_valid": sample.camera_valid,
        "shape_valid": sample.shape_valid,
        "expression_valid": sample.expression_valid,
    }
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def is_mirrored(crop_from_image: np.ndarray) -> bool:
    return bool(np.linalg.det(np.asarray(crop_from_image, np.float64)[:, :2]) < 0)


def both(*targets: Targets) -> Targets:
    """Several targets of the same crop side by side."""
    return _Together(targets)


class _Together:
    # A class, not a function in a function: loader processes get it as a pickle.
    def __init__(self, targets: tuple[Targets, ...]):
        self.targets = targets

    def __call__(self, sample: Sample, crop_from_image: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value for one in self.targets for name, value in one(sample, crop_from_image).items()}
