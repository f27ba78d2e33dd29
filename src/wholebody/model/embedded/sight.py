"""The body of size `t`: MoveNet Thunder's key points as they are, lifted to a body, placed where they were seen.

Thunder learnt from photos of real people and never learns here; the lifter learnt from poses alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wholebody.body.layer import at_least_single
from wholebody.geometry.camera import VirtualCamera
from wholebody.geometry.rotation import matrix_to_rotation_6d
from wholebody.model.embedded.hybrid import HybridEncoder, HybridEncoderConfig
from wholebody.model.embedded.pose_lifting import (
    JOINTS,
    POINTS,
    Lifted,
    PoseLifter,
    PoseLifterConfig,
    as_pointed_at,
    place,
)
from wholebody.model.embedded.skeleton import BODY_25
from wholebody.model.embedded.thunder import Thunder
from wholebody.model.encoder import EncoderOutput
from wholebody.model.heads import Estimate

_FOUND = 17  # of `POINTS`, those that Thunder finds come first
LEAST_SCORE = 0.05
"""Key points below it are taken as unknown."""


class SightedEncoder(HybridEncoder):
    """A hybrid encoder, and Thunder beside it. Thunder's weights, which never learn, come from `load_thunder_trunk`."""

    def __init__(self, config: HybridEncoderConfig) -> None:
        super().__init__(config)
        self.thunder = Thunder()

    def forward(self, images: Tensor) -> EncoderOutput:
        whole = next(self.thunder.parameters()).dtype
        return super().forward(images)._replace(keypoints=self.thunder(images.to(whole)))

    def glance(self, images: Tensor) -> EncoderOutput:
        """Key points alone, which is all that a body is lifted from; the rest is empty."""
        nothing = images.new_zeros(images.shape[0], 0)
        return EncoderOutput(nothing, nothing, keypoints=self.thunder(images.to(next(self.thunder.parameters()).dtype)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SightedEncoder:
        """Thunder stays in single precision at least: in bfloat16 its key points jump to other places."""
        thunder = self._modules.pop("thunder")
        super()._apply(fn, recurse)
        self._modules["thunder"] = thunder
        self.thunder._apply(at_least_single(fn))
        return self


class Seen(NamedTuple):
    """What sight says of B people."""

    estimate: Estimate
    lifted: Lifted
    cells: Tensor  # B×25×3: the body's part of the 137, in cells of the crop
    volumes: Tensor  # B×3×2×2: left hand, right hand, face: the box's middle and size, fractions of the crop
    logits: Tensor | None = None


class Sight(nn.Module):
    """Key points to where all joints are, and to the body that has them there."""

    def __init__(self, config: PoseLifterConfig, camera: VirtualCamera, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.camera, self.grid = camera, grid
        self.lifter = PoseLifter(config)

    def forward(self, encoded: EncoderOutput) -> Seen:
        assert encoded.keypoints is not None
        found = encoded.keypoints
        beyond = found.new_zeros(found.shape[0], len(POINTS) - _FOUND, 3)
        return self.see(torch.cat([found, beyond], 1))

    def see(self, places: Tensor, hint: Tensor | None = None) -> Seen:
        """places: B×25×3, `POINTS` as fractions of the crop, and how sure; hint as `PoseLifter` takes it."""
        with torch.autocast(places.device.type, enabled=False):
            like = self.lifter.start.weight
            places = places.to(like)
            sure = torch.where(places[..., 2:] >= LEAST_SCORE, places[..., 2:], 0.0)
            across = places.new_tensor([self.camera.hw[1], self.camera.hw[0]])
            lifted = self.lifter(torch.cat([places[..., :2] * across, sure], 2), hint)
            joints = self.lifter.skeleton(lifted.rotations, lifted.betas)
            transl = place(as_pointed_at(joints), torch.cat([places[..., :2], sure], 2), self.camera)
            at = self.camera.project(joints + transl[:, None])
            depth = (joints[..., 2:] - joints[:, _PELVIS, None, 2:] + 1) / 2  # a metre to either side, as positions
            cells = torch.cat([at, depth], 2)[:, _OF_25] * at.new_tensor(self.grid[::-1])
            estimate = Estimate(matrix_to_rotation_6d(lifted.rotations), lifted.betas, self.camera.said(transl))
            return Seen(estimate, lifted, cells, self._boxes(at.detach(), transl.detach()))

    def _boxes(self, at: Tensor, transl: Tensor) -> Tensor:
        """Around the hands and the face of a body seen at `at` (B×27×2), as large as they usually are."""
        across = at.new_tensor([self.camera.hw[1], self.camera.hw[0]])
        metre = self.camera.focal / transl[:, 2:].clamp_min(0.1) / across  # fractions of the crop
        boxes = []
        for index, pinky in _HANDS:
            knuckles = (at[:, index] + at[:, pinky]) / 2
            boxes.append(torch.stack([knuckles, _HAND_M * metre], 1))
        face = 0.6 * at[:, _NOSE] + 0.2 * (at[:, _EARS].mean(1) + at[:, _EYES].mean(1))
        boxes.append(torch.stack([face, _FACE_M * metre], 1))
        return torch.stack(boxes, 1)


class SeenBody(nn.Module):
    """The body head of a network with sight: the body was taken for one already."""

    def forward(self, tokens: Tensor, seen: Seen) -> list[Estimate]:
        return [seen.estimate]


class SeenBoxes(nn.Module):
    """The box head of a network with sight."""

    def __init__(self, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.cells = grid[:0:-1]

    def forward(self, feature_map: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """boxes: `Seen.volumes`. Middles and sizes B×3×2, in cells of the crop."""
        middles, sizes = (boxes * boxes.new_tensor(self.cells)).unbind(2)
        return middles, sizes


_HAND_M, _FACE_M = 0.13, 0.19  # sides of the boxes, metres
_row = JOINTS.index
_PELVIS, _NOSE = _row("pelvis"), _row("nose")
_EARS, _EYES = [_row("left_ear"), _row("right_ear")], [_row("left_eye"), _row("right_eye")]
_HANDS = tuple(tuple(_row(f"{side}_{name}") for name in ("index1", "pinky1")) for side in ("left", "right"))
# The small toes lie about where the big ones do.
_OF_25 = [_row(name.replace("small", "big")) for name in BODY_25]
