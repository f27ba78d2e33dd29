"""`wholebody evaluate` from a set's files to its report, on forged sets, with networks that know the truth."""

import io
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from networks import TrueNetwork

from wholebody.cli import main
from wholebody.errors import AssetMissing, BadInput, OutputError
from wholebody.evaluation import agora, benchmarks, evaluate
from wholebody.evaluation.evaluate import EvaluateConfig


@pytest.fixture(scope="module")
def body_folder(standin_dir, tmp_path_factory):
    """The body's files as users have them, with the regressor that 3DPW needs."""
    from wholebody.files.unpickle import as_dense, read_pickle

    folder = tmp_path_factory.mktemp("human_model_files")
    (folder / "smplx").symlink_to(standin_dir / "smplx")
    (folder / "smpl").mkdir()
    for path in (standin_dir / "smpl").iterdir():
        (folder / "smpl" / path.name).symlink_to(path)
    rows = as_dense(read_pickle(standin_dir / "smpl" / "SMPL_NEUTRAL.pkl")["J_regressor"])
    named = [0, 1, 4, 7, 2, 5, 8, 3, 12, 15, 15, 16, 18, 20, 17, 19, 21]
    np.save(folder / "smpl" / "J_regressor_h36m.npy", np.asarray(rows)[named])
    return folder


@pytest.fixture
def networks(monkeypatch, smplx_body, forged_root, body_folder, standin_arrays):
    """`networks("EHF", spoil)`: makes `evaluate` find a network that knows this set's truth, spoilt as told."""
    made = {}
    # The body's file takes seconds to read: once is enough.
    monkeypatch.setattr(benchmarks, "read_body_file", lambda path: standin_arrays("neutral"))

    def context_of(testset, *models):
        benchmark = benchmarks.BENCHMARKS[testset]
        root = forged_root / "dataset" / benchmark.reader
        return benchmarks.Context.of(benchmark, root, body_folder, models)

    def truth_of(testset):
        context = context_of(testset, TrueNetwork(smplx_body, []))
        samples = list(benchmarks.people(context.benchmark, context.root, every=1))
        return list(context.true_vertices(samples))

    def load(config):
        return [TrueNetwork(smplx_body, made["truth"], made[name]) for name in config.models]

    def make(testset, **spoils):
        made.update(truth=truth_of(testset), **spoils)

    monkeypatch.setattr(evaluate, "load_networks", load)
    return make


def run(testset, forged_root, body_folder, out, models=("right", "wrong"), **options):
    options = {"every": 1, "gallery": 0, "batch_size": 3} | options
    root = forged_root / "dataset"
    return evaluate.evaluate(EvaluateConfig(models, testset, root, out, str(body_folder), **options))


@pytest.mark.parametrize("testset", ["EHF", "AGORA", "UBody", "UBody-inter"])
def test_truth_scores_zero_and_a_turned_mesh_what_it_must(
    testset, networks, forged_root, body_folder, tmp_path, capsys
):
    turn = torch.linalg.matrix_exp(0.2 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.float64))
    networks(testset, right=lambda mesh, k: mesh, wrong=lambda mesh, k: mesh @ turn.T)
    result = run(testset, forged_root, body_folder, tmp_path / "out")
    right, wrong = (network.summary(result.measures) for network in result.networks)
    assert result.people >= 1 and set(right) == set(result.measures)
    assert all(summary.mean < 0.02 for summary in right.values())
    for name, summary in wrong.items():
        assert summary.mean < 0.02 if name.startswith("pa_") else summary.mean > 1, name
    stored = json.loads((tmp_path / "out" / "result.json").read_text())
    assert stored["testset"] == testset and [n["name"] for n in stored["networks"]] == ["right", "wrong"]
    assert "MPVPE all" in capsys.readouterr().out and (tmp_path / "out" / "report.html").is_file()


