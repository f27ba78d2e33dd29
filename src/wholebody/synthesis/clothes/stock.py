"""MakeHuman's clothes, shoes, hats, hair, brows and lashes on the open body.

Each piece is fitted once to the scaffold (`scaffold`), so that it follows shape, expression and pose as plain linear
functions; tops and bottoms of a suit become two items, to be worn with others. The result is kept in a cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from wholebody.body.open_body import expand, read_compact
from wholebody.drawing.raster import srgb_to_linear
from wholebody.errors import BadInput, OutputError
from wholebody.files.cache import cache_folder
from wholebody.files.whole import whole
from wholebody.synthesis.clothes import scaffold as base_mesh
from wholebody.synthesis.clothes.makehuman import Piece, read_piece

FORMAT = 8
KINDS = ("bottom", "top", "whole", "shoes", "hat", "hair", "brows", "lashes", "teeth")
_FOLDERS = {"clothes": "", "hair": "hair", "eyebrows": "brows", "eyelashes": "lashes", "teeth": "teeth"}
# Alpha cards that nobody has the texture of.
_UNUSABLE = {"afro01", "bob01", "teeth_shape01", "teeth_shape02", "teeth_shape03", "teeth_shape04", "teeth_shape05"}
_TEXTURE = {"bottom": 512, "top": 512, "whole": 512, "hair": 512, "shoes": 256, "hat": 128, "brows": 128, "lashes": 128,
            "teeth": 128}  # fmt: skip
LEVELS = 5
SKIN_JOINTS = 6
_RUNG = 0.03  # metres beyond the hidden skin over which the rest is drawn in


@dataclass(frozen=True)
class Item:
    """One thing to wear; N vertices, F triangles; metres, T-pose of the mean body.

    `rest` (N,3), `dirs` (N,3,20) per unit of shape and expression, `joints`, `weights` (N,6) skinning. `near`,
    `near_weights` (N,3): body vertices whose pose correctives it follows. `faces` (F,3), `uv` (T,2), `uv_faces` (F,3).
    `texels` (M,4) uint8 sRGB and alpha: a picture of `size` pixels a side, then each next half as large, `LEVELS` in
    all; `tone` (3,) its mean, linear; `density` texels per metre. `opaque`: alpha need not be looked at.
    `hides`, `draws_in` (V,) 0..1: skin that is never seen under it, skin to draw in beside that.
    """

    name: str
    kind: str
    rest: np.ndarray
    dirs: np.ndarray
    joints: np.ndarray
    weights: np.ndarray
    near: np.ndarray
    near_weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    uv_faces: np.ndarray
    texels: np.ndarray
    size: int
    tone: np.ndarray
    density: float
    opaque: bool
    textured: bool
    hides: np.ndarray
    draws_in: np.ndarray


def load(assets: str | Path, cache: str | Path | None = None) -> list[Item]:
    """All items in a folder of MakeHuman assets (`clothes/`, `hair/`, ... or `makehuman/` with these). Baking them
    takes some seconds; the result is kept under `cache` (default: `wholebody.files.cache.cache_folder`)."""
    folder = cache or cache_folder()
    return list(_load(str(assets), None if folder is None else str(folder)))


@lru_cache(maxsize=2)
def _load(assets: str, cache: str | None) -> tuple[Item, ...]:
    root = Path(assets)
    root = root / "makehuman" if (root / "makehuman").is_dir() else root
    paths = sorted(p for folder in _FOLDERS for p in (root / folder).glob("*/*.mhclo") if p.stem not in _UNUSABLE)
    if not paths:
        raise BadInput(
            f"no MakeHuman clothes (clothes/*/*.mhclo) in {assets}: get github.com/makehumancommunity/makehuman-assets "
            "(folder `base`), or leave --assets out for painted clothes"
        )
    digest = hashlib.sha256(f"{FORMAT}".encode() + base_mesh.PATH.read_bytes())
    for path in sorted(p for folder in _FOLDERS for p in (root / folder).rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
    if cache is None:
        return tuple(_bake(root, paths))
    kept = Path(cache) / f"wardrobe-{digest.hexdigest()[:16]}.npz"
    if kept.exists():
        return tuple(_read(kept))
    items = _bake(root, paths)
    with contextlib.suppress(OutputError):  # a cache that cannot be written costs time, nothing else
        _write(kept, items)
    return tuple(items)


def _bake(root: Path, paths: list[Path]) -> list[Item]:
    compact = read_compact()
    frame, body = base_mesh.load(compact), expand(compact, correctives=False)
    out = []
    for path in paths:
        piece = read_piece(path)
        kind = _FOLDERS[path.relative_to(root).parts[0]]
        kind = kind or ("shoes" if "shoe" in piece.name else "hat" if "fedora" in piece.name else "suit")
        fitted = _fit(piece, frame)
        labels = _parts(piece, fitted[0]) if kind == "suit" else np.full(len(fitted[0]), kind)
        for part in sorted(set(labels)):
            out.append(_item(piece, part, labels, fitted, frame, body))
    return out


def _fit(piece: Piece, frame: base_mesh.Scaffold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (N,3), directions (N,3,20) and weights (N,55) of a piece on the scaffold."""
    weights = np.einsum("nk,nkj->nj", piece.weights, frame.weights[piece.corners]).clip(0, None)
    weights /= weights.sum(1, keepdims=True)
    # Offsets are in the axes of MakeHuman's A-pose: they turn with the limb, and grow with the body.
    turn = np.einsum("nj,jab->nab", weights, frame.from_a_pose)
    rest = np.einsum("nk,nkc->nc", piece.weights, frame.vertices[piece.corners])
    dirs = np.einsum("nk,nkcd->ncd", piece.weights, frame.dirs[piece.corners])
    for axis, (a, b, length) in enumerate(piece.scale):
        across, growth = frame.vertices[a] - frame.vertices[b], frame.dirs[a] - frame.dirs[b]
        along = turn[:, :, axis] * (piece.offsets[:, axis : axis + 1] / length)
        rest += along * abs(across[axis])
        dirs[:, :, :10] += along[..., None] * (np.sign(across[axis]) * growth[axis, :10])
    return rest, dirs, weights


