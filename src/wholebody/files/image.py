"""Read pictures: any common file becomes H×W×3 uint8 RGB, upright, or a `BadInput` that says what is wrong with it."""

from __future__ import annotations

import glob
import io
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wholebody.errors import BadInput
from wholebody.files.reading import read_bytes

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
# Only decoders of pictures: Pillow would also start Ghostscript for an EPS file.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
MAX_PIXELS = 144_000_000  # 12,000 × 12,000; decoding needs up to 7 bytes a pixel, so about 1 GB
MIN_SIDE = 16  # pixels; nobody can be seen in less


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


def decode_image(data: bytes, name: str, notes: list[str], upright: bool = True) -> np.ndarray:
    """As `read_image`, from the bytes of a file; `name` is for messages. upright: as the EXIF tag says."""
    if not data:
        raise BadInput(f"{name}: the file is empty (0 bytes). Copy or download it again.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked below
            Image.init()  # a decoder that this Pillow was built without is not in its table, and naming it would raise
            known = [*FORMATS, "HEIF"] if _reads_heic() else FORMATS
            picture = Image.open(io.BytesIO(data), formats=[name for name in known if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise BadInput(
            f"{name}: {error} Pictures may have at most {MAX_PIXELS:,} pixels here; make it smaller."
        ) from error
    except UnidentifiedImageError as error:
        raise BadInput(
            f"{name}: not a picture that can be read ({_guess(data)}). Known formats: {', '.join(FORMATS)}."
        ) from error
    except Exception as error:  # decoders raise nearly anything on a damaged header
        raise BadInput(f"{name}: the picture's header is damaged ({error}). Copy or save it again.") from error

    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise BadInput(
            f"{name}: {width}×{height} = {width * height:,} pixels; at most {MAX_PIXELS:,} are read. "
            "Make it smaller or cut it."
        )
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
    """One picture to work on: where it lies, and the name (without suffix, may hold `/`) of what is written for it."""

    path: Path
    name: str


def find_sources(
    inputs: Sequence[str | os.PathLike[str]],
    skip: str | os.PathLike[str] | None = None,
) -> tuple[list[Source], list[str]]:
    """Files, folders (with all below) and globs → the pictures, in a stable order, and what was not found.

    Files under `skip` (the output folder) are left out of folders and globs, so that a second run does not take the
    overlays of the first for photos.
    """
    skip = None if skip is None else Path(skip).resolve()
    found: dict[Path, tuple[Path, str]] = {}
    problems: list[str] = []

    def keep(path: Path, root: Path) -> bool:
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in path.relative_to(root).parts):
            return False
        return path.is_file() and not (skip is not None and path.resolve().is_relative_to(skip))

    def add_folder(folder: Path) -> int:
        paths = sorted(path for path in folder.rglob("*") if keep(path, folder))
        for path in paths:
            found.setdefault(path.resolve(), (path, path.relative_to(folder).with_suffix("").as_posix()))
        return len(paths)

    for given in inputs:
        path = Path(given)
        if path.is_dir():
            if not add_folder(path):
                problems.append(f"{path}: no picture in this folder (looked for {', '.join(SUFFIXES)}).")
        elif path.exists():
            found.setdefault(path.resolve(), (path, path.stem))
        elif glob.has_magic(str(given)):
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
            pictures = [match for match in matches if keep(match, match.parent)]
            for picture in pictures:
                found.setdefault(picture.resolve(), (picture, picture.stem))
            if not pictures and not sum(add_folder(match) for match in matches if match.is_dir()):
                problems.append(f"{given}: matches no picture.")
        else:
            problems.append(f"{path}: no such file or folder.")
    return with_unique_names(list(found.values())), problems


def with_unique_names(found: list[tuple[Path, str]]) -> list[Source]:
    """`a.jpg` and `a.png` must not overwrite each other: names that are shared get the suffix, then the folder, too."""
    counts = Counter(name.casefold() for _, name in found)
    named = [(path, name if counts[name.casefold()] == 1 else f"{name}_{path.suffix[1:]}") for path, name in found]
    counts = Counter(name.casefold() for _, name in named)
    taken: Counter[str] = Counter()
    sources = []
    for path, name in named:
        if counts[name.casefold()] > 1:
            name = f"{path.resolve().parent.name}_{name}"
        taken[name.casefold()] += 1
        sources.append(Source(path, name if taken[name.casefold()] == 1 else f"{name}_{taken[name.casefold()]}"))
    return sources
