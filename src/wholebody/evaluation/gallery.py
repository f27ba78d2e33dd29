"""The best, the middle and the worst samples of an evaluation, drawn: photo, mesh over it, and truth beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from wholebody.data.sample import Sample
from wholebody.evaluation.inference import picture_of, predict
from wholebody.evaluation.metrics import MeshParts
from wholebody.evaluation.result import Network, Result, label, most_is_best
from wholebody.evaluation.testset import Figure
from wholebody.output.overlay import draw_overlay, encode_jpeg

T = TypeVar("T")
KINDS = ("best", "median", "worst")
PANEL_HW = (360, 270)
PREDICTED, TRUE = (0.55, 0.73, 0.92), (0.80, 0.78, 0.74)  # sRGB 0..1
_PAPER = np.array([0.965, 0.965, 0.955])


@dataclass(frozen=True, eq=False)
class Shown:
    """A person in a photo and a network's answer, ready to be drawn."""

    photo: np.ndarray  # H×W×3 uint8
    crop_box: np.ndarray  # (4,) xyxy pixels
    vertices: np.ndarray  # (V, 3) in the camera frame
    faces: np.ndarray
    focal_px: np.ndarray  # (2,) of the camera that sees the mesh in the photo
    principal_px: np.ndarray  # (2,)
    truth: np.ndarray | None = None  # (V, 3), its pelvis on the answer's; None: the set has no meshes


def chosen(network: Network, measure: str, each: int = 3) -> dict[str, list[int]]:
    """Which rows (by number) are the best, the middle and the worst `each` of a measure; no row twice."""
    values = network.values(measure)
    worse = -values if most_is_best(measure) else values
    order = [int(i) for i in np.argsort(worse, kind="stable") if np.isfinite(values[i])]
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
    models: Sequence[Any], result: Result, people: Iterable[T], show: Callable[[Any, T], Shown], each: int = 3
) -> list[Figure]:
    """Figures of every network. people: those that were measured, once more, in the same order; show: what a network
    says of one of them."""
    if each < 1:
        return []
    wanted = [chosen(network, result.headline, each) for network in result.networks]
    rows = {i for picked in wanted for kind in KINDS for i in picked[kind]}
    kept = {i: person for i, person in enumerate(people) if i in rows}
    figures = []
    for model, network, picked in zip(models, result.networks, wanted, strict=True):
        for kind in KINDS:
            for row in picked[kind]:
                values = network.rows[row].values
                known = [name for name in result.measures[:3] if name in values]
                caption = ", ".join(f"{label(name)} {values[name]:.{result.digits}f}" for name in known)
                jpeg = encode_jpeg(_draw_one(show(model, kept[row])), quality=85)
                figures.append(Figure(network.name, kind, network.rows[row].id, caption, jpeg))
    return figures


def shown(
    model: Any, sample: Sample, root: Path, truth: np.ndarray | None = None, parts: MeshParts | None = None
) -> Shown:
    """What a network says of a sample; truth: its mesh (V, 3) in the camera frame."""
    ((predicted,),) = predict([model], [sample], root, 1)
    vertices = predicted.vertices()[0].float().cpu().numpy()
    focal, principal = (values[0] for values in predicted.cameras())
    if truth is not None and parts is not None:
        truth = moved_onto(truth, vertices, parts)
    faces = model.body.faces.cpu().numpy()
    return Shown(picture_of(sample, root), predicted.crop_boxes[0], vertices, faces, focal, principal, truth)


def moved_onto(truth: np.ndarray, vertices: np.ndarray, parts: MeshParts) -> np.ndarray:
    """The true mesh with its pelvis where the other's is."""
    pelvis = parts.joint_regressor[0]
    return (truth - pelvis @ truth + pelvis @ vertices).astype(np.float32)


def _draw_one(one: Shown) -> np.ndarray:
    """Three panels side by side (H, 3W, 3) uint8."""
    photo, focal, principal = _cut(one.photo, one.crop_box, one.focal_px, one.principal_px)
    person: Any = SimpleNamespace(vertices_cam=one.vertices, focal_px=focal, principal_px=principal)
    overlay = draw_overlay(photo, [person], one.faces, side_view=False, samples=2)
    meshes = [(one.vertices, PREDICTED)]
    if one.truth is not None:
        meshes.append((one.truth, TRUE))
    return np.concatenate([photo, overlay, draw_from_side(meshes, one.faces)], 1)


def _cut(
    image: np.ndarray, box: np.ndarray, focal: np.ndarray, principal: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The crop's part of the picture at the size of a panel, and the camera that sees it."""
    from wholebody.geometry.crop import crop_affine, warp

    affine, _ = crop_affine(box, out_hw=PANEL_HW)
    scale = np.diag(affine[:, :2])
    return warp(image, affine, PANEL_HW, antialias=True), focal * scale, principal * scale + affine[:, 2]


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
