"""The jaw as a joint, and ten components of expression."""

from dataclasses import dataclass

import numpy as np

from .rest_pose import rotation_about
from .rig import J

# Movements that belong to joints, or that need teeth and tongue to mean anything.
NOT_EXPRESSION = ("jaw", "eyeLook", "tongue", "mouthClose")
COMPONENTS = 10
FACES = 4000
ACTIVE, ONE_SIDED = 0.35, 0.12  # how often an action takes part, and how often on one side only
NEVER_TOGETHER = (
    ("mouthSmile", "mouthFrown"),
    ("mouthSmile", "mouthPucker"),
    ("mouthPucker", "mouthStretch"),
    ("eyeBlink", "eyeWide"),
    ("browDown", "browOuterUp"),
    ("browDown", "browInnerUp"),
)


@dataclass(frozen=True)
class Jaw:
    weights: np.ndarray  # V: 0 to 1, how much of a turn of the jaw each vertex follows
    pivot: np.ndarray  # 3
    open_rad: float  # how far MakeHuman's jawOpen turns


def fit_jaw(vertices: np.ndarray, jaw_open: np.ndarray) -> Jaw:
    """Reads the jaw off the action jawOpen (V,3): MakeHuman's own bone and weights open the mouth like a drawer."""
    move = np.linalg.norm(jaw_open, axis=1)
    rigid = move > 0.6 * move.max()
    for _ in range(20):  # a rigid turn about the x axis, on the vertices that follow it best
        a, b = vertices[rigid, 1:], (vertices + jaw_open)[rigid, 1:]
        mean_a, mean_b = a.mean(0), b.mean(0)
        cross, dot = np.cross(a - mean_a, b - mean_b).sum(), ((a - mean_a) * (b - mean_b)).sum()
        angle = np.arctan2(cross, dot)
        turn = rotation_about("x", angle)[1:, 1:]
        pivot = np.linalg.solve(np.eye(2) - turn, mean_b - turn @ mean_a)
        full = (vertices[:, 1:] - pivot) @ (turn - np.eye(2)).T
        share = (full * jaw_open[:, 1:]).sum(1) / np.maximum((full**2).sum(1), 1e-9)
        error = np.linalg.norm(full - jaw_open[:, 1:], axis=1)
        follows = (move > 0.3 * move.max()) & (error < 1.5e-3) & (share > 0.9)
        if (follows == rigid).all():
            break
        rigid = follows
    return Jaw(share.clip(0, 1) * (move > 2e-4), np.r_[0.0, pivot], float(angle))


def with_jaw(weights: np.ndarray, jaw: Jaw) -> np.ndarray:
    """Skinning weights (V,55) in which head and jaw share what they had together as the fitted jaw says."""
    out = weights.copy()
    both = weights[:, J["head"]] + weights[:, J["jaw"]]
    out[:, J["jaw"]] = np.minimum(jaw.weights, both)
    out[:, J["head"]] = both - out[:, J["jaw"]]
    return out


def expression_actions(actions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: move for name, move in actions.items() if not name.startswith(NOT_EXPRESSION)}


@dataclass(frozen=True)
class Expressions:
    dirs: np.ndarray  # V,3,10
    of_action: np.ndarray  # A,10: each action's least-squares image
    explained: float  # of the energy of plausible faces


def plausible_faces(names: list[str], count: int, rng: np.random.Generator) -> np.ndarray:
    """Random amounts (count,A), 0 to 1, of the actions: both sides alike, mostly, and no smile with a frown."""
    pairs: dict[str, list[int]] = {}
    for k, name in enumerate(names):
        pairs.setdefault(name.removesuffix("Left").removesuffix("Right") or name, []).append(k)
    amounts = np.zeros((count, len(names)))
    for members in pairs.values():
        on = rng.random(count) < ACTIVE
        amount = rng.beta(1.3, 1.8, count) * on
        for k in members:
            amounts[:, k] = np.clip(amount + on * rng.normal(0, 0.12, count), 0, 1)
        if len(members) == 2:
            one_sided, side = rng.random(count) < ONE_SIDED, rng.integers(0, 2, count)
            for q in (0, 1):
                amounts[one_sided & (side == q), members[q]] *= 0.15
    for one, other in NEVER_TOGETHER:
        for p in pairs[one]:
            for q in pairs[other]:
                amounts[:, q] *= amounts[:, p] < 0.2
    return amounts


def fit_expressions(actions: dict[str, np.ndarray]) -> Expressions:
    """Principal directions of plausible faces; a coefficient of 1 is their standard deviation about the calm face."""
    names, moves = list(actions), np.stack(list(actions.values()))
    amounts = plausible_faces(names, FACES, np.random.default_rng(0))
    gram = np.einsum("avc,bvc->ab", moves, moves, optimize=True)
    root = np.linalg.cholesky(gram + 1e-12 * np.eye(len(names)))  # distances between faces become Euclidean
    energy, basis = np.linalg.eigh(root.T @ (amounts.T @ amounts) @ root)
    energy, basis = energy[::-1], basis[:, ::-1]
    mix = np.linalg.solve(root.T, basis[:, :COMPONENTS]) * np.sqrt(energy[:COMPONENTS] / FACES)
    mix *= np.where(mix.sum(0) < 0, -1, 1)
    dirs = np.einsum("ak,avc->vck", mix, moves, optimize=True)
    flat = dirs.reshape(-1, COMPONENTS)
    of_action = np.linalg.solve(flat.T @ flat, flat.T @ moves.reshape(len(names), -1).T).T
    return Expressions(dirs, of_action, float(energy[:COMPONENTS].sum() / energy.sum()))
