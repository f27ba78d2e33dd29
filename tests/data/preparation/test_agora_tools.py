"""AGORA's own files become what the reader takes: tables to annotations, full pictures to crops."""

import json
import os
import pickle

import cv2
import numpy as np
import pytest
from data.forge import agora as forge
from data.forge import pandas_pickle
from data.forge.people import rotation

from wholebody.body.joints import FROM_144, JOINTS_137
from wholebody.data.preparation.agora import agora_crops, agora_json, camera_from_scan
from wholebody.data.readers import READERS
from wholebody.data.readers.agora import camera
from wholebody.errors import AssetMissing, BadInput
from wholebody.files import dataframe
from wholebody.files.dataframe import read_dataframe
from wholebody.geometry.crop import apply_affine

# Tables


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.5"])
def test_tables_are_read_without_pandas(tmp_path, version):
    columns = {
        "imgPath": ["a.png", "b.png"], "camX": [1.5, 2.5], "X": [[1.0, 2.0], [3.0]], "camY": [3.0, 4.0],
        "flag": [True, False], "joints": [[np.arange(6.0).reshape(3, 2)], [np.zeros((3, 2)), np.ones((1, 2))]],
    }  # fmt: skip
    (tmp_path / "x.pkl").write_bytes(pandas_pickle.dumps(columns, version))
    table = read_dataframe(tmp_path / "x.pkl")
    assert list(table) == list(columns)
    for name in ("imgPath", "camX", "X", "camY", "flag"):
        assert table[name] == columns[name]
    for row, cells in enumerate(columns["joints"]):
        for k, points in enumerate(cells):
            np.testing.assert_array_equal(table["joints"][row][k], points)


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.5"])
def test_forged_tables_are_pandas_own(tmp_path, version):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "x.pkl").write_bytes(pandas_pickle.dumps({"a": [1.0, 2.0], "b": ["x", "y"]}, version))
    table = pandas.read_pickle(tmp_path / "x.pkl")
    assert table["a"].tolist() == [1.0, 2.0] and table["b"].tolist() == ["x", "y"]
    table.astype(object).to_pickle(tmp_path / "y.pkl")
    assert read_dataframe(tmp_path / "y.pkl") == {"a": [1.0, 2.0], "b": ["x", "y"]}


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch hostile-was-here",))


def test_tables_with_code_in_them_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pandas_pickle.dumps({"a": [[Hostile()], [1]]}))
    with pytest.raises(BadInput, match="wants to run .*system.* table of ground truth .* refused"):
        read_dataframe(tmp_path / "x.pkl")
    assert not (tmp_path / "hostile-was-here").exists()


@pytest.mark.parametrize(
    "name", [("pandas", "eval"), ("pandas.core.frame", "read_pickle"), ("pandas.core.computation.eval", "eval"),
             ("pandas.core.indexes.base", "os"), ("builtins", "eval"), ("pandas.io.common", "get_handle")]
)  # fmt: skip
def test_only_what_a_table_needs_of_pandas_is_known(tmp_path, name):
    called = pandas_pickle._Called(pandas_pickle._Name(*name), ("1",))
    (tmp_path / "x.pkl").write_bytes(pandas_pickle.dumps({"a": [[called]]}))
    with pytest.raises(BadInput, match="wants to run"):
        read_dataframe(tmp_path / "x.pkl")


def test_a_pickle_leaves_no_mark_on_the_next(tmp_path):
    """State for a class, instead of for an object of it, must not reach the class that other files use."""
    marked = pandas_pickle._New(pandas_pickle._FRAME, {})
    with open(tmp_path / "x.pkl", "wb") as file:
        pickler = pandas_pickle._Pickler(file, 4)
        pickler.write(pickle.PROTO + bytes([4]))
        pickler.save(pandas_pickle._Name("builtins", "slice"))
        pickler.save((None, {"value": 7}))
        pickler.write(pickle.BUILD + pickle.POP)
        pickler.save(marked)
        pickler.write(pickle.STOP)
    with pytest.raises(BadInput):
        read_dataframe(tmp_path / "x.pkl")
    (tmp_path / "y.pkl").write_bytes(pandas_pickle.dumps({"a": [1.0, 2.0]}))
    assert read_dataframe(tmp_path / "y.pkl") == {"a": [1.0, 2.0]}
    assert dataframe._Slice.value != 7  # still the slot of its objects


