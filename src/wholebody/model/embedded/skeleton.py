"""Where a body's joints are: a mesh's joints without its mesh."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wholebody.body.assets import NUM_EXPRESSION, NUM_SHAPE
from wholebody.body.joints import FROM_144, JOINTS_144, PARENTS, PARTS_137, SMPLX_JOINTS
from wholebody.body.kinematics import KinematicTree
from wholebody.body.layer import BodyModel

TREE = 22  # joints of the tree that a body's pose turns: not the jaw, the eyes and the fingers


def _moved_by(point: str) -> str:
    """The joint of the tree that moves a point of the trunk, the limbs or the head, or a knuckle."""
    side = point.partition("_")[0]
    if point in SMPLX_JOINTS:
        return point if SMPLX_JOINTS.index(point) < TREE else f"{side}_wrist"
    return f"{side}_foot" if point.endswith("toe") else f"{side}_ankle" if point.endswith("heel") else "head"


BODY_25: tuple[str, ...] = tuple(JOINTS_144[row] for row in FROM_144[PARTS_137["body"]])
"""The body's part of the 137, by their names among the 144."""
_BONES = [("pelvis", "neck"), ("left_hip", "left_knee"), ("left_knee", "left_ankle")]
_TREE = KinematicTree(PARENTS[:TREE])


class Skeleton(nn.Module):
    """Points of the body from 22 rotations and the shape, each moving with one joint of the tree.

    Those of the open body, but for the nose: an open jaw moves it by about a millimetre. How long bones are is kept
    with the weights: of the body that these were trained for.
    """

    rest: Tensor  # (22 + P)×3, metres: the tree's joints, then the points
    directions: Tensor  # (22 + P)×3×10: what each beta adds

    def __init__(self, points: Sequence[str] = BODY_25) -> None:
        """points: P names among the 144, by default the body's 25 of the 137."""
        super().__init__()
        self._rows = [JOINTS_144.index(name) for name in points]
        self._moved_by = [SMPLX_JOINTS.index(_moved_by(name)) for name in points]
        self.register_buffer("rest", torch.zeros(TREE + len(points), 3))
        self.register_buffer("directions", torch.zeros(TREE + len(points), 3, NUM_SHAPE))

    @torch.no_grad()
    def measure(self, body: BodyModel) -> None:
        """Take the bones of a body."""
        like = body.rest_joints
        betas = torch.cat([like.new_zeros(1, NUM_SHAPE), torch.eye(NUM_SHAPE, dtype=like.dtype, device=like.device)])
        still = torch.eye(3, dtype=like.dtype, device=like.device).expand(len(betas), 55, 3, 3)
        joints = body.from_matrices(still, betas, like.new_zeros(len(betas), NUM_EXPRESSION)).joints
        rest = torch.cat([joints[:, :TREE], joints[:, self._rows]], 1)
        self.rest.copy_(rest[0])
        self.directions.copy_((rest[1:] - rest[:1]).permute(1, 2, 0))

    def at_rest(self, betas: Tensor) -> Tensor:
        """betas B×10: tree and points before anything turns, B×(22 + P)×3, metres."""
        return self.rest + torch.einsum("jck,bk->bjc", self.directions, betas)

    def size(self, betas: Tensor) -> Tensor:
        """How large a body is (B): the length of trunk, thigh and shin together, metres."""
        rest = self.at_rest(betas)
        ends = [[SMPLX_JOINTS.index(name) for name in bone] for bone in _BONES]
        bones = [(rest[:, one] - rest[:, other]).norm(dim=-1) for one, other in ends]
        return torch.stack(bones).sum(0)

    def forward(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """rotations B×22×3×3 (the root's first), betas B×10: the points B×P×3, metres, in the body's own frame."""
        rest = self.at_rest(betas)
        tree, points = rest[:, :TREE], rest[:, TREE:]
        turns, places = _TREE.pose(rotations, tree)
        moved = turns[:, self._moved_by] @ (points - tree[:, self._moved_by])[..., None]
        return places[:, self._moved_by] + moved[..., 0]
