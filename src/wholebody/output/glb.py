"""A scene as glTF 2.0 (`.glb`): everybody with a skin on a skeleton, moving, standing where they stood, and the camera.

Axes and units are glTF's and the world's alike: y up, metres, the floor at y = 0. Each person is an armature named
`personN` with joints named by the rig (`body.skeletons.RIGS`), and a mesh `personN_body` with UVs and one material a
garment. What skinning alone does not know is in morph targets that move with it: `expression_K` and
`expression_K_minus`, whose weights are the expression coefficients over `expressionReach`, and `corrective_JOINT_K`,
the pose correctives of these motions (see `rig`). Weights go from 0 to 1: Blender and Unity cut off all others. A
person who is not in the film yet, or no longer, has size 0.

Written by hand rather than by a library: trimesh writes no skins and pygltflib only names the fields.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from wholebody.body.joints import PARENTS
from wholebody.body.layer import BodyModel
from wholebody.body.skeletons import rig_names
from wholebody.errors import OutputError
from wholebody.files.whole import write_whole
from wholebody.output.look import Look, make_look
from wholebody.output.rig import (
    MorphTarget,
    corrective_targets,
    expression_targets,
    full_pose_of,
    in_parts,
    local_frames,
    one_sided,
    place,
    quaternions,
    scene_rows,
    shaped,
)
from wholebody.people.scene import Motion, Scene

MOST_BYTES = 2**32 - 1
"""The format counts its bytes in 32 bits."""
EXPRESSION_REACH = 3.0
"""Expression coefficients reach this far both ways, or as far as the scene's do."""
_IN_MEMORY = 64_000_000  # bytes of a file that grows; more goes to the disk
_STILL = 1e-6  # a rotation or a weight that changes less than this, or a place (metres), is not animated
_FLOAT, _USHORT, _UBYTE, _UINT = 5126, 5123, 5121, 5125
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


def write_glb(path: Path, scene: Scene, body: BodyModel, *, look: str = "clothed", rig: str = "smplx") -> Path:
    """Write the scene whole or not at all; a photo (one frame) stands still, a film moves."""

    def write(part: Path) -> None:
        with open(part, "wb") as out, _File(part.parent) as file:
            _fill(file, scene, body, look, rig)
            file.write(out)

    return write_whole(path, write)


def glb_bytes(scene: Scene, body: BodyModel, *, look: str = "clothed", rig: str = "smplx") -> bytes:
    out = io.BytesIO()
    with _File() as file:
        _fill(file, scene, body, look, rig)
        file.write(out)
    return out.getvalue()


def _fill(file: _File, scene: Scene, body: BodyModel, look: str, rig: str) -> None:
    names = rig_names(rig)
    painted = make_look(look, body)
    mesh = _SharedMesh(file, body, painted, scene.people)
    animation = _Animation(file)
    for number, motion in enumerate(scene.people):
        _add_person(file, animation, mesh, number, motion, scene, body, names)
    _add_camera(file, animation, scene)
    if animation.channels:
        file.json["animations"] = [
            {"name": "film", "channels": animation.channels, "samplers": animation.samplers}
        ]  # fmt: skip


