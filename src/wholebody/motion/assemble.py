"""From sights of single frames to a `Scene`: one shape and one smooth motion a person, one camera, one floor a shot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS, index
from wholebody.motion.camera import BODY, CameraPath, place
from wholebody.motion.floor import Floor, bend_leg, find_floor, hold, standing, to_their_places
from wholebody.motion.rig import Posed, Rig
from wholebody.motion.sides import LEGS, mend
from wholebody.motion.smooth import (
    TELLING,
    TELLING_OF_LEGS,
    cutoff,
    fit_numbers,
    fit_rotations,
    robust_mean,
    steady,
)
from wholebody.people.scene import Camera, Motion, Scene

_HIPS_NECK = index(("left_hip", "right_hip", "neck"), SMPLX_JOINTS)
_LEGS = set(LEGS.ravel().tolist())
_MENDED = 0.5  # of their weight keep frames whose left and right were exchanged: such a network is unsure
_BY_BOX = 0.1  # of the weight of a place, where it is known from the box alone
_AT_A_TIME = 2048  # frames of a person whose skeletons are held
_FACELESS = 0.01  # of its weight for the shape has a sight without what the face tells of it
_DEPTH_HERTZ = 1.0  # distances are known from people's sizes alone: only slow changes of them are believed


@dataclass(frozen=True)
class Sights:
    """What the networks said: one row for each person in each frame, N rows.

    Rotations as in `people.predictor.Person` (hands relative to the body's mean hand), camera of the row's own crop.
    """

    frame: np.ndarray  # (N,) rows of the film's list of frames
    track: np.ndarray  # (N,)
    box_xyxy: np.ndarray  # (N, 4)
    confidence: np.ndarray  # (N,) 0..1; 0: the person is there, but what the network said is not of them
    pose: np.ndarray  # (N, 55, 3) axis-angle, SMPL-X order
    betas: np.ndarray  # (N, 10)
    expression: np.ndarray  # (N, 10)
    joints_px: np.ndarray  # (N, 22, 2) the body's joints where they were seen
    faced: np.ndarray  # (N,) bool: the shape is told by the face too

    @classmethod
    def concatenate(cls, parts: Sequence[Sights]) -> Sights:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def none(cls) -> Sights:
        # fmt: off
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros((0, 55, 3)),
                   np.zeros((0, 10)), np.zeros((0, 10)), np.zeros((0, 22, 2)), np.zeros(0, bool))
        # fmt: on

    def take(self, rows: np.ndarray) -> Sights:
        return Sights(*(getattr(self, f.name)[rows] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class Timeline:
    """The frames that were looked at, and how the camera turned in them."""

    numbers: np.ndarray  # (F,) in the film
    times: np.ndarray  # (F,) seconds
    fps: float  # on average; 0 for a photo
    cuts: np.ndarray  # (F,) bool: a new shot begins here
    path: CameraPath


@dataclass
class _Person:
    """A person on the way: T frames from the first to the last sight."""

    track: int
    rows: np.ndarray  # (T,) rows of the timeline
    times: np.ndarray
    seen: np.ndarray  # (T,) bool
    boxed: np.ndarray  # (T,) bool: the detector saw them, whatever the network said
    weights: np.ndarray  # (T,)
    pose: np.ndarray  # (T, 55, 3) float32, as a film may last an hour; the root in the stage frame once placed
    betas: np.ndarray
    expression: np.ndarray
    transl: np.ndarray
    box: np.ndarray
    targets_px: np.ndarray
    contacts: np.ndarray | None = None  # (T, 2) bool; None where the camera travels


def assemble(
    sights: Sights,
    timeline: Timeline,
    rig: Rig,
    focal_px: float,
    focal_source: str,
    image_wh: tuple[int, int],
    *,
    smooth: str = "light",
    camera: str = "auto",
    max_people: int | None = None,
    gender: str = "neutral",
    notes: Sequence[str] = (),
    each: Callable[[int, int], None] = lambda done, of: None,
) -> Scene:
    """The scene of a film, or of a photo (one frame).

    Args:
        smooth: `none` (every frame as the network said it, gaps bridged), `light` or `strong`.
        camera: `still`, `moving` (its turns are taken out) or `auto` (as the background says).
        each: called with (people done, people).
    """
    hertz = cutoff(smooth)
    principal = (np.array(image_wh, np.float64) - 1) / 2
    state = timeline.path.state() if camera == "auto" else camera
    if camera == "moving":
        state = "turning" if timeline.path.state() == "still" else timeline.path.state()
    turns = timeline.path.turns if state != "still" else np.broadcast_to(np.eye(3), (len(timeline.times), 3, 3))
    shot = np.cumsum(timeline.cuts)
    camera_from_world = np.tile(np.eye(4), (len(timeline.times), 1, 1))
    shifts: list[np.ndarray] = []
    motions: list[Motion] = []
    floors: list[Floor] = []
    people = _split(sights, timeline, shot, max_people)
    done = 0
    for number in np.unique(shot):
        here = np.flatnonzero(shot == number)
        stage = [person for person in people if shot[person.rows[0]] == number]
        for person in stage:
            shifts.append(_stand(person, rig, turns, focal_px, principal, hertz))
            done += 1
            each(done, len(people))
        travels = state == "moving"  # then paths contain the travel, and a foot that stands does not stand in them
        floor = _floor_of(stage, rig, find_standing=not travels)
        floors.append(floor)
        origin = stage[0].transl[0] + rig.pelvis(stage[0].betas) if stage else np.array([0.0, 0.0, 3.0])
        stage_from_world = floor.stage_from_world(origin)
        for person in stage if not travels else ():
            _stand_on(person, rig, stage_from_world, turns, focal_px, floor, hertz)
        if stage:  # the first person's first place is the origin, after feet were put right too
            first = stage[0].transl[0] + rig.pelvis(stage[0].betas) - stage_from_world[:3, 3]
            along = first @ stage_from_world[:3, :3] * [1, 0, 1]
            stage_from_world[:3, 3] += stage_from_world[:3, :3] @ along
        camera_from_world[here] = _as_4x4(turns[here]) @ stage_from_world
        motions += [_to_motion(person, timeline, rig, turns, gender) for person in stage]
    every = np.concatenate(shifts) if shifts else np.zeros(0)
    checks = {"joint_shift": float(np.median(every))} if len(every) else {}
    return Scene(
        tuple(motions),
        Camera(focal_px, principal, image_wh, focal_source, state),
        timeline.fps,
        timeline.numbers,
        timeline.times,
        camera_from_world,
        "feet" if floors and all(f.how == "feet" for f in floors) else "upright camera",
        tuple(notes) + _camera_note(state),
        checks,
    )


def _camera_note(state: str) -> tuple[str, ...]:
    if state == "turning":
        return ("The camera turns; its turning was taken out.",)
    if state == "moving":
        return ("The camera moves; its turning was taken out, its travel was not: people's paths contain it.",)
    return ()


def _split(sights: Sights, timeline: Timeline, shot: np.ndarray, max_people: int | None) -> list[_Person]:
    """People in the order of their appearance, each from the first to the last frame; what is no person left out."""
    people: list[_Person] = []
    of_row = shot[sights.frame]
    for number in np.unique(of_row):
        here = np.flatnonzero(of_row == number)
        track = _mended(*(part[here] for part in (sights.track, sights.frame, sights.confidence, sights.box_xyxy)))
        for one in np.unique(track[track >= 0]):
            mine = here[track == one]
            mine = mine[np.argsort(sights.frame[mine], kind="stable")]
            people.append(_on_time(int(one), sights.take(mine), timeline))
    # A glimpse of something that is gone at the next look is seldom a person, unless the film is no longer than that.
    shown = [person.weights[person.seen].sum() for person in people]
    area = [np.median((person.box[:, 2:] - person.box[:, :2]).prod(1)) for person in people]
    least = min(4, 0.5 * len(timeline.times))
    keep = [k for k, person in enumerate(people) if person.seen.sum() >= least or person.weights.max() > 0.5]
    if max_people is not None:
        keep = sorted(keep, key=lambda k: -shown[k] * np.sqrt(area[k]))[:max_people]
    return sorted((people[k] for k in keep), key=lambda person: (person.rows[0], -person.weights.sum()))


def _mended(track: np.ndarray, frame: np.ndarray, confidence: np.ndarray, box_xyxy: np.ndarray) -> np.ndarray:
    """Track numbers (N,): pieces of a track that lie where another one has its gap, and in the same place, are that
    person's. -1: said twice."""
    track = track.copy()
    order = np.lexsort((frame, track))
    names, starts = np.unique(track[order], return_index=True)
    rows = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
    sizes = np.array([len(rows[name]) for name in names.tolist()])
    spans = np.array([_span(frame, rows[name][confidence[rows[name]] > 0]) for name in names.tolist()])
    by_size = np.argsort(-sizes, kind="stable")
    for at in by_size[::-1]:
        small = int(names[at])
        mine = rows[small]
        around = (spans[:, 0] < frame[mine[0]]) & (spans[:, 1] > frame[mine[-1]])
        for large in names[by_size[around[by_size]]].tolist():
            theirs = rows[large][confidence[rows[large]] > 0]
            if large == small or len(theirs) <= len(mine):
                continue
            doubled = np.isin(frame[mine], frame[theirs])
            if doubled.mean() > 0.5:
                continue
            box = _between(frame[mine], frame[theirs], box_xyxy[theirs])
            if np.median(_iou(box, box_xyxy[mine])) < 0.25:
                continue
            track[mine] = np.where(doubled, -1, large)
            together = np.concatenate([rows[large], mine[~doubled]])
            rows[large] = together[np.argsort(frame[together], kind="stable")]
            rows[small] = mine[:0]
            spans[at] = _span(frame, mine[:0])
            break
    return track


def _span(frame: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """The first and the last frame of rows in order; an empty span if there are none."""
    return (float(frame[rows[0]]), float(frame[rows[-1]])) if len(rows) else (np.inf, -np.inf)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of boxes (N, 4), pair by pair."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    both = sides.prod(1)
    return both / np.maximum((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - both, 1e-9)


def _on_time(track: int, mine: Sights, timeline: Timeline) -> _Person:
    """Rows spread over every frame from the first to the last; what is between sights waits to be filled."""
    rows = np.arange(mine.frame[0], mine.frame[-1] + 1)
    times = timeline.times[rows]
    known = mine.confidence > 0
    sure = mine if known.all() or not known.any() else mine.take(np.flatnonzero(known))
    at = sure.frame - rows[0]
    seen = np.zeros(len(rows), bool)
    seen[at] = True
    boxed = np.zeros(len(rows), bool)
    boxed[mine.frame - rows[0]] = True
    source = np.maximum.accumulate(np.where(seen, _inverse(at, len(rows)), 0))
    box = _between(times, times[mine.frame - rows[0]], mine.box_xyxy)
    # Where joints were not seen, they are taken along by the box.
    middle = (box[:, None, :2] + box[:, None, 2:]) / 2
    targets = (_between(times, times[at], sure.joints_px - middle[at]) + middle).astype(np.float32)
    size = np.sqrt((sure.box_xyxy[:, 2:] - sure.box_xyxy[:, :2]).prod(1))
    return _Person(
        track,
        rows,
        times,
        seen,
        boxed,
        np.where(seen, sure.confidence[source], 0.0).clip(0, 1),
        sure.pose[source].astype(np.float32, copy=False),
        robust_mean(sure.betas, sure.confidence * size * np.where(sure.faced, 1.0, _FACELESS)),
        sure.expression[source].astype(np.float64),
        np.zeros((len(rows), 3)),
        box,
        targets,
    )


def _between(times: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (S, ...) of the moments `known` (S,) at all `times` (T,), by straight lines."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    columns = [np.interp(times, known, column) for column in flat.T]
    return np.stack(columns, 1).reshape(-1, *values.shape[1:])


def _inverse(at: np.ndarray, length: int) -> np.ndarray:
    number = np.zeros(length, np.int64)
    number[at] = np.arange(len(at))
    return number


def _stand(
    person: _Person, rig: Rig, turns: np.ndarray, focal_px: float, principal: np.ndarray, hertz: float
) -> np.ndarray:
    """Place each sight before the camera, then fit pose and place over time, in the stage frame.

    Returns (S,) how far joints moved in the picture by going before one camera, at the sights, as shares of the box.
    """
    pelvis = rig.pelvis(person.betas)
    boxes = person.box[:, 3] - person.box[:, 1]
    stage = turns[person.rows].transpose(0, 2, 1)  # stage from camera
    if hertz > 0:
        mended = mend(person.times, person.pose, person.weights, person.targets_px)
        person.weights = np.where(mended, _MENDED * person.weights, person.weights)
    shift = np.empty(len(person.rows))
    for rows, posed in _posed(person, rig):
        placed = place(posed.joints[:, BODY], pelvis, person.targets_px[rows], boxes[rows], focal_px, principal)
        person.pose[rows, 0] = _compose(stage[rows] @ placed.turns, person.pose[rows, 0])
        shift[rows] = placed.shift
    _smooth_pose(person, hertz)
    where = np.empty((len(person.rows), 3))
    for rows, posed in _posed(person, rig):
        joints = _turned(posed.joints, turns[person.rows[rows]], pelvis)
        again = place(joints[:, BODY], pelvis, person.targets_px[rows], boxes[rows], focal_px, principal, turn=False)
        where[rows] = again.transl + pelvis
    # Direction and distance are known with very different certainty: they are fitted apart.
    direction = np.einsum("tij,tj->ti", stage, where / np.linalg.norm(where, axis=1, keepdims=True))
    distance = np.log(np.linalg.norm(where, axis=1, keepdims=True))
    placed_by = np.where(person.weights > 0, person.weights, _BY_BOX * person.boxed)
    direction = fit_numbers(person.times, direction, placed_by, 1.5 * hertz, 0.01)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    slow = min(hertz, _DEPTH_HERTZ * hertz / cutoff("light")) if hertz else 0.0
    distance = fit_numbers(person.times, distance, person.weights, slow, 0.03)
    person.transl = direction * np.exp(distance) - pelvis
    return shift[person.seen]


def _posed(person: _Person, rig: Rig) -> Iterator[tuple[slice, Posed]]:
    """The person's skeleton as the pose is now, some rows at a time: all of a long film's would not fit into memory."""
    for first in range(0, len(person.pose), _AT_A_TIME):
        rows = slice(first, min(first + _AT_A_TIME, len(person.pose)))
        yield rows, rig.pose(person.pose[rows], person.betas)


def _turned(points: np.ndarray, turns: np.ndarray, pelvis: np.ndarray) -> np.ndarray:
    """Points (T, N, 3) of a body turned by (T, 3, 3) about its pelvis."""
    turned: np.ndarray = (points - pelvis) @ turns.transpose(0, 2, 1) + pelvis
    return turned


def _smooth_pose(person: _Person, hertz: float) -> None:
    """Every joint's rotation over time; what jumps there and back is not believed."""
    weights = person.weights
    if hertz > 0:
        kept = steady(person.times, person.pose[:, 0], weights, "root")
        weights = weights * kept
    for joint in range(55):
        mine = weights
        if joint in (23, 24):  # eyes look ahead
            continue
        if hertz > 0 and 0 < joint < 22:
            mine = weights * steady(person.times, person.pose[:, joint], weights)
        speed = hertz if joint < 22 else 0.8 * hertz
        telling = TELLING_OF_LEGS if joint in _LEGS else TELLING
        person.pose[:, joint] = fit_rotations(person.times, person.pose[:, joint], mine, speed, telling=telling)
    person.expression = fit_numbers(person.times, person.expression, weights, hertz, 0.5)


def _floor_of(stage: Sequence[_Person], rig: Rig, find_standing: bool = True) -> Floor:
    """From the soles that stand and the trunks that are upright, of all people and frames of a shot.

    find_standing: False where none can be found; then upright trunks and the lowest soles say it.
    """
    points, weights, uprights, lowest = [], [], [], []
    level = np.array([0.0, -1.0, 0.0])
    for person in stage:
        soles = np.empty((len(person.rows), 2, 2, 3))
        trunk = np.empty((len(person.rows), 3))
        for rows, posed in _posed(person, rig):
            soles[rows] = posed.soles + person.transl[rows, None, None]
            hips = posed.joints[:, _HIPS_NECK]
            trunk[rows] = hips[:, 2] - (hips[:, 0] + hips[:, 1]) / 2
        where = person.transl + rig.pelvis(person.betas)
        sight = where / np.linalg.norm(where, axis=1, keepdims=True)
        stands = standing(person.times, soles, sight, level, None)
        if not find_standing:
            stands = np.zeros_like(stands)
        points.append(soles[stands])
        weights.append(np.broadcast_to(person.weights[:, None, None], stands.shape)[stands])
        trunk /= np.linalg.norm(trunk, axis=1, keepdims=True)
        upright = trunk @ level > np.cos(np.radians(35))
        uprights.append(trunk[upright & stands.any((1, 2)) if find_standing else upright])
        flat = soles.reshape(len(soles), 4, 3)
        lowest.append(flat[np.arange(len(flat)), (flat @ level).argmin(1)])
    if not stage:
        return Floor(level, 1.5, "upright camera")
    return find_floor(np.concatenate(points), np.concatenate(weights), np.concatenate(uprights), np.concatenate(lowest))


def _stand_on(
    person: _Person, rig: Rig, stage_from_world: np.ndarray, turns: np.ndarray, focal_px: float, floor: Floor,
    hertz: float,
) -> None:  # fmt: skip
    """Find which soles stand and hold them, in the world; pose and translation go back to the stage frame."""
    world = stage_from_world[:3, :3].T
    pelvis = rig.pelvis(person.betas)
    pose = person.pose  # changed in place
    pose[:, 0] = _compose(np.broadcast_to(world, (len(pose), 3, 3)), pose[:, 0])
    transl = (person.transl + pelvis - stage_from_world[:3, 3]) @ world.T - pelvis
    from_pelvis = np.empty((len(pose), 2, 2, 3))  # soles without the translation
    for rows, posed in _posed(person, rig):
        from_pelvis[rows] = posed.soles
    sight = person.transl + pelvis
    sight = sight / np.linalg.norm(sight, axis=1, keepdims=True) @ world.T
    up = np.array([0.0, 1.0, 0.0])
    soles = from_pelvis + transl[:, None, None]
    stands: np.ndarray = standing(person.times, soles, sight, up, _above_own_floor(soles))
    if hertz > 0 and len(pose) >= 3:
        transl = hold(person.times, transl, from_pelvis, stands, sight, person.weights, hertz)
        soles = from_pelvis + transl[:, None, None]
        stands = np.asarray(stands & standing(person.times, soles, sight, up, _above_own_floor(soles)))
        moves = to_their_places(person.times, soles, stands)
        for rows, posed in _posed(person, rig):
            for foot in range(2):
                if moves[rows, foot].any():
                    bend_leg(pose[rows], posed, foot, moves[rows, foot])
    person.contacts = np.asarray(stands.any(2))
    pose[:, 0] = _compose(np.broadcast_to(world.T, (len(pose), 3, 3)), pose[:, 0])
    person.transl = (transl + pelvis) @ world + stage_from_world[:3, 3] - pelvis


def _above_own_floor(soles: np.ndarray) -> np.ndarray:
    """(T, 2, 2) heights above where this person's own soles are at their lowest: a body of a wrong size stands too."""
    tall = soles[..., 1]
    return tall - np.percentile(tall.min((1, 2)), 20)


def _to_motion(person: _Person, timeline: Timeline, rig: Rig, turns: np.ndarray, gender: str) -> Motion:
    pelvis = rig.pelvis(person.betas)
    here = turns[person.rows]
    pose = person.pose
    return Motion(
        track_id=person.track,
        frames=timeline.numbers[person.rows],
        times=person.times,
        global_orient=_compose(here, pose[:, 0]),
        body_pose=pose[:, 1:22],
        left_hand_pose=pose[:, 25:40],
        right_hand_pose=pose[:, 40:55],
        jaw_pose=pose[:, 22],
        expression=person.expression,
        betas=person.betas,
        transl=np.einsum("tij,tj->ti", here, person.transl + pelvis) - pelvis,
        box_xyxy=person.box,
        confidence=person.weights,
        filled=~person.seen,
        gender=gender,
        contacts=person.contacts,
    )


def _compose(first: np.ndarray, rotvec: np.ndarray) -> np.ndarray:
    """(T, 3) axis-angle of matrices (T, 3, 3) applied after rotations (T, 3)."""
    from scipy.spatial.transform import Rotation

    return (Rotation.from_matrix(first) * Rotation.from_rotvec(rotvec)).as_rotvec()


def _as_4x4(turns: np.ndarray) -> np.ndarray:
    matrices = np.tile(np.eye(4), (len(turns), 1, 1))
    matrices[:, :3, :3] = turns
    return matrices
