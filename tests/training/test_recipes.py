"""The recipes of the package, end to end at a tiny size: the forged sets are indexed, and each trains two epochs."""

import json

import pytest
import tiny
import torch

from wholebody.errors import AssetMissing, BadInput
from wholebody.files.settings import names_of
from wholebody.training import loop
from wholebody.training.config import PUBLISHED_NAMES, TrainConfig, read_config
from wholebody.training.recipes import RECIPES, find_recipe, recipe_names

CONFIGS = RECIPES
PUBLISHED = {"setting1": "normal", "setting2": "wo_decoder", "ubody": "wo_face_decoder", "finetune": "normal"}
SETS = ("AGORA", "Human36M", "MPII", "MSCOCO", "Own", "UBody")


@pytest.fixture(scope="module")
def indexed(forged_root):
    from wholebody.data.index import run_index

    list(run_index(forged_root / "dataset", [f"{name}:train" for name in SETS]))
    return forged_root / "dataset"


@pytest.fixture
def tiny_of(indexed, standin_dir, smplx_body, tmp_path, monkeypatch):
    """`tiny_of("setting1", "normal")` -> overrides that make a recipe tiny; the made-up body is read once for all."""
    monkeypatch.setattr(loop.BodyModel, "load", lambda *_, **__: smplx_body)

    def overrides(variant):
        start = tiny.write_start(tmp_path, variant=variant, body="smplx")
        settings = f"network=small variant={variant} start_from={start} body={standin_dir} people.root={indexed}"
        settings += " epochs=2 batch_size=2 workers=0 vertices=2 threads=1 save_every=1 log_every=1 snapshot_every=1"
        return settings.split()

    return overrides


@pytest.mark.parametrize(
    "name", ["setting1", *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED if name != "setting1")]
)
def test_each_recipe_trains_two_epochs_on_the_forged_sets(name, tiny_of, tmp_path):
    run = loop.train(CONFIGS / f"{name}.toml", tiny_of(PUBLISHED[name]), tmp_path / "run")
    assert sorted(p.name for p in (run / "model_dump").iterdir()) == [
        "snapshot_0.safetensors",
        "snapshot_1.safetensors",
    ]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    terms = set(lines[0]) - {"step", "samples_per_second", "loss"}
    assert ("joint_img_face" in terms) == (PUBLISHED[name] == "normal") and "smplx_pose" in terms
    if name in ("setting1", "setting2"):
        # As published: AGORA's joints are the mesh's, and count once.
        dead = {"smplx_joint_cam", "smplx_joint_img"} if name == "setting2" else set()
        assert dead == {term for term in terms if not any(line[term] > 0 for line in lines)}
    assert (run / "code" / f"{name}.toml").read_text() == (CONFIGS / f"{name}.toml").read_text()


@pytest.mark.slow
def test_killed_in_an_epoch_it_goes_on_with_the_next_sample(tiny_of, tmp_path):
    recipe, overrides = CONFIGS / "setting1.toml", tiny_of("normal")
    whole = loop.train(recipe, overrides, tmp_path / "whole")
    tiny.train_and_kill(recipe, overrides, tmp_path / "again", step=3)
    again = loop.train(recipe, [*overrides, "workers=1"], tmp_path / "again")
    one, other = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (whole, again))
    assert all(value.equal(other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", [path.stem for path in sorted(CONFIGS.glob("*.toml"))])
def test_recipes_are_read_for_each_size_and_variant(name):
    config = read_config(CONFIGS / f"{name}.toml")
    if name not in PUBLISHED:
        return
    for network in "bl":
        for variant in ("normal", "wo_face_decoder", "wo_decoder"):
            changed = read_config(CONFIGS / f"{name}.toml", [f"network={network}", f"variant={variant}"])
            assert (changed.network, changed.variant, changed.objective) == (network, variant, "published")
    assert config.ema_decay == config.weight_decay == 0 and not config.fan_in_scaling
    assert (config.learning_rate, config.final_learning_rate) == (1e-5 if name == "finetune" else 1e-4, 1e-6)
    assert config.epochs == {"setting1": 14, "setting2": 140, "ubody": 14, "finetune": 5}[name]
    assert config.published.shape_weight == (2 if name == "setting2" else 1)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["network=x"], "network is 'x'; known are t, b, l"),
        (["variant=half"], "variant is 'half'"),
        (["precision=fp8"], "precision is 'fp8'"),
        (["accumulate=0"], "accumulate is 0; at least 1"),
        (["objective=own"], "objective 'own' takes layers"),
        (["people.targets=crop"], "needs people.targets = 'published'"),
        (["people.sets=[]", "data.layers=x"], "both `data` and `people`"),
        (["people.setz=1"], "setz"),
    ],
)
def test_settings_that_do_not_go_together_are_named(overrides, message):
    with pytest.raises(BadInput, match=message):
        read_config(CONFIGS / "setting1.toml", overrides)


