"""Everybody in MoveNet's maps: as the published graph says, and more than six; near, far, in contact, by face."""

from __future__ import annotations

import pickle
from importlib.resources import files

import cv2
import numpy as np
import torch

from wholebody.model.embedded.movenet import load_movenet
from wholebody.model.embedded.multipose import find_people
from wholebody.model.embedded.tflite import load_interpreter
from wholebody.model.embedded.trunk import MobileNetTrunk, freeze
from wholebody.people.detections import Detections
from wholebody.people.movenet import MoveNet, _Seen, _with_faces

HER_BOX = np.array([20, 8, 370, 512])


def published(picture: np.ndarray) -> np.ndarray:
    """The published graph's six rows of 17 × (y, x, score), box (ymin, xmin, ymax, xmax) and score."""
    interpreter = load_interpreter((files("wholebody") / "weights" / "movenet_multipose.tflite").read_bytes(), 1)
    entry = interpreter.get_input_details()[0]
    interpreter.resize_tensor_input(entry["index"], (1, *picture.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], picture[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def test_says_of_boxes_and_key_points_what_the_published_graph_says(astronaut: np.ndarray):
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    picture = np.concatenate([small, small[:, ::-1]], 1)
    trunk = MobileNetTrunk().eval()
    load_movenet(trunk)
    freeze(trunk)
    with torch.inference_mode():
        people = find_people(trunk(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 255), 0.3)
    rows = published(picture)
    assert len(people.scores) == 2 and (rows[:, 55] > 0.2).sum() == 2
    for box, points in zip(people.boxes.numpy(), people.keypoints.numpy(), strict=True):
        theirs = rows[:, [52, 51, 54, 53]] * [512, 256, 512, 256]
        row = np.abs(theirs - box).sum(1).argmin()
        np.testing.assert_allclose(theirs[row], box, atol=0.2)
        marks = rows[row, :51].reshape(17, 3)
        sure = marks[:, 2] > 0.3
        assert sure.sum() >= 7
        off = np.abs(marks[:, 1::-1] * [512, 256] - points[:, :2]).max(1)[sure]
        assert np.median(off) < 0.5 and off.max() < 8  # the graph weighs cells a little otherwise


def test_more_than_six(movenet: MoveNet, astronaut: np.ndarray):
    small = cv2.resize(astronaut, (200, 200), interpolation=cv2.INTER_AREA)
    canvas = np.full((620, 1040, 3), 120, np.uint8)
    for k in range(12):
        y, x = 10 + 205 * (k // 5), 10 + 205 * (k % 5)
        canvas[y : y + 200, x : x + 200] = small
    found = movenet(canvas)
    assert len(found) == 12
    middles = (found.boxes_xyxy[:, :2] + found.boxes_xyxy[:, 2:]) / 2
    assert len({(round(x / 205 - 0.5), round(y / 205 - 0.5)) for x, y in middles}) == 12


def test_one_who_is_a_twentieth_of_the_picture(movenet: MoveNet, astronaut: np.ndarray):
    canvas = np.full((1200, 1600, 3), (140, 150, 160), np.uint8)
    canvas[700:764, 900:964] = cv2.resize(astronaut, (64, 64), interpolation=cv2.INTER_AREA)
    found = movenet(canvas)
    assert len(found) == 1
    assert np.abs(found.boxes_xyxy[0] - (HER_BOX / 8 + [900, 700, 900, 700])).max() < 12


def test_a_face_alone_stands_for_somebody(movenet: MoveNet, astronaut: np.ndarray):
    face = cv2.resize(astronaut[40:200, 150:300], (900, 960), interpolation=cv2.INTER_CUBIC)
    found = movenet(face)
    assert len(found) == 1
    box = found.boxes_xyxy[0]
    assert box[3] - box[1] > 700 and box[0] < 300 and box[2] > 600 and (box >= 0).all() and box[2] <= 900
    assert found.keypoints_px is not None and np.abs(found.keypoints_px[0, 0] - [430, 500]).max() < 80  # her nose


def faces(box: list[float], score: float = 0.9):
    from wholebody.model.embedded.face_landmarks import FoundFaces

    x0, y0, x1, y1 = box
    marks = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.5], [0.5, 0.8], [0, 0.4], [1, 0.4]]) * [x1 - x0, y1 - y0]
    return FoundFaces(np.array([box]), marks[None] + [x0, y0], np.array([score]))


def test_a_face_that_belongs_to_somebody_stands_for_nobody_else():
    person = Detections(np.array([[100.0, 50, 200, 400]]), np.ones(1), np.zeros((1, 17, 2)), np.zeros((1, 17)))
    assert len(_with_faces(person, faces([130.0, 60, 170, 110]), (600, 800))) == 1
    # In a close-up the trunk sees little more than the face: the body goes on below it.
    close = Detections(np.array([[200.0, 100, 600, 520]]), np.ones(1), np.zeros((1, 17, 2)), np.zeros((1, 17)))
    whole = _with_faces(close, faces([250.0, 120, 560, 480]), (600, 800))
    assert len(whole) == 1 and whole.boxes_xyxy[0].tolist()[3] == 600 and whole.boxes_xyxy[0, 0] < 100
    beside = _with_faces(person, faces([500.0, 60, 540, 110]), (600, 800))
    assert len(beside) == 2 and beside.boxes_xyxy[1, 3] > 300
    below = _with_faces(person, faces([130.0, 330, 170, 380]), (600, 800))  # somebody in front, lower
    assert len(below) == 2


def seen(*people: tuple[list[float], float]) -> _Seen:
    """People by box, their keypoints spread over it in one fixed way; a shift of them in pixels."""
    spread = np.random.default_rng(0).uniform(0, 1, (17, 2))
    boxes = np.array([box for box, _ in people], float)
    points = boxes[:, None, :2] + spread * (boxes[:, 2:] - boxes[:, :2])[:, None]
    points = points + np.array([shift for _, shift in people])[:, None, None]
    return _Seen(boxes, np.full(len(boxes), 0.9), np.concatenate([points, np.full((len(boxes), 17, 1), 0.8)], 2),
                 np.ones(len(boxes)))  # fmt: skip


def test_two_in_contact_stay_two_and_one_seen_twice_is_one():
    twice = seen(([0, 0, 100, 200], 0), ([3, -2, 104, 198], 0))
    assert twice.same(0, 1)
    embracing = seen(([0, 0, 100, 200], 0), ([12, 0, 112, 200], 60))  # nearly one box, other joints
    assert not embracing.same(0, 1)
    behind = seen(([0, 0, 100, 200], 0), ([40, 0, 140, 200], 0))
    assert not behind.same(0, 1)


def test_a_detector_can_be_sent_to_another_process(movenet: MoveNet):
    again = pickle.loads(pickle.dumps(movenet))
    assert again.threshold == movenet.threshold and again.sizes == movenet.sizes
