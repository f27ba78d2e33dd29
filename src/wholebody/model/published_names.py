"""The one place that knows what the published code calls things: names, layouts, older spellings, variants and sizes.

A published checkpoint is a `torch.save` of `{'epoch', 'network', 'optimizer'}`; names in `network` carry the prefix
`module.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wholebody.errors import BadInput
from wholebody.model.config import OSXConfig, published_config

PREFIX = "module."
COMPILED = "_orig_mod."  # what torch.compile puts before names, wherever it was applied

# Spellings of earlier published checkpoints.
OLDER = (
    (r"^backbone\.", "encoder."),
    (r"^body_rotation_net\.", "body_regressor."),
    (r"^hand_rotation_net\.", "hand_regressor."),
)

# Ours -> published, tried in order. `\g` groups carry indices over.
_DECODER = r"\1_decoder.keypoint_head.transformer."
_RULES: tuple[tuple[str, str], ...] = (
    (r"^encoder\.component_tokens$", "encoder.task_tokens"),
    (r"^encoder\.patch_embed\.", "encoder.patch_embed.proj."),
    (r"^encoder\.norm\.", "encoder.last_norm."),
    (r"^(encoder\.blocks\.\d+)\.attention\.", r"\1.attn."),
    (r"^(encoder\.(?:pos_embed|blocks)\b.*)$", r"\1"),
    (r"^body_positions\.volumes\.", "body_position_net.conv.0."),
    (r"^body_head\.token\.", "body_regressor.body_conv.0."),
    (r"^body_head\.root\.", "body_regressor.root_pose_out.0."),
    (r"^body_head\.pose\.", "body_regressor.body_pose_out.0."),
    (r"^body_head\.shape\.", "body_regressor.shape_out.0."),
    (r"^body_head\.camera\.", "body_regressor.cam_out.0."),
    (r"^box_head\.center\.", "box_net.bbox_center.0."),
    (r"^box_head\.size\.0\.", "box_net.lhand_size."),
    (r"^box_head\.size\.1\.", "box_net.rhand_size."),
    (r"^box_head\.size\.2\.", "box_net.face_size."),
    (r"^(hand|face)\.features\.expand\.", r"\1_roi_net.conv.0."),
    (r"^(hand|face)\.positions\.volumes\.", r"\1_position_net.conv.0."),
    (r"^(hand|face)\.positions\.query\.", r"\1_position_net.\1_conv."),
    (r"^hand\.head\.joint\.", "hand_regressor.hand_conv.0."),
    (r"^hand\.head\.pose\.", "hand_regressor.hand_pose_out.0."),
    (r"^face\.head\.face\.", "face_regressor.conv.0."),
    (r"^face\.head\.point\.", "face_regressor.joint_conv.0."),
    (r"^face\.(?:head\.)?expression\.", "face_regressor.expr_out.0."),
    (r"^face\.(?:head\.)?jaw\.", "face_regressor.jaw_pose_out.0."),
    (r"^(hand|face)\.decoder\.neck\.(\d)\.0\.", r"\1_decoder.neck.convs.\2.conv."),
    (r"^(hand|face)\.decoder\.neck\.(\d)\.1\.", r"\1_decoder.neck.convs.\2.gn."),
    (r"^(hand|face)\.decoder\.level_embed$", _DECODER + "level_embeds"),
    (r"^(hand|face)\.decoder\.keypoint_embed$", _DECODER + "pos_embed.weight"),
    (
        r"^(hand|face)\.decoder\.layers\.(\d+)\.self_attention\.(?:query_key|value)\.(\w+)$",
        _DECODER + r"decoder.layers.\2.attentions.0.attn.in_proj_\3",
    ),
    (
        r"^(hand|face)\.decoder\.layers\.(\d+)\.self_attention\.proj\.",
        _DECODER + r"decoder.layers.\2.attentions.0.attn.out_proj.",
    ),
    (
        r"^(hand|face)\.decoder\.layers\.(\d+)\.cross_attention\.offsets\.",
        _DECODER + r"decoder.layers.\2.attentions.1.sampling_offsets.",
    ),
    (
        r"^(hand|face)\.decoder\.layers\.(\d+)\.cross_attention\.weights\.",
        _DECODER + r"decoder.layers.\2.attentions.1.attention_weights.",
    ),
    (
        r"^(hand|face)\.decoder\.layers\.(\d+)\.cross_attention\.proj\.",
        _DECODER + r"decoder.layers.\2.attentions.1.output_proj.",
    ),
    (
        r"^(hand|face)\.decoder\.layers\.(\d+)\.cross_attention\.value_(weight|bias)$",
        _DECODER + r"decoder.layers.\2.attentions.1.value_proj_\3.weight",
    ),
    (r"^(hand|face)\.decoder\.layers\.(\d+)\.fc1\.", _DECODER + r"decoder.layers.\2.ffns.0.layers.0.0."),
    (r"^(hand|face)\.decoder\.layers\.(\d+)\.fc2\.", _DECODER + r"decoder.layers.\2.ffns.0.layers.1."),
    (r"^(hand|face)\.decoder\.layers\.(\d+)\.norm1\.", _DECODER + r"decoder.layers.\2.norms.0."),
    (r"^(hand|face)\.decoder\.layers\.(\d+)\.norm2\.", _DECODER + r"decoder.layers.\2.norms.1."),
    (r"^(hand|face)\.decoder\.layers\.(\d+)\.norm3\.", _DECODER + r"decoder.layers.\2.norms.2."),
)
_UPSAMPLE = re.compile(r"^box_head\.upsample\.(\d)\.(\d)\.(.*)$")
_BRANCH = re.compile(r"^(hand|face)\.features\.pyramid\.branches\.(\d)\.(.*)$")


@dataclass
class Translation:
    """Tensors of a published checkpoint under our names, and what was left over."""

    tensors: dict[str, Tensor]
    unused: dict[str, int] = field(default_factory=dict)  # published name -> numbers in it; carried, never used


def published_name(ours: str, variant: str) -> str:
    """The published name of one of our tensors."""
    name = re.sub(r"^hands\.", "hand.", ours)
    if variant == "wo_decoder" and name.startswith("hand.positions.query."):
        # There the features at the joints are made by the regressor, here always beside the positions.
        return name.replace("hand.positions.query.", "hand_regressor.hand_conv.")
    if match := _UPSAMPLE.match(name):
        return f"box_net.deconv.{3 * int(match[1]) + int(match[2])}.{match[3]}"
    if match := _BRANCH.match(name):
        return _published_branch(match[1], int(match[2]), match[3], variant)
    for pattern, replacement in _RULES:
        translated, count = re.subn(pattern, replacement, name)
        if count:
            return translated
    raise BadInput(f"{ours} has no counterpart in the published network: only sizes b and l can be written in its form")


def _published_branch(part: str, branch: int, rest: str, variant: str) -> str:
    if variant == "wo_decoder":  # one branch, ×4
        stage, layer, leaf = rest.split(".")
        return f"{part}_roi_net.deconv.{3 * int(stage) + int(layer)}.{leaf}"
    doublings = 2 - branch  # ours go from fine to coarse
    if doublings == 0:
        return f"{part}_roi_net.deconv.0.0.{rest}"
    stage, layer, leaf = rest.split(".")
    return f"{part}_roi_net.deconv.{doublings}.{3 * int(stage) + int(layer)}.{leaf}"


def canonical(name: str) -> str:
    """A name from a checkpoint's `network`: without the prefix, in today's spelling."""
    name = name.replace(COMPILED, "")
    for prefix in (PREFIX, "model.", "network.", PREFIX):  # as trainers wrap networks
        name = name.removeprefix(prefix)
    for pattern, replacement in OLDER:
        name = re.sub(pattern, replacement, name)
    return name


def read_config(shapes: Mapping[str, torch.Size]) -> OSXConfig:
    """Size and variant of a published network, read off the (canonical) names and shapes of its tensors."""
    tokens = shapes.get("encoder.task_tokens")
    width = tokens[-1] if tokens else None
    size = {768: "b", 1024: "l"}.get(width)  # type: ignore[arg-type]
    if size is None or "body_regressor.root_pose_out.0.weight" not in shapes:
        some = ", ".join(sorted(shapes)[:3])
        raise BadInput(
            "these are not the weights of a published OSX network: "
            + (f"its tokens have width {width}, published sizes have 768 (b) and 1024 (l)" if width else
               f"'encoder.task_tokens' is missing among {len(shapes)} tensors ({some}, ...)")
        )  # fmt: skip
    has_hands = any(name.startswith("hand_decoder.") for name in shapes)
    has_face = any(name.startswith("face_decoder.") for name in shapes)
    return published_config(size, "normal" if has_face else "wo_face_decoder" if has_hands else "wo_decoder")


def to_ours(published: Mapping[str, Tensor], ours: Mapping[str, Tensor], variant: str) -> Translation:
    """The tensors that our network needs (`ours`: its state_dict, for names and shapes), as views where possible.

    Raises BadInput naming what is missing or has another shape.
    """
    tensors, used, missing, wrong = {}, set(), [], []
    for name, wanted in ours.items():
        source = published_name(name, variant)
        if source not in published:
            if not name.endswith("num_batches_tracked"):
                missing.append(source)
            else:
                tensors[name] = torch.zeros_like(wanted, device="cpu")
            continue
        used.add(source)
        tensor = _layout_to_ours(name, published[source], wanted.shape)
        if tensor.shape != wanted.shape:
            wrong.append(f"{source} {tuple(published[source].shape)}")
        tensors[name] = tensor
    if missing or wrong:
        problems = [f"{len(missing)} tensors are missing ({_some(missing)})"] if missing else []
        problems += [f"{len(wrong)} tensors have another shape ({_some(wrong)})"] if wrong else []
        raise BadInput(f"the weights do not fit the published network ({variant}): {'; '.join(problems)}")
    unused = {name: tensor.numel() for name, tensor in published.items() if name not in used}
    return Translation(tensors, unused)


def to_published(ours: Mapping[str, Tensor], variant: str) -> dict[str, Tensor]:
    """Our tensors under the published names (without prefix) and in the published layouts."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in ours.items():
        target = published_name(name, variant)
        if ".self_attention.query_key." in name:
            value = ours[name.replace("query_key", "value")]
            tensors[target] = torch.cat((tensor, value))
        elif ".self_attention.value." in name:
            continue
        elif name.endswith("decoder.level_embed"):
            tensors[target] = torch.cat((tensor, torch.zeros_like(tensor[:1])))  # a fourth row is carried, never used
        elif name.endswith("cross_attention.value_weight"):
            tensors[target] = tensor.flatten(0, 1)
        else:
            tensors[target] = tensor
    return tensors


def _layout_to_ours(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    if ".self_attention.query_key." in name:
        return tensor[: 2 * len(tensor) // 3]
    if ".self_attention.value." in name:
        return tensor[2 * len(tensor) // 3 :]
    if name.endswith("decoder.level_embed"):
        return tensor[: shape[0]]
    if name.endswith("cross_attention.value_weight") and tensor.numel() == shape.numel():
        return tensor.view(shape)
    return tensor


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
