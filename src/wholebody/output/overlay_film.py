"""The film with everybody's mesh over them (`.mp4`: H.264, the film's own times and sound).

The mesh lets the film show through and has an outline, so that one sees how well it fits. A person's colour is that of
their place in `Scene.people`, throughout. Only the part of a frame that a person covers is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.body.layer import BodyModel
from wholebody.errors import BadInput, OutputError
from wholebody.files.whole import write_whole
from wholebody.output.look import Look, make_look
from wholebody.output.overlay import covered_window, outline, together
from wholebody.output.rig import posed_in_camera
from wholebody.people.scene import Motion, Scene

if TYPE_CHECKING:
    from wholebody.files.video import Film

OPACITY = 0.72
_OUTLINE = 0.35  # how much of the colour is left at the outline
_CHUNK = 16  # frames of a person whose meshes are held
TICKS = 90_000  # a second, of the film's clock: what players of mp4 are used to
_ENCODERS = ("libx264", "libopenh264", "h264")


def write_overlay_film(
    path: Path, scene: Scene, body: BodyModel, film: Film, *, look: str = "clothed", opacity: float = OPACITY
) -> Path:
    """Write every frame that `film` gives, at its own time, with the people of `scene` over it; whole or not at all.

    Raises OutputError if this machine's FFmpeg has no H.264 encoder.
    """
    if not 0 <= opacity <= 1:
        raise BadInput(f"The opacity is {opacity:g}; it must be from 0 (only the film) to 1 (nothing seen through).")
    from wholebody.files.video import SoundTrack

    def write(part: Path) -> None:
        import av

        painter = Painter(scene, body, look=look, opacity=opacity)
        with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
            width, height = (side + side % 2 for side in film.info.wh)  # 4:2:0 has even sides
            stream = video_stream(container, width, height, film.rate)
            sound = SoundTrack(film)
            sound.add_to(container)
            zero, last, time = None, -1, 0.0
            for frame in film:
                zero = frame.time if zero is None else zero
                time = frame.time - zero
                ticks = max(round(time * TICKS), last + 1)
                last = ticks
                picture = painter(frame.number, frame.image)
                if picture.shape[:2] != (height, width):
                    rows, columns = height - picture.shape[0], width - picture.shape[1]
                    picture = np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")
                encoded = av.VideoFrame.from_ndarray(picture, format="rgb24")
                encoded.pts, encoded.time_base = ticks, Fraction(1, TICKS)
                for packet in stream.encode(encoded):
                    container.mux(packet)
                sound.mux_until(time)
            for packet in stream.encode(None):
                container.mux(packet)
            sound.close(time + 1 / film.rate)

    return write_whole(path, write)


def video_stream(
    container: Any, width: int, height: int, fps: float, quality: int = 21, key_every: int | None = None
) -> Any:
    """A stream of H.264 in an open container, whose frames count time in `TICKS`; a smaller quality is better."""
    import av

    for name in _ENCODERS:
        try:
            stream = container.add_stream(name, rate=Fraction(fps).limit_denominator(1001))
        except (av.error.FFmpegError, ValueError):
            continue
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        if name == "libx264":
            stream.options = {"preset": "veryfast", "crf": str(quality)} | ({"g": str(key_every)} if key_every else {})
        return stream
    raise OutputError("this installation of PyAV has no H.264 encoder, so no overlay film: leave it out of --save")


class Painter:
    """Draws the people of a scene over its frames, which come in ascending order."""

    def __init__(self, scene: Scene, body: BodyModel, *, look: str = "clothed", opacity: float = OPACITY) -> None:
        self._scene, self._opacity = scene, opacity
        self._skin = Skin.of(body, look)
        self._people = [(Player(motion, body), self._skin.colors(n)) for n, motion in enumerate(scene.people)]

    def __call__(self, number: int, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 with everybody who is there in frame `number` over `image`."""
        seen = [(at[1], colors) for player, colors in self._people if (at := player.at(number)) is not None]
        if not seen:
            return image
        camera = self._scene.camera
        scale = image.shape[1] / camera.image_wh[0]
        principal = (np.asarray(camera.principal_px, np.float64) + 0.5) * scale - 0.5
        return paint(image, seen, self._skin, camera.focal_px * scale, principal, self._opacity)


