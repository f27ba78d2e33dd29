"""Bodies with known parameters, their keypoints, and networks that err in a known way."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137
from wholebody.body.layer import BodyModel
from wholebody.fitting.fit import Bodies
from wholebody.geometry.camera import project
from wholebody.geometry.rotation import axis_angle_to_matrix

FOCAL, PRINCIPAL = 10_000.0, (192.0, 256.0)
ROWS = list(COCO_WHOLEBODY_FROM_137)


@pytest.fixture(scope="session")
def body() -> BodyModel:
    return BodyModel.load(flat_hand_mean=True)


def bodies_of(pose: Tensor, betas: Tensor, expression: Tensor | None = None) -> Bodies:
    """Bodies (pose: (B, 55, 3) axis-angle, y down at a root of half a turn) 45 m before a long lens."""
    count = len(pose)
    return Bodies(
        rotations=axis_angle_to_matrix(pose.double()),
        betas=betas.double(),
        expression=torch.zeros(count, 10).double() if expression is None else expression.double(),
        transl=torch.tensor([0.0, 0.3, 45.0]).double().expand(count, 3),
        focal_px=torch.full((count, 2), FOCAL).double(),
        principal_px=torch.tensor(PRINCIPAL).double().expand(count, 2),
    )


def keypoints_of(body: BodyModel, bodies: Bodies) -> Tensor:
    """(B, 133, 2) by the body layer itself."""
    out = body.from_matrices(bodies.rotations.float(), bodies.betas.float(), bodies.expression.float())
    seen = body.joints_137(out.joints)[:, ROWS].double() + bodies.transl[:, None]
    return project(seen, bodies.focal_px[:, None], bodies.principal_px[:, None])


def vertices_of(body: BodyModel, bodies: Bodies) -> Tensor:
    return body.from_matrices(bodies.rotations.float(), bodies.betas.float(), bodies.expression.float()).vertices


@pytest.fixture
def standing() -> Tensor:
    """(4, 55, 3): four people, arms down, each a little different."""
    generator = torch.Generator().manual_seed(3)
    pose = torch.zeros(4, 55, 3)
    pose[:, 0, 0] = math.pi
    pose[:, 1:22] = 0.05 * torch.randn(4, 21, 3, generator=generator)
    pose[:, 16, 2] -= 1.0
    pose[:, 17, 2] += 1.0
    pose[:, 18, 1] -= 0.5
    pose[:, 19, 1] += 0.5
    return pose


class Standing(torch.nn.Module):
    """A network that sees nothing: everybody stands upright in the middle of the crop, facing the camera."""

    box_scales = torch.ones(3)  # in whose type pictures are handed in

    def forward(self, images: Tensor) -> SimpleNamespace:
        count = len(images)
        pose = torch.zeros(count, 53, 3)
        pose[:, 0, 0] = math.pi
        pose[:, 16, 2], pose[:, 17, 2] = -1.1, 1.1
        return SimpleNamespace(
            rotations=axis_angle_to_matrix(pose),
            betas=torch.zeros(count, 10),
            expression=torch.zeros(count, 10),
            cam_trans=torch.tensor([0.0, -0.3, 45.0]).expand(count, 3),
        )
