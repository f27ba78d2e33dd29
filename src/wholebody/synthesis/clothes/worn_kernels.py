"""Worn items, which have a shape of their own: numba functions that pose and rasterise them, and colour their
texture."""

from __future__ import annotations

import numpy as np

from wholebody.drawing.compiled import compiled
from wholebody.drawing.raster import NEAR_M

_FAST = {"contract", "reassoc", "arcp", "nsz"}

# Columns of a worn item's look: its texture (first texel, pixels a side, texels per metre), how a painted pattern
# takes its place (0..1, and the texture's mean luminance), linear colour = matrix (3x3) @ texel + offset, and whether
# it is hair.
TEXEL, SIZE, DENSITY, PATTERNED, LUMINANCE, MATRIX, OFFSET, HAIR = 0, 1, 2, 3, 4, 5, 14, 17
LOOK_COLUMNS = 18


@compiled(fastmath=_FAST)
def _place(rest, dirs, joints, weights, i, coefficients, transforms, out):
    """Where linear skinning of the shaped vertex i goes, into out (3,)."""
    x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
    for c in range(coefficients.shape[0]):
        x += dirs[i, 0, c] * coefficients[c]
        y += dirs[i, 1, c] * coefficients[c]
        z += dirs[i, 2, c] * coefficients[c]
    out[0] = out[1] = out[2] = np.float32(0)
    for k in range(joints.shape[1]):
        w = weights[i, k]
        if w > 0:
            t = transforms[joints[i, k]]
            for r in range(3):
                out[r] += w * (t[r, 0] * x + t[r, 1] * y + t[r, 2] * z + t[r, 3])


@compiled(fastmath=_FAST)
def corrections(near, rest, dirs, joints, weights, coefficients, transforms, posed, known, out):
    """For the body vertices in `near`, how far they are from plain linear skinning: pose correctives, into out (V,3).
    `known` (V,) bool marks what is done."""
    place = np.empty(3, np.float32)
    for a in range(near.shape[0]):
        for b in range(near.shape[1]):
            i = near[a, b]
            if not known[i]:
                known[i] = True
                _place(rest, dirs, joints, weights, i, coefficients, transforms, place)
                for c in range(3):
                    out[i, c] = posed[i, c] - place[c]


@compiled(fastmath=_FAST)
def follow(rest, dirs, joints, weights, near, near_weights, moves, coefficients, transforms, offset, out):
    """Pose a garment: shape, skinning, and the correctives of the skin beside it; `offset` (3,) is added."""
    place = np.empty(3, np.float32)
    for i in range(rest.shape[0]):
        _place(rest, dirs, joints, weights, i, coefficients, transforms, place)
        for k in range(near.shape[1]):
            for c in range(3):
                place[c] += near_weights[i, k] * moves[near[i, k], c]
        for c in range(3):
            out[i, c] = place[c] + offset[c]


