"""How far predicted bodies are from the truth, in millimetres, as the published benchmarks measure it.

All functions are pure, take metres as torch tensors or numpy arrays (batched in front), and give back what they were
given. "PA" is after the best similarity transform (scale, rotation, translation), per sample and per part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.body.assets import SKIN_POINT_VERTICES, BodyArrays, as_dense, read_pickle
from wholebody.body.joints import LEFT_HAND_JOINTS, RIGHT_HAND_JOINTS, SKIN_POINTS, SMPLX_JOINTS, index
from wholebody.errors import AssetMissing, BadInput

MILLIMETRES = 1000.0
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")


def similarity_transform(source: Any, target: Any) -> tuple[Any, Any, Any]:
    """Scale (...), rotation (..., 3, 3) and translation (..., 3) that bring `source` (..., N, 3) closest to `target`.

    Closest in the sum of squared distances (Umeyama); never a reflection. `source` needs some extent: points that all
    coincide have no scale, and give NaN.
    """
    (source, target), give_back = _tensors(source, target)
    scale, rotation, translation = _similarity(source, target)
    return give_back(scale), give_back(rotation), give_back(translation)


def _similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    covariance = (source - source_mean).mT @ (target - target_mean) / source.shape[-2]
    u, stretch, vt = torch.linalg.svd(covariance)
    # A reflection would fit better: turn the weakest axis round instead.
    sign = torch.ones_like(stretch)
    sign[..., 2] = torch.where(torch.linalg.det(u) * torch.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = vt.mT @ (sign[..., None] * u.mT)
    variance = (source - source_mean).square().mean(-2).sum(-1)
    scale = (stretch * sign).sum(-1) / variance
    translation = target_mean[..., 0, :] - scale[..., None] * (rotation @ source_mean.mT)[..., 0]
    return scale, rotation, translation


def rigid_align(source: Any, target: Any) -> Any:
    """`source` (..., N, 3) after the similarity transform that brings it closest to `target`."""
    (source, target), give_back = _tensors(source, target)
    return give_back(_aligned(source, target))


def _aligned(source: Tensor, target: Tensor) -> Tensor:
    scale, rotation, translation = _similarity(source, target)
    return scale[..., None, None] * (source @ rotation.mT) + translation[..., None, :]


def mean_distance_mm(points: Any, truth: Any, valid: Any = None) -> Any:
    """The mean distance (...) in mm between points (..., N, 3) and their truth; `valid` (..., N) leaves some out.

    Where no point is valid the result is NaN, not zero: there is nothing to measure.
    """
    (points, truth), give_back = _tensors(points, truth)
    if valid is None:
        return give_back(_distance(points, truth))
    weight = torch.as_tensor(valid, device=points.device).to(points.dtype)
    return give_back((_distances(points, truth) * weight).sum(-1) / weight.sum(-1))


def mpjpe_mm(joints: Any, truth: Any, root: int | None = None) -> Any:
    """Mean per-joint position error (...) in mm of joints (..., N, 3), both moved so that joint `root` coincides."""
    (joints, truth), give_back = _tensors(joints, truth)
    if root is not None:
        joints, truth = joints - joints[..., root, None, :], truth - truth[..., root, None, :]
    return give_back(_distance(joints, truth))


def pa_mpjpe_mm(joints: Any, truth: Any) -> Any:
    """Mean per-joint position error (...) in mm of joints (..., N, 3) after rigid alignment."""
    (joints, truth), give_back = _tensors(joints, truth)
    return give_back(_distance(_aligned(joints, truth), truth))


def pa_mpvpe_mm(vertices: Any, truth: Any) -> Any:
    """Mean per-vertex position error (...) in mm of vertices (..., V, 3) after rigid alignment."""
    return pa_mpjpe_mm(vertices, truth)


@dataclass(frozen=True, eq=False)
class MeshParts:
    """What a body's mesh is measured by: joints from vertices, and which vertices are the hands and the face."""

    joint_regressor: np.ndarray  # (55, V)
    left_hand: np.ndarray  # vertex numbers, int64
    right_hand: np.ndarray
    face: np.ndarray
    body_regressor: np.ndarray | None = None  # (14, V): the benchmarks' body joints, where the licensed file is there

    @staticmethod
    def of(arrays: BodyArrays) -> MeshParts:
        """Parts from the skinning alone, for the open body: what follows the wrist and fingers, and the head."""
        leader = arrays.weights.argmax(1)

        def led_by(*names: str) -> np.ndarray:
            return np.nonzero(np.isin(leader, index(names, SMPLX_JOINTS)))[0]

        return MeshParts(
            joint_regressor=arrays.joint_regressor,
            left_hand=led_by("left_wrist", *LEFT_HAND_JOINTS),
            right_hand=led_by("right_wrist", *RIGHT_HAND_JOINTS),
            face=led_by("head", "jaw", "left_eyeball", "right_eyeball"),
        )

    @staticmethod
    def published(arrays: BodyArrays, folder: str | Path) -> MeshParts:
        """The benchmarks' parts of SMPL-X: `MANO_SMPLX_vertex_ids.pkl`, `SMPL-X__FLAME_vertex_ids.npy` and, if there,
        `SMPLX_to_J14.pkl` in `folder` (all from the SMPL-X site)."""
        folder = Path(folder)
        for name in ("MANO_SMPLX_vertex_ids.pkl", "SMPL-X__FLAME_vertex_ids.npy"):
            if not (folder / name).is_file():
                raise AssetMissing(
                    f"the benchmarks need {name} in {folder}: register at https://smpl-x.is.tue.mpg.de, download "
                    "'MANO and FLAME vertex indices' and put it there"
                )
        hands = read_pickle(folder / "MANO_SMPLX_vertex_ids.pkl")
        j14 = folder / "SMPLX_to_J14.pkl"
        try:
            face = np.load(folder / "SMPL-X__FLAME_vertex_ids.npy", allow_pickle=False)
            left, right = (np.asarray(as_dense(hands[f"{side}_hand"]), np.int64) for side in ("left", "right"))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"the vertex numbers in {folder} are not those of the SMPL-X site ({error})") from error
        body = np.asarray(as_dense(read_pickle(j14)), np.float64) if j14.is_file() else None
        return MeshParts(arrays.joint_regressor, left, right, face.astype(np.int64), body_regressor=body)

    def hand_regressor(self, side: str) -> np.ndarray:
        """Wrist, and of each finger three joints and the tip, from vertices: (21, V)."""
        tips = np.zeros((5, self.joint_regressor.shape[1]))
        tips[np.arange(5), [SKIN_POINT_VERTICES[SKIN_POINTS.index(f"{side}_{f}_tip")] for f in _FINGERS]] = 1
        rows = [self.joint_regressor[SMPLX_JOINTS.index(f"{side}_wrist")]]
        for tip, finger in zip(tips, _FINGERS, strict=True):
            rows += [*self.joint_regressor[index([f"{side}_{finger}{k}" for k in (1, 2, 3)], SMPLX_JOINTS)], tip]
        return np.stack(rows)


