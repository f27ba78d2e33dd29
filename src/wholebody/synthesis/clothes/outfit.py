"""Which of MakeHuman's clothes and hair a person wears, in which colours, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator

from wholebody.drawing.raster import srgb_to_linear
from wholebody.errors import BadInput
from wholebody.synthesis.clothes import paint_kernels as p
from wholebody.synthesis.clothes import stock as store
from wholebody.synthesis.clothes import worn_kernels as gm
from wholebody.synthesis.clothes.stock import Item
from wholebody.synthesis.config import HELDOUT_GARMENTS

_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
# Metres nearer to the camera than it is: the order in which things lie over each other.
_BIAS = {"shoes": 0.003, "bottom": 0.005, "whole": 0.007, "top": 0.008, "hat": 0.012, "hair": 0.008, "brows": 0.004,
         "lashes": 0.003, "teeth": 0.0}  # fmt: skip


@dataclass(frozen=True)
class Worn:
    """One item on one person: the pattern's `row` (paint.COLUMNS,), its `look` (garments.LOOK_COLUMNS,), metres on the
    resting body where `sleeve` and legs or hem (`low`) are cut off, and how far it stands off its fit: `puff`, with
    `ruffle` metres of uneven folds."""

    item: Item
    row: np.ndarray
    look: np.ndarray
    bias: float
    sleeve: float = 2.0
    low: float = -2.0
    puff: float = 0.0
    ruffle: float = 0.0

    def keep(self, rest: np.ndarray) -> np.ndarray:
        """Metres inside the cuts of places (N,3) on the resting body."""
        across = np.abs(rest[:, 0])
        below = np.where(across < 0.27, rest[:, 1] - self.low, 1.0)
        return np.minimum(self.sleeve - across, below).astype(np.float32)


@dataclass(frozen=True)
class Wardrobe:
    """Items by kind, and the textures of all of them in one array `texels` (M,4) uint8; item k's begin at `first`."""

    kinds: dict[str, tuple[Item, ...]]
    texels: np.ndarray
    first: dict[int, int]

    @classmethod
    def load(cls, assets: str | Path, split: str) -> Wardrobe:
        """What a split may wear: "train" and "heldout" share nothing but teeth and lashes; "all" is both."""
        return _load(str(assets), split)


@lru_cache(maxsize=2)
def _load(assets: str, split: str) -> Wardrobe:
    items = [i for i in store.load(assets) if in_split(i.name, split) or i.kind in ("teeth", "lashes")]
    texels = np.concatenate([i.texels for i in items])
    starts = np.cumsum([0] + [len(i.texels) for i in items])
    # One copy of the textures in memory: the items look into it.
    items = [replace(i, texels=texels[a:b]) for i, a, b in zip(items, starts[:-1], starts[1:], strict=True)]
    kinds = {kind: tuple(i for i in items if i.kind == kind) for kind in store.KINDS}
    for kind in ("top", "bottom", "shoes", "hair"):
        if not kinds[kind]:
            raise BadInput(f"no {kind} of split {split!r} in {assets}: are all of MakeHuman's assets there?")
    return Wardrobe(kinds, texels, {id(i): int(a) for i, a in zip(items, starts[:-1], strict=True)})


def in_split(name: str, split: str) -> bool:
    """Whether a garment of that name belongs to a split."""
    return split == "all" or (name in HELDOUT_GARMENTS) == (split == "heldout")


def choose(rng: Generator, wardrobe: Wardrobe, hair_tone: np.ndarray, painter) -> list[Worn]:
    """What one person wears of the wardrobe; `painter(row)` fills a row with colours and a pattern."""

    def pick(kind: str) -> Item | None:
        return wardrobe.kinds[kind][rng.integers(len(wardrobe.kinds[kind]))] if wardrobe.kinds[kind] else None

    worn: list[Worn] = []

    def put_on(item: Item | None, **more: float) -> None:
        if item is not None:
            worn.append(_clothe(rng, wardrobe, item, painter, **more))

    kind = rng.choice(["both", "suit", "whole", "top", "bottom", "painted"], p=[0.5, 0.12, 0.05, 0.1, 0.11, 0.12])
    top, bottom = pick("top"), pick("bottom")
    if kind == "suit" and top is not None:
        bottom = next((i for i in wardrobe.kinds["bottom"] if i.name == top.name), bottom)
    if kind == "whole":
        item = pick("whole") or bottom
        put_on(item)
        if item is not None and item.name == "male_worksuit01":
            put_on(next((i for i in wardrobe.kinds["top"] if i.name == item.name), None))
    if kind in ("both", "suit", "bottom") and bottom is not None:
        shorts = bottom.rest[:, 1].min() < -0.8 and rng.random() < 0.22
        low = rng.uniform(-0.58, -0.2) if shorts else -2.0
        put_on(bottom, low=low, puff=rng.uniform(0, 0.008), ruffle=rng.uniform(0, 0.005))
    if kind in ("both", "suit", "top") and top is not None:
        long = np.abs(top.rest[:, 0]).max() > 0.5
        sleeve = rng.uniform(0.24, 0.5) if long and rng.random() < 0.35 else 2.0
        hem = rng.uniform(0.0, 0.12) if rng.random() < 0.08 and top.rest[:, 1].min() < 0 else -2.0
        put_on(top, sleeve=sleeve, low=hem, puff=rng.uniform(0, 0.010), ruffle=rng.uniform(0, 0.006))
    if rng.random() < 0.72:
        put_on(pick("shoes"))
    above = rng.random()
    if above < 0.07 and wardrobe.kinds["hat"]:
        put_on(pick("hat"), puff=0.004)
    elif above < 0.78:
        worn.append(_hair(rng, wardrobe, pick("hair"), hair_tone))
    if rng.random() < 0.75 and wardrobe.kinds["brows"]:
        tone = srgb_to_linear(np.clip(hair_tone * rng.uniform(0.35, 0.8), 0, 255) / 255)
        worn.append(_flat(rng, wardrobe, pick("brows"), tone))
    if rng.random() < 0.8 and wardrobe.kinds["lashes"]:
        worn.append(_flat(rng, wardrobe, pick("lashes"), np.full(3, rng.uniform(0.004, 0.02))))
    return worn


