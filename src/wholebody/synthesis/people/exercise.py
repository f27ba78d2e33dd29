"""Body poses of yoga, gymnastics, climbing and sport by table: what motion clips of everyday life lack.

Poses are (B,22,3) axis-angle, parent-relative, from the T-pose (y up), as in `postures`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wholebody.synthesis.people.postures import set_leg, two_bones
from wholebody.synthesis.people.skeleton import J, compose

Leg = tuple[float, float, float, float, float]
Hand = tuple[float, float, float]


@dataclass(frozen=True)
class Exercise:
    """One kind, angles in radians. Where two sides differ, either may be the left one.

    legs: flexed forward, opened sideways, rolled outwards, knee, ankle; hands: where the wrists are from the shoulders,
    metres on the left side in the frame of the upper trunk (x out to the side, y up, z to the front).
    """

    share: float
    pitch: float  # of the pelvis, forward
    bend: float  # of the spine, forward
    legs: tuple[Leg, Leg]
    hands: tuple[Hand, Hand]
    twist: float = 0.0  # spread of the spine's turning
    roll: float = 0.0  # of the whole body to a side
    head: float = 0.0  # bent back, to look ahead
    loose: float = 1.0  # how far all of these vary


def _same(leg: Leg) -> tuple[Leg, Leg]:
    return leg, leg


_UP, _FRONT, _SIDE = (0.06, 0.46, 0.05), (0.04, -0.04, 0.46), (0.46, 0.0, 0.05)
_STRAIGHT: Leg = (0.0, 0.08, 0.1, 0.08, 0.0)

# fmt: off
EXERCISES = {
    # On the hands.
    "all fours": Exercise(1.0, 1.5, 0.05, _same((1.5, 0.1, 0.0, 1.5, 0.6)), (_FRONT, _FRONT), head=0.5),
    "plank": Exercise(0.7, 1.4, 0.0, _same((0.0, 0.08, 0.0, 0.05, -0.3)), ((0.06, -0.04, 0.44), (0.06, -0.04, 0.44)),
                      head=0.4),
    "push-up": Exercise(0.5, 1.45, 0.0, _same((0.0, 0.08, 0.0, 0.05, -0.3)), ((0.2, -0.12, 0.2), (0.2, -0.12, 0.2)),
                        head=0.4),
    "downward dog": Exercise(0.8, 2.15, 0.05, _same((1.55, 0.1, 0.0, 0.15, -0.5)), ((0.08, 0.44, 0.1),) * 2),
    "cobra": Exercise(0.4, 1.2, -0.7, _same((-0.15, 0.1, 0.0, 0.1, 0.6)), ((0.08, -0.36, 0.24),) * 2, head=0.5),
    "mountain climber": Exercise(0.4, 1.4, 0.1, ((1.7, 0.1, 0.0, 1.7, 0.0), (0.0, 0.08, 0.0, 0.1, -0.3)),
                                 (_FRONT, _FRONT), head=0.4),
    "side plank": Exercise(0.4, 0.0, 0.0, _same((0.05, 0.05, 0.0, 0.05, 0.1)), (_SIDE, _SIDE), roll=-1.25),
    "handstand": Exercise(0.5, 3.1, -0.1, _same((0.0, 0.15, 0.1, 0.15, 0.5)), (_UP, _UP), head=0.5, loose=1.4),
    "cartwheel": Exercise(0.3, 0.1, 0.0, _same((0.2, 0.75, 0.2, 0.1, 0.4)), ((0.2, 0.42, 0.05),) * 2, roll=2.2,
                          loose=1.8),
    "bridge": Exercise(0.3, -1.9, -0.9, _same((-0.4, 0.15, 0.0, 1.4, 0.0)), (_UP, _UP), head=0.5),
    # On the back or the seat.
    "raised hips": Exercise(0.4, -1.75, 0.0, _same((0.25, 0.1, 0.0, 1.6, 0.0)), ((0.12, -0.44, 0.0),) * 2),
    "boat": Exercise(0.4, -0.55, 0.15, _same((1.35, 0.08, 0.0, 0.4, 0.3)), ((0.0, -0.15, 0.43),) * 2),
    "sit-up": Exercise(0.4, -0.9, 0.6, _same((1.3, 0.1, 0.0, 1.6, 0.0)), ((0.15, 0.12, 0.1),) * 2, loose=1.5),
    "straddle": Exercise(0.5, 0.3, 0.4, _same((1.5, 0.9, 0.4, 0.1, 0.1)), ((0.1, -0.1, 0.42),) * 2, loose=1.6),
    "leaning back": Exercise(0.7, -0.5, 0.2, _same((1.2, 0.15, 0.1, 1.4, 0.0)), ((0.15, -0.38, -0.24),) * 2,
                             loose=1.5),
    # Low.
    "child's pose": Exercise(0.4, 1.5, 0.8, _same((2.2, 0.25, 0.0, 2.45, 0.6)), ((0.06, 0.44, 0.1),) * 2, head=-0.2),
    "low lunge": Exercise(0.7, 0.1, -0.05, ((1.55, 0.1, 0.0, 1.6, -0.1), (-0.5, 0.05, 0.0, 1.1, 0.5)),
                          ((0.2, 0.3, 0.2), (0.2, -0.3, 0.2)), loose=1.8),
    "splits": Exercise(0.3, 0.2, 0.0, ((1.5, 0.05, 0.2, 0.1, 0.4), (-0.95, 0.05, 0.3, 0.15, 0.4)),
                       ((0.3, -0.2, 0.2),) * 2, loose=1.5),
    "deep squat": Exercise(0.6, 0.4, 0.3, _same((2.0, 0.45, 0.3, 2.35, -0.35)), ((0.0, -0.15, 0.36),) * 2, loose=1.5),
    "on one heel": Exercise(0.3, 0.25, 0.25, ((2.0, 0.2, 0.1, 2.3, -0.3), (1.0, 0.7, 0.2, 0.15, 0.0)),
                            ((0.2, -0.25, 0.3),) * 2, loose=1.5),
    # On one leg, or wide.
    "tree": Exercise(0.5, 0.0, 0.0, ((1.0, 0.95, 0.8, 2.2, 0.2), _STRAIGHT), ((0.02, 0.44, 0.1),) * 2),
    "warrior": Exercise(0.8, 0.05, 0.0, ((1.0, 0.75, 0.7, 1.2, 0.0), (-0.1, 0.65, 0.2, 0.1, 0.0)), (_SIDE, _SIDE),
                        twist=0.5, loose=1.4),
    "triangle": Exercise(0.4, 0.1, 0.0, _same((0.15, 0.6, 0.4, 0.05, 0.0)), (_SIDE, _SIDE), twist=0.3, roll=0.55,
                         loose=1.4),
    "scale": Exercise(0.5, 1.25, -0.1, ((1.25, 0.05, 0.0, 0.1, 0.0), (-0.1, 0.1, 0.1, 0.15, 0.5)),
                      ((0.35, 0.2, 0.2),) * 2, head=0.4, loose=1.6),
    "dancer": Exercise(0.4, 0.35, -0.35, (_STRAIGHT, (-0.8, 0.15, 0.0, 1.6, 0.4)), ((0.1, 0.3, 0.3), (0.1, -0.3, -0.3)),
                       loose=1.4),
    "leg to the side": Exercise(0.5, 0.05, 0.0, ((0.4, 1.1, 0.5, 0.15, 0.4), _STRAIGHT), ((0.35, 0.2, 0.15),) * 2,
                                loose=1.8),
    # Sport.
    "kick": Exercise(1.0, -0.15, 0.15, ((1.3, 0.2, 0.1, 0.4, 0.4), (-0.05, 0.1, 0.1, 0.3, 0.0)),
                     ((0.36, 0.0, 0.2), (0.36, -0.1, -0.15)), twist=0.35, loose=2.2),
    "back swing of a kick": Exercise(0.5, 0.2, 0.0, ((-0.6, 0.15, 0.1, 1.5, 0.5), (0.35, 0.05, 0.0, 0.5, -0.2)),
                                     ((0.38, 0.05, -0.1), (0.3, -0.2, 0.2)), twist=0.4, loose=1.6),
    "sprint": Exercise(1.2, 0.25, 0.05, ((1.25, 0.05, 0.0, 1.5, 0.0), (-0.45, 0.05, 0.0, 0.6, 0.4)),
                       ((0.12, -0.3, -0.2), (0.06, -0.15, 0.28)), twist=0.2, loose=1.6),
    "jump": Exercise(0.8, 0.1, -0.1, _same((0.5, 0.2, 0.1, 0.9, 0.5)), ((0.25, 0.35, 0.1),) * 2, loose=2.6),
    "star jump": Exercise(0.4, 0.0, -0.1, _same((0.1, 0.6, 0.2, 0.2, 0.4)), ((0.36, 0.28, 0.05),) * 2, loose=1.5),
    "swing": Exercise(1.2, 0.4, 0.15, _same((0.5, 0.22, 0.1, 0.5, -0.1)), ((0.25, 0.0, 0.3), (-0.25, 0.0, 0.3)),
                      twist=0.7, loose=1.6),
    "overhead stroke": Exercise(0.8, -0.05, -0.2, ((0.3, 0.15, 0.1, 0.5, 0.2), (-0.2, 0.15, 0.1, 0.4, 0.3)),
                                ((0.12, 0.38, -0.1), (0.2, 0.15, 0.3)), twist=0.5, loose=1.8),
    "wide stroke": Exercise(0.7, 0.25, 0.1, ((0.8, 0.4, 0.2, 0.9, -0.1), (0.2, 0.4, 0.2, 0.6, 0.1)),
                            ((0.42, -0.05, 0.1), (0.3, 0.0, 0.2)), twist=0.6, loose=1.6),
    "throw": Exercise(0.6, 0.05, -0.1, ((0.5, 0.15, 0.1, 0.4, 0.0), (-0.3, 0.2, 0.2, 0.6, 0.2)),
                      ((0.25, 0.2, -0.15), (0.1, 0.0, 0.42)), twist=0.5, loose=1.6),
    "ready": Exercise(0.8, 0.5, 0.2, _same((0.95, 0.4, 0.2, 1.05, -0.3)), ((0.15, -0.25, 0.28),) * 2, loose=1.5),
    "downhill": Exercise(0.6, 0.7, 0.3, _same((1.25, 0.1, 0.0, 1.2, -0.4)), ((0.15, -0.2, 0.32),) * 2, roll=0.2,
                         loose=1.5),
    "board": Exercise(0.6, 0.3, 0.1, _same((0.7, 0.35, 0.2, 0.9, -0.2)), ((0.4, 0.0, 0.1), (0.4, 0.05, 0.0)), twist=0.5,
                      roll=0.15, loose=1.8),
    "cyclist": Exercise(0.6, 0.75, 0.35, ((1.75, 0.08, 0.0, 1.7, 0.0), (0.95, 0.08, 0.0, 0.6, 0.2)),
                        ((0.03, -0.16, 0.42),) * 2, head=0.5, loose=1.2),
    "rider": Exercise(0.4, 0.05, 0.1, _same((1.05, 0.55, 0.3, 1.2, -0.1)), ((0.0, -0.28, 0.3),) * 2, loose=1.3),
    "boxer": Exercise(0.5, 0.15, 0.15, ((0.5, 0.15, 0.1, 0.5, 0.0), (-0.05, 0.2, 0.2, 0.4, 0.2)),
                      ((0.0, 0.0, 0.42), (0.02, 0.05, 0.18)), twist=0.5, loose=1.4),
    "rower": Exercise(0.3, 0.2, 0.3, _same((1.7, 0.15, 0.1, 1.6, 0.0)), ((0.03, -0.06, 0.44),) * 2, loose=2.0),
    # Up a wall, a ladder, a bar.
    "climber": Exercise(1.0, 0.0, 0.05, ((1.4, 0.6, 0.4, 1.6, 0.1), (0.4, 0.3, 0.2, 0.6, 0.2)),
                        ((0.1, 0.42, 0.12), (0.15, 0.2, 0.28)), loose=2.6),
    "hanging": Exercise(0.5, 0.0, 0.0, _same((0.15, 0.1, 0.1, 0.4, 0.5)), (_UP, _UP), loose=1.8),
    "swimmer": Exercise(0.3, 1.5, -0.1, _same((0.05, 0.1, 0.0, 0.2, 0.6)), ((0.08, 0.44, 0.1), (0.12, -0.42, 0.1)),
                        head=0.2, loose=2.0),
}
# fmt: on


def exercising(rng: Generator, pose: np.ndarray) -> np.ndarray:
    """Give each person (B,22,3) one of `EXERCISES`; wrists and heads are varied later as everybody's."""
    kinds = list(EXERCISES.values())
    share = np.array([kind.share for kind in kinds])
    which = rng.choice(len(kinds), len(pose), p=share / share.sum())
    pose = pose.copy()
    for number, kind in enumerate(kinds):
        rows = np.flatnonzero(which == number)
        if len(rows):
            pose[rows] = posed(rng, kind, pose[rows])
    return pose


