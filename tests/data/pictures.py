"""A small made-up set for the loader's tests: pictures whose content says where each joint is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from wholebody.data.sample import Sample, masked_sample

HW = (300, 400)


def make_people(count: int, per_picture: int = 2, seed: int = 0, dataset: str = "Own") -> list[Sample]:
    """People with random truth, `per_picture` in each picture; every third knows only its joints in the picture."""
    rng = np.random.default_rng(seed)
    people = []
    for number in range(count):
        low = rng.uniform([10, 10], [200, 100])
        box = np.concatenate([low, low + rng.uniform([60, 120], [150, 180])])
        known = {
            "dataset": dataset,
            "image_path": f"images/{number // per_picture:05d}.jpg",
            "image_hw": HW,
            "joints_px": rng.uniform(box[:2], box[2:], (137, 2)),
            "joint_valid": rng.random(137) < 0.9,
            "gender": ("neutral", "male", "female")[number % 3],
        }
        if number % 3:
            known |= {
                "body": "smplx", "focal_px": np.array([900.0, 905.0]), "principal_px": np.array([200.0, 150.0]),
                "full_pose": rng.normal(0, 0.5, (55, 3)), "betas": rng.normal(0, 1, 10),
                "expression": rng.normal(0, 1, 10), "transl": np.array([0.1, 0.2, 4.0]),
                "joints_cam": rng.normal([0, 0, 4], 0.5, (137, 3)), "joint_cam_valid": None,
                "pose_valid": rng.random(55) < 0.9, "shape_valid": True, "expression_valid": bool(number % 2),
                "camera_valid": True, "flat_hand": False, "mesh_path": f"meshes/{number}.ply", "kid": 0.25,
                "extrinsic_rotation": np.linalg.qr(rng.normal(size=(3, 3)))[0] if number % 2 else None,
                "part_valid": np.array([True, False, True]), "left_hand_box": rng.uniform(0, 100, 4),
                "frame_xyxy": np.array([0, 0, 399, 299.0]) if number % 5 else None,
            }  # fmt: skip
        people.append(masked_sample(f"{dataset}_{number}", box, **known))
    return people


def write_pictures(root: Path, people: list[Sample], seed: int = 0) -> None:
    """Smooth colourful JPEGs under `root`, one for each `image_path`."""
    rng = np.random.default_rng(seed)
    for path in sorted({sample.image_path for sample in people}):
        target = root / str(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, HW[::-1], interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
