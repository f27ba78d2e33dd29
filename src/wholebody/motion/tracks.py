"""Who is who: detections of successive looks joined to tracks by motion, key points and colours.

A look is a frame at which the detector was asked; looks need not be evenly spaced. Pixels of the frame, seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from wholebody.body.joints import COCO_BODY_17
from wholebody.people.detections import SIGMAS, Detections

MEMORY = 2.0
"""Seconds for which a track waits for its person to come back."""
START_SCORE = 0.25
"""Weaker detections go on with a track but begin none."""
_PLAIN = 0.4  # a score from which on a detection is a person without doubt
_APART, _TOGETHER = 0.1, 0.25  # overlap (IoU) of people who are apart, or in each other's way
_APART_SHARE = 0.2  # of a box that lies in another one, up to which it shows its person alone
_STRANGE = 0.45  # a distance of looks at which colours contradict
_TELLING = 0.12  # looks of two people nearer than this do not tell them apart
_IMPOSSIBLE = 1e6


@dataclass
class Track:
    """A person so far. Boxes are (centre x, centre y, log width, log height)."""

    track_id: int
    time: float  # of the last detection
    box: np.ndarray  # (4,)
    look: np.ndarray  # (L,)
    tall: float  # log height when nobody was in the way
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(4))
    """A second; of the place alone. A box that shrinks is more often that of somebody who goes behind another one than
    of somebody who goes away, and next to nobody grows by much between two looks."""
    keypoints_px: np.ndarray | None = None  # (17, 2)
    keypoint_scores: np.ndarray | None = None
    hits: int = 1
    met: dict[int, tuple[float, np.ndarray]] = field(default_factory=dict)
    """Whom this person is in the way of: since when, and this person's look before that."""

    def at(self, time: float) -> np.ndarray:
        """Where the box should be: speeds fade, since nobody walks on for ever."""
        ahead = min(time - self.time, 0.5 + 0.2 * (time - self.time))
        return self.box + self.velocity * ahead


@dataclass(frozen=True)
class Swap:
    """Between these moments, ends included, two tracks had been confused: what was said of one is the other's."""

    first: int
    second: int
    since: float
    until: float


