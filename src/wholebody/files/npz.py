"""Read `.npz` and `.npy` files from strangers: nothing is run, and nothing is unpacked before its header was looked at.

HumanData keeps dictionaries inside `.npz`, as pickles. `numpy.load(allow_pickle=True)` would run whatever such a pickle
names; here each goes through the restricted unpickler, which builds arrays and plain containers only.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.reading import open_file, read_bytes
from wholebody.files.unpickle import RestrictedUnpickler, load_pickle

# All that zipfile and numpy raise on what is damaged, encrypted, or packed in a way that they do not know.
DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError, TypeError, KeyError,
    IndexError, AttributeError, SyntaxError, tokenize.TokenError, NotImplementedError, RuntimeError, MemoryError,
    OverflowError,
)  # fmt: skip  RecursionError is a RuntimeError
_MOST_HEADER = 1 << 16  # bytes; a header is some hundred
_LARGE = 1 << 28  # bytes, from which on packing that saves too much is suspicious
_MOST_PACKED = 20  # times; numbers that somebody measured pack to a half


class ArchiveUnpickler(RestrictedUnpickler):
    kind = "file of annotations"


@dataclass(frozen=True)
class Header:
    """What an array says of itself before its numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool
    size: int
    """Bytes before the numbers."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class SafeNpz(Mapping[str, Any]):
    """The arrays of an `.npz` by name, read when asked for. A 0-dimensional array of objects gives its object.

    Raises BadInput if the file is no archive or damaged, if an array is not what its header or its archive says, if it
    unpacks to far more than anybody's data would, or if it holds a pickle of anything but arrays, numbers, text and
    plain containers; nothing of such a pickle is run.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._file = open_file(self.path)
        except BadInput as error:
            raise BadInput(f"{self.path} is no readable .npz ({error})") from error
        try:
            self._archive = zipfile.ZipFile(self._file)
            self._members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        except DAMAGED as error:
            self._file.close()
            raise BadInput(f"{self.path} is no readable .npz ({error}); fetch or copy it again") from error

    def __enter__(self) -> SafeNpz:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        self._archive.close()
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:  # without reading it
        return name in self._members

    def header(self, name: str) -> Header:
        """The shape and type of an array, from its first bytes alone."""
        try:
            with self._archive.open(self._members[name]) as file:
                return read_header(file)
        except DAMAGED as error:
            raise self._damaged(name, error) from error

    def __getitem__(self, name: str) -> Any:
        if name not in self._members:
            raise KeyError(name)
        header = self.header(name)
        member = self._members[name]
        try:
            if member.file_size > max(_LARGE, _MOST_PACKED * member.compress_size):
                raise ValueError(f"{member.compress_size:,} bytes unpack to {member.file_size:,}")
            if not header.dtype.hasobject:
                if header.size + header.nbytes != member.file_size:
                    raise ValueError(f"{member.file_size:,} bytes, its header speaks of {header.nbytes:,}")
                with self._archive.open(member) as file:
                    return _checked_text(np.lib.format.read_array(file, allow_pickle=False))
            with self._archive.open(member) as file:
                file.read(header.size)
                content = file.read()
        except DAMAGED as error:
            raise self._damaged(name, error) from error
        return self._objects(name, header, content)

    def array(self, name: str, *shape: int | None) -> np.ndarray:
        """An array of numbers, truth values or text of a shape (None: any length), known before it is unpacked."""
        header = self.header(name)
        if len(header.shape) != len(shape) or any(
            wanted is not None and wanted != found for wanted, found in zip(shape, header.shape, strict=True)
        ):
            wanted = "×".join("N" if length is None else str(length) for length in shape) or "a single value"
            found = "×".join(map(str, header.shape)) or "a single value"
            raise BadInput(f"{self.path}: {name!r} is {found} where {wanted} belongs; fetch or make the file again")
        if header.dtype.kind not in "fiubUS":
            raise BadInput(f"{self.path}: {name!r} holds {header.dtype} values, which do not belong there")
        return np.asarray(self[name])

    def rows(self, name: str) -> Rows:
        """An array of numbers as its rows, a few at a time: the archive stays open and the array out of memory."""
        try:
            file = self._archive.open(self._members[name])
            header = read_header(file)
        except DAMAGED as error:
            raise self._damaged(name, error) from error
        if not header.dtype.hasobject and header.size + header.nbytes > self._members[name].file_size:
            raise BadInput(f"{self.path}: {name!r} ends too early; fetch or copy the file again")
        if header.dtype.hasobject or header.by_column or not header.shape:
            return Rows(np.atleast_1d(self[name]), None, f"{self.path}: {name!r}")
        return Rows(np.empty((0, *header.shape[1:]), header.dtype), file, f"{self.path}: {name!r}", header.shape[0])

    def _damaged(self, name: str, error: BaseException) -> BadInput:
        why = str(error)[:200] or type(error).__name__
        return BadInput(f"{self.path}: {name!r} is damaged or cannot be unpacked ({why}); fetch or copy the file again")

    def _objects(self, name: str, header: Header, content: bytes) -> Any:
        if header.dtype != np.dtype(object):
            raise BadInput(f"{self.path}: {name!r} mixes numbers and objects ({header.dtype}), which is not understood")
        array = load_pickle(content, self.path, ArchiveUnpickler)
        if not isinstance(array, np.ndarray) or array.dtype != object or array.shape != header.shape:
            raise BadInput(f"{self.path}: {name!r} is not the array that its header says")
        return array.item() if header.shape == () else np.asarray(array)


