"""Files of Anny's own parameters, for `wholebody convert`: what the package anny takes, and where it lies.

An Anny file (`.npz`) has the arrays by the names of the arguments of `anny.Anny.forward`: `pose_parameters`
(B, bones, 4, 4), `phenotype_kwargs` (B, phenotypes) and `facial_actions` (B, actions), each with its labels
(`bone_labels`, `phenotype_labels`, `facial_action_labels`). `conventions` (JSON) says with which settings the model is
built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.errors import BadInput
from wholebody.files.npz import npz_bytes

if TYPE_CHECKING:
    from wholebody.body.anny_body import AnnyBody, AnnyParameters
    from wholebody.body.skinned import SkinnedBody

_LABELS = {
    "pose_parameters": "bone_labels", "phenotype_kwargs": "phenotype_labels", "facial_actions": "facial_action_labels",
}  # fmt: skip
_PARAMETERIZATIONS = ("local-ref", "local-bone", "local-bone-world", "world-orient", "world")
_NO_ROTATION = 1e-3  # how far a matrix may be from a rotation


@dataclass(frozen=True)
class AnnyFile:
    """What an Anny file holds: one person, in one picture or in the frames of a film."""

    path: Path
    values: dict[str, np.ndarray]  # by the names of `_LABELS`, as they lie in the file
    labels: dict[str, list[str]]  # of those that say them
    model: dict[str, Any]
    is_film: bool
    rest: dict[str, np.ndarray]
    conventions: dict[str, Any]
    body: str = "anny"

    def __len__(self) -> int:
        return len(self.values["pose_parameters"])

    @property
    def person(self) -> np.ndarray:
        return np.zeros(len(self), int)

    def parameters(self, anny: AnnyBody) -> AnnyParameters:
        """In the order of this model's labels. BadInput where a label is none of its, or a number is missing."""
        from wholebody.body.anny_body import AnnyParameters

        count = len(self)
        at_rest = {
            "pose_parameters": (anny.joint_names, np.broadcast_to(np.eye(4), (count, len(anny.joint_names), 4, 4))),
            "phenotype_kwargs": (anny.phenotype_labels, np.full((count, len(anny.phenotype_labels)), 0.5)),
            "facial_actions": (anny.action_labels, np.zeros((count, len(anny.action_labels)))),
        }
        found = []
        for name, (known, default) in at_rest.items():
            value = self.values.get(name, default[:, :0])
            labels = self.labels.get(name, list(known) if name in self.values else [])
            if len(labels) != value.shape[1] or len(set(labels)) < len(labels):
                raise BadInput(
                    f"{self.path}: {name!r} has {value.shape[1]} columns and {len(set(labels))} different labels: say "
                    f"which they are in {_LABELS[name]!r}."
                )
            strange = [label for label in labels if label not in known]
            if strange:
                raise BadInput(
                    f"{self.path}: {_LABELS[name]!r} names {', '.join(strange[:5])}, which this model of Anny "
                    f"({', '.join(f'{key}={value}' for key, value in self.model.items()) or 'its defaults'}) has not."
                )
            whole = default.copy()
            whole[:, [known.index(label) for label in labels]] = value
            found.append(whole)
        return AnnyParameters(*found)


def is_anny(stored: Mapping[str, Any]) -> bool:
    return "pose_parameters" in stored


