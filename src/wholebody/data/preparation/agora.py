"""AGORA's own tables to the annotations that readers take, and its 4K pictures to one crop a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import FACE_LANDMARKS, JOINTS_144
from wholebody.data.readers.agora import FULL_HW, camera, read_parameters
from wholebody.data.readers.coco_format import annotated_people, cut_box, entry_of, numbers
from wholebody.data.sample import axis_angle_to_matrix
from wholebody.errors import AssetMissing, BadInput, WholebodyError
from wholebody.files.dataframe import read_dataframe
from wholebody.files.image import read_stored
from wholebody.files.json_stream import read_json
from wholebody.files.whole import write_bytes, write_json
from wholebody.geometry.crop import box_around, crop_affine, fit_box, warp

TABLES = ("train", "validation")
VERTICES = ("validation", "all", "none")
_COLUMNS = ("imgPath", "gender", "kid", "occlusion", "isValid", "age", "ethnicity", "gt_path_smplx", "gt_joints_2d",
            "gt_joints_3d", "X", "Y", "Z", "Yaw", "camX", "camY", "camZ", "camYaw")  # fmt: skip
_NUM_JOINTS = 127
_NAMES = JOINTS_144[:_NUM_JOINTS]
_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
_PARTS = {
    "lhand": [k for k, name in enumerate(_NAMES) if name.startswith(tuple(f"left_{finger}" for finger in _FINGERS))],
    "rhand": [k for k, name in enumerate(_NAMES) if name.startswith(tuple(f"right_{finger}" for finger in _FINGERS))],
    "face": [_NAMES.index(name) for name in FACE_LANDMARKS],
}
_REST_PELVIS_WITHIN = 0.8
"""Metres: how far from the origin of its frame a body's pelvis rests at most (SMPL-X's about 0.35)."""


@dataclass
class TableSummary:
    """What `agora_json` wrote."""

    pictures: int = 0
    people: int = 0
    without_parameters: list[str] = field(default_factory=list)
    """Files of parameters that are missing or not numbers; their people are used without parameters."""
    misplaced: list[str] = field(default_factory=list)
    """Files whose parameters do not lie where the table puts the person; their place before the camera is left out."""


def agora_json(root: Path, splits: Sequence[str] = TABLES, vertices: str = "validation") -> TableSummary:
    """Write `data/AGORA_{split}.json` with one small file of joints a person, from what AGORA hands out:

        data/{train,validation}_SMPLX/SMPLX/*_withjv.pkl    its tables (train_SMPLX.zip, validation_SMPLX.zip)
        data/smplx_gt/...                                   its parameters (smplx_gt.zip)

    Beyond the published tool's annotations, each person gets `cam_param` {R, t, focal, princpt}: how the frame of its
    parameters lies before the camera.

    Args:
        root: the set's folder.
        vertices: for which split to write true meshes (0.6 MB a person): "validation", "all" or "none".
    """
    if vertices not in VERTICES:
        raise BadInput(f"vertices={vertices!r}: use one of {', '.join(VERTICES)}")
    unknown = sorted(set(splits) - set(TABLES))
    if unknown:
        raise BadInput(f"AGORA has tables for {' and '.join(TABLES)} only, not for {', '.join(unknown)}")
    summary = TableSummary()
    for split in splits:
        _write_split(root / "data", split, vertices == "all" or vertices == split, summary)
    return summary


def _write_split(data: Path, split: str, with_vertices: bool, summary: TableSummary) -> None:
    tables = sorted((data / f"{split}_SMPLX" / "SMPLX").glob("*.pkl")) or sorted((data / "SMPLX").glob(f"{split}*.pkl"))
    if not tables:
        raise BadInput(
            f"{data / f'{split}_SMPLX' / 'SMPLX'} holds no tables (*_withjv.pkl). Download {split}_SMPLX.zip from "
            f"https://agora.is.tue.mpg.de and unpack it in {data / f'{split}_SMPLX'}"
        )
    images: list[dict] = []
    annotations: list[dict] = []
    for path in tables:
        table = read_dataframe(path)
        missing = [name for name in (*_COLUMNS, *(["gt_verts"] if with_vertices else [])) if name not in table]
        if missing:
            raise BadInput(
                f"{path} lacks the columns {', '.join(missing)}: it is not one of AGORA's tables with joints and "
                "vertices (*_withjv.pkl)"
            )
        folder = path.stem.split("_withjv")[0] if split == "train" else "validation"
        for row in range(len(table["imgPath"])):
            cells = {name: column[row] for name, column in table.items()}
            name = str(cells["imgPath"])
            stem = name.rsplit(".", 1)[0]
            images.append({
                "id": len(images),
                "file_name_3840x2160": f"3840x2160/{folder}/{name}",
                "file_name_1280x720": f"1280x720/{folder}/{stem}_1280x720.png",
            })  # fmt: skip
            for person in range(len(cells["gt_path_smplx"])):
                annotation = {"id": len(annotations), "image_id": images[-1]["id"]}
                try:
                    annotation |= _annotation(cells, person)
                    place = f"smplx/{split}/{annotation['id']}.json"
                    _write_points(data, annotation, cells, person, place, with_vertices)
                except (TypeError, ValueError, IndexError, KeyError) as error:
                    raise BadInput(f"{path}: person {person} of {name} cannot be understood ({error!r})") from error
                _add_parameters(data, annotation, cells, person, summary)
                annotations.append(annotation)
    write_json(data / f"AGORA_{split}.json", {"images": images, "annotations": annotations})
    summary.pictures += len(images)
    summary.people += len(annotations)


def _annotation(cells: dict[str, Any], person: int) -> dict[str, Any]:
    points = _points(cells, "gt_joints_2d", person, 2)
    annotation = {
        "gender": str(cells["gender"][person]),
        "kid": bool(cells["kid"][person]),
        "occlusion": float(cells["occlusion"][person]),
        "is_valid": bool(cells["isValid"][person]),
        "age": str(cells["age"][person]),
        "ethnicity": str(cells["ethnicity"][person]),
        "bbox": _box(points),
    }
    return annotation | {f"{part}_bbox": _box(points[rows]) for part, rows in _PARTS.items()}


def _points(cells: dict[str, Any], column: str, person: int, size: int) -> np.ndarray:
    points = np.asarray(cells[column][person], np.float64).reshape(-1, size)
    if column != "gt_verts" and len(points) != _NUM_JOINTS:
        raise ValueError(f"{len(points)} joints in {column} instead of {_NUM_JOINTS}")
    return points


def _box(points: np.ndarray) -> list[float]:
    """x, y, width, height, a fifth larger than what the points take; empty if none is a number."""
    known = np.isfinite(points).all(1)
    if not known.any():
        return [0.0, 0.0, 0.0, 0.0]
    x0, y0, x1, y1 = box_around(points, known)
    return [float(x0), float(y0), float(x1 - x0), float(y1 - y0)]


def _write_points(data: Path, annotation: dict, cells: dict, person: int, place: str, with_vertices: bool) -> None:
    kinds = [("smplx_joints_2d_path", "gt_joints_2d", 2), ("smplx_joints_3d_path", "gt_joints_3d", 3)]
    if with_vertices:
        kinds.append(("smplx_verts_path", "gt_verts", 3))
    for key, column, size in kinds:
        annotation[key] = f"{column}/{place}"
        points = _points(cells, column, person, size).astype(object)
        points[~np.isfinite(points.astype(float))] = None  # not known: null
        write_json(data / annotation[key], points.tolist())


def _add_parameters(data: Path, annotation: dict, cells: dict, person: int, summary: TableSummary) -> None:
    place = str(cells["gt_path_smplx"][person]).rsplit(".", 1)[0] + ".pkl"
    try:
        values = read_parameters(data / place)
    except AssetMissing:
        values = None
    if values is None:
        summary.without_parameters.append(place)
        return
    annotation["smplx_param_path"] = place
    rotation, shift = camera_from_scan(cells, person)
    pelvis = _points(cells, "gt_joints_3d", person, 3)[0]
    rest = rotation.T @ (pelvis - shift) - values["transl"]
    if not np.linalg.norm(rest) < _REST_PELVIS_WITHIN:
        summary.misplaced.append(place)
        return
    focal, principal = camera(str(cells["imgPath"]))
    annotation["cam_param"] = {
        "R": rotation.tolist(), "t": shift.tolist(), "focal": focal.tolist(), "princpt": principal.tolist(),
    }  # fmt: skip


def camera_from_scan(cells: dict[str, Any], person: int) -> tuple[np.ndarray, np.ndarray]:
    """(rotation (3, 3), translation (3,) metres) from the frame of a person's parameters (y up) to the camera's.

    The renderer places a scan, turned by `Yaw`, at X, Y, Z (centimetres; x forward, y right, z up) and a camera, turned
    by its yaw and pitch. Where a scene has fixed cameras, the picture's name tells which one it was.
    """
    name = str(cells["imgPath"])
    place, yaw, pitch, ground = _camera_pose(name, cells)
    look = _about_x(pitch) @ _about_y(-yaw)
    turn = _about_y(float(cells["Yaw"][person]) - 90) @ np.diag([1.0, -1.0, -1.0])
    standing = _renderer_to_opencv([float(cells[axis][person]) for axis in "XYZ"])
    return look @ turn, look @ (standing - _renderer_to_opencv(place) - ground)


_FIXED_CAMERAS = {  # place (centimetres), yaw and pitch (degrees)
    "cam00": ((400.0, -275.0, 265.0), 135.0, 30.0),
    "cam01": ((400.0, 225.0, 265.0), -135.0, 30.0),
    "cam02": ((-490.0, 170.0, 265.0), -45.0, 30.0),
    "cam03": ((-490.0, -275.0, 265.0), 45.0, 30.0),
}


def _camera_pose(name: str, cells: dict[str, Any]) -> tuple[Sequence[float], float, float, np.ndarray]:
    """(place, yaw, pitch, offset in metres of the ground that places are measured from)"""
    level = np.zeros(3)
    if "hdri" in name:
        return (0.0, 0.0, 170.0), 0.0, 0.0, level
    for word, (place, yaw, pitch) in _FIXED_CAMERAS.items():
        if word in name:
            return place, yaw, pitch, level
    if "ag2" in name:
        return (0.0, 0.0, 170.0), 0.0, 15.0, level
    place = tuple(float(cells[axis]) for axis in ("camX", "camY", "camZ"))  # type: ignore[assignment]
    return place, float(cells["camYaw"]), 0.0, np.array([0.0, -1.7, 0.0])


def _renderer_to_opencv(centimetres: Sequence[float]) -> np.ndarray:
    forward, right, up = centimetres
    return np.array([right, -up, forward]) / 100


def _about_x(degrees: float) -> np.ndarray:
    return axis_angle_to_matrix(np.array([np.radians(degrees), 0, 0]))


def _about_y(degrees: float) -> np.ndarray:
    return axis_angle_to_matrix(np.array([0, np.radians(degrees), 0]))


# Crops


@dataclass
class CropSummary:
    """What `agora_crops` did; `problems` names pictures that could not be used, each with why."""

    written: int = 0
    skipped: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """One full picture and the crops (path without suffix, box xyxy) to cut from it."""

    picture: Path
    crops: tuple[tuple[Path, tuple[float, ...]], ...]
    out_hw: tuple[int, int]


def agora_crops(
    root: Path,
    splits: Sequence[str] = ("train", "validation", "test"),
    out_hw: tuple[int, int] = (512, 384),
    workers: int = 1,
    progress: Callable[[int], object] | None = None,
) -> CropSummary:
    """Cut everybody out of AGORA's pictures of 3840x2160, with the `.json` that says where from.

    A crop is the person's box fitted to 3:4 and enlarged by 1.25, sampled as published. What is there already is left
    as it is, so that an interrupted run goes on. A picture that is missing or broken is reported and passed over.

    Args:
        root: the set's folder, with `data/AGORA_{split}.json` (`AGORA_test_bbox.json`) and `data/3840x2160`.
        out_hw: height and width of the crops in pixels.
        workers: processes.
        progress: called with the number of full pictures done.
    """
    summary = CropSummary()
    jobs = []
    for split in splits:
        if split not in ("train", "validation", "test"):
            raise BadInput(f"AGORA has no split {split!r}: use train, validation or test")
        for picture, crops in _people_by_picture(root / "data", split):
            todo = tuple(crop for crop in crops if not _is_done(crop[0]))
            summary.skipped += len(crops) - len(todo)
            if todo:
                jobs.append(_Job(picture, todo, out_hw))
    for done, problem in _run(jobs, workers):
        summary.written += done
        if problem:
            summary.problems.append(problem)
        if progress:
            progress(1)
    return summary


def _run(jobs: list[_Job], workers: int) -> Iterator[tuple[int, str]]:
    if workers <= 1:
        yield from map(_cut, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_cut, jobs, chunksize=4)


def _people_by_picture(data: Path, split: str) -> Iterator[tuple[Path, list[tuple[Path, tuple[float, ...]]]]]:
    if split == "test":
        path = data / "AGORA_test_bbox.json"
        for name, found in read_json(path).items():
            stem = name.rsplit(".", 1)[0]
            people = ((f"{stem}_pid_{k}", numbers(path, entry, "bbox", 4)) for k, entry in enumerate(found))
            yield data / "3840x2160" / "test" / name, _crops(data / "3840x2160" / "test_crop", people)
        return
    path = data / f"AGORA_{split}.json"
    by_picture: dict[str, list[tuple[str, np.ndarray]]] = {}
    for annotation, image in annotated_people(path):
        name = str(entry_of(path, image, "file_name_3840x2160"))
        if entry_of(path, annotation, "is_valid"):
            crop = f"{Path(name).stem}_ann_id_{entry_of(path, annotation, 'id')}"
            by_picture.setdefault(name, []).append((crop, numbers(path, annotation, "bbox", 4)))
    for name, listed in by_picture.items():
        yield data / name, _crops(data / "3840x2160" / f"{Path(name).parent.name}_crop", listed)


def _crops(folder: Path, people) -> list[tuple[Path, tuple[float, ...]]]:
    cut = ((folder / name, cut_box(box, FULL_HW)) for name, box in people)
    return [(place, tuple(box)) for place, box in cut if box is not None]


def _is_done(place: Path) -> bool:
    return _suffixed(place, ".json").is_file() and _suffixed(place, ".png").is_file()


def _suffixed(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)


def _cut(job: _Job) -> tuple[int, str]:
    """(crops written, what went wrong)"""
    import cv2

    if not job.picture.is_file():
        return 0, f"{job.picture} is missing"
    try:
        picture = read_stored(job.picture, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except BadInput:
        return 0, f"{job.picture} cannot be decoded"
    if picture.shape[:2] != FULL_HW:
        height, width = picture.shape[:2]
        return 0, f"{job.picture} has {width}x{height} pixels instead of 3840x2160"
    written = 0
    try:
        for place, box in job.crops:
            fitted = fit_box(box, aspect=job.out_hw[1] / job.out_hw[0])
            affine = crop_affine(fitted, out_hw=job.out_hw)[0]
            encoded = cv2.imencode(".png", warp(picture, affine, job.out_hw))[1].tobytes()
            write_bytes(_suffixed(place, ".png"), encoded)
            x0, y0, x1, y1 = map(float, fitted)
            # Last, for a crop without it does not count.
            write_json(_suffixed(place, ".json"), {
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "img2bb_trans": affine.tolist(),
                "resized_height": job.out_hw[0],
                "resized_width": job.out_hw[1],
            })  # fmt: skip
            written += 1
    except WholebodyError as error:
        return written, str(error)
    return written, ""
