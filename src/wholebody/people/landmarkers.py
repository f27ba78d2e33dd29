"""Whom the landmarkers see: regions for every person, what is found checked to be this person's, in one `Evidence`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from wholebody.body.joints import COCO_BODY_17, COCO_FACE, COCO_FEET, COCO_HANDS
from wholebody.errors import BadInput
from wholebody.model.embedded.blazepose import POSE_33, BlazePose, PoseLook, region_of_body
from wholebody.model.embedded.evidence import HINT_ROWS, Evidence
from wholebody.model.embedded.face_gender import FaceGender, load_face_gender
from wholebody.model.embedded.face_landmarks import FaceDetector, FaceLandmarks, FaceLook, region_of_found
from wholebody.model.embedded.face_pose import FacePose, face_pose
from wholebody.model.embedded.hand_landmarks import HandLandmarks, HandLook, wide_region
from wholebody.model.embedded.hand_pose import HandPose, load_hand_pose
from wholebody.model.embedded.regions import to_picture

PARTS = ("body", "hands", "face")
LEAST_HAND_PX, LEAST_FACE_PX = 35.0, 24.0
"""Hands and faces that are smaller than this, by their longer side, are not read: too small for the landmarkers."""

_SURE = 0.3  # a key point's score from which it takes part in saying who is who
_AGREE, _NEAR = 0.08, 0.12  # in fractions of a person's longer side: the same joint; perhaps
_JOINT = {name: row for row, name in enumerate(COCO_BODY_17)}
_MARK = {name: row for row, name in enumerate(POSE_33)}
# BlazePose's points in the order of COCO-WholeBody's feet; it has no small toes.
_FEET = ("left_foot_index", None, "left_heel", "right_foot_index", None, "right_heel")
# BlazePose's corners of eyes and mouth among the 68 of the face.
_CORNERS = {"right_eye_outer": 36, "right_eye_inner": 39, "left_eye_inner": 42, "left_eye_outer": 45, "mouth_right": 48,
            "mouth_left": 54}  # fmt: skip
_CORNER_TRUST = 0.3
_STRAY = 0.1  # times as sure of what goes with a joint that strays
_FOUND = 0.8  # a hand's score from which it is there: where it was in the frame before, or where it was looked for
_OF_ONE_BODY = 4  # threads that its network takes at most
_CONTOUR_TRUST, _FACE_TRUST, _HAND_TRUST = 0.3, 0.9, 0.8  # the contour is the mesh's, not what is seen as the edge


class Landmarkers:
    """`Landmarkers()(image, boxes, body17)`: body, hands and faces of the people of a picture.

    Networks load when first needed; nothing is kept between calls; safe to call from several threads. The bodies, and
    then all hands and faces, are looked at side by side, by as many threads as PyTorch may use where it is called
    (`torch.get_num_threads`); what is seen does not depend on how many these are.
    """

    def __init__(self, parts: Sequence[str] = PARTS, threads: int = 1) -> None:
        """parts: any of "body", "hands", "face". threads: of each network."""
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise BadInput(f"no part {', '.join(map(repr, sorted(unknown)))}; known: {', '.join(PARTS)}")
        self.parts = tuple(part for part in PARTS if part in parts)
        self._threads = threads

    @cached_property
    def _pose(self) -> BlazePose:
        return BlazePose(self._threads)

    @cached_property
    def _hand(self) -> HandLandmarks:
        return HandLandmarks(self._threads)

    @cached_property
    def _fingers(self) -> HandPose:
        return load_hand_pose()

    @cached_property
    def _face_detector(self) -> FaceDetector:
        return FaceDetector(threads=self._threads)

    @cached_property
    def _face(self) -> FaceLandmarks:
        return FaceLandmarks(self._threads)

    @cached_property
    def _face_gender(self) -> FaceGender:
        return load_face_gender()

    def __call__(
        self, image: np.ndarray, boxes_xyxy: np.ndarray, body17_px: np.ndarray, pose_regions: np.ndarray | None = None,
        hand_regions: np.ndarray | None = None, genders: Sequence[bool] | None = None,
    ) -> Evidence:  # fmt: skip
        """What is seen of B people.

        Args:
            image: H×W×3 uint8 RGB.
            boxes_xyxy: (B, 4) pixels.
            body17_px: (B, 17, 3) `COCO_BODY_17` as Thunder found them: x, y in pixels, score.
            pose_regions: (B, 4) `Evidence.pose_regions` of the frame before, in a film; rows that are not finite, and
                None, are found from the key points.
            hand_regions: (B, 2, 4) `Evidence.hand_regions` likewise: a hand that is where it was costs one look, not
                three.
            genders: (B,) of whom the face is to say whether it looks like a man's; None: of everybody.
        """
        boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
        body = np.array(body17_px, np.float64).reshape(-1, 17, 3)
        evidence = Evidence.nothing(len(boxes))
        rows = range(len(boxes))
        looks: list[PoseLook | None] = [None] * len(boxes)
        if "body" in self.parts or "hands" in self.parts:
            known = [None if pose_regions is None else pose_regions[row] for row in rows]
            # Of one person alone nothing is to be seen beside the body: its network takes the threads itself.
            threads = min(_threads(), _OF_ONE_BODY) if len(boxes) == 1 else self._threads
            looks = _side_by_side([partial(self._body, image, row, boxes, body, known[row], threads) for row in rows])
        points = np.stack([_merged(*both) for both in zip(body, looks, boxes, strict=True)]) if len(body) else body
        evidence.keypoints_px[:, :17] = points
        for row, look in enumerate(looks):
            evidence.sources[row]["body"] = "thunder"
            if look is not None and "body" in self.parts:
                _put_body(evidence, row, look, image.shape[:2], float(max(boxes[row, 2:] - boxes[row, :2])))
        sides = [(row, side) for row in rows for side in (0, 1)] if "hands" in self.parts else []
        faced = rows if "face" in self.parts else range(0)
        calls: list[Callable[[], Any]] = [
            partial(
                self._side, image, points[row], looks[row], boxes[row], side,
                None if hand_regions is None else np.asarray(hand_regions[row, side], np.float64),
            )
            for row, side in sides
        ]  # fmt: skip
        calls += [partial(self._head, image, points[row], boxes[row]) for row in faced]
        seen: list[Any] = _side_by_side(calls)
        hands = [(*at, look) for at, look in zip(sides, seen, strict=False) if look is not None]
        faces = {row: face for row, face in zip(faced, seen[len(sides) :], strict=True) if face is not None}
        for row, face in faces.items():
            _put_face(evidence, row, *face)
        asked = [row for row in faces if evidence.face_confidence[row] > 0 and (genders is None or genders[row])]
        self._put_genders(image, evidence, asked, faces)
        self._put_hands(evidence, _each_hand_once(hands))
        return evidence

    def _body(
        self, image: np.ndarray, row: int, boxes: np.ndarray, body: np.ndarray, known: np.ndarray | None, threads: int
    ) -> PoseLook | None:
        """One look; a second one from the key points if what the frame before said does not hold any more."""
        own = region_of_body(body[row, :, :2], body[row, :, 2], boxes[row])
        for region in [known, own] if known is not None and np.isfinite(known).all() else [own]:
            look = self._pose(image, region, threads)
            if look.score >= 0.5 and is_this_person(look.coco_px, row, boxes, body):
                return look
        return None

    def _side(
        self, image: np.ndarray, points: np.ndarray, look: PoseLook | None, box: np.ndarray, side: int,
        before: np.ndarray | None = None,
    ) -> HandLook | None:  # fmt: skip
        """The hand of one side (0 left, 1 right), if it is seen and is this person's."""
        name = ("left", "right")[side]
        wrist, sure = points[_JOINT[f"{name}_wrist"], :2], points[_JOINT[f"{name}_wrist"], 2]
        if sure < 0.15:
            return None
        hand = None
        if before is not None and np.isfinite(before).all():
            hand = self._hand(image, before + [*wrist, 0, 0])
            if hand.score < _FOUND or not _ends_at(hand, wrist, 0.5 * hand.size_px):
                hand = None
        if hand is None:
            hand = self._new_hand(image, points, look, name)
        if hand is None or hand.size_px < LEAST_HAND_PX:
            return None
        # Its wrist is the arm's: a hand of somebody else, or the person's other one, ends elsewhere.
        return hand if _ends_at(hand, wrist, max(0.9 * hand.size_px, 0.05 * max(box[2:] - box[:2]))) else None

    def _new_hand(self, image: np.ndarray, points: np.ndarray, look: PoseLook | None, name: str) -> HandLook | None:
        """From the arm to the hand, and a second look from there."""
        best: HandLook | None = None
        for region in self._hand_regions(image, points, look, name):
            hand = self._hand(image, region)
            if hand.score >= 0.5 and (best is None or hand.score > best.score):
                best = hand
            if best is not None and best.score >= _FOUND:
                break
        if best is None or best.size_px < 0.7 * LEAST_HAND_PX:  # a second look does not make it so much larger
            return None
        again = self._hand(image, best.next_region)
        return again if again.score >= 0.5 else best

    def _hand_regions(
        self, image: np.ndarray, points: np.ndarray, look: PoseLook | None, name: str
    ) -> Iterator[np.ndarray]:
        """Where to look for a hand, the likeliest first; nowhere where it would be too small."""
        wrist, elbow = points[_JOINT[f"{name}_wrist"], :2], points[_JOINT[f"{name}_elbow"], :2]
        if look is None:
            forearm = wrist - elbow
            if points[_JOINT[f"{name}_elbow"], 2] < 0.15 or np.linalg.norm(forearm) < 1:
                return
            index = pinky = wrist + 0.4 * forearm
        else:
            marks = [look.points_px[_MARK[f"{name}_{end}"]] for end in ("wrist", "index", "pinky")]
            moved = wrist - marks[0]  # knuckles relative to the wrist, which is known better
            index, pinky = marks[1] + moved, marks[2] + moved
        wide = wide_region(wrist, index, pinky)
        if wide[2] < 1.2 * LEAST_HAND_PX:
            return
        yield wide * [1, 1, 0.7, 1]
        if look is not None:
            yield self._hand.region_from_arm(image, wrist, index, pinky)
        yield wide * [1, 1, 0.5, 1]

    def _head(self, image: np.ndarray, points: np.ndarray, box: np.ndarray) -> tuple[FaceLook, FacePose] | None:
        """This person's face, if it is seen, and what it does."""
        face = self._find_face(image, points, box)
        return None if face is None else (face, face_pose(face, self._face.blendshapes(face)))

    def _find_face(self, image: np.ndarray, points: np.ndarray, box: np.ndarray) -> FaceLook | None:
        """The face whose nose is this person's."""
        head = points[:5]
        sure = head[:, 2] >= 0.15
        if not sure[:3].any():  # nose and eyes: seen from behind
            return None
        middle = head[sure, :2].mean(0)
        extent = np.ptp(head[sure, :2], axis=0).max()
        shoulders = points[5:7]
        if (shoulders[:, 2] >= _SURE).all():
            extent = max(extent, 0.45 * np.linalg.norm(shoulders[0, :2] - shoulders[1, :2]))
        extent = max(extent, 0.06 * max(box[2:] - box[:2]))
        across = head[1, :2] - head[2, :2]
        angle = np.arctan2(across[1], across[0]) if sure[1:3].all() and np.linalg.norm(across) > 0.15 * extent else 0.0
        nose = points[0, :2] if sure[0] else middle
        # Seen from the side, the eyes say little of how the head is turned: then upright, and nearer.
        tries = [(3.0, angle), (3.0, 0.0), (2.0, 0.0)] if angle else [(3.0, 0.0), (2.0, 0.0)]
        for wide, turned in tries:
            look = self._face_in(image, np.array([*middle, wide * extent, turned]), nose)
            if look is not None:
                return look
        return None

    def _face_in(self, image: np.ndarray, region: np.ndarray, nose: np.ndarray) -> FaceLook | None:
        """The face in a region whose nose is nearest to where it should be; None where it is no face, or another's."""
        faces = self._face_detector(image, region)
        best, least = None, 0.0
        for number in range(len(faces)):
            size = (faces.boxes_xyxy[number, 2:] - faces.boxes_xyxy[number, :2]).max()
            off = np.linalg.norm(faces.points_px[number, 2] - nose) / size
            if off < 0.4 and size >= LEAST_FACE_PX and (best is None or off < least):
                best, least = number, off
        if best is None:
            return None
        look = self._face(image, region_of_found(faces, best))
        if look.score < 0.5:
            return None
        moved = np.linalg.norm(look.next_region[:2] - look.region[:2]) / look.region[2]
        if moved > 0.06 or abs(np.log(look.next_region[2] / look.region[2])) > 0.15:
            again = self._face(image, look.next_region)
            look = again if again.score >= 0.5 else look
        return look

    def _put_genders(
        self, image: np.ndarray, evidence: Evidence, rows: list[int], faces: dict[int, tuple[FaceLook, FacePose]]
    ) -> None:
        if rows:
            evidence.male[rows] = self._face_gender.look(image, [faces[row][0] for row in rows])
            for row in rows:
                evidence.sources[row]["shape"] = "face gender"

    def _put_hands(self, evidence: Evidence, hands: list[tuple[int, int, HandLook]]) -> None:
        import torch

        if not hands:
            return
        sides = torch.tensor([side == 0 for _, side, _ in hands])
        with torch.inference_mode():
            seen = torch.from_numpy(np.stack([look.points_m for _, _, look in hands])).float()
            palms, fingers = (answer.numpy() for answer in self._fingers(seen, sides))
        for (row, side, look), palm, joints in zip(hands, palms, fingers, strict=True):
            # Taken for the other hand, its depth is mirrored: then only its places in the picture are of use.
            handed = look.right if side == 1 else 1 - look.right
            trust = look.score * float(np.clip((look.size_px - LEAST_HAND_PX) / 25 + 0.5, 0, 1))
            evidence.keypoints_px[row, COCO_HANDS[side], :2] = look.points_px
            evidence.keypoints_px[row, COCO_HANDS[side], 2] = _HAND_TRUST * trust * (1.0 if handed >= 0.5 else 0.6)
            evidence.hand_rotations[row, side], evidence.wrist_rotations[row, side] = joints, palm
            evidence.hand_confidence[row, side] = trust if handed >= 0.5 else 0.3 * trust
            evidence.wrist_confidence[row, side] = trust * float(np.clip(2 * handed - 0.8, 0, 1))
            wrist = evidence.keypoints_px[row, _JOINT[f"{('left', 'right')[side]}_wrist"], :2]
            evidence.hand_regions[row, side] = look.next_region - [*wrist, 0, 0]
            evidence.sources[row][("left_hand", "right_hand")[side]] = "hand landmarker"


