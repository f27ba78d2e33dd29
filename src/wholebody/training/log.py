"""What a run says, and what it leaves for whoever asks later how it was made."""

from __future__ import annotations

import json
import math
import platform
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wholebody import __version__
from wholebody.errors import BadInput, OutputError
from wholebody.files.reading import read_bytes
from wholebody.files.whole import append_line, cannot_write, write_bytes
from wholebody.training.config import TrainConfig, config_to_table
from wholebody.training.export_config import published_config_text
from wholebody.training.processes import Group

PUBLISHED_CONFIG = "config_base.py"
"""In `code`: the run's settings as the published tools read them."""
FOLDERS = ("log", "model_dump", "vis", "result", "code")


class Log:
    """A progress bar, `log/train_logs.txt`, TensorBoard, Weights & Biases if asked for, and `metrics.jsonl`: a line of
    JSON for each measurement. Only the first process of a run speaks; numbers are means over all."""

    def __init__(self, folder: Path, steps: int, samples: int, config: TrainConfig, group: Group):
        self.folder, self.steps, self.samples, self.config, self.group = folder, steps, samples, config, group
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def open(self, step: int) -> None:
        self.began = time.perf_counter()
        self.bar = self.board = self.wandb = None
        if not self.group.main:
            return
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        forget_after(self.folder / "metrics.jsonl", step)
        self.board = SummaryWriter(str(self.folder / "log"), purge_step=step)
        self.wandb = _open_wandb(self.folder, self.config) if self.config.wandb else None
        self.bar = tqdm(total=self.steps, initial=step, unit="step", dynamic_ncols=True, mininterval=2)
        what = f"goes on after step {step}" if step else "begins"
        devices = f"{self.group.place.world} × {self.group.device.type}"
        self.say(f"{self.config.name} {what}: {self.steps} steps of {self.samples} samples on {devices}")

    def say(self, text: str) -> None:
        """A line on the screen and in the log file."""
        if self.bar is None:
            return
        self.bar.write(text)
        append_line(self.folder / "log" / "train_logs.txt", f"{datetime.now():%m-%d %H:%M:%S} {text}")

    def step(self, step: int, loss: Tensor, terms: dict[str, Tensor], extra: dict[str, Any]) -> None:
        values = {"loss": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1
        if self.bar is not None:
            self.bar.update()
        if step % self.config.log_every == 0 or step == self.steps:
            self._report(step, extra)

    def _report(self, step: int, extra: dict[str, Any]) -> None:
        means = self.group.means({name: float(total) / self.count for name, total in self.sums.items()})
        rate = self.count * self.samples / (time.perf_counter() - self.began)
        self.sums, self.count, self.began = {}, 0, time.perf_counter()
        if self.bar is None:
            return
        everything = means | {name: float(value) for name, value in extra.items()} | {"samples_per_second": rate}
        self._scalars("train", everything, step)
        self.bar.set_postfix_str(f"loss {means['loss']:.3f}, {rate:.0f} samples/s")
        self._line({"step": step, "samples_per_second": round(rate, 1), **{k: round(v, 5) for k, v in means.items()}})
        said = ", ".join(f"{name} {value:.4g}" for name, value in everything.items())
        line = f"{datetime.now():%m-%d %H:%M:%S} step {step}/{self.steps}: {said}"
        append_line(self.folder / "log" / "train_logs.txt", line)

    def errors(self, step: int, errors: dict[str, float]) -> None:
        self._scalars("heldout", errors, step)
        self.say(f"step {step}: " + ", ".join(f"{name} {value:.1f}" for name, value in errors.items()))
        self._line({"step": step, "heldout": {name: round(value, 3) for name, value in errors.items()}})
        self.began = time.perf_counter()

    def _scalars(self, prefix: str, values: dict[str, float], step: int) -> None:
        if self.board is not None:
            try:
                for name, value in values.items():
                    self.board.add_scalar(f"{prefix}/{name}", value, step)
            except OSError as error:  # of its thread, which wrote earlier ones
                raise self._cannot_write_board(error) from error
        if self.wandb is not None:
            self.wandb.log({f"{prefix}/{name}": value for name, value in values.items()}, step=step)

    def _cannot_write_board(self, error: OSError) -> OutputError:
        # It would try again when Python ends, and print a traceback.
        self.board = None
        return cannot_write(self.folder / "log", error)

    def _line(self, values: dict[str, Any]) -> None:
        append_line(self.folder / "metrics.jsonl", json.dumps(_finite(values), allow_nan=False))

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            try:
                self.board.close()
            except OSError as error:
                raise self._cannot_write_board(error) from error
        if self.wandb is not None:
            self.wandb.finish()


def _finite(values: Any) -> Any:
    """As JSON can hold it: null where a measure is not finite."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    return None if isinstance(values, float) and not math.isfinite(values) else values


def forget_after(path: Path, step: int) -> None:
    """Take away lines of steps that a killed run did after it was saved: they are done again."""
    if not path.exists():
        return
    kept = []
    for line in read_bytes(path).decode("utf-8", "replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, LookupError, TypeError, RecursionError):  # one that was being written at the kill
            continue
    write_bytes(path, "".join(kept).encode())


def _open_wandb(folder: Path, config: TrainConfig) -> Any:
    try:
        import wandb
    except ImportError:
        raise BadInput("wandb=true, and wandb is not installed: `pip install wandb`, or leave it out") from None
    return wandb.init(
        project="wholebody", name=folder.name, id=folder.name, resume="allow", dir=str(folder / "log"),
        config=config_to_table(config),
    )  # fmt: skip


def write_code(config: TrainConfig, folder: Path, recipe: Path | None) -> None:
    """`config.json`, and in `code` the config and recipe as run, and who ran it: version, command, machine, git state.

    A run that goes on adds a line to `code/runs.jsonl`; the rest stays.
    """
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        table = (json.dumps(config_to_table(config), indent=2) + "\n").encode()
        if not (folder / "code" / "config.json").exists():
            write_bytes(folder / "config.json", table)
            write_bytes(folder / "code" / PUBLISHED_CONFIG, published_config_text(config).encode())
            if recipe is not None:
                own = f"recipe_{recipe.name}" if recipe.name in (PUBLISHED_CONFIG, "config.json") else recipe.name
                write_bytes(folder / "code" / own, read_bytes(recipe))
            write_bytes(folder / "code" / "config.json", table)
        state = _git_state()
        if changes := state.pop("changes", ""):
            path = folder / "code" / f"changes_{datetime.now():%Y%m%d_%H%M%S}.diff"
            write_bytes(path, changes.encode(errors="replace"))
        started = {
            "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}",
            "command": sys.argv,
            "wholebody": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.node(),
            **state,
        }
        append_line(folder / "code" / "runs.jsonl", json.dumps(started))
    except OSError as error:
        raise cannot_write(folder, error) from error


def _git_state() -> dict[str, str]:
    """Commit and uncommitted changes of the source tree, where the package runs from one."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return {}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        found = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=30)
        return found.stdout if found.returncode == 0 else ""

    try:
        return {"git": git("rev-parse", "HEAD").strip(), "changes": git("diff", "HEAD", "--", "src")}
    except (OSError, subprocess.TimeoutExpired):
        return {}
