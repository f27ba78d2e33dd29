"""The whole-body network: a crop of one person to body parameters, positions, boxes and, with a body, a mesh."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import axis_angle_to_matrix, matrix_to_axis_angle, rotation_6d_to_matrix
from wholebody.model.config import ENCODERS, PYRAMIDS, OSXConfig, PartConfig, build_part
from wholebody.model.decoder import KeypointDecoder
from wholebody.model.embedded.lifting import (
    Estimate,
    FinePositions,
    LiftingBodyHead,
    LiftingConfig,
    LiftingHandHead,
    Palm,
    turn_wrists,
)
from wholebody.model.encoder import EncoderOutput
from wholebody.model.heads import (
    BODY_JOINTS,
    FACE_POINTS,
    HAND_JOINTS,
    BodyHead,
    BoxHead,
    FaceHead,
    FaceTokenHead,
    HandHead,
    PositionHead,
    square_boxes,
)
from wholebody.model.roi import CropContext, RoIFeatures


@dataclass
class Prediction:
    """What the network says of B people, each in the crop it was given.

    Metres, radians, camera frame (x right, y down, z forward). `cells`: x in 12, y in 16, z in 16 across the crop;
    `box_cells`: the same of the part's own square box (hands 16×16×16, face 8×8×8 for the published sizes). Boxes are
    xyxy in pixels of the 384×512 (width×height) crop. The fields that need a body mesh are None where there is none.
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
    joints_cells: Tensor  # B×65×3: 25 body joints, 20 of each hand, all in cells of the crop
    body_cells: Tensor  # B×25×3
    left_hand_box_cells: Tensor  # B×20×3
    right_hand_box_cells: Tensor  # B×20×3
    face_box_cells: Tensor | None  # B×72×3; None without a face decoder
    box_centers_cells: Tensor  # B×3×2: left hand, right hand, face
    box_sizes_cells: Tensor  # B×3×2: before they are made square and enlarged
    left_hand_box: Tensor  # B×4, detached, as the next two: the boxes that features were cropped from
    right_hand_box: Tensor  # B×4
    face_box: Tensor  # B×4
    body_logits: Tensor | None = None  # B×25×(32 * 24 + 1): of finer cells, then "outside"; where there are such
    hand_maps: Tensor | None = None  # B×2×20×side×side: probabilities of joints in the hands' boxes; with context only
    face_maps: Tensor | None = None  # B×72×side×side, likewise
    vertices_cam: Tensor | None = None  # B×V×3, camera translation added
    joints_cam: Tensor | None = None  # B×55×3: the joints of the body's tree, camera translation added
    joints_144_cam: Tensor | None = None  # B×144×3, camera translation added
    joints_proj_cells: Tensor | None = None  # B×137×2: the mesh's joints, projected


torch.export.register_dataclass(Prediction, serialized_type_name="wholebody.Prediction")


@dataclass
class PartBoxes:
    """Boxes to crop features from in place of the predicted ones, where `given`."""

    boxes: Tensor  # B×3×4: left hand, right hand, face; xyxy in pixels of the 384×512 crop
    given: Tensor  # B×3, bool


