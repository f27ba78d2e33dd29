"""Work that overlaps: what comes next is made ready in one thread, what is finished is put away in another.

The order stays, and so does the limit on what is held at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")
Ready = TypeVar("Ready")


@contextlib.contextmanager
def afterwards(name: str) -> Iterator[ThreadPoolExecutor]:
    """One thread that does what it is given in order. Where the caller fails, what is not begun yet is left undone."""
    pool = ThreadPoolExecutor(1, name)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


class Ahead(Generic[Job, Ready]):
    """`for job, future in Ahead(prepare, jobs, limit): ...` with `prepare(job)` running ahead in a thread of its own.

    Each job holds what `take(job, amount)` says until `give_back(job)`; while that is `limit` or more in all, or
    `most` jobs are held, the next one is not begun. So one job more than `limit` is held at most. Use it as a context:
    leaving it ends the thread, after the job that it is at.
    """

    def __init__(self, prepare: Callable[[Job], Ready], jobs: Sequence[Job], limit: float, most: int = 64) -> None:
        self._prepare, self._jobs, self._limit, self._most = prepare, jobs, limit, most
        self._held: dict[int, float] = {}
        self._changed, self._ended = threading.Condition(), False
        self._pool = ThreadPoolExecutor(1, "ahead")

    def __enter__(self) -> Ahead[Job, Ready]:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Job, Future[Ready]]]:
        begun: deque[tuple[Job, Future[Ready]]] = deque()
        for job in self._jobs:
            begun.append((job, self._pool.submit(self._one, job)))
            if len(begun) > self._most:
                yield begun.popleft()
        while begun:
            yield begun.popleft()

    def take(self, job: Job, amount: float) -> None:
        with self._changed:
            self._held[id(job)] = amount

    def give_back(self, job: Job) -> None:
        with self._changed:
            self._held.pop(id(job), None)
            self._changed.notify_all()

    def _one(self, job: Job) -> Ready:
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or (sum(self._held.values()) < self._limit and len(self._held) < self._most)
            )
            if self._ended:
                raise RuntimeError("ended before this was begun")
            self._held[id(job)] = 0.0
        try:
            return self._prepare(job)
        except BaseException:
            self.give_back(job)
            raise
