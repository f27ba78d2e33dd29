"""What happens to a person and a picture on their way into training: framing, occlusion, light, noise.

Every function takes a `numpy.random.Generator`, so that a sample is a function of its seed alone.
Pictures are H×W×3 uint8 RGB unless said otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator

from wholebody.body.joints import JOINTS_137
from wholebody.geometry.crop import crop_affine, fit_box

CROP_HW = (512, 384)
"""The frame of all crop targets, in pixels; pictures may be sampled more coarsely than it."""


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges and probabilities of the training augmentations."""

    scale: float = 0.25
    """The box is scaled by a factor in [1 - scale, 1 + scale]."""
    scale_normal: bool = False
    """The factor is 1 + scale × a normal number cut at ±1, as published; else it is evenly spread."""
    shift: float = 0.08
    """The box's centre moves by up to this fraction of its side: a detector's boxes are never exact."""
    rotation_probability: float = 0.5
    rotation_sigma_deg: float = 18.0
    rotation_limit_deg: float = 50.0
    flip_probability: float = 0.5
    closeup_probability: float = 0.25
    """How often the frame holds a part of the person only (upper body, head and shoulders)."""
    truncate_probability: float = 0.0
    """How often one side of the box is cut off, as at the border of a photo."""
    occlude_probability: float = 0.3
    person_occlude_probability: float = 0.12
    colour: float = 0.25
    blur_probability: float = 0.25
    low_resolution_probability: float = 0.2
    noise_probability: float = 0.35
    jpeg_probability: float = 0.4
    grey_probability: float = 0.04
    channel_gain: float = 0.0
    """Each colour channel is multiplied by a factor in [1 - channel_gain, 1 + channel_gain], as published."""


NOTHING = AugmentConfig(
    scale=0, shift=0, rotation_probability=0, flip_probability=0, closeup_probability=0, occlude_probability=0,
    person_occlude_probability=0, colour=0, blur_probability=0, low_resolution_probability=0, noise_probability=0,
    jpeg_probability=0, grey_probability=0,
)  # fmt: skip
PUBLISHED = replace(
    NOTHING, scale=0.25, scale_normal=True, rotation_probability=0.6, rotation_sigma_deg=30, rotation_limit_deg=60,
    flip_probability=0.5, channel_gain=0.2,
)  # fmt: skip
"""What the published code does to every set."""


def random_crop(
    box_xyxy: np.ndarray,
    joints_px: np.ndarray,
    rng: Generator,
    config: AugmentConfig,
    joint_valid: np.ndarray | None = None,
    enlarge: float = 1.25,
) -> np.ndarray:
    """A random 2×3 map from picture pixels to the crop of `CROP_HW`: framing, rotation, mirror.

    Boxes, joints, rotations and the camera follow from this map: see `framing.in_crop`.

    Args:
        box_xyxy: (4,) of the person.
        joints_px: (137, 2), where a part of the person is framed.
        joint_valid: (137,) bool; None: all.
        enlarge: by how much the box, made 3:4, is enlarged before it is moved and scaled.
    """
    if rng.random() < config.closeup_probability:
        box_xyxy = _closeup_box(box_xyxy, joints_px, joint_valid, rng)
    if config.truncate_probability and rng.random() < config.truncate_probability:
        box_xyxy = _truncated_box(box_xyxy, rng)
    box = fit_box(np.asarray(box_xyxy, np.float64), enlarge=enlarge)
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    centre = centre + size * rng.uniform(-config.shift, config.shift, 2)
    factor = rng.normal() if config.scale_normal else rng.uniform(-1, 1)
    size = size * (1 + config.scale * float(np.clip(factor, -1, 1)))
    box = np.concatenate([centre - size / 2, centre + size / 2])
    angle = 0.0
    if rng.random() < config.rotation_probability:
        limit = config.rotation_limit_deg
        angle = float(np.clip(rng.normal(0, config.rotation_sigma_deg), -limit, limit))
    flip = bool(rng.random() < config.flip_probability)
    return crop_affine(box, np.radians(angle), flip=flip, out_hw=CROP_HW)[0]


