"""PCK and face errors on labelled photos: the truth meets every label, a shift of more than a tenth meets none."""

import json

import cv2
import numpy as np
import pytest
from networks import PixelNetwork

from wholebody.body.joints import COCO_FACE, COCO_HANDS, COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, LIMBS_12
from wholebody.cli import main
from wholebody.data.sample import masked_sample
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation import keypoints2d as K
from wholebody.evaluation.inference import crop_box_of

HW = (300, 400)


def person_of(rng, box_xywh, number, visible=2):
    """A COCO-WholeBody annotation with labels inside a box."""
    x, y, width, height = box_xywh

    def points(count, flag):
        drawn = np.column_stack([x + width * rng.random(count), y + height * rng.random(count), np.full(count, flag)])
        return drawn.ravel().tolist()

    keypoints = points(17, visible)
    wrist = 3 * COCO_WHOLEBODY.index("left_wrist")
    hand = np.column_stack([50 * rng.random(21), 60 * rng.random(21), np.full(21, 0.8)])
    hand[:2, :2] = [0, 0], [50, 60]  # 60 pixels high, from the wrist on
    hand[:, :2] += keypoints[wrist : wrist + 2]
    return {
        "lefthand_kpts": hand.ravel().tolist(), "lefthand_valid": True, "righthand_valid": False,
        "id": number, "image_id": 7, "bbox": list(box_xywh), "iscrowd": 0, "num_keypoints": 17,
        "keypoints": keypoints, "face_kpts": points(68, 0.9), "face_valid": True,
        "face_box": [x, y, width / 4, width / 5],
    }  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    """A folder as the samples are: a photo, three people who count, one too small, one a crowd."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.jpg"), rng.integers(0, 255, (*HW, 3), np.uint8))
    people = [person_of(rng, (20, 30, 120, 200), 1), person_of(rng, (200, 50, 150, 120), 2)]
    people.append(person_of(rng, (50, 60, 90, 180), 3))
    people[2]["face_valid"] = False
    people[2]["keypoints"][3 * COCO_WHOLEBODY.index("left_wrist") + 2] = 1  # labelled, and hidden
    people.append(person_of(rng, (10, 10, 60, 99), 4))
    people.append({**person_of(rng, (10, 10, 60, 150), 5), "iscrowd": 1})
    content = {"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": people}
    (tmp_path / "test_coco_wholebody.json").write_text(json.dumps(content))
    (tmp_path / "test_coco.json").write_text(json.dumps({"annotations": []}))  # lies beside it in the samples
    return tmp_path


@pytest.fixture
def mpii(tmp_path):
    rng = np.random.default_rng(1)
    cv2.imwrite(str(tmp_path / "b.jpg"), rng.integers(0, 255, (*HW, 3), np.uint8))
    entries = []
    for _ in range(2):
        joints = np.column_stack([60 + 100 * rng.random(16), 40 + 200 * rng.random(16)])
        entries.append({"image": "b.jpg", "joints": joints.tolist(), "joints_vis": [1] * 16, "scale": 1, "center": [0]})
    entries[1]["joints_vis"][0] = 0
    (tmp_path / "test_mpii.json").write_text(json.dumps(entries))
    return tmp_path


def as_keypoints(person):
    """(133, 2) that are what is labelled of a person, 0 elsewhere."""
    points = np.zeros((133, 2))
    points[K._LIMBS], points[COCO_FACE] = person.limbs, person.face
    for rows, hand, seen in zip(COCO_HANDS, person.hands, person.hand_visible, strict=True):
        if seen.any():
            points[rows] = hand
    points[[91, 112]] = person.limbs[K._WRISTS]  # one joint of the 137 is both
    return points


def truth_of(testset, folder, shift=0.0):
    """A network that puts each joint on its label, moved by `shift` of the box's larger side."""
    answers = []
    for person in K.READERS[testset](folder):
        points = np.zeros((137, 2))
        points[[*COCO_WHOLEBODY_FROM_137]] = as_keypoints(person)
        points += [0.8 * shift * person.side, 0.6 * shift * person.side]
        box = crop_box_of(masked_sample("x", person.box_xyxy), HW, 1.25)
        answers.append((points - box[:2]) / (box[2:] - box[:2]))
    return PixelNetwork(np.stack(answers))


