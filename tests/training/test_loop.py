"""A run learns, goes on with the same numbers where it was killed, and says what is wrong with a recipe or a folder."""

import json

import numpy as np
import pytest
import tiny
import torch

from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.training import loop
from wholebody.training.config import config_from_table, config_to_table, read_config
from wholebody.training.loop import learning_rate, parameter_groups
from wholebody.training.own import batch as own
from wholebody.training.state import AveragedWeights, read_state

RECIPE = """
name = "tiny"
steps = 3
batch_size = 2
lifting_batch_size = 3
warmup_steps = 2
workers = 0
save_every = 1

[data]
layers = "{layers}"

[heldout]
layers = "{layers}"
count = 2
every = 3
"""


@pytest.fixture(scope="module")
def recipe(layers, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE.format(layers=layers))
    return path


@pytest.fixture(scope="module")
def whole_run(recipe, tmp_path_factory):
    return loop.train(recipe, out=tmp_path_factory.mktemp("run") / "whole")


@pytest.fixture(scope="module")
def other_body(tmp_path_factory):
    """A file with a body whose arms are a little longer."""
    from wholebody.body.open_body import export

    path = export(tmp_path_factory.mktemp("body") / "other.npz")
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    arrays["v_template"] = arrays["v_template"] * np.array([1.02, 1, 1])
    np.savez(path, **arrays)
    return path


def weights(folder):
    state = torch.load(folder / "last.pt", weights_only=True)
    return {**state["model"], **{f"average.{k}": v for k, v in state["average"]["values"].items()}}


def test_a_killed_run_goes_on_to_the_bit(recipe, whole_run, tmp_path):
    tiny.train_and_kill(recipe, (), tmp_path, step=2)
    loop.train(recipe, out=tmp_path)
    expected, found = weights(whole_run), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)


def test_a_run_leaves_what_its_users_need(whole_run):
    from wholebody.model.load import load_model

    assert load_model(whole_run / "model.safetensors").config.name == "t"
    assert json.loads((whole_run / "config.json").read_text())["steps"] == 3
    lines = [json.loads(line) for line in (whole_run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3 and lines[-1]["heldout"]["pa_mpvpe_all"] > 0
    assert (whole_run / "vis" / "step_000003.jpg").stat().st_size > 1000
    assert list((whole_run / "log").iterdir())
    assert not list(whole_run.glob(".*partial"))


def test_steps_on_one_batch_lower_its_loss(recipe, tmp_path):
    config = read_config(recipe, ["learning_rate=1e-3", "warmup_steps=1", "steps=30", "true_box_probability=1.0"])
    run = loop.start(config, tmp_path)
    (batch,) = next(run.batches())

    def loss():
        with torch.no_grad():
            prediction = loop.predict(run.model, batch["image"], None, "fp32")
            return sum(own.losses(run.model, run.learner.body, prediction, batch, config.losses).values())

    before = loss()
    for _ in range(3):
        run.learn([batch])
    run.close()
    after = loss()
    assert after < 0.8 * before, after / before


def test_frozen_parts_stay_as_they_were(whole_run):
    from wholebody.model.embedded.movenet import read_movenet_state

    found = weights(whole_run)
    for name, value in read_movenet_state().items():
        torch.testing.assert_close(found[f"encoder.trunk.{name}"], value.float(), rtol=0, atol=0)


def test_the_tuned_trunk_learns_slower_than_what_follows_it(recipe):
    model = loop.new_network(read_config(recipe))
    groups = parameter_groups(model, 0.02, 1024, trunk_rate=0.25)
    scales = {id(parameter): group["scale"] for group in groups for parameter in group["params"]}
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert scales.keys() == {id(p) for p in learning.values()}  # each once, and the frozen ones not at all
    for name, parameter in learning.items():
        fan_in = parameter.numel() // parameter.shape[0] if parameter.ndim > 1 else 1
        share = min(1.0, 1024 / fan_in) * (0.25 if name.startswith("encoder.trunk.tuned.") else 1.0)
        assert scales[id(parameter)] == pytest.approx(share), name


def test_the_learning_rate_warms_up_and_ends_low(recipe):
    config = read_config(recipe, ["steps=100", "warmup_steps=10"])
    rates = [learning_rate(step, 100, config) for step in range(101)]
    assert rates[0] < rates[5] < rates[9] == pytest.approx(config.learning_rate)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[-1] == pytest.approx(config.final_learning_rate)


def test_averaged_weights_leave_the_model_as_it_was():
    model = torch.nn.Linear(3, 2)
    average = AveragedWeights(model, 0.5)
    with torch.no_grad():
        model.weight += 1
    kept = model.weight.clone()
    average.update(model)
    with average.in_place_of(model):
        assert not model.weight.equal(kept)
    assert model.weight.equal(kept)


def test_another_configuration_does_not_go_on_with_a_run(recipe, whole_run):
    with pytest.raises(BadInput, match="learning_rate 0.0006 then, 0.1 now"):
        loop.train(recipe, ["learning_rate=0.1"], out=whole_run)


@pytest.mark.parametrize(
    "change, message", [("compile=eager", "compile  then, eager now"), ("body={}", "body open then, another one now")]
)
def test_a_run_does_not_go_on_on_another_body_or_compiled(recipe, whole_run, other_body, change, message):
    before = (whole_run / "last.pt").read_bytes()
    with pytest.raises(BadInput, match=message):
        loop.train(recipe, [change.format(other_body)], out=whole_run)
    assert (whole_run / "last.pt").read_bytes() == before


def test_a_run_goes_on_with_a_copy_of_its_body(recipe, whole_run, tmp_path):
    from wholebody.body.open_body import export

    config = read_config(recipe, [f"body={export(tmp_path / 'copy.npz')}"])
    body = BodyModel.load(config.body, flat_hand_mean=True)
    assert read_state(whole_run / "last.pt", config, 1, body)["step"] == 3


def test_a_run_of_an_earlier_version_is_told_by_the_name_of_its_body(recipe, whole_run, tmp_path):
    state = torch.load(whole_run / "last.pt", weights_only=True)
    del state["body"]
    torch.save(state, tmp_path / "last.pt")
    body = BodyModel.load(flat_hand_mean=True)
    assert read_state(tmp_path / "last.pt", read_config(recipe), 1, body)["step"] == 3
    with pytest.raises(BadInput, match="body open then, elsewhere now"):
        read_state(tmp_path / "last.pt", read_config(recipe, ["body=elsewhere"]), 1, body)


def test_a_damaged_run_is_named(recipe, tmp_path):
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match="last.pt"):
        loop.train(recipe, out=tmp_path)


@pytest.mark.parametrize(
    "override, message",
    [
        ("stpes=3", "stpes"),
        ("steps=many", "'many' is not a whole number"),
        ("data.layer=x", "layer"),
        ("losses.joint=1", "joint"),
        ("steps", "key=value"),
    ],
)
def test_a_wrong_setting_is_named(recipe, override, message):
    with pytest.raises(BadInput, match=message):
        read_config(recipe, [override])


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(BadInput, match="nowhere.toml"):
        read_config(tmp_path / "nowhere.toml")


def test_a_configuration_survives_its_table(recipe):
    config = read_config(recipe, ["losses.boxes=3.5", "data.augment.flip_probability=0.25"])
    table = json.loads(json.dumps(config_to_table(config)))
    assert config_from_table(table, "test") == config
    assert config.losses.boxes == 3.5 and config.data.augment.flip_probability == 0.25
