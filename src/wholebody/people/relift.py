"""A network's answer given anew from keypoints: what its lifting head makes of places that are known, not found.

A better place to start a fit from, and to stay near, than what the network said of the picture: that errs where it
found joints wrongly.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from wholebody.body.joints import COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, JOINTS_137, PARTS_137
from wholebody.fitting.fit import Bodies
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.embedded.lifting import LiftingBodyHead
from wholebody.model.embedded.pose_lifting import POINTS
from wholebody.model.embedded.sight import Sight
from wholebody.model.osx import OSX

_JOINTS = JOINTS_137[PARTS_137["body"]]
_ROWS = list(COCO_WHOLEBODY_FROM_137)
_GIVEN = [_ROWS.index(joint) if joint in _ROWS else -1 for joint in range(len(_JOINTS))]  # -1: pelvis and neck
_BETWEEN = {  # these lie about between two that are given
    _JOINTS.index("Pelvis"): (_JOINTS.index("L_Hip"), _JOINTS.index("R_Hip")),
    _JOINTS.index("Neck"): (_JOINTS.index("L_Shoulder"), _JOINTS.index("R_Shoulder")),
}
_ENOUGH = 12  # of the 25 joints; fewer say less than the picture did
# What a network says that finds a joint to 2 % of the crop: to lie in the crop, of the best cell; and of a joint that
# it does not see.
_SURE, _BETWEEN_TWO, _UNSURE = (0.98, 0.17), (0.98, 0.12), (0.15, 0.04)


_KNUCKLES = {"index1": "forefinger1", "pinky1": "pinky_finger1"}


def _name_in_coco(point: str) -> str:
    side, _, rest = point.partition("_")
    return f"{side}_{_KNUCKLES[rest]}" if rest in _KNUCKLES else point


POINTS_OF_133 = tuple(COCO_WHOLEBODY.index(_name_in_coco(point)) for point in POINTS)
"""Which of the 133 keypoints each of the points is that sight lifts."""
_ENOUGH_FOR_SIGHT = 8  # of these: a face and two shoulders say less than the picture did


def lift_of(model: Any) -> SightLift | KeypointLift | None:
    """How a network answers to keypoints; None for one that does not lift positions."""
    if isinstance(getattr(model, "body_positions", None), Sight):
        return SightLift(model)
    head = getattr(model, "body_head", None)
    return KeypointLift(model) if isinstance(head, LiftingBodyHead) else None


class SightLift:
    """`SightLift(model)(bodies, keypoints, confidence)`: turned, shaped and placed as these 2D keypoints say."""

    def __init__(self, model: OSX) -> None:
        assert isinstance(model.body_positions, Sight)
        self.sight, self.camera = model.body_positions, model.config.camera

    @torch.no_grad()
    def __call__(self, bodies: Bodies, keypoints_px: Tensor, confidence: Tensor, hint: Tensor | None = None) -> Bodies:
        """keypoints (B, 133, 2) pixels and confidence (B, 133) as a `Fitter` takes them; hint (B, 25, 4) as
        `PoseLifter` does. Hands, jaw and expression stay as they are, and so do people of whom fewer than 8 of the 25
        points are known that sight lifts."""
        like = self.sight.lifter.start.weight
        now = Bodies(*(value.to(like) for value in vars(bodies).values()))
        points = list(POINTS_OF_133)
        rays = (keypoints_px[:, points].to(like) - now.principal_px[:, None]) / now.focal_px[:, None]
        places = self.camera.project(torch.cat([rays, torch.ones_like(rays[..., :1])], 2))
        places = torch.cat([places, confidence[:, points, None].to(like)], 2)
        seen = self.sight.see(places, None if hint is None else hint.to(like))
        rotations = now.rotations.clone()
        rotations[:, :22] = seen.lifted.rotations
        answer = replace(
            now, rotations=rotations, betas=seen.lifted.betas, transl=self.camera.translation(seen.estimate.camera)
        )
        return _where_enough((places[..., 2] > 0).sum(1) >= _ENOUGH_FOR_SIGHT, answer, bodies)


def _where_enough(enough: Tensor, answer: Bodies, bodies: Bodies) -> Bodies:
    enough = enough.to(bodies.betas.device)  # the network may be on another one
    return Bodies(
        *(
            torch.where(enough.reshape(-1, *[1] * (new.ndim - 1)), new.to(old), old)
            for new, old in zip(vars(answer).values(), vars(bodies).values(), strict=True)
        )
    )


class KeypointLift:
    """`KeypointLift(model)(bodies, keypoints, confidence)`: turned, shaped and placed as these 2D keypoints say."""

    def __init__(self, model: OSX) -> None:
        assert isinstance(model.body_head, LiftingBodyHead)
        self.head, self.camera = model.body_head, model.config.camera

    @torch.no_grad()
    def __call__(self, bodies: Bodies, keypoints_px: Tensor, confidence: Tensor) -> Bodies:
        """keypoints (B, 133, 2) pixels and confidence (B, 133) as a `Fitter` takes them. Hands, jaw and expression
        stay as they are, and so do people of whom fewer than 12 of the body's 25 joints are known."""
        like = self.head.root.weight
        now = Bodies(*(value.to(like) for value in vars(bodies).values()))
        # From the picture's camera to the virtual one of the crop.
        rays = (keypoints_px.to(like) - now.principal_px[:, None]) / now.focal_px[:, None]
        places = 2 * self.camera.project(torch.cat([rays, torch.ones_like(rays[..., :1])], 2)) - 1
        places, weight = places[:, _GIVEN], confidence.to(like)[:, _GIVEN]
        for joint, (one, other) in _BETWEEN.items():
            places[:, joint] = (places[:, one] + places[:, other]) / 2
            weight[:, joint] = torch.minimum(weight[:, one], weight[:, other])
        known = weight > 0
        seen = torch.where(known[..., None], like.new_tensor(_SURE), like.new_tensor(_UNSURE))
        for joint in _BETWEEN:
            seen[:, joint] = torch.where(known[:, joint, None], like.new_tensor(_BETWEEN_TWO), seen[:, joint])
        joints = self.head.skeleton(now.rotations[:, :22], now.betas) + now.transl[:, None]
        guess = 2 * self.camera.project(joints) - 1
        places = torch.where(known[..., None], places, guess.clamp(-1.2, 1.2))
        lifted = self.head.lift(torch.cat([places, seen], 2))[-1]
        rotations = now.rotations.clone()
        rotations[:, :22] = rotation_6d_to_matrix(lifted.rotations_6d)
        transl = self.camera.translation(lifted.camera)
        answer = replace(now, rotations=rotations, betas=lifted.betas, transl=transl)
        return _where_enough(known.sum(1) >= _ENOUGH, answer, bodies)
