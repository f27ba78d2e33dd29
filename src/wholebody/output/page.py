"""A scene as one self-contained web page (`.html`): figures that move in 3D beside the film, without any network.

The viewer (`page.html`) is written for this: about 300 lines of WebGL 2, since the page needs skinned meshes, an orbit
and a floor and nothing else. three.js with its loader would add 700 kB to every page and a build step to this project.

A page holds one mesh a person, poses as quaternions of 16 bits, and the body's pose correctives and expression shapes,
which it applies itself; then the film, made small. All of it is compressed. Its policy forbids every request.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.body.joints import PARENTS
from wholebody.body.layer import BodyModel
from wholebody.files.text import shown as shown_name
from wholebody.files.whole import write_bytes
from wholebody.output.look import make_look
from wholebody.output.rig import Placed, corrective_shapes, expression_targets, place, quaternions, scene_rows, shaped
from wholebody.people.scene import Motion, Scene

if TYPE_CHECKING:
    from wholebody.files.video import Film

FILM_HEIGHT = 360  # pixels of the film beside the figures
MOST_FRAMES = 9000
"""Of longer films only every second, third, ... frame is in the page."""
FILM_SECONDS = 300.0  # longer films are left out: a page is opened whole
_EXPRESSION_STEP = 1 / 2048
_LEAST_CORRECTIVE = 3e-4  # metres per unit of R - 1 that a vertex moves; less is not kept


def write_page(
    path: Path, scene: Scene, body: BodyModel, *, film: Film | None = None, picture: np.ndarray | None = None,
    look: str = "clothed", title: str | None = None,
) -> Path:  # fmt: skip
    """Write the page whole or not at all, with the film, or the photo (H, W, 3) uint8, beside the figures."""
    return write_bytes(path, page_bytes(scene, body, film=film, picture=picture, look=look, title=title or path.stem))


def page_bytes(
    scene: Scene, body: BodyModel, *, film: Film | None = None, picture: np.ndarray | None = None,
    look: str = "clothed", title: str = "wholebody",
) -> bytes:  # fmt: skip
    pack = _Pack()
    notes = list(scene.notes)
    step = -(-len(scene.frames) // MOST_FRAMES)
    if step > 1:
        scene = thinned(scene, step)
        notes.append(f"The film is long: the page shows every {_ordinal(step)} of its frames.")
    if scene.floor != "feet":
        notes.append("The floor is a guess: the camera was taken to be level.")
    about: dict[str, Any] = {
        "vertices": body.num_vertices,
        "people": _add_people(pack, scene, body, look),
        "camera": {
            "focal": float(scene.camera.focal_px),
            "principal": np.asarray(scene.camera.principal_px, float).tolist(),
            "wh": list(map(int, scene.camera.image_wh)),
        },
        "frames_first": int(scene.frames[0]) if len(scene.frames) else 0,
        "frames_step": int(scene.frames[1] - scene.frames[0]) if len(scene.frames) > 1 else 1,
        "notes": notes,
    }
    path = np.asarray(scene.camera_from_world, np.float64)[:, :3].reshape(-1, 12)
    pack.add("camera", (path[:1] if np.ptp(path, axis=0).max() < 1e-9 else path).astype("<f4"))
    pack.add("times", np.asarray(scene.times).astype("<f4"))
    shown = b""
    if film is not None:
        if (film.expected or 0) / film.rate <= FILM_SECONDS:
            shown, about["picture"] = _small_film(film), "video/mp4"
        else:
            notes.append(f"The film is longer than {FILM_SECONDS / 60:g} minutes and is not in this page.")
    elif picture is not None:
        from wholebody.output.overlay import encode_jpeg

        shown, about["picture"] = encode_jpeg(_reduced(picture, 2 * FILM_HEIGHT), 85), "image/jpeg"
    about["arrays"] = pack.arrays
    parts = {
        "TITLE": html.escape(shown_name(title)),
        "ABOUT": json.dumps(about, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        "DATA": base64.b64encode(gzip.compress(pack.to_bytes(), 6, mtime=0)).decode(),
        "PICTURE": base64.b64encode(shown).decode(),
    }
    template = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    pieces = template.split("{{")
    return "".join(
        [pieces[0], *(parts[name] + rest for name, _, rest in (p.partition("}}") for p in pieces[1:]))]
    ).encode()


def thinned(scene: Scene, step: int) -> Scene:
    """The scene with every `step`-th of its frames; people who are in none of these are left out."""
    kept = scene.frames[::step]
    people = []
    for motion in scene.people:
        rows = np.flatnonzero(np.isin(motion.frames, kept))
        if len(rows):
            people.append(motion.take(slice(int(rows[0]), int(rows[-1]) + 1, step)))
    return replace(
        scene, people=tuple(people), fps=scene.fps / step, frames=kept, times=scene.times[::step],
        camera_from_world=scene.camera_from_world[::step],
    )  # fmt: skip


def _ordinal(number: int) -> str:
    end = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else end}"


class _Pack:
    """Named arrays in one block, each at a multiple of four bytes."""

    def __init__(self) -> None:
        self.arrays: dict[str, dict[str, Any]] = {}
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, name: str, array: np.ndarray) -> None:
        array = np.ascontiguousarray(array)
        data = array.tobytes()
        kind = array.dtype.str[1:]
        self.arrays[name] = {"kind": kind, "at": self._length, "count": array.size, "shape": list(array.shape)}
        data += b"\0" * (-len(data) % 4)
        self._parts.append(data)
        self._length += len(data)

    def add_over_time(self, name: str, rows: np.ndarray) -> None:
        """(K, T) int16 as differences over time, which compress well; sums wrap around."""
        self.add(name, np.diff(rows.astype("<i2"), axis=1, prepend=np.zeros((len(rows), 1), "<i2")))

    def to_bytes(self) -> bytes:
        return b"".join(self._parts)


def _add_people(pack: _Pack, scene: Scene, body: BodyModel, look: str) -> list[dict[str, Any]]:
    painted = make_look(look, body)
    faces = body.faces.numpy()
    vertex, paint, split = painted.split(faces)
    whole = "<u2" if len(vertex) < 65536 else "<u4"
    pack.add("parents", np.maximum(np.array(PARENTS), 0).astype("u1"))
    pack.add("split_vertex", vertex.astype("<u4"))
    pack.add("split_paint", paint.astype("u1"))
    pack.add("faces", split.ravel().astype(whole))
    _add_skin(pack, body, vertex)
    _add_expression(pack, body)
    _add_correctives(pack, body)
    about = []
    for number, motion in enumerate(scene.people):
        color = painted.color("shirt" if "shirt" in painted.paints else painted.paints[0], number)
        colors = painted.colors(number)
        person = place(motion, scene, body)
        about.append(_add_person(pack, number, motion, person, body, faces, vertex) | {
            "first": int(scene_rows(motion, scene)[0]),
            "colors": colors.round(4).tolist(),
            "dot": list(color),
        })  # fmt: skip
    return about


def _add_person(
    pack: _Pack, number: int, motion: Motion, person: Placed, body: BodyModel, faces: np.ndarray, vertex: np.ndarray
) -> dict[str, Any]:
    from wholebody.files.mesh import vertex_normals

    rest = shaped(motion, body)
    scale = float(np.abs(rest).max()) / 32767
    pack.add(f"rest{number}", np.rint(rest / scale).astype("<i2"))
    pack.add(f"normals{number}", np.rint(vertex_normals(rest, faces)[vertex] * 127).astype("i1"))
    pack.add(f"joints{number}", person.rest_joints.astype("<f4"))
    frames = len(person.transl)
    turns = np.rint(quaternions(person.rotations) * 32767)
    pack.add_over_time(f"turns{number}", turns.reshape(frames, -1).T)
    pack.add(f"places{number}", person.joints[:, 0].astype("<f4"))
    expression = np.clip(np.rint(np.asarray(motion.expression) / _EXPRESSION_STEP), -32767, 32767)
    pack.add_over_time(f"expression{number}", expression.T)
    return {"count": frames, "rest_scale": scale, "expression_scale": _EXPRESSION_STEP}


def _add_skin(pack: _Pack, body: BodyModel, vertex: np.ndarray) -> None:
    """Four joints a vertex: what a viewer shows needs no more."""
    weights = body.weights.double().numpy().T
    order = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    kept = np.take_along_axis(weights, order, 1)
    steps = np.rint(kept / kept.sum(1, keepdims=True) * 65535)
    pack.add("skin_joints", order[vertex].astype("u1"))
    pack.add("skin_weights", steps[vertex].astype("<u2"))


def _add_expression(pack: _Pack, body: BodyModel) -> None:
    targets = expression_targets(body)
    moved = np.unique(np.concatenate([target.vertices for target in targets]))
    offsets = np.zeros((len(moved), 3, len(targets)))
    for k, target in enumerate(targets):
        offsets[np.searchsorted(moved, target.vertices), :, k] = target.offsets
    scale = np.maximum(np.abs(offsets).max((0, 1)), 1e-9) / 127
    pack.add("expression_vertices", moved.astype("<u4"))
    pack.add("expression_offsets", np.rint(offsets / scale).astype("i1"))
    pack.add("expression_scale", scale.astype("<f4"))


def _add_correctives(pack: _Pack, body: BodyModel) -> None:
    joints: list[np.ndarray] = []
    vertices: list[np.ndarray] = []
    offsets: list[np.ndarray] = []
    scale = np.zeros(len(PARENTS))
    for joint, where, shapes in corrective_shapes(body):
        kept = np.linalg.norm(shapes, axis=(1, 2)) > _LEAST_CORRECTIVE
        if not kept.any():
            continue
        scale[joint] = np.abs(shapes).max() / 127
        joints.append(np.full(kept.sum(), joint))
        vertices.append(where[kept])
        offsets.append(np.rint(shapes[kept] / scale[joint]))
    pack.add("corrective_joints", _joined(joints).astype("u1"))
    pack.add("corrective_vertices", _joined(vertices).astype("<u4"))
    pack.add("corrective_offsets", _joined(offsets).astype("i1"))
    pack.add("corrective_scale", scale.astype("<f4"))


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _reduced(image: np.ndarray, height: int) -> np.ndarray:
    """At most `height` pixels high, with even sides."""
    import cv2

    scale = min(1.0, height / image.shape[0])
    size = tuple(max(2, round(side * scale / 2) * 2) for side in image.shape[1::-1])
    return image if size == image.shape[1::-1] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _small_film(film: Film) -> bytes:
    """The film again in H.264, at its own times, small enough to lie in a page; without sound."""
    import av

    from wholebody.output.overlay_film import TICKS, video_stream

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream, zero, last = None, 0.0, -1
        for frame in film:
            image = _reduced(frame.image, FILM_HEIGHT)
            if stream is None:
                stream = video_stream(container, image.shape[1], image.shape[0], film.rate, quality=29, key_every=12)
                zero = frame.time
            encoded = av.VideoFrame.from_ndarray(image, format="rgb24")
            last = max(round((frame.time - zero) * TICKS), last + 1)
            encoded.pts, encoded.time_base = last, Fraction(1, TICKS)
            container.mux(stream.encode(encoded))
        if stream is not None:
            container.mux(stream.encode(None))
    return buffer.getvalue()
