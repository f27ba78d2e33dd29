"""What goes into an index comes out, quickly, and a broken one is recognised."""

import dataclasses
import errno
import pickle

import numpy as np
import pytest
from data.pictures import make_people

from wholebody.data import index as I
from wholebody.data.sample import Sample
from wholebody.errors import BadInput, OutputError


def assert_same(one, two):
    for field in dataclasses.fields(Sample):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            assert isinstance(b, np.ndarray) and a.shape == b.shape, field.name
            np.testing.assert_allclose(a, b, rtol=1e-6, err_msg=field.name)
        else:
            assert a == b and type(a) is type(b), field.name


@pytest.fixture(scope="module")
def people():
    return make_people(30)


def test_every_field_of_a_sample_is_kept_or_left_out_on_purpose():
    kept = {*I.TEXTS, *(name for name in I.RECORD.names if not name.startswith("has_"))}
    assert {field.name for field in dataclasses.fields(Sample)} == kept | {"image", "mask"}


def test_people_come_back_as_they_were(people, tmp_path, monkeypatch):
    monkeypatch.setattr(I, "ROWS", 8)  # several batches, the last one shorter
    index = I.Index(I.write_index(iter(people), tmp_path / "a" / "x.arrow", dataset="Own", split="train"))
    assert len(index) == 30 and index.about["split"] == "train"
    for number in (29, 0, 7, 8, 16):
        assert_same(people[number], index[number])
        assert index.image_path(number) == people[number].image_path
    assert [sample.id for sample in index] == [sample.id for sample in people]
    boxes = np.concatenate([records["box_xyxy"] for records in index.records()])
    np.testing.assert_allclose(boxes, [sample.box_xyxy for sample in people], rtol=1e-6)
    for outside in (30, -1):
        with pytest.raises(IndexError, match="30"):
            index[outside]


def test_a_person_is_the_readers_own(people, tmp_path):
    """Changing a sample's arrays neither fails nor changes the file, and pages that were given back are read again."""
    index = I.Index(I.write_index(people, tmp_path / "x.arrow"))
    sample = index[4]
    sample.joints_px[:] = -1
    index.forget()
    assert_same(people[4], index[4])
    again = pickle.loads(pickle.dumps(index))  # as a spawned loader process gets it
    assert_same(people[29], again[29])


def test_an_empty_index_is_an_index(tmp_path):
    assert len(I.Index(I.write_index([], tmp_path / "x.arrow"))) == 0


def test_any_arrow_library_reads_it(people, tmp_path):
    import pyarrow as pa

    path = I.write_index(people, tmp_path / "x.arrow")
    table = pa.ipc.open_file(path).read_all()
    assert table.column("image_path").to_pylist() == [sample.image_path for sample in people]


@pytest.mark.parametrize("keep", [0, 3, 1000, 0.5, 0.999])
def test_a_truncated_index_is_recognised(people, tmp_path, keep):
    path = I.write_index(people, tmp_path / "x.arrow")
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep > 1 or keep == 0 else int(keep * len(data))])
    with pytest.raises(BadInput, match=r"x\.arrow.*(?s:.*)wholebody data index"):
        I.Index(path)


def test_other_arrow_files_and_other_versions_are_refused(people, tmp_path, monkeypatch):
    import pyarrow as pa

    table = pa.table({"a": [1, 2]})
    with pa.ipc.new_file(str(tmp_path / "other.arrow"), table.schema) as writer:
        writer.write(table)
    with pytest.raises(BadInput, match="not an index"):
        I.Index(tmp_path / "other.arrow")
    path = I.write_index(people, tmp_path / "x.arrow")
    monkeypatch.setattr(I, "VERSION", 99)
    with pytest.raises(BadInput, match="another version"):
        I.Index(path)
    with pytest.raises(BadInput, match="no index"):
        I.Index(tmp_path / "absent.arrow")


