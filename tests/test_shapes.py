"""Signatures of `geometry`, `body` and `model` name the shapes of arrays, and calls keep to them."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "wholebody"
# Whose functions say the shape of every tensor that they take or give.
WHOLE = ("geometry/rotation.py", "geometry/crop.py", "geometry/camera.py", "body/kinematics.py")
CHECKED = ("checked_shapes.py", "geometry/test_rotation.py", "geometry/test_crop.py", "body/test_kinematics.py")


def test_calls_have_the_shapes_that_signatures_name():
    """In a process whose functions are wrapped as they are imported (`shape_checks`). The whole suite can run so:
    WHOLEBODY_CHECK_SHAPES=1."""
    pytest.importorskip("jaxtyping")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in CHECKED)]
    command += ["-k", "not roma and not compiles"]  # which import a compiler, and call nothing more
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"WHOLEBODY_CHECK_SHAPES": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("file", WHOLE)
def test_no_public_function_leaves_the_shape_of_a_tensor_out(file):
    for node in ast.walk(ast.parse((SOURCE / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            hints = [arg.annotation for arg in given] + [node.returns]
            for hint in filter(None, hints):
                text = ast.unparse(hint)
                assert text not in ("Tensor", "np.ndarray", "Array", "tuple[Tensor, Tensor]"), (file, node.name, text)
