"""Jobs on the local engine: every input once, whole shards, crashes that name their picture, folders of one job."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pretend_work import Pretend, picture, pictures, results, rows, sources, tar

from wholebody.errors import BadInput, OutputError, WholebodyError
from wholebody.files.storage import Store
from wholebody.scale import job as jobs
from wholebody.scale.child import ChildDied
from wholebody.scale.config import EngineConfig, ManyConfig
from wholebody.scale.job import ManySummary, TooManyBad, run_job
from wholebody.scale.shard import Answer, Request, answered

pytest.importorskip("pyarrow")
HERE = Path(__file__).parent


def run(tmp_path: Path, *inputs: object, out: str = "out", work: Pretend | None = None, overwrite: bool = False,
        options: dict[str, Any] | None = None, **config: Any) -> ManySummary:  # fmt: skip
    many = ManyConfig(engine="local", **({"worker_count": 1, "contact_every": 0} | config))
    work = work or Pretend(str(tmp_path / "log"))
    said: list[str] = []
    return run_job([str(i) for i in inputs], str(tmp_path / out), work, options or {"model": "t"}, many, said.append,
                   overwrite=overwrite)  # fmt: skip


def opened(tmp_path: Path) -> int:
    return len(list((tmp_path / "log").glob("open-*")))


def test_every_input_becomes_rows_once_whatever_it_is(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 13)
    (tmp_path / "in" / "x.mp4").write_bytes(b"film")
    tar(tmp_path / "in" / "x.tar", {f"{k}.png": picture(100 + k) for k in range(9)})
    (tmp_path / "list.csv").write_text('path,boxes\nin/00003.png,\nextra.png,"[[0,0,9,9],[1,1,5,5]]"\nextra.png,\n')
    (tmp_path / "extra.png").write_bytes(picture(77))
    done = run(tmp_path, tmp_path / "in", tmp_path / "list.csv", shard_size=5, contact_every=4)
    out = tmp_path / "out"
    assert (done.pictures, done.films, done.people, done.bad, done.duplicates) == (23, 1, 24, 0, 1)
    found = sources(out)
    assert len(found) == len(set(found)) == 24 and f"{tmp_path}/in/x.tar::3.png" in found
    assert {row["source"]: row["boxes"] for row in rows(out)}[f"{tmp_path}/extra.png"] == 2
    assert opened(tmp_path) == 1  # the network is loaded once a worker
    (motion,) = (out / "motions").iterdir()
    assert motion.name.endswith("-x.mp4.parquet") and motion.read_bytes() == b"motion of x.mp4"
    page = (out / "contact.html").read_text()
    assert len(list((out / "overlays").iterdir())) == page.count("<img") > 2
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pictures"] == 23 and summary["shards"] == done.shards


def test_tables_open_in_pandas_and_duckdb(tmp_path: Path) -> None:
    pandas, duckdb = pytest.importorskip("pandas"), pytest.importorskip("duckdb")
    pictures(tmp_path / "in", 7)
    run(tmp_path, tmp_path / "in", shard_size=3)
    frame = pandas.read_parquet(tmp_path / "out" / "people")
    assert len(frame) == 7 and frame["mean"].between(0, 255).all()
    found = duckdb.sql(f"select count(distinct source) from '{tmp_path}/out/people/*.parquet'").fetchall()
    assert found == [(7,)]


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 30)
    run(tmp_path, tmp_path / "in", out="one", shard_size=4, contact_every=5)
    run(tmp_path, tmp_path / "in", out="two", shard_size=4, contact_every=5, worker_count=3)
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_a_picture_that_crashes_its_process_twice_is_named(tmp_path: Path) -> None:
    """The others of its shard are as if it were not there; one that was only unlucky is none the worse."""
    paths = pictures(tmp_path / "in", 12)
    clean = run(tmp_path, tmp_path / "in", out="clean")
    paths[5].rename(paths[5].with_name("00005-poison.png"))
    paths[9].rename(paths[9].with_name("00009-unlucky.png"))
    done = run(tmp_path, tmp_path / "in", max_bad=0.2)
    (dead,) = rows(tmp_path / "out", "dead")
    assert dead["source"].endswith("poison.png") and "SIGSEGV" in dead["reason"] and "twice" in dead["reason"]
    assert (done.pictures, done.bad, clean.bad) == (12, 1, 0)
    means = [{row["mean"] for row in rows(tmp_path / name)} for name in ("clean", "out")]
    assert len(means[1]) == 11 and means[1] < means[0]
    together = {row["source"].rpartition("/")[2]: row["together"] for row in rows(tmp_path / "out")}
    assert together["00004.png"] == 7 and together["00009-unlucky.png"] == 4  # asked with their neighbours again
    assert len(sources(tmp_path / "out")) == len(set(sources(tmp_path / "out"))) == 12


@pytest.mark.parametrize(
    ("name", "limits", "reason"),
    [("hungry", {"worker_memory": 0.3}, "allowed"), ("endless", {"picture_seconds": 4.0}, "no answer within 4")],
)
def test_limits_end_a_worker_and_not_the_job(tmp_path: Path, name: str, limits: dict[str, float], reason: str) -> None:
    pictures(tmp_path / "in", 3)[1].rename(tmp_path / "in" / f"{name}.png")
    done = run(tmp_path, tmp_path / "in", max_bad=0.5, **limits)
    (dead,) = rows(tmp_path / "out", "dead")
    assert name in dead["source"] and reason in dead["reason"] and done.people == 2


def test_pictures_that_are_asked_for_together_have_the_time_of_all(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 3)
    done = run(tmp_path, tmp_path / "in", work=Pretend(str(tmp_path / "log"), pause=1.5), picture_seconds=3.0)
    assert (done.people, done.bad, opened(tmp_path)) == (3, 0, 1)  # nothing was ended: 4.5 seconds of 9


def test_a_film_may_take_longer_than_a_picture(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"film")
    done = run(tmp_path, tmp_path / "x.mp4", work=Pretend(str(tmp_path / "log"), pause=1.5), picture_seconds=0.5)
    assert (done.films, done.people, done.bad) == (1, 1, 0)


def test_bad_ones_are_listed_and_too_many_fail_the_job(tmp_path: Path) -> None:
    good = pictures(tmp_path / "in", 8)
    (tmp_path / "list.txt").write_text("".join(f"{p}\n" for p in good) + f"{tmp_path}/missing.png\n{tmp_path}/in\n")
    with pytest.raises(TooManyBad, match=r"2 of 10 pictures .* --max-bad 0.05"):
        run(tmp_path, tmp_path / "list.txt")
    assert len(sources(tmp_path / "out", "people")) == 8  # nothing is lost
    done = run(tmp_path, tmp_path / "list.txt", max_bad=0.2)
    assert (done.bad, done.before, opened(tmp_path)) == (2, 1, 1)  # nothing was done again
    reasons = {row["source"].rpartition("/")[2]: row["reason"] for row in rows(tmp_path / "out", "dead")}
    assert "no such file" in reasons["missing.png"] and "no picture" in reasons["in"]
    (tmp_path / "missing.png").write_bytes(picture(5))
    done = run(tmp_path, tmp_path / "list.txt", max_bad=0.2, retry_bad=True)
    assert (done.bad, done.people, done.before) == (1, 9, 0)
    again = run(tmp_path, tmp_path / "out" / "dead" / "dead-000000.parquet", out="again", max_bad=1)
    assert again.pictures == 1  # the table is itself a manifest


def test_a_job_ends_early_when_it_cannot_end_well(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"missing{k}.png\n" for k in range(50)))
    with pytest.raises(TooManyBad, match="so far"):
        run(tmp_path, tmp_path / "list.txt", shard_size=2, max_bad=0.1)
    assert 3 <= len(list((tmp_path / "out" / "done").iterdir())) < 10


def test_a_tar_that_is_cut_off_keeps_what_it_holds(tmp_path: Path) -> None:
    whole = tar(tmp_path / "x.tar", {f"{k}.png": picture(k) for k in range(6)})
    whole.write_bytes(whole.read_bytes()[:9000])
    (tmp_path / "y.tar").write_bytes(b"<html>404</html>" * 100)
    packed = gzip.compress(tar(tmp_path / "z.tar", {f"{k}.png": picture(k) for k in range(3)}).read_bytes())
    (tmp_path / "z.tar.gz").write_bytes(packed)
    (tmp_path / "cut.tgz").write_bytes(packed[:4000])
    names = [tmp_path / name for name in ("x.tar", "y.tar", "z.tar.gz", "cut.tgz")]
    done = run(tmp_path, *names, max_bad=1)
    assert 5 <= done.people < 6 + 3 + 3
    reasons = [row["reason"] for row in rows(tmp_path / "out", "dead")]
    assert sum("cut off" in reason for reason in reasons) == 3
    assert {f"{tmp_path}/z.tar.gz::{k}.png" for k in range(3)} <= set(sources(tmp_path / "out", "people"))


def test_a_shard_half_written_is_done_again(tmp_path: Path) -> None:
    """What a worker left that died between its files and its marker, and what was damaged since."""
    pictures(tmp_path / "in", 9)
    run(tmp_path, tmp_path / "in", shard_size=3)
    whole = results(tmp_path / "out")
    out = tmp_path / "out"
    (out / "done" / "000001.json").unlink()
    (out / "people" / "people-000001.parquet").write_bytes(b"PAR1 half")
    (out / "pictures" / "pictures-000001.parquet").unlink()
    (out / "done" / "000002.json").write_bytes(b'{"shard": 2, "pic')
    (out / "people" / ".wholebody-0123456789abcdef.part").mkdir()
    done = run(tmp_path, tmp_path / "in", shard_size=3)
    assert done.before == 1 and results(out) == whole
    assert not list(out.rglob("*.part"))


# Whose folder it is


def test_another_job_in_a_folder_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 3)
    (tmp_path / "list.txt").write_text("in/00000.png\n")
    run(tmp_path, tmp_path / "list.txt")
    before = results(tmp_path / "out")
    with pytest.raises(BadInput, match="model t then, osx_l now"):
        run(tmp_path, tmp_path / "list.txt", options={"model": "osx_l"})
    with pytest.raises(BadInput, match="another job"):
        run(tmp_path, tmp_path / "in")
    (tmp_path / "list.txt").write_text("in/00000.png\nin/00001.png\n")
    with pytest.raises(BadInput, match="another job"):  # the manifest says something else now
        run(tmp_path, tmp_path / "list.txt")
    assert results(tmp_path / "out") == before
    assert run(tmp_path, tmp_path / "in", overwrite=True).pictures == 3
    assert len(sources(tmp_path / "out")) == 3


def test_a_folder_of_somebody_elses_stays(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 1)
    (tmp_path / "out" / "people").mkdir(parents=True)
    (tmp_path / "out" / "people" / "anna.txt").write_text("hers")
    with pytest.raises(BadInput, match="people/"):
        run(tmp_path, tmp_path / "in", overwrite=True)
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2" / "job.json").write_text("[1]")
    with pytest.raises(BadInput, match="not the record"):
        run(tmp_path, tmp_path / "in", out="out2")
    assert (tmp_path / "out" / "people" / "anna.txt").read_text() == "hers"


def test_nothing_is_left_where_nothing_could_be_begun(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="missing"):
        run(tmp_path, tmp_path / "missing")
    pictures(tmp_path / "in", 1)
    assert run(tmp_path, tmp_path / "in").pictures == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        run(tmp_path, tmp_path / "in", out="file/out")


DRIVER = """
import sys
sys.path.insert(0, {here!r})
from pretend_work import Pretend
from wholebody.scale.config import ManyConfig
from wholebody.scale.job import run_job
run_job([{inputs!r}], {out!r}, Pretend({log!r}, pause=0.2, chunk=2), {{"model": "t"}},
        ManyConfig(engine={engine!r}, worker_count={workers}, shard_size=4, contact_every=0), print)
