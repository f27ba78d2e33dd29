"""What the tests of data share: people posed with the embedded body, which loads in a second."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def open_body():
    from wholebody.body.layer import BodyModel

    return BodyModel.load()


@pytest.fixture(scope="session")
def people(open_body):
    """Six people: the first wholly known, of the others see `forge.people.DIRT`."""
    from data.forge.people import make_people

    return make_people(open_body)
