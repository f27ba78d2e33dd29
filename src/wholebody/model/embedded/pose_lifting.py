"""From places in the picture to a body: 25 points in 2D, whichever of them are known, to joints, rotations and shape.

Places are centred and scaled by themselves, so that neither box nor crop matters. A residual MLP says where the joints
are in 3D; a second one turns that into rotations and shape, told once how far its first answer's joints are from those.
Both learn from poses without pictures (`training/own/places.py`). Where a network that sees depth gives points in 3D,
they go in beside the places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wholebody.body.joints import COCO_BODY_17, SMPLX_JOINTS, flip_permutation
from wholebody.geometry.camera import VirtualCamera
from wholebody.geometry.rotation import matrix_to_rotation_6d, rotation_6d_to_matrix
from wholebody.model.embedded.skeleton import TREE, Skeleton
from wholebody.model.heads import BETAS

POINTS: tuple[str, ...] = (
    *COCO_BODY_17, "left_big_toe", "right_big_toe", "left_heel", "right_heel", "left_index1", "right_index1",
    "left_pinky1", "right_pinky1",
)  # fmt: skip
"""What the lifting is told: COCO's 17, then toes, heels and knuckles, by their names among the 144."""

JOINTS: tuple[str, ...] = (*POINTS, "pelvis", "neck")
"""What it says in 3D."""

_POINT_SWAP, _JOINT_SWAP, _TREE_SWAP = (
    flip_permutation(names).tolist() for names in (POINTS, JOINTS, SMPLX_JOINTS[:TREE])
)
_PELVIS, _NECK = JOINTS.index("pelvis"), JOINTS.index("neck")
LIMBS = slice(5, 17)
"""Shoulders, elbows, wrists, hips, knees, ankles, among `POINTS` and `JOINTS`: a person's middle is their mean."""


@dataclass(frozen=True)
class PoseLifterConfig:
    """Widths and numbers of residual blocks of the two MLPs."""

    width: int = 512
    blocks: int = 3
    turn_width: int = 384
    turn_blocks: int = 1


class Lifted(NamedTuple):
    """What B people are taken for. Joints are about the middle of the limbs, in units of `Skeleton.size`."""

    joints: Tensor  # B×27×3, `JOINTS`
    rotations: Tensor  # B×22×3×3: root, then 21 body joints, camera axes
    betas: Tensor  # B×10


