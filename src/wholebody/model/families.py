"""The families of networks that this package reads, builds and trains: what each one's config and builder are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.overrides import TorchFunctionMode

from wholebody.errors import BadInput
from wholebody.files.text import brief
from wholebody.model.config import NetworkConfig, OSXConfig, parse_config
from wholebody.model.embedded.build import build_embedded, build_sighted
from wholebody.model.embedded.config import EmbeddedConfig, SightedConfig
from wholebody.model.network import Network
from wholebody.model.older import current_config
from wholebody.model.osx import build_osx


@dataclass(frozen=True)
class Family:
    """What the networks of a family have in common."""

    config: type[NetworkConfig]
    build: Callable[[Any], Network]  # from a config of that class to a network without a body


FAMILIES = {
    "osx": Family(OSXConfig, build_osx),
    "embedded": Family(EmbeddedConfig, build_embedded),  # the first five embedded weights, and what came of these
    "sighted": Family(SightedConfig, build_sighted),
}


def build_network(config: NetworkConfig) -> Network:
    """The network of a config, without a body."""
    return FAMILIES[config.family].build(config)


def sketch_network(config: NetworkConfig) -> Network:
    """The same, with parameters that are still to be assigned: what is in them means nothing.

    Their memory is asked for and not written to, so that it costs none. (PyTorch's "meta" device would do, but imports
    PyTorch's compiler, for seconds.)
    """
    with _Unfilled():
        return build_network(config)


class _Unfilled(TorchFunctionMode):
    """Draws no numbers for parameters."""

    _DRAWING = frozenset(("normal_", "uniform_", "kaiming_uniform_"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self._DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def config_from_dict(data: dict[str, Any]) -> NetworkConfig:
    """Inverse of `config_to_dict`, of every version of this package.

    An unknown or missing key is an error: it would change the network in silence.
    """
    data = current_config(data)
    family = data.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise BadInput(f"config.family is {brief(family)}; this version knows {', '.join(FAMILIES)}")
    return parse_config(FAMILIES[family].config, data)
