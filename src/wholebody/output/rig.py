"""A scene as moving skeletons in the world: what every format that moves is written from.

A body's vertex is the weighted mean of its joints' transforms, applied to a shape that pose correctives and expression
have moved. Formats for animation know the first part (a skin on a skeleton) and know shapes that are added by weight
(morph targets); here the second part is put into such shapes.

World frame: x right, y up, z towards the camera, metres, floor at y = 0 (see `people.scene`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from wholebody.body.joints import PARENTS, SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.people.scene import Motion, Scene

_SHAPE_ERROR = 3e-4  # metres that one joint's correctives may be off when they become a few morph targets
_CHUNK = 32  # frames whose meshes are held at a time
_PART = 1024  # frames whose skeletons are held at a time


@dataclass(frozen=True, eq=False)
class Placed:
    """One person's skeleton over T frames in the world, float64.

    A vertex at rest v, already shaped, goes to `sum_j weight_j (turns[t, j] v + shifts[t, j])`.
    """

    pose: np.ndarray  # (T, 55, 3) axis-angle against the flat hand; the root in the world
    transl: np.ndarray  # (T, 3) added to the posed body
    rotations: np.ndarray  # (T, 55, 3, 3) of `pose`: in the parent's frame
    turns: np.ndarray  # (T, 55, 3, 3) of each joint in the world
    joints: np.ndarray  # (T, 55, 3)
    rest_joints: np.ndarray  # (55, 3) of this shape without expression
    shifts: np.ndarray  # (T, 55, 3)


@dataclass(frozen=True, eq=False)
class MorphTarget:
    """A shape that is added to the body at rest by a weight: offsets (N, 3) in metres of vertices (N,), ascending."""

    name: str
    vertices: np.ndarray
    offsets: np.ndarray


def scene_rows(motion: Motion, scene: Scene) -> np.ndarray:
    """(T,) rows of `scene.frames` that are this person's frames."""
    rows = np.searchsorted(scene.frames, motion.frames)
    if (rows >= len(scene.frames)).any() or (scene.frames[rows] != motion.frames).any():
        raise BadInput(f"person {motion.track_id} has frames that the scene does not: build both from one film")
    return rows


def in_parts(motion: Motion, count: int | None = None) -> Iterator[tuple[slice, Motion]]:
    """The motion some frames at a time, with the rows that these are: a film may last an hour."""
    count = count or _PART
    for first in range(0, len(motion.frames), count):
        rows = slice(first, min(first + count, len(motion.frames)))
        yield rows, motion.take(rows)


def full_pose_of(motion: Motion, body: BodyModel) -> np.ndarray:
    """(T, 55, 3) axis-angle, float64, the relaxed hand added: complete rotations, root in the camera's frame."""
    import torch

    names = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
    parts = {name: torch.from_numpy(np.asarray(getattr(motion, name), np.float64)) for name in names}
    return body.full_pose(**parts).numpy()


def place(motion: Motion, scene: Scene, body: BodyModel) -> Placed:
    """The person's skeleton in the world."""
    import torch

    from wholebody.body.kinematics import BODY_TREE
    from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle

    camera_from_world = np.asarray(scene.camera_from_world, np.float64)[scene_rows(motion, scene)]
    world_turn = camera_from_world[:, :3, :3].transpose(0, 2, 1)
    betas = torch.from_numpy(np.asarray(motion.betas, np.float64))
    expression = torch.from_numpy(np.asarray(motion.expression, np.float64))

    # A body turns about its pelvis, which is not the origin of its frame.
    still = body.rest_joints.double() + (betas @ body.joint_directions[:10].double()).unflatten(-1, (55, 3))
    moving = still + (expression @ body.joint_directions[10:].double()).unflatten(-1, (55, 3))
    pelvis = moving[:, 0].numpy()
    seen = np.asarray(motion.transl, np.float64) + pelvis - camera_from_world[:, :3, 3]
    transl = np.einsum("tij,tj->ti", world_turn, seen) - pelvis

    pose = full_pose_of(motion, body)
    rotations = axis_angle_to_matrix(torch.from_numpy(pose))
    rotations[:, 0] = torch.from_numpy(world_turn) @ rotations[:, 0]
    pose[:, 0] = matrix_to_axis_angle(rotations[:, 0]).numpy()
    turns, places = BODY_TREE.pose(rotations, moving)
    joints = places + torch.from_numpy(transl)[:, None]
    shifts = joints - (turns @ moving[..., None])[..., 0]
    return Placed(
        pose, transl, rotations.numpy(), turns.numpy(), joints.numpy(), still.numpy(), shifts.numpy()
    )  # fmt: skip


