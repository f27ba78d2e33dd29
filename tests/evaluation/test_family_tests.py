"""The family's test sets, forged as published, and all test sets in one call."""

import json

import numpy as np
import pytest
import torch
from data.forge import family_sets as forge
from networks import TrueNetwork
from test_metrics import naive_pa

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.cli import main
from wholebody.data.readers import READERS
from wholebody.data.sample import masked_sample
from wholebody.errors import BadInput
from wholebody.evaluation import benchmarks, evaluate, together
from wholebody.evaluation.boxes import crop_enlargement
from wholebody.evaluation.evaluate import EvaluateConfig
from wholebody.evaluation.result import label
from wholebody.model.config import OSXConfig, smpler_x_config

SETS = ("EgoBody_Egocentric", "EgoBody_Kinect", "ARCTIC", "RenBody_HiRes", "RenBody", "SynHand")


@pytest.fixture(scope="module")
def root(forged_people, smplx_body, standin_arrays, tmp_path_factory):
    """The six sets, of four people each."""
    arrays = standin_arrays("neutral")
    root = tmp_path_factory.mktemp("family")
    mean = np.concatenate([arrays.left_hand_mean, arrays.right_hand_mean])
    for name in SETS:
        forge.forge_set(root, name, forged_people[:4], hand_mean=mean)
    return root


@pytest.fixture
def body_folder(standin_dir, monkeypatch, standin_arrays):
    # The body's file takes seconds to read: once is enough, and another than the neutral one is not asked for.
    monkeypatch.setattr(benchmarks, "read_body_file", lambda path: standin_arrays("neutral"))
    return standin_dir


def run(testset, root, body, out, models=("one",), **options):
    options = {"every": 1, "gallery": 0, "batch_size": 3} | options
    return evaluate.evaluate(EvaluateConfig(models, testset, root, out, str(body), **options))


def order_of(name, people):
    """Whom the files of a set's test split hold, file after file."""
    files = forge.PUBLISHED[name][1]
    return [person for number in range(len(files)) for person in people[number % len(people) :: len(files)]]


def naive_errors(found, truth, arrays, folder):
    """SMPLer-X's protocol for HumanData sets, of one mesh (V, 3), in numpy and straight from the files."""
    from wholebody.files.unpickle import as_dense, read_pickle

    hands = read_pickle(folder / "smplx" / "MANO_SMPLX_vertex_ids.pkl")
    face = np.load(folder / "smplx" / "SMPL-X__FLAME_vertex_ids.npy")
    j14 = np.asarray(as_dense(read_pickle(folder / "smplx" / "SMPLX_to_J14.pkl")))
    regressor = arrays.joint_regressor

    def distance(a, b):
        return 1000 * np.sqrt(((a - b) ** 2).sum(1)).mean()

    def part(ids, joint):
        row = regressor[SMPLX_JOINTS.index(joint)]
        return distance(found[ids] - row @ found + row @ truth, truth[ids]), naive_pa(found[ids], truth[ids])

    parts = {
        "all": part(np.arange(len(truth)), "pelvis"),
        "l_hand": part(np.asarray(hands["left_hand"]), "left_wrist"),
        "r_hand": part(np.asarray(hands["right_hand"]), "right_wrist"),
        "face": part(face, "neck"),
    }
    errors = {f"mpvpe_{name}": moved for name, (moved, _) in parts.items()}
    errors |= {f"pa_mpvpe_{name}": aligned for name, (_, aligned) in parts.items()}
    for measure in ("mpvpe", "pa_mpvpe"):
        errors[f"{measure}_hand"] = (errors[f"{measure}_l_hand"] + errors[f"{measure}_r_hand"]) / 2
    errors["pa_mpjpe_body"] = naive_pa(j14 @ found, j14 @ truth)
    return errors


