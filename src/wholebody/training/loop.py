"""The training loop: one process, resumable to the bit, readable from top to bottom.

A run is its folder: `config.json` (as run), `last.pt` (everything that a resumed run needs), `model.safetensors` (the
averaged weights, what `load_model` takes), `metrics.jsonl`, TensorBoard events and pictures of predictions.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from wholebody.body.joints import PARTS_137, ROTATIONS_53_FROM_55
from wholebody.body.layer import BodyModel
from wholebody.data.crops import CROP_HW, TrainingCrops
from wholebody.data.lifting import LiftingBatches
from wholebody.errors import BadInput
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.movenet import read_movenet_state
from wholebody.model.osx import OSX, PartBoxes, Prediction, build_osx
from wholebody.model.small import SMALL
from wholebody.model.trunk import fuse_frozen
from wholebody.training.config import TrainConfig, config_from_table, config_to_table, read_config
from wholebody.training.objectives import (
    Cells,
    LossWeights,
    Outputs,
    masked_mean,
    objective,
    relative_joints_loss,
    rotation_loss,
)


def train(recipe: str | Path, overrides: Sequence[str] = (), out: str | Path | None = None) -> Path:
    """Train as `recipe` says, or go on with the run in `out` where it stopped. Returns the run's folder.

    Args:
        recipe: a TOML file; see `TrainConfig`.
        overrides: `key.subkey=value`.
        out: the run's folder; None: `output/train_{name}_{date_time}`. If it holds a run of the same configuration,
            that run goes on; if of another one, that is an error.

    Raises:
        BadInput: a recipe that cannot be read, or a folder that holds another run.
    """
    config = read_config(recipe, overrides)
    folder = Path(out) if out else Path("output") / f"train_{config.name}_{datetime.now():%Y%m%d_%H%M%S}"
    run = Run.start(config, folder)
    for batch in run.batches():
        run.learn(batch)
        if run.step % config.heldout.every == 0 or run.step == config.steps:
            run.measure()
        if run.step % config.save_every == 0 or run.step == config.steps:
            run.save()
    run.close()
    return folder


@dataclass
class Run:
    """The state of a training run and what it does with it."""

    config: TrainConfig
    folder: Path
    model: OSX
    average: AveragedWeights
    body: BodyModel
    optimizer: torch.optim.Optimizer
    log: Log
    lifting: LiftingBatches | None = None
    step: int = 0

    @classmethod
    def start(cls, config: TrainConfig, folder: Path) -> Run:
        """A new run, or the one in `folder` as it was saved last."""
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        model = new_network(config)
        average = AveragedWeights(model, config.ema_decay)
        body = BodyModel.load(flat_hand_mean=True)
        spread = np.linspace(0, body.num_vertices - 1, config.vertices).astype(int)
        groups = parameter_groups(model, config.weight_decay, model.config.encoder.width)
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        run = cls(config, folder, model, average, body.subset(np.unique(spread)), optimizer, Log(folder, config.steps))
        if config.lifting_batch_size:
            run.lifting = LiftingBatches(config.data.layers, config.seed, CROP_HW)
        run._resume()
        run.log.open(run.step)
        return run

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """From the sample after the last one that was learnt from."""
        config = self.config
        if not config.batch_size:  # key points alone
            yield from ({} for _ in range(self.step, config.steps))
            return
        total = config.steps * config.batch_size
        loader = DataLoader(
            TrainingCrops(config.data, config.seed, total),
            batch_size=config.batch_size,
            sampler=range(self.step * config.batch_size, total),
            num_workers=config.workers,
            worker_init_fn=_quiet_worker,
            prefetch_factor=4 if config.workers else None,
            generator=torch.Generator(),  # else making the loader would draw from the random state that is resumed
        )
        yield from loader

    def learn(self, batch: dict[str, Tensor]) -> None:
        """One step: forward, losses, backward, clipped AdamW, averaged weights."""
        self.model.train()
        device = next(self.model.parameters()).device
        batch = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        terms: dict[str, Tensor] = {}
        if batch:
            boxes = true_boxes(batch["boxes"], batch["box_valid"], self.config.true_box_probability)
            prediction = predict(self.model, batch["image"], boxes, self.config.precision)
            terms |= losses(self.model, self.body, prediction, batch, self.config.losses)
        if self.lifting is not None:
            poses = self.lifting.batch(self.step, self.config.lifting_batch_size)
            poses = {key: value.to(device) for key, value in poses.items()}
            terms |= lifting_losses(self.model, self.body, poses, self.config.losses, self.config.precision)
        loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learning = [p for p in self.model.parameters() if p.requires_grad]
        norm = torch.nn.utils.clip_grad_norm_(learning, self.config.clip_norm, error_if_nonfinite=True)
        self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        samples = self.config.batch_size + self.config.lifting_batch_size
        self.log.step(self.step, samples, loss, terms, {"learning_rate": rate, "gradient_norm": norm})

    def measure(self) -> None:
        """Errors of the averaged weights on held-out people, and a sheet of predictions."""
        from wholebody.evaluation.synthetic import measure_layers

        with self.average.in_place_of(self.model):
            self.model.eval()
            heldout = self.config.heldout
            sheet = self.folder / "vis" / f"step_{self.step:06d}.jpg"
            errors = measure_layers(self.model, heldout.layers, heldout.count, self.config.data.hdri, sheet=sheet)
        self.log.errors(self.step, errors)

    def save(self) -> None:
        """Write `last.pt` and `model.safetensors`; a run killed while saving still finds the files before."""
        from wholebody.model.checkpoint import Conventions, save

        state = {
            "config": json.dumps(config_to_table(self.config)),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        partial = self.folder / ".last.pt.partial"
        try:
            torch.save(state, partial)
            os.replace(partial, self.folder / "last.pt")
        finally:
            partial.unlink(missing_ok=True)
        with self.average.in_place_of(self.model):
            conventions = Conventions(body="open", flat_hand_mean=True)
            extra = {"step": self.step, "samples": self.step * self.config.batch_size}
            save(self.model, self.folder / "model.safetensors", conventions, extra=extra)

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            _write_config(self.config, self.folder)
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            config = config_from_table(json.loads(state["config"]), source=str(path))
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise BadInput(f"{path}: not a saved run of this version. Choose an empty folder.") from error
        if _what_is_computed(config) != _what_is_computed(self.config):
            raise BadInput(
                f"{path} belongs to a run with another configuration: {_difference(config, self.config)}."
                " Choose another folder, or the same configuration."
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]

    def close(self) -> None:
        self.log.close()


def new_network(config: TrainConfig) -> OSX:
    """The network of a recipe, on the open body, with the weights that it starts from."""
    from wholebody.model.checkpoint import load

    if config.network != "t":
        raise BadInput(f"network is {config.network!r}; only 't' can be trained on the open body")
    if config.start_from:
        model, _ = load(config.start_from)
    else:
        model = build_osx(SMALL)
        model.encoder.trunk.load_state_dict(read_movenet_state())  # type: ignore[union-attr]
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.precision == "bf16":
        fuse_frozen(model.encoder.trunk)  # type: ignore[arg-type]
    return model


def predict(model: OSX, images: Tensor, boxes: PartBoxes | None, precision: str) -> Prediction:
    """Network outputs for uint8 pictures B×H×W×3."""
    pictures = images.permute(0, 3, 1, 2).float().div(255)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return model.regress(pictures, boxes)


def losses(
    model: OSX, body: BodyModel, prediction: Prediction, batch: dict[str, Tensor], weights: LossWeights
) -> dict[str, Tensor]:
    """Every weighted term for a batch of `TrainingCrops`; `body` gives the vertices to compare."""
    height, width = CROP_HW
    depth, rows, columns = model.config.grid
    cell = height / rows
    p = prediction
    mesh = body.from_matrices(_tree_rotations(p.rotations), p.betas, p.expression)
    with torch.no_grad():
        truth = body.from_matrices(_tree_rotations(batch["rotations"]), batch["betas"], batch["expression"])
    joints = body.joints_137(mesh.joints)
    hands, face = model.hands, model.face
    return objective(
        Outputs(
            rotations=p.rotations,
            betas=p.betas,
            expression=p.expression,
            joints=joints,
            vertices=mesh.vertices,
            projected=model.project(joints + p.cam_trans[:, None]) * cell,
            body_positions=p.body_cells,
            hand_positions=torch.stack([p.left_hand_box_cells, p.right_hand_box_cells], 1),
            face_positions=p.face_box_cells,  # type: ignore[arg-type]
            box_centres=p.box_centers_cells * cell,
            box_sizes=p.box_sizes_cells * cell,
            roi_boxes=torch.stack([p.left_hand_box, p.right_hand_box, p.face_box], 1),
        ),
        batch | {"joints_cam": body.joints_137(truth.joints)},
        truth.vertices,
        weights,
        CROP_HW,
        Cells(
            body=(columns, rows, depth),
            hands=(hands.side, hands.side, hands.depth),
            face=(face.side, face.side, model.config.face.depth),  # type: ignore[union-attr, arg-type]
        ),
    )


def lifting_losses(
    model: OSX, body: BodyModel, poses: dict[str, Tensor], weights: LossWeights, precision: str
) -> dict[str, Tensor]:
    """The body's terms for a batch of `LiftingBatches`; hands and jaw, which key points do not show, are the true ones.

    The body head also reads joint positions off the feature map. Without a picture it gets the true ones in the plane,
    moved a little, and no depth.
    """
    height, width = CROP_HW
    depth, rows, columns = model.config.grid
    cells = poses["joints_crop"][:, PARTS_137["body"]] / poses["joints_crop"].new_tensor([width, height])
    cells = cells.clamp(0, 1) + 0.015 * torch.randn_like(cells)
    cells = torch.cat([cells * cells.new_tensor([columns, rows]), torch.full_like(cells[..., :1], depth / 2)], -1)
    with torch.autocast(cells.device.type, torch.bfloat16, enabled=precision == "bf16"):
        tokens = model.encoder.lift(poses["keypoints"])  # type: ignore[operator]
        body_6d, betas, camera = model.body_head(tokens, cells / model.config.position_unit)
    found = rotation_6d_to_matrix(body_6d.float())
    rotations = torch.cat([found, poses["rotations"][:, 22:]], 1)
    mesh = body.from_matrices(_tree_rotations(rotations), betas.float(), poses["expression"])
    with torch.no_grad():
        truth = body.from_matrices(_tree_rotations(poses["rotations"]), poses["betas"], poses["expression"])
    joints = body.joints_137(mesh.joints)
    projected = model.project(joints + model._camera_translation(camera.float())[:, None]) * (height / rows)
    valid = torch.ones_like(poses["joint_inside"])
    part = PARTS_137["body"]
    off = ((projected - poses["joints_crop"])[:, part] / height).abs().clamp_max(1.0)
    shape = (mesh.vertices - mesh.joints[:, :1]) - (truth.vertices - truth.joints[:, :1])
    w, turned = weights, poses["rotations"]
    return {
        "lift_root": w.root_rotation * rotation_loss(found[:, :1], turned[:, :1], valid[:, :1]),
        "lift_body": w.body_rotation * rotation_loss(found[:, 1:], turned[:, 1:22], valid[:, 1:22]),
        "lift_betas": w.betas * (betas - poses["betas"]).square().mean(),
        "lift_joints": w.joints * relative_joints_loss(joints, poses["joints_cam"], part, 0, valid),
        "lift_vertices": w.vertices * shape.abs().mean(),
        "lift_projection": w.projection * masked_mean(off, 0.2 + 0.8 * poses["joint_inside"][:, part]),
    }


def true_boxes(boxes: Tensor, valid: Tensor, probability: float) -> PartBoxes:
    """The true boxes as squares, moved and scaled a little, for a random part of the batch."""
    scale = boxes.new_tensor([2.0, 2.0, 1.5])[:, None]
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True)
    side = size * scale * (1 + 0.15 * (2 * torch.rand_like(size) - 1))
    centre = centre + 0.08 * size * (2 * torch.rand_like(centre) - 1)
    given = (torch.rand_like(valid) < probability) & (valid > 0)
    return PartBoxes(torch.cat([centre - side / 2, centre + side / 2], -1), given)


def parameter_groups(model: nn.Module, weight_decay: float, width: int) -> list[dict[str, Any]]:
    """Optimiser groups: matrices decay, biases, norms and embeddings do not; `scale` multiplies the learning rate.

    Adam moves every weight by about the learning rate, so a layer's output moves by that times its fan-in. Layers that
    read many more numbers than the network is wide (the heads read all joints at once) learn slower in proportion.
    """
    groups: dict[float, list[Tensor]] = {}
    plain = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim <= 1:
            plain.append(parameter)
        else:
            fan_in = parameter.numel() // parameter.shape[0]
            groups.setdefault(min(1.0, width / fan_in), []).append(parameter)
    decayed = [{"params": found, "weight_decay": weight_decay, "scale": scale} for scale, found in groups.items()]
    return [*decayed, {"params": plain, "weight_decay": 0.0, "scale": 1.0}]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to the final rate."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    low, high = config.final_learning_rate, config.learning_rate
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress))


def _tree_rotations(rotations_53: Tensor) -> Tensor:
    """B×53×3×3 → B×55×3×3 in the order of the body's tree; eyes look ahead."""
    tree = torch.eye(3, device=rotations_53.device, dtype=rotations_53.dtype).repeat(len(rotations_53), 55, 1, 1)
    return tree.index_copy(1, torch.tensor(ROTATIONS_53_FROM_55, device=rotations_53.device), rotations_53)


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


