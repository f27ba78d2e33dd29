"""Writing synthetic sets: `run` is what `wholebody synth` calls."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wholebody.data.sample import Sample
from wholebody.errors import BadInput, OutputError
from wholebody.files.image import read_stored
from wholebody.files.npz import SafeNpz
from wholebody.files.options import check_same_options, record_options
from wholebody.files.whole import sweep, write_bytes
from wholebody.synthesis.clothes import stock as wardrobe
from wholebody.synthesis.config import SynthesisConfig, material_used
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.render import BATCH, Studio
from wholebody.synthesis.sets.compose import compose
from wholebody.synthesis.sets.layers import read_truth, write_shard, write_truth

Spread = Callable[[Callable[[Any], int], Sequence[Any], Callable[[Any], bool], Callable[[int], object]], None]
"""Does jobs elsewhere: is given a function of one job, the jobs, what says that a job is finished, and whom to tell of
each finished one."""
SHARD = 4 * BATCH
"""People in a shard; a shard is written by one worker, so that files do not depend on how many there are."""


def run(
    out: str | Path,
    count: int,
    seed: int = 0,
    workers: int = 2,
    config: SynthesisConfig | None = None,
    layers: bool = False,
    progress: Callable[[int], object] | None = None,
    spread: Spread | None = None,
) -> Path:
    """Write `count` people to the folder `out`: pictures with masks, or (`layers`) people with alpha for training.

    The same config, count and seed give the same files, whatever the number of workers; what a stopped run has
    completed is kept by the next. `progress` is called with the number of people in each finished shard. `spread` does
    the shards in place of this machine's processes.
    """
    if count < 1 or workers < 1:
        raise BadInput(f"asked for {count} people by {workers} workers: both must be at least 1")
    asked = config or SynthesisConfig()
    config = asked.resolved(layers)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        sweep(out)
        for folder in () if layers else ("images", "masks"):
            (out / folder).mkdir(exist_ok=True)
        _check_same_recipe(out, config, asked, seed, layers)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    jobs = [
        (str(out), config, seed, number, min(SHARD, count - number * SHARD), layers)
        for number in range(-(-count // SHARD))
        if not _is_complete(out, number, min(SHARD, count - number * SHARD), layers)
    ]
    if jobs and config.wardrobe:
        wardrobe.load(config.wardrobe)  # baked once, before the workers all want it
    if spread is not None:
        spread(write_shard_of, jobs, is_written, progress or (lambda people: None))
        return out
    if workers == 1 or len(jobs) < 2:
        done: Iterator[int] = map(write_shard_of, jobs)
        for n in done:
            if progress:
                progress(n)
        return out
    # Fresh processes: forking one that has used threads (torch, OpenCV) can hang.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs)), _one_thread_each) as pool:
        for n in pool.imap(write_shard_of, jobs):
            if progress:
                progress(n)
    return out


def synthesize(config: SynthesisConfig, count: int, seed: int) -> Iterator[Sample]:
    """The pictures that `run` writes, one after the other, in this process (before compression)."""
    config = config.resolved()
    studio, bank = _studio(config), _bank(config)
    for layer, surroundings, rng in studio.people(seed, 0, count):
        yield compose(layer, surroundings, bank, rng, config.occluder_fraction)


def read_set(folder: str | Path) -> Iterator[Sample]:
    """The samples of a set of pictures, with image and mask."""
    folder = Path(folder)
    shards = sorted(folder.glob("truth-*.npz"))
    if not shards:
        raise BadInput(f"no truth (truth-*.npz) in {folder}: is it a folder that `wholebody synth` wrote?")
    number = 0
    for shard in shards:
        for sample in read_truth(shard):
            image = read_stored(folder / "images" / f"{number:06d}.jpg", cv2.IMREAD_COLOR)
            mask = read_stored(folder / "masks" / f"{number:06d}.png", cv2.IMREAD_GRAYSCALE)
            yield replace(sample, image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB), mask=mask)
            number += 1


def bench(count: int = 256, workers: int = 2, config: SynthesisConfig | None = None) -> dict[str, float]:
    """Pictures a second of `workers` processes that write complete sets to a temporary folder, start-up not counted."""
    import tempfile

    config = (config or SynthesisConfig()).resolved()
    jobs = -(-count // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("images", "masks"):
            (Path(folder) / name).mkdir()
        work = [(folder, config, 0, n, BATCH, False) for n in range(jobs)]
        with multiprocessing.get_context("spawn").Pool(workers, _one_thread_each) as pool:
            pool.map(_warm_up, [config] * workers, chunksize=1)
            start = time.perf_counter()
            written = sum(pool.imap_unordered(write_shard_of, work))
            seconds = time.perf_counter() - start
    return {"pictures": written, "seconds": seconds, "pictures_per_second": written / seconds}


def _warm_up(config: SynthesisConfig) -> None:
    list(_studio(config).people(1, 0, 2))
    _bank(config)
    time.sleep(0.5)  # let every process of the pool take one


def _one_thread_each() -> None:
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


@lru_cache(maxsize=1)
def _studio(config: SynthesisConfig) -> Studio:
    return Studio(config)


@lru_cache(maxsize=1)
def _bank(config: SynthesisConfig) -> BackgroundBank:
    return BackgroundBank(config.hdri, config.backgrounds, split=config.split)


Job = tuple[str, SynthesisConfig, int, int, int, bool]
"""A shard to write: folder, config, seed, its number, how many people, whether layers."""


def is_written(job: Job) -> bool:
    folder, _, _, number, count, layers = job
    return _is_complete(Path(folder), number, count, layers)


def write_shard_of(job: Job) -> int:
    """Draw and write a shard; the number of its people."""
    folder, config, seed, number, count, layers = job
    out, first = Path(folder), number * SHARD
    people = _studio(config).people(seed, first, count)
    if layers:
        write_shard(out, number, [layer for layer, _, _ in people])
        return count
    samples = []
    for k, (layer, surroundings, rng) in enumerate(people):
        sample = compose(layer, surroundings, _bank(config), rng, config.occluder_fraction)
        assert sample.image is not None and sample.mask is not None  # compose gives both
        picture = cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR)
        _write(out / "images" / f"{first + k:06d}.jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 97))])
        _write(out / "masks" / f"{first + k:06d}.png", sample.mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        samples.append(sample)
    write_truth(out / f"truth-{number:05d}.npz", samples)
    return count


def _write(path: Path, image: np.ndarray, options: list[int]) -> None:
    write_bytes(path, cv2.imencode(path.suffix, image, options)[1].tobytes())


def _is_complete(out: Path, number: int, count: int, layers: bool) -> bool:
    path = out / (f"layers-{number:05d}.npz" if layers else f"truth-{number:05d}.npz")
    if not path.exists():
        return False
    try:
        with SafeNpz(path) as file:
            return file.header("id").shape == (count,) and len(file["id"]) == count
    except BadInput:
        return False  # damaged: made again


def _check_same_recipe(out: Path, config: SynthesisConfig, asked: SynthesisConfig, seed: int, layers: bool) -> None:
    """A folder holds one recipe: a different one would silently mix. Settings that are newer than a set are at their
    defaults in it. What of its material was asked for and what was found beside is written down with it."""
    record, recipe = out / "recipe.json", {"config": asdict(config), "seed": seed, "layers": layers}
    way_out = f"{out} holds a set made with other settings: choose another --out, or empty it"
    try:
        known = check_same_options(record, recipe, way_out, defaults={"config": asdict(SynthesisConfig())}, label="")
    except BadInput as error:
        raise OutputError(str(error)) from error
    if not known:
        record_options(record, recipe | {"material": material_used(asked)})
