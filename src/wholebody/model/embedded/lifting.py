"""Where joints are in the picture, precisely, and what that says in 3D: how size `t` replaces the linear body head.

A frozen trunk and a small transformer see little depth. Most of a pose follows from where its joints are in the
picture, and that can be learnt without pictures, from millions of poses: so positions are found on a finer map than
the published one, and a residual MLP lifts them. What the picture shows beyond positions comes in beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholebody.body.joints import PARENTS, SMPLX_JOINTS
from wholebody.body.kinematics import turn_of
from wholebody.geometry.camera import VirtualCamera
from wholebody.geometry.rotation import matrix_to_rotation_6d, mirrored, rotation_6d_to_matrix
from wholebody.model.embedded.conv import Conv2d
from wholebody.model.embedded.skeleton import Skeleton
from wholebody.model.encoder import BODY_TOKENS, CAMERA_TOKEN, SHAPE_TOKEN, EncoderOutput
from wholebody.model.heads import (
    BETAS,
    BODY_JOINTS,
    BODY_ROTATIONS,
    HAND_JOINTS,
    HAND_ROTATIONS,
    Estimate,
    start_at_rest,
)
from wholebody.model.roi import sample_points


@dataclass(frozen=True)
class LiftingConfig:
    """Fine position maps and the MLPs that lift positions to rotations."""

    map_width: int = 96
    width: int = 512
    blocks: int = 3
    hand_width: int = 256
    hand_blocks: int = 2
    joint_width: int = 28
    """Numbers that each joint hands on beside its position: of its token, and of the maps where it was found."""
    dropout: float = 0.0


class Located(NamedTuple):
    """Positions on a map of rows × columns cells (twice the feature map's)."""

    volumes: Tensor  # B×25×1×16×12: `probabilities` summed over the cells of the feature map
    cells: Tensor  # B×25×3: x, y, z in cells of the feature map (12, 16, 16 across the crop)
    probabilities: Tensor  # B×25×rows×columns, of the cells, given that the joint lies in the crop
    logits: Tensor  # B×25×(rows * columns + 1): the last is "outside the crop"
    seen: Tensor  # B×25×2: probability to lie in the crop; of the best cell
    features: Tensor  # B×25×F: of the maps at the (detached) positions


class FinePositions(nn.Module):
    """The body's joints on a map of half the feature map's stride, or outside it; depth as a value for each cell.

    Read from the feature map, which knows the whole person, and from the maps at strides 8 and 4, which know where
    exactly: a limb's foreshortening, and so its depth, is a matter of pixels.
    """

    def __init__(self, width: int, finer: int, config: LiftingConfig) -> None:
        super().__init__()
        c = config.map_width
        self.coarse = Conv2d(width, c, 1)
        self.fine = Conv2d(finer, c, 1)
        self.finest = Conv2d(4 * finer, c, 1)
        self.mix = nn.Sequential(
            nn.GroupNorm(8, c), nn.GELU(), Conv2d(c, c, 3, padding=1),
            nn.GroupNorm(8, c), nn.GELU(), Conv2d(c, c, 3, padding=1),
            nn.GroupNorm(8, c), nn.GELU(),
        )  # fmt: skip
        self.more = Conv2d(c, c, 3, padding=1)
        self.cells = Conv2d(c, BODY_JOINTS, 1)
        self.depth = Conv2d(c, BODY_JOINTS, 1)
        self.outside = nn.Linear(c, BODY_JOINTS)
        for layer in (self.cells, self.depth, self.outside):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.more.weight)
        nn.init.zeros_(self.finest.weight)

    def forward(self, encoded: EncoderOutput) -> Located:
        coarse = F.interpolate(self.coarse(encoded.feature_map), scale_factor=2.0, mode="bilinear", align_corners=False)
        finer4, finer8 = encoded.finer
        features = self.mix(coarse + self.fine(finer8) + self.finest(F.pixel_unshuffle(finer4, 2)))
        features = features + self.more(features)
        precise = torch.promote_types(features.dtype, torch.float32)
        logits = self.cells(features).to(precise)
        rows, columns = logits.shape[-2:]
        probabilities = logits.flatten(2).softmax(2)
        inside = probabilities.unflatten(2, (rows, columns))
        # Cell i of the fine map covers pixels whose centre is half a cell of it further: in cells of the coarse map,
        # with pixel centres at integers and 32 pixels a cell.
        x = (torch.arange(columns, device=logits.device, dtype=precise) + 0.5) / 2 - 1 / 64
        y = (torch.arange(rows, device=logits.device, dtype=precise) + 0.5) / 2 - 1 / 64
        depth = (self.depth(features).to(precise).flatten(2) * probabilities).sum(2)
        slots = rows / 2  # as many cells in depth as rows; the middle one is the pelvis
        cells = torch.stack([inside.sum(2) @ x, inside.sum(3) @ y, (depth + 1) / 2 * slots], 2)
        outside = self.outside(features.mean((2, 3))).to(precise)
        every = torch.cat([logits.flatten(2), outside[..., None]], 2)
        seen = torch.stack([1 - every.softmax(2)[..., -1], probabilities.amax(2)], 2)
        at = cells[..., :2].detach()
        found = torch.cat([sample_points(encoded.feature_map, at - 0.5), sample_points(features, 2 * at - 0.5)], 2)
        volumes = 4 * F.avg_pool2d(inside, 2)[:, :, None]
        return Located(volumes, cells, inside, every, seen, found)


