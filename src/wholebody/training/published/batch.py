"""Batches of data sets under the published objective: from the loader's keys to the published losses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wholebody.body.layer import BodyModel
from wholebody.model.network import Network
from wholebody.model.prediction import Prediction
from wholebody.training.config import PublishedConfig
from wholebody.training.published.losses import (
    CELL_PX,
    PublishedTargets,
    detached_body_projection,
    published_losses,
    smpler_x_losses,
    weighed,
)
from wholebody.training.published.smplest_x_losses import smplest_x_losses

PARTS = ("lhand", "rhand", "face")
_SAME = tuple(name for name in PublishedTargets.__dataclass_fields__ if not name.startswith("box_") and name != "is_3d")


def targets_of(batch: dict[str, Tensor]) -> PublishedTargets:
    """The truth in a batch whose keys are those of the published loader, targets and masks side by side."""
    return PublishedTargets(
        **{name: batch[name] for name in _SAME},
        is_3d=batch["is_3D"],
        box_centers=torch.stack([batch[f"{part}_bbox_center"] for part in PARTS], 1),
        box_sizes=torch.stack([batch[f"{part}_bbox_size"] for part in PARTS], 1),
        box_valid=torch.stack([batch[f"{part}_bbox_valid"] for part in PARTS], 1),
    )


def published_terms(
    model: Network, body: BodyModel, prediction: Prediction, batch: dict[str, Tensor], config: PublishedConfig
) -> dict[str, Tensor]:
    """The mean of each loss of the network's family by its published name; what is minimised is their sum."""
    prediction = model.with_mesh(prediction, body)
    if config.detach_projection:
        prediction = detached_body_projection(prediction, model.project)
    losses = _OF_FAMILY[model.config.family](model, prediction, targets_of(batch), config)
    return {name: loss.mean() for name, loss in losses.items()}


def _osx(
    model: Network, prediction: Prediction, targets: PublishedTargets, config: PublishedConfig
) -> dict[str, Tensor]:
    weigh_parameters = model.config.variant == "wo_decoder"
    return weighed(published_losses(prediction, targets, config.shape_weight, weigh_parameters), config.weights)


def _smpler_x(
    model: Network, prediction: Prediction, targets: PublishedTargets, config: PublishedConfig
) -> dict[str, Tensor]:
    losses = smpler_x_losses(prediction, targets, config.weights | {"smplx_shape": config.shape_weight})
    # A box that nobody in this process's batch has: as zero it changes nothing, and every process says the same losses.
    assert prediction.box_centers_cells is not None and prediction.box_sizes_cells is not None
    nothing = 0 * (prediction.box_centers_cells.sum() + prediction.box_sizes_cells.sum())
    return {f"{part}_bbox": nothing for part in PARTS} | losses


def _smplest_x(
    model: Network, prediction: Prediction, targets: PublishedTargets, config: PublishedConfig
) -> dict[str, Tensor]:
    return smplest_x_losses(prediction, targets, config.weights | {"smplx_shape": config.shape_weight})


_OF_FAMILY = {"osx": _osx, "smpler_x": _smpler_x, "smplest_x": _smplest_x}


def draw_batch(model: Network, body: BodyModel, prediction: Prediction, batch: dict[str, Tensor]) -> np.ndarray:
    """Up to eight crops in a row: the truth's joints in green, the predicted mesh's in red. H×W×3 uint8 RGB."""
    import cv2

    projected = model.with_mesh(prediction, body).joints_proj_cells
    assert projected is not None
    drawn = []
    for number in range(min(8, len(projected))):
        picture = batch["image"][number].cpu().numpy()
        if picture.dtype != np.uint8:
            picture = (picture * 255).round().astype(np.uint8)
        picture = np.ascontiguousarray(picture)
        pixels = CELL_PX * picture.shape[0] / 512
        known = batch["joint_trunc"][number, :, 0] > 0
        truth, found = batch["joint_img"][number, :, :2][known], projected[number]
        for points, colour in ((truth, (0, 255, 0)), (found, (255, 0, 0))):
            for x, y in (points.float().cpu().numpy() * pixels).clip(-1e4, 1e4).round().astype(int):
                cv2.circle(picture, (int(x), int(y)), 1, colour, -1, cv2.LINE_AA)
        drawn.append(picture)
    return np.concatenate(drawn, 1)
