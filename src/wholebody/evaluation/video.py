"""Motion against exact truth: films of held-out synthetic people, each frame by itself against the film as a whole.

Both ways know the camera's focal length, as the truth does. *Each frame by itself*: the detector and the network on
every frame, each person placed before the camera from this frame alone. *As a film*: `motion.watch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wholebody.body.joints import JOINTS_144, PARENTS, index
from wholebody.body.layer import BodyModel
from wholebody.evaluation.metrics import pa_mpvpe_mm
from wholebody.files.video import Frame, open_film
from wholebody.motion.rig import Rig
from wholebody.motion.watch import photo_scene, watch
from wholebody.people.detect import make_detector
from wholebody.people.scene import Motion, Scene
from wholebody.synthesis.sets.clips import ClipTruth, read_clips

if TYPE_CHECKING:
    from wholebody.people.predictor import Predictor

_FEET = index(("left_big_toe", "left_heel", "right_big_toe", "right_heel"), JOINTS_144)
_OVERLAP = 0.3  # of a predicted and a true box, below which they are not the same person
_SEEN = 0.4  # share of a person that must be visible for their pose to be judged
_STANDS = 0.1  # metres a second: a true foot slower than this, and near the floor, stands


@dataclass(frozen=True)
class Bodies:
    """A person's frames: `rows` (N,) of the clip, meshes and joints in the camera frame, metres."""

    rows: np.ndarray
    vertices: np.ndarray  # (N, V, 3)
    joints: np.ndarray  # (N, 144, 3)


