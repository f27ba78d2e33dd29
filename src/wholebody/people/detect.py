"""Where people are: an embedded detector, an optional larger one, boxes from a file, or the whole picture.

A detector is any callable from an H×W×3 uint8 RGB picture to `Detections`; `Predictor` takes one and knows no more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wholebody.errors import AssetMissing, BadInput
from wholebody.files import coco
from wholebody.files.text import brief
from wholebody.people.detections import Detections
from wholebody.people.movenet import MoveNet

DETECTORS = ("movenet", "rfdetr", "whole")


class Detector(Protocol):
    def __call__(self, image: np.ndarray) -> Detections: ...


def make_detector(name: str, threshold: float | None = None) -> Detector:
    """The detector of that name: `movenet` (embedded), `rfdetr` (if installed) or `whole` (the picture is one box)."""
    if name == "movenet":
        return MoveNet() if threshold is None else MoveNet(threshold)
    if name == "rfdetr":
        return RFDETR(0.5 if threshold is None else threshold)
    if name == "whole":
        return WholePicture()
    raise BadInput(f"There is no detector {name!r}; known: {', '.join(DETECTORS)}.")


class WholePicture:
    """One person, somewhere in the whole picture: for portraits and pictures that are crops already."""

    def __call__(self, image: np.ndarray) -> Detections:
        height, width = image.shape[:2]
        return Detections(np.array([[0.0, 0.0, width, height]]), np.ones(1))


class RFDETR:
    """Roboflow's RF-DETR (Apache-2.0), where installed: slower, finds more people in crowds."""

    def __init__(self, threshold: float = 0.5) -> None:
        try:
            import rfdetr
        except ImportError as error:
            raise AssetMissing(
                "--detector rfdetr needs the package rfdetr, which is not installed: `pip install rfdetr` "
                "(it fetches its weights on first use), or use the embedded detector, movenet."
            ) from error
        self.threshold = threshold
        self._network = rfdetr.RFDETRMedium()

    def __call__(self, image: np.ndarray) -> Detections:
        found = self._network.predict(image, threshold=self.threshold)
        person = np.asarray(found.class_id) == 1  # COCO's own numbering
        order = np.argsort(-np.asarray(found.confidence)[person], kind="stable")
        return Detections(
            np.asarray(found.xyxy, np.float64)[person][order], np.asarray(found.confidence, np.float64)[person][order]
        )


def check_boxes(boxes: Any, image_hw: tuple[int, int], name: str = "boxes") -> np.ndarray:
    """Boxes as given by a user → (N, 4) float64 xyxy, or a `BadInput` that names the box and the fault.

    A box may reach over the picture's border, but some of it has to lie inside.
    """
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name}: not a list of numbers [x0, y0, x1, y1]: {error}.") from error
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or array.shape[1] != 4:
        raise BadInput(f"{name}: expected N×4 (x0, y0, x1, y1 in pixels), got an array of shape {array.shape}.")
    height, width = image_hw
    for number, box in enumerate(array):
        shown = f"{name}: box {number} [{', '.join(f'{value:g}' for value in box)}]"
        if not np.isfinite(box).all():
            raise BadInput(f"{shown} has a value that is not a finite number.")
        x0, y0, x1, y1 = box
        if x1 <= x0 or y1 <= y0:
            raise BadInput(
                f"{shown} is inverted or empty: x1 must exceed x0 and y1 exceed y0. "
                "(Boxes are x0, y0, x1, y1; only COCO's `bbox` is x, y, width, height.)"
            )
        if min(x1, width) - max(x0, 0) < 2 or min(y1, height) - max(y0, 0) < 2:
            raise BadInput(
                f"{shown} has less than 2 pixels inside the picture, which is {width}×{height}. "
                "Is it for another picture, or for another size of this one?"
            )
    return array


