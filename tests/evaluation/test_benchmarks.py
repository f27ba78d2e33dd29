"""Whole evaluations with networks that know the truth: protocols, reports and pages, and what is refused."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from networks import TrueNetwork

from wholebody.data.sample import masked_sample
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation import benchmarks as B
from wholebody.evaluation import gallery, page
from wholebody.evaluation.metrics import BODY_14, mesh_errors_mm
from wholebody.evaluation.result import Network, Result, Row, Summary
from wholebody.evaluation.smpl import SmplBody


def samples_of(people, **fields):
    """The forged people as a reader would give them, each in a picture of a colour of its own."""
    rng = np.random.default_rng(0)
    samples = []
    for k, person in enumerate(people):
        view = person.view((160, 200))
        image = rng.integers(0, 255, (200, 160, 3), np.uint8)
        pose = np.zeros((55, 3))
        pose[0], pose[1:22], pose[22] = person.root_pose, person.body_pose, person.jaw_pose
        pose[25:40], pose[40:] = person.left_hand_pose, person.right_hand_pose
        known = {
            "dataset": "UBody", "image": image, "image_hw": (200, 160), "body": "smplx", "full_pose": pose,
            "betas": person.betas, "expression": person.expression, "transl": person.transl, "flat_hand": False,
            "gender": "neutral", "focal_px": view.focal, "principal_px": view.principal, "camera_valid": True,
        }  # fmt: skip
        samples.append(masked_sample(f"scene{k % 2}/{k}", view.box, **(known | fields)))
    return samples


@pytest.fixture(scope="module")
def everybody(forged_people):
    return [person for person in forged_people if person.gender == "neutral"][:4] or list(forged_people)[:4]


@pytest.fixture(scope="module")
def samples(everybody):
    return samples_of(everybody)


@pytest.fixture(scope="module")
def context(smplx_body, standin_dir, tmp_path_factory):
    network = TrueNetwork(smplx_body, [])
    return B.Context.of(B.BENCHMARKS["UBody"], tmp_path_factory.mktemp("ubody"), standin_dir, [network])


def measured(models, samples, context, batch_size=3):
    rows = B.measure(models, samples, context, batch_size)
    names = [f"network {k}" for k in range(len(models))]
    networks = [Network(name, name, found) for name, found in zip(names, rows, strict=True)]
    benchmark = context.benchmark
    return Result(benchmark.name, benchmark.title, benchmark.note, "mm", benchmark.measures, networks)


def test_the_truth_has_no_error_and_a_spoilt_one_has_that_of_the_spoiling(samples, context, smplx_body):
    truth = context.true_vertices(samples)
    right = TrueNetwork(smplx_body, truth)
    larger = TrueNetwork(smplx_body, truth, lambda mesh, k: mesh * 1.25)
    result = measured([right, larger], samples, context)
    for row in result.networks[0].rows:
        assert set(row.values) == set(context.benchmark.measures)
        assert all(value < 0.02 for value in row.values.values() if np.isfinite(value))
    for number, row in enumerate(result.networks[1].rows):
        assert row.values["pa_mpvpe_all"] < 0.02, "a scale is taken out by the alignment"
        mesh = truth[number] - context.parts.joint_regressor[0] @ truth[number]
        if np.isfinite(row.values["mpvpe_all"]):
            assert 0 < row.values["mpvpe_all"] < 0.25 * 1000 * np.linalg.norm(mesh, axis=1).max()


def test_true_meshes_are_the_forged_ones(samples, everybody, context):
    for vertices, person in zip(context.true_vertices(samples), everybody, strict=True):
        np.testing.assert_allclose(vertices, person.vertices_cam, atol=2e-5)


def test_only_what_is_inside_the_picture_counts(samples, context, smplx_body):
    """Errors that lie outside do not count, and a part that is all outside has none."""
    sample = samples[0]
    truth = context.true_vertices([sample])[0]
    pixels = truth[:, :2] / (truth[:, 2:] + 1e-4) * sample.focal_px + sample.principal_px
    left = context.parts.left_hand
    # A picture that ends below the hands' highest vertex: shift the camera so that the left hand leaves it.
    shift = np.array([0, sample.image_hw[0] - pixels[left, 1].min() + 1.0])
    moved = dataclasses.replace(sample, principal_px=sample.principal_px + shift)
    inside = ((pixels + shift > 0) & (pixels + shift < [160, 200])).all(1)
    assert not inside[left].any() and inside.any()

    def spoil(mesh, k):
        mesh = mesh.clone()
        mesh[torch.as_tensor(~inside), 0] += 0.3  # only where nobody looks
        return mesh

    spoilt = TrueNetwork(smplx_body, [truth], spoil)
    values = measured([spoilt], [moved], context).networks[0].rows[0].values
    pelvis = context.parts.joint_regressor[0]
    if inside[pelvis > 0].all():
        assert values["mpvpe_all"] < 0.02
    naive = mesh_errors_mm(spoil(torch.as_tensor(truth), 0)[None].numpy(), truth[None], context.parts, inside[None])
    for name, value in naive.items():
        np.testing.assert_allclose(values[name], value[0], rtol=1e-3, atol=0.05, err_msg=name)


def test_masked_errors_are_those_of_a_loop(context):
    rng = np.random.default_rng(3)
    pred, truth = rng.normal(size=(2, 3, context.parts.num_vertices, 3))
    valid = rng.random((3, context.parts.num_vertices)) < 0.4
    valid[1, context.parts.left_hand] = False
    valid[2] = False
    errors = mesh_errors_mm(pred, truth, context.parts, valid)
    on_tensors = mesh_errors_mm(
        torch.as_tensor(pred).requires_grad_(), torch.as_tensor(truth), context.parts, torch.as_tensor(valid)
    )
    from test_metrics import naive_similarity

    for b in range(3):
        shift = context.parts.joint_regressor[[0, 20, 21, 12]] @ (truth[b] - pred[b])
        hands, hands_pa = [], []
        for name, ids, root in (
            ("all", np.arange(len(truth[b])), 0), ("left", context.parts.left_hand, 1),
            ("right", context.parts.right_hand, 2), ("face", context.parts.face, 3),
        ):  # fmt: skip
            counted = valid[b, ids]
            moved = np.linalg.norm(pred[b, ids] + shift[root] - truth[b, ids], axis=1)[counted] * 1000
            aligned = naive_similarity(pred[b, ids].copy(), truth[b, ids].copy()) - truth[b, ids]
            aligned = np.linalg.norm(aligned, axis=1)[counted] * 1000
            if name in ("left", "right"):
                hands += [moved.mean()] if counted.any() else []
                hands_pa += [aligned.mean()] if counted.any() else []
                continue
            expected = (moved.mean(), aligned.mean()) if counted.any() else (np.nan, np.nan)
            np.testing.assert_allclose([errors[f"mpvpe_{name}"][b], errors[f"pa_mpvpe_{name}"][b]], expected, rtol=1e-9)
        expected = (np.mean(hands), np.mean(hands_pa)) if hands else (np.nan, np.nan)
        np.testing.assert_allclose([errors["mpvpe_hand"][b], errors["pa_mpvpe_hand"][b]], expected, rtol=1e-9)
    for name, value in on_tensors.items():  # the way that a GPU takes
        np.testing.assert_allclose(value.detach().numpy(), errors[name], rtol=1e-9, err_msg=name)


def test_scenes_and_several_networks_share_a_table(samples, context, smplx_body, tmp_path):
    truth = context.true_vertices(samples)
    noisy = TrueNetwork(smplx_body, truth, lambda mesh, k: mesh + 0.01 * (k + 1) * torch.sin(200 * mesh.flip(1)))
    result = measured([TrueNetwork(smplx_body, truth), noisy], samples, context)
    table = result.table()
    assert "network 0" in table and "network 1" in table and "MPVPE all" in table
    assert re.search(r"scene0, 2 people", table) and re.search(r"scene1, 2 people", table)
    result.write(tmp_path)
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["people"] == len(samples) and len(stored["networks"]) == 2
    mean = np.nanmean([row.values["mpvpe_all"] for row in result.networks[1].rows])
    assert stored["networks"][1]["errors"]["mpvpe_all"]["mean"] == pytest.approx(mean)
    assert set(stored["networks"][1]["groups"]) == {"scene0", "scene1"}
    lines = (tmp_path / "samples.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * len(samples) and lines[0].startswith("network,id,image,group,mpvpe_all")


def test_the_page_needs_nothing_beside_it_and_shows_best_and_worst(samples, context, smplx_body, tmp_path):
    truth = context.true_vertices(samples)
    # Person 2 is the worst, person 1 the best.
    size = {0: 0.02, 1: 0.0, 2: 0.06, 3: 0.03}
    network = TrueNetwork(smplx_body, truth, lambda mesh, k: mesh + size[k] * torch.sin(30 * mesh.flip(1)))
    result = measured([network], samples, context)
    figures = B.draw([network], result, iter(samples), context, each=1)
    assert [f.kind for f in figures] == ["best", "median", "worst"]
    assert figures[0].id == samples[1].id and figures[2].id == samples[2].id
    text = page.write_page(result, figures, tmp_path / "report.html").read_text()
    assert text.count("data:image/jpeg;base64,") == 3 and "<svg" in text
    assert not re.search(r'(src|href)="(?!data:)', text), "nothing is fetched"


def test_names_from_files_are_escaped_on_the_page():
    rows = [Row("<script>alert(1)</script>", "a.jpg", "<b>", {"mpvpe_all": 1.0})]
    result = Result("X", "<X>", "a & b", "mm", ("mpvpe_all",), [Network("<n>", "p", rows)])
    text = page.render(result, [gallery.Figure("<n>", "best", rows[0].id, "c", b"jpeg")])
    assert "<script" not in text and "&lt;script&gt;" in text and "<X>" not in text


def test_histograms_hold_everybody_and_have_round_ticks():
    assert page._ticks(109.3) == [0, 25, 50, 75, 100] and page._ticks(0.35) == pytest.approx([0, 0.1, 0.2, 0.3])
    values = np.array([1.0, 2.0, 2.0, 500.0])  # far out, and still counted, in the last bin
    svg = page.histogram([values], np.concatenate([values, np.full(996, 3.0)]))
    path = re.search(r'<path d="M[^"]*"', svg)[0]
    heights = np.array([float(y) for y in re.findall(r"L[\d.]+,([\d.]+)", path)])[
        :-1:2
    ]  # the last one closes the shape
    shares = (heights.max() - heights) / (heights.max() - heights.min())
    np.testing.assert_allclose(shares[[13, 26, -1]], [0.5, 1, 0.5], atol=0.01)
    assert len(shares) == page.BINS and np.count_nonzero(shares) == 3


def test_a_mean_is_over_those_who_have_it_and_its_interval_holds_it():
    summary = Summary.of([1.0, 2.0, 3.0, np.nan])
    assert summary.mean == 2 and summary.count == 3 and summary.low <= 2 <= summary.high
    assert Summary.of([np.nan]).count == 0
    spread = np.random.default_rng(0).normal(50, 10, 400)
    wide = Summary.of(spread)
    assert 1.5 < wide.high - wide.low < 2.5, "about 2 × 1.96 × 10 / sqrt(400)"


def test_truth_that_is_not_finite_is_refused(samples, context, smplx_body):
    broken = dataclasses.replace(samples[0], betas=np.full(10, np.nan))
    with pytest.raises(BadInput, match="betas .* not finite"):
        context.true_vertices([broken])


def test_a_network_of_another_body_is_refused(standin_dir, tmp_path):
    from fake_network import FakeNetwork

    with pytest.raises(BadInput, match="predicts the body 'open'.*EHF is measured on SMPL-X"):
        B.Context.of(B.BENCHMARKS["EHF"], tmp_path, standin_dir, [FakeNetwork()])


def test_missing_body_files_are_named(smplx_body, tmp_path):
    network = TrueNetwork(smplx_body, [])
    with pytest.raises(AssetMissing, match="--body"):
        B.Context.of(B.BENCHMARKS["EHF"], tmp_path, None, [network])
    with pytest.raises(AssetMissing, match="SMPLX_NEUTRAL"):
        B.Context.of(B.BENCHMARKS["EHF"], tmp_path, tmp_path, [network])


def test_a_missing_picture_stops_the_measurement(samples, context, smplx_body):
    lost = dataclasses.replace(samples[0], image=None, image_path="images/scene0/lost.png")
    with pytest.raises(BadInput, match=r"lost\.png.*not there"):
        B.measure([TrueNetwork(smplx_body, [np.zeros((10475, 3))])], [lost], context)


@pytest.fixture(scope="module")
def smpl(standin_dir):
    from wholebody.files.unpickle import as_dense, read_pickle

    stored = read_pickle(standin_dir / "smpl" / "SMPL_NEUTRAL.pkl")
    arrays = {key: np.asarray(as_dense(value), np.float64) for key, value in stored.items()}
    # Human3.6M's joints, left first, from the nearest of SMPL's: a regressor with names that can be checked.
    names = [0, 1, 4, 7, 2, 5, 8, 3, 12, 15, 15, 16, 18, 20, 17, 19, 21]
    return SmplBody(arrays, arrays["J_regressor"][names]), arrays


def test_smpl_is_that_of_the_stock_package(smpl, standin_dir):
    smplx = pytest.importorskip("smplx")
    rng = np.random.default_rng(0)
    pose, betas, transl = 0.3 * rng.normal(size=(24, 3)), rng.normal(size=10), rng.normal(size=3)
    stock = smplx.create(str(standin_dir), "smpl", gender="neutral")
    out = stock(
        betas=torch.tensor(betas[None], dtype=torch.float32),
        body_pose=torch.tensor(pose[None, 1:].reshape(1, 69), dtype=torch.float32),
        global_orient=torch.tensor(pose[None, 0], dtype=torch.float32),
        transl=torch.tensor(transl[None], dtype=torch.float32),
    )
    np.testing.assert_allclose(smpl[0].vertices(pose, betas, transl), out.vertices[0].detach().numpy(), atol=1e-5)


def test_both_orders_of_the_regressor_give_the_named_joints(smpl):
    body, arrays = smpl
    left_first = body.regressor_14 @ arrays["v_template"]
    sided = {name: left_first[k, 0] for k, name in enumerate(BODY_14)}
    assert sided["left_hip"] > 0 > sided["right_hip"] and sided["left_wrist"] > 0 > sided["right_wrist"]
    h36m = arrays["J_regressor"][[0, 2, 5, 8, 1, 4, 7, 3, 12, 15, 15, 16, 18, 20, 17, 19, 21]]
    np.testing.assert_array_equal(SmplBody(arrays, h36m).regressor_14, body.regressor_14)


def test_errors_of_14_joints():
    from wholebody.evaluation.metrics import body_joint_errors_mm

    truth = np.random.default_rng(1).normal(size=(2, 14, 3))
    errors = body_joint_errors_mm(truth + [1, 2, 3], truth)
    assert all(value.max() < 1e-9 for value in errors.values())
    moved = truth.copy()
    moved[:, BODY_14.index("neck"), 0] += 0.14
    np.testing.assert_allclose(body_joint_errors_mm(moved, truth)["mpjpe_body"], 10)
