"""What all engines have in common: tasks in, reports out, and who may be tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from wholebody.scale.child import Child, Limits, Work
from wholebody.scale.config import EngineConfig

Done = Callable[[Any, Any], None]
"""Is told of each task that is finished, and what came of it; may raise to end the job."""
Say = Callable[[str], None]
Left = Callable[[], list[Any]]
TRIES = 10
"""Workers or machines that may vanish over one task before the job gives up; spot machines vanish often."""


class Engine(Protocol):
    def __call__(
        self, work: Work, tasks: Sequence[Any], config: EngineConfig, done: Done, say: Say, left: Left
    ) -> None:
        """Do all tasks. `left`: which of them are not finished, as their results say; for engines whose workers cannot
        always tell. Raises WholebodyError where the job cannot be finished."""
        ...


def limits_of(config: EngineConfig) -> Limits:
    return Limits(config.threads, config.worker_memory, config.picture_seconds)


class Worker:
    """What each worker of every engine is: a child process, and this beside it, which survives it."""

    def __init__(self, work: Work, packed: bytes, limits: Limits) -> None:
        self._work, self.child = work, Child(packed, limits)

    def __call__(self, task: Any) -> Any:
        return self._work.do(task, self.child.ask)

    def close(self) -> None:
        self.child.close()
