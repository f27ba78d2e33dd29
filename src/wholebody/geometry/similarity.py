"""The similarity transform that lays points onto others (S. Umeyama, IEEE TPAMI 13(4), 1991)."""

from __future__ import annotations

import torch
from torch import Tensor


def similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale (...), rotation (..., 3, 3) and translation (..., 3) that bring `source` (..., N, 3) closest to `target`:
    closest in the sum of squared distances; never a reflection. Points that all coincide have no scale: NaN."""
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    covariance = (source - source_mean).mT @ (target - target_mean) / source.shape[-2]
    u, stretch, vt = torch.linalg.svd(covariance)
    # A reflection would fit better: turn the weakest axis round instead.
    sign = torch.ones_like(stretch)
    sign[..., 2] = torch.where(torch.linalg.det(u) * torch.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = vt.mT @ (sign[..., None] * u.mT)
    variance = (source - source_mean).square().mean(-2).sum(-1)
    scale = (stretch * sign).sum(-1) / variance
    translation = target_mean[..., 0, :] - scale[..., None] * (rotation @ source_mean.mT)[..., 0]
    return scale, rotation, translation


def aligned(source: Tensor, target: Tensor) -> Tensor:
    """`source` (..., N, 3) after the similarity transform that brings it closest to `target`."""
    scale, rotation, translation = similarity(source, target)
    return scale[..., None, None] * (source @ rotation.mT) + translation[..., None, :]
