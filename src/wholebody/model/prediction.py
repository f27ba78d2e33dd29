"""What a network says of people, and what may be put in the place of its boxes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Prediction:
    """What the network says of B people, each in the crop it was given.

    Metres, radians, camera frame (x right, y down, z forward). `cells`: x in 12, y in 16, z in 16 across the crop;
    `box_cells`: the same of the part's own square box (hands 16×16×16, face 8×8×8 for the published sizes). Boxes are
    xyxy in pixels of the 384×512 (width×height) crop. What a network does not say is None: SMPLest-X has neither
    positions in the picture nor boxes. The fields that need a body mesh are None where there is none.
    """

    rotations: Tensor  # B×53×3×3: pelvis, 21 body, 15 left hand, 15 right hand, jaw; without any mean hand pose
    global_orient: Tensor  # B×3 axis-angle, as the next five
    body_pose: Tensor  # B×21×3
    left_hand_pose: Tensor  # B×15×3
    right_hand_pose: Tensor  # B×15×3
    jaw_pose: Tensor  # B×3
    betas: Tensor  # B×10
    expression: Tensor  # B×10
    cam_trans: Tensor  # B×3, from the body's frame to the camera's
    joints_cells: Tensor | None = None  # B×65×3: 25 body joints, 20 of each hand, all in cells of the crop
    body_cells: Tensor | None = None  # B×25×3
    left_hand_box_cells: Tensor | None = None  # B×20×3
    right_hand_box_cells: Tensor | None = None  # B×20×3
    face_box_cells: Tensor | None = None  # B×72×3; None without a face decoder
    box_centers_cells: Tensor | None = None  # B×3×2: left hand, right hand, face
    box_sizes_cells: Tensor | None = None  # B×3×2: before they are made square and enlarged
    left_hand_box: Tensor | None = None  # B×4, detached, as the next two: the boxes that features were cropped from
    right_hand_box: Tensor | None = None  # B×4
    face_box: Tensor | None = None  # B×4
    found_keypoints: Tensor | None = None  # B×17×3: COCO's, fractions of the crop and score 0..1; where found as such
    body_logits: Tensor | None = None  # B×25×(32 * 24 + 1): of finer cells, then "outside"; where there are such
    hand_maps: Tensor | None = None  # B×2×20×side×side: probabilities of joints in the hands' boxes; with context only
    face_maps: Tensor | None = None  # B×72×side×side, likewise
    hand_roots_6d: Tensor | None = None  # B×2×6: both wrists in the camera frame; of SMPLest-X, for its losses alone
    vertices_cam: Tensor | None = None  # B×V×3, camera translation added
    joints_cam: Tensor | None = None  # B×55×3: the joints of the body's tree, camera translation added
    joints_144_cam: Tensor | None = None  # B×144×3, camera translation added
    joints_proj_cells: Tensor | None = None  # B×137×2: the mesh's joints, projected


def pictures_01(pictures: Tensor, like: Tensor) -> Tensor:
    """Pictures B×H×W×3 of 0..255 as networks take them: B×3×H×W in [0, 1], on the device of `like`, one of the
    network's parameters, and of its precision, but of single precision at least."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return pictures.to(like.device).permute(0, 3, 1, 2).to(dtype).contiguous() / 255


torch.export.register_dataclass(Prediction, serialized_type_name="wholebody.Prediction")


@dataclass
class PartBoxes:
    """Boxes to crop features from in place of the predicted ones, where `given`."""

    boxes: Tensor  # B×3×4: left hand, right hand, face; xyxy in pixels of the 384×512 crop
    given: Tensor  # B×3, bool
