"""The landmarkers look where they are told, say the same from every side, and can be used by many at once."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from wholebody.errors import AssetMissing
from wholebody.files.image import read_image
from wholebody.model.embedded import blazepose, face_landmarks, hand_landmarks, regions
from wholebody.model.embedded.blazepose import POSE_33, BlazePose, region_of_body
from wholebody.model.embedded.face_landmarks import BLENDSHAPES, FaceDetector, FaceLandmarks, region_of_found
from wholebody.model.embedded.hand_landmarks import HAND_21, HandLandmarks
from wholebody.model.embedded.tflite import TFLiteNetwork, read_weights

ROOT = Path(__file__).parents[2]
HER_BODY = np.array([199.0, 505.0, 1230.0, 0.0])  # the astronaut's region in her portrait


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return read_image(ROOT / "demo" / "astronaut.jpg")


def quarter_turned(image: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both turned clockwise by a quarter: (x, y) becomes (height - 1 - y, x)."""
    x, y, side, angle = region
    return np.ascontiguousarray(np.rot90(image, -1)), np.array([image.shape[0] - 1 - y, x, side, angle + np.pi / 2])


def turn_points(points: np.ndarray, image: np.ndarray) -> np.ndarray:
    return np.stack([image.shape[0] - 1 - points[..., 1], points[..., 0]], -1)


# Regions


def test_places_in_a_region_and_back():
    rng = np.random.default_rng(0)
    region = np.array([40.0, 70.0, 120.0, 0.6])
    points = rng.uniform(0, 100, (5, 2))
    places = regions.into_region(points, region, 256)
    np.testing.assert_allclose(regions.to_picture(places, region, 256), points)
    np.testing.assert_allclose(regions.to_picture(np.array([128.0, 128.0]), region, 256), region[:2])
    # Its upper border's middle lies where a region between these two points was asked for.
    again = regions.region_between(region[:2], regions.to_picture(np.array([128.0, 0.0]), region, 256))
    np.testing.assert_allclose(again, region)


@pytest.mark.parametrize("side", [24.0, 48.0, 200.0])
def test_what_is_cut_lies_where_it_says(side: float):
    """A bright square of known middle, in regions smaller and larger than what they are shown with."""
    image = np.zeros((260, 300, 3), np.uint8)
    image[100:112, 140:152] = 255  # middle at (145.5, 105.5), pixels' centres at whole numbers
    region = np.array([147.0, 103.0, side, 0.5])
    shown = regions.cut(image, region, 48)[..., 0]
    assert shown.shape == (48, 48) and shown.max() > 200
    y, x = np.indices(shown.shape)
    middle = np.array([((x + 0.5) * shown).sum(), ((y + 0.5) * shown).sum()]) / shown.sum()
    np.testing.assert_allclose(regions.to_picture(middle, region, 48), [145.5, 105.5], atol=0.02 * side)


def test_outside_the_picture_is_black():
    shown = regions.cut(np.full((20, 20, 3), 255, np.uint8), np.array([200.0, 5.0, 30.0, 0.1]), 16)
    assert shown.max() == 0


def test_around_points_as_they_lie():
    points = np.array([[0.0, 0.0], [10.0, 10.0]])  # a line that goes down to the right, seen along it
    region = regions.around(points, np.pi / 4, scale=2)
    np.testing.assert_allclose(region, [5, 5, 2 * np.hypot(10, 10), np.pi / 4])
    np.testing.assert_allclose(
        regions.shifted(np.array([0, 0, 10, np.pi / 2]), 0, -0.1), [1, 0, 10, np.pi / 2], atol=1e-9
    )


# Bodies


def test_a_body_in_its_region(astronaut: np.ndarray):
    look = BlazePose()(astronaut, HER_BODY)
    where = dict(zip(POSE_33, look.points_px, strict=True))
    assert look.score > 0.8 and np.abs(where["nose"] - [220, 125]).max() < 12
    assert where["left_shoulder"][0] > where["right_shoulder"][0] + 120
    metres = dict(zip(POSE_33, look.points_m, strict=True))
    across = np.linalg.norm(metres["left_shoulder"] - metres["right_shoulder"])
    assert 0.25 < across < 0.5 and metres["nose"][1] < -0.4  # up is negative
    assert metres["nose"][2] < metres["left_shoulder"][2]  # she faces the camera: the nose is nearer
    assert look.mask.shape == (256, 256) and look.mask[128, 128] > 0.9 and look.mask[:20].max() < 0.1
    np.testing.assert_allclose(look.next_region[:3] / look.region[:3], 1, atol=0.15)


