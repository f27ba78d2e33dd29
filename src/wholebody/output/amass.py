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

from pathlib import Path

import numpy as np

from wholebody.body.layer import BodyModel
from wholebody.files.whole import write_whole
from wholebody.output.rig import place, scene_rows
from wholebody.people.scene import Motion, Scene


def write_amass(path: Path, motion: Motion, scene: Scene, body: BodyModel) -> Path:
    """Write one person, a row a frame without holes; whole or not at all."""
    arrays = amass_arrays(motion, scene, body)

    def write(part: Path) -> None:
        with open(part, "wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    return write_whole(path, write)


def amass_arrays(motion: Motion, scene: Scene, body: BodyModel) -> dict[str, np.ndarray]:
    person, camera = place(motion, scene, body), scene.camera
    return {
        "poses": person.pose.reshape(len(person.pose), 165),
        "trans": person.transl,
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
