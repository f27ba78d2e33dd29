"""From boxes to people: crops as the network wants them, and cameras of the whole picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_network import FakeNetwork

import wholebody
from wholebody.body.joints import COCO_FACE, COCO_HANDS, COCO_WHOLEBODY, SMPLX_JOINTS
from wholebody.errors import BadInput
from wholebody.files.image import read_image
from wholebody.geometry.camera import project
from wholebody.geometry.crop import fit_crop
from wholebody.model.embedded.evidence import Evidence
from wholebody.people.detections import Detections
from wholebody.people.predictor import Predictor, crop_area, crop_person

ASTRONAUT = Path(__file__).parents[2] / "demo" / "astronaut.jpg"
BOXES = np.array([[50, 30, 250, 400], [300.5, 100.25, 420, 330], [-40, 20, 90, 600.0]])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)


def test_public_names_and_nobody():
    predictor = wholebody.Predictor(FakeNetwork())
    assert predictor(np.zeros((64, 64, 3), np.uint8), boxes=np.zeros((0, 4))) == []
    assert predictor(np.zeros((64, 64, 3), np.uint8)) == []  # the detector finds nobody in the dark


def test_a_person_is_whole_and_numpy(image):
    people = Predictor(FakeNetwork())(image, boxes=BOXES)
    assert len(people) == 3
    shapes = {
        "box_xyxy": (4,), "global_orient": (3,), "body_pose": (21, 3), "left_hand_pose": (15, 3),
        "right_hand_pose": (15, 3), "jaw_pose": (3,), "betas": (10,), "expression": (10,), "cam_trans": (3,),
        "focal_px": (2,), "principal_px": (2,), "joints_cam": (55, 3), "vertices_cam": (13718, 3),
        "keypoints_px": (133, 2), "left_hand_box_xyxy": (4,),
    }  # fmt: skip
    for person, box in zip(people, BOXES, strict=True):
        assert person.score == 1
        np.testing.assert_allclose(person.box_xyxy, box)
        for name, shape in shapes.items():
            value = getattr(person, name)
            assert isinstance(value, np.ndarray) and value.shape == shape and np.isfinite(value).all(), name
    with pytest.raises(AttributeError):
        people[0].score = 0.5


def test_the_camera_of_the_picture_sees_what_the_crop_saw(image):
    """Points on the mesh, through the whole picture's camera, must land where the crop's projection, moved back into
    the picture, has them: so the overlay lies on the person."""
    for person in Predictor(FakeNetwork())(image, boxes=BOXES):
        joints_px = project(person.joints_cam.astype(float), person.focal_px, person.principal_px)
        for smplx, coco in (("left_wrist", "left_wrist"), ("right_knee", "right_knee"), ("left_hip", "left_hip")):
            seen = person.keypoints_px[COCO_WHOLEBODY.index(coco)]
            np.testing.assert_allclose(joints_px[SMPLX_JOINTS.index(smplx)], seen, atol=2e-3)


def test_keypoints_are_taken_by_name(image):
    """The person stands upright and looks at the camera: their left is on the picture's right, the head is on top."""
    (person,) = Predictor(FakeNetwork())(image, boxes=BOXES[:1])
    at = dict(zip(COCO_WHOLEBODY, person.keypoints_px, strict=True))
    for name in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        assert at[f"left_{name}"][0] > at[f"right_{name}"][0], name
    assert at["nose"][1] < at["left_shoulder"][1] < at["left_hip"][1] < at["left_knee"][1] < at["left_ankle"][1]
    face, left_hand, right_hand = (
        person.keypoints_px[part] for part in (COCO_FACE, *COCO_HANDS)
    )
    assert np.abs(face.mean(0) - at["nose"]).max() < 0.1 * np.ptp(person.keypoints_px[:, 1])
    assert np.abs(left_hand - at["left_wrist"]).max() < np.abs(left_hand - at["right_wrist"]).max()
    assert np.abs(right_hand - at["right_wrist"]).max() < np.abs(right_hand - at["left_wrist"]).max()


class Finding(FakeNetwork):
    def forward(self, images):
        out = super().forward(images)
        out.found_keypoints = torch.full((len(images), 17, 3), 0.5)
        return out


