"""Losses vanish at the truth, ignore what is not known, and grow with the error."""

import pytest
import torch

from wholebody.training.own.losses import (
    Cells,
    LossWeights,
    Outputs,
    depth_cells,
    map_loss,
    masked_mean,
    objective,
    position_loss,
    relative_joints_loss,
    rotation_loss,
    to_box_cells,
)

CROP = (512, 384)
CELLS = Cells()


def truth(batch=3):
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(batch, 53, generator=generator)
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rotations = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).unflatten(-1, (3, 3))
    joints = 0.2 * torch.randn(batch, 137, 3, generator=generator)
    joints[:, 25:, 2] *= 0.2
    low = 100 + 50 * torch.rand(batch, 3, 2, generator=generator)
    crop = 20 + 340 * torch.rand(batch, 137, 2, generator=generator)
    return {
        "rotations": rotations,
        "rotation_valid": torch.ones(batch, 53),
        "betas": torch.randn(batch, 10, generator=generator),
        "expression": torch.randn(batch, 10, generator=generator),
        "joints_cam": joints,
        "joints_crop": crop,
        "joint_valid": torch.ones(batch, 137),
        "joint_inside": torch.ones(batch, 137),
        "boxes": torch.cat([low, low + 60], -1),
        "box_valid": torch.ones(batch, 3),
    }, torch.randn(batch, 20, 3, generator=generator)


def perfect(target, vertices):
    roi = torch.tensor([0.0, 0.0, 384.0, 384.0]).expand(len(vertices), 3, 4)

    def cells(rows, box, size, origin, half):
        depth = depth_cells(target["joints_cam"][:, rows, 2] - origin, half, size[2])
        return torch.cat([to_box_cells(target["joints_crop"][:, rows], box, size[:2]), depth[..., None]], -1)

    joints = target["joints_cam"]
    whole = torch.tensor([0.0, 0.0, 384.0, 512.0]).expand(len(vertices), 4)
    left, right, face = slice(25, 45), slice(45, 65), slice(65, 137)
    boxes = target["boxes"]
    return Outputs(
        rotations=target["rotations"].clone(),
        betas=target["betas"],
        expression=target["expression"],
        joints=joints,
        vertices=vertices,
        projected=target["joints_crop"],
        body_positions=cells(slice(0, 25), whole, CELLS.body, joints[:, :1, 2], 1.0),
        body_logits=None,
        hand_positions=torch.stack(
            [
                cells(left, roi[:, 0], CELLS.hands, joints[:, 12:13, 2], 0.15),
                cells(right, roi[:, 1], CELLS.hands, joints[:, 13:14, 2], 0.15),
            ],
            1,
        ),
        face_positions=cells(face, roi[:, 2], CELLS.face, joints[:, face, 2].mean(1, keepdim=True), 0.15),
        box_centres=(boxes[..., :2] + boxes[..., 2:]) / 2,
        box_sizes=boxes[..., 2:] - boxes[..., :2],
        roi_boxes=roi,
    )


def test_the_objective_is_zero_at_the_truth_and_nowhere_near_it():
    import dataclasses

    target, vertices = truth()
    outputs = perfect(target, vertices)
    terms = objective(outputs, target, vertices, LossWeights(), CROP, CELLS)
    assert max(float(term) for term in terms.values()) < 1e-5
    for field, name in (
        ("betas", "betas"),
        ("expression", "expression"),
        ("projected", "projection"),
        ("projected", "left_hand_projection"),
        ("body_positions", "positions"),
        ("hand_positions", "right_hand_positions"),
        ("face_positions", "face_positions"),
        ("box_centres", "boxes"),
        ("vertices", "vertices"),
        ("rotations", "root_rotation"),
        ("rotations", "jaw_rotation"),
        ("rotations", "left_hand_rotation"),
    ):
        wrong = dataclasses.replace(outputs, **{field: getattr(outputs, field) + 0.3})
        assert float(objective(wrong, target, vertices, LossWeights(), CROP, CELLS)[name]) > 1e-3, name


def test_shifting_the_whole_body_changes_nothing_but_turning_it_does():
    import dataclasses

    target, vertices = truth()
    outputs = perfect(target, vertices)
    shift = torch.tensor([0.3, -1.0, 20.0])
    moved = dataclasses.replace(outputs, joints=outputs.joints + shift, vertices=outputs.vertices + shift)
    terms = objective(moved, target, vertices, LossWeights(), CROP, CELLS)
    assert max(float(term) for term in terms.values()) < 1e-4
    angle = torch.tensor(0.1)
    turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    turned = dataclasses.replace(outputs, joints=outputs.joints @ turn.T, vertices=outputs.vertices @ turn.T)
    terms = objective(turned, target, vertices, LossWeights(), CROP, CELLS)
    of_places = {"joints", "vertices", "left_hand_joints", "right_hand_joints", "face_joints"}
    assert {name for name, term in terms.items() if float(term) > 1e-2} == of_places


def test_what_is_not_valid_has_no_gradient():
    values = torch.randn(2, 5, 3, requires_grad=True)
    mask = torch.tensor([[1.0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    masked_mean(values.square(), mask).backward()
    assert ((values.grad.abs().sum(-1) > 0) == (mask > 0)).all()
    assert masked_mean(values, torch.zeros(2, 5)) == 0


def test_rotation_loss_is_eight_squared_sines_of_half_the_angle():
    angle = torch.tensor(0.7)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    loss = rotation_loss(turn[None, None], torch.eye(3)[None, None], torch.ones(1, 1))
    torch.testing.assert_close(loss, 8 * (angle / 2).sin() ** 2)


def test_positions_outside_the_map_do_not_count():
    target = torch.tensor([[[2.0, 3.0, 4.0], [-1.0, 3.0, 4.0], [2.0, 16.0, 4.0]]])
    predicted = target + torch.tensor([[[1.0], [50.0], [50.0]]])
    loss = position_loss(predicted, target, torch.ones(1, 3), (12, 16, 16))
    assert float(loss) == pytest.approx((1 / 12 + 1 / 16 + 1 / 16) / 3)


def test_relative_joints_need_their_root():
    joints, other = torch.randn(1, 137, 3), torch.randn(1, 137, 3)
    valid = torch.ones(1, 137)
    assert relative_joints_loss(joints, other, slice(25, 45), 12, valid) > 0
    valid[:, 12] = 0
    assert relative_joints_loss(joints, other, slice(25, 45), 12, valid) == 0


def test_a_map_of_a_part_is_best_about_the_place_and_ignores_places_outside():
    places = torch.tensor([[[3.5, 10.5], [20.0, 1.0]]])
    maps = torch.full((1, 2, 16, 16), 1e-6)
    maps[0, 0, 10, 3] = 1.0
    here = map_loss(maps, places, torch.ones(1, 2))
    for row, column in ((10, 4), (9, 3), (3, 10)):
        there = torch.full((1, 2, 16, 16), 1e-6)
        there[0, 0, row, column] = 1.0
        assert map_loss(there, places, torch.ones(1, 2)) > here + 1
    maps[0, 1, 5, 5] = 1.0  # whatever the second says, its place is not on the map
    torch.testing.assert_close(map_loss(maps, places, torch.ones(1, 2)), here)
