"""Manifests: text, CSV or Parquet with a column of paths and, where they are known, boxes. Read as a stream."""

from __future__ import annotations

import csv
import gzip
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from wholebody.errors import BadInput
from wholebody.files.storage import is_address, open_any
from wholebody.files.text import brief, shown
from wholebody.scale.item import (
    IN_TAR,
    PARQUET,
    TABLE,
    Box,
    Item,
    box_of,
    is_empty,
    kind_of,
    named,
    number_of,
    numbers_of,
    plain,
    together,
)

PATH_COLUMNS = (
    "path", "source", "image_path", "file", "file_name", "filename", "image", "url", "uri", "img_path", "video", "film",
)  # fmt: skip
"""What the column with the paths may be called, the first of these that is there."""
_CORNERS = (("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"))
_BATCH = 4096


def read_manifest(name: str, column: str | None = None, root: str | None = None) -> Iterator[Item]:
    """The lines of a manifest as items: text (a path a line), CSV or TSV with a header, or Parquet.

    Paths that are relative start from `root`, else from the manifest's folder. Boxes, where there are any, stand in a
    column `boxes` (a list of [x0, y0, x1, y1], as JSON in a CSV), `box` (one such), `bbox` (one [x, y, width, height],
    as in COCO), or in four columns x0, y0, x1, y1; lines that follow each other with one path are one picture.
    Raises BadInput for a manifest that cannot be read or has no column of paths.
    """
    start = root if root is not None else _folder_of(name)
    bare = name.lower().removesuffix(".gz")
    if bare.endswith(PARQUET):
        lines = _parquet_lines(name, column)
    elif bare.endswith(TABLE):
        lines = _table_lines(name, column)
    else:
        if column is not None:
            raise BadInput(f"{shown(name)}: --column {column}: a text manifest has no columns, only paths.")
        lines = _text_lines(name)
    before: Item | None = None
    for item in (_item(path, boxes, problem, start) for path, boxes, problem in lines):
        if before is not None and item.source == before.source and not item.problem and not before.problem:
            before = together(before, item)
            continue
        if before is not None:
            yield before
        before = item
    if before is not None:
        yield before


Line = tuple[str, "tuple[Box, ...] | None", str]
"""Path, boxes, and what is wrong with the line."""


def _item(path: str, boxes: tuple[Box, ...] | None, problem: str, start: str) -> Item:
    source = path
    if not is_address(path):
        outer, mark, member = path.partition(IN_TAR)
        if not is_address(start):
            source = os.path.normpath(os.path.join(os.path.abspath(start), outer)) + mark + member
        elif not outer.startswith("/"):
            source = f"{start.rstrip('/')}/{outer}{mark}{member}"
    kind = kind_of(source)
    if kind in ("", "manifest") and not problem:
        kind, problem = "picture", "is no picture, film or tar by its name"
    return named(source, kind or "picture", boxes, problem)


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0] if is_address(name) else os.path.dirname(os.path.abspath(name))


def _opened(name: str, file: IO[bytes]) -> IO[bytes]:
    return gzip.open(file, "rb") if name.lower().endswith(".gz") else file  # type: ignore[return-value]


def _text_lines(name: str) -> Iterator[Line]:
    with open_any(name) as raw:
        try:
            for number, line in enumerate(_opened(name, raw)):
                line = line.rstrip(b"\r\n")
                if number == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                    if b"\0" in line:
                        raise BadInput(f"{shown(name)}: is no text: a manifest has a path on each line.")
                if line.strip():
                    yield os.fsdecode(line), None, ""
        except (OSError, EOFError) as error:
            raise BadInput(f"{shown(name)}: cannot be read to its end ({error}).") from error


