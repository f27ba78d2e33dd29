"""Errors on held-out people and real photos are what they say, and a constant answer is measured as any other."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from fake_network import FakeNetwork, open_body
from shares import shared_numbers

from wholebody.body.assets import find_body, read_body_file
from wholebody.body.joints import LIMBS_12, ROTATIONS_53_FROM_55, SMPLX_JOINTS, index
from wholebody.body.layer import BodyModel
from wholebody.cli import main
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation import evaluate, testset
from wholebody.evaluation.evaluate import EvaluateConfig
from wholebody.evaluation.metrics import MeshParts, mesh_errors_mm
from wholebody.evaluation.real import RealPhotos
from wholebody.evaluation.synthetic import MEASURES, PLAIN, constant_errors, measure_layers
from wholebody.model.config import OSXConfig
from wholebody.synthesis.sets.crops import CropDataConfig, TrainingCrops


@pytest.fixture(scope="module")
def meshes():
    body = BodyModel.load(flat_hand_mean=True)
    generator = torch.Generator().manual_seed(1)
    pose = 0.3 * torch.randn(6, 55, 3, generator=generator)
    zero = torch.zeros(6, 10)
    from wholebody.geometry.rotation import axis_angle_to_matrix

    return body.from_matrices(axis_angle_to_matrix(pose), zero, zero).vertices


def test_no_sample_of_the_set_beats_the_best_constant(meshes):
    """The mean of the aligned meshes is the constant that fits best: any one mesh for everybody does worse."""
    parts = MeshParts.of(read_body_file(find_body(None)))
    best = constant_errors(meshes, parts)
    for one in range(2):
        errors = mesh_errors_mm(meshes[one : one + 1].expand_as(meshes), meshes, parts)
        others = torch.arange(len(meshes)) != one
        for name in ("mpvpe_all", "mpvpe_hand", "mpvpe_face", "pa_mpvpe_all"):
            assert best[name] < float(errors[name][others].mean())


@pytest.fixture(scope="module")
def heldout(layers):
    """The samples that measuring draws of the layers."""
    data = TrainingCrops(CropDataConfig(str(layers), split="heldout", augment=PLAIN), seed=7, length=0)
    return [data[number] for number in range(len(data.layers))]


class Knowing(torch.nn.Module):
    """Answers a picture with the truth of the person whom it shows, changed as told."""

    config = OSXConfig(name="knowing")

    def __init__(self, people, spoil):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.people = people
        self.spoil = spoil
        self.body = open_body()

    def regress(self, images):
        pictures = [torch.from_numpy(one["image"]).permute(2, 0, 1).float().div(255) for one in self.people]
        return [next(n for n, picture in enumerate(pictures) if picture.equal(image)) for image in images]

    def with_mesh(self, numbers, body):
        batch = torch.utils.data.default_collate([self.people[number] for number in numbers])
        tree = torch.eye(3).repeat(len(numbers), 55, 1, 1)
        tree[:, list(ROTATIONS_53_FROM_55)] = batch["rotations"]
        places = batch["joints_crop"] / 32
        tree, places = self.spoil(tree, places)
        mesh = body.from_matrices(tree, batch["betas"], batch["expression"])
        moved = mesh.vertices + torch.tensor([0.3, -2.0, 30.0])
        return SimpleNamespace(vertices_cam=moved, joints_proj_cells=places, betas=batch["betas"])


def turned(row):
    def spoil(tree, places):
        c, s = np.cos(0.3), np.sin(0.3)
        turn = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float32)
        return tree.index_copy(1, torch.tensor([row]), tree[:, row, None] @ turn), places

    return spoil


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        (lambda tree, places: (tree, places), set()),
        (lambda tree, places: (tree, places + torch.tensor([0.5, 0])), {"body_2d_percent", "body_2d_percent_whole"}),
        (
            turned(SMPLX_JOINTS.index("left_index1")),
            {"mpvpe_hand", "pa_mpvpe_hand", "mpvpe_all", "pa_mpvpe_all", "mpvpe_all_whole", "pa_mpvpe_all_whole"},
        ),
        (
            turned(SMPLX_JOINTS.index("jaw")),
            {"mpvpe_face", "pa_mpvpe_face", "mpvpe_all", "pa_mpvpe_all", "mpvpe_all_whole", "pa_mpvpe_all_whole"},
        ),
    ],
    ids=["truth", "places", "finger", "jaw"],
)
def test_a_network_that_knows_the_truth_errs_only_where_it_is_spoilt(layers, heldout, spoil, wrong):
    """Measured as any network, in batches that do not come out even."""
    errors = measure_layers(Knowing(heldout, spoil), str(layers), batch_size=5)
    assert set(errors) == set(MEASURES)
    assert {name for name, value in errors.items() if value > 0.05} == wrong, errors
    if "body_2d_percent" in wrong:  # half a cell of 32 pixels, of boxes of known heights
        expected = float(np.mean([1600 / one["box_height"] for one in heldout]))
        assert errors["body_2d_percent"] == pytest.approx(expected, rel=0.1)


def test_measuring_an_untrained_network_gives_every_figure(layers, tmp_path):
    from wholebody.model.embedded.build import build_embedded

    torch.manual_seed(0)
    sheet = tmp_path / "sheet.jpg"
    errors = measure_layers(build_embedded().eval(), str(layers), count=4, batch_size=4, constants=True, sheet=sheet)
    assert {"pa_mpvpe_all", "mpvpe_hand", "body_2d_percent", "constant_mpvpe_face"} <= errors.keys()
    assert all(np.isfinite(value) and value > 0 for value in errors.values())
    assert cv2.imread(str(sheet)) is not None


@pytest.fixture
def photos(tmp_path):
    """A photo of nobody whose `true` joints are those that `FakeNetwork` always answers, scaled, turned and moved."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((200, 150, 3), 90, np.uint8))
    from wholebody.people.predictor import Predictor

    person = Predictor(FakeNetwork())(np.full((200, 150, 3), 90, np.uint8), boxes=[[20, 20, 120, 180]])[0]
    joints = person.joints_cam[index(LIMBS_12, SMPLX_JOINTS)]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    truth = (1500 * joints @ turn.T + 300).tolist()
    frame = {"image": "a.png", "box_xywh": [20, 20, 100, 160], "joints_mm": truth}
    (tmp_path / "real3d.json").write_text(json.dumps({"joint_names": list(LIMBS_12), "frames": [frame]}))
    return tmp_path


