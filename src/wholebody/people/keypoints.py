"""2D keypoints of the people in a picture: from a JSON file, or from a detector that is at hand.

A source is any callable (path, picture, people found) → (N, 133, 3): COCO-WholeBody x, y, confidence in pixels of the
picture, a row for each person found; confidence 0 where a keypoint, or the whole person, is unknown.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wholebody.errors import BadInput
from wholebody.people.detect import Detections, MoveNet, box_iou

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
        return mediapipe.Holistic()
    if name == "movenet":
        return MoveNetKeypoints()
    if not Path(name).is_file():
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
    """People's keypoints from a JSON file in a COCO form.

    Either a list of results, or an annotation file with `images` and `annotations`. A row has `image_id` or
    `file_name`; `keypoints` of 133 × (x, y, score), or of 17 with, as in COCO-WholeBody's annotations, `foot_kpts`,
    `face_kpts`, `lefthand_kpts` and `righthand_kpts` beside; and maybe `bbox` (x, y, width, height), else the box
    around its keypoints. Scores over 1 count as 1 (COCO's visibility 1 and 2 are both labels). A picture is found as
    in box files: by its path, the end of it, its name with or without suffix, or the number in its name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.name
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BadInput(f"{self.path}: the keypoint file cannot be read ({error.strerror or error}).") from error
        except ValueError as error:
            raise BadInput(f"{self.path}: the keypoint file is not JSON ({error}).") from error
        names: dict[Any, Any] = {}
        rows = content
        if isinstance(content, dict) and "annotations" in content:
            names = {image["id"]: image.get("file_name", image["id"]) for image in content.get("images", [])}
            rows = content["annotations"]
        if not isinstance(rows, list):
            raise BadInput(
                f"{self.path}: expected a list of COCO results, or `images` and `annotations`; "
                f"found a {type(content).__name__}."
            )
        self._people: dict[str, list[tuple[np.ndarray, np.ndarray, float]]] = {}
        for number, row in enumerate(rows):
            if not isinstance(row, dict) or "keypoints" not in row or not ("file_name" in row or "image_id" in row):
                raise BadInput(f"{self.path}: entry {number} needs `keypoints` and `image_id` or `file_name`.")
            if row.get("category_id", 1) != 1:
                continue
            points = self._points(row, number)
            if not (points[:, 2] > 0).any():
                continue
            key = row["file_name"] if "file_name" in row else names.get(row["image_id"], row["image_id"])
            score = row.get("score", 1.0)
            person = (points, self._box(row, points, number), float(score) if isinstance(score, (int, float)) else 1.0)
            self._people.setdefault(str(key).removeprefix("./"), []).append(person)

    def people(self, picture: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints (N, 133, 3), boxes (N, 4) xyxy and scores (N,) of everybody whom the file knows in `picture`."""
        path = Path(picture)
        parts = path.parts
        keys = [path.as_posix(), *("/".join(parts[start:]) for start in range(1, len(parts))), path.stem]
        keys += [str(int(path.stem))] if path.stem.isdecimal() else []
        # Results of `wholebody predict` name a picture of a subfolder without its suffix.
        keys += ["/".join((*parts[start:-1], path.stem)) for start in range(len(parts) - 1)]
        rows = next((self._people[key] for key in keys if key in self._people), [])
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

    def _points(self, row: dict[str, Any], number: int) -> np.ndarray:
        flat = self._numbers(row["keypoints"], f"`keypoints` of entry {number}")
        if len(flat) == KEYPOINTS * 3:
            points = flat.reshape(KEYPOINTS, 3)
        elif len(flat) == 17 * 3:
            parts = []
            for name, count in _PARTS:
                part = self._numbers(row.get(name) or [0] * count * 3, f"`{name}` of entry {number}")
                if len(part) != count * 3:
                    raise BadInput(f"{self.path}: `{name}` of entry {number} must be {count} × (x, y, score).")
                parts.append(part.reshape(count, 3))
            points = np.concatenate(parts)
        else:
            raise BadInput(
                f"{self.path}: `keypoints` of entry {number} holds {len(flat)} numbers; it must be 133 × (x, y, score) "
                "of COCO-WholeBody, or 17 × 3 of COCO."
            )
        points[:, 2] = points[:, 2].clip(0, 1)
        return points

    def _box(self, row: dict[str, Any], points: np.ndarray, number: int) -> np.ndarray:
        if row.get("bbox") is not None:
            box = self._numbers(row["bbox"], f"`bbox` of entry {number}")
            if len(box) != 4 or (box[2:] <= 0).any():
                raise BadInput(f"{self.path}: `bbox` of entry {number} must be x, y, width, height, both over 0.")
            return np.concatenate([box[:2], box[:2] + box[2:]])
        sure = points[points[:, 2] > min(0.3, points[:, 2].max() / 2), :2]
        low, high = sure.min(0), sure.max(0)
        # Keypoints end at wrists, ankles and eyes; people reach a little further.
        margin = 0.1 * np.maximum(high - low, 0.3 * (high - low).max())
        return np.concatenate([low - margin, high + margin + 1])

    def _numbers(self, values: Any, what: str) -> np.ndarray:
        try:
            array = np.array(values, np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{self.path}: {what} is no list of numbers ({error}).") from error
        if not np.isfinite(array).all():
            raise BadInput(f"{self.path}: {what} has a value that is not a finite number.")
        return array
