"""One person, drawn: from parameters to colour, alpha and exact truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator

from wholebody.body.joints import FROM_144, JOINTS_137, PARTS_137
from wholebody.body.open_body import COMPACT_PATH, expand, read_compact
from wholebody.data.sample import Sample, axis_angle_to_matrix, matrix_to_axis_angle
from wholebody.drawing.raster import srgb_to_linear, vertex_normals, visibility
from wholebody.errors import BadInput
from wholebody.synthesis import camera
from wholebody.synthesis.clothes import paint_kernels as paint
from wholebody.synthesis.clothes.drape import HEAD, Dresser, Poses, loosen, pose_joints, soften_hair
from wholebody.synthesis.clothes.looks import Outfit, sample_outfit
from wholebody.synthesis.clothes.outfit import Wardrobe
from wholebody.synthesis.clothes.stock import LEVELS
from wholebody.synthesis.clothes.worn_kernels import cloth_visibility
from wholebody.synthesis.config import SynthesisConfig
from wholebody.synthesis.light.environment import Environment, Lighting, load_environments, sample_lighting, tone_map
from wholebody.synthesis.light.shade_kernels import bleed, light_vertices, shade_person, visible_points
from wholebody.synthesis.light.shadow import cast_shadow
from wholebody.synthesis.people.draw import HandSpace, Population, PoseLibrary, sample_people

BATCH = 64
"""People posed together: number n belongs to batch n // BATCH, which has its own seed."""


@dataclass(frozen=True)
class Layer:
    """A person with alpha: `color` (H,W,3) uint8 RGB, meaningless but smooth where alpha is 0; `alpha` (H,W) uint8;
    `sample` the truth in the pixels of the layer (its image and mask are None); `shadow` (H/4,W/4) uint8, what light
    the ground lacks (see `shadow`), None if unknown."""

    color: np.ndarray
    alpha: np.ndarray
    sample: Sample
    shadow: np.ndarray | None = None


@dataclass(frozen=True)
class Surroundings:
    """Where a layer's light came from: enough to draw the matching background."""

    environment: Environment
    world_from_cam: np.ndarray
    lighting: Lighting


@dataclass(frozen=True)
class Look:
    """What of a person and their light is the same in every frame of a film."""

    outfit: Outfit
    surroundings: Surroundings
    directions: np.ndarray  # (6, 3) of ambient shadows