class PoseLifter(nn.Module):
    """`lifter(places, hint)`: see `forward`."""

    def __init__(self, config: PoseLifterConfig) -> None:
        super().__init__()
        self.config = config
        points, joints = len(POINTS), len(JOINTS)
        self.start = nn.Linear(8 * points + 1, config.width)
        self.blocks = nn.ModuleList(_block(config.width) for _ in range(config.blocks))
        self.joints = nn.Linear(config.width, 3 * joints)
        self.turn_start = nn.Linear(3 * joints + config.width, config.turn_width)
        self.turn_blocks = nn.ModuleList(_block(config.turn_width) for _ in range(2 * config.turn_blocks))
        self.missed = nn.Linear(6 * joints, config.turn_width)
        self.turns = nn.ModuleList(nn.Linear(config.turn_width, 6 * TREE + BETAS) for _ in range(2))
        self.skeleton = Skeleton(JOINTS)
        for layer in (self.joints, *self.turns):
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            for layer in self.turns:
                still = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]).repeat(TREE)
                layer.bias[: 6 * TREE] = still  # type: ignore[index, operator]

    def forward(self, places: Tensor, hint: Tensor | None = None) -> Lifted:
        """The second answer; outside of training its mean with what is said of the mirror image.

        Args:
            places: B×25×3, x, y in any unit that is the same for both (y down) and how sure, 0 to 1; 0: unknown, x and
                y may be anything.
            hint: B×25×4, the same points in 3D in any unit, axes of the camera, about any middle, and how sure; None:
                there is none.
        """
        if self.training:
            return self.lift(places, hint)[-1]
        hint = places.new_zeros(*places.shape[:2], 4) if hint is None else hint
        both = [torch.cat([given, mirrored_points(given, _POINT_SWAP)]) for given in (places, hint)]
        joints, rotations, betas = self.lift(*both)[-1]
        (joints, other_joints), (rotations, other), (betas, other_betas) = (
            value.unflatten(0, (2, -1)).unbind(0) for value in (joints, rotations, betas)
        )
        return Lifted(
            (joints + mirrored_points(other_joints, _JOINT_SWAP)) / 2,
            _middle(rotations, mirrored_turns(other)),
            (betas + other_betas) / 2,
        )

    def lift(self, places: Tensor, hint: Tensor | None = None) -> tuple[Lifted, Lifted]:
        """First answer and second: both are trained."""
        with torch.autocast(places.device.type, enabled=False):
            like = self.start.weight.dtype
            flat = standardised(places.to(like))
            deep = places.new_zeros(*places.shape[:2], 4) if hint is None else hint
            given = (deep[..., 3] > 0).any(1, keepdim=True).to(like)
            deep = standardised(deep.to(like))
            known = (flat[..., 2:] > 0).to(like)
            x = self.start(torch.cat([flat.flatten(1), known.flatten(1), deep.flatten(1), given], 1))
            for block in self.blocks:
                x = x + block(x)
            joints = self.joints(x).unflatten(1, (-1, 3))
            joints = joints - joints[:, LIMBS].mean(1, keepdim=True)
            y = self.turn_start(torch.cat([joints.flatten(1), x], 1))
            half = len(self.turn_blocks) // 2
            for block in self.turn_blocks[:half]:
                y = y + block(y)
            first = self._read(0, y, joints)
            with torch.no_grad():
                there = self.posed(first)
                off = 4 * (joints - there)
            y = y + self.missed(torch.cat([there.flatten(1), off.flatten(1)], 1))
            for block in self.turn_blocks[half:]:
                y = y + block(y)
            return first, self._read(1, y, joints)

    def _read(self, number: int, y: Tensor, joints: Tensor) -> Lifted:
        said = self.turns[number](y)
        return Lifted(joints, rotation_6d_to_matrix(said[:, : 6 * TREE].unflatten(1, (TREE, 6))), said[:, 6 * TREE :])

    def posed(self, lifted: Lifted) -> Tensor:
        """B×27×3: the joints of the body that rotations and betas give, as `Lifted.joints` has them."""
        points = self.skeleton(lifted.rotations, lifted.betas)
        points = points - points[:, LIMBS].mean(1, keepdim=True)
        return points / self.skeleton.size(lifted.betas)[:, None, None]


def mirrored_points(points: Tensor, swap: list[int]) -> Tensor:
    """Points B×P×D, x first, as in a mirror: `swap` says which row is the same of the other side."""
    points = points[:, swap]
    return torch.cat([-points[..., :1], points[..., 1:]], -1)


def mirrored_turns(rotations: Tensor) -> Tensor:
    """Rotations B×22×3×3 of the tree as in a mirror."""
    mirror = rotations.new_tensor([-1.0, 1.0, 1.0])
    return rotations[:, _TREE_SWAP] * mirror[:, None] * mirror


def _middle(one: Tensor, other: Tensor) -> Tensor:
    """Rotations half way between two, which are near each other."""
    return rotation_6d_to_matrix(matrix_to_rotation_6d((one + other) / 2))


def standardised(points: Tensor) -> Tensor:
    """Points B×P×(D + 1), the last how sure: centred and scaled by the known ones, as far as each is sure; unknown
    ones 0."""
    sure = points[..., -1:].clamp(0, 1)
    known = sure > 0
    at = torch.where(known, points[..., :-1], 0.0)
    total = sure.sum(1, keepdim=True).clamp_min(1e-6)
    at = at - (sure * at).sum(1, keepdim=True) / total
    spread = ((sure * at.square()).sum((1, 2), keepdim=True) / total).clamp_min(1e-12).sqrt()
    return torch.cat([torch.where(known, (at / spread).clamp(-6, 6), 0.0), sure], -1)


