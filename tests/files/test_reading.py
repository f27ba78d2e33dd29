"""Files from strangers: whatever is wrong with them, they are refused with one clear error, and nothing runs."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from wholebody.errors import BadInput
from wholebody.files.dataframe import read_dataframe
from wholebody.files.image import read_image
from wholebody.files.json_stream import items, parse_json, read_json
from wholebody.files.looks import looks_like, meant
from wholebody.files.npz import SafeNpz, read_npy
from wholebody.files.pickle_check import check_pickle
from wholebody.files.reading import inside, open_file, read_bytes
from wholebody.files.text import brief
from wholebody.files.unpickle import as_dense, read_pickle

# Only regular files


@pytest.mark.parametrize("read", [read_bytes, read_json, read_pickle, SafeNpz, read_npy, read_image, read_dataframe])
def test_pipes_devices_and_folders_are_no_files(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.jpg", tmp_path / "link.jpg", tmp_path):
        with pytest.raises(BadInput, match=r"is a (pipe|device|folder)"):
            read(path)


def test_a_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "b") == b"content"
    for name in ("absent", "a\0b", "n" * 300):
        with pytest.raises(BadInput, match="could not read"):
            open_file(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.jpg", "a/../../x.jpg", "a\\..\\x.jpg", "C:/x.jpg", "", "a\0b", "out/x.jpg", "x.png"]
)
def test_names_that_lead_out_of_a_set_are_refused(tmp_path, name):
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"")
    (root / "out").symlink_to(tmp_path)
    (root / "x.png").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match="refused"):
        inside(root, name)


def test_links_may_lead_where_the_user_says_and_nowhere_else(tmp_path):
    """Pictures on another disk: the user names their folder. An archive's links to other places stay refused."""
    root, disk = tmp_path / "set", tmp_path / "disk" / "pictures"
    root.mkdir()
    (disk / "deep").mkdir(parents=True)
    (disk / "deep" / "a.jpg").write_bytes(b"")
    (tmp_path / "disk" / "secret").write_bytes(b"")
    (root / "images").symlink_to(disk)
    (root / "hostile").symlink_to(tmp_path / "disk")
    (disk / "escape").symlink_to(tmp_path / "disk")
    (tmp_path / "alias").symlink_to(disk)
    with pytest.raises(BadInput, match="--linked"):
        inside(root, "images/deep/a.jpg")
    for named in (disk, tmp_path / "alias"):
        assert inside(root, "images/deep/a.jpg", [named]) == root / "images/deep/a.jpg"
        for name in ("hostile/secret", "images/escape/secret", "images/../../disk/secret"):
            with pytest.raises(BadInput, match="refused"):
                inside(root, name, [named])


def test_names_and_links_within_a_set_are_taken(tmp_path):
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.jpg").write_bytes(b"")
    (root / "b.jpg").symlink_to(root / "images" / "a.jpg")
    (root / "again").symlink_to(root / "images")
    (tmp_path / "other").symlink_to(root)
    for folder in (root, tmp_path / "other"):  # the folder itself may be a link
        for name in ("images/a.jpg", "b.jpg", "again/a.jpg", "images/absent.jpg", "a..b.jpg", "写真/x.jpg"):
            assert inside(folder, name) == folder / name


# JSON


