"""The floor, feet that stand on it, and how they are held there.

*Stage frame*: the camera frame of a shot's first frame, from which a turning camera's turns are counted (x right,
y down, z forward). *World*: x right, y up, z towards the camera, the floor at y = 0. Metres and seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.motion.rig import Posed
from wholebody.motion.smooth import bending, fit

_STILL = 0.35  # metres a second across the line of sight, below which a sole may stand
_STILL_ALONG = 2.0  # along it, where a network sees little
_STEP_HERTZ = 3.0
_NEAR_FLOOR = 0.09  # metres above the floor at which a sole may stand
_SHORTEST = 0.1  # seconds that a foot stands at least
_UNSEEN = 0.02  # of a place's weight, where nobody was seen there
_LEVEL = np.tan(np.radians(8.0))  # how far a camera is usually from level
# What pulls at a person's path, as weights of squared metres. A place in the picture is known well: with a tenth of it,
# bodies stood 1.5 % of their height beside people who walk on the spot.
_ACROSS, _ALONG = 10.0, 3e-3
_STAYS = 112.0  # a sole that stands, from frame to frame
_ON_FLOOR = 1.0
_SLIDES = 0.25  # metres a second that a sole still moves after all, from which on it is believed to slide
_ROUNDS = 4
_LEGS = [[SMPLX_JOINTS.index(f"{side}_{joint}") for joint in ("hip", "knee", "ankle")] for side in ("left", "right")]


@dataclass(frozen=True)
class Floor:
    """Where the floor is in the stage frame."""

    up: np.ndarray  # (3,) unit vector away from the floor
    height: float  # of the camera above it, metres
    how: str  # "feet" or "upright camera"

    def stage_from_world(self, origin_stage: np.ndarray) -> np.ndarray:
        """(4, 4); the world's origin is the point of the floor below `origin_stage` (3,)."""
        y = self.up
        z = -np.array([0.0, 0.0, 1.0])
        z = z - (z @ y) * y  # towards the camera, along the floor
        if np.linalg.norm(z) < 1e-3:  # the camera looks straight down: up in the picture is away from it
            z = np.array([0.0, 1.0, 0.0]) - y[1] * y
        z /= np.linalg.norm(z)
        matrix = np.eye(4)
        matrix[:3, :3] = np.stack([np.cross(y, z), y, z], 1)
        matrix[:3, 3] = origin_stage - (origin_stage @ y + self.height) * y
        return matrix


def find_floor(points: np.ndarray, weights: np.ndarray, uprights: np.ndarray, lowest: np.ndarray) -> Floor:
    """The floor under standing soles.

    Args:
        points: (N, 3) soles that stand, stage frame. weights: (N,).
        uprights: (M, 3) directions from hips to neck of people who stand; their mean says roughly where up is.
        lowest: (K, 3) the lowest sole of each sight, for when nobody stands.

    A plane y = a x + b z + c by robust least squares, its slopes drawn to those of the people's own uprights (or,
    without any, of a level camera): few feet, or feet all at one distance, do not tell a slope.
    """
    level = np.array([0.0, -1.0, 0.0])
    prior = level
    if len(uprights):
        mean = np.median(uprights, 0)
        mean = mean / np.linalg.norm(mean)
        # People lean; a camera is level more often than they are upright.
        share = min(1.0, len(uprights) / 30) * 0.5
        if mean @ level > np.cos(np.radians(40)):
            prior = share * mean + (1 - share) * level
            prior = prior / np.linalg.norm(prior)
    slope0 = np.array([prior[0], prior[2]]) / -prior[1]  # y = a x + b z + c
    if len(points) < 5 or weights.sum() <= 0:
        if len(lowest) == 0:
            return Floor(prior, 1.5, "upright camera")
        heights = -(lowest @ prior)
        return Floor(prior, float(np.percentile(heights, 80)), "upright camera")
    x = np.stack([points[:, 0], points[:, 2], np.ones(len(points))], 1)
    y = points[:, 1]
    trust = weights.copy()
    solution = np.append(slope0, np.median(y - x[:, :2] @ slope0))
    for _ in range(10):
        # One point in ten of a second of standing is independent of the others at best.
        effective = trust / trust.sum() * min(len(points) / 15, 40.0)
        a = x * np.sqrt(effective)[:, None] / 0.05
        normal = a.T @ a
        right = a.T @ (y * np.sqrt(effective) / 0.05)
        normal[[0, 1], [0, 1]] += 1 / _LEVEL**2
        right[:2] += slope0 / _LEVEL**2
        solution = np.linalg.solve(normal, right)
        off = y - x @ solution
        usual = max(0.03, 1.4826 * float(np.median(np.abs(off))))
        trust = weights / (1 + (off / (2 * usual)) ** 2) ** 2
    up = np.array([solution[0], -1.0, solution[1]])
    length = np.linalg.norm(up)
    return Floor(up / length, float(solution[2] / length), "feet")


