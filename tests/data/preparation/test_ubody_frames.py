"""UBody's videos become pictures, thirty a second, numbered as ffmpeg numbers them."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from wholebody.data.preparation.ubody import at_constant_rate, ubody_frames
from wholebody.errors import BadInput

av = pytest.importorskip("av")


def write_video(path, rate, count):
    """Frame k shows k in eight black or white bars."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(count):
            bars = np.array([255 * (k >> bit & 1) for bit in range(8)], np.uint8)
            picture = np.broadcast_to(bars.repeat(8)[None, :, None], (48, 64, 3))
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def shown(folder):
    pictures = [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))]
    assert all(picture.shape == (48, 64, 3) for picture in pictures)
    return [sum(int(picture[24, 8 * bit + 4].mean() > 127) << bit for bit in range(8)) for picture in pictures]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("UBody")
    write_video(root / "videos" / "Movie" / "Movie_S1.mp4", 30, 40)
    write_video(root / "videos" / "Movie" / "Movie_S2" / "Movie_S2_Trim1.mp4", 25, 26)
    write_video(root / "videos" / "Speech" / "Speech_S1.mp4", 60, 40)
    (root / "videos" / "Speech" / "broken.mp4").write_bytes(b"\0" * 3000)
    return root


# What ffmpeg 4.2 writes for `-r 30` from videos of these rates (by running it).
EXPECTED_25 = [0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 13, 14, 15, 16, 17, 18, 18, 19, 20, 21, 22, 23, 23,
               24, 25]  # fmt: skip
EXPECTED_60 = [0, 1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39]


def test_frames(root):
    summary = ubody_frames(root)
    assert (summary.videos, summary.frames) == (3, 40 + len(EXPECTED_25) + len(EXPECTED_60))
    (problem,) = summary.problems
    assert "broken.mp4: cannot be decoded" in problem
    images = root / "images"
    assert shown(images / "Movie" / "Movie_S1") == list(range(40))
    assert shown(images / "Movie" / "Movie_S2" / "Movie_S2_Trim1") == EXPECTED_25
    assert shown(images / "Speech" / "Speech_S1") == EXPECTED_60
    assert (images / "Movie" / "Movie_S1" / "000001.png").is_file()
    assert {path.name for path in (images / "Speech").iterdir()} == {"Speech_S1"}  # no halves are left behind

    again = ubody_frames(root, ["Movie"])
    assert (again.videos, again.skipped, again.problems) == (0, 2, [])


@pytest.mark.parametrize(("rate", "expected"), [(25, EXPECTED_25), (60, EXPECTED_60), (30, list(range(30)))])
def test_constant_rate(rate, expected):
    frames = ((k, float(Fraction(k, rate)), 1 / rate) for k in range(expected[-1] + 1))
    assert [k for k, repeats in at_constant_rate(frames) for _ in range(repeats)] == expected


def test_gaps_are_filled_with_the_picture_before():
    times = [0.0, 1 / 30, 11 / 30, 12 / 30]
    frames = ((k, time, 1 / 30) for k, time in enumerate(times))
    written = [k for k, repeats in at_constant_rate(frames) for _ in range(repeats)]
    assert written == [0] + [1] * 9 + [2, 2, 3]  # as ffmpeg fills it


@pytest.mark.parametrize("rate", [12, 23.976, 24, 29.97, 48, 50, 59.94, 120])
def test_pictures_stay_with_the_clock(rate):
    frames = ((k, k / rate, 1 / rate) for k in range(500))
    written = [k for k, repeats in at_constant_rate(frames) for _ in range(repeats)]
    assert abs(len(written) - 500 / rate * 30) <= 2
    late = np.arange(len(written)) / 30 - np.array(written) / rate
    assert np.abs(late).max() <= 1.6 / 30 + 1 / rate


def test_what_is_missing(tmp_path):
    with pytest.raises(BadInput, match="videos is missing"):
        ubody_frames(tmp_path)
    (tmp_path / "videos" / "Movie").mkdir(parents=True)
    with pytest.raises(BadInput, match="no scene Film; there are: Movie"):
        ubody_frames(tmp_path, ["Film"])
    with pytest.raises(BadInput, match="no videos"):
        ubody_frames(tmp_path)