def _plain(wardrobe: Wardrobe, item: Item) -> np.ndarray:
    look = np.zeros(gm.LOOK_COLUMNS, np.float32)
    look[gm.TEXEL], look[gm.SIZE], look[gm.DENSITY] = wardrobe.first[id(item)], item.size, item.density
    look[gm.LUMINANCE] = item.tone @ _LUMINANCE
    return look


def _clothe(rng: Generator, wardrobe: Wardrobe, item: Item, painter, **more: float) -> Worn:
    row, look = np.zeros(p.COLUMNS), _plain(wardrobe, item)
    painter(row)
    row[p.SEED] = rng.uniform(0, 32)
    color = row[p.COLOR_A : p.COLOR_A + 3]
    if item.kind == "shoes":
        row[p.SHINE] = rng.uniform(0, 0.3)
    way = rng.random()
    own, dyed = (0.45, 0.8) if item.kind in ("bottom", "shoes") else (0.25, 0.5)
    if item.textured and way < own:
        matrix = _hue(rng) * rng.uniform(0.6, 1.8)
    elif item.textured and way < dyed:
        matrix = np.outer(color / look[gm.LUMINANCE], _LUMINANCE)
    else:
        matrix = np.eye(3)
        look[gm.PATTERNED] = 1
    look[gm.MATRIX : gm.MATRIX + 9] = matrix.ravel()
    return Worn(item, row.astype(np.float32), look, _BIAS[item.kind], **more)


def _hue(rng: Generator) -> np.ndarray:
    """A matrix that turns hues and changes saturation, keeping greys."""
    angle = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(-np.pi, np.pi)
    c, s, third = np.cos(angle), np.sin(angle), 1 / 3
    a, b, d = c + (1 - c) * third, (1 - c) * third - np.sqrt(third) * s, (1 - c) * third + np.sqrt(third) * s
    turn = np.array([[a, b, d], [d, a, b], [b, d, a]])
    keep = rng.uniform(0.0, 1.1)
    return keep * turn + (1 - keep) * np.outer(np.ones(3), _LUMINANCE)


def _hair(rng: Generator, wardrobe: Wardrobe, item: Item | None, tone: np.ndarray) -> Worn:
    assert item is not None  # Wardrobe.load has seen to it
    row, look = np.zeros(p.COLUMNS, np.float32), _plain(wardrobe, item)
    color = srgb_to_linear(np.clip(tone * rng.uniform(0.85, 1.2), 2, 255) / 255)
    # A little of the texture's own colour: locks differ.
    own = np.diag(color / item.tone.clip(0.01)) * 0.25 + np.outer(color / look[gm.LUMINANCE], _LUMINANCE) * 0.75
    look[gm.MATRIX : gm.MATRIX + 9] = own.ravel()
    look[gm.HAIR] = 1
    row[p.SHINE] = rng.uniform(0.02, 0.12)
    return Worn(item, row, look, _BIAS["hair"], puff=rng.uniform(-0.001, 0.006), ruffle=rng.uniform(0, 0.003))


def _flat(rng: Generator, wardrobe: Wardrobe, item: Item | None, color: np.ndarray) -> Worn:
    """Brows and lashes: one colour, shaped by the texture's alpha."""
    assert item is not None
    look = _plain(wardrobe, item)
    look[gm.OFFSET : gm.OFFSET + 3] = color
    return Worn(item, np.zeros(p.COLUMNS, np.float32), look, _BIAS[item.kind])
