"""Sets of SMPLer-X and SMPLest-X as their users have them: HumanData files in one folder, pictures in the sets' own.

    forge_set(root, "EgoBody_Kinect", people)      # root is the folder with all sets

The published names are written out here once more, so that a test fails when the table's are wrong.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .people import ForgedPerson, View, blank

# name: (training files, test files, folder of pictures, what image_path starts with, (height, width) or None)
PUBLISHED = {
    "BEDLAM": (["bedlam_train.npz"], [], "BEDLAM", "", None),
    "SPEC": (["spec_train_smpl.npz"], ["spec_test_smpl.npz"], "SPEC", "", (1080, 1920)),
    "GTA_Human2": (["gta_human2multiple_230406_04000_0.npz"], [], "GTA_Human2", "", (1080, 1920)),
    "SynBody": (["synbody_train_230521_04000_fix_betas.npz"], [], "SynBody", "", (720, 1280)),
    "PoseTrack": (["eft_posetrack.npz"], [], "PoseTrack/data/images", "", None),
    "EgoBody_Egocentric": (
        ["egobody_egocentric_train_230425_065_fix_betas.npz"],
        ["egobody_egocentric_test_230425_043_fix_betas.npz"], "EgoBody", "", (1080, 1920),
    ),
    "PROX": (["prox_train_smplx_new.npz"], [], "PROX", "", (1080, 1920)),
    "CrowdPose": (["crowdpose_neural_annot_train_new.npz"], [], "CrowdPose", "", None),
    "EgoBody_Kinect": (
        ["egobody_kinect_train_230503_065_fix_betas.npz"], ["egobody_kinect_test_230503_043_fix_betas.npz"],
        "EgoBody", "", (1080, 1920),
    ),
    "MPI_INF_3DHP": (
        [f"mpi_inf_3dhp_neural_annot_part{k}.npz" for k in (1, 2, 3)], [], "MPI_INF_3DHP", "/", None,
    ),
    "RICH": (["rich_train_fix_betas.npz"], [], "RICH", "", None),
    "MuCo": (["muco3dhp_train.npz"], [], "MuCo", "", (1024, 1024)),
    "InstaVariety": (["insta_variety_neural_annot_train.npz"], [], "InstaVariety", "", (224, 224)),
    "Behave": (
        ["behave_train_230516_231_downsampled.npz"], ["behave_test_230516_090_downsampled.npz"], "Behave", "",
        (1536, 2048),
    ),
    "UP3D": (["up3d_trainval.npz"], [], "UP3D", "", None),
    "ARCTIC": (["p1_train.npz"], ["p1_val.npz"], "ARCTIC", "", None),
    "OCHuman": (["eft_ochuman.npz"], [], "OCHuman", "", None),
    "CHI3D": ([f"CHI3D_train_230511_1492_{k}.npz" for k in range(2)], [], "CHI3D", "CHI3D/", (900, 900)),
    "RenBody_HiRes": (
        [f"renbody_train_highrescam_230517_399_{k}_fix_betas.npz" for k in range(2)],
        [f"renbody_test_highrescam_230517_78_{k}_fix_betas.npz" for k in range(2)], "RenBody", "", None,
    ),
    "RenBody": (
        [f"renbody_train_230525_399_{k}.npz" for k in range(10)],
        [f"renbody_test_230525_78_{k}.npz" for k in range(2)], "RenBody", "", None,
    ),
    "MTP": (["mtp_smplx_train.npz"], [], "MTP", "", None),
    "HumanSC3D": (
        [f"HumanSC3D_train_230511_2752_{k}.npz" for k in range(3)], [], "HumanSC3D", "HumanSC3D/", (900, 900),
    ),
    "FIT3D": ([f"FIT3D_train_230511_1504_{k}.npz" for k in range(6)], [], "FIT3D", "FIT3D/", (900, 900)),
    "Talkshow": (
        [f"talkshow_smplx_{who}.npz" for who in ("chemistry", "conan", "oliver", "seth")], [], "Talkshow", "", None,
    ),
    "SSP3D": (["ssp3d_230525_311.npz"], [], "SSP3D", "", (512, 512)),
    "LSPET": (["eft_lspet.npz"], [], "LSPET", "", None),
    "SynHand": (
        ["synhand_20240927_241004_4628_fix_betas.npz"], ["synhand_20241018_test_241023_1188_fix_betas.npz"], "SynHand",
        "", None,
    ),
}  # fmt: skip
FLAT = ("BEDLAM", "GTA_Human2", "SynBody", "SynHand", "CHI3D", "FIT3D", "HumanSC3D", "ARCTIC")
"""Whose hands count from the flat hand, though their files do not say so."""
OF_SMPL = ("SPEC", "PoseTrack", "OCHuman", "SSP3D", "LSPET", "UP3D")
WH = (640, 480)


def picture_wh(name: str) -> tuple[int, int]:
    size = PUBLISHED[name][4]
    return WH if size is None else (size[1], size[0])


def seen(name: str, person: ForgedPerson) -> View:
    return person.view(picture_wh(name))


def padded_box(view: View) -> list[float]:
    """x, y, width, height as HumanData's tools write it: 1.2 times the person's box, cut to the picture."""
    low, high = np.array(view.box[:2]), np.array(view.box[2:])
    centre, half = (low + high) / 2, (high - low) / 2 * 1.2
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, np.array(view.wh) - 1.0)
    return [*map(float, low), *map(float, high - low)]


def forge_set(
    root: Path,
    name: str,
    people: list[ForgedPerson],
    files: str = "preprocessed_datasets",
    pictures: str = "",
    hand_mean: np.ndarray | None = None,
    **changes,
) -> None:
    """A set's files of both splits. The people are dealt out to the files of a split, one after the other.

    files, pictures: other folders than SMPLer-X's. hand_mean: (30, 3) of the body's relaxed hands, which is added where
    hands count from the flat one; without it, that is a question of reading alone. changes: keys of the files to
    replace; None takes one away.
    """
    train, test, folder, prefix, size = PUBLISHED[name]
    (root / files).mkdir(parents=True, exist_ok=True)
    for split, names in (("train", train), ("test", test)):
        for number, file in enumerate(names):
            own = people[number % len(people) :: len(names)] or people[:1]
            paths = []
            for person in own:
                path = f"{split}/{Path(file).stem}/{person.number:06d}.jpg"
                target = root / (pictures or folder) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                canvas = blank(picture_wh(name), person.number)
                seen(name, person).draw(canvas)
                cv2.imwrite(str(target), canvas)
                paths.append(prefix + path)
            mean = hand_mean if hand_mean is not None and name in FLAT else np.zeros((30, 3))
            content = contents(name, own, paths, size is None, mean) | changes
            np.savez_compressed(root / files / file, **{k: v for k, v in content.items() if v is not None})


def contents(name: str, people: list[ForgedPerson], paths: list[str], sizes: bool, hand_mean: np.ndarray) -> dict:
    def rows(of) -> np.ndarray:
        return np.stack([of(person) for person in people])

    def boxes(part: str) -> np.ndarray:
        views = [seen(name, person) for person in people]
        return np.array([
            [0.0] * 5 if getattr(view, part) is None else [*view.box_xywh(part), 1.0] for view in views
        ])  # fmt: skip

    mask = np.zeros(190, np.uint8)
    mask[:144] = 1
    ones = np.ones((len(people), 144, 1))
    body = {
        "global_orient": rows(lambda p: p.root_pose),
        "body_pose": rows(lambda p: p.body_pose),
        "betas": rows(lambda p: p.betas),
        "transl": rows(lambda p: p.transl),
    }
    if name in OF_SMPL:
        body["body_pose"] = np.concatenate([body["body_pose"], np.zeros((len(people), 2, 3))], 1)
    elif name == "Behave":
        body |= {
            f"{side}_hand_pose": rows(lambda p, s=side: getattr(p, f"{s}_hand_pose")) for side in ("left", "right")
        }
    else:
        body |= {
            "left_hand_pose": rows(lambda p: p.left_hand_pose + hand_mean[:15]),
            "right_hand_pose": rows(lambda p: p.right_hand_pose + hand_mean[15:]),
            "jaw_pose": rows(lambda p: p.jaw_pose),
            "leye_pose": np.zeros((len(people), 3)),
            "reye_pose": np.zeros((len(people), 3)),
            "expression": rows(lambda p: p.expression),
        }
    if name == "Talkshow":  # one row of numbers a person, a hundred for expression and three hundred for shape
        body |= {key: value.reshape(len(people), -1) for key, value in body.items()}
        body["expression"] = np.concatenate([body["expression"], np.ones((len(people), 90))], 1)
        body["betas"] = np.concatenate([body["betas"], np.ones((len(people), 290))], 1)
    meta = {"gender": np.array(["female", "male"] * len(people))[: len(people)]}
    if sizes:
        meta |= {"height": np.full(len(people), WH[1]), "width": np.full(len(people), WH[0])}
    kind = "smpl" if name in OF_SMPL else "smplh" if name == "Behave" else "smplx"
    return {
        "image_path": np.array(paths),
        "bbox_xywh": np.array([[*padded_box(seen(name, person)), 1.0] for person in people]),
        "lhand_bbox_xywh": boxes("left_hand_box"),
        "rhand_bbox_xywh": boxes("right_hand_box"),
        "face_bbox_xywh": boxes("face_box"),
        "keypoints2d_smplx": np.concatenate([rows(lambda p: seen(name, p).joints_144), ones], -1),
        "keypoints2d_smplx_mask": mask,
        "keypoints3d_smplx": np.concatenate([rows(lambda p: p.joints_144_cam), ones], -1),
        "keypoints3d_smplx_mask": mask,
        kind: body,
        "meta": meta,
        "config": name,
        "__keypoints_compressed__": True,
    }  # fmt: skip
