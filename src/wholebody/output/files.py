"""Results as files, each of which appears whole or not at all.

For a picture NAME: `NAME_overlay.jpg`, for each person N `NAME_personN.npz`, `.obj`, `.ply`, `.glb`, `NAME.glb` with
everybody, and last `NAME.json`, which therefore says that the rest is complete.
"""

from __future__ import annotations

import contextlib
import glob
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.files.mesh import MESHES, mesh_bytes
from wholebody.files.whole import sweep, write_bytes
from wholebody.output import KINDS
from wholebody.people.person import person_npz

if TYPE_CHECKING:
    from wholebody.people.person import Person


def result_path(folder: Path, name: str, kind: str, person: int = 0) -> Path:
    """Where the result of that kind for the picture `name` lies; `name` may hold `/`."""
    end = {"overlay": "_overlay.jpg", "scene": ".glb", "json": ".json"}.get(kind, f"_person{person}.{kind}")
    return folder / (name + end)


def write_results(
    folder: Path,
    name: str,
    image: np.ndarray,
    people: Sequence[Person],
    *,
    faces: np.ndarray,
    conventions: dict[str, Any],
    save: Sequence[str] = KINDS,
    opacity: float = 0.9,
    image_id: int | str | None = None,
    scene: Callable[[], bytes] | None = None,
    beside: Callable[[], Mapping[str, bytes]] | None = None,
    remove: Callable[[Path, str], object] | None = None,
    announce: Callable[[Path, bytes], object] | None = None,
) -> list[Path]:
    """Write what `save` names for one picture and say which files those are; on an error none of them stays.

    Args:
        faces: (F, 3), the topology of the body.
        conventions: a table that goes into every `.npz`.
        image_id: of the rows in the `.json`; `name` if not given.
        scene: makes the `.glb` with everybody; without it, or without people, there is none.
        beside: makes further files, by their paths in the folder.
        remove: takes away what an earlier run left under that name; `remove_results` if not given.
        announce: is told of each file and its content before it is written.
    """
    written: list[Path] = []
    (remove or remove_results)(folder, name)

    def write(kind: str, data: bytes, person: int = 0) -> None:
        write_to(result_path(folder, name, kind, person), data)

    def write_to(path: Path, data: bytes) -> None:
        if announce is not None:
            announce(path, data)
        written.append(write_bytes(path, data))

    try:
        if "overlay" in save:
            from wholebody.output.overlay import draw_overlay, encode_jpeg

            picture = draw_overlay(image, people, faces, opacity=opacity)
            write("overlay", encode_jpeg(picture))
        for number, person in enumerate(people):
            for kind in save:
                if kind == "npz":
                    write(kind, person_npz(person, conventions | {"picture": name, "person": number}), number)
                elif kind in MESHES:
                    title = f"{Path(name).name}_person{number}"
                    write(kind, mesh_bytes(person.vertices_cam, faces, kind, title), number)
        if "scene" in save and scene is not None and people:
            write("scene", scene())
        for place, data in (beside() if beside is not None else {}).items():
            write_to(folder / place, data)
        rows = coco_results(people, name if image_id is None else image_id)
        write("json", json.dumps(rows, allow_nan=False).encode())
    except BaseException:
        for path in written:
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    return written


def is_complete(folder: Path, name: str, save: Sequence[str], source: Path) -> bool:
    """Whether a run has finished this picture: its `.json`, written last, is newer than the picture, and all it implies
    is there."""
    marker = result_path(folder, name, "json")
    try:
        people = len(json.loads(marker.read_bytes()))
        if marker.stat().st_mtime < source.stat().st_mtime:
            return False
    except (OSError, ValueError, TypeError):
        return False
    wanted = [result_path(folder, name, "overlay")] if "overlay" in save else []
    wanted += [result_path(folder, name, "scene")] if "scene" in save and people else []
    wanted += [result_path(folder, name, kind, n) for kind in save if kind in ("npz", *MESHES) for n in range(people)]
    return all(path.is_file() for path in wanted)


def remove_results(folder: Path, name: str) -> None:
    """Take away what an earlier run wrote for this picture, marker first: it may have found more people."""
    marker = result_path(folder, name, "json")
    for path in (marker, result_path(folder, name, "scene")):
        with contextlib.suppress(OSError):
            path.unlink()
    for path in marker.parent.glob(f"{glob.escape(marker.stem)}_person*.*"):
        number, _, kind = path.name.removeprefix(f"{marker.stem}_person").partition(".")
        if number.isdecimal() and kind in ("npz", *MESHES):
            with contextlib.suppress(OSError):
                path.unlink()


def coco_results(people: Sequence[Person], image_id: int | str) -> list[dict[str, Any]]:
    """COCO result format, a row a person: `keypoints` = 133 × (x, y, score) in the order of COCO-WholeBody (17 body,
    6 feet, 68 face, 21 left hand, 21 right hand), `bbox` = x, y, width, height. A keypoint's score is its person's."""
    rows = []
    for person in people:
        points = np.concatenate([person.keypoints_px, np.full((len(person.keypoints_px), 1), person.score)], axis=1)
        x0, y0, x1, y1 = (round(float(value), 3) for value in person.box_xyxy)
        rows.append(
            {
                "image_id": image_id,
                "category_id": 1,
                "bbox": [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
                "score": round(float(person.score), 5),
                "keypoints": [round(float(value), 3) for value in points.ravel()],
            }
            | ({"sources": dict(person.sources)} if person.sources else {})
        )
    return rows


def check_folder(folder: Path) -> None:
    """Make the output folder and write a byte to it, so that a run fails before its work and not after. What killed
    runs left there is removed."""
    sweep(folder)
    probe = write_bytes(folder / ".wholebody_probe", b"\0")
    with contextlib.suppress(OSError):
        probe.unlink()
