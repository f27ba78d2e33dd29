"""What the tests of fitting share; plain helpers are in conftest_fitting.py."""

from conftest_fitting import body, standing  # noqa: F401
