"""Left taken for right: a network that does so for some frames is put right by what comes before and after.

Of each frame's arms, legs and whole body one of two readings is chosen, as said or exchanged, such that they move no
faster from frame to frame than people do (Viterbi's search over the film). The reading as said is the cheaper one, so
that a person whose sides are exchanged throughout, or in most frames, stays so: nothing in the film says otherwise.
"""

from __future__ import annotations

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.open_body import MIRROR_AXIS_ANGLE


def _pairs(*names: str) -> np.ndarray:
    return np.array([[SMPLX_JOINTS.index(f"{side}_{name}") for side in ("left", "right")] for name in names])


LEGS = _pairs("hip", "knee", "ankle", "foot")
ARMS = _pairs("collar", "shoulder", "elbow", "wrist")
_HANDS = np.stack([np.arange(25, 40), np.arange(40, 55)], 1)

_PLAIN, _FAST = np.radians(6.0), np.radians(200.0)  # of a joint: noise between two frames, and turning in a second
_FAR = np.radians(70.0)  # beyond that, a joint is no further off
_PRICE = 0.04  # radians: of an exchanged reading, a frame
_LEAST = 0.8  # radians, of all its joints together, that an exchange must save at either end of it
_LONGEST = 1.0  # seconds


def mend(times: np.ndarray, pose: np.ndarray, weights: np.ndarray, joints_px: np.ndarray) -> np.ndarray:
    """Put exchanged sides right, in place: pose (T, 55, 3) axis-angle, joints_px (T, 22, 2). (T,) bool where.

    weights: (T,); frames of 0 are passed over. A back taken for the front, or the other way round, is a root turned by
    half a turn about the body's own upright axis.
    """
    seen = np.flatnonzero(weights > 0)
    mended = np.zeros(len(times), bool)
    if len(seen) < 3:
        return mended
    about = np.array([0.0, np.pi, 0.0])
    turned = _exchanged(times[seen], pose[seen][:, :1], _after(pose[seen][:, :1], about))
    pose[seen[turned], 0] = _after(pose[seen[turned], 0], about)
    mended[seen[turned]] = True
    for pairs, all_pairs in ((LEGS, LEGS), (ARMS, np.concatenate([ARMS, _HANDS]))):
        said = pose[seen][:, pairs.ravel()]
        wrong = seen[_exchanged(times[seen], said, (said * MIRROR_AXIS_ANGLE)[:, np.arange(said.shape[1]) ^ 1])]
        mirrored = pose[wrong][:, all_pairs[:, ::-1].ravel()] * MIRROR_AXIS_ANGLE
        pose[np.ix_(wrong, all_pairs.ravel())] = mirrored
        mended[wrong] = True
    for pairs in (LEGS, ARMS):
        _name_points(times, joints_px, pairs, mended, seen)
    return mended


def _after(rotvec: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Rotations (..., 3) axis-angle, `turn` done first."""
    from scipy.spatial.transform import Rotation

    flat = Rotation.from_rotvec(np.asarray(rotvec, np.float64).reshape(-1, 3)) * Rotation.from_rotvec(turn)
    return flat.as_rotvec().reshape(np.shape(rotvec))


def _exchanged(times: np.ndarray, said: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(T,) bool: whether the `other` reading (T, J, 3) of each frame, not the one `said`, belongs to the motion."""
    from scipy.spatial.transform import Rotation

    both = np.stack([said, other], 1).astype(np.float64)  # (T, 2, J, 3)
    quaternions = Rotation.from_rotvec(both.reshape(-1, 3)).as_quat().reshape(*both.shape[:3], 4)
    count, step = len(times), np.diff(times)
    near = np.abs(np.einsum("tajc,tbjc->tabj", quaternions[:-1], quaternions[1:]))
    angle = 2 * np.arccos(np.clip(near, 0, 1))
    allowed = (_PLAIN + _FAST * step)[:, None, None, None]
    cost = np.clip(angle - allowed, 0, _FAR).sum(-1)  # (T - 1, 2, 2) from reading a to reading b
    cost[step > 0.3] = 0.0  # nobody knows what happened meanwhile
    # Where both readings are alike, going over from one to the other costs nothing; it must not be done in passing.
    cost += _LEAST / 2 * (1 - np.eye(2))
    best = np.array([0.0, _PRICE])
    came = np.zeros((count, 2), np.int64)
    for k in range(1, count):
        total = best[:, None] + cost[k - 1]
        came[k] = total.argmin(0)
        best = total.min(0) + [0.0, _PRICE]
    reading = np.zeros(count, np.int64)
    reading[-1] = best.argmin()
    for k in range(count - 1, 0, -1):
        reading[k - 1] = came[k, reading[k]]
    wrong = reading == 1
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wrong.astype(np.int8), [0]])))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        if times[last - 1] - times[first] > _LONGEST:
            wrong[first:last] = False
    return wrong


def _name_points(
    times: np.ndarray, joints_px: np.ndarray, pairs: np.ndarray, mended: np.ndarray, seen: np.ndarray
) -> None:
    """Of mended frames: left and right points of the picture as in the frames around, relative to their middle."""
    sure = seen[~mended[seen]]
    rows = seen[mended[seen]]
    if not len(sure) or not len(rows):
        return
    apart = joints_px[:, pairs[:, 0]] - joints_px[:, pairs[:, 1]]  # (T, P, 2)
    flat = apart[sure].reshape(len(sure), -1)
    around = np.stack([np.interp(times[rows], times[sure], column) for column in flat.T], 1)
    wrong = rows[(apart[rows].reshape(len(rows), -1) * around).sum(1) < 0]
    joints_px[np.ix_(wrong, pairs.ravel())] = joints_px[np.ix_(wrong, pairs[:, ::-1].ravel())]
