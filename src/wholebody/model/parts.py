"""Hands and face: from the features of their boxes to where their points are, and how they are turned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wholebody.model.encoder import EncoderOutput
from wholebody.model.heads import FoundFace, FoundHands, PositionHead
from wholebody.model.roi import RoIFeatures


class Hands(nn.Module):
    """Both hands of B people, as right hands: features of two boxes to joint positions and rotations.

    level: of the crops that positions are read from, of `side` cells, and `depth` in depth. decoder: refines each
    joint's feature by looking around it; may be absent. context: lets the finest crop see the coarser ones first; may
    be absent. middle: from the number of a cell to its middle; the published positions lack it. unit: positions are
    divided by it before the linear head reads them.
    """

    def __init__(
        self,
        features: RoIFeatures,
        positions: PositionHead,
        head: nn.Module,
        *,
        side: int,
        depth: int,
        level: int,
        decoder: nn.Module | None = None,
        context: nn.Module | None = None,
        middle: float = 0.0,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        self.side, self.depth, self.level, self.middle, self.unit = side, depth, level, middle, unit
        self.features = features
        self.context = context
        self.positions = positions
        self.decoder = decoder
        self.head = head

    def forward(self, encoded: EncoderOutput, boxes: Tensor) -> FoundHands:
        """boxes: B×2×4 as fractions of the crop, left then right."""
        crops = self.features(encoded, boxes)
        if self.context is not None:
            crops[0] = self.context(crops)
        volumes, cells, found = self.positions(crops[self.level])
        cells = cells + self.middle
        if self.decoder is not None:
            found = self.decoder(crops, cells.detach()[..., :2] / self.side, found)
        rotations, palm = self.head(found, cells.detach() / self.unit)
        maps = None
        if self.context is not None:
            left, right = volumes.sum(2).unflatten(0, (-1, 2)).unbind(1)
            maps = torch.stack((left.flip(-1), right), 1)
        return FoundHands(cells.unflatten(0, (-1, 2)), rotations.unflatten(0, (-1, 2)), palm, maps)


class Face(nn.Module):
    """Features of the face's box to point positions, expression and jaw. The arguments are those of `Hands`."""

    def __init__(
        self,
        features: RoIFeatures,
        positions: PositionHead,
        decoder: nn.Module,
        head: nn.Module,
        *,
        side: int,
        depth: int,
        level: int,
        context: nn.Module | None = None,
        middle: float = 0.0,
        unit: float = 1.0,
    ) -> None:
        super().__init__()
        self.side, self.depth, self.level, self.middle, self.unit = side, depth, level, middle, unit
        self.features = features
        self.context = context
        self.positions = positions
        self.decoder = decoder
        self.head = head

    def forward(self, encoded: EncoderOutput, boxes: Tensor) -> FoundFace:
        """boxes: B×1×4 as fractions of the crop."""
        crops = self.features(encoded, boxes)
        if self.context is not None:
            crops[0] = self.context(crops)
        volumes, cells, found = self.positions(crops[self.level])
        cells = cells + self.middle
        found = self.decoder(crops, cells.detach()[..., :2] / self.side, found)
        expression, jaw = self.head(found, cells.detach() / self.unit, crops[-1])
        return FoundFace(expression, jaw, cells, volumes.sum(2) if self.context is not None else None)
