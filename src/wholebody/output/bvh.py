"""One person's motion as a Biovision hierarchy (`.bvh`): 55 joints, centimetres, degrees, y up, the root moving.

The axes are the world's (see `people.scene`), times 100. The root's offset is zero and its position channels say where
the pelvis is, so that readers which add the two and readers which do not agree. A joint's channels are rotations about
z, then x, then y of the axes so far (`R = Rz Rx Ry`). The rest pose is the T-pose. BVH knows one rate, no shape and no
expression: bones have the length of this person's shape, under the mean expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wholebody.body.joints import PARENTS
from wholebody.body.layer import BodyModel
from wholebody.body.skeletons import rig_names
from wholebody.files.whole import write_whole
from wholebody.output.rig import in_parts, local_frames, place
from wholebody.people.scene import Motion, Scene

_CM = 100.0
_STUB = 0.6  # a last bone's end, in lengths of the bone before it


def write_bvh(path: Path, motion: Motion, scene: Scene, body: BodyModel, *, rig: str = "smplx") -> Path:
    """Write one person, first to last frame, at the scene's rate; a photo is one frame at 30 a second.

    rig: whose names the joints have, see `body.skeletons.RIGS`.
    """
    bones = np.zeros((len(PARENTS), 3))
    for _, part in in_parts(motion):
        bones += local_frames(place(part, scene, body))[1].sum(0) * _CM / len(motion.frames)

    def write(path_of_part: Path) -> None:
        with open(path_of_part, "w", encoding="ascii", newline="\n") as file:
            file.write("HIERARCHY\n")
            file.write("\n".join(_joint_lines(0, bones, 0, rig_names(rig))))
            file.write(f"\nMOTION\nFrames: {len(motion.frames)}\nFrame Time: {1 / (scene.fps or 30.0):.8f}\n")
            before = None
            for _, part in in_parts(motion):
                rotations, translations = local_frames(place(part, scene, body))
                angles = _euler_zxy(rotations[:, _depth_first()], before)
                before = angles[-1]
                np.savetxt(file, np.concatenate([translations[:, 0] * _CM, angles.reshape(len(angles), -1)], 1), "%.5f")

    return write_whole(path, write)


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(PARENTS) if parent == joint and child != joint]


def _depth_first(joint: int = 0) -> list[int]:
    """The order of the hierarchy's text, in which the channels follow."""
    return [joint, *(below for child in _children(joint) for below in _depth_first(child))]


def _joint_lines(joint: int, bones: np.ndarray, depth: int, names: Sequence[str]) -> list[str]:
    indent = "\t" * depth
    offset = np.zeros(3) if joint == 0 else bones[joint]
    places = "6 Xposition Yposition Zposition" if joint == 0 else "3"
    lines = [
        f"{indent}{'ROOT' if joint == 0 else 'JOINT'} {names[joint]}",
        f"{indent}{{",
        f"{indent}\tOFFSET {_numbers(offset)}",
        f"{indent}\tCHANNELS {places} Zrotation Xrotation Yrotation",
    ]
    for child in _children(joint):
        lines += _joint_lines(child, bones, depth + 1, names)
    if not _children(joint):
        end = _numbers(offset * _STUB)
        lines += [f"{indent}\tEnd Site", f"{indent}\t{{", f"{indent}\t\tOFFSET {end}", f"{indent}\t}}"]
    return [*lines, f"{indent}}}"]


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.5f}" for value in values)


def _euler_zxy(rotations: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """(T, J, 3, 3) = Rz Rx Ry to (T, J, 3) degrees z, x, y without jumps of a whole turn between frames, and from the
    angles (J, 3) `before` the first."""
    from scipy.spatial.transform import Rotation

    angles = (
        Rotation.from_matrix(rotations.reshape(-1, 3, 3))
        .as_euler("ZXY", degrees=True)
        .reshape(-1, *rotations.shape[1:3])
    )
    if before is None:
        return np.unwrap(angles, axis=0, period=360)
    return np.unwrap(np.concatenate([before[None], angles]), axis=0, period=360)[1:]
