"""Draw the open body as a sheet of pictures to look at after a bake: `python tools/draw_open_body.py sheet.png`.

Rest pose from three sides and by region, twelve strong poses from two sides, shape and expression components 1 and 2
at -2 and 2, facial actions, open jaw, turned eyes, the contour at several yaws, hands, a child and other people.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent))

from open_body import poses
from open_body.rest_pose import rotation_about
from open_body.rig import J

from wholebody.body import open_body
from wholebody.body.layer import BodyModel
from wholebody.drawing.raster import draw_mesh

SKIN = np.array([0.80, 0.66, 0.58])
PAINT = {
    **{"lips": (0.68, 0.40, 0.38), "brow": (0.30, 0.22, 0.18), "scalp": (0.62, 0.50, 0.44)},
    **{"eye_white": (0.95, 0.95, 0.94), "iris": (0.25, 0.42, 0.50), "pupil": (0.03, 0.03, 0.03)},
    **{"mouth_inside": (0.45, 0.18, 0.18), "tongue": (0.75, 0.38, 0.38), "nail": (0.88, 0.72, 0.68)},
}
CELL = 300


@dataclass(frozen=True)
class View:
    """A camera that looks at `centre` from `azimuth_deg` (0: in front) and `height_deg`, so that `span_m` fit."""

    centre: tuple[float, float, float] = (0.0, -0.1, 0.0)
    span_m: float = 2.1
    azimuth_deg: float = 0.0
    height_deg: float = 0.0

    def camera_from_body(self, points: np.ndarray) -> np.ndarray:
        turned = (points - np.array(self.centre)) @ rotation_about("y", -np.radians(self.azimuth_deg)).T
        turned = turned @ rotation_about("x", np.radians(self.height_deg)).T
        return turned * [1, -1, -1] + [0, 0, 4 * self.span_m]


class Artist:
    def __init__(self, path: str | None):
        self.body = BodyModel.load(path)
        self.extras = open_body.expand(open_body.read_compact(path or open_body.COMPACT_PATH), correctives=False)
        self.colors = np.tile(SKIN, (self.body.num_vertices, 1))
        names = list(self.extras["region_names"])
        for name, color in PAINT.items():
            self.colors[self.extras["region"] == names.index(name)] = color

    def pose(self, pose: np.ndarray | None = None, betas=(), expression=()) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (V,3) and the 144 joints; pose (55,3) with the hand mean already in it, if it is wanted."""
        full = torch.tensor(np.zeros((55, 3)) if pose is None else pose, dtype=torch.float32)
        coefficients = torch.zeros(2, 1, 10)
        for row, values in enumerate((betas, expression)):
            coefficients[row, 0, : len(values)] = torch.tensor(np.array(values, dtype=np.float32))
        from wholebody.geometry.rotation import axis_angle_to_matrix

        out = self.body.from_matrices(axis_angle_to_matrix(full)[None], coefficients[0], coefficients[1])
        return out.vertices[0].numpy(), out.joints[0].numpy()

    def draw(self, label: str, posed, view: View, colors: np.ndarray | None = None, points=()) -> np.ndarray:
        vertices, joints = posed
        focal, middle = 4.0 * CELL, (CELL / 2, CELL / 2)
        drawing = draw_mesh(
            view.camera_from_body(vertices).astype(np.float32),
            self.body.faces.numpy(),
            focal,
            middle,
            (CELL, CELL),
            self.colors if colors is None else colors,
            samples=3,
        )
        picture = Image.fromarray(drawing.over(np.full((CELL, CELL, 3), 245, np.uint8)))
        pen = ImageDraw.Draw(picture)
        for x, y, z in view.camera_from_body(joints[list(points)]) if len(points) else ():
            u, v = x / z * focal + middle[0], y / z * focal + middle[1]
            pen.ellipse([u - 1.5, v - 1.5, u + 1.5, v + 1.5], fill=(200, 0, 0))
        pen.text((4, 2), label, fill=(0, 0, 0))
        return np.array(picture)


