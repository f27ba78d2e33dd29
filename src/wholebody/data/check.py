"""`wholebody data check`: which sets are there and whole, what they hold, and where to get what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wholebody.data.mesh_joints import MeshJoints
from wholebody.data.readers import READERS, ReaderInfo, reader
from wholebody.data.sample import Sample
from wholebody.data.sheet import tile, write_sheet
from wholebody.errors import BadInput, WholebodyError


@dataclass
class SplitReport:
    """What one split holds. Counts are of people unless named otherwise."""

    split: str
    missing: list[str]
    """Files that the split needs; if there are any, it was not read."""
    error: str = ""
    """Why reading stopped."""
    people: int = 0
    pictures: int = 0
    fitted: dict[str, int] = field(default_factory=dict)
    """With parameters, by body."""
    measured: int = 0
    """With joints known in space."""
    parts: np.ndarray = field(default_factory=lambda: np.zeros(3, int))
    """With a box of left hand, right hand, face."""
    missing_pictures: int = 0
    first_missing: str = ""
    unreadable: list[str] = field(default_factory=list)
    """Of the people drawn on the sheet."""

    @property
    def ok(self) -> bool:
        return not (self.missing or self.error or self.missing_pictures or self.unreadable)


@dataclass
class SetReport:
    """One set: `folder` is None if it is not there."""

    info: ReaderInfo
    folder: Path | None
    splits: list[SplitReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing that is there is damaged; whole splits may be absent."""
        return all(s.ok or (s.missing and not s.error) for s in self.splits) and (
            self.folder is None or any(s.ok for s in self.splits)
        )


def check(
    root: Path,
    names: Sequence[str] = (),
    splits: Sequence[str] = (),
    sheet: Path | None = None,
    each: int = 4,
    body: str | None = None,
    quick: bool = False,
) -> list[SetReport]:
    """Look at the sets in a folder, or at one set's own folder.

    Args:
        root: the folder with `MSCOCO`, `MPII`, ...; or the folder of a single set, then named in `names`.
        names, splits: which to look at; default all.
        sheet: where to write a PNG with `each` people of every split, drawn with their truth.
        body: body files to draw fitted meshes' joints with, as `BodyModel.load` takes them; None: without meshes.
        quick: only see which files are there, without reading them.
    """
    root = Path(root)
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}: give the one that holds MSCOCO, MPII, ...")
    infos = [reader(name) for name in names] or list(READERS.values())
    folders = {info.name: info.home(root) for info in infos}
    if len(names) == 1 and folders[names[0]] is None:
        folders[names[0]] = root
    elif not any(folders.values()):
        raise BadInput(
            f"{root} holds none of {', '.join(folders)}. Give the folder above them, or a single set's own folder with "
            "its name (--set)"
        )
    joints = MeshJoints(body) if body else None
    reports, rows = [], []
    for info in infos:
        folder = folders[info.name]
        report = SetReport(info, folder)
        for split in info.splits if folder else ():
            if splits and split not in splits:
                continue
            missing = info.missing(folder, split) if folder else []
            one = SplitReport(split, missing)
            report.splits.append(one)
            if folder and not missing and not quick:
                chosen = _read(info, folder, one, each if sheet else 0)
                rows += [tiles] if (tiles := _tiles(chosen, folder, joints, one)) else []
        reports.append(report)
    if sheet:
        write_sheet(sheet, rows)
    return reports


def _read(info: ReaderInfo, folder: Path, report: SplitReport, each: int) -> list[Sample]:
    """Count a split's people; returns `each` of them, chosen evenly at random as they go by (always the same)."""
    chosen: list[Sample] = []
    rng, pictures, listed = np.random.default_rng(0), set(), _Listing(folder)
    try:
        for sample in info.read(folder, report.split):
            report.people += 1
            if sample.image_path is not None and sample.image_path not in pictures:
                pictures.add(sample.image_path)
                if sample.image_path not in listed:
                    report.missing_pictures += 1
                    report.first_missing = report.first_missing or sample.image_path
            if sample.body and sample.pose_valid.any():
                report.fitted[sample.body] = report.fitted.get(sample.body, 0) + 1
            report.measured += bool(sample.joint_cam_known.any())
            report.parts += np.asarray(sample.part_valid, int)
            if len(chosen) < each:
                chosen.append(sample)
            elif each and (place := int(rng.integers(report.people))) < each:
                chosen[place] = sample
    except WholebodyError as error:
        report.error = str(error)
    report.pictures = len(pictures)
    if not report.people and not report.error:
        report.error = "the files are there, and no usable person is in them"
    return chosen


def _tiles(chosen: Sequence[Sample], folder: Path, joints: MeshJoints | None, report: SplitReport) -> list[np.ndarray]:
    tiles = []
    for sample in chosen:
        try:
            tiles.append(tile(sample, folder, joints(sample) if joints else None))
        except BadInput as error:
            if sample.image_path and (folder / sample.image_path).is_file():  # missing ones are counted already
                report.unreadable.append(str(error))
    return tiles


class _Listing:
    """Whether files exist, by one look into each folder: a million single looks take minutes on network disks."""

    def __init__(self, root: Path):
        self._root, self._names = root, dict[str, frozenset[str]]()

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(self._root / folder))
            except OSError:
                self._names[folder] = frozenset()
        return name in self._names[folder]


def lines(reports: Sequence[SetReport]) -> Iterator[str]:
    """The reports as text: sets that are there first, then those that are not with where to get them."""
    for report in reports:
        if report.folder is not None:
            yield f"{report.info.name}: {report.info.title}, {report.folder}"
            for split in report.splits:
                yield from (f"  {line}" for line in _split_lines(split))
            if any(split.missing for split in report.splits):
                yield f"  get what is missing: {report.info.source}"
                if report.info.pictures:
                    yield f"  then: {report.info.pictures}"
    absent = [report.info for report in reports if report.folder is None]
    if absent:
        yield "not there:"
    for info in absent:
        yield f"  {info.name}: {info.title}; get it: {info.source} ({info.licence})"


def _split_lines(split: SplitReport) -> Iterator[str]:
    if split.missing:
        yield f"{split.split}: not complete, missing {', '.join(split.missing)}"
        return
    if split.error:
        yield f"{split.split}: {split.error}"
        return
    if not split.people:
        yield f"{split.split}: all files are there (not read)"
        return
    fitted = ", ".join(f"{count} with {body} parameters" for body, count in split.fitted.items()) or "no parameters"
    left, right, face = split.parts
    yield (
        f"{split.split}: {split.people} people in {split.pictures} pictures; {fitted}, {split.measured} measured in "
        f"3D; boxes of {left} left and {right} right hands, {face} faces"
    )
    if split.missing_pictures:
        yield f"  {split.missing_pictures} pictures are missing, the first is {split.first_missing}"
    for problem in split.unreadable:
        yield f"  {problem}"
