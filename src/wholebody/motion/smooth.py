"""Fits over time: rotations and numbers that stay near what sure frames say and bend no more than they must.

All of a person's T frames are fitted at once, so nothing lags. A fit x(t) minimises

    sum_i w_i dt |x(t_i) - y_i|^2  +  kappa * integral |x''|^2 dt,    kappa = 1 / (2 pi f)^4,

(Whittaker's smoother on uneven times), which halves a swing of f hertz at w = 1: surer frames are followed more
closely, frames of weight 0 lie on the curve between their neighbours. Weights are lowered where a frame contradicts the
fit (Geman and McClure's), so that a single wild frame leaves no trace.

Fast motion is no noise: where successive frames deviate from the curve to the same side, f rises, for as long as they
do (`quicker`).
"""

from __future__ import annotations

import numpy as np

from wholebody.errors import BadInput

STRENGTHS: dict[str, float] = {"none": 0.0, "light": 4.0, "strong": 2.0}
"""Swings of so many hertz are halved; 0: no smoothing."""


def cutoff(strength: str) -> float:
    if strength not in STRENGTHS:
        raise BadInput(f"--smooth is {strength!r}; known: {', '.join(STRENGTHS)}.")
    return STRENGTHS[strength]


TELLING, TELLING_OF_LEGS = 2.0, 3.0
"""Times the usual deviation, from which on it means quick motion. A leg that follows errors lets its foot slide: with 2
for legs too, feet that stand slid by 65 instead of 56 cm/s on 14 drawn films."""
_IN_GAPS, _BEYOND = 0.001, 0.02  # of the weight of a frame that is seen


def bending(times: np.ndarray, hertz: float | np.ndarray) -> np.ndarray:
    """The upper bands (3, T) of kappa times the matrix of the integral of |x''|^2, divided by the mean time step.

    hertz: one for all, or (T,) one for each moment.
    """
    count = len(times)
    bands = np.zeros((3, count))
    if count < 3:
        return bands
    step = np.diff(times)
    h1, h2 = step[:-1], step[1:]
    # x'' at the middle one of three, and the time that it stands for.
    row = np.stack([2 / (h1 * (h1 + h2)), -2 / (h1 * h2), 2 / (h2 * (h1 + h2))])
    middle = np.broadcast_to(hertz, count)[1:-1]
    weight = (h1 + h2) / 2 / (2 * np.pi * middle) ** 4 / np.median(step)
    for a in range(3):
        for b in range(a, 3):
            gap = b - a
            bands[2 - gap, b : b + count - 2] += weight * row[a] * row[b]
    return bands


def fit(times: np.ndarray, values: np.ndarray, weights: np.ndarray, hertz: float | np.ndarray) -> np.ndarray:
    """The smooth curve (T, D) through values (T, D) with weights (T,), some of which are above 0.

    hertz: as of `bending`.
    """
    from scipy.linalg import solveh_banded

    if np.max(hertz) <= 0 or len(times) < 3:
        return _between(times, values, weights)
    bands = bending(times, hertz)
    filled = _between(times, values, weights)
    # In a long gap a curve must not swing out, and beyond the first and the last seen frame not shoot on for ever: what
    # lies straight between the neighbours, or the last one, holds it a little.
    seen = np.flatnonzero(weights > 0)
    weights = np.maximum(weights, _IN_GAPS)
    if len(seen):
        weights[: seen[0]] = np.maximum(weights[: seen[0]], _BEYOND)
        weights[seen[-1] + 1 :] = np.maximum(weights[seen[-1] + 1 :], _BEYOND)
    bands[2] += weights
    return solveh_banded(bands, weights[:, None] * filled, lower=False, check_finite=False)


