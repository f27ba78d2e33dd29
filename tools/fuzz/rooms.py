"""What is read as several files together, or by a whole room: sets, layers, runs, submissions, meshes, films, results.

Seeds of several files are bundles (`mutate.bundle`); their readers unpack them into a folder beside the file.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tools.fuzz.mutate import bundle, unbundle

TESTS = Path(__file__).parents[2] / "tests"
_MOST = 150_000  # bytes of a file that goes into a bundle


def _folder_of(folder: Path, *endings: str) -> bytes:
    """A bundle of the small files of a folder; endings: only of those."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.stat().st_size <= _MOST and (not endings or path.suffix in endings):
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    return bundle(files)


def unpacked(read: Callable[[Path], object]) -> Callable[[Path], None]:
    """A reader of a bundle from a reader of the folder with its files."""

    def read_bundle(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            if unbundle(path.read_bytes(), Path(folder)):
                read(Path(folder))

    return read_bundle


def each(*reads: Callable[[], object]) -> None:
    """Call them all: what one refuses the next may not."""
    from wholebody.errors import WholebodyError

    for read in reads:
        try:
            read()
        except WholebodyError:
            pass


# The sets that are read, as the tests forge them


@cache
def _people() -> Any:
    sys.path.insert(0, str(TESTS))
    from data.forge.people import make_people

    return make_people(_body(), count=3)


@cache
def _body() -> Any:
    from wholebody.body.layer import BodyModel

    return BodyModel.load()


def set_seeds() -> Iterator[bytes]:
    import importlib

    people = _people()
    for name in ("agora", "ehf", "human36m", "humandata", "mpii", "mpi_inf_3dhp", "mscoco", "own", "pw3d", "ubody"):
        with tempfile.TemporaryDirectory() as folder:
            importlib.import_module(f"data.forge.{name}").forge(Path(folder), people)
            yield _folder_of(Path(folder), ".json", ".npz", ".npy", ".pkl", ".txt", ".csv")


def read_sets(folder: Path) -> None:
    """As every set whose files are there: the first of them are, whichever set a bundle was."""
    from wholebody.data.index import write_index
    from wholebody.data.readers import READERS
    from wholebody.errors import WholebodyError

    for info in READERS.values():
        for split in info.splits:
            wanted = info.files[split][0].split("|")
            if not any(any(folder.glob(name)) for name in wanted):
                continue
            try:
                people = list(info.read(folder, split))
                index = folder / "index.arrow"
                write_index(people, index, dataset=info.name, split=split)
                _read_index(index)
            except WholebodyError:
                pass


def _read_index(path: Path) -> None:
    from wholebody.data.index import Index

    index = Index(path)
    for number in range(len(index)):
        index[number]


# Layers, poses and clips of synthesis


def layer_seeds() -> Iterator[bytes]:
    import cv2

    from wholebody.data.sample import masked_sample
    from wholebody.synthesis.render import Layer
    from wholebody.synthesis.sets.clips import ClipTruth
    from wholebody.synthesis.sets.layers import write_shard
    from wholebody.synthesis.sets.poses import FILE, KEYS

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        layers = []
        for k in range(3):
            sample = masked_sample(f"{k}", np.array([1.0, 2, 8, 9]), frame_xyxy=np.array([0.0, 0, 12, 16]))
            color, alpha = (rng.integers(0, 255, shape, np.uint8) for shape in ((16, 12, 3), (16, 12)))
            layers.append(Layer(color, alpha, sample, alpha if k else None))
        write_shard(folder, 0, layers)
        recipe = {"config": {"size_hw": None}, "seed": 0}
        (folder / "recipe.json").write_text(json.dumps(recipe))
        shapes = {"full_pose": (5, 55, 3), "betas": (5, 10), "expression": (5, 10)}
        np.savez(folder / FILE, **{key: np.zeros(shapes.get(key, (5, 55, 3)), np.float32) for key in KEYS})  # type: ignore[arg-type]
        people, frames = 2, 3
        wide = {
            "fps": (), "crossing": (), "focal_px": (), "principal_px": (2,), "camera_from_world": (4, 4),
            "full_pose": (people, frames, 55, 3), "betas": (people, 10), "expression": (people, frames, 10),
            "transl": (people, frames, 3), "box_xyxy": (people, frames, 4), "visible": (people, frames),
        }  # fmt: skip
        assert wide.keys() == ClipTruth.__dataclass_fields__.keys()
        (folder / "clips").mkdir()
        np.savez(folder / "clips" / "000000.npz", **{key: np.ones(shape) for key, shape in wide.items()})  # type: ignore[arg-type]
        picture = cv2.imencode(".jpg", rng.integers(0, 255, (16, 12, 3), np.uint8))[1].tobytes()
        (folder / "images").mkdir()
        (folder / "images" / "000000.jpg").write_bytes(picture)
        yield _folder_of(folder)
        (folder / FILE).unlink()
        yield _folder_of(folder)


def read_layers(folder: Path) -> None:
    from wholebody.synthesis.sets.clips import ClipTruth
    from wholebody.synthesis.sets.layers import LayerSet, read_truth
    from wholebody.synthesis.sets.poses import read_people

    def layers() -> None:
        found = LayerSet(folder)
        found.samples()
        for number in range(min(len(found), 5)):
            found.get(number)

    each(
        layers,
        lambda: read_truth(folder / "layers-00000.npz"),
        lambda: read_people(folder),
        lambda: ClipTruth.read(folder / "clips" / "000000.npz"),
    )


# Runs of training


@cache
def _run_config() -> Any:
    from wholebody.files.settings import read_toml
    from wholebody.training.config import config_from_table
    from wholebody.training.recipes import find_recipe

    return config_from_table(read_toml(find_recipe("setting1")), "setting1")


def run_seeds() -> Iterator[bytes]:
    import pickle

    import torch

    from tools.fuzz.targets import Canary
    from wholebody.training.config import config_to_table
    from wholebody.training.state import STATE, body_answer

    config = config_to_table(_run_config())
    state = {
        "config": json.dumps(config), "step": 3, "skipped": 0, "world": 1, "model": {"a": torch.ones(2)},
        "body": body_answer(_body()),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "random": [{"cpu": torch.get_rng_state()[:50]}], "average": {"updates": 3, "values": {"a": torch.ones(2)}},
    }  # fmt: skip
    lines = "\n".join(json.dumps({"step": k, "loss": 0.5}) for k in range(5)).encode()
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        table = json.dumps(config).encode()
        yield bundle({f"model_dump/{STATE}": file.getvalue(), "log/metrics.jsonl": lines, "metrics.jsonl": lines,
                      "code/config.json": table, "config.json": table})  # fmt: skip
    yield bundle({f"model_dump/{STATE}": pickle.dumps({"config": Canary()})})


def read_run(folder: Path) -> None:
    from wholebody.files.reading import read_bytes
    from wholebody.training import log, slurm
    from wholebody.training.state import STATE, read_state

    each(
        lambda: read_state(folder / "model_dump" / STATE, _run_config(), 1, _body()),
        lambda: log.forget_after(folder / "metrics.jsonl", 3),
        lambda: slurm.body_of(folder),
        lambda: read_bytes(folder / "config.json"),
    )


# AGORA's submissions


def submission_seeds() -> Iterator[bytes]:
    import pickle
    import zipfile

    from tools.fuzz.targets import Canary
    from wholebody.evaluation.agora import to_bytes

    boxes = json.dumps({"a.png": [{"bbox": [0, 0, 90, 90]}, {"bbox": [5, 5, 40, 40]}]}).encode()
    shapes = {
        "transl": 3, "global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "jaw_pose": 3,
        "leye_pose": 3, "reye_pose": 3, "expression": 10, "betas": 10,
    }  # fmt: skip
    person = {
        "params": {key: np.zeros((1, size), np.float32) for key, size in shapes.items()}, "gender": "neutral",
        "joints": np.random.default_rng(0).uniform(0, 80, (30, 2)), "pose2rot": True, "num_betas": 10,
    }  # fmt: skip
    mesh = {"joints": person["joints"], "verts": np.zeros((10475, 3), np.float16), "allSmplJoints3d": np.ones((127, 3))}
    for first, second in ((to_bytes(person), to_bytes(person)), (to_bytes(mesh), pickle.dumps(Canary()))):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, content in enumerate((first, second)):
                archive.writestr(f"predictions/a_personId_{number}.pkl", content)
        folder = {f"out/predictions/a_personId_{number}.pkl": data for number, data in enumerate((first, second))}
        yield bundle({"data/AGORA_test_bbox.json": boxes, "predictions.zip": file.getvalue(), **folder})


def read_submission(folder: Path) -> None:
    from wholebody.evaluation import agora

    each(
        lambda: agora.check_zip(folder / "predictions.zip", folder),
        lambda: agora.check_unzipped(folder / "out" / "predictions", folder),
    )


# Meshes


def mesh_seeds() -> Iterator[bytes]:
    sys.path.insert(0, str(TESTS))
    from data.forge.ehf import write_ply

    points = np.random.default_rng(0).normal(size=(12, 3))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, ascii in (("a.ply", False), ("b.ply", True)):
            write_ply(folder / name, points, ascii=ascii)
        lines = [f"v {x} {y} {z}" for x, y, z in points] + ["f 1 2 3"]
        (folder / "c.obj").write_text("\n".join(lines))
        (folder / "d.json").write_text(json.dumps(points.tolist()))
        yield _folder_of(folder)


def read_meshes(folder: Path) -> None:
    from wholebody.data.readers.meshes import read_vertices

    each(*(lambda path=path: read_vertices(path) for path in sorted(folder.iterdir())))


# Films


def film_seeds() -> Iterator[bytes]:
    import av
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (32, 48, 3), np.uint8) for _ in range(6)]
    kinds = (
        ("mp4", "libx264", "yuv420p", True), ("avi", "mpeg4", "yuv420p", False), ("webm", "libvpx", "yuv420p", False),
        ("mov", "mjpeg", "yuvj420p", False), ("ts", "mpeg2video", "yuv420p", True),
    )  # fmt: skip
    for suffix, codec, form, sound in kinds:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"x.{suffix}"
            with av.open(str(path), "w") as container:
                stream: Any = container.add_stream(codec, rate=10)
                stream.width, stream.height, stream.pix_fmt = 48, 32, form
                audio: Any = container.add_stream("aac", rate=48000) if sound else None
                for picture in pictures:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode(None))
                if audio is not None:
                    for at in range(0, 9600, 1024):
                        piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                        piece.sample_rate, piece.pts = 48000, at
                        container.mux(audio.encode(piece))
                    container.mux(audio.encode(None))
            yield path.read_bytes()
    file = io.BytesIO()
    first, *rest = (Image.fromarray(picture) for picture in pictures)
    first.save(file, "GIF", save_all=True, append_images=rest, duration=100)
    yield file.getvalue()


