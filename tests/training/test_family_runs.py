"""Runs of SMPLer-X and SMPLest-X at a tiny size: their losses, what of them learns, what they start from."""

import dataclasses
import json

import pytest
import tiny
import torch

from wholebody.errors import AssetMissing, BadInput
from wholebody.model.families import build_network
from wholebody.model.published_names import published_name
from wholebody.training import loop, network
from wholebody.training.config import TrainConfig, config_from_table, config_to_table, read_config

FAMILIES = ("smpler_x", "smplest_x")
BOXES = {"lhand_bbox", "rhand_bbox", "face_bbox"}


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setattr(loop, "open_data", tiny.open_made_up)


def weights(folder):
    return torch.load(folder / "last.pt", weights_only=True)["model"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_a_family_has_its_losses_and_goes_on_where_it_stopped(made_up, tmp_path, family):
    recipe = tiny.write_recipe(tmp_path, family=family)
    whole = loop.train(recipe, ["epochs=2"], tmp_path / "whole")
    tiny.train_and_kill(recipe, ["epochs=2"], tmp_path / "again", step=3)
    again = loop.train(recipe, ["epochs=2"], tmp_path / "again")
    expected, found = weights(whole), weights(again)
    assert expected.keys() == found.keys() and all(value.equal(found[name]) for name, value in expected.items())
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    terms = set(lines[0]) - {"step", "samples_per_second", "loss"}
    common = {"smplx_pose", "smplx_shape", "smplx_expr", "joint_cam", "smplx_joint_cam", "joint_proj"}
    own = BOXES | {"joint_img", "smplx_joint_img"}
    assert terms == common | (own if family == "smpler_x" else {"smplx_orient", "hand_root", "hand_root_chain"})
    assert all(set(line) == set(lines[0]) for line in lines), "a loss comes and goes"


@pytest.mark.parametrize("family, fine_tune, moves", [
    ("smpler_x", "backbone", {"encoder"}),
    ("smpler_x", "neck_and_head", {"body_positions", "body_head", "box_head", "hands.features", "hands", "face"}),
    ("smpler_x", "head", {"body_positions", "body_head", "hands", "face"}),
    ("smplest_x", "backbone", {"encoder"}),
    ("smplest_x", "neck_and_head", {"decoder", "heads"}),
    ("smplest_x", "head", {"heads"}),
    ("osx", "head", {"body_positions", "body_head", "hands", "face"}),
])  # fmt: skip
def test_only_what_is_tuned_moves(made_up, tmp_path, family, fine_tune, moves):
    recipe = tiny.write_recipe(tmp_path, family=family)
    run = loop.start(read_config(recipe, [f"fine_tune={fine_tune}"]), tmp_path / "run")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    for batches, _ in zip(run.batches(), range(2), strict=False):
        run.learn(batches)
    run.close()
    changed = {name for name, value in run.model.state_dict().items() if not value.equal(before[name])}
    found = {"hands.features" if n.startswith("hands.features") else n.split(".")[0] for n in changed}
    if family == "osx":  # the decoders are heads, what they look at is not
        assert not any(name.startswith("face.features") for name in changed)
    assert found == moves


def vitpose_file(model, path, prefix="backbone.", drop=()):
    """As ViTPose's files are: an encoder under `prefix`, another head, and other things."""
    state = {
        published_name(f"encoder.{name}", model.config.variant).replace("encoder.", prefix, 1): value + 1
        for name, value in model.encoder.state_dict().items()
        if name != "component_tokens" and name not in drop
    }
    state["keypoint_head.final_layer.weight"] = torch.zeros(3)
    torch.save({"state_dict": state, "meta": {"epoch": 210}}, path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["backbone.", "encoder.", "module.backbone.", ""])
def test_vitpose_encoders_are_taken(tmp_path, family, prefix):
    model = build_network(tiny.tiny_config(family=family))
    before = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    network.load_encoder(model, str(vitpose_file(model, tmp_path / "vitpose_huge.pth", prefix)))
    for name, value in model.encoder.state_dict().items():
        torch.testing.assert_close(value, before[name] + (name != "component_tokens"))


@pytest.mark.parametrize(
    "family, size, file",
    [
        ("smpler_x", "s", "vitpose_small"),
        ("smpler_x", "b", "vitpose_base"),
        ("smpler_x", "l", "vitpose_large"),
        ("smplest_x", "h", "vitpose_huge"),
    ],
)
def test_encoders_have_vitposes_names(family, size, file, monkeypatch):
    monkeypatch.setattr(loop, "build_network", lambda config: build_network(tiny.tiny_config(family=family)))
    config = TrainConfig(
        family=family, network=size, objective="published", encoder_from="pretrained_models/vitpose_{vitpose}.pth"
    )
    with pytest.raises(AssetMissing, match=rf"pretrained_models/{file}.pth.*ViTPose"):
        loop.new_network(config)


@pytest.mark.parametrize("given, asked", [("osx", "smplest_x"), ("smplest_x", "osx"), ("smpler_x", "smplest_x"),
                                          ("smplest_x", "smpler_x"), ("osx", "smpler_x")])  # fmt: skip
def test_a_checkpoint_of_another_family_is_no_start(made_up, tmp_path, given, asked):
    recipe = tiny.write_recipe(tmp_path, family=given)
    titles = {"osx": "OSX", "smpler_x": "SMPLer-X", "smplest_x": "SMPLest-X"}
    with pytest.raises(BadInput, match=f"is a network of {titles[given]}, and the recipe trains {titles[asked]}"):
        loop.train(recipe, [f"family={asked}"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overrides, message", [
    (["family=x"], "family is 'x'; known are osx, smpler_x, smplest_x"),
    (["start_from=", "family=smplest_x", "network=l"], "network is 'l'; known of family smplest_x are h"),
    (["start_from=", "family=osx", "network=h"], "network is 'h'; known are t, b, l"),
    (["fine_tune=neck"], "fine_tune is 'neck'; known are backbone, neck_and_head, head"),
    (["family=smpler_x", "variant=wo_face_decoder"], "without decoders"),
    (["family=smpler_x", "objective=own"], "trained with objective 'published'"),
])  # fmt: skip
def test_settings_of_a_family_that_do_not_go_together_are_named(tmp_path, overrides, message):
    with pytest.raises(BadInput, match=message):
        read_config(tiny.write_recipe(tmp_path), overrides)


def test_sizes_of_the_families_are_those_published():
    for family, size, width in (("smpler_x", "s", 384), ("smpler_x", "h", 1280), ("smplest_x", "h", 1280)):
        config = network.network_config(TrainConfig(family=family, network=size, objective="published"))
        assert (config.family, config.name, config.encoder.width) == (family, size, width)


def test_a_saved_config_of_an_older_version_is_read(tmp_path):
    config = read_config(tiny.write_recipe(tmp_path))
    table = config_to_table(config)
    del table["family"], table["fine_tune"], table["published"]["pose_weight"]
    assert config_from_table(table, "older") == dataclasses.replace(config)
