"""Who is in the picture: shapes, poses, hands and faces of a batch of people, drawn from a seed.

Body poses come from motion clips where there are any, sampled by cluster rather than by frame (half of all captured
frames stand or walk), mirrored, mixed between upper and lower body, and perturbed; and from procedures for what
capture lacks: arms that reach to a place, sitting, lying. All rotations are axis-angle, parent-relative, from the
T-pose (y up).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator

from wholebody.body.joints import PARENTS, SMPLX_JOINTS
from wholebody.data.sample import axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.errors import BadInput

# fmt: off
_REST_22 = np.array([  # a mean skeleton in T-pose, metres: only for features and for reaching, never for truth
    [0, 0, 0], [.11, -.09, .03], [-.11, -.09, .03], [0, .07, .01], [.13, -.46, .06], [-.13, -.46, .06], [0, .15, .01],
    [.13, -.89, .03], [-.13, -.89, .03], [0, .27, 0], [.13, -.94, .17], [-.13, -.94, .17], [0, .45, .04], [.02, .38,
    .05], [-.02, .38, .05], [0, .55, .07], [.17, .39, .05], [-.17, .39, .05], [.43, .39, .05], [-.43, .39, .05],
    [.65, .39, .05], [-.65, .39, .05]])
# fmt: on
_J = {name: k for k, name in enumerate(SMPLX_JOINTS)}
_LOWER = [
    _J[n]
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
_MIRROR_22 = [
    SMPLX_JOINTS.index(n.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right"))
    for n in SMPLX_JOINTS[:22]
]
_FLIP = np.array([1.0, -1.0, -1.0])

# Held out: whole subjects, so that no performance is seen in training. Clips of `cmu_expmap` that may show any
# subject's walk or run are left out of both sides.
_HELDOUT_SUBJECTS = {"02", "05", "12", "131", "135"}
_UNCERTAIN = re.compile(r"(walking|running)_\d+$")


@dataclass(frozen=True)
class People:
    """A batch of B people: `full_pose` (B,55,3) with row 0 in the world frame (y up, facing +z at identity) and
    hands measured from the flat hand, `betas` (B,10), `expression` (B,10)."""

    full_pose: np.ndarray
    betas: np.ndarray
    expression: np.ndarray

    def __len__(self) -> int:
        return len(self.betas)


def sample_people(
    rng: Generator,
    count: int,
    poses: PoseLibrary | None,
    hands: HandSpace,
    population: Population,
    child_fraction: float,
) -> People:
    """Draw `count` people."""
    body = _body_poses(rng, count, poses)
    for _ in range(4):  # redraw those whose arms pass through their own trunk
        bad = np.flatnonzero(_penetrates(body))
        if not len(bad):
            break
        body[bad] = _body_poses(rng, len(bad), poses)
    body = _turn(rng, body)
    full = np.zeros((count, 55, 3))
    full[:, :22] = body
    full[:, _J["jaw"]], full[:, 23:25] = _jaw(rng, count), _gaze(rng, count)
    full[:, 25:40] = hands.sample(rng, count)
    full[:, 40:55] = hands.sample(rng, count) * _FLIP
    same = rng.random(count) < 0.25  # both hands often do the same
    full[same, 40:55] = full[same, 25:40] * _FLIP + rng.normal(0, 0.04, (same.sum(), 15, 3))
    return People(
        full.astype(np.float32), population.shapes(rng, count, child_fraction), population.expressions(rng, count)
    )


# ---------------------------------------------------------------- shape and face


@dataclass(frozen=True)
class Population:
    """What the body file knows of plausible people: `betas` (P,10) of drawn ones, their `age` (P,) in years, and what
    facial actions (A, by name, in `actions`) are as expression coefficients `expression` (A,10)."""

    betas: np.ndarray
    age: np.ndarray
    actions: tuple[str, ...]
    expression: np.ndarray

    def shapes(self, rng: Generator, count: int, child_fraction: float) -> np.ndarray:
        """(count,10): half near plausible people (genders and ages form clusters), half spread wider."""
        child = rng.random(count) < child_fraction
        young = np.flatnonzero(self.age < 15)
        adult = np.flatnonzero(self.age >= 15)
        known = self.betas[np.where(child, rng.choice(young, count), rng.choice(adult, count))]
        near = known + rng.normal(0, 0.35, (count, 10))
        # Children lie far out along the first component (height) of the open body's space.
        wide = rng.normal(0, 1.1, (count, 10)).clip(-2.5, 2.5)
        wide[child, 0] = -rng.uniform(2.2, 4.0, child.sum())
        wide[child, 1:] *= 0.5
        return np.where(rng.random((count, 1)) < 0.55, near, wide).astype(np.float32)

    def expressions(self, rng: Generator, count: int) -> np.ndarray:
        """(count,10): a few facial actions together, or anything near the mean face, or wider."""
        sides = sorted({a.removesuffix("Left").removesuffix("Right") for a in self.actions})
        strength = np.zeros((count, len(self.actions)))
        for name in sides:
            rows = [k for k, a in enumerate(self.actions) if a.removesuffix("Left").removesuffix("Right") == name]
            often = 0.35 if name == "mouthSmile" else 0.18 if name == "eyeBlink" else 0.08
            on = (rng.random(count) < often) * rng.beta(1.3, 1.6, count)
            if len(rows) == 2 and name not in ("mouthLeft", "mouthRight"):
                one_sided = np.where(rng.random(count) < 0.1, rng.integers(0, 2, count), 2)
                for k, row in enumerate(rows):
                    strength[:, row] = on * np.where(one_sided == 1 - k, 0.2, 1.0)
            else:
                strength[:, rows[0]] = on * 0.6
        acted = strength @ self.expression
        wide = rng.normal(0, 1, (count, 10)) * rng.choice([0.3, 0.9], (count, 1))
        return (
            np.where(rng.random((count, 1)) < 0.6, acted + rng.normal(0, 0.15, (count, 10)), wide)
            .clip(-3, 3)
            .astype(np.float32)
        )


def _jaw(rng: Generator, count: int) -> np.ndarray:
    open_by = np.where(rng.random(count) < 0.5, 0.0, np.abs(rng.normal(0, np.radians(9), count))).clip(
        0, np.radians(24)
    )
    return np.stack([open_by, rng.normal(0, 0.012, count), rng.normal(0, 0.008, count)], 1)


def _gaze(rng: Generator, count: int) -> np.ndarray:
    pitch_yaw = rng.normal(0, np.radians([7, 12]), (count, 1, 2)).clip(-0.5, 0.5)
    return np.concatenate([np.repeat(pitch_yaw, 2, 1), np.zeros((count, 2, 1))], 2)


# ---------------------------------------------------------------- hands

# Curl of index, middle, pinky, ring, thumb at knuckle, middle and end joint (0 straight, 1 fist), then spread and thumb
# (opposition, twist), both in units of their natural range.
_STRAIGHT, _FIST = (0.0, 0.0, 0.0), (1.0, 1.0, 0.9)


def _gesture(index, middle, pinky, ring, thumb, spread=0.0, opposition=0.3):
    return np.array([*index, *middle, *pinky, *ring, *thumb, spread, opposition])


GESTURES: dict[str, np.ndarray] = {
    "relaxed": _gesture((0.2, 0.25, 0.2), (0.28, 0.3, 0.25), (0.35, 0.35, 0.3), (0.32, 0.33, 0.28), (0.15, 0.2, 0.15)),
    "loose": _gesture(
        (0.3, 0.45, 0.3), (0.4, 0.5, 0.35), (0.5, 0.55, 0.4), (0.45, 0.52, 0.4), (0.25, 0.3, 0.3), 0, 0.5
    ),
    "flat": _gesture(_STRAIGHT, _STRAIGHT, _STRAIGHT, _STRAIGHT, (0.0, 0.0, 0.0), 0.0, 0.1),
    "spread": _gesture((-0.1, 0, 0), (-0.1, 0, 0), (-0.1, 0.05, 0), (-0.1, 0, 0), (-0.25, -0.1, -0.1), 1.0, -0.2),
    "fist": _gesture(_FIST, _FIST, _FIST, _FIST, (0.6, 0.6, 0.8), -0.2, 0.9),
    "point": _gesture(_STRAIGHT, (0.9, 1, 0.8), _FIST, _FIST, (0.5, 0.6, 0.7), 0, 0.9),
    "peace": _gesture((0.0, 0, 0), (0.0, 0, 0), _FIST, _FIST, (0.6, 0.6, 0.7), 0.9, 1.0),
    "thumb_up": _gesture(_FIST, _FIST, _FIST, _FIST, (-0.5, -0.2, -0.1), -0.1, -0.5),
    "pinch": _gesture(
        (0.55, 0.5, 0.35), (0.3, 0.35, 0.2), (0.3, 0.25, 0.2), (0.3, 0.3, 0.2), (0.4, 0.35, 0.35), 0.3, 1.1
    ),
    "ring_sign": _gesture(
        (0.6, 0.6, 0.4), (0.15, 0.1, 0.1), (-0.05, 0.05, 0.0), (0.05, 0.1, 0.1), (0.45, 0.4, 0.4), 0.7, 1.2
    ),
    "hold": _gesture(
        (0.5, 0.55, 0.4), (0.55, 0.55, 0.4), (0.6, 0.6, 0.45), (0.58, 0.57, 0.4), (0.3, 0.35, 0.4), 0.1, 1.0
    ),
    "hold_phone": _gesture(
        (0.35, 0.5, 0.3), (0.45, 0.5, 0.3), (0.6, 0.5, 0.4), (0.5, 0.5, 0.3), (0.1, 0.1, 0.3), 0.2, 0.8
    ),
    "claw": _gesture((-0.1, 0.6, 0.6), (-0.1, 0.6, 0.6), (-0.1, 0.6, 0.6), (-0.1, 0.6, 0.6), (0, 0.3, 0.4), 0.8, 0.3),
    "bent": _gesture((0.8, 0.1, 0), (0.8, 0.1, 0), (0.8, 0.1, 0), (0.8, 0.1, 0), (0.2, 0.1, 0.1), 0, 0.6),
    "call": _gesture(_FIST, _FIST, (0, 0, 0), _FIST, (-0.3, -0.1, -0.1), 0.8, -0.3),
    "horns": _gesture(_STRAIGHT, _FIST, _STRAIGHT, _FIST, (0.6, 0.6, 0.7), 0.6, 1.0),
    "three": _gesture(_STRAIGHT, _STRAIGHT, _FIST, _FIST, (-0.2, 0, 0), 0.7, -0.2),
    "four": _gesture(_STRAIGHT, _STRAIGHT, _STRAIGHT, _STRAIGHT, (0.7, 0.6, 0.5), 0.7, 1.3),
}
_GESTURE_WEIGHT = {"relaxed": 5, "loose": 4, "flat": 2, "hold": 2.5, "fist": 2, "spread": 1.5, "point": 1.5}


@dataclass(frozen=True)
class HandSpace:
    """Natural left-hand poses of one body: how its fingers bend. `flex`, `side`, `along` are (5,3) unit axes per
    finger."""

    flex: np.ndarray
    side: np.ndarray
    along: np.ndarray

    @classmethod
    def of(cls, joints_rest: np.ndarray) -> HandSpace:
        """From the body's 55 rest joints (T-pose, palm down)."""
        flex, side, along = [], [], []
        for finger in ("index", "middle", "pinky", "ring", "thumb"):
            d = joints_rest[_J[f"left_{finger}3"]] - joints_rest[_J[f"left_{finger}2"]]
            d = d / np.linalg.norm(d)
            towards = np.array([0.25, -0.55, -0.8]) if finger == "thumb" else np.array([0, -1.0, 0])
            towards = towards - d * (towards @ d)
            axis = np.cross(d, towards / np.linalg.norm(towards))
            flex.append(axis)
            side.append(np.cross(d, axis))
            along.append(d)
        return cls(np.array(flex), np.array(side), np.array(along))

    def sample(self, rng: Generator, count: int) -> np.ndarray:
        """(count, 15, 3) left-hand rotations from the flat hand."""
        names = list(GESTURES)
        weight = np.array([_GESTURE_WEIGHT.get(n, 1.0) for n in names])
        table = np.stack([GESTURES[n] for n in names])
        first, second = rng.choice(len(names), (2, count), p=weight / weight.sum())
        t = rng.beta(0.4, 0.8, (count, 1))
        code = table[first] * (1 - t) + table[second] * t
        free = rng.random(count) < 0.15  # every finger on its own
        curl = np.repeat(rng.beta(0.8, 1.0, (free.sum(), 5)), 3, axis=1) * rng.uniform(0.8, 1.1, (free.sum(), 15))
        code[free] = np.concatenate([curl, rng.uniform(-0.3, 1, (free.sum(), 2))], 1)
        code[:, :15] += rng.normal(0, 0.07, (count, 15)) + rng.normal(0, 0.06, (count, 1))
        code[:, 15:] += rng.normal(0, 0.25, (count, 2))
        return self.pose(code.clip(-0.35, 1.35))

    def pose(self, code: np.ndarray) -> np.ndarray:
        """Gesture codes (B,17) -> (B,15,3)."""
        curl, spread, opposition = code[:, :15].reshape(-1, 5, 3), code[:, 15], code[:, 16]
        limits = np.radians([[80, 100, 65]] * 4 + [[30, 45, 60]])
        pose = (curl * limits)[..., None] * self.flex[None, :, None]
        # Fingers fan out from the middle finger, and cannot when they are curled. The flat rest hand is fanned out
        # already.
        fan = -np.radians([10.0, 1.5, -16.0, -8.0])
        open_ = (1 - curl[:, :4, 0]).clip(0, 1)
        pose[:, :4, 0] += ((spread[:, None] - 0.8) * open_ * fan)[..., None] * np.array([0, 1.0, 0])
        pose[:, 4, 0] += (opposition * np.radians(22))[:, None] * self.along[4] - (spread * 0.2)[:, None] * self.side[
            4
        ] * 0.5
        return pose.reshape(-1, 15, 3)


