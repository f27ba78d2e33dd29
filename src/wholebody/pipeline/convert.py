"""`wholebody convert`: results of one body as parameters of another.

A person of a photo (`NAME_personN.npz`) or of a film (the AMASS layout), in; the same file for the other body, out. The
two bodies' surfaces are matched once for each pair of files, and kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wholebody.errors import AssetMissing, BadInput
from wholebody.files.npz import SafeNpz, npz_bytes, read_arrays
from wholebody.pipeline.config import ConvertConfig
from wholebody.pipeline.convert_anny import AnnyFile, is_anny, read_anny
from wholebody.pipeline.convert_tables import Rows, read_labels, read_table

if TYPE_CHECKING:
    from wholebody.body.convert import BodyParameters
    from wholebody.body.correspondence import Correspondence
    from wholebody.body.skinned import SkinnedBody

FAMILIES = ("open", "smpl", "smplh", "smplx")
_WIDTHS = {72: "smpl", 156: "smplh", 165: "smplx"}  # of a row of AMASS's poses
_VERSION = 1  # of kept correspondences


@dataclass(frozen=True)
class Written:
    """One converted file, and how far the two skins are from each other on average and at worst, in metres."""

    path: Path
    frames: int
    mean_error: float
    worst_error: float
    expression_kept: bool


@dataclass(frozen=True)
class _Result:
    """What a file of results holds."""

    path: Path
    parameters: BodyParameters
    body: str
    flat_hand_mean: bool
    is_film: bool
    rest: dict[str, np.ndarray]  # what does not depend on the body, passed on
    conventions: dict[str, Any]

    @property
    def person(self) -> np.ndarray | None:
        return np.zeros(len(self.parameters)) if self.is_film else None

    def content(self, parameters: BodyParameters, target: SkinnedBody, error: np.ndarray) -> bytes:
        return npz_bytes(_arrays(self, parameters, target, error))


def convert(
    config: ConvertConfig, say: Callable[[str], None] = print, *, beside: bool = False
) -> list[Written]:
    """Convert every result; raises BadInput or AssetMissing before anything is written where that can be known.
    beside: write each beside its result, which lies in `config.out`."""
    from wholebody.files.whole import write_bytes
    from wholebody.output.files import check_folder
    from wholebody.pipeline.record import Protected, Record

    paths = _files(config.results)
    results = [_read(path) for path in paths]
    names = sorted({result.body for result in results})
    if len(names) > 1:
        raise BadInput(f"these results are of different bodies ({', '.join(names)}): convert each kind by itself.")
    target, prepare = _plan(config, names[0], results)
    places = [
        (result.path.parent if beside else config.out) / f"{result.path.stem}_{target}{result.path.suffix}"
        for result in results
    ]
    if len(set(places)) < len(places):
        raise BadInput("two results of the same name would be written to one file: convert their folders one by one.")
    record = Record(config.out, config.overwrite)
    refusal = record.refusal([place for place in places if place.exists()], Protected(paths, {}))
    if refusal:
        raise BadInput(refusal)
    run = prepare(say)
    check_folder(config.out)
    record.begin(record.before)
    done = []
    for result, place in zip(results, places, strict=True):
        content, errors, expression_kept = run(result)
        record.announce(place, content)
        write_bytes(place, content)
        done.append(Written(place, len(errors), float(errors.mean()), float(errors.max()), expression_kept))
    return done


Run = Callable[[Any], tuple[bytes, np.ndarray, bool]]
"""From a result to the converted file's content, the error of each row in metres, and whether the face came along."""


