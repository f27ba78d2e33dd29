"""Changes of a file that a download, a disk, another tool or somebody with bad intent may make."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
_DIGITS = re.compile(rb"\d{1,20}")
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, float("nan"), float("inf"), 2**70, int("9" * 400), "", "x", "../../x", "\x00", "=1+1",
    "\n\x1b[31m", "\ud800", [], {}, [[]], [None], {"id": [1]}, ["x"] * 50, "9" * 5000,
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to a few changes, inside of the members where it is an archive, of the values where it is JSON."""
    for _ in range(1 + int(rng.expovariate(1.2))):
        if data[:2] != b"PK" and rng.random() < 0.03 and others:
            other = rng.choice(others)
            data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
        else:
            data = _change(data, rng)
    return data[: 1 << 22]


def _change(data: bytes, rng: random.Random, within: float = 0.6) -> bytes:
    """One change, inside of a part (with that probability) where the data has parts."""
    way = rng.random()
    if data[:2] == b"PK" and way < (0.97 if bundled(data) else within):
        return _member(data, rng)
    if data[:1] in (b"{", b"[") and way < within:
        return _json(data, rng)
    if data[:6] == b"\x93NUMPY" and way < within / 2:
        return _header(data, rng)
    return _bytes(data, rng)


def _bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return bytes(rng.randrange(256) for _ in range(8))
    # Headers are where files say what they are.
    at = rng.randrange(len(data)) if rng.random() < 0.5 else min(int(rng.expovariate(1 / 80)), len(data) - 1)
    way = rng.randrange(9)
    if way == 8 and (written := _DIGITS.search(data, max(0, at - 20))):
        other = rng.choice((b"0", b"-1", b"1e999", b"nan", b"7" * rng.randint(1, 25), b"9" * 5000, b"0x7", b"1.5"))
        return data[: written.start()] + other + data[written.end() :]
    if way == 0:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if way == 1:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if way == 2:
        return data[:at]
    if way == 3:
        return data[:at] + data[at + 1 + int(rng.expovariate(0.1)) :]
    if way == 4:
        part = data[at : at + 1 + int(rng.expovariate(0.05))]
        return data[:at] + part * rng.choice((2, 3, 50)) + data[at:]
    if way == 5:
        kind = rng.choice("bhiqBHIQfd")
        number = rng.choice(_NUMBERS)
        size = struct.calcsize(kind)
        whole = (number % 2 ** (8 * size)).to_bytes(size, "little")
        packed = struct.pack("<" + kind, number) if kind in "fd" else whole
        return data[:at] + packed + data[at + size :]
    if way == 6:
        source = rng.randrange(len(data))
        size = rng.randint(1, 16)
        return data[:at] + data[source : source + size] + data[at + size :]
    mark = bytes([rng.choice(b"(.0]}tRbac\x85\x81\x93\x94r\x8e[{\"'=-")])  # of pickles and JSON
    return data[:at] + mark * rng.choice((1, 2, 300)) + data[at:]


def _member(data: bytes, rng: random.Random) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
        chosen = rng.randrange(len(members))
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for number, (info, content) in enumerate(members):
                if number == chosen:
                    if rng.random() < 0.03:
                        continue  # a file is missing
                    content = _change(content, rng)
                    if rng.random() < 0.05 and not bundled(data):
                        info.filename = _bytes(info.filename.encode(), rng).decode(errors="replace") or "x"
                archive.writestr(zipfile.ZipInfo(info.filename), content, info.compress_type)
        return file.getvalue()
    except Exception:  # no whole archive any more
        return _bytes(data, rng)


_SHAPES = ("()", "(0,)", "(1,)", "(-1,)", "(3,)", "(1, 3)", "(4, 4)", "(10**9,)", "(0, 5)", "(2, 0, 3)", "(999999999,)")
_TYPES = ("<f8", "<f4", "|b1", "<i8", "<U4", "|O", "<M8[s]", "<c16", "|S0", "|V8", ">f8", "<f2")


def _header(data: bytes, rng: random.Random) -> bytes:
    """An array of another shape or type, as a tool of another version may write; as long as before, or as it says."""
    import numpy as np

    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception:  # no whole array any more, or one of objects
        return _bytes(data, rng)
    way = rng.randrange(5)
    if way < 2:
        text = repr(array.shape) if way else f"'{array.dtype.str}'"
        other = rng.choice(_SHAPES) if way else f"'{rng.choice(_TYPES)}'"
        begin = data.find(text.encode())
        if begin < 0:
            return _bytes(data, rng)
        length = len(text)
        end = data.find(b"\n", begin)
        line = (other.encode() + data[begin + length : end]).ljust(end - begin)[: end - begin]
        return data[:begin] + line + data[end:]
    file = io.BytesIO()
    if way == 2 and array.ndim:
        array = rng.choice((array[:0], array[:1], np.concatenate([array, array]), array[..., :1], array[None]))
    elif way == 3 and array.dtype.kind in "fiu":
        array = array.astype(rng.choice(("f2", "i1", "u8", "U3", "c8", "?")))
    elif array.dtype.kind == "f" and array.size:
        array = np.array(array)
        array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -np.inf, 1e300, 1e-300, -1, 0))
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def bundle(files: dict[str, bytes]) -> bytes:
    """Files that are read together as one, for `mutate`; `unbundle` writes them again."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_MARK), b"")  # without the time, so that bytes are the same each time
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return made.getvalue()


def bundled(data: bytes) -> bool:
    return data[30 : 30 + len(_MARK)] == _MARK.encode()


def unbundle(data: bytes, folder: Path) -> bool:
    """Write a bundle's files into a folder; False: it is no bundle any more."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.namelist()[:1] != [_MARK]:
                return False
            for name in archive.namelist()[1:]:
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
    except Exception:
        return False
    return True


_MARK = "bundle"


def _json(data: bytes, rng: random.Random) -> bytes:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return _bytes(data, rng)
    place: Any = content
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            if rng.random() < 0.2:
                del place[key]
            else:
                place[key] = rng.choice(_VALUES)
            break
        place = place[key]
    return json.dumps(content).encode()
