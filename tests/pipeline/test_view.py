"""`wholebody view`: which page a name means, and pages made from motion files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_scene import made_up_scene

from wholebody.body.layer import BodyModel
from wholebody.cli import main
from wholebody.errors import BadInput
from wholebody.output.amass import read_amass, write_amass
from wholebody.output.film import write_film
from wholebody.output.rig import posed_in_camera
from wholebody.pipeline.view import pages_of


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, body) -> Path:
    folder = tmp_path_factory.mktemp("out")
    write_film(folder, "clip", made_up_scene(body), body, save=("npz", "html", "mot"))
    write_film(folder, "sub/bare", made_up_scene(body), body, save=("npz", "json"))
    return folder


@pytest.mark.parametrize("name", ["clip", "clip.html", "clip_person1.npz", "clip_mot.txt", ""])
def test_which_page_a_name_means(folder, name):
    assert pages_of([str(folder / name)]) == [folder / "clip.html"]


def test_a_page_from_motion_files(folder, body):
    said: list[str] = []
    (page,) = pages_of([str(folder / "sub" / "bare.json")], said.append)
    assert page == folder / "sub" / "bare.html" and page.is_file() and len(said) == 1


@pytest.mark.parametrize("name", ["nothing", "nothing.html", "clip.glb"])
def test_no_such_result(tmp_path, name):
    (tmp_path / "clip.glb").touch()
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(BadInput, match="html"):
            pages_of([str(path)])


def test_the_command(folder, capsys, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    assert main(["view", str(folder / "clip.html")]) == 0
    assert opened == [(folder / "clip.html").resolve().as_uri()]
    assert main(["view", "--no-open", str(folder / "clip")]) == 0
    assert len(opened) == 1 and capsys.readouterr().out.count("clip.html") == 2


def test_a_scene_comes_back_from_its_files(tmp_path, body):
    scene = made_up_scene(body, panning=True, first=4)
    paths = [write_amass(tmp_path / f"{n}.npz", motion, scene, body) for n, motion in enumerate(scene.people)]
    again = read_amass(paths, body)
    np.testing.assert_array_equal(again.frames, scene.frames)
    np.testing.assert_allclose(again.camera_from_world, scene.camera_from_world)
    for one, other in zip(scene.people, again.people, strict=True):
        (ours,), (theirs,) = ([v for _, v, _ in posed_in_camera(motion, body)] for motion in (one, other))
        np.testing.assert_allclose(theirs, ours, atol=1e-4)
    paths[0].write_bytes(b"PK no archive")
    with pytest.raises(BadInput, match=r"0\.npz"):
        read_amass(paths, body)
