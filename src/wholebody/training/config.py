"""A training run as a file: strict, typed, overridable on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from wholebody.data.dataset import PeopleDataConfig, SetConfig
from wholebody.data.family import FINE_TUNING, FINE_TUNING_SAMPLES, MIX_SAMPLES, mix, training_interval
from wholebody.errors import BadInput
from wholebody.files.settings import from_table, override, read_toml, to_table
from wholebody.synthesis.sets.crops import CropDataConfig
from wholebody.training.import_config import NUMBERS, import_config
from wholebody.training.own.losses import LossWeights
from wholebody.training.recipes import find_recipe, of_size


@dataclass(frozen=True)
class HeldoutConfig:
    """What is measured as training goes on."""

    layers: str
    count: int = 256
    every: int = 500
    """Steps between measurements."""


@dataclass(frozen=True)
class PublishedConfig:
    """What differs between the published settings beyond data and length: how much each loss counts."""

    shape_weight: float = 1.0
    """Of shape; in OSX's variant `wo_decoder` of pose, expression and joints too. Published: 2 on AGORA."""
    detach_projection: bool = False
    """The projected joints then move only the camera. Published: OSX on AGORA."""
    pose_weight: float = 1.0
    """Of all rotations. SMPLer-X, SMPLest-X: 10."""
    orient_weight: float = 1.0
    """Of the root's rotation, beside `pose_weight`. SMPLest-X alone."""
    joints_weight: float = 1.0
    """Of joints in space. SMPLer-X, SMPLest-X: 100."""
    projection_weight: float = 1.0
    """Of the mesh's joints, projected."""
    positions_weight: float = 1.0
    """Of the positions that are read off heat maps. OSX and SMPLer-X."""
    hand_root_weight: float = 1.0
    """Of how the wrists are turned before the camera. SMPLest-X alone."""

    @property
    def weights(self) -> dict[str, float]:
        """Of each loss by its published name, but for shape."""
        return {
            "smplx_pose": self.pose_weight, "smplx_orient": self.orient_weight, "joint_cam": self.joints_weight,
            "smplx_joint_cam": self.joints_weight, "joint_proj": self.projection_weight,
            "joint_img": self.positions_weight, "smplx_joint_img": self.positions_weight,
            "joint_img_face": self.positions_weight, "hand_root": self.hand_root_weight,
            "hand_root_chain": self.hand_root_weight,
        }  # fmt: skip


