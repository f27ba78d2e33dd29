"""Bodies of a given height and gender."""

import numpy as np
import pytest
import torch

from wholebody.body.layer import BodyModel
from wholebody.body.open_body import COMPACT_PATH, read_compact
from wholebody.errors import BadInput
from wholebody.people.stature import Stature


@pytest.fixture(scope="module")
def stature():
    return Stature(BodyModel.load(flat_hand_mean=True))


def test_height_is_that_of_the_mesh_at_rest(stature):
    body = BodyModel.load(flat_hand_mean=True)
    betas = torch.randn(3, 10)
    still = torch.eye(3).expand(3, 55, 3, 3)
    y = body.from_matrices(still, betas, torch.zeros(3, 10)).vertices[..., 1]
    torch.testing.assert_close(stature.height(betas), y.amax(1) - y.amin(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("metres", [1.45, 1.7, 2.0])
def test_a_given_height_is_met_by_a_shape_near_by(stature, metres):
    betas = torch.randn(4, 10) * 0.5
    taller = stature.with_height(betas, metres)
    torch.testing.assert_close(stature.height(taller), torch.full((4,), metres), atol=2e-3, rtol=0)
    again = stature.with_height(taller, metres)
    torch.testing.assert_close(again, taller, atol=2e-2, rtol=0)


def test_men_and_women_are_told_apart_and_a_given_gender_is_met(stature):
    known = read_compact(COMPACT_PATH)
    adult = known["people_age"] >= 15
    betas = torch.from_numpy(known["people_betas"][adult].astype(np.float32))
    male = torch.from_numpy(known["people_gender"][adult] < 0.5)
    side = (betas - stature.between) @ stature.axis
    assert ((side > 0) == male).float().mean() > 0.9
    as_men = stature.with_gender(betas, "male")
    assert ((as_men - stature.between) @ stature.axis > 1 - 1e-3).all()
    manly = side > 1
    torch.testing.assert_close(as_men[manly], betas[manly])
    assert stature.height(as_men).mean() > stature.height(stature.with_gender(betas, "female")).mean() + 0.05


def test_what_is_lifted_from_found_places_is_kept_in_part(stature):
    kept = stature.as_found(stature.middle + torch.eye(10)) - stature.middle
    torch.testing.assert_close(kept, kept[0, 0] * torch.eye(10), atol=1e-6, rtol=0)
    assert 0.5 < kept[0, 0] < 1


def test_bodies_follow_what_a_face_looks_like_as_far_as_it_is_sure(stature):
    betas = torch.randn(5, 10) * 0.3
    looks = torch.tensor([0.95, 0.02, 0.6, float("nan"), 0.725])
    moved = stature.with_looks(betas, looks)
    before, side = ((of - stature.between) @ stature.axis for of in (betas, moved))
    torch.testing.assert_close(side[:2], torch.tensor([1.0, -1.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(moved[2:4], betas[2:4])
    torch.testing.assert_close(side[4], (before[4] + 1) / 2, atol=1e-3, rtol=0)
    assert stature.height(stature.with_looks(betas, torch.ones(5))).mean() > stature.height(betas).mean()


@pytest.mark.parametrize("metres", [0.1, 3.0, float("nan")])
def test_impossible_heights_are_refused(stature, metres):
    with pytest.raises(BadInput, match="height"):
        stature.with_height(torch.zeros(1, 10), metres)


def test_unknown_genders_are_refused(stature):
    with pytest.raises(BadInput, match="female or male"):
        stature.with_gender(torch.zeros(1, 10), "m")
