"""Poses without pictures: what `PlaceBatches` draws, and hints that know hardly more than the lifter."""

import numpy as np
import pytest
import torch

from wholebody.model.embedded.pose_lifting import LIMBS, POINTS, PoseLifter, PoseLifterConfig
from wholebody.training.own.places import PlaceBatches, doubtful_hints, measured_skeleton, place_losses


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("poses")
    pose = rng.normal(0, 0.3, (40, 55, 3)).astype(np.float32)
    arrays = {"full_pose": pose, "betas": rng.normal(0, 0.5, (40, 10)).astype(np.float32)}
    arrays |= {"expression": np.zeros((40, 10), np.float32), "joints_cam": np.zeros((40, 144, 3), np.float32)}
    np.savez(folder / "poses.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def lifter():
    torch.manual_seed(0)
    lifter = PoseLifter(PoseLifterConfig(width=16, blocks=1, turn_width=16, turn_blocks=1))
    lifter.skeleton = measured_skeleton()
    return lifter


def test_a_batch_is_a_function_of_seed_and_number(folder):
    one, same, other = (PlaceBatches(folder, seed=3).batch(number, 16) for number in (5, 5, 6))
    for name, value in one.items():
        torch.testing.assert_close(value, same[name], rtol=0, atol=0)
        assert torch.isfinite(value).all()
    assert not torch.equal(one["places"], other["places"])


def test_exact_people_are_as_they_are_and_in_order(folder):
    data = PlaceBatches(folder, seed=3, exact=True)
    batch = data.batch(0, 40, 0)
    torch.testing.assert_close(batch["betas"], data.betas)
    torch.testing.assert_close(batch["rotations"][:, 1:], data.turns[:, 1:])
    torch.testing.assert_close(batch["places"][:, :17, :2], batch["true"][:, :17])
    assert (batch["known"] < 0).all() and (batch["hint"] == 0).all()


def test_some_people_have_limbs_of_others(folder):
    data = PlaceBatches(folder, seed=4)
    turns = data.batch(0, 400)["rotations"]
    known = data.turns
    swap = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20]
    mirror = torch.tensor([-1.0, 1, 1])
    known = torch.cat([known, known[:, swap] * mirror[:, None] * mirror])

    def whose(joints):
        apart = (turns[:, None, joints] - known[None][:, :, joints]).abs().amax((2, 3, 4))
        assert apart.amin(1).max() < 1e-5  # every limb is somebody's
        return apart.argmin(1)

    trunk, leg = whose([3, 6, 9]), whose([1, 4, 7, 10])
    assert 0.05 < (trunk != leg).float().mean() < 0.25  # a quarter of the people, half of their limbs


def test_doubtful_hints_lie_between_the_lifters_own_answer_and_the_truth(folder, lifter):
    batch = PlaceBatches(folder, seed=5).batch(1, 64)
    chosen = batch["known"] >= 0
    assert 0.2 < chosen.float().mean() < 0.8
    batch["shake"] = torch.zeros_like(batch["shake"])
    guess = lifter.lift(batch["again"])[-1].joints[:, : len(POINTS)].detach()
    true = batch["joints"][:, : len(POINTS)]
    for share, where in ((0.0, guess), (1.0, true), (0.5, (guess + true) / 2)):
        batch["known"] = torch.where(chosen, share, -1.0)
        hint = doubtful_hints(lifter, batch)
        torch.testing.assert_close(hint[chosen][..., :3], where[chosen], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(hint[~chosen], batch["hint"][~chosen])
        torch.testing.assert_close(hint[..., 3], batch["hint"][..., 3])


def test_losses_teach_every_weight_but_the_guess_is_not_taught(folder, lifter):
    batch = PlaceBatches(folder, seed=6).batch(2, 32)
    terms = place_losses(lifter, batch)
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in lifter.parameters())
    assert not doubtful_hints(lifter, batch).requires_grad
    assert abs(float(batch["joints"][:, LIMBS].mean())) < 1e-4
