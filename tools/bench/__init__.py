"""Timed claims, side by side with the published way in the same run: `python -m tools.bench` (`make bench`)."""
