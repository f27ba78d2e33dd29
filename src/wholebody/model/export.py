"""A network and its body as one graph for other runtimes: a crop in, all parameters, joints and the mesh out."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wholebody.errors import AssetMissing, BadInput
from wholebody.files.whole import whole, write_bytes, write_whole
from wholebody.model.checkpoint import Conventions, write_safetensors
from wholebody.model.config import config_to_dict
from wholebody.model.graph import FORMAT, KEY, LIFTING, VERSION, GraphNetwork
from wholebody.model.network import Network

OUTPUTS = {
    "rotations": "53 rotation matrices: pelvis, 21 body, 15 left hand, 15 right hand, jaw; without mean hand pose",
    "global_orient": "axis-angle, radians, camera frame",
    "body_pose": "axis-angle, radians, relative to the parent joint",
    "left_hand_pose": "axis-angle, radians, relative to the parent joint",
    "right_hand_pose": "axis-angle, radians, relative to the parent joint",
    "jaw_pose": "axis-angle, radians, relative to the parent joint",
    "betas": "shape coefficients",
    "expression": "expression coefficients",
    "cam_trans": "metres, from the body's frame to the camera's",
    "vertices_cam": "metres, camera frame (x right, y down, z forward)",
    "joints_cam": "metres, camera frame; 55 joints in SMPL-X order",
    "joints_144_cam": "metres, camera frame",
    "joints_proj_cells": "137 joints projected, cells of the crop: x of 12, y of 16",
    "left_hand_box": "xyxy, pixels of the 384×512 crop",
    "right_hand_box": "xyxy, pixels of the 384×512 crop",
    "face_box": "xyxy, pixels of the 384×512 crop",
    "found_keypoints": "COCO's 17: x and y as fractions of the crop, score",
}
"""Names of a graph's outputs, as in `Prediction`, and what they are. Those that a network does not say are absent."""

_MOST_NUMBERS = 520_000_000
"""An ONNX file is one message of at most 2 GB."""


class Graph(nn.Module):
    """A network with tensors alone for outputs, named by `names`."""

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        prediction = self.network(images)
        return tuple(getattr(prediction, name) for name in self.names)


def export(network: Network, form: str, out: Path, name: str | None = None, overwrite: bool = False) -> list[Path]:
    """Write `network`, which has a body, as a graph to the folder `out`; the files written.

    form: "onnx", "openvino", "torchscript" or "pt2". The graph takes `images`, B×3×512×384 float32 RGB in [0, 1], of
    any B, and gives `OUTPUTS`; its metadata and the JSON beside it (`NAME.json`) say how to crop and what comes out.
    A network with sight (`t`) also gives `NAME_lifting.safetensors`, by which `predict` lays people onto what the
    landmarkers see. The network itself is brought to single precision, to the processor and out of training. name: of
    the files, without suffix; default: the network's. Raises BadInput for a graph, an unknown form,
    a network that one file cannot hold and files that are there already unless `overwrite`, and AssetMissing where the
    packages for it are not installed; before any work.
    """
    if form not in FORMATS:
        raise BadInput(f"the format {form!r} is unknown; known: {', '.join(FORMATS)}")
    if isinstance(network, GraphNetwork):
        raise BadInput(
            f"{getattr(network.checkpoint, 'path', 'this')} is a graph already; export the checkpoint that it was made "
            "of. (OpenVINO reads .onnx files as they are.)"
        )
    if network.body is None:
        raise BadInput("the network has no body, so there would be no mesh: load it with one (`load_model`)")
    check_packages(form)
    numbers = sum(value.numel() for value in network.state_dict().values())
    if form in ("onnx", "openvino") and numbers > _MOST_NUMBERS:
        raise BadInput(
            f"{form} cannot hold this network: {numbers / 1e6:.0f} M numbers take {4 * numbers / 2**30:.1f} GB, and "
            "one file at most 2. Take --format pt2 or torchscript."
        )
    name = name or network.config.name
    graphs = [out / f"{name}{suffix}" for suffix in FORMATS[form]]
    beside = [out / f"{name}{LIFTING}"] if network.config.family == "sighted" else []
    described = out / f"{name}.json"
    there = [path for path in (*graphs, *beside, described) if path.exists()]
    if there and not overwrite:
        raise BadInput(f"{there[0]} exists already; take another folder, or write over it with --overwrite")

    network = network.float().cpu().eval().requires_grad_(False)  # else whoever runs the graph pays for gradients
    height, width = network.config.input_hw
    # Of three pictures: a dimension of one or two would be taken for a constant.
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prediction = network(images)
        names = tuple(key for key in OUTPUTS if getattr(prediction, key, None) is not None)
        graph = Graph(network, names).eval()
        about = description(network, {key: list(getattr(prediction, key).shape[1:]) for key in names})
        about["files"] = [path.name for path in (*graphs, *beside)]
        out.mkdir(parents=True, exist_ok=True)
        _WRITERS[form](graph, images, about, graphs)
    for path in beside:
        lifting = network.body_positions.state_dict()  # type: ignore[union-attr, operator]
        write_safetensors(path, lifting, {"format": "wholebody lifting", "version": str(VERSION)})
    write_bytes(described, json.dumps(about, indent=1).encode())
    return [*graphs, *beside, described]


