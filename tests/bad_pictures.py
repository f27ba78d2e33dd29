"""Files called like pictures that none can be read from, and what must be said of each."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from wholebody.files.image import MAX_PIXELS


def bad_files() -> dict[str, tuple[bytes, str]]:
    """name → (content, what the error must say)."""

    def encoded(suffix: str) -> bytes:
        stream = io.BytesIO()
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
        Image.fromarray(noise).save(stream, suffix)
        return stream.getvalue()

    return {
        "zero.jpg": (b"", "0 bytes"),
        "truncated.jpg": (encoded("JPEG")[:9000], "truncated"),
        "truncated.png": (encoded("PNG")[:9000], "truncated"),
        "header_only.png": (encoded("PNG")[:20], "damaged"),
        "text.jpg": (b"<html>404 not found</html>", "HTML"),
        "video.jpg": (b"\0\0\0\x18ftypisom" + bytes(100), "video"),
        "phone.jpg": (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
        "random.jpg": (bytes(range(256)) * 4, "not a picture"),
        "one.png": (_png_bytes(1, 1), "1×1"),
        "bomb.png": (_png_bytes(20_000, 8_000), f"{MAX_PIXELS:,}"),
        "huge_bomb.png": (_png_bytes(60_000, 60_000), f"{MAX_PIXELS:,}"),
    }


def _png_bytes(width: int, height: int) -> bytes:
    """A grey PNG that claims that size, with next to nothing in it: what a decompression bomb looks like."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width + 1) * height, 1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
