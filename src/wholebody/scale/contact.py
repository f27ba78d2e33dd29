"""The page that shows every Nth picture of a job with what was found in it."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from wholebody.files.storage import Store

_MOST = 2000
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #f7f7f5 }}
table {{ border-collapse: collapse; margin: 1rem 0 }} td, th {{ padding: .1rem .8rem .1rem 0; text-align: right }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: .8rem }}
figure {{ margin: 0; background: #fff; padding: .4rem; border-radius: .3rem }}
img {{ width: 100%; height: 14rem; object-fit: contain; background: #eee }}
figcaption {{ font-size: 12px; color: #666 }}
</style></head><body><h1>{title}</h1>
<table><tr>{heads}</tr><tr>{counts}</tr></table>
<main>
{figures}
</main></body></html>
"""


def write_contact_page(store: Store, counts: Mapping[str, Any]) -> None:
    """`contact.html` with the overlays that are there, at most 2,000 of them, evenly chosen; they stay files beside."""
    names = store.list("overlays")
    step = -(-len(names) // _MOST) or 1
    figures = "\n".join(
        f'<figure><img loading="lazy" src="overlays/{html.escape(name)}" alt="">'
        f"<figcaption>shard {int(name[:6])}, row {int(name[7:13])}</figcaption></figure>"
        for name in names[::step] if name[:6].isdecimal() and name[7:13].isdecimal()
    )  # fmt: skip
    content = _PAGE.format(
        title="Some pictures of this job",
        heads="".join(f"<th>{html.escape(name)}</th>" for name in counts),
        counts="".join(f"<td>{value:,}</td>" for value in counts.values()),
        figures=figures or "<p>No overlay was asked for.</p>",
    )
    store.write("contact.html", content.encode())
