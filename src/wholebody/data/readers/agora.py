"""AGORA: scans of people rendered into scenes, with fitted SMPL-X bodies. Pictures of 3840x2160 and of 1280x720.

    data/AGORA_{train,validation}.json   COCO format, from the set's own tables (`wholebody data agora-json`)
    data/AGORA_test_bbox.json            {picture: [{"bbox": [x, y, width, height]}, ...]}, found by a detector
    data/gt_joints_2d/smplx/7.json       127 joints, pixels of 3840x2160; gt_joints_3d: metres, camera frame;
                                         gt_verts: the mesh, metres, camera frame
    data/smplx_gt/.../*.pkl              SMPL-X parameters, in the frame of the scan
    data/1280x720/{train_0..train_9,validation,test}/NAME_1280x720.png
    data/3840x2160/{train_0..,validation,test}_crop/NAME_ann_id_7.{png,json}  (test: NAME_pid_0): one person each, cut
                                         out by `wholebody data agora-crops`

All boxes and pixels of the JSON files are of 3840x2160; a sample's are of the picture that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wholebody.body.joints import FROM_144, JOINTS_137, SMPLX_JOINTS
from wholebody.data.readers import coco_format as coco
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import AssetMissing, BadInput
from wholebody.files.json_stream import read_json
from wholebody.files.text import brief
from wholebody.files.unpickle import RestrictedUnpickler, read_pickle
from wholebody.geometry.crop import apply_affine, invert_affine

SPLITS = ("train", "validation", "test")
FULL_HW = (2160, 3840)
"""Height and width of the pictures that all annotations are of."""
SMALL_HW = (720, 1280)
FIXED = ("_fix_betas", "_fix_global_orient_transl")
"""How the names of SMPLer-X's annotations end."""
RESOLUTIONS = ("3840x2160", "1280x720")

SENSOR_WIDTH_MM = 36.0

_NUM_JOINTS = 127  # the 144 without the contour of the face
# Face_1 to Face_4 are points that AGORA names otherwise (jaw, head, eyes), so the published mapping by name leaves them
# out; from Face_5 on the two sets agree.
_FIRST_FACE = JOINTS_137.index("Face_1")
_ROWS_OF_137 = [row for row in range(_FIRST_FACE)] + [_FIRST_FACE + k for k in range(4, 55)]
_FROM_127 = [FROM_144[row] for row in _ROWS_OF_137]
_EYES = (SMPLX_JOINTS.index("left_eyeball"), SMPLX_JOINTS.index("right_eyeball"))


class _ParameterUnpickler(RestrictedUnpickler):
    kind = "file of body parameters"


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture that shows (part of) a full one."""

    path: str
    hw: tuple[int, int]
    from_full: np.ndarray  # (2, 3): pixels of 3840x2160 to pixels of this one
    is_crop: bool

    def box(self, path: Path, annotation: Mapping[str, Any], key: str) -> np.ndarray | None:
        """A box of the full picture in this one, cut at the full one's border; None if it is empty or not given."""
        if annotation.get(key) is None:
            return None
        x, y, width, height = coco.numbers(path, annotation, key, 4)
        if width <= 0 or height <= 0:
            return None
        low, high = apply_affine([[x, y], [x + width, y + height]], self.from_full)
        border = apply_affine([[0, 0], [FULL_HW[1], FULL_HW[0]]], self.from_full)
        low, high = np.maximum(low, border[0]), np.minimum(high, border[1]) - 1  # the last pixel's number
        return np.concatenate([low, high]) if (high > low).all() else None

    def person(self, path: Path, annotation: Mapping[str, Any]) -> np.ndarray | None:
        if self.is_crop:
            # A crop is the person's box fitted to 3:4 and enlarged by 1.25; the box that leads back to all of it:
            wh = np.array(self.hw[::-1], np.float64)
            return np.concatenate([wh * 0.1, wh * 0.9])
        return self.box(path, annotation, "bbox")