class BoxFile:
    """Person boxes from a JSON file, by picture. Understood are

    - COCO's forms (`files.coco`): a list of `{"image_id" or "file_name", "bbox": [x, y, width, height], "score",
      "category_id"}`, or a whole annotation file; people are those whom `categories` calls so (without, category 1),
      crowds are left out. A row that cannot be read is lost and named in `problems`;
    - per picture: `{"photo.jpg": [[x0, y0, x1, y1], ...]}`, a fifth number being a score.

    A picture is found by its path, the end of its path, its name with or without suffix, or the number in its name.
    """

    def __init__(self, path: str | os.PathLike[str], min_score: float = 0.0) -> None:
        self.path = Path(path)
        self.min_score = min_score
        content = coco.read_content(self.path, "box")
        if isinstance(content, dict) and "annotations" not in content:
            people = coco.PeopleFile(self.path)
            self._boxes = coco.ByPicture(people)
            self._read_lists(content)
        else:
            people = coco.read_rows(self.path, content, "bbox", "box")
            self._boxes = coco.ByPicture(people)
            self._read_coco(people)
        self.problems = people.problems

    def _read_coco(self, people: coco.PeopleFile) -> None:
        kept = 0
        for row in people.rows:
            try:
                box = coco.box_xyxy(row.values["bbox"])
                score = float(coco.numbers(row.values.get("score", 1.0), 1)[0])
            except ValueError as error:
                people.lose(row.where, error)
                continue
            self._boxes.add(row.picture, (*box.tolist(), score, row.where))
            kept += 1
        if people.problems and not kept:
            raise BadInput(people.problems[0])

    def _read_lists(self, table: dict[str, Any]) -> None:
        for name, boxes in table.items():
            if not isinstance(boxes, list):
                raise BadInput(f"{self.path}: the boxes of {name!r} are no list of [x0, y0, x1, y1].")
            if len(boxes) in (4, 5) and not isinstance(boxes[0], list):
                boxes = [boxes]
            self._boxes.note(coco.picture_key(name))
            for number, box in enumerate(boxes):
                length = len(box) if isinstance(box, list) and len(box) == 5 else 4
                row = (self._numbers(box, length, f"box {number} of {name!r}") + [1.0])[:5]
                self._boxes.add(coco.picture_key(name), (*row, ""))

    def _numbers(self, values: Any, count: int, what: str) -> list[float]:
        if (
            not isinstance(values, list)
            or len(values) != count
            or not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        ):
            raise BadInput(f"{self.path}: {what} must be {count} numbers, found {brief(values)}.")
        return [float(value) for value in values]

    def knows(self, picture: str | os.PathLike[str]) -> bool:
        """Whether the file says anything of a picture, if only that nobody is in it."""
        return self._boxes.find(Path(picture)) is not None

    def __call__(self, picture: str | os.PathLike[str], image_hw: tuple[int, int]) -> Detections:
        """The boxes of `picture`; none if the file has none for it. Rows of COCO's forms whose box lies outside of the
        picture are left out; if that leaves nobody, it is an error."""
        path = Path(picture)
        rows = self._boxes.find(path) or []
        name = f"{self.path}, {path.name}"
        scores = np.array([row[4] for row in rows], np.float64)
        if not np.isfinite(scores).all():
            raise BadInput(f"{name}: a score is not a finite number.")
        if not any(row[5] for row in rows):
            return Detections(check_boxes([row[:4] for row in rows], image_hw, name), scores).take(
                scores >= self.min_score
            )
        kept, boxes, problem = [], [], None
        for number, row in enumerate(rows):
            try:
                boxes.append(check_boxes([row[:4]], image_hw, f"{name}, {row[5]}")[0])
                kept.append(number)
            except BadInput as error:
                problem = error
        if problem is not None:
            if not kept:
                raise problem
            self.problems.append(f"{problem} It is left out.")
        return Detections(np.array(boxes).reshape(-1, 4), scores[kept]).take(scores[kept] >= self.min_score)
