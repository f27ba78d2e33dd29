"""The open body's parameters as Anny's own (phenotypes, pose, facial actions), and back.

There: each person's phenotypes are fitted to their T-pose; in every frame each of Anny's bones sets out from the turn
of the joint that it belongs to (the map that the open body was baked by) and is refined on the frame's skin. The face
is the mixture of Anny's facial actions, each from 0 to 1, that is nearest to the open body's expression and jaw.

Back: the package's own mesh is what the open body is fitted to, as to that of any other body (`convert.py`).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wholebody.body.anny_body import AnnyBody, AnnyParameters
from wholebody.body.convert import BodyParameters, fit_people, to_rotations
from wholebody.body.fit_surface import SurfaceFit, SurfaceFitter
from wholebody.body.skinned import SkinnedBody
from wholebody.geometry.rotation import axis_angle_to_matrix

_BATCH = 16  # frames at a time: with 104 bones, more do not fit into a processor's cache
_EYES_AND_TONGUE = ("eyeLook", "tongue")  # actions that are left alone: eyes are bones, the open body has no tongue
_FACE_MOVES = 1e-4  # metres: vertices that no action moves further are not looked at
_JAW_OPEN = 0.42  # radians of the jaw at which the face is measured along with the expressions
_SHAPE_STEPS, _POSE_STEPS = 8, 3
_DRAWN = 1000  # people of known phenotypes


class ToAnny:
    """From the open body to Anny; build it once, call it for many."""

    def __init__(self, source: SkinnedBody, anny: AnnyBody) -> None:
        self.source, self.anny = source, anny
        # These stay as their joint has them: skin tells little of how they turn.
        still = [name for name in anny.joint_names if name.startswith(("toe", "metacarpal"))]
        self.shape_fitter = SurfaceFitter(anny, still=still, rounds=1, steps=_SHAPE_STEPS)
        self.pose_fitter = SurfaceFitter(anny, still=still, rounds=1, steps=_POSE_STEPS)
        self.face = FacialActions(source, anny)

    def __call__(
        self, parameters: BodyParameters, person: np.ndarray | None = None
    ) -> tuple[AnnyParameters, np.ndarray]:
        """Anny's parameters, and the mean distance (B,) between the two skins in metres.

        person (B,) int: frames of the same number are one person, who has one shape: that of their first frame.
        """
        dtype = self.anny.template.dtype
        betas = parameters.betas
        if person is not None:
            _, first, row = np.unique(person, return_index=True, return_inverse=True)
            betas = betas[first][row]
        shapes, which = np.unique(betas, axis=0, return_inverse=True)
        resting = self._shapes(torch.from_numpy(shapes).to(dtype))
        kind = torch.from_numpy(which.reshape(-1))
        rotations = to_rotations(parameters, self.source)
        numbers = torch.from_numpy(betas).to(dtype)
        expression = torch.from_numpy(parameters.expression).to(dtype)
        actions = self.face(expression, torch.from_numpy(parameters.jaw_pose).to(dtype))
        found, errors = [], []
        for rows in torch.arange(len(betas)).split(_BATCH):
            # Without its place: far from the camera, millimetres would drown in single precision.
            seen = self.source.pose(rotations[rows], numbers[rows], expression[rows], numbers.new_zeros(len(rows), 3))
            start = self._start(seen.turns, SurfaceFit(*(x[kind[rows]] for x in vars(resting).values())))
            fit = self.pose_fitter(seen.vertices, actions[rows], betas=start.betas, start=start)
            posed = self.anny.pose(fit.rotations, fit.betas, actions[rows], fit.transl)
            errors.append((posed.vertices - seen.vertices).norm(dim=-1).mean(1))
            found.append(self.anny.parameters(posed, fit.betas, actions[rows], parameters.transl[rows.numpy()]))
        joined = {name: np.concatenate([getattr(one, name) for one in found]) for name in vars(found[0])}
        return AnnyParameters(**joined), torch.cat(errors).double().numpy()

    @cached_property
    def _mean(self) -> SurfaceFit:
        """The mean person in the T-pose, fitted from nothing."""
        none = self.source.template.new_zeros(1, self.source.shape_dirs.shape[-1])
        return SurfaceFitter(self.anny, rounds=3, steps=_SHAPE_STEPS)(self._t_pose(none), self._calm(1))

    @cached_property
    def _known(self) -> tuple[Tensor, Tensor]:
        """Phenotypes (N, P) drawn at random, and the betas (N, S) whose skin is nearest to theirs in the T-pose."""
        rows = self.shape_fitter.rows
        draw = torch.rand(_DRAWN, len(self.anny.lowest), generator=torch.Generator().manual_seed(0))
        phenotypes = self.anny.lowest + draw * (1 - self.anny.lowest)
        skins = []
        for some in phenotypes.split(_BATCH):
            turns, place = self._mean.rotations.expand(len(some), -1, -1, -1), some.new_zeros(len(some), 3)
            skins.append(self.anny.pose(turns, some, self._calm(len(some)), place, rows).vertices)
        # Shape and place, by least squares.
        shift = torch.eye(3).expand(len(rows), 3, 3)
        basis = torch.cat([self.source.shape_dirs[rows], shift], -1).flatten(0, 1).double()
        wanted = (torch.cat(skins) - self.source.template[rows]).flatten(1).double()
        return phenotypes, torch.linalg.lstsq(basis, wanted.T).solution.T[:, :-3].to(phenotypes.dtype)

    def _shapes(self, betas: Tensor) -> SurfaceFit:
        """Phenotypes, and the turns of bones that take Anny's rest to the T-pose, of people of these betas (U, S).

        Each sets out from the most alike of many known people: phenotypes have local optima.
        """
        phenotypes, known = self._known
        metric = torch.linalg.qr(self.source.shape_dirs.flatten(0, 1)).R.T  # distances of betas as those of the skin
        alike = torch.cdist(betas @ metric, known @ metric).argmin(1)
        fits = []
        for some, near in zip(betas.split(_BATCH), alike.split(_BATCH), strict=True):
            turns, place = (x.expand(len(some), *x.shape[1:]) for x in (self._mean.rotations, self._mean.transl))
            start = SurfaceFit(turns, phenotypes[near], place)
            fits.append(self.shape_fitter(self._t_pose(some), self._calm(len(some)), start=start))
        return SurfaceFit(*(torch.cat(parts) for parts in zip(*(vars(fit).values() for fit in fits), strict=True)))

    def _t_pose(self, betas: Tensor) -> Tensor:
        still = torch.eye(3, dtype=betas.dtype).expand(len(betas), self.source.num_joints, 3, 3)
        zero = betas.new_zeros(len(betas), self.source.expression_dirs.shape[-1])
        return self.source.pose(still, betas, zero, betas.new_zeros(len(betas), 3)).vertices

    def _calm(self, count: int) -> Tensor:
        return self.anny.template.new_zeros(count, len(self.anny.action_labels))

    def _start(self, turns: Tensor, resting: SurfaceFit) -> SurfaceFit:
        """Each bone as its joint turns it (B, 55, 3, 3) from where it is in the T-pose."""
        still = torch.zeros_like(resting.transl)[:, None].expand(-1, len(self.anny.parents), -1)
        whole = turns[:, self.anny.joint] @ self.anny.tree.pose(resting.rotations, still)[0]
        local = torch.cat([whole[:, :1], whole[:, list(self.anny.parents[1:])].mT @ whole[:, 1:]], 1)
        return SurfaceFit(local, resting.betas, resting.transl)


class FacialActions:
    """Expression and jaw of the open body as facial actions, and back."""

    def __init__(self, source: SkinnedBody, anny: AnnyBody) -> None:
        self.source = source
        first = len(anny.blends) - len(anny.action_labels)
        moves = anny.blends[first : first + len(anny.action_labels)]  # (A, V, 3)
        self.used = [k for k, name in enumerate(anny.action_labels) if not name.startswith(_EYES_AND_TONGUE)]
        self.count = len(anny.action_labels)
        self.rows = (moves[self.used].abs().amax((0, 2)) > _FACE_MOVES).nonzero()[:, 0]
        self.moves = moves[self.used][:, self.rows].flatten(1).T.double().numpy()  # (3 N, A used)

    def __call__(self, expression: Tensor, jaw: Tensor) -> Tensor:
        """(B, A), each from 0 to 1, from expression (B, E) and the jaw's axis-angle (B, 3)."""
        from scipy.optimize import lsq_linear

        result = expression.new_zeros(len(expression), self.count)
        q, r = np.linalg.qr(self.moves)
        for rows in torch.arange(len(expression)).split(_BATCH):
            wanted = self._moved(expression[rows], jaw[rows]).double().numpy() @ q  # (B, A used)
            for row, goal in zip(rows, wanted, strict=True):
                if np.abs(goal).max() > 1e-6:
                    found = lsq_linear(r, goal, (0, 1), method="bvls").x.clip(0, 1)
                    result[row, self.used] = torch.from_numpy(found).to(result.dtype)
        return result

    def _moved(self, expression: Tensor, jaw: Tensor) -> Tensor:
        """How expression and jaw move the face's vertices (B, 3 N)."""
        body, count = self.source, len(expression)
        rotations = torch.eye(3, dtype=jaw.dtype).expand(count + 1, body.num_joints, 3, 3).clone()
        rotations[:count, body.joint_names.index("jaw")] = axis_angle_to_matrix(jaw)
        calm = torch.cat([expression, torch.zeros_like(expression[:1])])
        zero = calm.new_zeros(count + 1, body.shape_dirs.shape[-1])
        posed = body.pose(rotations, zero, calm, calm.new_zeros(count + 1, 3), self.rows)
        return (posed.vertices[:count] - posed.vertices[count:]).flatten(1)

    @cached_property
    def _back(self) -> np.ndarray:
        """(A used, E): each action as expression, by least squares beside a jaw that opens."""
        width = self.source.expression_dirs.shape[-1]
        directions = self.source.expression_dirs[self.rows].flatten(0, 1).double().numpy()  # (3 N, E)
        jaw = self._moved(torch.zeros(1, width), torch.tensor([[_JAW_OPEN, 0.0, 0.0]]))
        basis = np.concatenate([directions, jaw.double().numpy().T], 1)
        return np.linalg.lstsq(basis, self.moves, rcond=None)[0][:width].T

    def back(self, actions: np.ndarray) -> np.ndarray:
        """Expression (B, E) for facial actions (B, A); how the jaw turns is left to the fit of the skin."""
        return actions[:, self.used] @ self._back


class FromAnny:
    """From Anny to the open body; build it once, call it for many."""

    def __init__(self, anny: AnnyBody, target: SkinnedBody) -> None:
        self.anny, self.target = anny, target
        self.fitter = SurfaceFitter(target)
        self.face = FacialActions(target, anny)

    def __call__(
        self, parameters: AnnyParameters, person: np.ndarray | None = None, pose_parameterization: str | None = None
    ) -> tuple[BodyParameters, np.ndarray]:
        """As `Converter`: the open body's parameters, and the mean distance (B,) between the two skins in metres."""
        count, dtype = len(parameters), self.target.template.dtype
        who = torch.arange(count) if person is None else torch.from_numpy(np.asarray(person)).long()

        def seen(rows: Tensor) -> tuple[Tensor, np.ndarray]:
            part = AnnyParameters(*(value[rows.numpy()] for value in vars(parameters).values()))
            vertices = self.anny.vertices(part, pose_parameterization).double()
            place = vertices.mean(1)
            return (vertices - place[:, None]).to(dtype), place.numpy()

        spoken = torch.from_numpy(self.face.back(parameters.facial_actions)).to(dtype)
        return fit_people(self.fitter, self.target, seen, spoken, who)
