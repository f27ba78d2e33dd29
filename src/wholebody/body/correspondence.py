"""Where on one body's skin each vertex of another lies: found once, from their resting meshes, joints and weights.

The story: the source takes the target's resting pose and build as far as its own joints and shapes allow; its skin is
then drawn onto the target's, softly first (closest points that face the same way and belong to the same part of the
body); last, each vertex of the target is given the nearest point of the drawn skin, as a triangle and three weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from wholebody.body.fit_surface import SurfaceFitter
from wholebody.body.kinematics import moved_places
from wholebody.body.skinned import SkinnedBody
from wholebody.errors import BadInput

_STIFFNESS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.3)
"""How much a vertex's neighbours hold it back, round by round; 1 holds as strongly as its own target draws."""
_NEAR = 0.03  # metres: targets further off than this count less and less
_MOST_UNUSUAL, _JOINTS_APART = 8.0, 0.15  # coefficients, metres: beyond these a body is not taken for a person's
_LOOK = "Is it a human body in metres, in its resting pose, facing +z with y up?"
_WORST = 0.02  # metres: where the two surfaces are further apart at the 95th percentile, they do not fit each other


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Vertex v of the target is the point `weights[v]` of the source's vertices `corners[v]`."""

    corners: np.ndarray  # (V, 3) int64
    weights: np.ndarray  # (V, 3), each row sums to one
    distance: np.ndarray  # (V,) metres from the target's vertex to that point, when one lay on the other

    def carry(self, vertices: torch.Tensor) -> torch.Tensor:
        """Points (..., V, 3) on the target from vertices (..., V_source, 3) of the source."""
        corners = vertices[..., torch.from_numpy(self.corners), :]
        return (corners * torch.from_numpy(self.weights).to(vertices)[..., None]).sum(-2)


def find_correspondence(source: SkinnedBody, target: SkinnedBody) -> Correspondence:
    """How the target's vertices lie on the source. BadInput where the surfaces have too little in common."""
    source, target = source.to(torch.float64), target.to(torch.float64)
    if source.num_vertices == target.num_vertices and np.array_equal(source.faces, target.faces):
        rows = np.arange(target.num_vertices)
        corners = np.stack([rows, rows, rows], 1)
        return Correspondence(corners, np.tile([1.0, 0, 0], (len(rows), 1)), np.zeros(len(rows)))
    there = target.template.numpy()
    posed = _take_build(_take_pose(source, target), source, there, target)
    drawn = _draw(posed, source, there, target)
    found = _closest(there, _normals(there, target.faces), _parts(target), drawn, source)
    worst = np.quantile(found.distance, 0.95)
    if worst > _WORST:
        raise BadInput(
            f"the bodies {source.name} ({source.num_vertices} vertices) and {target.name} ({target.num_vertices}) do "
            f"not fit each other: a twentieth of the one's skin is more than {1000 * worst:.0f} mm from the other's. "
            + _LOOK
        )
    return found


# --- the source in the target's resting pose --------------------------------------------------------------------------


def _take_pose(source: SkinnedBody, target: SkinnedBody) -> np.ndarray:
    """The source's vertices (V, 3) where its joints lie on those of the resting target as well as they can."""
    names = [name for name in source.joint_names if name in target.joint_names]
    if len(names) < 20:
        raise BadInput(f"the bodies {source.name} and {target.name} have only {len(names)} joints in common")
    ours = [source.joint_names.index(name) for name in names]
    wanted = target.rest.joints[[target.joint_names.index(name) for name in names]]
    rotations = torch.eye(3, dtype=torch.float64).expand(1, source.num_joints, 3, 3).clone()
    betas = torch.zeros(1, source.shape_dirs.shape[-1], dtype=torch.float64)
    expression = torch.zeros(1, source.expression_dirs.shape[-1], dtype=torch.float64)
    transl = torch.zeros(1, 3, dtype=torch.float64)
    rows = torch.tensor([0])
    stiff = ("spine", "neck", "head", "collar")
    turns = [0.05 if any(word in name for word in stiff) else 0.5 for name in source.joint_names]
    spreads = torch.tensor([s for s in turns for _ in range(3)] + [1.0] * (betas.shape[-1] + 3), dtype=torch.float64)
    now = torch.zeros_like(spreads)  # how far from the resting pose and the mean build
    for _ in range(15):
        posed = source.pose(rotations, betas, expression, transl, rows)
        left = (wanted - posed.joints[0, ours]).flatten()
        jacobian = _joint_jacobian(source, posed, ours)
        # In units of the spreads: a trunk bends less readily than it is built otherwise. A joint may be off by a
        # centimetre: bodies put them at different depths under the skin.
        scaled = jacobian / 0.01 * spreads
        normal = scaled.T @ scaled + torch.eye(len(spreads), dtype=torch.float64)
        step = torch.linalg.solve(normal, scaled.T @ left / 0.01 - now / spreads) * spreads
        now = now + step
        turn = step[: 3 * source.num_joints].reshape(1, -1, 3)
        rotations = _turned(source, rotations, posed.turns, turn)
        betas = betas + step[3 * source.num_joints : -3]
        transl = transl + step[-3:]
    posed = source.pose(rotations, betas, expression, transl)
    apart = (wanted - posed.joints[0, ours]).norm(dim=-1)
    if betas.abs().max() > _MOST_UNUSUAL or apart.max() > _JOINTS_APART:
        raise BadInput(
            f"the body {target.name} ({target.num_vertices} vertices) has not the build of a person: its joints cannot "
            f"be met by those of {source.name} ({names[int(apart.argmax())]} stays {apart.max():.2f} m off). {_LOOK}"
        )
    return posed.vertices[0].numpy()


