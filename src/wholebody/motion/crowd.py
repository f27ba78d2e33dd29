"""People in each other's way: the detector tells them apart by their key points where a network takes one for another.

A network that can answer to key points (`relift`) then says what the body is whose key points these are.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wholebody.people.person import Person
from wholebody.people.refine import bodies_of, people_with
from wholebody.people.relift import lift_of

SOURCE = "detector's key points"
"""What `Person.sources` then says of the body."""
_SEEN = 0.2  # score of a key point that is used
_LEAST = 8  # of the 12 from shoulders to ankles; fewer do not say a pose


class ByKeypoints:
    """`ByKeypoints(model)(people, points)`: the same people, their bodies as the detector's key points say."""

    def __init__(self, model: Any) -> None:
        self._lift, self._model = lift_of(model), model
        self._body: Any = None

    def can(self, points: np.ndarray | None) -> bool:
        """Whether these key points (17, 3), COCO's x, y and score, say enough."""
        return self._lift is not None and points is not None and int((points[5:, 2] >= _SEEN).sum()) >= _LEAST

    def __call__(self, people: Sequence[Person], points: Sequence[np.ndarray]) -> list[Person]:
        """points: of each one (17, 3) pixels and score, of which `can` is true. Hands and face stay as they are."""
        if not people:
            return []
        assert self._lift is not None
        body = self._model.body
        if body.template.device.type != "cpu":  # few and small matrices, wherever the network runs
            self._body = body = self._body or copy.deepcopy(body).cpu()
        keypoints = np.zeros((len(people), 133, 3))
        keypoints[:, :17] = np.stack(points)
        # Of who turns away, or hides their face in another's shoulder, the face is guessed.
        seen = keypoints[..., 2] >= _SEEN
        seen[:, :5] = False
        sure = torch.from_numpy(np.where(seen, np.clip(keypoints[..., 2], 0, 1), 0))
        lifted = self._lift(bodies_of(people, body), torch.from_numpy(keypoints[..., :2]), sure)
        anew = people_with(people, lifted, body)
        return [replace(person, sources=dict(person.sources) | {"body": SOURCE}) for person in anew]
