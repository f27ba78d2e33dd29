"""Predictions for many samples of a set: pictures decoded ahead by threads, people cropped, networks run in batches."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.evaluation.boxes import crop_enlargement
from wholebody.evaluation.testset import parameters_of
from wholebody.files.image import decode_image
from wholebody.files.reading import read_bytes
from wholebody.geometry.camera import VirtualCamera
from wholebody.geometry.crop import fit_crop
from wholebody.model.prediction import pictures_01
from wholebody.people.predictor import crop_person


@dataclass(frozen=True, eq=False)
class Predicted:
    """One network's answer for some samples.

    `prediction` is the network's own, in the crops; `crop_boxes` (B, 4) xyxy are where these lie in the pictures.
    """

    samples: Sequence[Sample]
    crop_boxes: np.ndarray
    image_hw: np.ndarray  # (B, 2)
    prediction: Any

    def vertices(self) -> Tensor:
        """(B, V, 3) in the camera frame, on the network's device."""
        return self.prediction.vertices_cam

    def parameters(self, number: int) -> dict[str, np.ndarray]:
        """What is kept of the answer for one of the samples, see `testset.Found`."""
        return parameters_of(self.prediction, number) | {"crop_box": self.crop_boxes[number].astype(np.float32)}

    def to_picture(self, cells: np.ndarray, grid_wh: tuple[int, int]) -> np.ndarray:
        """Positions (B, J, 2) in cells of the crop as pixels of the picture."""
        low, size = self.crop_boxes[:, None, :2], (self.crop_boxes[:, 2:] - self.crop_boxes[:, :2])[:, None]
        return np.asarray(cells, np.float64) / grid_wh * size + low

    def cameras(self) -> tuple[np.ndarray, np.ndarray]:
        """Focal lengths and principal points (B, 2) under which the meshes lie on the people in the pictures."""
        boxes = [np.concatenate([box[:2], box[2:] - box[:2]]) for box in self.crop_boxes]
        cameras = [VirtualCamera().in_picture(box) for box in boxes]
        return np.stack([c.focal_px for c in cameras]), np.stack([c.principal_px for c in cameras])


def predict(
    models: Sequence[Any],
    samples: Iterable[Sample],
    root: Path,
    batch_size: int = 8,
    workers: int = 2,
) -> Iterator[list[Predicted]]:
    """For each batch of samples the answer of every network: pictures are decoded once for all of them.

    A picture that is missing or broken raises BadInput: errors over what is left would not be the set's.
    """
    with ThreadPoolExecutor(workers) as pool:

        def load(sample: Sample) -> tuple[tuple[int, int], list[tuple[np.ndarray, np.ndarray]]]:
            """The picture's size, and for each network the box that is cropped and the crop."""
            image = picture_of(sample, root)
            ways = [(crop_enlargement(model.config, sample), model.config.crop_filter) for model in models]
            boxes = {enlarge: crop_box_of(sample, image.shape[:2], enlarge) for enlarge, _ in ways}
            crops = {way: crop_person(image, boxes[way[0]], way[1]) for way in dict.fromkeys(ways)}
            return image.shape[:2], [(boxes[way[0]], crops[way]) for way in ways]

        waiting: deque[tuple[Sample, Future]] = deque()
        stream = iter(samples)
        while True:
            # Twice as many crops wait as are used at once: 2.4 MB each.
            for sample in itertools.islice(stream, 2 * batch_size - len(waiting)):
                waiting.append((sample, pool.submit(load, sample)))
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
            loaded = [future.result() for _, future in batch]
            chosen, sizes = [sample for sample, _ in batch], np.array([hw for hw, _ in loaded])
            answers = []
            for model, seen in zip(models, zip(*(views for _, views in loaded), strict=True), strict=True):
                boxes, crops = (np.stack(part) for part in zip(*seen, strict=True))
                answers.append(Predicted(chosen, boxes, sizes, _run(model, crops)))
            yield answers


def _run(model: Any, crops: np.ndarray) -> Any:
    with torch.inference_mode():
        return model(pictures_01(torch.from_numpy(crops), next(model.parameters())))


def picture_of(sample: Sample, root: Path) -> np.ndarray:
    """The sample's picture, H×W×3 uint8 RGB."""
    if sample.image is not None:
        return sample.image
    if sample.image_path is None:
        raise BadInput(f"{sample.dataset} {sample.id} has no picture")
    path = root / sample.image_path
    if not path.is_file():
        raise BadInput(
            f"{path}: the annotations name this picture and it is not there. The set is not complete; "
            "`wholebody data check` says what is missing and where to obtain it"
        )
    # Annotations count pixels as they are stored, whatever a tag says about which side is up.
    return decode_image(read_bytes(path), str(path), [], upright=False)


def crop_box_of(sample: Sample, image_hw: tuple[int, int], enlarge: float) -> np.ndarray:
    """The box (4,) xyxy that is cropped for a sample, see `fit_crop`."""
    try:
        return fit_crop(sample.box_xyxy, image_hw, enlarge)
    except BadInput as error:
        raise BadInput(f"{sample.dataset} {sample.id}: {error}") from error
