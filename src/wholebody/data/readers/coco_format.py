"""What the annotations of many sets share: COCO's form, COCO-WholeBody's keypoints, NeuralAnnot's body parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, JOINTS_137, SMPLX_JOINTS
from wholebody.data.readers import READERS
from wholebody.errors import BadInput
from wholebody.files.coco import same_id
from wholebody.files.json_stream import top_level
from wholebody.files.text import brief

DAMAGED = ("error", "mask")
"""What to do about parameters that are not numbers: stop, or use the person without its parameters."""

PARTS = ("lefthand", "righthand", "face")
"""How COCO-WholeBody calls the parts that it has boxes for."""
_LISTS = {"body": (17, "keypoints"), "feet": (6, "foot_kpts"), "face": (68, "face_kpts"),
          "left": (21, "lefthand_kpts"), "right": (21, "righthand_kpts")}  # fmt: skip
# A hand's keypoints start at its wrist, which the body's have too; the 137 have it once, from the body.
_OWN_ROWS = [row for row, name in enumerate(COCO_WHOLEBODY) if not name.endswith("_hand_root")]
_ROWS_IN_137 = [COCO_WHOLEBODY_FROM_137[row] for row in _OWN_ROWS]
_PELVIS, _L_HIP, _R_HIP = (JOINTS_137.index(name) for name in ("Pelvis", "L_Hip", "R_Hip"))
_NOSE, _NOSE_TIP = JOINTS_137.index("Nose"), JOINTS_137.index("Face_18")
_LEFT_HAND, _RIGHT_HAND, _JAW = slice(25, 40), slice(40, 55), SMPLX_JOINTS.index("jaw")


def require(name: str, root: Path, split: str) -> None:
    """Raise BadInput, with where to get them, unless all files of a split are in the set's folder."""
    info = READERS[name]
    missing = info.missing(root, split)
    if missing:
        todo = f", then: {info.pictures}" if info.pictures else ""
        raise BadInput(
            f"{info.title} ({split}) is not complete in {root}: {', '.join(missing)} missing. Get it: {info.source}"
            f"{todo}; `wholebody data check` shows what else is missing"
        )


