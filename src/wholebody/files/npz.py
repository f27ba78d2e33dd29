"""Read `.npz` files that hold pickled objects, without trusting these.

HumanData keeps dictionaries inside `.npz`, as pickles. `numpy.load(allow_pickle=True)` would run whatever such a pickle
names; here each goes through the restricted unpickler, which builds arrays and plain containers only.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.unpickle import RestrictedUnpickler, load_pickle


class _ArchiveUnpickler(RestrictedUnpickler):
    kind = "file of annotations"


class SafeNpz(Mapping[str, Any]):
    """The arrays of an `.npz` by name, read when asked for. A 0-dimensional array of objects gives its object.

    Raises BadInput if the file is no archive or damaged, or if it holds a pickle of anything but arrays, numbers, text
    and plain containers; nothing of such a pickle is run.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._archive = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise BadInput(f"{self.path} is no readable .npz ({error}); fetch or copy it again") from error
        self._members = {name.removesuffix(".npy"): name for name in self._archive.namelist()}

    def __enter__(self) -> SafeNpz:
        return self

    def __exit__(self, *problem: object) -> None:
        self._archive.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, name: object) -> bool:  # without reading it
        return name in self._members

    def __getitem__(self, name: str) -> Any:
        try:
            with self._archive.open(self._members[name]) as file:
                shape, dtype, _ = _header(file)
                if dtype.hasobject:
                    return self._objects(name, shape, dtype, file)
            with self._archive.open(self._members[name]) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, OSError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(name, error) from error

    def rows(self, name: str) -> Rows:
        """An array of numbers as its rows, a few at a time: the archive stays open and the array out of memory."""
        try:
            file = self._archive.open(self._members[name])
            shape, dtype, by_column = _header(file)
        except (ValueError, EOFError, OSError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
            raise self._damaged(name, error) from error
        if dtype.hasobject or by_column or not shape:
            return Rows(np.atleast_1d(self[name]), None, f"{self.path}: {name!r}")
        return Rows(np.empty((0, *shape[1:]), dtype), file, f"{self.path}: {name!r}", shape[0])

    def _damaged(self, name: str, error: Exception) -> BadInput:
        return BadInput(f"{self.path}: {name!r} is damaged ({error}); fetch or copy the file again")

    def _objects(self, name: str, shape: tuple[int, ...], dtype: np.dtype, file: Any) -> Any:
        if dtype != np.dtype(object):
            raise BadInput(f"{self.path}: {name!r} mixes numbers and objects ({dtype}), which is not understood")
        array = load_pickle(file, self.path, _ArchiveUnpickler)
        if not isinstance(array, np.ndarray) or array.dtype != object or array.shape != shape:
            raise BadInput(f"{self.path}: {name!r} is not the array that its header says")
        return array.item() if shape == () else np.asarray(array)


class Rows:
    """Rows of an array in an archive, read one after the other."""

    def __init__(self, whole: np.ndarray, file: IO[bytes] | None, name: str, count: int | None = None):
        self._whole, self._file, self._name, self._at = whole, file, name, 0
        self.shape: tuple[int, ...] = (len(whole) if count is None else count, *whole.shape[1:])

    def take(self, count: int) -> np.ndarray:
        """The next rows, at most `count`; BadInput if the archive ends before."""
        count = min(count, self.shape[0] - self._at)
        self._at += count
        if self._file is None:
            return self._whole[self._at - count : self._at]
        size = count * self._whole.dtype.itemsize * int(np.prod(self.shape[1:]))
        try:
            content = self._file.read(size)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(f"{self._name} is damaged ({error}); fetch or copy the file again") from error
        if len(content) != size:
            raise BadInput(f"{self._name} ends too early; fetch or copy the file again")
        return np.frombuffer(content, self._whole.dtype).reshape(count, *self.shape[1:])


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype, bool]:
    """(shape, type, whether columns come first)"""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    elif version in ((2, 0), (3, 0)):
        shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the array format")
    return shape, dtype, by_column


def read_npy(path: Path) -> np.ndarray:
    """The array of an `.npy` file; one of objects (lists of names are often saved so) goes through the restricted
    unpickler too."""
    try:
        with open(path, "rb") as file:
            _, dtype, _ = _header(file)
            if dtype == np.dtype(object):
                return np.asarray(load_pickle(file, path, _ArchiveUnpickler))
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise BadInput(f"{path} is no readable .npy file ({error}); fetch it again") from error
