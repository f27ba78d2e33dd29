"""Convolutional trunk of the small network: what the embedded size `t` sees a person crop with.

`MobileNetTrunk` has the layers of MoveNet MultiPose Lightning (Google, Apache-2.0): a MobileNetV2 of width 1.5, a
feature pyramid down to stride 4 and one small head per kind of map; it was trained on real photos. With another config
it is MoveNet SinglePose Thunder (`wholebody.model.embedded.thunder`).
It takes RGB in [0, 1] and brings its own normalisation. Weights come from
`wholebody.model.embedded.movenet.read_movenet_state`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholebody.errors import BadInput
from wholebody.model.embedded.conv import Activation, can_be_fast, fast_conv2d
from wholebody.model.embedded.depthwise import depthwise_conv2d
from wholebody.model.recording import is_recorded


@dataclass(frozen=True)
class StageConfig:
    """A run of inverted residual blocks; the first one carries the stride and the change of width."""

    channels: int
    blocks: int
    stride: int
    expansion: int = 6
    kernel: int = 3


@dataclass(frozen=True)
class MobileNetTrunkConfig:
    """Defaults: the published MoveNet MultiPose Lightning. BatchNorm is folded into the convolutions there."""

    stem_channels: int = 48
    stages: tuple[StageConfig, ...] = (
        StageConfig(24, 1, 1, expansion=1),
        StageConfig(40, 2, 2),
        StageConfig(48, 3, 2),
        StageConfig(96, 4, 2),
        StageConfig(144, 3, 1),
        StageConfig(240, 3, 2),
        StageConfig(480, 1, 1),
    )
    last_channels: int = 1280
    neck_inputs: tuple[int, int, int] = (1, 2, 3)  # stages whose outputs the pyramid takes in, at strides 4, 8, 16
    neck_channels: tuple[int, int, int, int] = (24, 32, 64, 24)  # merged at strides 4, 8, 16; the output
    head_channels: int = 96
    keypoints: int = 17
    heads: tuple[str, ...] = (
        "keypoint_heatmaps", "keypoint_offsets", "keypoint_regression", "center", "box_offset", "box_scale",
    )  # fmt: skip
    """The kinds of maps that it gives, of those in `MobileNetMaps`; the others are empty."""


class MobileNetMaps(NamedTuple):
    """What `MobileNetTrunk` returns for images B×3×H×W; hs = H / s, ws = W / s.

    The head maps are raw: `keypoint_heatmaps.sigmoid()` and `center.sigmoid()` are the scores. Pairs are (y, x), in
    stride-4 cells. A key point found in cell (i, j) lies at pixel `4 * ((j, i) + offset)` with pixel 0 covering [0, 1].
    """

    stride4: Tensor  # B×40×h4×w4
    stride8: Tensor  # B×48×h8×w8
    stride16: Tensor  # B×144×h16×w16
    stride32: Tensor  # B×480×h32×w32
    neck16: Tensor  # B×32×h16×w16, knows stride 32
    neck8: Tensor  # B×24×h8×w8
    neck4: Tensor  # B×24×h4×w4, what the heads read
    keypoint_heatmaps: Tensor  # B×17×h4×w4 logits, `COCO_BODY_17`
    keypoint_offsets: Tensor  # B×34×h4×w4, channel 2k, 2k+1: from the cell to key point k inside it
    keypoint_regression: Tensor  # B×34×h4×w4, channel 2k, 2k+1: from a person's centre cell to key point k
    center: Tensor  # B×1×h4×w4 logits of "a person's centre is here"
    box_offset: Tensor  # B×2×h4×w4, from the centre cell to the box's centre
    box_scale: Tensor  # B×2×h4×w4, height and width of the box


class ConvUnit(nn.Module):
    """Convolution with BatchNorm folded into it, activation; pads as TensorFlow's SAME does for even sizes.

    Frozen, on a CPU, it is fast: see `wholebody.model.embedded.conv`.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1,
        activation: Activation = "relu6", bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        # At stride 2 SAME pads one row and column more on the right and bottom; Conv2d itself can only pad evenly.
        self.padding_before = (kernel - stride) // 2
        self.padding_after = kernel - stride - self.padding_before
        even = self.padding_before if stride == 1 else 0
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, even, groups=groups, bias=bias)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        strided = self.conv.stride[0] == 2
        if can_be_fast(self.conv, x):
            # A zero row and column in front of the kernel make the padding even: no copy of the input.
            lead = int(strided)
            return fast_conv2d(self.conv, x, self.activation, self.padding_before + lead, lead)
        if strided:
            x = F.pad(x, (self.padding_before, self.padding_after) * 2)
        conv = self.conv
        learns = torch.is_grad_enabled() and conv.weight.requires_grad and not is_recorded()
        if learns and conv.groups > 1 and x.device.type == "cpu":
            x = depthwise_conv2d(x, conv.weight, conv.bias, int(conv.stride[0]), int(conv.padding[0]))
        else:
            x = conv(x)
        if self.activation == "relu6":
            return F.relu6(x, inplace=True)
        return F.relu(x, inplace=True) if self.activation == "relu" else x


