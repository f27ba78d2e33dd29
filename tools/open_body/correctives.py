"""Pose correctives: what linear skinning does worst, mended by offsets that are linear in (R - I).

Per joint, on random turns of it alone, the target mixes linear skinning with skinning by blended angles (which keeps
the volume of a bent limb), and spreads the twist along the limb instead of wringing it at the joint. A ridge
regression then explains the offset between both, in the rest pose. Shoulders keep their linear swing: their rest
shape was sculpted with the arms half down, and blending by angle made them worse.
"""

from dataclasses import dataclass

import numpy as np
import roma
import torch

from wholebody.body.joints import PARENTS, SMPLX_JOINTS

from . import rig
from .rest_pose import skew
from .rig import J

SAMPLES = 70
# Standard deviation (rad) of the turns to learn from; joints that are not named have no correctives.
TURN_RAD = {
    **{"hip": 1.1, "knee": 1.1, "shoulder": 1.0, "elbow": 1.2, "wrist": 0.8},
    **{"spine1": 0.4, "spine2": 0.4, "spine3": 0.4, "neck": 0.4, "head": 0.4, "ankle": 0.4, "foot": 0.3},
    "finger": 0.8,
}
# How far to go from linear skinning (0) to blended angles (1).
SHARE = {"elbow": 0.6, "hip": 0.5, "shoulder": 0.0}
SHARE_ELSEWHERE = 0.75
LIMB_END = {"wrist": None, "shoulder": "elbow", "elbow": "wrist", "hip": "knee"}  # joints that spread their twist
TWIST_AT_ROOT = {"shoulder": 0.5, "hip": 0.6, "elbow": 0.5}  # of the twist, that the skin at the joint follows
LARGEST_TURN_RAD = 2.6
LARGEST_OFFSET_M = 0.06
SMALLEST_OFFSET_M = 2e-4  # smaller coefficients are left out, which keeps the file sparse
RIDGE = 0.002


@dataclass(frozen=True)
class Correctives:
    counts: np.ndarray  # 54
    vertices: np.ndarray  # N
    offsets: np.ndarray  # N,3,9 metres per unit of (R - I)


def _kind(name: str) -> str:
    bare = name.removeprefix("left_").removeprefix("right_")
    return "finger" if bare[:-1] in rig.FINGERS else bare


