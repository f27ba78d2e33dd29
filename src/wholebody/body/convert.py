"""One body's parameters to another's: the surface is carried over, and the other body is fitted to it.

    converter = Converter(source, target, find_correspondence(source, target))
    converted = converter(rotations, betas, expression, transl, person=numpy.zeros(frames))

Bodies of the SMPL family share names of joints, not shapes, resting poses or meshes, so numbers cannot be copied. What
carries over is the skin: every frame of the source is posed, its surface read off at the target's vertices
(`correspondence.py`), and the target's rotations, shape and place fitted to that (`fit_surface.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.body.correspondence import Correspondence
from wholebody.body.fit_surface import SurfaceFitter
from wholebody.body.joints import LEFT_HAND_JOINTS, RIGHT_HAND_JOINTS, SMPLX_JOINTS
from wholebody.body.skinned import SkinnedBody
from wholebody.errors import BadInput
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle

_BATCH = 64  # frames at a time
_SHAPE_FRAMES = 48  # of a person, from which their shape is found
_BODY = 22  # joints without hands and face


@dataclass(frozen=True, eq=False)
class BodyParameters:
    """B bodies by their parameters, numpy; radians, metres. A body without fingers, face or eyes has zeros there.

    Hand poses are of whole joints: relative to a flat hand (`flat_hand_mean=True`), whatever the file's relaxed hand.
    """

    global_orient: np.ndarray  # (B, 3)
    body_pose: np.ndarray  # (B, 21, 3)
    left_hand_pose: np.ndarray  # (B, 15, 3)
    right_hand_pose: np.ndarray  # (B, 15, 3)
    jaw_pose: np.ndarray  # (B, 3)
    leye_pose: np.ndarray  # (B, 3)
    reye_pose: np.ndarray  # (B, 3)
    betas: np.ndarray  # (B, S)
    expression: np.ndarray  # (B, E)
    transl: np.ndarray  # (B, 3), as the stock body layer adds it
    hand_turns: np.ndarray | None = None  # (B, 2, 3): SMPL's hands as one piece, its last two joints

    def __len__(self) -> int:
        return len(self.global_orient)


def to_rotations(parameters: BodyParameters, body: SkinnedBody) -> Tensor:
    """Local rotations (B, J, 3, 3) of the joints that this body has."""
    table = _table(parameters)
    count = len(parameters)
    turns = [table.get(name, np.zeros((count, 3))) for name in body.joint_names]
    return axis_angle_to_matrix(torch.from_numpy(np.stack(turns, 1)).to(body.template.dtype))


def from_rotations(
    rotations: Tensor, betas: Tensor, expression: Tensor, transl: Tensor, body: SkinnedBody
) -> BodyParameters:
    """Inverse of `to_rotations`."""
    turns = matrix_to_axis_angle(rotations).double().numpy()
    column = {name: turns[:, k] for k, name in enumerate(body.joint_names)}
    zero = np.zeros((len(turns), 3))

    def several(names: tuple[str, ...]) -> np.ndarray:
        return np.stack([column.get(name, zero) for name in names], 1)

    hands = ("left_hand", "right_hand")
    return BodyParameters(
        global_orient=column["pelvis"],
        body_pose=turns[:, 1:_BODY],
        left_hand_pose=several(LEFT_HAND_JOINTS),
        right_hand_pose=several(RIGHT_HAND_JOINTS),
        jaw_pose=column.get("jaw", zero),
        leye_pose=column.get("left_eyeball", zero),
        reye_pose=column.get("right_eyeball", zero),
        betas=betas.double().numpy(),
        expression=expression.double().numpy(),
        transl=transl.double().numpy(),
        hand_turns=several(hands) if hands[0] in column else None,
    )


def _table(p: BodyParameters) -> dict[str, np.ndarray]:
    whole = np.concatenate([
        p.global_orient[:, None], p.body_pose, p.jaw_pose[:, None], p.leye_pose[:, None], p.reye_pose[:, None],
        p.left_hand_pose, p.right_hand_pose,
    ], 1)  # fmt: skip
    table = {name: whole[:, k] for k, name in enumerate(SMPLX_JOINTS)}
    if p.hand_turns is not None:
        table |= {"left_hand": p.hand_turns[:, 0], "right_hand": p.hand_turns[:, 1]}
    return table


@dataclass(frozen=True, eq=False)
class Converted:
    """The target's parameters, and how far its skin is from the source's, a mean over the skin for each row."""

    parameters: BodyParameters
    error: np.ndarray  # (B,) metres
    expression_kept: bool  # False: the two bodies' files have no face landmarks in common, the face is at rest


class Converter:
    """From `source` to `target`; build it once, call it for many."""

    def __init__(self, source: SkinnedBody, target: SkinnedBody, correspondence: Correspondence) -> None:
        if len(correspondence.corners) != target.num_vertices or correspondence.corners.max() >= source.num_vertices:
            raise BadInput(
                f"this correspondence is of {len(correspondence.corners)} vertices, not of {target.name}'s "
                f"{target.num_vertices} on {source.name}'s {source.num_vertices}"
            )
        self.source, self.target, self.correspondence = source, target, correspondence
        # What the other body has no joint for shall not bend what it has: SMPL's head does not follow a jaw.
        still = () if target.num_joints < 55 or source.num_joints == 55 else ("jaw", "left_eyeball", "right_eyeball")
        trust = torch.from_numpy(1 / (1 + (correspondence.distance / 0.01) ** 2)).to(target.template.dtype)
        self.fitter = SurfaceFitter(target, trust, still)
        self.face = _expression_map(source, target)

    def __call__(self, parameters: BodyParameters, person: np.ndarray | None = None) -> Converted:
        """person (B,) int: frames of the same number are one person, who has one shape; None: each has its own."""
        count = len(parameters)
        who = torch.arange(count) if person is None else torch.from_numpy(np.asarray(person)).long()
        dtype = self.target.template.dtype
        rotations = to_rotations(parameters, self.source)
        betas, expression = (
            torch.from_numpy(_as_wide(value, width)).to(dtype)
            for value, width in (
                (parameters.betas, self.source.shape_dirs.shape[-1]),
                (parameters.expression, self.source.expression_dirs.shape[-1]),
            )
        )
        spoken = expression @ self.face if self.face is not None else expression.new_zeros(count, self._face_width)

        def seen(rows: Tensor) -> tuple[Tensor, np.ndarray]:
            posed = self.source.pose(rotations[rows], betas[rows], expression[rows], betas.new_zeros(len(rows), 3))
            return self.correspondence.carry(posed.vertices), parameters.transl[rows.numpy()]

        found, errors = fit_people(self.fitter, self.target, seen, spoken, who)
        return Converted(found, errors, self.face is not None)

    @property
    def _face_width(self) -> int:
        return self.target.expression_dirs.shape[-1]


Seen = Callable[[Tensor], tuple[Tensor, np.ndarray]]
"""The skin (N, V, 3) of the rows (N,) asked for, and where it has to be moved to (N, 3), both in metres: far from the
camera, millimetres would drown in single precision."""


def fit_people(
    fitter: SurfaceFitter, target: SkinnedBody, seen: Seen, spoken: Tensor, who: Tensor
) -> tuple[BodyParameters, np.ndarray]:
    """The target's parameters for the skin that is seen, all rows of one person (who (B,)) with one shape, and how far
    the two skins are from each other (B,), metres. spoken (B, E): expressions."""
    shapes = _shapes(fitter, target, seen, spoken, who)
    found, errors = [], []
    for rows in torch.arange(len(who)).split(_BATCH):
        skin, place = seen(rows)
        fit = fitter(skin, spoken[rows], betas=shapes[rows])
        posed = target.pose(fit.rotations, fit.betas, spoken[rows], fit.transl)
        errors.append((posed.vertices - skin).norm(dim=-1).mean(1))
        moved = fit.transl.double() + torch.from_numpy(place)
        found.append(from_rotations(fit.rotations, fit.betas, spoken[rows], moved, target))
    joined: dict[str, Any] = {
        name: None if getattr(found[0], name) is None else np.concatenate([getattr(p, name) for p in found])
        for name in vars(found[0])
    }
    return BodyParameters(**joined), torch.cat(errors).double().numpy()


def _shapes(fitter: SurfaceFitter, target: SkinnedBody, seen: Seen, spoken: Tensor, who: Tensor) -> Tensor:
    """The target's betas (B, S): each person's from frames spread over all of theirs."""
    result = spoken.new_zeros(len(who), target.shape_dirs.shape[-1])
    people = torch.unique(who)
    if len(people) == len(who):
        for rows in torch.arange(len(who)).split(_BATCH):
            result[rows] = fitter(seen(rows)[0], spoken[rows]).betas
        return result
    for number in people:
        rows = (who == number).nonzero()[:, 0]
        some = rows[torch.linspace(0, len(rows) - 1, min(_SHAPE_FRAMES, len(rows))).long()]
        result[rows] = fitter(seen(some)[0], spoken[some], torch.zeros(len(some))).betas[:1]
    return result


def _as_wide(value: np.ndarray, width: int) -> np.ndarray:
    """Coefficients cut or filled with zeros to this width."""
    result = np.zeros((len(value), width))
    result[:, : value.shape[1]] = value[:, :width]
    return result


def _expression_map(source: SkinnedBody, target: SkinnedBody) -> Tensor | None:
    """(E_source, E_target): what moves the 51 inner landmarks alike, by regularised least squares."""
    if source.landmark_corners is None or target.landmark_corners is None:
        return None
    ours, theirs = (_landmark_moves(body) for body in (source, target))
    ridge = 1e-2 * theirs.square().sum(0).mean() * torch.eye(theirs.shape[1], dtype=theirs.dtype)
    return torch.linalg.solve(theirs.T @ theirs + ridge, theirs.T @ ours).T


def _landmark_moves(body: SkinnedBody) -> Tensor:
    """(153, E): how the landmarks move with each expression coefficient."""
    assert body.landmark_corners is not None and body.landmark_weights is not None
    weights = torch.from_numpy(body.landmark_weights).to(body.template.dtype)
    moves = body.expression_dirs[torch.from_numpy(body.landmark_corners)]  # (51, 3, 3, E)
    return (moves * weights[..., None, None]).sum(1).flatten(0, 1)
