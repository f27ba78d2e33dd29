"""Training samples from sets of real pictures: from indices and picture files to batches.

Sample number n is a function of (seed, n) alone: a run resumes by starting at a number, and neither the number of
loader processes nor their order changes what is seen.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset

from wholebody.data.augment import CROP_HW, PUBLISHED, AugmentConfig, occlude, own_texture, photometric, random_crop
from wholebody.data.decode import crop_picture, read_picture
from wholebody.data.family import FAMILIES
from wholebody.data.framing import Targets, in_crop
from wholebody.data.index import Index, index_path
from wholebody.data.mixing import Mixture, balance, by_weight, equal_length, one_after_another
from wholebody.data.orientation import upright_from_stored
from wholebody.data.prepared import FAULTS, enlargement, prepared
from wholebody.data.readers import READERS, annotated_upright
from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.geometry.crop import compose_affine

MIXES = ("equal", "all", "weights", "balance", "concat")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetConfig:
    """One set of a mixture."""

    name: str
    """In `readers.READERS`, and of its folder."""
    split: str = "train"
    folder: str = ""
    """Where its pictures or tars lie; an address that fsspec knows (`s3://...`) may hold tars. Empty: ROOT/NAME."""
    index: str = ""
    """Its index; empty: ROOT/index/NAME-SPLIT.arrow, or FOLDER/NAME-SPLIT.arrow where `folder` is given."""
    weight: float = 1.0
    """In the mix "weights"."""
    group: str = ""
    """In the mixes "equal" and "balance": sets of one group are as one set. Empty: a group of its own."""
    every: int = 1
    """Only every so many-th person, counted as the published code counts where the index tells (see
    `Index.thinned`)."""


@dataclass(frozen=True)
class PeopleDataConfig:
    """Which sets, how they are mixed, and how a person becomes a sample."""

    sets: tuple[SetConfig, ...]
    root: str = "dataset"
    """The folder with all sets."""
    mix: str = "equal"
    """"equal": every group as often as the longest; "all", or "concat": everybody once; "weights": each set by its
    weight; "balance": each group the same share of an epoch, shuffled once and repeated."""
    epoch_length: int = 0
    """In the mixes "weights" and "balance"; 0: as many samples as there are people."""
    family: str = "osx"
    """Whose preparation of people is meant, "osx", "smpler_x" or "smplest_x": how much of the surroundings a crop
    shows (`family.box_ratio`), and what the boxes of hands and faces are."""
    faults: tuple[str, ...] = ()
    """Faults of the published targets to reproduce, for comparison: see `prepared.FAULTS`."""
    picture_hw: tuple[int, int] = (256, 192)
    """Pixels of the crop as the network sees it; published networks take (512, 384), or every second pixel of it."""
    antialias: bool = True
    """False: crops are sampled as published, with every pixel of a picture decoded. Published weights saw those."""
    body: str = "smplx"
    """Whose parameters are learnt: those of another body are masked. Empty: all."""
    augment: AugmentConfig = PUBLISHED
    broken_limit: int = 100
    """So many pictures may be unreadable (each is named in the log and replaced) before that is an error."""


class PeopleDataset(Dataset):
    """`self[n]` is sample n: `image` (picture_h, picture_w, 3) uint8 RGB, `box_height` (of the person's box, in pixels
    of the crop), `flat_hand` (hand rotations are measured from the flat hand) and what `targets` makes of the person
    and the crop, in the frame of `CROP_HW`: the truth itself, unless an objective hands in its own.

    n may be any number: epoch after epoch, each of `epoch_length` samples. `length` is what `len` says, one epoch if 0.
    """

    def __init__(self, config: PeopleDataConfig, seed: int = 0, length: int = 0, targets: Targets = in_crop):
        if config.mix not in MIXES:
            raise BadInput(f"people.mix is {config.mix!r}: use one of {', '.join(MIXES)}")
        if not config.sets:
            raise BadInput("people.sets is empty: name at least one set")
        for what, given, known in (("family", (config.family,), FAMILIES), ("faults", config.faults, tuple(FAULTS))):
            if wrong := [name for name in given if name not in known]:
                raise BadInput(f"people.{what}: {', '.join(map(repr, wrong))} is none of {', '.join(known)}")
        self.config, self.seed, self.targets = config, seed, targets
        self.indices = open_indices(config)
        self.folders = [one.folder or str(set_folder(config.root, one.name)) for one in config.sets]
        self._rows = [index.thinned(one.every) for index, one in zip(self.indices, config.sets, strict=True)]
        counts = [
            len(index) if rows is None else len(rows) for index, rows in zip(self.indices, self._rows, strict=True)
        ]
        self.mixture, self._order = _mixture(config, counts, seed)
        self.length = length or self.epoch_length
        # A flag for each picture (by a hash of its name), shared by all loader processes: counted once, without locks.
        self._broken = torch.zeros(1 << 20, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return self.length

    @property
    def epoch_length(self) -> int:
        return self.mixture.epoch_length

    @property
    def broken(self) -> int:
        """How many pictures could not be read until now, by all loader processes."""
        return int(self._broken.sum())

    def place(self, number: int) -> tuple[int, int]:
        """(set, person in it) of sample `number`."""
        which, row = self.mixture[number]
        which = self._order[which]
        return which, self._row(which, row)

    def _row(self, which: int, row: int) -> int:
        """The number in its index of a person of a set, of whom only every so many-th may count."""
        rows = self._rows[which]
        return row if rows is None else int(rows[row])

    def person(self, number: int) -> Sample:
        """Whom sample `number` shows (if the picture can be read), without picture: for messages and statistics."""
        which, row = self.place(number)
        return self.indices[which][row]

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        which, row = self.place(number)
        for attempt in range(self.config.broken_limit + 2):
            sample = self.indices[which][row]
            try:
                return self.sample(sample, self.folders[which], np.random.default_rng((self.seed, 0, number)))
            except BadInput as error:
                self._count_broken(sample, self.folders[which], error)
            rows = self._rows[which]
            count = len(self.indices[which]) if rows is None else len(rows)
            row = self._row(which, int(np.random.default_rng((self.seed, 2, number, attempt)).integers(count)))
        raise BadInput(f"{self.config.sets[which].name}: no readable picture found in {attempt + 1} tries")

    def _count_broken(self, sample: Sample, folder: str, error: BadInput) -> None:
        key = zlib.crc32(f"{folder}/{sample.image_path}".encode(errors="surrogatepass")) % len(self._broken)
        known = bool(self._broken[key])
        self._broken[key] = 1
        count, limit = self.broken, self.config.broken_limit
        if count > limit:
            raise BadInput(
                f"{count} pictures cannot be used, and people.broken_limit is {limit}. The last: {error} "
                f"`wholebody data check {self.config.root}` says what is missing."
            ) from error
        if not known:
            log.warning("%s %s is replaced (%d of at most %d): %s", sample.dataset, sample.id, count, limit, error)

    def sample(self, sample: Sample, folder: str, rng: Generator) -> dict[str, np.ndarray]:
        """What `self[n]` gives, of any person; the random numbers decide about framing and changes of the picture."""
        config, augment = self.config, self.config.augment
        if not sample.image_path:
            raise BadInput(
                f"{sample.dataset} {sample.id}: the index names no picture of this person; index the set again"
            )
        data = read_picture(folder, sample.image_path)
        name = f"{folder}/{sample.image_path}"
        sample = prepared(_for_body(sample, config.body), config.family, config.faults)
        enlarge = enlargement(sample, config.family)
        crop_from_image = random_crop(sample.box_xyxy, sample.joints_px, rng, augment, sample.joint_valid, enlarge)
        height, width = config.picture_hw
        to_picture = np.diag([width / CROP_HW[1], height / CROP_HW[0]]) @ crop_from_image
        if annotated_upright(sample) and (upright := upright_from_stored(data)) is not None:
            to_picture = compose_affine(to_picture, upright)
        picture = crop_picture(data, to_picture, config.picture_hw, name, config.antialias)
        if augment.occlude_probability and rng.random() < augment.occlude_probability:
            picture = occlude(picture, own_texture(picture, rng), rng)
        picture = photometric(picture, rng, augment)
        box_height = (sample.box_xyxy[3] - sample.box_xyxy[1]) * np.sqrt(abs(np.linalg.det(crop_from_image[:, :2])))
        result: dict[str, Any] = {"image": picture, "box_height": np.asarray(box_height, np.float32)}
        result["flat_hand"] = np.asarray(sample.flat_hand, np.float32)
        return result | self.targets(sample, crop_from_image)


def open_indices(config: PeopleDataConfig) -> list[Index]:
    """The indices of a mixture's sets. BadInput names all sets that cannot be read, and what to do about each."""
    indices, problems = [], []
    for one in config.sets:
        if one.every < 1:
            raise BadInput(f"people.sets: every is {one.every} for {one.name}; it must be at least 1")
        try:
            indices.append(Index(_index_path(config, one)))
        except BadInput as error:
            problems.append((one, error))
    if len(problems) == 1 and len(config.sets) == 1:
        raise problems[0][1]
    if problems:
        raise BadInput(_missing(config, problems)) from problems[0][1]
    return indices


