"""The record of an output folder, `wholebody_run.json`: whose results lie in it, what they were made of and with, and
what each file held when it was written.

It decides what a picture's results are called, whether they have to be made again, and which files may be written over:
those that we wrote and nobody has changed since. It is valid JSON at any time; a row is added for every file before it
is written and for every picture once it is done, so that a killed run leaves nothing that the next one does not know.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from wholebody import __version__
from wholebody.errors import BadInput
from wholebody.files.image import Source
from wholebody.files.mesh import MESHES
from wholebody.files.reading import sha256_of
from wholebody.files.text import shown
from wholebody.files.whole import cannot_write, write_bytes
from wholebody.output.files import is_complete, result_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RECORD = "wholebody_run.json"
FORMAT = "wholebody.run/2"
_TAIL = b"\n]}\n"
_LONGEST_NAME = 200  # bytes, of the 255 that file systems take; results add to it
_LARGEST_ID = 2**53  # what every reader of JSON can hold


@dataclass(frozen=True)
class Entry:
    """A picture that is done."""

    name: str
    """Of its results, relative to the folder, without endings; may hold `/`."""
    source: str
    """The picture's absolute path, links resolved."""
    content: str
    """Its hash."""
    made_with: str
    """Hash of the options, and of the files that they name."""
    image_id: int | str
    people: int
    files: dict[str, str] = field(default_factory=dict)
    """The results and their hashes, by path relative to the folder."""


