"""What a network says of people, and what may be put in the place of its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wholebody.geometry.rotation import matrix_to_axis_angle

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Shaped


@dataclass
class Prediction:
    """What the network says of B people, each in the crop it was given.

    Metres, radians, camera frame (x right, y down, z forward). `cells`: x in 12, y in 16, z in 16 across the crop;
    `box_cells`: the same of the part's own square box (hands 16×16×16, face 8×8×8 for the published sizes). Boxes are
    xyxy in pixels of the 384×512 (width×height) crop. What a network does not say is None: SMPLest-X has neither
    positions in the picture nor boxes. The fields that need a body mesh are None where there is none.
    """

    rotations: Float[Tensor, "b 53 3 3"]  # pelvis, 21 body, 15 of each hand, jaw; without a mean pose
    global_orient: Float[Tensor, "b 3"]  # axis-angle, as the next five
    body_pose: Float[Tensor, "b 21 3"]
    left_hand_pose: Float[Tensor, "b 15 3"]
    right_hand_pose: Float[Tensor, "b 15 3"]
    jaw_pose: Float[Tensor, "b 3"]
    betas: Float[Tensor, "b 10"]
    expression: Float[Tensor, "b 10"]
    cam_trans: Float[Tensor, "b 3"]  # from the body's frame to the camera's
    joints_cells: Float[Tensor, "b 65 3"] | None = None  # 25 body joints, 20 of each hand, all in cells of the crop
    body_cells: Float[Tensor, "b 25 3"] | None = None
    left_hand_box_cells: Float[Tensor, "b 20 3"] | None = None
    right_hand_box_cells: Float[Tensor, "b 20 3"] | None = None
    face_box_cells: Float[Tensor, "b 72 3"] | None = None  # None without a face decoder
    box_centers_cells: Float[Tensor, "b 3 2"] | None = None  # left hand, right hand, face
    box_sizes_cells: Float[Tensor, "b 3 2"] | None = None  # before they are made square and enlarged
    left_hand_box: Float[Tensor, "b 4"] | None = None  # detached, as the next two: where features came from
    right_hand_box: Float[Tensor, "b 4"] | None = None
    face_box: Float[Tensor, "b 4"] | None = None
    found_keypoints: Float[Tensor, "b 17 3"] | None = None  # COCO's, fractions of the crop, score 0..1
    body_logits: Float[Tensor, "b 25 769"] | None = None  # of finer cells, then "outside"; where there are such
    hand_maps: Float[Tensor, "b 2 20 hand hand"] | None = None  # of joints in the hands' boxes; with context
    face_maps: Float[Tensor, "b 72 face face"] | None = None  # likewise
    hand_roots_6d: Float[Tensor, "b 2 6"] | None = None  # both wrists, camera frame; SMPLest-X's losses
    vertices_cam: Float[Tensor, "b v 3"] | None = None  # camera translation added
    joints_cam: Float[Tensor, "b 55 3"] | None = None  # the joints of the body's tree, camera translation added
    joints_144_cam: Float[Tensor, "b 144 3"] | None = None  # camera translation added
    joints_proj_cells: Float[Tensor, "b 137 2"] | None = None  # the mesh's joints, projected


def pose_fields(rotations: Float[Tensor, "b 53 3 3"]) -> dict[str, Tensor]:
    """`rotations` (B×53×3×3) and all fields of a `Prediction` that say the same in axis-angle, by name."""
    root, body, left_hand, right_hand, jaw = matrix_to_axis_angle(rotations).split((1, 21, 15, 15, 1), 1)
    return {
        "rotations": rotations,
        "global_orient": root[:, 0],
        "body_pose": body,
        "left_hand_pose": left_hand,
        "right_hand_pose": right_hand,
        "jaw_pose": jaw[:, 0],
    }


def pictures_01(pictures: Shaped[Tensor, "b h w 3"], like: Tensor) -> Float[Tensor, "b 3 h w"]:
    """Pictures B×H×W×3 of 0..255 as networks take them: B×3×H×W in [0, 1], on the device of `like`, one of the
    network's parameters, and of its precision, but of single precision at least."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return pictures.to(like.device).permute(0, 3, 1, 2).to(dtype).contiguous() / 255


torch.export.register_dataclass(Prediction, serialized_type_name="wholebody.Prediction")


@dataclass
class PartBoxes:
    """Boxes to crop features from in place of the predicted ones, where `given`."""

    boxes: Float[Tensor, "b 3 4"]  # left hand, right hand, face; xyxy in pixels of the 384×512 crop
    given: Bool[Tensor, "b 3"]
