"""`wholebody predict` on a film or a folder of numbered frames: one `Scene`, and the files made from it.

What the networks say is kept in parts of some seconds beside the results (`.NAME_parts`) until these are written, so
that an interrupted run goes on with `--resume`; memory holds a few frames and some hundred numbers a person and frame.
"""

from __future__ import annotations

import copy
import ctypes
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.image import Source
from wholebody.files.npz import DAMAGED, read_arrays
from wholebody.files.video import Film, Frame, open_film
from wholebody.files.whole import whole
from wholebody.motion.camera import choose_focal
from wholebody.motion.rig import Rig
from wholebody.motion.watch import Part, Watcher, joined, scene_of, whole_every
from wholebody.people.detect import Detector, make_detector
from wholebody.people.scene import Scene
from wholebody.pipeline.config import PredictConfig

if TYPE_CHECKING:
    from wholebody.people.alignment import Aligner
    from wholebody.people.predictor import Predictor

Progress = Callable[[int, "int | None"], None]
"""Is told how many frames are done, and about how many there are."""
_FORM = 2  # of the parts, counted up when what they hold changes
PART_FRAMES = 300
"""About so many frames make a part."""
_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of malloc.h
_WEAK = 0.1  # detections from this score on may go on with a track


@dataclass
class FilmResult:
    """What came of a film."""

    scene: Scene
    frames: int = 0
    seconds: float = 0.0  # of watching, without what had been seen before
    notes: list[str] = field(default_factory=list)


def watch_film(
    config: PredictConfig, path: Path, name: str, predictor: Predictor, progress: Progress | None = None
) -> FilmResult:
    """A film to its scene; what an earlier run saw is not seen again where `config.resume` says so."""
    _give_memory_back()
    film = open_film(path, config.start, config.end, config.fps)
    focal_px, source = choose_focal(film.info.wh, config.focal, config.fov)
    parts = _Parts(config.out, name, _made_with(config, film))
    before = parts.open(resume=config.resume)
    watcher = Watcher(
        _without_skin(predictor), _detector(config), focal_px, film.info.wh, film.rate,
        whole_every=whole_every(config.smooth),
    )  # fmt: skip
    seen, since, new = sum(len(part.numbers) for part in before), time.perf_counter(), 0
    with closing(watcher):
        frames = film.read()
        if before:
            frames = film.read(first=before[-1].numbers[-1])
            last = next(frames, None)
            if last is None:
                raise BadInput(f"{path}: is shorter than when this run began. Run it again without --resume.")
            watcher.restore(parts.state, last)
        for frame in _with_progress(frames, film, seen, progress):
            watcher.see(frame)
            new += 1
            if new % PART_FRAMES == 0:
                watcher.finish()
                before.append(watcher.take_part())
                parts.add(before[-1], watcher.state())
        watcher.finish()
        last_part = watcher.take_part()
        if last_part.numbers:
            before.append(last_part)
            parts.add(last_part, watcher.state())
    seconds = time.perf_counter() - since
    if seen + new == 0:
        raise BadInput(f"{path}: no frame of it lies between --start and --end." + "".join(f" {n}" for n in film.notes))
    body = predictor.model.body
    scene = scene_of(
        joined(before),
        watcher.tracker.swaps,
        Rig(body),
        film.rate,
        focal_px,
        source,
        film.info.wh,
        smooth=config.smooth,
        camera=config.camera,
        max_people=config.max_people,
        gender=body.gender,
        notes=film.notes,
    )
    return FilmResult(scene, new, seconds, list(scene.notes))


def predict_film(
    config: PredictConfig,
    source: Source,
    predictor: Predictor,
    conventions: dict[str, Any],
    say: Callable[[str], None],
    timed: Callable[[str], AbstractContextManager[None]] = lambda step: nullcontext(),
    progress: Progress | None = None,
) -> tuple[FilmResult, list[Path]]:
    """Watch a film and write what `config.film_kinds` names; the parts of the work go when all is written."""
    from wholebody.output.film import write_film

    with timed("watching"):
        result = watch_film(config, source.path, source.name, predictor, progress)
    for note in result.notes:
        say(note)
    with timed("film files"):
        written = write_film(
            config.out,
            source.name,
            result.scene,
            predictor.model.body,
            open_film(source.path, config.start, config.end, config.fps),
            save=config.film_kinds,
            look=config.look,
            rig=config.rig,
            conventions=conventions,
            say=say,
        )
        if config.smpler_x:
            written += _as_smpler_x(config, source, result.scene, predictor, say)
    shutil.rmtree(_Parts.folder_of(config.out, source.name), ignore_errors=True)
    return result, written


