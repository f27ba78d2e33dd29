"""What flows on from the networks: everybody in one picture or film, over time, before one camera.

Frames, in metres. *Camera*: x right, y down, z forward, origin at the camera. *World*: x right, y up, z towards the
camera; the floor is y = 0 and the first person's first place on it is the origin. `Scene.camera_from_world` joins them.
Rotations are axis-angle, radians, relative to the parent joint; hand poses are relative to the body's mean hand unless
the body has `flat_hand_mean` (the open body has).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np


@dataclass(frozen=True)
class Motion:
    """One person from their first to their last frame, T frames without holes; one shape.

    `global_orient` and `transl` place the body before the camera of its frame: a vertex of the posed body plus
    `transl` is in the camera frame (`transl` is that of the stock body layer: added after posing).
    """

    track_id: int
    frames: np.ndarray  # (T,) int, numbers in the film: a run of `Scene.frames` without holes
    times: np.ndarray  # (T,) seconds from the film's first frame; uneven where the film's frame rate varies
    global_orient: np.ndarray  # (T, 3) in the camera frame
    body_pose: np.ndarray  # (T, 21, 3)
    left_hand_pose: np.ndarray  # (T, 15, 3)
    right_hand_pose: np.ndarray  # (T, 15, 3)
    jaw_pose: np.ndarray  # (T, 3)
    expression: np.ndarray  # (T, 10)
    betas: np.ndarray  # (10,)
    transl: np.ndarray  # (T, 3) metres, camera frame
    box_xyxy: np.ndarray  # (T, 4) pixels of the frame
    confidence: np.ndarray  # (T,) 0..1
    filled: np.ndarray  # (T,) bool: nothing was seen in this frame, the pose lies between its neighbours'
    gender: str = "neutral"
    contacts: np.ndarray | None = None  # (T, 2) bool: the left, the right foot stands on the floor; None: unknown

    def take(self, rows: slice) -> Motion:
        """The same person in these of the T frames."""
        whole = ("track_id", "betas", "gender")
        over_time = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in whole}
        return replace(self, **{name: value[rows] for name, value in over_time.items() if value is not None})


@dataclass(frozen=True)
class Camera:
    """One pinhole for the whole picture. The frame numbers are those of `Scene.frames`."""

    focal_px: float
    principal_px: np.ndarray  # (2,)
    image_wh: tuple[int, int]
    source: str  # "--focal", "--fov", "EXIF" or "default": where the focal length comes from
    state: str = "still"  # "still", "turning" (its turning is known, its travel is not) or "moving"


@dataclass(frozen=True)
class Scene:
    """Everybody in a film, or in a photo (one frame), before one camera."""

    people: tuple[Motion, ...]
    camera: Camera
    fps: float  # frames a second of `frames`, on average; 0 for a photo
    frames: np.ndarray  # (F,) int, the numbers of the frames that were looked at, ascending
    times: np.ndarray  # (F,) seconds
    camera_from_world: np.ndarray  # (F, 4, 4); the same matrix throughout where the camera stands
    floor: str  # how the floor was found: "feet", or "upright camera" (a guess: the camera is level)
    notes: tuple[str, ...] = ()  # sentences for the user: what was guessed, what broke
    checks: Mapping[str, float] = field(default_factory=dict)  # what was measured on the way, by name
