"""What SMPLest-X was meant to be trained on, as pure functions.

As in `losses`, nothing is reduced: the mean of each over all entries, masked zeros included, is what is minimised. The
published code has faults that are not copied: there every person's wrists count by everybody's mask, joints outside
the crop count, and one set's last person says for all of it whether hands count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wholebody.body.joints import JOINTS_137, PARENTS, ROTATIONS_53, index
from wholebody.geometry.rotation import axis_angle_to_matrix, rotation_6d_to_matrix
from wholebody.model.prediction import Prediction
from wholebody.training.published.losses import (
    PublishedTargets,
    joints_137,
    masked_l1,
    part_relative,
    pelvis_relative,
    weighed,
)

SMPLEST_X_WEIGHTS = {"smplx_pose": 10.0, "joint_cam": 100.0, "smplx_joint_cam": 100.0}
"""What the published config weighs the losses by; the others count once."""


def smplest_x_losses(
    prediction: Prediction, targets: PublishedTargets, weights: dict[str, float] = SMPLEST_X_WEIGHTS
) -> dict[str, Tensor]:
    """The unreduced losses of SMPLest-X by their published names, each times its weight (1 where `weights` has none).

    Rotations are compared as matrices, entry by entry: `smplx_pose` (B×477, all 53) and `smplx_orient` (B×9, the root
    once more). `smplx_shape`, `smplx_expr` (B×10). `joint_cam` (B×137×3, metres): joints about the pelvis, where it is
    in the crop and the set measured them; `smplx_joint_cam`: those of the fitted mesh about the root of their part;
    `joint_proj` (B×137×2, cells): the mesh's joints projected. Joints outside the crop count in none of them.
    `hand_root` (B×9): how the wrists are turned before the camera, as the network says it of them alone, against the
    target's; `hand_root_chain`: as the body's predicted rotations have it, the root's left to the others. Both sum the
    two hands, and count people whose rotations from the root to that wrist are known and whose pelvis is in the crop.
    """
    p, t = prediction, targets
    assert p.joints_proj_cells is not None and p.hand_roots_6d is not None
    truth, known = axis_angle_to_matrix(t.smplx_pose.unflatten(1, (53, 3))), t.smplx_pose_valid.unflatten(1, (53, 3))
    pose = masked_l1(p.rotations, truth, known.amin(-1)[..., None, None]).flatten(2)
    joints = joints_137(p)
    pelvis = t.joint_trunc[:, index("Pelvis", JOINTS_137)]  # B×1
    in_space = t.joint_trunc * t.is_3d[:, None, None] * pelvis[:, None]
    said = rotation_6d_to_matrix(p.hand_roots_6d)  # B×2×3×3
    root, chain = [], []
    for hand, wrist in enumerate(("L_Wrist", "R_Wrist")):
        rows = _to_root(wrist)
        counts = (known[:, rows].amin((1, 2))[:, None] * pelvis)[..., None]
        goal = _turned(truth, rows)
        root.append(masked_l1(said[:, hand], goal, counts))
        chain.append(masked_l1(_turned(p.rotations, rows, detach_root=True), goal, counts))
    losses = {
        "smplx_orient": pose[:, 0],
        "smplx_pose": pose.flatten(1),
        "smplx_shape": masked_l1(p.betas, t.smplx_shape, t.smplx_shape_valid[:, None]),
        "smplx_expr": masked_l1(p.expression, t.smplx_expr, t.smplx_expr_valid[:, None]),
        "joint_cam": masked_l1(pelvis_relative(joints), t.joint_cam, in_space),
        "smplx_joint_cam": masked_l1(part_relative(joints), t.smplx_joint_cam, t.smplx_joint_trunc),
        "joint_proj": masked_l1(p.joints_proj_cells, t.joint_img[..., :2], t.joint_trunc),
        "hand_root": torch.stack(root).sum(0).flatten(1),
        "hand_root_chain": torch.stack(chain).sum(0).flatten(1),
    }
    return weighed(losses, weights)


def _to_root(joint: str) -> list[int]:
    """The rows of the 53 rotations from the root to a joint of the body, the root first."""
    row, path = ROTATIONS_53.index(joint), []
    while row >= 0:
        path.append(row)
        row = PARENTS[row]  # of the body's 22 joints the rows are those of the tree
    return path[::-1]


def _turned(rotations: Tensor, rows: list[int], detach_root: bool = False) -> Tensor:
    """How the last of `rows` is turned before the camera (B×3×3), from local rotations B×53×3×3."""
    turned = rotations[:, rows[0]]
    turned = turned.detach() if detach_root else turned
    for row in rows[1:]:
        turned = turned @ rotations[:, row]
    return turned
