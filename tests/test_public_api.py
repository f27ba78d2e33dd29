"""What other programs may rely on: docs/architecture.md lists it, and it changes only with a line in the changelog."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import wholebody

ROOT = Path(__file__).parents[1]
NAMES = {
    "BodyModel", "Person", "Prediction", "Predictor", "WholebodyError", "__version__", "load_model", "read_image",
    "refine",
}  # fmt: skip
PERSON = {
    "box_xyxy", "score", "global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "betas",
    "expression", "cam_trans", "focal_px", "principal_px", "joints_cam", "vertices_cam", "keypoints_px",
    "left_hand_box_xyxy", "right_hand_box_xyxy", "face_box_xyxy",
}  # fmt: skip


def test_names():
    assert set(wholebody.__all__) >= NAMES
    for name in wholebody.__all__:
        assert getattr(wholebody, name) is not None


def test_fields_of_a_person():
    assert {field.name for field in dataclasses.fields(wholebody.Person)} >= PERSON


def test_the_page_lists_them():
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in NAMES - {"__version__"}:
        assert f"`{name}`" in page, name


# Libraries are not looked into, which takes seven times as long: what their types are is checked by `make lint`.
MYPY = """
[mypy]
strict = True
follow_imports = silent
ignore_missing_imports = True
[mypy-av.*,cv2.*,jaxtyping.*,numba.*,PIL.*,pyarrow.*,safetensors.*,scipy.*,torch.*,trimesh.*]
follow_imports = skip
"""


def test_the_documented_use_type_checks(tmp_path):
    """The Python of the README, as a user's own program, checked as strictly as can be; and errors are noticed."""
    pytest.importorskip("mypy", reason="mypy comes with the extra `lint`")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    (tmp_path / "mypy.ini").write_text(MYPY)

    def check(program):
        (tmp_path / "program.py").write_text(program)
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "program.py"],
            cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
        )  # fmt: skip
        return done.stdout

    documented = "\n".join(blocks)
    assert check(documented).startswith("Success"), check(documented)
    assert 'error: "Person" has no attribute "toes"' in check(documented + "\npeople[0].toes\n")


def test_the_changelog_knows_this_version():
    assert f"## {wholebody.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {wholebody.__version__}" in (ROOT / "CITATION.cff").read_text()