def read_anny(path: Path, stored: Mapping[str, Any]) -> AnnyFile:
    """An Anny file of ours, or of somebody who uses the package. BadInput says what does not fit."""
    pose = _numbers(path, "pose_parameters", stored["pose_parameters"])
    if pose.ndim != 4 or pose.shape[2:] != (4, 4) or not len(pose):
        raise BadInput(f"{path}: 'pose_parameters' is {pose.shape}, where (frames, bones, 4, 4) belongs.")
    turns = pose[..., :3, :3]
    if np.abs(turns @ turns.swapaxes(-1, -2) - np.eye(3)).max() > _NO_ROTATION or (np.linalg.det(turns) < 0).any():
        raise BadInput(f"{path}: 'pose_parameters' holds matrices that are no rotations.")
    values, labels = {"pose_parameters": pose}, {}
    for name, naming in _LABELS.items():
        if name != "pose_parameters" and name in stored:
            values[name] = _numbers(path, name, stored[name])
            if values[name].ndim != 2 or len(values[name]) not in (1, len(pose)):
                raise BadInput(f"{path}: {name!r} is {values[name].shape}, where ({len(pose)}, ...) belongs.")
            values[name] = np.broadcast_to(values[name], (len(pose), values[name].shape[1]))
        if naming in stored and name in values:
            labels[name] = [str(label) for label in np.asarray(stored[naming]).ravel()]
    if np.ptp(values.get("phenotype_kwargs", np.zeros((1, 1))), axis=0).max(initial=0) > 1e-4:
        raise BadInput(
            f"{path} has {len(pose)} rows of different phenotypes; a file is one person in the frames of a film: write "
            "a file for each person."
        )
    if np.abs(_numbers(path, "local_changes_kwargs", stored.get("local_changes_kwargs", np.zeros(1)))).max() > 0:
        raise BadInput(
            f"{path} has local changes of the shape ('local_changes_kwargs'); only phenotypes are known here."
        )
    conventions: dict[str, Any] = {}
    if "conventions" in stored:
        try:
            conventions = dict(json.loads(str(stored["conventions"])))
            model = dict(conventions.get("model", {}))
        except (ValueError, TypeError, RecursionError) as error:
            raise BadInput(f"{path}: its conventions cannot be read ({error!r}).") from error
    else:
        model = {}
    given = model.get("pose_parameterization", _PARAMETERIZATIONS[0])
    if given not in _PARAMETERIZATIONS:
        raise BadInput(f"{path}: the pose parameterization {given!r} is none of {', '.join(_PARAMETERIZATIONS)}.")
    own = {*_LABELS, *_LABELS.values(), "local_changes_kwargs", "conventions", "conversion_error"}
    rest = {name: np.asarray(value) for name, value in stored.items() if name not in own}
    person = {key: value for key, value in conventions.items() if key not in ("model", "anny", "film")}
    return AnnyFile(path, values, labels, model, bool(conventions.get("film", len(pose) > 1)), rest, person)


def _numbers(path: Path, name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise BadInput(f"{path}: {name!r} is {array.dtype} {array.shape}; finite numbers belong there.")
    return array.astype(np.float64)


def anny_bytes(
    p: AnnyParameters, anny: AnnyBody, error: np.ndarray, rest: Mapping[str, Any], conventions: Mapping[str, Any],
    is_film: bool,
) -> bytes:  # fmt: skip
    """An Anny file's content. rest and conventions: of the source, passed on."""
    from wholebody.body.anny_body import MODEL

    not_annys = ("gender", "flat_hand_mean", "format")
    about = {name: value for name, value in conventions.items() if name not in not_annys} | {
        "format": "wholebody.anny/1", "body": "anny", "converted_from": "open", "anny": _version(), "model": MODEL,
        "film": is_film, "converted_error_mm": round(1000 * float(error.mean()), 2),
    }  # fmt: skip
    return npz_bytes(dict(rest) | {
        "pose_parameters": p.pose_parameters, "phenotype_kwargs": p.phenotypes, "facial_actions": p.facial_actions,
        "bone_labels": np.array(anny.joint_names), "phenotype_labels": np.array(anny.phenotype_labels),
        "facial_action_labels": np.array(anny.action_labels), "conversion_error": error,
        "conventions": np.array(json.dumps(about)),
    })  # fmt: skip


def to_anny(open_body: SkinnedBody, say: Callable[[str], None]) -> Any:
    """A function from a person file's parameters to an Anny file's content, the error of each row and whether the face
    came along. Loads Anny."""
    from wholebody.body.anny_body import AnnyBody
    from wholebody.body.convert_anny import ToAnny

    anny = AnnyBody(_loaded({}, say), open_body.faces)
    converter = ToAnny(open_body, anny)

    def run(result: Any, parameters: Any) -> tuple[bytes, np.ndarray, bool]:
        found, error = converter(parameters, result.person)
        return anny_bytes(found, anny, error, result.rest, result.conventions, result.is_film), error, True

    return run


def from_anny(models: list[dict[str, Any]], open_body: SkinnedBody, say: Callable[[str], None]) -> Any:
    """A function from an Anny file to the open body's parameters, the error of each row and whether the face came
    along. Loads Anny as these files say."""
    from wholebody.body.anny_body import AnnyBody
    from wholebody.body.convert_anny import FromAnny

    def key(model: dict[str, Any]) -> str:
        return json.dumps(model, sort_keys=True)

    kept = {}
    for text, model in {key(model): model for model in models}.items():
        anny = AnnyBody(_loaded(model, say), open_body.faces)
        kept[text] = anny, FromAnny(anny, open_body)

    def run(result: AnnyFile) -> tuple[Any, np.ndarray, bool]:
        anny, converter = kept[key(result.model)]
        found, error = converter(result.parameters(anny), result.person, result.model.get("pose_parameterization"))
        return found, error, True

    return run


def _version() -> str:
    from importlib.metadata import version

    return version("anny")


def _loaded(model: dict[str, Any], say: Callable[[str], None]) -> Any:
    from wholebody.body.anny_body import build_model

    say("loading Anny: some seconds; the first time a minute and 1 GB in its cache folder")
    return build_model(model)