def test_a_reader_that_fails_leaves_the_old_index(people, tmp_path):
    path = I.write_index(people[:3], tmp_path / "x.arrow")

    def fails():
        yield people[0]
        raise BadInput("annotation 7 is broken")

    with pytest.raises(BadInput, match="annotation 7"):
        I.write_index(fails(), path)
    assert len(I.Index(path)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["x.arrow"]


@pytest.mark.parametrize("room", [0, 4000, 150_000])
def test_a_full_disk_leaves_the_old_index(people, tmp_path, monkeypatch, room):
    path = I.write_index(people[:3], tmp_path / "x.arrow")
    monkeypatch.setattr(I, "ROWS", 8)
    monkeypatch.setattr(I, "_open", lambda path: FullDisk(path, room))
    with pytest.raises(OutputError, match="No space left"):
        I.write_index(people * 3, path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.arrow"]
    monkeypatch.undo()
    assert len(I.Index(path)) == 3


class FullDisk:
    """A file on a disk with `room` bytes left."""

    def __init__(self, path, room):
        self.file, self.room = open(path, "wb"), room

    def write(self, data):
        self.room -= len(memoryview(data).cast("B"))
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"betas": np.zeros(16)}, "betas"),
        ({"transl": np.full(3, np.nan)}, "finite"),
        ({"transl": np.full(3, 1e300)}, "transl holds a number"),
        ({"image_hw": (10**400, 5)}, "image_hw holds a number"),
    ],
)
def test_what_no_record_can_hold_is_named(people, tmp_path, changes, what):
    with pytest.raises(BadInput, match=f"Own_1.*{what}"):
        I.write_index([dataclasses.replace(people[1], **changes)], tmp_path / "x.arrow")


def test_the_command_says_what_it_wrote_and_what_is_missing(tmp_path):
    with pytest.raises(BadInput, match="nothing to index.*wholebody data check"):
        list(I.run_index(tmp_path))
    with pytest.raises(BadInput, match="no dataset 'COCO'"):
        list(I.run_index(tmp_path, ["COCO"]))
    with pytest.raises(BadInput, match="MSCOCO.*cocodataset.org"):
        list(I.run_index(tmp_path, ["MSCOCO"]))


def test_one_changed_byte_is_read_or_refused_and_kills_nothing(people, tmp_path):
    """In a process of its own: Arrow believes what a file says of its lengths."""
    import subprocess
    import sys

    I.write_index(people[:3], tmp_path / "x.arrow")
    script = """
import random, sys
from wholebody.data.index import Index
from wholebody.errors import BadInput
data = open(sys.argv[1], "rb").read()
for k in range(300):
    rng = random.Random(k)
    changed = bytearray(data)
    at = rng.choice((rng.randrange(len(data)), len(data) - 1 - int(rng.expovariate(1 / 400)) % len(data)))
    changed[at : at + 4] = rng.choice((bytes(4), b"\\xff" * 4, b"\\xff\\xff\\xff\\x7f", bytes([rng.randrange(256)])))
    open(sys.argv[1], "wb").write(changed)
    try:
        index = Index(sys.argv[1])
        [index[number] for number in range(min(len(index), 5))]
    except BadInput:
        pass
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "x.arrow"], capture_output=True, text=True)
    assert done.stdout == "alive\n", (done.returncode, done.stderr[-2000:])


def test_an_index_whose_record_is_no_type_is_refused(people, tmp_path):
    import json

    import pyarrow as pa

    path = I.write_index(people[:1], tmp_path / "x.arrow")
    with pa.ipc.open_file(path) as reader:
        table = reader.read_all()
    for record in ([["id", ","]], [["id", "<f4", [-1]]], [["id"]]):
        changed = table.replace_schema_metadata(table.schema.metadata | {b"record": json.dumps(record).encode()})
        with pa.ipc.new_file(tmp_path / "y.arrow", changed.schema) as writer:
            writer.write_table(changed)
        with pytest.raises(BadInput, match="truncated, or not an index|another version"):
            I.Index(tmp_path / "y.arrow")
