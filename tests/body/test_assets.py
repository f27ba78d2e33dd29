"""Body files: found, read in every form they come in, refused with a reason when they are not what they should be."""

import io
import os
import pickle
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

from wholebody.body import assets
from wholebody.body.assets import find_body, read_body_file, read_pickle
from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.files import unpickle
from wholebody.geometry.rotation import axis_angle_to_matrix

# --- finding ------------------------------------------------------------------------------------------------------


def test_no_path_means_the_open_body():
    assert find_body(None) == "open" and find_body("open", "female") == "open"


@pytest.mark.parametrize("inside", ["", "smplx", "models/smplx"])
@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_a_folder_is_searched_for_the_gender(tmp_path, inside, suffix):
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    for gender in ("MALE", "FEMALE"):
        (tmp_path / inside / f"SMPLX_{gender}{suffix}").touch()
    assert find_body(tmp_path, "male") == tmp_path / inside / f"SMPLX_MALE{suffix}"
    assert find_body(tmp_path / inside / f"SMPLX_MALE{suffix}") == tmp_path / inside / f"SMPLX_MALE{suffix}"
    with pytest.raises(AssetMissing, match="neutral"):
        find_body(tmp_path)


def test_a_missing_body_is_explained(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "SMPLX_MALE.npz"):
        with pytest.raises(AssetMissing) as caught:
            find_body(path, "male")
        message = str(caught.value)
        for part in ("SMPLX_MALE.npz", "smpl-x.is.tue.mpg.de", str(tmp_path), "open body"):
            assert part in message
    with pytest.raises(BadInput, match="'other'.*neutral, male, female"):
        find_body(None, "other")


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(standin_dir):
    """The stand-in's arrays by key, cut to 10 + 10 components, with correctives of type float16 to save time."""
    with np.load(standin_dir / "smplx" / "SMPLX_NEUTRAL.npz") as file:
        arrays = {key: file[key] for key in file.files}
    arrays["shapedirs"] = np.concatenate([arrays["shapedirs"][..., :10], arrays["shapedirs"][..., 300:310]], -1)
    arrays["posedirs"] = arrays["posedirs"].astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def expected(standin_arrays):
    return standin_arrays("neutral")


def assert_same(arrays, expected):
    for name in ("v_template", "faces", "shape_dirs", "expression_dirs", "pose_dirs", "joint_regressor", "weights",
                 "left_hand_mean", "landmark_faces", "contour_barycentric"):  # fmt: skip
        np.testing.assert_allclose(getattr(arrays, name), getattr(expected, name), rtol=1e-6, err_msg=name)


def test_full_and_older_files_give_the_same_body(stored, expected, tmp_path):
    np.savez(tmp_path / "SMPLX_FEMALE.npz", **stored)
    arrays = read_body_file(tmp_path / "SMPLX_FEMALE.npz")
    assert_same(arrays, expected)
    assert (arrays.name, arrays.gender, expected.gender) == ("smplx", "female", "neutral")


@pytest.fixture
def foreign_classes(monkeypatch):
    """Classes with the names that licensed pickles mention, to write such a pickle with."""
    chumpy, ch, reordering = (types.ModuleType(n) for n in ("chumpy", "chumpy.ch", "chumpy.reordering"))

    class Ch:
        pass

    class Select:
        pass

    for cls, module in ((Ch, ch), (Select, reordering)):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    for module in (chumpy, ch, reordering):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def chumpy_array(value):
        made = Ch()
        made.__dict__.update(x=value, _dirty_vars=set("x"), _itr=None)
        return made

    def selection(value):
        """The same array, stored as a permutation of a larger one."""
        made = Select()
        padded = np.concatenate([np.full(3, np.nan), value.ravel()])
        made.__dict__.update(a=chumpy_array(padded), idxs=np.arange(value.size) + 3, preferred_shape=value.shape)
        return made

    return chumpy_array, selection


