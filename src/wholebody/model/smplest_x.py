"""SMPLest-X: a task token for each thing to say, refined by a decoder over tokens and patches; no boxes.

Eighty task tokens go through the encoder with the patches. Six layers then let tokens and patches look at each other
and at the patches as the encoder gave them, and each head is one dense layer on its group's tokens side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.config import NetworkConfig
from wholebody.model.encoder import Mlp, ViT, ViTConfig, attend, dense
from wholebody.model.heads import initialise_linear
from wholebody.model.network import Network
from wholebody.model.prediction import PartBoxes, Prediction, pose_fields

TASK_TOKENS = 80
# Which of them each head reads, and how many numbers it gives. The published checkpoint has more heads (cameras of
# hands and face, the face's root: tokens 65 to 67 and 79) that no output and no loss reads.
HEADS: dict[str, tuple[slice, int]] = {
    "root": (slice(0, 1), 6),
    "pose": (slice(1, 22), 21 * 6),
    "shape": (slice(22, 32), 10),
    "camera": (slice(32, 33), 3),
    "hand_roots": (slice(33, 35), 2 * 6),
    "hands": (slice(35, 65), 30 * 6),
    "expression": (slice(68, 78), 10),
    "jaw": (slice(78, 79), 6),
}
_ROTATIONS = ("root", "pose", "hand_roots", "hands", "jaw")


@dataclass(frozen=True)
class TokenDecoderConfig:
    """Defaults as published."""

    layers: int = 6
    heads: int = 8
    head_width: int = 64
    hidden: int = 1280  # of the feed-forward layers
    out: int = 512  # numbers that each token hands to the heads


@dataclass(frozen=True)
class SMPLestXConfig(NetworkConfig):
    """The defaults are the published size `h`."""

    name: str = "h"
    family: str = "smplest_x"
    box_enlarge: float = 1.2
    encoder: ViTConfig = ViTConfig(width=1280, depth=32, heads=16, drop_path=0.55, tokens=TASK_TOKENS)
    decoder: TokenDecoderConfig = TokenDecoderConfig()


class SMPLestX(Network):
    """Encoder → decoder of tokens → heads → mesh."""

    config: SMPLestXConfig

    def __init__(
        self,
        config: SMPLestXConfig,
        encoder: nn.Module,
        decoder: TokenDecoder,
        heads: nn.ModuleDict,
        body: BodyModel | None = None,
    ) -> None:
        super().__init__(config, body)
        self.encoder = encoder
        self.decoder = decoder
        self.heads = heads

    def regress(self, images: Tensor, boxes: PartBoxes | None = None) -> Prediction:
        """Everything that needs no body mesh. boxes: there are none in this network, and these are not looked at."""
        encoded = self.encode(images)
        tokens = self.decoder(encoded.tokens, encoded.feature_map.flatten(2).transpose(1, 2))
        said = {name: self.heads[name](tokens[:, rows].flatten(1)) for name, (rows, _) in HEADS.items()}

        # Under autocast the heads speak in half precision; angles and everything after them need the full one.
        full = torch.promote_types(self.decoder.out.weight.dtype, torch.float32)
        said = {name: value.to(full) for name, value in said.items()}
        parts = torch.cat([said[name] for name in ("root", "pose", "hands", "jaw")], 1)
        rotations = rotation_6d_to_matrix(parts.unflatten(1, (53, 6)))
        return Prediction(
            **pose_fields(rotations),
            betas=said["shape"],
            expression=said["expression"],
            cam_trans=self.config.camera.translation(said["camera"]),
            hand_roots_6d=said["hand_roots"].unflatten(1, (2, 6)),
        )


class TokenDecoder(nn.Module):
    """Task tokens B×T×C and patches B×P×C, as the encoder gave them, to what each token says: B×T×out."""

    def __init__(self, config: TokenDecoderConfig, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))  # one for all of them
        self.layers = nn.ModuleList(TokenDecoderLayer(config, width) for _ in range(config.layers))
        self.out = nn.Linear(width, config.out)

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        x = torch.cat((tokens, patches), 1) + self.position
        for layer in self.layers:
            x = layer(x, patches)
        return self.out(x[:, : tokens.shape[1]])


class TokenDecoderLayer(nn.Module):
    """Self-attention, attention to the patches, feed-forward; each normalised first and added."""

    def __init__(self, config: TokenDecoderConfig, width: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = SelfAttention(config, width)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = CrossAttention(config, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, config.hidden)

    def forward(self, x: Tensor, patches: Tensor) -> Tensor:
        x = x + self.self_attention(self.self_norm(x))
        x = x + self.cross_attention(self.cross_norm(x), patches)
        return x + self.mlp(self.mlp_norm(x))


class SelfAttention(nn.Module):
    def __init__(self, config: TokenDecoderConfig, width: int) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.head_width
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = dense(x, self.qkv).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return dense(attend(query, key, value).transpose(1, 2).flatten(2), self.proj)


class CrossAttention(nn.Module):
    def __init__(self, config: TokenDecoderConfig, width: int) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, patches: Tensor) -> Tensor:
        query = dense(x, self.query).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = dense(patches, self.key_value).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return dense(attend(query, key, value).transpose(1, 2).flatten(2), self.proj)


def build_smplest_x(config: SMPLestXConfig, body: BodyModel | None = None) -> SMPLestX:
    """The network of a config: the whole tree, part by part."""
    out = config.decoder.out
    heads = nn.ModuleDict(
        {name: nn.Linear(out * (rows.stop - rows.start), numbers) for name, (rows, numbers) in HEADS.items()}
    )
    initialise_linear(heads, *(heads[name] for name in _ROTATIONS))  # type: ignore[arg-type]
    return SMPLestX(
        config,
        encoder=ViT(config.encoder),
        decoder=TokenDecoder(config.decoder, config.encoder.width),
        heads=heads,
        body=body,
    )
