"""Triangle meshes to pixels on the CPU, with numba: no OpenGL, no display.

Two passes. *Visibility* finds, for every sample of a `samples` x `samples` grid in each pixel, the nearest face and
its inverse depth. *Shading* runs once per pixel where all samples agree on the surface and once per sample at
outlines, so that anti-aliasing costs little.

Frames and units: camera frame (x right, y down, z forward), metres; pixels follow OpenCV: the centre of the pixel in
row i and column j is at (x, y) = (j, i), so a picture spans -0.5 .. width - 0.5. Colours are sRGB-encoded, 0..1, at
the interface, and linear inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from wholebody.drawing.compiled import compiled
from wholebody.errors import BadInput

NEAR_M = 0.02  # nothing nearer to the camera than this is drawn
# A pixel whose samples differ by more than this in relative depth holds an outline inside the mesh: shade every sample.
_DEPTH_STEP = 0.02
_FAST = {"contract", "reassoc", "arcp", "nsz"}  # no "nnan": NaN vertices must stay comparable


@dataclass(frozen=True)
class Light:
    """A constant ambient and one distant light. `direction_cam` points from the surface towards the light."""

    direction_cam: tuple[float, float, float] = (-0.35, -0.6, -0.72)
    ambient: tuple[float, float, float] = (0.35, 0.36, 0.40)
    directional: tuple[float, float, float] = (0.75, 0.73, 0.68)


@dataclass(frozen=True)
class Mesh:
    """One mesh to draw: vertices (V,3) in the camera frame, faces (F,3), counter-clockwise seen from outside.

    Colour is `vertex_colors` (V,3, or 1,3 where all have one; sRGB 0..1), or a `texture` (h,w,3; sRGB uint8 or 0..1,
    first row is v = 1) with `uv` (T,2) and `uv_faces` (F,3), or a neutral grey.
    """

    vertices_cam: np.ndarray
    faces: np.ndarray
    vertex_colors: np.ndarray | None = None
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    texture: np.ndarray | None = None


@dataclass(frozen=True)
class Drawing:
    """What was drawn. `rgba` (H,W,4) float32: sRGB colour, not multiplied by alpha. `depth` (H,W): metres along z of
    each pixel's nearest sample, inf where empty. `face_id`, `mesh_id` (H,W) int32 of that sample, -1 where empty."""

    rgba: np.ndarray
    depth: np.ndarray
    face_id: np.ndarray
    mesh_id: np.ndarray = field(repr=False)

    def over(self, image: np.ndarray, opacity: float = 1.0) -> np.ndarray:
        """The drawing blended over `image` (H,W,3 uint8 RGB) -> uint8."""
        if image.shape[:2] != self.rgba.shape[:2]:
            raise BadInput(
                f"the picture is {image.shape[:2]} (h, w), the drawing {self.rgba.shape[:2]}: draw at its size"
            )
        alpha = self.rgba[..., 3:] * np.float32(opacity)
        mixed = image * (1 - alpha) + self.rgba[..., :3] * (255 * alpha)
        return (mixed + 0.5).clip(0, 255).astype(np.uint8)


def draw_mesh(
    vertices_cam: np.ndarray,
    faces: np.ndarray,
    focal_px: Sequence[float] | float,
    principal_px: Sequence[float],
    size_hw: tuple[int, int],
    vertex_colors: np.ndarray | None = None,
    *,
    normals: np.ndarray | None = None,
    uv: np.ndarray | None = None,
    uv_faces: np.ndarray | None = None,
    texture: np.ndarray | None = None,
    light: Light | None = None,
    samples: int = 2,
    cull_back: bool = True,
) -> Drawing:
    """Draw one lit mesh; see `Mesh` for the arrays and `Drawing` for what comes back."""
    mesh = Mesh(vertices_cam, faces, vertex_colors, normals, uv, uv_faces, texture)
    return draw_meshes([mesh], focal_px, principal_px, size_hw, light=light, samples=samples, cull_back=cull_back)


