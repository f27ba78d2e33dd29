"""The picture to look at: the photo with a mesh on every person, and beside it each of them from the side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wholebody.errors import BadInput

if TYPE_CHECKING:
    from wholebody.people.predictor import Person

MAX_SIDE = 2048  # pixels; larger photos are shown smaller
COLORS = np.array(
    [  # sRGB 0..1: told apart at a glance, also without red or green
        (0.55, 0.73, 0.92),
        (0.97, 0.70, 0.52),
        (0.62, 0.84, 0.66),
        (0.87, 0.66, 0.86),
        (0.96, 0.84, 0.50),
        (0.50, 0.82, 0.83),
        (0.93, 0.60, 0.62),
        (0.72, 0.70, 0.93),
        (0.78, 0.84, 0.52),
        (0.85, 0.76, 0.68),
    ]
)
_OUTLINE = 0.45  # how much of the colour is left at the outline
_PAPER = np.array([0.965, 0.965, 0.955], np.float32)  # behind the side views


def draw_overlay(
    image: np.ndarray,
    people: Sequence[Person],
    faces: np.ndarray,
    *,
    opacity: float = 0.9,
    side_view: bool = True,
    samples: int = 3,
) -> np.ndarray:
    """H×W×3 uint8 → the same with the people's meshes over it, `opacity` 0..1, and a panel with their side views.

    Each person is drawn with their own camera, exactly; who hides whom is decided pixel by pixel by depth over focal
    length, the only depth that compares between such cameras. Photos larger than `MAX_SIDE` are shown at that size.
    """
    if not 0 <= opacity <= 1:
        raise BadInput(f"The opacity is {opacity:g}; it must be from 0 (only the photo) to 1 (nothing seen through).")
    photo, scale = _fit(image)
    layer = _draw_people(photo.shape[:2], people, faces, scale, samples)
    seen = photo + (layer[..., :3] * 255 - photo * layer[..., 3:]) * np.float32(opacity)
    picture = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    if not side_view or not people:
        return picture
    return np.concatenate([picture, _side_panel(photo.shape[:2], people, faces, samples)], axis=1)


def encode_jpeg(picture: np.ndarray, quality: int = 93) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def _fit(image: np.ndarray) -> tuple[np.ndarray, float]:
    import cv2

    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    if scale == 1:
        return image.astype(np.float32), 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32), scale


def _draw_people(
    size_hw: tuple[int, int],
    people: Sequence[Person],
    faces: np.ndarray,
    scale: float,
    samples: int,
) -> np.ndarray:
    """(H, W, 4) float32, colour multiplied by alpha."""
    height, width = size_hw
    layer = np.zeros((height, width, 4), np.float32)
    nearest = np.full((height, width), np.inf, np.float32)
    for number, person in enumerate(people):
        focal = np.asarray(person.focal_px, np.float64) * scale
        principal = (np.asarray(person.principal_px, np.float64) + 0.5) * scale - 0.5  # pixel centres at integers
        window = covered_window(person.vertices_cam, focal, principal, size_hw)
        if window is None:
            continue
        x0, y0, x1, y1 = window
        rgba, depth = _draw_one(
            person.vertices_cam,
            faces,
            focal,
            principal - [x0, y0],
            (y1 - y0, x1 - x0),
            COLORS[number % len(COLORS)],
            samples,
        )
        depth = depth / np.float32(focal.mean())
        under, under_depth = layer[y0:y1, x0:x1], nearest[y0:y1, x0:x1]
        front = (depth < under_depth)[..., None]
        top, bottom = np.where(front, rgba, under), np.where(front, under, rgba)
        layer[y0:y1, x0:x1] = top + bottom * (1 - top[..., 3:])
        nearest[y0:y1, x0:x1] = np.minimum(depth, under_depth)
    return layer


def covered_window(
    vertices: np.ndarray,
    focal: np.ndarray,
    principal: np.ndarray,
    size_hw: tuple[int, int],
) -> tuple[int, int, int, int] | None:
    """The part of the picture that the mesh covers, or None."""
    ahead = vertices[vertices[:, 2] > 0.02]
    if not len(ahead):
        return None
    points = ahead[:, :2] / ahead[:, 2:] * focal + principal
    low = np.clip(np.floor(points.min(0)) - 3, 0, size_hw[::-1]).astype(int)
    high = np.clip(np.ceil(points.max(0)) + 4, 0, size_hw[::-1]).astype(int)
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high > low).all() else None


def _draw_one(
    vertices: np.ndarray,
    faces: np.ndarray,
    focal: np.ndarray,
    principal: np.ndarray,
    size_hw: tuple[int, int],
    color: np.ndarray,
    samples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One shaded mesh: (H, W, 4) with colour multiplied by alpha, and depth (H, W), inf where empty."""
    from wholebody.drawing.raster import Light, draw_mesh

    light = Light(direction_cam=(-0.45, -0.65, -0.62), ambient=(0.34, 0.35, 0.38), directional=(0.78, 0.76, 0.72))
    drawing = draw_mesh(
        vertices,
        faces,
        focal.tolist(),
        principal.tolist(),
        size_hw,
        np.broadcast_to(color, (len(vertices), 3)),
        light=light,
        samples=samples,
    )
    shade = 1 - (1 - _OUTLINE) * outline(drawing.depth, float(np.median(vertices[:, 2])))
    rgba = drawing.rgba.copy()
    rgba[..., :3] *= (shade * rgba[..., 3])[..., None]
    return rgba, drawing.depth


