"""Joints in numpy are those of the body layer."""

import numpy as np
import pytest
import torch

from wholebody.body.assets import read_body_file
from wholebody.body.layer import BodyModel
from wholebody.data.mesh_joints import JointPoser, MeshJoints
from wholebody.data.sample import axis_angle_to_matrix, masked_sample


@pytest.mark.parametrize("name", ["open", "smplx"])
def test_joints_are_those_of_the_layer(request, name):
    """Sparse correctives (the open body) and dense ones (the licensed files'); heads turned either way and too far."""
    arrays = read_body_file("open") if name == "open" else request.getfixturevalue("standin_arrays")()
    poser, body = JointPoser(arrays), BodyModel(arrays)
    rng = np.random.default_rng(0)
    for turn in (0.0, 0.4, -0.4, 1.2, -1.2):
        pose = rng.normal(0, 0.3, (55, 3))
        pose[0] = [0.1, turn, 0.0]
        betas, expression = rng.normal(0, 1, (2, 10))
        rotations = axis_angle_to_matrix(pose)
        as_torch = [torch.as_tensor(x, dtype=torch.float32)[None] for x in (rotations, betas, expression)]
        expected = body.joints_137(body.from_matrices(*as_torch).joints)[0].numpy()
        np.testing.assert_allclose(poser(rotations, betas, expression), expected, atol=3e-6)
        pelvis = body.rest_pelvis(*as_torch[1:])[0].numpy()
        np.testing.assert_allclose(poser.rest_pelvis(betas, expression), pelvis, atol=1e-6)
    np.testing.assert_allclose(poser.hand_mean, body.hand_mean.numpy(), atol=1e-7)


def test_people_without_what_a_mesh_needs_have_none():
    whole = {
        "body": "open", "pose_valid": np.ones(55, bool), "shape_valid": True, "camera_valid": True, "transl": np.ones(3)
    }  # fmt: skip
    joints = MeshJoints("open")
    assert joints(masked_sample("x", [0, 0, 1, 1], **whole)).shape == (137, 3)
    no_root = np.ones(55, bool)
    no_root[0] = False
    for less in (
        {"body": ""},
        {"body": "smplx"},
        {"shape_valid": False},
        {"camera_valid": False},
        {"pose_valid": no_root},
    ):
        assert joints(masked_sample("x", [0, 0, 1, 1], **(whole | less))) is None


def test_no_torch_is_needed():
    """Loader processes start faster and smaller without it."""
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from wholebody.data.mesh_joints import MeshJoints;"
        "MeshJoints('open').body(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
