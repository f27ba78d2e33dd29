"""`wholebody convert`: files of results in, files of another body out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_results import film, photo

from wholebody.body.assets import read_body_file
from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.skeletons import parents
from wholebody.body.skinned import JOINTS_OF, SkinnedBody
from wholebody.cli import main
from wholebody.pipeline.convert import load_skinned, read_result


@pytest.fixture(scope="module")
def smpl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body with SMPL's 24 joints on the open body's own mesh: how surfaces are matched is tested elsewhere."""
    body = SkinnedBody.of(read_body_file("open"))
    names = JOINTS_OF[24]
    pooled = np.zeros((55, 24), np.float32)
    for row, name in enumerate(SMPLX_JOINTS):
        if row >= 25:
            name = f"{name.split('_')[0]}_hand"
        pooled[row, names.index(name if name in names else "head")] = 1
    own = [SMPLX_JOINTS.index(n if n in SMPLX_JOINTS else n.replace("hand", "middle1")) for n in names]
    pose_dirs = body.pose_dirs.reshape(54, 9, -1, 3).numpy()[:21].transpose(2, 3, 0, 1).reshape(-1, 3, 189)
    path = tmp_path_factory.mktemp("bodies") / "SMPL_MALE.npz"
    np.savez(
        path,
        v_template=body.template.numpy(), f=body.faces, shapedirs=body.shape_dirs.numpy(),
        posedirs=np.concatenate([pose_dirs, np.zeros((*pose_dirs.shape[:2], 18), np.float32)], 2),
        J_regressor=body.regressor.numpy()[own], weights=body.weights.numpy() @ pooled,
        kintree_table=np.array([parents(names), range(24)]),
    )  # fmt: skip
    return path


def surface(path: Path, body: SkinnedBody) -> np.ndarray:
    from wholebody.body.convert import to_rotations

    p = read_result(path).parameters
    expression = p.expression[:, : body.expression_dirs.shape[-1]]
    numbers = [torch.from_numpy(x).float() for x in (p.betas, expression, p.transl)]
    return body.pose(to_rotations(p, body), *numbers).vertices.numpy()


