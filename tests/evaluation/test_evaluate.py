"""Errors on held-out people and real photos are what they say, and a constant answer is measured as any other."""

import json

import cv2
import numpy as np
import pytest
import torch
from fake_network import FakeNetwork

from wholebody.body.assets import find_body, read_body_file
from wholebody.body.joints import LIMBS_12, SMPLX_JOINTS, index
from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation.evaluate import run
from wholebody.evaluation.metrics import MeshParts, mesh_errors_mm
from wholebody.evaluation.real import measure_real
from wholebody.evaluation.synthetic import constant_errors, measure_layers


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


def test_a_network_that_knows_the_truth_has_no_error(layers):
    """The measure itself: predictions made of the targets score zero."""
    from wholebody.evaluation import synthetic
    from wholebody.synthesis.sets.crops import CropDataConfig, TrainingCrops

    body = BodyModel.load(flat_hand_mean=True)
    data = TrainingCrops(CropDataConfig(str(layers), augment=synthetic.PLAIN), seed=7, length=4)
    batch = torch.utils.data.default_collate([data[n] for n in range(4)])
    truth = synthetic._true_vertices(body, batch)
    errors = mesh_errors_mm(truth + 3.0, truth, MeshParts.of(read_body_file(find_body(None))))
    assert all(float(value.max()) < 0.05 for value in errors.values())


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
    errors = measure_real(FakeNetwork(), photos)
    assert errors["a.png"] == errors["mean"] < 0.1
    assert errors["constant_mean"] > 20


def test_a_folder_without_truth_is_named(tmp_path):
    with pytest.raises(AssetMissing, match="real3d.json"):
        measure_real(FakeNetwork(), tmp_path)
    (tmp_path / "real3d.json").write_text("{}")
    with pytest.raises(BadInput, match="real3d.json"):
        measure_real(FakeNetwork(), tmp_path)


def test_an_unknown_test_set_is_named():
    with pytest.raises(BadInput, match="'EHF': choose one of synthetic, real"):
        run("t", "EHF")
