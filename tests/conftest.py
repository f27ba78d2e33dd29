"""What several rooms' tests share: the oracle's arrays, made-up body files, and networks with made-up weights."""

from __future__ import annotations

import dataclasses
import gc
import gzip
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# Before PyTorch is imported: with a thread for each core, tests take three times the processor time, most of it spent
# on waiting for one another. `setdefault`: the suite runs with as many as you say.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

if os.environ.get("WHOLEBODY_CHECK_SHAPES"):  # of every call, see there; before anything of the package is imported
    import shape_checks  # noqa: F401

from wholebody.body.layer import BodyModel
from wholebody.model.config import FACE, HANDS, OSXConfig
from wholebody.model.decoder import DecoderConfig
from wholebody.model.encoder import ViTConfig

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def oracle():
    """`oracle("crop")` -> the arrays of tests/oracle/crop.npz by name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(HERE / "oracle" / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def standin_dir() -> Iterator[Path]:
    """A folder with made-up body files in the layout of the licensed ones; made once per machine (40 s, 360 MB).

    It lies in the user's cache folder, or where WHOLEBODY_TEST_CACHE says. Written aside and renamed, under a lock, so
    that neither an interrupted nor a parallel run leaves half of it. Each file is read once a session.
    """
    from filelock import FileLock

    from wholebody.body import assets

    cache = Path(os.environ.get("WHOLEBODY_TEST_CACHE") or Path.home() / ".cache" / "wholebody-tests")
    cache.mkdir(parents=True, exist_ok=True)
    done = cache / "standin-v1"
    with FileLock(cache / "standin-v1.lock"):
        if not done.exists():
            part = cache / "standin-v1.part"
            shutil.rmtree(part, ignore_errors=True)
            runpy.run_path(str(HERE / "oracle" / "make_smplx_standin.py"))["main"](str(part))
            part.rename(done)
    read, known = assets._check, {}

    def read_once(stored, *more):
        if more or done not in stored.path.parents:
            return read(stored, *more)
        if stored.path not in known:
            known[stored.path] = read(stored)
        return known[stored.path]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assets, "_check", read_once)
        yield done


def pytest_collection_finish():
    """What was imported and collected stays to the end: the garbage collector need not look through it each time."""
    gc.collect()
    gc.freeze()


# Networks with the oracle's made-up weights, as the published code would have saved them


@pytest.fixture(scope="session")
def fill() -> dict[str, Any]:
    """The oracle's functions by name: `value(name, shape)`, `image(batch, seed)`, `train_batch(batch, seed)`."""
    sys.path.insert(0, str(HERE / "oracle"))  # the family's builds on OSX's
    try:
        return runpy.run_path(str(HERE / "oracle" / "fill_family.py"))
    finally:
        sys.path.remove(str(HERE / "oracle"))


@pytest.fixture(scope="session")
def published_keys() -> dict[str, dict[str, Any]]:
    """`b_normal`, ... -> names and shapes (`state_dict`) of the published network, and which names it never uses."""
    with gzip.open(HERE / "oracle" / "keys.json.gz") as file:
        return json.load(file)


@pytest.fixture(scope="session")
def published_tensors(published_keys, fill) -> Callable[[str], dict[str, torch.Tensor]]:
    """`published_tensors("b_normal")`: every tensor by its published name, without prefix."""

    def make(network: str) -> dict[str, torch.Tensor]:
        keys = published_keys[network]
        unused = set(keys["no_gradient"])
        return {name: tensor(name, shape, name in unused) for name, shape in keys["state_dict"].items()}

    def tensor(name: str, shape: list[int], unused: bool) -> torch.Tensor:
        values = None if unused else fill["value"](name, tuple(shape))
        if values is not None:
            return torch.from_numpy(values)
        # What the network never reads may be anything; an expanded zero keeps the file small.
        dtype = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        return torch.zeros((), dtype=dtype).expand(shape)

    return make


