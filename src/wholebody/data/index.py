"""The people of a set in one file that is mapped into memory, not read: a million open in a moment.

`wholebody data index` writes `index/SET-SPLIT.arrow` beside the sets, an Arrow file that any Arrow library opens. Names
are columns of text; everything numeric of a person is one record of fixed size, so that a person in the middle of a
million costs one or two pages of the disk. The fields of a record are in the file's metadata, as numpy's `descr`.
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from wholebody.data.readers import READERS, reader
from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.files.reading import inside, open_file
from wholebody.files.whole import whole

VERSION = 1
ROWS = 2048
"""People per batch of the file; all batches but the last are of this length."""
TEXTS = ("id", "dataset", "image_path", "mesh_path", "body", "gender")
_OPTIONAL = ("frame_xyxy", "joint_cam_valid", "extrinsic_rotation", "image_hw")
"""Fields of `Sample` that may be None: `has_NAME` tells."""
_NUMBERS: dict[str, tuple[int, ...]] = {
    "box_xyxy": (4,), "focal_px": (2,), "principal_px": (2,), "full_pose": (55, 3), "betas": (10,), "expression": (10,),
    "transl": (3,), "joints_px": (137, 2), "joints_cam": (137, 3), "left_hand_box": (4,), "right_hand_box": (4,),
    "face_box": (4,), "frame_xyxy": (4,), "extrinsic_rotation": (3, 3), "kid": (), "image_hw": (2,),
}  # fmt: skip
_TRUTHS: dict[str, tuple[int, ...]] = {
    "joint_valid": (137,), "joint_visible": (137,), "joint_cam_valid": (137,), "part_valid": (3,), "pose_valid": (55,),
    "shape_valid": (), "expression_valid": (), "camera_valid": (), "flat_hand": (),
}  # fmt: skip
RECORD = np.dtype(
    [(name, "<f4", shape) for name, shape in _NUMBERS.items()]
    + [(name, "u1", shape) for name, shape in _TRUTHS.items()]
    + [(f"has_{name}", "u1", ()) for name in _OPTIONAL]
)
"""One person's numbers; lengths and units as in `Sample`, float32."""


def pack(sample: Sample) -> tuple[np.ndarray, dict[str, str | None]]:
    """A person's record (of type `RECORD`, no dimensions) and texts. The picture and mask are left out."""
    record = np.zeros((), RECORD)
    for name in RECORD.names or ():
        if name.startswith("has_"):
            record[name] = getattr(sample, name[4:]) is not None
        elif (value := getattr(sample, name)) is not None:
            if np.shape(value) != RECORD[name].shape:
                raise BadInput(f"{_who(sample)}: {name} must have shape {RECORD[name].shape}, not {np.shape(value)}")
            if not _fits(value):
                raise BadInput(
                    f"{_who(sample)}: {name} holds a number that is not finite, or larger than single precision knows; "
                    "download its files again"
                )
            record[name] = value
    return record, {name: getattr(sample, name) for name in TEXTS}


def _fits(value: Any) -> bool:
    """Whether single precision can hold all of these numbers; integers of many digits are no numbers of numpy's."""
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    return bool((np.abs(numbers) <= np.finfo(np.float32).max).all())


def _who(sample: Sample) -> str:
    return f"{sample.dataset} {sample.id}"


def unpack(record: np.ndarray, texts: dict[str, str | None]) -> Sample:
    """The person of a record; arrays are its own (float32 and bool), not views of the file."""
    values: dict[str, Any] = {}
    for name in RECORD.names or ():
        if not name.startswith("has_"):
            value = record[name]
            values[name] = value.astype(bool) if name in _TRUTHS else np.array(value)
            if not RECORD[name].shape:
                values[name] = values[name].item()
    for name in _OPTIONAL:
        if not record[f"has_{name}"]:
            values[name] = None
    if values["image_hw"] is not None:
        values["image_hw"] = tuple(int(side) for side in values["image_hw"])
    return Sample(**values, **texts)  # type: ignore[arg-type]


