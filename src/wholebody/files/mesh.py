"""Meshes as bytes of `.obj`, `.ply` and `.glb` files."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.text import shown

MESHES = ("obj", "ply", "glb")


def mesh_bytes(vertices_cam: np.ndarray, faces: np.ndarray, kind: str, name: str) -> bytes:
    """A named mesh with vertex normals as `.obj`, `.ply` or `.glb`.

    Camera frame, metres, but with y up and the viewer looking along -z: (x, -y, -z), as 3D programs expect. A camera
    at the origin with the person's focal length and principal point sees it as in the photo.
    """
    name = shown(name)  # headers are lines of UTF-8
    turned = np.asarray(vertices_cam, np.float64) * [1, -1, -1]
    normals = vertex_normals(turned, faces)
    if kind == "obj":
        texts = (
            f"# wholebody\no {name}\n", rows(turned, "v %.6f %.6f %.6f"), rows(normals, "vn %.4f %.4f %.4f"),
            face_rows(faces, "//"),
        )  # fmt: skip
        return "".join(texts).encode()
    import trimesh

    mesh = trimesh.Trimesh(turned, faces, vertex_normals=normals, process=False)
    mesh.metadata["name"] = name
    if kind == "glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, node_name=name, geom_name=name)
        return bytes(trimesh.exchange.gltf.export_glb(scene, include_normals=True))
    if kind == "ply":
        data = bytes(trimesh.exchange.ply.export_ply(mesh, vertex_normal=True))
        return data.replace(b"comment https://github.com/mikedh/trimesh", f"comment name {name}".encode(), 1)
    raise BadInput(f"There is no mesh format {kind!r}; known: {', '.join(MESHES)}.")


def rows(table: np.ndarray, form: str) -> str:
    """A line for each row (N, C) of numbers, by a `%` format of C of them. Six times as fast as trimesh writes them."""
    return f"{form}\n" * len(table) % tuple(np.asarray(table).ravel().tolist())


def face_rows(faces: np.ndarray, between: str) -> str:
    """The faces (F, 3) of an `.obj` whose corners have normals ("//") or texture ("/") of the same numbers."""
    return _face_rows(np.ascontiguousarray(faces, np.int32).tobytes(), between)


@lru_cache(maxsize=4)  # a file a person, and all of one body
def _face_rows(faces: bytes, between: str) -> str:
    corners = np.frombuffer(faces, np.int32).reshape(-1, 3) + 1
    words = [f"{number}{between}{number}" for number in range(int(corners.max(initial=0)) + 1)]
    return "f %s %s %s\n" * len(corners) % tuple(words[number] for number in corners.ravel().tolist())


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, weighted by area."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(across[:, k], 3), len(vertices)) for k in range(3)], 1)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20))