def _plan(config: ConvertConfig, body: str, results: list[Any]) -> tuple[str, Callable[[Callable[[str], None]], Run]]:
    """The name of the target, and what prepares the conversion, which may take a while. BadInput or AssetMissing where
    it cannot be."""
    if "anny" in (config.to, body):
        return _plan_of_anny(config, body, results)
    from wholebody.body.convert import Converter

    target_path, family = _target(config)
    source = load_skinned(_source(config, body))
    target = load_skinned(target_path)
    if family and target.name != family:
        raise BadInput(f"--to {family}, but {target_path} is a body of kind {target.name}.")

    def prepare(say: Callable[[str], None]) -> Run:
        matched = correspondence(source, target, say) if config.transfer is None else _transfer(config, source, target)
        converter = Converter(source, target, matched)

        def run(result: _Result | Rows) -> tuple[bytes, np.ndarray, bool]:
            converted = converter(_whole_hands(result, source), result.person)
            content = result.content(converted.parameters, target, converted.error)
            return content, converted.error, converted.expression_kept

        return run

    return target.name, prepare


def _plan_of_anny(
    config: ConvertConfig, body: str, results: list[Any]
) -> tuple[str, Callable[[Callable[[str], None]], Run]]:
    from wholebody.body.anny_body import check_settings
    from wholebody.body.makehuman import check_package
    from wholebody.pipeline.convert_anny import from_anny, to_anny

    if {config.to, body} != {"anny", "open"}:
        raise BadInput(
            f"between {body} and {config.to} the way leads over the open body: convert with --to open first, then what "
            f"it writes with --to {config.to}."
        )
    check_package()
    if config.to == "anny":
        tables = [result.path for result in results if isinstance(result, Rows)]
        if tables:
            raise BadInput(f"{tables[0]}: of tables and labels there is no form with Anny's parameters.")

        def there(say: Callable[[str], None]) -> Run:
            source = load_skinned("open")
            converter = to_anny(source, say)
            return lambda result: converter(result, _whole_hands(result, source))

        return "anny", there
    for result in results:
        check_settings(result.model)

    def back(say: Callable[[str], None]) -> Run:
        target = load_skinned("open")
        converter = from_anny([result.model for result in results], target, say)

        def run(result: Any) -> tuple[bytes, np.ndarray, bool]:
            found, error, kept = converter(result)
            return npz_bytes(_arrays(result, found, target, error)), error, kept

        return run

    return "open", back


# --- bodies -----------------------------------------------------------------------------------------------------------


def load_skinned(path: str | Path) -> SkinnedBody:
    """The body "open", or of a file of SMPL, SMPL-H or SMPL-X. BadInput or AssetMissing say what is wrong."""
    from wholebody.body.assets import read_body_file
    from wholebody.body.skinned import SkinnedBody
    from wholebody.files.unpickle import as_dense, read_pickle

    if str(path) == "open":
        return SkinnedBody.of(read_body_file("open"))
    path = Path(path)
    if not path.is_file():
        raise AssetMissing(f"there is no body file at {path}.")
    if path.suffix == ".pkl":
        stored = read_pickle(path)
        if not isinstance(stored, dict):
            raise BadInput(f"{path} holds a {type(stored).__name__}, not the dictionary of a body file.")
    else:
        with SafeNpz(path) as file:
            stored = {name: file[name] for name in file if name in (*_BODY_KEYS, "corrective_offsets")}
    joints = np.asarray(as_dense(stored["weights"])).shape[-1] if "weights" in stored else 55
    if joints == 55:
        return SkinnedBody.of(read_body_file(path))
    return SkinnedBody.from_file_arrays({key: as_dense(value) for key, value in stored.items()}, path)


_BODY_KEYS = (
    "v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "hands_meanl", "hands_meanr",
)  # fmt: skip


def find_family(path: str | Path, family: str, gender: str = "neutral") -> Path:
    """The file of that family and gender: `path` itself, or in a folder `SMPL[H|X]_{GENDER}` or `{gender}/model`."""
    path = Path(path).expanduser()
    if path.is_file():
        return path
    if not path.is_dir():
        raise AssetMissing(f"there is no body file or folder at {path}.")
    names = [f"{family.upper()}_{gender.upper()}", f"{gender}/model"]
    for folder in (path, path / family, path / "models" / family):
        for name in names:
            for suffix in (".npz", ".pkl"):
                if (folder / f"{name}{suffix}").is_file():
                    return folder / f"{name}{suffix}"
    raise AssetMissing(
        f"the folder {path} has no {gender} body of kind {family}: {family.upper()}_{gender.upper()}.npz or .pkl is "
        f"looked for there, in {family}/ and in models/{family}/. Name the file itself with --body."
    )


