"""`wholebody reproduce`: the paper's table from the published checkpoints, ours beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wholebody.errors import AssetMissing, BadInput, WholebodyError
from wholebody.evaluation.evaluate import SUBMISSION, EvaluateConfig, evaluate
from wholebody.evaluation.paper import PAPER, ROWS, PaperRow
from wholebody.options import BatchSize, Device, several

if TYPE_CHECKING:  # NumPy and more: nothing that `--help` may wait for
    from wholebody.evaluation.result import Result


@dataclass(frozen=True)
class ReproduceConfig:
    """What `wholebody reproduce` is asked for; its fields are the command's options."""

    root: Path
    """holds the test sets (EHF, AGORA, PW3D, UBody) under the names that the published README gives them"""
    checkpoints: Path
    """holds the published checkpoints (osx_l.pth.tar and the others) under their own names"""
    body: str
    """folder with the SMPL-X files, see docs/evaluation.md"""
    out: Path = Path("output/reproduce")
    """folder for the table and the reports"""
    only: Annotated[tuple[str, ...], several("--only")] = ()
    """some of EHF, AGORA, PW3D, UBody, AGORA-test; all if none is named"""
    device: Device = "auto"
    devices: int = 1
    """processes on this machine, one for each GPU, each of which measures its share of the people"""
    batch_size: BatchSize = None
    limit: int | None = None
    """only the first N people of each set"""
    every: int | None = None
    """every Nth person only; as published if not given"""

    def rows(self) -> list[PaperRow]:
        unknown = set(self.only) - {row.testset for row in ROWS}
        if unknown:
            names = ", ".join(row.testset for row in ROWS)
            raise BadInput(f"--only {', '.join(sorted(unknown))}: the paper's table has {names}")
        return [row for row in ROWS if not self.only or row.testset in self.only]


@dataclass(frozen=True)
class Line:
    """One figure of the table. `ours` is NaN where it was not measured; `note` says why."""

    testset: str
    checkpoint: str
    measure: str
    paper: float
    ours: float
    people: int
    note: str
    source: str


def reproduce(config: ReproduceConfig, say: Callable[[str], None] = print) -> tuple[list[Line], int]:
    """Measure all that is there; the lines of the table and how many rows of the paper could not be measured.

    A set or checkpoint that is missing is named in the table and does not stop the rest. Writes `table.md` and
    `table.json`, and each evaluation's own report into a folder named after its set.
    """
    from wholebody.files.whole import write_bytes, write_json
    from wholebody.output.files import check_folder

    check_folder(config.out)
    lines: list[Line] = []
    failed = 0
    for row in config.rows():
        say(f"{row.testset} with {row.checkpoint}")
        try:
            result = evaluate(_evaluation(config, row), say)
            note = "" if result else f"predictions written; the server measures {row.testset}: hand in predictions.zip"
        except WholebodyError as error:
            result, note, failed = None, f"not measured: {error}", failed + 1
            say(f"  {note}")
        lines += _lines(row, result, note)
    write_json(config.out / "table.json", [_as_dict(line) for line in lines], indent=1)
    path = write_bytes(config.out / "table.md", table(lines).encode(errors="backslashreplace"))
    say(table(lines))
    say(str(path))
    return lines, failed


def _evaluation(config: ReproduceConfig, row: PaperRow) -> EvaluateConfig:
    path = config.checkpoints / row.checkpoint
    if not path.is_file():
        raise AssetMissing(
            f"there is no {row.checkpoint} in {config.checkpoints}; the published README links it (section 'Download "
            "Pretrained Models')"
        )
    some = row.testset != SUBMISSION  # its server takes everybody or nothing
    return EvaluateConfig(
        models=(str(path),), testset=row.testset, root=config.root, out=config.out / row.testset, body=config.body,
        device=config.device, batch_size=config.batch_size, devices=config.devices,
        limit=config.limit if some else None, every=config.every if some else None,
    )  # fmt: skip


def _lines(row: PaperRow, result: Result | None, note: str) -> list[Line]:
    from wholebody.evaluation.result import label

    found = result.networks[0].summary(result.measures) if result else {}
    lines = []
    for measure, paper in row.figures.items():
        summary = found.get(measure)
        ours, people = (summary.mean, summary.count) if summary else (math.nan, 0)
        name = measure if row.testset == SUBMISSION else label(measure)
        lines.append(Line(row.testset, row.checkpoint, name, paper, ours, people, note, row.source))
    return lines


def table(lines: list[Line]) -> str:
    """Markdown: the paper's figure, ours and the difference, in mm; then where each figure is from, and notes."""
    text = ["| set | checkpoint | measure, mm | paper | ours | difference | people |", "|---|---|---|--:|--:|--:|--:|"]
    for line in lines:
        known = math.isfinite(line.ours)
        ours, off = (f"{line.ours:.1f}", f"{line.ours - line.paper:+.1f}") if known else ("–", "–")
        text.append(
            f"| {line.testset} | {line.checkpoint} | {line.measure} | {line.paper:.1f} | {ours} | {off} | "
            f"{line.people or '–'} |"
        )
    text += ["", f"Paper: {PAPER}."]
    for testset in dict.fromkeys(line.testset for line in lines):
        first = next(line for line in lines if line.testset == testset)
        text.append(f"{testset}: {first.source}." + (f" {first.note}" if first.note else ""))
    return "\n\n".join(["\n".join(text[: len(lines) + 2]), *text[len(lines) + 3 :]]) + "\n"


def _as_dict(line: Line) -> dict:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in vars(line).items()}