@pytest.mark.parametrize("protocol", [2, 5])
def test_licensed_pickles_are_read_without_chumpy_and_scipy(stored, expected, tmp_path, foreign_classes, protocol):
    from scipy import sparse

    chumpy_array, selection = foreign_classes
    licensed = {
        **stored,
        "shapedirs": chumpy_array(stored["shapedirs"]),
        "v_template": selection(stored["v_template"]),
        "posedirs": chumpy_array(stored["posedirs"]),
        "J_regressor": (sparse.csc_matrix if protocol == 2 else sparse.csr_matrix)(stored["J_regressor"]),
        "bs_style": "lbs",
        "part2num": {"global": 0, "head": 15},
        "joint2num": np.array({"global": 0}, object),
        "vert_sym_idxs": np.arange(10)[::-1],
    }
    path = tmp_path / "SMPLX_MALE.pkl"
    path.write_bytes(pickle.dumps(licensed, protocol=protocol))
    # In a process of its own, where importing either package fails.
    story = (
        "import sys; sys.modules['chumpy'] = sys.modules['scipy'] = None\n"
        "import numpy as np\nfrom wholebody.body.assets import read_body_file\n"
        f"a = read_body_file({str(path)!r})\n"
        f"np.savez({str(tmp_path / 'read.npz')!r}, v=a.v_template, j=a.joint_regressor, s=a.shape_dirs)\n"
    )
    subprocess.run([sys.executable, "-c", story], check=True)
    with np.load(tmp_path / "read.npz") as read:
        np.testing.assert_allclose(read["v"], expected.v_template)
        np.testing.assert_allclose(read["j"], expected.joint_regressor)
    arrays = read_body_file(path)
    assert_same(arrays, expected)
    assert arrays.gender == "male" and isinstance(arrays.v_template, np.ndarray)


def test_python_2_pickles_are_read(tmp_path):
    """An array as Python 2 wrote it, opcode by opcode: its bytes are a latin-1 string, its names those of old numpy."""
    values = np.array([1.5, -2.25, 1e300])
    raw = values.tobytes()
    stream = (
        b"\x80\x02}q\x00U\x06valuesq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
        b"U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x03\x85q\x08cnumpy\ndtype\nq\tU\x02f8q\nK\x00K\x01\x87q\x0bRq\x0c"
        b"(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89T" + struct.pack("<i", len(raw)) + raw
        + b"q\x0ftq\x10bs."
    )  # fmt: skip
    (tmp_path / "old.pkl").write_bytes(stream)
    np.testing.assert_array_equal(read_pickle(tmp_path / "old.pkl")["values"], values)


def test_numbers_and_containers_come_through(tmp_path):
    content = {"a": [1, 2.5, None, True, "ü", b"\xff"], "b": (np.float32(3), np.int64(-4)), "c": {1, 2},
               "d": np.array([[1, 2]], ">i2"), "e": np.asfortranarray(np.eye(3)), "f": np.zeros((0, 3))}  # fmt: skip
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        read = read_pickle(tmp_path / "x.pkl")
        assert read["a"] == content["a"] and read["b"] == content["b"] and read["c"] == content["c"]
        for key in "def":
            np.testing.assert_array_equal(read[key], content[key])


# --- hostile pickles ----------------------------------------------------------------------------------------------


class Runs:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def global_call(module, name, argument="touched"):
    """A pickle that calls module.name(argument), for names that Python would resolve differently when writing."""
    out = io.BytesIO()
    out.write(b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode())
    out.write(b"\x93\x8c" + bytes([len(argument)]) + argument.encode() + b"\x85R.")
    return out.getvalue()