class Record:
    """The record of `folder`, which is made when something is first written. `options`: of this run, for the next."""

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self.folder = folder
        self.overwrite = overwrite
        self.path = folder / RECORD
        self.before: dict[str, Any] = {}
        """The options of the run before; empty if there was none."""
        self.entries: dict[str, Entry] = {}  # by name, as file systems that ignore case see it
        self._written: dict[str, set[str]] = {}  # hashes of what we wrote, by path relative to the folder
        self._taken: dict[str, str] = {}  # name -> source, of this run
        self._ids: dict[int | str, str] = {}
        self._earlier_version = False
        self._read()

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadInput(f"{self.path}: cannot be read ({error.strerror or error}).") from error
        try:
            header, rows = _parse(content)
        except ValueError as error:
            if self.overwrite:
                return
            raise BadInput(
                f"{self.path}: is not the record of an output folder ({error}), and is not written over. Choose "
                "another --out, move that file away, or give --overwrite."
            ) from error
        self.before = header
        self._earlier_version = header.get("format") != FORMAT
        for row in rows:
            if "writes" in row:
                self._written.setdefault(row["writes"], set()).add(row["hash"])
            else:
                self._know(Entry(**row))

    def _know(self, entry: Entry) -> None:
        self.entries[entry.name.casefold()] = entry
        self._ids[entry.image_id] = entry.name
        for name, content in entry.files.items():
            self._written.setdefault(name, set()).add(content)

    def begin(self, options: Mapping[str, Any]) -> None:
        """Write the record anew with the options of this run: rows that later ones replaced go."""

        def rewrite() -> None:
            self._read()  # what another run wrote meanwhile
            self._rewrite(options)

        self._lock_and(rewrite)

    def _rewrite(self, options: Mapping[str, Any]) -> None:
        header = json.dumps({"format": FORMAT, "version": __version__} | dict(options), default=str)[:-1]
        done = {name for entry in self.entries.values() for name in entry.files}
        rows: list[dict[str, Any]] = [asdict(entry) for entry in self.entries.values()]
        rows += [{"writes": name, "hash": content} for name, hashes in self._written.items() if name not in done
                 for content in hashes]  # fmt: skip
        body = ",".join("\n" + json.dumps(row) for row in rows)
        write_bytes(self.path, f'{header}, "results": ['.encode() + body.encode() + _TAIL)

    def name_of(self, source: Source) -> str:
        """What the results of a picture are called: as the picture, or, where that name is another's, with a hash of
        its folder."""
        key = key_of(source.path)
        folder, _, stem = source.name.rpartition("/")
        start = f"{folder}/" if folder else ""
        stem = shortened(stem)
        marks = [f"_{_short_hash(os.path.dirname(key))}", f"_{_short_hash(key)}"]
        for name in (start + stem, *(start + stem + mark for mark in marks)):
            if f"{name}.json".casefold() != RECORD and self._is_free(name, key):
                self._taken[name.casefold()] = key
                return name
        raise BadInput(f"{source.path}: there is no name left for its results in {self.folder}.")

    def _is_free(self, name: str, key: str) -> bool:
        name = name.casefold()
        if name in self._taken:
            return self._taken[name] == key
        entry = self.entries.get(name)
        # A picture that was moved, or a folder that was copied, is the same as ever.
        return entry is None or entry.source == key or (
            not os.path.lexists(entry.source) and entry.content == hash_of(Path(key))
        )  # fmt: skip

    def image_id(self, name: str) -> int | str:
        """A number where the picture's name is one that nobody else in the folder has, as in COCO; else the name."""
        if name.isascii() and name.isdecimal() and len(name) < 300:
            number = int(name)
            if number < _LARGEST_ID and self._ids.setdefault(number, name) == name:
                return number
        return name

    def is_done(self, source: Source, name: str, made_with: str, save: Sequence[str]) -> bool:
        """Whether the results that `save` asks for are there, of this picture as it is now, made with these options."""
        if self._earlier_version and name.casefold() not in self.entries:
            self._adopt(source, name, made_with, save)
        entry = self.entries.get(name.casefold())
        if entry is None or entry.made_with != made_with or entry.content != hash_of(source.path):
            return False
        wanted = {result_path(Path(), name, "json")}
        if entry.people:
            wanted |= {result_path(Path(), name, kind) for kind in ("overlay", "scene") if kind in save}
        wanted |= {result_path(Path(), name, kind, number)
                   for kind in save if kind in ("npz", *MESHES) for number in range(entry.people)}  # fmt: skip
        return all(path.as_posix() in entry.files and (self.folder / path).is_file() for path in wanted)

    def _adopt(self, source: Source, name: str, made_with: str, save: Sequence[str]) -> None:
        """Take over what a version without such records finished."""
        if not is_complete(self.folder, name, save, source.path):
            return
        paths = self.results(name, save)
        self.finish(
            Entry(
                name, key_of(source.path), hash_of(source.path), made_with, self.image_id(name),
                len(json.loads(result_path(self.folder, name, "json").read_bytes())),
                {self._relative(path): hash_of(path) for path in paths},
            )
        )  # fmt: skip

    def film_is_done(self, source: Source, name: str, made_with: str) -> bool:
        """As `is_done`; the kinds of results are part of `made_with`."""
        entry = self.entries.get(name.casefold())
        if entry is None or entry.made_with != made_with or entry.content != hash_of(source.path):
            return False
        return all((self.folder / path).is_file() for path in entry.files)

    def refusal(self, there: Iterable[Path], protected: Protected) -> str | None:
        """Why results must not be written: one of the files in their place (`there`) is not ours to replace."""
        for path in there:
            what = protected.picture(path)
            if what:
                return f"{shown(path)} would be written over, but is {what}. Choose another --out."
            if self.overwrite:
                continue
            what = protected.option(path) or self._not_ours(path)
            if what:
                return (
                    f"{shown(path)} would be written over, but {what}. Choose another --out, move that file away, or "
                    "give --overwrite."
                )
        return None

    def _not_ours(self, path: Path) -> str | None:
        hashes = self._written.get(self._relative(path))
        if not hashes:
            return "was not written by wholebody" + (" in this version" if self._earlier_version else "")
        return None if hash_of(path) in hashes else "was changed after wholebody had written it"

    def results(self, name: str, save: Sequence[str]) -> list[Path]:
        """What is there already of the files that `save` may lead to."""
        paths = [result_path(self.folder, name, "json")]
        paths += [result_path(self.folder, name, kind) for kind in ("overlay", "scene") if kind in save]
        for kind in save:
            if kind in ("npz", *MESHES):
                start = str(self.folder / f"{name}_person")
                found = glob.glob(f"{glob.escape(start)}*.{kind}")
                paths += [Path(path) for path in found if path[len(start) : -len(kind) - 1].isdecimal()]
        return [path for path in paths if os.path.lexists(path)]

    def remove(self, name: str) -> None:
        """Take away what an earlier run wrote for this name, as far as nobody changed it; first the .json, which says
        that the rest is complete."""
        entry = self.entries.get(name.casefold())
        for relative in sorted(entry.files if entry else (), key=lambda relative: not relative.endswith(".json")):
            path = self.folder / relative
            if not self._lies_here(path):  # a record may have come from a stranger with its folder
                continue
            if os.path.lexists(path) and (self.overwrite or self._not_ours(path) is None):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _lies_here(self, path: Path) -> bool:
        """Whether a place lies in the folder: not above it by `..`, not elsewhere by a link to another folder."""
        try:
            parent = Path(os.path.realpath(path.parent))
            return ".." not in path.parts and parent.is_relative_to(os.path.realpath(self.folder))
        except (OSError, ValueError):
            return False

    def announce(self, path: Path, data: bytes) -> tuple[str, str]:
        """Note what is about to be written; its path relative to the folder, and its hash."""
        relative, content = self._relative(path), hashlib.sha256(data).hexdigest()
        if content not in self._written.setdefault(relative, set()):
            self._written[relative].add(content)
            self._append({"writes": relative, "hash": content})
        return relative, content

    def finish(self, entry: Entry) -> None:
        """Note a picture as done."""
        self._know(entry)
        self._append(asdict(entry))

    def is_ours(self, path: Path) -> bool:
        """Whether a file in the folder is one that we wrote, changed or not."""
        try:
            relative = Path(os.path.realpath(path)).relative_to(os.path.realpath(self.folder)).as_posix()
        except ValueError:
            return False
        return relative in self._written or relative.casefold() == RECORD

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _append(self, row: Mapping[str, Any]) -> None:
        self._lock_and(lambda: self._append_locked(json.dumps(row).encode()))

    def _append_locked(self, line: bytes) -> None:
        with open(self.path, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - len(_TAIL) - 1))
            last, tail = file.read(1), file.read()
            if tail != _TAIL:  # the end of a run that was killed while it wrote
                file.seek(0)
                header, rows = _parse(file.read())
                body = ",".join("\n" + json.dumps(row) for row in [*rows, json.loads(line)])
                write_bytes(self.path, f'{json.dumps(header)[:-1]}, "results": ['.encode() + body.encode() + _TAIL)
                return
            file.seek(size - len(_TAIL))
            new = (b"" if last == b"[" else b",") + b"\n" + line + _TAIL
            if file.write(new) != len(new):
                file.truncate(size - len(_TAIL))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _lock_and(self, act: Any) -> None:
        """`act` while no other run changes the record."""
        try:
            while True:
                with open(self.path, "ab") as file:
                    if fcntl is not None:
                        with contextlib.suppress(OSError):  # not every file system can
                            fcntl.flock(file, fcntl.LOCK_EX)
                    if os.path.exists(self.path) and os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                        if not os.path.getsize(self.path):
                            self._rewrite(self.before)
                        act()
                        return
        except (OSError, ValueError) as error:
            raise cannot_write(self.path, error) from error


