"""Bodies of any topology with 24, 52 or 55 joints: what conversion between bodies poses, differentiates and fits.

`BodyModel` (layer.py) is the body of the networks: 55 joints and all 144 points. A `SkinnedBody` is any body of that
family (SMPL, SMPL-H, SMPL-X, the open body): linear blend skinning of a template with shape, expression and pose
correctives. Metres, y up, x to the body's left, z forward, as in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.body.assets import BodyArrays, SparsePoseDirs
from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.kinematics import KinematicTree
from wholebody.body.skeletons import SMPL_JOINTS, SMPLH_JOINTS, parents
from wholebody.errors import BadInput

JOINTS_OF = {24: SMPL_JOINTS, 52: SMPLH_JOINTS, 55: SMPLX_JOINTS}
"""Names of the joints of SMPL, SMPL-H and SMPL-X, by their number."""
FAMILY_OF = {24: "smpl", 52: "smplh", 55: "smplx"}


@dataclass(frozen=True, eq=False)
class SkinnedBody:
    """One body: V vertices, J joints, S shape and E expression coefficients. All floats share one dtype."""

    name: str  # "smpl", "smplh", "smplx" or "open"
    gender: str
    joint_names: tuple[str, ...]
    faces: np.ndarray  # (F, 3) int64
    template: Tensor  # (V, 3)
    shape_dirs: Tensor  # (V, 3, S)
    expression_dirs: Tensor  # (V, 3, E)
    pose_dirs: Tensor  # (9 (J - 1), V * 3): entries of R - 1 of each joint but the root, row by row
    regressor: Tensor  # (J, V)
    weights: Tensor  # (V, J)
    hand_mean: np.ndarray  # (30, 3) axis-angle: left, right; zeros where the body has no fingers
    landmark_corners: np.ndarray | None = None  # (51, 3) vertices of the inner face landmarks
    landmark_weights: np.ndarray | None = None  # (51, 3)

    @property
    def num_joints(self) -> int:
        return len(self.joint_names)

    @property
    def num_vertices(self) -> int:
        return len(self.template)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        return parents(self.joint_names)

    @cached_property
    def tree(self) -> KinematicTree:
        return KinematicTree(self.parents)

    @cached_property
    def rest(self) -> Rest:
        """Joints (J, 3) of the template and how shape and expression move them (J, 3, S + E)."""
        directions = torch.cat([self.shape_dirs, self.expression_dirs], -1)
        moved = torch.einsum("jv,vcs->jcs", self.regressor, directions)
        return Rest(self.template, directions, self.regressor @ self.template, moved)

    @property
    def shape_mean(self) -> Tensor:
        """(S,): coefficients are in standard deviations about the template."""
        return self.template.new_zeros(self.shape_dirs.shape[-1])

    @property
    def shape_stiffness(self) -> Tensor:
        return self.template.new_ones(self.shape_dirs.shape[-1])

    def next_shape(self, betas: Tensor, step: Tensor) -> Tensor:
        """The whole step: skin is linear in the coefficients, and any of them gives a body."""
        return betas + step

    def shape_moves(self, betas: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How vertices (1, N, 3, S) and joints (1, J, 3, S) at rest move with the shape: the same about every one."""
        count = self.shape_dirs.shape[-1]
        return self.shape_dirs[rows][None], self.rest.joint_directions[None, ..., :count]

    @staticmethod
    def of(arrays: BodyArrays, dtype: torch.dtype = torch.float32) -> SkinnedBody:
        """The SMPL-X or open body that `read_body_file` gave."""
        dense = arrays.pose_dirs
        count = arrays.num_vertices
        if isinstance(dense, SparsePoseDirs):
            full = np.zeros((54, count, 3, 9), np.float32)
            full[np.repeat(np.arange(54), dense.counts), dense.vertices] = dense.offsets
            pose_dirs = full.transpose(0, 3, 1, 2).reshape(486, count * 3)
        else:
            pose_dirs = dense.transpose(2, 0, 1).reshape(486, count * 3)

        def tensor(value: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(value)).to(dtype)

        return SkinnedBody(
            name=arrays.name,
            gender=arrays.gender,
            joint_names=SMPLX_JOINTS,
            faces=arrays.faces,
            template=tensor(arrays.v_template),
            shape_dirs=tensor(arrays.shape_dirs),
            expression_dirs=tensor(arrays.expression_dirs),
            pose_dirs=tensor(pose_dirs),
            regressor=tensor(arrays.joint_regressor),
            weights=tensor(arrays.weights),
            hand_mean=np.concatenate([arrays.left_hand_mean, arrays.right_hand_mean]),
            landmark_corners=arrays.faces[arrays.landmark_faces],
            landmark_weights=arrays.landmark_barycentric,
        )

    @staticmethod
    def from_file_arrays(
        arrays: Mapping[str, Any], path: str | Path, dtype: torch.dtype = torch.float32
    ) -> SkinnedBody:
        """SMPL (24 joints) or SMPL-H (52) from the arrays of its file. BadInput says what does not fit."""
        missing = [key for key in _KEYS if key not in arrays]
        if missing:
            raise BadInput(f"{path} has no {', '.join(missing)}: it is not a body of the SMPL family")
        found = {key: np.asarray(arrays[key]) for key in _KEYS}
        count = len(found["v_template"])
        joints = found["weights"].shape[-1]
        if joints not in JOINTS_OF:
            raise BadInput(f"{path} has {joints} joints; bodies with 24 (SMPL), 52 (SMPL-H) or 55 (SMPL-X) are known")
        names = JOINTS_OF[joints]
        shapes = {
            "v_template": (count, 3),
            "weights": (count, joints),
            "J_regressor": (joints, count),
            "posedirs": (count, 3, 9 * (joints - 1)),
            "kintree_table": (2, joints),
        }
        for key, shape in shapes.items():
            if found[key].shape != shape:
                raise BadInput(f"{path}: {key!r} is {found[key].shape}, where {shape} belongs")
        if found["kintree_table"][0, 1:].tolist() != list(parents(names)[1:]):
            raise BadInput(f"{path}: 'kintree_table' is not the tree of {FAMILY_OF[joints].upper()}'s {joints} joints")
        faces = found["f"].astype(np.int64)
        if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= count:
            raise BadInput(f"{path}: 'f' does not hold triangles of its {count} vertices")
        directions = found["shapedirs"]
        if directions.ndim != 3 or directions.shape[:2] != (count, 3) or directions.shape[2] < 1:
            raise BadInput(f"{path}: 'shapedirs' is {directions.shape}, where ({count}, 3, 10 or more) belongs")

        def tensor(key: str, value: np.ndarray) -> Tensor:
            result = torch.from_numpy(np.ascontiguousarray(value, np.float64))
            if not torch.isfinite(result).all():
                raise BadInput(f"{path}: {key!r} holds values that are not finite; the file is damaged")
            return result.to(dtype)

        hands = [np.asarray(arrays[key], np.float64).reshape(15, 3) for key in ("hands_meanl", "hands_meanr")
                 if joints > 24 and key in arrays]  # fmt: skip
        pose_dirs = found["posedirs"].transpose(2, 0, 1).reshape(-1, count * 3)
        return SkinnedBody(
            name=FAMILY_OF[joints],
            gender=_gender(path),
            joint_names=names,
            faces=faces,
            template=tensor("v_template", found["v_template"]),
            shape_dirs=tensor("shapedirs", directions[..., :10]),
            expression_dirs=torch.zeros(count, 3, 0, dtype=dtype),
            pose_dirs=tensor("posedirs", pose_dirs),
            regressor=tensor("J_regressor", found["J_regressor"]),
            weights=tensor("weights", found["weights"]),
            hand_mean=np.concatenate(hands) if len(hands) == 2 else np.zeros((30, 3)),
        )

    def to(self, dtype: torch.dtype) -> SkinnedBody:
        """The same numbers in another precision."""
        names = ("template", "shape_dirs", "expression_dirs", "pose_dirs", "regressor", "weights")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})

    def pose(
        self, rotations: Tensor, betas: Tensor, expression: Tensor, transl: Tensor, rows: Tensor | None = None
    ) -> Posed:
        """rotations (B, J, 3, 3) local, relaxed hands included; betas (B, S); expression (B, E); transl (B, 3).

        rows: only these vertices. Gives vertices, joints and what a fit needs to turn them further.
        """
        coefficients = torch.cat([betas, expression], -1)
        rest = self.rest
        joints = rest.joints + torch.einsum("jcs,bs->bjc", rest.joint_directions, coefficients)
        turns, places = self.tree.pose(rotations, joints)
        places = places + transl[:, None]
        template, directions, weights = rest.template, rest.directions, self.weights
        correctives = self.pose_dirs
        if rows is not None:
            template, directions, weights = template[rows], directions[rows], weights[rows]
            correctives = correctives.unflatten(1, (-1, 3))[:, rows].flatten(1)
        still = torch.eye(3, dtype=rotations.dtype)
        shaped = template.flatten() + coefficients @ directions.flatten(0, 1).T
        shaped = shaped + (rotations[:, 1:] - still).flatten(1) @ correctives
        resting = shaped.unflatten(1, (-1, 3))
        shifts = places - (turns @ joints[..., None])[..., 0]
        transforms = torch.cat([turns, shifts[..., None]], -1).flatten(2)  # (B, J, 12)
        blended = (weights @ transforms).unflatten(-1, (3, 4))  # (B, V, 3, 4)
        vertices = (blended[..., :3] @ resting[..., None])[..., 0] + blended[..., 3]
        return Posed(vertices, places, turns, shifts, resting)


@dataclass(frozen=True, eq=False)
class Rest:
    """A body without pose: its template, how coefficients move it, and the same of its joints."""

    template: Tensor  # (V, 3)
    directions: Tensor  # (V, 3, S + E)
    joints: Tensor  # (J, 3)
    joint_directions: Tensor  # (J, 3, S + E)


@dataclass(frozen=True, eq=False)
class Posed:
    """B posed bodies (some or all of their vertices)."""

    vertices: Tensor  # (B, V, 3)
    joints: Tensor  # (B, J, 3)
    turns: Tensor  # (B, J, 3, 3) of each joint, in the body's frame
    shifts: Tensor  # (B, J, 3): a vertex of joint j goes from rest x to turns_j x + shifts_j
    resting: Tensor  # (B, V, 3) before skinning, correctives included


_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")


def _gender(path: str | Path) -> str:
    words = Path(path).stem.lower().replace("-", "_").split("_")
    for word in reversed(words):
        if word in ("neutral", "male", "female"):
            return word
        if word in ("m", "f"):
            return {"m": "male", "f": "female"}[word]
    return "neutral"