# ---------------------------------------------------------------- bodies


@dataclass(frozen=True)
class PoseLibrary:
    """Captured body poses, N x 22 rotations (heading removed), and which cluster each belongs to."""

    poses: np.ndarray
    members: list[np.ndarray]
    weights: np.ndarray

    @classmethod
    def load(cls, folder: str | Path, split: str = "train", clusters: int = 160) -> PoseLibrary:
        return _load_library(str(folder), split, clusters)

    def sample(self, rng: Generator, count: int) -> np.ndarray:
        cluster = rng.choice(len(self.members), count, p=self.weights)
        pick = rng.random(count)
        rows = [self.members[c][int(p * len(self.members[c]))] for c, p in zip(cluster, pick, strict=True)]
        return self.poses[rows].astype(np.float64)


def subject_of(clip: str) -> str:
    """`cmu_bvh/05_02` -> `05`: whose performance a clip is; other sources count every clip as its own subject."""
    folder, _, name = clip.partition("/")
    return name.split("_")[0] if re.match(r"\d+_", name) else f"{folder}/{name}"


def in_split(clip: str, split: str) -> bool:
    """Whether a clip belongs to a split; "train" and "heldout" share no subject."""
    if _UNCERTAIN.search(clip):
        return split == "all"
    subject = subject_of(clip)
    heldout = subject in _HELDOUT_SUBJECTS
    if clip.startswith("mesh2motion"):
        heldout = sum(map(ord, subject)) % 3 == 0
    return split == "all" or heldout == (split == "heldout")


