"""How fast a film becomes its files: frames a second, and processor time a frame, after start-up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from wholebody.files.image import Source
from wholebody.files.video import open_film
from wholebody.output import FILM_KINDS
from wholebody.pipeline.config import PredictConfig
from wholebody.pipeline.film import predict_film
from wholebody.pipeline.predict import load_predictor
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.sets import clips

_QUICK = tuple(kind for kind in FILM_KINDS if kind != "overlay")
_CASES: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("hands and face, all but the overlay film", ("body", "hands", "face"), _QUICK, "target >= 6"),
    ("--parts body, all but the overlay film", ("body",), _QUICK, "target >= 10"),
    ("hands and face, with the overlay film", ("body", "hands", "face"), FILM_KINDS, "target >= 4.5"),
)


def measure(row: Callable[..., None], compared: Callable[[str, list[float], list[float]], float], cache: Path) -> None:
    """row, compared: print and keep figures. cache: where the film is kept for the next time, as drawing it takes
    minutes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = drawn(cache / "bench-film-v1")
        mine, other = compare(path)
        row("a frame of a film", 1e3 * min(mine), "ms")
        row("the same frame by itself, as a photo", 1e3 * min(other), "ms")
        row("times as fast", compared("film_frame", mine, other), "x")
        count = sum(1 for _ in open_film(path))
        for what, parts, save, target in _CASES:
            seconds, processor = _timed(path, folder / "out", parts, save)
            row(what, count / seconds["all"], "frames/s", target)
            for step in ("watching", "film files"):
                row(f"  {step}", 1e3 * seconds[step] / count, "ms/frame")
            row("  processor time", 1e3 * processor / count, "ms/frame")


def compare(path: Path, count: int = 24, pairs: int = 3) -> tuple[list[float], list[float]]:
    """Seconds of a frame as part of a film (`motion.watch`, the scene included) and by itself, as photos go: both ways
    take turns."""
    from wholebody.motion.watch import watch
    from wholebody.people.detect import make_detector
    from wholebody.people.predictor import Predictor

    film = open_film(path)
    frames = [frame for frame, _ in zip(film, range(count), strict=False)]
    predictor, detector = Predictor("t"), make_detector("movenet", 0.1)
    mine, other = [], []
    for _ in range(pairs + 1):
        begin = time.perf_counter()
        watch(
            frames, predictor, detector, fps=film.rate, focal_px=1000.0, focal_source="--focal", image_wh=film.info.wh
        )
        middle = time.perf_counter()
        for frame in frames:
            predictor(frame.image)
        mine.append((middle - begin) / len(frames))
        other.append((time.perf_counter() - middle) / len(frames))
    return mine[1:], other[1:]  # the first pair loads what is loaded once


def drawn(folder: Path) -> Path:
    """A film of one person whom nothing but what is embedded is needed for."""
    config = SynthesisConfig(split="heldout", size_hw=(720, 1280), motion="none", hdri="none", assets="none")
    clips.run(folder, 1, 0, config, seconds=2.0)
    return min(folder.rglob("*.mp4"))


def _timed(path: Path, out: Path, parts: tuple[str, ...], save: tuple[str, ...]) -> tuple[dict[str, float], float]:
    """Seconds by step and in all, and seconds of processor time."""
    config = PredictConfig((str(path),), out=out, parts=parts, save=save, overwrite=True)
    predictor = load_predictor(config)
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str):  # type: ignore[no-untyped-def]
        begin = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - begin

    keep: Callable[[str], AbstractContextManager[None]] = timed
    source = Source(path, path.stem)
    # Once for what loads at the first person.
    predict_film(PredictConfig((str(path),), out=out, parts=parts, save=save, end=0.4), source, predictor, {}, _silent)
    begin, processor = time.perf_counter(), time.process_time()
    predict_film(config, source, predictor, {}, _silent, keep)
    seconds["all"] = time.perf_counter() - begin
    return seconds, time.process_time() - processor


def _silent(line: str) -> None:
    pass
