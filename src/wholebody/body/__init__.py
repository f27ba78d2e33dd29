"""The body: joints by name, files, and the layer that turns parameters into a mesh."""

from importlib import import_module

RIGS = ("smplx", "mixamo", "unity")
"""Skeletons (see `skeletons`) whose names a rigged file can have: they name all 55 joints of the tree."""

_HOME = {
    "BodyModel": "layer",
    "BodyOutput": "layer",
    "find_body": "assets",
    "read_body_file": "assets",
    "BodyArrays": "assets",
}
__all__ = ["RIGS", "BodyArrays", "BodyModel", "BodyOutput", "find_body", "read_body_file"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
