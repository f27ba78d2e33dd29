"""`wholebody predict`: pictures in, files out. One bad picture is reported and does not stop the rest."""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wholebody import __version__
from wholebody.drawing.warm import compile_aside, warm_up
from wholebody.errors import AssetMissing, BadInput, OutputError, WholebodyError
from wholebody.files.image import Source, find_sources, focal_35mm_of, read_image
from wholebody.files.options import differences
from wholebody.files.text import counted, shown
from wholebody.files.video import find_films
from wholebody.output import files
from wholebody.output.film import film_results
from wholebody.output.smpler_x import files_there, picture_files
from wholebody.people.detect import BoxFile, WholePicture, make_detector
from wholebody.people.detections import Detections
from wholebody.pipeline.ahead import Ahead, afterwards
from wholebody.pipeline.config import PredictConfig
from wholebody.pipeline.film import predict_film, work_is_begun
from wholebody.pipeline.record import Entry, Protected, Record, hash_of, hash_of_options, key_of

if TYPE_CHECKING:
    import numpy as np

    from wholebody.body.layer import BodyModel
    from wholebody.people.keypoints import KeypointSource
    from wholebody.people.predictor import Person, Predictor
    from wholebody.people.refine import Refiner
    from wholebody.people.scene import Scene

_PENDING_PIXELS = 24_000_000  # pictures that wait for a full batch hold no more than this
_PENDING = 32  # nor are there more of them
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
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # by step; steps overlap
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextlib.contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[step] += time.perf_counter() - start


def predict_files(config: PredictConfig, say: Callable[[str], None] = print) -> Summary:
    """Predict every picture that `config.inputs` names and write the results; `say` gets what a user wants to read."""
    aside = compile_aside() if "overlay" in config.kinds else None
    from wholebody.model.load import pick_device

    summary = Summary()
    pick_device(config.device)
    find, keypoints, option_files = _box_finder(config, say), _keypoint_source(config), option_files_of(config)
    record = Record(config.out, config.overwrite)
    films, sources = _find(config, record, summary, say)
    if films and config.refine is not None:
        raise BadInput(
            f"--refine is for pictures, and {films[0].path} is a film. Leave it out, or give pictures alone."
        )
    if config.smpler_x:
        _check_smpler_x(config, films, sources, say)
    if config.resume:
        _check_same_run(config, record)
    files.check_folder(config.out)
    record.begin(_options(config))
    protected = Protected((source.path for source in (*films, *sources)), option_files)
    jobs = [_Job(source, record.name_of(source), _made_with(config, option_files, film=source in films), frame)
            for source, frame in zip((*films, *sources), _frames((*films, *sources)), strict=True)]  # fmt: skip
    names = [job.name for job in jobs]
    kinds = config.kinds_of(len(sources))
    jobs = [job for job in jobs if _is_to_do(job, config, kinds, record, protected, summary)]
    if not jobs:
        if aside is not None:
            aside.kill()
            aside.wait()
        _write_as(config, record, names, summary, say)
        return summary
    if len(kinds) < len(config.kinds):
        left_out = ", ".join(kind for kind in config.kinds if kind not in kinds)
        say(f"{len(sources)} pictures, so without {left_out}: --save writes them if you name them; the .npz hold the "
            "parameters that they follow from")  # fmt: skip

    pictures = [job for job in jobs if job.source not in films]
    with afterwards("put away") as later:  # draws and writes, one picture after the other
        if "overlay" in kinds and pictures:
            later.submit(warm_up, aside)  # while the network is loaded
        with summary.timed("load"):
            predictor = load_predictor(config, say)
        _films(config, [job for job in jobs if job.source in films], predictor, record, summary, say)
        if pictures:
            with _threads_shared() if len(pictures) > 1 else contextlib.nullcontext():
                _pictures(config, pictures, kinds, find, keypoints, predictor, record, summary, say, later)
    _write_as(config, record, names, summary, say)
    return summary


