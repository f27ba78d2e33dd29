"""Crops against the published code under two versions of OpenCV, and what must hold of any crop."""

import cv2
import numpy as np
import pytest

from wholebody.errors import BadInput
from wholebody.geometry import crop as C

# The published crop warps a mirrored float32 picture; OpenCV 5 and 4 differ by up to 4 grey levels in rotated ones.
GREY_LEVELS = {"crop": 4.0, "crop_cv4": 4.0}


def case(arrays, n):
    x, y, w, h = arrays[f"in/{n}/bbox"].astype(np.float64)
    scale, degrees, flip, height, width = arrays[f"in/{n}/scale_rot_flip_h_w"]
    return np.array([x, y, x + w, y + h]), scale, np.deg2rad(degrees), bool(flip), (int(height), int(width))


@pytest.mark.parametrize("n", range(5))
def test_maps_are_the_published_ones(oracle, n):
    arrays = oracle("crop")
    box, scale, rotation, flip, out_hw = case(arrays, n)
    there, back = C.crop_affine(box, rotation, scale, flip, out_hw)
    if flip:  # the published map starts from the mirrored picture
        mirror = np.array([[-1.0, 0, arrays["in/img_uint8"].shape[1] - 1], [0, 1, 0]])
        there, back = C.compose_affine(there, mirror), C.compose_affine(mirror, back)
    # Published maps pass three float32 points through a solver, ours are exact: compare where they put the corners.
    corners = np.array([[0.0, 0], [319, 0], [0, 213], [319, 213]])
    np.testing.assert_allclose(
        C.apply_affine(corners, there), C.apply_affine(corners, arrays[f"out/{n}/trans"]), atol=2e-3 * scale * 512 / 100
    )
    out_corners = np.array([[0.0, 0], [out_hw[1], 0], [0, out_hw[0]], [out_hw[1], out_hw[0]]])
    np.testing.assert_allclose(
        C.apply_affine(out_corners, back), C.apply_affine(out_corners, arrays[f"out/{n}/inv_trans"]), atol=5e-3
    )


@pytest.mark.parametrize("made_with", ["crop", "crop_cv4"])
@pytest.mark.parametrize("n", range(5))
def test_pictures_are_the_published_ones(oracle, n, made_with):
    arrays = oracle("crop")
    box, scale, rotation, flip, out_hw = case(arrays, n)
    affine, _ = C.crop_affine(box, rotation, scale, flip, out_hw)
    patch = C.warp(arrays["in/img_uint8"].astype(np.float32), affine, out_hw)
    published = oracle(made_with)[f"out/{n}/patch_every_4th_px"]
    apart = np.abs(patch[::4, ::4] - published)
    assert apart.max() <= GREY_LEVELS[made_with]
    assert apart.mean() <= 0.1


def naive_fit(x0, y0, x1, y1):
    width, height = x1 - x0, y1 - y0
    cx, cy = x0 + width / 2, y0 + height / 2
    if width > 0.75 * height:
        height = width / 0.75
    elif width < 0.75 * height:
        width = height * 0.75
    width, height = width * 1.25, height * 1.25
    return cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2


def test_fitted_boxes_are_the_published_ones(oracle):
    arrays = oracle("bbox")
    cut, published = arrays["out/sanitize"], arrays["out/process"]
    usable = np.isfinite(published).all(1)
    cut, published = cut[usable], published[usable]
    fitted = C.fit_box(np.concatenate([cut[:, :2], cut[:, :2] + cut[:, 2:]], 1))
    np.testing.assert_allclose(fitted[:, :2], published[:, :2], atol=1e-4)
    np.testing.assert_allclose(fitted[:, 2:] - fitted[:, :2], published[:, 2:], atol=1e-4)
    assert usable.sum() >= 7


def test_a_box_is_cut_to_the_picture_before_it_is_fitted_and_enlarged():
    # Cut to 0..99 by 20..60: 99 wide, so 132 high for 3:4, about the middle at (49.5, 40).
    for enlarge in (1.0, 1.2, 1.25):
        half = enlarge * np.array([99, 132]) / 2
        fitted = C.fit_crop([-30, 20, 150, 60], (80, 100), enlarge)
        np.testing.assert_allclose(fitted, [*([49.5, 40] - half), *([49.5, 40] + half)], atol=1e-9)
    with pytest.raises(BadInput, match=r"box \[99, 20, 150, 60\] has less than 2 pixels inside .* 100×80"):
        C.fit_crop([99, 20, 150, 60], (80, 100), 1.25)
    with pytest.raises(BadInput, match="finite corners"):
        C.fit_crop([np.nan, 20, 50, 60], (80, 100), 1.25)