class Tracker:
    """`update` once a look, in order of time; it says which track each detection belongs to."""

    def __init__(self, memory: float = MEMORY) -> None:
        self.memory = memory
        self.tracks: list[Track] = []
        self.swaps: list[Swap] = []
        self._next_id = 0
        self._last_look = -np.inf

    def cut(self) -> None:
        """The film goes on elsewhere: nobody is who they were."""
        self.tracks = []

    def update(self, time: float, found: Detections, looks: np.ndarray) -> np.ndarray:
        """Track numbers (N,) of the detections; -1 for those too weak to begin one.

        looks: (N, L) as `look_of` gives them.
        """
        from scipy.optimize import linear_sum_assignment

        self.tracks = [track for track in self.tracks if time - track.time <= self.memory]
        ids = np.full(len(found), -1)
        boxes = to_centre(found.boxes_xyxy)
        cost = np.array([self._costs(track, time, found, boxes, looks) for track in self.tracks])
        cost = cost.reshape(len(self.tracks), len(found))
        matched: list[tuple[Track, int]] = []
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            if cost[row, column] < _IMPOSSIBLE:
                matched.append((self.tracks[row], int(column)))
        crowd, covered = overlaps(found.boxes_xyxy), _covered(found.boxes_xyxy)
        for track, column in matched:
            ids[column] = track.track_id
            self._follow(track, time, found, boxes, looks, column, float(covered[column].max(initial=0.0)))
        for column in np.flatnonzero(ids < 0):
            taken = crowd[column][ids >= 0].max(initial=0.0)
            if found.scores[column] >= START_SCORE and taken < 0.7:
                ids[column] = self._next_id
                self.tracks.append(_begin(self._next_id, time, found, boxes, looks, int(column)))
                self._next_id += 1
        self._watch_meetings(time, ids, crowd, looks)
        self._last_look = time
        return ids

    def _costs(
        self, track: Track, time: float, found: Detections, boxes: np.ndarray, looks: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        """(N,) what it costs to say that each detection is this person."""
        gap = time - track.time
        expected = track.at(time)
        height = np.exp(np.maximum(boxes[:, 3], expected[3]))
        away = np.linalg.norm(boxes[:, :2] - expected[:2], axis=1) / height
        # The same place as before is as good a guess for somebody who turned round.
        away = np.minimum(away, 0.1 + np.linalg.norm(boxes[:, :2] - track.box[:2], axis=1) / height)
        # Somebody behind another one is lower than a moment ago, and somebody who comes out as tall as before that.
        grown = np.minimum(np.abs(boxes[:, 3] - expected[3]), 0.1 + np.abs(boxes[:, 3] - track.tall))
        strange = look_distance(track.look, looks)
        pose = self._pose_distance(track, expected, found)
        reach = 0.35 + 2.0 * gap
        cost = away / reach + 0.5 * grown / (0.3 + gap) + 1.5 * strange + 0.5 * pose
        cost += 0.5 * np.clip(1 - found.scores / _PLAIN, 0, 1)  # of two that fit alike, one may be a ghost of the other
        impossible = (away > reach) | (grown > 0.7 + 0.5 * gap)
        # After an absence, place says little, and colours have to agree.
        impossible |= (gap > 0.5) & (strange > _STRANGE)
        return np.where(impossible, _IMPOSSIBLE, cost)

    @staticmethod
    def _pose_distance(track: Track, expected: np.ndarray, found: Detections) -> np.ndarray:
        """(N,) 0..1: one minus COCO's object keypoint similarity with the pose before, moved to where it should be."""
        if track.keypoints_px is None or found.keypoints_px is None or track.keypoint_scores is None:
            return np.full(len(found), 0.5)
        assert found.keypoint_scores is not None
        moved = track.keypoints_px + (expected - track.box)[:2]
        shared = np.minimum(track.keypoint_scores, found.keypoint_scores) >= 0.2
        area = np.exp(expected[2] + expected[3])
        off = np.sum((found.keypoints_px - moved) ** 2, -1)
        like = np.exp(-off / (2 * area * (2 * SIGMAS) ** 2))
        counted = shared.sum(1)
        return np.where(counted >= 3, 1 - (like * shared).sum(1) / np.maximum(counted, 1), 0.5)

    @staticmethod
    def _follow(
        track: Track, time: float, found: Detections, boxes: np.ndarray, looks: np.ndarray, row: int, covered: float
    ) -> None:  # fmt: skip
        gap = time - track.time
        if gap > 0:
            new = _moved(track.box, boxes[row]) / gap
            if gap > 0.5:
                track.velocity = 0.5 * new
            elif covered < 0.7:  # boxes of people behind one another jump about
                share = 1 - np.exp(-gap / 0.25)
                track.velocity = (1 - share) * track.velocity + share * new if track.hits > 1 else new
        if covered < _APART_SHARE:
            track.look = 0.85 * track.look + 0.15 * looks[row]
            track.tall = 0.7 * track.tall + 0.3 * boxes[row, 3]
        track.box, track.time, track.hits = boxes[row], time, track.hits + 1
        if found.keypoints_px is not None and found.keypoint_scores is not None:
            track.keypoints_px, track.keypoint_scores = found.keypoints_px[row], found.keypoint_scores[row]

    def _watch_meetings(self, time: float, ids: np.ndarray, crowd: np.ndarray, looks: np.ndarray) -> None:
        """Note who is in whose way; when two part again, ask their colours whether they were confused meanwhile."""
        tracks = {track.track_id: track for track in self.tracks}
        rows = {int(number): row for row, number in enumerate(ids) if number >= 0}
        for a in tracks.values():
            for b in tracks.values():
                if a.track_id >= b.track_id:
                    continue
                seen = a.track_id in rows and b.track_id in rows
                overlap = (
                    crowd[rows[a.track_id], rows[b.track_id]]
                    if seen
                    else float(overlaps(to_corners(np.stack([a.at(time), b.at(time)])))[0, 1])
                )
                if b.track_id not in a.met:
                    if overlap > _TOGETHER:
                        a.met[b.track_id] = (time, a.look.copy())
                        b.met[a.track_id] = (time, b.look.copy())
                elif seen and overlap < _APART:
                    since, look_a = a.met.pop(b.track_id)
                    _, look_b = b.met.pop(a.track_id)
                    if self._confused(look_a, look_b, looks[rows[a.track_id]], looks[rows[b.track_id]]):
                        self._swap(a, b, ids, since)

    @staticmethod
    def _confused(look_a: np.ndarray, look_b: np.ndarray, now_a: np.ndarray, now_b: np.ndarray) -> bool:
        if look_distance(look_a, look_b[None])[0] < _TELLING:
            return False
        same = look_distance(look_a, now_a[None])[0] + look_distance(look_b, now_b[None])[0]
        crossed = look_distance(look_a, now_b[None])[0] + look_distance(look_b, now_a[None])[0]
        return bool(crossed + 0.1 < same)

    def _swap(self, a: Track, b: Track, ids: np.ndarray, since: float) -> None:
        self.swaps.append(Swap(a.track_id, b.track_id, since, self._last_look))
        of_a, of_b = ids == a.track_id, ids == b.track_id
        ids[of_a], ids[of_b] = b.track_id, a.track_id
        moving = ("time", "box", "velocity", "keypoints_px", "keypoint_scores")
        kept_a, kept_b = ({name: getattr(track, name) for name in moving} for track in (a, b))
        for track, other in ((a, kept_b), (b, kept_a)):
            for name, value in other.items():
                setattr(track, name, value)

    # To stop and go on

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs, as arrays; meetings in progress are forgotten."""
        none = np.full((17, 2), np.nan)
        return {
            "next_id": np.array(self._next_id),
            "last_look": np.array(self._last_look),
            "ids": np.array([track.track_id for track in self.tracks], np.int64),
            "times": np.array([track.time for track in self.tracks]),
            "boxes": np.array([track.box for track in self.tracks]).reshape(-1, 4),
            "velocities": np.array([track.velocity for track in self.tracks]).reshape(-1, 4),
            "tall": np.array([track.tall for track in self.tracks]),
            "looks": np.array([track.look for track in self.tracks]).reshape(-1, LOOK_SIZE),
            "hits": np.array([track.hits for track in self.tracks], np.int64),
            "keypoints_px": np.array([none if t.keypoints_px is None else t.keypoints_px for t in self.tracks]).reshape(
                -1, 17, 2
            ),
            "keypoint_scores": np.array(
                [np.zeros(17) if t.keypoint_scores is None else t.keypoint_scores for t in self.tracks]
            ).reshape(-1, 17),
            "swaps": np.array([(s.first, s.second, s.since, s.until) for s in self.swaps]).reshape(-1, 4),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self._next_id = int(state["next_id"])
        self._last_look = float(state["last_look"])
        self.swaps = [Swap(int(a), int(b), float(since), float(until)) for a, b, since, until in state["swaps"]]
        self.tracks = []
        tall = state.get("tall", state["boxes"][:, 3])  # films that were begun by earlier versions lack it
        for k, number in enumerate(state["ids"]):
            points = state["keypoints_px"][k]
            known = bool(np.isfinite(points).all())
            self.tracks.append(
                Track(
                    int(number),
                    float(state["times"][k]),
                    state["boxes"][k],
                    state["looks"][k],
                    float(tall[k]),
                    state["velocities"][k],
                    points if known else None,
                    state["keypoint_scores"][k] if known else None,
                    int(state["hits"][k]),
                )  # fmt: skip
            )


def _begin(
    number: int, time: float, found: Detections, boxes: np.ndarray, looks: np.ndarray, row: int
) -> Track:  # fmt: skip
    track = Track(number, time, boxes[row], looks[row].copy(), boxes[row, 3])
    if found.keypoints_px is not None and found.keypoint_scores is not None:
        track = replace(track, keypoints_px=found.keypoints_px[row], keypoint_scores=found.keypoint_scores[row])
    return track


def apply_swaps(ids: np.ndarray, times: np.ndarray, swaps: list[Swap]) -> np.ndarray:
    """Track numbers (N,) of what was seen at `times` (N,), put right by what was found out later.

    ids: as the tracker gave them at the time; what it says after a swap is right already.
    """
    ids = ids.copy()
    for swap in swaps:
        late = (times >= swap.since) & (times <= swap.until)
        first, second = late & (ids == swap.first), late & (ids == swap.second)
        ids[first], ids[second] = swap.second, swap.first
    return ids


def to_centre(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N, 4) corners → centre x, centre y, log width, log height."""
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.log(size)], 1)