def _joint_jacobian(body: SkinnedBody, posed, joints: list[int]) -> torch.Tensor:
    """(3 len(joints), 3 J + S + 3): turns about the body's axes, shape, place."""
    count = body.shape_dirs.shape[-1]
    above: list[set[int]] = [set() for _ in range(body.num_joints)]
    for joint, parent in enumerate(body.parents):
        if joint:
            above[joint] = above[parent] | {parent}
    result = torch.zeros(len(joints), 3, 3 * body.num_joints + count + 3, dtype=torch.float64)
    moved = moved_places(posed.turns[:1], body.rest.joint_directions[..., :count], body.parents)[0]
    for row, joint in enumerate(joints):
        for k in above[joint]:
            x, y, z = (posed.joints[0, joint] - posed.joints[0, k]).tolist()
            result[row, :, 3 * k : 3 * k + 3] = torch.tensor([[0, z, -y], [-z, 0, x], [y, -x, 0]])
        result[row, :, 3 * body.num_joints : -3] = moved[joint]
        result[row, :, -3:] = torch.eye(3)
    return result.flatten(0, 1)


def _turned(body: SkinnedBody, rotations: torch.Tensor, turns: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    from wholebody.geometry.rotation import axis_angle_to_matrix

    still = torch.eye(3, dtype=turn.dtype).expand(len(turn), 3, 3)
    above = torch.stack([turns[:, p] if p >= 0 else still for p in body.parents], 1)
    return axis_angle_to_matrix((above.mT @ turn[..., None])[..., 0]) @ rotations


def _take_build(start: np.ndarray, source: SkinnedBody, there: np.ndarray, target: SkinnedBody) -> np.ndarray:
    """The source's vertices with the pose and the shape that lay its skin best onto the target's."""
    fitter = SurfaceFitter(source, rounds=2, steps=4)
    expression = torch.zeros(1, source.expression_dirs.shape[-1], dtype=torch.float64)
    parts, normals_there, now = _parts(source), _normals(there, target.faces), start
    rows = fitter.rows.numpy()
    for _ in range(10):
        goal, sure = _pulled(now, source, parts, there, target, normals_there, rows)
        # Where nothing fits, skin stays where the rest of the body takes it.
        wanted = now.copy()
        wanted[rows] += sure[:, None] * (goal - now[rows])
        fit = fitter(torch.from_numpy(wanted)[None], expression)
        now = source.pose(fit.rotations, fit.betas, expression, fit.transl).vertices[0].numpy()
    return now


# --- drawing one skin onto the other ----------------------------------------------------------------------------------


def _draw(start: np.ndarray, source: SkinnedBody, there: np.ndarray, target: SkinnedBody) -> np.ndarray:
    """The source's vertices drawn onto the target's surface."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import factorized

    laplacian = _laplacian(source.faces, len(start))
    smooth = (laplacian.T @ laplacian).tocsc()
    parts, normals_there, now = _parts(source), _normals(there, target.faces), start
    for stiffness in _STIFFNESS:
        goal, sure = _pulled(now, source, parts, there, target, normals_there)
        solve = factorized((diags(sure + 1e-6) + stiffness * smooth).tocsc())
        # What is smooth is how far vertices have moved, not the skin itself.
        now = start + np.stack([solve(((goal - start)[:, axis]) * sure) for axis in range(3)], 1)
    return now


def _pulled(
    now: np.ndarray, source: SkinnedBody, parts: np.ndarray, there: np.ndarray, target: SkinnedBody,
    normals_there: np.ndarray, rows: np.ndarray | slice = slice(None),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Where the target's surface draws each vertex (or those of `rows`) (V, 3), and how far that counts (V,).

    Along the normal only: which way skin slides along skin, nearest points do not tell.
    """
    normals, now = _normals(now, source.faces)[rows], now[rows]
    found = _closest(now, normals, parts[rows], there, target, normals_there)
    facing = (normals * _blend(normals_there, found)).sum(1)
    away = (_blend(there, found) - now) * normals
    goal = now + away.sum(1, keepdims=True) * normals
    return goal, (facing > 0.3) / (1 + (found.distance / _NEAR) ** 2) ** 2


def _laplacian(faces: np.ndarray, count: int):
    """Each vertex less the mean of its neighbours; loose pieces of mesh included."""
    from scipy.sparse import coo_matrix, diags, identity

    a = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    a = np.concatenate([a, a[:, ::-1]])
    joined = coo_matrix((np.ones(len(a)), (a[:, 0], a[:, 1])), (count, count)).tocsr()
    joined.data[:] = 1
    return identity(count) - diags(1 / np.maximum(joined.sum(1).A1, 1)) @ joined


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)