def _write_as(
    config: PredictConfig, record: Record, names: Sequence[str], summary: Summary, say: Callable[[str], None]
) -> None:
    """The results of these pictures and films as another body's, beside them (NAME_personN_BODY.npz), where
    that is asked for."""
    from wholebody.pipeline.config import ConvertConfig
    from wholebody.pipeline.convert import convert

    if config.as_body is None:
        return
    entries = [entry for name in names if (entry := record.entries.get(name.casefold())) is not None]
    people = [str(config.out / file) for entry in entries for file in sorted(entry.files)
              if file.endswith(".npz") and "_person" in file.rpartition("/")[2]]  # fmt: skip
    if not people:
        return
    to_open = config.as_body == "open"
    asked = ConvertConfig(
        tuple(people), to=config.as_body, out=config.out, overwrite=config.overwrite,
        body=None if to_open else config.body, source=config.body if to_open else None,
    )  # fmt: skip
    with summary.timed("as another body"):
        done = convert(asked, say, beside=True)
    worst = max(one.worst_error for one in done)
    say(f"{counted(len(done), 'person')} as {config.as_body}, skin within {1000 * worst:.1f} mm on average or better")


def _pictures(
    config: PredictConfig, jobs: Sequence[_Job], kinds: tuple[str, ...],
    find: Callable[[Source, np.ndarray], Detections], keypoints: KeypointSource | None, predictor: Predictor,
    record: Record, summary: Summary, say: Callable[[str], None], later: ThreadPoolExecutor,
) -> None:  # fmt: skip
    """While the network looks at some pictures, the next ones are read and detected, and those before are written."""

    def prepare(job: _Job) -> tuple[_Picture, list[str]]:
        notes: list[str] = []
        with summary.timed("read"):
            content = hash_of(job.source.path)
            image = read_image(job.source.path, notes)
        ahead.take(job, image.shape[0] * image.shape[1])
        with summary.timed("detect"):
            found = find(job.source, image)
        return _Picture(job, content, image, found), notes

    talk = say if len(jobs) <= _TALKATIVE else None
    pending: list[_Picture] = []
    with Ahead(prepare, jobs, 2 * _PENDING_PIXELS) as ahead:
        writer = _Writer(config, kinds, predictor, record, summary, talk, later, ahead.give_back, keypoints)
        for job, future in _with_progress(ahead, jobs):
            with _reported(job.source, summary):
                picture, notes = future.result()
                for note in notes:
                    say(note)
                pending.append(picture)
            people = sum(len(picture.found) for picture in pending)
            pixels = sum(picture.image.shape[0] * picture.image.shape[1] for picture in pending)
            if people >= predictor.batch_size or pixels > _PENDING_PIXELS or len(pending) >= _PENDING:
                writer.flush(pending)
                pending = []
        writer.flush(pending)
        writer.finish()


@contextlib.contextmanager
def _threads_shared() -> Iterator[None]:
    """PyTorch takes half of the cores for each call, as two threads call it at a time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _find(
    config: PredictConfig, record: Record, summary: Summary, say: Callable[[str], None]
) -> tuple[list[Source], list[Source]]:
    """The films and the pictures that the inputs name; what is left out of them is said."""
    left_out: list[str] = []
    films, rest = find_films(config.inputs, config.fps, config.out, record.is_ours)
    sources: list[Source] = []
    if rest:
        known = {key_of(film.path) for film in films}
        sources, summary.problems = find_sources(rest, config.out, left_out, record.is_ours, known)
        sources = [source for source in sources if key_of(source.path) not in known]
    if not sources and not films:
        raise BadInput("There is nothing to do.\n" + "\n".join([*summary.problems, *left_out]))
    for line in left_out:
        say(line)
    return films, sources


@dataclass(frozen=True)
class _Job:
    """A picture or film to work on."""

    source: Source
    name: str
    """Of its results."""
    made_with: str
    """Hash of the options that they depend on."""
    frame: int = 0
    """Its number among the pictures, as SMPLer-X's files count them."""


def _is_to_do(
    job: _Job, config: PredictConfig, kinds: tuple[str, ...], record: Record, protected: Protected, summary: Summary
) -> bool:
    """Whether there is something to do that may be done; else the summary says why not."""
    film = job.made_with.startswith("film")
    begun = film and work_is_begun(config.out, job.name)
    if config.resume and not begun:
        done = record.film_is_done if film else partial(record.is_done, save=kinds)
        if done(job.source, job.name, job.made_with):
            summary.skipped.append(str(job.source.path))
            return False
    there = film_results(config.out, job.name, config.film_kinds) if film else record.results(job.name, kinds)
    if config.smpler_x:
        there += files_there(config.out, None if film else job.frame)
    # A film that was begun was asked about then; what lies there since is its own.
    refusal = None if begun and not config.overwrite else record.refusal(there, protected)
    if refusal:
        summary.problems.append(f"{shown(job.source.path)}: {refusal}")
    return refusal is None


