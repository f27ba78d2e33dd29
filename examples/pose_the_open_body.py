"""Pose the embedded body, which needs no registration, and write it as a mesh: `python examples/pose_the_open_body.py
out.ply`."""

from __future__ import annotations

import sys

import torch
import trimesh

import wholebody
from wholebody.body.joints import SMPLX_JOINTS


def main(out: str) -> None:
    body = wholebody.BodyModel.load()
    pose = torch.zeros(1, 21, 3)  # axis-angle, of the joints after the pelvis
    pose[0, SMPLX_JOINTS.index("left_shoulder") - 1] = torch.tensor([0.0, 0.0, 1.2])  # arm up
    with torch.no_grad():
        posed = body(
            betas=torch.zeros(1, 10),  # the mean shape
            expression=torch.zeros(1, 10),
            global_orient=torch.zeros(1, 3),
            body_pose=pose,
            left_hand_pose=torch.zeros(1, 15, 3),
            right_hand_pose=torch.zeros(1, 15, 3),
            jaw_pose=torch.zeros(1, 3),
        )
    trimesh.Trimesh(posed.vertices[0].numpy(), body.faces.numpy(), process=False).export(out)


if __name__ == "__main__":
    main(sys.argv[1])
