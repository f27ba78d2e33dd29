"""From a person's box to the crop that a network sees, and back.

Pixels are continuous with the first pixel's centre at 0 (OpenCV's convention), boxes are (x0, y0, x1, y1). A crop is an
affine map, 2×3, between picture and crop pixels; apply it to points with `apply_affine`, to pictures with `warp`, to
cameras with `camera.warp_camera`, and all three stay together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wholebody.errors import BadInput

if TYPE_CHECKING:
    from jaxtyping import Float64, Shaped

Array = NDArray[np.float64]


def fit_box(box_xyxy: ArrayLike, aspect: float = 384 / 512, enlarge: float = 1.25) -> Float64[np.ndarray, "*b 4"]:
    """Boxes (..., 4) widened or heightened about their centre to `aspect` (width over height), then enlarged.

    The published preparation of a person's box, after the box has been cut to the picture.
    """
    box = np.asarray(box_xyxy, np.float64)
    if not np.isfinite(box).all() or (box[..., 2:] <= box[..., :2]).any():
        raise BadInput(f"a box must have finite corners with x0 < x1 and y0 < y1, got {box.tolist()}")
    low, high = box[..., :2], box[..., 2:]
    width, height = np.moveaxis(high - low, -1, 0)
    size = np.stack([np.maximum(width, height * aspect), np.maximum(height, width / aspect)], -1) * enlarge
    centre = (low + high) / 2
    return np.concatenate([centre - size / 2, centre + size / 2], -1)


def fit_crop(box_xyxy: ArrayLike, image_hw: tuple[int, int], enlarge: float) -> Float64[np.ndarray, " 4"]:
    """A person's box (4,) → the box (4,) that a network's crop shows: cut to the picture, made 3:4, enlarged.

    Args:
        box_xyxy: corners in the middle of the outermost pixels.
        enlarge: as the network was trained, `NetworkConfig.box_enlarge`.

    Raises BadInput if less than 2 pixels of the box, across or down, are inside the picture.
    """
    box = np.asarray(box_xyxy, np.float64)
    # What lies outside the picture is cut off, not shifted in.
    low, high = np.maximum(box[:2], 0), np.minimum(box[2:], np.array(image_hw[::-1]) - 1)
    if (high <= low).any():
        corners = ", ".join(f"{value:g}" for value in box)
        raise BadInput(
            f"box [{corners}] has less than 2 pixels inside the picture, which is {image_hw[1]}×{image_hw[0]}."
        )
    return fit_box(np.concatenate([low, high]), enlarge=enlarge)


def box_around(
    points: ArrayLike, valid: ArrayLike | None = None, enlarge: float = 1.2
) -> Float64[np.ndarray, " 4"]:
    """The box (4,) about the valid ones of some points (N, 2), enlarged about its centre.

    Raises BadInput if no point is valid.
    """
    chosen = np.asarray(points, np.float64)
    if valid is not None:
        chosen = chosen[np.asarray(valid).reshape(-1) > 0]
    if len(chosen) == 0:
        raise BadInput("no valid point to draw a box around")
    low, high = chosen.min(0), chosen.max(0)
    centre, half = (low + high) / 2, (high - low) / 2 * enlarge
    return np.concatenate([centre - half, centre + half])


def crop_affine(
    box_xyxy: ArrayLike,
    rotation: float = 0.0,
    scale: float = 1.0,
    flip: bool = False,
    out_hw: tuple[int, int] = (512, 384),
) -> tuple[Float64[np.ndarray, "2 3"], Float64[np.ndarray, "2 3"]]:
    """The maps (crop_from_image, image_from_crop), 2×3 each, of a box (4,) onto a crop of `out_hw` pixels.

    Args:
        rotation: radians; the box turns clockwise in the picture, so its content turns counter-clockwise in the crop.
        scale: the box is enlarged by this factor about its centre first.
        flip: mirror the content left to right. (The published code mirrors the whole picture and the box instead; the
            resulting crop is the same.)
    """
    box = np.asarray(box_xyxy, np.float64)
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
        raise BadInput(f"a box to crop must be four finite numbers with x0 < x1 and y0 < y1, got {box.tolist()}")
    centre, size = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * scale
    out_wh = np.array([out_hw[1], out_hw[0]], np.float64)
    cos, sin = np.cos(rotation), np.sin(rotation)
    linear = (out_wh / size)[:, None] * np.array([[cos, sin], [-sin, cos]])
    if flip:
        linear = linear @ np.diag([-1.0, 1.0])
    crop_from_image = np.column_stack([linear, out_wh / 2 - linear @ centre])
    return crop_from_image, invert_affine(crop_from_image)


def invert_affine(affine: ArrayLike) -> Float64[np.ndarray, "*b 2 3"]:
    """The inverse (..., 2, 3) of affine maps (..., 2, 3)."""
    affine = np.asarray(affine, np.float64)
    linear = np.linalg.inv(affine[..., :2])
    return np.concatenate([linear, -linear @ affine[..., 2:]], -1)


def compose_affine(second: ArrayLike, first: ArrayLike) -> Float64[np.ndarray, "2 3"]:
    """The map (2, 3) that applies `first`, then `second`."""
    second, first = np.asarray(second, np.float64), np.asarray(first, np.float64)
    linear = second[..., :2] @ first
    linear[..., 2] += second[..., 2]
    return linear


def apply_affine(points: ArrayLike, affine: ArrayLike) -> Float64[np.ndarray, "*b 2"]:
    """Points (..., 2) moved by an affine map (2, 3)."""
    affine = np.asarray(affine, np.float64)
    return np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]


def warp(
    image: Shaped[np.ndarray, "h w *c"], affine: ArrayLike, out_hw: tuple[int, int], antialias: bool = False
) -> Shaped[np.ndarray, "oh ow *c"]:
    """The picture (H, W) or (H, W, C) under `affine` (crop from image), bilinear, black outside; dtype is kept.

    antialias: average where the crop is coarser than the picture. Published weights were trained without, so
    they want it off.
    """
    import cv2

    affine = np.asarray(affine, np.float64)
    height, width = out_hw
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    fine = int(np.ceil(shrink - 1e-6)) if antialias else 1
    if fine <= 1:
        return cv2.warpAffine(image, affine, (width, height), flags=cv2.INTER_LINEAR)
    # Sampled `fine` times as densely, then averaged: sub-pixel i of pixel x lies at x + (i + 0.5) / fine - 0.5.
    denser = affine * fine
    denser[:, 2] += (fine - 1) / 2
    dense = cv2.warpAffine(image, denser, (width * fine, height * fine), flags=cv2.INTER_LINEAR)
    return cv2.resize(dense, (width, height), interpolation=cv2.INTER_AREA)
