"""Errors on held-out synthetic people, beside what the best constant answer would score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wholebody.body.assets import find_body, read_body_file
from wholebody.body.joints import PARTS_137
from wholebody.body.kinematics import tree_rotations
from wholebody.body.layer import BodyModel
from wholebody.data.augment import AugmentConfig
from wholebody.errors import BadInput
from wholebody.evaluation.metrics import MeshParts, mean_distance_mm, mesh_errors_mm, pa_mpvpe_mm, rigid_align
from wholebody.evaluation.result import Network, Result, Row, label
from wholebody.evaluation.testset import Figure, Found, parameters_of, thinned
from wholebody.files.whole import write_bytes
from wholebody.geometry.camera import VirtualCamera
from wholebody.model import network
from wholebody.model.prediction import Prediction, pictures_01
from wholebody.synthesis.sets.crops import CROP_HW, CropDataConfig, TrainingCrops

PLAIN = AugmentConfig(
    scale=0.0,
    shift=0.0,
    rotation_probability=0.0,
    flip_probability=0.0,
    closeup_probability=0.0,
    occlude_probability=0.1,
    person_occlude_probability=0.05,
    colour=0.1,
)
"""How held-out people are put into pictures: exact boxes, upright, some of them partly hidden."""


MEASURES = (
    "mpvpe_all", "mpvpe_hand", "mpvpe_face", "pa_mpvpe_all", "pa_mpvpe_hand", "pa_mpvpe_face", "body_2d_percent",
    "mpvpe_all_whole", "pa_mpvpe_all_whole", "body_2d_percent_whole",
)  # fmt: skip
"""Errors in mm as `mesh_errors_mm` has them; `body_2d_percent`: distance of projected body joints inside the crop from
their truth, in percent of the box's height. `..._whole`: of those people nine tenths of whose body joints lie inside
the crop; where half of the body lies outside the picture, most of the error is about what nobody can see."""


class HeldOutPeople:
    """Drawn people in a folder of layers, put into pictures in one way: person n is always the same sample."""

    name, title = "synthetic", "Held-out synthetic people"

    def __init__(
        self, layers: str | Path, hdri: str | None = None, limit: int | None = None, every: int | None = None
    ) -> None:
        self.data = TrainingCrops(CropDataConfig(str(layers), hdri, split="heldout", augment=PLAIN), seed=7, length=0)
        self.body = BodyModel.load(flat_hand_mean=True)
        self.parts = MeshParts.of(read_body_file(find_body(None)))
        self.limit, self.every = limit, every

    def check(self, models: Sequence[Any]) -> None:
        for model in models:
            body = getattr(model, "body", None)
            if body is not None and body.name != "open":
                raise BadInput(
                    f"the synthetic people have the open body, and this network predicts the body {body.name!r}: "
                    "measure it on EHF, AGORA, UBody or PW3D"
                )

    def people(self) -> Iterator[int]:
        return thinned(range(len(self.data.layers)), self.every, self.limit)

    def measured(
        self, models: Sequence[network.Network], people: Iterable[int], batch_size: int
    ) -> Iterator[tuple[dict[str, Tensor], list[tuple[Prediction, dict[str, Tensor]]]]]:
        """Batch after batch, and of each network its answer, with its mesh, and the errors (B,) by name."""
        for batch in DataLoader(self.data, batch_size, sampler=list(people)):
            answers = []
            for model in models:
                device = next(model.parameters()).device
                body = self.body.to(device)
                target = {name: value.to(device) for name, value in batch.items()}
                with torch.inference_mode():
                    prediction = model.with_mesh(_regress(model, target["image"]), body)
                    answers.append((prediction, self._errors(model, body, prediction, target)))
            yield batch, answers

    def _errors(
        self, model: network.Network, body: BodyModel, prediction: Prediction, target: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        found = mesh_errors_mm(prediction.vertices_cam, _true_vertices(body, target), self.parts)
        off = (_projected(model, prediction) - target["joints_crop"]).norm(dim=-1) / target["box_height"][:, None] * 100
        rows = PARTS_137["body"]
        inside = target["joint_inside"][:, rows]
        found["body_2d_percent"] = (off[:, rows] * inside).sum(1) / inside.sum(1).clamp_min(1)
        part = inside.mean(1) < 0.9
        for name in ("pa_mpvpe_all", "mpvpe_all", "body_2d_percent"):
            found[f"{name}_whole"] = found[name].masked_fill(part, math.nan)
        return {name: value.double().cpu() for name, value in found.items()}

    def found(self, models: Sequence[network.Network], people: Iterable[int], batch_size: int) -> Iterator[list[Found]]:
        numbers = list(people)
        first = 0
        for batch, answers in self.measured(models, numbers, batch_size):
            for i in range(len(batch["image"])):
                row_of = partial(Row, self.layer_name(numbers[first + i]), "", "")
                yield [
                    Found(
                        row_of({name: float(values[i]) for name, values in errors.items()}),
                        parameters_of(prediction, i),
                    )
                    for prediction, errors in answers
                ]
            first += len(batch["image"])

    def layer_name(self, number: int) -> str:
        return self.data.layers.get(self.data.layer_number(number)).sample.id

    def constants(self, people: Iterable[int]) -> dict[str, float]:
        """What the best constant answer scores on these people, see `constant_errors`."""
        targets = [self.data.target(number) for number in people]
        stacked = {
            name: torch.from_numpy(np.stack([target[name] for target in targets]))
            for name in ("rotations", "betas", "expression")
        }
        with torch.inference_mode():
            return constant_errors(_true_vertices(self.body.to("cpu"), stacked), self.parts)

    def result(self, names: Sequence[tuple[str, str]], found: Sequence[Sequence[Found]]) -> Result:
        constants = self.constants(self.people())
        networks = [Network(*name, [one.row for one in rows]) for name, rows in zip(names, found, strict=True)]
        answer = ", ".join(f"{label(name)} {constants[name]:.1f}" for name in MEASURES if name in constants)
        note = (
            "People of the open body whom no network was trained on, drawn with the recipe of the embedded weights, "
            "their boxes given. body 2d percent: how far projected joints lie off, of the box's height; "
            f"whole: people whose body lies in the picture. The best constant answer would have: {answer}."
        )
        return Result(self.name, self.title, note, "mm", MEASURES, networks, {"best_constant": constants})

    def figures(self, models: Sequence[Any], result: Result, each: int) -> list[Figure]:
        from wholebody.evaluation.gallery import Shown, draw, moved_onto

        def show(model: Any, number: int) -> Shown:
            ((batch, ((prediction, _),)),) = self.measured([model], [number], 1)
            picture = batch["image"][0].numpy()
            height, width = picture.shape[:2]
            camera = VirtualCamera().in_picture([0, 0, width, height])
            assert prediction.vertices_cam is not None
            vertices = prediction.vertices_cam[0].float().cpu().numpy()
            truth = _true_vertices(self.body.to("cpu"), batch)[0].numpy()
            return Shown(
                picture, np.array([0.0, 0, width, height]), vertices, self.body.faces.cpu().numpy(), camera.focal_px,
                camera.principal_px, moved_onto(truth, vertices, self.parts),
            )  # fmt: skip

        return draw(models, result, self.people(), show, each)


def measure_layers(
    model: network.Network,
    layers: str,
    count: int | None = None,
    hdri: str | None = None,
    *,
    batch_size: int = 32,
    constants: bool = False,
    sheet: Path | None = None,
) -> dict[str, float]:
    """Mean errors of `model` on people it has not seen.

    Args:
        model: with the open body; in eval mode; on any device.
        layers: folder of held-out layers.
        count: the first so many of them, in a fixed shuffled order; None: all.
        hdri: environment maps for backgrounds.
        constants: also give what the best constant answer scores, as `constant_...`.
        sheet: write a picture of some predictions there.

    Returns:
        The mean of each of `MEASURES` over the people who have it.
    """
    heldout = HeldOutPeople(layers, hdri, limit=count)
    errors: dict[str, list[Tensor]] = {}
    drawn: list[np.ndarray] = []
    for batch, ((prediction, found),) in heldout.measured([model], heldout.people(), batch_size):
        for name, value in found.items():
            errors.setdefault(name, []).append(value)
        if sheet is not None and len(drawn) < 24:
            projected = _projected(model, prediction).cpu()
            drawn += [_draw(*one) for one in zip(batch["image"], batch["joints_crop"], projected, strict=True)]
    if sheet is not None:
        _write_sheet(drawn[:24], sheet)
    result = {name: float(torch.cat(values).nanmean()) for name, values in sorted(errors.items())}
    if constants:
        result |= {f"constant_{name}": value for name, value in heldout.constants(heldout.people()).items()}
    return result


def constant_errors(truth: Tensor, parts: MeshParts) -> dict[str, float]:
    """What one mesh for everybody would score, if it were the best one: `mesh_errors_mm` of each part's mean shape.

    The mean is taken of these very truths, in the alignment that the measure allows, so no constant that was fitted
    elsewhere does better by much.
    """
    from wholebody.body.joints import SMPLX_JOINTS, index

    roots = torch.as_tensor(parts.joint_regressor[index(("pelvis", "left_wrist", "right_wrist", "neck"), SMPLX_JOINTS)])
    origins = roots.to(truth) @ truth
    scores: dict[str, list[float]] = {}
    for name, rows, root in (
        ("all", None, 0),
        ("hand", parts.left_hand, 1),
        ("hand", parts.right_hand, 2),
        ("face", parts.face, 3),
    ):
        points = (truth if rows is None else truth[:, rows]) - origins[:, root, None]
        shifted = points.mean(0, keepdim=True).expand_as(points)
        scores.setdefault(f"mpvpe_{name}", []).append(float(mean_distance_mm(shifted, points).mean()))
        mean = points[:1]
        for _ in range(4):  # generalised Procrustes: align everybody to the mean, take the mean again
            mean = rigid_align(points, mean.expand_as(points)).mean(0, keepdim=True)
        scores.setdefault(f"pa_mpvpe_{name}", []).append(float(pa_mpvpe_mm(mean.expand_as(points), points).mean()))
    return {name: float(np.mean(values)) for name, values in scores.items()}


def _regress(model: network.Network, images: Tensor) -> Prediction:
    return model.regress(pictures_01(images, next(model.parameters())))


def _projected(model: network.Network, prediction: Prediction) -> Tensor:
    """The mesh's 137 joints (B, 137, 2) in pixels of the crop."""
    assert prediction.joints_proj_cells is not None
    return prediction.joints_proj_cells * (CROP_HW[0] / model.config.grid[1])


def _true_vertices(body: BodyModel, batch: dict[str, Tensor]) -> Tensor:
    return body.from_matrices(tree_rotations(batch["rotations"]), batch["betas"], batch["expression"]).vertices


def _draw(image: Tensor, truth: Tensor, projected: Tensor) -> np.ndarray:
    """The picture with true joints in green and predicted ones in red."""
    picture = cv2.resize(image.numpy(), (288, 384), interpolation=cv2.INTER_LINEAR)
    for points, colour in ((truth, (0, 220, 0)), (projected, (255, 40, 40))):
        for x, y in (points.numpy() * (384 / CROP_HW[0])).round().astype(int)[:65]:
            cv2.circle(picture, (int(x), int(y)), 2, colour, -1, cv2.LINE_AA)
    return picture


def _write_sheet(pictures: list[np.ndarray], path: Path, columns: int = 8) -> None:
    starts = range(0, len(pictures), columns)
    rows = [np.concatenate(list(_padded(pictures[i : i + columns], columns)), 1) for i in starts]
    picture = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode(path.suffix, picture)[1].tobytes())


def _padded(pictures: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
    yield from pictures
    yield from (np.zeros_like(pictures[0]) for _ in range(count - len(pictures)))
