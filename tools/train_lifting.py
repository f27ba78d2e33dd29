"""Train the pose lifter of size `t` from poses alone, and measure it on held-out ones.

    wholebody synth --poses --count 60000 --seed 31 --out output/synth/poses_a
    wholebody synth --poses --count 100000 --seed 32 --recombine 0.6 --out output/synth/poses_b
    wholebody synth --poses --count 140000 --seed 33 --recombine 0.35 --out output/synth/poses_c
    wholebody synth --poses --count 120000 --seed 34 --recombine 0.3 --exercise 0.5 --out output/synth/poses_d
    wholebody synth --poses --count 2000 --seed 77 --split heldout --out output/synth/poses_heldout
    python tools/train_lifting.py --poses output/synth/poses_[a-d] --heldout output/synth/poses_heldout

With `--sightings` (of `tools/look_at_layers.py`) many people have the errors that Thunder made with drawn ones.

One thread; goes on from `--out` where it stopped. Prints PA-MPJPE over the twelve limb joints in mm: of the joints as
lifted and of the body that the rotations pose; from true places, with a third of them missing, from places with made-up
errors without and with a hint of depth; and the shape's error over the mean body's.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from wholebody.evaluation.metrics import rigid_align
from wholebody.model.embedded.pose_lifting import LIMBS, PoseLifter, PoseLifterConfig
from wholebody.training.own.places import PlaceBatches, measured_skeleton, place_losses
from wholebody.training.own.sightings import Sightings


def measure(lifter: PoseLifter, exact: PlaceBatches, rough: PlaceBatches, count: int) -> str:
    """One line of figures."""
    lifter = lifter.eval()  # a copy of what learns
    batch, axes = exact.batch(0, count, 0), exact.shape_axes
    gone = batch["places"].clone()
    generator = torch.Generator().manual_seed(5)
    gone[..., 2] *= torch.rand(gone.shape[:2], generator=generator) >= 1 / 3
    noisy = rough.batch(0, count, 0)
    blind = noisy | {"hint": torch.zeros_like(noisy["hint"])}
    parts = []
    for name, one in (("true", batch), ("third gone", batch | {"places": gone}), ("found", blind), ("hinted", noisy)):
        with torch.inference_mode():
            lifted = lifter(one["places"], one["hint"])
            unit = lifter.skeleton.size(one["betas"])[:, None, None]
            posed = lifter.posed(lifted)
        errors = [_pa(joints * unit, one["joints"] * unit) for joints in (lifted.joints, posed)]
        shape = ((lifted.betas - one["betas"]) @ axes).norm(dim=1).mean() / (
            (one["betas"] - rough.adults.mean(0)) @ axes
        ).norm(dim=1).mean()
        traces = (lifted.rotations.mT @ one["rotations"]).diagonal(dim1=-2, dim2=-1).sum(-1)
        turn = ((traces - 1) / 2).clamp(-1, 1).acos().rad2deg()
        turned = f"{turn[:, 0].mean():.0f} {turn[:, 1:].mean():.1f} deg"
        parts.append(f"{name} {errors[0]:.1f} {errors[1]:.1f} ({turned}, shape {shape:.2f})")
    return " | ".join(parts)


def _pa(found: Tensor, true: Tensor) -> float:
    found, true = found[:, LIMBS], true[:, LIMBS]
    return float((rigid_align(found, true) - true).norm(dim=-1).mean() * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", nargs="+", required=True)
    parser.add_argument("--heldout", required=True)
    parser.add_argument("--out", type=Path, default=Path("output/lifting"))
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=384)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights of another run to begin with")
    parser.add_argument("--sightings", type=Path, help="an .npz of tools/look_at_layers.py")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    data = PlaceBatches(
        options.poses, options.seed, sightings=Sightings(options.sightings) if options.sightings else None
    )
    exact, rough = PlaceBatches(options.heldout, 900, exact=True), PlaceBatches(options.heldout, 901)
    lifter = PoseLifter(PoseLifterConfig(width=options.width, blocks=options.blocks))
    lifter.skeleton = measured_skeleton()
    average = torch.optim.swa_utils.AveragedModel(lifter, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98))
    optimizer = torch.optim.AdamW(lifter.parameters(), lr=options.rate, weight_decay=0.01, fused=True)
    options.out.mkdir(parents=True, exist_ok=True)
    state, step = options.out / "last.pt", 0
    if options.start:
        lifter.load_state_dict(torch.load(options.start, weights_only=True))
        average.module.load_state_dict(lifter.state_dict())
    if state.exists():
        saved = torch.load(state, weights_only=True)
        step = saved["step"]
        lifter.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
    saved_at = shown_at = time.monotonic()
    sums: dict[str, float] = {}
    since = 0
    while step < options.steps:
        batch = data.batch(step, options.batch)
        done = step / options.steps
        rate = (
            options.rate
            * min(1, (step + 1) / 200)
            * (0.5 * (1 + torch.cos(torch.tensor(done * torch.pi)).item()) + 0.003)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        terms = place_losses(lifter, batch)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(lifter.parameters(), 1.0)
        optimizer.step()
        if step % 4 == 0:
            average.update_parameters(lifter)
        step += 1
        since += 1
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + float(term)
        now, last = time.monotonic(), step == options.steps
        if now - saved_at > 60 or last:
            saved_at = now
            part = options.out / "last.part"
            torch.save(
                {
                    "step": step,
                    "model": lifter.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
                part,
            )
            os.replace(part, state)
            torch.save(average.module.state_dict(), options.out / "lifter.pt")
        if now - shown_at > 300 or last:
            shown_at = now
            print(
                step,
                f"{step * options.batch / 1e6:.2f}M",
                " ".join(f"{k} {v / since:.3f}" for k, v in sums.items()),
                flush=True,
            )
            shown = measure(average.module, exact, rough, 2000 if last else 500)  # type: ignore[arg-type]
            print("   ", shown, flush=True)
            sums, since = {}, 0


if __name__ == "__main__":
    main()
