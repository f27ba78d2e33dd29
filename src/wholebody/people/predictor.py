"""A picture in, people out: boxes → crops → network and body → the camera of the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from wholebody.errors import BadInput
from wholebody.people.detect import Detector, check_boxes, make_detector
from wholebody.people.detections import Detections, box_iou
from wholebody.people.person import Person

__all__ = ["Person", "Predictor", "check_image", "crop_person"]

_POINT_SEEN, _POINTS_SHARED = 0.25, 6  # score, and number, of key points by which two boxes are told to show one person
_POINT_GUESSED = 0.1  # score from which a key point says where the network thinks that the person is
_POINT_SAME = 0.04  # of the box's longer side: two key points in one place
_NOWHERE = np.full((2, 4), np.nan)
Regions = dict[int, np.ndarray]
"""Where each person's hands are to be looked for in the next frame: (2, 4), not finite where nobody knows."""
_ALIGNED = 16  # people who are laid onto their pictures together


@dataclass(frozen=True)
class Seen:
    """What the network alone says of the people of some pictures."""

    people: list[list[Person]]
    keypoints: list[list[np.ndarray]]  # of each picture, a person: (17, 3) COCO's x, y, score; [] if it finds none


class Predictor:
    """`Predictor(model)(image)` gives the people of one picture; of a list of pictures, a list for each.

    `model` is what `wholebody.load_model` returns, on any device, or what it takes: an embedded name or a checkpoint's
    path. `detector` is any callable from a picture to `Detections`, or the name of one; None is the embedded one.
    It keeps nothing from call to call: threads may share it.
    """

    def __init__(
        self,
        model: Any = "t",
        detector: Detector | str | None = None,
        batch_size: int = 8,
        device: str | None = None,
        parts: Sequence[str] = ("body", "hands", "face"),
        gender: str | None = None,
        height: float | None = None,
        box_scale: float | None = None,
    ) -> None:
        """device: where to load a model to that is given by its name ("cuda", "auto", ...; default: the CPU).
        box_scale: how much a person's box is enlarged before it is cropped; default: as the network was trained.

        What follows is for networks that landmarkers help (`t`). parts: what the embedded landmarkers look at of each
        person; () leaves what the network alone says. gender ("female" or "male") and height (metres): of everybody in
        the pictures, where the user knows.
        """
        from wholebody.model.config import box_enlargement

        if batch_size < 1:
            raise BadInput(f"The batch size is {batch_size}; it must be at least 1.")
        if isinstance(model, str | Path):
            from wholebody.model.load import load_model

            model = load_model(model, device=device)
        elif device is not None:
            raise BadInput("`device` goes with a model's name; move one that is loaded by `model.to(...)`.")
        if getattr(model, "body", None) is None:
            raise BadInput(
                "The model has no body, so it gives parameters but no mesh: load it with one (`load_model`)."
            )
        self.model = model
        self.batch_size = batch_size
        self.box_scale = box_enlargement(model.config, box_scale)
        detector = "movenet" if detector is None else detector
        self._detector = make_detector(detector) if isinstance(detector, str) else detector
        self.parts = tuple(parts)
        self.gender, self.height = gender, height

    @cached_property
    def _landmarkers(self) -> Any:
        from wholebody.people.landmarkers import Landmarkers

        return Landmarkers(self.parts)

    @cached_property
    def _aligner(self) -> Any:
        from wholebody.people.alignment import Aligner

        return Aligner(self.model, gender=self.gender, height=self.height)

    @overload
    def __call__(self, image: np.ndarray, boxes: Any = None) -> list[Person]: ...

    @overload
    def __call__(self, image: Sequence[np.ndarray], boxes: Any = None) -> list[list[Person]]: ...

    def __call__(self, image: np.ndarray | Sequence[np.ndarray], boxes: Any = None) -> Any:
        """image: H×W×3 uint8 RGB, or a list of such. boxes: N×4 xyxy in pixels, or a list of these for a list of
        pictures; None: let the detector find them."""
        if not isinstance(image, list | tuple):
            return self([image], None if boxes is None else [boxes])[0]  # type: ignore[list-item]
        if boxes is not None and len(boxes) != len(image):
            raise BadInput(f"{len(image)} pictures need as many lists of boxes, got {len(boxes)}.")
        for picture in image:
            check_image(picture)
        found = []
        for picture, given in zip(image, [None] * len(image) if boxes is None else boxes, strict=True):
            if given is None:
                found.append(self.detect(picture))
            else:
                checked = check_boxes(given, picture.shape[:2])
                found.append(Detections(checked, np.ones(len(checked))))
        return self.predict_many(image, found)

    def detect(self, image: np.ndarray) -> Detections:
        return self._detector(image)

    def predict_many(self, images: Sequence[np.ndarray], found: Sequence[Detections]) -> list[list[Person]]:
        """The people of several pictures whose boxes are known, `batch_size` at a time across the pictures.

        Boxes that a detector found (with key points) and that show one person twice count once.
        """
        seen = self.see(images, found)
        for number, detections in enumerate(found):
            if detections.keypoints_px is not None and seen.keypoints[number]:
                once = _once_each(seen.people[number], seen.keypoints[number])
                seen.people[number] = [seen.people[number][row] for row in once]
                seen.keypoints[number] = [seen.keypoints[number][row] for row in once]
        return self.laid_on(images, seen)

    def see(
        self, images: Sequence[np.ndarray], found: Sequence[Detections], who: Sequence[Sequence[int]] | None = None,
        every: int = 1,
    ) -> Seen:  # fmt: skip
        """The first half of `predict_many`: the network, of everybody.

        who: where the pictures are frames of a film, one after the other: whose each box is, as any number that stays
        theirs. every: then a network that sees a body sooner than hands and face looks for these in one of so many of
        a person's frames only; between, they are those of the nearest frame.
        """
        import torch

        from wholebody.geometry.crop import fit_crop

        owners, crops, placed, whose = [], [], [], []
        for number, (image, detections) in enumerate(zip(images, found, strict=True)):
            for row, (box, score) in enumerate(zip(detections.boxes_xyxy, detections.scores, strict=True)):
                # Published boxes count their last pixel.
                crop_box = fit_crop(box - np.array([0, 0, 1, 1]), image.shape[:2], self.box_scale)
                owners.append(number)
                placed.append((box, float(score), crop_box))
                crops.append((image, crop_box))
                whose.append(-1 if who is None else who[number][row])
        source = np.arange(len(crops))
        if who is not None and every > 1 and getattr(self.model, "can_glance", False):
            source = _nearest_whole(np.array(whose, np.int64), every)
        people: dict[int, Person] = {}
        points: dict[int, np.ndarray] = {}
        known: dict[int, Any] = {}  # rotations and expression of those whose hands and face were looked for
        glanced = source != np.arange(len(source))
        for rows in (*self._batches(np.flatnonzero(~glanced)), *self._batches(np.flatnonzero(glanced))):
            pictures = self._pictures([crops[row] for row in rows])
            with torch.inference_mode():
                if glanced[rows[0]]:
                    before = [torch.stack(part) for part in zip(*(known[source[row]] for row in rows), strict=True)]
                    prediction = self.model.glance(pictures, *before)
                else:
                    prediction = self.model(pictures)
                    if glanced.any():
                        known |= zip(rows, zip(prediction.rotations, prediction.expression, strict=True), strict=True)
            people |= zip(rows, self._people(prediction, [placed[row] for row in rows]), strict=True)
            if getattr(prediction, "found_keypoints", None) is not None and self.parts:
                found17 = prediction.found_keypoints.float().cpu().numpy()
                points |= {row: _in_picture(of, placed[row][2]) for row, of in zip(rows, found17, strict=True)}
        self._look_again(images, owners, crops, placed, people, points)
        seen = Seen([[] for _ in images], [[] for _ in images])
        for row, owner in enumerate(owners):
            seen.people[owner].append(people[row])
            if row in points:
                seen.keypoints[owner].append(points[row])
        return seen

    def _look_again(
        self,
        images: Sequence[np.ndarray],
        owners: Sequence[int],
        crops: Sequence[tuple[np.ndarray, np.ndarray]],
        placed: Sequence[tuple[np.ndarray, float, np.ndarray]],
        people: dict[int, Person],
        points: dict[int, np.ndarray],
    ) -> None:
        """A neighbour who fills the crop is taken for the person: look again, in place, with all around the box
        covered, at those whose key points lie outside of their box or are another's."""
        import torch

        lost = []
        for number in range(len(images)):
            rows = [row for row, owner in enumerate(owners) if owner == number and row in points]
            twice = set(range(len(rows))) - set(_once_each([people[r] for r in rows], [points[r] for r in rows]))
            lost += [r for k, r in enumerate(rows) if k in twice or _strays(points[r], placed[r][0])]
        for rows in self._batches(np.array(lost, np.int64)):
            covered = [(_covered(crops[row][0], placed[row][0]), crops[row][1]) for row in rows]
            with torch.inference_mode():
                prediction = self.model(self._pictures(covered))
            again = self._people(prediction, [placed[row] for row in rows])
            for k, row in enumerate(rows):
                found = _in_picture(prediction.found_keypoints[k].float().cpu().numpy(), placed[row][2])
                if _at_home(found, placed[row][0]) > _at_home(points[row], placed[row][0]):
                    people[row], points[row] = again[k], found

    def _pictures(self, crops: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
        """Pictures and boxes in them, cropped as the network takes them."""
        import torch

        from wholebody.model.prediction import pictures_01

        config = self.model.config
        read = getattr(self.model, "reads_hw", config.input_hw)
        if read == config.input_hw:
            batch = np.stack([crop_person(*crop, config.crop_filter) for crop in crops])
        else:
            batch = np.stack([crop_area(*crop, read) for crop in crops])
        return pictures_01(torch.from_numpy(batch), next(self.model.parameters()))

    def _people(self, prediction: Any, placed: Sequence[tuple[np.ndarray, float, np.ndarray]]) -> list[Person]:
        return _to_people(prediction, placed, self.model.config, self.model.body.faces.cpu().numpy())

    def _batches(self, rows: np.ndarray) -> list[list[int]]:
        return [rows[start : start + self.batch_size].tolist() for start in range(0, len(rows), self.batch_size)]

    def laid_on(
        self, images: Sequence[np.ndarray], seen: Seen, who: Sequence[Sequence[int]] | None = None,
        hands: Regions | None = None,
    ) -> list[list[Person]]:  # fmt: skip
        """The second half of `predict_many`: landmarkers, and everybody laid onto the pictures.

        who: as in `see`; hands are then looked for where they were in the frame before, and each person's face is asked
        once about their shape (`Person.sources["shape"]`). hands: where they were in the frame before the first of
        these, by the same numbers; it is changed to where they are in the last one.
        """
        hands = {} if hands is None else hands
        faced: set[int] = set()
        people = [list(row) for row in seen.people]
        looked = []  # (picture, what the landmarkers see of its people)
        for number, points17 in enumerate(seen.keypoints):
            if points17:
                boxes = np.stack([person.box_xyxy for person in people[number]])
                before = np.stack([hands.get(one, _NOWHERE) for one in who[number]]) if who is not None else None
                asked = None if who is None else [one not in faced for one in who[number]]
                if self.gender is not None:  # is known: no face needs to say it
                    asked = [False] * len(boxes)
                evidence = self._landmarkers(
                    images[number], boxes, np.stack(points17), hand_regions=before, genders=asked
                )
                hands.clear()
                if who is not None:
                    hands |= zip(who[number], evidence.hand_regions, strict=True)
                    faced |= {one for one, of in zip(who[number], evidence.sources, strict=True) if "shape" in of}
                looked.append((number, evidence))
        self._align(people, looked)
        return people

    def _align(self, people: list[list[Person]], seen: list[tuple[int, Any]]) -> None:
        """Align, in place, the people of the pictures of which something was `seen`; about `_ALIGNED` at a time, as one
        at a time is several times as slow, and thousands take much memory."""
        from wholebody.model.embedded.evidence import Evidence
        from wholebody.people.alignment import depth_hints

        together: list[tuple[int, Any]] = []
        for place, (number, evidence) in enumerate(seen):
            together.append((number, evidence))
            count = sum(len(part) for _, part in together)
            if count < _ALIGNED and place + 1 < len(seen):
                continue
            aligned = iter(
                self._aligner(
                    [person for row, _ in together for person in people[row]],
                    Evidence.concatenate([part for _, part in together]),
                )
            )
            for row, evidence in together:
                hints = depth_hints(evidence)
                people[row] = [
                    replace(next(aligned), sources=dict(sources), hint_3d=hint)
                    for sources, hint in zip(evidence.sources, hints, strict=True)
                ]
            together = []


def _once_each(people: Sequence[Person], keypoints: Sequence[np.ndarray]) -> list[int]:
    """Rows of people without those in whose box the network saw the same person as in another: there it stays in whose
    box the key points (17, 3) are more at home."""

    def fit(row: int) -> float:
        return people[row].score * _at_home(keypoints[row], people[row].box_xyxy)

    kept: list[int] = []
    for row in sorted(range(len(people)), key=fit, reverse=True):
        size = float((people[row].box_xyxy[2:] - people[row].box_xyxy[:2]).max())
        twin = False
        for other in kept:
            shared = np.minimum(keypoints[row][:, 2], keypoints[other][:, 2]) >= _POINT_SEEN
            if shared.sum() >= _POINTS_SHARED:
                off = np.linalg.norm(keypoints[row][shared, :2] - keypoints[other][shared, :2], axis=1) / size
                twin |= bool((off < _POINT_SAME).mean() >= 0.7)
        if not twin:
            kept.append(row)
    return sorted(kept)


def _at_home(points: np.ndarray, box: np.ndarray) -> float:
    """How well key points (17, 3) fill a box, 0 to 1: the overlap of it and of what they span."""
    seen = points[points[:, 2] >= _POINT_GUESSED, :2]
    if len(seen) < _POINTS_SHARED:
        return 0.0
    return box_iou(box.astype(np.float64), np.concatenate([seen.min(0), seen.max(0)]))


def _strays(points: np.ndarray, box: np.ndarray) -> bool:
    """Whether key points (17, 3) are those of somebody else than whom the box shows: as far as the network is sure of
    them, they lie outside of it."""
    margin = 0.06 * float((box[2:] - box[:2]).max())
    inside = ((points[:, :2] > box[:2] - margin) & (points[:, :2] < box[2:] + margin)).all(1)
    return bool(points[inside, 2].sum() < 0.7 * points[:, 2].sum())


def _covered(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The picture with its mean colour outside of a box."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int), 0, [width, height])
    around = np.empty_like(image)
    around[:] = image[y0:y1, x0:x1].mean((0, 1)).astype(np.uint8)
    around[y0:y1, x0:x1] = image[y0:y1, x0:x1]
    return around


def _nearest_whole(whose: np.ndarray, every: int) -> np.ndarray:
    """Of each of N rows, in the order of frames, the row of the same person (N,) that is looked at in whole: the middle
    one of every `every`, and itself for those."""
    source = np.arange(len(whose))
    for person in np.unique(whose):
        rows = np.flatnonzero(whose == person)
        count = len(rows)
        middles = np.minimum(np.arange(0, count, every) + every // 2, count - 1)
        source[rows] = rows[middles[np.arange(count) // every]]
    return source


def _in_picture(points: np.ndarray, crop_box: np.ndarray) -> np.ndarray:
    """Points (P, 3) as fractions of a crop and scores, to pixels of the picture: pixel i of n of the crop the network
    looked at covers i / n to (i + 1) / n."""
    size = crop_box[2:] - crop_box[:2]
    at = (points[:, :2] - 0.5 / np.array([192, 256])) * size + crop_box[:2]
    return np.concatenate([at, points[:, 2:]], 1)


def check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise BadInput(f"The picture must be an H×W×3 uint8 RGB array, got {what}. `wholebody.read_image` gives one.")
    if image.size == 0:
        raise BadInput(f"The picture has no pixels: its array has the shape {image.shape}.")


def crop_person(
    image: np.ndarray,
    crop_box: np.ndarray,
    crop_filter: str,
    out_hw: tuple[int, int] = (512, 384),
) -> np.ndarray:
    """The 512×384×3 float32 crop (0..255) that a network sees."""
    from wholebody.geometry.crop import crop_affine, warp

    if crop_filter not in ("published", "area"):
        raise BadInput(f"The network asks for a crop filter {crop_filter!r}; known: published, area.")
    if crop_filter == "area":
        # The small network sees every second pixel. Sample those without aliasing and repeat them.
        read = crop_area(image, crop_box, (out_hw[0] // 2, out_hw[1] // 2))
        return np.repeat(np.repeat(read, 2, 0), 2, 1)
    image, crop_box = _cut_out(image, crop_box)
    affine, _ = crop_affine(crop_box, out_hw=out_hw)
    # Published crops are not rounded to grey levels; for a person of 16 megapixels the memory is not worth it.
    exact = image.astype(np.float32) if image.shape[0] * image.shape[1] <= 16_000_000 else image
    return np.asarray(warp(exact, affine, out_hw), np.float32)


def crop_area(image: np.ndarray, crop_box: np.ndarray, out_hw: tuple[int, int]) -> np.ndarray:
    """The crop H×W×3 float32 (0..255) at another size, every pixel the mean of what it covers."""
    from wholebody.geometry.crop import crop_affine, warp

    image, crop_box = _cut_out(image, crop_box)
    image, crop_box = _shrink(image, crop_box, out_hw[1])
    affine, _ = crop_affine(crop_box, out_hw=out_hw)
    return np.asarray(warp(image.astype(np.float32), affine, out_hw), np.float32)


def _cut_out(image: np.ndarray, box: np.ndarray, margin: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """The part of a large picture that the box needs, so that a crop costs the same wherever it comes from."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]).astype(int) - margin, 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int) + margin, [x0 + 1, y0 + 1], [width, height])
    return image[y0:y1, x0:x1], box - np.array([x0, y0, x0, y0])


def _shrink(image: np.ndarray, box: np.ndarray, out_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Average the picture down to 1.2 times the crop's resolution where it is much finer; the box goes along."""
    import cv2

    factor = (box[2] - box[0]) / out_width
    if factor <= 1.5:
        return image, box
    height, width = image.shape[:2]
    small = (max(1, round(width * 1.2 / factor)), max(1, round(height * 1.2 / factor)))
    k = np.array([width / small[0], height / small[1]] * 2)
    # Pixel centres sit at integers: x_full = (x_small + 0.5) k - 0.5.
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA), (box + 0.5) / k - 0.5


def _to_people(
    prediction: Any, placed: Sequence[tuple[np.ndarray, float, np.ndarray]], config: Any, faces: np.ndarray
) -> list[Person]:
    """A batch's prediction → people of the whole picture, all on the CPU."""
    from wholebody.body.joints import COCO_WHOLEBODY_FROM_137

    names = (
        "global_orient",
        "body_pose",
        "left_hand_pose",
        "right_hand_pose",
        "jaw_pose",
        "betas",
        "expression",
        "cam_trans",
        "joints_cam",
        "vertices_cam",
    )
    arrays = {name: getattr(prediction, name).cpu().numpy() for name in names}
    cells = prediction.joints_proj_cells.cpu().numpy()[:, list(COCO_WHOLEBODY_FROM_137)]
    found = {name: getattr(prediction, name) for name in ("left_hand_box", "right_hand_box", "face_box")}
    part_boxes = {name: value.cpu().numpy() for name, value in found.items() if value is not None}
    crop_wh, grid_wh = np.array(config.input_hw[::-1]), np.array(config.grid[:0:-1])
    people = []
    for row, (box, score, crop_box) in enumerate(placed):
        origin, size = crop_box[:2], crop_box[2:] - crop_box[:2]
        camera = config.camera.in_picture(np.concatenate([origin, size]))
        dtype = arrays["betas"].dtype
        people.append(
            Person(
                box_xyxy=np.asarray(box, dtype),
                score=score,
                focal_px=np.asarray(camera.focal_px, dtype),
                principal_px=np.asarray(camera.principal_px, dtype),
                keypoints_px=(cells[row] / grid_wh * size + origin).astype(dtype),
                **{
                    f"{name}_xyxy": (value[row].reshape(2, 2) / crop_wh * size + origin).reshape(4).astype(dtype)
                    for name, value in part_boxes.items()
                },
                **{name: value[row] for name, value in arrays.items()},
                faces=faces,
            )
        )
    return people
