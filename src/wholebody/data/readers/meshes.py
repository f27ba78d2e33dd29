"""True meshes that sets come with: EHF's `.ply` or `.obj`, AGORA's vertices in JSON, ARCTIC's in `.npy`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from wholebody.data.readers import READERS
from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.files.json_stream import read_json
from wholebody.files.npz import DAMAGED, read_npy
from wholebody.files.reading import open_file, read_bytes

# What PLY calls its types, and numpy's letters for them.
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_BYTE_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def true_mesh(root: Path, sample: Sample) -> np.ndarray:
    """The vertices (V, 3) of the person's true mesh: metres, camera frame.

    Raises BadInput if the set has no mesh of this person, or the file is missing or damaged.
    """
    if sample.mesh_path is None:
        raise BadInput(f"{sample.dataset or 'the set'} has no true mesh of {sample.id}")
    vertices = read_vertices(root / sample.mesh_path)
    info = READERS.get(sample.dataset)
    return info.load().camera_from_mesh(vertices) if info is not None and info.own_mesh_frame else vertices


def read_vertices(path: Path) -> np.ndarray:
    """The vertices (V, 3) of a `.ply`, `.obj`, `.json` or `.npy` file, in the file's order and frame."""
    readers = {".ply": _read_ply, ".obj": _read_obj, ".json": read_json, ".npy": read_npy}
    if path.suffix not in readers:
        raise BadInput(f"{path} is not a mesh that is understood: {', '.join(readers)}")
    if not path.exists():
        raise BadInput(f"{path}, the true mesh, is missing; unpack the set's meshes beside its pictures")
    try:
        vertices = np.asarray(readers[path.suffix](path), np.float64).reshape(-1, 3)
    except StopIteration as error:
        raise BadInput(f"{path} is damaged: it ends in the middle; fetch it again") from error
    except DAMAGED as error:
        raise BadInput(f"{path} is damaged or no mesh ({error}); fetch it again") from error
    if len(vertices) == 0 or not np.isfinite(vertices).all():
        raise BadInput(f"{path} holds no vertices or such that are not finite; fetch it again")
    return vertices


def _read_obj(path: Path) -> list[list[float]]:
    lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    return [[float(number) for number in line.split()[1:4]] for line in lines if line.startswith("v ")]


def _read_ply(path: Path) -> np.ndarray:
    """Only the vertices' x, y, z, which must come first in the file, as every writer puts them."""
    with open_file(path) as file:
        lines = iter(file.readline, b"")
        if next(lines).strip() != b"ply":
            raise ValueError("it does not begin with 'ply'")
        form, count, fields, element = "", 0, [], ""
        for raw in lines:
            words = raw.decode("ascii").split()
            if words[:1] == ["format"]:
                form = words[1]
            elif words[:1] == ["element"]:
                if not element and words[1] != "vertex":
                    raise ValueError(f"its first element is {words[1]}, not vertex")
                element = words[1]
                count = int(words[2]) if element == "vertex" else count
            elif words[:1] == ["property"] and element == "vertex":
                fields.append((words[2], _TYPES[words[1]]))
            elif words == ["end_header"]:
                break
        else:
            raise ValueError("its header has no end")
        if not 0 <= count <= os.fstat(file.fileno()).st_size:  # a lie would ask for as much memory
            raise ValueError(f"its header speaks of {count} vertices")
        if form == "ascii":
            rows = [next(lines).split() for _ in range(count)]
            places = [[name for name, _ in fields].index(axis) for axis in "xyz"]
            return np.array([[float(row[place]) for place in places] for row in rows])
        dtype = np.dtype([(name, _BYTE_ORDERS[form] + letters) for name, letters in fields])
        content = file.read(count * dtype.itemsize)
        table = np.frombuffer(content, dtype, count)
        return np.stack([table[axis] for axis in "xyz"], -1)
