"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wholebody.errors import OutputError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """`write` to a neighbour of `path` that takes its place once complete; OutputError if that fails."""
    part = path.with_name(f".{os.getpid()}.part.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error}. Free some space there or choose another place.") from error
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    write_whole(path, lambda part: part.write_text(json.dumps(content), encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    write_whole(path, lambda part: part.write_bytes(content))
