"""A stand-in for `anny.Anny` made of the open body, so that what lies around the package is tested without it: one bone
a joint, phenotypes that are shape coefficients, facial actions that are the file's own. In Anny's axes and manner.

`tests/body/test_anny.py` has the same tests with the package itself, where it is installed (`make test-slow`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wholebody.body import open_body as layout
from wholebody.body.anny_body import anny_from_ours
from wholebody.body.assets import read_body_file
from wholebody.body.joints import PARENTS, SMPLX_JOINTS
from wholebody.body.makehuman import BONES
from wholebody.body.skinned import SkinnedBody

PHENOTYPES = (
    "gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "firmness", "african", "asian",
    "caucasian",
)  # fmt: skip
_SPAN = 6.0  # standard deviations from a phenotype of 0 to one of 1
_TILT = 0.3  # radians that every bone's own axes are turned by


class FakeAnny:
    dtype = torch.float64
    phenotype_labels = list(PHENOTYPES)
    bone_labels = [BONES[name][0] for name in SMPLX_JOINTS]
    bone_parents = [int(parent) for parent in PARENTS]
    bone_count = 55

    def __init__(self) -> None:
        body = SkinnedBody.of(read_body_file("open"), torch.float64)
        arrays = layout.expand(layout.read_compact(), correctives=False)
        axes = anny_from_ours().T  # row vectors times this: from ours to Anny's
        self.facial_action_labels = [*map(str, arrays["action_names"]), "jawOpen"]
        actions = torch.from_numpy(arrays["action_expression"]).double()  # (A, 10)
        moves = torch.einsum("vce,ae->avc", body.expression_dirs, actions)
        still = torch.eye(3, dtype=torch.float64).expand(1, 55, 3, 3).clone()
        zero = torch.zeros(1, 10, dtype=torch.float64)
        c, s = np.cos(0.42), np.sin(0.42)
        still[0, SMPLX_JOINTS.index("jaw")] = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]])
        jaw = body.pose(still, zero, zero, zero[:, :3]).vertices - body.template
        shape = body.shape_dirs.permute(2, 0, 1) * _SPAN
        self.blendshapes = torch.cat([shape, moves, jaw]) @ axes
        self.template_vertices = body.template @ axes
        self.template_bone_heads = body.regressor @ self.template_vertices
        self.bone_heads_blendshapes = torch.einsum("jv,kvc->kjc", body.regressor, self.blendshapes)
        self.vertex_bone_weights, self.vertex_bone_indices = body.weights.topk(6, 1)
        self.vertex_bone_weights = self.vertex_bone_weights / self.vertex_bone_weights.sum(1, keepdim=True)
        self._faces = torch.from_numpy(body.faces)
        c, s = np.cos(_TILT), np.sin(_TILT)
        self._tilt = torch.tensor([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)

    def get_triangular_faces(self) -> Tensor:
        return self._faces

    def get_phenotype_blendshape_coefficients(self, **phenotypes: Tensor) -> Tensor:
        first = torch.stack([phenotypes[name] - 0.5 for name in PHENOTYPES[:10]], 1)
        return torch.cat([first, first.new_zeros(len(first), len(self.facial_action_labels))], 1)

    def get_rest_model(self, coefficients: Tensor) -> dict[str, Tensor]:
        heads = self.template_bone_heads + torch.einsum("bk,kjc->bjc", coefficients, self.bone_heads_blendshapes)
        poses = self._tilt.expand(*heads.shape[:2], 4, 4).clone()
        poses[..., :3, 3] = heads
        return {"rest_bone_poses": poses}

    def get_pose_parameterization(self, output: dict[str, Tensor], name: str) -> Tensor:
        assert name == "local-ref"
        rest, posed = output["rest_bone_poses"], output["bone_poses"]
        above = self.bone_parents[1:]
        local = (rest[:, above].inverse() @ rest[:, 1:]).inverse() @ posed[:, above].inverse() @ posed[:, 1:]
        whole = torch.cat([posed[:, :1], local], 1)
        return self._tilt @ whole @ self._tilt.inverse()

    def __call__(
        self, pose: Tensor, phenotypes: Tensor, facial_actions: Tensor, pose_parameterization: str | None = None
    ) -> dict[str, Tensor]:
        coefficients = self.get_phenotype_blendshape_coefficients(**dict(zip(PHENOTYPES, phenotypes.T, strict=True)))
        coefficients = torch.cat([coefficients[:, :10], facial_actions], 1)
        rest = self.get_rest_model(coefficients)["rest_bone_poses"]
        local = self._tilt.inverse() @ pose @ self._tilt
        posed = [local[:, 0]]
        for bone, parent in enumerate(self.bone_parents[1:], 1):
            posed.append(posed[parent] @ rest[:, parent].inverse() @ rest[:, bone] @ local[:, bone])
        moves = torch.stack(posed, 1) @ rest.inverse()
        skin = self.template_vertices + torch.einsum("bk,kvc->bvc", coefficients, self.blendshapes)
        each = moves[:, self.vertex_bone_indices]  # (B, V, 6, 4, 4)
        blended = (each * self.vertex_bone_weights[..., None, None]).sum(2)
        return {"vertices": (blended[..., :3, :3] @ skin[..., None])[..., 0] + blended[..., :3, 3]}
