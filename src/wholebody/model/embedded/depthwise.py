"""Depthwise convolution whose backward pass goes round slow paths of oneDNN (measured with torch 2.13 on two x86 CPUs).

A stride of 2 (gradient of the input) and 5×5 kernels (gradient of the weight) are many times slower there, in bfloat16,
than what is asked here instead; the results are the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """x B×C×H×W, weight C×1×k×k -> what `F.conv2d(..., groups=C)` gives, autocast included.

    With stride 2 the windows must cover x to its last row and column: H = 2 h + k - 2 without padding.
    """
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    return _DepthwiseConv.apply(x, weight, bias, stride, padding)


class _DepthwiseConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        return (
            _grad_of_input(grad, x, weight, ctx.stride, ctx.padding) if need_x else None,
            _grad_of_weight(grad, x, weight, ctx.stride, ctx.padding) if need_weight else None,
            grad.sum((0, 2, 3)) if need_bias else None,
            None,
            None,
        )


def _grad_of_input(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if stride == 1 or padding:
        return _builtin(grad, x, weight, stride, padding, (True, False))[0]
    # As a convolution of stride 1: zeros between the gradient's values, the kernel turned round.
    batch, channels, height, width = grad.shape
    kernel = weight.shape[-1]
    spread = torch.zeros(
        (batch, channels, x.shape[2] + kernel - 1, x.shape[3] + kernel - 1), dtype=grad.dtype, device=grad.device
    ).contiguous(memory_format=torch.channels_last)
    first = kernel - 1
    spread[:, :, first : first + 2 * height : 2, first : first + 2 * width : 2] = grad
    turned = weight.flip(2, 3).contiguous(memory_format=torch.channels_last)
    return F.conv2d(spread, turned, groups=channels)


def _grad_of_weight(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if weight.shape[-1] != 5:
        return _builtin(grad, x, weight, stride, padding, (False, True))[1]
    # Four 3×3 windows cover the 5×5 kernel and a sixth row and column, which are dropped.
    if stride != 1:
        grad, x = grad.float(), x.float()
    channels, (height, width) = weight.shape[0], grad.shape[2:]
    padded = F.pad(x, (padding, padding + 1, padding, padding + 1))
    rows, columns = (height - 1) * stride + 3, (width - 1) * stride + 3
    window_weight = torch.empty((channels, 1, 3, 3), dtype=x.dtype, device=x.device)  # only its shape counts
    result = torch.empty((channels, 1, 6, 6), dtype=weight.dtype, device=weight.device)
    for i in (0, 3):
        for j in (0, 3):
            window = padded[:, :, i : i + rows, j : j + columns].contiguous(memory_format=torch.channels_last)
            result[:, :, i : i + 3, j : j + 3] = _builtin(grad, window, window_weight, stride, 0, (False, True))[1]
    return result[:, :, :5, :5]


def _builtin(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]):
    """PyTorch's own backward pass."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], weight.shape[0], [*wanted, False]
    )
