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


def measure(row: Callable[..., None], cache: Path) -> None:
    """cache: where the film is kept for the next time, as drawing it takes minutes."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = drawn(cache / "bench-film-v1")
        count = sum(1 for _ in open_film(path))
        for what, parts, save, target in _CASES:
            seconds, processor = _timed(path, folder / "out", parts, save)
            row(what, count / seconds["all"], "frames/s", target)
            for step in ("watching", "film files"):
                row(f"  {step}", 1e3 * seconds[step] / count, "ms/frame")
            row("  processor time", 1e3 * processor / count, "ms/frame")


def drawn(folder: Path) -> Path:
    """A film of one person whom nothing but what is embedded is needed for."""
    config = SynthesisConfig(split="heldout", size_hw=(720, 1280), motion="none", hdri="none", assets="none")
    clips.run(folder, 1, 0, config, seconds=2.0)
    return next(path for path in sorted(folder.rglob("*.mp4")))


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
