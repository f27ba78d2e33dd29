"""The prior knows bodies from nonsense, and its files are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wholebody.errors import AssetMissing, BadInput
from wholebody.fitting.prior import EMBEDDED, PosePrior
from wholebody.synthesis.people.draw import HandSpace, sample_people


@pytest.fixture(scope="module")
def prior() -> PosePrior:
    return PosePrior.load(dtype=torch.float64)


class _Anybody:
    """A population of one shape and one face: only poses are asked for."""

    def shapes(self, rng, count, child_fraction):
        return np.zeros((count, 10), np.float32)

    def expressions(self, rng, count):
        return np.zeros((count, 10), np.float32)

    def girth(self, betas):
        return np.ones((len(betas), 3))


@pytest.fixture(scope="module")
def people(body) -> torch.Tensor:
    """Poses (300, 55, 3) from the procedures, by another seed than the prior's, and without any motion clip."""
    hands = HandSpace.of(body.rest_joints.numpy().astype(np.float64))
    drawn = sample_people(np.random.default_rng(99), 300, None, hands, _Anybody(), 0.0)
    return torch.from_numpy(drawn.full_pose).double()


@pytest.fixture(scope="module")
def procedural(people) -> torch.Tensor:
    return people[:, 1:22]


def test_it_is_small_and_says_what_it_saw():
    assert EMBEDDED.stat().st_size < 300_000
    card = EMBEDDED.with_name("POSE_PRIOR.md").read_text()
    assert "CMU" in card and "tools/bake_pose_prior.py" in card


def test_energy_is_that_of_the_best_gaussian(prior, procedural):
    from scipy.stats import multivariate_normal

    pose = procedural[:3].flatten(1)
    logs = []
    for mean, whiten, weight in zip(prior.body.mean, prior.body.whiten, prior.body.weight, strict=True):
        covariance = torch.linalg.inv(whiten.T @ whiten).numpy()
        density = multivariate_normal(mean.numpy(), (covariance + covariance.T) / 2)
        logs.append(density.logpdf(pose.numpy()) + float(weight.log()) + 0.5 * 63 * np.log(2 * np.pi))
    expected = -np.max(logs, axis=0)
    np.testing.assert_allclose(prior.body.energies(pose).amin(1).numpy(), expected, rtol=1e-6, atol=1e-6)
    assert float(prior.body.energy(prior.body.mean).min()) == pytest.approx(0, abs=1e-9)


def test_real_poses_are_likelier_than_shuffled_ones(prior, procedural):
    shuffled = torch.stack([procedural[torch.randperm(len(procedural)), joint] for joint in range(21)], 1)
    shuffled = shuffled[:, torch.randperm(21, generator=torch.Generator().manual_seed(0))]
    real, mixed = (prior.body.energy(pose.flatten(1)).median() for pose in (procedural, shuffled))
    assert real + 30 < mixed


def test_limits_hold_poses_and_stop_broken_knees(prior, procedural):
    inside = ((procedural >= prior.body_low) & (procedural <= prior.body_high)).float().mean()
    assert inside > 0.99
    left_knee = 3  # of the 21
    assert prior.body_low[left_knee, 0] > -0.8  # a knee does not bend forward
    assert prior.body_high[left_knee, 0] > 2.0


def test_hands_are_known_on_both_sides(prior, people):
    left, right = people[:, 25:40], people[:, 40:55] * torch.tensor([1.0, -1.0, -1.0])
    energies = [prior.hand.energy(pose.flatten(1)).median() for pose in (left, right, -left)]
    assert max(energies[0], energies[1]) + 25 < energies[2]  # fingers do not bend backwards


def test_what_is_no_prior_is_refused(tmp_path):
    with pytest.raises(AssetMissing, match="bake_pose_prior"):
        PosePrior.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(BadInput, match="has no"):
        PosePrior.load(tmp_path / "other.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(BadInput, match="not a pose prior"):
        PosePrior.load(tmp_path / "text.npz")
