"""The files of SMPLer-X's script: names, keys, shapes, and that the camera in them sees the mesh on the person."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_network import FakeNetwork
from made_up_scene import FPS, IMAGE_WH, made_up_scene
from PIL import Image

from wholebody.cli import main
from wholebody.output.smpler_x import files_there, write_smpler_x_film

SHAPES = {
    "global_orient": (1, 3), "body_pose": (21, 3), "left_hand_pose": (15, 3), "right_hand_pose": (15, 3),
    "jaw_pose": (1, 3), "leye_pose": (1, 3), "reye_pose": (1, 3), "betas": (1, 10), "expression": (1, 10),
    "transl": (1, 3),
}  # fmt: skip


def read_obj(path: Path):
    lines = [line.split() for line in path.read_text().splitlines()]
    vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
    corners = [[corner.split("/") for corner in line[1:]] for line in lines if line[0] == "f"]
    assert all(a == b for face in corners for a, b in face)
    return vertices, np.array([[int(a) - 1 for a, _ in face] for face in corners])


def check_person(folder: Path, name: str):
    """One person's three files; where the mesh is seen (V, 2), and the table."""
    with np.load(folder / "smplx" / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert {key: value.shape for key, value in arrays.items()} == SHAPES
    for key, value in arrays.items():
        assert value.dtype == (np.float64 if "eye" in key else np.float32)
        assert "eye" not in key or not value.any()
    about = json.loads((folder / "meta" / f"{name}.json").read_text())
    assert list(about) == ["focal", "princpt", "bbox", "bbox_mmdet", "bbox_id", "img_path"]
    assert [len(about[key]) for key in list(about)[:4]] == [2, 2, 4, 4]
    assert about["bbox_id"] == int(name.split("_")[1])
    vertices, faces = read_obj(folder / "mesh" / f"{name}.obj")
    return vertices, faces, arrays, about


def seen_at(vertices, about):
    return vertices[:, :2] / vertices[:, 2:] * about["focal"] + about["princpt"]


def test_a_film_is_numbered_from_one_and_people_keep_their_number(open_body, tmp_path):
    scene = made_up_scene(open_body, 3, ((0, 3), (1, 2)), first=7, step=2)
    height, width = IMAGE_WH[1], IMAGE_WH[0]
    numbers = [*scene.frames, 99]  # the last one shows nobody
    frames = [SimpleNamespace(number=n, image=np.full((height, width, 3), 90, np.uint8), time=n / FPS) for n in numbers]

    class Film(list):
        info = SimpleNamespace(path=Path("clip.mp4"))

    written = write_smpler_x_film(tmp_path, scene, open_body, Film(frames), enlarge=1.2)
    people = {(k + 1, p) for p, (start, end) in enumerate(((0, 3), (1, 2))) for k in range(start, end)}
    assert sorted(written) == sorted(files_there(tmp_path))
    assert {path.name for path in (tmp_path / "smplx").iterdir()} == {f"{f:05}_{p}.npz" for f, p in people}
    assert sorted(path.name for path in (tmp_path / "img").iterdir()) == [f"{f:06}.jpg" for f in range(1, 5)]
    for frame, person in people:
        vertices, faces, arrays, about = check_person(tmp_path, f"{frame:05}_{person}")
        motion = scene.people[person]
        row = list(motion.frames).index(scene.frames[frame - 1])
        np.testing.assert_allclose(arrays["transl"][0], motion.transl[row], rtol=1e-6)
        np.testing.assert_allclose(arrays["body_pose"], motion.body_pose[row], rtol=1e-6)
        assert len(vertices) == open_body.num_vertices and np.array_equal(faces, open_body.faces.numpy())
        middle = np.median(seen_at(vertices, about), 0)
        x, y, w, h = about["bbox_mmdet"]
        assert (np.abs(middle - [x + w / 2, y + h / 2]) < [w, h]).all()
        assert about["bbox"][2] / about["bbox"][3] == pytest.approx(3 / 4) and about["img_path"] == "clip.mp4"
    with Image.open(tmp_path / "img" / "000004.jpg") as last, Image.open(tmp_path / "img" / "000001.jpg") as first:
        assert last.size == first.size == IMAGE_WH
        assert np.ptp(np.asarray(last)) == 0 and np.ptp(np.asarray(first)) > 50


@pytest.fixture
def predicted(monkeypatch, tmp_path):
    from wholebody.model import load

    monkeypatch.setattr(load, "load_model", lambda *arguments, **options: FakeNetwork())

    def run(*names, sizes=((90, 120),), options=()):
        for name, (height, width) in zip(names, sizes * len(names), strict=False):
            Image.fromarray(np.full((height, width, 3), 120, np.uint8)).save(tmp_path / name)
        words = [str(tmp_path / name) for name in names]
        return main(
            ["predict", *words, "--out", str(tmp_path / "out"), "--save", "smpler-x", "--boxes", "whole", *options]
        )

    return run


def test_pictures_with_numbers_for_names_keep_them(predicted, tmp_path):
    assert predicted("000007.png", "000012.png") == 0
    out = tmp_path / "out"
    assert [path.name for path in files_there(out)] == [
        "00007_0.npz", "00012_0.npz", "00007_0.json", "00012_0.json", "00007_0.obj", "00012_0.obj", "000007.jpg",
        "000012.jpg",
    ]  # fmt: skip
    vertices, _, arrays, about = check_person(out, "00007_0")
    assert about["img_path"].endswith("000007.png")
    x, y, w, h = about["bbox"]
    assert about["focal"] == pytest.approx([5000 / 192 * w, 5000 / 256 * h], rel=1e-5)
    assert about["princpt"] == pytest.approx([x + w / 2, y + h / 2], rel=1e-5)
    np.testing.assert_allclose(arrays["transl"], [[0.1, -0.2, 45]], rtol=1e-6)
    low, high = seen_at(vertices, about).min(0), seen_at(vertices, about).max(0)
    assert ((low + high) / 2 > [x, y]).all() and ((low + high) / 2 < [x + w, y + h]).all()


def test_other_pictures_are_numbered_in_their_order_and_done_once(predicted, tmp_path, capsys):
    assert predicted("b.png", "a.png") == 0
    names = {path.name for path in (tmp_path / "out" / "smplx").iterdir()}
    assert names == {"00001_0.npz", "00002_0.npz"}
    assert predicted("b.png", "a.png", options=["--resume"]) == 0
    assert "2 skipped as complete" in capsys.readouterr().out


def test_files_of_others_stay(predicted, tmp_path, capsys):
    strange = tmp_path / "out" / "meta" / "00001_0.json"
    strange.parent.mkdir(parents=True)
    strange.write_text("mine")
    assert predicted("a.png") == 1
    assert "was not written by wholebody" in capsys.readouterr().err and strange.read_text() == "mine"
