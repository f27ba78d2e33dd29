"""Prints every timed claim of this project. Published sizes run on made-up weights and a made-up body of real shape.

Comparisons alternate (ours, theirs, ours, ...) and give the median of the paired ratios, which holds when the machine's
speed drifts. Absolute times are minima. Choose parts: `python -m tools.bench small published synthesis`.

What is compared with another way also goes to `output/bench/bench.json`: the machine, and a list of `name`, `ours_ms`,
`other_ms`, `ratio`. Rows of parts that were not run this time stay as they were.
"""

from __future__ import annotations

import json
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.files.whole import write_bytes

ROOT = Path(__file__).parents[2]
ORACLE = ROOT / "tests" / "oracle"
CACHE = Path(os.environ.get("WHOLEBODY_TEST_CACHE") or Path.home() / ".cache" / "wholebody-tests")


def main(parts: list[str]) -> None:
    known = {"start": start, "small": small, "published": published, "memory": memory, "synthesis": synthesis}
    known["whole"] = whole
    known["evaluation"] = evaluation
    known["loader"] = loader
    known["film"] = film
    known["overlay"] = overlay
    known["export"] = export
    for name in parts or known:
        if name not in known:
            raise SystemExit(f"no part {name!r}; parts: {', '.join(known)}")
        print(f"\n{name}")
        known[name]()
    keep_results()


RESULTS: list[dict[str, object]] = []


def compared(name: str, mine: list[float], other: list[float]) -> float:
    """Keep a comparison under its name: seconds of pairs; the median of the ratios."""
    ratio = float(np.median([b / a for a, b in zip(mine, other, strict=True)]))
    medians = (round(1e3 * float(np.median(times)), 2) for times in (mine, other))
    RESULTS.append(dict(zip(("name", "ours_ms", "other_ms", "ratio"), (name, *medians, round(ratio, 3)), strict=True)))
    return ratio


def keep_results(path: Path = ROOT / "output" / "bench" / "bench.json") -> None:
    """Write this run's comparisons, beside those of earlier runs on the same machine that it did not repeat."""
    if not RESULTS:
        return
    about = machine()
    before: list[Any] = []
    if path.is_file():
        earlier = json.loads(path.read_text())
        before = earlier["results"] if earlier.get("machine") == about else []
    new = {row["name"] for row in RESULTS}
    rows = [row for row in before if row["name"] not in new] + RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps({"machine": about, "results": rows}, indent=1) + "\n").encode())
    print(f"\n{path}")


def machine() -> dict[str, object]:
    """What the figures depend on."""
    import torch

    from wholebody.model.precision import has_bf16_arithmetic

    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "bf16": has_bf16_arithmetic("cpu"),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if os.path.exists(path) else []


def loader() -> None:
    """Crops of encoded pictures beside the published way, and an index of a million people."""
    from tools.bench.loader import main as measure

    measure(row)


def row(what: str, value: float, unit: str, target: str = "") -> None:
    print(f"  {what:<58}{value:9.2f} {unit:<10}{target}", flush=True)


def start() -> None:
    """How long until something happens."""
    for what, code, target in (
        ("import wholebody", "import wholebody", "target < 0.3"),
        ("wholebody --help", "import wholebody.cli as c; c.main(['--help'])", "target < 0.5"),
    ):
        seconds = [_seconds(partial(_run, code)) for _ in range(5)]
        row(what + ", a new process", min(seconds), "s", target)


def small() -> None:
    """The embedded network."""
    import torch

    import wholebody
    from wholebody.files.image import read_image
    from wholebody.pipeline.config import PredictConfig
    from wholebody.pipeline.predict import predict_files

    model = wholebody.load_model("t")
    crop = torch.rand(1, 3, 512, 384)
    with torch.inference_mode():
        model(crop)
        row("t: network and body, one person", 1e3 * _best(lambda: model(crop), 20), "ms", "target < 60")
    picture = ROOT / "demo" / "astronaut.jpg"
    predictor = wholebody.Predictor(model)
    predictor(read_image(picture))
    with tempfile.TemporaryDirectory() as folder:
        overlay = PredictConfig(inputs=(str(picture),), out=Path(folder), save=("overlay",))
        predict_files(overlay)
        summary = predict_files(overlay)
        after_start = sum(seconds for step, seconds in summary.seconds.items() if step != "load")
        row("t: a photo to its overlay, after start-up", after_start, "s", "target < 1")


def whole() -> None:
    """The embedded network's whole way; targets are for two idle cores."""
    from tools.bench.whole import measure

    measure(row, _best, ROOT / "demo" / "astronaut.jpg")


