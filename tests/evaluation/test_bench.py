"""The benchmark's other side computes the published numbers, and both sides the same."""

import numpy as np

from tools.bench.evaluation import PublishedLoop, ours
from wholebody.evaluation.metrics import MeshParts


def test_both_sides_compute_the_same(oracle, standin_arrays, standin_dir):
    arrays = oracle("evaluate")
    parts = MeshParts.published(standin_arrays("neutral"), standin_dir / "smplx")
    predicted, truth = arrays["in/mesh_pred"].astype(np.float64), arrays["in/mesh_gt"].astype(np.float64)
    mine, loop = ours(parts)(predicted, truth), PublishedLoop(parts)(predicted, truth)
    assert set(mine) == set(loop) and len(mine) == 8
    for name, values in loop.items():
        np.testing.assert_allclose(mine[name], values, rtol=1e-6, err_msg=name)


def test_the_loop_gives_the_published_numbers(oracle, standin_arrays, standin_dir):
    arrays = oracle("evaluate")
    parts = MeshParts.published(standin_arrays("neutral"), standin_dir / "smplx")
    loop = PublishedLoop(parts)
    truth = arrays["in/mesh_gt"] @ arrays["in/EHF/R"].T  # float64, as published
    for name, values in loop(arrays["in/mesh_pred"], truth).items():
        np.testing.assert_allclose(values, arrays[f"out/EHF/{name}"], rtol=5e-4, err_msg=name)
