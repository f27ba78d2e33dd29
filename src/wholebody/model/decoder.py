"""The keypoint-guided deformable decoder: each keypoint looks around its own position in the part's feature crops."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wholebody.model.roi import hat


@dataclass(frozen=True)
class DecoderConfig:
    """Defaults as published, for hands and face alike."""

    width: int = 256
    layers: int = 6
    heads: int = 8
    points: int = 4  # sampled for each head on each level
    ffn: int = 1024
    dropout: float = 0.1
    norm_groups: int = 32


class KeypointDecoder(nn.Module):
    """Refines one feature for each keypoint.

    maps: crops of the part, N×C×s×s each, fine to coarse. positions: N×K×2 (x, y as fractions of the crop, detached
    by the caller). queries: N×K×width, the features found at the positions. Returns N×K×width.
    """

    positions: Tensor

    def __init__(self, config: DecoderConfig, keypoints: int, channels: tuple[int, ...], crops: tuple[int, ...]):
        super().__init__()
        self.neck = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, config.width, 1, bias=False), nn.GroupNorm(config.norm_groups, config.width))
            for c in channels
        )
        self.level_embed = nn.Parameter(torch.zeros(len(crops), config.width))
        self.keypoint_embed = nn.Parameter(torch.zeros(keypoints, config.width))
        self.layers = nn.ModuleList(DecoderLayer(config, crops) for _ in range(config.layers))
        self.register_buffer("positions", torch.cat([sine_positions(s, config.width) for s in crops]), persistent=False)
        self.areas = [s * s for s in crops]
        nn.init.normal_(self.level_embed)
        nn.init.normal_(self.keypoint_embed)

    def forward(self, maps: list[Tensor], positions: Tensor, queries: Tensor) -> Tensor:
        levels = [neck(crop).flatten(2).transpose(1, 2) for neck, crop in zip(self.neck, maps, strict=True)]
        embed = torch.cat([level.expand(area, -1) for level, area in zip(self.level_embed, self.areas, strict=True)])
        memory = torch.cat(levels, 1) + (self.positions + embed)
        for layer in self.layers:
            queries = layer(queries, self.keypoint_embed, positions, memory)
        return queries


class DecoderLayer(nn.Module):
    """Self-attention of keypoints, deformable attention into the crops, feed-forward; each added and normalised."""

    def __init__(self, config: DecoderConfig, crops: tuple[int, ...]) -> None:
        super().__init__()
        self.self_attention = KeypointAttention(config)
        self.norm1 = nn.LayerNorm(config.width)
        self.cross_attention = DeformableAttention(config, crops)
        self.norm2 = nn.LayerNorm(config.width)
        self.fc1 = nn.Linear(config.width, config.ffn)
        self.fc2 = nn.Linear(config.ffn, config.width)
        self.norm3 = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, embed: Tensor, positions: Tensor, memory: Tensor) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, embed)))
        x = self.norm2(x + self.dropout(self.cross_attention(x + embed, positions, memory)))
        return self.norm3(x + self.dropout(self.fc2(self.dropout(F.relu(self.fc1(x))))))


class KeypointAttention(nn.Module):
    """Self-attention between keypoints. The keypoint's embedding takes part in queries and keys, not in values."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key = nn.Linear(config.width, 2 * config.width)
        self.value = nn.Linear(config.width, config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, embed: Tensor) -> Tensor:
        query, key = self.query_key(x + embed).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        value = self.value(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if self.training and query.device.type == "cpu":
            # The fused kernel's backward pass is several times slower on a CPU than plain products of this size.
            weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1).to(value.dtype)
            attended = F.dropout(weights, self.dropout) @ value
        else:
            dropout = self.dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.proj(attended.transpose(1, 2).flatten(2))


class DeformableAttention(nn.Module):
    """Each head of each keypoint reads a few learnt points around the keypoint on every level.

    Points are sampled from the unprojected memory and their weighted mean is projected, per head: a few keypoints
    read from a large memory, so this projects far fewer vectors. Sampling is a product with a keypoints×cells matrix
    made of hats.
    """

    def __init__(self, config: DecoderConfig, crops: tuple[int, ...]) -> None:
        super().__init__()
        self.heads, self.points, self.crops = config.heads, config.points, crops
        samples = config.heads * len(crops) * config.points
        head_width = config.width // config.heads
        self.offsets = nn.Linear(config.width, 2 * samples)  # in cells of each level
        self.weights = nn.Linear(config.width, samples)
        self.value_weight = nn.Parameter(torch.empty(config.heads, config.width, head_width))
        self.value_bias = nn.Parameter(torch.zeros(config.heads, head_width))
        self.proj = nn.Linear(config.width, config.width)
        self._initialise()

    def _initialise(self) -> None:
        # As in deformable DETR: the heads start out looking in different directions, the points at growing distances.
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.points + 1)
        offsets = directions[:, None, None] * distances[None, None, :, None]
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_(offsets.expand(-1, len(self.crops), -1, -1).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.normal_(self.value_weight, std=self.value_weight.shape[1] ** -0.5)

    def forward(self, queries: Tensor, positions: Tensor, memory: Tensor) -> Tensor:
        """queries N×K×C, positions N×K×2 as fractions of the crop, memory N×cells×C: N×K×C."""
        levels = len(self.crops)
        offsets = self.offsets(queries).unflatten(2, (self.heads, levels, self.points, 2))
        weights = self.weights(queries).unflatten(2, (self.heads, levels * self.points)).softmax(-1)
        weights = weights.unflatten(3, (levels, self.points))
        cells = []
        for level, side in enumerate(self.crops):
            points = positions[:, :, None, None] * side + offsets[:, :, :, level] - 0.5  # N×K×heads×points×2
            rows = hat(points[..., 1], side) * weights[:, :, :, level, :, None]
            cells.append((rows.transpose(-1, -2) @ hat(points[..., 0], side)).flatten(3))
        reading = torch.cat(cells, 3)  # N×K×heads×cells
        read = (reading.flatten(1, 2) @ memory).unflatten(1, reading.shape[1:3])
        values = torch.einsum("nkhc,hcd->nkhd", read, self.value_weight) + self.value_bias
        return self.proj(values.flatten(2))


def sine_positions(side: int, width: int) -> Tensor:
    """Sine encoding of the cells of a side×side map, rows in the first half of the channels: (side·side)×width.

    In single precision whatever the network's, as published weights know it.
    """
    channels = torch.arange(width // 2, dtype=torch.float32, device="cpu")
    frequencies = 10000 ** (2 * (channels // 2) / (width // 2))
    cells = (torch.arange(1, side + 1, dtype=torch.float32, device="cpu") - 0.5) / (side + 1e-6) * (2 * math.pi)
    phases = cells[:, None] / frequencies
    encoded = torch.stack((phases[:, 0::2].sin(), phases[:, 1::2].cos()), 2).flatten(1)
    rows = encoded[:, None].expand(side, side, -1)
    columns = encoded[None].expand(side, side, -1)
    return torch.cat((rows, columns), 2).flatten(0, 1)
