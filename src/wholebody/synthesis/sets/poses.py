"""People without pictures: what learning to lift joints needs, thirty times as fast as drawing them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from wholebody.body.joints import FROM_144
from wholebody.body.open_body import COMPACT_PATH, read_compact
from wholebody.data.sample import axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.errors import BadInput, OutputError
from wholebody.files.npz import SafeNpz
from wholebody.files.options import record_options
from wholebody.synthesis import camera
from wholebody.synthesis.config import SynthesisConfig, material_used
from wholebody.synthesis.people.draw import HandSpace, Population, PoseLibrary, sample_people
from wholebody.synthesis.sets.layers import LayerSet, write_arrays

FILE = "poses.npz"
KEYS = ("full_pose", "betas", "expression", "joints_cam")
_BATCH = 256


def run(
    out: str | Path, count: int, seed: int = 0, config: SynthesisConfig | None = None,
    progress: Callable[[int], object] | None = None,
) -> Path:  # fmt: skip
    """Write the truth of `count` people to `out`/poses.npz, whole or not at all: `KEYS` as in `Sample`, stacked.

    The same config, count and seed give the same numbers. Joints are relative to the pelvis: nobody stands anywhere.
    """
    import torch

    from wholebody.body.layer import BodyModel

    if count < 1:
        raise BadInput(f"asked for {count} people: at least 1")
    target = Path(out) / FILE
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    asked = config or SynthesisConfig()
    config = asked.resolved()
    library = PoseLibrary.load(config.clips, config.split) if config.clips else None
    body = BodyModel.load(config.body, flat_hand_mean=True)
    hands = HandSpace.of(body.rest_joints.numpy().astype(np.float64))
    population = Population.of(read_compact(config.body or COMPACT_PATH))
    body = body.subset(np.arange(1))  # joints need no skin beyond their own
    stacked: dict[str, list[np.ndarray]] = {key: [] for key in KEYS}
    for first in range(0, count, _BATCH):
        rng = np.random.default_rng((seed, first // _BATCH, 17))
        people = sample_people(
            rng, _BATCH, library, hands, population, config.child_fraction, config.recombined_fraction,
            config.exercise_fraction,
        )  # fmt: skip
        rotations = axis_angle_to_matrix(people.full_pose)
        rotations[:, 0] = camera.sample_orientations(rng, _BATCH) @ rotations[:, 0]
        with torch.inference_mode():
            posed = body.from_matrices(
                torch.from_numpy(rotations).float(), torch.from_numpy(people.betas), torch.from_numpy(people.expression)
            )
        joints = posed.joints.numpy()[:, FROM_144]
        pose = people.full_pose.copy()
        pose[:, 0] = matrix_to_axis_angle(rotations[:, 0])
        kept = min(_BATCH, count - first)
        for key, value in zip(KEYS, (pose, people.betas, people.expression, joints - joints[:, :1]), strict=True):
            stacked[key].append(value[:kept].astype(np.float32))
        if progress:
            progress(kept)
    write_arrays(target, np.savez, {key: np.concatenate(values) for key, values in stacked.items()})
    recipe = {"config": asdict(config), "seed": seed, "poses": count, "material": material_used(asked)}
    record_options(target.parent / "recipe.json", recipe)
    return target.parent


def read_people(folder: str | Path) -> dict[str, np.ndarray]:
    """`KEYS` of a folder that `run` wrote, or of the people of a set of layers."""
    path = Path(folder) / FILE
    if not path.exists():
        truth = LayerSet(folder).samples()
        return {key: truth[key] for key in KEYS}
    with SafeNpz(path) as file:
        if missing := [key for key in KEYS if key not in file]:
            raise BadInput(f"{path} is no set of poses: it lacks {', '.join(missing)}; write it again")
        shapes = ((None, 55, 3), (None, 10), (None, 10), (None, None, 3))
        people = {key: file.array(key, *shape) for key, shape in zip(KEYS, shapes, strict=True)}
    if len({len(rows) for rows in people.values()}) != 1:
        raise BadInput(f"{path}: its arrays are of different lengths; write it again")
    return people
