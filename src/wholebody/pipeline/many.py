"""`wholebody predict --engine ...`: what a worker of `scale` does with pictures and films, and the rows of it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wholebody import __version__
from wholebody.errors import BadInput, OutputError, WholebodyError
from wholebody.files.image import Source, decode_image
from wholebody.files.reading import sha256_of
from wholebody.files.storage import fetch, read_any
from wholebody.output import FILM_KINDS
from wholebody.people.detect import BoxFile, check_boxes, make_detector
from wholebody.people.detections import Detections
from wholebody.pipeline.config import PredictConfig
from wholebody.pipeline.predict import conventions, load_predictor, option_files_of
from wholebody.pipeline.record import hash_of, shortened

_PIXELS = 24_000_000  # of pictures that are held at a time
_OVERLAY_SIDE = 480  # pixels
CHUNK = 8
"""Pictures that are asked for together: enough people to fill a network's batch on a CPU, few to lose to a crash."""


class Asked(Protocol):
    """A picture or film; see `scale.shard.Request`, which a room of the same floor must not import."""

    shard: int
    row: int
    source: str
    kind: str
    boxes: tuple[tuple[float, ...], ...] | None
    place: tuple[str, int, int] | None
    overlay: bool
    scratch: str


@dataclass(frozen=True)
class PicturesWork:
    """Opened in a process of its own, it answers lists of requests; `answer` makes what the rows travel home in
    (`scale.shard.Answer`)."""

    config: PredictConfig
    answer: Callable[..., Any]
    chunk: int = CHUNK

    def schema(self) -> Any:
        from wholebody.output.table import people_schema

        return people_schema()

    def open(self) -> Callable[[Any], Any]:
        return _Pictures(self.config, self.answer)


