"""EHF: 100 pictures of one actor in a studio, each with an aligned SMPL-X mesh. For testing only.

    data/EHF.json            COCO format: body_bbox, lefthand_bbox, righthand_bbox, face_bbox (x, y, width, height)
    data/01_img.jpg          (or .png: whatever EHF.json names)
    data/01_align.ply        the mesh (or .obj), metres, in the studio's frame: `meshes.true_mesh` reads it

All pictures share one camera, which the set's own page states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from wholebody.data.readers import coco_format as coco
from wholebody.data.sample import Sample, axis_angle_to_matrix, masked_sample

SPLITS = ("test",)

FOCAL_PX = (1498.22426237, 1498.22426237)
PRINCIPAL_PX = (790.263706, 578.90334)
ROTATION = axis_angle_to_matrix(np.array([-2.98747896, 0.01172457, -0.05704687]))
"""(3, 3): camera = ROTATION @ studio + TRANSLATION"""
TRANSLATION = np.array([-0.03609917, 0.43416458, 2.37101226])
"""(3,) metres"""


def read(root: Path, split: str = "test") -> Iterator[Sample]:
    """The people of EHF: their boxes, those of their parts, the camera's focal length and centre, and the mesh."""
    coco.require("EHF", root, split)
    path = root / "data" / "EHF.json"
    for annotation, image in coco.annotated_people(path):
        picture_hw = coco.picture_hw(path, image)
        box = coco.cut_box(coco.numbers(path, annotation, "body_bbox", 4), picture_hw)
        if box is None:
            continue
        name = str(coco.entry_of(path, image, "file_name"))
        parts = (_part_box(path, annotation, f"{part}_bbox") for part in ("lefthand", "righthand", "face"))
        yield masked_sample(
            f"EHF/{name.rsplit('.', 1)[0]}",
            box,
            dataset="EHF",
            image_path=f"data/{name}",
            image_hw=picture_hw,
            focal_px=np.array(FOCAL_PX),
            principal_px=np.array(PRINCIPAL_PX),
            mesh_path=f"data/{_mesh_of(root, name)}",
            **coco.box_fields(*parts),
        )


def camera_from_mesh(vertices: np.ndarray) -> np.ndarray:
    """Vertices (V, 3) of a mesh of the set, in the studio's frame, in the camera's; metres."""
    return np.asarray(vertices @ ROTATION.T + TRANSLATION)


def _part_box(path: Path, annotation: Mapping, key: str) -> np.ndarray | None:
    """xyxy (4,), not cut to the picture, as published; None where it is not annotated or empty."""
    if annotation.get(key) is None:
        return None
    x, y, width, height = coco.numbers(path, annotation, key, 4)
    return np.array([x, y, x + width, y + height]) if width > 0 and height > 0 else None


def _mesh_of(root: Path, picture: str) -> str:
    name = picture.rsplit("/", 1)[-1].split("_")[0] + "_align"
    return f"{name}.obj" if (root / "data" / f"{name}.obj").is_file() else f"{name}.ply"
