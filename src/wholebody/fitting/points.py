"""The 133 keypoints of a posed body, and how they move when a joint turns or the shape changes.

Analytic, for all unknowns at once: a joint that turns carries every point as far as the bones below it carry its skin,
so one pass over 55 bones gives what automatic differentiation needs 182 passes for (it is some ten times slower here).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137, FROM_144, PARENTS, SMPLX_JOINTS
from wholebody.body.kinematics import BODY_TREE
from wholebody.body.layer import BodyModel, contour_row

TREE = len(SMPLX_JOINTS)
TURNING: tuple[int, ...] = tuple(j for j, name in enumerate(SMPLX_JOINTS) if not name.endswith("eyeball"))
"""The 53 joints that a fit turns: all but the eyes, which no keypoint follows."""

_FROM_144 = torch.tensor(FROM_144)[torch.tensor(COCO_WHOLEBODY_FROM_137)]  # where each of the 133 is among the 144


@dataclass(frozen=True)
class Moved:
    """Points (B, 133, 3) in the body's frame, and their derivatives: by the turn of each joint about its own axes
    (`R exp(d)`), (B, 133, 3, 53, 3), and by shape and expression, (B, 133, 3, 20)."""

    points: Tensor
    by_turn: Tensor
    by_shape: Tensor


class KeypointBody:
    """A body reduced to what its 133 keypoints need. Pose correctives move the points but not the derivatives: they
    are millimetres where a turn moves centimetres."""

    def __init__(self, body: BodyModel, dtype: torch.dtype = torch.float64):
        self.body = body.subset([0]).to(dtype)
        like = self.body.template
        self.directions = self.body.directions.permute(2, 1, 0).contiguous()  # (V, 3, 20)
        self.weights = self.body.weights.T.contiguous()  # (V, 55)
        self.joint_directions = self.body.joint_directions.unflatten(-1, (TREE, 3)).permute(1, 2, 0)  # (55, 3, 20)
        below = torch.eye(TREE, dtype=like.dtype, device=like.device)  # [k, j]: k is j or below it
        for joint in range(1, TREE):
            below[joint] += below[PARENTS[joint]]
        self.below = below
        self.turning = torch.tensor(TURNING, device=like.device)
        rows = _FROM_144.to(like.device)
        self.is_joint = rows < TREE
        self.joint_rows = rows[self.is_joint]
        self.skin_rows = rows[~self.is_joint] - TREE  # among skin points, landmarks, contour
        self.order = torch.argsort(torch.cat([self.is_joint.nonzero()[:, 0], (~self.is_joint).nonzero()[:, 0]]))
        ones = like.new_zeros(len(self.body.skin_points), 3)
        ones[:, 0] = 1
        # Every point of the skin is a mean of three vertices; a single vertex counts once.
        self._corners = torch.cat([self.body.skin_points[:, None].expand(-1, 3), self.body.landmarks])
        self._shares = torch.cat([ones, self.body.landmark_barycentric])

    def __call__(self, rotations: Tensor, coefficients: Tensor) -> Moved:
        """Local rotations (B, 55, 3, 3), relaxed hand included; shape and expression side by side (B, 20)."""
        body, batch = self.body, len(rotations)
        rest_joints = body.rest_joints + (coefficients @ body.joint_directions).unflatten(-1, (TREE, 3))
        turns, places = BODY_TREE.pose(rotations, rest_joints)
        rest = body._rest_vertices(coefficients, rotations).transpose(1, 2)  # (B, V, 3)
        shifts = places - (turns @ rest_joints[..., None])[..., 0]

        corners, shares = self._skin(contour_row(turns[:, SMPLX_JOINTS.index("neck")]))  # (B, S, 3) each
        weight = shares[..., None] * self.weights[corners]  # (B, S, 3, 55)
        at_rest = rest.gather(1, corners.flatten(1)[..., None].expand(-1, -1, 3)).unflatten(1, corners.shape[1:])
        total = weight.sum(2)  # (B, S, 55)
        # Where each bone would carry its share of each point: (B, 55, S, 3).
        carried = torch.einsum("bsck,bscx->bksx", weight, at_rest) @ turns.mT
        carried = carried + total.transpose(1, 2)[..., None] * shifts[:, :, None]
        skin = carried.sum(1)

        # What hangs on joint j, about j: the lever that its turn moves.
        hangs = torch.einsum("kj,bksx->bjsx", self.below, carried)
        levers = hangs - (total @ self.below).transpose(1, 2)[..., None] * places[:, :, None]
        joint_levers = self.below.T[:, :, None] * (places[:, None] - places[:, :, None])  # (B, j, k, 3)
        lever = torch.cat([joint_levers[:, :, self.joint_rows], levers], 2)[:, self.turning][:, :, self.order]
        axes = turns[:, self.turning].mT[:, :, None]  # (B, 53, 1, axis, 3)
        by_turn = torch.linalg.cross(axes, lever[:, :, :, None], dim=-1)  # (B, 53, 133, axis, 3)

        # By the coefficients: bones grow, the tree passes it on, and the skin grows on the bones.
        growth = self.joint_directions.clone()
        growth[1:] -= self.joint_directions[list(PARENTS[1:])]
        parent_turn = torch.cat([torch.eye(3).to(turns).expand(batch, 1, 3, 3), turns[:, list(PARENTS[1:])]], 1)
        place_growth = self.below @ (parent_turn @ growth).flatten(2)  # (B, 55, 60)
        bone_growth = place_growth - (turns @ self.joint_directions).flatten(2)
        turned = torch.einsum("bsck,bkxy->bscxy", weight, turns)
        skin_growth = (turned @ self.directions[corners]).sum(2) + (total @ bone_growth).unflatten(-1, (3, -1))
        growths = torch.cat([place_growth.unflatten(-1, (3, -1))[:, self.joint_rows], skin_growth], 1)

        points = torch.cat([places[:, self.joint_rows], skin], 1)[:, self.order]
        return Moved(points, by_turn.permute(0, 2, 4, 1, 3), growths[:, self.order])

    def _skin(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Corners and shares (B, S, 3) of the points on the skin, in the order of `skin_rows`."""
        batch = len(row)
        corners = torch.cat([self._corners.expand(batch, -1, -1), self.body.contour[row]], 1)
        shares = torch.cat([self._shares.expand(batch, -1, -1), self.body.contour_barycentric[row]], 1)
        return corners[:, self.skin_rows], shares[:, self.skin_rows]
