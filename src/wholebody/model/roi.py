"""Features of a part: finer maps from the encoder's, and the crop of a box from them.

Bilinear sampling is written as products with "hat" matrices: the weight of cell i for a position p is max(0, 1 − |p −
i|). That is what grid sampling with zero padding computes, it is plain dense algebra (fast on a CPU, exportable,
differentiable), and an average over a regular grid of samples factors into one matrix for rows and one for columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wholebody.model.encoder import EncoderOutput
from wholebody.model.recording import is_recorded

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

MAX_SAMPLES_PER_BIN = 16  # the published count grows with the box without bound; a box this large is eight crops high


def hat(positions: Float[Tensor, "*b"], size: int) -> Float[Tensor, "*b size"]:
    """Linear-interpolation weights of `size` cells (centres at integers) for positions in cells: ... to ...×size."""
    cells = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (positions[..., None] - cells).abs()).clamp(min=0)


def sample_points(
    features: Float[Tensor, "b c h w"], points_cells: Float[Tensor, "b j 2"]
) -> Float[Tensor, "b j c"]:
    """Features B×C×H×W at points B×J×2 (x, y in cells, centres at integers; zero outside): B×J×C."""
    height, width = features.shape[-2:]
    rows, columns = hat(points_cells[..., 1], height), hat(points_cells[..., 0], width)
    weights = (rows[..., :, None] * columns[..., None, :]).flatten(2).to(features.dtype)
    return weights @ features.flatten(2).transpose(1, 2)


def roi_align(
    features: Float[Tensor, "b c h w"],
    boxes_cells: Float[Tensor, "b k 4"],
    side: int,
    mirror: Bool[Tensor, " k"] | None = None,
) -> Float[Tensor, "b k c s s"]:
    """Average-pooled crops of boxes, as RoI-align with `aligned=False` and adaptive sampling.

    features: B×C×H×W. boxes_cells: B×K×4, xyxy in cells of this map (continuous: cell i covers i to i + 1, and is
    sampled at i; half a cell off, as published). mirror: K bools, which crops come out left-right mirrored.
    Returns B×K×C×side×side.
    """
    rows, columns = _roi_weights(boxes_cells, features.shape[-2:], side, mirror)
    rows, columns = rows.to(features.dtype), columns.to(features.dtype)
    return rows[:, :, None] @ (features[:, None] @ columns[:, :, None].transpose(-1, -2))


def _roi_weights(
    boxes_cells: Tensor, map_hw: tuple[int, int] | torch.Size, side: int, mirror: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Matrices that crop by multiplication: rows B×K×side×H and columns B×K×side×W.

    Each holds the weight of every cell in the mean over each of the `side` bins of the box. Both directions are
    computed at once, over as many cells as the longer one has.
    """
    height, width = map_hw
    low, high = boxes_cells.unflatten(-1, (2, 2)).unbind(-2)  # B×K×2, across and down
    cells = low.new_tensor((width, height))[:, None, None]
    bin_size = (high - low).clamp(min=1) / side
    count = bin_size.ceil().clamp(max=MAX_SAMPLES_PER_BIN)[..., None]
    step = torch.arange(MAX_SAMPLES_PER_BIN, dtype=low.dtype, device=low.device)
    in_bin = (step + 0.5) / count  # B×K×2×samples, in bins; those past the count weigh nothing
    index = torch.arange(side, dtype=low.dtype, device=low.device)
    positions = low[..., None, None] + (index[:, None] + in_bin[..., None, :]) * bin_size[..., None, None]
    inside = (positions >= -1) & (positions <= cells) & (step < count)[..., None, :]
    positions = torch.minimum(positions.clamp(min=0), cells - 1)
    weights = (hat(positions, max(map_hw)) * inside[..., None]).sum(-2) / count[..., None]
    columns, rows = weights[:, :, 0, :, :width], weights[:, :, 1, :, :height]
    if mirror is not None:
        columns = torch.where(mirror[:, None, None], columns.flip(2), columns)
    return rows, columns