def test_real_photos_are_measured_after_alignment(photos):
    real = RealPhotos(photos)
    (((row,),),) = [[[found.row for found in of_all] for of_all in real.found([FakeNetwork()], real.people(), 8)]]
    assert row.image == "a.png" and row.values["pa_mpjpe_limbs"] < 0.1
    assert row.values["constant_pose"] > 20


def test_unsound_frames_are_shown_and_count_apart(photos):
    path = photos / "real3d.json"
    content = json.loads(path.read_text())
    wrong = dict(content["frames"][0], joints_mm=np.random.default_rng(1).normal(0, 300, (12, 3)).tolist(), sound=False)
    path.write_text(json.dumps({**content, "frames": [content["frames"][0], wrong]}))
    real = RealPhotos(photos)
    found = list(real.found([FakeNetwork()], real.people(), 8))
    result = real.result([("fake", "")], [[of_all[0] for of_all in found]])
    summary = result.networks[0].summary(result.measures)
    assert summary["pa_mpjpe_limbs"].mean < 0.1 and summary["pa_mpjpe_limbs"].count == 1
    assert summary["pa_mpjpe_limbs_unsound"].mean > 50 and summary["constant_pose"].count == 1
    path.write_text(json.dumps({**content, "frames": [dict(wrong, sound="no")]}))
    with pytest.raises(BadInput, match="'no'"):
        RealPhotos(photos)


