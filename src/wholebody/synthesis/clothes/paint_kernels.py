"""What a person's surface looks like: numba functions from a place on the resting body to distance, colour and
thickness.

Clothes are painted by where a point lies on the open body's mean shape in T-pose (`rest`, metres: y up from the
pelvis, x to the left hand, z to the front), so that edges and patterns are sharp at any resolution and follow every
body and pose. A painted garment is one row of numbers; `looks` fills the rows and this file gives them meaning.
"""

from __future__ import annotations

import numpy as np

from wholebody.drawing.compiled import compiled

_FAST = {"contract", "reassoc", "arcp", "nsz"}

# Columns of a garment's row.
KIND, HIGH, LOW, SLEEVE, NECK, DROP, VDEPTH, VWIDTH, OPEN = range(9)
PATTERN, FREQUENCY, DUTY, COLOR_A, COLOR_B, COLOR_C = 9, 10, 11, 12, 15, 18
THICKNESS, FLARE, WRINKLE, BUMP, OPACITY, SHINE, SEED = 21, 22, 23, 24, 25, 26, 27
COLUMNS = 28
# Kinds.
TOP, BOTTOM, SHOES, SOCKS, GLOVES, HAIR, BEARD, LONG_HAIR = range(1, 9)
# Patterns.
SOLID, HOOPS, BARS, CHECKS, DOTS, BLOTCHES, GRADIENT, PRINT, FINE = range(9)

# Columns of the skin's row: linear colours, then amounts.
SKIN, LIPS, BROW, IRIS, INSIDE = 0, 3, 6, 9, 12
FRECKLES, MOTTLE, BLUSH, BROW_AMOUNT, LIP_AMOUNT, SKIN_SHINE, SKIN_SEED = 15, 16, 17, 18, 19, 20, 21
SKIN_COLUMNS = 22

# Per-vertex masks of the body (0..1), in this order.
MASKS = ("scalp", "brow", "lips", "mouth_inside", "eye", "face")
SCALP, BROWS, LIP, MOUTH, EYE, FACE = range(6)

NOISE_SIZE = 32


def noise_lattice() -> np.ndarray:
    """A periodic lattice of random 4-vectors (the same always: variety comes from where it is read)."""
    values = np.random.default_rng(12345).uniform(-1, 1, (NOISE_SIZE, NOISE_SIZE, NOISE_SIZE, 4))
    return values.astype(np.float32)


