"""What knowing a man from a woman is worth to the lifted shape, on poses alone.

    wholebody synth --poses --count 2000 --seed 77 --split heldout --out output/synth/poses_heldout
    python tools/measure_looks.py output/synth/poses_heldout

prints, from true places and from places with made-up errors: what a step of the lifted shape from women to men says of
the true one, among all and among people of one gender; and the error of the skin at rest over that of the mean body, as
lifted and when each body's gender is known (`Stature.with_looks`).
"""

from __future__ import annotations

import argparse

import torch

from wholebody import load_model
from wholebody.model.embedded.pose_lifting import PoseLifter
from wholebody.people.stature import Stature
from wholebody.training.own.places import PlaceBatches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("heldout")
    parser.add_argument("--count", type=int, default=2000)
    options = parser.parse_args()
    model = load_model("t")
    lifter = next(part for part in model.modules() if isinstance(part, PoseLifter))
    assert model.body is not None
    stature = Stature(model.body)
    exact, rough = PlaceBatches(options.heldout, 900, exact=True), PlaceBatches(options.heldout, 901)
    axes = exact.shape_axes
    for name, batches in (("true places", exact), ("found places", rough)):
        batch = batches.batch(0, options.count, 0)
        with torch.inference_mode():
            lifted = lifter(batch["places"], batch["hint"]).betas
        true = batch["betas"]
        place, said = ((betas - stature.between) @ stature.axis for betas in (true, lifted))
        male = (place > 0).float()  # right for all of the population
        slopes = [
            torch.linalg.lstsq(torch.stack([said, torch.ones_like(said), *known], 1), place[:, None]).solution[0, 0]
            for known in ([], [male])
        ]
        middle = ((true - batches.adults.mean(0)) @ axes).norm(dim=1).mean()
        errors = [((of - true) @ axes).norm(dim=1).mean() / middle for of in (lifted, stature.with_looks(lifted, male))]
        print(f"{name}: slope {slopes[0]:.2f}, of one gender {slopes[1]:.2f}; shape {errors[0]:.2f} -> {errors[1]:.2f}")


if __name__ == "__main__":
    main()
