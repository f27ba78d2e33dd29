"""The paper's table beside ours: what is there is measured, what is missing is named, and nothing stops the rest."""

import json

import numpy as np
import pytest
import torch

from wholebody.cli import main
from wholebody.errors import BadInput
from wholebody.evaluation import benchmarks
from wholebody.evaluation.paper import ROWS
from wholebody.evaluation.reproduce import Line, ReproduceConfig, table


@pytest.fixture(scope="module")
def checkpoints(small_config, smplx_body, tmp_path_factory):
    """Tiny networks under the published names: what matters here is that the command finds and runs them."""
    from wholebody.model.checkpoint import Conventions, save
    from wholebody.model.osx import build_osx

    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    network = build_osx(small_config)
    file = folder / "any.safetensors"
    save(network, file, conventions=Conventions(), licence="made up")
    for row in ROWS:
        # `load` looks into a file for what it is; the name is only where it lies.
        if row.testset != "UBody":
            (folder / row.checkpoint).unlink(missing_ok=True)
            (folder / row.checkpoint).symlink_to(file)
    return folder


def test_one_command_writes_the_table_with_ours_beside_the_papers(
    checkpoints, standin_dir, standin_arrays, forged_root, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(benchmarks, "read_body_file", lambda path: standin_arrays("neutral"))
    out = tmp_path / "out"
    arguments = ["reproduce", "--root", forged_root / "dataset", "--checkpoints", checkpoints, "--body", standin_dir]
    arguments += ["--out", out, "--limit", 3, "--only", "EHF", "UBody", "AGORA-test"]
    assert main([str(a) for a in arguments]) == 1, "UBody's checkpoint is not there"
    lines = json.loads((out / "table.json").read_text())
    measured = {line["testset"]: line for line in lines}
    stored = json.loads((out / "EHF" / "result.json").read_text())
    for line in (line for line in lines if line["testset"] == "EHF"):
        assert np.isfinite(line["ours"]) and line["people"] == 3
    own = stored["networks"][0]["errors"]["mpvpe_all"]["mean"]
    assert [line["ours"] for line in lines if line["measure"] == "MPVPE all"][0] == pytest.approx(own)
    assert measured["UBody"]["ours"] is None and "osx_l_wo_decoder.pth.tar" in measured["UBody"]["note"]
    assert (out / "AGORA-test" / "predictions.zip").is_file() and "hand in" in measured["AGORA-test"]["note"]
    text = (out / "table.md").read_text()
    assert f"| 70.8 | {own:.1f} | {own - 70.8:+.1f} | 3 |" in text and "assets/ehf_3dpw.png" in text
    assert text in capsys.readouterr().out + "\n"


def test_every_figure_of_the_paper_has_a_source_and_a_measure():
    for row in ROWS:
        assert row.source and row.figures
        if row.testset in benchmarks.BENCHMARKS:
            assert set(row.figures) <= set(benchmarks.BENCHMARKS[row.testset].measures)


def test_a_figure_that_was_not_measured_is_not_a_number():
    line = Line("EHF", "a.pth.tar", "MPVPE all", 70.8, float("nan"), 0, "not measured: why", "a table")
    assert "| 70.8 | – | – | – |" in table([line]) and "not measured: why" in table([line])


def test_an_unknown_set_is_named(tmp_path):
    with pytest.raises(BadInput, match="--only EHV.*EHF"):
        ReproduceConfig(tmp_path, tmp_path, "body", only=("EHV",)).rows()
