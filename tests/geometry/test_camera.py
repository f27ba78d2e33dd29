"""Cameras: the published lift to the picture, and that pixels, points and cameras move together."""

import numpy as np
import pytest

from wholebody.body.joints import JOINTS_137, flip_permutation
from wholebody.errors import BadInput
from wholebody.geometry import camera as K
from wholebody.geometry import crop as C

PW3D = ("in/PW3D/bbox", "out/PW3D/focal", "out/PW3D/princpt")


def points(count=30, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.uniform(-1, 1, (count, 2)), rng.uniform(2, 6, (count, 1))], 1)


def test_projection_is_the_published_one(oracle):
    arrays = oracle("transforms")
    focal, principal = np.array([1500.0, 1400.0]), np.array([96.0, 128.0])  # what the arrays were made with
    cam = arrays["in/A"] + [0, 0, 6]
    np.testing.assert_allclose(K.project(cam, focal, principal), arrays["out/cam2pixel"][:, :2], rtol=1e-9)


def test_crop_camera_is_the_published_one(oracle):
    arrays = oracle("evaluate")
    for box, focal, principal in zip(*(arrays[k] for k in PW3D), strict=True):
        camera = K.VirtualCamera().in_picture(box)
        np.testing.assert_allclose(camera.focal_px, focal)
        np.testing.assert_allclose(camera.principal_px, principal)


def test_crop_camera_sees_in_the_picture_what_the_virtual_camera_sees_in_the_crop():
    box = np.array([30.0, -20, 180, 240])
    body = points() + [0, 0, 30]
    in_crop = K.project(body, np.array([5000.0, 5000]), np.array([96.0, 128]))
    _, image_from_crop = C.crop_affine(np.concatenate([box[:2], box[:2] + box[2:]]), out_hw=(256, 192))
    np.testing.assert_allclose(
        K.VirtualCamera().in_picture(box).project(body), C.apply_affine(in_crop, image_from_crop), atol=1e-9
    )


@pytest.mark.parametrize("rotation", [0.0, 0.5, -2.0, np.pi])
@pytest.mark.parametrize("flip", [False, True])
def test_projecting_then_cropping_is_cropping_the_camera_then_projecting(rotation, flip):
    camera = K.Camera(np.array([1200.0, 1200.0]), np.array([310.0, 250.0]))
    crop, _ = C.crop_affine([100, 50, 400, 450], rotation, 1.2, flip)
    cropped, turn = K.warp_camera(camera, crop)
    body = points()
    np.testing.assert_allclose(C.apply_affine(camera.project(body), crop), cropped.project(body @ turn.T), atol=1e-9)
    assert (cropped.focal_px > 0).all()
    assert np.linalg.det(turn) == pytest.approx(-1 if flip else 1)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(turn[2], [0, 0, 1])
    # A mirror is diag(-1, 1, 1) first and then a rotation about the viewing axis, as mirrored poses are made.
    np.testing.assert_allclose(np.linalg.det(turn @ np.diag([-1.0 if flip else 1.0, 1, 1])), 1)


@pytest.mark.parametrize("flip", [False, True])
def test_pixels_that_are_not_square_survive_a_straight_crop_only(flip):
    camera = K.Camera(np.array([1200.0, 1000.0]), np.array([310.0, 250.0]))
    crop, _ = C.crop_affine([100, 50, 500, 450], flip=flip, out_hw=(512, 384))
    cropped, turn = K.warp_camera(camera, crop)
    body = points()
    np.testing.assert_allclose(C.apply_affine(camera.project(body), crop), cropped.project(body @ turn.T), atol=1e-9)
    turned, _ = C.crop_affine([100, 50, 400, 450], 0.3)
    with pytest.raises(BadInput, match="square pixels"):
        K.warp_camera(camera, turned)


def test_there_and_back_gives_the_same_camera():
    camera = K.Camera(np.array([1200.0, 1200.0]), np.array([310.0, 250.0]))
    there, back = C.crop_affine([100, 50, 400, 450], 0.4, 1.1, True)
    cropped, turn = K.warp_camera(camera, there)
    again, turn_back = K.warp_camera(cropped, back)
    np.testing.assert_allclose(again.focal_px, camera.focal_px)
    np.testing.assert_allclose(again.principal_px, camera.principal_px)
    np.testing.assert_allclose(turn_back @ turn, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("case", ["rot", "flip"])
def test_joints_turn_as_the_published_ground_truth_does(case, oracle):
    """Root-relative joints of an augmented sample are those of the plain one, turned as the crop turns the camera."""
    arrays = oracle("human_model")
    flip = bool(arrays[f"in/{case}/flip"])
    crop, _ = C.crop_affine([0, 0, 300, 400], np.deg2rad(float(arrays[f"in/{case}/rot"])), flip=flip)
    turned = arrays["out/plain/joint_cam"].astype(np.float64) @ K.turn_of_affine(crop).T
    if flip:
        turned = turned[flip_permutation(JOINTS_137)]
    np.testing.assert_allclose(turned, arrays[f"out/{case}/joint_cam"], atol=2e-6)


def test_bad_cameras_are_refused():
    with pytest.raises(BadInput, match="focal_px"):
        K.Camera(np.array([np.nan, 1.0]), np.zeros(2))
    with pytest.raises(BadInput, match="principal_px"):
        K.Camera(np.ones(2), np.zeros(3))
