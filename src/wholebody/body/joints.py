"""Joints by name: the sets that the parts of this package speak, their parts, mirror pairs and the maps between them.

The body layer gives 144 points: 55 joints of the kinematic tree, 21 points on the skin (nose, eyes, ears, feet,
finger tips), 51 landmarks of the face and 17 of its contour. The networks and datasets use 137 of these under the
published names (`L_Hip`, `Face_5`, ...), 65 of which are predicted as positions. All else here derives from names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_FINGERS = ("index", "middle", "pinky", "ring", "thumb")  # the order of the SMPL-X tree

# fmt: off
_BODY_TREE = (  # name, parent
    ("pelvis", None), ("left_hip", "pelvis"), ("right_hip", "pelvis"), ("spine1", "pelvis"),
    ("left_knee", "left_hip"), ("right_knee", "right_hip"), ("spine2", "spine1"),
    ("left_ankle", "left_knee"), ("right_ankle", "right_knee"), ("spine3", "spine2"),
    ("left_foot", "left_ankle"), ("right_foot", "right_ankle"),
    ("neck", "spine3"), ("left_collar", "spine3"), ("right_collar", "spine3"), ("head", "neck"),
    ("left_shoulder", "left_collar"), ("right_shoulder", "right_collar"),
    ("left_elbow", "left_shoulder"), ("right_elbow", "right_shoulder"),
    ("left_wrist", "left_elbow"), ("right_wrist", "right_elbow"),
    ("jaw", "head"), ("left_eyeball", "head"), ("right_eyeball", "head"),
)
# fmt: on


def _tree() -> tuple[tuple[str, str | None], ...]:
    hands = [
        (f"{side}_{finger}{k}", f"{side}_{finger}{k - 1}" if k > 1 else f"{side}_wrist")
        for side in ("left", "right")
        for finger in _FINGERS
        for k in (1, 2, 3)
    ]
    return (*_BODY_TREE, *hands)


SMPLX_JOINTS: tuple[str, ...] = tuple(name for name, _ in _tree())
"""The 55 joints of the kinematic tree, in the order of the SMPL-X files."""

PARENTS: tuple[int, ...] = tuple(-1 if parent is None else SMPLX_JOINTS.index(parent) for _, parent in _tree())
"""The parent of each of the 55 joints; -1 for the pelvis. A parent always comes before its children."""

LEFT_HAND_JOINTS: tuple[str, ...] = SMPLX_JOINTS[25:40]
RIGHT_HAND_JOINTS: tuple[str, ...] = SMPLX_JOINTS[40:55]
"""The 15 joints of each hand, in the order of `left_hand_pose` and `right_hand_pose`."""

_FEET = tuple(f"{side}_{point}" for side in ("left", "right") for point in ("big_toe", "small_toe", "heel"))
_TIPS = tuple(
    f"{side}_{finger}_tip" for side in ("left", "right") for finger in ("thumb", "index", "middle", "ring", "pinky")
)
SKIN_POINTS: tuple[str, ...] = ("nose", "right_eye", "left_eye", "right_ear", "left_ear", *_FEET, *_TIPS)
"""21 points that are single vertices of the mesh: joints 55 to 75 of the 144."""


def _face_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Anatomical names of the 51 inner landmarks and the 17 of the contour (iBUG points 17-67 and 0-16)."""
    # Numbers count from the outer end of each half, so that a mirror pair differs only in its side.
    brows = [f"right_brow_{k}" for k in range(1, 6)] + [f"left_brow_{k}" for k in range(5, 0, -1)]
    nose = [f"nose_bridge_{k}" for k in range(1, 5)]
    nose += ["right_nostril_1", "right_nostril_2", "nose_base", "left_nostril_2", "left_nostril_1"]
    # iBUG goes round each eye from its outer (right eye) or inner (left eye) corner, over the upper lid.
    right_eye = ["outer", "upper_outer", "upper_inner", "inner", "lower_inner", "lower_outer"]
    left_eye = ["inner", "upper_inner", "upper_outer", "outer", "lower_outer", "lower_inner"]
    eyes = [f"right_lid_{p}" for p in right_eye] + [f"left_lid_{p}" for p in left_eye]
    # fmt: off
    mouth = [
        "right_mouth_corner", "right_lip_top_1", "right_lip_top_2", "lip_top", "left_lip_top_2", "left_lip_top_1",
        "left_mouth_corner", "left_lip_bottom_1", "left_lip_bottom_2", "lip_bottom", "right_lip_bottom_2",
        "right_lip_bottom_1",
    ]
    inside = [
        "right_mouth_inner_corner", "right_lip_top_inner", "lip_top_inner", "left_lip_top_inner",
        "left_mouth_inner_corner", "left_lip_bottom_inner", "lip_bottom_inner", "right_lip_bottom_inner",
    ]
    # fmt: on
    contour = [f"right_contour_{k}" for k in range(1, 9)] + ["chin"] + [f"left_contour_{k}" for k in range(8, 0, -1)]
    return tuple(brows + nose + eyes + mouth + inside), tuple(contour)


