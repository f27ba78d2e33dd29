"""Who is in the picture: shapes, poses, hands and faces of a batch of people, drawn from a seed.

Body poses come from motion clips where there are any (`capture`), mirrored, mixed between upper and lower body, or limb
by limb; and from procedures for what capture lacks (`postures`); all are perturbed, and redrawn when limbs pass through
each other (`penetration`). All rotations are axis-angle, parent-relative, from the T-pose (y up).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wholebody.synthesis.people import postures
from wholebody.synthesis.people.capture import PoseLibrary, in_split, subject_of
from wholebody.synthesis.people.exercise import exercising
from wholebody.synthesis.people.hands import GESTURES, HandSpace
from wholebody.synthesis.people.penetration import penetrates
from wholebody.synthesis.people.skeleton import FLIP, LOWER, MIRROR_22, J, compose, forward_kinematics

__all__ = [
    "GESTURES", "HandSpace", "People", "PoseLibrary", "Population", "forward_kinematics", "in_split", "sample_people",
    "subject_of",
]  # fmt: skip


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
    recombined_fraction: float = 0.0,
    exercise_fraction: float = 0.0,
) -> People:
    """Draw `count` people."""
    betas = population.shapes(rng, count, child_fraction)
    girth = population.girth(betas)
    body = _body_poses(rng, count, poses, recombined_fraction, exercise_fraction)
    for _ in range(5):  # redraw those who pass through themselves
        bad = np.flatnonzero(penetrates(body, girth))
        if not len(bad):
            break
        body[bad] = _body_poses(rng, len(bad), poses, recombined_fraction, exercise_fraction)
    body = _turn(rng, body)
    full = np.zeros((count, 55, 3))
    full[:, :22] = body
    full[:, J["jaw"]], full[:, 23:25] = _jaw(rng, count), _gaze(rng, count)
    full[:, 25:40] = hands.sample(rng, count)
    full[:, 40:55] = hands.sample(rng, count) * FLIP
    same = rng.random(count) < 0.25  # both hands often do the same
    full[same, 40:55] = full[same, 25:40] * FLIP + rng.normal(0, 0.04, (same.sum(), 15, 3))
    return People(full.astype(np.float32), betas, population.expressions(rng, count))


# ---------------------------------------------------------------- shape and face


@dataclass(frozen=True)
class Population:
    """What the body file knows of plausible people: `betas` (P,10) of drawn ones, their `age` (P,) in years, and what
    facial actions (A, by name, in `actions`) are as expression coefficients `expression` (A,10). `depths` (4,11): the
    depth of belly, chest and thigh and the length of the trunk, metres, of the mean shape and per coefficient."""

    betas: np.ndarray
    age: np.ndarray
    actions: tuple[str, ...]
    expression: np.ndarray
    depths: np.ndarray

    @classmethod
    def of(cls, compact: dict[str, np.ndarray]) -> Population:
        """compact: an open body file, as `read_compact` gives it."""
        return cls(
            betas=compact["people_betas"].astype(np.float64),
            age=compact["people_age"].astype(np.float64),
            actions=tuple(str(a) for a in compact["action_names"]),
            expression=compact["action_expression"].astype(np.float64),
            depths=_depths(compact["vertices"] * 1e-5, compact["shape_dirs"].astype(np.float64)),
        )

    def girth(self, betas: np.ndarray) -> np.ndarray:
        """(B,3) how much thicker belly, chest and thighs are than the mean person's, for the length of the trunk."""
        measures = self.depths[:, 0] + betas @ self.depths[:, 1:].T
        return (measures[:, :3] / measures[:, 3:] / (self.depths[:3, 0] / self.depths[3, 0])).clip(0.7, 2.0)

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


