"""From one person's truth to what a network is trained towards, in the frame of its crop.

A crop is an affine map of the picture: a mirror, a rotation, a scale and a shift. The picture, its 2D points, the 3D
joints and the root's rotation move by it together; everything here follows from that one map.
"""

from __future__ import annotations

import numpy as np

from wholebody.body.joints import JOINTS_137, PARTS_137, ROTATIONS_53, flip_permutation
from wholebody.data.sample import Sample

BOX_PARTS = ("left_hand", "right_hand", "face")
_HAND_AND_WRIST = {"left_hand": "L_Wrist", "right_hand": "R_Wrist"}
_SWAP, _SWAP_53 = flip_permutation(JOINTS_137), flip_permutation(ROTATIONS_53)  # once: looked up by name, they are slow
_SEEN = 0.6  # of a part has to be in the crop
_MARGIN = 1.2  # by which a sample's part boxes exceed their joints


def crop_targets(sample: Sample, crop_from_image: np.ndarray, crop_hw: tuple[int, int]) -> dict[str, np.ndarray]:
    """The targets of one person for one crop, float32.

    Args:
        sample: the person; missing truth is masked in it, never zero that counts.
        crop_from_image: 2×3 affine map from picture pixels to crop pixels, with or without a mirror.
        crop_hw: the crop's height and width in pixels.

    Returns:
        rotations (53, 3, 3): ROTATIONS_53 as matrices, the root's in the (rotated, mirrored) camera frame;
        rotation_valid (53,); betas (10,), expression (10,); joints_cam (137, 3): metres, camera frame, pelvis at the
        origin; joints_crop (137, 2): pixels of the crop; joint_valid (137,): known; joint_inside (137,): known and
        inside the crop; joint_cam_valid (137,): known in space, and so is the pelvis; boxes (3, 4): xyxy crop pixels
        of BOX_PARTS, tight around the part's joints, or the sample's own boxes without their margin where a joint is
        not known; box_valid (3,): most of the box lies in the crop; focal_crop (2,),
        principal_crop (2,): the camera that sees the turned joints in the crop, zeros where camera_valid () is 0;
        shape_valid (), expression_valid ().
    """
    linear = crop_from_image[:, :2].astype(np.float64)
    mirrored = np.linalg.det(linear) < 0
    joints_crop = sample.joints_px @ linear.T + crop_from_image[:, 2]
    joints_cam = sample.joints_cam - sample.joints_cam[JOINTS_137.index("Pelvis")]
    rotations, rotation_valid = sample.rotations_53()
    known, known_cam = sample.joint_valid.astype(bool), sample.joint_cam_known
    known_cam = known_cam & known_cam[JOINTS_137.index("Pelvis")]
    if mirrored:
        joints_crop, joints_cam, known = joints_crop[_SWAP], joints_cam[_SWAP] * [-1, 1, 1], known[_SWAP]
        known_cam = known_cam[_SWAP]
        mirror = np.diag([-1.0, 1.0, 1.0])
        rotations, rotation_valid = mirror @ rotations[_SWAP_53] @ mirror, rotation_valid[_SWAP_53]
        linear = linear @ mirror[:2, :2]
    angle = np.arctan2(linear[1, 0], linear[0, 0])
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    joints_cam = joints_cam @ about_z.T
    # Exact for square pixels; where a set's are not quite square, no pinhole camera sees a rotated crop exactly.
    turn = about_z[:2, :2] @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    focal = (crop_from_image[:, :2] @ np.diag(sample.focal_px) @ turn.T).diagonal()
    principal = crop_from_image[:, :2] @ sample.principal_px + crop_from_image[:, 2]
    rotations = np.concatenate([about_z[None] @ rotations[:1], rotations[1:]])

    height, width = crop_hw
    inside = known & (joints_crop >= 0).all(1) & (joints_crop[:, 0] < width) & (joints_crop[:, 1] < height)
    parts = [_part_box(part, joints_crop, known, inside) for part in BOX_PARTS]
    if not all(valid is not None for _, valid in parts):
        annotated = _annotated_boxes(sample, crop_from_image, mirrored, crop_hw)
        parts = [part if part[1] is not None else other for part, other in zip(parts, annotated, strict=True)]
    boxes, box_valid = zip(*parts, strict=True)
    return {
        "rotations": rotations.astype(np.float32),
        "rotation_valid": rotation_valid.astype(np.float32),
        "betas": sample.betas.astype(np.float32),
        "expression": sample.expression.astype(np.float32),
        "joints_cam": joints_cam.astype(np.float32),
        "joints_crop": joints_crop.astype(np.float32),
        "joint_valid": known.astype(np.float32),
        "joint_inside": inside.astype(np.float32),
        "joint_cam_valid": known_cam.astype(np.float32),
        "boxes": np.stack(boxes).astype(np.float32),
        "box_valid": np.array(box_valid, np.float32),
        "focal_crop": (focal * sample.camera_valid).astype(np.float32),
        "principal_crop": (principal * sample.camera_valid).astype(np.float32),
        "camera_valid": np.array(sample.camera_valid, np.float32),
        "shape_valid": np.array(sample.shape_valid, np.float32),
        "expression_valid": np.array(sample.expression_valid, np.float32),
    }


def _part_box(
    part: str, joints_crop: np.ndarray, known: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, bool | None]:
    """The tight box, and whether it can be seen; None if some of the part's joints are not known."""
    rows = np.arange(len(JOINTS_137))[PARTS_137[part]]
    if part in _HAND_AND_WRIST:
        rows = np.append(rows, JOINTS_137.index(_HAND_AND_WRIST[part]))
    if not known[rows].all():
        return np.zeros(4), None
    points = joints_crop[rows]
    # A box mostly outside the crop cannot be seen; its centre would be a guess.
    return np.concatenate([points.min(0), points.max(0)]), bool(inside[rows].mean() > _SEEN)


def _annotated_boxes(
    sample: Sample, crop_from_image: np.ndarray, mirrored: bool, crop_hw: tuple[int, int]
) -> list[tuple[np.ndarray, bool]]:
    """The sample's own part boxes in the crop, in the order of BOX_PARTS: sets annotate boxes of parts of which they
    know some joints only (COCO's faces lack the jaw's and the head's)."""
    found: list[tuple[np.ndarray, bool]] = []
    limits = np.array([crop_hw[1], crop_hw[0]], np.float64)
    for box, valid in zip(
        (sample.left_hand_box, sample.right_hand_box, sample.face_box), sample.part_valid, strict=True
    ):
        if not valid:
            found.append((np.zeros(4), False))
            continue
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / (2 * _MARGIN)
        corners = middle + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners = corners @ crop_from_image[:, :2].T + crop_from_image[:, 2]
        low, high = corners.min(0), corners.max(0)
        covered = (np.minimum(high, limits) - np.maximum(low, 0)).clip(0).prod() / max((high - low).prod(), 1e-9)
        found.append((np.concatenate([low, high]), bool(covered > _SEEN)))
    return [found[k] for k in ((1, 0, 2) if mirrored else (0, 1, 2))]
