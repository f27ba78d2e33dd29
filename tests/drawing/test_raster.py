"""The rasteriser against an independent, naive ray tracer, and against areas known in closed form."""

import numpy as np
import pytest

from wholebody.drawing.raster import Light, Mesh, draw_mesh, draw_meshes, vertex_normals
from wholebody.errors import BadInput


def tetrahedron_and_slab(rng):
    corners = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]], float)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    angle = rng.uniform(-3, 3)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    vertices = corners @ turn.T * 0.4 + [0.1, -0.05, 2.2]
    return vertices, faces


def naive(vertices, faces, focal, principal, size_hw, samples, cull):
    """One ray at a time, Möller-Trumbore: (face, depth) per sample."""
    h, w = size_hw
    face, depth = np.full((h * samples, w * samples), -1), np.full((h * samples, w * samples), np.inf)
    for y in range(h * samples):
        for x in range(w * samples):
            ray = np.array(
                [
                    ((x + 0.5) / samples - 0.5 - principal[0]) / focal,
                    ((y + 0.5) / samples - 0.5 - principal[1]) / focal,
                    1,
                ]
            )
            for f, (a, b, c) in enumerate(vertices[faces]):
                e1, e2 = b - a, c - a
                p = np.cross(ray, e2)
                det = e1 @ p
                if abs(det) < 1e-14 or (cull and det < 0):
                    continue
                u = -(a @ p) / det
                q = np.cross(-a, e1)
                v, z = (ray @ q) / det, (e2 @ q) / det
                if u >= 0 and v >= 0 and u + v <= 1 and 0.02 < z < depth[y, x]:
                    face[y, x], depth[y, x] = f, z
    return face, depth


@pytest.mark.parametrize("seed,cull", [(0, True), (1, True), (2, False)])
def test_faces_depth_and_coverage_equal_a_naive_ray_tracer(seed, cull):
    vertices, faces = tetrahedron_and_slab(np.random.default_rng(seed))
    size, focal, principal, samples = (26, 22), 21.3, (9.7, 13.1), 2
    drawing = draw_mesh(vertices, faces, focal, principal, size, samples=samples, cull_back=cull)
    face, depth = naive(vertices, faces, focal, principal, size, samples, cull)
    blocks = depth.reshape(size[0], samples, size[1], samples)
    coverage = np.isfinite(blocks).mean((1, 3))
    assert (
        np.abs(drawing.rgba[..., 3] - coverage) > 1e-6
    ).mean() <= 0.004  # a sample exactly on an edge may fall either way
    both = np.isfinite(drawing.depth) & np.isfinite(blocks.min((1, 3)))
    assert both.sum() > 40
    np.testing.assert_allclose(drawing.depth[both], blocks.min((1, 3))[both], rtol=2e-3)
    assert set(np.unique(drawing.face_id)) - {-1} <= set(np.unique(face))


def test_a_camera_inside_the_mesh_sees_it_past_the_near_plane():
    vertices, faces = tetrahedron_and_slab(np.random.default_rng(3))
    vertices = (vertices - [0, 0, 2.2]) * 3 + [0, 0, 0.3]
    drawing = draw_mesh(vertices, faces, 20, (9.5, 9.5), (20, 20), cull_back=False)
    face, depth = naive(vertices, faces, 20, (9.5, 9.5), (20, 20), 2, False)
    np.testing.assert_allclose(drawing.depth, depth.reshape(20, 2, 20, 2).min((1, 3)), rtol=1e-4)


def test_coverage_adds_up_to_the_area_and_faces_that_share_edges_leave_no_gap():
    n = 48
    ring = np.stack([np.cos(np.arange(n) * 2 * np.pi / n), np.sin(np.arange(n) * 2 * np.pi / n), np.zeros(n)], 1)
    vertices = np.concatenate([[[0, 0, 0]], ring]) * 0.8 + [0.03, 0.02, 2]
    faces = np.array([[0, 1 + (i + 1) % n, 1 + i] for i in range(n)])
    for samples in (1, 2, 4):
        drawing = draw_mesh(vertices, faces, 60, (39.2, 30.8), (64, 80), samples=samples)
        expected = 0.5 * n * np.sin(2 * np.pi / n) * (0.8 * 60 / 2) ** 2
        assert abs(drawing.rgba[..., 3].sum() / expected - 1) < 0.01
        ys, xs = np.mgrid[:64, :80]
        inside = np.hypot(xs - 39.2 - 0.9, ys - 30.8 - 0.6) < 22.5
        assert (drawing.rgba[..., 3][inside] == 1).all()


def test_the_nearer_mesh_hides_the_other_and_ids_are_local():
    quad = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    faces = np.array([[0, 2, 1], [0, 3, 2]])
    red, blue = np.tile([[1.0, 0, 0]], (4, 1)), np.tile([[0, 0, 1.0]], (4, 1))
    light = Light(ambient=(1, 1, 1), directional=(0, 0, 0))
    near, far = Mesh(quad * 0.3 + [0, 0, 2], faces, red), Mesh(quad + [0, 0, 3], faces, blue)
    for order in ((near, far), (far, near)):
        drawing = draw_meshes(order, 30, (19.5, 19.5), (40, 40), light=light, cull_back=False)
        assert drawing.rgba[20, 20, 0] > 0.8 and drawing.rgba[20, 20, 2] == 0
        assert drawing.rgba[12, 12, 2] > 0.8 and drawing.rgba[12, 12, 0] == 0
        assert drawing.mesh_id[20, 20] == (0 if order[0] is near else 1) and drawing.face_id.max() == 1


def test_a_texture_is_perspective_correct():
    # A floor that runs away from the camera: the texture's middle lies at the middle depth, not at the middle pixel.
    vertices = np.array([[-1, 1, 2], [1, 1, 2], [1, 1, 6], [-1, 1, 6]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32] = 255  # the far half
    uv = np.array([[0.01, 0.01], [0.99, 0.01], [0.99, 0.99], [0.01, 0.99]])
    drawing = draw_mesh(
        vertices, faces, 100, (40, 0), (60, 80), uv=uv, uv_faces=faces, texture=texture, cull_back=False
    )
    column = drawing.rgba[:, 40, 0]
    edge = np.flatnonzero(np.diff((column > 0.3).astype(int)) == -1)
    assert abs(edge[0] + 0.5 - 100 / 4) < 1.5  # depth 4 projects to row 25


def test_normals_point_outwards_and_bad_arrays_are_explained():
    vertices, faces = tetrahedron_and_slab(np.random.default_rng(0))
    normals = vertex_normals(vertices.astype(np.float32), faces.astype(np.int32))
    assert ((vertices - vertices.mean(0)) * normals).sum(1).min() > 0
    with pytest.raises(BadInput, match="there are 4"):
        draw_mesh(vertices, faces + 1, 20, (9, 9), (20, 20))
    with pytest.raises(BadInput, match="focal"):
        draw_mesh(vertices, faces, float("nan"), (9, 9), (20, 20))
