"""Clothes with their own shape: read, fitted, worn, and kept apart by split."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from forge_assets import forge

from wholebody.body.open_body import expand, read_compact
from wholebody.data.sample import axis_angle_to_matrix
from wholebody.errors import BadInput
from wholebody.files.cache import cache_folder
from wholebody.synthesis import config as configs
from wholebody.synthesis.clothes import outfit as wearing
from wholebody.synthesis.clothes import scaffold
from wholebody.synthesis.clothes import stock as wardrobe
from wholebody.synthesis.clothes import worn_kernels as garments
from wholebody.synthesis.clothes.drape import pose_joints
from wholebody.synthesis.clothes.makehuman import read_piece
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.light import environment as light

SHARED = Path(os.environ.get("WHOLEBODY_SHARED") or Path(__file__).parents[3] / "shared")
ASSETS = SHARED / "assets" / "makehuman"


@pytest.fixture(scope="session")
def assets(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("WHOLEBODY_CACHE", str(tmp_path_factory.mktemp("wardrobe")))
    yield forge(tmp_path_factory.mktemp("assets"))
    patch.undo()


@pytest.fixture(scope="session")
def items(assets):
    return wardrobe.load(assets)


@pytest.fixture(scope="session")
def dressed_studio(assets, bare):
    from wholebody.synthesis.render import Studio

    config = SynthesisConfig(size_hw=(128, 96), margin=1.4, motion="none", hdri="none", assets=str(assets))
    return Studio(config)


def test_a_suit_becomes_a_top_and_a_bottom(items):
    kinds = {(i.name, i.kind) for i in items}
    assert kinds == {("suit_a", "top"), ("suit_a", "bottom"), ("shoes_a", "shoes"), ("hair_a", "hair")}
    by_kind = {i.kind: i for i in items}
    assert by_kind["top"].rest[:, 1].min() > 0 > by_kind["bottom"].rest[:, 1].max()
    rest = expand(read_compact(), correctives=False)["v_template"]
    hidden = rest[by_kind["top"].hides > 0]
    assert len(hidden) > 500 and hidden[:, 1].min() > 0  # what the suit hides is shared out, too
    assert not by_kind["hair"].hides.any() and not by_kind["hair"].opaque and by_kind["top"].opaque


def test_cloth_on_the_skin_stays_there_whatever_the_shape_the_face_and_the_pose(items, dressed_studio):
    """Every forged vertex lies on a vertex of the body, so it must go where that goes."""
    rng = np.random.default_rng(0)
    count = 6
    rotations = axis_angle_to_matrix(rng.normal(0, 0.35, (count, 55, 3)))
    betas, expression = rng.normal(0, 1.2, (2, count, 10)).astype(np.float32)
    studio, body = dressed_studio, dressed_studio.body
    out = body.from_matrices(torch.from_numpy(rotations).float(), torch.from_numpy(betas), torch.from_numpy(expression))
    poses = pose_joints(body, rotations, betas, expression)
    worn = [wearing.Worn(i, np.zeros(28, np.float32), np.zeros(garments.LOOK_COLUMNS, np.float32), 0.01) for i in items]
    offset = np.array([0.1, -0.2, 3.0])
    for k in range(count):
        vertices = out.vertices[k].numpy()
        dressed = studio.dresser.dress(vertices, offset, poses, k, worn)
        for n, item in enumerate(items):
            same = item.near[:, 0]
            assert np.abs(item.rest - studio.rest[same]).max() < 1e-5
            points = dressed.points[dressed.starts[n] : dressed.starts[n + 1]]
            off = np.linalg.norm(points - vertices[same] - offset, axis=1)
            assert np.quantile(off, 0.99) < 0.004 and off.max() < 0.03  # correctives are smoothed over three vertices


def test_hidden_skin_is_not_drawn_and_cut_sleeves_show_it_again(items, dressed_studio):
    studio = dressed_studio
    pose = pose_joints(studio.body, np.tile(np.eye(3), (1, 55, 1, 1)), np.zeros((1, 10)), np.zeros((1, 10)))
    top = next(i for i in items if i.kind == "top")
    row, look = np.zeros(28, np.float32), np.zeros(garments.LOOK_COLUMNS, np.float32)

    def skin(**cut):
        worn = [wearing.Worn(top, row, look, 0.01, **cut)]
        return studio.dresser.dress(studio.rest, np.zeros(3), pose, 0, worn).first[0]

    whole, long, short = len(studio.faces), skin(), skin(sleeve=0.25)
    assert long < short < whole
    keep = wearing.Worn(top, row, look, 0.01, sleeve=0.25).keep(studio.rest)
    assert (keep[np.abs(studio.rest[:, 0]) > 0.26] < 0).all()


def test_the_scaffold_continues_the_body():
    compact = read_compact()
    frame, body = scaffold.load(compact), expand(compact, correctives=False)
    on_skin = frame.body_of_base >= 0
    assert frame.vertices.shape == (19158, 3) and on_skin.sum() == len(body["v_template"])
    np.testing.assert_array_equal(frame.vertices[on_skin], body["v_template"][frame.body_of_base[on_skin]])
    np.testing.assert_allclose(frame.weights.sum(1), 1, atol=1e-4)
    helpers = frame.vertices[~on_skin]
    low, high = body["v_template"].min(0), body["v_template"].max(0)
    assert (helpers > low - 0.15).all() and (helpers < high + 0.15).all()
    assert np.abs(helpers.mean(0)[0]) < 0.01  # both sides
    wrist = frame.from_a_pose[20]
    np.testing.assert_allclose(wrist @ wrist.T, np.eye(3), atol=1e-5)


def test_the_cache_gives_back_what_was_baked(assets, items):
    again = wardrobe._read(next(cache_folder().glob("wardrobe-*.npz")))
    assert [i.name for i in again] == [i.name for i in items]
    for a, b in zip(again, items, strict=True):
        np.testing.assert_array_equal(a.texels, b.texels)
        assert (a.size, a.kind, a.opaque) == (b.size, b.kind, b.opaque)


def test_broken_assets_are_explained(tmp_path, assets):
    with pytest.raises(BadInput, match="makehuman-assets"):
        wardrobe.load(tmp_path)
    forge(tmp_path)
    path = tmp_path / "clothes/suit_a/suit_a.mhclo"
    path.write_text(path.read_text().replace("x_scale", "# x_scale"))
    with pytest.raises(BadInput, match="lacks scales"):
        read_piece(path)
    shoes = tmp_path / "clothes/shoes_a/shoes_a.obj"
    shoes.write_text("v 0 0 0\n" + shoes.read_text())
    with pytest.raises(BadInput, match="its mesh has"):
        read_piece(shoes.with_suffix(".mhclo"))


def test_training_and_held_out_share_no_garment_and_no_map():
    for name in configs.HELDOUT_GARMENTS:
        assert wearing.in_split(name, "heldout") and not wearing.in_split(name, "train")
    assert wearing.in_split("male_casualsuit02", "train") and not wearing.in_split("male_casualsuit02", "heldout")
    for name in configs.HELDOUT_ENVIRONMENTS:
        assert light.in_split(name, "heldout") and not light.in_split(name, "train")
    train, heldout = ({e.name for e in light.load_environments(None, split=s)} for s in ("train", "heldout"))
    panoramas = [light.load_environments(None, split=s)[0].panorama for s in ("train", "heldout")]
    assert len(train) == len(heldout) and not np.array_equal(*panoramas)


def test_a_dressed_person_is_a_function_of_its_number(dressed_studio):
    alone = next(iter(dressed_studio.people(seed=4, first=3, count=1)))[0]
    among = list(dressed_studio.people(seed=4, first=0, count=4))[3][0]
    for name in ("color", "alpha", "shadow"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(among, name))


def test_clothes_do_not_change_the_truth(dressed_studio, studio):
    """Poses, shapes and what is visible come from the body alone: cloth over a joint hides nothing."""
    pairs = zip(studio.people(seed=6, first=0, count=8), dressed_studio.people(seed=6, first=0, count=8), strict=True)
    for (painted, _, _), (dressed, _, _) in pairs:
        for name in ("full_pose", "joints_px", "joint_visible", "box_xyxy"):
            np.testing.assert_array_equal(getattr(painted.sample, name), getattr(dressed.sample, name))


def test_transparent_and_cut_cloth_is_not_seen():
    points = np.array([[-1, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]], np.float32)
    faces, uv = np.array([[0, 1, 2], [0, 2, 3]], np.int32), np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    texels = np.full((8 * 8, 4), 255, np.uint8)
    texels[:32, 3] = 0  # the half with v < 0.5

    def seen(opaque, keep):
        depth, face = np.zeros((40, 40), np.float32), np.full((40, 40), -1, np.int32)
        garments.cloth_visibility(
            points, faces, uv, faces, texels, 0, 8, 1, opaque, keep.astype(np.float32), np.float32(0.1), 20.0, 19.5,
            19.5, 1, 7, depth, face,
        )  # fmt: skip
        return depth, face

    depth, face = seen(True, np.ones(4))
    assert (face[10:29, 10:29] >= 7).all() and np.allclose(depth[20, 20], 1 / 1.9)
    _, face = seen(False, np.ones(4))
    assert (face[10:18, 12:28] == -1).all() and (face[22:29, 12:28] >= 7).all()
    _, face = seen(True, np.array([-1, 1, 1, -1.0]))
    assert (face[12:28, 10:18] == -1).all() and (face[12:28, 22:29] >= 7).all()
    back, _ = seen(True, np.ones(4))
    points[:, 0] *= -1  # from the other side
    other, _ = seen(True, np.ones(4))
    np.testing.assert_allclose(other, back[:, ::-1], atol=1e-6)


@pytest.mark.skipif(not ASSETS.is_dir(), reason="MakeHuman's assets are not beside the project")
def test_real_clothes_cover_the_skin_they_hide(tmp_path_factory, dressed_studio):
    """No hole: where hidden skin would be drawn, cloth or other skin is drawn in front of it."""
    from wholebody.drawing.raster import visibility

    studio = dressed_studio
    rng = np.random.default_rng(0)
    count = 4
    rotations = axis_angle_to_matrix(rng.normal(0, 0.25, (count, 55, 3)))
    turn = np.diag([1.0, -1, -1])
    rotations[:, 0] = turn @ rotations[:, 0]
    betas = rng.normal(0, 0.8, (count, 10)).astype(np.float32)
    zero = torch.zeros(count, 10)
    out = studio.body.from_matrices(torch.from_numpy(rotations).float(), torch.from_numpy(betas), zero).vertices.numpy()
    poses = pose_joints(studio.body, rotations, betas, zero.numpy())
    row, look = np.zeros(28, np.float32), np.zeros(garments.LOOK_COLUMNS, np.float32)
    suits = [i for i in wardrobe.load(ASSETS) if i.kind in ("top", "whole", "bottom") and i.hides.any()]
    assert len(suits) > 15
    holes = []
    for n, item in enumerate(suits):
        k = n % count
        dressed = studio.dresser.dress(
            out[k], np.array([0, 0, 3.0]), poses, k, [wearing.Worn(item, row, look, 0.01)]
        )  # fmt: skip
        shape = (240, 180)
        naked, face = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
        visibility(dressed.points[: len(out[k])], studio.faces, 330.0, 330.0, 89.5, 119.5, 1, True, 0, naked, face)
        under = (item.hides[studio.faces] > 0).all(1)
        was_hidden = (face >= 0) & under[face]
        clothed, face = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
        visibility(dressed.points, dressed.faces, 330.0, 330.0, 89.5, 119.5, 1, False, 0, clothed, face)
        behind = was_hidden & ((clothed == 0) | (1 / np.maximum(clothed, 1e-6) > 1 / np.maximum(naked, 1e-6) + 0.03))
        holes.append(behind.sum() / max(was_hidden.sum(), 1))
    assert np.mean(holes) < 0.02 and max(holes) < 0.08, np.round(holes, 3)
