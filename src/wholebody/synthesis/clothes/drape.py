"""Puts worn items on posed people: from rest shapes to one mesh of skin and clothes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.kinematics import pose_arrays
from wholebody.body.layer import BodyModel
from wholebody.drawing.compiled import compiled
from wholebody.synthesis.clothes import paint_kernels as p
from wholebody.synthesis.clothes import worn_kernels as gm
from wholebody.synthesis.clothes.outfit import Worn
from wholebody.synthesis.clothes.paint_kernels import noise4

_DRAW_IN_M = 0.012  # how far skin is pulled in under cloth
_HIDDEN_MARGIN_M = 0.015  # skin this near to where cloth is cut off stays


@dataclass(frozen=True)
class Poses:
    """How each joint moves its surroundings: `coefficients` (B,20) of shape and expression, `transforms` (B,55,3,4)
    from the resting to the posed body."""

    coefficients: np.ndarray
    transforms: np.ndarray


def pose_joints(body: BodyModel, rotations: np.ndarray, betas: np.ndarray, expression: np.ndarray) -> Poses:
    """The transforms of local rotations (B,55,3,3) for these shapes."""
    coefficients = np.concatenate([betas, expression], 1).astype(np.float32)
    rest = body.rest_joints.numpy() + (coefficients @ body.joint_directions.numpy()).reshape(-1, 55, 3)
    turn, place = pose_arrays(rotations.astype(np.float32), rest)
    shift = place - (turn @ rest[..., None])[..., 0]
    return Poses(coefficients, np.ascontiguousarray(np.concatenate([turn, shift[..., None]], -1), np.float32))


@dataclass(frozen=True)
class Dressed:
    """Skin and what is worn as one mesh. N points of which the first V are the body's; `rest` (N,3) places on the
    resting body; `faces` (F,3): first those of the skin that is seen, then `first[k]` .. `first[k + 1]` of item k;
    `uv` (T,2), `uv_faces` (F - first[0], 3); `rows`, `looks` per item."""

    points: np.ndarray
    rest: np.ndarray
    faces: np.ndarray
    first: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    rows: np.ndarray
    looks: np.ndarray
    worn: Sequence[Worn]
    starts: np.ndarray  # of each item's points
    draws_in: np.ndarray  # V


class Dresser:
    """Knows the open body's skinning, to find what its pose correctives do to the clothes."""

    def __init__(self, compact: Mapping[str, np.ndarray], body: Mapping[str, np.ndarray], faces: np.ndarray):
        self.rest = np.ascontiguousarray(body["v_template"], np.float32)
        self.dirs = np.ascontiguousarray(body["shapedirs"], np.float32)
        self.joints = compact["skin_joints"].astype(np.int32)
        weights = compact["skin_weights"].astype(np.float32)
        self.weights = weights / weights.sum(1, keepdims=True)
        self.faces = faces

    def dress(self, vertices: np.ndarray, offset: np.ndarray, poses: Poses, k: int, worn: Sequence[Worn]) -> Dressed:
        """Person k of `poses`, whose posed skin is `vertices` (V,3), moved by `offset` (3,)."""
        count = len(vertices)
        coefficients, transforms = poses.coefficients[k], poses.transforms[k]
        offset = offset.astype(np.float32)
        known, moves = np.zeros(count, np.bool_), np.zeros((count, 3), np.float32)
        points, rest, faces = [vertices + offset], [self.rest], []
        uv, uv_faces = [np.zeros((0, 2), np.float32)], [np.zeros((0, 3), np.int32)]
        hidden, draws_in = np.zeros(count, np.bool_), np.zeros(count, np.float32)
        starts, total, corners = [], count, 0
        for one in worn:
            item = one.item
            place = np.empty_like(item.rest)
            gm.corrections(
                item.near, self.rest, self.dirs, self.joints, self.weights, coefficients, transforms, vertices, known,
                moves,
            )  # fmt: skip
            gm.follow(
                item.rest, item.dirs, item.joints, item.weights, item.near, item.near_weights, moves, coefficients,
                transforms, offset, place,
            )  # fmt: skip
            points.append(place)
            rest.append(item.rest)
            faces.append(item.faces + total)
            uv.append(item.uv)
            uv_faces.append(item.uv_faces + corners)
            starts.append(total)
            total, corners = total + len(place), corners + len(item.uv)
            if item.hides.any():
                under = one.keep(self.rest) > _HIDDEN_MARGIN_M
                hidden |= under & (item.hides > 0)
                draws_in = np.maximum(draws_in, under * np.maximum(item.draws_in, item.hides))
        seen = self.faces[~hidden[self.faces].all(1)]
        return Dressed(
            np.ascontiguousarray(np.concatenate(points), np.float32), np.concatenate(rest),
            np.ascontiguousarray(np.concatenate([seen, *faces]), np.int32),
            np.cumsum([len(seen)] + [len(f) for f in faces]).astype(np.int64), np.concatenate(uv),
            np.concatenate(uv_faces),
            np.stack([w.row for w in worn]) if worn else np.zeros((0, p.COLUMNS), np.float32),
            np.stack([w.look for w in worn]) if worn else np.zeros((0, gm.LOOK_COLUMNS), np.float32),
            worn, np.array([*starts, total], np.int64), draws_in,
        )  # fmt: skip


def loosen(dressed: Dressed, normals: np.ndarray, lattice: np.ndarray, scale: float | np.floating) -> None:
    """Draw skin in under cloth, and move cloth off its fit with uneven folds, in place."""
    count = len(dressed.draws_in)
    dressed.points[:count] -= normals[:count] * (dressed.draws_in * np.float32(_DRAW_IN_M * scale))[:, None]
    for k, one in enumerate(dressed.worn):
        if one.puff or one.ruffle:
            part = slice(dressed.starts[k], dressed.starts[k + 1])
            _ruffle(
                dressed.points[part], normals[part], dressed.rest[part], np.float32(one.puff * scale),
                np.float32(one.ruffle * scale), one.row[p.SEED], lattice,
            )  # fmt: skip


@compiled()
def _ruffle(points, normals, rest, puff, ruffle, seed, lattice):
    for i in range(points.shape[0]):
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        n0, n1, n2, n3 = noise4(lattice, x * 9 + seed, y * 7, z * 9)
        m0, m1, m2, m3 = noise4(lattice, x * 21 + seed, y * 17, z * 21)
        move = max(puff + ruffle * (n0 + np.float32(0.5) * m0), np.float32(0))
        for c in range(3):
            points[i, c] += normals[i, c] * move


def soften_hair(dressed: Dressed, normals: np.ndarray, head: np.ndarray) -> None:
    """Turn the normals of hair half towards those of a ball around the head, in place: cards point anywhere."""
    for k, one in enumerate(dressed.worn):
        if one.look[gm.HAIR]:
            part = slice(dressed.starts[k], dressed.starts[k + 1])
            out = dressed.points[part] - head
            out /= np.linalg.norm(out, axis=1, keepdims=True) + 1e-6
            own = normals[part] * np.where((normals[part] * out).sum(1, keepdims=True) < 0, -1, 1)
            mixed = own + 1.2 * out
            normals[part] = mixed / (np.linalg.norm(mixed, axis=1, keepdims=True) + 1e-6)


HEAD = SMPLX_JOINTS.index("head")
