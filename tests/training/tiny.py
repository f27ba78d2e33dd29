"""A published network small enough to train in a moment, and data for it: what the tests of runs share.

Also the entry point of processes that tests start and kill: `run_in_process` trains with the made-up data.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import types
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from wholebody.model.checkpoint import Conventions, save
from wholebody.model.config import FACE, HANDS, HANDS_WITHOUT_DECODER, OSXConfig
from wholebody.model.decoder import DecoderConfig
from wholebody.model.encoder import ViTConfig
from wholebody.model.families import build_network
from wholebody.model.smplest_x import TASK_TOKENS, SMPLestXConfig, TokenDecoderConfig
from wholebody.training import loop

FILL = Path(__file__).parents[1] / "oracle" / "fill.py"
RECIPE = """
name = "tiny"
family = "{family}"
network = "small"
objective = "published"
start_from = "{start}"
batch_size = 2
epochs = 2
learning_rate = 1e-4
final_learning_rate = 1e-6
warmup_steps = 0
weight_decay = 0.0
clip_norm = 0.0
fan_in_scaling = false
ema_decay = 0.9
precision = "fp32"
vertices = 2
threads = 1
workers = 0
save_every = 1
log_every = 1

[people]
root = "nowhere"
targets = "published"
sets = [{{ name = "MSCOCO" }}]
"""


def write_recipe(
    folder: Path, drop_path: float = 0.3, variant: str = "normal", name: str = "small", family: str = "osx"
) -> Path:
    """A recipe that starts from a tiny network of a variant or family."""
    start = write_start(folder, drop_path, variant, name, family=family)
    (folder / "tiny.toml").write_text(RECIPE.format(start=start, family=family))
    return folder / "tiny.toml"


def write_start(
    folder: Path, drop_path: float = 0.3, variant: str = "normal", name: str = "small", body: str = "open",
    family: str = "osx",
) -> Path:  # fmt: skip
    """A checkpoint of a tiny network."""
    torch.manual_seed(0)
    network = build_network(tiny_config(drop_path, variant, name, family))
    save(network, folder / "start.safetensors", Conventions(body=body, flat_hand_mean=False))
    return folder / "start.safetensors"


def tiny_config(
    drop_path: float = 0.3, variant: str = "normal", name: str = "small", family: str = "osx"
) -> OSXConfig | SMPLestXConfig:
    """What a tiny network is made of."""
    encoder = ViTConfig(width=32, depth=2, heads=2, drop_path=drop_path)
    if family == "smplest_x":
        tokens = TokenDecoderConfig(layers=2, heads=2, head_width=8, hidden=32, out=16)
        return SMPLestXConfig(name=name, encoder=dataclasses.replace(encoder, tokens=TASK_TOKENS), decoder=tokens)
    if family == "smpler_x":
        variant = "wo_decoder"
    decoder = DecoderConfig(width=32, layers=1, heads=4, points=2, ffn=48, norm_groups=8, dropout=drop_path / 3)
    return OSXConfig(
        name=name,
        family=family,
        encoder=encoder,
        hands=HANDS_WITHOUT_DECODER if variant == "wo_decoder" else dataclasses.replace(HANDS, decoder=decoder),
        face=dataclasses.replace(FACE, decoder=decoder) if variant == "normal" else None,
        hidden=16,
        box_channels=(8, 8, 8),
    )


class MadeUp(Dataset):
    """As `PeopleDataset`: sample n is a function of n; uint8 pictures and the keys of the published loader."""

    LENGTH = 8
    poison: int = -1
    """The number of a sample whose truth is not finite."""

    def __init__(self) -> None:
        import runpy

        self.train_batch = runpy.run_path(str(FILL))["train_batch"]

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        truth, masks = self.train_batch(2, seed=number)
        sample = {name: np.asarray(value[1], np.float32) for name, value in {**truth, **masks}.items()}
        rng = np.random.default_rng(number)
        picture = rng.integers(0, 255, (16, 12, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        if number == self.poison:
            sample["smplx_shape"][:] = np.inf
        return {"image": picture, **sample}

    def person(self, number: int) -> types.SimpleNamespace:
        return types.SimpleNamespace(dataset="MadeUp", id=f"person{number}")


def open_made_up(*_: object) -> tuple[Dataset, int]:
    return MadeUp(), MadeUp.LENGTH


def run_in_process(recipe: str, out: str, overrides: tuple[str, ...] = (), place: dict[str, str] | None = None) -> None:
    """Train with the made-up data, in a process of its own; place: RANK, WORLD_SIZE, ... of one among several."""
    loop.open_data = open_made_up
    run_recipe_in_process(recipe, out, overrides, place)


def run_recipe_in_process(
    recipe: str, out: str, overrides: tuple[str, ...] = (), place: dict[str, str] | None = None
) -> None:
    """The same with the data that the recipe names."""
    from wholebody.training.launch import Stopped

    os.environ.update(place or {})
    sys.setswitchinterval(60)  # threads wait for each other as long as they can: a deadlock at the end is no rare one
    if "DOUBLE" in os.environ:
        compute_in_double_precision()
    try:
        loop.train(recipe, overrides, out)
    except Stopped as stopped:
        raise SystemExit(stopped.exit_status) from stopped


class Killed(Exception):
    """Stands for whatever ends a process."""


def train_and_kill(recipe: str | Path, overrides: Sequence[str], out: Path, step: int) -> None:
    """Train in this process until so many steps are done; then the run is killed."""
    learn = loop.Run.learn

    def learn_or_die(run: loop.Run, batches: Any) -> None:
        if run.step == step:
            raise Killed
        learn(run, batches)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop.Run, "learn", learn_or_die)
        loop.train(recipe, overrides, out)


def compute_in_double_precision() -> None:
    """From here on, in this process: so that nothing hides behind rounding, which Adam blows up."""
    new_network, load = loop.new_network, loop.BodyModel.load
    loop.new_network = lambda config: new_network(config).double()
    loop.BodyModel.load = partial(load, dtype=torch.float64)
