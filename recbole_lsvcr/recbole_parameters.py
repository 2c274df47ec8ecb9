"""RecBole's own parameters in a run: the values it accepts, and those that mean nothing on the joint data set.

RecBole looks at few of them, and late: a wrong one would end in a traceback after the data were read, or be ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from recbole.evaluator.register import metric_types
from recbole.utils import EvaluatorType, InputType

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.parameter_checks import (
    Check,
    Parameter,
    at_least,
    between,
    is_bool,
    is_int,
    is_number,
    is_text,
    list_of,
    one_of,
)
from recbole_lsvcr.registry import CUSTOM, MODELS

_GPUS = re.compile(r"(-1|\d+(,\d+)*)?")
_METRICS = sorted(name for name, kind in metric_types.items() if kind == EvaluatorType.RANKING)
_LOSSES: Mapping[str, tuple[str, ...]] = {  # of the models that have not both
    "CORE": ("CE",),
    "FPMC": ("BPR",),
    "GRU4RecCPR": ("CE",),
    "SASRecCPR": ("CE",),
    "SINE": ("CE", "BPR", "NLL"),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {  # of RecBole's models
    "hidden_act": ("gelu", "relu", "swish", "tanh", "sigmoid"),
    "pooling_mode": ("mean", "max", "sum"),
    "pooling_type": ("average", "max"),
    "dnn_type": ("trm", "ave"),
    "gru_type": ("GRU", "AIGRU", "AGRU", "AUGRU"),
    "structure": ("stacked", "parallel"),  # DCNV2
    "teacher": ("CrossNet", "CIN"),  # KD_DAGFM, which evaluates the text it is given
    "phase": ("teacher_training", "distillation", "finetuning"),
    "type": ("outer", "inner"),
}
# fmt: off
_SIZES = frozenset({  # of RecBole's models: integers from 1 on
    "hidden_size", "embedding_size", "inner_size", "attention_size", "prototype_size", "interest_size", "kernel_size",
    "n_layers", "num_layers", "cross_layer_num", "n_heads", "num_heads", "k_interests", "block_num", "expert_num",
    "low_rank", "nh", "nv", "step", "high_order", "order_len", "short_item_length", "topk_factor", "depth", "t_depth",
})
# fmt: on
_AT_MOST_HISTORY = {"FOSSIL": "order_len", "HRM": "high_order", "SHAN": "short_item_length"}
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


def _is_columns(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        columns in (None, "*", []) or list_of(is_text)(columns) for columns in value.values()
    )


def _one_or_list(check: Check) -> Check:
    return lambda value: check(value) or list_of(check)(value)


def _is_learner(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam")


def _is_level(value: Any) -> bool:
    return isinstance(value, str) and value.lower() in ("debug", "info", "warning", "error", "critical")


def _is_sampling(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() <= {"distribution", "sample_num", "alpha", "dynamic", "candidate_num"}
        and one_of("uniform", "popularity")(value.get("distribution", "uniform"))
        and at_least(1)(value.get("sample_num", 1))
        and _above_zero(value.get("alpha", 1))
        and is_bool(value.get("dynamic", False))
        and at_least(0)(value.get("candidate_num", 0))
    )


def _count(name: str) -> Parameter:
    return Parameter(name, "an integer >= 1", at_least(1))


def _natural(name: str) -> Parameter:
    return Parameter(name, "an integer >= 0", at_least(0))


def _switch(name: str) -> Parameter:
    return Parameter(name, "True, False", is_bool)


# Parameter -> what is accepted.
ACCEPTED: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("data_path", "a folder", is_text),
        Parameter("dataset", "a folder below data_path", is_text),
        Parameter("gpu_id", "GPU numbers such as 0 or 0,1; nothing or -1: none", _is_gpus, optional=True),
        _switch("use_gpu"),
        Parameter("seed", "an integer from 0 to 4294967295", lambda value: is_int(value) and 0 <= value < 2**32),
        _switch("reproducibility"),
        Parameter("state", "debug, info, warning, error, critical", _is_level),
        _switch("show_progress"),
        _switch("shuffle"),
        _natural("worker"),
        _natural("epochs"),
        _count("train_batch_size"),
        _count("eval_batch_size"),
        Parameter("learner", "adam, adamw, sgd, adagrad, rmsprop, sparse_adam", _is_learner),
        Parameter("learning_rate", "a number > 0", _above_zero),
        Parameter("weight_decay", "a number >= 0", _not_negative),
        Parameter("eval_step", "an integer (0 or less: no validation while training)", is_int),
        _natural("stopping_step"),
        Parameter(
            "clip_grad_norm", "{max_norm: number > 0, norm_type: number > 0}, or nothing", _is_clipping, optional=True
        ),
        _switch("enable_amp"),
        _switch("enable_scaler"),
        Parameter(
            "train_neg_sample_args",
            "{distribution: uniform or popularity, sample_num: integer >= 1, alpha: number > 0, dynamic: True or "
            "False, candidate_num: integer >= 0}, or nothing",
            _is_sampling,
            optional=True,
        ),
        Parameter("transform", f"{', '.join(_TRANSFORMS)}, or nothing", one_of(*_TRANSFORMS), optional=True),
        _switch("repeatable"),
        Parameter("metrics", f"some of {', '.join(_METRICS)}", _one_or_list(_is_metric)),
        Parameter("topk", "an integer >= 1, or a list of such", _one_or_list(at_least(1))),
        Parameter("valid_metric", "a metric at a length, such as NDCG@10", is_text),
        _switch("valid_metric_bigger"),
        _natural("metric_decimal_place"),
        _natural("loss_decimal_place"),
        _count("MAX_ITEM_LIST_LENGTH"),
        Parameter("load_col", "a mapping such as {item: [item_id, tags]}", _is_columns),
    )
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


def check_recbole_value(model: str, key: str, value: Any, default: Any) -> None:
    """Refuse a value that a parameter of RecBole's, or of a model, cannot have; `default` is that of the property
    files.

    Raises:
        ConfigError: there is no such value, or it would change nothing here.
    """
    if key in FIXED:
        only, instead = FIXED[key]
        if value != only and not (only in (None, False) and value in (None, False)):
            raise ConfigError(f"{key} = {value!r} is not accepted: it must be {only!r} (or left out); {instead}")
        return
    parameter = ACCEPTED.get(key) or (None if model in CUSTOM else _named(model, key, default)) or _alike(key, default)
    if parameter is not None:
        parameter.require(value)


def _named(model: str, key: str, default: Any) -> Parameter | None:
    """What RecBole's models, and ours, mean by a name; None: nothing more than its default tells."""
    choices = _LOSSES.get(model, ("CE", "BPR")) if key == "loss_type" else _CHOICES.get(key, ())
    if default in choices:
        return Parameter(key, ", ".join(choices), one_of(*choices))
    if key in _SIZES and is_int(default):
        return _count(key)
    if key == "pretrain_epochs":
        return _natural(key)
    share = "drop" in key or key in ("mask_ratio", "ft_ratio") or (model, key) == ("GCSAN", "weight")
    if share and is_number(default):
        return Parameter(key, "a number from 0 to 1", between(0, 1))
    if list_of(at_least(1))(default):  # sizes of layers, dilations
        return Parameter(key, f"a list of integers >= 1, such as {default!r}", list_of(at_least(1)))
    if list_of(is_number)(default):
        check, bounds = (between(0, 1), "from 0 to 1") if share else (_not_negative, ">= 0")
        words = f"a list of {len(default)} numbers {bounds}"
        return Parameter(key, words, lambda value: list_of(check)(value) and len(value) == len(default))
    if is_number(default) and default >= 0:
        return Parameter(key, f"a number >= 0, such as {default!r}", _not_negative)
    return None


