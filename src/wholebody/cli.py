"""The command line. Every command parses its options and calls one function; nothing heavy is imported before that."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from wholebody import __version__
from wholebody.errors import WholebodyError

OK, SOME_FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all done, 1 some inputs failed (reported at the end), 2 the command cannot be carried out."""
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes a list of words in one place only; settings of a recipe may also follow the options.
    if rest and not (hasattr(options, "overrides") and all("=" in word and word[0] != "-" for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    try:
        return options.command(options)
    except WholebodyError as error:
        print(f"wholebody: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(
            "\nwholebody: interrupted. What is written is whole; `predict --resume` goes on from here.", file=sys.stderr
        )
        return 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wholebody", description="Whole-body 3D meshes of the people in a photo.")
    parser.add_argument("--version", action="version", version=f"wholebody {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_annotate(commands)
    _add_info(commands)
    _add_body(commands)
    _add_checkpoint(commands)
    _add_synth(commands)
    _add_data(commands)
    _add_train(commands)
    _add_slurm(commands)
    _add_evaluate(commands)
    _add_reproduce(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "predict", predict, "meshes, keypoints and overlays of the people in pictures")
    add("inputs", nargs="+", metavar="INPUT", help="pictures, folders of pictures, or globs")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the results; made if missing")
    add(
        "--model",
        default="t",
        help="an embedded name (t), a .safetensors checkpoint or a published .pth.tar; default t",
    )
    add(
        "--body", metavar="PATH", help="open (embedded), or a file or folder with SMPL-X; default: what the model needs"
    )
    add(
        "--boxes",
        metavar="FILE|whole",
        help="JSON with person boxes (COCO detections, or boxes by picture name), or "
        "`whole`: one person fills the picture; default: the detector finds them",
    )
    add(
        "--detector",
        default="movenet",
        choices=("movenet", "rfdetr", "whole"),
        help="movenet (embedded), rfdetr (if installed), whole; default movenet",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps; default auto")
    add("--batch-size", type=int, metavar="N", help="people at a time; default 4 on a CPU, 32 on a GPU")
    add(
        "--save",
        default="overlay,npz,obj,ply,glb,json",
        metavar="KINDS",
        help="comma-separated: overlay,npz,obj,ply,glb,json (the .json is always written); default all",
    )
    add(
        "--refine",
        nargs="?",
        const="auto",
        metavar="KEYPOINTS.json",
        help="fit the bodies to 2D keypoints: a file in COCO or COCO-WholeBody form, `mediapipe` (if installed), "
        "`movenet` (embedded); without a value the best of these two. Write it after the pictures",
    )
    add("--opacity", type=float, default=0.9, help="of the mesh over the photo, 0 to 1; default 0.9")
    add("--resume", action="store_true", help="skip pictures that an earlier run finished")


def predict(options: argparse.Namespace) -> int:
    from wholebody.pipeline.predict import PredictConfig, predict_files

    start = time.perf_counter()
    summary = predict_files(
        PredictConfig(
            inputs=tuple(options.inputs),
            out=options.out,
            model=options.model,
            body=options.body,
            boxes=options.boxes,
            detector=options.detector,
            device=options.device,
            batch_size=options.batch_size,
            opacity=options.opacity,
            save=tuple(kind.strip() for kind in options.save.split(",") if kind.strip()),
            resume=options.resume,
            refine=options.refine,
        )
    )

    print(
        f"{len(summary.done)} pictures done, {summary.people} people, {len(summary.skipped)} skipped as complete, "
        f"{len(summary.problems)} failed; results in {options.out}"
    )
    steps = ", ".join(f"{step} {seconds:.2f}" for step, seconds in summary.seconds.items())
    print(f"seconds: {steps}{', ' if steps else ''}all {time.perf_counter() - start:.2f}")
    if summary.empty:
        print(
            f"nobody was found in {len(summary.empty)} pictures; `--boxes whole` takes the whole picture as one "
            "person, `--detector rfdetr` looks closer:\n" + "\n".join(f"  {name}" for name in summary.empty)
        )
    for problem in summary.problems:
        print(f"failed: {problem}", file=sys.stderr)
    return SOME_FAILED if summary.problems else OK


def _add_annotate(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "annotate", annotate, "label your own photos, to train on them")
    add("folder", type=Path, metavar="DIR", help="holds `images`; gets `annotations`, see docs/fitting.md")
    add(
        "--keypoints",
        default="auto",
        metavar="FILE",
        help="a file in COCO or COCO-WholeBody form, `mediapipe` (if installed), `movenet` (embedded); default the "
        "better of the last two",
    )
    add("--split", default="train", choices=("train", "val", "test"), help="default train")
    add("--detector", default="movenet", choices=("movenet", "rfdetr", "whole"), help="without a file; default movenet")
    add("--model", default="t", help="as for predict")
    add("--body", metavar="PATH", help="as for predict")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps; default auto")
    add("--min-quality", type=float, default=0.5, metavar="Q", help="parameters from this quality on; default 0.5")


def annotate(options: argparse.Namespace) -> int:
    from wholebody.pipeline.annotate import AnnotateConfig
    from wholebody.pipeline.annotate import annotate as run

    names = ("folder", "keypoints", "split", "detector", "model", "body", "device", "min_quality")
    result = run(AnnotateConfig(**{name: getattr(options, name) for name in names}))
    print(
        f"{result.pictures} pictures ({result.before} known before), {result.people} people, "
        f"{result.with_parameters} with parameters, {len(result.problems)} failed; in {options.folder / 'annotations'}"
    )
    for problem in result.problems:
        print(f"failed: {problem}", file=sys.stderr)
    return SOME_FAILED if result.problems else OK


def _add_info(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "info", info, "what a checkpoint, body or result file is")
    add("path", nargs="+", metavar="PATH", help="a file, a folder, or an embedded name (t, open)")


def info(options: argparse.Namespace) -> int:
    from wholebody.pipeline.info import describe

    for path in options.path:
        print(describe(path))
    return OK


def _add_body(commands: argparse._SubParsersAction) -> None:
    group = commands.add_parser("body", help="the embedded open body").add_subparsers(required=True, metavar="ACTION")
    add = _command(group, "export", export_body, "write the open body as a file in the SMPL-X layout")
    add("out", type=Path, metavar="OUT", help="file to write, .npz; the stock `smplx` package loads it")


def export_body(options: argparse.Namespace) -> int:
    from wholebody.body.open_body import export

    print(export(options.out))
    return OK


def _add_checkpoint(commands: argparse._SubParsersAction) -> None:
    group = commands.add_parser("checkpoint", help="checkpoints").add_subparsers(required=True, metavar="ACTION")
    add = _command(group, "convert", convert_checkpoint, "from the published form to ours, or back")
    add("source", metavar="SRC", help="a published .pth.tar or a .safetensors of ours")
    add("target", metavar="DST", help="the other of the two; the suffix decides")
    add = _command(group, "merge-hand", merge_hand_checkpoint, "put a hand network's weights into a whole one, epoch 0")
    add("whole", metavar="WHOLE", help="the network that takes them")
    add("hand", metavar="HAND", help="a network of hands alone, or a whole one of the same kind")
    add("target", metavar="DST", help="file to write, of the same form (.pth.tar or .safetensors)")
    add = _command(group, "reset-epoch", reset_checkpoint, "set a checkpoint's epoch back to 0")
    add("source", metavar="SRC", help="a published .pth.tar or a .safetensors of ours")
    add("target", metavar="DST", help="file to write, of the same form")


def merge_hand_checkpoint(options: argparse.Namespace) -> int:
    from wholebody.model.checkpoint_tools import merge_hand

    print(merge_hand(options.whole, options.hand, options.target))
    return OK


def reset_checkpoint(options: argparse.Namespace) -> int:
    from wholebody.model.checkpoint_tools import reset_epoch

    print(reset_epoch(options.source, options.target))
    return OK


def convert_checkpoint(options: argparse.Namespace) -> int:
    from wholebody.model.checkpoint import convert

    print(convert(options.source, options.target))
    return OK


def _add_synth(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "synth", synth, "draw synthetic people with exact truth")
    add("--out", required=True, type=Path, metavar="DIR")
    add("--count", required=True, type=int, metavar="N", help="how many samples")
    add("--seed", type=int, default=0, help="the same seed gives the same files; default 0")
    add("--workers", type=int, default=None, help="processes; default one per core")
    add("--motion", metavar="DIR", help="recorded poses to draw from")
    add("--hdri", metavar="DIR", help="environment maps that light the people")
    add("--assets", metavar="DIR", help="MakeHuman's clothes and hair; default painted clothes if none are found")
    add("--backgrounds", metavar="DIR", help="pictures to put behind them")
    add("--split", default="train", choices=("train", "heldout", "all"), help="whose motion; default train")
    add("--recombine", type=float, default=0.0, metavar="SHARE",
        help="of people, whose limbs come from different recorded poses; default 0")
    add("--layers", action="store_true", help="people alone with alpha, to be put before backgrounds while training")
    add("--poses", action="store_true", help="no pictures: people's joints and parameters, to learn lifting from")


def synth(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wholebody.synthesis import SynthesisConfig, run

    config = SynthesisConfig(
        motion=options.motion, hdri=options.hdri, assets=options.assets, backgrounds=options.backgrounds,
        split=options.split, recombined_fraction=options.recombine,
    )  # fmt: skip
    if options.poses:
        from wholebody.synthesis.sets import poses

        with tqdm(total=options.count, unit="person") as bar:
            print(poses.run(options.out, options.count, options.seed, config, bar.update))
        return OK
    with tqdm(total=options.count, unit="person") as bar:
        out = run(
            options.out,
            options.count,
            options.seed,
            workers=options.workers or os.cpu_count() or 1,
            config=config,
            layers=options.layers,
            progress=bar.update,
        )
    print(out)
    return OK


def _add_data(commands: argparse._SubParsersAction) -> None:
    group = commands.add_parser("data", help="data sets").add_subparsers(required=True, metavar="ACTION")
    add = _command(group, "check", check_data, "which data sets are there, what they hold, where to get the others")
    add("root", type=Path, metavar="ROOT", help="the folder with MSCOCO, MPII, ..., or a single set's with --set")
    add("--set", action="append", default=[], metavar="NAME", help="look at this set only; may be repeated")
    add("--split", action="append", default=[], metavar="NAME", help="look at this split only; may be repeated")
    add("--sheet", type=Path, metavar="FILE.png", help="draw a few people of each split with their truth")
    add("--each", type=int, default=4, metavar="N", help="people of each split on the sheet; default 4")
    add("--body", metavar="PATH", help="body files: draws the joints of fitted bodies too")
    add("--quick", action="store_true", help="only see which files are there")
    add = _command(group, "index", index_data, "write the index of each set that training reads")
    add("root", type=Path, metavar="ROOT", help="the folder with all sets; or with tars, with --tars")
    add("sets", nargs="*", metavar="SET", help="NAME or NAME:SPLIT; default all that are there")
    add("--out", type=Path, metavar="DIR", help="where indices are written; default ROOT/index")
    add("--every", type=int, metavar="N", help="of UBody every Nth annotation (published: 10 for training); default 1")
    add("--tars", action="store_true", help="ROOT holds tars of `data shard` that came without their indices")
    add = _command(group, "shard", shard_data, "write indexed sets as WebDataset tars")
    add("root", type=Path, metavar="ROOT", help="the folder with all sets, indexed by `data index`")
    add("sets", nargs="+", metavar="SET", help="NAME or NAME:SPLIT")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for the tars and their indices")
    add("--size", type=int, default=256, metavar="MB", help="of a tar; default 256")
    _add_preparation(group)


def _add_preparation(group: argparse._SubParsersAction) -> None:
    add = _command(group, "agora-json", agora_json, "AGORA's own tables to the annotations that are read")
    add("root", type=Path, metavar="ROOT", help="the set's folder, dataset/AGORA")
    add("--split", action="append", default=[], metavar="NAME", help="train or validation; default both")
    add("--vertices", default="validation", choices=("validation", "all", "none"),
        help="for whom to write true meshes, 0.6 MB a person; default validation")  # fmt: skip
    add = _command(group, "agora-crops", agora_crops, "cut everybody out of AGORA's pictures of 3840x2160")
    add("root", type=Path, metavar="ROOT", help="the set's folder, dataset/AGORA")
    add("--split", action="append", default=[], metavar="NAME", help="train, validation or test; default all")
    add("--height", type=int, default=512, metavar="PIXELS", help="of a crop; default 512")
    add("--width", type=int, default=384, metavar="PIXELS", help="of a crop; default 384")
    add("--workers", type=int, default=None, help="processes; default one per core")
    add = _command(group, "ubody-frames", ubody_frames, "UBody's videos to the pictures that its annotations name")
    add("root", type=Path, metavar="ROOT", help="the set's folder, dataset/UBody")
    add("--scene", action="append", default=[], metavar="NAME", help="only this scene; may be repeated")
    add("--workers", type=int, default=None, help="processes; default one per core")


def agora_json(options: argparse.Namespace) -> int:
    from wholebody.data.preparation import agora

    summary = agora.agora_json(options.root, options.split or agora.TABLES, options.vertices)
    print(f"{summary.pictures} pictures, {summary.people} people; annotations in {options.root / 'data'}")
    _print_some(summary.without_parameters, "people without usable parameters")
    _print_some(summary.misplaced, "people whose parameters lie elsewhere than the table says")
    return OK


def agora_crops(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wholebody.data.preparation import agora

    splits = options.split or ("train", "validation", "test")
    with tqdm(unit="picture") as bar:
        size = (options.height, options.width)
        summary = agora.agora_crops(options.root, splits, size, options.workers or os.cpu_count() or 1, bar.update)
    print(f"{summary.written} crops written, {summary.skipped} were there, {len(summary.problems)} pictures failed")
    _print_some(summary.problems, "pictures failed")
    return SOME_FAILED if summary.problems else OK


def ubody_frames(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from wholebody.data.preparation import ubody

    with tqdm(unit="video") as bar:
        summary = ubody.ubody_frames(options.root, options.scene, options.workers or os.cpu_count() or 1, bar.update)
    print(
        f"{summary.frames} pictures of {summary.videos} videos written, {summary.skipped} videos were done before, "
        f"{len(summary.problems)} failed"
    )
    _print_some(summary.problems, "videos failed")
    return SOME_FAILED if summary.problems else OK


def _print_some(problems: Sequence[str], what: str, most: int = 20) -> None:
    if problems:
        more = f"\n  and {len(problems) - most} more" if len(problems) > most else ""
        print(f"{len(problems)} {what}:\n" + "\n".join(f"  {name}" for name in problems[:most]) + more, file=sys.stderr)


def check_data(options: argparse.Namespace) -> int:
    from wholebody.data.check import check, lines

    reports = check(
        options.root, options.set, options.split, options.sheet, options.each, options.body, options.quick
    )
    print("\n".join(lines(reports)))
    if options.sheet:
        print(options.sheet)
    return OK if all(report.ok for report in reports) else SOME_FAILED


def index_data(options: argparse.Namespace) -> int:
    from wholebody.data.index import run_index
    from wholebody.data.shards import index_tars

    if options.tars:
        print("\n".join(map(str, index_tars(options.root))))
        return OK
    for line in run_index(options.root, options.sets, options.out, options.every):
        print(line, flush=True)
    return OK


def shard_data(options: argparse.Namespace) -> int:
    from wholebody.data.shards import run_shard

    problems: list[str] = []
    for line in run_shard(options.root, options.sets, options.out, options.size << 20, problems):
        print(line, flush=True)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    return SOME_FAILED if problems else OK


def _add_train(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "train", train, "train a network")
    add("config", type=Path, metavar="CONFIG", help="a recipe, see configs/")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    add("--out", type=Path, metavar="DIR", help="the run's folder; a run that is in it goes on")
    add("--devices", type=int, default=1, metavar="N", help="processes on this machine, one for each GPU; default 1")
    add("--nodes", type=int, default=1, metavar="N", help="machines; the same command runs on each; default 1")


def train(options: argparse.Namespace) -> int:
    from wholebody.training.launch import Stopped, launch

    try:
        folder = launch(options.config, options.overrides, options.out, options.devices, options.nodes)
    except Stopped as stopped:
        print(f"wholebody: {stopped}", file=sys.stderr)
        return stopped.exit_status
    if folder is not None:
        print(folder)
    return OK


def _add_slurm(commands: argparse._SubParsersAction) -> None:
    text = "train and test on a Slurm cluster"
    group = commands.add_parser("slurm", help=text).add_subparsers(required=True, metavar="ACTION")
    add = _command(group, "train", slurm_train, "queue a run, one process per GPU")
    add("job", metavar="JOB", help="its name, and of its folder: output/train_JOB_DATE_TIME")
    add("gpus", type=int, metavar="NUM_GPU")
    add("config", metavar="CONFIG", help="a recipe: a path, or a name in configs/")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    add("--out", type=Path, metavar="DIR", help="the run's folder; a run that is in it goes on")
    _add_cluster(add)
    add = _command(group, "test", slurm_test, "queue the evaluation of a run's snapshot")
    add("job", metavar="JOB", help="its name, and of its folder: output/test_JOB_DATE_TIME")
    add("gpus", type=int, metavar="NUM_GPU")
    add("run", type=Path, metavar="TRAIN_OUTPUT_DIR", help="the run's folder")
    add("snapshot", metavar="CKPT_ID", help="N of model_dump/snapshot_N")
    add("--testset", default="EHF", metavar="SET", help="as of `wholebody evaluate`; default EHF")
    add("--root", metavar="DIR", help="where the test set lies")
    add("--body", metavar="PATH", help="file or folder with SMPL-X; default: the run's")
    _add_cluster(add)


def _add_cluster(add) -> None:
    add("--partition", metavar="NAME", help="default: the cluster's")
    add("--account", metavar="NAME")
    add("--time", type=int, default=1440, metavar="MINUTES", help="a job saves and is requeued before; default 1440")
    add("--gpus-per-node", type=int, default=8, metavar="N", help="of the cluster; default 8")
    add("--gres", metavar="TEXT", help="how this cluster names GPUs; `none`: as many processes on CPUs")


def slurm_train(options: argparse.Namespace) -> int:
    from wholebody.training.slurm import submit_training

    cluster = _cluster(options)
    submitted = submit_training(options.job, options.gpus, options.config, options.overrides, cluster, options.out)
    print(f"job {submitted.job_id}\n{submitted.folder}")
    return OK


def slurm_test(options: argparse.Namespace) -> int:
    from wholebody.training.slurm import submit_test

    submitted = submit_test(
        options.job, options.gpus, options.run, options.snapshot, options.testset, options.root, options.body,
        _cluster(options),
    )  # fmt: skip
    print(f"job {submitted.job_id}\n{submitted.folder}")
    return OK


def _cluster(options: argparse.Namespace):
    from wholebody.training.slurm import SlurmConfig

    return SlurmConfig(
        options.partition, options.account, options.time, gpus_per_node=options.gpus_per_node, gres=options.gres
    )


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "evaluate", evaluate, "measure networks on a test set")
    add("models", nargs="+", metavar="MODEL", help="an embedded name or checkpoints; several share one table")
    add(
        "--testset",
        required=True,
        metavar="SET",
        help="EHF, AGORA, AGORA-test (a submission), PW3D, UBody, UBody-inter, synthetic, real, coco2d, mpii2d",
    )
    add("--root", type=Path, metavar="DIR", help="the test set's folder, or the one that holds all sets")
    add("--out", type=Path, metavar="DIR", help="folder for the report; default output/evaluate/SET")
    add("--body", metavar="PATH", help="folder with the SMPL-X files, see docs/evaluation.md")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1; default auto")
    add("--batch-size", type=int, metavar="N", help="people at a time; default 4 on a CPU, 32 on a GPU")
    add("--limit", type=int, metavar="N", help="only the first N people")
    add("--every", type=int, metavar="N", help="every Nth person only; default as published (UBody 100, else 1)")
    add("--gallery", type=int, default=3, metavar="N", help="best, middle and worst samples to draw; default 3")


def evaluate(options: argparse.Namespace) -> int:
    from wholebody.evaluation.evaluate import EvaluateConfig
    from wholebody.evaluation.evaluate import evaluate as run

    names = ("testset", "root", "out", "body", "device", "batch_size", "limit", "every", "gallery")
    run(EvaluateConfig(models=tuple(options.models), **{name: getattr(options, name) for name in names}))
    return OK


def _add_reproduce(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "reproduce", reproduce, "the paper's table from published checkpoints, ours beside it")
    add("--root", required=True, type=Path, metavar="DATASETS", help="holds EHF, AGORA, PW3D, UBody")
    add("--checkpoints", required=True, type=Path, metavar="DIR", help="holds osx_l.pth.tar and the others")
    add("--body", required=True, metavar="PATH", help="folder with the SMPL-X files, see docs/evaluation.md")
    add("--out", type=Path, default=Path("output/reproduce"), metavar="DIR", help="default output/reproduce")
    add("--only", nargs="+", default=(), metavar="SET", help="some of EHF, AGORA, PW3D, UBody, AGORA-test")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1; default auto")
    add("--batch-size", type=int, metavar="N", help="people at a time")
    add("--limit", type=int, metavar="N", help="only the first N people of each set")
    add("--every", type=int, metavar="N", help="every Nth person only; default as published")


def reproduce(options: argparse.Namespace) -> int:
    from wholebody.evaluation.reproduce import ReproduceConfig
    from wholebody.evaluation.reproduce import reproduce as run

    names = ("root", "checkpoints", "body", "out", "device", "batch_size", "limit", "every")
    _, failed = run(ReproduceConfig(only=tuple(options.only), **{name: getattr(options, name) for name in names}))
    return SOME_FAILED if failed else OK


def _command(commands: argparse._SubParsersAction, name: str, function, text: str):
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(command=function)
    return parser.add_argument


if __name__ == "__main__":
    sys.exit(main())
