"""Refined people: from the `Person`s of a prediction to a fit, and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.fitting.fit import Bodies, FitConfig, Fitter
from wholebody.geometry.camera import project
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.model.network import Network
from wholebody.people.person import Person
from wholebody.people.relift import KeypointLift, SightLift, lift_of

TRUNK_AND_LIMBS = slice(5, 17)  # of the 133: shoulders to ankles
LEAST_KEYPOINTS = 6  # fewer say less about a body than the network does


@dataclass(frozen=True)
class Refined:
    """One person after a fit, and how well it went."""

    person: Person
    moved: bool  # False: there was too little to go by, or nothing better was found; the person is as predicted
    keypoints: int  # how many counted
    error_before: float  # confidence-weighted mean distance, fraction of the larger side of the box; NaN without any
    error: float
    implausible: float  # of the pose, in the prior's units: under 1 usual, over 3 hardly ever seen


def quality(error: float, known: float, implausible: float) -> float:
    """How far a fit can be trusted, 0 to 1: it meets its keypoints, the body's are known, and the pose is possible.

    error, implausible: as in `Refined`. known: share of the keypoints from shoulders to ankles that are given.
    """
    return known / (1 + (error / 0.05) ** 2) / (1 + (implausible / 3) ** 4)


class Refiner:
    """`Refiner(body)(people, keypoints)`; reads the prior once. `body` is the whole body that predicted the people.

    lift: `relift.lift_of(model)`, where the network can answer to keypoints.
    """

    def __init__(
        self,
        body: BodyModel,
        config: FitConfig | None = None,
        lift: SightLift | KeypointLift | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        # Many small matrices: they are quicker on the CPU, wherever the network runs.
        self.body = body if body.template.device.type == "cpu" else copy.deepcopy(body).cpu()
        self.fitter = Fitter(self.body, config, dtype=dtype, lift=lift)

    def __call__(self, people: Sequence[Person], keypoints: np.ndarray) -> list[Refined]:
        """keypoints: (N, 133, 3) COCO-WholeBody x, y in pixels of the picture and confidence, a row a person."""
        keypoints = np.asarray(keypoints, np.float64)
        if keypoints.shape != (len(people), 133, 3):
            raise BadInput(f"{len(people)} people need {len(people)}×133×3 keypoints, got {keypoints.shape}")
        if not people:
            return []
        confidence = torch.from_numpy(np.clip(np.nan_to_num(keypoints[..., 2]), 0, 1))
        size = torch.tensor([float(max(p.box_xyxy[2:] - p.box_xyxy[:2])) for p in people], dtype=torch.float64)
        fitted = self.fitter(self.bodies(people), torch.from_numpy(keypoints[..., :2]), confidence, size)
        counts = (confidence >= self.fitter.config.least_confidence).sum(1).tolist()
        implausible = self.fitter.implausibility(fitted.bodies).tolist()
        rows = []
        for n, (person, after) in enumerate(zip(people, self.people(people, fitted.bodies), strict=True)):
            before, error = float(fitted.error_before[n]), float(fitted.error[n])
            moved = counts[n] >= LEAST_KEYPOINTS and error < before
            unknown = counts[n] == 0
            rows.append(
                Refined(
                    after if moved else person, moved, counts[n],
                    float("nan") if unknown else before, float("nan") if unknown else error if moved else before,
                    implausible[n],
                )
            )  # fmt: skip
        return rows

    def bodies(self, people: Sequence[Person]) -> Bodies:
        """Predicted people as a fit takes them, float64."""

        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([np.asarray(getattr(person, name), np.float64) for person in people]))

        names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
        pose = self.body.full_pose(**{name: stacked(name) for name in names})
        coefficients = (stacked(name) for name in ("betas", "expression", "cam_trans", "focal_px", "principal_px"))
        return Bodies(axis_angle_to_matrix(pose), *coefficients)

    def people(self, people: Sequence[Person], bodies: Bodies) -> list[Person]:
        """The same people with these bodies."""
        like = people[0].betas.dtype
        transl = bodies.transl.to(self.body.dtype)
        out = self.body.from_matrices(
            bodies.rotations.to(self.body.dtype), bodies.betas.to(self.body.dtype),
            bodies.expression.to(self.body.dtype), transl,
        )  # fmt: skip
        seen = self.body.joints_137(out.joints)[:, list(COCO_WHOLEBODY_FROM_137)].numpy()
        pose = matrix_to_axis_angle(bodies.rotations)
        hands = pose[:, 25:] - self.body.hand_mean.to(pose)
        arrays = {
            "global_orient": pose[:, 0],
            "body_pose": pose[:, 1:22],
            "jaw_pose": pose[:, 22],
            "left_hand_pose": hands[:, :15],
            "right_hand_pose": hands[:, 15:],
            "betas": bodies.betas,
            "expression": bodies.expression,
            "cam_trans": bodies.transl,
            "joints_cam": out.joints[:, :55],
            "vertices_cam": out.vertices,
        }
        refined = []
        for n, person in enumerate(people):
            fields: dict[str, Any] = {name: value[n].numpy().astype(like) for name, value in arrays.items()}
            fields["keypoints_px"] = project(seen[n], person.focal_px, person.principal_px).astype(like)
            refined.append(replace(person, **fields))
        return refined


def refine(people: Sequence[Person], keypoints: np.ndarray, model: Network | BodyModel) -> list[Refined]:
    """Fit people to 2D keypoints, each beside how well that went: `[row.person for row in refine(...)]`.

    Args:
        people: of one picture, as `Predictor` gives them.
        keypoints: (N, 133, 3) COCO-WholeBody x, y in pixels of the picture and confidence, a row a person; where the
            confidence is 0 a keypoint is not known.
        model: what predicted the people, or its body.

    To refine the people of many pictures, make one `Refiner`: it reads the prior once.
    """
    if isinstance(model, BodyModel):
        return Refiner(model)(people, keypoints)
    if model.body is None:
        raise BadInput("The model has no body to fit: load it with one (`load_model`).")
    return Refiner(model.body, lift=lift_of(model))(people, keypoints)
