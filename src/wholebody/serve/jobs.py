"""A queue of jobs, done one after the other by a worker process that keeps the networks loaded.

A process of its own: strangers' files that crash a decoder, fill the memory or never end cost their job and no more.
Every job has a folder of its own under one temporary folder and a name that cannot be guessed; both go after a time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholebody.errors import WholebodyError
from wholebody.serve.config import ServeConfig

Work = Callable[..., list[Path]]
"""`work(path, out, look=..., say=..., progress=...)` gives the files that it wrote."""
_UNNAMED = "upload"


class Full(Exception):
    """No more jobs are taken at the moment."""


@dataclass
class Job:
    """What somebody sent, and what became of it."""

    key: str
    folder: Path
    name: str  # of the file that was sent, made harmless
    look: str
    made: float  # seconds, monotonic
    state: str = "sending"  # then waiting, working, done or failed
    message: str = ""
    done: int = 0
    of: int | None = None
    files: dict[str, Path] = field(default_factory=dict)  # by the name that users see
    ended: float | None = None

    @property
    def upload(self) -> Path:
        return self.folder / self.name


def harmless_name(name: str) -> str:
    """A file's name without folders, and without anything that a path, a shell or a page could take for its own."""
    name = re.split(r"[/\\]", name)[-1]
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    stem = re.sub(r"[^\w-]+", "_", stem).strip("_")[:60] or _UNNAMED
    suffix = re.sub(r"[^A-Za-z0-9]+", "", suffix)[:8].lower()
    return f"{stem}.{suffix}" if suffix else stem


class Jobs:
    """`begin` a job, write its upload, `submit` it, and look at it by its key. Threads may call anything here."""

    def __init__(self, folder: Path, config: ServeConfig, make_work: Callable[[], Work]) -> None:
        """make_work: makes the function that does a job; called in the worker process, so it must be importable."""
        self._folder, self._config, self._make_work = folder, config, make_work
        self._jobs: dict[str, Job] = {}
        self._queue: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._process: Any = None
        self._pipe: Any = None
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in (self._work_on, self._clean)]
        for thread in self._threads:
            thread.start()

    def begin(self, name: str, look: str) -> Job:
        """A new job, to whose `upload` a file is then written. Raises Full."""
        with self._changed:
            open_jobs = sum(job.state in ("sending", "waiting") for job in self._jobs.values())
            if open_jobs >= self._config.max_waiting or self._closed:
                raise Full
            key = secrets.token_urlsafe(18)
            job = Job(key, self._folder / secrets.token_hex(8), harmless_name(name), look, time.monotonic())
            self._jobs[key] = job
        job.folder.mkdir(mode=0o700)
        return job

    def submit(self, job: Job) -> None:
        with self._changed:
            job.state = "waiting"
            self._queue.append(job)
            self._changed.notify_all()

    def get(self, key: str) -> Job | None:
        return self._jobs.get(key)

    def remove(self, key: str) -> None:
        """Forget a job and delete its files; if it is being done, it ends."""
        with self._changed:
            job = self._jobs.pop(key, None)
            if job is None:
                return
            if job in self._queue:
                self._queue.remove(job)
            working, job.state = job.state == "working", "failed"
            self._changed.notify_all()
        if not working:
            shutil.rmtree(job.folder, ignore_errors=True)

    def about(self, job: Job) -> dict[str, Any]:
        """What a user may know of a job; no path is in it."""
        with self._changed:
            before = self._queue.index(job) if job in self._queue else 0
            busy = any(other.state == "working" for other in self._jobs.values())
            end = None if job.ended is None else job.ended + 60 * self._config.keep_minutes - time.monotonic()
            return {
                "state": job.state,
                "name": job.name,
                "message": job.message,
                "before": before + (busy and job.state == "waiting"),
                "done": job.done,
                "of": job.of,
                "files": [
                    {"name": name, "bytes": path.stat().st_size} for name, path in job.files.items() if path.exists()
                ],
                "minutes_left": None if end is None else max(0, round(end / 60)),
            }

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._end_process()
        self._threads[0].join(5)

    # The thread that hands jobs to the worker

    def _work_on(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait(1.0)
                if self._closed:
                    return
                job = self._queue.pop(0)
                job.state, job.message = "working", "starting"
            try:
                self._do(job)
            except Exception as error:  # a defect here must not end the server's only worker
                self._finish(job, f"This failed without its fault ({type(error).__name__}). Send it again.")

    def _do(self, job: Job) -> None:
        out = job.folder / "results"
        out.mkdir(exist_ok=True)
        if self._process is None or not self._process.is_alive():
            self._start_process()
        self._pipe.send((job.upload, out, job.look))
        end = time.monotonic() + 60 * self._config.job_minutes
        while True:
            if self._jobs.get(job.key) is not job or time.monotonic() > end or self._closed:
                self._end_process()
                return self._finish(job, f"This took longer than {self._config.job_minutes:g} minutes and was ended.")
            try:
                if not self._pipe.poll(0.1):
                    continue
                kind, value = self._pipe.recv()
            except (EOFError, OSError):
                self._end_process()
                return self._finish(
                    job, "The program that worked on this ended: the file may be damaged, or too large."
                )
            if kind == "progress":
                job.done, job.of = value
                job.message = "looking at the film"
            elif kind == "say":
                job.message = self._without_paths(job, value)
            elif kind == "done":
                with self._changed:
                    job.files = {path.name: path for path in value}
                return self._finish(job, None)
            else:
                return self._finish(job, self._without_paths(job, value))

    def _finish(self, job: Job, problem: str | None) -> None:
        with self._changed:
            job.state, job.message = ("done", "") if problem is None else ("failed", problem)
            job.ended = time.monotonic()
            gone = self._jobs.get(job.key) is not job
        with contextlib.suppress(OSError):
            job.upload.unlink()  # nobody needs it any more
        if gone:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _without_paths(self, job: Job, text: str) -> str:
        for folder in (job.folder / "results", job.folder, self._folder):
            text = text.replace(f"{folder}/", "").replace(str(folder), "")
        return re.sub(r"(?<![\w.])/(?:[\w.-]+/)+", "", text)

    def _start_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_worker, args=(theirs, self._make_work), daemon=True)
        self._process.start()
        theirs.close()

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
            self._process = None
            self._pipe.close()

    # The thread that deletes what is old

    def _clean(self) -> None:
        while not self._closed:
            now, keep = time.monotonic(), 60 * self._config.keep_minutes
            for job in list(self._jobs.values()):
                since = job.ended if job.ended is not None else job.made if job.state == "sending" else None
                if since is not None and now - since > keep:
                    self.remove(job.key)
            time.sleep(min(30.0, keep / 4))


def _worker(pipe: Any, make_work: Callable[[], Work]) -> None:
    """The worker process: jobs come by the pipe, and what becomes of them goes back."""
    import os
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    os.nice(5)  # pages and downloads go first
    work: Work | None = None
    while True:
        try:
            path, out, look = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if work is None:
                pipe.send(("say", "loading the networks"))
                work = make_work()
            pipe.send(("say", "looking for people"))
            files = work(
                path, out, look=look, say=lambda text: pipe.send(("say", text)),
                progress=lambda done, of: pipe.send(("progress", (done, of))),
            )  # fmt: skip
            pipe.send(("done", files))
        except WholebodyError as error:
            pipe.send(("failed", str(error)))
        except Exception as error:
            pipe.send(("failed", f"An unexpected {type(error).__name__}: this is a fault of the server, not yours."))