def _between(times: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values (T, D), those without weight replaced by what lies between their neighbours."""
    seen = weights > 0
    if seen.all() or not seen.any():
        return np.array(values, np.float64)
    return np.stack([np.interp(times, times[seen], column[seen]) for column in values.T], 1)


def fit_numbers(
    times: np.ndarray, values: np.ndarray, weights: np.ndarray, hertz: float, floor: float, rounds: int = 3
) -> np.ndarray:  # fmt: skip
    """A robust fit (T, D); `floor`: deviations below so much are never held against a frame."""
    values = np.asarray(values, np.float64)
    if hertz <= 0:
        return _between(times, values, weights)
    trust = weights
    for _ in range(rounds):
        curve = fit(times, values, trust, hertz)
        trust = weights * _trust(np.linalg.norm(curve - values, axis=1), weights, floor)
    return fit(times, values, trust, hertz)


def fit_rotations(
    times: np.ndarray, rotvecs: np.ndarray, weights: np.ndarray, hertz: float, floor: float = 0.06, rounds: int = 4,
    telling: float = TELLING,
) -> np.ndarray:  # fmt: skip
    """Rotations (T, 3) axis-angle, fitted as quaternions of one sign; `telling` as that of `quicker`.

    For swings between frames of less than half a turn the chord of the quaternions stands for the angle.
    """
    from scipy.spatial.transform import Rotation

    quaternions = Rotation.from_rotvec(rotvecs).as_quat()
    seen = weights > 0
    if not seen.any():
        return np.array(rotvecs, np.float64)
    if len(times) < 3 or hertz <= 0:
        return _slerp(times, rotvecs, seen)
    curve = _one_sign(quaternions, seen)
    trust, aligned = weights, curve
    local = np.full(len(times), hertz)
    for _ in range(rounds):
        curve = fit(times, aligned, trust, local)
        curve /= np.maximum(np.linalg.norm(curve, axis=1, keepdims=True), 1e-9)
        # A wild frame must not choose the sign of those after it.
        aligned = quaternions * np.where((quaternions * curve).sum(1, keepdims=True) < 0, -1, 1)
        angle = 2 * np.arccos(np.clip((aligned * curve).sum(1), -1, 1))
        local = local * quicker(times, 2 * (aligned - curve), weights, floor, telling)
        local = np.minimum(local, _QUICKEST * hertz)
        trust = weights * _trust(angle, weights, np.maximum(floor, _LEEWAY * (local / hertz - 1)))
    curve = fit(times, aligned, trust, local)
    return Rotation.from_quat(curve).as_rotvec()


# More of either follows swings closer still, but the errors of a network that last several frames too: feet slide then.
_QUICKEST = 2.0  # times the cutoff that is asked for
_LEEWAY = 0.1  # radians by which frames of motion that is so quick may be off the curve before they are doubted
_CONSISTENT = 0.1  # seconds over which deviations are compared


def quicker(
    times: np.ndarray, off: np.ndarray, weights: np.ndarray, usual: float, telling: float = TELLING
) -> np.ndarray:
    """(T,) factors, 1 or more, by which the cutoff should rise for the curve to follow.

    Noise leaves deviations `off` (T, D) of successive frames that do not point the same way, and so does a single wild
    frame; of motion that the curve cuts short they do. What tells is therefore the product of each deviation with the
    next, on average over `_CONSISTENT`, as a share of their squares.
    """
    if len(times) < 4:
        return np.ones(len(times))
    both = np.sqrt(weights[1:] * weights[:-1])
    alike = (off[1:] * off[:-1]).sum(1) * both
    step = float(np.median(np.diff(times)))
    reach = max(1, round(_CONSISTENT / max(step, 1e-6) / 2))
    window = np.bartlett(2 * reach + 3)[1:-1]

    def local(of_pairs: np.ndarray) -> np.ndarray:
        return np.convolve(np.pad(of_pairs, (1, 0)) + np.pad(of_pairs, (0, 1)), window, "same") / 2

    covariance = local(alike) / np.maximum(local(both), 1e-9)
    power = np.convolve((off**2).sum(1) * weights, window, "same")
    power = power / np.maximum(np.convolve(weights, window, "same"), 1e-9)
    share = covariance / np.maximum(power, 1e-12)  # of motion that the curve cuts short near 1, of noise 0 or less
    together = np.sqrt(np.clip(covariance, 0, None) * np.clip((share - 0.4) / 0.2, 0, 1))
    # What deviates by more than is usual for this network in this film, and by more than would be seen.
    seen = weights > 0
    common = max(usual, min(1.4826 * float(np.median(together[seen])), 6 * usual)) if seen.any() else usual
    # The deviation falls with the fourth power of the cutoff.
    return np.clip(together / (telling * common), 1, 4) ** 0.5


def _one_sign(quaternions: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Signs (T, 4) such that each seen one is on the side of the one seen before."""
    chosen = quaternions.copy()
    rows = np.flatnonzero(seen)
    signs = np.where((quaternions[rows][1:] * quaternions[rows][:-1]).sum(1) < 0, -1.0, 1.0)
    chosen[rows[1:]] *= np.cumprod(signs)[:, None]
    return chosen


def _slerp(times: np.ndarray, rotvecs: np.ndarray, seen: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation, Slerp

    rows = np.flatnonzero(seen)
    if seen.all() or len(rows) == 1:
        return np.array(rotvecs if seen.all() else np.repeat(rotvecs[rows], len(times), 0), np.float64)
    path = Slerp(times[rows], Rotation.from_rotvec(rotvecs[rows]))
    filled = path(np.clip(times, times[rows[0]], times[rows[-1]])).as_rotvec()
    filled[rows] = rotvecs[rows]
    return filled


def _trust(off: np.ndarray, weights: np.ndarray, floor: float | np.ndarray) -> np.ndarray:
    """(T,) factors: 1 where a frame agrees, towards 0 where it is off by many times what is usual, `floor` at least."""
    seen = weights > 0
    usual = np.maximum(floor, 1.4826 * float(np.median(off[seen]))) if seen.any() else floor
    return 1 / (1 + (off / (3 * usual)) ** 2) ** 2


_LIMIT = np.radians(30.0)  # how far a joint may jump between frames by the network's noise alone
_FASTEST = {"root": np.radians(500.0), "limb": np.radians(1000.0)}  # a second
_FURTHEST = {"root": np.radians(100.0), "limb": np.radians(120.0)}  # beyond an excursion; half a turn is none
_LONGEST = 1.0  # seconds that a wrong run may last; a longer one is believed


def steady(
    times: np.ndarray, rotvecs: np.ndarray, weights: np.ndarray, kind: str = "limb", longest: float = _LONGEST
) -> np.ndarray:  # fmt: skip
    """(T,) whether each frame belongs to the surest run through the film in which this joint never jumps.

    Joints do turn fast, but not by a hundred degrees from one frame to the next and back: that is a network that took
    left for right, or another person for this one. The frames of such excursions of up to `longest` seconds are False;
    so are those of weight 0. A jump that is not taken back is believed.
    """
    from scipy.spatial.transform import Rotation

    count = len(times)
    quaternions = Rotation.from_rotvec(rotvecs).as_quat()
    rows = np.flatnonzero(weights > 0)
    if len(rows) < 3:
        return weights > 0
    q, t, w = quaternions[rows], times[rows], weights[rows]
    near = np.abs((q[1:] * q[:-1]).sum(1))
    if (2 * np.arccos(np.clip(near, -1, 1)) <= _LIMIT + _FASTEST[kind] * np.diff(t)).all():
        return weights > 0
    typical = float(np.median(np.diff(t)))
    back = int(np.clip(np.ceil(longest / typical), 1, 90)) + 1
    price = float(np.median(w)) * back  # of believing a jump: as much as an excursion of the longest kind gains
    best, before = w.copy(), np.full(len(rows), -1)
    for j in range(1, len(rows)):
        i = np.arange(max(0, j - back), j)
        angle = 2 * np.arccos(np.clip(np.abs(q[i] @ q[j]), 0, 1))
        allowed = angle <= _LIMIT + np.minimum(_FASTEST[kind] * (t[j] - t[i]), _FURTHEST[kind])
        allowed[-1] |= t[j] - t[j - 1] > 0.3  # nobody knows what happened meanwhile
        gain = best[i] - np.where(allowed, 0.0, price)
        k = int(np.argmax(gain))
        if gain[k] > 0:
            best[j] += gain[k]
            before[j] = i[k]
    kept = np.zeros(count, bool)
    j = int(np.argmax(best))
    while j >= 0:
        kept[rows[j]] = True
        j = int(before[j])
    return kept


def robust_mean(values: np.ndarray, weights: np.ndarray, rounds: int = 10) -> np.ndarray:
    """(D,) of values (T, D): the weighted geometric median, which a third of wild frames does not move far."""
    values, weights = np.asarray(values, np.float64), np.asarray(weights, np.float64)
    if not (weights > 0).any():
        weights = np.ones(len(values))
    centre = (values * weights[:, None]).sum(0) / weights.sum()
    for _ in range(rounds):
        share = weights / np.maximum(np.linalg.norm(values - centre, axis=1), 1e-3)
        centre = (values * share[:, None]).sum(0) / share.sum()
    return centre