def to_corners(boxes: np.ndarray) -> np.ndarray:
    """The inverse of `to_centre`."""
    half = np.exp(boxes[..., 2:]) / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def _moved(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(4,) from box to box, the place alone: by what its middle and both edges agree on, the least of the three. An arm
    that is stretched out moves one edge, and so does somebody in front who covers the legs."""
    edges = np.exp(np.stack([old, new])[:, 2:]) / 2
    place = (new - old)[:2] + np.array([[-1], [0], [1]]) * (edges[1] - edges[0])
    least = np.abs(place).argmin(0)
    return np.append(place[least, [0, 1]], [0.0, 0.0])


def _covered(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N, N) share of the row's box that lies in the column's, 0 on the diagonal."""
    both, area = _shared_areas(boxes_xyxy)
    return np.asarray(both / np.maximum(area, 1e-9)[:, None])


def overlaps(boxes_xyxy: np.ndarray) -> np.ndarray:
    """(N, N) intersection over union, 0 on the diagonal."""
    both, area = _shared_areas(boxes_xyxy)
    return np.asarray(both / np.maximum(area[:, None] + area[None] - both, 1e-9))


def _shared_areas(boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, N) what two boxes share, 0 on the diagonal, and (N,) how large each is."""
    low = np.maximum(boxes_xyxy[:, None, :2], boxes_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], boxes_xyxy[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(-1)
    np.fill_diagonal(both, 0)
    return both, (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(-1)


# Looks

_BINS = 6
LOOK_SIZE = 2 * (_BINS * _BINS + _BINS)
_NAMES = {name: k for k, name in enumerate(COCO_BODY_17)}


def look_of(image: np.ndarray, box_xyxy: np.ndarray, keypoints: np.ndarray | None = None) -> np.ndarray:
    """Colours of the trunk and of the legs: two histograms in CIE Lab, square roots of shares, (2 × (6·6 + 6),).

    image: H×W×3 uint8 RGB. keypoints: (17, 3) COCO's x, y, score, if known; else parts of the box are taken.
    """
    import cv2

    parts = []
    for region in _regions(box_xyxy, keypoints):
        x0, y0 = np.maximum(np.floor(region[:2]).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(region[2:]).astype(int), image.shape[1::-1])
        if x1 - x0 < 2 or y1 - y0 < 2:
            parts.append(np.full(_BINS * _BINS + _BINS, np.nan))
            continue
        piece = cv2.resize(image[y0:y1, x0:x1], (16, 24), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(piece.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
        # Soft bins: a shade on the border of two bins must not look like two shades.
        light = _soft(lab[:, 0], 0, 100)
        colour = (_soft(lab[:, 1], -50, 50)[:, :, None] * _soft(lab[:, 2], -50, 50)[:, None]).reshape(len(lab), -1)
        parts.append(np.sqrt(np.concatenate([colour.mean(0), light.mean(0)]) / 2))
    return np.concatenate(parts)


def _soft(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(N, bins) shares of each value in the two bins that it lies between."""
    place = np.clip((values - low) / (high - low) * (_BINS - 1), 0, _BINS - 1)
    return np.clip(1 - np.abs(place[:, None] - np.arange(_BINS)), 0, None)


def _regions(box_xyxy: np.ndarray, keypoints: np.ndarray | None) -> list[np.ndarray]:
    """Boxes of the trunk and of the thighs and shins."""
    x0, y0, x1, y1 = box_xyxy
    width, height = x1 - x0, y1 - y0
    default = [
        np.array([x0 + 0.3 * width, y0 + 0.2 * height, x1 - 0.3 * width, y0 + 0.5 * height]),
        np.array([x0 + 0.3 * width, y0 + 0.55 * height, x1 - 0.3 * width, y0 + 0.85 * height]),
    ]
    if keypoints is None:
        return default
    regions = []
    for names, fallback in (
        (("left_shoulder", "right_shoulder", "left_hip", "right_hip"), default[0]),
        (("left_hip", "right_hip", "left_knee", "right_knee"), default[1]),
    ):
        points = keypoints[[_NAMES[name] for name in names]]
        if (points[:, 2] < 0.2).any():
            regions.append(fallback)
            continue
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        # Seen from the side both shoulders are at one place, and the trunk is still broad.
        centre, half = (low + high) / 2, np.maximum((high - low) / 2, 0.05 * height)
        regions.append(np.concatenate([centre - 0.9 * half, centre + 0.9 * half]))
    return regions


def look_distance(look: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """(N,) Hellinger distances, 0 (the same colours) to 1, over the parts that both show."""
    half = len(look) // 2
    distances = []
    for part in (slice(0, half), slice(half, None)):
        alike = np.clip(looks[:, part] @ look[part], 0, 1)  # NaN where a part is not seen
        distances.append(np.sqrt(1 - alike))
    with np.errstate(all="ignore"):
        stacked = np.stack(distances)
        seen = np.isfinite(stacked)
        mean = np.where(seen, stacked, 0).sum(0) / np.maximum(seen.sum(0), 1)
    return np.where(seen.any(0), mean, 0.3)


# Cuts


class CutFinder:
    """Says of each frame whether the film goes on elsewhere: colours and places both change at once."""

    def __init__(self) -> None:
        self._small: np.ndarray | None = None
        self._usual = 4.0  # grey levels by which neighbouring frames differ

    def __call__(self, image: np.ndarray) -> bool:
        import cv2

        small = cv2.resize(image, (64, 36), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (5, 5), 0).astype(np.float32)
        before, self._small = self._small, small
        if before is None:
            return False
        change = float(np.abs(small - before).mean())
        far = change > max(18.0, 4 * self._usual)
        if far and _histogram_distance(small, before) > 0.25:
            self._usual = 4.0
            return True
        self._usual = 0.9 * self._usual + 0.1 * min(change, 15.0)
        return False


def _histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    levels = [np.histogramdd(image.reshape(-1, 3), bins=(6, 6, 6), range=[(0, 256)] * 3)[0].ravel() for image in (a, b)]
    shares = [np.sqrt(level / level.sum()) for level in levels]
    return float(np.sqrt(max(0.0, 1 - shares[0] @ shares[1])))
