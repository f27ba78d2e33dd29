"""What is to be done, split into shards, written once beside the results; workers read their own shard of it.

`plan/ID-00000.parquet`, ... hold `PART` shards each, a row group a shard; `plan.json`, written last and by one driver
only, says which ID counts. Every source is in it once: that a manifest names one twice is found by hashes (8 bytes a
line are held, no names), and only for those that share a hash the names are compared.
"""

from __future__ import annotations

import io
import json
import secrets
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.storage import Store
from wholebody.scale.item import Item, together

PART = 256
"""Shards in a file of the plan."""
PLAN = "plan.json"
_ROWS = 8192


@dataclass(frozen=True)
class Plan:
    """How a job is split."""

    id: str
    shards: int
    items: int
    """Pictures, films and tars, each once."""
    tars: int
    duplicates: int
    """Lines of the inputs that named something again."""


def read_plan(store: Store) -> Plan | None:
    """The plan of a job that was begun; None: there is none. Raises BadInput for one that cannot be read."""
    if not store.exists(PLAN):
        return None
    try:
        table = json.loads(store.read(PLAN))
        return Plan(**{name: table[name] for name in Plan.__dataclass_fields__})
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{store.place(PLAN)}: is no plan ({error!r}). Choose another --out.") from error


def make_plan(store: Store, items: Iterable[Item], shard_size: int | None = None) -> Plan:
    """Write the plan for these items, or return another driver's that was faster. Raises BadInput where there is
    nothing to do."""
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="wholebody-plan-") as folder:
        path = Path(folder) / "items.parquet"
        hashes = array("q")
        tars = 0
        with pq.ParquetWriter(path, _schema()) as writer:
            for rows in _in_parts(items, _ROWS):
                hashes.extend(hash(item.source) for item in rows)
                tars += sum(item.kind == "tar" for item in rows)
                writer.write_table(_table(rows))
        if not hashes:
            raise BadInput("there is nothing to do: the inputs hold no picture, film or tar.")
        again = _repeated(hashes)
        total = len(hashes)
        del hashes
        merged = _merged(path, again)
        size = shard_size or shard_size_for(total)
        plan_id = secrets.token_hex(4)
        parts: list[str] = []
        try:
            shards, count = _write_parts(store, plan_id, _shards(_once(path, again, merged), size), parts, Path(folder))
            plan = Plan(plan_id, shards, count, tars, total - count)
            if store.create(PLAN, json.dumps(vars(plan), indent=1).encode()):
                return plan
        except BaseException:
            _remove(store, parts)
            raise
    _remove(store, parts)
    other = read_plan(store)
    assert other is not None
    return other


def read_shard(store: Store, plan: Plan, number: int) -> list[Item]:
    """The items of a shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = f"plan/{plan.id}-{number // PART:05d}.parquet"
    try:
        table = pq.ParquetFile(io.BytesIO(store.read(name))).read_row_group(number % PART)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{store.place(name)}: cannot be read ({error}); begin anew in another --out.") from error
    return list(_items(table))


def shard_size_for(count: int) -> int:
    """Pictures a shard: some dozen shards even of a small job, thousands of pictures in those of a large one. It
    depends on the inputs alone, so that every engine writes the same shards."""
    return 50 if count < 5_000 else 200 if count < 100_000 else 1000


# --- each source once -------------------------------------------------------------------------------------------------


def _repeated(hashes: array[int]) -> set[int]:
    values = np.sort(np.frombuffer(hashes, np.int64))
    return set(np.unique(values[1:][values[1:] == values[:-1]]).tolist())


def _merged(path: Path, again: set[int]) -> dict[str, Item]:
    """What all lines together say of the sources that may be named more than once."""
    found: dict[str, Item] = {}
    if again:
        for item in _read(path):
            if hash(item.source) in again:
                known = found.get(item.source)
                found[item.source] = item if known is None else together(known, item)
    return found


def _once(path: Path, again: set[int], merged: dict[str, Item]) -> Iterator[Item]:
    for item in _read(path):
        if hash(item.source) in again:
            first = merged.pop(item.source, None)
            if first is not None:
                yield first
        else:
            yield item


def _shards(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Pictures by `size`; a film and a tar are a shard each."""
    pictures: list[Item] = []
    for item in items:
        if item.kind != "picture" and not item.problem:
            yield [item]
            continue
        pictures.append(item)
        if len(pictures) == size:
            yield pictures
            pictures = []
    if pictures:
        yield pictures


def _in_parts(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    part: list[Any] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


# --- as tables --------------------------------------------------------------------------------------------------------


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([
        ("source", pa.string()), ("kind", pa.string()), ("boxes", pa.list_(pa.list_(pa.float64()))),
        ("problem", pa.string()),
    ])  # fmt: skip


def _table(items: list[Item]) -> Any:
    import pyarrow as pa

    boxes = [None if item.boxes is None else [list(box) for box in item.boxes] for item in items]
    return pa.table(
        [[item.source for item in items], [item.kind for item in items], boxes, [item.problem for item in items]],
        schema=_schema(),
    )


def _write_parts(
    store: Store, plan_id: str, shards: Iterator[list[Item]], parts: list[str], folder: Path
) -> tuple[int, int]:
    """Number of shards and of items; `parts` gets the names of what was written. One shard is held at a time."""
    import pyarrow.parquet as pq

    number, count = 0, 0
    shard = next(shards, None)
    while shard is not None:
        path = folder / "part.parquet"
        with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
            for _ in range(PART):
                writer.write_table(_table(shard), row_group_size=len(shard))
                number, count = number + 1, count + len(shard)
                shard = next(shards, None)
                if shard is None:
                    break
        parts.append(f"plan/{plan_id}-{len(parts):05d}.parquet")
        store.write_file(parts[-1], path)
    return number, count


def _read(path: Path) -> Iterator[Item]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield from _items(file.read_row_group(number))


def _items(table: Any) -> Iterator[Item]:
    columns = [table.column(name).to_pylist() for name in ("source", "kind", "boxes", "problem")]
    for source, kind, boxes, problem in zip(*columns, strict=True):
        yield Item(source, kind, None if boxes is None else tuple(tuple(box) for box in boxes), problem)


def _remove(store: Store, names: list[str]) -> None:
    for name in names:
        store.remove(name)
