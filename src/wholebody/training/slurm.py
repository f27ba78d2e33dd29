"""Training and testing on a Slurm cluster, through submitit: the folder is decided when the job is submitted, so that a
requeued job goes on in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wholebody.errors import BadInput, WholebodyError

SIGNAL_SECONDS = 120
"""So long before the end of its time a job is told (SIGUSR1), saves and has itself requeued."""


@dataclass(frozen=True)
class SlurmConfig:
    """What a job asks the cluster for; None: the cluster's own default."""

    partition: str | None = None
    account: str | None = None
    minutes: int = 1440
    gpus_per_node: int = 8
    cpus_per_gpu: int = 6
    gres: str | None = None
    """Instead of so many GPUs, where a cluster names its own kinds ("gpu:a100:4"); "none": processes without GPUs."""


@dataclass(frozen=True)
class Submitted:
    """A job that Slurm has taken."""

    job_id: str
    folder: Path


def submit_training(
    job: str, gpus: int, recipe: str | Path, overrides: Sequence[str] = (), config: SlurmConfig = SlurmConfig(),
    out: str | Path | None = None,
) -> Submitted:  # fmt: skip
    """Queue a run with one process per GPU. Its folder: `out`, or `output/train_{job}_{date_time}`.

    Raises BadInput for a recipe that cannot be read, here and not hours later in the queue.
    """
    from wholebody.training.config import read_config
    from wholebody.training.launch import new_folder

    recipe = find_recipe(recipe)
    overrides = [*overrides, f'name="{job}"']
    read_config(recipe, overrides)
    folder = Path(out or new_folder(job)).absolute()
    arguments = ["train", str(recipe.absolute()), *overrides, "--out", str(folder)]
    return _submit(job, gpus, gpus, arguments, folder, config)


def submit_test(
    job: str, gpus: int, run: str | Path, snapshot: str, testset: str, options: Sequence[str] = (),
    config: SlurmConfig = SlurmConfig(),
) -> Submitted:  # fmt: skip
    """Queue the evaluation of a run's snapshot; results go to `output/test_{job}_{date_time}`.

    options: further ones of `wholebody evaluate`.
    """
    from wholebody.training.launch import new_folder

    checkpoint = Path(run) / "model_dump" / f"snapshot_{snapshot}.safetensors"
    if not checkpoint.is_file():
        there = sorted(p.stem.removeprefix("snapshot_") for p in checkpoint.parent.glob("snapshot_*.safetensors"))
        raise BadInput(f"there is no {checkpoint}; snapshots of this run: {', '.join(there) or 'none'}")
    if "--body" not in options:
        options = [*options, "--body", json.loads((Path(run) / "code" / "config.json").read_text())["body"]]
    folder = Path(new_folder(job, "test")).absolute()
    arguments = ["evaluate", str(checkpoint.absolute()), "--testset", testset, *options, "--out", str(folder)]
    return _submit(job, gpus, 1, arguments, folder, config)


def find_recipe(name: str | Path) -> Path:
    """The recipe of this path, or of this name in configs/, with or without its `.toml`."""
    for path in (Path(name), Path("configs") / name, Path("configs") / f"{name}.toml"):
        if path.is_file():
            return path
    raise BadInput(f"there is no recipe {str(name)!r}, neither as a path nor in configs/")


def _submit(
    job: str, gpus: int, processes: int, arguments: list[str], folder: Path, config: SlurmConfig
) -> Submitted:  # fmt: skip
    try:
        import submitit
    except ImportError:
        raise BadInput("submitting to Slurm needs submitit: pip install 'wholebody[slurm]'") from None
    if gpus < 1:
        raise BadInput(f"NUM_GPU is {gpus}; at least 1 is needed (with --gres none: as many processes)")
    per_node = min(gpus, config.gpus_per_node)
    if gpus % per_node:
        raise BadInput(f"{gpus} GPUs do not fill nodes of {per_node}: ask for a multiple, or set --gpus-per-node")
    if submitit.AutoExecutor.which() != "slurm":
        raise BadInput("this machine has no Slurm (srun is not found): log in to the cluster, or tools/start_slurm.sh")
    executor = submitit.AutoExecutor(folder / "log" / "slurm", cluster="slurm")
    tasks = per_node if processes > 1 else 1
    executor.update_parameters(
        name=job,
        nodes=gpus // per_node,
        tasks_per_node=tasks,
        cpus_per_task=1 if config.gres == "none" else config.cpus_per_gpu * (per_node // tasks),
        timeout_min=config.minutes,
        slurm_additional_parameters=_asked(config, per_node),
    )
    try:
        queued = executor.submit(run_command, arguments)
    except Exception as error:  # submitit wraps what sbatch says in its own kind of error
        raise WholebodyError(f"Slurm did not take the job: {error}") from error
    return Submitted(queued.job_id, folder)


def _asked(config: SlurmConfig, per_node: int) -> dict[str, object]:
    asked: dict[str, object] = {"signal": f"USR1@{SIGNAL_SECONDS}", "requeue": True}
    if config.partition:
        asked["partition"] = config.partition
    if config.account:
        asked["account"] = config.account
    if config.gres is None:
        asked["gpus_per_node"] = per_node
    elif config.gres != "none":
        asked["gres"] = config.gres
    return asked


def requeue(number: int = signal.SIGUSR1) -> str:
    """Ask Slurm to run this job again, which then goes on where it was saved: what came of it, "" without Slurm.

    number: the signal that stopped the run. SIGTERM is a warning (of preemption, say) while the job still runs; when
    Slurm is ending the job already, `scancel` or Slurm itself has decided what becomes of it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return ""
    if number == signal.SIGTERM and "JobState=RUNNING" not in _scontrol("show", "job", job).stdout:
        return f"Slurm is ending job {job}, which is not requeued; the same command with this --out goes on"
    asked = _scontrol("requeue", job)
    if asked.returncode:
        return f"Slurm did not requeue job {job}: {asked.stderr.strip()}"
    return f"Slurm job {job} is requeued"


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["scontrol", *arguments], capture_output=True, text=True)


def run_command(arguments: list[str]) -> None:
    """What each process of a job does."""
    # A job whose time ends while PyTorch is being imported has nothing to save yet; from then on the run listens.
    signal.signal(signal.SIGUSR1, _requeue_before_start)
    from wholebody.cli import main

    if status := main(arguments):
        raise SystemExit(status)


def _requeue_before_start(number: int, _: object) -> None:
    if os.environ.get("SLURM_PROCID", "0") == "0":
        print(f"the job's time ends before its run began: {requeue()}", flush=True)
    raise SystemExit(128 + number)
