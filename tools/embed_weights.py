"""Make the weights of a run the embedded ones: `python tools/embed_weights.py output/t/model.safetensors`.

They are kept in half precision (computed with in single), with where they came from in the metadata.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from wholebody.model import checkpoint
from wholebody.model.load import EMBEDDED, WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="model.safetensors of a run")
    parser.add_argument("--recipe", default="t")
    options = parser.parse_args()
    model, info = checkpoint.load(options.run)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    for name, value in half.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise SystemExit(f"{name} does not fit into half precision")
    extra = {"recipe": options.recipe, "trained_on": "synthetic people of the open body only", **info.extra}
    target = WEIGHTS / EMBEDDED["t"]
    checkpoint.save(model, target, info.conventions, "Apache-2.0", extra, tensors=half)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
