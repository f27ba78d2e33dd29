"""Fast motion, flips and wild frames together, on motion whose truth is known: what a fit over time must keep apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from made_up import FOCAL, WH, joint, rig, sights_of, timeline, walk
from scipy.spatial.transform import Rotation

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.motion.assemble import Sights, assemble
from wholebody.motion.sides import mend

TIMES = np.arange(150) / 30
FAST = slice(58, 92)
SLOW = np.r_[8:42, 108:142]
PAIRS = [(SMPLX_JOINTS.index(f"left_{name}"), SMPLX_JOINTS.index(f"right_{name}"))
         for name in ("hip", "knee", "ankle", "foot", "collar", "shoulder", "elbow", "wrist")]  # fmt: skip
LEGS, ARMS = PAIRS[:4], PAIRS[4:]
MIRROR = np.array([1.0, -1.0, -1.0])  # of an axis-angle vector at the body's middle plane


def game() -> tuple[np.ndarray, np.ndarray]:
    """Somebody stands with slow sways, swings an arm and turns with it (to 900 degrees a second), jumps, and stands."""
    standing, transl = walk(TIMES[:1] + 0.15)  # in a stride: left and right are not alike
    pose, transl = np.repeat(standing, 150, 0), np.repeat(transl, 150, 0)
    pose[:, joint("left_shoulder"), 0] += 0.3 * np.sin(2 * np.pi * 0.4 * TIMES)
    pose[:, joint("right_elbow"), 1] += 1.0  # holds a racket
    pose[:, joint("right_shoulder"), 1] += 0.5
    pose[:, joint("spine1"), 1] = 0.15 * np.sin(2 * np.pi * 0.3 * TIMES)
    for middle in (2.15, 2.75):
        swing = np.exp(-(((TIMES - middle) / 0.08) ** 2))
        pose[:, joint("right_shoulder"), 1] += 1.4 * swing
        pose[:, joint("right_elbow"), 1] += 1.0 * swing
        pose[:, joint("spine2"), 1] += 0.4 * swing
        crouch = np.exp(-(((TIMES - middle - 0.12) / 0.08) ** 2))
        for side in ("left", "right"):
            pose[:, joint(f"{side}_hip"), 0] -= 0.8 * crouch
            pose[:, joint(f"{side}_knee"), 0] += 1.4 * crouch
    transl[:, 1] -= 0.3 * np.exp(-(((TIMES - 2.5) / 0.15) ** 2))
    return pose, transl


def exchanged(sights: Sights, rows: np.ndarray, pairs: list[tuple[int, int]]) -> None:
    """A network takes left for right: mirrored rotations, and key points with the other's names."""
    for left, right in pairs:
        of_left = sights.pose[rows, left].copy()
        sights.pose[rows, left] = sights.pose[rows, right] * MIRROR
        sights.pose[rows, right] = of_left * MIRROR
        at_left = sights.joints_px[rows, left].copy()
        sights.joints_px[rows, left] = sights.joints_px[rows, right]
        sights.joints_px[rows, right] = at_left


@dataclass(frozen=True)
class Errors:
    """Metres, joints about the pelvis, and m/s²."""

    fast: float
    slow: float
    shaking: float
    flipped: float


FLIPPED_LEGS, FLIPPED_ARMS, TURNED, WILD = np.arange(18, 27), np.arange(112, 122), np.arange(130, 137), (12, 66, 105)


def seen(noise: float = 0.05, flips: bool = True, seed: int = 3) -> Sights:
    pose, transl = game()
    sights = sights_of(pose, transl, noise=noise, seed=seed)
    if flips:
        exchanged(sights, FLIPPED_LEGS, LEGS)
        exchanged(sights, FLIPPED_ARMS, ARMS)
        exchanged(sights, TURNED, PAIRS)  # the back taken for the front
        about = Rotation.from_rotvec([0, np.pi, 0])
        sights.pose[TURNED, 0] = (Rotation.from_rotvec(sights.pose[TURNED, 0]) * about).as_rotvec()
        rng = np.random.default_rng(seed)
        for row in WILD:
            sights.pose[row, 1:22] = rng.normal(0, 0.8, (21, 3))
    return sights