_Answer = TypeVar("_Answer")


def _side_by_side(calls: Sequence[Callable[[], _Answer]]) -> list[_Answer]:
    """What calls give that do not depend on each other, in their order; as many at once as PyTorch may use threads.

    The threads live for these calls alone, which costs a tenth of a millisecond: whoever copies, pickles or forks finds
    none.
    """
    threads = min(_threads(), len(calls))
    if threads < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(threads, "wholebody-looks") as pool:
        return list(pool.map(lambda call: call(), calls))


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def is_this_person(points_px: np.ndarray, row: int, boxes: np.ndarray, body: np.ndarray) -> bool:
    """Whether points (17, 2) that were found looking for person `row` are that person's, not a neighbour's.

    boxes (B, 4) and body (B, 17, 3) of everybody. Most joints that are known well must lie near; nobody else's may lie
    nearer; and most points must be inside the person's box or near it.
    """
    box = boxes[row]
    size = float(max(box[2:] - box[:2]))
    sure = body[row, :, 2] >= _SURE
    if sure.sum() >= 3:
        off = np.linalg.norm(points_px - body[row, :, :2], axis=1)[sure] / size
        if (off < _NEAR).mean() < 0.6:
            return False
        for other in range(len(boxes)):
            shared = sure & (body[other, :, 2] >= _SURE)
            if other == row or shared.sum() < 3:
                continue
            own = np.linalg.norm(points_px - body[row, :, :2], axis=1)[shared].mean()
            theirs = np.linalg.norm(points_px - body[other, :, :2], axis=1)[shared].mean()
            if theirs < own:
                return False
        return True
    margin = 0.15 * size
    inside = ((points_px > box[:2] - margin) & (points_px < box[2:] + margin)).all(1)
    return bool(inside[: _JOINT["left_knee"]].mean() >= 0.7)


