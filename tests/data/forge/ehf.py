"""EHF as it is handed out: one folder, pictures of 1600x1200, meshes in the studio's frame, and the parsed EHF.json."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from .people import ForgedPerson, View, blank, rotation

WH = (1600, 1200)
FOCAL = np.array([1498.22426237, 1498.22426237])
PRINCIPAL = np.array([790.263706, 578.90334])
CAMERA_R = rotation([-2.98747896, 0.01172457, -0.05704687])
CAMERA_T = np.array([-0.03609917, 0.43416458, 2.37101226])


def seen(person: ForgedPerson) -> View:
    """Through the studio's camera."""
    points = person.joints_144_cam[:, :2] / person.joints_144_cam[:, 2:] * FOCAL + PRINCIPAL
    return person.seen(WH, FOCAL, PRINCIPAL, points)


def forge(root: Path, people: list[ForgedPerson]) -> None:
    """Everybody alone in a picture. The last one's box is empty; the second one's mesh is an .obj, the third one's an
    ASCII .ply, the others' binary."""
    data = root / "data"
    data.mkdir(parents=True)
    images, annotations = [], []
    for number, person in enumerate(people, 1):
        view = seen(person)
        canvas = blank(WH, number)
        view.draw(canvas)
        cv2.imwrite(str(data / f"{number:02d}_img.jpg"), canvas, [cv2.IMWRITE_JPEG_QUALITY, 60])
        images.append({"id": number, "width": WH[0], "height": WH[1], "file_name": f"{number:02d}_img.jpg"})
        nothing = [0.0, 0.0, 0.0, 0.0]
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "body_bbox": nothing if number == len(people) else view.box_xywh(),
                "lefthand_bbox": view.box_xywh("left_hand_box") if person.left_hand_known else nothing,
                "righthand_bbox": view.box_xywh("right_hand_box") if person.right_hand_known else nothing,
                "face_bbox": view.box_xywh("face_box") if person.face_known else nothing,
            }
        )
        studio = (person.vertices_cam - CAMERA_T) @ CAMERA_R
        if number == 2:
            lines = [f"v {x:.8f} {y:.8f} {z:.8f}" for x, y, z in studio]
            (data / f"{number:02d}_align.obj").write_text("\n".join([*lines, "f 1 2 3", ""]))
        else:
            write_ply(data / f"{number:02d}_align.ply", studio, ascii=number == 3)
    (data / "EHF.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def write_ply(path: Path, vertices: np.ndarray, ascii: bool = False) -> None:
    """Vertices with normals, and one face, as mesh programs write them."""
    form = "ascii" if ascii else "binary_little_endian"
    header = [
        "ply", f"format {form} 1.0", "comment made up", f"element vertex {len(vertices)}", "property float x",
        "property float y", "property float z", "property uchar red", "element face 1",
        "property list uchar int vertex_indices", "end_header", "",
    ]  # fmt: skip
    with open(path, "wb") as file:
        file.write("\n".join(header).encode())
        if ascii:
            file.write("".join(f"{x:.8f} {y:.8f} {z:.8f} 7\n" for x, y, z in vertices).encode() + b"3 0 1 2\n")
        else:
            row = np.dtype([("xyz", "<f4", 3), ("red", "u1")])
            table = np.zeros(len(vertices), row)
            table["xyz"] = vertices
            file.write(table.tobytes() + b"\x03" + np.arange(3, dtype="<i4").tobytes())
