"""Sets on disk: the same files for the same seed, complete or absent."""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wholebody.errors import BadInput, OutputError
from wholebody.files.options import record_options
from wholebody.synthesis import read_set, run
from wholebody.synthesis.sets import generate, layers


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_whatever_the_number_of_workers(tmp_path, bare, monkeypatch):
    small = replace(bare, size_hw=(48, 36))
    count = generate.SHARD + 4
    for name, workers in (("one", 1), ("two", 2)):
        run(tmp_path / name, count, seed=11, workers=workers, config=small)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) == 2 * count + 3
    # .npz files carry the time of writing: compare what is in them.
    differing = [n for n in one if one[n] != two[n] and not n.endswith(".npz")]
    assert not differing
    for name in (n for n in one if n.endswith(".npz")):
        a, b = np.load(tmp_path / "one" / name), np.load(tmp_path / "two" / name)
        assert all((a[k] == b[k]).all() for k in a.files)
    samples = list(read_set(tmp_path / "one"))
    assert len(samples) == count
    assert all(s.image.shape == (48, 36, 3) and s.mask.shape == (48, 36) for s in samples)
    assert len({s.id for s in samples}) == count


def test_a_stopped_run_goes_on_and_another_recipe_is_refused(tmp_path, bare):
    run(tmp_path, 6, seed=1, workers=1, config=bare, layers=True)
    first = files(tmp_path)
    seen = []
    run(tmp_path, 6, seed=1, workers=1, config=bare, layers=True, progress=seen.append)
    assert not seen and files(tmp_path) == first  # nothing was left to do
    (tmp_path / "layers-00000.npz").unlink()
    run(tmp_path, 6, seed=1, workers=1, config=bare, layers=True, progress=seen.append)
    assert seen == [6] and (tmp_path / "layers-00000.bin").read_bytes() == first["layers-00000.bin"]
    with pytest.raises(OutputError, match="other settings"):
        run(tmp_path, 6, seed=2, workers=1, config=bare, layers=True)
    recipe = tmp_path / "recipe.json"
    older = json.loads(recipe.read_text())
    del older["config"]["recombined_fraction"]  # a setting that came later
    recipe.write_text(json.dumps(older))
    run(tmp_path, 6, seed=1, workers=1, config=bare, layers=True)
    with pytest.raises(OutputError, match="other settings"):
        run(tmp_path, 6, seed=1, workers=1, config=replace(bare, recombined_fraction=0.5), layers=True)
    recipe.write_text("[]")
    with pytest.raises(OutputError, match="other settings"):
        run(tmp_path, 6, seed=1, workers=1, config=bare, layers=True)


def test_layers_come_back_as_they_were_written(tmp_path, people):
    written = [layer for layer, _, _ in people[:7]]
    layers.write_shard(tmp_path, 0, written[:4])
    layers.write_shard(tmp_path, 1, written[4:])
    found = layers.LayerSet(tmp_path)
    assert len(found) == 7
    for k, layer in enumerate(written):
        back = found.get(k)
        np.testing.assert_array_equal(back.alpha, layer.alpha)
        solid = layer.alpha == 255
        assert np.abs(back.color[solid].astype(int) - layer.color[solid]).mean() < 4
        for name in layers._ARRAYS:
            np.testing.assert_array_equal(getattr(back.sample, name), getattr(layer.sample, name))
    assert found.samples()["betas"].shape == (7, 10)
    with pytest.raises(IndexError):
        found.get(7)


def test_a_layer_that_claims_to_be_huge_is_refused_before_it_is_decoded(people, tmp_path):
    layers.write_shard(tmp_path, 0, [people[0][0]])
    content = bytearray((tmp_path / "layers-00000.bin").read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = b"\x7f\x00\x7f\x00"  # 32,512 a side
    (tmp_path / "layers-00000.bin").write_bytes(content)
    with pytest.raises(BadInput, match="layer 0 of .*1,?057,?030,?144 pixels"):
        layers.LayerSet(tmp_path).get(0)


def test_a_shard_that_fails_half_way_is_not_seen(tmp_path, people, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OutputError, match="No space left"):
        layers.write_shard(tmp_path, 0, [people[0][0]])
    assert not list(tmp_path.glob("*.npz*"))
    with pytest.raises(BadInput, match="no layers"):
        layers.LayerSet(tmp_path)


def test_colours_reach_beyond_the_edge(people):
    """A layer that is resampled must not mix in black: next to its edge, hidden colours are those of the edge."""
    for layer, _, _ in people[:5]:
        inside = layer.alpha > 0
        rows = inside.any(1)
        assert (layer.color[rows].reshape(-1, 3).sum(1) > 0).mean() > 0.99
        y, x = np.argwhere(inside)[0]
        np.testing.assert_array_equal(layer.color[y, 0], layer.color[y, x])


def test_impossible_orders_are_refused(tmp_path):
    with pytest.raises(BadInput, match="0 people"):
        run(tmp_path, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another"):
        run(tmp_path / "file", 3)
    with pytest.raises(BadInput, match="no truth"):
        list(read_set(tmp_path))


def test_a_recipe_on_a_full_disk_stays_what_it_was(small_disk, bare):
    """The record of a set is never emptied: a set without it would be refused for ever."""
    out = small_disk / "set"
    run(out, 1, seed=1, workers=1, config=bare, layers=True)
    before = files(out)
    room = small_disk / "room"
    with open(room, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with pytest.raises(OutputError, match="disk is full"):
        run(out, generate.SHARD + 1, seed=1, workers=1, config=bare, layers=True)
    with pytest.raises(OutputError, match="disk is full"):
        run(small_disk / "other", 1, seed=1, workers=1, config=bare, layers=True)
    assert files(out) == before
    with pytest.raises(OutputError, match="disk is full"):
        record_options(out / "recipe.json", json.loads(before["recipe.json"]) | {"material": "x" * 5000})
    assert files(out) == before
    room.unlink()
    run(out, 1, seed=1, workers=1, config=bare, layers=True)


@pytest.mark.slow
def test_synth_told_to_end_ends_its_workers(tmp_path):
    command = [sys.executable, "-m", "wholebody", "synth", "--out", str(tmp_path), "--count", "100000", "--layers",
               "--workers", "2", "--size-hw", "64", "48"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not any(tmp_path.glob("layers-*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    # The fourth number of `stat`, after the name in brackets, is the parent's: not every kernel lists children.
    stats = {int(path.parent.name): path.read_text() for path in Path("/proc").glob("[0-9]*/stat")}
    workers = [pid for pid, stat in stats.items() if int(stat.rpartition(")")[2].split()[1]) == process.pid]
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143 and "SIGTERM" in said and "Traceback" not in said and "predict" not in said
    assert len(workers) >= 2
    for worker in workers:
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{worker}") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not os.path.exists(f"/proc/{worker}")
