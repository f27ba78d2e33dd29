"""Refine bodies by 2D keypoints: `refine` is Levenberg-Marquardt on the reprojection, with the pose prior beside it.

The story: the network's answer is the start; each step linearises where the 133 keypoints are seen, adds what the
prior, the joint limits and the network still say, and moves all 182 unknowns of a body at once. People are fitted side
by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wholebody.body.joints import COCO_FACE, COCO_HANDS, COCO_WHOLEBODY, SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.fitting.points import TURNING, KeypointBody
from wholebody.fitting.prior import Mixture, PosePrior
from wholebody.fitting.starts import Starts
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle

_JAW = SMPLX_JOINTS.index("jaw")
_ROOT, _BODY, _JAW_TURN = 0, slice(1, 22), TURNING.index(_JAW)  # among the 53 that turn
_HANDS = slice(23, 53)
# Among the 182 unknowns.
_POSE, _SHAPE, _EXPRESSION, _PLACE = slice(0, 159), slice(159, 169), slice(169, 179), slice(179, 182)
_BODY_NUMBERS, _HAND_NUMBERS, _COEFFICIENTS = slice(3, 66), (slice(69, 114), slice(114, 159)), slice(159, 179)
_MIRROR = (1.0, -1.0, -1.0)


@dataclass(frozen=True)
class FitConfig:
    """How much each source counts. Spreads are standard deviations."""

    noise: float = 0.02
    """Of a keypoint, as a fraction of the larger side of the person's box."""
    detail_noise: float = 0.02
    """The same of the 68 of the face and the 21 of each hand."""
    robust: tuple[float, ...] = (8.0, 4.0)
    """Keypoints further off than this many spreads count less and less (Geman-McClure). One round each: a first answer
    may be far off everywhere, so that only a later round can tell which keypoint is wrong."""
    pose_prior: float = 0.4
    """Weight of the body's mixture."""
    hand_prior: float = 1.0
    shape_prior: float = 1.0
    limit_spread: float = 0.05
    """Radians beyond a joint's limits."""
    root_spread: float = 1.0
    """How far the network's answer may be off: radians, for the pelvis, the body's joints, fingers and jaw."""
    body_spread: float = 1.0
    hand_spread: float = 1.0
    jaw_spread: float = 0.3
    shape_spread: float = 1.0
    """The same for the coefficients."""
    expression_spread: float = 1.0
    steps: int = 10
    """At most, in each round."""
    starts: int = 8
    """Other starts than the network's answer that are tried; the likeliest after a few steps goes on."""
    start_steps: int = 4
    """At most, from each of these."""
    start_margin: float = 6.0
    """How much likelier it must be than what the network's answer leads to (difference of negative log posteriors)."""
    least_confidence: float = 0.05
    """Keypoints below it are left out."""


LIFTED = FitConfig(pose_prior=0.8, root_spread=0.35, body_spread=0.3, shape_spread=0.5)
"""Where a network answered to the keypoints themselves, its answer and what poses are likely count more."""


@dataclass(frozen=True)
class Bodies:
    """B bodies in front of their cameras: what a fit starts from and gives back."""

    rotations: Tensor  # (B, 55, 3, 3) local, of whole joints: the relaxed hand included
    betas: Tensor  # (B, 10)
    expression: Tensor  # (B, 10)
    transl: Tensor  # (B, 3) metres, camera frame
    focal_px: Tensor  # (B, 2)
    principal_px: Tensor  # (B, 2)

    def to(self, dtype: torch.dtype) -> Bodies:
        return Bodies(*(value.to(dtype) for value in vars(self).values()))


@dataclass(frozen=True)
class Fitted:
    """What a fit found."""

    bodies: Bodies
    keypoints_px: Tensor  # (B, 133, 2) of the fitted body, projected
    cost: Tensor  # (B,) negative log posterior, up to a constant
    error: Tensor  # (B,) confidence-weighted mean distance to the keypoints, fraction of the larger side of the box
    error_before: Tensor  # (B,)


@dataclass(frozen=True)
class _Linear:
    """A quadratic model of the cost about one place."""

    cost: Tensor  # (B,)
    pixels: Tensor  # (B, 133, 2)
    slopes: tuple[Tensor, Tensor] | None  # gradient (B, 182) and hessian (B, 182, 182), where they are of use


