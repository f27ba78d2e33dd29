"""Ray: workers are actors anywhere in a cluster, several to a GPU where it is asked for by fraction.

A worker has one task at a time, so nothing piles up. One that vanishes, with its machine or alone, costs the task that
it had: that is given to another, and a new worker is asked for in its place (an autoscaling cluster answers by a new
machine).
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wholebody.errors import AssetMissing, BadInput, WholebodyError
from wholebody.scale.child import Failed, Limits, Work, failure, pack, unpack
from wholebody.scale.config import EngineConfig
from wholebody.scale.worker import TRIES, Done, Left, Say, Worker, limits_of

_PATIENCE = 60.0  # seconds without a worker until that is said


class Labourer:
    """The actor. Errors go home as values: those of Ray's then mean that the worker is gone."""

    def __init__(self, packed: bytes, limits: Limits) -> None:
        self._worker = Worker(unpack(packed), packed, limits)

    def do(self, task: Any) -> Any:
        try:
            return self._worker(task)
        except Exception as error:
            return failure(error)


def run(work: Work, tasks: Sequence[Any], config: EngineConfig, done: Done, say: Say, left: Left) -> None:
    """See `worker.Engine`."""
    ray = _ray()
    started = _connect(ray, config)
    actors: dict[Any, Any] = {}  # what is awaited -> (worker, its task)
    try:
        packed = pack(work)
        cores = int(ray.cluster_resources().get("CPU", 1))
        wanted = min(config.worker_count or max(1, cores // config.threads), len(tasks))
        options: dict[str, Any] = {"num_cpus": config.threads, "max_restarts": 0}
        if config.gpus_per_worker:
            options["num_gpus"] = config.gpus_per_worker
        if config.worker_memory:
            options["memory"] = int(config.worker_memory * 1e9)
        labourer = ray.remote(Labourer).options(**options)
        todo, lost, finished = deque(tasks), Counter[int](), 0
        number = {id(task): k for k, task in enumerate(tasks)}
        since = time.monotonic()
        while finished < len(tasks):
            while todo and len(actors) < wanted:
                _give(actors, labourer.remote(packed, limits_of(config)), todo.popleft())
            ready, _ = ray.wait(list(actors), num_returns=1, timeout=_PATIENCE)
            if not ready:
                if time.monotonic() - since > _PATIENCE:
                    _say_what_is_missing(ray, options, say)
                    since = time.monotonic()
                continue
            since = time.monotonic()
            actor, task = actors.pop(ready[0])
            try:
                result = ray.get(ready[0])
            except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError,
                    ray.exceptions.OutOfMemoryError, ray.exceptions.ObjectLostError) as error:  # fmt: skip
                key = number[id(task)]
                lost[key] += 1
                say(f"a worker vanished over task {task} ({type(error).__name__}); it is given to another")
                if lost[key] >= TRIES:
                    raise WholebodyError(
                        f"{TRIES} workers vanished over task {task}. The same command goes on from here; are the "
                        "machines large enough (--workers, --worker-memory)?"
                    ) from error
                todo.appendleft(task)
                continue
            if isinstance(result, Failed):
                raise result.error
            finished += 1
            if todo:
                _give(actors, actor, todo.popleft())
            else:
                ray.kill(actor)
            done(task, result)
    finally:
        for actor, _ in actors.values():
            ray.kill(actor)
        if started:
            ray.shutdown()


def _give(actors: dict[Any, Any], actor: Any, task: Any) -> None:
    actors[actor.do.remote(task)] = (actor, task)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise AssetMissing("--engine ray needs Ray: pip install '.[ray]', on every machine.") from None
    return ray


def _connect(ray: Any, config: EngineConfig) -> bool:
    """Whether a connection was made here, to be closed again."""
    if ray.is_initialized():
        return False
    address = config.address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    try:
        if address:
            ray.init(address, **quiet)
            return True
        try:
            if _last_is_gone():
                raise ConnectionError
            ray.init("auto", **quiet)
        except ConnectionError:
            ray.init("local", include_dashboard=False, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise BadInput(f"no Ray answers at {address or 'auto'} ({error}); start one by `ray start`.") from error
    return True


def _last_is_gone() -> bool:
    """Whether the cluster that Ray's own note names does not answer: one that was killed leaves its note, and Ray would
    wait for it for minutes."""
    try:
        note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
        host, _, port = note.read_text().strip().rpartition(":")
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return False
    except FileNotFoundError:
        return False  # no note: Ray finds out at once
    except (OSError, ValueError):
        return True


def _say_what_is_missing(ray: Any, options: dict[str, Any], say: Say) -> None:
    asked = ", ".join(f"{options[name]:g} {name}" for name in ("num_cpus", "num_gpus", "memory") if name in options)
    free = ray.available_resources()
    there = ", ".join(f"{free.get(name, 0):g} {name}" for name in ("CPU", "GPU", "memory"))
    say(f"waiting for workers of {asked} each; free in the cluster: {there}")
