"""The sets of SMPLer-X and SMPLest-X are read by their published names, wherever their users have them."""

import numpy as np
import pytest
from data.forge import family_sets as forge
from data.forge import mpi_inf_3dhp

from wholebody.body.joints import JOINTS_137
from wholebody.cli import main
from wholebody.data.check import check
from wholebody.data.family import (
    FAMILY_SETS,
    FINE_TUNING,
    box_ratio,
    mix,
    part_box_ratio,
    takes_as_flat,
    training_interval,
)
from wholebody.data.index import Index
from wholebody.data.readers import READERS
from wholebody.errors import BadInput

WHOLE = [name for name in forge.PUBLISHED if name not in (*forge.OF_SMPL, "Behave")]


def read(root, name, split="train", **options):
    info = READERS[name]
    folder = info.home(root)
    return folder, list(info.read(folder, split, **options))


def test_the_table_has_the_published_names():
    for name, (train, test, folder, _, size) in forge.PUBLISHED.items():
        one = FAMILY_SETS[name]
        assert list(one.train) == train and list(one.test) == test and one.size_hw == size
        assert folder == "/".join(filter(None, (one.home, one.pictures)))
        assert READERS[name].splits == tuple(split for split, files in (("train", train), ("test", test)) if files)


def test_the_mixes_are_the_published_ones():
    assert [len(mix(count)) for count in (5, 10, 20, 32)] == [5, 10, 20, 32]
    assert mix(5) == ("MSCOCO", "AGORA", "BEDLAM", "SPEC", "GTA_Human2")
    assert mix(20)[:4] == ("MSCOCO", "AGORA", "UBody", "PW3D")
    assert set(mix(32)) - set(mix(20)) == {
        "MPII", "Human36M", "OCHuman", "CHI3D", "RenBody_HiRes", "RenBody", "MTP", "HumanSC3D", "FIT3D", "Talkshow",
        "SSP3D", "LSPET",
    }  # fmt: skip
    with pytest.raises(BadInput, match="no published mix of 7 sets: there are 5, 10, 20, 32"):
        mix(7)
    assert all(len(sets) == 5 and set(sets) <= set(FAMILY_SETS) for sets in FINE_TUNING.values())


def test_intervals_and_boxes_are_the_published_ones():
    every = {name: training_interval(name) for name in mix(32) if training_interval(name) > 1}
    assert every == {
        "BEDLAM": 5, "MPI_INF_3DHP": 5, "RenBody_HiRes": 5, "EgoBody_Kinect": 10, "UBody": 10, "InstaVariety": 10,
        "ARCTIC": 10, "Talkshow": 10, "FIT3D": 10, "RenBody": 10,
    }  # fmt: skip
    assert training_interval("FIT3D", "smplest_x") == 1 and training_interval("SynBody", "smplest_x") == 10
    ratios = {name: box_ratio(name, "smpler_x") for name in (*mix(32), "EHF")}
    assert (
        all(ratios[name] == 1.2 for name in ("EHF", "MSCOCO", "MPII", "Human36M", "PW3D")) and ratios["UBody"] == 1.25
    )
    padded = {name for name, ratio in ratios.items() if ratio == pytest.approx(0.9996)}
    assert padded == {"AGORA", *(name for name in mix(32) if FAMILY_SETS[name].form == "humandata")}
    assert {box_ratio(name, "osx") for name in mix(32)} == {1.25} and part_box_ratio("BEDLAM", "osx") is None
    assert part_box_ratio("BEDLAM", "smpler_x") == part_box_ratio("MSCOCO", "smplest_x") == 1.2
    assert part_box_ratio("UBody", "smpler_x") is part_box_ratio("AGORA", "smpler_x") is None
    flat = {name for name in FAMILY_SETS if takes_as_flat(name, "smplest_x")}
    assert flat == {"GTA_Human2", "SynBody", "SynHand", "CHI3D", "FIT3D", "HumanSC3D", "ARCTIC"}
    assert {name for name in FAMILY_SETS if takes_as_flat(name, "smpler_x")} == {"BEDLAM"}


