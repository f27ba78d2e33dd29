"""The test sets and their protocols: which people, which truth, which errors.

Protocols are the published code's; where it has none (3DPW) or a fault, `Benchmark.note` says what is done here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wholebody.body.assets import find_body, read_body_file
from wholebody.data.family import FAMILY_SETS, TESTED
from wholebody.data.readers import reader
from wholebody.data.sample import Sample
from wholebody.errors import AssetMissing, BadInput
from wholebody.evaluation.inference import Predicted, predict
from wholebody.evaluation.metrics import (
    MeshParts,
    body_joint_errors_mm,
    joint_errors_mm,
    mesh_errors_mm,
    own_joint_errors_mm,
)
from wholebody.evaluation.result import Network, Result, Row
from wholebody.evaluation.smpl import H36M_REGRESSOR, find_h36m
from wholebody.evaluation.testset import Figure, Found
from wholebody.evaluation.truth import TrueBodies

MESH_MEASURES = ("mpvpe_all", "mpvpe_hand", "mpvpe_face", "pa_mpvpe_all", "pa_mpvpe_hand", "pa_mpvpe_face")
JOINT_MEASURES = ("pa_mpjpe_body", "pa_mpjpe_hand")
EACH_HAND = tuple(f"{measure}_{side}_hand" for measure in ("mpvpe", "pa_mpvpe", "pa_mpjpe") for side in "lr")


@dataclass(frozen=True)
class Benchmark:
    """A test set: `read` with its reader, then `errors` for each batch."""

    name: str
    reader: str
    split: str
    title: str
    measures: tuple[str, ...]
    truth: str
    """"mesh": the set's own vertices; "parameters": a mesh of its SMPL-X parameters; "smpl": 14 joints of SMPL's."""
    note: str
    scenes: bool = False
    """Report each scene (the first part of a sample's id) beside the whole."""
    inside_only: bool = False
    """Count only vertices and joints whose truth lies inside the picture."""
    every: int = 1
    """Each set of annotations is thinned: every so many-th counts, as published."""
    neutral: bool = False
    """Parameters are posed with the neutral body, whatever the person's gender, as SMPLer-X's code does; where a person
    comes with a true mesh, that one counts."""

    @property
    def each_hand(self) -> bool:
        return EACH_HAND[0] in self.measures

    @property
    def headline(self) -> str:
        return self.measures[0]

    def group(self, sample: Sample) -> str:
        """The scene of a sample; "" where the set has none."""
        return sample.id.split("/")[0] if self.scenes else ""


_UBODY = (
    "Only vertices and joints whose truth lies inside the picture count; a hand or face outside is left out (as "
    "published), never averaged in as NaN. Seen by the annotation's camera. Every 100th annotation, as published "
    "(`--every 1` for all)."
)
_ALL = (
    Benchmark(
        "EHF", "EHF", "test", "EHF", (*MESH_MEASURES, *JOINT_MEASURES), "mesh",
        "100 pictures; the scans' meshes turned into the camera's frame. MPVPE: pelvis (all), wrist (hands), neck "
        "(face) moved onto each other; PA: after the best similarity transform of each part; hands: mean of both.",
    ),
    Benchmark(
        "AGORA", "AGORA", "validation", "AGORA validation", (*MESH_MEASURES, *JOINT_MEASURES), "mesh",
        "Valid people of the validation pictures, given their boxes, against the set's SMPL-X vertices; measures as "
        "for EHF (the published code has no PA-MPJPE here).",
    ),
    Benchmark(
        "PW3D", "PW3D", "test", "3DPW test", ("mpjpe_body", "pa_mpjpe_body", "mpjpe_own", "pa_mpjpe_own"), "smpl",
        "14 joints: of the prediction by SMPLX_to_J14, of the truth by the Human3.6M regressor from the SMPL mesh of "
        "the actor's gender. MPJPE: the middle of the hips moved onto each other. OSX's published code computes "
        "nothing on this set; the paper's protocol is followed. Own joints: as SMPLer-X's code measures it, 14 joints "
        "that SMPL and SMPL-X have in common, each by its body's own regressor, the pelvis moved onto the other.",
    ),
    Benchmark(
        "UBody", "UBody", "test", "UBody, intra-scene", (*MESH_MEASURES, *JOINT_MEASURES), "parameters",
        _UBODY,
        scenes=True, inside_only=True, every=100,
    ),
    Benchmark(
        "UBody-inter", "UBody", "inter_test", "UBody, inter-scene", (*MESH_MEASURES, *JOINT_MEASURES), "parameters",
        _UBODY, scenes=True, inside_only=True,
        every=100,
    ),
)  # fmt: skip


def _of_family(name: str) -> Benchmark:
    one = FAMILY_SETS[name]
    thinned = f" Every {one.test_every}th row of its file{'s' if len(one.test) > 1 else ''}, as published."
    return Benchmark(
        name,
        name,
        "test",
        f"{one.title}, test",
        (*MESH_MEASURES, *JOINT_MEASURES, *EACH_HAND),
        "parameters",
        "Against the mesh of the annotated SMPL-X parameters on the neutral body; measures as for EHF, and of each "
        f"hand by itself.{thinned if one.test_every > 1 else ''}",
        every=one.test_every,
        neutral=True,
    )


BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for benchmark in (*_ALL, *(_of_family(name) for name in TESTED))
}


