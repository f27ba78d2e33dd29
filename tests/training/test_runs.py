"""Runs of the published objective at a tiny size: killed, stopped, shared by processes, out of disk, not finite."""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

from wholebody.errors import BadInput, OutputError
from wholebody.training import loop
from wholebody.training.config import read_config
from wholebody.training.processes import NotFinite, Place, start_processes


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return tiny.write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def spawn():
    """`spawn(recipe, out, overrides, place)` -> a process that trains; PyTorch is imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny", "torch.utils.tensorboard", "wholebody.training.loop"])

    def start(recipe, out, *overrides, **place):
        arguments = (str(recipe), str(out), overrides, place)
        process = context.Process(target=tiny.run_in_process, args=arguments, daemon=True)
        process.start()
        return process

    return start


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setattr(loop, "open_data", tiny.open_made_up)


def state(folder):
    return torch.load(folder / "last.pt", weights_only=True)


def same_to_the_bit(a, b):
    one, other = state(a), state(b)
    assert one["step"] == other["step"] and one["random"][0]["cpu"].equal(other["random"][0]["cpu"])
    assert one["model"].keys() == other["model"].keys()
    assert all(one["model"][name].equal(other["model"][name]) for name in one["model"])
    assert all(one["average"]["values"][n].equal(v) for n, v in other["average"]["values"].items())


def steps_of(folder):
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("}")]


def status_of(process):
    process.join(240)
    assert process.exitcode is not None, "still running after four minutes"
    return process.exitcode


def wait_for_step(process, folder, step):
    deadline = time.monotonic() + 240
    while max(steps_of(folder), default=0) < step:
        assert process.is_alive() and time.monotonic() < deadline, f"never reached step {step}"
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole_run(spawn, recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = spawn(recipe, folder, "epochs=3", "save_every=3")
    assert status_of(process) == 0
    return folder


def test_a_run_killed_at_three_steps_ends_as_if_it_had_not_been(spawn, recipe, whole_run, tmp_path):
    kills = sorted(random.Random(2026).sample(range(1, 12), 3))
    for step in kills:
        process = spawn(recipe, tmp_path, "epochs=3", "save_every=3")
        wait_for_step(process, tmp_path, step)
        os.kill(process.pid, signal.SIGKILL)
        status_of(process)
    process = spawn(recipe, tmp_path, "epochs=3", "save_every=3")
    assert status_of(process) == 0, f"killed after steps {kills}"
    same_to_the_bit(whole_run, tmp_path)
    assert steps_of(tmp_path) == list(range(1, 13))


def test_signals_save_and_requeue(spawn, recipe, whole_run, tmp_path):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    run = tmp_path / "run"
    for number, place in ((signal.SIGTERM, {}), (signal.SIGUSR1, slurm)):
        process = spawn(recipe, run, "epochs=3", "save_every=1000", **place)
        wait_for_step(process, run, max(steps_of(run), default=0) + 2)
        os.kill(process.pid, number)
        assert status_of(process) == 128 + number
        assert state(run)["step"] == steps_of(run)[-1] < 12
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    process = spawn(recipe, run, "epochs=3", "save_every=1000")
    assert status_of(process) == 0
    same_to_the_bit(whole_run, run)


def test_two_processes_compute_what_one_does(spawn, tmp_path):
    recipe = tiny.write_recipe(tmp_path, drop_path=0.0)  # what is dropped is the one thing that may differ
    common = ("accumulate=2", "epochs=4", "save_every=4")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    address = {"DOUBLE": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        spawn(recipe, tmp_path / "one", *common, "batch_size=2", DOUBLE="1"),
        *(spawn(recipe, tmp_path / "two", *common, "batch_size=1", RANK=str(rank), **address) for rank in range(2)),
    ]
    assert [status_of(process) for process in processes] == [0, 0, 0]
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert one["step"] == two["step"] == 8
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-8, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    for first, second in zip(*lines, strict=True):
        losses = [{k: v for k, v in json.loads(line).items() if k != "samples_per_second"} for line in (first, second)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1.1e-5)
    assert (tmp_path / "two" / "model_dump" / "snapshot_3.safetensors").exists()


def test_a_run_leaves_what_users_know(whole_run):
    from wholebody.model import checkpoint

    assert sorted(p.name for p in (whole_run / "model_dump").iterdir()) == [
        f"snapshot_{epoch}.safetensors" for epoch in range(3)
    ]
    _, info = checkpoint.load(whole_run / "model_dump" / "snapshot_2.safetensors")
    assert info.extra == {"step": 12, "samples": 24, "epoch": 2} and info.conventions.body == "open"
    started = json.loads((whole_run / "code" / "runs.jsonl").read_text())
    assert started["wholebody"] and started["command"] and "time" in started
    assert json.loads((whole_run / "code" / "config.json").read_text())["epochs"] == 3
    assert 'objective = "published"' in (whole_run / "code" / "tiny.toml").read_text()
    assert "step 12/12: loss" in (whole_run / "log" / "train_logs.txt").read_text()
    assert any(p.name.startswith("events") for p in (whole_run / "log").iterdir())
    assert (whole_run / "vis" / "epoch_002.jpg").stat().st_size > 1000
    assert (whole_run / "result").is_dir()
    assert not [p for p in whole_run.rglob("*") if p.suffix == ".part"]


def test_a_full_disk_leaves_the_checkpoint_that_was(made_up, recipe, whole_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole_run, folder)
    run = loop.start(read_config(recipe, ["epochs=3"]), folder)
    before = (folder / "last.pt").read_bytes()
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))  # no file may grow beyond
        with pytest.raises(OutputError, match="last.pt"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    run.close()
    assert (folder / "last.pt").read_bytes() == before
    assert not list(folder.glob(".*"))
    loop.start(read_config(recipe, ["epochs=3"]), folder).close()


@pytest.mark.parametrize("allowed", [0, 1])
def test_what_is_not_finite_is_kept_and_named(made_up, recipe, tmp_path, monkeypatch, allowed):
    monkeypatch.setattr(tiny.MadeUp, "poison", 5)
    go = lambda: loop.train(recipe, [f"allowed_skips={allowed}", "epochs=1"], tmp_path)  # noqa: E731
    if allowed:
        go()
        clean = {k: v for k, v in state(tmp_path)["model"].items()}
        assert all(bool(v.isfinite().all()) for v in clean.values()) and state(tmp_path)["skipped"] == 1
    else:
        said = r"step 3: smplx_shape.*; samples 4 to 5 \(MadeUp person4, MadeUp person5\)"
        with pytest.raises(NotFinite, match=said):
            go()
        assert state(tmp_path)["step"] == 2
    kept = torch.load(tmp_path / "result" / "not_finite_step_000003_rank_0.pt", weights_only=True)
    assert not kept["batches"][0]["smplx_shape"][1].isfinite().any()
    assert "left out: step 3" in (tmp_path / "log" / "train_logs.txt").read_text()


def test_a_step_left_out_changes_neither_weights_nor_statistics(made_up, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny.MadeUp, "poison", 0)
    run = loop.start(read_config(recipe, ["allowed_skips=1"]), tmp_path)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.learn(next(run.batches()))
    run.close()
    assert run.step == 1 and all(v.equal(before[k]) for k, v in run.model.state_dict().items())


def test_blocks_computed_again_or_compiled_learn_the_same(made_up, recipe, tmp_path):
    found = []
    for overrides in ([], ["checkpoint_activations=true"], ["compile=eager"]):
        run = loop.start(read_config(recipe, overrides), tmp_path / str(len(found)))
        for batches, _ in zip(run.batches(), range(2), strict=False):
            run.learn(batches)
        run.close()
        found.append({k: v.clone() for k, v in run.model.state_dict().items()})
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("override", ["learning_rate=0.1", "batch_size=1", "published.shape_weight=2", "epochs=4"])
def test_another_configuration_is_no_sitting_of_this_run(made_up, recipe, whole_run, override):
    with pytest.raises(BadInput, match=r"another configuration: .* then, .* now"):
        loop.train(recipe, ["epochs=3", override], whole_run)


def test_snapshots_in_the_published_form_hold_the_same_weights(made_up, recipe, tmp_path, monkeypatch):
    from wholebody.model import checkpoint
    from wholebody.model.published_names import to_published

    monkeypatch.setattr(checkpoint, "describe", lambda path, family: None)  # which knows the published sizes alone
    loop.train(recipe, ["published_form=true", "epochs=2"], tmp_path)
    names = sorted(path.name for path in (tmp_path / "model_dump").glob("*.pth.tar"))
    assert names == ["snapshot_0.pth.tar", "snapshot_1.pth.tar"]
    found = torch.load(tmp_path / "model_dump" / names[1], weights_only=True)
    ours, _ = checkpoint.load(tmp_path / "model_dump" / "snapshot_1.safetensors")
    expected = {f"module.{name}": value for name, value in to_published(ours.state_dict(), "normal").items()}
    assert found["epoch"] == 1 and found["network"].keys() == expected.keys()
    assert all(found["network"][name].equal(value) for name, value in expected.items())


def test_a_size_of_our_own_has_no_published_form():
    with pytest.raises(BadInput, match="size 't' has no published form"):
        read_config("t", ["published_form=true"])


def test_weights_and_biases_hears_of_a_run(made_up, recipe, tmp_path, monkeypatch):
    import types

    heard = []
    board = types.SimpleNamespace(log=lambda values, step: heard.append((step, values)), finish=lambda: None)
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: board))
    loop.train(recipe, ["wandb=true", "epochs=1"], tmp_path)
    assert [step for step, _ in heard] == [1, 2, 3, 4] and "train/loss" in heard[0][1]


def test_one_process_is_started_per_device_and_finds_its_place(tmp_path, monkeypatch):
    say = "import os, pathlib, sys; v = os.environ; pathlib.Path(sys.argv[1], v['RANK']).write_text("
    say += "' '.join(v[name] for name in ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')))"
    assert start_processes([sys.executable, "-c", say, str(tmp_path)], 2, 1) == 0
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2 0 127.0.0.1", "2 1 127.0.0.1"]
    with pytest.raises(BadInput, match="NODE_RANK"):
        start_processes([], 2, 2)
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "first")
    monkeypatch.setenv("MASTER_PORT", "1234")
    assert start_processes([sys.executable, "-c", say, str(tmp_path)], 2, 2) == 0
    assert [(tmp_path / rank).read_text() for rank in "23"] == ["4 0 first", "4 1 first"]


def test_when_one_process_fails_the_command_fails_as_it_did():
    fail = "import os, sys, time; time.sleep(0.1); sys.exit(3 * (os.environ['RANK'] == '1'))"
    assert start_processes([sys.executable, "-c", fail], 2, 1) == 3


def test_a_signal_reaches_all_processes(tmp_path):
    import threading

    wait = "import os, pathlib, signal, sys, time\n"
    wait += "signal.signal(signal.SIGUSR1, lambda n, _: sys.exit(128 + n))\n"
    wait += "pathlib.Path(sys.argv[1], os.environ['RANK']).touch()\ntime.sleep(30)"

    def send():
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    sender = threading.Thread(target=send)
    sender.start()
    assert start_processes([sys.executable, "-c", wait, str(tmp_path)], 2, 1) == 128 + signal.SIGUSR1
    sender.join()
    assert {n: signal.getsignal(n) for n in before} == before


def test_the_command_trains_in_as_many_processes_as_asked(recipe, tmp_path, monkeypatch):
    from wholebody.cli import main
    from wholebody.training import launch

    asked = []
    monkeypatch.setattr(launch, "start_processes", lambda *arguments: asked.append(arguments) or 0)
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(recipe), "seed=3", "--devices", "2"]) == 0
    (command, devices, nodes), *_ = asked
    assert command[2:6] == ["wholebody.cli", "train", str(recipe), "seed=3"] and (devices, nodes) == (2, 1)
    assert command[6] == "--out" and command[7].startswith("output/train_tiny_20")
    monkeypatch.setattr(launch, "start_processes", lambda *_: 143)
    assert main(["train", str(recipe), "--devices", "2"]) == 143
    assert main(["train", str(recipe), "--devices", "0"]) == 2
    assert main(["train", str(recipe), "nonsense=1", "--devices", "2"]) == 2


@pytest.mark.parametrize(
    "variables, place",
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Place(3, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),  # a batch script, not a step of srun
        ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "2"}, Place(2, 4, 2)),
    ],
)
def test_a_process_finds_its_place(variables, place):
    assert Place.of_environment(variables) == place


@pytest.fixture(scope="module")
def two_epochs(recipe, tmp_path_factory):
    """A run that was killed after the second of its three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "open_data", tiny.open_made_up)
        tiny.train_and_kill(recipe, ["epochs=3"], folder, step=8)
    assert (folder / "model_dump" / "snapshot_1.safetensors").exists()
    return folder