@pytest.mark.parametrize("where", ["bare", "in a body", "in an array", "in a chumpy array"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch, where, foreign_classes):
    monkeypatch.chdir(tmp_path)
    bomb = Runs(os.system, "touch touched")
    content = {
        "bare": bomb,
        "in a body": {"v_template": np.zeros((3, 3)), "f": bomb},
        "in an array": np.array([bomb], object),
        "in a chumpy array": foreign_classes[0](bomb),
    }[where]
    (tmp_path / "SMPLX_NEUTRAL.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(BadInput, match=r"(posix|nt)\.system.*refused.*nothing was run"):
        read_body_file(tmp_path / "SMPLX_NEUTRAL.pkl")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"), ("builtins", "exec"), ("builtins", "getattr"), ("builtins", "__import__"),
        ("__builtin__", "eval"), ("os", "system"), ("numpy", "load"), ("numpy", "memmap"), ("numpy", "fromfile"),
        ("numpy", "ndarray.tofile"), ("numpy.core.multiarray", "fromfile"), ("numpy.testing", "runstring"),
        ("numpy.core.multiarray", "_reconstruct.__class__"), ("scipy.sparse", "load_npz"), ("scipy.io", "loadmat"),
        ("chumpy.ch", "os.system"), ("chumpy", "utils"), ("functools", "partial"), ("copyreg", "_reconstructor.x"),
        ("wholebody.files.unpickle", "read_pickle"), ("torch", "load"), ("codecs", "encode"),
    ],
)  # fmt: skip
def test_every_other_name_is_refused(tmp_path, module, name):
    (tmp_path / "x.pkl").write_bytes(global_call(module, name))
    with pytest.raises(BadInput, match=r"refused and nothing was run"):
        read_pickle(tmp_path / "x.pkl")


OBJECT_TYPE = b"cnumpy\ndtype\nU\x01O\x85R"
NUMBER_TYPE = b"cnumpy\ndtype\nU\x02f8\x85R"
EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"


