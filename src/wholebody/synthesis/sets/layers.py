"""Sets of layers on disk: people drawn once with alpha, to be composed over other backgrounds again and again.

A set is a folder of shards. `layers-00000.bin` holds pictures one after the other (colour as JPEG, alpha and, in newer
sets, the shadow on the ground as PNG); `layers-00000.npz` holds where each begins and the truth of all, stacked: the
fields of `Sample`. The .npz appears last, so that a shard that can be seen is complete and a set can be read while it
grows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np

from wholebody.data.sample import Sample
from wholebody.errors import BadInput
from wholebody.files.image import check_size
from wholebody.files.npz import SafeNpz
from wholebody.files.whole import whole
from wholebody.synthesis.render import Layer

_FILE_FIELDS = ("dataset", "image_path", "image_hw", "joint_cam_valid", "camera_valid", "gender", "mesh_path", "kid",
                "flat_hand", "extrinsic_rotation")  # fmt: skip
"""What only people of real sets have: at their defaults in synthetic ones, so not stored."""
_ARRAYS = [
    f.name for f in fields(Sample) if f.name not in ("image", "mask", "id", "body", "frame_xyxy", *_FILE_FIELDS)
] + ["frame_xyxy"]


class LayerSet:
    """The layers in a folder: `len(set)`, `set.get(i)`. Shards are memory-mapped; safe to use in forked workers."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        found = sorted(p for p in self.folder.glob("layers-*.npz") if re.fullmatch(r"layers-\d+", p.stem))
        if not found:
            raise BadInput(
                f"no layers (layers-*.npz) in {folder}: write some with `wholebody synth --layers --out {folder}`"
            )
        self._shards = [_Shard(p) for p in found]
        self._first = np.cumsum([0] + [len(s) for s in self._shards])

    def __len__(self) -> int:
        return int(self._first[-1])

    def get(self, index: int) -> Layer:
        """Layer number `index`, decoded."""
        if not 0 <= index < len(self):
            raise IndexError(f"layer {index} of {len(self)}")
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._shards[shard].get(index - int(self._first[shard]))

    def samples(self) -> dict[str, np.ndarray]:
        """The truth of all layers, stacked: name of the field -> (N, ...). For statistics, without decoding a
        picture."""
        return {name: np.concatenate([s.truth[name] for s in self._shards]) for name in _ARRAYS}


_MOST_PIXELS = 4096 * 4096


class _Shard:
    def __init__(self, path: Path):
        self.path = path
        self.truth = _read_arrays(path, (*_ARRAYS, "id", "body", "offsets"))
        self.offsets = self.truth.pop("offsets")
        try:
            self.bytes = np.memmap(path.with_suffix(".bin"), np.uint8, "r")
        except (OSError, ValueError) as error:
            raise BadInput(f"{path.with_suffix('.bin')}: cannot be read ({error}); write the set again") from error
        if (
            self.offsets.dtype.kind not in "iu" or self.offsets.ndim != 2 or self.offsets.shape[1] < 3
            or (self.offsets < 0).any() or (np.diff(self.offsets, axis=1) < 0).any()
            or (self.offsets.size and self.offsets.max() > len(self.bytes))
        ):  # fmt: skip
            raise BadInput(f"{path} speaks of pictures that its .bin does not hold; write the set again")

    def __len__(self) -> int:
        return len(self.offsets)

    def get(self, k: int) -> Layer:
        start, middle, end = self.offsets[k][:3]
        for a, b in zip(self.offsets[k][:-1], self.offsets[k][1:], strict=True):
            if b > a:  # not everybody has a shadow
                check_size(self.bytes[a:b].tobytes(), f"layer {k} of {self.path}", _MOST_PIXELS)
        color = cv2.imdecode(self.bytes[start:middle], cv2.IMREAD_COLOR)
        alpha = cv2.imdecode(self.bytes[middle:end], cv2.IMREAD_GRAYSCALE)
        if color is None or alpha is None:
            raise BadInput(f"layer {k} of {self.path} cannot be decoded: the file is damaged; write the set again")
        shadow = None
        if len(self.offsets[k]) > 3 and self.offsets[k][3] > end:
            shadow = cv2.imdecode(self.bytes[end : self.offsets[k][3]], cv2.IMREAD_GRAYSCALE)
        return Layer(cv2.cvtColor(color, cv2.COLOR_BGR2RGB), alpha, _sample(self.truth, k), shadow)


def write_shard(folder: str | Path, number: int, layers: Sequence[Layer], quality: int = 93) -> Path:
    """Write one shard; returns the path of its .npz. A failure leaves no half-written shard to be read."""
    folder = Path(folder)
    parts: list[bytes] = []
    offsets, at = [], 0
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    for layer in layers:
        color = cv2.imencode(".jpg", cv2.cvtColor(layer.color, cv2.COLOR_RGB2BGR), options)[1].tobytes()
        alpha = cv2.imencode(".png", layer.alpha, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        shadow = b"" if layer.shadow is None else cv2.imencode(".png", layer.shadow)[1].tobytes()
        ends = np.cumsum([at, len(color), len(alpha), len(shadow)])
        offsets.append(ends)
        at = int(ends[-1])
        parts += [color, alpha, shadow]
    target = folder / f"layers-{number:05d}.npz"
    with whole(target.with_suffix(".bin")) as part, open(part, "xb") as file:
        file.writelines(parts)
    write_truth(target, [layer.sample for layer in layers], offsets=np.array(offsets, np.int64))
    return target


def write_truth(path: Path, samples: Sequence[Sample], **more: np.ndarray) -> None:
    """The truth of several samples, stacked, in one .npz that appears complete or not at all."""
    arrays = {name: np.stack([np.asarray(getattr(s, name)) for s in samples]) for name in _ARRAYS}
    arrays["id"], arrays["body"] = np.array([s.id for s in samples]), np.array([s.body for s in samples])
    write_arrays(path, np.savez_compressed, arrays | more)


def write_arrays(path: Path, save: Callable[..., None], arrays: dict[str, np.ndarray]) -> None:
    """`save` (`np.savez` or `np.savez_compressed`) to `path`, whole or not at all. Raises OutputError."""
    with whole(path) as part, open(part, "xb") as file:
        save(file, allow_pickle=False, **arrays)


def read_truth(path: str | Path) -> list[Sample]:
    """The samples of one truth file, without their pictures."""
    arrays = _read_arrays(Path(path), (*_ARRAYS, "id", "body"))
    return [_sample(arrays, k) for k in range(len(arrays["id"]))]


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of a truth file, a row a person. Raises BadInput for one that is damaged."""
    with SafeNpz(path) as file:
        missing = [name for name in names if name not in file]
        if missing:
            raise BadInput(f"{path} is no set of this version: it lacks {', '.join(missing[:3])}; write it again")
        arrays = {name: np.asarray(file[name]) for name in names}
    if len({len(array) if array.ndim else -1 for array in arrays.values()}) != 1:
        raise BadInput(f"{path}: its arrays are of different lengths; write it again")
    return arrays


def _sample(stacked: dict[str, np.ndarray], k: int) -> Sample:
    known = {name: stacked[name][k] for name in _ARRAYS}
    return Sample(id=str(stacked["id"][k]), body=str(stacked["body"][k]), **known)