@pytest.mark.parametrize("name", SETS)
def test_each_set_is_measured_by_its_protocol(
    name, root, body_folder, forged_people, smplx_body, standin_arrays, monkeypatch, tmp_path
):
    people = order_of(name, forged_people[:4])
    turn = torch.linalg.matrix_exp(0.2 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64))
    meshes = [person.vertices_cam for person in people]

    def spoilt(mesh, k):
        return (mesh + 0.01 * torch.sin(9 * mesh.flip(1))) @ turn.T

    networks = {"right": TrueNetwork(smplx_body, meshes), "wrong": TrueNetwork(smplx_body, meshes, spoilt)}
    monkeypatch.setattr(evaluate, "load_networks", lambda config: [networks[name] for name in config.models])
    result = run(name, root, body_folder, tmp_path, ("right", "wrong"))
    right, wrong = (network.summary(result.measures) for network in result.networks)
    assert result.people == len(people) and set(right) == set(result.measures) and len(result.measures) == 14
    assert all(summary.mean < 0.02 for summary in right.values()), right
    assert [row.values["mpvpe_all"] > 1 for row in result.networks[1].rows] == [True] * len(people)
    mesh = networks["wrong"].place(spoilt(torch.as_tensor(meshes[0]), 0)).numpy()
    expected = naive_errors(mesh, meshes[0], standin_arrays("neutral"), body_folder)
    row = result.networks[1].rows[0].values
    for measure, value in expected.items():
        assert row[measure] == pytest.approx(value, rel=1e-3), measure


def test_names_that_the_paper_has():
    assert EvaluateConfig(("x",), "EgoBody").testset == "EgoBody_Egocentric"
    assert EvaluateConfig(("x",), "RenBody-HiRes").testset == "RenBody_HiRes"
    with pytest.raises(BadInput, match=r"'RenBodyHR'.*did you mean RenBody"):
        EvaluateConfig(("x",), "RenBodyHR")


def test_rows_are_thinned_as_published(root):
    """Every 10th row of ARCTIC's, SynHand's and each of RenBody-HiRes' files."""
    for name, count in (("ARCTIC", 1), ("SynHand", 1), ("RenBody_HiRes", 2), ("RenBody", 4), ("EgoBody_Kinect", 4)):
        benchmark = benchmarks.BENCHMARKS[name]
        folder = READERS[name].home(root)
        assert len(list(benchmarks.people(benchmark, folder))) == count
        assert len(list(benchmarks.people(benchmark, folder, every=1))) == 4
        assert len(list(benchmarks.people(benchmark, folder, every=2))) == 2


def test_arctics_true_meshes_count_where_they_are(
    forged_people, body_folder, smplx_body, monkeypatch, tmp_path, standin_arrays
):
    people = forged_people[:2]
    paths = [f"meshes/{person.number}.npy" for person in people]
    forge.forge_set(tmp_path, "ARCTIC", people, vertices3d_path=np.array(paths))
    (tmp_path / "ARCTIC" / "meshes").mkdir()
    for person, path in zip(people, paths, strict=True):
        np.save(tmp_path / "ARCTIC" / path, person.vertices_cam)
    network = TrueNetwork(smplx_body, [person.vertices_cam for person in people])
    monkeypatch.setattr(evaluate, "load_networks", lambda config: [network])
    result = run("ARCTIC", tmp_path, body_folder, tmp_path / "out")
    # Its parameters say something else here: hands that count from the flat hand, written without the relaxed one.
    assert all(row.values["mpvpe_hand"] < 0.02 for row in result.networks[0].rows)
    (tmp_path / "ARCTIC" / paths[1]).unlink()
    with pytest.raises(BadInput, match=r"1\.npy, the true mesh, is missing"):
        run("ARCTIC", tmp_path, body_folder, tmp_path / "out")


