"""Fine positions and the heads that lift them: what they promise at the start, and that both ends agree on pixels."""

import copy

import pytest
import torch

from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import mirrored, rotation_6d_to_matrix
from wholebody.model.embedded.build import SMALL, build_embedded
from wholebody.model.embedded.lifting import LiftingConfig, LiftingHandHead, turn_wrists, wrist_turns
from wholebody.training.own.losses import heatmap_loss

CROP = (512, 384)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_embedded().eval()


@pytest.fixture(scope="module")
def encoded(model):
    with torch.no_grad():
        return model.encoder(torch.rand(2, 3, 256, 192))


def rotations(*shape):
    return rotation_6d_to_matrix(torch.randn(*shape, 6))


def test_wrists_turn_as_far_towards_the_palms_as_these_are_trusted():
    torch.manual_seed(0)
    body, palms = rotations(4, 22), rotations(4, 2)
    torch.testing.assert_close(turn_wrists(body, palms, torch.zeros(4, 2, 1)), body)
    turned = turn_wrists(body, palms, torch.ones(4, 2, 1))
    torch.testing.assert_close(wrist_turns(turned), palms)
    torch.testing.assert_close(turned[:, :20], body[:, :20])
    between = wrist_turns(turn_wrists(body, palms, torch.full((4, 2, 1), 0.5)))
    assert ((between - palms).norm(dim=(2, 3)) < (wrist_turns(body) - palms).norm(dim=(2, 3))).all()


def test_a_body_starts_at_rest_whatever_the_picture(model, encoded):
    with torch.no_grad():
        prediction = model.regress_encoded(encoded)
    torch.testing.assert_close(prediction.rotations[:, :52], torch.eye(3).expand(2, 52, 3, 3), atol=1e-6, rtol=0)
    assert (prediction.betas == 0).all()


def test_a_heatmap_target_peaks_in_the_cell_that_holds_the_point():
    rows, columns, known = 32, 24, torch.ones(1, 1)
    for row, column in ((0, 0), (13, 20), (31, 23)):
        middle = (torch.tensor([column, row]) + 0.5) * 16 - 0.5  # pixels, centres at integers
        sure = torch.full((1, 1, rows * columns + 1), -30.0)
        sure[..., row * columns + column] = 30.0
        here = heatmap_loss(sure, middle.expand(1, 1, 2), known, known, CROP)
        inwards = torch.tensor([-1.0 if column else 1.0, -1.0 if row else 1.0])
        for axis in (0, 1):
            beside = middle + 16 * inwards * torch.eye(2)[axis]
            assert here < heatmap_loss(sure, beside.expand(1, 1, 2), known, known, CROP)


def test_positions_are_the_expected_cells(model, encoded):
    with torch.no_grad():
        located = model.body_positions(encoded)
    rows, columns = located.probabilities.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    for axis, grid in ((0, x), (1, y)):
        expected = (located.probabilities * grid).sum((2, 3))
        torch.testing.assert_close(located.cells[..., axis] * 32, (expected + 0.5) * 16 - 0.5, atol=1e-3, rtol=0)
    inside = 1 - located.logits.softmax(2)[..., -1]
    torch.testing.assert_close(located.seen[..., 0], inside)


def test_a_point_outside_wants_the_last_class():
    logits = torch.zeros(1, 1, 32 * 24 + 1)
    logits[..., -1] = 20.0
    outside, point = torch.zeros(1, 1), torch.tensor([[[-50.0, 100.0]]])
    assert heatmap_loss(logits, point, outside, torch.ones(1, 1), CROP) < 1e-3
    assert heatmap_loss(logits, point.abs(), torch.ones(1, 1), torch.ones(1, 1), CROP) > 10


def test_places_alone_and_with_silent_evidence_say_the_same(model):
    """Evidence begins without a say, so that what was lifted without pictures holds for pictures."""
    located = torch.rand(3, 25, 4)
    evidence = torch.randn(3, model.body_head.lifter.evidence.in_features)
    with torch.no_grad():
        model.body_head.lifter.evidence.bias.zero_()
        alone, beside = model.body_head.lift(located)[-1], model.body_head.lift(located, evidence)[-1]
        torch.testing.assert_close(alone, beside)


def test_what_an_estimate_misses_changes_the_next(model):
    """Two estimates seen at other places than the joints were found at: the answer differs once feedback has a say."""
    head = copy.deepcopy(model.body_head)
    head.skeleton.measure(BodyModel.load(flat_hand_mean=True))
    located = torch.rand(3, 25, 4)
    with torch.no_grad():
        before = head.lift(located)
        assert len(before) == SMALL.lifting.blocks
        for layer in (head.pose, *head.feedback):
            torch.nn.init.normal_(layer.weight, std=0.1)
        answers = [head.lift(located)[-1].rotations_6d]
        head.camera.bias[0] = 0.2  # metres to the side, for the estimates that are seen
        answers.append(head.lift(located)[-1].rotations_6d)
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_a_joint_that_lies_outside_the_crop_misses_nothing(model):
    located = torch.cat([torch.rand(2, 25, 2), torch.zeros(2, 25, 1), torch.rand(2, 25, 1)], 2)
    with torch.no_grad():
        missed = model.body_head._missed(located, model.body_head.lift(located)[0]).unflatten(1, (25, 9))
    assert (missed[..., 2:6] == 0).all()


def test_hands_learn_through_places_and_features():
    head = LiftingHandHead(32, 64, LiftingConfig())
    torch.nn.init.normal_(head.pose.weight, std=0.1)
    torch.nn.init.normal_(head.lifter.evidence.weight, std=0.1)
    features, places = torch.randn(2, 20, 32, requires_grad=True), torch.rand(2, 20, 3, requires_grad=True)
    hands, palm = head(features, places)
    assert hands.shape == (2, 15, 6) and palm.turn_6d.shape == (2, 6) and palm.trust.shape == (2, 1)
    hands.square().sum().backward()
    assert features.grad.abs().sum() > 0 and places.grad.abs().sum() > 0


def test_mirroring_twice_is_nothing():
    turns = rotations(3, 2)
    torch.testing.assert_close(mirrored(mirrored(turns)), turns)
