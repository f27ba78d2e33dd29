"""The command line. A command is a function: its parameters, or the fields of the config that it takes, are the
options; it calls one function of another room and prints what came of it. Nothing heavy is imported before that.

Exit status: 0 all done; 1 some inputs failed (named at the end); 2 the command cannot be carried out as given, in one
sentence; 3 a defect of wholebody; 130 and 143 interrupted; 141 nobody reads the output any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnusedCliTokensError,
)

from wholebody import __version__
from wholebody.errors import BadInput, WholebodyError
from wholebody.evaluation.evaluate import EvaluateConfig
from wholebody.evaluation.reproduce import ReproduceConfig
from wholebody.files.text import counted, shown, shown_lines
from wholebody.options import ALONE, VALUES, Flat, HelpFormatter, Overrides, Workers, positional
from wholebody.pipeline.config import AnnotateConfig, ConvertConfig, PredictConfig
from wholebody.scale.config import EngineConfig, ManyConfig
from wholebody.serve.config import ServeConfig
from wholebody.synthesis.config import SynthesisConfig, material_used
from wholebody.training.slurm import SlurmConfig

OK, SOME_FAILED, USAGE, DEFECT, INTERRUPTED, NO_READER, TERMINATED = 0, 1, 2, 3, 130, 141, 143
_SYNTHESIS, _CLUSTER, _SERVE = SynthesisConfig(), SlurmConfig(), ServeConfig()
_MANY, _ENGINE = ManyConfig(), EngineConfig()
Recipe = Annotated[str, positional("CONFIG"), Parameter(help="a recipe: a file, or a name: setting1, finetune, t, ...")]
Jobs = Annotated[str, positional("JOB"), Parameter(help="its name, and of its folder")]
_GOES_ON = "What is written is whole; the same command goes on from here (with --resume, if it has that option)."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status. SystemExit as from any program where there is nothing to run: after `--help`
    and `--version` (0), and for words that make no command (2)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words[: words.index("--")] if "--" in words else "--debug" in words
    words = [word for k, word in enumerate(words) if word != "--debug" or "--" in words[:k]]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        with _ended_by_sigterm():
            status = _run(words)
            sys.stdout.flush()
            return status
    except WholebodyError as error:
        if debug:
            raise
        _complain(str(error))
        return getattr(error, "exit_status", USAGE)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        _complain(f"interrupted. {_GOES_ON}")
        return INTERRUPTED
    except _Terminated:
        _complain(f"told to end (SIGTERM). {_GOES_ON}")
        return TERMINATED
    except BrokenPipeError:
        _leave_the_pipe()
        return NO_READER
    except Exception as error:
        if debug:
            raise
        _complain(
            f"unexpected {type(error).__name__}: {' '.join(str(error).split()) or 'no further words'}. This is a fault "
            f"of wholebody {__version__}: please report it with the command and what `--debug` shows when added to it."
        )
        return DEFECT


def _run(words: list[str]) -> int:
    try:
        command, bound, _ = app.parse_args(_with_values(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _complain(_sentence(error))
        raise SystemExit(USAGE) from None
    if getattr(command, "__func__", command) is App.help_print and not {"-h", "--help"} & set(words):
        _complain("which command? `wholebody --help` lists them all." if not words else
                  f"what with {' '.join(words)}? `wholebody {' '.join(words)} --help` says.")  # fmt: skip
        raise SystemExit(USAGE)
    status = command(*bound.args, **bound.kwargs)
    if not isinstance(status, int):  # help or version was printed
        raise SystemExit(OK)
    return status


app = App(
    name="wholebody",
    help="Whole-body 3D meshes of the people in photos. `wholebody COMMAND --help` says more of each; "
    "`--debug` shows where an unexpected error came from.",
    version=f"wholebody {__version__}",
    version_flags=["--version"],
    help_format="plaintext",
    help_formatter=HelpFormatter(),
    default_parameter=Parameter(negative=(), allow_repeating=True),
)


@app.command
def predict(config: Flat[PredictConfig], many: Flat[ManyConfig] = _MANY) -> int:
    """bodies of the people in pictures and films: meshes, motion, keypoints, overlays; with --engine as tables, of any
    number of pictures on any number of machines"""
    if many.engine is not None:
        return _predict_many(config, many)
    from wholebody.pipeline.predict import predict_files

    start = time.perf_counter()
    summary = predict_files(config, say)
    films = f"{counted(len(summary.films), 'film')} done, " if summary.films else ""
    say(
        f"{counted(len(summary.done), 'picture')} done, {films}{counted(summary.people, 'person')}, "
        f"{len(summary.skipped)} skipped as complete, {len(summary.problems)} failed; results in {config.out}"
    )
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in summary.seconds.items())
    say(f"seconds: {steps}{', ' if steps else ''}all {time.perf_counter() - start:.2f}")
    if summary.empty:
        say(
            f"nobody was found in {counted(len(summary.empty), 'picture')}; `--boxes whole` takes the whole picture as "
            "one person, `--detector rfdetr` looks closer:\n" + "\n".join(f"  {shown(name)}" for name in summary.empty)
        )
    return _failed(summary.problems)


def _predict_many(config: PredictConfig, many: ManyConfig) -> int:
    from tqdm import tqdm

    from wholebody.files.storage import as_address
    from wholebody.pipeline.many import PicturesWork, check_for_many, options_of
    from wholebody.scale.job import run_job
    from wholebody.scale.shard import Answer

    check_for_many(config)
    with tqdm(unit="shard", file=sys.stderr, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        summary = run_job(
            config.inputs, as_address(config.out), PicturesWork(config, Answer), options_of(config), many, say,
            overwrite=config.overwrite, progress=progress,
        )  # fmt: skip
    films = f"{counted(summary.films, 'film')}, " if summary.films else ""
    say(
        f"{counted(summary.pictures, 'picture')}, {films}{counted(summary.people, 'person')}, {summary.nobody} with "
        f"nobody, {summary.bad} bad; {counted(summary.shards, 'shard')} ({summary.before} done before) in "
        f"{summary.seconds:.1f} s; tables in {summary.out}"
    )
    if summary.bad:
        say(f"{counted(summary.bad, 'input')} could not be used, see {summary.out}/dead; the first:\n"
            + "\n".join(f"  {reason}" for reason in summary.reasons), file=sys.stderr)  # fmt: skip
    return OK


@app.command
def view(
    result: Annotated[tuple[str, ...], positional("RESULT")],
    *,
    open: Annotated[bool, Parameter(negative="--no-open")] = True,
) -> int:
    """open the page of a finished result in the browser

    Args:
        result: a page (.html), any other file of a result, its name, or a folder of results
        open: --no-open only says where the page is
    """
    from wholebody.pipeline.view import pages_of

    for page in pages_of(result, say):
        say(str(page))
        if open:
            import webbrowser

            if not webbrowser.open(page.resolve().as_uri()):
                say("no browser could be started here: open that file in one", file=sys.stderr)
    return OK


@app.command
def serve(config: Flat[ServeConfig] = _SERVE) -> int:
    """a web page that takes photos and films and shows the people in 3D (extra `serve`)"""
    from functools import partial

    from wholebody.pipeline.single import Single
    from wholebody.serve.app import serve as run

    predict_config = PredictConfig(
        inputs=(), out=Path("."), model=config.model, body=config.body, device=config.device
    )  # fmt: skip
    run(config, partial(Single, predict_config, config.max_seconds), say)
    return OK


@app.command
def annotate(config: Flat[AnnotateConfig], engine: Flat[EngineConfig] = _ENGINE) -> int:
    """label your own photos, to train on them"""
    import dataclasses

    from wholebody.pipeline.annotate import annotate as run

    config = dataclasses.replace(config, folder=config.folder.absolute())
    result = run(config, say, _spread(engine))
    say(
        f"{counted(result.pictures, 'picture')} ({result.before} known before), {counted(result.people, 'person')}, "
        f"{result.with_parameters} with parameters, {len(result.problems)} failed; in {config.folder / 'annotations'}"
    )
    return _failed(result.problems)


@app.command
def convert(config: Flat[ConvertConfig]) -> int:
    """results of one body as parameters of another: open body, SMPL, SMPL-H, SMPL-X, Anny"""
    from wholebody.pipeline.convert import convert as run

    for done in run(config, say):
        frames = f"{counted(done.frames, 'frame')}, " if done.frames > 1 else ""
        face = "" if done.expression_kept else "; no expression: the bodies have no face landmarks in common"
        say(
            f"{done.path}: {frames}skin within {1000 * done.mean_error:.1f} mm on average, "
            f"{1000 * done.worst_error:.1f} mm at the worst frame{face}"
        )
    return OK


@app.command
def info(path: Annotated[tuple[str, ...], positional("PATH")], *, family: str | None = None) -> int:
    """what a checkpoint, body or result file is

    Args:
        path: a file, a folder, or an embedded name (t, open)
        family: of a published checkpoint: osx, smpler_x or smplest_x, where its tensors and its name do not tell
    """
    from wholebody.pipeline.info import describe

    for one in path:
        say(describe(one, family))
    return OK


@app.command
def export(
    checkpoint: Annotated[str, positional("CKPT")],
    *,
    format: Literal["onnx", "openvino", "torchscript", "pt2"],
    out: Path,
    body: str | None = None,
    any_gender: bool = False,
    family: str | None = None,
    overwrite: bool = False,
) -> int:
    """a network and its body as one graph for other programs: a crop in, parameters, joints and mesh out

    Args:
        checkpoint: an embedded name (t), a .safetensors checkpoint or a published .pth.tar
        format: of the graph; pt2 is what `torch.export.load` reads, and `predict --model` reads onnx
        out: folder for the graph and the .json that says how to crop; made if missing
        body: as for predict
        any_gender: as for predict
        family: as for predict
        overwrite: write over files that are there
    """
    from wholebody.model.export import check_packages
    from wholebody.model.export import export as run
    from wholebody.model.load import EMBEDDED, load_model

    check_packages(format)
    model = load_model(checkpoint, body, any_gender=any_gender, family=family)
    name = model.config.name if checkpoint in EMBEDDED else Path(checkpoint).name.split(".")[0]
    for path in run(model, format, out, name, overwrite):
        say(str(path))
    return OK


body = App(name="body", help="the embedded open body")
app.command(body)


@body.command(name="export")
def export_body(out: Annotated[Path, positional("OUT")]) -> int:
    """write the open body as a file in the SMPL-X layout

    Args:
        out: file to write, .npz; the stock `smplx` package loads it
    """
    from wholebody.body.open_body import export

    say(str(export(out)))
    return OK


checkpoint = App(name="checkpoint", help="checkpoints")
app.command(checkpoint)


@checkpoint.command(name="convert")
def convert_checkpoint(
    source: Annotated[str, positional("SRC")], target: Annotated[str, positional("DST")], *, family: str | None = None
) -> int:
    """from the published form to ours, or back

    Args:
        source: a published .pth.tar or a .safetensors of ours
        target: the other of the two; the suffix decides
        family: of a published checkpoint: osx, smpler_x or smplest_x, where its tensors and its name do not tell
    """
    from wholebody.model.checkpoint import convert

    say(str(convert(source, target, family)))
    return OK


@checkpoint.command(name="merge-hand")
def merge_hand_checkpoint(
    whole: Annotated[str, positional("WHOLE")],
    hand: Annotated[str, positional("HAND")],
    target: Annotated[str, positional("DST")],
) -> int:
    """put a hand network's weights into a whole one, epoch 0

    Args:
        whole: the network that takes them
        hand: a network of hands alone, or a whole one of the same kind
        target: file to write, of the same form (.pth.tar or .safetensors)
    """
    from wholebody.model.checkpoint_tools import merge_hand

    say(str(merge_hand(whole, hand, target)))
    return OK


@checkpoint.command(name="reset-epoch")
def reset_checkpoint(source: Annotated[str, positional("SRC")], target: Annotated[str, positional("DST")]) -> int:
    """set a checkpoint's epoch back to 0

    Args:
        source: a published .pth.tar or a .safetensors of ours
        target: file to write, of the same form
    """
    from wholebody.model.checkpoint_tools import reset_epoch

    say(str(reset_epoch(source, target)))
    return OK


@app.command
def synth(
    *,
    out: Path,
    count: int,
    seed: int = 0,
    layers: bool = False,
    poses: bool = False,
    clips: bool = False,
    config: Flat[SynthesisConfig] = _SYNTHESIS,
    engine: Flat[EngineConfig] = _ENGINE,
) -> int:
    """draw synthetic people with exact truth

    Args:
        out: folder for the set
        count: how many samples
        seed: the same seed gives the same files
        layers: people alone with alpha, to be put before backgrounds while training
        poses: no pictures: people's joints and parameters, to learn lifting from
        clips: films of 3 seconds with the people's true motion; in every fourth of them people cross
    """
    from tqdm import tqdm

    from wholebody import synthesis

    if layers + poses + clips > 1:
        raise BadInput("--layers, --poses and --clips are kinds of sets: give one of them.")
    for kind, used in material_used(config).items():
        say(f"{kind}: {used['folder'] or 'made up'} (named by {used['named_by']})")
    if clips:
        from wholebody.synthesis.sets import clips as clip_sets

        with tqdm(total=count, unit="clip") as bar:
            say(str(clip_sets.run(out, count, seed, config, bar.update, spread=_spread(engine))))
        return OK
    if poses:
        if engine.engine is not None:
            raise BadInput("--poses writes one file, on one core of this machine: leave out --engine.")
        from wholebody.synthesis.sets import poses as pose_sets

        with tqdm(total=count, unit="person") as bar:
            say(str(pose_sets.run(out, count, seed, config, bar.update)))
        return OK
    with tqdm(total=count, unit="person") as bar:
        folder = synthesis.run(
            out.absolute(), count, seed, workers=_processes(engine.worker_count), config=config, layers=layers,
            progress=bar.update, spread=_spread(engine, own_workers=True),
        )  # fmt: skip
    say(str(folder))
    return OK


data = App(name="data", help="data sets")
app.command(data)


@data.command(name="check")
def check_data(
    root: Annotated[Path, positional("ROOT")],
    *,
    set: tuple[str, ...] = (),
    split: tuple[str, ...] = (),
    sheet: Path | None = None,
    each: int = 4,
    body: str | None = None,
    quick: bool = False,
) -> int:
    """which data sets are there, what they hold, where to get the others

    Args:
        root: the folder with MSCOCO, MPII, ..., or a single set's with --set
        set: look at this set only; may be repeated
        split: look at this split only; may be repeated
        sheet: draw a few people of each split with their truth, to this .png
        each: people of each split on the sheet
        body: body files: draws the joints of fitted bodies too
        quick: only see which files are there
    """
    from wholebody.data.check import check, lines

    reports = check(root, set, split, sheet, each, body, quick)
    say("\n".join(lines(reports)))
    if sheet:
        say(str(sheet))
    return OK if all(report.ok for report in reports) else SOME_FAILED


@data.command(name="index")
def index_data(
    root: Annotated[Path, positional("ROOT")],
    sets: Annotated[tuple[str, ...], positional("SET")] = (),
    *,
    out: Path | None = None,
    every: int | None = None,
    tars: bool = False,
    linked: tuple[Path, ...] = (),
    engine: Flat[EngineConfig] = _ENGINE,
) -> int:
    """write the index of each set that training reads

    Args:
        root: the folder with all sets; or with tars, with --tars
        sets: NAME or NAME:SPLIT; all that are there if none is named
        out: where indices are written; ROOT/index if not given
        every: of UBody every Nth annotation (published: 10 for training)
        tars: ROOT holds tars of `data shard` that came without their indices
        linked: a folder elsewhere to which links that you laid in a set's folder may lead; may be repeated
    """
    from wholebody.data.index import index_jobs, index_split, run_index
    from wholebody.data.shards import index_tars

    spread = _spread(engine)

    if tars:
        if sets or out or every or linked or spread:
            raise BadInput("--tars indexes all tars of ROOT beside them: leave out the sets and the other options.")
        say("\n".join(map(str, index_tars(root))))
        return OK
    if spread is None:
        for line in run_index(root, sets, out, every, linked):
            say(line)
        return OK
    jobs = list(index_jobs(root.absolute(), sets, out and out.absolute(), every, linked))
    for line in (job for job in jobs if isinstance(job, str)):
        say(line)
    begin = time.time()
    work = [job for job in jobs if not isinstance(job, str)]
    spread(index_split, work, lambda job: _newer(job[3], begin), say)
    return OK


@data.command(name="shard")
def shard_data(
    root: Annotated[Path, positional("ROOT")],
    sets: Annotated[tuple[str, ...], positional("SET")],
    *,
    out: Path,
    size: int = 256,
    linked: tuple[Path, ...] = (),
    engine: Flat[EngineConfig] = _ENGINE,
) -> int:
    """write indexed sets as WebDataset tars

    Args:
        root: the folder with all sets, indexed by `data index`
        sets: NAME or NAME:SPLIT
        out: folder for the tars and their indices
        size: of a tar, MB
        linked: a folder elsewhere to which links that you laid in a set's folder may lead; may be repeated
    """
    from wholebody.data.shards import run_shard, shard_jobs, shard_split

    problems: list[str] = []
    spread = _spread(engine)
    if spread is None:
        for line in run_shard(root, list(sets), out, size << 20, problems, linked):
            say(line)
    else:

        def done(result: tuple[str, list[str]]) -> None:
            say(result[0])
            problems.extend(result[1])

        begin = time.time()
        jobs = list(shard_jobs(root.absolute(), list(sets), out.absolute(), size << 20, linked))
        spread(shard_split, jobs, lambda job: _newer(job[4] / f"{job[0]}-{job[1]}.arrow", begin), done)
    for problem in problems:
        say(f"left out: {problem}", file=sys.stderr)
    return SOME_FAILED if problems else OK


@data.command(name="agora-json")
def agora_json(
    root: Annotated[Path, positional("ROOT")],
    *,
    split: tuple[str, ...] = (),
    vertices: Literal["validation", "all", "none"] = "validation",
) -> int:
    """AGORA's own tables to the annotations that are read

    Args:
        root: the set's folder, dataset/AGORA
        split: train or validation; both if not given
        vertices: for whom to write true meshes, 0.6 MB a person
    """
    from wholebody.data.preparation import agora

    summary = agora.agora_json(root, split or agora.TABLES, vertices)
    say(f"{counted(summary.pictures, 'picture')}, {counted(summary.people, 'person')}; annotations in {root / 'data'}")
    _list(summary.without_parameters, "person", "without usable parameters")
    _list(summary.misplaced, "person", "whose parameters lie elsewhere than the table says")
    return OK


@data.command(name="agora-crops")
def agora_crops(
    root: Annotated[Path, positional("ROOT")],
    *,
    split: tuple[str, ...] = (),
    height: int = 512,
    width: int = 384,
    workers: Workers = None,
) -> int:
    """cut everybody out of AGORA's pictures of 3840x2160

    Args:
        root: the set's folder, dataset/AGORA
        split: train, validation or test; all if not given
        height: of a crop, pixels
        width: of a crop, pixels
    """
    from tqdm import tqdm

    from wholebody.data.preparation import agora

    splits = split or ("train", "validation", "test")
    with tqdm(unit="picture") as bar:
        summary = agora.agora_crops(root, splits, (height, width), _processes(workers), bar.update)
    say(
        f"{counted(summary.written, 'crop')} written, {summary.skipped} were there, "
        f"{counted(len(summary.problems), 'picture')} failed"
    )
    _list(summary.problems, "picture", "failed")
    return SOME_FAILED if summary.problems else OK


@data.command(name="ubody-frames")
def ubody_frames(
    root: Annotated[Path, positional("ROOT")], *, scene: tuple[str, ...] = (), workers: Workers = None
) -> int:
    """UBody's videos to the pictures that its annotations name

    Args:
        root: the set's folder, dataset/UBody
        scene: only this scene; may be repeated
    """
    from tqdm import tqdm

    from wholebody.data.preparation import ubody

    with tqdm(unit="video") as bar:
        summary = ubody.ubody_frames(root, scene, _processes(workers), bar.update)
    say(
        f"{counted(summary.frames, 'picture')} of {counted(summary.videos, 'video')} written, "
        f"{summary.skipped} done before, {len(summary.problems)} failed"
    )
    _list(summary.problems, "video", "failed")
    return SOME_FAILED if summary.problems else OK


@app.command
def train(
    config: Recipe,
    overrides: Overrides = (),
    *,
    out: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    published_form: bool = False,
) -> int:
    """train a network

    Args:
        out: the run's folder; a run that is in it goes on
        devices: processes on this machine, one for each GPU
        nodes: machines; the same command runs on each
        published_form: snapshots as .pth.tar too, which the published code loads
    """
    from wholebody.training.launch import launch

    _say_what_is_left_out(config)
    if published_form:
        overrides = (*overrides, "published_form=true")
    folder = launch(config, overrides, out, devices, nodes)
    if folder is not None:
        say(str(folder))
    return OK


def _say_what_is_left_out(config: str) -> None:
    """Of a published config that is trained as a recipe. Only whoever starts the processes of a run says it."""
    if config.endswith(".py") and "RANK" not in os.environ:
        from wholebody.training.import_config import import_config
        from wholebody.training.recipes import find_recipe

        imported = import_config(find_recipe(config))
        say(f"{config} is read as a recipe of {imported.family}; left out of it:", file=sys.stderr)
        for line in imported.left_out:
            say(f"  {line}", file=sys.stderr)


recipe = App(name="recipe", help="recipes of training")
app.command(recipe)


@recipe.command(name="import")
def import_recipe(config: Annotated[Path, positional("CONFIG")], *, out: Path | None = None) -> int:
    """a published Python config (OSX, SMPLer-X, SMPLest-X) as a recipe; the config is read and never run

    Args:
        config: config_base.py, say
        out: file to write, .toml; printed if not given
    """
    from wholebody.files.whole import write_bytes
    from wholebody.training.import_config import import_config, recipe_text
    from wholebody.training.recipes import find_recipe

    path = find_recipe(config)
    imported = import_config(path)
    text = recipe_text(imported, path.name)
    if out is None:
        print(text, end="", flush=True)
    elif out.exists():
        raise BadInput(f"{out} is there already, and is not written over: choose another --out")
    else:
        say(str(write_bytes(out, text.encode())))
    for line in imported.left_out:
        say(f"left out: {line}", file=sys.stderr)
    return OK


slurm = App(name="slurm", help="train and test on a Slurm cluster")
app.command(slurm)


@slurm.command(name="train")
def slurm_train(
    job: Jobs,
    gpus: Annotated[int, positional("NUM_GPU")],
    config: Recipe,
    overrides: Overrides = (),
    *,
    out: Path | None = None,
    cluster: Flat[SlurmConfig] = _CLUSTER,
) -> int:
    """queue a run, one process per GPU

    Args:
        gpus: of all nodes together
        out: the run's folder, output/train_JOB_DATE_TIME if not given; a run that is in it goes on
    """
    from wholebody.training.slurm import submit_training

    submitted = submit_training(job, gpus, config, overrides, cluster, out)
    say(f"job {submitted.job_id}\n{submitted.folder}")
    return OK


@slurm.command(name="test")
def slurm_test(
    job: Jobs,
    gpus: Annotated[int, positional("NUM_GPU")],
    run: Annotated[Path, positional("TRAIN_OUTPUT_DIR")],
    snapshot: Annotated[str, positional("CKPT_ID")],
    *,
    testset: str = "all",
    root: str | None = None,
    body: str | None = None,
    cluster: Flat[SlurmConfig] = _CLUSTER,
) -> int:
    """queue the evaluation of a run's snapshot: all test sets that are there in turn, one table at the end

    Args:
        gpus: of the node
        run: the run's folder, or its name in output
        snapshot: N of model_dump/snapshot_N
        testset: as of `wholebody evaluate`
        root: where the test sets lie; dataset if not given
        body: file or folder with SMPL-X; the run's if not given
    """
    from wholebody.training.slurm import submit_test

    submitted = submit_test(job, gpus, run, snapshot, testset, root, body, cluster)
    say(f"job {submitted.job_id}\n{submitted.folder}")
    return OK


@slurm.command(name="inference")
def slurm_inference(
    video: Annotated[str, positional("VIDEO")],
    format: Annotated[str, positional("FORMAT")],
    fps: Annotated[float, positional("FPS")],
    checkpoint: Annotated[str, positional("CKPT")],
    *,
    body: str | None = None,
    out: Path | None = None,
    max_people: int | None = None,
    cluster: Flat[SlurmConfig] = _CLUSTER,
) -> int:
    """queue the prediction of a film, with the files that SMPLer-X's script writes

    Args:
        video: VIDEO.FORMAT in demo/videos, or its path without .FORMAT
        fps: frames a second to look at
        checkpoint: a name in pretrained_models, a file, or an embedded name
        body: file or folder with SMPL-X; human_model_files if not given and needed
        out: folder for the results; demo/results/VIDEO if not given
        max_people: only so many people; 1 as the published script
    """
    from wholebody.pipeline.slurm import submit_inference

    submitted = submit_inference(video, format, fps, checkpoint, body, out, max_people, cluster)
    say(f"job {submitted.job_id}\n{submitted.folder}")
    return OK


@app.command(usage="wholebody evaluate --testset SET [OPTIONS] MODEL")
def evaluate(config: Flat[EvaluateConfig]) -> int:
    """measure networks on a test set"""
    from wholebody.evaluation.evaluate import evaluate as run

    run(config, say)
    return OK


@app.command(usage="wholebody reproduce --root PATH --checkpoints PATH --body PATH [OPTIONS]")
def reproduce(config: Flat[ReproduceConfig]) -> int:
    """the paper's table from published checkpoints, ours beside it"""
    from wholebody.evaluation.reproduce import reproduce as run

    _, failed = run(config)
    return SOME_FAILED if failed else OK


