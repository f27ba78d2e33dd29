"""The embedded detector sees people near and far, and boxes from files are read as meant or refused."""

from __future__ import annotations

import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest

from wholebody.errors import AssetMissing, BadInput
from wholebody.files.image import read_image
from wholebody.people.detect import BoxFile, WholePicture, check_boxes, make_detector
from wholebody.people.detections import Detections, box_iou
from wholebody.people.movenet import MoveNet

ROOT = Path(__file__).parents[2]
SAMPLES = Path(os.environ.get("WHOLEBODY_SHARED", ROOT.parent / "shared")) / "samples"
HER_BOX = np.array([20, 8, 370, 512])  # where the astronaut is in her portrait


def pasted(astronaut, size_hw, side, places) -> tuple[np.ndarray, np.ndarray]:
    """The portrait, `side` pixels large, at some places of a grey picture; and the boxes of the people in it."""
    canvas = np.full((*size_hw, 3), 120, np.uint8)
    for x, y in places:
        canvas[y : y + side, x : x + side] = cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA)
    return canvas, np.array([HER_BOX * side / 512 + [x, y, x, y] for x, y in places])


def assert_found(found: Detections, expected: np.ndarray, overlap: float = 0.7) -> None:
    assert len(found) == len(expected), found.boxes_xyxy
    for box in expected:
        assert max(box_iou(box, other) for other in found.boxes_xyxy) > overlap, (box, found.boxes_xyxy)


def test_one_person_close_up(movenet, astronaut):
    found = movenet(astronaut)
    assert_found(found, HER_BOX[None], 0.8)
    assert found.keypoints_px is not None and found.keypoint_scores is not None
    nose, left_eye, right_eye = found.keypoints_px[0, :3]
    assert np.abs(nose - [222, 120]).max() < 15  # of this portrait
    assert left_eye[0] > right_eye[0] and found.keypoint_scores[0, :3].min() > 0.3


def test_one_person_far_away(movenet, astronaut):
    assert_found(movenet(pasted(astronaut, (600, 600), 128, [(300, 300)])[0]), HER_BOX[None] / 4 + 300, 0.7)


def test_two_people_are_two(movenet, astronaut):
    canvas, boxes = pasted(astronaut, (512, 1000), 460, [(10, 40), (520, 30)])
    assert_found(movenet(canvas), boxes)


def test_a_long_row_of_people_is_seen_in_tiles(movenet, astronaut):
    canvas, boxes = pasted(astronaut, (320, 1600), 320, [(320 * k, 0) for k in range(5)])
    assert_found(movenet(canvas), boxes)


def test_a_second_look_at_where_people_were(movenet, astronaut):
    canvas, boxes = pasted(astronaut, (512, 1000), 460, [(10, 40), (520, 30)])
    for few in (boxes, boxes[:1], boxes[1:] + [-30, 10, -20, 15]):
        assert_found(movenet.again(canvas, few), boxes if len(few) == 2 else boxes[[int(few[0, 0] > 400)]])
    far, _ = pasted(astronaut, (1080, 1920), 240, [(900, 500)])
    assert_found(movenet.again(far, HER_BOX[None] * 240 / 512 + [900, 500, 900, 500]), HER_BOX[None] * 240 / 512 + 0.0
                 + np.array([900, 500, 900, 500]))  # fmt: skip
    assert len(movenet.again(np.zeros((200, 300, 3), np.uint8), np.array([[20.0, 20, 90, 180]]))) == 0


def test_no_box_is_much_larger_than_a_person_who_is_seen_from_head_to_foot(monkeypatch):
    from wholebody.people import movenet as module

    points = np.zeros((17, 3))
    points[:, 0], points[:, 1], points[:, 2] = np.linspace(300, 340, 17), np.linspace(100, 300, 17), 0.8
    half = points.copy()
    half[11:, 2] = 0.1  # legs below the picture
    boxes = np.array([[0.0, 0, 960, 540], [290, 80, 350, 310], [0, 0, 960, 540]])
    for box, marks, expected in zip(
        boxes, (points, points, half), ([240, 40, 400, 360], boxes[1], boxes[2]), strict=True
    ):
        seen = module._Seen(box[None], np.ones(1), marks[None], np.ones(1))
        monkeypatch.setattr(MoveNet, "_look", lambda *about, seen=seen: seen)
        found = MoveNet().again(np.zeros((540, 960, 3), np.uint8), box[None])
        np.testing.assert_allclose(found.boxes_xyxy, [expected])


def test_nobody(movenet):
    noise = np.random.default_rng(0).integers(0, 255, (150, 200, 3)).astype(np.uint8)
    for picture in (noise, np.zeros((16, 16, 3), np.uint8), np.full((40, 240, 3), 200, np.uint8)):
        found = movenet(picture)
        assert len(found) == 0 and found.boxes_xyxy.shape == (0, 4) and found.scores.shape == (0,)


def test_boxes_lie_in_the_picture_and_scores_fall(movenet, astronaut):
    canvas, _ = pasted(astronaut, (512, 1000), 460, [(10, 40), (520, 30)])
    found = movenet(canvas)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes_xyxy >= 0).all() and (found.boxes_xyxy <= [1000, 512, 1000, 512]).all()


