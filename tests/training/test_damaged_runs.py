"""What a run left, damaged or made by a stranger, and disks that fill up: one clear error, and nothing runs."""

import json
import os
import pickle

import pytest
import torch

from wholebody.errors import BadInput, OutputError
from wholebody.files.settings import read_toml
from wholebody.training.config import config_from_table, config_to_table
from wholebody.training.log import Log, forget_after, write_code
from wholebody.training.processes import Group, Place
from wholebody.training.recipes import find_recipe
from wholebody.training.slurm import body_of
from wholebody.training.state import STATE, body_answer, read_state


@pytest.fixture(scope="module")
def config():
    return config_from_table(read_toml(find_recipe("setting1")), "setting1")


@pytest.fixture(scope="module")
def state(config, open_body):
    return {
        "config": json.dumps(config_to_table(config)), "world": 1, "body": body_answer(open_body), "step": 3,
        "skipped": 0, "model": {"a": torch.ones(2)}, "average": None, "optimizer": {},
        "random": [{"cpu": torch.get_rng_state()}],
    }  # fmt: skip


def test_a_saved_run_is_read(state, config, open_body, tmp_path):
    torch.save(state, tmp_path / STATE)
    assert read_state(tmp_path / STATE, config, 1, open_body)["step"] == 3


@pytest.mark.parametrize(
    "change",
    [{"step": None}, {"step": "3"}, {"model": []}, {"random": 3}, {"random": [{}]}, {"body": 3}, {"world": "1"},
     {"config": "[]"}, {"config": "{"}, {"config": "[" * 100_000}, {"optimizer": None}, {"skipped": {}}],
)  # fmt: skip
def test_a_run_with_a_part_that_is_missing_or_of_another_type(state, config, open_body, tmp_path, change):
    torch.save(state | change, tmp_path / STATE)
    with pytest.raises(BadInput, match=f"{STATE}.*(not a saved run|no setting|config)"):
        read_state(tmp_path / STATE, config, 1, open_body)


class Canary:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_no_pickle_of_a_run_runs_or_takes_the_interpreter_down(config, open_body, tmp_path):
    path, canary = tmp_path / STATE, tmp_path / "canary"
    nested = b"\x80\x02" + b"]" + b"\x85" * 100_000 + b"."
    memo = b"\x80\x02]r\xff\xff\xff\x3f."  # asks for gigabytes
    for content in (pickle.dumps({"config": Canary(canary)}), nested, memo, b"", b"\0" * 1000):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="not a saved run"):
            read_state(path, config, 1, open_body)
    torch.save({"config": Canary(canary)}, path)
    with pytest.raises(BadInput, match="not a saved run"):
        read_state(path, config, 1, open_body)
    assert not canary.exists()


@pytest.mark.parametrize("line", ["3", "null", '"x"', '{"loss": 1}', '{"step": "x"}', "[" * 100_000, "{", "\udcff"])
def test_lines_of_measures_that_are_none_are_dropped(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 2}\n'
    path.write_text(whole + line + "\n" + '{"step": 9}\n', errors="surrogateescape")
    forget_after(path, 4)
    assert path.read_text() == whole


@pytest.mark.parametrize("content", ["", "3", "{}", '{"body": 3}', "[" * 100_000])
def test_a_run_that_does_not_say_its_body(tmp_path, content):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "config.json").write_text(content)
    with pytest.raises(BadInput, match="config.json"):
        body_of(tmp_path)


def fill(disk):
    """Leave no room on it."""
    with open(disk / "rest", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


@pytest.fixture
def group():
    return Group(Place(), torch.device("cpu"))


def test_tensorboard_on_a_full_disk_is_one_error(small_disk, config, group):
    folder = small_disk / "run"
    (folder / "log").mkdir(parents=True)
    log = Log(folder, 10_000, 1, config, group)
    log.open(0)
    fill(small_disk)
    with pytest.raises(OutputError, match="disk is full"):
        for step in range(1, 10_000):  # its thread writes a few kilobytes at a time
            log.step(step, torch.tensor(1.0), {}, {})
            log.board and log.board.flush()
    log.close()  # and nothing is said again at the end


def test_the_record_of_a_run_on_a_full_disk(small_disk, config):
    (small_disk / "run").mkdir()
    fill(small_disk)
    with pytest.raises(OutputError, match="disk is full"):
        write_code(config, small_disk / "run", None)
    assert not (small_disk / "run" / "code" / "config.json").exists()


def test_measures_that_are_not_finite_are_null(tmp_path, config, group):
    (tmp_path / "log").mkdir()
    log = Log(tmp_path, 3, 1, config, group)
    log.open(0)
    log.step(1, torch.tensor(float("inf")), {"term": torch.tensor(float("nan"))}, {})
    log.errors(1, {"mpjpe": float("inf")})
    log.step(3, torch.tensor(1.0), {}, {})
    log.close()
    written = (tmp_path / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in written]
    assert any(line.get("heldout") == {"mpjpe": None} for line in lines)
