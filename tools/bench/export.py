"""Exported graphs beside the network that they were made of: milliseconds a crop, in float32, on as many threads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import wholebody
from wholebody.body.layer import BodyModel
from wholebody.model.config import published_config, smpler_x_config
from wholebody.model.export import export
from wholebody.model.network import Network
from wholebody.model.osx import build_osx

NETWORKS = ("t", "smpler_x_s", "b", "l")
"""Or those that WHOLEBODY_BENCH_EXPORT names, by commas: writing a graph takes minutes."""
COUNTS = (1, 4)


def measure(
    row: Callable[..., None], compared: Callable[..., float], paired: Callable[..., Any], standin: Path
) -> None:
    """`paired(one, other, times)` gives the seconds of both, alternating."""
    for name in os.environ.get("WHOLEBODY_BENCH_EXPORT", ",".join(NETWORKS)).split(","):
        network = _network(name, standin)
        for form, open_graph in (("onnx", _onnx_runtime), ("openvino", _openvino)):
            with tempfile.TemporaryDirectory() as folder:
                run = open_graph(export(network, form, Path(folder), name)[0])
                for count in COUNTS:
                    images = torch.rand(count, 3, *network.config.input_hw, generator=torch.Generator().manual_seed(0))
                    with torch.inference_mode():
                        theirs, ours = paired(partial(run, images), partial(network, images), 7)
                    ratio = compared(f"export_{name}_{form}_{count}", theirs, ours)
                    row(f"{name}, {count} at a time: PyTorch", 1e3 * min(ours) / count, "ms a crop")
                    row(f"{name}, {count} at a time: {form}", 1e3 * min(theirs) / count, "ms a crop")
                    row(f"{name}, {count} at a time: {form} is so many times as fast", ratio, "x")


def _network(name: str, standin: Path) -> Network:
    if name == "t":
        return wholebody.load_model("t")
    torch.manual_seed(0)
    config = smpler_x_config(name[-1]) if name.startswith("smpler_x") else published_config(name)
    return build_osx(config, BodyModel.load(standin)).eval().requires_grad_(False)


def _onnx_runtime(path: Path) -> Callable[[Tensor], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def _openvino(path: Path) -> Callable[[Tensor], object]:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.compile_model(path, "CPU", hints)
    return lambda images: model(images.numpy())