class Log:
    """What a run says: a progress bar, TensorBoard, and a line of JSON for each measurement."""

    def __init__(self, folder: Path, steps: int):
        self.folder, self.steps = folder, steps
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def open(self, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        self.folder.mkdir(parents=True, exist_ok=True)
        self.board = SummaryWriter(str(self.folder / "log"), purge_step=step)
        self.bar = tqdm(total=self.steps, initial=step, unit="step", dynamic_ncols=True, mininterval=2)
        self.began = time.perf_counter()

    def step(self, step: int, samples: int, loss: Tensor, terms: dict[str, Tensor], extra: dict[str, Any]) -> None:
        values = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1
        self.bar.update()
        if step % 50 == 0:
            means = {name: float(total) / self.count for name, total in self.sums.items()}
            rate = self.count * samples / (time.perf_counter() - self.began)
            for name, mean in (means | {k: float(v) for k, v in extra.items()}).items():
                self.board.add_scalar(f"train/{name}", mean, step)
            self.board.add_scalar("train/samples_per_second", rate, step)
            self.bar.set_postfix_str(f"loss {means['loss']:.3f}, {rate:.0f} samples/s")
            self._line(
                {"step": step, "samples_per_second": round(rate, 1), **{k: round(v, 5) for k, v in means.items()}}
            )
            self.sums, self.count, self.began = {}, 0, time.perf_counter()

    def errors(self, step: int, errors: dict[str, float]) -> None:
        for name, value in errors.items():
            self.board.add_scalar(f"heldout/{name}", value, step)
        self.bar.write(f"step {step}: " + ", ".join(f"{name} {value:.1f}" for name, value in errors.items()))
        self._line({"step": step, "heldout": {name: round(value, 3) for name, value in errors.items()}})
        self.began = time.perf_counter()

    def _line(self, values: dict[str, Any]) -> None:
        with open(self.folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self.bar.close()
        self.board.close()


def _quiet_worker(_: int) -> None:
    import cv2

    # Loaders share the cores with the network; threads of their own would only take turns with it.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def _write_config(config: TrainConfig, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config_to_table(config), indent=2) + "\n")
    except OSError as error:
        raise BadInput(f"{folder}: cannot write the run there: {error.strerror}") from error


def _what_is_computed(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide the weights; where files lie and how often to look may change between sittings."""
    table = config_to_table(config)
    for key in ("name", "heldout", "workers", "threads", "save_every", "start_from"):
        del table[key]
    for key in ("layers", "hdri", "backgrounds"):
        del table["data"][key]
    return json.loads(json.dumps(table))


def _difference(a: TrainConfig, b: TrainConfig) -> str:
    one, other = _what_is_computed(a), _what_is_computed(b)
    return ", ".join(f"{key} was {one[key]}, is {other[key]}" for key in one if one[key] != other[key])
