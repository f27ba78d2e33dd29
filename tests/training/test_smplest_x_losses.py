"""The losses that SMPLest-X was meant to be trained on: against a naive twin, a person at a time, and what must not
change them."""

import dataclasses

import numpy as np
import pytest
import roma
import torch

from wholebody.body.joints import FROM_144, JOINTS_137, PARENTS, PARTS_137, ROTATIONS_53
from wholebody.model.prediction import Prediction
from wholebody.training.published.batch import targets_of
from wholebody.training.published.smplest_x_losses import SMPLEST_X_WEIGHTS, smplest_x_losses

PEOPLE = 5
PELVIS = JOINTS_137.index("Pelvis")
WEIGHTS = {"smplx_pose": 10, "joint_cam": 100, "smplx_joint_cam": 100}


def batch_of(fill, people=PEOPLE, chains=True):
    truth, masks = fill["train_batch"](people)
    masks = {name: np.array(value, np.float64) for name, value in masks.items()}
    masks["joint_trunc"][:, PELVIS] = (np.arange(people) % 2 == 0)[:, None]
    if chains:  # else hardly anybody's rotations would be known from the root to a wrist
        masks["smplx_pose_valid"][:, : 3 * 22] = 1
        masks["smplx_pose_valid"][0, 3 * ROTATIONS_53.index("L_Elbow") :][:3] = 0
    masks["is_3D"] = np.ones(people)
    return targets_of({k: torch.from_numpy(np.asarray(v)).double() for k, v in {**truth, **masks}.items()})