def test_every_nth_person_is_counted_as_published(forged_root):
    """UBody's published figures are of every 100th annotation, counted before anybody is left out."""
    root = forged_root / "dataset" / "UBody"
    benchmark = benchmarks.BENCHMARKS["UBody"]
    assert list(benchmarks.people(benchmark, root)) == [], "no forged scene has 100 annotations"
    everybody = [sample.id for sample in benchmarks.people(benchmark, root, every=1)]
    assert len(everybody) >= 2
    assert [s.id for s in benchmarks.people(benchmark, root, limit=1, every=1)] == everybody[:1]
    ehf, folder = benchmarks.BENCHMARKS["EHF"], forged_root / "dataset" / "EHF"
    people = [s.id for s in benchmarks.people(ehf, folder)]
    assert [s.id for s in benchmarks.people(ehf, folder, every=2)] == people[::2]


def test_3dpw_is_measured_on_14_joints(
    networks, monkeypatch, smplx_body, forged_people, forged_root, body_folder, tmp_path
):
    """A mesh's joints by the one regressor, the truth's by the other from SMPL of the annotated gender."""
    from test_metrics import naive_pa

    from wholebody.evaluation.smpl import SmplBody
    from wholebody.files.unpickle import as_dense, read_pickle

    network = TrueNetwork(smplx_body, [person.vertices_cam for person in forged_people if person.fitted])
    networks("EHF")  # for what it patches
    monkeypatch.setattr(evaluate, "load_networks", lambda config: [network])
    result = run("PW3D", forged_root, body_folder, tmp_path, models=("any",))
    fitted = [person for person in forged_people if person.fitted]
    assert result.people == len(fitted)
    regressor = np.asarray(as_dense(read_pickle(body_folder / "smplx" / "SMPLX_to_J14.pkl")))
    for person, row in zip(fitted, result.networks[0].rows, strict=True):
        gender = ("male", "female")[person.number % 2]
        pose = np.concatenate([person.root_pose[None], person.body_pose, np.zeros((2, 3))])
        smpl = SmplBody.load(body_folder, gender)
        truth = smpl.regressor_14 @ smpl.vertices(pose, person.betas, person.transl)
        joints = regressor @ person.vertices_cam
        moved = joints - joints[[2, 3]].mean(0) + truth[[2, 3]].mean(0)
        assert row.values["mpjpe_body"] == pytest.approx(1000 * np.linalg.norm(moved - truth, axis=1).mean(), rel=1e-4)
        assert row.values["pa_mpjpe_body"] == pytest.approx(naive_pa(joints, truth), rel=1e-4)
        if person.number > 1:
            break  # one of each gender: their files take seconds to read


def test_the_report_of_a_set_has_a_gallery(networks, forged_root, body_folder, tmp_path):
    networks("EHF", right=lambda mesh, k: mesh + 0.01 * k * torch.sin(20 * mesh.flip(1)))
    run("EHF", forged_root, body_folder, tmp_path, models=("right",), gallery=1)
    page = (tmp_path / "report.html").read_text()
    with np.load(tmp_path / "parameters.npz") as kept:  # this network gives nothing but meshes
        assert len(set(kept["id"].tolist())) == len(kept["crop_box"]) >= 3 and str(kept["body"]) == "smplx"
    assert page.count("data:image/jpeg") == 3 and page.count("<svg") == len(benchmarks.BENCHMARKS["EHF"].measures)


# AGORA's test set


@pytest.fixture(scope="module")
def tiny(small_config, smplx_body):
    from wholebody.model.osx import build_osx

    torch.manual_seed(0)
    return build_osx(small_config, smplx_body).eval()


@pytest.fixture(scope="module")
def submission(tiny, forged_root, tmp_path_factory):
    out = tmp_path_factory.mktemp("submission")
    path, report = agora.submit(tiny, forged_root / "dataset" / "AGORA", out, batch_size=2)
    return path, report


