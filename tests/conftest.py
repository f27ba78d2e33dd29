"""What several rooms' tests share: the oracle's arrays and the made-up body files."""

from __future__ import annotations

import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def oracle():
    """`oracle("crop")` -> the arrays of tests/oracle/crop.npz by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(HERE / "oracle" / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def standin_dir() -> Path:
    """A folder with made-up body files in the layout of the licensed ones; made once per machine (40 s, 360 MB).

    It lies in the user's cache folder, or where WHOLEBODY_TEST_CACHE says. Written aside and renamed, under a lock, so
    that neither an interrupted nor a parallel run leaves half of it.
    """
    from filelock import FileLock

    cache = Path(os.environ.get("WHOLEBODY_TEST_CACHE") or Path.home() / ".cache" / "wholebody-tests")
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / "standin-v1"
    with FileLock(cache / "standin-v1.lock"):
        if not done.exists():
            part = cache / "standin-v1.part"
            shutil.rmtree(part, ignore_errors=True)
            runpy.run_path(str(HERE / "oracle" / "make_smplx_standin.py"))["main"](str(part))
            part.rename(done)
    return done
