"""AGORA as forged comes out of the reader, from both sizes of pictures."""

import json
import os
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from data.forge import agora as forge
from data.forge.people import rotation

from wholebody.body.joints import JOINTS_137
from wholebody.data.readers import READERS, agora
from wholebody.data.readers.meshes import true_mesh
from wholebody.errors import BadInput
from wholebody.files.unpickle import read_pickle
from wholebody.geometry.crop import apply_affine, fit_box

SHARED = Path(os.environ.get("WHOLEBODY_SHARED", Path(__file__).parents[4] / "shared"))
PREDICTIONS = SHARED / "samples" / "agora_prediction_format"
SMALL, CROPS = "1280x720", "3840x2160"
FACE_IN_AGORA = [JOINTS_137.index(f"Face_{k}") for k in range(5, 56)]


@pytest.fixture(scope="module")
def root(people, tmp_path_factory):
    root = tmp_path_factory.mktemp("AGORA")
    forge.forge(root, people)
    return root


@pytest.fixture
def copy(root, tmp_path):
    """A copy whose annotations a test may spoil."""
    shutil.copytree(root, tmp_path / "AGORA", copy_function=lambda a, b: shutil.copyfile(a, b))
    return tmp_path / "AGORA"


def read(root, split, **options):
    return list(READERS["AGORA"].read(root, split, **options))


def from_full(person, resolution):
    return np.array([[1 / 3, 0, 0], [0, 1 / 3, 0]]) if resolution == SMALL else forge.crop_from_full(person)


@pytest.mark.parametrize("resolution", [SMALL, CROPS])
def test_truth_comes_out(root, people, resolution):
    used = [person for person in people if forge.is_valid(person)]
    samples = read(root, "train", resolution=resolution)
    assert len(samples) == len(used) == len(people) - 1
    for sample, person in zip(samples, used, strict=True):
        affine = from_full(person, resolution)
        picture = cv2.imread(str(root / sample.image_path))
        assert picture.shape[:2] == sample.image_hw == ((720, 1280) if resolution == SMALL else (512, 384))

        known = np.ones(137, bool)
        known[65:] = False
        known[FACE_IN_AGORA] = True
        np.testing.assert_array_equal(sample.joint_valid, known)
        np.testing.assert_array_equal(sample.joint_cam_known, known)
        truth = apply_affine(forge.seen(person).joints_137, affine)
        np.testing.assert_allclose(sample.joints_px[known], truth[known], atol=1e-5)
        np.testing.assert_allclose(sample.joints_cam[known], person.joints_137_cam[known], atol=2e-6)
        # The stated camera sees the joints where they are annotated.
        seen = sample.joints_cam[:, :2] / sample.joints_cam[:, 2:].clip(1e-3) * sample.focal_px + sample.principal_px
        np.testing.assert_allclose(seen[known], sample.joints_px[known], atol=1e-2)

        for name, part in (("left_hand_box", "lhand"), ("right_hand_box", "rhand"), ("face_box", "face")):
            x, y, width, height = forge.boxes(person)[f"{part}_bbox"]
            corners = np.array([[x, y], [x + width, y + height]]).clip(0, forge.FULL_WH)
            expected = apply_affine(corners, affine) - [[0, 0], [1, 1]]
            np.testing.assert_allclose(getattr(sample, name), expected.ravel(), atol=1e-5)
        assert sample.part_valid.all()


def test_a_crop_is_its_persons_box(root, people):
    """The published reader uses a crop as it is: the loader's fitted, enlarged box must be all of it."""
    for sample in read(root, "train", resolution=CROPS):
        np.testing.assert_allclose(fit_box(sample.box_xyxy), [0, 0, 384, 512], atol=1e-9)


def test_boxes_of_small_pictures_are_the_published_ones(root, people):
    for sample, person in zip(read(root, "train", resolution=SMALL), [p for p in people if p.number != 3], strict=True):
        x, y, width, height = np.array(forge.boxes(person)["bbox"]) / 3
        low = np.maximum([x, y], 0)
        high = np.minimum([x + width - 1, y + height - 1], [1279, 719])
        np.testing.assert_allclose(sample.box_xyxy, [*low, *high], atol=1e-9)


