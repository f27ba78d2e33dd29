"""Keypoints find their person: by picture and by box, from every form of file, or from a detector."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wholebody.errors import AssetMissing, BadInput
from wholebody.people import mediapipe
from wholebody.people.detections import Detections
from wholebody.people.keypoints import KeypointFile, MoveNetKeypoints, make_source, match

IMAGE = np.zeros((200, 300, 3), np.uint8)


def keypoints_in(box, score=0.9, count=133):
    """Keypoints spread over a box, corners included."""
    x0, y0, x1, y1 = box
    t = np.linspace(0, 1, count)
    return np.stack([x0 + t * (x1 - x0), y0 + t**2 * (y1 - y0), np.full(count, score)], 1)


def row(box, image="a", flat=None, **more):
    flat = keypoints_in(box) if flat is None else flat
    return {"image_id": image, "category_id": 1, "keypoints": flat.ravel().tolist(), **more}


def written(tmp_path, content) -> KeypointFile:
    path = tmp_path / "keypoints.json"
    path.write_text(json.dumps(content))
    return KeypointFile(path)


def found(*boxes) -> Detections:
    return Detections(np.array(boxes, np.float64).reshape(-1, 4), np.ones(len(boxes)))


LEFT, RIGHT = (10, 10, 100, 180), (150, 20, 250, 190)


def test_people_are_matched_by_overlap_not_by_order(tmp_path):
    file = written(tmp_path, [row(RIGHT), row(LEFT), row(LEFT, image="b")])
    points = file(Path("photos/a.jpg"), IMAGE, found(LEFT, RIGHT, (260, 0, 299, 40)))
    np.testing.assert_allclose(points[0], keypoints_in(LEFT))
    np.testing.assert_allclose(points[1], keypoints_in(RIGHT))
    assert not points[2].any()  # nobody is there
    assert not file(Path("other.jpg"), IMAGE, found(LEFT)).any()


def test_each_is_given_once():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [100, 100, 110, 110.0]])
    assert match(boxes, np.array([[0, 0, 10, 9.5], [0, 0, 10, 10.0]])) == [1, 0, None]
    assert match(boxes, np.zeros((0, 4))) == [None, None, None]


@pytest.mark.parametrize("picture", ["photos/000042.jpg", "42.png"])
def test_pictures_by_number(tmp_path, picture):
    file = written(tmp_path, [row(LEFT, image=42)])
    assert file(Path(picture), IMAGE, found(LEFT))[0, 0, 2] == 0.9


def test_wholebody_annotations_and_plain_coco(tmp_path):
    whole = keypoints_in(LEFT)
    whole[:, 2] = 2  # visibility, as annotations have it
    lists = {"keypoints": (0, 17), "foot_kpts": (17, 23), "face_kpts": (23, 91), "lefthand_kpts": (91, 112),
             "righthand_kpts": (112, 133)}  # fmt: skip
    annotation = {"image_id": 7, "bbox": [10, 10, 90, 170]}
    annotation |= {name: whole[first:last].ravel().tolist() for name, (first, last) in lists.items()}
    images = [{"id": 7, "file_name": "x/a.jpg"}]
    file = written(tmp_path, {"images": images, "annotations": [annotation]})
    points = file(Path("somewhere/x/a.jpg"), IMAGE, found(LEFT))[0]
    np.testing.assert_allclose(points[:, :2], whole[:, :2])
    assert (points[:, 2] == 1).all()
    body = written(tmp_path, [row(LEFT, flat=keypoints_in(LEFT, count=17))])(Path("a.jpg"), IMAGE, found(LEFT))[0]
    assert body[:17, 2].all() and not body[17:].any()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("nonsense", "not JSON"),
        ({"a": 1}, "expected a list"),
        ([{"keypoints": []}], "entry 0"),
        ([{"image_id": "a", "keypoints": [1, 2, 3]}], "holds 3 numbers"),
        ([{"image_id": "a", "keypoints": [float("nan")] * 51}], "finite"),
        ([row(LEFT, bbox=[0, 0, -3, 5])], "bbox"),
    ],
)
def test_files_that_say_nothing_are_refused(tmp_path, content, says):
    path = tmp_path / "keypoints.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(BadInput, match=says):
        KeypointFile(path)


def test_sources_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(mediapipe, "is_installed", lambda: False)
    assert make_source("auto").name == "movenet"
    monkeypatch.setattr(mediapipe, "is_installed", lambda: True)
    assert make_source("auto").name == "mediapipe"
    with pytest.raises(BadInput, match="no such file"):
        make_source(str(tmp_path / "missing.json"))


def test_movenet_gives_what_it_detected(monkeypatch):
    seen = Detections(np.array([LEFT], float), np.ones(1), keypoints_in(LEFT, count=17)[None, :, :2],
                      np.linspace(0, 1, 17)[None])  # fmt: skip
    points = MoveNetKeypoints()(Path("a.jpg"), IMAGE, seen)[0]
    assert not points[17:].any() and not points[:3].any()  # what it is unsure of is left out
    np.testing.assert_allclose(points[5, :2], seen.keypoints_px[0, 5])
    source = MoveNetKeypoints()
    source._detector = lambda image: seen  # boxes came from a file: it looks itself
    np.testing.assert_allclose(source(Path("a.jpg"), IMAGE, found(RIGHT, LEFT))[1, 16], points[16])


class FakeHolistic:
    """MediaPipe's answer for a picture: landmark k at (k / 1000, 0.5) of it; no left hand."""

    def __init__(self):
        self.shapes = []

    def process(self, picture):
        self.shapes.append(picture.shape)
        marks = lambda count: SimpleNamespace(  # noqa: E731
            landmark=[SimpleNamespace(x=k / 1000, y=0.5, visibility=0.7) for k in range(count)]
        )
        return SimpleNamespace(pose_landmarks=marks(33), face_landmarks=marks(468), left_hand_landmarks=None,
                               right_hand_landmarks=marks(21))  # fmt: skip


def test_mediapipe_in_coco_order():
    source = mediapipe.Holistic()
    source._network = FakeHolistic()
    points = source(Path("a.jpg"), IMAGE, found(LEFT, RIGHT))
    height, width, _ = source._network.shapes[1]
    low = np.array([107, 0])  # a quarter of the larger side is added, and cut at the border
    assert (height, width) == (200, 293 - low[0]) and points.shape == (2, 133, 3)
    right_ankle = points[1, 16]
    np.testing.assert_allclose(right_ankle, [28 / 1000 * width + low[0] - 0.5, 0.5 * height - 0.5, 0.7])
    assert points[1, 18, 2] == 0  # it has no small toes
    assert (points[1, 91:112] == 0).all() and (points[1, 112:, 2] > 0).all()
    np.testing.assert_allclose(points[1, 23 + 8, 0], 152 / 1000 * width + low[0] - 0.5)  # the chin


def test_mediapipe_missing_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions.holistic", None)
    with pytest.raises(AssetMissing, match=r"wholebody\[mediapipe\]"):
        mediapipe.Holistic()(Path("a.jpg"), IMAGE, found(LEFT))
