"""An evaluation as one HTML page that needs nothing beside it: table, histograms (SVG) and gallery (JPEG inside)."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wholebody import __version__
from wholebody.evaluation.gallery import KINDS
from wholebody.evaluation.result import Network, Result, Summary, label, most_is_best
from wholebody.evaluation.testset import Figure
from wholebody.files.whole import write_bytes

if TYPE_CHECKING:
    from markupsafe import Markup

COLORS = ("#2f6db3", "#d9722e", "#3c8f5a", "#8a5bb0", "#b03a48", "#6b6b6b")
BINS = 40


def write_page(result: Result, figures: Sequence[Figure], path: Path) -> Path:
    """Write the page, whole or not at all."""
    return write_bytes(path, render(result, figures).encode(errors="backslashreplace"))


def render(result: Result, figures: Sequence[Figure]) -> str:
    """The page, from `report.html.j2`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("wholebody.evaluation", ".")
    templates = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    groups = result.networks[0].groups()
    return templates.get_template("report.html.j2").render(
        result=result,
        version=__version__,
        colours=[_color(k) for k in range(len(result.networks))],
        table=_table(result, None),
        scenes=[
            (group, sum(row.group == group for row in result.networks[0].rows), _table(result, group))
            for group in groups
        ],
        histograms=_histograms(result),
        headline=label(result.headline),
        galleries=[(network.name, _gallery(network, figures)) for network in result.networks],
    )


@dataclass(frozen=True)
class Cell:
    """A figure of the table: the mean and what is said of its spread."""

    mean: str
    spread: str
    best: bool


def _table(result: Result, group: str | None) -> list[tuple[str, list[Cell | None]]]:
    """Rows: a measure's name, and a cell for each network; None where it has no such figure."""
    summaries = [network.summary(result.measures, group) for network in result.networks]
    rows: list[tuple[str, list[Cell | None]]] = []
    for name in result.measures:
        found = [summary.get(name) for summary in summaries]
        known = [s.mean for s in found if s is not None]
        if known:
            first = (max if most_is_best(name) else min)(known)
            several = len(known) > 1
            cells = [_cell(s, result.digits, several and s.mean == first) if s else None for s in found]
            rows.append((label(name), cells))
    return rows


def _cell(summary: Summary, digits: int, best: bool) -> Cell:
    spread = f"{summary.low:.{digits}f} to {summary.high:.{digits}f}, n = {summary.count:,}"
    return Cell(f"{summary.mean:.{digits}f}", spread, best)


def _histograms(result: Result) -> list[tuple[str, Markup]]:
    """Of each measure that anybody has, its name and the drawing."""
    from markupsafe import Markup

    drawn = []
    for name in result.measures:
        values = [network.values(name) for network in result.networks]
        values = [v[np.isfinite(v)] for v in values]
        everything = np.concatenate(values)
        if len(everything):
            drawn.append((label(name), Markup(histogram(values, everything))))  # numbers alone: nothing to escape
    return drawn


def histogram(values: Sequence[np.ndarray], everything: np.ndarray, size: tuple[int, int] = (360, 170)) -> str:
    """An SVG: for each network the share of people per bin; a dashed line at its mean. The last bin holds the rest."""
    width, height = size
    left, bottom, top = 34, 24, 8
    end = float(np.percentile(everything, 99)) or 1.0
    edges = np.linspace(0, end, BINS + 1)
    shares = [np.histogram(np.minimum(v, end), edges)[0] / max(1, len(v)) for v in values]
    tallest = max(0.01, max(float(share.max()) for share in shares))
    plot_w, plot_h = width - left - 6, height - bottom - top

    def x(value: float) -> float:
        return left + plot_w * min(value, end) / end

    def y(share: float) -> float:
        return top + plot_h * (1 - share / tallest)

    drawn = [f'<line x1="{left}" y1="{y(0):.1f}" x2="{width - 6}" y2="{y(0):.1f}" stroke="#aab1bb"/>']
    for tick in _ticks(end):
        anchor = "end" if x(tick) > width - 18 else "middle"
        drawn.append(f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="{anchor}">{tick:g}</text>')
    drawn.append(f'<text x="{left - 5}" y="{top + 9}" text-anchor="end">{tallest:.0%}</text>')
    for k, share in enumerate(shares):
        steps = "".join(f"L{x(edges[i]):.1f},{y(s):.1f}L{x(edges[i + 1]):.1f},{y(s):.1f}" for i, s in enumerate(share))
        outline = f"M{x(0):.1f},{y(0):.1f}{steps}L{x(end):.1f},{y(0):.1f}"
        drawn.append(f'<path d="{outline}" fill="{_color(k)}" fill-opacity="0.28" stroke="{_color(k)}"/>')
        if len(values[k]):
            mean = x(float(values[k].mean()))
            drawn.append(
                f'<line x1="{mean:.1f}" y1="{top}" x2="{mean:.1f}" y2="{y(0):.1f}" stroke="{_color(k)}" '
                'stroke-dasharray="4 3"/>'
            )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" font-size="11" fill="#5d6675" '
        f'font-family="system-ui, sans-serif">{"".join(drawn)}</svg>'
    )


def _gallery(network: Network, figures: Sequence[Figure]) -> list[tuple[Figure, str] | None]:
    """Row after row of the best, the middle and the worst, each with its picture in base64; None for a gap."""
    columns = [[f for f in figures if f.network == network.name and f.kind == kind] for kind in KINDS]
    rows = itertools.zip_longest(*columns)
    return [(f, base64.b64encode(f.jpeg).decode()) if f is not None else None for row in rows for f in row]


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, at most six."""
    rough = end / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    return [step * k for k in range(int(end / step + 1e-9) + 1)]


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
