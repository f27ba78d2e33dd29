"""Read pandas tables from pickles without trusting them and without pandas.

AGORA hands out its camera and ground truth tables as pickled DataFrames (`*_withjv.pkl`, written by pandas 1.0 to 1.2);
who saves them again does so with pandas 1, 2 or 3.
Unpickling them the usual way runs whatever they name. Here stand-ins take the place of pandas' classes and keep what
the pickle gives them; the columns are then read off the blocks that a DataFrame is stored as.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.unpickle import Call, RestrictedUnpickler, Stub, as_array, read_pickle


class _Frame(Stub):
    """A DataFrame: its state is a dictionary whose `_mgr` (`_data` before pandas 1.1) is the manager."""


class _Manager(Stub):
    """A BlockManager: (blocks, axes) as arguments since pandas 1.3, a tuple of four as state before."""

    args: tuple[Any, ...] = ()  # a class that is made and given a state is not called

    def __init__(self, *args: Any):
        self.args = args


class _Axis:
    """The labels of rows or columns."""

    __slots__ = ("labels",)

    def __init__(self, labels: Sequence[Any]):
        self.labels = labels


class _Block:
    """Columns of one type: values (columns, rows) and which columns they are."""

    __slots__ = ("columns", "values")

    def __init__(self, values: Any, columns: Any):
        if isinstance(values, _Texts):
            values = values.array()[None]
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            raise pickle.UnpicklingError("columns of an unknown kind; save the table with plain numpy columns")
        self.values, self.columns = values, columns


class _Slice:
    """`slice(a, b, step)` as pandas pickles it."""

    __slots__ = ("value",)

    def __init__(self, *bounds: Any):
        if not all(bound is None or isinstance(bound, int) for bound in bounds):
            raise pickle.UnpicklingError("a slice of something else than numbers")
        self.value = slice(*bounds)


class _Texts(Stub):
    """A column of text as pandas 3 keeps it: Arrow's buffers, or (type, array of objects)."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        """(N,) objects: texts, None where there is none."""
        if isinstance(self.state, tuple):
            values = self.state[1]
        else:
            values = self.state["_pa_array"] if "_pa_array" in self.state else self.state["_data"]
        if isinstance(values, list):  # chunks
            values = np.concatenate([np.empty(0, object), *values])
        if not isinstance(values, np.ndarray) or values.dtype != object or values.ndim != 1:
            raise pickle.UnpicklingError("a column of text of an unknown kind")
        missing = [isinstance(value, float) for value in values]
        texts = np.array(values, object)
        texts[missing] = None
        return texts


@Call
def _new_texts(kind: Any, checksum: Any, state: Any) -> Any:
    if not (isinstance(kind, type) and issubclass(kind, _Texts)):
        raise pickle.UnpicklingError("columns of an unknown kind; save the table with plain numpy columns")
    return kind.__new__(kind)


@Call
def _arrow_type(name: Any) -> Any:
    if name not in ("string", "large_string"):
        raise pickle.UnpicklingError(f"a column of Arrow's type {name!r:.40}")
    return name


@Call
def _arrow_buffer(content: Any) -> bytes:
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("a buffer of something else than bytes")
    return bytes(content)


