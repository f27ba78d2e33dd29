"""Landmarkers for the people of a picture: each gets its own body, hands and face, or none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch

from wholebody.body.joints import COCO_FACE, COCO_HANDS
from wholebody.body.layer import BodyModel
from wholebody.body.open_body import read_compact
from wholebody.errors import BadInput
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.embedded import hand_pose
from wholebody.model.embedded.evidence import HINT_33, Evidence
from wholebody.model.embedded.face_landmarks import BLENDSHAPES, FaceLook
from wholebody.model.embedded.face_pose import JAW_OPEN_RAD, expression_of, head_rotation
from wholebody.model.embedded.hand_landmarks import HandLook
from wholebody.model.embedded.hand_pose import lay_on_palm, load_hand_pose, pose_points, rest_hands
from wholebody.model.embedded.thunder import MIRRORED_17
from wholebody.people.landmarkers import Landmarkers, _each_hand_once, _mask_in_picture, is_this_person

HER_BOX = np.array([20.0, 8, 370, 512])
# Of the portrait: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
HER_BODY = np.array(
    [[224, 126, 0.7], [249, 104, 0.8], [203, 102, 0.7], [275, 120, 0.7], [177, 114, 0.8], [331, 272, 0.8],
     [97, 257, 0.7], [335, 444, 0.1], [67, 426, 0.6], [317, 480, 0.1], [152, 506, 0.4], [276, 511, 0.7],
     [136, 511, 0.6], [0, 0, 0.0], [0, 0, 0.0], [0, 0, 0.0], [0, 0, 0.0]]
)  # fmt: skip


@pytest.fixture(scope="module")
def evidence(astronaut: np.ndarray) -> Evidence:
    return Landmarkers()(astronaut, HER_BOX[None], HER_BODY[None])


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel.load("open", flat_hand_mean=True)


def test_what_is_seen_of_the_astronaut(evidence: Evidence):
    assert len(evidence) == 1
    assert evidence.sources[0] == {"body": "thunder, blazepose", "face": "face landmarker", "shape": "face gender"}
    assert evidence.male[0] < 0.5
    # Her hands are hidden.
    assert evidence.hand_confidence.max() == 0 and evidence.keypoints_px[0, COCO_HANDS[0], 2].max() == 0
    nose = evidence.keypoints_px[0, 0]
    assert np.abs(nose[:2] - [222, 126]).max() < 8 and nose[2] > 0.5
    inner = evidence.keypoints_px[0, COCO_FACE][17:]
    assert inner[:, 2].min() > 0.7 and np.abs(inner[:, :2].mean(0) - [224, 125]).max() < 12
    # Upright, towards the camera, the head a little to one side.
    turn = evidence.head_rotation[0]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-5)
    assert turn[1, 1] < -0.9 and turn[2, 2] < -0.9 and np.linalg.det(turn) > 0.99
    # In 3D, the nose is above the hips and nearer than the shoulders' middle.
    hint = dict(zip(HINT_33, evidence.hint_3d[0], strict=True))
    assert hint["nose"][1] < -0.4 and hint["nose"][2] < hint["left_shoulder"][2] and hint["nose"][3] > 0.9
    assert np.isfinite(evidence.pose_regions).all()


def test_her_mask_lies_on_her(evidence: Evidence):
    (x0, y0, x1, y1), coverage = evidence.masks[0]
    assert coverage.shape == (y1 - y0, x1 - x0)
    whole = np.zeros((512, 512), np.uint8)
    whole[y0:y1, x0:x1] = coverage
    assert whole[330, 150] > 200 and whole[120, 222] > 200  # suit and face
    assert whole[60, 400] < 50 and whole[250, 480] < 50 and whole[100, 60] < 50  # rocket, wall, flag


def test_she_smiles(evidence: Evidence, body: BodyModel):
    """Her expression on the body: the corners of the mouth go up and apart."""
    expression = torch.from_numpy(evidence.expression).double()
    still = torch.eye(3).expand(2, 55, 3, 3)
    both = torch.cat([torch.zeros(1, 10), expression.float()])
    joints = body.from_matrices(still, torch.zeros(2, 10), both).joints[:, 76:127]
    corners = joints[:, [31, 37]]
    assert (corners[1, :, 1] - corners[0, :, 1]).min() > 0.002
    assert (corners[1, 1, 0] - corners[1, 0, 0]) - (corners[0, 1, 0] - corners[0, 0, 0]) > 0.004


def test_parts_can_be_left_out(astronaut: np.ndarray):
    only_face = Landmarkers(parts=("face",))(astronaut, HER_BOX[None], HER_BODY[None])
    assert only_face.sources[0] == {"body": "thunder", "face": "face landmarker", "shape": "face gender"}
    assert only_face.masks[0] is None
    np.testing.assert_allclose(only_face.keypoints_px[0, :17], HER_BODY, rtol=1e-6)
    unasked = Landmarkers(parts=("face",))(astronaut, HER_BOX[None], HER_BODY[None], genders=[False])
    assert "shape" not in unasked.sources[0] and np.isnan(unasked.male[0])
    nothing = Landmarkers(parts=())(astronaut, HER_BOX[None], HER_BODY[None])
    assert nothing.sources[0] == {"body": "thunder"} and nothing.face_confidence[0] == 0
    with pytest.raises(BadInput, match="'feet'; known: body, hands, face"):
        Landmarkers(parts=("feet",))


def test_nobody(astronaut: np.ndarray):
    nobody = Landmarkers()(astronaut, np.zeros((0, 4)), np.zeros((0, 17, 3)))
    assert len(nobody) == 0 and nobody.keypoints_px.shape == (0, 133, 3)


def test_the_next_frame_begins_where_the_last_one_ended(astronaut: np.ndarray, evidence: Evidence):
    moved = np.roll(astronaut, 6, 1)
    body17 = HER_BODY + [6, 0, 0]
    again = Landmarkers(("body",))(moved, HER_BOX[None] + [6, 0, 6, 0], body17[None], evidence.pose_regions)
    np.testing.assert_allclose(again.keypoints_px[0, :7, :2], evidence.keypoints_px[0, :7, :2] + [6, 0], atol=6)
    # A region that shows somebody else, or nobody, is not believed.
    lost = Landmarkers(("body",))(moved, HER_BOX[None], body17[None], np.array([[440.0, 100, 120, 0]]))
    assert lost.sources[0]["body"] == "thunder, blazepose" and lost.pose_regions[0, 2] > 500


class OneHand:
    """Sees a hand of `size` pixels that begins at `wrist`, wherever it looks near by; keeps where it looked."""

    def __init__(self, wrist: tuple[float, float], size: float = 80.0, score: float = 0.9) -> None:
        self.wrist, self.size, self.score = np.array(wrist), size, score
        self.regions: list[np.ndarray] = []

    def __call__(self, image: np.ndarray, region: np.ndarray) -> HandLook:
        self.regions.append(np.asarray(region))
        points = self.wrist + np.stack([np.zeros(21), -np.linspace(0, self.size, 21)], 1)
        near = np.linalg.norm(region[:2] - points[10]) < region[2]
        next_region = np.array([*points[10], 2 * self.size, 0.0])
        score = self.score if near else 0.1
        return HandLook(points, np.zeros(21), np.zeros((21, 3)), score, 1.0, region, next_region)


def followed(hand: OneHand, before: np.ndarray | None) -> list[int]:
    points = np.zeros((17, 3))
    points[8], points[10] = [300, 420, 0.9], [300, 300, 0.9]  # right elbow and wrist
    marks = Landmarkers(("hands",))
    marks.__dict__["_hand"] = hand
    picture = np.zeros((600, 600, 3), np.uint8)
    box = np.array([200.0, 100, 400, 500])
    regions = [None, None] if before is None else before
    return [side for side in (0, 1) if marks._side(picture, points, None, box, side, regions[side]) is not None]


def test_a_hand_that_is_where_it_was_costs_one_look():
    there = np.array([[np.nan] * 4, [0.0, -40, 160, 0]])  # about the wrist
    hand = OneHand((300, 300))
    assert followed(hand, there) == [1] and len(hand.regions) == 1
    np.testing.assert_array_equal(hand.regions[0], [300, 260, 160, 0])
    first = OneHand((300, 300))
    assert followed(first, None) == [1] and len(first.regions) == 2
    # What is unsure, ends elsewhere, or is not there any more is looked for from the arm.
    # An unsure one is looked for in both regions that there are without BlazePose; each ends with a look from there.
    for lost, region, looks in (
        (OneHand((300, 300), score=0.6), there, 4),
        (OneHand((345, 300)), there, 3),
        (OneHand((300, 300)), there + [400, 0, 0, 0], 3),
    ):
        assert followed(lost, region) == [1] and len(lost.regions) == looks
    small = OneHand((300, 300), size=20)
    assert followed(small, None) == [] and len(small.regions) == 1


def two_people(astronaut: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of two, their boxes and key points: she, and she in a mirror."""
    small = cv2.resize(astronaut, (320, 320), interpolation=cv2.INTER_AREA)
    picture = np.concatenate([small[:, :240], small[:, :240, :][:, ::-1]], 1)
    scale = 320 / 512
    one = HER_BODY * [scale, scale, 1]
    two = (one * [-1, 1, 1] + [479, 0, 0])[list(MIRRORED_17)]
    boxes = np.stack([HER_BOX * scale, [479 - 370 * scale, 8 * scale, 479 - 20 * scale, 320]])
    return picture, boxes, np.stack([one, two])


