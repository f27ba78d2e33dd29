"""The recipes of SMPLer-X and SMPLest-X on forged sets, tiny: two epochs, resumed, shared by two processes."""

import json
import multiprocessing
import socket

import pytest
import tiny
import torch
from data.forge import family_sets

from wholebody.data.family import FINE_TUNING, FINE_TUNING_SAMPLES, MIX_SAMPLES, mix
from wholebody.data.mesh_joints import MeshJoints
from wholebody.errors import BadInput
from wholebody.training import loop
from wholebody.training.config import people_of, read_config

COCO_FORM = ("MSCOCO", "AGORA", "UBody", "PW3D", "MPII", "Human36M")
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def sets(forged_root, forged_people, tmp_path_factory):
    """`sets(names)` -> a folder with these sets, forged and indexed as far as they are not yet."""
    from wholebody.data.index import run_index

    root, done = tmp_path_factory.mktemp("family"), set()

    def make(names):
        new = [name for name in names if name not in done]
        for name in new:
            if name in COCO_FORM:
                (root / name).symlink_to(forged_root / "dataset" / name)
            else:
                family_sets.forge_set(root, name, forged_people[:3])
        done.update(new)
        if new:
            list(run_index(root, [f"{name}:train" for name in new]))
        return root

    return make


@pytest.fixture
def overrides_of(sets, standin_dir, tmp_path):
    """`overrides_of("smpler_x", "people.mix_of=5")` -> what makes a recipe tiny, its sets being there."""

    def of(recipe, *more, drop_path=0.3):
        config = read_config(recipe, more)
        root = sets([one.name for one in people_of(config).sets])
        start = tiny.write_start(tmp_path, drop_path, family=config.family, body="smplx")
        settings = f"network=small start_from={start} body={standin_dir} people.root={root} people.epoch_length=6"
        settings += " epochs=2 batch_size=2 workers=0 vertices=2 threads=1 save_every=1 log_every=1 precision=fp32"
        return [*more, *settings.split()]

    return of


@pytest.fixture(scope="module")
def joints(standin_dir):
    return MeshJoints(standin_dir)


@pytest.fixture
def in_this_process(monkeypatch, smplx_body, joints):
    """Bodies are read once for all runs."""
    monkeypatch.setattr(loop.BodyModel, "load", lambda *_, **__: smplx_body)
    monkeypatch.setattr(loop, "MeshJoints", lambda path: joints)


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


RECIPES = [
    pytest.param("smpler_x", "people.mix_of=5", id="smpler_x5"),
    pytest.param("smpler_x", "people.mix_of=10", id="smpler_x10", marks=slow),
    pytest.param("smpler_x", "people.mix_of=20", id="smpler_x20", marks=slow),
    pytest.param("smpler_x", "people.mix_of=32", id="smpler_x32", marks=slow),
    *(pytest.param("smpler_x_finetune", f"people.fine_tune_for={name}", id=name, marks=slow) for name in FINE_TUNING),
    pytest.param("smplest_x_h", "people.mix_of=32", id="smplest_x_h", marks=slow),
]


