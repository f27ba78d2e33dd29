"""Do people pass through themselves? Their limbs as capsules around the mean skeleton: cheap and a little lenient."""

from __future__ import annotations

import numpy as np

from wholebody.synthesis.people.skeleton import J, forward_kinematics, to_segment, unit

_LENIENT = 0.82  # flesh gives way
# Capsules: where they begin and end, and their radius in metres. A hand goes on as its forearm does.
_LIMBS = {
    "belly": ("pelvis", "spine2", 0.125), "chest": ("spine2", "neck", 0.12), "head": ("head", "crown", 0.095),
    "left_upper": ("left_shoulder", "left_elbow", 0.045), "right_upper": ("right_shoulder", "right_elbow", 0.045),
    "left_fore": ("left_elbow", "left_wrist", 0.036), "right_fore": ("right_elbow", "right_wrist", 0.036),
    "left_hand": ("left_wrist", "left_tip", 0.03), "right_hand": ("right_wrist", "right_tip", 0.03),
    "left_thigh": ("left_hip", "left_knee", 0.075), "right_thigh": ("right_hip", "right_knee", 0.075),
    "left_shin": ("left_knee", "left_ankle", 0.05), "right_shin": ("right_knee", "right_ankle", 0.05),
    "left_foot": ("left_ankle", "left_foot", 0.04), "right_foot": ("right_ankle", "right_foot", 0.04),
}  # fmt: skip

_GIRTHS = ("belly", "chest", "thigh")


def _pairs() -> list[tuple[str, str]]:
    out = []
    for side, other in (("left", "right"), ("right", "left")):
        for part in ("fore", "hand"):
            out += [(f"{side}_{part}", body) for body in ("belly", "chest", "head", "left_thigh", "right_thigh")]
            out += [(f"{side}_{part}", f"{leg}_shin") for leg in ("left", "right")]
            out.append((f"{side}_{part}", f"{other}_upper"))
        out.append((f"{side}_hand", f"{other}_fore"))
        out += [(f"{side}_shin", f"{other}_thigh"), (f"{side}_foot", f"{other}_shin")]
        out += [(f"{side}_shin", body) for body in ("belly", "chest", "head")]
        out += [(f"{side}_upper", "head"), (f"{side}_thigh", "head")]
    out += [("left_fore", "right_fore"), ("left_hand", "right_hand"), ("left_shin", "right_shin")]
    return out


_PAIRS = _pairs()


def penetrates(pose: np.ndarray, girth: np.ndarray | None = None) -> np.ndarray:
    """(B,) bool for poses (B,22,3): some limb lies in another, in the trunk or in the head. `girth` (B,3): how much
    thicker than the mean person's belly, chest and thighs are, for the size of the body."""
    joints = forward_kinematics(pose)
    at = {name: joints[:, k] for name, k in J.items() if k < 22}
    at["crown"] = at["head"] + 0.12 * unit(at["head"] - at["neck"])
    for side in ("left", "right"):
        at[f"{side}_tip"] = at[f"{side}_wrist"] + 0.14 * unit(at[f"{side}_wrist"] - at[f"{side}_elbow"])
    steps = np.linspace(0.1, 1, 5)[:, None, None]
    bad = np.zeros(len(pose), bool)
    for one, other in _PAIRS:
        (a, b, radius), (c, d, more) = _LIMBS[one], _LIMBS[other]
        wide: np.ndarray | float = 1.0
        if girth is not None and other.split("_")[-1] in _GIRTHS:
            wide = girth[:, _GIRTHS.index(other.split("_")[-1])]
        along = (at[a] + steps * (at[b] - at[a])).reshape(-1, 3)  # (5 B, 3)
        start, end = np.tile(at[c], (5, 1)), np.tile(at[d], (5, 1))
        near = to_segment(along, start, end).reshape(5, -1).min(0)
        bad |= near < _LENIENT * (radius + more * wide)
    # Knees are not thighs' whole length: only their ends must keep apart.
    bad |= np.linalg.norm(at["left_knee"] - at["right_knee"], axis=1) < 0.085
    return bad