def _blend(values: np.ndarray, found: Correspondence) -> np.ndarray:
    return (values[found.corners] * found.weights[..., None]).sum(1)


def _parts(body: SkinnedBody) -> np.ndarray:
    """(V, P): how much each vertex belongs to each of the parts that all bodies know, scaled so that distances count.

    Fingers, jaw and eyes are parts where a body has such joints; elsewhere they belong to the hand or head.
    """
    known = (*_PARTS,)
    rows = np.zeros((body.num_joints, len(known)))
    for joint, name in enumerate(body.joint_names):
        part = name
        if part in ("left_hand", "right_hand") or "_" in part and part.split("_")[1].rstrip("123") in _FINGERS:
            part = part.split("_")[0] + "_wrist"
        part = {"jaw": "head", "left_eyeball": "head", "right_eyeball": "head"}.get(part, part)
        rows[joint, known.index(part)] = 1
    return body.weights.numpy() @ rows


_FINGERS = ("index", "middle", "pinky", "ring", "thumb")
_PARTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
_PART_METRES, _NORMAL_METRES = 0.1, 0.02
"""What one whole part of difference, or a normal turned by 60 degrees, counts in the search for the closest point."""
_CANDIDATES = 10


def _closest(
    points: np.ndarray, normals: np.ndarray, parts: np.ndarray, mesh: np.ndarray, body: SkinnedBody,
    mesh_normals: np.ndarray | None = None,
) -> Correspondence:  # fmt: skip
    """The nearest point of a mesh to each point, among triangles that face the same way in the same part."""
    from scipy.spatial import cKDTree

    faces = body.faces
    mesh_normals = _normals(mesh, faces) if mesh_normals is None else mesh_normals

    middles = mesh[faces].mean(1)
    face_normals = mesh_normals[faces].mean(1)
    face_parts = _parts(body)[faces].mean(1)
    tree = cKDTree(np.concatenate([middles, _NORMAL_METRES * face_normals], 1))
    _, near = tree.query(np.concatenate([points, _NORMAL_METRES * normals], 1), k=_CANDIDATES)
    a, b, c = (mesh[faces[near, k]] for k in range(3))  # (N, candidates, 3)
    weights = _barycentric(points[:, None], a, b, c)
    at = weights[..., :1] * a + weights[..., 1:2] * b + weights[..., 2:] * c
    distance = np.linalg.norm(at - points[:, None], axis=2)
    away = np.linalg.norm(face_parts[near] - parts[:, None], axis=2) * _PART_METRES
    away = away + _NORMAL_METRES * np.maximum(0, 0.5 - (face_normals[near] * normals[:, None]).sum(2))
    best = (distance + away).argmin(1)
    rows = np.arange(len(points))
    return Correspondence(faces[near[rows, best]], weights[rows, best], distance[rows, best])


def _barycentric(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Weights (..., 3) of the point of a triangle that is nearest to p: inside it, on an edge or at a corner."""
    ab, ac, ap = b - a, c - a, p - a
    d = lambda x, y: (x * y).sum(-1)  # noqa: E731
    aa, bb, cc = d(ab, ab), d(ab, ac), d(ac, ac)
    e, f = d(ab, ap), d(ac, ap)
    det = np.maximum(aa * cc - bb * bb, 1e-20)
    v, w = (cc * e - bb * f) / det, (aa * f - bb * e) / det
    inside = (v >= 0) & (w >= 0) & (v + w <= 1)
    # On the edges: the nearest point of each, then the nearest of the three.
    t1 = np.clip(e / np.maximum(aa, 1e-20), 0, 1)
    t2 = np.clip(f / np.maximum(cc, 1e-20), 0, 1)
    bc, bp = c - b, p - b
    t3 = np.clip(d(bc, bp) / np.maximum(d(bc, bc), 1e-20), 0, 1)
    zero = np.zeros_like(t1)
    edges = np.stack([
        np.stack([1 - t1, t1, zero], -1), np.stack([1 - t2, zero, t2], -1), np.stack([zero, 1 - t3, t3], -1)
    ], -2)  # fmt: skip
    corners = np.stack([a, b, c], -2)
    at = edges @ corners
    nearest = ((at - p[..., None, :]) ** 2).sum(-1).argmin(-1)
    on_edge = np.take_along_axis(edges, nearest[..., None, None], -2)[..., 0, :]
    return np.where(inside[..., None], np.stack([1 - v - w, v, w], -1), on_edge)
