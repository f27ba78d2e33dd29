"""A few drawn people that the tests of data, training and evaluation share."""

from __future__ import annotations

from pathlib import Path

import pytest


def make_layers(folder: Path, count: int = 12) -> Path:
    """Layers that need nothing beside the project: procedural poses, made-up light."""
    from wholebody.synthesis import SynthesisConfig, run
    from wholebody.synthesis.config import VARIABLES

    with pytest.MonkeyPatch.context() as patch:
        for variable in VARIABLES:
            patch.delenv(variable, raising=False)
        return run(folder / "layers", count, seed=5, workers=1, config=SynthesisConfig(), layers=True)