@dataclass(frozen=True)
class PeopleConfig(PeopleDataConfig):
    """Which data sets, how they are mixed, and what of each person a network is trained towards."""

    sets: tuple[SetConfig, ...] = ()
    """With `mix_of` or `fine_tune_for`: further ones, or other settings of sets in these."""
    mix_of: int = 0
    """The published mix of so many sets of SMPLer-X: 5, 10, 20 or 32, each thinned as its family does."""
    fine_tune_for: str = ""
    """The sets that SMPLer-X is fine-tuned on for one: agora, 3dpw, arctic, egobody, renbody or ubody."""
    targets: str = "crop"
    """"crop": those of our own objective (`own.targets`); "published": those of the published one; "both"."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes. Recipes are in `wholebody/recipes`."""

    data: CropDataConfig | None = None
    """Synthetic people in layers; either this or `people`."""
    people: PeopleConfig | None = None
    """Indexed data sets, mixed."""
    heldout: HeldoutConfig | None = None
    """Held-out layers to measure on as training goes on; none: `wholebody evaluate` measures what a run leaves."""
    name: str = "t"
    family: str = "osx"
    """Of a published size: `osx`, `smpler_x` or `smplest_x`."""
    network: str = "t"
    """Size: `t`, or a published one: `b`, `l` of OSX, `s`, `b`, `l`, `h` of SMPLer-X, `h` of SMPLest-X."""
    variant: str = "normal"
    """Of OSX: `normal`, `wo_face_decoder` or `wo_decoder`. SMPLer-X is without decoders."""
    fine_tune: str = ""
    """What learns: `backbone` (the encoder), `neck_and_head` (all but it), or `head`; all else stays as it starts, its
    batch statistics included. Empty: everything learns."""
    body: str = "open"
    """"open", or a file or folder with SMPL-X: whose parameters the network learns to predict."""
    objective: str = "own"
    """"own": targets in each part's own box, masked means; "published": the losses of the published code, faults
    included."""
    published: PublishedConfig = PublishedConfig()
    start_from: str | None = None
    """A checkpoint, ours or a published one, or an embedded name ("t"), whose weights the run starts from."""
    encoder_from: str | None = None
    """A pre-trained encoder (`osx_vit_l.pth`, `vitpose_huge.pth`) for a published size that starts from no checkpoint;
    `{network}` in it stands for the size, `{vitpose}` for what ViTPose calls it (small, base, large, huge)."""
    seed: int = 0
    epochs: int = 0
    """How often everything is seen; 0: `steps` decides."""
    steps: int = 6000
    """Steps of the optimiser, where `epochs` is 0."""
    batch_size: int = 32
    """Pictures a step, of each device; 0: none, only key points are lifted."""
    accumulate: int = 1
    """So many batches are summed up in a step."""
    lifting_batch_size: int = 0
    """So many poses a step are lifted from key points without a picture, beside the pictures; 0: none."""
    positions_only: bool = False
    """Pictures that teach the body alone teach only where its joints are; how that is lifted is learnt from poses."""
    lifting_layers: str | None = None
    """Layers whose poses are lifted, their pictures unseen; None: those of `data`."""
    body_only: int = 0
    """So many pictures of a batch teach the body alone: hands, face and their boxes take most of a step's time."""
    learning_rate: float = 6e-4
    final_learning_rate: float = 6e-6
    warmup_steps: int = 300
    weight_decay: float = 0.02
    fan_in_scaling: bool = True
    """Layers that read more than 1,024 numbers learn slower in proportion. Published: no."""
    trunk_rate: float = 0.15
    """Learning rate of the pre-trained trunk's tuned stages, as a share of the others'. Size `t` alone has such."""
    clip_norm: float = 1.0
    """Of the gradient; 0: it is not clipped."""
    ema_decay: float = 0.999
    """Of the averaged weights, which are measured and kept; 0: no average, the weights themselves are."""
    sync_norms: bool = True
    """Batch statistics are taken over all devices together, so that their number changes nothing."""
    true_box_probability: float = 0.5
    """How often hand and face features are cropped by the true boxes, moved a little, instead of the predicted ones."""
    vertices: int = 500
    """How many vertices the mesh is compared at, spread evenly over it."""
    precision: str = "bf16"
    """"bf16": the network runs under autocast, losses and body in float32; "fp32": everything in float32."""
    checkpoint_activations: bool = False
    """Encoder blocks are computed again on the way back instead of kept: less memory, a third more time."""
    compile: str = ""
    """Backend of `torch.compile` for the encoder, as "inductor"; empty: not compiled."""
    workers: int = 1
    """Loader processes, of each device."""
    threads: int = 0
    """Of the training process; 0: as PyTorch chooses."""
    save_every: int = 200
    """Steps between saves of the run's state; a killed run goes on from the last."""
    snapshot_every: int = 0
    """Epochs (where there are epochs, else steps) between the checkpoints that are kept; 0: each epoch, or the end."""
    published_form: bool = False
    """Each snapshot as `.pth.tar` too, which the published code loads. Published sizes only."""
    log_every: int = 50
    """Steps between lines of the log."""
    allowed_skips: int = 0
    """So many steps whose loss or gradient is not finite are left out; one more stops the run."""
    wandb: bool = False
    """Also report to Weights & Biases, where it is installed."""
    losses: LossWeights = LossWeights()


PUBLISHED_NAMES = {
    **NUMBERS,
    "exp_name": "name",
    "model_type": "network",
    "encoder_setting": "network",
    "decoder_setting": "variant",
    "pretrained_model_path": "start_from",
    "encoder_pretrained_model_path": "encoder_from",
    "human_model_path": "body",
    "trainset_3d": "people.sets",
    "trainset_2d": "people.sets",
    "trainset_humandata": "people.sets",
    "data_strategy": "people.mix",
    "total_data_len": "people.epoch_length",
    "input_img_shape": "people.picture_hw",
    "syncbn": "sync_norms",
}
"""Settings here by what the published codes (OSX, SMPLer-X, SMPLest-X) call them."""


