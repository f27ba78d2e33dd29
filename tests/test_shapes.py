"""The shapes that signatures name are checked while tests run."""

import ast
from pathlib import Path

import pytest
import shape_checks
import torch
from jaxtyping import TypeCheckError

from wholebody.body.kinematics import BODY_TREE, tree_rotations
from wholebody.geometry.rotation import axis_angle_to_matrix, rotation_6d_to_matrix
from wholebody.model.prediction import PartBoxes
from wholebody.model.roi import sample_points

SOURCE = Path(__file__).parents[1] / "src" / "wholebody"
# Whose functions say the shape of every tensor that they take or give.
WHOLE = ("geometry/rotation.py", "geometry/crop.py", "geometry/camera.py", "body/kinematics.py")


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


def test_each_room_has_its_borders_checked():
    import wholebody.geometry.camera
    import wholebody.model.network  # noqa: F401

    least = {
        "geometry.rotation": 6, "geometry.crop": 7, "geometry.camera": 5, "body.layer": 4, "body.kinematics": 5,
        "model.network": 4, "model.prediction": 3, "model.roi": 3,
    }  # fmt: skip
    for module, count in least.items():
        assert shape_checks.checked[f"wholebody.{module}"] >= count, (module, shape_checks.checked)


@pytest.mark.parametrize("file", WHOLE)
def test_no_public_function_leaves_the_shape_of_a_tensor_out(file):
    for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            hints = [arg.annotation for arg in given] + [node.returns]
            for hint in filter(None, hints):
                text = ast.unparse(hint)
                assert text not in ("Tensor", "np.ndarray", "Array", "tuple[Tensor, Tensor]"), (file, node.name, text)
