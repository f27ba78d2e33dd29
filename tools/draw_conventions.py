"""Draw docs/conventions.png: boxes, crop, keypoints and the camera of one person, from the very functions that predict.

    python tools/draw_conventions.py
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from wholebody.body.joints import COCO_WHOLEBODY_FROM_137, FROM_144
from wholebody.body.layer import BodyModel
from wholebody.drawing.raster import draw_mesh
from wholebody.geometry.camera import VirtualCamera, project
from wholebody.geometry.crop import fit_crop

TARGET = Path(__file__).resolve().parent.parent / "docs" / "conventions.png"
UP = 2  # drawn larger, then averaged down
PHOTO_HW = (430, 560)
INK, SKIN = (40, 40, 46), (0.55, 0.73, 0.92)
GREEN, ORANGE, VIOLET, RED = (30, 130, 70), (214, 110, 20), (130, 70, 170), (200, 40, 50)
COLORS_OF_PARTS = [(slice(0, 23), INK), (slice(23, 91), GREEN), (slice(91, 112), ORANGE), (slice(112, 133), VIOLET)]


def main() -> None:
    body = BodyModel.load().eval()
    pose = torch.zeros(1, 21, 3)
    pose[0, 15, 2], pose[0, 16, 2] = -1.0, 0.75  # arms
    pose[0, 17, 1] = -0.7
    out = body(
        betas=torch.zeros(1, 10), expression=torch.zeros(1, 10), global_orient=torch.tensor([[math.pi, 0, 0]]),
        body_pose=pose, left_hand_pose=torch.zeros(1, 15, 3), right_hand_pose=torch.zeros(1, 15, 3),
        jaw_pose=torch.zeros(1, 3),
    )  # fmt: skip
    box = np.array([125.0, 66, 340, 402])
    crop_box = fit_crop(box - np.array([0, 0, 1, 1]), PHOTO_HW, 1.25)
    camera = VirtualCamera().in_picture([*crop_box[:2], *(crop_box[2:] - crop_box[:2])])
    # Where the network would have put the body: its middle in the middle of the box, as high as the box.
    low, high = out.vertices[0].min(0).values.numpy(), out.vertices[0].max(0).values.numpy()
    depth = camera.focal_px[1] * (high[1] - low[1]) / (box[3] - box[1])
    middle_px = (box[:2] + box[2:]) / 2
    sideways = (middle_px - camera.principal_px) / camera.focal_px * depth
    shift = np.array([*(sideways - (low + high)[:2] / 2), depth])
    vertices, joints = out.vertices[0].numpy() + shift, out.joints[0].numpy() + shift

    photo = draw_photo(body, vertices, joints, camera, box, crop_box)
    scheme = draw_scheme(body, vertices)
    figure = np.concatenate([photo, np.full((photo.shape[0], 16 * UP, 3), 255, np.uint8), scheme], axis=1)
    figure = cv2.resize(figure, None, fx=1 / UP * 1.6, fy=1 / UP * 1.6, interpolation=cv2.INTER_AREA)
    TARGET.parent.mkdir(exist_ok=True)
    from PIL import Image

    Image.fromarray(figure).quantize(128, dither=Image.Dither.NONE).save(TARGET, optimize=True)
    print(TARGET, f"{TARGET.stat().st_size:,} bytes")


def draw_photo(body, vertices, joints, camera, box, crop_box) -> np.ndarray:
    """The photo with a person: detected box, crop box, keypoints."""
    height, width = PHOTO_HW
    pad = 46  # around the photo: the crop box reaches beyond it
    canvas = np.full(((height + 2 * pad) * UP, (width + 2 * pad) * UP, 3), 255, np.uint8)
    sky = np.linspace(232, 205, height * UP)[:, None, None] * np.array([1.0, 1.01, 1.03])
    canvas[pad * UP : (pad + height) * UP, pad * UP : (pad + width) * UP] = np.clip(sky, 0, 255)
    principal = (camera.principal_px + 0.5 + pad) * UP - 0.5
    faces = body.faces.numpy()
    drawing = draw_mesh(vertices, faces, camera.focal_px * UP, principal, canvas.shape[:2],
                        np.broadcast_to(SKIN, (len(vertices), 3)))  # type: ignore[arg-type]  # fmt: skip
    canvas = drawing.over(canvas, 0.85)

    def at(point):
        return tuple(int(round(v)) for v in (np.asarray(point) + 0.5 + pad) * UP)

    rectangle(canvas, at((0, 0)), at((width, height)), INK, 1)
    rectangle(canvas, at(crop_box[:2]), at(crop_box[2:]), ORANGE, 2)
    rectangle(canvas, at(box[:2]), at(box[2:]), GREEN, 2)
    seen = project(joints[list(FROM_144)][list(COCO_WHOLEBODY_FROM_137)], camera.focal_px, camera.principal_px)
    for part, color in COLORS_OF_PARTS:
        for point in seen[part]:
            cv2.circle(canvas, at(point), UP if part.start else 3 * UP, color, -1, cv2.LINE_AA)
    cv2.drawMarker(canvas, at(camera.principal_px), RED, cv2.MARKER_CROSS, 22 * UP, 2 * UP, cv2.LINE_AA)
    text(canvas, "principal_px", at(camera.principal_px + [12, 24]), RED)
    text(canvas, "box_xyxy", at(box[[0, 3]] + [4, -6]), GREEN)
    text(canvas, "crop: 3:4, 1.25 x", at((crop_box[2] + 6, crop_box[3] - 2)), ORANGE)
    origin = np.array([0.0, 0.0])
    arrow(canvas, at(origin), at(origin + [70, 0]), RED)
    arrow(canvas, at(origin), at(origin + [0, 70]), RED)
    text(canvas, "x (px)", at((74, 5)), RED)
    text(canvas, "y (px)", at((8, 78)), RED)
    text(canvas, "(0, 0): centre of the first pixel", at((0, -12)), RED)
    return canvas


def draw_scheme(body, vertices) -> np.ndarray:
    """The camera from the side, not to scale: the body stands far away."""
    height, width = (PHOTO_HW[0] + 92) * UP, 560 * UP
    canvas = np.full((height, width, 3), 255, np.uint8)
    eye, middle = np.array([70, 262]) * UP, np.array([430, 262]) * UP
    centre = (vertices.min(0) + vertices.max(0)) / 2
    x, y, z = (vertices - centre).T
    turned = np.stack([z, y, 8 - x], 1)  # seen from the photo's right: z to the right, y down
    focal = 262 * UP / np.ptp(y) * 8
    skin = np.broadcast_to(SKIN, (len(vertices), 3))
    drawing = draw_mesh(turned, body.faces.numpy(), focal, middle.tolist(), (height, width), skin)
    canvas = drawing.over(canvas)
    top, bottom = middle - np.array([0, 131 * UP]), middle + np.array([0, 131 * UP])
    for end in (top, bottom):
        cv2.line(canvas, tuple(eye), tuple(int(v) for v in end), (170, 170, 175), UP, cv2.LINE_AA)
    plane = 190 * UP
    reach = 131 * UP * (plane - eye[0]) // (middle[0] - eye[0])
    cv2.line(canvas, (plane, eye[1] - reach - 26 * UP), (plane, eye[1] + reach + 26 * UP), ORANGE, 3 * UP, cv2.LINE_AA)
    text(canvas, "picture", (plane - 24 * UP, eye[1] - reach - 34 * UP), ORANGE)
    for end, name, place in (((60, 0), "z", (50, -8)), ((0, 60), "y", (-16, 62))):
        arrow(canvas, tuple(eye), tuple(eye + np.array(end) * UP), RED)
        text(canvas, name, tuple(eye + np.array(place) * UP), RED)
    cv2.circle(canvas, tuple(eye), 7 * UP, RED, UP, cv2.LINE_AA)
    cv2.circle(canvas, tuple(eye), 2 * UP, RED, -1, cv2.LINE_AA)
    text(canvas, "x: towards you", tuple(eye + np.array([-56, 104]) * UP), RED)
    text(canvas, "the camera, in metres", tuple(eye + np.array([-56, 84]) * UP), INK)
    below = eye[1] + 165 * UP
    double_arrow(canvas, (eye[0], below), (plane, below), INK)
    text(canvas, "focal_px", (eye[0] + 24 * UP, below + 20 * UP), INK)
    double_arrow(canvas, (eye[0], below + 40 * UP), (middle[0], below + 40 * UP), INK)
    text(canvas, "z of vertices_cam (tens of metres: a long lens, far away)", (eye[0] + 6 * UP, below + 60 * UP), INK)
    text(canvas, "pixel = focal_px * (x, y) / z + principal_px", (eye[0] + 30 * UP, 52 * UP), INK, 0.62)
    return canvas


def rectangle(canvas, low, high, color, thickness) -> None:
    cv2.rectangle(canvas, low, high, color, thickness * UP, cv2.LINE_AA)


def text(canvas, words, place, color, size=0.46) -> None:
    place = tuple(int(v) for v in place)
    cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_DUPLEX, size * UP, (255, 255, 255), 4 * UP, cv2.LINE_AA)
    cv2.putText(canvas, words, place, cv2.FONT_HERSHEY_DUPLEX, size * UP, color, UP, cv2.LINE_AA)


def arrow(canvas, start, end, color) -> None:
    start, end = tuple(int(v) for v in start), tuple(int(v) for v in end)
    cv2.arrowedLine(canvas, start, end, color, 2 * UP, cv2.LINE_AA, tipLength=0.15)


def double_arrow(canvas, start, end, color) -> None:
    cv2.arrowedLine(canvas, start, end, color, UP, cv2.LINE_AA, tipLength=0.03)
    cv2.arrowedLine(canvas, end, start, color, UP, cv2.LINE_AA, tipLength=0.03)


if __name__ == "__main__":
    main()
