"""Files that appear whole or not at all, and hold what they say."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh
from fake_network import FakeNetwork

from wholebody.body.joints import COCO_WHOLEBODY
from wholebody.errors import OutputError
from wholebody.files.mesh import vertex_normals
from wholebody.files.text import shown
from wholebody.output import files
from wholebody.people.person import FORMAT
from wholebody.people.predictor import Predictor

BOXES = np.array([[50.0, 30, 250, 400], [300, 100, 420, 330]])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def people(image):
    return Predictor(FakeNetwork())(image, boxes=BOXES)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return FakeNetwork().body.faces.numpy()


def write(folder: Path, image, people, faces, name="a", **options) -> list[Path]:
    return files.write_results(folder, name, image, people, faces=faces, conventions={"body": "open"}, **options)


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_what_is_written(tmp_path, image, people, faces):
    written = write(tmp_path, image, people, faces, name="sub/a")
    names = {f"sub/a_person{n}.{kind}" for n in (0, 1) for kind in ("npz", "obj", "ply", "glb")}
    assert everything_in(tmp_path) == names | {"sub/a_overlay.jpg", "sub/a.json"}
    assert written[-1].name == "a.json"  # last: it says that the rest is complete


@pytest.mark.parametrize("kind", files.MESHES)
def test_meshes_come_back(tmp_path, people, faces, kind):
    path = files.write_bytes(
        tmp_path / f"m.{kind}", files.mesh_bytes(people[0].vertices_cam, faces, kind, "anna_person0")
    )
    assert b"anna_person0" in path.read_bytes()
    mesh = trimesh.load(path, process=False, maintain_order=True, force="mesh")
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices * [1, -1, -1], people[0].vertices_cam, atol=1e-5)  # y up, looking along -z
    assert {"obj": b"\nvn ", "ply": b"property float nx", "glb": b'"NORMAL"'}[kind] in path.read_bytes()
    if kind == "obj":
        stored = np.array([line.split()[1:] for line in path.read_text().splitlines() if line[:3] == "vn "], float)
        expected = vertex_normals(np.asarray(mesh.vertices), faces)
        assert ((stored * expected).sum(1) > 0.999).mean() > 0.999
    assert 0.03 < mesh.volume < 0.2  # cubic metres; negative if the surface were inside out


@pytest.mark.parametrize("kind", files.MESHES)
@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "日本\u2028語", "no\udcfftext"])
def test_names_in_headers(people, faces, kind, name):
    """A header is lines of text; no name can end one or make it unreadable."""
    data = files.mesh_bytes(people[0].vertices_cam, faces, kind, name)
    mesh = trimesh.load(io.BytesIO(data), file_type=kind, process=False, force="mesh")
    assert len(mesh.vertices) == len(people[0].vertices_cam)
    if kind != "glb":  # which holds JSON, with escapes of its own
        head = data.split({"ply": b"end_header", "obj": b"\nv "}[kind])[0]
        assert shown(name).encode() in head and b"\x1b" not in head and b"two\nlines" not in head


def test_normals_of_a_tilted_plane():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], float)
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 2, 3]]))
    np.testing.assert_allclose(normals, np.tile([0, -(0.5**0.5), 0.5**0.5], (4, 1)), atol=1e-12)


def test_npz_holds_parameters_camera_and_conventions(tmp_path, image, people, faces):
    write(tmp_path, image, people, faces, save=("npz",))
    with np.load(tmp_path / "a_person1.npz", allow_pickle=False) as stored:
        assert set(stored.files) == (set(people[1].numbers()) - {"vertices_cam"}) | {"conventions"}
        for name in set(stored.files) - {"conventions"}:
            np.testing.assert_array_equal(stored[name], getattr(people[1], name), err_msg=name)
        conventions = json.loads(str(stored["conventions"]))
    assert conventions == {"format": FORMAT, "body": "open", "picture": "a", "person": 1}


def test_json_is_coco_results(tmp_path, image, people, faces):
    write(tmp_path, image, people, faces, save=("json",), image_id=785)
    rows = json.loads((tmp_path / "a.json").read_text())
    assert len(rows) == 2
    assert rows[0]["image_id"] == 785 and rows[0]["category_id"] == 1 and rows[0]["bbox"] == [50, 30, 200, 370]
    keypoints = np.array(rows[1]["keypoints"]).reshape(133, 3)
    np.testing.assert_allclose(keypoints[:, :2], people[1].keypoints_px, atol=1e-3)
    assert len(COCO_WHOLEBODY) == 133 and (keypoints[:, 2] == people[1].score).all()


def test_completeness(tmp_path, image, people, faces):
    source = tmp_path / "a.jpg"
    source.write_bytes(b"x")
    os.utime(source, (1, 1))
    save = ("overlay", "npz", "json")
    assert not files.is_complete(tmp_path, "a", save, source)
    write(tmp_path, image, people, faces, save=save)
    assert files.is_complete(tmp_path, "a", save, source)
    assert not files.is_complete(tmp_path, "a", (*save, "glb"), source)  # more is wanted than was made
    (tmp_path / "a_person1.npz").rename(tmp_path / "gone")
    assert not files.is_complete(tmp_path, "a", save, source)
    (tmp_path / "gone").rename(tmp_path / "a_person1.npz")
    os.utime(source)
    os.utime(tmp_path / "a.json", (1, 1))
    assert not files.is_complete(tmp_path, "a", save, source)  # the picture has changed since
    (tmp_path / "a.json").write_text("[")
    assert not files.is_complete(tmp_path, "a", save, source)


def test_a_second_run_leaves_nothing_of_the_first(tmp_path, image, people, faces):
    write(tmp_path, image, people, faces, save=("npz", "glb", "json"))
    (tmp_path / "a_person1_notes.txt").write_text("mine")
    (tmp_path / "ab_person0.npz").write_text("another picture's")
    write(tmp_path, image, people[:1], faces, save=("npz", "json"))
    assert everything_in(tmp_path) == {"a.json", "a_person0.npz", "a_person1_notes.txt", "ab_person0.npz"}


# Disks and folders that do not take the files


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch, image, people, faces):
    """The disk fills up with the fifth file: the four before it go too, for the picture is not done."""
    calls = []
    real = os.fsync

    def fsync(number):
        calls.append(number)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="disk is full.*--resume"):
        write(tmp_path, image, people, faces)
    assert len(calls) == 5 and everything_in(tmp_path) == set()


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = files.write_bytes(tmp_path / "a.json", b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old" and everything_in(tmp_path) == {"a.json"}


def test_a_really_full_disk(small_disk, image, people, faces):
    write(small_disk, image, people, faces, name="fits", save=("npz", "json"))
    before = everything_in(small_disk)
    with pytest.raises(OutputError, match="disk is full"):
        write(small_disk, image, people, faces, name="b")
    assert everything_in(small_disk) == before  # what was whole stays, of the rest nothing


def test_a_read_only_disk(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutputError, match="--out"):
        files.check_folder(small_disk / "out")
    with pytest.raises(OutputError, match="--out"):
        files.check_folder(small_disk)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OutputError, match="file"):
            files.check_folder(folder)


def test_a_folder_without_permission(tmp_path):
    if os.geteuid() == 0:  # root may write anywhere: try as nobody
        script = (
            "import os, sys; from pathlib import Path; from wholebody.errors import OutputError\n"
            "from wholebody.output.files import check_folder; os.setuid(65534)\n"
            "try: check_folder(Path(sys.argv[1]))\n"
            "except OutputError as error: print(error)"
        )
        (tmp_path / "out").mkdir(mode=0o755)
        done = subprocess.run([__import__("sys").executable, "-c", script, str(tmp_path / "out")],
                              capture_output=True, text=True)  # fmt: skip
        assert "ermission denied" in done.stdout and "--out" in done.stdout, done.stderr
    else:
        (tmp_path / "out").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="ermission denied"):
            files.check_folder(tmp_path / "out")