def test_fitted_boxes_are_the_naive_ones():
    rng = np.random.default_rng(0)
    boxes = rng.uniform(-100, 500, (50, 4))
    boxes[:, 2:] = boxes[:, :2] + rng.uniform(1, 300, (50, 2))
    np.testing.assert_allclose(C.fit_box(boxes), [naive_fit(*box) for box in boxes], atol=1e-9)


def test_box_around_joints_is_the_published_one(oracle):
    arrays = oracle("get_bbox")
    box = C.box_around(arrays["in/joint"], arrays["in/valid"])
    np.testing.assert_allclose(np.concatenate([box[:2], box[2:] - box[:2]]), arrays["out/bbox"], rtol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
def test_there_and_back_is_nothing(flip):
    there, back = C.crop_affine([10, 20, 100, 140], 0.7, 1.3, flip)
    points = np.random.default_rng(0).uniform(-50, 400, (20, 2))
    np.testing.assert_allclose(C.apply_affine(C.apply_affine(points, there), back), points, atol=1e-9)
    np.testing.assert_allclose(C.compose_affine(there, back), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_a_straight_crop_takes_corners_to_corners():
    there, _ = C.crop_affine([10, 20, 100, 140], out_hw=(512, 384))
    np.testing.assert_allclose(C.apply_affine([[10, 20], [100, 140]], there), [[0, 0], [384, 512]], atol=1e-9)
    flipped, _ = C.crop_affine([10, 20, 100, 140], flip=True, out_hw=(512, 384))
    np.testing.assert_allclose(C.apply_affine([[10, 20], [100, 140]], flipped), [[384, 0], [0, 512]], atol=1e-9)


def test_pixels_move_with_points():
    """A bright dot in the picture must appear in the crop where the affine map puts its centre."""
    image = np.zeros((200, 300), np.float32)
    image[80, 150] = 255
    image = cv2.GaussianBlur(image, (0, 0), 3)
    for rotation, flip in ((0.0, False), (0.6, False), (-0.4, True)):
        affine, _ = C.crop_affine([120, 40, 210, 160], rotation, 1.1, flip, (256, 192))
        patch = C.warp(image, affine, (256, 192))
        ys, xs = np.mgrid[:256, :192]
        seen = np.array([(xs * patch).sum(), (ys * patch).sum()]) / patch.sum()
        np.testing.assert_allclose(seen, C.apply_affine([150, 80], affine), atol=0.1)


def test_antialiased_crop_averages_where_plain_sampling_does_not():
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (1024, 768)).astype(np.float32)  # noise finer than the crop can show
    affine, _ = C.crop_affine([0, 0, 768, 1024], out_hw=(128, 96))
    assert C.warp(image, affine, (128, 96)).std() > 30
    smooth = C.warp(image, affine, (128, 96), antialias=True)
    assert smooth.std() < 15 and abs(smooth[2:-2, 2:-2].mean() - image.mean()) < 1
    ramp = np.tile(np.arange(768, dtype=np.float32), (1024, 1))  # and it does not shift what it averages
    shown = C.warp(ramp, affine, (128, 96), antialias=True)
    expected = C.apply_affine(np.stack([np.arange(96), np.zeros(96)], 1), C.invert_affine(affine))[:, 0]
    np.testing.assert_allclose(shown[64, 2:-2], expected[2:-2], atol=0.1)


def test_antialias_changes_nothing_where_the_crop_is_finer():
    image = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    affine, _ = C.crop_affine([10, 10, 40, 50], out_hw=(256, 192))
    assert (C.warp(image, affine, (256, 192), antialias=True) == C.warp(image, affine, (256, 192))).all()


@pytest.mark.parametrize("box", [[0, 0, 0, 10], [10, 0, 5, 10], [0, np.nan, 5, 10], [0, 0, np.inf, 10], [0, 0, 1]])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(BadInput, match="box"):
        C.crop_affine(box)
    if len(box) == 4:
        with pytest.raises(BadInput, match="box"):
            C.fit_box(box)
    with pytest.raises(BadInput, match="valid"):
        C.box_around(np.zeros((3, 2)), np.zeros(3))