def test_two_people_keep_their_own(astronaut: np.ndarray):
    found = Landmarkers(("body", "face"))(*two_people(astronaut))
    noses = found.keypoints_px[:, 0, 0]
    assert abs(noses[0] - 140) < 8 and abs(noses[1] - (479 - 140)) < 8
    assert (found.face_confidence > 0.5).all()
    face = found.keypoints_px[:, COCO_FACE, 0].mean(1)
    assert abs(face[0] - 140) < 12 and abs(face[1] - 339) < 12


@pytest.mark.parametrize("people", [1, 2])
def test_looking_side_by_side_sees_the_same(astronaut: np.ndarray, people: int):
    """One thread, four, and eight callers that share the networks: the same bytes."""
    image, boxes, points = two_people(astronaut)
    marks = Landmarkers()

    def look(_: int = 0) -> Evidence:
        return marks(image, boxes[:people], points[:people])

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = look()
        torch.set_num_threads(4)
        together = [look()]
        with ThreadPoolExecutor(8, initializer=torch.set_num_threads, initargs=(3,)) as callers:
            together += callers.map(look, range(8))
    finally:
        torch.set_num_threads(before)
    assert (alone.face_confidence > 0.5).all()
    for seen in together:
        assert seen.sources == alone.sources
        for name in ("keypoints_px", "hint_3d", "expression", "jaw", "hand_rotations", "pose_regions", "hand_regions"):
            np.testing.assert_array_equal(getattr(seen, name), getattr(alone, name), err_msg=name)


