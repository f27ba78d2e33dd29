"""Sets as WebDataset tars, for object storage and file systems that dislike many small files.

`wholebody data shard` writes `SET-SPLIT-000000.tar`, ... with three members for each picture: `KEY.jpg` (the file as it
is), `KEY.npy` (one `index.RECORD` for each of its people) and `KEY.json` (their names); the `webdataset` package reads
them too. Beside them lies an index whose pictures are places in the tars, `SET-SPLIT-000000.tar:OFFSET+SIZE`: training
reads a sample by one seek, or one range request, so that order and resuming are those of plain files.
"""

from __future__ import annotations

import glob
import io
import json
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

import numpy as np

from wholebody.data.index import RECORD, TEXTS, Index, index_path, pack, unpack, write_index
from wholebody.data.sample import Sample
from wholebody.errors import BadInput, OutputError
from wholebody.files.json_stream import parse_json
from wholebody.files.npz import DAMAGED, read_header
from wholebody.files.reading import inside, open_file, read_bytes
from wholebody.files.text import brief
from wholebody.files.whole import cannot_write, sweep, whole

_MEMBER = re.compile(r"(?P<shard>[^/\\:]+\.tar):(?P<offset>\d+)\+(?P<size>\d+)")
_KEY = re.compile(r"(?P<key>\d+)\.(?P<kind>[a-z0-9]+)")
_ANNOTATIONS = ("npy", "json")


@dataclass(frozen=True)
class Member:
    """A place in a tar: where a file's bytes begin, and how many they are."""

    shard: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}:{self.offset}+{self.size}"


def split_member(path: str) -> Member | None:
    """The place in a tar that an index's path names; None: it is an ordinary path."""
    found = _MEMBER.fullmatch(path)
    return Member(found["shard"], int(found["offset"]), int(found["size"])) if found else None


def read_member(root: str, member: Member) -> bytes:
    """The bytes of a member; `root` is a folder or the address of one that fsspec knows (`s3://...`, `https://...`)."""
    if "://" in root:
        import fsspec

        address = f"{root.rstrip('/')}/{member.shard}"
        try:
            system, place = fsspec.url_to_fs(address)
            data = system.cat_file(place, start=member.offset, end=member.offset + member.size)
        except Exception as error:  # each kind of storage has its own
            raise BadInput(f"{address}: cannot be read ({type(error).__name__}: {error})") from error
    else:
        with open_file(Path(root) / member.shard) as file:
            size = min(member.size, os.fstat(file.fileno()).st_size)  # a lie would ask for as much memory
            data = os.pread(file.fileno(), size, min(member.offset, 1 << 62))
    if len(data) != member.size:
        raise BadInput(f"{root}/{member.shard}: is cut off; copy it again or make it again: wholebody data shard")
    return data


def write_shards(
    index: Index,
    root: Path,
    out: Path,
    name: str,
    size: int = 256 << 20,
    problems: list[str] | None = None,
    linked: Collection[str | Path] = (),
) -> Path:
    """Write tars of at most about `size` bytes with the people of an index, and their index. Returns the index's path.

    Args:
        root: the folder that the index's pictures are in.
        name: of the set and split, as "MSCOCO-train".
        problems: pictures that cannot be read are named here and left out; None: they are an error.
        linked: folders outside of `root` to which links in it may lead, see `files.reading.inside`.
    """
    writer = _Writer(out, name, size)
    with writer:
        for path, people in _by_picture(index):
            try:
                data = read_bytes(inside(root, path, linked))
            except BadInput as error:
                if problems is None:
                    raise
                problems.append(str(error))
                continue
            writer.add(PurePosixPath(path).suffix.lower().lstrip("."), data, people)
    if not writer.names:
        raise BadInput(f"{root}: none of the {len(index):,} people's pictures can be read, nothing was written")
    _remove_others(out, name, writer.names)
    about = {key: index.about[key] for key in ("dataset", "split", "counts", "every") if key in index.about}
    return write_index(read_shards(out / name for name in writer.names), out / f"{name}.arrow", **about)


