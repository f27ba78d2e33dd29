"""JSON files larger than memory: one element of a large object or array at a time, and errors that a user can act upon.

The annotation files of the sets reach gigabytes; as Python objects they would take ten times that.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wholebody.errors import BadInput
from wholebody.files.reading import open_file, read_bytes
from wholebody.files.text import brief

_CHUNK = 1 << 20


def read_json(path: str | Path) -> Any:
    """The whole content of a JSON file; BadInput says whether it is missing, cut short or not JSON."""
    return parse_json(read_bytes(path), path)


def parse_json(data: bytes, name: str | Path) -> Any:
    """What the bytes of a JSON file say. UTF-8 with or without a byte-order mark, UTF-16 and UTF-32 are understood.

    Raises BadInput, with `name`, for what is no JSON, nests deeper than Python reads, has a key twice, or a number of
    more than `MOST_DIGITS` digits.
    """
    try:
        text = data.decode(json.detect_encoding(data))
        return json.loads(text, parse_int=_whole_number, object_pairs_hook=_object_of)
    except (ValueError, RecursionError, MemoryError) as error:
        raise _damaged(name, _why(error)) from error


MOST_DIGITS = 40
"""Of a whole number: enough for any id; more can be put into no other number, and takes long to read."""


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for k, key in enumerate(keys) if key in keys[:k])
        raise ValueError(f"it has the key {twice[:80]!r} twice in one object")
    return table


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested without end"
    return str(error)[:200] or type(error).__name__


def top_level(path: Path) -> Iterator[tuple[str, _Value]]:
    """The keys of a file's outermost object, in its order, each with its value still to be read: `.whole()`,
    `.elements()` of an array, `.items()` of an object. What is not read is skipped."""
    with _Scanner(path) as scanner:
        yield from _object(scanner)


def items(path: Path) -> Iterator[tuple[str, Any]]:
    """The entries of a file's outermost object, one at a time."""
    for key, value in top_level(path):
        yield key, value.whole()


class _Value:
    """A value that the scanner stands before."""

    def __init__(self, scanner: _Scanner, where: str):
        self._scanner, self._where, self.read = scanner, where, False

    def whole(self) -> Any:
        self.read = True
        return self._scanner.value()

    def elements(self) -> Iterator[Any]:
        """The elements of an array."""
        self.read = True
        scanner = self._scanner
        scanner.expect("[", self._where)
        if scanner.peek() == "]":
            scanner.expect("]", self._where)
            return
        while True:
            yield scanner.value()
            if scanner.expect(",]", self._where) == "]":
                return

    def items(self) -> Iterator[tuple[str, Any]]:
        """The entries of an object."""
        self.read = True
        for key, value in _object(self._scanner):
            yield key, value.whole()

    def skip(self) -> None:
        # Element by element where it may be large; any other value at once.
        if self._scanner.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.whole()


def _object(scanner: _Scanner) -> Iterator[tuple[str, _Value]]:
    scanner.expect("{", "an object")
    if scanner.peek() == "}":
        scanner.expect("}", "an object")
        return
    seen: set[str] = set()
    while True:
        key = scanner.value()
        if not isinstance(key, str):
            raise _damaged(scanner.path, f"a key is {brief(key)}")
        if key in seen:
            raise _damaged(scanner.path, f"it has the key {brief(key)} twice in one object")
        seen.add(key)
        scanner.expect(":", repr(key))
        value = _Value(scanner, repr(key))
        yield key, value
        if not value.read:
            value.skip()
        if scanner.expect(",}", repr(key)) == "}":
            return


class _Scanner:
    """Walks over a file's text, holding as much of it as one value takes."""

    def __init__(self, path: Path):
        self.path = path
        self._text, self._at, self._chunk = "", 0, _CHUNK
        self._decode = json.JSONDecoder(parse_int=_whole_number).raw_decode

    def __enter__(self) -> _Scanner:
        file = open_file(self.path)
        encoding = json.detect_encoding(file.read(4))
        file.seek(0)
        self._file = io.TextIOWrapper(file, encoding)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _more(self) -> bool:
        try:
            new = self._file.read(self._chunk)
        except (OSError, ValueError) as error:
            raise _damaged(self.path, _why(error)) from error
        self._text, self._at = self._text[self._at :] + new, 0
        return bool(new)

    def peek(self) -> str:
        """The next character that is not white space, without taking it."""
        while True:
            while self._at < len(self._text):
                if not self._text[self._at].isspace():
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                raise _damaged(self.path, "it ends in the middle")

    def expect(self, characters: str, where: str) -> str:
        found = self.peek()
        if found not in characters:
            wanted = " or ".join(map(repr, characters))
            raise _damaged(self.path, f"{wanted} should come after or at {where}, not {found!r}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The value that comes next."""
        self.peek()
        chunk = self._chunk
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                complete = end < len(self._text)  # a number may go on
            except json.JSONDecodeError as error:
                near_end = error.pos > len(self._text) - 16 or error.msg.startswith("Unterminated")
                if not near_end:
                    raise _damaged(self.path, error.msg) from error
                complete = False
            except (RecursionError, ValueError, MemoryError) as error:
                raise _damaged(self.path, _why(error)) from error
            if complete:
                self._at, self._chunk = end, chunk
                return value
            self._chunk *= 2  # so that a large value is not tried over and over
            if not self._more():
                raise _damaged(self.path, "it ends in the middle")


def _damaged(path: str | Path, why: str) -> BadInput:
    return BadInput(f"{path} is not a whole JSON file ({why}): fetch it again, the download may have stopped early")