def test_other_pickles_and_half_ones(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BadInput, match="holds no table .* but a dict"):
        read_dataframe(path)
    whole = pandas_pickle.dumps({"a": [1.0, 2.0]})
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="not a readable pickle"):
        read_dataframe(path)
    frame = pandas_pickle._New(pandas_pickle._FRAME, {"_typ": "dataframe"})
    with open(path, "wb") as file:
        pandas_pickle._Pickler(file, 4).dump(frame)
    with pytest.raises(BadInput, match="a form that is not known"):
        read_dataframe(path)
    with pytest.raises(AssetMissing):
        read_dataframe(tmp_path / "missing.pkl")


# Annotations


@pytest.fixture(scope="module")
def made(people, tmp_path_factory):
    """(root, truth of the training people, summary): official files and what became of them."""
    root = tmp_path_factory.mktemp("AGORA")
    truth = forge.forge_official(root / "data", people)
    (root / "data" / "1280x720").mkdir()
    return root, truth, agora_json(root)


def samples_of(root, split="train", **options):
    return list(READERS["AGORA"].read(root, split, **options))


def test_the_tables_truth_comes_out_of_the_reader(made, people):
    root, truth, summary = made
    assert (summary.pictures, summary.people) == (3 + 1, 6 + 1)
    assert summary.without_parameters == ["smplx_gt/trainset_forged/2_1.pkl"] and not summary.misplaced
    used = [entry for entry in truth if entry["valid"]]
    samples = samples_of(root, resolution="1280x720")
    assert len(samples) == len(used) == 5
    for sample, entry in zip(samples, used, strict=True):
        person = entry["person"]
        known = sample.joint_valid
        assert known.sum() == 137 - 4 - 17
        everything = np.concatenate([entry["joints_2d"], np.zeros((17, 2))])
        np.testing.assert_allclose(sample.joints_px[known], everything[list(FROM_144)][known] / 3, atol=1e-6)
        np.testing.assert_allclose(sample.joints_cam[known], person.joints_137_cam[known], atol=1e-6)
        np.testing.assert_allclose(sample.focal_px, forge.official_focal(entry["word"]) / 3)
        if not person.fitted:
            assert sample.body == "" and not sample.camera_valid
            continue
        # Better than the published annotations: the root turns into the camera's frame, and the body lies in it.
        assert sample.pose_valid.all() and sample.camera_valid
        np.testing.assert_allclose(rotation(sample.full_pose[0]), rotation(person.root_pose), atol=1e-5)
        rest_pelvis = person.joints_144_cam[0] - person.transl
        np.testing.assert_allclose(sample.transl_cam(rest_pelvis), person.transl, atol=1e-5)
        np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-6)


def test_annotations_have_the_published_keys(made, people):
    root, truth, _ = made
    content = json.loads((root / "data" / "AGORA_train.json").read_text())
    assert content["images"][1] == {
        "id": 1,
        "file_name_3840x2160": f"3840x2160/train_0/{forge.official_picture('cam02', 1)}",
        "file_name_1280x720": f"1280x720/train_0/{forge.official_picture('cam02', 1)[:-4]}_1280x720.png",
    }
    annotation = content["annotations"][4]
    assert (annotation["id"], annotation["image_id"], annotation["kid"], annotation["age"]) == (4, 2, True, "3-8")
    assert [a["is_valid"] for a in content["annotations"]] == [entry["valid"] for entry in truth]
    expected = {"bbox": slice(0, 127), "face_bbox": slice(76, 127), "lhand_bbox": [*range(25, 40), *range(66, 71)],
                "rhand_bbox": [*range(40, 55), *range(71, 76)]}  # fmt: skip
    for key, rows in expected.items():
        np.testing.assert_allclose(annotation[key], forge.box_about(truth[4]["joints_2d"][rows]), atol=1e-9)
    validation = json.loads((root / "data" / "AGORA_validation.json").read_text())
    vertices = json.loads((root / "data" / validation["annotations"][0]["smplx_verts_path"]).read_text())
    np.testing.assert_allclose(vertices, people[0].vertices_cam[:50])
    assert "smplx_verts_path" not in annotation  # meshes of the training people are made when asked for


