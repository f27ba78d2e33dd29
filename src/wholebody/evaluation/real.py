"""Errors on real photos with measured joints: a folder with `real3d.json` and its pictures.

The JSON names the joints (`joint_names`) and lists frames: `image`, `box_xywh` (pixels) and `joints_mm` (J×3, in any
coordinates: only what is left after rigid alignment is measured). A frame whose measured skeleton does not lie on the
person says `"sound": false`: it is shown, and counts in a figure of its own alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS, index
from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation.metrics import pa_mpjpe_mm
from wholebody.evaluation.result import Network, Result, Row
from wholebody.evaluation.testset import Figure, Found, parameters_of, thinned
from wholebody.files.image import read_image
from wholebody.files.json_stream import read_json
from wholebody.files.npz import DAMAGED
from wholebody.geometry.crop import fit_box
from wholebody.people.predictor import Predictor

MEASURES = ("pa_mpjpe_limbs", "pa_mpjpe_limbs_unsound", "constant_pose")
"""PA-MPJPE over the measured joints of sound frames, of the others, and that of one standing pose on sound frames."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A photo of one person, and where some of their joints are."""

    image: str
    box_xyxy: np.ndarray  # (4,) pixels
    joints_m: np.ndarray  # (J, 3) in any coordinates
    sound: bool = True  # the measured joints are the person's


class RealPhotos:
    """The photos of a folder with `real3d.json`."""

    name, title = "real", "Real photos with measured joints"

    def __init__(self, folder: str | Path, limit: int | None = None, every: int | None = None) -> None:
        self.folder, self.limit, self.every = Path(folder), limit, every
        path = self.folder / "real3d.json"
        if not path.is_file():
            raise AssetMissing(
                f"no real3d.json in {self.folder}; give the folder that holds it and its pictures with --root"
            )
        try:
            data = read_json(path)
            self.rows = np.array(index(tuple(data["joint_names"]), SMPLX_JOINTS))
            self.frames = [self._frame(frame) for frame in data["frames"]]
        except DAMAGED as error:
            raise BadInput(f"{path}: not a list of frames with joints ({error!r})") from error

    def _frame(self, frame: dict[str, Any]) -> Frame:
        x, y, width, height = map(float, frame["box_xywh"])
        joints = np.asarray(frame["joints_mm"], np.float64).reshape(len(self.rows), 3) / 1000
        sound = frame.get("sound", True)
        if not isinstance(sound, bool):
            raise TypeError(f"`sound` is {sound!r}, neither true nor false")
        return Frame(str(frame["image"]), np.array([x, y, x + width, y + height]), joints, sound)

    def check(self, models: Sequence[Any]) -> None:
        """Joints are compared by name, of any body."""

    def people(self) -> Iterator[Frame]:
        return thinned(self.frames, self.every, self.limit)

    def found(self, models: Sequence[Any], people: Iterable[Frame], batch_size: int) -> Iterator[list[Found]]:
        predictors = [Predictor(model, batch_size=batch_size) for model in models]
        standing = _standing_joints()[self.rows].astype(np.float64)
        for frame in people:
            image = read_image(self.folder / frame.image)
            constant = float(pa_mpjpe_mm(standing, frame.joints_m))
            of_all = []
            for predictor in predictors:
                (person,) = predictor(image, boxes=[frame.box_xyxy.tolist()])
                error = float(pa_mpjpe_mm(person.joints_cam[self.rows].astype(np.float64), frame.joints_m))
                figures = (error, math.nan, constant) if frame.sound else (math.nan, error, math.nan)
                row = Row(frame.image, frame.image, "", dict(zip(MEASURES, figures, strict=True)))
                of_all.append(Found(row, parameters_of(person)))
            yield of_all

    def result(self, names: Sequence[tuple[str, str]], found: Sequence[Sequence[Found]]) -> Result:
        if not found[0]:
            raise BadInput(f"{self.folder / 'real3d.json'} lists no frames")
        networks = [Network(*name, [one.row for one in rows]) for name, rows in zip(names, found, strict=True)]
        note = (
            f"{len(self.rows)} joints, measured by other means than pictures, after the best similarity transform; "
            "boxes given. constant pose: of one standing pose for everybody. unsound: of frames whose measured joints "
            "do not lie on the person; they count in no other figure."
        )
        return Result(self.name, self.title, note, "mm", MEASURES, networks)

    def figures(self, models: Sequence[Any], result: Result, each: int) -> list[Figure]:
        from wholebody.evaluation.gallery import Shown, draw

        def show(model: Any, frame: Frame) -> Shown:
            image = read_image(self.folder / frame.image)
            (person,) = Predictor(model)(image, boxes=[frame.box_xyxy.tolist()])
            crop_box = fit_box(frame.box_xyxy, enlarge=model.config.box_enlarge)
            return Shown(
                image, crop_box, person.vertices_cam, model.body.faces.cpu().numpy(),
                person.focal_px, person.principal_px,
            )  # fmt: skip

        return draw(models, result, self.people(), show, each)


def _standing_joints() -> np.ndarray:
    """The 55 joints (metres) of the mean open body, arms hanging."""
    import torch

    body_pose = torch.zeros(1, 21, 3)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        body_pose[0, SMPLX_JOINTS.index(f"{side}_shoulder") - 1, 2] = sign * 1.2
    zero = torch.zeros(1, 10)
    output = BodyModel.load()(
        betas=zero,
        expression=zero,
        global_orient=torch.zeros(1, 3),
        body_pose=body_pose,
        left_hand_pose=torch.zeros(1, 15, 3),
        right_hand_pose=torch.zeros(1, 15, 3),
        jaw_pose=torch.zeros(1, 3),
    )
    # The body looks along +z with y up; a camera sees it with y down.
    return output.joints[0, :55].numpy() * [1, -1, -1]
