"""What is fuzzed: for each format, small whole files to begin with, and the reader that they are given to."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tools.fuzz import rooms


@dataclass(frozen=True)
class Target:
    """suffix: of the file. seeds: contents to mutate. read: raises nothing but WholebodyError, whatever the file."""

    suffix: str
    seeds: Callable[[], Iterator[bytes]]
    read: Callable[[Path], object]


class Canary:
    """What a pickle must never get to run."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("echo the canary is dead",)


def _dumped(value: Any) -> Iterator[bytes]:
    for protocol in (0, 2, 4, 5):
        yield pickle.dumps(value, protocol)


def _rows() -> list[dict[str, Any]]:
    flat = [float(k % 90) for k in range(51)]
    return [{"id": k, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [1.0, 2, 30, 40], "score": 0.5,
             "keypoints": flat} for k in range(3)]  # fmt: skip


def json_seeds() -> Iterator[bytes]:
    coco = {"images": [{"id": 7, "file_name": "a.jpg", "height": 9, "width": 9}], "annotations": _rows(),
            "categories": [{"id": 1, "name": "person"}]}  # fmt: skip
    yield json.dumps(coco).encode()
    yield json.dumps(_rows()).encode()
    yield json.dumps({"a.jpg": [[1, 2, 30, 40, 0.5]], "b": []}).encode("utf-16")
    yield json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 75, "face_keypoints_2d": []}]}).encode()
    person = {"keypoints": [[1, 2]] * 17, "keypoint_scores": [0.5] * 17, "bbox": [[1, 2, 3, 4]]}
    yield json.dumps({"meta_info": {}, "instance_info": [person]}).encode("utf-8-sig")
    yield b"[" * 5000 + b"9" * 5000


def pickle_seeds() -> Iterator[bytes]:
    import scipy.sparse

    value = {
        "a": np.arange(12.0).reshape(3, 4), "o": np.array([None, "x", {"b": 1}], object), "n": np.float32(3),
        "s": scipy.sparse.csc_matrix(np.eye(3)), "t": (1, (2, (3,))), "d": {1: {2}, "x": frozenset([3])}, "i": 10**30,
    }  # fmt: skip
    yield from _dumped(value)
    yield from _dumped({"a": Canary(), "v_template": np.zeros((4, 3))})
    yield b"\x80\x02]r\xff\xff\xff\x3f."


def table_seeds() -> Iterator[bytes]:
    for path in sorted((Path(__file__).parents[2] / "tests" / "files" / "tables").glob("*.pkl")):
        yield path.read_bytes()


def npz_seeds() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        meta = np.array({"gender": ["male"] * 2, "height": [9, 9], "width": [9, 9]}, object)
        smplx = np.array({"body_pose": np.zeros((2, 21, 3)), "global_orient": np.zeros((2, 3)),
                          "betas": np.zeros((2, 10))}, object)  # fmt: skip
        save(file, image_path=np.array(["a.jpg", "b.jpg"]), bbox_xywh=np.ones((2, 5)), meta=meta, smplx=smplx,
             keypoints2d=np.ones((2, 190, 3)), keypoints2d_mask=np.ones(190))  # type: ignore[arg-type]  # fmt: skip
        yield file.getvalue()


def picture_seeds() -> Iterator[bytes]:
    from PIL import Image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM"):
        file = io.BytesIO()
        picture.save(file, kind)
        yield file.getvalue()


def people_of_index() -> list[Any]:
    from wholebody.data.sample import masked_sample

    return [masked_sample(f"{k}", np.array([1.0, 2, 30, 40]), image_path=f"{k // 2}.jpg", dataset="Own",
                          image_hw=(50, 60)) for k in range(5)]  # fmt: skip


def index_seeds() -> Iterator[bytes]:
    import tempfile

    from wholebody.data.index import write_index

    with tempfile.TemporaryDirectory() as folder:
        yield write_index(people_of_index(), Path(folder) / "x.arrow", dataset="Own", split="train").read_bytes()