class _File:
    """The JSON and the binary part of a `.glb` while it grows; a large one grows in a nameless file in `folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        from wholebody import __version__

        self.json: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"wholebody {__version__}"},
            "scene": 0,
            "scenes": [{"name": "scene", "nodes": []}],
            "nodes": [],
            "bufferViews": [],
            "accessors": [],
        }
        self._binary = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=None if folder is None else str(folder))
        self._length = 0

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *about: object) -> None:
        self._binary.close()

    def add(self, kind: str, item: dict[str, Any]) -> int:
        self.json.setdefault(kind, []).append(item)
        return len(self.json[kind]) - 1

    def node(self, item: dict[str, Any], root: bool = False) -> int:
        number = self.add("nodes", item)
        if root:
            self.json["scenes"][0]["nodes"].append(number)
        return number

    def view(self, array: np.ndarray, target: int | None = None) -> int:
        data = np.ascontiguousarray(array).tobytes()
        view = {"buffer": 0, "byteOffset": self._length, "byteLength": len(data)}
        if target:
            view["target"] = target
        data += b"\0" * (-len(data) % 4)
        self._binary.write(data)
        self._length += len(data)
        return self.add("bufferViews", view)

    def accessor(
        self, array: np.ndarray, target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> int:
        """An array (N,) or (N, C); matrices come as (N, 16)."""
        array = np.asarray(array)
        columns = 1 if array.ndim == 1 else array.shape[1]
        component = {"f4": _FLOAT, "u2": _USHORT, "u1": _UBYTE, "u4": _UINT}[array.dtype.str[1:]]
        item = {
            "bufferView": self.view(array, target),
            "componentType": component,
            "count": len(array),
            "type": _TYPES.get(columns, "MAT4"),
        }
        if normalized:
            item["normalized"] = True
        if bounds:
            item |= _bounds(array)
        return self.add("accessors", item)

    def sparse(self, target: MorphTarget, count: int) -> int:
        """Zeros but for the vertices of the target."""
        offsets = target.offsets.astype("<f4")
        wide = count > 65535
        item = {
            "componentType": _FLOAT,
            "count": count,
            "type": "VEC3",
            "sparse": {
                "count": len(target.vertices),
                "indices": {
                    "bufferView": self.view(target.vertices.astype("<u4" if wide else "<u2")),
                    "componentType": _UINT if wide else _USHORT,
                },
                "values": {"bufferView": self.view(offsets)},
            },
        }
        everywhere = len(target.vertices) == count
        return self.add(
            "accessors", item | _bounds(offsets if everywhere else np.concatenate([offsets, np.zeros((1, 3), "f4")]))
        )

    def write(self, out: BinaryIO) -> None:
        if self._length:
            self.json["buffers"] = [{"byteLength": self._length}]
        else:
            del self.json["bufferViews"], self.json["accessors"]
        if not self.json["scenes"][0]["nodes"]:
            del self.json["scenes"][0]["nodes"]
        text = json.dumps(self.json, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + (8 + self._length if self._length else 0)
        if length > MOST_BYTES:
            raise OutputError(
                f"a .glb holds {MOST_BYTES / 1e9:.1f} GB at most, and this one would have {length / 1e9:.1f}: give "
                "--fps, or --start and --end, or leave glb out of --save"
            )
        out.write(struct.pack("<4sIIII", b"glTF", 2, length, len(text), 0x4E4F534A) + text)
        if self._length:
            out.write(struct.pack("<II", self._length, 0x004E4942))
            self._binary.seek(0)
            shutil.copyfileobj(self._binary, out)


def _bounds(array: np.ndarray) -> dict[str, list[float]]:
    rows = array.reshape(len(array), -1)
    return {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}


class _Animation:
    def __init__(self, file: _File) -> None:
        self._file = file
        self.channels: list[dict[str, Any]] = []
        self.samplers: list[dict[str, Any]] = []

    def add(self, node: int, path: str, times: int, values: np.ndarray, interpolation: str = "LINEAR") -> None:
        output = self._file.accessor(values.astype("<f4"))
        self.samplers.append({"input": times, "output": output, "interpolation": interpolation})
        self.channels.append({"sampler": len(self.samplers) - 1, "target": {"node": node, "path": path}})


class _SharedMesh:
    """What all people have in common: UVs, skin weights, faces by garment, morph targets."""

    def __init__(self, file: _File, body: BodyModel, look: Look, people: Sequence[Motion]) -> None:
        self._file, self.look = file, look
        self.vertex, faces, uv = _with_uvs(body)
        self.faces = body.faces.numpy()
        if not people:
            return
        count = len(self.vertex)
        self.attributes: dict[str, int] = {}
        if uv is not None:
            self.attributes["TEXCOORD_0"] = file.accessor(uv.astype("<f4"), target=34962)
        joints, weights = _skin_weights(body.weights.double().numpy().T)
        for part in range(joints.shape[1] // 4):
            own = slice(4 * part, 4 * part + 4)
            self.attributes[f"JOINTS_{part}"] = file.accessor(joints[self.vertex, own], target=34962)
            self.attributes[f"WEIGHTS_{part}"] = file.accessor(weights[self.vertex, own], target=34962, normalized=True)
        wide = count > 65535
        self.indices = [
            file.accessor(faces[look.paint_of_face == k].ravel().astype("<u4" if wide else "<u2"), target=34963)
            for k in range(len(look.paints))
        ]
        coefficients = [np.asarray(motion.expression, np.float32) for motion in people]
        reach = max(EXPRESSION_REACH, *(np.abs(own).max() for own in coefficients))
        faces_moved, face_weights = one_sided(expression_targets(body), coefficients, reach)
        correctives, body_weights = one_sided(
            *corrective_targets([_full_pose(motion, body) for motion in people], body)
        )
        targets = [*faces_moved, *correctives]
        self.expression_reach = float(reach)
        self.weights = [np.concatenate(both, 1) for both in zip(face_weights, body_weights, strict=True)]
        self.target_names = [target.name for target in targets]
        copies = np.arange(body.num_vertices, count)
        self.targets = [{"POSITION": file.sparse(_on_copies(target, self.vertex, copies), count)} for target in targets]

    def mesh(self, number: int, at_rest: np.ndarray, weights: np.ndarray) -> int:
        """The mesh of one person from vertices at rest (V, 3)."""
        from wholebody.drawing.raster import srgb_to_linear
        from wholebody.files.mesh import vertex_normals

        normals = vertex_normals(at_rest, self.faces)
        attributes = {
            "POSITION": self._file.accessor(at_rest[self.vertex].astype("<f4"), target=34962, bounds=True),
            "NORMAL": self._file.accessor(_unit(normals)[self.vertex].astype("<f4"), target=34962),
            **self.attributes,
        }
        primitives = []
        for paint, indices in zip(self.look.paints, self.indices, strict=True):
            linear = srgb_to_linear(np.array(self.look.color(paint, number)))
            material = {
                "name": f"person{number}_{paint}",
                "pbrMetallicRoughness": {
                    "baseColorFactor": [*np.round(linear.astype(float), 5).tolist(), 1],
                    "metallicFactor": 0,
                    "roughnessFactor": 0.8,
                },
            }
            primitives.append(
                {
                    "attributes": attributes,
                    "indices": indices,
                    "material": self._file.add("materials", material),
                    "targets": self.targets,
                }
            )
        mesh = {
            "name": f"person{number}_body",
            "primitives": primitives,
            "weights": weights.tolist(),
            # Where Blender, three.js and Unity look for names.
            "extras": {"targetNames": self.target_names, "expressionReach": self.expression_reach},
        }
        return self._file.add("meshes", mesh)


def _full_pose(motion: Motion, body: BodyModel) -> np.ndarray:
    """(T, 55, 3) float32 complete axis-angle."""
    pose = np.empty((len(motion.frames), len(PARENTS), 3), np.float32)
    for rows, part in in_parts(motion):
        pose[rows] = full_pose_of(part, body)
    return pose


def _with_uvs(body: BodyModel) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Vertices split where the texture has a seam: of each the body's vertex (N,), faces (F, 3), UVs (N, 2).

    The body's V vertices come first, in their own order; the copies follow.
    """
    faces = body.faces.numpy()
    if "vt" not in body.extras or "ft" not in body.extras:
        return np.arange(body.num_vertices), faces, None
    corners = body.extras["ft"].astype(np.int64)
    pairs, where = np.unique(np.stack([faces.ravel(), corners.ravel()], 1), axis=0, return_inverse=True)
    first = np.ones(len(pairs), bool)
    first[1:] = pairs[1:, 0] != pairs[:-1, 0]
    number = np.empty(len(pairs), np.int64)
    number[first] = pairs[first, 0]
    number[~first] = body.num_vertices + np.arange((~first).sum())
    vertex = np.concatenate([np.arange(body.num_vertices), pairs[~first, 0]])
    uv = np.zeros((len(vertex), 2))
    uv[number] = body.extras["vt"][pairs[:, 1]] * [1, -1] + [0, 1]  # glTF's v points down
    return vertex, number[where.ravel()].reshape(-1, 3), uv


