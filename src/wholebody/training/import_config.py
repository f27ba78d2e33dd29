"""A published Python config (OSX's, SMPLer-X's, SMPLest-X's) as a recipe.

Configs are read and never run (`files.python_settings`). Three forms are known: flat assignments (SMPLer-X, and what
OSX's and SMPLer-X's runs save), one nested dictionary (SMPLest-X), and the body of a class (OSX's `config.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wholebody.data.augment import NOTHING
from wholebody.errors import BadInput
from wholebody.files.python_settings import PythonSettings, Unknown, read_python_settings
from wholebody.files.settings import read_toml, to_table
from wholebody.files.text import brief
from wholebody.training.recipes import OF_FAMILY, RECIPES, VITPOSE

SECTIONS = ("data", "train", "model")
"""Of the nested form: those that are read here."""
OTHER_SECTIONS = {
    "inference": "of inference: options of `wholebody predict`",
    "test": "of testing: options of `wholebody evaluate`",
    "log": "where a run is written: --out",
}
WIDTHS = {384: "s", 768: "b", 1024: "l", 1280: "h"}

NUMBERS = {
    "lr": "learning_rate",
    "min_lr": "final_learning_rate",
    "end_epoch": "epochs",
    "train_batch_size": "batch_size",
    "num_thread": "workers",
    "save_epoch": "snapshot_every",
    "print_iters": "log_every",
    "smplx_loss_weight": "published.shape_weight",
    "smplx_shape_weight": "published.shape_weight",
    "smplx_pose_weight": "published.pose_weight",
    "smplx_orient_weight": "published.orient_weight",
    "smplx_kps_3d_weight": "published.joints_weight",
    "smplx_kps_2d_weight": "published.projection_weight",
    "net_kps_2d_weight": "published.positions_weight",
    "hand_root_weight": "published.hand_root_weight",
}
"""Numbers that mean the same here, by their name there."""
_WHOLE = ("end_epoch", "train_batch_size", "num_thread", "save_epoch", "print_iters")
SETS = ("trainset_3d", "trainset_2d", "trainset_humandata")
INTERVAL = "train_sample_interval"

BUILT_IN: dict[str, Any] = {
    "input_img_shape": (512, 384), "input_body_shape": (256, 192), "output_hm_shape": (16, 16, 12),
    "input_hand_shape": (256, 256), "output_hand_hm_shape": (16, 16, 16), "output_face_hm_shape": (8, 8, 8),
    "input_face_shape": (192, 192), "focal": (5000, 5000), "princpt": (96, 128), "body_3d_size": 2,
    "hand_3d_size": 0.3, "face_3d_size": 0.3, "camera_3d_size": 2.5, "upscale": 4, "hand_pos_joint_num": 20,
    "face_pos_joint_num": 72, "num_task_token": 24, "num_noise_sample": 0, "lr_mult": 1,
}  # fmt: skip
"""What the networks, and how they are trained, have built in."""

_FOLDER = "a place on the machine that it was written for: --out, or people.root"
_TESTING = "of testing: options of `wholebody evaluate`"
_AGORA = "AGORA's reader takes shape and root from the best annotations that are there"
LEFT_OUT = {
    "num_gpus": "how many GPUs is said when a run is started: --devices, or NUM_GPU of slurm_train.sh",
    "gpu_ids": "how many GPUs is said when a run is started: --devices, or NUM_GPU of slurm_train.sh",
    "testset": _TESTING,
    "test_batch_size": _TESTING,
    "test_sample_interval": _TESTING,
    "shapy_eval_split": _TESTING,
    "eval_on_train": _TESTING,
    "use_cache": "sets are indexed once: `wholebody data index`",
    "dataset_list": "only where the published code finds its readers",
    "make_same_len": "mixes are said by people.mix",
    "agora_fix_betas": _AGORA,
    "agora_fix_global_orient_transl": _AGORA,
    "agora_valid_root_pose": _AGORA,
    "vis": "pictures are written to vis/ with each snapshot",
    "remove_checkpoint": "snapshots are kept, as many as snapshot_every says",
    "hand_consist_weight": "read by nothing in the published code either",
    "master_port": "chosen when a run is started",
    "local_rank": "chosen when a run is started",
    "feat_dim": "follows from the size",
    "encoder_config_file": "follows from the size",
    **dict.fromkeys(
        ("cur_dir", "root_dir", "output_dir", "model_dir", "vis_dir", "log_dir", "result_dir", "code_dir",
         "config_path", "output_root"), _FOLDER,
    ),
}  # fmt: skip
"""Settings that have no place in a recipe, and why."""
READ = {
    *NUMBERS, *SETS, INTERVAL, "syncbn", "fine_tune", "freeze_encoder", "pretrained_model_path", "continue_train",
    "start_over", "human_model_path", "data_dir", "encoder_pretrained_model_path", "data_strategy", "total_data_len",
    "model_type", "encoder_setting", "decoder_setting", "agora_benchmark", "ubody_finetune", "ubody_benchmark",
    "bbox_ratio", "no_aug", "exp_name", "encoder_config", "decoder_config", "scheduler", "smplx_kps_weight",
}  # fmt: skip
PLACES = {"human_model_path", "data_dir", "encoder_pretrained_model_path", "exp_name"}
"""Of these, places of files: one that is worked out by a call is left out, and the recipe's own is used."""


