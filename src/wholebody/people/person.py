"""One person of a picture, and the archive of their numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.mesh import MESHES, mesh_bytes
from wholebody.files.npz import npz_bytes
from wholebody.files.whole import write_bytes

FORMAT = "wholebody.person/1"
_BESIDE = ("faces", "sources", "hint_3d")  # not predicted numbers


@dataclass(frozen=True, eq=False)
class Person:
    """One person of a picture. numpy, in the network's precision; metres, radians, pixels of the picture.

    Camera frame: x right, y down, z forward. `vertices_cam` seen by the camera (`focal_px`, `principal_px`), that is
    `focal_px * xy / z + principal_px`, lie on the person in the picture. The camera belongs to this person's box: it is
    far away and has a long lens, so `cam_trans[2] / focal_px` orders people by depth and `cam_trans[2]` alone does not.
    Rotations are axis-angle relative to the parent joint; hand poses are relative to the body's mean hand unless the
    body was loaded with `flat_hand_mean`.
    """

    box_xyxy: np.ndarray  # (4,) as detected or given
    score: float  # of the detection, 0..1
    global_orient: np.ndarray  # (3,) in the camera frame
    body_pose: np.ndarray  # (21, 3)
    left_hand_pose: np.ndarray  # (15, 3)
    right_hand_pose: np.ndarray  # (15, 3)
    jaw_pose: np.ndarray  # (3,)
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (10,)
    cam_trans: np.ndarray  # (3,) from the body's frame to the camera's
    focal_px: np.ndarray  # (2,)
    principal_px: np.ndarray  # (2,)
    joints_cam: np.ndarray  # (55, 3) the joints of the body's tree, named in wholebody.body.joints.SMPLX_JOINTS
    vertices_cam: np.ndarray  # (V, 3)
    keypoints_px: np.ndarray  # (133, 2) COCO-WholeBody, projected from the mesh
    left_hand_box_xyxy: np.ndarray | None = None  # (4,) where the network looked for it; None: it did not, as SMPLest-X
    right_hand_box_xyxy: np.ndarray | None = None  # (4,)
    face_box_xyxy: np.ndarray | None = None  # (4,)
    faces: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64), repr=False)
    """(F, 3) the triangles of the body's mesh, as rows of `vertices_cam`; shared by all people of a body."""

    sources: Mapping[str, str] = field(default_factory=dict)
    """What saw each part beside the network: "body", "left_hand", "right_hand", "face", "shape" -> such as "hand
    landmarker"; parts that nothing else saw are left out."""
    hint_3d: np.ndarray | None = field(default=None, repr=False)
    """(25, 4) where a landmarker saw the person's depth: points as `PoseLifter` takes them, metres and how sure."""

    def numbers(self) -> dict[str, np.ndarray | float]:
        """All that was predicted, by name; not the triangles, which are the body's, nor what it was told by."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _BESIDE}
        return {name: value for name, value in values.items() if value is not None}

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are the same."""
        if not isinstance(other, Person):
            return NotImplemented
        if dict(self.sources) != dict(other.sources):
            return False
        arrays = [item.name for item in fields(self) if item.name != "sources"]
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in arrays)

    def save(self, path: str | Path) -> Path:
        """Write this person to `path`, whole or not at all, as its suffix says.

        `.npz`: all numbers but the mesh. `.obj`, `.ply`, `.glb`: the mesh. Raises BadInput for another suffix or for a
        mesh without triangles, and OutputError where nothing can be written.
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind == "npz":
            return write_bytes(path, person_npz(self, {}))
        if kind not in MESHES:
            raise BadInput(f"{path}: name it .npz for the numbers, or .{', .'.join(MESHES)} for the mesh")
        if not len(self.faces):
            raise BadInput(f"{path}: this person carries no triangles, so there is no mesh to write; take .npz")
        return write_bytes(path, mesh_bytes(self.vertices_cam, self.faces, kind, path.stem))


def person_npz(person: Person, conventions: dict[str, Any]) -> bytes:
    """All parameters, joints, keypoints and the camera of one person; `conventions` is a JSON text in the archive."""
    arrays = {name: np.asarray(value, np.float32) for name, value in person.numbers().items() if name != "vertices_cam"}
    return npz_bytes({"conventions": json.dumps({"format": FORMAT} | conventions)} | arrays)
