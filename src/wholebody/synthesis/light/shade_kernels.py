"""Shading of painted people: soft shadows at the vertices, cloth, skin and eyes at the pixels."""

from __future__ import annotations

import numpy as np

from wholebody.drawing.compiled import compiled
from wholebody.drawing.raster import barycentric, samples_agree
from wholebody.synthesis.clothes import paint_kernels as p
from wholebody.synthesis.clothes import worn_kernels as gm
from wholebody.synthesis.clothes.paint_kernels import garment_color, garment_distance, noise4, skin_color
from wholebody.synthesis.clothes.worn_kernels import texel_color

_FAST = {"contract", "reassoc", "arcp", "nsz"}
_EYE, _MOUTH, _FACE, _SCALP, _LIP, _BROWS = p.EYE, p.MOUTH, p.FACE, p.SCALP, p.LIP, p.BROWS
# Metres over which a garment of each kind fades out at its edge; 0: within a pixel.
_FRINGE = np.zeros(9, np.float32)
_FRINGE[p.HAIR] = _FRINGE[p.LONG_HAIR] = 0.004
_FRINGE[p.BEARD] = 0.016
_BUMP, _OPACITY, _SHINE, _SEED = p.BUMP, p.OPACITY, p.SHINE, p.SEED
_PATTERNED, _LUMINANCE, _MATRIX, _OFFSET, _IS_HAIR = gm.PATTERNED, gm.LUMINANCE, gm.MATRIX, gm.OFFSET, gm.HAIR


@compiled(fastmath=_FAST)
def exposure(points, normals, direction, cell, bias, spread):
    """(V,) 0..1: how much of a distant light in `direction` reaches each vertex, by a depth map that the vertices
    themselves are splatted into (`spread` cells each way). Cheaper than drawing the faces, and soft."""
    count = points.shape[0]
    dx, dy, dz = direction[0], direction[1], direction[2]
    if abs(dy) < 0.9:
        ax, ay, az = dz, np.float32(0), -dx
    else:
        ax, ay, az = np.float32(0), dz, -dy
    length = 1 / np.sqrt(ax * ax + ay * ay + az * az)
    ax, ay, az = ax * length, ay * length, az * length
    bx, by, bz = dy * az - dz * ay, dz * ax - dx * az, dx * ay - dy * ax
    uvw = np.empty((count, 3), np.float32)
    low_u, low_v, high_u, high_v = np.float32(1e9), np.float32(1e9), np.float32(-1e9), np.float32(-1e9)
    for i in range(count):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        u, v = (x * ax + y * ay + z * az) / cell, (x * bx + y * by + z * bz) / cell
        uvw[i, 0], uvw[i, 1], uvw[i, 2] = u, v, x * dx + y * dy + z * dz
        low_u, low_v, high_u, high_v = min(low_u, u), min(low_v, v), max(high_u, u), max(high_v, v)
    cols, rows = min(int(high_u - low_u) + 4, 512), min(int(high_v - low_v) + 4, 512)
    nearest = np.full((rows, cols), np.float32(-1e9), np.float32)
    for i in range(count):
        c, r = int(uvw[i, 0] - low_u + 1.5), int(uvw[i, 1] - low_v + 1.5)
        w = uvw[i, 2]
        for y in range(max(r - spread, 0), min(r + spread + 1, rows)):
            for x in range(max(c - spread, 0), min(c + spread + 1, cols)):
                if w > nearest[y, x]:
                    nearest[y, x] = w
    out = np.empty(count, np.float32)
    for i in range(count):
        if normals[i, 0] * dx + normals[i, 1] * dy + normals[i, 2] * dz <= 0:
            out[i] = 0
            continue
        u, v, w = uvw[i, 0] - low_u + 1, uvw[i, 1] - low_v + 1, uvw[i, 2] + bias
        c, r = min(int(u), cols - 2), min(int(v), rows - 2)
        fu, fv = u - c, v - r
        lit = np.float32(0)
        if nearest[r, c] < w:
            lit += (1 - fu) * (1 - fv)
        if nearest[r, c + 1] < w:
            lit += fu * (1 - fv)
        if nearest[r + 1, c] < w:
            lit += (1 - fu) * fv
        if nearest[r + 1, c + 1] < w:
            lit += fu * fv
        out[i] = lit
    return out


