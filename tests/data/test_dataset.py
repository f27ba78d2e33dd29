"""From an index and picture files to batches: a function of numbers, true to the pictures, robust to broken ones."""

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from data.pictures import make_people, write_pictures
from torch.utils.data import DataLoader

from wholebody.body.joints import JOINTS_137, flip_permutation
from wholebody.data.augment import CROP_HW, NOTHING, PUBLISHED
from wholebody.data.dataset import PeopleDataConfig, PeopleDataset, SetConfig
from wholebody.data.framing import in_crop
from wholebody.data.index import index_path, write_index
from wholebody.errors import BadInput
from wholebody.geometry.crop import apply_affine, crop_affine, fit_box


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two sets of 12 and 5 people with pictures and indices."""
    root = tmp_path_factory.mktemp("sets")
    for name, count, seed in (("Own", 12, 1), ("MSCOCO", 5, 2)):
        people = make_people(count, seed=seed, dataset=name)
        write_pictures(root / name, people, seed)
        write_index(people, index_path(root, name, "train"))
    return root


def config(root, **changes):
    return replace(PeopleDataConfig((SetConfig("Own"), SetConfig("MSCOCO")), root=str(root)), **changes)


def assert_equal_samples(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_sample_depends_on_its_number_alone(root):
    people, again = PeopleDataset(config(root), seed=3), PeopleDataset(config(root), seed=3)
    expected = people[17]
    again[4], again[40]
    assert_equal_samples(again[17], expected)
    other = PeopleDataset(config(root), seed=4)
    assert any((other[n]["image"] != people[n]["image"]).any() for n in range(4))
    assert (people[17 + people.epoch_length]["image"] != expected["image"]).any()


def test_batches_are_the_same_in_any_number_of_processes_and_when_resumed(root):
    people = PeopleDataset(config(root), seed=3)
    whole = list(DataLoader(people, batch_size=4, sampler=range(0, 24)))
    resumed = list(DataLoader(people, batch_size=4, sampler=range(12, 24), num_workers=2, generator=torch.Generator()))
    assert len(resumed) == 3
    for one, two in zip(whole[3:], resumed, strict=True):
        assert one["image"].dtype == torch.uint8 and one["image"].shape == (4, 256, 192, 3)
        for name in one:
            assert one[name].equal(two[name]), name


def test_sets_are_mixed_as_configured(root):
    def counts(**changes):
        people = PeopleDataset(config(root, **changes))
        places = [people.place(n) for n in range(len(people))]
        names = [one.name for one in people.config.sets]
        assert all(people.person(n).dataset == names[which] for n, (which, _) in enumerate(places))
        return np.bincount([which for which, _ in places]).tolist()

    assert counts() == [12, 12]
    assert counts(mix="all") == [12, 5]
    sets = (SetConfig("Own", weight=1), SetConfig("MSCOCO", weight=3))
    assert counts(mix="weights", sets=sets, epoch_length=40) == [10, 30]
    assert counts(sets=(SetConfig("Own"), SetConfig("MSCOCO", group="b"), SetConfig("Own", group="b"))) == [
        17,
        5,
        12,
    ]  # 12 and 5 + 12 people


def test_the_familys_mixes(root):
    people = PeopleDataset(config(root, mix="balance", epoch_length=40), seed=2)
    places = [people.place(n) for n in range(120)]
    assert np.bincount([which for which, _ in places[:40]]).tolist() == [20, 20]
    assert set(places[:40]) == set(places[40:80]) == {(0, n) for n in range(12)} | {(1, n) for n in range(5)}
    again = PeopleDataset(config(root, mix="balance", epoch_length=40), seed=2)
    assert [again.place(n) for n in range(67, 120)] == places[67:], "goes on anywhere"
    people = PeopleDataset(config(root, mix="concat"))
    assert sorted(people.place(n) for n in range(17)) == [(0, n) for n in range(12)] + [(1, n) for n in range(5)]


def test_every_so_many_th_person(root, tmp_path):
    """By their places in the index; by their rows in the file where the index tells; and never twice."""
    people = PeopleDataset(config(root, sets=(SetConfig("Own", every=5), SetConfig("MSCOCO")), mix="all"))
    assert {people.place(n) for n in range(people.epoch_length)} == {
        *((0, n) for n in (0, 5, 10)),
        *((1, n) for n in range(5)),
    }
    rows = [replace(sample, id=f"p1_train/{row}") for row, sample in zip((0, 1, 4, 5, 10), make_people(5), strict=True)]
    path = write_index(rows, tmp_path / "x.arrow", counts="row")
    one = SetConfig("ARCTIC", index=str(path), every=5)
    people = PeopleDataset(config(root, sets=(one,), mix="all"))
    assert [people.person(n).id for n in sorted(range(3), key=people.place)] == [
        "p1_train/0",
        "p1_train/5",
        "p1_train/10",
    ]
    write_index(rows, path, counts="row", every=5)
    assert len(PeopleDataset(config(root, sets=(one,), mix="all"))) == 5
    with pytest.raises(BadInput, match="holds every 5th person, and every 3th"):
        PeopleDataset(config(root, sets=(replace(one, every=3),)))
    with pytest.raises(BadInput, match="every is 0 for ARCTIC"):
        PeopleDataset(config(root, sets=(replace(one, every=0),)))


def test_all_missing_sets_are_named_at_once(root, tmp_path, people):
    from data.forge.family_sets import forge_set

    forge_set(tmp_path, "BEDLAM", people[:2])
    write_index(make_people(4), index_path(tmp_path, "Own", "train"))
    (tmp_path / "index" / "RICH-train.arrow").write_bytes(b"half")
    sets = tuple(SetConfig(name) for name in ("Own", "BEDLAM", "ARCTIC", "RICH", "MSCOCO"))
    with pytest.raises(BadInput, match="4 of the 5 sets") as told:
        PeopleDataset(config(tmp_path, sets=sets))
    text = str(told.value)
    assert "BEDLAM (train): its files are there" in text and f"wholebody data index {tmp_path} BEDLAM:train" in text
    assert "ARCTIC (train): there is no index" in text and "https://arctic.is.tue.mpg.de" in text
    assert "RICH (train): " in text and "truncated, or not an index" in text and "cocodataset.org" in text


@pytest.mark.parametrize("flip", [0, 1])
def test_pixels_boxes_and_joints_move_together(tmp_path, flip):
    """Dots drawn at joints are found where the targets say, rotated, scaled and mirrored."""
    sample = make_people(2, seed=5)[1]
    names = ("L_Wrist", "R_Ankle", "Nose", "L_Hip")
    rows = [JOINTS_137.index(name) for name in names]
    box = sample.box_xyxy
    place = box[:2] + (box[2:] - box[:2]) * [[0.3, 0.3], [0.7, 0.75], [0.6, 0.3], [0.3, 0.8]]
    sample.joints_px[rows] = place
    picture = np.zeros((300, 400, 3), np.uint8)
    for x, y in place:
        cv2.circle(picture, (round(x * 16), round(y * 16)), 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, shift=4)
    (tmp_path / "Own" / "images").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "Own" / sample.image_path), picture, [cv2.IMWRITE_JPEG_QUALITY, 98])
    write_index([sample], index_path(tmp_path, "Own", "train"))
    augment = replace(PUBLISHED, flip_probability=flip, rotation_probability=1, channel_gain=0)
    people = PeopleDataset(config(tmp_path, sets=(SetConfig("Own"),), augment=augment), seed=1)
    swap = flip_permutation(JOINTS_137) if flip else np.arange(137)
    for number in range(3):
        batch = people[number]
        for row in rows:
            x, y = batch["joints_crop"][list(swap).index(row)] / 2  # the picture has half the frame's pixels
            ys, xs = np.mgrid[:256, :192]
            near = batch["image"][..., 0] * (np.hypot(xs - x, ys - y) < 14.0)
            if not 14 < x < 178 or not 14 < y < 242:
                continue
            centre = [(xs * near.astype(float)).sum() / near.sum(), (ys * near.astype(float)).sum() / near.sum()]
            np.testing.assert_allclose(centre, [x, y], atol=0.35)


def test_the_camera_sees_the_turned_joints_where_they_are():
    sample = replace(make_people(2, seed=6)[1], focal_px=np.array([900.0, 900.0]), joint_valid=np.ones(137, bool))
    points = sample.joints_cam[:, :2] / sample.joints_cam[:, 2:] * sample.focal_px + sample.principal_px
    sample = replace(sample, joints_px=points)
    for flip in (False, True):
        affine, _ = crop_affine(fit_box(sample.box_xyxy), 0.4, 1.2, flip, CROP_HW)
        target = in_crop(sample, affine)
        pelvis_crop = apply_affine(points[JOINTS_137.index("Pelvis")], affine)
        depth = sample.joints_cam[0, 2]
        pelvis = np.append((pelvis_crop - target["principal_crop"]) / target["focal_crop"] * depth, depth)
        joints = target["joints_cam"] + pelvis
        seen = joints[:, :2] / joints[:, 2:] * target["focal_crop"] + target["principal_crop"]
        np.testing.assert_allclose(seen, target["joints_crop"], atol=0.05)
        assert (target["focal_crop"] > 0).all() and target["camera_valid"] == 1


def test_what_is_not_known_is_masked(root):
    people = PeopleDataset(config(root, sets=(SetConfig("Own"),), augment=NOTHING))
    unknown = 0
    for number in range(12):
        person, batch = people.person(number), people[number]
        if person.body:
            assert batch["rotation_valid"].any() and batch["shape_valid"] == 1 and batch["flat_hand"] == 0
            continue
        unknown += 1
        for name in ("rotation_valid", "shape_valid", "expression_valid", "joint_cam_valid", "camera_valid"):
            assert not batch[name].any(), name
        assert batch["joint_valid"].sum() == person.joint_valid.sum() > 100
        assert all(np.isfinite(value).all() for value in batch.values())
    assert unknown == 4
    other = PeopleDataset(config(root, sets=(SetConfig("Own"),), body="open"))
    assert not any(other[number]["rotation_valid"].any() or other[number]["shape_valid"] for number in range(12))


def test_nothing_changes_without_augmentation(root):
    people = PeopleDataset(config(root, augment=NOTHING, picture_hw=CROP_HW, antialias=False))
    person, batch = people.person(5), people[5]
    affine, _ = crop_affine(fit_box(person.box_xyxy), out_hw=CROP_HW)
    folder = people.folders[people.place(5)[0]]
    picture = cv2.imread(f"{folder}/{person.image_path}")[..., ::-1]
    apart = np.abs(cv2.warpAffine(picture, affine, (384, 512)).astype(int) - batch["image"])
    assert apart.max() <= 2  # of two decoders
    np.testing.assert_allclose(batch["joints_crop"], apply_affine(person.joints_px, affine), atol=1e-3)


def test_published_augmentation_has_the_published_ranges():
    """Scale within 25 % (a third of it at the ends), rotation within 60° in 6 of 10, mirrored half the time."""
    from wholebody.data.augment import random_crop

    box = np.array([100.0, 100, 190, 220])
    plain = crop_affine(fit_box(box), out_hw=CROP_HW)[0]
    maps = [random_crop(box, np.zeros((137, 2)), np.random.default_rng(n), PUBLISHED)[:, :2] for n in range(2000)]
    scale = np.array([np.sqrt(abs(np.linalg.det(plain[:, :2])) / abs(np.linalg.det(m))) for m in maps])
    assert scale.min() > 0.7499 and scale.max() < 1.2501
    assert abs((np.abs(scale - 1) > 0.2499).mean() - 0.317) < 0.05
    flips = np.array([np.linalg.det(m) < 0 for m in maps])
    assert abs(flips.mean() - 0.5) < 0.05
    unflipped = [m @ np.diag([-1, 1]) if flip else m for m, flip in zip(maps, flips, strict=True)]
    angle = np.degrees([np.arctan2(m[0, 1], m[0, 0]) for m in unflipped])
    assert abs((np.abs(angle) > 1e-9).mean() - 0.6) < 0.05 and np.abs(angle).max() < 60.001
    assert abs(angle[np.abs(angle) > 1e-9].std() - 28) < 3


def test_occlusion_and_truncation_are_options(root):
    def images(**changes):
        people = PeopleDataset(config(root, augment=replace(NOTHING, **changes)))
        return [people[number] for number in range(12)]

    plain, covered = images(), images(occlude_probability=1.0)
    share = [(a["image"] != b["image"]).any(2).mean() for a, b in zip(plain, covered, strict=True)]
    assert min(share) > 0 and np.mean(share) < 0.7
    for a, b in zip(plain, covered, strict=True):
        np.testing.assert_array_equal(a["joints_crop"], b["joints_crop"])
    cut = images(truncate_probability=1.0)
    inside = [[one["joint_inside"].sum() for one in batches] for batches in (plain, cut)]
    assert np.mean(inside[1]) < 0.97 * np.mean(inside[0])


def test_every_forged_set_is_indexed_and_loaded(forged_root, standin_arrays, standin_dir, tmp_path):
    """From files in each set's own form to batches, by the command's own steps."""
    from wholebody.data.framing import both
    from wholebody.data.index import Index, run_index
    from wholebody.data.mesh_joints import JointPoser, MeshJoints
    from wholebody.training.published.targets import PublishedTargetsOf

    lines = list(run_index(forged_root / "dataset", out=tmp_path))
    written = sorted(path.stem.rpartition("-")[::2] for path in tmp_path.glob("*.arrow"))
    assert len(lines) >= len(written) >= 10
    whole = len(Index(tmp_path / "UBody-train.arrow"))
    (line,) = run_index(forged_root / "dataset", ["UBody:train"], tmp_path / "thin", every=2)
    assert 0 < len(Index(tmp_path / "thin" / "UBody-train.arrow")) < whole
    with pytest.raises(BadInput, match="for UBody alone"):
        list(run_index(forged_root / "dataset", ["MPII"], every=10))
    joints = MeshJoints(standin_dir)
    # One gender's for all, with the arrays already read: each file takes seconds.
    small = JointPoser(standin_arrays("neutral"))
    joints._bodies = {gender: small for gender in ("neutral", "male", "female")}
    for name, split in written:
        one = SetConfig(name, split, index=str(tmp_path / f"{name}-{split}.arrow"))
        if not len(Index(one.index)):
            continue
        changes = {"sets": (one,), "broken_limit": 0}
        targets = both(in_crop, PublishedTargetsOf(joints))
        people = PeopleDataset(config(forged_root / "dataset", **changes), seed=1, targets=targets)
        batch = next(iter(DataLoader(people, batch_size=2)))
        assert batch["image"].float().std() > 5, name
        assert batch["smplx_pose"].shape[1:] == (159,) and batch["joints_crop"].shape[1:] == (137, 2)
        assert all(value.isfinite().all() for value in batch.values()), name


# Broken input


@pytest.fixture
def broken(tmp_path):
    """Ten people with a picture each: two are damaged, one is missing."""
    people = make_people(10, per_picture=1, seed=3)
    write_pictures(tmp_path / "Own", people)
    write_index(people, index_path(tmp_path, "Own", "train"))
    paths = [tmp_path / "Own" / str(person.image_path) for person in people]
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    paths[5].write_bytes(b"")
    paths[7].unlink()
    return tmp_path


def test_broken_pictures_are_counted_named_and_replaced(broken, caplog):
    people = PeopleDataset(config(broken, sets=(SetConfig("Own"),), broken_limit=3), seed=1)
    with caplog.at_level(logging.WARNING):
        first = [people[number] for number in range(10)]
    assert people.broken == 3
    for name in ("00002.jpg", "00005.jpg", "00007.jpg"):
        assert sum(name in record.getMessage() for record in caplog.records) == 1
    assert [people.place(n) for n in range(10)] == [people.place(n) for n in range(10)]
    again = PeopleDataset(config(broken, sets=(SetConfig("Own"),), broken_limit=3), seed=1)
    for number in reversed(range(10)):
        assert_equal_samples(again[number], first[number])
    assert again.broken == 3  # seen several times, counted once


def test_too_many_broken_pictures_are_an_error(broken):
    people = PeopleDataset(config(broken, sets=(SetConfig("Own"),), broken_limit=1), seed=1)
    with pytest.raises(BadInput, match=r"2 pictures cannot be used.*broken_limit is 1.*0000\d\.jpg.*data check"):
        for number in range(10):
            people[number]


def test_broken_pictures_are_counted_over_processes(broken):
    people = PeopleDataset(config(broken, sets=(SetConfig("Own"),), broken_limit=3), seed=1)
    for _ in range(2):
        assert len(list(DataLoader(people, batch_size=2, num_workers=2, sampler=range(20)))) == 10
    assert people.broken == 3


def test_a_missing_set_ends_soon(tmp_path):
    people = make_people(4)
    write_index(people, index_path(tmp_path, "Own", "train"))
    with pytest.raises(BadInput, match="cannot be used|no readable picture"):
        PeopleDataset(config(tmp_path, sets=(SetConfig("Own"),), broken_limit=5))[0]


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"mix": "half"}, "mix"),
        ({"sets": ()}, "sets"),
        ({"family": "smpl"}, "people.family: 'smpl' is none of osx, smpler_x, smplest_x"),
        ({"faults": ("swapped_eyeballs", "all")}, "people.faults: 'all' is none of talkshow_right_hand"),
    ],
)
def test_impossible_configurations_are_named(root, changes, what):
    with pytest.raises(BadInput, match=what):
        PeopleDataset(config(root, **changes))
    with pytest.raises(BadInput, match="data index"):
        PeopleDataset(config(root, sets=(SetConfig("EHF", "test"),)))
