"""What evidence may do to a body, and what it may not."""

import numpy as np
import pytest
import torch

from wholebody.body.joints import COCO_WHOLEBODY, SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.embedded.build import build_sighted
from wholebody.model.embedded.evidence import Evidence
from wholebody.people.alignment import Aligner, _turned_head
from wholebody.people.person import Person
from wholebody.people.refine import bodies_of, people_with

TO_HEAD = [SMPLX_JOINTS.index(name) for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]


@pytest.fixture(scope="module")
def aligner():
    torch.manual_seed(0)
    body = BodyModel.load(flat_hand_mean=True)
    model = build_sighted(body=body).eval()
    model.body_positions.lifter.skeleton.measure(body)
    return Aligner(model)


@pytest.fixture(scope="module")
def person(aligner):
    """Somebody upright, 20 m away."""
    body = aligner.refiner.body
    zero = np.zeros
    upright = np.array([np.pi, 0, 0], np.float32)
    pose = {"body_pose": zeros(21), "left_hand_pose": zeros(15), "right_hand_pose": zeros(15)}
    transl = np.array([0, 0, 20], np.float32)
    blank = Person(
        box_xyxy=np.array([400.0, 100, 600, 500]), score=1.0, global_orient=upright, **pose,
        jaw_pose=zero(3, np.float32), betas=zero(10, np.float32), expression=zero(10, np.float32), cam_trans=transl,
        focal_px=np.array([5000.0, 5000]), principal_px=np.array([500.0, 300]), joints_cam=zeros(55),
        vertices_cam=zeros(body.num_vertices), keypoints_px=zero((133, 2), np.float32),
    )  # fmt: skip
    return people_with([blank], bodies_of([blank], aligner.refiner.body), aligner.refiner.body)[0]


def zeros(rows):
    return np.zeros((rows, 3), np.float32)


def test_nothing_seen_changes_nothing(aligner, person):
    (after,) = aligner([person], Evidence.nothing(1))
    for name in ("global_orient", "body_pose", "left_hand_pose", "jaw_pose", "betas", "expression", "cam_trans"):
        np.testing.assert_allclose(getattr(after, name), getattr(person, name), atol=2e-3, err_msg=name)


def test_the_head_turns_to_what_is_trusted():
    torch.manual_seed(1)
    body, head = rotation_6d_to_matrix(torch.randn(3, 22, 6)), rotation_6d_to_matrix(torch.randn(3, 6))

    def direction(rotations):
        turn = rotations[:, 0]
        for joint in TO_HEAD[1:]:
            turn = turn @ rotations[:, joint]
        return turn

    turned = _turned_head(body, head, torch.ones(3, 1))
    torch.testing.assert_close(direction(turned), head, atol=1e-4, rtol=0)
    torch.testing.assert_close(_turned_head(body, head, torch.zeros(3, 1)), body, atol=1e-4, rtol=0)
    others = [joint for joint in range(22) if joint not in TO_HEAD[4:]]
    torch.testing.assert_close(turned[:, others], body[:, others])


def test_fingers_come_from_a_hand_that_is_trusted_and_keypoints_are_the_meshs(aligner, person):
    evidence = Evidence.nothing(1)
    curled = rotation_6d_to_matrix(torch.tensor([1.0, 0, 0, 1, 0.5, 0]).expand(15, 6)).numpy()
    evidence.hand_rotations[0, 1], evidence.hand_confidence[0, 1] = curled, 1.0
    (after,) = aligner([person], evidence)
    found = bodies_of([after], aligner.refiner.body).rotations[0, 40:55].float().numpy()
    np.testing.assert_allclose(found, curled, atol=1e-3)
    np.testing.assert_allclose(after.left_hand_pose, person.left_hand_pose, atol=2e-3)
    tip = COCO_WHOLEBODY.index("right_forefinger4")
    assert np.abs(after.keypoints_px[tip] - person.keypoints_px[tip]).max() > 1


def test_a_limb_that_nobody_is_sure_of_stays_as_it_was_lifted(aligner, person):
    """The same keypoints, but for a wrist and an elbow that are elsewhere and unsure."""
    points = np.concatenate([person.keypoints_px, np.full((133, 1), 0.9)], 1).astype(np.float32)
    points[17:, 2] = 0
    arm = [COCO_WHOLEBODY.index(name) for name in ("left_elbow", "left_wrist")]
    points[arm, 2] = 0.26
    still, moved = Evidence.nothing(1), Evidence.nothing(1)
    still.keypoints_px[0] = points
    points[arm, :2] -= 60
    moved.keypoints_px[0] = points
    bodies = bodies_of([person], aligner.refiner.body)
    with torch.inference_mode():
        lifted = aligner.told(bodies, still)
        after = aligner._laid_on(lifted, [person], moved)
    chain = [SMPLX_JOINTS.index(f"left_{name}") for name in ("collar", "shoulder", "elbow", "wrist")]
    torch.testing.assert_close(after.rotations[:, chain], lifted.rotations[:, chain])


def evidence_of(person, shift: float) -> Evidence:
    """The person's own keypoints, moved and stretched, as if they had been seen there."""
    evidence = Evidence.nothing(1)
    middle = person.keypoints_px.mean(0)
    evidence.keypoints_px[0, :, :2] = middle + (person.keypoints_px - middle) * (1 + 0.002 * shift) + shift
    evidence.keypoints_px[0, :, 2] = 0.9
    return evidence


def test_people_of_several_pictures_are_aligned_together_as_alone(aligner, person):
    evidence = [evidence_of(person, 4.0), evidence_of(person, -9.0), Evidence.nothing(1)]
    together = aligner([person] * 3, Evidence.concatenate(evidence))
    for seen, one in zip(evidence, together, strict=True):
        (alone,) = aligner([person], seen)
        for name in ("global_orient", "body_pose", "betas", "cam_trans", "vertices_cam"):
            np.testing.assert_allclose(getattr(one, name), getattr(alone, name), atol=2e-3, err_msg=name)
    assert np.abs(together[0].keypoints_px - together[1].keypoints_px).mean() > 5  # each by their own evidence


def test_without_meshes_all_else_is_the_same(aligner, person):
    evidence = evidence_of(person, 4.0)
    (whole,), (light,) = aligner([person], evidence), aligner.without_meshes()([person], evidence)
    assert light.vertices_cam.shape == (1, 3) and len(whole.vertices_cam) > 1000
    for name in ("body_pose", "betas", "cam_trans", "joints_cam", "keypoints_px"):
        np.testing.assert_allclose(getattr(light, name), getattr(whole, name), atol=1e-4, err_msg=name)
