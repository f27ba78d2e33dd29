"""HumanData as forged comes out of the reader, real files parse, and pickles with code in them are refused."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data.forge import humandata as forge

from wholebody.body.joints import FROM_144, JOINTS_137
from wholebody.data.readers import READERS, humandata
from wholebody.errors import BadInput
from wholebody.files.npz import SafeNpz

SHARED = Path(os.environ.get("WHOLEBODY_SHARED", Path(__file__).parents[4] / "shared"))
SAMPLES = SHARED / "samples" / "humandata"
NOSE, L_WRIST = JOINTS_137.index("Nose"), JOINTS_137.index("L_Wrist")


@pytest.fixture(scope="module")
def root(people, tmp_path_factory):
    root = tmp_path_factory.mktemp("HumanData")
    forge.forge(root, people)
    return root


def read(root, split="train", **options):
    return list(READERS["HumanData"].read(root, split, **options))


def test_todays_form(root, people):
    samples = read(root, file="forged_train.npz")
    assert [sample.id for sample in samples] == [f"forged_train/{row}" for row in range(len(people) - 1)]
    for sample, person in zip(samples, people, strict=False):
        view = forge.seen(person)
        assert (root / sample.image_path).is_file() and sample.image_hw == (480, 640)
        x, y, width, height = view.box_xywh()
        np.testing.assert_allclose(sample.box_xyxy, [x, y, x + width - 1, y + height - 1], atol=1e-6)
        known = np.ones(137, bool)
        known[L_WRIST] = person.number != 0  # not a number
        known[NOSE] = person.number != 1  # known as OpenPose's only
        np.testing.assert_array_equal(sample.joint_valid, known)
        np.testing.assert_allclose(sample.joints_px[known], view.joints_137[known], atol=1e-3)
        assert not sample.joints_px[~known].any()
        assert sample.joint_cam_known.all()
        np.testing.assert_allclose(sample.joints_cam, person.joints_137_cam, atol=1e-6)
        for k, name in enumerate(("left_hand_box", "right_hand_box", "face_box")):
            truth = getattr(view, name)
            assert sample.part_valid[k] == (truth is not None)
            if truth is not None:
                np.testing.assert_allclose(getattr(sample, name), truth, atol=1e-9)
        assert sample.body == "smplx" and sample.gender == ("female", "male")[person.number % 2]
        assert sample.pose_valid.all() and sample.shape_valid and sample.expression_valid and sample.camera_valid
        np.testing.assert_allclose(sample.full_pose[0], person.root_pose, atol=1e-12)
        np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-12)
        np.testing.assert_allclose(sample.full_pose[22], person.jaw_pose, atol=1e-12)
        np.testing.assert_allclose(sample.full_pose[25:40], person.left_hand_pose, atol=1e-12)
        np.testing.assert_allclose(sample.full_pose[40:55], person.right_hand_pose, atol=1e-12)
        np.testing.assert_allclose(sample.betas, person.betas, atol=1e-12)
        np.testing.assert_allclose(sample.expression, person.expression, atol=1e-12)
        np.testing.assert_allclose(sample.transl, person.transl, atol=1e-12)
        np.testing.assert_allclose(sample.focal_px, view.focal, atol=1e-9)
        np.testing.assert_allclose(sample.principal_px, view.principal, atol=1e-9)
        assert not sample.flat_hand


def test_near_points_stand_in_when_asked(root, people):
    strict, near = (read(root, file="forged_train.npz", approximate=flag)[1] for flag in (False, True))
    assert not strict.joint_valid[NOSE] and near.joint_valid[NOSE]
    np.testing.assert_allclose(near.joints_px[NOSE], forge.seen(people[1]).px("nose"), atol=1e-3)
    others = np.arange(137) != NOSE
    np.testing.assert_array_equal(strict.joints_px[others], near.joints_px[others])


def test_old_form(root, people):
    samples = read(root, file="old_train.npz")
    body = np.array(FROM_144) < 22  # what the file's mask calls known
    for sample, person in zip(samples, people, strict=False):
        np.testing.assert_array_equal(sample.joint_valid, body)
        np.testing.assert_allclose(sample.joints_px[body], forge.seen(person).joints_137[body], atol=1e-3)
        relative = person.joints_137_cam - person.joints_144_cam[0]
        np.testing.assert_array_equal(sample.joint_cam_known, body)
        np.testing.assert_allclose(sample.joints_cam[body], relative[body], atol=1e-6)
        assert sample.body == "" and sample.image_hw is None and not sample.camera_valid


def test_smpl_parameters(root, people):
    samples = read(root, "test")
    assert len(samples) == len(people) - 1
    for sample, person in zip(samples, people, strict=False):
        assert sample.body == "smpl" and sample.gender == ("male", "female")[person.number % 2]
        assert sample.pose_valid[:22].all() and not sample.pose_valid[22:].any() and not sample.expression_valid
        np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-12)
        np.testing.assert_allclose(sample.betas, person.betas, atol=1e-12)
        assert not sample.joint_valid.any() and not sample.camera_valid


def test_more_people_than_are_held_at_a_time(root, monkeypatch):
    whole = read(root, file="forged_train.npz", approximate=True)
    monkeypatch.setattr(humandata, "ROWS", 2)
    for one, other in zip(whole, read(root, file="forged_train.npz", approximate=True), strict=True):
        np.testing.assert_array_equal(one.joints_px, other.joints_px)
        np.testing.assert_array_equal(one.joints_cam, other.joints_cam)
        np.testing.assert_array_equal(one.joint_valid, other.joint_valid)


def test_keypoints_that_end_too_early(root, tmp_path):
    """A file cut by a tool that mended its directory; and columns first, which are read at once."""
    rewritten(root, tmp_path, keypoints2d_smplx=np.asfortranarray(np.zeros((6, 144, 3))),
              keypoints2d_smplx_mask=np.arange(190) < 144)  # fmt: skip
    assert not read(tmp_path)[0].joint_valid.any()
    with zipfile.ZipFile(root / "forged_train.npz") as source, zipfile.ZipFile(tmp_path / "cut_train.npz", "w") as cut:
        for name in source.namelist():
            content = source.read(name)
            cut.writestr(name, content[:-100] if name == "keypoints3d_smplx.npy" else content)
    with pytest.raises(BadInput, match="'keypoints3d_smplx' ends too early"):
        read(tmp_path, file="cut_train.npz")


def test_files_belong_to_splits_by_name(root):
    assert {sample.id.split("/")[0] for sample in read(root)} == {"forged_train", "old_train"}
    assert {sample.id.split("/")[0] for sample in read(root, "test")} == {"pw3d_test"}


def stored(root, key, name="forged_train.npz"):
    with np.load(root / name, allow_pickle=True) as file:  # made by these tests
        return file[key].item()


def rewritten(root, target, name="forged_train.npz", **changes):
    with np.load(root / name, allow_pickle=True) as file:
        content = {key: file[key] for key in file.files} | changes
    np.savez(target / name, **{key: value for key, value in content.items() if value is not None})


def test_where_hands_are_measured_from(root, tmp_path):
    rewritten(root, tmp_path, misc={"flat_hand_mean": True})
    assert read(tmp_path)[0].flat_hand
    assert not read(tmp_path, flat_hand=False)[0].flat_hand
    rewritten(root, tmp_path, misc=None)
    (tmp_path / "forged_train.npz").rename(tmp_path / "bedlam_train.npz")
    assert read(tmp_path)[0].flat_hand


def test_uncompressed_with_a_folder_for_pictures(root, tmp_path, people):
    points = np.zeros((len(people), 190, 3))
    points[:, :144, :2], points[:, :144, 2] = [forge.seen(person).joints_144 for person in people], 1
    mask = (np.arange(190) < 25).astype(int)
    rewritten(root, tmp_path, keypoints2d_smplx=points, keypoints2d_smplx_mask=mask,
              __keypoints_compressed__=False)  # fmt: skip
    sample = read(tmp_path, images="SET/pictures/")[0]
    np.testing.assert_array_equal(sample.joint_valid, np.array(FROM_144) < 25)
    assert sample.image_path == "SET/pictures/images/000000.jpg"


def test_shapes_come_in_many_lengths_and_neutral_ones_win(root, tmp_path, people):
    smplx = stored(root, "smplx")
    wide = np.concatenate([smplx["betas"], np.ones((len(people), 6))], 1)
    flat = {"body_pose": smplx["body_pose"].reshape(len(people), 63), "betas_neutral": wide[:, ::-1], "betas": wide}
    rewritten(root, tmp_path, smplx={**smplx, **flat})
    sample = read(tmp_path)[0]
    np.testing.assert_allclose(sample.betas, wide[0, ::-1][:10])
    np.testing.assert_allclose(sample.full_pose[1:22], people[0].body_pose)
    assert sample.gender == "neutral"


def test_missing_parts_are_not_known(root, tmp_path):
    smplx = stored(root, "smplx")
    for key in ("left_hand_pose", "jaw_pose", "expression", "transl", "betas"):
        del smplx[key]
    rewritten(root, tmp_path, smplx=smplx, lhand_bbox_xywh=None)
    sample = read(tmp_path)[0]
    assert not sample.pose_valid[25:40].any() and not sample.pose_valid[22] and sample.pose_valid[40:].all()
    assert not sample.shape_valid and not sample.expression_valid and not sample.camera_valid
    assert sample.part_valid.tolist() == [False, True, True]


def test_parameters_that_are_not_numbers(root, tmp_path):
    smplx = stored(root, "smplx")
    smplx["body_pose"][1, 3] = np.nan
    rewritten(root, tmp_path, smplx=smplx)
    with pytest.raises(BadInput, match="row 1 hold values that are not finite.*damaged='mask'"):
        read(tmp_path)
    samples = read(tmp_path, damaged="mask")
    assert samples[1].body == "" and not samples[1].pose_valid.any() and samples[1].joint_valid.any()
    assert samples[0].body == "smplx"


# What goes wrong


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch hostile-was-here",))


@pytest.mark.parametrize("key", ["smplx", "meta", "misc", "image_path"])
def test_pickles_with_code_in_them_are_refused(root, tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    evil = np.array([Hostile()], object) if key == "image_path" else {"gender": Hostile()}
    rewritten(root, tmp_path, **{key: evil})
    with pytest.raises(BadInput, match="wants to run .*system.* file of annotations .* refused"):
        read(tmp_path)
    assert not (tmp_path / "hostile-was-here").exists()


def with_member(target, header_of, content):
    """An archive whose `smplx` has the header of an array and any content."""
    header = io.BytesIO()
    np.lib.format.write_array(header, header_of, allow_pickle=True)
    start = header.getvalue()[: header.getvalue().index(b"\n") + 1]
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("smplx.npy", start + content)


def test_members_that_lie(tmp_path):
    path, objects = tmp_path / "x.npz", np.array({"a": 1}, object)
    for content, message in (
        (pickle.dumps([1, 2]), "not the array that its header says"),
        (pickle.dumps(np.zeros(3)), "not the array that its header says"),
        (b"", "not a readable pickle"),
    ):
        with_member(path, objects, content)
        with pytest.raises(BadInput, match=message):
            SafeNpz(path)["smplx"]
    with_member(path, np.zeros(100), b"few")
    with pytest.raises(BadInput, match="'smplx' is damaged"):
        SafeNpz(path)["smplx"]


def test_files_that_are_no_archives(root, tmp_path):
    (tmp_path / "x_train.npz").write_bytes((root / "forged_train.npz").read_bytes()[:3000])
    with pytest.raises(BadInput, match="no readable .npz"):
        read(tmp_path)
    with pytest.raises(BadInput, match="no readable .npz"):
        read(tmp_path, file="missing.npz")
    np.savez(tmp_path / "x_train.npz", image_path=["a"])
    with pytest.raises(BadInput, match="lacks bbox_xywh"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints2d_smplx": np.zeros((6, 133, 3)), "keypoints2d_smplx_mask": None}, "133 keypoints"),
        ({"bbox_xywh": np.zeros((3, 4))}, "shape .* for 6 people"),
        ({"meta": [1, 2, 3]}, "should be a dictionary"),
    ],
)
def test_arrays_that_do_not_fit(root, tmp_path, change, message):
    rewritten(root, tmp_path, **change)
    with pytest.raises(BadInput, match=message):
        read(tmp_path)


def test_empty_folders(tmp_path):
    with pytest.raises(BadInput, match="HumanData"):
        read(tmp_path)


def test_names_are_the_sets():
    names = humandata.NAMES_190
    assert len(set(names)) == 190 and names[:144] == humandata.NAMES_144
    spots = {0: "pelvis", 3: "spine_1", 25: "left_index_1", 55: "nose", 60: "left_bigtoe", 66: "left_thumb",
             144: "right_hip_extra", 147: "headtop", 153: "nose_openpose", 161: "pelvis_openpose",
             178: "spine_4_3dhp", 189: "right_hand"}  # fmt: skip
    assert {row: names[row] for row in spots} == spots


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no real samples on this machine")
def test_real_files():
    people = {path.name: list(humandata.read(SAMPLES, "train", file=path.name)) for path in SAMPLES.glob("*.npz")}
    assert len(people) == 9 and all(len(found) == 1 for found in people.values())
    (coco,) = people["sample_coco_2014_train.npz"]
    assert coco.joint_valid.sum() == 15 + 1 and not coco.joint_cam_known.any()  # an eye counts as one of the face too
    for name in ("sample_h36m_train.npz", "sample_mpi_inf_3dhp_train.npz"):
        (person,) = people[name]
        left, right = (person.joints_px[JOINTS_137.index(f"{side}_Ankle")] for side in "LR")
        assert person.joint_valid[:8].all() and left[1] > person.joints_px[0, 1] < right[1]  # feet below the pelvis
        knee, ankle = (person.joints_cam[JOINTS_137.index(f"L_{joint}")] for joint in ("Knee", "Ankle"))
        assert 0.25 < np.linalg.norm(knee - ankle) < 0.6  # metres
    (person,) = people["sample_3dpw_test.npz"]
    assert person.body == "smpl" and person.gender == "male" and person.pose_valid[:22].all()


@pytest.mark.parametrize(
    "meta", [
        None, {}, {"gender": None, "height": None, "width": None}, {"gender": "male"}, {"gender": ["male"]},
        {"height": 1000, "width": 1000}, {"height": [1000], "width": np.array(1000)}, {"gender": np.array("female")},
    ],
)  # fmt: skip
def test_meta_of_one_value_for_everybody_or_none(root, tmp_path, meta):
    rewritten(root, tmp_path, meta=np.array(meta, object))
    people = read(tmp_path)
    assert len(people) > 1
    given = {**(meta or {})}.get("gender")
    assert given is None or {person.gender for person in people if person.body} == {str(np.atleast_1d(given)[0])}
    known = {**(meta or {})}.get("height") is not None
    assert {person.image_hw for person in people} == ({(1000, 1000)} if known else {None})


@pytest.mark.parametrize(
    "changes", [
        {"meta": np.array({"height": [1, 2], "width": [1]}, object)}, {"meta": np.array({"gender": ["x"] * 2}, object)},
        {"meta": np.array({"gender": [["x"], "y"]}, object)},
        {"meta": np.array({"height": [[1], 2], "width": [1, 2]}, object)},
        {"misc": np.array({"flat_hand_mean": [[True], False]}, object)},
        {"meta": np.array({"height": float("nan"), "width": 5}, object)}, {"bbox_xywh": np.zeros(6)},
        {"meta": np.array({"height": 10**30, "width": 5}, object)}, {"bbox_xywh": np.zeros((6, 3))},
        {"meta": np.array({"focal_length": "x", "principal_point": 1}, object)}, {"meta": np.array([1, 2], object)},
        {"meta": np.array(3, object)}, {"keypoints2d_smplx": np.zeros((6, 145, 3), "S1")},
        {"keypoints2d_smplx": np.zeros((6, 145, 3), "M8[s]")}, {"keypoints2d_smplx_mask": np.array(["x"] * 190)},
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_named(root, tmp_path, changes):
    rewritten(root, tmp_path, **changes)
    with pytest.raises(BadInput, match="train.npz"):
        read(tmp_path)
