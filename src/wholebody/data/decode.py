"""From a picture's file to a person's crop, doing no more work than the crop shows.

A JPEG is decoded at a half, a quarter or an eighth of its size where the crop is that much coarser, and warped as
uint8. Of the decoders tried (see docs/loading.md) simplejpeg is the fastest, gives RGB, and refuses what is cut off;
what it does not take, any other format included, Pillow reads.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from wholebody.data.shards import read_member, split_member
from wholebody.errors import BadInput
from wholebody.files.reading import read_bytes
from wholebody.geometry.crop import apply_affine, compose_affine, invert_affine, warp

KEEP = 1.5
"""Reducing by whole factors stops where the crop is still this much coarser: sampling what is hardly finer than the
crop would blur it."""


def read_picture(root: str | Path, path: str) -> bytes:
    """The file of a picture, as an index names it: under `root`, or inside a tar under `root`."""
    member = split_member(path)
    try:
        return read_member(str(root), member) if member else read_bytes(Path(root) / path)
    except OSError as error:
        raise BadInput(f"{Path(root) / path}: cannot read the picture ({error.strerror or error})") from error


def crop_picture(
    data: bytes, crop_from_image: ArrayLike, out_hw: tuple[int, int], name: str = "picture", antialias: bool = True
) -> np.ndarray:
    """A crop (out_h, out_w, 3) uint8 RGB of an encoded picture, black outside of it.

    The EXIF tag is not followed: annotations of the published sets belong to the pixels as they are stored.

    Args:
        crop_from_image: 2×3, from the stored picture's pixels to the crop's.
        name: for messages.
        antialias: average where the crop is coarser than the picture. Without, every pixel is decoded and the crop
            sampled as the published code does.

    Raises:
        BadInput: the picture is damaged, cut off, or of no known format.
    """
    affine = np.asarray(crop_from_image, np.float64)
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    picture, factor = decode(data, shrink if antialias else 1.0, name)
    if factor > 1:
        # Pixel centres sit at integers: x_stored = (x_reduced + 0.5) factor - 0.5.
        shift = (factor - 1) / 2
        affine = compose_affine(affine, [[factor, 0, shift], [0, factor, shift]])
    return warp_smooth(picture, affine, out_hw) if antialias else warp(picture, affine, out_hw)


def decode(data: bytes, shrink: float = 1.0, name: str = "picture") -> tuple[np.ndarray, int]:
    """H×W×3 uint8 RGB of an encoded picture, its EXIF tag not followed, and the factor by which it was reduced.

    shrink: how much coarser the picture will be shown; a JPEG is reduced by the largest of 1, 2, 4, 8 that leaves
        `KEEP` of it, others are not.
    """
    import simplejpeg

    from wholebody.files.image import check_pixels, decode_image

    if data[:2] == b"\xff\xd8":
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            check_pixels(width, height, name)
            factor = max(f for f in (1, 2, 4, 8) if f == 1 or f * KEEP <= shrink)
            if colours not in ("CMYK", "YCCK"):
                least = {"min_height": -(-height // factor), "min_width": -(-width // factor)} if factor > 1 else {}
                return simplejpeg.decode_jpeg(data, **least), factor
        except ValueError:
            pass  # damaged, or only odd (bytes between segments): Pillow tells the two apart
    return decode_image(data, name, [], upright=False), 1


def warp_smooth(picture: np.ndarray, affine: np.ndarray, out_hw: tuple[int, int]) -> np.ndarray:
    """As `warp(antialias=True)` shows it, several times as fast: the part that is seen is averaged down by whole
    factors and smoothed by what remains, then sampled once. uint8 all the way."""
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    if shrink <= np.sqrt(2):  # bilinear sampling is as wide as that
        return warp(picture, affine, out_hw)
    part, offset = _seen(picture, affine, out_hw, margin=2 * shrink)
    affine = compose_affine(affine, [[1, 0, offset[0]], [0, 1, offset[1]]])
    factor = int(shrink / KEEP)
    if factor > 1 and min(part.shape[:2]) >= factor:
        # Whole cells only: `_seen` added more margin than is cut here, unless the picture itself ends.
        height, width = (side // factor * factor for side in part.shape[:2])
        part = cv2.resize(part[:height, :width], (width // factor, height // factor), interpolation=cv2.INTER_AREA)
        shift = (factor - 1) / 2
        affine = compose_affine(affine, [[factor, 0, shift], [0, factor, shift]])
        shrink /= factor
    variance = (shrink**2 - 2) / 12  # a crop's pixel has shrink²/12, of which bilinear sampling brings 1/6
    if variance > 0.03:
        part = _smooth(part, variance)
    return warp(part, affine, out_hw)


def _smooth(picture: np.ndarray, variance: float) -> np.ndarray:
    """Blurred by three taps of this variance (in pixels², below 0.6), along and across."""
    outer = min(variance / 2, 0.3)
    # OpenCV wants the sigma of the Gaussian whose three taps these are.
    return cv2.GaussianBlur(picture, (3, 3), np.sqrt(-0.5 / np.log(outer / (1 - 2 * outer))))


def _seen(
    picture: np.ndarray, affine: np.ndarray, out_hw: tuple[int, int], margin: float
) -> tuple[np.ndarray, tuple[int, int]]:
    """The part (a view) of the picture that a crop shows, and where it begins (x, y)."""
    height, width = out_hw
    corners = apply_affine([[0, 0], [width, 0], [0, height], [width, height]], invert_affine(affine))
    size = np.array([picture.shape[1], picture.shape[0]])
    low = np.clip(np.floor(corners.min(0) - margin), 0, size - 1).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin) + 1, low + 1, size).astype(int)
    return picture[low[1] : high[1], low[0] : high[0]], (int(low[0]), int(low[1]))
