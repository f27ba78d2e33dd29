"""HumanData: the `.npz` files of MMHuman3D and SMPLer-X, one row a person.

    NAME.npz, in the folder itself or in preprocessed_datasets/
        image_path (N), bbox_xywh (N, 4 or 5), keypoints2d.., keypoints3d.. (N, J, 3 or 4) with their masks (J),
        smplx, smpl or smplh {global_orient, body_pose, betas, transl, ...}, meta {gender, height, width, ...}, misc

Keypoints follow one of two conventions: today's 190 and the 144 before. The first 144 of the 190 are the 144, and those
are the body layer's; both map by name. Compressed files leave out columns that a mask calls empty. The dictionaries are
pickles: they are read without running anything they name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import FROM_144, JOINTS_137, JOINTS_144
from wholebody.data.family import FILE_FOLDERS, FILES_SOURCE, FamilySet, file_of
from wholebody.data.readers import coco_format as coco
from wholebody.data.readers.pw3d import GENDERS
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import BadInput
from wholebody.files.npz import Rows, SafeNpz
from wholebody.files.text import brief
from wholebody.files.unpickle import as_array

SPLITS = ("train", "test")
HELD_OUT = ("test", "val", "valid", "validation")
"""A file with one of these words in its name belongs to the split `test`, all others to `train`."""

ROWS = 1024
"""Keypoints of so many people are held at a time; those of a million would take 8 GB."""

BODIES = ("smplx", "smpl", "smplh")
"""Whose parameters are taken where a file has several kinds."""
KEYPOINTS_2D = ("keypoints2d", "keypoints2d_smplx", "keypoints2d_smpl", "keypoints2d_original")
KEYPOINTS_3D = ("keypoints3d_cam", "keypoints3d", "keypoints3d_smplx", "keypoints3d_smpl", "keypoints3d_original")
"""Which keypoints are taken where a file has several kinds: SMPLer-X's order."""


def _in_humandata(name: str) -> str:
    """What HumanData calls a point of the 144, where it calls it otherwise."""
    for word in ("index", "middle", "pinky", "ring", "thumb"):
        # left_index1 -> left_index_1, left_index_tip -> left_index
        side, _, rest = name.partition("_")
        if rest.startswith(word):
            return f"{side}_{word}" if rest.endswith("_tip") else f"{side}_{word}_{rest[-1]}"
    if name.startswith("spine"):
        return f"spine_{name[-1]}"
    return name.replace("big_toe", "bigtoe").replace("small_toe", "smalltoe")


NAMES_144: tuple[str, ...] = tuple(_in_humandata(name) for name in JOINTS_144[:76]) + JOINTS_144[76:]
"""The 144 in HumanData's spelling (of the face in ours; its points are numbered there as here)."""

# fmt: off
_OPENPOSE = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear", "left_bigtoe", "left_smalltoe", "left_heel", "right_bigtoe", "right_smalltoe",
    "right_heel",
)
NAMES_190: tuple[str, ...] = (
    *NAMES_144,
    "right_hip_extra", "left_hip_extra", "neck_extra", "headtop", "pelvis_extra", "thorax_extra", "spine_extra",
    "jaw_extra", "head_extra",
    *(f"{name}_openpose" for name in _OPENPOSE),
    "spine_4_3dhp", "left_clavicle_3dhp", "right_clavicle_3dhp", "left_hand_3dhp", "right_hand_3dhp", "left_toe_3dhp",
    "right_toe_3dhp", "head_h36m", "headtop_h36m", "head_bottom_pt", "left_hand", "right_hand",
)
# fmt: on
"""The 190 of today."""

_NAMES_137 = tuple(NAMES_144[row] for row in FROM_144)


