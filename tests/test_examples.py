"""The programs in examples/ do what they say: one is run as a reader would run it, the others in this process."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from wholebody.cli import main

ROOT = Path(__file__).parents[1]
ASTRONAUT = ROOT / "demo" / "astronaut.jpg"


@pytest.fixture
def run(monkeypatch):
    """`run("program.py", argument, ...)`"""

    def run(name: str, *arguments: object) -> None:
        program = str(ROOT / "examples" / name)
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        runpy.run_path(program, run_name="__main__")

    return run


def test_every_example_is_named_and_tested():
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    listed = (ROOT / "examples" / "README.md").read_text()
    assert names and all(f"`{name}`" in listed for name in names)
    assert all(f'"{name}"' in Path(__file__).read_text() for name in names)


def test_people_in_a_photo():
    program = ROOT / "examples" / "people_in_a_photo.py"
    done = subprocess.run([sys.executable, str(program), str(ASTRONAUT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert said.startswith("person 0: nose at pixel (") and "m from the camera" in said


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results")
    assert main(["predict", str(ASTRONAUT), "--out", str(out), "--save", "npz,ply", "--boxes", "whole"]) == 0
    return out


def test_seen_from_the_camera(run, results, tmp_path):
    run("seen_from_the_camera.py", ASTRONAUT, results / "astronaut_person0.npz", tmp_path / "seen.png")
    before, after = (np.asarray(Image.open(path).convert("RGB"), int) for path in (ASTRONAUT, tmp_path / "seen.png"))
    changed = np.abs(before - after).max(2) > 0
    assert 300 < changed.sum() < 3000  # dots where the mesh is, and nowhere else


def test_pose_the_open_body(run, tmp_path):
    run("pose_the_open_body.py", tmp_path / "posed.ply")
    mesh = trimesh.load(tmp_path / "posed.ply", process=False)
    assert len(mesh.vertices) == 13718
    hand = mesh.vertices[mesh.vertices[:, 1].argmax()]
    assert hand[0] > 0.1  # the highest point is the left hand: +x is the body's left
