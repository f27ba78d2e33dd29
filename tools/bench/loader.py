"""The loader beside the published way of loading, and an index of a million people.

`published_crop` is an honest twin of what the published code does to a picture: decode all of it, make it float32, copy
it, mirror it, warp, colour, scale. tests/data/test_decode.py holds it to the published code's arrays.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def published_crop(
    path: Path,
    box_xywh: np.ndarray,
    scale: float,
    degrees: float,
    flip: bool,
    colour: np.ndarray,
    out_hw: tuple[int, int] = (512, 384),
) -> np.ndarray:
    """3×H×W float32 in [0, 1] of the picture at `path`, by the published steps."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise OSError(f"cannot read {path}")
    picture = picture[:, :, ::-1].copy().astype(np.float32)
    picture = picture.copy()
    x, y, width, height = map(float, box_xywh)
    centre = np.array([x + 0.5 * width, y + 0.5 * height])
    if flip:
        picture = picture[:, ::-1, :]
        centre[0] = picture.shape[1] - centre[0] - 1
    affine = _affine(centre, np.array([width, height]) * scale, np.deg2rad(degrees), out_hw)
    patch = cv2.warpAffine(picture, affine, (out_hw[1], out_hw[0]), flags=cv2.INTER_LINEAR).astype(np.float32)
    patch = np.clip(patch * colour[None, None, :], 0, 255)
    return np.ascontiguousarray(patch.astype(np.float32).transpose(2, 0, 1)) / np.float32(255)


def _affine(centre: np.ndarray, size: np.ndarray, angle: float, out_hw: tuple[int, int]) -> np.ndarray:
    """From three points, as published: the centre, one below and one to the right, turned."""
    cos, sin = np.cos(angle), np.sin(angle)
    down, right = np.array([-sin, cos]) * size[1] * 0.5, np.array([cos, sin]) * size[0] * 0.5
    out_centre = np.array([out_hw[1], out_hw[0]]) * 0.5
    source = np.stack([centre, centre + down, centre + right]).astype(np.float32)
    target = np.stack([out_centre, out_centre + [0, out_hw[0] * 0.5], out_centre + [out_hw[1] * 0.5, 0]])
    return cv2.getAffineTransform(source, target.astype(np.float32))
