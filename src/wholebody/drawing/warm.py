"""Have the rasteriser ready before there is something to draw: what numba compiles takes seconds the first time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from wholebody.files.cache import cache_folder

_FOLDER = Path(__file__).parent
_LAST = {"raster.py": "_finish", "layers.py": "lay"}
"""Of each file the last function that an overlay needs."""


def compile_aside() -> subprocess.Popen[bytes] | None:
    """Start a process that compiles the rasteriser and keeps that for others; None where it was done before, or where
    there is no second core for it. Whoever draws waits for it (`warm_up`)."""
    if "wholebody.drawing.raster" in sys.modules or (os.cpu_count() or 1) < 2 or _is_kept():
        return None
    try:
        return subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import warm_up; warm_up()"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
    except OSError:  # then the first drawing compiles
        return None


def warm_up(aside: subprocess.Popen[bytes] | None = None) -> None:
    """Import, or compile, the rasteriser; after the process that does so, if there is one."""
    if aside is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            aside.wait(60)
    import numpy as np

    from wholebody.drawing.layers import add_drawing, lay
    from wholebody.drawing.raster import draw_mesh

    corners = np.array([[0, 0, 2], [0, 1, 2], [1, 0, 2]], np.float32)
    drawing = draw_mesh(corners, np.array([[0, 1, 2]], np.int32), 4.0, (2.0, 2.0), (4, 4))
    layer, nearest, one = np.zeros((4, 4, 4), np.float32), np.full((4, 4), np.inf, np.float32), np.float32(1)
    add_drawing(layer, nearest, 0, 0, drawing.rgba, drawing.depth, one, np.zeros((4, 4), np.float32), one)
    lay(np.zeros((4, 4, 3), np.uint8), layer, 0, 0, one)


def _is_kept() -> bool:
    """Whether a process before this one compiled the rasteriser as it is now."""
    named, folder = os.environ.get("NUMBA_CACHE_DIR"), cache_folder()
    folders = [Path(named)] if named else [_FOLDER / "__pycache__", *([folder / "numba"] if folder else [])]
    return all(_has(folders, _FOLDER / source, function) for source, function in _LAST.items())


def _has(folders: Iterable[Path], source: Path, function: str) -> bool:
    since = source.stat().st_mtime
    with contextlib.suppress(OSError):
        for place in folders:
            for index in place.rglob(f"{source.stem}.{function}-*.nbi"):
                if index.stat().st_mtime >= since:
                    return True
    return False
