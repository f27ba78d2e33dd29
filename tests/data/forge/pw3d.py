"""3DPW in the parsed form: COCO lists with SMPL parameters, portrait pictures in a folder a sequence."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from .people import ForgedPerson, View, blank

WH = (1080, 1920)
SEQUENCES = {
    "train": "courtyard_arguing_00", "validation": "courtyard_basketball_00", "test": "downtown_enterShop_00",
}  # fmt: skip


def seen(person: ForgedPerson) -> View:
    return person.view(WH)


def forge(root: Path, people: list[ForgedPerson]) -> None:
    """Everybody alone in a picture of every split, under a number that tells them apart; in `train` the last one's box
    is empty, and who has no parameters has none."""
    (root / "data").mkdir(parents=True)
    for split, sequence in SEQUENCES.items():
        folder = root / "imageFiles" / sequence
        folder.mkdir(parents=True)
        images, annotations = [], []
        for person in people:
            view = seen(person)
            name = f"image_{person.number:05d}.jpg"
            canvas = blank(WH, person.number)
            view.draw(canvas)
            cv2.imwrite(str(folder / name), canvas, [cv2.IMWRITE_JPEG_QUALITY, 50])
            images.append(
                {
                    "id": 100 + person.number,
                    "file_name": name,
                    "sequence": sequence,
                    "width": WH[0],
                    "height": WH[1],
                    "cam_param": {"focal": view.focal.tolist(), "princpt": view.principal.tolist()},
                }
            )
            empty = split == "train" and person is people[-1]
            annotations.append(
                {
                    "id": 1000 + person.number,
                    "image_id": 100 + person.number,
                    "person_id": 0,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [0.0, 0.0, 0.0, 0.0] if empty else view.box_xywh(),
                }
            )
            if person.fitted:
                annotations[-1]["smpl_param"] = smpl_param(person)
        (root / "data" / f"3DPW_{split}.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def smpl_param(person: ForgedPerson) -> dict:
    """SMPL's 24 rotations, of which the last two are the hands'."""
    pose = np.concatenate([person.root_pose, person.body_pose.ravel(), np.full(6, 0.1)])
    gender = ("male", "female")[person.number % 2]
    return {
        "pose": pose.tolist(), "shape": person.betas.tolist(), "trans": person.transl.tolist(), "gender": gender,
    }  # fmt: skip