def _missing(config: PeopleDataConfig, problems: Sequence[tuple[SetConfig, BadInput]]) -> str:
    lines = [f"{len(problems)} of the {len(config.sets)} sets to learn from cannot be read:"]
    to_index = []
    for one, error in problems:
        path = _index_path(config, one)
        info = READERS.get(one.name)
        if path.exists():
            lines.append(f"{one.name} ({one.split}): {error}")
        elif info is not None and info.is_there(Path(config.root), one.split):
            lines.append(f"{one.name} ({one.split}): its files are there, its index {path} is not")
            to_index.append(f"{one.name}:{one.split}")
        else:
            source = f"; get it: {info.source}" if info is not None else ""
            lines.append(f"{one.name} ({one.split}): there is no index {path}, nor its files{source}")
    if to_index:
        lines.append(f"make the indices: wholebody data index {config.root} {' '.join(to_index)}")
    lines.append(f"`wholebody data check {config.root}` says what is missing of each; then: wholebody data index")
    return "\n  ".join(lines)


def set_folder(root: str | Path, name: str) -> Path:
    """The folder that the pictures of a set lie in, given the one with all sets."""
    info = READERS.get(name)
    return (info.home(Path(root)) if info is not None else None) or Path(root) / name


def _index_path(config: PeopleDataConfig, one: SetConfig) -> Path:
    if one.index:
        return Path(one.index)
    return (
        Path(one.folder) / f"{one.name}-{one.split}.arrow"
        if one.folder
        else index_path(config.root, one.name, one.split)
    )