@pytest.mark.parametrize("turned", [0.15, np.pi / 2])
def test_a_turned_picture_gives_the_turned_body(astronaut: np.ndarray, turned: float):
    pose = BlazePose()
    plain = pose(astronaut, HER_BODY)
    if turned == np.pi / 2:
        image, region = quarter_turned(astronaut, HER_BODY)
        look, expected = pose(image, region), turn_points(plain.points_px, astronaut)
        np.testing.assert_allclose(look.points_px, expected, atol=0.5)
        np.testing.assert_allclose(look.points_m[:, 0], -plain.points_m[:, 1], atol=0.005)
        np.testing.assert_allclose(look.points_m[:, 1], plain.points_m[:, 0], atol=0.005)
    else:  # looked at askew, she is where she was
        look = pose(astronaut, HER_BODY + [0, 0, 0, turned])
        seen = plain.visibility > 0.9
        assert np.median(np.linalg.norm((look.points_px - plain.points_px)[seen], axis=1)) < 12
        assert np.median(np.linalg.norm((look.points_m - plain.points_m)[seen], axis=1)) < 0.07


def test_landmarks_move_to_the_middle_of_their_heat():
    heat = np.full((64, 64, 39), -20.0)
    heat[30, 21, 0] = heat[30, 22, 0] = 4.0  # two cells alike: between them
    heat[10, 10, 1] = -0.1  # below a half: stays
    places = np.full((39, 2), 500.0)  # outside: stays
    places[0], places[1] = [20.5 * 4, 31.2 * 4], [40, 40]
    refined = blazepose.refine(places, heat)
    np.testing.assert_allclose(refined[0], [21.5 * 4, 30 * 4], atol=1e-3)
    np.testing.assert_allclose(refined[1:], places[1:])


def test_a_region_from_key_points():
    points = np.zeros((17, 2))
    points[[5, 6]], points[[11, 12]], points[[15, 16]] = [[60, 100], [40, 100]], [[57, 160], [43, 160]], [[55, 240]] * 2
    scores = np.zeros(17)
    scores[[5, 6, 11, 12, 15, 16]] = 0.9
    region = region_of_body(points, scores, np.array([30, 60, 70, 250.0]))
    np.testing.assert_allclose(region[:2], [50, 160])
    assert abs(region[3]) < 1e-6 and region[2] / 2 > 90
    # Lying on the side: the region turns along.
    turned = region_of_body(points[:, ::-1] * [-1, 1] + [300, 0], scores, np.array([50, 30, 240, 70.0]))
    np.testing.assert_allclose(abs(turned[3]), np.pi / 2, atol=1e-6)
    # With nothing known but the box, its middle, upright.
    guess = region_of_body(points, np.zeros(17), np.array([0, 0, 100, 200.0]))
    np.testing.assert_allclose(guess[[0, 1, 3]], [50, 100, 0])


# Hands


def test_where_there_is_no_hand(astronaut: np.ndarray):
    look = HandLandmarks()(astronaut, np.array([430.0, 80.0, 90.0, 0.0]))  # the rocket
    assert look.score < 0.3 and look.points_px.shape == (21, 2)


def test_a_hand_region_lies_along_the_arm():
    wrist, index, pinky = np.array([100.0, 100.0]), np.array([140.0, 92.0]), np.array([140.0, 116.0])
    region = hand_landmarks.wide_region(wrist, index, pinky)
    np.testing.assert_allclose(region[3], np.pi / 2, atol=1e-6)  # fingers to the right: a quarter clockwise
    assert region[0] > 140 and region[2] == pytest.approx(2.7 * 80)
    points = np.zeros((21, 2))
    points[:, 0] = np.linspace(100, 180, 21)
    points[:, 1] = 100 + 5 * np.sin(np.arange(21))
    region = hand_landmarks.region_of_points(points)
    assert abs(region[3] - np.pi / 2) < 0.3 and region[2] > 100
    assert len(HAND_21) == 21


# Faces


