"""`wholebody evaluate`: the errors of one or several networks on a named test set, as a table, files and a page."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from wholebody.data.family import TESTED
from wholebody.errors import AssetMissing, BadInput, PartlyDone, WholebodyError
from wholebody.files.text import offer
from wholebody.options import BatchSize, Device, positional

if TYPE_CHECKING:
    from wholebody.evaluation.result import Result
    from wholebody.evaluation.testset import Found, TestSet

HELDOUT_COUNT, HELDOUT_SEED = 2000, 7
"""The held-out synthetic set, with `split="heldout"` and otherwise the default `SynthesisConfig`."""

OPEN_SETS = ("synthetic", "real")
PHOTO_SETS = ("coco2d", "mpii2d")
MESH_SETS = ("EHF", "AGORA", "PW3D", "UBody", "UBody-inter", *TESTED)
SUBMISSION = "AGORA-test"
EVERYTHING = "all"
FILMS, FILM_COUNT = "synthetic-video", 24
"""Films of held-out people, of the same seed."""
TESTSETS = (*MESH_SETS, SUBMISSION, *OPEN_SETS, FILMS, *PHOTO_SETS, EVERYTHING)
ALIASES = {"EgoBody": "EgoBody_Egocentric", "RenBody-HiRes": "RenBody_HiRes"}
"""Other names of some, as SMPLer-X's paper and its scripts have them."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What `wholebody evaluate` is asked for; its fields are the command's options."""

    models: Annotated[tuple[str, ...], positional("MODEL")]
    """an embedded name or checkpoints; several share one table"""
    testset: str
    """EHF, AGORA, AGORA-test (a submission), PW3D, UBody, UBody-inter, EgoBody_Egocentric, EgoBody_Kinect, ARCTIC,
    RenBody_HiRes, RenBody, SynHand, synthetic, synthetic-video, real, coco2d or mpii2d; all: one after the other, those
    of SMPL-X that --root holds"""
    root: Path | None = None
    """the test set's folder, or the one that holds it under the name that the published README gives it"""
    out: Path | None = None
    """folder for the report; output/evaluate/TESTSET if not given"""
    body: str | None = None
    """folder with the SMPL-X files, see docs/evaluation.md"""
    any_gender: bool = False
    """take a body of another gender than the weights were trained for"""
    family: str | None = None
    """of published checkpoints: osx, smpler_x or smplest_x; if not given, their tensors tell, else their names"""
    box_scale: float | None = None
    """how much people's boxes are enlarged before they are cropped; if not given, as each network was trained (OSX
    1.25, SMPLer-X and SMPLest-X 1.2)"""
    device: Device = "auto"
    devices: int = 1
    """processes on this machine, one for each GPU, each of which measures its share of the people"""
    batch_size: BatchSize = None
    limit: int | None = None
    """only the first N people; of synthetic-video, films"""
    every: int | None = None
    """every Nth person only; as published if not given (UBody 100; ARCTIC, RenBody_HiRes and SynHand 10; else 1)"""
    gallery: int | None = None
    """how many of the best, the middle and the worst samples to draw, 3 if not given; 0: none"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "testset", ALIASES.get(self.testset, self.testset))
        if self.testset not in TESTSETS:
            from wholebody.data.readers import PUBLISHED_NAMES

            meant = offer(self.testset, TESTSETS, PUBLISHED_NAMES)
            raise BadInput(f"testset is {self.testset!r}: choose one of {', '.join(TESTSETS)}{meant}")
        for name in ("batch_size", "limit", "every", "devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
        if self.gallery is not None and self.gallery < 0:
            raise BadInput(f"--gallery is {self.gallery}; it must be 0 (none) or more")
        if not self.models:
            raise BadInput("name at least one checkpoint")
        if self.box_scale is not None and self.testset == "synthetic":
            raise BadInput("--box-scale has no meaning for synthetic, whose people are drawn as crops. Leave it out")
        if self.testset == SUBMISSION:
            for name in ("limit", "every", "gallery"):
                if getattr(self, name) is not None:
                    raise BadInput(
                        f"--{name} has no meaning for {SUBMISSION}: its server takes everybody or nothing, and its "
                        "truth is not public. Leave it out"
                    )

    @property
    def folder(self) -> Path:
        return self.out or Path("output/evaluate") / self.testset


def evaluate(
    config: EvaluateConfig, say: Callable[[str], object] = print, models: Sequence[Any] | None = None
) -> Result | None:
    """Measure, print a table, and write the report; None for AGORA's test set, which only its server can measure, for
    films, whose table has two columns of its own (`evaluation.video`), and for all sets (`evaluation.together`).

    models: the networks of the config, loaded before (processes of their own load them themselves).

    In the folder: `result.json` (means), `samples.csv` (everybody's errors), `parameters.npz` (everybody's answer) and
    `report.html` with the best, the middle and the worst drawn.
    """
    from tqdm import tqdm

    from wholebody.evaluation.page import write_page
    from wholebody.evaluation.testset import in_processes, write_parameters
    from wholebody.output.files import check_folder

    if config.testset == EVERYTHING:
        _everything(config, say)
        return None
    if config.testset == SUBMISSION:
        _submit(config, say, models)
        return None
    check_folder(config.folder)
    if config.testset == FILMS:
        _films(config, say)
        return None
    testset = open_testset(config)
    models = load_networks(config) if models is None else models
    testset.check(models)
    with tqdm(unit="person", desc=testset.title, disable=None) as bar:
        if config.devices == 1:
            found = _everybody(testset, models, testset.people(), _batch_size(config, models), bar.update)
        else:
            found = in_processes(partial(_share, config), config.devices, bar.update)
    names = names_of(config)
    result = testset.result(names, found)
    if config.box_scale is not None:
        result = replace(result, protocol=f"{result.protocol} Boxes enlarged {config.box_scale:g} times, as asked for.")
    written = result.write(config.folder)
    written += write_parameters(config.folder, names, found, [model.body for model in models])
    figures = testset.figures(models, result, 3 if config.gallery is None else config.gallery)
    written.append(write_page(result, figures, config.folder / "report.html"))
    say("\n".join(str(path) for path in written))
    say(result.table())
    return result


def open_testset(config: EvaluateConfig) -> TestSet:
    """The set that is asked for, where it lies; held-out people are drawn first where they are missing."""
    if config.testset in MESH_SETS:
        from wholebody.evaluation.benchmarks import BENCHMARKS, MeshSet

        benchmark = BENCHMARKS[config.testset]
        root = set_folder(config.root, benchmark.reader)
        return MeshSet(benchmark, root, config.body, config.limit, config.every)
    if config.testset == "synthetic":
        from wholebody.evaluation.synthetic import HeldOutPeople
        from wholebody.synthesis import SynthesisConfig
        from wholebody.synthesis import run as synthesize

        folder = config.root or Path("output/synth/heldout")
        synthesize(folder, HELDOUT_COUNT, HELDOUT_SEED, config=SynthesisConfig(split="heldout"), layers=True)
        return HeldOutPeople(folder, limit=config.limit, every=config.every)
    if config.root is None:
        what = "real3d.json" if config.testset == "real" else "the photos and their labels"
        raise BadInput(f"--testset {config.testset} needs --root DIR, the folder with {what}")
    if config.testset == "real":
        from wholebody.evaluation.real import RealPhotos

        return RealPhotos(config.root, config.limit, config.every)
    from wholebody.evaluation.keypoints2d import PhotoSet

    return PhotoSet(config.testset, config.root, config.limit, config.every)


def _everything(config: EvaluateConfig, say: Callable[[str], object]) -> None:
    """One set after the other, the networks loaded once; then one table of all. PartlyDone, after the table, if a set
    that is there could not be measured."""
    from wholebody.evaluation.together import ORDER, Measured, Together, home_of, why_not
    from wholebody.output.files import check_folder

    if config.root is None:
        raise BadInput("--testset all needs --root DIR, the folder that holds the test sets")
    root = home_of(config.root.expanduser())
    there = {name: why_not(root, name) for name in ORDER}
    if all(there.values()):
        raise BadInput(
            f"{root} holds no test set: looked for {', '.join(ORDER)}. `wholebody data check {root}` says what is "
            "missing and where it is obtained"
        )
    check_folder(config.folder)
    names, models, measured = names_of(config), load_networks(config), []
    for name, reason in there.items():
        if reason:
            say(f"{name}: left out, {reason}")
            measured.append(Measured(name, left_out=reason))
            continue
        try:
            measured += [Measured(name, _one_of_all(config, root, name, say, models))]
        except WholebodyError as error:
            say(f"{name}: not measured: {error}")
            measured.append(Measured(name, failed=str(error)))
    together = Together(names, measured)
    say("\n".join(map(str, together.write(config.folder))))
    say(together.table())
    if failed := [one for one in measured if one.failed]:
        raise PartlyDone(
            f"{len(failed)} of the test sets that are there could not be measured: "
            + "; ".join(f"{one.testset}: {one.failed}" for one in failed)
        )


def _one_of_all(
    config: EvaluateConfig, root: Path, name: str, say: Callable[[str], object], models: Sequence[Any]
) -> Result | None:
    config = replace(config, testset=name, root=root, out=config.folder / name, **_WHOLE if name == SUBMISSION else {})
    if name != SUBMISSION or len(models) == 1:
        return evaluate(config, say, models)
    for (short, path), model in zip(names_of(config), models, strict=True):  # a submission is one network's
        _submit(replace(config, models=(path,), out=config.folder / short), say, [model])
    return None


_WHOLE: dict[str, Any] = {"limit": None, "every": None, "gallery": None}


def _films(config: EvaluateConfig, say: Callable[[str], object]) -> None:
    """Each frame by itself against the film as a whole, of each network; the numbers go to `result.json`."""
    from wholebody.evaluation.video import measure_video, table
    from wholebody.files.whole import write_json
    from wholebody.people.predictor import Predictor
    from wholebody.synthesis.config import SynthesisConfig
    from wholebody.synthesis.sets import clips

    folder, count = config.root or Path("output/synth/clips"), min(config.limit or FILM_COUNT, FILM_COUNT)
    clips.run(folder, count, HELDOUT_SEED, SynthesisConfig(split="heldout"))
    results = {}
    models = load_networks(config)
    for (name, _), model in zip(names_of(config), models, strict=True):
        results[name] = measure_video(Predictor(model, batch_size=_batch_size(config, models)), folder, count, say=say)
        say(f"{name}, {count} films\n{table(results[name])}")
    known = {name: {way: _known(row) for way, row in result.items()} for name, result in results.items()}
    say(str(write_json(config.folder / "result.json", known, indent=1)))


def _known(row: dict[str, float]) -> dict[str, float | None]:
    return {name: None if value != value else value for name, value in row.items()}


def _everybody(
    testset: TestSet, models: Sequence[Any], people: Iterable[Any], batch_size: int, progress: Callable[[int], object]
) -> list[list[Found]]:
    """Of each network, what is found of everybody."""
    found: list[list[Found]] = [[] for _ in models]
    for of_all in testset.found(models, people, batch_size):
        for rows, one in zip(found, of_all, strict=True):
            rows.append(one)
        progress(1)
    return found


def _share(config: EvaluateConfig, rank: int, count: int, progress: Callable[[int], None]) -> list[list[Found]]:
    """What one of several processes finds of every `count`-th person from the `rank`-th on."""
    testset = open_testset(config)
    models = load_networks(config, rank)
    testset.check(models)
    people = itertools.islice(testset.people(), rank, None, count)
    return _everybody(testset, models, people, _batch_size(config, models), progress)


def _submit(config: EvaluateConfig, say: Callable[[str], object], models: Sequence[Any] | None = None) -> None:
    from tqdm import tqdm

    from wholebody.evaluation import agora
    from wholebody.evaluation.testset import in_processes
    from wholebody.output.files import check_folder

    root = set_folder(config.root, "AGORA")
    if len(config.models) > 1:
        raise BadInput("one checkpoint makes one submission: name one, and another --out for the next")
    if config.models[0].endswith(".zip"):
        report = agora.check_zip(Path(config.models[0]), root)
        path = Path(config.models[0])
    else:
        models = load_networks(config) if models is None else models
        agora.check_network(models[0])
        check_folder(config.folder)
        with tqdm(unit="person", desc="AGORA test", disable=None) as bar:
            if config.devices == 1:
                agora.predict_all(models[0], root, config.folder, _batch_size(config, models), bar.update)
            else:
                in_processes(partial(_share_of_submission, config, root), config.devices, bar.update)
        path, report = agora.pack(root, config.folder)
    for warning in report.warnings:
        say(f"note: {warning}")
    say(
        f"{path}: {report.files} people in {report.pictures} pictures, in the form that "
        "https://agora-evaluation.is.tuebingen.mpg.de takes"
    )


def _share_of_submission(
    config: EvaluateConfig, root: Path, rank: int, count: int, progress: Callable[[int], None]
) -> list[list[Found]]:
    from wholebody.evaluation import agora

    models = load_networks(config, rank)
    agora.predict_all(models[0], root, config.folder, _batch_size(config, models), progress, (rank, count))
    return [[]]


def load_networks(config: EvaluateConfig, rank: int = 0) -> list[Any]:
    """The networks with their bodies, on the device of process `rank`."""
    from wholebody.evaluation.testset import device_of
    from wholebody.model.config import box_enlargement
    from wholebody.model.load import load_model, pick_device

    device = pick_device(device_of(config.device, rank, config.devices))
    if device == "mps":
        device = "cpu"  # errors are summed in float64, which that device lacks
    load = partial(load_model, any_gender=config.any_gender, family=config.family)
    models: list[Any] = []
    for name in config.models:
        # Networks of one body share it: a licensed one takes 130 MB.
        shared = next((model.body for model in models), None)
        try:
            model = load(name, shared if shared is not None else config.body)
        except BadInput:
            if shared is None:
                raise
            model = load(name, config.body)
        if config.box_scale is not None:
            model.config = replace(model.config, box_enlarge=box_enlargement(model.config, config.box_scale))
        models.append(model.to(device))
    return models


def names_of(config: EvaluateConfig) -> list[tuple[str, str]]:
    """Of each network a short name, all of which differ, and its checkpoint."""
    names: list[str] = []
    for path in config.models:
        short = name = Path(path).name.removesuffix(".tar").removesuffix(".pth").removesuffix(".safetensors")
        if name in names:
            short = f"{Path(path).parent.name}/{name}"
        name, number = short, 2
        while name in names:
            name, number = f"{short} ({number})", number + 1
        names.append(name)
    return list(zip(names, config.models, strict=True))


def set_folder(root: Path | None, name: str) -> Path:
    """The set's own folder, given it or a folder that holds it."""
    if root is None:
        raise BadInput(f"name the folder that holds {name} with --root DIR")
    from wholebody.data.readers import READERS

    root = Path(root).expanduser()
    homes = (READERS[name].home(above) for above in (root, root / "dataset"))
    home = next((home for home in homes if home is not None), None)
    if home is not None or root.is_dir():
        return home or root
    raise AssetMissing(
        f"there is no folder {root}. `wholebody data check` says where {name} is obtained and how it lies"
    )


def _batch_size(config: EvaluateConfig, models: Sequence[Any]) -> int:
    on_cpu = next(models[0].parameters()).device.type == "cpu"
    return config.batch_size or (4 if on_cpu else 32)
