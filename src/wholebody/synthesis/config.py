"""What a synthetic set is made of. The defaults are the recipe of the embedded weights."""

from __future__ import annotations

from dataclasses import dataclass

from wholebody.errors import BadInput

SPLITS = ("train", "heldout", "all")


@dataclass(frozen=True)
class SynthesisConfig:
    """Where material comes from, and how often what happens."""

    size_hw: tuple[int, int] = (256, 192)
    """Height and width of pictures, or of layers, in pixels."""
    margin: float = 1.25
    """Picture height over the height of the person's 3:4 box. Layers for training use more, to leave room for
    augmentation."""
    motion: str | None = None
    """Folder of motion clips; None: `../shared/motion` beside the project if it is there, else procedural poses
    only."""
    hdri: str | None = None
    """Folder of environment maps (.npz with `rgb`, .hdr or .exr); None: as for motion; else procedural light."""
    backgrounds: str | None = None
    """Folder of photos to use as backgrounds beside environment maps and clutter."""
    body: str | None = None
    """Body file; None: the embedded open body."""
    split: str = "train"
    """Which motion subjects: "train", "heldout" (never in "train") or "all"."""
    child_fraction: float = 0.08
    closeup_fraction: float = 0.35
    """People framed from the hips, the waist or the shoulders up."""
    occluder_fraction: float = 0.2
    """Pictures (not layers) where something stands in front of the person."""
    samples: int = 2
    """Samples per pixel side: 2 means four per pixel."""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise BadInput(f"split is {self.split!r}: choose one of {', '.join(SPLITS)}")
        if min(self.size_hw) < 16:
            raise BadInput(f"pictures of {self.size_hw} (height, width) are too small: at least 16 pixels a side")
        if not 1 <= self.margin <= 4:
            raise BadInput(f"margin is {self.margin}: it must lie in 1..4")


LAYER_HW, LAYER_MARGIN = (384, 288), 1.65
"""Size and margin of training layers: the 1.25 x crop of a box is 291 pixels high in them."""