@dataclass(frozen=True, eq=False)
class Context:
    """What measuring needs besides predictions: the set's folder, the body's files, which vertices are which part."""

    benchmark: Benchmark
    root: Path
    parts: MeshParts
    bodies: TrueBodies

    @staticmethod
    def of(benchmark: Benchmark, root: Path, body_folder: str | Path | None, models: Sequence[Any]) -> Context:
        """Refuses networks of another body at once, and says which files of the body are missing."""
        for model in models:
            if model.body.name != "smplx":
                raise BadInput(
                    f"{_name(model)} predicts the body {model.body.name!r}, and {benchmark.title} is measured on "
                    "SMPL-X: vertices of one body cannot be compared with those of another. Use a network trained for "
                    "SMPL-X, or --testset synthetic, real, coco2d or mpii2d"
                )
        if body_folder is None:
            raise AssetMissing(f"{benchmark.title} needs the SMPL-X files: name their folder with --body")
        folder = Path(body_folder).expanduser()
        file = Path(find_body(folder, "neutral"))
        arrays = read_body_file(file)
        parts = MeshParts.published(arrays, _folder_of_parts(folder, file))
        known = models[0].body if models[0].body.gender == arrays.gender else None
        return Context(benchmark, root, parts, TrueBodies(folder if folder.is_dir() else file.parent, known, arrays))

    def errors(self, predicted: Predicted) -> dict[str, np.ndarray]:
        """Every measure (B,) of a batch, in mm."""
        vertices = predicted.vertices()
        if self.benchmark.truth == "smpl":
            shared, own = self.bodies.smpl_joints(predicted.samples)
            found = own_joint_errors_mm(self.parts.joints(vertices, "own").cpu().numpy(), own[:, :22])
            if shared is not None and self.parts.body_regressor is not None:
                found |= body_joint_errors_mm(self.parts.joints(vertices, "body").cpu().numpy(), shared)
            return found
        truth = torch.as_tensor(self.true_vertices(predicted.samples)).to(vertices.device)
        valid = joint_valid = None
        if self.benchmark.inside_only:
            focal, principal = _cameras(predicted)
            inside = partial(_inside, focal=focal, principal=principal, image_hw=predicted.image_hw)
            valid, joint_valid = inside(truth), inside
        each = self.benchmark.each_hand
        errors = mesh_errors_mm(vertices, truth, self.parts, valid, each)
        errors |= joint_errors_mm(vertices, truth, self.parts, joint_valid, each)
        return {name: np.asarray(value.cpu()) for name, value in errors.items()}

    def true_vertices(self, samples: Sequence[Sample]) -> np.ndarray:
        """(B, V, 3) in the camera frame."""
        if self.benchmark.neutral:
            return np.stack([self._neutral_mesh(sample) for sample in samples])
        if self.benchmark.truth == "parameters":
            return self.bodies.vertices(samples)
        return self._given_meshes(samples)

    def _neutral_mesh(self, sample: Sample) -> np.ndarray:
        if sample.mesh_path is not None:
            return self._given_meshes([sample])[0]
        return self.bodies.vertices([replace(sample, gender="neutral")])[0]

    def _given_meshes(self, samples: Sequence[Sample]) -> np.ndarray:
        from wholebody.data.readers.meshes import true_mesh

        meshes = [true_mesh(self.root, sample) for sample in samples]
        for sample, mesh in zip(samples, meshes, strict=True):
            if len(mesh) != self.parts.num_vertices:
                raise BadInput(
                    f"{self.root / (sample.mesh_path or '')}: has {len(mesh)} vertices, an SMPL-X mesh has "
                    f"{self.parts.num_vertices}"
                )
        return np.stack(meshes)


def people(benchmark: Benchmark, root: Path, limit: int | None = None, every: int | None = None) -> Iterator[Sample]:
    """The samples of a test set that have truth, at most `limit`. every: see `Benchmark.every`; None: as published."""
    every = benchmark.every if every is None else every
    info = reader(benchmark.reader)
    thinned = benchmark.every > 1  # the reader knows how the published code counts
    stream = info.read(root, benchmark.split, **({"every": every} if thinned else {}))
    usable: Iterator[Sample] = (sample for sample in stream if _has_truth(benchmark, sample))
    if not thinned:
        usable = itertools.islice(usable, 0, None, every)
    yield from itertools.islice(usable, limit)


def _has_truth(benchmark: Benchmark, sample: Sample) -> bool:
    if benchmark.truth == "mesh":
        return sample.mesh_path is not None
    return sample.body == ("smpl" if benchmark.truth == "smpl" else "smplx")