def description(network: Network, shapes: dict[str, list[int]]) -> dict[str, Any]:
    """What whoever runs the graph has to know: how a crop is made, and what comes out."""
    config, body = network.config, network.body
    height, width = config.input_hw
    assert body is not None
    info = network.checkpoint
    conventions = Conventions(body.name, body.gender, flat_hand_mean=body.flat_hand_mean)
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": config.name,
        "licence": getattr(info, "licence", "unknown"),
        "parameters": sum(value.numel() for value in network.parameters()),
        "body": {"name": body.name, "gender": body.gender, "flat_hand_mean": body.flat_hand_mean,
                 "vertices": body.num_vertices},
        "input": {
            "name": "images", "shape": ["batch", 3, height, width], "type": "float32", "values": "RGB in [0, 1]",
            "crop": {
                "box": f"the person's box, brought to {width}:{height} about its middle by making one side longer, "
                f"then {config.box_enlarge} times as large",
                "enlarge": config.box_enlarge,
                "filter": config.crop_filter,
                "resampling": "bilinear; what lies outside of the picture is black"
                + ("" if config.crop_filter == "published" else "; every second pixel sampled without aliasing, "
                   "and each repeated 2×2"),
            },
        },
        "camera": {"focal_px": config.camera.focal, "crop_hw": list(config.camera.hw)},
        "outputs": {name: {"shape": ["batch", *shape], "what": OUTPUTS[name]} for name, shape in shapes.items()},
        "config": config_to_dict(config),
        "conventions": dataclasses.asdict(conventions if info is None else info.conventions),
    }  # fmt: skip


def check_packages(form: str) -> None:
    """Raises AssetMissing, with all of their names, where packages that a format needs are not installed."""
    needed = {"onnx": ("onnx", "onnxscript"), "openvino": ("onnx", "onnxscript", "openvino")}.get(form, ())
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise AssetMissing(
            f"--format {form} needs {', '.join(missing)}, not installed here: pip install '.[export]'"
        )


def _exported(graph: Graph, images: Tensor) -> Any:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(graph, (images,), dynamic_shapes=({0: batch},), strict=False)


def _pt2(graph: Graph, images: Tensor, about: dict[str, Any], paths: list[Path]) -> None:
    program, extra = _exported(graph, images), {"wholebody.json": json.dumps(about)}

    def save(part: Path) -> None:
        with open(part, "wb") as file:
            torch.export.save(program, file, extra_files=extra)

    write_whole(paths[0], save)


def _torchscript(graph: Graph, images: Tensor, about: dict[str, Any], paths: list[Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that are constants here
        traced = torch.jit.trace(graph, (images,), check_trace=False)
    extra = {"wholebody.json": json.dumps(about)}
    write_whole(paths[0], lambda part: torch.jit.save(traced, str(part), _extra_files=extra))


def _onnx(graph: Graph, images: Tensor, about: dict[str, Any], paths: list[Path]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the exporter's own parts
        program = torch.onnx.export(
            _exported(graph, images), dynamo=True, input_names=["images"], output_names=list(graph.names),
            verbose=False,
        )  # fmt: skip
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(about)
    write_whole(paths[0], lambda part: program.save(str(part), external_data=False))


def _openvino(graph: Graph, images: Tensor, about: dict[str, Any], paths: list[Path]) -> None:
    import openvino

    xml, weights = paths
    with whole(weights) as part:  # beside where they belong: of a large network two copies go through the disk
        onnx, target = part.with_suffix(".onnx"), part.with_suffix(".xml")
        _onnx(graph, images, about, [onnx])
        model = openvino.convert_model(onnx)
        model.set_rt_info(json.dumps(about), [KEY])
        openvino.save_model(model, target, compress_to_fp16=False)  # and its weights, .bin, beside it
        write_bytes(xml, target.read_bytes())


FORMATS = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "torchscript": (".torchscript",), "pt2": (".pt2",)}
"""Formats, and the suffixes of their files."""
_WRITERS: dict[str, Callable[[Graph, Tensor, dict[str, Any], list[Path]], None]] = {
    "onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript, "pt2": _pt2,
}  # fmt: skip
