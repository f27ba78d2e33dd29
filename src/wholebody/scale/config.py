"""What a job on many machines is asked for. Fields are the options of the commands that take `--engine`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from cyclopts import Parameter

from wholebody.errors import BadInput

ENGINES = ("local", "slurm", "ray")


@dataclass(frozen=True)
class EngineConfig:
    """On what a job runs. None: the engine's own default."""

    engine: str | None = None
    """local (processes on this machine), slurm (a job array, extra `slurm`) or ray (a cluster, extra `ray`)"""
    worker_count: Annotated[int | None, Parameter(name="--workers")] = None
    """processes, each with a network of its own; if not given as many as cores (slurm: 8)"""
    threads: int = 1
    """of each worker, and CPU cores that it asks the engine for"""
    gpus_per_worker: float = 0.0
    """ray, slurm: GPUs that each worker asks for; ray takes fractions, so that several share one"""
    worker_memory: float | None = None
    """GB; a worker that needs more is ended, and the picture that it had in hand counts as its fault"""
    picture_seconds: float = 600.0
    """a worker that takes longer over a picture is ended (over 8 at a time: 8 times as long); films have no limit"""
    address: str | None = None
    """ray: address of the cluster; if not given RAY_ADDRESS, else one that runs here, else one is started here"""
    partition: str | None = None
    """slurm: the cluster's default if not given"""
    account: str | None = None
    """slurm: the cluster's default if not given"""
    minutes: Annotated[int, Parameter(name="--time")] = 240
    """slurm: minutes of each member of the array; what is not done by then is submitted again"""
    gres: str | None = None
    """slurm: how this cluster names the GPU of a worker, where it does by kind ("gpu:a100:1")"""

    def __post_init__(self) -> None:
        if self.engine is not None and self.engine not in ENGINES:
            raise BadInput(f"--engine {self.engine}: known are {', '.join(ENGINES)}.")
        if self.engine is None:
            _check_none_given(self, _NEEDS_ENGINE)
        if self.worker_count is not None and self.worker_count < 1:
            raise BadInput(f"--workers is {self.worker_count}; it must be at least 1.")
        if self.threads < 1:
            raise BadInput(f"--threads is {self.threads}; it must be at least 1.")
        if self.gpus_per_worker < 0:
            raise BadInput(f"--gpus-per-worker is {self.gpus_per_worker:g}; it must be at least 0.")
        if self.worker_memory is not None and self.worker_memory <= 0:
            raise BadInput(f"--worker-memory is {self.worker_memory:g}; give GB, more than 0.")
        if not self.picture_seconds > 0:
            raise BadInput(f"--picture-seconds is {self.picture_seconds:g}; it must be more than 0.")
        if self.minutes < 1:
            raise BadInput(f"--time is {self.minutes}; it must be at least 1 minute.")


_NEEDS_ENGINE = tuple(field.name for field in fields(EngineConfig) if field.name not in ("engine", "worker_count"))


@dataclass(frozen=True)
class ManyConfig(EngineConfig):
    """A job over pictures and films by a manifest."""

    column: str | None = None
    """of a manifest (CSV, Parquet): the column with the paths, where its name does not tell"""
    root: str | None = None
    """folder or address that a manifest's relative paths start from; the manifest's own folder if not given"""
    shard_size: int | None = None
    """pictures in a shard, which is done whole or not at all; 50 to 1,000 by how many there are, if not given"""
    max_bad: float = 0.05
    """share of pictures that may fail; with more the job fails"""
    retry_bad: bool = False
    """do the shards again in which pictures failed"""
    contact_every: int = 1000
    """put every Nth picture's overlay onto the contact page; 0: none"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine is None:
            _check_none_given(self, (*_MANY, "worker_count"))
        if self.shard_size is not None and self.shard_size < 1:
            raise BadInput(f"--shard-size is {self.shard_size}; it must be at least 1.")
        if not 0 <= self.max_bad <= 1:
            raise BadInput(f"--max-bad is {self.max_bad:g}; it is a share, from 0 to 1.")
        if self.contact_every < 0:
            raise BadInput(f"--contact-every is {self.contact_every}; it must be at least 0.")


_MANY = tuple(field.name for field in fields(ManyConfig) if field not in fields(EngineConfig))


def _check_none_given(config: EngineConfig, names: tuple[str, ...]) -> None:
    given = [
        field.name for field in fields(config) if field.name in names and getattr(config, field.name) != field.default
    ]
    if given:
        raise BadInput(f"{', '.join(map(_option, given))}: goes with --engine local, slurm or ray.")


def _option(name: str) -> str:
    return {"minutes": "--time", "worker_count": "--workers"}.get(name, "--" + name.replace("_", "-"))
