"""A film, frame by frame, to what the networks say of it: who is where in each frame, and what their bodies do.

`Watcher` takes frames in order and holds only some of them. The detector looks at every few frames; between two
looks the boxes of a person are joined by straight lines, and the network sees every frame. Looking, the network and the
landmarkers take turns on three threads, each a few frames behind the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wholebody.files.video import Frame
from wholebody.motion.assemble import Sights, Timeline, assemble
from wholebody.motion.camera import CameraPath, CameraWatcher
from wholebody.motion.crowd import SOURCE, ByKeypoints
from wholebody.motion.rig import Rig
from wholebody.motion.tracks import (
    LOOK_SIZE,
    START_SCORE,
    CutFinder,
    Swap,
    Tracker,
    apply_swaps,
    look_of,
    overlaps,
    to_centre,
    to_corners,
)
from wholebody.people.detect import Detector
from wholebody.people.detections import SIGMAS, Detections, box_iou
from wholebody.people.scene import Scene

if TYPE_CHECKING:
    from wholebody.people.predictor import Person, Predictor, Regions

LOOKS_A_SECOND = 6.0
_AGAIN = 2  # looks at those who are known alone, between two looks at all of a frame
_SURE = 0.4  # of everybody's sureness, for that
_FOUND = 0.4  # overlap (IoU) with where they should be
_JOB_FRAMES, _JOB_BYTES = 16, 24e6
"""So many frames, and not more than that of them, go through the networks together: small batches are slow."""
_JOBS = 2  # that may wait for the networks
WHOLE_EVERY = 3  # frames of a person: hands and face, as the network alone says them, need no more
_FULL_SCORE = 0.6  # of a person who is plainly there, as the embedded detector scores
_GIVEN_ANEW = 0.3  # of their sureness keep bodies that the detector's key points say, not the network
_UNSEEN = 0.3  # of their sureness keep sights that no detection confirms


def whole_every(smooth: str) -> int:
    """How often the network is asked for hands and face too; always where every frame is wanted as the network says."""
    return 1 if smooth == "none" else WHOLE_EVERY


def look_every(frames_a_second: float) -> int:
    """The detector looks at one of so many frames."""
    return max(1, round(frames_a_second / LOOKS_A_SECOND))


@dataclass
class Known:
    """Where a person was at the last look."""

    time: float
    box: np.ndarray  # (4,) as `tracks.to_centre`
    velocity: np.ndarray  # (4,) a second
    sure: float
    points: np.ndarray | None = None  # (17, 3) COCO's x, y, score

    def numbers(self) -> np.ndarray:
        """(61,) all of it."""
        points = np.full((17, 3), np.nan) if self.points is None else self.points
        return np.concatenate([[self.time, self.sure], self.box, self.velocity, points.ravel()])

    @classmethod
    def of(cls, numbers: np.ndarray) -> Known:
        points = numbers[10:].reshape(17, 3)
        known = points if np.isfinite(points).all() else None
        return cls(float(numbers[0]), numbers[2:6], numbers[6:10], float(numbers[1]), known)


@dataclass(frozen=True)
class Place:
    """Where a person is in a frame, as far as the detector knows."""

    box_xyxy: np.ndarray
    sure: float
    points: np.ndarray | None = None  # (17, 3)
    crowded: bool = False  # somebody else is in the way


@dataclass
class _Job:
    """Frames that go through the networks together."""

    frames: list[Frame] = field(default_factory=list)
    places: list[dict[int, Place]] = field(default_factory=list)
    first: int = 0  # row of the first one in the film
    people: Future[list[list[Person]]] | None = None

    def is_full(self) -> bool:
        return len(self.frames) >= _JOB_FRAMES or sum(frame.image.nbytes for frame in self.frames) >= _JOB_BYTES


@dataclass
class Part:
    """What some consecutive frames gave; rows of `sights.frame` count from the film's first frame."""

    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    cuts: list[bool] = field(default_factory=list)
    turns: list[np.ndarray] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    unexplained: list[float] = field(default_factory=list)
    sights: list[Sights] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        sights = Sights.concatenate(self.sights) if self.sights else Sights.none()
        own = {f.name: np.array(getattr(self, f.name)) for f in fields(self) if f.name != "sights"}
        return own | {f"sights_{f.name}": getattr(sights, f.name) for f in fields(sights)}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> Part:
        own = {f.name: list(arrays[f.name]) for f in fields(cls) if f.name != "sights"}
        # Films that were begun before faces told of the shape have no such column.
        known = {"sights_faced": np.zeros(len(arrays["sights_frame"]), bool)} | arrays
        sights = Sights(**{f.name: known[f"sights_{f.name}"] for f in fields(Sights)})
        return cls(**own, sights=[sights])


