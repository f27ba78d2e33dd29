"""The joints of people's fitted meshes, for loaders: in numpy, and of the mesh only the few hundred vertices that
joints are read off. The numbers are those of the body layer (`body.layer` tells the story)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.assets import SKIN_POINT_VERTICES, BodyArrays, SparsePoseDirs, find_body, read_body_file
from wholebody.body.joints import FROM_144, SMPLX_JOINTS
from wholebody.body.kinematics import pose_arrays
from wholebody.data.sample import Sample, axis_angle_to_matrix

_NECK = SMPLX_JOINTS.index("neck")
_EYEBALLS = [SMPLX_JOINTS.index("left_eyeball"), SMPLX_JOINTS.index("right_eyeball")]
_BODY, _HANDS = slice(0, 22), slice(25, 55)
_MAX_TURN = 39


class JointPoser:
    """`JointPoser(arrays)(rotations, betas, expression)`: where a body's joints go."""

    def __init__(self, arrays: BodyArrays):
        self.name = arrays.name
        landmarks, contour = arrays.faces[arrays.landmark_faces], arrays.faces[arrays.contour_faces]
        directions = np.concatenate([arrays.shape_dirs, arrays.expression_dirs], -1)
        self.rest_joints = arrays.joint_regressor @ arrays.v_template
        self.joint_directions = np.tensordot(arrays.joint_regressor, directions, (1, 0))  # (55, 3, 20)
        needed = np.unique(np.concatenate([SKIN_POINT_VERTICES, landmarks.ravel(), contour.ravel()]))
        row = np.full(arrays.num_vertices, -1)
        row[needed] = np.arange(len(needed))
        self._template = arrays.v_template[needed].astype(np.float32)
        self._directions = directions[needed].astype(np.float32)
        self._correctives = _correctives(arrays.pose_dirs, needed)  # (V, 3, 486)
        self._weights = arrays.weights[needed].astype(np.float32)
        self._fixed = np.concatenate([row[list(SKIN_POINT_VERTICES)], row[landmarks].ravel()])
        self._contour = row[contour]  # (79, 17, 3)
        self._landmark_barycentric = arrays.landmark_barycentric
        self._contour_barycentric = arrays.contour_barycentric
        self.hand_mean = np.concatenate([arrays.left_hand_mean, arrays.right_hand_mean]).astype(np.float64)

    def rest_pelvis(self, betas: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """(3,): what the root's rotation turns about."""
        return self.rest_joints[0] + self.joint_directions[0] @ np.concatenate([betas, expression])

    def __call__(self, rotations: np.ndarray, betas: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """The 137 joints (137, 3) in metres of local rotations (55, 3, 3), relaxed hands included by the caller, betas
        (10,) and expression (10,)."""
        coefficients = np.concatenate([betas, expression])
        rest = self.rest_joints + self.joint_directions @ coefficients
        turns, places = pose_arrays(rotations, rest)

        contour_row = _contour_row(turns[_NECK])
        picks = np.concatenate([self._fixed, self._contour[contour_row].ravel()])
        feature = (rotations[1:] - np.eye(3)).ravel().astype(np.float32)
        shaped = self._template[picks] + self._directions[picks] @ coefficients.astype(np.float32)
        # einsum, for numpy's products would start threads, in every loader process, over less work than that takes.
        shaped = shaped + np.einsum("vck,k->vc", self._correctives[picks], feature)
        transforms = np.concatenate([turns, (places - (turns @ rest[..., None])[..., 0])[..., None]], -1)
        blended = np.einsum("vj,jrc->vrc", self._weights[picks], transforms.astype(np.float32))
        skin = (blended[..., :3] @ shaped[..., None])[..., 0] + blended[..., 3]
        points, corners = skin[:21], skin[21:].reshape(-1, 3, 3)
        barycentric = np.concatenate([self._landmark_barycentric, self._contour_barycentric[contour_row]])
        face = (corners * barycentric[..., None]).sum(1)
        return np.concatenate([places, points, face])[list(FROM_144)]


def _correctives(pose_dirs: np.ndarray | SparsePoseDirs, vertices: np.ndarray) -> np.ndarray:
    """Dense (len(vertices), 3, 486) of some vertices."""
    if isinstance(pose_dirs, np.ndarray):
        return pose_dirs[vertices].astype(np.float32)
    dense = np.zeros((len(vertices), 3, 54, 9), np.float32)
    joint = np.repeat(np.arange(54), pose_dirs.counts)
    place = np.searchsorted(vertices, pose_dirs.vertices).clip(max=len(vertices) - 1)
    stays = vertices[place] == pose_dirs.vertices
    dense[place[stays], :, joint[stays]] = pose_dirs.offsets[stays]
    return dense.reshape(len(vertices), 3, 486)


def _contour_row(neck_turn: np.ndarray) -> int:
    """The row of the contour table for the neck's rotation (3, 3), as in `body.layer`."""
    sideways = np.arctan2(neck_turn[2, 0], np.hypot(neck_turn[0, 0], neck_turn[1, 0]))
    degrees = int(np.clip(np.round(np.degrees(sideways)), -_MAX_TURN, _MAX_TURN))
    return _MAX_TURN - degrees if degrees < 0 else degrees


@dataclass
class MeshJoints:
    """The joints of people's fitted meshes, `MeshJoints(path)(sample)`: bodies are read when first needed.

    path: a folder of body files, a file, or "open"; see `body.assets.find_body`. Can be sent to loader processes: each
    reads its own bodies.
    """

    path: str | Path | None
    _bodies: dict[str, JointPoser] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_bodies": {}}

    def body(self, gender: str = "neutral") -> JointPoser:
        if gender not in self._bodies:
            self._bodies[gender] = JointPoser(read_body_file(find_body(self.path, gender)))
        return self._bodies[gender]

    def hand_mean(self, gender: str = "neutral") -> np.ndarray:
        """(30, 3) axis-angle: the relaxed hands of the body file, left then right."""
        return self.body(gender).hand_mean

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """(137, 3) metres, camera frame; None if the sample has no root, shape or camera, or those of another body."""
        if not (sample.body and sample.camera_valid and sample.shape_valid and sample.pose_valid[0]):
            return None
        body = self.body(sample.gender)
        if sample.body != body.name:
            return None
        pose = np.where(sample.pose_valid[:, None], sample.full_pose, 0.0)
        # Wrists and ankles that are not trusted still carry the fit's other joints: posed here, masked in the targets.
        pose[_BODY] = sample.full_pose[_BODY]
        pose[_EYEBALLS] = 0  # as networks have them
        if not sample.flat_hand:
            pose[_HANDS] += body.hand_mean
        betas = np.asarray(sample.betas, np.float64)
        expression = np.asarray(sample.expression, np.float64) * sample.expression_valid
        joints = body(axis_angle_to_matrix(pose), betas, expression)
        return joints + sample.transl_cam(body.rest_pelvis(betas, expression))
