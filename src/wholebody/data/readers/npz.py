"""Read `.npz` files that hold pickled objects, without trusting these.

HumanData keeps dictionaries inside `.npz`, as pickles. `numpy.load(allow_pickle=True)` would run whatever such a pickle
names; here each goes through the restricted unpickler, which builds arrays and plain containers only.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.unpickle import RestrictedUnpickler, load_pickle
from wholebody.errors import BadInput


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

    def __getitem__(self, name: str) -> Any:
        try:
            with self._archive.open(self._members[name]) as file:
                shape, dtype = _header(file)
                if dtype.hasobject:
                    return self._objects(name, shape, dtype, file)
            with self._archive.open(self._members[name]) as file:
                return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, OSError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(f"{self.path}: {name!r} is damaged ({error}); fetch or copy the file again") from error

    def _objects(self, name: str, shape: tuple[int, ...], dtype: np.dtype, file: Any) -> Any:
        if dtype != np.dtype(object):
            raise BadInput(f"{self.path}: {name!r} mixes numbers and objects ({dtype}), which is not understood")
        array = load_pickle(file, self.path, _ArchiveUnpickler)
        if not isinstance(array, np.ndarray) or array.dtype != object or array.shape != shape:
            raise BadInput(f"{self.path}: {name!r} is not the array that its header says")
        return array.item() if shape == () else np.asarray(array)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version in ((2, 0), (3, 0)):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the array format")
    return shape, dtype


def read_npy(path: Path) -> np.ndarray:
    """The array of an `.npy` file; one of objects (lists of names are often saved so) goes through the restricted
    unpickler too."""
    try:
        with open(path, "rb") as file:
            _, dtype = _header(file)
            if dtype == np.dtype(object):
                return np.asarray(load_pickle(file, path, _ArchiveUnpickler))
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise BadInput(f"{path} is no readable .npy file ({error}); fetch it again") from error
