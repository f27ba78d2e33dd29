"""Any picture becomes upright 8-bit RGB, or an error that says what is wrong with it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from bad_pictures import bad_files
from PIL import Image

from wholebody.errors import BadInput
from wholebody.files.image import find_sources, focal_35mm_of, read_image

RED, BLUE = (220, 30, 40), (20, 40, 200)


def two_halves(width: int = 64, height: int = 48) -> Image.Image:
    """Red on the left, blue on the right."""
    picture = Image.new("RGB", (width, height), RED)
    picture.paste(BLUE, (width // 2, 0, width, height))
    return picture


def saved(path: Path, picture: Image.Image, **options) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tif", "gif", "ppm"])
def test_formats_give_the_same_picture(tmp_path, suffix):
    image = read_image(saved(tmp_path / f"a.{suffix}", two_halves()))
    assert image.shape == (48, 64, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.abs(image[24, 10].astype(int) - RED).max() < 12
    assert np.abs(image[24, 50].astype(int) - BLUE).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path, orientation):
    """The stored pixels are transformed so that the tag undoes it: whatever the tag, the same picture must come out."""
    undo = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # PIL transpositions that the tag takes back
    upright = two_halves()
    upright.paste((250, 250, 250), (0, 0, 16, 16))  # so that every turn and mirror is another picture
    stored = upright
    for method in undo.get(orientation, []):
        stored = stored.transpose(Image.Transpose(method))
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(saved(tmp_path / "a.png", stored, exif=exif)), np.asarray(upright))


def test_grey_and_palette_and_one_bit(tmp_path):
    grey = read_image(saved(tmp_path / "g.png", two_halves().convert("L")))
    assert grey.shape == (48, 64, 3) and (grey[..., 0] == grey[..., 2]).all() and grey.std() > 1
    palette = read_image(saved(tmp_path / "p.png", two_halves().convert("P", palette=Image.Palette.ADAPTIVE)))
    np.testing.assert_array_equal(palette, np.asarray(two_halves()))
    assert set(np.unique(read_image(saved(tmp_path / "b.png", two_halves().convert("1"))))) <= {0, 255}


def test_cmyk(tmp_path):
    image = read_image(saved(tmp_path / "c.jpg", two_halves().convert("CMYK"), quality=95))
    assert np.abs(image[24, 10].astype(int) - RED).max() < 12


def test_16_bit_keeps_its_greys(tmp_path):
    """A ramp over the whole 16-bit range must become the ramp over the 8-bit range: neither cut nor wrapped."""
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    path = saved(tmp_path / "d.png", Image.fromarray(np.tile(ramp, (32, 1))))
    image = read_image(path)
    assert image.shape == (32, 256, 3)
    np.testing.assert_allclose(image[0, :, 1], np.arange(256), atol=1)


def test_float_tiff(tmp_path):
    values = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (32, 1))
    values[0, 0] = np.nan
    image = read_image(saved(tmp_path / "f.tif", Image.fromarray(values)))
    np.testing.assert_allclose(image[1, :, 0], np.arange(256), atol=1)


def test_alpha_lies_over_white(tmp_path):
    picture = two_halves().convert("RGBA")
    picture.putalpha(Image.new("L", picture.size, 0))
    picture.paste((*RED, 255), (0, 0, 32, 48))
    image = read_image(saved(tmp_path / "a.png", picture))
    assert tuple(image[20, 10]) == RED and tuple(image[20, 50]) == (255, 255, 255)


def test_animation_gives_its_first_frame_and_a_note(tmp_path):
    frames = [Image.new("RGB", (40, 30), color) for color in (RED, BLUE, (0, 200, 0))]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    notes: list[str] = []
    image = read_image(path, notes)
    assert np.abs(image[10, 10].astype(int) - RED).max() < 8
    assert len(notes) == 1 and "3 frames" in notes[0] and "first" in notes[0]


def test_12000_pixels_wide(tmp_path):
    assert read_image(saved(tmp_path / "w.jpg", two_halves(12000, 400))).shape == (400, 12000, 3)


@pytest.mark.parametrize("name", sorted(bad_files()))
def test_bad_files_are_named_and_explained(tmp_path, name):
    content, says = bad_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value) and says in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(BadInput, match="folder"):
        read_image(tmp_path)


def test_sources_from_files_folders_and_globs(tmp_path):
    for name in ("a.jpg", "a.png", "b/c.jpg", "b/.hidden.jpg", "notes.txt", "out/a_overlay.jpg", "d/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        two_halves().save(tmp_path / name) if name.endswith(("jpg", "png")) else (tmp_path / name).write_text("x")
    sources, problems = find_sources([tmp_path], skip=tmp_path / "out")
    assert not problems
    assert [source.name for source in sources] == ["a", "a", "b/c", "d/a"]
    again, _ = find_sources([tmp_path / "a.jpg", tmp_path], skip=tmp_path / "out")
    assert len(again) == 4  # given twice, done once
    globbed, _ = find_sources([str(tmp_path / "*.jpg")])
    assert [source.path.name for source in globbed] == ["a.jpg"]
    _, problems = find_sources([tmp_path / "none.jpg", str(tmp_path / "*.webp"), tmp_path / "a.jpg"])
    assert len(problems) == 2 and "none.jpg" in problems[0] and "*.webp" in problems[1]


def test_what_is_left_out_is_named(tmp_path, monkeypatch):
    two_halves().save(tmp_path / "a.jpg")
    for name in ("phone.HEIC", "notes\x1b[2J.txt", ".hidden.jpg"):
        (tmp_path / name).write_text("x")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "more").mkdir()
    two_halves().save(tmp_path / "more" / "b.jpg")
    (tmp_path / "linked").symlink_to(tmp_path / "more")
    monkeypatch.setattr("wholebody.files.image._reads_heic", lambda: False)
    left_out: list[str] = []
    sources, problems = find_sources([tmp_path], left_out=left_out)
    assert [source.name for source in sources] == ["a", "more/b"] and not problems
    (line,) = left_out
    for words in ("4 files", "phone.HEIC", "notes\\x1b[2J.txt", "broken.jpg (a link that leads nowhere)",
                  "linked (a link to a folder)"):  # fmt: skip
        assert words in line, words
    assert ".hidden" not in line
    monkeypatch.setattr("wholebody.files.image._reads_heic", lambda: True)
    assert [source.name for source in find_sources([tmp_path])[0]] == ["a", "more/b", "phone"]
    inputs = ["https://example.org/a.jpg", tmp_path / "broken.jpg", tmp_path / "a.jpg"]
    _, problems = find_sources(inputs)
    assert "is an address" in problems[0] and "nowhere.jpg, which is not there" in problems[1]


def test_an_input_folder_that_is_also_the_output(tmp_path):
    for name in ("a.jpg", "a_overlay.jpg", "b_overlay.jpg"):
        two_halves().save(tmp_path / name)
    sources, _ = find_sources([tmp_path], tmp_path, is_result=lambda path: path.name == "a_overlay.jpg")
    assert [source.name for source in sources] == ["a", "b_overlay"]


def test_focal_length_of_the_camera(tmp_path):
    settings = Image.Exif()
    settings.get_ifd(0x8769)[0xA405] = 26
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=settings)
    Image.new("RGB", (64, 48)).save(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    assert [focal_35mm_of(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg")] == [26.0, None, None, None]


def test_folders_that_may_not_be_listed_are_named(tmp_path, monkeypatch):
    for folder in ("open", "shut"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / folder / "a.jpg")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("shut"):  # root may list every folder
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, problems = find_sources([str(tmp_path)])
    assert [source.name for source in found] == ["open/a"]
    assert len(problems) == 1 and "shut: the folder cannot be listed (Permission denied)" in problems[0]


def test_a_picture_that_claims_more_than_is_read_is_refused_before_it_is_decoded():
    """By whichever way: Pillow's, the training's JPEG decoder, OpenCV's of stored pictures."""
    from wholebody.data.decode import decode
    from wholebody.files import image as images

    file = io.BytesIO()
    Image.new("RGB", (40, 30)).save(file, "JPEG")
    content = bytearray(file.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = b"\xff\x00\xff\x00"  # 65,280 a side
    for read in (lambda: images.decode_image(bytes(content), "x", []), lambda: decode(bytes(content)),
                 lambda: images.check_size(bytes(content), "x")):  # fmt: skip
        with pytest.raises(BadInput, match="4,?261,?478,?400 pixels"):
            read()
    with pytest.raises(BadInput, match="65,535 a side"):
        images.check_pixels(50, 2_293_800, "x")
