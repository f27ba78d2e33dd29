"""Size `t`: the same components as the published network, small enough to embed and to train on a CPU."""

from __future__ import annotations

from wholebody.model.config import OSXConfig, PartConfig
from wholebody.model.decoder import DecoderConfig
from wholebody.model.hybrid import FinerPyramidConfig, HybridEncoderConfig
from wholebody.model.lifting import LiftingConfig

_DECODER = DecoderConfig(width=128, layers=2, heads=4, ffn=384, dropout=0.0, norm_groups=16)
_FINER = FinerPyramidConfig(finer_width=64)

SMALL = OSXConfig(
    name="t",
    encoder=HybridEncoderConfig(width=256, depth=3, heads=4, mlp_ratio=2, finer_width=64, tuned_stages=3),
    hands=PartConfig(16, 2.0, decoder=_DECODER, pyramid=_FINER, crops=(16, 8, 4), position_level=0),
    face=PartConfig(8, 1.5, decoder=_DECODER, pyramid=_FINER, crops=(16, 8, 4), position_level=1),
    hidden=128,
    box_channels=(64,),
    # In cells, positions are far larger than the other inputs of these heads and drown what they say.
    position_unit=16.0,
    lifting=LiftingConfig(joint_width=64),
)
