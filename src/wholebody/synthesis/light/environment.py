"""Light and surroundings: environment maps, read or made up, as spherical harmonics, a main light, and views for
backgrounds.

World frame of a map: y up; a direction's column is its azimuth from +z towards +x, its row the angle from the zenith.
Radiance is linear RGB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from wholebody.errors import BadInput
from wholebody.files.image import read_stored
from wholebody.files.npz import SafeNpz
from wholebody.files.reading import read_bytes
from wholebody.synthesis.config import HELDOUT_ENVIRONMENTS

# A cosine lobe over the real spherical harmonics up to order 2, divided by pi: irradiance of a white surface / pi.
_COSINE = np.array([1.0, *[2 / 3] * 3, *[1 / 4] * 5])
_NORM = np.array([0.282095, *[0.488603] * 3, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274])


@dataclass(frozen=True)
class Environment:
    """One surroundings: `panorama` (h, 2h, 3) radiance; `sh` (9,3) of all but the main light, ready for `sh_basis`;
    `sun_direction` (3,) towards the main light and `sun` (3,) its irradiance / pi."""

    name: str
    panorama: np.ndarray
    sh: np.ndarray
    sun_direction: np.ndarray
    sun: np.ndarray


def sh_basis(normals: np.ndarray) -> np.ndarray:
    """(..., 3) unit directions -> (..., 9); irradiance / pi is `sh_basis(n) @ environment.sh`."""
    x, y, z = np.moveaxis(normals, -1, 0)
    return np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], -1)


def environment_from(panorama: np.ndarray, name: str) -> Environment:
    """Split a panorama into its main light (the brightest spot) and smooth rest."""
    panorama = np.ascontiguousarray(np.nan_to_num(panorama[..., :3]).clip(0, 6e4), np.float32)
    small = cv2.resize(panorama, (128, 64), interpolation=cv2.INTER_AREA)
    rows = (np.arange(64) + 0.5) / 64 * np.pi
    solid = (np.sin(rows) * (np.pi / 64) ** 2)[:, None] * np.ones((1, 128))
    directions = _directions(64)
    luminance = small @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    mean = (luminance * solid).sum() / (4 * np.pi)
    blurred = cv2.GaussianBlur(luminance, (0, 0), 1.5, borderType=cv2.BORDER_REPLICATE)
    peak = directions[np.unravel_index(blurred.argmax(), blurred.shape)]
    lamp = ((directions @ peak) > np.cos(np.radians(20))) & (luminance > 5 * mean)
    excess = np.where(
        lamp[..., None], small * (1 - np.minimum(3 * mean / np.maximum(luminance, 1e-6), 1))[..., None], 0
    )
    sun = (excess * solid[..., None]).sum((0, 1)) / np.pi
    weight = (excess.sum(-1) * solid)[..., None]
    direction = (directions * weight).sum((0, 1)) if weight.sum() > 0 else peak
    rest = small - excess
    sh = np.einsum("hwk,hwc->kc", sh_basis(directions) * solid[..., None], rest) * (_NORM**2 * _COSINE)[:, None]
    direction = direction / (np.linalg.norm(direction) + 1e-9)
    return Environment(name, panorama, sh.astype(np.float32), direction.astype(np.float32), sun.astype(np.float32))


def _directions(height: int) -> np.ndarray:
    polar = (np.arange(height) + 0.5) / height * np.pi
    azimuth = ((np.arange(2 * height) + 0.5) / height - 1) * np.pi
    p, a = np.meshgrid(polar, azimuth, indexing="ij")
    return np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1)


def load_environments(
    folder: str | Path | None, seed: int = 0, made_up: int = 24, split: str = "all"
) -> list[Environment]:
    """The maps of a split in a folder (.npz with `rgb`, .hdr, .exr, or the `.exr.js` of npm `@pmndrs/assets`), plus
    made-up ones, others for "heldout" than for "train"."""
    return list(_load_environments(str(folder) if folder else None, seed + 1000 * (split == "heldout"), made_up, split))


@lru_cache(maxsize=4)
def _load_environments(folder: str | None, seed: int, made_up: int, split: str) -> tuple[Environment, ...]:
    found = []
    if folder:
        paths = sorted(p for p in Path(folder).rglob("*") if re.search(r"\.(npz|hdr|exr|exr\.js)$", p.name))
        if not paths:
            raise BadInput(f"no environment maps (.npz, .hdr, .exr, .exr.js) in {folder}")
        named = [(p, p.name.split(".")[0]) for p in paths]
        found = [environment_from(_read_panorama(p), name) for p, name in named if in_split(name, split)]
        made_up //= 3
    rng = np.random.default_rng((seed, 77))
    return tuple(found + [environment_from(made_up_panorama(rng), f"made_up_{k}") for k in range(made_up)])


def in_split(name: str, split: str) -> bool:
    """Whether an environment map of that name belongs to a split; "train" and "heldout" share none."""
    return split == "all" or (name in HELDOUT_ENVIRONMENTS) == (split == "heldout")


def _read_panorama(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        with SafeNpz(path) as file:
            if "rgb" not in file:
                raise BadInput(f"{path} has no array `rgb` (h, 2h, 3): it is no environment map")
            return file.array("rgb", None, None, 3).astype(np.float32)
    if path.suffix == ".hdr":
        return read_stored(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)[..., ::-1]
    try:
        import OpenEXR
    except ImportError:
        raise BadInput(f"reading {path} needs the OpenEXR package: pip install '.[synthesis]'") from None
    if path.suffix == ".js":
        import base64
        import tempfile

        match = re.search(rb"base64,([A-Za-z0-9+/=]+)", read_bytes(path))
        if not match:
            raise BadInput(f"{path} holds no base64 EXR")
        with tempfile.NamedTemporaryFile(suffix=".exr") as copy:
            copy.write(base64.b64decode(match[1]))
            copy.flush()
            return _read_exr(OpenEXR, copy.name)
    return _read_exr(OpenEXR, str(path))


def _read_exr(openexr, path: str) -> np.ndarray:
    with openexr.File(path) as file:
        return np.asarray(next(iter(file.channels().values())).pixels, np.float32)[..., :3]


def made_up_panorama(rng: Generator, height: int = 128) -> np.ndarray:
    """A sky, a ground and a few lamps or windows, so that a machine without any map has varied light."""
    d = _directions(height).astype(np.float32)
    up = d[..., 1:2]
    indoors = rng.random() < 0.5
    top, horizon, ground = rng.uniform(0.6, 1.0, (3, 3)) * rng.uniform(0.2, 1.2, (3, 1))
    ground = ground * 0.5
    t = np.abs(up) ** rng.uniform(0.4, 1.2)
    panorama = np.where(up > 0, horizon * (1 - t) + top * t, ground * (0.6 + 0.4 * t))
    noise = cv2.resize(
        rng.uniform(0.5, 1.5, (16, 32, 1)).repeat(3, 2).astype(np.float32),
        (2 * height, height),
        interpolation=cv2.INTER_CUBIC,
    )
    panorama = panorama * (noise if indoors else 0.5 + 0.5 * noise)
    for _ in range(rng.integers(1, 5)):
        towards = rng.normal(0, 1, 3)
        towards[1] = abs(towards[1]) * rng.choice([1, 0.4])
        towards /= np.linalg.norm(towards)
        radius = rng.uniform(0.05, 0.5)
        strength = np.exp(rng.uniform(0, 2.2)) * (0.25 / radius) ** 1.6
        near = np.exp(-((np.arccos((d @ towards).clip(-1, 1)) / radius) ** 4))[..., None]
        panorama = panorama + near * strength * np.array([rng.uniform(0.8, 1.1), 1.0, rng.uniform(0.6, 1.2)])
    return panorama.astype(np.float32)


def view(
    panorama: np.ndarray,
    world_from_cam: np.ndarray,
    focal_px: float,
    principal_px: np.ndarray,
    size_hw: tuple[int, int],
) -> np.ndarray:
    """The panorama through a camera (x right, y down, z forward): (h,w,3) radiance."""
    height, width = size_hw
    x = ((np.arange(width) - principal_px[0]) / focal_px).astype(np.float32)
    y = ((np.arange(height) - principal_px[1]) / focal_px).astype(np.float32)[:, None]
    m = world_from_cam.astype(np.float32)
    across, up, ahead = (m[k, 0] * x + (m[k, 1] * y + m[k, 2]) for k in range(3))
    h, w = panorama.shape[:2]
    # cv2.phase: a quick arctangent, good to 0.01 degrees.
    column = (cv2.phase(ahead, across) * np.float32(1 / np.pi) + 1) % 2 * np.float32(0.5 * w) - np.float32(0.5)
    row = cv2.phase(up, np.sqrt(across * across + ahead * ahead)) * np.float32(h / np.pi) - np.float32(0.5)
    # Linear, not cubic: cubic rings around lamps.
    return cv2.remap(panorama, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def tone_map(radiance: np.ndarray) -> np.ndarray:
    """Linear RGB with white near 1 -> sRGB uint8, bright parts rolled off softly."""
    x = np.maximum(radiance, np.float32(0))
    x = np.minimum(x / (1 + np.float32(0.18) * x), np.float32(1))
    return (np.sqrt(x) * (np.float32(237.15) + np.float32(17.85) * x) + np.float32(0.5)).astype(np.uint8)


@dataclass(frozen=True)
class Lighting:
    """The light on one person, in the camera frame: `sh` (9,3) with `normal_to_world` (3,3) for looking it up, a
    main light."""

    sh: np.ndarray
    normal_to_world: np.ndarray
    sun_direction: np.ndarray
    sun: np.ndarray
    gain: float


def sample_lighting(rng: Generator, environment: Environment, world_from_cam: np.ndarray) -> Lighting:
    """Turn an environment into light for a camera, now and then with one more lamp, exposed as a camera would,
    roughly."""
    sh, sun, direction = (
        environment.sh.astype(np.float64),
        environment.sun.astype(np.float64),
        environment.sun_direction,
    )
    base = max(float(sh[0].mean()), 1e-4)
    if rng.random() < 0.3:  # another main light: a window, a flash, a lamp
        direction = rng.normal(0, 1, 3)
        direction[1] = abs(direction[1])
        if rng.random() < 0.3:  # from the camera
            direction = -world_from_cam[:, 2] + rng.normal(0, 0.25, 3)
        direction = direction / np.linalg.norm(direction)
        sun = base * rng.uniform(0.3, 2.2) * np.array([rng.uniform(0.85, 1.15), 1.0, rng.uniform(0.7, 1.2)])
    # A sun may be a thousand times its sky; film and eyes see perhaps five.
    sun = sun * min(1.0, rng.uniform(1.0, 5.0) * base / max(float(sun.mean()), 1e-6))
    # Colour casts of real maps are strong; cameras balance most of it.
    tint = sh[0] / base
    balance = tint ** -rng.uniform(0.6, 1.0)
    sh, sun = sh * balance, sun * balance
    gain = 1.15 * np.exp(rng.normal(0, 0.25)) / (base + 0.35 * float(sun.mean()))
    return Lighting(
        (sh * gain).astype(np.float32), world_from_cam.astype(np.float32), (world_from_cam.T @
        direction).astype(np.float32), (sun * gain).astype(np.float32), float(gain),
    )  # fmt: skip