def test_a_submission_holds_everybody_in_the_benchmarks_form(submission, forged_root):
    path, report = submission
    expected = agora.expected_people(forged_root / "dataset" / "AGORA")
    assert report.files == sum(map(len, expected.values())) and report.pictures == len(expected)
    with zipfile.ZipFile(path) as stored:
        names = stored.namelist()
        assert len(names) == report.files and all(name.startswith("predictions/") for name in names)
        raw = stored.read(names[0])
    assert b"numpy._core" not in raw, "the server's numpy does not know that name"
    content = pickle.loads(raw)
    params = content["params"]
    shapes = {name: value.shape for name, value in params.items()}
    assert shapes == {
        "transl": (1, 3), "global_orient": (1, 3), "body_pose": (1, 63), "left_hand_pose": (1, 45),
        "right_hand_pose": (1, 45), "jaw_pose": (1, 3), "leye_pose": (1, 3), "reye_pose": (1, 3),
        "expression": (1, 10), "betas": (1, 10),
    }  # fmt: skip
    assert content["joints"].shape == (144, 2) and content["pose2rot"] is True


def test_submitted_joints_are_the_mesh_seen_in_the_full_picture(submission, forged_root, tiny):
    """The body of the submitted parameters, seen by the crop's camera and moved to 3840×2160 pixels."""
    from wholebody.data.readers import READERS
    from wholebody.data.readers.agora import full_from_picture
    from wholebody.evaluation.inference import crop_box_of
    from wholebody.geometry.camera import VirtualCamera
    from wholebody.geometry.crop import apply_affine

    root = forged_root / "dataset" / "AGORA"
    sample = next(READERS["AGORA"].read(root, "test"))
    with zipfile.ZipFile(submission[0]) as stored:
        picture, number = sample.id.rsplit("/", 1)[1].split("_pid_")
        content = pickle.loads(stored.read(f"predictions/{picture}_personId_{number}.pkl"))
    names = ("betas", "expression", "global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose")
    params = {name: torch.as_tensor(content["params"][name]) for name in (*names, "transl")}
    joints = tiny.body(**params).joints[0].numpy()
    box = crop_box_of(sample, sample.image_hw, tiny.config.box_enlarge)
    camera = VirtualCamera().in_picture([*box[:2], *(box[2:] - box[:2])])
    full = apply_affine(camera.project(joints), full_from_picture(root, sample))
    np.testing.assert_allclose(content["joints"], full, atol=0.5)


def spoilt(content, **changes):
    content = {**content, "params": dict(content["params"])}
    for key, value in changes.items():
        target = content["params"] if key in content["params"] else content
        if value is None:
            del target[key]
        else:
            target[key] = value
    return content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": np.full((1, 10), np.nan, np.float32)}, "betas has numbers that are not finite"),
        ({"body_pose": np.zeros((1, 21, 3))}, "body_pose is 1×21×3; it must be 1×63"),
        ({"jaw_pose": None}, "jaw_pose is missing"),
        ({"transl": [[0, 0, 0]]}, "transl is a list"),
        ({"joints": np.zeros((1, 144, 2))}, "joints are 1×144×2"),
        ({"joints": np.zeros((20, 2))}, "at least 24"),
        ({"gender": "child"}, "gender is 'child'"),
    ],
)
def test_what_the_server_would_refuse_is_said(submission, changes, message):
    with zipfile.ZipFile(submission[0]) as stored:
        content = pickle.loads(stored.read(stored.namelist()[0]))
    agora.check_person("a.pkl", content)
    with pytest.raises(BadInput, match=message):
        agora.check_person("a.pkl", spoilt(content, **changes))


def test_the_benchmarks_own_samples_pass(request):
    folder = request.config.rootpath.parent / "shared" / "samples" / "agora_prediction_format"
    if not folder.is_dir():
        pytest.skip("the benchmark's samples are not here")
    for path in folder.glob("smplx_*.pkl"):
        assert agora.check_person(path.name, agora._read(path.name, path.read_bytes())).shape == (24, 2)


