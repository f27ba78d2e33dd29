"""Regions: the rotated squares of a picture that the landmarkers look at.

A region is four numbers: x and y of its middle in pixels of the picture (the first pixel's centre at 0, as everywhere),
its side in pixels, and the angle in radians by which it is turned, clockwise as one looks at the picture. Inside a
region that is looked at with n×n pixels, places run from 0 to n, border to border.
"""

from __future__ import annotations

import numpy as np

from wholebody.geometry.crop import warp


def region_between(origin: np.ndarray, upward: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """The region (..., 4) about `origin` (..., 2) whose upper border's middle, before scaling, is `upward` (..., 2)."""
    away = upward - origin
    angle = np.arctan2(away[..., 0], -away[..., 1])
    side = 2 * scale * np.linalg.norm(away, axis=-1)
    return np.concatenate([origin, side[..., None], angle[..., None]], -1)


def turning(angle: float | np.ndarray) -> np.ndarray:
    """(..., 2, 2) which turns a region's directions into the picture's: right and down of the upright square."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def shifted(region: np.ndarray, right: float, down: float) -> np.ndarray:
    """A region (4,) moved along its own sides by fractions of them."""
    return np.concatenate([region[:2] + turning(region[3]) @ np.array([right, down]) * region[2], region[2:]])


def around(points: np.ndarray, angle: float, scale: float = 1.0) -> np.ndarray:
    """The region (4,), turned by `angle`, about some points (N, 2): their box's middle, its longer side scaled."""
    turn = turning(angle)
    inside = points @ turn
    low, high = inside.min(0), inside.max(0)
    return np.array([*(turn @ ((low + high) / 2)), scale * (high - low).max(), angle])


def cut(image: np.ndarray, region: np.ndarray, n: int) -> np.ndarray:
    """The region (4,) of a picture H×W×3 uint8, n×n×3 float32 in 0..255, black where it leaves the picture."""
    import cv2

    centre, side = np.asarray(region[:2], np.float64), float(region[2])
    corners = centre + (turning(region[3]) @ (np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]]) * side / 2)).T
    height, width = image.shape[:2]
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 3, low + 1, [width, height])
    image, centre = image[low[1] : high[1], low[0] : high[0]], centre - low
    shrink = side / n
    if shrink > 1.5:  # averaged down first, so that what is fine does not turn into false patterns
        height, width = image.shape[:2]
        small = (max(1, round(width * 1.2 / shrink)), max(1, round(height * 1.2 / shrink)))
        factor = np.array([width / small[0], height / small[1]])
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        centre = (centre + 0.5) / factor - 0.5
        linear = np.diag(1 / factor) @ turning(region[3]) * (side / n)
    else:
        linear = turning(region[3]) * (side / n)
    # Pixel (j, i) of the cut-out covers places j to j + 1.
    crop_from_image = np.linalg.inv(linear)
    affine = np.column_stack([crop_from_image, n / 2 - 0.5 - crop_from_image @ centre])
    return np.asarray(warp(image.astype(np.float32), affine, (n, n)), np.float32)


def to_picture(places: np.ndarray, region: np.ndarray, n: int) -> np.ndarray:
    """Places (..., 2) inside a region looked at with n×n pixels → pixels of the picture."""
    return np.asarray(region[:2]) + (np.asarray(places, np.float64) / n - 0.5) * region[2] @ turning(region[3]).T


def into_region(points: np.ndarray, region: np.ndarray, n: int) -> np.ndarray:
    """Pixels of the picture (..., 2) → places inside a region looked at with n×n pixels."""
    return ((np.asarray(points, np.float64) - region[:2]) @ turning(region[3]) / region[2] + 0.5) * n
