"""A person as a published family prepares it for its network, from what the set itself says.

How far a crop reaches beyond the person's box, what the boxes of hands and faces are, and, where somebody asks for them
to compare, the known faults of the published targets. What a set knows stays what its reader says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from wholebody.body.joints import JOINTS_137
from wholebody.data.family import FAMILY_SETS, box_ratio, part_box_ratio, takes_as_flat
from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.geometry.crop import fit_box

_EYEBALLS = [JOINTS_137.index("Face_3"), JOINTS_137.index("Face_4")]
_PER_JOINT = ("joints_px", "joints_cam", "joint_valid", "joint_visible", "joint_cam_valid")
_LEFT_HAND, _RIGHT_HAND = slice(25, 40), slice(40, 55)
_PART_BOXES = ("left_hand_box", "right_hand_box", "face_box")


def enlargement(sample: Sample, family: str) -> float:
    """By how much the family enlarges the person's box, made 3:4, to crop it: `box_ratio`, except where the picture was
    cut out around the person before (AGORA's crops), all of which is then seen."""
    if sample.dataset == "AGORA" and sample.image_hw is not None:
        whole = np.array([*sample.image_hw[::-1]] * 2, np.float64)
        if np.allclose(sample.box_xyxy, whole * [0.1, 0.1, 0.9, 0.9], atol=0.01):
            return 1.25
    known = FAMILY_SETS.get(sample.dataset)
    if known is not None and known.form == "humandata" and not _from_humandata(sample):
        return box_ratio("", family)  # of a set that OSX's users have in COCO form, whose boxes are not padded
    return box_ratio(sample.dataset, family)


def prepared(sample: Sample, family: str, faults: Sequence[str] = ()) -> Sample:
    """The person with the boxes of hands and face as the family has them, and with faults of the published targets
    (names in `FAULTS`) where some are asked for."""
    ratio = part_box_ratio(sample.dataset, family)
    if ratio is not None:
        sample = _with_part_boxes(sample, ratio)
    if sample.dataset in FAMILY_SETS and family in FAMILY_SETS[sample.dataset].no_shape_in:
        sample = replace(sample, shape_valid=False)
    for name in faults:
        if name not in FAULTS:
            raise BadInput(f"there is no fault {name!r} to reproduce: there are {', '.join(FAULTS)}")
        sample = FAULTS[name](sample, family)
    return sample


def _with_part_boxes(sample: Sample, ratio: float) -> Sample:
    """Boxes of hands and face cut to the picture, made 3:4 and enlarged; one of which nothing is left is not known."""
    boxes: dict[str, Any] = {}
    known = np.array(sample.part_valid, bool)
    limit = np.array([np.inf, np.inf]) if sample.image_hw is None else np.array(sample.image_hw[::-1]) - 1.0
    for number, name in enumerate(_PART_BOXES):
        if known[number]:
            box = np.asarray(getattr(sample, name), np.float64)
            # The published function counts pixels: the last one is at x + width - 1.
            low, high = np.maximum(box[:2], 0), np.minimum(box[2:] - 1, limit)
            known[number] = bool((high > low).all())
            if known[number]:
                boxes[name] = fit_box(np.concatenate([low, high]), enlarge=ratio)
    return replace(sample, part_valid=known, **boxes)


def _talkshow_right_hand(sample: Sample, family: str) -> Sample:
    if sample.dataset != "Talkshow":
        return sample
    pose, known = np.array(sample.full_pose), np.array(sample.pose_valid)
    pose[_RIGHT_HAND], known[_RIGHT_HAND] = pose[_LEFT_HAND], known[_LEFT_HAND]
    return replace(sample, full_pose=pose, pose_valid=known)


def _swapped_eyeballs(sample: Sample, family: str) -> Sample:
    if not _from_humandata(sample):
        return sample
    changed: dict[str, Any] = {}
    for name in _PER_JOINT:
        value = getattr(sample, name)
        if value is not None:
            value = np.array(value)
            value[_EYEBALLS] = value[_EYEBALLS[::-1]]
            changed[name] = value
    return replace(sample, **changed)


def _relaxed_hands(sample: Sample, family: str) -> Sample:
    if family == "osx" or not _from_humandata(sample):
        return sample
    return replace(sample, flat_hand=takes_as_flat(sample.dataset, family))


def _from_humandata(sample: Sample) -> bool:
    known = FAMILY_SETS.get(sample.dataset)
    file = f"{sample.id.rpartition('/')[0]}.npz"
    return sample.dataset == "HumanData" or (known is not None and any(file in names for names in known.files.values()))


FAULTS: Mapping[str, Callable[[Sample, str], Sample]] = MappingProxyType({
    "talkshow_right_hand": _talkshow_right_hand,
    "swapped_eyeballs": _swapped_eyeballs,
    "relaxed_hands": _relaxed_hands,
})  # fmt: skip
"""`talkshow_right_hand`: TalkSHOW's right hands are given the pose of the left ones. `swapped_eyeballs`: left and right
change places in HumanData's joints. `relaxed_hands`: hands of HumanData are taken as measured from the relaxed hand,
except in the sets that the family's code lists (`FamilySet.flat_in`), whatever the files say."""
