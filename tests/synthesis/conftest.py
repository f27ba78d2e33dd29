import pytest

from wholebody.synthesis.config import VARIABLES, SynthesisConfig


@pytest.fixture(scope="session")
def bare():
    """Settings that need nothing beside the project: procedural poses, made-up light."""
    patch = pytest.MonkeyPatch()
    for variable in VARIABLES:
        patch.delenv(variable, raising=False)
    yield SynthesisConfig(size_hw=(128, 96), margin=1.4)
    patch.undo()


@pytest.fixture(scope="session")
def studio(bare):
    from wholebody.synthesis.render import Studio

    return Studio(bare)


@pytest.fixture(scope="session")
def people(studio):
    return list(studio.people(seed=6, first=0, count=40))
