"""Meshes as bytes of `.obj`, `.ply` and `.glb` files."""

from __future__ import annotations

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.text import shown

MESHES = ("obj", "ply", "glb")


def mesh_bytes(vertices_cam: np.ndarray, faces: np.ndarray, kind: str, name: str) -> bytes:
    """A named mesh with vertex normals as `.obj`, `.ply` or `.glb`.

    Camera frame, metres, but with y up and the viewer looking along -z: (x, -y, -z), as 3D programs expect. A camera
    at the origin with the person's focal length and principal point sees it as in the photo.
    """
    import trimesh

    name = shown(name)  # headers are lines of UTF-8
    turned = np.asarray(vertices_cam, np.float64) * [1, -1, -1]
    mesh = trimesh.Trimesh(turned, faces, vertex_normals=vertex_normals(turned, faces), process=False)
    mesh.metadata["name"] = name
    if kind == "glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, node_name=name, geom_name=name)
        return bytes(trimesh.exchange.gltf.export_glb(scene, include_normals=True))
    if kind == "obj":
        text = str(trimesh.exchange.obj.export_obj(mesh, include_normals=True, digits=6, header="wholebody"))
        return text.encode()
    if kind == "ply":
        data = bytes(trimesh.exchange.ply.export_ply(mesh, vertex_normal=True))
        return data.replace(b"comment https://github.com/mikedh/trimesh", f"comment name {name}".encode(), 1)
    raise BadInput(f"There is no mesh format {kind!r}; known: {', '.join(MESHES)}.")


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, weighted by area."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.stack([np.bincount(faces.ravel(), np.repeat(across[:, k], 3), len(vertices)) for k in range(3)], 1)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20))