def _random_turns(name: str, finger_axes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Axis-angle turns (SAMPLES,3) that this left-side or middle joint plausibly makes."""
    kind = _kind(name)
    turns = rng.normal(0, TURN_RAD[kind], (SAMPLES, 3))
    if kind == "knee":
        turns[:, 0] = np.abs(turns[:, 0]) * 1.2
        turns[:, 1:] *= 0.15
    if kind == "elbow":
        turns *= [0.6, 1.2, 0.25]
        turns[:, 1] = -np.abs(turns[:, 1])
    if kind == "finger":
        flex = finger_axes[rig.FINGERS.index(name.removeprefix("left_")[:-1]), 0]
        turns = np.abs(rng.normal(0, 0.9, (SAMPLES, 1))) * flex + rng.normal(0, 0.12, (SAMPLES, 3))
    length = np.linalg.norm(turns, axis=1, keepdims=True)
    return turns * np.minimum(1, LARGEST_TURN_RAD / length)


def _smooth(t: np.ndarray) -> np.ndarray:
    t = t.clip(0, 1)
    return t * t * (3 - 2 * t)


def _about(axes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rotations (N,V,3,3) about axes (N,3) by angles (N,V)."""
    k = skew(axes)[:, None]
    return np.eye(3) + np.sin(angles)[..., None, None] * k + (1 - np.cos(angles))[..., None, None] * (k @ k)


def _split_axis_angle(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linalg.norm(turns, axis=1)
    return turns / np.maximum(angle, 1e-9)[:, None], angle


def _blended_angle(angle: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The angle (N,V) that a vertex turns by when quaternions, not matrices, are mixed with its weight."""
    half = angle[:, None] / 2
    return 2 * np.arctan2(share * np.sin(half), 1 - share + share * np.cos(half))


def _rotvec_to_matrix(turns: np.ndarray) -> np.ndarray:
    return roma.rotvec_to_rotmat(torch.tensor(turns)).numpy()


def _twist(turns: np.ndarray, axis: np.ndarray) -> np.ndarray:
    quaternion = roma.rotvec_to_unitquat(torch.tensor(turns)).numpy()
    twist = 2 * np.arctan2(quaternion[:, :3] @ axis, quaternion[:, 3])
    return (twist + np.pi) % (2 * np.pi) - np.pi


def _fit_joint(k: int, vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, axes: np.ndarray, rng):
    name, kind = SMPLX_JOINTS[k], _kind(SMPLX_JOINTS[k])
    share = weights[:, [k, *rig.descendants(k)]].sum(1).clip(0, 1)
    twist_share, limb = share, None
    if kind in LIMB_END:
        start, end = (PARENTS[k], k) if kind == "wrist" else (k, J[name.replace(kind, str(LIMB_END[kind]))])
        length = np.linalg.norm(joints[end] - joints[start])
        limb = (joints[end] - joints[start]) / length
        along = (vertices - joints[start]) @ limb / length
        if kind == "wrist":  # the forearm follows the hand's twist, more and more towards the hand
            twist_share = (weights[:, PARENTS[k]] * 0.85 * _smooth((along - 0.1) / 0.9) + share).clip(0, 1)
        else:
            root = TWIST_AT_ROOT[kind]
            twist_share = share * np.where(along < 1.2, root + (1 - root) * _smooth((along + 0.05) / 0.75), 1)
    ids = np.where(((share > 1e-4) & (share < 1 - 1e-4)) | (np.abs(twist_share - share) > 1e-4))[0]
    share, twist_share, x = share[ids], twist_share[ids], (vertices[ids] - joints[k])[None, :, :, None]

    turns = _random_turns(name, axes, rng)
    rotations = _rotvec_to_matrix(turns)
    mix = share[None, :, None, None]
    linear = mix * rotations[:, None] + (1 - mix) * np.eye(3)
    if limb is None:
        axis, angle = _split_axis_angle(turns)
        target = _about(axis, _blended_angle(angle, share))
    else:  # rotation = swing · twist
        twist = _twist(turns, limb)
        straight = _rotvec_to_matrix(twist[:, None] * limb)
        swing = rotations @ np.swapaxes(straight, 1, 2)
        if kind == "shoulder":
            swung = mix * swing[:, None] + (1 - mix) * np.eye(3)
        else:
            axis, angle = _split_axis_angle(roma.rotmat_to_rotvec(torch.tensor(swing)).numpy())
            swung = _about(axis, _blended_angle(angle, share))
        target = swung @ _about(np.tile(limb, (SAMPLES, 1)), twist[:, None] * twist_share)
    how_far = 1.0 if kind == "shoulder" else SHARE.get(kind, SHARE_ELSEWHERE)
    offset = how_far * np.linalg.solve(linear + 1e-9 * np.eye(3), (target - linear) @ x)[..., 0]
    size = np.linalg.norm(offset, axis=2, keepdims=True)
    offset *= np.minimum(1, LARGEST_OFFSET_M / np.maximum(size, 1e-9))

    features = (rotations - np.eye(3)).reshape(SAMPLES, 9)
    gram = features.T @ features + RIDGE * SAMPLES * np.eye(9)
    fitted = np.linalg.solve(gram, features.T @ offset.reshape(SAMPLES, -1)).reshape(9, len(ids), 3).transpose(1, 2, 0)
    fitted[np.abs(fitted) < SMALLEST_OFFSET_M] = 0
    kept = np.abs(fitted).max((1, 2)) > 0
    return ids[kept], fitted[kept]


def _mirrored(ids: np.ndarray, offsets: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sign = np.array([-1.0, 1, 1])
    flipped = offsets.reshape(-1, 3, 3, 3) * sign[:, None, None] * sign[:, None] * sign
    return mirror[ids], flipped.reshape(-1, 3, 9)


def fit(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray, finger_axes: np.ndarray
) -> Correctives:
    """Of the mean person (V,3 and 55,3). The left side is learnt and mirrored."""
    rng = np.random.default_rng(0)
    nothing = np.zeros(0, int), np.zeros((0, 3, 9))
    of_joint = {k: nothing for k in range(1, 55)}
    for k in range(1, 55):
        twin = rig.MIRRORED_JOINT[k]
        if twin < k or _kind(SMPLX_JOINTS[k]) not in TURN_RAD:
            continue
        of_joint[k] = ids, offsets = _fit_joint(k, vertices, joints, weights, finger_axes, rng)
        if twin != k:
            of_joint[twin] = _mirrored(ids, offsets, mirror)
    return Correctives(
        np.array([len(ids) for ids, _ in of_joint.values()]),
        np.concatenate([ids for ids, _ in of_joint.values()]),
        np.concatenate([offsets for _, offsets in of_joint.values()]),
    )
