"""The paper's table beside ours: what is there is measured, what is missing is named, and nothing stops the rest."""

import json

import numpy as np
import pytest
import torch

from wholebody.cli import main
from wholebody.errors import BadInput
from wholebody.evaluation import benchmarks
from wholebody.evaluation.paper import FAMILY_ROWS, ROWS
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
    for row in (*ROWS, *FAMILY_ROWS):
        assert row.source and row.figures
        if row.testset in benchmarks.BENCHMARKS:
            assert set(row.figures) <= set(benchmarks.BENCHMARKS[row.testset].measures)


def test_a_figure_that_was_not_measured_is_not_a_number():
    line = Line("EHF", "a.pth.tar", "MPVPE all", 70.8, float("nan"), 0, "not measured: why", "a table")
    assert "| 70.8 | – | – | – |" in table([line]) and "not measured: why" in table([line])


def test_an_unknown_set_is_named(tmp_path):
    with pytest.raises(BadInput, match="--only EHV.*EHF"):
        ReproduceConfig(tmp_path, tmp_path, "body", only=("EHV",)).rows()


# SMPLer-X


def test_which_papers_are_reproduced(tmp_path):
    """Those whose checkpoints are there; OSX's where there are none."""

    def papers(*files, **options):
        folder = tmp_path / "_".join(files or ("none",))
        folder.mkdir(exist_ok=True)
        for name in files:
            (folder / name).touch()
        return ReproduceConfig(tmp_path, folder, "body", **options).rows()

    assert papers() == papers("osx_l.pth.tar") == list(ROWS)
    assert papers("smpler_x_h32.pth.tar") == list(FAMILY_ROWS)
    assert papers("osx_l.pth.tar", "smpler_x_b32.pth.tar") == [*ROWS, *FAMILY_ROWS]
    only = papers("osx_l.pth.tar", "smpler_x_b32.pth.tar", only=("EHF", "MPE"))
    assert [row.testset for row in only] == ["EHF", "MPE", "MPE", "MPE", "MPE", "EHF"]


def test_smpler_xs_figures_stand_beside_ours(
    small_config, smplx_body, standin_dir, standin_arrays, forged_root, forged_people, tmp_path, capsys, monkeypatch
):
    """The five main errors of a size, their mean beside the paper's, and the abstract's figures."""
    from data.forge.family_sets import forge_set

    from wholebody.model.checkpoint import Conventions, save
    from wholebody.model.osx import build_osx

    monkeypatch.setattr(benchmarks, "read_body_file", lambda path: standin_arrays("neutral"))
    root = tmp_path / "dataset"
    root.mkdir()
    for name in ("EHF", "AGORA", "PW3D", "UBody"):
        (root / name).symlink_to(forged_root / "dataset" / name)
    forge_set(root, "EgoBody_Egocentric", forged_people[:2])
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    torch.manual_seed(0)
    save(build_osx(small_config), checkpoints / "any.safetensors", conventions=Conventions(), licence="made up")
    (checkpoints / "smpler_x_h32.pth.tar").symlink_to("any.safetensors")
    arguments = ["reproduce", "--root", root, "--checkpoints", checkpoints, "--body", standin_dir, "--every", 1]
    arguments += ["--limit", 1, "--out", tmp_path / "out", "--only", "MPE", "EHF", "EgoBody_Egocentric"]
    assert main([str(a) for a in arguments]) == 1, "three of the four sizes are not there"
    lines = json.loads((tmp_path / "out" / "table.json").read_text())
    ours = {line["testset"]: line["ours"] for line in lines if "h32" in line["checkpoint"] and line["paper"] is None}
    assert list(ours) == ["AGORA", "EgoBody_Egocentric", "UBody", "PW3D", "EHF"]
    means = [line for line in lines if line["testset"] == "MPE" and "h32" in line["checkpoint"]]
    assert [(line["measure"], line["paper"]) for line in means] == [
        ("MPE (file of 2023)", 63.0), ("MPE (file of March 2024)", 59.7),
    ]  # fmt: skip
    assert [line["ours"] for line in means] == [pytest.approx(np.mean(list(ours.values())))] * 2
    small = [line for line in lines if line["testset"] == "MPE" and "s32" in line["checkpoint"]]
    assert [line["paper"] for line in small] == [82.6] and small[0]["ours"] is None
    assert "there is no smpler_x_s32.pth.tar" in small[0]["note"]
    (ehf,) = [line for line in lines if line["testset"] == "EHF" and line["paper"] == 62.3]
    assert ehf["ours"] == pytest.approx(ours["EHF"]) and "abstract" in ehf["source"]
    (ego,) = [line for line in lines if line["testset"] == "EgoBody_Egocentric" and line["paper"] == 63.6]
    assert ego["ours"] == pytest.approx(ours["EgoBody_Egocentric"]) and "fine-tuned on this set" in ego["source"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "NeurIPS 2023" in text and "CVPR 2023" not in text and text in capsys.readouterr().out + "\n"
    assert (tmp_path / "out" / "smpler_x_h32" / "EHF" / "report.html").is_file()
