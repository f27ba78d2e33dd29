"""AGORA, in the parsed form that readers take (`forge`) and as its makers hand it out (`forge_official`)."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np

from . import pandas_pickle
from .people import LEFT_HAND_144, RIGHT_HAND_144, ForgedPerson, View, blank, rotation, rotvec

FULL_WH = (3840, 2160)
SMALL_WH = (1280, 720)
CROP_WH = (384, 512)
PICTURE = "ag_{split}set_3dpeople_bfh_archviz_5_10_cam02_{number:05d}"
FOCAL = np.full(2, 18 / 36 * 3840)  # the lens of pictures named cam0x
PRINCIPAL = np.array([1920.0, 1080.0])
_FACE_127 = list(range(76, 127))


def seen(person: ForgedPerson) -> View:
    """In the full picture."""
    points = person.joints_144_cam[:, :2] / person.joints_144_cam[:, 2:] * FOCAL + PRINCIPAL
    return person.seen(FULL_WH, FOCAL, PRINCIPAL, points)


def is_valid(person: ForgedPerson) -> bool:
    """The fourth person is too much hidden."""
    return person.number != 3


def box_about(points: np.ndarray) -> list[float]:
    """x, y, width, height of the 1.2-fold box about points, as the set's preparation has it."""
    low, high = points.min(0), points.max(0)
    size = (high - low) * 1.2
    return [*map(float, (low + high) / 2 - size / 2), *map(float, size)]


def boxes(person: ForgedPerson) -> dict[str, list[float]]:
    points = seen(person).joints_144[:127]
    parts = {"lhand": [i for i in LEFT_HAND_144 if i < 127], "rhand": [i for i in RIGHT_HAND_144 if i < 127],
             "face": _FACE_127}  # fmt: skip
    return {"bbox": box_about(points)} | {f"{part}_bbox": box_about(points[rows]) for part, rows in parts.items()}


def crop_from_full(person: ForgedPerson) -> np.ndarray:
    """(2, 3): the box cut to the picture, fitted to 3:4, enlarged by 1.25, onto 384x512 pixels."""
    x, y, width, height = boxes(person)["bbox"]
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width - 1, FULL_WH[0] - 1), min(y + height - 1, FULL_WH[1] - 1)
    wide, high = right - left, bottom - top
    wide, high = max(wide, high * 0.75) * 1.25, max(high, wide / 0.75) * 1.25
    scale = CROP_WH[0] / wide
    shift = np.array(CROP_WH) / 2 - scale * np.array([(left + right) / 2, (top + bottom) / 2])
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def parameters(person: ForgedPerson, root_pose: np.ndarray, transl: np.ndarray) -> dict[str, np.ndarray]:
    """A file of smplx_gt: every value with a leading 1, single precision; children have an eleventh shape number."""
    kid = person.number % 5 == 4
    values = {
        "transl": transl, "global_orient": root_pose, "body_pose": person.body_pose.ravel(),
        "betas": np.append(person.betas, 0.4) if kid else person.betas,
        "left_hand_pose": person.left_hand_pose.ravel(), "right_hand_pose": person.right_hand_pose.ravel(),
        "jaw_pose": person.jaw_pose, "leye_pose": np.array([0.0, 0.02, 0.0]), "reye_pose": np.array([0.0, 0.03, 0.0]),
        "expression": person.expression,
    }  # fmt: skip
    return {key: np.asarray(value, np.float32)[None] for key, value in values.items()}


def about(person: ForgedPerson) -> dict:
    kid = person.number % 5 == 4
    return {
        "gender": ("female", "male")[person.number % 2], "kid": kid, "is_valid": is_valid(person),
        "occlusion": 12.5 if is_valid(person) else 95.0, "age": "3-8" if kid else "31-50", "ethnicity": "white",
    }  # fmt: skip


