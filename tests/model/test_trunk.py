"""The trunks: equal to the published graph, padded as TensorFlow pads, frozen and fused without a change of meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wholebody.body.joints import COCO_BODY_17
from wholebody.errors import BadInput
from wholebody.model.embedded.depthwise import depthwise_conv2d
from wholebody.model.embedded.movenet import load_movenet, read_movenet_state
from wholebody.model.embedded.trunk import (
    ConvUnit,
    MobileNetMaps,
    MobileNetTrunk,
    MobileNetTrunkConfig,
    StageConfig,
    freeze,
)

# A made-up picture 64×96 and the LiteRT interpreter's tensors for it (run with experimental_preserve_all_tensors and
# BUILTIN_WITHOUT_DEFAULT_DELEGATES on the file that tools/extract_movenet_trunk.py reads), under our names, C×H×W.
BFLOAT16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
REFERENCE = Path(__file__).parents[1] / "data" / "movenet_reference.npz"
SMALL = MobileNetTrunkConfig(
    stem_channels=8,
    stages=(StageConfig(8, 1, 1, 1), StageConfig(8, 2, 2), StageConfig(12, 1, 2), StageConfig(16, 1, 2))
    + (StageConfig(16, 1, 1), StageConfig(24, 2, 2)),
    last_channels=32,
    neck_channels=(8, 8, 12, 8),
    head_channels=16,
)


@pytest.fixture
def small() -> MobileNetTrunk:
    torch.manual_seed(0)
    trunk = MobileNetTrunk(SMALL).eval()
    for name, parameter in trunk.named_parameters():  # livelier than the default, so that wrong padding shows
        torch.nn.init.normal_(parameter, std=0.3 if name.endswith("bias") else 1.4 / parameter[0].numel() ** 0.5)
    return trunk


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_equals_the_published_graph():
    reference = np.load(REFERENCE)
    trunk = MobileNetTrunk().eval()
    trunk.load_state_dict(read_movenet_state())
    with torch.no_grad():
        maps = trunk(torch.from_numpy(reference["image"]).permute(2, 0, 1)[None] / 255.0)
    for name in MobileNetMaps._fields:
        expected = reference[name]
        assert np.abs(getattr(maps, name)[0].numpy() - expected).max() < 1e-4 * np.abs(expected).max(), name


@pytest.mark.parametrize("kernel, stride", [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("learning", [False, True])
def test_pads_as_tensorflow_does(kernel: int, stride: int, learning: bool):
    unit = ConvUnit(4, 4, kernel, stride, groups=4).requires_grad_(learning)
    height, width = 8, 12
    x = torch.randn(1, 4, height, width)
    total = max(kernel - stride, 0)  # TensorFlow's rule where the size is a multiple of the stride
    padded = np.pad(x[0].numpy(), ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2)))
    expected = np.zeros((4, height // stride, width // stride), np.float32)
    weight, bias = unit.conv.weight.detach().numpy(), unit.conv.bias.detach().numpy()
    for i in range(height // stride):
        for j in range(width // stride):
            window = padded[:, i * stride : i * stride + kernel, j * stride : j * stride + kernel]
            expected[:, i, j] = (window * weight[:, 0]).sum((1, 2)) + bias
    assert np.allclose(unit(x)[0].detach().numpy(), expected.clip(0, 6), atol=1e-5)


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 0), (3, 2, 1)])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_depthwise_gradients(kernel: int, stride: int, padding: int, dtype: torch.dtype, tolerance: float):
    generator = torch.Generator().manual_seed(4)
    height, width = (12, 10) if stride == 1 or padding else (12 + kernel - 2, 10 + kernel - 2)
    shapes = (3, 8, height, width), (8, 1, kernel, kernel), (8,)
    inputs = [torch.randn(shape, generator=generator) for shape in shapes]
    exact = [value.clone().requires_grad_() for value in inputs]
    ours = [value.clone().to(dtype).requires_grad_() for value in inputs]
    expected = F.conv2d(*exact, stride, padding, groups=8)
    weights = torch.randn(expected.shape, generator=generator)
    (expected * weights).sum().backward()
    result = depthwise_conv2d(*ours, stride, padding)
    (result * weights.to(dtype)).sum().backward()
    assert (result.float() - expected).norm() < tolerance * expected.norm()
    for one, other in zip(ours, exact, strict=True):
        assert (one.grad.float() - other.grad).norm() < tolerance * other.grad.norm()


def test_maps_have_their_strides(small: MobileNetTrunk, images: torch.Tensor):
    maps = small(images)
    for name, stride in {"stride4": 4, "stride8": 8, "stride16": 16, "stride32": 32, "neck16": 16, "neck8": 8}.items():
        assert getattr(maps, name).shape[2:] == (64 // stride, 96 // stride), name
    assert maps.keypoint_heatmaps.shape == (2, len(COCO_BODY_17), 16, 24)
    assert maps.keypoint_offsets.shape == maps.keypoint_regression.shape == (2, 34, 16, 24)


@pytest.mark.parametrize(
    "half", [False, pytest.param(True, marks=pytest.mark.skipif(not BFLOAT16, reason="no bfloat16 in this processor"))]
)
def test_where_nothing_is_learnt_only_the_speed_differs(small: MobileNetTrunk, images: torch.Tensor, half: bool):
    expected = small(images)
    assert expected.keypoint_heatmaps.requires_grad
    freeze(small)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = small(images)
    for name, ours, theirs in zip(MobileNetMaps._fields, found, expected, strict=True):
        assert ours.dtype == (torch.bfloat16 if half else torch.float32) and not ours.requires_grad
        assert (ours.float() - theirs).norm() < (0.05 if half else 1e-5) * theirs.norm(), name


def test_only_the_tuned_copy_of_the_last_stages_learns(images: torch.Tensor):
    torch.manual_seed(0)
    trunk = MobileNetTrunk(SMALL, tuned_stages=2)
    freeze(trunk)
    before = trunk(images)
    assert before.stride32.requires_grad and before.stride16.requires_grad
    assert not before.stride8.requires_grad and not before.keypoint_heatmaps.requires_grad
    (before.stride32.square().mean() + before.stride16.square().mean()).backward()
    learning = {name for name, parameter in trunk.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in trunk.named_parameters() if name.startswith("tuned.")}
    with torch.no_grad():
        for parameter in trunk.tuned.parameters():
            parameter += 0.1
    after = trunk(images)
    assert not torch.allclose(after.stride32, before.stride32)
    torch.testing.assert_close(after.keypoint_heatmaps, before.keypoint_heatmaps)  # the evidence stays as it was
    with pytest.raises(BadInput, match="tuned_stages is 6; the trunk has 6 stages"):
        MobileNetTrunk(SMALL, tuned_stages=6)


def test_tuned_stages_start_as_what_they_are_tuned_from(images: torch.Tensor):
    plain, tuned = MobileNetTrunk().eval(), MobileNetTrunk(tuned_stages=3).eval()
    load_movenet(plain)
    load_movenet(tuned)
    with torch.no_grad():
        for one, other in zip(tuned(images), plain(images), strict=True):
            torch.testing.assert_close(one, other)


def test_evidence_leaves_out_what_says_how_large_people_are(small: MobileNetTrunk, images: torch.Tensor):
    with torch.no_grad():
        evidence, maps = small.evidence(images), small(images)
    for name in MobileNetMaps._fields:
        if name.startswith("box_"):
            assert getattr(evidence, name).shape[1] == 0
        else:
            torch.testing.assert_close(getattr(evidence, name), getattr(maps, name), rtol=0, atol=0)


def _published_names() -> dict[str, tuple[str, str]]:
    """Our unit -> published convolution and norm, counted out here by hand."""
    names = {"stem": ("_conv_stem", "_bn0")}
    units = ["0.0", "1.0", "1.1", "2.0", "2.1", "3.0", "3.1", "3.2", "4.0", "4.1", "4.2"]
    for number, unit in enumerate(units):
        block = f"_blocks.{number}."
        if number:
            names[f"stages.{unit}.expand"] = (block + "_expand_conv", block + "_bn0")
        names[f"stages.{unit}.depthwise"] = (block + "_depthwise_conv", block + "_bn1")
        names[f"stages.{unit}.project"] = (block + "_project_conv", block + "_bn2")
    return names


def test_exports(small: MobileNetTrunk, images: torch.Tensor):
    program = torch.export.export(small, (images,))
    for ours, theirs in zip(program.module()(images), small(images), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_refuses_another_file(tmp_path: Path):
    (tmp_path / "other.tflite").write_bytes(b"TFL3")
    with pytest.raises(BadInput, match="SHA-256"):
        read_movenet_state(tmp_path / "other.tflite")


def test_refuses_other_sizes(small: MobileNetTrunk):
    with pytest.raises(BadInput, match="multiples of 32"):
        small(torch.zeros(1, 3, 60, 64))


def test_input_is_left_alone(small: MobileNetTrunk, images: torch.Tensor):
    before = images.clone()
    small(images)
    assert torch.equal(images, before)