@contextmanager
def index_writer(path: str | Path, about: Mapping[str, Any] | None = None) -> Iterator[IndexWriter]:
    """Takes people one after the other (`add`); the file appears whole when the `with` block ends, or not at all.

    `about`: what to note in the file's metadata. Raises OutputError where the disk is full or may not be written.
    """
    with whole(path) as part, closing(_open(part)) as file:
        writer = IndexWriter(file, about or {})
        yield writer
        writer.finish()


class IndexWriter:
    """Writes people to an open file, `ROWS` at a time."""

    def __init__(self, file: IO[bytes], about: Mapping[str, Any]):
        import pyarrow as pa

        self.count = 0
        self._records = np.zeros(ROWS, RECORD)
        self._texts: dict[str, list[str | None]] = {name: [] for name in TEXTS}
        columns = [pa.field(name, pa.string()) for name in TEXTS]
        columns.append(pa.field("record", pa.binary(RECORD.itemsize), nullable=False))
        about = {"wholebody_index": VERSION, "record": RECORD.descr, **about}
        self._schema = pa.schema(columns, {key: json.dumps(value) for key, value in about.items()})
        self._sink = pa.ipc.new_file(file, self._schema)

    def add(self, sample: Sample) -> None:
        record, texts = pack(sample)
        self._records[len(self._texts["id"])] = record
        for name, text in texts.items():
            self._texts[name].append(text)
        self.count += 1
        if len(self._texts["id"]) == ROWS:
            self._flush()

    def finish(self) -> None:
        self._flush()
        self._sink.close()

    def _flush(self) -> None:
        import pyarrow as pa

        count = len(self._texts["id"])
        if not count:
            return
        records = pa.py_buffer(self._records[:count].tobytes())
        columns = [pa.array(self._texts[name], pa.string()) for name in TEXTS]
        columns.append(pa.FixedSizeBinaryArray.from_buffers(pa.binary(RECORD.itemsize), count, [None, records]))
        self._sink.write_batch(pa.record_batch(columns, schema=self._schema))
        self._texts = {name: [] for name in TEXTS}


def _open(path: Path) -> IO[bytes]:
    return open(path, "xb")


def write_index(samples: Iterable[Sample], path: str | Path, **about: Any) -> Path:
    """An index of any people, in their order. `about`: what to note in the file's metadata."""
    with index_writer(path, about) as writer:
        for sample in samples:
            writer.add(sample)
    return Path(path)


def index_path(root: str | Path, dataset: str, split: str) -> Path:
    """Where the index of a set's split lies, given the folder with all sets."""
    return Path(root) / "index" / f"{dataset}-{split}.arrow"


def build_index(
    dataset: str,
    root: str | Path,
    split: str,
    out: str | Path | None = None,
    linked: Collection[str | Path] = (),
    **options: Any,
) -> Path:
    """Read a set and write its index.

    Args:
        dataset: a name in `readers.READERS`.
        root: the set's own folder.
        out: the file to write; None: `index/SET-SPLIT.arrow` beside the set's folder.
        linked: folders outside of the set's to which links in it may lead, see `files.reading.inside`.
        options: of the reader.
    """
    root = Path(root)
    path = index_path(root.parent, dataset, split) if out is None else Path(out)
    info = reader(dataset)
    people = _inside(info.read(root, split, **options), root, linked)
    counts = info.counts(root)
    about = {"counts": counts, "every": options.get("every", 1)} if counts else {}
    return write_index(people, path, dataset=dataset, split=split, **about)


def _inside(samples: Iterable[Sample], root: Path, linked: Collection[str | Path] = ()) -> Iterator[Sample]:
    """The people, all of whose files lie in the set's folder or in `linked`; BadInput for one that leads elsewhere."""
    for sample in samples:
        for name in (sample.image_path, sample.mesh_path):
            if name:
                try:
                    inside(root, name, linked)
                except BadInput as error:
                    raise BadInput(f"{_who(sample)}: {error}") from error
        yield sample


_DAMAGED = (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError,
            RecursionError, SyntaxError)  # fmt: skip


