"""2D keypoints of the people in a picture: from a JSON file, or from a detector that is at hand.

A source is any callable (path, picture, people found) → (N, 133, 3): COCO-WholeBody x, y, confidence in pixels of the
picture, a row for each person found; confidence 0 where a keypoint, or the whole person, is unknown.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wholebody.body.joints import COCO_WHOLEBODY
from wholebody.errors import BadInput
from wholebody.files import coco
from wholebody.people.detections import Detections, box_iou
from wholebody.people.movenet import MoveNet

KEYPOINTS = 133
_PARTS = (("keypoints", 17), ("foot_kpts", 6), ("face_kpts", 68), ("lefthand_kpts", 21), ("righthand_kpts", 21))
_LEAST_OVERLAP = 0.3
NAMES = ("auto", "mediapipe", "movenet")


class KeypointSource(Protocol):
    name: str

    def __call__(self, path: Path, image: np.ndarray, found: Detections) -> np.ndarray: ...


def make_source(name: str) -> KeypointSource:
    """`mediapipe`, `movenet` (17 keypoints of the body), `auto` (the better one that is installed), or a JSON file."""
    from wholebody.people import mediapipe

    if name == "auto":
        name = "mediapipe" if mediapipe.is_installed() else "movenet"
    if name == "mediapipe":
        if not mediapipe.is_installed():
            mediapipe.check()
        return mediapipe.Holistic()
    if name == "movenet":
        return MoveNetKeypoints()
    if not Path(name).exists():
        raise BadInput(f"keypoints from {name}: no such file, and none of {', '.join(NAMES)}.")
    return KeypointFile(name)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) intersection over union of xyxy boxes."""
    return np.array([[box_iou(a, b) for b in others] for a in boxes]).reshape(len(boxes), len(others))


def match(boxes: np.ndarray, others: np.ndarray, least: float = _LEAST_OVERLAP) -> list[int | None]:
    """For each box (N, 4) the other one (M, 4) that it overlaps most, each given once, best pairs first."""
    shared = overlaps(boxes, others)
    chosen: list[int | None] = [None] * len(boxes)
    for flat in np.argsort(-shared, axis=None, kind="stable"):
        a, b = divmod(int(flat), len(others))
        if shared[a, b] < least:
            break
        if chosen[a] is None and b not in chosen:
            chosen[a] = b
    return chosen


class MoveNetKeypoints:
    """The 17 body keypoints that the embedded detector gives anyway."""

    name = "movenet"

    def __init__(self) -> None:
        self._detector: MoveNet | None = None

    def __call__(self, path: Path, image: np.ndarray, found: Detections) -> np.ndarray:
        points = np.zeros((len(found), KEYPOINTS, 3))
        known, rows = found, list(range(len(found)))
        if found.keypoints_px is None:  # boxes from elsewhere
            self._detector = self._detector or MoveNet()
            known = self._detector(image)
            rows = match(found.boxes_xyxy, known.boxes_xyxy)  # type: ignore[assignment]
        assert known.keypoints_px is not None and known.keypoint_scores is not None
        for person, row in enumerate(rows):
            if row is not None:
                points[person, :17, :2] = known.keypoints_px[row]
                points[person, :17, 2] = known.keypoint_scores[row]
        # It also guesses what it does not see, with low scores.
        points[points[..., 2] < 0.2] = 0
        return points


class KeypointFile:
    """People's keypoints from a JSON file, or from a folder with one for each picture.

    Understood are COCO's forms (a list of results, or `images` and `annotations`), and those of AlphaPose, OpenPose
    and MMPose. `keypoints` are x, y, score of 133 (COCO-WholeBody), 17 (COCO; with `foot_kpts`, `face_kpts`,
    `lefthand_kpts` and `righthand_kpts` beside, as in COCO-WholeBody's annotations), 26 or 136 (Halpe), or OpenPose's
    four lists; `bbox` is x, y, width, height, else the box around the keypoints counts. Scores over 1 count as 1
    (COCO's visibility 1 and 2 are both labels). A picture is found as in box files. A row that cannot be read is lost
    and named in `problems`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self.problems: list[str] = []
        files = sorted(self.path.glob("*.json")) if self.path.is_dir() else [self.path]
        if not files:
            raise BadInput(f"{self.path}: holds no keypoint files (.json).")
        everybody = coco.PeopleFile(self.path)
        read = [coco.read_rows(file, coco.read_content(file, "keypoint"), "keypoints", "keypoint") for file in files]
        for people in read:
            everybody.listed.extend(people.listed)
        self._people = coco.ByPicture(everybody)
        for people in read:
            kept = 0
            for row in people.rows:
                try:
                    person = _person(row.values)
                except ValueError as error:
                    people.lose(row.where, error)
                    continue
                kept += 1
                if person is None:
                    self._people.note(row.picture)
                else:
                    self._people.add(row.picture, person)
            self.problems += people.problems
            if people.problems and not kept and len(read) == 1:
                raise BadInput(people.problems[0])

    def knows(self, picture: str | os.PathLike[str]) -> bool:
        """Whether the file says anything of a picture, if only that nobody is in it."""
        return self._people.find(Path(picture)) is not None

    def people(self, picture: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints (N, 133, 3), boxes (N, 4) xyxy and scores (N,) of everybody whom the file knows in `picture`."""
        rows = self._people.find(Path(picture)) or []
        return (
            np.array([row[0] for row in rows]).reshape(-1, KEYPOINTS, 3),
            np.array([row[1] for row in rows]).reshape(-1, 4),
            np.array([row[2] for row in rows]),
        )

    def __call__(self, path: Path, image: np.ndarray, found: Detections) -> np.ndarray:
        points, boxes, _ = self.people(path)
        result = np.zeros((len(found), KEYPOINTS, 3))
        for person, row in enumerate(match(found.boxes_xyxy, boxes)):
            if row is not None:
                result[person] = points[row]
        return result