def test_allowed_names_cannot_be_bent(tmp_path):
    """Names on the list, called in ways that only an attack would call them."""
    attacks = [
        global_call("_codecs", "encode"),  # wrong number of arguments
        b"\x80\x04\x8c\x07_codecs\x8c\x06encode\x93\x8c\x01a\x8c\x05rot13\x86R.",
        b"\x80\x04\x8c\x08copyreg\x8c\x00.",
        pickle.dumps(Runs(__import__("copyreg")._reconstructor, dict, object, None), 2),
        OBJECT_TYPE.join([b"\x80\x02cnumpy.core.multiarray\nscalar\n", b"U\x08AAAAAAAA\x86R."]),
        OBJECT_TYPE.join([b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(U\x08AAAAAAAA", b"K\x01\x85U\x01CtR."]),
        # an array of objects, its content given as bytes: pointers to anywhere
        OBJECT_TYPE.join([b"\x80\x02" + EMPTY_ARRAY + b"(K\x01K\x01\x85", b"\x89U\x08AAAAAAAAtb."]),
        # numbers that claim in their state to be objects
        NUMBER_TYPE.join([b"\x80\x02" + EMPTY_ARRAY + b"(K\x01K\x01\x85", b"\x89]K\x01atb."]),
        # an array made by calling its class with a buffer
        OBJECT_TYPE.join([b"\x80\x02cnumpy\nndarray\nK\x01\x85", b"U\x08AAAAAAAA\x87R."]),
        b"\x80\x02cnumpy\ndtype\nU\x03f8,\x85R.",
        b"\x80\x02U\x01aQ.",  # a persistent id
    ]  # fmt: skip
    for number, stream in enumerate(attacks):
        (tmp_path / "x.pkl").write_bytes(stream)
        with pytest.raises(BadInput):
            read_pickle(tmp_path / "x.pkl")
            pytest.fail(f"attack {number} was let through")


def test_a_pickle_cannot_mark_the_classes_it_names(tmp_path):
    """Setting state may set attributes of what it is given; here that must not be a class or function of ours."""
    # The class chumpy.ch.Ch, or a function, then BUILD with {"x": 1}, or with (None, {"x": 1}).
    for state in (b"}U\x01xK\x01s", b"N}U\x01xK\x01s\x86"):
        for target in (b"cchumpy.ch\nCh\n", b"ccopy_reg\n_reconstructor\n", b"cnumpy.core.multiarray\n_reconstruct\n"):
            (tmp_path / "a.pkl").write_bytes(b"\x80\x02" + target + state + b"b.")
            try:
                read_pickle(tmp_path / "a.pkl")
            except BadInput:
                pass
            marked = [v for v in vars(unpickle).values() if hasattr(v, "x") and v is not np]
            assert not marked, (target, state)


# --- damaged and foreign files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_damaged_files_say_so(tmp_path, stored, suffix):
    path = tmp_path / f"SMPLX_NEUTRAL{suffix}"
    small = {key: value for key, value in stored.items() if key != "posedirs"}
    if suffix == ".npz":
        np.savez_compressed(path, **small)
    else:
        path.write_bytes(pickle.dumps(small))
    whole = path.read_bytes()
    damage = {
        "empty": b"",
        "one byte": whole[:1],
        "cut in half": whole[: len(whole) // 2],
        "without its end": whole[:-20],
        "another kind": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "text": b"<html>404 not found</html>",
        "zeros": bytes(1000),
    }
    for what, content in damage.items():
        path.write_bytes(content)
        with pytest.raises(BadInput, match="SMPLX_NEUTRAL"):
            read_body_file(path)
            pytest.fail(f"a file that is {what} was read")
    if suffix == ".npz":  # one byte of the compressed data wrong
        broken = bytearray(whole)
        broken[whole.index(b"v_template.npy") + 2000] ^= 0xFF
        path.write_bytes(broken)
        with pytest.raises(BadInput, match="damaged"):
            read_body_file(path)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("v_template", lambda v: v[:-1], "'shapedirs' is 10475×3×20.* has 10474×3"),
        ("v_template", lambda v: v.T, "'v_template' is 3×10475.* has N×3"),
        ("v_template", lambda v: v[:100], "100 vertices, too few"),
        ("v_template", lambda v: np.where(np.arange(len(v))[:, None] == 5, np.nan, v), "'v_template'.*not finite"),
        ("v_template", lambda v: v.astype(str), "'v_template' holds .* where numbers belong"),
        ("f", lambda v: v + 1_000_000, "'f' points at"),
        ("f", lambda v: v[:, :2], "'f' is 20908×2"),
        ("weights", lambda v: v[:, :24], "'weights' is 10475×24, but an SMPL-X body has 10475×55"),
        ("weights", lambda v: v * 2, "'weights'.*sum to one"),
        ("shapedirs", lambda v: v[..., :16], "16 components"),
        ("J_regressor", lambda v: v[:24], "'J_regressor' is 24×10475"),
        ("kintree_table", lambda v: v[:, :24], "SMPL body .24 joints."),
        ("kintree_table", lambda v: v[:, ::-1], "'kintree_table'"),
        ("hands_meanl", lambda v: v[:6], "'hands_meanl' is 6"),
        ("lmk_faces_idx", lambda v: v * 0 + 10**7, "'lmk_faces_idx' points at"),
        ("dynamic_lmk_faces_idx", lambda v: v[:10], "'dynamic_lmk_faces_idx' is 10×17"),
        ("posedirs", lambda v: v[:, :, :207], "'posedirs' is 10475×3×207"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "pkl"])
def test_wrong_arrays_are_named(tmp_path, stored, key, change, message, kind):
    wrong = {**stored, key: change(stored[key])}
    if key != "posedirs":
        del wrong["posedirs"]  # read last, so not missed here
    path = tmp_path / f"SMPLX_NEUTRAL.{kind}"
    np.savez(path, **wrong) if kind == "npz" else path.write_bytes(pickle.dumps(wrong))
    with pytest.raises(BadInput, match=message):
        read_body_file(path)


@pytest.mark.parametrize("key", ["v_template", "weights", "kintree_table", "hands_meanr", "dynamic_lmk_bary_coords"])
def test_missing_arrays_are_named(tmp_path, stored, key):
    np.savez(tmp_path / "body.npz", **{k: v for k, v in stored.items() if k not in (key, "posedirs")})
    with pytest.raises(BadInput, match=f"has no '{key}'"):
        read_body_file(tmp_path / "body.npz")


def test_objects_in_an_npz_are_not_unpickled(tmp_path, stored, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = np.array([Runs(os.system, "touch touched")], object)
    np.savez(tmp_path / "body.npz", **{**stored, "weights": bomb})
    with pytest.raises(BadInput, match="weights"):
        read_body_file(tmp_path / "body.npz")
    assert not (tmp_path / "touched").exists()


def test_other_files_are_not_bodies(tmp_path, standin_dir):
    for path, message in (
        (standin_dir / "smpl" / "SMPL_NEUTRAL.pkl", "SMPL body"),
        (standin_dir / "smplx" / "MANO_SMPLX_vertex_ids.pkl", "has no 'kintree_table'"),
        (standin_dir / "smplx" / "SMPLX_to_J14.pkl", "not the dictionary of a body file"),
        (standin_dir / "smplx" / "SMPL-X__FLAME_vertex_ids.npy", "not a readable body file"),
    ):
        with pytest.raises(BadInput, match=message):
            read_body_file(path)
    with pytest.raises(AssetMissing):
        read_body_file(tmp_path / "none.npz")


# --- the open body ------------------------------------------------------------------------------------------------


def test_open_body_is_whole():
    arrays = read_body_file("open")
    assert (arrays.name, arrays.gender) == ("open", "neutral")
    assert isinstance(arrays.pose_dirs, assets.SparsePoseDirs)
    np.testing.assert_allclose(arrays.joint_regressor.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(arrays.weights.sum(1), 1, atol=1e-6)
    assert "region" in arrays.extras and len(arrays.extras["region"]) == arrays.num_vertices


def test_a_damaged_open_body_says_so(tmp_path):
    with np.load(assets.EMBEDDED) as file:
        compact = {key: file[key] for key in file.files}
    for key, value in (
        ("corrective_vertices", compact["corrective_vertices"][:-5]),
        ("corrective_vertices", np.full_like(compact["corrective_vertices"], 65535)),
        ("skin_joints", np.full_like(compact["skin_joints"], 200)),
        ("faces", np.full_like(compact["faces"], 65535)),
        ("hand_mean", compact["hand_mean"][:5]),
    ):
        np.savez(tmp_path / "open.npz", **{**compact, key: value})
        with pytest.raises(BadInput, match="open.npz"):
            read_body_file(tmp_path / "open.npz")
            pytest.fail(f"{key} was let through")
    del compact["regressor_weights"]
    np.savez(tmp_path / "open.npz", **compact)
    with pytest.raises(BadInput, match="regressor_weights"):
        read_body_file(tmp_path / "open.npz")


def test_exported_open_body_is_the_same_body(tmp_path):
    from wholebody.body import open_body

    path = open_body.export(tmp_path)
    again, embedded = BodyModel.load(tmp_path), BodyModel.load()
    assert path == tmp_path / "smplx" / "SMPLX_NEUTRAL.npz" and again.name == "open"
    assert isinstance(read_body_file(path).pose_dirs, assets.SparsePoseDirs)
    g = torch.Generator().manual_seed(0)
    rotations = axis_angle_to_matrix(torch.randn(2, 55, 3, generator=g) * 0.4)
    given = rotations, torch.randn(2, 10, generator=g), torch.randn(2, 10, generator=g)
    ours, theirs = embedded.from_matrices(*given), again.from_matrices(*given)
    np.testing.assert_allclose(theirs.vertices, ours.vertices, atol=2e-6)
    np.testing.assert_allclose(theirs.joints, ours.joints, atol=2e-6)
    np.testing.assert_array_equal(again.faces, embedded.faces)