def measure(sights: Sights, **options) -> Errors:
    pose, transl = game()
    (motion,) = assemble(sights, timeline(TIMES), rig(), FOCAL, "--focal", WH, **options).people
    found = np.zeros((150, 55, 3))
    found[:, 0], found[:, 1:22] = motion.global_orient, motion.body_pose
    joints, truth = (rig().pose(p, b).joints for p, b in ((found, motion.betas), (pose, np.zeros(10))))
    joints, truth = joints - joints[:, :1], truth - truth[:, :1]
    off = np.linalg.norm(joints - truth, axis=2)
    moving = [joint(name) for name in ("right_elbow", "right_wrist", "left_ankle", "right_ankle")]
    shakes = np.linalg.norm(np.diff(joints - truth, 2, axis=0), axis=2)[SLOW - 1] * 900
    flipped = np.concatenate([FLIPPED_LEGS, FLIPPED_ARMS, TURNED])
    return Errors(off[FAST][:, moving].mean(), off[SLOW].mean(), shakes.mean(), off[flipped].mean())


@pytest.fixture(scope="module")
def errors() -> Errors:
    return measure(seen())


def test_fast_swings_are_followed(errors):
    """A fit of one cutoff for all frames has 58 mm here."""
    assert errors.fast < 0.042


def test_what_is_slow_stays_as_steady_as_it_was(errors):
    """A fit of one cutoff for all frames has 5.4 m/s², with flips and wild frames left out."""
    assert errors.shaking < 4.5 and errors.slow < 0.016
    plain = measure(seen(flips=False), smooth="none")
    assert errors.shaking < 0.1 * plain.shaking


def test_exchanged_sides_are_put_back(errors):
    """Only leaving such frames out gives 61 mm."""
    assert errors.flipped < 0.018


def test_each_kind_of_exchange_is_found_and_nothing_else_is():
    sights, clean = seen(noise=0.03), seen(noise=0.03, flips=False)
    pose, points = sights.pose.copy(), sights.joints_px.copy()
    mended = mend(TIMES, pose, sights.confidence, points)
    wrong = np.concatenate([FLIPPED_LEGS, FLIPPED_ARMS, TURNED])
    assert mended[wrong].all() and set(np.flatnonzero(mended)) <= set(wrong) | set(WILD)
    np.testing.assert_allclose(points[wrong], clean.joints_px[wrong], atol=1e-6)
    apart = Rotation.from_rotvec(pose[wrong][:, np.ravel(PAIRS)].reshape(-1, 3)).inv()
    apart *= Rotation.from_rotvec(clean.pose[wrong][:, np.ravel(PAIRS)].reshape(-1, 3))
    assert apart.magnitude().max() < 1e-6
    pose = clean.pose.copy()
    assert not mend(TIMES, pose, clean.confidence, clean.joints_px.copy()).any()
    np.testing.assert_array_equal(pose, clean.pose)


def test_hands_go_with_their_arms():
    sights, clean = seen(noise=0.02, flips=False), seen(noise=0.02, flips=False)
    pose = sights.pose.copy()
    arms = [*ARMS, *zip(range(25, 40), range(40, 55), strict=True)]
    for left, right in arms:
        pose[FLIPPED_ARMS, left], pose[FLIPPED_ARMS, right] = (
            clean.pose[FLIPPED_ARMS, right] * MIRROR, clean.pose[FLIPPED_ARMS, left] * MIRROR,
        )  # fmt: skip
    mend(TIMES, pose, sights.confidence, sights.joints_px)
    np.testing.assert_allclose(pose, clean.pose, atol=1e-12)


@pytest.mark.parametrize("speed", [0.9, 1.8])
def test_legs_that_pass_each_other_are_not_exchanged(speed):
    """Side by side both readings are alike, and going on with the other one would be no jump."""
    pose, transl = walk(TIMES * speed)
    for noise in (0.0, 0.05):
        sights = sights_of(pose, transl, noise=noise)
        assert mend(TIMES, sights.pose, sights.confidence, sights.joints_px).sum() == 0


def test_sides_that_stay_exchanged_are_believed():
    """Nothing in a film tells that a person's left was taken for their right from the first to the last frame."""
    sights = seen(noise=0.02, flips=False)
    exchanged(sights, np.arange(150), PAIRS)
    before = sights.pose.copy()
    assert not mend(TIMES, sights.pose, sights.confidence, sights.joints_px).any()
    np.testing.assert_array_equal(before, sights.pose)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_frames(count):
    sights = seen(flips=False).take(np.arange(count))
    assert not mend(TIMES[:count], sights.pose, sights.confidence, sights.joints_px).any()
