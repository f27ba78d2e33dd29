"""Changes of a file that a download, a disk, another tool or somebody with bad intent may make."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from typing import Any

_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, float("nan"), float("inf"), 2**70, int("9" * 400), "", "x", "../../x", "\x00", "=1+1",
    "\n\x1b[31m", [], {}, [[]], [None], {"id": [1]}, ["x"] * 50, "9" * 5000,
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to a few changes, inside of the members where it is an archive, of the values where it is JSON."""
    for _ in range(1 + int(rng.expovariate(1.2))):
        way = rng.random()
        if data[:2] == b"PK" and way < 0.6:
            data = _member(data, rng)
        elif data[:1] in (b"{", b"[") and way < 0.6:
            data = _json(data, rng)
        elif way < 0.03 and others:
            other = rng.choice(others)
            data = data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]
        else:
            data = _bytes(data, rng)
    return data[: 1 << 22]


def _bytes(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return bytes(rng.randrange(256) for _ in range(8))
    # Headers are where files say what they are.
    at = rng.randrange(len(data)) if rng.random() < 0.5 else min(int(rng.expovariate(1 / 80)), len(data) - 1)
    way = rng.randrange(8)
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
        other = rng.randrange(len(data))
        size = rng.randint(1, 16)
        return data[:at] + data[other : other + size] + data[at + size :]
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
                    content = _bytes(content, rng)
                    if rng.random() < 0.05:
                        info.filename = _bytes(info.filename.encode(), rng).decode(errors="replace") or "x"
                archive.writestr(info.filename, content, info.compress_type)
        return file.getvalue()
    except Exception:  # no whole archive any more
        return _bytes(data, rng)


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