def _table_lines(name: str, column: str | None) -> Iterator[Line]:
    with open_any(name) as raw:
        text = io.TextIOWrapper(_opened(name, raw), "utf-8-sig", "surrogateescape", newline="")
        csv.field_size_limit(1 << 24)
        rows = csv.reader(text, dialect="excel-tab" if ".tsv" in name.lower() else "excel")
        try:
            header = next(rows, None)
            if header is None:
                raise BadInput(f"{shown(name)}: is empty.")
            read = _columns(name, [title.strip() for title in header], column)
            for number, row in enumerate(rows, 2):
                if not any(row):
                    continue
                if len(row) != len(header):
                    path = row[read.path] if read.path < len(row) else ""
                    problem = f"line {number} has {len(row)} fields, the header {len(header)}"
                    yield path or f"line {number}", None, problem
                    continue
                yield read(row, f"line {number}")
        except (csv.Error, OSError, EOFError) as error:
            raise BadInput(f"{shown(name)}: cannot be read ({error}).") from error


def _parquet_lines(name: str, column: str | None) -> Iterator[Line]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_any(name) as file:
        try:
            table = pq.ParquetFile(file)
            titles = table.schema_arrow.names
            read = _columns(name, titles, column)
            wanted = sorted(read.used)
            number = 0
            for batch in table.iter_batches(_BATCH, columns=[titles[k] for k in wanted]):
                columns: list[Any] = [None] * len(titles)
                for k in wanted:
                    columns[k] = batch.column(titles[k]).to_pylist()
                for row in range(batch.num_rows):
                    number += 1
                    yield read([None if values is None else values[row] for values in columns], f"row {number}")
        except (pa.ArrowException, OSError, KeyError) as error:
            raise BadInput(f"{shown(name)}: is no Parquet file that can be read ({str(error)[:200]}).") from error


@dataclass(frozen=True)
class _Read:
    """Where the path and boxes of a row are."""

    path: int
    boxes: int | None = None
    box: int | None = None
    bbox: int | None = None
    corners: tuple[int, ...] = ()
    score: int | None = None

    @property
    def used(self) -> set[int]:
        single = {k for k in (self.path, self.boxes, self.box, self.bbox, self.score) if k is not None}
        return single | set(self.corners)

    def __call__(self, row: Sequence[Any], where: str) -> Line:
        path = row[self.path]
        if not isinstance(path, str) or not path.strip():
            return where, None, f"{where} has no path ({brief(path)})"
        if "\0" in path:
            return path.replace("\0", "\\0"), None, f"{where}: its path holds a zero byte"
        try:
            return path, self._boxes(row), ""
        except ValueError as error:
            return path, None, f"{where}: {error}"

    def _boxes(self, row: Sequence[Any]) -> tuple[Box, ...] | None:
        score = () if self.score is None or is_empty(row[self.score]) else (number_of(row[self.score], "score"),)
        if self.boxes is not None:
            value = plain(row[self.boxes], "boxes")
            if value is None:
                return None
            if not isinstance(value, list):
                raise ValueError(f"its boxes are {brief(value)}, not a list of [x0, y0, x1, y1]")
            if value and not isinstance(value[0], list):
                value = [value]
            return tuple(box_of(one) for one in value)
        if self.box is not None:
            value = plain(row[self.box], "box")
            return None if value is None else ((*box_of(value), *score),)
        if self.bbox is not None:
            value = plain(row[self.bbox], "bbox")
            if value is None:
                return None
            x, y, width, height = numbers_of(value, 4)
            return ((*box_of([x, y, x + width, y + height]), *score),)
        if self.corners:
            values = [row[k] for k in self.corners]
            if all(is_empty(value) for value in values):
                return None
            return ((*box_of([number_of(value, "box") for value in values]), *score),)
        return None


def _columns(name: str, titles: Sequence[str], column: str | None) -> _Read:
    known = {title.lower(): k for k, title in reversed(list(enumerate(titles)))}
    there = ", ".join(map(shown, titles[:20]))
    if column is not None:
        if column.lower() not in known:
            raise BadInput(f"{shown(name)}: has no column {column!r}; its columns are: {there}.")
        path = known[column.lower()]
    else:
        found = [title for title in PATH_COLUMNS if title in known]
        if not found:
            raise BadInput(
                f"{shown(name)}: none of its columns ({there}) is called as one with paths is "
                f"({', '.join(PATH_COLUMNS)}). Name it by --column."
            )
        path = known[found[0]]
    corners = next((tuple(known[one] for one in names) for names in _CORNERS if all(one in known for one in names)), ())
    get = known.get
    return _Read(path, get("boxes"), get("box"), get("bbox"), corners, get("score"))
