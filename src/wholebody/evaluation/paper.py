"""The paper's figures, each with the place it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "Lin et al., One-Stage 3D Whole-Body Mesh Recovery with Component Aware Transformer, CVPR 2023"


@dataclass(frozen=True)
class PaperRow:
    """One line of the table to reproduce: a published checkpoint on a test set."""

    testset: str
    checkpoint: str
    """The published file's name."""
    figures: Mapping[str, float]
    """mm, by the names of our measures; of AGORA's test set by those of its server."""
    source: str


_README = "shown in the published repository's README (assets/{}), "
ROWS = (
    PaperRow(
        "EHF",
        "osx_l.pth.tar",
        {"mpvpe_all": 70.8, "mpvpe_hand": 53.7, "mpvpe_face": 26.4,
         "pa_mpvpe_all": 48.7, "pa_mpvpe_hand": 15.9, "pa_mpvpe_face": 6.0},
        "the paper's table of EHF and 3DPW, " + _README.format("ehf_3dpw.png"),
    ),
    PaperRow(
        "AGORA",
        "osx_l.pth.tar",
        {"mpvpe_all": 168.6, "mpvpe_hand": 70.6, "mpvpe_face": 77.2,
         "pa_mpvpe_all": 69.4, "pa_mpvpe_hand": 11.5, "pa_mpvpe_face": 4.8},
        "Table S-3 of the paper's supplement, " + _README.format("agora_val.png"),
    ),
    PaperRow(
        "PW3D",
        "osx_l.pth.tar",
        {"mpjpe_body": 74.7, "pa_mpjpe_body": 45.1},
        "the paper's table of EHF and 3DPW, " + _README.format("ehf_3dpw.png"),
    ),
    PaperRow(
        "UBody",
        "osx_l_wo_decoder.pth.tar",
        {"mpvpe_all": 81.9, "mpvpe_hand": 41.5, "mpvpe_face": 21.2,
         "pa_mpvpe_all": 42.2, "pa_mpvpe_hand": 8.6, "pa_mpvpe_face": 2.0},
        "the paper's UBody table, the network fine-tuned on UBody; taken from notes, not read off the paper. The "
        "published README tests `osx_l_wo_decoder.pth.tar` on UBody and does not say that it is that network",
    ),
    PaperRow(
        "AGORA-test",
        "osx_l_agora.pth.tar",
        {"NMVE FB": 130.6, "NMVE B": 85.3, "NMJE FB": 127.6, "NMJE B": 83.3, "MVE FB": 122.8, "MVE B": 80.2,
         "MVE F": 36.2, "MVE LH": 45.4, "MVE RH": 46.1, "MPJPE FB": 119.9, "MPJPE B": 78.3, "MPJPE F": 37.9,
         "MPJPE LH": 43.0, "MPJPE RH": 43.9},
        "the benchmark's leaderboard of March 2023, " + _README.format("agora_test.png"),
    ),
)  # fmt: skip

FAMILY_PAPER = (
    "Cai et al., SMPLer-X: Scaling Up Expressive Human Pose and Shape Estimation, NeurIPS 2023 (arXiv 2309.17448)"
)
MPE = "MPE"
"""Mean primary error: the mean of the main errors on AGORA, EgoBody, UBody, 3DPW and EHF."""

_MODELS = "the table 'Pretrained Models' of SMPLer-X's README, which does not give the five errors by themselves"
_ABSTRACT = (
    "the abstract of SMPLer-X's paper, which does not say of which network it is{}; the largest published one is "
    "measured here"
)
_TUNED = ". The paper's network was fine-tuned on this set, the published file is not"
FAMILY_ROWS = (
    PaperRow(MPE, "smpler_x_s32.pth.tar", {"MPE": 82.6}, _MODELS),
    PaperRow(MPE, "smpler_x_b32.pth.tar", {"MPE": 74.3}, _MODELS),
    PaperRow(MPE, "smpler_x_l32.pth.tar", {"MPE": 66.2}, _MODELS),
    PaperRow(
        MPE,
        "smpler_x_h32.pth.tar",
        {"MPE (file of 2023)": 63.0, "MPE (file of March 2024)": 59.7},
        _MODELS + ". Two files were published under this name; the later one mends the camera on data like 3DPW",
    ),
    PaperRow("EHF", "smpler_x_h32.pth.tar", {"mpvpe_all": 62.3}, _ABSTRACT.format(", without fine-tuning")),
    PaperRow("UBody", "smpler_x_h32.pth.tar", {"mpvpe_all": 57.4}, _ABSTRACT.format("") + _TUNED),
    PaperRow("EgoBody_Egocentric", "smpler_x_h32.pth.tar", {"mpvpe_all": 63.6}, _ABSTRACT.format("") + _TUNED),
    PaperRow("AGORA-test", "smpler_x_h32.pth.tar", {"NMVE FB": 107.2}, _ABSTRACT.format("") + _TUNED),
)
"""SMPLer-X's figures. SMPLest-X's repository gives none."""
