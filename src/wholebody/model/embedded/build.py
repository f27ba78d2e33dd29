"""The embedded network put together: OSX with parts that a CPU can train."""

from __future__ import annotations

from typing import Any

from wholebody.body.layer import BodyModel
from wholebody.model.decoder import KeypointDecoder
from wholebody.model.embedded.config import SIGHTED, SMALL, EmbeddedConfig, EmbeddedPartConfig, SightedConfig
from wholebody.model.embedded.context import CropContext
from wholebody.model.embedded.hybrid import FinerPyramid, HybridEncoder
from wholebody.model.embedded.lifting import FinePositions, LiftingBodyHead, LiftingHandHead, TurnedWrists
from wholebody.model.embedded.sight import SeenBody, SeenBoxes, Sight, SightedEncoder
from wholebody.model.heads import FACE_POINTS, HAND_JOINTS, BoxHead, FaceHead, PositionHead
from wholebody.model.osx import OSX
from wholebody.model.parts import Face, Hands
from wholebody.model.roi import RoIFeatures

__all__ = ["SIGHTED", "SMALL", "EmbeddedConfig", "SightedConfig", "build_embedded", "build_sighted"]


def build_embedded(config: EmbeddedConfig = SMALL, body: BodyModel | None = None) -> OSX:
    """The network of a config, part by part: hands and face are in `_parts`."""
    width, finer = config.encoder.width, config.encoder.finer_width
    return OSX(
        config,
        encoder=HybridEncoder(config.encoder),
        body_positions=FinePositions(width, finer, config.lifting),
        body_head=LiftingBodyHead(width, config.lifting, config.camera),
        box_head=BoxHead(width, depth=1, channels=config.box_channels),
        body=body,
        **_parts(config),
    )


def build_sighted(config: SightedConfig = SIGHTED, body: BodyModel | None = None) -> OSX:
    """The network that lifts MoveNet Thunder's key points."""
    return OSX(
        config,
        encoder=SightedEncoder(config.encoder),
        body_positions=Sight(config.lifter, config.camera, config.grid),
        body_head=SeenBody(),
        box_head=SeenBoxes(config.grid),
        body=body,
        **_parts(config),
    )


def _parts(config: EmbeddedConfig) -> dict[str, Any]:
    """Hands and face, of either."""
    width, finer, hidden = config.encoder.width, config.encoder.finer_width, config.hidden
    hands, face = config.hands, config.face
    return dict(
        hands=Hands(
            features=RoIFeatures(FinerPyramid(finer, width), hands.crops, mirror=(True, False), middle=0.5),
            context=CropContext((finer, finer, width)),
            positions=PositionHead(finer, HAND_JOINTS, hands.depth, hands.decoder.width),
            decoder=KeypointDecoder(hands.decoder, HAND_JOINTS, (finer, finer, width), hands.crops),
            head=LiftingHandHead(hands.decoder.width, hidden, config.lifting),
            **_cells(hands, config),
        ),
        face=Face(
            features=RoIFeatures(FinerPyramid(finer, width), face.crops, mirror=(False,), middle=0.5),
            context=CropContext((finer, finer, width)),
            positions=PositionHead(finer, FACE_POINTS, face.depth, face.decoder.width),
            decoder=KeypointDecoder(face.decoder, FACE_POINTS, (finer, finer, width), face.crops),
            head=FaceHead(width, face.decoder.width, hidden),
            **_cells(face, config),
        ),
        box_scales=(hands.box_scale, hands.box_scale, face.box_scale),
        wrists=TurnedWrists(),
    )


def _cells(part: EmbeddedPartConfig, config: EmbeddedConfig) -> dict[str, Any]:
    """Positions are read from the finest crop, at the middles of its cells."""
    return {"side": part.crops[0], "depth": part.depth, "level": 0, "middle": 0.5, "unit": config.position_unit}
