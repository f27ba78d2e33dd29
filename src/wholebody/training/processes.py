"""The processes of a run: how they are started, find each other, agree, and are told to stop.

A run is one process per device. They are started by `train --devices N` itself, by `torchrun`, or by Slurm's `srun`;
each finds its place in the variables that these set.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from wholebody.errors import BadInput, WholebodyError


class Stopped(WholebodyError):
    """The run was told to stop and is saved; the same command goes on with it."""

    def __init__(self, message: str, exit_status: int):
        super().__init__(message)
        self.exit_status = exit_status


class NotFinite(WholebodyError):
    """Losses or gradients were not finite more often than the recipe allows."""


@dataclass(frozen=True)
class Place:
    """Of one process among all of a run: its number, how many there are, and its number on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> Place | None:
        """As torchrun or srun say; None: neither started this process."""
        if "RANK" in variables and "WORLD_SIZE" in variables:
            return cls(int(variables["RANK"]), int(variables["WORLD_SIZE"]), int(variables.get("LOCAL_RANK", 0)))
        if "SLURM_STEP_NUM_TASKS" in variables and "SLURM_PROCID" in variables:  # set in steps of srun alone
            world = int(variables["SLURM_STEP_NUM_TASKS"])
            return cls(int(variables["SLURM_PROCID"]), world, int(variables.get("SLURM_LOCALID", 0)))
        return None


@dataclass(frozen=True)
class Group:
    """The processes of a run, as one of them sees them. What it says, all of them have to ask for at the same time."""

    place: Place
    device: torch.device = torch.device("cpu")

    @property
    def main(self) -> bool:
        """The one that speaks and writes."""
        return self.place.rank == 0

    def largest(self, *numbers: int) -> list[int]:
        """Of each number, the largest that any process has."""
        if self.place.world == 1:
            return list(numbers)
        found = torch.tensor(numbers, device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return found.tolist()

    def means(self, values: dict[str, float]) -> dict[str, float]:
        """Of each number, the mean over the processes."""
        gathered = self.gather(values)
        return {name: sum(one[name] for one in gathered) / len(gathered) for name in values}

    def gather(self, thing: Any) -> list[Any]:
        """What each process has, in their order."""
        if self.place.world == 1:
            return [thing]
        things: list[Any] = [None] * self.place.world
        dist.all_gather_object(things, thing)
        return things

    def same(self, thing: Any) -> Any:
        """What the first process has."""
        return self.gather(thing)[0]

    def first_alone(self, act: Callable[[], object]) -> None:
        """`act` in the first process while the others wait; what goes wrong with it goes wrong in all."""
        problem: Exception | None = None
        if self.main:
            try:
                act()
            except Exception as error:
                problem = error
        problem = self.same(problem)
        if problem is not None:
            raise problem


ALONE = Group(Place())


@contextmanager
def processes() -> Iterator[Group]:
    """Joins the processes that were started together; one that was started alone is a group of its own."""
    place = Place.of_environment() or Place()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", place.local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if place.world == 1:
        yield Group(place, device)
        return
    _find_each_other(os.environ)
    dist.init_process_group(
        "nccl" if cuda else "gloo", rank=place.rank, world_size=place.world, timeout=timedelta(minutes=30)
    )
    try:
        yield Group(place, device)
    finally:
        dist.destroy_process_group()


def share_gradients(module: nn.Module, group: Group, some_unused: bool) -> nn.parallel.DistributedDataParallel:
    """The module with its gradients averaged over the processes; its statistics stay as each process finds them."""
    devices = [group.device] if group.device.type == "cuda" else None
    with warnings.catch_warnings():  # the argument's new name is not known to every version that we support
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            module, devices, broadcast_buffers=False, find_unused_parameters=some_unused
        )


def _find_each_other(variables: Any) -> None:
    """Where the first process listens, as torch.distributed wants to be told; Slurm knows the machine."""
    if "MASTER_ADDR" not in variables:
        nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
        if not nodes:
            raise BadInput("several processes, and MASTER_ADDR does not say where the first listens; use torchrun")
        named = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        variables["MASTER_ADDR"] = named.stdout.split()[0]
    # The same port in all processes, and another one in another job on the same machine.
    variables.setdefault("MASTER_PORT", str(20000 + int(variables.get("SLURM_JOB_ID", 0)) % 20000))


def start_processes(command: Sequence[str], devices: int, nodes: int) -> int:
    """Run `command` once per device of this machine, and wait: the exit status of the first that fails, else 0.

    Signals that stop a run are passed on. Of several nodes each runs the same command, with NODE_RANK, MASTER_ADDR and
    MASTER_PORT set.
    """
    variables = dict(os.environ)
    if nodes > 1 and not {"NODE_RANK", "MASTER_ADDR", "MASTER_PORT"} <= variables.keys():
        raise BadInput(
            f"--nodes {nodes}: on each node set NODE_RANK (0 to {nodes - 1}), MASTER_ADDR and MASTER_PORT (of node 0), "
            "or start the run by torchrun or `wholebody slurm train`, which do"
        )
    first = int(variables.get("NODE_RANK", 0)) * devices
    if nodes == 1:
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    children: list[subprocess.Popen] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        for local in range(devices):
            place = {"RANK": str(first + local), "WORLD_SIZE": str(devices * nodes), "LOCAL_RANK": str(local)}
            children.append(subprocess.Popen(command, env=variables | place))
        return _wait(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            if child.poll() is None:
                child.kill()


def _wait(children: Sequence[subprocess.Popen]) -> int:
    """Until all are done. When one fails, the others, which would wait for it for ever, get time to say why."""
    while any(child.poll() is None for child in children):
        if any(child.poll() for child in children):
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and any(child.poll() is None for child in children):
                time.sleep(0.1)
            break
        time.sleep(0.1)
    codes = [child.poll() for child in children]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Signals:
    """Context that notes the signals that stop a run instead of dying of them: SIGTERM, and SIGUSR1, which Slurm sends
    some time before a job's time is over. `received`: the last one's number, or 0."""

    NUMBERS = (signal.SIGTERM, signal.SIGUSR1)

    def __enter__(self) -> Signals:
        self.received = 0
        # Only the main thread may set handlers; elsewhere (in a notebook's thread, say) signals stay as they are.
        self._before: dict[int, Any] = {}
        try:
            for number in self.NUMBERS:
                self._before[number] = signal.signal(number, self._note)
        except ValueError:
            pass
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def seed_of(seed: int, place: Place) -> int:
    """Another one for each process, the recipe's own for the first."""
    return seed if place.rank == 0 else random.Random(f"{seed} {place.rank}").getrandbits(63)
