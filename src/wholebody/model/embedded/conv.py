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
    if dtype == torch.float32 and conv.weight.numel() > _LARGE and _is_product(conv, sides):
        return _as_product(conv, x, activation)
    packed = _packed(conv, x, sides, lead)
    name, limits = _ONEDNN[activation]
    return torch.ops.mkldnn._convolution_pointwise(
        x, packed.weight, packed.bias, sides, conv.stride, conv.dilation, conv.groups, name, limits, None
    )


_LARGE = 60_000
"""Numbers in a kernel of 1×1 from which it is multiplied as a matrix: as fast, and it need not be laid out."""


def _is_product(conv: nn.Conv2d, sides: list[int]) -> bool:
    return conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1 and sides == [0, 0]


def _as_product(conv: nn.Conv2d, x: Tensor, activation: Activation) -> Tensor:
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    weight = conv.weight.detach().flatten(1).T
    y = rows @ weight if conv.bias is None else torch.addmm(conv.bias.detach(), rows, weight)
    if activation != "none":
        y.clamp_(0.0, 6.0 if activation == "relu6" else None)
    return y.view(batch, height, width, -1).permute(0, 3, 1, 2)


class _Layout(NamedTuple):
    weight: Tensor
    bias: Tensor | None


class _Packed(NamedTuple):
    made_from: tuple
    layouts: dict[tuple, _Layout]  # by shape of the input, precision and lead


_MOST_LAYOUTS = 16  # of one convolution; then they are made anew
# Beside the modules, not in them: copies and pickles of a network have nothing to do with how it computes.
_PACKED: WeakKeyDictionary[nn.Conv2d, _Packed] = WeakKeyDictionary()


def _packed(conv: nn.Conv2d, x: Tensor, padding: list[int], lead: int) -> _Layout:
    """The weights in oneDNN's layout for inputs of this shape; laid out anew when they are others than before.

    One for each shape: with that of another the same picture takes up to four times as long.
    """
    made_from = tuple((p.data_ptr(), p._version) for p in (conv.weight, conv.bias) if p is not None)
    known = _PACKED.get(conv)
    key = (x.shape, x.dtype, lead)
    layout = None if known is None or known.made_from != made_from else known.layouts.get(key)
    if layout is None:
        if known is None or known.made_from != made_from or len(known.layouts) >= _MOST_LAYOUTS:
            known = _PACKED[conv] = _Packed(made_from, {})
        weight = F.pad(conv.weight.detach(), (lead, 0, lead, 0)).to(x.dtype)
        packed = torch.ops.aten.mkldnn_reorder_conv2d_weight(
            weight.to_mkldnn(), padding, conv.stride, conv.dilation, conv.groups, x.shape
        )
        bias = None if conv.bias is None else conv.bias.detach().to(x.dtype)
        layout = known.layouts[key] = _Layout(packed, bias)
    return layout
