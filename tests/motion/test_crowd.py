"""People in each other's way: bodies that the network laid on somebody else are given anew from the key points."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_network import FakeNetwork

from wholebody.fitting.fit import Bodies
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.load import load_model
from wholebody.motion.crowd import SOURCE, ByKeypoints
from wholebody.motion.watch import Place, Watcher, agreement
from wholebody.people.person import Person
from wholebody.people.refine import people_with


@pytest.fixture(scope="module")
def model():
    """As a film's network is: of its body one vertex and the joints."""
    whole = load_model("t")
    whole.body = whole.body.subset([0])
    return whole


@pytest.fixture(scope="module")
def two(model) -> list[Person]:
    """Who stands with hanging arms, and who stands beside them with arms raised; the boxes overlap."""
    turns = torch.zeros(2, 55, 3)
    turns[:, 0, 0] = torch.pi
    turns[0, 16, 2], turns[0, 17, 2] = -1.2, 1.2
    turns[1, 16, 2], turns[1, 17, 2] = 1.0, -1.0
    far = model.config.camera.translation(torch.tensor([[0.0, 0.2, 1.0]])).expand(2, 3)
    focal, principal = torch.full((2, 2), 12_000.0), torch.tensor([[900.0, 700.0], [1050.0, 700.0]])
    bodies = Bodies(axis_angle_to_matrix(turns), torch.zeros(2, 10), torch.zeros(2, 10), far, focal, principal)
    nothing = {
        name: np.zeros(shape, np.float32)
        for name, shape in (
            ("global_orient", 3), ("body_pose", (21, 3)), ("left_hand_pose", (15, 3)), ("right_hand_pose", (15, 3)),
            ("jaw_pose", 3), ("betas", 10), ("expression", 10), ("cam_trans", 3), ("joints_cam", (55, 3)),
            ("vertices_cam", (1, 3)), ("keypoints_px", (133, 2)),
        )
    }  # fmt: skip
    blank = [Person(np.zeros(4), 1.0, **nothing, focal_px=f.numpy(), principal_px=p.numpy())
             for f, p in zip(focal, principal, strict=True)]  # fmt: skip
    people = people_with(blank, bodies, model.body)
    return [in_its_box(person) for person in people]


def in_its_box(person: Person) -> Person:
    body = person.keypoints_px[:17]
    return replace(person, box_xyxy=np.r_[body.min(0) - 20, body.max(0) + 20])


def points_of(person: Person) -> np.ndarray:
    return np.concatenate([person.keypoints_px[:17], np.full((17, 1), 0.8)], 1)


def taken_for(person: Person, other: Person) -> Person:
    """The network's answer to `person`, which is the `other`'s body."""
    return replace(other, box_xyxy=person.box_xyxy, left_hand_pose=np.full((15, 3), 0.1, np.float32))


def test_a_body_goes_where_its_key_points_are(model, two):
    wrong = taken_for(two[1], two[0])
    by = ByKeypoints(model)
    assert by.can(points_of(two[1]))
    (anew,) = by([wrong], [points_of(two[1])])
    limbs = slice(5, 17)
    off = [np.linalg.norm(p.keypoints_px[limbs] - two[1].keypoints_px[limbs], axis=1).mean() for p in (wrong, anew)]
    tall = np.ptp(two[1].keypoints_px[:17, 1])
    assert off[1] < 0.04 * tall < 0.15 * tall < off[0]
    wrists = [15, 16]  # raised above the head, of SMPL-X's joints 20 and 21
    assert (anew.joints_cam[[20, 21], 1] < anew.joints_cam[wrists, 1]).all()
    np.testing.assert_allclose(anew.left_hand_pose, wrong.left_hand_pose, atol=1e-5)
    assert anew.sources["body"] == SOURCE and by([], []) == []


def test_few_key_points_and_networks_that_cannot_answer_to_them(model, two):
    few = points_of(two[1])
    few[11:, 2] = 0.1
    assert not ByKeypoints(model).can(few) and not ByKeypoints(model).can(None)
    assert not ByKeypoints(FakeNetwork()).can(points_of(two[1])) and not ByKeypoints(None).can(few)


@pytest.mark.parametrize("crowded", [True, False])
def test_only_people_in_each_others_way_who_lie_wrongly_are_given_anew(model, two, crowded):
    watcher = Watcher(SimpleNamespace(model=model), None, 1000.0, (1920, 1080), 30.0)
    places = [{4: Place(two[0].box_xyxy, 1.0, points_of(two[0]), crowded),
               7: Place(two[1].box_xyxy, 1.0, points_of(two[1]), crowded)}]  # fmt: skip
    wrong = taken_for(two[1], two[0])
    try:
        ((first, second),) = watcher._told_apart([[two[0], wrong]], places)
    finally:
        watcher.close()
    assert first is two[0]
    if not crowded:
        assert second is wrong
        return
    here, there = places[0][7], places[0][4]
    assert agreement(wrong, here, [there]) == 0 and agreement(second, here, [there]) > 0.8