def test_3dpw_as_smpler_x_measures_it(
    forged_people, forged_root, body_folder, smplx_body, standin_arrays, monkeypatch, tmp_path
):
    """14 joints of each body's own; the files of the other way are not needed."""
    from wholebody.evaluation.smpl import SmplBody

    people = [person for person in forged_people if person.fitted][:2]
    network = TrueNetwork(smplx_body, [person.vertices_cam for person in people])
    monkeypatch.setattr(evaluate, "load_networks", lambda config: [network])
    result = run("PW3D", forged_root / "dataset", body_folder, tmp_path, limit=2)
    assert "J_regressor_h36m.npy" in result.protocol
    assert set(result.networks[0].summary(result.measures)) == {"mpjpe_own", "pa_mpjpe_own"}
    rows = [1, 2, 4, 5, 7, 8, 12, 15, 16, 17, 18, 19, 20, 21]
    for person, row in zip(people, result.networks[0].rows, strict=True):
        smpl = SmplBody.load(body_folder, ("male", "female")[person.number % 2])
        pose = np.concatenate([person.root_pose[None], person.body_pose, np.zeros((2, 3))])
        truth = smpl.arrays["J_regressor"] @ smpl.vertices(pose, person.betas, person.transl)
        joints = standin_arrays("neutral").joint_regressor @ person.vertices_cam
        moved = joints[rows] - joints[0] + truth[0]
        assert row.values["mpjpe_own"] == pytest.approx(
            1000 * np.linalg.norm(moved - truth[rows], axis=1).mean(), rel=1e-4
        )
        assert row.values["pa_mpjpe_own"] == pytest.approx(naive_pa(joints[rows], truth[rows]), rel=1e-4)
    assert label("mpjpe_own") == "MPJPE own joints" and label("pa_mpvpe_l_hand") == "PA-MPVPE left hand"


@pytest.mark.parametrize(
    ("name", "id", "ratio"),
    [
        ("EHF", "1", 1.2),
        ("PW3D", "1", 1.2),
        ("UBody", "1", 1.25),
        ("AGORA", "1", 0.9996),
        ("ARCTIC", "p1_val/3", 0.9996),
    ],
)
def test_people_are_cropped_as_the_family_is_tested(name, id, ratio):
    from dataclasses import replace

    sample = masked_sample(id, np.array([0.0, 0, 10, 20]), dataset=name)
    config = smpler_x_config("b")
    assert crop_enlargement(config, sample) == pytest.approx(ratio)
    assert crop_enlargement(OSXConfig(), sample) == 1.25
    asked = replace(config, box_enlarge=1.3)
    assert crop_enlargement(asked, sample) == pytest.approx(1.3 * (0.833 if ratio < 1 else 1))


def test_a_family_network_sees_padded_boxes_as_they_are(root, forged_people, smplx_body):
    from wholebody.evaluation.inference import predict

    network = TrueNetwork(smplx_body, [person.vertices_cam for person in forged_people])
    network.config = smpler_x_config("b")
    folder = READERS["ARCTIC"].home(root)
    sample = next(READERS["ARCTIC"].read(folder, "test"))
    ((predicted,),) = predict([network], [sample], folder, 1)
    size = predicted.crop_boxes[0][2:] - predicted.crop_boxes[0][:2]
    box = sample.box_xyxy[2:] - sample.box_xyxy[:2]
    assert max(size / box) == pytest.approx(0.9996 * max(1, *(box[::-1] / box * [0.75, 1 / 0.75])), rel=1e-3)


# All of them