def draw_meshes(
    meshes: Sequence[Mesh],
    focal_px: Sequence[float] | float,
    principal_px: Sequence[float],
    size_hw: tuple[int, int],
    *,
    light: Light | None = None,
    samples: int = 2,
    cull_back: bool = True,
) -> Drawing:
    """Draw several lit meshes, which hide each other by depth. `cull_back` drops faces seen from behind (right for
    closed bodies)."""
    light = light or Light()
    height, width = int(size_hw[0]), int(size_hw[1])
    if height < 1 or width < 1 or samples < 1:
        raise BadInput(
            f"cannot draw a picture of {height} x {width} pixels with {samples} samples: all must be at least 1"
        )
    fx, fy = np.broadcast_to(np.asarray(focal_px, np.float64), (2,))
    cx, cy = np.asarray(principal_px, np.float64)
    if not (np.isfinite([fx, fy, cx, cy]).all() and fx > 0 and fy > 0):
        raise BadInput(
            f"focal length {focal_px} and principal point {principal_px} must be finite, the focal length above 0"
        )

    inv_depth, face_id = (
        np.zeros((height * samples, width * samples), np.float32),
        np.full((height * samples, width * samples), -1, np.int32),
    )
    first_face = [0]
    parts = []
    for mesh in meshes:
        points, tri = _checked(mesh)
        visibility(points, tri, fx, fy, cx, cy, samples, cull_back, first_face[-1], inv_depth, face_id)
        parts.append((points, tri))
        first_face.append(first_face[-1] + len(tri))

    rgba = np.zeros((height, width, 4), np.float32)
    lamp = np.asarray(light.direction_cam, np.float64)
    lamp = lamp / np.linalg.norm(lamp)
    for mesh, (points, tri), first in zip(meshes, parts, first_face, strict=False):
        normals = (
            vertex_normals(points, tri) if mesh.normals is None else np.ascontiguousarray(mesh.normals, np.float32)
        )
        if mesh.texture is not None:
            if mesh.uv is None or mesh.uv_faces is None:
                raise BadInput("a texture needs uv and uv_faces")
            texture = np.asarray(mesh.texture)[..., :3]
            texture = srgb_to_linear(texture / 255 if texture.dtype == np.uint8 else texture)
            color, color_faces, has_texture = np.ascontiguousarray(mesh.uv, np.float32), _faces(mesh.uv_faces), True
        else:
            texture, color_faces, has_texture = np.zeros((2, 2, 3), np.float32), tri, False
            grey = np.full((1, 3), 0.72) if mesh.vertex_colors is None else mesh.vertex_colors
            color = np.ascontiguousarray(np.broadcast_to(srgb_to_linear(grey), (len(points), 3)))
        _shade_lit(
            points, tri, normals, color, color_faces, texture, has_texture, fx, fy, cx, cy, samples, first,
            np.asarray(light.ambient, np.float32), np.asarray(light.directional, np.float32), lamp, inv_depth, face_id,
            rgba,
        )  # fmt: skip
    depth = np.empty((height, width), np.float32)
    local, mesh_id = np.empty((height, width), np.int32), np.empty((height, width), np.int32)
    _finish(rgba, inv_depth, face_id, samples, np.asarray(first_face, np.int32), _curve(), depth, local, mesh_id)
    return Drawing(rgba, depth, local, mesh_id)


@lru_cache(maxsize=1)
def _curve() -> np.ndarray:
    """`linear_to_srgb` at even steps: read between two of them it is right to 2e-5, and sixteen times as fast."""
    return linear_to_srgb(np.linspace(0, 1, 4097))


