"""`wholebody annotate`: label your own photos by fitting, in the form that `data/readers/own.py` reads.

    DIR/images/...                           your pictures
    DIR/annotations/{split}.json             boxes, keypoints and a quality for each person, COCO form
    DIR/annotations/{split}_smplx.json       parameters of those whose quality suffices
    DIR/annotations/{split}_pictures/...     what is known so far, a file a picture: a stopped run goes on from there

The two annotation files are put together from the last at the end, so they are whole or as they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_WHOLEBODY
from wholebody.errors import BadInput, OutputError, WholebodyError
from wholebody.files.image import Source, find_sources, read_image
from wholebody.files.options import check_same_options, record_options
from wholebody.files.text import counted, shown
from wholebody.files.whole import write_json
from wholebody.people.detect import make_detector
from wholebody.people.detections import Detections
from wholebody.people.keypoints import KeypointFile, KeypointSource, make_source
from wholebody.people.refine import LEAST_KEYPOINTS, TRUNK_AND_LIMBS, Refined, Refiner, quality
from wholebody.people.relift import lift_of
from wholebody.pipeline.config import AnnotateConfig
from wholebody.pipeline.record import hash_of, shortened

_LISTS = (("keypoints", 0, 17), ("foot_kpts", 17, 23), ("face_kpts", 23, 91), ("lefthand_kpts", 91, 112),
          ("righthand_kpts", 112, 133))  # fmt: skip
_PARTS = (("lefthand", 91, 112), ("righthand", 112, 133), ("face", 23, 91))
_PART = 25  # pictures that a worker is given at a time
_SURE = 0.3  # confidence from which a keypoint becomes a label


@dataclass
class Annotated:
    """What came of a run."""

    pictures: int = 0
    before: int = 0  # of these, known from an earlier run
    people: int = 0
    with_parameters: int = 0
    problems: list[str] = field(default_factory=list)


Job = tuple[AnnotateConfig, tuple[str, ...]]
"""Pictures to label: their names below `images`."""
Spread = Callable[[Callable[[Job], list[str]], list[Job], Callable[[Job], bool], Callable[[list[str]], object]], None]
"""Does jobs elsewhere: is given a function of one job, the jobs, what says that a job is finished, and whom to tell
what each gave."""


def annotate(
    config: AnnotateConfig, say: Callable[[str], None] = print, spread: Spread | None = None
) -> Annotated:
    """Label the pictures in `config.folder / "images"`; `say` gets a line for each. `spread` labels them in place of
    this process."""
    images = config.folder / "images"
    if not images.is_dir():
        raise BadInput(f"{config.folder} has no folder `images`: make it, and put the pictures to be labelled into it.")
    notes = config.folder / "annotations" / f"{config.split}_pictures"
    source = make_source(config.keypoints)
    left_out: list[str] = []
    sources, _ = find_sources([str(images)], left_out=left_out)
    if not sources:
        raise BadInput("\n".join([f"{shown(images)} holds no picture that can be read.", *left_out]))
    for line in left_out:
        say(line)
    _check_same_run(config, notes)
    result = Annotated()
    records = _Records(config, source)
    made_elsewhere = 0
    if spread is not None:
        names = [picture.path.relative_to(images).as_posix() for picture in sources if records.known(picture) is None]
        parts = [(config, tuple(names[k : k + _PART])) for k in range(0, len(names), _PART)]
        spread(label_pictures, parts, all_are_labelled, result.problems.extend)
        made_elsewhere = len(names) - len(result.problems)
    rows: list[dict[str, Any]] = []
    for picture in sources:
        known = records.known(picture)
        if known is None:
            if spread is not None:
                continue  # its problem was said
            try:
                known = records.make(picture)
            except OutputError:
                raise
            except WholebodyError as error:
                result.problems.append(_problem(picture, error))
                continue
            qualities = ", ".join(f"{person['annotation']['quality']:.2f}" for person in known["people"])
            people = counted(len(known["people"]), "person")
            say(f"{shown(picture.path)}: {people}{f' (quality {qualities})' if qualities else ''}")
        else:
            result.before += 1
        rows.append(known)
    result.before -= made_elsewhere
    result.pictures = len(rows)
    result.people, result.with_parameters = _write(config, rows)
    record_options(notes / "run.json", _options(config) | {"written": {p.name: hash_of(p) for p in _targets(config)}})
    return result


def label_pictures(job: Job) -> list[str]:
    """Write the records of some pictures; what went wrong, a line a picture."""
    config, names = job
    records, images = _records(config), config.folder / "images"
    problems = []
    for name in names:
        picture = Source(images / name, name)
        try:
            if records.known(picture) is None:
                records.make(picture)
        except OutputError:
            raise
        except WholebodyError as error:
            problems.append(_problem(picture, error))
    return problems


def all_are_labelled(job: Job) -> bool:
    config, names = job
    records, images = _records(config), config.folder / "images"
    return all(records.known(Source(images / name, name)) is not None for name in names)


def _problem(picture: Source, error: WholebodyError) -> str:
    text = str(error)
    return text if str(picture.path) in text else f"{shown(picture.path)}: {text}"


class _Records:
    """What is known of each picture, and how it comes to be known; the network is loaded when it is first needed."""

    def __init__(self, config: AnnotateConfig, source: KeypointSource) -> None:
        self._config, self._source = config, source
        self._keypoints = hash_of(Path(config.keypoints)) if isinstance(source, KeypointFile) else ""
        self._labeller: _Labeller | None = None

    def _place(self, picture: Source) -> tuple[str, Path]:
        relative = picture.path.relative_to(self._config.folder / "images")
        notes = self._config.folder / "annotations" / f"{self._config.split}_pictures"
        return relative.as_posix(), notes / f"{relative.parent / shortened(relative.name)}.json"

    def _made_of(self, picture: Source) -> dict[str, str]:
        return {"picture": hash_of(picture.path), "keypoints": self._keypoints}

    def known(self, picture: Source) -> dict[str, Any] | None:
        return _read(self._place(picture)[1], picture.path, self._made_of(picture))

    def make(self, picture: Source) -> dict[str, Any]:
        """Label a picture and write it down."""
        self._labeller = self._labeller or _Labeller(self._config, self._source)
        name, record = self._place(picture)
        known = {"file_name": name, "made_of": self._made_of(picture), **self._labeller(picture)}
        write_json(record, known)
        return known


@lru_cache(maxsize=1)
def _records(config: AnnotateConfig) -> _Records:
    return _Records(config, make_source(config.keypoints))


class _Labeller:
    """One picture to its record: size, and for each person an annotation and parameters."""

    def __init__(self, config: AnnotateConfig, source: KeypointSource) -> None:
        from wholebody.model.load import load_model, pick_device
        from wholebody.people.predictor import Predictor

        model: Any = load_model(config.model, body=config.body, any_gender=config.any_gender, family=config.family)
        model = model.to(pick_device(config.device))
        self.predictor, self.source = Predictor(model, box_scale=config.box_scale), source
        self.refine = Refiner(model.body, lift=lift_of(model))
        self.detector = None if isinstance(source, KeypointFile) else make_detector(config.detector)
        body = model.body
        self.body = {
            "body": "open" if body.name == "open" else "smplx", "gender": body.gender, "flat_hand": body.flat_hand_mean
        }  # fmt: skip

    def __call__(self, picture: Source) -> dict[str, Any]:
        image = read_image(picture.path)
        if isinstance(self.source, KeypointFile):  # whoever labelled the keypoints knows best where people are
            keypoints, boxes, scores = self.source.people(picture.path)
            inside = _inside(boxes, image.shape[:2])
            keypoints = keypoints[inside]
            people = self.predictor.predict_many([image], [Detections(boxes[inside], scores[inside])])[0]
        else:
            assert self.detector is not None
            found = self.detector(image)
            people = self.predictor.predict_many([image], [found])[0]
            keypoints = self.source(picture.path, image, found.of(people))
        refined = self.refine(people, keypoints)
        labelled = [self._row(*pair) for pair in zip(refined, keypoints, strict=True)]
        height, width = image.shape[:2]
        return {"width": width, "height": height, "people": [row for row in labelled if row is not None]}

    def _row(self, refined: Refined, keypoints: np.ndarray) -> dict[str, Any] | None:
        if refined.keypoints < LEAST_KEYPOINTS:
            return None
        person, sure = refined.person, keypoints[:, 2] >= _SURE
        labels = np.concatenate([keypoints[:, :2], np.where(sure, 2, 0)[:, None]], 1)
        labels[~sure] = 0
        x0, y0, x1, y1 = (float(v) for v in person.box_xyxy)
        annotation: dict[str, Any] = {
            "category_id": 1, "iscrowd": 0, "bbox": _rounded([x0, y0, x1 - x0, y1 - y0]),
            "area": round((x1 - x0) * (y1 - y0), 1), "num_keypoints": int(sure[:17].sum()),
            "score": round(float(person.score), 4), "quality": round(_quality(refined, keypoints), 4),
            "keypoint_error": round(refined.error, 5), "implausible": round(refined.implausible, 3),
        }  # fmt: skip
        for name, first, last in _LISTS:
            annotation[name] = _rounded(labels[first:last].ravel())
        for name, first, last in _PARTS:
            known = sure[first:last].mean() > 0.5
            annotation[f"{name}_valid"] = bool(known)
            points = labels[first:last][sure[first:last], :2] if known else np.zeros((1, 2))
            annotation[f"{name}_box"] = _rounded([*points.min(0), *np.ptp(points, axis=0)])
        values = {
            "root_pose": person.global_orient, "body_pose": person.body_pose, "lhand_pose": person.left_hand_pose,
            "rhand_pose": person.right_hand_pose, "jaw_pose": person.jaw_pose, "shape": person.betas,
            "expr": person.expression, "trans": person.cam_trans,
        }  # fmt: skip
        # Without its keypoints a hand or face is the network's guess, and nothing to learn from.
        valid = {key: annotation[f"{part}_valid"] for key, part in
                 (("lhand_valid", "lefthand"), ("rhand_valid", "righthand"), ("face_valid", "face"))}  # fmt: skip
        param = {name: _rounded(np.ravel(value), 6) for name, value in values.items()} | valid | self.body
        camera = {"focal": _rounded(person.focal_px), "princpt": _rounded(person.principal_px)}
        return {"annotation": annotation, "parameters": {"smplx_param": param, "cam_param": camera}}


def _quality(refined: Refined, keypoints: np.ndarray) -> float:
    """Of a person fitted to keypoints (133, 3); 0 for one that stayed as predicted."""
    known = float((keypoints[TRUNK_AND_LIMBS, 2] >= _SURE).mean())
    return quality(refined.error, known, refined.implausible) if refined.moved else 0.0


def _write(config: AnnotateConfig, rows: list[dict[str, Any]]) -> tuple[int, int]:
    """The two annotation files; the number of people in each."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    fits: dict[str, Any] = {}
    for number, row in enumerate(rows, 1):
        images.append({"id": number, **{key: row[key] for key in ("file_name", "width", "height")}})
        for person in row["people"]:
            key = len(annotations) + 1
            annotations.append({"id": key, "image_id": number, **person["annotation"]})
            if person["annotation"]["quality"] >= config.min_quality:
                fits[str(key)] = person["parameters"]
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": list(COCO_WHOLEBODY[:17])}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    target, parameters = _targets(config)
    # Parameters first: they mean nothing without the other file, which may be there from a smaller run.
    write_json(parameters, fits)
    write_json(target, content)
    return len(annotations), len(fits)