def published() -> None:
    """Sizes b and l beside the published operations in the published order, float32."""
    import torch

    from tools.bench.published import PublishedWay
    from wholebody.body.assets import find_body, read_body_file
    from wholebody.body.layer import BodyModel
    from wholebody.model.config import published_config
    from wholebody.model.osx import build_osx

    fill = runpy.run_path(str(ORACLE / "fill.py"))
    folder = _standin()
    picture = torch.from_numpy(fill["image"](1))
    for size, target in (("b", "target >= 2"), ("l", "target >= 1.5")):
        torch.manual_seed(0)
        ours = build_osx(published_config(size), BodyModel.load(folder)).eval().requires_grad_(False)
        theirs = PublishedWay(ours, read_body_file(find_body(folder)))
        with torch.inference_mode():
            mine, other = _paired(partial(ours, picture), partial(theirs, picture), 9)
        row(f"{size}: ours", 1e3 * min(mine), "ms")
        row(f"{size}: published way", 1e3 * min(other), "ms")
        row(f"{size}: times as fast", compared(f"{size}_f32", mine, other), "x", target)
        _half(size, ours, theirs, picture)


def _half(size: str, ours: Any, theirs: Any, picture: Any) -> None:
    """The same in bf16, compiled, where the processor computes in it."""
    import torch

    from wholebody.model.precision import compile_encoder, has_bf16_arithmetic

    if not has_bf16_arithmetic("cpu"):
        print(f"  {size}, bf16 compiled: this processor has no bf16 arithmetic, so not timed")
        return
    ours = ours.to(torch.bfloat16)
    if not compile_encoder(ours.encoder, picture.to(torch.bfloat16), lambda line: print(f"  {line}")):
        return
    counts = ((1, "", 4.5 if size == "b" else 3.0), *(((4, "_4", 3.5),) if size == "l" else ()))
    for count, end, target in counts:
        pictures = picture.expand(count, -1, -1, -1).contiguous()
        with torch.inference_mode():
            mine, other = _paired(partial(ours, pictures), partial(theirs, pictures), 9)
        ratio = compared(f"{size}_bf16{end}", mine, other)
        row(f"{size}, bf16 compiled, {count} at a time: times as fast", ratio, "x", f"target >= {target:g}")


def overlay() -> None:
    """Drawing a large photo; the other way takes nine samples a pixel."""
    import cv2

    from wholebody.files.image import read_image
    from wholebody.output.overlay import draw_overlay
    from wholebody.people.predictor import Predictor

    small = read_image(ROOT / "demo" / "astronaut.jpg")
    image = cv2.resize(small, (2048, 2048))
    people = Predictor("t")(image)
    draw = partial(draw_overlay, image, people, people[0].faces)
    mine, other = _paired(draw, partial(draw, samples=3), 5)
    ratio = compared("overlay_2048", mine, other)
    row("overlay of 2048 x 2048 with side view", 1e3 * min(mine), "ms", "target < 250")
    row("two samples a side beside three: times as fast", ratio, "x")


def export() -> None:
    """Exported graphs in ONNX Runtime and OpenVINO beside PyTorch, float32: milliseconds a crop."""
    from tools.bench.export import measure

    measure(row, compared, _paired, _standin())


def memory() -> None:
    """Peak of `wholebody predict`: the embedded network, and a published `l` that carries its optimiser."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "snapshot_13.pth.tar"
        _run(_WRITE_PUBLISHED, str(checkpoint))  # in a process of its own: nothing of it stays in this one
        published_l = ("--model", str(checkpoint), "--body", str(_standin()))
        for name, options, target in (("t", (), "target < 900"), ("l, with optimiser", published_l, "target < 2200")):
            beside, all_of_it = _peak_of_predict(*options)
            row(f"{name}: peak of predict, beside mapped files", beside, "MB", target)
            row(f"{name}: peak of predict, all that is resident", all_of_it, "MB")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "smplest_x_h.pth.tar"
        _run(_WRITE_SMPLEST_X, str(checkpoint))
        row("smplest_x_h: made-up file with optimiser", checkpoint.stat().st_size / 1e9, "GB", "published 8.2")
        for what, code, target in (
            ("load and predict one crop, float32", _LOAD.format(dtype="float32"), "target < 3500"),
            ("load and predict one crop, bfloat16", _LOAD.format(dtype="bfloat16"), "target < 2000"),
            ("checkpoint convert", _CONVERT, ""),
        ):
            peak = int(_run(_WATCHED + code + _PEAK, str(checkpoint), str(_standin())).split("PEAK")[1]) / 1024
            row(f"smplest_x_h: {what}, peak beside mapped files", peak, "MB", target)


_WRITE_PUBLISHED = """
import sys, torch
from wholebody.model.config import published_config
from wholebody.model.osx import build_osx
from wholebody.model.published_names import to_published
torch.manual_seed(0)
tensors = to_published(build_osx(published_config("l")).state_dict(), "normal")
network = {f"module.{name}": tensor for name, tensor in tensors.items()}
moments = {n: {"exp_avg": t, "exp_avg_sq": t.clone()} for n, t in enumerate(network.values())}
torch.save({"epoch": 13, "network": network, "optimizer": {"state": moments, "param_groups": []}}, sys.argv[1])
"""


_WRITE_SMPLEST_X = """
import sys, torch
from wholebody.model.families import build_network
from wholebody.model.published_names import to_published
from wholebody.model.smplest_x import SMPLestXConfig
torch.manual_seed(0)
tensors = to_published(build_network(SMPLestXConfig()).state_dict(), "normal")
network = {f"module.{name}": tensor for name, tensor in tensors.items()}
moments = {n: {"exp_avg": t, "exp_avg_sq": t.clone()} for n, t in enumerate(t.clone() for t in network.values())}
torch.save({"epoch": 20, "network": network, "optimizer": {"state": moments, "param_groups": []}}, sys.argv[1])
"""

# The largest amount of memory that is no mapped file, watched from beside (Linux).
_WATCHED = """
import sys, threading, time
peak, done = [0], threading.Event()
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0]))
        time.sleep(0.005)
