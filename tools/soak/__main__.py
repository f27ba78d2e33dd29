"""Kill (SIGKILL) commands at random moments, run them again until they are done, and compare with an undisturbed run.

    python -m tools.soak                     all jobs, 10 kills each
    python -m tools.soak --only index --kills 3
    python -m tools.soak --pictures 1000     also: the memory of `predict` over so many pictures

A job fails if a file differs from the undisturbed run's (times and paths in records aside; results of `predict` within
`_NUMBERS`), if one is missing, or if a part of a killed run is left. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

DEMO, TESTS = (Path(__file__).parents[2] / name for name in ("demo", "tests"))


def _wholebody(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "wholebody", *map(str, arguments)]


def _photos(folder: Path, count: int) -> Path:
    source = Image.open(DEMO / "astronaut.jpg").convert("RGB")
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for k in range(count):
        source.crop((0, 0, source.width - k % 40, source.height - k % 40)).save(photos / f"{k:04d}.jpg")
    return photos


def _own_set(folder: Path, people: int = 3000) -> Path:
    """A set in the form of one's own data, large enough to be killed in the middle."""
    root = folder / "sets"
    (root / "Own" / "images").mkdir(parents=True, exist_ok=True)
    (root / "Own" / "annotations").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for k in range(people):
        name = f"{k:05d}.jpg"
        if k < 300:
            Image.fromarray(rng.integers(0, 255, (120, 90, 3), np.uint8)).save(root / "Own" / "images" / name)
        images.append({"id": k, "file_name": f"{k % 300:05d}.jpg", "height": 120, "width": 90})
        annotations.append({"id": k, "image_id": k, "category_id": 1, "iscrowd": 0, "bbox": [5, 5, 60, 100]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (root / "Own" / "annotations" / "train.json").write_text(json.dumps(content))
    return root


def predict(folder: Path, out: Path) -> list[str]:
    photos = folder / "photos"
    if not photos.exists():
        _photos(folder, 12)
    return _wholebody("predict", photos, "--out", out, "--resume", "--save", "npz,json")


def index(folder: Path, out: Path) -> list[str]:
    root = folder / "sets"
    if not root.exists():
        _own_set(folder)
    return _wholebody("data", "index", root, "Own:train", "--out", out)


def shard(folder: Path, out: Path) -> list[str]:
    root = folder / "sets"
    if not (root / "index").exists():
        _own_set(folder)
        subprocess.run(_wholebody("data", "index", root, "Own:train"), check=True, capture_output=True)
    return _wholebody("data", "shard", root, "Own:train", "--out", out, "--size", 1)


def synth(folder: Path, out: Path) -> list[str]:
    return _wholebody("synth", "--out", out, "--count", 300, "--size-hw", 64, 48, "--layers", "--workers", 1)


def train(folder: Path, out: Path) -> list[str]:
    """A tiny network of the published kind, saved at every step: about half of the time goes into saving."""
    begin = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from training import tiny; from pathlib import Path; "
    if not (folder / "tiny.toml").exists():
        subprocess.run([sys.executable, "-c", f"{begin}tiny.write_recipe(Path({str(folder)!r}))"], check=True)
    run = f"tiny.run_in_process({str(folder / 'tiny.toml')!r}, {str(out)!r}, ('epochs=6', 'snapshot_every=1'))"
    return [sys.executable, "-c", begin + run]


Job = Callable[[Path, Path], list[str]]  # (where its inputs lie, where it writes) -> the command
JOBS: dict[str, Job] = {"index": index, "shard": shard, "predict": predict, "synth": synth, "train": train}
_PIXELS, _NUMBERS = 5e-3, 1e-4
"""How far results of `predict` may differ, in pixels and else: a run that goes on puts other people into one batch."""
_OF_THE_RUN = ("wholebody_run.json", "recipe.json", "config.json", "metrics.jsonl")
"""Records with times and paths; `code` and `log` of a training hold more of them."""


def contents(folder: Path) -> dict[str, Path]:
    """Files by place, but for records of a run."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        place: path
        for place, path in found.items()
        if path.name not in _OF_THE_RUN and not place.startswith(("code/", "log/"))
    }


def alike(one: Path, other: Path) -> bool:
    """Whether two files say the same: bytes, but for archives of arrays (which hold the time) and predictions."""
    first, second = one.read_bytes(), other.read_bytes()
    if first == second:
        return True
    if one.suffix == ".npz":
        with np.load(one) as a, np.load(other) as b:
            return a.files == b.files and all(
                a[name].shape == b[name].shape
                and (
                    np.allclose(a[name], b[name], rtol=0, atol=_PIXELS if name.endswith("_px") else _NUMBERS)
                    if a[name].dtype.kind == "f" and "_person" in one.name
                    else np.array_equal(a[name], b[name])
                )
                for name in a.files
            )
    if one.suffix == ".pt":  # a state that was read once is laid out otherwise, with the same numbers
        states = [torch.load(path, weights_only=True) for path in (one, other)]
        return _close(states[0], states[1], 0.0)
    return one.suffix == ".json" and _close(json.loads(first), json.loads(second), _PIXELS)


def _close(one: Any, other: Any, apart: float) -> bool:
    """Whether two nested contents are the same, but for numbers that may be so far `apart`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key], apart) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_close(a, b, apart) for a, b in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= apart
    return bool(one == other)