def read(
    root: Path, split: str, resolution: str = "", max_occlusion: float = 100.0, damaged: str = "error"
) -> Iterator[Sample]:
    """The people of one split, in the order of the file; those marked as not valid or with an empty box are left out,
    and with crops those who were not cut out.

    Args:
        resolution: "1280x720", or "3840x2160" for crops; "": crops if there are any.
        max_occlusion: leave out people of whom a greater share (percent) is hidden.
        damaged: what to do about parameters that are not numbers, see `coco_format.DAMAGED`.
    """
    if damaged not in coco.DAMAGED:
        raise BadInput(f"damaged={damaged!r}: use one of {', '.join(coco.DAMAGED)}")
    coco.require("AGORA", root, split)
    crops = _use_crops(root, resolution)
    if split == "test":
        yield from _read_test(root, crops)
        return
    path = annotations_of(root, split)
    people = 0
    for annotation, image in coco.annotated_people(path):
        if not coco.entry_of(path, annotation, "is_valid"):
            continue
        if _number(annotation.get("occlusion")) > max_occlusion:
            continue
        picture = _crop(root, path, annotation, image) if crops else _small(path, image)
        box = picture.person(path, annotation) if picture else None
        if picture is None or box is None:
            continue
        people += 1
        number, name = annotation["id"], PurePosixPath(str(coco.entry_of(path, image, "file_name_3840x2160"))).stem
        yield masked_sample(
            f"AGORA/{split}/{name}_ann_id_{number}",
            box,
            dataset="AGORA",
            image_path=picture.path,
            image_hw=picture.hw,
            mesh_path=_data_path(annotation.get("smplx_verts_path")),
            **coco.box_fields(*(picture.box(path, annotation, f"{part}_bbox") for part in ("lhand", "rhand", "face"))),
            **_joints(root, path, annotation, picture),
            **_body(root, path, annotation, picture, name, damaged),
        )
    if crops and not people:
        raise BadInput(f"{root} holds no crops of AGORA's {split} split; make them with `wholebody data agora-crops`")


def annotations_of(root: Path, split: str) -> Path:
    """The annotations of a split: the plain file, or where that is not there one of SMPLer-X's, whose parameters lie
    before the camera (`_fix_global_orient_transl`) and have shapes of the neutral body too (`_fix_betas`)."""
    names = (f"AGORA_{split}{ending}.json" for ending in ("", *FIXED))
    places = [root / "data" / name for name in names]
    return next((place for place in places if place.is_file()), places[0])


def full_from_picture(root: Path, sample: Sample) -> np.ndarray:
    """The affine map (2, 3) from pixels of a sample's picture to pixels of the full one, 3840x2160: what results are
    handed in with."""
    picture = root / (sample.image_path or "")
    if not picture.parent.name.endswith("_crop"):
        height, width = sample.image_hw or SMALL_HW
        return np.array([[FULL_HW[1] / width, 0, 0], [0, FULL_HW[0] / height, 0]])
    return invert_affine(_read_crop(picture.with_suffix(".json"))[0])


def benchmark_name(sample: Sample) -> tuple[str, int]:
    """(picture's name without suffix, number of the person in it) of somebody of the test split."""
    name, _, number = sample.id.rsplit("/", 1)[-1].rpartition("_pid_")
    return name, int(number)


def camera(picture_name: str) -> tuple[np.ndarray, np.ndarray]:
    """(focal (2,), principal point (2,)) in pixels of 3840x2160; the picture's name tells with which lens it is."""
    millimetres = 50.0 if "hdri" in picture_name else 18.0 if "cam0" in picture_name else 28.0
    return np.full(2, millimetres / SENSOR_WIDTH_MM * FULL_HW[1]), np.array([FULL_HW[1] / 2, FULL_HW[0] / 2])


def _use_crops(root: Path, resolution: str) -> bool:
    if resolution not in ("", *RESOLUTIONS):
        raise BadInput(f"resolution={resolution!r}: use one of {', '.join(RESOLUTIONS)}")
    return resolution == RESOLUTIONS[0] or (not resolution and any((root / "data" / RESOLUTIONS[0]).glob("*_crop")))


def _read_test(root: Path, crops: bool) -> Iterator[Sample]:
    path = root / "data" / "AGORA_test_bbox.json"
    boxes, people = read_json(path), 0
    if not isinstance(boxes, dict):
        raise BadInput(f"{path} must map pictures to lists of boxes; fetch it again")
    for file_name, found in boxes.items():
        stem = file_name.rsplit(".", 1)[0]
        if not isinstance(found, list) or "." not in file_name:
            raise BadInput(f"{path}: {brief(file_name)} must be a picture's name with a list of boxes; fetch it again")
        for number, entry in enumerate(found):
            if crops:
                place = f"data/3840x2160/test_crop/{stem}_pid_{number}"
                picture = _crop_at(root, place)
            else:
                picture = _Picture(_small_test_picture(root, file_name), SMALL_HW, _SMALL_FROM_FULL, False)
            box = picture.person(path, entry) if picture else None
            if picture is not None and box is not None:
                people += 1
                yield masked_sample(
                    f"AGORA/test/{stem}_pid_{number}",
                    box,
                    dataset="AGORA",
                    image_path=picture.path,
                    image_hw=picture.hw,
                    **_camera_fields(picture, stem),
                )
    if crops and not people:
        raise BadInput(f"{root} holds no crops of AGORA's test split; make them with `wholebody data agora-crops`")