def read_film(path: Path) -> None:
    import av

    from wholebody.files.video import SoundTrack, find_films, is_film, open_film

    is_film(path)
    find_films([str(path)], None)

    def frames() -> None:
        film = open_film(path)
        assert film.expected is None or film.expected >= 1
        for number, frame in enumerate(film):
            assert frame.image.dtype == np.uint8
            if number >= 20:
                break

    def sound() -> None:
        film = open_film(path, start=0.2)
        track = SoundTrack(film)
        with av.open(io.BytesIO(), "w", format="mp4") as container:
            video: Any = container.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
            if track.add_to(container):
                container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
                container.mux(video.encode(None))
                track.mux_until(0.3)
                track.close(0.5)

    each(frames, sound, lambda: next(iter(open_film(path, start=0.3, end=0.5, fps=5)), None))


# Recipes


def recipe_seeds() -> Iterator[bytes]:
    from wholebody.training.recipes import RECIPES

    for path in sorted(RECIPES.glob("*.toml")):
        yield path.read_bytes()


def read_recipe(path: Path) -> None:
    from wholebody.training.config import config_to_table, read_config

    each(
        lambda: read_config(path),
        lambda: config_to_table(read_config(path, ["people.sets=[1]", "batch_size=2"])),
        lambda: read_config(path, ["a.b.c=1", "people=3", "name.x=2"]),
    )


