"""Numbers of motion against exact truth, on motion whose errors are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from wholebody.evaluation.video import Bodies, count_switches, errors, match, relative_depth, table
from wholebody.synthesis.sets.clips import ClipTruth

ROWS = np.arange(30)
SEEN = np.ones(30, bool)
WORLD = np.diag([1.0, -1.0, -1.0, 1.0])  # the camera is level: y down, z away


def bodies(shake: float = 0.0, slide: float = 0.0, away: float = 1.0, rows: np.ndarray = ROWS) -> Bodies:
    """A cloud of points that stands still 4 m away; `shake` every second frame, feet that slide metres a second."""
    rng = np.random.default_rng(0)
    count = len(rows)
    joints = np.repeat(rng.normal(0, 0.4, (1, 144, 3)), count, 0)
    joints[:, [60, 62, 63, 65], 1] = 0.9  # toes and heels, the lowest
    vertices = np.repeat(rng.normal(0, 0.4, (1, 50, 3)), count, 0)
    joints[::2, 5:22, 0] += shake
    joints[:, [60, 62, 63, 65], 0] += slide * rows[:, None] / 30
    for points in (joints, vertices):
        points[..., 2] += 4
        points *= away
    return Bodies(rows, vertices, joints)


def test_nothing_wrong_is_nothing_measured():
    found = errors(bodies(), bodies(), SEEN, WORLD)
    assert found["found"] == 1
    for name in ("acceleration", "pa_mpvpe", "sliding", "path", "distance"):
        assert found[name] == pytest.approx(0, abs=1e-3), name


def test_each_number_is_of_its_error_and_in_its_unit():
    shaken = errors(bodies(shake=0.01), bodies(), SEEN, WORLD)
    # 17 of 22 joints jump by 1 cm and back: 2 cm a frame and frame, at 30 frames a second.
    assert shaken["acceleration"] == pytest.approx(17 / 22 * 0.02 * 900, rel=1e-3) and shaken["path"] < 1e-6
    assert errors(bodies(slide=0.3), bodies(), SEEN, WORLD)["sliding"] == pytest.approx(30, rel=1e-3)
    far = errors(bodies(away=1.1), bodies(), SEEN, WORLD)
    assert far["distance"] == pytest.approx(10, rel=1e-3) and far["pa_mpvpe"] < 1e-3 and 30 < far["path"] < 50


def test_relative_depth_is_that_of_two_people_in_the_same_frames():
    near, far = bodies(), bodies(away=2.0)
    assert relative_depth([near, far], [near, far]) == pytest.approx(0, abs=1e-6)
    both_too_far = [bodies(away=1.3), bodies(away=2.6, rows=ROWS[5:])]
    assert relative_depth(both_too_far, [near, far]) == pytest.approx(0, abs=1e-6)
    assert relative_depth([near, bodies(away=2.2)], [near, far]) == pytest.approx(10, rel=1e-3)
    assert relative_depth([bodies(away=1.25), far], [near, far]) == pytest.approx(20, rel=1e-3)
    assert np.isnan(relative_depth([near], [near])) and np.isnan(relative_depth([near, None], [near, far]))
    apart = [bodies(rows=ROWS[:10]), bodies(away=2.0, rows=ROWS[10:])]
    assert np.isnan(relative_depth(apart, [near, far]))


def test_only_feet_that_truly_stand_can_slide():
    moving = bodies(slide=0.5)
    assert np.isnan(errors(moving, moving, SEEN, WORLD)["sliding"])


def test_frames_that_are_not_seen_do_not_count():
    half = bodies(rows=np.arange(10))
    assert errors(half, bodies(), SEEN, WORLD)["found"] == pytest.approx(1 / 3)
    hidden = errors(half, bodies(), ROWS >= 10, WORLD)
    assert hidden["found"] == 0 and np.isnan(hidden["pa_mpvpe"])
    assert errors(None, bodies(), SEEN, WORLD)["found"] == 0


def truth_of(boxes: np.ndarray, visible: np.ndarray | None = None) -> ClipTruth:
    nothing = dict.fromkeys(
        ("fps", "crossing", "focal_px", "principal_px", "full_pose", "betas", "expression", "transl"), np.zeros(1)
    )
    seen = np.ones(boxes.shape[:2]) if visible is None else visible
    return ClipTruth(**nothing, camera_from_world=WORLD, box_xyxy=boxes, visible=seen)


def test_switches_are_found_by_overlap():
    way = np.arange(20)[:, None] * 10.0
    right = np.concatenate([way, 0 * way, way + 40, 0 * way + 100], 1)
    left = right[::-1]
    frames = np.arange(20)
    own = [SimpleNamespace(frames=frames, box_xyxy=right), SimpleNamespace(frames=frames, box_xyxy=left)]
    truth = truth_of(np.stack([right, left]))
    rows = match(truth, SimpleNamespace(people=own), 20)
    apart = np.abs(right[:, 0] - left[:, 0]) > 40
    assert (rows[0][apart] == 0).all() and (rows[1][apart] == 1).all()
    swapped = [
        SimpleNamespace(frames=frames, box_xyxy=np.where(frames[:, None] < 10, a, b))
        for a, b in ((right, left), (left, right))
    ]
    rows = match(truth_of(np.stack([right, left]), np.where(apart, 1.0, 0.0)[None].repeat(2, 0)),
                 SimpleNamespace(people=swapped), 20)  # fmt: skip
    assert [count_switches(row) for row in rows] == [1, 1]
    assert count_switches(np.array([0, -1, -1, 0, 2, 2, -1, 0])) == 2
    gone = [SimpleNamespace(frames=frames[:5], box_xyxy=right[:5])]
    assert (match(truth, SimpleNamespace(people=gone), 20)[0][5:] == -1).all()


def test_boxes_in_one_place_for_a_moment_are_no_switch():
    """Of two who stand behind one another each may for some frames have the box that fits the other's better."""
    still, beside = np.tile([0.0, 0, 40, 100], (20, 1)), np.tile([10.0, 0, 50, 100], (20, 1))
    moment = ((np.arange(20) > 8) & (np.arange(20) < 12))[:, None]
    own = [
        SimpleNamespace(frames=np.arange(20), box_xyxy=np.where(moment, b, a))
        for a, b in ((still, beside), (beside, still))
    ]
    rows = match(truth_of(np.stack([still, beside])), SimpleNamespace(people=own), 20)
    assert (rows[0] == 0).all() and (rows[1] == 1).all()


def test_the_table_has_both_ways():
    text = table({"frames": {"sliding": 30.0}, "film": {"sliding": 10.0, "switches": 0.0}})
    assert "each frame" in text and text.splitlines()[1].split()[:3] == ["sliding", "30", "10"]
