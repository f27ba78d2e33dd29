"""A training run as a file: strict, typed, overridable on the command line."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholebody.data.crops import CropDataConfig
from wholebody.errors import BadInput
from wholebody.training.objectives import LossWeights


@dataclass(frozen=True)
class HeldoutConfig:
    """What is measured as training goes on."""

    layers: str
    count: int = 256
    every: int = 500
    """Steps between measurements."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. The recipes of the embedded weights are in configs/"""

    data: CropDataConfig
    heldout: HeldoutConfig
    name: str = "t"
    network: str = "t"
    """Name of an embedded size; only `t` can be built without licensed files."""
    start_from: str | None = None
    """A checkpoint of ours whose weights the run starts from."""
    seed: int = 0
    steps: int = 6000
    batch_size: int = 32
    """Pictures a step; 0: none, only key points are lifted."""
    lifting_batch_size: int = 0
    """So many poses a step are lifted from key points without a picture, beside the pictures; 0: none."""
    learning_rate: float = 6e-4
    final_learning_rate: float = 6e-6
    warmup_steps: int = 300
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    true_box_probability: float = 0.5
    """How often hand and face features are cropped by the true boxes, moved a little, instead of the predicted ones."""
    vertices: int = 500
    """How many vertices the mesh is compared at, spread evenly over it."""
    precision: str = "bf16"
    """"bf16": the network runs under autocast, losses and body in float32; "fp32": everything in float32."""
    workers: int = 1
    threads: int = 0
    """Of the training process; 0: as PyTorch chooses."""
    save_every: int = 200
    losses: LossWeights = LossWeights()


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """A TOML recipe, with `key.subkey=value` overrides (values in TOML's notation; plain words are strings).

    Raises:
        BadInput: no such file, not TOML, an unknown key or a value of the wrong type; says which.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise BadInput(f"{path}: cannot read the recipe: {error.strerror}. See configs/ for examples.") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not a TOML file: {error}") from error
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise BadInput(f"override {override!r} is not of the form key=value, as in steps=100 or data.layers=DIR")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        *parents, last = key.strip().split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = parsed
    return config_from_table(table, source=str(path))


def config_from_table(table: dict[str, Any], source: str) -> TrainConfig:
    """A `TrainConfig` from nested tables; unknown keys and wrong types are errors that name them."""
    import cattrs

    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind, names in ((str, "text"), (bool, "true or false"), (int, "a whole number"), (float, "a number")):
        converter.register_structure_hook(kind, _strict(kind, names))
    try:
        return converter.structure(table, TrainConfig)
    except cattrs.BaseValidationError as error:
        raise BadInput(
            f"{source}: " + "; ".join(cattrs.transform_error(error, path="config", format_exception=_reason))
        ) from error


def _reason(error: BaseException, kind: type | None) -> str:
    from cattrs.v import format_exception

    return str(error) if type(error) is ValueError else format_exception(error, kind)


def _strict(kind: type, name: str) -> Any:
    def structure(value: Any, _: type) -> Any:
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{value!r} is not {name}")
        return kind(value)

    return structure


def config_to_table(config: TrainConfig) -> dict[str, Any]:
    """Nested tables of plain values; the inverse of `config_from_table`."""
    return dataclasses.asdict(config)
