"""Draw a mesh of `wholebody predict` back into its photo: `python examples/seen_from_the_camera.py photo.jpg
results/photo_person0.npz out.png`. Needs nothing but NumPy, Pillow and trimesh: results explain themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image, ImageDraw


def main(photo: str, result: str, out: str) -> None:
    with np.load(result) as person:
        focal, principal = person["focal_px"], person["principal_px"]
    mesh = trimesh.load(Path(result).with_suffix(".ply"), process=False)
    vertices = mesh.vertices * [1, -1, -1]  # files have y up and look along -z; the camera has y down
    pixels = vertices[:, :2] / vertices[:, 2:] * focal + principal
    with Image.open(photo) as picture:
        picture = picture.convert("RGB")
    draw = ImageDraw.Draw(picture)
    for x, y in pixels[::10]:
        draw.point((x, y), fill=(255, 80, 40))
    picture.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:4])
