"""A mean skeleton and turning it: what making and testing poses needs, never the truth of a drawn person."""

from __future__ import annotations

import numpy as np

from wholebody.body.joints import PARENTS, SMPLX_JOINTS
from wholebody.body.kinematics import pose_arrays
from wholebody.data.sample import axis_angle_to_matrix, matrix_to_axis_angle

# fmt: off
REST_22 = np.array([  # a mean skeleton in T-pose, metres: only for features and for reaching, never for truth
    [0, 0, 0], [.11, -.09, .03], [-.11, -.09, .03], [0, .07, .01], [.13, -.46, .06], [-.13, -.46, .06], [0, .15, .01],
    [.13, -.89, .03], [-.13, -.89, .03], [0, .27, 0], [.13, -.94, .17], [-.13, -.94, .17], [0, .45, .04], [.02, .38,
    .05], [-.02, .38, .05], [0, .55, .07], [.17, .39, .05], [-.17, .39, .05], [.43, .39, .05], [-.43, .39, .05],
    [.65, .39, .05], [-.65, .39, .05]])
# fmt: on
J = {name: k for k, name in enumerate(SMPLX_JOINTS)}
LOWER = [
    J[n]
    for n in (
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
        "left_foot",
        "right_foot",
    )
]
MIRROR_22 = [
    SMPLX_JOINTS.index(n.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right"))
    for n in SMPLX_JOINTS[:22]
]
FLIP = np.array([1.0, -1.0, -1.0])


def forward_kinematics(pose: np.ndarray) -> np.ndarray:
    """(B,22,3) rotations -> (B,22,3) joints of the mean skeleton, pelvis at the origin."""
    return pose_arrays(axis_angle_to_matrix(pose), REST_22, PARENTS[:22])[1]


def compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Axis-angle of R(first) @ R(then)."""
    return matrix_to_axis_angle(axis_angle_to_matrix(first) @ axis_angle_to_matrix(then))


def unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-9)


def to_segment(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    along = end - start
    t = (((point - start) * along).sum(1) / ((along**2).sum(1) + 1e-9)).clip(0, 1)
    return np.linalg.norm(point - start - along * t[:, None], axis=1)
