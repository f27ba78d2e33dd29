"""Checkpoints: our own form, which carries its config and conventions, and the published one.

Ours is a safetensors file; its metadata holds the config, the body conventions and the licence as JSON. Of size `t`
it leaves out the frozen trunk, whose numbers come with the embedded person detector. Both forms are mapped into
memory, not read: only what is used costs memory, so a published file's optimiser costs none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wholebody.errors import BadInput
from wholebody.files.json_stream import parse_json
from wholebody.files.looks import looks_like, meant
from wholebody.files.npz import DAMAGED
from wholebody.files.pickle_check import check_pickle
from wholebody.files.reading import open_file
from wholebody.files.text import brief
from wholebody.files.whole import write_whole
from wholebody.model import published_names
from wholebody.model.config import NetworkConfig, config_to_dict
from wholebody.model.embedded import movenet, thunder
from wholebody.model.families import FAMILIES, config_from_dict, sketch_network
from wholebody.model.network import Network

FORMAT = "wholebody"
VERSION = 1
GRAPHS = (".onnx", ".xml", ".torchscript", ".pt2")
"""Ends of the names of exported graphs, which are no checkpoints."""


@dataclass(frozen=True)
class Conventions:
    """What the numbers that a network predicts mean. Parameters do not carry over between bodies."""

    body: str = "smplx"  # "smplx" or "open"
    gender: str = "neutral"
    flat_hand_mean: bool = False  # False: hand poses are added to the body's mean hand pose
    betas: int = 10
    expression: int = 10
    joint_set: str = "smplx-55, 144 and 137 as published"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is. `unused`: what a published file carries and the network never reads (name -> numbers)."""

    path: str
    form: str  # "wholebody" or "published"
    config: NetworkConfig
    conventions: Conventions
    licence: str
    parameters: int  # numbers that are used
    epoch: int | None = None
    unused: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)  # whatever else its maker wrote: recipe, errors, hours

    def __str__(self) -> str:
        lines = [
            f"{self.form} checkpoint, {FAMILIES[self.config.family].title}, size {self.config.name}, "
            f"variant {self.config.variant}",
            f"{self.parameters / 1e6:.1f} M numbers used",
            f"body {self.conventions.body}, {self.conventions.gender}, {self.conventions.betas} betas, "
            f"{self.conventions.expression} expression, flat_hand_mean={self.conventions.flat_hand_mean}",
            f"joints {self.conventions.joint_set}",
            f"licence: {self.licence}",
        ]
        if citation := FAMILIES[self.config.family].citation:
            lines.append(f"please cite: {citation}")
        if self.unused:
            groups: dict[str, int] = {}
            for name, count in self.unused.items():
                group = ".".join(name.split(".")[: 3 if "keypoint_head" in name else 2])
                groups[group] = groups.get(group, 0) + count
            largest = sorted(groups.items(), key=lambda item: -item[1])
            listed = ", ".join(f"{group} {count / 1e6:.1f} M" for group, count in largest)
            lines.append(f"{len(self.unused)} tensors are carried and never used, dropped: {listed}")
        lines += [f"{key}: {value}" for key, value in self.extra.items()]
        return "\n".join(lines)


