"""Truth against the body layer, the camera and an independent drawing; sameness of what is drawn."""

import cv2
import numpy as np
import torch

from wholebody.body.joints import JOINTS_137, PARTS_137
from wholebody.data.sample import axis_angle_to_matrix
from wholebody.synthesis import render
from wholebody.synthesis.clothes import looks as clothes
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.light.environment import environment_from, sh_basis, view
from wholebody.synthesis.light.rooms import room
from wholebody.synthesis.sets.compose import compose

J = JOINTS_137.index


def test_parameters_joints_and_pixels_agree(studio, people):
    for layer, _, _ in people[:8]:
        s = layer.sample
        out = studio.body.from_matrices(
            torch.from_numpy(axis_angle_to_matrix(s.full_pose)[None]).float(),
            torch.from_numpy(s.betas[None]), torch.from_numpy(s.expression[None]), torch.from_numpy(s.transl[None]),
        )  # fmt: skip
        joints = studio.body.joints_137(out.joints)[0].numpy()
        np.testing.assert_allclose(joints, s.joints_cam, atol=2e-4)
        projected = s.joints_cam[:, :2] / s.joints_cam[:, 2:] * s.focal_px + s.principal_px
        np.testing.assert_allclose(projected, s.joints_px, atol=2e-3)


def test_a_person_depends_on_seed_and_number_alone(studio, people):
    alone = next(studio.people(seed=6, first=17, count=1))[0]
    np.testing.assert_array_equal(alone.color, people[17][0].color)
    np.testing.assert_array_equal(alone.alpha, people[17][0].alpha)
    np.testing.assert_array_equal(alone.sample.joints_px, people[17][0].sample.joints_px)
    assert alone.sample.id == people[17][0].sample.id
    assert (next(studio.people(seed=4, first=17, count=1))[0].color != alone.color).any()


def test_alpha_is_the_silhouette_that_another_drawing_finds(studio, monkeypatch):
    """Without the thickness of clothes, against OpenCV's polygons at eight times the size."""

    def naked(rng, wardrobe):
        outfit = sample(rng, wardrobe)
        outfit.garments[:, [render.paint.THICKNESS, render.paint.FLARE, render.paint.WRINKLE]] = 0
        return outfit

    sample = clothes.sample_outfit
    monkeypatch.setattr(render, "sample_outfit", naked)
    for layer, _, _ in studio.people(seed=5, first=0, count=4):
        s, (h, w), fine = layer.sample, layer.alpha.shape, 8
        out = studio.body.from_matrices(
            torch.from_numpy(axis_angle_to_matrix(s.full_pose)[None]).float(),
            torch.from_numpy(s.betas[None]), torch.from_numpy(s.expression[None]), torch.from_numpy(s.transl[None]),
        )  # fmt: skip
        v = out.vertices[0].numpy()
        pixels = v[:, :2] / v[:, 2:] * s.focal_px + s.principal_px
        mask = np.zeros((h * fine, w * fine), np.uint8)
        corners = ((pixels + 0.5) * fine - 0.5)[studio.faces]
        for triangle in (corners * 16).round().astype(np.int32):
            cv2.fillConvexPoly(mask, triangle, 255, shift=4)
        coverage = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA) / 255
        difference = np.abs(coverage - layer.alpha / 255)
        outline = ((coverage > 0) & (coverage < 1)).sum()
        assert difference.sum() < 0.12 * outline  # four samples a pixel know its coverage to about that
        assert difference.max() < 0.7 and np.quantile(difference, 0.99) < 0.35


def test_what_faces_away_or_lies_outside_is_not_visible(people):
    away = towards = 0
    for layer, _, _ in people:
        s, (h, w) = layer.sample, layer.alpha.shape
        nose, ears = s.joints_cam[J("Nose")], s.joints_cam[[J("L_Ear"), J("R_Ear")]].mean(0)
        facing = (nose - ears) @ (s.joints_cam[J("Nose")]) / np.linalg.norm(nose - ears) / np.linalg.norm(nose)
        if facing > 0.7:
            away += 1
            assert not s.joint_visible[J("Nose")]
            inner = slice(J("Face_5"), J("Face_55") + 1)  # without the contour, which the cheeks show from behind
            assert s.joint_visible[inner].mean() < 0.2
        elif facing < -0.9 and s.joint_visible[J("Nose")]:
            towards += 1
            assert s.joint_visible[[J("L_Eye"), J("R_Eye")]].mean() >= 0.5
        inside = (s.joints_px >= -0.5).all(1) & (s.joints_px[:, 0] <= w - 0.5) & (s.joints_px[:, 1] <= h - 0.5)
        assert not (s.joint_visible & ~inside).any()
        framed = (s.joints_px >= s.frame_xyxy[:2]).all(1) & (s.joints_px <= s.frame_xyxy[2:]).all(1)
        assert not (s.joint_visible & ~framed).any()
    assert away >= 3 and towards >= 3


