"""Sets as tars: the same people and pictures come out, `webdataset` reads them, hostile ones are refused."""

import io
import json
import os
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from data.pictures import make_people, write_pictures
from data.test_dataset import assert_equal_samples
from data.test_index import FullDisk, assert_same

from wholebody import cli
from wholebody.data import shards as S
from wholebody.data.dataset import PeopleDataConfig, PeopleDataset, SetConfig
from wholebody.data.decode import read_picture
from wholebody.data.index import RECORD, Index, _inside, index_path, write_index
from wholebody.errors import BadInput, OutputError

COUNT = 14


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    people = make_people(COUNT, seed=1)
    write_pictures(root / "Own", people)
    write_index(people, index_path(root, "Own", "train"), dataset="Own", split="train")
    return root


@pytest.fixture(scope="module")
def tars(root, tmp_path_factory):
    """A folder with several tars: each holds about two pictures."""
    out = tmp_path_factory.mktemp("tars") / "new"
    S.write_shards(Index(index_path(root, "Own", "train")), root / "Own", out, "Own-train", size=40_000)
    return out


def test_people_and_pictures_come_back(root, tars):
    assert len(list(tars.glob("Own-train-00000*.tar"))) > 2
    files, packed = Index(index_path(root, "Own", "train")), Index(tars / "Own-train.arrow")
    assert len(packed) == COUNT and packed.about["dataset"] == "Own" and packed.about["split"] == "train"
    for one, two in zip(files, packed, strict=True):  # two people share each picture, in order
        assert_same(replace(one, image_path=""), replace(two, image_path=""))
        assert read_picture(root / "Own", one.image_path) == read_picture(tars, two.image_path)
    assert len(set(packed.image_path(n) for n in range(COUNT))) == COUNT // 2  # each picture is stored once


def test_training_reads_tars_as_it_reads_files(root, tars):
    config = PeopleDataConfig((SetConfig("Own"),), root=str(root))
    files = PeopleDataset(config, seed=5)
    packed = PeopleDataset(replace(config, sets=(SetConfig("Own", folder=str(tars)),)), seed=5)
    for number in (20, 3, 4):  # any number first: as when resumed
        assert_equal_samples(files[number], packed[number])


def test_tars_are_read_from_object_storage(tars):
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for path in tars.glob("*.tar"):
        system.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    place = Index(tars / "Own-train.arrow").image_path(9)
    assert read_picture("memory://bucket/", place) == read_picture(tars, place)
    with pytest.raises(BadInput, match="absent"):
        read_picture("memory://absent", place)


def test_webdataset_reads_them(root, tars):
    webdataset = pytest.importorskip("webdataset")
    paths = sorted(str(path) for path in tars.glob("*.tar"))
    found = list(webdataset.WebDataset(paths, shardshuffle=False).decode("rgb8"))
    assert len(found) == COUNT // 2
    people = [person for sample in found for person in zip(sample["npy"], sample["json"], strict=True)]
    assert [text["id"] for _, text in people] == [f"Own_{n}" for n in range(COUNT)]
    expected = Index(index_path(root, "Own", "train"))[5]
    np.testing.assert_array_equal(people[5][0]["joints_px"], expected.joints_px)
    assert found[0]["jpg"].shape == (300, 400, 3)


def test_indices_are_made_again_from_the_tars_alone(tars, tmp_path):
    for path in tars.glob("*.tar"):
        shutil.copy(path, tmp_path)
    assert S.index_tars(tmp_path) == [tmp_path / "Own-train.arrow"]
    for one, two in zip(Index(tars / "Own-train.arrow"), Index(tmp_path / "Own-train.arrow"), strict=True):
        assert_same(one, two)
    with pytest.raises(BadInput, match="no tars"):
        S.index_tars(tmp_path / "nothing")


def test_the_command(root, tmp_path, capsys):
    assert cli.main(["data", "shard", str(root), "Own:train", "--out", str(tmp_path / "tars")]) == 0
    assert "14 of 14 people" in capsys.readouterr().out
    (tmp_path / "tars" / "Own-train.arrow").unlink()
    assert cli.main(["data", "index", str(tmp_path / "tars"), "--tars"]) == 0
    assert len(Index(tmp_path / "tars" / "Own-train.arrow")) == COUNT
    assert cli.main(["data", "shard", str(root), "MPII", "--out", str(tmp_path)]) == 2
    assert "data index" in capsys.readouterr().err


