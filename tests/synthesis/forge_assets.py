"""MakeHuman-like assets of our own making: patches of the base mesh, in MakeHuman's file formats.

Nothing here is shared with the readers: rows are one-vertex fits, so where each vertex must end up is known.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from wholebody.body.open_body import expand, read_compact
from wholebody.synthesis.clothes import scaffold


def forge(root: Path, names: tuple[str, ...] = ("a",)) -> Path:
    """A suit (top and bottom), shoes and hair for each name; returns the folder."""
    body = expand(read_compact(), correctives=False)
    rest, faces = body["v_template"], body["f"].astype(int)
    frame = scaffold.load(read_compact())
    base = np.full(len(rest), -1)
    base[frame.body_of_base[frame.body_of_base >= 0]] = np.flatnonzero(frame.body_of_base >= 0)
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    top = (x < 0.5) & (y > 0.05) & (y < 0.42)
    bottom = (x < 0.25) & (y < -0.05) & (y > -0.85)
    for name in names:
        _piece(root / "clothes" / f"suit_{name}", f"suit_{name}", base, faces, top | bottom, True)
        _piece(root / "clothes" / f"shoes_{name}", f"shoes_{name}", base, faces, y < -0.86, True)
        _piece(root / "hair" / f"hair_{name}", f"hair_{name}", base, faces, (y > 0.6) & (z < 0.12), False)
    return root


def _piece(folder: Path, name: str, base: np.ndarray, faces: np.ndarray, wanted: np.ndarray, hides: bool) -> None:
    folder.mkdir(parents=True)
    inside = faces[wanted[faces].all(1)]
    used = np.unique(inside)
    new = np.full(len(base), -1)
    new[used] = np.arange(len(used))
    obj = ["# forged"] + ["v 0 0 0"] * len(used) + ["vt 0.1 0.1", "vt 0.9 0.1", "vt 0.5 0.9"]
    obj += [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3" for a, b, c in new[inside]]
    (folder / f"{name}.obj").write_text("\n".join(obj))
    rows = [str(k) if n % 2 else f"{k} {k} {k} 0.2 0.3 0.5 0.0 0.0 0.0" for n, k in enumerate(base[used])]
    deleted = base[used] if hides else []
    text = ["# forged", "basemesh hm08", f"name {name}", f"obj_file {name}.obj", "x_scale 5399 11998 1.4", "verts 0",
            f"material {name}.mhmat", "z_scale 962 5320 2.0", "y_scale 791 881 2.4", "z_depth 50", *rows]  # fmt: skip
    if hides:
        text += ["delete_verts", " ".join(f"{k} - {k}" if k % 2 else str(k) for k in deleted)]
    (folder / f"{name}.mhclo").write_text("\n".join(text))
    picture = np.full((32, 32, 4), 200, np.uint8)
    picture[..., 3] = 255
    if not hides:
        picture[:8, :, 3] = 0
    cv2.imwrite(str(folder / f"{name}.png"), picture)
    (folder / f"{name}.mhmat").write_text(f"# forged\ndiffuseColor 1 1 1\ndiffuseTexture {name}.png\n")
