"""Settings from files: a table becomes a typed dataclass, or an error says which setting of which file is wrong and
what was probably meant."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from wholebody.errors import BadInput
from wholebody.files.reading import read_bytes

T = TypeVar("T")


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file. BadInput if it cannot be read or is none."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is no text in UTF-8, which TOML has to be: {error}") from error
    except (ValueError, RecursionError) as error:  # also numbers of too many digits
        raise BadInput(f"{path}: not a TOML file: {error}") from error


def override(table: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The table with `key.subkey=value` set: values in TOML's notation, plain words are texts."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    table = _copy(table)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise BadInput(f"{change!r} is not of the form key=value, as in steps=100 or data.layers=DIR")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            parsed = value
        *parents, last = (part.strip() for part in key.split("."))
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise BadInput(f"{change!r}: {parent} is {place!r}, not a table with settings of its own")
        place[last] = parsed
    return table


def from_table(kind: type[T], table: Mapping[str, Any], source: str, other_names: Mapping[str, str] | None = None) -> T:
    """The dataclass `kind` from nested tables of plain values. Nothing is converted: `1` is no text, `true` no number.

    Args:
        source: what the table was read from, for messages.
        other_names: what users of other programs call settings: dotted names here by those there.

    Raises:
        BadInput: a setting that is not known (with what may have been meant), missing, or of another type.
    """
    import cattrs
    from cattrs.v import format_exception

    unknown = [f"{name} is no setting{_meant(name, kind, other_names or {})}" for name in _unknown(kind, table)]
    if unknown:
        raise BadInput(f"{source}: {'; '.join(unknown)}")
    converter = cattrs.Converter(forbid_extra_keys=True)
    for plain, words in ((str, "text"), (bool, "true or false"), (int, "a whole number"), (float, "a number")):
        converter.register_structure_hook(plain, _strict(plain, words))

    def reason(error: BaseException, hint: type | None) -> str:
        return str(error) if type(error) is ValueError else format_exception(error, hint)

    try:
        return converter.structure(table, kind)
    except cattrs.BaseValidationError as error:
        wrong = (
            " for ".join(part.removeprefix("config.") for part in line.rsplit(" @ ", 1))
            for line in cattrs.transform_error(error, path="config", format_exception=reason)
        )
        raise BadInput(f"{source}: {'; '.join(wrong)}") from error


def to_table(settings: Any) -> dict[str, Any]:
    """Nested tables of plain values; the inverse of `from_table`."""
    return dataclasses.asdict(settings)


def names_of(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every setting of a dataclass by its dotted name, those of nested tables too."""
    for name, hint in typing.get_type_hints(kind).items():
        yield prefix + name
        nested, many = _nested(hint)
        if nested is not None and not many:
            yield from names_of(nested, f"{prefix}{name}.")


def _unknown(kind: Any, table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(kind)
    for name, value in table.items():
        if name not in hints:
            yield f"{prefix}{name}"
            continue
        nested, many = _nested(hints[name])
        if nested is None:
            continue
        if many and isinstance(value, list | tuple):
            for number, entry in enumerate(value):
                if isinstance(entry, Mapping):
                    yield from _unknown(nested, entry, f"{prefix}{name}[{number}].")
        elif not many and isinstance(value, Mapping):
            yield from _unknown(nested, value, f"{prefix}{name}.")


def _nested(hint: Any) -> tuple[Any, bool]:
    """The dataclass that a field holds, alone or in a tuple (then True); None for a plain value."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next((option for option in typing.get_args(hint) if option is not type(None)), hint)
    if typing.get_origin(hint) is tuple:
        first = typing.get_args(hint)[0] if typing.get_args(hint) else None
        return (first, True) if dataclasses.is_dataclass(first) else (None, False)
    return (hint, False) if dataclasses.is_dataclass(hint) else (None, False)


def _meant(unknown: str, kind: Any, other_names: Mapping[str, str]) -> str:
    """The question what was meant: what others call so, else what is spelt alike, first where it stands."""
    place, _, last = unknown.rpartition(".")
    place += "." if place else ""
    if last in other_names:
        return f" (did you mean {other_names[last]}?)"
    if "[" in place:  # of an entry of a list, whose names are not among the dotted ones
        entry = kind
        for part in place.rstrip(".").split("."):
            entry = _nested(typing.get_type_hints(entry)[part.split("[")[0]])[0]
        close = _close(last, list(typing.get_type_hints(entry)))
        return f" (did you mean {place}{close[0]}?)" if close else ""
    names = list(names_of(kind))
    here = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == place.rstrip(".")}
    elsewhere = {name.rpartition(".")[2]: name for name in names}
    for known in (here, {last: elsewhere[last]} if last in elsewhere else {}, elsewhere):
        if close := _close(last, list(known)):
            return f" (did you mean {known[close[0]]}?)"
    near = _close(last, list(other_names))
    return f" (did you mean {other_names[near[0]]}?)" if near else ""


def _close(word: str, known: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.7)


def _strict(kind: type, name: str) -> Any:
    def structure(value: Any, _: type) -> Any:
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{value!r} is not {name}")
        return kind(value)

    return structure


def _copy(value: Any) -> Any:
    return {key: _copy(one) for key, one in value.items()} if isinstance(value, dict) else value
