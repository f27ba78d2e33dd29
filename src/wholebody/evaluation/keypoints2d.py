"""How well projected bodies lie on people in single photos with labelled keypoints: COCO's and MPII's forms.

Given boxes; what a `Predictor` gives to users counts, with all that it does beside the network. Only people at least
`MIN_HEIGHT` pixels high count, and of these the joints labelled as visible.

- `pck`: the share of the 12 limb joints (shoulders to ankles) nearer to their label than a tenth of the larger side of
  the person's box. Points of the face that COCO labels too, and MPII's neck and head, are not limb joints.
- `pck_05`: the same with a twentieth. `pck_wrist`: of the wrists alone, with a tenth.
- `face`: the mean distance of the 68 face keypoints from their labels over the larger side of the person's box, mean
  over people with a labelled face; `face_of_face_box` the same over the larger side of the face's own box; `face_inner`
  that of the 51 points inside the face over the distance between the outer corners of the eyes.
- `hand`: the mean distance of a hand's 21 keypoints over the larger side of the hand, mean over people with a hand of
  at least `MIN_HAND` pixels of which every point is labelled.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import COCO_FACE, COCO_HANDS, COCO_WHOLEBODY, LIMBS_12
from wholebody.data.sample import Sample, masked_sample
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation.inference import picture_of
from wholebody.evaluation.result import Network, Result, Row, Summary, bootstrap
from wholebody.evaluation.testset import Figure, Found, parameters_of, thinned
from wholebody.files.coco import box_xyxy, numbers, read_content, read_rows, same_id
from wholebody.people.predictor import Predictor

TESTSETS = {"coco2d": "COCO photos", "mpii2d": "MPII photos"}
MEASURES = ("pck", "pck_05", "pck_wrist", "face", "face_of_face_box", "face_inner", "hand")
MIN_HEIGHT, THRESHOLD, NEAR = 100, 0.1, 0.05
MIN_HAND = 40
_VISIBLE = 2  # COCO's flag: labelled and seen; 1 is labelled and hidden
_BOX_ENLARGE = 1.2  # MPII gives no box: the published one is the labelled joints' extent, so much larger
_LIMBS = [COCO_WHOLEBODY.index(name) for name in LIMBS_12]
_INNER, _EYES = slice(17, 68), (36, 45)  # of the 68: without the contour; outer corners of the eyes
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
    hands: np.ndarray = field(default_factory=lambda: np.zeros((2, 21, 2)))  # left, right
    hand_visible: np.ndarray = field(default_factory=lambda: np.zeros((2, 21), bool))

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
    sides = ("lefthand", "righthand")
    hands = np.stack([numbers(person.get(f"{side}_kpts", [0] * 63), 21, 3) for side in sides])
    known = np.array([bool(person.get(f"{side}_valid")) for side in sides])
    return Labelled(
        f"{picture}/{same_id(person.get('id', where))}",
        picture,
        np.array([x0, y0, x1, y1]),
        limbs[:, :2],
        limbs[:, 2] == _VISIBLE,
        face[:, :2],
        (face[:, 2] > 0) & valid,
        float(numbers(person["face_box"], 4)[2:].max()) if valid else math.nan,
        hands[..., :2],
        (hands[..., 2] > 0) & known[:, None],
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
        predictors = [Predictor(model, batch_size=batch_size) for model in models]
        # People of one picture together: who stands beside whom matters to a predictor.
        for _, group in itertools.groupby(people, key=lambda person: person.image):
            together = list(group)
            image = picture_of(_sample(together[0], self.name), self.root)
            # A predictor's boxes end behind their last pixel, the labels' in it.
            boxes = [person.box_xyxy + np.array([0, 0, 1, 1]) for person in together]
            answers = [predictor(image, boxes=boxes) for predictor in predictors]
            for number, person in enumerate(together):
                of_all = []
                for answer in answers:
                    scored = score(person, answer[number].keypoints_px)
                    row = Row(person.id, person.image, "", scored.values())
                    of_all.append(Found(row, parameters_of(answer[number]), scored))
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
        limbs = sum(s.limbs for s in scores)
        joints = {"pck": limbs, "pck_05": limbs, "pck_wrist": sum(s.wrists for s in scores)}
        note = (
            f"Given boxes; people at least {MIN_HEIGHT} pixels high. pck: share of the visible labelled limb joints "
            f"({joints['pck']}; wrists {joints['pck_wrist']}) within {THRESHOLD} of the larger side of the person's "
            f"box; pck_05: within {NEAR}. face: mean distance of the 68 face keypoints over the larger side of the "
            "person's box; face_of_face_box: over that of the face's own box; face_inner: of the 51 inner ones over "
            "the distance of the outer corners of the eyes. hand: mean distance of 21 keypoints over the larger side "
            f"of the hand, of hands of at least {MIN_HAND} pixels. Intervals: people drawn with replacement."
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
    """One person's counts: joints that are labelled and those of them that are met; mean errors of face and hands, NaN
    where nothing is labelled."""

    limbs: int
    limbs_met: int
    wrists: int
    wrists_met: int
    face: float
    face_of_face_box: float
    limbs_near: int = 0
    face_inner: float = math.nan
    hand: float = math.nan

    def values(self) -> dict[str, float]:
        """A person's own figures; NaN where nothing is labelled."""
        return {
            "pck": self.limbs_met / self.limbs if self.limbs else math.nan,
            "pck_05": self.limbs_near / self.limbs if self.limbs else math.nan,
            "pck_wrist": self.wrists_met / self.wrists if self.wrists else math.nan,
            "face": self.face,
            "face_of_face_box": self.face_of_face_box,
            "face_inner": self.face_inner,
            "hand": self.hand,
        }