def _targets(config: AnnotateConfig) -> tuple[Path, Path]:
    """The two annotation files."""
    folder = config.folder / "annotations"
    return folder / f"{config.split}.json", folder / f"{config.split}_smplx.json"


def _options(config: AnnotateConfig) -> dict[str, Any]:
    """What the labels of a split have in common."""
    options = {name: str(getattr(config, name)) for name in ("keypoints", "split", "detector", "model", "body")}
    # Runs of earlier versions, which had no such options, go on where none is given.
    newer = {name: getattr(config, name) for name in ("family", "box_scale")}
    return options | {name: str(value) for name, value in newer.items() if value is not None}


def _check_same_run(config: AnnotateConfig, notes: Path) -> None:
    """A folder of records holds one kind of label; annotations of other origin, or that were corrected since, are never
    written over."""
    path = notes / "run.json"
    way_out = f"Give the same ones to go on, choose another --split, or delete {notes} to begin anew."
    ours = check_same_options(path, _options(config), way_out)
    written = json.loads(path.read_bytes()).get("written", {}) if ours else {}
    for target in _targets(config):
        if config.overwrite or not target.exists():
            continue
        if not ours:
            raise BadInput(
                f"{target} is there already and was not made by `annotate`: choose another --split, or give "
                "--overwrite."
            )
        if target.name in written and hash_of(target) != written[target.name]:
            raise BadInput(
                f"{target} was changed after `annotate` had written it: move it away, choose another --split, or give "
                "--overwrite."
            )
    if not ours:
        record_options(path, _options(config))


def _read(record: Path, picture: Path, made_of: dict[str, str]) -> dict[str, Any] | None:
    """What an earlier run wrote about a picture, if neither it nor the file of keypoints has changed since."""
    try:
        known = json.loads(record.read_bytes())
        if "made_of" not in known:  # by the first version
            return known if record.stat().st_mtime >= picture.stat().st_mtime else None
        return known if known["made_of"] == made_of else None
    except (OSError, ValueError, TypeError):
        return None


def _inside(boxes: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Which boxes (N, 4) have something to see in the picture."""
    high = np.minimum(boxes[:, 2:], image_hw[::-1])
    return np.asarray(((high - np.maximum(boxes[:, :2], 0)) >= 2).all(1))


def _rounded(values: Any, digits: int = 3) -> list[float]:
    return [round(float(value), digits) for value in values]
