"""The `.glb` of a scene, read back by a reader that is not ours."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from gltf_reader import Reader
from made_up_scene import made_up_scene, photo_scene

from wholebody.body.joints import PARENTS, SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput, OutputError
from wholebody.output import glb
from wholebody.output.glb import glb_bytes, write_glb
from wholebody.output.rig import posed_in_camera, scene_rows


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load()


@pytest.fixture(scope="module")
def scene(body):
    return made_up_scene(body, panning=True, first=7)


@pytest.fixture(scope="module")
def film(scene, body) -> Reader:
    return Reader(glb_bytes(scene, body))


def vertices_in_world(scene, motion, body) -> np.ndarray:
    """(T, V, 3) by the body layer alone: posed before the camera, then carried into the world."""
    world_from_camera = np.linalg.inv(scene.camera_from_world[scene_rows(motion, scene)])
    vertices = np.concatenate([vertices for _, vertices, _ in posed_in_camera(motion, body)])
    return np.einsum("tij,tvj->tvi", world_from_camera[:, :3, :3], vertices) + world_from_camera[:, None, :3, 3]


def worst_mm(reader: Reader, scene, body, rows=(0, 2, 3, 4, 5)) -> float:
    worst = 0.0
    for number, motion in enumerate(scene.people):
        ours = vertices_in_world(scene, motion, body)
        for row in rows:
            if row < len(motion.frames):
                theirs = reader.vertices(f"person{number}_body", motion.times[row] - scene.times[0])
                worst = max(worst, np.abs(theirs[: body.num_vertices] - ours[row]).max() * 1000)
    return worst


def test_skinned_vertices_are_ours(film, scene, body):
    assert worst_mm(film, scene, body, (0, 1, 3, 5, 11)) < 0.5


def test_correctives_matter_and_expression_moves(film, scene, body):
    """The morph targets are not decoration: without them the skin is centimetres off."""
    mesh = film.gltf.meshes[0]
    names = mesh.extras["targetNames"]
    ends = ("", "_minus")
    assert names[:20] == [f"expression_{k}{end}" for k in range(10) for end in ends]
    assert 40 < len(names) == len(set(names))
    holder = film.node("person0_body")
    for k, expression in enumerate(scene.people[0].expression):
        weights = film.at(scene.people[0].times[k] - scene.times[0])[holder, "weights"]
        signed = (weights[:20:2] - weights[1:20:2]) * mesh.extras["expressionReach"]
        np.testing.assert_allclose(signed, expression, atol=1e-5)
        assert weights.min() >= 0 and weights.max() <= 1  # Blender and Unity cut off all others
    sizes = [np.abs(film.array(target["POSITION"])).max() for target in mesh.primitives[0].targets]
    assert max(sizes[20:]) > 0.01


def test_a_photo_stands_still(body):
    scene = photo_scene(body)
    reader = Reader(glb_bytes(scene, body))
    assert not reader.gltf.animations
    assert worst_mm(reader, scene, body, (0,)) < 0.5


def test_a_licensed_layout_without_uvs_and_with_dense_correctives(standin_dir):
    """Expression moves joints there, correctives are dense and the relaxed hand is added."""
    body = BodyModel.load(standin_dir)
    scene = made_up_scene(body, 4, ((0, 4),), amplitude=0.3)
    reader = Reader(glb_bytes(scene, body))
    assert reader.gltf.meshes[0].primitives[0].attributes.TEXCOORD_0 is None
    assert worst_mm(reader, scene, body, (0, 2, 3)) < 1


def test_skeleton_has_names_and_stands_where_joints_are(film, scene, body):
    for number, motion in enumerate(scene.people):
        skin = film.gltf.skins[number]
        assert [film.gltf.nodes[joint].name for joint in skin.joints] == list(SMPLX_JOINTS)
        for joint, parent in enumerate(PARENTS):
            if parent >= 0:
                assert skin.joints[joint] in film.gltf.nodes[skin.joints[parent]].children
        (joints,) = [joints for _, _, joints in posed_in_camera(motion, body)]
        path = np.linalg.inv(scene.camera_from_world[scene_rows(motion, scene)])
        ours = np.einsum("tij,tvj->tvi", path[:, :3, :3], joints[:, :55]) + path[:, None, :3, 3]
        world = film.world_matrices(motion.times[4] - scene.times[0])
        np.testing.assert_allclose([world[joint][:3, 3] for joint in skin.joints], ours[4], atol=2e-5)


def test_people_who_are_not_there_have_no_size(film, scene):
    node = film.node("person1")
    seen = [film.at(time - scene.times[0] + 1e-4)[node, "scale"][0] for time in scene.times]
    np.testing.assert_array_equal(seen, [0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0])
    assert (film.node("person0"), "scale") not in film.at(0.0)


def test_camera_sees_what_the_film_saw(film, scene, body):
    """A vertex seen through the file's camera lies on the pixel where ours does."""
    number = film.node("camera")
    perspective = film.gltf.cameras[film.gltf.nodes[number].camera].perspective
    width, height = scene.camera.image_wh
    assert perspective.aspectRatio == pytest.approx(width / height)
    for row in (0, 7):
        seconds = scene.times[row] - scene.times[0]
        points = film.vertices("person0_body", seconds)[:500]
        eye = np.linalg.inv(film.world_matrices(seconds)[number])
        seen = points @ eye[:3, :3].T + eye[:3, 3]
        half = np.tan(perspective.yfov / 2)
        ndc = seen[:, :2] / -seen[:, 2:] / [half * perspective.aspectRatio, half]
        pixels = (ndc * [1, -1] + 1) / 2 * [width, height] - 0.5
        (vertices,) = [vertices for _, vertices, _ in posed_in_camera(scene.people[0], body)]
        ours = vertices[row, :500]
        expected = ours[:, :2] / ours[:, 2:] * scene.camera.focal_px + scene.camera.principal_px
        np.testing.assert_allclose(pixels, expected, atol=0.1)


