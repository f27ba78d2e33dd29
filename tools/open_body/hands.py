"""The relaxed hand, the axes that fingers bend about, and the directions that hands move in."""

from dataclasses import dataclass

import numpy as np
import roma
import torch

from wholebody.body.open_body import MIRROR_AXIS_ANGLE

from . import rig
from .rest_pose import unit
from .rig import J

LEFT_PALM = {finger: np.array([0.0, -1.0, 0.0]) for finger in rig.FINGERS} | {"thumb": np.array([0.25, -0.55, -0.8])}
GRASPS = 4000


@dataclass(frozen=True)
class Hands:
    """Of the left hand; the right one is its mirror image."""

    mean: np.ndarray  # 45
    components: np.ndarray  # 45,45
    axes: np.ndarray  # 5,3,3: per finger the axes to flex, to spread and to twist about


def relaxed(rotations: np.ndarray) -> np.ndarray:
    """The hand pose (45,) of Anny's rest, seen from the T-pose, where fingers are straight; mean of both sides."""
    sides = []
    for side, *_ in rig.SIDES:
        pose = np.zeros((5, 3, 3))
        for row, finger in enumerate(rig.FINGERS):
            previous = np.broadcast_to(np.eye(3), rotations[:, 0].shape)
            for k in (1, 2, 3):
                back = np.swapaxes(rotations[:, J[f"{side}_{finger}{k}"]], 1, 2)
                turned = rotations[:, J[f"{side}_wrist"]] @ back
                local = np.swapaxes(previous, 1, 2) @ turned
                pose[row, k - 1] = roma.rotmat_to_rotvec(torch.tensor(local)).numpy().mean(0)
                previous = turned
        sides.append(pose.reshape(15, 3))
    return ((sides[0] + sides[1] * MIRROR_AXIS_ANGLE) / 2).reshape(45)


def finger_axes(joints: np.ndarray) -> np.ndarray:
    axes = []
    for finger in rig.FINGERS:
        along = unit(joints[J[f"left_{finger}3"]] - joints[J[f"left_{finger}2"]])
        palm = LEFT_PALM[finger]
        palm = unit(palm - along * (palm @ along))
        flex = np.cross(along, palm)
        axes.append([flex, np.cross(along, flex), along])
    return np.array(axes)


def grasps(axes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random plausible left-hand poses (count,45): a common curl, fingers that deviate, a thumb that opposes."""
    pose = np.zeros((count, 5, 3, 3))
    common = rng.beta(0.8, 1.0, count)
    for row, (flex, spread, twist) in enumerate(axes):
        curl = (0.65 * common + 0.35 * rng.beta(0.7, 0.9, count) + rng.normal(0, 0.08, count)).clip(-0.1, 1)

        def bend(limit_deg: float, noise: float, low: float, curl: np.ndarray = curl) -> np.ndarray:
            return (np.radians(limit_deg) * (curl + rng.normal(0, noise, count)).clip(low, 1))[:, None]

        if rig.FINGERS[row] == "thumb":
            pose[:, row, 0] = bend(35, 0.25, -1, curl) * flex + rng.normal(0, 0.2, count)[:, None] * spread
            pose[:, row, 0] += (np.radians(25) * curl)[:, None] * twist
            pose[:, row, 1], pose[:, row, 2] = bend(45, 0.15, -0.5) * flex, bend(55, 0.15, -0.2) * flex
        else:
            pose[:, row, 0] = bend(85, 0.04, -0.3) * flex + rng.normal(0, 0.10, count)[:, None] * spread
            pose[:, row, 1], pose[:, row, 2] = bend(100, 0.12, 0) * flex, bend(65, 0.1, 0) * flex
    return pose.reshape(count, 45)


def fit(rotations: np.ndarray, joints: np.ndarray) -> Hands:
    """From the rotations A to T of many people (N,55,3,3) and the mean person's T-pose joints (55,3)."""
    mean, axes = relaxed(rotations), finger_axes(joints)
    poses = grasps(axes, GRASPS, np.random.default_rng(0))
    away = poses - mean
    _, basis = np.linalg.eigh(away.T @ away)
    components = basis[:, ::-1].T
    closing = components @ poses.mean(0)  # a positive coefficient closes the hand
    return Hands(mean, components * np.where(closing < 0, -1, 1)[:, None], axes)
