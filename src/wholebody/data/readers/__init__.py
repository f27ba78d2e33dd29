"""The sets that can be read: one thin module each, and what a user needs to know to get the files.

    for sample in READERS["MSCOCO"].read(Path("dataset/MSCOCO"), "train"):
        ...

A reader translates a set's files to `Sample`s and does nothing else: no picture is opened, nobody is left out whom the
set counts as a usable person. Modules are imported when they are used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholebody.data.family import FAMILY_SETS, FILES_SOURCE, FamilySet, file_of, home_of
from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.files.text import offer


@dataclass(frozen=True)
class ReaderInfo:
    """One set: where its files come from and which they are."""

    name: str
    """Its name here, and its folder's in `dataset/`."""
    title: str
    module: str
    """`wholebody.data.readers.<module>` has `SPLITS` and `read`."""
    splits: tuple[str, ...]
    source: str
    """Where a user obtains the files."""
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Per split what must be there: paths in the set's folder; a `*` stands for any name, `A|B` for either."""
    pictures: str = ""
    """What the user does, beyond downloading, to have the pictures in place; "" if nothing."""
    licence: str = ""
    upright: bool = False
    """Annotations count the pixels of a picture as its EXIF tag turns it; False: as they are stored in its file."""
    own_mesh_frame: bool = False
    """The set's meshes do not lie in the camera's frame: its module's `camera_from_mesh` takes their vertices there."""

    def read(self, root: str | Path, split: str, **options: Any) -> Iterator[Sample]:
        """The people of one split of the set whose folder is `root`."""
        if split not in self.splits:
            raise BadInput(f"{self.name} has no split {split!r}: use one of {', '.join(self.splits)}")
        return self.load().read(Path(root), split, **options)

    def load(self) -> Any:
        """The reader's module."""
        return importlib.import_module(f"wholebody.data.readers.{self.module}")

    def home(self, root: Path) -> Path | None:
        """The set's own folder in the one with all sets; None if there is none."""
        return root / self.name if (root / self.name).is_dir() else None

    def missing(self, folder: Path, split: str) -> list[str]:
        """Of the set's own folder: which of `files` are not there, for one split."""
        return [pattern for pattern in self.files.get(split, ()) if not found(folder, pattern)]

    def is_there(self, root: Path, split: str) -> bool:
        """The annotation files of a split are there, in the folder with all sets; pictures may come later."""
        folder = self.home(root)
        return folder is not None and not any(
            all(Path(name).suffix in (".json", ".npz") for name in pattern.split("|"))
            for pattern in self.missing(folder, split)
        )

    def counts(self, folder: Path) -> str:
        """What the reader's option `every` counts: "row" of a file, "annotation" of a scene, "" where it has none."""
        return {"ubody": "annotation", "humandata": "row"}.get(self.module, "")


@dataclass(frozen=True)
class FamilyReaderInfo(ReaderInfo):
    """A set of SMPLer-X and SMPLest-X in HumanData files; what it needs stands in `family.FAMILY_SETS`."""

    def load(self) -> Any:
        """What reads this set: `SPLITS` and `read` as a reader's module has them."""
        humandata = importlib.import_module("wholebody.data.readers.humandata")
        return humandata.SetReader(FAMILY_SETS[self.name])

    def home(self, root: Path) -> Path | None:
        return home_of(root, FAMILY_SETS[self.name])

    def missing(self, folder: Path, split: str) -> list[str]:
        return [name for name in FAMILY_SETS[self.name].files[split] if file_of(folder, name) is None]


@dataclass(frozen=True)
class EitherFormInfo(FamilyReaderInfo):
    """A set that OSX's users have in COCO form, SMPLer-X's in HumanData files: these are read where there are any."""

    def read(self, root: str | Path, split: str, **options: Any) -> Iterator[Sample]:
        if split in self.splits and self._humandata(Path(root), split):
            return super().load().read(Path(root), split, **options)
        return super().read(root, split, **options)

    def load(self) -> Any:
        return ReaderInfo.load(self)

    def home(self, root: Path) -> Path | None:
        return ReaderInfo.home(self, root) or super().home(root)

    def missing(self, folder: Path, split: str) -> list[str]:
        return (
            super().missing(folder, split)
            if self._humandata(folder, split)
            else ReaderInfo.missing(self, folder, split)
        )

    def counts(self, folder: Path) -> str:
        return "row" if any(self._humandata(folder, split) for split in self.splits) else super().counts(folder)

    def _humandata(self, folder: Path, split: str) -> bool:
        return len(super().missing(folder, split)) < len(FAMILY_SETS[self.name].files[split])