def outline(depth: np.ndarray, distance: float) -> np.ndarray:
    """(H, W) 0..1: thin lines where the surface ends or one limb passes in front of another, softened over a pixel."""
    import cv2

    # A step of 6 cm between neighbours, whatever the camera's distance, is an edge and not a slope.
    filled = np.where(np.isfinite(depth), depth, distance + 10).astype(np.float32)
    further = cv2.dilate(filled, np.ones((3, 3), np.uint8))
    edge = np.clip((further - filled - 0.05) / 0.05, 0, 1) * np.isfinite(depth)
    return cv2.GaussianBlur(edge.astype(np.float32), (3, 3), 0.6)


def _side_panel(photo_hw: tuple[int, int], people: Sequence[Person], faces: np.ndarray, samples: int) -> np.ndarray:
    """Every person as seen from the photo's right-hand side, each in a cell of their own, in the order of detection."""
    height = photo_hw[0]
    cell_w, cell_h, columns = _grid(len(people), photo_hw)
    panel = np.broadcast_to(_PAPER * 255, (height, cell_w * columns, 3)).copy()
    for number, person in enumerate(people):
        x, y = number % columns * cell_w, number // columns * cell_h
        size = (min(cell_h, height - y), cell_w)
        turned, focal, principal = _from_the_side(person, size)
        rgba, _ = _draw_one(turned, faces, focal, principal, size, COLORS[number % len(COLORS)], samples)
        cell = panel[y : y + size[0], x : x + cell_w]
        cell += rgba[..., :3] * 255 - cell * rgba[..., 3:]
    return np.clip(np.rint(panel), 0, 255).astype(np.uint8)


def _grid(count: int, photo_hw: tuple[int, int]) -> tuple[int, int, int]:
    """Cells of about 3:5 in as few rows as keep the panel narrower than the photo: cell width, cell height, columns."""
    for rows in range(1, count + 1):
        cell_h, columns = -(-photo_hw[0] // rows), -(-count // rows)
        cell_w = max(1, round(cell_h * 0.62))
        if cell_w * columns <= 0.8 * photo_hw[1]:
            break
    return cell_w, cell_h, columns


def _from_the_side(person: Person, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices as a camera to the photo's right sees them, and a camera that frames them. Left there is towards the
    photographer."""
    vertices = np.asarray(person.vertices_cam, np.float64)
    low, high = vertices.min(0), vertices.max(0)
    x, y, z = (vertices - (low + high) / 2).T
    distance = 6.0
    turned = np.stack([z, y, distance - x], axis=1)
    extent = np.maximum((high - low)[[2, 1]], 0.2)
    near = distance - np.abs(x).max()
    focal = 0.90 * near * min(size_hw[1] / extent[0], size_hw[0] / extent[1])
    return turned, np.array([focal, focal]), (np.array(size_hw[::-1]) - 1) / 2