def _on_copies(target: MorphTarget, vertex: np.ndarray, copies: np.ndarray) -> MorphTarget:
    """The target with the copies of its vertices."""
    row = np.full(vertex.max() + 1, -1)
    row[target.vertices] = np.arange(len(target.vertices))
    moved = copies[row[vertex[copies]] >= 0]
    return MorphTarget(
        target.name,
        np.concatenate([target.vertices, moved]),
        np.concatenate([target.offsets, target.offsets[row[vertex[moved]]]]),
    )


def _skin_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V, 55) to joints (V, 4 n) uint8 and weights (V, 4 n) uint16 that sum to exactly 65535, strongest first."""
    columns = 8 if ((weights > 1 / 65535).sum(1) > 4).any() else 4
    order = np.argsort(-weights, axis=1, kind="stable")[:, :columns]
    kept = np.take_along_axis(weights, order, 1)
    steps = np.floor(kept / kept.sum(1, keepdims=True) * 65535 + 0.5)
    steps[:, 0] += 65535 - steps.sum(1)
    order[steps == 0] = 0  # a joint without weight is named 0
    return order.astype("u1"), steps.astype("<u2")


def _add_person(
    file: _File, animation: _Animation, shared: _SharedMesh, number: int, motion: Motion, scene: Scene, body: BodyModel,
    names: Sequence[str],
) -> None:  # fmt: skip
    first_node = len(file.json["nodes"])
    frames = len(motion.frames)
    turns = np.empty((frames, len(PARENTS), 4), np.float32)
    paths = {0: np.empty((frames, 3), np.float32)}  # of the joints whose places in their parents change
    for joint in _shifting(motion, scene, body):
        paths[joint] = np.empty((frames, 3), np.float32)
    first_places = rest_joints = np.empty((len(PARENTS), 3))
    for rows, part in in_parts(motion):
        person = place(part, scene, body)
        rotations, places = local_frames(person)
        if not rows.start:
            rest_joints, first_places = person.rest_joints, places[0]
        turns[rows] = quaternions(rotations, turns[rows.start - 1].astype(np.float64) if rows.start else None)
        for joint, path in paths.items():
            path[rows] = places[:, joint]
    children: list[list[int]] = [[] for _ in PARENTS]
    for joint in range(1, len(PARENTS)):
        children[PARENTS[joint]].append(first_node + joint)
    for joint, name in enumerate(names):
        node = {
            "name": name,
            "translation": first_places[joint].tolist(),
            "rotation": turns[0, joint].tolist(),
        }
        if children[joint]:
            node["children"] = children[joint]
        file.node(node)
    about = {"track_id": int(motion.track_id), "betas": np.asarray(motion.betas, float).round(6).tolist()}
    armature = file.node({"name": f"person{number}", "children": [first_node], "extras": about}, root=True)

    inverse_bind = np.tile(np.eye(4), (len(PARENTS), 1, 1))
    inverse_bind[:, :3, 3] = -rest_joints
    skin = {
        "name": f"person{number}",
        "inverseBindMatrices": file.accessor(inverse_bind.transpose(0, 2, 1).reshape(-1, 16).astype("<f4")),
        "skeleton": armature,
        "joints": list(range(first_node, first_node + len(PARENTS))),
    }
    weights = shared.weights[number]
    mesh = shared.mesh(number, shaped(motion, body), weights[0])
    holder = file.node({"name": f"person{number}_body", "mesh": mesh, "skin": file.add("skins", skin)}, root=True)

    if len(motion.frames) > 1:
        times = file.accessor(_times(motion.times, scene), bounds=True)
        for joint in range(len(PARENTS)):
            if _moves(turns[:, joint]):
                animation.add(first_node + joint, "rotation", times, turns[:, joint])
            if joint in paths and _moves(paths[joint]):
                animation.add(first_node + joint, "translation", times, paths[joint])
        if _moves(weights):
            animation.add(holder, "weights", times, weights.ravel())
    _hide_outside(file, animation, armature, motion, scene)


def _shifting(motion: Motion, scene: Scene, body: BodyModel) -> list[int]:
    """Joints, but for the root, that expression moves in their parents' frames: of licensed bodies."""
    if not body.joint_directions[10:].any():
        return []
    low, high = np.full((len(PARENTS), 3), np.inf), np.full((len(PARENTS), 3), -np.inf)
    for _, part in in_parts(motion):
        places = local_frames(place(part, scene, body))[1]
        low, high = np.minimum(low, places.min(0)), np.maximum(high, places.max(0))
    return [joint for joint in range(1, len(PARENTS)) if (high - low)[joint].max() > _STILL]


