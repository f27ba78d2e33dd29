"""`wholebody predict`: pictures in, files out. One bad picture is reported and does not stop the rest."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wholebody import __version__
from wholebody.errors import BadInput, OutputError, WholebodyError
from wholebody.files.image import Source, find_sources, read_image, with_unique_names
from wholebody.files.options import check_same_options, record_options
from wholebody.files.text import counted
from wholebody.files.video import find_films
from wholebody.output import files
from wholebody.people.detect import BoxFile, Detections, WholePicture, make_detector
from wholebody.pipeline.config import PredictConfig
from wholebody.pipeline.film import film_is_complete, predict_film

if TYPE_CHECKING:
    import numpy as np

    from wholebody.people.keypoints import KeypointSource
    from wholebody.people.predictor import Person, Predictor
    from wholebody.people.refine import Refiner

RUN_RECORD = "wholebody_run.json"
_PENDING_PIXELS = 24_000_000  # pictures that wait for a full batch hold no more than this
_TALKATIVE = 20  # up to this many pictures get a line each


@dataclass
class Summary:
    """What came of a run."""

    done: list[str] = field(default_factory=list)
    films: list[str] = field(default_factory=list)  # done
    skipped: list[str] = field(default_factory=list)  # complete before
    empty: list[str] = field(default_factory=list)  # done, but nobody was found
    problems: list[str] = field(default_factory=list)
    people: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by step

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] += time.perf_counter() - start


def predict_files(config: PredictConfig, say: Callable[[str], None] = print) -> Summary:
    """Predict every picture that `config.inputs` names and write the results; `say` gets what a user wants to read."""
    summary = Summary()
    files.check_folder(config.out)
    films, rest = find_films(config.inputs, config.fps, skip=config.out)
    sources, summary.problems = find_sources(rest, skip=config.out) if rest else ([], [])
    sources, films = _named_apart(sources, films)
    if not sources and not films:
        raise BadInput("There is nothing to do.\n" + "\n".join(summary.problems))
    _check_run_record(config)
    if config.resume:
        complete = {
            source.name for source in sources if files.is_complete(config.out, source.name, config.kinds, source.path)
        }
        summary.skipped = [str(source.path) for source in sources if source.name in complete]
        sources = [source for source in sources if source.name not in complete]
        done = [film for film in films if film_is_complete(config, film)]
        summary.skipped += [str(film.path) for film in done]
        films = [film for film in films if film not in done]
        if not sources and not films:
            return summary

    if films and config.refine is not None:
        raise BadInput(
            f"--refine is for pictures, and {films[0].path} is a film. Leave it out, or give pictures alone."
        )
    find = _box_finder(config)
    keypoints = _keypoint_source(config)
    with summary.timed("load"):
        predictor = _load(config)
    _films(config, films, predictor, summary, say)
    if not sources:
        return summary
    writer = _Writer(config, predictor, summary, say if len(sources) <= _TALKATIVE else None, keypoints)
    pending: list[tuple[Source, np.ndarray, Detections]] = []
    for source in _with_progress(sources):
        with _reported(source, summary):
            notes: list[str] = []
            with summary.timed("read"):
                image = read_image(source.path, notes)
            for note in notes:
                say(note)
            with summary.timed("detect"):
                found = find(source, image)
            pending.append((source, image, found))
        people = sum(len(found) for _, _, found in pending)
        pixels = sum(image.shape[0] * image.shape[1] for _, image, _ in pending)
        if people >= predictor.batch_size or pixels > _PENDING_PIXELS:
            writer.flush(pending)
            pending = []
    writer.flush(pending)
    return summary


def _films(
    config: PredictConfig, films: Sequence[Source], predictor: Predictor, summary: Summary, say: Callable[[str], None]
) -> None:
    for source in films:
        with _reported(source, summary):
            about = conventions(predictor.model, None)
            result, written = predict_film(config, source, predictor, about, say, summary.timed)
            people = len(result.scene.people)
            summary.films.append(str(source.path))
            summary.people += people
            if not people:
                summary.empty.append(str(source.path))
            say(
                f"{source.path}: {counted(people, 'person')} in {counted(len(result.scene.frames), 'frame')}"
                f"{f', {result.frames / result.seconds:.1f} frames/s' if result.seconds > 0 else ''} -> "
                f"{written[0]} and {len(written) - 1} more"
            )


def _named_apart(pictures: list[Source], films: list[Source]) -> tuple[list[Source], list[Source]]:
    """The pictures and films under names that differ."""
    taken = {film.path.resolve() for film in films}
    pictures = [picture for picture in pictures if picture.path.resolve() not in taken]
    named = with_unique_names([(source.path, source.name) for source in (*pictures, *films)])
    return named[: len(pictures)], named[len(pictures) :]


@dataclass
class _Writer:
    """Takes read and detected pictures through the network and to files."""

    config: PredictConfig
    predictor: Predictor
    summary: Summary
    say: Callable[[str], None] | None
    keypoints: KeypointSource | None = None

    def flush(self, pending: Sequence[tuple[Source, np.ndarray, Detections]]) -> None:
        if not pending:
            return
        try:
            with self.summary.timed("network and body"):
                results = self.predictor.predict_many([row[1] for row in pending], [row[2] for row in pending])
        except Exception as error:
            if len(pending) == 1:
                with _reported(pending[0][0], self.summary):
                    raise error
            else:  # one of them is to blame: find out which
                for row in pending:
                    self.flush([row])
            return
        for (source, image, found), people in zip(pending, results, strict=True):
            with _reported(source, self.summary):
                if self.keypoints is not None and people:
                    with self.summary.timed("refine"):
                        people = self._refined(source, image, found, people)
                self._write(source, image, people)

    def _refined(self, source: Source, image: np.ndarray, found: Detections, people: list[Person]) -> list[Person]:
        assert self.keypoints is not None
        rows = self._refiner(people, self.keypoints(source.path, image, found))
        if self.say is not None:
            for number, row in enumerate(rows):
                change = f"{row.error_before:.1%} -> {row.error:.1%} of the box" if row.moved else "left as predicted"
                self.say(f"{source.path}: person {number} by {row.keypoints} keypoints: {change}")
        return [row.person for row in rows]

    @cached_property
    def _refiner(self) -> Refiner:
        from wholebody.people.refine import Refiner
        from wholebody.people.relift import lift_of

        model = self.predictor.model
        return Refiner(model.body, lift=lift_of(model))

    def _write(self, source: Source, image: np.ndarray, people: list[Person]) -> None:
        body = self.predictor.model.body
        with self.summary.timed("overlay and files"):
            written = files.write_results(
                self.config.out,
                source.name,
                image,
                people,
                faces=body.faces.cpu().numpy(),
                conventions=conventions(self.predictor.model, image.shape[:2])
                | ({} if self.keypoints is None else {"refined_by": self.keypoints.name}),
                save=self.config.kinds if people else ("json",),
                opacity=self.config.opacity,
                image_id=int(source.path.stem) if source.path.stem.isdecimal() else source.name,
            )
        self.summary.done.append(str(source.path))
        self.summary.people += len(people)
        if not people:
            self.summary.empty.append(str(source.path))
        if self.say is not None:
            scores = ", ".join(f"{person.score:.2f}" for person in people)
            found = (
                f"{len(people)} {'person' if len(people) == 1 else 'people'} (score {scores})" if people else "nobody"
            )
            self.say(f"{source.path}: {found} -> {written[0]}{f' and {len(written) - 1} more' if people else ''}")


def conventions(model: Any, image_hw: tuple[int, int] | None) -> dict[str, Any]:
    """What the numbers in a result file mean, for whoever opens it without this package."""
    from wholebody.body.joints import SMPLX_JOINTS

    body = model.body
    checkpoint = getattr(model, "checkpoint", None)
    return {
        "made_by": f"wholebody {__version__}",
        "model": getattr(model.config, "name", "unknown"),
        "model_licence": getattr(checkpoint, "licence", "unknown"),
        "body": body.name,
        "gender": body.gender,
        "flat_hand_mean": body.flat_hand_mean,
        **({} if image_hw is None else {"image_hw": list(image_hw)}),
        "units": "metres, radians, pixels; the first pixel's centre is at 0",
        "camera_frame": "x right, y down, z forward",
        "camera": "pixel = focal_px * xy / z + principal_px, of this person alone",
        "rotations": "axis-angle, relative to the parent joint; global_orient in the camera frame",
        "hand_poses": "as they are" if body.flat_hand_mean else "added to the body's mean hand pose",
        "joints_cam": list(SMPLX_JOINTS),
        "keypoints_px": "COCO-WholeBody 133: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand",
    }


def _load(config: PredictConfig) -> Predictor:
    from wholebody.model.load import load_model
    from wholebody.people.predictor import Predictor, pick_device

    device = pick_device(config.device)
    model = load_model(config.model, body=config.body).to(device)
    return Predictor(model, batch_size=config.batch_size or (4 if device == "cpu" else 32))


def _box_finder(config: PredictConfig) -> Callable[[Source, np.ndarray], Detections]:
    if config.boxes == "whole":
        return lambda source, image: WholePicture()(image)
    if config.boxes is not None:
        boxes = BoxFile(config.boxes)
        return lambda source, image: boxes(source.path, image.shape[:2])
    detector = make_detector(config.detector)
    return lambda source, image: detector(image)


def _keypoint_source(config: PredictConfig) -> KeypointSource | None:
    if config.refine is None:
        return None
    from wholebody.people.keypoints import make_source

    return make_source(config.refine)


def _check_run_record(config: PredictConfig) -> None:
    """Remember what a folder was made with, so that `--resume` does not mix two kinds of results."""
    record = {name: getattr(config, name) for name in ("model", "body", "boxes", "detector", "refine")}
    path = config.out / RUN_RECORD
    if config.resume:
        check_same_options(
            path, record, "Give the same ones to resume, choose another --out, or leave out --resume to do all again."
        )
    record_options(path, record | {"version": __version__})


@contextlib.contextmanager
def _reported(source: Source, summary: Summary) -> Iterator[None]:
    """Turn the failure of one picture into a line of the report. A folder that takes no more files ends the run."""
    try:
        yield
    except OutputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        summary.problems.append(str(error))
    except WholebodyError as error:
        text = str(error)
        summary.problems.append(text if str(source.path) in text else f"{source.path}: {text}")
    except Exception as error:  # a defect of ours: say so, but do not lose a night's run over one picture
        summary.problems.append(f"{source.path}: unexpected {type(error).__name__}: {error}")


def _with_progress(sources: Sequence[Source]) -> Any:
    if len(sources) <= 1 or not sys.stderr.isatty() and len(sources) <= _TALKATIVE:
        return sources
    from tqdm import tqdm

    return tqdm(sources, unit="picture", file=sys.stderr)