@compiled(fastmath=_FAST)
def cloth_visibility(points, faces, uv, uv_faces, texels, first_texel, size, levels, opaque, keep, bias, focal, cx, cy,
                     samples, first_face, inv_depth, face_id):  # fmt: skip
    """`raster.visibility` for cloth and hair: both sides of a face are seen; what is transparent in the texture (a
    threshold per sample gives it an anti-aliased edge) or cut off (`keep` (N,) metres, below 0) is not. `bias`
    metres nearer to the camera than it is, so that what it lies on does not poke through."""
    rows, cols = inv_depth.shape
    count = points.shape[0]
    screen = np.empty((count, 3), np.float32)
    for i in range(count):
        z = points[i, 2]
        if z > NEAR_M + bias:
            iz = 1 / z
            screen[i, 0] = (focal * points[i, 0] * iz + cx + 0.5) * samples - 0.5
            screen[i, 1] = (focal * points[i, 1] * iz + cy + 0.5) * samples - 0.5
            screen[i, 2] = 1 / (z - bias)
        else:
            screen[i, 2] = 0.0
    total = samples * samples
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = screen[a, 2], screen[b, 2], screen[c, 2]
        if za <= 0 or zb <= 0 or zc <= 0 or max(keep[a], max(keep[b], keep[c])) < 0:
            continue
        x0, y0, x1, y1, x2, y2 = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0 or not (area == area):
            continue
        xmin, xmax = min(x0, min(x1, x2)), max(x0, max(x1, x2))
        ymin, ymax = min(y0, min(y1, y2)), max(y0, max(y1, y2))
        if xmax < 0 or ymax < 0 or xmin > cols - 1 or ymin > rows - 1:
            continue
        left, right = int(np.ceil(max(xmin, 0.0))), int(np.floor(min(xmax, cols - 1.0)))
        top, bottom = int(np.ceil(max(ymin, 0.0))), int(np.floor(min(ymax, rows - 1.0)))
        if left > right or top > bottom:
            continue
        scale = np.float32(1.0) / area
        d1x, d1y, d2x, d2y = (y2 - y0) * scale, (x2 - x0) * scale, (y1 - y0) * scale, (x1 - x0) * scale
        dzx = d1x * (zb - za) - d2x * (zc - za)
        low = -np.float32(1e-5) - np.float32(1e-4) * max(max(abs(d1x), abs(d1y)), max(abs(d2x), abs(d2y)))
        high = np.float32(1) - low
        cut = min(keep[a], min(keep[b], keep[c])) < 0
        i0, i1, i2 = uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2]
        side, at = size, first_texel
        if not opaque:
            ua, va, ub, vb, uc, vc = uv[i0, 0], uv[i0, 1], uv[i1, 0], uv[i1, 1], uv[i2, 0], uv[i2, 1]
            texel = abs((ub - ua) * (vc - va) - (uc - ua) * (vb - va)) * size * size / abs(area)
            for _ in range(levels - 1):  # a level at which a sample is about a texel
                if texel < 2 or side < 8:
                    break
                at += side * side
                side //= 2
                texel *= 0.25
        for y in range(top, bottom + 1):
            py = np.float32(y) - y0
            px = np.float32(left) - x0
            w1 = px * d1x - d1y * py
            w2 = d2y * py - px * d2x
            iz = za + w1 * (zb - za) + w2 * (zc - za)
            for x in range(left, right + 1):
                if w1 >= low and w2 >= low and w1 + w2 <= high and iz > inv_depth[y, x]:
                    w0 = 1 - w1 - w2
                    seen = True
                    if cut:
                        seen = w0 * keep[a] + w1 * keep[b] + w2 * keep[c] > 0
                    if seen and not opaque:
                        u, v = w0 * ua + w1 * ub + w2 * uc, w0 * va + w1 * vb + w2 * vc
                        tx = min(int((u - np.floor(u)) * side), side - 1)
                        ty = min(int((v - np.floor(v)) * side), side - 1)
                        # An ordered threshold: of four samples in a pixel, as many are covered as alpha says.
                        step = (x % samples) * samples + (y % samples)
                        step = (step * 3 + (x // samples + 2 * (y // samples)) * 1) % total
                        seen = texels[at + ty * side + tx, 3] > 255.0 * (step + 0.5) / total
                    if seen:
                        inv_depth[y, x] = iz
                        face_id[y, x] = first_face + f
                w1 += d1x
                w2 -= d2x
                iz += dzx


@compiled(fastmath=_FAST, inline="always")
def texel_color(texels, linear, look, levels, u, v, footprint):
    """Linear RGB of a texture at (u, v), bilinear, at the level that fits `footprint` metres per pixel."""
    side, at = int(look[SIZE]), int(look[TEXEL])
    texel = footprint * look[DENSITY]
    for _ in range(levels - 1):
        if texel < 1.5 or side < 8:
            break
        at += side * side
        side //= 2
        texel *= 0.5
    x, y = (u - np.floor(u)) * side - 0.5, (v - np.floor(v)) * side - 0.5
    ix, iy = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - ix), np.float32(y - iy)
    x0, x1 = ix % side, (ix + 1) % side
    y0, y1 = (iy % side) * side + at, ((iy + 1) % side) * side + at
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    ta, tb, tc, td = texels[y0 + x0], texels[y0 + x1], texels[y1 + x0], texels[y1 + x1]
    r = wa * linear[ta[0]] + wb * linear[tb[0]] + wc * linear[tc[0]] + wd * linear[td[0]]
    g = wa * linear[ta[1]] + wb * linear[tb[1]] + wc * linear[tc[1]] + wd * linear[td[1]]
    b = wa * linear[ta[2]] + wb * linear[tb[2]] + wc * linear[tc[2]] + wd * linear[td[2]]
    return r, g, b
