"""Poses, hands and splits."""

import numpy as np
import pytest

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.data.sample import axis_angle_to_matrix
from wholebody.errors import BadInput
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.people import capture, exercise, penetration, postures, skeleton
from wholebody.synthesis.people import draw as p

J = SMPLX_JOINTS.index


def test_a_reaching_arm_arrives():
    rng = np.random.default_rng(0)
    for side, sign in (("left", 1), ("right", -1)):
        target = rng.normal(0, 1, (200, 3))
        target *= (rng.uniform(0.15, 0.45, 200) / np.linalg.norm(target, axis=1))[:, None]
        pose = np.zeros((200, 22, 3))
        pose[:, J(f"{side}_shoulder")], pose[:, J(f"{side}_elbow")] = postures.two_bones(rng, target, sign)
        points = p.forward_kinematics(pose)
        arrived = points[:, J(f"{side}_wrist")] - points[:, J(f"{side}_shoulder")]
        assert np.linalg.norm(arrived - target, axis=1).max() < 0.02  # the mean skeleton's bones are rounded to 1 cm
        bend = pose[:, J(f"{side}_elbow"), 1] * -sign
        assert bend.min() >= 0 and bend.max() < np.pi  # elbows bend one way only


def test_poses_keep_their_meaning_without_heading():
    rng = np.random.default_rng(1)
    yaw = axis_angle_to_matrix(np.stack([np.zeros(50), rng.uniform(-3, 3, 50), np.zeros(50)], 1))
    tilt = axis_angle_to_matrix(rng.normal(0, 0.3, (50, 3)))
    once, turned = capture._without_heading(tilt), capture._without_heading(yaw @ tilt)
    np.testing.assert_allclose(turned, once, atol=1e-9)
    np.testing.assert_allclose(once[:, 0, 2], 0, atol=1e-9)  # faces +z: no sideways part


def test_subjects_are_never_in_both_splits():
    clips = [f"cmu_bvh/{s:02d}_{k:02d}" for s in range(1, 15) for k in range(1, 4)]
    clips += ["cmu_fbx/135_01", "cmu_fbx/85_03", "cmu_expmap/train_walking_2", "cmu_expmap/test_soccer_1"]
    clips += [
        f"mesh2motion_quaternius/{n}"
        for n in ("Roll", "Sword_Idle", "Walk_Loop", "Dance_Loop", "Punch_Jab", "Hit_Head")
    ]
    train = {p.subject_of(c) for c in clips if p.in_split(c, "train")}
    heldout = {p.subject_of(c) for c in clips if p.in_split(c, "heldout")}
    assert train and heldout and not train & heldout
    assert "05" in heldout and "135" in heldout and "14" in train
    # This source does not say who walks, so it could be a held-out subject.
    assert not any(p.in_split("cmu_expmap/train_walking_2", s) for s in ("train", "heldout"))
    assert all(p.in_split(c, "all") for c in clips)


def test_fingers_curl_towards_the_palm(studio):
    import torch

    codes = np.stack([p.GESTURES["flat"], p.GESTURES["fist"]])
    hand = studio.hands.pose(codes)
    rotations = np.tile(np.eye(3), (2, 55, 1, 1))
    rotations[:, 25:40], rotations[:, 40:55] = axis_angle_to_matrix(hand), axis_angle_to_matrix(hand * p.FLIP)
    zero = torch.zeros(2, 10)
    joints = studio.body.from_matrices(torch.from_numpy(rotations).float(), zero, zero).joints.numpy()
    from wholebody.body.joints import JOINTS_144

    for side, sign in (("left", 1), ("right", -1)):
        for finger in ("index", "middle", "ring", "pinky"):
            tip, wrist = (JOINTS_144.index(n) for n in (f"{side}_{finger}_tip", f"{side}_wrist"))
            reach = (joints[:, tip] - joints[:, wrist])[:, 0] * sign
            assert reach[1] < 0.75 * reach[0]  # a fist is shorter
            assert joints[1, tip, 1] < joints[0, tip, 1] + 0.005  # and closes downwards, where the palm is
    mirrored = joints[:, JOINTS_144.index("left_index_tip")] * [-1, 1, 1]
    np.testing.assert_allclose(joints[:, JOINTS_144.index("right_index_tip")], mirrored, atol=2e-3)


def test_options_that_cannot_be_met_are_explained(tmp_path):
    with pytest.raises(BadInput, match="split is 'test'"):
        SynthesisConfig(split="test")
    with pytest.raises(BadInput, match="no motion clips"):
        p.PoseLibrary.load(tmp_path)


def test_clips_are_read_by_split(tmp_path):
    rng = np.random.default_rng(0)
    for clip, mark in (("cmu_bvh/05_01", 1.0), ("cmu_bvh/06_01", 2.0)):
        (tmp_path / clip).parent.mkdir(exist_ok=True)
        pose = rng.normal(0, 0.1, (12, 22, 3))
        pose[:, 4, 0] = mark
        np.savez(tmp_path / f"{clip}.npz", local_rotvec=pose.astype(np.float16))
    for split, marks in (("train", {2.0}), ("heldout", {1.0}), ("all", {1.0, 2.0})):
        library = p.PoseLibrary.load(tmp_path, split, clusters=4)
        assert set(library.poses[:, 4, 0].round(1).tolist()) == marks
        assert sorted(np.concatenate(library.members).tolist()) == list(range(len(library.poses)))
        assert np.isclose(library.weights.sum(), 1)