@dataclass(frozen=True, eq=False)
class Skin:
    """The faces of a body, and its vertices with a copy for each paint (`Look.split`)."""

    faces: np.ndarray  # (F, 3) int32
    vertex: np.ndarray  # (N,) of each copy
    split_faces: np.ndarray  # (F, 3) int32 among the copies
    paint: np.ndarray  # (N,) of each copy
    look: Look

    @classmethod
    def of(cls, body: BodyModel, look: str) -> Skin:
        faces, painted = body.faces.numpy(), make_look(look, body)
        vertex, of_vertex, split = painted.split(faces)
        return cls(faces.astype(np.int32), vertex, split.astype(np.int32), of_vertex, painted)

    def colors(self, person: int) -> np.ndarray:
        """(N, 3) sRGB."""
        return self.look.colors(person)[self.paint]


def paint(
    image: np.ndarray, people: Sequence[tuple[np.ndarray, np.ndarray]], skin: Skin, focal: float,
    principal: np.ndarray, opacity: float,
) -> np.ndarray:  # fmt: skip
    """`image` with meshes over it: of each person vertices (V, 3) in the camera's frame and colours of the copies."""
    from wholebody.drawing.raster import Light, Mesh, draw_meshes, vertex_normals

    light = Light(direction_cam=(-0.45, -0.65, -0.62), ambient=(0.34, 0.35, 0.38), directional=(0.78, 0.76, 0.72))
    out = image.copy()
    windows = [covered_window(vertices, np.full(2, focal), principal, image.shape[:2]) for vertices, _ in people]
    for members, (x0, y0, x1, y1) in together([(n, window) for n, window in enumerate(windows) if window]):
        meshes = []
        for n in members:
            vertices, colors = people[n]
            normals = vertex_normals(np.ascontiguousarray(vertices, np.float32), skin.faces)
            meshes.append(Mesh(vertices[skin.vertex], skin.split_faces, colors, normals[skin.vertex]))
        corner = principal - [x0, y0]
        drawing = draw_meshes(meshes, focal, corner.tolist(), (y1 - y0, x1 - x0), light=light, samples=2)
        distance = float(np.median([np.median(people[n][0][:, 2]) for n in members]))
        edge = outline(drawing.depth, distance)
        part = out[y0:y1, x0:x1]
        alpha = drawing.rgba[..., 3] * (opacity + (1 - opacity) * edge)  # the outline itself is not seen through
        color = drawing.rgba[..., :3] * (255 * (1 - (1 - _OUTLINE) * edge))[..., None]
        part[:] = (part + (color - part) * alpha[..., None] + 0.5).astype(np.uint8)
    return out


class Player:
    """One person's meshes, posed some frames at a time as the film goes on."""

    def __init__(self, motion: Motion, body: BodyModel) -> None:
        self.motion = motion
        self._chunks: Iterator[tuple[slice, np.ndarray, np.ndarray]] = posed_in_camera(motion, body, _CHUNK)
        self._rows, self._vertices = slice(0, 0), np.empty((0, 0, 3))

    def at(self, number: int) -> tuple[int, np.ndarray] | None:
        """Of a frame of the film the row in `motion`, and (V, 3) in the camera's frame; None if the person is not
        there. Frames must come in ascending order."""
        row = int(np.searchsorted(self.motion.frames, number))
        if row >= len(self.motion.frames) or self.motion.frames[row] != number:
            return None
        while row >= self._rows.stop:
            self._rows, self._vertices, _ = next(self._chunks)
        return row, self._vertices[row - self._rows.start]
