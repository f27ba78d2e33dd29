"""A real Ray of three nodes on this machine: nodes, workers and drivers vanish, and every picture is there once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pretend_work import Pretend, picture, results, rows, sources, tar
from test_jobs import driver, wait_for

from wholebody.scale.config import ManyConfig
from wholebody.scale.job import run_job

pytestmark = pytest.mark.slow
pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
TARS, EACH = 20, 100
_NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 120 << 20}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=_NODE)
    made.add_node(**_NODE)
    made.add_node(**_NODE)
    made.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = made.address
    yield made
    os.environ.pop("RAY_ADDRESS")
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 small pictures in 20 tars; one crashes its process, one is damaged."""
    folder = tmp_path_factory.mktemp("tars")
    content = [picture(number) for number in range(50)]
    for number in range(TARS):
        members = {f"{k:03d}.png": content[(number + k) % 50] for k in range(EACH)}
        if number == 7:
            members["042-poison.png"] = members.pop("042.png")
        if number == 9:
            members["013.png"] = members["013.png"][:50]
        tar(folder / f"{number:02d}.tar", members)
    return folder


def job(tars: Path, out: Path, log: Path, engine: str, workers: int, pause: float = 0.0) -> Any:
    config = ManyConfig(engine=engine, worker_count=workers, contact_every=500)
    return run_job([str(tars)], str(out), Pretend(str(log), pause), {"model": "t"}, config, print)


def test_nodes_and_workers_vanish_and_a_picture_is_poison(cluster: Any, tars: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    local = job(tars, tmp_path / "local", tmp_path / "local-log", "local", 1)
    done = out / "done"

    def disturb() -> None:
        wait_for(lambda: done.is_dir() and len(list(done.iterdir())) >= 3, 300)
        victim = next(iter(log.glob("open-*")))  # a child; the actor beside it is the one to be killed for its memory
        parent = int(Path(f"/proc/{victim.name[5:]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        wait_for(lambda: len(list(done.iterdir())) >= 8, 300)
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)

    thread = threading.Thread(target=disturb)
    thread.start()
    summary = job(tars, out, log, "ray", 3, pause=0.01)
    thread.join(10)
    assert not thread.is_alive(), "it was over before anything was killed"
    assert (summary.pictures, summary.bad, summary.people) == (TARS * EACH, 2, TARS * EACH - 2)
    found = sources(out)
    assert len(found) == len(set(found)) == TARS * EACH
    assert {row["source"].rpartition("::")[2] for row in rows(out, "dead")} == {"042-poison.png", "013.png"}
    assert (local.pictures, local.bad) == (summary.pictures, summary.bad)
    assert results(out) == results(tmp_path / "local")
    # Three workers, one in the place of each that was killed, and two children more for the poison.
    assert len(list(log.glob("open-*"))) <= 3 + 2 + 3


def test_a_driver_is_killed_and_started_again(cluster: Any, tmp_path: Path) -> None:
    from pretend_work import pictures

    pictures(tmp_path / "in", 80)
    first = driver(tmp_path, "ray", 3)
    done = tmp_path / "out" / "done"
    wait_for(lambda: done.is_dir() and len(list(done.iterdir())) >= 3, 300)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = len(list(done.iterdir()))
    assert before < 20
    second = driver(tmp_path, "ray", 3)
    assert second.wait(300) == 0
    found = sources(tmp_path / "out")
    assert len(found) == len(set(found)) == 80
    ends = time.monotonic() + 30
    workers = [int(path.name[5:]) for path in (tmp_path / "log").glob("open-*")]
    while any(os.path.exists(f"/proc/{worker}") for worker in workers):
        assert time.monotonic() < ends, "children outlived their workers"
        time.sleep(0.2)