class Watcher:
    """`see` frames in order, then `finish`; `take_part` gives what has come together since it was last asked.

    `close` ends its threads, also those of a film that is given up.
    """

    def __init__(
        self,
        predictor: Predictor,
        detector: Detector,
        focal_px: float,
        image_wh: tuple[int, int],
        frames_a_second: float,
        every: int | None = None,
        whole_every: int = WHOLE_EVERY,
    ) -> None:
        """every: how often the detector looks. whole_every: see `Predictor.see`."""
        self._predictor, self._detector = predictor, detector
        self._every = every or look_every(frames_a_second)
        self._whole_every = whole_every
        self.tracker = Tracker()
        self._camera = CameraWatcher(focal_px, (np.array(image_wh) - 1) / 2, image_wh)
        self._cut = CutFinder()
        self._waiting: list[tuple[Frame, bool]] = []
        self._known: dict[int, Known] = {}
        self._count = 0  # frames of which it is known who is where
        self._part = Part()
        self._again = 0  # how many looks at known people alone came after the last one at all of a frame
        self._job = _Job()
        self._under_way: deque[_Job] = deque()
        self._by_keypoints = ByKeypoints(predictor.model)
        self._hands: Regions = {}  # the landmarkers' thread's own while jobs are under way
        # Looking, the networks and the landmarkers each take half of the cores, this thread too until `close`: three
        # callers with all cores each spend as much time again on waiting for one another.
        self._threads = torch.get_num_threads()
        share = max(1, self._threads // 2)
        torch.set_num_threads(share)
        self._networks, self._landmarks = (
            ThreadPoolExecutor(1, f"wholebody-{name}", torch.set_num_threads, (share,)) for name in ("network", "marks")
        )

    def see(self, frame: Frame) -> None:
        cut = self._cut(frame.image)
        if cut:
            self._look_at_last()
            self.tracker.cut()
            self._known = {}
        first = cut or (self._count == 0 and not self._waiting)
        self._waiting.append((frame, cut))
        if first or len(self._waiting) >= self._every:
            self._look_at_last()

    def finish(self) -> None:
        """Look at the last frame that waits, and let the networks see all of them."""
        self._look_at_last()
        self._send()
        while self._under_way:
            self._collect()

    def close(self) -> None:
        for threads in (self._networks, self._landmarks):
            threads.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)

    def _look_at_last(self) -> None:
        """Say who is where in the frames that wait, by the detector's look at the last of them."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        last = waiting[-1][0]
        found, looks = self._look(last.image, last.time)
        before = len(self.tracker.swaps)
        ids = self.tracker.update(last.time, found, looks)
        for swap in self.tracker.swaps[before:]:
            self._exchange(swap)
        sure, points = _sureness(found), _points(found)
        now = {
            int(number): Known(
                last.time, to_centre(found.boxes_xyxy[row])[0], np.zeros(4), float(sure[row]), points[row]
            )
            for row, number in enumerate(ids)
            if number >= 0
        }
        for track in self.tracker.tracks:
            if track.track_id in now:
                now[track.track_id].velocity = track.velocity
        for frame, cut in waiting:
            places = self._places(frame, last.time, now)
            self._note(frame, cut, places)
            self._job.frames.append(frame)
            self._job.places.append(places)
            if self._job.is_full():
                self._send()
        self._known = now

    def _look(self, image: np.ndarray, time: float) -> tuple[Detections, np.ndarray]:
        found = self._look_again(image, time)
        if found is None:
            found, self._again = self._detector(image), 0
        looks = [look_of(image, box, at) for box, at in zip(found.boxes_xyxy, _points(found), strict=True)]
        return found, np.array(looks).reshape(len(found), LOOK_SIZE)

    def _look_again(self, image: np.ndarray, time: float) -> Detections | None:
        """A look at those who are known alone, where all are sure and are found; else None."""
        again = getattr(self._detector, "again", None)
        known = list(self._known.values())
        missed = len(self.tracker.tracks) > len(known)  # somebody who may come back
        if again is None or self._again >= _AGAIN or missed or not known or min(one.sure for one in known) < _SURE:
            return None
        boxes = to_corners(np.stack([one.box + one.velocity * (time - one.time) for one in known]))
        boxes = np.clip(boxes, 0, np.tile(image.shape[1::-1], 2))
        if (boxes[:, 2:] - boxes[:, :2]).min() < 4:
            return None
        found: Detections = again(image, boxes)
        sure = found.take(found.scores >= START_SCORE)
        where = [{row for row, box in enumerate(sure.boxes_xyxy) if box_iou(box, old) > _FOUND} for old in boxes]
        if not all(where) or len(set().union(*where)) < len(known):
            return None
        self._again += 1
        return found

    def _exchange(self, swap: Swap) -> None:
        first, second = self._known.pop(swap.first, None), self._known.pop(swap.second, None)
        if second is not None:
            self._known[swap.first] = second
        if first is not None:
            self._known[swap.second] = first

    def _places(self, frame: Frame, until: float, now: dict[int, Known]) -> dict[int, Place]:
        """Who is where in this frame, at or before the look at `until` that found `now`."""
        height, width = frame.image.shape[:2]
        places: dict[int, Place] = {}
        for number, new in now.items():
            if frame.time == until:
                places[number] = Place(to_corners(new.box), new.sure, new.points)
            elif number in self._known:
                old = self._known[number]
                share = (frame.time - old.time) / (until - old.time)
                points = None
                if old.points is not None and new.points is not None:
                    points = (1 - share) * old.points + share * new.points
                    points[:, 2] = np.minimum(old.points[:, 2], new.points[:, 2])
                box = (1 - share) * old.box + share * new.box
                places[number] = Place(to_corners(box), (1 - share) * old.sure + share * new.sure, points)
        for number, old in self._known.items():  # who was not found again may still be there for a moment
            if number not in now and frame.time < until:
                box = to_corners(old.box + old.velocity * (frame.time - old.time))
                places[number] = Place(box, old.sure * _UNSEEN)
        inside = {}
        for number, one in places.items():
            cut = np.clip(one.box_xyxy, 0, [width, height, width, height])
            share = (cut[2:] - cut[:2]).prod() / max((one.box_xyxy[2:] - one.box_xyxy[:2]).prod(), 1e-9)
            if min(cut[2:] - cut[:2]) >= 4 and share > 0.3:
                inside[number] = replace(one, box_xyxy=cut)
        return _apart(inside, now)

    def _note(self, frame: Frame, cut: bool, places: dict[int, Place]) -> None:
        """What is known of a frame without its people."""
        if cut:
            self._camera.cut()
        boxes = np.array([one.box_xyxy for one in places.values()]).reshape(-1, 4)
        turn, known, moved, unexplained = self._camera(frame.image, boxes)
        part = self._part
        part.numbers.append(frame.number)
        part.times.append(frame.time)
        part.cuts.append(cut)
        part.turns.append(turn)
        part.known.append(known)
        part.moved.append(moved)
        part.unexplained.append(unexplained)
        self._count += 1

    def _send(self) -> None:
        """Let the networks begin with the frames that have come together."""
        job, self._job = self._job, _Job(first=self._count)
        if not job.frames:
            return
        images = [frame.image for frame in job.frames]
        found = []
        for row in job.places:
            boxes, sure = [one.box_xyxy for one in row.values()], [one.sure for one in row.values()]
            found.append(Detections(np.array(boxes).reshape(-1, 4), np.array(sure)))
        who = [list(row) for row in job.places]
        seen = self._networks.submit(self._predictor.see, images, found, who, self._whole_every)
        job.people = self._landmarks.submit(
            lambda: self._told_apart(self._predictor.laid_on(images, seen.result(), who, self._hands), job.places)
        )
        self._under_way.append(job)
        while len(self._under_way) > _JOBS:
            self._collect()

    def _told_apart(self, people: list[list[Person]], places: list[dict[int, Place]]) -> list[list[Person]]:
        """People in each other's way whose bodies lie on another's key points, given anew from their own: of 151 sights
        of 9 drawn crossings these were 18, whose PA-MPJPE fell from 155 to 120 mm."""
        wrong = []
        for k, (row, frame) in enumerate(zip(places, people, strict=True)):
            for at, (place, person) in enumerate(zip(row.values(), frame, strict=True)):
                others = [other for other in row.values() if other is not place]
                points = place.points if place.crowded else None
                if points is not None and self._by_keypoints.can(points) and agreement(person, place, others) == 0:
                    wrong.append((k, at, points))
        anew = self._by_keypoints([people[k][at] for k, at, _ in wrong], [points for _, _, points in wrong])
        for (k, at, _), person in zip(wrong, anew, strict=True):
            people[k][at] = person
        return people

    def _collect(self) -> None:
        """Take what the networks say of the frames that were sent first."""
        job = self._under_way.popleft()
        assert job.people is not None
        for k, (row, people) in enumerate(zip(job.places, job.people.result(), strict=True)):
            rows = []
            for (number, one), person in zip(row.items(), people, strict=True):
                others = [other for their, other in row.items() if their != number]
                sure = one.sure * agreement(person, one, others)
                if person.sources.get("body") == SOURCE:
                    sure *= _GIVEN_ANEW
                rows.append(sight_of(person, job.first + k, number, sure))
            if rows:
                self._part.sights.append(Sights.concatenate(rows))

    def take_part(self) -> Part:
        """After `finish`."""
        part, self._part = self._part, Part()
        if part.sights:
            part.sights = [Sights.concatenate(part.sights)]
        return part

    # To stop and go on

    def state(self) -> dict[str, np.ndarray]:
        numbers = list(self._known)
        return {
            **{f"tracker_{name}": value for name, value in self.tracker.state().items()},
            "count": np.array(self._count),
            "turn": self._camera.turn,
            "again": np.array(self._again),
            "hand_ids": np.array(list(self._hands), np.int64),
            "hands": np.array(list(self._hands.values()), np.float64).reshape(-1, 2, 4),
            "known_ids": np.array(numbers, np.int64),
            "known": np.array([known.numbers() for known in self._known.values()]).reshape(-1, 61),
        }

    def restore(self, state: dict[str, np.ndarray], last: Frame) -> None:
        """Go on after `last`, the frame that had been seen last when `state` was asked for."""
        self.tracker.restore({k.removeprefix("tracker_"): v for k, v in state.items() if k.startswith("tracker_")})
        self._count = self._job.first = int(state["count"])
        self._again = int(state["again"])
        self._hands.update({int(k): of for k, of in zip(state["hand_ids"], state["hands"], strict=True)})
        self._known = {
            int(number): Known.of(row) for number, row in zip(state["known_ids"], state["known"], strict=True)
        }
        self._cut(last.image)
        boxes = [to_corners(known.box) for known in self._known.values()]
        self._camera.go_on(last.image, np.array(boxes).reshape(-1, 4), state["turn"])


def _apart(places: dict[int, Place], now: dict[int, Known]) -> dict[int, Place]:
    """Nobody is guessed to be where somebody else is seen; who is in whose way is said."""
    numbers = list(places)
    if len(numbers) < 2:
        return places
    crowd = overlaps(np.stack([places[number].box_xyxy for number in numbers]))
    seen = np.array([number in now for number in numbers])
    return {
        number: replace(places[number], crowded=bool(crowd[k].max() > 0.15))
        for k, number in enumerate(numbers)
        if seen[k] or not (crowd[k] > 0.4)[seen].any()
    }


def _points(found: Detections) -> list[np.ndarray | None]:
    """COCO's key points of each detection, (17, 3) x, y, score, where the detector gives them."""
    if found.keypoints_px is None or found.keypoint_scores is None:
        return [None] * len(found)
    return list(np.concatenate([found.keypoints_px, found.keypoint_scores[..., None]], 2))


