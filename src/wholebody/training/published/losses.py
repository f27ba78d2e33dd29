"""The published losses, as pure functions: what the published networks were trained on, faults included.

Every loss is an absolute difference times a mask, not reduced; training minimises the sum of their means over all
entries, masked zeros included (`total`). "Cells" are those of the crop: x in 12, y in 16, z in 16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wholebody.body.joints import JOINTS_137, PARTS_137, index
from wholebody.model.prediction import Prediction

CELL_PX = 32  # pixels of the 384×512 crop
HAND_CELLS = 16  # across a hand's box
POSITION_JOINTS = 65  # the first of the 137: body and hands
_ROOTS = {"left_hand": "L_Wrist", "right_hand": "R_Wrist", "face": "Neck"}  # of the joints of each part, in space


@dataclass(frozen=True)
class PublishedTargets:
    """Truth for B people as the published datasets give it. Masks are 0 or 1; what they hide may be anything.

    `smplx_*` come from fitted bodies, the others from a data set's own annotation.
    """

    joint_img: Tensor  # B×137×3, cells
    joint_cam: Tensor  # B×137×3, metres: about the pelvis; of OSX hands about their wrists and the face about the neck
    smplx_joint_img: Tensor  # B×137×3
    smplx_joint_cam: Tensor  # B×137×3, metres: body about the pelvis, hands about their wrists, face about the neck
    smplx_pose: Tensor  # B×159 axis-angle: pelvis, 21 body, 15 left hand, 15 right hand, jaw
    smplx_shape: Tensor  # B×10
    smplx_expr: Tensor  # B×10
    box_centers: Tensor  # B×3×2, cells: left hand, right hand, face
    box_sizes: Tensor  # B×3×2, cells
    joint_valid: Tensor  # B×137×1: known
    joint_trunc: Tensor  # B×137×1: known and inside the crop
    smplx_joint_valid: Tensor  # B×137×1
    smplx_joint_trunc: Tensor  # B×137×1
    smplx_pose_valid: Tensor  # B×159
    smplx_shape_valid: Tensor  # B
    smplx_expr_valid: Tensor  # B
    box_valid: Tensor  # B×3
    is_3d: Tensor  # B: joint_img has a depth and joint_cam is measured


def published_losses(
    prediction: Prediction, targets: PublishedTargets, weight: float = 1.0, weigh_parameters: bool = False
) -> dict[str, Tensor]:
    """The unreduced losses by their published names.

    weight: of smplx_shape (published: 2 when training on AGORA alone, else 1). weigh_parameters: whether it scales
    smplx_pose, smplx_expr, joint_cam and smplx_joint_cam too (published: in the variant `wo_decoder`).
    """
    assert prediction.joints_144_cam is not None and prediction.joints_proj_cells is not None
    p, t = prediction, _in_hand_boxes(targets, prediction)
    scale = weight if weigh_parameters else 1.0
    flat_pose = torch.cat(
        (p.global_orient[:, None], p.body_pose, p.left_hand_pose, p.right_hand_pose, p.jaw_pose[:, None]), 1
    ).flatten(1)
    joints_cam = part_relative(joints_137(p))
    assert p.body_cells is not None and p.left_hand_box_cells is not None and p.right_hand_box_cells is not None
    assert p.box_centers_cells is not None and p.box_sizes_cells is not None
    positions = torch.cat((p.body_cells, p.left_hand_box_cells, p.right_hand_box_cells), 1)
    projected = _aligned_projection(p, t)
    losses = {
        "smplx_pose": scale * masked_l1(flat_pose, t.smplx_pose, t.smplx_pose_valid),
        "smplx_shape": weight * masked_l1(p.betas, t.smplx_shape, t.smplx_shape_valid[:, None]),
        "smplx_expr": scale * masked_l1(p.expression, t.smplx_expr, t.smplx_expr_valid[:, None]),
        "joint_cam": scale * masked_l1(joints_cam, t.joint_cam, t.joint_valid * t.is_3d[:, None, None]),
        "smplx_joint_cam": scale * masked_l1(joints_cam, t.smplx_joint_cam, t.smplx_joint_valid),
        "joint_proj": masked_l1(projected, t.joint_img[..., :2], t.joint_trunc),
        "joint_img": position_loss(positions, _first(t.joint_img), _first(t.joint_trunc), t.is_3d),
        "smplx_joint_img": position_loss(positions, _first(t.smplx_joint_img), _first(t.smplx_joint_trunc)),
    }
    for part, name in enumerate(("lhand_bbox", "rhand_bbox", "face_bbox")):
        valid = t.box_valid[:, part, None]
        center = masked_l1(p.box_centers_cells[:, part], t.box_centers[:, part], valid)
        losses[name] = center + masked_l1(p.box_sizes_cells[:, part], t.box_sizes[:, part], valid)
    if p.face_box_cells is not None:
        # A fault that the published weights were trained with: cells of the face's box against cells of the crop.
        face = PARTS_137["face"]
        losses["joint_img_face"] = position_loss(
            p.face_box_cells, t.joint_img[:, face], t.joint_trunc[:, face], t.is_3d
        )
    return losses


SMPLER_X_WEIGHTS = {"smplx_pose": 10.0, "joint_cam": 100.0, "smplx_joint_cam": 100.0}
"""What SMPLer-X's published configs weigh the losses by; the others count once."""


