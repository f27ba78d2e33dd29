"""Points on the skin: 21 single vertices, the 51 + 17 landmarks of the face, and the contour for each yaw of the head.

Landmarks are found as a viewer would mark them: on a front view of the face, at the edges of eyes, lips and nose.
They are kept as (face of the mesh, three weights), so that they stay on the surface whatever it does. The subject's
right side (iBUG 0-7, 17-21, 36-41, ...) is marked, the left side mirrored.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import rig
from .face import Jaw
from .rest_pose import rotation_about
from .rig import J
from .source import Source

# The centre line of MakeHuman's eyebrow001 (CC0), from the temple to the nose: base-mesh vertices and their weights.
RIGHT_BROW = (
    ((253, 210, 254), (0.663, 0.069, 0.268)),
    ((207, 179, 178), (0.247, 0.584, 0.17)),
    ((176, 170, 171), (0.487, 0.442, 0.071)),
    ((174, 180, 177), (0.465, 0.507, 0.028)),
    ((209, 181, 166), (0.268, 0.069, 0.663)),
)
MIRROR_PAIRS = {k: 16 - k for k in range(8)} | {
    **{17: 26, 18: 25, 19: 24, 20: 23, 21: 22, 31: 35, 32: 34},
    **{36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46},
    **{48: 54, 49: 53, 50: 52, 58: 56, 59: 55, 60: 64, 61: 63, 67: 65},
}
CONTOUR_FROM_M, CONTOUR_TO_M = 0.05, 0.12  # from the middle of the face, outwards
CONTOUR_SLOPE = 1.5  # backwards, per way outwards: below the chin; the cheeks may slope more
YAWS = 79  # rows of the contour table: 0..39 degrees to one side, then to the other
Pick = tuple[int, np.ndarray]  # face, weights (3,)


@dataclass(frozen=True)
class Landmarks:
    skin_points: dict[str, int]  # the 21 vertices, under the names of the smplx package
    faces: np.ndarray  # 68
    weights: np.ndarray  # 68,3
    contour_faces: np.ndarray  # 79,17
    contour_weights: np.ndarray  # 79,17,3


@dataclass(frozen=True)
class FrontView:
    """An orthographic picture of the head seen from the front: the nearest face and its weights at each pixel."""

    face: np.ndarray  # S,S; -1 where empty
    weights: np.ndarray  # S,S,3
    depth: np.ndarray  # S,S: z of the surface, far away where empty
    centre: np.ndarray  # 2: x, y of the middle of the picture
    per_metre: float

    @classmethod
    def take(cls, vertices: np.ndarray, faces: np.ndarray, centre: np.ndarray, size_m: float, pixels: int):
        face, depth = np.full((pixels, pixels), -1), np.full((pixels, pixels), -1e3)
        weights = np.zeros((pixels, pixels, 3))
        p = (vertices[:, :2] - centre) * [1, -1] * (pixels / size_m) + pixels / 2
        for f, (a, b, c) in enumerate(p[faces]):
            low = np.ceil(np.minimum(np.minimum(a, b), c)).astype(int).clip(0)
            high = np.floor(np.maximum(np.maximum(a, b), c)).astype(int).clip(max=pixels - 1)
            area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
            if (low > high).any() or area == 0:
                continue
            x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
            w1 = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
            w2 = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
            w = np.stack([1 - w1 - w2, w1, w2], -1)
            z = w @ vertices[faces[f], 2]
            window = slice(low[1], high[1] + 1), slice(low[0], high[0] + 1)
            nearer = (w >= 0).all(-1) & (z > depth[window])
            depth[window][nearer], face[window][nearer], weights[window][nearer] = z[nearer], f, w[nearer]
        return cls(face, weights, depth, np.asarray(centre), pixels / size_m)

    def pixel(self, point: np.ndarray) -> tuple[int, int]:
        x, y = (point[:2] - self.centre) * [1, -1] * self.per_metre + len(self.face) / 2
        return int(round(x)), int(round(y))

    def pick(self, x: float, y: float) -> Pick:
        x, y = int(round(x)), int(round(y))
        return int(self.face[y, x]), self.weights[y, x]

    def texture(self, source: Source, picture: np.ndarray) -> np.ndarray:
        """The value (S,S) of a picture in texture space; 0 where there is no surface."""
        uv = (source.uv[source.uv_faces[self.face]] * self.weights[..., None]).sum(2)
        return np.where(self.face >= 0, source.at_uv(picture, uv), 0)


def skin_points(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, source: Source) -> dict[str, int]:
    """Nose, eyes, ears, toes, heels and finger tips as vertices."""

    def highest(ids: np.ndarray, direction: np.ndarray) -> int:
        return int(ids[(vertices[ids] @ np.asarray(direction, float)).argmax()])

    x, y, z = np.eye(3)
    eyes = {side: np.where(weights[:, J[f"{side}_eyeball"]] > 0.9)[0] for side, *_ in rig.SIDES}
    eye_height = np.mean([vertices[ids, 1].mean() for ids in eyes.values()])
    head = weights[:, J["head"]] + weights[:, J["jaw"]] > 0.5
    middle = head & (np.abs(vertices[:, 0]) < 1e-3)
    nose = np.where(middle & (vertices[:, 1] < eye_height) & (vertices[:, 1] > eye_height - 0.08))[0]
    out = {"nose": highest(nose, z)}
    for side, letter, sign in rig.SIDES:
        s = letter.lower()
        out[f"{s}eye"] = highest(eyes[side], z)
        out[f"{s}ear"] = source.keypoint(f"{side}_ear", vertices)
        for finger in rig.FINGERS:
            ids = np.where(weights[:, J[f"{side}_{finger}3"]] > 0.5)[0]
            out[s + finger] = highest(ids, joints[J[f"{side}_{finger}3"]] - joints[J[f"{side}_{finger}1"]])
        toes = np.where(weights[:, J[f"{side}_foot"]] > 0.5)[0]
        outward = vertices[toes, 0] * sign
        out[f"{letter}BigToe"] = highest(toes[outward < np.quantile(outward, 0.3)], z)
        out[f"{letter}SmallToe"] = highest(toes[outward > outward.max() - 0.022], z)
        ankle = J[f"{side}_ankle"]
        sole = (weights[:, ankle] > 0.6) & (vertices[:, 1] < joints[ankle, 1] - 0.035)
        out[f"{letter}Heel"] = highest(np.where(sole)[0], -z)
    return out


def _column(mask: np.ndarray, x: float) -> np.ndarray:
    return np.where(mask[:, int(round(x))])[0]


def _extent(mask: np.ndarray) -> tuple[int, int]:
    columns = np.where(mask.any(0))[0]
    return int(columns[0]), int(columns[-1])


def _eye_and_lip_picks(
    vertices: np.ndarray, view: FrontView, weights: np.ndarray, jaw: Jaw, source: Source
) -> dict[int, Pick]:
    out: dict[int, Pick] = {}
    faces = source.faces

    # The right eye, as far as the lids let it be seen; the lids are just outside.
    right_eye = (view.face >= 0) & (weights[faces[view.face, 0], J["right_eyeball"]] > 0.9)
    x0, x1 = _extent(right_eye)
    out[36] = view.pick(x0 - 3, np.median(_column(right_eye, x0 + 1)))
    out[39] = view.pick(x1 + 3, np.median(_column(right_eye, x1 - 1)))
    for k, share, upper in ((37, 0.30, True), (38, 0.68, True), (40, 0.68, False), (41, 0.30, False)):
        x = int(x0 + share * (x1 - x0))
        rows = _column(right_eye, x)
        out[k] = view.pick(x, rows.min() - 2 if upper else rows.max() + 2)

    # The outline of the painted lips.
    lips = view.texture(source, source.mask_picture("lips")) > 0.5
    x0, x1 = _extent(lips)
    out[48] = view.pick(x0, np.median(_column(lips, x0)))
    for k, share in ((49, 0.21), (50, 0.39), (51, 0.5), (57, 0.5), (58, 0.36), (59, 0.20)):
        x = round(x0 + share * (x1 - x0))
        out[k] = view.pick(x, _column(lips, x).min() if k <= 51 else _column(lips, x).max())

    # The inner outline shows when the jaw opens a little.
    turn = rotation_about("x", 0.5 * jaw.open_rad) - np.eye(3)
    opened = vertices + jaw.weights[:, None] * ((vertices - jaw.pivot) @ turn.T)
    open_view = FrontView.take(opened, faces, view.centre, len(view.face) / view.per_metre, len(view.face))
    inside = np.isin(source.segment_of_face(), ("mouth_cavity", "tongue"))
    hole = (open_view.face >= 0) & inside[open_view.face]
    x0, x1 = _extent(hole)
    out[60] = open_view.pick(x0 - 2, np.median(_column(hole, x0)))
    for k, share in ((61, 0.27), (62, 0.5), (66, 0.5), (67, 0.27)):
        x = round(x0 + share * (x1 - x0))
        rows = _column(hole, x)
        out[k] = open_view.pick(x, rows.min() - 2 if k <= 62 else rows.max() + 2)
    return out


def _nose_picks(vertices: np.ndarray, view: FrontView, tip: int, lip_top: Pick, eye_height: float, faces: np.ndarray):
    out: dict[int, Pick] = {}
    middle, tip_row = view.pixel(vertices[tip])
    top_row = view.pixel(np.array([0, eye_height, 0]))[1] - 6
    for k in range(4):
        out[27 + k] = view.pick(middle, top_row + (tip_row - top_row) * k / 3)
    # Where the nose meets the lip: the deepest vertex of the middle line between them.
    lip_height = (vertices[faces[lip_top[0]]] * lip_top[1][:, None]).sum(0)[1]
    below = (np.abs(vertices[:, 0]) < 1e-3) & (vertices[:, 1] < vertices[tip, 1] - 0.002)
    below &= (vertices[:, 1] > lip_height + 0.002) & (vertices[:, 2] > vertices[tip, 2] - 0.03)
    ids = np.where(below)[0]
    base = int(ids[vertices[ids, 2].argmin()])
    face = int(np.where((faces == base).any(1))[0][0])
    out[33] = face, (faces[face] == base).astype(float)
    # The wings are as wide as the depth runs without a step towards the cheek.
    widths = []
    for row in range(tip_row - 10, tip_row + 25):
        steps = np.abs(np.diff(view.depth[row, :middle][::-1]))[20:]
        if (steps > 6e-4).any():
            widths.append(int(np.argmax(steps > 6e-4)) + 20)
    half = np.median(widths)
    lip_row = view.pixel(np.array([0, lip_height, 0]))[1]
    for k, share in ((31, 0.72), (32, 0.36)):
        x = middle - int(share * half)
        step = np.abs(np.diff(view.depth[tip_row : lip_row - 4, x])).argmax()
        out[k] = view.pick(x, float(tip_row + step + 2))
    return out


def _nearest_pick(vertices: np.ndarray, faces: np.ndarray, point: np.ndarray) -> Pick:
    best: tuple[float, Pick] | None = None
    for face in np.argsort(((vertices[faces].mean(1) - point) ** 2).sum(1), kind="stable")[:40]:
        a, b, c = vertices[faces[face]]
        s, t, _ = np.linalg.solve(np.stack([b - a, c - a, np.cross(b - a, c - a)], 1), point - a)
        w = np.array([1 - s - t, s, t]).clip(0, 1)
        w /= w.sum()
        distance = float(np.linalg.norm(w @ vertices[faces[face]] - point))
        if best is None or distance < best[0]:
            best = distance, (int(face), w)
    assert best is not None
    return best[1]


def _contour_picks(view: FrontView, nose: np.ndarray, eye_height: float, source: Source) -> dict[int, Pick]:
    """Nine points from the chin (8) to the ear (0), evenly along the outline of the jaw and cheek.

    Seen from the middle of the face outwards, the face ends where the surface turns back to the neck, or else where
    MakeHuman's painted face ends.
    """
    face = view.texture(source, source.mask_picture("face")) > 0.5
    x0, y0 = view.pixel(np.array([0, nose[1] - 0.01]))
    window = round(1e-3 * view.per_metre)
    radius = np.arange(int(CONTOUR_FROM_M * view.per_metre), int(CONTOUR_TO_M * view.per_metre))
    outline = []
    for angle in np.radians(np.linspace(0, 120, 241)):  # from straight down to the subject's right
        x, y = (x0 - radius * np.sin(angle)).round().astype(int), (y0 + radius * np.cos(angle)).round().astype(int)
        depth = view.depth[y, x]
        slope = (depth - np.append(depth[window:], np.full(window, -1e3))) * view.per_metre / window
        last = int(np.argmax((slope * np.cos(angle) ** 3 > CONTOUR_SLOPE) | ~face[y, x]))
        if y[last] < view.pixel(np.array([0, eye_height, 0]))[1]:
            break
        outline.append((x[last], y[last]))
    points = np.array(outline, float)
    points[1:-1] = np.median(np.stack([points[:-2], points[1:-1], points[2:]]), axis=0)  # stray rays
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    at = [[np.interp(length[-1] * k / 8, length, points[:, axis]) for axis in (0, 1)] for k in range(9)]
    at[0][0] = x0
    return {8 - k: view.pick(*at[k]) for k in range(9)}


def _mirrored(pick: Pick, vertices: np.ndarray, faces: np.ndarray, mirror: np.ndarray, known: dict) -> Pick:
    face, weights = pick
    corners = mirror[faces[face]]
    other = known.get(tuple(sorted(corners.tolist())))
    if other is None:  # the mesh is not everywhere cut the same way on both sides
        return _nearest_pick(vertices, faces, (weights @ vertices[faces[face]]) * [-1, 1, 1])
    order = [corners.tolist().index(v) for v in faces[other]]
    return other, weights[order]


def _contour_by_yaw(
    vertices: np.ndarray, faces: np.ndarray, skin: np.ndarray, picks: dict[int, Pick], mirrored: Callable[[Pick], Pick]
) -> tuple[np.ndarray, np.ndarray]:
    """For each yaw of the head (79 rows) the contour as seen: where the cheek hides the jaw's border, the cheek."""
    centres = vertices[faces].mean(1)
    rows = [{k: picks[k] for k in range(17)} for _ in range(YAWS)]
    for row in range(YAWS):
        yaw = np.radians(row if row <= 39 else 39 - row)
        opposite = row if row == 0 else (row + 39 if row <= 39 else row - 39)
        across = -np.array([np.cos(yaw), 0, -np.sin(yaw)])  # towards the subject's right, in the picture
        for k in range(7):
            border = picks[k][1] @ vertices[faces[picks[k][0]]]
            level = skin & (np.abs(centres[:, 1] - border[1]) < 0.005) & (centres[:, 0] < 0.005)
            ids = np.where(level & (centres[:, 2] > border[2] - 0.004))[0]
            if len(ids) and (centres[ids] @ across).max() > border @ across + 1e-4:
                cheek = int(ids[(centres[ids] @ across).argmax()]), np.full(3, 1 / 3)
                rows[row][k], rows[opposite][16 - k] = cheek, mirrored(cheek)
    return np.array([[r[k][0] for k in range(17)] for r in rows]), np.array(
        [[r[k][1] for k in range(17)] for r in rows]
    )


