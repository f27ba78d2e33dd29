"""`wholebody data check` tells what is there, what is missing and damaged, and draws people where their truth is."""

import cv2
import numpy as np
import pytest
from data.forge import human36m, mscoco, own

from wholebody.cli import main
from wholebody.data.check import check, lines
from wholebody.data.readers import READERS, reader
from wholebody.data.sheet import TILE_HW, tile
from wholebody.errors import BadInput


@pytest.fixture
def root(people, tmp_path):
    for name, forge in (("MSCOCO", mscoco), ("Own", own)):
        (tmp_path / name).mkdir()
        forge.forge(tmp_path / name, people)
    return tmp_path


def split_of(reports, name, split):
    (report,) = (r for r in reports if r.info.name == name)
    (found,) = (s for s in report.splits if s.split == split)
    return found


def test_counts_are_those_that_were_forged(people, root):
    reports = check(root)
    train = split_of(reports, "MSCOCO", "train")
    assert (train.people, train.pictures, train.measured, train.missing_pictures) == (6, 3, 0, 0)
    assert train.fitted == {"smplx": sum(p.fitted for p in people)}
    known = [(p.left_hand_known, p.right_hand_known, p.face_known) for p in people]
    assert train.parts.tolist() == np.sum(known, 0).tolist()
    assert split_of(reports, "MSCOCO", "val").fitted == {}
    assert split_of(reports, "Own", "test").missing == ["annotations/test.json"]
    assert all(report.ok for report in reports)  # a split that is not there is no damage


def test_the_text_says_where_to_get_what_is_not_there(root, capsys):
    assert main(["data", "check", str(root)]) == 0
    text = capsys.readouterr().out
    assert "train: 6 people in 3 pictures; 5 with smplx parameters" in text
    assert "test: not complete, missing annotations/test.json" in text
    for name in ("AGORA", "EHF", "Human36M", "UBody", "PW3D"):
        assert f"{name}: {READERS[name].title}; get it: {READERS[name].source}" in text


def test_missing_and_broken_pictures_are_counted_and_named(root, capsys):
    pictures = sorted((root / "MSCOCO" / "images" / "train2017").iterdir())
    pictures[0].unlink()
    pictures[1].write_bytes(pictures[1].read_bytes()[:40])
    assert main(["data", "check", str(root), "--set", "MSCOCO", "--sheet", str(root / "sheet.png"), "--each", "6"]) == 1
    text = capsys.readouterr().out
    assert f"1 pictures are missing, the first is images/train2017/{pictures[0].name}" in text
    assert f"{pictures[1].name} is broken" in text


def test_a_damaged_set_does_not_hide_the_others(root):
    path = root / "MSCOCO" / "annotations" / "coco_wholebody_train_v1.0.json"
    path.write_bytes(path.read_bytes()[:-50])
    reports = check(root)
    assert "not a whole JSON file" in split_of(reports, "MSCOCO", "train").error
    assert split_of(reports, "Own", "train").people == 6
    assert [r.info.name for r in reports if not r.ok] == ["MSCOCO"]
    assert any("not a whole JSON file" in line for line in lines(reports))


def test_quick_only_sees_files(root, monkeypatch):
    monkeypatch.setattr("wholebody.data.check._read", None)
    train = split_of(check(root, quick=True), "MSCOCO", "train")
    assert train.ok and train.people == 0


def test_a_single_set_and_split_in_its_own_folder(root):
    (report,) = check(root / "MSCOCO", ["MSCOCO"], ["val"])
    assert [s.split for s in report.splits] == ["val"] and report.splits[0].people == 6


def test_a_wrong_folder_or_name_is_refused(tmp_path, capsys):
    with pytest.raises(BadInput, match="no folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="holds none of AGORA"):
        check(tmp_path)
    assert main(["data", "check", str(tmp_path), "--set", "COCO"]) == 2
    assert "no dataset 'COCO'" in capsys.readouterr().err


def test_people_are_drawn_where_their_truth_is(people, tmp_path):
    """The forged picture shows bones in colours that the sheet's drawing has to cover."""
    human36m.forge(tmp_path, people[:1])
    (sample,) = READERS["Human36M"].read(tmp_path, "train")
    plain = np.full((1002, 1000, 3), 128, np.uint8)
    cv2.imwrite(str(tmp_path / sample.image_path), plain)
    drawn = tile(sample, tmp_path)
    assert drawn.shape == (TILE_HW[0] + 34, TILE_HW[1], 3)
    from wholebody.geometry.crop import apply_affine, crop_affine, fit_box

    affine = crop_affine(fit_box(sample.box_xyxy, TILE_HW[1] / TILE_HW[0]), out_hw=TILE_HW)[0]
    view = people[0].view(human36m.WH)
    for name in ("left_wrist", "right_ankle", "neck"):
        x, y = apply_affine(view.px(name), affine).round().astype(int)
        assert drawn[y, x, 1] > 180 and drawn[y, x, 0] < 120  # green


def test_a_sheet_has_a_row_for_each_split(root):
    sheet = root / "sheets" / "sheet.png"
    check(root, sheet=sheet, each=2)
    height, width = TILE_HW[0] + 34, TILE_HW[1]
    assert cv2.imread(str(sheet)).shape == (4 * height, 2 * width, 3)  # MSCOCO train, val; Own train, val
    assert not list(sheet.parent.glob("*.part"))


def test_fitted_bodies_are_drawn_as_crosses_on_their_people(people, open_body, root):
    from dataclasses import replace

    from wholebody.data.mesh_joints import MeshJoints
    from wholebody.geometry.crop import apply_affine, crop_affine, fit_box

    sample = next(READERS["MSCOCO"].read(root / "MSCOCO", "train"))
    sample = replace(sample, body="open", joint_valid=np.zeros(137, bool))  # no dots in the way
    drawn = tile(sample, root / "MSCOCO", MeshJoints("open")(sample))
    affine = crop_affine(fit_box(sample.box_xyxy, TILE_HW[1] / TILE_HW[0]), out_hw=TILE_HW)[0]
    view = mscoco.views(people)[0]
    for name in ("left_knee", "right_elbow", "left_ankle"):
        x, y = apply_affine(view.px(name), affine).round().astype(int)
        assert (drawn[y - 1 : y + 2, x - 1 : x + 2] == (255, 255, 60)).all(-1).any()


@pytest.mark.parametrize("word, meant", [("COCO", "MSCOCO"), ("3dpw", "PW3D"), ("h36m", "Human36M")])
def test_sets_are_offered_by_the_names_of_papers(word, meant):
    with pytest.raises(BadInput, match=rf"did you mean {meant}\?"):
        reader(word)
