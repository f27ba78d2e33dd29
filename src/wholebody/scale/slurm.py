"""A Slurm job array, through submitit: each member works on its share of the shards; what is not finished when all have
ended (a machine vanished, the time was over) is submitted again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wholebody.errors import AssetMissing, BadInput, WholebodyError
from wholebody.scale.child import Failed, Limits, Work, failure, pack, unpack
from wholebody.scale.config import EngineConfig
from wholebody.scale.worker import Done, Left, Say, Worker, limits_of

_MEMBERS = 8
_ROUNDS = 10  # of submitting what is left
_LOOK = 2.0  # seconds


def labour(packed: bytes, limits: Limits, tasks: Sequence[Any]) -> list[tuple[Any, Any]]:
    """What each member of the array does: its tasks, one after the other. An error comes last and ends it."""
    worker = Worker(unpack(packed), packed, limits)
    results: list[tuple[Any, Any]] = []
    try:
        for task in tasks:
            results.append((task, worker(task)))
    except Exception as error:
        print(f"wholebody: {error}", file=sys.stderr, flush=True)
        results.append((None, failure(error)))
    finally:
        worker.close()
    return results


def run(work: Work, tasks: Sequence[Any], config: EngineConfig, done: Done, say: Say, left: Left) -> None:
    """See `worker.Engine`."""
    todo = list(tasks)
    for _ in range(_ROUNDS):
        jobs = _submit(work, todo, config)
        say(f"Slurm job {jobs[0].job_id.partition('_')[0]}: an array of {len(jobs)}; logs in {jobs[0].paths.folder}")
        try:
            _collect(jobs, done, say)
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        before, missing = len(todo), left()
        todo = [task for task in todo if task in missing]
        if not todo:
            return
        if len(todo) == before:
            raise WholebodyError(
                f"the Slurm jobs ended without finishing any of {before} tasks; see their logs in "
                f"{jobs[0].paths.folder}. Is --time long enough, and does every machine see the same folders?"
            )
        say(f"{len(todo)} tasks were not finished and are submitted again")
    raise WholebodyError(f"{len(todo)} tasks are left after {_ROUNDS} submissions; the same command goes on from here.")


def _submit(work: Work, tasks: Sequence[Any], config: EngineConfig) -> list[Any]:
    try:
        import submitit
    except ImportError:
        raise AssetMissing("--engine slurm needs submitit: pip install '.[slurm]'.") from None
    if submitit.AutoExecutor.which() != "slurm":
        raise BadInput("this machine has no Slurm (srun is not found): log in to the cluster first.")
    folder = Path("wholebody-slurm").absolute()
    executor = submitit.AutoExecutor(folder / "%j", cluster="slurm")
    asked: dict[str, Any] = {name: getattr(config, name) for name in ("partition", "account", "gres")
                             if getattr(config, name)}  # fmt: skip
    if config.gpus_per_worker and not config.gres:
        if config.gpus_per_worker != int(config.gpus_per_worker):
            raise BadInput(f"--gpus-per-worker {config.gpus_per_worker:g}: Slurm gives whole GPUs only.")
        asked["gpus_per_node"] = int(config.gpus_per_worker)
    if config.worker_memory:
        asked["mem"] = f"{int(config.worker_memory * 1.2 * 1024) + 1024}M"  # and the process beside it
    count = min(config.worker_count or _MEMBERS, len(tasks))
    executor.update_parameters(
        name="wholebody", nodes=1, tasks_per_node=1, cpus_per_task=config.threads, timeout_min=config.minutes,
        slurm_array_parallelism=count, slurm_additional_parameters=asked,
    )  # fmt: skip
    shares = [list(tasks[k::count]) for k in range(count)]
    packed = pack(work)
    try:
        return executor.map_array(labour, [packed] * count, [limits_of(config)] * count, shares)
    except Exception as error:  # submitit wraps what sbatch says in its own kind of error
        raise WholebodyError(f"Slurm did not take the job: {error}") from error


def _collect(jobs: list[Any], done: Done, say: Say) -> None:
    waiting = list(jobs)
    while waiting:
        for job in [job for job in waiting if job.done()]:
            waiting.remove(job)
            try:
                results = job.result()
            except Exception as error:  # it was killed, or its time was over: what it finished lies in the results
                say(f"Slurm job {job.job_id} ended early: {str(error).strip().splitlines()[0][:200]}")
                continue
            for task, result in results:
                if isinstance(result, Failed):
                    raise result.error
                done(task, result)
        if waiting:
            time.sleep(_LOOK)
