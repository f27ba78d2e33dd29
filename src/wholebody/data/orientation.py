"""Photos whose file says that they are to be turned. One's own pictures are annotated as one sees them, upright; those
of the published sets as they are stored."""

from __future__ import annotations

import io
import warnings

import numpy as np

_TAG = 0x0112


def upright_from_stored(data: bytes) -> np.ndarray | None:
    """The map (2, 3) from a stored picture's pixels to those of the upright one, by its EXIF tag; None if the two are
    the same or the file cannot be read (decoding will say so)."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data))
            turn = picture.getexif().get(_TAG, 1)
    except Exception:  # decoders raise nearly anything on a damaged header
        return None
    x, y = picture.width - 1.0, picture.height - 1.0
    maps = {
        2: [[-1, 0, x], [0, 1, 0]],
        3: [[-1, 0, x], [0, -1, y]],
        4: [[1, 0, 0], [0, -1, y]],
        5: [[0, 1, 0], [1, 0, 0]],
        6: [[0, -1, y], [1, 0, 0]],
        7: [[0, -1, y], [-1, 0, x]],
        8: [[0, 1, 0], [-1, 0, x]],
    }
    return np.array(maps[turn], np.float64) if turn in maps else None
