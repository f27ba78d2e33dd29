"""Photos that are stored turned are seen upright, where their annotations belong."""

import io

import cv2
import numpy as np
import pytest
from data.forge import own
from PIL import Image, ImageOps

from wholebody.data.check import check
from wholebody.data.orientation import upright_from_stored
from wholebody.data.readers import READERS
from wholebody.geometry.crop import apply_affine


def jpeg(picture: np.ndarray, turn: int) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(picture).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("turn", range(1, 9))
def test_points_move_as_the_picture_does(turn):
    stored = np.zeros((60, 90, 3), np.uint8)
    stored[8:15, 70:77] = 255  # centre at (73, 11)
    data = jpeg(stored, turn)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))[..., 0] > 128
    seen = np.argwhere(upright).mean(0)[::-1]
    affine = upright_from_stored(data)
    assert (affine is None) == (turn == 1)
    np.testing.assert_allclose(apply_affine([73, 11], np.eye(2, 3) if affine is None else affine), seen, atol=0.1)


def test_what_is_no_picture_is_left_to_the_decoder():
    assert upright_from_stored(b"") is None and upright_from_stored(b"\xff\xd8\xff\xe0 cut") is None


def turned_copy(root, number):
    """Store one of the forged pictures turned, as a phone held upright does."""
    path = root / "images" / "day1" / f"{number}.png"
    picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    stored = np.ascontiguousarray(np.rot90(picture))  # to be turned clockwise again: tag 6
    path.write_bytes(jpeg(stored, 6))
    return picture


def test_the_loader_sees_own_photos_upright(people, tmp_path):
    from wholebody.data.dataset import PeopleDataConfig, PeopleDataset, SetConfig
    from wholebody.data.index import build_index, index_path

    crops = []
    for turned in (False, True):
        root = tmp_path / str(turned)
        own.forge(root / "Own", people[:1])
        if turned:
            turned_copy(root / "Own", 0)
        build_index("Own", root / "Own", "train", index_path(root, "Own", "train"))
        config = PeopleDataConfig(sets=(SetConfig("Own"),), root=str(root), mix="all", body="")
        crops.append(PeopleDataset(config, seed=3)[0])
    np.testing.assert_array_equal(crops[0]["joints_crop"], crops[1]["joints_crop"])
    difference = np.abs(crops[0]["image"].astype(int) - crops[1]["image"])
    assert difference.mean() < 4  # JPEG


def test_the_sheet_sees_own_photos_upright_and_names_other_copies(people, tmp_path):
    own.forge(tmp_path, people[:2])
    turned_copy(tmp_path, 0)
    (report,) = check(tmp_path, ["Own"], ["train"], sheet=tmp_path / "sheet.png")
    assert report.ok
    path = tmp_path / "images" / "day1" / "1.png"
    cv2.imwrite(str(path), cv2.imread(str(path))[::2, ::2])
    (report,) = check(tmp_path, ["Own"], ["train"], sheet=tmp_path / "sheet.png")
    assert "120×160 pixels, the annotations say 240×320" in report.splits[0].unreadable[0]
    assert next(READERS["Own"].read(tmp_path, "train")).image_hw == (320, 240)


def test_whose_annotations_are_upright_is_said_by_the_set():
    from wholebody.data.readers import READERS, annotated_upright
    from wholebody.data.sample import masked_sample

    upright = {name for name in READERS if annotated_upright(masked_sample("x", np.zeros(4), dataset=name))}
    assert upright == {name for name, info in READERS.items() if info.upright} == {"Own"}
    assert not annotated_upright(masked_sample("x", np.zeros(4)))
