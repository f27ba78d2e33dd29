"""Inputs of many pictures as one stream of items: folders, globs, manifests, tars, here and on object storage.

Nothing is opened but manifests, and nothing is held: ten million lines pass through in the memory of some thousand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wholebody.errors import AssetMissing, BadInput
from wholebody.files.image import is_left_alone
from wholebody.files.storage import file_system, is_address, why
from wholebody.files.text import shown
from wholebody.scale.item import PARQUET, TABLE, TARS, TEXT, Item, kind_of, named
from wholebody.scale.manifest import read_manifest


def read_inputs(
    inputs: Sequence[str], *, skip: str | None = None, column: str | None = None, root: str | None = None
) -> Iterator[Item]:
    """The items of all inputs, in their order. Raises BadInput for an input that is not there, may not be read, or
    holds nothing; what single lines of a manifest have wrong with them is said in `Item.problem`.

    Args:
        skip: the output folder, whose pictures are results.
        column, root: of manifests, see `ManyConfig`.
    """
    for given in inputs:
        count = 0
        for item in _items_of(given, skip, column, root):
            count += 1
            yield item
        if not count:
            raise BadInput(f"{shown(given)}: holds no picture, film or tar.")


def _items_of(given: str, skip: str | None, column: str | None, root: str | None) -> Iterator[Item]:
    if is_address(given):
        yield from _of_address(given, column, root)
        return
    path = Path(given)
    if path.is_dir():
        yield from _of_folder(path, skip)
    elif path.exists():
        kind = kind_of(given)
        if kind == "manifest":
            yield from read_manifest(given, column, root)
        elif kind:
            yield named(os.path.abspath(given), kind)
        else:
            raise BadInput(
                f"{shown(given)}: is no picture, film, tar ({', '.join(TARS)}) or manifest "
                f"({', '.join((*TEXT, *TABLE, *PARQUET))}) by its name."
            )
    elif any(letter in given for letter in "*?["):
        yield from _of_glob(given, skip, column, root)
    else:
        raise BadInput(f"{shown(given)}: no such file or folder.")


# --- folders and globs ------------------------------------------------------------------------------------------------


def _of_folder(folder: Path, skip: str | None) -> Iterator[Item]:
    """All pictures, films and tars below, folder by folder, sorted by name."""

    def cannot(error: OSError) -> None:
        raise BadInput(f"{shown(str(error.filename))}: the folder cannot be listed ({error.strerror}).")

    root = os.path.abspath(folder)
    for where, folders, names in os.walk(root, onerror=cannot):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if skip is not None and where != root and is_left_alone(Path(where), Path(root), skip, None):
            folders.clear()
            continue
        for name in sorted(names):
            kind = kind_of(name)
            if not name.startswith(".") and kind in ("picture", "film", "tar"):
                yield named(os.path.join(where, name), kind)


def _of_glob(pattern: str, skip: str | None, column: str | None, root: str | None) -> Iterator[Item]:
    import glob

    matches = sorted(glob.glob(pattern, recursive=True))
    if not matches:
        raise BadInput(f"{shown(pattern)}: matches nothing.")
    for match in matches:
        if os.path.isdir(match):
            if not pattern.rstrip("/").endswith("**"):
                yield from _of_folder(Path(match), skip)
        elif not (skip is not None and is_left_alone(Path(match), Path(match).parent, skip, None)):
            kind = kind_of(match)
            if kind == "manifest":
                yield from read_manifest(match, column, root)
            elif kind:
                yield named(os.path.abspath(match), kind)


def _of_address(given: str, column: str | None, root: str | None) -> Iterator[Item]:
    system, place = file_system(given)
    scheme = given.partition("://")[0]

    def address(found: Any) -> str:
        text = str(found)
        return text if is_address(text) else f"{scheme}://{text.lstrip('/') if scheme != 'file' else text}"

    try:
        if any(letter in place for letter in "*?["):
            for match in sorted(system.glob(place)):
                kind = kind_of(match)
                if kind == "manifest":
                    yield from read_manifest(address(match), column, root)
                elif kind:
                    yield Item(address(match), kind)
            return
        kind = kind_of(given)
        if kind and not given.endswith("/") and (scheme in ("http", "https") or system.isfile(place)):
            if kind == "manifest":
                yield from read_manifest(given, column, root)
            else:
                yield Item(given, kind)
            return
        found = False
        for where, _, files in system.walk(place, on_error="raise"):
            for name in sorted(files):
                kind = kind_of(name)
                if name and not name.startswith(".") and kind in ("picture", "film", "tar"):
                    found = True
                    yield Item(address(f"{where.rstrip('/')}/{name}"), kind)
        if not found and not system.exists(place):
            raise FileNotFoundError(given)
    except FileNotFoundError as error:
        raise BadInput(f"{shown(given)}: no such object or folder.") from error
    except (BadInput, AssetMissing):
        raise
    except Exception as error:
        raise BadInput(f"{shown(given)}: {why(error)}") from error