def _spread(config: EngineConfig, own_workers: bool = False) -> Any:
    """What does jobs by an engine; None: no engine was asked for. own_workers: the command has some without engines."""
    if config.engine is None:
        if config.worker_count is not None and not own_workers:
            raise BadInput("--workers: goes with --engine local, slurm or ray.")
        return None

    def spread(function: Any, jobs: Sequence[Any], is_finished: Any, done: Any) -> None:
        from wholebody.scale.calls import run_calls

        run_calls(function, jobs, config, say, is_finished, done)

    return spread


def _newer(path: Path, begin: float) -> bool:
    return path.exists() and path.stat().st_mtime >= begin - 1


def say(text: str, file: Any = None) -> None:
    """Print lines at once, with nothing in them that could disturb a terminal."""
    print(shown_lines(text), file=file or sys.stdout, flush=True)


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):
        say(f"wholebody: {text}", file=sys.stderr)


def _failed(problems: Sequence[str]) -> int:
    for problem in problems:
        say(f"failed: {problem}", file=sys.stderr)
    return SOME_FAILED if problems else OK


def _list(problems: Sequence[str], what: str, trouble: str, most: int = 20) -> None:
    if problems:
        more = f"\n  and {len(problems) - most} more" if len(problems) > most else ""
        names = "\n".join(f"  {shown(name)}" for name in problems[:most])
        say(f"{counted(len(problems), what)} {trouble}:\n{names}{more}", file=sys.stderr)


