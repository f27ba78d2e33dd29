"""Where things are kept that can be made again: a folder of this user's, or none where nothing can be written."""

from __future__ import annotations

import os
import stat
import tempfile
from functools import lru_cache
from pathlib import Path


def cache_folder() -> Path | None:
    """The first of these that can be written to: the environment's WHOLEBODY_CACHE; `wholebody` in XDG_CACHE_HOME or
    `~/.cache`; a folder of this user's alone among the temporary files. None: keep nothing."""
    return _first_usable(os.environ.get("WHOLEBODY_CACHE"), os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME"))


@lru_cache(maxsize=8)
def _first_usable(named: str | None, xdg: str | None, home: str | None) -> Path | None:
    if named and is_usable(Path(named)):
        return Path(named)
    # `~` of a user whom the system does not know stays `~`, which would become a folder of that name.
    user = xdg or (os.path.expanduser("~/.cache") if home != "" else "")
    if os.path.isabs(user) and is_usable(Path(user) / "wholebody"):
        return Path(user) / "wholebody"
    return _temporary()


def is_usable(folder: Path) -> bool:
    """Whether files can be made in it; it is made if missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        return True
    except (OSError, ValueError):
        return False


def _temporary() -> Path | None:
    """The same folder in every run. What lies there may be run (compiled functions), so nobody else may write to it."""
    try:
        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir()) / f"wholebody-cache-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        ours = stat.S_ISDIR(about.st_mode) and (
            os.name == "nt" or about.st_uid == user and not stat.S_IMODE(about.st_mode) & 0o077
        )
        return folder if ours and is_usable(folder) else None
    except OSError:
        return None
