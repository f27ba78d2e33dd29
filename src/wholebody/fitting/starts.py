"""Other places to start a fit from, for when the network's answer lies in the wrong valley.

The centres of the prior's Gaussians, seen from all around: of each view the turn in the picture, size and place that
suit the keypoints best come in closed form, so hundreds are tried for the price of one step of the fit.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from wholebody.fitting.points import KeypointBody
from wholebody.fitting.prior import PosePrior
from wholebody.geometry.rotation import axis_angle_to_matrix

_BODY = slice(0, 17)  # faces and hands say nothing about which way a body is bent
_YAWS, _PITCHES = 12, (-0.3, 0.15, 0.6)  # radians: cameras look down on people more often than up
_UNLIKELY = 0.15  # of the score, for a view that stands on its head


class Starts:
    """`Starts(body, prior)(bodies, ...)` gives a few `Bodies` for each person."""

    def __init__(self, body: KeypointBody, prior: PosePrior, coefficients: Tensor) -> None:
        """coefficients: (20,) shape and expression of the population's middle."""
        count = len(prior.body.weight)
        like = prior.body.mean
        self.poses = like.new_zeros(count, 55, 3)
        self.poses[:, 1:22] = like.unflatten(1, (21, 3))
        self.poses[:, 25:40] = prior.hand.mean[prior.hand.weight.argmax()].unflatten(0, (15, 3))
        self.poses[:, 40:55] = self.poses[:, 25:40] * like.new_tensor([1, -1, -1])
        self.rotations = axis_angle_to_matrix(self.poses)
        points = body(self.rotations, coefficients.expand(count, -1)).points
        self.points = points - points[:, [11, 12]].mean(1, keepdim=True)  # (K, 133, 3) about the hips
        yaw = torch.arange(_YAWS).to(like) * (2 * math.pi / _YAWS)
        zero = torch.zeros_like(yaw)
        turned = axis_angle_to_matrix(torch.stack([zero, yaw, zero], 1))
        tilts = axis_angle_to_matrix(torch.tensor([[math.pi + p, 0, 0] for p in _PITCHES]).to(like))
        self.views = (tilts[:, None] @ turned).flatten(0, 1)  # (P·Y, 3, 3): body to camera, upright
        self.back = (self.views[:, 2, 2] > 0).long()  # facing away from the camera

    def __call__(self, bodies, keypoints: Tensor, confidence: Tensor, rest_pelvis: Tensor, count: int) -> list:
        """The `count` most promising starts: each a `Bodies` of all B people.

        keypoints (B, 133, 2), confidence (B, 133); rest_pelvis (B, 3) of these shapes.
        """
        weight = confidence[:, _BODY]
        total = weight.sum(1).clamp_min(1e-6)
        target = torch.view_as_complex(keypoints[:, _BODY].contiguous())
        middle = (weight * target).sum(1) / total
        target = target - middle[:, None]
        seen = self.points[:, None, _BODY] @ self.views.mT  # (K, V, 17, 3)
        flat = torch.view_as_complex(seen[..., :2].contiguous()).flatten(0, 1)  # (N, 17)
        centre = (weight.to(flat.dtype) @ flat.T) / total[:, None]  # (B, N)
        across = (weight * target) @ flat.conj().T  # flat's own centre drops out: the target is about its mean
        power = weight @ flat.abs().square().T - total[:, None] * centre.abs().square()
        similarity = across / power.clamp_min(1e-9)  # (B, N) complex: turn and pixels a metre
        residual = (weight * target.abs().square()).sum(1)[:, None] - across.abs().square() / power.clamp_min(1e-9)
        score = residual / (weight * target.abs().square()).sum(1)[:, None].clamp_min(1e-9)
        score = score + _UNLIKELY * (1 - torch.cos(similarity.angle()))

        # The best view of each pose from the front, and from the back: starts should differ.
        kinds, views = len(self.points), len(self.views)
        score = score.unflatten(1, (kinds, views))
        best = []
        for side in (0, 1):
            masked = score.masked_fill(self.back != side, torch.inf)
            best.append(masked.min(2))
        values = torch.cat([b.values for b in best], 1)
        which = torch.cat([b.indices for b in best], 1)
        order = values.argsort(1)[:, :count]
        people = torch.arange(len(target))
        starts = []
        for n in range(order.shape[1]):
            kind = order[:, n] % kinds
            view = which[people, order[:, n]]
            place = similarity[people, kind * views + view]
            turn, scale = place.angle(), place.abs().clamp_min(1e-6)
            zero = torch.zeros_like(turn)
            roll = axis_angle_to_matrix(torch.stack([zero, zero, turn], 1))
            rotations = self.rotations[kind].clone()
            rotations[:, 0] = roll @ self.views[view]
            rotations[:, 22:25] = bodies.rotations[:, 22:25]
            hips = middle - place * centre[people, kind * views + view]
            depth = bodies.focal_px[:, 0] / scale
            offset = (torch.view_as_real(hips) - bodies.principal_px) / bodies.focal_px * depth[:, None]
            transl = torch.cat([offset, depth[:, None]], 1) - rest_pelvis
            starts.append(replace(bodies, rotations=rotations, transl=transl))
        return starts
