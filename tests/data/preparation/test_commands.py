"""The commands that prepare sets and edit checkpoints say what they did."""

import shutil

import pytest
import torch
from data.forge import agora as forge

from wholebody.cli import main


def test_agora(people, tmp_path, capsys):
    root = tmp_path / "AGORA"
    forge.forge_official(root / "data", people[:3])
    assert main(["data", "agora-json", str(root), "--vertices", "none"]) == 0
    output = capsys.readouterr()
    assert "3 pictures, 4 people" in output.out
    assert "1 person without usable parameters:\n  smplx_gt/trainset_forged/2_1.pkl" in output.err

    arguments = ["data", "agora-crops", str(root), "--split", "train", "--workers", "1", "--height", "256",
                 "--width", "192"]  # fmt: skip
    picture = root / "data" / "3840x2160" / "train_0" / forge.official_picture("cam02", 1)
    shutil.move(picture, tmp_path / "away.png")
    assert main(arguments) == 1
    output = capsys.readouterr()
    assert "2 crops written, 0 were there, 1 picture failed" in output.out and "is missing" in output.err
    shutil.move(tmp_path / "away.png", picture)
    assert main(arguments) == 0
    assert "1 crop written, 2 were there" in capsys.readouterr().out


def test_ubody(tmp_path, capsys):
    pytest.importorskip("av")
    assert main(["data", "ubody-frames", str(tmp_path)]) == 2
    assert "unpack UBody's videos there" in capsys.readouterr().err
    (tmp_path / "videos" / "Movie").mkdir(parents=True)
    (tmp_path / "videos" / "Movie" / "x.mp4").write_bytes(b"nothing")
    assert main(["data", "ubody-frames", str(tmp_path), "--scene", "Movie", "--workers", "1"]) == 1
    output = capsys.readouterr()
    assert "0 pictures of 0 videos written" in output.out and "x.mp4: cannot be decoded" in output.err


def test_checkpoints(tmp_path, capsys):
    whole = {"module.hand_roi_net.backbone.w": torch.zeros(2), "module.hand_position_net.w": torch.zeros(2)}
    torch.save({"epoch": 6, "network": whole, "optimizer": {}}, tmp_path / "whole.pth.tar")
    torch.save({"epoch": 12, "network": {"module.hand_backbone.w": torch.ones(2)}}, tmp_path / "hand.pth.tar")
    files = [str(tmp_path / f"{name}.pth.tar") for name in ("whole", "hand", "snapshot_0")]
    assert main(["checkpoint", "merge-hand", *files]) == 0
    assert "1 tensors of the hand network, epoch 0; 1 tensors left out" in capsys.readouterr().out
    assert main(["checkpoint", "reset-epoch", files[1], files[2]]) == 0
    assert torch.load(files[2], weights_only=True)["epoch"] == 0
    assert main(["checkpoint", "merge-hand", files[0], files[0], files[2]]) == 0  # its own hands: nothing changes
    assert torch.load(files[2], weights_only=True)["network"].keys() == whole.keys()
