"""`wholebody evaluate --testset all`: which test sets are there, and one table of what was measured on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wholebody.data.readers import reader
from wholebody.evaluation.benchmarks import BENCHMARKS
from wholebody.evaluation.result import FORMAT, Result, label
from wholebody.files.whole import write_bytes, write_json

SUBMISSION = "AGORA-test"
ORDER = (
    "PW3D", "EgoBody_Egocentric", "UBody", "EHF", "AGORA", "ARCTIC", "RenBody_HiRes", "RenBody", "EgoBody_Kinect",
    "SynHand", SUBMISSION,
)  # fmt: skip
"""The sets of SMPLer-X's `slurm_test.sh` in its order, with the further ones before AGORA's submission."""

PRIMARY: Mapping[str, str] = {
    "AGORA": "mpvpe_all", "EgoBody_Egocentric": "mpvpe_all", "UBody": "mpvpe_all", "PW3D": "mpjpe_own",
    "EHF": "mpvpe_all",
}  # fmt: skip
"""The main error of each of the five sets whose mean SMPLer-X calls MPE (mean primary error)."""

COLUMNS = (
    "mpvpe_all", "mpvpe_hand", "mpvpe_face", "pa_mpvpe_all", "pa_mpvpe_hand", "pa_mpvpe_face", "mpjpe_own",
    "pa_mpjpe_own", "pa_mpjpe_body", "pa_mpjpe_hand",
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What came of one test set."""

    testset: str
    result: Result | None = None
    """None for AGORA's test set, which only its server can measure, and where one of the others says why."""
    left_out: str = ""
    failed: str = ""


@dataclass(frozen=True)
class Together:
    """What was measured of some networks on all sets. names: of each network, how it is called and where it lies."""

    names: Sequence[tuple[str, str]]
    measured: Sequence[Measured]

    def mean_primary_error(self, network: int) -> float | None:
        """SMPLer-X's MPE in mm; None if one of its five sets was not measured."""
        results = {one.testset: one.result for one in self.measured if one.result is not None}
        errors = [primary_error(results[name], network) if name in results else math.nan for name in PRIMARY]
        return None if any(map(math.isnan, errors)) else sum(errors) / len(errors)

    def table(self) -> str:
        """Markdown: a line for each set and network, errors in mm; then what was left out or failed."""
        several = len(self.names) > 1
        head = ["set", *(["network"] if several else []), "people", *map(label, COLUMNS)]
        lines = [_row(head), _row(["---"] * (2 if several else 1) + ["--:"] * (len(COLUMNS) + 1))]
        notes = []
        for one in self.measured:
            if one.left_out:
                notes.append(f"{one.testset}: left out, {one.left_out}")
            elif one.failed:
                notes.append(f"{one.testset}: not measured: {one.failed}")
            elif one.result is None:
                notes.append(f"{one.testset}: predictions written; its server measures them: hand in predictions.zip")
            else:
                for network in one.result.networks:
                    found = network.summary(COLUMNS)
                    cells = [f"{found[name].mean:.1f}" if name in found else "" for name in COLUMNS]
                    count = str(one.result.people)
                    lines.append(_row([one.testset, *([network.name] if several else []), count, *cells]))
        for number, (name, _) in enumerate(self.names):
            error = self.mean_primary_error(number)
            if error is not None:
                whose = f" of {name}" if several else ""
                notes.append(f"Mean primary error{whose} (AGORA, EgoBody_Egocentric, UBody, PW3D, EHF): {error:.1f} mm")
        return "\n".join([*lines, *(["", *notes] if notes else [])])

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "testset": "all",
            "sets": {one.testset: one.result.as_dict() for one in self.measured if one.result is not None},
            "written": [one.testset for one in self.measured if not (one.result or one.left_out or one.failed)],
            "left_out": {one.testset: one.left_out for one in self.measured if one.left_out},
            "failed": {one.testset: one.failed for one in self.measured if one.failed},
            "mean_primary_error": {name: self.mean_primary_error(k) for k, (name, _) in enumerate(self.names)},
        }

    def write(self, folder: Path) -> list[Path]:
        """`table.md` and `result.json`."""
        return [
            write_bytes(folder / "table.md", f"{self.table()}\n".encode()),
            write_json(folder / "result.json", self.as_dict(), indent=1),
        ]


def primary_error(result: Result, network: int = 0) -> float:
    """The main error in mm of one network on one of the sets of `PRIMARY`; NaN where it was not taken."""
    name = PRIMARY[result.testset]
    found = result.networks[network].summary([name])
    return found[name].mean if name in found else math.nan


def home_of(root: Path) -> Path:
    """The folder with all sets, given it or the one that holds it as `dataset`."""
    inner = root / "dataset"
    return inner if inner.is_dir() and all(why_not(root, name) for name in ORDER) else root


def why_not(root: Path, testset: str) -> str:
    """What is missing of a test set in the folder with all sets; "" if it is there."""
    name, split = ("AGORA", "test") if testset == SUBMISSION else _split_of(testset)
    info = reader(name)
    folder = info.home(root)
    if folder is None:
        return f"{root} holds no {name}; get it: {info.source}"
    missing = info.missing(folder, split)
    return f"{', '.join(missing)} missing in {folder}" if missing else ""


def _split_of(testset: str) -> tuple[str, str]:
    benchmark = BENCHMARKS[testset]
    return benchmark.reader, benchmark.split


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