def _hide_outside(file: _File, animation: _Animation, armature: int, motion: Motion, scene: Scene) -> None:
    """Size 0 before the first and after the last frame of a person who is not there throughout."""
    rows = scene_rows(motion, scene)
    steps = {} if rows[0] == 0 else {0: 0.0}
    steps[int(rows[0])] = 1.0
    if rows[-1] + 1 < len(scene.frames):
        steps[int(rows[-1]) + 1] = 0.0
    if len(steps) == 1:
        return
    times = file.accessor(_times(np.asarray(scene.times)[list(steps)], scene), bounds=True)
    sizes = np.repeat(np.array(list(steps.values()))[:, None], 3, 1)
    animation.add(armature, "scale", times, sizes, "STEP")


def _add_camera(file: _File, animation: _Animation, scene: Scene) -> None:
    """The camera as glTF has it, looking along -z; an off-centre principal point is only noted."""
    camera = scene.camera
    width, height = camera.image_wh
    view = {
        "type": "perspective",
        "name": "camera",
        "perspective": {
            "aspectRatio": width / height,
            "yfov": 2 * float(np.arctan2(height / 2, camera.focal_px)),
            "znear": 0.05,
        },
        "extras": {
            "focal_px": float(camera.focal_px),
            "principal_px": np.asarray(camera.principal_px, float).tolist(),
            "image_wh": [int(width), int(height)],
            "source": camera.source,
            "state": camera.state,
            "floor": scene.floor,
        },
    }
    path = np.asarray(scene.camera_from_world, np.float64)
    turns = path[:, :3, :3].transpose(0, 2, 1)
    places = -np.einsum("tij,tj->ti", turns, path[:, :3, 3])
    gaze = quaternions((turns * [1.0, -1.0, -1.0])[:, None])[:, 0]
    node = file.node(
        {
            "name": "camera",
            "camera": file.add("cameras", view),
            "translation": places[0].tolist(),
            "rotation": gaze[0].tolist(),
        },
        root=True,
    )
    if len(path) > 1 and (_moves(gaze) or _moves(places)):
        times = file.accessor(_times(scene.times, scene), bounds=True)
        animation.add(node, "rotation", times, gaze)
        animation.add(node, "translation", times, places)


def _times(seconds: np.ndarray, scene: Scene) -> np.ndarray:
    return (np.asarray(seconds, np.float64) - float(scene.times[0])).astype("<f4")


def _moves(values: np.ndarray) -> bool:
    return bool(np.ptp(values, axis=0).max(initial=0.0) > _STILL)


def _unit(normals: np.ndarray) -> np.ndarray:
    """Unit normals; a vertex of no face gets one that points up."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0.5, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
