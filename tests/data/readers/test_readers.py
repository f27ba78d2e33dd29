"""What was forged comes out of the readers: joints, boxes, cameras, parameters, and what is not known as not known."""

import importlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from data.forge import human36m, mpi_inf_3dhp, mpii, mscoco, own, ubody
from data.forge.people import rotation

from wholebody.body.joints import JOINTS_137, SMPLX_JOINTS
from wholebody.data.readers import READERS

HANDS = {"left": slice(25, 40), "right": slice(40, 55)}
J = {name: row for row, name in enumerate(JOINTS_137)}


@pytest.fixture(scope="module")
def sets(people, tmp_path_factory):
    """`sets("MPII", "train")` -> {id: sample} of a forged set, read once."""
    root, forged, found = tmp_path_factory.mktemp("sets"), set(), {}

    def get(name: str, split: str, **options):
        info = READERS[name]
        if name not in forged:
            (root / name).mkdir()
            importlib.import_module(f"data.forge.{info.module}").forge(root / name, people)
            forged.add(name)
        key = (name, split, *sorted(options.items()))
        if key not in found:
            samples = list(info.read(root / name, split, **options))
            found[key] = {sample.id: sample for sample in samples}
            assert len(found[key]) == len(samples), "ids must differ"
            for sample in samples:
                assert sample.dataset == name
                if "every" in options:  # frames that nobody uses were not drawn
                    continue
                picture = cv2.imread(str(root / name / sample.image_path))
                assert picture is not None and picture.shape[:2] == sample.image_hw
        return found[key]

    return get


def assert_fit(sample, person, left, right, face, guessed=()):
    """The parameters are the person's, in the camera frame, and what is not known of them is masked."""
    assert sample.body == "smplx" and not sample.flat_hand and sample.shape_valid and sample.camera_valid
    known = np.ones(55, bool)
    known[[SMPLX_JOINTS.index(name) for name in ("left_eyeball", "right_eyeball", *guessed)]] = False
    known[HANDS["left"]], known[HANDS["right"]], known[SMPLX_JOINTS.index("jaw")] = left, right, face
    np.testing.assert_array_equal(sample.pose_valid, known)
    assert sample.expression_valid == face
    np.testing.assert_allclose(rotation(sample.full_pose[0]), rotation(person.root_pose), atol=1e-6)
    np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-12)
    np.testing.assert_allclose(sample.full_pose[HANDS["left"]], left * person.left_hand_pose, atol=1e-12)
    np.testing.assert_allclose(sample.full_pose[HANDS["right"]], right * person.right_hand_pose, atol=1e-12)
    np.testing.assert_allclose(sample.full_pose[22], face * person.jaw_pose, atol=1e-12)
    np.testing.assert_allclose(sample.betas, person.betas, atol=1e-12)
    np.testing.assert_allclose(sample.expression, face * person.expression, atol=1e-12)
    rest_pelvis = person.joints_144_cam[0] - person.transl
    np.testing.assert_allclose(sample.transl_cam(rest_pelvis), person.transl, atol=1e-5)


def assert_no_fit(sample):
    assert sample.body == "" and not sample.pose_valid.any()
    assert not sample.shape_valid and not sample.expression_valid


def assert_camera(sample, view):
    np.testing.assert_allclose(sample.focal_px, view.focal, atol=1e-9)
    np.testing.assert_allclose(sample.principal_px, view.principal, atol=1e-9)


def in_picture(view):
    """xyxy of what COCO's x, y, width, height mean: pixels counted, the last at x + width - 1."""
    x, y, width, height = view.box_xywh()
    return [x, y, min(x + width - 1, view.wh[0] - 1), min(y + height - 1, view.wh[1] - 1)]


def assert_wholebody_joints(sample, view, body_atol):
    """Joints as COCO-WholeBody has them: body inside the picture, hands and face where known, pelvis from the hips."""
    person, truth = view.person, view.joints_137
    valid = view.inside(truth)
    valid[25:45], valid[45:65], valid[65:] = person.left_hand_known, person.right_hand_known, person.face_known
    hips = valid[J["L_Hip"]] and valid[J["R_Hip"]]
    valid[[J["Neck"], J["Pelvis"], J["Face_1"], J["Face_2"], J["Face_3"], J["Face_4"]]] = False
    valid[J["Pelvis"]] = hips
    valid[J["Face_18"]] = person.face_known or valid[J["Nose"]]
    np.testing.assert_array_equal(sample.joint_valid, valid)
    truth = truth.copy()
    truth[J["Pelvis"]] = (truth[J["L_Hip"]] + truth[J["R_Hip"]]) / 2
    if not person.face_known:
        truth[J["Face_18"]] = truth[J["Nose"]]
    atol = np.full((137, 1), 1e-9)
    atol[:25] = body_atol
    atol[J["Face_18"]] = 1e-9 if person.face_known else body_atol
    assert (np.abs(sample.joints_px - truth) <= atol)[valid].all()
    assert not sample.joint_cam_known.any()