@Call
def _arrow_array(data: Any) -> np.ndarray:
    """Arrow's text: where each begins and ends in the bytes of all, and one bit each for being there."""
    kind, length, _, offset, (there, ends, content) = data[:5]
    bounds = np.frombuffer(ends, "<i8" if kind == "large_string" else "<i4")[offset : offset + length + 1].tolist()
    known = [True] * len(bounds[1:])
    if there is not None:
        known = np.unpackbits(np.frombuffer(there, np.uint8), bitorder="little")[offset : offset + length].tolist()
    if not 0 <= length == len(known) == len(bounds) - 1:
        raise pickle.UnpicklingError("a column of text that ends too early")
    texts = np.empty(length, object)
    for row, (start, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
        if not 0 <= start <= end <= len(content or b""):
            raise pickle.UnpicklingError("a text outside of its column")
        texts[row] = (content or b"")[start:end].decode() if known[row] else None
    return texts


@Call
def _arrow_chunks(chunks: Any, kind: Any = None) -> list[Any]:
    return list(chunks)


@Call
def _text_type(*args: Any) -> None:
    return None


@Call
def _new_axis(kind: Any, state: Any, *_: Any) -> _Axis:
    if not isinstance(state, dict):
        raise pickle.UnpicklingError("labels of an unknown kind")
    if "data" in state:
        data = state["data"]
        return _Axis((data.array() if isinstance(data, _Texts) else as_array(data)).tolist())
    start, stop, step = (state[key] for key in ("start", "stop", "step"))
    if not all(isinstance(number, int) for number in (start, stop, step)):
        raise pickle.UnpicklingError("row labels of an unknown kind")
    return _Axis(range(start, stop, step))


@Call
def _new_block(values: Any, columns: Any, ndim: Any = 2) -> _Block:
    return _Block(values, columns)


@Call
def _index_class(*args: Any) -> Any:
    raise pickle.UnpicklingError("labels made out of turn")


_TEXTS = ("ArrowStringArray", "ArrowStringArrayNumpySemantics", "StringArray", "StringArrayNumpySemantics")
_ARROW = {"type_for_alias": _arrow_type, "py_buffer": _arrow_buffer, "_restore_array": _arrow_array,
          "chunked_array": _arrow_chunks}  # fmt: skip
_INDEXES = ("Index", "RangeIndex", "Int64Index", "Float64Index", "UInt64Index")


class _FrameUnpickler(RestrictedUnpickler):
    kind = "table of ground truth"

    def __init__(self, file: Any, path: Path):
        super().__init__(file, path)
        # Made anew for every file, as the stand-ins of the base class are.
        self._frame = type("_Frame", (_Frame,), {})
        self._manager = type("_Manager", (_Manager,), {})
        self._slice = type("_Slice", (_Slice,), {"__slots__": ()})
        self._texts = type("_Texts", (_Texts,), {})

    def find_class(self, module: str, name: str) -> Any:
        if module in ("pandas", "pandas.core.frame") and name == "DataFrame":
            return self._frame
        if module.startswith("pandas.core.internals") and name == "BlockManager":
            return self._manager
        if (module, name) == ("pandas._libs.internals", "_unpickle_block"):
            return _new_block
        if module.startswith("pandas.core.indexes") and name == "_new_Index":
            return _new_axis
        if (module == "pandas" or module.startswith("pandas.core.indexes")) and name in _INDEXES:
            return _index_class
        if module.split(".")[0] == "pandas" and name in _TEXTS:
            return self._texts
        if module.split(".")[0] == "pandas" and name == "StringDtype":
            return _text_type
        if (module, name) == ("pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"):
            return _new_texts
        if module == "pyarrow.lib" and name in _ARROW:
            return _ARROW[name]
        if (module, name) in (("builtins", "slice"), ("__builtin__", "slice")):
            return self._slice
        return super().find_class(module, name)


def read_dataframe(path: str | Path) -> dict[str, list[Any]]:
    """The columns of a pickled DataFrame by name, each a list with one entry a row.

    Raises BadInput, before anything runs, if the pickle names anything but DataFrames, arrays and plain containers;
    AssetMissing if there is no such file.
    """
    path = Path(path)
    frame = read_pickle(path, _FrameUnpickler)
    if not isinstance(frame, _Frame) or not isinstance(frame.state, dict):
        raise BadInput(f"{path} holds no table (a pandas DataFrame) but a {type(frame).__name__.lstrip('_')}")
    try:
        return _columns(frame.state["_mgr"] if "_mgr" in frame.state else frame.state["_data"])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"{path} is a pickled DataFrame of a form that is not known here ({type(error).__name__}: {error}); load "
            "it with pandas and save it again with plain columns, by `to_pickle`"
        ) from error


def _columns(manager: _Manager) -> dict[str, list[Any]]:
    if manager.args:  # pandas 1.3 and later
        blocks, (columns, rows) = manager.args
    else:
        (columns, rows), _, _, versions = manager.state
        parts = versions["0.14.1"]
        columns, rows = parts["axes"]
        blocks = [_Block(block["values"], block["mgr_locs"]) for block in parts["blocks"]]
    table: dict[str, list[Any]] = {}
    for block in blocks:
        places = block.columns.value if isinstance(block.columns, _Slice) else np.asarray(block.columns)
        names = [columns.labels[int(k)] for k in np.arange(len(columns.labels))[places]]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"columns named {names!r:.60}")
        if block.values.shape != (len(names), len(rows.labels)):
            raise ValueError(f"columns {names} hold {block.values.shape} values for {len(rows.labels)} rows")
        # A list of objects, not an array: cells hold lists of arrays.
        table.update({name: list(values) for name, values in zip(names, block.values, strict=True)})
    return {name: table[name] for name in columns.labels}