def _by_picture(index: Index) -> Iterator[tuple[str, list[Sample]]]:
    """Pictures with all their people, in the order of their names."""
    paths = [index.image_path(number) or "" for number in range(len(index))]
    order = sorted(
        (number for number in range(len(index)) if paths[number]), key=lambda number: (paths[number], number)
    )
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or paths[order[end]] != paths[order[start]]:
            yield paths[order[start]], [index[number] for number in order[start:end]]
            start = end


def _remove_others(out: Path, name: str, written: list[str]) -> None:
    """Take away the tars of an earlier run that had more of them: whoever reads all tars would meet people twice."""
    try:
        for path in out.glob(f"{glob.escape(name)}-[0-9]*.tar"):
            if path.name not in written and _MEMBER.fullmatch(f"{path.name}:0+0"):
                path.unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


class _Writer:
    """Tars one after the other, each complete or absent. Raises OutputError."""

    def __init__(self, out: Path, name: str, size: int):
        self.out, self.name, self.size = out, name, size
        self.names: list[str] = []
        self._key = 0
        self._written = 0
        self._tar: tarfile.TarFile | None = None
        self._open_tar = ExitStack()

    def __enter__(self) -> _Writer:
        sweep(self.out)
        return self

    def add(self, suffix: str, picture: bytes, people: list[Sample]) -> None:
        packed = [pack(sample) for sample in people]
        records = io.BytesIO()
        np.save(records, np.stack([record for record, _ in packed]), allow_pickle=False)
        texts = json.dumps([names for _, names in packed]).encode()
        if self._tar is None:
            self._begin()
        assert self._tar is not None
        try:
            for kind, data in (("json", texts), ("npy", records.getvalue()), (suffix, picture)):
                entry = tarfile.TarInfo(f"{self._key:09d}.{kind}")
                entry.size, entry.mode = len(data), 0o644
                self._tar.addfile(entry, io.BytesIO(data))
                self._written += len(data) + 1024
        except OSError as error:
            raise cannot_write(self._place(), error) from error
        self._key += 1
        if self._written >= self.size:
            self._finish()

    def _place(self) -> Path:
        return self.out / f"{self.name}-{len(self.names):06d}.tar"

    def _begin(self) -> None:
        with ExitStack() as stack:
            file = stack.enter_context(closing(_open(stack.enter_context(whole(self._place())))))
            self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
            self._open_tar = stack.pop_all()
        self._written = 0

    def _finish(self) -> None:
        if self._tar is None:
            return
        with self._open_tar:
            self._tar.close()
        self.names.append(self._place().name)
        self._tar = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        else:
            with suppress(OutputError):  # that closing fails on a full disk has been reported already
                self._open_tar.__exit__(kind, error, trace)


def _open(path: Path) -> IO[bytes]:
    return open(path, "xb")


