"""What every network of the family can do once it has said its parameters: place a mesh, and say where it is seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wholebody.body.kinematics import tree_rotations
from wholebody.body.layer import HALVES, BodyModel, at_least_single
from wholebody.errors import BadInput
from wholebody.geometry.rotation import axis_angle_to_matrix
from wholebody.model.config import NetworkConfig
from wholebody.model.encoder import EncoderOutput
from wholebody.model.prediction import PartBoxes, Prediction

if TYPE_CHECKING:
    from jaxtyping import Float


class Network(nn.Module):
    """Crops of people to parameters (`regress`) and, with a body, to meshes.

    config: what it is made of. body: None where only parameters are wanted. checkpoint: what `load_model` read it from.
    """

    config: NetworkConfig
    encoder: nn.Module
    body: BodyModel | None

    def __init__(self, config: NetworkConfig, body: BodyModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.body = body
        self.checkpoint: Any = None

    def forward(self, images: Float[Tensor, "b 3 h w"], boxes: PartBoxes | None = None) -> Prediction:
        """images: B×3×512×384 RGB in [0, 1]. boxes: train with these in place of the predicted ones."""
        prediction = self.regress(images, boxes)
        return prediction if self.body is None else self.with_mesh(prediction)

    def regress(self, images: Float[Tensor, "b 3 h w"], boxes: PartBoxes | None = None) -> Prediction:
        """Everything that needs no body mesh."""
        raise NotImplementedError

    @property
    def reads_hw(self) -> tuple[int, int]:
        """Height and width of the smallest pictures that say as much to it as those of `config.input_hw`."""
        return self.config.input_hw

    @property
    def can_glance(self) -> bool:
        """Whether bodies can be had sooner than hands and faces, by `glance`."""
        return False

    def glance(
        self,
        images: Float[Tensor, "b 3 h w"],
        rotations: Float[Tensor, "b 53 3 3"],
        expression: Float[Tensor, "b 10"],
    ) -> Prediction:
        """As `forward`, the bodies alone being looked for.

        rotations (B×53×3×3) and expression (B×10): of the same people a moment before; hands and face are taken over.
        """
        raise NotImplementedError

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> EncoderOutput:
        """What the encoder makes of pictures, in single precision where it computes in half of it."""
        check_batch(images)
        dtype = next(self.encoder.parameters()).dtype
        if dtype not in HALVES:
            return self.encoder(images)
        tokens, feature_map, finer, keypoints = self.encoder(images.to(dtype))
        keypoints = None if keypoints is None else keypoints.float()
        return EncoderOutput(tokens.float(), feature_map.float(), tuple(level.float() for level in finer), keypoints)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Network:
        """`half()`, `bfloat16()`, `to(dtype)`: only the encoder, nearly all of the weights, goes below single.

        In half precision a pixel is lost among the cells of a map, and centimetres on a body.
        """
        super()._apply(at_least_single(fn), recurse)
        self.encoder._apply(fn)
        return self

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

    def project(self, joints_cam: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """Points ...×3 in the camera frame to ...×2 in cells of the crop, by the virtual camera."""
        _, rows, columns = self.config.grid
        return self.config.camera.project(joints_cam) * joints_cam.new_tensor((columns, rows))


def check_batch(images: Tensor) -> None:
    if images.shape[0] == 0:
        raise BadInput("the batch of pictures is empty; give one picture at least")


def _body_rotations(prediction: Prediction, body: BodyModel) -> Float[Tensor, "b 55 3 3"]:
    """The rotations of the body's tree, B×55×3×3: eyes looking ahead, the body's mean pose added to the hands."""
    rotations = prediction.rotations
    hands = rotations[:, 22:52]
    if not body.flat_hand_mean:  # the mean is added to axis-angle vectors; elsewhere matrices spare a detour
        pose = torch.cat((prediction.left_hand_pose, prediction.right_hand_pose), 1)
        hands = axis_angle_to_matrix(pose + body.hand_mean)
    return tree_rotations(torch.cat((rotations[:, :22], hands, rotations[:, 52:]), 1))