threading.Thread(target=watch, daemon=True).start()
"""
_LOAD = """
import torch, wholebody
model = wholebody.load_model(sys.argv[1], body=sys.argv[2], dtype=torch.{dtype})
with torch.inference_mode():
    model(torch.rand(1, 3, 512, 384))
"""
_CONVERT = """
from wholebody.model.checkpoint import convert
convert(sys.argv[1], sys.argv[1].removesuffix('.pth.tar') + '.safetensors')
"""
_PEAK = "done.set()\nprint('PEAK', peak[0])\n"


def _peak_of_predict(*options: str) -> tuple[float, float]:
    """Largest memory, MB, of a process that predicts on one photo (Linux): beside mapped files, and all of it."""
    # Not `ru_maxrss`: a new process begins with that of the one that started it.
    code = (
        "import sys, wholebody.cli as c\n"
        f"status = c.main(['predict', {str(ROOT / 'demo' / 'astronaut.jpg')!r}, '--out', *sys.argv[1:]])\n"
        "print('RESIDENT', open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        said = _run(_WATCHED + code + _PEAK + "sys.exit(status)", folder, *options)
    return int(said.split("PEAK")[1]) / 1024, int(said.split("RESIDENT")[1].split()[0]) / 1024


def evaluation() -> None:
    """Errors of meshes."""
    from tools.bench.evaluation import compare

    found = compare(_standin())
    row("errors of a mesh: ours", found["ours_ms"], "ms")
    row("errors of a mesh: published loop", found["published_ms"], "ms")
    row("errors of a mesh: times as fast, best of three calls", found["ratio"], "x", "target >= 20")
    row("the first of three calls, its meshes in slow memory", found["ratio_first"], "x")
    row("the best of three, regressors float32 as published", found["ratio_float32"], "x", "target >= 20")
    print(f"  largest relative difference {found['difference']:.1e}, target <= 1e-6")


def synthesis() -> None:
    """Drawing people."""
    from wholebody.synthesis import SynthesisConfig
    from wholebody.synthesis.sets.generate import bench

    def pictures(config: SynthesisConfig) -> float:
        return bench(config=config)["pictures_per_second"]

    painted = pictures(SynthesisConfig(assets="none"))
    row("painted people, pictures, 256x192, two processes", painted, "a second", "target >= 100")
    if SynthesisConfig().resolved().wardrobe:
        dressed = pictures(SynthesisConfig())
        row("dressed people, pictures, 256x192, two processes", dressed, "a second", "target >= 50")
    else:
        print("  dressed people: WHOLEBODY_MATERIAL names no MakeHuman assets, so not timed")


def film() -> None:
    """A drawn film of 2 s, 720p, one person, with the embedded network; targets are for two idle cores."""
    from tools.bench.film import measure

    measure(row, compared, CACHE)


def _standin() -> Path:
    """The made-up body files of the tests, written once."""
    folder = CACHE / "standin-v1"
    if not folder.exists():
        part = CACHE / "standin-bench.part"
        part.mkdir(parents=True, exist_ok=True)
        runpy.run_path(str(ORACLE / "make_smplx_standin.py"))["main"](str(part))
        part.rename(folder)
    return folder


def _run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def _seconds(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def _best(function: Callable[[], object], count: int) -> float:
    return min(_seconds(function) for _ in range(count))


def _paired(one: Callable[[], object], other: Callable[[], object], count: int) -> tuple[list[float], list[float]]:
    one(), other()
    pairs = [(_seconds(one), _seconds(other)) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


if __name__ == "__main__":
    main(sys.argv[1:])
