"""The lifter of places, and where a body is put so that it is seen where it was found."""

import pytest
import torch

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.geometry.camera import VirtualCamera
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.embedded.pose_lifting import JOINTS, LIMBS, POINTS, Lifted, PoseLifter, PoseLifterConfig, place
from wholebody.model.embedded.skeleton import Skeleton

CAMERA = VirtualCamera()


@pytest.fixture(scope="module")
def lifter():
    torch.manual_seed(0)
    lifter = PoseLifter(PoseLifterConfig(width=32, blocks=1, turn_width=32, turn_blocks=1))
    lifter.skeleton.measure(BodyModel.load(flat_hand_mean=True))
    for part in (lifter.joints, *lifter.turns):
        torch.nn.init.normal_(part.weight, std=0.3)
    return lifter.double().eval()


def places(count=3):
    return torch.cat([torch.randn(count, len(POINTS), 2), torch.rand(count, len(POINTS), 1) + 0.1], 2).double()


def same(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_neither_where_nor_how_large_a_person_is_in_the_picture_matters(lifter):
    torch.manual_seed(1)
    here = places()
    there = torch.cat([here[..., :2] * 37.0 + torch.tensor([400.0, -90.0]), here[..., 2:]], 2)
    same(lifter(here), lifter(there))
    hint = torch.cat([torch.randn(3, len(POINTS), 3), torch.rand(3, len(POINTS), 1)], 2).double()
    moved = torch.cat([hint[..., :3] * 5 + 2, hint[..., 3:]], 2)
    same(lifter(here, hint), lifter(here, moved))


def test_what_is_unknown_may_be_anything_even_no_number(lifter):
    torch.manual_seed(2)
    here = places()
    here[:, 13:17, 2] = 0
    there = here.clone()
    there[:, 13:17, :2] = float("nan")
    answer = lifter(there)
    same(lifter(here), answer)
    assert all(part.isfinite().all() for part in answer)


def test_a_hint_that_knows_nothing_is_no_hint(lifter):
    torch.manual_seed(3)
    here = places()
    hint = torch.randn(3, len(POINTS), 4).double()
    hint[..., 3] = 0
    same(lifter(here), lifter(here, hint))
    hint[..., 3] = 0.8
    assert (lifter(here).rotations - lifter(here, hint).rotations).abs().max() > 1e-4


def test_nobody_known_at_all_is_still_a_body(lifter):
    answer = lifter(torch.zeros(2, len(POINTS), 3).double())
    assert all(part.isfinite().all() for part in answer)
    torch.testing.assert_close(answer.rotations.mT @ answer.rotations, torch.eye(3).double().expand(2, 22, 3, 3))


def test_posed_joints_are_the_bodys_own():
    """The skeleton's points are the mesh's joints, in units of the size of that body."""
    torch.manual_seed(4)
    body = BodyModel.load(flat_hand_mean=True)
    lifter = PoseLifter(PoseLifterConfig(width=8, blocks=1, turn_width=8, turn_blocks=1))
    lifter.skeleton.measure(body)
    rotations = rotation_6d_to_matrix(torch.randn(2, 22, 6))
    betas = torch.randn(2, 10)
    full = torch.eye(3).repeat(2, 55, 1, 1)
    full[:, :22] = rotations
    joints = body.from_matrices(full, betas, torch.zeros(2, 10)).joints[:, lifter.skeleton._rows]
    joints = joints - joints[:, LIMBS].mean(1, keepdim=True)
    posed = lifter.posed(Lifted(joints, rotations, betas)) * lifter.skeleton.size(betas)[:, None, None]
    torch.testing.assert_close(posed, joints, atol=2e-3, rtol=0)  # the nose goes with the head alone
    assert len(JOINTS) == posed.shape[1]


def test_a_body_is_put_where_it_was_seen_in_spite_of_a_wrong_place():
    torch.manual_seed(5)
    skeleton = Skeleton(JOINTS)
    skeleton.measure(BodyModel.load(flat_hand_mean=True))
    points = skeleton(rotation_6d_to_matrix(torch.randn(4, 22, 6)), torch.zeros(4, 10)).double()[:, : len(POINTS)]
    true = torch.tensor([[0.1, -0.2, 30.0], [-0.4, 0.1, 18.0], [0.0, 0.0, 50.0], [1.2, 0.3, 40.0]]).double()
    seen = torch.cat([CAMERA.project(points + true[:, None]), torch.ones(4, len(POINTS), 1).double()], 2)
    found = place(points, seen, CAMERA)
    torch.testing.assert_close(found, true, atol=0.02, rtol=1e-3)
    wrong = seen.clone()
    wrong[:, 9, :2] += 0.3
    off = (CAMERA.project(points + place(points, wrong, CAMERA)[:, None]) - seen[..., :2]).norm(dim=-1).median()
    assert off < 0.01
    wrong[:, 9, :2] = float("nan")
    wrong[:, 9, 2] = 0
    torch.testing.assert_close(place(points, wrong, CAMERA), true, atol=0.02, rtol=1e-3)


def test_placing_can_be_learnt_through_where_points_are_unknown():
    torch.manual_seed(6)
    points = torch.randn(2, len(POINTS), 3, dtype=torch.float64, requires_grad=True)
    seen = torch.rand(2, len(POINTS), 3, dtype=torch.float64)
    seen[:, 3:9, 2] = 0
    place(points, seen, CAMERA).square().sum().backward()
    assert points.grad.isfinite().all() and points.grad.abs().sum() > 0


def test_a_mirrored_person_is_the_mirrored_body(lifter):
    torch.manual_seed(7)
    here, hint = places(), torch.cat([torch.randn(3, len(POINTS), 3), torch.rand(3, len(POINTS), 1)], 2).double()
    swap = {names: [names.index(_other_side(name)) for name in names] for names in (POINTS, JOINTS, SMPLX_JOINTS[:22])}
    there, other_hint = ((x * torch.tensor([-1.0, *[1] * (x.shape[2] - 1)]))[:, swap[POINTS]] for x in (here, hint))
    answer, mirrored = lifter(here, hint), lifter(there, other_hint)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1])).double()
    same(
        (answer.joints[:, swap[JOINTS]] @ mirror, mirror @ answer.rotations[:, swap[SMPLX_JOINTS[:22]]] @ mirror,
         answer.betas),
        mirrored,
    )  # fmt: skip
    torch.testing.assert_close(answer.rotations.det(), torch.ones(3, 22).double())


def _other_side(name):
    if name.startswith("left"):
        return name.replace("left", "right")
    return name.replace("right", "left")