def _sureness(found: Detections) -> np.ndarray:
    """(N,) 0..1 how well each detection is seen: its score, and those of its key points."""
    score = found.scores
    if found.keypoint_scores is not None:
        score = (score + found.keypoint_scores.mean(1)) / 2
    return np.clip(score / _FULL_SCORE, 0.02, 1.0)


def agreement(person: Person, place: Place, others: Iterable[Place] = ()) -> float:
    """How far the network's body lies where the detector's key points are: 0.2 to 1, and 1 where there are none.

    Where people are in each other's way a network may take one of the `others` for this one: then 0.
    """
    own = _likeness(person, place)
    if own is None:
        return 1.0
    if place.crowded and any((_likeness(person, other) or 0.0) > own for other in others):
        return 0.0
    return float(np.clip(0.2 + 1.2 * own, 0.2, 1.0))


def _likeness(person: Person, place: Place) -> float | None:
    """COCO's object keypoint similarity of the network's body with the detector's key points, limbs and trunk alone
    (heads of people who embrace are in one place); None if too few are seen."""
    if place.points is None:
        return None
    limbs = slice(5, 17)
    seen = place.points[limbs, 2] > 0.2
    if seen.sum() < 4:
        return None
    off = ((person.keypoints_px[limbs] - place.points[limbs, :2]) ** 2).sum(1)
    area = (place.box_xyxy[2:] - place.box_xyxy[:2]).prod()
    return float(np.exp(-off / (2 * area * (2 * SIGMAS[limbs]) ** 2))[seen].mean())