def local_frames(person: Placed) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 55, 3, 3) and places (T, 55, 3) of each joint in its parent's frame, the root in the world.

    Expression may move a joint of a licensed body. A skin's bind pose cannot, so here the joint's frame moves instead:
    by these frames a vertex at rest goes to the same place as by `turns` and `shifts`.
    """
    parents = list(PARENTS[1:])
    origins = person.shifts + np.einsum("tjab,jb->tja", person.turns, person.rest_joints)
    between = origins[:, 1:] - origins[:, parents]
    local = np.einsum("tjba,tjb->tja", person.turns[:, parents], between)
    return person.rotations, np.concatenate([origins[:, :1], local], 1)


def quaternions(rotations: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """(T, J, 3, 3) to unit quaternions (T, J, 4), x y z w, each on the same side as the one of the frame before, the
    first as `before` (J, 4)."""
    import torch

    from wholebody.geometry.rotation import matrix_to_quaternion

    out = matrix_to_quaternion(torch.from_numpy(np.ascontiguousarray(rotations))).numpy()
    if before is not None and len(out):
        out[0] *= np.where((out[0] * before).sum(-1, keepdims=True) < 0, -1.0, 1.0)
    flips = np.cumprod(np.where((out[1:] * out[:-1]).sum(-1, keepdims=True) < 0, -1.0, 1.0), axis=0)
    return np.concatenate([out[:1], out[1:] * flips])


def posed_in_camera(
    motion: Motion, body: BodyModel, chunk: int = _CHUNK
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """(rows, vertices (n, V, 3), joints (n, 144, 3)) in the camera's frame, some frames at a time, float32."""
    import torch

    for rows, part in in_parts(motion, chunk):
        with torch.inference_mode():  # left before the caller goes on: the mode would be theirs too
            mesh = _mesh(body, full_pose_of(part, body), part.betas, part.expression, part.transl)
        yield rows, *mesh


def _mesh(body: BodyModel, pose, betas, expression, transl) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from wholebody.geometry.rotation import axis_angle_to_matrix

    def tensor(value):
        return torch.from_numpy(np.ascontiguousarray(value, np.float64)).to(body.dtype)

    rotations = axis_angle_to_matrix(torch.from_numpy(np.ascontiguousarray(pose, np.float64))).to(body.dtype)
    shape = tensor(betas).expand(len(pose), -1)
    posed = body.from_matrices(rotations, shape, tensor(expression), tensor(transl))
    return posed.vertices.numpy(), posed.joints.numpy()


def shaped(motion: Motion, body: BodyModel) -> np.ndarray:
    """(V, 3) float64: this person's body at rest, arms out, without expression."""
    betas = np.asarray(motion.betas, np.float64)
    template, directions = body.template.double().numpy(), body.directions[:10].double().numpy()
    return (template + np.tensordot(betas, directions, (0, 0))).T


def expression_targets(body: BodyModel) -> list[MorphTarget]:
    """The ten expression coefficients as morph targets: the coefficient is the weight."""
    targets = []
    for number, offsets in enumerate(body.directions[10:].numpy().transpose(0, 2, 1)):
        targets.append(_sparse(f"expression_{number}", np.arange(len(offsets)), offsets, 1e-6))
    return targets


def corrective_targets(
    poses: Sequence[np.ndarray], body: BodyModel
) -> tuple[list[MorphTarget], list[np.ndarray]]:  # fmt: skip
    """Pose correctives as morph targets shared by all people, and their weights: per person (T, number of targets).

    A joint's correctives are nine shapes, weighted by the entries of its rotation minus one. Joints move in few ways
    (a knee in about one), so the shapes are combined into as few as keep every vertex of every frame within 0.3 mm a
    joint: the leading singular vectors of the displacements that occur. One frame needs but one shape for all joints.

    Args:
        poses: (T, 55, 3) complete axis-angle of each person, as `full_pose_of` gives them.
    """
    ends = np.cumsum([len(pose) for pose in poses])[:-1]
    frames = sum(map(len, poses))
    shapes = list(corrective_shapes(body))
    if frames == 1:
        total = np.zeros((body.num_vertices, 3))
        for joint, vertices, offsets in shapes:
            total[vertices] += offsets @ _bent(poses, joint)[0]
        target = _sparse("pose_correctives", np.arange(len(total)), total, 1e-5)
        return ([target], [np.ones((1, 1))]) if np.abs(target.offsets).max() > 1e-5 else ([], [np.zeros((1, 0))])

    targets: list[MorphTarget] = []
    columns: list[np.ndarray] = []
    for joint, vertices, offsets in shapes:
        features = _bent(poses, joint)
        left, strength, right = np.linalg.svd(offsets.reshape(-1, 9).T, full_matrices=False)  # 9 x 9, 9, 9 x 3 n
        _, sizes, axes = np.linalg.svd(features @ (left * strength), full_matrices=False)
        amounts = features @ (left * strength) @ axes.T  # (T, k), most important first
        moves = (axes @ right).reshape(len(sizes), -1, 3)
        for rank in range(len(sizes) + 1):
            # What is left out is at most the longest remainder of a frame times the largest gain of a vertex.
            rest = np.linalg.norm(amounts[:, rank:], axis=1).max() if rank < len(sizes) else 0.0
            gain = np.linalg.norm(moves[rank:], axis=(0, 2)).max() if rank < len(sizes) else 0.0
            if rest * gain <= _SHAPE_ERROR:
                break
        for k in range(rank):
            largest = np.abs(amounts[:, k]).max()
            name = f"corrective_{SMPLX_JOINTS[joint]}_{k}"
            targets.append(_sparse(name, vertices, moves[k] * largest, _SHAPE_ERROR / 20))
            columns.append((amounts[:, k] / largest).astype(np.float32))
    weights = np.stack(columns, 1) if columns else np.zeros((frames, 0), np.float32)
    return targets, np.split(weights, ends)


