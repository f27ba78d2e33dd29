"""Processes on this machine: a worker a core, each with a network of its own and as many threads as it was given."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

from wholebody.scale.child import Work, pack
from wholebody.scale.config import EngineConfig
from wholebody.scale.worker import Done, Left, Say, Worker, limits_of


def run(work: Work, tasks: Sequence[Any], config: EngineConfig, done: Done, say: Say, left: Left) -> None:
    """See `worker.Engine`. The first error of a worker ends the job."""
    count = min(config.worker_count or max(1, cores() // config.threads), len(tasks))
    todo: queue.SimpleQueue[Any] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[Any, Any, BaseException | None]] = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)
    packed, limits, ended = pack(work), limits_of(config), threading.Event()
    workers = [Worker(work, packed, limits) for _ in range(count)]

    def labour(worker: Worker) -> None:
        while not ended.is_set():
            try:
                task = todo.get_nowait()
            except queue.Empty:
                break
            try:
                results.put((task, worker(task), None))
            except BaseException as error:
                results.put((task, None, error))
        worker.close()

    threads = [threading.Thread(target=labour, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        for _ in tasks:
            task, result, error = results.get()
            if error is not None:
                raise error
            done(task, result)
    finally:
        ended.set()
        for worker in workers:
            worker.close()
        for thread in threads:
            thread.join(10)


def cores() -> int:
    """Of this machine that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
