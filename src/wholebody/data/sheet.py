"""People of sets drawn with their truth, on one sheet: the quickest way to see that a set was read as it was meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wholebody.body.joints import JOINTS_137, PARTS_137
from wholebody.data.readers import annotated_upright
from wholebody.data.sample import Sample
from wholebody.errors import BadInput, OutputError
from wholebody.files.image import read_stored
from wholebody.files.whole import write_bytes
from wholebody.geometry.camera import project
from wholebody.geometry.crop import apply_affine, crop_affine, fit_box, warp

TILE_HW = (400, 300)
_CAPTION = 34
_COLOURS = {"body": (60, 220, 80), "left_hand": (60, 150, 255), "right_hand": (255, 140, 40), "face": (240, 70, 220)}
_MESH = (255, 255, 60)

_BODY = (
    ("Pelvis", "L_Hip", "L_Knee", "L_Ankle", "L_Heel"),
    ("Pelvis", "R_Hip", "R_Knee", "R_Ankle", "R_Heel"),
    ("L_Ankle", "L_Big_toe", "L_Small_toe"),
    ("R_Ankle", "R_Big_toe", "R_Small_toe"),
    ("Pelvis", "Neck"),
    ("L_Hip", "L_Shoulder"),
    ("R_Hip", "R_Shoulder"),
    ("L_Shoulder", "R_Shoulder"),
    ("L_Shoulder", "L_Elbow", "L_Wrist"),
    ("R_Shoulder", "R_Elbow", "R_Wrist"),
    ("L_Ear", "L_Eye", "Nose", "R_Eye", "R_Ear"),
)
_FINGERS = tuple(
    (f"{side}_Wrist", *(f"{side}_{finger}_{k}" for k in (1, 2, 3, 4)))
    for side in "LR"
    for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky")
)


def _bones() -> list[tuple[int, int]]:
    chains = (*_BODY, *_FINGERS)
    return [
        (JOINTS_137.index(first), JOINTS_137.index(second))
        for chain in chains
        for first, second in zip(chain[:-1], chain[1:], strict=True)
    ]


_PART_OF = [next(part for part, rows in PARTS_137.items() if rows.start <= row < rows.stop) for row in range(137)]


def tile(sample: Sample, root: Path, mesh_joints_cam: np.ndarray | None = None) -> np.ndarray:
    """One person (434, 300, 3) uint8 RGB: the picture around the box, joints by part (filled where visible, hollow
    where hidden), boxes of the person and the parts, and the fitted mesh's joints as crosses, if they are given.

    Raises BadInput if the picture cannot be read.
    """
    path = root / (sample.image_path or "")
    stored = 0 if annotated_upright(sample) else cv2.IMREAD_IGNORE_ORIENTATION  # see `data.orientation`
    try:
        picture = read_stored(path, cv2.IMREAD_COLOR | stored)
    except BadInput as error:
        what = "broken" if path.is_file() else "missing"
        raise BadInput(f"{sample.dataset} {sample.id}: {path} is {what}") from error
    if sample.image_hw is not None and picture.shape[:2] != sample.image_hw:
        (height, width), (noted_height, noted_width) = picture.shape[:2], sample.image_hw
        raise BadInput(
            f"{sample.dataset} {sample.id}: {path} has {width}×{height} pixels, the annotations say "
            f"{noted_width}×{noted_height}; they belong to another copy of the pictures"
        )
    height, width = TILE_HW
    affine = crop_affine(fit_box(sample.box_xyxy, width / height), out_hw=TILE_HW)[0]
    canvas = np.ascontiguousarray(warp(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), affine, TILE_HW, antialias=True))
    _draw_boxes(canvas, sample, affine)
    _draw_joints(canvas, sample, affine)
    if mesh_joints_cam is not None:
        points = apply_affine(project(mesh_joints_cam, sample.focal_px, sample.principal_px), affine)
        for x, y in points.round().astype(int):
            cv2.drawMarker(canvas, (int(x), int(y)), _MESH, cv2.MARKER_TILTED_CROSS, 5, 1)
    parts = "".join(mark for mark, valid in zip("LRF", sample.part_valid, strict=True) if valid)
    caption = (
        f"{sample.dataset} {sample.id}"[-42:],
        f"{int(sample.joint_valid.sum())} joints, {int(sample.joint_cam_known.sum())} in 3D, boxes {parts or '-'}, "
        f"body {sample.body or '-'}",
    )
    foot = np.full((_CAPTION, width, 3), 24, np.uint8)
    for line, text in enumerate(caption):
        cv2.putText(foot, text, (4, 13 + 15 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([canvas, foot])


def _draw_boxes(canvas: np.ndarray, sample: Sample, affine: np.ndarray) -> None:
    boxes = [(sample.box_xyxy, (255, 255, 255))]
    for attribute, part, valid in zip(
        ("left_hand_box", "right_hand_box", "face_box"),
        ("left_hand", "right_hand", "face"),
        sample.part_valid,
        strict=True,
    ):
        if valid:
            boxes.append((getattr(sample, attribute), _COLOURS[part]))
    for box, colour in boxes:
        low, high = apply_affine(np.reshape(box, (2, 2)), affine).round().astype(int).tolist()
        cv2.rectangle(canvas, tuple(low), tuple(high), colour, 1)


def _draw_joints(canvas: np.ndarray, sample: Sample, affine: np.ndarray) -> None:
    known = np.asarray(sample.joint_valid, bool)
    points = [tuple(map(int, p)) for p in apply_affine(sample.joints_px, affine).round().clip(-9999, 9999)]
    for first, second in _bones():
        if known[first] and known[second]:
            cv2.line(canvas, points[first], points[second], _COLOURS[_PART_OF[second]], 1, cv2.LINE_AA)
    for row in np.flatnonzero(known):
        radius = 3 if row < PARTS_137["body"].stop else 1
        filled = -1 if sample.joint_visible[row] else 1
        cv2.circle(canvas, points[row], radius, _COLOURS[_PART_OF[row]], filled, cv2.LINE_AA)


def write_sheet(path: Path, rows: Sequence[Sequence[np.ndarray]]) -> Path:
    """Tiles, a row for each set and split, as one PNG that appears whole or not at all."""
    height, width = TILE_HW[0] + _CAPTION, TILE_HW[1]
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise BadInput("there is nobody to draw on a sheet")
    sheet = np.full((len(rows) * height, columns * width, 3), 60, np.uint8)
    for y, row in enumerate(rows):
        for x, one in enumerate(row):
            sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = one
    done, data = cv2.imencode(".png", sheet[..., ::-1])
    if not done:
        raise OutputError(f"cannot write {path}: a sheet of {columns} by {len(rows)} tiles is no picture; ask for less")
    return write_bytes(path, data.tobytes())
