"""From a face's 478 points and 52 blendshapes to the open body's head rotation, expression and jaw.

The body's expression was made of facial actions that carry the blendshapes' names, and the body file says what each of
them is in its ten coefficients (`action_expression`); the map from blendshapes is that table, with what the landmarker
gives for a calm face taken off first. The jaw is a joint. Where the eyes look is left out: on synthetic people the
landmarker's gaze was no better than eyes at rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from wholebody.body.assets import read_body_file
from wholebody.body.joints import FACE_LANDMARKS
from wholebody.body.open_body import read_compact
from wholebody.model.embedded.face_landmarks import BLENDSHAPES, FaceLook

JAW_OPEN_RAD = np.radians(24.0)
"""How far MakeHuman's jawOpen turns the jaw: see OPEN_BODY.md."""
_PITCH_RAD = np.radians(8.2)
"""By how much the landmarker's faces look up when the body's do not: measured on frontal synthetic faces
(`tools/measure_faces.py`)."""

# The points of the face that hardly move when it does: bridge and base of the nose, corners of the eyes.
_STEADY = tuple(
    FACE_LANDMARKS.index(name)
    for name in (
        *(f"nose_bridge_{k}" for k in (1, 2, 3, 4)), "right_nostril_1", "right_nostril_2", "nose_base",
        "left_nostril_2", "left_nostril_1", "right_lid_outer", "right_lid_inner", "left_lid_inner", "left_lid_outer",
    )
)  # fmt: skip


@dataclass(frozen=True)
class FacePose:
    """Of one face, in the open body's terms."""

    head_rotation: np.ndarray  # (3, 3) from the T-pose into the camera's axes
    expression: np.ndarray  # (10,)
    jaw: np.ndarray  # (3,) axis-angle


def face_pose(look: FaceLook, blendshapes: np.ndarray) -> FacePose:
    """What a look and its blendshapes (52,) say."""
    expression, jaw = expression_of(blendshapes)
    return FacePose(head_rotation(look), expression, jaw)


def head_rotation(look: FaceLook) -> np.ndarray:
    """(3, 3): how the head is turned, from the points that hardly move with the face (Kabsch, weak perspective)."""
    points = np.concatenate([look.points_px, look.depth_px[:, None]], 1)[list(_inner_rows())]
    seen, rest = points[list(_STEADY)], _rest_points()[list(_STEADY)]
    seen, rest = seen - seen.mean(0), rest - rest.mean(0)
    u, _, vt = np.linalg.svd(seen.T @ rest)
    u[:, 2] *= np.sign(np.linalg.det(u @ vt))
    cos, sin = np.cos(_PITCH_RAD), np.sin(_PITCH_RAD)
    return u @ vt @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def expression_of(blendshapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blendshapes (..., 52) to expression coefficients (..., 10) and the jaw's axis-angle (..., 3)."""
    values = np.clip((np.asarray(blendshapes, np.float64) - _CALM) / (1 - _CALM), 0, 1)
    table, jaw_row = _table()
    jaw = np.zeros((*values.shape[:-1], 3))
    jaw[..., 0] = values[..., jaw_row] * JAW_OPEN_RAD
    return values @ table, jaw


_CALM = np.zeros(len(BLENDSHAPES))
for _name, _value in {"eyeBlinkLeft": 0.12, "eyeBlinkRight": 0.12, "eyeSquintLeft": 0.3, "eyeSquintRight": 0.3}.items():
    _CALM[BLENDSHAPES.index(_name)] = _value
# A blink of the body is closed at 0.55 (OPEN_BODY.md); the landmarker says about 0.6 of shut eyes.
_STRENGTH = {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}


@lru_cache(maxsize=1)
def _table() -> tuple[np.ndarray, int]:
    """(52, 10) blendshapes in expression coefficients, zero where one is no action of the body; and jawOpen's row."""
    compact = read_compact()
    table = np.zeros((len(BLENDSHAPES), 10))
    for name, row in zip(compact["action_names"].tolist(), compact["action_expression"], strict=True):
        if name in BLENDSHAPES:
            table[BLENDSHAPES.index(name)] = row * _STRENGTH.get(name, 1.0)
    return table, BLENDSHAPES.index("jawOpen")


@lru_cache(maxsize=1)
def _rest_points() -> np.ndarray:
    """(51, 3) inner face landmarks of the mean open body at rest, body axes, metres."""
    body = read_body_file("open")
    corners = body.v_template[body.faces[body.landmark_faces]].astype(np.float64)  # (51, 3, 3)
    return np.einsum("nkx,nk->nx", corners, body.landmark_barycentric)


@lru_cache(maxsize=1)
def _inner_rows() -> tuple[int, ...]:
    from wholebody.model.embedded.face_landmarks import FACE_68

    return FACE_68[17:]
