"""The guard of folders that several runs work on: what an earlier run made with other options is not mixed with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wholebody.errors import BadInput
from wholebody.files.whole import write_json


def differences(before: Mapping[str, Any], now: Mapping[str, Any], label: str = "") -> list[str]:
    """Options that differ, each as "NAME OLD then, NEW now" after `label`; those of nested tables by dotted names."""
    old, new = _flat(before), _flat(now)
    return [f"{label}{name} {old.get(name)} then, {new.get(name)} now" for name in old | new
            if old.get(name) != new.get(name)]  # fmt: skip


def check_same_options(
    record: Path,
    options: Mapping[str, Any],
    way_out: str,
    *,
    defaults: Mapping[str, Any] | None = None,
    label: str = "--",
) -> bool:
    """Whether `record` says that an earlier run had the same options; False: there was none.

    Args:
        options: what JSON can say, and paths; values that the record does not know are compared with `defaults`.
        way_out: the sentence that ends the refusal, with what to do.
        label: what stands before an option's name in messages.

    Raises:
        BadInput: the options differ (each is named), or the record cannot be read.
    """
    try:
        content = record.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadInput(f"{record}: cannot be read ({error.strerror or error}). {way_out}") from error
    try:
        before = json.loads(content)
        if not isinstance(before, dict):
            raise ValueError("it is no table of options")
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{record}: cannot be read ({error}). {way_out}") from error
    now = _plain(options)
    known = _merged(_plain(defaults or {}), before)
    changed = differences({name: known.get(name) for name in now}, now, label)
    if changed:
        raise BadInput(f"{record.parent} was made with other options ({'; '.join(changed)}). {way_out}")
    return True


def record_options(record: Path, options: Mapping[str, Any]) -> None:
    """Write the record that `check_same_options` reads, whole or not at all. Raises OutputError."""
    write_json(record, _plain(options), indent=1)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists, paths are texts."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(options), default=str))
    return plain


def _merged(defaults: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults) | dict(known)
    for name, value in defaults.items():
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            merged[name] = _merged(value, known[name])
    return merged


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