def sight_of(person: Person, frame: int, track: int, confidence: float) -> Sights:
    """One row of what a network said of a person in a frame."""
    pose = np.zeros((1, 55, 3), np.float32)
    pose[0, 0], pose[0, 1:22], pose[0, 22] = person.global_orient, person.body_pose, person.jaw_pose
    pose[0, 25:40], pose[0, 40:55] = person.left_hand_pose, person.right_hand_pose
    joints = person.joints_cam[:22].astype(np.float64)
    seen = joints[:, :2] / joints[:, 2:] * person.focal_px + person.principal_px
    return Sights(
        np.array([frame]), np.array([track]), person.box_xyxy[None].astype(np.float32),
        np.array([confidence], np.float32), pose, person.betas[None].astype(np.float32),
        person.expression[None].astype(np.float32), seen[None].astype(np.float32),
        np.array(["shape" in person.sources]),
    )  # fmt: skip


def timeline_of(part: Part, fps: float) -> Timeline:
    arrays = {f.name: np.array(getattr(part, f.name)) for f in fields(part) if f.name != "sights"}
    path = CameraPath(
        arrays["turns"].reshape(-1, 3, 3), arrays["known"].astype(bool), arrays["moved"].astype(np.float64),
        arrays["unexplained"].astype(np.float64),
    )  # fmt: skip
    return Timeline(
        arrays["numbers"].astype(np.int64), arrays["times"].astype(np.float64), fps, arrays["cuts"].astype(bool), path
    )