def _alike(key: str, default: Any) -> Parameter | None:
    """Values of the kind of the default; where that is nothing, anything may be one."""
    for kind, word, check, optional in (
        (bool, "True or False", is_bool, False),
        (int | float, "a number", is_number, False),
        (str, "a text", lambda value: isinstance(value, str), True),
        (list, "a list", lambda value: isinstance(value, list) and _same_kind(value, default), False),
        (dict, "a mapping", lambda value: isinstance(value, Mapping), True),
    ):
        if isinstance(default, kind):
            return Parameter(key, f"{word}, such as {default!r}", check, optional=optional)
    return None


def _same_kind(values: list[Any], default: list[Any]) -> bool:
    """Numbers where the default has numbers, texts where it has texts."""
    return all(
        all(check(value) for value in values)
        for check in (is_number, is_text)
        if default and all(check(value) for value in default)
    )


def negatives(model: str, task: str, kind: InputType | None, loss: Any) -> dict[str, Any] | None:
    """The default of `train_neg_sample_args`: one uniform negative for models of pairs and of labelled rows, none for
    those that learn from a softmax.

    Args:
        kind: the model's `input_type`, which counts before its `loss_type`. loss: its `loss_type`.
    """
    labelled = kind == InputType.POINTWISE and loss is None and model not in MODELS  # DIN, DIEN
    drawn = task == "video" and (_of_pairs(kind, loss) or labelled)
    return {"distribution": "uniform", "sample_num": 1} if drawn else None


def _of_pairs(kind: InputType | None, loss: Any) -> bool:
    return kind == InputType.PAIRWISE or (kind is None and loss == "BPR")


def check_negatives(given: Any, model: str, task: str, kind: InputType | None, loss: Any) -> None:
    """Refuse `train_neg_sample_args` where no negatives are drawn, and their absence where a model learns from them;
    arguments as of `negatives`.

    Raises:
        ConfigError: the one or the other.
    """
    if task == "comment" and given is not None:
        reason = "comments have negatives of their own: see train_negatives"
    elif kind is None and loss == "CE" and given is not None:
        reason = f"{model} with loss_type = CE learns against every video"
    elif task == "video" and _of_pairs(kind, loss) and given is None:
        reason = f"{model} learns from pairs of a positive and a negative"
    else:
        return
    raise ConfigError(f"train_neg_sample_args = {given!r} is not accepted: {reason}; leave it out")


def check_related(config: Any) -> None:
    """Refuse values of RecBole's parameters that do not go together.

    Raises:
        ConfigError: some do not.
    """
    missing = [name for name in _TRANSFORMS.get(config["transform"], ()) if config[name] is None]
    if missing:
        raise ConfigError(
            f"transform = {config['transform']!r} needs {' and '.join(missing)}; give it, or no transform"
        )
    for size, heads in (("hidden_size", "n_heads"), ("attention_size", "num_heads")):
        if config[size] and config[heads] and config[size] % config[heads]:
            raise ConfigError(f"{size} = {config[size]} must be a multiple of {heads} = {config[heads]}")
    part, whole = _AT_MOST_HISTORY.get(config["model"], ""), config["MAX_ITEM_LIST_LENGTH"]
    if part and config[part] > whole:
        raise ConfigError(f"{part} = {config[part]} must be at most MAX_ITEM_LIST_LENGTH = {whole}")
    if config["model"] == "KD_DAGFM" and config["phase"] != "teacher_training" and not config["warm_up"]:
        raise ConfigError(f"phase = {config['phase']!r} needs warm_up: the checkpoint of the phase before")
