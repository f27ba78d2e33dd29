"""What `predict` may write over, what results are called, and what `--resume` does again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from fake_network import FakeNetwork
from PIL import Image

from wholebody.cli import main
from wholebody.people.predictor import Predictor
from wholebody.pipeline import config, predict
from wholebody.pipeline.record import RECORD, Record, hash_of


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """A network that knows the answer, in the place of the embedded one."""
    fake = FakeNetwork()
    monkeypatch.setattr(predict, "load_predictor", lambda config, say: Predictor(fake, batch_size=4))


def photo(path: Path, grey: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 80), (grey, grey, grey)).save(path)
    return path


def run(out: Path, *words, save: str = "npz,json", boxes="whole") -> int:
    return main(["predict", "--out", str(out), "--save", save, "--boxes", str(boxes), *map(str, words)])


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name != RECORD
    }  # fmt: skip


# Nothing of the user's is written over


@pytest.mark.parametrize(
    ("there", "save"),
    [
        ("ski.json", "npz"),
        ("ski_overlay.jpg", "overlay"),
        ("ski_person0.npz", "npz"),
        ("ski_person7.obj", "obj"),
        ("ski_person0.glb", "glb"),
    ],
)
def test_files_of_others_stay(tmp_path, capsys, there, save):
    for name in ("ski", "walk"):
        photo(tmp_path / f"{name}.png")
    (tmp_path / there).write_text("the labelling tool's")
    assert run(tmp_path, tmp_path / "ski.png", tmp_path / "walk.png", save=save) == 1
    said = capsys.readouterr()
    assert there in said.err and "was not written by wholebody" in said.err and "--overwrite" in said.err
    assert (tmp_path / there).read_text() == "the labelling tool's"
    assert "1 picture done" in said.out and "walk.json" in everything(tmp_path)
    assert not {name for name in everything(tmp_path) if name.startswith("ski")} - {"ski.png", there}
    assert run(tmp_path, tmp_path / "ski.png", "--overwrite", save=save) == 0
    if "7" not in there:  # a person whom nobody sees any more
        assert (tmp_path / there).read_bytes() != b"the labelling tool's"


def test_pictures_of_the_call_stay_whatever_is_asked(tmp_path, capsys):
    first, second = photo(tmp_path / "ski.jpg"), photo(tmp_path / "ski_overlay.jpg", 90)
    before = second.read_bytes()
    for more in ([], ["--overwrite"]):
        assert run(tmp_path, first, second, *more, save="overlay") == 1
        assert "is one of the pictures of this call" in capsys.readouterr().err
        assert second.read_bytes() == before and "ski.json" not in everything(tmp_path)
    os.link(second, tmp_path / "another.jpg")  # the same file by another name
    assert run(tmp_path, first, tmp_path / "another.jpg", save="overlay") == 1
    assert second.read_bytes() == before


def test_a_link_in_the_place_of_a_result_is_not_followed(tmp_path):
    original = photo(tmp_path / "originals" / "photo.jpg")
    before = original.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_overlay.jpg").symlink_to(original)
    assert run(tmp_path / "out", photo(tmp_path / "a.jpg"), save="overlay") == 1
    assert run(tmp_path / "out", tmp_path / "a.jpg", "--overwrite", save="overlay") == 0
    assert original.read_bytes() == before and not (tmp_path / "out" / "a_overlay.jpg").is_symlink()


def test_a_corrected_result_stays(tmp_path, capsys):
    """The documented round: correct the keypoints, give them back."""
    out, picture = tmp_path / "results", photo(tmp_path / "ski.jpg")
    assert run(out, picture) == 0
    rows = json.loads((out / "ski.json").read_text())
    rows[0]["keypoints"][0] += 1
    (out / "ski.json").write_text(json.dumps(rows))
    assert run(out, picture, f"--refine={out / 'ski.json'}") == 1
    assert "is the file given as --refine" in capsys.readouterr().err
    assert run(out, picture) == 1
    assert "was changed after wholebody had written it" in capsys.readouterr().err
    assert json.loads((out / "ski.json").read_text()) == rows
    assert run(out, picture, "--overwrite") == 0
    assert json.loads((out / "ski.json").read_text()) != rows
    assert run(out, picture) == 0  # unedited results are replaced, as ever


def test_an_option_file_stays(tmp_path, capsys):
    picture = photo(tmp_path / "a.jpg")
    boxes = tmp_path / "a.json"
    boxes.write_text(json.dumps({"a.jpg": [[0, 0, 60, 70]]}))
    assert run(tmp_path, picture, boxes=boxes) == 1
    assert "is the file given as --boxes" in capsys.readouterr().err and "a.jpg" in json.loads(boxes.read_text())


def test_a_person_fewer_takes_only_what_is_ours(tmp_path):
    picture, boxes = photo(tmp_path / "a.jpg"), tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": [[0, 0, 30, 70], [30, 0, 60, 70], [10, 0, 50, 70]]}))
    out = tmp_path / "out"
    assert run(out, picture, boxes=boxes) == 0
    (out / "a_person1.npz").write_bytes(b"mine now")
    (out / "a_person1_notes.txt").write_text("mine")
    boxes.write_text(json.dumps({"a.jpg": [[0, 0, 30, 70]]}))
    assert run(out, picture, boxes=boxes, save="json") == 0
    assert set(everything(out)) == {"a.json", "a_person1.npz", "a_person1_notes.txt"}


def test_a_record_that_is_none(tmp_path, capsys):
    picture = photo(tmp_path / "a.jpg")
    for content in ("[]", "{}", "no JSON", '{"images": []}'):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / RECORD).write_text(content)
        assert run(tmp_path / "out", picture) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert (tmp_path / "out" / RECORD).read_text() == content
    assert run(tmp_path / "out", picture, "--overwrite") == 0


# A result knows its source


@pytest.mark.parametrize("rows", [
    3, [3], [{"writes": "a", "hash": {"id": [1]}}], [{"writes": [], "hash": "a"}], [{"name": 3}],
    [{"name": "ski", "source": "x", "content": "0", "made_with": "0", "image_id": [1], "people": 1, "files": {}}],
    [{"name": "ski", "source": "x", "content": "0", "made_with": "0", "image_id": 1, "people": 10**12, "files": {}}],
    [{"name": "ski", "source": "x", "content": "0", "made_with": "0", "image_id": 1, "people": 1, "files": [1]}],
])  # fmt: skip
def test_rows_of_a_record_that_are_none(tmp_path, rows):
    out, picture = tmp_path / "out", photo(tmp_path / "ski.jpg")
    assert run(out, picture) == 0
    table = json.loads((out / RECORD).read_text())
    (out / RECORD).write_text(json.dumps(table | {"results": rows}))
    assert run(out, picture, "--resume", "--overwrite") == 0
    assert len(json.loads((out / RECORD).read_text())["results"]) >= 1


def test_a_strangers_record_cannot_delete_what_lies_elsewhere(tmp_path):
    """A folder of results may have come with its record: only files in that folder are taken away."""
    out, picture = tmp_path / "out", photo(tmp_path / "ski.jpg")
    precious, inner = tmp_path / "precious.txt", tmp_path / "elsewhere" / "inner.txt"
    inner.parent.mkdir()
    for path in (precious, inner):
        path.write_text("precious")
    assert run(out, picture) == 0
    (out / "linked").symlink_to(inner.parent)
    table = json.loads((out / RECORD).read_text())
    known = hash_of(precious)
    entry = next(row for row in table["results"] if "name" in row)
    entry["files"] |= {"../precious.txt": known, str(precious): known, "linked/inner.txt": known}
    (out / RECORD).write_text(json.dumps(table))
    photo(picture, 10)  # another picture: its earlier results go
    assert run(out, picture, "--overwrite") == 0
    assert precious.exists() and inner.exists()


def test_pictures_of_one_name(tmp_path):
    """Each keeps its results, whatever else is in the call and in whatever order."""
    pictures = [photo(tmp_path / folder / "x.jpg", 60 * k) for k, folder in enumerate("abc", 1)]
    out = tmp_path / "out"
    assert run(out, pictures[0]) == 0
    first = everything(out)
    assert run(out, pictures[1], "--resume") == 0
    names = set(everything(out))
    assert len(names) == 4 and {name: everything(out)[name] for name in first} == first
    before = everything(out)
    assert run(out, *reversed(pictures), "--resume") == 0
    after = everything(out)
    assert len(after) == 6 and {name: after[name] for name in before} == before
    owners = {entry.name: entry.source for entry in Record(out).entries.values()}
    assert owners["x"] == str(pictures[0]) and sorted(owners.values()) == sorted(map(str, pictures))
    assert run(out, *pictures) == 0
    assert set(everything(out)) == set(after)
    rows = [json.loads(content) for name, content in after.items() if name.endswith(".json")]
    assert len({row[0]["image_id"] for row in rows}) == 3


def test_names_that_differ_in_case_or_ending_alone(tmp_path):
    pictures = [photo(tmp_path / name) for name in ("x.jpg", "x.png", "X.bmp")]
    assert run(tmp_path / "out", *pictures) == 0
    assert len({name.casefold() for name in everything(tmp_path / "out")}) == 6


def test_numbers_as_names(tmp_path):
    names = ("000001.jpg", "1.jpg", "0017.png", "b/000001.jpg", "9" * 30 + ".jpg")
    pictures = [photo(tmp_path / name) for name in names]
    assert run(tmp_path / "out", *pictures, save="json") == 0
    ids = {name: json.loads(content)[0]["image_id"] for name, content in everything(tmp_path / "out").items()}
    assert len(set(ids.values())) == 5
    assert (ids["000001.json"], ids["1.json"], ids["0017.json"]) == (1, "1", 17)
    before = ids["1.json"]
    assert run(tmp_path / "out", pictures[1], save="json") == 0
    assert json.loads((tmp_path / "out" / "1.json").read_text())[0]["image_id"] == before


def test_a_picture_called_like_the_record(tmp_path):
    picture = photo(tmp_path / "Wholebody_Run.jpg")
    assert run(tmp_path / "out", picture, "--save", "json") == 0
    assert Record(tmp_path / "out").before["boxes"] == "whole"
    (name,) = everything(tmp_path / "out")
    assert name.startswith("Wholebody_Run_")
    assert run(tmp_path / "out", picture, "--resume") == 0


@pytest.mark.parametrize(
    "name",
    ["é" * 118, "a" * 250, "lines\nin\nit", "日本語の名前", "tab\t\x1b[31mred", os.fsdecode(b"no\xfftext"), " ", "-x"],
)
def test_names(tmp_path, capsys, name):
    """Any name that a file system takes gives results that other programs read."""
    plain = photo(tmp_path / "plain.png")
    picture = tmp_path / (name + ".png"[: 255 - len(os.fsencode(name))])
    shutil.copy(plain, picture)
    out = tmp_path / "out"
    assert run(out, "--save", "overlay,npz,obj,ply,glb,json", "--", picture) == 0
    assert "\x1b" not in capsys.readouterr().out
    files = list(path for path in out.iterdir() if path.name != RECORD)
    assert len(files) == 6
    for path in files:
        if path.suffix in (".obj", ".ply", ".glb"):
            with open(path, "rb") as file:
                mesh = trimesh.load(file, file_type=path.suffix[1:], process=False, force="mesh")
            assert len(mesh.vertices) == 13718
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".npz":
            np.load(path)["conventions"]
    assert run(out, "--resume", "--save", "overlay,npz,obj,ply,glb,json", "--", picture) == 0
    assert "1 skipped as complete" in capsys.readouterr().out


# What is done again


@pytest.fixture
def three(tmp_path):
    pictures = [photo(tmp_path / f"{name}.jpg", grey) for name, grey in (("a", 60), ("b", 120), ("c", 180))]
    assert run(tmp_path / "out", *pictures) == 0
    return pictures, tmp_path / "out"


def skipped(capsys) -> int:
    return int(capsys.readouterr().out.split(" skipped as complete")[0].split()[-1])


def test_what_did_not_change_is_not_done_again(three, capsys):
    pictures, out = three
    os.utime(pictures[0], (4e9, 4e9))  # a camera with a wrong clock
    os.utime(pictures[1])
    capsys.readouterr()
    assert run(out, *pictures, "--resume") == 0
    assert skipped(capsys) == 3


def test_a_changed_picture_is_done_again(three, capsys):
    pictures, out = three
    about = pictures[0].stat()
    photo(pictures[0], 61)
    os.utime(pictures[0], ns=(about.st_atime_ns, about.st_mtime_ns))
    before = everything(out)
    capsys.readouterr()
    assert run(out, *pictures, "--resume") == 0
    assert skipped(capsys) == 2
    assert everything(out)["a_person0.npz"] != before["a_person0.npz"]


def test_a_corrected_box_file_is_noticed(tmp_path, capsys):
    picture, boxes, out = photo(tmp_path / "a.jpg"), tmp_path / "boxes.json", tmp_path / "out"
    for x1 in (50, 60):
        boxes.write_text(json.dumps({"a.jpg": [[0, 0, x1, 70]]}))
        assert run(out, picture, "--resume", boxes=boxes) == 0
        assert skipped(capsys) == 0
        assert json.loads((out / "a.json").read_text())[0]["bbox"][2] == x1
    assert run(out, picture, "--resume", boxes=boxes) == 0
    assert skipped(capsys) == 1


def test_more_kinds_or_a_lost_file_are_made(three, capsys):
    pictures, out = three
    (out / "b_person0.npz").unlink()
    capsys.readouterr()
    assert run(out, *pictures, "--resume") == 0
    assert skipped(capsys) == 2
    assert run(out, *pictures, "--resume", save="npz,ply") == 0
    assert skipped(capsys) == 0


def test_pictures_without_people_are_done_once(tmp_path, capsys):
    picture, boxes = photo(tmp_path / "a.jpg"), tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": []}))
    for count in (0, 1):
        assert run(tmp_path / "out", picture, "--resume", boxes=boxes, save="overlay,npz,json") == 0
        assert skipped(capsys) == count


def test_a_folder_that_was_moved(three, tmp_path, capsys):
    """Pictures and results, taken elsewhere together, are still the same."""
    pictures, out = three
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in [*pictures, out]:
        shutil.move(path, moved / path.name)
    capsys.readouterr()
    assert run(moved / "out", *(moved / picture.name for picture in pictures), "--resume") == 0
    assert skipped(capsys) == 3 and len(everything(moved / "out")) == 6


def test_other_options_are_refused(three, capsys):
    pictures, out = three
    assert main(["predict", *map(str, pictures), "--out", str(out), "--resume"]) == 2
    assert "--boxes whole then, None now" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "--out"])


def test_results_of_the_first_version(three, capsys):
    """Their record had options alone: `--resume` goes on from them; without it, nobody knows whose they are."""
    pictures, out = three
    record = json.loads((out / RECORD).read_text())
    options = {name: record[name] for name in ("model", "body", "boxes", "detector", "refine", "version")}
    (out / RECORD).write_text(json.dumps(options))
    before = everything(out)
    capsys.readouterr()
    assert run(out, *pictures) == 1
    assert "in this version" in capsys.readouterr().err and everything(out) == before
    (out / RECORD).write_text(json.dumps(options))
    assert run(out, *pictures, "--resume") == 0
    assert skipped(capsys) == 3
    assert run(out, *pictures) == 0


# Films


@pytest.fixture
def films(monkeypatch):
    """Films that are watched at once: names of those that were."""
    from types import SimpleNamespace

    watched: list[str] = []

    def watch(config, source, *_):
        watched.append(source.name)
        path = config.out / f"{source.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.path.read_text())
        scene = SimpleNamespace(people=[], frames=[])
        return SimpleNamespace(scene=scene, frames=0, seconds=0), [path]

    monkeypatch.setattr(predict, "predict_film", watch)
    monkeypatch.setattr("wholebody.files.video.is_film", lambda path: Path(path).suffix == ".mp4" and path.is_file())
    return watched


def film(*words) -> int:
    return main(["predict", *map(str, words)])


def test_films_know_their_source_too(tmp_path, films, capsys):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_text(f"film {folder}")
    out = tmp_path / "out"
    assert film(tmp_path / "a" / "x.mp4", "--out", out) == 0
    assert film(tmp_path / "b" / "x.mp4", tmp_path / "a" / "x.mp4", "--out", out, "--resume") == 0
    assert len(set(films)) == len(films) == 2 and (out / "x.json").read_text() == "film a"
    assert film(tmp_path / "a" / "x.mp4", "--out", out, "--resume", "--smooth", "strong") == 0
    assert films[2:] == ["x"]  # other options of films are other results
    (tmp_path / "a" / "x.mp4").write_text("cut")
    assert film(tmp_path / "a" / "x.mp4", "--out", out, "--resume", "--smooth", "strong") == 0
    assert films[3:] == ["x"]
    (out / "x.json").write_text("corrected")
    assert film(tmp_path / "a" / "x.mp4", "--out", out) == 1
    assert "was changed after" in capsys.readouterr().err and (out / "x.json").read_text() == "corrected"


def test_a_film_and_a_picture_of_one_name(tmp_path, films):
    photo(tmp_path / "in" / "x.jpg")
    (tmp_path / "in" / "x.mp4").write_text("film")
    (tmp_path / "in" / "notes.txt").write_text("x")
    assert film(tmp_path / "in", "--out", tmp_path / "out", "--boxes", "whole", "--save", "json") == 0
    assert len(everything(tmp_path / "out")) == 2


# The record itself


def test_a_killed_run_leaves_what_the_next_one_knows(three, monkeypatch, capsys):
    """Killed between two files of a picture, or while it wrote the record."""
    pictures, out = three
    assert json.loads((out / RECORD).read_text())["results"]  # JSON at any time

    def killed(self, entry):
        raise KeyboardInterrupt

    photo(pictures[0], 62)
    with monkeypatch.context() as patch:
        patch.setattr(Record, "finish", killed)
        patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # dead processes tidy nothing up
        assert run(out, *pictures, "--resume") == 130
    capsys.readouterr()
    content = (out / RECORD).read_bytes()
    assert json.loads(content)
    (out / RECORD).write_bytes(content.removesuffix(b"\n]}\n") + b',\n{"writes": "c_pers')  # half a row
    assert run(out, *pictures, "--resume") == 0
    assert "failed" not in capsys.readouterr().err
    assert len(json.loads((out / RECORD).read_text())["results"]) >= 3


def test_two_runs_at_once_lose_no_row(tmp_path):
    from threading import Thread

    from wholebody.pipeline.record import Entry

    (tmp_path / "out").mkdir()
    options = {"model": "t"}

    def work(number: int) -> None:
        record = Record(tmp_path / "out")
        record.begin(options)
        for k in range(20):
            record.finish(Entry(f"{number}-{k}", f"/{number}/{k}", "c", "m", f"{number}-{k}", 0, {}))

    Record(tmp_path / "out").begin(options)
    threads = [Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Record(tmp_path / "out").entries) == 80


# One sentence, before any work


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--detector", "rfdetr"], "contradict"),
        (["--detector", "yolo"], "contradict"),
        (["--model", "nothing"], "nothing"),
        (["--refine=nothing.json"], "nothing.json"),
        (["--device", "mps"], "Apple"),
        (["--device", "gpu"], "--device gpu"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_folder_is_made(tmp_path, capsys, words, says):
    assert run(tmp_path / "out", photo(tmp_path / "a.jpg"), *words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and not (tmp_path / "out").exists()


# Many pictures


def test_many_pictures_keep_their_order_and_come_without_meshes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(config, "MANY", 12)
    for k in range(12):
        photo(tmp_path / "in" / f"p{k:02}.png", grey=20 * k)
    (tmp_path / "in" / "p05.png").write_bytes(b"damaged")
    assert main(["predict", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--boxes", "whole"]) == 1
    said = capsys.readouterr()
    assert "12 pictures, so without obj, ply, glb, scene" in said.out and "p05" in said.err
    done = [line.split(":")[0] for line in said.out.splitlines() if "1 person" in line and "->" in line]
    names = [path.rsplit("/", 1)[-1] for path in done]
    assert names == [f"p{k:02}.png" for k in range(12) if k != 5]
    kinds = {path.rsplit(".", 1)[-1] for path in everything(tmp_path / "out")}
    assert kinds == {"jpg", "npz", "json"}
    # The same call goes on from there, and meshes come where they are named.
    assert main(["predict", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--boxes", "whole", "--resume"]) == 1
    assert "11 skipped as complete" in capsys.readouterr().out
    assert run(tmp_path / "meshes", tmp_path / "in", save="ply") == 1
    assert len([path for path in everything(tmp_path / "meshes") if path.endswith(".ply")]) == 11


def test_people_are_those_of_their_own_picture(tmp_path):
    """Each picture's brightness leans its person's head: whoever mixes up pictures shows it."""
    for k in range(9):
        photo(tmp_path / "in" / f"p{k}.png", grey=25 * k)
    assert run(tmp_path / "out", tmp_path / "in") == 0
    leans = [np.load(tmp_path / "out" / f"p{k}_person0.npz")["body_pose"][14, 0] for k in range(9)]
    np.testing.assert_allclose(leans, np.arange(9) * leans[1], rtol=0.02)
    assert leans[1] > 0.03