def test_each_network_sees_crops_as_large_as_it_was_trained_on():
    """Two networks share one pass over the pictures: 1.25 is OSX's, 1.2 that of its successors."""
    from wholebody.data.sample import masked_sample
    from wholebody.evaluation.inference import predict

    wide, tight, tight_too = FakeNetwork(), FakeNetwork(), FakeNetwork("area")
    for network in (tight, tight_too):
        network.config = replace(network.config, family="smpler_x", box_enlarge=1.2)
    picture = np.zeros((300, 300, 3), np.uint8)
    picture[70:230, 90:210] = 255  # the person: 120 by 160
    samples = [masked_sample(str(k), [90, 70, 210, 230], image=picture) for k in range(3)]
    models = [wide, tight, tight_too]
    batches = list(predict(models, samples, Path(), batch_size=2))
    assert [len(batch[0].samples) for batch in batches] == [2, 1]
    for model, answers, enlarge in zip(models, zip(*batches, strict=True), (1.25, 1.2, 1.2), strict=True):
        half = enlarge * np.array([60, 80])
        for answer in answers:
            expected = np.tile([*([150, 150] - half), *([150, 150] + half)], (len(answer.samples), 1))
            np.testing.assert_allclose(answer.crop_boxes, expected)
        # and the white person fills as much of the crop as that box says
        white = torch.cat(model.seen).mean((1, 2, 3))
        np.testing.assert_allclose(white, enlarge**-2, atol=0.01)


def test_networks_are_loaded_as_asked_for_and_their_boxes_enlarged_so(photos, monkeypatch, tmp_path):
    asked = []

    def load(name, body, *, any_gender, family):
        asked.append((name, any_gender, family))
        return FakeNetwork()

    monkeypatch.setattr("wholebody.model.load.load_model", load)
    config = EvaluateConfig(
        ("a.pth.tar", "b.pth.tar"), "real", photos, tmp_path / "out", any_gender=True, family="smpler_x", box_scale=1.5,
        device="cpu", gallery=0,
    )  # fmt: skip
    result = evaluate.evaluate(config, lambda text: None)
    assert asked == [("a.pth.tar", True, "smpler_x"), ("b.pth.tar", True, "smpler_x")]
    assert result is not None and result.protocol.endswith("Boxes enlarged 1.5 times, as asked for.")
    with np.load(tmp_path / "out" / "parameters_a.npz") as wide:
        assert len(wide["id"]) == 1
    (as_asked, _), (as_trained, _) = (evaluate.load_networks(replace(config, box_scale=scale)) for scale in (1.5, None))
    assert (as_asked.config.box_enlarge, as_trained.config.box_enlarge) == (1.5, 1.25)
    with pytest.raises(BadInput, match="box scale is 0"):
        evaluate.load_networks(replace(config, box_scale=0.0))
    with pytest.raises(BadInput, match="--box-scale has no meaning for synthetic"):
        EvaluateConfig(("t",), "synthetic", box_scale=1.5)


def test_a_folder_without_truth_is_named(tmp_path):
    with pytest.raises(AssetMissing, match="real3d.json"):
        list(RealPhotos(tmp_path).people())
    (tmp_path / "real3d.json").write_text("{}")
    with pytest.raises(BadInput, match="real3d.json"):
        list(RealPhotos(tmp_path).people())


def test_an_unknown_test_set_is_named():
    with pytest.raises(BadInput, match="'heldout': choose one of .*synthetic, real"):
        EvaluateConfig(("t",), "heldout")


# Every option, on every set that needs no licensed files


