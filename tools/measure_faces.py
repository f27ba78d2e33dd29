"""How far heads, jaws and expressions read by the face landmarker lie from the truth of synthetic people.

    python tools/measure_faces.py LAYERS --out faces.npz      # layers drawn large: faces of 50 pixels and more

Expressions are compared as faces: mean distance of the face's vertices, head and shape being the same, beside that of
the mean expression. `--out` keeps blendshapes and truth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.measure_landmarks import photo
from wholebody.body.joints import COCO_FACE, COCO_WHOLEBODY_FROM_137, SMPLX_JOINTS
from wholebody.body.kinematics import BODY_TREE
from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.embedded.face_landmarks import FaceDetector, FaceLandmarks, region_of_found
from wholebody.model.embedded.face_pose import expression_of, head_rotation
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.sets.layers import LayerSet

ROWS = list(COCO_WHOLEBODY_FROM_137[COCO_FACE])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layers, bank = LayerSet(arguments.layers), BackgroundBank(None, None, seed=0)
    detector, landmarks = FaceDetector(), FaceLandmarks()
    kept: dict[str, list] = {}
    wanted = 0
    for number in range(min(arguments.count, len(layers))):
        picture, sample = photo(layers.get(number), bank, np.random.default_rng((9, number)))
        true = sample.joints_px[ROWS]
        low, high = true.min(0), true.max(0)
        if (high - low).max() < 50 or sample.joint_visible[ROWS[17:]].mean() < 0.7:
            continue
        wanted += 1
        side = 3 * (high - low).max()
        found = detector(picture, np.array([*((low + high) / 2), side, 0.0]))
        if not len(found):
            continue
        look = landmarks(picture, region_of_found(found, 0))
        look = landmarks(picture, look.next_region)
        pose = axis_angle_to_matrix(torch.from_numpy(sample.full_pose).float())[None]
        turns = BODY_TREE.pose(pose, torch.zeros(1, 55, 3))[0][0].numpy()
        values = {
            "score": look.score, "px": look.ibug_px, "depth": look.depth_px,
            "mesh": look.points_px, "true_px": true, "head": head_rotation(look),
            "true_head": turns[SMPLX_JOINTS.index("head")], "blendshapes": landmarks.blendshapes(look),
            "expression": sample.expression, "jaw": sample.full_pose[SMPLX_JOINTS.index("jaw")],
        }  # fmt: skip
        for name, value in values.items():
            kept.setdefault(name, []).append(value)
    table = {name: np.array(value) for name, value in kept.items()}
    print(f"{len(table['score'])} of {wanted} faces found")
    if arguments.out:
        np.savez_compressed(arguments.out, **table)  # type: ignore[arg-type]
    report(table)


def report(found: dict[str, np.ndarray]) -> None:
    corners = np.linalg.norm(found["true_px"][:, 17 + 19] - found["true_px"][:, 17 + 28], axis=1)
    error = np.linalg.norm(found["px"] - found["true_px"], axis=2)[:, 17:].mean(1) / corners
    print(f"inner points / distance of the outer eye corners: median {np.median(error):.3f}")
    cos = (np.einsum("nij,nij->n", found["head"], found["true_head"]) - 1) / 2
    print(f"head's rotation: median {np.degrees(np.median(np.arccos(cos.clip(-1, 1)))):.1f} degrees")
    expression, jaw = expression_of(found["blendshapes"])
    print("expression:", face_error(expression, jaw, found))


def face_error(expression: np.ndarray, jaw: np.ndarray, found: dict[str, np.ndarray]) -> str:
    body = BodyModel.load("open", flat_hand_mean=True)

    def faces(expression, jaw):
        rotations = torch.eye(3).repeat(len(jaw), 55, 1, 1)
        rotations[:, SMPLX_JOINTS.index("jaw")] = axis_angle_to_matrix(torch.from_numpy(jaw).float())
        with torch.no_grad():
            return torch.cat([
                body.from_matrices(r, torch.zeros(len(r), 10), torch.from_numpy(e).float()).joints[:, 76:127]
                for r, e in zip(rotations.split(32), np.split(expression, range(32, len(expression), 32)), strict=True)
            ])  # fmt: skip

    true = faces(found["expression"], found["jaw"])
    mean = faces(np.tile(found["expression"].mean(0), (len(jaw), 1)), np.tile(found["jaw"].mean(0), (len(jaw), 1)))
    ours = faces(expression, jaw)
    ours, mean = ((1000 * (x - true).norm(dim=2).mean()).item() for x in (ours, mean))
    turn = np.degrees(np.abs(jaw[:, 0] - found["jaw"][:, 0]).mean())
    constant = np.degrees(np.abs(found["jaw"][:, 0] - np.median(found["jaw"][:, 0])).mean())
    return f"{ours:.2f} mm over 51 landmarks (mean face {mean:.2f}); jaw {turn:.1f} degrees (constant {constant:.1f})"


if __name__ == "__main__":
    main()