FACE_LANDMARKS, FACE_CONTOUR = _face_names()
"""The 51 inner face landmarks (iBUG 17-67: joints 76-126 of the 144) and the 17 of the contour (iBUG 0-16: 127-143)."""

JOINTS_144: tuple[str, ...] = (*SMPLX_JOINTS, *SKIN_POINTS, *FACE_LANDMARKS, *FACE_CONTOUR)
"""Every point that the body layer gives."""


def _published(name: str) -> str:
    """`left_index1` -> `L_Index_1`: the published spelling of a name of the 144."""
    side, _, rest = name.partition("_")
    side = {"left": "L_", "right": "R_"}.get(side, "")
    rest = rest if side else name
    if rest.endswith("_tip"):
        rest = rest.removesuffix("_tip") + "4"
    if rest[-1].isdigit():
        rest = f"{rest[:-1]}_{rest[-1]}"
    return side + rest[0].upper() + rest[1:]


# fmt: off
_BODY_25 = (
    "pelvis", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "neck",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    "left_ear", "right_ear", "left_eye", "right_eye", "nose",
)
# fmt: on
_HANDS_40 = tuple(
    f"{side}_{finger}{end}"
    for side in ("left", "right")
    for finger in ("thumb", "index", "middle", "ring", "pinky")
    for end in ("1", "2", "3", "_tip")
)
# Face_1..4 are points that the set names elsewhere too (the eyes) or that are joints of the tree.
_FACE_72 = ("jaw", "head", "left_eye", "right_eye", *FACE_LANDMARKS, *FACE_CONTOUR)
_NAMES_137_IN_144 = (*_BODY_25, *_HANDS_40, *_FACE_72)

FROM_144: tuple[int, ...] = tuple(JOINTS_144.index(name) for name in _NAMES_137_IN_144)
"""Which of the 144 each of the 137 is: `joints_144[:, FROM_144]`."""

JOINTS_137: tuple[str, ...] = (
    *(_published(name) for name in (*_BODY_25, *_HANDS_40)),
    *(f"Face_{k}" for k in range(1, 73)),
)
"""The published set of 137: body, left hand, right hand, face."""

JOINTS_65: tuple[str, ...] = JOINTS_137[:65]
"""The joints that networks predict as positions: the 137 without the face."""

PARTS_137: dict[str, slice] = {
    "body": slice(0, 25),
    "left_hand": slice(25, 45),
    "right_hand": slice(45, 65),
    "face": slice(65, 137),
}

ROTATIONS_53: tuple[str, ...] = tuple(
    _published(name) for name in (*SMPLX_JOINTS[:22], *LEFT_HAND_JOINTS, *RIGHT_HAND_JOINTS, "jaw")
)
"""The rotations that networks predict: pelvis, 21 of the body, 15 of each hand, jaw (the eyes stay at rest)."""

ROTATIONS_53_FROM_55: tuple[int, ...] = tuple(
    [_published(name) for name in SMPLX_JOINTS].index(name) for name in ROTATIONS_53
)
"""Which joint of the tree each of the 53 rotations turns."""