def posed(rng: Generator, kind: Exercise, pose: np.ndarray) -> np.ndarray:
    """People (B,22,3), each in one kind's posture as it varies."""
    pose, count = pose.copy(), len(pose)

    def about(mean: float | np.ndarray, spread: float) -> np.ndarray:
        return np.asarray(mean) + rng.normal(0, spread * kind.loose, count)

    swapped = rng.random(count) < 0.5
    zero = np.zeros(count)
    lean = about(kind.roll, 0.08) * np.where(swapped, -1.0, 1.0)
    pitched = np.stack([about(kind.pitch, 0.12), zero, zero], 1)
    pose[:, J["pelvis"]] = compose(np.stack([zero, zero, lean], 1), pitched)
    turn = rng.normal(0, kind.twist, count).clip(-1.1, 1.1)
    bend, side = about(kind.bend, 0.12), about(0.0, 0.08)
    for name in ("spine1", "spine2", "spine3"):
        pose[:, J[name]] = np.stack([bend, turn, side], 1) / 3 + rng.normal(0, 0.04, (count, 3))
    for name in ("neck", "head"):
        pose[:, J[name]] = np.stack([about(-kind.head / 2, 0.08), -0.25 * turn, zero], 1)
    for number, (name, sign) in enumerate((("left", 1), ("right", -1))):
        own = np.where(swapped, 1 - number, number)
        flex, spread, roll, knee, ankle = np.array(kind.legs)[own].T
        set_leg(
            rng, pose, name, about(flex, 0.13).clip(-1.0, 2.4), about(spread, 0.09).clip(-0.3, 1.3),
            about(roll, 0.1), about(knee, 0.14).clip(0, 2.6), about(ankle, 0.08).clip(-0.8, 0.9),
        )  # fmt: skip
        at = np.array(kind.hands)[own] + rng.normal(0, 0.045 * kind.loose, (count, 3))
        pose[:, J[f"{name}_collar"]] = rng.normal(0, 0.05, (count, 3))
        upper, lower = two_bones(rng, at * [sign, 1, 1], sign)
        pose[:, J[f"{name}_shoulder"]], pose[:, J[f"{name}_elbow"]] = upper, lower
    return pose
