"""Rotations: against the published conversions, a slow naive twin, and what must hold of any rotation."""

import math

import numpy as np
import pytest
import torch

from wholebody.geometry import rotation as R


def naive_rotation(axis_angle):
    """Turn the three unit vectors by Rodrigues' formula, one at a time."""
    angle = math.sqrt(sum(x * x for x in axis_angle))
    if angle == 0:
        return np.eye(3)
    k = np.asarray(axis_angle) / angle
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([v * cos + np.cross(k, v) * sin + k * (k @ v) * (1 - cos) for v in np.eye(3)], 1)


def random_axis_angle(count, longest, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g, dtype=dtype), dim=-1)
    return direction * torch.rand(count, 1, generator=g, dtype=dtype) * longest


def test_axis_angle_to_matrix_is_the_naive_rotation():
    vectors = random_axis_angle(50, 2 * math.pi)
    vectors[0], vectors[1] = 0, vectors[1] * 1e-9
    expected = np.stack([naive_rotation(v) for v in vectors.tolist()])
    np.testing.assert_allclose(R.axis_angle_to_matrix(vectors), expected, atol=1e-12)


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-4, 1.0, math.pi - 1e-3, math.pi - 1e-7])
def test_axis_angle_survives_the_round_trip(length):
    vectors = torch.nn.functional.normalize(random_axis_angle(20, 1.0, seed=3), dim=-1) * length
    back = R.matrix_to_axis_angle(R.axis_angle_to_matrix(vectors))
    np.testing.assert_allclose(back, vectors, atol=1e-9)


def test_rotation_6d_is_the_published_layout(oracle):
    arrays = oracle("transforms")
    six = torch.from_numpy(arrays["in/rot6d"])
    columns = six.double().reshape(-1, 3, 2)
    well_posed = torch.linalg.cross(columns[..., 0], columns[..., 1]).norm(dim=-1) > 1e-6
    assert well_posed.sum() >= 60  # the rest are all-zero or parallel columns, which mean no rotation at all
    ours = R.rotation_6d_to_axis_angle(six)
    published = torch.from_numpy(arrays["out/rot6d_to_axis_angle"])
    # Compared as rotations: a half turn has two axis-angles.
    apart = R.axis_angle_to_matrix(ours.double()) - R.axis_angle_to_matrix(published.double())
    assert apart[well_posed].abs().max() < 2e-5
    plain = well_posed & (published.norm(dim=-1) < 3.14)
    np.testing.assert_allclose(ours[plain], published[plain], atol=2e-5)
    six, matrix = six[well_posed], R.rotation_6d_to_matrix(six[well_posed].double())
    first = six.double().reshape(-1, 3, 2)[:, :, 0]
    np.testing.assert_allclose(matrix[:, :, 0], first / first.norm(dim=-1, keepdim=True), atol=1e-12)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (4,), (3, 3), (3, 21), (0,), ()])
def test_any_batch_is_the_same_as_one_by_one(shape, oracle):
    six = torch.from_numpy(oracle("transforms")["in/rot6d"]).double()
    count = math.prod(shape)
    six = six[:count].reshape(*shape, 6)
    batched = R.rotation_6d_to_axis_angle(six)
    assert batched.shape == (*shape, 3)
    single = [R.rotation_6d_to_axis_angle(row) for row in six.reshape(-1, 6)]
    if single:
        np.testing.assert_allclose(batched.reshape(-1, 3), torch.stack(single), atol=1e-12)


def test_6d_gives_rotations_and_comes_back():
    six = torch.randn(100, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    matrix = R.rotation_6d_to_matrix(six)
    np.testing.assert_allclose(matrix @ matrix.mT, np.broadcast_to(np.eye(3), (100, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(torch.linalg.det(matrix), np.ones(100), atol=1e-12)
    np.testing.assert_allclose(R.rotation_6d_to_matrix(R.matrix_to_rotation_6d(matrix)), matrix, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-7, 1e-3, math.pi - 1e-3, math.pi - 1e-6, math.pi])
def test_gradients_are_finite_and_right_in_size(length, dtype):
    vectors = torch.nn.functional.normalize(random_axis_angle(8, 1.0, dtype=dtype), dim=-1) * length
    vectors[0] = torch.tensor([length, 0, 0])
    vectors.requires_grad_()
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)
    matrix = R.axis_angle_to_matrix(vectors)
    (there,) = torch.autograd.grad((matrix * weights).sum(), vectors)
    assert torch.isfinite(there).all() and there.abs().max() > 1e-3
    fixed = matrix.detach().requires_grad_()
    (back,) = torch.autograd.grad(R.matrix_to_axis_angle(fixed).sum(), fixed)
    assert torch.isfinite(back).all() and back.abs().max() < 100


def test_gradients_match_finite_differences():
    vectors = random_axis_angle(6, 3.0).requires_grad_()
    assert torch.autograd.gradcheck(R.axis_angle_to_matrix, vectors)
    small = torch.full((1, 3), 1e-3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(R.axis_angle_to_matrix, small)
    six = torch.randn(4, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(R.rotation_6d_to_axis_angle, six)


def test_gradient_at_rest_is_the_generator():
    jacobian = torch.autograd.functional.jacobian(R.axis_angle_to_matrix, torch.zeros(3, dtype=torch.float64))
    expected = np.zeros((3, 3, 3))
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        expected[b, a, c], expected[a, b, c] = 1, -1  # d R[b, a] / d r_c
    np.testing.assert_allclose(jacobian, expected, atol=1e-12)


def test_zero_6d_stays_finite():
    six = torch.zeros(1, 6, requires_grad=True)
    out = R.rotation_6d_to_axis_angle(six)
    assert torch.isfinite(out).all()


def test_mirroring_changes_the_signs_of_two_turns():
    vectors = random_axis_angle(20, 3.0)
    expected = R.axis_angle_to_matrix(vectors * torch.tensor([1.0, -1.0, -1.0]).double())
    np.testing.assert_allclose(R.mirrored(R.axis_angle_to_matrix(vectors)), expected, atol=1e-12)


def test_compiles_to_one_graph():
    six = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    exported = torch.export.export(Convert(), (six,))
    torch.testing.assert_close(exported.module()(six), R.rotation_6d_to_axis_angle(six))


class Convert(torch.nn.Module):
    def forward(self, six):
        return R.rotation_6d_to_axis_angle(six)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_conversions_are_those_of_roma(dtype):
    roma = pytest.importorskip("roma")
    tolerance = {"atol": 1e-5 if dtype == torch.float32 else 1e-10, "rtol": 0}
    vectors = random_axis_angle(200, 3.1, dtype=dtype)
    vectors[:3] = torch.tensor([[0.0, 0, 0], [1e-5, -2e-5, 1e-5], [0, 3.1, 0]], dtype=dtype)
    matrices = roma.rotvec_to_rotmat(vectors)
    torch.testing.assert_close(R.axis_angle_to_matrix(vectors), matrices, **tolerance)
    torch.testing.assert_close(R.matrix_to_axis_angle(matrices), roma.rotmat_to_rotvec(matrices), **tolerance)
    six = torch.randn(200, 6, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = roma.special_gramschmidt(six.unflatten(-1, (3, 2)))
    torch.testing.assert_close(R.rotation_6d_to_matrix(six), expected, **tolerance)