def test_uvs_are_the_bodys(film, body):
    uv = film.array(film.gltf.meshes[0].primitives[0].attributes.TEXCOORD_0)
    wanted = np.unique(body.extras["vt"][np.unique(body.extras["ft"])], axis=0)  # stored in 65535 steps
    flipped = np.stack([uv[:, 0], 1 - uv[:, 1]], 1)
    np.testing.assert_array_equal(np.unique(np.rint(flipped * 65535), axis=0), np.rint(wanted * 65535))
    assert 0 <= uv.min() and uv.max() <= 1


def test_looks(body):
    scene = photo_scene(body, 1)
    clothed, mannequin = (Reader(glb_bytes(scene, body, look=look)) for look in ("clothed", "mannequin"))
    names = {material.name for material in clothed.gltf.materials}
    assert {"person0_shirt", "person0_trousers", "person0_shoes", "person0_skin", "person0_hair"} <= names
    assert [material.name for material in mannequin.gltf.materials] == ["person0_body"]
    for reader in (clothed, mannequin):  # every face is painted once
        drawn = sum(reader.gltf.accessors[part.indices].count for part in reader.gltf.meshes[0].primitives)
        assert drawn == 3 * len(body.faces)
    with pytest.raises(BadInput, match="mannequin"):
        glb_bytes(scene, body, look="nude")


def test_what_a_glb_cannot_hold_is_said_before_it_is_written(body, monkeypatch):
    monkeypatch.setattr(glb, "MOST_BYTES", 100_000)
    with pytest.raises(OutputError, match="--fps"):
        glb_bytes(made_up_scene(body, 2, ((0, 2),)), body)


def test_nobody_in_it(body):
    scene = made_up_scene(body, 3, ())
    reader = Reader(glb_bytes(scene, body))
    assert [node.name for node in reader.gltf.nodes] == ["camera"]


def test_one_frame_of_a_film(body):
    scene = made_up_scene(body, 6, ((2, 3),))
    assert worst_mm(Reader(glb_bytes(scene, body)), scene, body, (0,)) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["film", "photo", "mannequin", "one frame", "nobody", "licensed"])
def test_the_validator_has_nothing_to_say(tmp_path, body, kind, request):
    """Khronos' validator, npm `gltf-validator`: no error, no warning."""
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    if kind == "licensed":
        body = BodyModel.load(request.getfixturevalue("standin_dir"))
    scene = {
        "photo": lambda: photo_scene(body),
        "one frame": lambda: made_up_scene(body, 6, ((2, 3),)),
        "nobody": lambda: made_up_scene(body, 3, ()),
    }.get(kind, lambda: made_up_scene(body, panning=True))()
    write_glb(tmp_path / "a.glb", scene, body, look="mannequin" if kind == "mannequin" else "clothed")
    script = (
        "const v = require('gltf-validator'), fs = require('fs');"
        "v.validateBytes(new Uint8Array(fs.readFileSync('a.glb'))).then(r => console.log(JSON.stringify(r.issues)))"
    )
    npm = subprocess.run(["npm", "install", "--no-save", "--silent", "gltf-validator"], cwd=tmp_path, check=False)
    if npm.returncode:
        pytest.skip("npm cannot fetch gltf-validator here")
    issues = json.loads(subprocess.run(["node", "-e", script], cwd=tmp_path, capture_output=True, check=True).stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues["messages"][:5]