def test_missing_pictures_are_named_and_left_out(root, tmp_path, capsys):
    shutil.copytree(root, tmp_path / "sets")
    (tmp_path / "sets" / "Own" / "images" / "00003.jpg").unlink()
    assert cli.main(["data", "shard", str(tmp_path / "sets"), "Own", "--out", str(tmp_path / "tars")]) == 1
    said = capsys.readouterr()
    assert "12 of 14 people" in said.out and "00003.jpg" in said.err
    index = Index(tmp_path / "tars" / "Own-train.arrow")
    assert {sample.id for sample in index} == {f"Own_{n}" for n in range(COUNT)} - {"Own_6", "Own_7"}
    with pytest.raises(BadInput, match="00003.jpg"):
        S.write_shards(Index(index_path(root, "Own", "train")), tmp_path / "sets" / "Own", tmp_path, "x")
    shutil.rmtree(tmp_path / "sets" / "Own" / "images")
    with pytest.raises(BadInput, match="none of the 14"):
        S.write_shards(Index(index_path(root, "Own", "train")), tmp_path / "sets" / "Own", tmp_path, "y", problems=[])


def test_a_full_disk_leaves_whole_tars_only(root, tmp_path, monkeypatch):
    monkeypatch.setattr(S, "_open", lambda path: FullDisk(path, 30_000))
    with pytest.raises(OutputError, match="No space left"):
        S.write_shards(Index(index_path(root, "Own", "train")), root / "Own", tmp_path, "x", size=10_000_000)
    assert os.listdir(tmp_path) == []


# Tars from strangers


def member(name, data=b"", **changes):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    for key, value in changes.items():
        setattr(entry, key, value)
    return entry, data


def person(**texts):
    record = io.BytesIO()
    np.save(record, np.zeros(1, RECORD))
    names = {"id": "a", "dataset": "", "image_path": "", "mesh_path": None, "body": "", "gender": "neutral"} | texts
    return {"0.npy": record.getvalue(), "0.json": json.dumps([names]).encode(), "0.jpg": b"picture"}


def pickled():
    """An array whose loading would run code, were it unpickled."""
    file = io.BytesIO()
    np.save(file, np.array([os.getcwd], dtype=object), allow_pickle=True)
    return file.getvalue()


