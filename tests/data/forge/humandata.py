"""HumanData files: today's with 190 keypoints, compressed by mask; the old ones with 144 and one mask for all; and one
of 3DPW's kind with SMPL parameters alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .people import ForgedPerson, View, blank

WH = (640, 480)
# Where OpenPose's nose and the hips of sets that mark them on the skin are among the 190.
NOSE_OPENPOSE, RIGHT_HIP_EXTRA, LEFT_HIP_EXTRA = 153, 144, 145


def seen(person: ForgedPerson) -> View:
    return person.view(WH)


def forge(root: Path, people: list[ForgedPerson]) -> None:
    """forged_train.npz (190, SMPL-X), old_train.npz (144, no body), pw3d_test.npz (SMPL). The last person's box is
    empty; the second has no face box, and OpenPose's nose stands in for a missing one."""
    folder = root / "images"
    folder.mkdir(parents=True)
    for person in people:
        canvas = blank(WH, person.number)
        seen(person).draw(canvas)
        cv2.imwrite(str(folder / f"{person.number:06d}.jpg"), canvas)
    _today(root / "forged_train.npz", people)
    _old(root / "old_train.npz", people)
    _smpl(root / "pw3d_test.npz", people)


def _rows(people: list[ForgedPerson], of) -> np.ndarray:
    return np.stack([of(person) for person in people])


def _boxes(people: list[ForgedPerson], part: str, known) -> np.ndarray:
    nothing = [0.0] * 5
    return np.array([[*seen(p).box_xywh(part), 1.0] if known(p) else nothing for p in people])


def _common(people: list[ForgedPerson]) -> dict:
    return {
        "image_path": np.array([f"images/{person.number:06d}.jpg" for person in people]),
        "bbox_xywh": _boxes(people, "box", lambda person: person is not people[-1]),
    }


def _today(path: Path, people: list[ForgedPerson]) -> None:
    mask = np.zeros(190, np.uint8)
    mask[:144] = 1
    mask[NOSE_OPENPOSE] = 1
    points, space = np.zeros((len(people), 190, 3)), np.zeros((len(people), 190, 4))
    points[:, :144, :2], points[:, :144, 2] = _rows(people, lambda p: seen(p).joints_144), 1
    space[:, :144, :3], space[:, :144, 3] = _rows(people, lambda p: p.joints_144_cam), 1
    points[:, NOSE_OPENPOSE] = points[:, 55]
    points[1, 55] = 0  # known as OpenPose's only
    points[0, 20, :2] = np.nan  # a left wrist that is not a number
    smplx = {
        "global_orient": _rows(people, lambda p: p.root_pose),
        "body_pose": _rows(people, lambda p: p.body_pose),
        "left_hand_pose": _rows(people, lambda p: p.left_hand_pose),
        "right_hand_pose": _rows(people, lambda p: p.right_hand_pose),
        "jaw_pose": _rows(people, lambda p: p.jaw_pose),
        "leye_pose": np.zeros((len(people), 3)),
        "reye_pose": np.zeros((len(people), 3)),
        "betas": _rows(people, lambda p: p.betas),
        "expression": _rows(people, lambda p: p.expression),
        "transl": _rows(people, lambda p: p.transl),
    }
    meta = {
        "gender": np.array(["female", "male"] * len(people))[: len(people)],
        "height": np.full(len(people), WH[1]),
        "width": np.full(len(people), WH[0]),
        "focal_length": _rows(people, lambda p: seen(p).focal),
        "principal_point": _rows(people, lambda p: seen(p).principal),
    }
    np.savez_compressed(
        path,
        **_common(people),
        lhand_bbox_xywh=_boxes(people, "left_hand_box", lambda p: p.left_hand_known),
        rhand_bbox_xywh=_boxes(people, "right_hand_box", lambda p: p.right_hand_known),
        face_bbox_xywh=_boxes(people, "face_box", lambda p: p.face_known),
        keypoints2d_smplx=points[:, mask > 0],
        keypoints2d_smplx_mask=mask,
        keypoints3d_smplx=space[:, mask > 0],
        keypoints3d_smplx_mask=mask,
        smplx=smplx,
        meta=meta,
        misc={"flat_hand_mean": False, "kps3d_root_aligned": False},
        config="forged",
        __key_strict__=True,
        __data_len__=len(people),
        __keypoints_compressed__=True,
    )


def _old(path: Path, people: list[ForgedPerson]) -> None:
    mask = np.zeros(144, np.uint8)
    mask[:22] = 1
    points, space = np.zeros((len(people), 144, 3)), np.zeros((len(people), 144, 4))
    points[:, :22, :2], points[:, :22, 2] = _rows(people, lambda p: seen(p).joints_144[:22]), 1
    pelvis = _rows(people, lambda p: p.joints_144_cam[:1])
    space[:, :22, :3], space[:, :22, 3] = _rows(people, lambda p: p.joints_144_cam[:22]) - pelvis, 1
    common = _common(people)
    np.savez_compressed(
        path, image_path=common["image_path"], bbox_xywh=common["bbox_xywh"][:, :4], keypoints2d=points,
        keypoints3d=space, mask=mask, config="old",
    )  # fmt: skip


def _smpl(path: Path, people: list[ForgedPerson]) -> None:
    smpl = {
        "body_pose": _rows(people, lambda p: np.concatenate([p.body_pose, np.zeros((2, 3))])).astype(object),
        "global_orient": _rows(people, lambda p: p.root_pose).astype(object),
        "betas": _rows(people, lambda p: p.betas).astype(object),
    }
    common = _common(people)
    np.savez_compressed(
        path, image_path=common["image_path"], bbox_xywh=common["bbox_xywh"][:, :4], smpl=smpl,
        meta={"gender": np.array(["m", "f"] * len(people), object)[: len(people)]}, config="3dpw",
    )  # fmt: skip
