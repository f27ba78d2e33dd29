"""AGORA's test set: predictions in the form that its server takes, checked, and zipped.

One pickle for each person, `predictions/{picture}_personId_{number}.pkl`, with the body's parameters and the projected
joints in pixels of the 3840×2160 pictures; see docs/evaluation.md for the form and where it is documented.
"""

from __future__ import annotations

import itertools
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wholebody.data.readers import agora, reader
from wholebody.errors import BadInput
from wholebody.evaluation.inference import Predicted, predict
from wholebody.files.json_stream import read_json
from wholebody.files.npz import DAMAGED
from wholebody.files.reading import open_file, read_bytes
from wholebody.files.text import brief
from wholebody.files.unpickle import RestrictedUnpickler, load_pickle
from wholebody.files.whole import whole, write_bytes
from wholebody.geometry.crop import apply_affine
from wholebody.output.files import check_folder

FOLDER, ARCHIVE = "predictions", "predictions.zip"
MIN_IOU = 0.1
"""The server matches a prediction with a person only if their joints' boxes overlap by as much."""
_MATCHED_JOINTS = 24
_SHAPES = {
    "transl": (1, 3), "betas": (1, 10), "expression": (1, 10), "global_orient": (1, 3), "body_pose": (1, 63),
    "left_hand_pose": (1, 45), "right_hand_pose": (1, 45), "jaw_pose": (1, 3), "leye_pose": (1, 3),
    "reye_pose": (1, 3),
}  # fmt: skip
_MATRICES = {
    "global_orient": (1, 1, 3, 3), "body_pose": (1, 21, 3, 3), "left_hand_pose": (1, 15, 3, 3),
    "right_hand_pose": (1, 15, 3, 3), "jaw_pose": (1, 1, 3, 3), "leye_pose": (1, 1, 3, 3), "reye_pose": (1, 1, 3, 3),
}  # fmt: skip
_MOST_BYTES = 1 << 25  # of one person's file; one with all vertices in double precision has 260,000
_NAME = re.compile(r"(?P<picture>.+)_personId_(?P<number>\d{1,9})\.pkl")


class _Unpickler(RestrictedUnpickler):
    kind = "prediction"


@dataclass(frozen=True)
class Report:
    """What a check found: files that are right, and warnings about what the server will count against them."""

    files: int
    pictures: int
    warnings: tuple[str, ...] = ()


