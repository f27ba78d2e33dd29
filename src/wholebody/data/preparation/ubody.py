"""UBody's videos to the pictures that its annotations name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from wholebody.errors import BadInput, OutputError
from wholebody.files.whole import whole

RATE = 30
"""Pictures a second: annotations count pictures at this rate, whatever the video's own is."""
SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm")


@dataclass
class FrameSummary:
    """What `ubody_frames` did; `problems` names videos that could not be used, each with why."""

    videos: int = 0
    frames: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)


def ubody_frames(
    root: Path,
    scenes: Sequence[str] = (),
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> FrameSummary:
    """Write `images/SCENE/VIDEO/000001.png`, ... from `videos/SCENE/VIDEO.mp4`, 30 a second.

    Pictures are repeated or left out for the rate as the published command's ffmpeg does, so that numbers match the
    annotations. A video's folder appears when it is complete; those that are there are left as they are, so that an
    interrupted run goes on. A video that cannot be decoded is reported and passed over.

    Args:
        root: the set's folder.
        scenes: only these; () for all.
        workers: processes.
        progress: called with the number of videos done.
    """
    source = root / "videos"
    if not source.is_dir():
        raise BadInput(f"{source} is missing; unpack UBody's videos there (from https://osx-ubody.github.io)")
    missing = [scene for scene in scenes if not (source / scene).is_dir()]
    if missing:
        found = ", ".join(sorted(path.name for path in source.iterdir() if path.is_dir()))
        raise BadInput(f"{source} has no scene {', '.join(missing)}; there are: {found or 'none'}")
    places = [source / scene for scene in scenes] if scenes else [source]
    videos = sorted(path for place in places for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not videos:
        raise BadInput(f"no videos ({', '.join(SUFFIXES)}) in {', '.join(map(str, places))}")
    summary = FrameSummary()
    jobs = [(video, root / "images" / video.relative_to(source).with_suffix("")) for video in videos]
    todo = [job for job in jobs if not job[1].is_dir()]
    summary.skipped = len(jobs) - len(todo)
    for frames, problem in _run(todo, workers):
        if problem:
            summary.problems.append(problem)
        else:
            summary.videos += 1
            summary.frames += frames
        if progress:
            progress(1)
    return summary


def _run(jobs: list[tuple[Path, Path]], workers: int) -> Iterator[tuple[int, str]]:
    if workers <= 1:
        yield from map(_extract, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_extract, jobs)


def _extract(job: tuple[Path, Path]) -> tuple[int, str]:
    """(pictures written, what went wrong)"""
    video, folder = job
    count = 0
    try:
        with whole(folder) as part:
            part.mkdir()
            for picture, repeats in at_constant_rate(_decode(video)):
                content = _png(picture) if repeats else b""
                for _ in range(repeats):
                    count += 1
                    (part / f"{count:06d}.png").write_bytes(content)
            if count == 0:
                raise BadInput(f"{video}: holds no pictures; fetch it again")
    except BadInput as error:
        return 0, str(error)
    except OutputError as error:
        return 0, f"{video}: {error}"
    return count, ""


def _png(picture: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".png", picture)[1].tobytes()


def _decode(path: Path) -> Iterator[tuple[np.ndarray, float, float]]:
    """(picture H×W×3 BGR, seconds from the start, seconds that it lasts) of a video's frames."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = (container.start_time or 0) / 1e6
            lasts = float(1 / (stream.guessed_rate or stream.average_rate or RATE))
            time = None
            for frame in container.decode(stream):
                last_time, time = time, frame.time
                if time is None:  # no time stamp: it follows the one before
                    time = start if last_time is None else last_time + lasts
                picture = frame.to_ndarray(format="bgr24", interpolation="BICUBIC")
                duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else lasts
                yield picture, time - start, duration
    except (av.error.FFmpegError, OSError, IndexError, ValueError) as error:
        raise BadInput(f"{path}: cannot be decoded ({error}); fetch it again") from error


def at_constant_rate(
    frames: Iterable[tuple[np.ndarray, float, float]], rate: float = RATE
) -> Iterator[tuple[np.ndarray, int]]:
    """(picture, how often it is written) so that pictures come at `rate` a second.

    ffmpeg's rule for a constant rate: a frame that ends more than 1.1 pictures late fills what is missing, one that
    ends more than 1.1 pictures early is left out; gaps are filled with the picture before.
    """
    written, before = 0, None
    for picture, time, lasts in frames:
        # Where the frame should be, against where it would come; ffmpeg moves it off the exact middle.
        drift = time * rate + (time > 0) * 2**-17 - written
        length = float(round(lasts * rate)) or min(lasts * rate, 1.0)
        end = drift + length
        if drift < 0 < end:
            drift = 0.0
        repeats, of_before = 1, 0
        if end < -1.1:
            repeats = 0
        elif end > 1.1:
            repeats = round(end)
            of_before = round(drift - 0.6) if drift > 1.1 else 0
        of_before = min(of_before, repeats) if before is not None else 0
        if of_before and before is not None:
            yield before, of_before
        if repeats > of_before:
            yield picture, repeats - of_before
        written += repeats
        before = picture
