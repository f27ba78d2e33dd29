"""The component-aware image encoder: one token per body component, looked up together with the image patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wholebody.errors import BadInput
from wholebody.model.recording import is_recorded

_ONEDNN_DENSE = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
# Against float64, root mean square of 1,280 and of 5,120 products: oneDNN 1.5 and 1.6 times as far off as MKL; of 768,
# 1.05 times.
_LONGEST_ONEDNN_SUM = 1024

COMPONENT_TOKENS = 31
SHAPE_TOKEN, CAMERA_TOKEN, EXPRESSION_TOKEN, JAW_TOKEN = 0, 1, 2, 3
BODY_TOKENS = slice(6, 31)  # one per predicted body joint; tokens 4 and 5 (hands) are carried but never read


class EncoderOutput(NamedTuple):
    """What every encoder returns.

    tokens: B×31×C, the component tokens (SMPLest-X: B×80×C). feature_map: B×C×16×12. finer: maps of higher resolution,
    fine to coarse, for encoders that have them (a pyramid that is handed in may use them). keypoints: B×17×3 of COCO's,
    fractions of the crop and scores 0..1, where the encoder finds any.
    """

    tokens: Tensor
    feature_map: Tensor
    finer: tuple[Tensor, ...] = ()
    keypoints: Tensor | None = None

    def rows(self, which: slice) -> EncoderOutput:
        """The same of some of the pictures."""
        keypoints = None if self.keypoints is None else self.keypoints[which]
        return EncoderOutput(
            self.tokens[which], self.feature_map[which], tuple(x[which] for x in self.finer), keypoints
        )


@dataclass(frozen=True)
class ViTConfig:
    """A plain vision transformer; the defaults are the published size `b`."""

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: int = 4
    drop_path: float = 0.3  # of the last block; grows linearly from 0
    patch: int = 16
    padding: int = 2
    input_hw: tuple[int, int] = (256, 192)
    grid_hw: tuple[int, int] = (16, 12)
    tokens: int = COMPONENT_TOKENS


class ViT(nn.Module):
    """Pictures, RGB in [0, 1], to component tokens and a feature map.

    Of a B×3×512×384 picture every second pixel is looked at, exactly as published; a B×3×256×192 one is taken to be
    those.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        rows, columns = config.grid_hw
        self.config = config
        self.component_tokens = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.width))
        self.patch_embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch, padding=config.padding)
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.apply(_initialise)
        nn.init.normal_(self.component_tokens, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> EncoderOutput:
        height, width = self.config.input_hw
        if images.shape[-2:] == (2 * height, 2 * width):
            images = images[..., ::2, ::2]
        elif images.shape[-2:] != (height, width):
            raise BadInput(
                f"pictures of {tuple(images.shape[-2:])} pixels (height, width); this network takes "
                f"{(2 * height, 2 * width)} or {(height, width)}"
            )
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        # The row of pos_embed that belonged to the pre-training's class token is added to every patch.
        patches = patches + (self.pos_embed[:, 1:] + self.pos_embed[:, :1])
        x = torch.cat((self.component_tokens.expand(images.shape[0], -1, -1), patches), 1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        tokens, patches = x[:, : self.config.tokens], x[:, self.config.tokens :]
        return EncoderOutput(tokens, patches.transpose(1, 2).unflatten(2, self.config.grid_hw))


class Block(nn.Module):
    """Pre-norm transformer block with stochastic depth. B×N×C to B×N×C."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop_path(x, lambda rows: self.attention(self.norm1(rows)))
        return self.drop_path(x, lambda rows: self.mlp(self.norm2(rows)))


class Attention(nn.Module):
    """Multi-head self-attention. B×N×C to B×N×C."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = dense(x, self.qkv).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return dense(attend(query, key, value).transpose(1, 2).flatten(2), self.proj)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of each head: B×H×N×D, B×H×M×D, B×H×M×D to B×H×N×D."""
    # Plain products: on a CPU no slower than the fused kernel at this length, and with oneDNN nearer to exact.
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1) @ value


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return dense(dense(x, self.fc1, "gelu"), self.fc2)


def dense(x: Tensor, layer: nn.Linear, activation: str = "none") -> Tensor:
    """A linear layer, with a GELU if `activation` is "gelu".

    Predicting in single precision on a CPU it goes to oneDNN by name: PyTorch's default, MKL, was half as fast on one
    AMD processor (and as fast on another), and oneDNN takes the activation along. Not where a number is the sum of more
    than `_LONGEST_ONEDNN_SUM` products: oneDNN's error grows with them and MKL's does not, which took SMPLest-X-H to
    four times the published code's own rounding.
    """
    predicting = not torch.is_grad_enabled() and not is_recorded()
    if predicting and x.dtype == torch.float32 and x.device.type == "cpu" and _ONEDNN_DENSE is not None:
        if layer.in_features <= _LONGEST_ONEDNN_SUM and not torch.is_autocast_enabled("cpu"):
            return _ONEDNN_DENSE(x, layer.weight, layer.bias, activation, [], "none")
    x = layer(x)
    return F.gelu(x) if activation == "gelu" else x


class DropPath(nn.Module):
    """Adds what a residual branch says; while training, for whole samples that are drawn by chance, nothing."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        """x: B×N×C, of which `branch` may be asked for some rows alone."""
        if not self.training or self.rate == 0:
            return x + branch(x)
        keep = 1 - self.rate
        kept = x.new_empty((len(x),) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        if x.device.type == "cpu" and not is_recorded():  # a GPU would have to wait to hear how many they are
            rows = kept.flatten().nonzero()[:, 0]
            if len(rows):  # else as below, as every parameter is to have a gradient
                return x.index_add(0, rows, (branch(x[rows]) / keep).to(x.dtype))
        return x + branch(x) * kept / keep


def _initialise(module: nn.Module) -> None:
    # Published: normal numbers cut at a hundred times their spread, which never cuts any. PyTorch's own function for it
    # draws until all lie inside, and would not end where nothing is drawn (`families.sketch_network`).
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
