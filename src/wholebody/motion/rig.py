"""The body's joints and the soles of its feet over time, without its skin: all that motion needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.kinematics import BODY_TREE
from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import axis_angle_to_matrix

_AT_A_TIME = 1024  # frames
BODY_JOINTS = 22


@dataclass(frozen=True)
class Posed:
    """T frames in the body's own frame (no translation), metres."""

    joints: np.ndarray  # (T, 22, 3) of the body, without hands and face
    turns: np.ndarray  # (T, 22, 3, 3) of each joint, from its rest pose
    soles: np.ndarray  # (T, 2, 2, 3) left and right foot; heel and ball


class Rig:
    """Joints of a body model by pose and shape; `soles` are points on the ground when the feet are flat on it."""

    def __init__(self, body: BodyModel) -> None:
        self._rest = body.rest_joints.detach().cpu().double().numpy()
        self._moves = body.joint_directions.detach().cpu().double().numpy()[:10].reshape(10, 55, 3)
        self._hand_mean = body.hand_mean.detach().cpu().double().numpy().reshape(30, 3)
        template = body.template.detach().cpu().double().numpy().T
        directions = body.directions.detach().cpu().double().numpy()[:10]  # (10, 3, V)
        owner = body.weights.detach().cpu().numpy().argmax(0)
        self._sole_joints = [
            [SMPLX_JOINTS.index(f"{side}_{name}") for name in ("ankle", "foot")] for side in ("left", "right")
        ]
        self._sole_rest = np.zeros((2, 2, 3))
        self._sole_moves = np.zeros((10, 2, 2, 3))
        for foot, joints in enumerate(self._sole_joints):
            for part, joint in enumerate(joints):
                own = np.flatnonzero(owner == joint)
                if part == 0:  # behind the joint: the heel, not the instep
                    own = own[template[own, 2] < self._rest[joint, 2]]
                ground = own[template[own, 1] < template[own, 1].min() + 0.008]
                self._sole_rest[foot, part] = template[ground].mean(0)
                self._sole_moves[:, foot, part] = directions[:, :, ground].mean(2)

    def pelvis(self, betas: np.ndarray) -> np.ndarray:
        """(3,) what `global_orient` turns about."""
        return (self._rest + np.tensordot(betas, self._moves, 1))[0]

    def height(self, betas: np.ndarray) -> float:
        """Metres from the soles to the head joint, the legs and the trunk stretched."""
        rest = self._rest + np.tensordot(betas, self._moves, 1)
        soles = self._sole_rest + np.tensordot(betas, self._sole_moves, 1)
        return float(rest[SMPLX_JOINTS.index("head"), 1] - soles[..., 1].mean())

    def pose(self, pose: np.ndarray, betas: np.ndarray) -> Posed:
        """pose: (T, 55, 3) axis-angle, hands relative to the body's mean hand; betas: (10,)."""
        rest = self._rest + np.tensordot(betas, self._moves, 1)
        offsets = self._sole_rest + np.tensordot(betas, self._sole_moves, 1) - rest[self._sole_joints]
        count = len(pose)
        places, all_turns = np.empty((count, BODY_JOINTS, 3)), np.empty((count, BODY_JOINTS, 3, 3), np.float32)
        for start in range(0, len(pose), _AT_A_TIME):
            part = np.array(pose[start : start + _AT_A_TIME], np.float64)
            part[:, 25:] += self._hand_mean
            rotations = axis_angle_to_matrix(torch.from_numpy(part))
            turn, place = BODY_TREE.pose(rotations, torch.from_numpy(rest).expand(len(part), 55, 3))
            places[start : start + len(part)] = place[:, :BODY_JOINTS]
            all_turns[start : start + len(part)] = turn[:, :BODY_JOINTS]
        soles = places[:, self._sole_joints] + (all_turns[:, self._sole_joints] @ offsets[..., None])[..., 0]
        return Posed(places, all_turns, soles)