def _processes(workers: int | None) -> int:
    return workers or os.cpu_count() or 1


def _with_values(words: list[str]) -> list[str]:
    """`--refine` as `--refine=auto`: it takes no word, for the next may be a picture. A word that cannot be one (a
    .json file, the name of a source) is its value, as it was in the first version."""
    end = words.index("--") if "--" in words else len(words)
    done: list[str] = []
    for word, after in zip(words[:end], [*words[1:end], ""], strict=False):
        if done and done[-1] == f"--={word}":
            done.pop()  # was the value of the option before
        elif word not in ALONE:
            done.append(word)
        elif after in VALUES or after.lower().endswith(".json"):
            done += [f"{word}={after}", f"--={after}"]
        else:
            done.append(f"{word}={ALONE[word]}")
    return done + words[end:]


def _sentence(error: CycloptsError) -> str:
    """What is wrong with the words of a command, and what to do."""
    words = " ".join(error.command_chain or ())
    help_ = f"`wholebody {words}{' ' if words else ''}--help` says more."
    argument = error.argument
    if isinstance(error, MissingArgumentError) and argument is not None:
        if error.keyword:
            return f"{error.keyword} needs a value. {help_}"
        name = argument.name
        return f"{words} needs {name.removeprefix('--') if name[2:].isupper() else name}. {help_}"
    if isinstance(error, CoercionError) and argument is not None and error.token is not None:
        kind = argument.hint
        wanted = {int: "a whole number", float: "a number"}.get(kind, "")
        if wanted:
            return f"{error.token.keyword or argument.name} {error.token.value}: is not {wanted}. {help_}"
    if isinstance(error, UnusedCliTokensError):
        return f"nothing is known to do with {' '.join(error.unused_tokens or [])}. {help_}"
    return f"{' '.join(str(error).split())} {help_}"


class _Terminated(BaseException):
    """SIGTERM came."""


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Within, SIGTERM ends worker processes first and then the command in good order, as Ctrl-C does."""

    ours = os.getpid()

    def end(number: int, frame: Any) -> None:
        if os.getpid() != ours:  # a worker that was forked from us: it just goes
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        multiprocessing = sys.modules.get("multiprocessing")
        for child in multiprocessing.active_children() if multiprocessing else ():
            child.terminate()
        raise _Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: whoever runs us decides
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave_the_pipe() -> None:
    """Python flushes at its end and would complain of the closed pipe again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