def find(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, mirror: np.ndarray, jaw: Jaw, source: Source
) -> Landmarks:
    """All points of the mean person (vertices V,3 and joints 55,3 in the T-pose)."""
    faces = source.faces
    points = skin_points(vertices, joints, weights, source)
    eye_height = float(vertices[weights[:, J["left_eyeball"]] > 0.9, 1].mean())
    view = FrontView.take(vertices, faces, np.array([0, eye_height - 0.03]), 0.30, 1600)

    picks = _eye_and_lip_picks(vertices, view, weights, jaw, source)
    picks |= _nose_picks(vertices, view, points["nose"], picks[51], eye_height, faces)
    index_of_base = {int(b): k for k, b in enumerate(source.base_vertices)}
    for k, (corners, share) in enumerate(RIGHT_BROW):
        point = np.array(share) @ vertices[[index_of_base[b] for b in corners]]
        picks[17 + k] = view.pick(*view.pixel(point))
    picks |= _contour_picks(view, vertices[points["nose"]], eye_height, source)
    known = {tuple(sorted(f)): k for k, f in enumerate(faces.tolist())}

    def mirrored(pick: Pick) -> Pick:
        return _mirrored(pick, vertices, faces, mirror, known)

    picks |= {twin: mirrored(picks[k]) for k, twin in MIRROR_PAIRS.items()}

    chosen = np.array([picks[k][0] for k in range(68)])
    shares = np.array([picks[k][1] for k in range(68)])
    skin = source.painted("face")[faces].min(1) > 0.55
    contour = _contour_by_yaw(vertices, faces, skin, picks, mirrored)
    return Landmarks(points, chosen, shares, *contour)
