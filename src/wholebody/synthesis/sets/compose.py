"""From a layer to a picture as a camera would take it: background, something in front, lens, sensor, compression."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.random import Generator

from wholebody.data.sample import Sample
from wholebody.synthesis.light.backgrounds import BackgroundBank, add_grain
from wholebody.synthesis.light.environment import tone_map, view
from wholebody.synthesis.light.shadow import darken, warp_shadow
from wholebody.synthesis.render import Layer, Surroundings


def compose(
    layer: Layer, surroundings: Surroundings, bank: BackgroundBank, rng: Generator, occluder_fraction: float
) -> Sample:
    """The layer over a background, as a `Sample` with its image and mask; half the time the surroundings that light
    it."""
    height, width = layer.alpha.shape
    sample, mask, visible = layer.sample, layer.alpha, layer.sample.joint_visible
    if rng.random() < 0.5:
        radiance = view(
            surroundings.environment.panorama,
            surroundings.world_from_cam,
            float(sample.focal_px[0]),
            sample.principal_px,
            (height, width),
        )
        background = tone_map(radiance * surroundings.lighting.gain)
        if rng.random() < 0.5:
            background = add_grain(rng, background)
    else:
        background = bank.sample(rng, height, width)
    if layer.shadow is not None and rng.random() < 0.75:
        background = darken(background, warp_shadow(layer.shadow, np.eye(3)[:2], (height, width)))
    picture = blend(background, layer.color, mask)
    if rng.random() < occluder_fraction:
        cover = occluder(rng, sample.box_xyxy, (height, width))
        picture = blend(picture, bank.sample(rng, height, width), cover)
        mask = (mask.astype(np.uint16) * (255 - cover) // 255).astype(np.uint8)
        at = sample.joints_px.round().astype(int).clip(0, [width - 1, height - 1])
        visible = visible & (cover[at[:, 1], at[:, 0]] < 128)
    return replace(sample, image=camera_effects(picture, rng), mask=mask, joint_visible=visible)


def blend(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`above` over `below` (H,W,3 uint8) by alpha (H,W uint8)."""
    a = cv2.merge([alpha, alpha, alpha]).astype(np.uint16)
    return ((above * a + below * (255 - a) + 127) // 255).astype(np.uint8)


def occluder(rng: Generator, box_xyxy: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Coverage (H,W uint8) of something in front of part of a box: a box, a post, a table's edge, a blob."""
    cover = np.zeros(size_hw, np.uint8)
    low, high = box_xyxy[:2], box_xyxy[2:]
    size = high - low
    kind = rng.random()
    centre = low + size * rng.uniform(0, 1, 2)
    if kind < 0.25:  # from below: a table, a hedge
        centre[1], axes = high[1], np.array([size[0] * rng.uniform(1.5, 3), size[1] * rng.uniform(0.2, 0.8)])
    elif kind < 0.4:  # a post
        axes = np.array([size[0] * rng.uniform(0.08, 0.25), size[1] * 3])
    else:
        axes = size * rng.uniform(0.15, 0.55, 2)
    angle = float(rng.normal(0, 8 if kind < 0.4 else 60))
    if kind < 0.75:
        corners = cv2.boxPoints(((float(centre[0]), float(centre[1])), (float(axes[0]), float(axes[1])), angle))
        cv2.fillPoly(cover, [corners.round().astype(np.int32)], 255, cv2.LINE_AA)
    else:
        half = np.maximum(axes / 2, 1).astype(int).tolist()
        cv2.ellipse(cover, centre.astype(int).tolist(), half, angle, 0, 360, 255, -1, cv2.LINE_AA)
    return cover


def camera_effects(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """Exposure and white balance, blur, noise; compression comes with the file."""
    gain = np.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.06, 3))
    gamma = np.exp(rng.normal(0, 0.12))
    curve = (255 * ((np.arange(256)[:, None] / 255) ** gamma * gain).clip(0, 1)).astype(np.uint8)
    picture = cv2.LUT(picture, curve.reshape(256, 1, 3))
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.35, 1.3))
    if rng.random() < 0.4:
        noise = np.zeros(picture.shape, np.int16)
        # OpenCV's generator is several times faster than numpy's; its seed comes from ours.
        cv2.setRNGSeed(int(rng.integers(1 << 31)))
        cv2.randn(noise, np.zeros(3), np.full(3, rng.uniform(1, 9)))
        picture = cv2.add(picture, noise, dtype=cv2.CV_8U)
    return picture
