"""Functions that numba compiles: the one decorator for all of them, and where what it compiles is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

from wholebody.files.cache import cache_folder, is_usable

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """`@compiled(...)` compiles a function on its first call, to run without Python's lock; options as of `numba.njit`.

    What was compiled is kept for the next run: where NUMBA_CACHE_DIR says, else beside the function's file, else (an
    installation that cannot be written to) in `cache_folder`. Where none of these can be had, every process compiles
    for itself.
    """

    def decorate(function: Function) -> Function:
        return _njit(function, {"nogil": True, **options})

    return decorate


def _njit(function: Function, options: dict[str, Any]) -> Function:
    settings: Any = numba.config  # whose fields come from the environment
    before = settings.CACHE_DIR
    try:
        if not before and not is_usable(Path(function.__code__.co_filename).parent / "__pycache__"):
            # Not numba's own second choice: without a home it makes a folder called `~` where the user stands.
            folder = cache_folder()
            if folder is None:
                return _plain(function, options)
            settings.CACHE_DIR = str(folder / "numba")
        return _plain(function, options | {"cache": True})
    except (RuntimeError, OSError):  # "no locator available": there is no place after all
        return _plain(function, options)
    finally:
        settings.CACHE_DIR = before


def _plain(function: Function, options: dict[str, Any]) -> Function:
    fast: Function = numba.njit(**options)(function)
    return fast