def test_parameters_elsewhere_than_the_table_says(people, tmp_path):
    forge.forge_official(tmp_path / "data", people[:1], pictures=False)
    path = tmp_path / "data" / "smplx_gt" / "trainset_forged" / "0_0.pkl"
    values = pickle.loads(path.read_bytes())
    values["transl"] = values["transl"] + 2
    path.write_bytes(pickle.dumps(values))
    summary = agora_json(tmp_path, ["train"])
    assert summary.misplaced == ["smplx_gt/trainset_forged/0_0.pkl"]
    (annotation,) = json.loads((tmp_path / "data" / "AGORA_train.json").read_text())["annotations"]
    assert "cam_param" not in annotation and annotation["smplx_param_path"]


def test_joints_that_are_not_numbers(people, tmp_path):
    """One joint is left out of the boxes and not known; somebody without any joint is left out by the reader."""
    forge.forge_official(tmp_path / "data", people[:2], pictures=False)
    path = tmp_path / "data" / "train_SMPLX" / "SMPLX" / "train_0_withjv.pkl"
    table = read_dataframe(path)
    first, second = (np.array(points) for points in table["gt_joints_2d"][0])
    first[20], second[:] = np.nan, np.nan
    plain = {name: [_plain(cell) for cell in cells] for name, cells in table.items()}
    plain["gt_joints_2d"] = [[first, second]]
    path.write_bytes(pandas_pickle.dumps(plain))
    (tmp_path / "data" / "1280x720").mkdir()
    agora_json(tmp_path, ["train"])
    (sample,) = samples_of(tmp_path)
    assert not sample.joint_valid[JOINTS_137.index("L_Wrist")] and sample.joint_valid.sum() == 137 - 4 - 17 - 1
    assert np.isfinite(sample.box_xyxy).all() and np.isfinite(sample.joints_px).all()


def _plain(cell):
    """A cell as numpy's and Python's own values: what was read may not be written again."""
    if isinstance(cell, list):
        return [_plain(value) for value in cell]
    if isinstance(cell, np.ndarray):
        return np.array(cell)
    return cell.item() if isinstance(cell, np.generic) else cell


def test_tables_that_are_missing_or_others(tmp_path):
    with pytest.raises(BadInput, match="train_SMPLX.zip"):
        agora_json(tmp_path)
    folder = tmp_path / "data" / "train_SMPLX" / "SMPLX"
    folder.mkdir(parents=True)
    (folder / "train_0.pkl").write_bytes(pandas_pickle.dumps({"imgPath": ["a.png"]}))
    with pytest.raises(BadInput, match="lacks the columns gender"):
        agora_json(tmp_path)
    with pytest.raises(BadInput, match="not for test"):
        agora_json(tmp_path, ["test"])
    with pytest.raises(BadInput, match="vertices='some'"):
        agora_json(tmp_path, vertices="some")


# One point (0.3, 0.9, -0.2) of a scan's frame, in metres before each camera and in pixels, as the benchmark's own
# projection (agora_evaluation) computed them.
PROJECTED = [
    ("ag_hdri_1.png", [1.313504, 0.68, 6.690545], [2967.053, 1622.059]),
    ("ag_cam00_1.png", [-4.775833, 0.926207, 1.655762], [-3617.993, 2154.017]),
    ("ag_cam01_1.png", [2.564705, 2.031771, -0.259131], [-17082.886, -13974.173]),
    ("ag_cam02_1.png", [7.922459, -2.822902, 8.14941], [3786.53, 414.925]),
    ("ag_cam03_1.png", [-5.322422, -4.12292, 10.401108], [937.504, 318.927]),
    ("ag2_1.png", [1.313504, -1.074811, 6.638567], [2510.94, 596.447]),
    ("ag_forest_1.png", [-1.417966, 2.18, 5.709847], [1178.3, 2220.299]),
]


@pytest.mark.parametrize(("name", "in_space", "in_picture"), PROJECTED)
def test_cameras_are_the_benchmarks(name, in_space, in_picture):
    cells = {"imgPath": name, "camX": 120.0, "camY": -80.0, "camZ": 150.0, "camYaw": 35.0, "X": [640.0], "Y": [110.0],
             "Z": [12.0], "Yaw": [70.0]}  # fmt: skip
    turn, shift = camera_from_scan(cells, 0)
    point = turn @ [0.3, 0.9, -0.2] + shift
    np.testing.assert_allclose(point, in_space, atol=1e-6)
    focal, principal = camera(name)
    np.testing.assert_allclose(point[:2] / point[2] * focal + principal, in_picture, rtol=1e-6, atol=1e-3)


