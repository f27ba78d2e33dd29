"""Parameters to a mesh: linear blend skinning of a body in the SMPL-X layout, differentiable and batched.

The steps of `from_matrices`: shape and expression move the joints and, with the pose correctives, the vertices; the
tree turns local rotations into one transform per joint; every vertex follows a weighted mean of these; nose, ears,
feet, finger tips and face landmarks are read off the skin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from wholebody.body.assets import (
    NUM_EXPRESSION,
    NUM_SHAPE,
    SKIN_POINT_VERTICES,
    BodyArrays,
    SparsePoseDirs,
    find_body,
    read_body_file,
)
from wholebody.body.joints import FROM_144, PARENTS, SMPLX_JOINTS
from wholebody.body.kinematics import BODY_TREE
from wholebody.errors import BadInput
from wholebody.geometry.rotation import axis_angle_to_matrix

if TYPE_CHECKING:
    from jaxtyping import Float

_NECK = SMPLX_JOINTS.index("neck")
_MAX_TURN = 39  # degrees of head turn that the contour table knows, each way


HALVES = (torch.float16, torch.bfloat16)


def at_least_single(move: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A way to move tensors (to a device, to a type) that leaves those in single precision that it would halve."""

    def moved(tensor: Tensor) -> Tensor:
        there = move(tensor)
        return tensor.to(there.device) if there.dtype in HALVES and tensor.dtype not in HALVES else there

    return moved


@dataclass(frozen=True)
class BodyOutput:
    """Vertices (B, V, 3) and the 144 joints (B, 144, 3), in metres, in the frame of the parameters."""

    vertices: Float[Tensor, "b v 3"]
    joints: Float[Tensor, "b 144 3"]


