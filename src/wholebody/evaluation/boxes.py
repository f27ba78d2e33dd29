"""How far around a person a network is shown a picture of a test set."""

from __future__ import annotations

from typing import Any

from wholebody.data.family import PADDED, box_ratio
from wholebody.data.prepared import enlargement
from wholebody.data.sample import Sample

_BY_SET = ("smpler_x", "smplest_x")  # OSX enlarges the boxes of all sets alike


def crop_enlargement(config: Any, sample: Sample) -> float:
    """By how much the person's box, made 3:4, is enlarged for a network of this `NetworkConfig`.

    As the family is tested on each set (`prepared.enlargement`). Where somebody asked for another enlargement than the
    family's, that one, taken back by `PADDED` on sets whose boxes are padded, as the published code does it.
    """
    if config.family not in _BY_SET:
        return config.box_enlarge
    usual, here = box_ratio("", config.family), enlargement(sample, config.family)
    if here < usual:
        return config.box_enlarge * PADDED
    return here if config.box_enlarge == usual else config.box_enlarge
