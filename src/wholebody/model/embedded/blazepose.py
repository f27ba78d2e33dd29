"""BlazePose GHUM, full (Google, Apache-2.0): 33 points of one body in 2D and 3D, and its mask, from a rotated region.

The network sees a square that stands upright with the person: its middle between the hips, its upper border above the
shoulders, large enough for the whole body. Such a region comes from key points that are known (`region_of_body`) or
from what was found before, one frame earlier for example (`PoseLook.next_region`). Nothing is kept between calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholebody.body.joints import COCO_BODY_17
from wholebody.model.embedded.regions import cut, region_between, to_picture, turning
from wholebody.model.embedded.tflite import TFLiteNetwork

POSE_33 = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    "left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index",
    "left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    "left_heel", "right_heel", "left_foot_index", "right_foot_index",
)  # fmt: skip
"""The network's points. Pinky, index and thumb are knuckles; foot_index is the big toe. Left is the person's own."""

SIDE = 256
_HEAT = 64
_KERNEL = 3  # cells to each side of a landmark in which its heat map is averaged
_SURE = 0.5  # from this heat on a landmark is moved
_COCO_ROWS = [POSE_33.index(name) for name in COCO_BODY_17]


@dataclass(frozen=True)
class PoseLook:
    """One look at one person. numpy; pixels of the picture; metres."""

    points_px: np.ndarray  # (33, 2)
    depth_px: np.ndarray  # (33,) z relative to the hips' middle, in the points' scale, away from the camera
    points_m: np.ndarray  # (33, 3) x right, y down, z away from the camera, as the picture stands; hips' middle at 0
    visibility: np.ndarray  # (33,) 0..1: seen, neither hidden nor outside the picture
    presence: np.ndarray  # (33,) 0..1: inside the picture
    score: float  # 0..1: there is a person
    mask: np.ndarray  # (256, 256) float32, 0..1: coverage by the person of the region
    region: np.ndarray  # (4,) what was looked at
    next_region: np.ndarray  # (4,) what to look at in the next frame

    @property
    def coco_px(self) -> np.ndarray:
        """(17, 2) of `COCO_BODY_17`."""
        return self.points_px[_COCO_ROWS]

    @property
    def coco_visibility(self) -> np.ndarray:
        return self.visibility[_COCO_ROWS]


class BlazePose:
    """`BlazePose()(image, region)`: one person's landmarks. Safe to call from several threads."""

    def __init__(self, threads: int = 1) -> None:
        self._network = TFLiteNetwork("pose_landmark_full.tflite", threads=threads)

    def __call__(self, image: np.ndarray, region: np.ndarray, threads: int | None = None) -> PoseLook:
        """image H×W×3 uint8 RGB; region (4,), see `wholebody.model.embedded.regions`. threads: of this look; default:
        as made."""
        region = np.asarray(region, np.float64)
        outputs = self._network(cut(image, region, SIDE)[None] / 255, threads)
        rows = outputs["Identity"].reshape(39, 5).astype(np.float64)
        places = refine(rows[:, :2], outputs["Identity_3"][0])
        found = to_picture(places, region, SIDE)
        metres = outputs["Identity_4"].reshape(39, 3)[:33].astype(np.float64)
        metres[:, :2] = metres[:, :2] @ turning(region[3]).T
        visibility, presence = _sigmoid(rows[:33, 3:].T)
        return PoseLook(
            points_px=found[:33],
            depth_px=rows[:33, 2] * region[2] / SIDE,
            points_m=metres,
            visibility=visibility,
            presence=presence,
            score=float(outputs["Identity_1"].ravel()[0]),
            mask=_sigmoid(outputs["Identity_2"][0, ..., 0]),
            region=region,
            next_region=region_between(found[33], found[34], 1.25),
        )


def refine(places: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Landmarks (39, 2) in pixels of the region, moved to the middle of their heat (64, 64, 39 logits) near by.

    Near by is 7×7 cells; where no cell of it reaches a half, the landmark stays.
    """
    places = places.copy()
    cells = np.floor(places * _HEAT / SIDE).astype(int)
    for row, (x, y) in enumerate(cells):
        if not (0 <= x < _HEAT and 0 <= y < _HEAT):
            continue
        left, top = max(0, x - _KERNEL), max(0, y - _KERNEL)
        part = _sigmoid(heat[top : y + _KERNEL + 1, left : x + _KERNEL + 1, row])
        if part.max() < _SURE:
            continue
        rows, columns = np.indices(part.shape)
        middle = np.array([(part * (columns + left)).sum(), (part * (rows + top)).sum()]) / part.sum()
        places[row] = middle * SIDE / _HEAT
    return places


def region_of_body(keypoints_px: np.ndarray, scores: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
    """The region (4,) for a person of known `COCO_BODY_17` key points (17, 2) with scores (17,), and box (4,)."""
    sure = scores >= 0.2
    shoulders, hips = keypoints_px[5:7], keypoints_px[11:13]
    corners = box_xyxy.reshape(2, 2)
    size = corners[1] - corners[0]
    if sure[11:13].any():
        middle = hips[sure[11:13]].mean(0)
    elif sure[5:7].all():  # a portrait: the hips are below, as far as shoulders are usually above them
        across = shoulders[1] - shoulders[0]
        down = np.array([-across[1], across[0]])
        down = down if (down @ (shoulders.mean(0) - keypoints_px[:5][sure[:5]].mean(0) if sure[:5].any() else [0, 1])
                        ) >= 0 else -down  # fmt: skip
        middle = shoulders.mean(0) + 1.3 * down
    else:
        middle = corners.mean(0)
    above = shoulders[sure[5:7]].mean(0) if sure[5:7].any() else middle - [0, size[1] / 4]
    up = above - middle
    length = float(np.linalg.norm(up))
    up = up / length if length > 0.02 * size.max() else np.array([0.0, -1.0])
    seen = keypoints_px[sure]
    reach = np.linalg.norm(seen - middle, axis=1).max() if len(seen) else size.max() / 2
    return region_between(middle, middle + up * max(reach, 0.35 * size.max()), _REACH)


_REACH = 1.4  # from the farthest key point to what the network was trained with: measured on synthetic people


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))
