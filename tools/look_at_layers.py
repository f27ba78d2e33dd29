"""What MoveNet Thunder finds of drawn people, for `tools/train_lifting.py --sightings`.

    wholebody synth --layers --count 8192 --seed 51 --recombine 0.25 --out output/synth/layers
    python tools/look_at_layers.py output/synth/layers --count 24000 --out output/sightings.npz

Each look is another crop of a layer: frame, background, light, what hides it. Prints how far off limbs are by score.
One thread; what a stopped run has looked at (`--out`, written every minute) is kept by the next.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137
from wholebody.data.augment import CROP_HW, AugmentConfig
from wholebody.files.npz import SafeNpz
from wholebody.model.embedded.thunder import Thunder, load_thunder
from wholebody.synthesis.sets.crops import CropDataConfig, TrainingCrops
from wholebody.training.own import sightings

BODY = list(COCO_WHOLEBODY_FROM_137[:17])
FRAMES = AugmentConfig(
    scale=0.15, shift=0.05, closeup_probability=0.05, occlude_probability=0.15, person_occlude_probability=0.08
)
"""Crops as of a detector's boxes; layers are upper bodies in part."""


def look(data: TrainingCrops, thunder: Thunder, numbers: range) -> dict[str, np.ndarray]:
    """The arrays of `sightings.KEYS`, in pixels of `CROP_HW`."""
    samples = [data[number] for number in numbers]
    images = torch.from_numpy(np.stack([sample["image"] for sample in samples])).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        found = thunder(images).numpy()
    return {
        "true": np.stack([sample["joints_crop"][BODY] for sample in samples]),
        "depth": np.stack([sample["joints_cam"][BODY, 2] for sample in samples]),
        "found": found * np.array([CROP_HW[1], CROP_HW[0], 1], np.float32),
        "inside": np.stack([sample["joint_inside"][BODY] > 0 for sample in samples]),
    }


def report(looks: dict[str, np.ndarray]) -> str:
    """Errors over the spread of the limbs' joints."""
    true, found, inside = (looks[name][:, 5:] for name in ("true", "found", "inside"))
    spread = np.sqrt(np.square(true - true.mean(1, keepdims=True)).sum(2).mean(1))[:, None]
    error, score = np.linalg.norm(found[..., :2] - true, axis=2) / spread, found[..., 2]
    parts = [f"{len(true)} people"]
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1)):
        here = inside & (score >= low) & (score < high)
        if here.any():
            quarters = " ".join(f"{x:.3f}" for x in np.quantile(error[here], [0.25, 0.5, 0.75, 0.9]))
            parts.append(f"  score {low} to {high}: {here.sum() / inside.sum():.3f} of all, error {quarters}")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers")
    parser.add_argument("--count", type=int, default=24000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hdri", help="folder of environment maps for backgrounds")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = TrainingCrops(CropDataConfig(options.layers, options.hdri, augment=FRAMES), options.seed, options.count)
    thunder = load_thunder()
    looks: list[dict[str, np.ndarray]] = []
    if options.out.exists():
        with SafeNpz(options.out) as file:
            looks = [{name: file[name] for name in sightings.KEYS}]
    done = len(looks[0]["true"]) if looks else 0
    saved_at = time.monotonic()
    while done < options.count:
        looks.append(look(data, thunder, range(done, min(done + 32, options.count))))
        done += len(looks[-1]["true"])
        if time.monotonic() - saved_at > 60 or done >= options.count:
            saved_at = time.monotonic()
            looks = [{name: np.concatenate([part[name] for part in looks]) for name in sightings.KEYS}]
            sightings.write(options.out, looks[0])
            print(done, flush=True)
    print(report({name: np.concatenate([part[name] for part in looks]) for name in sightings.KEYS}))


if __name__ == "__main__":
    main()
