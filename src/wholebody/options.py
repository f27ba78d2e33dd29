"""Kinds of options that several commands share: how they are called, read and described on the command line.

A command's options are the fields of its config dataclass, each described by the text below it; `wholebody.cli` makes
the command line of them. A field with a kind from here reads and describes itself the same way in every command.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import Parameter, Token

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

Any_ = TypeVar("Any_")

Flat = Annotated[Any_, Parameter(name="*")]
"""A config whose fields are options of the command itself."""

Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps")]
BatchSize = Annotated["int | None", Parameter(help="people at a time; 4 on a CPU and 32 on a GPU if not given")]
Workers = Annotated["int | None", Parameter(help="processes; one per core if not given")]
Overrides = Annotated[tuple[str, ...], Parameter(name="KEY=VALUE", help="changes to the recipe")]

ALONE = {"--refine": "auto"}
"""Options that may stand without a value, and the value that this means. A value follows `=`, never a space, so that
`--refine photo.jpg` has one meaning."""
VALUES = ("auto", "mediapipe", "movenet")
"""Words that are such a value wherever they stand."""


def positional(name: str) -> Parameter:
    """A field that is given by its place: `name`, in capitals, is what the help calls it."""
    return Parameter(name=name, validator=_not_empty)


def _not_empty(_: Any, value: Any) -> None:
    """A shell's unset variable in quotation marks would mean the folder that one is in."""
    if "" in (value if isinstance(value, tuple | list) else (value,)):
        raise ValueError("it is empty; name a file or folder, `.` for this one.")


def several(what: str) -> Parameter:
    """An option that takes all words up to the next option."""
    return Parameter(name=what, consume_multiple=True)


def comma_separated() -> Parameter:
    """A field of several texts that is given as one word: `a,b,c`."""
    return Parameter(
        converter=_split,
        n_tokens=1,
        show_default=lambda value: ",".join(value),
    )


def _split(kind: Any, tokens: Sequence[Token]) -> tuple[str, ...]:
    parts = (part.strip() for part in tokens[-1].value.split(","))  # of an option given twice, the last counts
    return tuple(part for part in parts if part)


class HelpFormatter:
    """Plain help: what is called how, what it takes, what it does; the same on every terminal, and in a file."""

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        line = str(getattr(usage, "plain", usage)).removeprefix("Usage: ").replace("[ARGS]", "[OPTIONS]")
        console.print(f"Usage: {line.strip()}\n", highlight=False, markup=False, soft_wrap=True)

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        if not panel.entries:
            return
        width = min(console.width, 110)
        lines = [f"{panel.title}:"]
        for entry in panel.entries:
            name, text = _called(entry), _described(entry, console)
            if len(name) > 22:
                lines.append(f"  {name}")
                name = ""
            lines += textwrap.wrap(text, width, initial_indent=f"  {name:<24}", subsequent_indent=" " * 26,
                                   break_long_words=False, break_on_hyphens=False) or [f"  {name}"]  # fmt: skip
        console.print("\n".join(lines), "", sep="\n", highlight=False, markup=False, soft_wrap=True, emoji=False)


def _called(entry: HelpEntry) -> str:
    names = [name for name in entry.positive_names if not name.removeprefix("--").isupper()]
    options = [name for name in names if name.startswith("-")]
    if not options:  # a command, or given by its place
        return ", ".join((*(names or entry.positive_names[:1]), *entry.positive_shorts))
    kind = str(entry.type)
    takes = (
        "" if entry.type in (bool, None) or entry.choices
        else " N" if "int" in kind or "float" in kind
        else " PATH" if entry.type is Path or "Path" in kind
        else " TEXT"
    )  # fmt: skip
    return ", ".join((*options, *entry.positive_shorts)) + takes


def _described(entry: HelpEntry, console: Console) -> str:
    wide = console.options.update(width=10_000)  # lines are broken by the caller, who knows where they start
    text = " ".join("".join(part.text for part in console.render(entry.description or "", wide)).split())
    notes = [f"one of {', '.join(entry.choices)}"] if entry.choices else []
    notes += ["required"] if entry.required else []
    notes += [f"default {entry.default}"] if entry.default not in (None, "()", "False", "") else []
    return f"{text} ({'; '.join(notes)})".strip() if notes else text
