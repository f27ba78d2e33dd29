"""`wholebody convert --to anny` and back: files, with a stand-in for the package."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "body"))  # the stand-in lies there

from fake_anny import FakeAnny
from made_up_results import film, photo

from wholebody.body import makehuman
from wholebody.cli import main
from wholebody.pipeline import convert_anny
from wholebody.pipeline.convert import read_result


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeAnny:
    model = FakeAnny()
    monkeypatch.setattr(convert_anny, "_loaded", lambda settings, say: model)
    monkeypatch.setattr(convert_anny, "_version", lambda: "0.6.2")
    monkeypatch.setattr(makehuman, "check_package", lambda: None)
    return model


def test_a_photo_there_and_back(tmp_path: Path, fake: FakeAnny, capsys: pytest.CaptureFixture[str]) -> None:
    source = photo(tmp_path, flat_hand=False)
    assert main(["convert", str(source), "--to", "anny", "--out", str(tmp_path / "out")]) == 0
    assert "skin within" in capsys.readouterr().out
    path = tmp_path / "out" / "ski_person0_anny.npz"
    with np.load(path, allow_pickle=False) as file:
        assert file["pose_parameters"].shape == (1, 55, 4, 4) and file["phenotype_kwargs"].shape == (1, 11)
        assert file["bone_labels"].tolist() == fake.bone_labels and file["focal_px"].tolist() == [5000, 5000]
        assert np.abs(file["pose_parameters"][0, 0, :3, 3] - [0.1, 0.2, 30]).max() < 0.4
        about = json.loads(str(file["conventions"]))
    assert (about["body"], about["converted_from"], about["anny"]) == ("anny", "open", "0.6.2")
    assert about["model"]["topology"] == "anny" and about["converted_error_mm"] < 6
    assert main(["convert", str(path), "--to", "open", "--out", str(tmp_path / "back")]) == 0
    again = read_result(tmp_path / "back" / "ski_person0_anny_open.npz")
    first = read_result(source)
    assert again.body == "open" and not again.is_film and again.flat_hand_mean
    assert np.abs(again.parameters.transl - first.parameters.transl).max() < 0.02
    assert np.abs(again.parameters.body_pose - first.parameters.body_pose).mean() < 0.05


def test_a_film_there_and_back(tmp_path: Path, fake: FakeAnny) -> None:
    source = film(tmp_path, 4)
    assert main(["convert", str(source), "--to", "anny", "--out", str(tmp_path / "out")]) == 0
    path = tmp_path / "out" / "dance_person0_anny.npz"
    with np.load(path, allow_pickle=False) as file:
        assert file["pose_parameters"].shape == (4, 55, 4, 4) and np.ptp(file["phenotype_kwargs"], axis=0).max() == 0
    assert main(["convert", str(path), "--to", "open", "--out", str(tmp_path / "back")]) == 0
    with np.load(tmp_path / "back" / "dance_person0_anny_open.npz", allow_pickle=False) as file:
        assert file["poses"].shape == (4, 165) and file["betas"].shape == (10,) and file["mocap_frame_rate"] == 30
        assert np.abs(file["betas"] - 1).max() < 0.2


def test_labels_may_be_fewer_and_in_another_order(tmp_path: Path, fake: FakeAnny) -> None:
    """Somebody's own file: two bones, one phenotype for all frames, no facial actions, no conventions."""
    pose = np.tile(np.eye(4), (2, 2, 1, 1))
    pose[:, 1, :3, 3] = [0.5, 0.25, 4]
    path = tmp_path / "own.npz"
    np.savez(path, pose_parameters=pose, bone_labels=["head", "root"], phenotype_kwargs=[[0.7]],
             phenotype_labels=["height"])  # fmt: skip
    assert main(["convert", str(path), "--to", "open", "--out", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "own_open.npz", allow_pickle=False) as file:
        expected = np.zeros(10)
        expected[4] = 6 * 0.2
        assert np.abs(file["betas"] - expected).max() < 0.2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pose_parameters": np.zeros((2, 55, 3))}, "(frames, bones, 4, 4)"),
        ({"pose_parameters": np.zeros((2, 55, 4, 4))}, "no rotations"),
        ({"pose_parameters": np.full((2, 55, 4, 4), np.nan)}, "finite"),
        ({"pose_parameters": np.tile(np.eye(4), (2, 3, 1, 1))}, "bone_labels"),
        ({"bone_labels": ["root"] * 55}, "different labels"),
        ({"bone_labels": [f"bone{k}" for k in range(55)]}, "bone0"),
        ({"phenotype_kwargs": np.zeros((3, 11))}, "phenotype_kwargs"),
        ({"phenotype_kwargs": np.linspace([0.0], [1.0], 2) * np.ones((1, 11))}, "a file for each person"),
        ({"local_changes_kwargs": np.ones((2, 3))}, "local changes"),
        ({"conventions": "{"}, "conventions"),
        ({"conventions": json.dumps({"model": {"topology": "smplx"}})}, "non-commercial"),
        ({"conventions": json.dumps({"model": {"pose_parameterization": "quaternions"}})}, "quaternions"),
    ],
)
def test_files_that_do_not_fit(
    tmp_path: Path, fake: FakeAnny, capsys: pytest.CaptureFixture[str], changed: dict[str, object], message: str
) -> None:
    arrays = {"pose_parameters": np.tile(np.eye(4), (2, 55, 1, 1)), "phenotype_kwargs": np.full((2, 11), 0.5)} | changed
    np.savez(tmp_path / "own.npz", **arrays)  # type: ignore[arg-type]
    assert main(["convert", str(tmp_path / "own.npz"), "--to", "open", "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.npz"))


def test_what_is_missing_is_named_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", str(tmp_path / "out")]
    monkeypatch.setitem(sys.modules, "anny", None)
    for command in (
        ["convert", str(photo(tmp_path, flat_hand=False)), "--to", "anny", *out],
        ["predict", "nothing.jpg", "--as", "anny", *out],
    ):
        assert main(command) == 2 and ".[anny]" in capsys.readouterr().err
    assert main(["convert", str(photo(tmp_path, flat_hand=False, body="smplx")), "--to", "anny", *out]) == 2
    assert "over the open body" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_tables_have_no_such_form(tmp_path: Path, fake: FakeAnny, capsys: pytest.CaptureFixture[str]) -> None:
    widths = {"root_pose": 3, "body_pose": 63, "lhand_pose": 45, "rhand_pose": 45, "jaw_pose": 3, "shape": 10,
              "expr": 10, "trans": 3}  # fmt: skip
    row = {name: [0.0] * width for name, width in widths.items()} | {"body": "open", "flat_hand": True}
    path = tmp_path / "train_smplx.json"
    path.write_text(json.dumps({"7": {"smplx_param": row}}))
    assert main(["convert", str(path), "--to", "anny", "--out", str(tmp_path / "out")]) == 2
    assert "no form" in capsys.readouterr().err