def _depths(rest: np.ndarray, dirs: np.ndarray) -> np.ndarray:
    """(4,11): depth of belly, chest and thigh and length of the trunk, of the mean shape and per coefficient."""
    rows = []
    for x, low, high in ((0.0, 0.0, 0.15), (0.0, 0.2, 0.35), (0.1, -0.3, -0.15)):
        band = np.flatnonzero((np.abs(rest[:, 0] - x) < 0.05) & (rest[:, 1] > low) & (rest[:, 1] < high))
        front, back = band[rest[band, 2].argmax()], band[rest[band, 2].argmin()]
        rows.append(np.append(rest[front, 2] - rest[back, 2], dirs[front, 2] - dirs[back, 2]))
    middle = np.flatnonzero((np.abs(rest[:, 0]) < 0.02) & (rest[:, 2] < 0.05))  # nape and crotch
    nape, crotch = (middle[np.abs(rest[middle, 1] - y).argmin()] for y in (0.42, -0.1))
    rows.append(np.append(rest[nape, 1] - rest[crotch, 1], dirs[nape, 1] - dirs[crotch, 1]))
    return np.stack(rows)


# ---------------------------------------------------------------- bodies


_LIMBS = [
    [J[f"{side}_{name}"] for name in names]
    for names in (("collar", "shoulder", "elbow", "wrist"), ("hip", "knee", "ankle", "foot"))
    for side in ("left", "right")
] + [[J[name] for name in ("spine1", "spine2", "spine3", "neck", "head")]]


def _body_poses(
    rng: Generator, count: int, library: PoseLibrary | None, recombined_fraction: float, exercise_fraction: float
) -> np.ndarray:
    """(count,22,3), heading removed."""
    if library is None:
        pose = postures.standing(rng, count)
        share_legs, share_reach, share_free = 0.45, 0.65, 0.15
    else:
        pose = library.sample(rng, count)
        other = library.sample(rng, count)
        mixed = np.flatnonzero(rng.random(count) < 0.25)
        pose[mixed[:, None], LOWER] = other[mixed[:, None], LOWER]
        if recombined_fraction:
            _recombine(rng, pose, library, recombined_fraction)
        mirrored = rng.random(count) < 0.5
        pose[mirrored] = pose[mirrored][:, MIRROR_22] * FLIP
        stand = np.flatnonzero(rng.random(count) < 0.12)
        pose[stand] = postures.standing(rng, len(stand))
        share_legs, share_reach, share_free = 0.27, 0.28, 0.06
    lower = np.flatnonzero(rng.random(count) < share_legs)
    pose[lower] = postures.legs(rng, pose[lower])
    arms = rng.random(count)
    reach = np.flatnonzero(arms < share_reach)
    pose[reach] = postures.reaching(rng, pose[reach])
    free = np.flatnonzero((arms >= share_reach) & (arms < share_reach + share_free))
    pose[free] = postures.free_arms(rng, pose[free])
    if exercise_fraction:
        rows = np.flatnonzero(rng.random(count) < exercise_fraction)
        pose[rows] = exercising(rng, pose[rows])
    return postures.perturbed(rng, pose)


def _recombine(rng: Generator, pose: np.ndarray, library: PoseLibrary, fraction: float) -> None:
    """Give a fraction of the poses (B,22,3) limbs and trunks of others, each of another frame, in place.

    Few people were captured, and each moves in a way of their own: what limbs do together in the next person's dance
    is in no frame. A network that has seen any limb beside any other is not taken by surprise.
    """
    rows = np.flatnonzero(rng.random(len(pose)) < fraction)
    for limb in _LIMBS:
        chosen = rows[rng.random(len(rows)) < 0.7]
        other = library.sample(rng, len(chosen))
        mirrored = rng.random(len(chosen)) < 0.5
        other[mirrored] = other[mirrored][:, MIRROR_22] * FLIP
        pose[chosen[:, None], limb] = other[:, limb]


def _turn(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Give every person a heading: towards the camera more often than not; a few lie."""
    pose, count = pose.copy(), len(pose)
    lying = np.flatnonzero(rng.random(count) < 0.02)
    tilt = rng.normal(0, 0.15, (len(lying), 3))
    tilt[:, 0] += rng.choice([-1, 1], len(lying)) * np.pi / 2
    pose[lying, 0] = compose(tilt, pose[lying, 0])
    yaw = np.where(rng.random(count) < 0.55, rng.normal(0, np.radians(40), count), rng.uniform(-np.pi, np.pi, count))
    lean = rng.normal(0, 0.05, (2, count))
    pose[:, 0] = compose(np.stack([lean[0], yaw, lean[1]], 1), pose[:, 0])
    return pose