def _first_sign(command: list[str], out: Path) -> tuple[subprocess.Popen[bytes], float]:
    """Start a command and wait until something new is in its folder; the process, and the seconds that this took."""
    begin, before = time.monotonic(), _all(out)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
    while process.poll() is None and _all(out) == before:
        time.sleep(0.02)
    return process, time.monotonic() - begin


def _all(out: Path) -> set[tuple[str, int]]:
    found = set()
    for path in out.rglob("*") if out.exists() else ():
        with contextlib.suppress(OSError):  # renamed at this very moment
            found.add((str(path), path.stat().st_mtime_ns))
    return found


def soak(name: str, kills: int, rng: random.Random) -> list[str]:
    """Problems of one job. Half of the kills hit a random moment, half one after the first file was begun."""
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = JOBS[name](folder, folder / "undisturbed")
        begin = time.monotonic()
        process, sign = _first_sign(command, folder / "undisturbed")
        if process.wait():
            raise SystemExit(f"{name} fails undisturbed: {command}")
        lasts = time.monotonic() - begin
        wanted = contents(folder / "undisturbed")
        left = kills
        while left:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            for _ in range(min(left, 3)):
                command, late = JOBS[name](folder, out), rng.random() < 0.5
                if late:
                    process, _ = _first_sign(command, out)
                else:
                    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    process.wait(rng.uniform(0, lasts - sign) if late else rng.uniform(0.2, 1.0) * lasts)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                left -= 1
            done = subprocess.run(JOBS[name](folder, out), capture_output=True, text=True)
            if done.returncode:
                problems.append(f"{name}: taken up again it fails: {done.stderr[-300:]}")
                continue
            found = contents(out)
            if parts := [place for place in found if ".part" in place or ".partial" in place]:
                problems.append(f"{name}: parts are left: {parts}")
            missing = sorted(wanted.keys() - found.keys())
            more = sorted(found.keys() - wanted.keys())
            other = [place for place in wanted if place in found and not alike(wanted[place], found[place])]
            if missing or other or more:
                problems.append(f"{name}: missing {missing[:3]}, other {other[:3]}, more {more[:3]}")
    return problems


def memory(pictures: int) -> str:
    """The largest memory of `predict` over a tenth of the pictures, and over all of them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _photos(folder, pictures)
        peaks = []
        for count in (pictures // 10, pictures):
            chosen = sorted((folder / "photos").iterdir())[:count]
            command = _wholebody("predict", *chosen, "--out", folder / f"out{count}", "--save", "json")
            script = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, capture_output=True); "
            script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
            done = subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True)
            peaks.append(f"{int(done.stdout):,} MB over {count:,} pictures")
        return ", ".join(peaks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=JOBS)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=0)
    args = parser.parse_args()
    rng, problems = random.Random(args.seed), []
    for name in args.only or JOBS:
        found = soak(name, args.kills, rng)
        print(f"{name}: {args.kills} kills, {len(found)} problems", flush=True)
        problems += found
    if args.pictures:
        print(f"predict: {memory(args.pictures)}", flush=True)
    print("\n".join(problems) if problems else "no problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
