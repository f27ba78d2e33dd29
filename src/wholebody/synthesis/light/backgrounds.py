"""Backgrounds: pieces of environment maps, photos if there are any, and clutter with edges."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from wholebody.errors import BadInput
from wholebody.files.image import read_stored
from wholebody.synthesis.config import material
from wholebody.synthesis.light.environment import Environment, load_environments, tone_map, view
from wholebody.synthesis.light.rooms import room

_CUT = 352  # side of the pre-cut pieces, pixels


class BackgroundBank:
    """Pre-cut pictures that backgrounds are taken from in well under a millisecond. The same arguments give the same
    bank. `split` says which environment maps ("heldout": those that training never sees)."""

    def __init__(
        self, hdri: str | Path | None = None, photos: str | Path | None = None, seed: int = 0, size: int = 224,
        split: str = "train",
    ):  # fmt: skip
        rng = np.random.default_rng((seed, 4242))
        environments = load_environments(material("hdri", None if hdri is None else str(hdri)), split=split)
        found = _photos(photos) if photos else []
        surfaces = [_surface(rng, environments) for _ in range(40)]
        self.pieces: list[np.ndarray] = []
        for k in range(size):
            kind = rng.random()
            if found and kind < 0.5:
                piece = _photo_piece(rng, found[k % len(found)])
            elif kind < 0.3:
                piece = _view_piece(rng, environments)
            elif kind < 0.6:
                piece = _panorama_piece(rng, environments)
            elif kind < 0.8:
                piece = room(rng, _CUT, lambda: _any_surface(rng, surfaces))
                if rng.random() < 0.3:
                    piece = cv2.GaussianBlur(piece, (0, 0), rng.uniform(0.5, 3))
            else:
                piece = clutter(rng, environments, surfaces)
            self.pieces.append(np.ascontiguousarray(piece))

    def sample(self, rng: Generator, height: int, width: int) -> np.ndarray:
        """A background (height, width, 3) uint8 RGB: a random part of a random piece, mirrored, zoomed, relit."""
        piece = self.pieces[rng.integers(len(self.pieces))]
        side = piece.shape[0]
        fit = min(side / height, side / width)
        zoom = fit * rng.uniform(0.45, 1.0)
        h, w = int(height * zoom), int(width * zoom)
        y, x = int(rng.integers(0, side - h + 1)), int(rng.integers(0, side - w + 1))
        cut = piece[y : y + h, x : x + w]
        if rng.random() < 0.5:
            cut = cut[:, ::-1]
        out = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)
        return cv2.convertScaleAbs(out, alpha=rng.uniform(0.6, 1.35), beta=rng.uniform(-15, 15))


def _photos(folder: str | Path) -> list[Path]:
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not found:
        raise BadInput(f"no photos (.jpg, .png, .webp) in {folder}")
    return found


def _photo_piece(rng: Generator, path: Path) -> np.ndarray:
    image = read_stored(path, cv2.IMREAD_COLOR)
    side = int(min(image.shape[:2]) * rng.uniform(0.6, 1))
    y, x = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
    return cv2.resize(image[y : y + side, x : x + side, ::-1], (_CUT, _CUT), interpolation=cv2.INTER_AREA)


def _expose(rng: Generator, radiance: np.ndarray) -> np.ndarray:
    middle = np.exp(np.log(np.maximum(radiance.mean(-1), 1e-4)).mean())
    return tone_map(radiance * (rng.uniform(0.15, 0.5) / max(middle, 1e-4)))


def _view_piece(rng: Generator, environments: list[Environment]) -> np.ndarray:
    """A photo's field of view: soft, as behind a portrait, because maps are coarse."""
    environment = environments[rng.integers(len(environments))]
    yaw, pitch = rng.uniform(-np.pi, np.pi), np.radians(rng.normal(5, 15))
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    cam = turn @ np.diag([1.0, -1.0, -1.0]) @ tilt
    focal = _CUT * np.exp(rng.uniform(np.log(0.35), np.log(1.2)))
    picture = _expose(rng, view(environment.panorama, cam, focal, np.array([_CUT / 2, _CUT / 2]), (_CUT, _CUT)))
    return add_grain(rng, picture) if rng.random() < 0.5 else picture


def _panorama_piece(rng: Generator, environments: list[Environment]) -> np.ndarray:
    """A part of the map as it is stored: stretched like no photo, but with sharp detail."""
    panorama = environments[rng.integers(len(environments))].panorama
    h, w = panorama.shape[:2]
    side = int(h * rng.uniform(0.55, 1.0))
    y, x = int(rng.integers(0, h - side + 1)), int(rng.integers(0, w))
    rolled = np.roll(panorama, -x, axis=1)[y : y + side, :side]
    return cv2.resize(_expose(rng, rolled), (_CUT, _CUT), interpolation=cv2.INTER_LINEAR)


