"""What a published size starts from, how its encoder is run, and what its checkpoints say of themselves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch.utils.checkpoint import checkpoint

from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.model.checkpoint import PUBLISHED_LICENCE, CheckpointInfo, Conventions
from wholebody.model.encoder import Block
from wholebody.model.osx import OSX
from wholebody.model.published_names import canonical, published_name
from wholebody.training.config import TrainConfig

LICENCE = "its maker's, within the terms of the SMPL-X body and of the data sets that it was trained on"


def check_start(config: TrainConfig, info: CheckpointInfo) -> None:
    """Raises BadInput where the checkpoint that a run starts from is of another network than its recipe names."""
    found, wanted = (info.config.name, info.config.variant), (config.network, config.variant)
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


def load_encoder(model: OSX, path: str) -> None:
    """Give a network the weights of a pre-trained encoder, as published for training (`osx_vit_l.pth`).

    Component tokens, which pre-training does not know, may be missing. Anything else that is, is an error.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise AssetMissing(
            f"there is no pre-trained encoder at {file}. Training a published size begins with one: download "
            "osx_vit_l.pth or osx_vit_b.pth from the links of the OSX repository (IDEA-Research/OSX, Training) to that "
            "place, or name yours with encoder_from=PATH. start_from=CHECKPOINT begins with a whole network instead, "
            "encoder_from='' with random weights"
        )
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the unpickler stumble in any way
        raise BadInput(f"{file} is damaged or holds more than tensors; download it again") from error
    found = contents.get("state_dict", contents) if isinstance(contents, dict) else {}
    tensors = {canonical(name): tensor for name, tensor in found.items()}
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


def prepare_encoder(model: OSX, config: TrainConfig) -> None:
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
    return conventions, PUBLISHED_LICENCE if config.start_from else LICENCE
