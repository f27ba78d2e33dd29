"""Hands: a library of gestures as numbers per finger, blended and perturbed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wholebody.synthesis.people.skeleton import J

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
            d = joints_rest[J[f"left_{finger}3"]] - joints_rest[J[f"left_{finger}2"]]
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
