"""What a network really found of drawn people, lent to people of whom there is no picture.

Errors that are made up joint by joint (`places.found`) know nothing of each other and of the pose: which wrist is
hidden behind the trunk, which legs are taken for each other's, where a joint beyond the border is guessed. Whoever
stands about as a drawn person does is given the errors that were made with that one, all of them together.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wholebody.body.joints import COCO_BODY_17, flip_permutation
from wholebody.errors import BadInput
from wholebody.files.npz import SafeNpz
from wholebody.files.whole import write_whole

COUNT = len(COCO_BODY_17)
KEYS = ("true", "depth", "found", "inside")
_LIMBS = slice(5, COUNT)
_SWAP = flip_permutation(COCO_BODY_17)
_FACE_COUNTS = 0.5  # beside the limbs, where people are compared
_DEPTH_COUNTS = 1.4  # of a metre: limbs lie about half a metre from their middle, which is 1 in the picture
_AT_ONCE = 8192  # drawn people, of all, among whom each batch looks for similar ones


class Lent(NamedTuple):
    """Of B people: as a network would find them."""

    at: Tensor  # B×17×2, in the unit of the true places
    score: Tensor  # B×17
    outside: Tensor  # B×17 bool: beyond the border of what the network was shown


class Sightings:
    """`tools/look_at_layers.py` writes the file. Everybody is there a second time, mirrored."""

    def __init__(self, path: str | Path) -> None:
        with SafeNpz(path) as file:
            if missing := [key for key in KEYS if key not in file]:
                raise BadInput(f"{path}: holds no sightings, it lacks {', '.join(missing)}; write it anew")
            shapes = ((None, COUNT, 2), (None, COUNT), (None, COUNT, 3), (None, COUNT))
            read = {key: file.array(key, *shape) for key, shape in zip(KEYS, shapes, strict=True)}
        if len({len(rows) for rows in read.values()}) != 1 or not len(read["true"]):
            raise BadInput(f"{path}: its arrays are empty or of different lengths; write it anew")
        true, depth, found = (torch.as_tensor(read[key], dtype=torch.float32) for key in KEYS[:3])
        inside = torch.from_numpy(read["inside"].astype(bool))
        mirror = torch.tensor([-1.0, 1.0])
        true = torch.cat([true, true[:, _SWAP] * mirror])
        other = found[:, _SWAP] * torch.tensor([-1.0, 1.0, 1.0])
        found = torch.cat([found, other])
        depth, inside = torch.cat([depth, depth[:, _SWAP]]), torch.cat([inside, inside[:, _SWAP]])
        self.looks = _looks(true, depth)
        self.error = (found[..., :2] - true) / _size(true)
        self.score, self.inside = found[..., 2], inside

    def __len__(self) -> int:
        return len(self.looks)

    def lend(self, generator: torch.Generator, true: Tensor, depth: Tensor) -> Lent:
        """true: B×17×2 places of the joints, any unit; depth: B×17, away from the camera, metres."""
        pick = torch.randint(len(self), (min(_AT_ONCE, len(self)),), generator=generator)
        nearest = pick[torch.cdist(_looks(true, depth), self.looks[pick]).argmin(1)]
        return Lent(true + self.error[nearest] * _size(true), self.score[nearest], ~self.inside[nearest])


def _size(true: Tensor) -> Tensor:
    """B×1×1: how far the limbs' joints lie from their middle, root mean square."""
    limbs = true[:, _LIMBS]
    off = limbs - limbs.mean(1, keepdim=True)
    return off.square().sum(-1).mean(1).sqrt().clamp_min(1e-6)[:, None, None]


def _looks(true: Tensor, depth: Tensor) -> Tensor:
    """B×51, near to each other for people who look alike."""
    flat = (true - true[:, _LIMBS].mean(1, keepdim=True)) / _size(true)
    deep = depth - depth[:, _LIMBS].mean(1, keepdim=True)
    looks = torch.cat([flat, _DEPTH_COUNTS * deep[..., None]], 2)
    counts = torch.ones(COUNT, 1)
    counts[: _LIMBS.start] = _FACE_COUNTS
    return (counts * looks).flatten(1)


def write(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """A file of `KEYS`: `true` N×17×2 and `found` N×17×3 (x, y, score) in one unit, `depth` N×17 metres, `inside`."""

    def save(part: Path) -> None:
        with open(part, "xb") as file:
            np.savez_compressed(file, **{key: arrays[key] for key in KEYS})  # type: ignore[arg-type]

    write_whole(path, save)