def read_config(recipe: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """A TOML recipe (see `find_recipe`), with `key.subkey=value` overrides (values in TOML's notation; plain words are
    strings); or a published Python config (`import_config.import_config`), read as a recipe.

    Raises:
        BadInput: no such recipe, not TOML, an unknown key or a value of the wrong type; says which.
    """
    path = find_recipe(recipe)
    if path.suffix == ".py":
        table = import_config(path).table
    else:
        table = of_size(read_toml(path), overrides)
    return config_from_table(override(table, overrides), source=str(path))


def people_of(config: TrainConfig) -> PeopleConfig | None:
    """The data sets of a run, all written out: those of its published mix too, by its family's intervals."""
    people = config.people
    if people is None:
        return None
    intervals: dict[str, int] = {}
    if people.mix_of:
        intervals = {name: training_interval(name, config.family) for name in mix(people.mix_of)}
    elif people.fine_tune_for:
        intervals = {name: _FINE_TUNING_EVERY.get(name, 1) for name in FINE_TUNING[people.fine_tune_for]}
    own = {one.name: one for one in people.sets}
    sets = [own.pop(name, SetConfig(name, every=every)) for name, every in intervals.items()]
    length = people.epoch_length
    if not length and people.mix == "balance":
        length = MIX_SAMPLES.get(people.mix_of, FINE_TUNING_SAMPLES if people.fine_tune_for else 0)
    return replace(people, sets=(*sets, *own.values()), epoch_length=length, family=config.family)


_FINE_TUNING_EVERY = {"UBody": 10, "Talkshow": 10}  # the published fine-tuning thins no other sets


def config_from_table(table: dict[str, Any], source: str) -> TrainConfig:
    """A `TrainConfig` from nested tables; unknown keys and wrong types are errors that name them."""
    config = from_table(TrainConfig, table, source, PUBLISHED_NAMES)
    _check(config, source)
    return config


TARGETS = ("crop", "published", "both")
SIZES = {"osx": ("t", "b", "l"), "smpler_x": ("s", "b", "l", "h"), "smplest_x": ("h",)}
"""Of each family."""
CHOICES = {
    "family": tuple(SIZES),
    "variant": ("normal", "wo_face_decoder", "wo_decoder"),
    "objective": ("own", "published"),
    "precision": ("bf16", "fp32"),
    "fine_tune": ("", "backbone", "neck_and_head", "head"),
}


def _check(config: TrainConfig, source: str) -> None:
    """Settings that are each of the right type and cannot be used together, or at all."""
    for key, known in CHOICES.items():
        value = getattr(config, key)
        if value not in known:
            raise BadInput(f"{source}: {key} is {value!r}; known are {', '.join(filter(None, known))}")
    sizes = SIZES[config.family]
    if config.network not in sizes and not config.start_from:  # what it starts from may be of a size of its own
        family = "" if config.family == "osx" else f" of family {config.family}"
        raise BadInput(f"{source}: network is {config.network!r}; known{family} are {', '.join(sizes)}")
    if config.people:
        _check_sets(config.people, config.family, source)
    if config.people and config.people.targets not in TARGETS:
        raise BadInput(f"{source}: people.targets is {config.people.targets!r}; known are {', '.join(TARGETS)}")
    for key in ("batch_size", "lifting_batch_size", "epochs", "steps", "workers", "threads", "allowed_skips"):
        if getattr(config, key) < 0:
            raise BadInput(f"{source}: {key} is {getattr(config, key)}; it cannot be negative")
    for key in ("accumulate", "save_every", "log_every"):
        if getattr(config, key) < 1:
            raise BadInput(f"{source}: {key} is {getattr(config, key)}; at least 1 is needed")
    problems = {
        "neither `data` (layers) nor `people` (data sets) says what to learn from": not (config.data or config.people),
        "both `data` and `people` say what to learn from; leave one out": config.data and config.people,
        "batch_size and lifting_batch_size are both 0: there is nothing to learn from": (
            not config.batch_size and not config.lifting_batch_size
        ),
        "lifting key points needs layers: give `data`": config.lifting_batch_size and not config.data,
        "published_form: size 't' has no published form": config.published_form and config.network == "t",
        "epochs are counted in pictures: batch_size is 0": config.epochs and not config.batch_size,
        "family smpler_x is without decoders: leave variant out": (
            config.family == "smpler_x" and config.variant == "wo_face_decoder"
        ),
        "SMPLer-X and SMPLest-X are trained with objective 'published'": (
            config.family != "osx" and config.objective != "published"
        ),
        "the published objective takes the targets of `people`, not layers": (
            config.objective == "published" and config.data
        ),
        "objective 'own' takes layers (`data`); data sets are learnt with objective 'published'": (
            config.objective == "own" and config.people
        ),
        "the published objective needs people.targets = 'published'": (
            config.people and config.people.targets not in ("published", "both")
        ),
    }
    for problem, there in problems.items():
        if there:
            raise BadInput(f"{source}: {problem}")


def _check_sets(people: PeopleConfig, family: str, source: str) -> None:
    if people.mix_of and people.mix_of not in MIX_SAMPLES:
        known = ", ".join(map(str, MIX_SAMPLES))
        raise BadInput(f"{source}: people.mix_of is {people.mix_of}; published mixes are of {known} sets")
    if people.fine_tune_for and people.fine_tune_for not in FINE_TUNING:
        known = ", ".join(FINE_TUNING)
        raise BadInput(f"{source}: people.fine_tune_for is {people.fine_tune_for!r}; known are {known}")
    if people.mix_of and people.fine_tune_for:
        raise BadInput(f"{source}: people.mix_of and people.fine_tune_for both say which sets; leave one out")
    if people.family not in ("osx", family):
        raise BadInput(f"{source}: people.family is {people.family!r}, and family {family!r} is trained; leave it out")


def config_to_table(config: TrainConfig) -> dict[str, Any]:
    """Nested tables of plain values; the inverse of `config_from_table`."""
    return to_table(config)


def new_folder(job: str, kind: str = "train") -> str:
    """Where a run or a test of this name goes."""
    return f"output/{kind}_{job}_{datetime.now():%Y%m%d_%H%M%S}"
