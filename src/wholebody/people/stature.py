"""How tall bodies are, and bodies made to fit what is known of a person: a height, a gender, how the face looks.

One picture does not tell how large somebody is: what proportions say leaves 7 cm either way. Who knows better says so.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wholebody.body.layer import BodyModel
from wholebody.body.open_body import COMPACT_PATH, read_compact
from wholebody.errors import BadInput

GENDERS = ("female", "male")
LEAST_M, MOST_M = 0.5, 2.5
_FOUND = 0.7
"""Of a shape that was lifted from found places as much is kept: on drawn photos of held-out people that is no further
off (0.966 of the mean body's error, all of it 0.972), and what photos do to proportions counts less."""
_EITHER, _CERTAIN = 0.6, 0.25
"""From where on the network of faces means a man (its authors' threshold); so far from there it is taken for sure."""


class Stature:
    """Of the open body: shapes are moved as people of the population differ, most along what differs most."""

    def __init__(self, body: BodyModel) -> None:
        if body.name != "open":
            raise BadInput(f"height and gender can be given for the open body; this one is {body.name!r}")
        known = read_compact(COMPACT_PATH)
        adult = known["people_age"] >= 15
        betas = torch.from_numpy(known["people_betas"][adult].astype(np.float32))
        male = torch.from_numpy((known["people_gender"][adult] < 0.5).astype(np.float32))
        self.middle = betas.mean(0)
        self.covariance = (betas - self.middle).T @ (betas - self.middle) / (len(betas) - 1)
        apart = betas[male > 0.5].mean(0) - betas[male < 0.5].mean(0)
        within = betas - torch.where(male[:, None] > 0.5, betas[male > 0.5].mean(0), betas[male < 0.5].mean(0))
        # Fisher's discriminant: what tells men from women best, -1 the middle of the women and +1 that of the men.
        axis = torch.linalg.solve(within.T @ within / len(betas) + 1e-3 * torch.eye(10), apart)
        self.axis = 2 * axis / (axis @ apart)
        self.between = (betas[male > 0.5].mean(0) + betas[male < 0.5].mean(0)) / 2
        self.half_apart = apart / 2
        self.template = body.template[1].float().cpu()  # (V,) heights of the mean shape
        self.ways = body.directions[:10, 1].float().cpu()  # (10, V)

    def height(self, betas: Tensor) -> Tensor:
        """Metres from the soles to the crown (B) of bodies at rest, of shapes (B, 10)."""
        y = self.template + betas.float() @ self.ways
        return y.amax(1) - y.amin(1)

    def as_found(self, betas: Tensor) -> Tensor:
        """Shapes (B, 10) lifted from places that a network found, nearer to the middle of the population."""
        middle = self.middle.to(betas)
        return middle + _FOUND * (betas - middle)

    def with_height(self, betas: Tensor, metres: float) -> Tensor:
        """The likeliest shapes (B, 10) of that height near to these."""
        if not LEAST_M <= metres <= MOST_M:
            raise BadInput(f"a height of {metres:g} m: it must be from {LEAST_M} to {MOST_M} m")
        for _ in range(3):  # who is tallest at the crown depends on the shape: nearly linear
            y = self.template + betas.float() @ self.ways
            slope = (self.ways.T[y.argmax(1)] - self.ways.T[y.argmin(1)]).to(betas)  # (B, 10)
            betas = self._moved(betas, slope, metres - self.height(betas).to(betas))
        return betas

    def with_gender(self, betas: Tensor, gender: str) -> Tensor:
        """Shapes (B, 10) that are at least as far on that side as its middle; others are moved there."""
        if gender not in GENDERS:
            raise BadInput(f"gender is {gender!r}; it can be {' or '.join(GENDERS)}, or nothing")
        side = 1.0 if gender == "male" else -1.0
        axis = self.axis.to(betas)
        now = side * ((betas - self.between.to(betas)) @ axis)
        return self._moved(betas, axis.expand_as(betas), side * (1 - now).clamp_min(0))

    def with_looks(self, betas: Tensor, male: Tensor) -> Tensor:
        """Shapes (B, 10) moved to the middle of women or men, as far as the face is sure of it, along what these differ
        by: of whom that is known, the lifted shape says little about it (`tools/measure_looks.py`).

        male: (B,) from 0, a woman, to 1, a man, as `FaceGender` says; not finite where nothing is known.
        """
        side = ((male - _EITHER) / _CERTAIN).clamp(-1, 1).nan_to_num(0.0)
        now = (betas - self.between.to(betas)) @ self.axis.to(betas)
        moved: Tensor = betas + (side - side.abs() * now)[:, None] * self.half_apart.to(betas)
        return moved

    def _moved(self, betas: Tensor, slope: Tensor, by: Tensor) -> Tensor:
        """Moved so that `slope @ betas` grows by that much (B), the way that people differ most."""
        way = slope @ self.covariance.to(betas)
        return betas + way * (by / (way * slope).sum(1))[:, None]