def tar_seeds() -> Iterator[bytes]:
    from wholebody.data.index import pack

    record, texts = pack(people_of_index()[0])
    array = io.BytesIO()
    np.save(array, np.stack([record]))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("json", json.dumps([texts]).encode()), ("npy", array.getvalue()), ("jpg", b"picture")):
            entry = tarfile.TarInfo(f"000000000.{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    yield file.getvalue()


def safetensors_seeds() -> Iterator[bytes]:
    import torch
    from safetensors.torch import save

    from wholebody.model.load import WEIGHTS

    with open(WEIGHTS / "osx_t.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    yield save({"a": torch.zeros(3), "encoder.trunk.x": torch.zeros(2, 2)}, header["__metadata__"])


def torch_seeds() -> Iterator[bytes]:
    import torch

    content = {
        "epoch": 3, "network": {"module.encoder.task_tokens": torch.zeros(1, 31, 768), "module.a": torch.ones(2)},
        "optimizer": {"lr": np.float64(1), "state": {0: {"step": torch.tensor(1.0)}}},
    }  # fmt: skip
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        yield file.getvalue()
    yield pickle.dumps({"network": Canary()})


def toml_seeds() -> Iterator[bytes]:
    for path in sorted((Path(__file__).parents[2]).glob("**/setting1.toml"))[:1]:
        yield path.read_bytes()
    yield b"a = 1\n[b]\nc = [1, 2, 'x']\nd.e = 2026-01-01\n" + b"f = " + b"[" * 3000


def _read_json(path: Path) -> None:
    from wholebody.errors import WholebodyError
    from wholebody.files.json_stream import items, read_json
    from wholebody.people.detect import BoxFile
    from wholebody.people.keypoints import KeypointFile

    for read in (read_json, lambda p: list(items(p)), lambda p: BoxFile(p)("a.jpg", (100, 100)),
                 lambda p: KeypointFile(p).people("a.jpg"), _annotated):  # fmt: skip
        try:
            read(path)
        except WholebodyError:
            pass


def _annotated(path: Path) -> None:
    from wholebody.data.readers import coco_format

    for annotation, image in coco_format.annotated_people(path):
        coco_format.picture_hw(path, image)
        coco_format.numbers(path, annotation, "bbox", 4)
        coco_format.integer(path, annotation, "id")


def _read_pickle(path: Path) -> None:
    from wholebody.files.unpickle import as_dense, read_pickle

    value = read_pickle(path)
    for part in value.values() if isinstance(value, dict) else [value]:
        as_dense(part)


def _read_body(path: Path) -> None:
    from wholebody.body.assets import read_body_file

    read_body_file(path)


def _read_npz(path: Path) -> None:
    from wholebody.data.readers import humandata
    from wholebody.errors import WholebodyError
    from wholebody.files.npz import SafeNpz

    for read in (lambda p: [value for value in SafeNpz(p).values()], _read_body,
                 lambda p: list(humandata.read(p.parent, "train", file=p.name))):  # fmt: skip
        try:
            read(path)
        except WholebodyError:
            pass


def _read_table(path: Path) -> None:
    from wholebody.files.dataframe import read_dataframe

    read_dataframe(path)


def _read_picture(path: Path) -> None:
    from wholebody.data.decode import decode
    from wholebody.errors import WholebodyError
    from wholebody.files.image import read_image

    try:
        read_image(path)
    except WholebodyError:
        pass
    decode(path.read_bytes(), 4.0)


def _read_index(path: Path) -> None:
    from wholebody.data.index import Index

    index = Index(path)
    for number in range(min(len(index), 50)):
        index[number]
        index.image_path(number)


def _read_tar(path: Path) -> None:
    from wholebody.data.shards import read_shards

    for _ in read_shards([path]):
        pass


def _read_checkpoint(path: Path) -> None:
    from wholebody.model import checkpoint

    checkpoint.describe(path)


def _read_toml(path: Path) -> None:
    from wholebody.files.settings import override, read_toml

    override(read_toml(path), ["a.b=3"])


TARGETS = {
    "json": Target(".json", json_seeds, _read_json),
    "pickle": Target(".pkl", pickle_seeds, _read_pickle),
    "body": Target(".pkl", pickle_seeds, _read_body),
    "table": Target(".pkl", table_seeds, _read_table),
    "npz": Target(".npz", npz_seeds, _read_npz),
    "picture": Target(".jpg", picture_seeds, _read_picture),
    "index": Target(".arrow", index_seeds, _read_index),
    "tar": Target(".tar", tar_seeds, _read_tar),
    "safetensors": Target(".safetensors", safetensors_seeds, _read_checkpoint),
    "torch": Target(".pth", torch_seeds, _read_checkpoint),
    "toml": Target(".toml", toml_seeds, _read_toml),
    "recipe": Target(".toml", rooms.recipe_seeds, rooms.read_recipe),
    "python": Target(".py", rooms.python_seeds, rooms.read_python),
    "keypoints": Target(".json", rooms.keypoint_seeds, rooms.read_keypoints),
    "film": Target(".mp4", rooms.film_seeds, rooms.read_film),
    "sets": Target(".zip", rooms.set_seeds, rooms.unpacked(rooms.read_sets)),
    "tars": Target(".zip", rooms.tar_set_seeds, rooms.unpacked(rooms.read_tar_set)),
    "meshes": Target(".zip", rooms.mesh_seeds, rooms.unpacked(rooms.read_meshes)),
    "layers": Target(".zip", rooms.layer_seeds, rooms.unpacked(rooms.read_layers)),
    "run": Target(".zip", rooms.run_seeds, rooms.unpacked(rooms.read_run)),
    "submission": Target(".zip", rooms.submission_seeds, rooms.unpacked(rooms.read_submission)),
    "results": Target(".zip", rooms.result_seeds, rooms.unpacked(rooms.read_results)),
}
