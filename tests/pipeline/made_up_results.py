"""Files of a person as `predict` writes them, small and made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def photo(folder: Path, flat_hand: bool = True, body: str = "open", **changed: object) -> Path:
    """changed: arrays in place of these; None: left out."""
    rng = np.random.default_rng(0)
    conventions = {"format": "wholebody.person/1", "body": body, "gender": "neutral", "flat_hand_mean": flat_hand}
    arrays = {
        "global_orient": rng.normal(size=3), "body_pose": 0.2 * rng.normal(size=(21, 3)),
        "left_hand_pose": np.zeros((15, 3)), "right_hand_pose": np.zeros((15, 3)), "jaw_pose": np.zeros(3),
        "betas": rng.normal(size=10), "expression": np.zeros(10), "cam_trans": np.array([0.1, 0.2, 30.0]),
        "focal_px": np.array([5000.0, 5000.0]), "conventions": json.dumps(conventions),
    } | changed  # fmt: skip
    path = folder / "ski_person0.npz"
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return path


def film(folder: Path, frames: int = 5) -> Path:
    poses = 0.2 * np.random.default_rng(1).normal(size=(frames, 165))
    poses[:, 66:] = 0
    path = folder / "dance_person0.npz"
    np.savez(
        path, poses=poses, trans=np.zeros((frames, 3)), betas=np.ones(10), expression=np.zeros((frames, 10)),
        body="open", flat_hand_mean=True, mocap_frame_rate=30.0, frames=np.arange(frames), surface_model_type="smplx",
    )  # fmt: skip
    return path
