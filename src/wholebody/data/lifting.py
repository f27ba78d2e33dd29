"""Key points without pictures: true poses, seen from anywhere by a detector that errs as the trunk's does.

A picture costs many times what its key points cost. What can be learnt from these alone, lifting them to 3D, is
learnt from batches of this, beside the pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholebody.body.joints import (
    COCO_WHOLEBODY_FROM_137,
    JOINTS_137,
    ROTATIONS_53,
    ROTATIONS_53_FROM_55,
    flip_permutation,
)
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.synthesis.layers import LayerSet

COCO_17_FROM_137 = list(COCO_WHOLEBODY_FROM_137[:17])


class LiftingBatches:
    """`batch(n, size)` is a function of (seed, n) alone. All tensors float32, on the CPU."""

    def __init__(self, layers: str | Path, seed: int, crop_hw: tuple[int, int]):
        truth = LayerSet(layers).samples()
        rows = list(ROTATIONS_53_FROM_55)
        self.poses = torch.as_tensor(truth["full_pose"][:, rows], dtype=torch.float32)
        self.betas = torch.as_tensor(truth["betas"], dtype=torch.float32)
        self.expression = torch.as_tensor(truth["expression"], dtype=torch.float32)
        joints = torch.as_tensor(truth["joints_cam"], dtype=torch.float32)
        self.joints = joints - joints[:, :1]
        self.seed, self.crop_hw = seed, crop_hw

    def batch(self, number: int, size: int) -> dict[str, Tensor]:
        """`keypoints` (size, 17, 6) as the encoder's `keypoints` gives them, and the targets of `crop_targets` that a
        body needs: rotations, betas, expression, joints_cam, joints_crop, joint_inside."""
        rng = np.random.default_rng((self.seed, 2, number))
        pick = torch.from_numpy(rng.integers(len(self.poses), size=size))
        rotations, joints = axis_angle_to_matrix(self.poses[pick]), self.joints[pick]
        mirror = torch.tensor([-1.0, 1.0, 1.0])
        flip = torch.from_numpy(rng.random(size) < 0.5)
        mirrored = rotations[:, flip_permutation(ROTATIONS_53)] * mirror[:, None] * mirror
        rotations = torch.where(flip[:, None, None, None], mirrored, rotations)
        joints = torch.where(flip[:, None, None], joints[:, flip_permutation(JOINTS_137)] * mirror, joints)
        view = _views(rng, size)
        joints = joints @ view.mT
        rotations = torch.cat([view[:, None] @ rotations[:, :1], rotations[:, 1:]], 1)
        points = self._project(rng, joints)
        height, width = self.crop_hw
        inside = (points >= 0).all(-1) & (points[..., 0] < width) & (points[..., 1] < height)
        return {
            "keypoints": self._detect(rng, points[:, COCO_17_FROM_137], inside[:, COCO_17_FROM_137]),
            "rotations": rotations,
            "betas": self.betas[pick],
            "expression": self.expression[pick],
            "joints_cam": joints,
            "joints_crop": points,
            "joint_inside": inside.float(),
        }

    def _project(self, rng: np.random.Generator, joints: Tensor) -> Tensor:
        """Pixels of a crop about the person as a detector would frame it: whole, or its upper part."""
        size = len(joints)
        height, width = self.crop_hw
        distance = torch.from_numpy(np.exp(rng.uniform(np.log(2.0), np.log(15.0), size))).float()
        depth = (joints[..., 2] + distance[:, None]).clamp_min(0.3)
        seen = joints[..., :2] * (distance[:, None] / depth)[..., None]
        low, high = seen.amin(1), seen.amax(1)
        upper = torch.from_numpy(rng.random(size) < 0.25)
        hips = seen[:, 1:3, 1].mean(1)
        cut = torch.where(upper, hips + torch.from_numpy(rng.uniform(-0.15, 0.3, size)).float(), high[:, 1])
        high = torch.stack([high[:, 0], torch.maximum(cut, low[:, 1] + 0.25)], 1)
        extent = (high - low) * 1.08
        tall = torch.maximum(extent[:, 1], extent[:, 0] * height / width) * 1.25
        tall = tall * torch.from_numpy(rng.uniform(0.75, 1.25, size)).float()
        shift = torch.from_numpy(rng.uniform(-0.08, 0.08, (size, 2))).float() * tall[:, None]
        centre = (low + high) / 2 + shift
        pixels = (seen - centre[:, None]) / tall[:, None, None] * height
        return pixels + torch.tensor([width / 2, height / 2])

    def _detect(self, rng: np.random.Generator, points: Tensor, inside: Tensor) -> Tensor:
        """What the trunk would say: mostly within 2 % of the crop's height, one in ten anywhere near, scores to match.

        Measured on drawn people (medians: 2 % of the height, 3 % as regressed, score 0.6; 15 % off by more than 6 %).
        """
        height, width = self.crop_hw
        shape = tuple(points.shape[:2])

        def normal(sigma: np.ndarray | float) -> Tensor:
            return torch.from_numpy(rng.normal(0, 1, (*shape, 2)) * np.asarray(sigma)[..., None]).float() * height

        person = rng.uniform(0.5, 1.8, (shape[0], 1))  # some people are harder than others
        wrong = torch.from_numpy(rng.random(shape) < 0.1 * person) | ~inside
        fine, coarse = normal(0.014 * person * np.ones(shape)), normal(0.12 * np.ones(shape))
        found = points + torch.where(wrong[..., None], coarse, fine)
        swapped = torch.from_numpy(rng.random(shape[0]) < 0.04)
        found = torch.where(swapped[:, None, None], found[:, _COCO_SWAP], found)
        found = found.clamp(min=torch.zeros(2), max=torch.tensor([width, height]) - 1.0)
        good, bad = rng.beta(5, 3, shape), rng.beta(1.2, 5, shape)
        score = torch.where(wrong, torch.from_numpy(bad), torch.from_numpy(good)).float()
        regressed = points + normal(0.025 * person * np.ones(shape))
        half = torch.tensor([width / 2, height / 2])
        places = [(p / half - 1).clamp(-2, 2) for p in (found, regressed)]
        return torch.cat([places[0], score[..., None], score.sqrt()[..., None], places[1]], -1)


_COCO_SWAP = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


def _views(rng: np.random.Generator, size: int) -> Tensor:
    """Rotations (size, 3, 3) of the scene: any yaw, a little pitch, the roll of a tilted picture."""
    yaw = rng.uniform(-np.pi, np.pi, size)
    pitch = rng.normal(0, 0.15, size)
    roll = np.where(rng.random(size) < 0.5, rng.normal(0, 0.3, size).clip(-0.9, 0.9), 0.0)
    zero = np.zeros(size)
    about = [np.stack(v, 1) for v in ((zero, zero, roll), (pitch, zero, zero), (zero, yaw, zero))]
    z, x, y = (axis_angle_to_matrix(torch.from_numpy(v).float()) for v in about)
    return z @ x @ y