def mesh_errors_mm(vertices: Any, truth: Any, parts: MeshParts) -> dict[str, Any]:
    """The AGORA (validation) measures of meshes (B, V, 3), each (B,): `mpvpe_{all,hand,face}` and `pa_mpvpe_...`.

    MPVPE moves the prediction so that the pelvis (all), the wrist (hand) or the neck (face) coincides. Hands are the
    mean of both.
    """
    (vertices, truth), give_back = _tensors(vertices, truth)
    if vertices.shape != truth.shape or vertices.shape[-2] != parts.joint_regressor.shape[1]:
        raise BadInput(
            f"meshes of {tuple(vertices.shape)} and {tuple(truth.shape)} cannot be compared by a body of "
            f"{parts.joint_regressor.shape[1]} vertices: predict and measure with the same body"
        )
    roots = index(("pelvis", "left_wrist", "right_wrist", "neck"), SMPLX_JOINTS)
    regressor = torch.as_tensor(parts.joint_regressor[roots]).to(vertices)
    shift = regressor @ truth - regressor @ vertices  # (B, 4, 3)
    errors = {}
    for name, vertex_ids, root in (
        ("all", None, 0),
        ("left_hand", parts.left_hand, 1),
        ("right_hand", parts.right_hand, 2),
        ("face", parts.face, 3),
    ):
        ours, theirs = (m if vertex_ids is None else m[:, vertex_ids] for m in (vertices, truth))
        errors[f"mpvpe_{name}"] = _distance(ours + shift[:, root, None], theirs)
        errors[f"pa_mpvpe_{name}"] = _distance(_aligned(ours, theirs), theirs)
    for measure in ("mpvpe", "pa_mpvpe"):
        left, right = errors.pop(f"{measure}_left_hand"), errors.pop(f"{measure}_right_hand")
        errors[f"{measure}_hand"] = (left + right) / 2
    return {name: give_back(value) for name, value in sorted(errors.items())}


def ehf_errors_mm(vertices: Any, truth: Any, parts: MeshParts, camera_from_world: Any) -> dict[str, Any]:
    """The EHF measures of meshes (B, V, 3): those of `mesh_errors_mm` and `pa_mpjpe_{body,hand}`, each (B,).

    EHF's scans stand in the world: `camera_from_world` (3, 3) turns them into the camera's frame first. The body joints
    need `parts.body_regressor` and are left out without it.
    """
    (vertices, truth), give_back = _tensors(vertices, truth)
    truth = truth @ torch.as_tensor(camera_from_world).to(truth).mT
    errors = mesh_errors_mm(vertices, truth, parts)
    regressors = {side: parts.hand_regressor(side) for side in ("left", "right")}
    hands = [_pa_of_joints(vertices, truth, regressor) for regressor in regressors.values()]
    errors["pa_mpjpe_hand"] = (hands[0] + hands[1]) / 2
    if parts.body_regressor is not None:
        errors["pa_mpjpe_body"] = _pa_of_joints(vertices, truth, parts.body_regressor)
    return {name: give_back(value) for name, value in sorted(errors.items())}


def _pa_of_joints(vertices: Tensor, truth: Tensor, regressor: np.ndarray) -> Tensor:
    rows = torch.as_tensor(regressor).to(vertices)
    return _distance(_aligned(rows @ vertices, rows @ truth), rows @ truth)


def _distances(points: Tensor, truth: Tensor) -> Tensor:
    return torch.linalg.vector_norm(points - truth, dim=-1) * MILLIMETRES


def _distance(points: Tensor, truth: Tensor) -> Tensor:
    return _distances(points, truth).mean(-1)


def _tensors(*arrays: Any) -> tuple[list[Tensor], Any]:
    """The arrays as float tensors of one type, and the way back to what the first of them was."""
    tensors = [a if isinstance(a, Tensor) else torch.as_tensor(np.asarray(a)) for a in arrays]
    dtype = torch.promote_types(torch.float32, tensors[0].dtype)
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    tensors = [tensor.to(tensors[0].device, dtype) for tensor in tensors]
    if isinstance(arrays[0], Tensor):
        return tensors, lambda tensor: tensor
    return tensors, lambda tensor: tensor.numpy()
