"""Films read as streams: formats, rotation, times, damage, folders, sound."""

from __future__ import annotations

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from wholebody.errors import BadInput
from wholebody.files.video import Film, SoundTrack, find_films, is_film, numbered_frames, open_film

SIZE = (96, 64)  # width, height


def picture(number: int, wh: tuple[int, int] = SIZE) -> np.ndarray:
    """Red left top quarter, a grey level that tells the number, so that orientation and order can be read off."""
    width, height = wh
    image = np.full((height, width, 3), 40 + 5 * (number % 40), np.uint8)
    image[: height // 2, : width // 2] = (220, 30, 30)
    return image


def write(
    path: Path, count: int = 12, rate: int | Fraction = 10, codec: str = "libx264", pix_fmt: str = "yuv420p",
    times: list[float] | None = None, wh: tuple[int, int] = SIZE, options: dict[str, str] | None = None,
    rotation: int = 0, aspect: Fraction | None = None, sound: str | None = None, first_pts: float = 0.0,
) -> Path:  # fmt: skip
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *wh, pix_fmt
        if aspect:
            stream.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        base = Fraction(1, 1000) if times is not None or first_pts else None
        if base:
            stream.codec_context.time_base = base
        if sound:
            audio = container.add_stream(sound, rate=48000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(number, wh), format="rgb24")
            if base:
                time = (times[number] if times is not None else number / float(rate)) + first_pts
                frame.pts, frame.time_base = round(time * 1000), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            add_sound(container, audio, count / int(rate))
    return path


def add_sound(container, audio, seconds: float, after=None) -> None:
    """A tone of 440 Hz; `after` the file has its header the packet of that name is written."""
    wave = np.sin(np.arange(round(48000 * seconds)) * 2 * np.pi * 440 / 48000).astype(np.float32) * 0.5
    samples = audio.codec_context.frame_size or 1024
    if after is not None:
        container.mux(after)
    for at in range(0, len(wave) - samples + 1, samples):
        piece = av.AudioFrame.from_ndarray(wave[None, at : at + samples], format="fltp", layout="mono")
        piece.sample_rate, piece.pts = 48000, at
        for ready in av.AudioResampler(audio.format.name, audio.layout, 48000).resample(piece):
            container.mux(audio.encode(ready))
    container.mux(audio.encode(None))


def write_noise(path: Path, codec: str, options: dict[str, str] | None = None) -> Path:
    """3 seconds whose frames fill many kilobytes each."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=10, options={"g": "5"})
        stream.width, stream.height = SIZE
        for _ in range(30):
            noise = rng.integers(0, 255, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def number_of(image: np.ndarray) -> int:
    return round((float(image[-image.shape[0] // 4, -image.shape[1] // 4].mean()) - 40) / 5)


def read(film: Film) -> tuple[list[int], list[float], list[np.ndarray]]:
    frames = list(film)
    return [f.number for f in frames], [f.time for f in frames], [f.image for f in frames]


# fmt: off
@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"), ("a.mov", "libx264", "yuv444p"), ("a.mkv", "libx264", "gray"),
        ("a.webm", "libvpx-vp9", "yuv420p"), ("b.webm", "libvpx", "yuv420p"), ("a.avi", "mpeg4", "yuv420p"),
        ("a.gif", "gif", "rgb8"), ("b.mp4", "libx264", "yuv420p10le"), ("b.mkv", "ffv1", "yuv422p10le"),
        ("c.mkv", "ffv1", "bgra"), ("d.mkv", "ffv1", "gray16le"), ("b.mov", "mjpeg", "yuvj420p"),
    ],
)
# fmt: on
def test_every_container_and_pixel_format_gives_the_same_pictures(tmp_path, name, codec, pix_fmt):
    path = write(tmp_path / name, codec=codec, pix_fmt=pix_fmt)
    assert is_film(path)
    film = open_film(path)
    numbers, times, images = read(film)
    assert film.info.wh == SIZE and film.info.fps == pytest.approx(10, rel=0.01) and film.expected == 12
    assert numbers == list(range(12)) and film.notes == []
    np.testing.assert_allclose(times, np.arange(12) / 10, atol=2e-3)
    assert all(image.shape == (SIZE[1], SIZE[0], 3) and image.dtype == np.uint8 for image in images)
    # A GIF here has 8 levels of red; H.264 does not say that this grey uses the full range.
    tolerance = {"a.gif": 7.6, "a.mkv": 3.0}.get(name, 0.8)
    levels = [(float(image[-16, -24].mean()) - 40) / 5 for image in images]
    assert np.abs(np.array(levels) - np.arange(12)).max() < tolerance
    if "gray" not in pix_fmt:
        red = images[0][10, 10].astype(int)
        assert red[0] > 150 > 90 > max(red[1:])


@pytest.mark.parametrize(("name", "codec"), [("a.mov", "qtrle"), ("a.mov", "png"), ("a.mkv", "ffv1")])
def test_transparency_is_laid_over_white_as_that_of_photos(tmp_path, name, codec):
    """Whatever colour lies unseen below it; half of it is half white."""
    image = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
    image[:, :32] = (220, 30, 30, 255)
    image[:, 32:64] = (0, 200, 0, 0)
    image[:, 64:] = (0, 0, 255, 128)
    pix_fmt = {"qtrle": "argb", "png": "rgba", "ffv1": "bgra"}[codec]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgba")))
        container.mux(stream.encode(None))
    for frame in open_film(tmp_path / name):
        for column, colour in ((10, (220, 30, 30)), (50, (255, 255, 255)), (80, (127, 127, 255))):
            assert np.abs(frame.image[30, column].astype(int) - colour).max() <= 2


def test_a_gif_with_transparency(tmp_path):
    """Each frame shows its own square alone, on white: what the frame before showed is gone."""
    from PIL import Image

    frames = []
    for number in range(6):
        image = np.zeros((SIZE[1], SIZE[0], 4), np.uint8)
        image[10:40, 15 * number : 15 * number + 15] = (220, 30, 30, 255)
        frames.append(Image.fromarray(image))
    path = tmp_path / "alpha.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, loop=0, disposal=2)
    assert is_film(path)
    numbers, times, images = read(open_film(path))
    assert numbers == list(range(6)) and times == pytest.approx(np.arange(6) / 10, abs=2e-3)
    for number, image in enumerate(images):
        red = (np.abs(image.astype(int) - (220, 30, 30)).max(2) < 40).any(0)
        assert np.flatnonzero(red).tolist() == list(range(15 * number, 15 * number + 15))
        assert (image[50:] == 255).all()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_flags_turn_frames_upright(tmp_path, turn):
    plain = next(iter(open_film(write(tmp_path / "plain.mp4", count=2))))
    for suffix in ("mp4", "mov"):
        film = open_film(write(tmp_path / f"turned.{suffix}", count=2, rotation=turn))
        image = next(iter(film)).image
        # The flag counts counter-clockwise, as numpy turns.
        expected = np.rot90(plain.image, turn // 90)
        assert film.info.wh == expected.shape[1::-1]
        assert np.abs(image.astype(int) - expected).mean() < 2


def test_pixels_that_are_not_square_are_made_so(tmp_path):
    film = open_film(write(tmp_path / "wide.mp4", aspect=Fraction(4, 3)))
    assert film.info.wh == (128, 64)
    assert next(iter(film)).image.shape == (64, 128, 3)


def test_variable_frame_rates_keep_their_times(tmp_path):
    times = [0, 0.04, 0.08, 0.5, 0.54, 1.2, 1.24, 1.28, 1.9, 2.0, 2.5, 2.54]
    for name in ("v.mp4", "v.mkv"):
        film = open_film(write(tmp_path / name, times=times))
        assert read(film)[1] == pytest.approx(times, abs=2e-3)


def test_times_count_from_the_first_frame(tmp_path):
    film = open_film(write(tmp_path / "late.mkv", first_pts=5.0))
    assert read(film)[1] == pytest.approx(np.arange(12) / 10, abs=2e-3)


def test_a_part_of_a_film(tmp_path):
    path = write(tmp_path / "long.mp4", count=36, rate=10, options={"g": "8", "bf": "2"})
    everything = open_film(path)
    numbers, times, images = read(open_film(path, start=2.0, end=3.0))
    assert numbers == list(range(20, 30)) and times == pytest.approx(np.arange(20, 30) / 10, abs=1e-3)
    whole = read(everything)[2]
    for number, image in zip(numbers, images, strict=True):
        np.testing.assert_array_equal(image, whole[number])  # the same frame, not its neighbour
    assert open_film(path, start=2.0, end=3.0).expected == 10
    assert [frame.number for frame in everything.read(first=30)] == list(range(30, 36))


def test_fewer_frames_a_second(tmp_path):
    path = write(tmp_path / "fast.mp4", count=24, rate=24)
    film = open_film(path, fps=8)
    assert read(film)[0] == list(range(0, 24, 3)) and film.rate == 8 and film.expected == 8
    assert len(read(open_film(path, fps=18))[0]) == 18
    more = open_film(path, fps=60)
    assert len(read(more)[0]) == 24 and more.rate == 24 and "takes all" in more.notes[0]


@pytest.mark.parametrize("rate", [1000, 1])
def test_odd_rates(tmp_path, rate):
    film = open_film(write(tmp_path / "odd.mp4", rate=rate))
    assert film.info.fps == pytest.approx(rate, rel=0.02)
    assert read(film)[1] == pytest.approx(np.arange(12) / rate, abs=1e-3)


def test_a_film_that_names_no_rate_and_no_times(tmp_path):
    """A bare stream: no container that would carry times."""
    path = tmp_path / "bare.avi"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = SIZE
        for number in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode(None))
    film = open_film(path)
    numbers, times, _ = read(film)
    assert numbers == list(range(6)) and film.info.fps > 0
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("scale, rate", [(1, 0), (0, 10), (0, 0), (1, 0xFFFFFFFF)])
def test_an_avi_that_says_a_senseless_rate(tmp_path, scale, rate):
    """Scale and rate of the stream's header, and microseconds a frame of the file's, are overwritten."""
    data = bytearray(write(tmp_path / "whole.avi", codec="mpeg4").read_bytes())
    struct.pack_into("<II", data, data.index(b"strh") + 28, scale, rate)
    struct.pack_into("<I", data, data.index(b"avih") + 8, 0)
    path = tmp_path / "forged.avi"
    path.write_bytes(data)
    film = open_film(path)
    numbers, times, _ = read(film)
    assert 0 < film.info.fps <= 1000 and numbers == list(range(12))
    assert np.diff(times).min() >= 0.5e-3 and times[-1] < 1 and not film.notes


def test_an_mp4_whose_frames_last_no_time(tmp_path):
    data = bytearray(write(tmp_path / "whole.mp4", options={"bf": "0"}).read_bytes())
    at = data.index(b"stts")
    assert struct.unpack_from(">I", data, at + 8) == (1,)
    struct.pack_into(">I", data, at + 16, 0)
    path = tmp_path / "forged.mp4"
    path.write_bytes(data)
    numbers, times, _ = read(open_film(path))
    assert numbers == list(range(12)) and np.diff(times).min() > 0.01 and times[-1] < 5


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_hdr_looks_like_the_film_and_not_grey(tmp_path, transfer):
    """Mid grey and white in HDR codes come out near what they are in an ordinary film."""
    def encoded(nits: float) -> float:
        if transfer == "smpte2084":
            y = nits / 10000
            return ((3424 / 4096 + 2413 / 128 * y ** (2610 / 16384)) / (1 + 2392 / 128 * y ** (2610 / 16384))) ** (
                2523 / 32
            )
        light = nits / 203 * 0.2646
        return (3 * light) ** 0.5 if light <= 1 / 12 else 0.17883277 * np.log(12 * light - 0.28466892) + 0.55991073

    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10, options={
            "x265-params": f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:log-level=none", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p10le"
        left, right = (round(encoded(nits) * 65535) for nits in (203 * 0.2140, 203))  # sRGB 128 and white
        image = np.full((SIZE[1], SIZE[0], 3), left, np.uint16)
        image[:, SIZE[0] // 2 :] = right
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb48le")))
        container.mux(stream.encode(None))
    frame = next(iter(open_film(path)))
    assert abs(float(frame.image[:, 10:30].mean()) - 128) < 8
    assert 225 < float(frame.image[:, 60:80].mean()) <= 255


def test_changing_resolution(tmp_path):
    path = tmp_path / "changing.ts"
    parts = [write(tmp_path / f"part{k}.ts", count=5, wh=wh, options={"bf": "0"})
             for k, wh in enumerate([(96, 64), (160, 64)])]  # fmt: skip
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    film = open_film(path)
    numbers, times, images = read(film)
    assert numbers == list(range(10)) and {image.shape for image in images} == {(64, 96, 3)}
    assert (np.diff(times) > 0).all()
    assert any("160×64" in note and "frame 5" in note for note in film.notes)
    assert images[7][:8].max() < 40  # not squeezed: black above and below


@pytest.mark.parametrize(
    ("name", "codec"), [("song.mp4", "aac"), ("song.m4a", "aac"), ("song.mkv", "libopus"), ("song.avi", "libmp3lame")]
)
def test_a_film_of_sound_alone(tmp_path, name, codec):
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        add_sound(container, container.add_stream(codec, rate=48000), 1.0)
    films, rest = find_films([str(path)], None)
    assert [film.path for film in films] == [path] and rest == []
    with pytest.raises(BadInput, match=f"{name}: holds no video stream .only audio"):
        open_film(path)


def test_the_cover_of_a_song_is_no_film(tmp_path):
    """A picture on the cover is stored as a video stream of one frame."""
    path = tmp_path / "song.m4a"
    cover = av.open(str(write(tmp_path / "cover.avi", count=1, codec="mjpeg", pix_fmt="yuvj420p")))
    with cover, av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=48000)
        picture_stream = container.add_stream_from_template(cover.streams.video[0])
        picture_stream.disposition = av.stream.Disposition.attached_pic
        packet = next(iter(cover.demux(video=0)))
        packet.stream = picture_stream
        add_sound(container, sound, 1.0, packet)
    with pytest.raises(BadInput, match="holds no video stream"):
        open_film(path)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", b"avc1"), ("a.mkv", b"V_MPEG4/ISO/AVC"), ("a.avi", b"H264")])
def test_pictures_in_an_unknown_codec(tmp_path, name, codec):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes().replace(codec, codec[:-2] + b"ZZ"))
    with pytest.raises(BadInput, match=f"{name}: .*codec that is not known"):
        open_film(path)


def test_sound_in_an_unknown_codec_is_left_out(tmp_path):
    path = write(tmp_path / "a.mkv", sound="libopus")
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_OPZZ"))
    film = open_film(path)
    assert len(list(film)) == 12
    with av.open(str(tmp_path / "out.mp4"), "w") as container:
        assert not SoundTrack(film).add_to(container)
    assert any("its sound cannot be used" in note for note in film.notes)


def test_no_frames_no_film(tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    with pytest.raises(BadInput, match="0 bytes"):
        open_film(empty)
    text = tmp_path / "text.mp4"
    text.write_text("<html>not found</html>" * 50)
    with pytest.raises(BadInput, match="no film"):
        open_film(text)
    with pytest.raises(BadInput, match="no such file"):
        open_film(tmp_path / "nothing.mp4")
    whole = write(tmp_path / "whole.mkv", codec="ffv1", pix_fmt="yuv420p").read_bytes()
    header = tmp_path / "header.mkv"
    header.write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # all before the first cluster of frames
    with pytest.raises(BadInput, match="not one frame|no film"):
        open_film(header)


@pytest.mark.parametrize(("name", "codec"), [("cut.mkv", "libx264"), ("cut.webm", "libvpx-vp9"), ("cut.mp4", "mpeg4")])
def test_a_film_cut_mid_frame_gives_what_it_has(tmp_path, name, codec):
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = write_noise(tmp_path / name, codec, options)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    film = open_film(path)
    numbers, times, images = read(film)
    assert 10 <= len(numbers) <= 20 and len(images) == len(numbers)
    broke = " ".join(film.notes)
    assert "breaks off at" in broke and "of 3.0" in broke, film.notes
    assert abs(float(broke.split("breaks off at ")[1].split(" s")[0]) - times[-1]) < 0.35


def test_an_mp4_without_its_index_is_named(tmp_path):
    path = write(tmp_path / "a.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])  # the index (moov) is at the end
    with pytest.raises(BadInput, match="index"):
        open_film(path)


def test_damage_in_the_middle_is_reported_and_passed_over(tmp_path):
    path = write_noise(tmp_path / "hurt.mkv", "libx264")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(bytes(data))
    film = open_film(path)
    numbers, times, _ = read(film)
    assert 15 <= len(numbers) < 30 and times[-1] > 2.5
    assert film.notes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": -1.0}, "--start"), ({"start": 2.0, "end": 1.0}, "--end"), ({"fps": 0.0}, "--fps"),
        ({"fps": float("nan")}, "--fps"), ({"start": 9.0}, "behind its end"), ({"fps": 2000.0}, "--fps"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(tmp_path, options, says):
    path = write(tmp_path / "a.mp4")
    with pytest.raises(BadInput, match=says):
        open_film(path, **options)


def test_what_is_a_film(tmp_path):
    still = tmp_path / "still.gif"
    av_free = cv2.imencode(".png", picture(0))[1].tobytes()
    (tmp_path / "p.png").write_bytes(av_free)
    from PIL import Image

    Image.fromarray(picture(0)).save(still)
    assert not is_film(still) and not is_film(tmp_path / "p.png") and not is_film(tmp_path)
    renamed = tmp_path / "no_suffix"
    renamed.write_bytes(write(tmp_path / "a.mp4").read_bytes())
    assert is_film(renamed)
    heic = tmp_path / "x.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    assert not is_film(heic)


def save(folder: Path, number: int, wh: tuple[int, int] = SIZE, name: str = "frame_{:04d}.png") -> None:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name.format(number)), picture(number % 12, wh)[..., ::-1])


def test_folders_of_numbered_frames(tmp_path):
    for number in (9, 10, 11, 13):  # one is missing, and names of unequal length sort by number
        save(tmp_path / "f", number, name="shot2_{}.png")
    film = open_film(tmp_path / "f", fps=25)
    numbers, times, images = read(film)
    assert numbers == [0, 1, 2, 4] and times == pytest.approx(np.array(numbers) / 25)
    assert [number_of(image) for image in images] == [9, 10, 11, 1]
    for number in (100, 105, 110):
        save(tmp_path / "steps", number)
    assert [number for number, _ in numbered_frames(tmp_path / "steps")] == [0, 1, 2]
    assert read(open_film(tmp_path / "f", fps=25, start=0.04, end=0.1))[0] == [1, 2]


def test_folders_that_are_no_film(tmp_path):
    save(tmp_path / "f", 1)
    with pytest.raises(BadInput, match="--fps"):
        open_film(tmp_path / "f")
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="numbered"):
        open_film(tmp_path / "none", fps=25)
    save(tmp_path / "f", 1, name="other_{:03d}.png")
    with pytest.raises(BadInput, match="same number"):
        open_film(tmp_path / "f", fps=25)


def test_a_bad_frame_in_a_folder_is_missing(tmp_path):
    for number in range(4):
        save(tmp_path / "f", number, wh=(96, 64) if number < 3 else (64, 64))
    (tmp_path / "f" / "frame_0001.png").write_bytes(b"\x89PNG broken")
    film = open_film(tmp_path / "f", fps=10)
    numbers, _, images = read(film)
    assert numbers == [0, 2, 3] and images[-1].shape == (64, 96, 3)
    assert any("missing" in note for note in film.notes) and any("scaled" in note for note in film.notes)


@pytest.mark.parametrize(("name", "codec", "kept"), [("a.mp4", "aac", "aac"), ("a.mkv", "pcm_s16le", "aac"),
                                                     ("b.mkv", "libopus", "opus")])  # fmt: skip
def test_sound_goes_along(tmp_path, name, codec, kept):
    film = open_film(write(tmp_path / name, count=30, sound=codec), start=1.0)
    assert film.info.has_audio
    out = tmp_path / "out.mp4"
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = SIZE
        sound = SoundTrack(film)
        assert sound.add_to(container)
        for frame in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, format="rgb24")))
            sound.mux_until(frame.time - 1.0)
        container.mux(stream.encode(None))
        sound.close()
    with av.open(str(out)) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == kept
        samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio)])
        assert 1.8 < len(samples) / audio.rate / len(audio.layout.channels) < 2.2
        assert np.abs(samples).mean() > 0.1
        assert abs(float((audio.start_time or 0) * audio.time_base)) < 0.05


def test_a_silent_film_has_no_sound(tmp_path):
    film = open_film(write(tmp_path / "a.mp4"))
    with av.open(str(tmp_path / "out.mp4"), "w") as container:
        assert not SoundTrack(film).add_to(container)
        container.add_stream("libx264", rate=10)
        stream = container.streams.video[0]
        stream.width, stream.height = SIZE
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(stream.encode(None))


_MEMORY = """
import resource, sys
from wholebody.files.video import open_film
film = open_film(sys.argv[1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for count, frame in enumerate(film):
    if count == 40:
        before = peak()
print(count + 1, (peak() - before) / 1024)
"""


def test_memory_does_not_grow_with_the_film(tmp_path):
    path = write(tmp_path / "long.mp4", count=400, rate=30, wh=(640, 360), options={"preset": "ultrafast"})
    said = subprocess.run([sys.executable, "-c", _MEMORY, str(path)], capture_output=True, text=True, check=True).stdout
    count, megabytes = said.split()
    assert int(count) == 400 and float(megabytes) < 60  # 276 MB if its frames were kept
