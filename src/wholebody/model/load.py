"""From a name or a file to a network that predicts meshes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wholebody.body.layer import BodyModel
from wholebody.errors import AssetMissing, BadInput
from wholebody.files.looks import meant
from wholebody.files.reading import open_file
from wholebody.files.text import offer
from wholebody.model import checkpoint
from wholebody.model.graph import load_graph
from wholebody.model.network import Network
from wholebody.model.precision import check_precision, choose_dtype, compile_encoder

WEIGHTS = Path(__file__).parent.parent / "weights"
EMBEDDED = {"t": "osx_t.safetensors", "osx_t": "osx_t.safetensors"}


def load_model(
    path_or_name: str | Path = "t",
    body: BodyModel | str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    any_gender: bool = False,
    family: str | None = None,
    *,
    precision: str | None = None,
    compile: bool = False,
    say: Callable[[str], None] | None = None,
) -> Network:
    """The network and its body, in eval mode, strictly loaded; `model.checkpoint` says what it is.

    path_or_name: an embedded name ("t"), a checkpoint of ours (.safetensors) or a published one (.pth.tar). body: a
    body, "open", or a file or folder with SMPL-X; by default the body that the weights were trained for, the open one
    being embedded and SMPL-X needing its licensed file. device: "cpu" (default), "cuda", ..., or "auto": the GPU where
    there is one. dtype: of the weights (default: as in the file, single precision at least); with `torch.bfloat16` or
    `torch.float16` the encoder computes in it, which halves the memory, and all that follows in single precision.
    any_gender: take a body of another gender than the weights were trained for, whose shapes do not mean the same.
    family: "osx", "smpler_x" or "smplest_x", where a published file is said to be of one; by default its tensors tell,
    and where they do not, its name.

    precision: "fp32", "bf16" (as `dtype=torch.bfloat16`; `t` stays as it is on a CPU), or "auto": bf16 where the device
    computes in it. compile: let PyTorch compile the encoder, which takes up to a minute the first time and seconds in
    later processes; where it cannot, the network works without. say: gets what is to be told of these two (default: the
    standard error).
    """
    say = _to_stderr if say is None else say
    if precision is not None and dtype is not None:
        raise BadInput("precision and dtype both say in what the network computes: give one of them")
    if isinstance(device, str):
        device = pick_device(device)
    if dtype is not None and not dtype.is_floating_point:
        raise BadInput(f"a network cannot compute in {dtype}; take torch.float32, bfloat16, float16 or float64")
    if precision is not None:
        check_precision(precision)
    path = find_weights(path_or_name)
    if path.suffix in checkpoint.GRAPHS and path.suffix != ".onnx":
        raise BadInput(
            f"{path} is a graph for other programs; of graphs, ONNX is read here: `wholebody export --format onnx`"
        )
    if path.suffix == ".onnx":
        _check_graph_options(path, dtype, precision, compile, device, family)
        given = body
        found, info = load_graph(path, lambda c: given if isinstance(given, BodyModel) else _find_body(c, given), say)
        assert found.body is not None
        _check_body(info.conventions, found.body, any_gender)
        found.checkpoint = info
        return found
    if not isinstance(body, BodyModel):
        # Before the weights: where a body file is missing, that is said at once.
        body = _find_body(checkpoint.describe(path, family).conventions, body)
    model, info = checkpoint.load(path, family)
    _check_body(info.conventions, body, any_gender)
    model.body = body.eval()
    if precision is not None:
        dtype = choose_dtype(precision, model.encoder, device, say)
    if dtype is not None or device is not None:
        model.to(device=device, dtype=dtype)
    model.checkpoint = info
    if compile:
        height, width = model.config.input_hw
        like = next(model.encoder.parameters())
        compile_encoder(model.encoder, like.new_zeros(1, 3, height, width), say)
    return model


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_graph_options(
    path: Path, dtype: torch.dtype | None, precision: str | None, compile: bool, device: Any, family: str | None
) -> None:
    """A graph is what it was exported as."""
    asked = {
        "--precision": None if precision in (None, "fp32", "auto") else precision,
        "dtype": None if dtype in (None, torch.float32) else dtype,
        "--compile": compile or None,
        "--device": None if device is None or torch.device(device).type == "cpu" else device,
        "--family": family,
    }
    for name, value in asked.items():
        if value is not None:
            raise BadInput(f"{name} {value} does not go with {path}: a graph runs as it was exported, on the processor")


def find_weights(path_or_name: str | Path) -> Path:
    """The file behind an embedded name, or the path itself."""
    if str(path_or_name) in EMBEDDED:
        path = WEIGHTS / EMBEDDED[str(path_or_name)]
        if not path.is_file():
            raise AssetMissing(f"this installation lacks the embedded weights {path_or_name!r}; reinstall it")
        return path
    path = Path(path_or_name).expanduser()
    if not path.exists():
        names = ", ".join(EMBEDDED)
        near = offer(str(path_or_name), EMBEDDED) or meant(path)
        raise BadInput(
            f"no model {str(path_or_name)!r}: neither an embedded name ({names}) nor a checkpoint file{near}"
        )
    open_file(path).close()  # says what it is if it is no regular file
    return path


def _find_body(conventions: checkpoint.Conventions, body: str | Path | None) -> BodyModel:
    if body is None and conventions.body == "smplx":
        raise AssetMissing(
            "these weights were made for the licensed SMPL-X body, whose file is needed to make a mesh. Register at "
            "https://smpl-x.is.tue.mpg.de, download SMPL-X (v1.1, NPZ), put "
            f"SMPLX_{conventions.gender.upper()}.npz in a folder and name that folder: --body, in Python body=."
        )
    return BodyModel.load(body, conventions.gender, flat_hand_mean=conventions.flat_hand_mean)


def _check_body(conventions: checkpoint.Conventions, body: BodyModel, any_gender: bool) -> None:
    if body.name != conventions.body:
        raise BadInput(
            f"these weights predict parameters of the body {conventions.body!r}, and the body given is {body.name!r}: "
            "shape and expression do not carry over between the two"
        )
    if body.gender != conventions.gender and not any_gender:
        raise BadInput(
            f"these weights were trained for the {conventions.gender} body, and the body given is {body.gender}: the "
            f"same shape parameters make other people of it. Give SMPLX_{conventions.gender.upper()}, or take this one "
            "all the same: --any-gender, in Python any_gender=True"
        )
    if body.flat_hand_mean != conventions.flat_hand_mean:
        raise BadInput(
            f"these weights were made with flat_hand_mean={conventions.flat_hand_mean}, and the body given has "
            f"{body.flat_hand_mean}; load it with flat_hand_mean={conventions.flat_hand_mean}"
        )


def pick_device(name: str = "auto") -> str:
    """`auto`: the GPU where PyTorch sees one, else the CPU; any other name is checked."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name.startswith("mps") and not torch.backends.mps.is_available():
        raise BadInput(f"--device {name}: PyTorch sees no Apple GPU on this machine. Try --device cpu, or auto.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise BadInput(f"--device {name}: PyTorch sees no NVIDIA GPU on this machine. Try --device cpu, or auto.")
    try:
        torch.zeros(1, device=name)
    except Exception as error:  # PyTorch raises whatever the backend raises, at length
        why = str(error).splitlines()[0].split(". ")[0][:160].rstrip(". ")
        raise BadInput(f"--device {name} cannot be used: {why}. Try --device cpu, or auto.") from error
    return name