def assert_part_boxes(sample, view, face=True):
    for k, part in enumerate(("left_hand_box", "right_hand_box", "face_box")[: 3 if face else 2]):
        truth = getattr(view, part)
        assert sample.part_valid[k] == (truth is not None)
        if truth is not None:
            np.testing.assert_allclose(getattr(sample, part), truth, atol=1e-9)


def test_coco(people, sets):
    samples = sets("MSCOCO", "train")
    assert set(samples) == {str(mscoco.annotation_id(p)) for p in people}  # nobody who is not usable
    for view in mscoco.views(people):
        person, sample = view.person, samples[str(mscoco.annotation_id(view.person))]
        np.testing.assert_allclose(sample.box_xyxy, in_picture(view), atol=1e-9)
        assert_wholebody_joints(sample, view, body_atol=0.51)  # whole pixels
        assert_part_boxes(sample, view)
        assert not sample.joint_visible[J["L_Knee"]] and sample.joint_valid[J["L_Knee"]]
        if person.fitted:
            right = person.right_hand_known and person.number != 4  # whose file says so itself
            assert_fit(sample, person, person.left_hand_known, right, person.face_known)
            assert_camera(sample, view)
        else:
            assert_no_fit(sample)
    assert any(sample.joint_visible.sum() < sample.joint_valid.sum() for sample in samples.values())


def test_coco_for_testing_has_no_parameters(people, sets):
    samples = sets("MSCOCO", "val")
    assert len(samples) == len(people)
    for sample in samples.values():
        assert_no_fit(sample)
        assert sample.image_path.startswith("images/val2017/")


def test_mpii(people, sets):
    samples = sets("MPII", "train")
    assert len(samples) == len(people)
    for view in mpii.views(people):
        person, sample = view.person, samples[str(50 + view.person.number)]
        named = {name: ours for name, ours in mpii.POINTS if name in JOINTS_137 and name != mpii.UNKNOWN}
        assert {JOINTS_137[row] for row in np.flatnonzero(sample.joint_valid)} == set(named)
        for name, ours in named.items():
            np.testing.assert_allclose(sample.joints_px[J[name]], view.px(ours), atol=1e-9)
        assert not sample.joint_cam_known.any() and not sample.part_valid.any()
        if person.fitted:
            guessed = ("left_ankle", "right_ankle", "left_wrist", "right_wrist")
            assert_fit(sample, person, False, False, False, guessed)
            assert_camera(sample, view)
        else:
            assert_no_fit(sample)


@pytest.mark.parametrize("split", ["train", "test"])
def test_human36m(people, sets, split):
    samples = sets("Human36M", split)
    by_person = {}
    for view in human36m.views(people):
        subject = human36m.subject_of(view.person, split)
        identity = 100000 * subject + 1000 * view.person.number + human36m.USED[split]
        by_person[view.person.number] = samples.get(f"{subject}/{identity}")
    # Of the test subjects only camera 4 is used: people 0 and 1 were seen by it.
    expected = [p.number for p in people] if split == "train" else [0, 1]
    assert [n for n, sample in by_person.items() if sample is not None] == expected
    assert len(samples) == len(expected)
    for view in human36m.views(people):
        sample = by_person[view.person.number]
        if sample is not None:
            assert_measured(sample, view, human36m.POINTS)


def test_human36m_takes_every_frame_when_asked(people, sets):
    assert len(sets("Human36M", "train", every=1)) == 2 * len(people)


def test_mpi_inf_3dhp(people, sets):
    samples = sets("MPI_INF_3DHP", "train")
    assert set(samples) == {str(10 * p.number) for p in people}
    for view in mpi_inf_3dhp.views(people):
        assert_measured(samples[str(10 * view.person.number)], view, mpi_inf_3dhp.POINTS)


