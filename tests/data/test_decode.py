"""Crops of encoded pictures show what the picture shows, whatever was left out in decoding."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from tools.bench.loader import published_crop
from wholebody.data.decode import crop_picture, decode, warp_smooth
from wholebody.errors import BadInput
from wholebody.geometry.crop import apply_affine, compose_affine, crop_affine, invert_affine, warp


def jpeg(picture, quality=95, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def picture():
    """Detail at all scales, as photos have, the finest without colour; 701×1003 is not a multiple of any block."""
    rng = np.random.default_rng(0)
    picture = np.full((701, 1003, 3), 128.0)
    for cells, strength in ((6, 60), (25, 40), (100, 25), (350, 20)):
        coarse = rng.normal(0, strength, (cells * 7 // 10, cells, 3 if cells < 50 else 1)).astype(np.float32)
        picture += cv2.resize(coarse, (1003, 701), interpolation=cv2.INTER_CUBIC).reshape(701, 1003, -1)
    return picture.clip(0, 255).astype(np.uint8)


def truth(picture, affine, out_hw, samples=12):
    """The mean over each pixel of the crop, by brute force."""
    height, width = out_hw
    y, x = ((np.arange(side * samples) + 0.5) / samples - 0.5 for side in out_hw)
    grid = np.stack(np.meshgrid(x, y), -1)
    points = apply_affine(grid, invert_affine(affine)).astype(np.float32)
    # Areas of the picture that a sub-sample covers are small here, so bilinear sampling is enough.
    dense = cv2.remap(picture.astype(np.float32), points[..., 0], points[..., 1], cv2.INTER_LINEAR)
    return dense.reshape(height, samples, width, samples, 3).mean((1, 3))


CROPS = [  # box, rotation, flip: the crop is 1.2 to 9 times as coarse
    ([300, 200, 416, 354], 0.0, False), ([250, 100, 550, 500], 0.4, True), ([100, 50, 610, 650], -0.2, False),
    ([-100, -200, 900, 1100], 0.3, True), ([200, 300, 260, 380], 0.2, False),
]  # fmt: skip


@pytest.mark.parametrize("box, angle, flip", CROPS)
@pytest.mark.parametrize("out_hw", [(128, 96), (64, 48)])
def test_crops_are_the_mean_of_what_each_pixel_covers(picture, box, angle, flip, out_hw):
    affine, _ = crop_affine(box, angle, flip=flip, out_hw=out_hw)
    data = jpeg(picture, 98)
    ours, picture = crop_picture(data, affine, out_hw), decode(data)[0]
    exact = truth(picture, affine, out_hw)
    plain = warp(picture, affine, out_hw)
    assert ours.dtype == np.uint8 and ours.shape == (*out_hw, 3)
    apart = [np.abs(crop.astype(float) - exact)[2:-2, 2:-2].mean() for crop in (ours, plain)]
    assert apart[0] < 2.5
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    if shrink > 1.8:
        assert apart[0] < 0.45 * apart[1]  # plain sampling is much further off


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_reduced_decoding_keeps_points_where_they_are(factor):
    """A bright spot lies in the crop where the map puts it, however coarsely the picture was decoded."""
    picture = np.zeros((803, 601, 3), np.uint8)
    spot = np.array([333.0, 421.0])
    y, x = np.mgrid[:803, :601]
    picture[:] = (255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * (4.0 * factor) ** 2)))[
        ..., None
    ].astype(np.uint8)
    affine, _ = crop_affine([100, 200, 100 + 150 * factor, 200 + 200 * factor] if factor > 1 else [280, 360, 376, 488],
                            0.3 if factor < 8 else 0.0, flip=factor == 2, out_hw=(128, 96))  # fmt: skip
    data = jpeg(picture, 98)
    shrink = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))
    assert decode(data, shrink)[1] == factor
    crop = crop_picture(data, affine, (128, 96)).astype(float)[..., 0]
    crop[crop < 40] = 0
    rows, columns = np.mgrid[:128, :96]
    centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, apply_affine(spot, affine), atol=0.12)


def test_reduced_sizes_are_the_whole_picture(picture):
    for factor in (1, 2, 4, 8):
        reduced, done = decode(jpeg(picture), factor * 2)
        assert done == factor and reduced.shape == (-(-701 // factor), -(-1003 // factor), 3)
    assert decode(jpeg(picture), 100)[1] == 8
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG")
    whole, done = decode(png.getvalue(), 4)
    assert done == 1 and (whole == picture).all()


def test_flat_colour_stays_and_outside_is_black():
    picture = np.full((200, 200, 3), (200, 100, 50), np.uint8)
    for shrink in (0.5, 1.05, 1.6, 3.3):
        affine = np.array([[1 / shrink, 0, 10], [0, 1 / shrink, 0.0]])
        crop = warp_smooth(picture, affine, (60, 60))
        left, right, bottom = 10, min(60, int(10 + 200 / shrink)), min(60, int(200 / shrink))
        inside = crop[2 : bottom - 2, left + 3 : right - 2]
        assert inside.size and np.abs(inside.astype(int) - (200, 100, 50)).max() <= 1
        assert (crop[:, : left - 3] == 0).all()
    nothing = warp_smooth(picture, np.array([[0.3, 0, 500], [0, 0.3, 500]]), (50, 50))
    assert (nothing == 0).all()


def test_published_sampling_is_every_second_pixel_of_the_published_crop(picture):
    """What a published network sees of its crop of 512×384 can be sampled directly."""
    affine, _ = crop_affine([200, 100, 650, 700], 0.3, flip=True, out_hw=(512, 384))
    data = jpeg(picture)
    whole = crop_picture(data, affine, (512, 384), antialias=False)
    direct = crop_picture(data, compose_affine([[0.5, 0, 0], [0, 0.5, 0]], affine), (256, 192), antialias=False)
    apart = np.abs(whole[::2, ::2].astype(int) - direct)
    assert apart.max() <= 3 and apart.mean() < 0.1


def test_the_exif_tag_is_not_followed(picture):
    """As published: annotations belong to the pixels as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = jpeg(picture, exif=exif), jpeg(picture)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 6
    np.testing.assert_array_equal(decode(turned)[0], decode(plain)[0])
    broken_start = turned[:2] + b"\xff\xe1\x00\x04ab" + turned[2:]
    assert decode(broken_start)[0].shape == picture.shape


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_become_rgb(picture, mode):
    file = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(file, "JPEG", quality=95)
    found, factor = decode(file.getvalue(), 3)
    assert found.shape[2] == 3 and found.dtype == np.uint8
    if mode == "L":
        assert factor == 2 and (found[..., 0] == found[..., 2]).all()


