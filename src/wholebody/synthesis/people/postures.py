"""Body poses by procedure: standing, sitting, crouching, kneeling, bending, lying, legs and arms anywhere within their
limits, wrists at everyday places by inverse kinematics, crossed arms and legs.

Poses are (B,22,3) axis-angle, parent-relative, from the T-pose (y up); heading is given later.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from wholebody.data.sample import matrix_to_axis_angle
from wholebody.synthesis.people.skeleton import REST_22, J, compose, forward_kinematics

_SIDES = (("left", 1), ("right", -1))


def standing(rng: Generator, count: int) -> np.ndarray:
    """Upright, arms hanging more or less, weight on either leg."""
    pose = rng.normal(0, 0.05, (count, 22, 3))
    for side, sign in (("left", 1), ("right", -1)):
        pose[:, J[f"{side}_shoulder"], 2] = -sign * rng.normal(1.15, 0.22, count).clip(0.2, 1.45)
        pose[:, J[f"{side}_shoulder"], 1] = sign * rng.normal(0, 0.25, count)
        pose[:, J[f"{side}_elbow"], 1] = -sign * np.abs(rng.normal(0.25, 0.35, count)).clip(0, 2.2)
        pose[:, J[f"{side}_hip"], 0] = rng.normal(-0.05, 0.22, count).clip(-1.2, 0.35)
        pose[:, J[f"{side}_hip"], 2] = sign * np.abs(rng.normal(0.03, 0.1, count))
        pose[:, J[f"{side}_knee"], 0] = np.abs(rng.normal(0.05, 0.25, count)).clip(0, 1.6)
    return pose


def legs(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Give each person one of the lower-body procedures; the arms stay."""
    kinds = (_sitting, _floor_sitting, _crouching, _kneeling, _bending, _free_legs, _lying, _crossed_standing)
    share = np.array([0.3, 0.1, 0.13, 0.08, 0.12, 0.15, 0.08, 0.04])
    which = rng.choice(len(kinds), len(pose), p=share)
    pose = pose.copy()
    for k, kind in enumerate(kinds):
        rows = np.flatnonzero(which == k)
        if len(rows):
            pose[rows] = kind(rng, pose[rows])
    return pose


def _trunk(rng: Generator, pose: np.ndarray, pitch: np.ndarray, bend: np.ndarray) -> None:
    """Tilt the pelvis forward by `pitch` and bend the spine by `bend` in all (radians, B), in place."""
    count = len(pose)
    pose[:, J["pelvis"]] = np.stack([pitch, np.zeros(count), rng.normal(0, 0.06, count)], 1)
    twist = rng.normal(0, 0.06, (count, 1)) * np.array([[0, 1.0, 0.6]])
    for name in ("spine1", "spine2", "spine3"):
        pose[:, J[name]] = rng.normal(0, 0.04, (count, 3)) + np.stack([bend / 3, 0 * bend, 0 * bend], 1) + twist


def set_leg(
    rng: Generator, pose: np.ndarray, side: str, flex: np.ndarray, spread: np.ndarray, roll: np.ndarray, knee:
    np.ndarray, ankle: np.ndarray | float = 0.0,
) -> None:  # fmt: skip
    """Thigh flexed forward, opened sideways and rolled outwards, knee and ankle bent (radians, B), in place."""
    sign, zero = (1 if side == "left" else -1), 0 * flex
    # Flexed forward about x, then opened about y: composed, so that the knee ends where it is meant to.
    hip = compose(np.stack([zero, sign * spread, zero], 1), np.stack([-flex, zero, zero], 1))
    pose[:, J[f"{side}_hip"]] = compose(hip, np.stack([zero, sign * roll, zero], 1))
    count = len(pose)
    pose[:, J[f"{side}_knee"]] = np.stack([knee, zero, rng.normal(0, 0.04, count)], 1)
    pose[:, J[f"{side}_ankle"]] = rng.normal(0, 0.1, (count, 3)) + np.stack([zero + ankle, zero, zero], 1)


