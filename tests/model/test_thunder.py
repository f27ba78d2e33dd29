"""MoveNet Thunder: equal to its published graph, the same in a mirror, and about the person in the middle."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from wholebody.body.joints import COCO_BODY_17
from wholebody.errors import AssetMissing
from wholebody.files.image import read_image
from wholebody.model.embedded.thunder import (
    MIRRORED_17,
    THUNDER,
    Thunder,
    average_with_mirrored,
    find_keypoints,
    load_thunder,
    load_thunder_trunk,
    read_thunder_state,
)
from wholebody.model.embedded.trunk import MobileNetTrunk

ROOT = Path(__file__).parents[2]
# What TensorFlow.js itself computes with the published graph for a picture of 64×64 pixels, each repeated four times
# both ways: the answer (y, x, score), and of every map some rows and columns, C×H×W under our names.
REFERENCE = ROOT / "tests" / "data" / "thunder_reference.npz"
STEP = {64: 7, 32: 5, 16: 3, 8: 2}


@pytest.fixture(scope="module")
def thunder() -> Thunder:
    return load_thunder()


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def picture(reference) -> torch.Tensor:
    large = reference["image"].repeat(4, 0).repeat(4, 1)
    return torch.from_numpy(large).permute(2, 0, 1)[None] / 255.0


def portrait(width: int) -> torch.Tensor:
    import cv2

    image = cv2.resize(read_image(ROOT / "demo" / "astronaut.jpg"), (256, 256), interpolation=cv2.INTER_AREA)
    left = (256 - width) // 2
    return torch.from_numpy(image[:, left : left + width].copy()).permute(2, 0, 1)[None] / 255.0


def test_equals_the_published_graph(thunder: Thunder, reference, picture: torch.Tensor):
    with torch.inference_mode():
        maps = thunder.trunk(picture)
    compared = set(reference) - {"image", "answer"}
    assert len(compared) == 11
    for name in compared:
        ours, expected = getattr(maps, name)[0].numpy(), reference[name]
        step = STEP[ours.shape[1]]
        assert np.abs(ours[:, ::step, ::step] - expected).max() < 1e-5 * np.abs(expected).max(), name


def test_finds_the_key_points_that_the_published_graph_finds(thunder: Thunder, reference, picture: torch.Tensor):
    with torch.inference_mode():
        found = thunder.look(picture)
    np.testing.assert_allclose(found.points[0, :, [1, 0]], reference["answer"][:, :2], atol=1e-5)
    np.testing.assert_allclose(found.scores[0], reference["answer"][:, 2], atol=1e-4)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_portrait_in_crops_of_two_shapes(thunder: Thunder, mirrored: bool):
    looker = load_thunder(mirrored)
    for width in (256, 192):
        with torch.inference_mode():
            found = looker.look(portrait(width))
        where = found.points[0].numpy() * [width, 256] + [(256 - width) / 2, 0]
        nose = where[COCO_BODY_17.index("nose")]
        assert np.abs(nose - [111, 60]).max() < 6  # of this portrait, halved
        left, right = (where[COCO_BODY_17.index(f"{side}_shoulder")] for side in ("left", "right"))
        assert left[0] > right[0] + 60
        assert found.scores[0, :7].min() > 0.3 and float(found.center_score) > 0.2


def test_the_same_in_the_mirror(thunder: Thunder):
    """A look at both sides sees in the mirrored crop the mirrored points, whatever the network itself would say."""
    looker = load_thunder(mirrored=True)
    crop = portrait(192)
    with torch.inference_mode():
        maps = average_with_mirrored(thunder.trunk(crop), thunder.trunk(crop.flip(3)))
        other = average_with_mirrored(thunder.trunk(crop.flip(3)), thunder.trunk(crop))
        one, two = looker.look(crop), looker.look(crop.flip(3))
    heat = maps.keypoint_heatmaps
    torch.testing.assert_close(heat.flip(3)[:, list(MIRRORED_17)], other.keypoint_heatmaps, rtol=1e-3, atol=1e-3)
    back = two.points[:, list(MIRRORED_17)] * two.points.new_tensor([-1, 1]) + two.points.new_tensor([1, 0])
    sure = one.scores[0] > 0.3
    assert sure.sum() >= 7
    torch.testing.assert_close(one.points[0, sure], back[0, sure], rtol=0, atol=0.5 / 48)


def test_the_person_in_the_middle_is_meant(thunder: Thunder):
    """Two in a crop: the one whose centre is nearer to the middle."""
    one = torch.nn.functional.interpolate(portrait(192), (128, 96), mode="area")
    for left in (0, 96):
        crop = torch.full((1, 3, 128, 192), 0.5)
        crop[..., left : left + 96] = one
        with torch.inference_mode():
            maps = thunder.trunk(crop)
            alone = find_keypoints(maps)
        nose = alone.points[0, 0, 0] * 192
        assert left < nose < left + 96


def test_a_batch_is_its_pictures(thunder: Thunder, picture: torch.Tensor):
    both = torch.cat([picture, portrait(256)])
    with torch.inference_mode():
        together, alone = thunder.look(both), [thunder.look(row[None]) for row in both]
    for name, value in together._asdict().items():
        torch.testing.assert_close(value, torch.cat([getattr(row, name) for row in alone]), rtol=1e-3, atol=1e-4)


def test_rows_are_places_and_scores(thunder: Thunder):
    crop = portrait(192)
    with torch.inference_mode():
        rows, found = thunder(crop), thunder.look(crop)
        large = thunder(crop.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert rows.shape == (1, 17, 3) and rows.dtype == torch.float32
    torch.testing.assert_close(rows[..., :2], found.points)
    torch.testing.assert_close(rows[..., 2], found.scores)
    torch.testing.assert_close(large, rows, rtol=1e-4, atol=1e-4)  # 512×384 is averaged down


def test_exports_and_can_be_made_without_memory(thunder: Thunder):
    crop = portrait(192)
    with torch.no_grad():
        program = torch.export.export(thunder, (crop,))
        torch.testing.assert_close(program.module()(crop), thunder(crop), rtol=1e-4, atol=1e-4)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in Thunder().parameters()) == 6_226_046
    assert not any(parameter.requires_grad for parameter in thunder.parameters())


def test_tuned_stages_start_as_what_they_are_tuned_from(thunder: Thunder, picture: torch.Tensor):
    tuned = MobileNetTrunk(THUNDER, tuned_stages=2).eval()
    load_thunder_trunk(tuned)
    with torch.no_grad():
        for one, other in zip(tuned(picture[..., :64, :64]), thunder.trunk(picture[..., :64, :64]), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_there_are_no_maps_of_sizes(thunder: Thunder, picture: torch.Tensor):
    with torch.inference_mode():
        maps = thunder.trunk(picture[..., :64, :64])
    assert maps.box_offset.shape[1] == maps.box_scale.shape[1] == 0
    assert maps.center.shape == (1, 1, 16, 16) and maps.keypoint_heatmaps.shape == (1, 17, 16, 16)


def test_the_embedded_file_is_the_one_its_card_describes():
    folder = files("wholebody") / "weights"
    digest = hashlib.sha256((folder / "movenet_thunder.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "movenet_thunder.md").read_text()
    assert all(value.dtype == torch.float16 for name, value in read_thunder_state().items() if "image" not in name)


def test_a_missing_file_is_explained(tmp_path: Path):
    with pytest.raises(AssetMissing, match="reinstall"):
        read_thunder_state(tmp_path / "none.safetensors")