"""


def driver(tmp_path: Path, engine: str = "local", workers: int = 2) -> subprocess.Popen[bytes]:
    code = DRIVER.format(here=str(HERE), inputs=str(tmp_path / "in"), out=str(tmp_path / "out"),
                         log=str(tmp_path / "log"), engine=engine, workers=workers)  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", code])


def wait_for(what: Any, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_driver_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its workers end with it; a second driver meanwhile is told who is at work."""
    pictures(tmp_path / "in", 48)
    first = driver(tmp_path)
    done = tmp_path / "out" / "done"
    wait_for(lambda: done.is_dir() and len(list(done.iterdir())) >= 2)
    with pytest.raises(BadInput, match=f"process {first.pid} .* is at work"):
        run(tmp_path, tmp_path / "in", shard_size=4)
    first.send_signal(signal.SIGKILL)
    first.wait()
    workers = [int(path.name[5:]) for path in (tmp_path / "log").glob("open-*")]
    wait_for(lambda: not any(is_alive(worker) for worker in workers), 30)
    there = len(list(done.iterdir()))
    assert there < 12
    summary = run(tmp_path, tmp_path / "in", shard_size=4)
    assert summary.before >= there - 1 and summary.pictures == 48
    assert len(sources(tmp_path / "out")) == len(set(sources(tmp_path / "out"))) == 48
    run(tmp_path, tmp_path / "in", out="fresh", shard_size=4)
    assert {k: v for k, v in results(tmp_path / "out").items() if "people" in k}.keys() == {
        k for k in results(tmp_path / "fresh") if "people" in k
    }


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False


