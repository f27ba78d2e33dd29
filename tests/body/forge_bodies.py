"""Foreign bodies forged from the open body: another topology, rest pose and shape space, with known correspondence.

No licensed file is needed: `forge(24 | 52 | 55, count)` gives what a SMPL, SMPL-H or SMPL-X file holds (a dictionary in
the licensed layout) and where each of its vertices lies on the open body.
"""

from __future__ import annotations

import numpy as np
import torch

from wholebody.body.assets import read_body_file
from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.skeletons import parents
from wholebody.body.skinned import JOINTS_OF, SkinnedBody
from wholebody.geometry.rotation import axis_angle_to_matrix


def open_body(dtype: torch.dtype = torch.float64) -> SkinnedBody:
    return SkinnedBody.of(read_body_file("open"), dtype)


def collapse(faces: np.ndarray, count: int, keep: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges taken out at random until `keep` vertices are left: new faces, and the old numbers of the vertices."""
    rng = np.random.default_rng(seed)
    around: list[set[int]] = [set() for _ in range(count)]
    triangles = [tuple(map(int, face)) for face in faces]
    at: list[set[int]] = [set() for _ in range(count)]
    for number, face in enumerate(triangles):
        for k in range(3):
            around[face[k]].update((face[k - 1], face[k - 2]))
            at[face[k]].add(number)
    alive, gone = np.ones(count, bool), [False] * len(triangles)
    left = count
    while left > keep:
        u = int(rng.integers(count))
        if not alive[u]:
            continue
        v = sorted(around[u])[int(rng.integers(len(around[u])))]
        shared = around[u] & around[v]
        if len(shared) != 2 or len(around[u]) > 7 or len(around[v]) > 8 or any(len(around[s]) < 5 for s in shared):
            continue
        for number in list(at[u]):
            face = triangles[number]
            for k in face:
                at[k].discard(number)
            if v in face:
                gone[number] = True
                continue
            triangles[number] = tuple(v if k == u else k for k in face)
            for k in triangles[number]:
                at[k].add(number)
        for k in around[u]:
            around[k].discard(u)
            if k != v:
                around[k].add(v)
                around[v].add(k)
        around[u].clear()
        alive[u], left = False, left - 1
    old = np.nonzero(alive)[0]
    row = np.full(count, -1)
    row[old] = np.arange(len(old))
    return row[np.array([t for t, dead in zip(triangles, gone, strict=True) if not dead])], old


def forge(
    joints: int, count: int, seed: int = 0, rest: bool = True, body: SkinnedBody | None = None
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Arrays in the licensed layout, and the corners (V, 3) and weights (V, 3) of its vertices on the open body
    (or on another of 55 joints).

    rest: another resting pose than the open body's (arms lower, legs apart, fingers curled a little).
    """
    rng = np.random.default_rng(seed + 100)
    body = body or open_body()
    faces, old = collapse(body.faces, body.num_vertices, count, seed)
    # Each vertex moves to somewhere in one of the open body's triangles about it, so that none lies where one lay.
    order = rng.permutation(len(body.faces))
    first = np.full(body.num_vertices, -1)
    for k in range(3):
        first[body.faces[order, k]] = order
    corners = body.faces[first[old]]
    weights = rng.dirichlet([1.2, 1.2, 1.2], count) * 0.8
    weights[corners == old[:, None]] += 0.2

    def carried(values: torch.Tensor) -> np.ndarray:
        """(V_open, ...) to (V, ...)"""
        return np.einsum("vk,vk...->v...", weights, values.numpy()[corners])

    names = JOINTS_OF[joints]
    bent = np.zeros((55, 3))
    if rest:
        for side, sign in (("left", 1), ("right", -1)):
            bent[SMPLX_JOINTS.index(f"{side}_shoulder")] = [0.05, 0.1 * sign, -0.25 * sign]
            bent[SMPLX_JOINTS.index(f"{side}_hip")] = [0, 0, 0.12 * sign]
            bent[SMPLX_JOINTS.index(f"{side}_elbow")] = [0, -0.15 * sign, 0]
            if joints > 24:
                for name in SMPLX_JOINTS[25:]:
                    if name.startswith(side):
                        bent[SMPLX_JOINTS.index(name)] = [0, 0, -0.08 * sign]
    rotations = axis_angle_to_matrix(torch.from_numpy(bent))[None]
    zero = torch.zeros(1, 10, dtype=torch.float64)
    posed = body.pose(rotations, zero, zero, torch.zeros(1, 3, dtype=torch.float64))
    turns = torch.einsum("vj,bjxc->bvxc", body.weights, posed.turns)[0]
    mix = torch.from_numpy(np.linalg.qr(rng.normal(size=(10, 10)))[0])

    def into_rest(directions: torch.Tensor, joint_directions: torch.Tensor) -> torch.Tensor:
        """Directions of the T-pose as they are in the new resting pose, joints' own movement included."""
        places = [joint_directions[0]]
        for joint, parent in enumerate(body.parents[1:], 1):
            bone = joint_directions[joint] - joint_directions[parent]
            places.append(places[parent] + posed.turns[0, parent] @ bone)
        shifts = torch.stack(places) - posed.turns[0] @ joint_directions
        return turns @ directions + torch.einsum("vj,jcs->vcs", body.weights, shifts)

    shape = into_rest(body.shape_dirs, body.rest.joint_directions[..., :10]) @ mix
    face = into_rest(body.expression_dirs, body.rest.joint_directions[..., 10:])
    pooled = np.zeros((55, joints))
    for row, name in enumerate(SMPLX_JOINTS):
        while name not in names:
            if joints == 24 and name[-1].isdigit() and "_" in name and not name.startswith("spine"):
                name = name.split("_")[0] + "_hand"
            else:
                name = SMPLX_JOINTS[body.parents[SMPLX_JOINTS.index(name)]]
        pooled[row, names.index(name)] = 1
    own = [SMPLX_JOINTS.index(n if n in SMPLX_JOINTS else n.replace("hand", "middle1")) for n in names]
    template = carried(posed.vertices[0])
    regressor = _regressor(posed.joints[0, own].numpy(), into_joints(posed, body, own, mix), template, carried(shape))
    pose_dirs = body.pose_dirs.unflatten(0, (54, 9)).unflatten(2, (-1, 3))  # (54, 9, V, 3)
    kept = [j - 1 for j in own[1:]] if joints > 24 else [j - 1 for j in own[1:22]]
    correctives = np.zeros((count, 3, joints - 1, 9))
    for row, joint in enumerate(kept):
        correctives[:, :, row] = carried(pose_dirs[joint].permute(1, 2, 0))
    arrays = {
        "v_template": template,
        "f": faces.astype(np.uint32),
        "shapedirs": carried(shape),
        "posedirs": correctives.reshape(count, 3, -1),
        "J_regressor": regressor,
        "weights": carried(body.weights) @ pooled,
        "kintree_table": np.stack([np.array(parents(names)), np.arange(joints)]).astype(np.int64),
    }
    arrays["kintree_table"][0, 0] = 2**32 - 1
    if joints > 24:
        arrays |= {"hands_meanl": np.full(45, 0.05), "hands_meanr": np.full(45, 0.05)}
    if joints == 55:
        arrays["shapedirs"] = np.concatenate([arrays["shapedirs"], carried(face)], 2)
    return arrays, corners, weights


def into_joints(posed, body: SkinnedBody, own: list[int], mix: torch.Tensor) -> np.ndarray:
    """How the chosen joints (J, 3, 10) move with the shape, in the new resting pose."""
    directions = body.rest.joint_directions[..., :10]
    places = [directions[0]]
    for joint, parent in enumerate(body.parents[1:], 1):
        places.append(places[parent] + posed.turns[0, parent] @ (directions[joint] - directions[parent]))
    return (torch.stack(places)[own] @ mix).numpy()


def _regressor(joints: np.ndarray, moves: np.ndarray, template: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """(J, V): convex sums of near vertices that are the joints for every shape, by non-negative least squares."""
    from scipy.optimize import nnls
    from scipy.spatial import cKDTree

    tree = cKDTree(template)
    result = np.zeros((len(joints), len(template)))
    for row, place in enumerate(joints):
        # Of a joint deep inside, as the spine's, the nearest vertices lie to one side alone.
        near = tree.query(place, min(1000, len(template)))[1][::4]
        a = np.concatenate([template[near, :, None], 2 * shape[near]], 2).reshape(len(near), -1).T
        b = np.concatenate([place[:, None], 2 * moves[row]], 1).reshape(-1)
        weights, _ = nnls(np.vstack([a, np.full((1, len(near)), 10.0)]), np.append(b, 10.0))
        result[row, near] = weights / weights.sum()
    return result
