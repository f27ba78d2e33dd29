"""The losses that our own networks are trained with: targets in each part's own box, masked means, metres.

The published losses are in `losses`; these differ from them where the published ones compare unlike things (face cells
with body cells) or let masked zeros dilute the mean. Everything here is a pure function of tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wholebody.body.joints import JOINTS_137, PARTS_137


@dataclass(frozen=True)
class LossWeights:
    """What each term counts: means over what is valid, rotations in squared Frobenius norm, lengths in metres."""

    root_rotation: float = 1.0
    body_rotation: float = 1.0
    hand_rotation: float = 0.5
    jaw_rotation: float = 0.5
    betas: float = 0.05
    expression: float = 0.03
    joints: float = 8.0
    vertices: float = 8.0
    hand_joints: float = 15.0
    face_joints: float = 15.0
    projection: float = 6.0
    hand_projection: float = 3.0
    positions: float = 4.0
    hand_positions: float = 1.0
    face_positions: float = 1.0
    boxes: float = 2.0
    heatmaps: float = 0.5
    part_heatmaps: float = 0.5  # of the hands and the face
    early: float = 0.3  # each first thought of a lifting head, beside its answer


HANDS = ("left_hand", "right_hand")
_WRIST = {"left_hand": JOINTS_137.index("L_Wrist"), "right_hand": JOINTS_137.index("R_Wrist")}
_NECK = JOINTS_137.index("Neck")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` (B, N, ...) weighted by `mask` (B, N); 0 where nothing counts."""
    weight = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return (values * weight).sum() / (weight.expand_as(values).sum().clamp_min(1.0))


