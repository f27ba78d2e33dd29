"""Shadows on the ground."""

import cv2
import numpy as np

from wholebody.synthesis.light.shadow import STEP, cast_shadow, darken, warp_shadow
from wholebody.synthesis.sets import layers

UP = np.array([0, -1.0, 0])  # the camera looks along the ground


def pole():
    """A pole of 1.7 m, 4 m in front of a camera at 1.2 m above the ground, in the camera's frame."""
    heights = np.linspace(0, 1.7, 800)
    return np.stack([0 * heights, 1.2 - heights, np.full(800, 4.0)], 1).astype(np.float32)


def test_a_shadow_falls_away_from_the_light_and_starts_at_the_foot():
    size, focal, principal = (240, 320), 300.0, np.array([159.5, 119.5])
    foot = np.array([0, 1.2, 4.0])
    for side in (1, -1):
        sun = np.array([side, -1.0, 0]) / np.sqrt(2)
        shadow = cast_shadow(pole(), UP, sun, 0.7, focal, principal, size)
        assert shadow.shape == (60, 80) and shadow.dtype == np.uint8
        tip = foot - np.array([side * 1.7, 0, 0])  # 45 degrees: as long as the pole is high
        for place in (foot, 0.5 * (foot + tip)):
            x, y = (place[:2] / place[2] * focal + principal) / STEP
            around = shadow[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
            assert around.max() > 60
        towards = shadow[:, 52:70] if side > 0 else shadow[:, 10:28]
        assert towards.max() < 10 < shadow.max()
    assert cast_shadow(pole(), UP, np.array([0, 1.0, 0]), 0.7, focal, principal, size).max() < 130  # contact only


def test_darkening_takes_light_away_in_proportion():
    picture = np.full((8, 8, 3), 200, np.uint8)
    shadow = np.zeros((8, 8), np.uint8)
    shadow[:, 4:] = 191  # three quarters of the light: half as bright to the eye
    out = darken(picture, shadow)
    np.testing.assert_array_equal(out[:, :4], picture[:, :4])
    assert abs(int(out[0, 6, 0]) - 100) <= 1


def test_a_warped_shadow_lies_where_the_layer_does():
    shadow = np.zeros((30, 40), np.uint8)
    cv2.circle(shadow, (20, 12), 3, 255, -1)
    affine = np.array([[0.5, 0.1, 7.0], [-0.1, 0.5, 30.0]])
    out = warp_shadow(shadow, affine, (100, 120))
    y, x = np.argwhere(out > 128).mean(0)
    centre = affine @ [(20 + 0.5) * STEP - 0.5, (12 + 0.5) * STEP - 0.5, 1]
    np.testing.assert_allclose([x, y], centre, atol=0.5)


def test_sets_keep_shadows_and_older_sets_have_none(tmp_path, people):
    written = [layer for layer, _, _ in people[:3]]
    layers.write_shard(tmp_path, 0, written)
    found = layers.LayerSet(tmp_path)
    for k, layer in enumerate(written):
        np.testing.assert_array_equal(found.get(k).shadow, layer.shadow)
    with np.load(tmp_path / "layers-00000.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["offsets"] = arrays["offsets"][:, :3]
    np.savez(tmp_path / "layers-00000.npz", **arrays)
    old = layers.LayerSet(tmp_path).get(1)
    assert old.shadow is None
    np.testing.assert_array_equal(old.alpha, written[1].alpha)