@compiled(fastmath=_FAST)
def noise4(lattice, x, y, z):
    """Smooth periodic noise: four values in -1..1, features of size 1."""
    fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
    ix, iy, iz = int(fx) & 31, int(fy) & 31, int(fz) & 31
    jx, jy, jz = (ix + 1) & 31, (iy + 1) & 31, (iz + 1) & 31
    x, y, z = np.float32(x - fx), np.float32(y - fy), np.float32(z - fz)
    x, y, z = x * x * (3 - 2 * x), y * y * (3 - 2 * y), z * z * (3 - 2 * z)
    a, b, c, d = (1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y
    w0, w1, w2, w3 = a * (1 - z), b * (1 - z), c * (1 - z), d * (1 - z)
    w4, w5, w6, w7 = a * z, b * z, c * z, d * z
    p0, p1, p2, p3 = lattice[iz, iy, ix], lattice[iz, iy, jx], lattice[iz, jy, ix], lattice[iz, jy, jx]
    p4, p5, p6, p7 = lattice[jz, iy, ix], lattice[jz, iy, jx], lattice[jz, jy, ix], lattice[jz, jy, jx]
    n0 = w0 * p0[0] + w1 * p1[0] + w2 * p2[0] + w3 * p3[0] + w4 * p4[0] + w5 * p5[0] + w6 * p6[0] + w7 * p7[0]
    n1 = w0 * p0[1] + w1 * p1[1] + w2 * p2[1] + w3 * p3[1] + w4 * p4[1] + w5 * p5[1] + w6 * p6[1] + w7 * p7[1]
    n2 = w0 * p0[2] + w1 * p1[2] + w2 * p2[2] + w3 * p3[2] + w4 * p4[2] + w5 * p5[2] + w6 * p6[2] + w7 * p7[2]
    n3 = w0 * p0[3] + w1 * p1[3] + w2 * p2[3] + w3 * p3[3] + w4 * p4[3] + w5 * p5[3] + w6 * p6[3] + w7 * p7[3]
    return n0, n1, n2, n3


@compiled(fastmath=_FAST)
def garment_distance(g, x, y, z, scalp):
    """Metres inside the garment's edge (negative: outside it), at a place on the resting body."""
    kind = int(g[KIND])
    ax = abs(x)
    if kind == TOP:
        front = min(max((z - 0.01) / 0.07, 0.0), 1.0)
        v = max(1.0 - ax / g[VWIDTH], 0.0)
        neck = g[NECK] + 0.55 * ax - front * (g[DROP] + g[VDEPTH] * v) - y
        # Past the shoulder there is no neckline; near the arm pits the hem does not matter.
        if ax > 0.17:
            neck = 1.0
        d = min(g[SLEEVE] - ax, neck)
        if ax < 0.21:
            d = min(d, y - g[LOW])
        if g[OPEN] > 0 and z > 0.03 and y < 0.46 and ax < 0.2:
            # An open front widens downwards.
            d = min(d, ax - g[OPEN] * (0.55 + 0.9 * max(0.42 - y, 0.0)))
        return d
    if kind == BOTTOM:
        return 1.0 * min(g[HIGH] - y, y - g[LOW]) if ax < 0.24 else -1.0
    if kind == SHOES or kind == SOCKS:
        return g[HIGH] - y - 0.12 * max(0.06 - z, 0.0) * 0.0
    if kind == GLOVES:
        return ax - g[LOW]
    if kind == HAIR or kind == LONG_HAIR:
        d = (scalp - 0.5) * 0.03
        # g[HIGH] lowers or raises the hairline at the front, g[LOW] the nape.
        d += g[DROP] * min(max((z - 0.05) / 0.08, 0.0), 1.0) - g[VDEPTH] * min(max((0.06 - z) / 0.06, 0.0), 1.0)
        if kind == LONG_HAIR:
            back = min(0.085 - z + 0.25 * (y - 0.5), 0.085 - 0.15 * max(0.46 - y, 0.0) - ax)
            if y < 0.50:
                back = min(back, 0.05 - z)
            d = max(d, min(min(back, y - g[LOW]), 0.66 - y))
        return d
    if kind == BEARD:
        d = min(0.5375 - y, y - 0.462)
        d = min(d, z - 0.085 - 0.25 * max(y - 0.50, 0.0))
        # Shaved between moustache and cheek.
        cheek = 0.505 + 0.45 * ax
        if y > 0.512 and ax > g[VWIDTH]:
            d = min(d, cheek - y)
        if g[OPEN] > 0:  # chin only
            d = min(d, 0.505 - y)
        return d
    return -1.0


@compiled(fastmath=_FAST)
def garment_color(g, lattice, x, y, z, footprint):
    """Linear RGB of the cloth at a place; `footprint` (metres per pixel) softens pattern edges."""
    a0, a1, a2 = g[COLOR_A], g[COLOR_A + 1], g[COLOR_A + 2]
    pattern = int(g[PATTERN])
    seed = g[SEED]
    if pattern == SOLID:
        mix = 0.0
    elif pattern == GRADIENT:
        mix = min(max((y + 0.9) / 1.3, 0.0), 1.0)
    else:
        # (u, v): around and along the limb or trunk, metres.
        ax = abs(x)
        if ax > 0.2 and y > 0.25:
            u, v = 0.055 * np.arctan2(z - 0.05, y - 0.386), ax
        elif y < -0.08:
            u, v = 0.09 * np.arctan2(ax - 0.13, z - 0.04), y
        else:
            u, v = 0.16 * np.arctan2(x, z - 0.04), y
        f, duty = g[FREQUENCY], g[DUTY]
        soft = max(footprint * f, 0.02)
        if pattern == HOOPS or pattern == BARS:
            s = (v if pattern == HOOPS else u) * f
            s = abs(s - np.floor(s) - 0.5) * 2
            mix = min(max((duty - s) / (2 * soft) + 0.5, 0.0), 1.0)
        elif pattern == CHECKS:
            s, t = u * f, v * f
            s, t = abs(s - np.floor(s) - 0.5) * 2, abs(t - np.floor(t) - 0.5) * 2
            mix = 0.5 * min(max((duty - s) / (2 * soft) + 0.5, 0.0), 1.0) + 0.5 * min(
                max((duty - t) / (2 * soft) + 0.5, 0.0), 1.0
            )
        elif pattern == DOTS:
            s, t = u * f, v * f
            s, t = s - np.floor(s) - 0.5, t - np.floor(t) - 0.5
            mix = min(max((0.5 * duty - np.sqrt(s * s + t * t)) / soft + 0.5, 0.0), 1.0)
        elif pattern == BLOTCHES:
            n0, n1, n2, n3 = noise4(lattice, x * f + seed, y * f, z * f)
            mix = min(max((n0 + 0.5 * n1 - 0.4 + duty) / (4 * soft) + 0.5, 0.0), 1.0)
            other = min(max((n2 + 0.5 * n3 - 0.4) / (4 * soft) + 0.5, 0.0), 1.0)
            for_c = other * (1 - mix)
            a0 += (g[COLOR_C] - a0) * for_c
            a1 += (g[COLOR_C + 1] - a1) * for_c
            a2 += (g[COLOR_C + 2] - a2) * for_c
        elif pattern == PRINT:
            inside = min(min(0.11 - ax, z - 0.06), min(y - 0.13, 0.33 - y)) if ax < 0.2 else -1.0
            mix = 0.0
            if inside > 0:
                n0, n1, n2, n3 = noise4(lattice, x * f + seed, y * f, seed)
                mix = min(max((n0 - 0.15 + duty * 0.3) / (4 * soft) + 0.5, 0.0), 1.0) * min(inside / 0.01, 1.0)
                if n1 > 0.2:
                    a0, a1, a2 = (
                        a0 + (g[COLOR_C] - a0) * mix,
                        a1 + (g[COLOR_C + 1] - a1) * mix,
                        a2 + (g[COLOR_C + 2] - a2) * mix,
                    )
                    mix = 0.0
        else:  # FINE: denim, tweed, knitwear
            n0, n1, n2, n3 = noise4(lattice, u * f + seed, v * f, z * 7)
            m0, m1, m2, m3 = noise4(lattice, x * 9 + seed, y * 5, z * 9)
            mix = min(max(0.5 + 0.35 * n0 + 0.6 * m0 * duty, 0.0), 1.0)
    return a0 + (g[COLOR_B] - a0) * mix, a1 + (g[COLOR_B + 1] - a1) * mix, a2 + (g[COLOR_B + 2] - a2) * mix


@compiled(fastmath=_FAST)
def skin_color(s, lattice, x, y, z, brow, lip, mouth, eye, face, eye_centre, footprint):
    """Linear RGB and shine of skin, lips, brows, eyes and mouth."""
    seed = s[SKIN_SEED]
    if eye > 0.5:
        ex, ey = abs(x) - eye_centre[0], y - eye_centre[1]
        r = np.sqrt(ex * ex + ey * ey)
        soft = max(footprint, 0.0004)
        # The mesh's eyeballs are a third larger than real ones, and so are these.
        iris = min(max((0.0072 - r) / soft + 0.5, 0.0), 1.0) if z > eye_centre[2] else 0.0
        pupil = min(max((0.0030 - r) / soft + 0.5, 0.0), 1.0)
        # White is nowhere white: lids and lashes shade it, most from above.
        shade = max(0.62 - 22.0 * abs(ex) - 25.0 * max(ey, 0.0), 0.15)
        c0, c1, c2 = shade, shade * 0.96, shade * 0.94
        ring = 0.45 + 0.55 * min(max((0.0066 - r) / 0.0014, 0.0), 1.0)
        c0 += (s[IRIS] * ring - c0) * iris
        c1 += (s[IRIS + 1] * ring - c1) * iris
        c2 += (s[IRIS + 2] * ring - c2) * iris
        dark = 1 - pupil * iris * 0.97
        return c0 * dark, c1 * dark, c2 * dark, 0.3
    n0, n1, n2, n3 = noise4(lattice, x * 14 + seed, y * 14, z * 14)
    m = 1 + s[MOTTLE] * n0
    c0, c1, c2 = s[SKIN] * m, s[SKIN + 1] * (m + 0.03 * n1), s[SKIN + 2] * (m + 0.04 * n2)
    if face > 0.3 or abs(x) > 0.7:
        # Cheeks, nose, ears and finger tips hold more blood.
        bx, by = abs(x) - 0.042, y - 0.548
        red = np.exp(-(bx * bx + by * by) / 0.0005) + 0.8 * np.exp(-(x * x + (y - 0.55) ** 2) / 0.0002)
        if abs(x) > 0.7:
            red = 0.7 * min((abs(x) - 0.7) / 0.12, 1.0)
        elif abs(x) > 0.07:
            red = 0.8
        red *= s[BLUSH]
        c0, c1, c2 = c0 * (1 + 0.12 * red), c1 * (1 - 0.22 * red), c2 * (1 - 0.18 * red)
    if s[FRECKLES] > 0:
        f0, f1, f2, f3 = noise4(lattice, x * 230 + seed, y * 230, z * 230)
        spot = min(max((f0 + 0.4 * n3 - 0.75) * 3, 0.0), 1.0) * s[FRECKLES]
        c0, c1, c2 = c0 * (1 - 0.35 * spot), c1 * (1 - 0.5 * spot), c2 * (1 - 0.55 * spot)
    shine = s[SKIN_SHINE]
    if lip > 0.02:
        a = min(max((lip - 0.5) * 4 + 0.5, 0.0), 1.0) * s[LIP_AMOUNT]
        c0, c1, c2 = c0 + (s[LIPS] - c0) * a, c1 + (s[LIPS + 1] - c1) * a, c2 + (s[LIPS + 2] - c2) * a
        shine += 0.15 * a
    if brow > 0.02:
        a = min(max((brow - 0.55) * 2.2 + 0.3 * n1, 0.0), 1.0) * s[BROW_AMOUNT]
        c0, c1, c2 = c0 + (s[BROW] - c0) * a, c1 + (s[BROW + 1] - c1) * a, c2 + (s[BROW + 2] - c2) * a
    if mouth > 0.02:
        deep = min(max((0.172 - z) / 0.03, 0.0), 1.0)
        a = min(mouth * 1.5, 1.0)
        k = 1 - 0.75 * deep
        t0, t1, t2 = s[INSIDE] * k, s[INSIDE + 1] * k, s[INSIDE + 2] * k
        # No teeth in the mesh: paint the front of the upper jaw.
        if y > 0.5165 and z > 0.155 and abs(x) < 0.019 and z < 0.1735:
            t0, t1, t2 = 0.62, 0.57, 0.48
        c0, c1, c2 = c0 + (t0 - c0) * a, c1 + (t1 - c1) * a, c2 + (t2 - c2) * a
    return c0, c1, c2, shine


@compiled(fastmath=_FAST)
def dress(points, normals, rest, masks, garments, lattice, down, scale):
    """Move clothed vertices outwards, in place: thickness, looseness, wrinkles, and what hangs from raised limbs.
    `down` is the direction of gravity in the frame of `points`; `scale` the person's height over the mean one's."""
    for i in range(points.shape[0]):
        x, y, z = rest[i, 0], rest[i, 1], rest[i, 2]
        move = 0.0
        for k in range(garments.shape[0]):
            g = garments[k]
            if g[THICKNESS] <= 0:
                continue
            d = garment_distance(g, x, y, z, masks[i, SCALP])
            if d <= -0.002:
                continue
            kind = int(g[KIND])
            ramp = 0.012 if kind == TOP or kind == BOTTOM else (0.02 if kind == HAIR or kind == LONG_HAIR else 0.006)
            t = min(max((d + 0.002) / ramp, 0.0), 1.0)
            t = t * t * (3 - 2 * t)
            loose = 0.0
            if kind == TOP:
                loose = min(max((0.30 - y) / 0.35, 0.0), 1.0)
                if abs(x) > 0.2:  # sleeves widen towards their end
                    loose = 0.3 + 0.7 * min(max((abs(x) - 0.2) / max(g[SLEEVE] - 0.2, 0.05), 0.0), 1.0)
            elif kind == BOTTOM:
                loose = min(max((-0.05 - y) / max(-0.05 - g[LOW], 0.1), 0.0), 1.0)
            amount = g[THICKNESS] + g[FLARE] * loose
            n0, n1, n2, n3 = noise4(lattice, x * 11 + g[SEED], y * 9 + 0.37, z * 11)
            m0, m1, m2, m3 = noise4(lattice, x * 26 + g[SEED], y * 21, z * 26)
            amount += g[WRINKLE] * (n0 + 0.5 * m0) * (0.4 + loose if kind == TOP or kind == BOTTOM else 1.0)
            hang = normals[i, 0] * down[0] + normals[i, 1] * down[1] + normals[i, 2] * down[2]
            if kind == TOP or kind == BOTTOM:
                amount *= 1 + 0.6 * hang
            move = max(move, t * amount)
        if move > 0:
            move *= scale
            for c in range(3):
                points[i, c] += normals[i, c] * move
