"""The kinematic tree: from each joint's rotation in its parent's frame to rotations and places in the root's frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wholebody.body.joints import PARENTS, ROTATIONS_53_FROM_55


class KinematicTree:
    """A tree of joints by their parents, each parent before its children; the SMPL-X tree by default."""

    def __init__(self, parents: Sequence[int] = PARENTS) -> None:
        self._parents = list(parents[1:])
        # Each joint's ancestor one step up, two steps up, four, ...: the root's is one past the last joint, as its own.
        nothing = len(parents)
        up = [nothing, *self._parents, nothing]
        self._ancestors: list[list[int]] = []
        while any(joint != nothing for joint in up):
            self._ancestors.append(up)
            up = [up[joint] for joint in up]

    def pose(self, rotations: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Local rotations (B, J, 3, 3) and joints at rest (B, J, 3) to each joint's rotation and place (B, J, 3)."""
        bones = rest - torch.cat([torch.zeros_like(rest[:, :1]), rest[:, self._parents]], 1)
        still = torch.eye(4, dtype=rest.dtype, device=rest.device)
        last_row = still[3:].expand(*rest.shape[:2], 1, 4)
        moves = torch.cat([torch.cat([rotations, bones[..., None]], -1), last_row], 2)
        moves = torch.cat([moves, still.expand(rest.shape[0], 1, 4, 4)], 1)
        # A joint's move, then that of its ancestors in ever longer chains: 4 products for the 11 levels of the body.
        for ancestors in self._ancestors:
            moves = moves[:, ancestors] @ moves
        return moves[:, :-1, :3, :3], moves[:, :-1, :3, 3]


BODY_TREE = KinematicTree()


def tree_rotations(rotations_53: Tensor) -> Tensor:
    """Rotations that networks predict (B×53×3×3, `ROTATIONS_53`) as those of the body's tree (B×55×3×3,
    `SMPLX_JOINTS`): the eyes, which networks do not predict, look ahead."""
    tree = torch.eye(3, device=rotations_53.device, dtype=rotations_53.dtype).repeat(len(rotations_53), 55, 1, 1)
    return tree.index_copy(1, torch.tensor(ROTATIONS_53_FROM_55, device=rotations_53.device), rotations_53)
