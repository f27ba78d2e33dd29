"""The encoder of size `t`: a convolutional trunk that has seen real people, then a few transformer blocks.

The blocks are where it meets OSX: component tokens (shape, camera, expression, jaw, hands, 25 joints) attend to the
patches and to each other. What the trunk says at strides 8 and 4 is passed on for the hands and the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholebody.errors import BadInput
from wholebody.model.embedded.conv import Conv2d
from wholebody.model.embedded.trunk import MobileNetMaps, MobileNetTrunk, MobileNetTrunkConfig, freeze
from wholebody.model.encoder import COMPONENT_TOKENS, Attention, Block, EncoderOutput


@dataclass(frozen=True)
class HybridEncoderConfig:
    """A trunk and `depth` blocks of `width` over the component tokens and the patches of `input_hw` / 16."""

    width: int = 256
    depth: int = 6
    heads: int = 8
    mlp_ratio: int = 3
    drop_path: float = 0.0
    finer_width: int = 96
    """Channels of the maps at strides 4 and 8, which hands and face are read from."""
    input_hw: tuple[int, int] = (256, 192)
    tuned_stages: int = 0
    """How many of the trunk's last stages are there twice, one of them learning: see `MobileNetTrunk`."""


class HybridEncoder(nn.Module):
    """images B×3×H×W, RGB in [0, 1] → component tokens B×31×C, map B×C×16×12, maps at strides 4 and 8.

    Pictures of twice `input_hw` are averaged down by 2×2 first, so that the network is called like the published ones.
    """

    made_for_fp32 = True
    """On a CPU its convolutions go to oneDNN by themselves, laid out for single precision. Compiled it is a quarter
    slower (measured), and in bf16, which those kernels are not for, bodies on photos are 1.4 mm off."""

    def __init__(self, config: HybridEncoderConfig, trunk: MobileNetTrunk | None = None):
        super().__init__()
        self.config = config
        self.trunk = trunk if trunk is not None else MobileNetTrunk(MobileNetTrunkConfig(), config.tuned_stages)
        freeze(self.trunk)
        c, f, stages, neck = config.width, config.finer_width, self.trunk.config.stages, self.trunk.config.neck_channels
        points = self.trunk.config.keypoints
        height, width = config.input_hw[0] // 16, config.input_hw[1] // 16
        # The maps that say where key points are go in apart from the features, whose numbers would drown theirs.
        self.patch = nn.Sequential(
            Conv2d(stages[4].channels + neck[1] + stages[-1].channels, c, 1), nn.GroupNorm(16, c)
        )
        self.evidence = Conv2d(2 * 16 * points, c, 1)
        self.keypoint = nn.Linear(6, c)
        self.keypoint_names = _small(1, points, c)
        self.finer8 = nn.Sequential(Conv2d(stages[2].channels + neck[0], f, 1), nn.GroupNorm(16, f))
        self.finer4 = Conv2d(stages[1].channels + neck[3] + points, f, 1)
        self.position = _small(1, height * width // 4, c)
        self.tokens = _small(1, COMPONENT_TOKENS, c)
        self.spread = nn.Linear(c, c)
        self.blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        self.norm = nn.LayerNorm(c, eps=1e-6)

    def _block(self) -> Block:
        config = self.config
        block = Block(config.width, config.heads, config.mlp_ratio, config.drop_path)
        block.attention = ProductAttention(config.width, config.heads)
        return block

    @property
    def reads_hw(self) -> tuple[int, int]:
        """Of pictures that need not be averaged first."""
        return self.config.input_hw

    def forward(self, images: Tensor) -> EncoderOutput:
        """images: B×3×H×W with H×W either `input_hw` or twice that."""
        height, width = self.config.input_hw
        if images.shape[-2:] == (2 * height, 2 * width):
            images = F.avg_pool2d(images, 2)
        elif images.shape[-2:] != (height, width):
            raise BadInput(
                f"pictures of {tuple(images.shape[-2:])} pixels; this network takes {(2 * height, 2 * width)}"
                f" or {(height, width)} (height, width)"
            )
        maps = self.trunk.evidence(images.contiguous(memory_format=torch.channels_last))
        anybody = maps.keypoint_heatmaps.sigmoid()
        persons, regressed = person_in_the_middle(maps)
        evidence = anybody * persons.to(anybody.dtype)
        found = keypoints(evidence, maps.keypoint_offsets, regressed)
        deepest = F.interpolate(maps.stride32, scale_factor=2.0, mode="bilinear", align_corners=False)
        features = self.patch(torch.cat([maps.stride16, maps.neck16, deepest], dim=1))
        places = self.evidence(torch.cat([F.pixel_unshuffle(x, 4) for x in (anybody, evidence)], dim=1))
        near = features + places
        # Attention over every second row and column: a quarter of the patches, a fifth of the cost.
        patches = F.avg_pool2d(near, 2)
        rows, columns = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2) + self.position
        components = self.tokens.expand(images.shape[0], -1, -1)
        points = self.keypoint(found.to(self.keypoint.weight.dtype)) + self.keypoint_names
        x = self._attend(torch.cat([part.to(patches.dtype) for part in (components, patches, points)], dim=1))
        tokens, patches = x[:, :COMPONENT_TOKENS], x[:, COMPONENT_TOKENS : COMPONENT_TOKENS + patches.shape[1]]
        far = self.spread(patches).transpose(1, 2).unflatten(2, (rows, columns))
        feature_map = near + F.interpolate(far, scale_factor=2.0, mode="bilinear", align_corners=False)
        finer8 = self.finer8(torch.cat([maps.stride8, maps.neck8], dim=1))
        finer4 = self.finer4(torch.cat([maps.stride4, maps.neck4, evidence], dim=1))
        return EncoderOutput(tokens, feature_map, (finer4, finer8))

    def _attend(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


def _small(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.02))


