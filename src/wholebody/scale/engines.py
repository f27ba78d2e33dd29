"""Engines by name; each is imported when it is asked for."""

from __future__ import annotations

from wholebody.scale.worker import Engine


def engine(name: str) -> Engine:
    if name == "local":
        from wholebody.scale.local import run as local

        return local
    if name == "slurm":
        from wholebody.scale.slurm import run as slurm

        return slurm
    from wholebody.scale.ray import run as ray

    return ray