def test_what_goes_wrong_beside_the_others_is_told(astronaut: np.ndarray):
    class Broken:
        def __call__(self, image: np.ndarray, region: np.ndarray) -> None:
            raise AssertionError("out of order")

    marks = Landmarkers(("face",))
    marks.__dict__["_face_detector"] = Broken()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with pytest.raises(AssertionError, match="out of order"):
                marks(*two_people(astronaut))
    finally:
        torch.set_num_threads(before)


def test_a_neighbours_body_is_refused():
    rng = np.random.default_rng(0)
    own = np.concatenate([rng.uniform(0, 100, (17, 2)) * [1, 2], np.full((17, 1), 0.9)], 1)
    other = own + [120, 0, 0]
    boxes, bodies = np.array([[0, 0, 100, 200], [120, 0, 220, 200.0]]), np.stack([own, other])
    assert is_this_person(own[:, :2] + 5, 0, boxes, bodies)
    assert not is_this_person(other[:, :2], 0, boxes, bodies)
    # So close that both would do: the nearer one's.
    bodies[1] = own + [16, 0, 0]
    assert not is_this_person(own[:, :2] + [13, 0], 0, boxes, bodies)
    assert is_this_person(own[:, :2] + [3, 0], 0, boxes, bodies)
    # With no key point known well, the box decides.
    unsure = own * [1, 1, 0.1]
    assert is_this_person(own[:, :2], 0, boxes[:1], unsure[None])
    assert not is_this_person(own[:, :2] + [300, 0], 0, boxes[:1], unsure[None])