def score(person: Labelled, keypoints_px: np.ndarray) -> Score:
    """How keypoints (133, 2), COCO-WholeBody, in pixels of the picture meet a person's labels."""
    if keypoints_px.shape != (len(COCO_WHOLEBODY), 2):
        raise BadInput(f"keypoints are {keypoints_px.shape}; 133×2 are needed")
    off = np.linalg.norm(keypoints_px[_LIMBS] - person.limbs, axis=1)
    # NaN meets nothing.
    met, near = ((off < share * person.side) & person.limb_visible for share in (THRESHOLD, NEAR))
    face_off = np.linalg.norm(keypoints_px[COCO_FACE] - person.face, axis=1)
    face = _mean(face_off[person.face_visible])
    eyes = np.linalg.norm(person.face[_EYES[0]] - person.face[_EYES[1]])
    inner = person.face_visible[_INNER].all() and eyes > 0
    return Score(
        int(person.limb_visible.sum()),
        int(met.sum()),
        int(person.limb_visible[_WRISTS].sum()),
        int(met[_WRISTS].sum()),
        face / person.side,
        face / person.face_side,
        int(near.sum()),
        float(face_off[_INNER].mean() / eyes) if inner else math.nan,
        _mean(_hand_errors(person, keypoints_px)),
    )


def _hand_errors(person: Labelled, keypoints_px: np.ndarray) -> np.ndarray:
    errors = []
    for rows, points, seen in zip(COCO_HANDS, person.hands, person.hand_visible, strict=True):
        size = float(np.ptp(points, axis=0).max())
        if seen.all() and size >= MIN_HAND:
            errors.append(float(np.linalg.norm(keypoints_px[rows] - points, axis=1).mean()) / size)
    return np.array(errors)


def _mean(errors: np.ndarray) -> float:
    return float(errors.mean()) if len(errors) else math.nan


def pool(scores: Iterable[Score], measure: str, seed: int = 0) -> Summary:
    """The figure over all people: PCK counts every joint alike, a face's error every person alike. `count`: of joints,
    or of faces. The interval is of people drawn with replacement: joints of one person are not independent."""
    scores = list(scores)
    if measure.startswith("pck"):
        part, good = {
            "pck": ("limbs", "limbs_met"),
            "pck_05": ("limbs", "limbs_near"),
            "pck_wrist": ("wrists", "wrists_met"),
        }[measure]
        total = np.array([getattr(s, part) for s in scores], np.float64)
        met = np.array([getattr(s, good) for s in scores], np.float64)
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