def test_progressive_jpegs_are_read(picture):
    np.testing.assert_array_equal(decode(jpeg(picture, progressive=True))[0], decode(jpeg(picture))[0])


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "text", "noise"])
def test_broken_pictures_are_refused(picture, damage):
    data = jpeg(picture)
    broken = {
        "cut": data[: len(data) // 2], "empty": b"", "header": data[:30], "text": b"<html>not found</html>",
        "noise": b"\xff\xd8" + np.random.default_rng(0).bytes(3000),
    }[damage]  # fmt: skip
    with pytest.raises(BadInput, match=r"a/b\.jpg"):
        crop_picture(broken, np.eye(3)[:2], (64, 48), name="a/b.jpg")


def test_harmless_oddities_are_read(picture):
    """Bytes after the end, as many cameras and downloads leave."""
    data = jpeg(picture)
    np.testing.assert_array_equal(decode(data + b"\x00" * 100)[0], decode(data)[0])


GREY_LEVELS = 4.0
"""Between OpenCV 4 and 5, of rotated crops: see tests/geometry/test_crop.py."""


@pytest.mark.parametrize("n", range(5))
def test_the_benchmarks_twin_gives_the_published_crops(oracle, tmp_path, n):
    """The published way, as `make bench` times it, against the published code's own arrays."""
    arrays = oracle("crop")
    picture = arrays["in/img_uint8"]
    Image.fromarray(picture).save(tmp_path / "a.png")
    scale, degrees, flip, height, width = arrays[f"in/{n}/scale_rot_flip_h_w"]
    patch = published_crop(
        tmp_path / "a.png", arrays[f"in/{n}/bbox"], scale, degrees, bool(flip), np.ones(3), (int(height), int(width))
    )
    assert patch.dtype == np.float32 and patch.shape == (3, height, width)
    apart = np.abs(255 * patch.transpose(1, 2, 0)[::4, ::4] - arrays[f"out/{n}/patch_every_4th_px"])
    assert apart.max() <= GREY_LEVELS and apart.mean() < 0.1