def test_a_hand_is_given_away_once():
    def look(x: float, right: float, score: float = 0.9) -> HandLook:
        points = np.stack([np.linspace(x, x + 50, 21), np.zeros(21)], 1)
        nothing = np.zeros(21)
        return HandLook(points, nothing, np.zeros((21, 3)), score, right, np.zeros(4), np.zeros(4))

    kept = _each_hand_once([(0, 0, look(0, 0.9)), (0, 1, look(2, 0.9)), (1, 0, look(300, 0.2))])
    assert [(row, side) for row, side, _ in kept] == [(0, 1), (1, 0)]  # it is a right hand


# What hands and faces become


def hands_of(body: BodyModel, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left hands in gestures: points in metres about the wrist, rotations, and the flat ones."""
    from wholebody.synthesis.people.hands import GESTURES, HandSpace

    still = torch.eye(3).expand(1, 55, 3, 3)
    rest55 = body.from_matrices(still, torch.zeros(1, 10), torch.zeros(1, 10)).joints[0, :55]
    pose = HandSpace.of(rest55.numpy()).pose(np.stack(list(GESTURES.values()))[:count])
    rotations = axis_angle_to_matrix(torch.from_numpy(pose).float())
    rest = rest_hands(body, torch.zeros(count, 10))
    return pose_points(rotations, rest), rotations, rest


def test_points_of_a_posed_hand_are_the_bodys(body: BodyModel):
    points, rotations, _ = hands_of(body, 4)
    full = torch.eye(3).repeat(4, 55, 1, 1)
    full[:, 25:40] = rotations
    joints = body.from_matrices(full, torch.zeros(4, 10), torch.zeros(4, 10)).joints[:, hand_pose.POINT_ROWS]
    joints = joints - joints[:, :1]
    # Joints are equal; finger tips lie on the skin, which bends a little on its own.
    tips = [4, 8, 12, 16, 20]
    torch.testing.assert_close(
        *(torch.as_tensor(np.delete(p.numpy(), tips, 1)) for p in (points, joints)), atol=1e-5, rtol=0
    )
    assert (points - joints).norm(dim=2).max() < 0.004


def test_a_palm_is_laid_onto_rest(body: BodyModel):
    rest = rest_hands(body, torch.zeros(1, 10))
    turn = axis_angle_to_matrix(torch.tensor([[0.3, -1.2, 2.0]]))
    placed, found = lay_on_palm(3 * rest @ turn.mT + 7, rest[0])
    torch.testing.assert_close(found, turn, atol=1e-4, rtol=0)
    torch.testing.assert_close(placed, rest, atol=1e-5, rtol=0)


def test_gestures_are_read_from_their_points(body: BodyModel):
    network = load_hand_pose()
    points, rotations, _ = hands_of(body, 16)
    turn = axis_angle_to_matrix(torch.tensor([0.4, 2.2, -0.7]))
    palms, fingers = network(points @ turn.mT, torch.ones(16, dtype=torch.bool))

    def degrees(one, other):
        cos = ((one * other).sum((-2, -1)) - 1) / 2
        return torch.rad2deg(cos.clamp(-1, 1).acos())

    assert degrees(palms, turn.expand_as(palms)).max() < 20
    constant = degrees(torch.eye(3).expand_as(rotations), rotations).mean()
    assert degrees(fingers, rotations).mean() < 0.5 * constant
    # The same points as a right hand are the mirror image.
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    flip = mirror[:, None] * mirror
    other_palms, other_fingers = network(points @ turn.mT * mirror, torch.zeros(16, dtype=torch.bool))
    torch.testing.assert_close(other_palms, palms * flip, atol=1e-4, rtol=0)
    torch.testing.assert_close(other_fingers, fingers * flip, atol=1e-4, rtol=0)


def test_a_turned_head_is_read_from_a_face(body: BodyModel):
    """The body's own landmarks, turned and seen from far away, in the places of the landmarker's."""
    from wholebody.model.embedded.face_landmarks import FACE_68
    from wholebody.model.embedded.face_pose import _PITCH_RAD, _rest_points

    turn = np.diag([1.0, -1, -1]) @ axis_angle_to_matrix(torch.tensor([0.1, 0.5, -0.2])).double().numpy()
    seen = _rest_points() @ turn.T * 900
    points, depth = np.zeros((478, 2)), np.zeros(478)
    points[list(FACE_68[17:])], depth[list(FACE_68[17:])] = seen[:, :2] + 300, seen[:, 2]
    found = head_rotation(FaceLook(points, depth, 1.0, np.zeros(4), np.zeros(4)))
    off = turn.T @ found  # what remains is the constant by which the landmarker's faces look up
    np.testing.assert_allclose(np.arccos((np.trace(off) - 1) / 2), _PITCH_RAD, atol=1e-6)


def test_blendshapes_are_the_bodys_facial_actions():
    calm = np.zeros(52)
    expression, jaw = expression_of(calm)
    assert np.abs(expression).max() == 0 and np.abs(jaw).max() == 0
    compact = read_compact()
    names = compact["action_names"].tolist()
    smile = calm.copy()
    smile[[BLENDSHAPES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight", "jawOpen")]] = 1, 1, 0.5
    expression, jaw = expression_of(smile)
    expected = sum(compact["action_expression"][names.index(name)] for name in ("mouthSmileLeft", "mouthSmileRight"))
    np.testing.assert_allclose(expression, expected, atol=1e-6)
    np.testing.assert_allclose(jaw, [JAW_OPEN_RAD / 2, 0, 0])


def test_shut_eyes_shut_the_bodys(body: BodyModel):
    shut = np.zeros(52)
    shut[[BLENDSHAPES.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = 0.65
    expression, _ = expression_of(shut)
    still = torch.eye(3).expand(2, 55, 3, 3)
    both = torch.from_numpy(np.stack([np.zeros(10), expression])).float()
    joints = body.from_matrices(still, torch.zeros(2, 10), both).joints[:, 76:127].numpy()
    # Upper and lower lids of both eyes, in the order of iBUG.
    upper, lower = [20, 21, 26, 27], [24, 23, 30, 29]
    gap = (joints[:, upper, 1] - joints[:, lower, 1]).mean(1)
    assert gap[1] < 0.35 * gap[0]


def test_a_mask_is_where_its_region_is():
    from wholebody.model.embedded.blazepose import PoseLook

    nothing = np.zeros(33)
    mask = np.zeros((256, 256), np.float32)
    mask[64:192, 64:192] = 1
    region = np.array([50.0, 40.0, 60.0, 0.0])
    look = PoseLook(np.zeros((33, 2)), nothing, np.zeros((33, 3)), nothing, nothing, 1.0, mask, region, region)
    (x0, y0, x1, y1), coverage = _mask_in_picture(look, (100, 120))
    whole = np.zeros((100, 120))
    whole[y0:y1, x0:x1] = coverage / 255
    np.testing.assert_allclose(whole.sum(), 30 * 30, rtol=0.03)
    y, x = np.indices(whole.shape)
    np.testing.assert_allclose([(x * whole).sum() / whole.sum(), (y * whole).sum() / whole.sum()], [50, 40], atol=0.2)


def test_evidence_of_some(evidence: Evidence):
    assert len(evidence.take([])) == 0
    one = evidence.take([0])
    np.testing.assert_array_equal(one.keypoints_px, evidence.keypoints_px)
    assert one.sources == evidence.sources


def test_the_hands_network_is_the_one_its_card_describes():
    import hashlib
    from importlib.resources import files

    folder = files("wholebody") / "weights"
    assert hashlib.sha256((folder / hand_pose.FILE).read_bytes()).hexdigest() in (folder / "hand_pose.md").read_text()
