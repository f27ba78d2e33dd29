"""Learn the embedded pose prior from the people that synthesis draws: `python tools/bake_pose_prior.py`.

Motion clips of the training subjects (`--motion`, default ../shared/motion) and the procedures of `synthesis.people`;
held-out subjects stay unseen. Takes two minutes on one core; the same bytes every time on one machine.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.fitting.prior import BODY_SIZE, EMBEDDED, HAND_SIZE
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.people.draw import sample_people
from wholebody.synthesis.render import Studio

PEOPLE, SEED = 40_000, 20_260
BODY_COMPONENTS, HAND_COMPONENTS = 24, 8
STEPS = 12
LEAST_SPREAD = 0.03  # radians: no direction of a component is narrower than this
MIRROR = np.array([1.0, -1.0, -1.0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--motion", help="folder of motion clips")
    parser.add_argument("--out", type=Path, default=EMBEDDED)
    options = parser.parse_args()
    studio = Studio(SynthesisConfig(motion=options.motion, split="train"))
    if studio.poses is None:
        raise SystemExit("no motion clips: name their folder with --motion")
    rng = np.random.default_rng(SEED)
    batches = [
        sample_people(rng, 2000, studio.poses, studio.hands, studio.population, 0.08) for _ in range(PEOPLE // 2000)
    ]
    pose = np.concatenate([batch.full_pose for batch in batches]).astype(np.float64)
    body, jaw = pose[:, 1:22], pose[:, SMPLX_JOINTS.index("jaw")]
    hands = np.concatenate([pose[:, 25:40], pose[:, 40:55] * MIRROR])

    arrays: dict[str, np.ndarray] = {}
    for name, data, count in (
        ("body", body.reshape(-1, BODY_SIZE), BODY_COMPONENTS),
        ("hand", hands.reshape(-1, HAND_SIZE)[::2], HAND_COMPONENTS),
    ):
        mean, whiten, weight, score = learn_mixture(data, count, rng)
        print(f"{name}: {count} components, mean log density {score:.2f}")
        upper = np.triu_indices(data.shape[1])
        arrays[f"{name}_mean"] = mean.astype(np.float16)
        arrays[f"{name}_whiten"] = whiten[:, upper[0], upper[1]].astype(np.float16)
        arrays[f"{name}_weight"] = weight.astype(np.float32)
    for name, data in (("body", body), ("hand", hands), ("jaw", jaw)):
        low, high = np.quantile(data, [0.001, 0.999], axis=0)
        slack = 0.05 + 0.05 * (high - low)
        arrays[f"{name}_low"], arrays[f"{name}_high"] = (
            (low - slack).astype(np.float32),
            (high + slack).astype(np.float32),
        )
    for name, rows in (("shape", [b.betas for b in batches]), ("expression", [b.expression for b in batches])):
        data = np.concatenate(rows).astype(np.float64)
        arrays[f"{name}_mean"] = data.mean(0).astype(np.float32)
        arrays[f"{name}_whiten"] = whitening(np.cov(data.T)).astype(np.float32)
    arrays["subjects"] = np.array("the training split of wholebody.synthesis.people.draw, and its procedures")
    write_npz(options.out, arrays)
    print(f"{options.out}: {options.out.stat().st_size / 1e3:.0f} kB")


def learn_mixture(
    data: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Means (K, D), whitenings (K, D, D), weights (K,) and the mean log density, by expectation and maximisation."""
    size = data.shape[1]
    centres = data[rng.choice(len(data), count, replace=False)]
    for _ in range(10):
        label = (data @ centres.T - 0.5 * (centres**2).sum(1)).argmax(1)
        centres = np.stack(
            [data[label == k].mean(0) if (label == k).any() else data[rng.integers(len(data))] for k in range(count)]
        )
    share = np.eye(count)[label]
    for _ in range(STEPS):
        total = share.sum(0) + 1e-9
        weight, mean = total / total.sum(), share.T @ data / total[:, None]
        whiten = np.empty((count, size, size))
        for k in range(count):
            away = (data - mean[k]) * np.sqrt(share[:, k : k + 1])
            # A little of everybody's spread keeps a component of few people from being too sure.
            spread = (away.T @ away + 20 * np.diag(data.var(0))) / (total[k] + 20)
            whiten[k] = whitening(spread)
        logs = np.stack([
            np.log(weight[k]) + np.log(np.diag(whiten[k])).sum() - 0.5 * (((data - mean[k]) @ whiten[k].T) ** 2).sum(1)
            for k in range(count)
        ], 1)  # fmt: skip
        top = logs.max(1, keepdims=True)
        share = np.exp(logs - top)
        score = float((top[:, 0] + np.log(share.sum(1))).mean() - 0.5 * size * np.log(2 * np.pi))
        share /= share.sum(1, keepdims=True)
    return mean, whiten, weight, score


def whitening(covariance: np.ndarray) -> np.ndarray:
    """Upper triangular W with W.T @ W the inverse of the covariance, no direction of it narrower than LEAST_SPREAD."""
    value, vector = np.linalg.eigh(covariance)
    inverse = (vector / np.maximum(value, LEAST_SPREAD**2)) @ vector.T
    return np.linalg.cholesky(inverse).T


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """`np.savez_compressed` without the time of day in it, whole or not at all."""
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    part.replace(path)


if __name__ == "__main__":
    main()