def _bent(poses: Sequence[np.ndarray], joint: int) -> np.ndarray:
    """(frames of all people, 9): the entries of a joint's rotation minus one."""
    import torch

    from wholebody.geometry.rotation import axis_angle_to_matrix

    turns = np.concatenate([pose[:, joint] for pose in poses]).astype(np.float64)
    return (axis_angle_to_matrix(torch.from_numpy(turns)).numpy() - np.eye(3)).reshape(-1, 9)


def corrective_shapes(body: BodyModel) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(joint, vertices (n,), offsets (n, 3, 9)) for each joint that has correctives."""
    correctives = body.correctives.double().numpy()
    if correctives.shape[0] == 9:
        joints, vertices = body.corrective_joint.numpy(), body.corrective_vertex.numpy()
        for joint in np.unique(joints):
            rows = joints == joint
            yield int(joint) + 1, vertices[rows], correctives[:, rows].transpose(1, 2, 0)
        return
    for joint, block in enumerate(correctives.reshape(54, 9, 3, -1), 1):
        offsets = block.transpose(2, 1, 0)
        # Licensed files give every joint a trace of every vertex: below a fiftieth of a millimetre it is not kept.
        rows = np.flatnonzero(np.linalg.norm(offsets, axis=(1, 2)) > _SHAPE_ERROR / 5)
        if len(rows):
            yield joint, rows, offsets[rows]


def one_sided(
    targets: Sequence[MorphTarget], weights: Sequence[np.ndarray], least: float = 0.0
) -> tuple[list[MorphTarget], list[np.ndarray]]:
    """The same shapes with weights from 0 to 1, which is all that Blender and engines take: a target that is also used
    below zero gets another, `NAME_minus`.

    Args:
        weights: (T, number of targets) of each person.
        least: targets are made to reach this far at least, both ways, whatever their weights; 0: as far as needed.
    """
    together = np.concatenate(list(weights))
    high = np.maximum(together.max(0, initial=0.0), least)
    low = np.maximum((-together).max(0, initial=0.0), least)
    out: list[MorphTarget] = []
    columns: list[list[np.ndarray]] = [[] for _ in weights]
    for k, target in enumerate(targets):
        for name, sign, reach in ((target.name, 1.0, high[k]), (f"{target.name}_minus", -1.0, low[k])):
            if reach * np.abs(target.offsets).max() <= _SHAPE_ERROR / 20 and not least:
                continue
            out.append(MorphTarget(name, target.vertices, np.float32(sign * reach) * target.offsets))
            for column, own in zip(columns, weights, strict=True):
                column.append(np.clip(sign * own[:, k] / reach, 0.0, 1.0))
    frames = [len(own) for own in weights]
    return out, [np.stack(c, 1) if c else np.zeros((n, 0)) for c, n in zip(columns, frames, strict=True)]


def _sparse(name: str, vertices: np.ndarray, offsets: np.ndarray, least: float) -> MorphTarget:
    """A target of the vertices that it moves by more than `least` metres, one at least."""
    moved = np.linalg.norm(offsets, axis=1)
    kept = np.flatnonzero(moved > least)
    if not len(kept):
        kept = np.array([int(moved.argmax())])
    order = kept[np.argsort(vertices[kept])]
    return MorphTarget(name, np.asarray(vertices)[order], np.asarray(offsets, np.float32)[order])
