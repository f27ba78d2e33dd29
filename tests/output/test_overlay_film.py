"""The film with meshes over it: the film's frames and times, its sound, everybody in their own colour."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from made_up_scene import FPS, IMAGE_WH, made_up_scene

from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.files.video import open_film
from wholebody.output.film import write_film
from wholebody.output.overlay_film import Painter, write_overlay_film
from wholebody.output.rig import posed_in_camera


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


def write_source(path: Path, times: list[float], wh=IMAGE_WH, sound: bool = False) -> Path:
    """A grey film whose frames come at these seconds, with a tone as AAC."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *wh, "yuv444p" if wh[0] % 2 or wh[1] % 2 else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if sound:
            audio = container.add_stream("aac", rate=48000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((wh[1], wh[0], 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            wave = np.sin(np.arange(int(48000 * times[-1])) / 20).astype(np.float32)
            for at in range(0, len(wave) - 1023, 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts = 48000, at
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def read(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [time for time, _ in frames], [image for _, image in frames]


def test_frames_times_and_sound_are_the_films(tmp_path, body):
    scene = made_up_scene(body)
    times = [0.0, 0.04, 0.08, 0.15, 0.16, 0.2, 0.3, 0.34, 0.38, 0.5, 0.54, 0.9]  # a phone's: uneven
    film = open_film(write_source(tmp_path / "a.mp4", times, sound=True))
    path = write_overlay_film(tmp_path / "o.mp4", scene, body, film)
    seen, images = read(path)
    np.testing.assert_allclose(seen, times, atol=1e-3)
    assert images[0].shape[:2] == IMAGE_WH[::-1]
    with av.open(str(path)) as new, av.open(str(tmp_path / "a.mp4")) as old:
        assert new.streams.video[0].codec_context.name == "h264"
        kept = [bytes(packet) for packet in new.demux(audio=0) if packet.size]
        source = [bytes(packet) for packet in old.demux(audio=0) if packet.size]
        start = source.index(kept[0])  # what lies before the first picture is not taken over
        assert start <= 1 and len(kept) >= len(source) - 2 and kept == source[start : start + len(kept)]


def test_a_part_of_a_film_with_odd_sides(tmp_path, body):
    scene = made_up_scene(body, 5, ((0, 5),), first=5)
    film = open_film(write_source(tmp_path / "a.mp4", [k / FPS for k in range(12)], (321, 241)), 5 / FPS, 10 / FPS)
    seen, images = read(write_overlay_film(tmp_path / "o.mp4", scene, body, film))
    np.testing.assert_allclose(seen, np.arange(5) / FPS, atol=1e-3)
    assert images[0].shape[:2] == (242, 322)
    assert all(np.abs(image.astype(int) - 128).max() > 40 for image in images)


def test_colour_follows_the_person(body):
    """Each where their own mesh is, in the frames in which they are there, and nowhere else."""
    scene = made_up_scene(body)
    painter = Painter(scene, body, look="mannequin", opacity=1)
    grey = np.full((IMAGE_WH[1], IMAGE_WH[0], 3), 128, np.uint8)
    meshes = [np.concatenate([v for _, v, _ in posed_in_camera(motion, body)]) for motion in scene.people]
    hues = {0: [], 1: []}
    for number in range(12):
        image = painter(number, grey)
        painted = (np.abs(image.astype(int) - 128) > 3).any(-1)
        inside = np.zeros_like(painted)
        for person, (motion, mesh) in enumerate(zip(scene.people, meshes, strict=True)):
            if number not in motion.frames:
                continue
            points = mesh[list(motion.frames).index(number)]
            pixels = points[:, :2] / points[:, 2:] * scene.camera.focal_px + scene.camera.principal_px
            x0, y0 = np.floor(pixels.min(0)).astype(int) - 2
            x1, y1 = np.ceil(pixels.max(0)).astype(int) + 3
            inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
            chest = np.rint(pixels[body.weights.numpy()[9].argmax()]).astype(int)
            hues[person].append(np.argsort(image[chest[1], chest[0]]).tolist())
        assert painted.any() and not (painted & ~inside).any()
    assert [set(map(tuple, hue)) for hue in hues.values()] == [{(0, 1, 2)}, {(2, 1, 0)}]  # blue, orange
    np.testing.assert_array_equal(painter(99, grey), grey)


def test_the_nearer_one_hides_the_other(body):
    scene = made_up_scene(body, 1, ((0, 1),) * 2, amplitude=0.1)
    one, two = scene.people
    behind = dataclasses.replace(two, transl=one.transl * 1.4 + [0.0, 0.3, 0.0], betas=one.betas)
    grey = np.full((IMAGE_WH[1], IMAGE_WH[0], 3), 128, np.uint8)
    alone = Painter(dataclasses.replace(scene, people=(one,)), body, look="mannequin", opacity=1)(0, grey)
    both = Painter(dataclasses.replace(scene, people=(one, behind)), body, look="mannequin", opacity=1)(0, grey)
    painted = (np.abs(alone.astype(int) - 128) > 3).any(-1)
    body_of_one = cv2.erode(painted.astype(np.uint8), np.ones((3, 3))) > 0  # without the outline
    assert body_of_one.sum() > 500
    same = (alone[body_of_one] == both[body_of_one]).all(-1).mean()
    assert same > 0.9 and (both != alone).any(-1).sum() > 100


def test_bad_opacity_and_no_film(tmp_path, body):
    scene = made_up_scene(body, 2, ((0, 2),))
    film = open_film(write_source(tmp_path / "a.mp4", [0, 0.04]))
    with pytest.raises(BadInput, match="1.5"):
        write_overlay_film(tmp_path / "o.mp4", scene, body, film, opacity=1.5)
    assert write_film(tmp_path, "x", scene, body, None, save=("overlay",)) == []
    (path,) = write_film(tmp_path, "x", scene, body, film, save=("overlay",))
    assert path.name == "x_overlay.mp4" and len(read(path)[0]) == 2
