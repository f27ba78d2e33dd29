"""`synth`, `annotate`, `data index` and `data shard` on an engine write what they write without one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from wholebody.errors import WholebodyError
from wholebody.scale.calls import run_calls
from wholebody.scale.config import EngineConfig


def write(task: tuple[str, int]) -> int:
    """A task that crashes once, or always, where its number says so."""
    folder, number = task
    mark = Path(folder) / f"crashed-{number}"
    if number == 13 or (number == 7 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (Path(folder) / f"{number}.txt").write_text(str(number))
    return number


def test_calls_on_workers(tmp_path: Path) -> None:
    """Each once; a crash is forgiven once."""
    told: list[int] = []
    config = EngineConfig(engine="local", worker_count=1)

    def run(numbers: list[int]) -> None:
        tasks = [(str(tmp_path), number) for number in numbers]
        run_calls(write, tasks, config, print, lambda task: (tmp_path / f"{task[1]}.txt").exists(), told.append)

    run([5, 7, 8])
    assert told == [5, 7, 8] and (tmp_path / "7.txt").exists()
    with pytest.raises(WholebodyError, match=r"write of .*13.*SIGKILL.*twice"):
        run([1, 13])
    assert (tmp_path / "1.txt").exists()
    run([])


def names(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


ENGINE = ["--engine", "local", "--workers", "1"]


def test_data_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    from data.pictures import make_people, write_pictures

    from wholebody.cli import main
    from wholebody.data.index import index_path, write_index

    root = tmp_path / "dataset"
    people = make_people(5)
    write_pictures(root / "MPII", people)
    write_index(people, index_path(root, "MPII", "train"), dataset="MPII", split="train")
    for out, more in (("plain", []), ("engine", ENGINE)):
        assert main(["data", "shard", str(root), "MPII:train", "--out", str(tmp_path / out), *more]) == 0
        assert "5 of 5 people" in capsys.readouterr().out
    assert names(tmp_path / "plain") == names(tmp_path / "engine") != {}
    assert main(["data", "shard", str(root), "MPII:train", "--out", str(tmp_path / "x"), "--threads", "2"]) == 2
    assert "--engine" in capsys.readouterr().err


@pytest.mark.slow
def test_data_index(tmp_path: Path, forged_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow")
    from wholebody.cli import main

    for out, more in (("plain", []), ("engine", ENGINE)):
        assert main(["data", "index", str(forged_root / "dataset"), "MPII", "--out", str(tmp_path / out), *more]) == 0
        assert "people in" in capsys.readouterr().out
    assert names(tmp_path / "plain") == names(tmp_path / "engine") != {}


@pytest.mark.slow
def test_annotate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the network itself; one of the pictures cannot be read, which both ways say."""
    pytest.importorskip("pyarrow")
    import shutil

    from wholebody.cli import main

    for out, more in (("plain", []), ("engine", ENGINE)):
        images = tmp_path / out / "images"
        images.mkdir(parents=True)
        shutil.copy(Path(__file__).parents[2] / "demo" / "astronaut.jpg", images / "one.jpg")
        (images / "two.jpg").write_bytes((images / "one.jpg").read_bytes()[:2000])
        assert main(["annotate", str(tmp_path / out), "--keypoints", "movenet", *more]) == 1
        told = capsys.readouterr()
        assert "1 failed" in told.out and "two.jpg" in told.out + told.err
    plain, engine = (names(tmp_path / out / "annotations") for out in ("plain", "engine"))
    assert plain.keys() == engine.keys() and {"train.json", "train_smplx.json"} <= plain.keys()
    for name in ("train.json", "train_smplx.json"):
        assert plain[name] == engine[name]
    assert len(json.loads(engine["train.json"])["annotations"]) == 1


def test_a_synthetic_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are done by the workers that the command hands them to."""
    from wholebody.synthesis.sets import generate

    jobs: list[Any] = []
    progress: list[int] = []

    def spread(function: Any, todo: Any, is_finished: Any, done: Any) -> None:
        jobs.extend(todo)
        assert function is generate.write_shard_of and not any(is_finished(job) for job in todo)
        done(len(todo))

    monkeypatch.setattr(generate.wardrobe, "load", lambda folder: None)
    generate.run(tmp_path / "set", generate.SHARD * 2 + 3, progress=progress.append, spread=spread)
    assert [job[3:5] for job in jobs] == [(0, generate.SHARD), (1, generate.SHARD), (2, 3)] and progress == [3]
