"""Films as streams of upright RGB frames: video files through PyAV, folders of numbered pictures, and their sound.

A frame's number counts the film's frames from 0; its time is in seconds from the film's first frame, as the file says
(films of variable frame rate keep their own times). Nothing but the decoder's few frames is held in memory, and each
pass over a `Film` decodes it once.
"""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.image import (
    MAX_PIXELS,
    MIN_SIDE,
    SUFFIXES,
    Source,
    is_left_alone,
    is_picture_name,
    read_image,
)

# fmt: off
FILM_SUFFIXES = (
    ".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv",
    ".3gp", ".ogv",
)
# fmt: on
FALLBACK_FPS = 30.0
"""Frames a second of a film that names no rate and whose frames carry no times."""
FASTEST_FPS = 1000.0
"""Frames a second; what a film names beyond that is no rate."""
_MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")  # what players of mp4 take as it is
_PQ, _HLG = 16, 18  # transfer characteristics of HDR films (ITU-T H.273)


@dataclass(frozen=True)
class FilmInfo:
    """What is known of a film before it is read through."""

    path: Path
    wh: tuple[int, int]  # of the upright frames, in square pixels
    fps: float  # average frames a second
    frames: int | None  # how many there are, all in all; an estimate; None: unknown
    duration: float | None  # seconds, as the file says
    has_audio: bool


@dataclass(frozen=True)
class Frame:
    number: int  # counts the film's frames from 0
    time: float  # seconds from the film's first frame
    image: np.ndarray  # (H, W, 3) uint8 RGB, upright


