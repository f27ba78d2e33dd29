"""Human3.6M in COCO form, with measured joints and NeuralAnnot's SMPL-X parameters.

    images/s_01_act_02_subact_01_ca_01/*.jpg
    annotations/Human36M_subject{1,5,6,7,8,9,11}_{data,camera,joint_3d,SMPLX_NeuralAnnot}.json

Joints and camera translations are in millimetres, parameters in metres, both in the world frame. Every fifth frame of
the train subjects is used, of the test subjects every 64th from camera 4, as in the published code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.data.readers import coco_format as coco
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import BadInput
from wholebody.files.json_stream import items, read_json
from wholebody.geometry.camera import project

SPLITS: tuple[str, ...] = ("train", "test")
SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
EVERY = {"train": 5, "test": 64}
_TEST_CAMERA = 4

JOINTS = (
    "Pelvis", "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Torso", "Neck", "Head", "Head_top",
    "L_Shoulder", "L_Elbow", "L_Wrist", "R_Shoulder", "R_Elbow", "R_Wrist",
)  # fmt: skip


def read(root: Path, split: str, every: int | None = None, damaged: str = "error") -> Iterator[Sample]:
    """One subject after the other, so that only one's parameters are held.

    every: use frames whose number is a multiple of it; default `EVERY`. damaged: see `coco_format.DAMAGED`.
    """
    coco.require("Human36M", root, split)
    every = every or EVERY[split]
    for subject in SUBJECTS[split]:
        yield from _subject(root / "annotations", subject, split, every, damaged)


def _subject(folder: Path, subject: int, split: str, every: int, damaged: str) -> Iterator[Sample]:
    def file(what: str) -> Path:
        return folder / f"Human36M_subject{subject}_{what}.json"

    cameras = read_json(file("camera"))
    joints_path = file("joint_3d")
    joints = measured_joints(joints_path, every)
    fits = coco.Fits(file("SMPLX_NeuralAnnot"), damaged)
    for key, param in by_frame(fits.path, every):
        fits.add(key, param)
    path = file("data")
    for annotation, image in coco.annotated_people(path):
        if coco.integer(path, image, "frame_idx") % every:
            continue
        if split == "test" and coco.entry_of(path, image, "cam_idx") != _TEST_CAMERA:
            continue
        key = tuple(str(coco.entry_of(path, image, k)) for k in ("action_idx", "subaction_idx", "frame_idx"))
        camera = coco.entry_of(file("camera"), cameras, str(coco.entry_of(path, image, "cam_idx")))
        if key not in joints:
            raise BadInput(f"{joints_path} lacks action/subaction/frame {'/'.join(key)}, which {path.name} has")
        sample = measured_person(
            path, annotation, image, JOINTS, joints[key], Camera.of(file("camera"), camera, "f", "c"), fits, key
        )
        if sample is not None:
            number = coco.entry_of(path, annotation, "id")
            yield _named(sample, f"{subject}/{number}", "Human36M", f"images/{coco.entry_of(path, image, 'file_name')}")


class Camera:
    """A calibrated camera: R (3, 3), t (3,) metres, focal (2,) and principal (2,) pixels; camera = R world + t."""

    def __init__(self, R: np.ndarray, t: np.ndarray, focal: np.ndarray, principal: np.ndarray):
        self.R, self.t, self.focal, self.principal = R, t, focal, principal

    @staticmethod
    def of(path: Path, entry: Mapping[str, Any], focal: str, principal: str) -> Camera:
        """From a file's entry, whose translation is in millimetres."""
        numbers = [
            coco.numbers(path, entry, k, *s) for k, s in (("R", (3, 3)), ("t", (3,)), (focal, (2,)), (principal, (2,)))
        ]
        return Camera(numbers[0], numbers[1] / 1000, numbers[2], numbers[3])


def measured_person(
    path: Path,
    annotation: Mapping[str, Any],
    image: Mapping[str, Any],
    names: tuple[str, ...],
    joints_mm: np.ndarray,
    camera: Camera,
    fits: coco.Fits,
    key: Any,
) -> Sample | None:
    """One annotation of a set with calibrated cameras and joints measured in the world frame (millimetres); None if
    its box is empty. Somebody without parameters keeps the joints."""
    hw = coco.picture_hw(path, image)
    box = coco.cut_box(coco.numbers(path, annotation, "bbox", 4), hw)
    if box is None:
        return None
    if joints_mm.shape != (len(names), 3) or not np.isfinite(joints_mm).all():
        raise BadInput(
            f"{path}: the joints of {key} are {joints_mm.shape} or not finite, not {len(names)}×3; fetch again"
        )
    joints_cam, known = coco.joints_by_name(names, joints_mm / 1000 @ camera.R.T + camera.t)
    joints_px = np.zeros((137, 2))
    joints_px[known] = project(joints_cam[known], camera.focal, camera.principal)
    inside = (joints_px >= 0).all(1) & (joints_px[:, 0] <= hw[1] - 1) & (joints_px[:, 1] <= hw[0] - 1)
    fit = coco.without(fits.fields(key, rotation=camera.R, translation=camera.t), *coco.GUESSED)
    fields = {"focal_px": camera.focal, "principal_px": camera.principal, "camera_valid": True} | fit
    return masked_sample(
        str(key),
        box,
        image_hw=hw,
        joints_px=joints_px,
        joints_cam=joints_cam,
        joint_valid=known,
        joint_cam_valid=known.copy(),
        joint_visible=known & inside,
        **fields,
    )


def _named(sample: Sample, id: str, dataset: str, image_path: str) -> Sample:
    from dataclasses import replace

    return replace(sample, id=id, dataset=dataset, image_path=image_path)


def measured_joints(path: Path, every: int) -> dict[tuple[str, ...], np.ndarray]:
    """(N, 3) millimetres by (action, subaction, frame), or whatever the file's three keys are."""
    return {
        key: coco.numbers(path, {"/".join(key): value}, "/".join(key), -1, 3).astype(np.float32)
        for key, value in by_frame(path, every)
    }


def by_frame(path: Path, every: int) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(keys, value) of an object nested thrice, {action: {subaction: {frame: value}}}, for frames that are a multiple
    of `every`."""
    for first, inner in items(path):
        for second, frames in _object(path, inner, first).items():
            for frame, value in _object(path, frames, f"{first}/{second}").items():
                if not frame.isdigit():
                    raise BadInput(f"{path}: the frame {first}/{second}/{frame} is no number; fetch the file again")
                if int(frame) % every == 0:
                    yield (first, second, frame), value


def _object(path: Path, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{path}: {where} is a {type(value).__name__} where frames should be; fetch the file again")
    return value