def _parts(piece: Piece, rest: np.ndarray) -> np.ndarray:
    """(N,) "top", "bottom" or "whole" of a suit's vertices, by what hangs together and where it lies."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([piece.faces[:, [0, 1]], piece.faces[:, [1, 2]]])
    count, label = connected_components(coo_array((np.ones(len(ends)), ends.T), shape=(len(rest),) * 2), False)
    sizes = np.bincount(label)
    large = np.flatnonzero(sizes >= 200).tolist()
    centres = np.stack([rest[label == k].mean(0) for k in range(count)])
    kind: dict[int, str] = {}
    for k in large:
        low, high = rest[label == k].min(0)[1], rest[label == k].max(0)[1]
        kind[k] = "top" if low > -0.3 and high > 0.22 else "whole" if high > 0.3 and low < -0.5 else "bottom"
    for k in range(count):
        if k not in kind:  # buttons, zips
            nearest = np.array([np.linalg.norm(rest[label == b] - centres[k], axis=1).min() for b in large])
            kind[k] = kind[large[int(nearest.argmin())]]
    return np.array([kind[k] for k in label])


def _item(
    piece: Piece, kind: str, labels: np.ndarray, fitted: tuple[np.ndarray, np.ndarray, np.ndarray],
    frame: base_mesh.Scaffold, body: Mapping[str, np.ndarray],
) -> Item:  # fmt: skip
    from scipy.spatial import cKDTree

    mine = labels == kind
    new = np.cumsum(mine) - 1
    inside = mine[piece.faces].all(1)
    faces, uv_faces = new[piece.faces[inside]].astype(np.int32), piece.uv_faces[inside]
    rest, dirs, weights = (x[mine] for x in fitted)
    strongest = np.argsort(-weights, 1, kind="stable")[:, :SKIN_JOINTS]
    strong = np.take_along_axis(weights, strongest, 1)

    skin = body["v_template"].astype(np.float64)
    distance, near = cKDTree(skin).query(rest, k=3)
    near_weights = 1 / (distance + 0.005)
    hides = np.zeros(len(skin), np.float32)
    covered = frame.body_of_base[piece.covers]
    covered = covered[covered >= 0]
    if len(covered):
        # What a suit hides belongs to the part that lies over it.
        owner = cKDTree(fitted[0]).query(skin[covered])[1]
        hides[covered[labels[owner] == kind]] = 1
    if kind == "hat":
        hides = _under_hat(skin, rest)
    picture, textured = _picture(piece, _TEXTURE[kind])
    uv = piece.uv - np.floor(piece.uv[uv_faces].reshape(-1, 2).min(0))  # some lie a whole tile aside
    return Item(
        name=piece.name, kind=kind, rest=np.ascontiguousarray(rest, np.float32),
        dirs=np.ascontiguousarray(dirs, np.float32), joints=strongest.astype(np.int32),
        weights=np.ascontiguousarray(strong / strong.sum(1, keepdims=True), np.float32), near=near.astype(np.int32),
        near_weights=np.ascontiguousarray(near_weights / near_weights.sum(1, keepdims=True), np.float32), faces=faces,
        uv=np.ascontiguousarray(uv, np.float32), uv_faces=np.ascontiguousarray(uv_faces, np.int32),
        texels=_pyramid(picture), size=len(picture), tone=_tone(picture, uv, uv_faces),
        density=_density(rest, faces, uv, uv_faces) * len(picture),
        opaque=bool(picture[..., 3].min() > 250) or kind in ("top", "bottom", "whole", "shoes", "hat", "teeth"),
        textured=textured, hides=hides, draws_in=_draws_in(skin, hides, rest),
    )  # fmt: skip


def _under_hat(skin: np.ndarray, hat: np.ndarray) -> np.ndarray:
    """Skin of the head with hat above it."""
    hides = np.zeros(len(skin), np.float32)
    for k in np.flatnonzero(skin[:, 1] > 0.6):
        above = (np.abs(hat[:, [0, 2]] - skin[k, [0, 2]]).max(1) < 0.015) & (hat[:, 1] > skin[k, 1] - 0.03)
        hides[k] = above.any() and skin[k, 1] > hat[:, 1].min() + 0.02
    return hides


def _draws_in(skin: np.ndarray, hides: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Skin near the hidden part and near the cloth, fading out over `_RUNG` metres."""
    from scipy.spatial import cKDTree

    if not hides.any():
        return np.zeros(len(skin), np.float32)
    from_hidden = cKDTree(skin[hides > 0]).query(skin, distance_upper_bound=_RUNG)[0]
    from_cloth = cKDTree(rest).query(skin, distance_upper_bound=_RUNG)[0]
    fade = (1 - from_hidden / _RUNG).clip(0, 1) * (1 - from_cloth / _RUNG).clip(0, 1) ** 0.5
    return np.nan_to_num(fade, posinf=0, neginf=0).astype(np.float32)


