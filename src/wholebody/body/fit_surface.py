"""Fit a body to surfaces: rotations, shape and place of bodies whose vertices are known, many frames at a time.

First the turn of each bone by the Procrustes fit of the skin that it moves, in turn with the shape, which is linear
once rotations are known; then Gauss-Newton steps on everything at once. Targets are the body's own vertices, seen
elsewhere: how they come about is told in `correspondence.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wholebody.body.kinematics import moved_places
from wholebody.body.skinned import Posed
from wholebody.geometry.rotation import axis_angle_to_matrix

_SAMPLE = 1200
"""Vertices that the fit looks at: each joint has its share, so that fingers count more than their area."""
_FIRST_SPREAD, _LAST_SPREAD = 0.02, 0.004  # metres that a target may be off, at first and in the end
_DAMPING = (1e-4, 1.0)  # the least and the most, as a part of the mean curvature


class Fittable(Protocol):
    """What the fit asks of a body: a `SkinnedBody`, or Anny (`anny_body.py`)."""

    @property
    def template(self) -> Tensor: ...  # (V, 3); its dtype is that of the fit
    @property
    def weights(self) -> Tensor: ...  # (V, J)
    @property
    def joint_names(self) -> tuple[str, ...]: ...
    @property
    def parents(self) -> tuple[int, ...]: ...
    @property
    def shape_mean(self) -> Tensor: ...  # (S,): what the shape is drawn to,
    @property
    def shape_stiffness(self) -> Tensor: ...  # (S,) and how strongly: one over the variance

    def pose(
        self, rotations: Tensor, betas: Tensor, expression: Tensor, transl: Tensor, rows: Tensor | None = None
    ) -> Posed: ...

    def shape_moves(self, betas: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How these vertices and the joints at rest move with the shape about `betas` (B, S): (1 or B, N, 3, S) and
        (1 or B, J, 3, S)."""
        ...

    def next_shape(self, betas: Tensor, step: Tensor) -> Tensor:
        """The shapes (B, S) that follow `betas` (B, S): this step further, or as much of it as the body allows."""
        ...


@dataclass(frozen=True)
class SurfaceFit:
    """B bodies: local rotations (B, J, 3, 3), relaxed hands included; betas (B, S); transl (B, 3), metres."""

    rotations: Tensor
    betas: Tensor
    transl: Tensor


