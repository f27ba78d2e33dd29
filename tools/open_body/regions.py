"""What each vertex shows, so that a painter knows where lips, hair, eyes and shirts go."""

import numpy as np

from . import rig
from .landmarks import RIGHT_BROW
from .rig import J
from .source import Source

BODY = {
    "hips": ("pelvis", "spine1"),
    "torso": ("spine2", "spine3", "left_collar", "right_collar"),
    "upper_arm": ("left_shoulder", "right_shoulder"),
    "forearm": ("left_elbow", "right_elbow"),
    "thigh": ("left_hip", "right_hip"),
    "shin": ("left_knee", "right_knee"),
    "foot": ("left_ankle", "right_ankle", "left_foot", "right_foot"),
    "neck": ("neck",),
}
NAMES = (
    *("torso", "hips", "upper_arm", "forearm", "hand", "nail", "thigh", "shin", "foot", "neck", "face", "lips", "ear"),
    *("scalp", "brow", "eyelid", "eye_white", "iris", "pupil", "eye_socket", "mouth_inside", "tongue"),
)
IRIS_RADIUS_M, PUPIL_RADIUS_M = 7.5e-3, 4.5e-3  # MakeHuman's eyeballs are 32 mm wide, a third more than real ones
BROW_HALF_WIDTH_M = 5e-3
LID_MOVES_M = 1e-3  # skin that a blink moves further than this is no brow


def label(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray, source: Source
) -> np.ndarray:
    """The region (V,) of each vertex of the mean person, as a row of NAMES."""
    region = np.zeros(len(vertices), np.uint8)

    def paint(name: str, where: np.ndarray) -> None:
        region[where] = NAMES.index(name)

    def weight_of(*names: str) -> np.ndarray:
        return weights[:, [J[name] for name in names]].sum(1)

    segments = source.segment_of_face()
    kinds, codes = np.unique(segments, return_inverse=True)
    votes = np.zeros((len(vertices), len(kinds)))
    np.add.at(votes, (source.faces, codes[:, None]), 1)
    segment = kinds[votes.argmax(1)]

    strongest = np.stack([weight_of(*names) for names in BODY.values()]).argmax(0)
    for k, name in enumerate(BODY):
        paint(name, strongest == k)
    hand = [name for name in J if name.endswith("_wrist") or name[-1] in "123" and "spine" not in name]
    paint("hand", np.isin(segment, ("hand.L", "hand.R")) | (weight_of(*hand) > 0.5))
    paint("foot", np.isin(segment, ("foot.L", "foot.R")))
    paint("nail", (source.painted("fingernails") > 0.5) | (source.painted("toenails") > 0.5))

    skull = weight_of("head", "jaw", "left_eyeball", "right_eyeball")
    head, face, ears = skull > 0.5, source.painted("face") > 0.5, source.painted("ears") > 0.5
    # The hair line runs from the nape up to the ears and along the painted face.
    forward = (vertices[:, 2] - joints[J["head"], 2]).clip(-0.2, 0.06)
    above_nape = vertices[:, 1] > joints[J["left_eyeball"], 1] - 0.075 + 0.55 * forward
    scalp = (segment == "head") & ~face & ~ears & above_nape & (skull + weight_of("neck") > 0.5)
    paint("face", head & ~scalp)
    paint("scalp", scalp)
    paint("ear", ears & head)
    paint("eyelid", (source.painted("eyelids") > 0.5) & head)
    paint("lips", source.painted("lips") > 0.5)
    blink = np.linalg.norm(source.actions["eyeBlinkLeft"] + source.actions["eyeBlinkRight"], axis=1)
    paint("brow", head & (blink < LID_MOVES_M) & (_distance_to_brows(vertices, source) < BROW_HALF_WIDTH_M))
    paint("mouth_inside", (source.painted("inside-mouth") > 0.5) | (segment == "mouth_cavity"))
    paint("tongue", segment == "tongue")
    paint("eye_socket", np.isin(segment, ("eye_cavity.L", "eye_cavity.R")))
    for side, *_ in rig.SIDES:
        eye = weight_of(f"{side}_eyeball") > 0.9
        centre = (vertices[eye].max(0) + vertices[eye].min(0)) / 2
        off_axis = np.linalg.norm((vertices - centre)[:, :2], axis=1)
        front = eye & (vertices[:, 2] > centre[2])
        paint("eye_white", eye)
        paint("iris", front & (off_axis < IRIS_RADIUS_M))
        paint("pupil", front & (off_axis < PUPIL_RADIUS_M))
    return np.where(vertices[:, 0] < 0, region[mirror], region)  # the paintings are not quite alike on both sides


def _distance_to_brows(vertices: np.ndarray, source: Source) -> np.ndarray:
    of_base = {int(b): k for k, b in enumerate(source.base_vertices)}
    knots = np.array([np.array(share) @ vertices[[of_base[b] for b in corners]] for corners, share in RIGHT_BROW])
    t = np.linspace(0, len(knots) - 1, 33)
    right = np.stack([np.interp(t, np.arange(len(knots)), knots[:, axis]) for axis in range(3)], 1)
    curve = np.concatenate([right, right * [-1, 1, 1]])
    return np.linalg.norm(vertices[:, None] - curve, axis=2).min(1)
