"""The kinematic tree: from each joint's rotation in its parent's frame to rotations and places in the root's frame.

Networks, bodies and fits do it in torch (`KinematicTree.pose`); loaders and the drawing of people, which keep torch out
of their processes, in numpy (`pose_arrays`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from wholebody.body.joints import PARENTS

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


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

    def pose(
        self, rotations: Float[Tensor, "b j 3 3"], rest: Float[Tensor, "b j 3"]
    ) -> tuple[Float[Tensor, "b j 3 3"], Float[Tensor, "b j 3"]]:
        """Local rotations (B, J, 3, 3) and joints at rest (B, J, 3) to each joint's rotation and place (B, J, 3)."""
        import torch

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


def pose_arrays(
    rotations: Float[np.ndarray, "*b j 3 3"], rest: Float[np.ndarray, "*r j 3"], parents: Sequence[int] = PARENTS
) -> tuple[Float[np.ndarray, "*b j 3 3"], Float[np.ndarray, "*b j 3"]]:
    """`KinematicTree.pose` in numpy: local rotations (..., J, 3, 3) and joints at rest (J, 3) or (..., J, 3) to each
    joint's rotation (..., J, 3, 3) and place (..., J, 3), the root where it rests.

    parents: of the J joints, each before its children; that of the root, the first, is not looked at.
    """
    turns = rotations.copy()
    places = np.broadcast_to(rest, (*rotations.shape[:-3], *rest.shape[-2:])).copy()
    for joints, above in _levels(tuple(parents[1:])):
        turns[..., joints, :, :] = turns[..., above, :, :] @ rotations[..., joints, :, :]
        bones = (rest[..., joints, :] - rest[..., above, :])[..., None]
        places[..., joints, :] = places[..., above, :] + (turns[..., above, :, :] @ bones)[..., 0]
    return turns, places


@lru_cache
def _levels(parents: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The joints at each depth of the tree below the root, and their parents."""
    depth = [0]
    for parent in parents:
        depth.append(depth[parent] + 1)
    levels = [np.flatnonzero(np.array(depth) == level) for level in range(1, max(depth) + 1)]
    return [(joints, np.array(parents)[joints - 1]) for joints in levels]


def moved_places(
    turns: Float[Tensor, "b j 3 3"], rest: Float[Tensor, "*r j 3 s"], parents: Sequence[int] = PARENTS
) -> Float[Tensor, "b j 3 s"]:
    """Where S sets of joints at rest, (J, 3, S) or (B, J, 3, S), come to lie, (B, J, 3, S), under rotations
    (B, J, 3, 3) in the root's frame. It is linear: of how S coefficients of the shape move the joints at rest, how they
    move the turned ones."""
    import torch

    places = [rest[..., 0, :, :].expand(turns.shape[0], *rest.shape[-2:])]
    for joint, parent in enumerate(parents[1:], 1):
        places.append(places[parent] + turns[:, parent] @ (rest[..., joint, :, :] - rest[..., parent, :, :]))
    return torch.stack(places, 1)


def chain(joint: int) -> list[int]:
    """The joints of the body from the root down to `joint`; none for the parent of the root, -1."""
    return [] if joint < 0 else [*chain(PARENTS[joint]), joint]


def turn_of(rotations: Float[Tensor, "b j 3 3"], joint: int) -> Float[Tensor, "b 3 3"]:
    """The rotation B×3×3 in the root's frame of one joint of the body, from local rotations B×J×3×3 of its first J:
    along its own chain only."""
    first, *others = chain(joint)
    turn = rotations[:, first]
    for other in others:
        turn = turn @ rotations[:, other]
    return turn


def tree_rotations(rotations_53: Float[Tensor, "b 53 3 3"]) -> Float[Tensor, "b 55 3 3"]:
    """Rotations that networks predict (B×53×3×3, `ROTATIONS_53`) as those of the body's tree (B×55×3×3,
    `SMPLX_JOINTS`): the eyes, which networks do not predict, look ahead."""
    import torch

    body, hands, jaw = rotations_53.split((22, 30, 1), 1)
    eyes = torch.eye(3, dtype=body.dtype, device=body.device).expand(body.shape[0], 2, 3, 3)
    return torch.cat((body, jaw, eyes, hands), 1)
