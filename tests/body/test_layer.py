"""The body layer against the published arrays, the stock `smplx` package and a slow naive twin; then its promises."""

import copy

import numpy as np
import pytest
import torch

from wholebody.body import assets
from wholebody.body.joints import FROM_144, PARENTS
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.geometry.rotation import axis_angle_to_matrix

WIDTHS = {"betas": 10, "expression": 10, "global_orient": 3, "body_pose": 63, "left_hand_pose": 45,
          "right_hand_pose": 45, "jaw_pose": 3}  # fmt: skip


def random_parameters(batch, seed=0, dtype=torch.float64, spread=0.4):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(batch, n, generator=g, dtype=dtype) * spread for name, n in WIDTHS.items()}


@pytest.fixture(scope="module")
def load(standin_arrays):
    """`load("neutral")` -> the made-up body in float64."""

    def get(gender="neutral", flat_hand_mean=False):
        return BodyModel(standin_arrays(gender), flat_hand_mean, torch.float64)

    return get


@pytest.fixture(scope="module")
def open_body():
    return BodyModel.load(dtype=torch.float64)


@pytest.mark.parametrize("gender", ["neutral", "male"])
def test_is_the_published_body(load, oracle, gender):
    arrays = oracle("body_layer")
    body = load(gender)
    out = body(**{name: torch.from_numpy(arrays[f"in/{name}"]).double() for name in WIDTHS})
    np.testing.assert_allclose(out.vertices[:, arrays["vertex_ids"]], arrays[f"out/{gender}/vertices"], atol=1e-6)
    np.testing.assert_allclose(out.joints, arrays[f"out/{gender}/joints"], atol=1e-6)
    if gender == "neutral":
        np.testing.assert_allclose(body.joints_137(out.joints), arrays["out/neutral/joints137"], atol=1e-6)
    # Every part must matter, or the comparison shows nothing.
    for name in WIDTHS:
        other = body(**{n: torch.from_numpy(arrays[f"in/{n}"]).double() * (n != name) for n in WIDTHS})
        assert (other.vertices - out.vertices).abs().max() > 1e-3, name


@pytest.mark.parametrize(("gender", "flat_hand_mean"), [("neutral", False), ("male", True)])
def test_is_the_stock_package(load, standin_dir, gender, flat_hand_mean):
    smplx = pytest.importorskip("smplx")
    stock = smplx.create(
        str(standin_dir), "smplx", gender=gender, ext="npz", use_pca=False, flat_hand_mean=flat_hand_mean,
        use_face_contour=True, num_betas=10, num_expression_coeffs=10, batch_size=4, dtype=torch.float64,
    )  # fmt: skip
    given = random_parameters(4, seed=5)
    given["global_orient"][:, 1] = torch.tensor([0.3, -0.3, 2.0, -2.0])  # the contour's both sides and beyond
    extra = {"leye_pose": torch.full((4, 3), 0.1).double(), "reye_pose": torch.full((4, 3), -0.2).double()}
    transl = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    theirs = stock(**given, **extra, transl=transl)
    ours = load(gender, flat_hand_mean)(**given, **extra, transl=transl)
    np.testing.assert_allclose(ours.vertices, theirs.vertices.detach(), atol=1e-6)
    np.testing.assert_allclose(ours.joints, theirs.joints.detach(), atol=1e-6)
    np.testing.assert_array_equal(load(gender).faces, stock.faces.astype(np.int64))


