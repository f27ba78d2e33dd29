"""The embedded network's answer to keypoints."""

from __future__ import annotations

import pytest
import torch
from fake_network import FakeNetwork

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137
from wholebody.fitting.fit import Bodies, Fitter
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.load import load_model
from wholebody.people.relift import lift_of


@pytest.fixture(scope="module")
def model():
    return load_model("t")


@pytest.fixture(scope="module")
def bodies(model):
    """Two people who stand upright in a picture of 2000 × 1500 pixels, as a network placed them."""
    turns = torch.zeros(2, 55, 3)
    turns[:, 0, 0] = torch.pi
    far = model.config.camera.translation(torch.tensor([[0.0, 0.2, 1.0]])).expand(2, 3)
    focal, principal = torch.full((2, 2), 12_000.0), torch.tensor([[900.0, 700.0], [1200.0, 800.0]])
    return Bodies(axis_angle_to_matrix(turns), torch.zeros(2, 10), torch.zeros(2, 10), far, focal, principal)


def seen(model, bodies):
    out = model.body.from_matrices(bodies.rotations, bodies.betas, bodies.expression, bodies.transl)
    points = model.body.joints_137(out.joints)[:, list(COCO_WHOLEBODY_FROM_137)]
    return points[..., :2] / points[..., 2:] * bodies.focal_px[:, None] + bodies.principal_px[:, None]


def test_the_answer_goes_where_the_keypoints_are(model, bodies):
    """Arms that are raised in the keypoints are raised in the answer, at the keypoints' place in the picture."""
    turns = torch.zeros(2, 55, 3)
    turns[:, 16, 2], turns[:, 17, 2] = 1.2, -1.2  # both shoulders
    raised = bodies.rotations @ axis_angle_to_matrix(turns)
    keypoints = seen(model, Bodies(raised, *list(vars(bodies).values())[1:]))
    keypoints[1] += torch.tensor([30.0, -20.0])
    lifted = lift_of(model)(bodies, keypoints, torch.ones(2, 133))
    body = slice(0, 17)
    off = (seen(model, lifted) - keypoints)[:, body].norm(dim=-1).mean(1)
    before = (seen(model, bodies) - keypoints)[:, body].norm(dim=-1).mean(1)
    tall = keypoints[:, body, 1].amax(1) - keypoints[:, body, 1].amin(1)
    assert (off < 0.5 * before).all() and (off < 0.04 * tall).all()
    torch.testing.assert_close(lifted.rotations[:, 22:], bodies.rotations[:, 22:])


def test_who_is_hardly_known_stays_as_predicted(model, bodies):
    confidence = torch.zeros(2, 133)
    confidence[1] = 1
    confidence[0, :7] = 1  # a face and two shoulders
    keypoints = seen(model, bodies) + 5
    lifted = lift_of(model)(bodies, keypoints, confidence)
    for name, value in vars(lifted).items():
        torch.testing.assert_close(value[0], getattr(bodies, name)[0])
    assert not torch.equal(lifted.betas[1], bodies.betas[1])


def test_a_fit_near_the_lifted_answer_says_how_far_off_the_network_was(model, bodies):
    keypoints = seen(model, bodies) + 25
    size = torch.full((2,), 900.0)
    fitted = Fitter(model.body, lift=lift_of(model))(bodies, keypoints, torch.ones(2, 133), size)
    torch.testing.assert_close(fitted.error_before.float(), torch.full((2,), 25 * 2**0.5 / 900), rtol=1e-3, atol=0)
    assert (fitted.error < 0.2 * fitted.error_before).all()


def test_networks_that_lift_nothing_have_none():
    assert lift_of(FakeNetwork()) is None
