"""A process of its own for what may crash: it loads the network once, answers requests, and takes nobody with it.

The process beside it (a thread of the local driver, a member of a Slurm array, a Ray actor) survives a crash, an end
for want of memory, or a picture that never ends, and so knows which request was to blame. Nothing of the two sides is
an engine's.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from wholebody.errors import WholebodyError

_LOOK = 0.25  # seconds between looks at a process that works
_STARTS = 3
_START_SECONDS = 900.0  # to load a network, over a slow file system too


class Work(Protocol):
    """What a job does. It is pickled, so it holds settings and nothing that was opened."""

    def open(self) -> Callable[[Any], Any]:
        """In the child: load what takes long, and return what answers requests."""
        ...

    def do(self, task: Any, ask: Callable[[Any], Any]) -> Any:
        """Beside the child: one task, whole or not at all, by asking the child. ChildDied says that it crashed over a
        request; the next one meets a new child."""
        ...


@dataclass(frozen=True)
class Limits:
    """Of each child."""

    threads: int = 1
    memory: float | None = None  # GB
    seconds: float | None = None  # for each picture of a request


class ChildDied(Exception):
    """The child ended over a request: it crashed, or was ended because it passed a limit."""


@dataclass(frozen=True)
class Failed:
    """An error that crossed from the child. `known`: the user can mend it; else it is a defect of ours."""

    text: str
    known: bool

    @property
    def error(self) -> Exception:
        return WholebodyError(self.text) if self.known else RuntimeError(self.text)


def pack(work: Work) -> bytes:
    """A work as bytes that any process of this machine, or of one with the same files, can open (`unpack`)."""
    try:
        content = pickle.dumps(work)
    except (AttributeError, pickle.PicklingError, TypeError):
        import cloudpickle  # what was defined in a notebook or a script

        content = cloudpickle.dumps(work)
    return pickle.dumps((list(sys.path), content))


def unpack(packed: bytes) -> Any:
    paths, content = pickle.loads(packed)
    for path in paths:
        if path not in sys.path:
            sys.path.append(path)
    return pickle.loads(content)


class Child:
    """Starts when it is first asked, and again after it died."""

    def __init__(self, packed: bytes, limits: Limits = Limits()) -> None:
        self._packed, self._limits = packed, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._line: Connection | None = None
        self._closed = False

    def ask(self, request: Any, limited: bool = True) -> Any:
        """The answer to a request; `limited`: within the seconds of `Limits` for each picture of it, where it is a list
        of several. Raises ChildDied, or the WholebodyError of the child; a defect as RuntimeError."""
        if self._process is None or self._process.poll() is not None:
            self._start_steadily()
        assert self._line is not None
        try:
            self._line.send(request)
        except (OSError, ValueError) as error:
            raise ChildDied(self._end()) from error
        seconds = self._limits.seconds if limited else None
        count = len(request) if isinstance(request, list) else 1
        what = "picture" if count == 1 else f"{count} pictures"
        return self._answer(None if seconds is None else seconds * count, what)

    def close(self) -> None:
        self._closed = True
        self._end(kill=True)

    def _start_steadily(self) -> None:
        """Nobody's picture is to blame for a process that does not come up."""
        for attempt in range(_STARTS):
            try:
                return self._start()
            except ChildDied as error:
                if self._closed or attempt + 1 == _STARTS:
                    raise WholebodyError(f"a worker could not be started: {error}") from error

    def _start(self) -> None:
        if self._closed:
            raise ChildDied("the run was ended")
        self._end(kill=True)
        ours, theirs = socket.socketpair()
        threads = str(self._limits.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads)
        environment["WHOLEBODY_WORKER_PARENT"] = str(os.getpid())
        source = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = source + (os.pathsep + known if known else "")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wholebody.scale.child_process", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._line = Connection(ours.detach())
        try:
            self._line.send_bytes(self._packed)
        except OSError as error:
            raise ChildDied(self._end()) from error
        self._answer(_START_SECONDS, "start")

    def _answer(self, seconds: float | None, what: str) -> Any:
        assert self._line is not None and self._process is not None
        end = None if seconds is None else time.monotonic() + seconds
        while not self._line.poll(_LOOK):
            if self._process.poll() is not None and not self._line.poll(0):
                raise ChildDied(self._end())
            used = memory_of(self._process.pid) if self._limits.memory is not None else 0.0
            if self._limits.memory is not None and used > self._limits.memory:
                self._end(kill=True)
                raise ChildDied(f"its process was ended: it held {used:.1f} GB, of {self._limits.memory:g} allowed")
            if end is not None and time.monotonic() > end:
                self._end(kill=True)
                raise ChildDied(f"its process was ended: no answer within {seconds:g} seconds ({what})")
        try:
            answer = self._line.recv()
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise ChildDied(self._end()) from error
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    def _end(self, kill: bool = False) -> str:
        """Take the process down; why it ended."""
        process, self._process = self._process, None
        line, self._line = self._line, None
        if process is not None:
            if kill:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()
        if line is not None:
            line.close()
        status = None if process is None else process.returncode
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                name = signal.Signals(-status).name
                more = " (as the system does when memory runs out)" if name == "SIGKILL" else ""
                return f"its process crashed: {name}{more}"
        return f"its process ended with status {status}"


def memory_of(process: int) -> float:
    """GB that a process holds in memory; 0 where the system does not say."""
    try:
        with open(f"/proc/{process}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def serve(line: Connection) -> None:
    """What the child does: open the work, then answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends us
    threading.Thread(target=_leave_with, args=(int(os.environ["WHOLEBODY_WORKER_PARENT"]),), daemon=True).start()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("900")  # where memory runs out the system shall end us, not the process that knows what to do then
    try:
        answer = unpack(line.recv_bytes()).open()
        keep_to_own_threads()
        line.send("open")
    except Exception as error:
        line.send(failure(error))
        return
    while True:
        try:
            request = line.recv()
        except EOFError:
            return
        try:
            result = answer(request)
        except Exception as error:
            result = failure(error)
        line.send(result)


def keep_to_own_threads() -> None:
    """As many threads as the environment says, in those imported libraries that do not look there."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(threads if threads > 1 else 0)


def failure(error: Exception) -> Failed:
    if isinstance(error, WholebodyError):
        return Failed(str(error), True)
    import traceback

    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(where.filename)}:{where.lineno}"
    return Failed(f"unexpected {type(error).__name__}: {error} ({place})", False)


def _leave_with(parent: int) -> None:
    """Whoever asks may be killed without a word; then there is nothing left to do."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