def repacked(path, target, change):
    """The archive with each (name, content) as `change` gives it; None leaves it out."""
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(target, "w") as out:
        for name in stored.namelist():
            changed = change(name, pickle.loads(stored.read(name)))
            if changed is not None:
                out.writestr(changed[0], agora.to_bytes(changed[1]))
    return target


def test_coverage_names_and_pixels_are_checked(submission, forged_root, tmp_path):
    root = forged_root / "dataset" / "AGORA"
    path = submission[0]
    assert agora.check_zip(path, root).files == submission[1].files
    first = zipfile.ZipFile(path).namelist()[0]
    for change, message in (
        (lambda name, c: None if name == first else (name, c), "1 of 2 people have no prediction"),
        (lambda name, c: (name.replace("_personId_0", "_personId_7"), c), "has 1 people there"),
        (lambda name, c: (name.replace("_personId_", "_"), c), "must be called"),
        (lambda name, c: (name.replace("_personId_0", "_personId_" + 5000 * "0"), c), "must be called"),
        (lambda name, c: (name.removeprefix("predictions/"), c), "must lie in a folder predictions/"),
        (lambda name, c: (name, spoilt(c, joints=c["joints"] / 3)), "multiply by 3"),
        (lambda name, c: (name, spoilt(c, joints=c["joints"] + 9000)), "not trained, or they are in other units"),
    ):
        with pytest.raises(BadInput, match=message):
            agora.check_zip(repacked(path, tmp_path / "changed.zip", change), root)


def test_a_network_that_finds_nobody_is_the_cause_not_the_units(tiny, forged_root, tmp_path, monkeypatch):
    """Random weights may put joints anywhere; the pixels are ours and right."""
    project = tiny.project
    monkeypatch.setattr(tiny, "project", lambda joints: project(joints) + 300)
    with pytest.raises(BadInput, match="lie on nobody.*Are its weights trained") as told:
        agora.submit(tiny, forged_root / "dataset" / "AGORA", tmp_path)
    assert "multiply" not in str(told.value)


@pytest.mark.parametrize("option", ["--limit", "--every", "--gallery"])
def test_a_submission_is_of_everybody(option, capsys):
    assert main(["evaluate", "osx_l.pth.tar", "--testset", "AGORA-test", "--root", ".", option, "2"]) == 2
    assert f"{option} has no meaning for AGORA-test" in capsys.readouterr().err


def test_a_submission_is_shared_by_processes(tiny, submission, forged_root, tmp_path):
    root = forged_root / "dataset" / "AGORA"
    for rank in range(2):
        agora.predict_all(tiny, root, tmp_path, 2, lambda count: None, (rank, 2))
    path, report = agora.pack(root, tmp_path)
    assert report == submission[1]
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(submission[0]) as other:
        assert one.namelist() == other.namelist()
        for name in one.namelist():
            ours, theirs = (pickle.loads(stored.read(name)) for stored in (one, other))
            np.testing.assert_allclose(ours["joints"], theirs["joints"], atol=0.1)


def test_a_truncated_archive_is_refused(submission, forged_root, tmp_path, capsys):
    cut = tmp_path / "predictions.zip"
    cut.write_bytes(submission[0].read_bytes()[:-200])
    root = str(forged_root / "dataset")
    assert main(["evaluate", str(cut), "--testset", "AGORA-test", "--root", root]) == 2
    assert "cut off or damaged" in capsys.readouterr().err
    assert main(["evaluate", str(submission[0]), "--testset", "AGORA-test", "--root", root]) == 0
    assert "2 people in 2 pictures" in capsys.readouterr().out


def test_a_prediction_that_would_run_code_is_refused(forged_root):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(BadInput, match="refused"):
        agora._read("a.pkl", pickle.dumps(Evil()))