def smpler_x_losses(
    prediction: Prediction, targets: PublishedTargets, weights: Mapping[str, float] = SMPLER_X_WEIGHTS
) -> dict[str, Tensor]:
    """The unreduced losses of SMPLer-X: those of OSX, each times its weight (1 where `weights` has none).

    Its `joint_cam` compares joints relative to the pelvis alone, hands and face too (so has to be the target's), and a
    part's box that nobody in the batch has is left out.
    """
    losses = published_losses(prediction, targets)
    mask = targets.joint_valid * targets.is_3d[:, None, None]
    losses["joint_cam"] = masked_l1(pelvis_relative(joints_137(prediction)), targets.joint_cam, mask)
    losses = weighed(losses, weights)
    for part, name in enumerate(("lhand_bbox", "rhand_bbox", "face_bbox")):
        if not targets.box_valid[:, part].any():
            del losses[name]
    return losses


def weighed(losses: dict[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Each loss times the weight that `weights` has for its name, if any."""
    return {name: loss * weights.get(name, 1.0) for name, loss in losses.items()}


def total(losses: dict[str, Tensor]) -> Tensor:
    """What training minimises: the sum of the means."""
    return torch.stack([loss.mean() for loss in losses.values()]).sum()


def masked_l1(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Absolute differences where the mask is 1, zeros elsewhere."""
    return (predicted - target).abs() * mask


def position_loss(predicted: Tensor, target: Tensor, mask: Tensor, is_3d: Tensor | None = None) -> Tensor:
    """`masked_l1` of positions B×J×3 whose depth counts only where `is_3d` (B)."""
    loss = masked_l1(predicted, target, mask)
    if is_3d is None:
        return loss
    return torch.cat((loss[..., :2], loss[..., 2:] * is_3d[:, None, None]), -1)


def pelvis_relative(joints_cam: Tensor) -> Tensor:
    """Joints B×137×3 relative to the pelvis."""
    return joints_cam - joints_cam[:, index("Pelvis", JOINTS_137), None]


def part_relative(joints_cam: Tensor) -> Tensor:
    """Joints B×137×3 relative to the pelvis; those of hands and face to wrists and neck."""
    roots = joints_cam[:, index("Pelvis", JOINTS_137), None].expand_as(joints_cam).clone()
    for part, root in _ROOTS.items():
        roots[:, PARTS_137[part]] = joints_cam[:, index(root, JOINTS_137), None]
    return joints_cam - roots


def detached_body_projection(prediction: Prediction, project: Callable[[Tensor], Tensor]) -> Prediction:
    """The prediction with its joints projected so that the loss moves only the camera (published for AGORA)."""
    assert prediction.joints_144_cam is not None
    shift = prediction.cam_trans[:, None]
    joints = (joints_137(prediction) - shift).detach() + shift
    return dataclasses.replace(prediction, joints_proj_cells=project(joints))


def joints_137(prediction: Prediction) -> Tensor:
    """The mesh's joints B×137×3, camera frame, metres."""
    from wholebody.body.joints import FROM_144

    assert prediction.joints_144_cam is not None
    return prediction.joints_144_cam[:, torch.tensor(FROM_144, device=prediction.betas.device)]


def _first(values: Tensor) -> Tensor:
    return values[:, :POSITION_JOINTS]


def _hand_boxes(prediction: Prediction) -> list[tuple[slice, Tensor]]:
    """(rows of the 137, box B×1×4 in cells) of each hand"""
    boxes = (("left_hand", prediction.left_hand_box), ("right_hand", prediction.right_hand_box))
    return [(PARTS_137[part], box[:, None] / CELL_PX) for part, box in boxes if box is not None]


def _into_box(xy: Tensor, box: Tensor) -> Tensor:
    side = box[..., 2:] - box[..., :2]
    side = torch.where(side == 0, 1e-6, side)  # of an untrained network; 0 / 0 would get through every mask
    return (xy - box[..., :2]) * HAND_CELLS / side


def _in_hand_boxes(targets: PublishedTargets, prediction: Prediction) -> PublishedTargets:
    """Targets with hand joints moved into the predicted hand boxes; those outside become invalid."""
    moved = {}
    for name in ("joint_img", "smplx_joint_img"):
        trunc_name = name.replace("_img", "_trunc")
        joints, trunc = getattr(targets, name).clone(), getattr(targets, trunc_name).clone()
        for rows, box in _hand_boxes(prediction):
            xy = _into_box(joints[:, rows, :2], box)
            joints[:, rows, :2] = xy.to(joints.dtype)
            trunc[:, rows] *= ((xy >= 0) & (xy < HAND_CELLS)).all(-1, keepdim=True)
        moved[name], moved[trunc_name] = joints, trunc
    return dataclasses.replace(targets, **moved)


def _aligned_projection(prediction: Prediction, targets: PublishedTargets) -> Tensor:
    """Projected joints B×137×2 with the hands in their boxes, hands and face each moved onto their valid targets."""
    assert prediction.joints_proj_cells is not None
    projected = prediction.joints_proj_cells
    parts = [projected[:, PARTS_137["body"]]]
    for rows, box in _hand_boxes(prediction):
        parts.append(_moved_onto(_into_box(projected[:, rows], box), targets, rows))
    parts.append(_moved_onto(projected[:, PARTS_137["face"]], targets, PARTS_137["face"]))
    return torch.cat(parts, 1)


def _moved_onto(points: Tensor, targets: PublishedTargets, rows: slice) -> Tensor:
    mask = targets.joint_trunc[:, rows] == 1
    difference = torch.where(mask, targets.joint_img[:, rows, :2] - points, 0)
    return points + difference.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
