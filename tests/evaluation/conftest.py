import pytest


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """A report has intervals of hundreds of means: a tenth of the usual resamples will do for each."""
    monkeypatch.setattr("wholebody.evaluation.result.RESAMPLES", 100)
