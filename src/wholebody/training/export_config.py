"""A run's settings as the config that the published tools of its family read: flat for OSX and SMPLer-X, one nested
dictionary for SMPLest-X."""

from __future__ import annotations

import pprint
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any

from wholebody.data.augment import NOTHING
from wholebody.training.config import TrainConfig, people_of
from wholebody.training.import_config import BUILT_IN, INTERVAL, NUMBERS, SETS, WIDTHS
from wholebody.training.recipes import VITPOSE, filled


def published_config_text(config: TrainConfig) -> str:
    """A run's settings as a `config_base.py` that the published tools of its family read."""
    people = people_of(config)
    sets = [] if people is None else [(one.name, one.every, one.group) for one in people.sets]
    head = "# The settings of a run of wholebody, for the published tools of its family.\n"
    if config.network == "t":
        head += "# They know no network of size t: code/config.json holds what it was trained with.\n"
    common = _numbers(
        config, "lr", "min_lr", "end_epoch", "train_batch_size", "num_thread", "save_epoch", "print_iters"
    )
    common |= {
        "save_epoch": config.snapshot_every or 1, "continue_train": bool(config.start_from), "start_over": True,
    }  # fmt: skip
    data: dict[str, Any] = {"use_cache": False}
    data |= {f"{name}_{INTERVAL}": every for name, every, _ in sets if every > 1}
    if people is not None:
        if people.mix in ("balance", "concat", "all"):
            data["data_strategy"] = "balance" if people.mix == "balance" else "concat"
            data["total_data_len"] = people.epoch_length or "auto"
        if people.augment == NOTHING:
            data["no_aug"] = True
    places = {
        "pretrained_model_path": config.start_from and filled(config.start_from, config.network),
        "encoder_pretrained_model_path": config.encoder_from and filled(config.encoder_from, config.network),
        "human_model_path": config.body,
    }
    if config.family == "smplest_x":
        return head + _nested_text(config, sets, common, data, places, "data" if people is None else people.root)
    flat: dict[str, Any] = {"exp_name": config.name, **common, "syncbn": config.sync_norms}
    ratio = {"osx": 1.25, "smpler_x": 1.2}[config.family]
    flat |= {"bbox_ratio": ratio, "fine_tune": config.fine_tune or None}
    flat |= {"agora_fix_betas": True, "agora_fix_global_orient_transl": True, "agora_valid_root_pose": True}
    flat |= _in_lists(sets, config.family)
    flat |= {"testset": "EHF", INTERVAL: next((every for name, every, _ in sets if name == "UBody"), 1), **data}
    flat |= _numbers(
        config, "smplx_loss_weight", "smplx_pose_weight", "smplx_kps_3d_weight", "smplx_kps_2d_weight",
        "net_kps_2d_weight",
    )  # fmt: skip
    agora = config.published.detach_projection
    flat["agora_benchmark"] = agora if config.family == "osx" else "agora_model"
    flat |= _network_settings(config)
    flat |= {**places, "data_dir": "dataset" if people is None else people.root}
    flat |= {**BUILT_IN, "test_sample_interval": 100, "make_same_len": False, "test_batch_size": 32, "vis": False}
    flat |= dict.fromkeys(("output_dir", "model_dir", "vis_dir", "log_dir", "result_dir", "code_dir"))
    return head + "".join(f"{name} = {value!r}\n" for name, value in flat.items())


def _numbers(config: TrainConfig, *names: str) -> dict[str, Any]:
    """Numbers by their published names."""
    return {name: attrgetter(NUMBERS[name])(config) for name in names}


def _network_settings(config: TrainConfig) -> dict[str, Any]:
    widths = {size: width for width, size in WIDTHS.items()}
    size = config.network
    settings: dict[str, Any] = {"model_type": f"{config.family}_{size}"}
    if config.family == "osx":
        settings |= {"encoder_setting": f"osx_{size}", "decoder_setting": config.variant}
    if size in VITPOSE:
        folder = f"transformer_utils/configs/{config.family}/encoder"
        settings |= {"encoder_config_file": f"{folder}/body_encoder_{VITPOSE[size]}.py", "feat_dim": widths[size]}
    return settings


def _in_lists(sets: Iterable[tuple[str, int, str]], family: str) -> dict[str, list[str]]:
    """Sets by which of the published lists they belong to: their readers there are of three kinds."""
    lists: dict[str, list[str]] = {name: [] for name in SETS}
    for name, _, group in sets:
        where = f"trainset_{group}"
        if where not in lists:
            of_osx = {"Human36M": "trainset_3d", "AGORA": "trainset_3d", "MPI_INF_3DHP": "trainset_3d",
                      "UBody": "trainset_2d", "MSCOCO": "trainset_2d", "MPII": "trainset_2d"}  # fmt: skip
            of_smpler_x = {"MSCOCO": "trainset_3d", "AGORA": "trainset_3d", "UBody": "trainset_3d",
                           "PW3D": "trainset_2d", "MPII": "trainset_2d", "Human36M": "trainset_2d"}  # fmt: skip
            where = (of_osx if family == "osx" else of_smpler_x).get(name, "trainset_humandata")
        lists[where].append(name)
    return lists


def _nested_text(
    config: TrainConfig, sets: Sequence[tuple[str, int, str]], common: dict[str, Any], data: dict[str, Any],
    places: dict[str, Any], root: str,
) -> str:  # fmt: skip
    train = common | {"num_gpus": 1, "remove_checkpoint": False}
    train |= _numbers(
        config, "smplx_kps_3d_weight", "smplx_kps_2d_weight", "smplx_pose_weight", "smplx_shape_weight",
        "smplx_orient_weight", "hand_root_weight",
    )  # fmt: skip
    train["freeze_encoder"] = config.fine_tune == "neck_and_head"
    if config.fine_tune:
        train["fine_tune"] = config.fine_tune
    shapes = {name: BUILT_IN[name] for name in (
        "input_img_shape", "input_body_shape", "output_hm_shape", "focal", "princpt", "body_3d_size", "hand_3d_size",
        "face_3d_size", "camera_3d_size",
    )}  # fmt: skip
    encoder = {
        "num_classes": 80, "task_tokens_num": 80, "img_size": (256, 192), "patch_size": 16, "embed_dim": 1280,
        "depth": 32, "num_heads": 16, "ratio": 1, "use_checkpoint": False, "mlp_ratio": 4, "qkv_bias": True,
        "drop_path_rate": 0.55,
    }  # fmt: skip
    nested = {
        "data": {"data_dir": root, "trainset_humandata": [name for name, _, _ in sets], "testset": "EHF",
                 "bbox_ratio": 1.2, "no_aug": False, **data},
        "train": train,
        "inference": {"num_gpus": 1, "detection": {
            "model_type": "yolo", "model_path": "./pretrained_models/yolov8x.pt", "conf": 0.5, "save": False,
            "verbose": False, "iou_thr": 0.5}},
        "test": {"test_batch_size": 1},
        "model": {"model_type": "vit_huge", **places, "encoder_config": encoder,
                  "decoder_config": {"feat_dim": 1280, "dim_out": 512, "task_tokens_num": 80}, **shapes},
        "log": {"exp_name": config.name, **dict.fromkeys(("output_dir", "model_dir", "log_dir", "result_dir"))},
    }  # fmt: skip
    return f"config = {pprint.pformat(nested, sort_dicts=False, width=100)}\n"
