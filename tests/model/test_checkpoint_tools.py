"""A hand network's weights in a whole one, and epochs set back."""

import os

import pytest
import torch

from wholebody.errors import BadInput
from wholebody.model import checkpoint
from wholebody.model.checkpoint import Conventions
from wholebody.model.checkpoint_tools import merge_hand, reset_epoch
from wholebody.model.osx import build_osx


def values(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def published(path, network, epoch=6, **more):
    torch.save({"epoch": epoch, "network": network, "optimizer": {"state": {0: torch.ones(3)}}, **more}, path)
    return path


@pytest.fixture
def older(tmp_path):
    """(whole, hand): networks before OSX, as the published tool merges them."""
    names = ["body_backbone.conv1.weight", "hand_roi_net.backbone.conv1.weight", "hand_roi_net.backbone.bn1.bias",
             "hand_position_net.conv.0.weight", "hand_rotation_net.hand_conv.0.bias"]  # fmt: skip
    shapes = [(4, 3), (4, 3), (4,), (2, 2), (5,)]
    whole = {f"module.{name}": value for name, value in zip(names, values(*shapes), strict=True)}
    hand = {"module.hand_backbone.conv1.weight": None, "module.hand_backbone.bn1.bias": None,
            "module.hand_position_net.conv.0.weight": None}  # fmt: skip
    hand = dict(zip(hand, values((4, 3), (4,), (2, 2), seed=1), strict=True))
    return (
        published(tmp_path / "snapshot_6_all.pth.tar", whole),
        published(tmp_path / "snapshot_12_hand.pth.tar", hand, epoch=12),
        whole,
        hand,
    )


def test_a_network_of_hands_alone(older, tmp_path):
    whole_file, hand_file, whole, hand = older
    report = merge_hand(whole_file, hand_file, tmp_path / "snapshot_0.pth.tar")
    merged = torch.load(tmp_path / "snapshot_0.pth.tar", weights_only=True)
    expected = {
        "module.body_backbone.conv1.weight": whole["module.body_backbone.conv1.weight"],
        "module.hand_roi_net.backbone.conv1.weight": hand["module.hand_backbone.conv1.weight"],
        "module.hand_roi_net.backbone.bn1.bias": hand["module.hand_backbone.bn1.bias"],
    }
    assert merged["epoch"] == 0 and merged["optimizer"] == {} and merged["network"].keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(merged["network"][name], value)
    assert len(report.merged) == 2 and "hand_position_net, hand_rotation_net" in str(report)
    assert torch.load(whole_file, weights_only=True)["epoch"] == 6  # the sources stay


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.pop("module.hand_backbone.bn1.bias"), "1 are missing .*bn1.bias"),
        (lambda h: h.update({"module.hand_backbone.fc.bias": torch.ones(1)}), "1 have no place .*fc.bias"),
        (
            lambda h: h.update({"module.hand_backbone.bn1.bias": torch.ones(9)}),
            r"another shape .*\(4,\) against \(9,\)",
        ),
        (lambda h: h.clear(), "holds no weights of hands"),
    ],
)
def test_weights_that_do_not_fit(older, tmp_path, change, words):
    whole_file, _, _, hand = older
    change(hand)
    target = tmp_path / "snapshot_0.pth.tar"
    with pytest.raises(BadInput, match=words):
        merge_hand(whole_file, published(tmp_path / "other.pth.tar", hand), target)
    assert not target.exists()


def test_a_whole_network_without_such_a_part(older, tmp_path):
    _, hand_file, whole, _ = older
    plain = published(tmp_path / "plain.pth.tar", {"module.encoder.weight": torch.ones(2)})
    with pytest.raises(BadInput, match="plain.pth.tar has no part that the 2 hand tensors"):
        merge_hand(plain, hand_file, tmp_path / "snapshot_0.pth.tar")


def test_hands_of_a_network_of_the_same_kind(tmp_path):
    names = ["encoder.w", "hand_decoder.w", "hand_regressor.w", "hand_roi_net.w", "hand_position_net.w"]
    one, other = (
        dict(zip((f"module.{name}" for name in names), values(*[(2, 3)] * 5, seed=seed), strict=True))
        for seed in (0, 1)
    )
    old_spelling = {name.replace("hand_regressor", "hand_rotation_net"): value for name, value in other.items()}
    merge_hand(published(tmp_path / "a.pth", one), published(tmp_path / "b.pth", old_spelling), tmp_path / "c.pth")
    network = torch.load(tmp_path / "c.pth", weights_only=True)["network"]
    assert network.keys() == one.keys()
    for name, value in network.items():
        assert torch.equal(value, (one if name == "module.encoder.w" else other)[name])


