"""The whole-body network: a crop of one person to body parameters, positions, boxes and, with a body, a mesh."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wholebody.body.layer import BodyModel
from wholebody.geometry.rotation import mirrored, rotation_6d_to_matrix
from wholebody.model.config import NetworkConfig, OSXConfig, PartConfig
from wholebody.model.decoder import KeypointDecoder
from wholebody.model.encoder import EncoderOutput, ViT
from wholebody.model.heads import (
    BODY_JOINTS,
    FACE_POINTS,
    HAND_JOINTS,
    BodyHead,
    BodyPositions,
    BoxHead,
    Estimate,
    FaceHead,
    FaceTokenHead,
    FoundFace,
    FoundHands,
    HandHead,
    PositionHead,
    square_boxes,
)
from wholebody.model.network import Network
from wholebody.model.parts import Face, Hands
from wholebody.model.prediction import PartBoxes, Prediction, pose_fields
from wholebody.model.roi import DeconvolutionPyramid, FocusedRoIFeatures

__all__ = ["OSX", "PartBoxes", "Prediction", "build_osx"]


class OSX(Network):
    """Encoder → body → hand and face boxes → features of the boxes → hands and face → mesh.

    The parts, and what each is called with (see `build_osx` for the published ones):

    - encoder: pictures → `EncoderOutput`.
    - body_positions: `EncoderOutput` → where joints are: `volumes` for the box head, `cells`, `logits` or None, and
      whatever else its body_head wants to know.
    - body_head: (tokens, what body_positions found) → a list of `Estimate`, of which the last counts.
    - box_head: (feature map, volumes) → centres and sizes of both hands and the face.
    - hands: (`EncoderOutput`, boxes B×2×4) → `FoundHands`. face: (`EncoderOutput`, boxes B×1×4) → `FoundFace`.
    - wrists: (body rotations, the palms that `hands` found) → body rotations; absent in the published networks.
    """

    box_scales: Tensor

    def __init__(
        self,
        config: NetworkConfig,
        encoder: nn.Module,
        body_positions: nn.Module,
        body_head: nn.Module,
        box_head: nn.Module,
        hands: Hands,
        face: nn.Module,
        box_scales: tuple[float, float, float],
        wrists: nn.Module | None = None,
        body: BodyModel | None = None,
    ) -> None:
        super().__init__(config, body)
        self.encoder = encoder
        self.body_positions = body_positions
        self.body_head = body_head
        self.box_head = box_head
        self.hands = hands
        self.face = face
        self.wrists = wrists
        # Constants are made on the CPU even where parameters are only sketched (on the "meta" device, for loading).
        self.register_buffer("box_scales", torch.tensor(box_scales, device="cpu"), persistent=False)

    def regress(self, images: Tensor, boxes: PartBoxes | None = None) -> Prediction:
        """Everything that needs no body mesh."""
        return self.regress_encoded(self.encode(images), boxes)

    def regress_encoded(self, encoded: EncoderOutput, boxes: PartBoxes | None = None) -> Prediction:
        """As `regress`, of pictures that the encoder has seen already (in another precision, say)."""
        located, estimates = self.regress_body(encoded)
        centers, sizes = self.box_head(encoded.feature_map, located.volumes.detach())
        part_boxes = self._part_boxes(centers.detach(), sizes.detach(), boxes)
        fractions = part_boxes / self._pixels(part_boxes)
        hands: FoundHands = self.hands(encoded, fractions[:, :2])
        face: FoundFace = self.face(encoded, fractions[:, 2:])
        left_cells, right_cells = self._unmirror(hands.cells)

        # Under autocast the heads speak in half precision; angles and everything after them need the full one.
        full = self.box_scales.dtype
        rotations = self._rotations(estimates[-1].rotations_6d, hands, face.jaw_6d, full)
        return Prediction(
            **pose_fields(rotations),
            betas=estimates[-1].betas.to(full),
            expression=face.expression.to(full),
            cam_trans=self.config.camera.translation(estimates[-1].camera.to(full)),
            joints_cells=self._joints_in_crop(located.cells, left_cells, right_cells, fractions),
            body_cells=located.cells,
            left_hand_box_cells=left_cells,
            right_hand_box_cells=right_cells,
            face_box_cells=face.cells,
            box_centers_cells=centers,
            box_sizes_cells=sizes,
            left_hand_box=part_boxes[:, 0],
            right_hand_box=part_boxes[:, 1],
            face_box=part_boxes[:, 2],
            found_keypoints=encoded.keypoints,
            body_logits=located.logits,
            hand_maps=hands.maps,
            face_maps=face.maps,
        )

    def regress_body(self, encoded: EncoderOutput) -> tuple[Any, list[Estimate]]:
        """The body alone: where its joints were found, and what it is taken for (the last estimate counts)."""
        located = self.body_positions(encoded)
        return located, self.body_head(encoded.tokens, located)

    @property
    def reads_hw(self) -> tuple[int, int]:
        return getattr(self.encoder, "reads_hw", self.config.input_hw)

    @property
    def can_glance(self) -> bool:
        return hasattr(self.encoder, "glance")

    def glance(self, images: Tensor, rotations: Tensor, expression: Tensor) -> Prediction:
        encoder: Any = self.encoder
        wrists: Any = self.wrists
        encoded: EncoderOutput = encoder.glance(images)
        located, estimates = self.regress_body(encoded)
        full = self.box_scales.dtype
        body = rotation_6d_to_matrix(estimates[-1].rotations_6d.to(full))
        if wrists is not None:
            body = wrists.as_before(body, rotations)
        prediction = Prediction(
            **pose_fields(torch.cat((body, rotations[:, 22:]), 1)),
            betas=estimates[-1].betas.to(full),
            expression=expression,
            cam_trans=self.config.camera.translation(estimates[-1].camera.to(full)),
            body_cells=located.cells,
            found_keypoints=encoded.keypoints,
        )
        return prediction if self.body is None else self.with_mesh(prediction)

    def _rotations(self, body_6d: Tensor, hands: FoundHands, jaw_6d: Tensor, full: torch.dtype) -> Tensor:
        """All 53, B×53×3×3: the left hand was seen as a right one, in a mirror."""
        rotations_6d = torch.cat((body_6d, hands.rotations_6d.flatten(1, 2), jaw_6d[:, None]), 1).to(full)
        rotations = rotation_6d_to_matrix(rotations_6d)
        body = rotations[:, :22]
        if self.wrists is not None:
            body = self.wrists(body, hands.palm)
        return torch.cat((body, mirrored(rotations[:, 22:37]), rotations[:, 37:]), 1)

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
        last = self.hands.side - 1 + 2 * self.hands.middle
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


def build_osx(config: OSXConfig, body: BodyModel | None = None) -> OSX:
    """The published network of a config, SMPLer-X included: the whole tree, part by part."""
    width, depth = config.encoder.width, config.grid[0]
    return OSX(
        config,
        encoder=ViT(config.encoder),
        body_positions=BodyPositions(width, BODY_JOINTS, depth),
        body_head=BodyHead(width, config.hidden),
        box_head=BoxHead(width, depth, config.box_channels),
        hands=_hands(config.hands, width, config.hidden),
        face=FaceTokenHead(width) if config.face is None else _face(config.face, width, config.hidden),
        box_scales=(config.hands.box_scale,) * 2 + (1.5 if config.face is None else config.face.box_scale,),
        body=body,
    )


def _hands(config: PartConfig, width: int, hidden: int) -> Hands:
    pyramid = DeconvolutionPyramid(config.pyramid, width)
    level = config.position_level
    if config.decoder is None:  # rotations straight from the features at the joints, expanded for that
        features = FocusedRoIFeatures(pyramid, config.crops, mirror=(True, False), expand=width)
        positions = PositionHead(width, HAND_JOINTS, config.depth, query_channels=hidden)
        return Hands(features, positions, HandHead(hidden), side=config.crops[level], depth=config.depth, level=level)
    return Hands(
        features=FocusedRoIFeatures(pyramid, config.crops, mirror=(True, False)),
        positions=PositionHead(pyramid.channels[level], HAND_JOINTS, config.depth, config.decoder.width),
        decoder=KeypointDecoder(config.decoder, HAND_JOINTS, pyramid.channels, config.crops),
        head=HandHead(config.decoder.width, hidden),
        side=config.crops[level],
        depth=config.depth,
        level=level,
    )


def _face(config: PartConfig, width: int, hidden: int) -> Face:
    assert config.decoder is not None
    pyramid = DeconvolutionPyramid(config.pyramid, width)
    level = config.position_level
    return Face(
        features=FocusedRoIFeatures(pyramid, config.crops, mirror=(False,)),
        positions=PositionHead(pyramid.channels[level], FACE_POINTS, config.depth, config.decoder.width),
        decoder=KeypointDecoder(config.decoder, FACE_POINTS, pyramid.channels, config.crops),
        head=FaceHead(pyramid.channels[-1], config.decoder.width, hidden),
        side=config.crops[level],
        depth=config.depth,
        level=level,
    )