def python_seeds() -> Iterator[bytes]:
    text = (
        "import os.path as osp\n_base_ = ['x.py']\nshape = (256, 192)\nlr = 1e-4 * 2 ** 3\nnames = ['A', *('B',)] * 2\n"
        "train = dict(lr=lr, sets={'a': [1, None, True]}, deep=dict(b=dict(c=[-1])))\nx = train['lr'] if shape else 3\n"
        "class Config:\n    a = 1; b = (2, a)\n    p = osp.join('r', 'x')\n    def go(self):\n        self.a = 3\n"
        "cfg = Config()\ncfg.a = 2\nname = 'osx' + '_l' * 3\nflag = not true\nopen('touched', 'w')\n"
    )
    yield text.encode()
    yield b"x = [0] * 10 ** 9\ny = 10 ** 10 ** 10\nz = 'a' * 99999999999\n" + b"w = " + b"-" * 3000 + b"1\n"
    yield b"lr = 1\n" + b"x = " + b"(" * 150 + b"1" + b")" * 150 + b"\ny = {**{}, 'a': {**{'b': 1}}}\n"


def read_python(path: Path) -> None:
    from wholebody.files.python_settings import read_python_settings

    read_python_settings(path)


# Tars with their index


def tar_set_seeds() -> Iterator[bytes]:
    from tools.fuzz.targets import people_of_index
    from wholebody.data.index import Index, write_index
    from wholebody.data.shards import write_shards

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for k in range(3):
            (folder / f"{k}.jpg").write_bytes(_jpeg())
        write_index(people_of_index(), folder / "all.arrow", dataset="Own", split="train")
        (folder / "tars").mkdir()
        write_shards(Index(folder / "all.arrow"), folder, folder / "tars", "Own-train")
        yield _folder_of(folder / "tars")


