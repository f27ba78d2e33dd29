"""MoveNet MultiPose's maps → everybody in them. The published graph stops at six people; this does not."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wholebody.model.embedded.trunk import MobileNetMaps

STRIDE = 4
_MOST = 100  # peaks looked at in one picture
_NEAR = 0.08  # of a person's longer side: how far a key point lies from where the centre expects it


class SeenPeople(NamedTuple):
    """N people of one picture, most certain first. Pixels of the network's picture, from its border: 0 to its width."""

    boxes: Tensor  # N×4 xyxy
    scores: Tensor  # N, 0..1
    keypoints: Tensor  # N×17×3 x, y, score


def find_people(maps: MobileNetMaps, threshold: float) -> SeenPeople:
    """The people whose centre scores at least `threshold`, from the maps of one picture (B = 1).

    A centre is a cell that scores highest among its 3×3. A key point is the cell with the highest product of its heat
    and a Gaussian about the place that the centre expects it at, moved by that cell's offset.
    """
    centers = maps.center[0, 0].float().sigmoid()
    rows, columns = centers.shape
    peaks = (F.max_pool2d(centers[None, None], 3, 1, 1)[0, 0] == centers) & (centers >= threshold)
    cells = peaks.flatten().nonzero()[:, 0]
    scores, order = centers.flatten()[cells].sort(descending=True, stable=True)
    cells, scores = cells[order][:_MOST], scores[:_MOST]
    cy, cx = cells // columns, cells % columns

    def at(name_map: Tensor) -> Tensor:
        return name_map[0].float().flatten(1)[:, cells].T

    middle = torch.stack([cx, cy], 1) + at(maps.box_offset).flip(1)
    half = at(maps.box_scale).flip(1).abs() / 2
    boxes = STRIDE * torch.cat([middle - half, middle + half], 1)

    step = at(maps.keypoint_regression).unflatten(1, (-1, 2))
    expected = torch.stack([cx[:, None] + step[..., 1], cy[:, None] + step[..., 0]], -1)
    heat = maps.keypoint_heatmaps[0].float().sigmoid()
    spreads = (_NEAR * 2 * half.amax(1)).clamp_min(1.0)
    best = [_best_cells(heat, where, float(spread)) for where, spread in zip(expected, spreads, strict=True)]
    if not best:
        return SeenPeople(boxes, scores, boxes.new_zeros(0, heat.shape[0], 3))
    place = torch.stack(best)
    point_scores = heat.flatten(1).gather(1, place.T).T
    offset = maps.keypoint_offsets[0].float().unflatten(0, (-1, 2)).flatten(2)
    offset = offset.gather(2, place.T[:, None].expand(-1, 2, -1)).permute(2, 0, 1)
    points = torch.stack([place % columns + offset[..., 1], place // columns + offset[..., 0]], -1)
    return SeenPeople(boxes, scores, torch.cat([STRIDE * points, point_scores[..., None]], 2))


def _best_cells(heat: Tensor, expected: Tensor, spread: float) -> Tensor:
    """For each of K maps K×h×w the cell (row · w + column) with the highest product of its heat and a Gaussian about a
    place K×2 (x, y), among the cells that three spreads about all the places reach."""
    rows, columns = heat.shape[1:]
    low = (expected.amin(0) - 3 * spread).floor().int().tolist()
    high = (expected.amax(0) + 3 * spread).ceil().int().tolist()
    x0, x1 = _within(low[0], high[0], columns)
    y0, y1 = _within(low[1], high[1], rows)
    y = torch.arange(y0, y1, device=heat.device, dtype=torch.float32)
    x = torch.arange(x0, x1, device=heat.device, dtype=torch.float32)
    along_y = (-(y - expected[:, 1:]).square() / (2 * spread**2)).exp()
    along_x = (-(x - expected[:, :1]).square() / (2 * spread**2)).exp()
    place = (heat[:, y0:y1, x0:x1] * along_y[:, :, None] * along_x[:, None, :]).flatten(1).argmax(1)
    return (place // (x1 - x0) + y0) * columns + place % (x1 - x0) + x0


def _within(low: int, high: int, size: int) -> tuple[int, int]:
    """The part of low to high (included) that lies in 0 to size; at least one cell."""
    low = min(max(low, 0), size - 1)
    return low, min(max(high + 1, low + 1), size)
