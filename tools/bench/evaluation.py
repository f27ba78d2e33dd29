"""Errors of meshes beside the published way: one sample after the other, numpy, dense regressors.

`PublishedLoop` does what the published evaluation of a set does, operation for operation: every alignment takes the
body's whole joint regressor times the whole mesh, twice, and every similarity transform goes through the mesh anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wholebody.evaluation.metrics import MeshParts, joint_errors_mm, mesh_errors_mm

COUNT = 32
ROWS = {"all": 0, "left_hand": 20, "right_hand": 21, "face": 12}


class PublishedLoop:
    """The published errors of meshes (B, V, 3): those of EHF, one sample at a time."""

    def __init__(self, parts: MeshParts, dtype: type = np.float64) -> None:
        """dtype: of the regressors. The published ones are float32, which is slower against float64 meshes than
        float64 would be; the benchmark's default gives the loop the faster way."""
        self.joints: np.ndarray = parts.joint_regressor.astype(dtype)
        self.hands: list[np.ndarray] = [parts.hand_regressor(side).astype(dtype) for side in ("left", "right")]
        self.body: np.ndarray | None = None if parts.body_regressor is None else parts.body_regressor.astype(dtype)
        self.parts = {"left_hand": parts.left_hand, "right_hand": parts.right_hand, "face": parts.face}

    def __call__(self, meshes: np.ndarray, truths: np.ndarray) -> dict[str, np.ndarray]:
        rows = [self.sample(mesh, truth) for mesh, truth in zip(meshes, truths, strict=True)]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def sample(self, mesh: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        errors = {
            "mpvpe_all": _off(self._at_root(mesh, mesh, truth, "all"), truth),
            "pa_mpvpe_all": _off(_align(mesh, truth), truth),
        }
        moved, aligned = {}, {}
        for name, ids in self.parts.items():
            part, true = mesh[ids, :], truth[ids, :]
            moved[name] = _off(self._at_root(part, mesh, truth, name), true)
            aligned[name] = _off(_align(part, true), true)
        for measure, found in (("mpvpe", moved), ("pa_mpvpe", aligned)):
            errors[f"{measure}_hand"] = (found["left_hand"] + found["right_hand"]) / 2
            errors[f"{measure}_face"] = found["face"]
        hands = [self._joints(mesh, truth, regressor) for regressor in self.hands]
        errors["pa_mpjpe_hand"] = (hands[0] + hands[1]) / 2
        if self.body is not None:
            errors["pa_mpjpe_body"] = self._joints(mesh, truth, self.body)
        return errors

    def _at_root(self, part: np.ndarray, mesh: np.ndarray, truth: np.ndarray, name: str) -> np.ndarray:
        row = ROWS[name]
        return part - np.dot(self.joints, mesh)[row, None, :] + np.dot(self.joints, truth)[row, None, :]

    @staticmethod
    def _joints(mesh: np.ndarray, truth: np.ndarray, regressor: np.ndarray) -> float:
        true = np.dot(regressor, truth)
        return _off(_align(np.dot(regressor, mesh), true), true)


def _off(points: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.sum((points - truth) ** 2, 1)).mean() * 1000)


def _align(points: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Points (N, 3) after the similarity transform that brings them closest to their truth."""
    points_mean, truth_mean = np.mean(points, axis=0), np.mean(truth, axis=0)
    covariance = np.dot(np.transpose(points - points_mean), truth - truth_mean) / len(points)
    u, stretch, vt = np.linalg.svd(covariance)
    rotation = np.dot(np.transpose(vt), np.transpose(u))
    if np.linalg.det(rotation) < 0:
        stretch[-1], vt[2] = -stretch[-1], -vt[2]
        rotation = np.dot(np.transpose(vt), np.transpose(u))
    scale = np.sum(stretch) / np.var(points, axis=0).sum()
    shift = truth_mean - np.dot(scale * rotation, points_mean)
    return np.transpose(np.dot(scale * rotation, np.transpose(points))) + shift


def ours(parts: MeshParts) -> Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """The same errors by this package."""
    return lambda meshes, truths: mesh_errors_mm(meshes, truths, parts) | joint_errors_mm(meshes, truths, parts)


def meshes(arrays, count: int = COUNT, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Predicted (float32, as networks give them) and true meshes (float64, as files give them), (B, V, 3)."""
    rng = np.random.default_rng(seed)
    truth = arrays.v_template[None] + 0.03 * rng.normal(size=(count, 1, 3)) + [0, 0, 40.0]
    waves = np.sin(7 * truth[..., ::-1] + rng.uniform(0, 6, (count, 1, 3)))
    return (truth + 0.05 * waves).astype(np.float32), truth


def _seconds(function: Callable, *arguments: np.ndarray) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


def compare(standin: Path, count: int = COUNT, pairs: int = 9) -> dict[str, float]:
    """`ratio`: median of the paired ratios (published over ours), each the best of three calls in a row; `ratio_first`:
    of the first calls, which find the meshes in slow memory; `ratio_float32`: against the loop with the published
    float32 regressors; `ours_ms` and `published_ms` a sample, minima; `difference`: largest relative one, on float64.
    """
    from wholebody.body.assets import find_body, read_body_file

    arrays = read_body_file(find_body(standin))
    parts = MeshParts.published(arrays, standin / "smplx")
    predicted, truth = meshes(arrays, count)
    mine, loop, narrow = ours(parts), PublishedLoop(parts), PublishedLoop(parts, np.float32)
    exact = mine(predicted.astype(np.float64), truth)
    expected = loop(predicted.astype(np.float64), truth)
    difference = max(float(np.max(np.abs(exact[name] / expected[name] - 1))) for name in expected)
    assert set(exact) == set(expected)

    def seconds(function: Callable) -> list[float]:
        time.sleep(0.2)  # until the linear algebra's threads of the one before have stopped spinning
        return [_seconds(function, predicted, truth) / count for _ in range(3)]

    for function in (mine, loop, narrow):
        seconds(function)
    calls = np.array([[seconds(mine), seconds(loop), seconds(narrow)] for _ in range(pairs)])
    times = calls.min(2)
    return {
        "ratio": float(np.median(times[:, 1] / times[:, 0])),
        "ratio_first": float(np.median(calls[:, 1, 0] / calls[:, 0, 0])),
        "ratio_float32": float(np.median(times[:, 2] / times[:, 0])),
        "ours_ms": float(times[:, 0].min() * 1e3),
        "published_ms": float(times[:, 1].min() * 1e3),
        "difference": difference,
    }
