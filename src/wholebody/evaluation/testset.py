"""What every test set has in common: people in an order, what each network is found to say of each, and a result."""

from __future__ import annotations

import itertools
import os
import queue
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from wholebody.errors import BadInput
from wholebody.evaluation.result import Result, Row
from wholebody.files.npz import npz_bytes
from wholebody.files.whole import write_bytes

T = TypeVar("T")
PARAMETERS = (
    "global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "betas", "expression", "cam_trans",
)  # fmt: skip
"""What is kept of a network's answer, by its names in `Prediction` and `Person`."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one network says of one person, measured."""

    row: Row
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    """Those of `PARAMETERS` that the network gives, and `crop_box` (4,) xyxy, in pixels of the picture."""
    more: Any = None
    """What the set's own summary needs beside the row."""


@dataclass(frozen=True)
class Figure:
    """One drawn sample. `jpeg`: the file's bytes."""

    network: str
    kind: str
    id: str
    caption: str
    jpeg: bytes


class TestSet(Protocol):
    """A test set in a folder. Made anew in each process that measures a part of it."""

    @property
    def name(self) -> str:
        """As `--testset` calls it."""

    @property
    def title(self) -> str:
        """For people."""

    def check(self, models: Sequence[Any]) -> None:
        """Refuse networks that cannot be measured here, before any work."""

    def people(self) -> Iterator[Any]:
        """Everybody who is measured, in the set's order."""

    def found(self, models: Sequence[Any], people: Iterable[Any], batch_size: int) -> Iterator[list[Found]]:
        """For each person what is found of each network."""

    def result(self, names: Sequence[tuple[str, str]], found: Sequence[Sequence[Found]]) -> Result:
        """names: of each network, how it is called and where it came from; found: of each network, everybody."""

    def figures(self, models: Sequence[Any], result: Result, each: int) -> list[Figure]:
        """Of each network the best, the middle and the worst `each` people, drawn."""


def thinned(people: Iterable[T], every: int | None, limit: int | None) -> Iterator[T]:
    """Every so many-th of them (None: all), of these the first `limit` (None: all)."""
    return itertools.islice(itertools.islice(people, 0, None, every or 1), limit)


def parameters_of(answer: Any, number: int | None = None) -> dict[str, np.ndarray]:
    """Those of `PARAMETERS` that an answer has; number: of one person of a batch."""
    kept = {}
    for name in PARAMETERS:
        value = getattr(answer, name, None)
        if value is not None:
            value = value if number is None else value[number]
            kept[name] = np.asarray(value.detach().float().cpu() if hasattr(value, "detach") else value, np.float32)
    return kept


def write_parameters(
    folder: Path, names: Sequence[tuple[str, str]], found: Sequence[Sequence[Found]], bodies: Sequence[Any]
) -> list[Path]:
    """`parameters.npz`, or one for each of several networks: everybody's answer, stacked, with `id` and `image`."""
    written = []
    for (name, checkpoint), people, body in zip(names, found, bodies, strict=True):
        known = people[0].parameters.keys() if people else ()
        arrays = {key: np.stack([one.parameters[key] for one in people]) for key in known}
        if not arrays:
            continue
        arrays |= dict(
            id=np.array([one.row.id for one in people]),
            image=np.array([one.row.image for one in people]),
            checkpoint=np.array(checkpoint),
            body=np.array(body.name),
            flat_hand_mean=np.array(bool(body.flat_hand_mean)),
        )
        several = "_" + re.sub(r"[^\w.-]+", "_", name) if len(names) > 1 else ""
        written.append(write_bytes(folder / f"parameters{several}.npz", npz_bytes(arrays)))
    return written


def in_processes(
    share: Callable[[int, int, Callable[[int], None]], list[list[T]]], count: int, progress: Callable[[int], None]
) -> list[list[T]]:
    """What `share(rank, count, progress)` gives in each of `count` processes, put together again.

    Each gives, of each network, every count-th person from the rank-th on. `share` travels to fresh processes: it has
    to be a function of a module, or a `functools.partial` of one. What goes wrong in one goes wrong here.
    """
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(count, mp_context=context) as pool:
        done = manager.Queue()
        futures = [pool.submit(share, rank, count, done.put) for rank in range(count)]
        while not all(future.done() for future in futures):
            wait(futures, timeout=0.2)
            _pass_on(done, progress)
            if any(future.done() and future.exception() for future in futures):
                break
        _pass_on(done, progress)
        shares = [future.result() for future in futures]
    return [_interleaved([one[k] for one in shares]) for k in range(len(shares[0]))]


def _pass_on(done: Any, progress: Callable[[int], None]) -> None:
    while True:
        try:
            progress(done.get_nowait())
        except queue.Empty:
            return


def _interleaved(parts: Sequence[Sequence[T]]) -> list[T]:
    together: list[T] = []
    for row in itertools.zip_longest(*parts, fillvalue=_NOBODY):
        together.extend(one for one in row if one is not _NOBODY)  # type: ignore[misc]
    return together


_NOBODY = object()


def device_of(device: str, rank: int, count: int) -> str:
    """The device of process `rank` of `count`. BadInput where there are too few."""
    import torch

    if count == 1:
        return device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if count > torch.cuda.device_count():
            raise BadInput(f"--devices {count}, and this machine has {torch.cuda.device_count()} GPUs.")
        return f"cuda:{rank}"
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
        return device
    raise BadInput(f"--devices {count} with --device {device}: several processes take --device cuda or cpu.")
