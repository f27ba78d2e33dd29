"""Body files: find them, read them without trusting them, and say what is missing or wrong.

Two bodies share one layout, that of the licensed SMPL-X files: `SMPLX_{NEUTRAL,MALE,FEMALE}.npz` or `.pkl`. The open
body is embedded in a compact form of it (`open_body.npz`, expanded by `open_body.expand`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wholebody.body import open_body
from wholebody.body.joints import PARENTS
from wholebody.errors import AssetMissing, BadInput
from wholebody.files.looks import looks_like, meant
from wholebody.files.npz import SafeNpz
from wholebody.files.reading import open_file
from wholebody.files.unpickle import as_array, as_dense, read_pickle

GENDERS = ("neutral", "male", "female")
EMBEDDED = Path(__file__).with_name("open_body.npz")
NUM_SHAPE = 10
NUM_EXPRESSION = 10
_SHAPE_SPACE = 300  # in full files, shape comes first and expression from here on
_SMPLX_VERTICES = 10475
_NOTHING = np.empty(0)
_MOST_ROWS = 120_000  # of vertices, triangles, components: six times the largest known body
_MOST_EXTRA = 10_000_000  # numbers of an array beyond the layout
_SPARSE_BELOW = 0.25  # of the (vertex, joint) pairs; above this a dense matrix product is faster

# The vertices that serve as nose, right and left eye, right and left ear, toes and heels, and finger tips: the SMPL-X
# convention for `joints.SKIN_POINTS`. The open body numbers its vertices so that these hold for it too.
# fmt: off
SKIN_POINT_VERTICES = (
    9120, 9929, 9448, 616, 6,
    5770, 5780, 8846, 8463, 8474, 8635,
    5361, 4933, 5058, 5169, 5286, 8079, 7669, 7794, 7905, 8022,
)
# fmt: on


@dataclass(frozen=True, eq=False)
class SparsePoseDirs:
    """Pose correctives that are mostly zero: joint k = 1..54 moves `counts[k - 1]` vertices, listed joint by joint."""

    counts: np.ndarray  # (54,) int64
    vertices: np.ndarray  # (N,) int64
    offsets: np.ndarray  # (N, 3, 9): metres per entry of R_k - 1, row by row

    @staticmethod
    def of(pose_dirs: np.ndarray) -> SparsePoseDirs:
        """The same correctives as a dense (V, 3, 486) array."""
        blocks = pose_dirs.reshape(len(pose_dirs), 3, 54, 9).transpose(2, 0, 1, 3)
        moved = blocks.any((2, 3))
        return SparsePoseDirs(moved.sum(1), np.nonzero(moved)[1], blocks[moved])


@dataclass(frozen=True, eq=False)
class BodyArrays:
    """One body file as arrays, checked. Metres; y up, x to the body's left, z forward, in the rest pose (arms out)."""

    name: str
    """"smplx" or "open"."""
    gender: str
    v_template: np.ndarray  # (V, 3)
    faces: np.ndarray  # (F, 3) int64
    shape_dirs: np.ndarray  # (V, 3, 10)
    expression_dirs: np.ndarray  # (V, 3, 10)
    pose_dirs: np.ndarray | SparsePoseDirs  # (V, 3, 486): 9 entries of R - 1 for each joint but the pelvis
    joint_regressor: np.ndarray  # (55, V)
    weights: np.ndarray  # (V, 55) of skinning
    left_hand_mean: np.ndarray  # (15, 3) axis-angle
    right_hand_mean: np.ndarray  # (15, 3)
    landmark_faces: np.ndarray  # (51,) int64: the triangle that holds each inner face landmark
    landmark_barycentric: np.ndarray  # (51, 3)
    contour_faces: np.ndarray  # (79, 17) int64: the same of the contour, per degree of head turn
    contour_barycentric: np.ndarray  # (79, 17, 3)
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    """What the file holds beyond the layout: `vt`, `ft`, `part_of_vertex`, ..."""

    @property
    def num_vertices(self) -> int:
        return len(self.v_template)