@pytest.mark.parametrize("resolution", [SMALL, CROPS])
def test_parameters(root, people, resolution):
    used = [person for person in people if forge.is_valid(person)]
    for sample, person in zip(read(root, "train", resolution=resolution), used, strict=True):
        if not person.fitted:
            assert sample.body == "" and not sample.pose_valid.any() and not sample.shape_valid
            continue
        kid = person.number == 4
        assert sample.body == "smplx" and not sample.flat_hand and sample.shape_valid and sample.expression_valid
        # The official annotations do not say how the scan's frame lies before the camera.
        assert not sample.pose_valid[0] and sample.pose_valid[1:].all() and not sample.camera_valid
        np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-6)
        np.testing.assert_allclose(sample.full_pose[25:40], person.left_hand_pose, atol=1e-6)
        np.testing.assert_allclose(sample.full_pose[40:55], person.right_hand_pose, atol=1e-6)
        np.testing.assert_allclose(sample.full_pose[22], person.jaw_pose, atol=1e-6)
        np.testing.assert_allclose(sample.full_pose[23:25, 1], [0.02, 0.03], atol=1e-6)
        np.testing.assert_allclose(sample.betas, person.betas, atol=1e-6)
        np.testing.assert_allclose(sample.expression, person.expression, atol=1e-6)
        assert sample.kid == pytest.approx(0.4 if kid else 0.0)
        # A girl was fitted with the neutral body.
        assert sample.gender == ("neutral" if kid else ("female", "male")[person.number % 2])


def test_validation_has_true_meshes(root, people):
    for sample, person in zip(read(root, "validation"), people[:2], strict=True):
        np.testing.assert_allclose(true_mesh(root, sample), person.vertices_cam, atol=1e-6)


@pytest.mark.parametrize("resolution", [SMALL, CROPS])
def test_the_test_split_leads_back_to_full_pictures(root, people, resolution):
    samples = read(root, "test", resolution=resolution)
    assert len(samples) == 2
    for sample, person in zip(samples, people, strict=False):
        assert agora.benchmark_name(sample) == (forge.PICTURE.format(split="test", number=person.number), 0)
        assert (root / sample.image_path).is_file()
        back = agora.full_from_picture(root, sample)
        points = apply_affine(forge.seen(person).joints_144, from_full(person, resolution))
        np.testing.assert_allclose(apply_affine(points, back), forge.seen(person).joints_144, atol=1e-3)
        assert not sample.joint_valid.any() and sample.body == ""


def test_crops_come_first_and_hidden_people_can_be_left_out(root):
    assert all("_crop/" in sample.image_path for sample in read(root, "validation"))
    assert read(root, "train", max_occlusion=10.0, resolution=SMALL) == []


@pytest.mark.parametrize(
    ("picture", "millimetres"), [("ag_x_hdri_1", 50), ("ag_x_archviz_cam03_00001", 18), ("ag2_x_1", 28), ("ag_x_1", 28)]
)
def test_lenses(picture, millimetres):
    assert agora.camera(picture)[0] == pytest.approx(millimetres / 36 * 3840)


# What goes wrong


def spoil(root, change, number=0):
    path = root / "data" / "AGORA_train.json"
    content = json.loads(path.read_text())
    change(content["annotations"][number])
    path.write_text(json.dumps(content))


def test_boxes_that_are_empty_or_outside(copy):
    spoil(copy, lambda annotation: annotation.update(bbox=[10, 10, 0, 50]))
    spoil(copy, lambda annotation: annotation.update(bbox=[-500, 10, 100, 50]), 1)
    spoil(copy, lambda annotation: annotation.update(lhand_bbox=[5000, 10, 100, 50], rhand_bbox=None), 2)
    samples = read(copy, "train", resolution=SMALL)
    assert [sample.id.rsplit("_", 1)[1] for sample in samples] == ["2", "4", "5"]
    assert samples[0].part_valid.tolist() == [False, False, True]


def test_joints_that_are_not_numbers_are_not_known(copy):
    path = copy / "data" / "gt_joints_3d" / "smplx" / "0.json"
    points = json.loads(path.read_text())
    points[20] = [float("nan")] * 3
    path.write_text(json.dumps(points))
    sample = read(copy, "train")[0]
    wrist = JOINTS_137.index("L_Wrist")
    assert sample.joint_valid[wrist] and not sample.joint_cam_known[wrist] and not sample.joints_cam[wrist].any()


@pytest.mark.parametrize("key", ["body_pose", "betas", "transl"])
def test_parameters_that_are_not_numbers(copy, key):
    path = copy / "data" / "smplx_gt" / "trainset_forged" / "0_0_0.pkl"
    values = pickle.loads(path.read_bytes())
    values[key][0, 1] = np.nan
    path.write_bytes(pickle.dumps(values))
    with pytest.raises(BadInput, match="0_0_0.pkl.*damaged='mask'"):
        read(copy, "train")
    sample = read(copy, "train", damaged="mask")[0]
    assert sample.body == "" and not sample.pose_valid.any() and sample.joint_valid.any()


class Hostile:
    def __reduce__(self):
        return (open, ("hostile-was-here", "w"))


