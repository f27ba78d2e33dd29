"""UBody: scenes of videos, annotations by scene, lists of test videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from data.forge.coco_lists import lists, neural_annot, write_picture
from data.forge.people import ForgedPerson, View, blank

WH = (640, 360)
SCENES = ("Magic_show", "Movie")
TEST_PERSONS = (1, 4)
"""Their videos are in the list of the intra-scene split; all of the second scene's are in the inter-scene one."""
WIDE = 1 / 0.65


def scene_of(person: ForgedPerson) -> str:
    return SCENES[person.number % 2]


def video_of(person: ForgedPerson) -> str:
    return f"{scene_of(person)}_S{person.number}"


def views(people: list[ForgedPerson]) -> list[View]:
    """Upper bodies: the legs are outside the picture."""
    return [p.view(WH, (0.5, 0.95), fill=1.5) for p in people]


def forge(root: Path, people: list[ForgedPerson]) -> None:
    content = {scene: ({"images": [], "annotations": [], "categories": [_CATEGORY]}, {}) for scene in SCENES}
    for view in views(people):
        person, scene = view.person, scene_of(view.person)
        keypoints, fits = content[scene]
        # Pictures of trimmed videos lie in their trim's folder; some names begin with a slash.
        video = video_of(person)
        name = f"{video}/{video}_Trim1/{person.number + 1:06d}.png" if person.number % 3 else f"/{video}/000001.png"
        canvas = blank(WH, person.number)
        view.draw(canvas)
        write_picture(root / "images" / scene / name.lstrip("/"), canvas)
        keypoints["images"].append({"id": person.number, "height": WH[1], "width": WH[0], "file_name": name})
        usual = _annotation(view)
        keypoints["annotations"] += [
            usual,
            {**usual, "id": 100 + person.number, "valid_label": 0},
            {**usual, "id": 200 + person.number, "iscrowd": 1},
            {**usual, "id": 300 + person.number, "bbox": [0, 0, 0, 0]},
            {**usual, "id": 400 + person.number, "num_keypoints": 0},
        ]
        if person.fitted:
            for identity in (0, 100, 200, 300, 400):
                fits[str(identity + person.number)] = neural_annot(view)
    for scene, (keypoints, fits) in content.items():
        folder = root / "annotations" / scene
        folder.mkdir(parents=True)
        (folder / "keypoint_annotation.json").write_text(json.dumps(keypoints))
        (folder / "smplx_annotation.json").write_text(json.dumps(fits))
    (root / "splits").mkdir()
    intra = [video_of(p) for p in people if p.number in TEST_PERSONS]
    inter = [video_of(p) for p in people if scene_of(p) == SCENES[1]]
    np.save(root / "splits" / "intra_scene_test_list.npy", np.array(intra))
    # Lists of names are often saved as objects, that is as pickles.
    np.save(root / "splits" / "inter_scene_test_list.npy", np.array(inter, object), allow_pickle=True)


_CATEGORY = {"supercategory": "person", "id": 1, "name": "person"}


def _annotation(view: View) -> dict:
    found = lists(view)
    for part in ("lefthand", "righthand"):
        x, y, width, height = found[f"{part}_box"]
        centre = (x + width / 2, y + height / 2)
        found[f"{part}_box"] = [
            centre[0] - width * WIDE / 2, centre[1] - height * WIDE / 2, width * WIDE, height * WIDE
        ]  # fmt: skip
    # The set's face boxes are rough.
    found["face_box"] = [value + 3.0 for value in found["face_box"]]
    return {
        "id": view.person.number, "image_id": view.person.number, "bbox": view.box_xywh(), "segmentation": [[]],
        "area": 0, "iscrowd": 0, "category_id": 1, "score": 1, "person_id": 0,
        "num_keypoints": sum(v > 0 for v in found["keypoints"][2::3]), "full_body": False, "valid_label": 2, **found,
    }  # fmt: skip