@pytest.mark.parametrize(
    "content", [
        b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"[" + b"9" * 5000 + b"]", b'{"a": 1, "a": 2}', b"\xff\xfe\xff",
        b'[{"b": [{"c": 1, "c": 1}]}]', b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'"\xff"', b"nul",
        b"[1,]", b"-" * 1000,
    ],
)  # fmt: skip
def test_json_that_is_none(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(BadInput, match="x.json is not a whole JSON file"):
        read_json(tmp_path / "x.json")
    with pytest.raises(BadInput, match="x.json is not a whole JSON file"):
        list(items(tmp_path / "x.json"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_in_any_unicode(tmp_path, encoding):
    content = {"写真": [1, 2.5, "ü"], "id": 2**64}
    (tmp_path / "x.json").write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))
    assert read_json(tmp_path / "x.json") == content == dict(items(tmp_path / "x.json"))


def test_large_numbers_of_json_fit_into_floats():
    assert float(parse_json(b"[" + b"9" * 40 + b"]", "x")[0]) == 1e40
    with pytest.raises(BadInput, match="41 digits"):
        parse_json(b"[" + b"9" * 41 + b"]", "x")


# Pickles


class Hostile:
    def __reduce__(self):
        return os.system, ("touch ran",)


def array_state(shape, dtype, content):
    """A pickle of an array with any state."""
    return b"".join([
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01",
        pickle.dumps(shape, 2)[2:-1], b"cnumpy\ndtype\nX", struct.pack("<I", len(dtype)), dtype.encode(),
        b"\x89\x88\x87R", b"\x89", pickle.dumps(content, 3)[2:-1], b"tb.",
    ])  # fmt: skip


@pytest.mark.parametrize(
    "content", [
        array_state((10**6,), "O8", []), array_state((2,), "O8", [1]), array_state((1,), "O8", [1, 2]),
        array_state((-1,), "O8", []), array_state((2**40, 2**40), "O8", []), array_state(("a",), "O8", [1]),
        array_state((True,), "O8", [1]), array_state((3,), "f8", b"\0" * 8), array_state((1,), "f8", [1.0]),
        array_state((1,), "O8", b"\0" * 8), array_state((10**12,), "S0", b""), array_state(1, "O8", [1]),
        array_state((1,) * 40, "O8", [1]),
        b"\x80\x02]r\xff\xff\xff\x3f.", b"]p999999999999\n.", b"]p-5\n.",
        b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"K\x01s.",  # a key that takes half a million steps to hash
        b"\x80\x04\x8f(" + b")" + b"\x85" * 500_000 + b"\x90.",
        b"\x80\x02" + b"(" * 500_000 + b"t" * 500_000 + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".", b"\x80\x04\x96" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x02X\xff\xff\xff\x7f.", b"", b".", b"\x80\x02", b"0.", b"t.", b"\x80\x02\xfe.", b"\x80\x02}K\x01.",
        b"cos\nsystem\n(S'true'\ntR.", b"I" + b"9" * 5000 + b"\n.", b"\x80\x02]q\x00h\x05.",
        pickle.dumps({"a": Hostile()}),
        b"\x80\x02ccopy_reg\n_reconstructor\n(c__builtin__\nlist\nc__builtin__\nobject\nNtR.",
    ],
)  # fmt: skip
def test_pickles_that_would_take_the_interpreter_down_are_refused(tmp_path, content, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(content)
    if content == b"\x80\x02}K\x01.":  # harmless: a number on top of a table
        assert read_pickle(tmp_path / "x.pkl") == 1
        return
    with pytest.raises(BadInput, match="x.pkl"):
        read_pickle(tmp_path / "x.pkl")
    assert sorted(os.listdir(tmp_path)) == ["x.pkl"]


def test_arrays_within_arrays_end_somewhere(tmp_path):
    """Numpy frees them one inside the other, down the machine's stack."""
    inner = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01K\x01\x85"
        b"cnumpy\ndtype\nU\x02O8\x89\x88\x87R\x89]"
    )
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + inner * 20_000 + b"K\x01" + b"atb" * 20_000 + b".")
    with pytest.raises(BadInput, match="nests more than"):
        read_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_whole_pickles_are_walked_to_their_end(protocol):
    values = [
        {"a": np.arange(5.0), "b": [1, 2.5, "x", None, True, (1, (2, (3,)))], "c": np.array(["a", None], object)},
        {1, 2}, frozenset([3]), 10**300, -1, b"abc" * 100, bytearray(b"x"), list(range(1000)),
        {k: k for k in range(300)},
        [(k, [k] * 3) for k in range(2000)], np.float32(1), np.array(["text"]), "写真\n", 1 + 2j,
    ]  # fmt: skip
    content = pickle.dumps(values, protocol)
    assert check_pickle(content) == len(content)
    assert check_pickle(b"xx" + content + content, 2) == 2 + len(content)


def test_chumpy_arrays_of_themselves_end_somewhere(tmp_path):
    content = (
        b"\x80\x02ccopy_reg\n_reconstructor\ncchumpy.ch\nCh\nc__builtin__\nobject\nN\x87Rq\x01}(X\x01\x00\x00\x00ah\x01"
        b"X\x04\x00\x00\x00idxsK\x00ub."
    )
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(BadInput, match="selection of itself"):
        as_dense(read_pickle(tmp_path / "x.pkl"))


