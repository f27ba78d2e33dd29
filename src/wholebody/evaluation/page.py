"""An evaluation as one HTML page that needs nothing beside it: table, histograms (SVG) and gallery (JPEG inside)."""

from __future__ import annotations

import base64
import html
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wholebody import __version__
from wholebody.evaluation.gallery import KINDS, Figure
from wholebody.evaluation.result import Network, Result, label
from wholebody.files.whole import write_bytes

COLORS = ("#2f6db3", "#d9722e", "#3c8f5a", "#8a5bb0", "#b03a48", "#6b6b6b")
BINS = 40
_STYLE = """
:root { color-scheme: light; --ink: #1d2430; --soft: #5d6675; --line: #dfe3e8; --paper: #fbfbf9; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
       max-width: 1180px; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 40px 0 12px; } h3 { font-size: 15px;
margin: 20px 0 8px; } p { max-width: 78ch; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; background: #fff; border: 1px solid var(--line); }
.scroll { overflow-x: auto; } th, td { padding: 6px 12px; text-align: right; border-bottom: 1px solid var(--line);
font-variant-numeric: tabular-nums; white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
thead th { font-weight: 600; background: #f2f4f6; } td small { color: var(--soft); font-weight: 400; }
td.best { font-weight: 650; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
.card, figure { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; margin: 0; }
.card h3 { margin: 4px 0 6px; }
.three { grid-template-columns: repeat(3, 1fr); }
@media (max-width: 800px) { .three { grid-template-columns: 1fr; } }
figure { padding: 0; overflow: hidden; } figure img { display: block; width: 100%; height: auto; }
figcaption { padding: 8px 12px; font-size: 13px; overflow-wrap: anywhere; } svg { display: block; width: 100%;
height: auto; } .key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
"""


def write_page(result: Result, figures: Sequence[Figure], path: Path) -> Path:
    """Write the page, whole or not at all."""
    return write_bytes(path, render(result, figures).encode())


def render(result: Result, figures: Sequence[Figure]) -> str:
    title = html.escape(result.title)
    keys = " &nbsp; ".join(
        f'<span class="key" style="background:{_color(k)}"></span>{html.escape(network.name)}'
        for k, network in enumerate(result.networks)
    )
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{result.people:,} people, errors in {html.escape(result.unit)}, wholebody {__version__}<br>'
        f"{keys}</p>",
        f"<p>{html.escape(result.protocol)}</p>",
        "<h2>Errors</h2>",
        _table(result, None),
        '<p class="soft">Means with 95 % bootstrap intervals over people; people whose truth lacks a part are left out '
        "of that row.</p>",
    ]
    groups = result.networks[0].groups()
    if groups:
        parts.append("<h2>By scene</h2>")
        parts += [
            f"<details><summary>{html.escape(g)}, {sum(r.group == g for r in result.networks[0].rows)} people"
            f"</summary>{_table(result, g)}</details>"
            for g in groups
        ]
    parts += ["<h2>How the errors are spread</h2>", f'<div class="grid">{"".join(_histograms(result))}</div>']
    if figures:
        parts.append("<h2>Samples</h2>")
        parts.append(
            '<p class="soft">The crop, the predicted mesh over it, and from the side the prediction (blue) with the '
            f"truth (grey), pelvis on pelvis. Best, middle and worst by {html.escape(label(result.headline))}.</p>"
        )
        for network in result.networks:
            parts += _gallery(network, figures)
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>"
    )


def _table(result: Result, group: str | None) -> str:
    summaries = [network.summary(result.measures, group) for network in result.networks]
    head = "".join(f"<th>{html.escape(network.name)}</th>" for network in result.networks)
    rows, d = [], result.digits
    for name in result.measures:
        found = [summary.get(name) for summary in summaries]
        known = [s.mean for s in found if s is not None]
        if not known:
            continue
        cells = []
        for s in found:
            if s is None:
                cells.append("<td>–</td>")
                continue
            first = max(known) if name.startswith("pck") else min(known)
            best = ' class="best"' if len(known) > 1 and s.mean == first else ""
            spread = f"{s.low:.{d}f} to {s.high:.{d}f}, n = {s.count:,}"
            cells.append(f"<td{best}>{s.mean:.{d}f} <small>[{spread}]</small></td>")
        rows.append(f"<tr><td>{html.escape(label(name))}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>{html.escape(result.unit)}</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _histograms(result: Result) -> list[str]:
    cards = []
    for name in result.measures:
        values = [network.values(name) for network in result.networks]
        values = [v[np.isfinite(v)] for v in values]
        everything = np.concatenate(values)
        if len(everything):
            cards.append(
                f'<div class="card"><h3>{html.escape(label(name))}, {html.escape(result.unit)}</h3>'
                f"{histogram(values, everything)}</div>"
            )
    return cards


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


def _gallery(network: Network, figures: Sequence[Figure]) -> list[str]:
    """Columns of the best, the middle and the worst."""
    columns = [[f for f in figures if f.network == network.name and f.kind == kind] for kind in KINDS]
    drawn = []
    for row in itertools.zip_longest(*columns):
        for figure in row:
            if figure is None:
                drawn.append("<span></span>")
                continue
            data = base64.b64encode(figure.jpeg).decode()
            alt = html.escape(f"{figure.kind}: {figure.id}", quote=True)
            drawn.append(
                f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{data}">'
                f"<figcaption><b>{figure.kind}</b> {html.escape(figure.id)}<br>{html.escape(figure.caption)}"
                "</figcaption></figure>"
            )
    if not drawn:
        return []
    return [f"<h3>{html.escape(network.name)}</h3>", f'<div class="grid three">{"".join(drawn)}</div>']


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to `end`, at most six."""
    rough = end / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    return [step * k for k in range(int(end / step + 1e-9) + 1)]


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]
