"""The published way: the operations of the published code in their published order, on our network's weights.

The benchmark's other side. Nothing here is slowed down; it only does what the published code does: attention with its
matrix laid out, transposed convolution, norm and activation one after the other, both hands cropped one by one, a
memory repeated for every head and sampled by `grid_sample`, and the stock body layer's dense products. Tested against
the oracle as ours is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wholebody.body.assets import BodyArrays
from wholebody.body.layer import BodyModel, BodyOutput
from wholebody.geometry.rotation import axis_angle_to_matrix, rotation_6d_to_axis_angle
from wholebody.model.decoder import DecoderLayer
from wholebody.model.heads import PositionHead
from wholebody.model.osx import OSX, Prediction


class PublishedWay(nn.Module):
    """B×3×512×384 pictures to the same `Prediction` as the OSX it is given, whose weights it uses."""

    def __init__(self, model: OSX, body: BodyArrays | None = None) -> None:
        """body: the file of the model's body, read anew: the layer keeps another form of it."""
        super().__init__()
        self.model = model
        self.body = None if model.body is None or body is None else PublishedBody(model.body, body)

    def forward(self, images: Tensor) -> Prediction:
        m: Any = self.model  # its parts are those of OSX, whatever torch says of attributes
        tokens, feature_map = self._encode(F.interpolate(images, (256, 192)))
        volumes, body_cells = _positions(m.body_positions, feature_map)
        body_tokens = m.body_head.token(tokens[:, 6:])
        body_features = torch.cat((body_tokens, body_cells.detach()), 2).flatten(1)
        root, pose = m.body_head.root(body_features), m.body_head.pose(body_features)
        betas, camera = m.body_head.shape(tokens[:, 0]), m.body_head.camera(tokens[:, 1])

        centers, sizes = self._boxes(feature_map, volumes.detach())
        boxes = [_square(centers[:, i], sizes[:, i], scale).detach() for i, scale in enumerate((2.0, 2.0, 1.5))]

        hand_crops = self._hand_crops(feature_map, boxes[0], boxes[1])
        level = m.hands.level
        _, hand_cells = _positions(m.hands.positions, hand_crops[level])
        found = _sample(m.hands.positions.query(hand_crops[level]), hand_cells.detach()[..., :2])
        if m.hands.decoder is not None:
            found = _decode(m.hands.decoder, hand_crops, hand_cells.detach() / 16, found)
            found = m.hands.head.joint(found)
        hand_6d = m.hands.head.pose(torch.cat((found, hand_cells.detach()), 2).flatten(1))
        hand_pose = rotation_6d_to_axis_angle(hand_6d.reshape(-1, 6)).reshape(-1, 15, 3)
        batch = len(images)
        left_cells = torch.cat((15 - hand_cells[:batch, :, :1], hand_cells[:batch, :, 1:]), 2)
        right_cells = hand_cells[batch:]
        left_pose = torch.cat((hand_pose[:batch, :, :1], -hand_pose[:batch, :, 1:]), 2)
        right_pose = hand_pose[batch:]

        face_cells, face = None, m.face
        if m.config.face is not None:
            face_crops = [
                _roi_align(_upsample(branch, feature_map), boxes[2], (side, side), scale)
                for branch, side, scale in zip(face.features.pyramid.branches, (16, 8, 4), (4, 2, 1), strict=True)
            ]
            _, face_cells = _positions(face.positions, face_crops[1])
            found = _sample(face.positions.query(face_crops[1]), face_cells.detach()[..., :2])
            found = _decode(face.decoder, face_crops, face_cells.detach() / 8, found)
            points = torch.cat((face.head.point(found), face_cells.detach()), 2).flatten(1)
            features = torch.cat((face.head.face(face_crops[2].mean((2, 3))), points), 1)
            expression, jaw = face.head.expression(features), face.head.jaw(features)
        else:
            expression, jaw = face.expression(tokens[:, 2]), face.jaw(tokens[:, 3])

        root_pose = rotation_6d_to_axis_angle(root)
        body_pose = rotation_6d_to_axis_angle(pose.reshape(-1, 6)).reshape(batch, 21, 3)
        jaw_pose = rotation_6d_to_axis_angle(jaw)
        farthest = math.sqrt(5000 * 5000 * 2.5 * 2.5 / (256 * 192))
        translation = torch.cat((camera[:, :2], farthest * torch.sigmoid(camera[:, 2:])), 1)
        full = torch.cat((root_pose[:, None], body_pose, left_pose, right_pose, jaw_pose[:, None]), 1)
        prediction = Prediction(
            rotations=axis_angle_to_matrix(full),
            global_orient=root_pose,
            body_pose=body_pose,
            left_hand_pose=left_pose,
            right_hand_pose=right_pose,
            jaw_pose=jaw_pose,
            betas=betas,
            expression=expression,
            cam_trans=translation,
            joints_cells=torch.cat((body_cells, _in_crop(left_cells, boxes[0]), _in_crop(right_cells, boxes[1])), 1),
            body_cells=body_cells,
            left_hand_box_cells=left_cells,
            right_hand_box_cells=right_cells,
            face_box_cells=face_cells,
            box_centers_cells=centers,
            box_sizes_cells=sizes,
            left_hand_box=boxes[0] * 2,
            right_hand_box=boxes[1] * 2,
            face_box=boxes[2] * 2,
        )
        return prediction if self.body is None else self._with_mesh(prediction)

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        encoder: Any = self.model.encoder
        x = encoder.patch_embed(images).flatten(2).transpose(1, 2)
        x = x + encoder.pos_embed[:, 1:] + encoder.pos_embed[:, :1]
        x = torch.cat((encoder.component_tokens.expand(len(x), -1, -1), x), 1)
        for block in encoder.blocks:
            x = x + _attention(block.attention, block.norm1(x))
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        x = encoder.norm(x)
        patches = x[:, 31:].permute(0, 2, 1).reshape(len(x), -1, 16, 12).contiguous()
        return x[:, :31], patches

    def _boxes(self, feature_map: Tensor, volumes: Tensor) -> tuple[Tensor, Tensor]:
        head: Any = self.model.box_head
        features = _upsample(head.upsample, torch.cat((feature_map, volumes.flatten(1, 2)), 1))
        scores = head.center(features)
        probabilities = F.softmax(scores.flatten(2), 2).reshape(scores.shape)
        columns, rows = probabilities.sum(2), probabilities.sum(3)
        x = (columns * torch.arange(columns.shape[2]).to(columns)).sum(2)
        y = (rows * torch.arange(rows.shape[2]).to(rows)).sum(2)
        centers = torch.stack((x, y), 2)
        sizes = [size(_sample(features, centers[:, i, None].detach())[:, 0]) for i, size in enumerate(head.size)]
        return centers / 8, torch.stack(sizes, 1)

    def _hand_crops(self, feature_map: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
        features: Any = self.model.hands.features
        branches = features.pyramid.branches
        crops = []
        for branch, side, scale in zip(branches, features.crops, (4, 2, 1), strict=False):
            upsampled = _upsample(branch, feature_map)
            left_crop = torch.flip(_roi_align(upsampled, left, (side, side), scale), [3])
            right_crop = _roi_align(upsampled, right, (side, side), scale)
            crop = torch.cat((left_crop, right_crop))
            crops.append(crop if features.expand is None else features.expand(crop))
        return crops

    def _with_mesh(self, p: Prediction) -> Prediction:
        assert self.body is not None and self.model.body is not None
        output = self.body(p)
        joints = output.joints + p.cam_trans[:, None]
        selected = self.model.body.joints_137(joints)
        x = selected[..., 0] / (selected[..., 2] + 1e-4) * 5000 + 96
        y = selected[..., 1] / (selected[..., 2] + 1e-4) * 5000 + 128
        p.joints_proj_cells = torch.stack((x / 192 * 12, y / 256 * 16), 2)
        p.vertices_cam, p.joints_144_cam = output.vertices + p.cam_trans[:, None], joints
        p.joints_cam = joints[:, :55]
        return p


class PublishedBody(nn.Module):
    """Linear blend skinning by dense products over the whole file, as the stock body layer does it."""

    template: Tensor
    shape_dirs: Tensor
    pose_dirs: Tensor
    regressor: Tensor
    weights: Tensor

    def __init__(self, body: BodyModel, arrays: BodyArrays) -> None:
        super().__init__()
        self.layer = body
        if not isinstance(arrays.pose_dirs, np.ndarray):
            raise TypeError("the published way knows bodies with dense pose correctives only")
        dirs = np.concatenate((arrays.shape_dirs, arrays.expression_dirs), 2)
        constants = {
            "template": arrays.v_template,
            "shape_dirs": dirs,
            "pose_dirs": arrays.pose_dirs.reshape(-1, 486).T.copy(),
            "regressor": arrays.joint_regressor,
            "weights": arrays.weights,
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value).to(body.dtype), persistent=False)

    def forward(self, p: Prediction) -> BodyOutput:
        batch = len(p.betas)
        pose = self.layer.full_pose(
            global_orient=p.global_orient, body_pose=p.body_pose, left_hand_pose=p.left_hand_pose,
            right_hand_pose=p.right_hand_pose, jaw_pose=p.jaw_pose,
        )  # fmt: skip
        coefficients = torch.cat((p.betas, p.expression), 1)
        shaped = self.template + torch.einsum("bl,mkl->bmk", coefficients, self.shape_dirs)
        joints = torch.einsum("bik,ji->bjk", shaped, self.regressor)
        rotations = axis_angle_to_matrix(pose)
        pose_feature = (rotations[:, 1:] - torch.eye(3, dtype=pose.dtype)).reshape(batch, -1)
        posed = shaped + torch.matmul(pose_feature, self.pose_dirs).view(batch, -1, 3)
        posed_joints, transforms = _rigid_transforms(rotations, joints, self.layer.parents)
        weights = self.weights.expand(batch, -1, -1)
        blended = torch.matmul(weights, transforms.view(batch, 55, 16)).view(batch, -1, 4, 4)
        homogeneous = torch.cat((posed, torch.ones_like(posed[..., :1])), 2)
        vertices = torch.matmul(blended, homogeneous[..., None])[:, :, :3, 0]
        neck = rotations[:, 0] @ rotations[:, 3] @ rotations[:, 6] @ rotations[:, 9] @ rotations[:, 12]
        skin = self.layer._points_on_skin(vertices, neck)
        return BodyOutput(vertices, torch.cat((posed_joints, skin), 1))


