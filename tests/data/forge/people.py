"""Made-up people with known truth, from which every set is forged.

`make_people(body)` poses a body; a person's `view(...)` is a camera that sees it, with the pixels that follow. Truth is
plain arrays; hand poses are relative to the body file's relaxed hand, as NeuralAnnot's and the published networks'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from wholebody.body.joints import FROM_144, JOINTS_144, PARENTS
from wholebody.body.layer import BodyModel

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
LEFT_HAND_144, RIGHT_HAND_144 = (
    [i for i, name in enumerate(JOINTS_144) if name.startswith(tuple(f"{side}_{finger}" for finger in _FINGERS))]
    for side in ("left", "right")
)
FACE_144 = list(range(76, 144))


@dataclass(frozen=True, eq=False)
class View:
    """A person in a picture. Pixels, first pixel's centre at 0; boxes xyxy."""

    person: ForgedPerson
    wh: tuple[int, int]
    focal: np.ndarray  # (2,)
    principal: np.ndarray  # (2,)
    joints_144: np.ndarray  # (144, 2)
    box: np.ndarray  # (4,): the part inside the picture
    left_hand_box: np.ndarray | None  # (4,), or None where the hand is not known
    right_hand_box: np.ndarray | None
    face_box: np.ndarray | None

    @property
    def joints_137(self) -> np.ndarray:
        return self.joints_144[list(FROM_144)]

    def px(self, name: str) -> np.ndarray:
        """(2,) of a name of the 144: `left_hip`, `nose`, ..."""
        return self.joints_144[JOINTS_144.index(name)]

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool"""
        return ((points >= 0) & (points <= np.array(self.wh) - 1)).all(-1)

    def box_xywh(self, part: str = "box") -> list[float]:
        x0, y0, x1, y1 = map(float, getattr(self, part))
        return [x0, y0, x1 - x0, y1 - y0]

    def draw(self, canvas: np.ndarray) -> None:
        """The person's bones and face onto a picture (H, W, 3) uint8, so that a sheet shows whether truth fits."""
        thick = max(1, round(max(self.wh) / 250))
        points = self.joints_144.round().astype(int)
        for child, parent in enumerate(PARENTS):
            if parent >= 0:
                colour = (70, 160, 240) if child in LEFT_HAND_144 else (240, 160, 70) if child in RIGHT_HAND_144 else (
                    40 + 9 * child % 160, 200, 90)  # fmt: skip
                cv2.line(canvas, tuple(map(int, points[parent])), tuple(map(int, points[child])), colour, thick)
        for point in points[FACE_144]:
            cv2.circle(canvas, tuple(map(int, point)), thick, (230, 60, 200), -1)


@dataclass(frozen=True, eq=False)
class ForgedPerson:
    """One person's truth: metres, radians, camera frame (x right, y down, z forward) unless named `world`."""

    number: int
    gender: str
    root_pose: np.ndarray  # (3,)
    body_pose: np.ndarray  # (21, 3)
    left_hand_pose: np.ndarray  # (15, 3)
    right_hand_pose: np.ndarray  # (15, 3)
    jaw_pose: np.ndarray  # (3,)
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (10,)
    transl: np.ndarray  # (3,)
    vertices_cam: np.ndarray  # (V, 3)
    joints_144_cam: np.ndarray  # (144, 3)
    world_R: np.ndarray  # (3, 3): cam = R @ world + t
    world_t: np.ndarray  # (3,)
    root_pose_world: np.ndarray  # (3,)
    transl_world: np.ndarray  # (3,)
    left_hand_known: bool = True
    right_hand_known: bool = True
    face_known: bool = True
    fitted: bool = True
    """The set has body parameters of this person."""

    @property
    def joints_137_cam(self) -> np.ndarray:
        return self.joints_144_cam[list(FROM_144)]

    @property
    def joints_144_world(self) -> np.ndarray:
        return (self.joints_144_cam - self.world_t) @ self.world_R

    def cam(self, name: str) -> np.ndarray:
        """(3,) of a name of the 144."""
        return self.joints_144_cam[JOINTS_144.index(name)]

    def view(self, wh: tuple[int, int], place: tuple[float, float] = (0.5, 0.5), fill: float = 0.8) -> View:
        """A camera with a picture of wh pixels in which about 2 m around the pelvis take `fill` of the shorter side
        and the pelvis is seen near `place` (fractions of width and height)."""
        pelvis = self.joints_144_cam[0]
        focal = fill * min(wh) * pelvis[2] / 2.0 * np.array([1.0, 1.002])
        principal = np.array(place) * wh - pelvis[:2] / pelvis[2] * focal
        points = self.joints_144_cam[:, :2] / self.joints_144_cam[:, 2:] * focal + principal
        return self.seen(wh, focal, principal, points)

    def seen(self, wh: tuple[int, int], focal: np.ndarray, principal: np.ndarray, points: np.ndarray) -> View:
        low, high = points.min(0), points.max(0)
        margin = 0.05 * (high - low)
        limit = np.array(wh) - 1.0
        box = np.concatenate([(low - margin).clip(0, limit), (high + margin).clip(0, limit)])
        return View(
            self, wh, focal, principal, points, box,
            _around(points[[20, *LEFT_HAND_144]]) if self.left_hand_known else None,
            _around(points[[21, *RIGHT_HAND_144]]) if self.right_hand_known else None,
            _around(points[FACE_144]) if self.face_known else None,
        )  # fmt: skip

    def smplx_param(self, world: bool = False, hands_and_face: bool = True) -> dict:
        """As NeuralAnnot writes them: flat lists; parts that are not known are left out."""
        param = {
            "root_pose": (self.root_pose_world if world else self.root_pose).tolist(),
            "body_pose": self.body_pose.ravel().tolist(),
            "shape": self.betas.tolist(),
            "trans": (self.transl_world if world else self.transl).tolist(),
        }
        if hands_and_face:
            param |= {
                "lhand_pose": self.left_hand_pose.ravel().tolist(),
                "rhand_pose": self.right_hand_pose.ravel().tolist(),
                "jaw_pose": self.jaw_pose.tolist(),
                "expr": self.expression.tolist(),
            }
        return param


