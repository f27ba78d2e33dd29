"""MoveNet SinglePose Thunder (Google, Apache-2.0): 17 key points of the person in the middle of a crop, and its maps.

The layers are those of `MobileNetTrunk` at width 1.75, without the maps that say how large people are. The weights are
embedded as they were published, in half precision: `weights/movenet_thunder.safetensors`, whose card says where they
come from. `tools/extract_thunder.py` makes the file.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholebody.body.joints import COCO_BODY_17, flip_permutation
from wholebody.errors import AssetMissing
from wholebody.model.embedded.trunk import (
    MobileNetMaps,
    MobileNetTrunk,
    MobileNetTrunkConfig,
    StageConfig,
    freeze,
    load_published,
)

THUNDER = MobileNetTrunkConfig(
    stem_channels=56,
    stages=(
        StageConfig(32, 1, 1, expansion=1),
        StageConfig(40, 2, 2),
        StageConfig(56, 3, 2),
        StageConfig(112, 4, 2),
        StageConfig(168, 3, 1),
        StageConfig(280, 3, 2),
        StageConfig(560, 1, 1),
    ),
    heads=("keypoint_heatmaps", "keypoint_offsets", "keypoint_regression", "center"),
)

SHA256 = "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c"
"""Of the published weights that the embedded ones are."""

_LEAST_DISTANCE = 1.8  # cells: the published graph divides by the distance plus this
MIRRORED_17 = tuple(flip_permutation(COCO_BODY_17).tolist())
"""Which of the key points each one becomes in a mirror."""


class FoundKeypoints(NamedTuple):
    """17 key points (`COCO_BODY_17`) of one person a crop."""

    points: Tensor  # B×17×2, x and y as fractions of the crop's width and height
    scores: Tensor  # B×17 in 0..1, of the heat map where the point was found
    regressed: Tensor  # B×17×2 as `points`: where they are expected to be, seen from the person's centre alone
    center_score: Tensor  # B in 0..1, of there being a person


class Thunder(nn.Module):
    """Crops to key points of the person in the middle; its weights, which never learn, come from `load_thunder`.

    Crops of 512×384 pixels are averaged down by 2×2 first, as size `t` does. With `mirrored` every crop is looked at a
    second time in the mirror and the maps are averaged, which costs as much again.
    """

    def __init__(self, mirrored: bool = False) -> None:
        super().__init__()
        self.trunk = MobileNetTrunk(THUNDER)
        freeze(self.trunk)
        self.mirrored = mirrored

    def forward(self, images: Tensor) -> Tensor:
        """images B×3×H×W, RGB in [0, 1] → B×17×3 float32, `COCO_BODY_17`: x, y as fractions of the picture, score 0..1.

        H×W: 512×384 or any multiples of 32, 256×256 as published or 256×192. Pixel i covers i / W to (i + 1) / W.
        """
        found = self.look(images)
        return torch.cat([found.points, found.scores[..., None]], 2)

    def look(self, images: Tensor) -> FoundKeypoints:
        """As `forward`, with what else is known of the person."""
        if images.shape[-2:] == (512, 384):
            images = F.avg_pool2d(images, 2)
        images = images.contiguous(memory_format=torch.channels_last)
        maps = self.trunk(images)
        if self.mirrored:
            maps = average_with_mirrored(maps, self.trunk(images.flip(3)))
        return find_keypoints(maps)


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """`torch.hypot`, which ONNX has no name for."""
    return (x.square() + y.square()).sqrt()


def find_keypoints(maps: MobileNetMaps) -> FoundKeypoints:
    """The key points of the person in the middle, as the published graph finds them.

    The centre is the cell with the highest score divided by (its distance from the crop's middle + 1.8 cells); from it
    each point is regressed; a key point is the cell of its heat map with the highest score divided by (the distance
    from the regressed point + 1.8 cells), moved by that cell's offset.
    """
    rows, columns = maps.center.shape[-2:]
    y = torch.arange(rows, device=maps.center.device, dtype=torch.float32)
    x = torch.arange(columns, device=maps.center.device, dtype=torch.float32)
    away = _distance((y - rows // 2)[:, None], (x - columns // 2)[None]) + _LEAST_DISTANCE
    centers = maps.center[:, 0].float().sigmoid().flatten(1)
    best = (centers / away.flatten()).argmax(1)
    step = maps.keypoint_regression.float().flatten(2)
    step = step.gather(2, best[:, None, None].expand(-1, step.shape[1], 1)).unflatten(1, (-1, 2))[..., 0]
    expected = torch.stack([(best % columns)[:, None] + step[..., 1], (best // columns)[:, None] + step[..., 0]], -1)

    heat = maps.keypoint_heatmaps.float().sigmoid()
    away = _distance(y[:, None] - expected[..., 1, None, None], x - expected[..., 0, None, None]) + _LEAST_DISTANCE
    cell = (heat / away).flatten(2).argmax(2)
    offset = maps.keypoint_offsets.float().unflatten(1, (-1, 2)).flatten(3)
    offset = offset.gather(3, cell[:, :, None, None].expand(-1, -1, 2, 1))[..., 0]
    found = torch.stack([cell % columns + offset[..., 1], cell // columns + offset[..., 0]], -1)
    size = found.new_tensor([columns, rows])
    return FoundKeypoints(
        points=found / size,
        scores=heat.flatten(2).gather(2, cell[..., None])[..., 0],
        regressed=expected / size,
        center_score=centers.gather(1, best[:, None])[:, 0],
    )


def average_with_mirrored(maps: MobileNetMaps, mirrored: MobileNetMaps) -> MobileNetMaps:
    """The key points' maps averaged with those of the mirrored crop; everything else as in `maps`.

    A point at p cells, of the w of the crop, lies at w - p in the mirror; from a cell's index it is therefore
    1 - offset away where it was offset away there.
    """
    swap = list(MIRRORED_17)

    def back(pairs: Tensor) -> Tensor:
        pairs = pairs.flip(3).unflatten(1, (-1, 2))[:, swap]
        return torch.stack([pairs[:, :, 0], 1 - pairs[:, :, 1]], 2).flatten(1, 2)

    def averaged(one: Tensor, other: Tensor) -> Tensor:
        return torch.logit((one.float().sigmoid() + other.float().sigmoid()) / 2, eps=1e-7).to(one.dtype)

    return maps._replace(
        keypoint_heatmaps=averaged(maps.keypoint_heatmaps, mirrored.keypoint_heatmaps.flip(3)[:, swap]),
        center=averaged(maps.center, mirrored.center.flip(3)),
        keypoint_offsets=(maps.keypoint_offsets + back(mirrored.keypoint_offsets)) / 2,
        keypoint_regression=(maps.keypoint_regression + back(mirrored.keypoint_regression)) / 2,
    )


def read_thunder_state(path: Path | None = None) -> dict[str, Tensor]:
    """The state of a `MobileNetTrunk(THUNDER)` (float16; `load_state_dict` widens it), by default the embedded one."""
    from safetensors.torch import load_file

    if path is None:
        with as_file(files("wholebody") / "weights" / "movenet_thunder.safetensors") as embedded:
            return read_thunder_state(embedded)
    if not path.is_file():
        raise AssetMissing(f"{path}: MoveNet Thunder's weights are missing; reinstall the package")
    return load_file(path)


def load_thunder(mirrored: bool = False) -> Thunder:
    """MoveNet Thunder with its embedded weights, in eval mode."""
    thunder = Thunder(mirrored)
    load_thunder_trunk(thunder.trunk)
    return thunder.eval()


def load_thunder_trunk(trunk: MobileNetTrunk) -> None:
    """Give a `MobileNetTrunk(THUNDER, tuned_stages)` its weights; tuned stages start as copies of the frozen ones."""
    load_published(trunk, read_thunder_state())