def test_a_person_who_was_not_cut_out_is_missed_before_anything_is_zipped(tiny, forged_root, tmp_path):
    root = tmp_path / "AGORA"
    shutil.copytree(forged_root / "dataset" / "AGORA" / "data" / "3840x2160", root / "data" / "3840x2160")
    shutil.copy(forged_root / "dataset" / "AGORA" / "data" / "AGORA_test_bbox.json", root / "data")
    next((root / "data" / "3840x2160" / "test_crop").glob("*.json")).unlink()
    with pytest.raises(BadInput, match="1 of 2 people have no prediction"):
        agora.submit(tiny, root, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.zip"))


def test_a_failing_write_leaves_no_archive(submission, forged_root, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    expected = agora.expected_people(forged_root / "dataset" / "AGORA")
    with pytest.raises(OutputError, match="No space left"):
        agora.archive(submission[0].parent / "predictions", tmp_path / "predictions.zip", expected)
    assert list(tmp_path.iterdir()) == []


# What cannot be done


def test_the_open_body_is_refused_on_sets_of_another(forged_root, body_folder, tmp_path, capsys):
    root, out = str(forged_root / "dataset"), str(tmp_path / "out")
    for testset in ("EHF", "AGORA-test"):
        assert main(["evaluate", "t", "--testset", testset, "--root", root, "--out", out]) == 2
        assert "open" in (message := capsys.readouterr().err) and "SMPL-X" in message


def test_sets_and_folders_that_cannot_be_used_are_named(networks, forged_root, body_folder, tmp_path):
    networks("EHF", right=lambda mesh, k: mesh)
    config = EvaluateConfig(("right",), "EHF", tmp_path / "nowhere", tmp_path / "out", str(body_folder))
    with pytest.raises(AssetMissing, match="nowhere"):
        evaluate.evaluate(config)
    (tmp_path / "EHF").mkdir()
    config = EvaluateConfig(("right",), "EHF", tmp_path, tmp_path / "out", str(body_folder))
    with pytest.raises(BadInput, match="EHF.json"):
        evaluate.evaluate(config)
    (tmp_path / "taken").write_text("a file")
    config = EvaluateConfig(("right",), "EHF", forged_root, tmp_path / "taken", str(body_folder))
    with pytest.raises(OutputError, match="taken"):
        evaluate.evaluate(config)
    with pytest.raises(BadInput, match="choose one of EHF"):
        EvaluateConfig(("right",), "EHV")
    with pytest.raises(BadInput, match="--root"):
        evaluate.evaluate(EvaluateConfig(("right",), "EHF"))


def test_parameters_that_are_not_numbers_stop_the_measurement(networks, forged_root, body_folder, tmp_path):
    networks("UBody", right=lambda mesh, k: mesh)
    shutil.copytree(forged_root / "dataset" / "UBody", tmp_path / "UBody")
    for path in (tmp_path / "UBody" / "annotations").glob("*/smplx_annotation.json"):
        content = json.loads(path.read_text())
        for entry in content.values():
            entry["smplx_param"]["shape"][3] = float("nan")
        path.write_text(json.dumps(content))
    with pytest.raises(BadInput, match="(?i)smplx_annotation|not finite|not numbers"):
        config = EvaluateConfig(("right",), "UBody", tmp_path, tmp_path / "out", str(body_folder), every=1)
        evaluate.evaluate(config)


def test_networks_of_one_name_are_told_apart():
    config = EvaluateConfig(("a/osx_l.pth.tar", "b/osx_l.pth.tar", "c.safetensors", "b/osx_l.pth.tar"), "EHF")
    assert evaluate.names_of(config) == list(zip(["osx_l", "b/osx_l", "c", "b/osx_l (2)"], config.models, strict=True))


def test_pickles_hold_arrays_of_any_numpy():
    content = {"joints": np.arange(6.0).reshape(3, 2)}
    back = pickle.load(io.BytesIO(agora.to_bytes(content)))
    np.testing.assert_array_equal(back["joints"], content["joints"])
