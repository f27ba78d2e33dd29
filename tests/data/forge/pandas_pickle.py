"""Pickled pandas DataFrames, byte for byte of the form that pandas 1.0 to 1.2 and 1.3 to 2 write, without pandas.

The opcodes name pandas' classes, as its own pickles do; nothing here needs them to exist.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class _Name:
    """A class or function of some module."""

    module: str
    name: str


@dataclass(frozen=True)
class _New:
    """`cls.__new__(cls)`, then its state."""

    cls: _Name
    state: Any


@dataclass(frozen=True)
class _Called:
    function: _Name
    args: tuple


class _Pickler(pickle._Pickler):  # the one written in Python: its opcodes can be chosen
    dispatch = dict(pickle._Pickler.dispatch)

    def save_name(self, value: _Name) -> None:
        self.save(value.module)
        self.save(value.name)
        self.write(pickle.STACK_GLOBAL)

    def save_new(self, value: _New) -> None:
        self.save(value.cls)
        self.save(())
        self.write(pickle.NEWOBJ)
        self.save(value.state)
        self.write(pickle.BUILD)

    def save_called(self, value: _Called) -> None:
        self.save(value.function)
        self.save(value.args)
        self.write(pickle.REDUCE)

    dispatch[_Name], dispatch[_New], dispatch[_Called] = save_name, save_new, save_called


_FRAME = _Name("pandas.core.frame", "DataFrame")
_MANAGER = _Name("pandas.core.internals.managers", "BlockManager")
_NEW_INDEX = _Name("pandas.core.indexes.base", "_new_Index")
_INDEX = _Name("pandas.core.indexes.base", "Index")
_RANGE = _Name("pandas.core.indexes.range", "RangeIndex")
_BLOCK = _Name("pandas._libs.internals", "_unpickle_block")


def dumps(columns: dict[str, list], version: str = "1.2") -> bytes:
    """A table, `version` "1.0", "1.2" (AGORA's) or "1.5". Numbers and text as columns of their own kinds."""
    names, rows = list(columns), len(next(iter(columns.values())))
    kinds: dict[str, list[int]] = {}
    for place, values in enumerate(columns.values()):
        kind = {float: "f8", bool: "?", int: "i8"}.get(type(values[0]), "O")
        kinds.setdefault(kind, []).append(place)
    blocks = []
    for kind, places in kinds.items():
        values = np.empty((len(places), rows), kind)
        for row, place in enumerate(places):
            for k, cell in enumerate(columns[names[place]]):
                values[row, k] = cell
        blocks.append((values, _placement(places)))
    labels = np.empty(len(names), object)
    labels[:] = names
    axes = [
        _Called(_NEW_INDEX, (_INDEX, {"data": labels, "name": None})),
        _Called(_NEW_INDEX, (_RANGE, {"name": None, "start": 0, "stop": rows, "step": 1})),
    ]
    if version in ("1.0", "1.2"):
        parts = {"axes": axes, "blocks": [{"values": values, "mgr_locs": where} for values, where in blocks]}
        held = [labels[where] for _, where in blocks]
        state = (axes, [values for values, _ in blocks], held, {"0.14.1": parts})
        manager: Any = _New(_MANAGER, state)
    else:
        manager = _Called(_MANAGER, (tuple(_Called(_BLOCK, (v, where, 2)) for v, where in blocks), axes))
    frame = {"_data" if version == "1.0" else "_mgr": manager, "_typ": "dataframe", "_metadata": []}
    if version != "1.0":
        frame |= {"attrs": {}, "_flags": {"allows_duplicate_labels": True}}
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5 if version != "1.0" else 4).dump(_New(_FRAME, frame))
    return buffer.getvalue()


def _placement(places: list[int]) -> slice | np.ndarray:
    steps = set(np.diff(places).tolist())
    if len(places) == 1 or steps == {1}:
        return slice(places[0], places[-1] + 1, 1)
    return np.array(places, np.int64)