def test_lists_that_share_their_parts_do_not_fill_the_memory(tmp_path):
    value = [0.0] * 100
    for _ in range(8):
        value = [value] * 100
    (tmp_path / "x.pkl").write_bytes(
        b"\x80\x02ccopy_reg\n_reconstructor\ncchumpy.ch\nCh\nc__builtin__\nobject\nN\x87R"
        + pickle.dumps({"x": value}, 2)[2:-1] + b"b."
    )  # fmt: skip
    with pytest.raises(BadInput, match="chumpy array.*lists of"):
        as_dense(read_pickle(tmp_path / "x.pkl"))


@pytest.mark.parametrize("version", ["1.5", "2.3", "3.1", "3.1_without_pyarrow"])
def test_tables_of_every_pandas(version):
    """Written by these versions themselves."""
    table = read_dataframe(os.path.join(os.path.dirname(__file__), "tables", f"pandas_{version}.pkl"))
    assert table["imgPath"] == ["a.png", "b.png"] and table["who"] == ["x", None] and table["n"] in ([1, 2], [1, 3])
    assert [len(cell) for cell in table["cells"]] == [2, 0] and table["cells"][0][0].tolist() == [0, 1, 2]


def test_missing_text_of_pandas_3():
    table = read_dataframe(os.path.join(os.path.dirname(__file__), "tables", "pandas_3.1_missing.pkl"))
    assert table["imgPath"] == ["b.png", None, "c", "aä.png", "b.png", None, "c"]
    assert table["n"] == [2, 3, 4, 1, 2, 3, 4]


# Archives


def npy(shape, descr="<f8", size=None, version=b"\x01\x00", pad=0):
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode().ljust(118 + pad) + b"\n"
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + b"\0" * (8 * int(np.prod(shape)) if size is None else size)


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as stored:
        for name, content in members.items():
            stored.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    "content", [
        npy((10**12,), size=80), npy((3,), size=80), npy((3,), size=8), npy((-3,), size=8), npy(("x",), size=8),
        npy((3,), "|O", size=24), npy((3,), "junk", size=24), npy((3,), version=b"\x09\x00"), b"", b"\x93NUMPY",
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b" " * 10_000_000, npy((3,))[:60], b"[" * 1000,
        b"\x93NUMPY\x01\x00\x14\x00{'descr'============",  # numpy's second try at such a header is a tokenizer
        b"\x93NUMPY\x01\x00\xf0\x0f" + b"(" * 4000, b"\x93NUMPY\x01\x00\xf0\x0f" + b"-" * 4080 + b"1",
    ],
)  # fmt: skip
def test_arrays_that_are_not_what_they_say(tmp_path, content):
    with SafeNpz(archive(tmp_path / "x.npz", a=content, good=npy((2, 3)))) as stored:
        assert stored["good"].shape == (2, 3) and list(stored) == ["a", "good"]
        with pytest.raises(BadInput, match="x.npz"):
            stored["a"]
        with pytest.raises(KeyError):
            stored["absent"]
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(BadInput, match="x.npy"):
        read_npy(tmp_path / "x.npy")


def test_what_packs_too_well_is_not_unpacked(tmp_path):
    """300 MB of zeros in 300 kB; a field whose shape is known is refused by its header alone."""
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as stored:
        with stored.open("a.npy", "w", force_zip64=True) as file:
            file.write(npy((300, 1_000_000), "|u1", size=0))
            for _ in range(300):
                file.write(bytes(1_000_000))
    with SafeNpz(tmp_path / "x.npz") as stored:
        assert stored.header("a").shape == (300, 1_000_000)
        with pytest.raises(BadInput, match="unpack to 300,000,"):
            stored["a"]
        with pytest.raises(BadInput, match="300×1000000 where N×3"):
            stored.array("a", None, 3)


@pytest.mark.parametrize("field, value", [(8, 9), (8, 99), (6, 1), (4, 99)])
def test_archives_encrypted_or_packed_otherwise(tmp_path, field, value):
    """Changed in the archive's directory and in the member's own header: method, encryption, version."""
    content = bytearray(archive(tmp_path / "x.npz", a=npy((3,))).read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + field + 2] = value
    content[field] = value
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(BadInput, match="x.npz"):
        SafeNpz(tmp_path / "x.npz")["a"]


