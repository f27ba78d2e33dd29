"""wholebody: whole-body 3D meshes of the people in a photo.

import wholebody
people = wholebody.Predictor(wholebody.load_model())(wholebody.read_image("photo.jpg"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wholebody.body.layer import BodyModel
    from wholebody.errors import WholebodyError
    from wholebody.files.image import read_image
    from wholebody.model.load import load_model
    from wholebody.model.osx import Prediction
    from wholebody.people.person import Person
    from wholebody.people.predictor import Predictor
    from wholebody.people.refine import refine

# Name -> module. Looked up on first use, so that importing wholebody imports nothing heavy.
_HOMES = {
    "BodyModel": "wholebody.body.layer",
    "Person": "wholebody.people.person",
    "Prediction": "wholebody.model.osx",
    "Predictor": "wholebody.people.predictor",
    "WholebodyError": "wholebody.errors",
    "load_model": "wholebody.model.load",
    "read_image": "wholebody.files.image",
    "refine": "wholebody.people.refine",
}
__all__ = [
    "BodyModel",
    "Person",
    "Prediction",
    "Predictor",
    "WholebodyError",
    "__version__",
    "load_model",
    "read_image",
    "refine",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wholebody' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
