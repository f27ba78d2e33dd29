"""Who is who: crossings, absences, cuts, on boxes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from wholebody.motion.tracks import (
    LOOK_SIZE,
    CutFinder,
    Swap,
    Tracker,
    apply_swaps,
    look_distance,
    look_of,
    overlaps,
    to_centre,
    to_corners,
)
from wholebody.people.detections import Detections

RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 160, 60)


def look(shirt: tuple[int, int, int], trousers: tuple[int, int, int] = (60, 60, 60), noise: int = 0) -> np.ndarray:
    rng = np.random.default_rng(noise)
    image = np.zeros((100, 50, 3))
    image[:52] = shirt
    image[52:] = trousers
    image += rng.normal(0, 12, image.shape)
    return look_of(image.clip(0, 255).astype(np.uint8), np.array([0.0, 0, 50, 100]))


def box(x: float, y: float = 200, height: float = 200) -> np.ndarray:
    return np.array([x - height / 5, y - height / 2, x + height / 5, y + height / 2])


def detections(boxes: list[np.ndarray], scores: list[float] | None = None) -> Detections:
    return Detections(np.array(boxes).reshape(-1, 4), np.array(scores or [0.6] * len(boxes)))


class Film:
    """People as functions of time; tells the tracker who is visible, shuffled, and collects what it says of each."""

    def __init__(self, people: dict[str, tuple], rate: float = 6.0, seconds: float = 4.0, seed: int = 0) -> None:
        self.said: dict[str, list[int]] = {name: [] for name in people}
        self.times: dict[str, list[float]] = {name: [] for name in people}
        rng = np.random.default_rng(seed)
        self.tracker = tracker = Tracker()
        for number, time in enumerate(np.arange(0, seconds, 1 / rate)):
            here = [(name, at(time), dress) for name, (at, dress) in people.items() if at(time) is not None]
            rng.shuffle(here)
            found = detections([where + rng.normal(0, 2, 4) for _, where, _ in here])
            looks = np.array([look(*dress, noise=number) for _, _, dress in here]).reshape(len(here), LOOK_SIZE)
            for (name, _, _), said in zip(here, tracker.update(time, found, looks), strict=True):
                self.said[name].append(int(said))
                self.times[name].append(time)

    def of(self, name: str) -> set[int]:
        """The track numbers of a person after what was found out later."""
        return set(apply_swaps(np.array(self.said[name]), np.array(self.times[name]), self.tracker.swaps).tolist())


def test_two_who_cross_keep_their_names():
    for seed in range(5):
        film = Film(
            {
                "left": (lambda t: box(100 + 120 * t), (RED,)),
                "right": (lambda t: box(580 - 120 * t), (BLUE,)),
            },
            seed=seed,
        )
        assert len(film.of("left")) == len(film.of("right")) == 1 and film.of("left") != film.of("right")


def test_two_alike_who_cross_are_told_apart_by_their_motion():
    film = Film({"left": (lambda t: box(100 + 140 * t), (BLUE,)), "right": (lambda t: box(660 - 140 * t), (BLUE,))})
    assert len(film.of("left")) == len(film.of("right")) == 1 and film.of("left") != film.of("right")


def test_one_hidden_while_they_cross_comes_back_as_themselves():
    def behind(t):
        return None if 1.6 < t < 2.4 else box(580 - 120 * t)

    film = Film({"front": (lambda t: box(100 + 120 * t), (RED,)), "behind": (behind, (BLUE,))})
    assert len(film.of("front")) == len(film.of("behind")) == 1 and film.of("front") != film.of("behind")


def test_who_meets_and_goes_back_keeps_their_name():
    """Motion alone would say that they walked through each other."""
    film = Film(
        {
            "left": (lambda t: box(340 - 130 * abs(t - 2)), (RED,)),
            "right": (lambda t: box(350 + 130 * abs(t - 2)), (GREEN,)),
        }
    )
    assert len(film.of("left")) == len(film.of("right")) == 1 and film.of("left") != film.of("right")


def test_three_in_a_row():
    film = Film(
        {
            "a": (lambda t: box(60 + 150 * t), (RED,)),
            "b": (lambda t: box(340), (BLUE,)),
            "c": (lambda t: box(620 - 150 * t), (GREEN,)),
        }
    )
    assert [len(film.of(name)) for name in "abc"] == [1, 1, 1] and len(film.of("a") | film.of("b") | film.of("c")) == 3


@pytest.mark.parametrize(("absence", "same"), [(1.0, True), (1.8, True), (3.0, False)])
def test_who_leaves_and_returns(absence, same):
    def at(t):
        return box(40) if t < 1 or t > 1 + absence else None

    film = Film({"one": (at, (RED,)), "other": (lambda t: box(400), (BLUE,))}, seconds=5.5)
    assert (len(film.of("one")) == 1) == same and len(film.of("other")) == 1


def test_a_stranger_in_the_same_place_is_somebody_else():
    film = Film(
        {
            "first": (lambda t: box(100) if t < 1 else None, (RED, (220, 220, 220))),
            "second": (lambda t: box(110) if t > 1.9 else None, (BLUE, (20, 20, 20))),
        }
    )
    assert film.of("first") != film.of("second")


@pytest.mark.parametrize("covered", [0.4, 0.8, 1.4])
def test_who_is_covered_bit_by_bit_keeps_their_name(covered):
    """Their box shrinks to the head and shoulders above whom they walk behind, is lost, and is whole again."""

    def behind(t):
        share = np.clip((t - 1) / 0.8, 0, 1) * 0.65
        if 1.8 < t < 1.8 + covered:
            return None
        x0, y0, x1, y1 = box(200 + 60 * t)
        return np.array([x0, y0, x1, y1 - (share if t <= 1.8 else 0) * (y1 - y0)])

    film = Film({"behind": (behind, (RED,)), "front": (lambda t: box(420 - 30 * t, 260, 220), (BLUE,))})
    assert len(film.of("behind")) == len(film.of("front")) == 1 and film.of("behind") != film.of("front")


def test_who_comes_nearer_is_still_followed():
    film = Film({"one": (lambda t: box(200, 200, 60 * np.exp(0.6 * t)), (RED,))})
    assert len(film.of("one")) == 1


def test_nobody_is_found_twice_and_weak_ones_begin_nothing():
    tracker = Tracker()
    looks = np.array([look((90, 90, 90))] * 2)
    assert tracker.update(0.0, detections([box(100), box(103)], [0.6, 0.3]), looks).tolist() == [0, -1]
    assert tracker.update(0.2, detections([box(101), box(400)], [0.12, 0.12]), looks).tolist() == [0, -1]
    assert tracker.update(0.4, detections([]), np.zeros((0, looks.shape[1]))).tolist() == []


def test_a_ghost_does_not_take_a_persons_name():
    """Two weak boxes of one person fit alike; the surer one is the person, and the ghost begins nobody."""
    tracker = Tracker()
    one = look((90, 90, 90))
    for number in range(5):
        assert tracker.update(number / 6, detections([box(100)]), one[None]).tolist() == [0]
    assert tracker.update(5 / 6, detections([box(112), box(104)], [0.6, 0.2]), np.array([one, one])).tolist() == [0, -1]


def test_a_cut_starts_anew():
    tracker = Tracker()
    one = np.array([look(RED)])
    assert tracker.update(0.0, detections([box(100)]), one).tolist() == [0]
    tracker.cut()
    assert tracker.update(0.2, detections([box(100)]), one).tolist() == [1]


def test_a_tracker_goes_on_from_its_state():
    looks = np.array([look(RED), look(BLUE)])
    first, second = Tracker(), Tracker()
    second.restore(first.state())  # of nobody
    for time in (0.0, 0.2, 0.4):
        first.update(time, detections([box(100 + 100 * time), box(400)]), looks)
    state = first.state()
    assert all(value.dtype != object for value in state.values())
    second.restore(state)
    for time in (0.6, 0.8):
        found = detections([box(400), box(100 + 100 * time)])
        assert first.update(time, found, looks[::-1]).tolist() == second.update(time, found, looks[::-1]).tolist()
    assert second.state()["next_id"] == 2


def test_a_state_of_an_earlier_version_goes_on_too():
    first, second = Tracker(), Tracker()
    first.update(0.0, detections([box(100), box(400)]), np.array([look(RED), look(BLUE)]))
    state = first.state()
    del state["tall"]
    second.restore(state)
    assert [track.tall for track in second.tracks] == [track.tall for track in first.tracks]


def test_swaps_rename_only_their_moments():
    ids, times = np.array([0, 1, 0, 1, 0, 1, 2]), np.array([0, 0, 1, 1, 2, 2, 2.0])
    assert apply_swaps(ids, times, [Swap(0, 1, 1.0, 1.5)]).tolist() == [0, 1, 1, 0, 0, 1, 2]


def test_boxes_and_overlaps():
    boxes = np.array([[0.0, 0, 10, 20], [5, 0, 15, 20], [50, 50, 60, 60]])
    np.testing.assert_allclose(to_corners(to_centre(boxes)), boxes, atol=1e-9)
    found = overlaps(boxes)
    assert found[0, 1] == pytest.approx(1 / 3) and found[0, 2] == 0 and found[0, 0] == 0


def test_looks_tell_colours_and_not_brightness_alone():
    same = look_distance(look(RED), np.array([look(RED, noise=5)]))[0]
    darker = look_distance(look(RED), np.array([look((160, 35, 35), noise=5)]))[0]
    other = look_distance(look(RED), np.array([look(BLUE, noise=5)]))[0]
    assert same < 0.1 < other and darker < 0.7 * other
    outside = look_of(np.zeros((50, 50, 3), np.uint8), np.array([60.0, 60, 90, 90]))
    assert np.isfinite(look_distance(look(RED), outside[None])).all()


def test_cuts_are_found_and_pans_and_flashes_are_not():
    rng = np.random.default_rng(0)
    wide = np.repeat(np.repeat(rng.integers(0, 255, (12, 60, 3)), 30, 0), 30, 1).astype(np.uint8)
    other = np.repeat(np.repeat(rng.integers(0, 90, (12, 20, 3)), 30, 0), 30, 1).astype(np.uint8)
    cut = CutFinder()
    said = [cut(wide[:, 12 * k : 12 * k + 600]) for k in range(12)]
    assert not any(said)
    assert cut(other) and not cut(other) and cut(wide[:, :600])