@dataclass
class Imported:
    """A recipe made of a config. `left_out`: a line for each thing that is not in it, and why."""

    table: dict[str, Any]
    family: str
    left_out: list[str] = field(default_factory=list)


def import_config(path: str | Path) -> Imported:
    """The recipe that a published config describes; what it does not say is as in the recipe of its family.

    Raises BadInput for what is no such config, for one that calls functions, and for settings that only running it
    could tell.
    """
    settings = read_python_settings(path)
    return _Importer(Path(path), *_values_of(settings)).recipe()


def _values_of(settings: PythonSettings) -> tuple[dict[str, Any], list[str], bool]:
    """The settings by their leaf names, of whichever form; what was left out on the way; whether they are nested."""
    left_out = [f"{text}: imports are not run" for text in settings.imports]
    values, path = settings.values, settings.path
    nested = next((v for v in values.values() if isinstance(v, dict) and _is_nested(v)), None)
    nested = values if nested is None and _is_nested(values) else nested
    flat = nested is None and any(_is_known(name) for name in values)
    if flat or nested is not None:
        if settings.calls:
            some = "; ".join(settings.calls[:5]) + ("; ..." if len(settings.calls) > 5 else "")
            raise BadInput(
                f"{path} calls functions ({some}). "
                "A config is read and not run, and what a call changes cannot be known: take such lines out"
            )
        left_out += [f"{text}: is not run" for text in settings.rest]
        if nested is None:
            return _named(values), left_out, False
        return _flattened(path, nested, left_out), left_out, True
    for name, body in settings.classes.items():
        if any(_is_known(key) for key in body):
            left_out += [f"{text}: is not run" for text in (*settings.rest, *settings.calls)]
            left_out.append(f"what is outside the body of class {name}: is not run")
            return _named(body), left_out, False
    unknown = [f"{name} ({value})" for name, value in values.items() if isinstance(value, Unknown)]
    why = f"; what only running it could tell: {', '.join(unknown[:3])}" if unknown else ""
    raise BadInput(f"{path}: no setting of OSX, SMPLer-X or SMPLest-X is written in it{why}")


def _is_nested(values: Mapping[str, Any]) -> bool:
    return any(isinstance(values.get(section), dict) for section in SECTIONS)