class SurfaceFitter:
    """`SurfaceFitter(body)(targets, expression, person)`; what is the same for all frames is kept.

    trust (V,): how far the target of each vertex counts, from 0 to 1. still: joints that never turn.
    """

    def __init__(
        self, body: Fittable, trust: Tensor | None = None, still: Sequence[str] = (), rounds: int = 3, steps: int = 6
    ) -> None:
        self.body, self.rounds, self.steps = body, rounds, steps
        trust = torch.ones(len(body.template), dtype=body.template.dtype) if trust is None else trust
        self.rows = _spread(body, trust)
        self.trust = trust[self.rows]
        self.weights = body.weights[self.rows]  # (N, J)
        moves_skin = (self.weights * self.trust[:, None]).sum(0) > 1e-2
        self.turning = [j for j, name in enumerate(body.joint_names) if name not in still and moves_skin[j]]
        # Of each joint its vertices and how much it moves each: a vertex has few joints, a product with all is slow.
        self.moving = [(at := column.nonzero()[:, 0], column[at]) for column in self.weights.T]
        share = self._up_the_tree(self.weights.T.clone()[None, :, None])
        self.share = share[0, self.turning]  # (K, 1, N): how much a joint and all below it move each vertex

    def __call__(
        self, targets: Tensor, expression: Tensor, person: Tensor | None = None, betas: Tensor | None = None,
        start: SurfaceFit | None = None,
    ) -> SurfaceFit:  # fmt: skip
        """targets (B, V, 3); expression (B, E), not fitted.

        person (B,) int: rows of the same number share their shape; None: each row has its own. betas (B, S): of these
        shapes, which stay. start: fits of the same rows to set out from, in place of those of the bones' own skin; its
        betas are (B, S) too, where `person` is None.
        """
        seen = targets[:, self.rows]
        fixed = betas is not None
        numbers, who = torch.unique(torch.arange(len(seen)) if person is None or fixed else person, return_inverse=True)
        if start is not None:
            fit = SurfaceFit(start.rotations, start.betas if betas is None else betas, start.transl)
            for _ in range(self.rounds):
                fit = self._step(seen, fit, who, expression, _FIRST_SPREAD, turn=False, fixed=fixed)[0]
        else:
            if betas is None:
                betas = self.body.shape_mean.expand(len(numbers), -1)
            still = torch.eye(3, dtype=seen.dtype).expand(len(seen), len(self.body.joint_names), 3, 3)
            fit = SurfaceFit(still, betas, seen.new_zeros(len(seen), 3))
            for _ in range(self.rounds):
                fit = SurfaceFit(self._procrustes(seen, self._pose(fit, who, expression)), fit.betas, fit.transl)
                fit = self._step(seen, fit, who, expression, _FIRST_SPREAD, turn=False, fixed=fixed)[0]
        fit = self._descend(seen, fit, who, expression, fixed)
        return SurfaceFit(fit.rotations, fit.betas[who], fit.transl)

    def _descend(self, seen: Tensor, fit: SurfaceFit, who: Tensor, expression: Tensor, fixed: bool) -> SurfaceFit:
        """Steps on everything at once (Levenberg and Marquardt): who comes to lie further off goes back, and goes on
        more carefully."""
        best, least = fit, seen.new_full((len(fit.betas),), torch.inf)
        damping = seen.new_full((len(fit.betas),), _DAMPING[0])
        for step in range(self.steps + 1):
            if step < self.steps:
                further, cost = self._step(seen, fit, who, expression, _LAST_SPREAD, True, fixed, damping)
            else:
                cost = self._cost(seen, self._pose(fit, who, expression), fit, who, _LAST_SPREAD)
                further = fit
            better = cost <= least * (1 + 1e-5)  # back where it was is as good
            best, least = _either(better, who, fit, best), torch.minimum(cost, least)
            damping = torch.where(better, damping / 3, damping * 30).clamp(*_DAMPING)
            fit = _either(better, who, further, best)
        return best

    def _cost(self, seen: Tensor, posed: Posed, fit: SurfaceFit, who: Tensor, spread: float) -> Tensor:
        """(P,) for each person: what the steps make small."""
        off = ((seen - posed.vertices).square().sum(-1) * self.trust).sum(1) / spread**2
        unusual = (self.body.shape_stiffness * (fit.betas - self.body.shape_mean).square()).sum(1)
        return unusual.index_add(0, who, off)

    def _pose(self, fit: SurfaceFit, who: Tensor, expression: Tensor) -> Posed:
        return self.body.pose(fit.rotations, fit.betas[who], expression, fit.transl, self.rows)

    def _procrustes(self, seen: Tensor, posed: Posed) -> Tensor:
        """Local rotations (B, J, 3, 3) from the best turn of the skin that each bone moves."""
        w = (self.weights * self.trust[:, None]).T  # (J, N)
        total = w.sum(1).clamp(min=1e-6)[:, None]
        seen_mean, rest_mean = w @ seen / total, w @ posed.resting / total
        outer = (seen[..., :, None] * posed.resting[..., None, :]).flatten(2)  # (B, N, 9)
        spread = (w @ outer).unflatten(-1, (3, 3))
        spread = spread - total[..., None] * seen_mean[..., :, None] * rest_mean[..., None, :]
        u, _, vh = torch.linalg.svd(spread)
        handed = torch.det(u @ vh).sign()[..., None, None]
        turns = list((torch.cat([u[..., :2], u[..., 2:] * handed], -1) @ vh).unbind(1))
        local = [turns[0]]
        turning = set(self.turning)
        for joint, parent in enumerate(self.body.parents[1:], 1):
            if joint not in turning:
                turns[joint] = turns[parent]
            local.append(turns[parent].mT @ turns[joint])
        return torch.stack(local, 1)

    def _step(
        self, seen: Tensor, fit: SurfaceFit, who: Tensor, expression: Tensor, spread: float, turn: bool, fixed: bool,
        damping: Tensor | None = None,
    ) -> tuple[SurfaceFit, Tensor]:  # fmt: skip
        """One Gauss-Newton step of the place, of the shape unless it is fixed, and with `turn` of the rotations; and
        the cost (P,) of where it set out from. damping (P,): of each person, as a part of the mean curvature."""
        posed = self._pose(fit, who, expression)
        cost = self._cost(seen, posed, fit, who, spread)
        root = self.trust.sqrt()[:, None] / spread
        left = (seen - posed.vertices) * root  # (B, N, 3)
        shape = self._shape_moves(posed, fit.betas[who], fixed) * root[..., None]  # (B, N, 3, S), S = 0 where fixed
        count = shape.shape[-1]
        shift = torch.eye(3, dtype=seen.dtype).expand(len(seen), len(self.rows), 3, 3) * root[..., None]
        linear = torch.cat([shift, shape, left[..., None]], -1)  # place, shape, what is left
        products = linear.flatten(1, 2).mT @ linear.flatten(1, 2)
        a, b, g = products[:, :3, :3], products[:, :3, 3:-1], products[:, :3, -1]
        if turn:
            levers = self._levers(posed).mul_(root.T)  # (B, K, 3, N)
            turns = 3 * len(self.turning)
            flat = levers.flatten(1, 2)
            m = (flat @ flat.mT).unflatten(1, (-1, 3)).unflatten(3, (-1, 3))  # (B, K, 3, K, 3)
            # (e_a × u)·(e_b × v) = δ_ab u·v − v_a u_b
            dots = torch.einsum("bkclc->bkl", m)
            still = torch.eye(3, dtype=seen.dtype)
            h = dots[:, :, None, :, None] * still[None, None, :, None, :] - m.permute(0, 1, 4, 3, 2)
            crossed = (flat @ linear.flatten(2)).unflatten(1, (-1, 3)).unflatten(-1, (3, -1))  # (B, K, 3, 3, 3+S+1)
            axes = torch.stack([crossed[:, :, (a + 1) % 3, (a + 2) % 3] - crossed[:, :, (a + 2) % 3, (a + 1) % 3]
                                for a in range(3)], 2).flatten(1, 2)  # (B, 3K, 3+S+1)  # fmt: skip
            h = h.reshape(len(seen), turns, turns)
            a = torch.cat([torch.cat([h, axes[..., :3]], 2), torch.cat([axes[..., :3].mT, a], 2)], 1)
            b = torch.cat([axes[..., 3:-1], b], 1)
            g = torch.cat([axes[..., -1], g], 1)
        size = a.shape[-1]
        held = a.diagonal(dim1=1, dim2=2).mean(1) * (_DAMPING[0] if damping is None else damping[who])
        a = a + held[:, None, None] * torch.eye(size, dtype=seen.dtype)
        # Not `torch.linalg.solve`: on a batch of more than 150 unknowns it hangs or errs on a processor once anybody
        # has called `torch.set_num_threads` (PyTorch's issues 141358 and 142815).
        factor, _ = torch.linalg.cholesky_ex(a)
        solved = torch.cholesky_solve(torch.cat([b, g[..., None]], 2), factor)
        moved, shapes = solved[..., -1], fit.betas
        if not fixed:
            # Frames of one person share the shape: what is left of it once each frame's own unknowns are gone.
            people = shapes.new_zeros(len(shapes), count, count)
            schur = people.index_add(0, who, products[:, 3:-1, 3:-1] - b.mT @ solved[..., :-1])
            right = products[:, 3:-1, -1] - (b.mT @ solved[..., -1:])[..., 0]
            right = shapes.new_zeros(len(shapes), count).index_add(0, who, right)
            right = right + self.body.shape_stiffness * (self.body.shape_mean - shapes)
            if damping is not None:
                schur = schur + (damping[:, None] * schur.diagonal(dim1=1, dim2=2)).diag_embed()
            more = torch.linalg.solve(schur + self.body.shape_stiffness.diag(), right[..., None])[..., 0]
            shapes = self.body.next_shape(shapes, more)
            moved = moved - (solved[..., :-1] @ (shapes - fit.betas)[who][..., None])[..., 0]
        rotations = fit.rotations
        if turn:
            rotations = self._turned(rotations, posed, moved[:, :-3].unflatten(1, (-1, 3)))
        return SurfaceFit(rotations, shapes, fit.transl + moved[:, -3:]), cost

    def _shape_moves(self, posed: Posed, betas: Tensor, fixed: bool) -> Tensor:
        """How vertices (B, N, 3, S) move with the shape, rotations fixed, place fixed."""
        if fixed:
            return posed.vertices.new_zeros(*posed.vertices.shape, 0)
        directions, joints = self.body.shape_moves(betas, self.rows)
        # A bone's shift moves with its joint's place less its turned resting place.
        shifts = moved_places(posed.turns, joints, self.body.parents) - posed.turns @ joints  # (B, J, 3, S)
        turned = (self.weights @ posed.turns.flatten(2)).unflatten(-1, (3, 3)) @ directions
        return turned + (self.weights @ shifts.flatten(2)).unflatten(-1, (3, joints.shape[-1]))

    def _levers(self, posed: Posed) -> Tensor:
        """(B, K, 3, N): a small turn w of joint k moves vertex n by w × lever."""
        resting = posed.resting.mT.contiguous()  # (B, 3, N)
        moved = resting.new_zeros(len(resting), len(self.moving), *resting.shape[1:])  # (B, J, 3, N)
        for joint, (at, weights) in enumerate(self.moving):
            skin = torch.baddbmm(posed.shifts[:, joint, :, None], posed.turns[:, joint], resting[:, :, at])
            moved[:, joint, :, at] = skin * weights
        levers = self._up_the_tree(moved)[:, self.turning]
        return levers.sub_(self.share * posed.joints[:, self.turning, :, None])

    def _up_the_tree(self, moved: Tensor) -> Tensor:
        """(B, J, ...) of each joint, in place: that of the joint and all below it."""
        for joint in range(len(self.body.parents) - 1, 0, -1):
            moved[:, self.body.parents[joint]] += moved[:, joint]
        return moved

    def _turned(self, rotations: Tensor, posed: Posed, turn: Tensor) -> Tensor:
        """Local rotations after small turns (B, K, 3) about the body's axes."""
        still = torch.eye(3, dtype=turn.dtype).expand(len(turn), 3, 3)
        above = torch.stack([posed.turns[:, p] if (p := self.body.parents[k]) >= 0 else still for k in self.turning], 1)
        local = (above.mT @ turn[..., None])[..., 0]
        local = local * (0.7 / local.norm(dim=-1, keepdim=True).clamp(min=0.7))
        result = rotations.clone()
        result[:, self.turning] = axis_angle_to_matrix(local) @ rotations[:, self.turning]
        return result


def _either(chosen: Tensor, who: Tensor, one: SurfaceFit, other: SurfaceFit) -> SurfaceFit:
    """`one` of the people chosen (P,), `other` of the rest."""
    rows = chosen[who]
    return SurfaceFit(
        torch.where(rows[:, None, None, None], one.rotations, other.rotations),
        torch.where(chosen[:, None], one.betas, other.betas),
        torch.where(rows[:, None], one.transl, other.transl),
    )


def _spread(body: Fittable, trust: Tensor) -> Tensor:
    """About `_SAMPLE` trusted vertices, ascending, of which every joint has its share."""
    order = torch.randperm(len(body.template), generator=torch.Generator().manual_seed(0))
    order = order[trust[order] > 0]
    owner = body.weights[order].argmax(1)
    joints = body.weights.shape[1]
    each = max(8, _SAMPLE // (2 * joints))
    picked = torch.cat([order[owner == joint][:each] for joint in range(joints)])
    others = order[~torch.isin(order, picked)][: max(0, _SAMPLE - len(picked))]
    return torch.cat([picked, others]).sort().values
