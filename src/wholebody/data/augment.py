"""What happens to a picture on its way into training: framing, occlusion, light, noise.

Every function takes a `numpy.random.Generator`, so that a sample is a function of its seed alone.
Pictures are H×W×3 uint8 RGB unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges and probabilities of the training augmentations."""

    scale: float = 0.25
    """The box is scaled by a factor in [1 - scale, 1 + scale]."""
    shift: float = 0.08
    """The box's centre moves by up to this fraction of its side: a detector's boxes are never exact."""
    rotation_probability: float = 0.5
    rotation_sigma_deg: float = 18.0
    rotation_limit_deg: float = 50.0
    flip_probability: float = 0.5
    closeup_probability: float = 0.25
    """How often the frame holds a part of the person only (upper body, head and shoulders)."""
    occlude_probability: float = 0.3
    person_occlude_probability: float = 0.12
    colour: float = 0.25
    blur_probability: float = 0.25
    low_resolution_probability: float = 0.2
    noise_probability: float = 0.35
    jpeg_probability: float = 0.4
    grey_probability: float = 0.04


def occlude(picture: np.ndarray, texture: np.ndarray, rng: Generator) -> np.ndarray:
    """Cover part of the picture with a rotated rectangle or ellipse filled from `texture` (same size as `picture`)."""
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 3)):
        centre = rng.uniform([0, 0], [width, height])
        axes = rng.uniform([0.05 * width, 0.05 * height], [0.28 * width, 0.25 * height])
        angle = rng.uniform(0, 180)
        if rng.random() < 0.6:
            corners = cv2.boxPoints((tuple(centre), tuple(2 * axes), angle))
            cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
        else:
            cv2.ellipse(mask, (tuple(centre), tuple(2 * axes), angle), 255, -1, cv2.LINE_AA)
    return blend(picture, texture, mask)


def blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`above` over `below`; alpha H×W uint8. Integer arithmetic: this runs once or more per training sample."""
    a = alpha[..., None].astype(np.uint16)
    mixed = above.astype(np.uint16) * a + below.astype(np.uint16) * (255 - a) + 127
    return (mixed // 255).astype(np.uint8)


def photometric(picture: np.ndarray, rng: Generator, config: AugmentConfig) -> np.ndarray:
    """Exposure, white balance, contrast, blur, resolution, sensor noise and JPEG, as a cheap camera would give."""
    height, width = picture.shape[:2]
    if rng.random() < config.low_resolution_probability:
        factor = rng.uniform(0.25, 0.7)
        small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    elif rng.random() < config.blur_probability:
        if rng.random() < 0.5:
            picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
        else:
            picture = cv2.filter2D(picture, -1, _motion_kernel(int(rng.integers(3, 8)), rng.uniform(0, np.pi)))
    cast = 0.4 * config.colour
    gain = rng.uniform(1 - config.colour, 1 + config.colour) * rng.uniform(1 - cast, 1 + cast, 3)
    contrast = rng.uniform(1 - config.colour, 1 + config.colour)
    gamma = np.exp(rng.uniform(-config.colour, config.colour))
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    curve = ((levels**gamma - 0.5) * contrast + 0.5) * gain.astype(np.float32)
    table = (255 * curve).clip(0, 255).astype(np.uint8)
    picture = cv2.LUT(picture, table.reshape(256, 1, 3))
    if rng.random() < config.grey_probability:
        picture = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if rng.random() < config.noise_probability:
        # One noise tile, shifted and scaled: drawing fresh normal noise would cost more than the rest together.
        tile = _noise_tile()
        y, x = rng.integers(0, tile.shape[0] - height), rng.integers(0, tile.shape[1] - width)
        strength = rng.uniform(0.02, 0.12)
        noise = tile[y : y + height, x : x + width]
        picture = cv2.addWeighted(picture.astype(np.int16), 1.0, noise, strength, 0.0, dtype=cv2.CV_8U)
    if rng.random() < config.jpeg_probability:
        quality = int(rng.integers(25, 90))
        picture = cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)  # type: ignore
    return picture


def _motion_kernel(length: int, angle: float) -> np.ndarray:
    kernel = np.zeros((9, 9), np.float32)
    reach = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
    start, end = (4 - reach).round().astype(int), (4 + reach).round().astype(int)
    cv2.line(kernel, tuple(map(int, start)), tuple(map(int, end)), 1.0)
    return kernel / kernel.sum()


_TILE: np.ndarray | None = None


def _noise_tile() -> np.ndarray:
    global _TILE
    if _TILE is None:
        _TILE = (np.random.default_rng(0).standard_normal((640, 640, 3)) * 100).astype(np.int16)
    return _TILE