def _sitting(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """On a chair or a stool: knees together or apart, crossed over each other, an ankle on a knee, feet drawn in."""
    pose, count = pose.copy(), len(pose)
    _trunk(rng, pose, rng.normal(-0.08, 0.2, count), rng.normal(0.2, 0.2, count))
    way = rng.choice(4, count, p=[0.62, 0.16, 0.1, 0.12])
    over = rng.integers(0, 2, count)  # which leg lies over the other
    flex = rng.normal(1.45, 0.16, count).clip(1.0, 2.0)
    for k, (side, _) in enumerate(_SIDES):
        upper = over == k
        bend, spread = flex + rng.normal(0, 0.06, count), np.abs(rng.normal(0.15, 0.18, count))
        roll, knee = rng.normal(0, 0.12, count), (flex + rng.normal(-0.05, 0.3, count)).clip(0.3, 2.3)
        thigh = (way == 1) & upper  # thigh over thigh
        bend[thigh], spread[thigh], roll[thigh] = bend[thigh] + 0.28, -0.32, -0.1
        spread[(way == 1) & ~upper] = -0.05
        figure_four = (way == 2) & upper
        bend[figure_four], spread[figure_four] = bend[figure_four] + 0.1, 0.55
        roll[figure_four], knee[figure_four] = 1.0, 1.75
        stretched = way == 3
        knee[stretched] = rng.uniform(0.1, 0.9, stretched.sum())
        set_leg(rng, pose, side, bend, spread, roll, knee)
    return pose


def _floor_sitting(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """On the floor: cross-legged, legs stretched out, knees drawn up, or on the heels."""
    pose, count = pose.copy(), len(pose)
    _trunk(rng, pose, rng.normal(-0.15, 0.18, count), rng.normal(0.3, 0.2, count))
    way = rng.choice(4, count, p=[0.4, 0.2, 0.25, 0.15])
    base = [(1.35, 0.75, 0.35, 2.1), (1.45, 0.12, 0.1, 0.15), (1.85, 0.12, 0.0, 2.1), (1.1, 0.1, 0.0, 2.45)]
    table = np.array(base)[way]
    for side, _ in _SIDES:
        flex, spread, roll, knee = (table + rng.normal(0, [0.1, 0.1, 0.12, 0.15], (count, 4))).T
        set_leg(rng, pose, side, flex, spread, roll, knee.clip(0, 2.5), 0.5 * (way == 3))
    return pose


def _crouching(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Down on the feet, from half a squat to the heels."""
    pose, count = pose.copy(), len(pose)
    depth = rng.uniform(0.4, 1.0, count)
    _trunk(rng, pose, 0.15 + 0.5 * depth * rng.uniform(0.5, 1.3, count), rng.normal(0.3, 0.2, count))
    for side, _ in _SIDES:
        flex = 0.4 + 1.75 * depth + rng.normal(0, 0.12, count)
        knee = (0.3 + 2.05 * depth + rng.normal(0, 0.12, count)).clip(0, 2.5)
        spread = np.abs(rng.normal(0.25, 0.2, count))
        set_leg(rng, pose, side, flex, spread, rng.normal(0.1, 0.12, count), knee, -0.4 * depth)
    return pose


def _kneeling(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """On one knee or both."""
    pose, count = pose.copy(), len(pose)
    _trunk(rng, pose, rng.normal(0.1, 0.15, count), rng.normal(0.15, 0.2, count))
    up = rng.integers(0, 3, count)  # left foot, right foot, neither
    for k, (side, _) in enumerate(_SIDES):
        raised = up == k
        flex = np.where(raised, rng.normal(1.5, 0.15, count), rng.normal(0.1, 0.2, count))
        knee = np.where(raised, rng.normal(1.5, 0.2, count), rng.normal(1.65, 0.2, count))
        spread = np.abs(rng.normal(0.12, 0.12, count))
        set_leg(rng, pose, side, flex, spread, rng.normal(0.05, 0.1, count), knee, np.where(raised, 0.0, 0.5))
    return pose


def _bending(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Trunk far forward over legs that stand, as to pick something up or to tie a shoe."""
    pose, count = pose.copy(), len(pose)
    pitch = rng.uniform(0.3, 1.35, count)
    _trunk(rng, pose, pitch, rng.uniform(0.2, 1.0, count))
    knee = np.abs(rng.normal(0.2, 0.3, count))
    for side, _ in _SIDES:
        step = rng.normal(0, 0.2, count)
        bent = (knee + rng.normal(0, 0.1, count)).clip(0, 1.6)
        set_leg(rng, pose, side, pitch + 0.5 * bent + step, np.abs(rng.normal(0.08, 0.1, count)),
                 rng.normal(0, 0.1, count), bent, -0.4 * bent)  # fmt: skip
    # Arms hang towards the ground, or reach forward: they were made for an upright trunk.
    for side, sign in _SIDES:
        raise_ = rng.uniform(0.2, 1.5, count)
        down = np.stack([0 * raise_, 0 * raise_, -sign * rng.uniform(1.2, 1.5, count)], 1)
        pose[:, J[f"{side}_shoulder"]] = compose(np.stack([-raise_, 0 * raise_, 0 * raise_], 1), down)
    return pose


def _free_legs(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """One leg or both anywhere within the hips' and knees' limits: kicks, lunges, steps, dance."""
    pose, count = pose.copy(), len(pose)
    _trunk(rng, pose, rng.normal(0, 0.25, count), rng.normal(0.05, 0.25, count))
    both = rng.random(count) < 0.5
    which = rng.integers(0, 2, count)
    for k, (side, _) in enumerate(_SIDES):
        free = both | (which == k)
        flex = np.where(free, rng.uniform(-0.5, 1.9, count), rng.normal(0.05, 0.15, count))
        spread = np.where(free, rng.uniform(-0.15, 0.9, count), np.abs(rng.normal(0.06, 0.08, count)))
        knee = np.where(free, rng.uniform(0, 2.2, count), np.abs(rng.normal(0.1, 0.15, count)))
        set_leg(rng, pose, side, flex, spread, rng.normal(0.1, 0.25, count), knee, rng.normal(0.15, 0.25, count))
    return pose


def _lying(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """On the back, the front or a side; legs straight, bent or drawn up."""
    pose, count = pose.copy(), len(pose)
    _trunk(rng, pose, np.zeros(count), rng.normal(0.1, 0.2, count))
    way = rng.choice(4, count, p=[0.4, 0.2, 0.2, 0.2])
    tilt = np.array([[-1.5, 0, 0], [1.5, 0, 0], [0, 0, 1.5], [0, 0, -1.5]])[way]
    pose[:, 0] = tilt + rng.normal(0, 0.2, (count, 3))
    flex = np.abs(rng.normal(0, 0.7, count)).clip(0, 2.0)
    for side, _ in _SIDES:
        own = (flex + rng.normal(0, 0.25, count)).clip(-0.2, 2.2)
        knee = (1.2 * own + rng.normal(0, 0.3, count)).clip(0, 2.4)
        set_leg(rng, pose, side, own, rng.normal(0.12, 0.12, count), rng.normal(0.15, 0.2, count), knee, 0.4)
    return pose


def _crossed_standing(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Leaning with one foot before the other."""
    pose, count = pose.copy(), len(pose)
    _trunk(rng, pose, rng.normal(-0.05, 0.1, count), rng.normal(0.05, 0.1, count))
    over = rng.integers(0, 2, count)
    for k, (side, _) in enumerate(_SIDES):
        before = over == k
        flex = np.where(before, rng.uniform(0.25, 0.45, count), rng.normal(0, 0.05, count))
        spread = np.where(before, rng.uniform(-0.3, -0.15, count), rng.uniform(-0.08, 0.0, count))
        knee = np.where(before, rng.uniform(0.2, 0.6, count), np.abs(rng.normal(0, 0.05, count)))
        set_leg(rng, pose, side, flex, spread, rng.normal(0, 0.1, count), knee)
    return pose


# Where wrists go in everyday pictures, in the frame of the upper trunk with the neck as origin, left side: weight, mean
# and spread.
_REACH_PLACES = (
    (3.0, (0.12, -0.28, 0.30), (0.10, 0.12, 0.08)),  # in front of the chest: talking, holding
    (1.5, (0.08, -0.42, 0.22), (0.10, 0.06, 0.05)),  # lap, folded hands
    (1.6, (0.17, 0.05, 0.20), (0.08, 0.08, 0.06)),  # at the face, phone, glasses, hair
    (0.6, (0.10, -0.02, 0.22), (0.05, 0.05, 0.03)),  # chin, mouth, opposite cheek
    (1.0, (0.26, -0.48, 0.02), (0.04, 0.05, 0.05)),  # on the hip
    (1.0, (0.25, -0.10, 0.45), (0.15, 0.15, 0.08)),  # stretched forward
    (0.7, (0.55, 0.00, 0.10), (0.10, 0.15, 0.15)),  # out to the side
    (1.2, (0.25, 0.42, 0.08), (0.15, 0.14, 0.12)),  # overhead
    (0.5, (0.15, 0.15, -0.10), (0.05, 0.08, 0.04)),  # behind the head
    (0.3, (0.06, -0.45, -0.16), (0.08, 0.06, 0.04)),  # behind the back
    (0.5, (-0.14, -0.10, 0.16), (0.05, 0.06, 0.03)),  # at the other shoulder
)
# Both arms together: crossed before the chest, a wrist under the other elbow.
_CROSSED = ((-0.10, -0.24, 0.17), (-0.12, -0.28, 0.20))


def reaching(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Put one or both wrists to an everyday place by two-bone inverse kinematics on the mean skeleton."""
    pose, count = pose.copy(), len(pose)
    weights = np.array([w for w, _, _ in _REACH_PLACES])
    place = rng.choice(len(weights), (count, 2), p=weights / weights.sum())
    together = rng.random(count) < 0.5
    place[together, 1] = place[together, 0]
    mean, spread = np.array([m for _, m, _ in _REACH_PLACES]), np.array([s for _, _, s in _REACH_PLACES])
    which = rng.choice(3, count, p=[0.2, 0.2, 0.6])  # left, right, both
    crossed = rng.random(count) < 0.07
    which[crossed] = 2
    front = rng.integers(0, 2, count)
    for k, (side, sign) in enumerate(_SIDES):
        rows = np.flatnonzero((which == k) | (which == 2))
        n = len(rows)
        at = mean[place[rows, k]] + spread[place[rows, k]] * rng.normal(0, 1, (n, 3))
        folded = crossed[rows]
        at[folded] = np.array(_CROSSED)[(front[rows[folded]] == k).astype(int)] + rng.normal(
            0, 0.025, (folded.sum(), 3)
        )
        target = at * [sign, 1, 1] + REST_22[J["neck"]] - REST_22[J[f"{side}_shoulder"]]
        pose[rows, J[f"{side}_collar"]] = rng.normal(0, 0.05, (n, 3))
        shoulder, elbow = two_bones(rng, target, sign)
        pose[rows, J[f"{side}_shoulder"]], pose[rows, J[f"{side}_elbow"]] = shoulder, elbow
    return pose


def free_arms(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Both wrists anywhere that arms reach, in front more than behind."""
    pose, count = pose.copy(), len(pose)
    for side, sign in _SIDES:
        direction = rng.normal(0, 1, (count, 3)) + np.array([0.5 * sign, 0, 0.5])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        target = direction * rng.uniform(0.2, 0.475, (count, 1))
        pose[:, J[f"{side}_shoulder"]], pose[:, J[f"{side}_elbow"]] = two_bones(rng, target, sign)
    return pose


def two_bones(rng: Generator, target: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Shoulder and elbow rotations that bring the wrist to `target` (n,3), relative to the shoulder, trunk frame."""
    upper, fore = 0.252, 0.226
    n = len(target)
    distance = np.linalg.norm(target, axis=1).clip(0.12, 0.985 * (upper + fore))
    direction = target / (np.linalg.norm(target, axis=1, keepdims=True) + 1e-9)
    # The elbow points down and outwards, seldom up.
    pole = np.stack([sign * rng.normal(0.55, 0.45, n), rng.normal(-1.0, 0.35, n), rng.normal(-0.25, 0.3, n)], 1)
    pole = pole - direction * (pole * direction).sum(1, keepdims=True)
    pole = pole / (np.linalg.norm(pole, axis=1, keepdims=True) + 1e-9)
    along = (upper**2 - fore**2 + distance**2) / (2 * distance)
    away = np.sqrt(np.maximum(upper**2 - along**2, 0))
    elbow_at = direction * along[:, None] + pole * away[:, None]
    u, w = elbow_at / upper, (direction * distance[:, None] - elbow_at) / fore
    bend = np.arccos((u * w).sum(1).clip(-1, 1))
    toward = w - u * (u * w).sum(1, keepdims=True)
    toward = toward / (np.linalg.norm(toward, axis=1, keepdims=True) + 1e-9)
    # At rest the arm lies along sign * x and the forearm bends towards +z.
    x, z = sign * u, toward
    matrix = np.stack([x, np.cross(z, x), z], -1)
    return matrix_to_axis_angle(matrix), np.stack([0 * bend, -sign * bend, 0 * bend], 1)


def perturbed(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Noise on every joint; wrists, twist of the forearms, collars, neck and head drawn anew: capture knows them
    badly."""
    count = len(pose)
    sigma = np.full(22, 0.06)
    sigma[[J["left_shoulder"], J["right_shoulder"]]] = 0.14
    sigma[[J["left_elbow"], J["right_elbow"]]] = 0.10
    sigma[[J["left_foot"], J["right_foot"]]] = 0.10
    sigma[0] = 0.05
    pose = compose(pose, rng.normal(0, 1, (count, 22, 3)) * sigma[:, None])
    joints = forward_kinematics(pose)
    for side, sign in (("left", 1), ("right", -1)):
        wrist, elbow, collar = (J[f"{side}_{n}"] for n in ("wrist", "elbow", "collar"))
        arm = joints[:, elbow] - joints[:, J[f"{side}_shoulder"]]
        trunk = joints[:, J["neck"]] - joints[:, 0]
        raised = (arm * trunk).sum(1) / np.linalg.norm(arm, axis=1) / np.linalg.norm(trunk, axis=1)
        lift = np.maximum(raised + 0.1, 0) * 0.35 + rng.normal(0, 0.05, count)
        pose[:, collar] += np.stack([0 * lift, rng.normal(0, 0.06, count), sign * lift], 1)
        twist = rng.normal(0, 0.45, count).clip(-1.1, 1.1)
        pose[:, elbow] = compose(pose[:, elbow], np.stack([0.45 * twist, 0 * twist, 0 * twist], 1))
        bend = rng.normal(0, [0.0, 0.22, 0.32], (count, 3)).clip(-0.9, 0.9)
        pose[:, wrist] = compose(0.35 * pose[:, wrist] + np.stack([0.55 * twist, 0 * twist, 0 * twist], 1), bend)
    look = rng.normal(0, [0.16, 0.26, 0.09], (count, 3)).clip(-0.8, 0.8)
    pose[:, J["neck"]] = compose(pose[:, J["neck"]], 0.5 * look)
    pose[:, J["head"]] = compose(pose[:, J["head"]], 0.5 * look)
    return pose
