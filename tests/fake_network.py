"""A network that knows the answer: an upright open body at one place in every crop. For tests of what is around it."""

from __future__ import annotations

import copy
import math
from functools import cache
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from wholebody.body.joints import FROM_144
from wholebody.body.layer import BodyModel
from wholebody.model.config import OSXConfig


@cache
def open_body() -> BodyModel:
    return BodyModel.load().eval()


class FakeNetwork(nn.Module):
    """Looks like `OSX` from outside. The head leans by the crop's mean brightness, so that people can be told apart."""

    def __init__(self, crop_filter: str = "published") -> None:
        super().__init__()
        self.config = OSXConfig("fake", crop_filter=crop_filter)
        self.body = copy.deepcopy(open_body())  # `.double()` must not reach other tests
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> SimpleNamespace:
        assert images.shape[1:] == (3, 512, 384) and 0 <= images.min() and images.max() <= 1
        self.seen.append(images)
        count = len(images)
        pose = {
            "global_orient": torch.tensor([math.pi, 0.0, 0.0]).expand(count, 3),  # y up -> y down
            "body_pose": torch.zeros(count, 21, 3),
            "left_hand_pose": torch.zeros(count, 15, 3),
            "right_hand_pose": torch.zeros(count, 15, 3),
            "jaw_pose": torch.zeros(count, 3),
            "betas": torch.zeros(count, 10),
            "expression": torch.zeros(count, 10),
        }
        pose["body_pose"][:, 14, 0] = images.mean((1, 2, 3))
        out = self.body(**pose)
        shift = torch.tensor([0.1, -0.2, 45.0]).expand(count, 3)
        joints = out.joints + shift[:, None]
        seen = joints[:, list(FROM_144)]
        # The published projection: virtual camera of the 192×256 crop, then 12×16 cells.
        pixels = seen[..., :2] / (seen[..., 2:] + 1e-4) * 5000 + torch.tensor([96.0, 128.0])
        box = torch.tensor([96.0, 128.0, 192.0, 256.0]).expand(count, 4)
        return SimpleNamespace(
            **pose,
            cam_trans=shift,
            vertices_cam=out.vertices + shift[:, None],
            joints_cam=joints[:, :55],
            joints_proj_cells=pixels / 16,
            left_hand_box=box,
            right_hand_box=box,
            face_box=box,
            found_keypoints=None,
        )
