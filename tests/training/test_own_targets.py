"""Targets and pictures move together: what a network is trained towards is what the crop shows."""

import numpy as np
import pytest
import torch

from wholebody.body.joints import JOINTS_137, ROTATIONS_53_FROM_55
from wholebody.body.layer import BodyModel
from wholebody.geometry.crop import crop_affine, fit_box
from wholebody.synthesis.sets.layers import LayerSet
from wholebody.training.own.targets import crop_targets

CROP = (512, 384)


@pytest.fixture(scope="module")
def sample(layers):
    return LayerSet(layers).get(3).sample


@pytest.fixture(scope="module")
def body():
    return BodyModel.load(flat_hand_mean=True)


def posed(body, target):
    tree = torch.eye(3).repeat(1, 55, 1, 1)
    tree[:, list(ROTATIONS_53_FROM_55)] = torch.from_numpy(target["rotations"])[None]
    betas, expression = (torch.from_numpy(target[name])[None] for name in ("betas", "expression"))
    joints = body.joints_137(body.from_matrices(tree, betas, expression).joints)[0].numpy()
    return joints - joints[:1]


@pytest.mark.parametrize("angle, flip", [(0.0, False), (0.7, False), (-0.4, True)])
def test_rotations_and_joints_of_a_crop_describe_the_same_body(sample, body, angle, flip):
    target = crop_targets(sample, crop_affine(fit_box(sample.box_xyxy), angle, flip=flip, out_hw=CROP)[0], CROP)
    # The eyeballs look somewhere in the picture and straight ahead in the network's 53 rotations.
    eyes = [JOINTS_137.index(name) for name in ("L_Eye", "R_Eye", "Face_3", "Face_4")]
    rest = np.setdiff1d(np.arange(137), eyes)
    found = posed(body, target)
    if flip:
        # A mirrored body has mirrored betas only up to the body's own small asymmetries.
        np.testing.assert_allclose(found[rest], target["joints_cam"][rest], atol=6e-3)
    else:
        np.testing.assert_allclose(found[rest], target["joints_cam"][rest], atol=1e-4)


@pytest.mark.parametrize("flip", [False, True])
def test_joints_in_the_crop_are_the_rotated_joints_seen_by_the_rotated_camera(sample, flip):
    affine = crop_affine(fit_box(sample.box_xyxy), 0.5, flip=flip, out_hw=CROP)[0]
    target = crop_targets(sample, affine, CROP)
    pelvis = sample.joints_cam[0]
    moved = pelvis * [-1, 1, 1] if flip else pelvis
    c, s = np.cos(-0.5), np.sin(-0.5)
    joints = target["joints_cam"] + np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ moved
    scale = np.sqrt(abs(np.linalg.det(affine[:, :2])))
    principal = affine[:, :2] @ sample.principal_px + affine[:, 2]
    seen = joints[:, :2] / joints[:, 2:] * sample.focal_px * scale + principal
    np.testing.assert_allclose(seen, target["joints_crop"], atol=0.05)


def test_boxes_hold_their_hands_and_face(sample):
    target = crop_targets(sample, crop_affine(fit_box(sample.box_xyxy), 0.2, out_hw=CROP)[0], CROP)
    for part, first, last in ((0, "L_Thumb_1", "L_Pinky_4"), (1, "R_Thumb_1", "R_Pinky_4"), (2, "Face_1", "Face_72")):
        points = target["joints_crop"][JOINTS_137.index(first) : JOINTS_137.index(last) + 1]
        low, high = target["boxes"][part, :2], target["boxes"][part, 2:]
        assert (points >= low - 1e-3).all() and (points <= high + 1e-3).all()


def test_what_is_not_known_is_masked_after_a_mirror_too(sample):
    import dataclasses

    valid = np.ones(137, bool)
    valid[JOINTS_137.index("L_Wrist")] = False
    hidden = dataclasses.replace(sample, joint_valid=valid, part_valid=np.zeros(3, bool))
    target = crop_targets(hidden, crop_affine(fit_box(sample.box_xyxy), flip=True, out_hw=CROP)[0], CROP)
    assert target["joint_valid"][JOINTS_137.index("R_Wrist")] == 0
    assert target["joint_valid"].sum() == 136
    assert target["box_valid"][1] == 0  # the hand whose wrist is not known


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_that_a_set_annotates_stand_in_where_joints_are_not_known(sample, flip):
    import dataclasses

    affine = crop_affine(fit_box(sample.box_xyxy), flip=flip, out_hw=CROP)[0]
    whole = crop_targets(sample, affine, CROP)
    valid = np.ones(137, bool)
    valid[[JOINTS_137.index(name) for name in ("L_Thumb_1", "Face_1")]] = False
    less = crop_targets(dataclasses.replace(sample, joint_valid=valid), affine, CROP)
    # A layer's part boxes have a tenth of margin on each side, so without it they are the tight ones.
    np.testing.assert_allclose(less["boxes"], whole["boxes"], atol=0.05)
    np.testing.assert_array_equal(less["box_valid"], whole["box_valid"])
    none = dataclasses.replace(sample, joint_valid=valid, part_valid=np.array([False, True, True]))
    expected = [1, 0, 1] if flip else [0, 1, 1]
    np.testing.assert_array_equal(crop_targets(none, affine, CROP)["box_valid"], expected * whole["box_valid"])


def test_what_is_known_in_the_picture_only_is_not_known_in_space(sample):
    import dataclasses

    flat = dataclasses.replace(sample, joint_cam_valid=np.zeros(137, bool), camera_valid=False)
    target = crop_targets(flat, crop_affine(fit_box(sample.box_xyxy), out_hw=CROP)[0], CROP)
    assert target["joint_valid"].all() and not target["joint_cam_valid"].any()
    assert target["camera_valid"] == 0 and not target["focal_crop"].any()
    no_pelvis = np.ones(137, bool)
    no_pelvis[JOINTS_137.index("Pelvis")] = False  # places are about the pelvis
    target = crop_targets(
        dataclasses.replace(sample, joint_cam_valid=no_pelvis), crop_affine(fit_box(sample.box_xyxy))[0], CROP
    )
    assert not target["joint_cam_valid"].any()
