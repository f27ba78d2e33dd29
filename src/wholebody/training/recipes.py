"""Recipes as files: those of the package by name, those of users by path, and what differs in them by size."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wholebody.errors import BadInput
from wholebody.files.settings import override

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
OF_FAMILY = {"osx": "setting1", "smpler_x": "smpler_x", "smplest_x": "smplest_x_h"}
"""The recipe that each family's networks are first trained by."""
VITPOSE = {"s": "small", "b": "base", "l": "large", "h": "huge"}
"""What ViTPose's encoders are called, by size: `vitpose_huge.pth`."""


def find_recipe(name: str | Path) -> Path:
    """The recipe of this path, or the one of this name that is part of the package (with or without `.toml`, and with
    the folder `configs/`, where they lay before); of a Python config also where the published code keeps them."""
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix == ".py":
        return _find_python(path)
    shipped = RECIPES / f"{path.name.removesuffix('.toml')}.toml"
    if path.parent.name in ("", "configs") and shipped.is_file():
        return shipped
    close = difflib.get_close_matches(path.name.removesuffix(".toml"), recipe_names(), n=1)
    meant = f" Did you mean {close[0]}?" if close else ""
    raise BadInput(f"there is no recipe {str(name)!r}: name a file, or one of {', '.join(recipe_names())}.{meant}")


def _find_python(path: Path) -> Path:
    """A published config by its name alone, where the published code looks for it."""
    places = [Path(folder) / path for folder in CONFIG_FOLDERS]
    for place in places:
        if place.is_file():
            return place
    raise BadInput(
        f"there is no config {str(path)!r}, nor one in {', '.join(CONFIG_FOLDERS)}. Name its file, or a recipe: "
        f"{', '.join(recipe_names())}"
    )


CONFIG_FOLDERS = ("config", "configs", "main/config", "../config", "../main/config")
"""Where the published repositories keep their configs, seen from their folders."""


def recipe_names() -> list[str]:
    """The recipes that are part of the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def filled(path: str, size: str) -> str:
    """A path of a recipe with the network's size in its place; other braces stay."""
    return path.replace("{network}", size).replace("{vitpose}", VITPOSE.get(size, size))


def of_size(table: dict[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A recipe's table with what its `network_is` says of the size that it, or an override, names."""
    asked = override({"network": table.get("network")}, [text for text in overrides if text.startswith("network=")])
    differs = table.pop("network_is", {})
    if not isinstance(differs, dict) or not all(isinstance(part, dict) for part in differs.values()):
        raise BadInput("network_is holds tables of settings by size, as [network_is.h]")
    return table | differs.get(str(asked["network"]), {})