class Studio:
    """Everything that is loaded once: the body, its paint masks, motion, environments. Draws people of any seed."""

    def __init__(self, config: SynthesisConfig):
        from wholebody.body.layer import BodyModel

        self.config = config = config.resolved()
        assert config.size_hw and config.margin  # resolved
        self.size_hw, self.margin = config.size_hw, config.margin
        self.body = BodyModel.load(config.body, flat_hand_mean=True)
        if self.body.name != "open":
            raise BadInput(
                f"people are painted on the open body only, and {config.body} is {self.body.name!r}: leave `body` out"
            )
        self.faces = np.ascontiguousarray(self.body.faces.numpy(), np.int32)
        compact = read_compact(config.body or COMPACT_PATH)
        self.rest, self.masks, self.eye_centre = _painted_regions(compact)
        self.population = Population.of(compact)
        self.hands = HandSpace.of(self.body.rest_joints.numpy().astype(np.float64))
        self.poses = PoseLibrary.load(config.clips, config.split) if config.clips else None
        self.environments = load_environments(config.maps, split=config.split)
        self.dresser = Dresser(compact, expand(compact, correctives=False), self.faces)
        self.wardrobe = Wardrobe.load(config.wardrobe, config.split) if config.wardrobe else None
        self.texels = self.wardrobe.texels if self.wardrobe else np.zeros((1, 4), np.uint8)

    @cached_property
    def _lattice(self) -> np.ndarray:
        return paint.noise_lattice()

    @cached_property
    def _linear(self) -> np.ndarray:
        return srgb_to_linear(np.arange(256) / 255)

    @cached_property
    def _head_rest(self) -> np.ndarray:
        """The middle of the head at rest, as a point to be transformed: (4,)."""
        return np.append(self.body.rest_joints[HEAD].numpy() + [0, 0.08, 0.0], 1).astype(np.float32)

    @cached_property
    def _tone(self) -> np.ndarray:
        return tone_map(np.linspace(0, 4, 8193))

    def people(self, seed: int, first: int, count: int) -> Iterator[tuple[Layer, Surroundings, Generator]]:
        """Layers of people `first` .. `first + count - 1` of a seed, each with its surroundings and a generator for
        more."""
        for batch in range(first // BATCH, -(-(first + count) // BATCH)):
            wanted = range(max(first - batch * BATCH, 0), min(first + count - batch * BATCH, BATCH))
            yield from self._batch(seed, batch, wanted)

    def _batch(self, seed: int, batch: int, wanted: range) -> Iterator[tuple[Layer, Surroundings, Generator]]:
        import torch

        rng = np.random.default_rng((seed, batch, 0))
        people = sample_people(
            rng, BATCH, self.poses, self.hands, self.population, self.config.child_fraction,
            self.config.recombined_fraction, self.config.exercise_fraction,
        )  # fmt: skip
        cam_from_world = camera.sample_orientations(rng, BATCH)
        rotations = axis_angle_to_matrix(people.full_pose)
        rotations[:, 0] = cam_from_world @ rotations[:, 0]
        with torch.inference_mode():
            out = self.body.from_matrices(
                torch.from_numpy(rotations).float(), torch.from_numpy(people.betas), torch.from_numpy(people.expression)
            )
        vertices, joints = out.vertices.numpy(), out.joints.numpy()[:, FROM_144]
        poses = pose_joints(self.body, rotations, people.betas, people.expression)
        full_pose = people.full_pose.copy()
        full_pose[:, 0] = matrix_to_axis_angle(rotations[:, 0])
        for k in wanted:
            own = np.random.default_rng((seed, batch, 1 + k))
            yield (
                *self._draw(
                    own, vertices[k], joints[k], cam_from_world[k], full_pose[k], people.betas[k], people.expression[k],
                    f"{self.config.split}-{seed}-{batch * BATCH + k:06d}", poses, k,
                ),
                own,
            )  # fmt: skip

    def _draw(
        self, rng: Generator, vertices: np.ndarray, joints: np.ndarray, cam_from_world: np.ndarray, full_pose:
        np.ndarray, betas: np.ndarray, expression: np.ndarray, name: str, poses: Poses, person: int,
    ) -> tuple[Layer, Surroundings]:  # fmt: skip
        config = self.config
        framing = camera.sample_framing(rng, vertices, self.rest, self.size_hw, self.margin, config.closeup_fraction)
        look = self.look(rng, cam_from_world)
        layer = self.paint(
            look, framing, vertices, joints, cam_from_world, full_pose, betas, expression, name, poses, person
        )
        return layer, look.surroundings

    def look(self, rng: Generator, cam_from_world: np.ndarray, surroundings: Surroundings | None = None) -> Look:
        """Clothes, and light unless `surroundings` bring theirs, before a camera that stands like this."""
        outfit = sample_outfit(rng, self.wardrobe)
        if surroundings is None:
            yaw = rng.uniform(-np.pi, np.pi)
            turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
            world_from_cam = turn @ cam_from_world.T
            environment = self.environments[rng.integers(len(self.environments))]
            lighting = sample_lighting(rng, environment, world_from_cam)
            surroundings = Surroundings(environment, world_from_cam, lighting)
        return Look(outfit, surroundings, _directions(rng))

    def paint(
        self, look: Look, framing: camera.Framing, vertices: np.ndarray, joints: np.ndarray,
        cam_from_world: np.ndarray, full_pose: np.ndarray, betas: np.ndarray, expression: np.ndarray, name: str,
        poses: Poses, person: int,
    ) -> Layer:  # fmt: skip
        """A person of that look, posed as `vertices` (V, 3) in the camera's axes about the origin, framed like this.

        joints: (137, 3) likewise. poses: the joints' transforms of a batch, of which this is number `person`.
        """
        config, outfit, lighting = self.config, look.outfit, look.surroundings.lighting
        dressed = self.dresser.dress(vertices, framing.offset, poses, person, outfit.worn)
        points, faces = dressed.points, dressed.faces
        down = -cam_from_world[:, 1].astype(np.float32)
        scale = np.float32(_size(joints))
        count = len(vertices)
        normals = vertex_normals(points, faces)
        skin_depth = self._skin_depth(points[:count], framing)
        paint.dress(points[:count], normals, self.rest, self.masks, outfit.garments, self._lattice, down, scale)
        loosen(dressed, normals, self._lattice, scale)
        normals = vertex_normals(points, faces)
        soften_hair(dressed, normals, poses.transforms[person, HEAD] @ self._head_rest + framing.offset)
        lit = np.empty((len(points), 4), np.float32)
        light_vertices(
            points, normals, lighting.sh, lighting.normal_to_world, lighting.sun_direction, look.directions, lit
        )

        height, width = self.size_hw
        n, (cx, cy) = config.samples, framing.principal_px
        inv_depth, face_id = (
            np.zeros((height * n, width * n), np.float32),
            np.full((height * n, width * n), -1, np.int32),
        )
        first = dressed.first
        visibility(
            points, faces[: first[0]], framing.focal_px, framing.focal_px, cx, cy, n, True, 0, inv_depth, face_id
        )
        for k, one in enumerate(outfit.worn):
            keep = np.full(len(points), np.float32(1))
            part = slice(dressed.starts[k], dressed.starts[k + 1])
            keep[part] = one.keep(dressed.rest[part])
            at, item = first[k] - first[0], one.item
            cloth_visibility(
                points, faces[first[k] : first[k + 1]], dressed.uv, dressed.uv_faces[at : at + len(item.faces)],
                self.texels, int(one.look[0]), item.size, LEVELS, item.opaque, keep, np.float32(one.bias * scale),
                framing.focal_px, cx, cy, n, first[k], inv_depth, face_id,
            )  # fmt: skip
        color, alpha = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        shade_person(
            points, faces, normals, dressed.rest, self.masks, lit, outfit.garments, outfit.skin, self.eye_centre,
            self._lattice, lighting.sun_direction, lighting.sun, framing.focal_px, cx, cy, n, inv_depth, face_id,
            self._tone, first, dressed.rows, dressed.looks, dressed.uv, dressed.uv_faces, self.texels, LEVELS,
            self._linear, color, alpha,
        )  # fmt: skip
        bleed(color, alpha)
        sample = self._truth(framing, joints, skin_depth, full_pose, betas, expression, name)
        share = float(lighting.sun.mean() / (lighting.sun.mean() + lighting.sh[0].mean() + 1e-6))
        shadow = cast_shadow(
            points, cam_from_world[:, 1], lighting.sun_direction, share, framing.focal_px, framing.principal_px,
            self.size_hw,
        )  # fmt: skip
        return Layer(color, alpha, sample, shadow)

    def _skin_depth(self, points: np.ndarray, framing: camera.Framing) -> np.ndarray:
        """Inverse depth of the skin alone, per sample: what clothes and hair cover still counts as seen."""
        n = self.config.samples
        fine = (self.size_hw[0] * n, self.size_hw[1] * n)
        inv_depth, face_id = np.zeros(fine, np.float32), np.full(fine, -1, np.int32)
        f, (cx, cy) = framing.focal_px, framing.principal_px
        visibility(np.ascontiguousarray(points), self.faces, f, f, cx, cy, n, True, 0, inv_depth, face_id)
        return inv_depth

    def _truth(self, framing, joints, inv_depth, full_pose, betas, expression, name: str) -> Sample:
        joints_cam = joints + framing.offset.astype(np.float32)
        joints_px = joints_cam[:, :2] / np.maximum(joints_cam[:, 2:], 1e-3) * framing.focal_px + framing.principal_px
        visible = np.empty(len(joints_px), np.bool_)
        visible_points(joints_px, joints_cam[:, 2], _TOLERANCE * _size(joints), inv_depth, self.config.samples, visible)
        low, high = framing.frame_xyxy[:2], framing.frame_xyxy[2:]
        visible &= ((joints_px >= low) & (joints_px <= high)).all(1)
        f32 = np.float32
        return Sample(
            id=name,
            body="open",
            box_xyxy=framing.box_xyxy.astype(f32),
            focal_px=np.full(2, framing.focal_px, f32),
            principal_px=framing.principal_px.astype(f32),
            full_pose=full_pose.astype(f32),
            betas=betas,
            expression=expression,
            transl=framing.offset.astype(f32),
            joints_px=joints_px.astype(f32),
            joints_cam=joints_cam.astype(f32),
            joint_valid=joints_cam[:, 2] > 0.05,
            joint_visible=visible,
            left_hand_box=_around(joints_px, "left_hand", "L_Wrist"),
            right_hand_box=_around(joints_px, "right_hand", "R_Wrist"),
            face_box=_around(joints_px, "face"),
            part_valid=np.ones(3, bool),
            frame_xyxy=framing.frame_xyxy.astype(f32),
        )


def _size(joints_137: np.ndarray) -> float:
    """A person's size over the mean body's, by its spine: 1 for an adult of 1.66 m."""
    pelvis, neck = joints_137[JOINTS_137.index("Pelvis")], joints_137[JOINTS_137.index("Neck")]
    return float(np.linalg.norm(neck - pelvis) / 0.452)


def _tolerances() -> np.ndarray:
    """How far behind the skin each joint may lie and still count as seen, metres at adult size."""
    out = np.full(len(JOINTS_137), 0.018, np.float32)
    out[PARTS_137["left_hand"]] = out[PARTS_137["right_hand"]] = 0.024
    inside = {"Pelvis": 0.2, "Hip": 0.2, "Knee": 0.13, "Ankle": 0.1, "Neck": 0.13, "Shoulder": 0.15, "Elbow": 0.1,
    "Wrist": 0.07,
              "toe": 0.04, "Heel": 0.045, "Ear": 0.05, "Eye": 0.025, "Nose": 0.02}  # fmt: skip
    for k, name in enumerate(JOINTS_137[:25]):
        out[k] = next(v for part, v in inside.items() if part in name)
    out[JOINTS_137.index("Face_1")] = out[JOINTS_137.index("Face_2")] = 0.12  # the joints of jaw and head
    return out


_TOLERANCE = _tolerances()


def _around(joints_px: np.ndarray, part: str, *more: str) -> np.ndarray:
    points = np.concatenate([joints_px[PARTS_137[part]], joints_px[[JOINTS_137.index(m) for m in more]]])
    low, high = points.min(0), points.max(0)
    margin = 0.1 * (high - low)
    return np.concatenate([low - margin, high + margin]).astype(np.float32)


_SIX = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])


def _directions(rng: Generator) -> np.ndarray:
    """Six directions for ambient shadows, turned at random so that their traces do not repeat."""
    return (_SIX @ axis_angle_to_matrix(rng.normal(0, 1, 3)).T).astype(np.float32)


def _painted_regions(compact: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`rest` (V,3), `masks` (V, len(paint.MASKS)) and the left eye's centre (3,), from the open body's regions."""
    body = expand(compact, correctives=False)
    names = [str(n) for n in compact["region_names"]]
    region = np.array(names)[compact["region"]]
    groups = {
        "scalp": ("scalp",), "brow": ("brow",), "lips": ("lips",), "mouth_inside": ("mouth_inside", "tongue"),
        "eye": ("eye_white", "iris", "pupil"), "face": ("face", "lips", "brow", "eyelid", "eye_socket", "ear"),
    }  # fmt: skip
    masks = np.stack([np.isin(region, groups[m]) for m in paint.MASKS], 1).astype(np.float32)
    rest = np.ascontiguousarray(body["v_template"], np.float32)
    eye = rest[(masks[:, paint.EYE] > 0) & (rest[:, 0] > 0)]
    return rest, np.ascontiguousarray(masks), (0.5 * (eye.min(0) + eye.max(0))).astype(np.float32)
