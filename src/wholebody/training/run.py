"""What a run keeps and where it goes on: its folder, weights, snapshots and measurements, and the state to resume by.

How it learns: `loop`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from wholebody.errors import BadInput
from wholebody.files.npz import DAMAGED
from wholebody.files.text import brief
from wholebody.files.whole import write_whole
from wholebody.model.checkpoint import write_torch
from wholebody.model.network import Network
from wholebody.training.config import TrainConfig, config_to_table
from wholebody.training.log import Log, write_code
from wholebody.training.network import trained_for
from wholebody.training.norms import KeptStatistics
from wholebody.training.own.places import SightBatches
from wholebody.training.own.poses import LiftingBatches
from wholebody.training.processes import Group, Signals, Stopped
from wholebody.training.requeue import requeue
from wholebody.training.state import (
    STATE,
    AveragedWeights,
    body_answer,
    random_state,
    read_state,
    samples_per_step,
)

Batch = dict[str, Any]


@dataclass
class KeptRun:
    """A training run, and what is kept of it."""

    config: TrainConfig
    folder: Path
    group: Group
    data: Dataset | None
    epoch_length: int
    """Samples in an epoch."""
    steps: int
    model: Network
    learner: Any
    """The `Learner`: from a batch and poses to losses."""
    optimizer: torch.optim.Optimizer
    average: AveragedWeights | None
    log: Log
    signals: Signals | None = None
    lifting: LiftingBatches | SightBatches | None = None
    frozen: Sequence[nn.Module] = ()
    """Parts that stay as they are."""
    step: int = 0
    skipped: int = 0
    """Steps that were left out because something was not finite."""
    stopped_by: int = 0
    """The number of the signal that any process of the run got."""
    parallel: nn.parallel.DistributedDataParallel | None = None
    """The learner with its gradients averaged over the processes, where there are several."""
    statistics: KeptStatistics = field(init=False)

    def __post_init__(self) -> None:
        self.statistics = KeptStatistics(self.model)

    @property
    def samples(self) -> int:
        """Pictures that all processes together see in a step."""
        return samples_per_step(self.config, self.group.place.world)

    def to_device(self, batch: Batch) -> Batch:
        device = self.group.device
        return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def measure(self) -> None:
        """Errors of the averaged weights on held-out people, and a sheet of predictions."""
        from wholebody.evaluation.synthetic import measure_layers

        heldout, data = self.config.heldout, self.config.data
        assert heldout is not None
        if not self.group.main:
            return
        with self._averaged():
            self.model.eval()
            sheet = self.folder / "vis" / f"step_{self.step:06d}.jpg"
            errors = measure_layers(self.model, heldout.layers, heldout.count, data.hdri if data else None, sheet=sheet)
        self.log.errors(self.step, errors)

    def _averaged(self) -> Any:
        return nullcontext() if self.average is None else self.average.in_place_of(self.model)

    def save(self) -> None:
        """Write `model.safetensors` and `last.pt`, in this order.

        A run killed while saving finds the state before, does the steps since again, and writes both again.

        Raises:
            OutputError: they could not be written.
        """
        random = self.group.gather(random_state(self.group.device))

        def write() -> None:
            state = {
                "config": json.dumps(config_to_table(self.config)),
                "world": self.group.place.world,
                "body": body_answer(self.learner.body),
                "step": self.step,
                "skipped": self.skipped,
                "model": self.model.state_dict(),
                "average": self.average.state_dict() if self.average else None,
                "optimizer": self.optimizer.state_dict(),
                "random": random,
            }
            self._write_weights(self.folder / "model.safetensors", {})
            write_torch(self.folder / STATE, state)

        self.group.first_alone(write)

    def _write_weights(self, path: Path, extra: dict[str, Any]) -> None:
        from wholebody.model.checkpoint import save

        conventions, licence = trained_for(self.config, self.learner.body)
        extra = {"step": self.step, "samples": self.step * self.samples, **extra}
        with self._averaged():
            save(self.model, path, conventions, licence, extra)

    def snapshot_number(self) -> int | None:
        """Under which number the weights of this step are kept: the epoch's, counted from 0, or the step's."""
        every, ends = self.config.snapshot_every, self.step == self.steps
        if not self.config.epochs:
            return self.step if ends or (every and self.step % every == 0) else None
        before, after = self._epochs_done(self.step - 1), self._epochs_done(self.step)
        if before == after:
            return None
        return after - 1 if ends or any(n % (every or 1) == 0 for n in range(before, after)) else None

    def _epochs_done(self, step: int) -> int:
        if step == self.steps:
            return self.config.epochs
        return step * self.samples // self.epoch_length

    def save_snapshot(self, number: int, batch: Batch) -> None:
        """Keep the weights as `model_dump/snapshot_{number}.safetensors`, and a picture of what they say of a batch."""
        from PIL import Image

        from wholebody.model.checkpoint import convert

        def write() -> None:
            extra = {"epoch": number} if self.config.epochs else {}
            snapshot = self.folder / "model_dump" / f"snapshot_{number}.safetensors"
            self._write_weights(snapshot, extra)
            if self.config.published_form:
                convert(snapshot, snapshot.with_suffix(".pth.tar"))
            self.model.eval()
            with self._averaged():
                picture = self.learner.draw(self.to_device(batch))
            if picture is not None:
                path = self.folder / "vis" / f"epoch_{number:03d}.jpg"
                write_whole(path, lambda part: Image.fromarray(picture).save(part, "JPEG", quality=90))

        self.group.first_alone(write)

    def take_up(self, recipe: Path | None) -> list[dict[str, Tensor]] | None:
        """Take up the run in the folder, if there is one: the random states of its processes."""
        path = self.folder / STATE
        body, world = self.learner.body, self.group.place.world
        state = read_state(path, self.config, world, body) if path.exists() else None
        self.group.first_alone(lambda: write_code(self.config, self.folder, recipe))
        if state is None:
            return None
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except DAMAGED as error:
            raise BadInput(
                f"{path}: what it holds does not fit this run's network ({brief(str(error), 200)}). Choose another "
                "folder."
            ) from error
        self.step, self.skipped = state["step"], state["skipped"]
        return state["random"]

    def stop(self) -> None:
        """Say that a signal ended this sitting, and ask Slurm for another one."""
        import signal

        asked = requeue(self.stopped_by) if self.group.main else ""
        name = signal.Signals(self.stopped_by).name
        message = f"stopped by {name} after step {self.step} of {self.steps}; saved in {self.folder}. " + (
            asked or "The same command with this --out goes on."
        )
        self.log.say(message)
        raise Stopped(message, 128 + self.stopped_by)

    def close(self) -> None:
        """The end of this sitting, before its processes part.

        What shares the gradients must not outlive the processes' group: freeing that would then wait, holding Python's
        lock, for a thread of gloo that may want the lock (https://github.com/pytorch/pytorch/issues/56297).
        """
        self.parallel = None
        self.log.close()