@pytest.mark.parametrize("testset", ["coco2d", "mpii2d"])
def test_truth_meets_every_label_and_a_shift_none(testset, request):
    folder = request.getfixturevalue(testset[:-2])
    names = [("true", ""), ("near", ""), ("far", "")]
    models = [truth_of(testset, folder, shift) for shift in (0, 0.049, 0.11)]
    result = K.measure(models, names, testset, folder, batch_size=2)
    true, near, far = (network.summary(result.measures) for network in result.networks)
    assert true["pck"].mean == near["pck"].mean == 1 == near["pck_05"].mean and far["pck"].mean == 0
    assert true["pck_wrist"].mean == 1 and far["pck_wrist"].mean == 0
    if testset == "coco2d":
        assert true["face"].mean < 1e-6 and near["face"].mean == pytest.approx(0.049, abs=1e-6)
        assert far["face"].count == 2 and true["pck"].count == 3 * 12 - 1 and true["pck_wrist"].count == 5
        side = np.array([200 / 30, 150 / 37.5])
        assert near["face_of_face_box"].mean == pytest.approx(0.049 * side.mean(), rel=1e-3)
        sizes = [person.side / 60 for person in K.read_coco(folder)]
        assert true["hand"].mean < 1e-6 and near["hand"].mean == pytest.approx(0.049 * np.mean(sizes), rel=1e-3)
        assert true["face_inner"].mean < 1e-6 < near["face_inner"].mean
    else:
        assert "face" not in true and true["pck"].count == 23
    assert result.people == (3 if testset == "coco2d" else 2)


def test_half_of_the_joints_off_is_half_the_pck_and_the_interval_is_of_people():
    scores = [K.Score(12, 12 if k % 2 else 0, 2, 2, 0.05, 0.2) for k in range(10)]
    pooled = K.pool(scores, "pck")
    assert pooled.mean == 0.5 and pooled.count == 120
    # Ten people, not 120 joints: the interval of a coin thrown ten times.
    assert pooled.low <= 0.2 and pooled.high >= 0.8
    assert K.pool([K.Score(0, 0, 0, 0, np.nan, np.nan)], "pck").count == 0


def test_joints_count_alike_whoever_they_belong_to():
    scores = [K.Score(10, 10, 0, 0, np.nan, np.nan), K.Score(2, 0, 0, 0, np.nan, np.nan)]
    assert K.pool(scores, "pck").mean == pytest.approx(10 / 12)
    assert "face" not in {name for name in K.MEASURES if K.pool(scores, name).count}


def test_joints_that_are_no_numbers_meet_nothing():
    person = K.Labelled("a", "a", np.array([0, 0, 100, 200.0]), np.zeros((12, 2)), np.ones(12, bool))
    assert K.score(person, np.full((133, 2), np.nan)).limbs_met == 0
    assert K.score(person, np.zeros((133, 2))).limbs_met == 12


def test_limbs_are_read_by_name(coco):
    person = next(K.read_coco(coco))
    content = json.loads((coco / "test_coco_wholebody.json").read_text())["annotations"][0]
    labels = np.array(content["keypoints"]).reshape(17, 3)
    for row, name in enumerate(LIMBS_12):
        np.testing.assert_array_equal(person.limbs[row], labels[COCO_WHOLEBODY.index(name), :2])
        assert COCO_WHOLEBODY[K._LIMBS[row]] == name


def test_the_command_prints_and_writes_it(coco, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", "t", "--testset", "coco2d", "--root", str(coco), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "COCO photos, 3 people" in printed and "pck wrist" in printed
    stored = json.loads((out / "result.json").read_text())
    assert stored["joints"] == {"pck": 35, "pck_05": 35, "pck_wrist": 5}
    errors = stored["networks"][0]["errors"]["pck"]
    assert 0 <= errors["low"] <= errors["mean"] <= errors["high"] <= 1 and errors["count"] == 35
    assert (out / "report.html").is_file() and len((out / "samples.csv").read_text().splitlines()) == 4


def test_small_hands_and_hands_known_in_part_do_not_count(coco):
    person = next(K.read_coco(coco))
    found = as_keypoints(person) + [6.0, 0]
    assert K.score(person, found).hand == pytest.approx(0.1)
    person.hand_visible[0, 4] = False
    assert np.isnan(K.score(person, found).hand)
    person.hand_visible[0, 4] = True
    person.hands[0] *= 0.6  # 36 pixels
    assert np.isnan(K.score(person, found).hand)


def test_half_of_a_tenth_is_near():
    person = K.Labelled("a", "a", np.array([0, 0, 100, 200.0]), np.zeros((12, 2)), np.ones(12, bool))
    for off, met, near in ((9.0, 12, 12), (11.0, 12, 0), (21.0, 0, 0)):
        scored = K.score(person, np.full((133, 2), [off, 0]))
        assert (scored.limbs_met, scored.limbs_near) == (met, near)
        assert scored.values()["pck_05"] == near / 12


def test_folders_without_labels_are_named(tmp_path):
    with pytest.raises(AssetMissing, match="wholebody"):
        next(K.read_coco(tmp_path))
    (tmp_path / "mpii.json").write_text("[{}]")
    with pytest.raises(BadInput, match="mpii.json"):
        next(K.read_mpii(tmp_path))
    (tmp_path / "mpii.json").write_text("[")
    with pytest.raises(BadInput, match="not JSON"):
        next(K.read_mpii(tmp_path))
