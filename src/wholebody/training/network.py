"""What a published size starts from, how its encoder is run, and what its checkpoints say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.model.checkpoint import CheckpointInfo, Conventions, unpickle
from wholebody.model.config import NetworkConfig, published_config, smpler_x_config
from wholebody.model.encoder import Block
from wholebody.model.families import FAMILIES
from wholebody.model.network import Network
from wholebody.model.published_names import canonical, published_name
from wholebody.model.smplest_x import SMPLestXConfig
from wholebody.training.config import TrainConfig
from wholebody.training.recipes import OF_FAMILY

LICENCE = "its maker's, within the terms of the SMPL-X body and of the data sets that it was trained on"
NECK = ("box_head", "hands.features", "face.features", "decoder")
"""Parts between the encoder and the heads, as the published `fine_tune` has it; SMPLest-X's is its decoder."""


def network_config(config: TrainConfig) -> NetworkConfig:
    """What the published network of a recipe is made of."""
    if config.family == "smplest_x":
        return SMPLestXConfig()
    if config.family == "smpler_x":
        return smpler_x_config(config.network)
    return published_config(config.network, config.variant)


def freeze(model: Network, fine_tune: str) -> list[nn.Module]:
    """Let only those parts learn that `TrainConfig.fine_tune` names; the others, which stay as they are: while training
    goes on they are to be in eval mode.

    (In the published code what is frozen goes on to drop paths and to gather batch statistics.)
    """
    if not fine_tune:
        return []
    learning = {"backbone": ("backbone",), "neck_and_head": ("neck", "head"), "head": ("head",)}[fine_tune]
    frozen = []
    for name, part in _parts(model):
        if _kind(name) not in learning:
            part.requires_grad_(False)
            frozen.append(part)
    return frozen


def _parts(model: Network) -> Iterator[tuple[str, nn.Module]]:
    """The network's parts by name, as fine as `NECK` tells them apart."""
    for name, part in model.named_children():
        if any(one.startswith(f"{name}.") for one in NECK):
            yield from ((f"{name}.{inner}", module) for inner, module in part.named_children())
        else:
            yield name, part


def _kind(name: str) -> str:
    return "backbone" if name == "encoder" else "neck" if name in NECK else "head"


def check_start(config: TrainConfig, info: CheckpointInfo) -> None:
    """Raises BadInput where the checkpoint that a run starts from is of another network than its recipe names."""
    family = info.config.family
    if family in FAMILIES and family != config.family and config.network != "t":
        asked = FAMILIES[config.family].title
        raise BadInput(
            f"{info.path} is a network of {FAMILIES[family].title}, and the recipe trains {asked}: start from a "
            f"checkpoint of {asked}, or set family={family} (its recipe: {OF_FAMILY[family]})"
        )
    variant = config.variant if config.family == "osx" else info.config.variant
    found, wanted = (info.config.name, info.config.variant), (config.network, variant)
    if found != wanted:
        raise BadInput(
            f"{info.path} is a network {found[0]!r}, {found[1]!r}, and the recipe says {wanted[0]!r}, {wanted[1]!r}: "
            f"set network={found[0]} variant={found[1]}, or start from another checkpoint"
        )
    body = "open" if config.body == "open" else "smplx"
    if info.conventions.body != body:
        raise BadInput(
            f"{info.path} predicts parameters of the body {info.conventions.body!r}, the recipe's body is {body!r}: "
            "shape and expression do not carry over between the two"
        )


def load_encoder(model: Network, path: str) -> None:
    """Give a network the weights of a pre-trained encoder, as published for training (`osx_vit_l.pth`), or ViTPose's
    own (`vitpose_huge.pth`, whose other parts are left).

    Component tokens, which pre-training does not know, may be missing. Anything else that is, is an error.
    """
    file, family = Path(path).expanduser(), model.config.family
    if not file.is_file():
        raise AssetMissing(
            f"there is no pre-trained encoder at {file}. Training a published size begins with one: {_SOURCE[family]} "
            "to that place, or name yours with encoder_from=PATH. start_from=CHECKPOINT begins with a whole network "
            "instead, encoder_from='' with random weights"
        )
    contents = unpickle(file)
    found = contents.get("state_dict", contents) if isinstance(contents, dict) else {}
    tensors = {canonical(str(name)): tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
    if not any(name.startswith("encoder.") for name in tensors):  # saved by itself
        tensors = {f"encoder.{name}": tensor for name, tensor in tensors.items()}
    own = model.encoder.state_dict()
    chosen, missing = {}, []
    for name, value in own.items():
        source = published_name(f"encoder.{name}", model.config.variant)
        if source in tensors and tensors[source].shape == value.shape:
            chosen[name] = tensors[source].to(value.dtype)
        elif name == "component_tokens":
            chosen[name] = value
        else:
            missing.append(source)
    if missing:
        raise BadInput(
            f"{file} lacks {len(missing)} of {len(own)} tensors of the encoder of size {model.config.name!r}, or has "
            f"them in another shape ({', '.join(missing[:3])}, ...): is it the encoder of another size?"
        )
    model.encoder.load_state_dict(chosen)


_VITPOSE_SOURCE = "download vitpose_small.pth, ..., vitpose_huge.pth from the ViTPose repository (ViTAE-Transformer)"
_SOURCE = {
    "osx": "download osx_vit_l.pth or osx_vit_b.pth from the links of the OSX repository (IDEA-Research/OSX, Training)",
    "smpler_x": _VITPOSE_SOURCE,
    "smplest_x": _VITPOSE_SOURCE,
}


def prepare_encoder(model: Network, config: TrainConfig) -> None:
    """Run the encoder as the recipe says: its blocks computed again on the way back, or compiled."""
    if config.checkpoint_activations:
        blocks = [part for part in model.encoder.modules() if isinstance(part, Block)]
        if not blocks:
            raise BadInput(f"checkpoint_activations: size {config.network!r} has no encoder blocks to do that with")
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if config.compile:
        model.encoder.compile(backend=config.compile)


def trained_for(config: TrainConfig, body: BodyModel) -> tuple[Conventions, str]:
    """Conventions and licence of what a run leaves."""
    conventions = Conventions(body=body.name, gender=body.gender, flat_hand_mean=body.flat_hand_mean)
    if body.name == "open":
        return conventions, "Apache-2.0"
    return conventions, FAMILIES[config.family].licence if config.start_from else LICENCE
