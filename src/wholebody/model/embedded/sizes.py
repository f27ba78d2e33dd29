"""Size `t`: the same components as the published network, small enough to embed and to train on a CPU."""

from __future__ import annotations

from typing import Any

from wholebody.model.config import OSXConfig, PartConfig
from wholebody.model.decoder import DecoderConfig
from wholebody.model.embedded.hybrid import FinerPyramidConfig, HybridEncoderConfig
from wholebody.model.embedded.lifting import LiftingConfig

_PART: dict[str, Any] = {
    "decoder": DecoderConfig(width=128, layers=1, heads=4, ffn=384, dropout=0.0, norm_groups=16),
    "pyramid": FinerPyramidConfig(finer_width=64),
    "crops": (16, 8, 4),
    "position_level": 0,
    "context": True,
    "aligned": True,
}

SMALL = OSXConfig(
    name="t",
    encoder=HybridEncoderConfig(width=256, depth=3, heads=4, mlp_ratio=2, finer_width=64, tuned_stages=3),
    hands=PartConfig(16, 2.0, **_PART),
    face=PartConfig(8, 1.5, **_PART),
    hidden=128,
    box_channels=(64,),
    # In cells, positions are far larger than the other inputs of these heads and drown what they say.
    position_unit=16.0,
    lifting=LiftingConfig(joint_width=64),
)
