"""One shard of a job over pictures: asked of the child picture by picture, written whole or not at all.

A shard's files are `people/`, `pictures/` and, where some failed, `dead/`, each `NAME-000012.parquet`; what comes of
films in `motions/` and `films/`; some overlays in `overlays/`. Its marker, `done/000012.json`, is written last: whoever
lists `done/` knows what is finished. All of it depends on the shard alone, so that whoever does it writes the same.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from wholebody.errors import BadInput, OutputError, WholebodyError
from wholebody.files.reading import sha256_of
from wholebody.files.storage import Store, fetch
from wholebody.scale.child import ChildDied
from wholebody.scale.item import IN_TAR, Box, Item
from wholebody.scale.tars import read_tar, unpacked

_ROW_GROUP = 1024  # people

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Request:
    """A picture or film, as the child is asked for it."""

    shard: int
    row: int
    """In its shard."""
    source: str
    kind: str
    boxes: tuple[Box, ...] | None
    place: tuple[str, int, int] | None = None
    """In a tar of this machine: its path, where the picture begins and its bytes; None: `source` is read."""
    overlay: bool = False
    """Draw one for the contact page."""
    scratch: str = ""
    """A folder for files of a film."""


@dataclass(frozen=True)
class Answer:
    """What came of a picture or film."""

    status: str
    """ok, nobody (no person was found) or bad"""
    reason: str = ""
    people: Any = None
    """`pyarrow.RecordBatch`, a row a person; None: no rows."""
    count: int = 0
    """Of people."""
    width: int = 0
    height: int = 0
    content: str = ""
    """SHA-256 of the file, as hexadecimal text."""
    overlay: bytes = b""
    """JPEG."""
    files: dict[str, Path] = field(default_factory=dict)
    """Of films: name in the output folder -> file in the scratch folder."""


@dataclass
class Counts:
    """What came of pictures and films, in numbers."""

    pictures: int = 0
    films: int = 0
    people: int = 0
    nobody: int = 0
    """Pictures and films that show nobody."""
    bad: int = 0

    def add(self, other: Counts) -> None:
        for one in fields(Counts):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))


@dataclass(kw_only=True)
class Report(Counts):
    """What came of a shard."""

    shard: int
    files: dict[str, str] = field(default_factory=dict)
    """Name -> SHA-256."""

    @staticmethod
    def of(content: bytes, name: str) -> Report:
        try:
            return Report(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise BadInput(f"{name}: is no marker of a shard ({error}). Remove it: its shard is done again.") from error


def marker_of(shard: int) -> str:
    return f"done/{shard:06d}.json"


def do_shard(
    store: Store, number: int, items: Sequence[Item], ask: Ask, people_schema: Any, about: Callable[[], dict[str, Any]],
    chunk: int, overlay_every: int,
) -> Report:  # fmt: skip
    """Work on a shard and put its files; the marker last.

    Args:
        ask: answers a list of `Request` by a list of `Answer`; raises ChildDied. `limited=False`: takes its time.
        people_schema: of the rows of people.
        about: what stands in the metadata of the tables; asked once something was answered.
        chunk: pictures in a request.
        overlay_every: every Nth picture gets an overlay; 0: none.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wholebody-shard-")))
        writer = stack.enter_context(_Tables(scratch, number, people_schema))
        files: dict[str, str] = {}
        for request, answer in _answers(_requests(items, number, overlay_every, scratch), ask, chunk):
            writer.add(request, answer)
            if answer.overlay:
                _put(store, f"overlays/{number:06d}-{request.row:06d}.jpg", answer.overlay, files)
            for name, path in answer.files.items():
                store.write_file(name, path)
                files[name] = sha256_of(path)
                path.unlink()
        for name, path in writer.finish(about):
            store.write_file(name, path)
            files[name] = sha256_of(path)
        if not writer.counts.bad:  # of an earlier time, when pictures failed
            store.remove(f"dead/dead-{number:06d}.parquet")
        report = Report(shard=number, files=files, **vars(writer.counts))
        store.write(marker_of(number), json.dumps(vars(report)).encode())
        return report


def _put(store: Store, name: str, content: bytes, files: dict[str, str]) -> None:
    store.write(name, content)
    files[name] = hashlib.sha256(content).hexdigest()


# --- what is asked ----------------------------------------------------------------------------------------------------


def _requests(items: Sequence[Item], shard: int, overlay_every: int, scratch: Path) -> Iterator[tuple[Request, str]]:
    """Every picture and film of the shard, with what is wrong with it already."""
    row = 0

    def asked(source: str, kind: str, boxes: Any, place: tuple[str, int, int] | None = None) -> Request:
        overlay = overlay_every > 0 and (shard + row) % overlay_every == 0
        return Request(shard, row, source, kind, boxes, place, overlay, str(scratch))

    for item in items:
        if item.kind != "tar" or item.problem:
            yield asked(item.source, item.kind, item.boxes), item.problem
            row += 1
            continue
        before = row
        try:
            path = unpacked(fetch(item.source, scratch), scratch)  # stays until all of the shard is answered
            for member in read_tar(path):
                place = (str(path), member.offset, member.size)
                yield asked(f"{item.source}{IN_TAR}{member.name}", "picture", member.boxes, place), member.problem
                row += 1
            problem = "" if row > before else "holds no picture"
        except WholebodyError as error:
            problem = str(error)
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
        if problem:
            yield asked(item.source, "tar", None), problem
            row += 1


