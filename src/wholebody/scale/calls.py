"""Other jobs on the same engines (`synth`, `annotate`, `data`): calls of one function, each whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wholebody.errors import WholebodyError
from wholebody.files.text import brief
from wholebody.scale.child import ChildDied
from wholebody.scale.config import EngineConfig
from wholebody.scale.engines import engine
from wholebody.scale.worker import Say


@dataclass(frozen=True)
class Calls:
    """A work (`child.Work`) whose tasks are arguments of a function that can be imported."""

    function: Callable[[Any], Any]

    def open(self) -> Callable[[Any], Any]:
        """See `child.Work`."""
        return self.function

    def do(self, task: Any, ask: Callable[[Any], Any]) -> Any:
        """A crash may be the machine's fault once."""
        try:
            return ask(task)
        except ChildDied:
            try:
                return ask(task)
            except ChildDied as error:
                raise WholebodyError(f"{self.function.__name__} of {brief(task)}: {error}, twice") from error


def run_calls(
    function: Callable[[Any], Any], tasks: Sequence[Any], config: EngineConfig, say: Say,
    is_finished: Callable[[Any], bool], done: Callable[[Any], object] = lambda result: None,
) -> None:  # fmt: skip
    """Call `function(task)` for all tasks by the engine of `config`; `done` is told what each gave.

    is_finished: whether the results of a task are there, for engines whose workers may vanish after they wrote them.
    """
    assert config.engine is not None

    def told(task: Any, result: Any) -> None:
        done(result)

    if tasks:
        engine(config.engine)(
            Calls(function), list(tasks), _without_limit(config), told, say,
            lambda: [task for task in tasks if not is_finished(task)],
        )  # fmt: skip


def _without_limit(config: EngineConfig) -> EngineConfig:
    """A task here is more than a picture: no time says that it hangs."""
    from dataclasses import replace

    return replace(config, picture_seconds=float("inf"))