def _as_smpler_x(
    config: PredictConfig, source: Source, scene: Scene, predictor: Predictor, say: Callable[[str], None]
) -> list[Path]:
    """The files of SMPLer-X's script; those of a run before, which may have had more frames, go."""
    from wholebody.output.smpler_x import files_there, write_smpler_x_film

    for path in files_there(config.out):
        path.unlink()
    film = open_film(source.path, config.start, config.end, config.fps)
    body, enlarge = predictor.model.body, predictor.box_scale
    say("writing smplx, meta, mesh and img")
    return write_smpler_x_film(config.out, scene, body, film, enlarge=enlarge, look=config.look)


def work_is_begun(out: Path, name: str) -> bool:
    """Whether an earlier run left parts of its work on the film of that name."""
    return _Parts.folder_of(out, name).exists()


def _give_memory_back() -> None:
    """Let large arrays go back to the system when they are freed (glibc alone does not by itself: after the first
    large array it keeps the next ones, and frames on several threads leave holes of hundreds of megabytes)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 20)
        mallopt(_ARENA_MAX, 2)


def _detector(config: PredictConfig) -> Detector:
    name = config.boxes or config.detector
    if name not in ("movenet", "rfdetr", "whole"):
        raise BadInput(f"--boxes {name}: boxes from a file are for pictures; in films the detector finds people.")
    return make_detector(name, _WEAK if name == "movenet" else None)


def _without_skin(predictor: Predictor) -> Predictor:
    """The same predictor, whose people have one vertex: a film needs joints, and its meshes come later."""
    light = copy.copy(predictor)
    light.model = copy.copy(predictor.model)
    light.model._modules = dict(predictor.model._modules)
    light.model.body = predictor.model.body.subset([0])

    @cache
    def aligner() -> Aligner:  # what is fitted to landmarks needs the skin that they lie on
        whole: Aligner = predictor._aligner
        return whole.without_meshes()

    light.__dict__["_aligner"] = lambda people, evidence: aligner()(people, evidence)
    return light


def _made_with(config: PredictConfig, film: Film) -> str:
    """All that what was seen depends on, as a text that two runs share."""
    about = film.info.path.stat()
    size = about.st_size if film.info.path.is_file() else film.info.frames
    options: list[object] = [_FORM, config.model, config.body, config.boxes, config.detector, config.start, config.end,
                             config.fps, config.focal, config.fov, size]  # fmt: skip
    options += [value for value in (config.family, config.box_scale) if value is not None]
    if set(config.looked_at) != {"body", "hands", "face"}:
        options.append(sorted(config.looked_at))
    options += [(name, getattr(config, name)) for name in ("gender", "height") if getattr(config, name) is not None]
    return repr(options)


class _Parts:
    """Parts of a film that was begun: `000000.npz`, ... each with the state after it."""

    def __init__(self, out: Path, name: str, made_with: str) -> None:
        self._folder = self.folder_of(out, name)
        self._made_with = made_with
        self._count = 0
        self.state: dict[str, np.ndarray] = {}

    @staticmethod
    def folder_of(out: Path, name: str) -> Path:
        return (out / name).with_name(f".{Path(name).name}_parts")

    def open(self, resume: bool) -> list[Part]:
        """What earlier runs saw; nothing, and none of it stays, without `resume`."""
        if not resume:
            shutil.rmtree(self._folder, ignore_errors=True)
            return []
        parts = []
        for path in sorted(self._folder.glob("*.npz")):
            try:
                arrays = read_arrays(path)
                made_with = str(arrays["made_with"])
                part = Part.of({k.removeprefix("part_"): v for k, v in arrays.items() if k.startswith("part_")})
            except (BadInput, *DAMAGED) as error:
                raise BadInput(
                    f"{path}: cannot be read ({error}). Delete {self._folder}, or run without --resume."
                ) from error
            if made_with != self._made_with:
                raise BadInput(
                    f"{self._folder}: was begun with other options or another film. Give the same ones to resume, or "
                    "leave out --resume to do all again."
                )
            parts.append(part)
            self.state = {k.removeprefix("state_"): v for k, v in arrays.items() if k.startswith("state_")}
            self._count += 1
        return parts

    def add(self, part: Part, state: dict[str, np.ndarray]) -> None:
        arrays = {f"part_{key}": value for key, value in part.arrays().items()}
        arrays |= {f"state_{key}": value for key, value in state.items()}
        with whole(self._folder / f"{self._count:06d}.npz") as path, open(path, "xb") as file:
            np.savez(file, made_with=np.array(self._made_with), **arrays)  # type: ignore[arg-type]
        self._count += 1


def _with_progress(frames: Iterator[Frame], film: Film, done: int, progress: Progress | None) -> Iterator[Frame]:
    from tqdm import tqdm

    with tqdm(
        total=film.expected, initial=done, unit="frame", desc=film.info.path.name, file=sys.stderr, disable=None
    ) as bar:
        for frame in frames:
            yield frame
            bar.update()
            done += 1
            if progress is not None:
                progress(done, film.expected)
