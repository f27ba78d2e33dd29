"""What `wholebody convert` reads and writes beside person files: Parquet tables, and the labels of training sets."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.json_stream import read_json
from wholebody.output.table import PARAMETERS

if TYPE_CHECKING:
    from wholebody.body.convert import BodyParameters
    from wholebody.body.skinned import SkinnedBody

Content = Callable[["BodyParameters", "SkinnedBody", np.ndarray], bytes]
"""The converted parameters, their body and the error of each row, as a file's content."""


@dataclass(frozen=True)
class Rows:
    """Parameters of many people, a row each, and how a file with the converted ones is made."""

    path: Path
    parameters: BodyParameters
    body: str
    flat_hand_mean: bool
    person: np.ndarray | None
    """(N,) rows of the same number are one person, who has one shape; None: each has its own."""
    content: Content


# --- Parquet ----------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> Rows:
    """A table of `people/` or `motions/`. BadInput says what is missing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from wholebody.body.convert import BodyParameters

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path}: is no Parquet file that can be read ({str(error)[:200]}).") from error
    missing = [name for name in (*PARAMETERS, "body", "flat_hand_mean") if name not in table.column_names]
    if missing:
        raise BadInput(f"{path} is no table of people: it has no {', '.join(missing)}.")
    count = table.num_rows
    if not count:
        raise BadInput(f"{path} holds nobody.")
    bodies = set(table.column("body").to_pylist()), set(table.column("flat_hand_mean").to_pylist())
    if any(len(values) != 1 for values in bodies):
        raise BadInput(f"{path} holds people of different bodies ({', '.join(map(str, bodies[0]))}).")

    def rows(name: str) -> np.ndarray:
        try:
            values = np.array(table.column(name).to_pylist(), np.float64).reshape(count, -1)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{path}: {name!r} does not hold {PARAMETERS[name]} numbers in each row.") from error
        if values.shape[1] != PARAMETERS[name] or not np.isfinite(values).all():
            raise BadInput(f"{path}: {name!r} holds {values.shape[1]} numbers, not {PARAMETERS[name]} finite ones.")
        return values

    turns = {name: rows(name).reshape(count, -1, 3) for name in ("body_pose", "left_hand_pose", "right_hand_pose")}
    zero = np.zeros((count, 3))
    parameters = BodyParameters(
        rows("global_orient"), turns["body_pose"], turns["left_hand_pose"], turns["right_hand_pose"], rows("jaw_pose"),
        zero, zero, rows("betas"), rows("expression"), rows("cam_trans"),
    )  # fmt: skip
    person = None
    if "track_id" in table.column_names:
        who = [f"{source} {one}" for source, one in zip(table.column("source").to_pylist(),
                                                        table.column("person").to_pylist(), strict=True)]  # fmt: skip
        person = np.unique(who, return_inverse=True)[1]

    def content(p: BodyParameters, target: SkinnedBody, error: np.ndarray) -> bytes:
        return _table_bytes(table, p, target, error)

    return Rows(path, parameters, str(bodies[0].pop()), bool(bodies[1].pop()), person, content)


def _table_bytes(table: Any, p: BodyParameters, target: SkinnedBody, error: np.ndarray) -> bytes:
    """The table with the columns of the parameters replaced; a body without fingers or face has none of theirs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = len(p)
    body_pose = p.body_pose if p.hand_turns is None else np.concatenate([p.body_pose, p.hand_turns], 1)
    values = {"global_orient": p.global_orient, "body_pose": body_pose, "betas": p.betas, "cam_trans": p.transl}
    if target.num_joints > 24:
        values |= {"left_hand_pose": p.left_hand_pose, "right_hand_pose": p.right_hand_pose}
    if target.num_joints == 55:
        values |= {"jaw_pose": p.jaw_pose, "expression": p.expression}
    texts = {"body": target.name, "gender": target.gender}
    columns: dict[str, Any] = {}
    for name in table.column_names:
        if name in values:
            numbers = np.ascontiguousarray(values[name].reshape(count, -1), np.float32)
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), numbers.shape[1])
        elif name in texts:
            columns[name] = pa.array([texts[name]] * count, pa.string())
        elif name == "flat_hand_mean":
            columns[name] = pa.array([True] * count)
        elif name not in (*PARAMETERS, "joints_cam", "conversion_error"):  # those joints are of the other body
            columns[name] = table.column(name)
    columns["conversion_error"] = pa.array(np.asarray(error, np.float32))
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(_about(table, target)), buffer, compression="zstd")
    return buffer.getvalue()


