"""Poses without pictures for `PoseLifter`: people of any build, seen from anywhere, found as roughly as networks do.

What is known of a person differs from one to the next: whole people, upper bodies, somebody whom the picture's border
cuts, legs that a table hides; the places of MoveNet Thunder alone, or with BlazePose's feet, knuckles and depth.
How far off these are was measured on drawn people (docs/embedded-model.md) and is made up here after that; or it is
lent by a drawn person who looks alike (`sightings`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholebody.body.joints import flip_permutation
from wholebody.body.open_body import COMPACT_PATH, read_compact
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.embedded.pose_lifting import (
    JOINTS,
    LIMBS,
    POINTS,
    Lifted,
    PoseLifter,
    as_pointed_at,
    mirrored_turns,
)
from wholebody.model.embedded.sight import LEAST_SCORE
from wholebody.model.embedded.skeleton import TREE, Skeleton
from wholebody.synthesis.sets.poses import read_people
from wholebody.training.own.poses import LiftingBatches
from wholebody.training.own.sightings import Sightings

_COUNT, _COCO = len(POINTS), 17
_ROW = {name: row for row, name in enumerate(POINTS)}
_SWAP = torch.from_numpy(flip_permutation(POINTS))


def _rows(*parts: str) -> Tensor:
    return torch.tensor([any(part in name for part in parts) for name in POINTS])


_LEGS, _ARMS = _rows("knee", "ankle", "toe", "heel"), _rows("elbow", "wrist", "index", "pinky")
_FACE, _FEET, _KNUCKLES = _rows("nose", "eye", "ear"), _rows("toe", "heel"), _rows("index", "pinky")
_LEFT = torch.tensor([name.startswith("left") for name in POINTS])
_ENDS = _rows("wrist", "ankle", "toe", "heel", "index", "pinky")
_BEYOND = _FEET | _KNUCKLES  # what Thunder does not know
_SURFACE = _rows("shoulder", "hip")  # pointed at on the skin, not where they turn
_LENT = 0.4  # of the people, where there are sightings


class PlaceBatches:
    """`batch(n, size)` is a function of (seed, n) alone: float32, on the CPU."""

    def __init__(
        self,
        folders: str | Path | list[str | Path],
        seed: int,
        exact: bool = False,
        sightings: Sightings | None = None,
    ) -> None:
        """folders: of `wholebody synth --poses`, or of layers. exact: places as they are, all known, no hint, the
        shapes of the people themselves: to measure with. sightings: who lends errors to a part of the people."""
        folders = [folders] if isinstance(folders, str | Path) else folders
        people = [read_people(folder) for folder in folders]
        poses = torch.as_tensor(np.concatenate([p["full_pose"][:, :TREE] for p in people]), dtype=torch.float32)
        self.turns = axis_angle_to_matrix(poses)
        self.betas = torch.as_tensor(np.concatenate([p["betas"] for p in people]), dtype=torch.float32)
        body = read_compact(COMPACT_PATH)
        known, age = torch.from_numpy(body["people_betas"].astype(np.float32)), body["people_age"]
        self.adults, self.children = known[torch.from_numpy(age >= 15)], known[torch.from_numpy(age < 15)]
        self.skeleton, self.shape_axes = measured_skeleton(), _shape_axes()
        self.seed, self.exact, self.sightings = seed, exact, sightings

    def __len__(self) -> int:
        return len(self.turns)

    @torch.no_grad()
    def batch(self, number: int, size: int, start: int | None = None) -> dict[str, Tensor]:
        """`places`, `hint` as `PoseLifter.lift` takes them; `rotations`, `betas`, `joints` as it gives them; `true`:
        places without any error, B×25×2; `again`, `known`, `shake`: see `doubtful_hints`; `shape_axes` (10, 10):
        `betas @ shape_axes` is measured in metres of the skin (its squared length is the mean squared way that the
        skin goes). start: people in order from this one on, else any."""
        draw = _Draw(self.seed, number)
        if start is None:
            pick = torch.randint(len(self.turns), (size,), generator=draw.generator)
        else:
            pick = torch.arange(start, start + size)
        turns, betas = self.turns[pick], self.betas[pick]
        if not self.exact:
            betas = self._shapes(draw, size)
            turns = _exchanged(draw, _mirrored(turns, draw.uniform(size) < 0.5))
        turns = torch.cat([_views(draw, size, self.exact)[:, None] @ turns[:, :1], turns[:, 1:]], 1)
        joints = self.skeleton(turns, betas)
        joints = joints - joints[:, LIMBS].mean(1, keepdim=True)
        distance = torch.exp(draw.uniform(size) * np.log(20 / 1.5)) * 1.5
        depth = (joints[:, :_COUNT, 2] + distance[:, None]).clamp_min(0.35)
        shown = joints[:, :_COUNT] if self.exact else as_pointed_at(joints, self._pointing(draw, size))
        nearness = (distance[:, None] / depth)[..., None]
        true = shown[..., :2] * nearness
        if self.exact:
            places = torch.cat([true, torch.ones(size, _COUNT, 1)], 2)
            places[:, _BEYOND] = 0.0
            hint, again, known = torch.zeros(size, _COUNT, 4), places, torch.full((size,), -1.0)
            shake = torch.zeros(size, _COUNT, 3)
        else:
            places, deep, outside = found(draw, true)
            if self.sightings is not None:
                places, outside = self._lent(draw, joints, nearness, places, outside)
            hint = hinted(draw, joints[:, :_COUNT], deep, outside)
            again = found(draw, true)[0]
            known = torch.where(draw.uniform(size) < 0.5, 0.6 * draw.uniform(size), -1.0)
            shake = torch.tensor([0.05, 0.05, 0.08]) * draw.normal(size, _COUNT, 3)
            shake = shake * torch.exp(0.4 * draw.normal(size, 1, 1))
        unit = self.skeleton.size(betas)[:, None, None]
        return {
            "places": places, "hint": hint, "rotations": turns, "betas": betas, "joints": joints / unit, "true": true,
            "shape_axes": self.shape_axes, "again": again, "known": known, "shake": shake,
        }  # fmt: skip

    def _lent(
        self, draw: _Draw, joints: Tensor, nearness: Tensor, places: Tensor, outside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Places and what lies outside, of some as Thunder found somebody who looks alike; of feet and knuckles, which
        it does not know, those that are there remain."""
        assert self.sightings is not None
        who = draw.uniform(len(joints)) < _LENT
        seventeen = joints[who, :_COCO]
        lent = self.sightings.lend(draw.generator, seventeen[..., :2] * nearness[who, :_COCO], seventeen[..., 2])
        sure = torch.where(lent.score < LEAST_SCORE, 0.0, lent.score)
        places, outside = places.clone(), outside.clone()
        places[who, :_COCO] = torch.cat([lent.at, sure[..., None]], 2)
        outside[who, :_COCO] = lent.outside
        return places, outside

    def _pointing(self, draw: _Draw, size: int) -> Tensor:
        """How much of `as_pointed_at` (B): all of it, more or less; who gives keypoints may mean the joints."""
        usual = 1 + 0.35 * draw.normal(size)
        return torch.where(draw.uniform(size) < 0.15, draw.uniform(size), usual)

    def _shapes(self, draw: _Draw, size: int) -> Tensor:
        """As in the world: men, women, some children; a fifth of them far from anybody known."""
        adult = self.adults[torch.randint(len(self.adults), (size,), generator=draw.generator)]
        child = self.children[torch.randint(len(self.children), (size,), generator=draw.generator)]
        known = torch.where(draw.uniform(size, 1) < 0.07, child, adult) + 0.3 * draw.normal(size, 10)
        return torch.where(draw.uniform(size, 1) < 0.2, (1.1 * draw.normal(size, 10)).clamp(-2.5, 2.5), known)