def _jpeg() -> bytes:
    import cv2

    return cv2.imencode(".jpg", np.full((50, 60, 3), 90, np.uint8))[1].tobytes()


def read_tar_set(folder: Path) -> None:
    from wholebody.data.decode import decode, read_picture
    from wholebody.data.index import Index
    from wholebody.data.shards import index_tars

    def pictures() -> None:
        index = Index(folder / "Own-train.arrow")
        for number in range(min(len(index), 10)):
            index[number]
            place = index.image_path(number)
            if place:
                decode(read_picture(folder, place), 1.0)

    each(pictures, lambda: index_tars(folder))


# Keypoints of other tools


def keypoint_seeds() -> Iterator[bytes]:
    flat = [1.0, 2, 0.5] * 136
    alpha = [{"image_id": "a.jpg", "keypoints": flat, "score": 2.5, "box": [1, 2, 3, 4], "category_id": 1}]
    parts = {"hand_left": flat[:63], "hand_right": [], "face": flat[:210], "pose": flat[:75]}
    person = {"person_id": [-1], **{f"{part}_keypoints_2d": points for part, points in parts.items()}}
    pose = {"version": 1.3, "people": [person]}
    found = {"keypoints": [[1, 2]] * 133, "keypoint_scores": [0.5] * 133, "bbox": [[1, 2, 3, 4]], "bbox_score": 1}
    mm = {"meta_info": {"dataset_name": "coco_wholebody"}, "instance_info": [found]}
    frames = {"meta_info": {}, "instance_info": [{"frame_id": 1, "instances": mm["instance_info"]}]}
    rows = [{"image_id": 1, "category_id": 1, "keypoints": flat[:399], "score": 0.9, "bbox": [1, 2, 3, 4]}]
    for content in (alpha, pose, mm, frames, rows, {"cam_param": {"focal": [1, 1], "princpt": [5, 5]}}):
        yield json.dumps(content).encode()
    yield bundle({"a_keypoints.json": json.dumps(pose).encode(), "b.json": json.dumps(mm).encode()})


def read_keypoints(path: Path) -> None:
    from wholebody.people.detect import BoxFile
    from wholebody.people.keypoints import KeypointFile

    def keypoints(place: Path) -> None:
        file = KeypointFile(place)
        for name in ("a.jpg", "b.png", "frame/a.jpg", "000001.jpg"):
            file.people(name)

    each(lambda: keypoints(path), lambda: BoxFile(path)("a.jpg", (100, 100)))
    unpacked(lambda folder: each(lambda: keypoints(folder)))(path)


