"""`wholebody evaluate`: the errors of one or several networks on a named test set, as a table, files and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wholebody.errors import AssetMissing, BadInput
from wholebody.options import BatchSize, Device, positional

if TYPE_CHECKING:
    from wholebody.evaluation.result import Network, Result

HELDOUT_COUNT, HELDOUT_SEED = 2000, 7
"""The held-out synthetic set, with `split="heldout"` and otherwise the default `SynthesisConfig`."""

OPEN_SETS = ("synthetic", "real")
PHOTO_SETS = ("coco2d", "mpii2d")
MESH_SETS = ("EHF", "AGORA", "PW3D", "UBody", "UBody-inter")
SUBMISSION = "AGORA-test"
TESTSETS = (*MESH_SETS, SUBMISSION, *OPEN_SETS, *PHOTO_SETS)


@dataclass(frozen=True)
class EvaluateConfig:
    """What `wholebody evaluate` is asked for; its fields are the command's options."""

    models: Annotated[tuple[str, ...], positional("MODEL")]
    """an embedded name or checkpoints; several share one table"""
    testset: str
    """EHF, AGORA, AGORA-test (a submission), PW3D, UBody, UBody-inter, synthetic, real, coco2d or mpii2d"""
    root: Path | None = None
    """the test set's folder, or the one that holds it under the name that the published README gives it"""
    out: Path | None = None
    """folder for the report; output/evaluate/TESTSET if not given"""
    body: str | None = None
    """folder with the SMPL-X files, see docs/evaluation.md"""
    device: Device = "auto"
    batch_size: BatchSize = None
    limit: int | None = None
    """only the first N people"""
    every: int | None = None
    """every Nth person only; as published if not given (UBody 100, else 1)"""
    gallery: int = 3
    """how many of the best, the middle and the worst samples to draw; 0: none"""

    def __post_init__(self) -> None:
        if self.testset not in TESTSETS:
            raise BadInput(f"testset is {self.testset!r}: choose one of {', '.join(TESTSETS)}")
        for name in ("batch_size", "limit", "every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        if not self.models:
            raise BadInput("name at least one checkpoint")

    @property
    def folder(self) -> Path:
        return self.out or Path("output/evaluate") / self.testset


def evaluate(config: EvaluateConfig) -> Result | None:
    """Measure, print a table, and write the report; None for AGORA's test set, which only its server can measure."""
    if config.testset in OPEN_SETS:
        for model in config.models:
            run(model, config.testset, config.root)
        return None
    if config.testset == SUBMISSION:
        _submit(config)
        return None
    from wholebody.output.files import check_folder

    check_folder(config.folder)
    result = _photos(config) if config.testset in PHOTO_SETS else _meshes(config)
    print(result.table())
    return result


def _meshes(config: EvaluateConfig) -> Result:
    from tqdm import tqdm

    from wholebody.evaluation.benchmarks import BENCHMARKS, Context, measure, people
    from wholebody.evaluation.gallery import draw
    from wholebody.evaluation.page import write_page
    from wholebody.evaluation.result import Result

    benchmark = BENCHMARKS[config.testset]
    root = set_folder(config.root, benchmark.reader)
    models = load_networks(config)
    context = Context.of(benchmark, root, config.body, models)

    def samples() -> Any:
        return people(benchmark, root, config.limit, config.every)

    with tqdm(unit="person", desc=benchmark.title, disable=None) as bar:
        rows = measure(models, samples(), context, _batch_size(config, models), bar.update)
    if not rows[0]:
        raise BadInput(f"{benchmark.title} in {root}: nobody there has truth to measure by; fetch the set again")
    result = Result(
        benchmark.name, benchmark.title, benchmark.note, "mm", benchmark.measures, networks_of(config, rows)
    )
    written = result.write(config.folder)
    figures = draw(models, result, samples(), context, config.gallery) if config.gallery else []
    written.append(write_page(result, figures, config.folder / "report.html"))
    print("\n".join(str(path) for path in written))
    return result


def _photos(config: EvaluateConfig) -> Result:
    from wholebody.evaluation import keypoints2d
    from wholebody.evaluation.page import write_page

    if config.root is None:
        raise BadInput(f"--testset {config.testset} needs --root DIR, the folder with the photos and their labels")
    models = load_networks(config)
    names = [(network.name, network.checkpoint) for network in networks_of(config, [[] for _ in models])]
    result = keypoints2d.measure(models, names, config.testset, config.root, _batch_size(config, models))
    result.write(config.folder)
    write_page(result, [], config.folder / "report.html")
    return result


def _submit(config: EvaluateConfig) -> None:
    from tqdm import tqdm

    from wholebody.evaluation import agora

    root = set_folder(config.root, "AGORA")
    if len(config.models) > 1:
        raise BadInput("one checkpoint makes one submission: name one, and another --out for the next")
    if config.models[0].endswith(".zip"):
        report = agora.check_zip(Path(config.models[0]), root)
        path = Path(config.models[0])
    else:
        models = load_networks(config)
        with tqdm(unit="person", desc="AGORA test", disable=None) as bar:
            path, report = agora.submit(models[0], root, config.folder, _batch_size(config, models), bar.update)
    for warning in report.warnings:
        print(f"note: {warning}")
    print(
        f"{path}: {report.files} people in {report.pictures} pictures, in the form that "
        "https://agora-evaluation.is.tuebingen.mpg.de takes"
    )


def load_networks(config: EvaluateConfig) -> list[Any]:
    """The networks with their bodies, on the device."""
    from wholebody.model.load import load_model
    from wholebody.people.predictor import pick_device

    device = pick_device(config.device)
    if device == "mps":
        device = "cpu"  # errors are summed in float64, which that device lacks
    models: list[Any] = []
    for name in config.models:
        # Networks of one body share it: a licensed one takes 130 MB.
        shared = next((model.body for model in models), None)
        try:
            model = load_model(name, shared if shared is not None else config.body)
        except BadInput:
            if shared is None:
                raise
            model = load_model(name, config.body)
        models.append(model.to(device))
    return models


def networks_of(config: EvaluateConfig, rows: Sequence[Sequence[Any]]) -> list[Network]:
    """Rows under short names that differ."""
    from wholebody.evaluation.result import Network

    networks: list[Network] = []
    for path, found in zip(config.models, rows, strict=True):
        short = name = Path(path).name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors")
        taken = {network.name for network in networks}
        if name in taken:
            short = f"{Path(path).parent.name}/{name}"
        name, number = short, 2
        while name in taken:
            name, number = f"{short} ({number})", number + 1
        networks.append(Network(name, path, found))
    return networks


def set_folder(root: Path | None, name: str) -> Path:
    """The set's own folder, given it or a folder that holds it."""
    if root is None:
        raise BadInput(f"name the folder that holds {name} with --root DIR")
    root = Path(root).expanduser()
    for folder in (root / name, root / "dataset" / name, root):
        if folder.is_dir():
            return folder
    raise AssetMissing(
        f"there is no folder {root}. `wholebody data check` says where {name} is obtained and how it lies"
    )


def _batch_size(config: EvaluateConfig, models: Sequence[Any]) -> int:
    on_cpu = next(models[0].parameters()).device.type == "cpu"
    return config.batch_size or (4 if on_cpu else 32)


def run(model: str | Path, testset: str, root: str | Path | None = None) -> dict[str, float]:
    """Measure `model` on one of the open body's own sets and print a table.

    Args:
        model: an embedded name or a checkpoint, on the open body.
        testset: "synthetic": held-out people; "real": photos with measured joints.
        root: where the set lies. Synthetic people are drawn there if the folder is missing or incomplete (default
            `output/synth/heldout`).
    """
    from wholebody.model.load import load_model

    if testset not in OPEN_SETS:
        raise BadInput(f"testset is {testset!r}: choose one of {', '.join(OPEN_SETS)}")
    network = load_model(model)
    if testset == "real":
        from wholebody.evaluation.real import measure_real

        if root is None:
            raise BadInput("--testset real needs --root DIR, the folder with real3d.json")
        errors = measure_real(network, root)
        print("PA-MPJPE, mm, 12 joints")
        for name, value in errors.items():
            print(f"  {name:<44}{value:8.1f}")
        return errors

    from wholebody.evaluation.synthetic import measure_layers
    from wholebody.synthesis import SynthesisConfig
    from wholebody.synthesis import run as synthesize

    folder = Path(root) if root else Path("output/synth/heldout")
    synthesize(folder, HELDOUT_COUNT, HELDOUT_SEED, config=SynthesisConfig(split="heldout"), layers=True)
    errors = measure_layers(network, str(folder), constants=True)
    print(f"{HELDOUT_COUNT} held-out synthetic people, mm              network   best constant   ratio")
    for name, value in errors.items():
        constant = errors.get(f"constant_{name}")
        if constant is not None:
            print(f"  {name:<44}{value:10.1f}{constant:16.1f}{value / constant:8.2f}")
    print(f"  projected body joints, % of the box's height {errors['body_2d_percent']:9.1f}")
    print("of these, people whose body is whole in the picture")
    print(f"  pa_mpvpe_all {errors['pa_mpvpe_all_whole']:.1f}, mpvpe_all {errors['mpvpe_all_whole']:.1f}")
    print(f"  projected body joints, % of the box's height {errors['body_2d_percent_whole']:9.1f}")
    return errors