def test_a_film_becomes_rows_of_smpl_with_one_shape(
    tmp_path: Path, smpl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = film(tmp_path)
    assert main(["convert", str(source), "--to", "smpl", "--body", str(smpl), "--out", str(tmp_path / "out")]) == 0
    assert "5 frames" in capsys.readouterr().out
    path = tmp_path / "out" / "dance_person0_smpl.npz"
    with np.load(path, allow_pickle=False) as file:
        assert file["poses"].shape == (5, 72) and file["betas"].shape == (10,)
        assert str(file["surface_model_type"]) == "smpl" and str(file["gender"]) == "male"
        assert file["mocap_frame_rate"] == 30 and file["frames"].tolist() == list(range(5))
        assert file["conversion_error"].mean() < 0.003
    off = np.linalg.norm(surface(path, load_skinned(smpl)) - surface(source, load_skinned("open")), axis=-1)
    assert off.mean() < 0.003


def test_a_photo_keeps_its_camera_and_says_where_it_comes_from(tmp_path: Path, smpl: Path) -> None:
    source = photo(tmp_path)
    assert main(["convert", str(tmp_path), "--to", str(smpl), "--out", str(tmp_path / "out")]) == 0
    with np.load(tmp_path / "out" / "ski_person0_smpl.npz", allow_pickle=False) as file:
        assert file["body_pose"].shape == (23, 3) and file["focal_px"].tolist() == [5000, 5000]
        conventions = json.loads(str(file["conventions"]))
        assert conventions["body"] == "smpl" and conventions["converted_from"] == "open"
        assert np.abs(file["transl"] - np.load(source)["cam_trans"]).max() < 0.1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"body_pose": None}, "body_pose"),
        ({"conventions": "{"}, "conventions"),
        ({"conventions": json.dumps({"body": "smplx", "flat_hand_mean": False})}, "--source"),
        ({"conventions": json.dumps({"body": "mhr", "flat_hand_mean": False})}, "'mhr'; known are anny, open"),
        ({"betas": np.full(10, np.nan)}, "betas"),
        ({"betas": np.ones(7)}, "betas"),
    ],
)
def test_results_that_cannot_be_converted(
    tmp_path: Path, smpl: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], message: str
) -> None:
    path = photo(tmp_path, **changed)
    assert main(["convert", str(path), "--to", str(smpl), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_of_the_user_stay(tmp_path: Path, smpl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["convert", str(photo(tmp_path)), "--to", str(smpl), "--out", str(tmp_path / "out")]
    place = tmp_path / "out" / "ski_person0_smpl.npz"
    place.parent.mkdir()
    place.write_bytes(b"somebody's own")
    assert main(command) == 2 and "--overwrite" in capsys.readouterr().err
    assert place.read_bytes() == b"somebody's own"
    assert main([*command, "--overwrite"]) == 0 and main(command) == 0  # ours, as we wrote it
    place.write_bytes(place.read_bytes() + b"corrected")
    assert main(command) == 2 and "changed" in capsys.readouterr().err


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = photo(tmp_path)
    for options, message in (
        (["--to", "smplx"], "--body"),
        (["--to", "smplx", "--body", str(tmp_path)], "SMPLX_NEUTRAL"),
        (["--to", "mhr"], "mhr"),
    ):
        assert main(["convert", str(path), *options, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nothing.npz"), "--to", "open", "--out", str(tmp_path)]) == 2
    assert "nothing.npz" in capsys.readouterr().err


# Tables, labels, transfer files, films that move


def people_table(folder: Path, count: int = 4) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(5)
    widths = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "jaw_pose": 3,
              "betas": 10, "expression": 10, "cam_trans": 3}  # fmt: skip
    columns: dict[str, object] = {}
    for name, width in widths.items():
        numbers = (0.2 * rng.normal(size=(count, width)) * (name not in ("expression",))).astype(np.float32)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), width)
    columns |= {"source": [f"{k}.jpg" for k in range(count)], "score": [0.5] * count, "body": ["open"] * count,
                "gender": ["neutral"] * count, "flat_hand_mean": [True] * count}  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "people-000000.parquet"
    table = pa.table(columns).replace_schema_metadata({"wholebody": json.dumps({"body": "open", "model": "t"})})
    pq.write_table(table, path)
    return path


def test_a_whole_table(tmp_path: Path, smpl: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    source = people_table(tmp_path / "job" / "people")
    command = ["convert", str(tmp_path / "job"), "--to", "smpl", "--body", str(smpl), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before, after = pq.read_table(source), pq.read_table(tmp_path / "out" / "people-000000_smpl.parquet")
    assert after.column("source").equals(before.column("source")) and set(after.column("body").to_pylist()) == {"smpl"}
    assert len(after.column("body_pose")[0]) == 69 and "jaw_pose" not in after.column_names
    assert max(after.column("conversion_error").to_pylist()) < 0.006
    about = json.loads(after.schema.metadata[b"wholebody"])
    assert (about["body"], about["converted_from"], about["model"]) == ("smpl", "open", "t")
    pq.write_table(before.drop(["betas"]), source)
    assert main([*command, "--overwrite"]) == 2


def test_labels_of_a_training_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The open body to itself: numbers come back, and what is not of the body stays."""
    from wholebody.pipeline.convert_tables import read_labels

    rng = np.random.default_rng(2)
    widths = {"root_pose": 3, "body_pose": 63, "lhand_pose": 45, "rhand_pose": 45, "jaw_pose": 3, "shape": 10,
              "expr": 10, "trans": 3}  # fmt: skip
    table = {
        str(key): {
            "smplx_param": {name: (0.1 * rng.normal(size=width)).tolist() for name, width in widths.items()}
            | {"body": "open", "flat_hand": True, "lhand_valid": False},
            "cam_param": {"focal": [1.0, 1.0]},
        }
        for key in (7, 9)
    }
    path = tmp_path / "annotations" / "train_smplx.json"
    path.parent.mkdir()
    path.write_text(json.dumps(table))
    assert main(["convert", str(path), "--to", "open", "--out", str(tmp_path / "out")]) == 0
    done = json.loads((tmp_path / "out" / "train_smplx_open.json").read_text())
    assert done["9"]["cam_param"] == {"focal": [1.0, 1.0]} and done["7"]["smplx_param"]["lhand_valid"] is False
    places = [read_labels(one).parameters.transl for one in (tmp_path / "out" / "train_smplx_open.json", path)]
    assert np.abs(places[0] - places[1]).max() < 0.02 and done["7"]["smplx_param"]["converted_error_mm"] < 5
    table["9"]["smplx_param"]["body"] = "smplx"
    path.write_text(json.dumps(table))
    assert main(["convert", str(path), "--to", "open", "--out", str(tmp_path / "out2")]) == 2
    assert "different bodies" in capsys.readouterr().err
    path.write_text("{}")
    assert main(["convert", str(path), "--to", "open", "--out", str(tmp_path / "out2")]) == 2


def test_an_official_transfer_file(tmp_path: Path, smpl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sparse matrix over vertices and normals, pickled; here both bodies have one mesh, so it is the identity."""
    import pickle

    sparse = pytest.importorskip("scipy.sparse")
    count = load_skinned("open").num_vertices
    matrix = sparse.hstack([sparse.identity(count), sparse.csr_matrix((count, count))]).tocsr()
    (tmp_path / "transfer.pkl").write_bytes(pickle.dumps({"mtx": matrix[:, : 2 * count].astype(np.float32)}))
    (tmp_path / "wrong.pkl").write_bytes(pickle.dumps({"mtx": sparse.identity(9).tocsr()}))
    command = ["convert", str(photo(tmp_path)), "--to", "smpl", "--body", str(smpl)]
    assert main([*command, "--out", str(tmp_path / "a"), "--transfer", str(tmp_path / "wrong.pkl")]) == 2
    assert "wrong.pkl" in capsys.readouterr().err
    assert main([*command, "--out", str(tmp_path / "a"), "--transfer", str(tmp_path / "transfer.pkl")]) == 0
    assert main([*command, "--out", str(tmp_path / "b")]) == 0
    one, two = (np.load(tmp_path / name / "ski_person0_smpl.npz") for name in "ab")
    assert np.allclose(one["body_pose"], two["body_pose"], atol=1e-4)


def test_a_smooth_film_stays_smooth(tmp_path: Path, smpl: Path) -> None:
    """The converted skin shakes no more than its source: what is left of its acceleration is a part of the motion's."""
    times = np.linspace(0, 1, 24)
    poses = np.zeros((24, 165))
    poses[:, 3:66] = 0.4 * np.sin(2 * np.pi * times)[:, None] * np.random.default_rng(1).normal(size=63)
    source = tmp_path / "dance_person0.npz"
    np.savez(source, poses=poses, trans=np.zeros((24, 3)), betas=np.ones(10), expression=np.zeros((24, 10)),
             body="open", flat_hand_mean=True)  # fmt: skip
    assert main(["convert", str(source), "--to", "smpl", "--body", str(smpl), "--out", str(tmp_path / "out")]) == 0
    ours = surface(source, load_skinned("open"))[:, ::50]
    theirs = surface(tmp_path / "out" / "dance_person0_smpl.npz", load_skinned(smpl))[:, ::50]
    shaking = np.diff(theirs - ours, 2, axis=0)
    assert np.linalg.norm(shaking, axis=-1).mean() < 0.1 * np.linalg.norm(np.diff(ours, 2, axis=0), axis=-1).mean()


def test_predict_writes_another_body_beside(
    tmp_path: Path, smpl: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fake_network import FakeNetwork
    from PIL import Image

    from wholebody.people.predictor import Predictor
    from wholebody.pipeline import predict

    monkeypatch.setattr(predict, "load_predictor", lambda config, say=None: Predictor(FakeNetwork(), batch_size=4))
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (64, 80), (90, 90, 90)).save(tmp_path / "in" / folder / "x.png")
    command = ["predict", str(tmp_path / "in"), "--boxes", "whole", "--save", "npz,json", "--as", "smpl"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2 and "--body" in capsys.readouterr().err
    command += ["--body", str(smpl), "--out", str(tmp_path / "out")]
    assert main(command) == 0 and "2 people as smpl" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "b" / "x_person0_smpl.npz", allow_pickle=False) as file:
        assert json.loads(str(file["conventions"]))["body"] == "smpl" and file["body_pose"].shape == (23, 3)
    assert main([*command, "--resume"]) == 0  # nothing is in its own way