def found(root: Path, pattern: str) -> list[Path]:
    """What there is in a folder of a pattern of `ReaderInfo.files`."""
    return sorted(path for either in pattern.split("|") for path in root.glob(either))


_RESEARCH = "for non-commercial research only; read the set's own terms"
_PARSED = 'the links in the published OSX README ("Data"), '

_ALL = (
    ReaderInfo(
        name="AGORA",
        title="AGORA",
        module="agora",
        splits=("train", "validation", "test"),
        source="register at https://agora.is.tue.mpg.de for the pictures; " + _PARSED + "parsed data",
        files={
            "train": (
                "data/AGORA_train_fix_betas.json|data/AGORA_train_fix_global_orient_transl.json|data/AGORA_train.json",
                "data/1280x720|data/3840x2160",
            ),
            "validation": (
                "data/AGORA_validation_fix_betas.json|data/AGORA_validation_fix_global_orient_transl.json|"
                "data/AGORA_validation.json",
                "data/1280x720|data/3840x2160",
            ),
            "test": ("data/AGORA_test_bbox.json", "data/1280x720/test|data/test|data/3840x2160"),
        },
        pictures="people cropped from the 3840x2160 pictures: `wholebody data agora-crops`",
        licence=_RESEARCH,
    ),
    ReaderInfo(
        name="EHF",
        title="EHF (Expressive Hands and Faces)",
        module="ehf",
        splits=("test",),
        source="register at https://smpl-x.is.tue.mpg.de for the pictures and meshes; " + _PARSED + "EHF.json",
        files={"test": ("data/EHF.json", "data/*_img.jpg|data/*_img.png", "data/*_align.ply|data/*_align.obj")},
        own_mesh_frame=True,
        licence=_RESEARCH,
    ),
    ReaderInfo(
        name="Human36M",
        title="Human3.6M",
        module="human36m",
        splits=("train", "test"),
        source="register at http://vision.imar.ro/human3.6m for the pictures; "
        + _PARSED
        + "parsed data and SMPL-X parameters from NeuralAnnot",
        files={
            split: tuple(
                f"annotations/Human36M_subject{subject}_{what}.json"
                for subject in subjects
                for what in ("data", "camera", "joint_3d", "SMPLX_NeuralAnnot")
            )
            + ("images",)
            for split, subjects in {"train": (1, 5, 6, 7, 8), "test": (9, 11)}.items()
        },
        licence=_RESEARCH,
    ),
    ReaderInfo(
        name="MPII",
        title="MPII Human Pose",
        module="mpii",
        splits=("train",),
        source="http://human-pose.mpi-inf.mpg.de for the pictures; "
        + _PARSED
        + "parsed data and SMPL-X parameters from NeuralAnnot",
        files={
            "train": (
                "data/annotations/train.json",
                "data/annotations/MPII_train_SMPLX_NeuralAnnot.json",
                "data/images",
            )
        },
        licence=_RESEARCH,
    ),
    EitherFormInfo(
        name="MPI_INF_3DHP",
        title="MPI-INF-3DHP",
        module="mpi_inf_3dhp",
        splits=("train",),
        source="https://vcai.mpi-inf.mpg.de/3dhp-dataset for the videos; "
        + _PARSED
        + "parsed data (images_1k) and parameters from NeuralAnnot",
        files={
            "train": (
                "data/MPI-INF-3DHP_1k.json",
                "data/MPI-INF-3DHP_camera_1k.json",
                "data/MPI-INF-3DHP_joint_3d.json",
                "data/MPI-INF-3DHP_SMPLX_NeuralAnnot.json|data/MPI-INF-3DHP_SMPL_NeuralAnnot.json",
                "data/images_1k",
            )
        },
        licence=_RESEARCH,
    ),
    ReaderInfo(
        name="MSCOCO",
        title="MSCOCO 2017 with COCO-WholeBody",
        module="mscoco",
        splits=("train", "val"),
        source="https://cocodataset.org for the pictures (2017 train and val), "
        "https://github.com/jin-s13/COCO-WholeBody for the annotations; "
        + _PARSED
        + "SMPL-X parameters from NeuralAnnot (MSCOCO_train_SMPLX.json)",
        files={
            "train": (
                "annotations/coco_wholebody_train_v1.0.json",
                "annotations/MSCOCO_train_SMPLX.json",
                "images/train2017",
            ),
            "val": ("annotations/coco_wholebody_val_v1.0.json", "images/val2017"),
        },
        licence="annotations CC BY 4.0 (COCO) and non-commercial (COCO-WholeBody); pictures under Flickr's terms",
    ),
    ReaderInfo(
        name="PW3D",
        title="3DPW (3D Poses in the Wild)",
        module="pw3d",
        splits=("train", "validation", "test"),
        source="https://virtualhumans.mpi-inf.mpg.de/3DPW for the pictures; " + _PARSED + "parsed data",
        files={
            split: (f"data/3DPW_{split}.json", "imageFiles|data/imageFiles")
            for split in ("train", "validation", "test")
        },
        licence=_RESEARCH,
    ),
    ReaderInfo(
        name="UBody",
        title="UBody",
        module="ubody",
        splits=("train", "test", "inter_train", "inter_test"),
        source="the form linked at https://osx-ubody.github.io",
        files={
            split: (
                "annotations/*/keypoint_annotation.json",
                "annotations/*/smplx_annotation.json",
                "images/*",
                f"splits/{'inter' if 'inter' in split else 'intra'}_scene_test_list.npy",
            )
            for split in ("train", "test", "inter_train", "inter_test")
        },
        pictures="pictures from the videos: `wholebody data ubody-frames`",
        licence=_RESEARCH,
    ),
    ReaderInfo(
        name="HumanData",
        title="HumanData (.npz of MMHuman3D and SMPLer-X)",
        module="humandata",
        splits=("train", "test"),
        source="https://github.com/open-mmlab/mmhuman3d and the SMPLer-X repository's data page",
        files=dict.fromkeys(("train", "test"), ("*.npz|preprocessed_datasets/*.npz",)),
        licence="that of the set that each file was made from",
    ),
    ReaderInfo(
        name="Own",
        title="your own pictures in COCO format",
        module="own",
        splits=("train", "val", "test"),
        source="your own files, made as docs/own-data.md says",
        files={split: (f"annotations/{split}.json", "images") for split in ("train", "val", "test")},
        licence="yours",
        upright=True,
    ),
)


