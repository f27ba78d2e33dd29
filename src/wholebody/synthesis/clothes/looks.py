"""What a person wears and looks like: rows of numbers for `paint_kernels`, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wholebody.drawing.raster import srgb_to_linear
from wholebody.synthesis.clothes import paint_kernels as p
from wholebody.synthesis.clothes.outfit import Wardrobe, Worn, choose

# sRGB tones of skin from light to dark, and of hair, as anchors to mix between.
_SKIN_TONES = np.array(
    [
        [247, 219, 203],
        [240, 200, 176],
        [226, 180, 150],
        [208, 156, 122],
        [182, 128, 94],
        [150, 100, 70],
        [112, 73, 52],
        [82, 54, 41],
        [56, 38, 31],
    ]
)
_HAIR_TONES = np.array(
    [
        [18, 15, 14],
        [30, 23, 20],
        [54, 37, 27],
        [84, 58, 38],
        [122, 88, 56],
        [176, 140, 92],
        [214, 186, 134],
        [140, 66, 36],
        [150, 150, 152],
        [225, 224, 220],
    ]
)
_HAIR_WEIGHT = np.array([5, 5, 4, 3, 2, 1.5, 1, 0.7, 1.2, 0.7])
_IRIS_TONES = np.array([[58, 38, 24], [84, 56, 34], [110, 82, 50], [96, 112, 84], [96, 124, 150], [130, 138, 140]])
_CLOTH_TONES = np.array(
    [[20, 20, 22], [40, 42, 46], [70, 72, 76], [128, 130, 132], [190, 190, 188], [238, 238, 234], [24, 32, 58], [38,
    58, 100], [70, 104, 150],
     [120, 156, 196], [120, 24, 28], [170, 36, 38], [30, 70, 44], [84, 94, 58], [176, 156, 120], [212, 196, 168],
     [96, 68, 46], [140, 100, 66]]
)  # fmt: skip


@dataclass(frozen=True)
class Outfit:
    """`garments` (G, paint.COLUMNS), painted, outermost last; `skin` (paint.SKIN_COLUMNS,); both float32; and what is
    `worn` of the wardrobe."""

    garments: np.ndarray
    skin: np.ndarray
    worn: tuple[Worn, ...] = ()


def sample_outfit(rng: Generator, wardrobe: Wardrobe | None = None) -> Outfit:
    """One person's skin, hair and clothes. Random, not matched to the body's shape: networks must not care."""
    hair_tone = _mix(rng, _HAIR_TONES, _HAIR_WEIGHT)
    if rng.random() < 0.03:
        hair_tone = _any_color(rng)
    rows = [_beard(rng, hair_tone)] if rng.random() < 0.13 else []
    worn: list[Worn] = []
    if wardrobe is None:
        rows += _clothes(rng) + _hair(rng, hair_tone)
    else:
        worn = choose(rng, wardrobe, hair_tone, lambda row: _cloth(rng, row))
        rows += _beneath(rng, worn, hair_tone)
    skin = _skin(rng, hair_tone)
    if any(w.item.kind == "brows" for w in worn):
        skin[p.BROW_AMOUNT] *= 0.7
    garments = np.stack(rows) if rows else np.zeros((0, p.COLUMNS))
    return Outfit(garments.astype(np.float32), skin, tuple(worn))


def _beneath(rng: Generator, worn: Sequence[Worn], hair_tone: np.ndarray) -> list[np.ndarray]:
    """What is painted on the skin of somebody who wears these: whatever they leave to be worn."""
    kinds = {w.item.kind for w in worn}
    rows = _clothes(rng)
    if "whole" in kinds:
        kinds |= {"top", "bottom"}
    if "top" in kinds:
        # Perhaps a shirt beneath, close to the skin: open collars and cut sleeves show it.
        tops = [r for r in rows if r[p.KIND] == p.TOP and r[p.OPEN] == 0]
        rows = [r for r in rows if r[p.KIND] not in (p.TOP, p.GLOVES)]
        if tops and rng.random() < 0.25:
            tops[0][[p.THICKNESS, p.FLARE, p.WRINKLE]] = 0.001, 0, 0
            rows.append(tops[0])
    if "bottom" in kinds:
        rows = [r for r in rows if r[p.KIND] != p.BOTTOM]
    elif "top" in kinds and not any(r[p.KIND] == p.BOTTOM for r in rows):
        rows.append(_bottom(rng, 0.05, rng.uniform(-0.9, -0.2)))
    if "shoes" in kinds:
        rows = [r for r in rows if r[p.KIND] != p.SHOES]
    if "hair" in kinds or "hat" in kinds:
        under = _row(rng, p.HAIR)  # no bald seams between locks
        under[p.DROP] = -0.012 if "hair" in kinds else rng.uniform(-0.005, 0.005)
        under[p.THICKNESS] = 0.001 if "hair" in kinds else rng.uniform(0.001, 0.006)
        _color(under, p.COLOR_A, hair_tone * 0.75)
        _color(under, p.COLOR_B, hair_tone * 1.1)
        under[p.PATTERN], under[p.FREQUENCY], under[p.DUTY], under[p.BUMP] = p.FINE, 300, 0.4, 0.2
        return rows + [under]
    return rows + _hair(rng, hair_tone)


def _skin(rng: Generator, hair_tone: np.ndarray) -> np.ndarray:
    s = np.zeros(p.SKIN_COLUMNS)
    where = rng.uniform(0, len(_SKIN_TONES) - 1.4)
    k, t = int(where), where % 1
    tone = (_SKIN_TONES[k] * (1 - t) + _SKIN_TONES[k + 1] * t) * rng.normal(1, 0.025, 3) * rng.normal(1, 0.04)
    skin = _linear(tone)
    s[p.SKIN : p.SKIN + 3] = skin
    lips = skin * np.array([0.82, 0.52, 0.55]) * rng.uniform(0.85, 1.1)
    if rng.random() < 0.15:  # lipstick
        lips = _linear(np.array([rng.uniform(110, 200), rng.uniform(20, 80), rng.uniform(40, 100)]))
    s[p.LIPS : p.LIPS + 3] = lips
    s[p.BROW : p.BROW + 3] = _linear(hair_tone * rng.uniform(0.5, 0.85))
    s[p.IRIS : p.IRIS + 3] = _linear(
        _IRIS_TONES[rng.choice(len(_IRIS_TONES), p=[0.35, 0.25, 0.15, 0.08, 0.1, 0.07])] * rng.normal(1, 0.1, 3)
    )
    s[p.INSIDE : p.INSIDE + 3] = [0.22, 0.05, 0.05]
    s[p.FRECKLES] = rng.uniform(0.2, 0.9) if k < 4 and rng.random() < 0.15 else 0
    s[p.MOTTLE] = rng.uniform(0.01, 0.07)
    s[p.BLUSH] = rng.uniform(0.2, 1.3)
    s[p.BROW_AMOUNT] = rng.uniform(0.45, 1.0)
    s[p.LIP_AMOUNT] = rng.uniform(0.6, 1.0)
    s[p.SKIN_SHINE] = rng.uniform(0.02, 0.14)
    s[p.SKIN_SEED] = rng.uniform(0, 32)
    return s


def _hair(rng: Generator, tone: np.ndarray) -> list[np.ndarray]:
    style = rng.choice(
        ["bald", "stubble", "short", "medium", "afro", "long", "hat"], p=[0.06, 0.08, 0.33, 0.16, 0.07, 0.24, 0.06]
    )
    if style == "bald":
        return []
    g = _row(rng, p.LONG_HAIR if style == "long" else p.HAIR)
    g[p.LOW] = rng.uniform(0.16, 0.45)
    g[p.DROP] = rng.uniform(-0.02, 0.008)
    g[p.VDEPTH] = rng.uniform(-0.004, 0.004)
    thickness = {
        "stubble": (0, 0.002),
        "short": (0.006, 0.016),
        "medium": (0.012, 0.03),
        "afro": (0.03, 0.07),
        "long": (0.01, 0.028),
        "hat": (0.012, 0.025),
    }
    low, high = thickness[str(style)]
    g[p.THICKNESS] = rng.uniform(low, high)
    g[p.WRINKLE] = g[p.THICKNESS] * rng.uniform(0.15, 0.45)
    _color(g, p.COLOR_A, tone * rng.uniform(0.85, 1.15))
    _color(g, p.COLOR_B, tone * rng.uniform(1.1, 1.6))
    g[p.PATTERN], g[p.FREQUENCY], g[p.DUTY] = p.FINE, rng.uniform(120, 400), rng.uniform(0.2, 0.8)
    g[p.BUMP], g[p.OPACITY], g[p.SHINE] = rng.uniform(0.2, 0.5), 1.0, rng.uniform(0.02, 0.15)
    if style == "stubble":
        g[p.OPACITY] = rng.uniform(0.35, 0.8)
    if style == "hat":
        _cloth(rng, g)
        g[p.WRINKLE] *= 0.2
        g[p.DROP] = rng.uniform(0.0, 0.012)
    return [g]


def _beard(rng: Generator, tone: np.ndarray) -> np.ndarray:
    g = _row(rng, p.BEARD)
    g[p.VWIDTH] = rng.uniform(0.02, 0.035)
    g[p.OPEN] = float(rng.random() < 0.2)
    g[p.OPACITY] = rng.uniform(0.25, 0.95)
    g[p.THICKNESS] = rng.uniform(0, 0.008) if g[p.OPACITY] > 0.6 else 0
    _color(g, p.COLOR_A, tone * 0.9)
    _color(g, p.COLOR_B, tone * 1.2)
    g[p.PATTERN], g[p.FREQUENCY], g[p.DUTY], g[p.BUMP] = p.FINE, 400, 0.3, 0.25
    return g


def _clothes(rng: Generator) -> list[np.ndarray]:
    kind = rng.choice(["everyday", "swim", "dress", "overall"], p=[0.84, 0.04, 0.07, 0.05])
    rows = []
    shoes, bare = _shoes(rng), rng.random() < 0.15
    if kind == "swim":
        bottom = _bottom(rng, rng.uniform(0.0, 0.08), rng.uniform(-0.3, -0.09))
        rows.append(bottom)
        if rng.random() < 0.5:
            rows.append(_top(rng, rng.uniform(0.05, 0.2), 0.15))
        return rows + ([] if rng.random() < 0.6 else shoes)
    if kind == "dress":
        low = rng.uniform(-0.7, -0.25)
        dress = _top(rng, low, _sleeve(rng))
        bottom = dress.copy()  # the skirt's part below the hip follows the legs
        bottom[p.KIND], bottom[p.HIGH], bottom[p.LOW] = p.BOTTOM, 0.05, low
        bottom[p.FLARE] = rng.uniform(0.01, 0.05)
        return [bottom, dress] + ([] if bare else shoes)
    waist = rng.normal(0.06, 0.03)
    legs = rng.choice(["long", "cropped", "shorts"], p=[0.68, 0.1, 0.22])
    end = {
        "long": rng.normal(-0.895, 0.012),
        "cropped": rng.uniform(-0.82, -0.55),
        "shorts": rng.uniform(-0.47, -0.18),
    }[str(legs)]
    bottom = _bottom(rng, waist, end)
    top = _top(rng, waist - np.abs(rng.normal(0.03, 0.07)), _sleeve(rng))
    if kind == "overall":
        shared = slice(p.PATTERN, p.COLOR_C + 3)
        bottom[shared] = top[shared]
    tucked = rng.random() < 0.25
    rows = ([] if bare else shoes) + ([top, bottom] if tucked else [bottom, top])
    if rng.random() < 0.22:
        jacket = _top(rng, waist - rng.uniform(0, 0.25), rng.uniform(0.55, 0.66))
        jacket[p.OPEN] = rng.uniform(0.04, 0.10) if rng.random() < 0.75 else 0
        jacket[p.NECK], jacket[p.DROP], jacket[p.VDEPTH] = rng.uniform(0.42, 0.47), 0.03, rng.uniform(0, 0.12)
        jacket[p.THICKNESS] = rng.uniform(0.012, 0.028)
        if rng.random() < 0.6:
            jacket[p.PATTERN] = rng.choice([p.SOLID, p.FINE])
        rows.append(jacket)
    if rng.random() < 0.03:
        gloves = _row(rng, p.GLOVES)
        gloves[p.LOW], gloves[p.THICKNESS] = rng.uniform(0.58, 0.67), rng.uniform(0.001, 0.003)
        _cloth(rng, gloves)
        rows.append(gloves)
    return rows


def _sleeve(rng: Generator) -> float:
    length = rng.choice(["none", "short", "middle", "long"], p=[0.13, 0.42, 0.1, 0.35])
    spans = {"none": (0.12, 0.175), "short": (0.24, 0.38), "middle": (0.38, 0.55), "long": (0.6, 0.66)}
    return float(rng.uniform(*spans[str(length)]))


def _top(rng: Generator, low: float, sleeve: float) -> np.ndarray:
    g = _row(rng, p.TOP)
    g[p.LOW], g[p.SLEEVE], g[p.HIGH] = low, sleeve, 1.0
    g[p.NECK] = rng.uniform(0.395, 0.43) if rng.random() < 0.8 else rng.uniform(0.44, 0.49)
    g[p.DROP] = rng.uniform(0.0, 0.05)
    g[p.VDEPTH] = rng.uniform(0, 0.14) if rng.random() < 0.4 else 0
    g[p.VWIDTH] = rng.uniform(0.04, 0.12)
    loose = rng.random() ** 1.5
    g[p.THICKNESS] = 0.002 + 0.010 * loose
    g[p.FLARE] = 0.028 * loose * rng.uniform(0.3, 1)
    g[p.WRINKLE] = rng.uniform(0.001, 0.003) + 0.008 * loose * rng.random()
    _cloth(rng, g)
    return g


def _bottom(rng: Generator, high: float, low: float) -> np.ndarray:
    g = _row(rng, p.BOTTOM)
    g[p.HIGH], g[p.LOW] = high, low
    loose = rng.random() ** 1.5
    g[p.THICKNESS] = 0.002 + 0.007 * loose
    g[p.FLARE] = rng.uniform(0, 0.03) * loose
    g[p.WRINKLE] = rng.uniform(0.001, 0.003) + 0.006 * loose * rng.random()
    _cloth(rng, g, patterned=0.2)
    if rng.random() < 0.35:  # jeans
        tone = np.array([52, 74, 108]) * rng.uniform(0.35, 1.6)
        _color(g, p.COLOR_A, tone * 0.8)
        _color(g, p.COLOR_B, tone * 1.35 + 12)
        g[p.PATTERN], g[p.FREQUENCY], g[p.DUTY] = p.FINE, rng.uniform(150, 500), rng.uniform(0.3, 1)
    return g


def _shoes(rng: Generator) -> list[np.ndarray]:
    shoes, rows = _row(rng, p.SHOES), []
    shoes[p.HIGH] = rng.choice(
        [rng.uniform(-0.915, -0.885), rng.uniform(-0.885, -0.85), rng.uniform(-0.8, -0.6)], p=[0.5, 0.38, 0.12]
    )
    shoes[p.THICKNESS] = rng.uniform(0.004, 0.013)
    _cloth(rng, shoes, patterned=0.15)
    shoes[p.SHINE] = rng.uniform(0, 0.3)
    if rng.random() < 0.5:
        socks = _row(rng, p.SOCKS)
        socks[p.HIGH], socks[p.THICKNESS] = shoes[p.HIGH] + rng.uniform(0.01, 0.2), 0.002
        _cloth(rng, socks, patterned=0.2)
        rows.append(socks)
    return rows + [shoes]


def _row(rng: Generator, kind: int) -> np.ndarray:
    g = np.zeros(p.COLUMNS)
    g[p.KIND], g[p.OPACITY], g[p.SEED], g[p.VWIDTH] = kind, 1.0, rng.uniform(0, 32), 0.1
    return g


def _cloth(rng: Generator, g: np.ndarray, patterned: float = 0.45) -> None:
    """Colours, pattern and finish of a piece of cloth."""
    colors = [_cloth_color(rng) for _ in range(3)]
    for start, color in zip((p.COLOR_A, p.COLOR_B, p.COLOR_C), colors, strict=True):
        _color(g, start, color)
    g[p.PATTERN] = rng.integers(1, 9) if rng.random() < patterned else p.SOLID
    pattern = int(g[p.PATTERN])
    spans = {p.BLOTCHES: (8, 40), p.PRINT: (15, 60), p.FINE: (100, 500), p.DOTS: (15, 60), p.GRADIENT: (1, 1)}
    g[p.FREQUENCY] = np.exp(rng.uniform(*np.log(spans.get(pattern, (8, 70)))))
    g[p.DUTY] = rng.uniform(0.15, 0.75)
    if pattern == p.FINE:
        _color(g, p.COLOR_B, colors[0] * rng.uniform(0.6, 1.5))
    g[p.BUMP] = rng.uniform(0.05, 0.42)
    g[p.SHINE] = rng.uniform(0, 0.06) if rng.random() < 0.85 else rng.uniform(0.1, 0.4)


def _cloth_color(rng: Generator) -> np.ndarray:
    if rng.random() < 0.76:
        return (_CLOTH_TONES[rng.integers(len(_CLOTH_TONES))] * rng.normal(1, 0.12, 3) * rng.uniform(0.75, 1.2)).clip(
            3, 248
        )
    return _any_color(rng)


def _any_color(rng: Generator) -> np.ndarray:
    hue, saturation, value = rng.random(), rng.beta(1.4, 1.8), rng.uniform(0.15, 0.95)
    ramp = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return 255 * value * (1 - saturation * (1 - ramp.clip(0, 1)))


def _mix(rng: Generator, tones: np.ndarray, weight: np.ndarray) -> np.ndarray:
    a, b = tones[rng.choice(len(tones), 2, p=weight / weight.sum())]
    t = rng.beta(0.5, 2)
    return (a * (1 - t) + b * t) * rng.normal(1, 0.04, 3)


def _linear(srgb_255: np.ndarray) -> np.ndarray:
    return srgb_to_linear(np.clip(srgb_255, 0, 255) / 255)


def _color(g: np.ndarray, start: int, srgb_255: np.ndarray) -> None:
    g[start : start + 3] = _linear(srgb_255)
