"""Errors of drawn people, lent to people without a picture who stand as they do."""

import numpy as np
import pytest
import torch

from wholebody.body.joints import COCO_BODY_17, flip_permutation
from wholebody.errors import BadInput
from wholebody.training.own.places import PlaceBatches
from wholebody.training.own.sightings import Sightings, write

SWAP = list(flip_permutation(COCO_BODY_17))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 100, (30, 17, 2)).astype(np.float32)
    error = rng.normal(0, 5, (30, 17, 2)).astype(np.float32)
    score = rng.uniform(0, 1, (30, 17, 1)).astype(np.float32)
    inside = rng.uniform(0, 1, (30, 17)) < 0.8
    depth = rng.normal(0, 0.3, (30, 17)).astype(np.float32)
    return {"true": true, "found": np.concatenate([true + error, score], 2), "depth": depth, "inside": inside}


@pytest.fixture
def sightings(arrays, tmp_path):
    write(tmp_path / "sightings.npz", arrays)
    return Sightings(tmp_path / "sightings.npz")


def test_who_stands_as_a_drawn_person_is_found_as_that_one_was(arrays, sightings):
    true, depth = torch.from_numpy(arrays["true"]), torch.from_numpy(arrays["depth"])
    assert len(sightings) == 60
    # As somebody near or far, elsewhere in the picture: many draws, so that everybody is among those looked through.
    for scale, shift in ((1.0, 0.0), (0.02, 3.0)):
        same = 0
        for number in range(20):
            lent = sightings.lend(torch.Generator().manual_seed(number), true * scale + shift, depth)
            off = (lent.at - (torch.from_numpy(arrays["found"][..., :2]) * scale + shift)).norm(dim=2)
            right = off.amax(1) < 0.01 * scale
            same += int(right.sum())
            torch.testing.assert_close(lent.score[right], torch.from_numpy(arrays["found"][..., 2])[right])
            assert torch.equal(lent.outside[right], ~torch.from_numpy(arrays["inside"])[right])
        assert same > 300  # of 600: each draw holds a person with a chance of 1 - 1/e


def test_everybody_is_there_mirrored_too(arrays, sightings):
    mirror = torch.tensor([-1.0, 1.0])
    true = torch.from_numpy(arrays["true"])[:, SWAP] * mirror
    found = torch.from_numpy(arrays["found"])[:, SWAP]
    depth = torch.from_numpy(arrays["depth"])[:, SWAP]
    same = 0
    for number in range(10):
        lent = sightings.lend(torch.Generator().manual_seed(number), true, depth)
        right = (lent.at - found[..., :2] * mirror).norm(dim=2).amax(1) < 1
        same += int(right.sum())
        torch.testing.assert_close(lent.score[right], found[..., 2][right])
    assert same > 150


def test_a_part_of_a_batch_has_lent_errors_and_the_rest_stays(sightings, tmp_path):
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.3, (40, 55, 3)).astype(np.float32)
    more = {"betas": np.zeros((40, 10), np.float32), "expression": np.zeros((40, 10), np.float32)}
    np.savez(tmp_path / "poses.npz", full_pose=pose, joints_cam=np.zeros((40, 144, 3), np.float32), **more)
    data = PlaceBatches(tmp_path, seed=1, sightings=sightings)
    batch, again = data.batch(3, 300), data.batch(3, 300)
    for name, value in batch.items():
        torch.testing.assert_close(value, again[name], rtol=0, atol=0)
        assert torch.isfinite(value).all()
    known = batch["places"][:, :17, 2]
    scores = sightings.score.where(sightings.score >= 0.05, 0.0)
    lent = (known[:, None] == scores[None]).all(2).any(1)
    assert 0.3 < lent.float().mean() < 0.5


@pytest.mark.parametrize("name", ["true", "found", "depth", "inside"])
def test_a_damaged_file_says_what_is_wrong(arrays, tmp_path, name):
    path = tmp_path / "sightings.npz"
    whole = dict(arrays)
    np.savez(path, **{key: value for key, value in whole.items() if key != name})
    with pytest.raises(BadInput, match=name):
        Sightings(path)
    np.savez(path, **(whole | {name: whole[name][:-1]}))
    with pytest.raises(BadInput, match="different lengths"):
        Sightings(path)