def _rigid_transforms(rotations: Tensor, joints: Tensor, parents: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    relative = joints.clone()
    relative[:, 1:] -= joints[:, list(parents[1:])]
    bottom = rotations.new_tensor((0.0, 0.0, 0.0, 1.0)).expand(*rotations.shape[:2], 1, 4)
    local = torch.cat((torch.cat((rotations, relative[..., None]), 3), bottom), 2)
    chain = [local[:, 0]]
    for joint in range(1, len(parents)):
        chain.append(torch.matmul(chain[parents[joint]], local[:, joint]))
    transforms = torch.stack(chain, 1)
    homogeneous = F.pad(joints[..., None], [0, 0, 0, 1])
    shift = F.pad(torch.matmul(transforms, homogeneous), [3, 0, 0, 0, 0, 0, 0, 0])
    return transforms[:, :, :3, 3], transforms - shift


def _attention(attention: Any, x: Tensor) -> Tensor:
    batch, count, width = x.shape
    qkv = attention.qkv(x).reshape(batch, count, 3, attention.heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = qkv[0] * (width // attention.heads) ** -0.5, qkv[1], qkv[2]
    weights = (query @ key.transpose(-2, -1)).softmax(-1)
    return attention.proj((weights @ value).transpose(1, 2).reshape(batch, count, -1))


def _positions(head: PositionHead, features: Tensor) -> tuple[Tensor, Tensor]:
    scores = head.volumes(features)
    batch, _, height, width = scores.shape
    flat = F.softmax(scores.view(batch, head.joints, -1), 2)
    volumes = flat.view(batch, head.joints, -1, height, width)
    x, y, z = volumes.sum((2, 3)), volumes.sum((2, 4)), volumes.sum((3, 4))
    means = [(values * torch.arange(values.shape[2]).to(values)).sum(2, keepdim=True) for values in (x, y, z)]
    # The published code takes the softmax a second time, for the volumes that it hands on.
    again = F.softmax(scores.view(batch, head.joints, -1), 2).view(volumes.shape)
    return again, torch.cat(means, 2)


def _upsample(branch: Any, x: Tensor) -> Tensor:
    """Convolution, norm and activation one after the other: our own blocks do them another way."""
    if isinstance(branch, nn.Sequential):
        for stage in branch:
            for layer in stage:  # type: ignore[attr-defined]
                x = layer(x)
        return x
    return branch(x)


def _sample(features: Tensor, xy: Tensor) -> Tensor:
    height, width = features.shape[2:]
    grid = torch.stack((xy[..., 0] / (width - 1) * 2 - 1, xy[..., 1] / (height - 1) * 2 - 1), 2)
    return F.grid_sample(features, grid[:, :, None], align_corners=True)[..., 0].permute(0, 2, 1).contiguous()


def _square(center: Tensor, size: Tensor, scale: float) -> Tensor:
    """xyxy in the 192×256 picture"""
    low, high = (center - size / 2) * 16, (center + size / 2) * 16
    middle, side = (low + high) / 2, (high - low).amax(1, keepdim=True) * scale
    return torch.cat((middle - side / 2, middle + side / 2), 1)


def _roi_align(features: Tensor, boxes: Tensor, out_hw: tuple[int, int], scale: int) -> Tensor:
    """Each person's box by itself, as many samples a bin as the box is large."""
    height, width = features.shape[2:]
    crops = []
    for i, (x0, y0, x1, y1) in enumerate((boxes / 16 * scale).tolist()):
        bin_h, bin_w = max(y1 - y0, 1.0) / out_hw[0], max(x1 - x0, 1.0) / out_hw[1]
        count_h, count_w = math.ceil(bin_h), math.ceil(bin_w)
        steps_y = torch.arange(out_hw[0] * count_h, dtype=features.dtype)
        steps_x = torch.arange(out_hw[1] * count_w, dtype=features.dtype)
        y, x = y0 + (steps_y + 0.5) * (bin_h / count_h), x0 + (steps_x + 0.5) * (bin_w / count_w)
        inside = ((y >= -1) & (y <= height))[:, None] & ((x >= -1) & (x <= width))[None]
        grid_y, grid_x = torch.meshgrid(y / (height - 1) * 2 - 1, x / (width - 1) * 2 - 1, indexing="ij")
        grid = torch.stack((grid_x, grid_y), 2)[None]
        sampled = F.grid_sample(features[i : i + 1], grid, padding_mode="border", align_corners=True) * inside
        crops.append(F.avg_pool2d(sampled, (count_h, count_w)))
    return torch.cat(crops)


def _decode(decoder: Any, crops: list[Tensor], reference: Tensor, queries: Tensor) -> Tensor:
    levels, embeddings, masks, sizes = [], [], [], []
    for i, (neck, crop) in enumerate(zip(decoder.neck, crops, strict=True)):
        level = neck(crop)
        mask = torch.zeros(len(crop), *crop.shape[2:], dtype=torch.bool)
        levels.append(level.flatten(2).transpose(1, 2))
        embeddings.append(_sine(mask, level).flatten(2).transpose(1, 2) + decoder.level_embed[i])
        masks.append(mask.flatten(1))
        sizes.append((crop.shape[2], crop.shape[3]))
    memory = (torch.cat(levels, 1).permute(1, 0, 2) + torch.cat(embeddings, 1).permute(1, 0, 2)).permute(1, 0, 2)
    positions = decoder.keypoint_embed.repeat(len(queries), 1, 1)
    for layer in decoder.layers:
        queries = _layer(layer, queries, positions, memory, torch.cat(masks, 1), reference, sizes)
    return queries


def _sine(mask: Tensor, like: Tensor) -> Tensor:
    half = like.shape[1] // 2
    rows, columns = (~mask).to(torch.float32).cumsum(1), (~mask).to(torch.float32).cumsum(2)
    rows = (rows - 0.5) / (rows[:, -1:] + 1e-6) * 2 * math.pi
    columns = (columns - 0.5) / (columns[:, :, -1:] + 1e-6) * 2 * math.pi
    channel = torch.arange(half, dtype=torch.float32)
    frequency = 10000 ** (2 * (channel // 2) / half)
    encoded = []
    for cells in (rows, columns):
        phase = cells[..., None] / frequency
        encoded.append(torch.stack((phase[..., 0::2].sin(), phase[..., 1::2].cos()), 4).flatten(3))
    return torch.cat(encoded, 3).permute(0, 3, 1, 2).to(like.dtype)


def _layer(
    layer: DecoderLayer,
    queries: Tensor,
    positions: Tensor,
    memory: Tensor,
    mask: Tensor,
    reference: Tensor,
    sizes: list[tuple[int, int]],
) -> Tensor:
    attention = layer.self_attention
    query, key = attention.query_key(queries + positions).chunk(2, 2)
    parts = [
        part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in (query, key, attention.value(queries))
    ]
    weights = (parts[0] * parts[0].shape[-1] ** -0.5 @ parts[1].transpose(-2, -1)).softmax(-1)
    queries = layer.norm1(queries + attention.proj((weights @ parts[2]).transpose(1, 2).flatten(2)))
    queries = layer.norm2(queries + _deformable(layer, queries + positions, memory, mask, reference, sizes))
    return layer.norm3(queries + layer.fc2(F.relu(layer.fc1(queries))))


def _deformable(
    layer: DecoderLayer, queries: Tensor, memory: Tensor, mask: Tensor, reference: Tensor, sizes: list[tuple[int, int]]
) -> Tensor:
    attention = layer.cross_attention
    batch, count, width = queries.shape
    heads, points = attention.heads, attention.points
    values = memory.masked_fill(mask[..., None], 0.0)[:, :, None].repeat(1, 1, heads, 1)
    offsets = attention.offsets(queries).view(batch, count, heads, len(sizes), points, 2)
    weights = attention.weights(queries).view(batch, count, heads, -1).softmax(-1)
    normaliser = torch.tensor([(w, h) for h, w in sizes]).to(offsets)
    locations = reference[:, :, None, None, None, :2] + offsets / normaliser[None, None, None, :, None]
    sampled = []
    for i, value in enumerate(values.split([h * w for h, w in sizes], 1)):
        maps = value.flatten(2).transpose(1, 2).reshape(batch * heads, width, *sizes[i])
        grid = (2 * locations[:, :, :, i] - 1).transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(maps, grid, align_corners=False))
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, count, -1)
    read = (torch.stack(sampled, -2).flatten(-2) * weights).sum(-1).view(batch, heads, width, count).permute(0, 3, 1, 2)
    projected = torch.einsum("bqhc,hco->bqho", read, attention.value_weight) + attention.value_bias
    return attention.proj(projected.flatten(2))


def _in_crop(cells: Tensor, box: Tensor) -> Tensor:
    low, high = box[:, None, :2] / 16, box[:, None, 2:] / 16
    return torch.cat((cells[..., :2] * (high - low) / 16 + low, cells[..., 2:]), 2)