def test_a_face_is_found_and_landmarked(astronaut: np.ndarray):
    faces = FaceDetector()(astronaut)
    assert len(faces) == 1 and faces.scores[0] > 0.8
    right_eye, left_eye, nose = faces.points_px[0, :3]
    assert np.abs(right_eye - [202, 103]).max() < 6 and np.abs(left_eye - [246, 107]).max() < 6
    look = FaceLandmarks()(astronaut, region_of_found(faces, 0))
    assert look.score > 0.9
    ibug = look.ibug_px
    assert np.abs(ibug[30] - nose).max() < 12 and ibug[42:48, 0].mean() > ibug[36:42, 0].mean() + 30
    assert np.abs(ibug[36:42].mean(0) - right_eye).max() < 5 and ibug[8, 1] > ibug[57, 1] > ibug[33, 1]
    # Nearer to the camera than the cheeks.
    assert look.depth_px[4] < look.depth_px[[234, 454]].min() - 20


def test_she_smiles_with_open_eyes(astronaut: np.ndarray):
    landmarks = FaceLandmarks()
    look = landmarks(astronaut, np.array([224.0, 125.0, 155.0, 0.1]))
    values = dict(zip(BLENDSHAPES, landmarks.blendshapes(look), strict=True))
    assert len(values) == 52
    assert values["mouthSmileLeft"] > 0.6 and values["mouthSmileRight"] > 0.6
    assert max(values[name] for name in ("eyeBlinkLeft", "eyeBlinkRight", "mouthFrownLeft", "jawOpen")) < 0.3


def test_a_turned_face(astronaut: np.ndarray):
    region = np.array([224.0, 125.0, 155.0, 0.1])
    landmarks, plain = FaceLandmarks(), FaceLandmarks()(astronaut, region)
    image, turned = quarter_turned(astronaut, region)
    look = landmarks(image, turned)
    np.testing.assert_allclose(look.points_px, turn_points(plain.points_px, astronaut), atol=0.5)
    np.testing.assert_allclose(look.next_region[3] - plain.next_region[3], np.pi / 2, atol=0.02)


def test_no_face_in_noise():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    found = FaceDetector()(noise)
    assert len(found) == 0 and found.boxes_xyxy.shape == (0, 4) and found.points_px.shape == (0, 6, 2)


def test_two_faces_are_two(astronaut: np.ndarray):
    found = FaceDetector()(np.concatenate([astronaut[:300, 100:350]] * 2, 1))
    assert len(found) == 2 and abs(np.subtract(*found.boxes_xyxy[:, 0])) == pytest.approx(250, abs=15)


# All of them


def test_eight_threads_say_what_one_says(astronaut: np.ndarray):
    landmarks = FaceLandmarks()
    jobs = [np.array([224.0 + k, 125.0, 155.0, 0.02 * k]) for k in range(8)]
    alone = [landmarks(astronaut, region).points_px for region in jobs]
    shared = FaceLandmarks()
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda region: shared(astronaut, region).points_px, jobs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_networks_can_be_copied_to_other_processes(astronaut: np.ndarray):
    detector = FaceDetector()
    expected = detector(astronaut).scores
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(detector))(astronaut).scores, expected)


def test_nothing_is_said_on_the_way():
    """TensorFlow Lite would announce its delegate on the process's own error stream."""
    program = (
        "import numpy as np; from wholebody.model.embedded.face_landmarks import FaceDetector; "
        "print(len(FaceDetector()(np.zeros((64, 64, 3), np.uint8))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n" and done.stderr == ""


def test_missing_networks_are_explained():
    with pytest.raises(AssetMissing, match="nosuch.tflite"):
        read_weights("nosuch.tflite")
    with pytest.raises(AssetMissing, match="reinstall"):
        TFLiteNetwork("nosuch.tflite")(np.zeros((1, 8, 8, 3)))


@pytest.mark.parametrize(
    ("file", "card"),
    [
        ("pose_landmark_full.tflite", "pose_landmark_full.md"),
        ("hand_landmark_full.tflite", "hand_landmark_full.md"),
        ("hand_recrop.tflite", "hand_landmark_full.md"),
        ("face_landmarker.task", "face_landmarker.md"),
    ],
)
def test_the_embedded_files_are_those_that_their_cards_describe(file: str, card: str):
    folder = files("wholebody") / "weights"
    assert hashlib.sha256((folder / file).read_bytes()).hexdigest() in (folder / card).read_text()


def test_names_fit_the_numbers():
    assert len(POSE_33) == len(set(POSE_33)) == 33 and len(set(HAND_21)) == 21 and len(set(BLENDSHAPES)) == 52
    assert len(face_landmarks._READ) == 146 and len(set(face_landmarks.FACE_68)) == 68
