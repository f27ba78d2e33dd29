"""Anny's own skinning on strong poses, to test the baked body against, and the figures of a bake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import roma
import torch

from wholebody.body.joints import PARENTS, SMPLX_JOINTS

from . import poses, shapes
from .source import Population, Source

if TYPE_CHECKING:
    from bake_open_body import Baked

PEOPLE_PER_POSE = 2
VERTICES_KEPT = 700


@dataclass(frozen=True)
class HeldOut:
    """Adults whom nothing was fitted to, at rest in the A-pose and, reposed, in the T-pose."""

    people: Population
    vertices: np.ndarray  # N,V,3 in the T-pose
    joints: np.ndarray  # N,55,3 in the T-pose
    rotations: np.ndarray  # N,55,3,3 from A to T


def skinned_by_anny(source: Source, held_out: HeldOut, shape: shapes.ShapeSpace, order: np.ndarray) -> dict:
    """Arrays of tests/data/anny_reference.npz: R = 12 poses x 2 people, K vertices of each.

    `pose` (R,55,3) axis-angle from the T-pose; `betas` (R,10); `t_vertices` (R,K,3), `t_joints` (R,55,3): the very
    person in the T-pose; `posed` (R,K,3): the same, posed by Anny with its 163 bones; `vertex_ids` (K,).
    """
    pose = np.repeat(np.stack([poses.pose(turns) for turns in poses.STRONG.values()]), PEOPLE_PER_POSE, axis=0)
    count = len(pose)
    turns = roma.rotvec_to_rotmat(torch.tensor(pose)).numpy()
    for k in range(1, 55):
        turns[:, k] = turns[:, PARENTS[k]] @ turns[:, k]
    posed = source.skin(
        turns @ held_out.rotations[:count], {k: v[:count] for k, v in held_out.people.phenotypes.items()}
    )
    ids = np.sort(np.random.default_rng(0).permutation(len(order))[:VERTICES_KEPT])
    return {
        "pose": pose.astype(np.float32),
        "betas": shape.betas(held_out.vertices[:count] - held_out.joints[:count, :1]).astype(np.float32),
        "t_vertices": held_out.vertices[:count][:, order[ids]].astype(np.float32),
        "t_joints": held_out.joints[:count].astype(np.float32),
        "posed": posed[:, order[ids]].astype(np.float32),
        "vertex_ids": ids.astype(np.uint16),
        "pose_names": np.repeat(np.array(list(poses.STRONG)), PEOPLE_PER_POSE),
    }


def report(body: Baked) -> list[str]:
    """What to compare with the last bake's."""
    held = body.held_out
    joint_error = np.linalg.norm(body.regressor @ held.vertices - held.joints, axis=2) * 1e3
    worst = SMPLX_JOINTS[joint_error.max(0).argmax()]
    centred = held.vertices - held.joints[:, :1]
    shape_error = np.linalg.norm(body.shape.vertices(body.shape.betas(centred)) - centred, axis=2) * 1e3
    return [
        f"held-out adults: joints {joint_error.mean():.2f} mm on average, at most {joint_error.max():.1f} ({worst})",
        f"held-out adults: ten shape coefficients leave {shape_error.mean():.2f} mm on average",
        f"expression: ten components explain {100 * body.expression.explained:.1f} % of plausible faces",
        f"jaw: opens {np.degrees(body.jaw_open_rad):.1f} degrees in jawOpen",
    ]
