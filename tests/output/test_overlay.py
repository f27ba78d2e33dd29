"""Overlays: the mesh lies where its projection is, nearer people hide those behind, and nothing depends on OpenGL."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from fake_network import FakeNetwork
from PIL import Image

from wholebody.errors import BadInput
from wholebody.output import overlay
from wholebody.output.overlay import draw_overlay, encode_jpeg
from wholebody.people.predictor import Predictor

GREY = np.full((480, 640, 3), 128, np.uint8)
BOXES = np.array([[200.0, 30, 400, 450]])


@pytest.fixture(scope="module")
def person():
    return Predictor(FakeNetwork())(GREY, boxes=BOXES)[0]


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return FakeNetwork().body.faces.numpy()


def painted(picture: np.ndarray) -> np.ndarray:
    return np.abs(picture.astype(int) - 128).max(2) > 2


def extent(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max(), rows.max()])


def test_the_mesh_is_drawn_where_the_camera_sees_it(person, faces):
    drawn = extent(painted(draw_overlay(GREY, [person], faces, opacity=1, side_view=False)))
    points = person.vertices_cam[:, :2] / person.vertices_cam[:, 2:] * person.focal_px + person.principal_px
    expected = np.concatenate([points.min(0), points.max(0)])
    assert np.abs(drawn - expected).max() < 1.5


def test_large_photos_are_shown_smaller_and_still_fit(person, faces):
    large = np.full((960, 4096, 3), 128, np.uint8)
    picture = draw_overlay(large, [person], faces, opacity=1, side_view=False)
    assert picture.shape == (480, 2048, 3)
    points = person.vertices_cam[:, :2] / person.vertices_cam[:, 2:] * person.focal_px + person.principal_px
    expected = (np.concatenate([points.min(0), points.max(0)]) + 0.5) / 2 - 0.5
    assert np.abs(extent(painted(picture)) - expected).max() < 1.5


def test_opacity(person, faces):
    nothing, half, full = (
        draw_overlay(GREY, [person], faces, opacity=o, side_view=False).astype(float) for o in (0, 0.5, 1)
    )
    np.testing.assert_array_equal(nothing, GREY)
    np.testing.assert_allclose(half, (GREY + full) / 2, atol=1)
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(BadInput, match="opacity"):
            draw_overlay(GREY, [person], faces, opacity=bad)


def test_edges_are_smooth(person, faces):
    picture = draw_overlay(GREY, [person], faces, opacity=1, side_view=False).astype(int)
    inside = painted(picture)
    rim = inside & ~np.roll(inside, 1, 1)  # leftmost pixels of each run
    off = np.abs(picture - 128).max(2)[rim]
    assert len(np.unique(off)) > 10  # many levels of coverage, not one


def nearer(person, factor: float, colour_shift: float):
    """The same person moved towards the camera along their rays, and sideways."""
    vertices = person.vertices_cam * np.float32(factor) + np.array([colour_shift, 0, 0], np.float32)
    return dataclasses.replace(person, vertices_cam=vertices)


def test_who_is_nearer_hides_the_other_whatever_the_order(person, faces):
    front = nearer(person, 0.8, 0.25)
    one = draw_overlay(GREY, [front, person], faces, opacity=1, side_view=False)
    only_front = draw_overlay(GREY, [front], faces, opacity=1, side_view=False)
    core = painted(only_front)
    core &= np.roll(core, 2, 0) & np.roll(core, -2, 0) & np.roll(core, 2, 1) & np.roll(core, -2, 1)
    np.testing.assert_allclose(one[core].astype(int), only_front[core], atol=1)
    other = draw_overlay(GREY, [person, front], faces, opacity=1, side_view=False)
    np.testing.assert_array_equal(painted(one), painted(other))  # the same outline, in swapped colours


def test_depth_compares_between_cameras(person, faces):
    """A person's virtual camera may be anywhere along the ray: twice the focal length at twice the distance is the
    same place. Depth over focal length decides, so zooming one camera must change nothing."""
    moved = nearer(person, 0.8, 0.25)
    stretch = np.array([1, 1, 3], np.float32)
    shifted = moved.vertices_cam.copy()
    shifted[:, 2] = shifted[:, 2].mean() * 3 + (shifted[:, 2] - shifted[:, 2].mean())
    zoomed = dataclasses.replace(moved, vertices_cam=shifted, focal_px=moved.focal_px * 3)
    assert stretch[2] == 3
    plain = draw_overlay(GREY, [moved, person], faces, opacity=1, side_view=False).astype(int)
    same = draw_overlay(GREY, [zoomed, person], faces, opacity=1, side_view=False).astype(int)
    assert (np.abs(plain - same).max(2) > 40).mean() < 0.004  # but for the perspective at the outline


def test_people_beside_behind_or_beyond_the_camera(person, faces):
    for shift in ([100, 0, 0], [0, 0, -200]):
        away = dataclasses.replace(person, vertices_cam=person.vertices_cam + np.array(shift, np.float32))
        picture = draw_overlay(GREY, [away], faces, side_view=False)
        np.testing.assert_array_equal(picture, GREY)


@pytest.mark.parametrize("count", [1, 2, 5, 14])
def test_every_person_has_a_side_view_inside_the_panel(person, faces, count):
    picture = draw_overlay(GREY, [person] * count, faces)
    assert picture.shape[0] == 480 and picture.shape[1] > 640
    panel = picture[:, 640:].astype(int)
    paper = np.rint(overlay._PAPER * 255).astype(int)
    inked = np.abs(panel - paper).max(2) > 2
    assert inked.any()
    assert not (inked[0].any() or inked[-1].any() or inked[:, 0].any() or inked[:, -1].any())  # nobody is cut off
    import cv2

    pieces = cv2.connectedComponentsWithStats(inked.astype(np.uint8))[2][1:, cv2.CC_STAT_AREA]
    assert (pieces > 0.3 * pieces.max()).sum() == count


def test_nobody_gives_the_photo(faces):
    np.testing.assert_array_equal(draw_overlay(GREY, [], faces), GREY)


def test_jpeg(person, faces):
    picture = draw_overlay(GREY, [person], faces)
    back = np.asarray(Image.open(io.BytesIO(encode_jpeg(picture))))
    assert back.shape == picture.shape and np.abs(back.astype(int) - picture).mean() < 2
