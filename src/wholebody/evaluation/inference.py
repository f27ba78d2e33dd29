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
from wholebody.evaluation.testset import parameters_of
from wholebody.files.image import decode_image
from wholebody.geometry.camera import VirtualCamera
from wholebody.geometry.crop import fit_box
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
    filters = [model.config.crop_filter for model in models]
    with ThreadPoolExecutor(workers) as pool:

        def load(sample: Sample) -> tuple[np.ndarray, tuple[int, int], list[np.ndarray]]:
            image = picture_of(sample, root)
            box = crop_box_of(sample, image.shape[:2])
            crops = {name: crop_person(image, box, name) for name in dict.fromkeys(filters)}
            return box, image.shape[:2], [crops[name] for name in filters]

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
            boxes, sizes = np.stack([box for box, _, _ in loaded]), np.array([hw for _, hw, _ in loaded])
            chosen = [sample for sample, _ in batch]
            yield [
                Predicted(chosen, boxes, sizes, _run(model, np.stack([crops[k] for _, _, crops in loaded])))
                for k, model in enumerate(models)
            ]


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
    return decode_image(path.read_bytes(), str(path), [], upright=False)


def crop_box_of(sample: Sample, image_hw: tuple[int, int]) -> np.ndarray:
    """The box (4,) xyxy that is cropped for a sample: the person's, made 3:4 and enlarged 1.25×, as published."""
    box = np.asarray(sample.box_xyxy, np.float64)
    low, high = np.maximum(box[:2], 0), np.minimum(box[2:], np.array(image_hw[::-1]) - 1)
    if not (high > low).all():
        raise BadInput(
            f"{sample.dataset} {sample.id}: the box {box.round(1).tolist()} has nothing inside the picture, which is "
            f"{image_hw[1]}×{image_hw[0]}"
        )
    return np.asarray(fit_box(np.concatenate([low, high])), np.float64)