def joined(parts: list[Part]) -> Part:
    """One part of all of them; the list is empty afterwards."""
    whole = Part()
    for part in parts:
        for f in fields(Part):
            getattr(whole, f.name).extend(getattr(part, f.name))
    parts.clear()
    return whole


def scene_of(
    part: Part, swaps: list[Swap], rig: Rig, fps: float, focal_px: float, focal_source: str,
    image_wh: tuple[int, int], **options: Any,
) -> Scene:  # fmt: skip
    """The scene of all that was watched; `options` as those of `assemble`. The part's sights are taken out of it: of a
    long film they are large."""
    timeline = timeline_of(part, fps)
    sights = Sights.concatenate(part.sights) if part.sights else Sights.none()
    part.sights.clear()
    sights = Sights(
        **{f.name: getattr(sights, f.name) for f in fields(sights)}
        | {"track": apply_swaps(sights.track, timeline.times[sights.frame], swaps)}
    )
    return assemble(sights, timeline, rig, focal_px, focal_source, image_wh, **options)


def watch(
    frames: Iterable[Frame], predictor: Predictor, detector: Detector, *, fps: float, focal_px: float,
    focal_source: str, image_wh: tuple[int, int], every: int | None = None,
    each: Callable[[Frame], None] = lambda frame: None, **options: Any,
) -> Scene:  # fmt: skip
    """A film in memory to its scene: all of the above in one go, for measuring and for Python."""
    watcher = Watcher(predictor, detector, focal_px, image_wh, fps, every, whole_every(options.get("smooth", "light")))
    try:
        for frame in frames:
            watcher.see(frame)
            each(frame)
        watcher.finish()
    finally:
        watcher.close()
    rig = Rig(predictor.model.body)
    options = {"gender": predictor.model.body.gender} | options
    return scene_of(
        watcher.take_part(), watcher.tracker.swaps, rig, fps, focal_px, focal_source, image_wh, **options
    )  # fmt: skip


def photo_scene(
    people: list[Person], rig: Rig, image_wh: tuple[int, int], focal_px: float, focal_source: str, **options: Any
) -> Scene:
    """A scene of one frame: everybody in a photo where they stood."""
    part = Part([0], [0.0], [False], [np.eye(3)], [True], [0.0], [0.0])
    part.sights = [sight_of(person, 0, number, person.score) for number, person in enumerate(people)]
    options = {"smooth": "none", "camera": "still"} | options
    return scene_of(part, [], rig, 0.0, focal_px, focal_source, image_wh, **options)
