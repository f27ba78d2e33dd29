"""The one camera: its focal length, people before it, and whether it stands."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wholebody.errors import BadInput
from wholebody.motion.camera import CameraPath, CameraWatcher, choose_focal, place

WH, FOCAL = (640, 360), 500.0
PRINCIPAL = (np.array(WH) - 1) / 2
NOBODY = np.zeros((0, 4))


def test_focal_lengths_and_where_they_come_from():
    assert choose_focal((1920, 1080), focal=1500.0, fov=60.0, exif_35mm=28.0) == (1500.0, "--focal")
    focal, source = choose_focal((1920, 1080), fov=90.0, exif_35mm=28.0)
    assert source == "--fov" and focal == pytest.approx(960)
    assert choose_focal((1080, 1920), fov=90.0)[0] == pytest.approx(960)  # across the longer side, however it is held
    focal, source = choose_focal((3000, 2000), exif_35mm=50.0)
    assert source == "EXIF" and focal == pytest.approx(3000 * 50 / 36)
    assert choose_focal((300, 400)) == (500.0, "default")
    assert choose_focal((300, 400), exif_35mm=0.0)[1] == "default"  # what cameras write that do not know
    for wrong in ({"focal": 0.0}, {"focal": float("nan")}, {"fov": 180.0}, {"fov": -5.0}):
        with pytest.raises(BadInput, match="--f"):
            choose_focal((300, 400), **wrong)


def scenery(turn: np.ndarray) -> np.ndarray:
    """What a camera sees that has turned by `turn` (3, 3) from looking at a far wall."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(rng.integers(0, 255, (60, 100, 3)).astype(np.uint8), (2000, 1200), interpolation=cv2.INTER_LINEAR)
    k = np.array([[FOCAL, 0, PRINCIPAL[0]], [0, FOCAL, PRINCIPAL[1]], [0, 0, 1]])
    start = np.array([[1, 0, 1000], [0, 1, 600], [0, 0, 1.0]]) @ np.diag([FOCAL, FOCAL, 1])  # rays to the wall's pixels
    return cv2.warpPerspective(wall, k @ turn @ np.linalg.inv(start), WH)


def watch(frames: list[np.ndarray], boxes: np.ndarray = NOBODY) -> CameraPath:
    watcher = CameraWatcher(FOCAL, PRINCIPAL, WH)
    seen = [watcher(frame, boxes) for frame in frames]
    return CameraPath(*(np.array([row[k] for row in seen]) for k in range(4)))


def test_a_camera_that_stands():
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(6):
        noisy = scenery(np.eye(3)).astype(np.int16) + rng.integers(-6, 7, (WH[1], WH[0], 3))
        frames.append(noisy.clip(0, 255).astype(np.uint8))
    path = watch(frames)
    assert path.state() == "still" and path.known.all()


def test_a_turn_is_measured():
    angles = np.linspace(0, 0.35, 15)
    turns = Rotation.from_rotvec(np.stack([0.3 * angles, angles, 0.2 * angles], 1)).as_matrix()
    path = watch([scenery(turn) for turn in turns])
    assert path.state() == "turning"
    off = (Rotation.from_matrix(path.turns) * Rotation.from_matrix(turns).inv()).magnitude()
    assert np.degrees(off).max() < 0.3


def test_travel_is_not_taken_for_a_turn():
    """Sideways over a floor: what is nearer moves more, which no turn does."""
    frames = []
    for k in range(12):
        shear = 0.02 * k
        moved = cv2.warpAffine(scenery(np.eye(3)), np.array([[1, shear, -shear * 90], [0, 1, 0]]), WH)
        frames.append(moved)
    assert watch(frames).state() == "moving"


def test_a_person_who_walks_is_not_the_background():
    frames = []
    for k in range(10):
        image = scenery(np.eye(3))
        person = scenery(np.eye(3))[100:340, :200][::-1]
        image[100:340, 20 * k : 20 * k + 200] = person
        frames.append(image)
    watcher = CameraWatcher(FOCAL, PRINCIPAL, WH)
    rows = [watcher(image, np.array([[20.0 * k, 100, 20 * k + 200, 340]])) for k, image in enumerate(frames)]
    assert max(row[2] for row in rows) < 0.006
    assert all(np.degrees(Rotation.from_matrix(row[0]).magnitude()) < 0.2 for row in rows)


def test_no_background_is_no_movement():
    path = watch([np.full((WH[1], WH[0], 3), 90, np.uint8)] * 4)
    assert path.state() == "still" and not path.known.any()


def test_a_watcher_goes_on_from_a_turn():
    turns = Rotation.from_rotvec(np.stack([np.zeros(8), np.linspace(0, 0.14, 8), np.zeros(8)], 1)).as_matrix()
    watcher = CameraWatcher(FOCAL, PRINCIPAL, WH)
    for turn in turns[:4]:
        watcher(scenery(turn), NOBODY)
    second = CameraWatcher(FOCAL, PRINCIPAL, WH)
    second.go_on(scenery(turns[3]), NOBODY, watcher.turn)
    for turn in turns[4:]:
        found, *_ = second(scenery(turn), NOBODY)
    assert np.degrees((Rotation.from_matrix(found) * Rotation.from_matrix(turns[-1]).inv()).magnitude()) < 0.3


def test_people_are_placed_by_size_and_the_turn_of_perspective():
    rng = np.random.default_rng(0)
    body = rng.normal(0, 1, (5, 22, 3)) * [0.25, 0.45, 0.12]
    true_turn = Rotation.from_rotvec(rng.normal(0, 0.03, (5, 3)))
    where = np.array([[0, 0, 3.0], [1.5, 0.2, 4], [-2, 0, 5], [0.5, -0.5, 8], [-1, 0.3, 2.5]])
    rays = where / np.linalg.norm(where, axis=1, keepdims=True)
    along = [Rotation.align_vectors([ray], [[0, 0, 1.0]])[0] for ray in rays]
    points = np.stack([(true_turn[k] * along[k]).apply(body[k]) + where[k] for k in range(5)])
    px = points[..., :2] / points[..., 2:] * FOCAL + PRINCIPAL
    found = place(body, np.zeros(3), px, np.ptp(px[..., 1], axis=1), FOCAL, PRINCIPAL)
    assert np.abs(found.transl[:, 2] / where[:, 2] - 1).max() < 0.02 and found.shift.max() < 0.003
    fixed = place(body, np.zeros(3), px, np.ptp(px[..., 1], axis=1), FOCAL, PRINCIPAL, turn=False)
    assert np.allclose(fixed.turns, np.eye(3)) and (fixed.transl[:, 2] > 0).all()
