"""Films of synthetic people with exact truth: `wholebody synth --clips`.

Three seconds at 30 frames a second before a camera that stands; in every fourth clip two or three people cross. A clip
is `clips/000000.mp4` and its truth `clips/000000.npz`, whose keys are the fields of `ClipTruth`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from wholebody.body.joints import FROM_144
from wholebody.data.sample import axis_angle_to_matrix
from wholebody.errors import BadInput
from wholebody.files.npz import read_arrays
from wholebody.files.options import check_same_options, record_options
from wholebody.files.whole import sweep, whole
from wholebody.synthesis.camera import Framing
from wholebody.synthesis.clothes.drape import pose_joints
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.light.backgrounds import BackgroundBank
from wholebody.synthesis.light.environment import tone_map, view
from wholebody.synthesis.light.shadow import darken, warp_shadow
from wholebody.synthesis.people.performance import Performance, perform
from wholebody.synthesis.render import Look, Studio
from wholebody.synthesis.sets.compose import blend
from wholebody.synthesis.sets.generate import Spread

SECONDS, FPS, CLIP_HW = 3.0, 30, (540, 960)
CROSSING_EVERY = 4
_APART = 0.8  # metres in depth between people who cross


@dataclass(frozen=True)
class ClipTruth:
    """P people through T frames. Metres, radians, pixels; camera frame: x right, y down, z forward."""

    fps: np.ndarray  # ()
    crossing: np.ndarray  # () bool
    focal_px: np.ndarray  # ()
    principal_px: np.ndarray  # (2,)
    camera_from_world: np.ndarray  # (4, 4); world: y up, the floor at 0
    full_pose: np.ndarray  # (P, T, 55, 3), the root in the camera frame, hands from the flat hand
    betas: np.ndarray  # (P, 10)
    expression: np.ndarray  # (P, T, 10)
    transl: np.ndarray  # (P, T, 3) camera frame, of the open body's layer
    box_xyxy: np.ndarray  # (P, T, 4) of the skin, cut to the picture
    visible: np.ndarray  # (P, T) share of the person that nobody stands in front of

    @classmethod
    def read(cls, path: str | Path) -> ClipTruth:
        """Raises BadInput for a file that is damaged or of another kind."""
        names = [f.name for f in fields(cls)]
        truth = cls(**read_arrays(path, *names))
        if np.ndim(truth.visible) != 2:
            raise BadInput(f"{path}: 'visible' has shape {np.shape(truth.visible)}, people × frames belong there")
        people, frames = truth.visible.shape
        wanted = {
            "fps": (), "crossing": (), "focal_px": (), "principal_px": (2,), "camera_from_world": (4, 4),
            "full_pose": (people, frames, 55, 3), "betas": (people, 10), "expression": (people, frames, 10),
            "transl": (people, frames, 3), "box_xyxy": (people, frames, 4), "visible": (people, frames),
        }  # fmt: skip
        for name in names:
            array = getattr(truth, name)
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.shape != wanted[name]:
                raise BadInput(f"{path}: {name!r} is no array of {wanted[name]} numbers; write the clips again")
        return truth


def run(
    out: str | Path,
    count: int,
    seed: int = 0,
    config: SynthesisConfig | None = None,
    progress: Callable[[int], object] | None = None,
    seconds: float = SECONDS,
    spread: Spread | None = None,
) -> Path:
    """Write `count` clips to `out`/clips; those that are there stay. The same settings and seed give the same clips.
    `spread` draws them in place of this process."""
    if count < 1:
        raise BadInput(f"asked for {count} clips: it must be at least 1")
    config = replace(config or SynthesisConfig(split="heldout"))
    config = replace(config, size_hw=config.size_hw or CLIP_HW).resolved()
    out = Path(out).absolute()
    folder = out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    recipe = {"clips": {name: getattr(config, name) for name in ("split", "size_hw")}, "seed": seed, "seconds": seconds}
    if not check_same_options(
        out / "recipe.json", recipe, f"{out} holds clips made with other settings: choose another --out", label=""
    ):
        record_options(out / "recipe.json", recipe)
    jobs = [(str(folder), config, seed, number, seconds) for number in range(count)]
    todo = [job for job in jobs if not is_drawn(job)]
    if progress and len(todo) < count:
        progress(count - len(todo))
    if spread is not None:
        spread(draw_clip_of, todo, is_drawn, progress or (lambda clips: None))
        return out
    for job in todo:
        draw_clip_of(job)
        if progress:
            progress(1)
    return out


Job = tuple[str, SynthesisConfig, int, int, float]
"""A clip to draw: folder, config, seed, its number, seconds."""


def is_drawn(job: Job) -> bool:
    path = Path(job[0]) / f"{job[3]:06d}.mp4"
    return path.exists() and path.with_suffix(".npz").exists()


def draw_clip_of(job: Job) -> int:
    """Draw and write one clip."""
    folder, config, seed, number, seconds = job
    _write(Path(folder) / f"{number:06d}.mp4", *draw_clip(*_studio_and_bank(config), seed, number, seconds))
    return 1


@lru_cache(maxsize=1)
def _studio_and_bank(config: SynthesisConfig) -> tuple[Studio, BackgroundBank]:
    return Studio(config), BackgroundBank(config.hdri, config.backgrounds, split=config.split)


def read_clips(folder: str | Path) -> Iterator[tuple[Path, ClipTruth]]:
    """The films of a set and their truth, in order."""
    paths = sorted((Path(folder) / "clips").glob("*.mp4"))
    if not paths:
        raise BadInput(f"no clips (clips/*.mp4) in {folder}: is it a folder that `wholebody synth --clips` wrote?")
    for path in paths:
        if path.with_suffix(".npz").exists():
            yield path, ClipTruth.read(path.with_suffix(".npz"))


def draw_clip(
    studio: Studio, bank: BackgroundBank, seed: int, number: int, seconds: float = SECONDS
) -> tuple[list[np.ndarray], ClipTruth]:
    """The frames (H, W, 3) uint8 RGB of clip `number` of a seed, and their truth."""
    rng = np.random.default_rng((seed, number, 77))
    times = np.arange(round(seconds * FPS)) / FPS
    crossing = number % CROSSING_EVERY == CROSSING_EVERY - 1
    people = _cross(rng, times, studio) if crossing else [_alone(rng, times, studio)]
    height, width = studio.size_hw
    focal = width * rng.uniform(0.75, 1.5)
    principal = (np.array([width, height]) - 1) / 2
    camera_from_world = _stand(rng, people, focal, principal, studio)
    turn, shift = camera_from_world[:3, :3], camera_from_world[:3, 3]
    looks: list[Look] = []
    for _ in people:
        looks.append(studio.look(rng, turn, looks[0].surroundings if looks else None))
    surroundings = looks[0].surroundings
    if rng.random() < 0.5:
        radiance = view(
            surroundings.environment.panorama, surroundings.world_from_cam, focal, principal, studio.size_hw
        )
        background = tone_map(radiance * surroundings.lighting.gain)
    else:
        background = bank.sample(rng, height, width)
    lens = _Lens(rng)

    posed = [_posed(studio, one, turn, shift) for one in people]
    frames: list[np.ndarray] = []
    shape = (len(people), len(times))
    boxes, visible = np.zeros((*shape, 4)), np.zeros(shape)
    frame_box = np.array([0.0, 0, width, height])
    for k in range(len(times)):
        layers = []
        for p, (one, look, body) in enumerate(zip(people, looks, posed, strict=True)):
            vertices = body.vertices(k)
            framing = Framing(body.offset[k], focal, principal, frame_box, frame_box)
            layer = studio.paint(
                look, framing, vertices, body.joints[k], turn, body.full_pose[k].astype(np.float32),
                one.betas.astype(np.float32), one.expression[k].astype(np.float32), f"clip-{number}", body.poses, k,
            )  # fmt: skip
            layers.append(layer)
            points = vertices + body.offset[k]
            px = points[:, :2] / np.maximum(points[:, 2:], 0.05) * focal + principal
            boxes[p, k] = np.clip(np.r_[px.min(0), px.max(0)], 0, [width, height, width, height])
        picture = background
        for layer in layers:
            if layer.shadow is not None:
                picture = darken(picture, warp_shadow(layer.shadow, np.eye(3)[:2], studio.size_hw))
        order = sorted(range(len(people)), key=lambda p: -posed[p].offset[k][2])
        for place, p in enumerate(order):
            picture = blend(picture, layers[p].color, layers[p].alpha)
            before = np.zeros(studio.size_hw, bool)
            for nearer in order[place + 1 :]:
                before |= layers[nearer].alpha > 127
            own = layers[p].alpha > 127
            visible[p, k] = (own & ~before).sum() / max(1, own.sum())
        frames.append(lens(picture))
    truth = ClipTruth(
        np.array(float(FPS)), np.array(crossing), np.array(focal), principal, camera_from_world,
        np.stack([body.full_pose for body in posed]).astype(np.float32),
        np.stack([one.betas for one in people]).astype(np.float32),
        np.stack([one.expression for one in people]).astype(np.float32),
        np.stack([body.offset for body in posed]), boxes, visible,
    )  # fmt: skip
    return frames, truth


class _Lens:
    """Exposure, white balance and blur of a camera, the same in every frame; noise that is not."""

    def __init__(self, rng: Generator) -> None:
        gain = np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.05, 3))
        gamma = np.exp(rng.normal(0, 0.1))
        curve = 255 * ((np.arange(256)[:, None] / 255) ** gamma * gain).clip(0, 1)
        self._curve = curve.astype(np.uint8).reshape(256, 1, 3)
        self._blur = rng.uniform(0.4, 1.0) if rng.random() < 0.4 else 0.0
        self._noise = rng.uniform(1, 6)
        self._seed = int(rng.integers(1 << 30))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        picture = cv2.LUT(picture, self._curve)
        if self._blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self._blur)
        noise = np.zeros(picture.shape, np.int16)
        self._seed += 1
        cv2.setRNGSeed(self._seed)
        cv2.randn(noise, np.zeros(3), np.full(3, self._noise))
        return np.asarray(cv2.add(picture, noise, dtype=cv2.CV_8U))


def _perform(rng: Generator, times: np.ndarray, studio: Studio, walking: bool) -> Performance:
    config = studio.config
    return perform(rng, times, studio.body, studio.population, studio.hands, config.motion, config.split, walking)


def _alone(rng: Generator, times: np.ndarray, studio: Studio) -> Performance:
    """Somewhere about the origin, with any heading."""
    one = _perform(rng, times, studio, walking=False)
    one = one.turned(rng.uniform(-np.pi, np.pi), _pelvis(studio, one))
    middle = (one.transl.min(0) + one.transl.max(0)) / 2
    return one.moved(np.array([rng.uniform(-0.4, 0.4) - middle[0], 0, rng.uniform(-0.4, 0.4) - middle[2]]))


def _cross(rng: Generator, times: np.ndarray, studio: Studio) -> list[Performance]:
    """Two or three who walk past each other, at different distances, half-way through the clip."""
    people = []
    for k in range(2 if rng.random() < 0.6 else 3):
        one = _perform(rng, times, studio, walking=True)
        way = one.transl[-1] - one.transl[0]
        heading = np.arctan2(-way[2], way[0])  # from +x about y
        wanted = rng.normal(0, 0.12) + (np.pi if k % 2 else 0.0)
        one = one.turned(wanted - heading, _pelvis(studio, one))
        middle = one.transl[len(times) // 2]
        depth = (0.5 - k) * _APART + rng.uniform(-0.1, 0.1)
        people.append(one.moved(np.array([rng.normal(0, 0.15) - middle[0], 0, depth - middle[2]])))
    return people


def _pelvis(studio: Studio, one: Performance) -> np.ndarray:
    return studio.body.rest_pelvis(torch.from_numpy(one.betas).float()[None])[0].double().numpy()


def _stand(
    rng: Generator, people: list[Performance], focal: float, principal: np.ndarray, studio: Studio
) -> np.ndarray:  # fmt: skip
    """(4, 4) camera from world of a camera from where everybody is inside the picture throughout, or nearly."""
    around = []
    for one in people:
        where = one.transl + _pelvis(studio, one)
        for up, aside in ((0.85, 0), (-0.95, 0), (0.0, 0.4), (0.0, -0.4)):
            around.append(where + [aside, up, 0])
    points = np.concatenate(around)
    height, pitch_off, roll = rng.uniform(0.9, 1.8), rng.normal(0, 0.03), rng.normal(0, np.radians(1.0))
    room, distance = rng.uniform(0.95, 1.15), 2.0
    while True:
        pitch = np.arctan2(height - 0.9, distance) + pitch_off
        turn = (Rotation.from_rotvec([0, 0, roll]) * Rotation.from_rotvec([pitch, 0, 0])).as_matrix()
        turn = turn @ np.diag([1.0, -1.0, -1.0])
        seen = (points - [0, height, distance]) @ turn.T
        off = np.abs(seen[:, :2] / np.maximum(seen[:, 2:], 0.05) * focal) * room / (principal * 0.97)
        if (seen[:, 2].min() > 0.6 and off.max() < 1) or distance > 30:
            break
        distance *= 1.07
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, -turn @ [0, height, distance]
    return matrix


@dataclass
class _Posed:
    """A performance in the camera's axes."""

    studio: Studio
    full_pose: np.ndarray  # (T, 55, 3)
    offset: np.ndarray  # (T, 3), the translation of the body layer
    joints: np.ndarray  # (T, 137, 3) about the origin
    poses: Any
    betas: np.ndarray
    expression: np.ndarray

    def vertices(self, k: int) -> np.ndarray:
        with torch.inference_mode():
            out = self.studio.body.from_matrices(
                torch.from_numpy(axis_angle_to_matrix(self.full_pose[k : k + 1])).float(),
                torch.from_numpy(self.betas).float()[None],
                torch.from_numpy(self.expression[k : k + 1]).float(),
            )
        return out.vertices[0].numpy()


def _posed(studio: Studio, one: Performance, turn: np.ndarray, shift: np.ndarray) -> _Posed:
    pose = one.full_pose.copy()
    pose[:, 0] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    pelvis = _pelvis(studio, one)
    offset = (one.transl + pelvis) @ turn.T + shift - pelvis
    count = len(pose)
    rotations = axis_angle_to_matrix(pose)
    betas = np.repeat(one.betas[None], count, 0)
    with torch.inference_mode():
        out = studio.body.subset([0]).from_matrices(
            torch.from_numpy(rotations).float(), torch.from_numpy(betas).float(),
            torch.from_numpy(one.expression).float(),
        )  # fmt: skip
    joints = out.joints.numpy()[:, FROM_144]
    return _Posed(
        studio, pose, offset, joints, pose_joints(studio.body, rotations, betas, one.expression), one.betas,
        one.expression,
    )  # fmt: skip


def _write(path: Path, frames: list[np.ndarray], truth: ClipTruth) -> None:
    import av

    with whole(path) as part, av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with whole(path.with_suffix(".npz")) as part, open(part, "xb") as file:
        np.savez_compressed(file, **{f.name: getattr(truth, f.name) for f in fields(truth)})  # type: ignore[arg-type]
