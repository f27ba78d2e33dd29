"""Training samples from layers: people drawn once with alpha, composed anew each time they are seen.

Sample number n is a function of (seed, n) alone. So a run resumes in the middle of an epoch by starting at a number,
and neither the number of loader processes nor their order changes what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from torch.utils.data import Dataset

from wholebody.data.augment import CROP_HW, AugmentConfig, blend, occlude, photometric, random_crop
from wholebody.data.framing import Targets, in_crop
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.light.shadow import darken, warp_shadow
from wholebody.synthesis.render import Layer
from wholebody.synthesis.sets.layers import LayerSet


@dataclass(frozen=True)
class CropDataConfig:
    """Where layers and backgrounds come from and how crops are made of them."""

    layers: str
    hdri: str | None = None
    backgrounds: str | None = None
    split: str = "train"
    """Which environment maps the backgrounds come from: those of training, or "heldout"."""
    picture_hw: tuple[int, int] = (256, 192)
    augment: AugmentConfig = AugmentConfig()


@lru_cache(maxsize=2)
def _bank(hdri: str | None, photos: str | None, split: str) -> BackgroundBank:
    """Takes seconds to make, and nobody changes it: one for all sets of a process."""
    return BackgroundBank(hdri, photos, seed=0, split=split)


class TrainingCrops(Dataset):
    """`self[n]` is sample n: `image` (picture_h×picture_w×3 uint8 RGB), `box_height` (of the person's box, in pixels of
    the crop) and what `targets` makes of the person and the crop: the truth, unless an objective hands in its own.
    """

    def __init__(self, config: CropDataConfig, seed: int, length: int, targets: Targets = in_crop):
        self.config, self.seed, self.length, self.targets = config, seed, length, targets
        self.layers = LayerSet(Path(config.layers))
        self.backgrounds = _bank(config.hdri, config.backgrounds, config.split)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __len__(self) -> int:
        return self.length

    def layer_number(self, number: int) -> int:
        """Which layer sample `number` shows."""
        epoch, place = divmod(number, len(self.layers))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.layers)))
        return int(self._order[1][place])

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        layer, crop_from_layer, rng = self._framed(number)
        picture = self._compose(layer, crop_from_layer, rng)
        box = layer.sample.box_xyxy
        box_height = (box[3] - box[1]) * np.sqrt(abs(np.linalg.det(crop_from_layer[:, :2])))
        targets = self.targets(layer.sample, crop_from_layer)
        return {"image": picture, "box_height": np.asarray(box_height, np.float32), **targets}

    def target(self, number: int) -> dict[str, np.ndarray]:
        """What `self[number]` says of the person, without its picture."""
        layer, crop_from_layer, _ = self._framed(number)
        return self.targets(layer.sample, crop_from_layer)

    def _framed(self, number: int) -> tuple[Layer, np.ndarray, Generator]:
        rng = np.random.default_rng((self.seed, 0, number))
        layer = self.layers.get(self.layer_number(number))
        sample = layer.sample
        return layer, random_crop(sample.box_xyxy, sample.joints_px, rng, self.config.augment), rng

    def _compose(self, layer: Layer, crop_from_layer: np.ndarray, rng: Generator) -> np.ndarray:
        config, augment = self.config, self.config.augment
        height, width = config.picture_hw
        picture = self.backgrounds.sample(rng, height, width)
        if rng.random() < 0.15:  # somebody behind
            picture = self._paste_stranger(picture, rng, near=False)
        to_picture = np.diag([width / CROP_HW[1], height / CROP_HW[0]]) @ crop_from_layer
        colour, alpha = warp_layer(layer.color, layer.alpha, to_picture, config.picture_hw)
        if layer.shadow is not None and rng.random() < 0.6:
            picture = darken(picture, warp_shadow(layer.shadow, to_picture, config.picture_hw))
        picture = blend(picture, colour, alpha)
        if rng.random() < augment.occlude_probability:
            picture = occlude(picture, self.backgrounds.sample(rng, height, width), rng)
        if rng.random() < augment.person_occlude_probability:
            picture = self._paste_stranger(picture, rng, near=True)
        return photometric(picture, rng, augment)

    def _paste_stranger(self, picture: np.ndarray, rng: Generator, near: bool) -> np.ndarray:
        """Another person beside the one who is meant: in front at the frame's edge, or anywhere behind."""
        height, width = self.config.picture_hw
        stranger = self.layers.get(int(rng.integers(len(self.layers))))
        h, w = stranger.alpha.shape
        scale = rng.uniform(0.5, 1.3) * height / h
        side = rng.choice([-1, 1])
        x = width * (0.5 + side * rng.uniform(0.5 if near else 0.15, 0.85))
        y = height * rng.uniform(0.4, 0.8)
        affine = np.array([[scale, 0, x - scale * w / 2], [0, scale, y - scale * h / 2]])
        colour, alpha = warp_layer(stranger.color, stranger.alpha, affine, (height, width))
        return blend(picture, colour, alpha)


def warp_layer(
    color: np.ndarray, alpha: np.ndarray, affine: np.ndarray, out_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a layer without aliasing: averaged down first where the map shrinks it by more than 1.5."""
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    if shrink > 1.5:
        height, width = alpha.shape
        small = (max(1, round(width * 1.2 / shrink)), max(1, round(height * 1.2 / shrink)))
        color, alpha = (cv2.resize(x, small, interpolation=cv2.INTER_AREA) for x in (color, alpha))
        kx, ky = width / small[0], height / small[1]
        # Pixel centres sit at integers here, as in OpenCV: x_full = (x_small + 0.5) k - 0.5.
        affine = np.concatenate(
            [affine[:, :2] * [kx, ky], (affine @ [0.5 * kx - 0.5, 0.5 * ky - 0.5, 1])[:, None]], axis=1
        )
    height, width = out_hw
    colour = cv2.warpAffine(color, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return colour, cv2.warpAffine(alpha, affine, (width, height), flags=cv2.INTER_LINEAR)
