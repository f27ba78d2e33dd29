"""Read pictures: any common file becomes H×W×3 uint8 RGB, upright, or a `BadInput` that says what is wrong with it."""

from __future__ import annotations

import glob
import io
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wholebody.errors import BadInput
from wholebody.files.reading import read_bytes
from wholebody.files.text import counted, shown

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".avif",
    ".jp2",
)
_HEIC_SUFFIXES = (".heic", ".heif")  # of phones; read where pillow-heif is installed
# Only decoders of pictures: Pillow would also start Ghostscript for an EPS file.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 144_000_000  # 12,000 × 12,000; decoding needs up to 7 bytes a pixel, so about 1 GB
_EXIF_IFD, _FOCAL_35MM = 0x8769, 0xA405  # the block of the camera's settings, FocalLengthIn35mmFilm
MIN_SIDE = 16  # pixels; nobody can be seen in less
MAX_SIDE = 65_535  # as JPEG has it


def read_image(source: str | os.PathLike[str] | bytes | IO[bytes], notes: list[str] | None = None) -> np.ndarray:
    """H×W×3 uint8 RGB of a picture, turned upright by its EXIF tag: of a file's path, its bytes, or an open file.

    Grey, CMYK and palette pictures become RGB, 16-bit ones 8-bit; transparency is laid over white; of an animation the
    first frame is taken. What the caller may want to tell the user about that is appended to `notes`. HEIC is read
    where the package `pillow-heif` is installed. Raises BadInput.
    """
    notes = [] if notes is None else notes
    if isinstance(source, bytes | bytearray | memoryview):
        return decode_image(bytes(source), "picture", notes)
    if hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            raise BadInput(f"a picture from an open file: it gives {type(content).__name__}; open it with mode 'rb'.")
        return decode_image(content, str(getattr(source, "name", "picture")), notes)
    path = Path(source)
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, not a picture.")
    if not path.exists():
        raise BadInput(f"{path}: no such file.")
    return decode_image(read_bytes(path), str(path), notes)


def read_stored(path: str | os.PathLike[str], flags: int) -> np.ndarray:
    """A picture as OpenCV decodes it (`cv2.IMREAD_...`: BGR, or what the file holds). Raises BadInput."""
    import cv2

    content = read_bytes(path)
    check_size(content, shown(Path(path)), known_only=False)
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except cv2.error:  # too many pixels
        picture = None
    if picture is None:
        raise BadInput(f"{shown(Path(path))}: is no picture that can be decoded; it is damaged, or of another format.")
    return picture


def check_size(content: bytes, name: str, most: int = MAX_PIXELS, known_only: bool = True) -> None:
    """BadInput for a picture whose header speaks of more pixels than `most`, or cannot be read: OpenCV, which believes
    what it finds, must not be asked for it. known_only: else those whose format Pillow does not know pass (.hdr)."""
    try:
        size = _opened(content, FORMATS).size
    except Image.DecompressionBombError as error:
        raise BadInput(f"{name}: {error} At most {most:,} pixels are read.") from error
    except Exception as error:  # decoders raise nearly anything on a damaged header
        if known_only:
            raise BadInput(f"{name}: is no picture that can be decoded: damaged, or of another format.") from error
        return
    check_pixels(*size, name, most)