def forge(root: Path, people: list[ForgedPerson]) -> None:
    """One full picture a person, as 1280x720 and as a crop; people 0, 1, .. in `train`, the first two also in
    `validation` and (boxes alone) in `test`. Who has no parameters has no file of them."""
    data, annotation_id = root / "data", 0
    for split, chosen in (("train", people), ("validation", people[:2])):
        folder = "train_0" if split == "train" else "validation"
        images, annotations = [], []
        for image_id, person in enumerate(chosen):
            name = PICTURE.format(split="train" if split == "train" else "validation", number=person.number)
            _write_pictures(data, folder, name, f"{name}_ann_id_{annotation_id}", person)
            images.append({
                "id": image_id,
                "file_name_3840x2160": f"3840x2160/{folder}/{name}.png",
                "file_name_1280x720": f"1280x720/{folder}/{name}_1280x720.png",
            })  # fmt: skip
            place = f"smplx_gt/{split}set_forged/{person.number}_0_0.pkl"
            annotations.append({
                "id": annotation_id, "image_id": image_id, **about(person), **boxes(person),
                "smplx_joints_2d_path": f"./gt_joints_2d/smplx/{annotation_id}.json",
                "smplx_joints_3d_path": f"./gt_joints_3d/smplx/{annotation_id}.json",
                "smplx_verts_path": f"./gt_verts/smplx/{annotation_id}.json",
            })  # fmt: skip
            if person.fitted:
                annotations[-1]["smplx_param_path"] = place
                (data / place).parent.mkdir(parents=True, exist_ok=True)
                values = parameters(person, person.root_pose_world, person.transl_world)
                (data / place).write_bytes(pickle.dumps(values, protocol=2))
            for kind, points in (
                ("gt_joints_2d", seen(person).joints_144[:127]),
                ("gt_joints_3d", person.joints_144_cam[:127]),
                ("gt_verts", person.vertices_cam if split == "validation" else person.vertices_cam[:3]),
            ):
                file = data / kind / "smplx" / f"{annotation_id}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(np.round(points, 6).tolist()))
            annotation_id += 1
        content = {"images": images, "annotations": annotations}
        (data / f"AGORA_{split}.json").write_text(json.dumps(content))
    found = {}
    for person in people[:2]:
        name = PICTURE.format(split="test", number=person.number)
        _write_pictures(data, "test", name, f"{name}_pid_0", person)
        found[f"{name}.png"] = [{"bbox": boxes(person)["bbox"]}]
    (data / "AGORA_test_bbox.json").write_text(json.dumps(found))


def _write_pictures(data: Path, folder: str, name: str, crop_name: str, person: ForgedPerson) -> None:
    small, crop = data / "1280x720" / folder, data / "3840x2160" / f"{folder}_crop"
    for place in (small, crop):
        place.mkdir(parents=True, exist_ok=True)
    view = seen(person)
    third = person.seen(SMALL_WH, FOCAL / 3, PRINCIPAL / 3, view.joints_144 / 3)
    canvas = blank(SMALL_WH, person.number)
    third.draw(canvas)
    cv2.imwrite(str(small / f"{name}_1280x720.png"), canvas)
    affine = crop_from_full(person)
    cropped = person.seen(CROP_WH, FOCAL, PRINCIPAL, view.joints_144 @ affine[:, :2].T + affine[:, 2])
    canvas = blank(CROP_WH, person.number)
    cropped.draw(canvas)
    cv2.imwrite(str(crop / f"{crop_name}.png"), canvas)
    about_crop = {
        "bbox": boxes(person)["bbox"], "img2bb_trans": affine.tolist(),
        "resized_height": CROP_WH[1], "resized_width": CROP_WH[0],
    }  # fmt: skip
    (crop / f"{crop_name}.json").write_text(json.dumps(about_crop))


# As AGORA hands it out: pandas tables, one a batch of pictures, and a pickle of parameters a person. Positions are in
# the renderer's frame (centimetres, x forward, y right, z up); parameters are in the frame of the scan (y up).

_CAMERAS = {  # by a word in the picture's name: (x, y, z), yaw, pitch, focal length in millimetres
    "hdri": ((0, 0, 170), 0, 0, 50),
    "cam02": ((-490, 170, 265), -45, 30, 18),
    "ag2": ((0, 0, 170), 0, 15, 28),
    "plain": ((35, -120, 140), 25, 0, 28),
}


def official_picture(word: str, number: int) -> str:
    start = {"hdri": "ag_trainset_hdri", "cam02": "ag_trainset_archviz_cam02", "ag2": "ag2_trainset_x"}
    return f"{start.get(word, 'ag_trainset_brushifyforest')}_{number:05d}.png"


def official_focal(word: str) -> float:
    return _CAMERAS[word][3] / 36 * 3840