@pytest.fixture
def ours(small_config, tmp_path):
    """Two small networks of our own, as files."""
    models = []
    for number in range(2):
        torch.manual_seed(number)
        models.append(build_osx(small_config))
        extra = {"epoch": 3, "step": 100, "samples": 800, "note": "kept"}
        checkpoint.save(models[-1], tmp_path / f"{number}.safetensors", Conventions(), extra=extra)
    return models


def test_our_own_form(ours, tmp_path):
    report = merge_hand(tmp_path / "0.safetensors", tmp_path / "1.safetensors", tmp_path / "new.safetensors")
    model, info = checkpoint.load(tmp_path / "new.safetensors")
    assert info.extra == {"epoch": 0, "step": 0, "samples": 0, "note": "kept"}
    first, second = (part.state_dict() for part in ours)
    merged = model.state_dict()
    assert set(report.merged) == {name for name in first if name.startswith("hands.")} != set()
    for name, value in merged.items():
        assert torch.equal(value, (second if name.startswith("hands.") else first)[name])


def test_networks_that_mean_different_things(ours, tmp_path):
    checkpoint.save(ours[1], tmp_path / "open.safetensors", Conventions(body="open"))
    with pytest.raises(BadInput, match="mean different things"):
        merge_hand(tmp_path / "0.safetensors", tmp_path / "open.safetensors", tmp_path / "new.safetensors")


def test_epochs_are_set_back(older, ours, tmp_path):
    whole_file, _, whole, _ = older
    reset_epoch(whole_file, tmp_path / "snapshot_0.pth.tar")
    result = torch.load(tmp_path / "snapshot_0.pth.tar", weights_only=True)
    assert result["epoch"] == 0 and torch.equal(result["optimizer"]["state"][0], torch.ones(3))
    assert all(torch.equal(result["network"][name], value) for name, value in whole.items())
    reset_epoch(tmp_path / "0.safetensors", tmp_path / "0.safetensors")  # in its own place
    model, info = checkpoint.load(tmp_path / "0.safetensors")
    assert info.extra == {"epoch": 0, "step": 0, "samples": 0, "note": "kept"}
    assert all(torch.equal(value, ours[0].state_dict()[name]) for name, value in model.state_dict().items())
    checkpoint.save(ours[0], tmp_path / "bare.safetensors", Conventions())
    with pytest.raises(BadInput, match="nothing to set back"):
        reset_epoch(tmp_path / "bare.safetensors", tmp_path / "x.safetensors")


class Code:
    def __reduce__(self):
        return (os.system, ("touch hostile-was-here",))


def test_files_that_cannot_be_used(older, ours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole_file, hand_file, *_ = older
    torch.save({"epoch": 3, "network": {"a": Code()}}, tmp_path / "evil.pth")
    for action in (
        lambda f: merge_hand(f, hand_file, tmp_path / "x.pth"),
        lambda f: reset_epoch(f, tmp_path / "x.pth"),
    ):
        with pytest.raises(BadInput, match="code or objects"):
            action(tmp_path / "evil.pth")
        torch.save({"epoch": 3}, tmp_path / "empty.pth")
        with pytest.raises(BadInput, match="no 'network' of tensors"):
            action(tmp_path / "empty.pth")
        with pytest.raises(BadInput, match="no checkpoint at"):
            action(tmp_path / "missing.pth")
    assert not (tmp_path / "hostile-was-here").exists()
    with pytest.raises(BadInput, match="two forms"):
        merge_hand(whole_file, tmp_path / "0.safetensors", tmp_path / "x.pth.tar")
    with pytest.raises(BadInput, match="name the target .pth.tar"):
        reset_epoch(whole_file, tmp_path / "x.safetensors")
    with pytest.raises(BadInput, match="name the target .safetensors"):
        reset_epoch(tmp_path / "0.safetensors", tmp_path / "x.pth")
