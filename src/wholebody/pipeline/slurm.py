"""Films on a Slurm cluster, as SMPLer-X's `slurm_inference.sh` takes them."""

from __future__ import annotations

import shutil
from pathlib import Path

from wholebody.errors import BadInput
from wholebody.pipeline.config import PredictConfig
from wholebody.training.slurm import SlurmConfig, Submitted, listening, submit

DEFAULT = SlurmConfig()
VIDEO_FOLDERS = (".", "demo/videos", "../demo/videos")
CHECKPOINT_FOLDERS = (".", "pretrained_models", "../pretrained_models")
BODY_FOLDERS = ("human_model_files", "common/utils/human_model_files", "../common/utils/human_model_files",
                "human_models/human_model_files", "../human_models/human_model_files")  # fmt: skip
"""Where films, networks and bodies are looked for: here, and as the published repositories have them."""


def submit_inference(
    video: str, format: str, fps: float, checkpoint: str, body: str | None = None, out: str | Path | None = None,
    max_people: int | None = None, config: SlurmConfig = DEFAULT,
) -> Submitted:  # fmt: skip
    """Queue the prediction of the film VIDEO.FORMAT, looked at `fps` times a second.

    Results lie in `out`, else in demo/results/VIDEO beside demo/videos: `smplx`, `meta`, `mesh`, `img`, and beside it
    VIDEO.mp4, the film with everybody over it. Raises BadInput for a film, network or body that is not there.
    """
    film = _find(f"{video}.{format.removeprefix('.')}", VIDEO_FOLDERS, "film")
    if not fps > 0:
        raise BadInput(f"FPS is {fps:g}; it must be more than 0")
    model = find_checkpoint(checkpoint)
    body = body or _body_for(model)
    name = film.stem
    base = film.parent.parent if film.parent.name == "videos" else Path("demo")
    folder = Path(out or base / "results" / name).absolute()
    asked = PredictConfig(
        (str(film.absolute()),), out=folder, model=model, body=body, fps=fps, save=("smpler-x", "overlay"),
        max_people=max_people, resume=True,
    )  # fmt: skip
    return submit(f"inference_{name}", 1, 1, (inference_job, asked, str(folder.with_suffix(".mp4"))), folder, config)


def find_checkpoint(name: str) -> str:
    """The network of a name as SMPLer-X's scripts take it: `smpler_x_h32` is pretrained_models/smpler_x_h32.pth.tar."""
    from wholebody.model.load import EMBEDDED

    if name in EMBEDDED:
        return name
    endings = ("", ".pth.tar", ".safetensors", f"/{Path(name).name}.pth.tar")
    for folder in CHECKPOINT_FOLDERS:
        for ending in endings:
            if (path := Path(folder) / f"{name}{ending}").is_file():
                return str(path.absolute())
    raise BadInput(
        f"there is no network {name!r}: neither a file, nor {name}.pth.tar in {', '.join(CHECKPOINT_FOLDERS[1:])}, "
        f"nor an embedded name ({', '.join(EMBEDDED)})"
    )


def _body_for(model: str) -> str | None:
    """The folder with SMPL-X, where the published repositories keep it; None for a network that needs none."""
    from wholebody.model.load import EMBEDDED

    if model in EMBEDDED:
        return None
    return next((str(Path(folder).absolute()) for folder in BODY_FOLDERS if Path(folder).is_dir()), None)


def _find(name: str, folders: tuple[str, ...], what: str) -> Path:
    for folder in folders:
        if (path := Path(folder) / name).is_file():
            return path
    raise BadInput(f"there is no {what} {name!r}, here or in {', '.join(folders[1:])}")


def inference_job(config: PredictConfig, film: str) -> None:
    """What the process of a job that predicts a film does."""
    with listening():
        from wholebody.files.whole import write_whole
        from wholebody.output.film import film_path
        from wholebody.pipeline.predict import predict_files

        summary = predict_files(config)
        if summary.problems:
            raise BadInput("; ".join(summary.problems))
        overlay = film_path(config.out, Path(config.inputs[0]).stem, "overlay")
        if overlay.is_file():
            write_whole(Path(film), lambda part: shutil.copyfile(overlay, part))
