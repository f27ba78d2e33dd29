"""Captured motion: clips by split, and poses drawn from them by cluster rather than by frame (half of all captured
frames stand or walk)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator

from wholebody.data.sample import axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.errors import BadInput
from wholebody.files.npz import SafeNpz
from wholebody.synthesis.people.skeleton import forward_kinematics

# Held out: whole subjects, so that no performance is seen in training. Clips of `cmu_expmap` that may show any
# subject's walk or run are left out of both sides.
_HELDOUT_SUBJECTS = {"02", "05", "12", "131", "135"}
_UNCERTAIN = re.compile(r"(walking|running)_\d+$")


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
    poses = np.concatenate([captured(f)["local_rotvec"].astype(np.float32) for f in chosen])
    root = axis_angle_to_matrix(poses[:, 0])
    poses[:, 0] = matrix_to_axis_angle(_without_heading(root))
    points = forward_kinematics(poses.astype(np.float64))
    label = _kmeans(points.reshape(len(points), -1), min(clusters, len(points)))
    members = [np.flatnonzero(label == k) for k in range(label.max() + 1)]
    members = [m for m in members if len(m)]
    weights = np.array([len(m) for m in members]) ** 0.6
    return PoseLibrary(poses, members, weights / weights.sum())


def captured(path: Path) -> dict[str, np.ndarray]:
    """A clip of captured motion: `local_rotvec` (T, 22, 3), and `frame_time` (T,) seconds where the file has it; both
    float64. BadInput for another file."""
    with SafeNpz(path) as file:
        if "local_rotvec" not in file:
            raise BadInput(f"{path}: is no clip of captured motion, it lacks local_rotvec")
        found = {"local_rotvec": file.array("local_rotvec", None, 22, 3).astype(np.float64)}
        if "frame_time" in file:
            found["frame_time"] = file.array("frame_time", len(found["local_rotvec"])).astype(np.float64)
    if not all(np.isfinite(values).all() for values in found.values()):
        raise BadInput(f"{path}: holds values that are not finite")
    return found


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