def find_body(path: str | Path | None, gender: str = "neutral") -> Path | str:
    """The body file that `path` means: itself, or the right one in a folder; "open" for None or "open".

    In a folder these are tried: `SMPLX_{GENDER}.npz` and `.pkl` in the folder itself, in `smplx/` and in
    `models/smplx/`. Raises AssetMissing, which says where to get the file and where to put it.
    """
    if gender not in GENDERS:
        raise BadInput(f"gender {gender!r} is unknown: use one of {', '.join(GENDERS)}")
    if path is None or str(path) == "open":
        return "open"
    path = Path(path).expanduser()
    if path.exists() and not path.is_dir():
        open_file(path).close()  # says what it is if it is no regular file
        return path
    if not path.is_dir():
        offer = meant(path)
        raise AssetMissing(_how_to_get(f"there is no body file or folder at {path}{offer}", gender, path))
    folders = [folder for folder in (path, path / "smplx", path / "models" / "smplx") if folder.is_dir()]
    for folder in folders:
        for suffix in (".npz", ".pkl"):
            candidate = folder / f"SMPLX_{gender.upper()}{suffix}"
            if candidate.is_file():
                return candidate
    near = sorted(
        other for folder in folders for other in folder.iterdir()
        if other.suffix.lower() in (".npz", ".pkl") and "smplx" in other.stem.lower().replace("-", "").replace("_", "")
    )  # fmt: skip
    of_gender = [other for other in near if _gender(other) == gender] or near
    offer = f" (but {', '.join(map(str, of_gender[:3]))}: name that file itself if it is the one)" if near else ""
    raise AssetMissing(_how_to_get(f"the folder {path} holds no {gender} SMPL-X body{offer}", gender, path))


def _how_to_get(what: str, gender: str, path: Path) -> str:
    name = f"SMPLX_{gender.upper()}.npz"
    target = path if path.suffix in (".npz", ".pkl") else path / name
    return (
        f"{what}.\n"
        f"SMPL-X may not be passed on, so you have to fetch it yourself: register at https://smpl-x.is.tue.mpg.de, "
        f"download 'SMPL-X with removed head bun' or 'SMPL-X v1.1 (NPZ+PKL)', and put {name} (or .pkl) at {target}.\n"
        "Or leave the body out: the open body is embedded and needs no file."
    )


def read_body_file(path: str | Path) -> BodyArrays:
    """Read and check a body: a `.npz` or `.pkl` in the SMPL-X layout, the compact open body, or "open" for the
    embedded one. Raises AssetMissing if there is no such file and BadInput if it is not a whole body."""
    if str(path) == "open":
        path = EMBEDDED
        if not path.is_file():
            raise AssetMissing(f"the embedded body is missing from this installation ({path}); install wholebody again")
    path = Path(path)
    if not path.exists():
        raise AssetMissing(_how_to_get(f"there is no body file at {path}{meant(path)}", "neutral", path))
    stored = _Fields(path)
    return _read_compact(stored) if open_body.is_compact(dict.fromkeys(stored.keys(), _NOTHING)) else _check(stored)