def _mixture(config: PeopleDataConfig, lengths: Sequence[int], seed: int) -> tuple[Mixture, list[int]]:
    """The mixture, and which of the configured sets each of its sets is."""
    order = list(range(len(lengths)))
    if config.mix in ("all", "concat"):
        return one_after_another(lengths, seed), order
    if config.mix == "weights":
        return by_weight(lengths, [one.weight for one in config.sets], config.epoch_length, seed), order
    groups: dict[str, list[int]] = {}
    for number, one in enumerate(config.sets):
        groups.setdefault(one.group or f"\0{number}", []).append(number)
    grouped = [[lengths[number] for number in group] for group in groups.values()]
    balanced = config.mix == "balance"
    mixture = balance(grouped, config.epoch_length, seed) if balanced else equal_length(grouped, seed)
    return mixture, [number for group in groups.values() for number in group]


def _for_body(sample: Sample, body: str) -> Sample:
    """Parameters of another body are unknown. SMPL's joints turn as SMPL-X's do, its shape is another."""
    if not body or sample.body == body:
        return sample
    if {sample.body, body} == {"smpl", "smplx"}:
        return replace(sample, shape_valid=False, expression_valid=False)
    return replace(sample, pose_valid=np.zeros(55, bool), shape_valid=False, expression_valid=False)
