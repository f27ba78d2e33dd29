"""How well projected bodies lie on people in single photos with labelled keypoints: COCO's and MPII's forms.

Given boxes; only people at least `MIN_HEIGHT` pixels high count, and of these the joints labelled as visible.

- `pck`: the share of the 12 limb joints (shoulders to ankles) nearer to their label than a tenth of the larger side of
  the person's box. Points of the face that COCO labels too, and MPII's neck and head, are not limb joints.
- `pck_wrist`: of the wrists alone.
- `face`: the mean distance of the 68 face keypoints from their labels over the larger side of the person's box, mean
  over people with a labelled face; `face_of_face_box` the same over the larger side of the face's own box.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_WHOLEBODY, COCO_WHOLEBODY_FROM_137, JOINTS_137, LIMBS_12
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation.inference import predict
from wholebody.evaluation.result import Network, Result, Row, Summary, bootstrap
from wholebody.evaluation.testset import Figure, Found, thinned
from wholebody.files.coco import box_xyxy, numbers, read_content, read_rows, same_id

TESTSETS = {"coco2d": "COCO photos", "mpii2d": "MPII photos"}
MEASURES = ("pck", "pck_wrist", "face", "face_of_face_box")
MIN_HEIGHT, THRESHOLD = 100, 0.1
_VISIBLE = 2  # COCO's flag: labelled and seen; 1 is labelled and hidden
_BOX_ENLARGE = 1.2  # MPII gives no box: the published one is the labelled joints' extent, so much larger
_LIMBS = [COCO_WHOLEBODY_FROM_137[COCO_WHOLEBODY.index(name)] for name in LIMBS_12]
_FACE = [COCO_WHOLEBODY_FROM_137[COCO_WHOLEBODY.index(f"face-{k}")] for k in range(68)]
_WRISTS = [k for k, name in enumerate(LIMBS_12) if name.endswith("wrist")]
_MPII = ("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
         "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
         "left_wrist")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Labelled:
    """One person's labels: pixels of the picture, first pixel's centre at 0."""

    id: str
    image: str
    box_xyxy: np.ndarray  # (4,)
    limbs: np.ndarray  # (12, 2), in the order of `LIMBS_12`
    limb_visible: np.ndarray  # (12,) bool
    face: np.ndarray = field(default_factory=lambda: np.zeros((68, 2)))
    face_visible: np.ndarray = field(default_factory=lambda: np.zeros(68, bool))
    face_side: float = math.nan  # the larger side of the face's box

    @property
    def side(self) -> float:
        """The larger side of the person's box."""
        return float((self.box_xyxy[2:] - self.box_xyxy[:2]).max())


def read_coco(folder: Path, problems: list[str] | None = None) -> Iterator[Labelled]:
    """The people of a folder with pictures and COCO-WholeBody annotations (`*wholebody*.json`, or one `*.json`).

    problems: rows that cannot be read are named here and left out; None: they are an error.
    """
    path = _annotations(folder, "*wholebody*.json", "COCO-WholeBody annotations")
    content = read_content(path, "annotation")
    if not isinstance(content, dict) or "images" not in content or "annotations" not in content:
        raise BadInput(f"{path}: not annotations in COCO-WholeBody's form (`images` and `annotations`)")
    people = read_rows(path, content, "keypoints", "annotation")
    for row in people.rows:
        try:
            person = _labelled(row.picture, row.where, row.values)
        except (KeyError, TypeError, ValueError) as error:
            people.lose(row.where, f"no `{error.args[0]}`" if isinstance(error, KeyError) else error)
            continue
        if person is not None:
            yield person
    if people.problems and problems is None:
        raise BadInput(f"{path}: not annotations in COCO-WholeBody's form; {people.problems[0]}")
    if problems is not None:
        problems += people.problems


def _labelled(picture: str, where: str, person: Mapping[str, Any]) -> Labelled | None:
    x0, y0, x1, y1 = box_xyxy(person["bbox"])
    if y1 - y0 < MIN_HEIGHT or not person.get("num_keypoints"):
        return None
    body = numbers(person["keypoints"], 17, 3)
    limbs = body[[COCO_WHOLEBODY.index(name) for name in LIMBS_12]]
    face = numbers(person.get("face_kpts", [0] * 204), 68, 3)
    valid = bool(person.get("face_valid"))
    return Labelled(
        f"{picture}/{same_id(person.get('id', where))}",
        picture,
        np.array([x0, y0, x1, y1]),
        limbs[:, :2],
        limbs[:, 2] == _VISIBLE,
        face[:, :2],
        (face[:, 2] > 0) & valid,
        float(numbers(person["face_box"], 4)[2:].max()) if valid else math.nan,
    )


