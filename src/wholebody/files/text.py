"""Text for people to read: names as a terminal may show them, and how many there are of something."""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Mapping

_PLURALS = {"person": "people"}


def shown(text: str | os.PathLike[str]) -> str:
    """A name or message that nothing in it can disturb: control characters and bytes that are no text are written as
    escapes (a line break in a file's name as `\\n`, its byte 0xff as `\\xff`)."""
    return "".join(_escaped(letter) for letter in str(text))


def shown_lines(text: str) -> str:
    """As `shown`, but lines stay lines."""
    return "\n".join(shown(line) for line in str(text).split("\n"))


def brief(value: object, most: int = 80) -> str:
    """A value from a stranger's file as a message shows it: on one line, of at most `most` characters."""
    try:
        text = shown(reprlib.repr(value) if isinstance(value, list | tuple | dict | set | int) else repr(value))
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def offer(word: str, known: Iterable[str], others: Mapping[str, str] | None = None) -> str:
    """" (did you mean NAME?)": of the known names the one spelt most alike, or what `others` says that other programs
    call so; nothing if there is none."""
    meant = {other.casefold(): name for other, name in (others or {}).items()}
    meant |= {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), meant, n=1)
    return f" (did you mean {meant[near[0]]}?)" if near else ""


def counted(number: int, what: str) -> str:
    """`1 picture`, `2 pictures`, `1 person`, `1,200 people`; `what` in the singular."""
    return f"{number:,} {what if number == 1 else _PLURALS.get(what, f'{what}s')}"


def _escaped(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file's name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if letter.isprintable() or letter == "\t" or not (_disturbs(code)):
        return letter
    return letter.encode("unicode_escape", "backslashreplace").decode("ascii")


def _disturbs(code: int) -> bool:
    """Whether a character steers the terminal or the order of reading, or is half of one, instead of being shown."""
    return code < 0x20 or 0x7F <= code < 0xA0 or code in _STEERING or 0xD800 <= code <= 0xDFFF


_STEERING = {0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
