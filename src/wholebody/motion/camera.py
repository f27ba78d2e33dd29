"""One camera for everybody: its focal length, how it turns, and where people stand before it.

Camera frame: x right, y down, z forward, metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wholebody.errors import BadInput

BODY = list(range(22))  # the joints whose places in the picture count
_TURN_SIGMA = np.radians(4.0)  # how far the perspective turn of a body may be from that of its middle
_PIXEL_SIGMA = 0.01  # of the box's height


def choose_focal(
    image_wh: tuple[int, int],
    focal: float | None = None,
    fov: float | None = None,
    exif_35mm: float | None = None,
) -> tuple[float, str]:
    """(pixels, where it comes from): `--focal` in pixels, `--fov` in degrees across the picture's longer side, EXIF's
    35 mm equivalent in millimetres, or else the picture's diagonal: a field of view of 53 degrees from corner to
    corner, between a telephone's wide lens (79) and a portrait lens (29)."""
    diagonal = float(np.hypot(*image_wh))
    if focal is not None:
        if not (np.isfinite(focal) and 0 < focal < 1e6):
            raise BadInput(f"--focal is {focal}; it must be the focal length in pixels, over 0.")
        return float(focal), "--focal"
    if fov is not None:
        if not (np.isfinite(fov) and 1 <= fov < 179):
            raise BadInput(f"--fov is {fov}; it must be the angle across the longer side, 1 to 179 degrees.")
        return max(image_wh) / 2 / float(np.tan(np.radians(fov) / 2)), "--fov"
    if exif_35mm is not None and 5 <= exif_35mm <= 2000:
        return exif_35mm / float(np.hypot(36, 24)) * diagonal, "EXIF"  # equal angles across the diagonal
    return diagonal, "default"


@dataclass(frozen=True)
class Places:
    """How T sights of one person stand before the one camera."""

    turns: np.ndarray  # (T, 3, 3) to be applied before `global_orient`, about the pelvis
    transl: np.ndarray  # (T, 3)
    shift: np.ndarray  # (T,) median over joints of how far they moved in the picture, as a share of the box's height


def place(
    joints: np.ndarray,
    pelvis: np.ndarray,
    targets_px: np.ndarray,
    box_height: np.ndarray,
    focal_px: float,
    principal_px: np.ndarray,
    turn: bool = True,
    rounds: int = 8,
) -> Places:
    """Translation, and the turn of the root that perspective makes, such that joints lie where they were seen.

    A network looks at its crop as if straight ahead and from afar. For a person beside the picture's middle that
    is a body turned by the angle of the ray to it; from nearby, nearer parts look larger. Least squares over the
    joints' distances in the picture (Gauss and Newton), the turn held near that of the ray.

    Args:
        joints: (T, J, 3) of the posed body, its root as predicted, without translation.
        pelvis: (3,) or (T, 3), the point that the root turns about.
        targets_px: (T, J, 2) where they were seen.
        box_height: (T,) pixels, the unit of errors.
        turn: False keeps the root as it is and solves for the translation alone.
    """
    count = len(joints)
    pelvis = np.broadcast_to(pelvis, (count, 3))
    arms = joints - pelvis[:, None]
    middle = targets_px.mean(1)
    rays = np.concatenate([(middle - principal_px) / focal_px, np.ones((count, 1))], 1)
    turns = _turn_to(rays) if turn else np.broadcast_to(np.eye(3), (count, 3, 3)).copy()
    first_turns = turns.copy()
    # Distance from the size: spread of joints across the ray against spread in the picture.
    turned = arms @ turns.transpose(0, 2, 1)
    across = turned[..., :2] - turned[..., :2].mean(1, keepdims=True)
    seen = targets_px - middle[:, None]
    size = (across * seen).sum((1, 2)) / np.maximum((across**2).sum((1, 2)), 1e-9)  # pixels a metre
    least = 0.05 * np.linalg.norm(seen, axis=2).mean(1) / np.maximum(np.linalg.norm(across, axis=2).mean(1), 1e-6)
    depth = focal_px / np.maximum(size, np.maximum(least, 1e-6))
    where = rays * depth[:, None] - turned.mean(1)  # of the pelvis
    unit = np.maximum(box_height, 1.0)[:, None] * _PIXEL_SIGMA
    for _ in range(rounds):
        turned = arms @ turns.transpose(0, 2, 1)
        points = turned + where[:, None]
        z = np.maximum(points[..., 2], 0.1)
        off = (points[..., :2] / z[..., None] * focal_px + principal_px - targets_px) / unit[..., None]
        d = np.zeros((count, arms.shape[1], 2, 3))
        d[..., 0, 0] = d[..., 1, 1] = focal_px / z / unit
        d[..., 0, 2] = -focal_px * points[..., 0] / z**2 / unit
        d[..., 1, 2] = -focal_px * points[..., 1] / z**2 / unit
        jacobian = d
        if turn:
            jacobian = np.concatenate([d, -d @ _cross_matrix(turned)], -1)
        jacobian = jacobian.reshape(count, -1, jacobian.shape[-1])
        # Joints that cannot lie where they were seen (a network's error in depth, from nearby) count less.
        trust = 1 / (1 + (off**2).sum(-1) / 9)
        weighted = jacobian * np.repeat(trust, 2, 1)[..., None]
        normal = jacobian.transpose(0, 2, 1) @ weighted
        slope = (weighted.transpose(0, 2, 1) @ off.reshape(count, -1, 1))[..., 0]
        normal[:, range(3), range(3)] += 1e-6 * normal[:, range(3), range(3)].mean(1, keepdims=True) + 1e-12
        if turn:
            lean = _rotvec(turns @ first_turns.transpose(0, 2, 1))
            normal[:, 3:, 3:] += np.eye(3) / _TURN_SIGMA**2 * 1.0
            slope[:, 3:] += lean / _TURN_SIGMA**2
        step = -np.linalg.solve(normal, slope[..., None])[..., 0]
        # Nobody jumps through the camera in one step.
        longest = 0.5 * np.maximum(where[:, 2], 0.2)
        length = np.linalg.norm(step[:, :3], axis=1)
        step *= np.minimum(1, longest / np.maximum(length, 1e-9))[:, None]
        where = where + step[:, :3]
        where[:, 2] = np.maximum(where[:, 2], 0.15)
        if turn:
            turns = _matrix(step[:, 3:]) @ turns
    points = arms @ turns.transpose(0, 2, 1) + where[:, None]
    px = points[..., :2] / np.maximum(points[..., 2:], 0.05) * focal_px + principal_px
    shift = np.median(np.linalg.norm(px - targets_px, axis=2), axis=1) / np.maximum(box_height, 1.0)
    return Places(turns, where - pelvis, shift)


