"""The losses of networks of our own, from a batch and what the network says of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wholebody.body.joints import PARTS_137
from wholebody.body.kinematics import tree_rotations
from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import mirrored, rotation_6d_to_matrix
from wholebody.model.embedded.lifting import wrist_turns
from wholebody.model.embedded.pose_lifting import PoseLifter
from wholebody.model.embedded.sight import Sight
from wholebody.model.heads import Estimate
from wholebody.model.osx import OSX, PartBoxes, Prediction
from wholebody.model.prediction import pictures_01
from wholebody.synthesis.sets.crops import CROP_HW
from wholebody.training.config import TrainConfig
from wholebody.training.own.losses import (
    Cells,
    LossWeights,
    Outputs,
    depth_cells,
    heatmap_loss,
    masked_mean,
    objective,
    position_loss,
    relative_joints_loss,
    rotation_loss,
    to_box_cells,
)
from wholebody.training.own.places import SIGHT, place_losses


def picture_losses(model: OSX, body: BodyModel, batch: dict[str, Tensor], config: TrainConfig) -> dict[str, Tensor]:
    """Terms of a batch of `TrainingCrops`: its first `body_only` pictures teach the body alone, the others all."""
    # With sight, where joints are is not learnt, and lifting them is learnt without pictures.
    count, alone = len(batch["image"]), 0 if lifter_of(model) is not None else config.body_only
    pictures = pictures_01(batch["image"], model.box_scales)
    terms: dict[str, Tensor] = {}
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        encoded = model.encoder(pictures)
        if alone < count:
            some = {name: value[alone:] for name, value in batch.items()}
            boxes = true_boxes(some["boxes"], some["box_valid"], config.true_box_probability)
            prediction = model.regress_encoded(encoded.rows(slice(alone, None)), boxes)
        if alone and config.positions_only:
            located = model.body_positions(encoded.rows(slice(alone)))
            cells, logits = located.cells, located.logits
        elif alone:
            located, estimates = model.regress_body(encoded.rows(slice(alone)))
            cells, logits = located.cells, located.logits
    if alone < count:
        share = (count - alone) / count
        terms |= {k: share * v for k, v in losses(model, body, prediction, some, config.losses).items()}
    if alone:
        some = {name: value[:alone] for name, value in batch.items()}
        found_terms = position_losses(model, cells, logits, some, config.losses)
        if not config.positions_only:
            found_terms |= body_losses(model, body, estimates, some, config.losses)
        terms |= {f"alone_{k}": alone / count * v for k, v in found_terms.items()}
    return terms


def losses(
    model: OSX, body: BodyModel, prediction: Prediction, batch: dict[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """Every weighted term for a batch of `TrainingCrops`; `body` gives the vertices to compare."""
    height, width = CROP_HW
    depth, rows, columns = model.config.grid
    cell = height / rows
    p = prediction
    mesh = body.from_matrices(tree_rotations(p.rotations), p.betas, p.expression)
    with torch.no_grad():
        truth = body.from_matrices(tree_rotations(batch["rotations"]), batch["betas"], batch["expression"])
    joints = body.joints_137(mesh.joints)
    hands, face = model.hands, model.face
    assert p.body_cells is not None and p.left_hand_box_cells is not None and p.right_hand_box_cells is not None
    assert p.box_centers_cells is not None and p.box_sizes_cells is not None
    assert p.left_hand_box is not None and p.right_hand_box is not None and p.face_box is not None
    return objective(
        Outputs(
            rotations=p.rotations,
            betas=p.betas,
            expression=p.expression,
            joints=joints,
            vertices=mesh.vertices,
            projected=model.project(joints + p.cam_trans[:, None]) * cell,
            body_positions=p.body_cells,
            body_logits=p.body_logits,
            hand_positions=torch.stack([p.left_hand_box_cells, p.right_hand_box_cells], 1),
            face_positions=p.face_box_cells,  # type: ignore[arg-type]
            box_centres=p.box_centers_cells * cell,
            box_sizes=p.box_sizes_cells * cell,
            roi_boxes=torch.stack([p.left_hand_box, p.right_hand_box, p.face_box], 1),
            hand_maps=p.hand_maps,
            face_maps=p.face_maps,
        ),
        batch | {"joints_cam": body.joints_137(truth.joints)},
        truth.vertices,
        weights,
        CROP_HW,
        Cells(
            body=(columns, rows, depth),
            hands=(hands.side, hands.side, hands.depth),
            face=(face.side, face.side, face.depth),  # type: ignore[arg-type]
        ),
    )


def lifter_of(model: OSX) -> PoseLifter | None:
    """What lifts key points in a network with sight; None for one without."""
    return model.body_positions.lifter if isinstance(model.body_positions, Sight) else None


def position_losses(
    model: OSX, cells: Tensor, logits: Tensor | None, batch: dict[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """What the positions of the body's joints miss."""
    part = PARTS_137["body"]
    height, width = CROP_HW
    depth, rows, columns = model.config.grid
    whole = cells.new_tensor([0, 0, width, height]).expand(len(cells), 4)
    joints = batch["joints_cam"]
    place = to_box_cells(batch["joints_crop"][:, part], whole, (columns, rows))
    place = torch.cat([place, depth_cells(joints[:, part, 2:] - joints[:, :1, 2:], 1.0, depth)], -1)
    missed = position_loss(cells, place, batch["joint_valid"][:, part], (columns, rows, depth))
    terms = {"positions": weights.positions * missed}
    if logits is not None:
        points, inside, valid = (batch[name][:, part] for name in ("joints_crop", "joint_inside", "joint_valid"))
        terms["heatmaps"] = weights.heatmaps * heatmap_loss(logits, points, inside, valid, CROP_HW)
    return terms


