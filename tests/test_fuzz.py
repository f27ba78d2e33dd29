"""The seeds of `make fuzz` and some mutations of each, every time the same; and that a finding is found."""

import json
import random
import subprocess
import sys
from pathlib import Path

from tools.fuzz.mutate import mutate
from tools.fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]


def fuzz(out, *arguments):
    command = [sys.executable, "-m", "tools.fuzz", "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_seeds_and_some_mutations_find_nothing(tmp_path):
    done = fuzz(tmp_path, "--inputs", "15", "--together")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{15 * len(TARGETS)} files, 0 findings" in done.stdout


def test_mutations_are_mutations_and_the_same_each_time():
    for name in ("json", "pickle", "npz", "picture", "toml", "meshes", "submission"):
        seeds = list(TARGETS[name].seeds())
        one, two = (
            [mutate(random.Random(k).choice(seeds), random.Random(k), seeds) for k in range(20)] for _ in range(2)
        )
        assert one == two and len(set(one)) > 10 and sum(data in seeds for data in one) < 5


FAULTS = """
import os, sys, time
from pathlib import Path
from tools.fuzz import __main__ as fuzz, targets

def read(path):
    data = path.read_bytes()
    if data == b"raise": raise IndexError("x")
    if data == b"die": os.kill(os.getpid(), 11)
    if data == b"run": os.system("true")
    if data == b"write": open(Path(sys.argv[-1]).parent / "escaped", "w").close()
    if data == b"leave": (path.parent / "half").write_bytes(b"")
    if data == b"fill": bytearray(1100 << 20)

seeds = [b"fine", b"raise", b"run", b"write", b"leave", b"fill", b"die"]
targets.TARGETS["json"] = targets.Target(".json", lambda: iter(seeds), read)
sys.argv = ["fuzz", *sys.argv[1:]]
fuzz.main() if "--worker" in sys.argv else None
"""


def test_every_kind_of_finding_is_found(tmp_path):
    """A worker with a reader that does all that readers must not."""
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", FAULTS, "1", "--worker", "json:0", "--inputs", "7", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -11, done.stderr
    assert (tmp_path / "out" / "current").read_bytes() == b"die"
    state = json.loads((tmp_path / "out" / "state.json").read_text())
    found = " ".join(state["found"])
    for what in ("IndexError", "os.system", "written outside", "leaves files", "takes more than 1024 MB"):
        assert what in found, (what, found)