def _around(points: np.ndarray) -> np.ndarray:
    """xyxy about points, a tenth of the size added on each side"""
    low, high = points.min(0), points.max(0)
    margin = 0.1 * (high - low)
    return np.concatenate([low - margin, high + margin])


DIRT: tuple[dict[str, bool], ...] = (
    {},
    {"left_hand_known": False},
    {"fitted": False},
    {"right_hand_known": False, "face_known": False},
    {},
    {"face_known": False},
)
"""What is not known of person 0, 1, 2, ...; then from the start again."""


def make_people(body: BodyModel, count: int = 6, seed: int = 0) -> list[ForgedPerson]:
    """People posed with `body`, whose `flat_hand_mean` must be False. The first is wholly known; see `DIRT`."""
    assert not body.flat_hand_mean
    rng = np.random.default_rng(seed)
    return [_person(body, number, rng) for number in range(count)]


def _person(body: BodyModel, number: int, rng: np.random.Generator) -> ForgedPerson:
    facing = rotation([0, rng.uniform(-0.7, 0.7), 0]) @ rotation([np.pi, 0, 0]) @ rotation(rng.normal(0, 0.08, 3))
    root = rotvec(facing)
    # Single precision from the start: what is written to files is then what was posed.
    pose = rng.normal(0, 0.2, (21, 3)).astype(np.float32)
    pose[[15, 16], 2] += np.array([-0.8, 0.8], np.float32)  # arms half down
    left, right = rng.normal(0, 0.15, (2, 15, 3)).astype(np.float32)
    jaw = np.array([abs(rng.normal(0.1, 0.1)), 0, 0], np.float32)
    betas, expression = rng.normal(0, 0.8, (2, 10)).astype(np.float32)
    transl = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.2, 0.2), rng.uniform(3, 5)], np.float32)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, np.float32)).reshape(1, -1)

    with torch.no_grad():
        output = body(
            betas=tensor(betas), expression=tensor(expression), global_orient=tensor(root), body_pose=tensor(pose),
            left_hand_pose=tensor(left), right_hand_pose=tensor(right), jaw_pose=tensor(jaw), transl=tensor(transl),
        )  # fmt: skip
        rest_pelvis = body.rest_pelvis(tensor(betas), tensor(expression))[0].double().numpy()
    joints = output.joints[0].double().numpy()
    world_R, world_t = rotation(rng.normal(0, 1, 3)), rng.uniform(-2, 2, 3)
    return ForgedPerson(
        number=number,
        gender="neutral",
        root_pose=root,
        body_pose=pose.astype(float),
        left_hand_pose=left.astype(float),
        right_hand_pose=right.astype(float),
        jaw_pose=jaw.astype(float),
        betas=betas.astype(float),
        expression=expression.astype(float),
        transl=transl.astype(float),
        vertices_cam=output.vertices[0].double().numpy(),
        joints_144_cam=joints,
        world_R=world_R,
        world_t=world_t,
        root_pose_world=rotvec(world_R.T @ facing),
        transl_world=world_R.T @ (joints[0] - world_t) - rest_pelvis,
        **DIRT[number % len(DIRT)],
    )


def rotation(vector: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3, 3) of an axis-angle vector (3,)"""
    return cv2.Rodrigues(np.asarray(vector, float))[0]


def rotvec(matrix: np.ndarray) -> np.ndarray:
    """(3,) of a rotation matrix (3, 3)"""
    return cv2.Rodrigues(np.asarray(matrix, float))[0].ravel()


def blank(wh: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A picture (H, W, 3) uint8 to draw people on: a soft gradient, so that it compresses to nothing."""
    width, height = wh
    base = np.linspace(90, 60 + 20 * (seed % 4), height)[:, None] + np.linspace(0, 50, width)[None]
    return np.repeat(base.astype(np.uint8)[..., None], 3, 2).copy()
