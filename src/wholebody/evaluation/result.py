"""What an evaluation found: the errors of every sample, their means, and the same as files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from wholebody import __version__
from wholebody.files.text import shown
from wholebody.files.whole import write_bytes, write_json

FORMAT = "wholebody.evaluation/1"
RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One person's errors by measure; NaN where nothing could be measured."""

    id: str
    image: str
    group: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Summary:
    """The mean of a measure over those people that have it, with the 95 % bootstrap interval of that mean."""

    mean: float
    low: float
    high: float
    median: float
    count: int

    @staticmethod
    def of(values: Sequence[float] | np.ndarray, seed: int = 0) -> Summary:
        known = np.asarray(values, np.float64)
        known = known[np.isfinite(known)]
        if not len(known):
            return Summary(math.nan, math.nan, math.nan, math.nan, 0)
        low, high = bootstrap(len(known), lambda rows: known[rows].mean(), seed)
        return Summary(float(known.mean()), low, high, float(np.median(known)), len(known))


def bootstrap(count: int, statistic: Callable[[np.ndarray], float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of `statistic(rows)` over samples of `count` rows, drawn with replacement."""
    rng = np.random.default_rng(seed)
    draws = [statistic(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if np.isfinite(draws).any() else (math.nan, math.nan)
    return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Network:
    """One network's rows on a test set."""

    name: str
    checkpoint: str
    rows: Sequence[Row]
    _summaries: dict[tuple[str, str | None], Summary] = field(default_factory=dict, repr=False)

    def values(self, measure: str, group: str | None = None) -> np.ndarray:
        """Of every person (of one group), NaN where there is none."""
        return np.array([r.values.get(measure, math.nan) for r in self.rows if group is None or r.group == group])

    def summary(self, measures: Sequence[str], group: str | None = None) -> dict[str, Summary]:
        """Of those measures that anybody has."""
        for name in measures:
            if (name, group) not in self._summaries:
                self._summaries[name, group] = Summary.of(self.values(name, group))
        return {name: self._summaries[name, group] for name in measures if self._summaries[name, group].count}

    def groups(self) -> list[str]:
        return sorted({row.group for row in self.rows if row.group})


@dataclass(frozen=True)
class Result:
    """An evaluation of one or several networks on the same people."""

    testset: str
    title: str
    protocol: str
    unit: str
    measures: tuple[str, ...]
    networks: Sequence[Network]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def people(self) -> int:
        return len(self.networks[0].rows)

    @property
    def digits(self) -> int:
        """Decimals that mean something."""
        return 1 if self.unit == "mm" else 3

    @property
    def headline(self) -> str:
        """The first measure that was taken."""
        taken = self.networks[0].summary(self.measures)
        return next((name for name in self.measures if name in taken), self.measures[0])

    def table(self) -> str:
        """For a terminal: a line for each measure, a column for each network; then the scenes."""
        names = [network.name for network in self.networks]
        wide = max(24, *(len(name) + 2 for name in names))
        lines = [f"{self.title}, {self.people} people, {self.unit}".ljust(34) + "".join(n.rjust(wide) for n in names)]
        lines += self._lines(None, wide)
        for group in self.networks[0].groups():
            count = sum(row.group == group for row in self.networks[0].rows)
            lines += [f"{group}, {count} people", *self._lines(group, wide)]
        return "\n".join(lines)

    def _lines(self, group: str | None, wide: int) -> list[str]:
        summaries = [network.summary(self.measures, group) for network in self.networks]
        lines = []
        for name in self.measures:
            found = [summary.get(name) for summary in summaries]
            if any(found):
                d = self.digits
                cells = [f"{s.mean:.{d}f} [{s.low:.{d}f}, {s.high:.{d}f}]" if s else "-" for s in found]
                lines.append(f"  {label(name):<32}" + "".join(cell.rjust(wide) for cell in cells))
        return lines

    def as_dict(self) -> dict[str, Any]:
        def numbers(network: Network, group: str | None) -> dict[str, Any]:
            summaries = network.summary(self.measures, group)
            return {name: {key: _json(value) for key, value in vars(s).items()} for name, s in summaries.items()}

        return {
            "format": FORMAT,
            "wholebody": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "testset": self.testset,
            "title": self.title,
            "protocol": self.protocol,
            "unit": self.unit,
            "people": self.people,
            "networks": [
                {
                    "name": network.name,
                    "checkpoint": network.checkpoint,
                    "errors": numbers(network, None),
                    "groups": {group: numbers(network, group) for group in network.groups()},
                }
                for network in self.networks
            ],
            **self.extra,
        }

    def csv(self) -> str:
        """A line for each network and person."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["network", "id", "image", "group", *self.measures])
        for network in self.networks:
            for row in network.rows:
                values = [row.values.get(name, math.nan) for name in self.measures]
                cells = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
                names = (network.name, row.id, row.image, row.group)
                writer.writerow([*(_harmless(name) for name in names), *cells])
        return stream.getvalue()

    def write(self, folder: Path) -> list[Path]:
        """`result.json` and `samples.csv`."""
        return [
            write_bytes(folder / "samples.csv", self.csv().encode(errors="backslashreplace")),
            write_json(folder / "result.json", self.as_dict(), indent=1),
        ]


def _harmless(text: str) -> str:
    """A name as a cell that no spreadsheet takes for a formula, on one line."""
    text = shown(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t") else text


_LABELS = {
    "all": "all", "hand": "hands", "face": "face", "body": "body", "own": "own joints", "l_hand": "left hand",
    "r_hand": "right hand",
}  # fmt: skip


def label(measure: str) -> str:
    """`pa_mpvpe_hand` -> `PA-MPVPE hands`."""
    metric, _, part = measure.rpartition("_")
    if metric.endswith(("_l", "_r")):
        metric, part = metric[:-2], f"{metric[-1]}_{part}"
    if metric.replace("pa_", "") not in ("mpvpe", "mpjpe"):
        return measure.replace("_", " ")
    return f"{metric.replace('_', '-').upper()} {_LABELS.get(part, part)}"


def most_is_best(measure: str) -> bool:
    """Whether a measure is a share of what was met, and no error."""
    return measure.startswith("pck")


def _json(value: float) -> float | int | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
