"""Kill (SIGKILL) commands at random moments, run them again until they are done, and compare with an undisturbed run.

    python -m tools.soak                     all jobs, 10 kills each
    python -m tools.soak --only index --kills 3
    python -m tools.soak --pictures 1000     also: the memory of `predict` over so many pictures

A job fails if a file differs from the undisturbed run's (times and paths in records aside), if one is missing, or if a
part of a killed run is left. Exit status 1 then.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

DEMO = Path(__file__).parents[2] / "demo"


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
    return _wholebody("synth", "--out", out, "--count", 600, "--layers", "--workers", 1)


Job = Callable[[Path, Path], list[str]]  # (where its inputs lie, where it writes) -> the command
JOBS: dict[str, Job] = {"index": index, "shard": shard, "predict": predict, "synth": synth}


def contents(folder: Path) -> dict[str, bytes]:
    """Files by place; records of a run without what may differ."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name in ("wholebody_run.json", "recipe.json"):
            continue
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def soak(name: str, kills: int, rng: random.Random) -> list[str]:
    """Problems of one job."""
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        command = JOBS[name](folder, folder / "undisturbed")
        begin = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        lasts = time.monotonic() - begin
        wanted = contents(folder / "undisturbed")
        left = kills
        while left:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            for _ in range(min(left, 3)):
                quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                process = subprocess.Popen(JOBS[name](folder, out), **quiet)
                try:
                    process.wait(rng.uniform(0.2, 1.0) * lasts)
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
            missing, other = wanted.keys() - found.keys(), [k for k in wanted if k in found and found[k] != wanted[k]]
            if missing or other or found.keys() - wanted.keys():
                more = sorted(found.keys() - wanted.keys())
                problems.append(f"{name}: missing {sorted(missing)[:3]}, other {other[:3]}, more {more[:3]}")
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