@compiled(fastmath=_FAST)
def light_vertices(points, normals, sh, normal_to_world, sun_direction, directions, out):
    """`out` (V,4): ambient irradiance / pi darkened in folds and under limbs, and the exposure to the main light."""
    count = points.shape[0]
    open_, total = np.zeros(count, np.float32), np.full(count, np.float32(0.08), np.float32)
    open_ += np.float32(0.06)
    for k in range(directions.shape[0]):
        d = directions[k]
        reached = exposure(points, normals, d, np.float32(0.035), np.float32(0.035), 1)
        for i in range(count):
            facing = normals[i, 0] * d[0] + normals[i, 1] * d[1] + normals[i, 2] * d[2]
            if facing > 0:
                total[i] += facing
                open_[i] += facing * reached[i]
    sunlit = exposure(points, normals, sun_direction, np.float32(0.012), np.float32(0.022), 1)
    m = normal_to_world
    for i in range(count):
        a, b, c = normals[i, 0], normals[i, 1], normals[i, 2]
        x, y, z = (
            m[0, 0] * a + m[0, 1] * b + m[0, 2] * c,
            m[1, 0] * a + m[1, 1] * b + m[1, 2] * c,
            m[2, 0] * a + m[2, 1] * b + m[2, 2] * c,
        )
        shade = open_[i] / total[i]
        shade = 0.25 + 0.75 * shade
        for ch in range(3):
            e = (
                sh[0, ch] + sh[1, ch] * y + sh[2, ch] * z + sh[3, ch] * x + sh[4, ch] * x * y + sh[5, ch] * y * z
                + sh[6, ch] * (3 * z * z - 1) + sh[7, ch] * x * z + sh[8, ch] * (x * x - y * y)
            )  # fmt: skip
            out[i, ch] = max(e, 0.02 * sh[0, ch]) * shade
        out[i, 3] = sunlit[i]