def read_mpii(folder: Path, problems: list[str] | None = None) -> Iterator[Labelled]:
    """The people of a folder with pictures and MPII annotations in the JSON form of pose toolkits (`*.json`)."""
    path = _annotations(folder, "*mpii*.json", "MPII annotations")
    content = read_content(path, "annotation")
    try:
        for number, person in enumerate(content):
            joints = np.asarray(person["joints"], np.float64).reshape(16, 2)
            visible = np.asarray(person["joints_vis"]).reshape(16) > 0
            if not visible.any():
                continue
            low, high = joints[visible].min(0), joints[visible].max(0)
            centre, half = (low + high) / 2, (high - low) / 2 * _BOX_ENLARGE
            if 2 * half[1] < MIN_HEIGHT:
                continue
            rows = [_MPII.index(name) for name in LIMBS_12]
            name = str(person["image"])
            box = np.concatenate([centre - half, centre + half])
            yield Labelled(f"{name}/{number}", name, box, joints[rows], visible[rows])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: not MPII annotations in JSON ({error!r})") from error


READERS = {"coco2d": read_coco, "mpii2d": read_mpii}


@dataclass(eq=False)
class PhotoSet:
    """Photos with labelled keypoints in a folder; `name` is one of `TESTSETS`."""

    name: str
    root: Path
    limit: int | None = None
    every: int | None = None

    @property
    def title(self) -> str:
        return TESTSETS[self.name]

    def check(self, models: Sequence[Any]) -> None:
        """Any network with any body has keypoints."""

    def people(self) -> Iterator[Labelled]:
        return thinned(READERS[self.name](self.root, []), self.every, self.limit)

    def left_out(self) -> list[str]:
        """Rows of the annotations that cannot be read, each with why."""
        problems: list[str] = []
        deque(READERS[self.name](self.root, problems), 0)
        return problems

    def found(self, models: Sequence[Any], people: Iterable[Labelled], batch_size: int) -> Iterator[list[Found]]:
        known: deque[Labelled] = deque()

        def samples() -> Iterator[Sample]:
            for person in people:
                known.append(person)
                yield _sample(person, self.name)

        for answers in predict(models, samples(), self.root, batch_size):
            points = []
            for model, predicted in zip(models, answers, strict=True):
                _, rows, columns = model.config.grid
                cells = predicted.prediction.joints_proj_cells.double().cpu().numpy()
                points.append(predicted.to_picture(cells, (columns, rows)))
            for i in range(len(answers[0].samples)):
                person = known.popleft()
                of_all = []
                for predicted, found in zip(answers, points, strict=True):
                    scored = score(person, found[i])
                    row = Row(person.id, person.image, "", scored.values())
                    of_all.append(Found(row, predicted.parameters(i), scored))
                yield of_all

    def result(self, names: Sequence[tuple[str, str]], found: Sequence[Sequence[Found]]) -> Result:
        if not found[0]:
            raise BadInput(f"{self.root}: nobody there is at least {MIN_HEIGHT} pixels high and labelled")
        networks = []
        for name, people in zip(names, found, strict=True):
            scores = [one.more for one in people]
            summaries: dict[tuple[str, str | None], Summary] = {
                (measure, None): pool(scores, measure) for measure in MEASURES
            }
            networks.append(Network(*name, [one.row for one in people], summaries))
        scores = [one.more for one in found[0]]
        joints = {"pck": sum(s.limbs for s in scores), "pck_wrist": sum(s.wrists for s in scores)}
        note = (
            f"Given boxes; people at least {MIN_HEIGHT} pixels high. pck: share of the visible labelled limb joints "
            f"({joints['pck']}; wrists {joints['pck_wrist']}) within {THRESHOLD} of the larger side of the person's "
            "box. face: mean distance of the 68 face keypoints over the larger side of the person's box; "
            "face_of_face_box: over that of the face's own box. Intervals: people drawn with replacement."
        )
        if left_out := self.left_out():
            note += f" {len(left_out)} rows could not be read and are left out, the first: {left_out[0]}."
        return Result(self.name, self.title, note, "share", MEASURES, networks, {"joints": joints})

    def figures(self, models: Sequence[Any], result: Result, each: int) -> list[Figure]:
        from wholebody.evaluation.gallery import Shown, draw, shown

        def show(model: Any, person: Labelled) -> Shown:
            return shown(model, _sample(person, self.name), self.root)

        return draw(models, result, self.people(), show, each)


