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

_NECK = SMPLX_JOINTS.index("neck")
# A lever (3,) times this is, row by row, the matrix (3, 3) that takes an axis to axis × lever.
_AGAINST = [[0, 0, 0, 0, 0, 1, 0, -1, 0], [0, 0, -1, 0, 0, 0, 1, 0, 0], [0, 1, 0, -1, 0, 0, 0, 0, 0]]
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
        growth = self.body.joint_directions.unflatten(-1, (TREE, 3)).permute(1, 2, 0).contiguous()  # (55, 3, 20)
        below = torch.eye(TREE, dtype=like.dtype, device=like.device)  # [k, j]: k is j or below it
        for joint in range(1, TREE):
            below[joint] += below[PARENTS[joint]]
        self.below = below
        self.turning = torch.tensor(TURNING, device=like.device)
        self.below_turning = below[:, self.turning].T.contiguous()  # (53, 55)
        self.parents = torch.tensor(PARENTS[1:], device=like.device)
        self.joint_growth, self.bone_growth = growth, growth.clone()
        self.bone_growth[1:] -= growth[self.parents]
        rows = _FROM_144.to(like.device)
        is_joint = rows < TREE
        self.joint_rows = rows[is_joint]
        self.joint_below = self.below_turning[:, self.joint_rows, None]  # (53, J, 1)
        self.order = torch.argsort(torch.cat([is_joint.nonzero()[:, 0], (~is_joint).nonzero()[:, 0]]))
        self._measure_skin(rows[~is_joint] - TREE)
        self.against = like.new_tensor(_AGAINST)

    def _measure_skin(self, skin_rows: Tensor) -> None:
        """What each of the S points on the skin follows, by the rows of the contour's table: (79, S) of "marks", of
        which each is a mean of three vertices (a single vertex counts once). skin_rows: S among skin points, landmarks,
        contour."""
        body = self.body
        alone = body.template.new_tensor([1.0, 0.0, 0.0]).expand(len(body.skin_points), 3)
        contour_rows, contour_points = body.contour.shape[:2]
        corners = torch.cat([body.skin_points[:, None].expand(-1, 3), body.landmarks, body.contour.flatten(0, 1)])
        shares = torch.cat([alone, body.landmark_barycentric, body.contour_barycentric.flatten(0, 1)])
        still = len(corners) - contour_rows * contour_points
        table = torch.arange(contour_rows * contour_points, device=corners.device).unflatten(0, (contour_rows, -1))
        fixed = torch.arange(still, device=corners.device).expand(contour_rows, -1)
        self.marks = torch.cat([fixed, still + table], 1)[:, skin_rows]
        self.corners = corners  # (M, 3) vertices
        self.weights = shares[..., None] * body.weights.T[corners]  # (M, 3, 55) of the bones, for each vertex
        # (M, 9, 20): x, y, z of the first vertex, then of the others, by the coefficients.
        self.directions = body.directions.permute(2, 1, 0)[corners].flatten(1, 2)

    def __call__(self, rotations: Tensor, coefficients: Tensor) -> Moved:
        """Local rotations (B, 55, 3, 3), relaxed hand included; shape and expression side by side (B, 20)."""
        turns, places, carried, weight, marks = self._posed(rotations, coefficients)
        batch = len(rotations)
        total = weight.sum(2)  # (B, S, 55)

        # What hangs on joint j, about j: the lever that its turn moves.
        hangs = (self.below_turning @ carried.flatten(2)).unflatten(2, (-1, 3))
        pivots = places[:, self.turning, None]
        levers = hangs - (self.below_turning @ total.mT)[..., None] * pivots
        joint_levers = self.joint_below * (places[:, None, self.joint_rows] - pivots)  # (B, j, k, 3)
        lever = torch.cat([joint_levers, levers], 2)[:, :, self.order]
        # The cross products of the joint's axes with it.
        crossed = (lever @ self.against).reshape(batch, len(TURNING), -1, 3)
        by_turn = (crossed @ turns[:, self.turning]).unflatten(2, (-1, 3))  # (B, 53, 133, 3, axis)

        # By the coefficients: bones grow, the tree passes it on, and the skin grows on the bones.
        parent_turn = torch.cat([torch.eye(3).to(turns).expand(batch, 1, 3, 3), turns[:, self.parents]], 1)
        place_growth = self.below @ (parent_turn @ self.bone_growth).flatten(2)  # (B, 55, 60)
        shift_growth = place_growth - (turns @ self.joint_growth).flatten(2)
        # (B, S, 3, 9): the mean turn of each of a point's vertices, side by side.
        turned = (weight @ turns.flatten(2)[:, None]).unflatten(3, (3, 3)).transpose(2, 3).flatten(3)
        skin_growth = turned @ self.directions[marks] + (total @ shift_growth).unflatten(-1, (3, -1))
        growths = torch.cat([place_growth.unflatten(-1, (3, -1))[:, self.joint_rows], skin_growth], 1)
        return Moved(self._in_order(places, carried), by_turn.permute(0, 2, 3, 1, 4), growths[:, self.order])

    def points(self, rotations: Tensor, coefficients: Tensor) -> Tensor:
        """Where the points (B, 133, 3) are, without how they would move."""
        _, places, carried, _, _ = self._posed(rotations, coefficients)
        return self._in_order(places, carried)

    def _posed(self, rotations: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Turns (B, 55, 3, 3) and places (B, 55, 3) of the joints, where each bone would carry its share of each point
        of the skin (B, 55, S, 3), the shares' weights (B, S, 3, 55), and which marks these points are (B, S)."""
        body = self.body
        rest_joints = body.rest_joints + (coefficients @ body.joint_directions).unflatten(-1, (TREE, 3))
        turns, places = BODY_TREE.pose(rotations, rest_joints)
        rest = body._rest_vertices(coefficients, rotations).transpose(1, 2)  # (B, V, 3)
        shifts = places - (turns @ rest_joints[..., None])[..., 0]
        marks = self.marks[contour_row(turns[:, _NECK])]
        weight = self.weights[marks]
        corners = self.corners[marks].flatten(1)[..., None].expand(-1, -1, 3)
        at_rest = rest.gather(1, corners).unflatten(1, (-1, 3))  # (B, S, 3, 3)
        carried = (weight.mT @ at_rest).transpose(1, 2) @ turns.mT
        carried = carried + weight.sum(2).mT[..., None] * shifts[:, :, None]
        return turns, places, carried, weight, marks

    def _in_order(self, places: Tensor, carried: Tensor) -> Tensor:
        return torch.cat([places[:, self.joint_rows], carried.sum(1)], 1)[:, self.order]