def predicted(people=PEOPLE, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    random = lambda *shape: torch.randn(people, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    rotations = roma.rotvec_to_rotmat(0.4 * random(53, 3)).requires_grad_(requires_grad)
    empty = random(3)
    return Prediction(
        rotations=rotations, global_orient=empty, body_pose=empty, left_hand_pose=empty, right_hand_pose=empty,
        jaw_pose=empty, betas=random(10), expression=random(10), cam_trans=empty, hand_roots_6d=random(2, 6),
        joints_144_cam=random(144, 3), joints_proj_cells=6 + 3 * random(137, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def targets(fill):
    return batch_of(fill)


def naive(p, t, person):
    """The sum of every loss of one person, in loops."""
    entry = {}
    truth = roma.rotvec_to_rotmat(t.smplx_pose[person].reshape(53, 3))
    valid = t.smplx_pose_valid[person].reshape(53, 3)[:, 0]
    entry["smplx_pose"] = 10 * sum(float((p.rotations[person, k] - truth[k]).abs().sum() * valid[k]) for k in range(53))
    entry["smplx_orient"] = float((p.rotations[person, 0] - truth[0]).abs().sum() * valid[0])
    joints = p.joints_144_cam[person, list(FROM_144)]
    pelvis_seen = float(t.joint_trunc[person, PELVIS])
    about, part = joints - joints[PELVIS], joints - joints[PELVIS]
    for name, root in {"left_hand": "L_Wrist", "right_hand": "R_Wrist", "face": "Neck"}.items():
        part[PARTS_137[name]] = joints[PARTS_137[name]] - joints[JOINTS_137.index(root)]
    inside, fitted = t.joint_trunc[person], t.smplx_joint_trunc[person]
    entry["joint_cam"] = float(((about - t.joint_cam[person]).abs() * inside).sum()) * 100 * pelvis_seen
    entry["smplx_joint_cam"] = float(((part - t.smplx_joint_cam[person]).abs() * fitted).sum()) * 100
    proj = (p.joints_proj_cells[person] - t.joint_img[person, :, :2]).abs() * inside
    entry["joint_proj"] = float(proj.sum())
    entry["smplx_shape"] = float((p.betas[person] - t.smplx_shape[person]).abs().sum() * t.smplx_shape_valid[person])
    entry["smplx_expr"] = float((p.expression[person] - t.smplx_expr[person]).abs().sum() * t.smplx_expr_valid[person])
    entry["hand_root"] = entry["hand_root_chain"] = 0.0
    for hand, wrist in enumerate(("L_Wrist", "R_Wrist")):
        row, path = ROTATIONS_53.index(wrist), []
        while row != -1:
            path.insert(0, row)
            row = PARENTS[row]
        goal, chain, counts = torch.eye(3).double(), torch.eye(3).double(), pelvis_seen
        for row in path:
            goal, chain, counts = goal @ truth[row], chain @ p.rotations[person, row], counts * float(valid[row])
        said = roma.special_gramschmidt(p.hand_roots_6d[person, hand].reshape(3, 2))
        entry["hand_root"] += counts * float((said - goal).abs().sum())
        entry["hand_root_chain"] += counts * float((chain - goal).abs().sum())
    return entry


def test_every_loss_is_that_of_a_naive_twin(targets):
    p = predicted()
    losses = smplest_x_losses(p, targets)
    one = [naive(p, targets, person) for person in range(PEOPLE)]
    assert losses.keys() == one[0].keys() and WEIGHTS == SMPLEST_X_WEIGHTS
    for name, loss in losses.items():
        expected = [entry[name] for entry in one]
        assert loss.flatten(1).sum(1).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12), name
        assert loss.sum() > 0, name
    assert one[0]["hand_root"] > 0 and one[1]["hand_root"] == 0  # whose pelvis is outside the crop


@pytest.mark.parametrize("people", [1, 2, 3, 4])
def test_what_a_person_counts_does_not_hang_on_who_else_is_there(fill, people):
    whole_targets, p = batch_of(fill), predicted()
    some = dataclasses.replace(
        whole_targets, **{f.name: getattr(whole_targets, f.name)[:people] for f in dataclasses.fields(whole_targets)}
    )
    values = {f.name: getattr(p, f.name) for f in dataclasses.fields(p)}
    part = Prediction(**{name: None if value is None else value[:people] for name, value in values.items()})
    whole, alone = smplest_x_losses(p, whole_targets), smplest_x_losses(part, some)
    for name, loss in alone.items():
        assert loss.shape[0] == people
        torch.testing.assert_close(loss, whole[name][:people], msg=name)


def test_what_masks_hide_changes_nothing(targets):
    p = predicted()
    before = smplest_x_losses(p, targets)
    hidden = {"joint_img": 1 - targets.joint_trunc, "joint_cam": 1 - targets.joint_trunc,
              "smplx_joint_cam": 1 - targets.smplx_joint_trunc, "smplx_pose": 1 - targets.smplx_pose_valid,
              "smplx_expr": 1 - targets.smplx_expr_valid[:, None]}  # fmt: skip
    moved = {name: getattr(targets, name) + 0.7 * mask for name, mask in hidden.items()}
    moved["smplx_joint_img"] = targets.smplx_joint_img + 3
    after = smplest_x_losses(p, dataclasses.replace(targets, **moved))
    for name, loss in before.items():
        torch.testing.assert_close(after[name], loss, msg=name)


def test_the_chain_leaves_the_root_to_the_other_losses(targets):
    p = predicted(requires_grad=True)
    smplest_x_losses(p, targets)["hand_root_chain"].sum().backward()
    moved = p.rotations.grad.abs().sum((0, 2, 3)) > 0
    names = {name for name, yes in zip(ROTATIONS_53, moved.tolist(), strict=True) if yes}
    arm = {"Collar", "Shoulder", "Elbow", "Wrist"}
    assert names == {"Spine_1", "Spine_2", "Spine_3"} | {f"{side}_{part}" for side in "LR" for part in arm}


def test_weights_are_the_callers(targets):
    p, weights = predicted(), {"joint_proj": 3.0, "hand_root": 0.0}
    plain, weighed = smplest_x_losses(p, targets, {}), smplest_x_losses(p, targets, weights)
    for name, loss in plain.items():
        torch.testing.assert_close(weighed[name], loss * weights.get(name, 1.0))