def submit(
    model: Any,
    root: Path,
    out: Path,
    batch_size: int = 8,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[Path, Report]:
    """Predict everybody of the test set, check all that was written, and zip it: `out/predictions.zip`."""
    check_network(model)
    check_folder(out)
    predict_all(model, root, out, batch_size, progress)
    return pack(root, out)


def check_network(model: Any) -> None:
    """Refuse a network whose answers the server would misread."""
    if model.body.name != "smplx":
        raise BadInput(
            f"AGORA's server takes SMPL-X, and this network predicts the body {model.body.name!r}: give a checkpoint "
            "that was trained for SMPL-X"
        )
    if model.body.flat_hand_mean:
        raise BadInput(
            "this network's hand poses count from the flat hand, and AGORA's server counts from the relaxed one: give "
            "a checkpoint with flat_hand_mean=False, as published"
        )


def predict_all(
    model: Any,
    root: Path,
    out: Path,
    batch_size: int,
    progress: Callable[[int], object],
    share: tuple[int, int] = (0, 1),
) -> None:
    """Write everybody's prediction into `out/predictions`; share: (k, n), every n-th person from the k-th on."""
    expected_people(root)
    samples = itertools.islice(reader("AGORA").read(root, "test"), share[0], None, share[1])
    for (predicted,) in predict([model], samples, root, batch_size):
        for name, content in predictions(predicted, root, model):
            write_bytes(out / FOLDER / name, to_bytes(content))
        progress(len(predicted.samples))


def pack(root: Path, out: Path) -> tuple[Path, Report]:
    """Check what `predict_all` wrote and zip it."""
    expected = expected_people(root)
    report = check(_files_of_folder(out / FOLDER), expected, ours=True)
    return archive(out / FOLDER, out / ARCHIVE, expected), report


def predictions(predicted: Predicted, root: Path, model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """File name and content for each person of a batch."""
    p = predicted.prediction
    cells = model.project(p.joints_144_cam).double().cpu().numpy()
    _, rows, columns = model.config.grid
    joints = predicted.to_picture(cells, (columns, rows))
    for i, sample in enumerate(predicted.samples):
        picture, number = agora.benchmark_name(sample)

        def vector(value: Tensor, i: int = i) -> np.ndarray:
            return value[i].float().cpu().numpy().reshape(1, -1)

        params = {
            "transl": vector(p.cam_trans),
            "global_orient": vector(p.global_orient),
            "body_pose": vector(p.body_pose),
            "left_hand_pose": vector(p.left_hand_pose),
            "right_hand_pose": vector(p.right_hand_pose),
            "jaw_pose": vector(p.jaw_pose),
            "leye_pose": np.zeros((1, 3), np.float32),
            "reye_pose": np.zeros((1, 3), np.float32),
            "expression": vector(p.expression),
            "betas": vector(p.betas),
        }
        full = apply_affine(joints[i], agora.full_from_picture(root, sample)).astype(np.float32)
        content = {"params": params, "joints": full, "pose2rot": True, "gender": "neutral", "num_betas": 10}
        yield f"{picture}_personId_{number}.pkl", content


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """A pickle that the server's numpy reads, which is older than ours and has its functions elsewhere."""
    data = pickle.dumps(dict(content), protocol=3)
    return data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def expected_people(root: Path) -> dict[str, list[np.ndarray]]:
    """Of each picture (name without suffix) the box xywh of everybody in it, in pixels of 3840×2160."""
    path = root / "data" / "AGORA_test_bbox.json"
    if not path.is_file():
        raise BadInput(f"{path} is missing: it says whom to predict, and comes with the set's parsed data")
    content = read_json(path)
    try:
        return {
            name.rsplit(".", 1)[0]: [np.asarray(person["bbox"], np.float64).reshape(4) for person in people]
            for name, people in content.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not boxes by picture ({error!r}); fetch it again") from error


def _files_of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path.name, read_bytes(path)


def _files_of_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as stored:
            for member in stored.infolist():
                name = member.filename
                if name == f"{FOLDER}/":
                    continue
                if not name.startswith(f"{FOLDER}/"):
                    raise BadInput(f"{path}: holds {name!r}, and everything must lie in a folder {FOLDER}/")
                if member.file_size > _MOST_BYTES:
                    raise BadInput(f"{path}: {name!r} unpacks to {member.file_size:,} bytes; a prediction has some MB")
                yield name.removeprefix(f"{FOLDER}/"), stored.read(member)
    except DAMAGED as error:
        raise BadInput(f"{path}: cannot be read as a zip ({error}); it is cut off or damaged, write it anew") from error


def check_zip(path: Path, root: Path) -> Report:
    """`check` for an archive that lies somewhere."""
    return check(_files_of_zip(path), expected_people(root))


def check_unzipped(folder: Path, root: Path) -> Report:
    """`check` for a folder of predictions."""
    return check(_files_of_folder(folder), expected_people(root))


def check(files: Iterable[tuple[str, bytes]], expected: Mapping[str, list[np.ndarray]], ours: bool = False) -> Report:
    """BadInput for the first thing that the server would refuse or misread: names, keys, shapes, numbers, people who
    are missing or too many, joints that are not in 3840×2160 pixels.

    ours: the files are of `predict_all`, whose pixels are right: joints that lie on nobody are then the network's.
    """
    seen: set[tuple[str, int]] = set()
    overlaps, overlaps_small = [], []
    for name, data in files:
        match = _NAME.fullmatch(name)
        if match is None:
            raise BadInput(f"{name}: files must be called PICTURE_personId_NUMBER.pkl")
        picture, number = match["picture"], int(match["number"])
        if picture not in expected or number >= len(expected[picture]):
            known = f"{len(expected[picture])} people" if picture in expected else "no such picture"
            raise BadInput(f"{name}: the test set has {known} there; remove the file or choose another --out")
        joints = check_person(name, _read(name, data))
        box = expected[picture][number]
        overlaps.append(_iou(joints, box))
        overlaps_small.append(_iou(joints * 3, box))
        seen.add((picture, number))
    missing = [
        f"{picture}_personId_{number}.pkl"
        for picture, people in expected.items()
        for number in range(len(people))
        if (picture, number) not in seen
    ]
    if missing:
        raise BadInput(
            f"{len(missing)} of {len(missing) + len(seen)} people have no prediction: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}. Cut everybody out of the pictures (`wholebody data agora-crops`) "
            "and predict again"
        )
    apart = int((np.array(overlaps) < MIN_IOU).sum())
    if apart > len(overlaps) / 2:
        raise BadInput(f"the joints of {apart} of {len(overlaps)} people {_why_apart(overlaps_small, ours)}")
    warnings: tuple[str, ...] = ()
    if apart:
        warnings = (f"{apart} people's joints lie outside their box: the server will count them as found nowhere",)
    return Report(len(seen), len({picture for picture, _ in seen}), warnings)


def _why_apart(overlaps_small: Sequence[float], ours: bool) -> str:
    if ours:
        return (
            "lie on nobody, though their pixels are those of the 3840×2160 pictures: this network does not find the "
            "people whose boxes it is given. Are its weights trained (those of a run's first steps are not), "
            "and of this size and variant? `wholebody info CHECKPOINT` says what they are"
        )
    if (np.array(overlaps_small) >= MIN_IOU).mean() > 0.5:
        return "are not in 3840×2160 pixels: they fit if they are of 1280×720, multiply by 3"
    return (
        "lie on nobody: they fit no person's box, in pixels of 3840×2160 or of 1280×720. Either the network that made "
        "them is not trained, or they are in other units"
    )


def check_person(name: str, content: Any) -> np.ndarray:
    """BadInput if the content of a file is not a person's prediction; gives its joints (24, 2)."""
    if not isinstance(content, Mapping):
        raise BadInput(f"{name}: holds a {type(content).__name__}, not a dictionary")
    joints = _array(name, "joints", content.get("joints"))
    if joints.ndim != 2 or joints.shape[0] < _MATCHED_JOINTS or joints.shape[1] != 2:
        raise BadInput(f"{name}: joints are {_shape(joints)}; they must be N×2, N at least {_MATCHED_JOINTS}")
    if "verts" in content and "allSmplJoints3d" in content:
        for key, rows in (("verts", 10475), ("allSmplJoints3d", 127)):
            value = _array(name, key, content[key])
            right = len(value) == rows if key == "verts" else len(value) >= rows
            if value.ndim != 2 or value.shape[-1] != 3 or not right:
                raise BadInput(f"{name}: {key} are {_shape(value)}; they must be {rows}×3")
        return joints[:_MATCHED_JOINTS]
    params = content.get("params")
    if not isinstance(params, Mapping):
        raise BadInput(f"{name}: has neither params nor both verts and allSmplJoints3d")
    axis_angle, betas = content.get("pose2rot", True), content.get("num_betas", 10)
    if not isinstance(axis_angle, bool | int | np.bool_):
        raise BadInput(f"{name}: pose2rot is {brief(axis_angle)}; it must be True or False")
    if isinstance(betas, bool) or not isinstance(betas, int | np.integer):
        raise BadInput(f"{name}: num_betas is {brief(betas)}; it must be a whole number")
    shapes = dict(_SHAPES) if axis_angle else _SHAPES | _MATRICES
    shapes["betas"] = (1, int(betas))
    for key, shape in shapes.items():
        value = _array(name, f"params.{key}", params.get(key))
        if value.shape != shape:
            raise BadInput(f"{name}: params.{key} is {_shape(value)}; it must be {'×'.join(map(str, shape))}")
    gender = content.get("gender", "neutral")
    if not isinstance(gender, str) or gender not in ("male", "female", "neutral"):
        raise BadInput(f"{name}: gender is {brief(gender)}; it must be male, female or neutral")
    return joints[:_MATCHED_JOINTS]


def _array(name: str, key: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        what = "missing" if value is None else f"a {type(value).__name__}"
        raise BadInput(f"{name}: {key} is {what}; it must be a numpy array of numbers")
    if not np.isfinite(value).all():
        raise BadInput(f"{name}: {key} has numbers that are not finite; the network's answer for this person is broken")
    return np.asarray(value, np.float64)


def _read(name: str, data: bytes) -> Any:
    return load_pickle(data, Path(name), _Unpickler)


def _shape(value: np.ndarray) -> str:
    return "×".join(map(str, value.shape)) or "a single number"


def _iou(joints: np.ndarray, xywh: np.ndarray) -> float:
    low, high = joints.min(0), joints.max(0)
    box_low, box_high = xywh[:2], xywh[:2] + xywh[2:]
    shared = np.prod(np.clip(np.minimum(high, box_high) - np.maximum(low, box_low), 0, None))
    union = np.prod(high - low) + np.prod(xywh[2:]) - shared
    return float(shared / union) if union > 0 else 0.0


def archive(folder: Path, path: Path, expected: Mapping[str, list[np.ndarray]]) -> Path:
    """Zip a checked folder: written aside, read back and checked, then renamed, so that `path` is whole or absent."""
    with whole(path) as part:
        with zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as stored:
            for name, data in _files_of_folder(folder):
                # A fixed date: the same predictions give the same file.
                stored.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}"), data, zipfile.ZIP_DEFLATED)
        check(_files_of_zip(part), expected)
    return path
