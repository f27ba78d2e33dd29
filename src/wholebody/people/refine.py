"""Refined people: from the `Person`s of a prediction to a fit, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from wholebody.body.joints import (
    COCO_FACE,
    COCO_FEET,
    COCO_HANDS,
    COCO_WHOLEBODY,
    COCO_WHOLEBODY_FROM_137,
    SMPLX_JOINTS,
)
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.fitting.fit import Bodies, FitConfig, Fitter
from wholebody.geometry.camera import project
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.geometry.similarity import aligned
from wholebody.model.embedded.pose_lifting import LIMBS, POINTS
from wholebody.model.network import Network
from wholebody.people.person import Person
from wholebody.people.relift import KeypointLift, SightLift, lift_of

TRUNK_AND_LIMBS = slice(5, 17)  # of the 133: shoulders to ankles
LEAST_KEYPOINTS = 6  # fewer say less about a body than the network does
SURE = 0.3
"""From which confidence on a keypoint moves the limb that it belongs to."""

_ROWS = list(range(len(COCO_WHOLEBODY)))
PARTS: dict[str, list[int]] = {
    "trunk": [5, 6, 11, 12],
    "arms": [7, 8, 9, 10],
    "legs": [13, 14, 15, 16],
    "feet": _ROWS[COCO_FEET],
    "face": _ROWS[:5] + _ROWS[COCO_FACE],
    "hands": _ROWS[COCO_HANDS[0]] + _ROWS[COCO_HANDS[1]],
}
"""Rows of the 133 keypoints whose gain is told apart."""

_SOMEBODY_ELSE = 0.5  # share of the body's keypoints outside of a person's box from which they are another's
_OWN = 0.1  # of the box's larger side: keypoints as near as this to those predicted (median) are the person's
_MARGIN = 0.2  # of the box's larger side, beyond which a keypoint is outside
_WORSE_3D = 1.1  # times as far from what was seen of depth as before: not taken


@dataclass(frozen=True)
class Refined:
    """One person after a fit, and how well it went."""

    person: Person
    moved: bool  # False: there was too little to go by, or nothing better was found; the person is as predicted
    keypoints: int  # how many counted
    error_before: float  # confidence-weighted mean distance, fraction of the larger side of the box; NaN without any
    error: float
    implausible: float  # of the pose, in the prior's units: under 1 usual, over 3 hardly ever seen
    why: str = ""  # not moved: why not
    gains: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """moved: of each of `PARTS` with keypoints that count, the error before and after, as `error` is measured."""

    def __str__(self) -> str:
        """For a person to read: what was gained where, or why nothing was."""
        if not self.moved:
            return f"left as predicted: {self.why}"
        parts = ", ".join(f"{name} {before:.1%} -> {after:.1%}" for name, (before, after) in self.gains.items())
        return f"{self.error_before:.1%} -> {self.error:.1%} of the box ({parts})"


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
        strangers = [_anothers(n, people, keypoints[n]) for n in range(len(people))]
        keypoints = np.where(np.array(strangers)[:, None, None], 0.0, keypoints)
        confidence = torch.from_numpy(np.clip(np.nan_to_num(keypoints[..., 2]), 0, 1))
        counts = (confidence >= self.fitter.config.least_confidence).sum(1).tolist()
        size = torch.tensor([float(max(p.box_xyxy[2:] - p.box_xyxy[:2])) for p in people], dtype=torch.float64)
        places, before = torch.from_numpy(keypoints[..., :2]), bodies_of(people, self.body)
        fitted = self.fitter(before, places, confidence, size, self._hints(people))
        rotations = with_unsure_limbs(fitted.bodies.rotations, before.rotations, confidence)
        after = replace(fitted.bodies, rotations=rotations)
        pixels = [self.fitter.project(body).numpy() for body in (before, after)]
        implausible = self.fitter.implausibility(after).tolist()
        rows = []
        for n, (person, refined) in enumerate(zip(people, people_with(people, after, self.body), strict=True)):
            seen = (confidence[n] * (confidence[n] >= self.fitter.config.least_confidence)).numpy()
            was, now = (_errors(at[n], keypoints[n, :, :2], seen, float(size[n])) for at in pixels)
            why = ""
            if strangers[n]:
                why = "these keypoints lie on somebody else"
            elif counts[n] < LEAST_KEYPOINTS:
                why = f"{counts[n]} keypoints say less than the picture ({LEAST_KEYPOINTS} are needed)"
            elif not now["all"] < was["all"]:
                why = "no body nearer to the keypoints was found"
            elif _off_in_3d(refined) > _WORSE_3D * _off_in_3d(person):
                why = "it would be nearer to the keypoints and further from the depth that was seen"
            gains = {name: (was[name], now[name]) for name in PARTS if name in was}
            rows.append(
                Refined(
                    person if why else refined, not why, counts[n], was["all"], was["all"] if why else now["all"],
                    implausible[n], why, {} if why else gains,
                )
            )  # fmt: skip
        return rows

    def _hints(self, people: Sequence[Person]) -> torch.Tensor | None:
        if not isinstance(self.fitter.lift, SightLift) or all(person.hint_3d is None for person in people):
            return None
        nothing = np.zeros((25, 4))
        return torch.from_numpy(np.stack([nothing if p.hint_3d is None else p.hint_3d for p in people]).astype(float))


def bodies_of(people: Sequence[Person], body: BodyModel) -> Bodies:
    """Predicted people as a fit takes them, float64; `body` is the one that predicted them, on the CPU."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.asarray(getattr(person, name), np.float64) for person in people]))

    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
    pose = body.full_pose(**{name: stacked(name) for name in names})
    coefficients = (stacked(name) for name in ("betas", "expression", "cam_trans", "focal_px", "principal_px"))
    return Bodies(axis_angle_to_matrix(pose), *coefficients)


