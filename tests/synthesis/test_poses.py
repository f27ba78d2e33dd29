"""Sets without pictures: the same for the same seed, what the body says of their parameters, and read like layers."""

import dataclasses

import numpy as np
import pytest
import torch

from wholebody.body.joints import FROM_144
from wholebody.data.sample import axis_angle_to_matrix
from wholebody.errors import BadInput, OutputError
from wholebody.synthesis.sets import poses
from wholebody.training.own.poses import LiftingBatches


@pytest.fixture(scope="module")
def folder(bare, tmp_path_factory):
    return poses.run(tmp_path_factory.mktemp("poses"), 300, seed=3, config=bare)


def test_joints_are_those_of_the_parameters(folder, studio):
    people = poses.read_people(folder)
    assert {key: len(value) for key, value in people.items()} == dict.fromkeys(poses.KEYS, 300)
    rows = slice(250, 270)  # of two batches
    rotations = torch.from_numpy(axis_angle_to_matrix(people["full_pose"][rows])).float()
    posed = studio.body.from_matrices(
        rotations, torch.from_numpy(people["betas"][rows]), torch.from_numpy(people["expression"][rows])
    )
    joints = posed.joints.numpy()[:, FROM_144]
    np.testing.assert_allclose(people["joints_cam"][rows], joints - joints[:, :1], atol=1e-4)
    head, feet = joints[:, 24], joints[:, 14:20].mean(1)
    assert (head[:, 1] < feet[:, 1]).mean() > 0.5  # camera axes: y down


def test_a_person_depends_on_seed_and_number_alone(folder, bare, tmp_path):
    few = poses.read_people(poses.run(tmp_path / "few", 20, seed=3, config=bare))
    other = poses.read_people(poses.run(tmp_path / "other", 20, seed=4, config=bare))
    for key, value in poses.read_people(folder).items():
        np.testing.assert_array_equal(few[key], value[:20])
        assert (other[key] != value[:20]).any()


def test_lifting_learns_from_poses_as_from_layers(folder, layers):
    alone, drawn = (LiftingBatches(where, 0, (512, 384)).batch(1, 8) for where in (folder, layers))
    assert {k: v.shape for k, v in alone.items()} == {k: v.shape for k, v in drawn.items()}
    assert all(value.isfinite().all() for value in alone.values())


def test_what_cannot_be_done_is_explained(folder, bare, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="asked for 0 people"):
        poses.run(tmp_path, 0, config=bare)
    (tmp_path / poses.FILE).write_bytes((folder / poses.FILE).read_bytes()[:5000])
    with pytest.raises(BadInput, match="poses.npz is no readable"):
        poses.read_people(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another --out"):
        poses.run(tmp_path / "file" / "below", 1, config=bare)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="No space left"):
        poses.run(tmp_path / "full", 1, config=dataclasses.replace(bare))
    assert not list((tmp_path / "full").iterdir())
