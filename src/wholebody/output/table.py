"""People as rows of a table (Parquet): what many pictures become, and a film. docs/scale.md lists the columns.

Numbers are float32, in the units and frames of `people.person.Person`; matrices are stored row by row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.people.person import Person
from wholebody.people.scene import Scene

if TYPE_CHECKING:
    import pyarrow

PARAMETERS = {
    "global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "jaw_pose": 3, "betas": 10,
    "expression": 10, "cam_trans": 3,
}  # fmt: skip
"""Columns of a body's parameters, and how many numbers each has."""
_CAMERA = {"focal_px": 2, "principal_px": 2}
_SEEN = {"joints_cam": 165, "keypoints_px": 266}
_PARTS = ("left_hand_box_xyxy", "right_hand_box_xyxy", "face_box_xyxy")
_MADE_BY = ("model", "body", "gender", "version")


def people_schema() -> pyarrow.Schema:
    """Of people in pictures. `shard`, `row`, `source` and `content_sha256` are filled by whoever knows them."""
    import pyarrow as pa

    place = [("shard", pa.int32()), ("row", pa.int32()), ("person", pa.int32()), ("source", pa.string()),
             ("content_sha256", pa.string()), ("image_hw", pa.list_(pa.int32(), 2)),
             ("box_xyxy", pa.list_(pa.float32(), 4)), ("score", pa.float32())]  # fmt: skip
    numbers = [(name, pa.list_(pa.float32(), size)) for name, size in (PARAMETERS | _CAMERA | _SEEN).items()]
    parts = [(name, pa.list_(pa.float32(), 4)) for name in _PARTS]
    return pa.schema([*place, *numbers, *parts, *_made_by_fields()])


def motion_schema() -> pyarrow.Schema:
    """Of people in a film, a row a person and frame."""
    import pyarrow as pa

    place = [("person", pa.int32()), ("track_id", pa.int32()), ("frame", pa.int32()), ("time", pa.float64()),
             ("source", pa.string()), ("content_sha256", pa.string()), ("image_hw", pa.list_(pa.int32(), 2)),
             ("box_xyxy", pa.list_(pa.float32(), 4)), ("score", pa.float32()), ("filled", pa.bool_())]  # fmt: skip
    numbers = [(name, pa.list_(pa.float32(), size)) for name, size in (PARAMETERS | _CAMERA).items()]
    return pa.schema([*place, *numbers, ("camera_from_world", pa.list_(pa.float32(), 16)), *_made_by_fields()])


def _made_by_fields() -> list[Any]:
    import pyarrow as pa

    return [*((name, pa.string()) for name in _MADE_BY), ("flat_hand_mean", pa.bool_())]


def people_rows(people: Sequence[Person], image_hw: tuple[int, int], made_by: Mapping[str, Any]) -> pyarrow.RecordBatch:
    """The people of a picture. made_by: model, body, gender, version, flat_hand_mean."""
    import pyarrow as pa

    count = len(people)
    columns: dict[str, Any] = {
        "person": pa.array(range(count), pa.int32()),
        "image_hw": _lists(np.tile(np.array(image_hw, np.int32), (count, 1)), 2),
        "score": pa.array([float(person.score) for person in people], pa.float32()),
    }
    for name, size in {"box_xyxy": 4, **PARAMETERS, **_CAMERA, **_SEEN}.items():
        rows = [np.asarray(getattr(person, name), np.float32).ravel() for person in people]
        columns[name] = _lists(np.stack(rows) if rows else np.zeros((0, size), np.float32), size)
    for name in _PARTS:
        boxes = [getattr(person, name) for person in people]
        values = [None if box is None else np.asarray(box, np.float32).tolist() for box in boxes]
        columns[name] = pa.array(values, pa.list_(pa.float32(), 4))
    return _batch(columns, people_schema(), count, made_by)


def motion_rows(scene: Scene, source: str, content: str, made_by: Mapping[str, Any]) -> pyarrow.Table:
    """Everybody in a film, one after the other. In the camera's frame; `camera_from_world` leads out of it."""
    import pyarrow as pa

    camera, schema, batches = scene.camera, motion_schema(), []
    row_of = {int(frame): k for k, frame in enumerate(scene.frames)}
    for number, motion in enumerate(scene.people):
        count = len(motion.frames)
        frames = [row_of[int(frame)] for frame in motion.frames]
        columns: dict[str, Any] = {
            "person": pa.array([number] * count, pa.int32()),
            "track_id": pa.array([motion.track_id] * count, pa.int32()),
            "frame": pa.array(motion.frames, pa.int32()),
            "time": pa.array(motion.times, pa.float64()),
            "source": pa.array([source] * count, pa.string()),
            "content_sha256": pa.array([content] * count, pa.string()),
            "image_hw": _lists(np.tile(np.array(camera.image_wh[::-1], np.int32), (count, 1)), 2),
            "score": pa.array(np.asarray(motion.confidence, np.float32)),
            "filled": pa.array(np.asarray(motion.filled, bool)),
        }
        values = {
            **{name: getattr(motion, name) for name in PARAMETERS if name not in ("betas", "cam_trans")},
            "betas": np.tile(motion.betas, (count, 1)), "cam_trans": motion.transl, "box_xyxy": motion.box_xyxy,
            "focal_px": np.full((count, 2), camera.focal_px), "principal_px": np.tile(camera.principal_px, (count, 1)),
            "camera_from_world": np.asarray(scene.camera_from_world)[frames],
        }  # fmt: skip
        for name, value in values.items():
            numbers = np.ascontiguousarray(np.asarray(value, np.float32).reshape(count, -1))
            columns[name] = _lists(numbers, numbers.shape[1])
        batches.append(_batch(columns, schema, count, dict(made_by) | {"gender": motion.gender}))
    return pa.Table.from_batches(batches, schema)


def table_bytes(table: pyarrow.Table, about: Mapping[str, Any]) -> bytes:
    """As a Parquet file; `about` stands as JSON in its metadata."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    named = table.replace_schema_metadata({"wholebody": json.dumps(dict(about), sort_keys=True)})
    pq.write_table(named, buffer, compression="zstd")
    return buffer.getvalue()


def _lists(values: np.ndarray, size: int) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), size)


def _batch(columns: dict[str, Any], schema: Any, count: int, made_by: Mapping[str, Any]) -> Any:
    import pyarrow as pa

    for name in _MADE_BY:
        columns[name] = pa.array([str(made_by[name])] * count, pa.string())
    columns["flat_hand_mean"] = pa.array([bool(made_by["flat_hand_mean"])] * count, pa.bool_())
    empty = {"shard": pa.int32(), "row": pa.int32(), "source": pa.string(), "content_sha256": pa.string()}
    arrays = [columns[name] if name in columns else pa.nulls(count, empty[name]) for name in schema.names]
    return pa.RecordBatch.from_arrays(
        [array.cast(kind) if array.type != kind else array for array, kind in zip(arrays, schema.types, strict=True)],
        schema=schema,
    )