def _turn_to(rays: np.ndarray) -> np.ndarray:
    """(T, 3, 3) the shortest turns of the viewing axis (0, 0, 1) to rays (T, 3)."""
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    axis = np.stack([-unit[:, 1], unit[:, 0], np.zeros(len(unit))], 1)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    return _matrix(axis / np.maximum(sine, 1e-12) * np.arctan2(sine, unit[:, 2:]))


def _cross_matrix(v: np.ndarray) -> np.ndarray:
    zero = np.zeros(v.shape[:-1])
    x, y, z = np.moveaxis(v, -1, 0)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)


def _matrix(rotvec: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(rotvec).as_matrix()


def _rotvec(matrix: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix).as_rotvec()


# Does the camera stand?

_WIDTH = 480  # pixels at which the background is followed
_MOVED = 0.006  # of the picture's width: what the background moves by before the camera counts as moving
_PARALLAX = 0.004  # of the picture's width: what a mere turn leaves unexplained before the camera counts as travelling


@dataclass(frozen=True)
class CameraPath:
    """How the camera turned in F frames, by the background."""

    turns: np.ndarray  # (F, 3, 3) camera of the frame from camera of the shot's first frame
    known: np.ndarray  # (F,) bool: enough background was followed
    moved: np.ndarray  # (F,) how far the background has moved since the shot began, as a share of the width
    unexplained: np.ndarray  # (F,) what of it a turn does not explain, likewise

    def state(self) -> str:
        """`still`, `turning` (a turn explains it) or `moving` (it travels too)."""
        if self.known.mean() < 0.3 or np.percentile(self.moved[self.known], 95) < _MOVED:
            return "still"
        left = np.percentile(self.unexplained[self.known], 80)
        return "turning" if left < _PARALLAX else "moving"


class CameraWatcher:
    """Follows corners of the background from one frame of reference; `__call__` once a frame, in order."""

    def __init__(self, focal_px: float, principal_px: np.ndarray, image_wh: tuple[int, int]) -> None:
        self._scale = min(1.0, _WIDTH / image_wh[0])
        self._focal, self._principal = focal_px * self._scale, np.asarray(principal_px) * self._scale
        self.cut()

    def cut(self) -> None:
        """A new shot begins with the next frame."""
        self._anchor: np.ndarray | None = None  # the grey frame of reference
        self._turn = np.eye(3)  # camera now from the shot's first
        self._anchor_turn = np.eye(3)
        self._points: np.ndarray = np.zeros((0, 2), np.float32)
        self._now: np.ndarray = self._points

    @property
    def turn(self) -> np.ndarray:
        """(3, 3) the camera now from that of the shot's first frame."""
        return self._turn

    def go_on(self, image: np.ndarray, boxes_xyxy: np.ndarray, turn: np.ndarray) -> None:
        """Take up a shot at a frame whose turn is known."""
        self._turn = turn
        self._begin(self._grey(image), boxes_xyxy * self._scale)

    def _grey(self, image: np.ndarray) -> np.ndarray:
        import cv2

        size = (max(8, round(image.shape[1] * self._scale)), max(8, round(image.shape[0] * self._scale)))
        return cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)

    def __call__(self, image: np.ndarray, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, bool, float, float]:
        """(turn (3, 3), known, moved, unexplained) as in `CameraPath`; people's boxes (N, 4) are not background."""
        grey = self._grey(image)
        size = grey.shape[::-1]
        people = boxes_xyxy * self._scale
        if self._anchor is None:
            self._begin(grey, people)
            return self._turn, len(self._points) >= 12, 0.0, 0.0
        found = self._follow(grey, people)
        if found is None:
            # The background is lost: as if the camera stood since, until new corners are found.
            self._begin(grey, people)
            return self._turn, False, self._moved(), 0.0
        before, after = found
        rays = [np.concatenate([(p - self._principal) / self._focal, np.ones((len(p), 1))], 1) for p in (before, after)]
        rays = [ray / np.linalg.norm(ray, axis=1, keepdims=True) for ray in rays]
        u, _, vt = np.linalg.svd(rays[1].T @ rays[0])  # Kabsch: rays now from rays of the reference
        turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
        self._turn = turn @ self._anchor_turn
        left = rays[0] @ turn.T
        left = left[:, :2] / left[:, 2:] * self._focal + self._principal
        unexplained = float(np.median(np.linalg.norm(left - after, axis=1))) / size[0]
        shift = float(np.median(np.linalg.norm(after - before, axis=1))) / size[0]
        if shift > 0.12 or len(before) < 0.4 * len(self._points):
            self._begin(grey, people)
        return self._turn, True, max(shift, self._moved()), unexplained

    def _begin(self, grey: np.ndarray, people: np.ndarray) -> None:
        import cv2

        mask = np.full(grey.shape, 255, np.uint8)
        for x0, y0, x1, y1 in people:
            grow = 0.1 * max(x1 - x0, y1 - y0)
            low = np.maximum([x0 - grow, y0 - grow], 0).astype(int)
            mask[low[1] : max(0, int(y1 + grow)), low[0] : max(0, int(x1 + grow))] = 0
        corners = cv2.goodFeaturesToTrack(grey, 200, 0.01, 8, mask=mask)
        self._points = np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
        self._now, self._anchor, self._anchor_turn = self._points.copy(), grey, self._turn

    def _follow(self, grey: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """The places of background corners in the frame of reference and now, or None if there are too few."""
        import cv2

        if len(self._points) < 12 or self._anchor is None:
            return None
        options: dict[str, Any] = {"winSize": (21, 21), "maxLevel": 3, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
        now, ok, _ = cv2.calcOpticalFlowPyrLK(self._anchor, grey, self._points, self._now.copy(), **options)
        back, ok_back, _ = cv2.calcOpticalFlowPyrLK(grey, self._anchor, now, self._points.copy(), **options)
        good = (ok[:, 0] > 0) & (ok_back[:, 0] > 0) & (np.linalg.norm(back - self._points, axis=1) < 1.0)
        for x0, y0, x1, y1 in people:
            good &= ~((now[:, 0] > x0) & (now[:, 0] < x1) & (now[:, 1] > y0) & (now[:, 1] < y1))
        if good.sum() < 12:
            return None
        homography, inside = cv2.findHomography(self._points[good], now[good], cv2.RANSAC, 2.0)
        if homography is None or inside.sum() < max(12, 0.35 * good.sum()):
            return None
        # Corners behind people are where the rest says that they should be.
        moved = cv2.perspectiveTransform(self._points[None].astype(np.float64), homography)[0].astype(np.float32)
        self._now = np.where(good[:, None], now, moved)
        rows = np.flatnonzero(good)[inside[:, 0] > 0]
        return self._points[rows].astype(np.float64), now[rows].astype(np.float64)

    def _moved(self) -> float:
        """By how much of the width the picture's middle has moved since the shot began, by the turns so far."""
        ahead = self._turn.T[:, 2]
        return float(np.linalg.norm(ahead[:2] / max(ahead[2], 0.1)) * self._focal / max(1.0, _WIDTH))