def lifting_losses(model: OSX, body: BodyModel, poses: dict[str, Tensor], weights: LossWeights) -> dict[str, Tensor]:
    """The body's terms for a batch of `LiftingBatches`, or of `SightBatches` where the network has sight."""
    lifter = lifter_of(model)
    if lifter is not None:
        of_sight = {name.removeprefix(SIGHT): value for name, value in poses.items() if name.startswith(SIGHT)}
        terms = {f"lift_{name}": value for name, value in place_losses(lifter, of_sight).items()}
    else:
        estimates = model.body_head.lift(poses["located"])  # type: ignore[operator]
        terms = {f"lift_{name}": value for name, value in body_losses(model, body, estimates, poses, weights).items()}
    hands_6d, palm = model.hands.head.lift(poses["hand_places"].flatten(0, 1))  # type: ignore[operator]
    hands = rotation_6d_to_matrix(hands_6d).unflatten(0, (-1, 2))
    target = torch.stack([mirrored(poses["rotations"][:, 22:37]), poses["rotations"][:, 37:52]], 1)
    terms["lift_hands"] = weights.hand_rotation * (hands - target).square().sum((-2, -1)).mean()
    turn = rotation_6d_to_matrix(palm.turn_6d).unflatten(0, (-1, 2))
    wrists = wrist_turns(poses["rotations"])
    wrists = torch.stack([mirrored(wrists[:, 0]), wrists[:, 1]], 1)
    terms["lift_palms"] = weights.hand_rotation * (turn - wrists).square().sum((-2, -1)).mean()
    return terms


def body_losses(
    model: OSX, body: BodyModel, estimates: Sequence[Estimate], truth: dict[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """What rotations, betas and camera of the last estimate miss, and a little of what those before it do; hands and
    jaw, not compared here, are the true ones.

    How large somebody is cannot be told from one crop. So poses are compared in bodies of the true shape: else what is
    wrong with the size would hide, joint by joint, what is wrong with the pose.
    """
    body_6d, betas, camera = (x.float() for x in estimates[-1])
    turned = rotation_6d_to_matrix(body_6d)
    rotations = torch.cat([turned, truth["rotations"][:, 22:]], 1)
    tree = tree_rotations(rotations)
    posed = body.from_matrices(tree, truth["betas"], truth["expression"])
    shaped = body.from_matrices(tree, betas, truth["expression"])
    with torch.no_grad():
        true = body.from_matrices(tree_rotations(truth["rotations"]), truth["betas"], truth["expression"])
    joints, true_joints = body.joints_137(posed.joints), body.joints_137(true.joints)
    valid = torch.ones_like(truth["joint_inside"])
    part = PARTS_137["body"]
    seen = body.joints_137(shaped.joints)[:, part] + model.config.camera.translation(camera)[:, None]
    off_vertices = (posed.vertices - posed.joints[:, :1]) - (true.vertices - true.joints[:, :1])
    w = weights
    terms = _pose_losses(turned, betas, 2 * model.config.camera.project(seen) - 1, truth, weights)
    terms["joints"] = w.joints * relative_joints_loss(joints, true_joints, part, 0, valid)
    terms["vertices"] = w.vertices * off_vertices.abs().mean()
    early = []
    for estimate in estimates[:-1]:
        _, places = model.body_head.project(estimate)  # type: ignore[operator]
        some = _pose_losses(rotation_6d_to_matrix(estimate.rotations_6d), estimate.betas, places, truth, weights)
        early.append(torch.stack(list(some.values())).sum())
    if early:
        terms["early"] = w.early * torch.stack(early).sum()
    return terms


def _pose_losses(
    turned: Tensor, betas: Tensor, places: Tensor, truth: dict[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """Rotations B×22×3×3, betas B×10, and the body's joints as seen, B×25×2 from -1 to 1 across the crop."""
    part, w, target = PARTS_137["body"], weights, truth["rotations"]
    height, width = CROP_HW
    pixels = (places + 1) * places.new_tensor([width / 2, height / 2])
    off = ((pixels - truth["joints_crop"][:, part]) / height).abs().clamp_max(1.0)
    valid = torch.ones_like(turned[:, :, 0, 0])
    return {
        "root": w.root_rotation * rotation_loss(turned[:, :1], target[:, :1], valid[:, :1]),
        "body": w.body_rotation * rotation_loss(turned[:, 1:], target[:, 1:22], valid[:, 1:]),
        "betas": w.betas * (betas - truth["betas"]).square().mean(),
        "projection": w.projection * masked_mean(off, 0.2 + 0.8 * truth["joint_inside"][:, part]),
    }


def true_boxes(boxes: Tensor, valid: Tensor, probability: float) -> PartBoxes:
    """The true boxes as squares, moved and scaled a little, for a random part of the batch."""
    scale = boxes.new_tensor([2.0, 2.0, 1.5])[:, None]
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True)
    side = size * scale * (1 + 0.15 * (2 * torch.rand_like(size) - 1))
    centre = centre + 0.08 * size * (2 * torch.rand_like(centre) - 1)
    given = (torch.rand_like(valid) < probability) & (valid > 0)
    return PartBoxes(torch.cat([centre - side / 2, centre + side / 2], -1), given)
