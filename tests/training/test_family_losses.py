"""SMPLer-X's losses and gradient norms, against the published code's with the same weights."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from wholebody.model.load import load_model
from wholebody.model.published_names import published_name
from wholebody.training.published.batch import targets_of
from wholebody.training.published.losses import SMPLER_X_WEIGHTS, smpler_x_losses, total


@pytest.fixture(scope="module")
def targets(fill):
    truth, masks = fill["train_batch"]()
    return targets_of({k: torch.from_numpy(np.asarray(v)).double() for k, v in {**truth, **masks}.items()})


@pytest.mark.slow
def test_losses_and_gradient_norms_are_the_oracles(published_file, standin_dir, images, oracle, targets):
    model = load_model(published_file("smpler_x_b"), body=standin_dir, dtype=torch.float64, family="smpler_x")
    losses = smpler_x_losses(model(images.double()), targets)
    arrays = oracle("smpler_x_b_train")
    assert {f"loss/{name}" for name in losses} == {name for name in arrays if name.startswith("loss/")}
    for name, loss in losses.items():
        expected = arrays[f"loss/{name}"]
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(loss.detach().reshape(expected.shape), expected, rtol=0, atol=atol, err_msg=name)
    whole = total(losses)
    assert whole.item() == pytest.approx(float(arrays["total"]), rel=1e-6)
    whole.backward()
    norms = dict(zip(str(arrays["grad_names"]).split("\n"), arrays["grad_norms"], strict=True))
    found = {published_name(name, "wo_decoder"): p.grad for name, p in model.named_parameters()}
    assert found.keys() == norms.keys()
    for name, gradient in found.items():
        norm = -1.0 if gradient is None else float(gradient.norm())
        assert norm == pytest.approx(norms[name], rel=1e-5, abs=1e-7), name


def test_a_box_that_nobody_has_is_left_out_and_the_rest_is_weighed(small_config, smplx_body, images, targets):
    import dataclasses

    from wholebody.model.config import HANDS_WITHOUT_DECODER
    from wholebody.model.osx import build_osx
    from wholebody.training.published.losses import published_losses

    config = dataclasses.replace(small_config, family="smpler_x", hands=HANDS_WITHOUT_DECODER, face=None)
    torch.manual_seed(0)
    with torch.no_grad():
        prediction = build_osx(config, copy.deepcopy(smplx_body)).double().eval()(images.double())
    none = dataclasses.replace(targets, box_valid=targets.box_valid * torch.tensor([1.0, 0.0, 1.0]))
    ours, theirs = smpler_x_losses(prediction, none), published_losses(prediction, none)
    assert theirs.keys() - ours.keys() == {"rhand_bbox"}
    for name in ours.keys() - {"joint_cam"}:
        torch.testing.assert_close(ours[name], theirs[name] * SMPLER_X_WEIGHTS.get(name, 1.0))
    assert not torch.allclose(ours["joint_cam"], 100 * theirs["joint_cam"])
