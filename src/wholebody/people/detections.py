"""What detectors give: the people of one picture, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# How exactly people mark each of these: COCO's constants for comparing two sets of keypoints.
SIGMAS = np.array(
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ]
)


@dataclass(frozen=True)
class Detections:
    """The people of one picture, most certain first. Pixels of the picture; keypoints (if any) in COCO's 17."""

    boxes_xyxy: np.ndarray  # (N, 4)
    scores: np.ndarray  # (N,) in 0..1
    keypoints_px: np.ndarray | None = None  # (N, 17, 2)
    keypoint_scores: np.ndarray | None = None  # (N, 17)

    def __len__(self) -> int:
        return len(self.boxes_xyxy)

    def take(self, rows: Any) -> Detections:
        """The people of these rows: numbers, a slice or a mask."""
        return Detections(
            self.boxes_xyxy[rows],
            self.scores[rows],
            None if self.keypoints_px is None else self.keypoints_px[rows],
            None if self.keypoint_scores is None else self.keypoint_scores[rows],
        )


    def of(self, people: Sequence[Any]) -> Detections:
        """Those of these people (`Person`), in their order: a predictor leaves out who was found twice."""
        return self.take([int(np.abs(self.boxes_xyxy - person.box_xyxy).sum(1).argmin()) for person in people])


def box_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two xyxy boxes."""
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = float(sides.prod())
    return both / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - both, 1e-12)
