"""How far the hand landmarker's points lie from the truth of synthetic people, and what becomes of them.

    python tools/measure_hands.py LAYERS --out hands.npz      # layers drawn large: hands of 35 pixels and more

`--out` gets the errors in 3D that `tools/train_hand_pose.py --residuals` trains with: `bias`, the mean error (21, 3) in
the palm's frame, and `residuals` (N, 21, 3), what is left of it in the camera's axes, in units of the palm's length
(mean distance from wrist to knuckles). Every fifth hand is left out of it and judges.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.measure_landmarks import photo
from wholebody.body.joints import COCO_HANDS, COCO_WHOLEBODY_FROM_137, LEFT_HAND_JOINTS, RIGHT_HAND_JOINTS, SMPLX_JOINTS
from wholebody.body.kinematics import BODY_TREE
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.embedded.hand_landmarks import HandLandmarks, region_of_points
from wholebody.model.embedded.hand_pose import PALM, load_hand_pose
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.sets.layers import LayerSet

ROWS = [np.array(COCO_WHOLEBODY_FROM_137)[part] for part in COCO_HANDS]


def palm_length(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[..., PALM[1:], :] - points[..., :1, :], axis=-1).mean(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layers, bank, network = LayerSet(arguments.layers), BackgroundBank(None, None, seed=0), HandLandmarks()
    kept: dict[str, list] = {
        name: [] for name in ("seen", "true", "palm", "left", "rotations", "px", "true_px", "right")
    }
    for number in range(min(arguments.count, len(layers))):
        picture, sample = photo(layers.get(number), bank, np.random.default_rng((8, number)))
        pose = axis_angle_to_matrix(torch.from_numpy(sample.full_pose).float())[None]
        turns = BODY_TREE.pose(pose, torch.zeros(1, 55, 3))[0][0].numpy()
        for side, rows in enumerate(ROWS):
            points = sample.joints_px[rows]
            size = np.ptp(points, axis=0).max()
            if size < 35 or sample.joint_visible[rows].mean() < 0.7:
                continue
            look = network(picture, region_of_points(points))
            if look.score < 0.5:
                continue
            again = network(picture, look.next_region)
            names = (LEFT_HAND_JOINTS, RIGHT_HAND_JOINTS)[side]
            kept["seen"].append(again.points_m)
            kept["true"].append(sample.joints_cam[rows])
            kept["palm"].append(turns[SMPLX_JOINTS.index(("left_wrist", "right_wrist")[side])])
            kept["left"].append(side == 0)
            kept["rotations"].append(pose[0, [SMPLX_JOINTS.index(name) for name in names]].numpy())
            kept["px"].append(again.points_px)
            kept["true_px"].append(points)
            kept["right"].append(again.right)
    found = {name: np.array(value) for name, value in kept.items()}
    size = np.ptp(found["true_px"], axis=1).max(1)
    error = np.linalg.norm(found["px"] - found["true_px"], axis=2).mean(1) / size
    handed = (found["right"] > 0.5) != found["left"]
    print(f"{len(size)} hands of {size.min():.0f}-{size.max():.0f} px: 2D error / size median {np.median(error):.3f}, "
          f"90 % {np.quantile(error, 0.9):.3f}; handedness right {np.mean(handed):.3f}")  # fmt: skip
    # A hand taken for the other one comes out mirrored in depth; whoever uses the points in space drops it.
    good = (error < 0.3) & handed
    found = {name: value[good] for name, value in found.items()}
    mirror = np.where(found["left"][:, None, None], 1.0, np.array([-1.0, 1.0, 1.0]))  # all as left hands
    seen = (found["seen"] - found["seen"][:, :1]) * mirror
    true = (found["true"] - found["true"][:, :1]) * mirror
    palm = mirror.transpose(0, 2, 1) * found["palm"] * mirror
    seen = seen / palm_length(seen)[:, None, None]
    true = true / palm_length(true)[:, None, None]
    error = seen - true
    in_palm = np.einsum("npi,nij->npj", error, palm)
    print(
        "spread in camera axes, palm lengths", error.std((0, 1)).round(3), "in the palm's", in_palm.std((0, 1)).round(3)
    )
    if arguments.out:
        train = np.arange(len(error)) % 5 != 0
        bias = in_palm[train].mean(0)
        residuals = error[train] - np.einsum("pi,nji->npj", bias, palm[train])
        np.savez_compressed(arguments.out, bias=bias, residuals=residuals, train=train,
                            **{name: value for name, value in found.items()})  # type: ignore[arg-type]  # fmt: skip
    judge(found, np.arange(len(error)) % 5 == 0)


def judge(found: dict[str, np.ndarray], rows: np.ndarray) -> None:
    network = load_hand_pose()
    palm, fingers = network(torch.from_numpy(found["seen"]).float(), torch.from_numpy(found["left"]))

    def degrees(one, other):
        cos = (np.einsum("...ij,...ij->...", one, other) - 1) / 2
        return np.degrees(np.arccos(cos.clip(-1, 1)))

    left = found["left"]
    still = np.where(left[:, None, None, None], found["rotations"][left].mean(0), found["rotations"][~left].mean(0))
    u, _, vt = np.linalg.svd(still)
    for name, which in (("held out", rows), ("all", rows | True)):
        off = degrees(palm.numpy(), found["palm"])[which]
        print(f"{name}: palm off by {np.median(off):.1f} degrees (90 % {np.quantile(off, 0.9):.1f}); joints "
              f"{degrees(fingers.numpy(), found['rotations'])[which].mean():.1f} degrees, mean pose "
              f"{degrees(u @ vt, found['rotations'])[which].mean():.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