def _is_known(name: str) -> bool:
    return name in READ or name in BUILT_IN or name in LEFT_OUT or name.endswith(f"_{INTERVAL}")


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without names that are only imported modules and functions."""
    return {
        name: value
        for name, value in values.items()
        if not (isinstance(value, Unknown) and not _is_known(name) and "import" in value.why) and name[:2] != "__"
    }


def _flattened(path: Path, nested: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for section, content in nested.items():
        if section in SECTIONS:
            if isinstance(content, Unknown):
                raise BadInput(f"{path}: its section {section!r} cannot be read without running it: {content}")
            if not isinstance(content, dict):
                raise BadInput(f"{path}: its section {section!r} is {brief(content)}, not a table of settings")
            values |= {str(name): value for name, value in content.items()}
        elif section in OTHER_SECTIONS:
            left_out.append(f"{section}: {OTHER_SECTIONS[section]}")
            if section == "log" and isinstance(content, dict) and isinstance(content.get("exp_name"), str):
                values["exp_name"] = content["exp_name"]
        elif not (isinstance(content, Unknown) and "import" in content.why):
            left_out.append(f"{section} = {_shown(content)}: is no section that the published code reads")
    return values


class _Importer:
    """Goes over the settings of one config."""

    def __init__(self, path: Path, values: dict[str, Any], left_out: list[str], nested: bool) -> None:
        self.path, self.values, self.left_out, self.nested = path, values, left_out, nested
        self._check_known()

    def _check_known(self) -> None:
        """All that is needed and that only running the file could tell is named at once."""
        problems = []
        for name, value in list(self.values.items()):
            if not isinstance(value, Unknown):
                continue
            needed = name in READ or name.endswith(f"_{INTERVAL}")
            if needed and name not in PLACES:
                problems.append(f"{name} ({value})")
                continue
            del self.values[name]
            why = LEFT_OUT.get(name, "the recipe's own is used" if needed else "is no setting that is used here")
            self.left_out.append(f"{name} ({value}): {why}")
        if problems:
            raise BadInput(
                f"{self.path}: only running it could tell {len(problems)} of its settings, and configs are not run: "
                f"{'; '.join(problems)}. Write the values out"
            )

    def recipe(self) -> Imported:
        family, size, variant = self._network()
        table = read_toml(RECIPES / f"{OF_FAMILY[family]}.toml")
        table.pop("network_is", None)
        people: dict[str, Any] = table["people"]
        for name in ("mix_of", "sets", "epoch_length"):
            people.pop(name, None)
        table |= {"name": self._name(), "family": family, "network": size, "variant": variant, "precision": "fp32"}
        table["checkpoint_activations"] = False
        # As the published code has them where a config does not say.
        table["published"] = {}
        table["sync_norms"] = bool(self._take("syncbn", family == "osx"))
        self._numbers(table)
        self._places(table)
        self._sets(people, family, table["published"])
        self._what_learns(table)
        if self._take("no_aug", False):
            people["augment"] = to_table(NOTHING)
        self._box_ratio(family)
        self._rest()
        if family != "osx":
            self.left_out.append(
                "precision: as published, fp32; precision=bf16 and checkpoint_activations=true save memory"
            )
        return Imported(table, family, self.left_out)

    def _take(self, name: str, default: Any = None) -> Any:
        return self.values.pop(name, default)

    def _network(self) -> tuple[str, str, str]:
        """Family, size and variant."""
        kind = str(self._take("model_type", "") or "").lower()
        setting = str(self._take("encoder_setting", "") or "").lower()
        variant = str(self._take("decoder_setting", "") or "")
        encoder = self._take("encoder_config", {})
        decoder = self._take("decoder_config", {})
        if "wodecoder" in kind.replace("_", ""):
            variant = "wo_decoder"
        if self.nested or "smplest" in kind:
            self._check_huge(encoder, decoder, kind)
            return "smplest_x", "h", "normal"
        found = re.search(r"(smpler_x|osx)_([sblh])\b", f"{kind} {setting}")
        size = found[2] if found else self._size()
        old = not found and kind in ("", "osx_wodecoder") and ("smplx_pose_weight" in self.values or size in "sh")
        if (found and found[1] == "smpler_x") or "smpler" in kind or old:
            return "smpler_x", size, "normal"
        if size not in "bl":
            raise BadInput(f"{self.path}: no OSX of size {size!r} was published: model_type {kind!r}")
        if variant not in ("", "normal", "wo_face_decoder", "wo_decoder"):
            raise BadInput(
                f"{self.path}: decoder_setting is {variant!r}; known are normal, wo_face_decoder and wo_decoder"
            )
        return "osx", size, variant or "normal"

    def _check_huge(self, encoder: Any, decoder: Any, kind: str) -> None:
        """SMPLest-X has one size."""
        published = {"embed_dim": 1280, "depth": 32, "num_heads": 16, "task_tokens_num": 80, "patch_size": 16,
                     "mlp_ratio": 4, "drop_path_rate": 0.55, "qkv_bias": True, "ratio": 1}  # fmt: skip
        for where, given, known in (("encoder_config", encoder, published),
                                    ("decoder_config", decoder, {"feat_dim": 1280, "dim_out": 512})):  # fmt: skip
            if not isinstance(given, dict):
                raise BadInput(f"{self.path}: {where} is {brief(given)}, not a table of settings")
            wrong = {name: given[name] for name in known if name in given and given[name] != known[name]}
            if wrong:
                raise BadInput(
                    f"{self.path}: {where} asks for {_listed(wrong)}; the published SMPLest-X, which is trained here, "
                    f"has {_listed({name: known[name] for name in wrong})}"
                )
        if encoder.get("use_checkpoint"):
            self.left_out.append("encoder_config.use_checkpoint = True: checkpoint_activations=true does that")
        if kind and "huge" not in kind and "smplest_x_h" not in kind and kind != "smplest_x":
            raise BadInput(f"{self.path}: model_type is {kind!r}; SMPLest-X was published as vit_huge alone")

    def _size(self) -> str:
        for name in ("encoder_config_file", "encoder_pretrained_model_path"):
            text = str(self.values.get(name, "")).lower()
            for size, word in VITPOSE.items():
                if word in text:
                    return size
            if found := re.search(r"vit_([sblh])\b", text):
                return found[1]
        width = self.values.get("feat_dim")
        if isinstance(width, int) and width in WIDTHS:
            return WIDTHS[width]
        raise BadInput(
            f"{self.path}: of which size its network is cannot be told: it has no model_type as smpler_x_h, "
            "encoder_setting, encoder_config_file or feat_dim"
        )

    def _name(self) -> str:
        stem = self.path.stem.removeprefix("config_")
        given = self._take("exp_name")
        if stem not in ("config", "config_base", "base"):
            return stem
        if not isinstance(given, str) or not given:  # the published weights lie in a folder of their name
            folder = self.path.absolute().parent
            given = folder.parent.name if folder.name == "code" else folder.name
        name = re.sub(r"_\d{8}_\d{6}$", "", Path(given).name).removeprefix("train_")
        return name or stem

    def _numbers(self, table: dict[str, Any]) -> None:
        if (older := self._take("smplx_kps_weight")) is not None:
            self.values["smplx_kps_3d_weight"] = older
        for name, key in NUMBERS.items():
            value = self._take(name)
            if value is None:
                continue
            kinds = int if name in _WHOLE else (int, float)
            if not isinstance(value, kinds) or isinstance(value, bool):
                what = "a whole number" if name in _WHOLE else "a number"
                raise BadInput(f"{self.path}: {name} is {brief(value)}, not {what}")
            part, _, last = key.rpartition(".")
            (table[part] if part else table)[last] = value if name in _WHOLE else float(value)
        scheduler = self._take("scheduler", "cos")
        if scheduler not in (None, "cos"):
            self.left_out.append(f"scheduler = {_shown(scheduler)}: the learning rate falls by a cosine here")

    def _places(self, table: dict[str, Any]) -> None:
        """Paths are from the repository's `main` folder there, from where one stands here."""
        for name, key in (("human_model_path", "body"), ("encoder_pretrained_model_path", "encoder_from")):
            value = self._take(name)
            if value is not None:
                table[key] = self._path(name, value)
        if (root := self._take("data_dir")) is not None:
            table["people"]["root"] = self._path("data_dir", root)
        begins, over = self._take("continue_train", False), self._take("start_over", True)
        start = self._take("pretrained_model_path")
        if start and not begins:
            self.left_out.append(f"pretrained_model_path = {_shown(start)}: not read where continue_train is False")
        elif start:
            table["start_from"] = self._path("pretrained_model_path", start)
            if not over:
                self.left_out.append(
                    "start_over = False: the weights are taken, not the optimiser's state and the epoch; a run of "
                    "`wholebody train` goes on exactly by the same command with its --out"
                )

    def _path(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise BadInput(f"{self.path}: {name} is {brief(value)}, not a path")
        return re.sub(r"^(\.\.?/)+", "", value)

    def _sets(self, people: dict[str, Any], family: str, published: dict[str, Any]) -> None:
        groups = {}
        for name in SETS:
            given = self._take(name, []) or []
            if not isinstance(given, list | tuple) or not all(isinstance(one, str) for one in given):
                raise BadInput(f"{self.path}: {name} is {brief(given)}, not a list of names of sets")
            groups[name.removeprefix("trainset_")] = list(given)
        agora = self._take("agora_benchmark")
        alone = {"AGORA": agora is True, "UBody": self._take("ubody_finetune") or self._take("ubody_benchmark")}
        for name, asked in alone.items():
            if family == "osx" and asked:  # as OSX's config.py does when it is told so
                groups = {"3d": [name]}
        if family == "osx" and agora is True:
            published["detach_projection"], published["shape_weight"] = True, 2.0
        elif agora is not None:
            self.left_out.append(f"agora_benchmark = {_shown(agora)}: {_TESTING}")
        groups = {name: names for name, names in groups.items() if names}
        if not groups:
            raise BadInput(f"{self.path}: names no set to learn from ({', '.join(SETS)})")
        mix = self._mix(people, len(groups))
        people["sets"] = [
            {"name": name, **self._interval(name), **({"group": group} if mix == "equal" else {})}
            for group, names in groups.items()
            for name in names
        ]
        self._other_intervals([one["name"] for one in people["sets"]])

    def _mix(self, people: dict[str, Any], groups: int) -> str:
        strategy, length = self._take("data_strategy"), self._take("total_data_len")
        if strategy not in (None, "balance", "concat"):
            raise BadInput(f"{self.path}: data_strategy is {brief(strategy)}; known are balance and concat")
        if length is not None and length != "auto" and (isinstance(length, bool) or not isinstance(length, int)):
            raise BadInput(f"{self.path}: total_data_len is {brief(length)}; it is a whole number, or 'auto'")
        people["mix"] = strategy or ("equal" if groups > 1 else "all")
        if strategy == "balance" and isinstance(length, int):
            people["epoch_length"] = length
        elif length not in (None, "auto"):
            self.left_out.append(f"total_data_len = {length}: read with data_strategy 'balance' alone")
        return str(people["mix"])

    def _interval(self, name: str) -> dict[str, int]:
        every = self._take(f"{name}_{INTERVAL}")
        if every is None and name == "UBody":
            every = self.values.get(INTERVAL)
        if every is None:
            return {}
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise BadInput(f"{self.path}: {name}_{INTERVAL} is {brief(every)}, not a whole number from 1")
        return {"every": every} if every > 1 else {}

    def _other_intervals(self, names: Sequence[str]) -> None:
        if (every := self._take(INTERVAL)) is not None and "UBody" not in names:
            self.left_out.append(f"{INTERVAL} = {_shown(every)}: of UBody, which is not learnt from")
        for name in [name for name in self.values if name.endswith(f"_{INTERVAL}")]:
            which = name.removesuffix(f"_{INTERVAL}")
            self.left_out.append(f"{name} = {_shown(self._take(name))}: {which} is not learnt from")

    def _what_learns(self, table: dict[str, Any]) -> None:
        tuned, frozen = self._take("fine_tune"), self._take("freeze_encoder", False)
        if tuned not in (None, False, "", "backbone", "neck_and_head", "head"):
            raise BadInput(
                f"{self.path}: fine_tune is {brief(tuned)}; known are 'backbone', 'neck_and_head', 'head' and None"
            )
        table["fine_tune"] = tuned or ("neck_and_head" if frozen else "")

    def _box_ratio(self, family: str) -> None:
        ratio, built_in = self._take("bbox_ratio"), 1.25 if family == "osx" else 1.2
        if ratio is None and family != "osx":
            self.left_out.append(f"bbox_ratio: not in it (published: 1.25 then); boxes are enlarged {built_in} times")
        elif ratio is not None and ratio != built_in:
            self.left_out.append(
                f"bbox_ratio = {_shown(ratio)}: how far boxes are enlarged belongs to the family, {built_in} here"
            )

    def _rest(self) -> None:
        """What has no place in a recipe, a line for each reason."""
        why: dict[str, list[str]] = {}
        for name, value in self.values.items():
            if isinstance(value, Unknown):
                continue
            same = name in BUILT_IN and (tuple(value) if isinstance(value, list) else value) == BUILT_IN[name]
            reason = (
                "built in, as it says" if same
                else "built in is something else, which stays: " + _shown(BUILT_IN[name]) if name in BUILT_IN
                else "a run is called after the config, or name=NAME" if name == "exp_name"
                else LEFT_OUT.get(name, "the published code reads no such setting")
            )  # fmt: skip
            why.setdefault(reason, []).append(name if same or value is None else f"{name} = {_shown(value)}")
        self.left_out += [f"{', '.join(names)}: {reason}" for reason, names in why.items()]


def _shown(value: Any) -> str:
    return brief(value, 60)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def recipe_text(imported: Imported, source: str) -> str:
    """A recipe as TOML, with what was left out at its head."""
    import tomli_w

    head = [f"From {source}, a config of {imported.family}. Left out of it:", *imported.left_out]
    comments = "".join(f"# {line}\n" for text in head for line in text.splitlines())
    return f"{comments}{tomli_w.dumps(imported.table)}"
