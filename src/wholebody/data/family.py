"""The data sets of SMPLer-X and SMPLest-X: every fact about them that training, reading and measuring need, once.

    FAMILY_SETS["BEDLAM"].train            # ("bedlam_train.npz",)
    mix(10)                                # the names of the published mix of ten sets, in its order
    box_ratio("BEDLAM", "smpler_x")        # 0.9996: by how much a network of that family sees the person's box enlarged

Names are those of the published code. Sets in COCO form are read by the readers that OSX's sets have; all others are
HumanData files in one folder for all sets (`FILE_FOLDERS`), the pictures of each in a folder of its own. Where the
published tools leave a fact open (what a file says of its hands, who is in it), the file decides: see
`readers.humandata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from wholebody.errors import BadInput

FAMILIES = ("osx", "smpler_x", "smplest_x")
"""As checkpoints and recipes call them: whose way of preparing people is meant."""

FILE_FOLDERS = ("preprocessed_datasets", "annot", "HumanData", "HumanData/preprocessed_datasets")
"""Where HumanData files lie, beside the sets' own folders: SMPLer-X's name, SMPLest-X's, and those of ours."""

FILES_SOURCE = "its HumanData files from the data pages of MMHuman3D and SMPLer-X"
"""Where all of these are obtained."""

MIX_SAMPLES = MappingProxyType({5: 750_000, 10: 1_500_000, 20: 3_000_000, 32: 4_500_000})
"""Samples an epoch of the published mixes, by how many sets they have."""

PADDED = 0.833
"""Boxes of HumanData files, and of AGORA, are drawn 1.2 times too large; this takes it back, as published."""