class Protected:
    """Files of the user's that this call reads: pictures, and those that options name."""

    def __init__(self, pictures: Iterable[Path], options: Mapping[str, Path]) -> None:
        self._pictures = {identity for path in pictures if (identity := _identity(path))}
        self._options = {identity: f"is the file given as {option}" for option, path in options.items()
                         if (identity := _identity(path))}  # fmt: skip

    def picture(self, path: Path) -> str | None:
        return "one of the pictures of this call" if _identity(path) in self._pictures else None

    def option(self, path: Path) -> str | None:
        return self._options.get(_identity(path) or (0, 0))


def key_of(path: Path) -> str:
    """A picture's place, whatever way leads there."""
    return os.path.realpath(path)


def hash_of(path: Path) -> str:
    """Of a file's content, or of what a folder lists; empty if it cannot be read."""
    try:
        about = os.stat(path)
        if path.is_dir():
            return _hash_of_folder(path)
        return _hash_of(os.fspath(path), about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    except (BadInput, OSError, ValueError):
        return ""


@lru_cache(maxsize=1024)
def _hash_of(path: str, *about: int) -> str:
    """Asked for several times in a row; the numbers are there to see a change in between."""
    return sha256_of(path)


def _hash_of_folder(path: Path) -> str:
    """Of the frames of a film, which are too many to read twice: names, sizes and dates."""
    digest = hashlib.sha256()
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            about = entry.stat()
            digest.update(os.fsencode(f"{entry.name} {about.st_size} {about.st_mtime_ns}\n"))
    return digest.hexdigest()


def hash_of_options(options: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Of options, and of the content of the files that they name."""
    table = dict(options) | {"files": [hash_of(path) for path in files]}
    return hashlib.sha256(json.dumps(table, sort_keys=True, default=str).encode()).hexdigest()


def _identity(path: Path) -> tuple[int, int] | None:
    """The same for all names of one file."""
    try:
        about = os.stat(path)
    except (OSError, ValueError):
        return None
    return about.st_dev, about.st_ino


def _short_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]


def shortened(stem: str) -> str:
    """A name with room for the endings of results; long ones end with a hash of what was cut."""
    data = os.fsencode(stem)
    if len(data) <= _LONGEST_NAME:
        return stem
    cut = data[: _LONGEST_NAME - 9]
    while cut and (data[len(cut)] & 0xC0) == 0x80:  # not in the middle of a letter
        cut = cut[:-1]
    return f"{os.fsdecode(cut)}_{_short_hash(stem)}"


def _parse(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Options and rows of a record. One that a killed run left without its end is read as far as it goes."""
    try:
        table = json.loads(content)
    except (ValueError, RecursionError):
        first, *lines = content.decode("utf-8", "replace").split("\n")
        table = json.loads(first + "]}")
        if not isinstance(table, dict):
            raise ValueError("it holds something else") from None
        table["results"] = []
        for line in lines:
            with contextlib.suppress(ValueError):
                table["results"].append(json.loads(line.rstrip(",")))
    if not isinstance(table, dict) or not (table.get("format") == FORMAT or {"model", "version"} <= table.keys()):
        raise ValueError("it holds something else")
    rows = table.pop("results", [])
    return table, [row for row in rows if _is_row(row)] if isinstance(rows, list) else []


def _is_row(row: Any) -> bool:
    """Whether a row of a record has the fields that it must, each of its type."""
    if not isinstance(row, dict):
        return False
    if row.keys() == {"writes", "hash"}:
        return isinstance(row["writes"], str) and isinstance(row["hash"], str)
    files = row.get("files")
    return (
        row.keys() == Entry.__dataclass_fields__.keys()
        and all(isinstance(row[key], str) for key in ("name", "source", "content", "made_with"))
        and isinstance(row["image_id"], int | str)
        and isinstance(row["people"], int)
        and 0 <= row["people"] < 100_000
        and isinstance(files, dict)
        and all(isinstance(content, str) for content in files.values())
    )
