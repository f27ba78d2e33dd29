"""What of a run is kept: averaged weights, the state that a resumed run needs, and whether it is the same run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.files.npz import DAMAGED
from wholebody.files.options import differences
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.checkpoint import check_pickles
from wholebody.training.config import TrainConfig, config_from_table, config_to_table
from wholebody.training.processes import Group, seed_of

STATE = "last.pt"
_KEYS = {"config": str, "step": int, "model": dict, "optimizer": dict, "random": list, "skipped": int}
# Where files lie, how often to look, how fast to go: these may change between the sittings of a run.
_MAY_CHANGE = (
    "name", "heldout", "workers", "threads", "save_every", "snapshot_every", "published_form", "log_every",
    "allowed_skips", "start_from", "encoder_from", "body", "checkpoint_activations", "wandb", "batch_size",
    "accumulate", "lifting_layers",
)  # fmt: skip
"""The body's name is the place of a file; whether it is the same body, `body_answer` tells."""


class AveragedWeights:
    """Exponential moving average of the weights that learn."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        # Early on the average is short, so that it does not remember the random start.
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        torch._foreach_lerp_(list(self.values.values()), [learning[name] for name in self.values], 1 - decay)

    def in_place_of(self, model: nn.Module) -> _Swapped:
        """Context in which `model` has the averaged weights."""
        return _Swapped(model, self.values)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])


class _Swapped:
    def __init__(self, model: nn.Module, values: dict[str, Tensor]):
        self.parameters = {name: p for name, p in model.named_parameters() if name in values}
        self.values = values

    def __enter__(self) -> None:
        self.kept = {name: p.detach().clone() for name, p in self.parameters.items()}
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.values[name])

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(self.kept[name])


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Of this process: the generators that a step draws from."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(states: list[dict[str, Tensor]], group: Group, seed: int, step: int) -> None:
    """As saved; of a run that goes on with another number of processes, which has no saved one, as good as new."""
    if len(states) != group.place.world:
        torch.manual_seed(seed_of(hash((seed, step)), group.place))
        return
    state = states[group.place.rank]
    try:
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and group.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], group.device)
    except (RuntimeError, TypeError) as error:
        raise BadInput(f"{STATE}: its random state is damaged ({error}). Choose an empty folder.") from error


def samples_per_step(config: TrainConfig, world: int) -> int:
    """Pictures that all processes together see in a step."""
    return config.batch_size * config.accumulate * world


def body_answer(body: BodyModel) -> Tensor:
    """Where this body's joints (144, 3) are in one pose of one person, on the CPU: another body gives other numbers,
    another copy of its file the same."""
    generator = torch.Generator().manual_seed(0)
    axes = 0.2 * torch.randn(1, 55, 3, generator=generator)
    like = body.template
    betas, expression = (torch.randn(1, 10, generator=generator).to(like) for _ in range(2))
    with torch.no_grad():
        posed = body.from_matrices(axis_angle_to_matrix(axes).to(like), betas, expression)
    return posed.joints[0].float().cpu()


def read_state(path: Path, config: TrainConfig, world: int, body: BodyModel) -> dict[str, Any]:
    """What a run saved.

    Raises:
        BadInput: it is no saved run, or one of another configuration or body; says what differs.
    """
    try:
        check_pickles(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        saved = config_from_table(json.loads(state["config"]), source=str(path))
        before = state.get("world", 1)
        if not all(isinstance(state.get(key), kind) for key, kind in _KEYS.items()) or not isinstance(before, int):
            raise ValueError("a part is missing")
        if not all(isinstance(one, dict) and isinstance(one.get("cpu"), Tensor) for one in state["random"]):
            raise ValueError("the state of the random numbers is missing")
        if not isinstance(state.get("body", torch.empty(0)), Tensor):
            raise ValueError("the body is missing")
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise BadInput(f"{path}: not a saved run of this version. Choose an empty folder.") from error
    changed = differences(_what_is_computed(saved, before), _what_is_computed(config, world))
    if "body" in state:  # one file may be named in several ways, and another may lie where it was
        answer = body_answer(body)
        if state["body"].shape != answer.shape or not torch.allclose(state["body"], answer, atol=1e-4):
            changed.append(f"body {saved.body} then, another one now ({config.body})")
    elif saved.body != config.body:
        changed.append(f"body {saved.body} then, {config.body} now")
    if changed:
        raise BadInput(
            f"{path} belongs to a run with another configuration: {', '.join(changed)}."
            " Choose another folder, or the same configuration."
        )
    return state


def _what_is_computed(config: TrainConfig, world: int) -> dict[str, Any]:
    """The settings that decide the weights."""
    table = config_to_table(config)
    for key in _MAY_CHANGE:
        del table[key]
    for source, keys in (("data", ("layers", "hdri", "backgrounds")), ("people", ("root", "index"))):
        for key in keys:
            (table[source] or {}).pop(key, None)
    plain: dict[str, Any] = json.loads(json.dumps(table))
    return plain | {"samples a step (batch_size × accumulate × devices)": samples_per_step(config, world)}