def _answers(requests: Iterable[tuple[Request, str]], ask: Ask, chunk: int) -> Iterator[tuple[Request, Answer]]:
    waiting: list[Request] = []
    for request, problem in requests:
        if problem or request.kind == "film" or len(waiting) == chunk:
            yield from zip(waiting, answered(waiting, ask), strict=True)
            waiting = []
        if problem:
            yield request, Answer("bad", problem)
        elif request.kind == "film":
            yield request, answered([request], partial(ask, limited=False))[0]  # nobody knows how long a film is
        else:
            waiting.append(request)
    yield from zip(waiting, answered(waiting, ask), strict=True)


def answered(chunk: Sequence[Request], ask: Ask) -> list[Answer]:
    """Answers to some requests; the one that takes its process with it twice, in company and then alone, is bad.

    Those that stood beside it are asked together again, so that their numbers are those of a run without it (how many
    people a network sees at a time moves the last bits)."""
    if not chunk:
        return []
    try:
        return list(ask(list(chunk)))
    except ChildDied:
        pass
    dead: dict[int, Answer] = {}
    found: dict[int, Answer] = {}
    for request in chunk:
        try:
            found[request.row] = ask([request])[0]
        except ChildDied as error:
            dead[request.row] = Answer("bad", f"{error}, twice")
    alive = [request for request in chunk if request.row not in dead]
    if len(alive) > 1:
        try:
            found |= {request.row: answer for request, answer in zip(alive, ask(alive), strict=True)}
        except ChildDied:
            pass  # what they gave one by one stands
    return [dead.get(request.row) or found[request.row] for request in chunk]


# --- tables -----------------------------------------------------------------------------------------------------------


def picture_schema() -> Any:
    """Of `pictures/` and `dead/`: a row a picture or film."""
    import pyarrow as pa

    return pa.schema([
        ("shard", pa.int32()), ("row", pa.int32()), ("source", pa.string()), ("kind", pa.string()),
        ("status", pa.string()), ("reason", pa.string()), ("people", pa.int32()), ("width", pa.int32()),
        ("height", pa.int32()), ("content_sha256", pa.string()),
    ])  # fmt: skip


class _Tables:
    """The tables of a shard, written to a folder of this machine as they come; a thousand rows are held."""

    def __init__(self, folder: Path, shard: int, people_schema: Any) -> None:
        self._folder, self._shard, self._schema = folder, shard, people_schema
        self.counts = Counts()
        self._pictures: list[tuple[Any, ...]] = []
        self._waiting: list[Any] = []
        self._parts: list[Path] = []
        self._rows = 0

    def __enter__(self) -> _Tables:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()

    def add(self, request: Request, answer: Answer) -> None:
        row = (
            self._shard, request.row, request.source, request.kind, answer.status, answer.reason, answer.count,
            answer.width, answer.height, answer.content,
        )  # fmt: skip
        self._pictures.append(row)
        film = request.kind == "film"
        self.counts.add(
            Counts(not film, film, answer.count, nobody=answer.status == "nobody", bad=answer.status == "bad")
        )
        if answer.people is not None and answer.people.num_rows:
            self._waiting.append(self._with_place(request, answer))
            self._rows += answer.people.num_rows
            if self._rows >= _ROW_GROUP:
                self._spill()

    def _with_place(self, request: Request, answer: Answer) -> Any:
        """The people's rows with the columns that say where they come from."""
        import pyarrow as pa

        batch, count = answer.people, answer.people.num_rows
        own = {
            "shard": pa.array([self._shard] * count, pa.int32()), "row": pa.array([request.row] * count, pa.int32()),
            "source": pa.array([request.source] * count, pa.string()),
            "content_sha256": pa.array([answer.content] * count, pa.string()),
        }  # fmt: skip
        columns = [own[name] if name in own else batch.column(name) for name in self._schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _spill(self) -> None:
        import pyarrow as pa
        import pyarrow.feather as feather

        path = self._folder / f"people-{len(self._parts):05d}.arrow"
        feather.write_feather(pa.Table.from_batches(self._waiting, self._schema), str(path), compression="uncompressed")
        self._parts.append(path)
        self._waiting, self._rows = [], 0

    def finish(self, about: Callable[[], dict[str, Any]]) -> Iterator[tuple[str, Path]]:
        """Name and place of each file."""
        import pyarrow as pa
        import pyarrow.feather as feather
        import pyarrow.parquet as pq

        if self._waiting:
            self._spill()
        schema = self._schema
        if self._parts:  # without people nobody was asked what the numbers mean
            schema = schema.with_metadata({"wholebody": json.dumps(about(), sort_keys=True)})
        path = self._folder / "people.parquet"
        try:
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for part in self._parts:
                    writer.write_table(feather.read_table(str(part)).cast(schema), row_group_size=1 << 20)
                    part.unlink()
            yield f"people/people-{self._shard:06d}.parquet", path
            names = picture_schema().names
            columns = [[row[k] for row in self._pictures] for k in range(len(names))]
            table = pa.table(columns, schema=picture_schema())
            for name, chosen in (("pictures", table), ("dead", _bad(table))):
                if name == "pictures" or chosen.num_rows:
                    path = self._folder / f"{name}.parquet"
                    pq.write_table(chosen, path, compression="zstd")
                    yield f"{name}/{name}-{self._shard:06d}.parquet", path
        except OSError as error:
            raise OutputError(f"cannot write to {self._folder} ({error}): make room there, or set TMPDIR") from error


def _bad(table: Any) -> Any:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table.column("status"), "bad"))