def save(
    model: Network,
    path: str | Path,
    conventions: Conventions,
    licence: str = "Apache-2.0",
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a network in our own form, whole or not at all.

    tensors: other values for the model's `state_dict` (an average over training steps). extra: JSON values to keep
    with it.
    """
    own = _own_tensors(model.state_dict())
    chosen = own if tensors is None else {name: tensors[name] for name in own}
    write_ours(chosen, path, model.config, conventions, licence, extra or {})


def load(path: str | Path, family: str | None = None) -> tuple[Network, CheckpointInfo]:
    """A network without a body, in eval mode on the CPU, from a checkpoint of either form; strictly.

    family: what the checkpoint is said to be of, one of `families.FAMILIES`; one that it is not of raises BadInput.
    Without it the tensors tell; where they do not (SMPLer-X B and L from OSX without decoders) the file's name does.
    """
    path = Path(path)
    if is_published(path):
        return load_published(path, family)
    model, info = _load_ours(path)
    _check_family(info, family)
    return model, info


def load_published(path: str | Path, family: str | None = None) -> tuple[Network, CheckpointInfo]:
    """As `load`, from a published `.pth.tar`. What the network does not use is left in the file."""
    tensors, config, epoch = _read_published(Path(path), family)
    translation = _translate(tensors, config, Path(path))
    model = _assemble(config, translation.tensors)
    return model, _published_info(Path(path), config, epoch, translation)


def describe(path: str | Path, family: str | None = None) -> CheckpointInfo:
    """What a checkpoint is, from its names and metadata alone."""
    path = Path(path)
    if not is_published(path):
        with open_ours(path) as (file, info):
            _check_family(info, family)
            numbers = sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())
            frozen = sum(tensor.numel() for tensor in _left_out(path, file.metadata()).values())
            return dataclasses.replace(info, parameters=numbers + frozen)
    tensors, config, epoch = _read_published(path, family)
    return _published_info(path, config, epoch, _translate(tensors, config, path))


def convert(source: str | Path, target: str | Path, family: str | None = None) -> CheckpointInfo:
    """Rewrite a checkpoint in the other form: published to `.safetensors`, or ours to `.pth` / `.pth.tar`.

    A tensor at a time: what is mapped from the source is never held in memory as a whole.
    """
    target = Path(target)
    model, info = load(source, family)
    if target.suffix == ".safetensors":
        save(model, target, info.conventions, info.licence, info.extra)
    elif target.suffix in (".pth", ".tar", ".pt"):
        tensors = published_names.to_published(_own_tensors(model.state_dict()), model.config.variant)
        network = {published_names.PREFIX + name: tensor for name, tensor in tensors.items()}
        epoch = info.epoch if info.epoch is not None else info.extra.get("epoch", 0)  # of a run's snapshot
        contents = {"epoch": epoch, "network": network, "optimizer": {}}
        write_torch(target, contents)
    else:
        raise BadInput(f"{target}: name the target .safetensors (our form) or .pth.tar (the published form)")
    return describe(target, model.config.family)


def _check_family(info: CheckpointInfo, family: str | None) -> None:
    if family is not None and family != info.config.family:
        raise BadInput(
            f"{info.path} is a network of the family {info.config.family}, and {family} is asked for; leave --family "
            "out, or take another file"
        )


def is_published(path: Path) -> bool:
    """Whether a file is a torch checkpoint rather than a safetensors one, by its first bytes."""
    if not path.exists():
        raise BadInput(f"there is no checkpoint at {path}{meant(path)}")
    if path.suffix in GRAPHS:
        raise BadInput(
            f"{path} is a graph, which `wholebody export` makes of a checkpoint, and no checkpoint: name that one"
        )
    with open_file(path) as file:
        head = file.read(400)
    if not head:
        raise BadInput(f"{path} is empty; download or copy it again")
    if looks_like(head):
        raise BadInput(f"{path} is damaged or no checkpoint: it is {looks_like(head)}. Download it again.")
    return head[8:9] != b"{"  # safetensors: eight bytes of length, then JSON


def write_torch(path: str | Path, content: Any) -> Path:
    """`torch.save`, whole or not at all; the same content gives the same bytes, whatever the file's name."""

    def write(part: Path) -> None:
        try:
            with open(part, "xb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # how torch reports a full disk
            raise OSError(str(error)) from error

    return write_whole(path, write)


def write_safetensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> Path:
    """A safetensors file, whole or not at all; the same content gives the same bytes.

    As `safetensors.save_file`, but tensor after tensor: that one copies all of them first.
    """
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that all are aligned
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in ordered:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)

    def write(part: Path) -> None:
        with open(part, "xb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in ordered:
                file.write(tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    return write_whole(path, write)


_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


# Our own form


def _own_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("body.")}


def write_ours(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    config: NetworkConfig,
    conventions: Conventions,
    licence: str,
    extra: Mapping[str, Any],
) -> None:
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "config": json.dumps(config_to_dict(config)),
        "conventions": json.dumps(dataclasses.asdict(conventions)),
        "licence": licence,
        "extra": json.dumps(dict(extra)),
    }
    plain = dict(tensors)
    for trunk in _FROZEN:
        frozen = trunk.read() if any(name.startswith(trunk.prefix) for name in plain) else {}
        if frozen and all(
            name in plain and torch.equal(plain[name].detach().cpu().half(), frozen[name].half()) for name in frozen
        ):
            plain = {name: tensor for name, tensor in plain.items() if name not in frozen}
            metadata[trunk.key] = trunk.sha256
    write_safetensors(path, plain, metadata)


class _Frozen(NamedTuple):
    """A trunk whose numbers are embedded in a file of their own, and left out of checkpoints."""

    key: str  # of the metadata that says so
    prefix: str
    state: Callable[[], dict[str, Tensor]]
    sha256: str

    def read(self) -> dict[str, Tensor]:
        return {self.prefix + name: tensor for name, tensor in self.state().items()}


_FROZEN = (
    _Frozen("frozen_trunk", "encoder.trunk.", movenet.read_movenet_state, movenet.SHA256),
    _Frozen("frozen_thunder", "encoder.thunder.trunk.", thunder.read_thunder_state, thunder.SHA256),
)


def _left_out(path: Path, metadata: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors of the frozen trunks that a checkpoint says it left out."""
    tensors: dict[str, Tensor] = {}
    for trunk in _FROZEN:
        made_with = metadata.get(trunk.key)
        if made_with is None:
            continue
        if made_with != trunk.sha256:
            raise BadInput(
                f"{path} goes with the MoveNet file of SHA-256 {made_with}, and this version embeds {trunk.sha256}; "
                "use the version of wholebody that the checkpoint was made with"
            )
        tensors |= trunk.read()
    return tensors


class open_ours:
    """Context: (the open safetensors file, its CheckpointInfo with 0 parameters)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[Any, CheckpointInfo]:
        try:
            self.file = safe_open(str(self.path), framework="pt")
            self.file.__enter__()
            metadata = self.file.metadata() or {}
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise BadInput(_damaged_ours(self.path, error)) from error
        return self.file, _read_metadata(self.path, metadata)

    def __exit__(self, *problem: object) -> None:
        self.file.__exit__(*problem)


def _damaged_ours(path: Path, error: BaseException) -> str:
    """What is wrong with a safetensors file that could not be opened; cut short, where its header tells."""
    size = path.stat().st_size
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= min(size, _LONGEST_HEADER) else {}
        whole = 8 + length + max(row["data_offsets"][1] for name, row in header.items() if name != "__metadata__")
        if size < whole:
            return f"{path} is cut short: {size:,} of its {whole:,} bytes are there; download or copy it again"
    return f"{path} is damaged or no checkpoint ({error}); download or copy it again"


_LONGEST_HEADER = 100_000_000  # bytes, of safetensors


def _read_metadata(path: Path, metadata: Mapping[str, str]) -> CheckpointInfo:
    if metadata.get("format") != FORMAT:
        raise BadInput(f"{path} is a safetensors file of something else: it does not say it is a wholebody network")
    if metadata.get("version") != str(VERSION):
        raise BadInput(f"{path} has version {metadata.get('version')}, this program reads {VERSION}; update wholebody")
    try:
        config, conventions, extra = (_table(metadata[name], name) for name in ("config", "conventions", "extra"))
        licence = metadata.get("licence", "not stated")
        return CheckpointInfo(
            str(path), FORMAT, config_from_dict(config), parse_conventions(conventions), licence, 0, extra=extra
        )
    except KeyError as error:
        raise BadInput(f"{path} has unreadable metadata (it lacks {error}); it cannot be used") from error
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error


def _table(text: str, name: str) -> dict[str, Any]:
    try:
        table = parse_json(text.encode(errors="replace"), f"its {name}")
    except BadInput as error:
        raise BadInput(f"it has unreadable metadata ({error}); it cannot be used") from error
    if not isinstance(table, dict):
        raise BadInput(f"its {name} is {brief(table)}, not a table")
    return table


def parse_conventions(table: dict[str, Any]) -> Conventions:
    """Conventions as a file states them; raises BadInput for others than this version knows."""
    known = {item.name: item.default for item in dataclasses.fields(Conventions)}
    if table.keys() != known.keys():
        raise BadInput(f"it states other conventions than this version knows: {sorted(table.keys() ^ known.keys())}")
    for name, value in table.items():
        if type(value) is not type(known[name]):
            raise BadInput(f"its conventions say {name} is {brief(value)}, which is no {type(known[name]).__name__}")
    return Conventions(**table)


def _load_ours(path: Path) -> tuple[Network, CheckpointInfo]:
    with open_ours(path) as (file, info):
        tensors = _left_out(path, file.metadata()) | {name: file.get_tensor(name) for name in file.keys()}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return _assemble(info.config, tensors, path), dataclasses.replace(info, parameters=numbers)


def _at_least_single(tensor: Tensor) -> Tensor:
    """Weights may be kept in half precision to save space; they are computed with in single."""
    if tensor.dtype not in (torch.float16, torch.bfloat16):
        return tensor
    # So few at a time that PyTorch does it on one thread: its threads wait for each other after each of some hundred
    # tensors, for milliseconds where others use the processor too.
    single = torch.empty(tensor.shape, dtype=torch.float32)
    pieces = zip(single.view(-1).split(_ON_ONE_THREAD), tensor.reshape(-1).split(_ON_ONE_THREAD), strict=True)
    for target, piece in pieces:
        target.copy_(piece)
    return single


_ON_ONE_THREAD = 1 << 15  # numbers


# The published form


def _read_published(path: Path, family: str | None = None) -> tuple[dict[str, Tensor], NetworkConfig, int | None]:
    """Tensors by canonical name, mapped from the file; what network they are of; the epoch they were saved after."""
    contents = unpickle(path)
    network = _network_in(contents)
    kind = f"the keys {sorted(map(str, contents))[:5]}" if isinstance(contents, dict) else type(contents).__name__
    if network is None:
        raise BadInput(f"{path} is no published OSX checkpoint: it holds {kind} and no 'network' of tensors")
    tensors = {published_names.canonical(name): tensor for name, tensor in network.items()}
    try:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        config = published_names.read_config(shapes, family, published_names.family_of_file(path.name))
    except BadInput as error:
        raise BadInput(f"{path}: {error}; the file holds {kind}") from error
    epoch = contents.get("epoch")
    return tensors, config, epoch if isinstance(epoch, int) else None


def _translate(tensors: Mapping[str, Tensor], config: NetworkConfig, path: Path) -> published_names.Translation:
    try:
        return published_names.to_ours(tensors, sketch_network(config).state_dict(), config.variant)
    except BadInput as error:
        raise BadInput(f"{path}: as {FAMILIES[config.family].title}, size {config.name}: {error}") from error


def _network_in(contents: Any) -> dict[str, Tensor] | None:
    """The tensors by name in what a checkpoint holds: under `network`, where other trainers put them, or all of it."""
    if not isinstance(contents, Mapping):
        return None
    for table in (*(contents.get(key) for key in _NETWORK_KEYS), contents):
        if isinstance(table, Mapping) and table:
            if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in table.items()):
                return dict(table)
    return None


_NETWORK_KEYS = ("network", "state_dict", "model", "model_state_dict", "net", "weights")


def check_pickles(path: Path) -> None:
    """Walk over what torch will unpickle, for what would take the interpreter down. Raises pickle.UnpicklingError or
    any of `npz.DAMAGED`."""
    zipped = zipfile.is_zipfile(path)
    with open_file(path) as file:
        if zipped:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if member.filename.endswith(".pkl"):
                        if member.file_size > _MOST_PICKLE:
                            raise ValueError(f"{member.filename} holds {member.file_size:,} bytes besides the tensors")
                        check_pickle(archive.read(member))
        else:
            # Not closed: an error that is being reported may still look at it.
            data, end = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), 0
            for _ in range(_LEGACY_PICKLES):
                end = check_pickle(data, end)


