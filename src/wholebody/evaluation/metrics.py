"""How far predicted bodies are from the truth, in millimetres, as the published benchmarks measure it.

All functions are pure, take metres as torch tensors or numpy arrays (batched in front), and give back what they were
given. "PA" is after the best similarity transform (scale, rotation, translation), per sample and per part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wholebody.body.assets import SKIN_POINT_VERTICES, BodyArrays
from wholebody.body.joints import LEFT_HAND_JOINTS, RIGHT_HAND_JOINTS, SKIN_POINTS, SMPLX_JOINTS, index
from wholebody.errors import AssetMissing, BadInput
from wholebody.files.npz import read_npy
from wholebody.files.unpickle import as_array, as_dense, read_pickle
from wholebody.geometry.similarity import aligned, similarity

MILLIMETRES = 1000.0
_FINGERS = ("thumb", "index", "middle", "ring", "pinky")
BODY_14 = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top"),
)
"""The benchmarks' body joints (LSP's), in the order of `SMPLX_to_J14.pkl`."""


def similarity_transform(source: Any, target: Any) -> tuple[Any, Any, Any]:
    """Scale (...), rotation (..., 3, 3) and translation (..., 3) that bring `source` (..., N, 3) closest to `target`.

    Closest in the sum of squared distances (Umeyama); never a reflection. `source` needs some extent: points that all
    coincide have no scale, and give NaN.
    """
    (source, target), give_back = _tensors(source, target)
    scale, rotation, translation = similarity(source, target)
    return give_back(scale), give_back(rotation), give_back(translation)


def rigid_align(source: Any, target: Any) -> Any:
    """`source` (..., N, 3) after the similarity transform that brings it closest to `target`."""
    (source, target), give_back = _tensors(source, target)
    return give_back(aligned(source, target))


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
    return give_back(_distance(aligned(joints, truth), truth))


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
            face = read_npy(folder / "SMPL-X__FLAME_vertex_ids.npy")
            left, right = (as_array(as_dense(hands[f"{side}_hand"])).astype(np.int64) for side in ("left", "right"))
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"the vertex numbers in {folder} are not those of the SMPL-X site ({error})") from error
        try:
            body = as_array(as_dense(read_pickle(j14))).astype(np.float64) if j14.is_file() else None
        except (TypeError, ValueError) as error:
            raise BadInput(f"{j14} holds no matrix of numbers ({error}); fetch it again") from error
        return MeshParts(arrays.joint_regressor, left, right, face.astype(np.int64), body_regressor=body)

    @property
    def num_vertices(self) -> int:
        return self.joint_regressor.shape[1]

    def hand_regressor(self, side: str) -> np.ndarray:
        """Wrist, and of each finger three joints and the tip, from vertices: (21, V)."""
        tips = np.zeros((5, self.num_vertices))
        tips[np.arange(5), [SKIN_POINT_VERTICES[SKIN_POINTS.index(f"{side}_{f}_tip")] for f in _FINGERS]] = 1
        rows = [self.joint_regressor[SMPLX_JOINTS.index(f"{side}_wrist")]]
        for tip, finger in zip(tips, _FINGERS, strict=True):
            rows += [*self.joint_regressor[index([f"{side}_{finger}{k}" for k in (1, 2, 3)], SMPLX_JOINTS)], tip]
        return np.stack(rows)

    def roots(self, vertices: Tensor) -> Tensor:
        """Pelvis, left wrist, right wrist and neck (B, 4, 3) of meshes (B, V, 3)."""
        return self.joints(vertices, "roots")

    def joints(self, vertices: Tensor, which: str) -> Tensor:
        """Joints (B, J, 3) float64 of meshes (B, V, 3); which: "roots", "own" (SMPL-X's first 22), "left_hand",
        "right_hand" (21) or "body" (14)."""
        ids, weights = (torch.as_tensor(a, device=vertices.device) for a in self._sparse[which])
        # Regressors are nearly all zeros: read the few vertices that they name.
        return (vertices[:, ids].double() * weights[..., None]).sum(2)

    @cached_property
    def _sparse(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Of each joint the vertices with weight and these weights, padded with zeros: (J, K) each."""
        roots = index(("pelvis", "left_wrist", "right_wrist", "neck"), SMPLX_JOINTS)
        dense = {"roots": self.joint_regressor[roots], "own": self.joint_regressor[:22]}
        dense |= {f"{side}_hand": self.hand_regressor(side) for side in ("left", "right")}
        if self.body_regressor is not None:
            dense["body"] = self.body_regressor
        sparse = {}
        for name, rows in dense.items():
            order = np.argsort(rows == 0, axis=1, kind="stable")[:, : max(1, int((rows != 0).sum(1).max()))]
            sparse[name] = order, np.take_along_axis(rows, order, 1).astype(np.float64)
        return sparse


def mesh_errors_mm(
    vertices: Any, truth: Any, parts: MeshParts, valid: Any = None, each_hand: bool = False
) -> dict[str, Any]:
    """The AGORA (validation) measures of meshes (B, V, 3), each (B,): `mpvpe_{all,hand,face}` and `pa_mpvpe_...`.

    MPVPE moves the prediction so that the pelvis (all), the wrist (hand) or the neck (face) coincides. Hands are the
    mean of both. `valid` (B, V) bool counts only some vertices, as UBody does (alignment uses all): a hand of which
    none counts is left out, and where nothing counts the error is NaN. `each_hand`: also `mpvpe_l_hand`, `..._r_hand`.
    """
    (vertices, truth), give_back = _tensors(vertices, truth, keep_types=True)
    _check_meshes(vertices, truth, parts)
    shift = parts.roots(truth) - parts.roots(vertices)  # (B, 4, 3)
    everything = np.arange(parts.num_vertices)
    errors = {}
    for name, ids, root in (
        ("all", everything, 0),
        ("left_hand", parts.left_hand, 1),
        ("right_hand", parts.right_hand, 2),
        ("face", parts.face, 3),
    ):
        counted = None if valid is None else torch.as_tensor(valid)
        moved, after = _part_errors(vertices, truth, ids, shift[:, root], counted)
        errors[f"mpvpe_{name}"], errors[f"pa_mpvpe_{name}"] = moved, after
    for measure in ("mpvpe", "pa_mpvpe"):
        hands = torch.stack([errors.pop(f"{measure}_{side}_hand") for side in ("left", "right")])
        if each_hand:
            errors |= {f"{measure}_l_hand": hands[0], f"{measure}_r_hand": hands[1]}
        errors[f"{measure}_hand"] = _mean_of_known(hands, skip=valid is not None)
    return {name: give_back(value) for name, value in sorted(errors.items())}


def joint_errors_mm(
    vertices: Any, truth: Any, parts: MeshParts, joint_valid: Any = None, each_hand: bool = False
) -> dict[str, Any]:
    """`pa_mpjpe_body` (14 joints) and `pa_mpjpe_hand` (wrist, finger joints and tips; mean of both), each (B,), of
    joints read off meshes (B, V, 3).

    The body's need `parts.body_regressor` and are left out without it. `joint_valid`: a function from joints (B, J, 3)
    of the truth to (B, J) bool, to count only some. `each_hand`: also `pa_mpjpe_l_hand`, `..._r_hand`.
    """
    (vertices, truth), give_back = _tensors(vertices, truth, keep_types=True)
    _check_meshes(vertices, truth, parts)
    errors = {}
    names = ["left_hand", "right_hand"] + ["body"] * (parts.body_regressor is not None)
    for name in names:
        found, true = parts.joints(vertices, name), parts.joints(truth, name)
        counted = None if joint_valid is None else torch.as_tensor(joint_valid(give_back(true)), device=true.device)
        nowhere = torch.zeros_like(found[:, 0])
        errors[name] = _part_errors(found, true, np.arange(found.shape[1]), nowhere, counted)[1]
    hands = torch.stack([errors.pop("left_hand"), errors.pop("right_hand")])
    if each_hand:
        errors |= {"l_hand": hands[0], "r_hand": hands[1]}
    errors = {"pa_mpjpe_hand": _mean_of_known(hands, skip=joint_valid is not None)} | {
        f"pa_mpjpe_{name}": value for name, value in errors.items()
    }
    return {name: give_back(value) for name, value in sorted(errors.items())}


_SHARED = (
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "neck", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
OWN_14 = [SMPLX_JOINTS.index(name) for name in _SHARED]
"""The 14 joints that SMPLer-X measures 3DPW by: SMPL's own, which SMPL-X has under the same numbers."""


def own_joint_errors_mm(joints: Any, truth: Any) -> dict[str, Any]:
    """SMPLer-X's measures of 3DPW, from the bodies' own joints (B, 22 or more, 3), the pelvis first: `mpjpe_own`, the
    pelvis moved onto the other, and `pa_mpjpe_own`; each (B,), over the 14 of `OWN_14`."""
    (joints, truth), give_back = _tensors(joints, truth)
    moved = joints - joints[:, :1] + truth[:, :1]
    rows = OWN_14
    return {
        "mpjpe_own": give_back(_distance(moved[:, rows], truth[:, rows])),
        "pa_mpjpe_own": give_back(pa_mpjpe_mm(joints[:, rows], truth[:, rows])),
    }


def body_joint_errors_mm(joints: Any, truth: Any) -> dict[str, Any]:
    """3DPW's measures of 14 joints (B, 14, 3) in the order of `BODY_14`: `mpjpe_body`, the middle of the hips moved
    onto each other, and `pa_mpjpe_body`; each (B,)."""
    (joints, truth), give_back = _tensors(joints, truth)
    hips = [BODY_14.index("right_hip"), BODY_14.index("left_hip")]
    moved = joints - joints[:, hips].mean(1, keepdim=True) + truth[:, hips].mean(1, keepdim=True)
    return {"mpjpe_body": give_back(_distance(moved, truth)), "pa_mpjpe_body": give_back(pa_mpjpe_mm(joints, truth))}


def _check_meshes(vertices: Tensor, truth: Tensor, parts: MeshParts) -> None:
    if vertices.shape != truth.shape or vertices.shape[-2] != parts.num_vertices:
        raise BadInput(
            f"meshes of {tuple(vertices.shape)} and {tuple(truth.shape)} cannot be compared by a body of "
            f"{parts.num_vertices} vertices: predict and measure with the same body"
        )


def _part_errors(
    vertices: Tensor, truth: Tensor, ids: np.ndarray, shift: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mean distances (B,) in mm of some vertices of meshes (B, V, 3): `shift` (B, 3) added, and aligned."""
    if vertices.device.type == "cpu" and not (vertices.requires_grad or truth.requires_grad):
        from wholebody.evaluation.kernels import part_errors

        counted = None if valid is None else np.ascontiguousarray(valid.cpu().numpy(), bool)
        both = part_errors(vertices.numpy(), truth.numpy(), ids, shift.double().numpy(), counted) * MILLIMETRES
        moved, after = torch.from_numpy(both).to(_precision(vertices, truth)).unbind(1)
        return moved, after
    rows = torch.as_tensor(ids, device=vertices.device)
    dtype = _precision(vertices, truth)
    ours, theirs = vertices[:, rows].to(dtype), truth[:, rows].to(dtype)
    counted_rows = None if valid is None else valid.to(vertices.device)[:, rows]
    moved = mean_distance_mm(ours + shift[:, None].to(dtype), theirs, counted_rows)
    return moved, mean_distance_mm(aligned(ours, theirs), theirs, counted_rows)


def _precision(*tensors: Tensor) -> torch.dtype:
    return _widest([tensor.dtype for tensor in tensors])


def _mean_of_known(hands: Tensor, skip: bool) -> Tensor:
    """The mean of both hands (2, B) -> (B,); with `skip`, of the one that has an error where the other is NaN."""
    return torch.nanmean(hands, 0) if skip else hands.mean(0)


def _distances(points: Tensor, truth: Tensor) -> Tensor:
    return torch.linalg.vector_norm(points - truth, dim=-1) * MILLIMETRES


def _distance(points: Tensor, truth: Tensor) -> Tensor:
    return _distances(points, truth).mean(-1)


def _tensors(*arrays: Any, keep_types: bool = False) -> tuple[list[Tensor], Any]:
    """The arrays as float tensors of one type (with `keep_types`: each single or double as it came) on the device of
    the first, and the way back to what the first of them was."""
    tensors = [a if isinstance(a, Tensor) else torch.as_tensor(np.asarray(a)) for a in arrays]
    dtypes = [torch.promote_types(torch.float32, tensor.dtype) for tensor in tensors]
    if not keep_types:
        dtypes = [_widest(dtypes)] * len(tensors)
    tensors = [tensor.to(tensors[0].device, dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    if isinstance(arrays[0], Tensor):
        return tensors, lambda tensor: tensor
    return tensors, lambda tensor: tensor.numpy()


def _widest(dtypes: list[torch.dtype]) -> torch.dtype:
    return torch.float64 if torch.float64 in dtypes else torch.float32