class InvertedResidual(nn.Module):
    """Widen by 1×1, filter each channel alone, narrow by 1×1, not activated; added to the input if shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int, kernel: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = ConvUnit(channels_in, wide) if expansion != 1 else None
        self.depthwise = ConvUnit(wide, wide, kernel, stride, groups=wide)
        self.project = ConvUnit(wide, channels_out, activation="none")
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else self.expand(x)
        narrow = self.project(self.depthwise(wide))
        return x + narrow if self.residual else narrow


class Separable(nn.Sequential):
    """3×3 depthwise, 1×1, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.depthwise = ConvUnit(channels_in, channels_in, 3, groups=channels_in, activation="none", bias=False)
        self.pointwise = ConvUnit(channels_in, channels_out, activation="relu")


class MapHead(nn.Sequential):
    """From the pyramid's stride-4 map to one kind of map."""

    def __init__(self, channels_in: int, hidden: int, channels_out: int) -> None:
        super().__init__()
        self.separable = Separable(channels_in, hidden)
        self.out = ConvUnit(hidden, channels_out, activation="none")


class Pyramid(nn.Module):
    """Brings what stride 32 knows down to stride 4: project, double the size, add, smooth, and again."""

    def __init__(self, inputs: tuple[int, int, int, int], channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        at4, at8, at16, out = channels
        self.lateral4 = ConvUnit(inputs[0], at4, activation="none")
        self.lateral8 = ConvUnit(inputs[1], at8, activation="none")
        self.lateral16 = ConvUnit(inputs[2], at16, activation="none")
        self.lateral32 = ConvUnit(inputs[3], at16, activation="none")
        self.smooth16 = Separable(at16, at8)
        self.smooth8 = Separable(at8, at4)
        self.smooth4 = Separable(at4, out)

    def forward(self, x4: Tensor, x8: Tensor, x16: Tensor, x32: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at strides 4, 8, 16."""
        neck16 = self.smooth16(_doubled(self.lateral32(x32)) + self.lateral16(x16))
        neck8 = self.smooth8(_doubled(neck16) + self.lateral8(x8))
        neck4 = self.smooth4(_doubled(neck8) + self.lateral4(x4))
        return neck4, neck8, neck16


class MobileNetTrunk(nn.Module):
    """MoveNet without its decoding of people: RGB crops in [0, 1] to features and key-point evidence.

    Its last `tuned_stages` stages are there twice: as published for the evidence, which real photos taught, and in a
    second copy that learns, for the features at strides 16 and 32.
    """

    image_mean: Tensor
    image_scale: Tensor

    def __init__(self, config: MobileNetTrunkConfig | None = None, tuned_stages: int = 0) -> None:
        super().__init__()
        self.config = config = config or MobileNetTrunkConfig()
        if not 0 <= tuned_stages < len(config.stages):
            raise BadInput(f"tuned_stages is {tuned_stages}; the trunk has {len(config.stages)} stages")
        self.register_buffer("image_mean", torch.zeros(1, 3, 1, 1), persistent=True)  # filled from the weights
        self.register_buffer("image_scale", torch.ones(1, 1, 1, 1), persistent=True)
        self.stem = ConvUnit(3, config.stem_channels, 3, 2)
        self.stages = _build_stages(config.stem_channels, config.stages)
        self.tuned = deepcopy(self.stages[len(self.stages) - tuned_stages :])
        self.last = ConvUnit(config.stages[-1].channels, config.last_channels)
        at4, at8, at16 = (config.stages[index].channels for index in config.neck_inputs)
        self.neck = Pyramid((at4, at8, at16, config.last_channels), config.neck_channels)
        channels = {
            "keypoint_heatmaps": config.keypoints,
            "keypoint_offsets": 2 * config.keypoints,
            "keypoint_regression": 2 * config.keypoints,
            "center": 1,
            "box_offset": 2,
            "box_scale": 2,
        }
        self.heads = nn.ModuleDict(
            {name: MapHead(config.neck_channels[-1], config.head_channels, channels[name]) for name in config.heads}
        )

    def forward(self, images: Tensor) -> MobileNetMaps:
        """images B×3×H×W, RGB in [0, 1], H and W multiples of 32."""
        return self._maps(images, tuple(self.heads))

    def evidence(self, images: Tensor) -> MobileNetMaps:
        """As `forward`, without the maps that say how large people are (empty ones in their place)."""
        return self._maps(images, ("keypoint_heatmaps", "keypoint_offsets", "keypoint_regression", "center"))

    def _maps(self, images: Tensor, heads: Sequence[str]) -> MobileNetMaps:
        _check_images(images, 32)
        x = self.stem((images - self.image_mean).mul_(self.image_scale))
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        neck_inputs = (outputs[index] for index in self.config.neck_inputs)
        neck4, neck8, neck16 = self.neck(*neck_inputs, self.last(x))
        first = len(outputs) - len(self.tuned)
        for index, stage in enumerate(self.tuned, first):
            outputs[index] = stage(outputs[index - 1])
        features = _deepest_by_stride(self.config.stages, outputs)
        wanted = set(heads) & set(self.heads)
        head_maps = [self.heads[name](neck4) if name in wanted else neck4[:, :0] for name in MobileNetMaps._fields[7:]]
        return MobileNetMaps._make([*features, neck16, neck8, neck4, *head_maps])


def freeze(trunk: MobileNetTrunk) -> None:
    """Stop gradients everywhere but in the trunk's tuned stages."""
    trunk.requires_grad_(False)
    trunk.tuned.requires_grad_(True)


def load_published(trunk: MobileNetTrunk, state: Mapping[str, Tensor]) -> None:
    """Give a trunk its published weights; its tuned stages start as copies of the frozen ones."""
    state = dict(state)
    first = len(trunk.stages) - len(trunk.tuned)
    for number in range(len(trunk.tuned)):
        frozen, tuned = f"stages.{first + number}.", f"tuned.{number}."
        state |= {name.replace(frozen, tuned): value for name, value in state.items() if name.startswith(frozen)}
    trunk.load_state_dict(state)


def _build_stages(channels: int, stages: tuple[StageConfig, ...]) -> nn.ModuleList:
    built = nn.ModuleList()
    for stage in stages:
        blocks = nn.Sequential()
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            blocks.append(InvertedResidual(channels, stage.channels, stride, stage.expansion, stage.kernel))
            channels = stage.channels
        built.append(blocks)
    return built


def _deepest_by_stride(stages: tuple[StageConfig, ...], outputs: list[Tensor]) -> list[Tensor]:
    """The last map of each stride from 4 on."""
    ends = [index for index, following in enumerate(stages[1:]) if following.stride == 2] + [len(stages) - 1]
    return [outputs[index] for index in ends[1:]]


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _check_images(images: Tensor, multiple: int) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % multiple or images.shape[3] % multiple:
        raise BadInput(
            f"images have shape {tuple(images.shape)}; give B×3×H×W with H and W multiples of {multiple}, RGB in [0, 1]"
        )
