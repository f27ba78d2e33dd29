"""The Slurm driver: what it asks for, what it does about members that vanish, and a real array where there is Slurm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pretend_work import Pretend, pictures, results, sources

from wholebody.errors import BadInput, WholebodyError
from wholebody.scale.config import ManyConfig
from wholebody.scale.job import run_job

submitit = pytest.importorskip("submitit")
pytest.importorskip("pyarrow")


class Member:
    """Of an array; `lost`: it vanishes after so many of its tasks, and tells nothing."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], number: int, lost: int | None, folder: Path) -> None:
        self.job_id, self._call, self._lost = f"12_{number}", (function, arguments), lost
        self.paths = type("Paths", (), {"folder": folder})
        self.cancelled = False

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        function, (packed, limits, tasks) = self._call
        if self._lost is not None:
            function(packed, limits, tasks[: self._lost])
            raise RuntimeError("slurmstepd: error: *** JOB 12 CANCELLED DUE TO NODE FAILURE ***")
        return function(packed, limits, tasks)

    def cancel(self, check: bool = True) -> None:
        self.cancelled = True


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Arrays that were submitted: (parameters, members). `queue.lost`: how the members of the next array vanish."""

    class Queue(list):  # type: ignore[type-arg]
        lost: list[int | None] = []

    arrays = Queue()

    class Executor:
        which = staticmethod(lambda: "slurm")

        def __init__(self, folder: Path, cluster: str) -> None:
            self.folder = folder

        def update_parameters(self, **parameters: Any) -> None:
            self.parameters = parameters

        def map_array(self, function: Any, *columns: Any) -> list[Member]:
            lost, arrays.lost = [*arrays.lost, *[None] * 9], []
            calls = enumerate(zip(*columns, strict=True))
            members = [Member(function, row, k, lost[k], self.folder) for k, row in calls]
            arrays.append((self.parameters, members))
            return members

    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    return arrays


def run(tmp_path: Path, out: str = "out", **config: Any) -> Any:
    many = ManyConfig(engine="slurm", **({"shard_size": 2, "contact_every": 0} | config))
    return run_job([str(tmp_path / "in")], str(tmp_path / out), Pretend(str(tmp_path / "log")), {}, many, print)


def test_what_is_lost_is_submitted_again(tmp_path: Path, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "in", 12)
    queue.lost = [1, 0]
    done = run(tmp_path, worker_count=2, partition="cpu", minutes=30, threads=2)
    assert done.pictures == 12 and len(set(sources(tmp_path / "out"))) == 12
    assert [len(members) for _, members in queue] == [2, 2]
    asked = queue[0][0]
    assert (asked["timeout_min"], asked["cpus_per_task"], asked["slurm_array_parallelism"]) == (30, 2, 2)
    assert asked["slurm_additional_parameters"] == {"partition": "cpu"}
    local = ManyConfig(engine="local", worker_count=1, shard_size=2, contact_every=0)
    run_job([str(tmp_path / "in")], str(tmp_path / "local"), Pretend(str(tmp_path / "log")), {}, local, print)
    assert results(tmp_path / "out") == results(tmp_path / "local")


def test_an_array_that_finishes_nothing(tmp_path: Path, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "in", 4)
    queue.lost = [0, 0]
    with pytest.raises(WholebodyError, match="without finishing any of 2 tasks"):
        run(tmp_path, worker_count=2)
    assert run(tmp_path, worker_count=2).pictures == 4  # and the same command goes on


def test_parts_of_a_gpu_are_refused(tmp_path: Path, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "in", 1)
    with pytest.raises(BadInput, match="whole GPUs"):
        run(tmp_path, gpus_per_worker=0.5)


def slurm_answers() -> bool:
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=20).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not slurm_answers(), reason="no Slurm here; tools/start_slurm.sh starts one")
def test_a_real_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "in", 12)
    done = run(tmp_path, worker_count=2, minutes=10)
    assert done.pictures == 12 and len(set(sources(tmp_path / "out"))) == 12
    assert done.bad == 0 and len(list((tmp_path / "wholebody-slurm").iterdir())) >= 1