def add_grain(rng: Generator, picture: np.ndarray) -> np.ndarray:
    """Texture of some size over a smooth picture."""
    h, w = picture.shape[:2]
    size = int(np.exp(rng.uniform(np.log(1), np.log(12))))
    noise = rng.standard_normal((h // size + 1, w // size + 1), np.float32) * np.float32(rng.uniform(0.02, 0.09)) + 1
    even = cv2.resize(noise, (w, h), interpolation=cv2.INTER_LINEAR) if size > 1 else noise[:h, :w]
    return cv2.multiply(picture, cv2.merge([even] * 3), dtype=cv2.CV_8U)


def clutter(rng: Generator, environments: list[Environment], surfaces: list[np.ndarray]) -> np.ndarray:
    """Things with edges: walls and floors, boxes, poles, blobs, stripes, pieces of maps; some of the colour of skin."""

    def surface() -> np.ndarray:
        return _any_surface(rng, surfaces)

    side = surfaces[0].shape[0]
    base = rng.random()
    picture = _panorama_piece(rng, environments) if base < 0.4 else surface()
    if 0.4 <= base < 0.75:  # a floor against a wall
        edge = int(side * rng.uniform(0.4, 0.85))
        picture[edge:] = surface()[edge:]
    for _ in range(rng.integers(2, 14)):
        mask = np.zeros((side, side), np.uint8)
        centre, kind = rng.uniform(0, side, 2), rng.random()
        at = centre.astype(int).tolist()
        if kind < 0.45:
            axes = np.exp(rng.uniform(np.log(8), np.log(side * 0.6), 2))
            angle = rng.choice([0.0, rng.uniform(0, 180)], p=[0.6, 0.4])
            corners = cv2.boxPoints(((float(centre[0]), float(centre[1])), (float(axes[0]), float(axes[1])), angle))
            cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
        elif kind < 0.7:
            axes = np.exp(rng.uniform(np.log(5), np.log(side * 0.3), 2)).astype(int).tolist()
            cv2.ellipse(mask, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        elif kind < 0.9:  # a limb-like stroke
            turn = rng.normal(0, 1, 2)
            end = (centre + turn / np.linalg.norm(turn) * rng.uniform(20, side)).astype(int).tolist()
            cv2.line(mask, at, end, 255, int(np.exp(rng.uniform(0.5, 3.6))), cv2.LINE_AA)
        else:
            walk = centre + np.cumsum(rng.normal(0, side * 0.12, (7, 2)), 0)
            cv2.fillPoly(mask, [walk.astype(np.int32)], 255, cv2.LINE_AA)
        x, y, w, h = cv2.boundingRect(mask)
        if w and h:
            part = (slice(y, y + h), slice(x, x + w))
            alpha = mask[part].astype(np.uint16)[..., None] * int(rng.integers(150, 257)) >> 8
            picture[part] = (picture[part] * (255 - alpha) + surface()[part] * alpha) // 255
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 4)) if rng.random() < 0.5 else picture


def _any_surface(rng: Generator, surfaces: list[np.ndarray]) -> np.ndarray:
    chosen = surfaces[rng.integers(len(surfaces))]
    chosen = chosen.transpose(1, 0, 2) if rng.random() < 0.5 else chosen
    return cv2.convertScaleAbs(chosen, alpha=rng.uniform(0.5, 1.3), beta=rng.uniform(-20, 20))


def _surface(rng: Generator, environments: list[Environment]) -> np.ndarray:
    """A filled square: colour with a gradient, grain, stripes, or a piece of a map."""
    kind = rng.random()
    if kind < 0.3:
        return _panorama_piece(rng, environments)
    color = rng.uniform(15, 235) + rng.normal(0, 28, 3)
    if rng.random() < 0.15:  # the colours of skin, so that colour alone does not give people away
        color = np.array([200, 150, 120]) * rng.uniform(0.35, 1.2)
    ramp = np.linspace(-1, 1, _CUT)[:, None, None] * rng.normal(0, 25, 3)
    picture = np.broadcast_to(color + (ramp if rng.random() < 0.5 else ramp.transpose(1, 0, 2)), (_CUT, _CUT, 3)).copy()
    if kind < 0.5:
        y, x = np.mgrid[:_CUT, :_CUT]
        angle, period = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)]), np.exp(rng.uniform(np.log(4), np.log(80)))
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
        picture += (wave > rng.uniform(-0.9, 0.9))[..., None] * rng.normal(0, 50, 3)
    picture = picture.clip(0, 255).astype(np.uint8)
    return add_grain(rng, picture) if rng.random() < 0.7 else picture
