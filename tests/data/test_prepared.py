"""What a family makes of a person before it is cropped, and the published faults that a switch brings back."""

from dataclasses import replace

import numpy as np
import pytest
from data.pictures import make_people

from wholebody.body.joints import JOINTS_137
from wholebody.data.prepared import FAULTS, enlargement, prepared
from wholebody.errors import BadInput
from wholebody.geometry.crop import fit_box


@pytest.fixture
def person():
    """Wholly known, of a row in a file of BEDLAM's."""
    sample = make_people(2, dataset="BEDLAM")[1]
    boxes = {"left_hand_box": np.array([-10.0, 20, 41, 61]), "face_box": np.array([100.0, 100, 131, 181])}
    return replace(sample, id="bedlam_train/7", part_valid=np.array([True, False, True]), **boxes)


def of(sample, name, file):
    return replace(sample, dataset=name, id=f"{file}/7")


def test_boxes_are_enlarged_as_each_family_does(person):
    assert enlargement(person, "osx") == 1.25
    assert enlargement(person, "smpler_x") == enlargement(person, "smplest_x") == pytest.approx(0.9996)
    assert enlargement(replace(person, dataset="MSCOCO"), "smpler_x") == 1.2
    assert enlargement(replace(person, dataset="Own"), "smpler_x") == 1.2
    assert enlargement(replace(person, dataset="UBody"), "smpler_x") == 1.25
    # In COCO form, as OSX's users have it, that set's boxes are not padded.
    assert enlargement(of(person, "MPI_INF_3DHP", "mpi_inf_3dhp_neural_annot_part2"), "smpler_x") == pytest.approx(
        0.9996
    )
    assert enlargement(replace(person, dataset="MPI_INF_3DHP", id="7"), "smpler_x") == 1.2
    agora = replace(person, dataset="AGORA", image_hw=(720, 1280))
    assert enlargement(agora, "smpler_x") == pytest.approx(0.9996)
    crop = replace(agora, image_hw=(512, 384), box_xyxy=np.array([38.4, 51.2, 345.6, 460.8]))
    box = fit_box(crop.box_xyxy, enlarge=enlargement(crop, "smpler_x"))
    np.testing.assert_allclose(box, [0, 0, 384, 512], atol=1e-9)  # all of what was cut out before


def test_boxes_of_parts_are_made_3_to_4(person):
    changed = prepared(person, "smpler_x")
    # Published: x, y, w, h = -10, 20, 51, 41 is cut to 0..40 and 20..60, made 3:4 about its middle, and enlarged 1.2.
    width, height = 40 * 1.2, 40 / 0.75 * 1.2
    expected = [20 - width / 2, 40 - height / 2, 20 + width / 2, 40 + height / 2]
    np.testing.assert_allclose(changed.left_hand_box, expected)
    assert changed.part_valid.tolist() == [True, False, True]
    np.testing.assert_array_equal(prepared(person, "osx").left_hand_box, person.left_hand_box)
    ubody = replace(person, dataset="UBody")
    np.testing.assert_array_equal(prepared(ubody, "smpler_x").left_hand_box, person.left_hand_box)
    outside = replace(person, left_hand_box=np.array([-50.0, 5, -20, 40]))
    assert prepared(outside, "smplest_x").part_valid.tolist() == [False, False, True]


def test_nothing_is_changed_unless_asked_for(person):
    talk = of(person, "Talkshow", "talkshow_smplx_conan")
    for family in ("osx", "smpler_x", "smplest_x"):
        same = prepared(talk, family)
        for name in ("full_pose", "pose_valid", "joints_px", "joints_cam", "joint_valid", "betas"):
            np.testing.assert_array_equal(getattr(same, name), getattr(talk, name))
        assert same.flat_hand == talk.flat_hand and same.shape_valid


def test_arctics_shapes_are_not_learnt_by_smplest_x(person):
    arctic = of(person, "ARCTIC", "p1_train")
    assert prepared(arctic, "smpler_x").shape_valid and not prepared(arctic, "smplest_x").shape_valid


def test_talkshows_right_hand(person):
    talk = of(person, "Talkshow", "talkshow_smplx_conan")
    wrong = prepared(talk, "smpler_x", ["talkshow_right_hand"])
    np.testing.assert_array_equal(wrong.full_pose[40:], talk.full_pose[25:40])
    np.testing.assert_array_equal(wrong.full_pose[:40], talk.full_pose[:40])
    same = prepared(person, "smpler_x", ["talkshow_right_hand"])
    np.testing.assert_array_equal(same.full_pose, person.full_pose)


def test_eyeballs_change_places_in_humandata_alone(person):
    left, right = JOINTS_137.index("Face_3"), JOINTS_137.index("Face_4")
    assert (left, right) == (67, 68)
    wrong = prepared(person, "smpler_x", ["swapped_eyeballs"])
    np.testing.assert_array_equal(wrong.joints_px[[left, right]], person.joints_px[[right, left]])
    np.testing.assert_array_equal(wrong.joints_cam[[left, right]], person.joints_cam[[right, left]])
    others = np.delete(np.arange(137), [left, right])
    np.testing.assert_array_equal(wrong.joints_px[others], person.joints_px[others])
    coco = replace(person, dataset="MSCOCO", id="7")
    np.testing.assert_array_equal(prepared(coco, "smpler_x", ["swapped_eyeballs"]).joints_px, person.joints_px)


def test_whose_hands_are_flat_as_the_published_code_has_it(person):
    def flat(name, file, family):
        return prepared(of(replace(person, flat_hand=True), name, file), family, ["relaxed_hands"]).flat_hand

    assert flat("BEDLAM", "bedlam_train", "smpler_x") and not flat("BEDLAM", "bedlam_train", "smplest_x")
    assert flat("ARCTIC", "p1_train", "smplest_x") and not flat("ARCTIC", "p1_train", "smpler_x")
    assert flat("ARCTIC", "p1_train", "osx"), "OSX's code reads none of them"


def test_unknown_faults_are_refused(person):
    with pytest.raises(BadInput, match=f"no fault 'all' to reproduce: there are {', '.join(FAULTS)}"):
        prepared(person, "smpler_x", ["all"])