class OSX(nn.Module):
    """Encoder → body → hand and face boxes → features of the boxes → hands and face → mesh.

    A part that is absent is None: `face` without a face decoder, `body` where only parameters are wanted. See
    `build_osx`.
    """

    box_scales: Tensor

    def __init__(
        self,
        config: OSXConfig,
        encoder: nn.Module,
        body_positions: PositionHead | FinePositions,
        body_head: BodyHead | LiftingBodyHead,
        box_head: BoxHead,
        hands: Hands,
        face: Face | FaceTokenHead,
        body: BodyModel | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.body_positions = body_positions
        self.body_head = body_head
        self.box_head = box_head
        self.hands = hands
        self.face = face
        self.body = body
        self.checkpoint: Any = None  # what `load_model` read this from
        # Constants are made on the CPU even where parameters are only sketched (on the "meta" device, for loading).
        face_scale = config.face.box_scale if config.face is not None else 1.5
        scales = torch.tensor((config.hands.box_scale, config.hands.box_scale, face_scale), device="cpu")
        self.register_buffer("box_scales", scales, persistent=False)

    def forward(self, images: Tensor, boxes: PartBoxes | None = None) -> Prediction:
        """images: B×3×512×384 RGB in [0, 1]. boxes: train with these in place of the predicted ones."""
        prediction = self.regress(images, boxes)
        return prediction if self.body is None else self.with_mesh(prediction)

    def regress(self, images: Tensor, boxes: PartBoxes | None = None) -> Prediction:
        """Everything that needs no body mesh."""
        return self.regress_encoded(self.encoder(images), boxes)

    def regress_encoded(self, encoded: EncoderOutput, boxes: PartBoxes | None = None) -> Prediction:
        """As `regress`, of pictures that the encoder has seen already (in another precision, say)."""
        volumes, body_cells, logits, estimates = self.regress_body(encoded)
        body_6d, betas, camera = estimates[-1]
        centers, sizes = self.box_head(encoded.feature_map, volumes.detach())
        part_boxes = self._part_boxes(centers.detach(), sizes.detach(), boxes)
        fractions = part_boxes / self._pixels(part_boxes)

        hand_maps, hand_cells, hands_6d, palm = self.hands(encoded, fractions[:, :2])
        if hand_maps is not None:
            hand_maps = torch.stack((hand_maps[:, 0].flip(-1), hand_maps[:, 1]), 1)
        if isinstance(self.face, Face):
            face_maps, face_cells, expression, jaw_6d = self.face(encoded, fractions[:, 2:])
        else:
            face_maps, face_cells, (expression, jaw_6d) = None, None, self.face(encoded.tokens)
        left_cells, right_cells = self._unmirror(hand_cells)

        # Under autocast the heads speak in half precision; angles and everything after them need the full one.
        full = self.box_scales.dtype
        rotations_6d = torch.cat((body_6d, hands_6d.flatten(1, 2), jaw_6d[:, None]), 1).to(full)
        betas, expression, camera = betas.to(full), expression.to(full), camera.to(full)
        rotations = rotation_6d_to_matrix(rotations_6d)
        body = rotations[:, :22]
        if palm is not None:
            turn = rotation_6d_to_matrix(palm.turn_6d.to(full))
            turn = torch.stack((mirrored(turn[:, 0]), turn[:, 1]), 1)
            body = turn_wrists(body, turn, palm.trust.to(full).sigmoid())
        rotations = torch.cat((body, mirrored(rotations[:, 22:37]), rotations[:, 37:]), 1)
        pose = matrix_to_axis_angle(rotations)
        return Prediction(
            rotations=rotations,
            global_orient=pose[:, 0],
            body_pose=pose[:, 1:22],
            left_hand_pose=pose[:, 22:37],
            right_hand_pose=pose[:, 37:52],
            jaw_pose=pose[:, 52],
            betas=betas,
            expression=expression,
            cam_trans=self.config.camera.translation(camera),
            joints_cells=self._joints_in_crop(body_cells, left_cells, right_cells, fractions),
            body_cells=body_cells,
            left_hand_box_cells=left_cells,
            right_hand_box_cells=right_cells,
            face_box_cells=face_cells,
            box_centers_cells=centers,
            box_sizes_cells=sizes,
            left_hand_box=part_boxes[:, 0],
            right_hand_box=part_boxes[:, 1],
            face_box=part_boxes[:, 2],
            body_logits=logits,
            hand_maps=hand_maps,
            face_maps=face_maps,
        )

    def regress_body(self, encoded: EncoderOutput) -> tuple[Tensor, Tensor, Tensor | None, list[Estimate]]:
        """The body alone: (position volumes, body_cells, body_logits, estimates of which the last counts)"""
        if isinstance(self.body_positions, FinePositions):
            located = self.body_positions(encoded)
            volumes = 4 * F.avg_pool2d(located.probabilities, 2)[:, :, None]
            return volumes, located.cells, located.logits, self.body_head(encoded.tokens, located)
        volumes, cells, _ = self.body_positions(encoded.feature_map)
        body = self.body_head(encoded.tokens, cells.detach() / self.config.position_unit)
        return volumes, cells, None, [Estimate(*body)]

    def with_mesh(self, prediction: Prediction, body: BodyModel | None = None) -> Prediction:
        """The prediction with mesh and joints of this network's body, or of the one given (a vertex subset, say)."""
        body = self.body if body is None else body
        assert body is not None
        output = body.from_matrices(
            _body_rotations(prediction, body), prediction.betas, prediction.expression, prediction.cam_trans
        )
        joints = output.joints
        return dataclasses.replace(
            prediction,
            vertices_cam=output.vertices,
            joints_cam=joints[:, :55],
            joints_144_cam=joints,
            joints_proj_cells=self.project(body.joints_137(joints)),
        )

    def project(self, joints_cam: Tensor) -> Tensor:
        """Points ...×3 in the camera frame to ...×2 in cells of the crop, by the virtual camera."""
        _, rows, columns = self.config.grid
        return self.config.camera.project(joints_cam) * joints_cam.new_tensor((columns, rows))

    def _part_boxes(self, centers: Tensor, sizes: Tensor, given: PartBoxes | None) -> Tensor:
        cell_px = self.config.input_hw[0] / self.config.grid[1]
        boxes = square_boxes(centers, sizes, self.box_scales.to(sizes.dtype), cell_px)
        if given is None:
            return boxes
        return torch.where(given.given[..., None], given.boxes.to(boxes.dtype), boxes)

    def _pixels(self, like: Tensor) -> Tensor:
        height, width = self.config.input_hw
        return like.new_tensor((width, height, width, height))

    def _unmirror(self, hand_cells: Tensor) -> tuple[Tensor, Tensor]:
        """Positions B×2×20×3 of two right hands to those of the left and the right one, each in its own box."""
        left, right = hand_cells.unbind(1)
        last = self.hands.side - 1 + 2 * self.hands.shift
        return torch.cat((last - left[..., :1], left[..., 1:]), -1), right

    def _joints_in_crop(self, body: Tensor, left: Tensor, right: Tensor, fractions: Tensor) -> Tensor:
        depth, rows, columns = self.config.grid
        joints = [body]
        for hand, box in ((left, fractions[:, None, 0]), (right, fractions[:, None, 1])):
            grid = box.new_tensor((columns, rows))
            low, high = box[..., :2] * grid, box[..., 2:] * grid
            xy = low + hand[..., :2] * (high - low) / self.hands.side
            joints.append(torch.cat((xy, hand[..., 2:] * (depth / self.hands.depth)), -1))
        return torch.cat(joints, 1)


class Hands(nn.Module):
    """Both hands of B people, as right hands: features of two boxes to joint positions and rotations."""

    def __init__(
        self,
        config: PartConfig,
        features: RoIFeatures,
        hidden: int,
        position_unit: float,
        lifting: LiftingConfig | None = None,
    ) -> None:
        super().__init__()
        self.depth, self.side = config.depth, config.crops[config.position_level]
        self.shift = 0.5 if config.aligned else 0.0  # from the number of a cell to its middle
        self.level = config.position_level
        self.features, self.position_unit = features, position_unit
        self.context = CropContext(features.channels) if config.context else None
        query = hidden if config.decoder is None else config.decoder.width
        self.positions = PositionHead(features.channels[self.level], HAND_JOINTS, config.depth, query)
        self.decoder = None
        if config.decoder is not None:
            self.decoder = KeypointDecoder(config.decoder, HAND_JOINTS, features.channels, config.crops)
        self.head: HandHead | LiftingHandHead = HandHead(query, None if self.decoder is None else hidden)
        if lifting is not None:
            self.head = LiftingHandHead(query, hidden, lifting)

    def forward(self, encoded: EncoderOutput, boxes: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Palm | None]:
        """boxes B×2×4 as fractions of the crop, left then right: maps B×2×20×side×side of where joints are (None
        without context), positions B×2×20×3, 6D rotations B×2×15×6, and how palms are turned (B×2×...) or None.
        """
        crops = self.features(encoded, boxes)
        if self.context is not None:
            crops[0] = self.context(crops)
        volumes, cells, found = self.positions(crops[self.level])
        cells = cells + self.shift
        if self.decoder is not None:
            found = self.decoder(crops, cells.detach()[..., :2] / self.side, found)
        rotations, palm = self.head(found, cells.detach() / self.position_unit), None
        if isinstance(self.head, LiftingHandHead):
            rotations, palm = rotations
            palm = Palm(*(x.unflatten(0, (-1, 2)) for x in palm))
        maps = volumes.sum(2).unflatten(0, (-1, 2)) if self.context is not None else None
        return maps, cells.unflatten(0, (-1, 2)), rotations.unflatten(0, (-1, 2)), palm


class Face(nn.Module):
    """Features of the face's box to point positions, expression and jaw."""

    def __init__(self, config: PartConfig, features: RoIFeatures, hidden: int, position_unit: float) -> None:
        super().__init__()
        assert config.decoder is not None
        self.side, self.level = config.crops[config.position_level], config.position_level
        self.shift = 0.5 if config.aligned else 0.0
        self.features, self.position_unit = features, position_unit
        self.context = CropContext(features.channels) if config.context else None
        self.positions = PositionHead(features.channels[self.level], FACE_POINTS, config.depth, config.decoder.width)
        self.decoder = KeypointDecoder(config.decoder, FACE_POINTS, features.channels, config.crops)
        self.head = FaceHead(features.channels[-1], config.decoder.width, hidden)

    def forward(self, encoded: EncoderOutput, boxes: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """boxes B×1×4 as fractions of the crop: maps B×72×side×side of where points are (None without context),
        positions B×72×3, expression B×10, jaw B×6"""
        crops = self.features(encoded, boxes)
        if self.context is not None:
            crops[0] = self.context(crops)
        volumes, cells, found = self.positions(crops[self.level])
        cells = cells + self.shift
        found = self.decoder(crops, cells.detach()[..., :2] / self.side, found)
        maps = volumes.sum(2) if self.context is not None else None
        return maps, cells, *self.head(found, cells.detach() / self.position_unit, crops[-1])


def build_osx(
    config: OSXConfig,
    body: BodyModel | None = None,
    *,
    encoder: nn.Module | None = None,
    hand_pyramid: nn.Module | None = None,
    face_pyramid: nn.Module | None = None,
) -> OSX:
    """Builds the parts that a config describes and puts them together; a part that is handed in is taken as it is."""
    width = config.encoder.width
    encoder = encoder or build_part(config.encoder, ENCODERS)

    def features(part: PartConfig, pyramid: nn.Module | None, mirror: tuple[bool, ...]) -> RoIFeatures:
        pyramid = pyramid or build_part(part.pyramid, PYRAMIDS, width)
        expand = width if part.decoder is None else None
        return RoIFeatures(pyramid, part.crops, mirror, expand, part.aligned)  # type: ignore[arg-type]

    face: Face | FaceTokenHead = FaceTokenHead(width)
    if config.face is not None:
        face = Face(config.face, features(config.face, face_pyramid, (False,)), config.hidden, config.position_unit)
    positions: PositionHead | FinePositions = PositionHead(width, BODY_JOINTS, config.grid[0])
    body_head: BodyHead | LiftingBodyHead = BodyHead(width, config.hidden)
    if config.lifting is not None:
        positions = FinePositions(width, config.encoder.finer_width, config.lifting)
        body_head = LiftingBodyHead(width, config.lifting, config.camera)
    hand_features = features(config.hands, hand_pyramid, (True, False))
    return OSX(
        config,
        encoder,  # type: ignore[arg-type]
        positions,
        body_head,
        BoxHead(width, 1 if config.lifting else config.grid[0], config.box_channels),
        Hands(config.hands, hand_features, config.hidden, config.position_unit, config.lifting),
        face,
        body,
    )


def _body_rotations(prediction: Prediction, body: BodyModel) -> Tensor:
    """The rotations of the body's tree, B×55×3×3: eyes looking ahead, the body's mean pose added to the hands."""
    rotations = prediction.rotations
    hands = rotations[:, 22:52]
    if not body.flat_hand_mean:  # the mean is added to axis-angle vectors; elsewhere matrices spare a detour
        pose = torch.cat((prediction.left_hand_pose, prediction.right_hand_pose), 1)
        hands = axis_angle_to_matrix(pose + body.hand_mean)
    eyes = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(len(rotations), 2, 3, 3)
    return torch.cat((rotations[:, :22], rotations[:, 52:], eyes, hands), 1)


def mirrored(rotations: Tensor) -> Tensor:
    """Rotations ...×3×3 as seen in a mirror across x = 0."""
    sign = rotations.new_tensor((-1.0, 1.0, 1.0))
    return rotations * sign[:, None] * sign
