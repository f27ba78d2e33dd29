"""MSCOCO with COCO-WholeBody and NeuralAnnot's parameters: two people to a picture, and what is not usable between."""

from __future__ import annotations

import json
from pathlib import Path

from data.forge.coco_lists import COCO_17, lists, neural_annot, write_picture
from data.forge.people import ForgedPerson, View, blank

WH = (320, 240)
HIDDEN = ("left_knee",)


def annotation_id(person: ForgedPerson) -> int:
    return 200000 + 7 * person.number


def views(people: list[ForgedPerson]) -> list[View]:
    """How each person is seen; the second of a pair stands half outside the picture's right border."""
    return [p.view(WH, ((0.3, 0.5), (0.92, 0.5))[p.number % 2], fill=0.75) for p in people]


def forge(root: Path, people: list[ForgedPerson]) -> None:
    seen = views(people)
    for split in ("train", "val"):
        images, annotations, fits = [], [], {}
        for first in range(0, len(seen), 2):
            pair, number = seen[first : first + 2], 1000 + first
            canvas = blank(WH, first)
            for view in pair:
                view.draw(canvas)
                annotations.append(_annotation(view, number))
                if view.person.fitted:
                    fits[str(annotation_id(view.person))] = neural_annot(view)
            annotations += _not_usable(pair[0], number)
            name = f"{number:012d}.jpg"
            write_picture(root / "images" / f"{split}2017" / name, canvas)
            images.append({
                "license": 4, "file_name": name, "coco_url": f"http://images.cocodataset.org/{split}2017/{name}",
                "height": WH[1], "width": WH[0], "date_captured": "2013-11-19 21:22:42", "flickr_url": "", "id": number,
            })  # fmt: skip
        folder = root / "annotations"
        folder.mkdir(exist_ok=True)
        category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(COCO_17), "skeleton": []}
        content = {
            "info": {"description": "COCO-WholeBody"}, "licenses": [{"id": 4, "name": "by", "url": ""}],
            "images": images, "annotations": annotations, "categories": [category],
        }  # fmt: skip
        (folder / f"coco_wholebody_{split}_v1.0.json").write_text(json.dumps(content))
        if split == "train":
            # Some of the released files say themselves which parts to trust; person 4 stands for them.
            for person in people:
                key = str(annotation_id(person))
                if person.number == 4 and key in fits:
                    fits[key]["smplx_param"] |= {"lhand_valid": True, "rhand_valid": False, "face_valid": True}
            (folder / "MSCOCO_train_SMPLX.json").write_text(json.dumps(fits))


def _annotation(view: View, image_id: int) -> dict:
    found = lists(view, whole_pixels=True, hidden=HIDDEN)
    return {
        "segmentation": [], "num_keypoints": sum(v > 0 for v in found["keypoints"][2::3]), "area": 1000.0, "iscrowd": 0,
        "image_id": image_id, "bbox": view.box_xywh(), "category_id": 1, "id": annotation_id(view.person), **found,
    }  # fmt: skip


def _not_usable(view: View, image_id: int) -> list[dict]:
    """A crowd, somebody without keypoints, an empty box, a box beyond the border."""
    usual = _annotation(view, image_id)
    changes = (
        {"iscrowd": 1, "segmentation": {"counts": [1], "size": [WH[1], WH[0]]}},
        {"num_keypoints": 0, "keypoints": [0] * 51},
        {"bbox": [10.0, 10.0, 0.0, 50.0]},
        {"bbox": [WH[0] + 20.0, 10.0, 30.0, 50.0]},
    )
    return [{**usual, **change, "id": 900000 + 10 * image_id + k} for k, change in enumerate(changes)]
