"""MediaPipe Holistic (Google, Apache-2.0; an optional extra) as a source of keypoints: body, feet, hands and face.

Its models come inside the package, so nothing is downloaded. It looks for one person, so every person is cut out first.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.errors import AssetMissing
from wholebody.people.detections import Detections

# Which of the 33 pose landmarks are COCO's 17, then big toe, small toe, heel of each foot (it has no small toes).
_POSE = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 31, None, 29, 32, None, 30)
# fmt: off
_FACE = (  # which of the 468 points of the face mesh the 68 are: contour, brows, nose, eyes, lips
    127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on
_CONTOUR_TRUST, _FACE_TRUST, _HAND_TRUST = 0.3, 0.8, 0.8  # the contour is the mesh's, not what is seen as the edge
_MARGIN = 0.25


def is_installed() -> bool:
    return importlib.util.find_spec("mediapipe") is not None


class Holistic:
    """133 keypoints of each person found."""

    name = "mediapipe"

    def __init__(self) -> None:
        self._network: Any = None

    def __call__(self, path: Path, image: np.ndarray, found: Detections) -> np.ndarray:
        return np.array([self._person(image, box) for box in found.boxes_xyxy]).reshape(-1, 133, 3)

    def _person(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        self._network = self._network or _load()
        margin = _MARGIN * (box[2:] - box[:2]).max()
        low = np.maximum(np.floor(box[:2] - margin), 0).astype(int)
        high = np.minimum(np.ceil(box[2:] + margin), image.shape[1::-1]).astype(int)
        part = np.ascontiguousarray(image[low[1] : high[1], low[0] : high[0]])
        return to_coco(self._network.process(part), part.shape[:2], low)


def to_coco(answer: Any, part_hw: tuple[int, int], origin: np.ndarray) -> np.ndarray:
    """Holistic's answer for a cut-out (fractions of it) -> (133, 3) in pixels of the picture."""
    points = np.zeros((133, 3))

    def places(landmarks: Any) -> np.ndarray:
        # Fractions count from the border, pixels from the first one's centre.
        return np.asarray(np.array([(mark.x, mark.y) for mark in landmarks]) * part_hw[::-1] + origin - 0.5)

    if answer.pose_landmarks:
        marks = answer.pose_landmarks.landmark
        where = places(marks)
        for row, mark in enumerate(_POSE):
            if mark is not None:
                points[row] = *where[mark], marks[mark].visibility
    if answer.face_landmarks:
        points[23:91, :2] = places(answer.face_landmarks.landmark)[list(_FACE)]
        points[23:91, 2] = [_CONTOUR_TRUST] * 17 + [_FACE_TRUST] * 51
    for start, hand in ((91, answer.left_hand_landmarks), (112, answer.right_hand_landmarks)):
        if hand:
            points[start : start + 21, :2] = places(hand.landmark)
            points[start : start + 21, 2] = _HAND_TRUST
    return points


def check() -> None:
    """Raises AssetMissing where MediaPipe cannot be imported: before any work, and not with the first picture."""
    _network_class()


def _network_class() -> Any:
    try:
        from mediapipe.python.solutions.holistic import Holistic as Network
    except ImportError as error:
        raise AssetMissing(
            f"MediaPipe cannot be imported ({error}). Install the extra wholebody[mediapipe] (in the clone: "
            "`pip install '.[mediapipe]'`), or give keypoints as a file (--refine=KEYPOINTS.json), or use the embedded "
            "detector's (--refine=movenet)."
        ) from error
    return Network


def _load() -> Any:
    return _network_class()(static_image_mode=True, model_complexity=1, refine_face_landmarks=False)