def test_parameters_with_code_in_them_are_refused(copy, monkeypatch):
    monkeypatch.chdir(copy)
    (copy / "data" / "smplx_gt" / "trainset_forged" / "0_0_0.pkl").write_bytes(pickle.dumps({"transl": Hostile()}))
    with pytest.raises(BadInput, match="wants to run .*open.* refused"):
        read(copy, "train")
    assert not (copy / "hostile-was-here").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("AGORA_train.json", "AGORA_train.json missing.*agora.is.tue.mpg.de"),
        ("gt_joints_2d/smplx/0.json", "could not read .*0.json"),
        ("smplx_gt/trainset_forged/0_0_0.pkl", "smplx_gt.zip"),
    ],
)
def test_files_that_are_missing(copy, lost, message):
    (copy / "data" / lost).unlink()
    with pytest.raises(BadInput, match=message):
        read(copy, "train")


def test_other_joint_sets_and_half_files(copy):
    path = copy / "data" / "gt_joints_2d" / "smplx" / "0.json"
    path.write_text(json.dumps([[0, 0]] * 45))
    with pytest.raises(BadInput, match="45 joints, not AGORA's 127"):
        read(copy, "train")
    path.write_text("[[0, 0], [1")
    with pytest.raises(BadInput, match="not a whole JSON"):
        read(copy, "train")


def test_without_crops(copy):
    shutil.rmtree(copy / "data" / "3840x2160" / "train_0_crop")
    with pytest.raises(BadInput, match="agora-crops"):
        read(copy, "train", resolution=CROPS)
    with pytest.raises(BadInput, match="resolution='4K'.*3840x2160, 1280x720"):
        read(copy, "train", resolution="4K")


def test_a_camera_in_the_annotations_makes_the_root_known(copy, people):
    """`agora-json` writes how the parameters' frame lies before the camera."""
    person = people[0]
    placed = {"R": person.world_R.tolist(), "t": person.world_t.tolist(), "focal": [1, 1], "princpt": [0, 0]}
    spoil(copy, lambda annotation: annotation.update(cam_param=placed))
    sample = read(copy, "train")[0]
    assert sample.pose_valid.all() and sample.camera_valid
    np.testing.assert_allclose(rotation(sample.full_pose[0]), rotation(person.root_pose), atol=1e-5)
    rest_pelvis = person.joints_144_cam[0] - person.transl
    np.testing.assert_allclose(sample.transl_cam(rest_pelvis), person.transl, atol=1e-5)


@pytest.mark.skipif(not PREDICTIONS.is_dir(), reason="no real samples on this machine")
def test_real_pickles_of_the_benchmark_are_read_without_running_anything():
    """What AGORA's makers pickle needs no more than the restricted unpickler knows."""
    content = {path.stem: read_pickle(path) for path in PREDICTIONS.glob("*.pkl")}
    assert len(content) == 4
    parameters = content["smplx_param_rm_personId_0"]
    assert np.asarray(parameters["params"]["body_pose"]).shape == (1, 21, 3, 3)
    assert np.isfinite(np.asarray(parameters["joints"])).all() and parameters["pose2rot"] is False
    assert np.asarray(content["smplx_verts_personId_0"]["verts"]).shape == (10475, 3)


def test_smpler_xs_annotations_where_the_plain_ones_are_not(copy):
    """Their roots lie before the camera, and one of them has shapes of the neutral body, which count for adults."""
    folder = copy
    plain = folder / "data" / "AGORA_validation.json"
    content = json.loads(plain.read_text())
    for annotation in content["annotations"]:
        annotation.pop("cam_param", None)
        place = folder / "data" / str(annotation["smplx_param_path"])
        values = pickle.loads(place.with_suffix(".pkl").read_bytes())
        values["betas_neutral"] = np.full((1, 10), 0.25)
        place.with_suffix(".pkl").write_bytes(pickle.dumps(values))
    plain.write_text(json.dumps(content))
    before = list(READERS["AGORA"].read(folder, "validation", resolution="1280x720"))
    assert before and not any(sample.pose_valid[0] for sample in before)
    for ending in ("_fix_betas", "_fix_global_orient_transl"):
        for file in folder.glob("data/AGORA_validation*.json"):
            file.rename(plain.with_name(f"AGORA_validation{ending}.json"))
        after = list(READERS["AGORA"].read(folder, "validation", resolution="1280x720"))
        assert [sample.id for sample in after] == [sample.id for sample in before]
        for one, other in zip(before, after, strict=True):
            assert other.pose_valid.all() and (other.full_pose == one.full_pose).all()
            if ending == "_fix_betas" and not one.kid:
                assert (other.betas == 0.25).all() and other.gender == "neutral"
            else:
                assert (other.betas == one.betas).all() and other.gender == one.gender
