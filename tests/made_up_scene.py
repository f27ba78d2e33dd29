"""A scene that nobody filmed: people of the open body who move everything that moves, before a tilted camera."""

from __future__ import annotations

import numpy as np
import torch

from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.people.scene import Camera, Motion, Scene

FPS = 25.0
IMAGE_WH = (320, 240)


def turn(*axis_angle: float) -> np.ndarray:
    return axis_angle_to_matrix(torch.tensor(axis_angle, dtype=torch.float64)).numpy()


def camera_from_world(tilt: float = 0.1, pan: float = 0.0) -> np.ndarray:
    """A camera 1.5 m above the floor, 4 m in front of the origin, looking down a little."""
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = turn(0, pan, 0) @ turn(-tilt, 0, 0) @ np.diag([1.0, -1, -1])
    world_from_camera[:3, 3] = [0, 1.5, 4]
    return np.linalg.inv(world_from_camera)


def made_up_scene(
    body: BodyModel, frames: int = 12, spans: tuple[tuple[int, int], ...] = ((0, 12), (3, 9)), *,
    first: int = 0, step: int = 1, panning: bool = False, amplitude: float = 0.6, seed: int = 0,
) -> Scene:  # fmt: skip
    """People who stand side by side; each is there in one of `spans` of the frames, and unseen in its fourth."""
    rng = np.random.default_rng(seed)
    path = np.stack([camera_from_world(pan=0.02 * k if panning else 0.0) for k in range(frames)])
    numbers = first + step * np.arange(frames)
    people = [_motion(body, rng, n, span, path, numbers, amplitude) for n, span in enumerate(spans)]
    camera = Camera(300.0, (np.array(IMAGE_WH) - 1) / 2, IMAGE_WH, "default", "turning" if panning else "still")
    return Scene(tuple(people), camera, FPS / step, numbers, numbers / FPS, path, "feet")


def photo_scene(body: BodyModel, people: int = 2) -> Scene:
    scene = made_up_scene(body, 1, ((0, 1),) * people)
    return Scene(scene.people, scene.camera, 0.0, scene.frames, scene.times, scene.camera_from_world, scene.floor)


def _motion(body, rng, number, span, path, numbers, amplitude) -> Motion:
    rows = np.arange(*span)
    time = numbers[rows, None] / FPS

    def wave(columns: int, size: float) -> np.ndarray:
        return size * np.sin(time * rng.uniform(2, 9, columns) + rng.uniform(0, 6, columns))

    betas = rng.normal(0, 1, 10)
    heading = matrix_to_axis_angle(torch.from_numpy(turn(0, 0.4 * number, 0))).numpy()
    root_in_world = heading + wave(3, 0.15)
    pelvis = body.rest_pelvis(torch.from_numpy(betas).float()[None]).numpy()[0].astype(np.float64)
    places_in_world = np.array([number * 0.9, 0.95, -0.3 * number]) + wave(3, 0.1)
    expression = wave(10, 1.0)
    shift = body.rest_pelvis(torch.from_numpy(betas).float()[None], torch.from_numpy(expression).float()).numpy()
    turns = path[rows, :3, :3] @ axis_angle_to_matrix(torch.from_numpy(root_in_world)).numpy()
    in_camera = np.einsum("tij,tj->ti", path[rows, :3, :3], places_in_world) + path[rows, :3, 3]
    assert np.abs(shift - pelvis).max() < 0.05
    filled = np.zeros(len(rows), bool)
    filled[3:4] = True
    focal, (width, height) = 300.0, IMAGE_WH
    center = in_camera[:, :2] / in_camera[:, 2:] * focal + (np.array([width, height]) - 1) / 2
    half = np.array([0.5, 1.0]) * focal / in_camera[:, 2:]
    return Motion(
        track_id=number,
        frames=numbers[rows],
        times=numbers[rows] / FPS,
        global_orient=matrix_to_axis_angle(torch.from_numpy(turns)).numpy(),
        body_pose=wave(63, amplitude).reshape(-1, 21, 3) * rng.uniform(0.1, 1, (21, 1)),
        left_hand_pose=wave(45, 0.5).reshape(-1, 15, 3),
        right_hand_pose=wave(45, 0.5).reshape(-1, 15, 3),
        jaw_pose=np.abs(wave(3, 0.3)) * [1, 0, 0],
        expression=expression,
        betas=betas,
        transl=in_camera - shift,
        box_xyxy=np.concatenate([center - half, center + half], 1),
        confidence=np.clip(0.8 + wave(1, 0.2)[:, 0], 0, 1),
        filled=filled,
    )