@pytest.mark.parametrize("recipe, which", RECIPES)
def test_each_recipe_trains_two_epochs_and_goes_on(recipe, which, overrides_of, in_this_process, tmp_path):
    overrides = overrides_of(recipe, which)
    whole = loop.train(recipe, overrides, tmp_path / "whole")
    names = sorted(path.name for path in (whole / "model_dump").iterdir())
    assert names == ["snapshot_0.safetensors", "snapshot_1.safetensors"]
    lines = lines_of(whole)
    assert len(lines) == 6 and all(line["smplx_pose"] > 0 for line in lines)
    family = read_config(recipe).family
    assert ("hand_root_chain" in lines[0]) == (family == "smplest_x")
    tiny.train_and_kill(recipe, overrides, tmp_path / "again", step=4)
    again = loop.train(recipe, overrides, tmp_path / "again")
    one, other = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (whole, again))
    assert all(value.equal(other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    "recipe, which",
    [
        pytest.param("smpler_x", "people.mix_of=5", marks=slow),
        pytest.param("smpler_x_finetune", "people.fine_tune_for=ubody", marks=slow),
        pytest.param("smplest_x_h", "people.mix_of=5", marks=slow),
    ],
)
def test_two_processes_compute_what_one_does(recipe, which, overrides_of, tmp_path):
    context = multiprocessing.get_context("forkserver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = {"DOUBLE": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    overrides = overrides_of(recipe, which, drop_path=0.0)  # what is dropped is the one thing that may differ
    places = [("one", "batch_size=4", {"DOUBLE": "1"})]
    places += [("two", "batch_size=2", address | {"RANK": str(rank)}) for rank in range(2)]
    processes = []
    for folder, size, place in places:
        arguments = (recipe, str(tmp_path / folder), tuple([*overrides, size]), place)
        processes.append(context.Process(target=tiny.run_recipe_in_process, args=arguments, daemon=True))
        processes[-1].start()
    for process in processes:
        process.join(500)
        assert process.exitcode == 0
    one, two = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")


def test_recipes_have_the_published_settings():
    for sets, samples in MIX_SAMPLES.items():
        people = people_of(read_config("smpler_x", [f"people.mix_of={sets}"]))
        assert (tuple(one.name for one in people.sets), people.epoch_length) == (mix(sets), samples)
        assert (people.mix, people.family) == ("balance", "smpler_x")
    for size, batch in (("s", 32), ("b", 32), ("l", 32), ("h", 16)):
        config = read_config("smpler_x", [f"network={size}"])
        assert (config.batch_size, config.epochs, config.seed) == (batch, 10, 2023)
        assert (config.precision, config.checkpoint_activations) == (("bf16", True) if size == "h" else ("fp32", False))
        assert (config.learning_rate, config.final_learning_rate, config.warmup_steps) == (1e-5, 1e-6, 0)
    assert read_config("smpler_x", ["network=h", "batch_size=4"]).batch_size == 4
    for name, sets in FINE_TUNING.items():
        config = read_config("smpler_x_finetune", [f"people.fine_tune_for={name}"])
        people = people_of(config)
        assert tuple(one.name for one in people.sets) == sets and people.epoch_length == FINE_TUNING_SAMPLES
        assert {one.name for one in people.sets if one.every > 1} == {"UBody", "Talkshow"} & set(sets)
        assert (config.epochs, config.final_learning_rate, config.batch_size) == (5, 5e-7, 16)
    config = read_config("smplest_x_h")
    people = people_of(config)
    every = {one.name: one.every for one in people.sets}
    assert len(every) == 33 and (every["SynBody"], every["FIT3D"], every["BEDLAM"]) == (10, 1, 5)
    assert (config.epochs, config.batch_size, people.epoch_length) == (20, 16, 7_500_000)
    assert config.precision == "bf16" and config.checkpoint_activations
    for name in ("smpler_x", "smpler_x_finetune", "smplest_x_h"):
        published = read_config(name).published
        assert (published.pose_weight, published.joints_weight, published.shape_weight) == (10, 100, 1)


def test_sets_beside_a_mix_are_further_ones_or_other_settings_of_the_same(tmp_path):
    extra = 'people.sets=[{name="Own", every=2}, {name="BEDLAM", every=1}]'
    people = people_of(read_config("smpler_x", ["people.mix_of=5", extra]))
    assert [(one.name, one.every) for one in people.sets] == [
        ("MSCOCO", 1), ("AGORA", 1), ("BEDLAM", 1), ("SPEC", 1), ("GTA_Human2", 1), ("Own", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("override, message", [
    ("people.mix_of=7", "published mixes are of 5, 10, 20, 32 sets"),
    ("people.fine_tune_for=ehf", "known are agora, 3dpw, arctic, egobody, renbody, ubody"),
    ("people.fine_tune_for=agora", "both say which sets"),
    ("people.family=smplest_x", "leave it out"),
])  # fmt: skip
def test_mixes_that_there_are_not_are_named(override, message):
    with pytest.raises(BadInput, match=message):
        read_config("smpler_x", [override])


def test_all_sets_that_are_missing_are_named_at_once_before_any_work(sets, tmp_path, monkeypatch):
    root = sets(("BEDLAM", "SPEC"))
    monkeypatch.setattr(loop.BodyModel, "load", lambda *_, **__: pytest.fail("the body was read before"))
    (root / "index" / "GTA_Human2-train.arrow").unlink(missing_ok=True)
    overrides = ["people.mix_of=10", f"people.root={root}", 'people.sets=[{name="Nowhere"}]']
    with pytest.raises(BadInput) as told:
        loop.train("smpler_x", overrides, tmp_path / "run")
    for name in ("SynBody", "PoseTrack", "EgoBody_Egocentric", "PROX", "CrowdPose", "Nowhere"):
        assert name in str(told.value)
    assert "BEDLAM (train)" not in str(told.value) and not (tmp_path / "run").exists()