# Results that are read again


def result_seeds() -> Iterator[bytes]:
    from wholebody.pipeline.record import FORMAT, RECORD

    frames = 3
    film = {
        "poses": np.zeros((frames, 165)), "trans": np.ones((frames, 3)), "betas": np.zeros(10),
        "expression": np.zeros((frames, 10)), "gender": np.array("neutral"), "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(30.0), "flat_hand_mean": np.array(True), "body": np.array("open"),
        "frames": np.arange(frames), "times": np.arange(frames) / 30, "filled": np.zeros(frames, bool),
        "confidence": np.ones(frames), "box_xyxy": np.ones((frames, 4)), "track_id": np.array(0),
        "camera_focal_px": np.array(500.0), "camera_principal_px": np.ones(2), "camera_image_wh": np.array([64, 48]),
        "camera_from_world": np.tile(np.eye(4), (frames, 1, 1)), "camera_state": np.array("still"),
        "camera_source": np.array("assumed"), "floor": np.array("seen"),
    }  # fmt: skip
    photo = {
        "global_orient": np.zeros(3), "body_pose": np.zeros((21, 3)), "left_hand_pose": np.zeros((15, 3)),
        "right_hand_pose": np.zeros((15, 3)), "jaw_pose": np.zeros(3), "betas": np.zeros(10),
        "expression": np.zeros(10), "cam_trans": np.ones(3), "box_xyxy": np.ones(4), "score": np.array(0.5),
        "focal_px": np.ones(2), "principal_px": np.ones(2),
        "conventions": np.array(json.dumps({"body": "open", "flat_hand_mean": True, "gender": "neutral"})),
    }  # fmt: skip
    turned = np.tile(np.eye(4), (frames, 3, 1, 1))
    anny = {
        "pose_parameters": turned, "phenotype_kwargs": np.full((1, 2), 0.5), "facial_actions": np.zeros((frames, 2)),
        "bone_labels": np.array(["root", "spine05", "spine04"]), "phenotype_labels": np.array(["gender", "age"]),
        "facial_action_labels": np.array(["jawOpen", "mouthPucker"]), "local_changes_kwargs": np.zeros((1, 2)),
        "conventions": np.array(json.dumps({"model": {"rig": "anny", "pose_parameterization": "world"}})),
    }  # fmt: skip
    entry = {"name": "x", "source": "x.jpg", "content": "0" * 16, "made_with": "1" * 16, "image_id": 1,
             "people": 1, "files": {"x.json": "0" * 16}}  # fmt: skip
    record = {"format": FORMAT, "version": "0", "model": "t", "results": [entry, {"writes": "y.json", "hash": "1"}]}
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5, "keypoints": [0.0] * 399}]
    files = {RECORD: json.dumps(record).encode(), "x.json": json.dumps(rows).encode(),
             "annotations/run.json": json.dumps({"split": "train", "written": {"a": "1"}}).encode(),
             "x.jpg": _jpeg()}  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        for name, arrays in (("x_person0.npz", photo), ("y_person0.npz", film), ("z_person0.npz", anny)):
            file = io.BytesIO()
            save(file, **arrays)  # type: ignore[arg-type]
            files[name] = file.getvalue()
        yield bundle(files)


def read_results(folder: Path) -> None:
    from wholebody.files.options import check_same_options
    from wholebody.output.amass import is_amass, read_amass
    from wholebody.output.files import is_complete
    from wholebody.pipeline.convert import read_result
    from wholebody.pipeline.record import Record
    from wholebody.pipeline.view import pages_of

    def record() -> None:
        known = Record(folder)
        known.begin({"model": "t"})
        Record(folder, overwrite=True)

    names = [folder / name for name in ("x_person0.npz", "y_person0.npz", "z_person0.npz")]
    is_complete(folder, "x", ("npz",), folder / "x.jpg")
    each(*(lambda path=path: is_amass(path) for path in names), lambda: read_amass(names[1:2], _body()),
         *(lambda path=path: read_result(path) for path in names), record,
         lambda: pages_of([str(folder / "x.json")], say=lambda text: None),
         lambda: check_same_options(folder / "annotations" / "run.json", {"split": "train"}, "."))  # fmt: skip
