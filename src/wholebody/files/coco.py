"""Files of people in pictures, as COCO's form and the tools around it have them: which row is of which picture.

    {"images": [...], "annotations": [...], "categories": [...]}     annotations
    [{"image_id": ..., "bbox": [...], "keypoints": [...]}, ...]      results; AlphaPose's too
    {"version": ..., "people": [...]}                                OpenPose, a file a picture
    {"instance_info": [...]}, [{"keypoints": ..., "keypoint_scores": ...}]     MMPose, a file a picture

What a row says of its person is the caller's to read (`numbers` helps). A row that cannot be read is lost, named in
`problems`, and takes nothing else with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.json_stream import parse_json
from wholebody.files.reading import read_bytes
from wholebody.files.text import brief

PERSON = ("person", "people", "human", "persons", "pedestrian")
_IMAGE_ENDINGS = re.compile(r"(\.(jpe?g|png|bmp|webp|tiff?|jpe|jfif|heic|avif|gif))+$", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One person: `picture` is how the file calls the picture, `where` how messages call the row."""

    where: str
    picture: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class PeopleFile:
    """The rows of a file, and the pictures that it lists, with or without people."""

    path: Path
    rows: list[Row] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def lose(self, where: str, why: object) -> None:
        """Note that a row is left out."""
        self.problems.append(f"{self.path}: {where} is left out: {why}")


def same_id(value: Any) -> str:
    """An id as one text, whether a file has it as a number, a text or a float. Raises ValueError for anything else."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"its id is {brief(value)}")
    return str(value)


def picture_key(name: Any) -> str:
    """A picture's name as it is looked up: `/` between folders, also where Windows wrote the file."""
    return same_id(name).replace("\\", "/").removeprefix("./")


def is_crowd(values: Mapping[str, Any]) -> bool:
    """Whether a row stands for a crowd, or for something that is to be ignored."""
    return any(str(values.get(key) or 0).lower() not in ("0", "0.0", "false", "none") for key in ("iscrowd", "ignore"))


def person_categories(categories: Any) -> frozenset[str] | None:
    """The ids that mean a person; None where the file names no categories (then it is 1, as in COCO)."""
    named: dict[str, str] = {}
    for category in categories if isinstance(categories, list) else ():
        if isinstance(category, Mapping) and "id" in category:
            try:
                named[same_id(category["id"])] = str(category.get("name", ""))
            except ValueError:
                continue
    if not named:
        return None
    people = {number for number, name in named.items() if name.strip().lower() in PERSON}
    if not people and len(named) == 1:
        people = set(named)  # a set of its own, whose one category is called "player" or "0"
    return frozenset(people)


def numbers(values: Any, *shape: int) -> np.ndarray:
    """Finite float64 of a shape (-1: any length) from what a file holds. Raises ValueError."""
    try:
        array = np.array(values, np.float64).reshape(shape)
    except (TypeError, ValueError, OverflowError) as error:
        wanted = "×".join("N" if n < 0 else str(n) for n in shape)
        raise ValueError(f"{brief(values)} is not {wanted} numbers") from error
    if isinstance(values, str) or not np.isfinite(array).all():
        raise ValueError(f"{brief(values)} has a value that is not a finite number")
    return array


def box_xyxy(xywh: Any) -> np.ndarray:
    """Corners (4,) of COCO's x, y, width, height. Raises ValueError unless both sides are above 0."""
    if not isinstance(xywh, list) or len(xywh) != 4 or not all(_is_number(value) for value in xywh):
        raise ValueError(f"`bbox` must be 4 numbers, found {brief(xywh)}")
    x, y, width, height = numbers(xywh, 4)
    if width <= 0 or height <= 0:
        raise ValueError(f"`bbox` {brief(xywh)} is empty; it is x, y, width, height, the last two above 0")
    return np.array([x, y, x + width, y + height])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_content(path: str | Path, kind: str) -> Any:
    """The JSON of a file of people; `kind` is for messages. Raises BadInput."""
    try:
        data = read_bytes(path)
    except BadInput as error:
        raise BadInput(f"{path}: the {kind} file cannot be read ({error})") from error
    try:
        return parse_json(data, path)
    except BadInput as error:
        raise BadInput(f"{path}: the {kind} file is not JSON: {error}") from error


def read_rows(path: str | Path, content: Any, needs: str, kind: str) -> PeopleFile:
    """The rows of people of a file's content that have `needs` ("bbox" or "keypoints").

    Left out without a word: other categories than people, crowds. Raises BadInput if the content has no form that is
    known.
    """
    people = PeopleFile(Path(path))
    if isinstance(content, Mapping) and isinstance(content.get("annotations"), list):
        _annotations(people, content, needs)
    elif isinstance(content, Mapping) and ("instance_info" in content or "people" in content):
        _one_picture(people, content.get("instance_info", content.get("people")), _stem(people.path))
    elif isinstance(content, Mapping) and content and all(_is_openpose(value) for value in content.values()):
        for name, one in content.items():  # AlphaPose, told to write as OpenPose does
            people.listed.append(picture_key(name))
            _one_picture(people, one["people"], picture_key(name))
    elif isinstance(content, list) and _is_mmpose(content):
        _one_picture(people, content, _stem(people.path))
    elif isinstance(content, list):
        _results(people, content, {}, frozenset({"1"}), needs)
    else:
        raise BadInput(
            f"{path}: expected a list of COCO results, or `images` and `annotations`; found a {kind} file that is a "
            f"{type(content).__name__}{_keys(content)}."
        )
    return people