def test_boxes_hold_what_they_are_named_after(people):
    for layer, _, _ in people:
        s = layer.sample
        for box, part in ((s.left_hand_box, "left_hand"), (s.right_hand_box, "right_hand"), (s.face_box, "face")):
            points = s.joints_px[PARTS_137[part]]
            assert (points >= box[:2]).all() and (points <= box[2:]).all()
        seen = s.joints_px[s.joint_visible]
        slack = 0.06 * (s.box_xyxy[3] - s.box_xyxy[1])
        assert (seen >= s.box_xyxy[:2] - slack).all() and (seen <= s.box_xyxy[2:] + slack).all()
        h, w = layer.alpha.shape
        size = s.box_xyxy[2:] - s.box_xyxy[:2]
        assert np.isclose(max(size[1], size[0] * 4 / 3), h / 1.4, rtol=1e-3)  # as the margin says
        np.testing.assert_allclose((s.box_xyxy[:2] + s.box_xyxy[2:]) / 2, [(w - 1) / 2, (h - 1) / 2], atol=0.01)


def test_spherical_harmonics_give_the_light_of_a_uniform_and_of_a_one_sided_sky():
    even = environment_from(np.ones((64, 128, 3), np.float32), "even")
    normals = np.random.default_rng(0).normal(0, 1, (50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    np.testing.assert_allclose(sh_basis(normals) @ even.sh, 1, atol=0.01)  # irradiance / pi of a white sky
    sky = np.ones((64, 128, 3), np.float32)
    sky[32:] = 0
    half = environment_from(sky, "half")
    up, down = (sh_basis(np.array([0, s, 0.0])) @ half.sh for s in (1, -1))
    np.testing.assert_allclose(up, 1, atol=0.08)
    np.testing.assert_allclose(down, 0, atol=0.08)


def test_a_view_looks_where_the_camera_does():
    panorama = np.zeros((64, 128, 3), np.float32)
    panorama[32, 96] = 1  # azimuth +90 degrees, at the horizon: along +x
    right = np.stack([[0, 0, 1.0], [0, -1, 0], [1, 0, 0]], 1).T  # columns: the camera's x, y, z in the world
    world_from_cam = np.array([[0, 0, 1.0], [0, -1, 0], [1, 0, 0]])
    assert np.allclose(world_from_cam, right.T) and np.linalg.det(world_from_cam) > 0
    picture = view(panorama, world_from_cam, 50, np.array([20.0, 20]), (41, 41))
    y, x = np.unravel_index(picture[..., 0].argmax(), (41, 41))
    assert abs(y - 20) <= 3 and abs(x - 20) <= 3


def test_composed_pictures_hide_what_is_behind_an_occluder(people, bare):
    bank = BackgroundBank(size=6)
    hidden = 0
    for k, (layer, surroundings, _) in enumerate(people[:12]):
        rng = np.random.default_rng(k)
        sample = compose(layer, surroundings, bank, rng, occluder_fraction=1.0)
        assert sample.image.shape == (*layer.alpha.shape, 3) and sample.image.dtype == np.uint8
        assert (sample.mask <= layer.alpha).all()
        assert not (sample.joint_visible & ~layer.sample.joint_visible).any()
        hidden += int(layer.sample.joint_visible.sum() - sample.joint_visible.sum())
    assert hidden > 30


def test_backgrounds_are_the_same_for_the_same_seed(bare):
    a, b = BackgroundBank(size=5, seed=1), BackgroundBank(size=5, seed=1)
    for _ in range(4):
        x, y = (bank.sample(np.random.default_rng(9), 60, 50) for bank in (a, b))
        assert x.shape == (60, 50, 3) and x.dtype == np.uint8
        np.testing.assert_array_equal(x, y)


def test_rooms_have_straight_edges_and_depend_on_the_seed_alone():
    plain = np.random.default_rng(0).integers(40, 220, (6, 3))

    def build(seed):
        rng = np.random.default_rng(seed)
        return room(rng, 96, lambda: np.full((96, 96, 3), plain[rng.integers(6)], np.uint8))

    pictures = [build(s) for s in range(8)]
    assert all(p.shape == (96, 96, 3) and p.dtype == np.uint8 for p in pictures)
    np.testing.assert_array_equal(build(3), pictures[3])
    assert len({p.tobytes() for p in pictures}) == 8
    lines = [cv2.HoughLinesP(cv2.Canny(p, 30, 80), 1, np.pi / 180, 25, minLineLength=25) for p in pictures]
    assert sum(found is not None for found in lines) >= 6