@dataclass(eq=False)
class MeshSet:
    """A benchmark as it lies in a folder."""

    benchmark: Benchmark
    root: Path
    body: str | None
    limit: int | None = None
    every: int | None = None
    context: Context | None = None

    @property
    def name(self) -> str:
        return self.benchmark.name

    @property
    def title(self) -> str:
        return self.benchmark.title

    @property
    def protocol(self) -> str:
        """How it is measured, and which of its measures cannot be taken for want of a file."""
        if self.benchmark.truth != "smpl" or self.context is None:
            return self.benchmark.note
        missing = []
        if self.context.parts.body_regressor is None:
            missing.append("SMPLX_to_J14.pkl, of the data of ExPose (https://github.com/vchoutas/expose)")
        if find_h36m(self.context.bodies.folder) is None:
            missing.append(f"{' or '.join(H36M_REGRESSOR)}, of SPIN's data or Pose2Mesh's repository")
        left_out = (
            f" Left out, own joints alone are measured: {self.context.bodies.folder} lacks {' and '.join(missing)}."
        )
        return self.benchmark.note + (left_out if missing else "")

    def check(self, models: Sequence[Any]) -> None:
        self.context = Context.of(self.benchmark, self.root, self.body, models)

    def people(self) -> Iterator[Sample]:
        return people(self.benchmark, self.root, self.limit, self.every)

    def found(self, models: Sequence[Any], people: Iterable[Sample], batch_size: int) -> Iterator[list[Found]]:
        assert self.context is not None, "check the networks first"
        return found(models, people, self.context, batch_size)

    def result(self, names: Sequence[tuple[str, str]], found: Sequence[Sequence[Found]]) -> Result:
        if not found[0]:
            raise BadInput(f"{self.title} in {self.root}: nobody there has truth to measure by; fetch the set again")
        networks = [Network(*name, [one.row for one in rows]) for name, rows in zip(names, found, strict=True)]
        return Result(self.name, self.title, self.protocol, "mm", self.benchmark.measures, networks)

    def figures(self, models: Sequence[Any], result: Result, each: int) -> list[Figure]:
        assert self.context is not None
        return draw(models, result, self.people(), self.context, each)


def found(
    models: Sequence[Any], samples: Iterable[Sample], context: Context, batch_size: int = 8
) -> Iterator[list[Found]]:
    """For each sample the errors of every network."""
    for answers in predict(models, samples, context.root, batch_size):
        errors = [context.errors(predicted) for predicted in answers]
        for i, sample in enumerate(answers[0].samples):
            of_all = []
            for predicted, by_name in zip(answers, errors, strict=True):
                values = {name: float(by_name[name][i]) for name in context.benchmark.measures if name in by_name}
                row = Row(sample.id, sample.image_path or "", context.benchmark.group(sample), values)
                of_all.append(Found(row, predicted.parameters(i)))
            yield of_all


def draw(
    models: Sequence[Any], result: Result, samples: Iterable[Sample], context: Context, each: int = 3
) -> list[Figure]:
    """Of each network the best, the middle and the worst `each`. samples: those that were measured, in that order."""
    from wholebody.evaluation import gallery

    def show(model: Any, sample: Sample) -> gallery.Shown:
        truth = context.true_vertices([sample])[0] if context.benchmark.truth != "smpl" else None
        return gallery.shown(model, sample, context.root, truth, context.parts)

    return gallery.draw(models, result, samples, show, each)


def measure(models: Sequence[Any], samples: Iterable[Sample], context: Context, batch_size: int = 8) -> list[list[Row]]:
    """The errors of every network on every sample, in the order of the samples."""
    everybody = list(found(models, samples, context, batch_size))
    return [[of_all[k].row for of_all in everybody] for k in range(len(models))]


def _inside(points: Any, focal: np.ndarray, principal: np.ndarray, image_hw: np.ndarray) -> np.ndarray:
    """(B, N) bool: points (B, N, 3) seen inside the picture, as published: strictly between 0 and its size."""
    points = np.asarray(points.cpu() if isinstance(points, torch.Tensor) else points, np.float64)
    pixels = points[..., :2] / (points[..., 2:] + 1e-4) * focal[:, None] + principal[:, None]
    return ((pixels > 0) & (pixels < image_hw[:, None, ::-1])).all(-1)


def _cameras(predicted: Predicted) -> tuple[np.ndarray, np.ndarray]:
    """Each sample's own camera; where it has none, the virtual one of its crop, which the published code takes."""
    focal, principal = predicted.cameras()
    for i, sample in enumerate(predicted.samples):
        if sample.camera_valid:
            focal[i], principal[i] = sample.focal_px, sample.principal_px
    return focal, principal


def _folder_of_parts(folder: Path, file: Path) -> Path:
    """Where the vertex numbers lie: beside the body file, or in the folder given."""
    places = [file.parent, folder, folder / "smplx"]
    return next((place for place in places if (place / "MANO_SMPLX_vertex_ids.pkl").is_file()), file.parent)


def _name(model: Any) -> str:
    info = getattr(model, "checkpoint", None)
    return Path(info.path).name if info is not None else "this network"
