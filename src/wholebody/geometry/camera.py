"""Pinhole cameras: project, move with a crop, and lift a crop's virtual camera to the whole picture.

Camera frame: x right, y down, z forward, metres. A camera without distortion is a focal length and a principal point,
in pixels for x and y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wholebody.errors import BadInput

if TYPE_CHECKING:
    from jaxtyping import Float, Float64
    from torch import Tensor

Array = NDArray[np.float64]

@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: `focal_px` (2,) and `principal_px` (2,), x and y, in pixels."""

    focal_px: Array
    principal_px: Array

    def __post_init__(self) -> None:
        for name in ("focal_px", "principal_px"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != (2,) or not np.isfinite(value).all():
                raise BadInput(f"a camera's {name} must be two finite numbers, got {getattr(self, name)!r}")
            object.__setattr__(self, name, value)

    def project(self, points_cam: ArrayLike) -> Float64[np.ndarray, "*b 2"]:
        """Pixels (..., 2) of points (..., 3)."""
        return project(np.asarray(points_cam, np.float64), self.focal_px, self.principal_px)


def project(points_cam: Any, focal_px: Any, principal_px: Any) -> Any:
    """Pixels (..., 2) of points (..., 3), camera frame; focal and principal (..., 2) broadcast. Numpy or torch."""
    return points_cam[..., :2] / points_cam[..., 2:] * focal_px + principal_px


@dataclass(frozen=True)
class VirtualCamera:
    """The camera that networks place a body before: a pinhole with a long lens that looks at the crop's middle.

    The defaults are the published ones.
    """

    focal: float = 5000.0  # pixels of a crop of `hw`
    hw: tuple[int, int] = (256, 192)  # height, width
    size: float = 2.5  # metres that the crop's side shows at the farthest

    @property
    def farthest(self) -> float:
        """Metres to the farthest place that a body can be at."""
        return self.focal * self.size / math.sqrt(self.hw[0] * self.hw[1])

    def translation(self, camera: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
        """What a network says of the camera (B×3) to the body's translation in metres (B×3)."""
        import torch

        return torch.cat((camera[:, :2], self.farthest * camera[:, 2:].sigmoid()), 1)

    def said(self, translation: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
        """Inverse of `translation`, of what lies between the camera and the farthest place."""
        import torch

        share = (translation[:, 2:] / self.farthest).clamp(1e-4, 1 - 1e-4)
        return torch.cat((translation[:, :2], share.logit()), 1)

    def project(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """Points ...×3 in the camera frame, metres, to ...×2 as fractions of the crop (x, y)."""
        focal = points.new_tensor((self.focal / self.hw[1], self.focal / self.hw[0]))
        return points[..., :2] / (points[..., 2:] + 1e-4) * focal + 0.5

    def in_picture(self, box_xywh: ArrayLike) -> Camera:
        """The whole picture's camera under which a body predicted in the crop of this box (4,) lies where it was seen.

        The box is the fitted, enlarged one (x, y, width, height in pixels), not the detector's.
        """
        x, y, width, height = np.asarray(box_xywh, np.float64)
        wh = np.array(self.hw[::-1])
        scale = np.array([width, height]) / wh
        return Camera(self.focal * scale, np.array([x, y]) + wh / 2 * scale)


def turn_of_affine(crop_from_image: ArrayLike) -> Float64[np.ndarray, "3 3"]:
    """How a crop turns the camera frame (3, 3): a rotation about the viewing axis, times diag(-1, 1, 1) in a mirror.

    Apply it to points and directions in the camera frame; `warp_camera` gives the camera that then sees them.
    """
    linear = np.asarray(crop_from_image, np.float64)[:, :2]
    turn = np.eye(3)
    # The nearest orthogonal matrix; for the crops of this package it is what remains when the scale is taken out.
    u, _, vt = np.linalg.svd(linear)
    turn[:2, :2] = u @ vt
    return turn


def warp_camera(camera: Camera, crop_from_image: ArrayLike) -> tuple[Camera, Float64[np.ndarray, "3 3"]]:
    """The camera after a picture is cropped, and the turn (3, 3) that points in the camera frame take with it.

    Projecting and then cropping equals turning and then projecting by the new camera:
    `apply_affine(camera.project(p), crop) == new.project(p @ turn.T)`. A crop that rotates needs square pixels before
    and after (equal focal lengths, equal scales); otherwise BadInput is raised, for no pinhole camera does it.
    """
    affine = np.asarray(crop_from_image, np.float64)
    linear, turn = affine[:, :2], turn_of_affine(affine)
    # linear @ diag(focal) must be diag(new focal) @ turn.
    moved = linear @ np.diag(camera.focal_px)
    focal = (moved @ turn[:2, :2].T).diagonal()
    if np.abs(np.diag(focal) @ turn[:2, :2] - moved).max() > 1e-6 * np.abs(moved).max():
        raise BadInput(
            f"a crop that rotates {linear.tolist()} needs square pixels, but the focal lengths are "
            f"{camera.focal_px.tolist()}: resample the picture first"
        )
    return Camera(focal, linear @ camera.principal_px + affine[:, 2]), turn