def assert_measured(sample, view, points):
    named = {name: ours for name, ours in points if name in JOINTS_137}
    for known in (sample.joint_valid, sample.joint_cam_known):
        assert {JOINTS_137[row] for row in np.flatnonzero(known)} == set(named)
    for name, ours in named.items():
        np.testing.assert_allclose(sample.joints_cam[J[name]], view.person.cam(ours), atol=1e-5)
        np.testing.assert_allclose(sample.joints_px[J[name]], view.px(ours), atol=5e-3)
    assert_camera(sample, view)
    assert not sample.part_valid.any()
    if view.person.fitted:
        guessed = ("left_ankle", "right_ankle", "left_wrist", "right_wrist")
        assert_fit(sample, view.person, False, False, False, guessed)
        np.testing.assert_allclose(sample.extrinsic_rotation, view.person.world_R, atol=1e-12)
    else:
        assert_no_fit(sample)


def test_an_older_copy_of_mpi_inf_3dhp_has_another_body(people, tmp_path):
    mpi_inf_3dhp.forge(tmp_path, people[:3], smpl=True)
    samples = list(READERS["MPI_INF_3DHP"].read(tmp_path, "train"))
    assert [sample.body for sample in samples] == ["smpl", "smpl", ""]
    np.testing.assert_allclose(samples[0].full_pose[1:22], people[0].body_pose, atol=1e-12)


@pytest.mark.parametrize("split", ["train", "test", "inter_train", "inter_test"])
def test_ubody(people, sets, split):
    samples = sets("UBody", split)
    intra = {p.number for p in people if p.number in ubody.TEST_PERSONS}
    inter = {p.number for p in people if ubody.scene_of(p) == ubody.SCENES[1]}
    testing = inter if "inter" in split else intra
    expected = [p for p in people if p.fitted and (p.number in testing) == split.endswith("test")]
    assert set(samples) == {f"{ubody.scene_of(p)}/{p.number}" for p in expected}
    for view in ubody.views(people):
        person, sample = view.person, samples.get(f"{ubody.scene_of(view.person)}/{view.person.number}")
        if sample is None:
            continue
        np.testing.assert_allclose(sample.box_xyxy, in_picture(view), atol=1e-9)
        assert_wholebody_joints(sample, view, body_atol=1e-9)
        assert not sample.joint_valid[J["L_Ankle"]]  # below the picture
        assert_part_boxes(sample, view, face=False)
        assert sample.part_valid[2] == person.face_known
        if person.face_known:
            # From the 68 keypoints, which are the face's box in the view too; a tenth on each side.
            np.testing.assert_allclose(sample.face_box, view.face_box, atol=1e-9)
        assert_fit(sample, person, person.left_hand_known, person.right_hand_known, person.face_known)
        assert_camera(sample, view)


def test_ubody_counts_annotations_of_a_scene_and_reads_single_scenes(people, sets):
    # Five annotations a person and scene, the first of which is usable.
    everything = sets("UBody", "train")
    one = sets("UBody", "train", scenes=("Movie",))
    assert set(one) == {key for key in everything if key.startswith("Movie/")} and 0 < len(one) < len(everything)
    sixth = sets("UBody", "train", every=6)
    assert set(sixth) < set(everything)


def test_own_pictures(people, sets):
    samples = sets("Own", "train")
    for view in own.views(people):
        person, sample = view.person, samples[str(view.person.number)]
        assert_wholebody_joints(sample, view, body_atol=1e-9)
        assert_part_boxes(sample, view)
        if person.fitted:
            assert_fit(sample, person, person.left_hand_known, person.right_hand_known, person.face_known)
            assert (sample.extrinsic_rotation is not None) == (person.number == 4)
        else:
            assert_no_fit(sample)


def test_own_keypoints_map_by_whatever_name_is_known(people, sets):
    samples = sets("Own", "val")
    for view in own.views(people):
        sample = samples[str(view.person.number)]
        names = {"L_Wrist": "left_wrist", "Nose": "nose", "L_Thumb_4": "left_thumb_tip", "Face_18": "nose"}
        assert {JOINTS_137[row] for row in np.flatnonzero(sample.joint_valid)} == set(names)
        for ours, body in names.items():
            np.testing.assert_allclose(sample.joints_px[J[ours]], view.px(body), atol=1e-9)
        assert_no_fit(sample)


def test_every_reader_says_its_splits(people):
    for info in READERS.values():
        try:
            module = info.load()
        except ModuleNotFoundError:
            pytest.skip(f"{info.module} is not written yet")
        assert tuple(module.SPLITS) == info.splits
        assert set(info.files) == set(info.splits)
        assert Path(module.__file__).stem == info.module