def _in_humandata(one: FamilySet) -> ReaderInfo:
    return FamilyReaderInfo(
        name=one.name,
        title=one.title,
        module="humandata",
        splits=tuple(one.files),
        source=f"{one.source} for the pictures, into {one.home}; {FILES_SOURCE}, into preprocessed_datasets beside it",
        files=one.files,
        licence=_RESEARCH,
    )


_NAMES = {info.name for info in _ALL}
_FAMILY = tuple(
    _in_humandata(one) for one in FAMILY_SETS.values() if one.form == "humandata" and one.name not in _NAMES
)
PUBLISHED_NAMES = {
    "COCO": "MSCOCO", "COCO-WholeBody": "MSCOCO", "H36M": "Human36M", "3DPW": "PW3D", "MPI-INF-3DHP": "MPI_INF_3DHP",
    "3DHP": "MPI_INF_3DHP", "MMHuman3D": "HumanData",
}  # fmt: skip
"""Sets here by what papers and other programs call them."""

READERS: dict[str, ReaderInfo] = {info.name: info for info in (*_ALL, *_FAMILY)}
"""Every set by name."""


def reader(name: str) -> ReaderInfo:
    """The set of this name; BadInput lists the names there are."""
    if name not in READERS:
        meant = offer(name, READERS, PUBLISHED_NAMES)
        raise BadInput(f"no dataset {name!r}: there are {', '.join(READERS)}{meant}")
    return READERS[name]


def annotated_upright(sample: Sample) -> bool:
    """Whether the sample's pixels are those of the picture as its EXIF tag turns it, see `ReaderInfo.upright`."""
    return sample.dataset in READERS and READERS[sample.dataset].upright
