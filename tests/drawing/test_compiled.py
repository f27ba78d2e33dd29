"""Compiled functions are kept where something can be kept, and work where nothing can."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wholebody.files import cache

MODULE = """
from wholebody.drawing.compiled import compiled

@compiled(fastmath={"contract"}, inline="always")
def quadruple(x):
    return 4 * x
"""


@pytest.fixture
def machine(tmp_path):
    """A module in a folder where no cache can lie, and nothing else that can be written to unless it is named."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "kernels.py").write_text(MODULE)
    (tmp_path / "site" / "__pycache__").write_text("a file is in the folder's place")  # root may write anywhere else
    (tmp_path / "file").write_text("")
    (tmp_path / "here").mkdir()

    def run(**named: str) -> None:
        variables = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG")}
        variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "site"), *variables.get("PYTHONPATH", "").split(":")])
        script = "import tempfile\ntempfile.tempdir = None\nimport kernels\nassert kernels.quadruple(3) == 12"
        if "TMPDIR" not in named:
            script = f"import tempfile\ntempfile.tempdir = {str(tmp_path / 'file')!r}\n" + script.split("\n", 2)[2]
        done = subprocess.run(
            [sys.executable, "-c", script], env=variables | {"HOME": str(tmp_path / "file")} | named,
            capture_output=True, text=True, cwd=tmp_path / "here",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not list((tmp_path / "here").iterdir())

    return run


def kept(folder: Path) -> int:
    return len(list(folder.rglob("*.nbi")))


def test_nothing_can_be_written_anywhere(machine, tmp_path):
    machine()
    machine(HOME="~")  # a user whom the system does not know


def test_the_temporary_cache_is_this_users_alone(machine, tmp_path):
    (tmp_path / "tmp").mkdir()
    machine(TMPDIR=str(tmp_path / "tmp"))
    (folder,) = (tmp_path / "tmp").iterdir()
    assert kept(folder) == 1 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    machine(TMPDIR=str(tmp_path / "tmp"))
    folder.chmod(0o777)  # somebody else may have laid something there
    for file in folder.rglob("*.nb*"):
        file.unlink()
    machine(TMPDIR=str(tmp_path / "tmp"))
    assert kept(folder) == 0


def test_a_named_cache_or_home_comes_first(machine, tmp_path):
    for name, inner in (("NUMBA_CACHE_DIR", ""), ("WHOLEBODY_CACHE", "numba"), ("XDG_CACHE_HOME", "wholebody/numba")):
        machine(**{name: str(tmp_path / name)})
        assert kept(tmp_path / name / inner) == 1
    machine(HOME=str(tmp_path / "home"))
    assert kept(tmp_path / "home" / ".cache" / "wholebody") == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_place_of_the_temporary_cache_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"wholebody-cache-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    assert cache._temporary() is None
