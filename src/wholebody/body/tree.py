"""The kinematic tree: from each joint's rotation in its parent's frame to rotations and places in the root's frame."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from wholebody.body.joints import PARENTS


class KinematicTree:
    """A tree of joints by their parents, each parent before its children; the SMPL-X tree by default."""

    def __init__(self, parents: Sequence[int] = PARENTS) -> None:
        level_of = [0] * len(parents)
        for joint in range(1, len(parents)):
            level_of[joint] = level_of[parents[joint]] + 1
        levels = [[j for j, at in enumerate(level_of) if at == level] for level in range(max(level_of) + 1)]
        # For each level below the root its joints, and their parents' places in the level above.
        pairs = itertools.pairwise(levels)
        self._levels = [(below, [above.index(parents[j]) for j in below]) for above, below in pairs]
        order = list(itertools.chain(*levels))
        self._way_back = [order.index(joint) for joint in range(len(parents))]
        self._parents = list(parents[1:])

    def pose(self, rotations: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Local rotations (B, J, 3, 3) and joints at rest (B, J, 3) to each joint's rotation and place (B, J, 3)."""
        # Level by level: 11 small products instead of 55.
        bones = rest - torch.cat([torch.zeros_like(rest[:, :1]), rest[:, self._parents]], 1)
        turns, places = [rotations[:, :1]], [bones[:, :1]]
        for joints, parents in self._levels:
            parent_turn = turns[-1][:, parents]
            turns.append(parent_turn @ rotations[:, joints])
            places.append(places[-1][:, parents] + (parent_turn @ bones[:, joints, :, None])[..., 0])
        return torch.cat(turns, 1)[:, self._way_back], torch.cat(places, 1)[:, self._way_back]


BODY_TREE = KinematicTree()
