"""One person's motion as an archive (`.npz`) in the layout of AMASS, which the SMPL-X add-on of Blender opens.

In the world's frame (see `people.scene`: metres, y up). `poses` are complete rotations against a flat hand, so a stock
`smplx` layer takes them with `flat_hand_mean=True` and `trans` as its `transl`.

| key | what |
| --- | --- |
| `poses` | (T, 165) axis-angle: root, 21 body, jaw, left and right eye, 15 left hand, 15 right hand |
| `trans` | (T, 3) metres |
| `betas`, `expression` | (10,), (T, 10) |
| `gender`, `surface_model_type`, `mocap_frame_rate` | "neutral", "smplx", frames a second (30 for a photo) |
| `flat_hand_mean` | True: how the hand poses are meant |
| `body` | "open" or "smplx": whose parameters these are; they do not carry over from one to the other |
| `frames`, `times` | (T,) numbers in the film, seconds |
| `filled`, `confidence`, `box_xyxy` | (T,) bool, (T,) 0..1, (T, 4) pixels |
| `track_id` | who it is in the film |
| `camera_focal_px`, `camera_principal_px`, `camera_image_wh` | one pinhole for the film |
| `camera_from_world` | (T, 4, 4): its path; camera frame x right, y down, z forward |
| `camera_state`, `camera_source`, `floor` | what is known of them, in words |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.files.npz import DAMAGED, SafeNpz, read_arrays
from wholebody.files.whole import write_whole
from wholebody.output.rig import in_parts, place, scene_rows
from wholebody.people.scene import Camera, Motion, Scene


def write_amass(path: Path, motion: Motion, scene: Scene, body: BodyModel) -> Path:
    """Write one person, a row a frame without holes; whole or not at all."""
    arrays = amass_arrays(motion, scene, body)

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    return write_whole(path, write)


def amass_arrays(motion: Motion, scene: Scene, body: BodyModel) -> dict[str, np.ndarray]:
    camera = scene.camera
    poses, trans = np.empty((len(motion.frames), 165)), np.empty((len(motion.frames), 3))
    for rows, part in in_parts(motion):
        person = place(part, scene, body)
        poses[rows], trans[rows] = person.pose.reshape(len(person.pose), 165), person.transl
    return {
        "poses": poses,
        "trans": trans,
        "betas": np.asarray(motion.betas, np.float64),
        "expression": np.asarray(motion.expression, np.float64),
        "gender": np.array(motion.gender),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(scene.fps or 30.0),
        "flat_hand_mean": np.array(True),
        "body": np.array(body.name),
        "frames": np.asarray(motion.frames, np.int64),
        "times": np.asarray(motion.times, np.float64),
        "filled": np.asarray(motion.filled, bool),
        "confidence": np.asarray(motion.confidence, np.float64),
        "box_xyxy": np.asarray(motion.box_xyxy, np.float64),
        "track_id": np.array(int(motion.track_id)),
        "camera_focal_px": np.array(float(camera.focal_px)),
        "camera_principal_px": np.asarray(camera.principal_px, np.float64),
        "camera_image_wh": np.array(camera.image_wh, np.int64),
        "camera_from_world": np.asarray(scene.camera_from_world, np.float64)[scene_rows(motion, scene)],
        "camera_state": np.array(camera.state),
        "camera_source": np.array(camera.source),
        "floor": np.array(scene.floor),
    }


def is_amass(path: Path) -> bool:
    """Whether a file is one of ours in this layout."""
    try:
        with SafeNpz(path) as file:
            return {"poses", "trans", "camera_from_world"} <= set(file)
    except BadInput:
        return False


def read_amass(paths: Sequence[Path], body: BodyModel) -> Scene:
    """The scene of one film again, from the files of its people. Raises BadInput for files of another body or film."""
    import torch

    from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle

    people: list[Motion] = []
    seen: dict[int, tuple[float, np.ndarray]] = {}
    for path in paths:
        try:
            arrays = read_arrays(path)
            if str(arrays["body"]) != body.name:
                raise BadInput(f"{path}: is a motion of the {arrays['body']} body, not of the {body.name} one.")
            path_of_camera = arrays["camera_from_world"].astype(np.float64)
            turns = path_of_camera[:, :3, :3]
            poses = arrays["poses"].reshape(-1, 55, 3).astype(np.float64)
            root = turns @ axis_angle_to_matrix(torch.from_numpy(poses[:, 0].copy())).numpy()
            betas, expression = (torch.from_numpy(arrays[key]).to(body.dtype) for key in ("betas", "expression"))
            pelvis = body.rest_pelvis(betas.expand(len(poses), -1), expression).double().numpy()
            transl = np.einsum("tij,tj->ti", turns, arrays["trans"] + pelvis) + path_of_camera[:, :3, 3] - pelvis
            hands = poses[:, 25:] - body.hand_mean.double().numpy().reshape(30, 3)
            people.append(
                Motion(
                    track_id=int(arrays["track_id"]),
                    frames=arrays["frames"],
                    times=arrays["times"],
                    global_orient=matrix_to_axis_angle(torch.from_numpy(root)).numpy(),
                    body_pose=poses[:, 1:22],
                    left_hand_pose=hands[:, :15],
                    right_hand_pose=hands[:, 15:],
                    jaw_pose=poses[:, 22],
                    expression=arrays["expression"],
                    betas=arrays["betas"],
                    transl=transl,
                    box_xyxy=arrays["box_xyxy"],
                    confidence=arrays["confidence"],
                    filled=arrays["filled"],
                    gender=str(arrays["gender"]),
                )
            )
            seen |= {
                int(frame): (float(time), matrix)
                for frame, time, matrix in zip(arrays["frames"], arrays["times"], path_of_camera, strict=True)
            }
            camera = Camera(
                float(arrays["camera_focal_px"]),
                arrays["camera_principal_px"],
                (int(arrays["camera_image_wh"][0]), int(arrays["camera_image_wh"][1])),
                str(arrays["camera_source"]),
                str(arrays["camera_state"]),
            )
            rate, floor = float(arrays["mocap_frame_rate"]), str(arrays["floor"])
        except DAMAGED as error:
            raise BadInput(f"{path}: is no motion file of ours that can be read ({error}).") from error
    if not people:
        raise BadInput("A scene needs the motion file of one person at least.")
    frames = sorted(seen)
    times, matrices = zip(*(seen[frame] for frame in frames), strict=True)
    return Scene(tuple(people), camera, rate, np.array(frames), np.array(times), np.stack(matrices), floor)