def rows_for_137(names: tuple[str, ...], approximate: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(rows, spare rows) in a set of names for each of `JOINTS_137` (int64); -1 where a name has none.

    approximate: spare rows are points that stand in where the first is not known: OpenPose's of the same name, and the
    hips, pelvis and neck of sets that mark these on the skin (`.._extra`).
    """
    rows = np.array([names.index(name) for name in _NAMES_137])
    spare = np.full(137, -1)
    for row, name in enumerate(_NAMES_137):
        for ending in ("_openpose", "_extra") if approximate else ():
            if spare[row] < 0 and name + ending in names:
                spare[row] = names.index(name + ending)
    return rows, spare


def read(
    root: Path,
    split: str,
    file: str = "",
    images: str = "",
    approximate: bool = False,
    flat_hand: bool | None = None,
    damaged: str = "error",
    every: int = 1,
) -> Iterator[Sample]:
    """The people of a folder's files, those with an empty box left out.

    Args:
        file: one file in the folder; "": all that belong to the split by their names, see `HELD_OUT`.
        images: the folder in the set's that `image_path` starts from. Absolute paths stay as they are.
        approximate: let near points stand in for missing ones, see `rows_for_137`.
        flat_hand: where hand poses are measured from, against what the file says (`misc`; without a word from the
            relaxed hand, in files of BEDLAM from the flat one).
        damaged: what to do about parameters that are not numbers, see `coco_format.DAMAGED`.
        every: only rows 0, every, 2 every, ... of each file.
    """
    for path in _files(root, split, file):
        yield from read_file(path, None, None, every, images, approximate, flat_hand, damaged)


@dataclass(frozen=True)
class SetReader:
    """The reader of one set of SMPLer-X or SMPLest-X, as other sets have a module."""

    one: FamilySet
    __file__ = __file__

    @property
    def SPLITS(self) -> tuple[str, ...]:
        return tuple(self.one.files)

    def read(self, root: Path, split: str, **options: Any) -> Iterator[Sample]:
        """See `read_set`."""
        return read_set(self.one, root, split, **options)


def read_set(
    one: FamilySet,
    root: Path,
    split: str,
    every: int = 1,
    images: str | None = None,
    approximate: bool = False,
    flat_hand: bool | None = None,
    damaged: str = "error",
) -> Iterator[Sample]:
    """The people of a set of SMPLer-X or SMPLest-X, file after file by their published names; those with an empty box
    are left out.

    Args:
        root: the set's own folder, which pictures' paths start in; its files lie in or beside it, see `family.file_of`.
        every: only rows 0, every, 2 every, ... of each file, as published. Default: all.
        images: the folder in the set's that a file's `image_path` starts from; None: where the published tools look,
            or wherever in the set's folder the file's first pictures are.
        approximate, flat_hand, damaged: as of `read`; a file that does not say where its hands are measured from is
            taken as `FamilySet.flat_hand` says.

    Raises BadInput if files are missing, or keys that the set needs; all of them are named at once.
    """
    places = {name: file_of(root, name) for name in one.files[split]}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise BadInput(
            f"{one.title} ({split}) is not complete: {', '.join(missing)} not found in {root} nor in "
            f"{' or '.join(FILE_FOLDERS[:2])} beside it. Get its pictures from {one.source}, {FILES_SOURCE}; "
            "`wholebody data check` shows what else is missing"
        )
    for path in filter(None, places.values()):
        yield from read_file(path, one, root, every, images, approximate, flat_hand, damaged)


def read_file(
    path: Path,
    one: FamilySet | None = None,
    root: Path | None = None,
    every: int = 1,
    images: str | None = "",
    approximate: bool = False,
    flat_hand: bool | None = None,
    damaged: str = "error",
) -> Iterator[Sample]:
    """The people of one file; `one`, `root`: the set that it belongs to, and that set's folder."""
    if damaged not in coco.DAMAGED:
        raise BadInput(f"damaged={damaged!r}: use one of {', '.join(coco.DAMAGED)}")
    if every < 1:
        raise BadInput(f"every={every}: it must be at least 1")
    with SafeNpz(path) as archive:
        people = _Columns(path, archive, approximate, flat_hand, damaged, one)
        place = _Pictures(one, root, people.paths) if images is None and one and root else _Below(images or "")
        for row in range(len(people.paths)):
            if row % ROWS == 0:
                people.read_keypoints()
            if row % every:
                continue
            sample = people.sample(row, place)
            if sample is not None:
                yield sample


class _Below:
    """Where pictures lie whose paths start in a folder of the set's; absolute paths stay as they are."""

    def __init__(self, folder: str):
        self._folder = folder.strip("/")

    def __call__(self, path: str) -> str:
        return path if not self._folder or path.startswith("/") else f"{self._folder}/{path}"


class _Pictures:
    """Where the pictures of a family's set lie, as paths in its folder.

    Files differ in what their paths start from: the set's folder, one in it, or the folder with all sets. The way that
    leads to the first pictures is taken; the published one where none does.
    """

    def __init__(self, one: FamilySet, root: Path, paths: list[str]):
        self._names = tuple(dict.fromkeys((root.name, one.home, one.name)))
        self._prefixes = tuple(dict.fromkeys((one.pictures, "", "images", "img")))
        first = paths[:_LOOKS]
        ways = [(prefix, cut) for prefix in self._prefixes for cut in (True, False)]
        self._way = next(
            (way for way in ways if any((root / self._path(path, *way)).is_file() for path in first)), ways[0]
        )

    def __call__(self, path: str) -> str:
        return self._path(path, *self._way)

    def _path(self, path: str, prefix: str, cut: bool) -> str:
        path = path.replace("\\", "/").lstrip("/").removeprefix("./")
        for name in self._names if cut else ():
            if path.startswith(f"{name}/"):
                path = path[len(name) + 1 :]
                break
        if prefix and not path.startswith(f"{prefix}/"):
            path = f"{prefix}/{path}"
        return path


_LOOKS = 3  # pictures


def check_keys(path: Path, archive: SafeNpz, one: FamilySet) -> None:
    """Raise BadInput, with all keys that a set's file needs and lacks."""
    needed = ["image_path", "bbox_xywh"]
    if one.train:
        needed += ["smplx|smpl|smplh", "|".join(KEYPOINTS_2D)]
    inside: dict[str, Any] = {}
    missing = []
    for key in dict.fromkeys((*needed, *_posed(archive), *one.needs)):
        for either in key.split("|"):
            outer, _, inner = either.partition("/")
            if outer not in archive:
                continue
            if inner and outer not in inside:
                inside[outer] = dictionary(path, archive, outer)
            if not inner or inside[outer].get(inner) is not None:
                break
        else:
            missing.append(key.replace("|", " or "))
    if missing:
        raise BadInput(
            f"{path} lacks {', '.join(missing)}, which {one.title} needs (it has {', '.join(archive)}): the file is of "
            "another version, or was made for something else; fetch or make it again"
        )


def _posed(archive: SafeNpz) -> tuple[str, ...]:
    """What the parameters that are there need, whichever body's they are."""
    body = next((name for name in BODIES if name in archive), "")
    return (f"{body}/global_orient", f"{body}/body_pose") if body else ()


def _files(root: Path, split: str, file: str) -> list[Path]:
    if file:
        return [root / file]
    every = sorted(root.glob("*.npz")) + sorted((root / "preprocessed_datasets").glob("*.npz"))
    held_out = [any(word in path.stem.lower().split("_") for word in HELD_OUT) for path in every]
    chosen = [path for path, test in zip(every, held_out, strict=True) if test == (split == "test")]
    if not chosen:
        raise BadInput(
            f"{root} holds no HumanData .npz for {split} ({len(every)} for the other split; names with "
            f"{', '.join(HELD_OUT)} are for test). Put them there or name one with file="
        )
    return chosen


@dataclass(frozen=True, eq=False)
class _Points:
    """Keypoints of some people: (N, 137, D) float32 and (N, 137) bool known."""

    values: np.ndarray
    known: np.ndarray


@dataclass(frozen=True, eq=False)
class _Keypoints:
    """Keypoints in a file: their rows, and which column each of the 137 is, -1 for none, and its stand-in."""

    rows: Rows
    columns: np.ndarray
    spare: np.ndarray
    size: int

    def take(self) -> _Points:
        """The next `ROWS` people's."""
        points = self.rows.take(ROWS)
        first = _pick(points, self.columns, self.size)
        if (self.spare < 0).all():
            return first
        second = _pick(points, self.spare, self.size)
        use = ~first.known & second.known
        return _Points(np.where(use[..., None], second.values, first.values), first.known | second.known)


def dictionary(path: Path, archive: SafeNpz, key: str) -> dict[str, Any]:
    """A dictionary of a file; {} where the file has none."""
    value = archive[key] if key in archive else {}
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(()).item()
    if value is None:  # how some tools write that there is nothing to say
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {key!r} should be a dictionary, it is a {type(value).__name__}")
    return value


class _Columns:
    """What a file holds, as arrays over its people (of keypoints, some people's at a time)."""

    def __init__(
        self,
        path: Path,
        archive: SafeNpz,
        approximate: bool,
        flat_hand: bool | None,
        damaged: str,
        one: FamilySet | None = None,
    ):
        self.path, self._damaged, self._approximate, self._set = path, damaged, approximate, one
        if one is not None:
            check_keys(path, archive, one)
        missing = [key for key in ("image_path", "bbox_xywh") if key not in archive]
        if missing:
            raise BadInput(f"{path} is no HumanData file: it has {', '.join(archive)} but lacks {', '.join(missing)}")
        self.paths = [str(place) for place in np.atleast_1d(archive["image_path"])]
        self.meshes = self._meshes(archive)
        self.boxes = self._boxes("bbox_xywh", archive)
        self.part_boxes = [
            self._boxes(key, archive) if key in archive else None
            for key in ("lhand_bbox_xywh", "rhand_bbox_xywh", "face_bbox_xywh")
        ]
        self.meta, misc = self._dictionary(archive, "meta"), self._dictionary(archive, "misc")
        self._keypoints_2d = self._keypoints(archive, KEYPOINTS_2D, "keypoints2d_mask", 2)
        self._keypoints_3d = self._keypoints(archive, KEYPOINTS_3D, "keypoints3d_mask", 3)
        self.points_2d: _Points | None = None
        self.points_3d: _Points | None = None
        self.body = next((name for name in BODIES if name in archive), "")
        self.parameters = self._dictionary(archive, self.body) if self.body else {}
        self.heights, self.widths = (self._sizes(key) for key in ("height", "width"))
        self.genders = self._genders()
        self.focal, self.principal = (self._camera(key, misc) for key in ("focal_length", "principal_point"))
        if flat_hand is None:
            silent = one.flat_hand if one is not None else path.stem.lower().startswith("bedlam")
            about = misc.get("flat_hand_mean", silent)
            flat_hand = bool(np.all(self._array("misc/flat_hand_mean", about)))
        self.flat_hand = flat_hand

    def _of_all(self, key: str, values: Any, *shape: int) -> np.ndarray:
        """Float64 with a row a person."""
        try:
            array = np.asarray(values, np.float64)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise BadInput(f"{self.path}: {key!r} is not made of numbers ({brief(str(error))})") from error
        if len(array.shape) < 1 or len(array) != len(self.paths):
            raise BadInput(f"{self.path}: {key!r} has shape {array.shape} for {len(self.paths)} people; fetch it again")
        return array.reshape(len(self.paths), *shape) if shape else array

    def _meshes(self, archive: SafeNpz) -> list[str] | None:
        """Where each person's true mesh lies, if the file says (ARCTIC's for SMPLest-X does)."""
        if "vertices3d_path" not in archive:
            return None
        places = [str(place) for place in np.atleast_1d(archive["vertices3d_path"])]
        if len(places) != len(self.paths):
            raise BadInput(f"{self.path}: 'vertices3d_path' has {len(places)} entries for {len(self.paths)} people")
        return places

    def _boxes(self, key: str, archive: SafeNpz) -> np.ndarray:
        boxes = self._of_all(key, archive[key])
        if boxes.ndim != 2 or boxes.shape[1] < 4:
            raise BadInput(f"{self.path}: {key!r} has shape {boxes.shape}; it must be people × (x, y, width, height)")
        return boxes

    def _dictionary(self, archive: SafeNpz, key: str) -> dict[str, Any]:
        return dictionary(self.path, archive, key)

    def _sizes(self, key: str) -> np.ndarray | None:
        if self.meta.get(key) is None:
            return None
        values = self._array(f"meta/{key}", self.meta[key])
        if values.size == 1:  # one for everybody
            values = np.full(len(self.paths), values.reshape(())[()])
        sizes = self._of_all(f"meta/{key}", values, -1)
        if sizes.size and not (np.isfinite(sizes).all() and (sizes >= 1).all() and (sizes <= 1 << 20).all()):
            raise BadInput(f"{self.path}: 'meta/{key}' holds sizes that no picture has; fetch it again")
        return sizes[:, 0].astype(int)

    def _array(self, key: str, value: Any) -> np.ndarray:
        try:
            return as_array(value)
        except (TypeError, ValueError, OverflowError) as error:
            why = brief(str(error))
            raise BadInput(f"{self.path}: {key!r} is no list of values ({why}); fetch it again") from error

    def _genders(self) -> list[str] | None:
        """Of each person; None where the file does not say."""
        found = self.meta.get("gender")
        if found is None:
            return None
        values = np.atleast_1d(self._array("meta/gender", found)).ravel().tolist()
        if len(values) == 1:
            values *= len(self.paths)
        if len(values) != len(self.paths):
            raise BadInput(f"{self.path}: 'meta/gender' has {len(values)} entries for {len(self.paths)} people")
        return [str(value).lower() for value in values]

    def _camera(self, key: str, misc: Mapping[str, Any]) -> np.ndarray | None:
        """(N, 2): of every person, or one for the whole file."""
        count = len(self.paths)
        own = self.meta.get(key)
        given = own if own is not None else misc.get(key)
        if given is None:
            return None
        try:
            value = as_array(given).astype(np.float64)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{self.path}: {key!r} is not made of numbers ({brief(str(error))})") from error
        if value.size == 0:
            return None
        if own is not None and len(np.atleast_1d(value)) == count and value.size in (count, 2 * count):
            return np.broadcast_to(value.reshape(count, -1), (count, 2))
        if value.size not in (1, 2):
            raise BadInput(f"{self.path}: {key!r} has shape {value.shape} for {count} people")
        return np.broadcast_to(value.reshape(-1), (count, 2))

    def read_keypoints(self) -> None:
        """Go on to the next `ROWS` people's keypoints."""
        self.points_2d = self._keypoints_2d.take() if self._keypoints_2d else None
        self.points_3d = self._keypoints_3d.take() if self._keypoints_3d else None

    def _keypoints(self, archive: SafeNpz, kinds: tuple[str, ...], common_mask: str, size: int) -> _Keypoints | None:
        key = next((kind for kind in kinds if kind in archive), None)
        if key is None:
            return None
        masks = (f"{key}_mask", common_mask, "mask")
        found = next((name for name in masks if name in archive), None)
        mask = None if found is None else _numbers(self.path, found, archive[found]).reshape(-1) > 0
        points = archive.rows(key)
        if points.dtype.kind not in "fiub":
            raise BadInput(f"{self.path}: {key!r} holds {points.dtype} values, not numbers; fetch it again")
        if len(points.shape) != 3 or points.shape[0] != len(self.paths) or points.shape[2] < size:
            raise BadInput(f"{self.path}: {key!r} has shape {points.shape} for {len(self.paths)} people")
        count = points.shape[1] if mask is None else len(mask)
        names = {144: NAMES_144, 190: NAMES_190}.get(count)
        if names is None or points.shape[1] not in (count, -1 if mask is None else int(mask.sum())):
            raise BadInput(
                f"{self.path}: {key!r} holds {points.shape[1]} keypoints, its mask is of {count}; HumanData has 190, "
                "or 144 in older files"
            )
        columns = np.arange(count)
        if points.shape[1] != count:  # compressed: the columns that the mask calls empty are left out
            columns = np.where(mask, np.cumsum(mask) - 1, -1)  # type: ignore[arg-type]
        elif mask is not None:
            columns = np.where(mask, columns, -1)
        rows, spare = rows_for_137(names, self._approximate)
        return _Keypoints(points, columns[rows], np.where(spare >= 0, columns[spare], -1), size)

    def sample(self, row: int, place: Callable[[str], str]) -> Sample | None:
        hw = None if self._set is None else self._set.size_hw
        if self.heights is not None and self.widths is not None:
            hw = (int(self.heights[row]), int(self.widths[row]))
        # Without the picture's size a box cannot be cut at its right and lower border.
        limit = hw or (2**31, 2**31)
        box = coco.cut_box(self.boxes[row, :4], limit) if np.isfinite(self.boxes[row, :4]).all() else None
        if box is None:
            return None
        name = self.paths[row]
        fields: dict[str, Any] = {}
        if self.points_2d is not None:
            values, known = self.points_2d.values[row % ROWS], self.points_2d.known[row % ROWS]
            inside = (values >= 0).all(1) & (values[:, 0] <= limit[1] - 1) & (values[:, 1] <= limit[0] - 1)
            fields |= {"joints_px": values, "joint_valid": known, "joint_visible": known & inside}
        if self.points_3d is not None and not (self._set is not None and self._set.joints_from_body):
            values, known = self.points_3d.values[row % ROWS], self.points_3d.known[row % ROWS]
            fields |= {"joints_cam": values, "joint_cam_valid": known}
        return masked_sample(
            f"{self.path.stem}/{row}",
            box,
            dataset="HumanData" if self._set is None else self._set.name,
            image_path=place(name),
            image_hw=hw,
            mesh_path=place(self.meshes[row]) if self.meshes else None,
            **coco.box_fields(*(self._part_box(boxes, row) for boxes in self.part_boxes)),
            **fields,
            **self._body(row),
        )

    def _part_box(self, boxes: np.ndarray | None, row: int) -> np.ndarray | None:
        """xyxy (4,); None where the confidence (the fifth number) or the size is zero."""
        if boxes is None or not np.isfinite(boxes[row]).all() or (boxes[row, 4:] <= 0).any():
            return None
        x, y, width, height = boxes[row, :4]
        return np.array([x, y, x + width, y + height]) if width > 0 and height > 0 else None

    def _body(self, row: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.focal is not None and self.principal is not None:
            fields = {"focal_px": self.focal[row], "principal_px": self.principal[row]}
        if "body_pose" not in self.parameters or "global_orient" not in self.parameters:
            return fields
        pose, known = np.zeros((55, 3)), np.zeros(55, bool)
        pose[0], pose[1:22], known[:22] = self._value(row, "global_orient", 3), self._body_pose(row), True
        for rows, key in _POSE_ROWS:
            if key in self.parameters:
                pose[rows], known[rows] = self._value(row, key, pose[rows].size).reshape(-1, 3), True
        neutral = "betas_neutral" in self.parameters
        shape = "betas_neutral" if neutral else "betas" if "betas" in self.parameters else ""
        has_expression = "expression" in self.parameters and self.body == "smplx"
        has_transl = "transl" in self.parameters
        betas = self._value(row, shape, 10) if shape else np.zeros(10)
        expression = self._value(row, "expression", 10) if has_expression else np.zeros(10)
        transl = self._value(row, "transl", 3) if has_transl else np.zeros(3)
        if not all(np.isfinite(value).all() for value in (pose, betas, expression, transl)):
            if self._damaged == "mask":
                return fields
            raise BadInput(
                f"{self.path}: the {self.body} parameters of row {row} hold values that are not finite. Fetch the file "
                "again, or read with damaged='mask' to use this person without parameters"
            )
        gender = "neutral" if self.genders is None or neutral else self.genders[row]
        return fields | {
            # A SMPL+H body is SMPL's with hands; its pose means what SMPL's does.
            "body": "smplx" if self.body == "smplx" else "smpl",
            "gender": GENDERS.get(gender, "neutral"),
            "full_pose": pose,
            "pose_valid": known,
            "betas": betas,
            "shape_valid": bool(shape),
            "expression": expression,
            "expression_valid": has_expression,
            "transl": transl,
            "camera_valid": bool(fields) and has_transl,
            "flat_hand": self.flat_hand,
        }

    def _body_pose(self, row: int) -> np.ndarray:
        """(21, 3): SMPL's last two rotations are its hands'."""
        return self._value(row, "body_pose", 63).reshape(21, 3)

    def _value(self, row: int, key: str, count: int) -> np.ndarray:
        """The first `count` numbers of a person (shapes come with 10, 11, 16 or 300)."""
        try:
            value = np.asarray(self.parameters[key][row], np.float64).reshape(-1)
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
            raise BadInput(f"{self.path}: {self.body}/{key} has no numbers in row {row} ({error})") from error
        if len(value) < count:
            raise BadInput(f"{self.path}: {self.body}/{key} has {len(value)} numbers in row {row}, {count} are needed")
        return value[:count]


_POSE_ROWS = (
    (slice(22, 23), "jaw_pose"),
    (slice(23, 24), "leye_pose"),
    (slice(24, 25), "reye_pose"),
    (slice(25, 40), "left_hand_pose"),
    (slice(40, 55), "right_hand_pose"),
)


def _numbers(path: Path, name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise BadInput(f"{path}: {name!r} holds {array.dtype} values, not numbers; fetch it again")
    return array


def _pick(points: np.ndarray, columns: np.ndarray, size: int) -> _Points:
    """Columns (137,) of points (N, J, size or size + 1), -1 for none. Known: there, finite, of confidence above 0."""
    values = points[:, columns].astype(np.float32)
    known = np.broadcast_to(columns >= 0, values.shape[:2]) & np.isfinite(values).all(-1)
    if points.shape[2] > size:
        known = known & (values[..., size] > 0)
    return _Points(np.where(known[..., None], values[..., :size], 0), known)


assert len(NAMES_190) == 190 and len(JOINTS_137) == 137