@pytest.mark.parametrize("name", forge.PUBLISHED)
def test_every_set_is_read_by_its_published_names(name, people, tmp_path):
    forge.forge_set(tmp_path, name, people)
    for split in READERS[name].splits:
        folder, samples = read(tmp_path, name, split)
        files = forge.PUBLISHED[name][split == "test"]
        assert {sample.id.partition("/")[0] for sample in samples} == {file.removesuffix(".npz") for file in files}
        for sample in samples:
            person = people[int(sample.image_path[-10:-4])]
            view = forge.seen(name, person)
            assert sample.dataset == name and (folder / sample.image_path).is_file()
            assert sample.image_hw == view.wh[::-1]
            x, y, width, height = forge.padded_box(view)
            np.testing.assert_allclose(sample.box_xyxy, [x, y, x + width - 1, y + height - 1], atol=1e-6)
            np.testing.assert_allclose(sample.joints_px, view.joints_137, atol=1e-2)
            if "RenBody" in name:  # its measured joints are not trusted
                assert not sample.joint_cam_known.any()
            else:
                np.testing.assert_allclose(sample.joints_cam, person.joints_137_cam, atol=1e-5)
            assert sample.body == ("smplx" if name in WHOLE else "smpl")
            np.testing.assert_allclose(sample.full_pose[1:22], person.body_pose, atol=1e-9)
            assert sample.pose_valid[25:].all() == (name not in forge.OF_SMPL)
            if name in WHOLE:
                np.testing.assert_allclose(sample.full_pose[25:40], person.left_hand_pose, atol=1e-9)
                np.testing.assert_allclose(sample.full_pose[40:], person.right_hand_pose, atol=1e-9)
                np.testing.assert_allclose(sample.expression, person.expression, atol=1e-9)
                np.testing.assert_allclose(sample.betas, person.betas, atol=1e-9)
            assert sample.flat_hand == (name == "BEDLAM" or takes_as_flat(name, "smplest_x"))


def test_what_a_file_says_of_its_hands_counts(people, tmp_path):
    for name, said in (("BEDLAM", False), ("PROX", True)):
        forge.forge_set(tmp_path, name, people[:1], misc={"flat_hand_mean": said})
        assert read(tmp_path, name)[1][0].flat_hand is said
        assert read(tmp_path, name, flat_hand=not said)[1][0].flat_hand is not said


def test_rows_are_counted_as_published(people, tmp_path):
    """Rows 0, 2, 4 of each file, whether or not a row is left out."""
    forge.forge_set(tmp_path, "BEDLAM", people)
    forge.forge_set(tmp_path, "CHI3D", people)
    assert [s.id for s in read(tmp_path, "BEDLAM", every=2)[1]] == [f"bedlam_train/{row}" for row in (0, 2, 4)]
    rows = [s.id.rpartition("/")[::2] for s in read(tmp_path, "CHI3D", every=2)[1]]
    assert rows == [(f"CHI3D_train_230511_1492_{k}", row) for k in range(2) for row in ("0", "2")]


@pytest.mark.parametrize(
    ("files", "pictures"),
    [
        ("annot", "img/BEDLAM"),  # as SMPLest-X's users have them
        ("BEDLAM", "BEDLAM"),
        ("BEDLAM/preprocessed_datasets", "BEDLAM"),
        ("preprocessed_datasets", "BEDLAM/images"),
        ("HumanData", "HumanData"),
        ("HumanData/preprocessed_datasets", "BEDLAM"),
    ],
)
def test_wherever_its_users_have_them(files, pictures, people, tmp_path):
    forge.forge_set(tmp_path, "BEDLAM", people, files, pictures)
    folder, samples = read(tmp_path, "BEDLAM")
    assert len(samples) == len(people) and all((folder / sample.image_path).is_file() for sample in samples)


def test_the_folder_of_a_set_that_holds_its_files_is_its_own(people, tmp_path):
    forge.forge_set(tmp_path, "BEDLAM", people[:2], "BEDLAM/preprocessed_datasets")
    folder = READERS["BEDLAM"].home(tmp_path / "BEDLAM")
    samples = list(READERS["BEDLAM"].read(folder, "train"))
    assert len(samples) == 2 and all((folder / sample.image_path).is_file() for sample in samples)


def test_synhand_lies_where_smplest_x_has_it(people, tmp_path):
    forge.forge_set(tmp_path, "SynHand", people, "annot", "img/synbody")
    folder, samples = read(tmp_path, "SynHand", "test")
    assert len(samples) == len(people) and all((folder / sample.image_path).is_file() for sample in samples)


def test_a_set_in_its_own_folder(people, tmp_path):
    """As every other reader takes it."""
    forge.forge_set(tmp_path, "CHI3D", people)
    samples = list(READERS["CHI3D"].read(tmp_path / "CHI3D", "train"))
    assert len(samples) == len(people)
    assert all((tmp_path / "CHI3D" / sample.image_path).is_file() for sample in samples)
    (report,) = check(tmp_path / "CHI3D", ["CHI3D"])
    assert report.ok and report.splits[0].people == len(people)


def test_mpi_inf_3dhp_in_either_form(people, tmp_path):
    (tmp_path / "MPI_INF_3DHP").mkdir()
    mpi_inf_3dhp.forge(tmp_path / "MPI_INF_3DHP", people)
    assert all("/" not in sample.id for sample in read(tmp_path, "MPI_INF_3DHP")[1])
    forge.forge_set(tmp_path, "MPI_INF_3DHP", people)
    _, samples = read(tmp_path, "MPI_INF_3DHP")
    assert len(samples) == len(people) and all(s.id.startswith("mpi_inf_3dhp_neural_annot_part") for s in samples)
    (tmp_path / "preprocessed_datasets" / "mpi_inf_3dhp_neural_annot_part2.npz").unlink()
    with pytest.raises(BadInput, match="not complete: mpi_inf_3dhp_neural_annot_part2.npz"):
        read(tmp_path, "MPI_INF_3DHP")


