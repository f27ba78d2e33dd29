"""`wholebody reproduce`: the paper's table from the published checkpoints, ours beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from wholebody.errors import AssetMissing, BadInput, WholebodyError
from wholebody.evaluation.evaluate import SUBMISSION, EvaluateConfig, evaluate
from wholebody.evaluation.paper import FAMILY_PAPER, FAMILY_ROWS, MPE, PAPER, ROWS, PaperRow
from wholebody.options import BatchSize, Device, several

if TYPE_CHECKING:  # NumPy and more: nothing that `--help` may wait for
    from wholebody.evaluation.result import Result


@dataclass(frozen=True)
class ReproduceConfig:
    """What `wholebody reproduce` is asked for; its fields are the command's options."""

    root: Path
    """holds the test sets (EHF, AGORA, PW3D, UBody, ...) under the names that the published READMEs give them"""
    checkpoints: Path
    """holds the published checkpoints (osx_l.pth.tar, smpler_x_h32.pth.tar and the others) under their own names"""
    body: str
    """folder with the SMPL-X files, see docs/evaluation.md"""
    out: Path = Path("output/reproduce")
    """folder for the table and the reports"""
    only: Annotated[tuple[str, ...], several("--only")] = ()
    """some of EHF, AGORA, PW3D, UBody, AGORA-test, EgoBody_Egocentric, MPE; all if none is named"""
    device: Device = "auto"
    devices: int = 1
    """processes on this machine, one for each GPU, each of which measures its share of the people"""
    batch_size: BatchSize = None
    limit: int | None = None
    """only the first N people of each set"""
    every: int | None = None
    """every Nth person only; as published if not given"""

    def rows(self) -> list[PaperRow]:
        """The lines of the papers whose checkpoints are there; OSX's if there are none at all."""
        known = {row.testset: None for row in (*ROWS, *FAMILY_ROWS)}
        unknown = set(self.only) - set(known)
        if unknown:
            raise BadInput(f"--only {', '.join(sorted(unknown))}: the papers' tables have {', '.join(known)}")
        there = [rows for rows in (ROWS, FAMILY_ROWS) if any((self.checkpoints / r.checkpoint).is_file() for r in rows)]
        rows = [row for paper in there or [ROWS] for row in paper]
        return [row for row in rows if not self.only or row.testset in self.only]


@dataclass(frozen=True)
class Line:
    """One figure of the table. `ours` is NaN where it was not measured, and `note` says why; `paper` where a figure of
    the paper is the mean of several and this is one of them."""

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
    measure = _Measurements(config, say)
    for row in config.rows():
        say(f"{row.testset} with {row.checkpoint}")
        if row.testset == MPE:
            found, problem = _mean_lines(row, measure)
        else:
            result, note, problem = measure(row.checkpoint, row.testset)
            found = _lines(row, result, note)
        lines += found
        failed += bool(problem)
    if (config.checkpoints / "smplest_x_h.pth.tar").is_file():
        say("smplest_x_h.pth.tar: SMPLest-X's repository gives no figures; `wholebody evaluate` measures it")
    write_json(config.out / "table.json", [_as_dict(line) for line in lines], indent=1)
    path = write_bytes(config.out / "table.md", table(lines).encode(errors="backslashreplace"))
    say(table(lines))
    say(str(path))
    return lines, failed


class _Measurements:
    """`measure(checkpoint, testset)`: the result, what is to be said of it, and why there is none; each taken once."""

    def __init__(self, config: ReproduceConfig, say: Callable[[str], None]):
        self._config, self._say = config, say
        self._known: dict[tuple[str, str], tuple[Result | None, str, str]] = {}

    def missing(self, checkpoint: str) -> str:
        """What to do about a checkpoint that is not there; "" if it is."""
        folder = self._config.checkpoints
        if (folder / checkpoint).is_file():
            return ""
        return f"there is no {checkpoint} in {folder}; the published README links it (its section on pretrained models)"

    def __call__(self, checkpoint: str, testset: str) -> tuple[Result | None, str, str]:
        key = (checkpoint, testset)
        if key not in self._known:
            try:
                if problem := self.missing(checkpoint):
                    raise AssetMissing(problem)
                result = evaluate(_evaluation(self._config, checkpoint, testset), self._say)
                note = "" if result else f"predictions written; the server measures {testset}: hand in predictions.zip"
                self._known[key] = result, note, ""
            except WholebodyError as error:
                note = f"not measured: {error}"
                self._known[key] = None, note, str(error)
                self._say(f"  {note}")
        return self._known[key]