def _person(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Keypoints (133, 3), box xyxy (4,) and score of a row; None if none of its keypoints is known.

    Raises ValueError for a row that cannot be read.
    """
    points = _openpose(row) if _OPENPOSE_BODY & row.keys() else _points(row)
    points[:, 2] = points[:, 2].clip(0, 1)
    if not (points[:, 2] > 0).any():
        return None
    score = row.get("score", row.get("bbox_score", 1.0))
    score = float(score) if isinstance(score, int | float) and math.isfinite(score) else 1.0
    return points, _box(row, points), min(max(score, 0.0), 1.0)


def _points(row: Mapping[str, Any]) -> np.ndarray:
    flat = coco.numbers(row.get("keypoints") or [], -1)
    if "keypoint_scores" in row:  # MMPose: places and scores apart
        scores = coco.numbers(row["keypoint_scores"], -1)
        if len(flat) != 2 * len(scores):
            raise ValueError(f"{len(scores)} `keypoint_scores` for `keypoints` of {len(flat)} numbers")
        flat = np.concatenate([flat.reshape(-1, 2), scores[:, None]], 1).ravel()
    if len(flat) == KEYPOINTS * 3:
        return flat.reshape(KEYPOINTS, 3)
    if len(flat) in (26 * 3, 136 * 3):
        return _halpe(flat.reshape(-1, 3))
    if len(flat) != 17 * 3:
        raise ValueError(
            f"`keypoints` holds {len(flat)} numbers; it must be 133 × (x, y, score) of COCO-WholeBody, 17 × 3 of COCO, "
            "or 26 or 136 × 3 of Halpe"
        )
    parts = [flat.reshape(17, 3)]
    for name, count in _PARTS[1:]:
        part = coco.numbers(row.get(name) or [0] * count * 3, -1)
        if len(part) != count * 3:
            raise ValueError(f"`{name}` must be {count} × (x, y, score)")
        parts.append(part.reshape(count, 3))
    return np.concatenate(parts)


def _halpe(points: np.ndarray) -> np.ndarray:
    """Halpe's 26 or 136: COCO's 17, head, neck and hip, six of the feet, then face and hands as COCO-WholeBody's."""
    result = np.zeros((KEYPOINTS, 3))
    result[:17] = points[:17]
    for row, name in enumerate(_HALPE_FEET, 20):
        result[COCO_WHOLEBODY.index(name)] = points[row]
    result[23:] = points[26:] if len(points) == 136 else 0
    return result


_HALPE_FEET = ("left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe", "left_heel", "right_heel")
_OPENPOSE_25 = (
    "nose", "", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist", "",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe",
    "right_heel",
)  # fmt: skip
"""BODY_25; neck and the middle of the hips have no place in COCO."""
_OPENPOSE_18 = (
    "nose", "", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
_OPENPOSE_BODY = {"pose_keypoints_2d", "pose_keypoints"}  # with and without ending: newer and older versions


def _openpose(row: Mapping[str, Any]) -> np.ndarray:
    def part(name: str, least: int) -> np.ndarray:
        found = row.get(f"{name}_keypoints_2d") or row.get(f"{name}_keypoints") or []
        points = coco.numbers(found, -1)
        if len(points) % 3 or 0 < len(points) < least * 3:
            raise ValueError(f"`{name}_keypoints_2d` holds {len(points)} numbers; it must be {least} × (x, y, score)")
        return points.reshape(-1, 3)

    result = np.zeros((KEYPOINTS, 3))
    body = part("pose", 17)
    names = {25: _OPENPOSE_25, 18: _OPENPOSE_18, 17: COCO_WHOLEBODY[:17], 0: ()}.get(len(body))
    if names is None:
        raise ValueError(f"`pose_keypoints_2d` has {len(body)} keypoints; OpenPose has 25 (BODY_25) or 18 (COCO)")
    for name, point in zip(names, body, strict=True):
        if name:
            result[COCO_WHOLEBODY.index(name)] = point
    for first, name, count in ((23, "face", 68), (91, "hand_left", 21), (112, "hand_right", 21)):
        points = part(name, count)[:count]  # its face ends with two pupils
        result[first : first + len(points)] = points
    return result


def _box(row: Mapping[str, Any], points: np.ndarray) -> np.ndarray:
    given = row.get("bbox", row.get("box"))
    if given:
        if "keypoint_scores" in row:  # MMPose: corners, in a list of one
            box = coco.numbers(given, -1)[:4]
            if len(box) != 4 or (box[2:] <= box[:2]).any():
                raise ValueError("`bbox` must be x0, y0, x1, y1, the last two above the first two")
            return box
        return coco.box_xyxy(given)
    sure = points[points[:, 2] > min(0.3, points[:, 2].max() / 2), :2]
    low, high = sure.min(0), sure.max(0)
    # Keypoints end at wrists, ankles and eyes; people reach a little further.
    margin = 0.1 * np.maximum(high - low, 0.3 * (high - low).max())
    return np.concatenate([low - margin, high + margin + 1])
