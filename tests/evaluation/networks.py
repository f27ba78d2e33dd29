"""A network that knows the truth, give or take what a test asks for. It looks like `OSX` from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from wholebody.model.config import OSXConfig

PLACE = torch.tensor([0.0, 0.2, 42.0])  # in the crop of the virtual camera


class TrueNetwork(nn.Module):
    """Answers for known people, told apart by their crops: the first pass comes in order, later ones in any."""

    def __init__(self, body, vertices: Sequence[np.ndarray], spoil: Callable[[Tensor, int], Tensor] | None = None):
        """vertices: each person's mesh (V, 3). spoil: what is made of a mesh (V, 3) of person number k."""
        super().__init__()
        self.config = OSXConfig(name="truth")
        self.body = body
        self.weight = nn.Parameter(torch.zeros(1))
        self.spoil = spoil or (lambda mesh, k: mesh)
        self.vertices = [torch.as_tensor(v).double() for v in vertices]
        self.known: dict[bytes, int] = {}

    def forward(self, images: Tensor) -> SimpleNamespace:
        numbers = []
        for image in images:
            key = image.numpy().tobytes()
            numbers.append(self.known.setdefault(key, len(self.known)))
        meshes = torch.stack([self.place(self.spoil(self.vertices[k], k)) for k in numbers]).float()
        return SimpleNamespace(vertices_cam=meshes)

    def place(self, mesh: Tensor) -> Tensor:
        return mesh - mesh.mean(0) + PLACE


class PixelNetwork(nn.Module):
    """Puts the 137 projected joints where it is told, in fractions of each crop: `answers` (N, 137, 2), in order."""

    def __init__(self, answers: np.ndarray):
        super().__init__()
        self.config = OSXConfig(name="pixels")
        self.body = SimpleNamespace(name="open", flat_hand_mean=False, faces=torch.zeros(0, 3, dtype=torch.long))
        self.weight = nn.Parameter(torch.zeros(1))
        self.answers, self.next = torch.as_tensor(answers), 0

    def forward(self, images: Tensor) -> SimpleNamespace:
        _, rows, columns = self.config.grid
        answer = self.answers[self.next : self.next + len(images)]
        self.next += len(images)
        count = len(answer)
        pose = dict(
            global_orient=(3,), body_pose=(21, 3), left_hand_pose=(15, 3), right_hand_pose=(15, 3), jaw_pose=(3,)
        )
        shapes = pose | dict(betas=(10,), expression=(10,), cam_trans=(3,), joints_cam=(55, 3), vertices_cam=(1, 3))
        return SimpleNamespace(
            joints_proj_cells=answer * torch.tensor([columns, rows]),
            **{name: torch.zeros(count, *shape) for name, shape in shapes.items()},
            **dict.fromkeys(("left_hand_box", "right_hand_box", "face_box", "found_keypoints")),
        )


def all_137(body_joints: np.ndarray) -> np.ndarray:
    """(137, 2) with every joint at the mean of some points: for parts that a test does not look at."""
    return np.broadcast_to(np.nanmean(body_joints, 0), (137, 2)).copy()


__all__ = ["PixelNetwork", "TrueNetwork", "all_137"]
