"""The fast convolution: the same numbers as PyTorch's, also after the weights have changed, and only where it may."""

import copy

import pytest
import torch
from torch.nn import functional as F

from wholebody.model.embedded.conv import Conv2d, can_be_fast, fast_conv2d


@pytest.fixture
def x():
    return torch.randn(1, 6, 8, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("kernel, stride, padding", [(1, 1, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_computes_what_pytorch_does(x, groups, kernel, stride, padding, bias):
    conv = Conv2d(6, 12, kernel, stride, padding, groups=groups, bias=bias)
    with torch.no_grad():
        assert can_be_fast(conv, x)
        for picture in (x, x.contiguous(memory_format=torch.channels_last), torch.cat([x, -x])[:, :, 1:]):
            expected = F.conv2d(picture, conv.weight, conv.bias, stride, padding, groups=groups)
            torch.testing.assert_close(conv(picture), expected, rtol=1e-5, atol=1e-5)
            for activation, function in (("relu6", F.relu6), ("relu", F.relu)):
                found = fast_conv2d(conv, picture, activation)
                torch.testing.assert_close(found, function(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_large_kernel_is_a_product(bias):
    """In either layout of the picture, and learnt anew."""
    conv = Conv2d(256, 320, 1, bias=bias)
    pictures = torch.randn(2, 256, 5, 7, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for scale in (1.0, 2.0):
            conv.weight.mul_(scale)
            for picture in (pictures, pictures.contiguous(memory_format=torch.channels_last), pictures[:, :, ::2]):
                expected = F.conv2d(picture, conv.weight, conv.bias)
                for activation, function in (("none", torch.clone), ("relu6", F.relu6), ("relu", F.relu)):
                    found = fast_conv2d(conv, picture, activation)
                    torch.testing.assert_close(found, function(expected), rtol=1e-4, atol=1e-5)
                    assert found.is_contiguous(memory_format=torch.channels_last)


def test_every_size_of_picture_has_its_own_layout(x):
    """More sizes than are kept, there and back: the same numbers, and the same bytes the second time."""
    conv = Conv2d(6, 12, 3, padding=1)
    pictures = [torch.cat([x] * (1 + k % 3))[..., : 4 + k // 3] for k in range(20)]
    with torch.no_grad():
        first = [conv(picture) for picture in pictures]
        for picture, before in reversed(list(zip(pictures, first, strict=True))):
            torch.testing.assert_close(
                before, F.conv2d(picture, conv.weight, conv.bias, padding=1), rtol=1e-5, atol=1e-5
            )
            assert torch.equal(conv(picture), before)


def test_follows_its_weights(x):
    conv = Conv2d(6, 4, 3)
    with torch.no_grad():
        before = conv(x)
        other = copy.deepcopy(conv)
        other.weight.add_(1.0)
        conv.load_state_dict({"weight": 2 * conv.weight, "bias": 3 + conv.bias})
        for changed in (conv, other):
            expected = F.conv2d(x, changed.weight, changed.bias)
            assert not torch.allclose(expected, before)
            torch.testing.assert_close(changed(x), expected, rtol=1e-5, atol=1e-5)


def test_learns_and_computes_in_double_precision_as_pytorch_does(x):
    conv = Conv2d(6, 4, 3)
    assert not can_be_fast(conv, x)
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    conv.requires_grad_(False)
    assert can_be_fast(conv, x) and not can_be_fast(conv, x.clone().requires_grad_())
    exact = conv.double()(x.double())
    assert exact.dtype == torch.float64 and not can_be_fast(conv, x.double())
