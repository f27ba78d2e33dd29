"""What a job works on: a picture, film or tar, and the boxes of people in it as manifests write them."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from wholebody.files.image import is_picture_name
from wholebody.files.text import brief, shown
from wholebody.files.video import FILM_SUFFIXES

TEXT, TABLE, PARQUET = (".txt", ".list", ".lst"), (".csv", ".tsv"), (".parquet", ".pq")
"""How manifests are called; the first two also with .gz."""
TARS = (".tar", ".tar.gz", ".tgz")
IN_TAR = "::"
"""Between a tar and a member of it, in the source of a picture."""

Box = tuple[float, ...]
"""x0, y0, x1, y1 in pixels of the picture, and where it is known a score."""


@dataclass(frozen=True)
class Item:
    """A picture, film or tar to work on."""

    source: str
    """Absolute path or address; a member of a tar is `TAR::MEMBER`."""
    kind: str = "picture"
    """picture, film or tar"""
    boxes: tuple[Box, ...] | None = None
    """Of its people, as the manifest gives them; None: it says nothing of them."""
    problem: str = ""
    """Why it cannot be worked on, where that is known already."""


def kind_of(name: str) -> str:
    """What a name promises: "picture", "film", "tar", "manifest" or ""."""
    inner = name.rpartition(IN_TAR)[2].lower().removesuffix("/")
    if IN_TAR not in name and inner.endswith(TARS):
        return "tar"
    suffix = os.path.splitext(inner)[1]
    return _kind_of_suffix(os.path.splitext(inner.removesuffix(".gz"))[1] if suffix == ".gz" else suffix)


@lru_cache(maxsize=1024)
def _kind_of_suffix(suffix: str) -> str:
    """pathlib would keep a part of every name that passes through."""
    if is_picture_name(Path("name" + suffix)):  # a .gif as well: of an animation the first frame
        return "picture"
    if suffix in FILM_SUFFIXES:
        return "film"
    return "manifest" if suffix in (*TEXT, *TABLE, *PARQUET) else ""


def together(a: Item, b: Item) -> Item:
    """Two lines of one picture: its boxes are those of both, each once."""
    if a.boxes is None or b.boxes is None:
        boxes = a.boxes if b.boxes is None else b.boxes
    else:
        boxes = (*a.boxes, *(box for box in b.boxes if box not in a.boxes))
    return Item(a.source, a.kind, boxes, a.problem or b.problem)


def named(path: str, kind: str, boxes: tuple[Box, ...] | None = None, problem: str = "") -> Item:
    """An item by its path; a name that is no text in UTF-8 cannot stand in a table, and is named as a problem."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return Item(shown(path), kind, boxes, "its name is no UTF-8 text; rename it")
    return Item(path, kind, boxes, problem)


# --- boxes ---


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or (
        isinstance(value, float) and math.isnan(value)
    )  # fmt: skip


def plain(value: Any, what: str) -> Any:
    """Of a cell: a list, from JSON where it is text; None where it is empty."""
    if is_empty(value):
        return None
    if isinstance(value, str):
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its {what} {brief(value)} are no JSON list") from error
    return value


def box_of(value: Any) -> Box:
    numbers = numbers_of(value, 4, 5)
    if numbers[2] <= numbers[0] or numbers[3] <= numbers[1]:
        raise ValueError(f"its box {list(numbers)} is empty or inverted: x0, y0, x1, y1 are expected")
    return numbers


def numbers_of(value: Any, *lengths: int) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or len(value) not in lengths:
        raise ValueError(f"its box {brief(value)} is not {' or '.join(map(str, lengths))} numbers")
    return tuple(number_of(one, "box") for one in value)


def number_of(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"its {what} holds {brief(value)}, which is no number") from None
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"its {what} holds {brief(value)}, which is no finite number")
    return number