def read_shards(paths: Iterable[Path]) -> Iterator[Sample]:
    """The people in tars; `image_path` is the place of the picture in its tar. Nothing is unpacked.

    Raises BadInput for a tar that is cut off or holds anything but what `write_shards` writes: links, devices, names
    that lead elsewhere, pickles.
    """
    for path in paths:
        group: dict[str, tarfile.TarInfo] = {}
        key = ""
        try:
            with open_file(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                for entry in tar:
                    name = _KEY.fullmatch(entry.name)
                    if not name or not entry.isreg() or entry.issparse():
                        raise BadInput(
                            f"{path}: member {entry.name!r} is no file of a person's (NUMBER.jpg, .npy, .json); a tar "
                            "that holds other things is refused"
                        )
                    if name["key"] != key:
                        yield from _people(path, tar, group)
                        key, group = name["key"], {}
                    if name["kind"] in group:
                        raise BadInput(f"{path}: member {entry.name!r} is there twice")
                    group[name["kind"]] = entry
                yield from _people(path, tar, group)
        except (OSError, tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
            raise BadInput(f"{path}: not a tar, or cut off ({error}); copy it again or make it again") from error


def _people(path: Path, tar: tarfile.TarFile, group: dict[str, tarfile.TarInfo]) -> Iterator[Sample]:
    if not group:
        return
    pictures = [entry for kind, entry in group.items() if kind not in _ANNOTATIONS]
    if len(pictures) != 1 or any(kind not in group for kind in _ANNOTATIONS):
        names = ", ".join(entry.name for entry in group.values())
        raise BadInput(f"{path}: a picture with its .npy and .json belong together, found only {names}; is it cut off?")
    name = group["npy"].name
    try:
        records, texts = (tar.extractfile(group[kind]).read() for kind in _ANNOTATIONS)  # type: ignore[union-attr]
        header = read_header(io.BytesIO(records))
        if header.dtype != RECORD or len(header.shape) != 1 or header.size + header.nbytes != len(records):
            raise ValueError(f"{name} holds no people of this version")
        rows = np.load(io.BytesIO(records), allow_pickle=False)
        people = [
            unpack(row, {key: _text(names[key]) for key in TEXTS})
            for row, names in zip(rows, parse_json(texts, name), strict=True)
        ]
    except (BadInput, *DAMAGED) as error:
        raise BadInput(f"{path}: the people of {name} cannot be read ({error}); make the tars again") from error
    place = Member(path.name, pictures[0].offset_data, pictures[0].size)
    for sample in people:
        mesh = sample.mesh_path
        if mesh is not None and (
            PurePosixPath(mesh).is_absolute() or ".." in PurePosixPath(mesh).parts or "\\" in mesh
        ):
            raise BadInput(f"{path}: the mesh {mesh!r} of {sample.id} lies outside of the set's folder; refused")
        yield replace(sample, image_path=str(place))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"a name is {brief(value)}")


ShardJob = tuple[str, str, Path, Path, Path, int, Collection[Path]]
"""A split to write as tars: set, split, the set's folder, its index, the folder for the tars, their size in bytes, and
`linked`."""


def run_shard(
    root: Path, sets: list[str], out: Path, size: int, problems: list[str], linked: Collection[Path] = ()
) -> Iterator[str]:
    """The command: tars of sets (`NAME` or `NAME:SPLIT`) that `wholebody data index` has indexed; one line for each."""
    for job in shard_jobs(root, sets, out, size, linked):
        line, lost = shard_split(job)
        problems += lost
        yield line


def shard_split(job: ShardJob) -> tuple[str, list[str]]:
    """Write a split as tars; a line that says what came of it, and the pictures that were left out."""
    dataset, split, folder, place, out, size, linked = job
    problems: list[str] = []
    index = Index(place)
    path = write_shards(index, folder, out, f"{dataset}-{split}", size, problems, linked)
    count = f"{len(Index(path)):,} of {len(index):,} people"
    return f"{dataset} {split}: {count} -> {out}/{dataset}-{split}-*.tar, {path}", problems


def shard_jobs(
    root: Path, sets: list[str], out: Path, size: int, linked: Collection[Path] = ()
) -> Iterator[ShardJob]:
    """What `shard_split` is to be called with, a split each. Raises BadInput where an index is missing."""
    from wholebody.data.readers import reader

    for chosen in sets:
        dataset, _, only = chosen.partition(":")
        info = reader(dataset)
        there = [split for split in ([only] if only else info.splits) if index_path(root, dataset, split).exists()]
        if not there:
            raise BadInput(f"{chosen}: no index in {root / 'index'}; first run: wholebody data index {root} {chosen}")
        for split in there:
            yield dataset, split, info.home(root) or root / dataset, index_path(root, dataset, split), out, size, linked


def index_tars(folder: Path) -> list[Path]:
    """Make the indices of tars that came without, one for each set and split."""
    sets: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*-[0-9]*.tar")):
        sets.setdefault(path.name.rpartition("-")[0], []).append(path)
    if not sets:
        raise BadInput(f"{folder}: no tars named SET-SPLIT-NUMBER.tar; `wholebody data shard` writes them")
    return [write_index(read_shards(paths), folder / f"{name}.arrow") for name, paths in sets.items()]
