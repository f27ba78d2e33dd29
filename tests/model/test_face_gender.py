"""The network that tells faces of men and women apart is the published one, and reads a face however it is held."""

from pathlib import Path

import numpy as np
import torch

from wholebody.files.image import read_image
from wholebody.model.embedded.face_gender import load_face_gender
from wholebody.model.embedded.face_landmarks import FaceDetector, FaceLandmarks, region_of_found

ROOT = Path(__file__).parents[2]


def waves() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(224.0), torch.arange(224.0), indexing="ij")
    slow = [[(9, 31), (17, 5), (40, 11)], [(60, 25), (23, 50), (12, 80)]]
    return torch.stack([torch.stack([127.5 * (1 + torch.sin(x / a + y / b)) for a, b in one]) for one in slow])


def test_it_is_the_published_network():
    """The figures are those of the published graph, run node by node."""
    with torch.inference_mode():
        said = load_face_gender()(waves())
    torch.testing.assert_close(said, torch.tensor([0.6558897, 0.9667021]), atol=2e-5, rtol=0)


def test_a_woman_is_taken_for_one_however_the_picture_is_held():
    image = read_image(ROOT / "demo" / "astronaut.jpg")
    faces, landmarks, gender = FaceDetector(), FaceLandmarks(), load_face_gender()
    said = []
    for picture in (image, np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(image[::2, ::2])):
        found = faces(picture)
        face = landmarks(picture, region_of_found(found, 0))
        said.append(gender.look(picture, [face])[0])
        if picture is image:
            upside_down = np.ascontiguousarray(image[::-1, ::-1])
            turned = landmarks(upside_down, [511, 511, 0, np.pi] + face.next_region * [-1, -1, 1, 1])
            said.append(gender.look(upside_down, [turned])[0])
    assert max(said) < 0.5 and np.ptp(said) < 0.15
