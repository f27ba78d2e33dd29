"""Fits over time: what is kept, what is taken out, what is never moved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wholebody.errors import BadInput
from wholebody.motion.smooth import (
    TELLING,
    TELLING_OF_LEGS,
    bending,
    cutoff,
    fit,
    fit_numbers,
    fit_rotations,
    robust_mean,
    steady,
)

TIMES = np.arange(240) / 30
SURE = np.ones(240)


def turning(times: np.ndarray = TIMES) -> np.ndarray:
    """A joint that swings by 60 degrees about a changing axis."""
    return np.stack([np.sin(2 * times), 0.4 * np.cos(1.3 * times), 0.2 * np.sin(3 * times)], 1)


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (Rotation.from_rotvec(a).inv() * Rotation.from_rotvec(b)).magnitude()


def test_a_swing_of_the_named_frequency_is_halved_and_slow_ones_are_kept():
    for hertz, kept in ((5.0, 0.5), (1.0, 0.998), (10.0, 0.1)):
        wave = np.sin(2 * np.pi * hertz * TIMES)[:, None]
        smooth = fit(TIMES, wave, SURE, 5.0)
        share = (smooth * wave)[60:180].mean() / (wave**2)[60:180].mean()
        assert share == pytest.approx(kept, abs=0.06), hertz


def test_nothing_lags():
    """A step is met half-way at its place, from both sides alike."""
    step = np.where(np.arange(240) < 120, 0.0, 1.0)[:, None]
    smooth = fit(TIMES, step, SURE, 4.0)[:, 0]
    np.testing.assert_allclose(smooth[:120], 1 - smooth[:119:-1], atol=1e-9)


def test_straight_lines_and_uneven_times_cost_nothing():
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.1, 80))
    line = np.stack([3 * times, 5 - times], 1)
    np.testing.assert_allclose(fit(times, line, np.full(80, 0.3), 2.0), line, atol=1e-8)


def test_the_bands_are_those_of_a_naive_twin():
    times = np.array([0.0, 0.1, 0.15, 0.4, 0.5])
    kappa, total = 1 / (2 * np.pi * 3.0) ** 4, np.zeros((5, 5))
    for i in range(1, 4):
        h1, h2 = times[i] - times[i - 1], times[i + 1] - times[i]
        row = np.zeros(5)
        row[i - 1], row[i], row[i + 1] = 2 / (h1 * (h1 + h2)), -2 / (h1 * h2), 2 / (h2 * (h1 + h2))
        total += kappa * (h1 + h2) / 2 / np.median(np.diff(times)) * np.outer(row, row)
    bands = bending(times, 3.0)
    for gap in range(3):
        np.testing.assert_allclose(bands[2 - gap, gap:], np.diagonal(total, gap), rtol=1e-10)


def test_noise_of_rotations_goes_and_motion_stays():
    noisy = turning() + np.random.default_rng(0).normal(0, 0.06, (240, 3))
    smooth = fit_rotations(TIMES, noisy, SURE, 5.0)
    assert angle(smooth, turning()).mean() < 0.6 * angle(noisy, turning()).mean()

    def jerk(path: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(path, 2, axis=0), axis=1).mean())

    assert jerk(smooth - turning()) < 0.2 * jerk(noisy - turning())


def test_a_single_wild_frame_leaves_no_trace():
    wild = turning()
    wild[100] = Rotation.from_rotvec([2.5, 0, 0]).as_rotvec()
    with_it = fit_rotations(TIMES, wild, SURE, 5.0)
    without = fit_rotations(TIMES, turning(), np.where(np.arange(240) == 100, 0.0, 1.0), 5.0)
    assert angle(with_it, without).max() < np.radians(2)
    assert angle(with_it[100:101], turning()[100:101]).max() < np.radians(3)


def test_sure_frames_are_trusted_more():
    values = np.where(np.arange(240) % 2 == 0, 0.0, 1.0)[:, None]
    weights = np.where(np.arange(240) % 2 == 0, 1.0, 0.05)
    assert fit(TIMES, values, weights, 4.0)[60:180].mean() < 0.1


@pytest.mark.parametrize("hertz", [0.0, 5.0])
def test_gaps_are_filled_by_what_lies_between(hertz):
    seen = np.ones(240)
    seen[100:110] = 0
    wrong = turning()
    wrong[100:110] = 9.0  # never looked at
    filled = fit_rotations(TIMES, wrong, seen, hertz)
    assert angle(filled, turning())[100:110].max() < np.radians(6)
    if hertz == 0:
        np.testing.assert_allclose(angle(filled, turning())[seen > 0], 0, atol=1e-6)


def test_nothing_shoots_on_after_the_last_sight():
    seen = np.where(np.arange(240) < 200, 1.0, 0.0)
    path = fit_numbers(TIMES, np.stack([5 * TIMES], 1), seen, 5.0, 0.1)
    assert path[-1, 0] < 5 * TIMES[199] + 0.5


def test_turns_through_half_a_turn_are_continuous():
    """Axis-angle jumps from +180 to -180 degrees; the motion does not."""
    spin = np.stack([np.zeros(240), 1.5 * TIMES, np.zeros(240)], 1)
    wrapped = Rotation.from_rotvec(spin).as_rotvec()
    assert np.abs(np.diff(wrapped, axis=0)).max() > 3
    assert angle(fit_rotations(TIMES, wrapped, SURE, 5.0), spin).max() < np.radians(1)


def test_flips_are_found_and_a_real_turn_is_believed():
    flipped = Rotation.from_rotvec(turning())
    about = Rotation.from_rotvec([0, np.pi, 0])
    wrong = (flipped * about).as_rotvec()
    path = turning()
    path[80:100] = wrong[80:100]  # two thirds of a second the wrong way round
    path[150] = wrong[150]
    kept = steady(TIMES, path, SURE, "root")
    assert not kept[80:100].any() and not kept[150]
    assert kept[:80].all() and kept[100:150].all() and kept[151:].all()
    path = turning()
    path[120:] = wrong[120:]  # a cut or a turn out of sight: it stays
    assert steady(TIMES, path, SURE, "root").all()


def test_fast_motion_is_no_flip():
    kick = np.stack([1.2 * np.sin(2 * np.pi * 3 * TIMES), 0 * TIMES, 0 * TIMES], 1)  # 1300 degrees a second
    assert steady(TIMES, kick, SURE).all()


def test_frames_of_weight_zero_are_never_kept():
    weights = SURE.copy()
    weights[10:20] = 0
    assert not steady(TIMES, turning(), weights)[10:20].any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_films(count):
    for hertz in (0.0, 5.0):
        path = fit_rotations(TIMES[:count], turning()[:count], SURE[:count], hertz)
        assert path.shape == (count, 3) and angle(path, turning()[:count]).max() < np.radians(2)
    assert steady(TIMES[:count], turning()[:count], SURE[:count]).all()


def test_one_shape_from_many_and_a_third_of_them_wrong():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, (90, 10)) + 1.0
    values[:30] += 5
    weights = np.where(np.arange(90) < 30, 0.5, 1.0)
    assert np.abs(robust_mean(values, weights) - 1).max() < 0.2


def test_strengths_have_names():
    assert cutoff("none") == 0 < cutoff("strong") < cutoff("light")
    with pytest.raises(BadInput, match="light"):
        cutoff("medium")


def test_of_legs_more_is_asked_before_a_deviation_means_quick_motion():
    """Feet slide where legs follow errors; arms are followed sooner."""
    noise = np.random.default_rng(0).normal(0, 0.05, (240, 3))
    swing = np.stack([1.4 * np.exp(-(((TIMES - TIMES[120]) / 0.08) ** 2)), 0 * TIMES, 0 * TIMES], 1)
    arm, leg = (fit_rotations(TIMES, swing + noise, np.ones(240), 4.0, telling=of)[115:126, 0].max()
                for of in (TELLING, TELLING_OF_LEGS))  # fmt: skip
    assert leg + 0.1 < arm < 1.4