def _keys(content: Any) -> str:
    return f" with {', '.join(brief(key, 30) for key in list(content)[:4])}" if isinstance(content, Mapping) else ""


def _annotations(people: PeopleFile, content: Mapping[str, Any], needs: str) -> None:
    names: dict[str, str] = {}
    images = content.get("images")
    for number, image in enumerate(images if isinstance(images, list) else ()):
        try:
            name = picture_key(image["file_name"] if "file_name" in image else image["id"])
            people.listed.append(name)
            if "id" in image:
                names[same_id(image["id"])] = name
        except (TypeError, KeyError, ValueError) as error:
            people.lose(f"picture {number} of `images`", _why(error))
    persons = person_categories(content.get("categories"))
    if persons is not None and not persons:
        raise BadInput(f"{people.path}: none of its `categories` is called person, so nobody in it is one.")
    _results(people, content["annotations"], names, persons or frozenset({"1"}), needs)


def _results(
    people: PeopleFile, rows: Sequence[Any], names: Mapping[str, str], persons: frozenset[str], needs: str
) -> None:
    for number, row in enumerate(rows):
        where = f"entry {number}"
        if not isinstance(row, Mapping) or needs not in row or not ("file_name" in row or "image_id" in row):
            people.lose(where, f"entry {number} needs `{needs}` and `image_id` or `file_name`")
            continue
        try:
            if is_crowd(row) or ("category_id" in row and same_id(row["category_id"]) not in persons):
                continue
            if "file_name" in row:
                picture = picture_key(row["file_name"])
            else:
                picture = names.get(same_id(row["image_id"])) or picture_key(row["image_id"])
        except ValueError as error:
            people.lose(where, error)
            continue
        people.rows.append(Row(where, picture, row))


def _one_picture(people: PeopleFile, rows: Any, picture: str) -> None:
    """Rows of a file that is about one picture, whose name is the file's."""
    people.listed.append(picture)
    if not isinstance(rows, list):
        raise BadInput(f"{people.path}: its people are a {type(rows).__name__}, not a list.")
    if any(isinstance(row, Mapping) and "instances" in row for row in rows):
        raise BadInput(f"{people.path}: holds the frames of a film; give a file a picture.")
    for number, row in enumerate(_flat(rows)):
        if isinstance(row, Mapping):
            people.rows.append(Row(f"person {number}", picture, row))
        else:
            people.lose(f"person {number}", f"it is a {type(row).__name__}")


def _flat(rows: list[Any]) -> Iterator[Any]:
    for row in rows:  # MMPose puts the people of a picture into a list of one list
        yield from row if isinstance(row, list) else (row,)


def _is_mmpose(content: list[Any]) -> bool:
    rows = list(_flat(content))
    return bool(rows) and all(isinstance(row, Mapping) and "keypoint_scores" in row for row in rows)


def _is_openpose(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("people"), list)


def _stem(path: Path) -> str:
    """The picture that OpenPose's NAME_keypoints.json or MMPose's results_NAME.json belongs to."""
    return _IMAGE_ENDINGS.sub("", path.stem.removesuffix("_keypoints").removeprefix("results_"))


def _why(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


class ByPicture:
    """What a file says of each picture. A picture is found by its path, the end of its path, its name with or without
    suffix, the number in its name, or, if the file's own paths lead elsewhere, by a name that only one of them has."""

    def __init__(self, people: PeopleFile):
        self._found: dict[str, list[Any]] = {key: [] for key in people.listed}
        self._ends: dict[str, set[str]] = {}

    def note(self, picture: str) -> None:
        """Note that the file knows of a picture."""
        self._found.setdefault(picture, [])

    def add(self, picture: str, value: Any) -> None:
        self._found.setdefault(picture, []).append(value)

    def find(self, picture: str | Path) -> list[Any] | None:
        """None if the file has nothing for the picture, not even that nobody is in it."""
        key = next((key for key in _keys_of(Path(picture)) if key in self._found), None)
        if key is None:
            key = self._by_end(Path(picture))
        return None if key is None else self._found[key]

    def _by_end(self, picture: Path) -> str | None:
        if not self._ends and self._found:
            for key in self._found:
                self._ends.setdefault(PurePosixPath(key).name, set()).add(key)
        found = self._ends.get(picture.name, set())
        if len(found) != 1:
            return None
        (key,) = found
        # `train/a.jpg` is not `val/a.jpg`; a path of another machine says nothing of where the pictures lie here.
        elsewhere = key.startswith("/") or key[1:2] == ":" or len(picture.parts) == 1
        return key if elsewhere else None


def _keys_of(path: Path) -> Iterator[str]:
    parts = path.parts
    yield path.as_posix()
    for start in range(1, len(parts)):
        yield "/".join(parts[start:])
    yield path.name
    # Results of `wholebody predict` name a picture of a subfolder without its suffix.
    for start in range(len(parts)):
        yield "/".join((*parts[start:-1], path.stem))
    if path.stem.isdecimal() and len(path.stem) <= 40:
        yield str(int(path.stem))