def _films(
    config: PredictConfig, jobs: Sequence[_Job], predictor: Predictor, record: Record, summary: Summary,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    for job in jobs:
        source = job.source
        with _reported(source, summary):
            about = conventions(predictor.model, None)
            content = hash_of(source.path)
            result, written = predict_film(config, Source(source.path, job.name), predictor, about, say, summary.timed)
            people = len(result.scene.people)
            hashes = {path.relative_to(config.out).as_posix(): hash_of(path) for path in written}
            record.finish(Entry(job.name, key_of(source.path), content, job.made_with, job.name, people, hashes))
            summary.films.append(str(source.path))
            summary.people += people
            if not people:
                summary.empty.append(str(source.path))
            say(
                f"{shown(source.path)}: {counted(people, 'person')} in {counted(len(result.scene.frames), 'frame')}"
                f"{f', {result.frames / result.seconds:.1f} frames/s' if result.seconds > 0 else ''} -> "
                f"{shown(written[0])} and {len(written) - 1} more"
            )


@dataclass(frozen=True)
class _Picture:
    """Read, and looked at by the detector."""

    job: _Job
    content: str
    """Hash of its file."""
    image: np.ndarray
    found: Detections


@dataclass
class _Writer:
    """Takes read and detected pictures through the network and to files."""

    config: PredictConfig
    kinds: tuple[str, ...]
    predictor: Predictor
    record: Record
    summary: Summary
    say: Callable[[str], None] | None
    later: ThreadPoolExecutor
    release: Callable[[_Job], None]
    """Told of each picture that is not held any more."""
    keypoints: KeypointSource | None = None
    _writing: deque[Future[None]] = field(default_factory=deque)

    def flush(self, pending: Sequence[_Picture]) -> None:
        if not pending:
            return
        try:
            with self.summary.timed("network and body"):
                results = self.predictor.predict_many([row.image for row in pending], [row.found for row in pending])
        except Exception as error:
            if len(pending) == 1:
                self.release(pending[0].job)
                with _reported(pending[0].job.source, self.summary):
                    raise error
            else:  # one of them is to blame: find out which
                for row in pending:
                    self.flush([row])
            return
        for picture, people in zip(pending, results, strict=True):
            refined: list[Person] | None = people
            if self.keypoints is not None and people:
                refined = None
                with _reported(picture.job.source, self.summary), self.summary.timed("refine"):
                    refined = self._refined(picture, people)
            if refined is None:
                self.release(picture.job)
            else:
                self._writing.append(self.later.submit(self._put_away, picture, refined))
        while self._writing and self._writing[0].done():
            self._writing.popleft().result()

    def finish(self) -> None:
        """Wait until everything is written."""
        while self._writing:
            self._writing.popleft().result()

    def _put_away(self, picture: _Picture, people: list[Person]) -> None:
        try:
            with _reported(picture.job.source, self.summary):
                self._write(picture, people)
        finally:
            self.release(picture.job)

    def _refined(self, picture: _Picture, people: list[Person]) -> list[Person]:
        assert self.keypoints is not None
        rows = self._refiner(people, self.keypoints(picture.job.source.path, picture.image, picture.found.of(people)))
        if self.say is not None:
            for number, row in enumerate(rows):
                self.say(f"{shown(picture.job.source.path)}: person {number} by {row.keypoints} keypoints: {row}")
        return [row.person for row in rows]

    @cached_property
    def _refiner(self) -> Refiner:
        from wholebody.people.refine import Refiner
        from wholebody.people.relift import lift_of

        model = self.predictor.model
        return Refiner(model.body, lift=lift_of(model))

    def _smpler_x(self, picture: _Picture, people: list[Person]) -> dict[str, bytes]:
        return picture_files(
            picture.job.frame,
            picture.image,
            people,
            self.predictor.model.body.faces.cpu().numpy(),
            path=picture.job.source.path,
            enlarge=self.predictor.box_scale,
            opacity=self.config.opacity,
        )

    def _write(self, picture: _Picture, people: list[Person]) -> None:
        body, source = self.predictor.model.body, picture.job.source
        image_id = self.record.image_id(picture.job.name)
        hashes: dict[str, str] = {}

        def announce(path: Path, data: bytes) -> None:
            relative, content = self.record.announce(path, data)
            hashes[relative] = content

        with self.summary.timed("overlay and files"):
            written = files.write_results(
                self.config.out,
                picture.job.name,
                picture.image,
                people,
                faces=body.faces.cpu().numpy(),
                conventions=conventions(self.predictor.model, picture.image.shape[:2])
                | ({} if self.keypoints is None else {"refined_by": self.keypoints.name}),
                save=self.kinds if people else ("json",),
                opacity=self.config.opacity,
                image_id=image_id,
                scene=partial(everybody, people, body, picture.image.shape[:2], self.config, source.path),
                beside=partial(self._smpler_x, picture, people) if self.config.smpler_x else None,
                remove=lambda _, name: self.record.remove(name),
                announce=announce,
            )
            self.record.finish(
                Entry(
                    picture.job.name,
                    key_of(source.path),
                    picture.content,
                    picture.job.made_with,
                    image_id,
                    len(people),
                    hashes,
                )
            )
        self.summary.done.append(str(source.path))
        self.summary.people += len(people)
        if not people:
            self.summary.empty.append(str(source.path))
        if self.say is not None:
            scores = ", ".join(f"{person.score:.2f}" for person in people)
            found = f"{counted(len(people), 'person')} (score {scores})" if people else "nobody"
            more = f" and {len(written) - 1} more" if people and len(written) > 1 else ""
            self.say(f"{shown(source.path)}: {found} -> {shown(written[0])}{more}")


def _frames(sources: Sequence[Source]) -> list[int]:
    """Numbers of pictures as SMPLer-X's files count them: those that are their names, else from 1 in their order."""
    names = [source.path.stem for source in sources]
    if all(name.isascii() and name.isdecimal() and len(name) < 9 for name in names):
        if len({int(name) for name in names}) == len(names):
            return [int(name) for name in names]
    return list(range(1, len(sources) + 1))


def _check_smpler_x(
    config: PredictConfig, films: Sequence[Source], sources: Sequence[Source], say: Callable[[str], None]
) -> None:
    """SMPLer-X's files are of one film or of one row of pictures."""
    if len(films) > 1 or (films and sources):
        raise BadInput(
            f"--save smpler-x: its files are numbered through and say nothing of whose they are, and there are "
            f"{counted(len(films), 'film')} and {counted(len(sources), 'picture')}. Give one film at a time, or "
            "pictures alone, each time another --out."
        )
    if config.model in ("t", "osx_t") or config.body == "open":
        say(
            "smplx/*.npz hold parameters of the open body, which tools for SMPL-X do not know; mesh/*.obj are right "
            "for all. `wholebody convert --to smplx` makes parameters of SMPL-X."
        )


def everybody(
    people: list[Person], body: BodyModel, image_hw: tuple[int, int], config: PredictConfig, path: Path
) -> bytes:
    """The `.glb` of a photo: everybody rigged, where they stood, before one camera and on one floor."""
    from wholebody.output.glb import glb_bytes

    return glb_bytes(photo(people, body, image_hw, config, path), body, look=config.look, rig=config.rig)


def photo(people: list[Person], body: BodyModel, image_hw: tuple[int, int], config: PredictConfig, path: Path) -> Scene:
    """The scene of the photo at `path`, by the focal length that `config` or the photo's EXIF names."""
    from wholebody.motion.camera import choose_focal
    from wholebody.motion.rig import Rig
    from wholebody.motion.watch import photo_scene

    image_wh = (image_hw[1], image_hw[0])
    focal_px, source = choose_focal(image_wh, config.focal, config.fov, focal_35mm_of(path))
    return photo_scene(people, Rig(body), image_wh, focal_px, source, gender=body.gender)


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


def load_predictor(config: PredictConfig, say: Callable[[str], None] | None = None) -> Predictor:
    """The network, its body and its detector, on the device that `config` names; `say` is told of its precision."""
    from wholebody.model.load import load_model, pick_device
    from wholebody.people.predictor import Predictor

    device = pick_device(config.device)
    # With --as the file of --body is the other body's, unless that is the open one.
    body = None if config.as_body not in (None, "open", "anny") else config.body
    model = load_model(
        config.model, body=body, device=device, any_gender=config.any_gender, family=config.family,
        precision=config.precision, compile=config.compile, say=say,
    )  # fmt: skip
    return Predictor(
        model,
        batch_size=config.batch_size or (4 if device == "cpu" else 32),
        box_scale=config.box_scale,
        parts=config.looked_at,
        gender=config.gender,
        height=config.height,
    )


def _box_finder(config: PredictConfig, say: Callable[[str], None]) -> Callable[[Source, np.ndarray], Detections]:
    if config.boxes == "whole":
        return lambda source, image: WholePicture()(image)
    if config.boxes is not None:
        boxes = BoxFile(config.boxes)

        def find(source: Source, image: np.ndarray) -> Detections:
            if not boxes.knows(source.path):
                say(f"{shown(source.path)}: {shown(config.boxes or '')} has nothing for this picture")
            found = boxes(source.path, image.shape[:2])
            while boxes.problems:
                say(shown(boxes.problems.pop(0)))
            return found

        return find
    detector = make_detector(config.detector)
    return lambda source, image: detector(image)


def _keypoint_source(config: PredictConfig) -> KeypointSource | None:
    if config.refine is None:
        return None
    from wholebody.people.keypoints import make_source

    return make_source(config.refine)


def _options(config: PredictConfig) -> dict[str, Any]:
    """What the results of a folder have in common."""
    options = {name: getattr(config, name) for name in ("model", "body", "boxes", "detector", "refine")}
    # Older records lack these.
    newer = {name: getattr(config, name) for name in ("family", "box_scale", "gender", "height")}
    if set(config.looked_at) != {"body", "hands", "face"}:
        newer["parts"] = list(config.looked_at)
    if config.precision != "fp32":
        newer["precision"] = config.precision
    return options | {name: value for name, value in newer.items() if value is not None}


def option_files_of(config: PredictConfig) -> dict[str, Path]:
    """The files that options name."""
    from wholebody.body.assets import find_body
    from wholebody.model.load import find_weights

    named = {"--boxes": config.boxes, "--refine": config.refine}
    found = {option: Path(value) for option, value in named.items() if value and Path(value).is_file()}
    found["--model"] = find_weights(config.model)
    try:
        body = find_body(config.body)
    except AssetMissing:
        if not Path(config.body or "").is_dir():
            raise
        return found  # a folder without the neutral body may hold what the model needs
    return found if body == "open" else found | {"--body": Path(body)}


def _made_with(config: PredictConfig, option_files: Mapping[str, Path], film: bool) -> str:
    """Hash of all that results of a picture or film depend on."""
    options = _options(config) | {"opacity": config.opacity}
    names: tuple[str, ...] = ("focal", "fov", "look", "rig")
    if film:
        names = (*names, "start", "end", "fps", "max_people", "camera", "smooth", "film_kinds")
    options |= {name: getattr(config, name) for name in names}
    if config.smpler_x:
        options["smpler_x"] = True
    return ("film " if film else "") + hash_of_options(options, option_files.values())


def _check_same_run(config: PredictConfig, record: Record) -> None:
    """`--resume` does not mix results of two kinds."""
    now = _options(config)
    changed = differences({name: record.before.get(name) for name in now}, now, "--") if record.before else []
    if changed:
        raise BadInput(
            f"{config.out} was made with other options ({'; '.join(changed)}). Give the same ones to resume, choose "
            "another --out, or leave out --resume to do all again."
        )


@contextlib.contextmanager
def _reported(source: Source, summary: Summary) -> Iterator[None]:
    """Turn the failure of one picture into a line of the report. A folder that takes no more files ends the run."""
    try:
        yield
    except BrokenPipeError:  # of the terminal, not of the picture
        raise
    except OutputError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        summary.problems.append(str(error))
    except WholebodyError as error:
        text = str(error)
        summary.problems.append(text if str(source.path) in text else f"{shown(source.path)}: {text}")
    except Exception as error:  # a defect of ours: say so, but do not lose a night's run over one picture
        summary.problems.append(f"{shown(source.path)}: unexpected {type(error).__name__}: {error}")


def _with_progress(ready: Iterable[Any], jobs: Sequence[Any]) -> Iterable[Any]:
    if len(jobs) <= 1 or not sys.stderr.isatty() and len(jobs) <= _TALKATIVE:
        return ready
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(ready, total=len(jobs), unit="picture", file=sys.stderr)
    return bar
