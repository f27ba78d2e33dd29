"""The embedded detector: MoveNet MultiPose in two sizes of the picture, closer where somebody may be, and faces."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from wholebody.people.detections import SIGMAS, Detections, box_iou

_SEEN = 0.05  # centres that score less are not looked at; from here on, the small ones are worth a closer look
_DOUBT = 0.15  # from this centre score on, so are the others
_SMALL = 72.0  # pixels of the finest look: who is lower is seen better from nearby
_CLOSE = 192  # pixels with which a part of the picture is looked at closely
_MOST_CLOSE = 6  # parts; more of them, and the whole picture is looked at in one finer look
_FINEST = 1024
_SURE, _WHOLE, _BEYOND = 0.3, 12, 0.3
"""Scores of keypoints; so many of them, with head and foot, are a whole person; who reaches no further beyond them than
this, in shares of their extent."""
_WELL_SEEN = 176.0  # pixels of a look that a person is high, to be seen well
_ROOM = 0.25  # of the largest person's longer side, about those who are looked at again
_CLOSE_UP = 0.25  # of the picture's height: a face that is larger leaves little of the body to be seen
_LEAST_FACE = 0.75  # a face's score that stands for a person of whom nothing else was found


@dataclass
class MoveNet:
    """Google's MoveNet MultiPose (Apache-2.0), embedded: box and 17 keypoints of everybody. `MoveNet()(image)`.

    One input size does not find both: a look at 256 pixels sees people that fill the picture, one at 512 those further
    away. Where somebody small or doubtful may be, a part of the picture is looked at from nearby; a long narrow picture
    is looked at in overlapping tiles. Looks are merged by keypoints, so that two people in contact stay two. A face of
    which no body was found stands for a person whose body goes on below it. Safe to call from several threads.
    """

    threshold: float = 0.1
    """Least score: of the centre times the mean of the keypoints'."""
    sizes: tuple[int, ...] = (256, 512)
    _loading: Any = field(default_factory=threading.Lock, repr=False)
    _parts: Any = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "sizes": self.sizes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, image: np.ndarray) -> Detections:
        """image H×W×3 uint8 RGB."""
        height, width = image.shape[:2]
        tiles = [(0, 0, width, height)]
        if max(height, width) > 2 * min(height, width):
            tiles += _tiles(height, width)
        seen = _joined([self._look(image, size, [tile]) for tile in tiles for size in self.sizes])
        closer = self._closer(seen, (height, width))
        if len(closer) > _MOST_CLOSE:
            seen = _joined([seen, self._look(image, min(_FINEST, max(height, width)), tiles[:1], _DOUBT)])
        elif closer:
            seen = _joined([seen, self._look(image, _CLOSE, closer, _DOUBT)])
        found = self._chosen(seen, (height, width))
        return _with_faces(found, self._networks()[1](image), (height, width))

    def again(self, image: np.ndarray, boxes_xyxy: np.ndarray) -> Detections:
        """One look at where people (N, 4; N > 0) were a moment ago, at the size that finds them: a film's cheap look.

        Whoever else is near them is found too; who comes in elsewhere waits for a look at the whole.
        """
        height, width = image.shape[:2]
        low, high = boxes_xyxy[:, :2].min(0), boxes_xyxy[:, 2:].max(0)
        long = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(1)
        room = _ROOM * long.max()
        x0, y0 = np.clip(np.floor(low - room), 0, [width - 2, height - 2]).astype(int)
        x1, y1 = np.clip(np.ceil(high + room), [x0 + 2, y0 + 2], [width, height]).astype(int)
        side = max(x1 - x0, y1 - y0)
        size = int(np.clip(math.ceil(_WELL_SEEN / long.min() * side / 32) * 32, min(self.sizes), max(self.sizes)))
        seen = self._look(image, size, [(int(x0), int(y0), int(x1), int(y1))])
        return self._chosen(seen, (height, width))

    def _networks(self) -> Any:
        """The trunk, and the face detector."""
        with self._loading:
            if self._parts is None:
                from wholebody.model.embedded.face_landmarks import FaceDetector
                from wholebody.model.embedded.movenet import load_movenet
                from wholebody.model.embedded.trunk import MobileNetTrunk, freeze

                trunk = MobileNetTrunk().eval()
                load_movenet(trunk)
                freeze(trunk)
                self._parts = trunk, FaceDetector(_LEAST_FACE)
            return self._parts

    def _look(
        self, image: np.ndarray, size: int, parts: list[tuple[int, int, int, int]], least: float = _SEEN
    ) -> _Seen:
        """What is seen of parts (x0, y0, x1, y1) of one shape, their long sides at `size` pixels."""
        import cv2
        import torch

        from wholebody.model.embedded.multipose import find_people

        trunk = self._networks()[0]
        canvases, scales = [], []
        for x0, y0, x1, y1 in parts:
            scale = size / max(x1 - x0, y1 - y0)
            high, wide = (max(1, round(side * scale)) for side in (y1 - y0, x1 - x0))
            canvas = np.zeros((math.ceil(high / 32) * 32, math.ceil(wide / 32) * 32, 3), np.uint8)
            canvas[:high, :wide] = cv2.resize(
                image[y0:y1, x0:x1], (wide, high), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            )
            canvases.append(canvas)
            scales.append(scale)
        with torch.inference_mode():
            # One shape, one call: parts at the picture's border are as large as the others.
            images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2) / 255
            maps = trunk(images.contiguous(memory_format=torch.channels_last))
            people = [find_people(maps._make(m[k : k + 1] for m in maps), least) for k in range(len(parts))]
        looks = []
        for part, scale, (boxes, centers, keypoints) in zip(parts, scales, people, strict=True):
            origin = np.array(part[:2], np.float64)
            points = keypoints.numpy().astype(np.float64)
            points[..., :2] = points[..., :2] / scale + origin
            look = _Seen(
                boxes.numpy().astype(np.float64) / scale + np.tile(origin, 2),
                centers.numpy().astype(np.float64),
                points,
                np.full(len(boxes), scale),
            )
            looks.append(look.take(~_cut_off(look.boxes, part, image.shape[:2])))
        return _joined(looks)

    def _closer(self, seen: _Seen, image_hw: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """Squares of the picture that are worth a closer look: around who is small, or doubtful."""
        scale = max(self.sizes) / max(image_hw)
        long = (seen.boxes[:, 2:] - seen.boxes[:, :2]).max(1) if len(seen) else np.zeros(0)
        sure = seen.scores >= 2 * self.threshold
        small = (long * scale < _SMALL) & (scale < 0.75)
        wanted = small | ((seen.centers >= _DOUBT) & ~sure)
        known = np.flatnonzero(sure & ~small)
        parts: list[tuple[int, int, int, int]] = []
        for row in np.argsort(-long, kind="stable"):
            if not wanted[row] or any(seen.same(int(row), int(other)) for other in known):
                continue
            if any(_shown_well(seen.boxes[row], part) for part in parts):
                continue
            parts.append(_square(seen.boxes[row], image_hw))
        return parts

    def _chosen(self, seen: _Seen, image_hw: tuple[int, int]) -> Detections:
        height, width = image_hw
        boxes = np.clip(_about_keypoints(seen.boxes, seen.keypoints), 0, [width, height, width, height])
        seen = _Seen(boxes, seen.centers, seen.keypoints, seen.scales)
        size = (boxes[:, 2:] - boxes[:, :2]).min(1) if len(seen) else np.zeros(0)
        seen = seen.take((size >= 2) & (seen.scores >= self.threshold))
        kept: list[int] = []
        for row in np.argsort(-seen.scores, kind="stable"):
            if not any(seen.same(int(row), other) for other in kept):
                kept.append(int(row))
        chosen = seen.take(kept)
        return Detections(chosen.boxes, chosen.scores, chosen.keypoints[..., :2], chosen.keypoints[..., 2])


@dataclass(frozen=True)
class _Seen:
    """Everybody who may be there, in pixels of the picture."""

    boxes: np.ndarray  # (N, 4) xyxy
    centers: np.ndarray  # (N,) score of the centre
    keypoints: np.ndarray  # (N, 17, 3)
    scales: np.ndarray  # (N,) pixels of the look over pixels of the picture

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def scores(self) -> np.ndarray:
        return np.asarray(self.centers * self.keypoints[..., 2].mean(1))

    def take(self, rows: Any) -> _Seen:
        return _Seen(self.boxes[rows], self.centers[rows], self.keypoints[rows], self.scales[rows])

    def same(self, a: int, b: int) -> bool:
        """Whether two are one person: by keypoints where both have enough of them, else by box."""
        overlap = box_iou(self.boxes[a], self.boxes[b])
        if overlap == 0:
            return False
        one, other = self.keypoints[a], self.keypoints[b]
        shared = np.minimum(one[:, 2], other[:, 2]) >= 0.15
        if shared.sum() < 3:
            return overlap > 0.5
        size = self.boxes[[a, b], 2:] - self.boxes[[a, b], :2]
        off = np.sum((one - other)[shared, :2] ** 2, axis=1)
        like = float(np.exp(-off / (2 * size.prod(axis=1).max() * (2 * SIGMAS[shared]) ** 2)).mean())
        # Two who embrace share a box; the keypoints of one person in two looks do not differ wholly.
        return like > 0.5 or (overlap > 0.7 and like > 0.2) or overlap > 0.92


def _about_keypoints(boxes: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of people who are seen from head to foot, none of them much larger than the keypoints (N, 17, 3):
    the trunk's sizes are at times those of the whole picture."""
    sure = keypoints[..., 2] >= _SURE
    whole = (sure.sum(1) >= _WHOLE) & sure[:, :5].any(1) & sure[:, 15:].any(1)
    low = np.where(sure[..., None], keypoints[..., :2], np.inf).min(1)
    high = np.where(sure[..., None], keypoints[..., :2], -np.inf).max(1)
    room = _BEYOND * (high - low).max(1, keepdims=True)
    held = np.concatenate([np.maximum(boxes[:, :2], low - room), np.minimum(boxes[:, 2:], high + room)], 1)
    return np.where(whole[:, None], held, boxes)


def _joined(looks: list[_Seen]) -> _Seen:
    return _Seen(*(np.concatenate([getattr(look, name) for look in looks]) for name in vars(looks[0])))


def _tiles(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Square windows, half overlapping, along the long side of a long narrow picture."""
    side, long = min(height, width), max(height, width)
    count = min(math.ceil((long - side) / (0.5 * side)) + 1, 24)  # a strip of 12:1 is still seen whole
    starts = [round(place * (long - side) / (count - 1)) for place in range(count)]
    return [(at, 0, at + side, side) if width > height else (0, at, side, at + side) for at in starts]


def _cut_off(boxes: np.ndarray, part: tuple[int, int, int, int], image_hw: tuple[int, int]) -> np.ndarray:
    """(N,) which boxes touch a border of the part that is not one of the picture: another look sees more of them."""
    x0, y0, x1, y1 = part
    margin = 0.01 * max(x1 - x0, y1 - y0)
    return (
        ((boxes[:, 0] < x0 + margin) & (x0 > 0))
        | ((boxes[:, 1] < y0 + margin) & (y0 > 0))
        | ((boxes[:, 2] > x1 - margin) & (x1 < image_hw[1]))
        | ((boxes[:, 3] > y1 - margin) & (y1 < image_hw[0]))
    )


def _square(box: np.ndarray, image_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """A square about a box, 2.2 times as large, moved into the picture where it fits."""
    height, width = image_hw
    side = int(min(max(round(2.2 * (box[2:] - box[:2]).max()), 32), height, width))
    x, y = np.round((box[:2] + box[2:]) / 2 - side / 2).astype(int)
    x, y = int(np.clip(x, 0, width - side)), int(np.clip(y, 0, height - side))
    return x, y, x + side, y + side


def _shown_well(box: np.ndarray, part: tuple[int, int, int, int]) -> bool:
    """Whether a part of the picture shows a box whole, with room about it and not too small."""
    side, long = part[2] - part[0], float((box[2:] - box[:2]).max())
    margin = 0.15 * long
    inside = (box[:2] > np.array(part[:2]) + margin).all() and (box[2:] < np.array(part[2:]) - margin).all()
    return bool(inside) and long > 0.22 * side


def _with_faces(found: Detections, faces: Any, image_hw: tuple[int, int]) -> Detections:
    """The people, and those of whom only the face was found: a close-up shows no body that the trunk would know."""
    assert found.keypoints_px is not None and found.keypoint_scores is not None
    height, width = image_hw
    known = found.boxes_xyxy.copy()
    boxes, scores, points, point_scores = [], [], [], []
    for box, marks, score in zip(faces.boxes_xyxy, faces.points_px, faces.scores, strict=True):
        size = box[2:] - box[:2]
        nose = marks[2]
        low = np.array([box[0] - 1.3 * size[0], box[1] - 0.55 * size[1]])
        high = np.array([box[2] + 1.3 * size[0], box[3] + 6 * size[1]])
        body = np.clip([*low, *high], 0, [width, height, width, height])
        # Anybody's whose box has this face in its upper half.
        upper = known[:, 1] + np.maximum(0.5 * (known[:, 3] - known[:, 1]), 1.5 * size[1])
        theirs = (known[:, 0] < nose[0]) & (known[:, 2] > nose[0]) & (known[:, 1] < box[3]) & (nose[1] < upper)
        if theirs.any():
            whose = int(np.flatnonzero(theirs)[np.argmin(np.abs(known[theirs, 1] - box[1]))])
            if size[1] > _CLOSE_UP * height and known[whose, 3] - known[whose, 1] < 2.2 * size[1]:
                known[whose] = [*np.minimum(known[whose, :2], body[:2]), *np.maximum(known[whose, 2:], body[2:])]
            continue
        boxes.append(body)
        scores.append(0.5 * score)
        places = np.zeros((17, 2))
        places[:5] = marks[[2, 1, 0, 5, 4]]  # nose, eyes, ears; left first
        points.append(places)
        point_scores.append(np.array([0.5 * score] * 5 + [0.0] * 12))
    found = replace(found, boxes_xyxy=known)
    if not boxes:
        return found
    together = Detections(
        np.concatenate([found.boxes_xyxy, boxes]),
        np.concatenate([found.scores, scores]),
        np.concatenate([found.keypoints_px, points]),
        np.concatenate([found.keypoint_scores, point_scores]),
    )
    return together.take(np.argsort(-together.scores, kind="stable"))
