"""Find the people in a photo and look at the numbers: `python examples/people_in_a_photo.py photo.jpg`."""

from __future__ import annotations

import sys

import wholebody
from wholebody.body.joints import SMPLX_JOINTS


def main(path: str) -> None:
    predictor = wholebody.Predictor(wholebody.load_model())
    people = predictor(wholebody.read_image(path))
    nose = 0  # of the 133 keypoints of COCO-WholeBody
    wrist = SMPLX_JOINTS.index("left_wrist")
    for number, person in enumerate(people):
        x, y = person.keypoints_px[nose]
        distance = person.joints_cam[wrist, 2]
        print(f"person {number}: nose at pixel ({x:.0f}, {y:.0f}), left wrist {distance:.2f} m from the camera")


if __name__ == "__main__":
    main(sys.argv[1])
