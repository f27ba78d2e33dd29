"""What a synthetic world is made of is named, by option or variable, and written down; nothing is taken because it lies
somewhere."""

import json

import pytest

from wholebody.errors import AssetMissing
from wholebody.synthesis.config import MATERIAL, SynthesisConfig, material, material_used
from wholebody.synthesis.sets import poses


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of all material, and no variable that names it."""
    for variable in ("WHOLEBODY_MATERIAL", "WHOLEBODY_SHARED"):
        monkeypatch.delenv(variable, raising=False)
    for place in MATERIAL.values():
        (tmp_path / "material" / place).mkdir(parents=True)
    return tmp_path / "material"


def test_nothing_is_taken_that_nobody_named(folder):
    """The checkout's neighbours included: with neither option nor variable there is no material."""
    config = SynthesisConfig().resolved()
    assert (config.motion, config.hdri, config.assets) == (None, None, None)
    assert (config.clips, config.maps, config.wardrobe) == (None, None, None)
    assert {used["named_by"] for used in material_used(SynthesisConfig()).values()} == {"nothing"}


@pytest.mark.parametrize("variable", ["WHOLEBODY_MATERIAL", "WHOLEBODY_SHARED"])
def test_a_variable_names_the_folder_of_all_material(folder, monkeypatch, variable):
    monkeypatch.setenv(variable, str(folder))
    config = SynthesisConfig(motion="mine", hdri="none")
    assert config.resolved().assets == str(folder / "assets" / "makehuman")
    assert (config.clips, config.maps) == ("mine", None)
    assert config.resolved().maps is None, "none stays none where a variable names some"
    assert material_used(config) == {
        "motion": {"folder": "mine", "named_by": "--motion"},
        "hdri": {"folder": None, "named_by": "--hdri"},
        "assets": {"folder": str(folder / "assets" / "makehuman"), "named_by": variable},
    }
    (folder / "motion").rmdir()
    assert material("motion", None) is None


def test_the_new_variable_comes_first_and_has_to_be_right(folder, monkeypatch):
    monkeypatch.setenv("WHOLEBODY_SHARED", "/nonexistent")
    assert material("motion", None) is None  # as ever
    monkeypatch.setenv("WHOLEBODY_MATERIAL", str(folder))
    assert material("motion", None) == str(folder / "motion")
    monkeypatch.setenv("WHOLEBODY_MATERIAL", str(folder / "nowhere"))
    with pytest.raises(AssetMissing, match="WHOLEBODY_MATERIAL names the folder .*nowhere"):
        material("motion", None)


def test_a_set_says_what_it_was_made_of(layers, folder, tmp_path):
    recipe = json.loads((layers / "recipe.json").read_text())
    assert recipe["material"] == {kind: {"folder": None, "named_by": "nothing"} for kind in MATERIAL}
    config = SynthesisConfig(motion="none", hdri="none", assets="none")
    path = poses.run(tmp_path / "poses", 1, config=config)
    recipe = json.loads((path / "recipe.json").read_text())
    assert recipe["material"]["motion"] == {"folder": None, "named_by": "--motion"} and recipe["poses"] == 1
