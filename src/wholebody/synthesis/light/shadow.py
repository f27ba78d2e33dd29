"""The shadow that a person throws on the ground: a coarse picture, to darken whatever background comes behind."""

from __future__ import annotations

import cv2
import numpy as np

from wholebody.drawing.compiled import compiled

STEP = 4
"""Pixels of the layer per pixel of its shadow."""
_HIGH_M = 0.35  # what is higher than this throws a softer shadow


def cast_shadow(
    points: np.ndarray, up: np.ndarray, sun_direction: np.ndarray, share: float, focal: float, principal: np.ndarray,
    size_hw: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """How much light the ground lacks, (h/4, w/4) uint8, 255: all of it. The ground lies under the lowest of `points`
    (V,3); `up` and `sun_direction` (3,) in their frame; `share` of the light is the sun's."""
    height, width = -(-size_hw[0] // STEP), -(-size_hw[1] // STEP)
    cx, cy = (principal + 0.5) / STEP - 0.5
    above = points @ up.astype(np.float32)
    ground = np.float32(np.quantile(above, 0.003))
    above = np.maximum(above - ground, 0)
    slope = float(sun_direction @ up)
    seen = np.zeros((3, height, width), np.float32)
    f, own = np.float32(focal / STEP), up.astype(np.float32)
    if slope > 0.12 and share > 0.02:
        along = (sun_direction / slope).astype(np.float32)
        _splat(points, above, along, f, cx, cy, np.float32(_HIGH_M), seen)
    _splat_contact(points, above, own, f, cx, cy, seen[2])
    low, high = cv2.GaussianBlur(seen[0], (0, 0), 0.8), cv2.GaussianBlur(seen[1], (0, 0), 1.8)
    contact = cv2.GaussianBlur(seen[2], (0, 0), 2.0)
    lit = (1 - share * np.maximum(low, high).clip(0, 1)) * (1 - 0.45 * contact.clip(0, 1))
    return (255 * (1 - lit) + 0.5).clip(0, 255).astype(np.uint8)


@compiled()
def _splat(points, above, along, focal, cx, cy, high, seen):
    """Mark where points land on the ground along a direction: low ones in seen[0], high ones in seen[1]."""
    rows, cols = seen.shape[1:]
    for i in range(points.shape[0]):
        h = above[i]
        z = points[i, 2] - along[2] * h
        if z < 0.2:
            continue
        x = int(np.floor(focal * (points[i, 0] - along[0] * h) / z + cx))
        y = int(np.floor(focal * (points[i, 1] - along[1] * h) / z + cy))
        layer = seen[0] if h < high else seen[1]
        for yy in range(max(y, 0), min(y + 2, rows)):
            for xx in range(max(x, 0), min(x + 2, cols)):
                layer[yy, xx] = 1


@compiled()
def _splat_contact(points, above, up, focal, cx, cy, seen):
    """Mark what stands on the ground or nearly does."""
    rows, cols = seen.shape
    for i in range(points.shape[0]):
        h = above[i]
        near = 1 - h / np.float32(0.12)
        z = points[i, 2] - up[2] * h
        if near <= 0 or z < 0.2:
            continue
        x = int(np.floor(focal * (points[i, 0] - up[0] * h) / z + cx))
        y = int(np.floor(focal * (points[i, 1] - up[1] * h) / z + cy))
        for yy in range(max(y, 0), min(y + 2, rows)):
            for xx in range(max(x, 0), min(x + 2, cols)):
                seen[yy, xx] = max(seen[yy, xx], near)


def warp_shadow(shadow: np.ndarray, affine: np.ndarray, out_hw: tuple[int, int]) -> np.ndarray:
    """The shadow (h,w uint8) in a picture that pixels of the layer come to by `affine` (2,3)."""
    middle = 0.5 * STEP - 0.5
    to_picture = np.concatenate([affine[:, :2] * STEP, (affine @ [middle, middle, 1])[:, None]], axis=1)
    return cv2.warpAffine(shadow, to_picture, (out_hw[1], out_hw[0]), flags=cv2.INTER_LINEAR)


def darken(picture: np.ndarray, shadow: np.ndarray) -> np.ndarray:
    """A background (h,w,3 uint8) with the shadow (h,w uint8) on it. The shadow is of light, the picture encoded for
    eyes: about its square root."""
    return (picture.astype(np.uint16) * _ENCODED[shadow][..., None] >> 8).astype(np.uint8)


_ENCODED = np.round(256 * np.sqrt(1 - np.arange(256) / 255)).clip(0, 256).astype(np.uint16)
