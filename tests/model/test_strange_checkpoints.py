"""Checkpoints as other trainers, browsers and strangers leave them: read where that is safe, else explained."""

import json
import pickle
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wholebody.errors import BadInput
from wholebody.model import checkpoint
from wholebody.model.config import published_config
from wholebody.model.families import build_network
from wholebody.model.load import find_weights
from wholebody.model.published_names import to_published


@pytest.fixture(scope="module")
def network():
    """The published form of a network of size b, its tensors views of one number: no file is large."""
    config = published_config("b", "wo_decoder")
    with torch.device("meta"):
        state = build_network(config).state_dict()
    small = {name: torch.full((1,), 0.5).expand(value.shape) for name, value in state.items() if value.ndim}
    return to_published(small, config.variant)


def wrapped(network, prefix="", dtype=None):
    return {prefix + name: value if dtype is None else value.to(dtype) for name, value in network.items()}


@pytest.mark.parametrize(
    "arrange", [
        lambda n: {"network": wrapped(n, "module."), "epoch": 3}, lambda n: {"state_dict": wrapped(n)},
        lambda n: {"model": wrapped(n, "_orig_mod."), "args": {"lr": 1e-4}}, lambda n: wrapped(n),
        lambda n: wrapped(n, "module._orig_mod."), lambda n: {"state_dict": wrapped(n, "_orig_mod.module.")},
        lambda n: {"state_dict": wrapped(n, "model.")}, lambda n: {"model_state_dict": wrapped(n, "module.")},
        lambda n: {"network": wrapped(n), "optimizer": {"lr": np.float64(1e-4), "steps": np.int64(3)}},
        lambda n: {"network": wrapped(n), "optimizer": [{"flag": np.bool_(1), "at": [np.uint8(3)]}]},
        lambda n: {"network": wrapped(n), "optimizer": {"lr": np.float32(2), "text": np.str_("x")}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_other_arrangements_are_found(network, tmp_path, arrange, zipped):
    torch.save(arrange(network), tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    assert checkpoint.describe(tmp_path / "x.pth.tar").config == published_config("b", "wo_decoder")


def test_numpy_of_the_optimiser_is_not_let_into_torch(network, tmp_path):
    torch.save({"network": wrapped(network), "optimizer": np.float64(1)}, tmp_path / "x.pth")
    checkpoint.describe(tmp_path / "x.pth")
    with pytest.raises(pickle.UnpicklingError):  # elsewhere torch is as strict as before
        torch.load(tmp_path / "x.pth", weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_and_is_computed_in_single(network, tmp_path, dtype):
    torch.save({"network": wrapped(network, dtype=dtype)}, tmp_path / "x.pth")
    model, _ = checkpoint.load(tmp_path / "x.pth")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "content, what", [
        (b"<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "web page"),
        (b"\n\n<html><body>Sign in</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (b'{"error": {"code": 404}}', "error message"), (b"%PDF-1.7 ...........", "PDF"), (b"", "empty"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0", "packed"), (b"\x80\x02]r\xff\xff\xff\x3f.", "damaged"),
        (b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s.", "damaged"), (b"no pickle at all", "damaged"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth.tar", ".safetensors"])
def test_what_was_saved_instead_is_said(tmp_path, content, what, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    for read in (checkpoint.load, checkpoint.describe):
        with pytest.raises(BadInput, match=f"x{suffix}.*{what}"):
            read(path)


@pytest.mark.parametrize(
    "content", [
        {}, [], 3, {"network": {}}, {"network": {1: torch.zeros(1)}}, {"network": {"a": 3}}, {"network": [1]},
        {"network": {"encoder.task_tokens": torch.zeros(1)}}, {"network": {"encoder.task_tokens": torch.tensor(1.0)}},
        {"network": {"encoder.task_tokens": torch.zeros(1, 1, 768)}}, {3: 4}, None, {"state_dict": None},
    ],
)  # fmt: skip
def test_checkpoints_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(BadInput, match="x.pth"):
        checkpoint.load(tmp_path / "x.pth")


def test_pickles_inside_are_walked_first(tmp_path):
    """Torch's own unpickler hashes a key of half a million tuples, and that takes the interpreter down."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"K\x01s.")
        archive.writestr("archive/version", b"3\n")
    with pytest.raises(BadInput, match="x.pth is damaged.*nests more than"):
        checkpoint.load(tmp_path / "x.pth")


# Our own form


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    from wholebody.model.load import WEIGHTS

    path = WEIGHTS / "osx_t.safetensors"
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size))["__metadata__"]


def written(tmp_path, metadata):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata)
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("value", [
    10**9, 10**400, -(10**400), float("inf"), float("nan"), True, "6", None, [6], {"a": 6}, 6.5, [[[]]], 100_000,
])  # fmt: skip
@pytest.mark.parametrize("key", ["encoder.depth", "lifting.blocks", "hidden", "box_channels", "name", "family", "grid"])
def test_settings_of_wrong_types_or_sizes(tmp_path, ours, key, value):
    config = json.loads(ours["config"])
    place = config
    *parents, last = key.split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    for read in (checkpoint.describe, checkpoint.load):
        if read is checkpoint.describe and (key, value) in (("name", "6"), ("box_channels", [6])):
            continue  # a name is any text
        with pytest.raises(BadInput, match="x.safetensors"):
            read(written(tmp_path, ours | {"config": json.dumps(config)}))


@pytest.mark.parametrize("key", ["config", "conventions", "extra", "version", "format"])
@pytest.mark.parametrize("text", [
    "[]", "3", "null", "[" * 100_000, "{", "", '{"a": 1, "a": 2}', '{"body": 3}', "9" * 5000, "\x00", "{}",
])  # fmt: skip
def test_metadata_that_is_none(tmp_path, ours, key, text):
    if key == "extra" and text in ("{}", '{"body": 3}'):
        return  # whatever its maker wrote
    with pytest.raises(BadInput, match="x.safetensors"):
        checkpoint.describe(written(tmp_path, ours | {key: text}))


@pytest.mark.parametrize(
    "change", [{"betas": "10"}, {"gender": 3}, {"flat_hand_mean": 1}, {"body": None}, {"betas": []}]
)
def test_conventions_of_wrong_types(tmp_path, ours, change):
    conventions = json.loads(ours["conventions"]) | change
    with pytest.raises(BadInput, match="x.safetensors.*its conventions say"):
        checkpoint.describe(written(tmp_path, ours | {"conventions": json.dumps(conventions)}))


@pytest.mark.parametrize("header", [
    b"{}" * 3, b"[" * 10_000, b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
    b'{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}', b'{"__metadata__":{"format":3}}', b'{"__metadata__":[]}',
])  # fmt: skip
def test_headers_that_lie(tmp_path, header):
    path = tmp_path / "x.safetensors"
    for size in (len(header), len(header) + 1, 2**40, 0):
        path.write_bytes(struct.pack("<Q", size) + header + b"\0" * 4)
        with pytest.raises(BadInput, match="x.safetensors"):
            checkpoint.describe(path)


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
    metadata = {f"key {k}": "ü" * k for k in range(20)}
    tensors = {"b": torch.zeros(3), "a": torch.ones(2, dtype=torch.bfloat16)}
    files = [checkpoint.write_safetensors(tmp_path / f"{k}.safetensors", tensors, metadata) for k in range(6)]
    assert len({path.read_bytes() for path in files}) == 1
    with checkpoint.safe_open(str(files[0]), framework="pt") as file:
        assert file.metadata() == metadata and torch.equal(file.get_tensor("a"), tensors["a"])
    saved = [checkpoint.write_torch(tmp_path / f"{k}.pth", {"b": tensors, "c": 3}) for k in range(3)]
    assert len({path.read_bytes() for path in saved}) == 1


def test_near_misses_are_offered(tmp_path):
    (tmp_path / "osx_l.pth.tar").write_bytes(b"x")
    with pytest.raises(BadInput, match="did you mean .*osx_l.pth.tar"):
        find_weights(tmp_path / "osx_1.pth.tar")
