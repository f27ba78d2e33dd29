"""A person who walks before a camera, exactly; and what a network that errs would say of each frame."""

from __future__ import annotations

from functools import cache

import numpy as np
from fake_network import open_body
from scipy.spatial.transform import Rotation

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.motion.assemble import Sights, Timeline
from wholebody.motion.camera import CameraPath
from wholebody.motion.rig import Posed, Rig

WH, FOCAL = (1280, 720), 1100.0
PRINCIPAL = (np.array(WH) - 1) / 2


@cache
def rig() -> Rig:
    return Rig(open_body())


def joint(name: str) -> int:
    return SMPLX_JOINTS.index(name)


def walk(
    times: np.ndarray, speed: float = 0.9, start: tuple[float, float] = (-1.2, 0.0), height: float = 1.4,
    distance: float = 4.0, tilt: float = 0.0, betas: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(pose (T, 55, 3), transl (T, 3)) in the camera frame of a walk to the right whose standing foot does not slide.

    The camera is `height` above the floor and looks down by `tilt`.
    """
    betas = np.zeros(10) if betas is None else betas
    count = len(times)
    pose = np.zeros((count, 55, 3))
    phase = 2 * np.pi * 0.9 * times
    pose[:, joint("left_hip"), 0], pose[:, joint("right_hip"), 0] = -0.4 * np.sin(phase), 0.4 * np.sin(phase)
    pose[:, joint("left_knee"), 0] = 0.5 * np.clip(np.cos(phase), 0, 1)
    pose[:, joint("right_knee"), 0] = 0.5 * np.clip(-np.cos(phase), 0, 1)
    pose[:, joint("left_shoulder"), 2], pose[:, joint("right_shoulder"), 2] = -1.1, 1.1
    for side in ("left", "right"):  # feet stay level
        pose[:, joint(f"{side}_ankle"), 0] = -pose[:, joint(f"{side}_hip"), 0] - pose[:, joint(f"{side}_knee"), 0]
    world = np.diag([1.0, -1.0, -1.0])  # y up, towards the camera, to y down, away from it
    heading = Rotation.from_rotvec([0, np.pi / 2 * (speed > 0), 0])  # to the right
    pose[:, 0] = (Rotation.from_matrix(world) * heading).as_rotvec()
    posed = rig().pose(pose, betas)
    transl = np.zeros((count, 3))
    transl[0] = [start[0], 0, distance + start[1]]
    for k in range(1, count):  # whichever foot is lower stands
        foot, part = np.unravel_index(posed.soles[k, ..., 1].argmax(), (2, 2))
        transl[k] = transl[k - 1] + posed.soles[k - 1, foot, part] - posed.soles[k, foot, part]
    transl[:, 1] = height - posed.soles[..., 1].max((1, 2))
    down = Rotation.from_rotvec([tilt, 0, 0])
    pelvis = rig().pelvis(betas)
    pose[:, 0] = (down * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    return pose, down.apply(transl + pelvis) - pelvis


def project(points: np.ndarray) -> np.ndarray:
    return points[..., :2] / points[..., 2:] * FOCAL + PRINCIPAL


def sights_of(
    pose: np.ndarray, transl: np.ndarray, frames: np.ndarray | None = None, track: int = 0, noise: float = 0.0,
    betas: np.ndarray | None = None, seed: int = 0,
) -> Sights:  # fmt: skip
    """What a network would say: the root as seen along the ray to the person, everything with noise (radians)."""
    rng = np.random.default_rng(seed)
    betas = np.zeros(10) if betas is None else betas
    count = len(pose)
    posed = rig().pose(pose, betas)
    px = project(posed.joints[:, :22] + transl[:, None])
    where = transl + rig().pelvis(betas)
    said = pose.copy()
    for k in range(count):
        ray = where[k] / np.linalg.norm(where[k])
        turn, _ = Rotation.align_vectors([ray], [[0, 0, 1]])
        said[k, 0] = (turn.inv() * Rotation.from_rotvec(said[k, 0])).as_rotvec()
    said += rng.normal(0, 1, said.shape) * noise
    size = np.ptp(px[..., 1], axis=1)
    px = px + rng.normal(0, 1, (count, 1, 2)) * noise * 0.15 * size[:, None, None]
    low, high = px.min(1) - 0.05 * size[:, None], px.max(1) + 0.05 * size[:, None]
    return Sights(
        np.arange(count) if frames is None else frames, np.full(count, track), np.concatenate([low, high], 1),
        np.full(count, 0.9), said, betas + rng.normal(0, 1, (count, 10)) * noise * 3, np.zeros((count, 10)), px,
        np.zeros(count, bool),
    )  # fmt: skip


def timeline(times: np.ndarray, cuts: tuple[int, ...] = (), turns: np.ndarray | None = None) -> Timeline:
    count = len(times)
    moved = np.zeros(count) if turns is None else np.linspace(0, 0.2, count)
    path = CameraPath(
        np.tile(np.eye(3), (count, 1, 1)) if turns is None else turns, np.ones(count, bool), moved, 0 * moved
    )
    return Timeline(np.arange(count), times, 30.0, np.isin(np.arange(count), cuts), path)


def placed(motion, scene) -> Posed:
    """A person's joints and soles in the world."""
    pose = np.zeros((len(motion.frames), 55, 3))
    pose[:, 0], pose[:, 1:22], pose[:, 22] = motion.global_orient, motion.body_pose, motion.jaw_pose
    pose[:, 25:40], pose[:, 40:] = motion.left_hand_pose, motion.right_hand_pose
    posed = rig().pose(pose, motion.betas)
    rows = np.searchsorted(scene.frames, motion.frames)
    world = np.linalg.inv(scene.camera_from_world)[rows]
    joints = np.einsum("tij,tkj->tki", world[:, :3, :3], posed.joints + motion.transl[:, None])
    soles = np.einsum("tij,tabj->tabi", world[:, :3, :3], posed.soles + motion.transl[:, None, None])
    shift = world[:, :3, 3]
    return Posed(joints + shift[:, None], posed.turns, soles + shift[:, None, None])
