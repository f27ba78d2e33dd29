"""One picture or film at a time with networks that stay loaded: what a server does, and whoever has many small jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from wholebody.errors import BadInput
from wholebody.files.image import Source, read_image
from wholebody.files.video import is_film, open_film
from wholebody.output import FILM_KINDS, files
from wholebody.pipeline.config import PredictConfig
from wholebody.pipeline.film import Progress, predict_film
from wholebody.pipeline.predict import conventions, load_predictor, photo

_PHOTO_KINDS = ("overlay", "npz", "json")


class Single:
    """`Single(config)(path, out)` writes what comes of one file; `config` says how, its inputs and `out` are not used.

    Of a film all kinds of `output.FILM_KINDS`; of a photo the overlay, parameters and keypoints, and one `NAME.glb` and
    page `NAME.html` with everybody where they stood.
    """

    def __init__(self, config: PredictConfig, max_seconds: float | None = None) -> None:
        self._config, self._max_seconds = config, max_seconds
        self._predictor = load_predictor(config)

    def __call__(
        self, path: Path, out: Path, *, look: str = "clothed", say: Callable[[str], None] = print,
        progress: Callable[[int, int | None], None] = lambda done, of: None,
    ) -> list[Path]:  # fmt: skip
        """The files, the page first. Raises WholebodyError with what the user can do."""
        config = dataclasses.replace(self._config, inputs=(str(path),), out=out, look=look)
        written = self._film(config, path, say, progress) if is_film(path) else self._photo(config, path, say)
        return sorted(written, key=lambda file: file.suffix != ".html")

    def _film(self, config: PredictConfig, path: Path, say: Callable[[str], None], progress: Progress) -> list[Path]:
        film = open_film(path)
        if self._max_seconds is not None and (film.expected or 0) / film.rate > self._max_seconds:
            raise BadInput(
                f"The film lasts {(film.expected or 0) / film.rate:.0f} seconds; this server takes at most "
                f"{self._max_seconds:g}. Cut it, and send the part that matters."
            )
        config = dataclasses.replace(config, save=FILM_KINDS, end=self._max_seconds)  # lengths in files may be wrong
        about = conventions(self._predictor.model, None)
        result, written = predict_film(
            config, Source(path, path.stem), self._predictor, about, say, progress=progress
        )  # fmt: skip
        if not result.scene.people:
            raise BadInput("Nobody was found in this film.")
        return written

    def _photo(self, config: PredictConfig, path: Path, say: Callable[[str], None]) -> list[Path]:
        from wholebody.output.glb import write_glb
        from wholebody.output.page import write_page

        notes: list[str] = []
        image = read_image(path, notes)
        for note in notes:
            say(note)
        people = self._predictor(image)
        if not people:
            raise BadInput("Nobody was found in this picture.")
        body = self._predictor.model.body
        about = conventions(self._predictor.model, image.shape[:2])
        written = files.write_results(
            config.out, path.stem, image, people, faces=body.faces.cpu().numpy(), conventions=about, save=_PHOTO_KINDS,
            image_id=path.stem,
        )  # fmt: skip
        scene = photo(people, body, image.shape[:2], config, path)
        written.append(write_glb(config.out / f"{path.stem}.glb", scene, body, look=config.look, rig=config.rig))
        page = config.out / f"{path.stem}.html"
        return [*written, write_page(page, scene, body, picture=image, look=config.look)]
