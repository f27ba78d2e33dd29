"""Make the weights of a run the embedded ones: `python tools/embed_weights.py output/t/model.safetensors`.

With `--lifter output/lifting/lifter.pt` (of `tools/train_lifting.py`) a lifter takes the place of what the network has;
`t` instead of a file is what is embedded now. They are kept in half precision (computed with in single), with where
they came from in the metadata.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from wholebody.model import checkpoint
from wholebody.model.embedded.build import build_sighted
from wholebody.model.embedded.sight import Sight, SightedEncoder
from wholebody.model.embedded.thunder import load_thunder_trunk
from wholebody.model.load import EMBEDDED, WEIGHTS, find_weights
from wholebody.model.network import Network
from wholebody.model.osx import OSX

_SIGHT = ("encoder.thunder.", "body_positions.")


def with_lifter(model: Network, lifter: Path) -> OSX:
    """The same network with Thunder and this lifter for the body."""
    new = build_sighted()
    own = model.state_dict()
    wanted = {name: value for name, value in new.state_dict().items() if not name.startswith(_SIGHT)}
    if missing := sorted(set(wanted) - set(own)):
        raise SystemExit(f"the network lacks {', '.join(missing[:5])}")
    new.load_state_dict({name: own[name] for name in wanted}, strict=False)
    assert isinstance(new.encoder, SightedEncoder) and isinstance(new.body_positions, Sight)
    load_thunder_trunk(new.encoder.thunder.trunk)
    new.body_positions.lifter.load_state_dict(torch.load(lifter, weights_only=True))
    return new.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="model.safetensors of a run, or t")
    parser.add_argument("--lifter", type=Path)
    parser.add_argument("--recipe", default="t_sight")
    parser.add_argument("--out", type=Path, default=WEIGHTS / EMBEDDED["t"])
    options = parser.parse_args()
    model, info = checkpoint.load(find_weights(options.run))
    if options.lifter is not None:
        model = with_lifter(model, options.lifter)
    half = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    for name, value in half.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise SystemExit(f"{name} does not fit into half precision")
    extra = {**info.extra, "recipe": options.recipe, "trained_on": "synthetic people of the open body only"}
    checkpoint.save(model, options.out, info.conventions, "Apache-2.0", extra, tensors=half)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
