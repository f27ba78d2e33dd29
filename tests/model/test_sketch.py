"""A network whose parameters are still to come is built without drawing any, whatever lies in its memory."""

import torch
from torch import nn

from wholebody.model import encoder, families


def test_nothing_is_drawn_until_it_fits():
    """What new memory holds by chance may lie far outside what initialising would draw."""
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.fill_(1e9)
    with families._Unfilled():
        encoder._initialise(layer)
    assert (layer.weight == 1e9).all()


def test_without_a_sketch_weights_are_drawn():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    encoder._initialise(layer)
    assert 0.015 < float(layer.weight.detach().std()) < 0.025 and not layer.bias.any()
