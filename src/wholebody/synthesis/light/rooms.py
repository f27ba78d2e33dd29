"""Made-up places to stand in: a floor in perspective, walls, boxes that stand on it, things that hang: sharp edges and
right angles, which environment maps of 512 x 256 do not show."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator


def room(rng: Generator, side: int, surface: Callable[[], np.ndarray]) -> np.ndarray:
    """A square picture (side,side,3) uint8; `surface()` gives square pictures of the same size to cover things with."""
    focal = side * np.exp(rng.uniform(np.log(0.7), np.log(2.0)))
    pitch, yaw = np.radians(rng.normal(8, 8)), np.radians(rng.uniform(-40, 40))
    eye = rng.uniform(0.8, 1.9)
    c, s, cy, sy = np.cos(pitch), np.sin(pitch), np.cos(yaw), np.sin(yaw)
    # World: x right, y up from the floor, z away; camera: x right, y down, z forward.
    turn = np.array([[1, 0, 0], [0, -c, -s], [0, -s, c]]) @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])

    def project(points: np.ndarray) -> np.ndarray | None:
        at = (points - np.array([0, eye, 0])) @ turn.T
        if at[:, 2].min() < 0.25:
            return None
        return (at[:, :2] / at[:, 2:] * focal + side / 2).astype(np.float32)

    light = rng.uniform(0.7, 1.4, 3)
    far, width, height = rng.uniform(4, 9), rng.uniform(3, 7), rng.uniform(2.4, 4)
    ground = surface()
    picture = cv2.convertScaleAbs(ground, alpha=float(light[1]))  # before the first strip of the floor

    def plane(corners: np.ndarray, brightness: float, repeat: float, cover: np.ndarray | None = None) -> None:
        """Cover a rectangle, given by its corners (4,3), in strips: those that reach behind the camera are left out."""
        cover = cv2.convertScaleAbs(surface() if cover is None else cover, alpha=brightness)
        if repeat > 1:
            cover = np.tile(cv2.resize(cover, None, fx=1 / repeat, fy=1 / repeat), (int(repeat) + 1,) * 2 + (1,))
        n = cover.shape[0]
        steps = np.linspace(0, 1, 9)
        for a, b in zip(steps[:-1], steps[1:], strict=True):
            strip = np.array(
                [
                    corners[0] + a * (corners[3] - corners[0]),
                    corners[1] + a * (corners[2] - corners[1]),
                    corners[1] + b * (corners[2] - corners[1]),
                    corners[0] + b * (corners[3] - corners[0]),
                ]
            )
            to = project(strip)
            if to is None or np.abs(to).max() > 30 * side:
                continue
            source = np.array([[0, a * n], [n, a * n], [n, b * n], [0, b * n]], np.float32)
            mask = np.zeros((side, side), np.uint8)
            cv2.fillConvexPoly(mask, to.round().astype(np.int32), 255, cv2.LINE_AA)
            x, y, wide, high = cv2.boundingRect(mask)  # the rest of the picture stays as it is
            if wide:
                to_strip = cv2.getPerspectiveTransform(source, to - np.array([x, y], np.float32))
                warped = cv2.warpPerspective(cover, to_strip, (wide, high), borderMode=cv2.BORDER_REPLICATE)
                part = np.s_[y : y + high, x : x + wide]
                blend = mask[part][..., None].astype(np.uint16)
                picture[part] = ((warped * blend + picture[part] * (255 - blend)) // 255).astype(np.uint8)

    w, z0 = width, 0.3
    floor = np.array([[-w, 0, far], [w, 0, far], [w, 0, z0], [-w, 0, z0]])
    plane(floor, float(light[1]), float(rng.choice([1, 2, 4, 8])), ground)
    plane(np.array([[-w, height, far], [w, height, far], [w, 0, far], [-w, 0, far]]), float(light[0]), 1)
    if rng.random() < 0.6:
        x = w * rng.choice([-1, 1])
        wall = np.array([[x, height, far], [x, height, z0], [x, 0, z0], [x, 0, far]])
        plane(wall, float(light[2]), 1)
    for _ in range(rng.integers(0, 5)):  # windows, doors, pictures, posters
        x, y = rng.uniform(-w, w * 0.7), rng.uniform(0, height * 0.6)
        dx, dy = rng.uniform(0.3, 1.4), rng.uniform(0.3, 2.0)
        edge = np.array([[x, y + dy, 0], [x + dx, y + dy, 0], [x + dx, y, 0], [x, y, 0]]) + [0, 0, far - 0.01]
        plane(edge + np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]]) * 0.04, float(rng.uniform(0.2, 1.1)), 1)
        plane(edge, float(rng.uniform(0.4, 1.6)), 1)
    places = np.sort(rng.uniform(1.6, far - 0.3, rng.integers(0, 7)))[::-1]
    for z in places:  # tables, cupboards, steps: boxes, far ones first
        x, (dx, dy, dz) = rng.uniform(-w, w), np.exp(rng.uniform(np.log(0.2), np.log(1.6), 3))
        y = 0.0 if rng.random() < 0.8 else rng.uniform(0.4, 1.2)
        a, b = x - dx / 2, x + dx / 2
        inner, outer = (b, z + dz) if x < 0 else (a, z + dz)
        plane(np.array([[inner, y + dy, z], [inner, y + dy, outer], [inner, y, outer], [inner, y, z]]), 0.45, 1)
        if y + dy < eye:
            top = np.array([[a, y + dy, z + dz], [b, y + dy, z + dz], [b, y + dy, z], [a, y + dy, z]])
            plane(top, float(rng.uniform(0.9, 1.2)), 1)
        plane(np.array([[a, y + dy, z], [b, y + dy, z], [b, y, z], [a, y, z]]), float(rng.uniform(0.5, 0.95)), 1)
    return picture
