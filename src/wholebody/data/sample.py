"""One person in one picture: the schema that synthesis writes, dataset readers give, and training and evaluation
take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wholebody.body.joints import ROTATIONS_53_FROM_55


def _unknown_box() -> np.ndarray:
    return np.zeros(4, np.float32)


@dataclass(frozen=True)
class Sample:
    """What is known about one person. What is not known is masked, never a zero that counts.

    Pixels follow OpenCV (centre of the first pixel at (0, 0)) and belong to `image`, or to the layer the person came
    from. Camera frame: x right, y down, z forward; metres and radians.
    """

    id: str
    body: str
    """Which body the parameters belong to: "open", "smplx" or "smpl" (rows 0-21 of `full_pose` are then SMPL's, in the
    same order); "" if there are none. Parameters of one mean nothing to the other."""
    box_xyxy: np.ndarray
    """(4,) pixels: the part of the person inside the picture."""
    focal_px: np.ndarray
    """(2,)"""
    principal_px: np.ndarray
    """(2,)"""
    full_pose: np.ndarray
    """(55, 3) axis-angle in the order of `SMPLX_JOINTS`; row 0 turns the body into the camera frame. Where hand rows
    are measured from: see `flat_hand`."""
    betas: np.ndarray
    """(10,)"""
    expression: np.ndarray
    """(10,)"""
    transl: np.ndarray
    """(3,) metres: the body layer's `transl` in the camera frame; see `extrinsic_rotation` and `transl_cam`."""
    joints_px: np.ndarray
    """(137, 2) pixels, in the order of `JOINTS_137`; may lie outside the picture. Joints as the set annotates them,
    mapped by name; those of a fitted mesh follow from its parameters (`mesh_joints.MeshJoints`)."""
    joints_cam: np.ndarray
    """(137, 3) metres, camera frame."""
    joint_valid: np.ndarray
    """(137,) bool: the joint's truth is known, in the picture and (unless `joint_cam_valid` says less) in space."""
    joint_visible: np.ndarray
    """(137,) bool: inside the picture and neither hidden by the body itself nor by something in front."""
    left_hand_box: np.ndarray = field(default_factory=_unknown_box)
    """(4,) xyxy pixels around the hand's joints and wrist, a tenth of the size added on each side; may leave the
    picture."""
    right_hand_box: np.ndarray = field(default_factory=_unknown_box)
    face_box: np.ndarray = field(default_factory=_unknown_box)
    part_valid: np.ndarray = field(default_factory=lambda: np.zeros(3, bool))
    """(3,) bool: the boxes of left hand, right hand and face are known."""
    pose_valid: np.ndarray = field(default_factory=lambda: np.ones(55, bool))
    """(55,) bool"""
    shape_valid: bool = True
    expression_valid: bool = True
    frame_xyxy: np.ndarray | None = None
    """(4,) pixels: the border of the (virtual) photo; None: the picture's own border. A layer is drawn beyond the
    photo that it stands for, so that a crop can move."""
    image: np.ndarray | None = field(default=None, repr=False)
    """(H, W, 3) uint8 RGB; None: not decoded (yet), see `image_path`"""
    mask: np.ndarray | None = field(default=None, repr=False)
    """(H, W) uint8 coverage of the person, 0..255"""
    dataset: str = ""
    """The set's name in `readers.READERS`; "" for synthetic people."""
    image_path: str | None = None
    """Where the picture lies in the set's folder, with forward slashes."""
    image_hw: tuple[int, int] | None = None
    """The picture's height and width in pixels, as annotated."""
    joint_cam_valid: np.ndarray | None = None
    """(137,) bool: the joint's place in space is known; None: wherever `joint_valid`."""
    camera_valid: bool = True
    """`focal_px`, `principal_px` and `transl` are known."""
    gender: str = "neutral"
    """Of the body file that the parameters belong to."""
    mesh_path: str | None = None
    """Where the true mesh lies in the set's folder, for sets that give one."""
    kid: float = 0.0
    """Weight of the children's template that some sets add to the adult one."""
    flat_hand: bool = True
    """Hand rows of `full_pose` are measured from the flat hand (what `flat_hand_mean=True` takes, the mean of the body
    file already added); False: from the body file's relaxed hand, which a reader does not have to add."""
    extrinsic_rotation: np.ndarray | None = None
    """(3, 3): this camera's rotation, if the file gave its parameters in another frame. A body turns about its pelvis,
    whose place at rest only the body file knows: `transl_cam` completes `transl` with it. None: nothing to do."""

    @property
    def joint_cam_known(self) -> np.ndarray:
        """(137,) bool: the joint's place in space is known."""
        valid = self.joint_valid if self.joint_cam_valid is None else self.joint_cam_valid
        return np.asarray(valid, bool)

    def transl_cam(self, rest_pelvis: np.ndarray) -> np.ndarray:
        """The body layer's `transl` (3,) in the camera frame, given where the pelvis (3,) of this shape rests."""
        if self.extrinsic_rotation is None:
            return self.transl
        return self.transl + (self.extrinsic_rotation - np.eye(3)) @ rest_pelvis

    def rotations_53(self) -> tuple[np.ndarray, np.ndarray]:
        """The rotations that networks predict, in the order of `ROTATIONS_53`: (53, 3, 3) matrices and (53,) bool
        known."""
        rows = np.asarray(ROTATIONS_53_FROM_55)
        return axis_angle_to_matrix(self.full_pose[rows]), self.pose_valid[rows]