def test_the_commands_know_them(people, tmp_path, capsys):
    for name in ("EgoBody_Kinect", "ARCTIC", "PoseTrack"):
        forge.forge_set(tmp_path, name, people)
    assert main(["data", "check", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for name in ("EgoBody_Kinect", "ARCTIC", "PoseTrack"):
        assert f"{name}: {READERS[name].title}" in text
    assert "train: 6 people in 6 pictures" in text and "measured in 3D" in text
    assert "EgoBody_Egocentric: EgoBody, the wearer's camera; get it: https://sanweiliti.github.io" in text
    assert main(["data", "index", str(tmp_path)]) == 0
    capsys.readouterr()
    for name, split in (("EgoBody_Kinect", "train"), ("EgoBody_Kinect", "test"), ("ARCTIC", "test")):
        index = Index(tmp_path / "index" / f"{name}-{split}.arrow")
        assert len(index) == 6 and index.about["counts"] == "row"
        assert (READERS[name].home(tmp_path) / index[3].image_path).is_file()
    assert main(["data", "index", str(tmp_path), "ARCTIC:train", "--every", "5"]) == 0
    index = Index(tmp_path / "index" / "ARCTIC-train.arrow")
    assert [sample.id for sample in index] == ["p1_train/0", "p1_train/5"] and index.about["every"] == 5
    assert main(["data", "index", str(tmp_path), "MSCOCO", "--every", "5"]) == 2
    assert "not for MSCOCO" in capsys.readouterr().err


def test_pictures_that_are_missing_are_said(people, tmp_path, capsys):
    import shutil

    forge.forge_set(tmp_path, "RICH", people)
    shutil.rmtree(tmp_path / "RICH")
    assert main(["data", "check", str(tmp_path), "--set", "RICH"]) == 1
    assert "6 pictures are missing, the first is train/rich_train_fix_betas/000000.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "changes", "lacking"),
    [
        ("BEDLAM", {"smplx": None}, "smplx or smpl or smplh, smplx, smplx/left_hand_pose, smplx/right_hand_pose"),
        ("RICH", {"bbox_xywh": None, "keypoints2d_smplx": None}, "bbox_xywh, keypoints2d or keypoints2d_smplx"),
        ("ARCTIC", {"image_path": None}, "image_path"),
    ],
)
def test_missing_keys_are_named_at_once(name, changes, lacking, people, tmp_path, capsys):
    forge.forge_set(tmp_path, name, people, **changes)
    file = forge.PUBLISHED[name][0][0]
    with pytest.raises(BadInput, match=rf"{file} lacks .*which {FAMILY_SETS[name].title} needs") as told:
        read(tmp_path, name)
    assert f"lacks {lacking}" in str(told.value)
    assert main(["data", "check", str(tmp_path)]) == 1
    assert f"lacks {lacking}" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["global_orient", "body_pose", "left_hand_pose", "betas"])
def test_parameters_that_a_set_needs(key, people, tmp_path):
    forge.forge_set(tmp_path, "EgoBody_Egocentric", people)
    path = tmp_path / "preprocessed_datasets" / forge.PUBLISHED["EgoBody_Egocentric"][1][0]
    with np.load(path, allow_pickle=True) as file:
        content = {name: file[name] for name in file.files}
    content["smplx"] = {name: value for name, value in content["smplx"].item().items() if name != key}
    np.savez(path, **content)
    with pytest.raises(BadInput, match=f"lacks smplx/{key}"):
        read(tmp_path, "EgoBody_Egocentric", "test")
    if key == "betas":
        content["smplx"]["betas_neutral"] = np.ones((len(people), 10))
        np.savez(path, **content)
        sample = read(tmp_path, "EgoBody_Egocentric", "test")[1][0]
        assert sample.gender == "neutral" and (sample.betas == 1).all()


def test_missing_files_are_named_at_once(people, tmp_path):
    forge.forge_set(tmp_path, "FIT3D", people)
    for k in (1, 4):
        (tmp_path / "preprocessed_datasets" / f"FIT3D_train_230511_1504_{k}.npz").unlink()
    with pytest.raises(BadInput, match="FIT3D_train_230511_1504_1.npz, FIT3D_train_230511_1504_4.npz not found"):
        read(tmp_path, "FIT3D")


def test_the_wearer_of_names():
    assert JOINTS_137[67:69] == ("Face_3", "Face_4")  # the rows that the published targets swap
