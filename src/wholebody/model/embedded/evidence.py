"""What landmarkers say of the people of one picture: the form in which it reaches lifting and alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_BODY_17, COCO_WHOLEBODY
from wholebody.model.embedded.blazepose import POSE_33

KEYPOINTS = len(COCO_WHOLEBODY)

HINT_33 = (
    *COCO_BODY_17, "left_foot_index", "right_foot_index", "left_heel", "right_heel", "left_index", "right_index",
    "left_pinky", "right_pinky",
)  # fmt: skip
"""The rows of `Evidence.hint_3d` by BlazePose's names: COCO's 17, toes, heels, knuckles."""
HINT_ROWS = tuple(POSE_33.index(name) for name in HINT_33)


@dataclass(frozen=True)
class Evidence:
    """Of B people of one picture. numpy float32; what is not known has confidence 0, its numbers mean nothing.

    Pixels are the picture's (first pixel's centre at 0). Camera axes: x right, y down, z away from the camera.
    Rotations "from the T-pose" turn the body's own axes (x to its left, y up, z where it faces) into the camera's.
    """

    keypoints_px: np.ndarray  # (B, 133, 3) x, y, confidence 0..1, in COCO-WholeBody's order
    hint_3d: np.ndarray  # (B, 25, 4) x, y, z in metres about the middle of the hips, confidence 0..1; rows: `HINT_33`
    hand_rotations: np.ndarray  # (B, 2, 15, 3, 3) left, right; each joint in its parent's frame, from the flat hand
    hand_confidence: np.ndarray  # (B, 2) 0..1
    wrist_rotations: np.ndarray  # (B, 2, 3, 3) of the palm, from the T-pose
    wrist_confidence: np.ndarray  # (B, 2) 0..1
    expression: np.ndarray  # (B, 10) of the open body
    jaw: np.ndarray  # (B, 3) axis-angle
    eyes: np.ndarray  # (B, 2, 3) axis-angle of the left and the right eyeball; at rest: nobody reads the gaze yet
    head_rotation: np.ndarray  # (B, 3, 3) from the T-pose
    face_confidence: np.ndarray  # (B,) 0..1
    male: np.ndarray  # (B,) what the face looks like, from 0, a woman's, to 1, a man's; not finite where unknown
    pose_regions: np.ndarray  # (B, 4) what to look at in the next frame, see `regions`; not finite where unknown
    hand_regions: np.ndarray  # (B, 2, 4) likewise for left and right hand, their middles relative to the wrists
    masks: list[tuple[np.ndarray, np.ndarray] | None]  # B × (box (4,) int xyxy, (h, w) uint8 coverage inside it)
    sources: tuple[dict[str, str], ...]  # B × part -> where it came from, parts without evidence left out

    def __len__(self) -> int:
        return len(self.keypoints_px)

    @classmethod
    def nothing(cls, count: int) -> Evidence:
        """Of so many people, nothing is known."""
        still = np.eye(3, dtype=np.float32)
        return cls(
            keypoints_px=np.zeros((count, KEYPOINTS, 3), np.float32),
            hint_3d=np.zeros((count, len(HINT_33), 4), np.float32),
            hand_rotations=np.tile(still, (count, 2, 15, 1, 1)),
            hand_confidence=np.zeros((count, 2), np.float32),
            wrist_rotations=np.tile(still, (count, 2, 1, 1)),
            wrist_confidence=np.zeros((count, 2), np.float32),
            expression=np.zeros((count, 10), np.float32),
            jaw=np.zeros((count, 3), np.float32),
            eyes=np.zeros((count, 2, 3), np.float32),
            head_rotation=np.tile(still, (count, 1, 1)),
            face_confidence=np.zeros(count, np.float32),
            male=np.full(count, np.nan, np.float32),
            pose_regions=np.full((count, 4), np.nan, np.float32),
            hand_regions=np.full((count, 2, 4), np.nan, np.float32),
            masks=[None] * count,
            sources=tuple({} for _ in range(count)),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Evidence]) -> Evidence:
        """Of the people of several pictures, one after the other."""
        values: dict[str, Any] = {}
        for entry in fields(cls):
            all_of = [getattr(part, entry.name) for part in parts]
            if isinstance(all_of[0], np.ndarray):
                values[entry.name] = np.concatenate(all_of)
            else:
                values[entry.name] = type(all_of[0])(value for part in all_of for value in part)
        return cls(**values)

    def take(self, rows: list[int]) -> Evidence:
        """Of these people only."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            values[entry.name] = value[rows] if isinstance(value, np.ndarray) else type(value)(value[k] for k in rows)
        return Evidence(**values)