@compiled(fastmath=_FAST)
def shade_person(points, faces, normals, rest, masks, lit, garments, skin, eye_centre, lattice, sun_direction, sun,
                 focal, cx, cy, samples, inv_depth, face_id, tone, worn_first, worn_rows, looks, uv, uv_faces, texels,
                 levels, linear, color, alpha):  # fmt: skip
    """Fill `color` (H,W,3 uint8) and `alpha` (H,W uint8) from the visibility buffers. `tone` (N,) uint8 maps linear
    0..4. The first `worn_first[0]` faces are skin and painted clothes; item k of what is worn has the faces
    `worn_first[k]` .. `worn_first[k + 1]`, with `uv_faces` counted from the first item's first."""
    height, width = alpha.shape
    body_faces, items = worn_first[0], worn_rows.shape[0]
    layers = garments.shape[0]
    steps = (tone.shape[0] - 1) / np.float32(4.0)
    for y in range(height):
        for x in range(width):
            covered, once, nearest = samples_agree(inv_depth, face_id, y, x, samples)
            if covered == 0:
                continue
            if once and items > 0:
                # Cloth on skin, hair on cloth: an edge, though hardly a step in depth.
                low, high = nearest, nearest
                for sy in range(samples):
                    for sx in range(samples):
                        low = min(low, face_id[y * samples + sy, x * samples + sx])
                        high = max(high, face_id[y * samples + sy, x * samples + sx])
                if high >= body_faces:
                    once = low >= worn_first[items - 1]
                    for item in range(items):
                        once = once or (low >= worn_first[item] and high < worn_first[item + 1])
            r, gr, bl = np.float32(0), np.float32(0), np.float32(0)
            parts = 1 if once else samples * samples
            for k in range(parts):
                if once:
                    f, px, py = nearest, np.float64(x), np.float64(y)
                else:
                    sy, sx = k // samples, k % samples
                    f = face_id[y * samples + sy, x * samples + sx]
                    if f < 0:
                        continue
                    px, py = x - 0.5 + (sx + 0.5) / samples, y - 0.5 + (sy + 0.5) / samples
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                rx, ry = (px - cx) / focal, (py - cy) / focal
                w0, w1, w2 = barycentric(points, a, b, c, rx, ry)
                nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
                ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
                nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
                x0 = w0 * rest[a, 0] + w1 * rest[b, 0] + w2 * rest[c, 0]
                y0 = w0 * rest[a, 1] + w1 * rest[b, 1] + w2 * rest[c, 1]
                z0 = w0 * rest[a, 2] + w1 * rest[b, 2] + w2 * rest[c, 2]
                depth = w0 * points[a, 2] + w1 * points[b, 2] + w2 * points[c, 2]
                footprint = np.float32(depth / focal)
                cr, cg, cb, shine, bump, seed = (
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                )
                eye, naked = np.float32(0), np.float32(0)
                if f >= body_faces:
                    if nx * rx + ny * ry + nz > 0:  # the inside of cloth, the other side of a lock
                        nx, ny, nz = -nx, -ny, -nz
                    item = 0
                    while item + 1 < items and f >= worn_first[item + 1]:
                        item += 1
                    row, look = worn_rows[item], looks[item]
                    t = f - body_faces
                    i0, i1, i2 = uv_faces[t, 0], uv_faces[t, 1], uv_faces[t, 2]
                    u = w0 * uv[i0, 0] + w1 * uv[i1, 0] + w2 * uv[i2, 0]
                    v = w0 * uv[i0, 1] + w1 * uv[i1, 1] + w2 * uv[i2, 1]
                    t0, t1, t2 = texel_color(texels, linear, look, levels, u, v, footprint)
                    m = look[_MATRIX:]
                    cr = max(m[0] * t0 + m[1] * t1 + m[2] * t2 + look[_OFFSET], np.float32(0.001))
                    cg = max(m[3] * t0 + m[4] * t1 + m[5] * t2 + look[_OFFSET + 1], np.float32(0.001))
                    cb = max(m[6] * t0 + m[7] * t1 + m[8] * t2 + look[_OFFSET + 2], np.float32(0.001))
                    share = look[_PATTERNED]
                    if share > 0:
                        # The painted pattern, with the seams and folds that the texture has.
                        g0, g1, g2 = garment_color(row, lattice, x0, y0, z0, footprint)
                        k = (0.2126 * t0 + 0.7152 * t1 + 0.0722 * t2) / look[_LUMINANCE]
                        k = min(np.sqrt(max(k, 0.0)), 1.5)
                        cr += (g0 * k - cr) * share
                        cg += (g1 * k - cg) * share
                        cb += (g2 * k - cb) * share
                    shine, bump, seed = row[_SHINE], row[_BUMP], row[_SEED]
                else:
                    scalp = w0 * masks[a, _SCALP] + w1 * masks[b, _SCALP] + w2 * masks[c, _SCALP]
                    eye = w0 * masks[a, _EYE] + w1 * masks[b, _EYE] + w2 * masks[c, _EYE]
                    # Clothes from the outermost inwards, until nothing below is seen.
                    left = np.float32(1)
                    if eye < 0.5:
                        for g in range(layers - 1, -1, -1):
                            row = garments[g]
                            d = garment_distance(row, x0, y0, z0, scalp)
                            # Cloth ends in an edge, hair and beards in a fringe.
                            fringe = max(footprint, _FRINGE[int(row[0])])
                            cover = min(max(d / fringe + 0.5, 0.0), 1.0) * row[_OPACITY] * left
                            if cover > 0.002:
                                g0, g1, g2 = garment_color(row, lattice, x0, y0, z0, footprint)
                                # Cloth near its hem lies in its own shadow line.
                                edge = 1 - 0.25 * min(max(1 - d / 0.004, 0.0), 1.0) if fringe == footprint else 1.0
                                cr += g0 * cover * edge
                                cg += g1 * cover * edge
                                cb += g2 * cover * edge
                                shine += row[_SHINE] * cover
                                bump += row[_BUMP] * cover
                                seed = row[_SEED]
                                left -= cover
                                if left < 0.01:
                                    break
                    naked = left
                    if left >= 0.01:
                        brow = w0 * masks[a, _BROWS] + w1 * masks[b, _BROWS] + w2 * masks[c, _BROWS]
                        lip = w0 * masks[a, _LIP] + w1 * masks[b, _LIP] + w2 * masks[c, _LIP]
                        mouth = w0 * masks[a, _MOUTH] + w1 * masks[b, _MOUTH] + w2 * masks[c, _MOUTH]
                        face = w0 * masks[a, _FACE] + w1 * masks[b, _FACE] + w2 * masks[c, _FACE]
                        s0, s1, s2, s3 = skin_color(
                            skin, lattice, x0, y0, z0, brow, lip, mouth, eye, face, eye_centre, footprint
                        )
                        cr += s0 * left
                        cg += s1 * left
                        cb += s2 * left
                        shine += s3 * left
                fold = np.float32(0)
                if bump > 0.01:
                    # Wrinkles as a turned normal: broad folds and fine ones, the fine ones only where a pixel can
                    # show them.
                    n0, n1, n2, n3 = noise4(lattice, x0 * 24 + seed, y0 * 17, z0 * 24)
                    m0, m1, m2, m3 = noise4(lattice, x0 * 70 + seed, y0 * 50, z0 * 70)
                    fine = min(max(1.5 - footprint * 120, 0.0), 0.7)
                    # Creases run across limbs and around the trunk.
                    if abs(x0) > 0.2 and y0 > 0.25:
                        c0, c1, c2, c3 = noise4(lattice, x0 * 38 + seed + n3, y0 * 9 + n2, z0 * 9)
                    else:
                        c0, c1, c2, c3 = noise4(lattice, x0 * 9 + seed + n2, y0 * 38 + n3, z0 * 9)
                    nx += bump * (n0 + fine * m0 + np.float32(0.7) * c0)
                    ny += bump * (n1 + fine * m1 + np.float32(0.7) * c1)
                    nz += bump * (n2 + fine * m2 + np.float32(0.7) * c2)
                    fold = bump * (n3 + fine * m3 + c3 - np.float32(0.3)) * np.float32(0.22)
                length = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
                nx, ny, nz = nx * length, ny * length, nz * length
                facing = nx * sun_direction[0] + ny * sun_direction[1] + nz * sun_direction[2]
                exposed = w0 * lit[a, 3] + w1 * lit[b, 3] + w2 * lit[c, 3]
                soft = np.float32(0.18) * naked  # light enters skin and comes out beside
                diffuse = max((facing + soft) / (1 + soft), 0.0) * exposed
                e0 = w0 * lit[a, 0] + w1 * lit[b, 0] + w2 * lit[c, 0]
                e1 = w0 * lit[a, 1] + w1 * lit[b, 1] + w2 * lit[c, 1]
                e2 = w0 * lit[a, 2] + w1 * lit[b, 2] + w2 * lit[c, 2]
                view = 1 / np.sqrt(rx * rx + ry * ry + 1)
                toward = -(nx * rx + ny * ry + nz) * view
                hx, hy, hz = sun_direction[0] - rx * view, sun_direction[1] - ry * view, sun_direction[2] - view
                half = max((nx * hx + ny * hy + nz * hz) / np.sqrt(hx * hx + hy * hy + hz * hz + 1e-9), 0.0)
                half *= half
                half *= half
                half *= half
                half *= half
                if eye > 0.5:
                    half = half * half * half * 4
                rim = 1 - min(max(toward, 0.0), 1.0)
                rim *= rim * rim
                gloss = shine * (half * 1.6 * exposed if facing > 0 else 0.0)
                sheen = shine * (0.12 + rim * 0.9)
                amb = 1 + fold
                r += cr * (e0 * amb + sun[0] * diffuse) + gloss * sun[0] + sheen * e0
                gr += cg * (e1 * amb + sun[1] * diffuse) + gloss * sun[1] + sheen * e1
                bl += cb * (e2 * amb + sun[2] * diffuse) + gloss * sun[2] + sheen * e2
            n = np.float32(1) if once else np.float32(covered)
            color[y, x, 0] = tone[int(min(max(r / n, 0.0), 3.999) * steps)]
            color[y, x, 1] = tone[int(min(max(gr / n, 0.0), 3.999) * steps)]
            color[y, x, 2] = tone[int(min(max(bl / n, 0.0), 3.999) * steps)]
            alpha[y, x] = (covered * 255 + samples * samples // 2) // (samples * samples)


@compiled()
def bleed(color, alpha):
    """Carry edge colours outwards over what alpha hides, in place: no dark halo when a layer is resampled or
    compressed."""
    height, width = alpha.shape
    first = -1
    for y in range(height):
        left = -1
        for x in range(width):
            if alpha[y, x] > 0:
                if left < 0:
                    for k in range(x):
                        color[y, k] = color[y, x]
                elif x - left > 1:
                    middle = (left + x) // 2
                    for k in range(left + 1, x):
                        color[y, k] = color[y, left] if k <= middle else color[y, x]
                left = x
        if left >= 0:
            for k in range(left + 1, width):
                color[y, k] = color[y, left]
            if first < 0:
                first = y
                for k in range(y):
                    color[k] = color[y]
        elif first >= 0:
            color[y] = color[y - 1]


@compiled()
def visible_points(joints_px, joints_z, tolerance, inv_depth, samples, out):
    """(J,) bool: inside the picture and not more than `tolerance` metres behind the surface that is seen there."""
    rows, cols = inv_depth.shape
    for j in range(joints_px.shape[0]):
        out[j] = False
        x, y = int((joints_px[j, 0] + 0.5) * samples), int((joints_px[j, 1] + 0.5) * samples)
        if joints_px[j, 0] < -0.5 or joints_px[j, 1] < -0.5 or x >= cols or y >= rows or joints_z[j] <= 0:
            continue
        # The farthest of the samples around: a joint at the outline counts as seen if it is seen beside it.
        far = np.float32(1e9)
        for yy in range(max(y - 1, 0), min(y + 2, rows)):
            for xx in range(max(x - 1, 0), min(x + 2, cols)):
                far = min(far, inv_depth[yy, xx])
        out[j] = far <= 0 or joints_z[j] - 1 / far < tolerance[j]
