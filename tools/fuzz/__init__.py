"""Mutated files of every format that the package reads, against its readers. `python -m tools.fuzz MINUTES`."""