def _sample(person: Labelled, testset: str) -> Sample:
    return masked_sample(person.id, person.box_xyxy, image_path=person.image, dataset=testset)


def measure(
    models: Sequence[Any], names: Sequence[tuple[str, str]], testset: str, folder: Path, batch_size: int = 8
) -> Result:
    """Every network on the people of a folder. names: of each network, how it is called and where it came from."""
    photos = PhotoSet(testset, folder)
    everybody = list(photos.found(models, photos.people(), batch_size))
    return photos.result(names, [[of_all[k] for of_all in everybody] for k in range(len(models))])


@dataclass(frozen=True)
class Score:
    """One person's counts: joints that are labelled and those of them that are met; the face's mean errors."""

    limbs: int
    limbs_met: int
    wrists: int
    wrists_met: int
    face: float
    face_of_face_box: float

    def values(self) -> dict[str, float]:
        """A person's own figures; NaN where nothing is labelled."""
        return {
            "pck": self.limbs_met / self.limbs if self.limbs else math.nan,
            "pck_wrist": self.wrists_met / self.wrists if self.wrists else math.nan,
            "face": self.face,
            "face_of_face_box": self.face_of_face_box,
        }


def score(person: Labelled, joints_137_px: np.ndarray) -> Score:
    """How projected joints (137, 2) in pixels of the picture meet a person's labels."""
    if joints_137_px.shape != (len(JOINTS_137), 2):
        raise BadInput(f"projected joints are {joints_137_px.shape}; 137×2 are needed")
    off = np.linalg.norm(joints_137_px[_LIMBS] - person.limbs, axis=1)
    met = (off < THRESHOLD * person.side) & person.limb_visible  # NaN meets nothing
    face = np.linalg.norm(joints_137_px[_FACE] - person.face, axis=1)[person.face_visible]
    mean = float(face.mean()) if len(face) else math.nan
    return Score(
        int(person.limb_visible.sum()),
        int(met.sum()),
        int(person.limb_visible[_WRISTS].sum()),
        int(met[_WRISTS].sum()),
        mean / person.side,
        mean / person.face_side,
    )


def pool(scores: Iterable[Score], measure: str, seed: int = 0) -> Summary:
    """The figure over all people: PCK counts every joint alike, a face's error every person alike. `count`: of joints,
    or of faces. The interval is of people drawn with replacement: joints of one person are not independent."""
    scores = list(scores)
    if measure.startswith("pck"):
        part = "wrists" if measure == "pck_wrist" else "limbs"
        total = np.array([getattr(s, part) for s in scores], np.float64)
        met = np.array([getattr(s, f"{part}_met") for s in scores], np.float64)
        count = int(total.sum())
        if not count:
            return Summary(math.nan, math.nan, math.nan, math.nan, 0)

        def share(rows: np.ndarray) -> float:
            drawn = total[rows].sum()
            return met[rows].sum() / drawn if drawn else math.nan

        low, high = bootstrap(len(scores), share, seed)
        own = met[total > 0] / total[total > 0]
        return Summary(float(met.sum() / count), low, high, float(np.median(own)), count)
    return Summary.of([getattr(s, measure) for s in scores], seed)


def _annotations(folder: Path, pattern: str, what: str) -> Path:
    found = sorted(folder.glob(pattern)) or sorted(folder.glob("*.json"))
    if not found:
        raise AssetMissing(f"no {what} ({pattern}) in {folder}; give the folder that holds them with --root")
    if len(found) > 1:
        raise BadInput(f"{folder} holds several {pattern} ({', '.join(p.name for p in found)}): leave one there")
    return found[0]
