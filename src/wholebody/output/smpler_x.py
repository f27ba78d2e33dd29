"""The files that SMPLer-X's inference script writes, for tools that read them.

    smplx/{frame:05}_{person}.npz   parameters, (rows, 3) axis-angle and (1, 10); float32, the eyes (zero) float64
    meta/{frame:05}_{person}.json   focal, princpt: the camera that `transl` and the mesh are seen by, in pixels of the
                                    picture; bbox (as the network's crop) and bbox_mmdet (as detected): x, y, w, h
    mesh/{frame:05}_{person}.obj    vertices in the camera's frame, metres; faces as a/a b/b c/c
    img/{frame:06}.jpg              the picture with everybody over it, also where there is nobody

Frames count from 1. In films `person` is the same one throughout (published: a place in the frame's own list) and the
camera is that of the film; in pictures it is that of the person's box, as published.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.mesh import face_rows, rows
from wholebody.files.whole import write_bytes
from wholebody.geometry.crop import fit_crop
from wholebody.output.overlay import draw_overlay, encode_jpeg

if TYPE_CHECKING:
    from wholebody.body.layer import BodyModel
    from wholebody.files.video import Film
    from wholebody.people.person import Person
    from wholebody.people.scene import Scene

FOLDERS = {"smplx": "npz", "meta": "json", "mesh": "obj", "img": "jpg"}
_POSES = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
_ROWS = {"global_orient": 1, "body_pose": 21, "left_hand_pose": 15, "right_hand_pose": 15, "jaw_pose": 1}


def files_there(folder: Path, frame: int | None = None) -> list[Path]:
    """The files of these kinds that lie in a folder of results, of one frame or of all."""
    found: list[Path] = []
    for name, kind in FOLDERS.items():
        number = "*" if frame is None else f"{frame:06}" if name == "img" else f"{frame:05}_*"
        found += sorted((folder / name).glob(f"{number}.{kind}"))
    return found


def picture_files(
    frame: int, image: np.ndarray, people: Sequence[Person], faces: np.ndarray, *, path: Path, enlarge: float,
    opacity: float,
) -> dict[str, bytes]:  # fmt: skip
    """The files of one picture by their names. enlarge: how much the network's crops enlarge boxes."""
    files: dict[str, bytes] = {}
    for number, person in enumerate(people):
        poses = {name: getattr(person, name) for name in _POSES}
        name = f"{frame:05}_{number}"
        camera = (person.focal_px, person.principal_px)
        files[f"smplx/{name}.npz"] = _npz(poses, person.betas, person.expression, person.cam_trans)
        files[f"meta/{name}.json"] = _meta(camera, person.box_xyxy, number, path, image.shape[:2], enlarge)
        files[f"mesh/{name}.obj"] = _obj(person.vertices_cam, faces)
    overlay = draw_overlay(image, people, faces, opacity=opacity, side_view=False) if people else image
    return files | {f"img/{frame:06}.jpg": encode_jpeg(overlay)}


def write_smpler_x_film(
    folder: Path, scene: Scene, body: BodyModel, film: Film, *, enlarge: float, look: str = "clothed"
) -> list[Path]:
    """Write every frame that `film` gives, with the people of `scene`, and say which files those are."""
    from wholebody.output.overlay_film import OPACITY, Player, Skin, paint

    skin, faces = Skin.of(body, look), body.faces.numpy()
    players = [(Player(motion, body), skin.colors(person)) for person, motion in enumerate(scene.people)]
    camera = scene.camera
    written: list[Path] = []
    for number, frame in enumerate(film, 1):
        seen = []
        for person, (player, colors) in enumerate(players):
            at = player.at(frame.number)
            if at is None:
                continue
            motion, (row, vertices) = player.motion, at
            poses = {name: getattr(motion, name)[row] for name in _POSES}
            seen.append((vertices, colors))
            focal, hw = np.full(2, camera.focal_px), (camera.image_wh[1], camera.image_wh[0])
            box, path = motion.box_xyxy[row], film.info.path
            files = {
                "smplx": _npz(poses, motion.betas, motion.expression[row], motion.transl[row]),
                "meta": _meta((focal, camera.principal_px), box, person, path, hw, enlarge),
                "mesh": _obj(vertices, faces),
            }
            for kind, data in files.items():
                written.append(write_bytes(folder / kind / f"{number:05}_{person}.{FOLDERS[kind]}", data))
        picture = frame.image
        if seen:
            scale = picture.shape[1] / camera.image_wh[0]
            principal = (np.asarray(camera.principal_px, np.float64) + 0.5) * scale - 0.5
            picture = paint(picture, seen, skin, camera.focal_px * scale, principal, OPACITY)
        written.append(write_bytes(folder / "img" / f"{number:06}.jpg", encode_jpeg(picture)))
    return written


def _npz(poses: dict[str, np.ndarray], betas: np.ndarray, expression: np.ndarray, transl: np.ndarray) -> bytes:
    arrays: dict[str, np.ndarray] = {
        name: np.asarray(pose, np.float32).reshape(_ROWS[name], 3) for name, pose in poses.items()
    }
    arrays |= {"leye_pose": np.zeros((1, 3)), "reye_pose": np.zeros((1, 3))}
    arrays |= {"betas": np.asarray(betas, np.float32)[None], "expression": np.asarray(expression, np.float32)[None]}
    arrays["transl"] = np.asarray(transl, np.float32)[None]
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _meta(
    camera: tuple[Any, Any], box_xyxy: np.ndarray, number: int, path: Path, image_hw: tuple[int, int], enlarge: float
) -> bytes:
    box = np.asarray(box_xyxy, np.float64)
    try:
        crop = fit_crop(box - [0, 0, 1, 1], image_hw, enlarge)
    except BadInput:  # a smoothed box that has left the picture
        crop = box
    about = {
        "focal": [float(value) for value in camera[0]],
        "princpt": [float(value) for value in camera[1]],
        "bbox": [float(value) for value in (*crop[:2], *(crop[2:] - crop[:2]))],
        "bbox_mmdet": [float(value) for value in (*box[:2], *(box[2:] - box[:2]))],
        "bbox_id": number,
        "img_path": str(path),
    }
    return json.dumps(about, indent=4).encode()


def _obj(vertices_cam: np.ndarray, faces: np.ndarray) -> bytes:
    text = rows(np.asarray(vertices_cam, np.float64), "v %.7g %.7g %.7g") + face_rows(faces, "/")
    return text.encode()