_SMALL_FROM_FULL = np.array([[1 / 3, 0, 0], [0, 1 / 3, 0]])


def _small(path: Path, image: Mapping[str, Any]) -> _Picture:
    name = coco.entry_of(path, image, "file_name_1280x720")
    return _Picture(f"data/{PurePosixPath(name)}", SMALL_HW, _SMALL_FROM_FULL, False)


def _small_test_picture(root: Path, file_name: str) -> str:
    """Users have them in the folder of the set's archive or of the published reader, with or without suffix."""
    stem, suffix = file_name.rsplit(".", 1)
    places = [f"data/1280x720/test/{stem}_1280x720.{suffix}", f"data/1280x720/test/{file_name}",
              f"data/test/{file_name}", f"data/test/{stem}_1280x720.{suffix}"]  # fmt: skip
    return next((place for place in places if (root / place).is_file()), places[0])


def _crop(root: Path, path: Path, annotation: Mapping[str, Any], image: Mapping[str, Any]) -> _Picture | None:
    full = PurePosixPath(str(coco.entry_of(path, image, "file_name_3840x2160")))
    number = coco.entry_of(path, annotation, "id")
    return _crop_at(root, f"data/3840x2160/{full.parent.name}_crop/{full.stem}_ann_id_{number}")


def _crop_at(root: Path, place: str) -> _Picture | None:
    """The crop at a path without suffix; None if there is none."""
    if not (root / f"{place}.json").is_file():
        return None
    from_full, hw = _read_crop(root / f"{place}.json")
    return _Picture(f"{place}.png", hw, from_full, True)


