"""Checkpoints of both forms: strict, whole, cheap to open, and clear about what is wrong with a file."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

from wholebody.errors import AssetMissing, BadInput, OutputError
from wholebody.model import checkpoint
from wholebody.model.checkpoint import Conventions
from wholebody.model.config import config_to_dict, published_config
from wholebody.model.embedded.build import SIGHTED, build_embedded
from wholebody.model.embedded.movenet import load_movenet
from wholebody.model.families import config_from_dict
from wholebody.model.load import find_weights, load_model
from wholebody.model.osx import build_osx
from wholebody.model.published_names import OLDER, to_ours, to_published

OPEN = Conventions(body="open", flat_hand_mean=True)


@pytest.fixture
def model(small_config):
    torch.manual_seed(0)
    return build_osx(small_config).eval()


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "small.safetensors"
    checkpoint.save(model, path, OPEN, extra={"hours": 2.5})
    return path


def rewrite(path, tensors=None, **metadata):
    """The same safetensors file with some of its tensors or metadata changed."""
    with checkpoint.safe_open(str(path), framework="pt") as file:
        old = file.metadata()
    save_file(load_file(path) if tensors is None else tensors, path, {**old, **metadata})


# Configs


@pytest.mark.parametrize("variant", ["normal", "wo_face_decoder", "wo_decoder"])
def test_config_survives_json(variant):
    config = published_config("l", variant)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(colour=3), "config has settings that this version does not know: colour"),
        (lambda c: c["encoder"].update(gates=1), "config.encoder has settings .* gates"),
        (lambda c: c["hands"]["decoder"].pop("layers"), "config.hands.decoder lacks the settings layers"),
        (lambda c: c.update(family="resnet"), "config.family is 'resnet'; this version knows osx, smpler_x"),
        (lambda c: c.pop("family"), "config.family is None"),
        (lambda c: c.update(hidden="many"), "config.hidden is 'many', which is no int"),
        (lambda c: c.update(face=7), "config.face is 7"),
    ],
)
def test_a_config_that_is_not_understood_is_an_error(change, words):
    data = config_to_dict(published_config("b"))
    change(data)
    with pytest.raises(BadInput, match=words):
        config_from_dict(data)


def as_version_0_1_wrote_it(config: dict) -> dict:
    """A published network's config in the form that checkpoints had before each family had a config of its own."""
    camera = config["camera"]
    parts = {
        name: config[name] and {
            **config[name], "context": False, "aligned": False,
            "pyramid": {"kind": "deconvolution", **config[name]["pyramid"]},
        }
        for name in ("hands", "face")
    }  # fmt: skip
    kept = ("name", "hidden", "box_channels", "input_hw", "grid")
    return {
        **{key: config[key] for key in kept}, **parts, "encoder": {"kind": "vit", **config["encoder"]},
        "position_unit": 1.0, "lifting": None, "camera_hw": camera["hw"], "focal": camera["focal"],
        "camera_size": camera["size"],
    }  # fmt: skip


@pytest.mark.parametrize("variant", ["normal", "wo_face_decoder", "wo_decoder"])
def test_configs_of_older_checkpoints_are_understood(variant):
    config = published_config("l", variant)
    old = as_version_0_1_wrote_it(json.loads(json.dumps(config_to_dict(config))))
    assert config_from_dict(old) == config
    with pytest.raises(BadInput, match="config.hands has settings that this version does not know: aligned"):
        config_from_dict({**old, "hands": {**old["hands"], "aligned": True}})


def test_the_embedded_weights_say_what_they_said_before():
    config = checkpoint.describe(find_weights("t")).config
    assert (config, config.crop_filter, config.box_enlarge) == (SIGHTED, "area", 1.25)


# Our own form


def test_own_checkpoint_restores_the_network(model, saved, images):
    restored, info = checkpoint.load(saved)
    with torch.no_grad():
        expected, ours = model(images), restored(images)
    torch.testing.assert_close(ours.rotations, expected.rotations, rtol=0, atol=0)
    assert restored.config == model.config and not restored.training
    assert info.conventions == OPEN and info.extra == {"hours": 2.5} and info.licence == "Apache-2.0"
    assert checkpoint.describe(saved) == info
    assert info.parameters == sum(t.numel() for t in model.state_dict().values())
    assert "flat_hand_mean=True" in str(info) and "hours: 2.5" in str(info)