def masked_sample(id: str, box_xyxy: np.ndarray, **known: Any) -> Sample:
    """A person of whom only `known` (fields of `Sample`) is known: all other truth is masked, zeros for its values."""
    unknown: dict[str, Any] = {
        "body": "",
        "focal_px": np.zeros(2),
        "principal_px": np.zeros(2),
        "full_pose": np.zeros((55, 3)),
        "betas": np.zeros(10),
        "expression": np.zeros(10),
        "transl": np.zeros(3),
        "joints_px": np.zeros((137, 2)),
        "joints_cam": np.zeros((137, 3)),
        "joint_valid": np.zeros(137, bool),
        "joint_visible": np.zeros(137, bool),
        "pose_valid": np.zeros(55, bool),
        "shape_valid": False,
        "expression_valid": False,
        "joint_cam_valid": np.zeros(137, bool),
        "camera_valid": False,
    }
    return Sample(id=id, box_xyxy=np.asarray(box_xyxy, np.float64), **(unknown | known))


def axis_angle_to_matrix(rotvec: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 3, 3) in numpy: data loading keeps torch out of its inner loop."""
    rotvec = np.asarray(rotvec, np.float64)
    angle = np.linalg.norm(rotvec, axis=-1)[..., None, None]
    safe = np.maximum(angle, 1e-9)
    x, y, z = np.moveaxis(rotvec, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*rotvec.shape[:-1], 3, 3)
    return np.eye(3) + np.sin(safe) / safe * cross + (1 - np.cos(safe)) / safe**2 * (cross @ cross)


def matrix_to_axis_angle(matrix: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 3) in numpy, angle in [0, pi]; through the quaternion, so that it holds near pi."""
    m = np.asarray(matrix, np.float64)
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    trace = diagonal.sum(-1, keepdims=True)
    # The four squared components (w, x, y, z); start from the largest, where nothing cancels.
    squares = np.concatenate([1 + trace, 1 - trace + 2 * diagonal], -1) / 4
    outer = np.empty((*m.shape[:-2], 4, 4))
    for k in range(4):
        outer[..., k, k] = squares[..., k]
    for (a, b), value in {
        (0, 1): m[..., 2, 1] - m[..., 1, 2],
        (0, 2): m[..., 0, 2] - m[..., 2, 0],
        (0, 3): m[..., 1, 0] - m[..., 0, 1],
        (1, 2): m[..., 0, 1] + m[..., 1, 0],
        (1, 3): m[..., 0, 2] + m[..., 2, 0],
        (2, 3): m[..., 1, 2] + m[..., 2, 1],
    }.items():
        outer[..., a, b] = outer[..., b, a] = value / 4
    row = np.take_along_axis(outer, squares.argmax(-1)[..., None, None], axis=-2)[..., 0, :]
    quat = row / np.linalg.norm(row, axis=-1, keepdims=True)
    quat = np.where(quat[..., :1] < 0, -quat, quat)
    sine = np.linalg.norm(quat[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quat[..., :1])
    return quat[..., 1:] * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0)
