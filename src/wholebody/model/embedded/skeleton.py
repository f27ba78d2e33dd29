"""Where a body's joints are: a mesh's joints without its mesh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wholebody.body.assets import NUM_EXPRESSION, NUM_SHAPE
from wholebody.body.joints import FROM_144, JOINTS_144, PARENTS, PARTS_137, SMPLX_JOINTS
from wholebody.body.kinematics import KinematicTree
from wholebody.body.layer import BodyModel

TREE = 22  # joints of the tree that a body's pose turns: not the jaw, the eyes and the fingers


def _moved_by(point: str) -> str:
    """The joint of the tree that moves one of the body's 25 joints."""
    if point in SMPLX_JOINTS:
        return point
    side = point.partition("_")[0]
    return f"{side}_foot" if point.endswith("toe") else f"{side}_ankle" if point.endswith("heel") else "head"


_BODY_25 = [JOINTS_144[row] for row in FROM_144[PARTS_137["body"]]]
_MOVED_BY = [SMPLX_JOINTS.index(_moved_by(point)) for point in _BODY_25]
_TREE = KinematicTree(PARENTS[:TREE])


class Skeleton(nn.Module):
    """The body's 25 joints from 22 rotations and the shape, each moving with one joint of the tree.

    Those of the open body, but for the nose: an open jaw moves it by about a millimetre. How long bones are is kept
    with the weights: of the body that these were trained for.
    """

    rest: Tensor  # 47×3, metres: the tree's joints, then the 25
    directions: Tensor  # 47×3×10: what each beta adds

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rest", torch.zeros(TREE + len(_BODY_25), 3))
        self.register_buffer("directions", torch.zeros(TREE + len(_BODY_25), 3, NUM_SHAPE))

    @torch.no_grad()
    def measure(self, body: BodyModel) -> None:
        """Take the bones of a body."""
        like = body.rest_joints
        betas = torch.cat([like.new_zeros(1, NUM_SHAPE), torch.eye(NUM_SHAPE, dtype=like.dtype, device=like.device)])
        still = torch.eye(3, dtype=like.dtype, device=like.device).expand(len(betas), 55, 3, 3)
        joints = body.from_matrices(still, betas, like.new_zeros(len(betas), NUM_EXPRESSION)).joints
        rest = torch.cat([joints[:, :TREE], body.joints_137(joints)[:, PARTS_137["body"]]], 1)
        self.rest.copy_(rest[0])
        self.directions.copy_((rest[1:] - rest[:1]).permute(1, 2, 0))

    def forward(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """rotations B×22×3×3 (the root's first), betas B×10: the 25 joints B×25×3, metres, in the body's own frame."""
        rest = self.rest + torch.einsum("jck,bk->bjc", self.directions, betas)
        tree, points = rest[:, :TREE], rest[:, TREE:]
        turns, places = _TREE.pose(rotations, tree)
        moved = turns[:, _MOVED_BY] @ (points - tree[:, _MOVED_BY])[..., None]
        return places[:, _MOVED_BY] + moved[..., 0]
