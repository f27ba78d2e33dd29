"""docs/own-data.md does what it says: its code makes a set that is read as described."""

import re
from pathlib import Path

import cv2
import numpy as np

from wholebody.body.joints import JOINTS_137
from wholebody.cli import main
from wholebody.data.readers import READERS

DOC = Path(__file__).parents[2] / "docs" / "own-data.md"


def test_the_walk_through_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", DOC.read_text(), re.S)
    assert len(code) == 3
    picture = tmp_path / "dataset" / "Own" / "images" / "day1" / "0001.jpg"
    picture.parent.mkdir(parents=True)
    exec("\n".join(code), {})
    assert capsys.readouterr().out.strip() == "7 images/day1/0001.jpg 4 joints, smplx parameters"

    (sample,) = READERS["Own"].read(tmp_path / "dataset" / "Own", "train")
    row = {name: JOINTS_137.index(name) for name in ("Nose", "L_Wrist", "R_Wrist", "L_Thumb_4", "Face_18")}
    assert {JOINTS_137[k] for k in np.flatnonzero(sample.joint_valid)} == {"Nose", "L_Wrist", "L_Thumb_4", "Face_18"}
    assert sample.joint_visible[row["Nose"]] and not sample.joint_visible[row["L_Wrist"]]
    np.testing.assert_array_equal(sample.joints_px[row["L_Thumb_4"]], [378, 281])
    assert sample.part_valid.tolist() == [True, False, False]
    np.testing.assert_array_equal(sample.left_hand_box, [350, 250, 390, 295])
    assert sample.pose_valid[25:40].all() and not sample.pose_valid[40:55].any() and not sample.expression_valid
    np.testing.assert_array_equal(sample.focal_px, [900, 900])

    assert main(["data", "check", "dataset", "--set", "Own"]) == 1
    assert "1 pictures are missing, the first is images/day1/0001.jpg" in capsys.readouterr().out
    cv2.imwrite(str(picture), np.full((480, 640, 3), 90, np.uint8))
    assert main(["data", "check", "dataset", "--set", "Own", "--sheet", "own.png"]) == 0
    assert "train: 1 people in 1 pictures; 1 with smplx parameters" in capsys.readouterr().out
    assert (tmp_path / "own.png").exists()


def test_commands_and_files_that_it_names_exist():
    from wholebody.cli import app
    from wholebody.training.recipes import recipe_names

    text = DOC.read_text()
    for command in re.findall(r"^wholebody (.*?)(?:#.*)?$", text, re.M):
        app.parse_args(command.split(), exit_on_error=False, print_error=False)
    for link in re.findall(r"\]\(([\w.-]+\.md)\)", text):
        assert (DOC.parent / link).exists(), link
    assert "wholebody train finetune" in text and "finetune" in recipe_names()
