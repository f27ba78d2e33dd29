"""Training and testing on a Slurm cluster, through submitit: the folder is decided when the job is submitted, so that a
requeued job goes on in it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wholebody.errors import BadInput, WholebodyError
from wholebody.files.json_stream import read_json
from wholebody.training.requeue import requeue

if TYPE_CHECKING:
    from wholebody.evaluation.evaluate import EvaluateConfig

SIGNAL_SECONDS = 120
"""So long before the end of its time a job is told (SIGUSR1), saves and has itself requeued."""


@dataclass(frozen=True)
class SlurmConfig:
    """What a job asks the cluster for; None: the cluster's own default."""

    partition: str | None = None
    """the cluster's default if not given"""
    account: str | None = None
    """the cluster's default if not given"""
    minutes: Annotated[int, Parameter(name="--time")] = 1440
    """minutes; a job saves and is requeued before"""
    gpus_per_node: int = 8
    """of the cluster"""
    cpus_per_gpu: int = 6
    """for the processes that read data"""
    gres: str | None = None
    """how this cluster names GPUs, where it does by kind ("gpu:a100:4"); `none`: as many processes on CPUs"""


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
    from wholebody.training.config import new_folder, read_config
    from wholebody.training.recipes import find_recipe

    recipe = find_recipe(recipe)
    overrides = [*overrides, f'name="{job}"']
    read_config(recipe, overrides)
    folder = Path(out or new_folder(job)).absolute()
    return submit(job, gpus, gpus, (train_job, str(recipe.absolute()), overrides, str(folder)), folder, config)


def submit_test(
    job: str, gpus: int, run: str | Path, snapshot: str, testset: str, root: str | Path | None = None,
    body: str | None = None, config: SlurmConfig = SlurmConfig(),
) -> Submitted:  # fmt: skip
    """Queue the evaluation of a run's snapshot; results go to `output/test_{job}_{date_time}`.

    testset, root, body: as of `wholebody evaluate`; body: None for the run's own.
    """
    from wholebody.evaluation.evaluate import EvaluateConfig
    from wholebody.training.config import new_folder

    run = find_run(run)
    checkpoint = _snapshot(run, snapshot)
    body = body or body_of(run)
    root = root or next((folder for folder in ("dataset", "../dataset") if Path(folder).is_dir()), None)
    if gpus > config.gpus_per_node:
        raise BadInput(f"a test runs on one machine: NUM_GPU is {gpus}, --gpus-per-node {config.gpus_per_node}")
    folder = Path(new_folder(job, "test")).absolute()
    asked = EvaluateConfig(
        (str(checkpoint.absolute()),), testset, root=None if root is None else Path(root), out=folder, body=body,
        devices=max(1, gpus),
    )  # fmt: skip
    return submit(job, gpus, 1, (evaluate_job, asked), folder, config)


RUN_FOLDERS = (".", "output", "outputs", "../output", "../outputs")
"""Where a run that is named alone is looked for: ours, and those that the published scripts write to."""


def find_run(run: str | Path) -> Path:
    """The folder of a run that is named by its path, or by its name as the published scripts take it."""
    for folder in RUN_FOLDERS:
        if (Path(folder) / run / "model_dump").is_dir():
            return Path(folder) / run
    raise BadInput(f"there is no run {str(run)!r}: no model_dump in it, here or in {', '.join(RUN_FOLDERS[1:])}")


def _snapshot(run: Path, number: str) -> Path:
    """A run's snapshot, ours or one of the published code's."""
    endings = (".safetensors", ".pth.tar")
    for ending in endings:
        if (path := run / "model_dump" / f"snapshot_{number}{ending}").is_file():
            return path
    names = {path.name for ending in endings for path in (run / "model_dump").glob(f"snapshot_*{ending}")}
    there = sorted({name.removeprefix("snapshot_").split(".")[0] for name in names}, key=lambda n: (len(n), n))
    raise BadInput(f"there is no snapshot {number} in {run}; snapshots of this run: {', '.join(there) or 'none'}")


def body_of(run: Path) -> str:
    """The body that a run was trained with: by our record, or by the published `config_base.py`. BadInput if neither
    says."""
    path = run / "code" / "config.json"
    if not path.exists() and (published := run / "code" / "config_base.py").is_file():
        from wholebody.training.import_config import import_config

        return str(import_config(published).table["body"])
    table = read_json(path)
    body = table.get("body") if isinstance(table, dict) else None
    if not isinstance(body, str):
        raise BadInput(f"{path}: does not say with which body the run was trained. Give --body.")
    return body


def submit(
    job: str, gpus: int, processes: int, task: tuple[Any, ...], folder: Path, config: SlurmConfig
) -> Submitted:  # fmt: skip
    """Queue a job. task: a function of a module and its arguments, for each process of it."""
    try:
        import submitit
    except ImportError:
        raise BadInput("submitting to Slurm needs submitit: pip install '.[slurm]'") from None
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
        queued = executor.submit(*task)
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


def train_job(recipe: str, overrides: Sequence[str], folder: str) -> None:
    """What each process of a training job does."""
    with listening():
        from wholebody.training.launch import launch

        launch(recipe, overrides, folder)


def evaluate_job(config: EvaluateConfig) -> None:
    """What the process of a job that measures a network does."""
    with listening():
        from wholebody.evaluation.evaluate import evaluate

        evaluate(config)


@contextmanager
def listening() -> Iterator[None]:
    """A job whose time ends while PyTorch is being imported has nothing to save yet; from then on the run listens.
    What the user can mend is said in a line, and the job's exit status is that of the command."""
    signal.signal(signal.SIGUSR1, _requeue_before_start)
    try:
        yield
    except WholebodyError as error:
        print(f"wholebody: {error}", file=sys.stderr, flush=True)
        raise SystemExit(getattr(error, "exit_status", 2)) from error


def _requeue_before_start(number: int, _: object) -> None:
    if os.environ.get("SLURM_PROCID", "0") == "0":
        print(f"the job's time ends before its run began: {requeue()}", flush=True)
    raise SystemExit(128 + number)
