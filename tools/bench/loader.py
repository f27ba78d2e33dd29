"""The loader beside the published way of loading, and an index of a million people.

`published_crop` is an honest twin of what the published code does to a picture: decode all of it, make it float32, copy
it, mirror it, warp, colour, scale. tests/data/test_decode.py holds it to the published code's arrays.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from wholebody.data.augment import channel_gains
from wholebody.data.decode import crop_picture, read_picture
from wholebody.data.index import RECORD, ROWS, index_writer
from wholebody.geometry.crop import crop_affine, fit_box

ROOT = Path(__file__).parents[2]


def published_crop(
    path: Path,
    box_xywh: np.ndarray,
    scale: float,
    degrees: float,
    flip: bool,
    colour: np.ndarray,
    out_hw: tuple[int, int] = (512, 384),
) -> np.ndarray:
    """3×H×W float32 in [0, 1] of the picture at `path`, by the published steps."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise OSError(f"cannot read {path}")
    picture = picture[:, :, ::-1].copy().astype(np.float32)
    picture = picture.copy()
    x, y, width, height = map(float, box_xywh)
    centre = np.array([x + 0.5 * width, y + 0.5 * height])
    if flip:
        picture = picture[:, ::-1, :]
        centre[0] = picture.shape[1] - centre[0] - 1
    affine = _affine(centre, np.array([width, height]) * scale, np.deg2rad(degrees), out_hw)
    patch = cv2.warpAffine(picture, affine, (out_hw[1], out_hw[0]), flags=cv2.INTER_LINEAR).astype(np.float32)
    patch = np.clip(patch * colour[None, None, :], 0, 255)
    return np.ascontiguousarray(patch.astype(np.float32).transpose(2, 0, 1)) / np.float32(255)


def _affine(centre: np.ndarray, size: np.ndarray, angle: float, out_hw: tuple[int, int]) -> np.ndarray:
    """From three points, as published: the centre, one below and one to the right, turned."""
    cos, sin = np.cos(angle), np.sin(angle)
    down, right = np.array([-sin, cos]) * size[1] * 0.5, np.array([cos, sin]) * size[0] * 0.5
    out_centre = np.array([out_hw[1], out_hw[0]]) * 0.5
    source = np.stack([centre, centre + down, centre + right]).astype(np.float32)
    target = np.stack([out_centre, out_centre + [0, out_hw[0] * 0.5], out_centre + [out_hw[1] * 0.5, 0]])
    return cv2.getAffineTransform(source, target.astype(np.float32))


def main(row: Callable[..., None]) -> None:
    """`row(what, value, unit, target)` prints a figure."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        crops(Path(folder), row)
    with tempfile.TemporaryDirectory() as folder:
        million(Path(folder), row)


# Crops


def crops(folder: Path, row: Callable[..., None], count: int = 40) -> None:
    """The same people, boxes and augmentations both ways, alternating; time is the processor's, on one core."""
    for name, (height, width), tall in (("1000x1000", (1000, 1000), (300, 900)), ("4K", (2160, 3840), (300, 1900))):
        path = folder / f"{name}.jpg"
        cv2.imwrite(str(path), _photo(height, width), [cv2.IMWRITE_JPEG_QUALITY, 80])
        rng = np.random.default_rng(0)
        tasks = [_Task.draw(path, (height, width), tall, rng) for _ in range(count)]
        published: list[float] = []
        ways: dict[str, Callable[[_Task], object]] = {
            "without aliasing, 256x192": _Task.ours,
            "the published network's pixels, 256x192": partial(_Task.ours, antialias=False),
            "all that is warped as published, 512x384": partial(_Task.ours, out_hw=(512, 384), antialias=False),
        }
        ours: dict[str, list[float]] = {way: [] for way in ways}
        row(f"{name}: bits a pixel of the JPEG", 8 * path.stat().st_size / (height * width), "")
        tasks[0].published(), tasks[0].ours()
        for task in tasks:
            published.append(_cpu_seconds(task.published))
            for way, run in ways.items():
                ours[way].append(_cpu_seconds(partial(run, task)))
        row(f"{name}: published way", len(tasks) / sum(published), "a second")
        for way, seconds in ours.items():
            row(f"{name}: ours, {way}", len(tasks) / sum(seconds), "a second")
            target = "" if "512" in way else "target >= 4"
            row(f"{name}: times as many", sum(published) / sum(seconds), "x", target)
        other, mine = (_peak_mb(path, kind) for kind in ("published", "ours"))
        row(f"{name}: memory, published way", other, "MB")
        row(f"{name}: memory, ours", mine, "MB", f"target <= {other / 2:.0f}")