def _ends_at(hand: HandLook, wrist: np.ndarray, within_px: float) -> bool:
    return bool(np.linalg.norm(hand.points_px[0] - wrist) <= within_px)


def _merged(body: np.ndarray, look: PoseLook | None, box: np.ndarray) -> np.ndarray:
    """Key points (17, 3): Thunder's, nearer to BlazePose's where both mean the same; BlazePose's where Thunder is at a
    loss. On synthetic people this has 0.88 within a twentieth of the box, Thunder alone 0.87."""
    points = body.copy()
    if look is None:
        return points
    seen = look.coco_visibility
    off = np.linalg.norm(look.coco_px - body[:, :2], axis=1) / max(box[2:] - box[:2])
    same = (off < _AGREE) & (seen >= 0.5)
    points[same, :2] = 0.6 * body[same, :2] + 0.4 * look.coco_px[same]
    lost = (body[:, 2] < 0.25) & (seen >= 0.8) & ~same
    points[lost, :2] = look.coco_px[lost]
    points[lost, 2] = 0.5 * seen[lost]
    return points


def _put_body(evidence: Evidence, row: int, look: PoseLook, image_hw: tuple[int, int], side: float) -> None:
    # Where its own limbs are elsewhere than those that are known better, its feet and depth are of elsewhere too.
    body = evidence.keypoints_px[row, :17]
    off = np.linalg.norm(look.points_px[[_MARK[name] for name in COCO_BODY_17]] - body[:, :2], axis=1) / side
    strays = (off > _AGREE) & (body[:, 2] >= _SURE)
    trust = {name: _STRAY if stray else 1.0 for name, stray in zip(COCO_BODY_17, strays, strict=True)}
    faces_us = evidence.keypoints_px[row, :3, 2].max() >= _SURE  # nose or eyes
    for corner, k in _CORNERS.items() if faces_us else ():
        # Which way a head looks, until the face itself is read.
        evidence.keypoints_px[row, COCO_FACE.start + k] = *look.points_px[_MARK[corner]], _CORNER_TRUST * look.score
    for k, name in enumerate(_FEET):
        if name is not None:
            seen = look.visibility[_MARK[name]] * trust[f"{name.split('_')[0]}_ankle"]
            evidence.keypoints_px[row, COCO_FEET.start + k] = *look.points_px[_MARK[name]], seen
    rows = list(HINT_ROWS)
    evidence.hint_3d[row, :, :3] = look.points_m[rows]
    evidence.hint_3d[row, :, 3] = look.visibility[rows] * look.score * [trust[_limb_end(k)] for k in rows]
    evidence.pose_regions[row] = look.next_region
    evidence.masks[row] = _mask_in_picture(look, image_hw)
    evidence.sources[row]["body"] = "thunder, blazepose"