def sheet(artist: Artist) -> list[list[np.ndarray]]:
    draw, extras = artist.draw, artist.extras
    face = View((0, 0.59, 0.08), 0.34)
    side_face = View((0, 0.59, 0.08), 0.34, 50)
    rest = artist.pose()
    palette = np.random.default_rng(4).uniform(0.15, 1, (len(extras["region_names"]), 3))
    regions = palette[extras["region"]]
    rows = [
        [draw(f"rest {a}", rest, View(azimuth_deg=a), points=range(55) if a == 0 else ()) for a in (0, 90, 180)]
        + [draw("regions", rest, view, regions) for view in (View(), face, side_face)]
    ]
    posed = {name: artist.pose(_with_mean_hands(poses.pose(turns), extras)) for name, turns in poses.STRONG.items()}
    for azimuth in (10, 100):
        cells = [draw(name, p, View((0, -0.1, 0), 2.3, azimuth, 8)) for name, p in posed.items()]
        rows += [cells[:6], cells[6:]]
    rows.append(
        [
            draw(f"shape {k + 1}: {b}", artist.pose(betas=b * np.eye(10)[k]), View(span_m=2.6))
            for k in (0, 1)
            for b in (-2, 2)
        ]
        + _people(artist)
    )
    rows.append(
        [
            draw(f"expression {k + 1}: {e}", artist.pose(expression=e * np.eye(10)[k]), face)
            for k in (0, 1)
            for e in (-2, 2)
        ]
        + [draw("rest", rest, face, points=range(76, 144)), draw("rest", rest, side_face, points=range(76, 144))]
    )
    rows.append(_actions(artist, face))
    rows.append(_moved_parts(artist, face, side_face))
    rows.append(_contours(artist))
    rows += _hands(artist)
    return rows


def _with_mean_hands(pose: np.ndarray, extras: dict) -> np.ndarray:
    out = pose.copy()
    out[25:40] += extras["hands_meanl"].reshape(15, 3)
    out[40:] += extras["hands_meanr"].reshape(15, 3)
    return out


def _people(artist: Artist) -> list[np.ndarray]:
    age, betas = artist.extras["people_age"], artist.extras["people_betas"]
    youngest, oldest = int(np.abs(age - 5).argmin()), int(age.argmax())
    return [
        artist.draw(f"{age[k]:.0f} years", artist.pose(betas=betas[k]), View(span_m=2.1)) for k in (youngest, oldest)
    ]


def _actions(artist: Artist, view: View) -> list[np.ndarray]:
    names = list(artist.extras["action_names"])
    faces = {
        "smile": ("mouthSmileLeft", "mouthSmileRight"),
        "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
        "wink": ("eyeBlinkRight",),
        "pucker": ("mouthPucker", "browInnerUp"),
        "frown": ("mouthFrownLeft", "mouthFrownRight", "browDownLeft", "browDownRight"),
        "sneer": ("noseSneerLeft", "noseSneerRight"),
    }
    table = artist.extras["action_expression"]
    return [
        artist.draw(label, artist.pose(expression=sum(table[names.index(a)] for a in actions)), view)
        for label, actions in faces.items()
    ]


def _moved_parts(artist: Artist, face: View, side_face: View) -> list[np.ndarray]:
    opened, aside, turned = np.zeros((55, 3)), np.zeros((55, 3)), np.zeros((55, 3))
    opened[J["jaw"]] = [0.38, 0, 0]
    aside[J["left_eyeball"]] = aside[J["right_eyeball"]] = [-0.1, 0.4, 0]
    turned[J["jaw"]] = [0.15, 0.1, 0]
    jaw = range(76, 144)
    return [
        artist.draw("jaw", artist.pose(opened), face),
        artist.draw("jaw", artist.pose(opened), side_face),
        artist.draw("jaw", artist.pose(opened), face, points=jaw),
        artist.draw("eyes", artist.pose(aside), face),
        artist.draw("eyes", artist.pose(aside), side_face),
        artist.draw("jaw aside", artist.pose(turned), face),
    ]


def _contours(artist: Artist) -> list[np.ndarray]:
    cells = []
    for yaw in (-35, -20, -8, 8, 20, 35):
        pose = np.zeros((55, 3))
        pose[J["neck"], 1] = np.radians(yaw)
        cells.append(artist.draw(f"yaw {yaw}", artist.pose(pose), View((0, 0.59, 0.08), 0.36), points=range(127, 144)))
    return cells


def _hands(artist: Artist) -> list[list[np.ndarray]]:
    extras = artist.extras
    mean = _with_mean_hands(np.zeros((55, 3)), extras)
    kinds = {
        "flat": np.zeros((55, 3)),
        "mean": mean,
        "fist": poses.fist(extras["flex_axes"]),
        "pointing": poses.fist(extras["flex_axes"], pointing=True),
    }
    for k in (0, 1):
        kinds[f"component {k + 1}"] = mean.copy()
        kinds[f"component {k + 1}"][25:40] += 1.2 * extras["hands_componentsl"][k].reshape(15, 3)
    centre = (0.74, 0.37, 0.05)
    views = {"back": View(centre, 0.3, 0, 85), "front": View(centre, 0.3), "palm": View(centre, 0.3, 0, -85)}
    return [[artist.draw(f"{n}, {v}", artist.pose(p), view) for n, p in kinds.items()] for v, view in views.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the picture to write")
    parser.add_argument("--body", help="a compact body file (default: the embedded one)")
    args = parser.parse_args()
    rows = sheet(Artist(args.body))
    Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(args.out)


if __name__ == "__main__":
    main()
