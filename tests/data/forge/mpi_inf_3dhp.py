"""MPI-INF-3DHP in COCO form (pictures shrunk to 1k): subjects, sequences, frames; joints in millimetres."""

from __future__ import annotations

import json
from pathlib import Path

from data.forge.coco_lists import write_picture
from data.forge.people import ForgedPerson, View, blank

WH = (1024, 1024)
POINTS = (
    ("Head_top", "head"), ("Neck", "neck"), ("R_Shoulder", "right_shoulder"), ("R_Elbow", "right_elbow"),
    ("R_Wrist", "right_wrist"), ("L_Shoulder", "left_shoulder"), ("L_Elbow", "left_elbow"), ("L_Wrist", "left_wrist"),
    ("R_Hip", "right_hip"), ("R_Knee", "right_knee"), ("R_Ankle", "right_ankle"), ("L_Hip", "left_hip"),
    ("L_Knee", "left_knee"), ("L_Ankle", "left_ankle"), ("Pelvis", "pelvis"), ("Torso", "spine2"), ("Head", "jaw"),
)  # fmt: skip
USED_FRAME, UNUSED_FRAME = 6183, 6184


def views(people: list[ForgedPerson]) -> list[View]:
    return [p.view(WH, fill=0.6) for p in people]


def forge(root: Path, people: list[ForgedPerson], smpl: bool = False) -> None:
    """smpl: an older copy, with SMPL's parameters instead of SMPL-X's."""
    from wholebody.body.joints import JOINTS_144

    images, annotations, cameras, joints, fits = [], [], {}, {}, {}
    data = root / "data"
    for view in views(people):
        person = view.person
        subject, sequence, camera = str(1 + person.number), "1", "0"
        cameras[subject] = {sequence: {camera: {
            "R": person.world_R.tolist(), "t": (1000 * person.world_t).tolist(), "focal": view.focal.tolist(),
            "princpt": view.principal.tolist(),
        }}}  # fmt: skip
        measured = [(1000 * person.joints_144_world[JOINTS_144.index(ours)]).tolist() for _, ours in POINTS]
        joints[subject] = {sequence: {str(frame): measured for frame in (USED_FRAME, UNUSED_FRAME)}}
        fits[subject] = {sequence: {}}
        if person.fitted:
            param = person.smplx_param(world=True, hands_and_face=False)
            if smpl:
                pose = param["root_pose"] + param["body_pose"] + [0.1] * 6
                param = {"pose": pose, "shape": param["shape"], "trans": param["trans"]}
            fits[subject][sequence][str(USED_FRAME)] = param
        for k, frame in enumerate((USED_FRAME, UNUSED_FRAME)):
            identity = 10 * person.number + k
            images.append({
                "id": identity, "file_name": f"img_0_{frame:06d}.jpg", "width": WH[0], "height": WH[1],
                "subject_idx": int(subject), "seq_idx": int(sequence), "cam_idx": int(camera), "frame_idx": frame,
            })  # fmt: skip
            annotations.append({"id": identity, "image_id": identity, "bbox": view.box_xywh(), "iscrowd": 0})
        canvas = blank(WH, person.number)
        view.draw(canvas)
        write_picture(
            data / "images_1k" / f"S{subject}" / f"Seq{sequence}" / "imageSequence" / f"img_0_{USED_FRAME:06d}.jpg",
            canvas,
        )
    for name, content in {
        "1k": {"images": images, "annotations": annotations}, "camera_1k": cameras, "joint_3d": joints,
        "SMPL_NeuralAnnot" if smpl else "SMPLX_NeuralAnnot": fits,
    }.items():  # fmt: skip
        (data / f"MPI-INF-3DHP_{name}.json").write_text(json.dumps(content))
