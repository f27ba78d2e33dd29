"""Training from top to bottom: what is put together, what a step does, how its losses come about, how fast it learns.

One process per device; a run that was stopped goes on exactly where it was.

A run is its folder: `code` (the config as run, who ran it and how), `last.pt` (everything that a resumed run needs),
`model.safetensors` (the weights, what `load_model` takes), `model_dump/snapshot_{N}.safetensors` (the same after epoch
N), `log` and `metrics.jsonl`, `vis` (pictures of predictions) and `result`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from wholebody.body.layer import BodyModel
from wholebody.data.dataset import PeopleDataset
from wholebody.data.framing import Targets, both
from wholebody.data.mesh_joints import MeshJoints
from wholebody.model.checkpoint import write_torch
from wholebody.model.embedded.build import build_sighted
from wholebody.model.embedded.movenet import load_movenet
from wholebody.model.embedded.thunder import load_thunder_trunk
from wholebody.model.families import build_network
from wholebody.model.load import EMBEDDED, find_weights
from wholebody.model.network import Network
from wholebody.model.prediction import PartBoxes, Prediction
from wholebody.synthesis.sets.crops import CROP_HW, TrainingCrops
from wholebody.training.config import PeopleConfig, TrainConfig, new_folder, people_of, read_config
from wholebody.training.log import Log
from wholebody.training.network import check_start, freeze, load_encoder, network_config, prepare_encoder
from wholebody.training.norms import share_statistics
from wholebody.training.own.batch import lifter_of, lifting_losses, picture_losses
from wholebody.training.own.places import PlaceBatches, SightBatches
from wholebody.training.own.poses import LiftingBatches
from wholebody.training.own.targets import crop_targets
from wholebody.training.processes import ALONE, Group, NotFinite, Signals, processes, seed_of, share_gradients
from wholebody.training.published.batch import draw_batch, published_terms
from wholebody.training.published.targets import PublishedTargetsOf
from wholebody.training.recipes import filled, find_recipe
from wholebody.training.run import Batch, KeptRun
from wholebody.training.state import AveragedWeights, samples_per_step, set_random_state


def train(recipe: str | Path, overrides: Sequence[str] = (), out: str | Path | None = None) -> Path:
    """Train as `recipe` says, or go on with the run in `out` where it stopped. Returns the run's folder.

    Called in each of the processes that torchrun, srun or `wholebody train --devices` start; alone otherwise.

    Args:
        recipe: a TOML file; see `TrainConfig`.
        overrides: `key.subkey=value`.
        out: the run's folder; None: `output/train_{name}_{date_time}`. If it holds a run of the same configuration,
            that run goes on; if of another one, that is an error.

    Raises:
        BadInput: a recipe that cannot be read, or a folder that holds another run.
        NotFinite: losses or gradients that are not finite, more often than the recipe allows.
        Stopped: a signal said so; the run is saved, and requeued where it is a Slurm job.
    """
    config = read_config(recipe, overrides)
    with processes() as group, Signals() as signals:
        folder = Path(group.same(str(out or new_folder(config.name))))
        with closing(start(config, folder, group, signals, find_recipe(recipe))) as run:
            for batches in run.batches():
                run.learn(batches)
                if config.heldout and (run.step % config.heldout.every == 0 or run.step == run.steps):
                    run.measure()
                if (number := run.snapshot_number()) is not None:
                    run.save_snapshot(number, batches[-1])
                # Last: a run that is killed before this does the step again, and writes what belongs to it again.
                if run.step % config.save_every == 0 or run.step == run.steps or run.stopped_by:
                    run.save()
                if run.stopped_by and run.step < run.steps:
                    run.stop()
    return folder


def start(
    config: TrainConfig, folder: Path, group: Group = ALONE, signals: Signals | None = None, recipe: Path | None = None
) -> Run:
    """The parts of a run put together: a new one, or the one in `folder` as it was saved last."""
    if config.threads:
        torch.set_num_threads(config.threads)
        cv2.setNumThreads(config.threads)  # without loader processes, pictures are made in this one
    torch.manual_seed(config.seed)
    data, epoch_length = open_data(config)  # first of all: a recipe names many sets, and all that are missing are named
    body = BodyModel.load(config.body, flat_hand_mean=config.objective == "own")
    samples = samples_per_step(config, group.place.world)
    steps = max(1, config.epochs * epoch_length // samples) if config.epochs else config.steps
    model = new_network(config).to(group.device)
    lifting: LiftingBatches | SightBatches | None = None
    if config.lifting_batch_size:
        assert config.data is not None
        poses, seed = config.lifting_layers or config.data.layers, config.seed + group.place.rank
        lifting = LiftingBatches(poses, seed, CROP_HW)
        if lifter_of(model) is not None:  # type: ignore[arg-type]
            lifting = SightBatches(lifting, PlaceBatches(poses, seed))

    prepare_encoder(model, config)
    frozen = freeze(model, config.fine_tune)
    if config.sync_norms and group.place.world > 1:
        share_statistics(model)
    spread = np.linspace(0, body.num_vertices - 1, config.vertices).astype(int)
    learner = Learner(model, body.subset(np.unique(spread)).to(group.device), config)
    average = AveragedWeights(model, config.ema_decay) if config.ema_decay else None
    width = 1024 if config.fan_in_scaling else None
    groups = parameter_groups(model, config.weight_decay, width, config.trunk_rate)
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)

    log = Log(folder, steps, samples + config.lifting_batch_size * group.place.world, config, group)
    run = Run(
        config, folder, group, data, epoch_length, steps, model, learner, optimizer, average, log, signals, lifting,
        frozen,
    )  # fmt: skip
    random = run.take_up(recipe)
    if group.place.world > 1:
        run.parallel = share_gradients(learner, group, some_unused=config.body_only >= config.batch_size)
    if random is not None:
        set_random_state(random, group, config.seed, run.step)
    elif group.place.rank:
        torch.manual_seed(seed_of(config.seed, group.place))  # what is dropped differs between the processes
    run.log.open(run.step)
    return run


class Run(KeptRun):
    """A training run: the batches of its steps, and how it learns from them."""

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
        for part in self.frozen:
            part.eval()
        self.statistics.keep()
        rate = learning_rate(self.step, self.steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                terms = (self.parallel or self.learner)(self.to_device(batch), self._poses())
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

    def _poses(self) -> Batch:
        if self.lifting is None:
            return {}
        return self.to_device(self.lifting.batch(self.step, self.config.lifting_batch_size))

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


class Learner(nn.Module):
    """From a batch to its losses: what is run in each process, and averaged over them."""

    def __init__(self, model: Network, body: BodyModel, config: TrainConfig):
        super().__init__()
        self.model, self.config = model, config
        self._body = (body,)  # kept out of the parts: it has nothing to learn

    @property
    def body(self) -> BodyModel:
        return self._body[0]

    def forward(self, batch: Batch, poses: Batch) -> dict[str, Tensor]:
        """batch: of pictures, {} for none; poses: to be lifted from their key points, {} for none."""
        config, body = self.config, self.body
        terms: dict[str, Tensor] = {}
        if batch and config.objective == "published":
            prediction = predict(self.model, batch["image"], None, config.precision)
            terms |= published_terms(self.model, body, prediction, batch, config.published)
        elif batch:
            terms |= picture_losses(self.model, body, batch, config)  # type: ignore[arg-type]
        if poses:
            terms |= lifting_losses(self.model, body, poses, config.losses)  # type: ignore[arg-type]
        return terms

    @torch.no_grad()
    def draw(self, batch: Batch) -> np.ndarray | None:
        """A picture of what the network says of a batch of data sets; layers have the sheets of `Run.measure`."""
        if self.config.objective != "published":
            return None
        prediction = predict(self.model, batch["image"], None, self.config.precision)
        return draw_batch(self.model, self.body, prediction, batch)


def open_data(config: TrainConfig) -> tuple[Dataset | None, int]:
    """What is learnt from, sample n a function of the seed and n, and how many samples make an epoch."""
    if not config.batch_size:
        return None, 0
    if (sets := people_of(config)) is not None:
        people = PeopleDataset(sets, config.seed, targets=targets_of(sets, config.body))
        return people, people.epoch_length
    assert config.data is not None
    layers = TrainingCrops(config.data, config.seed, 0, crop_targets)
    return layers, len(layers.layers)


def targets_of(people: PeopleConfig, body: str | None) -> Targets:
    """What a network is trained towards on data sets, as their recipe says; body: whose mesh has joints, None: none."""
    if people.targets == "crop":
        return crop_targets
    about = "parts" if people.family == "osx" else "pelvis"
    published = PublishedTargetsOf(MeshJoints(body) if body else None, about)
    return both(crop_targets, published) if people.targets == "both" else published


def new_network(config: TrainConfig) -> Network:
    """The network of a recipe, without a body, with the weights that it starts from."""
    from wholebody.model.checkpoint import load

    if config.start_from:
        start = filled(config.start_from, config.network)
        model, info = load(find_weights(start) if start in EMBEDDED else start)
        check_start(config, info)
    elif config.network == "t":
        model = build_sighted()
        load_movenet(model.encoder.trunk)  # type: ignore[arg-type]
        load_thunder_trunk(model.encoder.thunder.trunk)  # type: ignore[arg-type, union-attr]
        model.body_positions.lifter.skeleton.measure(BodyModel.load(config.body))  # type: ignore[union-attr, operator]
    else:
        model = build_network(network_config(config))
        if config.encoder_from:
            load_encoder(model, filled(config.encoder_from, config.network))
    return model.to(memory_format=torch.channels_last) if config.network == "t" else model  # type: ignore


def predict(model: Network, images: Tensor, boxes: PartBoxes | None, precision: str) -> Prediction:
    """Network outputs for pictures B×H×W×3, uint8 or in [0, 1]."""
    pictures = images.permute(0, 3, 1, 2).to(next(model.parameters()).dtype)
    if images.dtype == torch.uint8:
        pictures = pictures.div(255)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model.regress(pictures, boxes)


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
