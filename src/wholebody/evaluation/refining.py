"""What refining does to the 3D: errors of drawn people before and after a fit to noisy keypoints."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wholebody.body.assets import find_body, read_body_file
from wholebody.body.joints import COCO_WHOLEBODY_FROM_137
from wholebody.body.kinematics import tree_rotations
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.evaluation.metrics import MeshParts, mesh_errors_mm
from wholebody.evaluation.synthetic import PLAIN
from wholebody.fitting.fit import Bodies, FitConfig, Fitter
from wholebody.geometry.camera import VirtualCamera
from wholebody.model.osx import OSX
from wholebody.model.prediction import pictures_01
from wholebody.people import MIN_QUALITY
from wholebody.people.refine import TRUNK_AND_LIMBS, quality
from wholebody.people.relift import lift_of
from wholebody.synthesis.sets.crops import CROP_HW, CropDataConfig, TrainingCrops

KEYPOINT_SETS = {"wholebody": 133, "body": 17}
_ENLARGED = 1.25  # of a person's box, when it becomes a crop


def measure(
    model: OSX,
    layers: str | Path,
    count: int | None = None,
    *,
    noise: float = 0.02,
    noise_seed: int = 2_026,
    outliers: float = 0.0,
    keypoints: str = "wholebody",
    hdri: str | None = None,
    config: FitConfig | None = None,
    batch_size: int = 16,
) -> dict[str, float]:
    """Mean errors of `model` on drawn people as predicted (`..._before`) and after a fit (no suffix).

    Args:
        layers: folder of people that neither the network nor the prior has seen (`wholebody synth --split heldout`).
        count: the first so many, in the order of `evaluation.synthetic`; None: all.
        noise: spread of the keypoints that the fit gets, of each coordinate, in the larger side of the person's box.
        outliers: share of keypoints that are a quarter of that side off instead.
        keypoints: "wholebody": all 133 inside the crop, hidden ones too; "body": COCO's 17.

    Returns:
        `mpvpe_*`, `pa_mpvpe_*` in mm as `mesh_errors_mm` has them; `keypoints_percent`: mean distance of the 133 inside
        the crop from their true places, percent of the larger side; `seconds`: processor time of the fit a person.
        Of the quality that `annotate` gives: its rank correlation with PA-MPVPE, the share of people who have enough to
        become labels, and PA-MPVPE of these (`_trusted`) and of the others (`_doubted`).
    """
    if keypoints not in KEYPOINT_SETS:
        raise BadInput(f"keypoints is {keypoints!r}: choose one of {', '.join(KEYPOINT_SETS)}")
    data = TrainingCrops(CropDataConfig(str(layers), hdri, augment=PLAIN), seed=7, length=0)
    data.length = min(count or len(data.layers), len(data.layers))
    body = BodyModel.load(flat_hand_mean=True)
    fitter, parts = Fitter(body, config, lift=lift_of(model)), MeshParts.of(read_body_file(find_body(None)))
    found: dict[str, list[Tensor]] = {}
    qualities: list[Tensor] = []
    seconds, first = 0.0, 0
    for batch in DataLoader(data, batch_size):
        with torch.inference_mode():
            prediction = model(pictures_01(batch["image"], model.box_scales))
        bodies = _bodies(prediction)
        truth = _vertices(body, batch["rotations"], batch["betas"], batch["expression"])
        rows = list(COCO_WHOLEBODY_FROM_137)
        true_px, inside = batch["joints_crop"][:, rows], batch["joint_inside"][:, rows]
        size = _larger_side(batch["box_height"])
        given = torch.stack(
            [
                _noisy(points, side, np.random.default_rng((noise_seed, first + n)), noise, outliers)
                for n, (points, side) in enumerate(zip(true_px, size.tolist(), strict=True))
            ]
        )
        first += len(size)
        confidence = inside.clone()
        confidence[:, KEYPOINT_SETS[keypoints] :] = 0
        start = time.process_time()
        fitted = fitter(bodies, given, confidence, size)
        seconds += time.process_time() - start

        implausible = fitter.implausibility(fitted.bodies)
        known = confidence[:, TRUNK_AND_LIMBS].mean(1)
        figures = zip(fitted.error.tolist(), known.tolist(), implausible.tolist(), strict=True)
        qualities.append(torch.tensor([quality(*each) for each in figures]))

        after = fitted.bodies.to(torch.float32)
        refined = _vertices(body, after.rotations, after.betas, after.expression)
        untouched = _vertices(body, bodies.rotations, bodies.betas, bodies.expression)
        seen_before = fitter.project(bodies).float()
        for suffix, vertices, seen in (("_before", untouched, seen_before), ("", refined, fitted.keypoints_px.float())):
            off = (seen - true_px).norm(dim=-1) / size[:, None] * 100
            errors = mesh_errors_mm(vertices, truth, parts)
            errors["keypoints_percent"] = (off * inside).sum(1) / inside.sum(1).clamp_min(1)
            for name, value in errors.items():
                found.setdefault(f"{name}{suffix}", []).append(value)
    result = {name: float(torch.cat(values).mean()) for name, values in sorted(found.items())}
    trust = _trust(torch.cat(qualities), torch.cat(found["pa_mpvpe_all"]))
    return result | trust | {"seconds": seconds / data.length, "people": float(data.length)}


def _trust(qualities: Tensor, errors: Tensor) -> dict[str, float]:
    """What the quality that `annotate` writes says of the error in 3D: ranks, and means from 0.5 on and below."""
    ranks = torch.stack([qualities, errors]).argsort(1).argsort(1).double()
    trusted = qualities >= MIN_QUALITY
    means = {"trusted": errors[trusted], "doubted": errors[~trusted]}
    return {
        "quality_rank_correlation": float(torch.corrcoef(ranks)[0, 1]),
        "trusted_share": float(trusted.double().mean()),
        **{f"pa_mpvpe_{name}": float(values.mean()) for name, values in means.items() if len(values)},
    }


def report(errors: dict[str, float]) -> str:
    """A table of what `measure` returns."""
    lines = [f"{errors['people']:.0f} people                        as predicted     refined   ratio"]
    for name in (name for name in errors if f"{name}_before" in errors):
        before, after = errors[f"{name}_before"], errors[name]
        lines.append(f"  {name:<28}{before:13.1f}{after:12.1f}{after / before:8.2f}")
    trusted, doubted = (errors.get(f"pa_mpvpe_{name}", float("nan")) for name in ("trusted", "doubted"))
    lines.append(f"  good as labels  {errors['trusted_share']:.0%}, PA-MPVPE {trusted:.1f}; others {doubted:.1f}")
    lines.append(f"  rank correlation of quality and PA-MPVPE  {errors['quality_rank_correlation']:.2f}")
    lines.append(f"  processor seconds a person  {errors['seconds']:.3f}")
    return "\n".join(lines)


def _bodies(prediction) -> Bodies:
    batch = len(prediction.betas)
    rotations = tree_rotations(prediction.rotations)
    camera = VirtualCamera().in_picture([0, 0, CROP_HW[1], CROP_HW[0]])
    focal, principal = (torch.as_tensor(v).float().expand(batch, 2) for v in (camera.focal_px, camera.principal_px))
    betas, expression, transl = (getattr(prediction, n).clone() for n in ("betas", "expression", "cam_trans"))
    return Bodies(rotations, betas, expression, transl, focal, principal)


def _vertices(body: BodyModel, rotations: Tensor, betas: Tensor, expression: Tensor) -> Tensor:
    if rotations.shape[1] != 55:
        rotations = tree_rotations(rotations)
    return body.from_matrices(rotations, betas, expression).vertices


def _larger_side(box_height: Tensor) -> Tensor:
    """Of the box (B,), in pixels of a crop that was fitted to it: a box too low to fill its height fills its width."""
    tall = CROP_HW[0] / _ENLARGED
    return torch.where(box_height < 0.999 * tall, box_height.clamp_min(CROP_HW[1] / _ENLARGED), box_height)


def _noisy(points: Tensor, side: float, rng: np.random.Generator, noise: float, outliers: float) -> Tensor:
    spread = np.where(rng.random((len(points), 1)) < outliers, 0.25, noise)
    return points + torch.from_numpy(rng.normal(0, 1, tuple(points.shape)) * spread * side).float()
