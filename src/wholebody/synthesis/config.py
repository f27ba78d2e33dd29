"""What a synthetic set is made of. The defaults are the recipe of the embedded weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wholebody.errors import AssetMissing, BadInput

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


MATERIAL = {"motion": "motion", "hdri": "assets/hdri", "assets": "assets/makehuman"}
"""What a world can be made of beside what is made up, by the option that names its folder, and where it lies in the
folder of all material."""
VARIABLES = ("WHOLEBODY_MATERIAL", "WHOLEBODY_SHARED")
"""Environment variables that name the folder of all material; the second is the name of earlier versions."""
NONE = "none"


@dataclass(frozen=True)
class SynthesisConfig:
    """Where material comes from, and how often what happens."""

    size_hw: tuple[int, int] | None = None
    """height and width in pixels; 256 192 for pictures and 384 288 for layers if not given"""
    margin: float | None = None
    """picture height over the height of the person's 3:4 box; 1.25 for pictures and 1.65 for layers if not given"""
    motion: str | None = None
    """folder of motion clips; if not given, `motion` in the folder that WHOLEBODY_MATERIAL names; without that, or with
    `none`, procedural poses"""
    hdri: str | None = None
    """folder of environment maps (.npz with `rgb`, .hdr, .exr, .exr.js); if not given, `assets/hdri` there; else
    made-up light"""
    backgrounds: str | None = None
    """folder of photos to use as backgrounds beside environment maps and clutter"""
    assets: str | None = None
    """folder of MakeHuman's clothes and hair (`clothes/*/*.mhclo`, `hair`, ...); if not given, `assets/makehuman`
    there; else painted clothes"""
    body: str | None = None
    """another open body file in the compact form; the embedded one if not given"""
    split: str = "train"
    """which motion subjects, garments and environment maps: train, heldout (never in train) or all"""
    child_fraction: float = 0.08
    """people who are children"""
    recombined_fraction: Annotated[float, Parameter(name=("--recombine", "--recombined-fraction"))] = 0.0
    """people whose arms, legs and trunk come from different frames of the motion clips, before anything else"""
    exercise_fraction: Annotated[float, Parameter(name=("--exercise", "--exercise-fraction"))] = 0.0
    """people in postures of yoga, gymnastics, climbing and sport (`people/exercise.py`)"""
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
        return material("assets", self.assets)

    @property
    def clips(self) -> str | None:
        """The folder of recorded motion, if poses are to come from any."""
        return material("motion", self.motion)

    @property
    def maps(self) -> str | None:
        """The folder of environment maps, if any are to light people."""
        return material("hdri", self.hdri)

    def resolved(self, layers: bool = False) -> SynthesisConfig:
        """The same with every default filled in: sizes, and the folders that were found."""
        size, margin = (LAYER_HW, LAYER_MARGIN) if layers else (PICTURE_HW, PICTURE_MARGIN)
        return replace(
            self,
            size_hw=(self.size_hw[0], self.size_hw[1]) if self.size_hw else size,
            margin=self.margin or margin,
            motion=self.motion or material("motion", None),
            hdri=self.hdri or material("hdri", None),
            assets=self.assets or material("assets", None),
        )


def material(kind: str, given: str | None) -> str | None:
    """The folder of one kind of `MATERIAL`: the one given; else the one in the folder that the environment variable
    WHOLEBODY_MATERIAL names; else None. "none", given, is none whatever the variable says.

    Raises:
        AssetMissing: the variable names a folder that is not there.
    """
    return _found(kind, given)[0]


def material_used(config: SynthesisConfig) -> dict[str, dict[str, str | None]]:
    """Of each kind of `MATERIAL`, the folder that is used (None: none) and what named it."""
    asked = {"motion": config.motion, "hdri": config.hdri, "assets": config.assets}
    return {kind: dict(zip(("folder", "named_by"), _found(kind, given), strict=True)) for kind, given in asked.items()}


def _found(kind: str, given: str | None) -> tuple[str | None, str]:
    if given is not None:
        return (None if given == NONE else given), f"--{kind}"
    for variable in VARIABLES:
        if named := os.environ.get(variable):
            root = Path(named).expanduser()
            if variable == VARIABLES[0] and not root.is_dir():
                raise AssetMissing(f"{variable} names the folder {root}, and there is none: set it anew, or unset it.")
            folder = root / MATERIAL[kind]
            return (str(folder), variable) if folder.is_dir() else (None, f"{variable}, which has no {MATERIAL[kind]}")
    return None, "nothing"