def _checked_text(array: np.ndarray) -> np.ndarray:
    """The array; ValueError for text that no Python string can hold (numpy does not look when it reads it)."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        codes = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")).view(np.uint32)
        if codes.max() > 0x10FFFF:
            raise ValueError("text with characters that do not exist")
    return array


def read_arrays(path: str | Path, *names: str) -> dict[str, Any]:
    """The named arrays of an `.npz`, all of them where none is named. BadInput names those that it lacks."""
    with SafeNpz(path) as file:
        if missing := [name for name in names if name not in file]:
            raise BadInput(f"{path}: lacks {', '.join(missing[:5])}; it is of another kind or version: make it again")
        return {name: file[name] for name in names or file}


def npz_bytes(arrays: Mapping[str, Any]) -> bytes:
    """The content of a compressed `.npz` of these arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))
    return buffer.getvalue()


class Rows:
    """Rows of an array in an archive, read one after the other."""

    def __init__(self, whole: np.ndarray, file: IO[bytes] | None, name: str, count: int | None = None):
        self._whole, self._file, self._name, self._at = whole, file, name, 0
        self.shape: tuple[int, ...] = (len(whole) if count is None else count, *whole.shape[1:])
        self.dtype = whole.dtype

    def take(self, count: int) -> np.ndarray:
        """The next rows, at most `count`; BadInput if the archive ends before."""
        count = min(count, self.shape[0] - self._at)
        self._at += count
        if self._file is None:
            return self._whole[self._at - count : self._at]
        size = count * self._whole.dtype.itemsize * math.prod(self.shape[1:])
        try:
            content = self._file.read(size)
        except DAMAGED as error:
            raise BadInput(f"{self._name} is damaged ({error}); fetch or copy the file again") from error
        if len(content) != size:
            raise BadInput(f"{self._name} ends too early; fetch or copy the file again")
        return np.frombuffer(content, self._whole.dtype).reshape(count, *self.shape[1:])


def read_header(file: Any) -> Header:
    """The header of an array at the beginning of a file. Raises any of `DAMAGED`."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} of the array format")
    count = 2 if version == (1, 0) else 4
    length = file.read(count)
    size = int.from_bytes(length, "little")
    if size > _MOST_HEADER:
        raise ValueError(f"a header of {size:,} bytes")
    text = io.BytesIO(length + file.read(size))
    read = np.lib.format.read_array_header_1_0 if count == 2 else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(text)
    if not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"the shape {shape}")
    return Header(shape, dtype, by_column, 8 + count + size)


def read_npy(path: str | Path) -> np.ndarray:
    """The array of an `.npy` file; one of objects (lists of names are often saved so) goes through the restricted
    unpickler too. Raises BadInput."""
    path = Path(path)
    content = read_bytes(path)
    try:
        file = io.BytesIO(content)
        header = read_header(file)
        if header.dtype != np.dtype(object):
            if header.size + header.nbytes != len(content):
                raise ValueError(f"{len(content):,} bytes, its header speaks of {header.nbytes:,}")
            return np.asarray(np.load(io.BytesIO(content), allow_pickle=False))
        # What load_pickle raises says more than this function could.
        array = load_pickle(content[header.size :], path, ArchiveUnpickler)
        return np.asarray(array)
    except DAMAGED as error:
        raise BadInput(f"{path} is no readable .npy file ({error}); fetch it again") from error
