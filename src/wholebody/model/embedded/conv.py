"""Convolutions that are fast where nothing is learnt: oneDNN on a CPU, with weights that are laid out for it once."""

from __future__ import annotations

from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholebody.model.recording import is_recorded

Activation = Literal["relu6", "relu", "none"]

_ONEDNN: dict[Activation, tuple[str, list[float]]] = {
    "relu6": ("hardtanh", [0.0, 6.0]),
    "relu": ("relu", []),
    "none": ("none", []),
}


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, the fast way where it can be gone. PyTorch's own takes a slow kernel for one small picture."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_conv2d(self, x) if can_be_fast(self, x) else super().forward(x)


def can_be_fast(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether no gradient is wanted, and x and the weights are of single precision (or half of it) on a CPU."""
    if is_recorded() or not torch.backends.mkldnn.is_available():
        return False
    weight = conv.weight
    if x.device.type != "cpu" or weight.device.type != "cpu" or weight.dtype != torch.float32 or weight.is_inference():
        return False
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return False
    return x.dtype in (torch.float32, torch.bfloat16)


def fast_conv2d(
    conv: nn.Conv2d, x: Tensor, activation: Activation = "none", padding: int | None = None, lead: int = 0
) -> Tensor:
    """What conv and activation give, in one call to oneDNN.

    Under autocast in bfloat16 where the processor computes in it; else in single precision. padding: on all sides,
    instead of the convolution's own. lead: so many rows and columns of zeros are put in front of the kernel.
    """
    reduced = torch.is_autocast_enabled("cpu") and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    dtype = torch.bfloat16 if reduced else torch.float32
    x = x.to(dtype)
    sides = [int(side) for side in conv.padding] if padding is None else [padding] * 2
    packed = _packed(conv, x, sides, lead)
    name, limits = _ONEDNN[activation]
    return torch.ops.mkldnn._convolution_pointwise(
        x, packed.weight, packed.bias, sides, conv.stride, conv.dilation, conv.groups, name, limits, None
    )


class _Packed(NamedTuple):
    made_from: tuple
    weight: Tensor
    bias: Tensor | None


# Beside the modules, not in them: copies and pickles of a network have nothing to do with how it computes.
_PACKED: WeakKeyDictionary[nn.Conv2d, _Packed] = WeakKeyDictionary()


def _packed(conv: nn.Conv2d, x: Tensor, padding: list[int], lead: int) -> _Packed:
    """The weights in oneDNN's layout; laid out anew when they are others than before."""
    state = tuple((p.data_ptr(), p._version) for p in (conv.weight, conv.bias) if p is not None)
    made_from = (state, x.dtype, lead)
    packed = _PACKED.get(conv)
    if packed is None or packed.made_from != made_from:
        weight = F.pad(conv.weight.detach(), (lead, 0, lead, 0)).to(x.dtype)
        layout = torch.ops.aten.mkldnn_reorder_conv2d_weight(
            weight.to_mkldnn(), padding, conv.stride, conv.dilation, conv.groups, x.shape
        )
        bias = None if conv.bias is None else conv.bias.detach().to(x.dtype)
        packed = _PACKED[conv] = _Packed(made_from, layout, bias)
    return packed