def write_tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for entry, data in members:
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "members, what",
    [
        ([member("../../etc/passwd", b"x")], "passwd"),
        ([member("/etc/cron.d/x", b"x")], "cron"),
        ([member("..\\0.jpg", b"x")], "refused"),
        ([member("a/0.jpg", b"x")], "a/0.jpg"),
        ([member("0.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "refused"),
        ([member("0.jpg", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "refused"),
        ([member("0.jpg", type=tarfile.CHRTYPE)], "refused"),
        ([member("0", type=tarfile.DIRTYPE)], "refused"),
        ([member("0.pyd.jpg", b"x")], "refused"),
        ([member("0.jpg", b"x"), member("0.jpg", b"y")], "twice"),
        ([member("0.jpg", b"x")], "belong together"),
        ([member(k, v) for k, v in (person() | {"0.npy": pickled()}).items()], "cannot be read"),
        ([member(k, v) for k, v in (person() | {"0.npy": b"x"}).items()], "cannot be read"),
        ([member(k, v) for k, v in (person() | {"0.json": b"[]"}).items()], "cannot be read"),
        ([member(k, v) for k, v in (person() | {"0.json": b"{"}).items()], "cannot be read"),
        ([member(k, v) for k, v in person(mesh_path="../../secret.ply").items()], "outside"),
        ([member(k, v) for k, v in person(mesh_path="/etc/passwd").items()], "outside"),
    ],
)
def test_hostile_tars_are_refused(tmp_path, members, what):
    path = write_tar(tmp_path / "x-000000.tar", *members)
    with pytest.raises(BadInput, match=what):
        list(S.read_shards([path]))
    assert [p.name for p in tmp_path.iterdir()] == ["x-000000.tar"]


def test_an_honest_tar_of_this_form_is_read(tmp_path):
    """What the hostile ones differ from, so that they are refused for what they are."""
    path = write_tar(tmp_path / "x-000000.tar", *[member(k, v) for k, v in person(mesh_path="meshes/0.ply").items()])
    (sample,) = S.read_shards([path])
    assert read_picture(tmp_path, sample.image_path) == b"picture"


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.97])
def test_a_tar_that_is_cut_off_is_recognised(tars, tmp_path, keep):
    whole = sorted(tars.glob("*.tar"))[0].read_bytes().rstrip(b"\0")
    path = tmp_path / "Own-train-000000.tar"
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(BadInput, match="cut off|belong together"):
        list(S.read_shards([path]))
    place = S.split_member(Index(tars / "Own-train.arrow").image_path(2))
    with pytest.raises(BadInput, match="cut off"):
        S.read_member(str(tmp_path), replace(place, offset=len(whole) - 10))


# What leads out of a set, and what an earlier run left


def test_smaller_tars_of_an_earlier_run_are_taken_away(root, tmp_path):
    index = Index(index_path(root, "Own", "train"))
    S.write_shards(index, root / "Own", tmp_path, "x", size=40_000)
    assert len(list(tmp_path.glob("x-*.tar"))) > 2
    (tmp_path / "x-notes.tar").write_bytes(b"")
    (tmp_path / "xx-000007.tar").write_bytes(b"")
    S.write_shards(index, root / "Own", tmp_path, "x", size=10_000_000)
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["x-000000.tar", "x-notes.tar", "xx-000007.tar"]


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "images/out/secret.jpg", "images/link.jpg"])
def test_files_outside_of_a_set_are_neither_packed_nor_indexed(root, tmp_path, name):
    people = [replace(Index(index_path(root, "Own", "train"))[0], image_path=name)]
    folder = tmp_path / "sets" / "Own"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "images" / "out").symlink_to(tmp_path)
    (folder / "images" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    index = Index(write_index(people, tmp_path / "x.arrow"))
    with pytest.raises(BadInput, match="refused"):
        S.write_shards(index, folder, tmp_path / "out", "x")
    problems: list[str] = []
    with pytest.raises(BadInput, match="none of the 1"):
        S.write_shards(index, folder, tmp_path / "out", "x", problems=problems)
    assert len(problems) == 1 and "refused" in problems[0]
    with pytest.raises(BadInput, match="refused"):
        list(_inside(people, folder))


@pytest.mark.parametrize("texts", [b"[" * 100_000, b"[3]", b'[{"id": 1}]', b"null", b"[" + b"9" * 5000 + b"]"])
def test_names_of_people_that_are_none(root, tmp_path, texts):
    S.write_shards(Index(index_path(root, "Own", "train")), root / "Own", tmp_path, "x", size=10_000_000)
    with tarfile.open(tmp_path / "x-000000.tar") as source, tarfile.open(tmp_path / "y.tar", "w") as target:
        for entry in list(source)[:3]:
            data = texts if entry.name.endswith(".json") else source.extractfile(entry).read()
            entry.size = len(data)
            target.addfile(entry, io.BytesIO(data))
    with pytest.raises(BadInput, match="y.tar"):
        list(S.read_shards([tmp_path / "y.tar"]))


def test_pictures_on_another_disk_are_packed_where_the_user_names_it(tmp_path, capsys):
    """`images` is a link that the user laid: refused until its place is named."""
    people, disk = make_people(4, seed=2), tmp_path / "disk"
    write_pictures(disk, people)
    folder = tmp_path / "sets" / "Own"
    folder.mkdir(parents=True)
    (folder / "images").symlink_to(disk / "images")
    write_index(people, index_path(tmp_path / "sets", "Own", "train"), dataset="Own", split="train")
    command = ["data", "shard", str(tmp_path / "sets"), "Own:train", "--out", str(tmp_path / "tars")]
    assert cli.main(command) == cli.USAGE
    assert not list(tmp_path.glob("tars/*.tar"))
    assert cli.main([*command, "--linked", str(disk)]) == cli.OK
    packed = Index(tmp_path / "tars" / "Own-train.arrow")
    assert len(packed) == 4
    assert read_picture(tmp_path / "tars", packed[0].image_path) == read_picture(folder, people[0].image_path)
    assert len(list(_inside(people, folder, [disk]))) == 4
    with pytest.raises(BadInput, match="--linked"):
        list(_inside(people, folder))