def test_weights_in_half_precision_are_widened(model, tmp_path):
    path = tmp_path / "half.safetensors"
    halves = {k: t.half() if t.is_floating_point() else t for k, t in model.state_dict().items()}
    checkpoint.save(model, path, OPEN, tensors=halves)
    restored, _ = checkpoint.load(path)
    assert {p.dtype for p in restored.parameters()} == {torch.float32}
    torch.testing.assert_close(restored.body_head.root.weight, model.body_head.root.weight, rtol=1e-3, atol=1e-6)


def test_the_frozen_trunk_of_the_detector_is_not_stored_again(tmp_path):
    model = build_embedded().eval()
    path = tmp_path / "t.safetensors"
    checkpoint.save(model, path, OPEN)  # random numbers in the trunk: all are stored
    assert set(load_file(path)) == set(model.state_dict())
    load_movenet(model.encoder.trunk)
    halves = {k: t.half() if t.is_floating_point() else t for k, t in model.state_dict().items()}
    for tensors in (None, halves):
        checkpoint.save(model, path, OPEN, tensors=tensors)
        stored = {name for name in load_file(path) if name.startswith("encoder.trunk.")}
        assert stored == {name for name in model.state_dict() if name.startswith("encoder.trunk.tuned.")}
        restored, info = checkpoint.load(path)
        frozen = {name: t for name, t in model.state_dict().items() if name.startswith("encoder.trunk.")}
        for name, tensor in frozen.items():
            if name not in stored:  # to the last bit, even where the rest was kept in half precision
                torch.testing.assert_close(restored.state_dict()[name], tensor, rtol=0, atol=0)
        assert info.parameters == sum(t.numel() for t in model.state_dict().values())
        assert checkpoint.describe(path) == info


def test_a_checkpoint_that_goes_with_another_movenet_is_refused(tmp_path):
    model = build_embedded()
    load_movenet(model.encoder.trunk)
    path = tmp_path / "t.safetensors"
    checkpoint.save(model, path, OPEN)
    rewrite(path, frozen_trunk="0" * 64)
    with pytest.raises(BadInput, match="goes with the MoveNet file of SHA-256 0000"):
        checkpoint.load(path)


def test_the_body_is_not_in_a_checkpoint(model, tmp_path, smplx_body):
    model.body = smplx_body
    checkpoint.save(model, tmp_path / "a.safetensors", OPEN)
    assert not [name for name in load_file(tmp_path / "a.safetensors") if name.startswith("body.")]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda t: t.pop("body_head.root.weight"), r"1 tensors are missing \(body_head.root.weight\)"),
        (lambda t: t.update(extra=torch.zeros(3)), r"1 tensors are unknown \(extra\)"),
        (lambda t: t.update({"body_head.root.bias": torch.zeros(7)}), r"another shape \(body_head.root.bias\)"),
    ],
)
def test_own_checkpoints_load_strictly(saved, spoil, words):
    tensors = load_file(saved)
    spoil(tensors)
    rewrite(saved, tensors)
    with pytest.raises(BadInput, match=words):
        checkpoint.load(saved)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"format": "pt"}, "does not say it is a wholebody network"),
        ({"version": "9"}, "has version 9, this program reads 1"),
        ({"config": "{"}, "unreadable metadata"),
        ({"config": '{"family": "osx", "name": "x"}'}, "lacks the settings"),
        ({"conventions": '{"body": "open"}'}, "states other conventions"),
    ],
)
def test_metadata_that_is_not_understood_is_an_error(saved, metadata, words):
    rewrite(saved, **metadata)
    with pytest.raises(BadInput, match=words):
        checkpoint.load(saved)


