"""Heads: positions by soft-argmax, and linear regressors of rotations, shape, expression, camera and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from wholebody.model.encoder import (
    BODY_TOKENS,
    CAMERA_TOKEN,
    EXPRESSION_TOKEN,
    JAW_TOKEN,
    SHAPE_TOKEN,
    EncoderOutput,
)
from wholebody.model.roi import Deconvolution, sample_points

if TYPE_CHECKING:
    from jaxtyping import Float

BODY_JOINTS, HAND_JOINTS, FACE_POINTS = 25, 20, 72  # whose positions are predicted
BODY_ROTATIONS, HAND_ROTATIONS = 21, 15
BETAS, EXPRESSIONS = 10, 10
PARTS = ("left_hand", "right_hand", "face")


def soft_argmax(probabilities: Float[Tensor, "n j *grid"]) -> Float[Tensor, "n j _"]:
    """Expected cell of distributions over a grid: N×J×[D×]H×W to N×J×(x, y[, z]) in cells, first cell's centre at 0."""
    axes = range(2, probabilities.ndim)
    coordinates = []
    for axis in reversed(axes):
        marginal = probabilities.sum([other for other in axes if other != axis])
        cells = torch.arange(marginal.shape[-1], dtype=marginal.dtype, device=marginal.device)
        coordinates.append((marginal * cells).sum(-1))
    return torch.stack(coordinates, -1)


def grid_softmax(scores: Float[Tensor, "n j *grid"]) -> Float[Tensor, "n j *grid"]:
    """Scores N×J×... to distributions over the grid, in single precision at least: means over a grid need it."""
    precise = torch.promote_types(scores.dtype, torch.float32)
    return scores.flatten(2).softmax(2, dtype=precise).view(scores.shape)


