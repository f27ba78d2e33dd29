"""Crops of a part that know what is around them."""

from __future__ import annotations

from torch import Tensor, nn

from wholebody.model.embedded.conv import Conv2d


class CropContext(nn.Module):
    """Crops of a part, fine to coarse (N×C×s×s), to its finest with what the coarser ones and its surroundings say.

    A finest map that comes straight from an early stage of a trunk knows edges, not fingers.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        width = channels[0]
        self.levels = nn.ModuleList(Conv2d(c, width, 1) for c in channels)
        self.mix = nn.ModuleList(
            nn.Sequential(nn.GroupNorm(8, width), nn.GELU(), Conv2d(width, width, 3, padding=1)) for _ in range(3)
        )

    def forward(self, crops: list[Tensor]) -> Tensor:
        side = crops[0].shape[-1]
        x = self.levels[0](crops[0])
        for level, crop in zip(self.levels[1:], crops[1:], strict=True):
            x = x + nn.functional.interpolate(level(crop), size=(side, side), mode="bilinear", align_corners=False)
        for layer in self.mix:
            x = x + layer(x)
        return x