class BodyModel(nn.Module):
    """A body whose buffers follow `.to()` and `.double()`, and stay out of a network's `state_dict`.

    Build it with `BodyModel.load`. `faces` (F, 3) indexes the vertices of the output. `extras` is what the body's file
    holds beyond the layout, of the whole body: `vt`, `ft`, `region`, ...
    """

    faces: Tensor
    hand_mean: Tensor
    template: Tensor
    directions: Tensor
    rest_joints: Tensor
    joint_directions: Tensor
    weights: Tensor
    correctives: Tensor
    corrective_joint: Tensor
    corrective_vertex: Tensor
    corrective_where: Tensor
    skin_points: Tensor
    landmarks: Tensor
    landmark_barycentric: Tensor
    contour: Tensor
    contour_barycentric: Tensor
    from_144: Tensor

    def __init__(self, arrays: BodyArrays, flat_hand_mean: bool = False, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.name = arrays.name
        self.gender = arrays.gender
        self.flat_hand_mean = flat_hand_mean
        self.parents = PARENTS
        self.num_vertices = arrays.num_vertices
        self.extras = arrays.extras
        self._is_subset = False

        # Coordinates lie in planes (all x, all y, all z): the skinning reads them that way.
        directions = np.concatenate([arrays.shape_dirs, arrays.expression_dirs], -1)
        self._constant("template", arrays.v_template.T, dtype)  # (3, V)
        self._constant("directions", directions.transpose(2, 1, 0), dtype)  # (20, 3, V)
        # Joints are linear in the coefficients too, so that they do not wait for the vertices, nor need them all.
        self._constant("rest_joints", arrays.joint_regressor @ arrays.v_template, dtype)
        moved = (arrays.joint_regressor @ directions.reshape(len(directions), -1)).reshape(55, 3, -1)  # (55, 3, 20)
        self._constant("joint_directions", moved.transpose(2, 0, 1).reshape(NUM_SHAPE + NUM_EXPRESSION, -1), dtype)
        self._constant("weights", arrays.weights.T, dtype)  # (55, V)
        self._constant("hand_mean", _hand_mean(arrays, flat_hand_mean), dtype)

        if isinstance(arrays.pose_dirs, SparsePoseDirs):
            sparse = arrays.pose_dirs
            self._constant("corrective_joint", np.repeat(np.arange(54), sparse.counts))  # (N,), ascending
            self._constant("corrective_vertex", sparse.vertices)  # (N,)
            self._constant("correctives", sparse.offsets.transpose(2, 0, 1), dtype)  # (9, N, 3)
        else:
            self._constant("correctives", arrays.pose_dirs.transpose(2, 1, 0), dtype)  # (486, 3, V)

        self._constant("faces", arrays.faces)
        self._constant("skin_points", np.array(SKIN_POINT_VERTICES))
        self._constant("landmarks", arrays.faces[arrays.landmark_faces])  # (51, 3)
        self._constant("landmark_barycentric", arrays.landmark_barycentric, dtype)
        self._constant("contour", arrays.faces[arrays.contour_faces])  # (79, 17, 3)
        self._constant("contour_barycentric", arrays.contour_barycentric, dtype)
        self._constant("from_144", np.array(FROM_144))
        self._prepare_correctives()

    def _constant(self, name: str, value: np.ndarray, dtype: torch.dtype = torch.int64) -> None:
        # Converted before it is laid out anew: the correctives of a licensed file take 120 MB in float64.
        self.register_buffer(name, torch.from_numpy(value).to(dtype).contiguous(), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BodyModel:
        """A body stays in single precision at least: half of it would move vertices by centimetres."""
        return super()._apply(at_least_single(fn), recurse)

    def _prepare_correctives(self) -> None:
        """For sparse correctives: the span of rows that each joint has, and where their sums go in the planes."""
        self._corrective_spans: tuple[tuple[int, int, int], ...] | None = None
        if not hasattr(self, "corrective_joint"):
            return
        ends = torch.searchsorted(self.corrective_joint, torch.arange(55, device=self.corrective_joint.device)).tolist()
        spans = zip(range(54), ends[:-1], ends[1:], strict=True)
        self._corrective_spans = tuple((joint, first, last) for joint, first, last in spans if last > first)
        planes = torch.arange(3, device=self.corrective_vertex.device) * self.template.shape[1]
        self.register_buffer("corrective_where", (self.corrective_vertex[:, None] + planes).flatten(), persistent=False)

    @classmethod
    def load(
        cls, path: str | Path | None = None, gender: str = "neutral", flat_hand_mean: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> BodyModel:  # fmt: skip
        """The body at `path` (a file, or a folder of SMPL-X files); None or "open" means the embedded open body.

        flat_hand_mean: False (as the published networks): hand poses are added to the file's relaxed hand; True: a
        hand pose of zero is a flat hand.
        """
        return cls(read_body_file(find_body(path, gender)), flat_hand_mean, dtype=dtype)

    def subset(self, vertex_ids: Tensor | np.ndarray | list[int]) -> BodyModel:
        """The same body giving only these vertices, in this order, and all 144 joints: for losses on some vertices."""
        ids = np.asarray(torch.as_tensor(vertex_ids).cpu(), np.int64).reshape(-1)
        if self._is_subset:
            raise BadInput("this body is a subset already: take the subset of the whole body")
        if len(ids) == 0 or ids.min() < 0 or ids.max() >= self.num_vertices or len(np.unique(ids)) != len(ids):
            raise BadInput(f"vertex numbers must differ and lie in 0..{self.num_vertices - 1}")
        wanted = torch.from_numpy(ids).to(self.template.device)
        needed = torch.cat([self.skin_points, self.landmarks.flatten(), self.contour.flatten()]).unique()
        kept = torch.cat([wanted, needed[~torch.isin(needed, wanted)]])
        row = torch.full((self.num_vertices,), -1, device=kept.device)
        row[kept] = torch.arange(len(kept), device=kept.device)

        small = copy.copy(self)
        small._buffers = dict(self._buffers)
        small._is_subset, small.num_vertices = True, len(ids)
        faces = row[self.faces]
        cut: dict[str, Tensor] = {
            "template": self.template[:, kept],
            "directions": self.directions[..., kept],
            "weights": self.weights[:, kept],
            "faces": faces[((faces >= 0) & (faces < len(ids))).all(1)],
            "skin_points": row[self.skin_points],
            "landmarks": row[self.landmarks],
            "contour": row[self.contour],
        }
        if self._corrective_spans is not None:
            stays = row[self.corrective_vertex] >= 0
            cut["corrective_joint"] = self.corrective_joint[stays]
            cut["corrective_vertex"] = row[self.corrective_vertex[stays]]
            cut["correctives"] = self.correctives[:, stays]
        else:
            cut["correctives"] = self.correctives[..., kept]
        for name, value in cut.items():
            small.register_buffer(name, value.contiguous(), persistent=False)
        small._prepare_correctives()
        return small

    @property
    def dtype(self) -> torch.dtype:
        return self.template.dtype

    def extra_repr(self) -> str:
        return f"{self.name}, {self.gender}, {self.num_vertices} vertices, flat_hand_mean={self.flat_hand_mean}"

    def full_pose(
        self, *, global_orient: Tensor, body_pose: Tensor, left_hand_pose: Tensor, right_hand_pose: Tensor,
        jaw_pose: Tensor, leye_pose: Tensor | None = None, reye_pose: Tensor | None = None,
    ) -> Float[Tensor, "b 55 3"]:  # fmt: skip
        """All 55 axis-angle rotations (B, 55, 3) in the order of the tree, the relaxed hand added to the hands.

        Each part comes as (B, J, 3) or (B, 3 J): J = 1, 21, 15, 15, 1, 1, 1. Eyes left out look ahead.
        """
        root = global_orient.reshape(-1, 1, 3)
        ahead = torch.zeros_like(root)
        hands = torch.cat([left_hand_pose.reshape(-1, 15, 3), right_hand_pose.reshape(-1, 15, 3)], 1) + self.hand_mean
        return torch.cat(
            [
                root,
                body_pose.reshape(-1, 21, 3),
                jaw_pose.reshape(-1, 1, 3),
                ahead if leye_pose is None else leye_pose.reshape(-1, 1, 3),
                ahead if reye_pose is None else reye_pose.reshape(-1, 1, 3),
                hands,
            ],
            1,
        )

    def forward(
        self, *, betas: Tensor, expression: Tensor, global_orient: Tensor, body_pose: Tensor, left_hand_pose: Tensor,
        right_hand_pose: Tensor, jaw_pose: Tensor, leye_pose: Tensor | None = None, reye_pose: Tensor | None = None,
        transl: Tensor | None = None,
    ) -> BodyOutput:  # fmt: skip
        """The mesh of axis-angle parameters (see `full_pose`), betas (B, 10), expression (B, 10), transl (B, 3)."""
        pose = self.full_pose(
            global_orient=global_orient, body_pose=body_pose, left_hand_pose=left_hand_pose,
            right_hand_pose=right_hand_pose, jaw_pose=jaw_pose, leye_pose=leye_pose, reye_pose=reye_pose,
        )  # fmt: skip
        return self.from_matrices(axis_angle_to_matrix(pose.to(self.dtype)), betas, expression, transl)

    def from_matrices(
        self, rotations: Tensor, betas: Tensor, expression: Tensor, transl: Float[Tensor, "b 3"] | None = None
    ) -> BodyOutput:
        """The mesh of local rotations (B, 55, 3, 3), relaxed hand included by the caller; the rest as in `forward`."""
        if betas.shape[-1] != NUM_SHAPE or expression.shape[-1] != NUM_EXPRESSION or rotations.shape[1:] != (55, 3, 3):
            raise BadInput(
                f"a body takes betas B×10, expression B×10 and rotations B×55×3×3, not {tuple(betas.shape)}, "
                f"{tuple(expression.shape)} and {tuple(rotations.shape)}"
            )
        # Half precision would move vertices by centimetres: the body is computed in its own type even under autocast.
        with torch.autocast(self.template.device.type, enabled=False):
            coefficients = torch.cat([betas, expression], -1).to(self.dtype)
            return self._pose(rotations.to(self.dtype), coefficients, transl)

    def _pose(self, rotations: Tensor, coefficients: Tensor, transl: Tensor | None) -> BodyOutput:
        rest_joints = self.rest_joints + (coefficients @ self.joint_directions).unflatten(-1, (55, 3))
        turns, places = BODY_TREE.pose(rotations, rest_joints)
        rest_vertices = self._rest_vertices(coefficients, rotations)
        vertices = self._skin(rest_vertices, turns, places - _apply(turns, rest_joints))
        joints = torch.cat([places, self._points_on_skin(vertices, turns[:, _NECK])], 1)
        vertices = vertices[:, : self.num_vertices]
        if transl is not None:
            vertices, joints = vertices + transl[:, None], joints + transl[:, None]
        return BodyOutput(vertices, joints)

    def rest_pelvis(
        self, betas: Float[Tensor, "b 10"], expression: Float[Tensor, "b 10"] | None = None
    ) -> Float[Tensor, "b 3"]:
        """Where the pelvis (B, 3) of these shapes is in the body's own frame: what `global_orient` turns about."""
        pelvis = self.rest_joints[0] + betas @ self.joint_directions[:NUM_SHAPE, :3]
        return pelvis if expression is None else pelvis + expression @ self.joint_directions[NUM_SHAPE:, :3]

    def joints_137(self, joints_144: Float[Tensor, "*b 144 3"]) -> Float[Tensor, "*b 137 3"]:
        """The 137 joints (..., 137, 3) of the published set (`joints.JOINTS_137`) from the 144."""
        return joints_144.index_select(-2, self.from_144)

    def _rest_vertices(self, coefficients: Tensor, rotations: Tensor) -> Tensor:
        """Vertices before posing, with shape, expression and pose correctives: planes (B, 3, V)."""
        shaped = torch.addmm(self.template.flatten(), coefficients, self.directions.flatten(1))
        # R - 1 of every joint but the root, row by row.
        features = (rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)).flatten(2)
        if self._corrective_spans is None:
            shaped = torch.addmm(shaped, features.flatten(1), self.correctives.flatten(1))
        elif self._corrective_spans:
            moved = [features[:, j] @ self.correctives[:, a:b].flatten(1) for j, a, b in self._corrective_spans]
            where = self.corrective_where.expand(shaped.shape[0], -1)
            shaped = shaped.scatter_add(1, where, torch.cat(moved, 1))
        return shaped.unflatten(1, (3, -1))

    def _skin(self, rest: Tensor, turns: Tensor, shifts: Tensor) -> Tensor:
        """Vertices (B, V, 3) that follow the weighted mean of the joints' transforms, from planes (B, 3, V)."""
        # One output coordinate at a time: B×V×4 numbers live instead of the B×V×4×4 of whole transforms. The weights
        # are mostly zeros, but 55 columns are so few that the dense product is no slower than gathering (measured).
        transforms = torch.cat([turns, shifts[..., None]], -1)  # (B, 55, 3, 4)
        planes = []
        for axis in range(3):
            rows = (transforms[:, :, axis].transpose(1, 2).reshape(-1, 55) @ self.weights).unflatten(0, (-1, 4))
            plane = torch.addcmul(rows[:, 3], rows[:, 0], rest[:, 0])
            plane = torch.addcmul(plane, rows[:, 1], rest[:, 1])
            planes.append(torch.addcmul(plane, rows[:, 2], rest[:, 2]))
        return torch.stack(planes, -1)

    def _points_on_skin(self, vertices: Tensor, neck_turn: Tensor) -> Tensor:
        """The 89 points (B, 89, 3) behind the tree's joints: single vertices, inner face landmarks, contour."""
        batch = vertices.shape[0]
        fixed = vertices[:, self.landmarks.flatten()].unflatten(1, (51, 3))
        landmarks = (fixed * self.landmark_barycentric[..., None]).sum(2)
        # The contour is what a viewer in front sees as the face's edge: it slides over the skin as the head turns.
        row = contour_row(neck_turn)
        corners = self.contour[row].reshape(batch, 17 * 3, 1).expand(-1, -1, 3)
        contour = vertices.gather(1, corners).unflatten(1, (17, 3))
        contour = (contour * self.contour_barycentric[row][..., None]).sum(2)
        return torch.cat([vertices[:, self.skin_points], landmarks, contour], 1)


def _apply(turns: Tensor, points: Tensor) -> Tensor:
    return (turns @ points[..., None])[..., 0]


def contour_row(neck_turn: Tensor) -> Tensor:
    """Rows (B,) of the contour table for the neck's rotation (B, 3, 3): whole degrees about the vertical axis.

    Rows 0..39 are turns to the right by that many degrees, 40..78 turns to the left by 1..39; beyond that the last.
    """
    r = neck_turn.detach()
    sideways = torch.atan2(r[:, 2, 0], torch.sqrt(r[:, 0, 0] ** 2 + r[:, 1, 0] ** 2))
    # A pose that is not a number must give joints that are not numbers, not an index error.
    degrees = torch.round(torch.rad2deg(sideways)).nan_to_num().clamp(-_MAX_TURN, _MAX_TURN).long()
    return torch.where(degrees < 0, _MAX_TURN - degrees, degrees)


def _hand_mean(arrays: BodyArrays, flat: bool) -> np.ndarray:
    mean = np.concatenate([arrays.left_hand_mean, arrays.right_hand_mean])
    return np.zeros_like(mean) if flat else mean
