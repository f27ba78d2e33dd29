"""The published targets equal what the published code computed, and hang together as a body in a picture does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from data.forge import mscoco

from wholebody.body.joints import JOINTS_137
from wholebody.data.mesh_joints import JointPoser, MeshJoints
from wholebody.data.readers import READERS
from wholebody.data.readers.coco_format import Fits, joints_by_name
from wholebody.data.sample import masked_sample, matrix_to_axis_angle
from wholebody.geometry.camera import Camera, warp_camera
from wholebody.geometry.crop import crop_affine, fit_box
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.training.published import targets as P
from wholebody.training.published.targets import published_targets

CASES = ("plain", "rot", "flip", "Rt_flip", "no_lhand_no_face_flip_female", "large_beta")
J = {name: row for row, name in enumerate(JOINTS_137)}


def crop_of(arrays, trans, flip):
    """Our crop of the published one, which mirrors the picture first."""
    width = int(arrays["in/img_shape_hw"][1])
    crop = np.asarray(trans, np.float64)
    return (
        np.concatenate([crop, [[0, 0, 1]]]) @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1.0]]) if flip else crop
    )


@pytest.fixture(scope="module")
def mesh_joints(standin_dir, standin_arrays):
    """The stand-in's joints; bodies are built from arrays that other tests have read."""
    joints = MeshJoints(standin_dir)
    joints._bodies = {g: JointPoser(standin_arrays(g)) for g in ("neutral", "female")}
    return joints


def sample_of(arrays, case):
    """The oracle's parameters and camera, through the reader's own translation of NeuralAnnot's form."""
    param = {k.split("/")[-1]: v for k, v in arrays.items() if k.startswith(f"in/{case}/param/")}
    param = {k: (v.item() if v.shape == () else v) for k, v in param.items()}
    camera = {k.split("/")[-1]: v for k, v in arrays.items() if k.startswith(f"in/{case}/cam/")}
    fits = Fits("oracle")
    fits.add("x", param, camera)
    extrinsics = (camera["R"], camera.get("t")) if "R" in camera else (None, None)
    return masked_sample("x", [0, 0, 1, 1], **fits.fields("x", (False,) * 3, *extrinsics))


@pytest.mark.parametrize("case", CASES)
def test_fitted_bodies_are_the_published_ones(oracle, mesh_joints, case):
    arrays = oracle("human_model")
    out = {k.removeprefix(f"out/{case}/"): v for k, v in arrays.items() if k.startswith(f"out/{case}/")}
    sample = sample_of(arrays, case)
    crop = crop_of(arrays, arrays[f"in/{case}/trans"], arrays[f"in/{case}/flip"])[:2]
    found = published_targets(sample, crop, mesh_joints(sample))

    if case != "large_beta":  # whose shape was overwritten before it was written down
        np.testing.assert_allclose(found["smplx_joint_img"], out["joint_img"], atol=2e-4)
        np.testing.assert_array_equal(found["smplx_joint_trunc"], out["joint_trunc"] * out["coord_valid"][:, None])
    np.testing.assert_array_equal(found["smplx_joint_valid"][:, 0], out["coord_valid"])
    if case == "plain":  # made with a crop that rotates and an angle of zero: space as if it did not
        found = published_targets(sample, np.eye(2, 3), mesh_joints(sample))
    if case != "large_beta":
        np.testing.assert_allclose(found["smplx_joint_cam"], out["joint_cam"], atol=2e-5)
    pose, published = (torch.as_tensor(x.reshape(53, 3)).double() for x in (found["smplx_pose"], out["pose"]))
    np.testing.assert_allclose(axis_angle_to_matrix(pose), axis_angle_to_matrix(published), atol=2e-5)
    np.testing.assert_array_equal(found["smplx_pose_valid"], np.repeat(out["rotation_valid"], 3))
    np.testing.assert_allclose(found["smplx_shape"], out["shape"], atol=1e-6)
    np.testing.assert_allclose(found["smplx_expr"], out["expr"], atol=1e-6)
    assert found["smplx_expr_valid"] == out["expr_valid"] and found["smplx_shape_valid"] == 1