class Fitter:
    """`Fitter(body)(bodies, keypoints, confidence, size_px)`; keeps what does not depend on the picture.

    lift: from bodies, keypoints and confidence to what the network makes of these keypoints (`relift.KeypointLift`).
    The fit then starts from that, and stays near it.
    """

    def __init__(
        self, body: BodyModel, config: FitConfig | None = None, prior: PosePrior | None = None,
        dtype: torch.dtype = torch.float64, lift: Callable[..., Bodies] | None = None,
    ) -> None:  # fmt: skip
        self.config = config or (LIFTED if lift else FitConfig())
        self.lift = lift
        self.body = KeypointBody(body, dtype)
        self.prior = prior or PosePrior.load(dtype=dtype)
        self.dtype = dtype
        open_body = body.name == "open"
        eye = torch.eye(10, dtype=dtype)
        # The statistics are those of the open body; the published space is measured in spreads already.
        self.shape_mean = self.prior.shape_mean if open_body else torch.zeros(10, dtype=dtype)
        self.shape_whiten = self.prior.shape_whiten if open_body else eye
        self.expression_mean = self.prior.expression_mean if open_body else torch.zeros(10, dtype=dtype)
        self.expression_whiten = self.prior.expression_whiten if open_body else eye
        self.noise = torch.full((len(COCO_WHOLEBODY), 1), self.config.noise, dtype=dtype)
        for rows in (COCO_FACE, *COCO_HANDS):
            self.noise[rows] = self.config.detail_noise
        self.low, self.high = self._limits()
        self.turn_spreads = torch.full((len(TURNING), 1), self.config.hand_spread, dtype=dtype)
        self.turn_spreads[_ROOT] = self.config.root_spread
        self.turn_spreads[_BODY] = self.config.body_spread
        self.turn_spreads[_JAW_TURN] = self.config.jaw_spread
        self.mirror = torch.tensor([[1.0, 1.0, 1.0], _MIRROR], dtype=dtype)[:, None]  # a left hand, a right one
        # Shape and expression side by side: how far from the population, and from the network's answer, costs what.
        self.usual = torch.cat([self.shape_mean, self.expression_mean])
        whiten = torch.block_diag(self.shape_whiten, self.expression_whiten)
        self.usual_metric = self.config.shape_prior * (whiten.mT @ whiten)
        widths = [self.config.shape_spread] * 10 + [self.config.expression_spread] * 10
        self.told_metric = torch.tensor(widths, dtype=dtype).square().reciprocal().diag()
        self.starts = Starts(self.body, self.prior, torch.cat([self.shape_mean, self.expression_mean]))

    def __call__(
        self, bodies: Bodies, keypoints_px: Tensor, confidence: Tensor, size_px: Tensor, hint: Tensor | None = None
    ) -> Fitted:
        """Fit bodies to keypoints.

        Args:
            keypoints_px: (B, 133, 2) COCO-WholeBody, pixels of the picture that the cameras belong to.
            confidence: (B, 133), 0 to 1; 0 where a keypoint is unknown (its place may be anything then).
            size_px: (B,) the larger side of each person's box.
            hint: (B, 25, 4) for a `lift` that takes one; None: there is none.
        """
        start = bodies.to(self.dtype)
        confidence = confidence.to(self.dtype)
        confidence = torch.where(confidence >= self.config.least_confidence, confidence, 0.0)
        # A place that is not a number must not turn everything into none, weight zero or not.
        keypoints_px = torch.where(confidence[..., None] > 0, keypoints_px.to(self.dtype), 0.0)
        if not bool(torch.isfinite(keypoints_px).all()):
            raise BadInput("a keypoint that counts is not a finite number: give it confidence 0")
        evidence = (keypoints_px, confidence, size_px.to(self.dtype))
        widest, *rounds = self.config.robust
        before = None
        if self.lift is not None:
            before = self._error(self.project(start), evidence)
            told = () if hint is None else (hint,)
            start = self.lift(start, keypoints_px, confidence, *told)
        model = self._linearise(start, start, evidence, widest)
        before = self._error(model.pixels, evidence) if before is None else before
        now, model = self._descend(start, model, start, evidence, widest, self.config.steps)
        margin = torch.full_like(model.cost, self.config.start_margin)
        for other in self._other_starts(start, evidence):
            there = self._linearise(other, start, evidence, widest)
            other, there = self._descend(other, there, start, evidence, widest, self.config.start_steps)
            better = there.cost < model.cost - margin
            now, model = _choose(better, other, now), _choose_linear(better, there, model)
            margin = torch.where(better, 0.0, margin)  # between two others the likelier one
        for robust in rounds:
            model = self._linearise(now, start, evidence, robust)
            now, model = self._descend(now, model, start, evidence, robust, self.config.steps)
        return Fitted(now, model.pixels, model.cost, self._error(model.pixels, evidence), before)

    def _other_starts(self, start: Bodies, evidence: tuple[Tensor, Tensor, Tensor]) -> list[Bodies]:
        if not self.config.starts:
            return []
        keypoints, confidence, _ = evidence
        pelvis = self.body.body.rest_pelvis(start.betas, start.expression)
        return self.starts(start, keypoints, confidence, pelvis, self.config.starts)

    def _descend(
        self,
        now: Bodies,
        model: _Linear,
        start: Bodies,
        evidence: tuple[Tensor, Tensor, Tensor],
        robust: float,
        steps: int,
    ) -> tuple[Bodies, _Linear]:
        """Steps that each lower the cost, until nobody gains by any; who is done stays, whoever is beside."""
        damping = torch.full_like(model.cost, 1e-2)
        done = torch.zeros_like(model.cost, dtype=torch.bool)
        for step in range(steps):
            trial = _move(now, _solve(model, damping))
            tried = self._linearise(trial, start, evidence, robust, slopes=step + 1 < steps)
            better = (tried.cost < model.cost) & ~done
            gain = torch.where(better, model.cost - tried.cost, 0.0)
            done |= (gain < 1e-3 * (1 + model.cost)) & (better | (damping > 1e2))
            now, model = _choose(better, trial, now), _choose_linear(better, tried, model)
            damping = torch.where(better, damping * 0.3, damping * 8).clamp(1e-6, 1e6)
            if bool(done.all()):
                break
        return now, model

    def project(self, bodies: Bodies) -> Tensor:
        """Where the 133 keypoints (B, 133, 2) of these bodies are seen."""
        bodies = bodies.to(self.dtype)
        points = self.body.points(bodies.rotations, torch.cat([bodies.betas, bodies.expression], 1))
        at = points + bodies.transl[:, None]
        return at[..., :2] / at[..., 2:] * bodies.focal_px[:, None] + bodies.principal_px[:, None]

    def implausibility(self, bodies: Bodies) -> Tensor:
        """How far from anything known the body's pose is (B,): 0 at the likeliest pose, about 1 for most people."""
        pose = matrix_to_axis_angle(bodies.rotations[:, _BODY].to(self.dtype)).flatten(1)
        # Of a pose drawn from one Gaussian, the energy above its centre is half the number of its freedoms.
        return self.prior.body.energy(pose) / (pose.shape[1] / 2)

    def _error(self, pixels: Tensor, evidence: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        keypoints, confidence, size = evidence
        off = (pixels - keypoints).norm(dim=-1) * confidence
        return off.sum(1) / confidence.sum(1).clamp_min(1e-9) / size

    def _linearise(
        self, now: Bodies, start: Bodies, evidence: tuple[Tensor, Tensor, Tensor], robust: float, slopes: bool = True
    ) -> _Linear:
        """slopes: whether another step goes on from here; the cost alone is a fraction of the work."""
        data = self._data(now, evidence, robust, slopes)
        turns = now.rotations[:, TURNING]
        coefficients = torch.cat([now.betas, now.expression], 1)
        away = coefficients - self.usual
        off = coefficients - torch.cat([start.betas, start.expression], 1)
        pulls = away @ self.usual_metric, off @ self.told_metric
        # Of each turn itself, and from the network's answer.
        vectors = matrix_to_axis_angle(torch.stack([turns, start.rotations[:, TURNING].mT @ turns]))
        poses = vectors[0, :, _BODY], vectors[0, :, _HANDS].unflatten(1, (2, 15)) * self.mirror
        priors = [
            _Nearest.of(mixture, pose.flatten(0, -3).flatten(1))
            for mixture, pose in zip((self.prior.body, self.prior.hand), poses, strict=True)
        ]
        beyond = vectors[0] - vectors[0].clamp(self.low, self.high)
        turned = torch.stack([beyond / self.config.limit_spread, vectors[1] / self.turn_spreads])
        cost = (
            data.cost
            + self.config.pose_prior * priors[0].energy
            + self.config.hand_prior * priors[1].energy.unflatten(0, (-1, 2)).sum(1)
            + turned.square().sum((0, 2, 3)) / 2
            + ((away * pulls[0]).sum(1) + (off * pulls[1]).sum(1)) / 2
        )
        if data.slopes is None:
            return _Linear(cost, data.pixels, None)

        gradient, hessian = data.slopes
        spread = _log_derivative(vectors)
        by_turn = spread[0, :, _BODY], spread[0, :, _HANDS].unflatten(1, (2, 15)) * self.mirror[..., None]
        body = priors[0].slopes(by_turn[0], self.config.pose_prior)
        hands = [
            part.unflatten(0, (-1, 2)) for part in priors[1].slopes(by_turn[1].flatten(0, 1), self.config.hand_prior)
        ]
        for at, (pull, curve) in (
            (_BODY_NUMBERS, body), *((_HAND_NUMBERS[k], (hands[0][:, k], hands[1][:, k])) for k in (0, 1))
        ):  # fmt: skip
            gradient[:, at] += pull
            hessian[:, at, at] += curve
        outside = (beyond != 0).to(beyond) / self.config.limit_spread
        by_turns = spread * torch.stack([outside, (1 / self.turn_spreads).expand_as(outside)])[..., None]
        gradient[:, _POSE] += (by_turns.mT @ turned[..., None]).sum(0).flatten(1)
        blocks = hessian[:, _POSE, _POSE].unflatten(1, (53, 3)).unflatten(3, (53, 3))
        torch.diagonal(blocks, dim1=1, dim2=3).add_((by_turns.mT @ by_turns).sum(0).permute(0, 2, 3, 1))
        gradient[:, _COEFFICIENTS] += pulls[0] + pulls[1]
        hessian[:, _COEFFICIENTS, _COEFFICIENTS] += self.usual_metric + self.told_metric
        return _Linear(cost, data.pixels, (gradient, hessian))

    def _data(
        self, now: Bodies, evidence: tuple[Tensor, Tensor, Tensor], robust: float, slopes: bool = True
    ) -> _Linear:
        """Robust squared distance between the keypoints seen and given, in units of their noise."""
        keypoints, confidence, size = evidence
        unit = self.noise * size[:, None, None]  # (B, 133, 1) pixels
        coefficients = torch.cat([now.betas, now.expression], 1)
        moved = self.body(now.rotations, coefficients) if slopes else None
        points = self.body.points(now.rotations, coefficients) if moved is None else moved.points
        at = points + now.transl[:, None]
        depth = at[..., 2:].clamp_min(1e-2)
        flat = at[..., :2] / depth
        pixels = flat * now.focal_px[:, None] + now.principal_px[:, None]
        residual = (pixels - keypoints) / unit

        squared = residual.square().sum(-1)
        limit = robust**2
        trust = confidence.square()
        share = limit / (limit + squared)
        cost = (trust * share * squared).sum(1) / 2
        if moved is None:
            return _Linear(cost, pixels, None)

        scale = now.focal_px[:, None] / unit / depth  # (B, 133, 2)
        by_place = torch.cat([torch.diag_embed(scale), (-scale * flat)[..., None]], -1)  # (B, 133, 2, 3)
        # Depth moves in fractions of itself: all unknowns are then of one size.
        range_ = now.transl[:, 2].clamp_min(1e-2)[:, None, None, None]
        by_all = (by_place @ moved.by_turn.flatten(3), by_place @ moved.by_shape)
        jacobian = torch.cat([*by_all, by_place[..., :2], by_place[..., 2:] * range_], -1)
        weighted = (jacobian * (trust * share.square())[..., None, None]).flatten(1, 2)  # (B, 266, 182)
        jacobian = jacobian.flatten(1, 2)
        gradient = (weighted.mT @ residual.flatten(1)[..., None])[..., 0]
        return _Linear(cost, pixels, (gradient, weighted.mT @ jacobian))

    def _limits(self) -> tuple[Tensor, Tensor]:
        """(53, 3) each; the pelvis has none."""
        prior, mirror = self.prior, self.prior.hand_low.new_tensor(_MIRROR)
        free = prior.jaw_low.new_full((1, 3), torch.inf)
        right = torch.stack([prior.hand_low * mirror, prior.hand_high * mirror]).sort(0).values
        low = torch.cat([-free, prior.body_low, prior.jaw_low[None], prior.hand_low, right[0]])
        high = torch.cat([free, prior.body_high, prior.jaw_high[None], prior.hand_high, right[1]])
        return low, high


@dataclass(frozen=True)
class _Nearest:
    """Of N poses of J joints the likeliest component of a mixture."""

    energy: Tensor  # (N,) above that of the likeliest pose of all
    whiten: Tensor  # (N, 3 J, 3 J)
    residual: Tensor  # (N, 3 J)

    @classmethod
    def of(cls, mixture: Mixture, poses: Tensor) -> _Nearest:
        energy, best = mixture.energies(poses).min(1)
        whiten = mixture.whiten[best]
        return cls(energy - mixture.floor, whiten, (whiten @ (poses - mixture.mean[best])[..., None])[..., 0])

    def slopes(self, by_turn: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        """Gradient (N, 3 J) and hessian (N, 3 J, 3 J) of the weighted energy, by the turns of the joints: by_turn
        (N, J, 3, 3) says how these change the poses."""
        jacobian = (self.whiten.unflatten(-1, (-1, 3)).transpose(1, 2) @ by_turn).transpose(1, 2).flatten(2)
        return weight * (jacobian.mT @ self.residual[..., None])[..., 0], weight * jacobian.mT @ jacobian


def _solve(model: _Linear, damping: Tensor) -> Tensor:
    """The damped step (B, 182)."""
    assert model.slopes is not None
    gradient, hessian = model.slopes
    diagonal = torch.diagonal(hessian, dim1=1, dim2=2)
    ridge = torch.diag_embed(damping[:, None] * diagonal + 1e-6)
    factor, _ = torch.linalg.cholesky_ex(hessian + ridge)
    return -torch.cholesky_solve(gradient[..., None], factor)[..., 0]


def _move(now: Bodies, step: Tensor) -> Bodies:
    turn = step[:, _POSE].unflatten(1, (53, 3))
    # A step of more than a radian is beyond what the linear model knows.
    turn = turn * (1 / turn.norm(dim=-1, keepdim=True).clamp_min(1))
    rotations = now.rotations.clone()
    rotations[:, TURNING] = rotations[:, TURNING] @ axis_angle_to_matrix(turn)
    place = step[:, _PLACE]
    sideways = now.transl[:, :2] + place[:, :2]
    further = now.transl[:, 2:] * (1 + place[:, 2:].clamp(-0.5, 1.0))
    return replace(
        now, rotations=rotations, betas=now.betas + step[:, _SHAPE], expression=now.expression + step[:, _EXPRESSION],
        transl=torch.cat([sideways, further], 1),
    )  # fmt: skip


def _choose(mask: Tensor, a: Bodies, b: Bodies) -> Bodies:
    return Bodies(*(_where(mask, x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True)))


def _choose_linear(mask: Tensor, a: _Linear, b: _Linear) -> _Linear:
    slopes = None
    if a.slopes is not None and b.slopes is not None:
        slopes = _where(mask, a.slopes[0], b.slopes[0]), _where(mask, a.slopes[1], b.slopes[1])
    return _Linear(_where(mask, a.cost, b.cost), _where(mask, a.pixels, b.pixels), slopes)


def _where(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)


def _log_derivative(vector: Tensor) -> Tensor:
    """How the axis-angle vector (..., 3) of R changes with d in R exp(d): (..., 3, 3)."""
    angle = vector.norm(dim=-1)[..., None, None].clamp(1e-4, 3.1)
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    curve = 1 / angle**2 - (1 + torch.cos(angle)) / (2 * angle * torch.sin(angle))
    return torch.eye(3).to(vector) + cross / 2 + curve * (cross @ cross)