def test_hands_are_followed_from_frame_to_frame_by_whose_they_are(image):
    """And the people of all frames are aligned together, each by what was seen of them."""
    asked, faces, aligned = [], [], []

    def landmarkers(picture, boxes, points, hand_regions=None, genders=None):
        asked.append(hand_regions)
        faces.append(genders)
        evidence = Evidence.nothing(len(boxes))
        if genders is not None and len(faces) > 1:  # in the first frame no face is seen
            for sources, gender in zip(evidence.sources, genders, strict=True):
                sources.update({"shape": "face gender"} if gender else {})
        evidence.hand_regions[:] = boxes[:, None]  # so that it can be told whose they are
        return evidence

    def aligner(people, evidence):
        aligned.append(len(people))
        for person, regions in zip(people, evidence.hand_regions, strict=True):
            np.testing.assert_allclose(regions[0], person.box_xyxy)
        return list(people)

    predictor = Predictor(Finding())
    predictor.__dict__.update(_landmarkers=landmarkers, _aligner=aligner)
    found = [Detections(boxes, np.ones(len(boxes))) for boxes in (BOXES[:2], BOXES[[1, 0, 2]], BOXES[:0], BOXES[:1])]
    who = [[7, 8], [8, 7, 9], [], [7]]
    frames = predictor.laid_on([image] * 4, predictor.see([image] * 4, found, who), who)
    assert [len(people) for people in frames] == [2, 3, 0, 1] and aligned == [6]
    assert np.isnan(asked[0]).all() and np.isnan(asked[1][2]).all()
    np.testing.assert_allclose(asked[1][:2, 0], BOXES[[1, 0]])
    predictor.predict_many([image] * 2, found[:2])  # pictures that have nothing to do with each other
    assert asked[3] is None and asked[4] is None and aligned == [6, 5]
    assert faces == [[True] * 2, [True] * 3, [False], None, None]
    many = [Detections(np.tile(BOXES[:1], (9, 1)), np.ones(9))] * 4
    assert [len(people) for people in predictor.predict_many([image] * 4, many)] == [9] * 4 and aligned[2:] == [18, 18]
    predictor.gender = "male"
    predictor.predict_many([image], found[:1])
    assert faces[-1] == [False] * 2  # nobody's face need say what is known


def test_batches_do_not_mix_people_or_pictures(image):
    network = FakeNetwork()
    dark = (image // 4).astype(np.uint8)
    found = [Detections(BOXES, np.array([0.9, 0.8, 0.7])), Detections(BOXES[:2], np.array([0.6, 0.5]))]
    together = Predictor(network, batch_size=3).predict_many([image, dark], found)
    assert [len(images) for images in network.seen] == [3, 2]
    alone = [
        Predictor(FakeNetwork(), batch_size=1).predict_many([im], [d])[0]
        for im, d in zip([image, dark], found, strict=True)
    ]
    assert [[p.score for p in people] for people in together] == [[0.9, 0.8, 0.7], [0.6, 0.5]]
    for a, b in zip(sum(together, []), sum(alone, []), strict=True):
        for name in a.numbers():
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5, err_msg=name)
    assert together[0][0].body_pose[14, 0] > 2 * together[1][0].body_pose[14, 0]  # each saw their own picture


def test_crop_boxes_are_the_published_ones(oracle):
    """Where the published code cuts the box at the picture; boxes that begin outside it are shifted there, not cut."""
    arrays = oracle("bbox")
    image_hw = tuple(arrays["in/img_wh"][::-1])
    checked = 0
    for box, expected in zip(arrays["in/boxes"], arrays["out/process"], strict=True):
        if (box[:2] < 0).any() or np.isnan(expected).any():
            continue
        fitted = fit_crop(np.concatenate([box[:2], box[:2] + box[2:] - 1]), image_hw, 1.25)
        np.testing.assert_allclose([*fitted[:2], *(fitted[2:] - fitted[:2])], expected, rtol=2e-5, atol=2e-4)
        checked += 1
    assert checked >= 5


def test_a_crop_of_a_huge_picture_equals_that_of_its_part():
    rng = np.random.default_rng(1)
    huge = np.zeros((900, 12000, 3), np.uint8)
    part = rng.integers(0, 255, (700, 600, 3)).astype(np.uint8)
    huge[100:800, 11000:11600] = part
    box = np.array([150.0, 100, 450, 500])
    for crop_filter in ("published", "area"):
        near = crop_person(part, box, crop_filter)
        far = crop_person(huge, box + [11000, 100, 11000, 100], crop_filter)
        assert np.abs(near - far).max() < 1, crop_filter


def test_area_crops_do_not_alias():
    """A fine checkerboard is grey from afar. The published bilinear crop makes a pattern of it, the other must not."""
    picture = np.indices((2048, 1536)).sum(0) % 2
    picture = np.repeat((picture * 255).astype(np.uint8)[..., None], 3, 2)
    box = np.array([0.0, 0, 1536, 2048])
    smooth = crop_person(picture, box, "area")[32:-32, 32:-32]
    assert smooth.shape == (448, 320, 3) and abs(smooth.mean() - 127.5) < 2 and smooth.std() < 3


