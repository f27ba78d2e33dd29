"""Edits of checkpoints that users of the published code know: put a hand network's weights into a whole one, and set
the epoch back, so that training starts anew from what was learnt.

Of published files (`.pth.tar`) nothing but the names is looked at, so that those of networks before OSX can be edited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wholebody.errors import BadInput
from wholebody.model.checkpoint import (
    is_published,
    open_ours,
    unpickle,
    write_ours,
    write_torch,
)
from wholebody.model.published_names import PREFIX, canonical

ENCODER_OF_HAND_NETWORK, ENCODER_IN_WHOLE = "hand_backbone.", "hand_roi_net.backbone."
"""What the encoder of hands is called in a network of hands alone, and in a whole one (both before OSX)."""
FITTED_TO_OLD_ENCODER = ("hand_position_net.", "hand_regressor.")
"""Parts that read the encoder's features: the published tool leaves them out, to be learnt anew."""
HANDS_PUBLISHED = ("hand_roi_net.", "hand_position_net.", "hand_decoder.", "hand_regressor.")
HANDS_OURS = ("hands.",)
_PROGRESS = ("epoch", "step", "samples")


@dataclass(frozen=True)
class MergeReport:
    """What a merge did: names as in the whole network's file."""

    path: Path
    merged: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.path}: {len(self.merged)} tensors of the hand network, epoch 0"
        if self.dropped:
            parts = sorted({name.removeprefix(PREFIX).split(".")[0] for name in self.dropped})
            text += f"; {len(self.dropped)} tensors left out, to be learnt anew ({', '.join(parts)})"
        return text


def merge_hand(whole: str | Path, hand: str | Path, target: str | Path) -> MergeReport:
    """Write the `whole` network with the weights of a network of hands, its epoch 0 and without an optimiser.

    The hand network is either one of hands alone, as published before OSX (`hand_backbone...`): its encoder becomes the
    whole one's encoder of hands, and the parts that read that encoder are left out. Or it is a network that names its
    hand parts as the whole one does: these take the place of the whole one's.

    Raises BadInput unless the hand network has a tensor of the same shape for every one that is replaced, and both
    files have the same form.
    """
    whole, hand, target = Path(whole), Path(hand), Path(target)
    form = is_published(whole)
    if is_published(hand) != form:
        raise BadInput(f"{whole} and {hand} are of two forms; bring one over with `wholebody checkpoint convert`")
    _same_form(target, form)
    if not form:
        return _merge_ours(whole, hand, target)
    contents, incoming = _published(whole), _published(hand)["network"]
    network = dict(contents["network"])
    own = {canonical(name): name for name in network}
    theirs = {canonical(name): tensor for name, tensor in incoming.items()}
    alone = {name: tensor for name, tensor in theirs.items() if name.startswith(ENCODER_OF_HAND_NETWORK)}
    dropped: list[str] = []
    if alone:
        new = {ENCODER_IN_WHOLE + name.removeprefix(ENCODER_OF_HAND_NETWORK): tensor for name, tensor in alone.items()}
        replaced = [name for name in own if name.startswith(ENCODER_IN_WHOLE)]
        dropped = [own[name] for name in own if name.startswith(FITTED_TO_OLD_ENCODER)]
    else:
        new = {name: tensor for name, tensor in theirs.items() if name.startswith(HANDS_PUBLISHED)}
        replaced = [name for name in own if name.startswith(HANDS_PUBLISHED)]
    _check_fit(whole, hand, {name: network[own[name]] for name in replaced}, new)
    for name in replaced:
        network[own[name]] = new[name]
    for raw in dropped:
        del network[raw]
    kept = {key: value for key, value in contents.items() if key not in ("network", "epoch", "optimizer")}
    result = {"epoch": 0, "network": network, "optimizer": {}, **kept}
    write_torch(target, result)
    return MergeReport(target, tuple(own[name] for name in replaced), tuple(dropped))


def reset_epoch(source: str | Path, target: str | Path) -> Path:
    """Write a checkpoint again with its epoch (ours: step and samples too) set to 0 and all else as it is."""
    source, target = Path(source), Path(target)
    _same_form(target, is_published(source))
    if is_published(source):
        contents = _published(source)
        write_torch(target, contents | {"epoch": 0})
        return target
    tensors, info = _ours(source)
    counted = {key: 0 for key in _PROGRESS if key in info.extra}
    if not counted:
        raise BadInput(f"{source} counts no epochs or steps: there is nothing to set back")
    write_ours(tensors, target, info.config, info.conventions, info.licence, {**info.extra, **counted})
    return target


def _merge_ours(whole: Path, hand: Path, target: Path) -> MergeReport:
    (tensors, info), (incoming, other) = _ours(whole), _ours(hand)
    if info.conventions != other.conventions:
        raise BadInput(
            f"{whole} and {hand} mean different things by their numbers: {info.conventions} against "
            f"{other.conventions}; their parts cannot be exchanged"
        )
    replaced = [name for name in tensors if name.startswith(HANDS_OURS)]
    new = {name: tensor for name, tensor in incoming.items() if name.startswith(HANDS_OURS)}
    _check_fit(whole, hand, {name: tensors[name] for name in replaced}, new)
    extra = {**info.extra, **{key: 0 for key in _PROGRESS if key in info.extra}}
    write_ours({**tensors, **new}, target, info.config, info.conventions, info.licence, extra)
    return MergeReport(target, tuple(replaced), ())


def _check_fit(whole: Path, hand: Path, old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Every tensor that is replaced has a successor of its shape, and there are no others."""
    if not new:
        raise BadInput(f"{hand} holds no weights of hands ({ENCODER_OF_HAND_NETWORK}* or {', '.join(HANDS_PUBLISHED)})")
    if not old:
        raise BadInput(f"{whole} has no part that the {len(new)} hand tensors of {hand} belong to ({_some(new)})")
    missing, unknown = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    shapes = {name: (tuple(old[name].shape), tuple(new[name].shape)) for name in old.keys() & new.keys()}
    wrong = sorted(f"{name} {one} against {other}" for name, (one, other) in shapes.items() if one != other)
    problems = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (("are missing", missing), ("have no place", unknown), ("have another shape", wrong))
        if names
    ]
    if problems:
        raise BadInput(f"the hand weights of {hand} do not fit into {whole}: {'; '.join(problems)}")


def _same_form(target: Path, published: bool) -> None:
    if (target.suffix == ".safetensors") == published:
        wanted = ".pth.tar" if published else ".safetensors"
        raise BadInput(f"{target}: name the target {wanted}, the form does not change; `checkpoint convert` changes it")


def _published(path: Path) -> dict[str, Any]:
    contents = unpickle(path)
    network = contents.get("network") if isinstance(contents, dict) else None
    if not isinstance(network, dict) or not all(isinstance(value, Tensor) for value in network.values()):
        raise BadInput(f"{path} is no published checkpoint: it holds no 'network' of tensors")
    return contents


def _ours(path: Path) -> tuple[dict[str, Tensor], Any]:
    """(tensors as they are stored, what the file says of itself)"""
    with open_ours(path) as (file, info):
        return {name: file.get_tensor(name) for name in file.keys()}, info


def _some(names: Any) -> str:
    chosen = list(names)
    return ", ".join(chosen[:3]) + (", ..." if len(chosen) > 3 else "")