@pytest.fixture(scope="session")
def published_file(published_tensors, tmp_path_factory) -> Callable[[str], Path]:
    """`published_file("b_normal")`: a checkpoint as the published code saves it, made once a session."""
    folder = tmp_path_factory.mktemp("published")

    def make(network: str) -> Path:
        path = folder / f"{network}.pth.tar"
        if not path.exists():
            tensors = {f"module.{name}": tensor for name, tensor in published_tensors(network).items()}
            moments = {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(5)}}
            optimizer = {"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]}
            torch.save({"epoch": 13, "network": tensors, "optimizer": optimizer}, path)
        return path

    return make


@pytest.fixture(scope="session")
def images(fill) -> torch.Tensor:
    """The oracle's two pictures, 2×3×512×384 float32."""
    return torch.from_numpy(fill["image"]())


@pytest.fixture(scope="session")
def smplx_body(standin_dir) -> BodyModel:
    """The made-up SMPL-X, float32."""
    return BodyModel.load(standin_dir)


@pytest.fixture(scope="session")
def small_config() -> OSXConfig:
    """A network of every part, small enough to build in a moment."""
    decoder = DecoderConfig(width=32, layers=2, heads=4, points=2, ffn=48, norm_groups=8)
    return OSXConfig(
        name="small",
        encoder=ViTConfig(width=64, depth=2, heads=4),
        hands=dataclasses.replace(HANDS, decoder=decoder),
        face=dataclasses.replace(FACE, decoder=decoder),
        hidden=24,
        box_channels=(16, 16, 16),
    )


@pytest.fixture(scope="session")
def standin_arrays(standin_dir):
    """`standin_arrays("male")` -> a made-up body file's checked arrays, read once (each takes seconds)."""
    from functools import cache

    from wholebody.body.assets import find_body, read_body_file

    return cache(lambda gender="neutral": read_body_file(find_body(standin_dir, gender)))


@pytest.fixture(scope="session")
def layers(tmp_path_factory) -> Iterator[Path]:
    """A folder with the layers of a few drawn people. What tests compose of them stands before a few backgrounds: the
    224 of a real bank take ten seconds to make."""
    from layers_fixture import make_layers

    from wholebody.synthesis.light.backgrounds import BackgroundBank
    from wholebody.synthesis.sets import crops

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crops, "BackgroundBank", partial(BackgroundBank, size=12))
        yield make_layers(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def forged_people(smplx_body):
    """Made-up people with known truth, posed with the made-up SMPL-X: `data/forge/people.py`."""
    from data.forge.people import make_people

    return make_people(smplx_body)


@pytest.fixture(scope="session")
def forged_root(forged_people, tmp_path_factory) -> Path:
    """A folder with `dataset/<SET>/...` of every set that there is a forge for, each in its own form on disk."""
    import importlib
    import pkgutil

    import data.forge

    root = tmp_path_factory.mktemp("forged")
    for module in pkgutil.iter_modules(data.forge.__path__):
        forge = getattr(importlib.import_module(f"data.forge.{module.name}"), "forge", None)
        if forge is not None:
            folder = root / "dataset" / FORGED_FOLDERS.get(module.name, module.name)
            folder.mkdir(parents=True)
            forge(folder, forged_people)
    return root


FORGED_FOLDERS = {
    "agora": "AGORA", "ehf": "EHF", "human36m": "Human36M", "mpii": "MPII", "mpi_inf_3dhp": "MPI_INF_3DHP",
    "mscoco": "MSCOCO", "pw3d": "PW3D", "ubody": "UBody", "humandata": "HumanData", "own": "Own",
}  # fmt: skip


@pytest.fixture(scope="session")
def open_body() -> BodyModel:
    """The embedded body; it loads in a second."""
    return BodyModel.load()


@pytest.fixture(scope="session")
def people(open_body):
    """Six people posed with the embedded body: the first wholly known, of the others see `forge.people.DIRT`."""
    from data.forge.people import make_people

    return make_people(open_body)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