def test_area_crops_are_the_samples_that_the_network_sees():
    """The network sees one pixel in 2×2, picked or averaged: both must give the same."""
    crop = crop_person(np.random.default_rng(0).integers(0, 255, (300, 300, 3)).astype(np.uint8),
                       np.array([20.0, 10, 200, 250]), "area")  # fmt: skip
    np.testing.assert_array_equal(crop[::2, ::2], crop.reshape(256, 2, 192, 2, 3).mean((1, 3)))


def test_float64_stays_float64(image):
    class Double(FakeNetwork):
        def forward(self, images):
            assert images.dtype == torch.float64
            out = super().forward(images.float())
            doubled = {name: value if value is None else value.double() for name, value in vars(out).items()}
            return type(out)(**doubled)

    (person,) = Predictor(Double().double())(image, boxes=BOXES[:1])
    assert person.vertices_cam.dtype == person.keypoints_px.dtype == np.float64


@pytest.mark.parametrize(
    ("boxes", "says"),
    [
        ([[10, 10, np.nan, 50]], "finite"),
        ([[10, 10, np.inf, 50]], "finite"),
        ([[50, 10, 20, 50]], "inverted"),
        ([[10, 50, 50, 50]], "inverted"),
        ([[700, 10, 800, 50]], "640×480"),
        ([[-100, -100, -5, -5]], "640×480"),
        ([[10, 10, 11, 50]], None),
        ([[1, 2, 3]], "N×4"),
        ("nonsense", "numbers"),
    ],
)
def test_bad_boxes_are_named(image, boxes, says):
    if says is None:  # thin, but inside
        assert len(Predictor(FakeNetwork())(image, boxes=[[10, 10, 13, 50]])) == 1
        says = "2 pixels"
    with pytest.raises(BadInput, match=says):
        Predictor(FakeNetwork())(image, boxes=boxes)


@pytest.mark.parametrize(
    "bad", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), "a.jpg"]
)
def test_pictures_of_the_wrong_kind(bad):
    with pytest.raises(BadInput, match="uint8"):
        Predictor(FakeNetwork())(bad)


def test_detector_is_asked_when_no_boxes_are_given():
    people = Predictor(FakeNetwork())(read_image(ASTRONAUT))
    assert len(people) == 1 and 0.2 <= people[0].score <= 1


def test_a_model_without_a_body_is_refused():
    network = FakeNetwork()
    network.body = None
    with pytest.raises(BadInput, match="body"):
        Predictor(network)


class Glancing(Finding):
    """Sees bodies sooner than hands: hands say how bright the picture was in which they were looked for."""

    can_glance = True

    def forward(self, images):
        out = super().forward(images)
        out.rotations = torch.eye(3).expand(len(images), 53, 3, 3)
        out.expression = images.mean((1, 2, 3))[:, None].expand(-1, 10)
        return out

    def glance(self, images, rotations, expression):
        assert rotations.shape == (len(images), 53, 3, 3)
        out = super().forward(images)
        out.expression = expression
        return out


def test_between_whole_looks_hands_and_face_are_those_of_the_nearest_frame():
    frames = [np.full((120, 160, 3), 10 * k, np.uint8) for k in range(8)]
    two = np.array([[20.0, 20, 74, 92], [80, 20, 134, 92]])
    found = [Detections(two, np.ones(2)) if k != 3 else Detections(two[:1], np.ones(1)) for k in range(8)]
    who = [[4, 9] if k != 3 else [4] for k in range(8)]
    network = Glancing()
    seen = Predictor(network, batch_size=32).see(frames, found, who, every=3)
    assert [len(images) for images in network.seen] == [6, 9]
    said = [[round(float(person.expression[0]) * 25.5) for person in people] for people in seen.people]
    assert [row[0] for row in said] == [1, 1, 1, 4, 4, 4, 7, 7]
    assert [row[-1] for row in said if len(row) == 2] == [1, 1, 1, 5, 5, 5, 7]
    bodies = [round(float(people[0].body_pose[14, 0]) * 25.5) for people in seen.people]
    assert bodies == list(range(8)), "the body is every frame's own"
    every = Predictor(network, batch_size=32).see(frames, found, who)
    assert [round(float(people[0].expression[0]) * 25.5) for people in every.people] == list(range(8))


