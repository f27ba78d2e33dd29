"""`wholebody train`: the run in this process, or in one per device that are started for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from wholebody.errors import BadInput
from wholebody.training.config import new_folder, read_config
from wholebody.training.loop import train
from wholebody.training.processes import Place, Stopped, start_processes

__all__ = ["Stopped", "launch"]


def launch(
    recipe: str | Path, overrides: Sequence[str], out: str | Path | None, devices: int = 1, nodes: int = 1
) -> Path | None:
    """Train in this process, or start one per device and wait for them. The run's folder; None in all but the first
    process of a run.

    Raises what `wholebody.training.loop.train` raises, and Stopped with their exit status if processes that were
    started failed (they have said why).
    """
    if devices < 1 or nodes < 1:
        raise BadInput(f"--devices {devices} --nodes {nodes}: both are at least 1")
    place = Place.of_environment()
    if place is not None or devices * nodes == 1:
        folder = train(recipe, overrides, out)
        return folder if place is None or place.rank == 0 else None
    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise BadInput(f"--devices {devices}, and this machine has {torch.cuda.device_count()} GPUs")
    name = read_config(recipe, overrides).name  # what is wrong with the recipe is said once, here
    folder = Path(out or new_folder(name))
    command = [sys.executable, "-m", "wholebody.cli", "train", str(recipe), *overrides, "--out", str(folder)]
    if status := start_processes(command, devices, nodes):
        raise Stopped("the run ended before it was done; its processes say above why", status)
    return folder