def _opencv(position: np.ndarray) -> np.ndarray:
    """The renderer's centimetres (forward, right, up) as metres (right, down, forward)."""
    forward, right, up = position
    return np.array([right, -up, forward]) / 100


def forge_official(root: Path, people: list[ForgedPerson], version: str = "1.2", pictures: bool = True) -> list[dict]:
    """Tables for training and validation with SMPL-X truth; returns, per person of the training table, the truth that
    must come out: {person, word, joints_2d, valid}. Two people to a picture, every picture with another camera."""
    truth = []
    words = list(_CAMERAS)
    for split, batch, chosen in (("train", "train_0", people), ("validation", "validation_0", people[:1])):
        rows: dict[str, list] = {key: [] for key in (
            "imgPath", "camX", "camY", "camZ", "camYaw", "X", "Y", "Z", "Yaw", "gender", "kid", "occlusion", "isValid",
            "age", "ethnicity", "gt_path_smplx", "gt_joints_2d", "gt_joints_3d", "gt_verts",
        )}  # fmt: skip
        for number, pair in enumerate([chosen[k : k + 2] for k in range(0, len(chosen), 2)]):
            word = words[number % len(words)]
            place, yaw, pitch, millimetres = _CAMERAS[word]
            name = official_picture(word, number)
            row: dict = {key: [] for key in rows}
            row |= {"imgPath": name, "camX": float(place[0]), "camY": float(place[1]), "camZ": float(place[2]),
                    "camYaw": float(yaw)}  # fmt: skip
            canvas = np.full((*FULL_WH[::-1], 3) if pictures else (8, 8, 3), 70, np.uint8)  # plain: quick to compress
            for person in pair:
                focal = np.full(2, millimetres / 36 * 3840)
                points = person.joints_144_cam[:127, :2] / person.joints_144_cam[:127, 2:] * focal + PRINCIPAL
                own_yaw = 40.0 + 15 * person.number
                # camera = look (turn (flip scan) + standing - camera's place)
                look = rotation([np.radians(pitch), 0, 0]) @ rotation([0, -np.radians(yaw), 0])
                turn = rotation([0, np.radians(own_yaw - 90), 0]) @ np.diag([1.0, -1, -1])
                ground = np.array([0, -1.7, 0]) if word == "plain" else np.zeros(3)
                standing_cm = np.array([310.0, 40.0, 3.0 + person.number])
                shift = look @ (_opencv(standing_cm) - _opencv(np.array(place, float)) - ground)
                whole = look @ turn
                pelvis = person.joints_144_cam[0]
                rest_pelvis = pelvis - person.transl
                values = parameters(
                    person,
                    rotvec(whole.T @ rotation(person.root_pose)),
                    whole.T @ (pelvis - shift) - rest_pelvis,
                )
                path = f"smplx_gt/{split}set_forged/{person.number}_{number}.obj"
                file = (root / path).with_suffix(".pkl")
                file.parent.mkdir(parents=True, exist_ok=True)
                if person.fitted:
                    file.write_bytes(pickle.dumps(values, protocol=4))
                details = about(person)
                cells = {
                    "X": standing_cm[0], "Y": standing_cm[1], "Z": standing_cm[2], "Yaw": own_yaw,
                    "gender": details["gender"], "kid": details["kid"], "occlusion": details["occlusion"],
                    "isValid": details["is_valid"], "age": details["age"], "ethnicity": details["ethnicity"],
                    "gt_path_smplx": path, "gt_joints_2d": points, "gt_joints_3d": person.joints_144_cam[:127],
                    "gt_verts": person.vertices_cam[:50],
                }  # fmt: skip
                for key, value in cells.items():
                    row[key].append(value)
                if pictures:
                    person.seen(FULL_WH, focal, PRINCIPAL, np.concatenate([points, points[:17]])).draw(canvas)
                if split == "train":
                    truth.append({"person": person, "word": word, "joints_2d": points, "valid": details["is_valid"]})
            for key, value in row.items():
                rows[key].append(value)
            if pictures:
                folder = root / "3840x2160" / ("train_0" if split == "train" else "validation")
                folder.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / name), canvas, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        file = root / f"{split}_SMPLX" / "SMPLX" / f"{batch}_withjv.pkl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pandas_pickle.dumps(rows, version))
    return truth
