"""Files and folders that appear whole or not at all: the one way in which anything is written.

What is written grows in a folder of its own beside its place, named by chance (`.wholebody-RANDOM.part`), made for this
writer alone and readable by nobody else, so that no link can be laid in its way; once complete it is renamed. A reader
sees the old content or the new one, never half of it, whether the writer fails, is killed, or meets another writer.

A killed run cannot take its part away. While a writer lives it holds a lock on its part, which the operating system
gives back when it dies: the next run that writes to the folder removes the parts that nobody holds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from wholebody.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind; leftovers go by their age there
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\.wholebody-[0-9a-f]{16}\.part")
# Earlier versions put the number of their process there.
_EARLIER_PART = re.compile(r"\.(?:.+\.(?P<after>\d+)\.part(?:ial)?|(?P<before>\d+)\.part\..+)")
_DAY = 24 * 3600


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A place where the block writes the new content of `path`, a file or a folder of that name (not there yet).

    When the block ends, what it wrote takes the place of `path` in one step; a link at `path` is replaced, not
    followed; a file keeps what was there before until then. If the block fails nothing has changed. Files reach the
    disk before they are renamed, so that a full network disk is noticed.

    Raises:
        OutputError: it cannot be written; an OSError of the block is taken for a failure to write.
    """
    path = Path(path)
    try:
        if "\0" in path.name:
            raise ValueError("its name holds a zero byte")
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(os.path.abspath(path.parent))
        part, lock = _new_part(path.parent)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error
    try:
        yield part / path.name
        _to_disk(part / path.name)
        os.replace(part / path.name, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if lock is not None:
            with contextlib.suppress(OSError):
                os.close(lock)


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """`write` is called with the place to write to; see `whole`. Returns `path`."""
    with whole(path) as part:
        write(part)
    return Path(path)


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a file whole or not at all. Raises OutputError."""
    with whole(path) as part, open(part, "xb") as file:
        file.write(content)
    return Path(path)


def write_json(path: str | Path, content: Any, indent: int | None = None) -> Path:
    """Write JSON that every reader understands: UTF-8, no NaN and no Infinity. Raises OutputError, also for those."""
    try:
        text = json.dumps(content, allow_nan=False, indent=indent)
    except ValueError as error:
        raise OutputError(
            f"cannot write {path}: it would hold a number that JSON has no form for ({error}). Nothing was written; "
            "please report how you got here."
        ) from error
    return write_bytes(path, text.encode())


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a log, whole or not at all. Raises OutputError."""
    content = line.rstrip("\n").encode(errors="backslashreplace") + b"\n"
    try:
        with open(path, "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            if file.write(content) != len(content):  # the last of the room on a disk
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def sweep(folder: str | Path) -> None:
    """Remove the parts that killed runs left in a folder. Whoever starts a run into a folder calls this first."""
    _sweep_once.cache_clear()
    _sweep_once(os.path.abspath(folder))


def cannot_write(path: str | Path, error: Exception) -> OutputError:
    """The error that says why `path` cannot be written, and what to do."""
    return OutputError(f"cannot write {path}: {_reason(error)}")


def _reason(error: Exception) -> str:
    number = getattr(error, "errno", None)
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if number in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full ({what}). Free some space, then run the same command again (with --resume, if it has "
            "that option)."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what}. Choose another place with --out, or change its permissions."
    if number in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY):
        return f"{what}: something else is in its place. Choose another place with --out."
    return f"{what}. Free some space there or choose another place with --out."


def _new_part(folder: Path) -> tuple[Path, int | None]:
    """A folder that is this writer's alone, and the lock that says so while it lives (None: none can be had)."""
    while True:
        part = folder / f".wholebody-{secrets.token_hex(8)}.part"
        try:
            os.mkdir(part, 0o700)
            lock = _lock(part)
        except (FileExistsError, FileNotFoundError, BlockingIOError):
            continue  # the name is taken, or a sweeper came between the two steps and took the part for a leftover
        if lock is None or _is_same(lock, part):
            return part, lock
        os.close(lock)


def _lock(part: Path) -> int | None:
    """Hold a part; None where the file system has no locks. Raises BlockingIOError if somebody else holds it."""
    if fcntl is None:
        return None
    handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return handle


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


def _to_disk(path: Path) -> None:
    if path.is_dir():
        return  # a folder is safe from kills, not from a power failure
    with open(path, "rb") as file:
        try:
            os.fsync(file.fileno())  # a full network disk says so only here
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
                raise


@lru_cache(maxsize=4096)
def _sweep_once(folder: str) -> None:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if _PART.fullmatch(entry.name) or _EARLIER_PART.fullmatch(entry.name):
                    _remove_if_left(entry)


def _remove_if_left(entry: os.DirEntry[str]) -> None:
    about = entry.stat(follow_symlinks=False)
    if hasattr(os, "getuid") and about.st_uid != os.getuid():
        return
    if earlier := _EARLIER_PART.fullmatch(entry.name) if not _PART.fullmatch(entry.name) else None:
        if stat.S_ISREG(about.st_mode) and not _lives(int(earlier["after"] or earlier["before"])):
            os.unlink(entry.path)
        return
    if not stat.S_ISDIR(about.st_mode):
        return
    lock = _lock(Path(entry.path))
    if lock is not None or time.time() - about.st_mtime > _DAY:  # without locks, age has to tell
        shutil.rmtree(entry.path, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _lives(process: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