def test_memory_of_a_worker_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go to a file as they come, however large a shard is."""
    import pyarrow as pa

    import wholebody.scale.shard as shards

    monkeypatch.setattr(shards, "_ROW_GROUP", 4)
    (tmp_path / "list.txt").write_text("".join(f"/{k}.png\n" for k in range(400)))
    wide = pa.schema([("row", pa.int32()), ("numbers", pa.list_(pa.float32(), 20_000))])

    def ask(asked: list[Request] | None) -> Any:
        if asked is None:
            return {}
        numbers = pa.FixedSizeListArray.from_arrays(pa.array([1.0] * 20_000, pa.float32()), 20_000)
        return [Answer("ok", people=pa.record_batch({"numbers": numbers}), count=1) for _ in asked]

    from wholebody.scale.item import Item

    held = []

    def counting(asked: list[Request] | None) -> Any:
        held.append(pa.total_allocated_bytes())
        return ask(asked)

    before = pa.total_allocated_bytes()
    items = [Item(f"/{k}.png") for k in range(200)]
    shards.do_shard(Store(tmp_path / "out"), 0, items, counting, wide, lambda: ask(None), 2, 0)
    assert max(held) - before < 20 * 80_000 and rows(tmp_path / "out")[199]["row"] == 199


# A child and what is asked of it


def test_who_is_to_blame_is_found_without_an_engine() -> None:
    requests = [Request(0, k, f"{k}", "picture", None) for k in range(5)]
    calls = []

    def ask(asked: list[Request]) -> list[Answer]:
        calls.append([r.row for r in asked])
        if any(r.row in (1, 3) for r in asked):
            raise ChildDied("it crashed")
        return [Answer("ok", reason=f"among {len(asked)}") for r in asked]

    found = answered(requests, ask)
    assert [a.status for a in found] == ["ok", "bad", "ok", "bad", "ok"] and found[0].reason == "among 3"
    assert calls == [[0, 1, 2, 3, 4], [0], [1], [2], [3], [4], [0, 2, 4]]


def test_a_work_that_cannot_be_opened_ends_the_job_with_its_words(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 2)
    with pytest.raises(WholebodyError, match="no such model"):
        run(tmp_path, tmp_path / "in", work=Unopenable(str(tmp_path / "log")))
    with pytest.raises(WholebodyError, match="could not be started: its process ended with status 7"):
        run(tmp_path, tmp_path / "in", work=Unopenable(str(tmp_path / "log"), pause=7))
    assert not list((tmp_path / "out").rglob("people*"))


class Unopenable(Pretend):
    def open(self) -> Any:
        if self.pause:
            os._exit(int(self.pause))
        raise BadInput("no such model")


def test_options_that_need_an_engine() -> None:
    needs_engine = {field.name for field in fields(EngineConfig)} - {"engine", "worker_count"}
    for name in needs_engine:
        other: Any = "other" if getattr(EngineConfig(), name) is None and name != "worker_memory" else 7
        with pytest.raises(BadInput, match="goes with --engine"):
            EngineConfig(**{name: other})
    for wrong in ({"shard_size": 3}, {"worker_memory": 2.0}, {"engine": "dask"}, {"engine": "local", "max_bad": 2.0},
                  {"engine": "local", "shard_size": 0}, {"engine": "local", "threads": 0}):  # fmt: skip
        with pytest.raises(BadInput):
            ManyConfig(**wrong)  # type: ignore[arg-type]


def test_the_drivers_stay_short() -> None:
    for name in ("local", "slurm", "ray"):
        assert len(Path(jobs.__file__).with_name(f"{name}.py").read_text().splitlines()) < 150


def test_a_ray_that_was_killed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its note of where it was stays, and connecting to that would take minutes."""
    from wholebody.scale import ray as engine

    asked = []

    class Ray:
        is_initialized = staticmethod(lambda: False)
        init = staticmethod(lambda address, **options: asked.append(address))

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        note.write_text(f"{host}:{port}")
        engine._connect(Ray, EngineConfig())
    engine._connect(Ray, EngineConfig())
    note.unlink()
    engine._connect(Ray, EngineConfig())
    assert asked == ["auto", "local", "auto"]
