"""WebDataset tars: the pictures in them, by place; nothing is unpacked."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wholebody.errors import BadInput
from wholebody.files.text import brief
from wholebody.scale.item import Box, box_of, kind_of


@dataclass(frozen=True)
class Member:
    """A picture in a tar of this machine."""

    name: str
    offset: int
    size: int
    boxes: tuple[Box, ...] | None = None
    problem: str = ""


def read_tar(path: Path) -> Iterator[Member]:
    """The pictures of a WebDataset tar, in its order; nothing is unpacked. `KEY.json` beside `KEY.jpg` may hold
    {"boxes": [[x0, y0, x1, y1], ...]}. A tar that is cut off gives what it holds and then raises BadInput."""
    import tarfile

    seen: set[int] = set()
    group: list[Member] = []
    boxes: tuple[Box, ...] | None = None
    problem, key = "", None

    def finished() -> Iterator[Member]:
        for member in group:
            yield Member(member.name, member.offset, member.size, boxes, member.problem or problem)

    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = 0
            for entry in tar:
                end = entry.offset_data + -(-entry.size // 512) * 512
                tar.members = []  # type: ignore[attr-defined]  # else all headers stay in memory
                if not entry.isreg() or entry.issparse():
                    continue
                stem, _, suffix = re.sub(r"^\./", "", entry.name).rpartition("/")[2].partition(".")
                this = (entry.name.rpartition("/")[0], stem)
                if this != key:
                    yield from finished()
                    key, group, boxes, problem = this, [], None, ""
                if suffix == "json" and entry.size < 1 << 24:
                    content = tar.extractfile(entry)
                    assert content is not None
                    try:
                        boxes = _boxes_of_json(content.read())
                    except ValueError as error:
                        problem = f"{entry.name}: {error}"
                elif kind_of(entry.name) == "picture":
                    twice = hash(entry.name) in seen
                    seen.add(hash(entry.name))
                    why_not = "another member of the tar has the same name" if twice else ""
                    group.append(Member(entry.name, entry.offset_data, entry.size, None, why_not))
            file.seek(end)
            if len(file.read(512)) < 512:  # a tar ends with two empty blocks
                raise EOFError("its end is missing")
            yield from finished()
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        yield from finished()
        raise BadInput(f"{path.name}: is no tar, or is cut off ({error}). Copy or make it again.") from error


def unpacked(path: Path, folder: Path) -> Path:
    """The tar itself, or of a .tar.gz what it holds, in `folder`; of one that is cut off as much as there is."""
    if not path.name.lower().endswith("gz"):
        return path
    target = folder / "unpacked.tar"
    with gzip.open(path, "rb") as packed, open(target, "wb") as file:
        while True:
            try:
                part = packed.read(1 << 20)
            except (EOFError, OSError, zlib.error):  # that its end is missing is noticed when it is read
                return target
            if not part:
                return target
            file.write(part)


def _boxes_of_json(content: bytes) -> tuple[Box, ...] | None:
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        return None  # what else people keep beside pictures is theirs
    if not isinstance(table, dict) or table.get("boxes") is None:
        return None
    if not isinstance(table["boxes"], list):
        raise ValueError(f"its boxes are {brief(table['boxes'])}, not a list of [x0, y0, x1, y1]")
    return tuple(box_of(one) for one in table["boxes"])
