"""Jobs for Slurm: what is asked for, and one real job where there is a Slurm (tools/start_slurm.sh starts one)."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from wholebody.cli import main
from wholebody.training import slurm

submitit = pytest.importorskip("submitit")
TOOLS = Path(__file__).parents[2] / "tools"


def slurm_answers():
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=20).returncode == 0


@pytest.fixture
def queued(monkeypatch):
    """What would have been handed to sbatch: (parameters, what each process calls, with what)."""
    jobs = []

    class Executor:
        def __init__(self, folder, cluster):
            assert cluster == "slurm" and Path(folder).parts[-2:] == ("log", "slurm")

        which = staticmethod(lambda: "slurm")

        def update_parameters(self, **parameters):
            self.parameters = parameters

        def submit(self, function, *arguments):
            jobs.append((self.parameters, function, arguments))
            return type("Job", (), {"job_id": "12"})

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    return jobs


def test_a_run_asks_for_a_process_per_gpu_and_to_be_requeued(queued, tmp_path, capsys, monkeypatch):
    recipe = tiny.write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = "--partition gpu --account lab --time 90 --gpus-per-node 4".split()
    assert main(["slurm", "train", "first", "8", str(recipe), "seed=3", *options]) == 0
    (asked, called, arguments), said = queued[0], capsys.readouterr().out.split()
    assert said[:2] == ["job", "12"] and Path(said[2]).name.startswith("train_first_20")
    assert called is slurm.train_job and arguments == (str(recipe), ["seed=3", 'name="first"'], said[2])
    assert (asked["nodes"], asked["tasks_per_node"], asked["timeout_min"], asked["name"]) == (2, 4, 90, "first")
    assert asked["slurm_additional_parameters"] == {
        "partition": "gpu", "account": "lab", "gpus_per_node": 4, "signal": "USR1@120", "requeue": True,
    }  # fmt: skip
    assert main(["slurm", "train", "first", "8", str(recipe), "sed=3", *options]) == 2
    assert "sed" in capsys.readouterr().err and len(queued) == 1


def test_a_test_is_one_process_with_the_body_of_its_run(queued, tmp_path, capsys):
    (tmp_path / "model_dump").mkdir()
    (tmp_path / "model_dump" / "snapshot_13.safetensors").touch()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "config.json").write_text('{"body": "human_model_files"}')
    assert main(["slurm", "test", "second", "1", str(tmp_path), "13", "--testset", "AGORA", "--root", "dataset"]) == 0
    asked, called, (config,) = queued[0]
    assert called is slurm.evaluate_job and asked["tasks_per_node"] == 1
    assert config.models == (str(tmp_path / "model_dump/snapshot_13.safetensors"),) and config.testset == "AGORA"
    assert (config.root, config.body, config.devices) == (Path("dataset"), "human_model_files", 1)
    assert config.out.name.startswith("test_second_20")
    assert main(["slurm", "test", "second", "1", str(tmp_path), "14"]) == 2
    assert "snapshots of this run: 13" in capsys.readouterr().err


def test_a_test_shares_its_people_between_the_gpus_of_one_machine(queued, tmp_path, capsys):
    (tmp_path / "model_dump").mkdir()
    (tmp_path / "model_dump" / "snapshot_0.safetensors").touch()
    assert main(["slurm", "test", "job", "4", str(tmp_path), "0", "--body", "b"]) == 0
    asked, _, (config,) = queued[0]
    assert config.devices == 4 and (asked["nodes"], asked["tasks_per_node"]) == (1, 1)
    assert main(["slurm", "test", "job", "16", str(tmp_path), "0", "--body", "b"]) == 2
    assert "a test runs on one machine" in capsys.readouterr().err


def test_a_published_run_is_tested_by_its_name(queued, tmp_path, capsys, monkeypatch):
    """As their script takes it: a name in ../output, a snapshot of theirs, a config of theirs, sets in ../dataset."""
    run = tmp_path / "output" / "train_theirs_20230601_120000"
    (run / "model_dump").mkdir(parents=True)
    (run / "model_dump" / "snapshot_4.pth.tar").touch()
    (run / "code").mkdir()
    (run / "code" / "config_base.py").write_text(
        "trainset_humandata = ['BEDLAM']\nmodel_type = 'smpler_x_b'\nhuman_model_path = '/else/human_model_files'\n"
    )
    (tmp_path / "dataset").mkdir()
    (tmp_path / "main").mkdir()
    monkeypatch.chdir(tmp_path / "main")
    assert main(["slurm", "test", "theirs", "1", run.name, "4", "--testset", "EHF"]) == 0
    (config,) = queued[0][2]
    assert config.models == (str(Path("../output").absolute() / run.name / "model_dump/snapshot_4.pth.tar"),)
    assert (str(config.root), config.body) == ("../dataset", "/else/human_model_files")
    assert main(["slurm", "test", "theirs", "1", "nowhere", "4"]) == 2
    assert "there is no run 'nowhere'" in capsys.readouterr().err


def test_a_film_is_found_where_the_published_scripts_have_it(queued, tmp_path, capsys, monkeypatch):
    from wholebody.pipeline import slurm as films

    for place in ("demo/videos/clip.mp4", "pretrained_models/smpler_x_h32.pth.tar", "common/utils/human_model_files/x",
                  "pretrained_models/smplest_x_h/smplest_x_h.pth.tar", "main/x"):  # fmt: skip
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    monkeypatch.chdir(tmp_path / "main")
    assert main("slurm inference clip mp4 24 smpler_x_h32 --max-people 1 --gres none".split()) == 0
    asked, called, (config, film) = queued[0]
    results = tmp_path / "main" / ".." / "demo" / "results"
    assert called is films.inference_job and (asked["name"], asked["nodes"]) == ("inference_clip", 1)
    assert Path(config.inputs[0]).samefile(tmp_path / "demo/videos/clip.mp4") and config.fps == 24
    assert (str(config.out), film) == (str(results / "clip"), str(results / "clip.mp4"))
    assert Path(config.model).samefile(tmp_path / "pretrained_models/smpler_x_h32.pth.tar")
    assert Path(config.body).samefile(tmp_path / "common/utils/human_model_files")
    assert config.save == ("smpler-x", "overlay") and config.max_people == 1
    assert Path(films.find_checkpoint("smplest_x_h")).name == "smplest_x_h.pth.tar"
    assert films.find_checkpoint("t") == "t"
    for words, message in (("clip avi 24 t", "no film 'clip.avi'"), ("clip mp4 0 t", "FPS is 0"),
                           ("clip mp4 24 nothing", "no network 'nothing'")):  # fmt: skip
        assert main(["slurm", "inference", *words.split()]) == 2
        assert message in capsys.readouterr().err


def test_a_job_says_what_is_wrong_and_ends_with_that_status(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        slurm.train_job(str(tmp_path / "none.toml"), (), str(tmp_path))
    assert ended.value.code == 2 and "none.toml" in capsys.readouterr().err


def test_the_scripts_pass_their_arguments_on(tmp_path):
    fake = tmp_path / "wholebody"
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    for action, arguments in (
        ("train", "job 4 setting1"),
        ("test", "job 4 output/train_job 13"),
        ("inference", "test_video mp4 24 smpler_x_h32"),
    ):
        script = TOOLS / f"slurm_{action}.sh"
        said = subprocess.run(
            ["sh", script, *arguments.split()],
            env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        assert said.stdout.strip() == f"slurm {action} {arguments}", said.stderr
        assert len(script.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "number, state, again",
    [("SIGUSR1", "RUNNING", True), ("SIGTERM", "RUNNING", True), ("SIGTERM", "COMPLETING", False)],
)
def test_a_job_that_was_cancelled_stays_so(tmp_path, monkeypatch, number, state, again):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho "JobState={state} Reason=None"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    assert ("is requeued" in slurm.requeue(getattr(signal, number))) == again
    assert ("requeue 9" in (tmp_path / "asked").read_text().splitlines()) == again


@pytest.mark.skipif(not slurm_answers(), reason="no Slurm answers here; tools/start_slurm.sh starts one")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_real_job_trains(layers, tmp_path, processes):
    recipe = tmp_path / "lift.toml"
    recipe.write_text(
        f'network = "t"\nsteps = 2\nbatch_size = 0\nlifting_batch_size = 2\nworkers = 0\n[data]\nlayers = "{layers}"\n'
    )
    out = tmp_path / "run"
    submitted = subprocess.run(
        [sys.executable, "-m", "wholebody.cli", "slurm", "train", "real", str(processes), str(recipe)]
        + ["--gres", "none", "--cpus-per-gpu", "1", "--time", "10", "--out", str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    number, deadline = submitted.stdout.split()[1], time.monotonic() + 300
    while subprocess.run(["squeue", "-h", "-j", number], capture_output=True, text=True).stdout.strip():
        assert time.monotonic() < deadline, sorted((out / "log" / "slurm").iterdir())
        time.sleep(0.5)
    said = "".join(path.read_text() for path in (out / "log" / "slurm").glob("*.err"))
    assert (out / "model_dump" / "snapshot_2.safetensors").is_file(), said
    ranks = {path.name.split("_")[1] for path in (out / "log" / "slurm").glob("*_log.err")}
    assert ranks == {str(rank) for rank in range(processes)}, sorted((out / "log" / "slurm").iterdir())
