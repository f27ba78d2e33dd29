"""The open body's parameters as Anny's own and back: with the package where it is installed, and with a stand-in."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_anny import FakeAnny

from wholebody.body import open_body as layout
from wholebody.body.anny_body import AnnyBody, build_model, check_settings, vertex_order
from wholebody.body.assets import read_body_file
from wholebody.body.convert import BodyParameters, to_rotations
from wholebody.body.convert_anny import FromAnny, ToAnny
from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.makehuman import BONES, joint_of_bone
from wholebody.body.skinned import SkinnedBody
from wholebody.errors import AssetMissing, BadInput

KINDS = ("fake", pytest.param("package", marks=pytest.mark.slow))


@lru_cache
def source() -> SkinnedBody:
    return SkinnedBody.of(read_body_file("open"))


@lru_cache
def anny(kind: str) -> AnnyBody:
    if kind == "package":
        pytest.importorskip("anny", reason="the package anny is not installed")
        return AnnyBody(build_model({}), source().faces)
    return AnnyBody(FakeAnny(), source().faces)


@lru_cache
def there(kind: str) -> ToAnny:
    return ToAnny(source(), anny(kind))


@lru_cache
def back(kind: str) -> FromAnny:
    return FromAnny(anny(kind), source())


def strong(people: int = 1, expression: float = 0.0) -> BodyParameters:
    """The twelve strong poses of the bake, of plausible people."""
    with np.load(Path(__file__).parents[1] / "data" / "anny_reference.npz") as file:
        turns = file["pose"].astype(float)[:: 2 // people]
    betas = layout.read_compact()["people_betas"].astype(float)[: len(turns) * 40 : 40]
    return parameters(turns, betas, expression)


def parameters(turns: np.ndarray, betas: np.ndarray, expression: float = 0.0) -> BodyParameters:
    rng = np.random.default_rng(0)
    return BodyParameters(
        turns[:, 0], turns[:, 1:22], turns[:, 25:40], turns[:, 40:], turns[:, 22], turns[:, 23], turns[:, 24], betas,
        expression * rng.normal(size=(len(turns), 10)), rng.normal(size=(len(turns), 3)) + [0, 0, 30],
    )  # fmt: skip


def mesh(p: BodyParameters) -> torch.Tensor:
    body = source().to(torch.float64)
    return body.pose(to_rotations(p, body), *(torch.from_numpy(x) for x in (p.betas, p.expression, p.transl))).vertices


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean distance in millimetres."""
    return 1000 * float((one - other).norm(dim=-1).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_packages_own_mesh_is_the_open_bodys(kind: str) -> None:
    """What was written, given to the model: 6 mm on strong poses, 2.5 mm at rest, in the frame of the result."""
    p = strong()
    if kind == "fake":
        p = BodyParameters(*(None if value is None else value[::3] for value in vars(p).values()))
    found, errors = there(kind)(p)
    assert off(anny(kind).vertices(found), mesh(p)) < 6
    assert abs(off(anny(kind).vertices(found), mesh(p)) - 1000 * errors.mean()) < 0.1
    assert found.phenotypes.min() >= -1 / 3 and found.phenotypes.max() <= 1
    assert np.abs(found.pose_parameters[:, 1:, :3, 3]).max() < 1e-5  # bones turn, and do not come apart
    at_rest = parameters(np.zeros((len(p), 55, 3)), p.betas)
    assert off(anny(kind).vertices(there(kind)(at_rest)[0]), mesh(at_rest)) < 2.5


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_is_the_same_person(kind: str) -> None:
    p = replace(strong(), betas=np.repeat(strong().betas[3:4], 12, 0))
    one = np.zeros(12, int)
    found, _ = there(kind)(p, one)
    again, errors = back(kind)(found, one)
    assert off(mesh(again), mesh(p)) < 4 and errors.mean() < 0.006
    assert (again.betas == again.betas[0]).all() and (found.phenotypes == found.phenotypes[0]).all()
    assert np.abs(again.transl - p.transl).max() < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_the_face_comes_along(kind: str) -> None:
    p = parameters(np.zeros((8, 55, 3)), np.zeros((8, 10)), expression=1.0)
    p = replace(p, jaw_pose=np.linspace([0, 0, 0], [0.35, 0, 0], 8))
    found, _ = there(kind)(p)
    assert found.facial_actions.min() >= 0 and found.facial_actions.max() <= 1
    face = source().expression_dirs.norm(dim=(1, 2)) > 5e-3
    calm = replace(p, expression=0 * p.expression, jaw_pose=0 * p.jaw_pose)
    moved, left = off(mesh(calm)[:, face], mesh(p)[:, face]), off(anny(kind).vertices(found)[:, face], mesh(p)[:, face])
    assert left < 0.5 * moved
    again, _ = back(kind)(found)
    assert off(mesh(again)[:, face], mesh(p)[:, face]) < 0.5 * moved
    assert np.corrcoef(again.jaw_pose[:, 0], p.jaw_pose[:, 0])[0, 1] > 0.95


def test_every_bone_belongs_to_a_joint() -> None:
    assert set(BONES) == set(SMPLX_JOINTS)
    labels = ["root", "spine05", "tongue00", "head", "tongue01", "oris02"]
    joints = joint_of_bone(labels, [-1, 0, 3, 1, 2, 3])
    assert [SMPLX_JOINTS[k] for k in joints] == ["pelvis", "pelvis", "head", "head", "head", "head"]


def test_another_mesh_is_refused() -> None:
    faces = source().faces
    shuffled = np.random.default_rng(0).permutation(faces.max() + 1)
    assert (vertex_order(faces, shuffled[faces]) == shuffled).all()
    for other in (faces[:-1], faces[::-1], np.zeros_like(faces)):
        with pytest.raises(BadInput, match="another mesh"):
            vertex_order(faces, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topology": "smplx"}, "non-commercial"),
        ({"topology": "smpl-tris"}, "non-commercial"),
        ({"topology": "notoes"}, "another mesh"),
        ({"rig": "soma"}, "'soma'"),
        ({"rig": "../x"}, "not known"),
    ],
)
def test_models_that_are_not_used(settings: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check_settings(settings)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(AssetMissing, match=r"pip install '\.\[anny\]'"):
        build_model({})
