"""RecBole's own parameters in a run: the values it accepts, and those that mean nothing on the joint data set.

RecBole looks at few of them, and late: a wrong one would end in a traceback after the data were read, or be ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from recbole.evaluator.register import metric_types
from recbole.utils import EvaluatorType

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.parameter_checks import (
    Check,
    at_least,
    between,
    is_bool,
    is_int,
    is_number,
    is_text,
    list_of,
    one_of,
)

_GPUS = re.compile(r"(-1|\d+(,\d+)*)?")
_METRICS = sorted(name for name, kind in metric_types.items() if kind == EvaluatorType.RANKING)
_LOSSES = ("CE", "BPR")
_SIZES = ("hidden_size", "embedding_size", "inner_size", "n_layers", "num_layers", "n_heads", "num_heads")
_TRANSFORMS = {  # with the parameters that each reads
    "mask_itemseq": ("mask_ratio",),
    "inverse_itemseq": (),
    "crop_itemseq": ("eta",),
    "reorder_itemseq": ("beta",),
}


def _above_zero(value: Any) -> bool:
    return is_number(value) and 0 < value < math.inf


def _not_negative(value: Any) -> bool:
    return is_number(value) and 0 <= value < math.inf


def _is_gpus(value: Any) -> bool:
    return (is_int(value) and value >= -1) or (isinstance(value, str) and _GPUS.fullmatch(value) is not None)


def _is_clipping(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() <= {"max_norm", "norm_type"}
        and _above_zero(value.get("max_norm"))
        and _above_zero(value.get("norm_type", 2))
    )


def _is_metric(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in _METRICS


def _one_or_list(check: Check) -> Check:
    return lambda value: check(value) or list_of(check)(value)


def _is_learner(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")


def _is_level(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in ("debug", "info", "warning", "error", "critical")


def _or_nothing(check: Check) -> Check:
    return lambda value: value is None or check(value)


_COUNT = ("an integer >= 1", at_least(1))
_SWITCH = ("True, False", is_bool)
# Parameter -> what is accepted, in words and as a predicate.
ACCEPTED: Mapping[str, tuple[str, Check]] = {
    "data_path": ("a folder", is_text),
    "dataset": ("a folder below data_path", is_text),
    "gpu_id": ("GPU numbers such as 0 or 0,1; nothing or -1: none", _or_nothing(_is_gpus)),
    "use_gpu": _SWITCH,
    "seed": ("an integer from 0 to 4294967295", lambda value: is_int(value) and between(0, 2**32 - 1)(value)),
    "reproducibility": _SWITCH,
    "state": ("debug, info, warning, error, critical", _is_level),
    "show_progress": _SWITCH,
    "shuffle": _SWITCH,
    "worker": ("an integer >= 0", at_least(0)),
    "epochs": ("an integer >= 0", at_least(0)),
    "train_batch_size": _COUNT,
    "eval_batch_size": _COUNT,
    "learner": ("adam, adamw, sgd, adagrad, rmsprop, sparse_adam", _is_learner),
    "learning_rate": ("a number > 0", _above_zero),
    "weight_decay": ("a number >= 0", _not_negative),
    "eval_step": ("an integer (0 or less: no validation while training)", is_int),
    "stopping_step": ("an integer >= 0", at_least(0)),
    "clip_grad_norm": ("{max_norm: number > 0, norm_type: number > 0}, or nothing", _or_nothing(_is_clipping)),
    "enable_amp": _SWITCH,
    "enable_scaler": _SWITCH,
    "transform": (f"{', '.join(_TRANSFORMS)}, or nothing", _or_nothing(one_of(*_TRANSFORMS))),
    "repeatable": _SWITCH,
    "metrics": (f"some of {', '.join(_METRICS)}", _one_or_list(_is_metric)),
    "topk": ("an integer >= 1, or a list of such", _one_or_list(at_least(1))),
    "valid_metric": ("a metric at a length, such as NDCG@10", is_text),
    "valid_metric_bigger": _SWITCH,
    "metric_decimal_place": ("an integer >= 0", at_least(0)),
    "loss_decimal_place": ("an integer >= 0", at_least(0)),
    "MAX_ITEM_LIST_LENGTH": _COUNT,
    "load_col": (
        "a mapping such as {item: [item_id, tags]}",
        lambda value: (
            isinstance(value, Mapping)
            and all(columns in (None, "*", []) or list_of(is_text)(columns) for columns in value.values())
        ),
    ),
}

_COLUMNS = "the atomic files have these names of columns; python -m dataset_tools table gives yours to them"
_CONVERT = (
    "choose when converting: --min-user-inter, --min-item-inter, --repeat, where (python -m dataset_tools --help)"
)
_AS_IS = "values are read as they are; change them when converting (python -m dataset_tools table --help)"
_CACHE = "the joint data set keeps a cache of its own (data_cache)"
# Parameter -> the only value it can have on the joint data set (None: nothing), and what to do instead of another.
FIXED: Mapping[str, tuple[Any, str]] = {
    "USER_ID_FIELD": ("user_id", _COLUMNS),
    "ITEM_ID_FIELD": ("item_id", _COLUMNS),
    "TIME_FIELD": ("timestamp", _COLUMNS),
    "field_separator": ("\t", "atomic files are separated by tabs"),
    "seq_separator": (" ", "lists in atomic files are separated by spaces"),
    "user_inter_num_interval": ("[0,inf)", _CONVERT),
    "item_inter_num_interval": ("[0,inf)", _CONVERT),
    "val_interval": (None, _CONVERT),
    "rm_dup_inter": (None, _CONVERT),
    "threshold": (None, _CONVERT),
    "normalize_field": (None, _AS_IS),
    "normalize_all": (None, _AS_IS),
    "discretization": (None, _AS_IS),
    "numerical_features": ([], _AS_IS),
    "seq_len": (None, "histories are cut to MAX_ITEM_LIST_LENGTH"),
    "unload_col": (None, "name what is to be read in load_col"),
    "unused_col": (None, "name what is to be read in load_col"),
    "additional_feat_suffix": (None, "attributes of videos are columns of .item"),
    "preload_weight": (None, "texts become vectors in the text store (text_encoder)"),
    "alias_of_user_id": (None, "the joint data set has no other field of users"),
    "alias_of_item_id": (None, "the joint data set has no other field of videos"),
    "benchmark_filename": (None, "divide by eval_args.split"),
    "save_dataset": (False, _CACHE),
    "dataset_save_path": (None, _CACHE),
    "save_dataloaders": (False, _CACHE),
    "dataloaders_save_path": (None, _CACHE),
    "checkpoint_dir": ("saved", "checkpoints are in the output folder, by --output"),
    "log_wandb": (False, "the curves of a run are in history.json and tensorboard/ of its output folder"),
}


def check_recbole_value(key: str, value: Any) -> bool:
    """Whether the parameter is one of these; refuses a value it cannot have.

    Raises:
        ConfigError: there is no such value, or it would change nothing here.
    """
    if key in ACCEPTED:
        accepted, check = ACCEPTED[key]
        if not check(value):
            raise ConfigError(f"{key} = {value!r} is not accepted; accepted: {accepted}")
    if key in FIXED:
        only, instead = FIXED[key]
        if value != only and not (only in (None, False) and value in (None, False)):
            raise ConfigError(f"{key} = {value!r} is not accepted: it must be {only!r} (or left out); {instead}")
    return key in ACCEPTED or key in FIXED


def check_kind(key: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default in the property files; where that is nothing, anything may be
    one.

    Raises:
        ConfigError: it is of another kind.
    """
    if key in _SIZES and is_int(default) and not at_least(1)(value):
        raise ConfigError(f"{key} = {value!r} is not accepted; accepted: an integer >= 1")
    if key == "loss_type" and default in _LOSSES and value not in _LOSSES:
        raise ConfigError(f"{key} = {value!r} is not accepted; accepted: {', '.join(_LOSSES)}")
    for kind, word, check in (
        (bool, "True or False", is_bool),
        (int | float, "a number", is_number),
        (str, "a text", lambda given: given is None or isinstance(given, str)),
        (list, "a list", lambda given: isinstance(given, list)),
        (dict, "a mapping", lambda given: given is None or isinstance(given, Mapping)),
    ):
        if isinstance(default, kind):
            if not check(value):
                raise ConfigError(f"{key} = {value!r} is not accepted; accepted: {word}, such as {default!r}")
            return


def check_transform(config: Any) -> None:
    """Refuse a transform whose parameters are not there.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in _TRANSFORMS.get(config["transform"], ()) if config[name] is None]
    if missing:
        raise ConfigError(
            f"transform = {config['transform']!r} needs {' and '.join(missing)}; give it, or no transform"
        )
