"""Read pickles without trusting them: numbers, arrays and plain containers come out, and nothing ever runs.

The licensed `.pkl` files were written by Python 2 with chumpy arrays and scipy matrices inside. Neither package is
needed (chumpy no longer installs): stand-ins keep the state that the pickle gives, and `as_dense` makes arrays of it.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.errors import AssetMissing, BadInput, WholebodyError
from wholebody.files.pickle_check import check_pickle
from wholebody.files.reading import read_bytes


class Stub:
    """Stands for a class whose module is not needed: keeps the state that the pickle gives it, and nothing more."""

    state: Any = None

    def __new__(cls, *args: Any) -> Stub:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        # Python objects pickle as a dictionary, or as (dictionary, slots).
        if isinstance(state, tuple) and len(state) == 2:
            state = {**(state[0] or {}), **(state[1] or {})}
        self.state = state


class _Chumpy(Stub):
    """A chumpy array: its value is `x`, or, for a selection, entries `idxs` of another one, `a`."""


class _Sparse(Stub):
    """A scipy CSC or CSR matrix."""

    by_column = True


def as_dense(value: Any) -> Any:
    """A numpy array from what a body pickle may hold: arrays, chumpy arrays, sparse matrices. Raises BadInput."""
    return _as_dense(value, 0)


def _as_dense(value: Any, depth: int) -> Any:
    if depth > _MOST_SELECTIONS:
        raise BadInput("a chumpy array in this body file is a selection of itself; fetch the file again")
    if isinstance(value, _Chumpy):
        state = value.state if isinstance(value.state, dict) else {}
        try:
            if "x" in state:
                return as_array(_as_dense(state["x"], depth + 1))
            if "a" in state and "idxs" in state:
                chosen = as_array(_as_dense(state["a"], depth + 1)).ravel()[as_array(state["idxs"])]
                shape = state.get("preferred_shape")
                return chosen if shape is None else chosen.reshape(shape)
        except _DAMAGED as error:
            raise BadInput(f"a chumpy array in this body file is damaged ({error})") from error
        held = ", ".join(map(str, state)) or "nothing"
        raise BadInput(f"a chumpy array in this body file has no value (it holds {held})")
    if isinstance(value, _Sparse):
        try:
            state = value.state
            shape = tuple(int(n) for n in state.get("_shape", state.get("shape", ())))
            values, lines, ends = (as_array(state[key]) for key in ("data", "indices", "indptr"))
            if len(shape) != 2 or min(shape) < 0 or math.prod(shape) > MOST_NUMBERS:
                raise ValueError(f"its shape is {shape}")
            dense = np.zeros(shape[::-1] if value.by_column else shape, values.dtype)
            np.add.at(dense, (_lines_of(ends, lines), lines), values)
            return dense.T if value.by_column else dense
        except _DAMAGED as error:
            raise BadInput(f"a sparse matrix in this body file is damaged ({error})") from error
    return value


def _lines_of(ends: np.ndarray, entries: np.ndarray) -> np.ndarray:
    """(N,) the compressed line of each of N entries; ValueError where `ends` counts others than these."""
    counts = np.diff(ends.ravel())
    if (counts < 0).any() or counts.sum() != entries.size:
        raise ValueError(f"its lines hold {counts.sum()} entries, there are {entries.size}")
    return np.repeat(np.arange(len(counts)), counts)


def sparse_entries(value: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Rows, columns and values (N each) of a pickled sparse matrix, and its shape. Raises BadInput."""
    if not isinstance(value, _Sparse):
        raise BadInput(f"a sparse matrix is expected, not a {type(value).__name__}")
    try:
        state = value.state
        rows, columns = (int(n) for n in state.get("_shape", state.get("shape", ())))
        values, lines, ends = (as_array(state[key]).ravel() for key in ("data", "indices", "indptr"))
        major = _lines_of(ends, lines)
        inner, outer = (rows, columns) if value.by_column else (columns, rows)
        fits = len(ends) == outer + 1 and len(major) == len(lines) == len(values)
        if not fits or (len(lines) and not 0 <= lines.min() <= lines.max() < inner) or values.dtype.kind not in "fiu":
            raise ValueError("its entries do not fit its shape")
        return (lines, major, values, (rows, columns)) if value.by_column else (major, lines, values, (rows, columns))
    except _DAMAGED as error:
        raise BadInput(f"a sparse matrix in this file is damaged ({error})") from error


def as_array(value: Any) -> np.ndarray:
    """`np.asarray` of what a stranger's pickle holds: lists that share parts of themselves may not grow without end.

    Raises ValueError.
    """
    size, inner = 1, value
    for _ in range(_MOST_SELECTIONS):
        if not isinstance(inner, list | tuple) or not inner:
            break
        size, inner = size * len(inner), inner[0]
    if size > MOST_NUMBERS:
        raise ValueError(f"lists of {size:,} numbers")
    try:
        return np.asarray(value)
    except RecursionError as error:
        raise ValueError("lists that hold themselves") from error


MOST_NUMBERS = 1 << 27
"""Of an array that is made of lists or a sparse matrix; a body's largest has 15 million."""
_MOST_SELECTIONS = 32
_DAMAGED = (AttributeError, KeyError, IndexError, ValueError, TypeError, MemoryError, OverflowError, RecursionError)


