"""Work that overlaps keeps its order and its limit, and ends when it is told to."""

from __future__ import annotations

import threading
import time

import pytest

from wholebody.pipeline.ahead import Ahead, afterwards


class Job:
    def __init__(self, number: int, size: float = 1.0) -> None:
        self.number, self.size = number, size


def test_the_order_stays_and_no_more_than_the_limit_is_held():
    held, most = 0.0, 0.0
    lock = threading.Lock()
    jobs = [Job(k, size=1 + k % 3) for k in range(40)]

    def prepare(job: Job) -> int:
        nonlocal held, most
        ahead.take(job, job.size)
        with lock:
            held += job.size
            most = max(most, held)
        return job.number

    with Ahead(prepare, jobs, limit=6) as ahead:
        seen = []
        for job, future in ahead:
            seen.append(future.result())
            time.sleep(0.001)
            with lock:
                held -= job.size
            ahead.give_back(job)
    assert seen == list(range(40))
    assert 4 < most <= 6 + 3  # it does run ahead, by one job more than the limit at most


def test_as_many_jobs_as_are_allowed_are_held():
    begun = []
    with Ahead(lambda job: begun.append(job.number), [Job(k) for k in range(30)], limit=100, most=4) as ahead:
        first = next(iter(ahead))
        first[1].result()
        time.sleep(0.05)
        assert len(begun) <= 4
        ahead.give_back(first[0])


def test_the_failure_of_one_is_its_own():
    def prepare(job: Job) -> int:
        if job.number == 1:
            raise ValueError("damaged")
        return job.number

    jobs, seen = [Job(k) for k in range(3)], []
    with Ahead(prepare, jobs, limit=1) as ahead:
        for job, future in ahead:
            try:
                seen.append(future.result())
            except ValueError as error:
                seen.append(str(error))
            ahead.give_back(job)
    assert seen == [0, "damaged", 2]


def test_leaving_early_ends_it():
    begun = []
    jobs = [Job(k) for k in range(1000)]
    with pytest.raises(KeyboardInterrupt), Ahead(lambda job: begun.append(job.number), jobs, limit=3, most=3) as ahead:
        for _job, future in ahead:
            future.result()
            raise KeyboardInterrupt
    assert len(begun) <= 3 and not [t for t in threading.enumerate() if t.name.startswith("ahead")]


def test_what_is_not_begun_is_left_when_the_caller_fails():
    done, go_on = [], threading.Event()

    def work(number: int) -> None:
        go_on.wait(5)
        done.append(number)

    with pytest.raises(RuntimeError), afterwards("later") as later:
        futures = [later.submit(work, k) for k in range(5)]
        threading.Timer(0.05, go_on.set).start()
        raise RuntimeError("the disk is full")
    assert len(done) <= 1 and all(future.done() for future in futures)
    with afterwards("later") as later:
        for k in range(5):
            later.submit(done.append, k)
    assert done[-5:] == list(range(5))
