"""Errors on held-out synthetic people, beside what the best constant answer would score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wholebody.body.assets import find_body, read_body_file
from wholebody.body.joints import PARTS_137, ROTATIONS_53_FROM_55
from wholebody.body.layer import BodyModel
from wholebody.data.augment import AugmentConfig
from wholebody.evaluation.metrics import MeshParts, mean_distance_mm, mesh_errors_mm, pa_mpvpe_mm, rigid_align
from wholebody.files.whole import write_bytes
from wholebody.model.network import Network
from wholebody.model.prediction import Prediction
from wholebody.synthesis.sets.crops import CROP_HW, CropDataConfig, TrainingCrops

PLAIN = AugmentConfig(
    scale=0.0,
    shift=0.0,
    rotation_probability=0.0,
    flip_probability=0.0,
    closeup_probability=0.0,
    occlude_probability=0.1,
    person_occlude_probability=0.05,
    colour=0.1,
)
"""How held-out people are put into pictures: exact boxes, upright, some of them partly hidden."""


def measure_layers(
    model: Network,
    layers: str,
    count: int | None = None,
    hdri: str | None = None,
    *,
    batch_size: int = 32,
    constants: bool = False,
    sheet: Path | None = None,
) -> dict[str, float]:
    """Mean errors of `model` on people it has not seen.

    Args:
        model: with the open body; in eval mode.
        layers: folder of held-out layers.
        count: the first so many of them, in a fixed shuffled order; None: all.
        hdri: environment maps for backgrounds.
        constants: also give what the best constant answer scores, as `constant_...`.
        sheet: write a picture of some predictions there.

    Returns:
        `mpvpe_*` and `pa_mpvpe_*` (mm) for all, hand and face as `mesh_errors_mm` has them; `body_2d_percent`: distance
        of projected body joints inside the crop from their truth, in percent of the box's height. `..._whole`: of those
        people nine tenths of whose body joints lie inside the crop.
    """
    data = TrainingCrops(CropDataConfig(layers, hdri, split="heldout", augment=PLAIN), seed=7, length=0)
    data.length = min(count or len(data.layers), len(data.layers))
    body = BodyModel.load(flat_hand_mean=True)
    parts = MeshParts.of(read_body_file(find_body(None)))
    errors: dict[str, list[Tensor]] = {}
    truths: list[Tensor] = []
    drawn: list[np.ndarray] = []
    cell = CROP_HW[0] / model.config.grid[1]
    for batch in DataLoader(data, batch_size):
        with torch.inference_mode():
            prediction = model.with_mesh(_regress(model, batch["image"]), body)
            truth = _true_vertices(body, batch)
            found = mesh_errors_mm(prediction.vertices_cam, truth, parts)
            projected = prediction.joints_proj_cells * cell  # type: ignore[operator]
            off = projected - batch["joints_crop"]
            off = off.norm(dim=-1) / batch["box_height"][:, None] * 100
            inside = batch["joint_inside"][:, : PARTS_137["body"].stop]
            off = (off[:, PARTS_137["body"]] * inside).sum(1) / inside.sum(1).clamp_min(1)
            found["body_2d_percent"] = off
            # Where half of the body lies outside the picture, most of the error is about what nobody can see.
            whole = inside.mean(1) >= 0.9
            found |= {f"{name}_whole": found[name][whole] for name in ("pa_mpvpe_all", "mpvpe_all", "body_2d_percent")}
        for name, value in found.items():
            errors.setdefault(name, []).append(value)
        if constants:
            truths.append(truth)
        if sheet is not None and len(drawn) < 24:
            shown = zip(batch["image"], batch["joints_crop"], projected, strict=True)  # type: ignore[arg-type]
            drawn += [_draw(*person) for person in shown]
    if sheet is not None:
        _write_sheet(drawn[:24], sheet)
    result = {name: float(torch.cat(values).mean()) for name, values in sorted(errors.items())}
    if constants:
        result |= {f"constant_{name}": value for name, value in constant_errors(torch.cat(truths), parts).items()}
    return result


def constant_errors(truth: Tensor, parts: MeshParts) -> dict[str, float]:
    """What one mesh for everybody would score, if it were the best one: `mesh_errors_mm` of each part's mean shape.

    The mean is taken of these very truths, in the alignment that the measure allows, so no constant that was fitted
    elsewhere does better by much.
    """
    from wholebody.body.joints import SMPLX_JOINTS, index

    roots = torch.as_tensor(parts.joint_regressor[index(("pelvis", "left_wrist", "right_wrist", "neck"), SMPLX_JOINTS)])
    origins = roots.to(truth) @ truth
    scores: dict[str, list[float]] = {}
    for name, rows, root in (
        ("all", None, 0),
        ("hand", parts.left_hand, 1),
        ("hand", parts.right_hand, 2),
        ("face", parts.face, 3),
    ):
        points = (truth if rows is None else truth[:, rows]) - origins[:, root, None]
        shifted = points.mean(0, keepdim=True).expand_as(points)
        scores.setdefault(f"mpvpe_{name}", []).append(float(mean_distance_mm(shifted, points).mean()))
        mean = points[:1]
        for _ in range(4):  # generalised Procrustes: align everybody to the mean, take the mean again
            mean = rigid_align(points, mean.expand_as(points)).mean(0, keepdim=True)
        scores.setdefault(f"pa_mpvpe_{name}", []).append(float(pa_mpvpe_mm(mean.expand_as(points), points).mean()))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _regress(model: Network, images: Tensor) -> Prediction:
    device = next(model.parameters()).device
    return model.regress(images.to(device).permute(0, 3, 1, 2).float().div(255))


def _true_vertices(body: BodyModel, batch: dict[str, Tensor]) -> Tensor:
    tree = torch.eye(3).repeat(len(batch["rotations"]), 55, 1, 1)
    tree[:, list(ROTATIONS_53_FROM_55)] = batch["rotations"]
    return body.from_matrices(tree, batch["betas"], batch["expression"]).vertices


def _draw(image: Tensor, truth: Tensor, projected: Tensor) -> np.ndarray:
    """The picture with true joints in green and predicted ones in red."""
    picture = cv2.resize(image.numpy(), (288, 384), interpolation=cv2.INTER_LINEAR)
    for points, colour in ((truth, (0, 220, 0)), (projected, (255, 40, 40))):
        for x, y in (points.numpy() * (384 / CROP_HW[0])).round().astype(int)[:65]:
            cv2.circle(picture, (int(x), int(y)), 2, colour, -1, cv2.LINE_AA)
    return picture


def _write_sheet(pictures: list[np.ndarray], path: Path, columns: int = 8) -> None:
    starts = range(0, len(pictures), columns)
    rows = [np.concatenate(list(_padded(pictures[i : i + columns], columns)), 1) for i in starts]
    picture = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode(path.suffix, picture)[1].tobytes())


def _padded(pictures: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
    yield from pictures
    yield from (np.zeros_like(pictures[0]) for _ in range(count - len(pictures)))
