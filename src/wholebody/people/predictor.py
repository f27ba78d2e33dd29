"""A picture in, people out: boxes → crops → network and body → the camera of the whole picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.people.detect import Detections, Detector, check_boxes, make_detector


@dataclass(frozen=True)
class Person:
    """One person of a picture. numpy, in the network's precision; metres, radians, pixels of the picture.

    Camera frame: x right, y down, z forward. `vertices_cam` seen by the camera (`focal_px`, `principal_px`), that is
    `focal_px * xy / z + principal_px`, lie on the person in the picture. The camera belongs to this person's box: it is
    far away and has a long lens, so `cam_trans[2] / focal_px` orders people by depth and `cam_trans[2]` alone does not.
    Rotations are axis-angle relative to the parent joint; hand poses are relative to the body's mean hand unless the
    body was loaded with `flat_hand_mean`.
    """

    box_xyxy: np.ndarray  # (4,) as detected or given
    score: float  # of the detection, 0..1
    global_orient: np.ndarray  # (3,) in the camera frame
    body_pose: np.ndarray  # (21, 3)
    left_hand_pose: np.ndarray  # (15, 3)
    right_hand_pose: np.ndarray  # (15, 3)
    jaw_pose: np.ndarray  # (3,)
    betas: np.ndarray  # (10,)
    expression: np.ndarray  # (10,)
    cam_trans: np.ndarray  # (3,) from the body's frame to the camera's
    focal_px: np.ndarray  # (2,)
    principal_px: np.ndarray  # (2,)
    joints_cam: np.ndarray  # (55, 3) the joints of the body's tree, named in wholebody.body.joints.SMPLX_JOINTS
    vertices_cam: np.ndarray  # (V, 3)
    keypoints_px: np.ndarray  # (133, 2) COCO-WholeBody, projected from the mesh
    left_hand_box_xyxy: np.ndarray  # (4,) where the network looked for it, as the next two
    right_hand_box_xyxy: np.ndarray  # (4,)
    face_box_xyxy: np.ndarray  # (4,)

    def numbers(self) -> list[str]:
        """The names of all fields."""
        return [field.name for field in fields(self)]


class Predictor:
    """`Predictor(model)(image)` gives the people of one picture.

    `model` is what `wholebody.load_model` returns, on any device and in any precision. `detector` is any callable from
    a picture to `Detections`, or the name of one; None is the embedded one, loaded when first needed.
    """

    def __init__(self, model: Any, detector: Detector | str | None = None, batch_size: int = 8) -> None:
        if batch_size < 1:
            raise BadInput(f"The batch size is {batch_size}; it must be at least 1.")
        if getattr(model, "body", None) is None:
            raise BadInput(
                "The model has no body, so it gives parameters but no mesh: load it with one (`load_model`)."
            )
        self.model = model
        self.batch_size = batch_size
        self._detector = detector

    def __call__(self, image: np.ndarray, boxes: Any = None) -> list[Person]:
        """image: H×W×3 uint8 RGB. boxes: N×4 xyxy in pixels; None: let the detector find them."""
        check_image(image)
        if boxes is None:
            found = self.detect(image)
        else:
            found = Detections(checked := check_boxes(boxes, image.shape[:2]), np.ones(len(checked)))
        return self.predict_many([image], [found])[0]

    def detect(self, image: np.ndarray) -> Detections:
        if self._detector is None or isinstance(self._detector, str):
            self._detector = make_detector(self._detector or "movenet")
        return self._detector(image)

    def predict_many(self, images: Sequence[np.ndarray], found: Sequence[Detections]) -> list[list[Person]]:
        """The people of several pictures whose boxes are known, `batch_size` at a time across the pictures."""
        import torch

        owners, crops, placed = [], [], []
        people: list[list[Person]] = [[] for _ in images]
        for number, (image, detections) in enumerate(zip(images, found, strict=True)):
            for box, score in zip(detections.boxes_xyxy, detections.scores, strict=True):
                crop_box = fit_crop(box, image.shape[:2])
                owners.append(number)
                placed.append((box, float(score), crop_box))
                crops.append((image, crop_box))
        like = next(self.model.parameters())
        for start in range(0, len(crops), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = np.stack([crop_person(image, box, self.model.config.crop_filter) for image, box in crops[part]])
            images_01 = torch.from_numpy(batch).to(like.device, like.dtype).permute(0, 3, 1, 2).contiguous() / 255
            with torch.inference_mode():
                prediction = self.model(images_01)
            rows = _to_people(prediction, placed[part], self.model.config)
            for owner, person in zip(owners[part], rows, strict=True):
                people[owner].append(person)
        return people


def check_image(image: Any) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        what = f"{image.dtype} array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise BadInput(f"The picture must be an H×W×3 uint8 RGB array, got {what}. `wholebody.read_image` gives one.")


def fit_crop(box_xyxy: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """A person's box → the box (4,) xyxy that is cropped: cut to the picture, made 3:4, enlarged 1.25×."""
    from wholebody.geometry.crop import fit_box

    # Published boxes count their last pixel; those that begin outside the picture are cut here, not shifted.
    low = np.maximum(box_xyxy[:2], 0)
    high = np.minimum(box_xyxy[2:] - 1, np.array(image_hw[::-1]) - 1)
    if (high <= low).any():
        raise BadInput(
            f"box [{', '.join(f'{value:g}' for value in box_xyxy)}] has less than 2 pixels inside the picture, "
            f"which is {image_hw[1]}×{image_hw[0]}."
        )
    return np.asarray(fit_box(np.concatenate([low, high])), np.float64)


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
    image, crop_box = _cut_out(image, crop_box)
    if crop_filter == "published":
        affine, _ = crop_affine(crop_box, out_hw=out_hw)
        # Published crops are not rounded to grey levels; for a person of 16 megapixels the memory is not worth it.
        exact = image.astype(np.float32) if image.shape[0] * image.shape[1] <= 16_000_000 else image
        return np.asarray(warp(exact, affine, out_hw), np.float32)
    # The small network sees every second pixel. Sample those without aliasing and repeat them.
    half = (out_hw[0] // 2, out_hw[1] // 2)
    image, crop_box = _shrink(image, crop_box, half[1])
    affine, _ = crop_affine(crop_box, out_hw=half)
    return np.repeat(np.repeat(np.asarray(warp(image.astype(np.float32), affine, half), np.float32), 2, 0), 2, 1)


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


def _to_people(prediction: Any, placed: Sequence[tuple[np.ndarray, float, np.ndarray]], config: Any) -> list[Person]:
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
    part_boxes = {
        name: getattr(prediction, name).cpu().numpy() for name in ("left_hand_box", "right_hand_box", "face_box")
    }
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
            )
        )
    return people


def pick_device(name: str = "auto") -> str:
    """`auto`: the GPU where PyTorch sees one, else the CPU; any other name is checked."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except Exception as error:  # PyTorch raises whatever the backend raises
        raise BadInput(f"--device {name} cannot be used: {str(error).splitlines()[0]} Try --device cpu.") from error
    return name
