"""What the published networks are trained towards, from one person and one crop.

Positions are in cells of the crop: x in 12, y in 16, depth in 16, the latter about the root of the part that a joint
belongs to (the pelvis 2 m deep, hands about their wrists and face about the neck 0.3 m). Keys and shapes are those of
the published loader; so are the numbers, except where that one errs (boxes that begin outside the picture, batches of
three, EHF's boxes: see the readers and the losses).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wholebody.body.joints import (
    JOINTS_137,
    PARTS_137,
    ROTATIONS_53,
    ROTATIONS_53_FROM_55,
    SMPLX_JOINTS,
    flip_permutation,
)
from wholebody.data.augment import CROP_HW
from wholebody.data.framing import is_mirrored
from wholebody.data.mesh_joints import MeshJoints
from wholebody.data.sample import Sample, axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.geometry.camera import project, turn_of_affine
from wholebody.geometry.crop import apply_affine

CELLS = (16, 16, 12)  # depth, rows, columns
DEPTH_M = {"body": 2.0, "left_hand": 0.3, "right_hand": 0.3, "face": 0.3}
LARGEST_BETA = 3.0
"""Of shapes that go beyond it the mean shape is learnt instead."""
PARTS = {"lhand": "left_hand_box", "rhand": "right_hand_box", "face": "face_box"}

_ROOT_NAMES = {"body": "Pelvis", "left_hand": "L_Wrist", "right_hand": "R_Wrist", "face": "Neck"}
_ROOT_OF = np.zeros(137, np.int64)  # the row of each joint's root
_DEPTH_OF = np.zeros(137)
for _part, _rows in PARTS_137.items():
    _ROOT_OF[_rows], _DEPTH_OF[_rows] = JOINTS_137.index(_ROOT_NAMES[_part]), DEPTH_M[_part]
_PELVIS = JOINTS_137.index("Pelvis")
_FLIP_JOINTS, _FLIP_ROTATIONS = flip_permutation(JOINTS_137), flip_permutation(ROTATIONS_53)
_ROWS_53 = np.array(ROTATIONS_53_FROM_55)
_HANDS_55 = slice(25, 55)
_MIRROR = np.array([-1.0, 1.0, 1.0])
_JAW = SMPLX_JOINTS.index("jaw")
# A joint of the mesh is known if the rotations that it hangs from are: feet from ankles, hands, the face from the jaw.
_FEET = {
    "left_ankle": ("L_Big_toe", "L_Small_toe", "L_Heel"),
    "right_ankle": ("R_Big_toe", "R_Small_toe", "R_Heel"),
}


def published_targets(
    sample: Sample,
    crop_from_image: np.ndarray,
    mesh_joints_cam: np.ndarray | None = None,
    hand_mean: np.ndarray | None = None,
    about: str = "parts",
) -> dict[str, np.ndarray]:
    """The targets of one person for one crop of 512×384 pixels, float32.

    Args:
        sample: missing truth is masked in it, never zero that counts. Parameters of a body that the network does not
            learn have to be masked by the caller.
        crop_from_image: 2×3 affine map from picture pixels to crop pixels, with or without a mirror.
        mesh_joints_cam: (137, 3) metres, camera frame: the joints of the fitted mesh, as `mesh_joints.MeshJoints` gives
            them; None: not known.
        hand_mean: (30, 3) axis-angle, the relaxed hands of the body file, left then right. Needed where the sample's
            hands are measured from the flat hand: the network's are measured from the relaxed one. Without it such
            hands are masked.
        about: what `joint_cam` is measured from: "parts", the root of a joint's part (OSX), or "pelvis" (SMPLer-X and
            SMPLest-X).

    Returns:
        `joint_img` (137, 3) cells, `joint_cam` (137, 3) metres about that root, of the set's own joints, and
        `joint_valid`, `joint_trunc` (137, 1): known (in space where `is_3D`), known and inside the crop; the same of
        the mesh with `smplx_` before the name; `smplx_pose` (159,) axis-angle, `smplx_shape` (10,), `smplx_expr` (10,)
        with `smplx_pose_valid` (159,), `smplx_shape_valid` (), `smplx_expr_valid` (); `lhand_`, `rhand_` and
        `face_bbox_center`, `_size` (2,) cells and `_valid` (); `is_3D` (): the set measured its joints in space.
    """
    turn = _Turn.of(crop_from_image)
    return {
        name: np.asarray(value, np.float32)
        for name, value in {
            **_own_joints(sample, turn, about),
            **_mesh(sample, turn, mesh_joints_cam),
            **_parameters(sample, turn, hand_mean),
            **_boxes(sample, turn),
        }.items()
    }


@dataclass(frozen=True, eq=False)
class PublishedTargetsOf:
    """`published_targets` as data sets take it, with the joints of the body that is learnt posed by each person's
    parameters. mesh_joints: None masks what needs a body file."""

    mesh_joints: MeshJoints | None = None
    about: str = "parts"

    def __call__(self, sample: Sample, crop_from_image: np.ndarray) -> dict[str, np.ndarray]:
        if self.mesh_joints is None:
            return published_targets(sample, crop_from_image, about=self.about)
        mean = self.mesh_joints.hand_mean(sample.gender) if sample.flat_hand else None
        return published_targets(sample, crop_from_image, self.mesh_joints(sample), mean, self.about)


@dataclass(frozen=True, eq=False)
class _Turn:
    """A crop, and what it does in space."""

    crop_from_image: np.ndarray
    mirrored: bool
    about_z: np.ndarray  # (3, 3): the rotation, after the mirror

    @staticmethod
    def of(crop_from_image: np.ndarray) -> _Turn:
        crop = np.asarray(crop_from_image, np.float64)
        turn = turn_of_affine(crop)
        mirrored = is_mirrored(crop)
        return _Turn(crop, mirrored, turn * _MIRROR if mirrored else turn)

    def cells(self, points_px: np.ndarray) -> np.ndarray:
        """(N, 2) of a picture's pixels (N, 2)."""
        height, width = CROP_HW
        return apply_affine(points_px, self.crop_from_image) * [CELLS[2] / width, CELLS[1] / height]


