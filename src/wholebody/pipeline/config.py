"""What `predict`, `convert` and `annotate` are asked for. Their fields are the commands' options."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wholebody.body import RIGS
from wholebody.errors import BadInput
from wholebody.options import BatchSize, Device, comma_separated, positional
from wholebody.output import FILM_KINDS, KINDS, SMPLER_X
from wholebody.people import MIN_QUALITY

MANY = 50
"""From so many pictures on, meshes are written only where they are asked for."""
PRECISIONS = ("auto", "fp32", "bf16")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `wholebody predict` is asked for."""

    inputs: Annotated[tuple[str, ...], positional("INPUT")] = field(kw_only=False)
    """pictures, films, folders of them, or globs; with --fps a folder of numbered pictures is a film"""
    out: Path
    """folder for the results; made if missing"""
    model: str = "t"
    """an embedded name (t), a .safetensors checkpoint, a published .pth.tar, or a graph of `export` (.onnx)"""
    body: str | None = None
    """open (embedded), or a file or folder with SMPL-X; if not given, what the model needs"""
    any_gender: bool = False
    """take a body of another gender than the model was trained for"""
    boxes: str | None = None
    """JSON with person boxes (COCO detections, or boxes by picture name), or `whole`: one person fills the picture; if
    not given, the detector finds them"""
    detector: str = "movenet"
    """movenet (embedded), rfdetr (if installed), or whole"""
    parts: Annotated[tuple[str, ...], comma_separated()] = ("body", "hands", "face")
    """what the embedded landmarkers look at of each person (model t): some of body,hands,face, or none"""
    gender: str | None = None
    """female or male: of everybody in the pictures, where you know (model t)"""
    height: float | None = None
    """metres: of everybody in the pictures, where you know (model t)"""
    device: Device = "auto"
    batch_size: BatchSize = None
    precision: str = "fp32"
    """of the network's encoder: fp32 (exact), bf16 (faster where the device computes in it), or auto: bf16 there"""
    compile: bool = False
    """compile the network's encoder: up to a minute the first time, seconds at later starts; for many pictures"""
    as_body: Annotated[str | None, Parameter(name="--as")] = None
    """write the parameters as another body's too: smplx, smpl or smplh, whose file is given by --body; open, of a model
    whose own body is given by --body; or anny (needs the package)"""
    save: Annotated[tuple[str, ...], comma_separated()] = ()
    """what to write. Of pictures (time and size for one person on one core): overlay 60 ms, 0.1 MB; npz 4 ms, 6 kB; obj
    20 ms, 1.8 MB; ply 10 ms, 0.7 MB; glb 14 ms, 0.7 MB; scene (everybody, rigged) 130 ms, 2 MB; json 2 ms, 3 kB. Of
    films glb,bvh,npz,json,mot,overlay,html. All if not given, but no meshes (obj, ply, glb, scene) from 50 pictures on,
    and the .json always. smpler-x: of both, the files that SMPLer-X's script writes"""
    refine: str | None = None
    """fit the bodies to 2D keypoints: `--refine=FILE` in COCO or COCO-WholeBody form, `--refine=mediapipe` (if
    installed), `--refine=movenet` (embedded); `--refine` alone takes the best of these two"""
    opacity: float = 0.9
    """of the mesh over the photo, 0 to 1"""
    resume: bool = False
    """skip what an earlier run finished, unless it or the files of the options changed since; go on with a film where
    it stopped"""
    overwrite: bool = False
    """write over files in the output folder that wholebody did not write, or that were changed since"""
    start: float | None = None
    """films: seconds from the beginning"""
    end: float | None = None
    """films: seconds from the beginning"""
    fps: float | None = None
    """films: look at no more frames a second than these; folders: the rate at which their frames were taken"""
    max_people: int | None = None
    """films: only so many people, those who are seen longest and largest"""
    camera: str = "auto"
    """films: still, moving (its turning is taken out), or auto: as the background says"""
    smooth: str = "light"
    """films: none, light or strong"""
    family: str | None = None
    """of a published model: osx, smpler_x or smplest_x; if not given, its tensors tell, else its name"""
    box_scale: float | None = None
    """how much a person's box is enlarged before it is cropped; if not given, as the model was trained (OSX 1.25,
    SMPLer-X and SMPLest-X 1.2)"""
    focal: float | None = None
    """focal length in pixels; if not given: --fov, else a photo's EXIF, else the picture's diagonal"""
    fov: float | None = None
    """field of view across the longer side, in degrees"""
    look: str = "clothed"
    """of drawn bodies: clothed or mannequin"""
    rig: str = "smplx"
    """whose names the joints of .glb and .bvh have: smplx, mixamo or unity"""

    def __post_init__(self) -> None:
        known = (*KINDS, *(kind for kind in FILM_KINDS if kind not in KINDS), SMPLER_X)
        unknown = [kind for kind in self.save if kind not in known]
        if unknown:
            raise BadInput(f"--save {','.join(unknown)} is unknown; known: {', '.join(known)}.")
        for name, choices in (
            ("camera", ("auto", "still", "moving")),
            ("smooth", ("none", "light", "strong")),
            ("look", ("clothed", "mannequin")),
            ("rig", RIGS),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise BadInput(f"--{name} is {getattr(self, name)!r}; known: {', '.join(choices)}.")
        if self.as_body is not None:
            if self.as_body not in ("open", "smpl", "smplh", "smplx", "anny"):
                raise BadInput(f"--as {self.as_body}: known are open, smpl, smplh, smplx, anny.")
            if self.as_body == "anny":
                from wholebody.body.makehuman import check_package

                check_package()
            elif self.body is None:
                raise BadInput(f"--as {self.as_body} needs --body: the licensed file, or the folder that it is in.")
            if self.save and "npz" not in self.save:
                raise BadInput(f"--as {self.as_body} converts the .npz files: name npz in --save.")
        if not set(self.parts) <= {"body", "hands", "face"} and self.parts != ("none",):
            raise BadInput(f"--parts is {','.join(self.parts)}; known: body,hands,face, or none.")
        if self.gender not in (None, "female", "male"):
            raise BadInput(f"--gender is {self.gender!r}; known: female, male.")
        if self.height is not None and not 0.4 <= self.height <= 2.6:
            raise BadInput(f"--height is {self.height:g}; give metres, from 0.4 to 2.6.")
        if self.max_people is not None and self.max_people < 1:
            raise BadInput(f"--max-people is {self.max_people}; it must be at least 1.")
        if not 0 <= self.opacity <= 1:
            raise BadInput(f"--opacity is {self.opacity:g}; it must be from 0 to 1.")
        if self.batch_size is not None and self.batch_size < 1:
            raise BadInput(f"--batch-size is {self.batch_size}; it must be at least 1.")
        if self.boxes is not None and self.detector not in ("movenet", self.boxes):
            raise BadInput(
                f"--boxes {self.boxes} and --detector {self.detector} contradict each other: with boxes given, nobody "
                "asks a detector. Leave one of them out."
            )

    @property
    def looked_at(self) -> tuple[str, ...]:
        """The parts that landmarkers look at."""
        return () if self.parts == ("none",) else self.parts

    @property
    def smpler_x(self) -> bool:
        """Whether the files that SMPLer-X's script writes are asked for."""
        return SMPLER_X in self.save

    @property
    def kinds(self) -> tuple[str, ...]:
        """What to write of a picture."""
        return tuple(kind for kind in self.save if kind in KINDS) if self.save else KINDS

    def kinds_of(self, pictures: int) -> tuple[str, ...]:
        """What to write of so many pictures: of many no meshes, unless they are asked for."""
        if self.save or pictures < MANY:
            return self.kinds
        from wholebody.files.mesh import MESHES  # imports numpy, which reading a command line has no need of

        return tuple(kind for kind in KINDS if kind not in (*MESHES, "scene"))

    @property
    def film_kinds(self) -> tuple[str, ...]:
        """What to write of a film."""
        asked = tuple(kind for kind in self.save if kind in FILM_KINDS) if self.save else FILM_KINDS
        return asked if "json" in asked else (*asked, "json")


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """What `wholebody convert` is asked for."""

    results: Annotated[tuple[str, ...], positional("RESULT")] = field(kw_only=False)
    """person files (.npz) of photos or films, tables (.parquet), labels (annotations/SPLIT_smplx.json), or folders of
    person files or tables"""
    to: str
    """open, smpl, smplh, smplx or anny (the package's own parameters); or the body file itself (.npz or .pkl)"""
    out: Path
    """folder for the converted files; made if missing"""
    body: str | None = None
    """file or folder with the body that `--to` names, where it is a licensed one"""
    source: str | None = None
    """file or folder with the body that the results are of; needed unless it is the open body"""
    gender: str = "neutral"
    """of the body that is looked for in a folder"""
    transfer: str | None = None
    """the official transfer file between the two bodies (smplx2smpl_deftrafo_setup.pkl, ...), where you have it; if not
    given, their surfaces are matched here"""
    overwrite: bool = False
    """write over files that are not ours, or that were changed since"""


@dataclass(frozen=True, kw_only=True)
class AnnotateConfig:
    """What `wholebody annotate` is asked for."""

    folder: Annotated[Path, positional("DIR")] = field(kw_only=False)
    """holds `images`; gets `annotations`, see docs/fitting.md"""
    keypoints: str = "auto"
    """a file in COCO or COCO-WholeBody form, `mediapipe` (if installed), `movenet` (embedded), or `auto`: the better of
    these two"""
    split: str = "train"
    """train, val or test"""
    detector: str = "movenet"
    """without a file: movenet, rfdetr or whole"""
    model: str = "t"
    """as for predict"""
    body: str | None = None
    """as for predict"""
    any_gender: bool = False
    """as for predict"""
    family: str | None = None
    """as for predict"""
    box_scale: float | None = None
    """as for predict"""
    device: Device = "auto"
    min_quality: float = MIN_QUALITY
    """parameters of people from this quality on"""
    overwrite: bool = False
    """write over annotations that `annotate` did not write, or that were changed since"""

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise BadInput(f"--split is {self.split!r}; choose one of {', '.join(SPLITS)}.")
        if not 0 <= self.min_quality <= 1:
            raise BadInput(f"--min-quality is {self.min_quality:g}; it must be from 0 to 1.")