def annotated_people(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(annotation, its picture's entry) of a COCO file, read as a stream: only the pictures are held."""
    pictures: dict[str, dict[str, Any]] | None = None
    seen = False
    for key, value in top_level(path):
        if key == "images":
            pictures = {identity(path, image, "id"): image for image in value.elements()}
        elif key == "annotations":
            seen = True
            if pictures is None:  # the other order: a second look
                pictures = _pictures(path)
            for annotation in value.elements():
                number = identity(path, annotation, "image_id")
                if number not in pictures:
                    raise BadInput(
                        f"{path}: annotation {annotation.get('id')} belongs to picture {number}, which 'images' lacks; "
                        "fetch the file again"
                    )
                yield annotation, pictures[number]
    if not seen or pictures is None:
        raise BadInput(
            f"{path} lacks '{'images' if seen else 'annotations'}': it is not an annotation file in COCO form"
        )


def _pictures(path: Path) -> dict[str, dict[str, Any]]:
    for key, value in top_level(path):
        if key == "images":
            return {identity(path, image, "id"): image for image in value.elements()}
    raise BadInput(f"{path} lacks 'images': it is not an annotation file in COCO form")


def entry_of(path: Path, mapping: Mapping[str, Any], *keys: str) -> Any:
    """`mapping[a][b]...`; BadInput names the file and the key that is not there."""
    value: Any = mapping
    for depth, key in enumerate(keys):
        try:
            value = value[key]
        except (KeyError, TypeError, IndexError) as error:
            inside = f" of {'/'.join(map(str, keys[:depth]))}" if depth else ""
            number = mapping.get("id") if isinstance(mapping, Mapping) else None
            raise BadInput(
                f"{path}: {'entry' if number is None else f'entry {number}'} has no {key!r}{inside}; the file is of "
                "another version or damaged: fetch it again"
            ) from error
    return value


def identity(path: Path, mapping: Mapping[str, Any], key: str) -> str:
    """An id as text, whether the file has it as a number, a text or a float; BadInput if it is something else."""
    try:
        return same_id(entry_of(path, mapping, key))
    except ValueError as error:
        raise BadInput(f"{path}: {key!r} of an entry is none ({error}); fetch the file again") from error


def numbers(path: Path, mapping: Mapping[str, Any], key: str, *shape: int) -> np.ndarray:
    """An entry as float64 of a shape (-1: any); BadInput if it is something else or not finite."""
    value = entry_of(path, mapping, key)
    try:
        array = np.asarray(value, np.float64).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadInput(
            f"{path}: {key!r} of entry {brief(mapping.get('id'))} is not {'×'.join(map(str, shape))} numbers; the file "
            "is of another version or damaged: fetch it again"
        ) from error
    if not np.isfinite(array).all():
        raise BadInput(f"{path}: {key!r} of entry {mapping.get('id')} holds values that are not finite; fetch it again")
    return array


def integer(path: Path, mapping: Mapping[str, Any], key: str) -> int:
    """An entry as a whole number; BadInput if it is something else."""
    value = entry_of(path, mapping, key)
    if isinstance(value, (int, float)) and math.isfinite(value) and int(value) == value:
        return int(value)
    raise BadInput(
        f"{path}: {key!r} of entry {brief(mapping.get('id'))} is {brief(value)}, not a whole number; fetch it again"
    )


def picture_hw(path: Path, image: Mapping[str, Any]) -> tuple[int, int]:
    height, width = integer(path, image, "height"), integer(path, image, "width")
    if not (0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE):
        raise BadInput(f"{path}: picture {brief(image.get('id'))} is {width}×{height} pixels; fetch the file again")
    return height, width


_MOST_SIDE = 1 << 20  # pixels; what has more is no picture


def cut_box(xywh: np.ndarray | Sequence[float], hw: tuple[int, int]) -> np.ndarray | None:
    """COCO's x, y, width, height as corners xyxy (4,) of what lies in the picture; None if that is nothing.

    Width and height count pixels, so the last one is at x + width - 1, as in the published preparation. (That one
    shifts boxes that begin outside the picture instead of cutting them.)
    """
    x, y, width, height = np.asarray(xywh, np.float64)
    low = np.maximum([x, y], 0)
    high = np.minimum([x + max(width - 1, 0), y + max(height - 1, 0)], [hw[1] - 1, hw[0] - 1])
    if not (width > 0 and height > 0 and (high > low).all()):
        return None
    return np.concatenate([low, high])


def part_box(path: Path, annotation: Mapping[str, Any], part: str) -> np.ndarray | None:
    """xyxy (4,) of `lefthand`, `righthand` or `face`; None if it is not annotated or empty."""
    if not annotation.get(f"{part}_valid"):
        return None
    x, y, width, height = numbers(path, annotation, f"{part}_box", 4)
    return np.array([x, y, x + width, y + height]) if width > 0 and height > 0 else None


def box_fields(*parts: np.ndarray | None) -> dict[str, Any]:
    """Fields of a `Sample` from the boxes of `PARTS`."""
    boxes = dict(zip(("left_hand_box", "right_hand_box", "face_box"), parts, strict=True))
    known = {name: box for name, box in boxes.items() if box is not None}
    return {**known, "part_valid": np.array([box is not None for box in boxes.values()])}


def wholebody_fields(path: Path, annotation: Mapping[str, Any], hw: tuple[int, int]) -> dict[str, Any]:
    """Fields of a `Sample` from COCO-WholeBody's five lists of keypoints (those of UBody too).

    As the published code has them: the pelvis is the middle of the hips where both are annotated, and the nose of the
    body stands in for the tip of the nose where the face is not annotated.
    """
    lists = [numbers(path, annotation, key, count, 3) for count, key in _LISTS.values()]
    points = np.concatenate(lists)
    joints, flags = np.zeros((137, 2)), np.zeros(137)
    joints[_ROWS_IN_137], flags[_ROWS_IN_137] = points[_OWN_ROWS, :2], points[_OWN_ROWS, 2]
    return joint_fields(joints, flags, hw, occluded=flags == 1)


def joint_fields(joints: np.ndarray, flags: np.ndarray, hw: tuple[int, int], occluded: np.ndarray) -> dict[str, Any]:
    """Fields of a `Sample` from joints (137, 2) in pixels and flags (137,), above 0 where annotated.

    occluded: (137,) bool, annotated though hidden; counted for the body only (sets flag hands and faces otherwise).
    """
    joints, valid = joints.copy(), flags > 0
    if not valid[_PELVIS] and valid[_L_HIP] and valid[_R_HIP]:
        joints[_PELVIS], valid[_PELVIS] = (joints[_L_HIP] + joints[_R_HIP]) / 2, True
    if valid[_NOSE] and not valid[_NOSE_TIP]:
        joints[_NOSE_TIP], valid[_NOSE_TIP] = joints[_NOSE], True
    inside = (joints >= 0).all(1) & (joints[:, 0] <= hw[1] - 1) & (joints[:, 1] <= hw[0] - 1)
    hidden = occluded & (np.arange(137) < 25)
    return {"joints_px": joints, "joint_valid": valid, "joint_visible": valid & inside & ~hidden}


def joints_by_name(names: Sequence[str], points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, D) of another set as (137, D) and (137,) bool known; names that the 137 lack are left out."""
    result, known = np.zeros((137, points.shape[1])), np.zeros(137, bool)
    for row, name in enumerate(names):
        if name in JOINTS_137:
            result[JOINTS_137.index(name)], known[JOINTS_137.index(name)] = points[row], True
    return result, known


class Fits:
    """NeuralAnnot's parameters of many people, held as one row of numbers each (a file of 200,000 people takes
    300 MB here and 3 GB as Python objects)."""

    _FIELDS = {"root_pose": 3, "body_pose": 63, "lhand_pose": 45, "rhand_pose": 45, "jaw_pose": 3, "shape": 10,
               "expr": 10, "trans": 3, "focal": 2, "princpt": 2}  # fmt: skip
    _NEEDED = ("root_pose", "body_pose", "shape", "trans")

    def __init__(self, path: Path, damaged: str = "error"):
        if damaged not in DAMAGED:
            raise BadInput(f"damaged={damaged!r}: use one of {', '.join(DAMAGED)}")
        self.path, self._damaged = path, damaged
        self._rows: dict[Any, tuple[np.ndarray, dict[str, Any]]] = {}

    def __contains__(self, key: Any) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, key: Any, param: Mapping[str, Any], camera: Mapping[str, Any] | None = None) -> None:
        """Take the parameters of person `key`; `camera` has `focal` and `princpt` where the file gives them."""
        if not isinstance(param, Mapping) or not isinstance(camera or {}, Mapping):
            raise BadInput(f"{self.path}: the parameters of {key} are a {type(param).__name__}; fetch the file again")
        values = {**param, **{k: (camera or {})[k] for k in ("focal", "princpt") if camera and k in camera}}
        missing = [name for name in self._NEEDED if name not in values]
        if missing:
            raise BadInput(f"{self.path}: the parameters of {key} lack {', '.join(missing)}; fetch the file again")
        parts = []
        for name, count in self._FIELDS.items():
            try:
                part = np.asarray(values.get(name, np.zeros(count)), np.float64).reshape(-1)
            except (ValueError, TypeError, OverflowError):
                part = np.full(count, np.nan)
            if len(part) < count or (name not in ("shape", "expr") and len(part) > count):
                raise BadInput(f"{self.path}: {name!r} of {key} has {len(part)} numbers instead of {count}")
            if not np.isfinite(part).all():
                if self._damaged == "mask":
                    return
                raise BadInput(
                    f"{self.path}: {name!r} of {key} holds values that are not finite. Fetch the file again, or "
                    "read with damaged='mask' to use this person without parameters"
                )
            parts.append(part[:count])
        extra = {k: param[k] for k in ("lhand_valid", "rhand_valid", "face_valid", "gender") if k in param}
        extra |= {"has": [name for name in self._FIELDS if name in values]}
        self._rows[key] = np.concatenate(parts), extra

    def fields(
        self,
        key: Any,
        parts_valid: Sequence[bool] = (False, False, False),
        rotation: np.ndarray | None = None,
        translation: np.ndarray | None = None,
    ) -> dict[str, Any]:
        """Fields of a `Sample`; {} for somebody without parameters.

        Args:
            parts_valid: whether each of `PARTS` is to be trusted, where the parameters do not say.
            rotation, translation: (3, 3) and (3,) metres of the camera, if the parameters are in a world frame.
        """
        if key not in self._rows:
            return {}
        row, extra = self._rows[key]
        cuts = np.cumsum(list(self._FIELDS.values()))[:-1]
        value = dict(zip(self._FIELDS, np.split(row, cuts), strict=True))
        flags = [
            bool(extra.get(flag, default)) and all(name in extra["has"] for name in names)
            for flag, default, names in (
                ("lhand_valid", parts_valid[0], ("lhand_pose",)),
                ("rhand_valid", parts_valid[1], ("rhand_pose",)),
                ("face_valid", parts_valid[2], ("jaw_pose", "expr")),
            )
        ]
        pose, known = np.zeros((55, 3)), np.zeros(55, bool)
        pose[0], pose[1:22], known[:22] = value["root_pose"], value["body_pose"].reshape(21, 3), True
        for rows, name, valid in ((_LEFT_HAND, "lhand_pose", flags[0]), (_RIGHT_HAND, "rhand_pose", flags[1])):
            if valid:
                pose[rows], known[rows] = value[name].reshape(15, 3), True
        if flags[2]:
            pose[_JAW], known[_JAW] = value["jaw_pose"], True
        fields = {
            "body": "smplx",
            "full_pose": pose,
            "pose_valid": known,
            "betas": value["shape"],
            "shape_valid": True,
            "expression": value["expr"] if flags[2] else np.zeros(10),
            "expression_valid": flags[2],
            "transl": value["trans"],
            "gender": str(extra.get("gender", "neutral")),
            "flat_hand": False,
        }
        if "focal" in extra["has"] and "princpt" in extra["has"]:
            fields |= {"focal_px": value["focal"], "principal_px": value["princpt"], "camera_valid": True}
        if rotation is not None:
            fields |= in_camera_frame(
                pose, value["trans"], rotation, np.zeros(3) if translation is None else translation
            )
        return fields


def in_camera_frame(
    pose: np.ndarray, transl: np.ndarray, rotation: np.ndarray, translation: np.ndarray
) -> dict[str, Any]:
    """Fields of a `Sample` whose parameters a file gives in a world frame: camera = rotation @ world + translation."""
    from wholebody.data.sample import axis_angle_to_matrix, matrix_to_axis_angle

    pose = pose.copy()
    pose[0] = matrix_to_axis_angle(rotation @ axis_angle_to_matrix(pose[0]))
    return {"full_pose": pose, "transl": rotation @ transl + translation, "extrinsic_rotation": rotation}


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    """Fields of a `Sample` whose rotations of these joints are not to be trusted: fits to sets without annotated
    hands and feet turn wrists and ankles by guess."""
    if "pose_valid" in fields:
        known = fields["pose_valid"].copy()
        known[[SMPLX_JOINTS.index(name) for name in names]] = False
        fields["pose_valid"] = known
    return fields


GUESSED = ("left_ankle", "right_ankle", "left_wrist", "right_wrist")
"""What NeuralAnnot guesses for sets without annotated feet and hands; the published code masks them."""