def joint_targets(
    joints_px: np.ndarray, depth_cells: np.ndarray, joints_cam: np.ndarray, crop_from_image: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints (137, 2) in pixels, their depths (137,) in cells and places (137, 3) under a crop: (137, 3) cells,
    (137, 3) turned places, and (137,) bool whether inside the crop. Sides change places in a mirror."""
    return _move(_Turn.of(crop_from_image), joints_px, depth_cells, joints_cam)


def _move(
    turn: _Turn, joints_px: np.ndarray, depth_cells: np.ndarray, joints_cam: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cells = np.column_stack([turn.cells(joints_px), depth_cells])
    if turn.mirrored:
        cells, joints_cam = cells[_FLIP_JOINTS], joints_cam[_FLIP_JOINTS] * _MIRROR
    inside = np.asarray(((cells >= 0) & (cells < [CELLS[2], CELLS[1], CELLS[0]])).all(1))
    return cells, joints_cam @ turn.about_z.T, inside


def part_relative(joints_cam: np.ndarray) -> np.ndarray:
    """Joints (137, 3) about the pelvis, those of hands and face about wrists and neck."""
    return joints_cam - joints_cam[_ROOT_OF]


def depth_cells(relative: np.ndarray) -> np.ndarray:
    """(137,) cells of the depth of joints (137, 3) about their roots."""
    return (relative[:, 2] / (_DEPTH_OF / 2) + 1) / 2 * CELLS[0]


def _own_joints(sample: Sample, turn: _Turn, about: str) -> dict[str, Any]:
    """The joints as the set annotates them: in the picture, or in space too."""
    seen, known = np.asarray(sample.joint_valid, bool), sample.joint_cam_known
    counts = known & known[_PELVIS]
    known = known & known[_ROOT_OF]  # a place counts about its root
    is_3d = bool(known[_PELVIS])
    relative = np.where(known[:, None], part_relative(sample.joints_cam), 0.0) if is_3d else np.zeros((137, 3))
    depth = depth_cells(relative) if is_3d else np.zeros(137)
    placed, inside_valid = (known, seen & known) if is_3d else (seen, seen)
    if about == "pelvis" and is_3d:
        relative = np.where(counts[:, None], sample.joints_cam - sample.joints_cam[_PELVIS], 0.0)
    else:
        counts = placed
    cells, cam, inside = _move(turn, sample.joints_px, depth, relative)
    if turn.mirrored:
        placed, inside_valid, counts = (rows[_FLIP_JOINTS] for rows in (placed, inside_valid, counts))
    return {
        "joint_img": cells * (inside_valid | placed)[:, None],
        "joint_cam": cam,
        "joint_valid": counts[:, None],
        "joint_trunc": (inside_valid & inside)[:, None],
        "is_3D": is_3d,
    }


def _mesh(sample: Sample, turn: _Turn, mesh_joints_cam: np.ndarray | None) -> dict[str, Any]:
    """The joints of the fitted mesh, projected by the sample's camera."""
    if mesh_joints_cam is None or not sample.camera_valid:
        zeros, never = np.zeros((137, 3)), np.zeros((137, 1))
        return {
            "smplx_joint_img": zeros,
            "smplx_joint_cam": zeros,
            "smplx_joint_valid": never,
            "smplx_joint_trunc": never,
        }
    pose, known = np.asarray(sample.pose_valid, bool), np.ones(137, bool)
    known[PARTS_137["left_hand"]], known[PARTS_137["right_hand"]] = pose[25:40].all(), pose[40:55].all()
    known[PARTS_137["face"]] = pose[_JAW] and sample.expression_valid
    for ankle, feet in _FEET.items():
        known[[JOINTS_137.index(name) for name in feet]] = pose[SMPLX_JOINTS.index(ankle)]
    relative = part_relative(mesh_joints_cam)
    px = project(mesh_joints_cam, sample.focal_px, sample.principal_px)
    cells, cam, inside = _move(turn, px, depth_cells(relative), relative)
    known = known[_FLIP_JOINTS] if turn.mirrored else known
    return {
        "smplx_joint_img": cells,
        "smplx_joint_cam": cam,
        "smplx_joint_valid": known[:, None],
        "smplx_joint_trunc": (known & inside)[:, None],
    }


def _parameters(sample: Sample, turn: _Turn, hand_mean: np.ndarray | None) -> dict[str, Any]:
    full, valid = np.asarray(sample.full_pose, np.float64), np.asarray(sample.pose_valid, bool).copy()
    if sample.flat_hand and valid[_HANDS_55].any():
        full = full.copy()
        if hand_mean is None:
            valid[_HANDS_55] = False
        else:
            full[_HANDS_55] -= hand_mean
    pose, valid = np.where(valid[:, None], full, 0.0)[_ROWS_53], valid[_ROWS_53]
    if turn.mirrored:
        pose, valid = pose[_FLIP_ROTATIONS] * [1.0, -1.0, -1.0], valid[_FLIP_ROTATIONS]
    if valid[0]:
        pose = np.concatenate([matrix_to_axis_angle(turn.about_z @ axis_angle_to_matrix(pose[:1])), pose[1:]])
    usual = sample.shape_valid and np.abs(sample.betas).max() <= LARGEST_BETA
    return {
        "smplx_pose": pose.reshape(-1),
        "smplx_pose_valid": np.repeat(valid, 3),
        "smplx_shape": sample.betas if usual else np.zeros(10),
        "smplx_shape_valid": sample.shape_valid,
        "smplx_expr": sample.expression if sample.expression_valid else np.zeros(10),
        "smplx_expr_valid": sample.expression_valid,
    }


def _boxes(sample: Sample, turn: _Turn) -> dict[str, Any]:
    """Centre and size in cells of the upright box around each part's turned box."""
    found: dict[str, Any] = {}
    names = ["rhand", "lhand", "face"] if turn.mirrored else list(PARTS)
    for name, attribute, valid in zip(names, PARTS.values(), sample.part_valid, strict=True):
        low, high = part_box_cells(getattr(sample, attribute) if valid else None, turn.crop_from_image)
        found |= {f"{name}_bbox_center": (low + high) / 2, f"{name}_bbox_size": high - low, f"{name}_bbox_valid": valid}
    return found


def part_box_cells(box_xyxy: np.ndarray | None, crop_from_image: np.ndarray) -> np.ndarray:
    """Low and high corner (2, 2) in cells of the upright box that holds a box (4,) of picture pixels after the crop;
    one cell at the corner where there is none."""
    if box_xyxy is None:
        return np.array([[0.0, 0.0], [1.0, 1.0]])
    x0, y0, x1, y1 = box_xyxy
    corners = _Turn.of(crop_from_image).cells(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
    return np.stack([corners.min(0), corners.max(0)])