def _put_face(evidence: Evidence, row: int, face: FaceLook, pose: FacePose) -> None:
    evidence.keypoints_px[row, COCO_FACE, :2] = face.ibug_px
    # Seen from the side, half of the face is guessed.
    towards = float(np.degrees(np.arccos(np.clip(-pose.head_rotation[2, 2], -1, 1))))
    trust = face.score * float(np.clip((90 - towards) / 40, 0, 1))
    evidence.keypoints_px[row, COCO_FACE, 2] = trust * np.array([_CONTOUR_TRUST] * 17 + [_FACE_TRUST] * 51)
    evidence.expression[row], evidence.jaw[row] = pose.expression, pose.jaw
    evidence.head_rotation[row] = pose.head_rotation
    evidence.face_confidence[row] = trust
    evidence.sources[row]["face"] = "face landmarker"


def _limb_end(mark: int) -> str:
    """The joint of COCO's 17 whose place says whether one of BlazePose's points is this person's."""
    name = POSE_33[mark]
    if name in COCO_BODY_17:
        return name
    side, _, part = name.partition("_")
    return f"{side}_ankle" if part in ("heel", "foot_index") else f"{side}_wrist"


def _mask_in_picture(look: PoseLook, image_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """The mask of a look (256, 256) → its box in the picture (4,) and coverage in it; coarser than 256 pixels."""
    import cv2

    from wholebody.model.embedded.blazepose import SIDE
    from wholebody.model.embedded.regions import into_region

    height, width = image_hw
    corners = to_picture(np.array([[0, 0], [SIDE, 0], [SIDE, SIDE], [0, SIDE]]), look.region, SIDE)
    low = np.clip(np.floor(corners.min(0)), 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(corners.max(0)) + 1, low + 1, [width, height]).astype(int)
    base = into_region(np.array([low, low + [1, 0], low + [0, 1]]), look.region, SIDE) - 0.5
    affine = np.column_stack([base[1] - base[0], base[2] - base[0], base[0]])  # picture inside the box → mask's pixels
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    mask = cv2.warpAffine(
        (255 * look.mask).astype(np.uint8), affine, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return np.array([*low, *high]), mask


def _each_hand_once(hands: list[tuple[int, int, HandLook]]) -> list[tuple[int, int, HandLook]]:
    """Where two looks, of one person or of two, see the same hand, the better one: by handedness, then by score."""

    def quality(entry: tuple[int, int, HandLook]) -> float:
        _, side, look = entry
        return (look.right if side == 1 else 1 - look.right) + look.score

    kept: list[tuple[int, int, HandLook]] = []
    for entry in sorted(hands, key=quality, reverse=True):
        look = entry[2]
        if all(
            np.linalg.norm(look.points_px - other[2].points_px, axis=1).mean() > 0.3 * look.size_px for other in kept
        ):
            kept.append(entry)
    return kept