class Index:
    """The people of an index by number: `len(index)`, `index[i]` -> `Sample` without picture.

    Only what is looked at comes into memory, and it does not stay: every so often the pages that were read are given
    back, for the operating system keeps them as long as it has room. Safe in forked and in spawned processes.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._attach()

    def _attach(self) -> None:
        import pyarrow as pa

        try:
            with open_file(self.path) as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (BadInput, OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            why = str(error) if isinstance(error, BadInput) else getattr(error, "strerror", None) or "it is empty"
            raise BadInput(f"{self.path}: no index can be read ({why}). Make it: wholebody data index ROOT") from error
        try:
            self._reader = pa.ipc.open_file(pa.py_buffer(self._map))
            about = {key.decode(): json.loads(value) for key, value in (self._reader.schema.metadata or {}).items()}
            version = about["wholebody_index"]
            dtype = np.dtype([(name, kind, *(tuple(s) for s in shape)) for name, kind, *shape in about["record"]])
            batches = self._reader.num_record_batches
        except (pa.ArrowException, *_DAMAGED) as error:
            raise BadInput(
                f"{self.path}: truncated, or not an index ({error}). Make it again: wholebody data index ROOT"
            ) from error
        if version != VERSION or dtype != RECORD:
            raise BadInput(f"{self.path}: an index of another version. Make it again: wholebody data index ROOT")
        self.about = about
        self._batches: dict[int, Any] = {}
        self._reads = 0
        self._count = batches
        last = len(self._batch(batches - 1)[1]) if batches else 0
        self._length = max(batches - 1, 0) * ROWS + last

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        texts, records, row = self._place(number)
        names = {name: column[row].as_py() for name, column in zip(TEXTS, texts, strict=True)}
        try:
            sample = unpack(records[row], names)
        except (ValueError, OverflowError) as error:  # a size that is no number
            raise BadInput(f"{self.path}: person {number} is damaged ({error}). Make it again") from error
        self._reads += 1
        if self._reads % 16 == 0:  # a page that is touched brings its neighbours: 16 people can hold 25 MB
            self.forget()
        return sample

    def thinned(self, every: int) -> np.ndarray | None:
        """The numbers of every so many-th person, None for everybody.

        Counted as the published code counts: HumanData's people by their row in their file (rows 0, every, 2 every),
        of whom those that the reader left out count too; all others by their place here. An index that was thinned when
        it was made (`wholebody data index --every`) is not thinned again.

        Raises BadInput if it was thinned to another number.
        """
        made = int(self.about.get("every", 1))
        if every == 1 or made == every:
            return None
        if made != 1:
            raise BadInput(
                f"{self.path} holds every {made}th person, and every {every}th is asked for: make it again with "
                f"--every {every} or --every 1"
            )
        places = np.arange(len(self))
        if self.about.get("counts") == "row":
            places = self._file_rows()
        return np.nonzero(places % every == 0)[0]

    def _file_rows(self) -> np.ndarray:
        """Of everybody the row in the HumanData file, which ends the id."""
        rows = []
        for start in range(0, len(self), ROWS):
            texts, _ = self._batch(start // ROWS)
            rows += [int(name.rpartition("/")[2]) for name in texts[TEXTS.index("id")].to_pylist()]
        return np.array(rows, np.int64)

    def image_path(self, number: int) -> str | None:
        texts, _, row = self._place(number)
        return texts[TEXTS.index("image_path")][row].as_py()

    def records(self) -> Iterator[np.ndarray]:
        """All numbers, in pieces (N,) of type `RECORD`, for statistics; views of the file."""
        for start in range(0, len(self), ROWS):
            yield self._place(start)[1]
            self.forget()

    def _place(self, number: int) -> tuple[list[Any], np.ndarray, int]:
        if not 0 <= number < len(self):
            raise IndexError(f"person {number} of {len(self)} in {self.path}")
        batch, row = divmod(number, ROWS)
        texts, records = self._batch(batch)
        return texts, records, row

    def _batch(self, number: int) -> tuple[list[Any], np.ndarray]:
        """The texts and records of some people, checked when they are first asked for: Arrow itself believes whatever
        a file says of its own lengths."""
        import pyarrow as pa

        if number not in self._batches:
            try:
                columns = self._reader.get_batch(number)
                columns.validate(full=True)
                texts, record = [columns.column(name) for name in TEXTS], columns.column("record")
                if record.type != pa.binary(RECORD.itemsize) or any(text.type != pa.string() for text in texts):
                    raise ValueError("its columns are of other types")
                if record.null_count or record.offset or not 0 < len(record) <= ROWS:
                    raise ValueError(f"a batch of {len(record)} people")
                if number < self._count - 1 and len(record) != ROWS:
                    raise ValueError(f"batch {number} has {len(record)} people instead of {ROWS}")
                records = np.frombuffer(record.buffers()[1], RECORD, len(record))
            except (pa.ArrowException, *_DAMAGED) as error:
                raise BadInput(
                    f"{self.path}: damaged, or not an index ({str(error)[:200]}). Make it again: wholebody data index "
                    "ROOT"
                ) from error
            self._batches[number] = (texts, records)
        return self._batches[number]

    def forget(self) -> None:
        """Give back the pages of the file that this process has touched; they are read again when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._attach()


