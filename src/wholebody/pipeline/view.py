"""`wholebody view`: the page of a finished result, made anew from the motion files where it was not written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from wholebody.errors import BadInput

_END = re.compile(r"(_overlay\.(mp4|jpg)|_mot\.txt|_person\d+\.(npz|bvh|obj|ply|glb)|\.(json|glb|html))$")


def pages_of(results: Sequence[str], say: Callable[[str], object] = print) -> list[Path]:
    """The pages that these names mean: a page, another file of a result, its name without an ending, or a folder.

    A film's result without a page gets one, made of its `_personN.npz`. Raises BadInput where there is neither.
    """
    pages: list[Path] = []
    for name in results:
        path = Path(name)
        if path.is_dir():
            stems = {stem for file in path.iterdir() if (stem := _stem(file)) is not None and _has_page(stem)}
            if not stems:
                raise BadInput(f"{path}: holds no result of a film (NAME.html, or NAME_person0.npz).")
            pages += [_page(stem, say) for stem in sorted(stems)]
        else:
            stem = _stem(path) if path.exists() else path
            if stem is None or not _has_page(stem):
                raise BadInput(
                    f"{path}: no result with a page. Give the folder of `predict --out`, or a file in it such as "
                    "NAME.html or NAME_person0.npz of a film."
                )
            pages.append(_page(stem, say))
    return list(dict.fromkeys(pages))


def _stem(file: Path) -> Path | None:
    """The result that a file belongs to: its folder and NAME."""
    name = _END.sub("", file.name)
    return file.with_name(name) if name and name != file.name else None


def _has_page(stem: Path) -> bool:
    return stem.with_name(f"{stem.name}.html").is_file() or bool(_motions(stem))


def _motions(stem: Path) -> list[Path]:
    """A film's `_personN.npz`, by N; not those of a photo, which hold no motion."""
    from wholebody.output.amass import is_amass

    found = []
    for path in stem.parent.glob("*_person*.npz"):
        number = path.name.removeprefix(f"{stem.name}_person").removesuffix(".npz")
        if path.name.startswith(f"{stem.name}_person") and number.isdecimal() and is_amass(path):
            found.append((int(number), path))
    return [path for _, path in sorted(found)]


def _page(stem: Path, say: Callable[[str], object]) -> Path:
    page = stem.with_name(f"{stem.name}.html")
    if page.is_file():
        return page
    from wholebody.body.layer import BodyModel
    from wholebody.output.amass import read_amass
    from wholebody.output.page import write_page

    body = BodyModel.load()
    say(f"{page}: was not written; making it from the motion files, without the film")
    return write_page(page, read_amass(_motions(stem), body), body)