def naive_body(arrays, rotations, betas, expression):
    """One body, one vertex at a time in effect: 4×4 transforms down the tree, then the weighted sum."""
    shaped = arrays.v_template + arrays.shape_dirs @ betas + arrays.expression_dirs @ expression
    rest_joints = arrays.joint_regressor @ shaped
    if isinstance(arrays.pose_dirs, assets.SparsePoseDirs):
        correctives, row = np.zeros_like(shaped), 0
        for joint, count in enumerate(arrays.pose_dirs.counts, 1):
            for _ in range(count):
                moved = arrays.pose_dirs.offsets[row] @ (rotations[joint] - np.eye(3)).ravel()
                correctives[arrays.pose_dirs.vertices[row]] += moved
                row += 1
    else:
        correctives = arrays.pose_dirs @ (rotations[1:] - np.eye(3)).ravel()
    world = []
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = rest_joints[joint] - (rest_joints[parent] if joint else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    moves = np.stack(world)
    places = moves[:, :3, 3].copy()
    moves[:, :3, 3] -= (moves[:, :3, :3] @ rest_joints[..., None])[..., 0]
    blended = np.tensordot(arrays.weights, moves, 1)
    posed = shaped + correctives
    return (blended[:, :3, :3] @ posed[..., None])[..., 0] + blended[:, :3, 3], places


def test_open_body_is_the_naive_one(open_body):
    arrays = assets.read_body_file("open")
    given = random_parameters(2)
    out = open_body(**given)
    names = {n: given[n] for n in WIDTHS if n not in ("betas", "expression")}
    rotations = axis_angle_to_matrix(open_body.full_pose(**names)).numpy()
    for k in range(2):
        vertices, places = naive_body(arrays, rotations[k], given["betas"][k].numpy(), given["expression"][k].numpy())
        np.testing.assert_allclose(out.vertices[k], vertices, atol=1e-6)
        np.testing.assert_allclose(out.joints[k, :55], places, atol=1e-6)
    assert len(arrays.pose_dirs.vertices) > 1000  # or sparse correctives were not tested


def test_sparse_and_dense_correctives_agree(open_body):
    arrays = assets.read_body_file("open")
    dense = np.zeros((arrays.num_vertices, 3, 54, 9), np.float32)
    joint = np.repeat(np.arange(54), arrays.pose_dirs.counts)
    dense[arrays.pose_dirs.vertices, :, joint] = arrays.pose_dirs.offsets
    again = assets.SparsePoseDirs.of(dense.reshape(-1, 3, 486))
    np.testing.assert_array_equal(again.counts.sum(), (dense != 0).any((1, 3)).sum())
    given = random_parameters(3)
    expected = BodyModel(copy_with(arrays, pose_dirs=dense.reshape(-1, 3, 486)), dtype=torch.float64)(**given)
    np.testing.assert_allclose(open_body(**given).vertices, expected.vertices, atol=1e-9)


def copy_with(arrays, **changes):
    import dataclasses

    return dataclasses.replace(arrays, **changes)


@pytest.mark.parametrize("which", ["standin", "open"])
def test_subset_gives_the_same_vertices_and_all_joints(which, load, open_body):
    body = load() if which == "standin" else open_body
    ids = np.random.default_rng(0).permutation(body.num_vertices)[:500]
    small, given = body.subset(ids), random_parameters(3)
    whole, part = body(**given), small(**given)
    np.testing.assert_allclose(part.vertices, whole.vertices[:, ids], atol=1e-12)
    np.testing.assert_allclose(part.joints, whole.joints, atol=1e-12)
    assert small.num_vertices == 500 and small.template.shape[1] < body.num_vertices / 2
    assert small.faces.numel() == 0 or small.faces.max() < 500
    half = np.arange(body.num_vertices // 2)
    inside = body.faces[(body.faces < len(half)).all(1)]
    np.testing.assert_array_equal(body.subset(half).faces, inside)
    assert body.num_vertices == whole.vertices.shape[1]  # the whole body is as it was


@pytest.mark.parametrize("ids", [[], [-1], [0, 0], [10**6]])
def test_impossible_subsets_are_refused(load, ids):
    with pytest.raises(BadInput, match="vertex numbers"):
        load().subset(ids)
    with pytest.raises(BadInput, match="subset"):
        load().subset([1, 2]).subset([0])


@pytest.mark.parametrize("batch", [0, 1, 2, 3, 5])
def test_batch_is_the_same_as_one_by_one(open_body, batch):
    given = random_parameters(batch)
    out = open_body(**given)
    assert out.vertices.shape == (batch, open_body.num_vertices, 3) and out.joints.shape == (batch, 144, 3)
    for k in range(batch):
        one = open_body(**{name: value[k : k + 1] for name, value in given.items()})
        np.testing.assert_allclose(out.vertices[k], one.vertices[0], atol=1e-12)
        np.testing.assert_allclose(out.joints[k], one.joints[0], atol=1e-12)


def test_poses_come_flat_or_by_joint(open_body):
    given = random_parameters(2)
    by_joint = {n: v.reshape(2, -1, 3) if n.endswith(("pose", "orient")) else v for n, v in given.items()}
    assert torch.equal(open_body(**given).vertices, open_body(**by_joint).vertices)


def test_hand_mean_is_added_unless_flat(load):
    given = random_parameters(1)
    relaxed, flat = load(), load(flat_hand_mean=True)
    mean = relaxed.hand_mean.reshape(1, 2, 45)
    shifted = {**given, "left_hand_pose": given["left_hand_pose"] + mean[:, 0],
               "right_hand_pose": given["right_hand_pose"] + mean[:, 1]}  # fmt: skip
    np.testing.assert_allclose(relaxed(**given).vertices, flat(**shifted).vertices, atol=1e-12)
    assert (relaxed(**given).vertices - flat(**given).vertices).abs().max() > 1e-3


def test_translation_moves_everything(open_body):
    given, shift = random_parameters(2), torch.tensor([[1.0, 2, 3], [0, -1, 5]]).double()
    still, moved = open_body(**given), open_body(**given, transl=shift)
    np.testing.assert_allclose(moved.vertices, still.vertices + shift[:, None], atol=1e-12)
    np.testing.assert_allclose(moved.joints, still.joints + shift[:, None], atol=1e-12)


def test_global_orient_turns_the_body_about_its_pelvis(open_body):
    given = random_parameters(1)
    given["global_orient"] = torch.zeros(1, 3).double()
    straight = open_body(**given)
    turn = torch.tensor([[0.0, 0.0, 0.7]]).double()  # about z: the contour looks at the vertical axis only
    turned = open_body(**{**given, "global_orient": turn})
    pelvis = open_body.rest_pelvis(given["betas"], given["expression"])
    np.testing.assert_allclose(pelvis, straight.joints[:, 0], atol=1e-12)
    expected = (straight.vertices - pelvis) @ axis_angle_to_matrix(turn).mT + pelvis
    np.testing.assert_allclose(turned.vertices, expected, atol=1e-9)


def test_contour_slides_as_the_head_turns(load):
    """Row by row: the table is looked up by whole degrees, the same for what is beyond 39."""
    body = load()
    still = {name: torch.zeros(6, n, dtype=torch.float64) for name, n in WIDTHS.items()}
    degrees = torch.tensor([0.0, 10.4, -10.4, 39.0, -39.0, -80.0]).double()
    still["global_orient"][:, 1] = torch.deg2rad(-degrees)
    out = body(**still)
    rows = [0, 10, 39 + 10, 39, 39 + 39, 39 + 39]
    for k, row in enumerate(rows):
        corners = out.vertices[k, body.contour[row]]
        expected = (corners * body.contour_barycentric[row][..., None]).sum(1)
        np.testing.assert_allclose(out.joints[k, 127:], expected, atol=1e-12)


def test_gradients_match_finite_differences(open_body):
    small = open_body.subset([0, 500, 5000, 9000])
    given = {name: value.requires_grad_() for name, value in random_parameters(2, spread=0.2).items()}

    def story(*values):
        out = small(**dict(zip(WIDTHS, values, strict=True)))
        return out.vertices, out.joints[:, ::7]

    assert torch.autograd.gradcheck(story, tuple(given[n] for n in WIDTHS), fast_mode=True)


def test_gradients_are_finite_in_the_rest_pose(open_body):
    given = {name: torch.zeros(2, n, dtype=torch.float64, requires_grad=True) for name, n in WIDTHS.items()}
    out = open_body(**given)
    (out.vertices.square().sum() + out.joints.square().sum()).backward()
    for name, value in given.items():
        assert torch.isfinite(value.grad).all() and value.grad.abs().max() > 0, name


def test_checkpoints_do_not_contain_the_body(open_body):
    assert not open_body.state_dict() and not list(open_body.parameters())


def test_types_follow_the_module():
    body = BodyModel.load()
    given = random_parameters(2)
    exact = copy.deepcopy(body).double()(**given).vertices
    assert body.dtype == torch.float32 and exact.dtype == torch.float64
    single = body(**{name: value.float() for name, value in given.items()}).vertices
    np.testing.assert_allclose(single, exact, atol=5e-6)
    # Autocast must not reach the body: bfloat16 would cost centimetres.
    with torch.autocast("cpu", torch.bfloat16):
        under = body(**{name: value.float() for name, value in given.items()}).vertices
    assert torch.equal(under, single)


def test_export_holds_for_any_batch():
    body = BodyModel.load().subset(range(100))
    story, given = Positional(body), random_parameters(3, dtype=torch.float32)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(story, tuple(given.values()), dynamic_shapes=(tuple({0: batch} for _ in WIDTHS),))
    for count in (1, 2, 5):
        other = random_parameters(count, seed=count, dtype=torch.float32)
        exported, ours = program.module()(*other.values()), body(**other)
        torch.testing.assert_close(exported, (ours.vertices, ours.joints), atol=1e-6, rtol=0)


class Positional(torch.nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, *values):
        out = self.body(**dict(zip(WIDTHS, values, strict=True)))
        return out.vertices, out.joints


def test_nonsense_shapes_are_named(open_body):
    given = random_parameters(1)
    with pytest.raises(BadInput, match=r"betas B×10.*\(1, 11\)"):
        open_body(**{**given, "betas": torch.zeros(1, 11)})


def test_not_a_number_goes_through(open_body):
    given = random_parameters(1)
    given["body_pose"][0, 5] = torch.nan
    assert torch.isnan(open_body(**given).joints).any()


def test_from_144_fits(open_body):
    out = open_body(**random_parameters(1))
    assert torch.equal(open_body.joints_137(out.joints), out.joints[:, list(FROM_144)])


@pytest.mark.parametrize("which", ["standin", "open"])
def test_nothing_larger_than_four_numbers_a_vertex_is_made(which, load, open_body):
    """Stock skinning makes 55 and 16 numbers per vertex and body; here B×V×4 is the most at any one time."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made = [t for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, torch.Tensor)]
            storage = (t.untyped_storage().nbytes() // t.element_size() for t in made if not func.is_view)
            self.numel = max([self.numel, *storage])
            return out

    body = load() if which == "standin" else open_body
    given = random_parameters(8)
    with Largest() as seen, torch.no_grad():
        body(**given)
    assert seen.numel <= 8 * body.num_vertices * 4