_UPPER = [JOINTS_137.index(n) for n in ("L_Hip", "R_Hip", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "Nose")]
_HEAD = [JOINTS_137.index(n) for n in ("L_Shoulder", "R_Shoulder", "Neck", "Nose", "L_Ear", "R_Ear", "L_Eye", "R_Eye")]


def _closeup_box(
    box_xyxy: np.ndarray, joints_px: np.ndarray, joint_valid: np.ndarray | None, rng: Generator
) -> np.ndarray:
    """A detector's box when only the upper body, or head and shoulders, are in the photo."""
    rows = _UPPER if rng.random() < 0.7 else _HEAD
    points = joints_px[rows]
    low, high = points.min(0), points.max(0)
    margin = (0.15 + 0.2 * rng.random()) * np.maximum(high - low, 0.3 * (high - low).max())
    low, high = np.maximum(low - margin, box_xyxy[:2]), np.minimum(high + margin, box_xyxy[2:])
    if (high - low).min() < 12 or (joint_valid is not None and not joint_valid[rows].all()):
        return box_xyxy
    return np.concatenate([low, high])


def _truncated_box(box_xyxy: np.ndarray, rng: Generator) -> np.ndarray:
    """The box without a sixth to a half of its height or width, on one side. More often the feet than the head."""
    box = np.array(box_xyxy, np.float64)
    side = rng.choice(4, p=(0.2, 0.1, 0.2, 0.5))  # left, top, right, bottom
    cut = rng.uniform(1 / 6, 1 / 2) * (box[2:] - box[:2])[side % 2]
    box[side] += cut if side < 2 else -cut
    return box


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


def own_texture(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """Something to cover a picture with, of its size: a piece of itself, enlarged, mirrored and in other colours."""
    height, width = picture.shape[:2]
    h, w = int(height * rng.uniform(0.15, 0.5)), int(width * rng.uniform(0.15, 0.5))
    y, x = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
    piece = cv2.resize(picture[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(piece[::-1, :, rng.permutation(3)])


def channel_gains(picture: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Each colour channel times its gain (3,), rounded and cut at white: the published change of colour."""
    table = np.rint(np.arange(256)[:, None] * gains).clip(0, 255).astype(np.uint8)
    return cv2.LUT(picture, table.reshape(256, 1, 3))


def blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`above` over `below`; alpha H×W uint8. One call of OpenCV's: this runs once or more per training sample."""
    share = alpha.astype(np.float32) / 255
    return cv2.blendLinear(above, below, share, 1 - share)


def photometric(picture: np.ndarray, rng: Generator, config: AugmentConfig) -> np.ndarray:
    """Exposure, white balance, contrast, blur, resolution, sensor noise and JPEG, as a cheap camera would give."""
    if config.channel_gain:
        picture = channel_gains(picture, rng.uniform(1 - config.channel_gain, 1 + config.channel_gain, 3))
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
    if config.colour:
        picture = _expose(picture, rng, config)
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


def _expose(picture: np.ndarray, rng: Generator, config: AugmentConfig) -> np.ndarray:
    cast = 0.4 * config.colour
    gain = rng.uniform(1 - config.colour, 1 + config.colour) * rng.uniform(1 - cast, 1 + cast, 3)
    contrast = rng.uniform(1 - config.colour, 1 + config.colour)
    gamma = np.exp(rng.uniform(-config.colour, config.colour))
    levels = np.arange(256, dtype=np.float32)[:, None] / 255
    curve = ((levels**gamma - 0.5) * contrast + 0.5) * gain.astype(np.float32)
    table = (255 * curve).clip(0, 255).astype(np.uint8)
    return cv2.LUT(picture, table.reshape(256, 1, 3))


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