def as_pointed_at(joints: Tensor, share: Tensor | float = 1.0) -> Tensor:
    """Where people who label pictures, and what learnt from them, point at `POINTS`: B×25×3 from joints B×27×3.

    Measured with MoveNet Thunder on 500 drawn people: shoulders and hips above where arms and legs turn, by 5.8 % and
    3.2 % of the way from pelvis to neck. share: of that, for all or for each (B).
    """
    up = joints[:, _NECK] - joints[:, _PELVIS]
    up = up * (share[:, None] if isinstance(share, Tensor) else share)
    higher = joints.new_zeros(len(POINTS))
    higher[5:7], higher[11:13] = 0.058, 0.032
    return joints[:, : len(POINTS)] + higher[:, None] * up[:, None]


def place(points: Tensor, seen: Tensor, camera: VirtualCamera) -> Tensor:
    """Where points of a body stand so that the virtual camera sees them where they were found: metres, B×3.

    Linear least squares, three times, each with less weight for what the last one missed by far.

    Args:
        points: B×P×3, metres, camera axes.
        seen: B×P×3, x and y as fractions of the crop, and how sure (0: unknown).
    """
    focal = points.new_tensor((camera.focal / camera.hw[1], camera.focal / camera.hw[0]))
    aspect = points.new_tensor((camera.hw[1] / camera.hw[0], 1.0))  # errors count in the same pixels
    sure = seen[..., 2].clamp(0, 1)
    ray = torch.where(sure[..., None] > 0, seen[..., :2] - 0.5, 0.0) / focal  # x / z of each point
    weight = sure.square().detach()
    middle = (weight[..., None] * points).sum(1) / weight.sum(1).clamp_min(1e-6)[:, None]
    ahead = middle.new_full((middle.shape[0], 1), camera.farthest / 2)
    where = torch.cat([torch.zeros_like(middle[:, :2]), ahead], 1)
    # f (x + tx) = f u (z + tz): in tx, ty, tz, with rows that count as pixels do.
    for _ in range(3):
        unit = (focal * aspect)[None, None] * weight[..., None].sqrt()  # B×P×2
        zero = torch.zeros_like(ray[..., 0])
        one = torch.ones_like(zero)
        rows = torch.stack([torch.stack([one, zero, -ray[..., 0]], -1), torch.stack([zero, one, -ray[..., 1]], -1)], 2)
        rows = (unit[..., None] * rows).flatten(1, 2)
        right = (unit * (ray * points[..., 2:] - points[..., :2])).flatten(1, 2)
        ridge = (
            1e-6
            * torch.eye(3, dtype=points.dtype, device=points.device)
            * (rows.square().sum((1, 2))[:, None, None] + 1)
        )
        normal = rows.mT @ rows + ridge
        where = _solved(normal, ((rows.mT @ right[..., None]) + ridge @ where[..., None])[..., 0])
        depth = (points[..., 2] + where[:, None, 2]).clamp_min(0.1)
        off = ((points[..., :2] + where[:, None, :2]) / depth[..., None] - ray) * focal * aspect
        missed = off.square().sum(-1)
        usual = (sure * missed).sum(1, keepdim=True) / sure.sum(1, keepdim=True).clamp_min(1e-6)
        weight = (sure.square() / (1 + missed / (0.5 * usual + 1e-8))).detach()
    return torch.cat([where[:, :2], where[:, 2:].clamp(0.5, camera.farthest)], 1)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """x (B, 3) of `matrix` (B, 3, 3), positive definite, times x = `right` (B, 3): LDLᵀ written out, as other runtimes
    have no solver."""
    (a, _, _), (b, d, _), (c, e, f) = (row.unbind(-1) for row in matrix.unbind(-2))
    x, y, z = right.unbind(-1)
    below, lowest = b / a, c / a
    d = d - below * b
    last = (e - lowest * b) / d
    y, z = y - below * x, z - lowest * x
    z = (z - last * y) / (f - lowest * c - last * last * d)
    y = y / d - last * z
    return torch.stack([x / a - below * y - lowest * z, y, z], -1)


def _block(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
