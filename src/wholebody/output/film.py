"""Everything that a film becomes, by kind; each kind is written by a file of its own."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.output import FILM_KINDS
from wholebody.people.scene import Scene

if TYPE_CHECKING:
    from wholebody.files.video import Film

_ONE_EACH = ("bvh", "npz")


def film_path(folder: Path, name: str, kind: str, person: int = 0) -> Path:
    """Where the result of that kind for the film `name` lies; `person` counts `Scene.people`."""
    end = {"mot": "_mot.txt", "overlay": "_overlay.mp4"}.get(kind, f".{kind}")
    return folder / (name + (f"_person{person}.{kind}" if kind in _ONE_EACH else end))


def film_results(folder: Path, name: str, save: Sequence[str]) -> list[Path]:
    """The files that are there already in the places of what `save` names, whoever wrote them."""
    found = []
    for kind in save:
        paths = [film_path(folder, name, kind)]
        if kind in _ONE_EACH:
            start = f"{folder / name}_person"
            numbered = glob.glob(f"{glob.escape(start)}*.{kind}")
            paths = [Path(path) for path in numbered if path[len(start) : -len(kind) - 1].isdecimal()]
        found += [path for path in paths if os.path.lexists(path)]
    return found


def write_film(
    folder: Path, name: str, scene: Scene, body: BodyModel, film: Film | None = None, *,
    save: Sequence[str] = FILM_KINDS, look: str = "clothed", rig: str = "smplx",
    conventions: dict[str, Any] | None = None, say: Callable[[str], object] | None = None,
) -> list[Path]:  # fmt: skip
    """Write what `save` names and say which files those are. The JSON comes last: it says that the rest is complete.

    Args:
        film: where the frames come from, for the overlay and the page; without it there is no overlay.
        look: see `output.look`.
        rig: whose names the joints of .glb and .bvh have, see `body.skeletons.RIGS`.
        say: is told what is being written, a line a file.
    """
    if unknown := [kind for kind in save if kind not in FILM_KINDS]:
        raise BadInput(f"A film is not saved as {unknown[0]!r}; known: {', '.join(FILM_KINDS)}.")
    written: list[Path] = []
    for kind in sorted(save, key=lambda kind: (kind == "json", FILM_KINDS.index(kind))):
        if kind == "overlay" and film is None:
            continue
        for person in range(len(scene.people)) if kind in _ONE_EACH else (0,):
            path = film_path(folder, name, kind, person)
            if say:
                say(f"writing {path.name}")
            written.append(_write(path, kind, person, scene, body, film, look, rig))
    return written


def _write(
    path: Path, kind: str, person: int, scene: Scene, body: BodyModel, film: Film | None, look: str, rig: str
) -> Path:
    if kind == "overlay":
        from wholebody.output.overlay_film import write_overlay_film

        assert film is not None
        return write_overlay_film(path, scene, body, film, look=look)
    if kind == "glb":
        from wholebody.output.glb import write_glb

        return write_glb(path, scene, body, look=look, rig=rig)
    if kind == "bvh":
        from wholebody.output.bvh import write_bvh

        return write_bvh(path, scene.people[person], scene, body, rig=rig)
    if kind == "npz":
        from wholebody.output.amass import write_amass

        return write_amass(path, scene.people[person], scene, body)
    if kind == "html":
        from wholebody.output.page import write_page

        return write_page(path, scene, body, film=film, look=look)
    from wholebody.output.film_json import write_film_json, write_mot

    return write_mot(path, scene) if kind == "mot" else write_film_json(path, scene, body)