def standing(
    times: np.ndarray, soles: np.ndarray, sight: np.ndarray, up: np.ndarray, height: np.ndarray | None
) -> np.ndarray:
    """(T, 2, 2) bool: heel and ball of each foot stand.

    Args:
        soles: (T, 2, 2, 3) in a frame that stands still; sight: (T, 3) unit vectors along the line of sight.
        up: (3,). height: (T, 2, 2) above the floor; None: it is not known yet, and the lower foot may stand.
    """
    count = len(times)
    if count < 2:
        if height is not None:
            return np.asarray(height < _NEAR_FLOOR)
        tall = soles @ up
        return np.asarray(tall < tall.min((1, 2), keepdims=True) + 0.05)
    # What is left of a network's noise moves a sole that stands faster than this; a step takes longer than it shakes.
    slow = fit(times, soles.reshape(count, -1), np.ones(count), _STEP_HERTZ).reshape(soles.shape)
    speed = np.gradient(slow, times, axis=0)
    along = (speed * sight[:, None, None]).sum(-1)
    across = np.linalg.norm(speed - along[..., None] * sight[:, None, None], axis=-1)
    still = (across < _STILL) & (np.abs(along) < _STILL_ALONG)
    tall = soles @ up
    low = tall < tall.min((1, 2), keepdims=True) + 0.12 if height is None else height < _NEAR_FLOOR
    return _runs(np.asarray(still & low), times)