def people_with(people: Sequence[Person], bodies: Bodies, body: BodyModel) -> list[Person]:
    """The same people with these bodies; `body` as that of `bodies_of`."""
    like = people[0].betas.dtype
    transl = bodies.transl.to(body.dtype)
    out = body.from_matrices(
        bodies.rotations.to(body.dtype), bodies.betas.to(body.dtype), bodies.expression.to(body.dtype), transl
    )
    seen = body.joints_137(out.joints)[:, list(COCO_WHOLEBODY_FROM_137)].numpy()
    pose = matrix_to_axis_angle(bodies.rotations)
    hands = pose[:, 25:] - body.hand_mean.to(pose)
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


def with_unsure_limbs(rotations: torch.Tensor, before: torch.Tensor, sure: torch.Tensor) -> torch.Tensor:
    """Rotations (B, 55, 3, 3) with the limbs as `before` of which no keypoint is `SURE`; sure: (B, 133)."""
    kept = rotations.clone()
    for points, turns in _LIMBS:
        unsure = sure[:, points].amax(1) < SURE
        kept[:, turns] = torch.where(unsure[:, None, None, None], before[:, turns].to(kept), kept[:, turns])
    return kept


def _limb(side: str, points: Sequence[str], turns: Sequence[str]) -> tuple[list[int], list[int]]:
    return (
        [COCO_WHOLEBODY.index(f"{side}_{name}") for name in points],
        [SMPLX_JOINTS.index(f"{side}_{name}") for name in turns],
    )


_LIMBS = [
    _limb(side, *limb)
    for side in ("left", "right")
    for limb in (
        (("elbow", "wrist"), ("collar", "shoulder", "elbow", "wrist")),
        (("knee", "ankle"), ("hip", "knee", "ankle", "foot")),
    )
]


def _anothers(number: int, people: Sequence[Person], keypoints: np.ndarray) -> bool:
    """Whether keypoints (133, 3) given for one of the people are somebody else's: most of the body's lie outside of
    the box, or they lie on another of the people and not on this one."""
    body = np.arange(17)[keypoints[:17, 2] > 0]
    if len(body) < LEAST_KEYPOINTS:
        return False
    at, box = keypoints[body, :2], people[number].box_xyxy

    def off(person: Person) -> float:
        size = float(max(person.box_xyxy[2:] - person.box_xyxy[:2]))
        return float(np.median(np.linalg.norm(person.keypoints_px[body] - at, axis=1))) / size

    own = off(people[number])
    if own <= _OWN:
        return False
    margin = _MARGIN * float(max(box[2:] - box[:2]))
    inside = ((at >= box[:2] - margin) & (at <= box[2:] + margin)).all(1)
    if inside.mean() < 1 - _SOMEBODY_ELSE:
        return True
    return any(off(other) < 0.3 * own for k, other in enumerate(people) if k != number)


def _errors(pixels: np.ndarray, places: np.ndarray, sure: np.ndarray, size: float) -> dict[str, float]:
    """Confidence-weighted mean distances as fractions of `size`: "all" (NaN without any keypoint), and of those of
    `PARTS` that are known."""
    off = np.where(sure > 0, np.linalg.norm(pixels - places, axis=1), 0.0) * sure / size

    def mean(rows: Any) -> float:
        return float(off[rows].sum() / sure[rows].sum())

    errors = {name: mean(rows) for name, rows in PARTS.items() if sure[rows].any()}
    return {"all": mean(slice(None)) if sure.any() else float("nan")} | errors


def _off_in_3d(person: Person) -> float:
    """How far the limbs' joints are from where a landmarker saw them in depth, metres; 0 where nothing did."""
    if person.hint_3d is None:
        return 0.0
    both = person.hint_3d[LIMBS, :3], person.joints_cam[_LIMB_JOINTS]
    seen, now = (torch.from_numpy(points.astype(np.float64)) for points in both)
    return float((aligned(seen, now) - now).norm(dim=1).mean())


_LIMB_JOINTS = [SMPLX_JOINTS.index(name) for name in POINTS[LIMBS]]


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
