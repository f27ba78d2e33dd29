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
from wholebody.model.config import NetworkConfig, published_config, smpler_x_config
from wholebody.model.smplest_x import SMPLestXConfig

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
_LAYER = r"decoder.transformer.transformer.layers.\1."
_SMPLEST_X_RULES: tuple[tuple[str, str], ...] = (
    (r"^decoder\.position$", "decoder.transformer.pos_embedding"),
    (r"^decoder\.layers\.(\d+)\.self_norm\.", _LAYER + "0.norm."),
    (r"^decoder\.layers\.(\d+)\.self_attention\.qkv\.", _LAYER + "0.fn.to_qkv."),
    (r"^decoder\.layers\.(\d+)\.self_attention\.proj\.", _LAYER + "0.fn.to_out.0."),
    (r"^decoder\.layers\.(\d+)\.cross_norm\.", _LAYER + "1.norm."),
    (r"^decoder\.layers\.(\d+)\.cross_attention\.query\.", _LAYER + "1.fn.to_q."),
    (r"^decoder\.layers\.(\d+)\.cross_attention\.key_value\.", _LAYER + "1.fn.to_kv."),
    (r"^decoder\.layers\.(\d+)\.cross_attention\.proj\.", _LAYER + "1.fn.to_out.0."),
    (r"^decoder\.layers\.(\d+)\.mlp_norm\.", _LAYER + "2.norm."),
    (r"^decoder\.layers\.(\d+)\.mlp\.fc1\.", _LAYER + "2.fn.net.0."),
    (r"^decoder\.layers\.(\d+)\.mlp\.fc2\.", _LAYER + "2.fn.net.3."),
    (r"^decoder\.out\.", "decoder.token_conv."),
    (r"^heads\.root\.", "decoder.dec_body_root_pose."),
    (r"^heads\.pose\.", "decoder.dec_body_pose."),
    (r"^heads\.shape\.", "decoder.dec_body_shape."),
    (r"^heads\.camera\.", "decoder.dec_body_cam."),
    (r"^heads\.hand_roots\.", "decoder.dec_hand_root_pose."),
    (r"^heads\.hands\.", "decoder.dec_hand_pose."),
    (r"^heads\.expression\.", "decoder.dec_face_expression."),
    (r"^heads\.jaw\.", "decoder.dec_face_jaw_pose."),
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
    for pattern, replacement in (*_RULES, *_SMPLEST_X_RULES):
        translated, count = re.subn(pattern, replacement, name)
        if count:
            return translated
    raise BadInput(f"{ours} has no counterpart in the published networks: the embedded one has no such form")


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


def family_of_file(name: str) -> str | None:
    """The family that a file's name speaks of; None where it speaks of none."""
    for pattern, family in (("smplest", "smplest_x"), ("smpler", "smpler_x"), ("osx", "osx")):
        if pattern in name.lower():
            return family
    return None


def read_config(
    shapes: Mapping[str, torch.Size], family: str | None = None, likely: str | None = None
) -> NetworkConfig:
    """Family, size and variant of a published network, read off the (canonical) names and shapes of its tensors.

    family: what it is said to be; another one is an error. likely: the family to take it for where its tensors do not
    tell (SMPLer-X B and L from OSX without decoders).
    """
    tokens = shapes.get("encoder.task_tokens")
    width = tokens[-1] if tokens else None
    size = {384: "s", 768: "b", 1024: "l", 1280: "h"}.get(width)  # type: ignore[arg-type]
    config: NetworkConfig
    if any(name.startswith("decoder.transformer.") for name in shapes) and tokens:
        config = SMPLestXConfig()
        size = "h" if width == config.encoder.width else None
    elif size is not None and "body_regressor.root_pose_out.0.weight" in shapes:
        hands = any(name.startswith("hand_decoder.") for name in shapes)
        face = any(name.startswith("face_decoder.") for name in shapes)
        whole = "normal" if face else "wo_face_decoder" if hands else "wo_decoder"
        either = size in "bl" and whole == "wo_decoder"
        wanted = family or likely
        if size in "sh" or (either and wanted == "smpler_x"):
            config = smpler_x_config(size)
        else:
            config = published_config(size, whole)
    else:
        size = None
    if size is None:
        some = ", ".join(sorted(shapes)[:3])
        raise BadInput(
            "these are not the weights of a published network of OSX, SMPLer-X or SMPLest-X: "
            + (f"its tokens have width {width}, published are 384 (s), 768 (b), 1024 (l) and 1280 (h)" if width else
               f"'encoder.task_tokens' is missing among {len(shapes)} tensors ({some}, ...)")
        )  # fmt: skip
    if family is not None and family != config.family:
        raise BadInput(
            f"these are the weights of another family: {config.family} (size {config.name}, {config.variant}) by their "
            f"tensors, and {family} is asked for; leave --family out, or take another file"
        )
    return config


def to_ours(published: Mapping[str, Tensor], ours: Mapping[str, Tensor], variant: str) -> Translation:
    """The tensors that our network needs (`ours`: its state_dict, for names and shapes), as views where possible.

    Raises BadInput naming what is missing, and what has another shape beside the published one.
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
            wrong.append(source)
        tensors[name] = tensor
    if missing or wrong:
        problems = [f"{len(missing)} tensors are missing ({_some(missing)})"] if missing else []
        if wrong:
            right = to_published({name: value.to("meta") for name, value in ours.items()}, variant)
            shapes = [f"{name} {tuple(published[name].shape)} instead of {tuple(right[name].shape)}" for name in wrong]
            problems.append(f"{len(wrong)} tensors have another shape ({_some(shapes)})")
        raise BadInput(
            f"the weights do not fit the published network ({variant}): {'; '.join(problems)}; download it again, or "
            "ask its maker for the whole network's weights"
        )
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
