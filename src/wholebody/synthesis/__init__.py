"""Synthesis: pictures of people of the open body, with exact truth.

`run` writes a set, `synthesize` yields samples, `read_set` reads a set back; `layers.LayerSet` and
`backgrounds.BackgroundBank` are what training composes its pictures from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wholebody.synthesis.config import SynthesisConfig
    from wholebody.synthesis.sets.generate import bench, read_set, run, synthesize

__all__ = ["SynthesisConfig", "bench", "read_set", "run", "synthesize"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: numba and torch take seconds to import.
    if name == "SynthesisConfig":
        from wholebody.synthesis.config import SynthesisConfig

        return SynthesisConfig
    if name in __all__:
        from wholebody.synthesis.sets import generate

        return getattr(generate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