@pytest.mark.parametrize("file", ["last.pt", "model.safetensors", "snapshot_2.safetensors", "epoch_002.jpg"])
def test_a_run_killed_before_it_wrote_a_file_writes_it_when_taken_up(
    made_up, recipe, whole_run, two_epochs, tmp_path, monkeypatch, file
):
    """Whatever file of the last step it is: state, weights, snapshot, picture."""
    from safetensors.torch import load_file

    real, folder = os.replace, tmp_path / "run"
    shutil.copytree(two_epochs, folder)

    def killed(source, target, **options):
        if Path(target).name == file:
            if file != "last.pt" or (folder / "model_dump" / "snapshot_2.safetensors").exists():
                raise KeyboardInterrupt
        return real(source, target, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        loop.train(recipe, ["epochs=3"], folder)
    loop.train(recipe, ["epochs=3"], folder)
    names = {path.relative_to(whole_run) for part in ("model_dump", "vis") for path in (whole_run / part).iterdir()}
    assert names == {path.relative_to(folder) for part in ("model_dump", "vis") for path in (folder / part).iterdir()}
    for name in (Path("model.safetensors"), *(name for name in names if name.suffix == ".safetensors")):
        written, kept = load_file(folder / name), load_file(whole_run / name)
        assert all(torch.equal(written[key], kept[key]) for key in kept)
