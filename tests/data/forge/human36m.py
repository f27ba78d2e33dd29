"""Human3.6M in COCO form: measured joints in millimetres, calibrated cameras, parameters in the world frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from data.forge.coco_lists import write_picture
from data.forge.people import ForgedPerson, View, blank

WH = (1000, 1002)
SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
# The 17 joints, and which of the body's each is here. Torso, Head and Head_top have no counterpart in the 137.
POINTS = (
    ("Pelvis", "pelvis"), ("R_Hip", "right_hip"), ("R_Knee", "right_knee"), ("R_Ankle", "right_ankle"),
    ("L_Hip", "left_hip"), ("L_Knee", "left_knee"), ("L_Ankle", "left_ankle"), ("Torso", "spine2"), ("Neck", "neck"),
    ("Head", "jaw"), ("Head_top", "head"), ("L_Shoulder", "left_shoulder"), ("L_Elbow", "left_elbow"),
    ("L_Wrist", "left_wrist"), ("R_Shoulder", "right_shoulder"), ("R_Elbow", "right_elbow"), ("R_Wrist", "right_wrist"),
)  # fmt: skip
ACTION, SUBACTION = 2, 1
USED = {"train": 10, "test": 128}
"""Frame numbers: these are multiples of 5 and of 64, the others written are not."""


def subject_of(person: ForgedPerson, split: str) -> int:
    return SUBJECTS[person.number % 5] if split == "train" else SUBJECTS[5 + person.number % 2]


def views(people: list[ForgedPerson]) -> list[View]:
    return [p.view(WH) for p in people]


def forge(root: Path, people: list[ForgedPerson]) -> None:
    """Everybody is in the train subjects and in the test subjects, each in an action of their own."""
    files = {s: {"data": {"images": [], "annotations": []}, "camera": {}, "joint_3d": {}, "fits": {}} for s in SUBJECTS}
    for view in views(people):
        for split, camera in (("train", 1), ("test", 4)):
            subject = subject_of(view.person, split)
            _add(root, files[subject], subject, view, camera, USED[split])
    folder = root / "annotations"
    folder.mkdir()
    for subject, content in files.items():
        for what, name in (
            ("data", "data"),
            ("camera", "camera"),
            ("joint_3d", "joint_3d"),
            ("fits", "SMPLX_NeuralAnnot"),
        ):
            (folder / f"Human36M_subject{subject}_{name}.json").write_text(json.dumps(content[what]))


def _add(root: Path, files: dict, subject: int, view: View, camera: int, frame: int) -> None:
    person = view.person
    action = ACTION + person.number
    # A camera belongs to its subject, so people who share one need cameras of other numbers; 4 is the test camera.
    if str(camera) in files["camera"]:
        camera = max(int(k) for k in files["camera"]) + 10
    files["camera"][str(camera)] = {
        "R": person.world_R.tolist(), "t": (1000 * person.world_t).tolist(), "f": view.focal.tolist(),
        "c": view.principal.tolist(),
    }  # fmt: skip
    joints = [(1000 * person.joints_144_world[_row(ours)]).tolist() for _, ours in POINTS]
    for number in (frame, frame + 1):  # the second is not used
        clip = f"s_{subject:02d}_act_{action:02d}_subact_{SUBACTION:02d}_ca_{camera:02d}"
        name = f"{clip}/{clip}_{number + 1:06d}.jpg"
        identity = 100000 * subject + 1000 * person.number + number
        files["data"]["images"].append({
            "id": identity, "file_name": name, "width": WH[0], "height": WH[1], "subject": subject,
            "action_name": "Directions", "action_idx": action, "subaction_idx": SUBACTION, "cam_idx": camera,
            "frame_idx": number,
        })  # fmt: skip
        files["data"]["annotations"].append({
            "id": identity, "image_id": identity, "keypoints_vis": [True] * 17, "bbox": view.box_xywh(),
        })  # fmt: skip
        files["joint_3d"].setdefault(str(action), {}).setdefault(str(SUBACTION), {})[str(number)] = joints
        if person.fitted:
            fit = person.smplx_param(world=True, hands_and_face=False)
            files["fits"].setdefault(str(action), {}).setdefault(str(SUBACTION), {})[str(number)] = fit
    canvas = blank(WH, person.number)
    view.draw(canvas)
    clip = f"s_{subject:02d}_act_{action:02d}_subact_{SUBACTION:02d}_ca_{camera:02d}"
    write_picture(root / "images" / clip / f"{clip}_{frame + 1:06d}.jpg", canvas)


def _row(name: str) -> int:
    from wholebody.body.joints import JOINTS_144

    return JOINTS_144.index(name)


def joints_cam_mm(person: ForgedPerson) -> dict[str, np.ndarray]:
    """The set's joints by name, camera frame, millimetres."""
    return {name: 1000 * person.cam(ours) for name, ours in POINTS}