def test_a_camera_that_only_turns_leaves_the_mesh_where_it_is(oracle, mesh_joints):
    """AGORA-like files give a rotation and no translation: the published code then turns the body about its pelvis."""
    arrays = oracle("human_model")
    sample = sample_of(arrays, "R_only")
    sample = replace(sample, extrinsic_rotation=None, transl=arrays["in/R_only/param/trans"])
    crop = crop_of(arrays, arrays["in/R_only/trans"], False)
    found = published_targets(sample, crop, mesh_joints(sample))
    np.testing.assert_allclose(found["smplx_joint_cam"], arrays["out/R_only/joint_cam"], atol=2e-5)
    np.testing.assert_allclose(found["smplx_joint_img"], arrays["out/R_only/joint_img"], atol=2e-4)


@pytest.mark.parametrize("name", ["MSCOCO", "AGORA"])
@pytest.mark.parametrize("n", [0, 1])
def test_joint_sets_map_by_name_as_the_published_ones(oracle, name, n):
    arrays = oracle("db_coord")
    given = {k.removeprefix(f"in/{name}/"): v for k, v in arrays.items() if k.startswith(f"in/{name}/")}
    published = {k.removeprefix(f"out/{name}/{n}/"): v for k, v in arrays.items() if k.startswith(f"out/{name}/{n}/")}
    names = [str(x) for x in given["joints_name"]]
    crop = crop_of(arrays, arrays[f"in/trans/{n}"], arrays["in/flip"][n])[:2]
    img, mapped = joints_by_name(names, given["joint_img"])
    cam, _ = joints_by_name(names, given["joint_cam"])
    valid, _ = joints_by_name(names, given["joint_valid"])
    cells, cam, inside = P.joint_targets(img[:, :2], img[:, 2], cam, crop)
    flip = P._FLIP_JOINTS if arrays["in/flip"][n] else np.arange(137)
    mapped, valid = mapped[flip], valid[flip] > 0
    assert mapped.sum() > 110
    np.testing.assert_allclose(cells[mapped], published["joint_img"][mapped], atol=2e-4)
    np.testing.assert_allclose(cam[mapped], published["joint_cam"][mapped], atol=1e-5)
    np.testing.assert_array_equal(valid, published["joint_valid"])
    np.testing.assert_array_equal((valid[:, 0] & inside)[mapped], published["joint_trunc"][mapped, 0] > 0)


def test_shapes_far_from_the_mean_are_learnt_as_the_mean():
    betas = np.array([0.5, -2.9, 0, 0, 0, 0, 0, 0, 0, 0])
    sample = masked_sample("x", [0, 0, 10, 10], betas=betas, shape_valid=True)
    np.testing.assert_allclose(published_targets(sample, np.eye(2, 3))["smplx_shape"], betas, atol=1e-6)
    found = published_targets(replace(sample, betas=betas * 1.1), np.eye(2, 3))
    assert not found["smplx_shape"].any() and found["smplx_shape_valid"] == 1


@pytest.mark.parametrize("n", [0, 1])
def test_part_boxes_are_the_published_ones(oracle, n):
    arrays = oracle("db_coord")
    crop = crop_of(arrays, arrays[f"in/trans/{n}"], arrays["in/flip"][n])[:2]
    box = P.part_box_cells(arrays["in/hand_face_bbox_xyxy"], crop)
    np.testing.assert_allclose(box, arrays[f"out/hand_face_bbox/MSCOCO/{n}"], atol=1e-4)
    np.testing.assert_array_equal(P.part_box_cells(None, crop), arrays["out/hand_face_bbox/MSCOCO/none"])


def test_keys_and_shapes_are_those_of_the_published_loader(fill):
    truth, masks = fill["train_batch"](batch=1)
    found = published_targets(masked_sample("x", [0, 0, 10, 10]), np.eye(2, 3))
    expected = {**truth, **masks}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape[1:], name
        assert found[name].dtype == np.float32
    assert all(not found[name].any() for name in masks)  # of whom nothing is known