def _about(table: Any, target: SkinnedBody) -> dict[str, str]:
    try:
        about = json.loads((table.schema.metadata or {})[b"wholebody"])
    except (KeyError, ValueError):
        about = {}
    about |= {"body": target.name, "gender": target.gender, "flat_hand_mean": True, "converted_from": about.get("body")}
    return {"wholebody": json.dumps(about, sort_keys=True)}


# --- labels -----------------------------------------------------------------------------------------------------------

_LABELS = {"root_pose": 3, "body_pose": 63, "lhand_pose": 45, "rhand_pose": 45, "jaw_pose": 3, "shape": 10, "expr": 10,
           "trans": 3}  # fmt: skip


def read_labels(path: Path) -> Rows:
    """`annotations/{split}_smplx.json` of a set of one's own (docs/own-data.md). BadInput says what does not fit."""
    from wholebody.body.convert import BodyParameters

    table = read_json(path)
    if not isinstance(table, dict) or not table:
        raise BadInput(f"{path}: is no table of labels by annotation.")
    values: dict[str, list[np.ndarray]] = {name: [] for name in _LABELS}
    bodies: set[tuple[str, bool]] = set()
    for key, row in table.items():
        param = row.get("smplx_param") if isinstance(row, dict) else None
        if not isinstance(param, dict):
            raise BadInput(f"{path}: {key} has no 'smplx_param': is it the file with parameters, {{split}}_smplx.json?")
        body = str(param.get("body", "smplx"))
        bodies.add((body, bool(param.get("flat_hand", body == "open"))))
        for name, width in _LABELS.items():
            try:
                numbers = np.asarray(param.get(name, np.zeros(width)), np.float64).ravel()
            except (TypeError, ValueError):
                numbers = np.zeros(0)
            if numbers.shape != (width,) or not np.isfinite(numbers).all():
                raise BadInput(f"{path}: {name!r} of {key} does not hold {width} finite numbers.")
            values[name].append(numbers)
    if len(bodies) > 1:
        raise BadInput(f"{path} has labels of different bodies ({', '.join(sorted(body for body, _ in bodies))}).")
    body, flat = bodies.pop()
    v = {name: np.stack(rows) for name, rows in values.items()}
    zero = np.zeros((len(table), 3))
    parameters = BodyParameters(
        v["root_pose"], v["body_pose"].reshape(-1, 21, 3), v["lhand_pose"].reshape(-1, 15, 3),
        v["rhand_pose"].reshape(-1, 15, 3), v["jaw_pose"], zero, zero, v["shape"], v["expr"], v["trans"],
    )  # fmt: skip

    def content(p: BodyParameters, target: SkinnedBody, error: np.ndarray) -> bytes:
        if target.num_joints != 55:
            raise BadInput(f"labels are of the open body or SMPL-X; a {target.name} has no place in {path.name}.")
        names = {"root_pose": p.global_orient, "body_pose": p.body_pose, "lhand_pose": p.left_hand_pose,
                 "rhand_pose": p.right_hand_pose, "jaw_pose": p.jaw_pose, "shape": p.betas, "expr": p.expression,
                 "trans": p.transl}  # fmt: skip
        done = {}
        for number, (key, row) in enumerate(table.items()):
            numbers = {name: [round(float(x), 6) for x in value[number].ravel()] for name, value in names.items()}
            more = {"body": target.name, "gender": target.gender, "flat_hand": True,
                    "converted_error_mm": round(1000 * float(error[number]), 2)}  # fmt: skip
            done[key] = row | {"smplx_param": row["smplx_param"] | numbers | more}
        return json.dumps(done, allow_nan=False).encode()

    return Rows(path, parameters, body, flat, None, content)
