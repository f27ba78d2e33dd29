"""BVH, AMASS archives, keypoints and boxes of a film, each read by somebody else's reader."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import warnings

import numpy as np
import pytest
import torch
from made_up_scene import FPS, made_up_scene, photo_scene

from wholebody.body import open_body
from wholebody.body.joints import COCO_WHOLEBODY, SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.body.skeletons import rig_names
from wholebody.errors import BadInput
from wholebody.output import rig as rigs
from wholebody.output.amass import write_amass
from wholebody.output.bvh import write_bvh
from wholebody.output.film import film_path, write_film
from wholebody.output.film_json import write_film_json, write_mot
from wholebody.output.glb import write_glb
from wholebody.output.rig import posed_in_camera, scene_rows


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def scene(body):
    return made_up_scene(body, panning=True, first=5, step=2)


def in_world(scene, motion, points_cam: np.ndarray) -> np.ndarray:
    path = np.linalg.inv(scene.camera_from_world[scene_rows(motion, scene)])
    return np.einsum("tij,tvj->tvi", path[:, :3, :3], points_cam) + path[:, None, :3, 3]


def joints_in_world(scene, motion, body) -> np.ndarray:
    return in_world(scene, motion, np.concatenate([joints for _, _, joints in posed_in_camera(motion, body)]))[:, :55]


@pytest.mark.parametrize("person", [0, 1])
def test_pybvh_reads_our_joints(tmp_path, scene, body, person):
    import pybvh

    path = write_bvh(tmp_path / "a.bvh", scene.people[person], scene, body)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pybvh.read_bvh_file(path, world_up="+y")
    rows = [read.joint_index[name] for name in SMPLX_JOINTS]
    ours = joints_in_world(scene, scene.people[person], body) * 100
    np.testing.assert_allclose(read.joint_positions()[:, rows], ours, atol=0.01)
    assert read.frame_time == pytest.approx(2 / FPS, abs=1e-6)


def test_bvhio_reads_our_joints(tmp_path, scene, body):
    import bvhio

    path = write_bvh(tmp_path / "a.bvh", scene.people[1], scene, body)
    root = bvhio.readAsHierarchy(str(path))
    ours = joints_in_world(scene, scene.people[1], body) * 100
    assert len(root.layout()) == 55
    for frame in (0, 3, 5):
        root.loadPose(frame)
        for joint, _, _ in root.layout():
            row = SMPLX_JOINTS.index(joint.Name)
            np.testing.assert_allclose(np.array(joint.PositionWorld), ours[frame, row], atol=0.02)


def test_a_bvh_turns_without_jumps(tmp_path, body):
    """Angles go on past 180 degrees: a program that blends frames must not spin the person back."""
    scene = made_up_scene(body, 40, ((0, 40),))
    person = scene.people[0]
    spin = np.zeros((40, 3))
    spin[:, 1] = np.linspace(0, 9, 40)
    turned = type(person)(**(vars(person) | {"body_pose": person.body_pose * 0 + spin[:, None] * [[0, 1, 0]] * 0.3}))
    path = write_bvh(tmp_path / "a.bvh", turned, scene, body)
    rows = np.loadtxt(path.read_text().split("Frame Time")[1].splitlines()[1:])
    assert np.abs(np.diff(rows[:, 3:], axis=0)).max() < 90


def test_stock_smplx_poses_the_exported_body_as_we_do(tmp_path, scene, body):
    import smplx

    open_body.export(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        stock = smplx.create(
            str(tmp_path), "smplx", ext="npz", flat_hand_mean=True, use_pca=False, batch_size=12, num_betas=10,
            num_expression_coeffs=10,
        )  # fmt: skip
    motion = scene.people[0]
    path = write_amass(tmp_path / "a.npz", motion, scene, body)
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    poses = torch.from_numpy(arrays["poses"]).float()
    assert poses.shape == (12, 165)
    parts = dict(zip(
        ("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose"),
        poses.split([3, 63, 3, 3, 3, 45, 45], 1), strict=True,
    ))  # fmt: skip
    betas = torch.from_numpy(arrays["betas"]).float().expand(12, -1)
    posed = stock(
        **parts, betas=betas, expression=torch.from_numpy(arrays["expression"]).float(),
        transl=torch.from_numpy(arrays["trans"]).float(),
    )  # fmt: skip
    vertices = np.concatenate([vertices for _, vertices, _ in posed_in_camera(motion, body)])
    np.testing.assert_allclose(posed.vertices.detach().numpy(), in_world(scene, motion, vertices), atol=1e-4)


def test_the_add_ons_fields(tmp_path, scene, body):
    """What the SMPL-X Blender add-on asks for, and what the film adds."""
    with np.load(write_amass(tmp_path / "a.npz", scene.people[1], scene, body), allow_pickle=False) as file:
        assert {"poses", "trans", "betas", "gender", "mocap_frame_rate", "surface_model_type"} <= set(file.files)
        assert (str(file["gender"]), str(file["surface_model_type"])) == ("neutral", "smplx")
        assert file["mocap_frame_rate"] == FPS / 2 and bool(file["flat_hand_mean"])
        assert (file["betas"].shape, file["expression"].shape, file["trans"].shape) == ((10,), (6, 10), (6, 3))
        np.testing.assert_array_equal(file["frames"], scene.people[1].frames)
        np.testing.assert_array_equal(file["filled"], [0, 0, 0, 1, 0, 0])
        assert file["camera_from_world"].shape == (6, 4, 4) and file["camera_focal_px"] == 300


def test_pycocotools_reads_the_keypoints(tmp_path, scene, body):
    from pycocotools.coco import COCO

    path = write_film_json(tmp_path / "a.json", scene, body)
    images = [{"id": int(frame)} for frame in scene.frames]
    (tmp_path / "truth.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "keypoints": COCO_WHOLEBODY}]})
    )
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO(str(tmp_path / "truth.json")).loadRes(str(path))
    rows = found.loadAnns(found.getAnnIds())
    assert len(rows) == sum(len(motion.frames) for motion in scene.people)
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    motion = scene.people[1]
    own = [row for row in rows if row["track_id"] == 1]
    assert [row["image_id"] for row in own] == motion.frames.tolist()
    assert [row["filled"] for row in own] == motion.filled.tolist()
    (joints,) = [joints for _, _, joints in posed_in_camera(motion, body)]
    nose = joints[:, 55]  # the first of the points on the skin
    expected = nose[:, :2] / nose[:, 2:] * scene.camera.focal_px + scene.camera.principal_px
    keypoints = np.array([row["keypoints"] for row in own]).reshape(-1, 133, 3)
    np.testing.assert_allclose(keypoints[:, 0, :2], expected, atol=0.01)
    np.testing.assert_allclose(keypoints[..., 2], motion.confidence[:, None].repeat(133, 1), atol=1e-4)


def test_mot_text(tmp_path, scene):
    rows = np.loadtxt(write_mot(tmp_path / "a.txt", scene), delimiter=",")
    assert rows.shape == (18, 10)
    assert (np.diff(rows[:, 0]) >= 0).all() and set(rows[:, 1]) == {1, 2}
    own = rows[rows[:, 1] == 2]
    np.testing.assert_array_equal(own[:, 0], scene.people[1].frames + 1)
    boxes = scene.people[1].box_xyxy
    np.testing.assert_allclose(own[:, 2:6], np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1), atol=0.011)


def test_a_whole_film(tmp_path, scene, body):
    kinds = ("glb", "bvh", "npz", "json", "mot")
    written = write_film(tmp_path, "sub/clip", scene, body, save=kinds)
    assert written[-1] == film_path(tmp_path, "sub/clip", "json")
    names = {path.name for path in (tmp_path / "sub").iterdir()}
    assert names == {
        "clip.glb", "clip.json", "clip_mot.txt", "clip_person0.bvh", "clip_person1.bvh", "clip_person0.npz",
        "clip_person1.npz",
    }  # fmt: skip
    with pytest.raises(BadInput, match="fbx"):
        write_film(tmp_path, "clip", scene, body, save=("fbx",))


def test_long_films_are_written_in_parts_that_nobody_sees(tmp_path, scene, body, monkeypatch):
    kinds = ("glb", "bvh", "npz", "json")
    whole = write_film(tmp_path / "whole", "clip", scene, body, save=kinds)
    monkeypatch.setattr(rigs, "_PART", 5)
    parts = write_film(tmp_path / "parts", "clip", scene, body, save=kinds)
    assert [path.name for path in whole] == [path.name for path in parts]
    for one, other in zip(whole, parts, strict=True):
        if one.suffix == ".npz":
            with np.load(one) as a, np.load(other) as b:
                for name in a.files:
                    np.testing.assert_array_equal(a[name], b[name])
        elif one.suffix == ".bvh":
            a, b = (np.loadtxt(path.read_text().split("Frame Time:")[1].splitlines()[1:]) for path in (one, other))
            np.testing.assert_allclose(a, b, atol=2e-5)
        else:
            assert one.read_bytes() == other.read_bytes()


def test_nobody_and_one_frame(tmp_path, body):
    nobody = made_up_scene(body, 3, ())
    write_film(tmp_path, "nobody", nobody, body, save=("json", "mot", "glb"))
    assert json.loads((tmp_path / "nobody.json").read_text()) == []
    assert (tmp_path / "nobody_mot.txt").read_text() == ""
    photo = photo_scene(body, 1)
    write_bvh(tmp_path / "photo.bvh", photo.people[0], photo, body)
    assert "Frames: 1\n" in (tmp_path / "photo.bvh").read_text()


@pytest.mark.parametrize("rig", ["mixamo", "unity"])
def test_joints_can_have_the_names_of_other_rigs(tmp_path, scene, body, rig):
    names = set(rig_names(rig))
    text = write_bvh(tmp_path / "a.bvh", scene.people[0], scene, body, rig=rig).read_text()
    assert {line.split()[1] for line in text.splitlines() if line.split()[0] in ("ROOT", "JOINT")} == names
    data = write_glb(tmp_path / "a.glb", scene, body, rig=rig).read_bytes()
    gltf = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert {gltf["nodes"][joint]["name"] for joint in gltf["skins"][0]["joints"]} == names
    with pytest.raises(BadInput, match="known: smplx, mixamo, unity"):
        write_bvh(tmp_path / "b.bvh", scene.people[0], scene, body, rig="maya")


def test_whoever_poses_people_goes_on_learning(scene, body):
    """Two people posed in turn, and given up half way: gradients are still recorded afterwards."""
    first, second = (posed_in_camera(motion, body, chunk=2) for motion in scene.people[:2])
    next(first), next(second)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    first.close()
    second.close()
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
