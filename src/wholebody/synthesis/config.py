"""What a synthetic set is made of. The defaults are the recipe of the embedded weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wholebody.errors import BadInput

SPLITS = ("train", "heldout", "all")
PICTURE_HW, PICTURE_MARGIN = (256, 192), 1.25
# Layers leave room for augmentation around the person: the 1.25 x crop of a box is 291 pixels high in them.
LAYER_HW, LAYER_MARGIN = (384, 288), 1.65

# What training never sees, beside the motion subjects that `people` names: garments and hair by the name of their
# `.mhclo`, and environment maps by the name of their file.
HELDOUT_GARMENTS = frozenset(
    {"male_casualsuit03", "male_worksuit01", "female_casualsuit02", "shoes02", "shoes03", "fedora_cocked", "bob02",
     "short02", "eyebrow004", "eyebrow009", "eyebrow012"}
)  # fmt: skip
HELDOUT_ENVIRONMENTS = frozenset(
    {"pm_sunset", "pm_venice", "blender_sunset", "pm_apartment", "pm_forest", "pm_lobby", "blender_courtyard"}
)  # sunset and Venice may show one place


@dataclass(frozen=True)
class SynthesisConfig:
    """Where material comes from, and how often what happens."""

    size_hw: tuple[int, int] | None = None
    """height and width in pixels; 256 192 for pictures and 384 288 for layers if not given"""
    margin: float | None = None
    """picture height over the height of the person's 3:4 box; 1.25 for pictures and 1.65 for layers if not given"""
    motion: str | None = None
    """folder of motion clips; if not given, `../shared/motion` beside the project if it is there, else procedural
    poses"""
    hdri: str | None = None
    """folder of environment maps (.npz with `rgb`, .hdr, .exr, .exr.js); if not given, as for motion, else made-up
    light"""
    backgrounds: str | None = None
    """folder of photos to use as backgrounds beside environment maps and clutter"""
    assets: str | None = None
    """folder of MakeHuman's clothes and hair (`clothes/*/*.mhclo`, `hair`, ...); if not given, as for motion; `none`,
    or where there is nothing: painted clothes"""
    body: str | None = None
    """another open body file in the compact form; the embedded one if not given"""
    split: str = "train"
    """which motion subjects, garments and environment maps: train, heldout (never in train) or all"""
    child_fraction: float = 0.08
    """people who are children"""
    recombined_fraction: Annotated[float, Parameter(name=("--recombine", "--recombined-fraction"))] = 0.0
    """people whose arms, legs and trunk come from different frames of the motion clips, before anything else"""
    closeup_fraction: float = 0.35
    """people framed from the knees, the hips, the waist or the chest up"""
    occluder_fraction: float = 0.2
    """pictures (not layers) where something stands in front of the person"""
    samples: int = 2
    """per pixel side: 2 means four per pixel"""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise BadInput(f"split is {self.split!r}: choose one of {', '.join(SPLITS)}")
        if self.size_hw is not None and min(self.size_hw) < 16:
            raise BadInput(f"pictures of {self.size_hw} (height, width) are too small: at least 16 pixels a side")
        if self.margin is not None and not 1 <= self.margin <= 4:
            raise BadInput(f"margin is {self.margin}: it must lie in 1..4")

    @property
    def wardrobe(self) -> str | None:
        """The folder of clothes, if people are to wear any that are not painted."""
        return None if self.assets == "none" else self.assets

    def resolved(self, layers: bool = False) -> SynthesisConfig:
        """The same with every default filled in: sizes, and the folders that were found."""
        size, margin = (LAYER_HW, LAYER_MARGIN) if layers else (PICTURE_HW, PICTURE_MARGIN)
        return replace(
            self,
            size_hw=(self.size_hw[0], self.size_hw[1]) if self.size_hw else size,
            margin=self.margin or margin,
            motion=self.motion or companion_folder("motion"),
            hdri=self.hdri or companion_folder("assets/hdri"),
            assets=self.assets or companion_folder("assets/makehuman"),
        )


def companion_folder(what: str) -> str | None:
    """A folder of the project's companion `../shared`, if this is a checkout that has one; the environment variable
    WHOLEBODY_SHARED names another place."""
    shared = Path(os.environ.get("WHOLEBODY_SHARED") or Path(__file__).resolve().parents[4] / "shared")
    return str(shared / what) if (shared / what).is_dir() else None
