"""Joints as convex sums of vertices: inside the body whatever its shape, and still when the face moves."""

import numpy as np
from scipy.optimize import nnls

from wholebody.body.joints import PARENTS

from . import rig
from .rig import J

NEAR, FAR, KEPT = 120, 480, 30  # candidate vertices near and farther away; how many a joint may keep
FAR_LIMIT_M = 0.35
MOVED_BY_FACE_M = 2e-4  # vertices that expressions move more than this carry no joint


def _candidates(joint: int, weights: np.ndarray, moved_by_face: np.ndarray) -> np.ndarray:
    still = moved_by_face < MOVED_BY_FACE_M
    eyes = weights[:, J["left_eyeball"]] + weights[:, J["right_eyeball"]]
    if joint in (J["left_eyeball"], J["right_eyeball"]):
        return np.where(weights[:, joint] > 0.5)[0]
    if joint in (J["head"], J["jaw"]):
        near_head = (weights[:, J["head"]] > 0.2) | (weights[:, J["neck"]] > 0.2) | (weights[:, J["jaw"]] > 0.05)
        return np.where(still & near_head & (eyes < 0.01))[0]
    family = weights[:, joint] + (weights[:, PARENTS[joint]] if PARENTS[joint] >= 0 else 0)
    if joint == J["pelvis"]:
        family = family + weights[:, [J["spine1"], J["left_hip"], J["right_hip"]]].sum(1)
    return np.where((family > 0.3) & still)[0]


def fit(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray, moved_by_face: np.ndarray
) -> np.ndarray:
    """The regressor (55,V): rows >= 0 that sum to one, fitted to N people (vertices N,V,3; joints N,55,3).

    The left side is fitted and mirrored through `mirror` (V,), the vertex on the other side.
    """
    rng = np.random.default_rng(0)
    mean_vertices, mean_joints = vertices.mean(0), joints.mean(0)
    out = np.zeros((55, len(weights)))
    for k in range(55):
        twin = rig.MIRRORED_JOINT[k]
        if twin < k:
            continue
        ids = _candidates(k, weights, moved_by_face)
        distance = np.linalg.norm(mean_vertices[ids] - mean_joints[k], axis=1)
        order = np.argsort(distance, kind="stable")
        far = order[NEAR:]
        far = far[distance[far] < FAR_LIMIT_M]
        ids = ids[np.r_[order[:NEAR], rng.permutation(far)[:FAR]]]
        if twin == k:
            ids = np.unique(np.r_[ids, mirror[ids]])
        sums_to_one = 30.0  # a heavy row of ones
        a = vertices[:, ids].transpose(0, 2, 1).reshape(-1, len(ids)).astype(float)
        a = np.vstack([a, np.full((1, len(ids)), sums_to_one)])
        b = np.r_[joints[:, k].reshape(-1), sums_to_one]
        x, _ = nnls(a, b, maxiter=20000)
        kept = np.argsort(-x, kind="stable")[:KEPT]
        kept = kept[x[kept] > 1e-4]
        x, _ = nnls(a[:, kept], b, maxiter=20000)
        row = np.bincount(ids[kept], x / x.sum(), minlength=len(weights))
        mirrored = np.bincount(mirror, row, minlength=len(weights))
        if twin == k:
            row = (row + mirrored) / 2  # type: ignore[assignment]
        else:
            out[twin] = mirrored
        out[k] = row
    return out
