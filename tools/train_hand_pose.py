"""Train the network from a hand's 21 points to its joints' rotations, on hand poses alone (no pictures).

    python tools/train_hand_pose.py --minutes 8 [--residuals hands.npz]

Poses: gestures, grasps and random ones within natural limits (`wholebody.synthesis.people.hands`), on the open body's
hands of people of all shapes. Points get the errors of the hand landmarker: those that `tools/measure_hands.py` saw on
synthetic people of the training split (`--residuals`), or Gaussian ones of 5 mm, 10 mm in depth.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wholebody.body.layer import BodyModel
from wholebody.body.open_body import read_compact
from wholebody.geometry.rotation import axis_angle_to_matrix, rotation_6d_to_matrix
from wholebody.model.embedded.hand_pose import FILE, PALM, HandPose, lay_on_palm, pose_points, rest_hands
from wholebody.synthesis.people.hands import HandSpace

TARGET = Path(__file__).resolve().parent.parent / "src/wholebody/weights" / FILE


def random_rotations(count: int, generator: torch.Generator) -> Tensor:
    quaternion = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    w, x, y, z = quaternion.unbind(1)
    return torch.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
         2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
         2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1,
    ).reshape(-1, 3, 3)  # fmt: skip


class Hands:
    """Left hands by the batch: points as the landmarker would give them, and their rotations."""

    def __init__(self, residuals: str | None) -> None:
        body = BodyModel.load("open", flat_hand_mean=True)
        compact = read_compact()
        betas = torch.from_numpy(compact["people_betas"].astype(np.float32))
        self.shapes = rest_hands(body, betas).float()
        self.mean = rest_hands(body, torch.zeros(1, 10))[0].float()
        still = torch.eye(3).expand(1, 55, 3, 3)
        joints = body.from_matrices(still, torch.zeros(1, 10), torch.zeros(1, 10)).joints[0, :55]
        self.space = HandSpace.of(joints.numpy())
        self.residuals = None
        if residuals:
            with np.load(residuals) as file:
                self.residuals = torch.from_numpy(file["residuals"]).float()
                self.bias = torch.from_numpy(file["bias"]).float()

    def sample(self, count: int, rng: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, ...]:
        pose = self.space.sample(rng, count)
        wild = rng.random(count) < 0.25
        pose[wild] = self.space.pose(rng.uniform(-0.3, 1.2, (int(wild.sum()), 17)))
        rotations = axis_angle_to_matrix(torch.from_numpy(pose).float())
        rest = self.shapes[torch.randint(len(self.shapes), (count,), generator=generator)]
        points = pose_points(rotations, rest)
        size = points[:, PALM[1:]].norm(dim=2).mean(1)[:, None, None]
        turn = random_rotations(count, generator)
        if self.residuals is None:
            seen = points @ turn.mT
            noise = torch.randn(count, 21, 3, generator=generator) * torch.tensor([0.05, 0.05, 0.1])
            common = torch.randn(count, 1, 1, generator=generator).mul(0.4).exp()
            seen = seen + noise * size * common
        else:  # real errors of some hand: as they are in the camera's axes, turned about the line of sight
            seen = (points + self.bias * size) @ turn.mT
            chosen = self.residuals[torch.randint(len(self.residuals), (count,), generator=generator)]
            angle = 2 * torch.pi * torch.rand(count, generator=generator)
            cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
            about = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], 1).reshape(-1, 3, 3)
            amount = torch.rand(count, 1, 1, generator=generator) * 1.2 + 0.2
            seen = seen + (chosen @ about.mT * amount + 0.01 * torch.randn(count, 21, 3, generator=generator)) * size
        return seen, turn, rotations, rest


def losses(network: HandPose, seen: Tensor, turn: Tensor, rotations: Tensor, rest: Tensor) -> tuple[Tensor, ...]:
    placed, palm = lay_on_palm(seen, network.rest)
    answer = rotation_6d_to_matrix(network.network(placed))
    off, fingers = answer[:, 0], answer[:, 1:]
    true_off = palm.mT @ turn
    angles = (fingers - rotations).square().sum((-2, -1)).mean()
    palms = (off - true_off).square().sum((-2, -1)).mean()
    where = pose_points(fingers, rest)
    points = (where - pose_points(rotations, rest)).norm(dim=2).mean()
    return angles, palms, points


def main() -> None:
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--residuals")
    parser.add_argument("--batch", type=int, default=512)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    hands, network = Hands(arguments.residuals), HandPose()
    network.rest.copy_(hands.mean)
    rng, generator = np.random.default_rng(1), torch.Generator().manual_seed(1)
    test = hands.sample(4000, np.random.default_rng(2), torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.5e-3, weight_decay=0.01)
    start, step = time.time(), 0
    while (done := (time.time() - start) / 60 / arguments.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * min(1, step / 100) * (0.5 + 0.5 * np.cos(np.pi * done)) + 1e-6
        angles, palms, points = losses(network, *hands.sample(arguments.batch, rng, generator))
        optimizer.zero_grad()
        (angles + palms + 20 * points).backward()
        optimizer.step()
        if step % 500 == 0:
            with torch.no_grad():
                angles, palms, points = losses(network, *test)
                constant = pose_points(test[2].mean(0, keepdim=True).expand_as(test[2]), test[3])
                base = (constant - pose_points(test[2], test[3])).norm(dim=2).mean()
            print(f"{step:6d}: joints {angles:.4f}, palm {palms:.4f}, points {1000 * points:.2f} mm "
                  f"(mean pose {1000 * base:.2f})", flush=True)  # fmt: skip
        step += 1
    state = {
        name: value.detach().half() if "rest" not in name else value for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, TARGET,
              metadata={"license": "Apache-2.0", "trained_on": "hand poses of wholebody.synthesis"})  # fmt: skip
    print(f"{step} steps of {arguments.batch}; {TARGET.name}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
