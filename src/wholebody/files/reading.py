"""Opening files that users name: only regular ones, so that nothing waits for ever or has no end."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import IO

from wholebody.errors import BadInput
from wholebody.files.text import brief


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a regular file to read bytes. Raises BadInput if there is none, or if it is a folder, pipe or device."""
    try:
        # A named pipe would wait for its writer: it is opened without waiting, then looked at.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise BadInput(f"could not read {path}: no such file.") from error
    except IsADirectoryError as error:
        raise BadInput(f"could not read {path}: is a folder, not a file.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise BadInput(f"could not read {path}: {getattr(error, 'strerror', None) or error}.") from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "folder" if stat.S_ISDIR(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"
        raise BadInput(f"could not read {path}: is a {kind}, not a file. Copy its content into a file and name that.")
    return open(handle, "rb")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file. Raises BadInput."""
    with open_file(path) as file:
        try:
            return file.read()
        except MemoryError as error:
            raise BadInput(f"{path}: does not fit into memory ({os.fstat(file.fileno()).st_size:,} bytes).") from error
        except OSError as error:
            raise BadInput(f"could not read {path}: {error.strerror or error}.") from error


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a regular file's content, as hexadecimal text. Raises BadInput, or OSError where reading fails."""
    digest = hashlib.sha256()
    with open_file(path) as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def inside(folder: str | Path, name: str, linked: Collection[str | Path] = ()) -> Path:
    """The place in a folder that a stranger's list names. Raises BadInput for one that leads out of it: `..`, an
    absolute path, or a link.

    linked: folders outside, named by the user, to which links may lead. A link alone is no permission: archives hold
    links too.
    """
    place = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
        raise BadInput(
            f"{brief(name)} is no place in {folder}: names in a set's files are relative to its folder, with `/` "
            "between folders and without `..`; refused"
        )
    path = Path(folder) / place
    try:
        target = os.path.realpath(path.parent / path.name if path.is_symlink() else path.parent)
        stays = any(Path(target).is_relative_to(os.path.realpath(place)) for place in (folder, *linked))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error
    if not stays:
        raise BadInput(
            f"{path} is reached by a link that leads out of {folder}, to {target}; refused. If you laid that link "
            "yourself, name the folder that it leads to: --linked FOLDER"
        )
    return path
