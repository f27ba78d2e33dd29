"""Somebody's own pictures: the train split with whole bodies, the val split with a few named keypoints only."""

from __future__ import annotations

import json
from pathlib import Path

from data.forge.coco_lists import COCO_17, lists, neural_annot, write_picture
from data.forge.people import ForgedPerson, View, blank

WH = (240, 320)
FEW = {"L_Wrist": "left_wrist", "nose": "nose", "left_thumb4": "left_thumb_tip", "my_marker": "spine3"}


def views(people: list[ForgedPerson]) -> list[View]:
    return [p.view(WH) for p in people]


def forge(root: Path, people: list[ForgedPerson]) -> None:
    whole, few, fits = [], [], {}
    images = []
    for view in views(people):
        number = view.person.number
        canvas = blank(WH, number)
        view.draw(canvas)
        write_picture(root / "images" / "day1" / f"{number}.png", canvas)
        images.append({"id": number, "file_name": f"day1/{number}.png", "width": WH[0], "height": WH[1]})
        usual = {"id": number, "image_id": number, "category_id": 1, "bbox": view.box_xywh()}
        whole.append({**usual, **lists(view)})
        few.append({**usual, "keypoints": [x for name in FEW.values() for x in (*map(float, view.px(name)), 2)]})
        if view.person.fitted:
            fits[str(number)] = neural_annot(view, lhand_valid=view.person.left_hand_known)
            if number == 4:  # calibrated: parameters in the world frame
                fits[str(number)]["smplx_param"] |= view.person.smplx_param(world=True)
                person = view.person
                fits[str(number)]["cam_param"] |= {"R": person.world_R.tolist(), "t": person.world_t.tolist()}
    folder = root / "annotations"
    folder.mkdir(parents=True)
    for split, people_of, names in (("train", whole, COCO_17), ("val", few, FEW)):
        category = {"id": 1, "name": "person", "keypoints": list(names)}
        content = {"images": images, "annotations": people_of, "categories": [category]}
        (folder / f"{split}.json").write_text(json.dumps(content))
    (folder / "train_smplx.json").write_text(json.dumps(fits))