def _opened(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    """A picture whose header is read; its pixels are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked
        Image.init()  # a decoder that this Pillow was built without is not in its table, and naming it would raise
        return Image.open(io.BytesIO(content), formats=[name for name in formats if name in Image.OPEN])


def check_pixels(width: int, height: int, name: str, most: int = MAX_PIXELS) -> None:
    """BadInput for more pixels than `most`."""
    if width * height > most or max(width, height) > MAX_SIDE:
        raise BadInput(
            f"{name}: {width}×{height} = {width * height:,} pixels; at most {most:,} are read, and {MAX_SIDE:,} a "
            "side. Make it smaller or cut it."
        )


def decode_image(data: bytes, name: str, notes: list[str], upright: bool = True) -> np.ndarray:
    """As `read_image`, from the bytes of a file; `name` is for messages. upright: as the EXIF tag says."""
    if not data:
        raise BadInput(f"{name}: the file is empty (0 bytes). Copy or download it again.")
    known = (*FORMATS, "HEIF") if _reads_heic() else FORMATS
    try:
        picture = _opened(data, known)
    except Image.DecompressionBombError as error:
        raise BadInput(
            f"{name}: {error} Pictures may have at most {MAX_PIXELS:,} pixels here; make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise BadInput(
            f"{name}: not a picture that can be read ({_guess(data)}). Known formats: {', '.join(known)}."
        ) from error
    except Exception as error:  # decoders raise nearly anything on a damaged header
        raise BadInput(f"{name}: the picture's header is damaged ({error}). Copy or save it again.") from error

    width, height = picture.size
    check_pixels(width, height, name)
    if min(width, height) < MIN_SIDE:
        raise BadInput(f"{name}: {width}×{height} pixels; at least {MIN_SIDE}×{MIN_SIDE} are needed to see a person.")
    try:
        frames = getattr(picture, "n_frames", 1)
        if picture.format in ("GIF", "WEBP", "PNG", "AVIF") and frames > 1:
            notes.append(f"{name}: an animation of {frames} frames; only the first is used.")
        picture.load()
        return np.ascontiguousarray(_to_rgb(ImageOps.exif_transpose(picture) if upright else picture))
    except MemoryError as error:
        raise BadInput(f"{name}: {width}×{height} pixels do not fit into memory. Make the picture smaller.") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise BadInput(f"{name}: the picture is truncated or damaged ({error}). Copy or save it again.") from error


def focal_35mm_of(path: str | os.PathLike[str]) -> float | None:
    """The focal length, in millimetres of 35 mm film, that a photo's EXIF names; None where it names none."""
    try:
        with Image.open(path) as picture:
            value = picture.getexif().get_ifd(_EXIF_IFD).get(_FOCAL_35MM)
        return float(value) if value and math.isfinite(float(value)) else None
    except Exception:  # what an EXIF block holds is anybody's guess, and a photo does without
        return None


@lru_cache(maxsize=1)
def _reads_heic() -> bool:
    """Whether the package that reads HEIC is there; Pillow is told of it."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _to_rgb(picture: Image.Image) -> np.ndarray:
    mode = picture.mode
    if mode == "CMYK":
        return np.asarray(_cmyk_to_rgb(picture))
    if mode.startswith("I") or mode == "F":
        return np.repeat(_deep_grey_to_8_bit(np.asarray(picture))[:, :, None], 3, axis=2)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
    return np.asarray(picture.convert("RGB"))


def _cmyk_to_rgb(picture: Image.Image) -> Image.Image:
    """Through the embedded colour profile where there is one: inks mixed naively come out far too vivid."""
    profile = picture.info.get("icc_profile")
    if profile:
        from PIL import ImageCms

        try:
            converted = ImageCms.profileToProfile(
                picture, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
        except ImageCms.PyCMSError:
            pass  # a broken profile: naive inks are better than no picture
    return picture.convert("RGB")


def _deep_grey_to_8_bit(values: np.ndarray) -> np.ndarray:
    """(H, W) of 16-bit, 32-bit or float grey values → uint8. Floats are taken as 0..1 unless they exceed it."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        scale = 255.0 if values.max() <= 1.0 else 1.0
    else:
        top = int(values.max())
        scale = 1.0 if top <= 255 and values.dtype.itemsize > 2 else 1 / 257 if top <= 65535 else 255 / (2**31 - 1)
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


def _guess(data: bytes) -> str:
    """What a file that is no picture probably is, to save the user a look."""
    head = data[:16]
    if head[4:8] == b"ftyp":
        if head[8:11] in (b"hei", b"hev", b"mif", b"msf"):
            return "HEIC: pip install pillow-heif, or save it as JPEG"
        return "a video: give single frames"
    if head[:4] == b"%PDF":
        return "a PDF file"
    if head[:4] == b"PK\x03\x04":
        return "a zip archive"
    if head.lstrip()[:1] in (b"<", b"{", b"["):
        return "a text file: HTML, SVG or JSON"
    return "unknown or damaged"


@dataclass(frozen=True)
class Source:
    """One picture to work on: where it lies, and its name (without suffix; `/` in it where it lies below a folder that
    was given). Two pictures may have one name."""

    path: Path
    name: str


def find_sources(
    inputs: Sequence[str | os.PathLike[str]],
    skip: str | os.PathLike[str] | None = None,
    left_out: list[str] | None = None,
    is_result: Callable[[Path], bool] | None = None,
    known: Collection[str] = (),
) -> tuple[list[Source], list[str]]:
    """Files, folders (with all below) and globs → the pictures, in a stable order, and what was not found.

    Files under `skip` (the output folder) are left out of folders and globs, so that a second run does not take the
    overlays of the first for photos; where the output folder is itself what was given, only those that `is_result`
    knows. What is left out because it is no picture that can be read is named in `left_out`, unless its real path is
    one of `known`.
    """
    found: dict[str, Source] = {}
    problems: list[str] = []

    def keep(path: Path, root: Path, others: list[Path]) -> bool:
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            return False
        if is_left_alone(path, root, skip, is_result):
            return False
        if is_picture_name(path) and path.is_file():
            return True
        if (not path.is_dir() or path.is_symlink()) and os.path.realpath(path) not in known:
            others.append(path)
        return False

    def add(path: Path, name: str) -> None:
        found.setdefault(os.path.realpath(path), Source(path, name))

    def add_folder(folder: Path) -> int:
        others: list[Path] = []
        paths = sorted(path for path in _below(folder, problems) if keep(path, folder, others))
        for path in paths:
            add(path, path.relative_to(folder).with_name(path.stem).as_posix())
        note(str(folder), others)
        return len(paths)

    def note(where: str, others: list[Path], most: int = 5) -> None:
        if others and left_out is not None:
            names = ", ".join(f"{shown(path.name)}{_why_not(path)}" for path in sorted(others)[:most])
            more = f" and {len(others) - most} more" if len(others) > most else ""
            left_out.append(f"{shown(where)}: left out {counted(len(others), 'file')}, no pictures: {names}{more}.")

    for given in inputs:
        path = Path(given)
        if path.is_dir():
            if not add_folder(path):
                problems.append(
                    f"{shown(path)}: no picture in this folder (looked for {', '.join(SUFFIXES)}"
                    f"{'; results of earlier runs are left out' if skip is not None else ''})."
                )
        elif path.exists():
            add(path, path.stem)
        elif path.is_symlink():
            problems.append(f"{shown(path)}: a link to {shown(os.readlink(path))}, which is not there.")
        elif glob.has_magic(str(given)):
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
            others: list[Path] = []
            pictures = [match for match in matches if keep(match, match.parent, others)]
            for picture in pictures:
                add(picture, picture.stem)
            note(str(given), [other for other in others if not other.is_dir()])
            if not pictures and not sum(add_folder(match) for match in matches if match.is_dir()):
                problems.append(f"{shown(str(given))}: matches no picture.")
        elif "://" in str(given):
            problems.append(f"{shown(str(given))}: is an address, not a file: fetch the picture first.")
        else:
            problems.append(f"{shown(path)}: no such file or folder.")
    return list(found.values()), problems


def _below(folder: Path, problems: list[str]) -> Iterator[Path]:
    """All that lies in a folder and below; what may not be listed is named in `problems`."""

    def cannot(error: OSError) -> None:
        problems.append(f"{shown(str(error.filename))}: the folder cannot be listed ({error.strerror}).")

    for where, folders, names in os.walk(folder, onerror=cannot):
        yield from (Path(where, name) for name in (*folders, *names))


def is_left_alone(
    path: Path,
    root: Path,
    skip: str | os.PathLike[str] | None,
    is_result: Callable[[Path], bool] | None,
) -> bool:
    """Whether a file of the folder `root` lies in the output folder `skip` and so is taken for a result. Where `root`
    itself lies there, only what `is_result` knows is one."""
    if skip is None:
        return False
    below, place = os.path.realpath(skip), Path(os.path.realpath(path))
    if not place.is_relative_to(below):
        return False
    return not Path(os.path.realpath(root)).is_relative_to(below) or is_result is None or is_result(place)


def is_picture_name(path: Path) -> bool:
    """Whether a file is called like a picture that can be read here."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES or (suffix in _HEIC_SUFFIXES and _reads_heic())


def _why_not(path: Path) -> str:
    if path.suffix.lower() in _HEIC_SUFFIXES:
        return " (HEIC: pip install pillow-heif)"
    if path.is_symlink():
        return " (a link to a folder)" if path.is_dir() else "" if path.exists() else " (a link that leads nowhere)"
    return ""