class _Fields:
    """The arrays of a body file by key, read one at a time (a full file holds 120 MB that may not be needed twice)."""

    def __init__(self, path: Path, arrays: dict[str, Any] | None = None):
        self.path = path
        self._npz: SafeNpz | None = None
        if arrays is not None:
            self._arrays = arrays
        elif path.suffix == ".pkl":
            arrays = read_pickle(path)
            if not isinstance(arrays, dict):
                raise BadInput(f"{path} holds a {type(arrays).__name__}, not the dictionary of a body file")
            self._arrays = arrays
        else:
            self._arrays = {}
            try:
                self._npz = SafeNpz(path)
            except BadInput as error:
                raise BadInput(f"{path} is not a readable body file: {_what_it_is(path) or error}") from error

    def __contains__(self, key: str) -> bool:
        return key in self._arrays or (self._npz is not None and key in self._npz)

    def keys(self) -> list[str]:
        return [*(str(key) for key in self._arrays), *(self._npz or ())]

    def raw(self, key: str) -> Any:
        if key in self._arrays:
            return self._arrays[key]
        self._require(key)
        assert self._npz is not None
        return self._npz[key]

    def _require(self, key: str) -> None:
        if key not in self:
            raise BadInput(
                f"{self.path} has no {key!r}: not an SMPL-X body file (it holds {', '.join(sorted(self.keys())[:12])})"
            )

    def array(self, key: str) -> np.ndarray:
        self._require(key)
        if self._npz is not None:
            self._refuse_unless_numbers(key, self._npz.header(key).dtype)
        try:
            value = as_array(as_dense(self.raw(key)))
        except ValueError as error:
            raise BadInput(f"{self.path}: {key!r} is no array ({error}); the file is damaged") from error
        self._refuse_unless_numbers(key, value.dtype)
        return value

    def _refuse_unless_numbers(self, key: str, dtype: np.dtype) -> None:
        if dtype.kind not in "fiu":
            raise BadInput(f"{self.path}: {key!r} holds {dtype} values where numbers belong")

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Of an array in an archive, known before it is unpacked; None: only its content tells."""
        self._require(key)
        return self._npz.header(key).shape if self._npz is not None else None

    def floats(self, key: str, *shape: int | None) -> np.ndarray:
        """A finite float array of the given shape (None: any length)."""
        value = self._shaped(key, shape)
        value = value if value.dtype in (np.float32, np.float64) else value.astype(np.float64)
        if not np.isfinite(value).all():
            raise BadInput(f"{self.path}: {key!r} holds values that are not finite; the file is damaged")
        return value

    def integers(self, key: str, *shape: int | None, below: int) -> np.ndarray:
        """An int64 array of the given shape with values in [0, below)."""
        value = self._shaped(key, shape).astype(np.int64)
        if value.size and (value.min() < 0 or value.max() >= below):
            raise BadInput(f"{self.path}: {key!r} points at {value.max()}, outside 0..{below - 1}")
        return value

    def _shaped(self, key: str, shape: tuple[int | None, ...]) -> np.ndarray:
        known = self.shape(key)
        if known is not None:
            self._check_shape(key, known, shape)
        value = self.array(key)
        self._check_shape(key, value.shape, shape)
        return value

    def _check_shape(self, key: str, found: tuple[int, ...], wanted: tuple[int | None, ...]) -> None:
        fits = len(found) == len(wanted) and all(
            n <= _MOST_ROWS if s is None else s == n for s, n in zip(wanted, found, strict=True)
        )
        if not fits:
            wish = "×".join("N" if s is None else str(s) for s in wanted)
            got = "×".join(map(str, found)) or "a single number"
            raise BadInput(f"{self.path}: {key!r} is {got}, but an SMPL-X body has {wish}")


def _what_it_is(path: Path) -> str:
    with open_file(path) as file:
        head = file.read(400)
    if looks_like(head):
        return f"it is {looks_like(head)}; download it again"
    return "" if head[:2] == b"PK" else "not an npz archive; fetch or copy it again"


def _read_compact(stored: _Fields) -> BodyArrays:
    compact = {key: stored.raw(key) for key in stored.keys()}
    try:
        arrays = {**open_body.expand(compact, correctives=False), "body_name": "open"}
        offsets = compact["corrective_offsets"] * np.float32(open_body.UNIT_M)
        vertices = compact["corrective_vertices"].astype(np.int64)
        counts = compact["corrective_counts"].astype(np.int64)
        if counts.shape != (54,) or counts.sum() != len(vertices) or offsets.shape != (len(vertices), 3, 9):
            raise ValueError("pose correctives that do not fit together")
        if len(vertices) and vertices.max() >= len(np.asarray(arrays["v_template"])):
            raise ValueError("pose correctives of vertices that do not exist")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise BadInput(f"{stored.path} is a damaged open body ({error}); install wholebody again") from error
    return _check(_Fields(stored.path, arrays), SparsePoseDirs(counts, vertices, offsets))


_LAYOUT = {
    "v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "hands_meanl", "hands_meanr",
    "lmk_faces_idx", "lmk_bary_coords", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords",
    "hands_componentsl", "hands_componentsr", "hands_coeffsl", "hands_coeffsr", "body_name",
}  # fmt: skip


def _check(stored: _Fields, pose_dirs: SparsePoseDirs | None = None) -> BodyArrays:
    tree = stored.array("kintree_table")
    if tree.shape == (2, 24):
        raise BadInput(f"{stored.path} is an SMPL body (24 joints); SMPL-X files have 55 joints, with hands and face")
    if tree.shape != (2, 55) or tree[0, 1:].tolist() != list(PARENTS[1:]):
        raise BadInput(f"{stored.path}: 'kintree_table' ({tree.shape}) is not the tree of 55 joints of SMPL-X")
    template = stored.floats("v_template", None, 3)
    count = len(template)
    if count <= max(SKIN_POINT_VERTICES):
        raise BadInput(f"{stored.path}: 'v_template' has {count} vertices, too few for an SMPL-X body (10,475)")
    shape_and_expression = stored.floats("shapedirs", count, 3, None)
    # Full files hold 300 + 100 components, the older ones 10 + 10.
    components = shape_and_expression.shape[-1]
    start = _SHAPE_SPACE if components >= _SHAPE_SPACE + 100 else NUM_SHAPE
    if components < _SHAPE_SPACE + 100 and components != NUM_SHAPE + NUM_EXPRESSION:
        raise BadInput(
            f"{stored.path}: 'shapedirs' has {components} components; 10 of shape and 10 of expression are needed, or "
            "300 and 100. A file with those of shape alone is another download: take 'SMPL-X v1.1 (NPZ+PKL)'"
        )
    faces = stored.integers("f", None, 3, below=count)
    weights = stored.floats("weights", count, 55)
    if np.abs(weights.sum(1) - 1).max() > 1e-3:
        raise BadInput(f"{stored.path}: 'weights' of some vertices do not sum to one; the file is damaged")
    return BodyArrays(
        name=_name(stored, count),
        gender=_gender(stored.path),
        v_template=template,
        faces=faces,
        shape_dirs=np.ascontiguousarray(shape_and_expression[..., :NUM_SHAPE]),
        expression_dirs=np.ascontiguousarray(shape_and_expression[..., start : start + NUM_EXPRESSION]),
        joint_regressor=stored.floats("J_regressor", 55, count),
        weights=weights,
        left_hand_mean=stored.floats("hands_meanl", 45).reshape(15, 3),
        right_hand_mean=stored.floats("hands_meanr", 45).reshape(15, 3),
        landmark_faces=stored.integers("lmk_faces_idx", 51, below=len(faces)),
        landmark_barycentric=stored.floats("lmk_bary_coords", 51, 3),
        contour_faces=stored.integers("dynamic_lmk_faces_idx", 79, 17, below=len(faces)),
        contour_barycentric=stored.floats("dynamic_lmk_bary_coords", 79, 17, 3),
        # Last: a small mistake should not wait for 120 MB.
        pose_dirs=_pose_dirs(stored, count) if pose_dirs is None else pose_dirs,
        extras=_extras(stored),
    )


def _pose_dirs(stored: _Fields, count: int) -> np.ndarray | SparsePoseDirs:
    dense = stored.floats("posedirs", count, 3, 486)
    moved = dense.reshape(count, 3, 54, 9).any((1, 3))
    return SparsePoseDirs.of(dense) if moved.mean() < _SPARSE_BELOW else dense


def _name(stored: _Fields, count: int) -> str:
    if "body_name" in stored:
        return str(stored.raw("body_name"))[:80]
    return "smplx" if count == _SMPLX_VERTICES else "open"


def _gender(path: Path) -> str:
    """As the file's name says, wherever in it: SMPLX_FEMALE.npz, smplx-female-v1.1.pkl."""
    found = re.search(r"(?<![a-z])(neutral|female|male)(?![a-z])|(female)", path.stem.lower())
    return next(filter(None, found.groups()), "neutral") if found else "neutral"


def _extras(stored: _Fields) -> dict[str, np.ndarray]:
    """What the open body adds to the layout; of a licensed file nothing else is used, so nothing else is read."""
    if _name(stored, len(stored.array("v_template"))) != "open":
        return {}
    extras = {}
    for key in stored.keys():
        if key not in _LAYOUT and math.prod(stored.shape(key) or ()) <= _MOST_EXTRA:
            value = stored.raw(key)
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiubU":
                extras[key] = value
    return extras