# Crops


def test_crops(made, people):
    root, truth, _ = made
    first, second = (root / "data" / "3840x2160" / "train_0" / forge.official_picture(word, k)
                     for k, word in ((0, "hdri"), (1, "cam02")))  # fmt: skip
    kept = first.read_bytes()
    first.write_bytes(kept[:1000])
    small = cv2.imread(str(second))[::4, ::4]
    whole = second.read_bytes()
    second.write_bytes(cv2.imencode(".png", small)[1].tobytes())
    summary = agora_crops(root, ["train"])
    assert summary.written == 2 and len(summary.problems) == 2
    assert "cannot be decoded" in summary.problems[0] and "960x540 pixels" in summary.problems[1]
    first.write_bytes(kept)
    second.write_bytes(whole)
    summary = agora_crops(root, ["train", "validation"])  # goes on, and makes what is missing
    assert (summary.written, summary.skipped, summary.problems) == (4, 2, [])

    used = [entry for entry in truth if entry["valid"]]
    samples = samples_of(root, resolution="3840x2160")
    assert len(samples) == len(used)
    for sample, entry in zip(samples, used, strict=True):
        crop = cv2.imread(str(root / sample.image_path))
        assert crop.shape == (512, 384, 3)
        about = json.loads((root / sample.image_path).with_suffix(".json").read_text())
        assert set(about) == {"bbox", "img2bb_trans", "resized_height", "resized_width"}
        affine = np.array(about["img2bb_trans"])
        x, y, width, height = about["bbox"]
        np.testing.assert_allclose(
            apply_affine([[x, y], [x + width, y + height]], affine), [[0, 0], [384, 512]], atol=1e-6
        )
        assert width / height == pytest.approx(0.75)
        everything = np.concatenate([entry["joints_2d"], np.zeros((17, 2))])[list(FROM_144)]
        known = sample.joint_valid
        np.testing.assert_allclose(sample.joints_px[known], apply_affine(everything, affine)[known], atol=1e-6)
        # The picture moved with the points: bones were drawn where the joints are.
        full = cv2.imread(str(root / "data" / "3840x2160" / "train_0" / forge.official_picture(entry["word"], int(
            sample.id.split("_ann_id_")[0][-1]))))  # fmt: skip
        for name_row in (0, 5, 10):
            there = np.round(sample.joints_px[name_row]).astype(int)
            back = np.round((sample.joints_px[name_row] - affine[:, 2]) / affine[0, 0]).astype(int)
            if (there > 3).all() and (there < [380, 508]).all() and (back > 3).all() and (back < [3836, 2156]).all():
                patch = crop[there[1] - 1 : there[1] + 2, there[0] - 1 : there[0] + 2].reshape(-1, 3).astype(int)
                near = np.abs(patch - full[back[1], back[0]].astype(int)).max(1).min()
                assert near < 40


def test_crops_of_the_test_split(people, tmp_path):
    data = tmp_path / "data"
    (data / "3840x2160" / "test").mkdir(parents=True)
    boxes = [[1000.0, 200.0, 600.0, 1500.0], [-900.0, 0.0, 100.0, 100.0], [3700.0, 100.0, 500.0, 300.0]]
    (data / "AGORA_test_bbox.json").write_text(json.dumps({"ag_test_1.png": [{"bbox": box} for box in boxes]}))
    summary = agora_crops(tmp_path, ["test"])
    assert summary.written == 0 and "is missing" in summary.problems[0]
    picture = np.random.default_rng(0).integers(0, 255, (2160 // 40, 3840 // 40, 3), np.uint8).repeat(40, 0)
    cv2.imwrite(str(data / "3840x2160" / "test" / "ag_test_1.png"), picture.repeat(40, 1))
    assert agora_crops(tmp_path, ["test"]).written == 2
    samples = samples_of(tmp_path, "test")
    assert [sample.id for sample in samples] == ["AGORA/test/ag_test_1_pid_0", "AGORA/test/ag_test_1_pid_2"]
    with pytest.raises(BadInput, match="no split 'all'"):
        agora_crops(tmp_path, ["all"])
