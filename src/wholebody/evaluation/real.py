"""Errors on real photos with measured joints: a folder with `real3d.json` and its pictures.

The JSON names the joints (`joint_names`) and lists frames: `image`, `box_xywh` (pixels) and `joints_mm` (J×3, in any
coordinates: only what is left after rigid alignment is measured).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS, index
from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation.metrics import pa_mpjpe_mm
from wholebody.files.image import read_image
from wholebody.model.network import Network
from wholebody.people.predictor import Predictor


def measure_real(model: Network, folder: str | Path) -> dict[str, float]:
    """PA-MPJPE in mm of each frame, by picture name; their `mean`; `constant_mean`: of one standing pose for all."""
    folder = Path(folder)
    path = folder / "real3d.json"
    if not path.is_file():
        raise AssetMissing(f"no real3d.json in {folder}; give the folder that holds it and its pictures with --root")
    try:
        data = json.loads(path.read_text())
        names, frames = data["joint_names"], data["frames"]
    except (ValueError, KeyError) as error:
        raise BadInput(f"{path}: not a list of frames with joints ({error!r})") from error
    rows = index(names, SMPLX_JOINTS)
    predictor = Predictor(model)
    standing = _standing_joints()[rows]
    errors, constant = {}, []
    for frame in frames:
        x, y, width, height = frame["box_xywh"]
        person = predictor(read_image(folder / frame["image"]), boxes=[[x, y, x + width, y + height]])[0]
        truth = np.asarray(frame["joints_mm"]) / 1000
        errors[frame["image"]] = float(pa_mpjpe_mm(person.joints_cam[rows].astype(np.float64), truth))
        constant.append(float(pa_mpjpe_mm(standing.astype(np.float64), truth)))
    return {**errors, "mean": float(np.mean(list(errors.values()))), "constant_mean": float(np.mean(constant))}


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