def test_missing_files_are_named_with_what_to_do(tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(AssetMissing, match="smpl-x.is.tue.mpg.de"):
        patch.setattr(loop, "open_data", tiny.open_made_up)
        loop.train(CONFIGS / "setting1.toml", [f"body={tmp_path}"], tmp_path / "run")
    with pytest.raises(AssetMissing, match="pretrained_models/osx_vit_b.pth"):
        loop.new_network(read_config(CONFIGS / "setting1.toml", ["network=b"]))
    with pytest.raises(BadInput, match="data index"):
        loop.open_data(read_config(CONFIGS / "setting1.toml", [f"people.root={tmp_path}"]))


def test_what_people_are_learnt_towards_is_known(tmp_path):
    with pytest.raises(BadInput, match="people.targets is 'x'"):
        read_config(CONFIGS / "setting1.toml", ["people.targets=x"])


def test_recipes_of_the_package_are_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"setting1", "setting2", "ubody", "finetune", "t", "t_lift"} <= set(recipe_names())
    for name in ("setting1", "setting1.toml", "configs/setting1.toml", "/elsewhere/configs/setting1.toml"):
        assert find_recipe(name) == RECIPES / "setting1.toml"
        assert read_config(name).name == "setting1"
    (tmp_path / "setting1.toml").write_text('name = "mine"\n[data]\nlayers = "x"\n')
    assert read_config("setting1.toml").name == "mine"
    with pytest.raises(BadInput, match="'setings1': name a file, or one of finetune, .*Did you mean setting1"):
        read_config("setings1")
    for name in recipe_names():
        assert read_config(name).name == name


@pytest.mark.parametrize(
    "change, message",
    [
        ("lr=1e-3", r"setting1.toml: lr is no setting \(did you mean learning_rate\?\)"),
        ("end_epoch=3", "did you mean epochs"),
        ("learning_rat=1", "did you mean learning_rate"),
        ("people.antialiaz=true", "people.antialiaz is no setting .did you mean people.antialias"),
        ("antialias=true", "did you mean people.antialias"),
        ("published.shape_wait=1", "did you mean published.shape_weight"),
        ("people.sets=[{nam='MPII'}]", r"people.sets\[0\].nam is no setting .did you mean people.sets\[0\].name"),
        ("xyzzy=1", "xyzzy is no setting$"),
        ("name.x=1", "name is 'setting1', not a table"),
        ("steps=1.5", "1.5 is not a whole number for steps"),
        ("people.sets=[{name=1}]", r"1 is not text for people.sets\[0\].name"),
        ("people.sets=3", "people.sets"),
        ("steps", "not of the form key=value"),
    ],
)
def test_an_unknown_setting_says_what_it_may_have_meant(change, message):
    with pytest.raises(BadInput, match=message):
        read_config("setting1", [change])


def test_every_published_name_leads_to_a_setting():
    assert set(PUBLISHED_NAMES.values()) <= set(names_of(TrainConfig))
    assert not set(PUBLISHED_NAMES) & set(names_of(TrainConfig))
