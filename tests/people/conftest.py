"""The portrait and the detector that tests of people share."""

from pathlib import Path

import numpy as np
import pytest

from wholebody.files.image import read_image
from wholebody.people.movenet import MoveNet


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    return read_image(Path(__file__).parents[2] / "demo" / "astronaut.jpg")


@pytest.fixture(scope="session")
def movenet() -> MoveNet:
    return MoveNet()