def _runs(flags: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(T, ...) with interruptions of one frame closed and runs shorter than `_SHORTEST` taken out."""
    flat = flags.reshape(len(flags), -1).copy()
    step = float(np.median(np.diff(times)))
    for column in flat.T:
        if len(column) > 2:
            column[1:-1] |= column[:-2] & column[2:]
        for first, last in runs(column):
            if (last - first) * step < _SHORTEST - 1e-9 and len(column) > 2:
                column[first:last] = False
    return flat.reshape(flags.shape)


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of each run of True in (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def hold(
    times: np.ndarray,
    transl: np.ndarray,
    soles: np.ndarray,
    stands: np.ndarray,
    sight: np.ndarray,
    weights: np.ndarray,
    hertz: float,
    on_floor: bool = True,
) -> np.ndarray:
    """Translations (T, 3), world frame, near the given ones, smooth, under which standing soles stay where they are.

    One sparse least-squares problem over all frames: the place across the line of sight is trusted, the distance along
    it much less (a network knows it from the person's size alone), soles that stand neither move nor leave the floor,
    and the correction of the path bends no more than it must (`smooth.bending`). A sole that the picture shows to slide
    all the same holds the body no longer (Geman and McClure's weights), which would stand beside the person otherwise.

    Args:
        soles: (T, 2, 2, 3) relative to the translation. stands: (T, 2, 2) bool. sight: (T, 3) unit. weights: (T,).
        on_floor: also draw standing soles to y = 0.
    """
    from scipy.linalg import solveh_banded

    count = len(times)
    if count < 3 or hertz <= 0:
        return np.array(transl)
    reach = 8  # unknowns that a row couples: 3 coordinates of frames i, i + 1, i + 2
    bands = np.zeros((reach + 1, 3 * count))
    right = np.zeros((count, 3))

    def add(bands: np.ndarray, frame: np.ndarray, other: np.ndarray, block: np.ndarray) -> None:
        """Add blocks (N, 3, 3) at rows `frame`, columns `other` >= `frame` of the symmetric matrix."""
        for a in range(3):
            for b in range(3):
                rows, columns = 3 * frame + a, 3 * other + b
                upper = columns >= rows
                bands[reach - (columns - rows)[upper], columns[upper]] += block[upper, a, b]

    every = np.arange(count)
    along = sight[:, :, None] * sight[:, None]
    # Where nobody was seen, what was said is all that is known: without it a path would be led on in a straight line.
    data = np.maximum(weights, _UNSEEN)[:, None, None] * (_ACROSS * (np.eye(3) - along) + _ALONG * along)
    add(bands, every, every, data)
    right += (data @ transl[..., None])[..., 0]
    bend = bending(times, hertz)
    for gap in range(3):
        value = bend[2 - gap, gap:, None]
        rows = np.arange(count - gap)
        add(bands, rows, rows + gap, value[..., None] * np.eye(3))
        right[rows] += value * transl[gap:]
        if gap:
            right[rows + gap] += value * transl[: count - gap]
    if on_floor:
        bands[reach, 1::3] += _ON_FLOOR * stands.sum((1, 2))
        right[:, 1] -= _ON_FLOOR * (stands * soles[..., 1]).sum((1, 2))
    both = stands[:-1] & stands[1:]  # (T - 1, 2, 2)
    moves = np.diff(soles, axis=0)
    trust = both.astype(np.float64)
    solved = np.array(transl)
    for _ in range(_ROUNDS):
        held, towards = bands.copy(), right.copy()
        weight = _STAYS * trust
        block = weight.sum((1, 2))[:, None, None] * np.eye(3)
        add(held, every[:-1], every[:-1], block)
        add(held, every[1:], every[1:], block)
        add(held, every[:-1], every[1:], -block)
        pull = (weight[..., None] * moves).sum((1, 2))
        towards[:-1] += pull
        towards[1:] -= pull
        solved = solveh_banded(held, towards.reshape(-1), lower=False, check_finite=False).reshape(count, 3)
        speed = np.linalg.norm(moves + np.diff(solved, axis=0)[:, None, None], axis=-1)
        trust = both / (1 + (speed / np.diff(times)[:, None, None] / _SLIDES) ** 2) ** 2
    return solved


def to_their_places(times: np.ndarray, soles: np.ndarray, stands: np.ndarray, on_floor: bool = True) -> np.ndarray:
    """(T, 2, 3) by how much each foot must move for its standing soles (T, 2, 2, 3) to stay at one place.

    Each run of standing has one place, the median of it, on the floor; before and after a run a foot goes over
    smoothly. World frame; nobody's foot is moved by more than 15 cm.
    """
    moves = np.zeros((len(times), 2, 3))
    for foot in range(2):
        wanted, held = moves[:, foot], np.zeros(len(times))
        for part in range(2):
            where = soles[:, foot, part]
            for first, last in runs(stands[:, foot, part]):
                place = np.median(where[first:last], 0)
                if on_floor and abs(place[1]) < 0.1:
                    place[1] = 0.0
                wanted[first:last] += place - where[first:last]
                held[first:last] += 1
        if not held.any():
            continue
        wanted /= np.maximum(held, 1)[:, None]
        if len(times) >= 3:
            eased = fit(times, wanted, np.where(held > 0, 1.0, 0.05), 6.0)
            wanted[held == 0] = eased[held == 0]
        length = np.linalg.norm(wanted, axis=1, keepdims=True)
        wanted *= np.minimum(1, 0.15 / np.maximum(length, 1e-9))
    return moves


def bend_leg(pose: np.ndarray, posed: Posed, foot: int, wanted: np.ndarray) -> None:
    """Bend a leg of the pose (T, 55, 3), in place, so that its ankle moves by `wanted` (T, 3) and its foot keeps its
    direction: two-bone inverse kinematics of hip and knee."""
    from scipy.spatial.transform import Rotation

    hip, knee, ankle = _LEGS[foot]
    a, b, c = (posed.joints[:, joint] for joint in (hip, knee, ankle))
    target = c + wanted
    thigh, shin = np.linalg.norm(b - a, axis=1), np.linalg.norm(c - b, axis=1)
    reach = np.clip(np.linalg.norm(target - a, axis=1), np.abs(thigh - shin) + 1e-3, (thigh + shin) * 0.9995)
    target = a + (target - a) / np.maximum(np.linalg.norm(target - a, axis=1, keepdims=True), 1e-9) * reach[:, None]
    now = np.arccos(np.clip(((a - b) * (c - b)).sum(1) / (thigh * shin), -1, 1))
    then = np.arccos(np.clip((thigh**2 + shin**2 - reach**2) / (2 * thigh * shin), -1, 1))
    # The axis that a knee bends about; of a straight leg the knee's own.
    axis = np.cross(a - b, c - b) / (thigh * shin)[:, None] - 0.02 * posed.turns[:, knee, :, 0]
    axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
    bend = Rotation.from_rotvec(axis * (then - now)[:, None]).as_matrix()
    moved = b + (bend @ (c - b)[..., None])[..., 0]
    u, v = moved - a, target - a
    cross = np.cross(u, v)
    sine = np.linalg.norm(cross, axis=1, keepdims=True)
    angle = np.arctan2(sine[:, 0], (u * v).sum(1))
    swing = Rotation.from_rotvec(cross / np.maximum(sine, 1e-12) * angle[:, None]).as_matrix()
    parent = posed.turns[:, 0]
    new_hip = swing @ posed.turns[:, hip]
    new_knee = swing @ bend @ posed.turns[:, knee]
    for joint, local in (
        (hip, parent.transpose(0, 2, 1) @ new_hip),
        (knee, new_hip.transpose(0, 2, 1) @ new_knee),
        (ankle, new_knee.transpose(0, 2, 1) @ posed.turns[:, ankle]),
    ):
        pose[:, joint] = Rotation.from_matrix(local).as_rotvec()