class PositionHead(nn.Module):
    """A feature map N×C×H×W to one distribution over D×H×W cells for each joint, and its mean.

    With `query_channels`, also to the feature found at each (detached) mean: N×J×query_channels.
    """

    def __init__(self, channels: int, joints: int, depth: int, query_channels: int | None = None) -> None:
        super().__init__()
        self.joints = joints
        self.volumes = nn.Conv2d(channels, joints * depth, 1)
        self.query = None
        if query_channels is not None:
            convolution = nn.Conv2d(channels, query_channels, 1)
            self.query = nn.Sequential(convolution, nn.BatchNorm2d(query_channels), nn.ReLU(inplace=True))
            nn.init.normal_(convolution.weight, std=0.001)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.volumes.weight, std=0.001)
        nn.init.zeros_(self.volumes.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(volumes N×J×D×H×W that sum to one, positions N×J×3 in cells (x, y, z), features at the positions or None)"""
        volumes = self.volumes(features).unflatten(1, (self.joints, -1))
        volumes = grid_softmax(volumes)
        positions = soft_argmax(volumes)
        if self.query is None:
            return volumes, positions, None
        return volumes, positions, sample_points(self.query(features), positions.detach()[..., :2])


class LocatedBody(NamedTuple):
    """Where the body's joints are."""

    volumes: Tensor  # B×25×D×H×W, over the cells of the feature map; each sums to one
    cells: Tensor  # B×25×3: x, y, z in cells
    logits: Tensor | None = None  # of finer cells, where there are such


class BodyPositions(PositionHead):
    """The encoder's feature map to the body's joints."""

    def forward(self, encoded: EncoderOutput) -> LocatedBody:  # type: ignore[override]
        volumes, cells, _ = super().forward(encoded.feature_map)
        return LocatedBody(volumes, cells)


class Estimate(NamedTuple):
    """What a body is taken for."""

    rotations_6d: Tensor  # B×22×6: root, then 21 body joints
    betas: Tensor  # B×10
    camera: Tensor  # B×3, see `VirtualCamera.translation`


class BodyHead(nn.Module):
    """Component tokens and joint positions to rotations (6D), shape and camera."""

    def __init__(self, width: int, hidden: int = 512) -> None:
        super().__init__()
        flat = BODY_JOINTS * (hidden + 3)
        self.token = nn.Linear(width, hidden)
        self.root = nn.Linear(flat, 6)
        self.pose = nn.Linear(flat, BODY_ROTATIONS * 6)
        self.shape = nn.Linear(width, BETAS)
        self.camera = nn.Linear(width, 3)
        initialise_linear(self, self.root, self.pose)

    def forward(self, tokens: Tensor, located: LocatedBody) -> list[Estimate]:
        """tokens B×31×C: the one estimate that it makes."""
        features = torch.cat((self.token(tokens[:, BODY_TOKENS]), located.cells.detach()), 2).flatten(1)
        rotations = torch.cat((self.root(features), self.pose(features)), 1).unflatten(1, (-1, 6))
        return [Estimate(rotations, self.shape(tokens[:, SHAPE_TOKEN]), self.camera(tokens[:, CAMERA_TOKEN]))]


class FoundHands(NamedTuple):
    """Both hands of B people, the left one as a right one in a mirror, but for `maps`."""

    cells: Tensor  # B×2×20×3, in cells of each hand's box
    rotations_6d: Tensor  # B×2×15×6
    palm: Any = None  # what the hand head says of the palms of 2 B hands, for the `wrists` part; None: nothing
    maps: Tensor | None = None  # B×2×20×side×side, of where joints are, as in the picture; with context only


class FoundFace(NamedTuple):
    """The face of B people."""

    expression: Tensor  # B×10
    jaw_6d: Tensor  # B×6
    cells: Tensor | None = None  # B×72×3, in cells of the face's box
    maps: Tensor | None = None  # B×72×side×side, of where points are; with context only


class BoxHead(nn.Module):
    """Feature map and body volumes to the centres and sizes (cells of the feature map) of both hands and the face."""

    def __init__(self, width: int, depth: int, channels: tuple[int, ...] = (256, 256, 256)) -> None:
        super().__init__()
        sizes = (width + BODY_JOINTS * depth, *channels)
        self.upsample = nn.Sequential(*(Deconvolution(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)))
        self.scale = 2 ** len(channels)
        self.center = nn.Conv2d(sizes[-1], len(PARTS), 1)
        self.size = nn.ModuleList(
            nn.Sequential(nn.Linear(sizes[-1], sizes[-1]), nn.ReLU(inplace=True), nn.Linear(sizes[-1], 2))
            for _ in PARTS
        )
        nn.init.normal_(self.center.weight, std=0.001)
        nn.init.zeros_(self.center.bias)  # type: ignore[arg-type]
        initialise_linear(self)

    def forward(self, feature_map: Tensor, body_volumes: Tensor) -> tuple[Tensor, Tensor]:
        """(centres B×3×2, sizes B×3×2), parts as in PARTS"""
        features = self.upsample(torch.cat((feature_map, body_volumes.flatten(1, 2)), 1))
        heatmaps = self.center(features)
        centers = soft_argmax(grid_softmax(heatmaps))
        found = sample_points(features, centers.detach())
        sizes = torch.stack([size(found[:, part]) for part, size in enumerate(self.size)], 1)
        return centers / self.scale, sizes.to(centers.dtype)


def square_boxes(
    centers: Float[Tensor, "*b 2"], sizes: Float[Tensor, "*b 2"], scales: Tensor, cell_px: float
) -> Float[Tensor, "*b 4"]:
    """Boxes as squares around the longer side, enlarged: centres and sizes ...×2 in cells to xyxy ...×4 in pixels."""
    # Not `amax`: what follows one in a graph OpenVINO 2026.4 scales by the wrong numbers.
    side = torch.maximum(sizes[..., :1], sizes[..., 1:]) * scales[..., None] / 2
    return torch.cat((centers - side, centers + side), -1) * cell_px


class HandHead(nn.Module):
    """Joint features and positions of a right hand to its rotations. Without `hidden`, features enter as they are."""

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        self.joint = None if hidden is None else nn.Linear(channels, hidden)
        self.pose = nn.Linear(HAND_JOINTS * ((hidden or channels) + 3), HAND_ROTATIONS * 6)
        initialise_linear(self, self.pose)

    def forward(self, joint_features: Tensor, joints_cells: Tensor) -> tuple[Tensor, Any]:
        """N×20×C and N×20×3 to 6D rotations N×15×6, and what it says of palms: nothing"""
        if self.joint is not None:
            joint_features = self.joint(joint_features)
        return self.pose(torch.cat((joint_features, joints_cells), 2).flatten(1)).unflatten(1, (-1, 6)), None


class FaceHead(nn.Module):
    """Point features, positions and the whole face's mean feature to expression (B×10) and jaw rotation (B×6)."""

    def __init__(self, face_channels: int, point_channels: int, hidden: int = 512) -> None:
        super().__init__()
        flat = hidden + FACE_POINTS * (hidden + 3)
        self.face = nn.Linear(face_channels, hidden)
        self.point = nn.Linear(point_channels, hidden)
        self.expression = nn.Linear(flat, EXPRESSIONS)
        self.jaw = nn.Linear(flat, 6)
        initialise_linear(self, self.jaw)

    def forward(self, point_features: Tensor, points_cells: Tensor, coarsest: Tensor) -> tuple[Tensor, Tensor]:
        points = torch.cat((self.point(point_features), points_cells), 2).flatten(1)
        features = torch.cat((self.face(coarsest.mean((2, 3))), points), 1)
        return self.expression(features), self.jaw(features)


class FaceTokenHead(nn.Module):
    """In the place of `Face` where there is no face decoder: expression and jaw straight from their tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expression = nn.Linear(width, EXPRESSIONS)
        self.jaw = nn.Linear(width, 6)
        initialise_linear(self, self.jaw)

    def forward(self, encoded: EncoderOutput, boxes: Tensor) -> FoundFace:
        """boxes, of faces: not looked into."""
        tokens = encoded.tokens
        return FoundFace(self.expression(tokens[:, EXPRESSION_TOKEN]), self.jaw(tokens[:, JAW_TOKEN]))


def initialise_linear(module: nn.Module, *rotations: nn.Linear) -> None:
    """Small weights, so that training starts from outputs that hardly depend on the picture; `rotations`: no turn."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
            nn.init.zeros_(part.bias)
    start_at_rest(*rotations)


def start_at_rest(*layers: nn.Linear) -> None:
    """Biases of 6D rotations as the identity: near zero, where other biases start, their direction means nothing."""
    for layer in layers:
        with torch.no_grad():
            layer.bias.copy_(layer.bias.new_tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).repeat(len(layer.bias) // 6))