def person_in_the_middle(maps: MobileNetMaps) -> tuple[Tensor, Tensor]:
    """Where the key points of the person in the middle are to be expected: weights B×17×h×w, and points B×17×2 (x, y).

    The trunk finds key points of everybody. Its regression from the person's centre says roughly whose they are: around
    each regressed point (in cells) the weight falls off as a Gaussian of a tenth of the map's height.
    """
    rows, columns = maps.center.shape[-2:]
    y = torch.arange(rows, device=maps.center.device, dtype=torch.float32)
    x = torch.arange(columns, device=maps.center.device, dtype=torch.float32)
    from_middle = ((y - rows / 2) / (0.2 * rows)).square()[:, None] + ((x - columns / 2) / (0.25 * columns)).square()
    best = (maps.center[:, 0].float().sigmoid() * (-from_middle / 2).exp()).flatten(1).argmax(1)
    offsets = maps.keypoint_regression.float().flatten(2)
    offsets = offsets.gather(2, best[:, None, None].expand(-1, offsets.shape[1], 1)).unflatten(1, (-1, 2))[..., 0]
    point_y = (best // columns)[:, None] + offsets[..., 0]
    point_x = (best % columns)[:, None] + offsets[..., 1]
    width = 2 * (0.1 * rows) ** 2
    along_y = (-(y - point_y[..., None]).square() / width).exp()
    along_x = (-(x - point_x[..., None]).square() / width).exp()
    return along_y[..., :, None] * along_x[..., None, :], torch.stack([point_x, point_y], -1)


def keypoints(evidence: Tensor, offsets: Tensor, regressed: Tensor) -> Tensor:
    """Key points B×17×6 from scores B×17×h×w, offsets in cells B×34×h×w (y, x) and regressed points B×17×2 (x, y).

    x and y of the best cell, its score and the score's root, x and y as regressed; places from -1 to 1 across the crop.
    """
    rows, columns = evidence.shape[-2:]
    score, best = evidence.float().flatten(2).max(2)
    where = offsets.float().unflatten(1, (-1, 2)).flatten(3).gather(3, best[:, :, None, None].expand(-1, -1, 2, 1))
    point = torch.stack([best % columns + where[:, :, 1, 0], best // columns + where[:, :, 0, 0]], -1)
    half = evidence.new_tensor([columns / 2, rows / 2], dtype=torch.float32)
    places = [(p / half - 1).clamp(-2, 2) for p in (point, regressed)]
    found = torch.cat([places[0], score[..., None], score.sqrt()[..., None], places[1]], -1)
    return found.to(evidence.dtype) if evidence.dtype == torch.float64 else found


class ProductAttention(Attention):
    """Attention as matrix products: at 223 tokens the fused kernel's backward pass is slower on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attention = ((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)).softmax(-1).to(value.dtype)
        return self.proj((attention @ value).transpose(1, 2).flatten(2))


class FinerPyramid(nn.Module):
    """The pyramid of a hybrid encoder: its maps at strides 4 and 8 as they are, then the map of the last block."""

    def __init__(self, finer_width: int, encoder_width: int) -> None:
        super().__init__()
        self.channels = (finer_width, finer_width, encoder_width)

    def forward(self, encoded: EncoderOutput) -> tuple[Tensor, ...]:
        return (*encoded.finer, encoded.feature_map)