IndexJob = tuple[str, Path, str, Path, Collection[Path], dict[str, int]]
"""A split to index: set, its folder, split, the file to write, `linked` and options of the reader."""


def run_index(
    root: Path,
    sets: Sequence[str] = (),
    out: Path | None = None,
    every: int | None = None,
    linked: Collection[Path] = (),
) -> Iterator[str]:
    """The command: index the named sets, or all whose folder is in `root`; a line for each split. See `index_jobs`."""
    for job in index_jobs(root, sets, out, every, linked):
        yield job if isinstance(job, str) else index_split(job)


def index_split(job: IndexJob) -> str:
    """Index a split; a line that says what came of it."""
    dataset, folder, split, target, linked, options = job
    begin = time.perf_counter()
    path = build_index(dataset, folder, split, target, linked, **options)
    count, seconds = len(Index(path)), time.perf_counter() - begin
    size = path.stat().st_size / 1e6
    return f"{dataset} {split}: {count:,} people in {seconds:.1f} s -> {path} ({size:.1f} MB)"


def index_jobs(
    root: Path,
    sets: Sequence[str] = (),
    out: Path | None = None,
    every: int | None = None,
    linked: Collection[Path] = (),
) -> Iterator[IndexJob | str]:
    """What `index_split` is to be called with, a split each; a line for a split that is left out.

    A set is `NAME` or `NAME:SPLIT`. `every`: of UBody and of the sets in HumanData files only every Nth annotation
    (recipes thin whole indices themselves, so this saves room only; UBody's published 10 is counted exactly only so).
    `linked`: see `build_index`.
    Raises BadInput if a named set cannot be read, or if nothing is there.
    """
    named = [name.partition(":") for name in sets]
    if every is not None:
        others = [name for name, _, _ in named if not reader(name).counts(reader(name).home(root) or root / name)]
        if every < 1 or not named or others:
            raise BadInput(
                f"--every {every} is for UBody alone, and for sets in HumanData files; it is at least 1 and they are "
                f"named: data index ROOT UBody:train --every 10{'; not for ' + ', '.join(others) if others else ''}"
            )
    options = {} if every is None else {"every": every}
    chosen = [(reader(name), split) for name, _, split in named] if named else [(i, "") for i in READERS.values()]
    found = False
    for info, only in chosen:
        folder = info.home(root)
        if folder is None:
            if named:
                raise BadInput(f"{root / info.name}: no such folder. {info.name} comes from: {info.source}")
            continue
        for split in [only] if only else info.splits:
            if not only and not info.is_there(root, split):
                yield f"{info.name} {split}: left out, files are missing: `wholebody data check {root}` names them"
                continue
            target = index_path(root, info.name, split) if out is None else out / f"{info.name}-{split}.arrow"
            yield info.name, folder, split, target, linked, options
            found = True
    if not found:
        raise BadInput(
            f"{root}: nothing to index. Sets lie there in folders of their own: {', '.join(READERS)}. "
            f"`wholebody data check {root}` says what is missing and where each comes from."
        )
