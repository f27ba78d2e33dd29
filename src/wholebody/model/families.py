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
from wholebody.model.smplest_x import SMPLestXConfig, build_smplest_x


@dataclass(frozen=True)
class Family:
    """What the networks of a family have in common."""

    title: str
    config: type[NetworkConfig]
    build: Callable[[Any], Network]  # from a config of that class to a network without a body
    licence: str = ""  # of the published weights
    citation: str = ""


_S_LAB = (
    "S-Lab License 1.0 (S-Lab, Nanyang Technological University): not for commercial use; copies keep the notice. The "
    "weights were trained on data sets, and for the SMPL-X body, whose own terms hold besides"
)
FAMILIES = {
    "osx": Family(
        "OSX",
        OSXConfig,
        build_osx,
        "as published with the OSX weights",
        "Lin et al.: One-Stage 3D Whole-Body Mesh Recovery with Component Aware Transformer, CVPR 2023",
    ),
    "smpler_x": Family(
        "SMPLer-X",
        OSXConfig,
        build_osx,
        _S_LAB,
        "Cai et al.: SMPLer-X: Scaling Up Expressive Human Pose and Shape Estimation, NeurIPS 2023, arXiv 2309.17448",
    ),
    "smplest_x": Family(
        "SMPLest-X",
        SMPLestXConfig,
        build_smplest_x,
        _S_LAB,
        "Yin et al.: SMPLest-X: Ultimate Scaling for Expressive Human Pose and Shape Estimation, arXiv 2501.09782",
    ),
    "embedded": Family("the embedded network", EmbeddedConfig, build_embedded),
    "sighted": Family("the embedded network, sighted", SightedConfig, build_sighted),
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