def rotation_loss(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean squared Frobenius distance of rotation matrices (B, J, 3, 3): 8 sin²(angle / 2) each."""
    return masked_mean((predicted - target).square().sum((-2, -1)), valid)


def relative_joints_loss(predicted: Tensor, target: Tensor, rows: slice, root: int, valid: Tensor) -> Tensor:
    """L1 in metres of joints `rows` of (B, 137, 3), each relative to joint `root`."""
    offset = (predicted[:, rows] - predicted[:, root : root + 1]) - (target[:, rows] - target[:, root : root + 1])
    return masked_mean(offset.abs(), valid[:, rows] * valid[:, root : root + 1])


def to_box_cells(points: Tensor, boxes: Tensor, cells_wh: tuple[int, int]) -> Tensor:
    """Points (B, N, 2) in a crop → cells of the boxes (B, 4, xyxy) in the same pixels."""
    low, size = boxes[:, None, :2], (boxes[:, None, 2:] - boxes[:, None, :2]).clamp_min(1.0)
    return (points - low) / size * points.new_tensor(cells_wh)


def depth_cells(depth: Tensor, half_range: float, cells: int) -> Tensor:
    """Metres relative to the part's root → cells; ± `half_range` spans all of them."""
    return (depth / half_range + 1) / 2 * cells


def position_loss(predicted: Tensor, target: Tensor, valid: Tensor, cells: tuple[int, int, int]) -> Tensor:
    """L1 of positions in cells (B, N, 3) as a fraction of the map; targets outside it do not count."""
    size = target.new_tensor(cells)
    inside = ((target >= 0) & (target < size)).all(-1)
    return masked_mean((predicted - target).abs() / size, valid * inside)


def heatmap_loss(logits: Tensor, points: Tensor, inside: Tensor, valid: Tensor, crop_hw: tuple[int, int]) -> Tensor:
    """Cross entropy of cells (B, N, rows * columns + 1) with a Gaussian of 0.8 cells about the point, or "outside"."""
    height, width = crop_hw
    rows = round(((logits.shape[-1] - 1) * height / width) ** 0.5)
    columns = (logits.shape[-1] - 1) // rows
    at = (points + 0.5) * points.new_tensor([columns / width, rows / height]) - 0.5
    blob = _blob(at, rows, columns) * inside[..., None]
    target = torch.cat([blob, 1 - inside[..., None]], -1)
    return masked_mean(-(target * logits.log_softmax(-1)).sum(-1), valid)


def map_loss(maps: Tensor, places: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy of probabilities (B, N, rows, columns) with a Gaussian of 0.8 cells about places (B, N, 2) in
    cells, the first cell's middle at 0.5; places outside the map do not count."""
    rows, columns = maps.shape[-2:]
    inside = ((places >= 0) & (places < places.new_tensor([columns, rows]))).all(-1)
    missed = -(_blob(places - 0.5, rows, columns) * maps.flatten(2).clamp_min(1e-8).log()).sum(-1)
    return masked_mean(missed, valid * inside)


def _blob(at: Tensor, rows: int, columns: int) -> Tensor:
    """Gaussians of 0.8 cells about points B×N×2 (cells, centres at integers), B×N×cells, each summing to one."""

    def along(where: Tensor, size: int) -> Tensor:
        cells = torch.arange(size, device=where.device, dtype=where.dtype)
        return (-((where[..., None] - cells) / 0.8).square() / 2).exp()

    blob = (along(at[..., 1], rows)[..., :, None] * along(at[..., 0], columns)[..., None, :]).flatten(2)
    return blob / blob.sum(-1, keepdim=True).clamp_min(1e-6)


@dataclass(frozen=True)
class Cells:
    """Columns, rows and depth of the maps that positions are read from."""

    body: tuple[int, int, int] = (12, 16, 16)
    hands: tuple[int, int, int] = (16, 16, 16)
    face: tuple[int, int, int] = (8, 8, 8)


@dataclass(frozen=True)
class Outputs:
    """What a network says about a batch, as the objective needs it."""

    rotations: Tensor  # B×53×3×3
    betas: Tensor  # B×10
    expression: Tensor  # B×10
    joints: Tensor  # B×137×3, metres, camera frame, any origin
    vertices: Tensor  # B×V×3, the chosen vertices, same origin
    projected: Tensor  # B×137×2, crop pixels
    body_positions: Tensor  # B×25×3, cells of the crop
    body_logits: Tensor | None  # B×25×(rows * columns + 1) of finer cells and "outside"; None: there are none
    hand_positions: Tensor  # B×2×20×3, cells of the hand's box, the left hand not mirrored
    face_positions: Tensor  # B×72×3, cells of the face's box
    box_centres: Tensor  # B×3×2, crop pixels
    box_sizes: Tensor  # B×3×2, crop pixels, of the tight box
    roi_boxes: Tensor  # B×3×4, crop pixels, the squares that features were taken from
    hand_maps: Tensor | None = None  # B×2×20×rows×columns, probabilities over cells of the hand's box
    face_maps: Tensor | None = None  # B×72×rows×columns


def objective(
    outputs: Outputs,
    target: dict[str, Tensor],
    target_vertices: Tensor,
    weights: LossWeights,
    crop_hw: tuple[int, int],
    cells: Cells,
) -> dict[str, Tensor]:
    """Every weighted term by name; the loss is their sum.

    Args:
        outputs: of the network.
        target: a batch of `wholebody.training.own.targets.crop_targets`.
        target_vertices: B×V×3 metres, camera frame, any origin.
        weights: of the terms.
        crop_hw: size of the crop in which pixels are given.
        cells: of the network's position maps.
    """
    height, width = crop_hw
    w = weights
    valid, inside = target["joint_valid"], target["joint_inside"]
    turned, turn_valid = target["rotations"], target["rotation_valid"]
    joints, true_joints = outputs.joints, target["joints_cam"]
    body = PARTS_137["body"]
    terms = {
        "root_rotation": w.root_rotation * rotation_loss(outputs.rotations[:, :1], turned[:, :1], turn_valid[:, :1]),
        "body_rotation": w.body_rotation
        * rotation_loss(outputs.rotations[:, 1:22], turned[:, 1:22], turn_valid[:, 1:22]),
        "jaw_rotation": w.jaw_rotation * rotation_loss(outputs.rotations[:, 52:], turned[:, 52:], turn_valid[:, 52:]),
        "betas": w.betas * (outputs.betas - target["betas"]).square().mean(),
        "expression": w.expression
        * masked_mean((outputs.expression - target["expression"]).square(), _seen(target, 2)[:, None]),
        "joints": w.joints * relative_joints_loss(joints, true_joints, body, 0, valid),
        "vertices": w.vertices * _centred_vertices(outputs, true_joints, target_vertices),
        "face_joints": w.face_joints * relative_joints_loss(joints, true_joints, PARTS_137["face"], _NECK, valid),
    }
    scale = joints.new_tensor([height, height])
    off = ((outputs.projected - target["joints_crop"]) / scale).abs().clamp_max(1.0)
    terms["projection"] = w.projection * masked_mean(off[:, body], _counted(valid, inside)[:, body])
    for part, name in ((PARTS_137["left_hand"], "left"), (PARTS_137["right_hand"], "right")):
        terms[f"{name}_hand_projection"] = w.hand_projection * masked_mean(off[:, part], inside[:, part])
    truth = _cell_targets(target, outputs.roi_boxes, crop_hw, cells)
    terms["positions"] = w.positions * position_loss(outputs.body_positions, *truth["body"], cells.body)
    if outputs.body_logits is not None:
        rows = slice(0, outputs.body_logits.shape[1])
        terms["heatmaps"] = w.heatmaps * heatmap_loss(
            outputs.body_logits, target["joints_crop"][:, rows], inside[:, rows], valid[:, rows], crop_hw
        )
    terms["face_positions"] = w.face_positions * position_loss(outputs.face_positions, *truth["face"], cells.face)
    if outputs.face_maps is not None:
        place, counted = truth["face"]
        terms["face_heatmaps"] = w.part_heatmaps * map_loss(outputs.face_maps, place[..., :2], counted)
    for side, hand in enumerate(HANDS):
        if outputs.hand_maps is not None:
            place, counted = truth[hand]
            maps = outputs.hand_maps[:, side]
            terms[f"{hand}_heatmaps"] = w.part_heatmaps * map_loss(maps, place[..., :2], counted)
        seen = _seen(target, side)[:, None]
        rows = slice(22 + 15 * side, 37 + 15 * side)
        turn = rotation_loss(outputs.rotations[:, rows], turned[:, rows], turn_valid[:, rows] * seen)
        terms[f"{hand}_rotation"] = w.hand_rotation * turn
        relative = relative_joints_loss(joints, true_joints, PARTS_137[hand], _WRIST[hand], valid * seen)
        terms[f"{hand}_joints"] = w.hand_joints * relative
        terms[f"{hand}_positions"] = w.hand_positions * position_loss(
            outputs.hand_positions[:, side], *truth[hand], cells.hands
        )
    centre = (target["boxes"][..., :2] + target["boxes"][..., 2:]) / 2
    size = target["boxes"][..., 2:] - target["boxes"][..., :2]
    box_off = ((outputs.box_centres - centre).abs() + (outputs.box_sizes - size).abs()) / scale
    terms["boxes"] = w.boxes * masked_mean(box_off, target["box_valid"])
    return terms


def _seen(target: dict[str, Tensor], part: int) -> Tensor:
    """Weight (B,) of a part: nothing outside the crop can teach, but a little weight keeps natural poses there."""
    return 0.1 + 0.9 * target["box_valid"][:, part]


def _counted(valid: Tensor, inside: Tensor) -> Tensor:
    """Joints beyond the crop's border count less: the network extrapolates, and should do so without jumps."""
    return valid * (0.2 + 0.8 * inside)


def _centred_vertices(outputs: Outputs, true_joints: Tensor, target_vertices: Tensor) -> Tensor:
    predicted = outputs.vertices - outputs.joints[:, :1]
    return (predicted - (target_vertices - true_joints[:, :1])).abs().mean()


def _cell_targets(
    target: dict[str, Tensor], roi_boxes: Tensor, crop_hw: tuple[int, int], cells: Cells
) -> dict[str, tuple[Tensor, Tensor]]:
    """Targets of the position nets and what counts of them, by part: body in cells of the crop, others of their box."""
    height, width = crop_hw
    points, joints, valid = target["joints_crop"], target["joints_cam"], target["joint_valid"]
    whole = points.new_tensor([0, 0, width, height]).expand(len(points), 4)
    result = {}
    for part, root, box, half, size, seen in (
        ("body", 0, whole, 1.0, cells.body, torch.ones_like(target["box_valid"][:, 0])),
        ("left_hand", _WRIST["left_hand"], roi_boxes[:, 0], 0.15, cells.hands, target["box_valid"][:, 0]),
        ("right_hand", _WRIST["right_hand"], roi_boxes[:, 1], 0.15, cells.hands, target["box_valid"][:, 1]),
        ("face", _NECK, roi_boxes[:, 2], 0.15, cells.face, target["box_valid"][:, 2]),
    ):
        rows = PARTS_137[part]
        # The face's depth is measured from its own middle: the neck lies too far behind for the ±15 cm of the map.
        origin = joints[:, rows, 2].mean(1, keepdim=True) if part == "face" else joints[:, root : root + 1, 2]
        depth = depth_cells(joints[:, rows, 2] - origin, half, size[2])
        place = torch.cat([to_box_cells(points[:, rows], box, size[:2]), depth[..., None]], dim=-1)
        result[part] = (place, valid[:, rows] * seen[:, None])
    return result