@dataclass(frozen=True)
class FamilySet:
    """One set of the family."""

    name: str
    title: str
    source: str
    """Where its pictures are obtained."""
    mix: int = 0
    """The smallest published mix (5, 10, 20 or 32 sets) that it is in; 0: in none."""
    train: tuple[str, ...] = ()
    """HumanData files to train on, as published; () of sets in COCO form, which `readers.READERS` lists."""
    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    form: str = "humandata"
    """"humandata" or "coco"."""
    folder: str = ""
    """The folder of its pictures, if it is not the name: sets share some."""
    pictures: str = ""
    """Where in that folder a file's `image_path` starts."""
    size_hw: tuple[int, int] | None = None
    """Height and width in pixels, where all pictures are of one size."""
    every: Mapping[str, int] = field(default_factory=dict)
    """By family: every so many-th person of a file is trained on; 1 where it is not named."""
    test_every: int = 1
    padded: bool = True
    """Its boxes are drawn 1.2 times too large."""
    part_boxes: bool = True
    """The family makes the boxes of its hands and faces 3:4 and enlarges them 1.2 times."""
    flat_in: tuple[str, ...] = ()
    """Families that take its hands as measured from the flat hand, and subtract the body's relaxed one."""
    no_shape_in: tuple[str, ...] = ()
    """Families that do not learn its shapes."""
    parts: str = "as its files have them"
    """What of a person counts."""
    needs: tuple[str, ...] = ()
    """Further keys that its files must have, `a|b`: one of them, `smplx/betas`: inside a dictionary."""
    joints_from_body: bool = False
    """Its measured joints are not to be trusted: where joints are in space follows from the parameters."""
    in_family: tuple[str, ...] = ("smpler_x", "smplest_x")

    @property
    def flat_hand(self) -> bool:
        """Where hands are measured from, of files that do not say: as the family does that knows this set as flat."""
        return bool(self.flat_in)

    @property
    def home(self) -> str:
        """The name of its folder beside those of the other sets."""
        return self.folder or self.name

    @property
    def files(self) -> dict[str, tuple[str, ...]]:
        """HumanData files by split."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: files for split, files in splits.items() if files}


_BOTH_10 = {"smpler_x": 10, "smplest_x": 10}
_BOTH_5 = {"smpler_x": 5, "smplest_x": 5}
_BODY = "body as its files have it; the shape of SMPL is not SMPL-X's and does not count"
_WHOLE = "body, hands and face"
_HANDS = ("smplx", "smplx/left_hand_pose", "smplx/right_hand_pose")
_SHAPED = (*_HANDS, "smplx/betas|smplx/betas_neutral")
_EGOBODY = "https://sanweiliti.github.io/egobody/egobody.html"
_RENBODY = "https://magichub.com/datasets/openxd-renbody"

_ALL = (
    FamilySet(
        "MSCOCO", "MSCOCO 2017 with COCO-WholeBody", "https://cocodataset.org", 5, form="coco", padded=False,
        parts="body; hands and face where their flags say so",
    ),
    FamilySet(
        "AGORA", "AGORA", "https://agora.is.tue.mpg.de", 5, form="coco", part_boxes=False,
        parts="body, hands and face; the root's rotation where the annotations place it before the camera",
    ),
    FamilySet(
        "UBody", "UBody", "https://osx-ubody.github.io", 20, form="coco", padded=False, part_boxes=False,
        every=_BOTH_10, test_every=100, parts="body; hands and face where their flags say so",
    ),
    FamilySet(
        "PW3D", "3DPW (3D Poses in the Wild)", "https://virtualhumans.mpi-inf.mpg.de/3DPW", 20, form="coco",
        padded=False, parts="body; SMPL's shape does not count",
    ),
    FamilySet(
        "MPII", "MPII Human Pose", "http://human-pose.mpi-inf.mpg.de", 32, form="coco", padded=False,
        parts="body without wrists and ankles",
    ),
    FamilySet(
        "Human36M", "Human3.6M", "http://vision.imar.ro/human3.6m", 32, form="coco", padded=False,
        parts="body without wrists and ankles",
    ),
    FamilySet(
        "BEDLAM", "BEDLAM", "https://bedlam.is.tue.mpg.de", 5, ("bedlam_train.npz",), every=_BOTH_5,
        flat_in=("smpler_x",), parts=_WHOLE, needs=_HANDS,
    ),
    FamilySet(
        "SPEC", "SPEC", "https://spec.is.tue.mpg.de", 5, ("spec_train_smpl.npz",), ("spec_test_smpl.npz",),
        size_hw=(1080, 1920), parts=_BODY,
    ),
    FamilySet(
        "GTA_Human2", "GTA-Human II", "https://caizhongang.github.io/projects/GTA-Human", 5,
        ("gta_human2multiple_230406_04000_0.npz",), size_hw=(1080, 1920), flat_in=("smplest_x",),
    ),
    FamilySet(
        "SynBody", "SynBody", "https://maoxie.github.io/SynBody", 10, ("synbody_train_230521_04000_fix_betas.npz",),
        size_hw=(720, 1280), every={"smplest_x": 10}, flat_in=("smplest_x",),
    ),
    FamilySet(
        "PoseTrack", "PoseTrack with EFT's bodies", "https://posetrack.net", 10, ("eft_posetrack.npz",),
        pictures="data/images", parts=_BODY,
    ),
    FamilySet(
        "EgoBody_Egocentric", "EgoBody, the wearer's camera", _EGOBODY, 10,
        ("egobody_egocentric_train_230425_065_fix_betas.npz",), ("egobody_egocentric_test_230425_043_fix_betas.npz",),
        folder="EgoBody", size_hw=(1080, 1920), parts=_WHOLE, needs=_SHAPED,
    ),
    FamilySet("PROX", "PROX", "https://prox.is.tue.mpg.de", 10, ("prox_train_smplx_new.npz",), size_hw=(1080, 1920)),
    FamilySet(
        "CrowdPose", "CrowdPose with NeuralAnnot's bodies", "https://github.com/Jeff-sjtu/CrowdPose", 10,
        ("crowdpose_neural_annot_train_new.npz",),
    ),
    FamilySet(
        "EgoBody_Kinect", "EgoBody, the Kinects' cameras", _EGOBODY, 20,
        ("egobody_kinect_train_230503_065_fix_betas.npz",), ("egobody_kinect_test_230503_043_fix_betas.npz",),
        folder="EgoBody", size_hw=(1080, 1920), every=_BOTH_10, parts=_WHOLE, needs=_SHAPED,
    ),
    FamilySet(
        "MPI_INF_3DHP", "MPI-INF-3DHP", "https://vcai.mpi-inf.mpg.de/3dhp-dataset", 20,
        tuple(f"mpi_inf_3dhp_neural_annot_part{part}.npz" for part in (1, 2, 3)), every=_BOTH_5,
    ),
    FamilySet("RICH", "RICH", "https://rich.is.tue.mpg.de", 20, ("rich_train_fix_betas.npz",)),
    FamilySet(
        "MuCo", "MuCo-3DHP", "https://vcai.mpi-inf.mpg.de/projects/SingleShotMultiPerson", 20,
        ("muco3dhp_train.npz",), size_hw=(1024, 1024),
    ),
    FamilySet(
        "InstaVariety", "InstaVariety with NeuralAnnot's bodies", "https://github.com/akanazawa/human_dynamics", 20,
        ("insta_variety_neural_annot_train.npz",), size_hw=(224, 224), every=_BOTH_10,
    ),
    FamilySet(
        "Behave", "BEHAVE", "https://github.com/xiexh20/behave-dataset", 20,
        ("behave_train_230516_231_downsampled.npz",), ("behave_test_230516_090_downsampled.npz",),
        size_hw=(1536, 2048), parts="body and hands as its files have them; SMPL+H's shape does not count",
    ),
    FamilySet(
        "UP3D", "UP-3D", "https://files.is.tuebingen.mpg.de/classner/up", 20, ("up3d_trainval.npz",), parts=_BODY,
    ),
    FamilySet(
        "ARCTIC", "ARCTIC", "https://arctic.is.tue.mpg.de", 20, ("p1_train.npz",), ("p1_val.npz",), every=_BOTH_10,
        test_every=10, flat_in=("smplest_x",), no_shape_in=("smplest_x",), parts=_WHOLE, needs=_SHAPED,
    ),
    FamilySet(
        "OCHuman", "OCHuman with EFT's bodies", "https://github.com/liruilong940607/OCHumanApi", 32,
        ("eft_ochuman.npz",), parts=_BODY,
    ),
    FamilySet(
        "CHI3D", "CHI3D", "https://ci3d.imar.ro", 32, tuple(f"CHI3D_train_230511_1492_{k}.npz" for k in range(2)),
        size_hw=(900, 900), flat_in=("smplest_x",),
    ),
    FamilySet(
        "RenBody_HiRes", "RenBody, the cameras of high resolution", _RENBODY, 32,
        tuple(f"renbody_train_highrescam_230517_399_{k}_fix_betas.npz" for k in range(2)),
        tuple(f"renbody_test_highrescam_230517_78_{k}_fix_betas.npz" for k in range(2)),
        folder="RenBody", every=_BOTH_5, test_every=10, parts=_WHOLE, needs=_SHAPED, joints_from_body=True,
    ),
    FamilySet(
        "MTP", "MTP (Mimic the Pose)", "https://tuch.is.tue.mpg.de", 32, ("mtp_smplx_train.npz",),
    ),
    FamilySet(
        "HumanSC3D", "HumanSC3D", "https://sc3d.imar.ro", 32,
        tuple(f"HumanSC3D_train_230511_2752_{k}.npz" for k in range(3)), size_hw=(900, 900), flat_in=("smplest_x",),
    ),
    FamilySet(
        "RenBody", "RenBody", _RENBODY, 32, tuple(f"renbody_train_230525_399_{k}.npz" for k in range(10)),
        tuple(f"renbody_test_230525_78_{k}.npz" for k in range(2)),
        every=_BOTH_10, parts=_WHOLE, needs=_SHAPED, joints_from_body=True,
    ),
    FamilySet(
        "FIT3D", "Fit3D", "https://fit3d.imar.ro", 32, tuple(f"FIT3D_train_230511_1504_{k}.npz" for k in range(6)),
        size_hw=(900, 900), every={"smpler_x": 10}, flat_in=("smplest_x",),
    ),
    FamilySet(
        "Talkshow", "TalkSHOW", "https://talkshow.is.tue.mpg.de", 32,
        tuple(f"talkshow_smplx_{who}.npz" for who in ("chemistry", "conan", "oliver", "seth")),
        every=_BOTH_10, parts=_WHOLE, needs=(*_HANDS, "smplx/expression"),
    ),
    FamilySet(
        "SSP3D", "SSP-3D", "https://github.com/akashsengupta1997/SSP-3D", 32, ("ssp3d_230525_311.npz",),
        size_hw=(512, 512), parts=_BODY,
    ),
    FamilySet(
        "LSPET", "LSP extended, with EFT's bodies", "http://sam.johnson.io/research/lspet.html", 32,
        ("eft_lspet.npz",), parts=_BODY,
    ),
    FamilySet(
        "SHAPY", "SHAPY (Human Bodies in the Wild)", "https://shapy.is.tue.mpg.de", 0, (),
        ("shapy_test_230512_1631.npz",), ("shapy_val_230512_705.npz",), parts="boxes; shape where its files have it",
    ),
    FamilySet(
        "SynHand", "SynHand", "https://github.com/wqyin/SMPLest-X", 0, ("synhand_20240927_241004_4628_fix_betas.npz",),
        ("synhand_20241018_test_241023_1188_fix_betas.npz",), test_every=10, flat_in=("smplest_x",), parts=_WHOLE,
        needs=_SHAPED, in_family=("smplest_x",),
    ),
)  # fmt: skip
FAMILY_SETS: Mapping[str, FamilySet] = MappingProxyType({one.name: one for one in _ALL})
"""Every set by name: the 32 of SMPLer-X in the order of its largest mix, then the further ones.

