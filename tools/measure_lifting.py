"""How much of the error is lifting? Train the MLP that lifts places to 3D alone, in several sizes, from poses.

    wholebody synth --poses --count 160000 --seed 11 --recombine 0.6 --out output/synth/poses
    wholebody synth --poses --count 4000 --seed 7 --split heldout --out output/synth/poses_heldout
    python tools/measure_lifting.py --widths 128 256 512 1024 --minutes 3

prints, as learning goes on, PA-MPVPE on held-out poses from places as the network finds them and from true ones. Sizes
take turns, so that a machine that other work shares treats them alike.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wholebody.body.joints import PARTS_137
from wholebody.body.kinematics import tree_rotations
from wholebody.body.layer import BodyModel
from wholebody.data.augment import CROP_HW
from wholebody.evaluation.metrics import pa_mpvpe_mm
from wholebody.geometry.rotation import rotation_6d_to_matrix
from wholebody.model.embedded.build import SMALL, build_embedded
from wholebody.model.osx import OSX
from wholebody.training.loop import parameter_groups
from wholebody.training.own.batch import body_losses
from wholebody.training.own.losses import LossWeights
from wholebody.training.own.poses import LiftingBatches


class Learner:
    """A body head of one size and what it has learnt so far."""

    def __init__(self, body: BodyModel, width: int, blocks: int, minutes: float) -> None:
        torch.manual_seed(0)
        lifting = replace(SMALL.lifting, width=width, blocks=blocks)
        self.model: OSX = build_embedded(replace(SMALL, lifting=lifting))
        self.lifter = self.model.body_head
        self.lifter.skeleton.measure(body)  # type: ignore[union-attr, operator]
        self.numbers = sum(p.numel() for name, p in self.lifter.named_parameters() if "evidence" not in name)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.lifter, 0.02, 1024), lr=1e-3)
        self.minutes, self.seconds, self.poses = minutes, 0.0, 0

    def learn(self, body: BodyModel, batch: dict[str, Tensor]) -> None:
        start = time.process_time()
        done = min(1.0, self.seconds / (60 * self.minutes))
        for group in self.optimizer.param_groups:
            group["lr"] = group["scale"] * (1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + np.cos(np.pi * done)))
        terms = body_losses(self.model, body, self.lifter.lift(batch["located"]), batch, LossWeights())  # type: ignore
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.lifter.parameters(), 1.0)
        self.optimizer.step()
        self.seconds += time.process_time() - start
        self.poses += len(batch["located"])


def true_places(batch: dict[str, Tensor]) -> Tensor:
    """As `LiftingBodyHead.lift` takes them: what a network would say that finds every joint and is sure."""
    part = PARTS_137["body"]
    inside = batch["joint_inside"][:, part]
    half = torch.tensor([CROP_HW[1] / 2, CROP_HW[0] / 2])
    places = (batch["joints_crop"][:, part] / half - 1).clamp(-1.2, 1.2)
    return torch.cat([places, torch.stack([0.01 + 0.98 * inside, 0.05 + 0.19 * inside], -1)], -1)


@torch.inference_mode()
def error(learner: Learner, body: BodyModel, batch: dict[str, Tensor], places: Tensor) -> float:
    """PA-MPVPE in mm; hands and jaw are the true ones."""
    body_6d, betas, _ = learner.lifter.lift(places)[-1]  # type: ignore[operator]
    rotations = torch.cat([rotation_6d_to_matrix(body_6d), batch["rotations"][:, 22:]], 1)
    found = body.from_matrices(tree_rotations(rotations), betas, batch["expression"]).vertices
    truth = body.from_matrices(tree_rotations(batch["rotations"]), batch["betas"], batch["expression"]).vertices
    return float(pa_mpvpe_mm(found, truth).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", default="output/synth/poses")
    parser.add_argument("--heldout", default="output/synth/poses_heldout")
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 256, 512, 1024])
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3, help="processor time of learning, for each size")
    options = parser.parse_args()
    body = BodyModel.load(flat_hand_mean=True)
    body = body.subset(np.unique(np.linspace(0, body.num_vertices - 1, 300).astype(int)))
    poses = LiftingBatches(options.poses, 0, CROP_HW)
    heldout = LiftingBatches(options.heldout, 1, CROP_HW).batch(0, 2000)
    places = true_places(heldout)
    learners = {width: Learner(body, width, options.blocks, options.minutes) for width in options.widths}
    print("width   M numbers       poses   from found places   from true places (mm)")
    step, shown = 0, dict.fromkeys(learners, 0.0)
    while waiting := [w for w, one in learners.items() if one.seconds < 60 * options.minutes]:
        batch = poses.batch(step, 256)
        step += 1
        for width in waiting:
            one = learners[width]
            one.learn(body, batch)
            if one.seconds - shown[width] >= 60 * options.minutes / 4 or one.seconds >= 60 * options.minutes:
                shown[width] = one.seconds
                found, exact = error(one, body, heldout, heldout["located"]), error(one, body, heldout, places)
                print(f"{width:5d}{one.numbers / 1e6:12.2f}{one.poses:12,}{found:20.1f}{exact:19.1f}", flush=True)


if __name__ == "__main__":
    main()
