"""From Anny's A-pose with bent elbows to the T-pose, person by person, by inverse skinning."""

import numpy as np
from numpy.typing import ArrayLike

from wholebody.body.joints import PARENTS

from . import rig
from .rig import J

COLLAR_RAISE_DEG = 12.0  # how far the clavicles rise when the arms go from Anny's rest to the T
THIGH_OUT_DEG = 3.0
LEFT_THUMB = np.array([0.66, -0.40, 0.63])  # where a straight thumb points


def rotation_about(axis: str, angle: ArrayLike) -> np.ndarray:
    """Rotations (...,3,3) about x, y or z by angles (...)."""
    angle = np.asarray(angle, dtype=float)
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = {
        "x": [[one, zero, zero], [zero, c, -s], [zero, s, c]],
        "y": [[c, zero, s], [zero, one, zero], [-s, zero, c]],
        "z": [[c, -s, zero], [s, c, zero], [zero, zero, one]],
    }[axis]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def skew(v: np.ndarray) -> np.ndarray:
    """The matrices (...,3,3) of the cross product with v (...,3)."""
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def shortest_rotation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotations (N,3,3) that take the directions a (N,3) to b (N,3) or (3,)."""
    a, b = unit(a), unit(np.broadcast_to(b, a.shape))
    k = skew(np.cross(a, b))
    return np.eye(3) + k + k @ k / (1 + (a * b).sum(-1))[:, None, None]


def turn(rotations: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (rotations @ x[..., None])[..., 0]


def to_t_pose(joints: np.ndarray, finger_tips: dict[str, np.ndarray]) -> np.ndarray:
    """Rotations (N,55,3,3), in the body's frame, that take people with these joints (N,55,3) from A to T."""
    out = np.tile(np.eye(3), (len(joints), 55, 1, 1))

    def at(name: str) -> np.ndarray:
        return joints[:, J[name]]

    for side, _, sign in rig.SIDES:
        outward = np.array([sign, 0, 0])
        thigh = at(f"{side}_knee") - at(f"{side}_hip")
        out[:, J[f"{side}_hip"]] = rotation_about(
            "z", -np.arctan2(thigh[:, 0], -thigh[:, 1]) + sign * np.radians(THIGH_OUT_DEG)
        )
        shin = at(f"{side}_ankle") - at(f"{side}_knee")
        out[:, J[f"{side}_knee"]] = rotation_about("z", -np.arctan2(shin[:, 0], -shin[:, 1]))
        out[:, J[f"{side}_collar"]] = rotation_about("z", sign * np.radians(COLLAR_RAISE_DEG))

        # Upper arm along x, twisted so that the elbow's bend lies in the horizontal plane; then the elbow unbends.
        forearm = at(f"{side}_wrist") - at(f"{side}_elbow")
        shoulder = shortest_rotation(at(f"{side}_elbow") - at(f"{side}_shoulder"), outward)
        bent = turn(shoulder, forearm)
        shoulder = rotation_about("x", np.arctan2(bent[:, 1], bent[:, 2])) @ shoulder
        bent = turn(shoulder, forearm)
        elbow = rotation_about("y", np.arctan2(bent[:, 2], sign * bent[:, 0]) * sign) @ shoulder

        # The hand's own axes (along the middle finger, out of its back) become the body's.
        along = unit(at(f"{side}_middle1") - at(f"{side}_wrist"))
        back = sign * np.cross(at(f"{side}_index1") - at(f"{side}_wrist"), at(f"{side}_pinky1") - at(f"{side}_wrist"))
        back = unit(back - along * (along * back).sum(1, keepdims=True))
        frame = np.stack([along * sign, back, np.cross(along * sign, back)], 2)
        wrist = np.swapaxes(frame, 1, 2)
        for name, rotation in (("shoulder", shoulder), ("elbow", elbow), ("wrist", wrist)):
            out[:, J[f"{side}_{name}"]] = rotation

        for finger in rig.FINGERS:
            points = [at(f"{side}_{finger}{k}") for k in (1, 2, 3)] + [finger_tips[f"{side}_{finger}"]]
            rotation = wrist
            for k in range(3):
                bone = turn(rotation, points[k + 1] - points[k])
                if finger == "thumb":
                    target = LEFT_THUMB * [sign, 1, 1]
                elif k == 0:  # keep the spread of the fingers, lay them flat
                    target = bone * [1, 0, 1]
                rotation = shortest_rotation(bone, target) @ rotation
                out[:, J[f"{side}_{finger}{k + 1}"]] = rotation
    return out


def forward_joints(joints: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Joints (N,55,3) after rotations (N,55,3,3) in the body's frame; the pelvis goes to the origin."""
    out = np.zeros_like(joints)
    for k in range(1, 55):
        p = PARENTS[k]
        out[:, k] = out[:, p] + turn(rotations[:, p], joints[:, k] - joints[:, p])
    return out


def unskin(
    vertices: np.ndarray, weights: np.ndarray, joints: np.ndarray, rotations: np.ndarray, t_joints: np.ndarray
) -> np.ndarray:
    """The T-pose vertices (N,V,3) that linear skinning takes back to `vertices` exactly."""
    back = np.swapaxes(rotations, -1, -2)
    offsets = joints - turn(back, t_joints)
    matrices = np.einsum("vk,nkij->nvij", weights, back, optimize=True)
    shift = np.einsum("vk,nki->nvi", weights, offsets, optimize=True)
    return np.linalg.solve(matrices, (vertices - shift)[..., None])[..., 0]


def repose(
    vertices: np.ndarray, joints: np.ndarray, finger_tips: dict[str, np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """People in the T-pose: vertices (N,V,3 float32), joints (N,55,3) and the rotations that took them there."""
    rotations = to_t_pose(joints, finger_tips)
    t_joints = forward_joints(joints, rotations)
    out = np.empty(vertices.shape, np.float32)
    for start in range(0, len(vertices), 50):
        part = slice(start, start + 50)
        out[part] = unskin(vertices[part].astype(float), weights, joints[part], rotations[part], t_joints[part])
    return out, t_joints, rotations
