"""Batch statistics over all processes of a run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def share_statistics(model: nn.Module) -> None:
    """BatchNorm layers of `model` that learn compute their statistics over the batches of all processes."""
    for layer in _layers(model):
        layer.__class__ = _Shared  # keeps parameters, statistics and names


class _Shared(nn.BatchNorm2d):
    """PyTorch's own does not run on a CPU; this one runs anywhere, with equal batches in every process."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        from torch.distributed import get_world_size
        from torch.distributed.nn.functional import all_reduce

        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        world, full = get_world_size(), x.to(self.running_mean.dtype)
        mean = all_reduce(full.mean((0, 2, 3))) / world
        centred = full - mean[:, None, None]
        variance = all_reduce(centred.square().mean((0, 2, 3))) / world
        with torch.no_grad():
            count = world * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class KeptStatistics:
    """The running statistics of a model before a step, to be put back if the step is left out."""

    def __init__(self, model: nn.Module) -> None:
        self.buffers = [buffer for layer in _layers(model) for buffer in layer.buffers()]
        self.kept: list[Tensor] = []

    def keep(self) -> None:
        self.kept = [buffer.clone() for buffer in self.buffers]

    def put_back(self) -> None:
        with torch.no_grad():
            for buffer, value in zip(self.buffers, self.kept, strict=True):
                buffer.copy_(value)


def _layers(model: nn.Module) -> Iterator[nn.BatchNorm2d]:
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d) and (layer.weight is None or layer.weight.requires_grad):
            yield layer
