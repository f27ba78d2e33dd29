"""MPI-INF-3DHP in COCO form (pictures shrunk to 1k), with measured joints and NeuralAnnot's parameters.

    data/images_1k/S1/Seq1/imageSequence/*.jpg
    data/MPI-INF-3DHP_1k.json, ..._camera_1k.json, ..._joint_3d.json, ..._SMPLX_NeuralAnnot.json

Older copies have SMPL parameters (`..._SMPL_NeuralAnnot.json`) instead: they are read as `body="smpl"`. Joints and
camera translations are in millimetres. Every third frame is used, as in the published code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from wholebody.data.readers import coco_format as coco
from wholebody.data.readers.human36m import Camera, by_frame, measured_joints, measured_person
from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.files.json_stream import read_json

SPLITS: tuple[str, ...] = ("train",)
EVERY = 3

JOINTS = (
    "Head_top", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist", "R_Hip", "R_Knee",
    "R_Ankle", "L_Hip", "L_Knee", "L_Ankle", "Pelvis", "Torso", "Head",
)  # fmt: skip


def read(root: Path, split: str, every: int = EVERY, damaged: str = "error") -> Iterator[Sample]:
    """every: use frames whose number is a multiple of it. damaged: see `coco_format.DAMAGED`."""
    coco.require("MPI_INF_3DHP", root, split)
    data = root / "data"
    path, cameras_path, joints_path = (data / f"MPI-INF-3DHP_{k}.json" for k in ("1k", "camera_1k", "joint_3d"))
    cameras = read_json(cameras_path)
    joints = measured_joints(joints_path, every)
    fits, body = _fits(data, every, damaged)
    for annotation, image in coco.annotated_people(path):
        if coco.integer(path, image, "frame_idx") % every:
            continue
        subject, sequence, frame = (
            str(coco.entry_of(path, image, key)) for key in ("subject_idx", "seq_idx", "frame_idx")
        )
        key = (subject, sequence, frame)
        if key not in joints:
            raise BadInput(f"{joints_path} lacks subject/sequence/frame {'/'.join(key)}, which {path.name} has")
        camera = coco.entry_of(cameras_path, cameras, subject, sequence, str(coco.entry_of(path, image, "cam_idx")))
        sample = measured_person(
            path, annotation, image, JOINTS, joints[key], Camera.of(cameras_path, camera, "focal", "princpt"), fits, key
        )
        if sample is not None:
            name = coco.entry_of(path, image, "file_name")
            yield replace(
                sample,
                id=str(coco.entry_of(path, annotation, "id")),
                dataset="MPI_INF_3DHP",
                image_path=f"data/images_1k/S{subject}/Seq{sequence}/imageSequence/{name}",
                body=body if sample.body else "",
            )


def _fits(data: Path, every: int, damaged: str) -> tuple[coco.Fits, str]:
    """The parameters by (subject, sequence, frame), and the body that they belong to."""
    for body, suffix in (("smplx", "SMPLX"), ("smpl", "SMPL")):
        path = data / f"MPI-INF-3DHP_{suffix}_NeuralAnnot.json"
        if not path.exists():
            continue
        fits = coco.Fits(path, damaged)
        for key, param in by_frame(path, every):
            fits.add(key, _smpl_as_smplx(path, param) if body == "smpl" else param)
        return fits, body
    raise BadInput(f"no NeuralAnnot parameters in {data}")


def _smpl_as_smplx(path: Path, param: Mapping[str, Any]) -> dict[str, Any]:
    """SMPL's 24 rotations: the first 22 are those of SMPL-X; the last two, the hands', have no counterpart."""
    pose = coco.numbers(path, param, "pose", 72)
    return {
        "root_pose": pose[:3],
        "body_pose": pose[3:66],
        **{k: coco.entry_of(path, param, k) for k in ("shape", "trans")},
    }
