"""The state of a run: its steps, what it keeps and where it goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wholebody.files.whole import write_whole
from wholebody.model.checkpoint import write_torch
from wholebody.model.osx import OSX
from wholebody.training.config import TrainConfig, config_to_table
from wholebody.training.log import Log, write_code
from wholebody.training.network import trained_for
from wholebody.training.norms import KeptStatistics
from wholebody.training.own.places import SightBatches
from wholebody.training.own.poses import LiftingBatches
from wholebody.training.processes import Group, NotFinite, Signals, Stopped
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
class Run:
    """The state of a training run and what it does with it."""

    config: TrainConfig
    folder: Path
    group: Group
    data: Dataset | None
    epoch_length: int
    """Samples in an epoch."""
    steps: int
    model: OSX
    learner: Any
    """The `Learner`: from a batch and poses to losses."""
    optimizer: torch.optim.Optimizer
    average: AveragedWeights | None
    log: Log
    signals: Signals | None = None
    lifting: LiftingBatches | SightBatches | None = None
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

    def batches(self) -> Iterator[list[Batch]]:
        """The batches of each step, from the sample after the last one that was learnt from.

        The samples of a step are the next so many of the data; batch after batch, each process takes its part.
        """
        config = self.config
        if self.data is None:  # key points alone
            yield from ([Batch()] for _ in range(self.step, self.steps))
            return
        places: Any = [range(*place) for step in range(self.step, self.steps) for place in self._places(step)]
        loader = DataLoader(
            self.data,
            batch_sampler=places,
            num_workers=config.workers,
            worker_init_fn=_quiet_worker,
            prefetch_factor=4 if config.workers else None,
            pin_memory=self.group.device.type == "cuda",
            generator=torch.Generator(),  # else making the loader would draw from the random state that is resumed
        )
        batches: list[Batch] = []
        for batch in loader:
            batches.append(batch)
            if len(batches) == config.accumulate:
                yield batches
                batches = []

    def _places(self, step: int) -> list[tuple[int, int]]:
        """First sample and one past the last of each batch of a step, in this process."""
        size, world, rank = self.config.batch_size, self.group.place.world, self.group.place.rank
        numbers = range(step * self.config.accumulate, (step + 1) * self.config.accumulate)
        return [((n * world + rank) * size, (n * world + rank + 1) * size) for n in numbers]

    def _names(self, step: int) -> str:
        """The people that this process saw in a step, where the data knows their names."""
        person_of = getattr(self.data, "person", None)
        if person_of is None:
            return ""
        people = [person_of(n) for place in self._places(step) for n in range(*place)]
        return f" ({', '.join(f'{person.dataset} {person.id}'.strip() for person in people)})"

    def learn(self, batches: Sequence[Batch]) -> None:
        """One step: forward, losses, backward for each batch; clipped AdamW; averaged weights."""
        config = self.config
        self.model.train()
        self.statistics.keep()
        rate = learning_rate(self.step, self.steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                terms = (self.parallel or self.learner)(self._to_device(batch), self._poses())
                (torch.stack(list(terms.values())).sum() / len(batches)).backward()
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach() / len(batches)
        loss = torch.stack(list(sums.values())).sum()
        learning = [p for p in self.model.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(learning, config.clip_norm or math.inf)
        finite = bool((loss + norm).isfinite())
        infinite, self.stopped_by = self.group.largest(int(not finite), self.signals.received if self.signals else 0)
        self.step += 1
        if infinite:
            self._leave_out(batches, sums, norm)
            return
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        self.log.step(self.step, loss, sums, {"learning_rate": rate, "gradient_norm": norm})

    def _to_device(self, batch: Batch) -> Batch:
        device = self.group.device
        return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _poses(self) -> Batch:
        if self.lifting is None:
            return {}
        return self._to_device(self.lifting.batch(self.step, self.config.lifting_batch_size))

    def _leave_out(self, batches: Sequence[Batch], terms: dict[str, Tensor], norm: Tensor) -> None:
        """Forget a step that is not finite, keep what it was computed from, and stop if that happens too often."""
        self.statistics.put_back()
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        bad = [name for name, term in terms.items() if not term.isfinite()]
        what = f"{', '.join(bad)} not finite" if bad else f"the gradient's norm is {float(norm)}"
        which = f"samples {', '.join(f'{first} to {last - 1}' for first, last in self._places(self.step - 1))}"
        path = self.folder / "result" / f"not_finite_step_{self.step:06d}_rank_{self.group.place.rank}.pt"
        everyone = self.group.gather(bool(bad))
        if bad or not any(everyone):
            write_torch(path, {"batches": list(batches), "terms": terms})
            which += self._names(self.step - 1)
        # The word of the first process that has something wrong.
        told = self.group.gather(f"step {self.step}: {what}; {which}; kept in {path}")
        message = told[everyone.index(True) if any(everyone) else 0]
        self.log.say(f"left out: {message}")
        if self.skipped > self.config.allowed_skips:
            raise NotFinite(
                f"{message}. {self.skipped} of {self.config.allowed_skips} allowed steps left out. Look at the batch "
                "(torch.load); a lower learning_rate, precision=fp32 or allowed_skips=N may carry the run over it."
            )

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
        """Write `last.pt` and `model.safetensors`; a run killed while saving still finds the files before.

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
            write_torch(self.folder / STATE, state)
            self._write_weights(self.folder / "model.safetensors", {})

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
                picture = self.learner.draw(self._to_device(batch))
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
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
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


def parameter_groups(
    model: nn.Module, weight_decay: float, width: int | None, trunk_rate: float = 1.0
) -> list[dict[str, Any]]:
    """Optimiser groups: matrices decay, biases, norms and embeddings do not; `scale` multiplies the learning rate.

    Adam moves every weight by about the learning rate, so a layer's output moves by that times its fan-in. Layers that
    read more than `width` numbers (heads that read all joints at once) learn slower in proportion, unless it is None.
    `trunk_rate` is the scale of what a pre-trained trunk lets learn.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        matrix = parameter.ndim > 1
        scale = min(1.0, width / (parameter.numel() // parameter.shape[0])) if matrix and width else 1.0
        if name.startswith("encoder.trunk."):
            scale *= trunk_rate
        groups.setdefault((scale, weight_decay if matrix else 0.0), []).append(parameter)
    return [{"params": found, "weight_decay": decay, "scale": scale} for (scale, decay), found in groups.items()]


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to the final rate at the last of `steps`."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress))


def _quiet_worker(_: int) -> None:
    import cv2

    # Loaders share the cores with the network; threads of their own would only take turns with it.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