@pytest.fixture(scope="module")
def samples(people, tmp_path_factory):
    """Forged COCO people, posed with the open body."""
    root = tmp_path_factory.mktemp("coco")
    mscoco.forge(root, people)
    found = {s.id: replace(s, body="open" if s.body else "") for s in READERS["MSCOCO"].read(root, "train")}
    return [found[str(mscoco.annotation_id(p))] for p in people]


@pytest.fixture(scope="module")
def open_joints():
    return MeshJoints("open")


CROPS = [(0.0, False), (0.6, False), (-0.4, True)]


@pytest.mark.parametrize("angle, flip", CROPS)
def test_the_mesh_is_where_the_picture_shows_it(people, samples, open_joints, angle, flip):
    """Mesh joints of forged parameters fall on the joints that were drawn, in every crop."""
    for person, sample in zip(people, samples, strict=True):
        crop = crop_affine(fit_box(sample.box_xyxy), angle, flip=flip)[0]
        mesh = open_joints(sample)
        assert (mesh is not None) == person.fitted
        found = published_targets(sample, crop, mesh)
        if not person.fitted:
            assert not found["smplx_joint_valid"].any() and not found["smplx_pose_valid"].any()
            continue
        both = (found["smplx_joint_trunc"] * found["joint_trunc"])[:, 0] > 0
        # Not the pelvis, which COCO has between the hips, nor what was rounded to whole pixels (a cell is 32 of the
        # crop's), nor the nose where it stands for its tip, nor the eyes where expressions were drawn and not known.
        both[[J["Pelvis"], J["Face_18"], J["L_Eye"], J["R_Eye"], J["Nose"]]] = False
        gap = np.linalg.norm(found["smplx_joint_img"][:, :2] - found["joint_img"][:, :2], axis=1)
        pixel = 0.75 * np.sqrt(abs(np.linalg.det(crop[:, :2]))) / 32
        assert both.sum() > 6
        assert gap[both].max() < pixel + 1e-3
        assert gap[25:][both[25:]].max(initial=0) < 2e-3  # hands and face were not rounded


@pytest.mark.parametrize("angle, flip", CROPS)
def test_turned_places_seen_by_the_turned_camera_are_the_pixels(samples, open_joints, angle, flip):
    sample = samples[0]
    sample = replace(sample, focal_px=np.full(2, sample.focal_px.mean()))  # square pixels: a rotated crop needs them
    crop = crop_affine(fit_box(sample.box_xyxy), angle, flip=flip)[0]
    mesh = open_joints(sample)
    found = published_targets(sample, crop, mesh)
    camera, turn = warp_camera(Camera(sample.focal_px, sample.principal_px), crop)
    body = found["smplx_joint_cam"][:25] + turn @ mesh[0]
    np.testing.assert_allclose(camera.project(body) / 32, found["smplx_joint_img"][:25, :2], atol=1e-4)


def test_a_mirror_swaps_sides_of_what_is_known(samples):
    by_person = {"left hand": samples[1], "right hand and face": samples[3]}
    for what, sample in by_person.items():
        box = fit_box(sample.box_xyxy)
        straight, mirrored = (published_targets(sample, crop_affine(box, flip=flip)[0]) for flip in (False, True))
        left_known, right_known = what != "left hand", what == "left hand"
        for found, first, second in ((straight, left_known, right_known), (mirrored, right_known, left_known)):
            assert found["lhand_bbox_valid"] == first and found["rhand_bbox_valid"] == second
            pose = found["smplx_pose_valid"].reshape(53, 3)
            assert pose[22:37].all() == first and pose[37:52].all() == second
            assert found["joint_valid"][25:45].any() == first and found["joint_valid"][45:65].any() == second
        np.testing.assert_allclose(straight["rhand_bbox_size"], mirrored["lhand_bbox_size"], atol=1e-5)
        assert straight["is_3D"] == 0 and not straight["joint_cam"].any()


