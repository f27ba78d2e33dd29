"""Work that a server hands out in tests: it says what it does by the name of what was sent."""

from __future__ import annotations

import os
import time
from pathlib import Path

from wholebody.errors import BadInput


def make_work():
    return work


def work(path: Path, out: Path, *, look, say, progress) -> list[Path]:
    if path.stem == "refused":
        raise BadInput(f"{path}: is no picture, and {out / 'x'} neither.")
    if path.stem == "crash":
        os._exit(3)
    if path.stem == "defect":
        raise KeyError(str(path))
    if path.stem == "slow":
        for done in range(100):
            progress(done, 100)
            time.sleep(0.1)
    say(f"{path}: read")
    page, data = out / f"{path.stem}.html", out / f"{path.stem}_person0.npz"
    page.write_text(f"<p>{look} {path.stat().st_size}</p>")
    data.write_bytes(b"npz")
    return [page, data]