class Call:
    """A function that a pickle may call and, unlike a bare function, not write attributes to."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the state of a function")


class _Dtype:
    """The type of an array: plain numbers, text or objects. Numpy's own would take any state that a pickle makes up."""

    __slots__ = ("value",)

    def __init__(self, name: str, *args: Any):
        if not isinstance(name, str) or np.dtype(name).kind not in "biufcSUO" or np.dtype(name).names:
            raise pickle.UnpicklingError(f"an array of type {name!r}")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[2:5] != (None, None, None):
            raise pickle.UnpicklingError("an array of a compound type")
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array under construction: what sets its content is checked first."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array of an unknown type")
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
            raise pickle.UnpicklingError(f"an array of shape {shape!r:.80}")
        # Objects come as a list, numbers as bytes; taking one for the other would make pointers of made-up numbers.
        if isinstance(content, list) != dtype.value.hasobject or not isinstance(content, list | bytes | str):
            raise pickle.UnpicklingError("an array whose content does not fit its type")
        # Numpy reads as many pointers as the shape says, whether they are there or not.
        unit = 1 if dtype.value.hasobject else dtype.value.itemsize
        if math.prod(shape) * unit != len(content) or (unit == 0 and math.prod(shape) > 0):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(content)} for content")
        super().__setstate__((1, shape, dtype.value, bool(fortran), content))  # type: ignore[arg-type]


@Call
def _latin1(text: str, encoding: str) -> bytes:
    """What Python 2 bytes in a Python 3 pickle call; any other codec is refused."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"the codec {encoding!r} is not allowed")
    return text.encode("latin1")


@Call
def _no_bytes() -> bytes:
    """How a Python 3 pickle of protocol 2 writes empty bytes."""
    return b""


@Call
def _uncallable(*args: Any) -> Any:
    """Stands for a class that pickles name but never call."""
    raise pickle.UnpicklingError("an array made out of turn")


_PLAIN = {"object": object, "set": set, "frozenset": frozenset, "complex": complex, "bytes": _no_bytes}


class RestrictedUnpickler(pickle.Unpickler):
    """Builds arrays and plain containers only: a name outside this list is refused before anything is called."""

    kind = "body file"  # what the messages call the file

    def __init__(self, file: Any, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path
        # Made anew for every file, so that no pickle can leave its mark on a class that the next one uses.
        self._chumpy = type("_Chumpy", (_Chumpy,), {})
        self._dtype = type("_Dtype", (_Dtype,), {"__slots__": ()})
        self._csc = type("_Sparse", (_Sparse,), {"by_column": True})
        self._csr = type("_Sparse", (_Sparse,), {"by_column": False})

    def find_class(self, module: str, name: str) -> Any:
        package = module.partition(".")[0]
        if package == "numpy":
            if name in ("ndarray", "dtype") and module == "numpy":
                return self._dtype if name == "dtype" else _uncallable
            if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
                return _reconstruct_array
            if name == "scalar" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
                return _scalar
            if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):
                return _array_from_buffer
        if package == "scipy" and module.startswith("scipy.sparse"):
            if name in ("csc_matrix", "csc_array"):
                return self._csc
            if name in ("csr_matrix", "csr_array"):
                return self._csr
        if package == "chumpy" and name[:1].isupper():
            return self._chumpy
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return _reconstruct_stub
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        raise BadInput(
            f"{self._path} wants to run {module}.{name}, which a {self.kind} has no need of: it is refused and nothing "
            "was run. Fetch the file again from its own site"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise BadInput(f"{self._path} refers to an outside object, which a {self.kind} has no need of")


@Call
def _reconstruct_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not _uncallable:
        raise pickle.UnpicklingError("an array of an unknown kind")
    return np.empty(0, np.int8).view(_Array)  # the state that follows gives shape, type and content


@Call
def _scalar(dtype: Any, data: Any = None) -> Any:
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, _plain_type(dtype))[0]


@Call
def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axis_order: Any = None) -> np.ndarray:
    return np.frombuffer(data, _plain_type(dtype)).reshape(shape, order="F" if order == "F" else "C")


def _plain_type(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Dtype) or dtype.value.hasobject:
        raise pickle.UnpicklingError("numbers of an unknown type")
    return dtype.value


@Call
def _reconstruct_stub(cls: Any, base: Any, state: Any) -> Stub:
    if not (isinstance(cls, type) and issubclass(cls, Stub)):
        raise pickle.UnpicklingError("an object of an unknown class")
    return cls.__new__(cls)


def read_pickle(path: str | Path, unpickler: type[RestrictedUnpickler] = RestrictedUnpickler) -> Any:
    """The content of a pickle (Python 2 or 3), built from numbers, arrays and plain containers only.

    Chumpy arrays and scipy sparse matrices become stand-ins that `as_dense` turns into arrays; neither package is
    needed. A pickle that names any other class or function raises BadInput before anything runs. An `unpickler` may
    know more stand-ins.
    """
    path = Path(path)
    if not path.exists():
        raise AssetMissing(f"there is no file at {path}")
    return load_pickle(read_bytes(path), path, unpickler)


def load_pickle(data: bytes, path: Path, unpickler: type[RestrictedUnpickler] = RestrictedUnpickler) -> Any:
    """As `read_pickle`, from the bytes; `path` is for messages."""
    try:
        check_pickle(data)
        return unpickler(io.BytesIO(data), path).load()
    except WholebodyError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise BadInput(f"{path} is not a readable pickle ({type(error).__name__}: {error}); fetch it again") from error