def test_guessed_wrists_and_ankles_are_masked_with_the_feet(people, open_joints, tmp_path):
    from data.forge import mpii

    mpii.forge(tmp_path, people[:1])
    (sample,) = READERS["MPII"].read(tmp_path, "train")
    sample = replace(sample, body="open")
    found = published_targets(sample, np.eye(2, 3), open_joints(sample))
    feet = [J[f"{side}_{point}"] for side in "LR" for point in ("Big_toe", "Small_toe", "Heel")]
    known = np.ones(137, bool)
    known[feet], known[25:] = False, False  # the file holds no hands and no face
    np.testing.assert_array_equal(found["smplx_joint_valid"][:, 0] > 0, known)
    assert found["smplx_pose_valid"].reshape(53, 3)[:, 0].sum() == 22 - 4


def test_measured_joints_make_a_3d_sample(people, tmp_path):
    from data.forge import human36m

    human36m.forge(tmp_path, people[:1])
    (sample,) = READERS["Human36M"].read(tmp_path, "train")
    crop = crop_affine(fit_box(sample.box_xyxy), 0.3, flip=True)[0]
    found = published_targets(sample, crop)
    assert found["is_3D"] == 1
    known = found["joint_valid"][:, 0] > 0
    assert known.sum() == 14 and (found["joint_trunc"][:, 0] > 0).sum() == 14
    truth = (people[0].joints_137_cam - people[0].joints_137_cam[0])[:, 2]
    # Depth is not touched by the crop, but sides are.
    np.testing.assert_allclose(found["joint_cam"][J["L_Knee"], 2], truth[J["R_Knee"]], atol=1e-5)
    np.testing.assert_allclose(found["joint_img"][known, 2], (found["joint_cam"][known, 2] + 1) * 8, atol=1e-4)


def test_hands_measured_from_the_flat_hand_are_brought_to_the_relaxed_one(samples, open_joints):
    sample, joints = samples[0], open_joints
    mean = joints.hand_mean()
    pose = sample.full_pose.copy()
    pose[25:55] += mean
    flat = replace(sample, full_pose=pose, flat_hand=True)
    crop = crop_affine(fit_box(sample.box_xyxy))[0]
    expected = published_targets(sample, crop, joints(sample))
    found = published_targets(flat, crop, joints(flat), mean)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)
    unknown = published_targets(flat, crop)["smplx_pose_valid"].reshape(53, 3)
    assert not unknown[22:52].any() and unknown[:22].all()


def test_a_root_that_is_not_known_hides_what_hangs_from_it(people, tmp_path):
    from data.forge import human36m

    human36m.forge(tmp_path, people[:1])
    (sample,) = READERS["Human36M"].read(tmp_path, "train")
    valid = sample.joint_cam_valid.copy()
    valid[J["Pelvis"]] = False
    found = published_targets(replace(sample, joint_cam_valid=valid), np.eye(2, 3))
    assert found["is_3D"] == 0 and found["joint_valid"].sum() == 14  # a 2D sample


def test_rotations_near_half_a_turn_stay_rotations():
    sample = masked_sample("x", [0, 0, 10, 10], full_pose=np.zeros((55, 3)), pose_valid=np.ones(55, bool))
    pose = sample.full_pose.copy()
    pose[0] = [np.pi - 1e-9, 0, 0]
    found = published_targets(replace(sample, full_pose=pose, flat_hand=False), crop_affine([0, 0, 30, 40], 0.5)[0])
    c, s = np.cos(0.5), np.sin(0.5)
    expected = matrix_to_axis_angle(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ np.diag([1.0, -1, -1]))
    turned = torch.as_tensor(found["smplx_pose"][:3]).double()
    np.testing.assert_allclose(axis_angle_to_matrix(turned), axis_angle_to_matrix(torch.as_tensor(expected)), atol=1e-5)


def test_mesh_joints_travel_to_other_processes_without_their_bodies(samples, open_joints):
    import pickle

    sent = pickle.dumps(open_joints)
    assert len(sent) < 1000  # a body takes megabytes
    np.testing.assert_allclose(pickle.loads(sent)(samples[0]), open_joints(samples[0]), atol=1e-6)