def _read_crop(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    about = read_json(path)
    return coco.numbers(path, about, "img2bb_trans", 2, 3), (
        coco.integer(path, about, "resized_height"),
        coco.integer(path, about, "resized_width"),
    )


def _camera_fields(picture: _Picture, name: str) -> dict[str, Any]:
    focal, principal = camera(name)
    scale = picture.from_full[[0, 1], [0, 1]]
    return {"focal_px": focal * scale, "principal_px": apply_affine(principal, picture.from_full)}


def _joints(root: Path, path: Path, annotation: Mapping[str, Any], picture: _Picture) -> dict[str, Any]:
    """Joints in the picture and in space. A joint that is not a number is not known."""
    fields: dict[str, Any] = {}
    known_px = _points(root, path, annotation, "smplx_joints_2d_path", 2)
    known_cam = _points(root, path, annotation, "smplx_joints_3d_path", 3)
    if known_px is not None:
        points, known = known_px
        moved = np.where(known[:, None], apply_affine(points, picture.from_full), 0)
        fields |= {"joints_px": moved, "joint_valid": known}
    if known_cam is not None:
        fields |= {"joints_cam": known_cam[0], "joint_cam_valid": known_cam[1]}
    return fields


def _points(
    root: Path, path: Path, annotation: Mapping[str, Any], key: str, size: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Joints (137, size), zero where unknown, and (137,) bool which are known."""
    if not annotation.get(key):
        return None
    file = root / "data" / str(annotation[key])
    try:
        points = np.asarray(read_json(file), np.float64).reshape(-1, size)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{file} is not a list of points of {size} numbers; make it again") from error
    if len(points) != _NUM_JOINTS:
        raise BadInput(f"{file} holds {len(points)} joints, not AGORA's {_NUM_JOINTS} of SMPL-X; make it again")
    result, known = np.zeros((137, size)), np.zeros(137, bool)
    chosen = points[_FROM_127]
    finite = np.asarray(np.isfinite(chosen).all(1))
    result[_ROWS_OF_137], known[_ROWS_OF_137] = np.where(finite[:, None], chosen, 0), finite
    return result, known


def _body(
    root: Path, path: Path, annotation: Mapping[str, Any], picture: _Picture, name: str, damaged: str
) -> dict[str, Any]:
    """Parameters. The files hold them in the frame of the scan; only `cam_param`, which our own tool writes into the
    annotations, tells how that lies before the camera. Without it, the root's rotation and `transl` are not known."""
    fields = _camera_fields(picture, name)
    place = annotation.get("smplx_param_path")
    if not place:
        return fields
    kid, gender = bool(annotation.get("kid")), str(annotation.get("gender", "neutral")).lower()
    try:
        values = read_parameters(root / "data" / str(place))
    except AssetMissing as error:
        raise BadInput(
            f"{error}, the SMPL-X parameters of annotation {annotation.get('id')} of {path}. Unpack smplx_gt.zip from "
            f"https://agora.is.tue.mpg.de in {root / 'data'}"
        ) from error
    if values is None:
        if damaged == "mask":
            return fields
        raise BadInput(
            f"{root / 'data' / str(place)} lacks parameters or holds such that are not numbers. Fetch it again, or "
            "read with damaged='mask' to use this person without parameters"
        )
    pose, known = np.zeros((55, 3)), np.ones(55, bool)
    pose[:22] = np.concatenate([values["global_orient"], values["body_pose"]]).reshape(22, 3)
    pose[25:40], pose[40:55] = values["left_hand_pose"].reshape(15, 3), values["right_hand_pose"].reshape(15, 3)
    pose[SMPLX_JOINTS.index("jaw")] = values["jaw_pose"]
    pose[_EYES[0]], pose[_EYES[1]] = values["leye_pose"], values["reye_pose"]
    fields |= {
        "body": "smplx",
        # Children are an adult body plus the difference to a child's; girls were fitted with the neutral one.
        "gender": "neutral" if kid and gender == "female" else gender,
        "kid": float(values["betas"][10]) if kid and len(values["betas"]) > 10 else 0.0,
        "full_pose": pose,
        "betas": values["betas"][:10],
        "shape_valid": True,
        "expression": values["expression"][:10],
        "expression_valid": True,
        "transl": values["transl"],
        "flat_hand": False,
    }
    if "betas_neutral" in values and not kid and path.stem.endswith(FIXED[0]):
        fields |= {"betas": values["betas_neutral"], "gender": "neutral"}
    placed = annotation.get("cam_param")
    if placed:
        rotation, shift = coco.numbers(path, placed, "R", 3, 3), coco.numbers(path, placed, "t", 3)
        fields |= coco.in_camera_frame(pose, values["transl"], rotation, shift) | {"camera_valid": True}
    elif not path.stem.endswith(FIXED):
        known[0] = False
    return fields | {"pose_valid": known}


_SIZES = {"global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "jaw_pose": 3,
          "leye_pose": 3, "reye_pose": 3, "transl": 3, "betas": 10, "expression": 10}  # fmt: skip
_OPTIONAL = ("leye_pose", "reye_pose")


def read_parameters(path: Path) -> dict[str, np.ndarray] | None:
    """SMPL-X parameters of one person by name, flat float64, axis-angle; None if some are missing or not finite.

    Raises AssetMissing if there is no such file, BadInput if it is something else than a pickle of arrays.
    """
    content = read_pickle(path.with_suffix(".pkl"), _ParameterUnpickler)
    if not isinstance(content, dict):
        raise BadInput(f"{path} holds no dictionary of parameters but a {type(content).__name__}; fetch it again")
    values = {}
    for key, size in _SIZES.items():
        try:
            value = np.asarray(content.get(key, np.zeros(size) if key in _OPTIONAL else ()), np.float64).reshape(-1)
        except (TypeError, ValueError):
            return None
        if len(value) < size or not np.isfinite(value).all():
            return None
        values[key] = value if key == "betas" else value[:size]
    if "betas_neutral" in content:
        neutral = np.asarray(content["betas_neutral"], np.float64).reshape(-1)
        if len(neutral) < 10 or not np.isfinite(neutral).all():
            return None
        values["betas_neutral"] = neutral[:10]
    return values


def _data_path(place: Any) -> str | None:
    if place is not None and not isinstance(place, str):
        raise BadInput(f"AGORA's annotations name a file by {brief(place)}, which is no text; download them again")
    return None if not place else f"data/{PurePosixPath(place)}"


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if np.isfinite(number) else 0.0