@pytest.fixture
def everything(root, forged_root, tmp_path):
    """A folder with some sets of both kinds."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name in ("EHF", "AGORA", "PW3D"):
        (folder / name).symlink_to(forged_root / "dataset" / name)
    for name in ("EgoBody", "ARCTIC"):
        (folder / name).symlink_to(root / name)
    (folder / "preprocessed_datasets").mkdir()
    for name in ("EgoBody_Egocentric", "ARCTIC"):
        for file in forge.PUBLISHED[name][1]:
            (folder / "preprocessed_datasets" / file).symlink_to(root / "preprocessed_datasets" / file)
    return folder


@pytest.fixture(scope="module")
def checkpoint(small_config, tmp_path_factory):
    from wholebody.model.checkpoint import Conventions, save
    from wholebody.model.osx import build_osx

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save(build_osx(small_config), path, conventions=Conventions(), licence="made up")
    return path


def test_one_call_measures_all_that_are_there(everything, checkpoint, body_folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["evaluate", checkpoint, "--testset", "all", "--root", everything.parent, "--body", body_folder]
    arguments += ["--out", out, "--every", 1, "--limit", 2, "--gallery", 0]
    assert main(list(map(str, arguments))) == 0
    text = capsys.readouterr().out
    stored = json.loads((out / "result.json").read_text())
    assert list(stored["sets"]) == ["PW3D", "EgoBody_Egocentric", "EHF", "AGORA", "ARCTIC"]
    assert stored["written"] == ["AGORA-test"] and (out / "AGORA-test" / "predictions.zip").is_file()
    assert list(stored["left_out"]) == ["UBody", "RenBody_HiRes", "RenBody", "EgoBody_Kinect", "SynHand"]
    assert not stored["failed"] and stored["mean_primary_error"] == {"tiny": None}
    table = (out / "table.md").read_text()
    assert table.strip() in text and text.index("| set |") > text.index("EHF, 2 people")
    assert "UBody: left out, " in table and "osx-ubody.github.io" in table
    assert "RenBody: left out, " in table and "SynHand: left out, " in table
    mean = stored["sets"]["ARCTIC"]["networks"][0]["errors"]["mpvpe_all"]["mean"]
    assert f"| ARCTIC | 2 | {mean:.1f} |" in table
    alone = json.loads((out / "ARCTIC" / "result.json").read_text())
    assert alone["networks"][0]["errors"] == stored["sets"]["ARCTIC"]["networks"][0]["errors"]


def test_what_fails_is_named_and_stops_nothing_else(everything, checkpoint, body_folder, tmp_path, capsys):
    file = everything / "preprocessed_datasets" / "p1_val.npz"
    file.unlink()
    file.write_bytes(b"half a file")
    (everything / "AGORA").unlink()
    (everything / "PW3D").unlink()
    other = tmp_path / "other.safetensors"
    other.symlink_to(checkpoint)
    models = [checkpoint, other]
    arguments = ["evaluate", *models, "--testset", "all", "--root", everything, "--body", body_folder, "--every", 1]
    assert main([*map(str, arguments), "--out", str(tmp_path / "out"), "--limit", "1", "--gallery", "0"]) == 1
    found = capsys.readouterr()
    assert "1 of the test sets that are there could not be measured: ARCTIC: " in found.err
    table = (tmp_path / "out" / "table.md").read_text()
    assert "ARCTIC: not measured: " in table and "p1_val.npz is no readable .npz" in table
    assert "| EHF | tiny | 1 |" in table and "| EHF | other | 1 |" in table


def test_nothing_to_measure_is_said(tmp_path, capsys):
    assert main(["evaluate", "x.pth.tar", "--testset", "all", "--root", str(tmp_path)]) == 2
    assert "holds no test set: looked for PW3D, EgoBody_Egocentric, UBody" in capsys.readouterr().err
    with pytest.raises(BadInput, match="needs --root"):
        evaluate.evaluate(EvaluateConfig(("x.pth.tar",), "all"))


def test_the_mean_of_the_main_errors():
    from wholebody.evaluation.result import Network, Result, Row

    def measured(name, value):
        rows = [Row("a", "", "", {together.PRIMARY.get(name, "mpvpe_all"): value, "pa_mpvpe_all": 1.0})]
        return together.Measured(name, Result(name, name, "", "mm", together.COLUMNS, [Network("n", "n.pth", rows)]))

    values = {"AGORA": 100.0, "EgoBody_Egocentric": 80, "UBody": 60, "PW3D": 70, "EHF": 90, "ARCTIC": 5}
    all_five = together.Together([("n", "n.pth")], [measured(name, value) for name, value in values.items()])
    assert all_five.mean_primary_error(0) == pytest.approx(80)
    assert "Mean primary error (AGORA, EgoBody_Egocentric, UBody, PW3D, EHF): 80.0 mm" in all_five.table()
    four = together.Together(all_five.names, all_five.measured[1:])
    assert four.mean_primary_error(0) is None and "Mean primary" not in four.table()
