"""Walk over a pickle without running it, and refuse what would take the interpreter down.

Python's unpickler trusts three things that a stranger's file may lie about: the numbers under which it remembers
objects (it makes a table that long: nine bytes can ask for eight gigabytes), the lengths of texts and bytes, and how
deep tuples are nested (hashing a tuple of tuples goes down by the machine's stack, which ends).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

MOST_NESTED = 200
"""Tuples within tuples; what people save has a handful."""

# Bytes that follow an opcode: a number, or how its length is given.
_FIXED = {
    b"K": 1, b"M": 2, b"J": 4, b"G": 8, b"\x80": 1, b"\x82": 1, b"\x83": 2, b"\x84": 4, b"\x95": 8, b"q": 1, b"h": 1,
    b"j": 4, b"r": 4,
}  # fmt: skip
_COUNTED = {b"U": 1, b"C": 1, b"\x8c": 1, b"\x8a": 1, b"T": 4, b"B": 4, b"X": 4, b"\x8b": 4, b"\x8d": 8, b"\x8e": 8,
            b"\x96": 8}  # fmt: skip
_LINES = {b"S": 1, b"I": 1, b"L": 1, b"F": 1, b"V": 1, b"g": 1, b"p": 1, b"P": 1, b"c": 2, b"i": 2}
# Puts one plain thing on the stack.
_PUSHED = b"KMJGUCTBXSILFV\x8a\x8b\x8c\x8d\x8e\x96N\x88\x89]})\x8fcP\x97\x82\x83\x84"
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_JOINED = {b"a": 1, b"s": 2, b"b": 1}  # takes so many off and puts them into what is below
_CALLS = {b"R": 2, b"\x81": 2, b"\x92": 3, b"\x93": 2, b"Q": 1}
_ONE_BYTE = tuple(bytes([code]) for code in range(256))


def check_pickle(data: bytes | memoryview, start: int = 0) -> int:
    """Where the pickle that begins at `start` ends. Raises pickle.UnpicklingError for one that must not be loaded.

    `data`: the whole file, so that what it says of itself can be held against its size.
    """
    view = memoryview(data)
    size, at = len(view), start
    depths: list[int] = []  # for each thing on the stack, how deep tuples are nested in it
    marks: list[int] = []
    memo: dict[int, int] = {}
    while True:
        if at >= size:
            raise pickle.UnpicklingError("it ends in the middle")
        code = _ONE_BYTE[view[at]]
        begin = at + 1
        at = begin
        if code in _FIXED:
            at += _FIXED[code]
        elif code in _COUNTED:
            at += _COUNTED[code]
            at += int.from_bytes(view[begin:at], "little")
        elif code in _LINES:
            for _ in range(_LINES[code]):
                at = _line_end(view, at)
        if at > size:
            raise pickle.UnpicklingError("it ends in the middle")
        if code == b".":
            return at
        try:
            if code in _PUSHED:
                depths.append(0)
            elif code in b"qr":
                _remember(memo, int.from_bytes(view[begin:at], "little"), depths[-1], size)
            elif code == b"p":
                _remember(memo, int(bytes(view[begin : at - 1])), depths[-1], size)
            elif code == b"\x94":
                _remember(memo, len(memo), depths[-1], size)
            elif code in b"hj":
                depths.append(memo.get(int.from_bytes(view[begin:at], "little"), 0))
            elif code == b"g":
                depths.append(memo.get(int(bytes(view[begin : at - 1])), 0))
            elif code in _TUPLES:
                _tuple(depths, len(depths) - _TUPLES[code])
            elif code == b"t":
                _tuple(depths, marks.pop())
            elif code in _JOINED:
                _join(depths, len(depths) - _JOINED[code])
            elif code in b"eu\x90":
                _join(depths, marks.pop())
            elif code in _CALLS:
                _gather(depths, len(depths) - _CALLS[code])
            elif code in b"ld\x91oi":
                _gather(depths, marks.pop())
            elif code == b"(":
                marks.append(len(depths))
            elif code == b"0":
                # At a mark, this takes the mark away.
                if marks and marks[-1] == len(depths):
                    marks.pop()
                else:
                    depths.pop()
            elif code == b"1":
                del depths[marks.pop() :]
            elif code == b"2":
                depths.append(depths[-1])
            elif code not in b"\x80\x95\x98":
                raise pickle.UnpicklingError(f"it has the unknown operation {code!r}")
        except (IndexError, ValueError) as error:
            raise pickle.UnpicklingError("its operations do not fit together") from error


def _line_end(view: memoryview, at: int) -> int:
    step = 256
    while at < len(view):
        found = bytes(view[at : at + step]).find(b"\n")
        if found >= 0:
            return at + found + 1
        at, step = at + step, step * 2
    raise pickle.UnpicklingError("it ends in the middle")


def _remember(memo: dict[int, int], number: int, depth: int, size: int) -> None:
    # A pickle of N bytes cannot have remembered more than N things.
    if not 0 <= number <= size:
        raise pickle.UnpicklingError(f"it remembers an object as number {number}, in a file of {size} bytes")
    memo[number] = depth


def _deepest(depths: Sequence[int], start: int) -> int:
    if start < 0 or start > len(depths):
        raise IndexError
    return max(depths[start:], default=0)


def _tuple(depths: list[int], start: int) -> None:
    depth = _deepest(depths, start) + 1
    if depth > MOST_NESTED:
        raise pickle.UnpicklingError(f"it nests more than {MOST_NESTED} tuples")
    depths[start:] = [depth]


def _gather(depths: list[int], start: int) -> None:
    """What a call or list is made of: its arguments may be in it, at their depth."""
    depths[start:] = [_deepest(depths, start)]


def _join(depths: list[int], start: int) -> None:
    depth = _deepest(depths, start)
    del depths[start:]
    depths[-1] = max(depths[-1], depth)