def _mean_lines(row: PaperRow, measure: _Measurements) -> tuple[list[Line], str]:
    """The main error on each of the five sets, and their mean beside the paper's; why there is no mean, if so."""
    from wholebody.evaluation.result import label
    from wholebody.evaluation.together import PRIMARY, primary_error

    if problem := measure.missing(row.checkpoint):
        return _lines(row, None, f"not measured: {problem}"), problem
    lines, problems = [], []
    for testset, name in PRIMARY.items():
        result, note, problem = measure(row.checkpoint, testset)
        error = primary_error(result) if result is not None else math.nan
        people = result.people if result is not None else 0
        lines.append(Line(testset, row.checkpoint, label(name), math.nan, error, people, note, ""))
        problems += [f"{testset}: {problem or 'nothing to measure'}"] if math.isnan(error) else []
    ours = math.nan if problems else sum(line.ours for line in lines) / len(lines)
    note = f"no mean without all five sets ({'; '.join(problems)})" if problems else ""
    people = sum(line.people for line in lines)
    lines += [
        Line(MPE, row.checkpoint, name, paper, ours, people, note, row.source) for name, paper in row.figures.items()
    ]
    return lines, note


def _evaluation(config: ReproduceConfig, checkpoint: str, testset: str) -> EvaluateConfig:
    some = testset != SUBMISSION  # its server takes everybody or nothing
    of_family = any(checkpoint == row.checkpoint for row in FAMILY_ROWS)
    out = config.out / checkpoint.partition(".")[0] / testset if of_family else config.out / testset
    return EvaluateConfig(
        models=(str(config.checkpoints / checkpoint),), testset=testset, root=config.root, out=out, body=config.body,
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
        name = measure if row.testset in (SUBMISSION, MPE) else label(measure)
        lines.append(Line(row.testset, row.checkpoint, name, paper, ours, people, note, row.source))
    return lines


def table(lines: list[Line]) -> str:
    """Markdown: the paper's figure, ours and the difference, in mm; then where each figure is from, and notes."""
    text = ["| set | checkpoint | measure, mm | paper | ours | difference | people |", "|---|---|---|--:|--:|--:|--:|"]
    for line in lines:
        known, told = math.isfinite(line.ours), math.isfinite(line.paper)
        paper, ours = f"{line.paper:.1f}" if told else "–", f"{line.ours:.1f}" if known else "–"
        off = f"{line.ours - line.paper:+.1f}" if known and told else "–"
        text.append(
            f"| {line.testset} | {line.checkpoint} | {line.measure} | {paper} | {ours} | {off} | {line.people or '–'} |"
        )
    family = {row.checkpoint for row in FAMILY_ROWS}
    papers = dict.fromkeys(FAMILY_PAPER if line.checkpoint in family else PAPER for line in lines)
    notes = [f"Paper: {paper}." for paper in papers]
    checkpoints = {name: {line.checkpoint for line in lines if line.testset == name} for name in _names(lines)}
    seen: set[tuple[str, str, str]] = set()
    for line in lines:
        said = f"{line.source}." if line.source else ""
        said += f" {line.note}" if line.note else ""
        if said and (key := (line.testset, line.checkpoint, said)) not in seen:
            seen.add(key)
            several = len(checkpoints[line.testset]) > 1
            notes.append(f"{line.testset}{f' with {line.checkpoint}' if several else ''}: {said.strip()}")
    return "\n\n".join(["\n".join(text), *notes]) + "\n"


def _names(lines: list[Line]) -> dict[str, None]:
    return dict.fromkeys(line.testset for line in lines)


def _as_dict(line: Line) -> dict:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in vars(line).items()}