def test_real_photos(movenet):
    """12 of the 14 people marked in four photos; the two others are 11 and 17 pixels wide."""
    if not (SAMPLES / "coco").is_dir():
        pytest.skip("needs the sample photos of ../shared")
    truth = json.loads((SAMPLES / "coco" / "test_coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in truth["images"]}
    hits = false = 0
    for image_id, name in names.items():
        marked = [np.array([x, y, x + w, y + h]) for row in truth["annotations"] if row["image_id"] == image_id
                  for x, y, w, h in [row["bbox"]]]  # fmt: skip
        found = movenet(read_image(SAMPLES / "coco" / name))
        hit = [max((box_iou(box, other) for other in found.boxes_xyxy), default=0) > 0.5 for box in marked]
        hits += sum(hit)
        false += len(found) - sum(hit)
    assert hits >= 12 and false <= 1


def test_the_embedded_file_is_the_one_its_card_describes():
    folder = files("wholebody") / "weights"
    digest = hashlib.sha256((folder / "movenet_multipose.tflite").read_bytes()).hexdigest()
    assert digest in (folder / "movenet_multipose.md").read_text()


def test_whole_picture():
    found = WholePicture()(np.zeros((30, 50, 3), np.uint8))
    assert found.boxes_xyxy.tolist() == [[0, 0, 50, 30]] and found.scores.tolist() == [1]


def test_detectors_by_name():
    assert isinstance(make_detector("movenet"), MoveNet)
    with pytest.raises(BadInput, match="movenet, rfdetr, whole"):
        make_detector("yolo")


def test_rfdetr_that_is_not_installed_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rfdetr", None)
    with pytest.raises(AssetMissing, match="pip install rfdetr"):
        make_detector("rfdetr")


def test_rfdetr_gives_people_only(monkeypatch):
    from types import ModuleType, SimpleNamespace

    class RFDETRMedium:
        def predict(self, image, threshold):
            return SimpleNamespace(
                xyxy=np.array([[0, 0, 9, 9], [1, 1, 5, 5], [2, 2, 6, 8]], np.float32),
                confidence=np.array([0.9, 0.6, 0.8], np.float32),
                class_id=np.array([18, 1, 1]),  # a dog and two people
            )

    module = ModuleType("rfdetr")
    module.RFDETRMedium = RFDETRMedium  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "rfdetr", module)
    found = make_detector("rfdetr")(np.zeros((10, 10, 3), np.uint8))
    assert found.boxes_xyxy.tolist() == [[2, 2, 6, 8], [1, 1, 5, 5]]


# Boxes from files


def box_file(tmp_path, content) -> BoxFile:
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return BoxFile(path)


def test_coco_detections(tmp_path):
    boxes = box_file(tmp_path, [
        {"image_id": 785, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5},
        {"image_id": 785, "category_id": 18, "bbox": [0, 0, 5, 5], "score": 0.9},
        {"file_name": "b.jpg", "bbox": [1, 2, 3, 4]},
    ])  # fmt: skip
    found = boxes(tmp_path / "000000000785.jpg", (100, 100))
    assert found.boxes_xyxy.tolist() == [[10, 20, 40, 60]] and found.scores.tolist() == [0.5]
    assert boxes("x/b.jpg", (100, 100)).boxes_xyxy.tolist() == [[1, 2, 4, 6]]
    assert len(boxes("c.jpg", (100, 100))) == 0


def test_coco_annotations(tmp_path):
    boxes = box_file(tmp_path, {
        "images": [{"id": 7, "file_name": "train/a.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40]}],
    })  # fmt: skip
    assert boxes("/data/train/a.jpg", (100, 100)).boxes_xyxy.tolist() == [[1, 2, 31, 42]]
    assert len(boxes("/data/val/a.jpg", (100, 100))) == 0  # another picture of that name


def test_boxes_by_picture_name(tmp_path):
    boxes = box_file(tmp_path, {"a.jpg": [[1, 2, 30, 40], [5, 6, 70, 80, 0.25]], "b": [1, 2, 3, 4], "none.png": []})
    found = boxes("in/a.jpg", (100, 100))
    assert found.boxes_xyxy.tolist() == [[1, 2, 30, 40], [5, 6, 70, 80]] and found.scores.tolist() == [1, 0.25]
    assert boxes("in/b.webp", (100, 100)).boxes_xyxy.tolist() == [[1, 2, 3, 4]]
    assert len(boxes("none.png", (100, 100))) == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{not json", "not JSON"),
        ("3", "expected a list"),
        ([{"image_id": 1}], "entry 0 needs `bbox`"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], "4 numbers"),
        ([{"image_id": 1, "bbox": [1, 2, "3", 4]}], "4 numbers"),
        ({"a.jpg": {"x": 1}}, "no list"),
        ({"a.jpg": [[1, 2, 3]]}, "4 numbers"),
    ],
)
def test_box_files_of_the_wrong_form(tmp_path, content, says):
    with pytest.raises(BadInput, match=says) as caught:
        box_file(tmp_path, content)
    assert "boxes.json" in str(caught.value)


@pytest.mark.parametrize(
    ("box", "says"),
    [([5, 5, float("nan"), 9], "finite"), ([9, 5, 5, 9], "inverted"), ([200, 200, 300, 300], "inside the picture")],
)
def test_boxes_that_cannot_be(tmp_path, box, says):
    boxes = box_file(tmp_path, {"a.jpg": [[1, 1, 9, 9], box]})
    with pytest.raises(BadInput, match=says) as caught:
        boxes("a.jpg", (100, 100))
    assert "box 1" in str(caught.value) and "a.jpg" in str(caught.value)


def test_missing_box_file(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        BoxFile(tmp_path / "none.json")


def test_boxes_over_the_border_are_kept():
    assert check_boxes([[-5, -5, 50, 200]], (100, 100)).tolist() == [[-5, -5, 50, 200]]
    assert check_boxes([1, 2, 30, 40], (100, 100)).shape == (1, 4)
