"""Reads MakeHuman's clothes as they come: `.mhclo` (how they fit), `.obj` (mesh), `.mhmat` (material).

Nothing is moved here; `stock` fits them to the open body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wholebody.errors import BadInput


@dataclass(frozen=True)
class Piece:
    """One `.mhclo`, N vertices: vertex k is `weights[k] @ base[corners[k]] + scale * offsets[k]`, in decimetres and
    MakeHuman's A-pose; scale per axis is the distance of two base vertices along it over a length: `scale` ((a, b,
    length) for x, y, z). `covers`: base vertices that it hides. `faces` (F,3), `uv` (T,2), `uv_faces` (F,3);
    `texture` a picture or None."""

    name: str
    corners: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    scale: tuple[tuple[int, int, float], ...]
    covers: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    texture: Path | None


def read_piece(path: Path) -> Piece:
    """Read one `.mhclo` with what it refers to."""
    scale: dict[str, tuple[int, int, float]] = {}
    rows: list[list[float]] = []
    covers: list[int] = []
    named: dict[str, str] = {}
    part = ""
    for line in _lines(path):
        words = line.split()
        if not re.match(r"-?\d", words[0]):
            # Settings may stand between "verts" and its rows.
            if words[0] in ("x_scale", "y_scale", "z_scale"):
                scale[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
            elif words[0] in ("obj_file", "material"):
                named[words[0]] = " ".join(words[1:])
            elif words[0] in ("verts", "delete_verts", "weights"):
                part = words[0]
        elif part == "verts":
            numbers = [float(w) for w in words]
            if len(numbers) == 1:  # lies on one base vertex
                numbers = numbers * 3 + [1, 0, 0, 0, 0, 0]
            rows.append((numbers + [0, 0, 0])[:9])
        elif part == "delete_verts":
            for first, last in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", line):
                covers += range(int(first), int(last or first) + 1)
    table = np.array(rows, float)
    if set(scale) != set("xyz") or "obj_file" not in named or not len(table):
        raise BadInput(f"{path} is no MakeHuman clothes file: it lacks scales, an obj_file or fitted vertices")
    faces, uv, uv_faces, count = _read_obj(path.parent / named["obj_file"])
    if count != len(table):
        raise BadInput(f"{path} fits {len(table)} vertices, but its mesh has {count}: get both files anew")
    return Piece(
        path.stem, table[:, :3].astype(np.int64), table[:, 3:6], table[:, 6:], tuple(scale[c] for c in "xyz"),
        np.unique(np.array(covers, np.int64)), faces, uv, uv_faces, _texture(path.parent / named.get("material", "")),
    )  # fmt: skip


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise BadInput(f"{path} could not be read ({error.strerror}): get MakeHuman's assets anew") from error
    return [line for raw in text.splitlines() if (line := raw.split("#")[0].strip())]


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Triangles (F,3), texture coordinates (T,2), their triangles (F,3), and how many vertices there are."""
    count, uv, faces, uv_faces = 0, [], [], []
    for line in _lines(path):
        words = line.split()
        if words[0] == "v":
            count += 1
        elif words[0] == "vt":
            uv.append((float(words[1]), float(words[2])))
        elif words[0] == "f":
            corners = [(w + "//").split("/")[:2] for w in words[1:]]
            v, t = [int(c[0]) - 1 for c in corners], [int(c[1] or 1) - 1 for c in corners]
            for k in range(1, len(v) - 1):
                faces.append((v[0], v[k], v[k + 1]))
                uv_faces.append((t[0], t[k], t[k + 1]))
    return np.array(faces, np.int32), np.array(uv or [(0, 0)], np.float32), np.array(uv_faces, np.int32), count


def _texture(material: Path) -> Path | None:
    if not material.is_file():
        return None
    for line in _lines(material):
        if line.startswith("diffuseTexture "):
            picture = material.parent / line.split(None, 1)[1]
            return picture if picture.is_file() else None
    return None