def _target(config: ConvertConfig) -> tuple[str | Path, str | None]:
    if config.to == "open":
        return "open", "open"
    if config.to in FAMILIES:
        if config.body is None:
            raise BadInput(f"--to {config.to} needs the licensed body: give its file or folder with --body.")
        return find_family(config.body, config.to, config.gender), config.to
    if not Path(config.to).exists():
        raise BadInput(f"--to {config.to}: neither a body file nor one of anny, {', '.join(FAMILIES)}.")
    return Path(config.to), None


def _source(config: ConvertConfig, body: str) -> str | Path:
    if body == "open":
        return "open"
    if body not in FAMILIES:
        raise BadInput(f"the results are of an unknown body, {body!r}; known are anny, {', '.join(FAMILIES)}.")
    if config.source is None:
        raise BadInput(f"the results are of the body {body}: give its file or folder with --source.")
    return find_family(config.source, body, config.gender)


def correspondence(source: SkinnedBody, target: SkinnedBody, say: Callable[[str], None] = print) -> Any:
    """How the target lies on the source: found once for each pair of bodies, and kept in the cache folder."""
    from wholebody.body.correspondence import Correspondence, find_correspondence
    from wholebody.files.cache import cache_folder
    from wholebody.files.whole import write_whole

    folder = cache_folder()
    place = None
    if folder is not None:
        place = folder / "correspondence" / f"{_fingerprint(source)}-{_fingerprint(target)}-{_VERSION}.npz"
        if place.is_file():
            try:
                with SafeNpz(place) as kept:
                    found = Correspondence(kept["corners"], kept["weights"], kept["distance"])
                if len(found.corners) == target.num_vertices and found.corners.max() < source.num_vertices:
                    return found
            except BadInput:
                pass  # damaged: found anew
    say(f"matching the surfaces of {source.name} and {target.name}: some seconds, once")
    found = find_correspondence(source, target)
    if place is not None:
        arrays = {"corners": found.corners, "weights": found.weights, "distance": found.distance}

        def write(part: Path) -> None:
            with open(part, "wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

        write_whole(place, write)
    return found


def _transfer(config: ConvertConfig, source: SkinnedBody, target: SkinnedBody) -> Correspondence:
    """What the official transfer file says (`smplx2smpl_deftrafo_setup.pkl`, ...): a sparse matrix from the source's
    vertices, followed by as many columns for its normals, which are not used, to the target's."""
    from wholebody.body.correspondence import Correspondence
    from wholebody.files.unpickle import read_pickle, sparse_entries

    assert config.transfer is not None
    stored = read_pickle(config.transfer)
    if not isinstance(stored, dict) or not {"mtx", "matrix"} & stored.keys():
        raise BadInput(f"{config.transfer}: holds no matrix 'mtx': it is no transfer file.")
    rows, columns, values, (count, width) = sparse_entries(stored.get("mtx", stored.get("matrix")))
    if count != target.num_vertices or width not in (source.num_vertices, 2 * source.num_vertices):
        raise BadInput(
            f"{config.transfer} is for {count} and {width // 2} vertices; {target.name} has {target.num_vertices}, and "
            f"{source.name} {source.num_vertices}."
        )
    of_skin = (columns < source.num_vertices) & (values != 0)
    rows, columns, values = rows[of_skin], columns[of_skin], values[of_skin].astype(np.float64)
    order = np.argsort(rows, kind="stable")
    rows, columns, values = rows[order], columns[order], values[order]
    each = np.bincount(rows, minlength=count)
    total = np.bincount(rows, values, minlength=count)
    if each.max() > 3 or not np.isfinite(values).all() or total.min() < 0.5:
        raise BadInput(f"{config.transfer}: its rows are not points on triangles.")
    place = np.arange(len(rows)) - np.repeat(np.cumsum(each) - each, each)
    corners, weights = np.zeros((count, 3), np.int64), np.zeros((count, 3))
    corners[rows, place], weights[rows, place] = columns, values
    return Correspondence(corners, weights / total[:, None], np.zeros(count))


def _fingerprint(body: SkinnedBody) -> str:
    digest = hashlib.sha256()
    for value in (body.template, body.weights):
        digest.update(value.numpy().tobytes())
    digest.update(np.ascontiguousarray(body.faces).tobytes())
    return f"{body.name}-{digest.hexdigest()[:16]}"


# --- files of results -------------------------------------------------------------------------------------------------


def _files(results: tuple[str, ...]) -> list[Path]:
    from wholebody.files.reading import open_file

    found: list[Path] = []
    for name in results:
        path = Path(name)
        if path.is_dir():
            inside = sorted(path.glob("*_person*.npz")) or sorted(path.glob("*.parquet"))
            inside = inside or sorted([*path.glob("people/*.parquet"), *path.glob("motions/*.parquet")])
            if not inside:
                raise BadInput(f"the folder {path} holds no person files (NAME_personN.npz) and no tables (.parquet).")
            found += inside
        elif path.exists():
            open_file(path).close()  # a pipe or a device is called that
            found.append(path)
        else:
            raise BadInput(f"there is no result at {path}.")
    return found


def _read(path: Path) -> _Result | Rows | AnnyFile:
    """By its kind: a person's file, a table, or labels."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return read_table(path)
    return read_labels(path) if path.suffix.lower() == ".json" else read_result(path)


def read_result(path: Path) -> _Result | AnnyFile:
    """A person's file of a photo or a film, or an Anny file. BadInput says what is missing."""
    stored = read_arrays(path)
    return read_anny(path, stored) if is_anny(stored) else _person(path, stored)


def _person(path: Path, stored: dict[str, Any]) -> _Result:
    from wholebody.body.convert import BodyParameters

    if "poses" in stored and "trans" in stored:
        return _film(path, stored)
    needed = ("global_orient", "body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "betas", "expression")
    missing = [name for name in (*needed, "conventions") if name not in stored]
    if missing or not ("cam_trans" in stored or "transl" in stored):
        raise BadInput(f"{path} is no result of a person: it has no {', '.join(missing) or 'cam_trans'}.")
    try:
        conventions = json.loads(str(stored["conventions"]))
        body, flat = str(conventions["body"]), bool(conventions["flat_hand_mean"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(f"{path}: its conventions cannot be read ({error!r}).") from error

    def rows(name: str, *shape: int) -> np.ndarray:
        return _shaped(path, name, stored[name], (1, *shape))

    place = "cam_trans" if "cam_trans" in stored else "transl"
    zero = np.zeros((1, 3))
    parameters = BodyParameters(
        rows("global_orient", 3), rows("body_pose", 21, 3), rows("left_hand_pose", 15, 3),
        rows("right_hand_pose", 15, 3), rows("jaw_pose", 3),
        rows("leye_pose", 3) if "leye_pose" in stored else zero,
        rows("reye_pose", 3) if "reye_pose" in stored else zero,
        rows("betas", 10), rows("expression", 10), rows(place, 3),
    )  # fmt: skip
    kept = ("box_xyxy", "score", "focal_px", "principal_px")
    rest = {name: stored[name] for name in kept if name in stored}
    return _Result(path, parameters, body, flat, False, rest, conventions)


def _film(path: Path, stored: dict[str, np.ndarray]) -> _Result:
    from wholebody.body.convert import BodyParameters

    poses = np.asarray(stored["poses"])
    width = poses.shape[-1] if poses.ndim == 2 else 0
    if width not in _WIDTHS:
        raise BadInput(f"{path}: 'poses' is {poses.shape}; rows of 72 (SMPL), 156 (SMPL-H) or 165 (SMPL-X) are known.")
    family, count = _WIDTHS[width], len(poses)
    if count == 0:
        raise BadInput(f"{path} has no frames.")
    turns = _shaped(path, "poses", poses, (count, width)).reshape(count, -1, 3)
    zero, hand = np.zeros((count, 3)), np.zeros((count, 15, 3))
    jaw, left_eye, right_eye = turns[:, 22:25].transpose(1, 0, 2) if family == "smplx" else (zero, zero, zero)
    left, right = (turns[:, -30:-15], turns[:, -15:]) if family != "smpl" else (hand, hand)
    betas = np.atleast_2d(np.asarray(stored["betas"], np.float64))[:, :10] if "betas" in stored else np.zeros((1, 10))
    expression = stored.get("expression", np.zeros((count, 10)))
    parameters = BodyParameters(
        turns[:, 0], turns[:, 1:22], left, right, jaw, left_eye, right_eye,
        np.repeat(betas[:1], count, 0), _shaped(path, "expression", np.asarray(expression)[:, :10], (count, 10)),
        _shaped(path, "trans", stored["trans"], (count, 3)),
        turns[:, 22:24] if family == "smpl" else None,
    )  # fmt: skip
    body = str(stored["body"]) if "body" in stored else family
    # AMASS files hold complete hand poses, without a relaxed hand to be added, unless they say otherwise.
    flat = bool(stored["flat_hand_mean"]) if "flat_hand_mean" in stored else True
    own = ("poses", "trans", "betas", "expression", "surface_model_type", "body", "flat_hand_mean", "gender")
    rest = {name: value for name, value in stored.items() if name not in own}
    return _Result(path, parameters, body, flat, True, rest, {})


def _shaped(path: Path, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.size != int(np.prod(shape)) or not np.isfinite(array).all():
        raise BadInput(f"{path}: {name!r} is {array.dtype} {array.shape}; finite numbers of {shape} belong there.")
    return array.astype(np.float64).reshape(shape)


def _whole_hands(result: _Result | Rows, source: SkinnedBody) -> BodyParameters:
    """Hand poses against a flat hand, as conversion takes them."""
    from dataclasses import replace

    if result.flat_hand_mean:
        return result.parameters
    mean = source.hand_mean.reshape(2, 15, 3)
    return replace(
        result.parameters,
        left_hand_pose=result.parameters.left_hand_pose + mean[0],
        right_hand_pose=result.parameters.right_hand_pose + mean[1],
    )


def _arrays(
    result: _Result | AnnyFile, p: BodyParameters, target: SkinnedBody, error: np.ndarray
) -> dict[str, np.ndarray]:
    rest = dict(result.rest)
    if result.is_film:
        parts = [p.global_orient[:, None], p.body_pose]
        if target.num_joints == 24:
            parts.append(p.hand_turns if p.hand_turns is not None else np.zeros((len(p), 2, 3)))
        else:
            if target.num_joints == 55:
                parts.append(np.stack([p.jaw_pose, p.leye_pose, p.reye_pose], 1))
            parts += [p.left_hand_pose, p.right_hand_pose]
        family = {24: "smpl", 52: "smplh", 55: "smplx"}[target.num_joints]
        return rest | {
            "poses": np.concatenate(parts, 1).reshape(len(p), -1),
            "trans": p.transl,
            "betas": p.betas[0],
            **({"expression": p.expression} if target.num_joints == 55 else {}),
            "gender": np.array(target.gender),
            "surface_model_type": np.array(family),
            "flat_hand_mean": np.array(True),
            "body": np.array(target.name),
            "conversion_error": error,
        }
    names = ["global_orient", "body_pose", "betas", "transl"]
    if target.num_joints > 24:
        names += ["left_hand_pose", "right_hand_pose"]
    if target.num_joints == 55:
        names += ["jaw_pose", "leye_pose", "reye_pose", "expression"]
    arrays = {name: np.asarray(getattr(p, name)[0], np.float32) for name in names}
    if p.hand_turns is not None:  # SMPL's own body pose has 23 joints
        arrays["body_pose"] = np.concatenate([arrays["body_pose"], p.hand_turns[0].astype(np.float32)])
    conventions = result.conventions | {
        "body": target.name, "gender": target.gender, "flat_hand_mean": True, "converted_from": result.body,
        "converted_error_mm": round(1000 * float(error[0]), 2),
    }  # fmt: skip
    return rest | arrays | {"conventions": np.array(json.dumps(conventions))}
