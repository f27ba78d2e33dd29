"""Training samples are functions of their number, and show the people that their targets describe."""

import numpy as np
import pytest

from wholebody.data.augment import AugmentConfig, blend, occlude, photometric
from wholebody.geometry.crop import crop_affine, fit_box
from wholebody.synthesis.sets.crops import CROP_HW, CropDataConfig, TrainingCrops, warp_layer
from wholebody.synthesis.sets.layers import LayerSet
from wholebody.training.own.poses import LiftingBatches


@pytest.fixture(scope="module")
def crops(layers):
    return TrainingCrops(CropDataConfig(str(layers)), seed=1, length=100)


def test_a_sample_depends_on_its_number_alone(layers, crops):
    again = TrainingCrops(CropDataConfig(str(layers)), seed=1, length=100)
    late = again[17]
    again[2], crops[40]
    for name, value in crops[17].items():
        np.testing.assert_array_equal(value, late[name])
    other = TrainingCrops(CropDataConfig(str(layers)), seed=2, length=100)
    assert (other[17]["image"] != late["image"]).any()


def test_every_layer_is_seen_once_an_epoch(crops):
    count = len(crops.layers)
    for epoch in range(2):
        seen = [crops.layer_number(epoch * count + n) for n in range(count)]
        assert sorted(seen) == list(range(count))


def test_blend_is_the_mean_weighted_by_alpha():
    rng = np.random.default_rng(0)
    below, above = rng.integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (9, 7), dtype=np.uint8)
    a = alpha[..., None] / 255
    np.testing.assert_allclose(blend(below, above, alpha), above * a + below * (1 - a), atol=0.51)


def test_a_layer_lands_where_its_joints_do(layers):
    """The alpha of a warped layer covers the visible joints, in the plane and when shrunk by more than half."""
    layer = LayerSet(layers).get(0)
    visible = layer.sample.joint_visible & (layer.sample.joints_px > 2).all(1)
    for scale, out in ((1.0, (512, 384)), (0.3, (154, 115))):
        affine = np.diag([scale, scale]) @ crop_affine(fit_box(layer.sample.box_xyxy), 0.3, out_hw=(512, 384))[0]
        _, alpha = warp_layer(layer.color, layer.alpha, affine, out)
        points = layer.sample.joints_px[visible] @ affine[:, :2].T + affine[:, 2]
        x, y = points.round().astype(int).T
        inside = (x >= 0) & (y >= 0) & (x < out[1]) & (y < out[0])
        assert inside.sum() > 20
        assert (alpha[y[inside], x[inside]] > 60).mean() > 0.9


@pytest.mark.parametrize("seed", range(8))
def test_photometric_changes_keep_shape_type_and_range(seed):
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    always = AugmentConfig(noise_probability=1, jpeg_probability=1, low_resolution_probability=0.5, blur_probability=1)
    changed = photometric(picture, np.random.default_rng(seed), always)
    assert changed.shape == picture.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, photometric(picture, np.random.default_rng(seed), always))


def test_occlusion_covers_a_part_with_the_texture():
    picture, texture = np.zeros((64, 48, 3), np.uint8), np.full((64, 48, 3), 200, np.uint8)
    covered = (occlude(picture, texture, np.random.default_rng(3)) == 200).all(2).mean()
    assert 0 < covered < 0.9


def test_lifted_poses_are_seen_where_their_joints_project(layers):
    batches = LiftingBatches(layers, seed=0, crop_hw=CROP_HW)
    one, two = batches.batch(4, 32), batches.batch(4, 32)
    for name in one:
        assert one[name].equal(two[name])
    # A weak check on purpose: distance and framing are random, but right is right and up is up.
    joints, points = one["joints_cam"][:, :25], one["joints_crop"][:, :25]
    for axis in (0, 1):
        a, b = (x[..., axis] - x[..., axis].mean(1, keepdim=True) for x in (joints, points))
        assert ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)) > 0.8).all()
    determinants = one["rotations"].det()
    assert determinants.allclose(determinants.new_ones(()), atol=1e-4)
    # What a network is made to believe of places is near the truth inside the crop, and unsure outside.
    inside = one["joint_inside"][:, :25] > 0
    told = (one["located"][..., :2] + 1) * one["located"].new_tensor([192, 256])
    off = (told - points).norm(dim=-1) / CROP_HW[0]
    assert 1e-3 < off[inside].median() < 0.05
    assert one["located"][..., 2][inside].median() > 0.8 > one["located"][..., 2][~inside].median()


def test_both_hands_of_a_lifted_pose_are_seen_as_right_hands(layers):
    hands = LiftingBatches(layers, seed=0, crop_hw=CROP_HW).batch(0, 64)["hand_places"]
    assert hands.shape == (64, 2, 20, 3)
    assert ((hands[..., :2] > -0.3) & (hands[..., :2] < 1.3)).float().mean() > 0.99
    assert 0.3 < hands[..., :2].mean() < 0.7 and hands.std() > 0.05
