"""From sights to a scene, on motion whose truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_up import FOCAL, PRINCIPAL, WH, joint, placed, project, rig, sights_of, timeline, walk
from scipy.spatial.transform import Rotation

from wholebody.body.joints import PARENTS
from wholebody.motion import assemble as assembling
from wholebody.motion.assemble import Sights, assemble
from wholebody.motion.floor import hold
from wholebody.motion.watch import Part
from wholebody.people.scene import Motion, Scene

TIMES = np.arange(90) / 30


def scene(sights: Sights, times: np.ndarray = TIMES, cuts=(), turns=None, **options) -> Scene:
    return assemble(sights, timeline(times, cuts, turns), rig(), FOCAL, "--focal", WH, **options)


def camera_joints(motion: Motion) -> np.ndarray:
    pose = np.zeros((len(motion.frames), 55, 3))
    pose[:, 0], pose[:, 1:22] = motion.global_orient, motion.body_pose
    return rig().pose(pose, motion.betas).joints[:, :22] + motion.transl[:, None]


@pytest.mark.parametrize("smooth", ["none", "light"])
def test_a_walk_without_noise_comes_back(smooth):
    pose, transl = walk(TIMES)
    (motion,) = scene(sights_of(pose, transl), smooth=smooth).people
    truth = rig().pose(pose, np.zeros(10)).joints[:, :22] + transl[:, None]
    off = np.linalg.norm(camera_joints(motion) - truth, axis=2)
    assert np.median(off) < 0.02 and off.max() < 0.12, (np.median(off), off.max())
    assert len(motion.frames) == 90 and not motion.filled.any()


def test_people_stand_where_they_are_in_metres_and_joints_stay_in_the_picture():
    pose, transl = walk(TIMES, start=(-2.0, 1.5))
    result = scene(sights_of(pose, transl), smooth="none")
    (motion,) = result.people
    truth = rig().pose(pose, np.zeros(10)).joints[:, :22] + transl[:, None]
    shift = np.linalg.norm(project(camera_joints(motion)) - project(truth), axis=2)
    height = np.ptp(project(truth)[..., 1], axis=1)
    assert np.median(shift / height[:, None]) < 0.005 and result.checks["joint_shift"] < 0.005
    assert np.abs(motion.transl[:, 2] / transl[:, 2] - 1).max() < 0.02
    assert result.camera.focal_px == FOCAL and (result.camera.principal_px == PRINCIPAL).all()


@pytest.mark.parametrize("tilt", [0.0, 0.2])
def test_the_world_is_the_floor(tilt):
    """y up, feet on 0, z towards the camera, the first place at the origin; also where the camera looks down."""
    pose, transl = walk(TIMES, tilt=tilt, speed=1)
    second, second_transl = walk(TIMES, tilt=tilt, start=(-1.0, 2.5))
    sights = Sights.concatenate([sights_of(pose, transl), sights_of(second, second_transl, track=1)])
    result = scene(sights)
    world = placed(result.people[0], result)
    assert result.floor == "feet"
    ground = world.soles[..., 1].min((1, 2))
    assert np.abs(ground).max() < 0.06, ground
    assert world.joints[:, joint("head"), 1].min() > 1.2
    assert np.abs(world.joints[0, 0, [0, 2]]).max() < 1e-6
    camera = np.linalg.inv(result.camera_from_world[0])[:3, 3]
    assert camera[2] > 3 and camera[1] == pytest.approx(1.4 if tilt == 0 else camera[1], abs=0.15)
    assert world.joints[-1, 0, 0] > 1.0  # walks to the right
    up = np.linalg.inv(result.camera_from_world[0])[:3, :3] @ Rotation.from_rotvec([tilt, 0, 0]).apply([0, -1, 0])
    assert np.degrees(np.arccos(up[1])) < 4


def steadiness(world: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(world, 2, axis=0), axis=-1).mean())


def test_noise_goes_bones_keep_their_lengths_and_feet_do_not_slide():
    pose, transl = walk(TIMES)
    sights = sights_of(pose, transl, noise=0.06)
    plain, smooth = scene(sights, smooth="none"), scene(sights, smooth="light")
    before, after = (placed(result.people[0], result) for result in (plain, smooth))
    truth = rig().pose(pose, np.zeros(10))
    true_soles = truth.soles + transl[:, None, None]
    assert steadiness(after.joints[:, :22]) < 0.35 * steadiness(before.joints[:, :22])
    stands = np.linalg.norm(np.diff(true_soles, axis=0), axis=-1) < 0.002
    assert stands.sum() > 100

    def slide(soles: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(soles[..., [0, 2]], axis=0), axis=-1)[stands].mean())

    assert slide(after.soles) < slide(before.soles) / 3
    bones = np.linalg.norm(after.joints[:, 1:22] - after.joints[:, list(PARENTS[1:22])], axis=2)
    assert np.ptp(bones, axis=0).max() < 1e-6
    contacts = smooth.people[0].contacts
    assert contacts is not None and contacts.shape == (90, 2) and 0.2 < contacts.mean() < 0.95

    def error(result: Scene) -> float:
        joints = camera_joints(result.people[0])
        joints = joints - joints[:, :1]
        return float(np.linalg.norm(joints - truth.joints[:, :22] + truth.joints[:, :1], axis=2).mean())

    assert error(smooth) < error(plain)


def test_a_long_film_is_posed_in_parts_that_nobody_sees(monkeypatch):
    pose, transl = walk(TIMES)
    whole = scene(sights_of(pose, transl, noise=0.05))
    monkeypatch.setattr(assembling, "_AT_A_TIME", 7)
    parts = scene(sights_of(pose, transl, noise=0.05))
    np.testing.assert_allclose(whole.camera_from_world, parts.camera_from_world, atol=1e-6)
    for name in ("global_orient", "body_pose", "transl", "contacts"):
        one, other = (getattr(of.people[0], name).astype(float) for of in (whole, parts))
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_gaps_are_filled_and_marked():
    pose, transl = walk(TIMES)
    keep = np.r_[0:40, 52:90]
    (motion,) = scene(sights_of(pose, transl).take(keep)).people
    assert len(motion.frames) == 90 and motion.filled[40:52].all() and motion.filled.sum() == 12
    assert (motion.confidence[40:52] == 0).all()
    truth = rig().pose(pose, np.zeros(10)).joints[:, :22] + transl[:, None]
    assert np.linalg.norm(camera_joints(motion) - truth, axis=2)[40:52].mean() < 0.12


def test_what_a_network_said_of_somebody_else_is_not_used():
    """Sights of confidence 0 say where the box is, and no more."""
    pose, transl = walk(TIMES)
    sights = sights_of(pose, transl)
    sights.pose[60:70] = 0.5
    sights.joints_px[60:70] += 300
    sights.confidence[60:70] = 0
    (motion,) = scene(sights).people
    truth = rig().pose(pose, np.zeros(10)).joints[:, :22] + transl[:, None]
    assert motion.filled[60:70].all()
    assert np.linalg.norm(camera_joints(motion) - truth, axis=2)[60:70].mean() < 0.15


def test_what_a_face_tells_of_the_shape_holds_where_it_is_turned_away():
    sights = sights_of(*walk(TIMES))
    faced = np.arange(90) < 9
    betas = sights.betas + faced[:, None]
    (motion,) = scene(dataclasses.replace(sights, betas=betas, faced=faced)).people
    np.testing.assert_allclose(motion.betas, 1, atol=0.1)
    (motion,) = scene(dataclasses.replace(sights, betas=betas)).people
    np.testing.assert_allclose(motion.betas, 0, atol=0.1)


def test_a_film_begun_before_faces_told_of_shapes_goes_on():
    arrays = Part(sights=[sights_of(*walk(TIMES))]).arrays()
    del arrays["sights_faced"]
    assert not Part.of(arrays).sights[0].faced.any()


@pytest.mark.parametrize("last_is_wild", [False, True])
def test_who_is_hidden_to_the_end_stays_where_their_box_is(last_is_wild):
    """Somebody stops and is then hidden: neither the way that they came nor a last wild sight is carried on."""
    pose, transl = walk(TIMES)
    pose[45:], transl[45:] = pose[45], transl[45]
    sights = sights_of(pose, transl, noise=0.03)
    sights.confidence[45:] = 0
    if last_is_wild:
        sights.confidence[50] = 1
        middle = sights.joints_px[50].mean(0)
        sights.joints_px[50] = middle + 1.25 * (sights.joints_px[50] - middle)
    (motion,) = scene(sights).people
    truth = rig().pose(pose, np.zeros(10)).joints[:, :22] + transl[:, None]
    off = np.linalg.norm(camera_joints(motion) - truth, axis=2).mean(1)
    assert off[45:].max() < 0.3, off[45:].round(2)
    beside = np.linalg.norm(project(camera_joints(motion)) - project(truth), axis=2).mean(1)
    assert beside[45:].max() < 30, beside[45:].round()


def test_no_path_is_carried_on_where_nobody_is_seen():
    """Nothing stands: the path stays near what it was said to be, and is not led on in a straight line."""
    said = np.stack([np.minimum(TIMES, 1.5), 0 * TIMES + 0.9, np.minimum(TIMES, 1.5) - 4], 1)
    weights = np.where(TIMES < 1.5, 1.0, 0.0)
    sight = said / np.linalg.norm(said, axis=1, keepdims=True)
    soles = np.zeros((90, 2, 2, 3))
    held = hold(TIMES, said, soles, np.zeros((90, 2, 2), bool), sight, weights, 6.0)
    assert np.linalg.norm(held - said, axis=1).max() < 0.25


def steps():
    """Soles (90, 2, 2, 3) below the pelvis of who walks at 0.3 m/s, and when they stand (90, 2, 2)."""
    soles, stands = np.zeros((90, 2, 2, 3)), np.zeros((90, 2, 2), bool)
    soles[..., 1] = -0.9
    for foot in range(2):
        phase = (TIMES + 0.5 * foot) % 1.0
        soles[:, foot, :, 0] = np.where(phase < 0.5, -0.3 * (phase - 0.25), 0.3 * (phase - 0.75))[:, None]
        stands[:, foot] = (phase < 0.5)[:, None]
    return soles, stands


def test_soles_that_slide_do_not_take_the_body_with_them():
    """Somebody walks on the spot, as in exercises and bad loops: soles on the floor go back at 0.3 m/s, in turns."""
    said = np.tile([0.0, 0.9, -4.0], (90, 1))
    sight = said / np.linalg.norm(said, axis=1, keepdims=True)
    soles, stands = steps()
    held = hold(TIMES, said, soles, stands, sight, np.ones(90), 4.0)
    assert np.abs(held - said)[:, 0].max() < 0.03


def test_soles_that_stand_hold_the_body():
    """The same steps on the way, with 5 mm of noise: the body goes, the soles stay."""
    rng = np.random.default_rng(3)
    truth = np.tile([0.0, 0.9, -4.0], (90, 1))
    truth[:, 0] = 0.3 * TIMES
    said = truth + rng.normal(0, 0.005, (90, 3))
    sight = truth / np.linalg.norm(truth, axis=1, keepdims=True)
    soles, stands = steps()
    held = hold(TIMES, said, soles, stands, sight, np.ones(90), 4.0)
    both = stands[1:] & stands[:-1]
    speed = np.linalg.norm(np.diff(soles + held[:, None, None], axis=0), axis=-1)[both] / np.diff(TIMES).mean()
    assert speed.mean() < 0.03
    assert np.abs(held - truth)[:, :2].max() < 0.01


def test_who_is_not_seen_goes_where_their_box_goes():
    """A long gap in which the box goes to one side and comes back."""
    pose, transl = walk(TIMES)
    pose[:] = pose[0]
    transl[:] = transl[0] + [0.5, 0, 0] * np.sin(np.pi * TIMES / TIMES[-1])[:, None]
    sights = sights_of(pose, transl)
    sights.confidence[15:75] = 0
    (motion,) = scene(sights).people
    off = np.abs(motion.transl - transl)[15:75]
    assert off[:, 0].max() < 0.12, off[:, 0].round(2)


def test_left_right_flips_are_mended():
    pose, transl = walk(TIMES)
    sights = sights_of(pose, transl)
    about = Rotation.from_rotvec([0, np.pi, 0])
    sights.pose[30:40, 0] = (Rotation.from_rotvec(sights.pose[30:40, 0]) * about).as_rotvec()
    (motion,) = scene(sights).people
    turned = (Rotation.from_rotvec(motion.global_orient) * Rotation.from_rotvec(pose[:, 0]).inv()).magnitude()
    assert turned.max() < np.radians(12)


def test_a_turning_camera_is_taken_out():
    pose, transl = walk(TIMES, speed=0.9)
    angles = 0.3 * np.sin(TIMES)
    turns = Rotation.from_rotvec(np.stack([0.3 * angles, angles, 0 * angles], 1)).as_matrix()
    pelvis = rig().pelvis(np.zeros(10))
    seen = pose.copy()
    seen[:, 0] = (Rotation.from_matrix(turns) * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    result = scene(sights_of(seen, np.einsum("tij,tj->ti", turns, transl + pelvis) - pelvis), turns=turns)
    still = scene(sights_of(pose, transl))
    assert result.camera.state == "turning" and any("turns" in note for note in result.notes)
    apart = placed(result.people[0], result).joints - placed(still.people[0], still).joints
    assert np.linalg.norm(apart, axis=2).mean() < 0.1
    forced = scene(sights_of(pose, transl), turns=turns, camera="still")
    assert forced.camera.state == "still" and np.ptp(forced.camera_from_world, axis=0).max() == 0


@pytest.mark.parametrize("camera", ["auto", "moving"])
def test_feet_are_not_held_where_the_camera_travels(camera):
    """Somebody stands still, and the camera goes past them; in its frames their feet come slowly the other way."""
    standing_pose, _ = walk(TIMES[:1])
    pose = np.repeat(standing_pose, 90, 0)
    transl = np.stack([0.5 - 0.3 * TIMES, np.full(90, 0.1), np.full(90, 4.0)], 1)
    travel = timeline(TIMES)
    travel = dataclasses.replace(
        travel, path=dataclasses.replace(travel.path, moved=np.full(90, 0.1), unexplained=np.full(90, 0.02))
    )
    sights = sights_of(pose, transl)
    result = assemble(sights, travel, rig(), FOCAL, "--focal", WH, camera=camera)
    (motion,) = result.people
    assert result.camera.state == "moving" and result.floor == "upright camera"
    assert motion.contacts is None
    path = placed(motion, result)
    assert np.ptp(path.joints[:, 0, 0]) == pytest.approx(0.3 * TIMES[-1], rel=0.05)  # the travel is in the path
    bends = Rotation.from_rotvec(motion.body_pose[:, 3]).inv() * Rotation.from_rotvec(pose[:, 4])
    assert bends.magnitude().max() < 0.02  # no leg reaches for where it stood
    assert np.abs(path.soles[..., 1].min((1, 2))).max() < 0.06  # and the lowest soles are the floor
    still = assemble(sights, travel, rig(), FOCAL, "--focal", WH, camera="still")
    assert still.people[0].contacts is not None and still.people[0].contacts.any()


def test_a_cut_makes_another_person_and_another_world():
    pose, transl = walk(TIMES)
    sights = sights_of(pose, transl)
    sights.track[45:] = 1
    result = scene(sights, cuts=(45,))
    assert [len(m.frames) for m in result.people] == [45, 45]
    for motion in result.people:
        assert np.abs(placed(motion, result).joints[0, 0, [0, 2]]).max() < 1e-6


def test_pieces_in_another_tracks_gap_are_the_same_person():
    pose, transl = walk(TIMES)
    sights = sights_of(pose, transl)
    sights.track[40:50] = 7
    (motion,) = scene(sights).people
    assert not motion.filled.any()


def test_only_so_many_people():
    pose, transl = walk(TIMES)
    far, far_transl = walk(TIMES, start=(-1.0, 6.0))
    near = sights_of(pose, transl, track=5)
    both = Sights.concatenate([sights_of(far, far_transl, track=2), near])
    assert len(scene(both).people) == 2
    (motion,) = scene(both, max_people=1).people
    assert motion.track_id == 5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_person_in_few_frames(count):
    """In one frame of a film, or in a film of one frame: a photo."""
    pose, transl = walk(TIMES[:count])
    (motion,) = scene(sights_of(pose, transl)).people
    assert len(motion.frames) == count and np.isfinite(motion.transl).all() and np.isfinite(motion.body_pose).all()
    (photo,) = scene(sights_of(pose[:1], transl[:1]), TIMES[:1], smooth="none", camera="still").people
    assert abs(photo.transl[0, 2] / transl[0, 2] - 1) < 0.03


def test_nobody():
    result = scene(Sights.none())
    assert result.people == () and len(result.camera_from_world) == 90 and result.floor == "upright camera"


def test_uneven_times_and_wild_input_stay_finite():
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 90))
    pose, transl = walk(times)
    sights = sights_of(pose, transl, noise=0.5)
    sights.joints_px[20] = 1e4
    sights.joints_px[21] = sights.joints_px[21, :1]  # all joints in one point
    (motion,) = scene(sights, times).people
    for value in (motion.transl, motion.global_orient, motion.body_pose, motion.betas):
        assert np.isfinite(value).all()
