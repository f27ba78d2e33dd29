"""`predict --refine` and `annotate`, with a network that always says the same."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch
from fake_network import FakeNetwork
from PIL import Image

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.cli import main
from wholebody.data.readers import READERS
from wholebody.errors import BadInput
from wholebody.fitting.fit import FitConfig
from wholebody.people.predictor import Predictor
from wholebody.people.refine import Refiner
from wholebody.pipeline import annotate as annotating
from wholebody.pipeline.annotate import AnnotateConfig, annotate

PICTURE = np.full((300, 240, 3), 90, np.uint8)
BOX = [60.0, 30.0, 180.0, 270.0]


@pytest.fixture(scope="module")
def network():
    return FakeNetwork()


@pytest.fixture(scope="module")
def person(network):
    return Predictor(network)(PICTURE, [BOX])[0]


@pytest.fixture(scope="module")
def raised(network, person):
    """Keypoints (133, 3) of the same person with the left arm up and a step to the right."""
    pose = torch.zeros(1, 21, 3)
    pose[0, 15, 2], pose[0, 17, 1] = 0.9, -0.6
    out = network.body(
        global_orient=torch.tensor([[np.pi, 0.0, 0.0]]), body_pose=pose, left_hand_pose=torch.zeros(1, 15, 3),
        right_hand_pose=torch.zeros(1, 15, 3), jaw_pose=torch.zeros(1, 3), betas=torch.zeros(1, 10),
        expression=torch.zeros(1, 10), transl=torch.from_numpy(person.cam_trans)[None] + torch.tensor([0.1, 0.0, 0.0]),
    )  # fmt: skip
    from wholebody.body.joints import COCO_WHOLEBODY_FROM_137
    from wholebody.geometry.camera import project

    seen = network.body.joints_137(out.joints)[0, list(COCO_WHOLEBODY_FROM_137)].numpy()
    return np.concatenate([project(seen, person.focal_px, person.principal_px), np.ones((133, 1))], 1)


def test_a_refined_person_is_one_body(network, person, raised):
    """Moved towards the keypoints, and every field of it says the same."""
    unknown = np.zeros((133, 3))
    moved, left = Refiner(network.body, FitConfig(starts=0))([person, person], np.stack([raised, unknown]))
    assert moved.moved and moved.error < 0.3 * moved.error_before and moved.keypoints == 133
    assert not left.moved and left.person is person and np.isnan(left.error)
    after = moved.person
    np.testing.assert_array_equal(after.box_xyxy, person.box_xyxy)
    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "betas", "expression")
    parameters = {name: torch.from_numpy(getattr(after, name))[None] for name in names}
    again = network.body(**parameters, transl=torch.from_numpy(after.cam_trans)[None])
    np.testing.assert_allclose(again.vertices[0].numpy(), after.vertices_cam, atol=2e-4)
    assert np.linalg.norm(after.keypoints_px - raised[:, :2], axis=1).mean() < 0.02 * 240
    with pytest.raises(BadInput, match="133"):
        Refiner(network.body, FitConfig(starts=0))([person], raised)


def test_nobody_is_moved_onto_a_neighbours_keypoints(network, person, raised):
    refiner = Refiner(network.body, FitConfig(starts=0))
    away = raised + [150, 0, 0]  # outside of the box
    there = dataclasses.replace(person, keypoints_px=person.keypoints_px + np.float32([40, 0]))
    nearer = np.concatenate([there.keypoints_px, np.ones((133, 1))], 1)  # inside, and on the other one
    for people, keypoints in (([person], [away]), ([person, there], [nearer, nearer])):
        left = refiner(people, np.stack(keypoints))[0]
        assert not left.moved and left.person is person and "somebody else" in str(left)
    assert refiner([person], raised[None])[0].moved


def test_a_limb_that_is_unsure_stays_as_predicted_and_the_message_names_what_was_gained(network, person, raised):
    refiner = Refiner(network.body, FitConfig(starts=0))
    unsure = raised.copy()
    unsure[[7, 9], 2] = 0.2  # left elbow and wrist
    sure, kept = refiner([person, person], np.stack([raised, unsure]))
    left_arm = [12, 15, 17, 19]  # collar, shoulder, elbow, wrist of the body pose
    assert np.abs(sure.person.body_pose[left_arm] - person.body_pose[left_arm]).max() > 0.4
    np.testing.assert_allclose(kept.person.body_pose[left_arm], person.body_pose[left_arm], atol=1e-5)
    assert kept.moved and kept.error < kept.error_before
    before, after = sure.gains["arms"]
    assert after < 0.5 * before and "arms" in str(sure) and f"{before:.1%} -> {after:.1%}" in str(sure)
    few = refiner([person], np.where(np.arange(133)[:, None] < 4, raised, 0)[None])[0]
    assert not few.moved and "4 keypoints" in str(few)


def test_what_contradicts_the_depth_that_was_seen_is_not_taken(network, person, raised):
    """A landmarker saw the joints where the prediction has them; the keypoints want the left arm elsewhere."""
    from wholebody.model.embedded.pose_lifting import LIMBS, POINTS

    rows = [SMPLX_JOINTS.index(name) for name in POINTS[LIMBS]]
    hint = np.zeros((25, 4), np.float32)
    hint[LIMBS, :3], hint[LIMBS, 3] = person.joints_cam[rows], 1.0
    refiner = Refiner(network.body, FitConfig(starts=0))
    seen = dataclasses.replace(person, hint_3d=hint)
    left = refiner([seen], raised[None])[0]
    assert not left.moved and "depth" in str(left) and left.person is seen
    hint[LIMBS, :3] = refiner([person], raised[None])[0].person.joints_cam[rows]
    assert refiner([dataclasses.replace(person, hint_3d=hint)], raised[None])[0].moved


@pytest.fixture
def photos(tmp_path, raised, monkeypatch, network):
    """Two pictures with one person each, keypoints of the first, and a network that is there at once."""
    folder = tmp_path / "set" / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("1.png", "sub/2.png"):
        Image.fromarray(PICTURE).save(folder / name)
    rows = [{"image_id": n, "category_id": 1, "bbox": [60, 30, 120, 240], "keypoints": raised.ravel().tolist()}
            for n in ("1", "sub/2")]  # fmt: skip
    (tmp_path / "keypoints.json").write_text(json.dumps(rows))
    monkeypatch.setattr("wholebody.model.load.load_model", lambda *a, **k: network)
    return folder


def test_predict_refine(photos, tmp_path, raised, capsys):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"1.png": [BOX], "2.png": [BOX]}))
    common = [str(photos / "1.png"), "--boxes", str(boxes), "--save", "npz,json", "--device", "cpu"]
    assert main(["predict", *common, "--out", str(tmp_path / "plain")]) == 0
    refine = ["--refine", str(tmp_path / "keypoints.json")]
    assert main(["predict", *common, "--out", str(tmp_path / "refined"), *refine]) == 0
    assert "133 keypoints" in capsys.readouterr().out
    errors = []
    for run in ("plain", "refined"):
        file = np.load(tmp_path / run / "1_person0.npz")
        errors.append(np.linalg.norm(file["keypoints_px"] - raised[:, :2], axis=1).mean())
        assert json.loads(str(file["conventions"])).get("refined_by") == (None if run == "plain" else "keypoints.json")
    assert errors[1] < 0.5 * errors[0]
    missing = ["--refine", str(tmp_path / "missing.json")]
    assert main(["predict", *common, "--out", str(tmp_path / "no"), *missing]) == 2


def test_annotate_hands_on_how_people_are_looked_at_and_keeps_it_the_same(photos, tmp_path, network, monkeypatch):
    asked, scales = {}, []
    monkeypatch.setattr("wholebody.model.load.load_model", lambda *a, **more: asked.update(more) or network)
    made = Predictor.__init__

    def watched(self, *given, **more):
        made(self, *given, **more)
        scales.append(self.box_scale)

    monkeypatch.setattr(Predictor, "__init__", watched)
    plain = AnnotateConfig(photos.parent, keypoints=str(tmp_path / "keypoints.json"), device="cpu")
    annotate(plain, lambda line: None)
    record = json.loads((photos.parent / "annotations" / "train_pictures" / "run.json").read_text())
    assert not {"family", "box_scale"} & set(record) and scales == [1.25]
    tighter = dataclasses.replace(plain, family="smpler_x", any_gender=True, box_scale=1.2)
    with pytest.raises(BadInput, match="box_scale"):
        annotate(tighter, lambda line: None)
    annotate(dataclasses.replace(tighter, split="val"), lambda line: None)
    assert scales == [1.25, 1.2] and asked["family"] == "smpler_x" and asked["any_gender"] is True


def test_annotate_writes_what_training_reads(photos, tmp_path, raised, network):
    root = photos.parent
    config = AnnotateConfig(root, keypoints=str(tmp_path / "keypoints.json"), device="cpu")
    lines: list[str] = []
    first = annotate(config, lines.append)
    assert (first.pictures, first.before, first.people, first.with_parameters) == (2, 0, 2, 2) and len(lines) == 2
    samples = list(READERS["Own"].read(root, "train"))
    assert [s.image_path for s in samples] == ["images/1.png", "images/sub/2.png"]
    sample = samples[0]
    assert sample.body == "open" and sample.camera_valid and sample.pose_valid[:22].all()
    assert sample.pose_valid[25:].all() and sample.expression_valid and sample.joint_valid[:25].sum() > 20
    # The parameters, put back into the body, are seen where the labels are.
    out = network.body(
        global_orient=torch.from_numpy(sample.full_pose[None, 0]).float(),
        body_pose=torch.from_numpy(sample.full_pose[None, 1:22]).float(),
        left_hand_pose=torch.from_numpy(sample.full_pose[None, 25:40]).float(),
        right_hand_pose=torch.from_numpy(sample.full_pose[None, 40:55]).float(),
        jaw_pose=torch.from_numpy(sample.full_pose[None, 22]).float(),
        betas=torch.from_numpy(sample.betas[None]).float(),
        expression=torch.from_numpy(sample.expression[None]).float(),
        transl=torch.from_numpy(sample.transl[None]).float(),
    )  # fmt: skip
    seen = network.body.joints_137(out.joints)[0].numpy()
    pixels = seen[:, :2] / seen[:, 2:] * sample.focal_px + sample.principal_px
    off = np.linalg.norm(pixels - sample.joints_px, axis=1)[sample.joint_valid]
    assert np.median(off) < 0.02 * 240

    written = json.loads((root / "annotations" / "train.json").read_text())
    assert all(0.7 < row["quality"] <= 1 for row in written["annotations"])
    with pytest.raises(BadInput, match="other options"):
        annotate(AnnotateConfig(root, keypoints="movenet"))


def test_annotate_goes_on_where_it_was(photos, tmp_path, monkeypatch):
    root = photos.parent
    config = AnnotateConfig(root, keypoints=str(tmp_path / "keypoints.json"), device="cpu", min_quality=1.0)
    made = []
    whole = annotating._Labeller.__call__

    def stopped(self, picture):
        if made:
            raise KeyboardInterrupt
        made.append(picture.name)
        return whole(self, picture)

    monkeypatch.setattr(annotating._Labeller, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        annotate(config, lambda line: None)
    assert not (root / "annotations" / "train.json").exists()
    monkeypatch.setattr(annotating._Labeller, "__call__", whole)
    (root / "images" / "broken.jpg").write_text("no picture")
    result = annotate(config, lambda line: None)
    assert (result.pictures, result.before, len(result.problems)) == (2, 1, 1)
    assert result.with_parameters == 0 and result.people == 2  # nobody is that good
    assert not [path for path in root.rglob("*.part")]


def test_annotate_does_again_what_changed(photos, tmp_path):
    """A picture or the keypoints, never the clock; names of any length; what was corrected by hand stays."""
    root = photos.parent
    config = AnnotateConfig(root, keypoints=str(tmp_path / "keypoints.json"), device="cpu")
    (photos / "1.png").rename(photos / f"{'é' * 120}_1.png")
    os.utime(photos / "sub" / "2.png", (4e9, 4e9))
    annotate(config, lambda line: None)
    again = annotate(config, lambda line: None)
    assert (again.pictures, again.before) == (2, 2)
    rows = json.loads((tmp_path / "keypoints.json").read_text())
    (tmp_path / "keypoints.json").write_text(json.dumps(rows, indent=1))
    assert annotate(config, lambda line: None).before == 0
    target = root / "annotations" / "train.json"
    target.write_text(target.read_text().replace("person", "human"))
    with pytest.raises(BadInput, match="was changed after .* --overwrite"):
        annotate(config, lambda line: None)
    annotate(dataclasses.replace(config, overwrite=True), lambda line: None)
    assert "human" not in target.read_text()


def test_annotate_leaves_other_labels_alone(photos):
    target = photos.parent / "annotations" / "val.json"
    target.parent.mkdir()
    target.write_text("{}")
    with pytest.raises(BadInput, match="not made by"):
        annotate(AnnotateConfig(photos.parent, keypoints="movenet", split="val"))
    assert target.read_text() == "{}"
    shutil.rmtree(photos)
    with pytest.raises(BadInput, match="no folder `images`"):
        annotate(AnnotateConfig(photos.parent))


def test_quality_falls_with_each_fault(person):
    from wholebody.people.refine import Refined

    good = Refined(person, True, 133, 0.1, 0.01, 1.0)
    points = np.ones((133, 3))
    legless = points.copy()
    legless[11:17, 2] = 0
    best = annotating._quality(good, points)
    assert best > 0.9
    for refined, keypoints in (
        (Refined(person, True, 133, 0.1, 0.08, 1.0), points),
        (Refined(person, True, 133, 0.1, 0.01, 6.0), points),
        (good, legless),
    ):
        assert annotating._quality(refined, keypoints) < 0.6 * best
    assert annotating._quality(Refined(person, False, 2, 0.1, 0.1, 1.0), points) == 0