def test_a_glance_has_the_body_of_a_whole_look_and_the_hands_of_before(image):
    model = wholebody.load_model("t")
    assert model.can_glance
    crops = torch.from_numpy(np.stack([crop_person(image, box, "area") for box in BOXES[:2]])).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        whole = model(crops)
        again = model.glance(crops, whole.rotations, whole.expression)
        other = model.glance(crops, whole.rotations.flip(0), whole.expression.flip(0))
    for name in ("global_orient", "body_pose", "left_hand_pose", "jaw_pose", "betas", "joints_cam", "found_keypoints"):
        torch.testing.assert_close(getattr(again, name), getattr(whole, name), atol=2e-4, rtol=1e-4)
    wrists = [19, 20]
    kept = [joint for joint in range(21) if joint not in wrists]
    torch.testing.assert_close(other.body_pose[:, kept], whole.body_pose[:, kept], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(other.right_hand_pose, whole.right_hand_pose.flip(0), atol=2e-4, rtol=1e-4)


def test_a_crop_at_the_size_that_is_read_says_what_the_repeated_one_does(image):
    model = wholebody.load_model("t")
    assert model.reads_hw == (256, 192) and model.config.input_hw == (512, 384)
    both = [[crop_person(image, box, "area") for box in BOXES], [crop_area(image, box, (256, 192)) for box in BOXES]]
    np.testing.assert_array_equal(np.stack(both[0])[:, ::2, ::2], np.stack(both[1]))
    with torch.inference_mode():
        large, small = (model(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255) for crops in both)
    for name in ("vertices_cam", "found_keypoints", "face_box", "expression"):
        torch.testing.assert_close(getattr(small, name), getattr(large, name), atol=2e-4, rtol=1e-4)


def test_a_person_whom_a_detector_found_twice_counts_once(image, monkeypatch):
    """Two boxes, one person's key points in both: it stays in whose box they are at home. Given boxes are all kept."""
    boxes = np.array([[10.0, 10, 60, 110], [12, 40, 90, 118], [70, 10, 110, 110]])
    scores = np.array([0.5, 0.6, 0.4])
    rng = np.random.default_rng(0)
    person, other = (np.column_stack([box[:2] + rng.random((17, 2)) * (box[2:] - box[:2]), np.full(17, 0.8)])
                     for box in boxes[[0, 2]])  # fmt: skip
    points = [person, person + [1, 1, 0], other]
    predictor = Predictor(FakeNetwork())
    see = predictor.see

    def seen(images, found):
        answer = see(images, found)
        answer.keypoints[:] = [[points[int(np.abs(boxes - p.box_xyxy).sum(1).argmin())] for p in row]
                               for row in answer.people]  # fmt: skip
        return answer

    monkeypatch.setattr(predictor, "see", seen)
    monkeypatch.setattr(predictor, "laid_on", lambda images, seen: seen.people)
    found = Detections(boxes, scores, np.zeros((3, 17, 2)), np.zeros((3, 17)))
    (people,) = predictor.predict_many([image], [found])
    assert [p.box_xyxy.tolist() for p in people] == boxes[[0, 2]].tolist()
    np.testing.assert_array_equal(found.of(people).scores, [0.5, 0.4])
    (everybody,) = predictor.predict_many([image], [Detections(boxes, scores)])
    assert len(everybody) == 3
    unsure = [p * [1, 1, 0.2] for p in points]
    points[:] = unsure
    assert len(predictor.predict_many([image], [found])[0]) == 3


def test_who_is_taken_for_a_neighbour_is_looked_at_again_with_the_neighbour_covered(image):
    """The network sees the brightest person of the crop; the box is the darker one's."""

    class Brightest(FakeNetwork):
        def forward(self, images):
            answer = super().forward(images)
            found = []
            for grey in images.mean(1):
                bright = grey > 0.9 * grey.max()
                rows, columns = bright.nonzero(as_tuple=True)
                low, high = torch.tensor([columns.min(), rows.min()]), torch.tensor([columns.max(), rows.max()])
                spread = low + torch.linspace(0, 1, 17)[:, None] * (high - low)
                found.append(torch.cat([spread / torch.tensor([384.0, 512.0]), torch.full((17, 1), 0.8)], 1))
            answer.found_keypoints = torch.stack(found)
            return answer

    picture = np.full((200, 300, 3), 10, np.uint8)
    picture[40:160, 60:120], picture[30:170, 130:200] = 150, 240
    box, neighbour = [52, 32, 128, 168], [122, 24, 208, 176]  # about the two, dark borders within
    network = Brightest()
    predictor = Predictor(network, parts=("body",))
    seen = predictor.see([picture], [Detections(np.array([box, neighbour], float), np.ones(2))])
    assert len(network.seen) == 2 and len(network.seen[1]) == 1  # the second look, at one of them
    for points, where in zip(seen.keypoints[0], ([60, 40, 120, 160], [130, 30, 200, 170]), strict=True):
        np.testing.assert_allclose([*points[:, :2].min(0), *points[:, :2].max(0)], where, atol=4)
