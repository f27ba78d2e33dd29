"""Films of synthetic people: what is drawn is what the truth says, people move on a floor and cross."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from wholebody.body.joints import JOINTS_144, index
from wholebody.errors import BadInput
from wholebody.files.video import open_film
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.people.performance import perform, walk
from wholebody.synthesis.render import Studio
from wholebody.synthesis.sets import clips

FEET = index(("left_big_toe", "left_heel", "right_big_toe", "right_heel"), JOINTS_144)


@pytest.fixture(scope="module")
def small(bare) -> SynthesisConfig:
    return replace(bare, size_hw=(108, 192), split="heldout", samples=1)


@pytest.fixture(scope="module")
def studio(small) -> Studio:
    return Studio(small)


@pytest.fixture(scope="module")
def bank(bare) -> BackgroundBank:
    return BackgroundBank(size=4)


@pytest.fixture(scope="module")
def crossing(studio, bank):
    return clips.draw_clip(studio, bank, seed=7, number=3, seconds=1.0)


def joints_of(studio: Studio, truth: clips.ClipTruth, person: int) -> np.ndarray:
    """(T, 144, 3) in the camera frame."""
    pose, transl = torch.from_numpy(truth.full_pose[person]).float(), torch.from_numpy(truth.transl[person]).float()
    count = len(pose)
    with torch.inference_mode():
        out = studio.body.subset([0])(
            global_orient=pose[:, 0], body_pose=pose[:, 1:22], jaw_pose=pose[:, 22], left_hand_pose=pose[:, 25:40],
            right_hand_pose=pose[:, 40:], betas=torch.from_numpy(truth.betas[person]).expand(count, 10),
            expression=torch.from_numpy(truth.expression[person]), transl=transl,
        )  # fmt: skip
    return out.joints.numpy()


def in_world(points: np.ndarray, truth: clips.ClipTruth) -> np.ndarray:
    return (points - truth.camera_from_world[:3, 3]) @ truth.camera_from_world[:3, :3]


def test_people_are_drawn_where_the_truth_says(studio, crossing):
    frames, truth = crossing
    assert len(frames) == 30 and all(frame.shape == (108, 192, 3) and frame.dtype == np.uint8 for frame in frames)
    change = np.abs(frames[0].astype(int) - frames[-1]).sum(2)
    for person in range(len(truth.transl)):
        joints = joints_of(studio, truth, person)
        px = joints[..., :2] / joints[..., 2:] * truth.focal_px + truth.principal_px
        box = truth.box_xyxy[person]
        assert (px[:, :22] > box[:, None, :2] - 3).all() and (px[:, :22] < box[:, None, 2:] + 3).all()
        x0, y0, x1, y1 = box[0].astype(int)
        assert change[y0:y1, x0:x1].mean() > 2 * np.median(change)  # they were there, and went


def test_people_cross(crossing):
    _, truth = crossing
    assert bool(truth.crossing) and len(truth.transl) in (2, 3)
    way = truth.transl[:, -1, 0] - truth.transl[:, 0, 0]
    assert way[0] > 0.2 and way[1] < -0.2
    depths = truth.transl[:, :, 2]
    assert np.abs(depths[0] - depths[1]).min() > 0.3  # nobody walks through anybody
    assert truth.visible.min() < 0.95 and truth.visible.max() == 1


def test_feet_are_on_the_floor_and_one_of_them_stands(studio, crossing):
    _, truth = crossing
    for person in range(len(truth.transl)):
        feet = in_world(joints_of(studio, truth, person)[:, FEET], truth)
        lowest = feet[..., 1].min(1)
        assert -0.03 < lowest.min() and np.median(lowest) < 0.06
        speed = np.linalg.norm(np.diff(feet, axis=0), axis=-1).min(1) * 30
        assert np.median(speed) < 0.25


def test_one_person_alone_and_the_same_seed_the_same_clip(studio, bank):
    frames, truth = clips.draw_clip(studio, bank, seed=7, number=0, seconds=0.1)
    again, same = clips.draw_clip(studio, bank, seed=7, number=0, seconds=0.1)
    assert len(truth.transl) == 1 and not truth.crossing
    np.testing.assert_array_equal(frames[2], again[2])
    np.testing.assert_array_equal(truth.full_pose, same.full_pose)
    other, _ = clips.draw_clip(studio, bank, seed=8, number=0, seconds=0.1)
    assert (other[0] != frames[0]).any()


def test_motion_is_as_smooth_as_people_are(studio):
    """Captured ten times a second, drawn thirty: no kinks at the captured moments."""
    times = np.arange(90) / 30
    rng = np.random.default_rng(0)
    one = perform(rng, times, studio.body, studio.population, studio.hands, studio.config.motion, "heldout")
    for joint in (1, 4, 16, 18):
        path = Rotation.from_rotvec(one.full_pose[:, joint])
        speed = (path[1:] * path[:-1].inv()).as_rotvec() * 30
        assert np.abs(np.diff(speed, axis=0)).max() < 5.0  # radians a second, from frame to frame


def test_a_walk_goes_somewhere():
    pose = walk(np.random.default_rng(0), np.arange(60) / 30)
    assert pose.shape == (60, 22, 3) and np.ptp(pose[:, 1, 0]) > 0.5


def test_a_set_is_written_and_gone_on_with(tmp_path, small, monkeypatch):
    drawn = []
    shapes = {"fps": (), "crossing": (), "focal_px": (), "principal_px": (2,), "camera_from_world": (4, 4),
              "full_pose": (1, 4, 55, 3), "betas": (1, 10), "expression": (1, 4, 10), "transl": (1, 4, 3),
              "box_xyxy": (1, 4, 4), "visible": (1, 4)}  # fmt: skip
    nothing = {field.name: np.zeros(shapes[field.name]) for field in fields(clips.ClipTruth)}

    def draw(studio, bank, seed, number, seconds):
        drawn.append(number)
        frames = [np.full((32, 48, 3), 10 * k, np.uint8) for k in range(4)]
        return frames, clips.ClipTruth(**nothing | {"focal_px": np.array(float(number))})

    monkeypatch.setattr(clips, "draw_clip", draw)
    monkeypatch.setattr(clips, "Studio", lambda config: object())
    monkeypatch.setattr(clips, "BackgroundBank", lambda *arguments, **options: object())
    seen: list[int] = []
    clips.run(tmp_path, 2, 7, small, seen.append)
    assert drawn == [0, 1] and seen == [1, 1]
    (tmp_path / "clips" / "000001.npz").unlink()
    clips.run(tmp_path, 3, 7, small)
    assert drawn == [0, 1, 1, 2]
    read = list(clips.read_clips(tmp_path))
    assert [float(truth.focal_px) for _, truth in read] == [0, 1, 2]
    film = open_film(read[0][0])
    assert film.info.fps == 30 and film.info.wh == (48, 32) and len(list(film)) == 4
    with pytest.raises(BadInput, match="other settings"):
        clips.run(tmp_path, 3, 8, small)
    with pytest.raises(BadInput, match="at least 1"):
        clips.run(tmp_path, 0, 7, small)
    with pytest.raises(BadInput, match="--clips"):
        list(clips.read_clips(tmp_path / "clips"))