def srgb_to_linear(color: np.ndarray) -> np.ndarray:
    color = np.asarray(color, np.float32)
    return np.where(color <= 0.04045, color / 12.92, ((np.maximum(color, 0) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(color: np.ndarray) -> np.ndarray:
    color = np.asarray(color, np.float32).clip(0, 1)
    return np.where(color <= 0.0031308, color * 12.92, 1.055 * color ** (1 / 2.4) - 0.055).astype(np.float32)


def _faces(faces: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(faces, np.int32)


def _checked(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    points, tri = np.ascontiguousarray(mesh.vertices_cam, np.float32), _faces(mesh.faces)
    if points.ndim != 2 or points.shape[1] != 3 or tri.ndim != 2 or tri.shape[1] != 3:
        raise BadInput(f"a mesh is vertices (V, 3) and faces (F, 3); got {points.shape} and {tri.shape}")
    if len(tri) and (tri.min() < 0 or tri.max() >= len(points)):
        raise BadInput(f"faces refer to vertices {tri.min()}..{tri.max()}, but there are {len(points)}")
    return points, tri


@compiled(fastmath=_FAST)
def vertex_normals(points, faces):
    """Area-weighted unit normals (V,3) float32."""
    out = np.zeros_like(points)
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = points[b, 0] - points[a, 0], points[b, 1] - points[a, 1], points[b, 2] - points[a, 2]
        vx, vy, vz = points[c, 0] - points[a, 0], points[c, 1] - points[a, 1], points[c, 2] - points[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for i in range(out.shape[0]):
        s = out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2
        if s > 0:
            s = 1 / np.sqrt(s)
            out[i, 0] *= s
            out[i, 1] *= s
            out[i, 2] *= s
    return out


@compiled(fastmath=_FAST)
def visibility(points, faces, fx, fy, cx, cy, samples, cull_back, first_face, inv_depth, face_id):
    """Nearest face per sample. `inv_depth` (H*s, W*s) starts at 0, `face_id` at -1; faces are numbered from
    `first_face`, so that several meshes can be drawn into the same arrays."""
    rows, cols = inv_depth.shape
    count = points.shape[0]
    screen = np.empty((count, 3), np.float32)  # sample grid x, y, and 1/z (0: behind the near plane)
    for i in range(count):
        z = points[i, 2]
        if z > NEAR_M:
            iz = 1.0 / z
            screen[i, 0] = (fx * points[i, 0] * iz + cx + 0.5) * samples - 0.5
            screen[i, 1] = (fy * points[i, 1] * iz + cy + 0.5) * samples - 0.5
            screen[i, 2] = iz
        else:
            screen[i, 2] = 0.0
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = screen[a, 2], screen[b, 2], screen[c, 2]
        if za > 0 and zb > 0 and zc > 0:
            x0, y0, x1, y1, x2, y2 = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            # y points down: a counter-clockwise face seen from outside turns clockwise on the screen, with area < 0
            if area == 0 or (cull_back and area > 0) or not (area == area):
                continue
            xmin, xmax, ymin, ymax = (
                min(x0, min(x1, x2)),
                max(x0, max(x1, x2)),
                min(y0, min(y1, y2)),
                max(y0, max(y1, y2)),
            )
            if xmax < 0 or ymax < 0 or xmin > cols - 1 or ymin > rows - 1:
                continue
            left, right = int(np.ceil(max(xmin, 0.0))), int(np.floor(min(xmax, cols - 1.0)))
            top, bottom = int(np.ceil(max(ymin, 0.0))), int(np.floor(min(ymax, rows - 1.0)))
            if left > right or top > bottom:
                continue
            scale = np.float32(1.0) / area
            d1x, d1y, d2x, d2y = (y2 - y0) * scale, (x2 - x0) * scale, (y1 - y0) * scale, (x1 - x0) * scale
            dzx = d1x * (zb - za) - d2x * (zc - za)
            # Faces that share an edge must leave no gap in float32: let each reach 1e-4 of a sample beyond its edges.
            low = -np.float32(1e-5) - np.float32(1e-4) * max(max(abs(d1x), abs(d1y)), max(abs(d2x), abs(d2y)))
            high = np.float32(1) - low
            for y in range(top, bottom + 1):
                py = np.float32(y) - y0
                px = np.float32(left) - x0
                w1 = px * d1x - d1y * py
                w2 = d2y * py - px * d2x
                iz = za + w1 * (zb - za) + w2 * (zc - za)
                for x in range(left, right + 1):
                    if w1 >= low and w2 >= low and w1 + w2 <= high and iz > inv_depth[y, x]:
                        inv_depth[y, x] = iz
                        face_id[y, x] = first_face + f
                    w1 += d1x
                    w2 -= d2x
                    iz += dzx
        elif za > 0 or zb > 0 or zc > 0:
            # Crosses the near plane (a camera inside the scene): homogeneous edge functions need no clipping.
            _visibility_near(points, a, b, c, fx, fy, cx, cy, samples, cull_back, first_face + f, inv_depth, face_id)


@compiled()
def _visibility_near(points, a, b, c, fx, fy, cx, cy, samples, cull_back, number, inv_depth, face_id):
    rows, cols = inv_depth.shape
    ax, ay, az = np.float64(points[a, 0]), np.float64(points[a, 1]), np.float64(points[a, 2])
    bx, by, bz = np.float64(points[b, 0]), np.float64(points[b, 1]), np.float64(points[b, 2])
    dx, dy, dz = np.float64(points[c, 0]), np.float64(points[c, 1]), np.float64(points[c, 2])
    n0x, n0y, n0z = by * dz - bz * dy, bz * dx - bx * dz, bx * dy - by * dx
    n1x, n1y, n1z = dy * az - dz * ay, dz * ax - dx * az, dx * ay - dy * ax
    n2x, n2y, n2z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    det = ax * n0x + ay * n0y + az * n0z
    if det == 0 or (cull_back and det > 0) or not (det == det):
        return
    for y in range(rows):
        ry = ((y + 0.5) / samples - 0.5 - cy) / fy
        for x in range(cols):
            rx = ((x + 0.5) / samples - 0.5 - cx) / fx
            w0, w1, w2 = (
                (rx * n0x + ry * n0y + n0z) / det,
                (rx * n1x + ry * n1y + n1z) / det,
                (rx * n2x + ry * n2y + n2z) / det,
            )
            if w0 < 0 or w1 < 0 or w2 < 0:
                continue
            iz = w0 + w1 + w2  # 1/z of the surface along this ray
            if iz > inv_depth[y, x] and iz * NEAR_M < 1:
                inv_depth[y, x] = iz
                face_id[y, x] = number


@compiled(inline="always")
def barycentric(points, a, b, c, rx, ry):
    """Perspective-correct weights of the face's corners where the ray (rx, ry, 1) meets its plane; they sum to one."""
    ax, ay, az = np.float64(points[a, 0]), np.float64(points[a, 1]), np.float64(points[a, 2])
    bx, by, bz = np.float64(points[b, 0]), np.float64(points[b, 1]), np.float64(points[b, 2])
    dx, dy, dz = np.float64(points[c, 0]), np.float64(points[c, 1]), np.float64(points[c, 2])
    w0 = rx * (by * dz - bz * dy) + ry * (bz * dx - bx * dz) + (bx * dy - by * dx)
    w1 = rx * (dy * az - dz * ay) + ry * (dz * ax - dx * az) + (dx * ay - dy * ax)
    w2 = rx * (ay * bz - az * by) + ry * (az * bx - ax * bz) + (ax * by - ay * bx)
    total = w0 + w1 + w2
    if total == 0:
        return np.float32(1 / 3), np.float32(1 / 3), np.float32(1 / 3)
    # A pixel centre may lie a little outside the face that its samples saw: keep the weights inside it.
    w0, w1, w2 = max(w0 / total, 0.0), max(w1 / total, 0.0), max(w2 / total, 0.0)
    total = 1 / (w0 + w1 + w2)
    return np.float32(w0 * total), np.float32(w1 * total), np.float32(w2 * total)


@compiled(inline="always")
def samples_agree(inv_depth, face_id, y, x, samples):
    """(covered samples, does one shading serve them all, face of the nearest): see `_DEPTH_STEP`."""
    covered, face = 0, -1
    low, high = np.float32(1e9), np.float32(0)
    for sy in range(samples):
        for sx in range(samples):
            yy, xx = y * samples + sy, x * samples + sx
            if face_id[yy, xx] >= 0:
                covered += 1
                iz = inv_depth[yy, xx]
                low = min(low, iz)
                if iz > high:
                    high, face = iz, face_id[yy, xx]
    return covered, covered == samples * samples and high - low < _DEPTH_STEP * high, face


@compiled(fastmath=_FAST)
def _shade_lit(points, faces, normals, color, color_faces, texture, has_texture, fx, fy, cx, cy, samples, first_face,
               ambient, directional, lamp, inv_depth, face_id, rgba):  # fmt: skip
    height, width = rgba.shape[:2]
    last = first_face + faces.shape[0]
    th, tw = texture.shape[0], texture.shape[1]
    for y in range(height):
        for x in range(width):
            covered, once, nearest = samples_agree(inv_depth, face_id, y, x, samples)
            if covered == 0:
                continue
            if once and (nearest < first_face or nearest >= last):
                continue
            for k in range(1 if once else samples * samples):
                if once:
                    f, px, py, weight = nearest, np.float64(x), np.float64(y), np.float32(samples * samples)
                else:
                    sy, sx = k // samples, k % samples
                    f = face_id[y * samples + sy, x * samples + sx]
                    if f < first_face or f >= last:
                        continue
                    px, py, weight = x - 0.5 + (sx + 0.5) / samples, y - 0.5 + (sy + 0.5) / samples, np.float32(1)
                f -= first_face
                a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
                w0, w1, w2 = barycentric(points, a, b, c, (px - cx) / fx, (py - cy) / fy)
                nx = w0 * normals[a, 0] + w1 * normals[b, 0] + w2 * normals[c, 0]
                ny = w0 * normals[a, 1] + w1 * normals[b, 1] + w2 * normals[c, 1]
                nz = w0 * normals[a, 2] + w1 * normals[b, 2] + w2 * normals[c, 2]
                length = np.sqrt(nx * nx + ny * ny + nz * nz) + 1e-12
                facing = (nx * lamp[0] + ny * lamp[1] + nz * lamp[2]) / length
                sky = 0.8 - 0.2 * ny / length  # from above a little more than from below: y points down
                i, j, k3 = color_faces[f, 0], color_faces[f, 1], color_faces[f, 2]
                if has_texture:
                    u = w0 * color[i, 0] + w1 * color[j, 0] + w2 * color[k3, 0]
                    v = w0 * color[i, 1] + w1 * color[j, 1] + w2 * color[k3, 1]
                    tx, ty = (u - np.floor(u)) * (tw - 1), (1 - (v - np.floor(v))) * (th - 1)
                    ix, iy = min(int(tx), tw - 2), min(int(ty), th - 2)
                    qx, qy = tx - ix, ty - iy
                for ch in range(3):
                    if has_texture:
                        albedo = (texture[iy, ix, ch] * (1 - qx) + texture[iy, ix + 1, ch] * qx) * (1 - qy) + (
                            texture[iy + 1, ix, ch] * (1 - qx) + texture[iy + 1, ix + 1, ch] * qx
                        ) * qy
                    else:
                        albedo = w0 * color[i, ch] + w1 * color[j, ch] + w2 * color[k3, ch]
                    rgba[y, x, ch] += weight * albedo * (ambient[ch] * sky + directional[ch] * max(facing, 0.0))
                rgba[y, x, 3] += weight


@compiled(fastmath=_FAST)
def _finish(rgba, inv_depth, face_id, samples, first_face, curve, depth, local, mesh_id):
    """Sums of covered samples -> mean colour, by the curve, and coverage; and what the nearest sample of each pixel
    saw: its depth, its mesh and its face there (whose numbers begin at `first_face`)."""
    last = curve.shape[0] - 1
    for y in range(rgba.shape[0]):
        for x in range(rgba.shape[1]):
            count = rgba[y, x, 3]
            if count == 0:
                depth[y, x] = np.inf
                local[y, x] = mesh_id[y, x] = -1
                continue
            for ch in range(3):
                place = min(max(rgba[y, x, ch] / count, np.float32(0)), np.float32(1)) * last
                step = min(int(place), last - 1)
                rgba[y, x, ch] = curve[step] + (place - step) * (curve[step + 1] - curve[step])
            rgba[y, x, 3] = count / (samples * samples)
            best, number = np.float32(0), -1
            for sy in range(samples):
                for sx in range(samples):
                    iz = inv_depth[y * samples + sy, x * samples + sx]
                    if iz > best:
                        best, number = iz, face_id[y * samples + sy, x * samples + sx]
            depth[y, x] = 1 / best
            mesh = 0
            while number >= first_face[mesh + 1]:
                mesh += 1
            local[y, x], mesh_id[y, x] = number - first_face[mesh], mesh