def test_procedures_make_what_they_are_named_after():
    rng = np.random.default_rng(2)
    start = postures.standing(rng, 150)

    def points(kind):
        pose = kind(rng, start)
        assert np.isfinite(pose).all()
        for side in ("left", "right"):
            assert pose[:, J(f"{side}_knee"), 0].min() > -0.2 and pose[:, J(f"{side}_knee"), 0].max() < 2.8
        return p.forward_kinematics(pose)

    def drop(at, upper, lower):
        return np.median(at[:, J(upper), 1] - at[:, J(lower), 1])

    upright = p.forward_kinematics(start)
    assert drop(upright, "left_hip", "left_knee") > 0.3
    sitting = points(postures._sitting)
    assert drop(sitting, "left_hip", "left_knee") < 0.15 and drop(sitting, "left_knee", "left_ankle") > 0.25
    assert drop(points(postures._crouching), "pelvis", "left_ankle") < 0.75 * drop(upright, "pelvis", "left_ankle")
    lying = points(postures._lying)
    assert np.abs(lying[:, J("neck"), 1] - lying[:, J("pelvis"), 1]).max() < 0.4
    bending = points(postures._bending)
    assert np.median(bending[:, J("neck"), 2] - bending[:, J("pelvis"), 2]) > 0.25
    legs = points(postures.legs)
    assert legs.std(0)[J("left_ankle")].min() > 0.1


def test_limbs_that_pass_through_are_found_on_both_sides_alike():
    rng = np.random.default_rng(3)
    free = np.zeros((4, 22, 3))
    free[:, [J("left_hip"), J("right_hip")], 2] = [0.05, -0.05]
    assert not penetration.penetrates(free).any()
    through = postures.standing(rng, 30)
    chest = np.tile([-0.17, -0.15, 0.0], (30, 1))  # the wrist in the middle of the chest
    shoulder, elbow = postures.two_bones(rng, chest, 1)
    through[:, J("left_shoulder")], through[:, J("left_elbow")] = shoulder, elbow
    assert penetration.penetrates(through).mean() > 0.9
    pose = postures.free_arms(rng, postures.legs(rng, postures.standing(rng, 300)))
    found = penetration.penetrates(pose)
    assert 0.05 < found.mean() < 0.6
    mirrored = pose[:, skeleton.MIRROR_22] * skeleton.FLIP
    assert (penetration.penetrates(mirrored) == found).mean() > 0.98  # the mean skeleton is rounded to 1 cm


def test_people_are_redrawn_until_few_pass_through_themselves(studio):
    drawn = p.sample_people(np.random.default_rng(4), 200, None, studio.hands, studio.population, 0.1)
    pose = drawn.full_pose[:, :22].astype(np.float64)
    pose[:, 0] = 0
    assert penetration.penetrates(pose, studio.population.girth(drawn.betas)).mean() < 0.03


def test_recombined_limbs_are_somebodys_and_the_rest_stays():
    rng = np.random.default_rng(5)
    captured = rng.normal(0, 0.3, (40, 22, 3))
    library = capture.PoseLibrary(captured, [np.arange(40)], np.ones(1))
    before = np.zeros((500, 22, 3))
    pose = before.copy()
    p._recombine(rng, pose, library, 0.5)
    known = np.concatenate([captured, captured[:, skeleton.MIRROR_22] * skeleton.FLIP])
    given = set()
    for limb in p._LIMBS:
        moved = np.flatnonzero((pose[:, limb] != 0).any((1, 2)))
        assert 0.25 < len(moved) / 500 < 0.45  # 0.5 × 0.7
        off = np.abs(pose[moved][:, None, limb] - known[None, :, limb]).max((2, 3))
        assert off.min(1).max() == 0  # whole limbs, of one frame or its mirror image
        given |= set(limb)
    rest = [joint for joint in range(22) if joint not in given]
    assert rest == [0] and (pose[:, rest] == 0).all()  # how the body is tilted stays with its legs' procedure


def test_exercises_are_what_their_names_say():
    """Upside down, on the hands, on one leg: in the frame where y is up and the person faces +z."""
    drawn = exercise.exercising(np.random.default_rng(0), np.zeros((4000, 22, 3)))
    assert np.isfinite(drawn).all() and len(np.unique(drawn[:, 0, 0].round(6))) > 3900
    seen = {}
    for name in ("handstand", "plank", "downward dog", "tree", "swing"):
        kind = exercise.EXERCISES[name]
        seen[name] = p.forward_kinematics(exercise.posed(np.random.default_rng(1), kind, np.zeros((60, 22, 3))))

    def height(name, joint):
        return np.median(seen[name][:, J(joint), 1])

    assert height("handstand", "head") < height("handstand", "pelvis") < height("handstand", "left_ankle")
    assert height("plank", "left_wrist") < height("plank", "pelvis") - 0.2
    assert abs(height("plank", "neck") - height("plank", "left_knee")) < 0.45
    assert height("downward dog", "pelvis") > height("downward dog", "neck") > height("downward dog", "left_wrist")
    ankles = seen["tree"][:, [J("left_ankle"), J("right_ankle")], 1]
    assert np.median(np.abs(ankles[:, 0] - ankles[:, 1])) > 0.25
    wrists = seen["swing"][:, J("left_wrist")] - seen["swing"][:, J("right_wrist")]
    assert np.median(np.linalg.norm(wrists, axis=1)) < 0.45  # about one handle; of people who stand, over 0.5


def test_nobody_exercises_unless_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(p, "exercising", lambda _, pose: asked.append(len(pose)) or pose)
    monkeypatch.setattr(p, "penetrates", lambda pose, girth: np.zeros(len(pose), bool))
    p._body_poses(np.random.default_rng(0), 8, None, 0.0, 0.0)
    assert not asked
    p._body_poses(np.random.default_rng(0), 8, None, 0.0, 1.0)
    assert asked == [8]