@lru_cache(maxsize=4)
def _load_library(folder: str, split: str, clusters: int) -> PoseLibrary:
    files = sorted(Path(folder).glob("*/*.npz"))
    if not files:
        raise BadInput(
            f"no motion clips (*/*.npz) in {folder}: name the folder that holds them, or none for procedural poses"
        )
    chosen = [f for f in files if in_split(f"{f.parent.name}/{f.stem}", split)]
    poses = np.concatenate([np.load(f)["local_rotvec"].astype(np.float32) for f in chosen])
    root = axis_angle_to_matrix(poses[:, 0])
    poses[:, 0] = matrix_to_axis_angle(_without_heading(root))
    points = forward_kinematics(poses.astype(np.float64))
    label = _kmeans(points.reshape(len(points), -1), min(clusters, len(points)))
    members = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    members = [m for m in members if len(m)]
    weights = np.array([len(m) for m in members]) ** 0.6
    return PoseLibrary(poses, members, weights / weights.sum())


def _kmeans(features: np.ndarray, k: int, steps: int = 8) -> np.ndarray:
    features = features.astype(np.float32)
    centres = features[np.random.default_rng(0).choice(len(features), k, replace=False)]
    for _ in range(steps):
        label = (features @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        total = np.zeros_like(centres)
        np.add.at(total, label, features)
        count = np.bincount(label, minlength=k)[:, None]
        centres = np.where(count > 0, total / np.maximum(count, 1), centres)
    return label


def _without_heading(root: np.ndarray) -> np.ndarray:
    """Turn root rotations (N,3,3) about the vertical so that they face +z; one that lies faces by its head's side."""
    forward = root[:, :, 2].copy()
    flat = np.hypot(forward[:, 0], forward[:, 2]) < 0.3
    forward[flat] = -np.sign(forward[flat, 1:2]) * root[flat, :, 1]
    yaw = np.arctan2(forward[:, 0], forward[:, 2])
    return axis_angle_to_matrix(np.stack([0 * yaw, -yaw, 0 * yaw], 1)) @ root


def forward_kinematics(pose: np.ndarray) -> np.ndarray:
    """(B,22,3) rotations -> (B,22,3) joints of the mean skeleton, pelvis at the origin."""
    local = axis_angle_to_matrix(pose)
    world, points = [local[:, 0]], [np.zeros((len(pose), 3))]
    for j in range(1, 22):
        p = PARENTS[j]
        points.append(points[p] + world[p] @ (_REST_22[j] - _REST_22[p]))
        world.append(world[p] @ local[:, j])
    return np.stack(points, 1)


def _compose(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Axis-angle of R(first) @ R(then)."""
    return matrix_to_axis_angle(axis_angle_to_matrix(first) @ axis_angle_to_matrix(then))


def _body_poses(rng: Generator, count: int, library: PoseLibrary | None) -> np.ndarray:
    """(count,22,3), heading removed."""
    if library is None:
        pose = _standing(rng, count)
        share_reach, share_sit = 0.75, 0.25
    else:
        pose = library.sample(rng, count)
        other = library.sample(rng, count)
        mixed = np.flatnonzero(rng.random(count) < 0.25)
        pose[mixed[:, None], _LOWER] = other[mixed[:, None], _LOWER]
        mirrored = rng.random(count) < 0.5
        pose[mirrored] = pose[mirrored][:, _MIRROR_22] * _FLIP
        stand = np.flatnonzero(rng.random(count) < 0.12)
        pose[stand] = _standing(rng, len(stand))
        share_reach, share_sit = 0.28, 0.1
    sit = np.flatnonzero(rng.random(count) < share_sit)
    pose[sit] = _sitting(rng, pose[sit])
    reach = np.flatnonzero(rng.random(count) < share_reach)
    pose[reach] = _reaching(rng, pose[reach])
    return _perturbed(rng, pose)


def _standing(rng: Generator, count: int) -> np.ndarray:
    """Upright, arms hanging more or less, weight on either leg."""
    pose = rng.normal(0, 0.05, (count, 22, 3))
    for side, sign in (("left", 1), ("right", -1)):
        pose[:, _J[f"{side}_shoulder"], 2] = -sign * rng.normal(1.15, 0.22, count).clip(0.2, 1.45)
        pose[:, _J[f"{side}_shoulder"], 1] = sign * rng.normal(0, 0.25, count)
        pose[:, _J[f"{side}_elbow"], 1] = -sign * np.abs(rng.normal(0.25, 0.35, count)).clip(0, 2.2)
        pose[:, _J[f"{side}_hip"], 0] = rng.normal(-0.05, 0.22, count).clip(-1.2, 0.35)
        pose[:, _J[f"{side}_hip"], 2] = sign * np.abs(rng.normal(0.03, 0.1, count))
        pose[:, _J[f"{side}_knee"], 0] = np.abs(rng.normal(0.05, 0.25, count)).clip(0, 1.6)
    return pose


def _sitting(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Legs as on a chair, a stool or the floor; trunk a little bent."""
    pose, count = pose.copy(), len(pose)
    pose[:, _J["pelvis"]] = np.stack([rng.normal(-0.1, 0.15, count), np.zeros(count), rng.normal(0, 0.05, count)], 1)
    for name in ("spine1", "spine2", "spine3"):
        pose[:, _J[name]] = rng.normal(0, 0.06, (count, 3)) + np.array([0.06, 0, 0])
    crossed = rng.random(count) < 0.2
    for side, sign in (("left", 1), ("right", -1)):
        bend = rng.normal(1.45, 0.2, count).clip(0.9, 2.1)
        spread = np.abs(rng.normal(0.15, 0.18, count))
        spread[crossed] = rng.normal(0.75, 0.2, crossed.sum())
        # Flexed forward about x, then opened about y: composed, so that the knee ends where it is meant to.
        hip = _compose(np.stack([0 * bend, sign * spread, 0 * bend], 1), np.stack([-bend, 0 * bend, 0 * bend], 1))
        pose[:, _J[f"{side}_hip"]] = hip
        knee = rng.normal(1.4, 0.35, count).clip(0.2, 2.3)
        knee[crossed] = rng.normal(2.1, 0.15, crossed.sum())
        pose[:, _J[f"{side}_knee"]] = np.stack([knee, 0 * knee, rng.normal(0, 0.05, count)], 1)
        pose[:, _J[f"{side}_ankle"]] = rng.normal(0, 0.15, (count, 3)) * [1, 0.5, 0.5]
    return pose


# Where wrists go in everyday pictures, in the frame of the upper trunk with the neck as origin, left side: mean and
# spread.
_REACH_PLACES = (
    (3.0, (0.12, -0.28, 0.30), (0.10, 0.12, 0.08)),  # in front of the chest: talking, holding, crossed arms
    (1.5, (0.08, -0.42, 0.22), (0.10, 0.06, 0.05)),  # lap, folded hands
    (1.5, (0.20, 0.05, 0.20), (0.08, 0.10, 0.06)),  # at the face, phone, glasses, hair
    (1.0, (0.26, -0.48, 0.02), (0.04, 0.05, 0.05)),  # on the hip
    (1.0, (0.25, -0.10, 0.45), (0.15, 0.15, 0.08)),  # stretched forward
    (0.7, (0.55, 0.00, 0.10), (0.10, 0.15, 0.15)),  # out to the side
    (0.7, (0.30, 0.45, 0.05), (0.15, 0.12, 0.12)),  # overhead
    (0.4, (0.15, 0.12, -0.12), (0.05, 0.08, 0.04)),  # behind the head
)


def _reaching(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Put one or both wrists to an everyday place by two-bone inverse kinematics on the mean skeleton."""
    pose, count = pose.copy(), len(pose)
    weights = np.array([w for w, _, _ in _REACH_PLACES])
    place = rng.choice(len(weights), (count, 2), p=weights / weights.sum())
    together = rng.random(count) < 0.5
    place[together, 1] = place[together, 0]
    mean, spread = np.array([m for _, m, _ in _REACH_PLACES]), np.array([s for _, _, s in _REACH_PLACES])
    which = rng.choice(3, count, p=[0.2, 0.2, 0.6])  # left, right, both
    for k, (side, sign) in enumerate((("left", 1), ("right", -1))):
        rows = np.flatnonzero((which == k) | (which == 2))
        n = len(rows)
        target = (mean[place[rows, k]] + spread[place[rows, k]] * rng.normal(0, 1, (n, 3))) * [sign, 1, 1]
        target = target + _REST_22[_J["neck"]] - _REST_22[_J[f"{side}_shoulder"]]
        pose[rows, _J[f"{side}_collar"]] = rng.normal(0, 0.05, (n, 3))
        shoulder, elbow = _two_bones(rng, target, sign)
        pose[rows, _J[f"{side}_shoulder"]], pose[rows, _J[f"{side}_elbow"]] = shoulder, elbow
    return pose


def _two_bones(rng: Generator, target: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
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


def _perturbed(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Noise on every joint; wrists, twist of the forearms, collars, neck and head drawn anew: capture knows them
    badly."""
    count = len(pose)
    sigma = np.full(22, 0.06)
    sigma[[_J["left_shoulder"], _J["right_shoulder"]]] = 0.14
    sigma[[_J["left_elbow"], _J["right_elbow"]]] = 0.10
    sigma[[_J["left_foot"], _J["right_foot"]]] = 0.10
    sigma[0] = 0.05
    pose = _compose(pose, rng.normal(0, 1, (count, 22, 3)) * sigma[:, None])
    joints = forward_kinematics(pose)
    for side, sign in (("left", 1), ("right", -1)):
        wrist, elbow, collar = (_J[f"{side}_{n}"] for n in ("wrist", "elbow", "collar"))
        arm = joints[:, elbow] - joints[:, _J[f"{side}_shoulder"]]
        trunk = joints[:, _J["neck"]] - joints[:, 0]
        raised = (arm * trunk).sum(1) / np.linalg.norm(arm, axis=1) / np.linalg.norm(trunk, axis=1)
        lift = np.maximum(raised + 0.1, 0) * 0.35 + rng.normal(0, 0.05, count)
        pose[:, collar] += np.stack([0 * lift, rng.normal(0, 0.06, count), sign * lift], 1)
        twist = rng.normal(0, 0.45, count).clip(-1.1, 1.1)
        pose[:, elbow] = _compose(pose[:, elbow], np.stack([0.45 * twist, 0 * twist, 0 * twist], 1))
        bend = rng.normal(0, [0.0, 0.22, 0.32], (count, 3)).clip(-0.9, 0.9)
        pose[:, wrist] = _compose(0.35 * pose[:, wrist] + np.stack([0.55 * twist, 0 * twist, 0 * twist], 1), bend)
    look = rng.normal(0, [0.16, 0.26, 0.09], (count, 3)).clip(-0.8, 0.8)
    pose[:, _J["neck"]] = _compose(pose[:, _J["neck"]], 0.5 * look)
    pose[:, _J["head"]] = _compose(pose[:, _J["head"]], 0.5 * look)
    return pose


def _penetrates(pose: np.ndarray) -> np.ndarray:
    """(B,) bool, roughly: forearms or hands inside the trunk or the head, or knees and ankles in each other."""
    p = forward_kinematics(pose)
    bad = np.zeros(len(p), bool)
    for side in ("left", "right"):
        elbow, wrist = p[:, _J[f"{side}_elbow"]], p[:, _J[f"{side}_wrist"]]
        hand = wrist + (wrist - elbow) * 0.4
        for point in (0.5 * (elbow + wrist), wrist, hand):
            for low, high, radius in (("pelvis", "spine2", 0.12), ("spine2", "neck", 0.11)):
                bad |= _to_segment(point, p[:, _J[low]], p[:, _J[high]]) < radius
            bad |= (
                np.linalg.norm(point - (p[:, _J["head"]] + 0.04 * _unit(p[:, _J["head"]] - p[:, _J["neck"]])), axis=1)
                < 0.105
            )
            for leg in ("left", "right"):
                bad |= _to_segment(point, p[:, _J[f"{leg}_hip"]], p[:, _J[f"{leg}_knee"]]) < 0.07
    for a in ("knee", "ankle"):
        bad |= np.linalg.norm(p[:, _J[f"left_{a}"]] - p[:, _J[f"right_{a}"]], axis=1) < 0.07
    return bad


def _unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-9)


def _to_segment(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    along = end - start
    t = (((point - start) * along).sum(1) / ((along**2).sum(1) + 1e-9)).clip(0, 1)
    return np.linalg.norm(point - start - along * t[:, None], axis=1)


def _turn(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Give every person a heading: towards the camera more often than not; a few lie."""
    pose, count = pose.copy(), len(pose)
    lying = np.flatnonzero(rng.random(count) < 0.035)
    tilt = rng.normal(0, 0.15, (len(lying), 3))
    tilt[:, 0] += rng.choice([-1, 1], len(lying)) * np.pi / 2
    pose[lying, 0] = _compose(tilt, pose[lying, 0])
    yaw = np.where(rng.random(count) < 0.55, rng.normal(0, np.radians(40), count), rng.uniform(-np.pi, np.pi, count))
    lean = rng.normal(0, 0.05, (2, count))
    pose[:, 0] = _compose(np.stack([lean[0], yaw, lean[1]], 1), pose[:, 0])
    return pose
