"""Joints without a mesh: the same as the body layer's."""

import math

import torch

from wholebody.body.joints import JOINTS_137, PARTS_137
from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.config import OSXConfig
from wholebody.model.embedded.skeleton import Skeleton


def test_joints_are_those_of_the_mesh():
    torch.manual_seed(0)
    body = BodyModel.load(flat_hand_mean=True).double()
    skeleton = Skeleton().double()
    skeleton.measure(body)
    turns, betas = axis_angle_to_matrix(0.5 * torch.randn(8, 55, 3).double()), torch.randn(8, 10).double()
    turns[:, 22:25] = torch.eye(3).double()  # an open jaw moves nothing of the body, but a point of the face may shift
    joints = body.joints_137(body.from_matrices(turns, betas, torch.zeros(8, 10).double()).joints)
    off = (skeleton(turns[:, :22], betas) - joints[:, PARTS_137["body"]]).norm(dim=-1)
    on_skin = ["toe" in n or n.endswith(("Heel", "Ear", "Eye", "Nose")) for n in JOINTS_137[PARTS_137["body"]]]
    assert off[:, ~torch.tensor(on_skin)].max() < 1e-9
    assert off.max() < 0.02


def test_the_virtual_camera_is_the_published_one():
    camera = OSXConfig().camera
    farthest = 5000 * 2.5 / math.sqrt(256 * 192)
    place = camera.translation(torch.tensor([[0.1, -0.2, 0.0]]))
    torch.testing.assert_close(place, torch.tensor([[0.1, -0.2, farthest / 2]]))
    point = torch.tensor([[0.3, 0.4, 20.0]])
    x, y = 0.3 / 20.0001 * 5000 / 192 + 0.5, 0.4 / 20.0001 * 5000 / 256 + 0.5
    torch.testing.assert_close(camera.project(point), torch.tensor([[x, y]]))
