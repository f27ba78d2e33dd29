"""A film's keypoints as COCO results (`.json`), and its boxes as the text of the Multiple Object Tracking challenge.

JSON: a row a frame and person, in the order of frames. `image_id` is the frame's number in the film, `track_id` says
who it is, `keypoints` = 133 x (x, y, score) in the order of COCO-WholeBody, projected from the mesh by the scene's
camera; a keypoint's score is the person's in that frame. `filled` marks frames in which nothing was seen. Pixels are
OpenCV's: the centre of the first one is at (0, 0).

Text: `frame, id, x, y, width, height, score, -1, -1, -1`, where frames and ids count from 1: the frame's number + 1,
`track_id` + 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137, FROM_144
from wholebody.body.layer import BodyModel
from wholebody.files.whole import write_bytes, write_whole
from wholebody.output.rig import posed_in_camera
from wholebody.people.scene import Motion, Scene

_KEYPOINTS = np.array(FROM_144)[list(COCO_WHOLEBODY_FROM_137)]


def write_film_json(path: Path, scene: Scene, body: BodyModel) -> Path:
    """Write everybody's keypoints; rows go to the file as they are made, so a long film needs no memory."""

    def write(part: Path) -> None:
        with open(part, "w", encoding="ascii") as file:
            file.write("[")
            for number, row in enumerate(keypoint_rows(scene, body)):
                file.write((",\n" if number else "\n") + json.dumps(row, separators=(",", ":"), allow_nan=False))
            file.write("\n]\n")

    return write_whole(path, write)


def keypoint_rows(scene: Scene, body: BodyModel) -> Iterator[dict[str, Any]]:
    """COCO results of all frames, ascending."""
    waiting = [_rows_of(motion, scene, body) for motion in scene.people]
    heads = [next(rows, None) for rows in waiting]
    while any(head is not None for head in heads):
        frame = min(head["image_id"] for head in heads if head is not None)
        for person, head in enumerate(heads):
            if head is not None and head["image_id"] == frame:
                yield head
                heads[person] = next(waiting[person], None)


def _rows_of(motion: Motion, scene: Scene, body: BodyModel) -> Iterator[dict[str, Any]]:
    camera = scene.camera
    small = body.subset([0])  # the 144 joints without the mesh
    for rows, _, joints in posed_in_camera(motion, small):
        points = joints[:, _KEYPOINTS].astype(np.float64)
        depth = np.maximum(points[..., 2:], 1e-3)  # a point behind the camera has no place in the picture
        pixels = points[..., :2] / depth * camera.focal_px + camera.principal_px
        for row, places in zip(range(rows.start, rows.stop), pixels, strict=True):
            score = round(float(motion.confidence[row]), 4)
            x0, y0, x1, y1 = (round(float(value), 2) for value in motion.box_xyxy[row])
            keypoints = np.concatenate([places.round(2), np.full((len(places), 1), score)], 1)
            yield {
                "image_id": int(motion.frames[row]),
                "category_id": 1,
                "track_id": int(motion.track_id),
                "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                "score": score,
                "filled": bool(motion.filled[row]),
                "keypoints": keypoints.ravel().tolist(),
            }


def write_mot(path: Path, scene: Scene) -> Path:
    """Write everybody's boxes, frame after frame."""
    rows = []
    for motion in scene.people:
        for frame, box, score in zip(motion.frames, motion.box_xyxy, motion.confidence, strict=True):
            x0, y0, x1, y1 = (float(value) for value in box)
            end = f"{x0:.2f},{y0:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{float(score):.4f},-1,-1,-1\n"
            rows.append((int(frame) + 1, int(motion.track_id) + 1, end))
    return write_bytes(path, "".join(f"{frame},{who},{end}" for frame, who, end in sorted(rows)).encode())
