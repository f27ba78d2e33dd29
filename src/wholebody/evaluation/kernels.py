"""The inner loops of mesh errors on a CPU: each mesh is read twice, whatever the number of measures.

Written out with numba because a chain of array operations reads and writes a batch of meshes a dozen times, and memory
is what a CPU waits for here. Sums are kept in float64, also over float32 meshes: a million-term float32 mean is only
good to 5e-4.
"""

from __future__ import annotations

import numpy as np

from wholebody.drawing.compiled import compiled

_FAST = {"contract", "reassoc", "arcp", "nsz"}  # no "nnan", "ninf": a broken mesh must give a broken error


@compiled(fastmath=_FAST)
def moments(points: np.ndarray, truth: np.ndarray, ids: np.ndarray, out: np.ndarray) -> None:
    """Of meshes (B, V, 3), vertices `ids`: sums of points, of truth, of squares, of products -> (B, 16)."""
    for b in range(points.shape[0]):
        p, t = points[b], truth[b]
        # Relative to one of the points: far from the camera, squares would drown what differs.
        px0, py0, pz0 = np.float64(p[ids[0], 0]), np.float64(p[ids[0], 1]), np.float64(p[ids[0], 2])
        tx0, ty0, tz0 = np.float64(t[ids[0], 0]), np.float64(t[ids[0], 1]), np.float64(t[ids[0], 2])
        sx = sy = sz = ux = uy = uz = square = 0.0
        xx = xy = xz = yx = yy = yz = zx = zy = zz = 0.0
        for k in range(len(ids)):
            i = ids[k]
            px, py, pz = p[i, 0] - px0, p[i, 1] - py0, p[i, 2] - pz0
            tx, ty, tz = t[i, 0] - tx0, t[i, 1] - ty0, t[i, 2] - tz0
            sx += px
            sy += py
            sz += pz
            ux += tx
            uy += ty
            uz += tz
            square += px * px + py * py + pz * pz
            xx += px * tx
            xy += px * ty
            xz += px * tz
            yx += py * tx
            yy += py * ty
            yz += py * tz
            zx += pz * tx
            zy += pz * ty
            zz += pz * tz
        n = len(ids)
        sx, sy, sz, ux, uy, uz = sx / n, sy / n, sz / n, ux / n, uy / n, uz / n
        row = out[b]
        row[0], row[1], row[2] = sx + px0, sy + py0, sz + pz0
        row[3], row[4], row[5] = ux + tx0, uy + ty0, uz + tz0
        row[6] = square / n - sx * sx - sy * sy - sz * sz
        row[7], row[8], row[9] = xx / n - sx * ux, xy / n - sx * uy, xz / n - sx * uz
        row[10], row[11], row[12] = yx / n - sy * ux, yy / n - sy * uy, yz / n - sy * uz
        row[13], row[14], row[15] = zx / n - sz * ux, zy / n - sz * uy, zz / n - sz * uz


@compiled(fastmath=_FAST)
def distances(
    points: np.ndarray,
    truth: np.ndarray,
    ids: np.ndarray,
    shift: np.ndarray,
    linear: np.ndarray,
    translation: np.ndarray,
    valid: np.ndarray,
    out: np.ndarray,
) -> None:
    """Mean distances -> (B, 2): of `points + shift` (B, 3), and of `linear @ point + translation` (B, 3, 3), (B, 3).

    `valid` (B, V) bool leaves vertices out, NaN where all are; a `valid` without columns counts every vertex.
    """
    masked = valid.shape[1] > 0
    for b in range(points.shape[0]):
        p, t = points[b], truth[b]
        dx, dy, dz = shift[b, 0], shift[b, 1], shift[b, 2]
        cx, cy, cz = translation[b, 0], translation[b, 1], translation[b, 2]
        a00, a01, a02 = linear[b, 0, 0], linear[b, 0, 1], linear[b, 0, 2]
        a10, a11, a12 = linear[b, 1, 0], linear[b, 1, 1], linear[b, 1, 2]
        a20, a21, a22 = linear[b, 2, 0], linear[b, 2, 1], linear[b, 2, 2]
        moved = aligned = 0.0
        count = 0
        for k in range(len(ids)):
            i = ids[k]
            if masked and not valid[b, i]:
                continue
            count += 1
            px, py, pz = np.float64(p[i, 0]), np.float64(p[i, 1]), np.float64(p[i, 2])
            tx, ty, tz = np.float64(t[i, 0]), np.float64(t[i, 1]), np.float64(t[i, 2])
            x, y, z = px + dx - tx, py + dy - ty, pz + dz - tz
            moved += np.sqrt(x * x + y * y + z * z)
            x = a00 * px + a01 * py + a02 * pz + cx - tx
            y = a10 * px + a11 * py + a12 * pz + cy - ty
            z = a20 * px + a21 * py + a22 * pz + cz - tz
            aligned += np.sqrt(x * x + y * y + z * z)
        out[b, 0] = moved / count if count else np.nan
        out[b, 1] = aligned / count if count else np.nan


def similarity_of(moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments (B, 16) -> the best similarity transform as `linear` (B, 3, 3) and `translation` (B, 3)."""
    covariance = moment[:, 7:].reshape(-1, 3, 3)
    u, stretch, vt = np.linalg.svd(covariance)
    sign = np.ones_like(stretch)
    sign[:, 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = np.swapaxes(vt, 1, 2) @ (sign[..., None] * np.swapaxes(u, 1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        linear = ((stretch * sign).sum(1) / moment[:, 6])[:, None, None] * rotation
    return linear, moment[:, 3:6] - (linear @ moment[:, :3, None])[..., 0]


def part_errors(
    points: np.ndarray, truth: np.ndarray, ids: np.ndarray, shift: np.ndarray, valid: np.ndarray | None = None
) -> np.ndarray:
    """Mean distances (B, 2) in the meshes' unit between vertices `ids` of meshes (B, V, 3): `shift` (B, 3) added to the
    points, and after the best similarity transform. `valid` (B, V) leaves distances out, not points of the transform.
    """
    moment, errors = np.empty((len(points), 16)), np.empty((len(points), 2))
    moments(points, truth, ids, moment)
    finite = np.asarray(np.isfinite(moment).all(1))
    linear, translation = similarity_of(np.where(finite[:, None], moment, 0.0))
    counted = np.empty((len(points), 0), bool) if valid is None else valid
    distances(points, truth, ids, shift, linear, translation, counted, errors)
    errors[~finite] = np.nan
    return errors
