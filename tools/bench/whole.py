"""The embedded network's whole way: its parts one by one, the detector, a folder of photos, and a cold start."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

_FOLDER = 40  # photos; the 200 would take minutes, and a picture costs the same in both
_HER_BOX = np.array([[20.0, 8, 370, 512]])
_PARTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("network and body alone (--parts none)", (), "target < 65"),
    ("and BlazePose, laid on (--parts body)", ("body",), ""),
    ("and hands and face", ("body", "hands", "face"), "target < 130"),
)


def measure(row: Callable[..., None], best: Callable[[Callable[[], object], int], float], photo: Path) -> None:
    """row, best: print a figure; seconds of the fastest of some calls. photo: of one person, 512×512."""
    import cv2

    import wholebody
    from wholebody.files.image import read_image

    model, image = wholebody.load_model("t"), read_image(photo)
    for what, parts, target in _PARTS:
        predictor = wholebody.Predictor(model, parts=parts)
        call = partial(predictor, image, boxes=_HER_BOX)
        call()
        row(f"t, one person in a given box: {what}", 1e3 * best(call, 20), "ms", target)
    detector = wholebody.Predictor(model).detect
    for what, picture in (("1280x720, one person", _on_canvas(image, (720, 1280))), ("512x512", image)):
        detector(picture)
        row(f"detector, {what}", 1e3 * best(partial(detector, picture), 20), "ms", "target < 60")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "photos"
        folder.mkdir()
        for number in range(_FOLDER):
            moved = np.roll(image, 4 * number, 1)
            cv2.imwrite(str(folder / f"{number:03d}.jpg"), cv2.cvtColor(moved, cv2.COLOR_RGB2BGR))
        for what, options, target in (
            ("--save json,npz", ("--save", "json,npz"), "target > 4"),
            ("--save json,npz --parts body", ("--save", "json,npz", "--parts", "body"), "target > 8"),
            ("all files", (), ""),
        ):
            row(f"a folder of photos, {what}", _pictures_a_second(folder, Path(temporary), options), "a second", target)
        for what, options in (("to the overlay", ("--save", "overlay")), ("all files", ())):
            # The second of two processes: the first one finds caches empty.
            seconds = [_predict([str(photo)], Path(temporary), options) for _ in range(3)][1:]
            target = "target < 3" if options else ""
            row(f"wholebody predict, one photo, {what}, a new process", min(seconds), "s", target)


def _on_canvas(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """The picture as high as a larger one, in its middle, its own border drawn out to the sides."""
    import cv2

    height, width = hw
    scaled = cv2.resize(image, (height, height))
    beside = width - height
    return cv2.copyMakeBorder(scaled, 0, 0, beside // 2, beside - beside // 2, cv2.BORDER_REPLICATE)


def _pictures_a_second(folder: Path, temporary: Path, options: tuple[str, ...]) -> float:
    """Of a folder, after start-up: what one photo alone takes is taken off."""
    photos = sorted(map(str, folder.iterdir()))
    alone = _predict(photos[:1], temporary, options)
    return (len(photos) - 1) / (_predict(photos, temporary, options) - alone)


def _predict(inputs: list[str], temporary: Path, options: tuple[str, ...]) -> float:
    """Seconds that `wholebody predict` takes in a process of its own."""
    with tempfile.TemporaryDirectory(dir=temporary) as out:
        command = [sys.executable, "-m", "wholebody", "predict", *inputs, "--out", out, *options]
        begin = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... failed:\n{done.stderr}")
    return seconds