@dataclass
class Film:
    """A film, or a part of it; each iteration reads it from `start` to `end`.

    `notes` collects sentences for the user (what broke, and where) while frames are read.
    """

    info: FilmInfo
    start: float | None = None  # seconds
    end: float | None = None
    fps: float | None = None  # at most so many frames a second; None: all (for a folder it is in `info`)
    notes: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Frame]:
        return self.read()

    def read(self, first: int = 0) -> Iterator[Frame]:
        """Frames whose number is at least `first`; those before it are passed over without being made pictures."""
        start, end = self.start or 0.0, math.inf if self.end is None else self.end
        source = _folder_frames if self.info.path.is_dir() else _video_frames
        taken = -1  # of the moments that the wanted rate asks for, the last that has its frame
        for number, time, image in source(self, start):
            if time < start - 1e-6:
                continue
            if time >= end - 1e-9:
                return
            if self.fps is not None:
                moment = math.floor((time - start) * self.fps + 1e-6)
                if moment <= taken:
                    continue
                taken = moment
            if number >= first:
                yield Frame(number, time, image())

    @property
    def expected(self) -> int | None:
        """About how many frames an iteration gives; None: unknown."""
        duration = self.info.duration
        if duration is None and self.info.frames is not None:
            duration = self.info.frames / self.info.fps
        if duration is None:
            return None
        seconds = max(0.0, min(duration, duration if self.end is None else self.end) - (self.start or 0.0))
        return max(1, round(seconds * self.rate))

    @property
    def rate(self) -> float:
        """Frames a second that an iteration gives, on average."""
        return self.info.fps if self.fps is None else min(self.fps, self.info.fps)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def is_film(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a film, by its first bytes or else by its suffix; a GIF is one if it moves."""
    path = Path(path)
    if not path.is_file():
        return False
    try:
        with open(path, "rb") as stream:
            head = stream.read(16)
    except OSError:
        return path.suffix.lower() in FILM_SUFFIXES
    if head[:4] == b"GIF8":
        return _moves(path)
    if head[4:8] == b"ftyp":
        return head[8:11] not in (b"hei", b"hev", b"mif", b"avi", b"msf")  # HEIC and AVIF are pictures
    if head[:4] == b"\x1aE\xdf\xa3" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return True
    return path.suffix.lower() in FILM_SUFFIXES and path.suffix.lower() != ".gif"


def _moves(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except Exception:  # decoders raise nearly anything on a damaged file; the picture reader then says what it is
        return False


def open_film(
    path: str | os.PathLike[str],
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
) -> Film:
    """A video file, or a folder of numbered pictures, for which `fps` says at how many a second they were taken.

    Args:
        start, end: seconds; only frames in [start, end) are given.
        fps: for a video: at most so many frames a second, the others are passed over. For a folder: its rate.

    Raises:
        BadInput: no such file, no video in it, not one frame that can be decoded, options that contradict each other.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder.")
    for name, value in (("--start", start), ("--end", end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise BadInput(f"{name} is {value}; it must be seconds from the film's beginning, 0 or more.")
    if end is not None and end <= (start or 0.0):
        raise BadInput(f"--end {end:g} is not after --start {start or 0:g}: nothing is between them.")
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise BadInput(f"--fps is {fps}; it must be over 0 and at most 1000 frames a second.")
    if path.is_dir():
        if fps is None:
            raise BadInput(f"{path}: say with --fps how many of these frames were taken a second.")
        film = Film(_folder_info(path, fps), start, end)
    else:
        film = Film(_video_info(path), start, end, fps)
        if fps is not None and fps > film.info.fps * 1.01:
            film.note(f"{path}: has {film.info.fps:g} frames a second, so --fps {fps:g} takes all of them.")
    if start is not None and film.info.duration is not None and start >= film.info.duration:
        raise BadInput(f"{path}: --start {start:g} lies behind its end; it lasts {film.info.duration:.2f} seconds.")
    return film


def find_films(
    inputs: Sequence[str],
    fps: float | None,
    skip: str | os.PathLike[str] | None = None,
    is_result: Callable[[Path], bool] | None = None,
) -> tuple[list[Source], list[str]]:
    """The films among files, folders (with all below) and globs, and the inputs that may name pictures.

    With `fps` a folder that holds numbered pictures itself is a film. Results under `skip` are left out,
    as by `find_sources`.
    """
    films: dict[Path, Source] = {}
    rest: list[str] = []

    def add(path: Path, name: str) -> None:
        films.setdefault(path.resolve(), Source(path, name))

    def below(folder: Path) -> bool:
        """Add the films of a folder; whether it holds anything else."""
        found = [
            path
            for path in sorted(folder.rglob("*"))
            if path.suffix.lower() in FILM_SUFFIXES
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and not is_left_alone(path, folder, skip, is_result)
            and is_film(path)
        ]
        for path in found:
            add(path, path.relative_to(folder).with_name(path.stem).as_posix())
        return not found or any(is_picture_name(path) for path in folder.rglob("*") if path not in found)

    for given in inputs:
        path = Path(given)
        if path.is_dir():
            if fps is not None and numbered_frames(path):
                add(path, path.resolve().name)
            elif below(path):
                rest.append(given)
        elif is_film(path):
            add(path, path.stem)
        elif not path.exists() and glob.has_magic(str(given)):
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
            chosen = [match for match in matches if is_film(match)]
            for match in chosen:
                if not is_left_alone(match, match.parent, skip, is_result):
                    add(match, match.stem)
            if not chosen:
                rest.append(given)
            else:
                rest += [str(match) for match in matches if is_picture_name(match) and match not in chosen]
        else:
            rest.append(given)
    return list(films.values()), rest


# Video files


def _open(path: Path) -> Any:
    import av

    if path.stat().st_size == 0:
        raise BadInput(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise BadInput(
            f"{path}: is no film that can be opened ({_reason(error)}). If it was cut off while it was copied or "
            "recorded, its index at the end is missing: copy it again, or repair it."
        ) from error
    if not any(not _is_cover(stream) for stream in container.streams.video):
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise BadInput(f"{path}: holds no video stream (only {kinds}).")
    return container


def _is_cover(stream: Any) -> bool:
    """Whether a "video stream" is the picture on the cover of a piece of music."""
    import av

    disposition = getattr(stream, "disposition", 0)
    attached = getattr(getattr(av.stream, "Disposition", None), "attached_pic", 0)
    return bool(int(disposition) & int(attached))


def _stream_of(container: Any) -> Any:
    stream = next(stream for stream in container.streams.video if not _is_cover(stream))
    stream.thread_type = "AUTO"
    return stream


def _video_info(path: Path) -> FilmInfo:
    container = _open(path)
    with container:
        stream = _stream_of(container)
        if stream.codec_context is None:
            raise BadInput(f"{path}: its pictures are in a codec that is not known here. Convert it, say to H.264.")
        times, wh = [], None
        for number, time, image in _decoded(container, stream, path, 0.0, lambda sentence: None):
            if wh is None:
                height, width = image().shape[:2]
                wh = (width, height)
            times.append(time)
            if number >= 8:
                break
        if wh is None:
            raise BadInput(f"{path}: not one frame could be decoded. Is the file damaged or cut off? Copy it again.")
        if wh[0] * wh[1] > MAX_PIXELS or min(wh) < MIN_SIDE:
            raise BadInput(
                f"{path}: frames of {wh[0]}×{wh[1]} pixels; they must have at least {MIN_SIDE} a side and at most "
                f"{MAX_PIXELS:,} pixels."
            )
        duration = None
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        elif container.duration:
            duration = container.duration / 1e6
        frames = stream.frames or None
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        measured = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0
        if not (math.isfinite(rate) and 0 < rate <= FASTEST_FPS):
            rate = measured or FALLBACK_FPS
        rate = min(rate, FASTEST_FPS)
        if frames is None and duration is not None:
            frames = max(1, round(duration * rate))
        return FilmInfo(path, wh, rate, frames, duration, bool(container.streams.audio))


def _video_frames(film: Film, start: float) -> Iterator[tuple[int, float, Any]]:
    """(number, seconds, a function that makes the picture) of the film's frames; those before `start` may miss."""
    path, (width, height) = film.info.path, film.info.wh
    container = _open(path)
    with container:
        stream = _stream_of(container)
        last = 0.0
        for number, time, image in _decoded(container, stream, path, start, film.note):
            last = time

            def picture(image: Any = image, number: int = number) -> np.ndarray:
                pixels = image()
                if pixels.shape[:2] == (height, width):
                    return np.asarray(pixels)
                film.note(
                    f"{path}: from frame {number} on frames are {pixels.shape[1]}×{pixels.shape[0]}, "
                    f"not {width}×{height} as before; they are scaled to that."
                )
                return _letterbox(pixels, (width, height))

            yield number, time, picture
        duration = film.info.duration
        lacking = None if duration is None else duration - last - 1 / film.info.fps
        if lacking is not None and lacking > max(3 / film.info.fps, 0.02 * (duration or 0.0)):
            film.note(
                f"{path}: breaks off at {last:.2f} s of {duration:.2f} s; what comes before is used. "
                "Copy the film again if there should be more."
            )


def _decoded(
    container: Any, stream: Any, path: Path, start: float, note: Any
) -> Iterator[tuple[int, float, Any]]:  # fmt: skip
    """(number, seconds, picture function) of what decodes, from the last key frame before `start` seconds."""
    import av

    rate = min(float(stream.average_rate or stream.guessed_rate or FALLBACK_FPS) or FALLBACK_FPS, FASTEST_FPS)
    base = float(stream.time_base) if stream.time_base else 0.0
    zero: int | None = stream.start_time  # the time stamp of the film's first frame
    number, last_time, last_pts, damaged = 0, -1 / rate, None, 0
    for packet in _packets(container, stream, start, path, note):
        if isinstance(packet, int):  # so many frames were passed over
            number += packet
            continue
        try:
            frames = packet.decode()
        except av.error.EOFError:
            continue
        except (av.error.FFmpegError, ValueError) as error:
            damaged += 1
            note(f"{path}: is damaged at about {max(last_time, 0):.2f} s ({_reason(error)}); frames there are missing.")
            continue
        for frame in frames:
            if not isinstance(frame, av.VideoFrame):
                continue
            if frame.pts is None:
                time = last_time + 1 / rate
            else:
                zero = frame.pts if zero is None else min(zero, frame.pts) if number == 0 else zero
                time = (frame.pts - zero) * base
            # A damaged, missing or senseless time stamp: frames follow each other all the same.
            if time <= last_time + 0.5 / FASTEST_FPS:
                time = last_time + (1 / rate if last_pts is None or frame.pts == last_pts else 1 / FASTEST_FPS)
            last_time, last_pts = time, frame.pts
            number += 1
            if getattr(frame, "is_corrupt", False):
                note(f"{path}: frame {number - 1} at {time:.2f} s is damaged and left out.")
                continue
            yield number - 1, time, lambda frame=frame: _to_rgb(frame, stream)


def _packets(container: Any, stream: Any, start: float, path: Path, note: Any) -> Iterator[Any]:
    """Packets to decode, after the number of those that need not be: what lies before the last key frame before
    `start`."""
    import av

    # Files of VP8 hold packets that show nothing, so that there packets cannot be counted for frames.
    skipping = start > 1.0 and stream.time_base is not None and stream.codec_context.name != "vp8"
    base = float(stream.time_base) if stream.time_base else 0.0
    zero = stream.start_time
    held: list[Any] = []
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except (av.error.FFmpegError, OSError) as error:
            note(f"{path}: cannot be read on ({_reason(error)}); what came before is used.")
            break
        if not skipping:
            yield packet
            continue
        if packet.pts is None or getattr(packet, "is_discard", False):
            skipping = False
        else:
            zero = packet.pts if zero is None else zero
            time = (packet.pts - zero) * base
            # Frames in [start - 0.5 s, ...] are decoded in any case: later ones may be stored before earlier ones.
            if packet.is_keyframe and time <= start - 0.5 and held:
                yield len(held)
                held = []
            held.append(packet)
            skipping = time < start
        if not skipping:
            yield from held
            held = []
            if packet.pts is None or getattr(packet, "is_discard", False):
                yield packet
    yield from held


def _to_rgb(frame: Any, stream: Any) -> np.ndarray:
    """Upright RGB with square pixels."""
    import cv2

    if getattr(frame, "color_trc", None) in (_PQ, _HLG):
        pixels = _tone_mapped(frame.to_ndarray(format="rgb48le"), int(frame.color_trc))
    elif any(component.is_alpha for component in frame.format.components):
        pixels = _over_white(frame.to_ndarray(format="rgba"))
    else:
        pixels = frame.to_ndarray(format="rgb24")
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if aspect and aspect > 0 and not 0.99 < float(aspect) < 1.01 and 0.1 < float(aspect) < 10:
        width = max(2, round(pixels.shape[1] * float(aspect)))
        pixels = cv2.resize(pixels, (width, pixels.shape[0]), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(_upright(pixels, frame))


def _over_white(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 4) to RGB as photos are read: what is transparent is white, whatever colour lies there unseen."""
    share = pixels[..., 3:].astype(np.uint16)
    return np.asarray((pixels[..., :3] * share + 255 * (255 - share) + 127) // 255, np.uint8)


def _upright(pixels: np.ndarray, frame: Any) -> np.ndarray:
    """As the film's display matrix says: phones store their sensor's rows whichever way they are held."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix  # where the stored x and y axes point on the screen, in rows
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    turned = pixels.transpose(1, 0, 2)
    return turned[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]


def _display_matrix(frame: Any) -> np.ndarray | None:
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except Exception:  # an unknown kind of side data
        return None
    if data is None:
        return None
    numbers = np.frombuffer(bytes(data), np.int32)
    if len(numbers) != 9:
        return None
    matrix = numbers.reshape(3, 3)[:2, :2] / 65536
    return matrix if np.abs(matrix).max() > 0 else None


def _tone_mapped(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """HDR (H, W, 3) uint16, BT.2020, to 8-bit BT.709: reference white stays white, what is brighter is compressed."""
    light = _hdr_light(transfer)[pixels >> 4]
    # BT.2087: primaries of BT.2020 in those of BT.709, linear light.
    matrix = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32)
    light = np.maximum(light @ matrix.T, 0)
    peak = light.max(-1, keepdims=True)
    knee = 0.75
    pressed = np.where(peak > knee, knee + (1 - knee) * (1 - np.exp(-(peak - knee) / (1 - knee))), peak)
    light *= pressed / np.maximum(peak, 1e-6)
    return np.asarray(_srgb()[np.clip(light * 4095, 0, 4095).astype(np.uint16)])


@lru_cache(maxsize=2)
def _hdr_light(transfer: int) -> np.ndarray:
    """(4096,) float32 linear light for 12-bit codes; 1 is reference white (203 cd/m² by ITU-R BT.2408)."""
    code = np.linspace(0, 1, 4096)
    if transfer == _PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = code ** (1 / m2)
        return (10000 / 203 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # ARIB STD-B67
    light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return (light / np.interp(0.75, code, light)).astype(np.float32)  # reference white is at 75 %


@lru_cache(maxsize=1)
def _srgb() -> np.ndarray:
    light = np.linspace(0, 1, 4096)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * code), np.uint8)


def _letterbox(pixels: np.ndarray, wh: tuple[int, int]) -> np.ndarray:
    """Scaled into a picture of that size, black beside it: what is round stays round."""
    import cv2

    width, height = wh
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    size = (min(width, max(1, round(pixels.shape[1] * scale))), min(height, max(1, round(pixels.shape[0] * scale))))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas = np.zeros((height, width, 3), np.uint8)
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    canvas[y : y + size[1], x : x + size[0]] = small
    return canvas


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


# Folders of numbered pictures


def numbered_frames(folder: Path) -> list[tuple[int, Path]]:
    """(position in the film, file) of a folder's pictures, by the last number in their names; [] if they have none.

    Names that count in steps (every fifth frame kept) are frames one after another; a number that is missing from an
    otherwise even count is a missing frame.
    """
    numbers: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        found = re.findall(r"\d+", path.stem)
        if path.suffix.lower() in SUFFIXES and found and not path.name.startswith(".") and path.is_file():
            if int(found[-1]) in numbers:
                raise BadInput(
                    f"{folder}: {numbers[int(found[-1])].name} and {path.name} have the same number; "
                    "give one film's frames a folder of their own."
                )
            numbers[int(found[-1])] = path
    if not numbers:
        return []
    ordered = sorted(numbers)
    step = math.gcd(*(b - a for a, b in zip(ordered, ordered[1:], strict=False))) if len(ordered) > 1 else 1
    return [((number - ordered[0]) // step, numbers[number]) for number in ordered]


def _folder_info(folder: Path, fps: float) -> FilmInfo:
    frames = numbered_frames(folder)
    if not frames:
        raise BadInput(f"{folder}: holds no numbered pictures (such as frame_0001.jpg).")
    error: BadInput | None = None
    for _, path in frames[:20]:
        try:
            height, width = read_image(path).shape[:2]
        except BadInput as problem:
            error = problem
            continue
        count = frames[-1][0] + 1
        return FilmInfo(folder, (width, height), fps, count, count / fps, False)
    assert error is not None
    raise error


def _folder_frames(film: Film, start: float) -> Iterator[tuple[int, float, Any]]:
    width, height = film.info.wh
    for number, path in numbered_frames(film.info.path):
        if number / film.info.fps < start - 1e-6:
            continue
        try:
            pixels = read_image(path)
        except BadInput as error:
            film.note(f"{error} This frame is missing.")
            continue
        if pixels.shape[:2] != (height, width):
            film.note(
                f"{path}: is {pixels.shape[1]}×{pixels.shape[0]}, the first frame {width}×{height}; it is scaled."
            )
            pixels = _letterbox(pixels, (width, height))
        yield number, number / film.info.fps, lambda pixels=pixels: pixels


# Sound


class SoundTrack:
    """The sound of a film, handed on to another: copied as it is where mp4 can hold it, else as AAC.

    `add_to` before the first packet of the new film is written, `mux_until` as its pictures go on, `close` at the end.
    Times count from the film's `start`, as those of the pictures do once `start` is taken off.
    """

    def __init__(self, film: Film) -> None:
        self._film = film
        self._input: Any = None

    def add_to(self, container: Any) -> bool:
        """Add a stream to an open output; False if the film is silent."""
        import av

        if not self._film.info.has_audio:
            return False
        try:
            self._input = av.open(str(self._film.info.path), metadata_errors="replace")
            self._source = self._input.streams.audio[0]
            if self._source.codec_context is None:
                raise ValueError("its codec is not known here")
            self._copied = self._source.codec_context.name in _MP4_SOUND
            self._output = container
            if self._copied:
                add = getattr(container, "add_stream_from_template", None)
                self._stream = add(self._source) if add else container.add_stream(template=self._source)
            else:
                self._stream = container.add_stream("aac", rate=min(self._source.rate or 48000, 48000))
                self._resampler = av.AudioResampler("fltp", self._stream.layout, self._stream.rate)
        except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
            self._film.note(f"{self._film.info.path}: its sound cannot be used ({_reason(error)}).")
            self._finish()
            return False
        self._zero = self._first_time()
        self._packets = self._encoded()
        self._next: Any = next(self._packets, None)
        return True

    def _first_time(self) -> float:
        """Seconds, on the file's clock, of the first picture that the new film shows."""
        video = next((stream for stream in self._input.streams.video if not _is_cover(stream)), None)
        begin = float(video.start_time * video.time_base) if video is not None and video.start_time else 0.0
        return begin + (self._film.start or 0.0)

    def _encoded(self) -> Iterator[tuple[float, Any]]:
        """(seconds in the new film, packet)"""
        import av

        base = self._source.time_base
        shift = round(Fraction(self._zero).limit_denominator(10**6) / base)
        end = math.inf if self._film.end is None else self._film.end - (self._film.start or 0.0)
        try:
            if self._copied:
                for packet in self._input.demux(self._source):
                    if packet.dts is None or packet.pts is None:
                        continue
                    time = float(packet.pts * base) - self._zero
                    if time < 0:
                        continue
                    if time >= end:
                        return
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                    packet.stream = self._stream
                    yield time, packet
                return
            time = 0.0
            for frame in self._input.decode(self._source):
                if frame.time is not None:
                    time = frame.time - self._zero
                if time < 0:
                    continue
                if time >= end:
                    break
                frame.pts = None
                for ready in self._resampler.resample(frame):
                    for packet in self._stream.encode(ready):
                        yield time, packet
            for packet in self._stream.encode(None):
                yield time, packet
        except (av.error.FFmpegError, ValueError) as error:
            self._film.note(f"{self._film.info.path}: its sound breaks off ({_reason(error)}).")

    def mux_until(self, seconds: float) -> None:
        """Write the sound before that moment, in seconds from the new film's first picture."""
        while self._input is not None and self._next is not None and self._next[0] <= seconds:
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self, seconds: float = math.inf) -> None:
        """Write what is left, at most up to that moment, and let go of the source."""
        self.mux_until(seconds)
        self._finish()

    def _finish(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None
