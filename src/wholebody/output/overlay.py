"""The picture to look at: the photo with a mesh on every person, and beside it each of them from the side."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
    samples: int = 2,
) -> np.ndarray:
    """H×W×3 uint8 → the same with the people's meshes over it, `opacity` 0..1, and a panel with their side views.

    Each person is drawn with their own camera, exactly; who hides whom is decided pixel by pixel by depth over focal
    length, the only depth that compares between such cameras. Photos larger than `MAX_SIDE` are shown at that size.
    """
    if not 0 <= opacity <= 1:
        raise BadInput(f"The opacity is {opacity:g}; it must be from 0 (only the photo) to 1 (nothing seen through).")
    photo, scale = _fit(image)
    height, width = photo.shape[:2]
    panel = _Panel.of(len(people), (height, width)) if side_view and people else None
    picture = np.empty((height, width + (panel.width if panel else 0), 3), np.uint8)
    picture[:, :width] = photo
    with ThreadPoolExecutor(1, "wholebody-side-view") as beside:  # what is compiled lets go of Python's lock
        drawn = beside.submit(panel.draw, picture, width, people, faces, samples) if panel else None
        _draw_people(picture, (height, width), people, faces, scale, samples, opacity)
        if drawn:
            drawn.result()
    return picture


def encode_jpeg(picture: np.ndarray, quality: int = 93) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality, subsampling=0)
    return stream.getvalue()


def _fit(image: np.ndarray) -> tuple[np.ndarray, float]:
    import cv2

    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    if scale == 1:
        return image, 1.0
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _draw_people(
    picture: np.ndarray, photo_hw: tuple[int, int], people: Sequence[Person], faces: np.ndarray, scale: float,
    samples: int, opacity: float,
) -> None:  # fmt: skip
    """Everybody over the photo at the left of `picture` (H, W, 3) uint8, in place; only the windows that people cover
    are touched."""
    from wholebody.drawing.layers import lay

    cameras = [
        (
            np.asarray(person.focal_px, np.float64) * scale,
            (np.asarray(person.principal_px, np.float64) + 0.5) * scale - 0.5,  # pixel centres at integers
        )
        for person in people
    ]
    windows = [
        covered_window(person.vertices_cam, *camera, photo_hw)
        for person, camera in zip(people, cameras, strict=True)
    ]
    for members, (left, top, right, bottom) in together([(n, window) for n, window in enumerate(windows) if window]):
        layer = np.zeros((bottom - top, right - left, 4), np.float32)  # of the group: colour multiplied by alpha
        nearest = np.full(layer.shape[:2], np.inf, np.float32)
        for n in sorted(members):
            window = windows[n]
            assert window is not None
            within = (window[0] - left, window[1] - top, window[2] - left, window[3] - top)
            focal, principal = cameras[n]
            _draw_one(
                people[n].vertices_cam, faces, focal, principal - [left, top], within, COLORS[n % len(COLORS)], samples,
                layer, nearest,
            )  # fmt: skip
        lay(picture, layer, left, top, np.float32(opacity))


Window = tuple[int, int, int, int]


def together(windows: Iterable[tuple[int, Window]]) -> list[tuple[list[int], Window]]:
    """Numbered windows (x0, y0, x1, y1) in groups of those that overlap, each with the window around it: who is in one
    group may hide each other."""
    groups: list[tuple[list[int], Window]] = []
    for number, window in windows:
        members, box, changed = [number], window, True
        while changed:
            changed = False
            for other in groups:
                a, b = other[1], box
                if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]:
                    groups.remove(other)
                    members = other[0] + members
                    box = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
                    changed = True
                    break
        groups.append((members, box))
    return groups


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
    vertices: np.ndarray, faces: np.ndarray, focal: np.ndarray, principal: np.ndarray, window: Window,
    color: np.ndarray, samples: int, layer: np.ndarray, nearest: np.ndarray,
) -> None:  # fmt: skip
    """One shaded mesh, which covers `window`, into `layer` and `nearest`: see `drawing.layers.add_drawing`."""
    from wholebody.drawing.layers import add_drawing
    from wholebody.drawing.raster import Light, draw_mesh

    light = Light(direction_cam=(-0.45, -0.65, -0.62), ambient=(0.34, 0.35, 0.38), directional=(0.78, 0.76, 0.72))
    drawing = draw_mesh(
        vertices,
        faces,
        focal.tolist(),
        (principal - window[:2]).tolist(),
        (window[3] - window[1], window[2] - window[0]),
        np.asarray(color)[None],
        light=light,
        samples=samples,
    )
    edge = outline(drawing.depth, float(np.median(vertices[:, 2])))
    add_drawing(
        layer, nearest, window[0], window[1], drawing.rgba, drawing.depth, np.float32(focal.mean()), edge,
        np.float32(_OUTLINE),
    )  # fmt: skip


def outline(depth: np.ndarray, distance: float) -> np.ndarray:
    """(H, W) 0..1: thin lines where the surface ends or one limb passes in front of another, softened over a pixel."""
    import cv2

    # A step of 6 cm between neighbours, whatever the camera's distance, is an edge and not a slope.
    seen = depth < np.inf
    filled = np.where(seen, depth, np.float32(distance + 10))
    edge: np.ndarray = cv2.dilate(filled, np.ones((3, 3), np.uint8))
    np.subtract(edge, filled, out=edge)
    np.subtract(edge, 0.05, out=edge)
    np.clip(np.multiply(edge, 1 / 0.05, out=edge), 0, 1, out=edge)
    np.multiply(edge, seen, out=edge)
    return np.asarray(cv2.GaussianBlur(edge, (3, 3), 0.6))


@dataclass(frozen=True)
class _Panel:
    """Every person as seen from the photo's right-hand side, each in a cell of their own, in the order of detection."""

    cell_w: int
    cell_h: int
    columns: int

    @classmethod
    def of(cls, count: int, photo_hw: tuple[int, int]) -> _Panel:
        return cls(*_grid(count, photo_hw))

    @property
    def width(self) -> int:
        return self.cell_w * self.columns

    def draw(self, picture: np.ndarray, left: int, people: Sequence[Person], faces: np.ndarray, samples: int) -> None:
        """Onto `picture` (H, W, 3) uint8, in place, from the column `left` on."""
        from wholebody.drawing.layers import lay

        picture[:, left:] = np.rint(_PAPER * 255)
        for number, person in enumerate(people):
            x, y = number % self.columns * self.cell_w, number // self.columns * self.cell_h
            size = (min(self.cell_h, len(picture) - y), self.cell_w)
            turned, focal, principal = _from_the_side(person, size)
            window = covered_window(turned, focal, principal, size)
            if window is None:
                continue
            x0, y0, x1, y1 = window
            layer = np.zeros((y1 - y0, x1 - x0, 4), np.float32)
            nearest = np.full(layer.shape[:2], np.inf, np.float32)
            within, color = (0, 0, x1 - x0, y1 - y0), COLORS[number % len(COLORS)]
            _draw_one(turned, faces, focal, principal - [x0, y0], within, color, samples, layer, nearest)
            lay(picture, layer, left + x + x0, y + y0, np.float32(1))


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