_MOST_PICKLE = 1 << 28  # bytes; the names of a network's tensors and its optimiser's state take some hundred thousand
_LEGACY_PICKLES = 5  # magic number, version, machine, contents, names of the tensors


def unpickle(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    with open_file(path) as file:
        begins_zipped = file.read(4) == b"PK\x03\x04"
    if begins_zipped and not zipped:
        raise BadInput(
            f"{path} is cut short: it ends after {path.stat().st_size:,} bytes, before the table of contents that "
            "closes such a file; download or copy it again"
        )
    try:
        check_pickles(path)
    except (pickle.UnpicklingError, *DAMAGED) as error:
        raise BadInput(_damaged(path, error)) from error
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            # Only zipped files can be mapped; torch wrote others before version 1.6.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if re.search("unsupported (global|class)", str(error), re.IGNORECASE):
            raise BadInput(
                f"{path} holds code or objects besides tensors and was not loaded: running it could harm your machine. "
                "Ask its maker for the weights alone."
            ) from error
        raise BadInput(_damaged(path, error)) from error
    except Exception as error:  # random bytes make the unpickler stumble in any way it can
        raise BadInput(_damaged(path, error)) from error


class _NumpyType:
    """Stands for `numpy.dtype` in the optimiser's part of a checkpoint, which nobody reads."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _harmless(module: str, name: str, stand_in: Any) -> Any:
    # Torch allows what is named so, whichever version of numpy wrote the file.
    stand_in.__module__, stand_in.__qualname__ = module, name
    return stand_in


def _number(module: str) -> Any:
    return _harmless(module, "scalar", lambda *arguments: 0.0)


_HARMLESS = [
    _number("numpy.core.multiarray"), _number("numpy._core.multiarray"),
    _harmless("numpy", "dtype", type("_NumpyType", (_NumpyType,), {})),
    _harmless("collections", "defaultdict", lambda *arguments: {}),
]  # fmt: skip


def _damaged(path: Path, error: BaseException) -> str:
    # torch begins with advice to load the file without its guard, which is the wrong advice here.
    lines = [line for line in str(error).split("\n") if line.strip() and "`weights_only`" not in line]
    reason = lines[0].strip()[:200] if lines else type(error).__name__
    return f"{path} is damaged or no checkpoint; download or copy it again ({reason})"


def _published_info(
    path: Path, config: NetworkConfig, epoch: int | None, translation: published_names.Translation
) -> CheckpointInfo:
    numbers = sum(tensor.numel() for tensor in translation.tensors.values())
    return CheckpointInfo(
        str(path), "published", config, Conventions(), FAMILIES[config.family].licence, numbers, epoch,
        translation.unused,
    )  # fmt: skip


def _assemble(config: NetworkConfig, tensors: Mapping[str, Tensor], path: Path | None = None) -> Network:
    """The network of a config with these very tensors as its weights, so that mapped ones are not copied."""
    model = _build(config, path, sketch_network)
    wanted = model.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = [name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape]
    problems = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("are missing", missing), ("are unknown", unknown), ("have another shape", sorted(wrong)))
        if names
    ]
    if problems:
        raise BadInput(f"{path}: the weights do not fit their config: {'; '.join(problems)}")
    model.load_state_dict({name: _at_least_single(tensor) for name, tensor in tensors.items()}, assign=True)
    return model.eval()


def _build(config: NetworkConfig, path: Path | None, build: Callable[[NetworkConfig], Network]) -> Network:
    try:
        return build(config)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: its settings make no network ({brief(str(error), 200)}); download it again") from error