def check_for_many(config: PredictConfig) -> None:
    """Raise BadInput for options that make no sense for many pictures, and where a needed package is missing."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise BadInput("--engine writes Parquet by pyarrow: pip install '.[scale]'.") from None
    if config.as_body is not None:
        raise BadInput(f"--as {config.as_body} is not done with --engine; `wholebody convert` does it after.")
    if config.refine is not None:
        raise BadInput("--refine is not done with --engine; run it on the pictures that matter.")
    only_pictures = [kind for kind in config.save if kind not in FILM_KINDS]
    if only_pictures:
        raise BadInput(
            f"--save {','.join(only_pictures)} writes files for each picture; with --engine pictures become rows of "
            f"Parquet. Of films these can be had beside their motion: {', '.join(FILM_KINDS)}."
        )
    if config.boxes is not None and config.boxes != "whole":
        BoxFile(config.boxes)
    option_files_of(config)


def options_of(config: PredictConfig) -> dict[str, Any]:
    """All that the numbers of a job depend on, the content of files included."""
    apart = ("inputs", "out", "resume", "overwrite", "device", "opacity")
    names = [field.name for field in dataclasses.fields(config) if field.name not in apart]
    options = {name: getattr(config, name) for name in names}
    files = {option: hash_of(path)[:16] for option, path in option_files_of(config).items()}
    return options | {"files": files}


class _Pictures:
    """The loaded network, and what it says of pictures and films."""

    def __init__(self, config: PredictConfig, answer: Callable[..., Any]) -> None:
        self._config, self._answer = config, answer
        self._predictor = load_predictor(config)
        self._box_file = BoxFile(config.boxes) if config.boxes not in (None, "whole") else None
        detector = "whole" if config.boxes == "whole" else config.detector
        self._detector = None if self._box_file else make_detector(detector)

    def __call__(self, asked: Sequence[Asked] | None) -> Any:
        if asked is None:
            return self._about
        if len(asked) == 1 and asked[0].kind == "film":
            return [self._steadily(asked[0], self._film)]
        answers: dict[int, Any] = {}
        group: list[tuple[Asked, str, np.ndarray, Detections]] = []
        for one in asked:
            try:
                group.append((one, *self._read(one)))
            except Exception as error:
                answers[one.row] = self._bad(error, one)
                continue
            if sum(image.shape[0] * image.shape[1] for _, _, image, _ in group) > _PIXELS:
                answers |= self._predicted(group)
                group = []
        answers |= self._predicted(group)
        return [answers[one.row] for one in asked]

    def _read(self, one: Asked) -> tuple[str, np.ndarray, Detections]:
        """Hash of the file, the picture, and where its people are."""
        if one.place is not None:
            path, offset, size = one.place
            with open(path, "rb") as file:
                file.seek(offset)
                data = file.read(size)
            if len(data) != size:
                raise BadInput("its tar ends before it")
        else:
            data = read_any(one.source)
        image = decode_image(data, one.source, [])
        found = self._found(one, image)
        return hashlib.sha256(data).hexdigest(), image, found

    def _found(self, one: Asked, image: np.ndarray) -> Detections:
        if one.boxes is not None:
            boxes = check_boxes([box[:4] for box in one.boxes], image.shape[:2])
            scores = np.array([box[4] if len(box) > 4 else 1.0 for box in one.boxes])
            return Detections(boxes, scores)
        if self._box_file is not None:
            return self._box_file(Path(one.source.rpartition("::")[2]), image.shape[:2])
        assert self._detector is not None
        return self._detector(image)

    def _predicted(self, group: Sequence[tuple[Asked, str, np.ndarray, Detections]]) -> dict[int, Any]:
        if not group:
            return {}
        try:
            people = self._predictor.predict_many([row[2] for row in group], [row[3] for row in group])
        except Exception as error:
            if len(group) == 1:
                return {group[0][0].row: self._bad(error, group[0][0])}
            return {row: answer for one in group for row, answer in self._predicted([one]).items()}
        answers = {}
        for (one, content, image, _), found in zip(group, people, strict=True):
            answers[one.row] = self._steadily(one, partial(self._row, people=found, image=image, content=content))
        return answers

    def _row(self, one: Asked, people: list[Any], image: np.ndarray, content: str) -> Any:
        from wholebody.output.table import people_rows

        for person in people:
            if not all(np.isfinite(value).all() for value in person.numbers().values()):
                raise WholebodyError("the network gave numbers that are not finite")
        height, width = image.shape[:2]
        return self._answer(
            status="ok" if people else "nobody",
            people=people_rows(people, (height, width), self._made_by) if people else None,
            count=len(people), width=width, height=height, content=content,
            overlay=self._overlay(image, people) if one.overlay else b"",
        )  # fmt: skip

    def _film(self, one: Asked) -> Any:
        from wholebody.output.table import motion_rows, table_bytes
        from wholebody.pipeline.film import predict_film, watch_film

        scratch = Path(one.scratch)
        path = fetch(one.source, scratch)
        config = dataclasses.replace(self._config, inputs=(str(path),), out=scratch / "film", resume=True)
        name = f"{one.shard:06d}-{shortened(Path(one.source).stem)}"
        content = sha256_of(path)
        files: dict[str, Path] = {}
        if config.save:
            result, written = predict_film(config, Source(path, name), self._predictor, self._about, lambda text: None)
            files |= {f"films/{file.name}": file for file in written}
        else:
            result = watch_film(config, path, name, self._predictor)
        scene = result.scene
        table = motion_rows(scene, one.source, content, self._made_by)
        place = scratch / "motion.parquet"
        more = {"fps": scene.fps, "floor": scene.floor, "notes": list(scene.notes)}
        place.write_bytes(table_bytes(table, self._about | more))
        files[f"motions/{name}.parquet"] = place
        width, height = scene.camera.image_wh
        return self._answer(
            status="ok" if scene.people else "nobody", count=len(scene.people), width=width, height=height,
            content=content, files=files,
        )  # fmt: skip

    def _steadily(self, one: Asked, act: Callable[[Asked], Any]) -> Any:
        try:
            return act(one)
        except Exception as error:
            return self._bad(error, one)

    def _bad(self, error: Exception, one: Asked) -> Any:
        if isinstance(error, OutputError):  # the disk of this machine, not the picture
            raise error
        known = isinstance(error, WholebodyError)
        reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        if isinstance(error, MemoryError):
            reason = "does not fit into memory"
        return self._answer(status="bad", reason=reason)

    def _overlay(self, image: np.ndarray, people: list[Any]) -> bytes:
        from PIL import Image

        from wholebody.output.overlay import draw_overlay

        picture = Image.fromarray(draw_overlay(image, people, self._faces) if people else image)
        picture.thumbnail((2 * _OVERLAY_SIDE, _OVERLAY_SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        return buffer.getvalue()

    @cached_property
    def _faces(self) -> np.ndarray:
        faces: np.ndarray = self._predictor.model.body.faces.cpu().numpy()
        return faces

    @cached_property
    def _about(self) -> dict[str, Any]:
        return conventions(self._predictor.model, None)

    @cached_property
    def _made_by(self) -> dict[str, Any]:
        names = ("model", "body", "gender", "flat_hand_mean")
        return {name: self._about[name] for name in names} | {"version": __version__}
