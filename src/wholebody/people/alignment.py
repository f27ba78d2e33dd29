"""The last stage of a photo: people lifted anew with what landmarkers saw, and their meshes laid onto it.

`Aligner(model)(people, evidence)`: the body is lifted from keypoints with the hint of depth; hands, head, jaw and
expression are taken over as far as they are trusted; then a few steps of the fit move the mesh onto the keypoints. A
limb whose keypoints are unsure stays as it was lifted, and keypoints that a `Person` gives are the mesh's.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.body.joints import COCO_FEET, SMPLX_JOINTS
from wholebody.fitting.fit import Bodies, FitConfig
from wholebody.geometry.rotation import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_rotation_6d,
    rotation_6d_to_matrix,
)
from wholebody.model.embedded.evidence import Evidence
from wholebody.model.embedded.lifting import turn_wrists, wrist_turns
from wholebody.model.embedded.pose_lifting import LIMBS, as_pointed_at
from wholebody.people.person import Person
from wholebody.people.refine import LEAST_KEYPOINTS, SURE, Refiner, bodies_of, people_with, with_unsure_limbs
from wholebody.people.relift import POINTS_OF_133, SightLift
from wholebody.people.stature import Stature

ALIGN = FitConfig(
    robust=(5.0,), steps=3, detail_noise=0.008, starts=0, pose_prior=0.1, hand_prior=0.3, root_spread=0.3,
    body_spread=0.3, hand_spread=0.5, jaw_spread=0.2, shape_prior=0.5, shape_spread=0.3, expression_spread=1.0,
    least_confidence=0.25,
)  # fmt: skip
"""Near to what was lifted: three steps that lay it onto what was seen."""

_LIMBS_SEEN = 10
"""Of the twelve limb joints, for a hint of depth to be taken."""


class Aligner:
    """`model` is one with sight and a body. Reads the prior once; people are aligned together, each by themselves."""

    def __init__(
        self, model: Any, config: FitConfig = ALIGN, gender: str | None = None, height: float | None = None
    ) -> None:
        """gender ("female", "male") and height (metres): of everybody, where they are known."""
        self.stature = Stature(model.body)
        if gender is not None or height is not None:
            config = replace(config, shape_spread=0.05, shape_prior=0.0)  # what is known is not to be fitted away
        self.gender, self.height = gender, height
        self.lift = SightLift(model)
        self.refiner = Refiner(model.body, config, dtype=torch.float32)

    def without_meshes(self) -> Aligner:
        """The same, whose people have one vertex, as films need no more: it shares the rest with this one."""
        light = copy.copy(self)
        light.refiner = copy.copy(self.refiner)
        light.refiner.body = self.refiner.body.subset([0])
        return light

    def __call__(self, people: Sequence[Person], evidence: Evidence) -> list[Person]:
        """people: of one or more pictures, as the network says; evidence: of the same, in that order."""
        if not people:
            return []
        bodies = bodies_of(people, self.refiner.body)
        with torch.inference_mode():
            lifted = self._as_known(self.told(bodies, evidence), evidence)
            fitted = self._laid_on(lifted, people, evidence)
        return people_with(people, fitted, self.refiner.body)

    def told(self, bodies: Bodies, evidence: Evidence) -> Bodies:
        """Bodies lifted from the evidence, with its hands and faces as far as these are trusted."""
        like = bodies.betas

        def given(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(like)

        keypoints, hint = given(evidence.keypoints_px), given(evidence.hint_3d)
        # Of people whom it sees in part BlazePose guesses the rest: feet and depth then say less than nothing.
        sure = keypoints[..., 2].clone()
        sure[:, COCO_FEET] = torch.where(sure[:, COCO_FEET] >= SURE, sure[:, COCO_FEET], 0.0)
        hint = torch.where(given(_sees_whole(evidence))[:, None, None] > 0, hint, 0.0)
        places = torch.where(sure[..., None] > 0, keypoints[..., :2], 0.0)
        lifted = self.lift(bodies, places, sure, hint)
        rotations = lifted.rotations.clone()
        # The network saw the hands: which way they point is not for the lifting to say again.
        seen = torch.ones_like(rotations[:, :2, 0, :1])
        rotations[:, :22] = turn_wrists(rotations[:, :22], wrist_turns(bodies.rotations), seen)
        face = given(evidence.face_confidence)[:, None]
        rotations[:, :22] = _turned_head(rotations[:, :22], given(evidence.head_rotation), 0.8 * face)
        trust = given(evidence.wrist_confidence)[..., None]
        rotations[:, :22] = turn_wrists(rotations[:, :22], given(evidence.wrist_rotations), trust)
        sides = given(evidence.hand_confidence)[:, :, None, None, None]
        hands = rotations[:, 25:55].unflatten(1, (2, 15))
        mixed = _orthonormal(hands + sides.sqrt() * (given(evidence.hand_rotations) - hands))
        rotations[:, 25:55] = mixed.flatten(1, 2)
        jaw = axis_angle_to_matrix(given(evidence.jaw))
        rotations[:, _JAW] = _orthonormal(rotations[:, _JAW] + face[..., None] * (jaw - rotations[:, _JAW]))
        expression = lifted.expression + face * (given(evidence.expression) - lifted.expression)
        return replace(lifted, rotations=rotations, expression=expression)

    def _as_known(self, lifted: Bodies, evidence: Evidence) -> Bodies:
        """Of the gender and height that are given, or of the gender that the face looks like; who grows moves away from
        the camera as much."""
        found = torch.from_numpy((evidence.keypoints_px[..., 2] > 0).any(1)).to(lifted.betas.device)
        betas = torch.where(found[:, None], self.stature.as_found(lifted.betas), lifted.betas)
        if self.gender is not None:
            betas = self.stature.with_gender(betas, self.gender)
        else:
            betas = self.stature.with_looks(betas, torch.from_numpy(evidence.male).to(betas))
        if self.height is not None:
            betas = self.stature.with_height(betas, self.height)
        skeleton = self.lift.sight.lifter.skeleton
        before, after = (skeleton.size(x.to(skeleton.rest)).to(betas) for x in (lifted.betas, betas))
        return replace(lifted, betas=betas, transl=lifted.transl * (after / before)[:, None])

    def _laid_on(self, lifted: Bodies, people: Sequence[Person], evidence: Evidence) -> Bodies:
        keypoints = torch.from_numpy(evidence.keypoints_px).to(lifted.betas)
        places, sure = keypoints[..., :2].clone(), keypoints[..., 2].clamp(0, 1)
        # Shoulders and hips are pointed at above where the mesh has its joints.
        skeleton = self.lift.sight.lifter.skeleton
        joints = skeleton(lifted.rotations[:, :22].to(skeleton.rest), lifted.betas.to(skeleton.rest)).to(places)
        off = as_pointed_at(joints) - joints[:, : len(POINTS_OF_133)]
        depth = (joints[..., 2].mean(1) + lifted.transl[:, 2]).clamp_min(0.1)
        places[:, list(POINTS_OF_133)] -= off[..., :2] / depth[:, None, None] * lifted.focal_px[:, None]
        size = torch.tensor([float(max(p.box_xyxy[2:] - p.box_xyxy[:2])) for p in people]).to(places)
        fitted = self.refiner.fitter(lifted, places, sure, size)
        better = (fitted.error <= fitted.error_before) & ((sure >= SURE).sum(1) >= LEAST_KEYPOINTS)
        rotations = torch.where(
            better[:, None, None, None], fitted.bodies.rotations.to(lifted.rotations), lifted.rotations
        )
        rotations = with_unsure_limbs(rotations, lifted.rotations, sure)
        rest = {
            name: torch.where(better[:, None], getattr(fitted.bodies, name).to(lifted.betas), getattr(lifted, name))
            for name in ("betas", "expression", "transl")
        }
        return replace(lifted, rotations=rotations, **rest)


def depth_hints(evidence: Evidence) -> list[np.ndarray | None]:
    """`Person.hint_3d` of each person: of those whose depth is taken over."""
    whole = _sees_whole(evidence)
    return [hint.astype(np.float32) if taken else None for hint, taken in zip(evidence.hint_3d, whole, strict=True)]


def _sees_whole(evidence: Evidence) -> np.ndarray:
    """Of whom (B) enough limbs are seen that what is said of their depth is of use."""
    seen: np.ndarray = (evidence.hint_3d[:, LIMBS, 3] >= SURE).sum(1)
    return seen >= _LIMBS_SEEN


def _turned_head(body: Tensor, head: Tensor, trust: Tensor) -> Tensor:
    """Body rotations B×22×3×3 with neck and head, half each, turned towards a head (B×3×3, camera axes)."""
    chest = body[:, 0]
    for joint in _TO_NECK:
        chest = chest @ body[:, joint]
    now = body[:, _NECK] @ body[:, _HEAD]
    wanted = _orthonormal(now + trust[..., None] * (chest.mT @ head - now))
    half = axis_angle_to_matrix(0.5 * matrix_to_axis_angle(now.mT @ wanted))
    # now @ half @ half is what is wanted; the neck takes the first half about the head's axes.
    neck = body[:, _NECK] @ body[:, _HEAD] @ half @ body[:, _HEAD].mT
    turned = body.clone()
    turned[:, _NECK] = neck
    turned[:, _HEAD] = neck.mT @ wanted
    return turned


def _orthonormal(matrix: Tensor) -> Tensor:
    return rotation_6d_to_matrix(matrix_to_rotation_6d(matrix))


_JAW = SMPLX_JOINTS.index("jaw")
_NECK, _HEAD = SMPLX_JOINTS.index("neck"), SMPLX_JOINTS.index("head")
_TO_NECK = [SMPLX_JOINTS.index(name) for name in ("spine1", "spine2", "spine3")]
