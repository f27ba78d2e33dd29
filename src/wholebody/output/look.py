"""What a body is painted with when it is shown: plain clothing colours, or one colour like a mannequin's.

Only colours: the mesh stays the body's own, so that every vertex is where the parameters put it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wholebody.body.joints import SMPLX_JOINTS
from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput
from wholebody.output.overlay import COLORS

LOOKS = ("clothed", "mannequin")

_PAINTS = {  # sRGB 0..1; the shirt has the person's own colour
    "skin": (0.82, 0.65, 0.54),
    "lips": (0.71, 0.45, 0.41),
    "mouth": (0.42, 0.17, 0.16),
    "hair": (0.24, 0.18, 0.14),
    "eye_white": (0.93, 0.92, 0.90),
    "iris": (0.33, 0.25, 0.18),
    "pupil": (0.05, 0.05, 0.05),
    "trousers": (0.27, 0.31, 0.40),
    "shoes": (0.20, 0.19, 0.19),
}
# The open body's regions, by paint.
_OF_REGION = {
    "shirt": ("torso", "hips", "upper_arm"),
    "trousers": ("thigh", "shin"),
    "shoes": ("foot",),
    "skin": ("forearm", "hand", "nail", "neck", "face", "ear", "eyelid", "eye_socket"),
    "hair": ("scalp", "brow"),
    "lips": ("lips",),
    "mouth": ("mouth_inside", "tongue"),
    "eye_white": ("eye_white",),
    "iris": ("iris",),
    "pupil": ("pupil",),
}
# A body without regions is dressed by the joint that moves a vertex most.
_OF_JOINT = {
    "shirt": ("spine1", "spine2", "spine3", "collar", "shoulder"),
    "trousers": ("pelvis", "hip", "knee"),
    "shoes": ("ankle", "foot"),
    "eye_white": ("eyeball",),
}
_DEEPER = 2.0  # the overlay's pastel colours, to this power, are told apart from skin


@dataclass(frozen=True, eq=False)
class Look:
    """The faces of a body by what they are painted with: `paint_of_face` (F,) indexes `paints`."""

    paints: tuple[str, ...]
    paint_of_face: np.ndarray

    def color(self, paint: str, person: int) -> tuple[float, float, float]:
        """sRGB 0..1 of that paint on the person of that number."""
        own = COLORS[person % len(COLORS)] ** (_DEEPER if paint == "shirt" else 1.0)
        return _PAINTS.get(paint) or (float(own[0]), float(own[1]), float(own[2]))

    def split(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices with a copy for each paint that meets there, so that hems are sharp where colours go by vertex.

        Of each copy its vertex (N,) and its paint (N,), and faces (F, 3) among the copies.
        """
        corners = np.stack([faces.ravel(), np.repeat(self.paint_of_face, 3)], 1)
        pairs, where = np.unique(corners, axis=0, return_inverse=True)
        return pairs[:, 0], pairs[:, 1], where.ravel().reshape(-1, 3)

    def colors(self, person: int) -> np.ndarray:
        """(number of paints, 3) sRGB."""
        return np.array([self.color(paint, person) for paint in self.paints])


def make_look(name: str, body: BodyModel) -> Look:
    """`clothed` or `mannequin` for this body."""
    if name not in LOOKS:
        raise BadInput(f"There is no look {name!r}; known: {', '.join(LOOKS)}.")
    faces = body.faces.numpy()
    if name == "mannequin":
        return Look(("body",), np.zeros(len(faces), np.int64))
    paints = ("skin", "shirt", *(paint for paint in _OF_REGION if paint not in ("skin", "shirt")))
    of_face = _majority(_paint_of_vertex(body, paints)[_quads(faces)])
    of_face = np.repeat(of_face, len(faces) // len(of_face))
    used = np.unique(of_face)
    return Look(tuple(paints[k] for k in used), np.searchsorted(used, of_face))


def _quads(faces: np.ndarray) -> np.ndarray:
    """(F / 2, 6) corners, where each two faces in a row are the halves of a quad, as the open body's are; else `faces`.

    A hem along quads is straight, one along triangles has teeth.
    """
    if len(faces) % 2:
        return faces
    pairs = faces.reshape(-1, 6)
    shared = (pairs[:, :3, None] == pairs[:, None, 3:]).sum((1, 2))
    return pairs if (shared == 2).all() else faces


def _majority(labels: np.ndarray) -> np.ndarray:
    """(N,) the commonest label of each row of (N, K), the smaller one of two that are as common."""
    counts = (labels[:, :, None] == np.arange(labels.max(initial=0) + 1)).sum(1)
    return counts.argmax(1)


def _paint_of_vertex(body: BodyModel, paints: tuple[str, ...]) -> np.ndarray:
    if "region" in body.extras and "region_names" in body.extras:
        of = {region: paints.index(paint) for paint, regions in _OF_REGION.items() for region in regions}
        painted = np.array([of.get(str(name), 0) for name in body.extras["region_names"]])[body.extras["region"]]
        height = body.template[1].numpy()
        _, hip, _, spine, *_ = body.rest_joints[:, 1].numpy()
        shirt, trousers, shoes = (paints.index(paint) for paint in ("shirt", "trousers", "shoes"))
        # A shirt hangs over the belt, straight, where the regions meet in points; nails of toes are in the shoes.
        painted[(painted == shirt) & (height < hip + 0.3 * (spine - hip))] = trousers
        below_knee = height < body.rest_joints[4, 1].item()
        painted[below_knee & (painted != trousers)] = shoes
        return painted
    strongest = body.weights.numpy().argmax(0)
    of_joint = np.zeros(len(SMPLX_JOINTS), np.int64)
    for paint, joints in _OF_JOINT.items():
        for row, name in enumerate(SMPLX_JOINTS):
            if name.removeprefix("left_").removeprefix("right_") in joints:
                of_joint[row] = paints.index(paint)
    return of_joint[strongest]