@dataclass(frozen=True)
class _Task:
    """A person in a picture, and how the crop is augmented."""

    path: Path
    box_xywh: np.ndarray
    scale: float
    degrees: float
    flip: bool
    colour: np.ndarray

    @staticmethod
    def draw(path: Path, hw: tuple[int, int], tall: tuple[int, int], rng: np.random.Generator) -> _Task:
        """Published augmentation; the person is between `tall` pixels high, all heights alike."""
        height = rng.uniform(*tall)
        size = np.array([height * rng.uniform(0.35, 0.6), height])
        low = rng.uniform(0, 1, 2) * (np.array(hw[::-1]) - size)
        x0, y0, x1, y1 = fit_box(np.concatenate([low, low + size]))
        scale = 1 + 0.25 * float(np.clip(rng.normal(), -1, 1))
        degrees = 30 * float(np.clip(rng.normal(), -2, 2)) if rng.random() < 0.6 else 0.0
        colour = rng.uniform(0.8, 1.2, 3)
        return _Task(path, np.array([x0, y0, x1 - x0, y1 - y0]), scale, degrees, bool(rng.random() < 0.5), colour)

    def published(self) -> np.ndarray:
        return published_crop(self.path, self.box_xywh, self.scale, self.degrees, self.flip, self.colour)

    def ours(self, out_hw: tuple[int, int] = (256, 192), antialias: bool = True) -> np.ndarray:
        x, y, width, height = self.box_xywh
        affine, _ = crop_affine([x, y, x + width, y + height], np.deg2rad(self.degrees), self.scale, self.flip)
        to_picture = np.diag([out_hw[1] / 384, out_hw[0] / 512]) @ affine
        data = read_picture(self.path.parent, self.path.name)
        return channel_gains(crop_picture(data, to_picture, out_hw, antialias=antialias), self.colour)


