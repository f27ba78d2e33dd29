"""What our own networks are trained towards, from one person and one crop: the truth in the frame of the crop, and the
boxes of hands and face in it."""

from __future__ import annotations

import numpy as np

from wholebody.body.joints import JOINTS_137, PARTS_137
from wholebody.data.augment import CROP_HW
from wholebody.data.framing import in_crop, is_mirrored
from wholebody.data.sample import Sample

BOX_PARTS = ("left_hand", "right_hand", "face")
_HAND_AND_WRIST = {"left_hand": "L_Wrist", "right_hand": "R_Wrist"}
_SEEN = 0.6  # of a part has to be in the crop
_MARGIN = 1.2  # by which a sample's part boxes exceed their joints


def crop_targets(
    sample: Sample, crop_from_image: np.ndarray, crop_hw: tuple[int, int] = CROP_HW
) -> dict[str, np.ndarray]:
    """The targets of one person for one crop, float32: those of `in_crop`, which see, and

    boxes (3, 4): xyxy crop pixels of BOX_PARTS, tight around the part's joints, or the sample's own boxes without their
    margin where a joint is not known; box_valid (3,): most of the box lies in the crop.
    """
    target = in_crop(sample, crop_from_image, crop_hw)
    known, inside = target["joint_valid"] > 0, target["joint_inside"] > 0
    parts = [_part_box(part, target["joints_crop"], known, inside) for part in BOX_PARTS]
    if not all(valid is not None for _, valid in parts):
        annotated = _annotated_boxes(sample, crop_from_image, is_mirrored(crop_from_image), crop_hw)
        parts = [part if part[1] is not None else other for part, other in zip(parts, annotated, strict=True)]
    boxes, box_valid = zip(*parts, strict=True)
    return target | {"boxes": np.stack(boxes).astype(np.float32), "box_valid": np.array(box_valid, np.float32)}


def _part_box(
    part: str, joints_crop: np.ndarray, known: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, bool | None]:
    """The tight box, and whether it can be seen; None if some of the part's joints are not known."""
    rows = np.arange(len(JOINTS_137))[PARTS_137[part]]
    if part in _HAND_AND_WRIST:
        rows = np.append(rows, JOINTS_137.index(_HAND_AND_WRIST[part]))
    if not known[rows].all():
        return np.zeros(4), None
    points = joints_crop[rows]
    # A box mostly outside the crop cannot be seen; its centre would be a guess.
    return np.concatenate([points.min(0), points.max(0)]), bool(inside[rows].mean() > _SEEN)


def _annotated_boxes(
    sample: Sample, crop_from_image: np.ndarray, mirrored: bool, crop_hw: tuple[int, int]
) -> list[tuple[np.ndarray, bool]]:
    """The sample's own part boxes in the crop, in the order of BOX_PARTS: sets annotate boxes of parts of which they
    know some joints only (COCO's faces lack the jaw's and the head's)."""
    found: list[tuple[np.ndarray, bool]] = []
    limits = np.array([crop_hw[1], crop_hw[0]], np.float64)
    for box, valid in zip(
        (sample.left_hand_box, sample.right_hand_box, sample.face_box), sample.part_valid, strict=True
    ):
        if not valid:
            found.append((np.zeros(4), False))
            continue
        middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / (2 * _MARGIN)
        corners = middle + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        corners = corners @ crop_from_image[:, :2].T + crop_from_image[:, 2]
        low, high = corners.min(0), corners.max(0)
        covered = (np.minimum(high, limits) - np.maximum(low, 0)).clip(0).prod() / max((high - low).prod(), 1e-9)
        found.append((np.concatenate([low, high]), bool(covered > _SEEN)))
    return [found[k] for k in ((1, 0, 2) if mirrored else (0, 1, 2))]
