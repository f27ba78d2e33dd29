"""EHF and 3DPW as forged come out of the readers."""

import json
import shutil

import cv2
import numpy as np
import pytest
from data.forge import ehf as forge_ehf
from data.forge import pw3d as forge_pw3d
from data.forge.people import rotation

from wholebody.data.readers import READERS
from wholebody.data.readers.meshes import read_vertices, true_mesh
from wholebody.errors import BadInput


@pytest.fixture(scope="module")
def root(people, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for name, forge in (("EHF", forge_ehf), ("PW3D", forge_pw3d)):
        (root / name).mkdir()
        forge.forge(root / name, people)
    return root


@pytest.fixture
def copy(root, tmp_path):
    """A copy of the annotations (and meshes), with empty pictures, that a test may spoil."""

    def take(source, target):
        return open(target, "w").close() if source.endswith(".jpg") else shutil.copyfile(source, target)

    shutil.copytree(root, tmp_path / "sets", copy_function=take)
    return tmp_path / "sets"


def read(root, name, split, **options):
    return list(READERS[name].read(root / name, split, **options))


def in_picture(view):
    x, y, width, height = view.box_xywh()
    return [x, y, min(x + width - 1, view.wh[0] - 1), min(y + height - 1, view.wh[1] - 1)]


def test_ehf(root, people):
    samples = read(root, "EHF", "test")
    assert len(samples) == len(people) - 1  # whose box is empty
    for sample, person in zip(samples, people, strict=False):
        view = forge_ehf.seen(person)
        assert cv2.imread(str(root / "EHF" / sample.image_path)).shape[:2] == sample.image_hw == (1200, 1600)
        np.testing.assert_allclose(sample.box_xyxy, in_picture(view), atol=1e-9)
        for k, name in enumerate(("left_hand_box", "right_hand_box", "face_box")):
            truth = getattr(view, name)
            assert sample.part_valid[k] == (truth is not None)
            if truth is not None:
                np.testing.assert_allclose(getattr(sample, name), truth, atol=1e-9)
        # In the camera frame, from binary, ASCII and .obj files alike.
        mesh = true_mesh(root / "EHF", sample)
        np.testing.assert_allclose(mesh, person.vertices_cam, atol=2e-6)
        np.testing.assert_array_equal(sample.focal_px, view.focal)
        np.testing.assert_array_equal(sample.principal_px, view.principal)
        assert sample.body == "" and not sample.joint_valid.any() and not sample.pose_valid.any()


def test_meshes_that_are_damaged_or_missing(copy):
    sample = read(copy, "EHF", "test")[0]
    path = copy / "EHF" / sample.mesh_path
    content = path.read_bytes()
    for damaged in (content[:5000], b"solid nothing", b"ply\nformat binary_little_endian 1.0\n", b""):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="01_align.ply is damaged"):
            true_mesh(copy / "EHF", sample)
    path.write_text("ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
                    "end_header\n0 nan 1\n")  # fmt: skip
    with pytest.raises(BadInput, match="not finite"):
        true_mesh(copy / "EHF", sample)
    path.unlink()
    with pytest.raises(BadInput, match="is missing"):
        true_mesh(copy / "EHF", sample)
    with pytest.raises(BadInput, match="not a mesh that is understood"):
        read_vertices(copy / "mesh.stl")


