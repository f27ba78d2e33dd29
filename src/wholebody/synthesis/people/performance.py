"""People in motion: held-out captured clips made continuous, their feet put on a floor; or a walk where there are none.

World: x right, y up, the floor at 0; a person faces +z at no rotation. Metres, seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation, RotationSpline

from wholebody.body.joints import JOINTS_144, SMPLX_JOINTS, index
from wholebody.body.layer import BodyModel
from wholebody.synthesis.people.capture import captured, in_split
from wholebody.synthesis.people.draw import HandSpace, Population
from wholebody.synthesis.people.skeleton import FLIP, J

_LARGEST_GAP = 0.35  # seconds between captured frames that a spline may bridge
_FEET = index(("left_big_toe", "left_heel", "right_big_toe", "right_heel"), JOINTS_144)


@dataclass(frozen=True)
class Performance:
    """One person through T frames: pose (T, 55, 3) axis-angle (hands from the flat hand), one shape, a path."""

    full_pose: np.ndarray
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (T, 10)
    transl: np.ndarray  # (T, 3) of the body layer

    def turned(self, yaw: float, pelvis: np.ndarray) -> Performance:
        """The same, turned about the vertical through the world's origin."""
        turn = Rotation.from_rotvec([0, yaw, 0])
        pose = self.full_pose.copy()
        pose[:, 0] = (turn * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
        return Performance(pose, self.betas, self.expression, turn.apply(self.transl + pelvis) - pelvis)

    def moved(self, by: np.ndarray) -> Performance:
        return Performance(self.full_pose, self.betas, self.expression, self.transl + by)


def perform(
    rng: Generator,
    times: np.ndarray,
    body: BodyModel,
    population: Population,
    hands: HandSpace,
    motion: str | None,
    split: str,
    walking: bool = False,
) -> Performance:
    """An adult who does something that was captured, at `times` (T,) from 0; `walking`: goes somewhere."""
    duration = float(times[-1])
    candidates = _stretches(motion, split, duration) if motion else ()
    for _ in range(60 if candidates else 0):
        path, start = candidates[rng.integers(len(candidates))]
        body_pose = _continuous(path, start, times)
        performance = _complete(rng, body_pose, times, body, population, hands)
        way = performance.transl[-1] - performance.transl[0]
        if not walking or np.hypot(way[0], way[2]) > 0.4 * duration:
            return performance
    return _complete(rng, walk(rng, times), times, body, population, hands)


@lru_cache(maxsize=8)
def _stretches(folder: str, split: str, duration: float) -> tuple[tuple[str, float], ...]:
    """(file, second) of the beginnings of stretches of that length without larger gaps."""
    found = []
    for path in sorted(Path(folder).glob("*/*.npz")):
        if not in_split(f"{path.parent.name}/{path.stem}", split):
            continue
        time = captured(path).get("frame_time", np.zeros(0))
        begin = 0
        for k in range(1, len(time) + 1):
            if k == len(time) or time[k] - time[k - 1] > _LARGEST_GAP:
                if time[k - 1] - time[begin] >= duration:
                    steps = np.arange(time[begin], time[k - 1] - duration + 1e-9, duration / 2)
                    found += [(str(path), float(step)) for step in steps]
                begin = k
    return tuple(found)


def _continuous(path: str, start: float, times: np.ndarray) -> np.ndarray:
    """(T, 22, 3): captured rotations, twice differentiable in between."""
    clip = captured(Path(path))
    poses = clip["local_rotvec"]
    moments, rows = np.unique(clip["frame_time"], return_index=True)
    poses = poses[rows]
    out = np.zeros((len(times), 22, 3))
    for joint in range(22):
        rotations = Rotation.from_rotvec(poses[:, joint])
        out[:, joint] = RotationSpline(moments, rotations)(start + times).as_rotvec()
    return out


def walk(rng: Generator, times: np.ndarray) -> np.ndarray:
    """(T, 22, 3) a plain walk straight on, for where no motion was captured."""
    pace, stride, arms = rng.uniform(0.7, 1.0), rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.8)
    cycle = pace * times + rng.random()
    phase = 2 * np.pi * cycle
    pose = np.zeros((len(times), 22, 3))
    for side, sign, begin in (("left", 1.0, 0.0), ("right", -1.0, 0.5)):
        # Where the ankle is before and below the hip, in lengths of the thigh: a foot that stands goes back evenly.
        u = (cycle + begin) % 1
        v = np.clip((u - 0.55) / 0.45, 0, 1)
        ahead = np.where(u < 0.55, stride * (1 - 2 * u / 0.55), stride * (2 * v * v * (3 - 2 * v) - 1))
        below = 1.9 - 0.25 * np.sin(np.pi * v) ** 2
        reach = np.hypot(ahead, below).clip(0.5, 1.999)
        bend = np.arccos(reach / 2)  # thigh and shin are about equal: both lean by this from the line to the ankle
        hip, knee = -(np.arctan2(ahead, below) + bend), 2 * bend
        pose[:, J[f"{side}_hip"], 0], pose[:, J[f"{side}_knee"], 0] = hip, knee
        pose[:, J[f"{side}_ankle"], 0] = -hip - knee
        pose[:, J[f"{side}_shoulder"], 2] = -1.2 * sign
        pose[:, J[f"{side}_shoulder"], 1] = arms * np.cos(phase) * 0.5
        pose[:, J[f"{side}_elbow"], 1] = -0.3 * sign
    pose[:, J["spine2"], 1] = 0.08 * np.sin(phase)
    return pose