def _picture(piece: Piece, size: int) -> tuple[np.ndarray, bool]:
    """The texture (size,size,4) uint8 RGBA, v up; white without one."""
    image = cv2.imread(str(piece.texture), cv2.IMREAD_UNCHANGED) if piece.texture else None
    if image is None:
        return np.full((8, 8, 4), 255, np.uint8), False
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    alpha = image[..., 3:] if image.shape[2] == 4 else np.full((*image.shape[:2], 1), 255, np.uint8)
    # Averaged with alpha, and coloured beyond its edge: no fringe of the paper that hair was painted on.
    share = alpha.astype(np.float32) / 255
    color = cv2.resize(image[..., 2::-1] * share, (size, size), interpolation=cv2.INTER_AREA)
    weight = cv2.resize(share, (size, size), interpolation=cv2.INTER_AREA)[..., None]
    wide, wide_weight = cv2.GaussianBlur(color, (0, 0), 6), cv2.GaussianBlur(weight, (0, 0), 6)[..., None]
    mixed = (color + 0.02 * wide) / np.maximum(weight + 0.02 * wide_weight, 1e-4)
    picture = np.concatenate([mixed.clip(0, 255), 255 * weight], 2).round().astype(np.uint8)
    return np.ascontiguousarray(picture[::-1]), True


def _pyramid(picture: np.ndarray) -> np.ndarray:
    levels = [picture]
    for _ in range(LEVELS - 1):
        side = max(len(levels[-1]) // 2, 1)
        levels.append(cv2.resize(levels[-1], (side, side), interpolation=cv2.INTER_AREA))
    return np.concatenate([level.reshape(-1, 4) for level in levels])


def _tone(picture: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    at = ((uv[uv_faces].mean(1) % 1) * len(picture)).astype(int).clip(0, len(picture) - 1)
    seen = picture[at[:, 1], at[:, 0]].astype(np.float64)
    weight = seen[:, 3:] + 1
    return ((srgb_to_linear(seen[:, :3] / 255) * weight).sum(0) / weight.sum()).clip(0.004, 1).astype(np.float32)


def _density(rest: np.ndarray, faces: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray) -> float:
    def area(points: np.ndarray) -> np.ndarray:
        a, b = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
        a, b = (np.pad(x, ((0, 0), (0, 3 - x.shape[1]))) for x in (a, b))
        return np.linalg.norm(np.cross(a, b), axis=1)

    return float(np.sqrt(area(uv[uv_faces].astype(np.float64)).sum() / max(area(rest[faces]).sum(), 1e-9)))


def _write(path: Path, items: list[Item]) -> None:
    arrays = {f"{k}/{f.name}": np.asarray(getattr(i, f.name)) for k, i in enumerate(items) for f in fields(Item)}
    with whole(path) as part, open(part, "xb") as file:
        np.savez(file, allow_pickle=False, count=np.array(len(items)), **arrays)


def _read(path: Path) -> list[Item]:
    with np.load(path, allow_pickle=False) as file:
        return [
            Item(**{f.name: v.item() if (v := file[f"{k}/{f.name}"]).ndim == 0 else v for f in fields(Item)})
            for k in range(int(file["count"]))
        ]
