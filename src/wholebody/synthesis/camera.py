"""Where the camera stands and what it frames: full bodies, half figures, heads; telephoto to wide angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from wholebody.drawing.compiled import compiled


@dataclass(frozen=True)
class Framing:
    """A person's place in the camera frame and in the pixels of a picture or layer.

    `offset` (3,) metres is added to vertices that were turned into the camera's axes; `focal_px`, `principal_px`
    (2,), and `box_xyxy`, `frame_xyxy` (4,) are in the pixels of the layer: the person inside the photo, and the
    photo's border.
    """

    offset: np.ndarray
    focal_px: float
    principal_px: np.ndarray
    box_xyxy: np.ndarray
    frame_xyxy: np.ndarray


def sample_orientations(rng: Generator, count: int) -> np.ndarray:
    """(count,3,3) world (y up, people face +z) to camera axes: level on average, sometimes steep, a little rolled."""
    pitch = np.radians(rng.normal(6, 11, count))
    steep = rng.random(count) < 0.15
    pitch = np.where(steep, np.radians(rng.uniform(-30, 40, count)), pitch).clip(np.radians(-30), np.radians(40))
    roll = np.radians(rng.normal(0, 3, count))
    c, s, cr, sr, zero, one = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll), 0 * pitch, 1 + 0 * pitch
    tilt = np.stack([one, zero, zero, zero, c, -s, zero, s, c], -1).reshape(-1, 3, 3)
    turn = np.stack([cr, -sr, zero, sr, cr, zero, zero, zero, one], -1).reshape(-1, 3, 3)
    return turn @ tilt @ np.diag([1.0, -1.0, -1.0])


# Cuts of half figures: how often, and the resting height (metres over the mean body's pelvis) below which nothing is
# framed.
_CUTS = ((0.14, -0.55, -0.35), (0.3, -0.2, -0.05), (0.22, 0.0, 0.15), (0.34, 0.2, 0.36))


def sample_framing(
    rng: Generator,
    vertices: np.ndarray,
    rest: np.ndarray,
    size_hw: tuple[int, int],
    margin: float,
    closeup_fraction: float,
) -> Framing:
    """Frame one person, given as vertices (V,3) in camera axes about the origin and their place on the resting body."""
    height, width = size_hw
    closeup = rng.random() < closeup_fraction
    if closeup:
        weights = np.array([w for w, _, _ in _CUTS])
        _, low, high = _CUTS[rng.choice(len(_CUTS), p=weights / weights.sum())]
        cut = rng.uniform(low, high)
        wanted = rest[:, 1] > cut
        if cut > -0.05 and rng.random() < 0.6:  # the trunk and head decide, arms fall where they may
            wanted &= np.abs(rest[:, 0]) < 0.23
        filled = rng.uniform(0.7, 1.0)
    else:
        wanted = np.ones(len(rest), bool)
        filled = rng.uniform(0.35, 0.98)
    coarse = slice(None, None, 7)  # enough vertices for the distance; the boxes below take all
    points = np.ascontiguousarray(vertices[coarse][wanted[coarse]])
    centre = 0.5 * (points.min(0) + points.max(0))

    landscape = rng.random() < 0.5
    photo_hw = np.array([1.0, rng.uniform(1.3, 1.8)]) if landscape else np.array([1.0, rng.uniform(0.55, 1.0)])
    millimetres = np.exp(rng.uniform(np.log(24), np.log(200 if not closeup else 135)))
    reach = millimetres / 43.27 * np.hypot(*photo_hw) / filled  # focal length over the height of the framed part
    # Where in the photo: tangents of the direction to the part's centre.
    room = np.maximum(photo_hw[::-1] / filled - 0.8, 0.05)
    aside = rng.uniform(-0.5, 0.5, 2) * room / reach
    aside = aside.clip(-0.6, 0.6)

    def placed(distance: float) -> np.ndarray:
        return np.array([aside[0], aside[1], 1.0]) * distance - centre

    everything = np.ones(len(points), bool)

    def extent(distance: float) -> float:
        """Height of the 3:4 box around the part from there, at focal length 1."""
        left, top, right, bottom = _bounds(points, everything, placed(distance))[:4]
        return max(bottom - top, (right - left) * 4 / 3)

    nearest = 0.42 + float(centre[2] - vertices[:, 2].min())
    distance = max(2.0, nearest)
    for _ in range(6):
        distance = float(np.clip(distance * extent(distance) * reach, nearest, 60))
    offset = placed(distance)
    bounds = _bounds(vertices, wanted, offset)
    low, high, body_low, body_high = bounds[:2], bounds[2:4], bounds[4:6], bounds[6:]
    size = high - low
    if closeup:
        # The photo ends at the cut, and somewhere beyond the part on the other sides.
        around = rng.uniform([0.05, 0.05, 0.1, 0.0], [0.5, 0.3, 0.5, 0.04])
        if rng.random() < 0.15:
            around[1] = -0.06  # the crown is cut off
        frame = np.concatenate([low - around[:2] * size, high + around[2:] * size])
    else:
        photo = photo_hw[::-1] * max(size[1], 0.75 * size[0]) / filled
        middle = 0.5 * (low + high)
        shift = rng.uniform(-0.5, 0.5, 2) * np.maximum(photo - size, 0)
        frame = np.concatenate([middle + shift - photo / 2, middle + shift + photo / 2])
        if rng.random() < 0.12:  # one side of the person is outside
            side = rng.integers(4)
            by = rng.uniform(0.03, 0.25) * size[side % 2]
            frame[side] = low[side] + by if side < 2 else high[side - 2] - by
        frame = np.where(
            np.array([1, 1, -1, -1]) > 0, frame, np.maximum(frame, np.concatenate([low, low + 0.2 * size]))
        )
    low, high = np.maximum(body_low, frame[:2]), np.minimum(body_high, frame[2:])
    size = np.maximum(high - low, 1e-3)
    focal = height / margin / max(size[1], size[0] * 4 / 3)
    principal = np.array([width - 1, height - 1]) / 2 - focal * 0.5 * (low + high)
    box = np.concatenate([low, low + size]) * focal + np.tile(principal, 2)
    return Framing(offset, float(focal), principal, box, frame * focal + np.tile(principal, 2))


@compiled()
def _bounds(points, wanted, offset):
    """Bounds of the projection at focal length 1 of moved points (V,3): xyxy of the wanted ones, then of all."""
    out = np.array([1e9, 1e9, -1e9, -1e9, 1e9, 1e9, -1e9, -1e9])
    for i in range(points.shape[0]):
        z = max(points[i, 2] + offset[2], 0.05)
        x, y = (points[i, 0] + offset[0]) / z, (points[i, 1] + offset[1]) / z
        out[4], out[5], out[6], out[7] = min(out[4], x), min(out[5], y), max(out[6], x), max(out[7], y)
        if wanted[i]:
            out[0], out[1], out[2], out[3] = min(out[0], x), min(out[1], y), max(out[2], x), max(out[3], y)
    return out
