"""MediaPipe Hands, full (Google, Apache-2.0): 21 points of one hand in 2D and 3D, from a rotated region.

A hand's region comes from the arm: MediaPipe Holistic's way from BlazePose's wrist and knuckles, mended by its small
network that looks once at a wider square (`regions_of_hand`). Or from what was found before (`HandLook.next_region`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholebody.model.embedded.regions import around, cut, region_between, shifted, to_picture, turning
from wholebody.model.embedded.tflite import TFLiteNetwork

HAND_21 = (
    "wrist",
    *(f"{finger}{k}" for finger in ("thumb", "index", "middle", "ring", "pinky") for k in ("1", "2", "3", "_tip")),
)
"""The network's points, in the order of COCO-WholeBody's hands too. A finger's first point is its knuckle; the thumb's
first is at the wrist's side (its carpometacarpal joint)."""

SIDE = 224
_RECROP_SIDE = 256
_PALM = [0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]  # what tells of a hand's place without its tips


@dataclass(frozen=True)
class HandLook:
    """One look at one hand. numpy; pixels of the picture; metres."""

    points_px: np.ndarray  # (21, 2)
    depth_px: np.ndarray  # (21,) z relative to the wrist, in the points' scale, away from the camera
    points_m: np.ndarray  # (21, 3) x right, y down, z away from the camera, as the picture stands
    score: float  # 0..1: there is a hand
    right: float  # 0..1: it is a right hand
    region: np.ndarray  # (4,) what was looked at
    next_region: np.ndarray  # (4,) what to look at in the next frame, or again

    @property
    def size_px(self) -> float:
        """The longer side of the box about all points."""
        return float((self.points_px.max(0) - self.points_px.min(0)).max())


class HandLandmarks:
    """`HandLandmarks()(image, region)`: one hand's landmarks. Safe to call from several threads."""

    def __init__(self, threads: int = 1) -> None:
        self._network = TFLiteNetwork("hand_landmark_full.tflite", threads=threads)
        self._recrop = TFLiteNetwork("hand_recrop.tflite", threads=threads)

    def __call__(self, image: np.ndarray, region: np.ndarray) -> HandLook:
        """image H×W×3 uint8 RGB; region (4,), see `wholebody.model.embedded.regions`: fingers up, wrist down."""
        region = np.asarray(region, np.float64)
        outputs = self._network(cut(image, region, SIDE)[None] / 255)
        rows = outputs["Identity"].reshape(21, 3).astype(np.float64)
        metres = outputs["Identity_3"].reshape(21, 3).astype(np.float64)
        turn = turning(region[3])
        metres[:, :2] = metres[:, :2] @ turn.T
        points = to_picture(rows[:, :2], region, SIDE)
        return HandLook(
            points_px=points,
            depth_px=rows[:, 2] * region[2] / SIDE,
            points_m=metres,
            score=float(outputs["Identity_1"].ravel()[0]),
            right=float(outputs["Identity_2"].ravel()[0]),
            region=region,
            next_region=region_of_points(points),
        )

    def region_from_arm(self, image: np.ndarray, wrist: np.ndarray, index: np.ndarray, pinky: np.ndarray) -> np.ndarray:
        """A hand's region (4,) from the wrist and two knuckles (2,) that a body's landmarker gives, in pixels."""
        wide = wide_region(wrist, index, pinky)
        places = self._recrop(cut(image, wide, _RECROP_SIDE)[None] / 255)["output_crop"].reshape(2, 2)
        first, second = to_picture(places.astype(np.float64), wide, _RECROP_SIDE)
        region = region_between(first, second)
        return np.concatenate([shifted(region, 0, -0.1)[:2], region[2:3] * 1.1, region[3:]])


def wide_region(wrist: np.ndarray, index: np.ndarray, pinky: np.ndarray) -> np.ndarray:
    """The square (4,) about a hand of which only the wrist and two knuckles (2,) are known."""
    middle = (2 * index + pinky) / 3
    region = region_between(middle, middle + (middle - wrist))
    return np.concatenate([shifted(region, 0, -0.1)[:2], region[2:3] * 2.7, region[3:]])


def region_of_points(points_px: np.ndarray) -> np.ndarray:
    """The region (4,) of a hand whose 21 points (21, 2) are known."""
    middle = ((points_px[5] + points_px[13]) / 2 + points_px[9]) / 2
    away = middle - points_px[0]
    region = around(points_px[_PALM], float(np.arctan2(away[0], -away[1])))
    return np.concatenate([shifted(region, 0, -0.1)[:2], region[2:3] * 2, region[3:]])
