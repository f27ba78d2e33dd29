"""COCO files of other tools: who is a person, which picture is meant, and what one bad row costs."""

import json
from pathlib import Path

import numpy as np
import pytest

from wholebody.body.joints import COCO_WHOLEBODY
from wholebody.errors import BadInput
from wholebody.files.coco import person_categories, picture_key, same_id
from wholebody.people.detect import BoxFile
from wholebody.people.keypoints import KeypointFile

BOX = [10, 20, 30, 40]
HW = (200, 200)


def written(tmp_path, content, name="x.json", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(json.dumps(content).encode(encoding))
    return path


def annotations(rows, categories=({"id": 1, "name": "person"},), images=({"id": 7, "file_name": "a.jpg"},)):
    return {"images": list(images), "annotations": rows, "categories": list(categories)}


def flat(count=17, score=1.0, start=50.0):
    return np.stack([start + np.arange(count), start + 2 * np.arange(count), np.full(count, score)], 1).ravel().tolist()


@pytest.mark.parametrize(
    ("categories", "person"), [
        ([{"id": 0, "name": "person"}], 0), ([{"id": 2, "name": "person"}, {"id": 1, "name": "dog"}], 2),
        ([{"id": "7", "name": "Person"}], 7), ([{"id": 3.0, "name": "pedestrian"}, {"id": 1, "name": "cat"}], "3"),
        ([{"id": 5, "name": "player"}], 5), ([], 1),
    ],
)  # fmt: skip
def test_a_person_is_what_the_categories_say(tmp_path, categories, person):
    rows = [{"id": 1, "image_id": 7, "category_id": c, "bbox": [c2, 1, 20, 20], "keypoints": flat()}
            for c, c2 in ((person, 10), (99, 50))]  # fmt: skip
    path = written(tmp_path, annotations(rows, categories))
    assert BoxFile(path)("in/a.jpg", HW).boxes_xyxy[:, 0].tolist() == [10]
    assert len(KeypointFile(path).people("in/a.jpg")[0]) == 1


def test_a_dog_with_id_1_is_nobody(tmp_path):
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    rows = [{"image_id": 7, "category_id": 1, "bbox": BOX}]
    with pytest.raises(BadInput, match="none of its `categories` is called person"):
        BoxFile(written(tmp_path, annotations(rows, categories)))
    categories.append({"id": 3, "name": "person"})
    assert len(BoxFile(written(tmp_path, annotations(rows, categories)))("a.jpg", HW)) == 0
    assert person_categories(None) is None and person_categories([{"name": "x"}, 3]) is None


@pytest.mark.parametrize("crowd", [1, True, "1", 1.0])
def test_crowds_are_left_out_without_a_word(tmp_path, crowd):
    rows = [{"image_id": 7, "category_id": 1, "bbox": BOX, "iscrowd": value} for value in (crowd, 0, False, "0", None)]
    boxes = BoxFile(written(tmp_path, annotations(rows)))
    assert len(boxes("a.jpg", HW)) == 4 and not boxes.problems


@pytest.mark.parametrize(
    "bad", [
        {"bbox": [1, 2, 30, 0]}, {"bbox": [1, 2, -3, 5]}, {"bbox": []}, {"bbox": None}, {"bbox": "1234"},
        {"bbox": [1, 2, float("nan"), 4]}, {"bbox": [1, 2, 1e999, 4]}, {"bbox": [[1], 2, 3, 4]}, {"bbox": {"x": 1}},
        {"bbox": [True, 1, 2, 3]}, {"bbox": [int("9" * 40), 1, 2, 3], "score": []}, {"score": "high"},
        {"score": float("inf")}, {"image_id": [7]}, {"image_id": None}, {"image_id": {}}, {"category_id": [1]},
    ],
)  # fmt: skip
def test_a_bad_row_is_lost_and_named_and_nothing_else(tmp_path, bad):
    good = {"image_id": 7, "category_id": 1, "bbox": BOX}
    boxes = BoxFile(written(tmp_path, annotations([good, {**good, **bad}, good])))
    assert len(boxes("a.jpg", HW)) == 2
    assert len(boxes.problems) == 1 and "x.json: entry 1 is left out" in boxes.problems[0]
    with pytest.raises(BadInput, match="entry 0"):  # nothing but bad rows: the file is not what it should be
        BoxFile(written(tmp_path, annotations([{**good, **bad}])))
    BoxFile(written(tmp_path, annotations([])))


def test_a_box_outside_of_the_picture_is_lost(tmp_path):
    rows = [{"image_id": 7, "category_id": 1, "bbox": box} for box in (BOX, [500, 500, 10, 10])]
    boxes = BoxFile(written(tmp_path, annotations(rows)))
    assert len(boxes("a.jpg", HW)) == 1 and "entry 1" in boxes.problems[0] and "inside the picture" in boxes.problems[0]


@pytest.mark.parametrize(
    "bad", [
        {"keypoints": []}, {"keypoints": [1, 2]}, {"keypoints": None}, {"keypoints": {}}, {"keypoints": ["a"] * 51},
        {"keypoints": [float("nan")] * 51}, {"keypoints": [[[1]]]}, {"bbox": [1, 2, 3, 0]}, {"foot_kpts": [1, 2]},
    ],
)  # fmt: skip
def test_bad_keypoints_are_lost_and_named(tmp_path, bad):
    good = {"image_id": 7, "category_id": 1, "keypoints": flat()}
    file = KeypointFile(written(tmp_path, annotations([good, {**good, **bad}, good])))
    assert len(file.people("a.jpg")[0]) == 2 and len(file.problems) == 1 and "entry 1" in file.problems[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(("image", "other"), [(7, "7"), ("7", 7), (7.0, 7), (7, 7.0), ("007x", "007x")])
def test_ids_are_numbers_texts_or_floats(tmp_path, image, other, encoding):
    rows = [{"image_id": other, "category_id": 1, "bbox": BOX}]
    content = annotations(rows, images=[{"id": image, "file_name": "a.jpg"}])
    assert len(BoxFile(written(tmp_path, content, encoding=encoding))("a.jpg", HW)) == 1


def test_ids():
    assert same_id(7.0) == same_id("7") == same_id(7) == "7" and same_id(2**70) == str(2**70)
    for wrong in ([1], None, True, {}, float("nan"), float("inf"), 7.5):
        with pytest.raises(ValueError, match="its id is"):
            same_id(wrong)
    assert picture_key("a\\b.jpg") == picture_key("./a/b.jpg") == "a/b.jpg"


def test_pictures_without_id_or_name_cost_only_themselves(tmp_path):
    images = [{"file_name": "b.jpg"}, 3, {"id": 7, "file_name": "a.jpg"}, {"id": [1], "file_name": "c.jpg"}, {"id": 8}]
    rows = [{"image_id": 7, "category_id": 1, "bbox": BOX}, {"file_name": "b.jpg", "bbox": BOX},
            {"image_id": 8, "bbox": BOX}]  # fmt: skip
    boxes = BoxFile(written(tmp_path, annotations(rows, images=images)))
    assert all(len(boxes(name, HW)) == 1 for name in ("a.jpg", "b.jpg", "0008.png"))
    assert len(boxes.problems) == 2 and all("of `images`" in problem for problem in boxes.problems)


@pytest.mark.parametrize(
    ("name", "picture", "found"), [
        ("train\\a.jpg", "in/train/a.jpg", True), ("C:\\data\\train\\a.jpg", "in/a.jpg", True),
        ("/home/other/a.jpg", "in/a.jpg", True), ("train/a.jpg", "a.jpg", True), ("train/a.jpg", "val/a.jpg", False),
        ("./a.jpg", "in/a.jpg", True), ("a", "in/a.jpg", True), ("000012", "in/12.jpg", False),
        ("12", "in/000012.jpg", True), ("b.jpg", "in/a.jpg", False), ("写真.jpg", "in/写真.jpg", True),
    ],
)  # fmt: skip
def test_pictures_are_found_by_name(tmp_path, name, picture, found):
    boxes = BoxFile(written(tmp_path, [{"image_id": name, "bbox": BOX}]))
    assert len(boxes(picture, HW)) == found and boxes.knows(picture) == found


def test_two_pictures_of_one_name_are_told_apart(tmp_path):
    rows = [{"image_id": f"/other/{folder}/a.jpg", "bbox": [k, 0, 20, 20]} for k, folder in enumerate(("one", "two"))]
    boxes = BoxFile(written(tmp_path, rows))
    assert not boxes.knows("in/a.jpg")  # which of them?
    listed = BoxFile(written(tmp_path, annotations([])))
    assert listed.knows("in/a.jpg") and not listed.knows("in/b.jpg")


# What other tools write


def place(name, points):
    return points[COCO_WHOLEBODY.index(name)].tolist()


def test_alphapose(tmp_path):
    rows = [
        {"image_id": "a.jpg", "category_id": 1, "keypoints": flat(count), "score": 2.9, "box": BOX, "idx": [0.0]}
        for count in (17, 26, 133, 136)
    ]
    points, boxes, scores = KeypointFile(written(tmp_path, rows)).people("in/a.jpg")
    assert points.shape == (4, 133, 3) and (scores == 1).all() and boxes.tolist() == [[10, 20, 40, 60]] * 4
    assert all(place("right_ankle", p)[0] == 66 for p in points)
    assert place("left_big_toe", points[1])[0] == 70 and place("right_heel", points[3])[0] == 75
    assert place("face-0", points[3])[0] == 76 and points[3, 91, 0] == 50 + 94 and points[3, 132, 0] == 50 + 135
    assert not points[1, 23:].any()


def test_alphapose_written_as_openpose(tmp_path):
    content = {name: {"version": 0.1, "people": [{"pose_keypoints_2d": flat(18)}]} for name in ("a.jpg", "b.jpg")}
    assert len(KeypointFile(written(tmp_path, content)).people("b.jpg")[0]) == 1


def test_openpose(tmp_path):
    person = {
        "person_id": [-1], "pose_keypoints_2d": flat(25), "face_keypoints_2d": flat(70, start=500.0),
        "hand_left_keypoints_2d": flat(21, start=700.0), "hand_right_keypoints_2d": [], "pose_keypoints_3d": [],
    }  # fmt: skip
    for name in ("a", "b"):
        written(tmp_path, {"version": 1.3, "people": [person] * (name == "a")}, f"{name}_keypoints.json")
    file = KeypointFile(tmp_path)  # a folder with a file for each picture
    (points,), _, _ = file.people("in/a.jpg")
    assert place("nose", points) == [50, 50, 1] and place("left_wrist", points)[0] == 57
    assert place("right_knee", points)[0] == 60 and place("right_heel", points)[0] == 74
    assert place("face-67", points)[0] == 567 and points[91, 0] == 700 and not points[112:].any()
    assert file.knows("b.jpg") and len(file.people("b.jpg")[0]) == 0 and not file.knows("c.jpg")
    assert len(KeypointFile(tmp_path / "a_keypoints.json").people("a.png")[0]) == 1
    old = {"people": [{"pose_keypoints": flat(18), "face_keypoints": [], "hand_left_keypoints": []}]}
    (points,), _, _ = KeypointFile(written(tmp_path, old, "old.json")).people("old.jpg")
    assert place("left_ear", points)[0] == 67 and place("right_hip", points)[0] == 58


@pytest.mark.parametrize("nested", ["list", "list of one list", "with meta"])
@pytest.mark.parametrize("count", [17, 133])
def test_mmpose(tmp_path, nested, count):
    points = np.array(flat(count, 0.7)).reshape(-1, 3)
    person = {"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist(),
              "bbox": [[1.0, 2.0, 31.0, 42.0]], "bbox_score": 0.9}  # fmt: skip
    people = [person, person]
    with_meta = {"meta_info": {"dataset_name": "coco"}, "instance_info": people}
    content = {"list": people, "list of one list": [people], "with meta": with_meta}[nested]
    file = KeypointFile(written(tmp_path, content, "results_a.json"))
    found, boxes, scores = file.people(Path("in") / "a.jpg")
    assert len(found) == 2 and boxes.tolist() == [[1, 2, 31, 42]] * 2 and scores.tolist() == [0.9] * 2
    np.testing.assert_allclose(found[0][:count], points)


@pytest.mark.parametrize(
    "content", [
        3, "x", None, {}, {"a": 1}, {"annotations": 3}, {"annotations": None}, {"images": [], "annotations": {}},
        {"people": 3}, {"instance_info": {}}, {"instance_info": [{"frame_id": 1, "instances": []}]},
        [{"keypoints": [[1, 2]], "keypoint_scores": [1, 2]}], [[[]]], [None], {"people": [{"pose_keypoints_2d": [1]}]},
    ],
)  # fmt: skip
def test_other_forms_are_refused(tmp_path, content):
    with pytest.raises(BadInput, match="x.json"):
        KeypointFile(written(tmp_path, content))