class Deconvolution(nn.Sequential):
    """Doubles the resolution: transposed convolution, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
        nn.init.normal_(convolution.weight, std=0.001)
        super().__init__(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        # On a CPU, large maps are a third faster with channels last, and small ones as one matrix product (measured).
        height, width = x.shape[-2:]
        if x.device.type != "cpu":
            return super().forward(x)
        if height * width > 256:
            return super().forward(x.contiguous(memory_format=torch.channels_last))
        weight: Tensor = self[0].weight  # type: ignore[assignment]
        spread = weight.flatten(1).transpose(0, 1) @ x.flatten(2)
        upsampled = nn.functional.fold(spread, (2 * height, 2 * width), 4, stride=2, padding=1)
        return self[2](self[1](upsampled))


@dataclass(frozen=True)
class DeconvolutionPyramidConfig:
    """Branches that upsample the encoder's map, each with its own weights; channels halve with every doubling."""

    scales: tuple[int, ...] = (4, 2, 1)  # of each branch against the encoder's map, fine to coarse


class DeconvolutionPyramid(nn.Module):
    """The encoder's output to maps of B×(C/s)×(16·s)×(12·s), one for each scale s, fine to coarse."""

    def __init__(self, config: DeconvolutionPyramidConfig, encoder_width: int) -> None:
        super().__init__()
        self.scales = config.scales
        self.channels = tuple(encoder_width // scale for scale in config.scales)
        self.branches = nn.ModuleList(self._branch(encoder_width, scale) for scale in config.scales)

    @staticmethod
    def _branch(width: int, scale: int) -> nn.Module:
        if scale == 1:
            convolution = nn.Conv2d(width, width, 1)
            nn.init.normal_(convolution.weight, std=0.001)
            return convolution
        doublings = scale.bit_length() - 1
        return nn.Sequential(*(Deconvolution(width >> i, width >> (i + 1)) for i in range(doublings)))

    def forward(self, encoded: EncoderOutput) -> tuple[Tensor, ...]:
        return tuple(branch(encoded.feature_map) for branch in self.branches)


class RoIFeatures(nn.Module):
    """The encoder's output and boxes to crops of a part's pyramid.

    pyramid: a module from the encoder's output to maps, fine to coarse, with their `channels`. crops: the side of the
    crop on each level. expand: the width that a 1×1 convolution brings the crops to (published where there is no
    decoder). mirror: which of the K boxes come out mirrored. middle: where in it cell i is sampled, 0.5 being its
    middle; the published ones are sampled at 0.
    """

    mirror: Tensor

    def __init__(
        self,
        pyramid: nn.Module,
        crops: tuple[int, ...],
        mirror: tuple[bool, ...],
        expand: int | None = None,
        middle: float = 0.0,
    ):
        super().__init__()
        channels = tuple(pyramid.channels)  # type: ignore[arg-type]
        if len(channels) != len(crops):
            raise ValueError(f"{len(crops)} crop sizes for a pyramid of {len(channels)} levels")
        self.pyramid, self.crops, self.middle = pyramid, crops, middle
        self.expand = None
        if expand is not None:
            self.expand = nn.Conv2d(channels[0], expand, 1)
            nn.init.normal_(self.expand.weight, std=0.001)
        self.channels = channels if expand is None else (expand,)
        self.register_buffer("mirror", torch.tensor(mirror, device="cpu"), persistent=False)

    def forward(self, encoded: EncoderOutput, boxes: Tensor) -> list[Tensor]:
        """boxes B×K×4, xyxy as fractions of the picture, to a (B·K)×C×s×s tensor for each level."""
        crops = self._cropped(encoded, boxes)
        return crops if self.expand is None else [self.expand(crop) for crop in crops]

    def _cropped(self, encoded: EncoderOutput, boxes: Tensor) -> list[Tensor]:
        return [
            roi_align(features, self._in_cells(boxes, features.shape[-2:]), side, self.mirror).flatten(0, 1)
            for features, side in zip(self.pyramid(encoded), self.crops, strict=True)
        ]

    def _in_cells(self, boxes: Tensor, map_hw: tuple[int, int] | torch.Size) -> Tensor:
        height, width = map_hw
        cells = boxes * boxes.new_tensor((width, height, width, height))
        return cells - self.middle if self.middle else cells


class FocusedRoIFeatures(RoIFeatures):
    """The same of a `DeconvolutionPyramid`, predicting on a CPU: the pyramid is computed only where crops look."""

    pyramid: DeconvolutionPyramid

    def _cropped(self, encoded: EncoderOutput, boxes: Tensor) -> list[Tensor]:
        if self.training or torch.is_grad_enabled() or is_recorded() or boxes.device.type != "cpu":
            return super()._cropped(encoded, boxes)
        feature_map = encoded.feature_map
        map_hw = feature_map.shape[-2:]
        crops = []
        for branch, scale, side in zip(self.pyramid.branches, self.pyramid.scales, self.crops, strict=True):
            stages = list(branch) if scale > 1 else []  # type: ignore[call-overload]
            boxes_cells = self._in_cells(boxes, (map_hw[0] * scale, map_hw[1] * scale))
            windows = [[_windows(box, map_hw, len(stages)) for box in person] for person in boxes_cells.tolist()]
            looked_at = sum((w[0][1] - w[0][0]) * (w[0][3] - w[0][2]) for person in windows for w in person)
            if looked_at >= len(boxes) * map_hw.numel():
                crops.append(roi_align(branch(feature_map), boxes_cells, side, self.mirror).flatten(0, 1))
                continue
            rows, columns = _roi_weights(boxes_cells, (map_hw[0] * scale, map_hw[1] * scale), side, self.mirror)
            level = []
            for person, of_person in enumerate(windows):
                for k, box_windows in enumerate(of_person):
                    top, bottom, left, right = box_windows[0]
                    features = feature_map[person : person + 1, :, top:bottom, left:right]
                    if not stages:
                        features = branch(features)
                    for stage, before, window in zip(stages, box_windows, box_windows[1:], strict=False):
                        top, bottom, left, right = window
                        y, x = 2 * before[0], 2 * before[2]
                        features = stage(features)[:, :, top - y : bottom - y, left - x : right - x]
                    down, across = rows[person, k, :, top:bottom], columns[person, k, :, left:right]
                    level.append(down.to(features.dtype) @ (features[0] @ across.to(features.dtype).transpose(0, 1)))
            crops.append(torch.stack(level))
        return crops


def _windows(box_cells: list[float], map_hw: torch.Size, doublings: int) -> list[tuple[int, int, int, int]]:
    """(top, bottom, left, right) of what a box's crop depends on: in the encoder's map, then after each doubling.

    box_cells: xyxy in cells of the last map. A sample reads the cells on both its sides; cell o of a doubled map
    depends on the two cells about (o − 1) / 2 of the map before.
    """
    windows = []
    x0, y0, x1, y1 = box_cells
    spans = [(y0, max(y1, y0 + 1)), (x0, max(x1, x0 + 1))]
    needed = [(math.floor(max(low, 0)), math.floor(max(high, 0)) + 1) for low, high in spans]
    for doubling in range(doublings, -1, -1):
        sizes = [size << doubling for size in map_hw]
        needed = [
            (min(max(first, 0), size - 1), min(max(last, 0), size - 1))
            for (first, last), size in zip(needed, sizes, strict=True)
        ]
        windows.append((needed[0][0], needed[0][1] + 1, needed[1][0], needed[1][1] + 1))
        needed = [((first + 1) // 2 - 1, (last + 1) // 2) for first, last in needed]
    return windows[::-1]
