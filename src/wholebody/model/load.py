"""From a name or a file to a network that predicts meshes."""

from __future__ import annotations

from pathlib import Path

from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.model import checkpoint
from wholebody.model.network import Network

WEIGHTS = Path(__file__).parent.parent / "weights"
EMBEDDED = {"t": "osx_t.safetensors", "osx_t": "osx_t.safetensors"}


def load_model(path_or_name: str | Path = "t", body: BodyModel | str | Path | None = None) -> Network:
    """The network and its body, in eval mode, on the CPU, strictly loaded; `model.checkpoint` says what it is.

    path_or_name: an embedded name ("t"), a checkpoint of ours (.safetensors) or a published one (.pth.tar). body: a
    body, "open", or a file or folder with SMPL-X; by default the body that the weights were trained for, the open one
    being embedded and SMPL-X needing its licensed file.
    """
    path = find_weights(path_or_name)
    if not isinstance(body, BodyModel):
        # Before the weights: where a body file is missing, that is said at once.
        body = _find_body(checkpoint.describe(path).conventions, body)
    model, info = checkpoint.load(path)
    _check_body(info.conventions, body)
    model.body = body.eval()
    model.checkpoint = info
    return model


def find_weights(path_or_name: str | Path) -> Path:
    """The file behind an embedded name, or the path itself."""
    if str(path_or_name) in EMBEDDED:
        path = WEIGHTS / EMBEDDED[str(path_or_name)]
        if not path.is_file():
            raise AssetMissing(f"this installation lacks the embedded weights {path_or_name!r}; reinstall it")
        return path
    path = Path(path_or_name).expanduser()
    if not path.is_file():
        names = ", ".join(EMBEDDED)
        raise BadInput(f"no model {str(path_or_name)!r}: neither an embedded name ({names}) nor a checkpoint file")
    return path


def _find_body(conventions: checkpoint.Conventions, body: str | Path | None) -> BodyModel:
    if body is None and conventions.body == "smplx":
        raise AssetMissing(
            "these weights speak of the licensed SMPL-X body, whose file is needed to make a mesh. Register at "
            "https://smpl-x.is.tue.mpg.de, download SMPL-X (v1.1, NPZ), put "
            f"SMPLX_{conventions.gender.upper()}.npz in a folder and name that folder: --body, in Python body=."
        )
    return BodyModel.load(body, conventions.gender, flat_hand_mean=conventions.flat_hand_mean)


def _check_body(conventions: checkpoint.Conventions, body: BodyModel) -> None:
    if body.name != conventions.body:
        raise BadInput(
            f"these weights predict parameters of the body {conventions.body!r}, and the body given is {body.name!r}: "
            "shape and expression do not carry over between the two"
        )
    if body.flat_hand_mean != conventions.flat_hand_mean:
        raise BadInput(
            f"these weights were made with flat_hand_mean={conventions.flat_hand_mean}, and the body given has "
            f"{body.flat_hand_mean}; load it with flat_hand_mean={conventions.flat_hand_mean}"
        )
