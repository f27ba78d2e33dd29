"""Run by `test_shapes.py` in a process of its own, in which shapes are checked."""

import pytest
import shape_checks
import torch
from jaxtyping import TypeCheckError

from wholebody.body.kinematics import BODY_TREE, tree_rotations
from wholebody.geometry.rotation import axis_angle_to_matrix, rotation_6d_to_matrix
from wholebody.model.osx import build_osx
from wholebody.model.prediction import PartBoxes
from wholebody.model.roi import sample_points


@pytest.mark.parametrize(
    "call",
    [
        lambda: rotation_6d_to_matrix(torch.zeros(2, 5)),
        lambda: axis_angle_to_matrix(torch.zeros(2, 3, dtype=torch.int64)),
        lambda: tree_rotations(torch.zeros(2, 55, 3, 3)),
        lambda: BODY_TREE.pose(torch.zeros(2, 55, 3, 3), torch.zeros(3, 55, 3)),  # two people, three bodies
        lambda: sample_points(torch.zeros(2, 8, 4, 4), torch.zeros(2, 5, 3)),
        lambda: PartBoxes(torch.zeros(2, 3, 4), torch.zeros(2, 3)),
    ],
)
def test_other_shapes_and_types_are_noticed(call):
    with pytest.raises(TypeCheckError):
        call()


@torch.inference_mode()
def test_a_network_and_a_body_keep_to_theirs(small_config, open_body):
    network = build_osx(small_config).eval()
    network.body = open_body
    prediction = network(torch.rand(2, 3, *small_config.input_hw))
    assert prediction.joints_proj_cells.shape == (2, 137, 2) and prediction.face_box_cells.shape == (2, 72, 3)
    with pytest.raises(TypeCheckError):
        network(torch.rand(2, *small_config.input_hw, 3)[None])
    with pytest.raises(TypeCheckError):
        open_body.joints_137(prediction.joints_cam)  # 55 of them, not 144


def test_each_room_has_its_borders_checked():
    import wholebody.geometry.camera
    import wholebody.geometry.crop  # noqa: F401

    least = {
        "geometry.rotation": 6, "geometry.crop": 7, "geometry.camera": 5, "body.layer": 4, "body.kinematics": 5,
        "model.network": 4, "model.prediction": 3, "model.roi": 3,
    }  # fmt: skip
    for module, count in least.items():
        assert shape_checks.checked[f"wholebody.{module}"] >= count, (module, shape_checks.checked)
