"""MediaPipe's face detector, face landmarks and blendshapes (Google, Apache-2.0).

All three are in one file, `face_landmarker.task`. The detector is BlazeFace, short range: it finds faces of at least
about an eighth of the square that it is shown. The landmarks are 478 points; 52 numbers, named as Apple's ARKit names
them, say what the face does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from wholebody.model.embedded.regions import around, cut, to_picture
from wholebody.model.embedded.tflite import TFLiteNetwork

FILE = "face_landmarker.task"
FACE_6 = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")
"""The points that the detector gives of a face. Left is the person's own."""
BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
# fmt: off
_READ = (  # the 146 of the 478 points that the blendshapes are read from
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251,
    263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318,
    321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
FACE_68 = (  # which of the 478 points the 68 of iBUG are: contour, brows, nose, eyes, lips
    127, 234, 93, 132, 58, 172, 150, 176, 152, 400, 379, 397, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on

_DETECTOR_SIDE, SIDE = 128, 256
_RIGHT_EYE, _LEFT_EYE = 33, 263  # outer corners


@dataclass(frozen=True)
class FoundFaces:
    """Faces of one picture, most certain first. Pixels of the picture."""

    boxes_xyxy: np.ndarray  # (N, 4) about brows, cheeks and chin; upright in the region that was looked at
    points_px: np.ndarray  # (N, 6, 2) `FACE_6`
    scores: np.ndarray  # (N,) 0..1

    def __len__(self) -> int:
        return len(self.scores)


class FaceDetector:
    """`FaceDetector()(image, region)`: the faces in a square of a picture. Safe to call from several threads."""

    def __init__(self, threshold: float = 0.5, threads: int = 1) -> None:
        self.threshold = threshold
        self._network = TFLiteNetwork(FILE, "face_detector.tflite", threads)

    def __call__(self, image: np.ndarray, region: np.ndarray | None = None) -> FoundFaces:
        """image H×W×3 uint8 RGB; region (4,), see `wholebody.model.embedded.regions`; None: the whole picture."""
        height, width = image.shape[:2]
        if region is None:
            region = np.array([(width - 1) / 2, (height - 1) / 2, max(height, width), 0.0])
        outputs = self._network(cut(image, region, _DETECTOR_SIDE)[None] / 127.5 - 1)
        scores = 1 / (1 + np.exp(-np.clip(outputs["classificators"].reshape(-1).astype(np.float64), -80, 80)))
        rows = outputs["regressors"].reshape(-1, 8, 2).astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] >= self.threshold]
        rows, scores = rows[order], scores[order]
        anchors = _anchors()[order]
        middle, size = rows[:, 0] + anchors, rows[:, 1]
        boxes = np.concatenate([middle - size / 2, middle + size / 2], 1)
        points = rows[:, 2:] + anchors[:, None]
        kept: list[tuple[np.ndarray, np.ndarray, float]] = []
        free = np.ones(len(boxes), bool)
        for row in range(len(boxes)):
            if not free[row]:
                continue
            # As published: what overlaps is one face, its place the mean weighted by the scores.
            same = free & (_overlap(boxes[row], boxes) > 0.3)
            free &= ~same
            weights = scores[same] / scores[same].sum()
            kept.append(
                ((boxes[same] * weights[:, None]).sum(0), (points[same] * weights[:, None, None]).sum(0), scores[row])
            )
        if not kept:
            return FoundFaces(np.zeros((0, 4)), np.zeros((0, 6, 2)), np.zeros(0))
        box, point, score = (np.array(part) for part in zip(*kept, strict=True))
        corners = to_picture(box.reshape(-1, 2, 2), region, _DETECTOR_SIDE)
        return FoundFaces(
            np.concatenate([corners.min(1), corners.max(1)], 1),
            to_picture(point, region, _DETECTOR_SIDE),
            score,
        )


@lru_cache(maxsize=1)
def _anchors() -> np.ndarray:
    """(896, 2) middles of the detector's cells, x and y in pixels: two a cell at stride 8, then six at stride 16."""
    rows = []
    for stride, count in ((8, 2), (16, 6)):
        cells = (np.arange(_DETECTOR_SIDE // stride) + 0.5) * stride
        y, x = np.meshgrid(cells, cells, indexing="ij")
        rows.append(np.stack([x, y], -1).reshape(-1, 2).repeat(count, 0))
    return np.concatenate(rows)


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of one xyxy box with others."""
    sides = np.clip(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0, None)
    both = sides.prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return both / np.maximum((box[2:] - box[:2]).prod() + areas - both, 1e-12)


@dataclass(frozen=True)
class FaceLook:
    """One look at one face. numpy; pixels of the picture."""

    points_px: np.ndarray  # (478, 2)
    depth_px: np.ndarray  # (478,) z in the points' scale, away from the camera
    score: float  # 0..1: there is a face
    region: np.ndarray  # (4,) what was looked at
    next_region: np.ndarray  # (4,) what to look at in the next frame, or again

    @property
    def ibug_px(self) -> np.ndarray:
        """(68, 2) the points of COCO-WholeBody's face, in its order."""
        return self.points_px[list(FACE_68)]


class FaceLandmarks:
    """`FaceLandmarks()(image, region)`: one face's landmarks. Safe to call from several threads."""

    def __init__(self, threads: int = 1) -> None:
        self._network = TFLiteNetwork(FILE, "face_landmarks_detector.tflite", threads)
        self._blendshapes = TFLiteNetwork(FILE, "face_blendshapes.tflite", threads)

    def __call__(self, image: np.ndarray, region: np.ndarray) -> FaceLook:
        """image H×W×3 uint8 RGB; region (4,), see `wholebody.model.embedded.regions`: eyes level."""
        region = np.asarray(region, np.float64)
        outputs = self._network(cut(image, region, SIDE)[None] / 255)
        rows = outputs["Identity"].reshape(478, 3).astype(np.float64)
        points = to_picture(rows[:, :2], region, SIDE)
        logit = float(outputs["Identity_1"].ravel()[0])
        return FaceLook(
            points_px=points,
            depth_px=rows[:, 2] * region[2] / SIDE,
            score=float(1 / (1 + np.exp(-np.clip(logit, -80, 80)))),
            region=region,
            next_region=region_of_face(points),
        )

    def blendshapes(self, look: FaceLook) -> np.ndarray:
        """(52,) 0..1 of `BLENDSHAPES`."""
        return self._blendshapes(look.points_px[None, list(_READ)])["StatefulPartitionedCall:0"].astype(np.float64)


def region_of_face(points_px: np.ndarray) -> np.ndarray:
    """The region (4,) of a face whose 478 points (478, 2) are known."""
    across = points_px[_LEFT_EYE] - points_px[_RIGHT_EYE]
    return around(points_px, float(np.arctan2(across[1], across[0])), 1.5)


def region_of_found(faces: FoundFaces, row: int) -> np.ndarray:
    """The region (4,) of a face that the detector found."""
    box = faces.boxes_xyxy[row]
    across = faces.points_px[row, 1] - faces.points_px[row, 0]
    return np.array([*((box[:2] + box[2:]) / 2), 1.5 * (box[2:] - box[:2]).max(), np.arctan2(across[1], across[0])])