HumanArt and MOYO, which SMPLest-X learns from too, have no published file name: a file of theirs is read as
`READERS["HumanData"].read(folder, "train", file=...)`.
"""

FINE_TUNING: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "agora": ("AGORA", "GTA_Human2", "BEDLAM", "SynBody", "SPEC"),
    "3dpw": ("PW3D", "GTA_Human2", "EgoBody_Kinect", "InstaVariety", "HumanSC3D"),
    "arctic": ("MSCOCO", "ARCTIC", "BEDLAM", "EgoBody_Egocentric", "PoseTrack"),
    "egobody": ("MSCOCO", "EgoBody_Egocentric", "EgoBody_Kinect", "BEDLAM", "PROX"),
    "renbody": ("RenBody_HiRes", "RenBody", "BEDLAM", "SynBody", "CHI3D"),
    "ubody": ("UBody", "MSCOCO", "EgoBody_Egocentric", "PoseTrack", "Talkshow"),
})  # fmt: skip
"""The sets that SMPLer-X is fine-tuned on for one of six, in the published order; a million samples an epoch."""
FINE_TUNING_SAMPLES = 1_000_000


TESTED = ("EgoBody_Egocentric", "EgoBody_Kinect", "ARCTIC", "RenBody_HiRes", "RenBody", "SynHand")
"""The sets in HumanData files whose test split is measured, by the mesh of its SMPL-X parameters."""


def mix(sets: int) -> tuple[str, ...]:
    """The names in the published mix of so many sets (5, 10, 20 or 32), in its order."""
    if sets not in MIX_SAMPLES:
        raise BadInput(f"there is no published mix of {sets} sets: there are {', '.join(map(str, MIX_SAMPLES))}")
    return tuple(one.name for one in _ALL if 0 < one.mix <= sets)


def check_family(family: str) -> None:
    """BadInput for a name that is none of `FAMILIES`."""
    if family not in FAMILIES:
        raise BadInput(f"family is {family!r}: use one of {', '.join(FAMILIES)}")


def training_interval(name: str, family: str = "smpler_x") -> int:
    """Every so many-th person of a set is trained on by a family; 1 for sets that are not in the table."""
    check_family(family)
    return FAMILY_SETS[name].every.get(family, 1) if name in FAMILY_SETS else 1


def box_ratio(name: str, family: str) -> float:
    """By how much a family enlarges the boxes of a set, made 3:4, before it crops them, in training and in tests.

    1.25 for OSX. The others: 1.2; 0.9996 where boxes are drawn 1.2 times too large; 1.25 on UBody.
    """
    check_family(family)
    if family == "osx" or name == "UBody":
        return 1.25
    padded = FAMILY_SETS[name].padded if name in FAMILY_SETS else name == "HumanData"
    return 1.2 * PADDED if padded else 1.2


def part_box_ratio(name: str, family: str) -> float | None:
    """By how much a family enlarges the boxes of hands and faces of a set, made 3:4 too; None: it takes them as the
    set's reader gives them."""
    check_family(family)
    if family == "osx" or (name in FAMILY_SETS and not FAMILY_SETS[name].part_boxes):
        return None
    return 1.2


