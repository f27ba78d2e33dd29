"""glTF 2.0 as its specification says, for tests: pygltflib reads the file, this walks nodes, skins and animations."""

from __future__ import annotations

import numpy as np
import pygltflib

_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_NUMPY = {5126: np.float32, 5125: np.uint32, 5123: np.uint16, 5121: np.uint8}


class Reader:
    def __init__(self, data: bytes) -> None:
        self.gltf = pygltflib.GLTF2.load_from_bytes(data)
        self._blob = self.gltf.binary_blob()

    def _view(self, view: int, component: int, count: int, columns: int) -> np.ndarray:
        start = self.gltf.bufferViews[view].byteOffset or 0
        return np.frombuffer(self._blob, _NUMPY[component], count * columns, start).reshape(count, columns)

    def array(self, number: int) -> np.ndarray:
        accessor = self.gltf.accessors[number]
        columns = _COLUMNS[accessor.type]
        if accessor.bufferView is None:
            out = np.zeros((accessor.count, columns))
        else:
            out = self._view(accessor.bufferView, accessor.componentType, accessor.count, columns).astype(float)
        if accessor.sparse:
            sparse = accessor.sparse
            rows = self._view(sparse.indices["bufferView"] if isinstance(sparse.indices, dict) else
                              sparse.indices.bufferView,
                              sparse.indices["componentType"] if isinstance(sparse.indices, dict) else
                              sparse.indices.componentType, sparse.count, 1)[:, 0]  # fmt: skip
            view = sparse.values["bufferView"] if isinstance(sparse.values, dict) else sparse.values.bufferView
            out[rows] = self._view(view, accessor.componentType, sparse.count, columns)
        if accessor.normalized:
            out = out / np.iinfo(_NUMPY[accessor.componentType]).max
        return out

    def at(self, seconds: float) -> dict[tuple[int, str], np.ndarray]:
        """Animated values at that time, by (node, path): linear, spherical for rotations, or steps."""
        out = {}
        for animation in self.gltf.animations or []:
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                times = self.array(sampler.input)[:, 0]
                values = self.array(sampler.output).reshape(len(times), -1)
                right = int(np.clip(np.searchsorted(times, seconds, "right"), 1, max(len(times) - 1, 1)))
                left = right - 1
                if len(times) == 1 or seconds <= times[0]:
                    value = values[0]
                elif seconds >= times[-1]:
                    value = values[-1]
                elif sampler.interpolation == "STEP":
                    value = values[left]
                else:
                    part = (seconds - times[left]) / (times[right] - times[left])
                    value = values[left] * (1 - part) + values[right] * part
                    if channel.target.path == "rotation":
                        value = value / np.linalg.norm(value)
                out[channel.target.node, channel.target.path] = value
        return out

    def world_matrices(self, seconds: float) -> list[np.ndarray]:
        animated = self.at(seconds)
        out: list[np.ndarray | None] = [None] * len(self.gltf.nodes)

        def visit(number: int, parent: np.ndarray) -> None:
            node = self.gltf.nodes[number]
            x, y, z, w = animated.get((number, "rotation"), node.rotation or [0, 0, 0, 1])
            local = np.eye(4)
            local[:3, :3] = [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
            local[:3, :3] *= animated.get((number, "scale"), node.scale or [1, 1, 1])
            local[:3, 3] = animated.get((number, "translation"), node.translation or [0, 0, 0])
            out[number] = parent @ local
            for child in node.children or []:
                visit(child, out[number])

        for root in self.gltf.scenes[self.gltf.scene].nodes:
            visit(root, np.eye(4))
        return out

    def node(self, name: str, of: str | None = None) -> int:
        """The node of that name; joints carry the same names in every armature `of`."""
        numbers = [k for k, node in enumerate(self.gltf.nodes) if node.name == name]
        if of is not None:
            (armature,) = [k for k, node in enumerate(self.gltf.nodes) if node.name == of]
            below, stack = set(), [armature]
            while stack:
                below.add(number := stack.pop())
                stack += self.gltf.nodes[number].children or []
            numbers = [number for number in numbers if number in below]
        (number,) = numbers
        return number

    def vertices(self, name: str, seconds: float) -> np.ndarray:
        """(N, 3) in the world: morph targets, then the skin."""
        holder = self.node(name)
        node, mesh = self.gltf.nodes[holder], self.gltf.meshes[self.gltf.nodes[holder].mesh]
        skin = self.gltf.skins[node.skin]
        primitive = mesh.primitives[0]
        points = self.array(primitive.attributes.POSITION).copy()
        weights = self.at(seconds).get((holder, "weights"), mesh.weights)
        for weight, target in zip(weights, primitive.targets, strict=True):
            points += weight * self.array(target["POSITION"])
        world = self.world_matrices(seconds)
        bind = self.array(skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        moves = np.stack([world[joint] @ bind[k] for k, joint in enumerate(skin.joints)])
        out = np.zeros_like(points)
        padded = np.concatenate([points, np.ones((len(points), 1))], 1)
        attributes = vars(primitive.attributes)
        for part in range(2):
            if attributes.get(f"JOINTS_{part}") is None:
                continue
            joints = self.array(attributes[f"JOINTS_{part}"]).astype(int)
            amounts = self.array(attributes[f"WEIGHTS_{part}"])
            for k in range(4):
                out += amounts[:, k : k + 1] * np.einsum("nij,nj->ni", moves[joints[:, k]], padded)[:, :3]
        return out
