"""The best, the middle and the worst samples of an evaluation, drawn: photo, mesh over it, and truth beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from wholebody.data.sample import Sample
from wholebody.evaluation.benchmarks import Context
from wholebody.evaluation.inference import Predicted, picture_of, predict
from wholebody.evaluation.result import Network, Result, label
from wholebody.output.overlay import draw_overlay, encode_jpeg

KINDS = ("best", "median", "worst")
PANEL_HW = (360, 270)
PREDICTED, TRUE = (0.55, 0.73, 0.92), (0.80, 0.78, 0.74)  # sRGB 0..1
_PAPER = np.array([0.965, 0.965, 0.955])


@dataclass(frozen=True)
class Figure:
    """One drawn sample. `jpeg`: the file's bytes."""

    network: str
    kind: str
    id: str
    caption: str
    jpeg: bytes


def chosen(network: Network, measure: str, each: int = 3) -> dict[str, list[int]]:
    """Which rows (by number) are the best, the middle and the worst `each` of a measure; no row twice."""
    values = network.values(measure)
    order = [int(i) for i in np.argsort(values, kind="stable") if np.isfinite(values[i])]
    each = min(each, max(1, len(order) // 3))
    start = max(0, (len(order) - each) // 2)
    ranges = {"best": order[:each], "median": order[start : start + each], "worst": order[::-1][:each]}
    seen: set[int] = set()
    picked = {}
    for kind in KINDS:
        picked[kind] = [i for i in ranges[kind] if i not in seen]
        seen.update(picked[kind])
    return picked


def draw(
    models: Sequence[Any], result: Result, samples: Iterable[Sample], context: Context, each: int = 3
) -> list[Figure]:
    """Figures of every network. `samples`: the same people as were measured, once more, in the same order."""
    wanted = [chosen(network, result.headline, each) for network in result.networks]
    rows = {i for picked in wanted for kind in KINDS for i in picked[kind]}
    kept = {i: sample for i, sample in enumerate(samples) if i in rows}
    figures = []
    for model, network, picked in zip(models, result.networks, wanted, strict=True):
        for kind in KINDS:
            numbers = picked[kind]
            batches = predict([model], [kept[i] for i in numbers], context.root, max(1, len(numbers)))
            for (predicted,) in batches:
                for k, row in enumerate(numbers):
                    values = network.rows[row].values
                    caption = ", ".join(f"{label(name)} {values[name]:.1f}" for name in result.measures[:3])
                    jpeg = encode_jpeg(_draw_one(predicted, k, model, context), quality=85)
                    figures.append(Figure(network.name, kind, network.rows[row].id, caption, jpeg))
    return figures


def _draw_one(predicted: Predicted, k: int, model: Any, context: Context) -> np.ndarray:
    """Three panels side by side (H, 3W, 3) uint8."""
    sample = predicted.samples[k]
    vertices = predicted.vertices()[k].float().cpu().numpy()
    faces = model.body.faces.cpu().numpy()
    focal, principal = (values[k] for values in predicted.cameras())
    photo, focal, principal = _cut(picture_of(sample, context.root), predicted.crop_boxes[k], focal, principal)
    person: Any = SimpleNamespace(vertices_cam=vertices, focal_px=focal, principal_px=principal)
    overlay = draw_overlay(photo, [person], faces, side_view=False, samples=2)
    meshes = [(vertices, PREDICTED)]
    if context.benchmark.truth != "smpl":
        meshes.append((_moved_onto(context.true_vertices([sample])[0], vertices, context), TRUE))
    return np.concatenate([photo, overlay, draw_from_side(meshes, faces)], 1)


def _cut(
    image: np.ndarray, box: np.ndarray, focal: np.ndarray, principal: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The crop's part of the picture at the size of a panel, and the camera that sees it."""
    from wholebody.geometry.crop import crop_affine, warp

    affine, _ = crop_affine(box, out_hw=PANEL_HW)
    scale = np.diag(affine[:, :2])
    return warp(image, affine, PANEL_HW, antialias=True), focal * scale, principal * scale + affine[:, 2]


def _moved_onto(truth: np.ndarray, vertices: np.ndarray, context: Context) -> np.ndarray:
    pelvis = context.parts.joint_regressor[0]
    return (truth - pelvis @ truth + pelvis @ vertices).astype(np.float32)


def draw_from_side(meshes: Sequence[tuple[np.ndarray, tuple[float, float, float]]], faces: np.ndarray) -> np.ndarray:
    """Coloured meshes (V, 3) in the camera frame as seen from the photo's right, H×W×3 uint8."""
    from wholebody.drawing.raster import Light, Mesh, draw_meshes

    everything = np.concatenate([vertices for vertices, _ in meshes]).astype(np.float64)
    low, high = everything.min(0), everything.max(0)
    centre, extent, distance = (low + high) / 2, np.maximum((high - low)[[2, 1]], 0.2), 6.0
    height, width = PANEL_HW
    near = distance - (high - low)[0] / 2
    focal = 0.9 * near * min(width / extent[0], height / extent[1])
    turned = []
    for vertices, color in meshes:
        x, y, z = (np.asarray(vertices, np.float64) - centre).T
        turned.append(Mesh(np.stack([z, y, distance - x], 1), faces, np.broadcast_to(color, (len(vertices), 3))))
    light = Light(direction_cam=(-0.45, -0.65, -0.62), ambient=(0.34, 0.35, 0.38), directional=(0.78, 0.76, 0.72))
    drawing = draw_meshes(turned, focal, [(width - 1) / 2, (height - 1) / 2], PANEL_HW, light=light, samples=2)
    paper = np.broadcast_to((_PAPER * 255).astype(np.uint8), (*PANEL_HW, 3))
    return drawing.over(np.ascontiguousarray(paper))


def write_figures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """The pictures as files, for who wants them beside the page."""
    from wholebody.files.whole import write_bytes

    return [
        write_bytes(folder / f"{f.network}_{f.kind}_{k:02d}.jpg".replace("/", "_"), f.jpeg)
        for k, f in enumerate(figures)
    ]
