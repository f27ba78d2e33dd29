"""What bodies do: mixtures of Gaussians over body and hand poses, joint limits, and the spread of shapes and faces.

Embedded as `pose_prior.npz` (its card: POSE_PRIOR.md), baked by `tools/bake_pose_prior.py`. A pose is the stacked
axis-angle vectors of its joints: 21 of the body (63 numbers), or 15 of a hand measured from the flat hand (45; of the
left hand: a right hand is mirrored first). The pelvis is in none of them: which way people face is not for a prior.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholebody.errors import AssetMissing, BadInput
from wholebody.files.npz import read_arrays

EMBEDDED = Path(__file__).with_name("pose_prior.npz")
BODY_SIZE, HAND_SIZE = 63, 45


@dataclass(frozen=True, eq=False)
class Mixture:
    """K Gaussians over poses of D numbers, read by their best component: `whiten @ (pose - mean)` is unit noise."""

    mean: Tensor  # (K, D) radians
    whiten: Tensor  # (K, D, D) upper triangular; whiten.T @ whiten is the component's inverse covariance
    weight: Tensor  # (K,) sums to one

    def energies(self, pose: Tensor) -> Tensor:
        """Each component's negative log density (B, K) at poses (B, D), without the constant they share."""
        away = torch.einsum("kij,bkj->bki", self.whiten, pose[:, None] - self.mean)
        return away.square().sum(-1) / 2 - self._least

    @cached_property
    def _least(self) -> Tensor:
        """(K,): minus the energy of each component's middle."""
        return torch.diagonal(self.whiten, dim1=-2, dim2=-1).abs().log().sum(-1) + self.weight.log()

    def energy(self, pose: Tensor) -> Tensor:
        """Negative log density (B,) of the best component, zero at the likeliest pose of all."""
        return self.energies(pose).amin(1) - self.floor

    @cached_property
    def floor(self) -> Tensor:
        """The energy of the likeliest pose: what `energy` counts from."""
        return self.energies(self.mean).amin()


@dataclass(frozen=True, eq=False)
class PosePrior:
    """The embedded prior. Limits are (..., 3) radians: outside of them nobody of those it was learnt from was."""

    body: Mixture
    hand: Mixture
    body_low: Tensor  # (21, 3)
    body_high: Tensor
    hand_low: Tensor  # (15, 3), left hand
    hand_high: Tensor
    jaw_low: Tensor  # (3,)
    jaw_high: Tensor
    shape_mean: Tensor  # (10,) of the open body, as the next three
    shape_whiten: Tensor  # (10, 10)
    expression_mean: Tensor
    expression_whiten: Tensor
    subjects: str
    """Whose motion it was learnt from."""

    @staticmethod
    def load(path: str | Path | None = None, dtype: torch.dtype = torch.float32) -> PosePrior:
        """The prior in `path`; None: the embedded one."""
        path = EMBEDDED if path is None else Path(path)
        try:
            arrays = read_arrays(path)
        except BadInput as error:
            if not path.exists():
                raise AssetMissing(f"{path}: there is no pose prior; bake one with tools/bake_pose_prior.py") from error
            raise BadInput(f"{path}: not a pose prior ({error})") from error

        def tensor(name: str) -> Tensor:
            if name not in arrays:
                raise BadInput(f"{path}: not a pose prior, it has no {name!r}")
            return torch.as_tensor(np.asarray(arrays[name], np.float64)).to(dtype)

        def mixture(part: str) -> Mixture:
            mean = tensor(f"{part}_mean")
            return Mixture(mean, _unpack(tensor(f"{part}_whiten"), mean.shape[1]), tensor(f"{part}_weight"))

        rest = {f.name: tensor(f.name) for f in fields(PosePrior) if f.name not in ("body", "hand", "subjects")}
        subjects = str(arrays.get("subjects", "unknown"))
        return PosePrior(body=mixture("body"), hand=mixture("hand"), subjects=subjects, **rest)


def _unpack(rows: Tensor, size: int) -> Tensor:
    """(K, D (D + 1) / 2) packed upper triangles -> (K, D, D)."""
    full = rows.new_zeros(len(rows), size, size)
    i, j = torch.triu_indices(size, size)
    full[:, i, j] = rows
    return full