class Lifter(nn.Module):
    """A residual MLP from places (B×P) and, where there is a picture, what it shows (B×E) to features B×width.

    Computed in single precision: half a percent of a coordinate matters here.
    """

    def __init__(self, places: int, evidence: int, width: int, blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.places = nn.Sequential(nn.Linear(places, width), nn.LayerNorm(width), nn.GELU())
        self.evidence = nn.Linear(evidence, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout),
                nn.Linear(2 * width, width),
            )
            for _ in range(blocks)
        )  # fmt: skip
        nn.init.zeros_(self.evidence.weight)
        nn.init.zeros_(self.evidence.bias)

    def forward(self, places: Tensor, evidence: Tensor | None) -> Tensor:
        x = self.start(places, evidence)
        for block in self.blocks:
            x = x + block(x)
        return x

    def start(self, places: Tensor, evidence: Tensor | None) -> Tensor:
        """What goes into the first block."""
        x = self.places(places)
        return x if evidence is None else x + self.evidence(evidence)


class LiftingBodyHead(nn.Module):
    """Positions, and what tokens and maps say of the joints, to rotations (6D), shape and camera.

    After each block but the last it says what it takes the body for, sees how far from the positions that body's
    joints would be seen, and goes on with that.
    """

    def __init__(self, width: int, config: LiftingConfig, camera: VirtualCamera) -> None:
        super().__init__()
        self.virtual_camera = camera
        self.joint = nn.Linear(2 * width + config.map_width, config.joint_width)
        self.whole = nn.Linear(width, config.joint_width)
        self.lifter = Lifter(
            BODY_JOINTS * 4,
            (BODY_JOINTS + 2) * config.joint_width + BODY_JOINTS,
            config.width,
            config.blocks,
            config.dropout,
        )
        self.skeleton = Skeleton()
        self.feedback = nn.ModuleList(nn.Linear(BODY_JOINTS * 9, config.width) for _ in range(config.blocks - 1))
        self.root = nn.Linear(config.width, 6)
        self.pose = nn.Linear(config.width, BODY_ROTATIONS * 6)
        self.shape = nn.Linear(config.width, BETAS)
        self.camera = nn.Linear(config.width, 3)
        for layer in (self.root, self.pose, self.shape, self.camera, *self.feedback):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        start_at_rest(self.root, self.pose)

    def forward(self, tokens: Tensor, located: Located) -> list[Estimate]:
        """tokens B×31×C: what the body is taken for after each block, the answer last."""
        rows, columns = located.probabilities.shape[-2:]
        across = located.cells.new_tensor([columns / 2, rows / 2, rows / 2])
        places = located.cells.detach() / across * 2 - 1
        with torch.autocast(tokens.device.type, enabled=False):
            full = self.root.weight.dtype
            joints = F.gelu(self.joint(torch.cat([tokens[:, BODY_TOKENS], located.features], 2).to(full)))
            whole = F.gelu(self.whole(tokens[:, [SHAPE_TOKEN, CAMERA_TOKEN]].to(full)))
            evidence = torch.cat([joints.flatten(1), whole.flatten(1), places[..., 2].to(full)], 1)
            return self.lift(torch.cat([places[..., :2], located.seen.detach()], 2), evidence)

    def lift(self, located: Tensor, evidence: Tensor | None = None) -> list[Estimate]:
        """As `forward`, from places alone: located B×25×4 (x, y from -1 to 1 across the crop, the two of `seen`)."""
        with torch.autocast(located.device.type, enabled=False):
            located = located.to(self.root.weight.dtype)
            x = self.lifter.start(located.flatten(1), evidence)
            estimates: list[Estimate] = []
            for number, block in enumerate(self.lifter.blocks):
                if number:
                    estimates.append(self._read(x))
                    x = x + self.feedback[number - 1](self._missed(located, estimates[-1]))
                x = x + block(x)
            return [*estimates, self._read(x)]

    def project(self, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """The 25 joints of a body: in its own frame (B×25×3, metres), and as seen (B×25×2, -1 to 1 across the crop)."""
        joints = self.skeleton(rotation_6d_to_matrix(estimate.rotations_6d), estimate.betas)
        seen = self.virtual_camera.project(joints + self.virtual_camera.translation(estimate.camera)[:, None])
        return joints, 2 * seen - 1

    def _read(self, x: Tensor) -> Estimate:
        rotations = torch.cat([self.root(x), self.pose(x)], 1).unflatten(1, (-1, 6))
        return Estimate(rotations, self.shape(x), self.camera(x))

    @torch.no_grad()
    def _missed(self, located: Tensor, estimate: Estimate) -> Tensor:
        """B×(25 · 9): where an estimate's joints are and would be seen, and how far from where they were found."""
        joints, seen = self.project(estimate)
        off = (5 * (located[..., :2] - seen)).clamp(-3, 3) * located[..., 2:3]
        return torch.cat([seen.clamp(-3, 3), off, 4 * off * located[..., 3:], joints - joints[:, :1]], 2).flatten(1)


class Palm(NamedTuple):
    """How hands are turned in the camera frame, as seen from their own crops."""

    turn_6d: Tensor  # N×6: the wrist's rotation from the body's T-pose, as a right hand
    trust: Tensor  # N×1: logit of how far to take it instead of what the body says


class LiftingHandHead(nn.Module):
    """Joint features and positions of a right hand to its rotations and to how the palm is turned, positions first."""

    def __init__(self, channels: int, hidden: int, config: LiftingConfig) -> None:
        super().__init__()
        self.joint = nn.Linear(channels, hidden // 8)
        self.lifter = Lifter(HAND_JOINTS * 3, HAND_JOINTS * (hidden // 8), config.hand_width, config.hand_blocks)
        self.pose = nn.Linear(config.hand_width, HAND_ROTATIONS * 6)
        self.palm = nn.Linear(config.hand_width, 7)
        for layer in (self.pose, self.palm):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.palm.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 0.0, -2.0]))
        start_at_rest(self.pose)

    def forward(self, joint_features: Tensor, joints_cells: Tensor) -> tuple[Tensor, Palm]:
        """N×20×C and N×20×3 (positions as fractions of the box) to 6D rotations N×15×6 and the palm."""
        with torch.autocast(joint_features.device.type, enabled=False):
            full = self.pose.weight.dtype
            return self.lift(joints_cells, self.joint(joint_features.to(full)).flatten(1))

    def lift(self, joints_cells: Tensor, evidence: Tensor | None = None) -> tuple[Tensor, Palm]:
        """From positions alone."""
        with torch.autocast(joints_cells.device.type, enabled=False):
            x = self.lifter((joints_cells.flatten(1) * 2 - 1).to(self.pose.weight.dtype), evidence)
            palm = self.palm(x)
            return self.pose(x).unflatten(1, (-1, 6)), Palm(palm[:, :6], palm[:, 6:])


class TurnedWrists(nn.Module):
    """Body rotations B×22×3×3 with both wrists turned as far towards their palms as these are trusted.

    palm: of 2 B hands, as right hands: the left and the right one of the first person, then of the next.
    """

    def forward(self, body: Tensor, palm: Palm) -> Tensor:
        turn, trust = (part.unflatten(0, (-1, 2)).to(body.dtype) for part in palm)
        turn = rotation_6d_to_matrix(turn)
        turn = torch.stack((mirrored(turn[:, 0]), turn[:, 1]), 1)
        return turn_wrists(body, turn, trust.sigmoid())

    @staticmethod
    def as_before(body: Tensor, before: Tensor) -> Tensor:
        """Both palms as they pointed in the rotations B×(22 or more)×3×3 of a moment before."""
        palms = wrist_turns(before)
        return turn_wrists(body, palms, torch.ones_like(palms[..., 0, :1]))


def turn_wrists(body: Tensor, palm: Tensor, trust: Tensor) -> Tensor:
    """Body rotations B×22×3×3 with both wrists turned towards what the hands' crops show.

    palm: B×2×3×3, left then right, in the camera frame. trust: B×2×1 from 0 (as the body says) to 1 (as the palm).
    """
    wrists = []
    for side, joint in enumerate(_WRISTS):
        seen = turn_of(body, PARENTS[joint]).mT @ palm[:, side]
        wrist = body[:, joint]
        mixed = wrist + trust[:, side, :, None] * (seen - wrist)
        wrists.append(rotation_6d_to_matrix(matrix_to_rotation_6d(mixed)))
    return torch.cat([body[:, : _WRISTS[0]], torch.stack(wrists, 1)], 1)


def wrist_turns(body: Tensor) -> Tensor:
    """Rotations B×2×3×3 of the left and right wrist in the camera frame, from body rotations B×(22 or more)×3×3."""
    return torch.stack([turn_of(body, wrist) for wrist in _WRISTS], 1)


_WRISTS = (SMPLX_JOINTS.index("left_wrist"), SMPLX_JOINTS.index("right_wrist"))