def measure_video(
    predictor: Predictor, folder: str | Path, limit: int | None = None, smooth: str = "light",
    say: Callable[[str], object] = print,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Mean errors over the clips of a set, `{"frames": {...}, "film": {...}}`.

    Of each way: `acceleration` (m/s², of 22 joints about the pelvis), `pa_mpvpe` (mm), `sliding` (cm/s along the floor
    of feet that truly stand), `path` (cm, of the pelvis), `distance` (percent, median), and the share of people's
    frames that were `found`; over clips with several people, `relative_depth` (percent, median: how far the ratio of
    two people's distances along the camera's axis is from the true one). Of the film also: `crossings` and of these
    `crossings_kept` without an identity switch, `switches`, `bones` (mm by which a bone's length changes at most),
    `joint_shift` (percent of the box).
    """
    rows: dict[str, list[dict[str, float]]] = {"frames": [], "film": []}
    depths: dict[str, list[float]] = {"frames": [], "film": []}
    kept: list[bool] = []
    totals = {"switches": 0.0, "bones": 0.0}
    shifts = []
    body = predictor.model.body
    rig = Rig(body)
    for path, truth in islice(read_clips(folder), limit):
        film = open_film(path)
        frames = list(film)
        own = _each_frame(predictor, frames, truth, rig)
        scene = watch(
            frames, predictor, make_detector("movenet", 0.1), fps=film.rate, focal_px=float(truth.focal_px),
            focal_source="--focal", image_wh=film.info.wh, smooth=smooth,
        )  # fmt: skip
        people = true_bodies(truth, body)
        matches = match(truth, scene, len(frames))
        switches = sum(count_switches(row) for row in matches)
        totals["switches"] += switches
        if truth.crossing:
            kept.append(switches == 0)
        shifts.append(scene.checks.get("joint_shift", np.nan))
        for way, found in (("frames", own), ("film", [_of_matches(scene, row, body) for row in matches])):
            for person, true in enumerate(people):
                seen = truth.visible[person] >= _SEEN
                rows[way].append(errors(found[person], true, seen, truth.camera_from_world))
            depths[way].append(relative_depth(found, people))
        totals["bones"] = max(totals["bones"], *(1000 * bone_change(motion, rig) for motion in scene.people), 0.0)
        say(f"{path.name}: {len(scene.people)} of {len(people)} people, {switches} switches; {_line(rows)}")
    result = {way: _mean(found) for way, found in rows.items()}
    for way, values in depths.items():
        several = [value for value in values if np.isfinite(value)]
        result[way]["relative_depth"] = float(np.mean(several)) if several else float("nan")
    result["film"] |= {
        "switches": totals["switches"],
        "crossings": float(len(kept)),
        "crossings_kept": float(np.mean(kept)) if kept else float("nan"),
        "bones": totals["bones"],
        "joint_shift": 100 * float(np.nanmean(shifts)),
    }
    return result


def table(result: dict[str, dict[str, float]]) -> str:
    """Both ways side by side, a line a number."""
    units = {
        "acceleration": "m/s2, joints about the pelvis", "pa_mpvpe": "mm", "sliding": "cm/s of standing feet",
        "path": "cm, pelvis", "distance": "%, median",
        "relative_depth": "%, median, of two people", "found": "share of frames", "bones": "mm, largest change",
        "joint_shift": "% of the box, median", "crossings_kept": "share without a switch",
    }  # fmt: skip
    lines = [f"{'':16}{'each frame':>12}{'as a film':>12}"]
    for name, value in result["film"].items():
        own = result["frames"].get(name)
        lines.append(
            f"{name:16}{'' if own is None else f'{own:.3g}':>12}{value:>12.3g}  {units.get(name, '')}".rstrip()
        )
    return "\n".join(lines)


def true_bodies(truth: ClipTruth, body: BodyModel) -> list[Bodies]:
    return [
        _posed(body, np.arange(truth.transl.shape[1]), truth.full_pose[p], truth.betas[p], truth.expression[p],
               truth.transl[p])
        for p in range(len(truth.transl))
    ]  # fmt: skip


def errors(found: Bodies | None, true: Bodies, seen: np.ndarray, camera_from_world: np.ndarray) -> dict[str, float]:
    """Of one person; `seen` (T,) says which frames count. All NaN but `found` if there is nothing."""
    names = ("acceleration", "pa_mpvpe", "sliding", "path", "distance")
    if found is None or not seen[found.rows].any():
        return {name: float("nan") for name in names} | {"found": 0.0}
    keep = seen[found.rows]
    rows = found.rows[keep]
    joints, truth = found.joints[keep][:, :22].astype(np.float64), true.joints[rows][:, :22].astype(np.float64)
    result = {"found": len(rows) / max(1, int(seen.sum()))}
    next_to = np.diff(rows) == 1
    third = next_to[:-1] & next_to[1:]  # three frames in a row
    local, true_local = joints - joints[:, :1], truth - truth[:, :1]
    bend = np.diff(local, 2, axis=0) - np.diff(true_local, 2, axis=0)
    result["acceleration"] = float(np.linalg.norm(bend, axis=-1)[third].mean() * 900) if third.any() else float("nan")
    with torch.inference_mode():
        distances = pa_mpvpe_mm(torch.from_numpy(found.vertices[keep]), torch.from_numpy(true.vertices[rows]))
    result["pa_mpvpe"] = float(distances.mean())
    turn = camera_from_world[:3, :3].T
    feet, true_feet = found.joints[keep][:, _FEET] @ turn.T, true.joints[rows][:, _FEET] @ turn.T
    height = true_feet[..., 1] - np.percentile(true_feet[..., 1], 5)
    stands = (np.linalg.norm(np.diff(true_feet, axis=0), axis=-1) * 30 < _STANDS) & (height[1:] < 0.08)
    stands &= next_to[:, None]
    along = np.linalg.norm(np.diff(feet, axis=0)[..., [0, 2]], axis=-1) * 30
    result["sliding"] = float(along[stands].mean() * 100) if stands.any() else float("nan")
    result["path"] = float(np.linalg.norm(joints[:, 0] - truth[:, 0], axis=1).mean() * 100)
    far, truly = np.linalg.norm(joints[:, 0], axis=1), np.linalg.norm(truth[:, 0], axis=1)
    result["distance"] = float(np.median(np.abs(far / truly - 1)) * 100)
    return result


def relative_depth(found: Sequence[Bodies | None], true: Sequence[Bodies]) -> float:
    """Percent, median over pairs of people and frames: how far the ratio of their pelvises' depths is from the true
    one. NaN where no two are found in one frame."""
    off = []
    for a in range(len(true)):
        for b in range(a):
            one, other = found[a], found[b]
            if one is None or other is None:
                continue
            rows, at_a, at_b = np.intersect1d(one.rows, other.rows, return_indices=True)
            said = one.joints[at_a, 0, 2] / other.joints[at_b, 0, 2]
            off += list(np.abs(said / (true[a].joints[rows, 0, 2] / true[b].joints[rows, 0, 2]) - 1))
    return 100 * float(np.median(off)) if off else float("nan")


def match(truth: ClipTruth, scene: Scene, count: int) -> list[np.ndarray]:
    """Of each true person (T,) the place in `scene.people` of who was taken for them in each frame, or -1 where too
    little is seen of them.

    As CLEAR MOT counts (Bernardin and Stiefelhagen, 2008): whoever was taken for a person stays so while their boxes
    still overlap, since boxes of two who stand behind one another say nothing of which is which; the others are
    assigned by the largest overlap.
    """
    from scipy.optimize import linear_sum_assignment

    rows = [np.full(count, -1) for _ in truth.box_xyxy]
    taken: dict[int, int] = {}  # of each true person, the last one
    for k in range(count):
        here = [number for number, motion in enumerate(scene.people) if motion.frames[0] <= k <= motion.frames[-1]]
        if not here:
            continue
        boxes = [scene.people[number].box_xyxy[k - scene.people[number].frames[0]] for number in here]
        overlap = np.array([[_iou(box, true[k]) for box in boxes] for true in truth.box_xyxy])
        overlap[overlap < _OVERLAP] = 0.0
        for person, number in taken.items():
            if number in here and overlap[person, here.index(number)] > 0:
                overlap[person, here.index(number)] += len(here) + len(overlap)  # more than all the others together
        for person, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[person, column] > 0:
                taken[int(person)] = here[column]
                if truth.visible[person, k] >= _SEEN:
                    rows[person][k] = here[column]
    return rows


def count_switches(row: np.ndarray) -> int:
    """How often a person (T,) is taken for another one than before; frames of -1 are passed over."""
    known = row[row >= 0]
    return int((np.diff(known) != 0).sum())


def bone_change(motion: Motion, rig: Rig) -> float:
    """Metres by which the length of a bone changes at most from frame to frame."""
    joints = rig.pose(_full_pose(motion), motion.betas).joints[:, :22]
    lengths = np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:22])], axis=2)
    return float(np.ptp(lengths, axis=0).max())


def _each_frame(
    predictor: Predictor, frames: Sequence[Frame], truth: ClipTruth, rig: Rig
) -> list[Bodies | None]:  # fmt: skip
    """Of each true person what is found in each frame alone, matched to them by overlap."""
    from scipy.optimize import linear_sum_assignment

    detector = make_detector("movenet")
    wh = frames[0].image.shape[1::-1]
    found: list[list[tuple[int, Any]]] = [[] for _ in truth.box_xyxy]
    for k, frame in enumerate(frames):
        people = predictor.predict_many([frame.image], [detector(frame.image)])[0]
        if not people:
            continue
        scene = photo_scene(people, rig, (wh[0], wh[1]), float(truth.focal_px), "--focal")
        overlap = np.array([[_iou(m.box_xyxy[0], true[k]) for m in scene.people] for true in truth.box_xyxy])
        for person, column in zip(*linear_sum_assignment(-overlap), strict=True):
            if overlap[person, column] >= _OVERLAP:
                found[person].append((k, scene.people[column]))
    return [_joined(rows, predictor.model.body) for rows in found]


def _joined(rows: list[tuple[int, Motion]], body: BodyModel) -> Bodies | None:
    parts = [_posed(body, np.array([k]), _full_pose(m), m.betas, m.expression, m.transl) for k, m in rows]
    if not parts:
        return None
    return Bodies(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("rows", "vertices", "joints")))


def _of_matches(scene: Scene, row: np.ndarray, body: BodyModel) -> Bodies | None:
    """The bodies of whoever was taken for one person, frame by frame."""
    parts = []
    for number in np.unique(row[row >= 0]):
        motion, frames = scene.people[number], np.flatnonzero(row == number)
        at = frames - motion.frames[0]
        parts.append(
            _posed(body, frames, _full_pose(motion)[at], motion.betas, motion.expression[at], motion.transl[at])
        )
    if not parts:
        return None
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    return Bodies(
        *(np.concatenate([getattr(part, name) for part in parts])[order] for name in ("rows", "vertices", "joints"))
    )


def _full_pose(motion: Motion) -> np.ndarray:
    """(T, 55, 3), hands as in the motion."""
    pose = np.zeros((len(motion.frames), 55, 3))
    pose[:, 0], pose[:, 1:22], pose[:, 22] = motion.global_orient, motion.body_pose, motion.jaw_pose
    pose[:, 25:40], pose[:, 40:55] = motion.left_hand_pose, motion.right_hand_pose
    return pose


def _posed(
    body: BodyModel, rows: np.ndarray, pose: np.ndarray, betas: np.ndarray, expression: np.ndarray, transl: np.ndarray
) -> Bodies:
    vertices, joints = [], []
    for start in range(0, len(rows), 16):
        part = torch.from_numpy(np.asarray(pose[start : start + 16])).float()
        count = len(part)
        with torch.inference_mode():
            out = body(
                global_orient=part[:, 0], body_pose=part[:, 1:22], jaw_pose=part[:, 22], left_hand_pose=part[:, 25:40],
                right_hand_pose=part[:, 40:], betas=torch.from_numpy(np.asarray(betas)).float().expand(count, 10),
                expression=torch.from_numpy(np.asarray(expression[start : start + 16])).float(),
                transl=torch.from_numpy(np.asarray(transl[start : start + 16])).float(),
            )  # fmt: skip
        vertices.append(out.vertices.numpy())
        joints.append(out.joints.numpy())
    return Bodies(rows, np.concatenate(vertices), np.concatenate(joints))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = float(sides.prod())
    return both / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - both, 1e-9)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    names = rows[0] if rows else ()
    return {name: float(np.nanmean([row[name] for row in rows])) for name in names}


def _line(rows: dict[str, list[dict[str, float]]]) -> str:
    names = ("acceleration", "pa_mpvpe", "sliding", "path")
    own, film = (_mean(rows[way]) for way in ("frames", "film"))
    return "so far " + ", ".join(f"{name} {own[name]:.3g} -> {film[name]:.3g}" for name in names)