def index(names: str | Iterable[str], joint_set: Sequence[str]) -> int | np.ndarray:
    """The row of one name, or an int64 array of the rows of several, in a set such as `JOINTS_137`.

    Raises KeyError with the name if the set lacks it.
    """
    if isinstance(names, str):
        if names not in joint_set:
            raise KeyError(f"no joint {names!r} in this set of {len(joint_set)} ({joint_set[0]!r}, ...)")
        return list(joint_set).index(names)
    return np.array([index(name, joint_set) for name in names], np.int64)


def mirrored_name(name: str) -> str:
    """The name of the same point on the other side; a point of the midline is its own mirror image."""
    if name.startswith("Face_") and name in JOINTS_137:
        own = _NAMES_137_IN_144[JOINTS_137.index(name)]
        return f"Face_{_FACE_72.index(mirrored_name(own)) + 1}"
    if name.startswith("face-"):
        own = _COCO_FACE[int(name.removeprefix("face-"))]
        return f"face-{_COCO_FACE.index(mirrored_name(own))}"
    for left, right in (("left_", "right_"), ("L_", "R_")):
        if name.startswith(left):
            return right + name.removeprefix(left)
        if name.startswith(right):
            return left + name.removeprefix(right)
    return name


def flip_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs of rows that change places in a mirror, derived from the names of a set."""
    row = {name: i for i, name in enumerate(names)}
    pairs = ((i, row.get(mirrored_name(name), i)) for i, name in enumerate(names))
    return [(i, j) for i, j in pairs if i < j]


def flip_permutation(names: Sequence[str]) -> np.ndarray:
    """For each row of a set the row that is its mirror image (int64): `mirrored = points[flip_permutation(names)]`."""
    order = np.arange(len(names))
    for i, j in flip_pairs(names):
        order[[i, j]] = j, i
    return order


# COCO-WholeBody: 17 of COCO, 6 of the feet, 68 of the face (iBUG order), 21 of each hand. Its hands start at the
# wrist, which the 137 carry only once.
# fmt: off
_COCO_BODY = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle", "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
)
# fmt: on
_COCO_FACE = (*FACE_CONTOUR, *FACE_LANDMARKS)
_COCO_FINGERS = {"thumb": "thumb", "forefinger": "index", "middle_finger": "middle", "ring_finger": "ring",
                 "pinky_finger": "pinky"}  # fmt: skip


def _coco_wholebody() -> list[tuple[str, str]]:
    """(name in COCO-WholeBody, name in the 144) of each of the 133."""
    table = [(name, name) for name in _COCO_BODY]
    table += [(f"face-{k}", name) for k, name in enumerate(_COCO_FACE)]
    for side in ("left", "right"):
        table.append((f"{side}_hand_root", f"{side}_wrist"))
        for coco, ours in _COCO_FINGERS.items():
            table += [(f"{side}_{coco}{k}", f"{side}_{ours}{k if k < 4 else '_tip'}") for k in (1, 2, 3, 4)]
    return table


COCO_WHOLEBODY: tuple[str, ...] = tuple(name for name, _ in _coco_wholebody())
"""The 133 keypoints of COCO-WholeBody, in its order."""

COCO_WHOLEBODY_FROM_137: tuple[int, ...] = tuple(_NAMES_137_IN_144.index(name) for _, name in _coco_wholebody())
"""Which of the 137 each of the 133 is."""

COCO_BODY_17: tuple[str, ...] = COCO_WHOLEBODY[:17]
"""The 17 keypoints of COCO."""

COCO_FEET, COCO_FACE, COCO_HANDS = slice(17, 23), slice(23, 91), (slice(91, 112), slice(112, 133))
"""Rows of the 133 that are the feet's, the 68 of the face, and the 21 of the left and of the right hand."""

LIMBS_12: tuple[str, ...] = _COCO_BODY[5:17]
"""Shoulders, elbows, wrists, hips, knees and ankles: the joints that nearly every 3D test set has."""
