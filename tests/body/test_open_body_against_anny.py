"""The baked body against Anny's own skinning with all its 163 bones, on twelve strong poses of held-out adults.

tests/data/anny_reference.npz is written by tools/bake_open_body.py, see `skinned_by_anny` there: 700 vertices of
24 people. Both meshes are centred; what remains is skinning, joints and (in the second test) ten shape coefficients.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from wholebody.body import open_body
from wholebody.body.joints import PARENTS
from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import axis_angle_to_matrix


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).parents[1] / "data" / "anny_reference.npz") as file:
        return dict(file)


def error_mm(vertices, reference):
    """Distances (R,K) after centring."""
    away = vertices - reference["posed"]
    return 1e3 * np.linalg.norm(away - away.mean(1, keepdims=True), axis=2)


def skin(reference, pose):
    """The very same people (not their ten coefficients) by the baked weights and correctives, vertex by vertex."""
    arrays = open_body.expand(open_body.read_compact())
    ids, joints = reference["vertex_ids"], reference["t_joints"].astype(float)
    local = axis_angle_to_matrix(torch.from_numpy(pose.astype(float))).numpy()
    turned, placed = local.copy(), joints.copy()
    for k in range(1, 55):
        p = PARENTS[k]
        turned[:, k] = turned[:, p] @ local[:, k]
        placed[:, k] = placed[:, p] + np.einsum("nij,nj->ni", turned[:, p], joints[:, k] - joints[:, p])
    features = (local[:, 1:] - np.eye(3)).reshape(len(local), -1)
    rest = reference["t_vertices"] + np.einsum("vcf,nf->nvc", arrays["posedirs"][ids], features)
    moved = np.einsum("nkij,nkvj->nkvi", turned, rest[:, None] - joints[:, :, None]) + placed[:, :, None]
    return np.einsum("vk,nkvi->nvi", arrays["weights"][ids], moved)


def test_skinning_is_annys_within_6_mm_on_strong_poses(reference):
    error = error_mm(skin(reference, reference["pose"]), reference)
    by_pose = {name: error[reference["pose_names"] == name].mean() for name in np.unique(reference["pose_names"])}
    assert len(by_pose) == 12
    assert error.mean() < 5, by_pose
    assert max(by_pose.values()) < 9, by_pose
    assert np.percentile(error, 95) < 18


def test_ten_coefficients_give_annys_people_within_6_mm_on_strong_poses(reference):
    body = BodyModel.load()
    with torch.no_grad():
        out = body.from_matrices(
            axis_angle_to_matrix(torch.from_numpy(reference["pose"])),
            torch.from_numpy(reference["betas"]),
            torch.zeros(len(reference["betas"]), 10),
        )
    error = error_mm(out.vertices.numpy()[:, reference["vertex_ids"]], reference)
    assert error.mean() < 6
    # The mean person in these poses is far off: the coefficients are what brings it near.
    with torch.no_grad():
        nobody = torch.zeros(len(reference["betas"]), 10)
        mean = body.from_matrices(axis_angle_to_matrix(torch.from_numpy(reference["pose"])), nobody, nobody)
    assert error_mm(mean.vertices.numpy()[:, reference["vertex_ids"]], reference).mean() > 3 * error.mean()


def test_the_poses_are_strong_and_the_comparison_can_fail(reference):
    still = error_mm(reference["t_vertices"], reference)
    assert still.mean() > 100
    mirrored = reference["pose"] * np.float32([1, -1, -1])
    assert error_mm(skin(reference, mirrored), reference).mean() > 100