def test_damaged_streams(tmp_path):
    content = archive(tmp_path / "x.npz", a=npy((1000,), size=0) + os.urandom(8000)).read_bytes()
    for at in range(60, len(content), 97):
        (tmp_path / "x.npz").write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            with SafeNpz(tmp_path / "x.npz") as stored:
                for name in stored:
                    stored[name]
        except BadInput:
            pass


def test_pickles_within_archives_are_walked_too(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([1, None], object))
    head = buffer.getvalue()[: buffer.getvalue().index(b"\x80")]
    for pickled in (b"\x80\x02]r\xff\xff\xff\x3f.", array_state((2,), "O8", [1]), pickle.dumps(Hostile())):
        with pytest.raises(BadInput, match="x.npz"):
            SafeNpz(archive(tmp_path / "x.npz", a=head + pickled))["a"]


# Pictures


def test_pictures_from_bytes_and_open_files(tmp_path):
    Image.new("RGB", (40, 30), (9, 8, 7)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    expected = read_image(tmp_path / "x.png")
    with open(tmp_path / "x.png", "rb") as file:
        for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), file, str(file.name)):
            np.testing.assert_array_equal(read_image(source), expected)
    with pytest.raises(BadInput, match="mode 'rb'"):
        read_image(io.StringIO("x"))
    with pytest.raises(BadInput, match="picture: the file is empty"):
        read_image(b"")


def test_heic_is_read_or_says_what_reads_it():
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(buffer, format="HEIF")
    picture = read_image(buffer.getvalue())
    assert picture.shape == (48, 64, 3) and abs(picture.reshape(-1, 3).mean(0) - [200, 30, 30]).max() < 6


# What a file is instead, and which one was meant


@pytest.mark.parametrize(
    "head, what", [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"), (b"\n<!DOCTYPE html>", "web page"),
        (b"<HTML>", "web page"), (b"\xef\xbb\xbf<html lang=en>", "web page"), (b"%PDF-1.4", "PDF"), (b"PK\x03\x04", ""),
        (b'{"error": "404"}', "error message"), (b"\x80\x02}", ""), (b"", ""), (b"\x1f\x8b\x08", "packed"),
    ],
)  # fmt: skip
def test_downloads_that_went_wrong_are_recognised(head, what):
    assert (what in looks_like(head)) if what else looks_like(head) == ""


def test_near_misses_are_offered(tmp_path):
    for name in ("osx_l.pth.tar", "SMPLX_NEUTRAL.npz", "x"):
        (tmp_path / name).write_bytes(b"")
    assert "osx_l.pth.tar" in meant(tmp_path / "osx_1.pth.tar")
    assert "SMPLX_NEUTRAL.npz" in meant(tmp_path / "smplx_neutral.npz")
    assert meant(tmp_path / "something_else.json") == meant(tmp_path / "no" / "folder") == ""


def test_values_are_shown_on_one_short_line():
    nested = []
    for _ in range(50_000):
        nested = [nested]
    for value in (nested, "a\nb\x1b[31m", "x" * 1000, list(range(10_000)), 10**5000, {"a": nested}):
        text = brief(value)
        assert len(text) <= 80 and "\n" not in text and "\x1b" not in text


def test_text_of_characters_that_do_not_exist(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.frombuffer(b"\xff\xff\xff\x7f" * 2, "<U2"), b=np.array(["fine", "\U0010ffff"]))
    with SafeNpz(tmp_path / "x.npz") as stored:
        with pytest.raises(BadInput, match="'a' is damaged .*characters that do not exist"):
            stored["a"]
        assert stored["b"].tolist() == ["fine", "\U0010ffff"]


@pytest.mark.parametrize("ends", [[0, 2**30, 2**30 + 1, 2**30 + 2], [0, 3, 2, 3], [0, 1, 2]])
def test_sparse_matrices_hold_as_many_entries_as_they_say(tmp_path, ends):
    from scipy import sparse

    from wholebody.files.unpickle import as_dense, sparse_entries

    matrix = sparse.csc_matrix(np.eye(3))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(matrix))
    np.testing.assert_array_equal(as_dense(read_pickle(tmp_path / "x.pkl")), np.eye(3))
    matrix.__dict__["indptr"] = np.array(ends, np.int64)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(matrix))
    for read in (as_dense, sparse_entries):
        with pytest.raises(BadInput, match="sparse matrix"):
            read(read_pickle(tmp_path / "x.pkl"))
