"""What the embedded size `t` is made of: the components of the published network, with parts of its own."""

from __future__ import annotations

from dataclasses import dataclass

from wholebody.model.config import NetworkConfig
from wholebody.model.decoder import DecoderConfig
from wholebody.model.embedded.hybrid import HybridEncoderConfig
from wholebody.model.embedded.lifting import LiftingConfig
from wholebody.model.embedded.pose_lifting import PoseLifterConfig


@dataclass(frozen=True)
class EmbeddedPartConfig:
    """Hands or face: crops of the encoder's maps at strides 4, 8 and 16, and the decoder."""

    depth: int  # cells of the position volumes; rows and columns are the side of the finest crop
    box_scale: float  # of the square crop around the predicted box
    decoder: DecoderConfig = DecoderConfig(width=128, layers=1, heads=4, ffn=384, dropout=0.0, norm_groups=16)
    crops: tuple[int, ...] = (16, 8, 4)  # side of the crop on each map, fine to coarse


@dataclass(frozen=True)
class EmbeddedConfig(NetworkConfig):
    """The network that is small enough to embed and to train on a CPU."""

    name: str = "t"
    family: str = "embedded"
    crop_filter: str = "area"
    encoder: HybridEncoderConfig = HybridEncoderConfig(
        width=256, depth=3, heads=4, mlp_ratio=2, finer_width=64, tuned_stages=3
    )
    lifting: LiftingConfig = LiftingConfig(joint_width=64)
    hands: EmbeddedPartConfig = EmbeddedPartConfig(16, 2.0)
    face: EmbeddedPartConfig = EmbeddedPartConfig(8, 1.5)
    hidden: int = 128  # of the linear heads
    box_channels: tuple[int, ...] = (64,)
    position_unit: float = 16.0
    """Cells that positions of hands and face are divided by before linear heads read them: in cells they are far larger
    than the other inputs of these heads, and drown what they say."""


@dataclass(frozen=True)
class SightedConfig(EmbeddedConfig):
    """The same with MoveNet Thunder's key points, lifted, for the body; `lifting` counts for the hands alone."""

    family: str = "sighted"
    lifter: PoseLifterConfig = PoseLifterConfig()


SMALL = EmbeddedConfig()
SIGHTED = SightedConfig()
