"""True meshes and joints of samples, in the camera frame, from a set's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from wholebody.body.assets import BodyArrays, find_body, read_body_file
from wholebody.body.layer import BodyModel
from wholebody.data.sample import Sample, axis_angle_to_matrix
from wholebody.errors import BadInput
from wholebody.evaluation.smpl import SmplBody


class TrueBodies:
    """Meshes of a set's parameters, with the body file of each person's gender, loaded when first needed."""

    def __init__(self, folder: str | Path, known: BodyModel | None = None, arrays: BodyArrays | None = None) -> None:
        """folder: where the SMPL-X files lie (and `smpl/` beside them). known: a body that need not be loaded again,
        and the arrays of its file."""
        self.folder = Path(folder)
        self._smplx: dict[str, tuple[BodyModel, np.ndarray]] = {}  # by gender; with its relaxed hands (30, 3)
        self._smpl: dict[str, SmplBody] = {}
        if known is not None and arrays is not None:
            self._smplx[arrays.gender] = known, _relaxed_hands(arrays)

    def vertices(self, samples: Sequence[Sample]) -> np.ndarray:
        """SMPL-X meshes (B, V, 3) of samples with parameters."""
        rows: list[np.ndarray] = []
        for sample in samples:
            if sample.body != "smplx":
                raise BadInput(
                    f"{sample.dataset} {sample.id}: has parameters of the body {sample.body!r}, not of SMPL-X"
                )
            check_parameters(sample)
            rows.append(self._mesh(sample))
        return np.stack(rows)

    def _mesh(self, sample: Sample) -> np.ndarray:
        # One at a time: genders and hand conventions differ within a batch, and this is a small part of the work.
        body, relaxed_hands = self._body(sample.gender)
        pose = np.array(sample.full_pose, np.float64)
        if not sample.flat_hand:
            pose[25:] += relaxed_hands
        numbers = (axis_angle_to_matrix(pose), sample.betas, sample.expression, sample.transl)
        tensors = [torch.as_tensor(np.asarray(n)).to(body.template)[None] for n in numbers]
        with torch.inference_mode():
            if sample.extrinsic_rotation is not None:
                pelvis = body.rest_pelvis(tensors[1], tensors[2])[0].double().cpu().numpy()
                tensors[3] = torch.as_tensor(sample.transl_cam(pelvis)).to(tensors[3])[None]
            return body.from_matrices(*tensors).vertices[0].cpu().numpy()

    def _body(self, gender: str) -> tuple[BodyModel, np.ndarray]:
        if gender not in self._smplx:
            arrays = read_body_file(find_body(self.folder, gender))
            if arrays.name != "smplx":
                raise BadInput(
                    f"the truth of this set is given as SMPL-X, and {self.folder} holds the body {arrays.name!r}: name "
                    "the folder with the SMPL-X files with --body"
                )
            # Rotations go in as matrices, hands complete: the body's own convention does not matter.
            self._smplx[gender] = BodyModel(arrays), _relaxed_hands(arrays)
        return self._smplx[gender]

    def smpl_joints(self, samples: Sequence[Sample]) -> tuple[np.ndarray | None, np.ndarray]:
        """Of SMPL parameters the 14 body joints (B, 14, 3) by the regressor that the benchmarks share, None where that
        is not there; and SMPL's own joints (B, 24, 3)."""
        shared: list[np.ndarray] = []
        own = []
        for sample in samples:
            if sample.body != "smpl":
                raise BadInput(
                    f"{sample.dataset} {sample.id}: has parameters of {sample.body or 'no body'!r}, not of SMPL"
                )
            check_parameters(sample)
            if sample.gender not in self._smpl:
                self._smpl[sample.gender] = SmplBody.load(self.folder, sample.gender)
            body = self._smpl[sample.gender]
            mesh = body.mesh(sample)
            own.append(body.own_joints(mesh))
            if body.regressor_14 is not None:
                shared.append(body.regressor_14 @ mesh)
        return (np.stack(shared) if len(shared) == len(own) else None), np.stack(own)


def _relaxed_hands(arrays: BodyArrays) -> np.ndarray:
    return np.concatenate([arrays.left_hand_mean, arrays.right_hand_mean])


def check_parameters(sample: Sample) -> None:
    """BadInput if a number of the truth is not finite."""
    for name in ("full_pose", "betas", "expression", "transl"):
        if not np.isfinite(getattr(sample, name)).all():
            raise BadInput(
                f"{sample.dataset} {sample.id}: {name} of the true parameters is not finite; the annotation file is "
                "damaged, fetch it again"
            )