def test_big_endian_meshes(tmp_path):
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 2\nproperty double x\nproperty double y\n" \
        "property double z\nend_header\n"  # fmt: skip
    (tmp_path / "x.ply").write_bytes(header.encode() + np.array([1, 2, 3, 4, 5, 6], ">f8").tobytes())
    np.testing.assert_array_equal(read_vertices(tmp_path / "x.ply"), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_pw3d(root, people, split):
    samples = read(root, "PW3D", split)
    assert len(samples) == len(people) - (split == "train")
    for sample, person in zip(samples, people, strict=False):
        view = forge_pw3d.seen(person)
        assert sample.image_path.startswith("imageFiles/") and (root / "PW3D" / sample.image_path).is_file()
        assert sample.image_hw == (1920, 1080)
        np.testing.assert_allclose(sample.box_xyxy, in_picture(view), atol=1e-9)
        np.testing.assert_allclose(sample.focal_px, view.focal, atol=1e-9)
        np.testing.assert_allclose(sample.principal_px, view.principal, atol=1e-9)
        assert sample.camera_valid == person.fitted and not sample.joint_valid.any()
        if not person.fitted:
            assert sample.body == "" and not sample.pose_valid.any() and not sample.shape_valid
            continue
        # SMPL's pose up to the wrists; of hands and face nothing is known.
        assert sample.body == "smpl" and sample.gender == ("male", "female")[person.number % 2]
        assert sample.pose_valid[:22].all() and not sample.pose_valid[22:].any() and not sample.expression_valid
        np.testing.assert_allclose(sample.full_pose[0], person.root_pose, atol=1e-12)
        np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-12)
        np.testing.assert_allclose(sample.betas, person.betas, atol=1e-12)
        np.testing.assert_allclose(sample.transl, person.transl, atol=1e-12)


def spoil(root, change):
    path = root / "PW3D" / "data" / "3DPW_test.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_pw3d_in_a_world_frame(copy, people):
    person = people[0]

    def change(content):
        content["images"][0]["cam_param"] |= {"R": person.world_R.tolist(), "t": person.world_t.tolist()}
        pose = content["annotations"][0]["smpl_param"]["pose"]
        content["annotations"][0]["smpl_param"]["pose"] = person.root_pose_world.tolist() + pose[3:]
        content["annotations"][0]["smpl_param"]["trans"] = person.transl_world.tolist()

    spoil(copy, change)
    sample = read(copy, "PW3D", "test")[0]
    np.testing.assert_allclose(rotation(sample.full_pose[0]), rotation(person.root_pose), atol=1e-6)
    rest_pelvis = person.joints_144_cam[0] - person.transl
    np.testing.assert_allclose(sample.transl_cam(rest_pelvis), person.transl, atol=1e-5)


def test_pw3d_parameters_that_are_not_numbers(copy):
    spoil(copy, lambda content: content["annotations"][0]["smpl_param"]["pose"].__setitem__(5, float("nan")))
    with pytest.raises(BadInput, match="3DPW_test.json: 'pose'.*not finite"):
        read(copy, "PW3D", "test")
    sample = read(copy, "PW3D", "test", damaged="mask")[0]
    assert sample.body == "" and not sample.pose_valid.any() and not sample.camera_valid
    with pytest.raises(BadInput, match="damaged='skip'"):
        read(copy, "PW3D", "test", damaged="skip")


def test_pictures_beside_the_annotations(copy):
    """Where the published code looks for them, against its own README."""
    (copy / "PW3D" / "imageFiles").rename(copy / "PW3D" / "data" / "imageFiles")
    assert (copy / "PW3D" / read(copy, "PW3D", "test")[0].image_path).is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"].pop(0), "annotation 1000 belongs to picture 100"),
        (lambda c: c["annotations"][0].pop("bbox"), "entry 1000 has no 'bbox'"),
        (lambda c: c["images"][0].pop("sequence"), "entry 100 has no 'sequence'"),
        (lambda c: c["annotations"][0]["smpl_param"].pop("trans"), "no 'trans'"),
        (lambda c: c.pop("annotations"), "lacks 'annotations'"),
    ],
)
def test_wrong_keys(copy, change, message):
    spoil(copy, change)
    with pytest.raises(BadInput, match=message):
        read(copy, "PW3D", "test")


@pytest.mark.parametrize(("name", "split"), [("EHF", "test"), ("PW3D", "train")])
def test_sets_that_are_not_there(tmp_path, name, split):
    with pytest.raises(BadInput, match="is not complete in .*https:"):
        read(tmp_path, name, split)
