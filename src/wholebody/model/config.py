"""What a network is made of, as frozen values, and those values as plain dictionaries for a checkpoint."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wholebody.errors import BadInput
from wholebody.files.text import brief
from wholebody.geometry.camera import VirtualCamera
from wholebody.model.decoder import DecoderConfig
from wholebody.model.encoder import ViTConfig
from wholebody.model.roi import DeconvolutionPyramidConfig

Config = TypeVar("Config")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """What every network of the family says of itself."""

    name: str = field(kw_only=False)  # its size
    family: str = "osx"  # one of `families.FAMILIES`
    box_enlarge: float = 1.25  # a person's box, made 3:4, is enlarged by this about its centre before it is cropped
    crop_filter: str = "published"  # how its crops are sampled: "published" (bilinear) or "area" (without aliasing)
    input_hw: tuple[int, int] = (512, 384)  # pixels of the crop; all boxes are in these
    grid: tuple[int, int, int] = (16, 16, 12)  # depth, rows, columns of the body's position volumes: "cells"
    camera: VirtualCamera = VirtualCamera()

    @property
    def variant(self) -> str:
        """The published code's name for what is left out of the network; "normal": nothing."""
        return "normal"


def box_enlargement(config: NetworkConfig, wanted: float | None) -> float:
    """How much people's boxes are enlarged for a network: as its user wants, else as it was trained."""
    enlargement = config.box_enlarge if wanted is None else wanted
    if not 0.1 <= enlargement <= 10:
        raise BadInput(f"The box scale is {enlargement}; it must lie between 0.1 and 10 (1.25: a quarter more).")
    return enlargement


@dataclass(frozen=True)
class PartConfig:
    """Hands or face: where their features come from, how they are cropped, and the decoder if there is one."""

    depth: int  # cells of the position volumes; rows and columns are the side of the crop that positions are read from
    box_scale: float  # of the square crop around the predicted box
    decoder: DecoderConfig | None = DecoderConfig()
    pyramid: DeconvolutionPyramidConfig = DeconvolutionPyramidConfig()
    crops: tuple[int, ...] = (32, 16, 8)  # side of the crop on each level of the pyramid, fine to coarse
    position_level: int = 1  # of the crop that positions are read from


HANDS = PartConfig(depth=16, box_scale=2.0)
HANDS_WITHOUT_DECODER = PartConfig(
    depth=16, box_scale=2.0, decoder=None, pyramid=DeconvolutionPyramidConfig((4,)), crops=(16,), position_level=0
)
FACE = PartConfig(depth=8, box_scale=1.5, crops=(16, 8, 4))


@dataclass(frozen=True)
class OSXConfig(NetworkConfig):
    """The component-aware whole-body network. The defaults are the published size `b` with both decoders.

    `hands.decoder = None` and `face = None` are the published variants without them: hand rotations then come straight
    from the features at the joints, expression and jaw from their tokens.
    """

    name: str = "b"
    encoder: ViTConfig = ViTConfig()
    hands: PartConfig = HANDS
    face: PartConfig | None = FACE
    hidden: int = 512  # of the linear heads
    box_channels: tuple[int, ...] = (256, 256, 256)

    @property
    def variant(self) -> str:
        """`normal`, `wo_face_decoder` or `wo_decoder`, as the published code calls them."""
        if self.hands.decoder is None:
            return "wo_decoder"
        return "normal" if self.face is not None else "wo_face_decoder"


# A stranger's file may not ask for a network that fills the memory or takes hours to build.
_MOST, _MOST_ENTRIES, _MOST_DEEP = 16_384, 64, 128
_DEEP = ("depth", "layers", "blocks", "hand_blocks", "heads")

ENCODERS = {
    "s": ViTConfig(width=384, drop_path=0.1),
    "b": ViTConfig(),
    "l": ViTConfig(width=1024, depth=24, heads=16, drop_path=0.5),
    "h": ViTConfig(width=1280, depth=32, heads=16, drop_path=0.55),
}
"""The encoders of the published sizes. Their heads follow no rule of the width."""


def smpler_x_config(size: str) -> OSXConfig:
    """The published SMPLer-X of size `s`, `b`, `l` or `h`: OSX without decoders, trained on tighter boxes."""
    if size not in ENCODERS:
        raise BadInput(f"no SMPLer-X of size {size!r}; sizes: {', '.join(ENCODERS)}")
    return OSXConfig(
        size,
        family="smpler_x",
        box_enlarge=1.2,
        encoder=ENCODERS[size],
        hands=HANDS_WITHOUT_DECODER,
        face=None,
    )


def published_config(size: str, variant: str = "normal") -> OSXConfig:
    """The published OSX of size `b` or `l`, in the variant `normal`, `wo_face_decoder` or `wo_decoder`."""
    encoders = {size: ENCODERS[size] for size in "bl"}
    parts = {"normal": (HANDS, FACE), "wo_face_decoder": (HANDS, None), "wo_decoder": (HANDS_WITHOUT_DECODER, None)}
    if size not in encoders or variant not in parts:
        raise BadInput(f"no published network {size!r}, {variant!r}; sizes: b, l; variants: {', '.join(parts)}")
    hands, face = parts[variant]
    return OSXConfig(name=size, encoder=encoders[size], hands=hands, face=face)


def config_to_dict(config: Any) -> dict[str, Any]:
    """A config as plain dictionaries, lists, numbers and strings."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def parse_config(cls: type[Config], data: dict[str, Any]) -> Config:
    """Inverse of `config_to_dict`. An unknown or missing key is an error: it would change the network in silence."""
    return _parse(cls, data, "config")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _parse(cls: Any, data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise BadInput(f"{path} is {brief(data)}, not a table of settings")
    hints = typing.get_type_hints(cls)
    names = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - names):
        raise BadInput(f"{path} has settings that this version does not know: {', '.join(unknown)}")
    if missing := sorted(names - set(data)):
        raise BadInput(f"{path} lacks the settings {', '.join(missing)}")
    return cls(**{name: _value(hints[name], data[name], f"{path}.{name}") for name in names})


def _value(hint: Any, value: Any, path: str) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None and type(None) in typing.get_args(hint):
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if dataclasses.is_dataclass(hint):
        return _parse(hint, value, path)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise BadInput(f"{path} is {brief(value)}, not a list")
        if len(value) > _MOST_ENTRIES:
            raise BadInput(f"{path} has {len(value):,} entries; no network of this kind has more than {_MOST_ENTRIES}")
        options = typing.get_args(hint)
        if options and options[-1] is not ... and len(value) != len(options):
            raise BadInput(f"{path} has {len(value)} entries instead of {len(options)}")
        item = options[0] if options else Any
        return tuple(_value(item, entry, f"{path}[{i}]") for i, entry in enumerate(value))
    if hint in (int, float, str, bool):
        accepted = (int, float) if hint is float else (hint,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise BadInput(f"{path} is {brief(value)}, which is no {hint.__name__}")
        if hint in (int, float):
            most = _MOST_DEEP if path.rsplit(".", 1)[-1] in _DEEP else _MOST
            if not -most <= value <= most:  # also what is not finite
                raise BadInput(f"{path} is {brief(value)}; no network of this kind has more than {most:,}")
        return hint(value)
    return value