def takes_as_flat(name: str, family: str) -> bool:
    """Whether a family takes the hands of a set as measured from the flat hand, whatever its files say."""
    check_family(family)
    return name in FAMILY_SETS and family in FAMILY_SETS[name].flat_in


def file_of(folder: Path, name: str) -> Path | None:
    """Where a HumanData file of a set lies, given the set's folder: in it, in one of `FILE_FOLDERS` in it or beside it,
    or beside the folder that it lies in (`img/SET` and `annot`)."""
    above = (folder, folder.parent, *((folder.parent.parent,) if folder.parent.name == "img" else ()))
    places = [folder, *(one / name for one in above for name in FILE_FOLDERS)]
    return next((place / name for place in places if (place / name).is_file()), None)


def home_of(root: Path, one: FamilySet) -> Path | None:
    """The folder of a set in the folder with all sets; None if neither it nor any of its files are there.

    Beside SMPLer-X's `SET`: SMPLest-X's `img/SET`. Where a file is there and no such folder, the folder of the file
    holds the pictures if their paths lead to some, and the set's own is where they are expected.
    """
    names = [one.home, one.name, *(("synbody",) if one.name == "SynHand" else ())]
    places = [*(root / name for name in names), *(root / "img" / name for name in names)]
    there = next((place for place in places if place.is_dir()), None)
    files = [name for files in one.files.values() for name in files]
    if there is not None and (there.name == one.name or any(file_of(there, name) for name in files)):
        return there
    for above in (".", *FILE_FOLDERS):
        if any((root / above / name).is_file() for name in files):
            if there is None and root.name in names:  # the set's own folder was given
                return root
            return there or (root / above if above.startswith("HumanData") else root / one.home)
    return None
