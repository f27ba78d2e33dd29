"""Whether a network computes, or is being written down."""

from __future__ import annotations

import torch


def is_recorded() -> bool:
    """Whether calls are recorded into a graph (compiled, exported or traced): what depends on values, or is an operator
    of this machine's own, must not be in it."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
