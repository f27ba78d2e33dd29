"""Body files with odd names and contents: told apart by name, refused where their numbers would mean something else."""

import numpy as np
import pytest

from wholebody.body.assets import _gender, find_body, read_body_file
from wholebody.body.layer import BodyModel
from wholebody.body.open_body import expand, read_compact
from wholebody.errors import AssetMissing, BadInput
from wholebody.model import load
from wholebody.model.checkpoint import Conventions


@pytest.mark.parametrize(
    ("name", "gender"), [
        ("SMPLX_FEMALE.npz", "female"), ("smplx-female-v1.1.pkl", "female"), ("SMPLX_MALE_2020.npz", "male"),
        ("female_body.npz", "female"), ("MySMPLXFemale.npz", "female"), ("SMPLX_NEUTRAL (1).npz", "neutral"),
        ("body.npz", "neutral"), ("smplx_male_female.npz", "male"), ("normaled.npz", "neutral"),
    ],
)  # fmt: skip
def test_gender_is_read_wherever_it_stands_in_the_name(tmp_path, name, gender):
    assert _gender(tmp_path / name) == gender


@pytest.fixture(scope="module")
def arrays():
    """A body in the layout of the licensed files, without its pose correctives."""
    return dict(expand(read_compact(), correctives=False))


@pytest.mark.parametrize("components", [300, 399, 21, 19, 10, 0])
def test_shape_alone_is_not_taken_for_expression(tmp_path, arrays, components):
    count = len(arrays["v_template"])
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays | {"shapedirs": np.zeros((count, 3, components))})
    with pytest.raises(BadInput, match=f"'shapedirs' has {components} components.*expression"):
        read_body_file(tmp_path / "SMPLX_NEUTRAL.npz")


def test_expression_is_where_full_and_old_files_have_it(tmp_path, arrays):
    count = len(arrays["v_template"])
    for components, start in ((20, 10), (400, 300)):
        dirs = np.zeros((count, 3, components), np.float32) + np.arange(components)
        posedirs = np.zeros((count, 3, 486), np.float32)
        np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays | {"shapedirs": dirs, "posedirs": posedirs})
        body = read_body_file(tmp_path / "SMPLX_NEUTRAL.npz")
        assert body.expression_dirs[0, 0].tolist() == list(range(start, start + 10))


def test_near_misses_are_offered(tmp_path):
    (tmp_path / "smplx_neutral_2020.npz").write_bytes(b"")
    with pytest.raises(AssetMissing, match="but .*smplx_neutral_2020.npz: name that file"):
        find_body(tmp_path)
    with pytest.raises(AssetMissing, match="did you mean .*smplx_neutral_2020.npz"):
        find_body(tmp_path / "SMPLX_NEUTRAL_2020.npz".replace("2020", "202O"))


@pytest.mark.parametrize("head", [b"<!DOCTYPE html><html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_was_saved_instead_is_said(tmp_path, head):
    (tmp_path / "SMPLX_NEUTRAL.npz").write_bytes(head)
    with pytest.raises(BadInput, match="it is a (web page|Git LFS pointer)"):
        read_body_file(tmp_path / "SMPLX_NEUTRAL.npz")


def test_arrays_are_refused_by_their_headers(tmp_path, arrays):
    """Before anything of them is unpacked."""
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (150_000, 3), (0, 0))
    np.savez_compressed(tmp_path / "SMPLX_NEUTRAL.npz", **arrays | {"v_template": huge})
    with pytest.raises(BadInput, match="'v_template' is 150000×3"):
        read_body_file(tmp_path / "SMPLX_NEUTRAL.npz")


def test_another_gender_is_refused_with_the_way_out():
    body = BodyModel.load("open")
    for gender in ("female", "male"):
        conventions = Conventions(body="open", gender=gender, flat_hand_mean=body.flat_hand_mean)
        with pytest.raises(BadInput, match=f"trained for the {gender} body.*neutral.*--any-gender"):
            load._check_body(conventions, body, any_gender=False)
        load._check_body(conventions, body, any_gender=True)
