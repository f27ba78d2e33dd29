"""The weights of `MobileNetTrunk`, read out of the embedded detector's file, so that they are shipped once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholebody.errors import BadInput
from wholebody.model.embedded.trunk import MobileNetTrunk, MobileNetTrunkConfig, load_published

SHA256 = "d4489f89e6bd6777a8b9a1a16189832131f84ff90d82fae729e670b84d7948dd"

# Numbers of the file's tensors, (weight, bias) by convolution in the order in which its graph runs them; they belong to
# the file of that SHA-256 only. `tools/extract_movenet_trunk.py` finds the same pairs by walking the graph.
_CONSTANTS = (
    (81, 43), (150, 44), (83, 151), (84, 45), (152, 46), (85, 153), (86, 47), (154, 48), (87, 155), (88, 156), (89, 49),
    (157, 50), (90, 158), (91, 51), (159, 52), (92, 160), (93, 53), (161, 54), (94, 162), (96, 163), (97, 55),
    (164, 56), (98, 165), (99, 57), (166, 58), (100, 167), (101, 59), (168, 60), (102, 169), (103, 61), (170, 62),
    (104, 171), (106, 172), (107, 63), (173, 64), (108, 174), (109, 65), (175, 66), (110, 176), (111, 67), (177, 68),
    (112, 178), (113, 69), (179, 70), (114, 180), (115, 71), (181, 72), (116, 182), (117, 73), (183, 74), (118, 184),
    (119, 75), (185, 76), (120, 186), (121, 77), (122, 187), (123, 105), (124, 78), (125, 95), (126, 79), (127, 82),
    (128, 80), (129, 82), (130, 4), (131, 188), (132, 82), (133, 5), (134, 189), (135, 82), (136, 6), (137, 190),
    (140, 82), (141, 3), (142, 191), (143, 82), (144, 1), (145, 192), (146, 82), (147, 2), (148, 193),
)  # fmt: skip
_MEAN, _SCALE, _ONE = 39, 10, 9  # the graph begins with (pixel - mean) * scale - one


def read_movenet_state(path: Path | None = None) -> dict[str, Tensor]:
    """`MobileNetTrunk`'s state (float16; `load_state_dict` widens it) from the MoveNet file (default: the embedded).

    About 0.1 s. The trunk must have the default config.
    """
    if path is None:
        with as_file(files("wholebody") / "weights" / "movenet_multipose.tflite") as embedded:
            return read_movenet_state(embedded)
    from ai_edge_litert.interpreter import Interpreter

    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise BadInput(f"{path} has SHA-256 {digest}, not {SHA256}; use the file embedded in the package")
    constant = Interpreter(model_content=data).get_tensor
    state: dict[str, np.ndarray] = {}
    for name, (weight, bias) in zip(module_names_in_graph_order(), _CONSTANTS, strict=True):
        depthwise = name.endswith(".depthwise.conv")
        # Files have 1, k, k, C for depthwise and out, k, k, in for other kernels.
        state[name + ".weight"] = constant(weight).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        if not depthwise or name.startswith("stages"):  # the others' biases are zero
            state[name + ".bias"] = constant(bias)
    # Ours is (image - image_mean) * image_scale on 0..1 instead of 0..255.
    mean, scale, one = (np.float64(constant(number)) for number in (_MEAN, _SCALE, _ONE))
    state["image_mean"] = np.reshape((mean + one / scale) / 255, (1, 3, 1, 1)).astype(np.float32)
    state["image_scale"] = np.reshape(scale * 255, (1, 1, 1, 1)).astype(np.float32)
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}


def load_movenet(trunk: MobileNetTrunk) -> None:
    """Give a trunk MoveNet's weights; its tuned stages start as copies of the frozen ones."""
    load_published(trunk, read_movenet_state())


def module_names_in_graph_order() -> Iterator[str]:
    """Names of `MobileNetTrunk`'s convolutions in the order in which the file's graph runs them."""
    config = MobileNetTrunkConfig()
    laterals = dict(zip(config.neck_inputs, (4, 8, 16), strict=True))
    yield "stem.conv"
    for stage_index, stage in enumerate(config.stages):
        for block in range(stage.blocks):
            for part in ("expand", "depthwise", "project")[stage.expansion == 1 :]:
                yield f"stages.{stage_index}.{block}.{part}.conv"
        if stage_index in laterals:
            yield f"neck.lateral{laterals[stage_index]}.conv"
    yield from ("last.conv", "neck.lateral32.conv")
    for level in (16, 8, 4):
        yield from (f"neck.smooth{level}.{part}.conv" for part in ("depthwise", "pointwise"))
    for head in ("box_offset", "box_scale", "center", "keypoint_heatmaps", "keypoint_offsets", "keypoint_regression"):
        yield from (f"heads.{head}.{part}.conv" for part in ("separable.depthwise", "separable.pointwise", "out"))