SIGHT = "sight_"


class SightBatches:
    """For a network with sight: what its hands learn of `LiftingBatches`, and `PlaceBatches` under names that begin
    with `SIGHT`."""

    def __init__(self, hands: LiftingBatches, places: PlaceBatches) -> None:
        self.hands, self.places = hands, places

    def batch(self, number: int, size: int) -> dict[str, Tensor]:
        places = self.places.batch(number, size)
        return self.hands.batch(number, size) | {SIGHT + name: value for name, value in places.items()}


class _Draw:
    """Random numbers, a function of the seed and a number."""

    def __init__(self, seed: int, number: int) -> None:
        self.generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 62))

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


def measured_skeleton() -> Skeleton:
    """The open body's."""
    from wholebody.body.layer import BodyModel

    skeleton = Skeleton(JOINTS)
    skeleton.measure(BodyModel.load(flat_hand_mean=True))
    return skeleton


def found(draw: _Draw, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places B×25×3 as networks would find them, whether (B) the second one is asked too (feet, knuckles, depth), and
    what lies beyond the picture (B×25).

    true: B×25×2, any unit.
    """
    size = len(true)
    low, high = true.amin(1), true.amax(1)
    height = (high - low).amax(1)[:, None]  # about the larger side of the person's box
    at = true.clone()

    # Limbs taken for the other side's; both arms' or legs' ends in one place.
    for limb, swapped, same in ((_LEGS, 0.02, 0.03), (_ARMS, 0.025, 0.045)):
        chosen = (draw.uniform(size, 1) < swapped) & limb
        at = torch.where(chosen[..., None], at[:, _SWAP], at)
        chosen = (draw.uniform(size, 1) < same) & limb & _ENDS & (_LEFT == (draw.uniform(size, 1) < 0.5))
        at = torch.where(chosen[..., None], at[:, _SWAP], at)
    # Errors by score: at 0.8 half of the joints are within 1.5 % of the person's height, at 0.15 within 7 %.
    hidden = draw.uniform(size, _COUNT) < (0.15 * torch.exp(0.7 * draw.normal(size, 1))).clamp_max(0.6)
    middle, spread = torch.where(hidden, 0.5, 0.69), torch.where(hidden, 0.2, 0.15)
    score = (middle + spread * draw.normal(size, _COUNT) + 0.08 * draw.normal(size, 1)).clamp(0.03, 0.95)
    sigma = (0.011 + 0.1 * torch.exp(-score / 0.15)) * torch.exp(0.25 * draw.normal(size, 1))
    sigma = sigma * torch.exp(0.55 * draw.normal(size, _COUNT)) * torch.where(_FACE, 0.65, 1.0)
    sigma = sigma * torch.where(_SURFACE, 1.35, 1.0) * torch.where(hidden, 1.8, 1.0)
    tail = draw.uniform(size, _COUNT) < torch.where(hidden, 0.08, 0.025)
    sigma = torch.where(tail, 5 * sigma, sigma).clamp_max(0.25)
    at = at + draw.normal(size, _COUNT, 2) * (sigma * height)[..., None]

    # The picture's border: nothing is seen beyond it, and what is guessed lies before it.
    cut, keep = _border(draw, true, low, high)
    outside = ((true < cut[:, :2].unsqueeze(1)) | (true > cut[:, 2:].unsqueeze(1))).any(-1)
    inside_at = torch.maximum(torch.minimum(at, cut[:, None, 2:]), cut[:, None, :2])
    anywhere = low[:, None] + draw.uniform(size, _COUNT, 2) * (high - low)[:, None]
    inside_at = inside_at + 0.4 * draw.uniform(size, _COUNT, 1) * (anywhere - inside_at)
    at = torch.where(outside[..., None], inside_at, at)
    score = torch.where(outside, 0.02 + 0.45 * draw.uniform(size, _COUNT) ** 2.2, score)
    known = ~outside | ~keep

    # Any subset may be unknown.
    rate = torch.where(draw.uniform(size, 1) < 0.3, 0.6 * draw.uniform(size, 1), 0.0)
    known &= draw.uniform(size, _COUNT) >= rate
    known &= ~((draw.uniform(size, 1) < 0.06) & _LEGS)
    known &= ~((draw.uniform(size, 1) < 0.06) & _FACE)
    for limb in (_LEGS & _LEFT, _LEGS & ~_LEFT, _ARMS & _LEFT, _ARMS & ~_LEFT):
        known &= ~((draw.uniform(size, 1) < 0.02) & limb)
    second = draw.uniform(size) < 0.6
    known &= second[:, None] | ~_BEYOND
    # Given by hand: exact, of confidence one.
    given = draw.uniform(size, 1) < 0.25
    at = torch.where((given & ~outside)[..., None], true + 0.004 * height[..., None] * draw.normal(size, _COUNT, 2), at)
    score = torch.where(given, 1.0, score)
    known &= ~(given & outside)
    return torch.cat([at, torch.where(known, score, 0.0)[..., None]], 2), second, outside


def _border(draw: _Draw, true: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Borders (B, 4) low and high of the picture; and (B, 1) whether who looks knows that it sees nothing there."""
    size = len(true)
    far = 10 * (high - low).amax(1, keepdim=True)
    cut = torch.cat([low - far, high + far], 1)
    levels = (
        torch.stack(
            [
                true[:, _ROW[f"left_{n}"], 1] + true[:, _ROW[f"right_{n}"], 1]
                for n in ("shoulder", "hip", "knee", "ankle")
            ],
            1,
        )
        / 2
    )
    span = (levels[:, :1] - levels[:, 1:2]).abs()
    which = torch.randint(1, 4, (size, 1), generator=draw.generator)
    level = levels.gather(1, which) + (draw.uniform(size, 1) - 0.6) * span
    level = torch.maximum(level, levels[:, :1] + 0.3 * span)
    upright = levels[:, :1] < levels[:, 1:2]
    bottom = (draw.uniform(size, 1) < 0.27) & upright
    cut[:, 3:] = torch.where(bottom, level, cut[:, 3:])
    for column, often in ((0, 0.04), (2, 0.04), (1, 0.02)):
        share = 0.05 + 0.4 * draw.uniform(size, 1)
        axis = column % 2
        edge = low[:, axis : axis + 1] + share * (high - low)[:, axis : axis + 1]
        if column == 2:
            edge = high[:, :1] - share * (high - low)[:, :1]
        cut[:, column : column + 1] = torch.where(draw.uniform(size, 1) < often, edge, cut[:, column : column + 1])
    return cut, draw.uniform(size, 1) < 0.5


def hinted(draw: _Draw, joints: Tensor, second: Tensor, outside: Tensor) -> Tensor:
    """B×25×4: what BlazePose would say in 3D of joints B×25×3 (metres, about the limbs' middle).

    Measured on 283 whole people: tilted by 7 degrees (median) about the picture's axes, flattened in depth, one limb in
    ten bent to the other side of the picture's plane; 86 mm off after Procrustes' alignment.
    """
    size = len(joints)
    extent = joints[:, LIMBS].square().sum(-1).mean(1).sqrt()[:, None, None]
    tilt = axis_angle_to_matrix(draw.normal(size, 3) * torch.tensor([0.16, 0.15, 0.035]))
    at = joints @ tilt.mT
    at = torch.cat([at[..., :2], at[..., 2:] * torch.exp(0.25 * draw.normal(size, 1, 1) - 0.2)], 2)
    for limb, root, often in (("elbow", "shoulder", 0.22), ("knee", "hip", 0.15)):
        for side in ("left", "right"):
            below = (_ARMS if limb == "elbow" else _LEGS) & (_LEFT == (side == "left"))
            flat = at[:, _ROW[f"{side}_{root}"], 2][:, None]
            share = torch.where(draw.uniform(size, 1) < often, 2 * draw.uniform(size, 1), 0.0) * below
            at = torch.cat([at[..., :2], (at[..., 2] + share * (flat - at[..., 2]))[..., None]], 2)
    noise = torch.exp(0.4 * draw.normal(size, 1, 1) + 0.5 * draw.normal(size, _COUNT, 1))
    noise = noise * torch.tensor([0.05, 0.05, 0.09]) * torch.where(_ENDS, 1.3, 1.0)[:, None]
    noise = noise * torch.where(outside, 2.5, 1.0)[..., None]
    at = at + extent * noise * draw.normal(size, _COUNT, 3)
    sure = (1 - 0.12 * draw.uniform(size, _COUNT) - 0.3 * noise[..., 2] * draw.uniform(size, 1)).clamp(0.3, 1)
    sure = torch.where(outside, 0.02 + 0.3 * draw.uniform(size, _COUNT), sure)
    # Said of somebody else, too: then whoever asks drops it.
    sure = torch.where((second & (draw.uniform(size) < 0.85))[:, None], sure, 0.0)
    return torch.cat([at, sure[..., None]], 2)


def _views(draw: _Draw, size: int, exact: bool) -> Tensor:
    """Rotations B×3×3 of the scene beside what the poses have: any yaw, pitch from level to steep, roll."""
    yaw = (2 * draw.uniform(size) - 1) * np.pi
    steep = draw.uniform(size) < 0.3
    pitch = draw.normal(size) * torch.where(steep, 0.5, 0.15)
    roll = torch.where(draw.uniform(size) < 0.5, (0.3 * draw.normal(size)).clamp(-0.9, 0.9), 0.0)
    roll = torch.where(draw.uniform(size) < 0.04, (2 * draw.uniform(size) - 1) * np.pi, roll)
    if exact:
        pitch, roll = 0.15 * draw.normal(size), (0.1 * draw.normal(size)).clamp(-0.3, 0.3)
    zero = torch.zeros(size)
    about = [torch.stack(v, 1) for v in ((zero, zero, roll), (pitch, zero, zero), (zero, yaw, zero))]
    z, x, y = (axis_angle_to_matrix(v) for v in about)
    return z @ x @ y


def _mirrored(turns: Tensor, which: Tensor) -> Tensor:
    return torch.where(which[:, None, None, None], mirrored_turns(turns), turns)


_LIMBS_OF_TREE = tuple(
    torch.tensor(limb) for limb in ((13, 16, 18, 20), (14, 17, 19, 21), (1, 4, 7, 10), (2, 5, 8, 11))
)


def _exchanged(draw: _Draw, turns: Tensor) -> Tensor:
    """Give a quarter of the people arms and legs of others in the batch: what limbs do together in the next person's
    sport is in no film."""
    size = len(turns)
    who = draw.uniform(size, 1, 1, 1) < 0.25
    for limb in _LIMBS_OF_TREE:
        other = turns[torch.randperm(size, generator=draw.generator)]
        taken = who & (draw.uniform(size, 1, 1, 1) < 0.5)
        turns = turns.index_copy(1, limb, torch.where(taken, other[:, limb], turns[:, limb]))
    return turns


@torch.no_grad()
def doubtful_hints(lifter: PoseLifter, batch: dict[str, Tensor]) -> Tensor:
    """The batch's hints, half of them as a network gives them that knows hardly more than the lifter itself.

    Where one picture leaves open whether a limb points towards us or away, whoever looks errs in the same way; a hint
    whose errors were all its own would be trusted too much (on drawn people it made true places worse, by 13 mm). So
    these hints are what the lifter makes of other errors (`again`), `known` (B; -1: leave the hint) of the way to the
    truth, and `shake` (B×25×3, in units of the limbs' extent) beside.
    """
    chosen = batch["known"] >= 0
    hint = batch["hint"].clone()
    if chosen.any():
        guess = lifter.lift(batch["again"][chosen])[-1].joints[:, :_COUNT]
        true = batch["joints"][chosen, :_COUNT]
        extent = true[:, LIMBS].square().sum(-1).mean(1).sqrt()[:, None, None]
        at = guess + batch["known"][chosen][:, None, None] * (true - guess)
        hint[chosen, :, :3] = at + extent * batch["shake"][chosen]
    return hint


def place_losses(lifter: PoseLifter, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Terms of both answers of a lifter to a batch of `PlaceBatches`."""
    axes = batch["shape_axes"]
    terms: dict[str, Tensor] = {}
    hint = doubtful_hints(lifter, batch)
    weight = torch.ones(len(JOINTS), device=axes.device)
    weight[:5], weight[17:25] = 0.5, 0.5  # the face, feet and knuckles
    weight = weight / weight.mean()
    for name, lifted in zip(("first", "last"), lifter.lift(batch["places"], hint), strict=True):
        share = 0.3 if name == "first" else 1.0
        if name == "last":
            terms["joints"] = 8 * ((lifted.joints - batch["joints"]).norm(dim=-1) * weight).mean()
            # Rotations in bodies of the true shape: what is wrong with the shape should not hide what is wrong there.
            posed = lifter.posed(Lifted(lifted.joints, lifted.rotations, batch["betas"]))
            terms["posed"] = 8 * ((posed - batch["joints"]).norm(dim=-1) * weight).mean()
        off = (lifted.rotations - batch["rotations"]).square().sum((-2, -1)).clamp_min(1e-6).sqrt()
        terms[f"{name}_turns"] = share * (off[:, 1:].mean() + 0.5 * off[:, 0].mean())
        away = (lifted.betas - batch["betas"]) @ axes
        terms[f"{name}_shape"] = share * 6 * away.norm(dim=1).mean()
    return terms


def _shape_axes() -> Tensor:
    from wholebody.body.layer import BodyModel

    body = BodyModel.load(flat_hand_mean=True)
    ways = body.directions[:10].flatten(1)  # (10, 3 V)
    gram = ways @ ways.T / body.num_vertices
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp_min(0).sqrt()
