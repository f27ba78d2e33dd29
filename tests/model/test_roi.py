"""Sampling by matrix products against the same thing written as loops, and against the published arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wholebody.model.embedded.context import CropContext
from wholebody.model.encoder import EncoderOutput
from wholebody.model.heads import soft_argmax, square_boxes
from wholebody.model.roi import (
    Deconvolution,
    DeconvolutionPyramid,
    DeconvolutionPyramidConfig,
    FocusedRoIFeatures,
    RoIFeatures,
    roi_align,
    sample_points,
)


def bilinear(features, y, x):
    """C×H×W at one point, clamped to the map."""
    height, width = features.shape[-2:]
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    fy, fx = y - top, x - left
    rows = features[:, top] * (1 - fy) + features[:, top + 1] * fy
    return rows[:, left] * (1 - fx) + rows[:, left + 1] * fx


def roi_align_by_loops(features, box, bins):
    """The definition: every bin is the mean over its samples; those off the map by more than a cell count as zero."""
    channels, height, width = features.shape
    x0, y0, x1, y1 = box
    bin_h, bin_w = max(y1 - y0, 1) / bins, max(x1 - x0, 1) / bins
    count_h, count_w = math.ceil(bin_h), math.ceil(bin_w)
    crop = torch.zeros(channels, bins, bins, dtype=features.dtype)
    for i in range(bins):
        for j in range(bins):
            for k in range(count_h):
                for m in range(count_w):
                    y = y0 + (i + (k + 0.5) / count_h) * bin_h
                    x = x0 + (j + (m + 0.5) / count_w) * bin_w
                    if -1 <= y <= height and -1 <= x <= width:
                        crop[:, i, j] += bilinear(features, y, x) / (count_h * count_w)
    return crop


@pytest.mark.parametrize(
    "box",
    [
        (1.2, 2.3, 9.7, 10.1),
        (-4.0, -3.0, 6.5, 30.0),  # over three edges
        (3.3, 4.4, 3.6, 4.5),  # smaller than a cell
        (20.0, 20.0, 25.0, 25.0),  # outside
        (5.0, 5.0, 2.0, 1.0),  # inverted
        (0.0, 0.0, 11.0, 13.0),
    ],
)
def test_roi_align_equals_the_loops(box):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 13, 11, dtype=torch.float64)
    boxes = torch.tensor([[box, (1, 1, 5, 6)], [(2, 0, 4, 9), box]], dtype=torch.float64)
    crops = roi_align(features, boxes, 4)
    for person in range(2):
        for k in range(2):
            expected = roi_align_by_loops(features[person], boxes[person, k].tolist(), 4)
            torch.testing.assert_close(crops[person, k], expected)


def test_mirrored_crop_is_the_crop_mirrored():
    features, boxes = torch.randn(1, 3, 13, 11), torch.tensor([[[1.0, 2.0, 8.0, 9.5]] * 2])
    crops = roi_align(features, boxes, 4, torch.tensor([True, False]))
    torch.testing.assert_close(crops[:, 0].flip(-1), crops[:, 1])


def test_points_equal_grid_sampling():
    features, points = torch.randn(2, 5, 7, 9), torch.rand(2, 11, 2) * 14 - 3
    grid = points / torch.tensor([8.0, 6.0]) * 2 - 1
    expected = F.grid_sample(features, grid[:, :, None], align_corners=True)[..., 0].transpose(1, 2)
    torch.testing.assert_close(sample_points(features, points), expected, atol=1e-5, rtol=1e-5)


def test_points_and_means_equal_the_published_arrays(oracle):
    arrays = {name: torch.from_numpy(value) for name, value in oracle("transforms").items() if value.dtype.kind == "f"}
    ours = sample_points(arrays["in/feat"], arrays["in/xy"])
    torch.testing.assert_close(ours, arrays["out/sample_joint_features"], atol=1e-5, rtol=1e-5)
    for scores, means in (("in/hm2d", "out/soft_argmax_2d"), ("in/hm3d", "out/soft_argmax_3d")):
        volumes = arrays[scores].flatten(2).softmax(2).view(arrays[scores].shape)
        torch.testing.assert_close(soft_argmax(volumes), arrays[means], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [2.0, 1.5])
def test_boxes_equal_the_published_arrays(oracle, scale):
    arrays = oracle("transforms")
    centers, sizes = torch.from_numpy(arrays["in/bbox_center"]), torch.from_numpy(arrays["in/bbox_size"])
    ours = square_boxes(centers, sizes, torch.full((len(centers),), scale), 16)  # in the 192×256 picture
    np.testing.assert_allclose(ours.numpy(), arrays[f"out/restore_bbox/1.0_{scale}"], atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("hw", [(5, 4), (16, 12), (32, 24)])
def test_deconvolution_is_the_transposed_convolution(hw):
    torch.manual_seed(0)
    layer = Deconvolution(6, 4).double()
    x = torch.randn(2, 6, *hw, dtype=torch.float64)
    expected = torch.relu(layer[1].eval()(layer[0](x)))
    torch.testing.assert_close(layer.eval()(x), expected)


@pytest.mark.parametrize("kind", ["inside", "edges", "outside", "tiny", "large"])
def test_features_only_around_boxes_are_the_same_features(kind):
    torch.manual_seed(1)
    low = {"inside": 0.3, "edges": -0.1, "outside": 1.2, "tiny": 0.4, "large": -2.0}[kind]
    size = {"tiny": 0.001, "large": 5.0, "edges": 0.4}.get(kind, 0.3)
    pyramid = DeconvolutionPyramid(DeconvolutionPyramidConfig(), 16)
    for module in pyramid.modules():
        if isinstance(module, torch.nn.ConvTranspose2d | torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight)
    features = FocusedRoIFeatures(pyramid, (32, 16, 8), (True, False)).double().eval()
    corner = low + 0.1 * torch.rand(3, 2, 2, dtype=torch.float64)
    boxes = torch.cat((corner, corner + size), 2)
    boxes[0, 1] = 1 - boxes[0, 1].flip(0)  # other edges
    encoded = EncoderOutput(torch.empty(0), torch.randn(3, 16, 16, 12, dtype=torch.float64))
    everywhere = RoIFeatures(pyramid, (32, 16, 8), (True, False)).eval()(encoded, boxes)
    with torch.no_grad():
        around = features(encoded, boxes)
    for ours, expected in zip(around, everywhere, strict=True):
        torch.testing.assert_close(ours, expected.detach())
        assert not ours.requires_grad


def test_crops_carry_gradients():
    pyramid = DeconvolutionPyramid(DeconvolutionPyramidConfig((2, 1)), 4)
    features = RoIFeatures(pyramid, (4, 2), (False,)).double()
    for p in features.parameters():
        torch.nn.init.normal_(p, std=0.5)
    boxes = torch.tensor([[[0.1, 0.2, 0.7, 0.9]]] * 2, dtype=torch.float64)

    def run(x):
        return features.eval()(EncoderOutput(torch.empty(0), x), boxes)[1]

    assert torch.autograd.gradcheck(run, torch.randn(2, 4, 4, 3, dtype=torch.float64, requires_grad=True))


class Maps(torch.nn.Module):
    """A pyramid that gives the maps it is built with."""

    def __init__(self, *maps):
        super().__init__()
        self.maps, self.channels = maps, tuple(m.shape[1] for m in maps)

    def forward(self, encoded):
        return self.maps


def test_aligned_crops_see_a_place_where_it_is_mirrored_or_not():
    """On maps whose cells say where their middles are, cells of a crop say where theirs are, at every stride alike."""
    maps = []
    for columns, rows in ((24, 32), (12, 16)):
        x = (torch.arange(columns) + 0.5) / columns
        y = (torch.arange(rows) + 0.5) / rows
        maps.append(torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)])[None])
    box = torch.tensor([[[0.3, 0.25, 0.7, 0.75]] * 2])
    features = RoIFeatures(Maps(*maps), (8, 4), (True, False), middle=0.5)
    for crop in features(None, box):
        middles = (torch.arange(crop.shape[-1]) + 0.5) / crop.shape[-1]
        x, y = 0.3 + 0.4 * middles, 0.25 + 0.5 * middles
        torch.testing.assert_close(crop[1], torch.stack(torch.meshgrid(x, y, indexing="xy")))
        torch.testing.assert_close(crop[0].flip(-1), crop[1])


def test_a_cell_of_the_finest_crop_learns_of_its_surroundings_and_of_coarser_crops():
    torch.manual_seed(0)
    context = CropContext((16, 16, 8))
    crops = [torch.randn(1, c, s, s, requires_grad=True) for c, s in ((16, 16), (16, 8), (8, 4))]
    context(crops)[0, :, 8, 8].sum().backward()
    seen = [crop.grad.abs().sum((0, 1)) > 0 for crop in crops]
    assert seen[0][5:12, 5:12].all() and all(level.any() for level in seen)
    assert context([crop.detach() for crop in crops]).shape == (1, 16, 16, 16)
