"""Poses without pictures: true ones, seen from anywhere, their joints found as roughly as the network finds them.

A picture costs many times what its joints cost. What can be learnt from these alone, lifting them to 3D, is learnt
from batches of this, beside the pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholebody.body.joints import (
    JOINTS_137,
    PARTS_137,
    ROTATIONS_53,
    ROTATIONS_53_FROM_55,
    flip_permutation,
)
from wholebody.geometry.rotation import axis_angle_to_matrix, mirrored
from wholebody.synthesis.sets.poses import read_people


class LiftingBatches:
    """`batch(n, size)` is a function of (seed, n) alone. All tensors float32, on the CPU."""

    def __init__(self, layers: str | Path, seed: int, crop_hw: tuple[int, int]):
        truth = read_people(layers)
        rows = list(ROTATIONS_53_FROM_55)
        self.poses = torch.as_tensor(truth["full_pose"][:, rows], dtype=torch.float32)
        self.betas = torch.as_tensor(truth["betas"], dtype=torch.float32)
        self.expression = torch.as_tensor(truth["expression"], dtype=torch.float32)
        joints = torch.as_tensor(truth["joints_cam"], dtype=torch.float32)
        self.joints = joints - joints[:, :1]
        self.seed, self.crop_hw = seed, crop_hw

    def batch(self, number: int, size: int) -> dict[str, Tensor]:
        """`located` (size, 25, 4) as `LiftingBodyHead.lift` takes them, `hand_places` (size, 2, 20, 3) for the hands,
        and the targets of `crop_targets` that a body needs: rotations, betas, expression, joints_cam, joints_crop,
        joint_inside."""
        rng = np.random.default_rng((self.seed, 2, number))
        pick = torch.from_numpy(rng.integers(len(self.poses), size=size))
        rotations, joints = axis_angle_to_matrix(self.poses[pick]), self.joints[pick]
        mirror = torch.tensor([-1.0, 1.0, 1.0])
        flip = torch.from_numpy(rng.random(size) < 0.5)
        other = mirrored(rotations[:, flip_permutation(ROTATIONS_53)])
        rotations = torch.where(flip[:, None, None, None], other, rotations)
        joints = torch.where(flip[:, None, None], joints[:, flip_permutation(JOINTS_137)] * mirror, joints)
        view = _views(rng, size)
        joints = joints @ view.mT
        rotations = torch.cat([view[:, None] @ rotations[:, :1], rotations[:, 1:]], 1)
        points = self._project(rng, joints)
        height, width = self.crop_hw
        inside = (points >= 0).all(-1) & (points[..., 0] < width) & (points[..., 1] < height)
        return {
            "located": self._locate(rng, points[:, PARTS_137["body"]], inside[:, PARTS_137["body"]]),
            "hand_places": self._hand_places(rng, joints),
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

    def _locate(self, rng: np.random.Generator, points: Tensor, inside: Tensor) -> Tensor:
        """What the network's own fine positions would say: (size, 25, 4), see `model.lifting.Located`.

        Measured on held-out people as the network learnt: errors are log-normal over joints and people, a joint's best
        cell tells how far off it is (probability 0.24 exp(-sigma / 6 % of the crop's height)), and limbs are mixed up
        with their other side.
        """
        height, width = self.crop_hw
        shape = tuple(points.shape[:2])
        half = torch.tensor([width / 2, height / 2])
        sigma = 0.008 * np.exp(rng.normal(0, 0.6, (shape[0], 1)) + rng.normal(0, 0.75, shape)).clip(0.2, 12)
        mixed = torch.zeros(shape)
        for limb in (_LEGS, _ARMS):
            chosen = torch.from_numpy((rng.random(shape[0]) < 0.12) * rng.beta(1, 1.5, shape[0])).float()
            mixed[:, limb] = chosen[:, None]
        found = points + mixed[..., None] * (points[:, _BODY_SWAP] - points)
        found = found + torch.from_numpy(rng.normal(0, 1, (*shape, 2)) * sigma[..., None]).float() * height
        # A joint outside is looked for inside: near the border, or anywhere.
        outside = (~inside).numpy()
        border = found.clamp(min=torch.zeros(2), max=torch.tensor([width, height]) - 1.0)
        anywhere = torch.from_numpy(rng.uniform(0, 1, (*shape, 2))).float() * (half * 2)
        away = torch.from_numpy(rng.beta(0.6, 1.2, (*shape, 1))).float()
        found = torch.where(inside[..., None], border, border + away * (anywhere - border))
        unsure = sigma + 0.06 * mixed.numpy()
        p_in = np.where(outside, rng.beta(0.4, 4, shape), rng.beta(8, 0.4, shape))
        peak = 0.24 * np.exp(-unsure / 0.06) * np.exp(rng.normal(0, 0.2, shape))
        peak = np.where(outside, rng.beta(1.2, 16, shape), peak)
        seen = torch.from_numpy(np.stack([p_in, peak.clip(0, 1)], -1)).float()
        return torch.cat([(found / half - 1).clamp(-1.2, 1.2), seen], -1)

    def _hand_places(self, rng: np.random.Generator, joints: Tensor) -> Tensor:
        """Positions (size, 2, 20, 3) of both hands as right hands, as fractions of their boxes, roughly found."""
        size = len(joints)
        hands = []
        for part, wrist, left in (("left_hand", "L_Wrist", True), ("right_hand", "R_Wrist", False)):
            relative = joints[:, PARTS_137[part]] - joints[:, None, JOINTS_137.index(wrist)]
            if left:
                relative = relative * torch.tensor([-1.0, 1.0, 1.0])
            plane = torch.cat([relative[..., :2], torch.zeros(size, 1, 2)], 1)
            low, high = plane.amin(1), plane.amax(1)
            extent = (high - low).amax(1, keepdim=True)
            side = 2.0 * extent * torch.from_numpy(rng.uniform(0.8, 1.2, (size, 1))).float()
            centre = (low + high) / 2 + extent * torch.from_numpy(rng.uniform(-0.1, 0.1, (size, 2))).float()
            xy = (relative[..., :2] - centre[:, None]) / side[:, None] + 0.5
            z = (relative[..., 2:] / 0.15 + 1) / 2
            places = torch.cat([xy, z], -1)
            noise = np.exp(rng.normal(0, 0.7, (size, 1, 1))) * np.array([0.02, 0.02, 0.06])
            shared = rng.normal(0, 0.5, (size, 1, 3)) * noise  # what moves all joints together
            off = rng.normal(0, 1, (size, 20, 3)) * noise + shared
            hands.append(places + torch.from_numpy(off).float())
        return torch.stack(hands, 1)


_BODY = JOINTS_137[PARTS_137["body"]]
_BODY_SWAP = list(flip_permutation(_BODY))
_LEGS = [i for i, name in enumerate(_BODY) if any(part in name for part in ("Knee", "Ankle", "toe", "Heel"))]
_ARMS = [i for i, name in enumerate(_BODY) if any(part in name for part in ("Elbow", "Wrist"))]


def _views(rng: np.random.Generator, size: int) -> Tensor:
    """Rotations (size, 3, 3) of the scene: any yaw, mostly a little pitch, the roll of a tilted picture."""
    yaw = rng.uniform(-np.pi, np.pi, size)
    pitch = rng.normal(0, np.where(rng.random(size) < 0.15, 0.5, 0.15))
    roll = np.where(rng.random(size) < 0.5, rng.normal(0, 0.3, size).clip(-0.9, 0.9), 0.0)
    zero = np.zeros(size)
    about = [np.stack(v, 1) for v in ((zero, zero, roll), (pitch, zero, zero), (zero, yaw, zero))]
    z, x, y = (axis_angle_to_matrix(torch.from_numpy(v).float()) for v in about)
    return z @ x @ y