def test_a_failed_write_leaves_nothing_behind(model, tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, content):
            if self.tell():  # after the header
                raise OSError(28, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(checkpoint, "open", Full, raising=False)
    with pytest.raises(OutputError, match="No space left on device"):
        checkpoint.save(model, tmp_path / "a.safetensors", OPEN)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_older_checkpoint(model, saved, tmp_path):
    # For real: a file-size limit makes the kernel refuse the write.
    before = saved.read_bytes()
    handler, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(OutputError, match="cannot write"):
            checkpoint.save(model, saved, OPEN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before and list(tmp_path.iterdir()) == [saved]


# The published form


def test_published_layouts_convert_there_and_back(model):
    state = {name: t for name, t in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    published = to_published(state, "normal")
    assert published["hand_decoder.keypoint_head.transformer.level_embeds"].shape == (4, 32)
    back = to_ours(published, model.state_dict(), "normal")
    assert not back.unused
    for name, tensor in state.items():
        torch.testing.assert_close(back.tensors[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.slow  # test_family.py: of a smaller one
def test_published_checkpoint_converts_there_and_back(published_file, tmp_path):
    source = published_file("b_wo_decoder")
    ours, again = tmp_path / "b.safetensors", tmp_path / "b.pth.tar"
    info = checkpoint.convert(source, ours)
    assert (info.form, info.config, info.conventions) == (
        "wholebody",
        published_config("b", "wo_decoder"),
        Conventions(),
    )
    assert checkpoint.convert(ours, again).form == "published"
    first = torch.load(source, mmap=True)["network"]
    second = torch.load(again, mmap=True)["network"]
    assert first.keys() == second.keys()
    for name in ("module.encoder.blocks.3.attn.qkv.weight", "module.hand_roi_net.deconv.4.running_var"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    with pytest.raises(BadInput, match="name the target"):
        checkpoint.convert(ours, tmp_path / "b.onnx")


def test_what_a_published_checkpoint_is(published_file, published_keys):
    info = checkpoint.describe(published_file("b_normal"))
    assert (info.form, info.config.name, info.config.variant, info.epoch) == ("published", "b", "normal", 13)
    assert set(published_keys["b_normal"]["no_gradient"]) <= set(info.unused)
    assert info.unused["hand_decoder.backbone.conv1.weight"] == 64 * 3 * 49
    assert re.search(r"dropped: (hand|face)_decoder.backbone 23.\d M", str(info))


def test_older_names_are_understood(published_file, tmp_path):
    contents = torch.load(published_file("b_wo_decoder"), mmap=True)
    older = {new: pattern.lstrip("^").replace("\\", "") for pattern, new in OLDER}

    def rename(name):
        name = name.removeprefix("module.")
        for new, old in older.items():
            if name.startswith(new):
                return "module." + old + name.removeprefix(new)
        return "module." + name

    renamed = {rename(name): tensor for name, tensor in contents["network"].items()}
    assert "module.backbone.blocks.0.norm1.weight" in renamed and "module.body_rotation_net.cam_out.0.bias" in renamed
    path = tmp_path / "older.pth.tar"
    torch.save({"network": {name: t[:1].clone().expand_as(t) if t.ndim else t for name, t in renamed.items()}}, path)
    model, info = checkpoint.load(path)
    assert info.config == published_config("b", "wo_decoder") and info.epoch is None
    weight = contents["network"]["module.encoder.blocks.0.norm1.weight"]
    torch.testing.assert_close(model.encoder.blocks[0].norm1.weight[:1].detach(), weight[:1])


class Code:
    def __reduce__(self):
        return os.system, ("touch owned",)


def damaged_files(folder, good):
    """(what, file, words of the error)"""
    network = {"module.encoder.task_tokens": torch.zeros(1, 31, 768)}
    yield "empty", b"", "is empty"
    yield "text", b"<html>404 not found</html>" * 9, "damaged or no checkpoint"
    yield "truncated", good.read_bytes()[: good.stat().st_size // 2], "is cut short: it ends after"
    yield "safetensors-truncated", (999).to_bytes(8, "little") + b'{"a": 1', "damaged or no checkpoint"
    yield "code", {"epoch": 1, "network": network, "optimizer": Code()}, "holds code or objects"
    yield "plain-pickle", pickle.dumps({"network": Code()}), "holds code or objects|damaged or no checkpoint"
    yield "list", [torch.zeros(3)], "no published OSX checkpoint: it holds list"
    yield "other-keys", {"state_dict": {"conv.weight": torch.zeros(3)}}, r"the keys \['state_dict'\]"
    yield "other-network", {"network": {"module.layer1.weight": torch.zeros(3)}}, "encoder.task_tokens' is missing"
    yield "other-width", {"network": {"encoder.task_tokens": torch.zeros(1, 31, 384)}}, "width 384"


@pytest.fixture(scope="module")
def small_published(tmp_path_factory, small_config):
    path = tmp_path_factory.mktemp("good") / "good.pth.tar"
    torch.save({"network": to_published(build_osx(small_config).state_dict(), "normal")}, path)
    return path


@pytest.mark.parametrize("case", range(10))
def test_damaged_and_foreign_files_are_explained(small_published, tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, content, words = list(damaged_files(tmp_path, small_published))[case]
    path = tmp_path / "weights.pth.tar"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    for use in (checkpoint.load, checkpoint.describe):
        with pytest.raises(BadInput, match=words):
            use(path)
    assert not (tmp_path / "owned").exists()


def test_missing_published_tensors_are_named(published_file, tmp_path):
    contents = torch.load(published_file("b_wo_decoder"), mmap=True)
    network = {n: t[:1].clone().expand_as(t) if t.ndim else t for n, t in contents["network"].items()}
    del network["module.encoder.last_norm.weight"]
    network["module.box_net.bbox_center.0.bias"] = torch.zeros(4)
    torch.save({"network": network}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"encoder.last_norm.weight\).*bbox_center.0.bias \(4,\)"):
        checkpoint.load(tmp_path / "w.pth")


def test_loading_costs_what_is_used(published_file, published_tensors, tmp_path):
    # An optimiser of more than half the network's size beside it: memory must not follow.
    path = tmp_path / "trained.pth.tar"
    contents = torch.load(published_file("b_wo_decoder"), mmap=True)
    contents["optimizer"] = {"state": {0: {"exp_avg": torch.ones(60_000_000)}}, "param_groups": []}
    torch.save(contents, path)
    del contents
    script = f"""
        from wholebody.model import checkpoint

        def peak():
            return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

        before = peak()
        model, info = checkpoint.load({str(path)!r})
        total = sum(float(p.detach().sum()) for p in model.parameters())  # touches every weight
        print(peak() - before)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    kilobytes = int(run.stdout)
    path.unlink()
    weights = 103e6 * 4 / 1024
    assert weights * 0.9 < kilobytes < weights * 1.3


# Names and bodies


def test_weights_and_body_must_belong_together(saved, smplx_body):
    with pytest.raises(BadInput, match="'open', and the body given is 'smplx'"):
        load_model(saved, body=smplx_body)


def test_hand_conventions_must_agree(model, tmp_path, smplx_body):
    checkpoint.save(model, tmp_path / "a.safetensors", dataclasses.replace(OPEN, body="smplx"))
    with pytest.raises(BadInput, match="flat_hand_mean=True"):
        load_model(tmp_path / "a.safetensors", body=smplx_body)


def test_published_weights_say_that_they_need_smplx(published_file, tmp_path):
    with pytest.raises(AssetMissing, match="SMPLX_NEUTRAL.npz"):
        load_model(published_file("b_wo_decoder"))
    with pytest.raises(AssetMissing, match="SMPLX_NEUTRAL.npz"):
        load_model(published_file("b_wo_decoder"), body=tmp_path)


def test_loaded_model_predicts_a_mesh_and_behaves_as_a_module(model, tmp_path, standin_dir, images):
    path = tmp_path / "a.safetensors"
    checkpoint.save(model, path, Conventions())
    loaded = load_model(path, body=standin_dir)
    assert loaded.checkpoint.conventions == Conventions() and not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        single = loaded(images)
        double = loaded.double()(images.double())
    torch.testing.assert_close(single.vertices_cam.double(), double.vertices_cam, rtol=0, atol=1e-3)
    assert double.vertices_cam.shape == (2, 10475, 3)


@pytest.mark.parametrize("name", ["x", "nowhere.safetensors", "/nowhere/b.pth.tar"])
def test_unknown_models_are_explained(name):
    with pytest.raises(BadInput, match=r"neither an embedded name \(t, osx_t\) nor a checkpoint file"):
        load_model(name)


def test_a_file_may_be_moved_away_after_loading(saved, images):
    model, _ = checkpoint.load(saved)
    shutil.move(saved, saved.with_suffix(".gone"))
    with torch.no_grad():
        assert torch.isfinite(model(images).betas).all()