def _photo(height: int, width: int) -> np.ndarray:
    """Detail at all scales. As JPEG about as many bits a pixel as real sets: Human3.6M 0.6, MPII 0.8, MPI-INF-3DHP 0.4
    to 1.2; of people a photographer looked for (COCO) 4."""
    rng = np.random.default_rng(1)
    picture = np.full((height, width, 3), 120, np.float32)
    for cell, strength in ((300, 40), (80, 30), (20, 20), (5, 8)):
        coarse = rng.normal(0, strength, (height // cell + 2, width // cell + 2, 3 if cell > 50 else 1))
        layer = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        picture += layer.reshape(height, width, -1)
    picture += rng.normal(0, 2, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def _cpu_seconds(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def _peak_mb(path: Path, kind: str) -> float:
    """By how much the peak of a process grows with its first crops, after the imports, in a process of its own."""
    height, width = (1000, 1000) if "1000" in path.name else (2160, 3840)
    code = (
        "import resource, sys, cv2, numpy as np, simplejpeg\n"
        "from pathlib import Path\n"
        "from PIL import Image\n"
        "from tools.bench.loader import _Task\n"
        "import wholebody.files.image, wholebody.data.decode\n"
        "cv2.setNumThreads(1)\n"
        "peak = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "small = np.zeros((64, 64, 3), np.uint8)\n"
        "cv2.warpAffine(small, np.eye(3)[:2], (8, 8))\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = peak()\n"
        "rng = np.random.default_rng(0)\n"
        f"for _ in range(12):\n"
        f"    _Task.draw(Path(sys.argv[1]), ({height}, {width}), (300, {int(0.88 * height)}), rng).{kind}()\n"
        "print((peak() - before) / 1024)"
    )
    return float(_python(code, str(path)))


# A million people


def million(folder: Path, row: Callable[..., None], count: int = 1_000_000, workers: int = 4) -> None:
    """An index of a million people with all their numbers; what opening it takes and what four workers hold of it."""
    path = folder / "million.arrow"
    _write_million(path, count)
    row(f"index of {count:,} people", path.stat().st_size / 1e9, "GB")
    code = (
        "import sys, time, pyarrow\n"
        "from wholebody.data.index import Index\n"
        "begin = time.perf_counter()\n"
        "index = Index(sys.argv[1]); index[len(index) - 1]\n"
        "print(time.perf_counter() - begin)"
    )
    row(
        "opened and one person read, a new process",
        min(float(_python(code, str(path))) for _ in range(5)),
        "s",
        "target < 1",
    )
    held = _held_by_workers(path, workers)
    row(f"{workers} loader processes, 5,000 random people each: own pages", held["uss"], "MB")
    row("  the same with shared pages by share (PSS), most at any time", held["pss"], "MB", "target < 300")
    row("  of it the index's mapped pages", held["mapped"], "MB")
    row("  processes without the index (PSS)", held["bare"], "MB")
    row("  annotations held", held["pss"] - held["bare"], "MB", "target < 300")


def _write_million(path: Path, count: int) -> None:
    """No two people alike, so that nothing can be shared or packed. Batches are handed to the writer whole: packing
    person by person, as an index of a real set is made, takes 80 s of processor time."""
    rng = np.random.default_rng(0)
    with index_writer(path, {"dataset": "MSCOCO", "split": "train"}) as writer:
        for start in range(0, count, ROWS):
            numbers = range(start, min(start + ROWS, count))
            raw = rng.integers(0, 128, (ROWS, RECORD.itemsize), np.uint8)  # below 128: no float is NaN
            writer._records = raw.reshape(-1).view(RECORD)
            names = [f"images/train2017/{number // 2:012d}.jpg" for number in numbers]
            writer._texts = {
                "id": [f"{number:09d}" for number in numbers], "image_path": names, "mesh_path": [None] * len(names),  # type: ignore[dict-item]
                "dataset": ["MSCOCO"] * len(names), "body": ["smplx"] * len(names), "gender": ["neutral"] * len(names),
            }  # fmt: skip
            writer._flush()


def _held_by_workers(path: Path, workers: int) -> dict[str, float]:
    """Megabytes of all workers together: the most seen while they read, from /proc/PID/smaps."""
    code = (
        "import sys, numpy as np, pyarrow, wholebody.data.index as i\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "index = i.Index(sys.argv[1])\n"
        "for number in np.random.default_rng(int(sys.argv[2])).integers(len(index), size=5_000):\n"
        "    index[int(number)]\n"
        "print('done', flush=True); sys.stdin.readline()"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, str(path)]
    started = [subprocess.Popen([*command, str(n)], stdin=pipe, stdout=pipe, text=True) for n in range(workers)]
    try:
        for process in started:
            process.stdout.readline()  # type: ignore[union-attr]
        bare = _smaps(started, path)["pss"]
        for process in started:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        most = {"uss": 0.0, "pss": 0.0, "mapped": 0.0}
        for process in started:
            said: list[str] = []
            waiting = threading.Thread(target=lambda p=process, s=said: s.append(p.stdout.readline()))  # type: ignore
            waiting.start()
            while waiting.is_alive():
                now = _smaps(started, path)
                most = {key: max(value, now[key]) for key, value in most.items()}
                waiting.join(0.05)
            if said != ["done\n"]:
                raise SystemExit("a process that read the index failed")
        return most | {"bare": bare}
    finally:
        for process in started:
            process.kill()
            process.wait()


def _smaps(processes: list[subprocess.Popen], path: Path) -> dict[str, float]:
    """Sums over processes, MB: own pages, pages by share, and those by share that are mapped from `path`."""
    sums = {"uss": 0, "pss": 0, "mapped": 0}
    for process in processes:
        of_index = False
        for line in Path(f"/proc/{process.pid}/smaps").read_text().splitlines():
            key, _, rest = line.partition(":")
            if "-" in line.split(" ", 1)[0]:  # the head of a mapping
                of_index = line.endswith(path.name)
            elif key == "Pss":
                sums["pss"] += int(rest.split()[0])
                sums["mapped"] += int(rest.split()[0]) * of_index
            elif key in ("Private_Clean", "Private_Dirty"):
                sums["uss"] += int(rest.split()[0])
    return {key: value / 1024 for key, value in sums.items()}


def _python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    if done.returncode:
        raise SystemExit(f"a benchmark failed:\n{done.stderr}")
    return done.stdout
