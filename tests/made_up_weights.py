"""The oracle's made-up weights in a network of any size: larger than new ones, so that parts act on one another."""

from __future__ import annotations

from typing import Any

import torch

from wholebody.model.network import Network
from wholebody.model.published_names import to_ours, to_published


def fill_network(network: Network, fill: dict[str, Any]) -> None:
    """Give every tensor the value that the oracle's code gives one of its published name. fill: the fixture."""
    state = network.state_dict()
    published = to_published(state, network.config.variant)
    made_up = {name: fill["value"](name, tuple(value.shape)) for name, value in published.items()}
    published |= {name: torch.from_numpy(value) for name, value in made_up.items() if value is not None}
    network.load_state_dict(state | to_ours(published, state, network.config.variant).tensors)
