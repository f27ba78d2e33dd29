"""The body: joints by name, files, and the layer that turns parameters into a mesh."""

from importlib import import_module

_HOME = {
    "BodyModel": "layer",
    "BodyOutput": "layer",
    "find_body": "assets",
    "read_body_file": "assets",
    "BodyArrays": "assets",
}
__all__ = ["BodyArrays", "BodyModel", "BodyOutput", "find_body", "read_body_file"]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