def _complete(
    rng: Generator, body_pose: np.ndarray, times: np.ndarray, body: BodyModel, population: Population,
    hands: HandSpace,
) -> Performance:  # fmt: skip
    """Hands and a face that change slowly, a grown shape, and feet on the floor."""
    count = len(times)
    pose = np.zeros((count, 55, 3))
    pose[:, :22] = body_pose
    keys = np.linspace(times[0], times[-1] + 1e-6, 4)
    for first, mirror in ((25, 1.0), (40, FLIP)):
        gestures = hands.sample(rng, 4) * mirror
        gestures = gestures[[0, 0, 1, 1]] if rng.random() < 0.5 else gestures
        for joint in range(15):
            path = RotationSpline(keys, Rotation.from_rotvec(gestures[:, joint]))
            pose[:, first + joint] = path(times).as_rotvec()
    weight = np.clip((times - times[0]) / max(times[-1] - times[0], 1e-6), 0, 1)[:, None]
    weight = weight * weight * (3 - 2 * weight)
    faces = population.expressions(rng, 2).astype(np.float64)
    pose[:, SMPLX_JOINTS.index("jaw"), 0] = 0.08 * (1 - np.cos(2 * np.pi * times * rng.uniform(0.3, 1.5)))
    betas = population.shapes(rng, 1, 0.0)[0].astype(np.float64)
    expression = (1 - weight) * faces[0] + weight * faces[1]
    return Performance(pose, betas, expression, _on_floor(pose, betas, body))


def _on_floor(pose: np.ndarray, betas: np.ndarray, body: BodyModel) -> np.ndarray:
    """(T, 3): the lowest of toes and heels stands on the floor and stays from frame to frame; from x = z = 0 on."""
    from wholebody.data.sample import axis_angle_to_matrix

    small = body.subset([0])
    count = len(pose)
    with torch.inference_mode():
        out = small.from_matrices(
            torch.from_numpy(axis_angle_to_matrix(pose)).float(),
            torch.from_numpy(betas).float().expand(count, 10),
            torch.zeros(count, 10),
        )
    feet = out.joints[:, _FEET].double().numpy()
    low = feet[..., 1].argmin(1)
    step = np.zeros((count, 3))
    for k in range(1, count):
        step[k] = feet[k - 1, low[k]] - feet[k, low[k]]
    transl = np.cumsum(step, 0)
    # Which foot is the lowest changes from one frame to the next; people do not start and stop like that.
    transl = gaussian_filter1d(transl, 2.0, axis=0, mode="nearest")
    transl[:, 1] = -gaussian_filter1d(feet[..., 1].min(1), 1.0, mode="nearest")
    pelvis = out.joints[0, 0].double().numpy()
    transl[:, [0, 2]] -= transl[0, [0, 2]] + pelvis[[0, 2]]
    return transl
