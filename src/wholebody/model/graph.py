"""A network that was exported to ONNX, in the place of the network: ONNX Runtime computes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.files.json_stream import parse_json
from wholebody.files.looks import looks_like
from wholebody.model.checkpoint import CheckpointInfo, Conventions, parse_conventions
from wholebody.model.config import NetworkConfig
from wholebody.model.families import config_from_dict, sketch_network
from wholebody.model.network import Network, check_batch
from wholebody.model.prediction import PartBoxes, Prediction

KEY, FORMAT, VERSION = "wholebody", "wholebody graph", 1
"""Under which key of a graph's metadata its description lies, and what it says of itself."""
LIFTING = "_lifting.safetensors"
_FIELDS = tuple(field.name for field in dataclasses.fields(Prediction))
_NEEDED = tuple(field.name for field in dataclasses.fields(Prediction) if field.default is dataclasses.MISSING)


class GraphNetwork(Network):
    """What `load_model("X.onnx")` gives. It predicts; it does not learn, and has no parts to look at.

    A network with sight has `body_positions` where its file of lifting lies beside it, so that landmarkers help it.
    """

    def __init__(self, config: NetworkConfig, session: Any, body: BodyModel, body_positions: nn.Module | None) -> None:
        super().__init__(config, body)
        self.session = session
        self.names = [output.name for output in session.get_outputs()]
        self.encoder = nn.Module()
        self.encoder.like = nn.Parameter(torch.zeros(()), requires_grad=False)  # to ask for device and precision
        self.body_positions = body_positions

    def forward(self, images: Tensor, boxes: PartBoxes | None = None) -> Prediction:
        if boxes is not None:
            raise BadInput("an exported graph looks for hands and face itself: it takes no boxes")
        check_batch(images)
        values = self.session.run(None, {"images": images.detach().float().cpu().numpy()})
        said = {name: torch.from_numpy(value) for name, value in zip(self.names, values, strict=True)}
        if self.body_positions is None:
            said.pop("found_keypoints", None)  # of use to landmarkers alone
        return Prediction(**said)

    def regress(self, images: Tensor, boxes: PartBoxes | None = None) -> Prediction:
        return self(images, boxes)


def load_graph(
    path: Path, find_body: Callable[[Conventions], BodyModel], say: Callable[[str], None]
) -> tuple[GraphNetwork, CheckpointInfo]:
    """The network of an ONNX file that `export` wrote. find_body: the body that goes with its conventions.

    Raises AssetMissing without ONNX Runtime, BadInput for any other file.
    """
    session, about = _open(path)
    config, info = _described(path, about)
    body = find_body(info.conventions)
    if body.num_vertices != about["body"]["vertices"]:
        raise BadInput(
            f"{path} was exported with a body of {about['body']['vertices']} vertices, and this one has "
            f"{body.num_vertices}; name the same one: --body, in Python body="
        )
    return GraphNetwork(config, session, body, _lifting(path, config, say)).eval(), info


def describe_graph(path: Path) -> CheckpointInfo:
    """What an ONNX file that `export` wrote is."""
    return _described(path, _open(path)[1])[1]


def _open(path: Path) -> tuple[Any, dict[str, Any]]:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise AssetMissing(
            f"{path} is a graph, and ONNX Runtime is not installed: pip install '.[onnx]'"
        ) from error
    with open(path, "rb") as file:
        if looks_like(head := file.read(400)):
            raise BadInput(f"{path} is {looks_like(head)}; copy or download it again")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many kinds, none of them public
        why = str(error).splitlines()[0][:200]
        raise BadInput(
            f"{path} is no graph that ONNX Runtime reads ({why}); copy it again, or export it anew"
        ) from error
    stored = session.get_modelmeta().custom_metadata_map.get(KEY)
    if stored is None:
        raise BadInput(f"{path} was not written by `wholebody export`: it does not say how its pictures are cropped")
    try:
        about = parse_json(stored.encode(errors="replace"), "its text")
        version = (about["format"], about["version"])
        if version == (FORMAT, VERSION):
            int(about["body"]["vertices"])
            names = {output.name for output in session.get_outputs()}
            taken = [(one.name, one.type) for one in session.get_inputs()]
            if taken != [("images", "tensor(float)")] or not names <= set(_FIELDS) or not set(_NEEDED) <= names:
                raise ValueError("its inputs or outputs are others than it says")
            return session, about
    except (BadInput, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is damaged: its description cannot be read ({error}); export it anew") from error
    raise BadInput(
        f"{path} is a graph of version {str(version[1])[:20]!r}; this version of wholebody knows {VERSION}. "
        "Export it anew."
    )


def _described(path: Path, about: dict[str, Any]) -> tuple[NetworkConfig, CheckpointInfo]:
    try:
        config = config_from_dict(about["config"])
        conventions = parse_conventions(about["conventions"])
        licence, numbers = str(about["licence"]), int(about["parameters"])
        return config, CheckpointInfo(str(path), "onnx", config, conventions, licence, numbers)
    except (BadInput, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: its description makes no network ({error}); export it anew") from error


def _lifting(path: Path, config: NetworkConfig, say: Callable[[str], None]) -> nn.Module | None:
    if config.family != "sighted":
        return None
    beside = path.with_name(path.stem + LIFTING)
    if not beside.is_file():
        say(f"{beside} is missing: what the landmarkers see is left out, so hands and faces are the network's alone")
        return None
    part: nn.Module = sketch_network(config).body_positions  # type: ignore[assignment]
    try:
        part.load_state_dict(load_file(beside), assign=True)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise BadInput(f"{beside} does not belong to {path.name} ({str(error)[:200]}); export both anew") from error
    return part.eval()