@pytest.fixture
def labelled(tmp_path):
    """Six photos of a person with labelled limbs, in COCO's form, and the same with measured joints."""
    folder = tmp_path / "photos"
    folder.mkdir()
    images, people, frames = [], [], []
    rng = np.random.default_rng(0)
    for number in range(6):
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), np.full((200, 150, 3), 30 * number, np.uint8))
        keypoints = np.column_stack([rng.uniform(20, 120, (17, 2)), np.full(17, 2)])
        images.append({"id": number, "file_name": name})
        people.append({"id": number, "image_id": number, "bbox": [20, 20, 100, 160], "num_keypoints": 17,
                       "keypoints": keypoints.ravel().tolist()})  # fmt: skip
        frames.append(
            {"image": name, "box_xywh": [20, 20, 100, 160], "joints_mm": rng.normal(0, 300, (12, 3)).tolist()}
        )
    (folder / "wholebody.json").write_text(json.dumps({"images": images, "annotations": people}))
    real = tmp_path / "real"
    real.mkdir()
    for number in range(6):
        (real / f"{number}.png").symlink_to(folder / f"{number}.png")
    (real / "real3d.json").write_text(json.dumps({"joint_names": list(LIMBS_12), "frames": frames}))
    return {"coco2d": folder, "real": real}


@pytest.mark.parametrize("testset", ["synthetic", "real", "coco2d"])
def test_every_option_is_honoured(testset, labelled, layers, heldout, tmp_path, monkeypatch, capsys):
    root = labelled.get(testset, layers)
    asked = {}
    sizes = []

    def load(config):
        asked.update(vars(config))
        if testset == "synthetic":
            return [Knowing(heldout, turned(16 + k)) for k in range(len(config.models))]
        networks = [FakeNetwork() for _ in config.models]
        sizes.append(networks[0].seen)
        return networks

    monkeypatch.setattr(evaluate, "load_networks", load)
    monkeypatch.setattr("wholebody.synthesis.sets.generate.run", lambda folder, *_, **__: folder)
    out = tmp_path / "out"
    words = ["evaluate", "a.safetensors", "b.safetensors", "--testset", testset, "--root", str(root), "--out", str(out)]
    words += [
        "--limit",
        "2",
        "--every",
        "2",
        "--batch-size",
        "1",
        "--gallery",
        "1",
        "--device",
        "cpu",
        "--body",
        "mine",
    ]
    assert main(words) == 0, capsys.readouterr().err
    assert (asked["device"], asked["body"], asked["batch_size"]) == ("cpu", "mine", 1)
    said = capsys.readouterr().out
    stored = json.loads((out / "result.json").read_text())
    assert stored["people"] == 2 and [one["name"] for one in stored["networks"]] == ["a", "b"]
    assert "2 people" in said and str(out / "report.html") in said
    lines = (out / "samples.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 * 2  # of two people, the best and the worst, of each network
    for name in "ab":
        with np.load(out / f"parameters_{name}.npz") as kept:
            people = kept["id"].tolist()
            assert len(people) == 2 and kept["betas"].shape == (2, 10)
    if testset != "synthetic":
        assert [person.rpartition("/")[0] or person for person in people] == ["0.png", "2.png"]
        assert max(len(images) for images in sizes[0]) == 1


def test_people_shared_by_processes_come_together_in_order(tmp_path):
    counted = []
    found = testset.in_processes(partial(shared_numbers, 7), 2, counted.append)
    assert found == [list(range(7)), [10 * n for n in range(7)]] and sum(counted) == 7
    with pytest.raises(BadInput, match="rank 1"):
        testset.in_processes(partial(shared_numbers, -1), 2, counted.append)


def test_devices_that_are_not_there_are_named():
    assert testset.device_of("cuda:1", 0, 1) == "cuda:1" and testset.device_of("auto", 0, 1) == "auto"
    with pytest.raises(BadInput, match="several processes take --device cuda or cpu"):
        testset.device_of("cuda:1", 0, 2)
    with pytest.raises(BadInput, match="--devices 99, and this machine has"):
        testset.device_of("cuda", 0, 99)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(labelled, tmp_path):
    for name, more in (("one", []), ("two", ["--devices", "2"])):
        out = ["--out", str(tmp_path / name), "--gallery", "0", "--device", "cpu"]
        assert main(["evaluate", "t", "--testset", "real", "--root", str(labelled["real"]), *out, *more]) == 0
    one, two = ((tmp_path / name / "samples.csv").read_text() for name in ("one", "two"))
    assert one == two
