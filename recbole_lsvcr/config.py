"""The configuration of a run: RecBole's `Config` with our defaults, checked before any work is done."""

from __future__ import annotations

import copy
import difflib
import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.utils import ModelType, get_model
from recbole.utils import argument_list as recbole_arguments

from recbole_lsvcr.alignment.config import load_alignment_config
from recbole_lsvcr.custom_models import resolve_model
from recbole_lsvcr.data.dataset import task_of
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.eval_args import checked_eval_args
from recbole_lsvcr.evaluation.collector import needs_items
from recbole_lsvcr.parameters import BY_NAME, PARAMETERS
from recbole_lsvcr.plugin import SAMPLE
from recbole_lsvcr.pretraining import check_settings
from recbole_lsvcr.recbole_files import TRUST_KEY
from recbole_lsvcr.recbole_parameters import check_negatives, check_recbole_value, check_related, negatives
from recbole_lsvcr.registry import CUSTOM, MODELS, model_files, properties_dir
from recbole_lsvcr.yaml_files import parse_yaml, read_yaml

# Training and data settings that every model of a comparison shares unless the user says otherwise; the values are
# LSVCR's.
SHARED = (
    "train_batch_size",
    "eval_batch_size",
    "learning_rate",
    "epochs",
    "eval_step",
    "stopping_step",
    "MAX_ITEM_LIST_LENGTH",
    "metrics",
    "topk",
    "valid_metric",
    "load_col",
)
KNOWLEDGE = ("GRU4RecKG", "KSR")  # RecBole's sequential models that read the vectors of a knowledge graph
MODEL_OF: Mapping[str, str] = {"video": "LSVCR", "comment": "LSVCRComment"}

# Keys RecBole reads that stand in none of its property files.
EXTRA_RECBOLE_KEYS = frozenset(
    {
        "model",
        "dataset",
        "device",
        "nproc",
        "world_size",
        "offset",
        "ip",
        "port",
        "local_rank",
        "config_files",
        "encoding",
        "numerical_features",
    }
)


class LSVCRConfig(Config):
    """RecBole's configuration of one run, from plain values only: neither `sys.argv` nor `eval` takes part."""

    def with_values(self, **changes: Any) -> LSVCRConfig:
        """The same configuration with other values, unchecked."""
        changed = copy.copy(self)
        changed.final_config_dict = {**self.final_config_dict, **changes}
        return changed

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}

    def _load_variable_config_dict(self, config_dict: Mapping[str, Any] | None) -> dict[str, Any]:
        return dict(config_dict or {})

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        ours = read_yaml(properties_dir() / "model" / f"{MODEL_OF[task_of(model_class)]}.yaml")
        own = model_files(model) if model in CUSTOM else model_files(model)[-1:]
        set_by_model = {key for file in own if file.is_file() for key in read_yaml(file)}
        self.internal_config_dict.update(read_yaml(properties_dir() / "joint.yaml").get(model, {}))
        values = {**self.internal_config_dict, **self.external_config_dict}
        kind, loss = getattr(model_class, "input_type", None), values.get("loss_type")
        if kind is None and loss is None:
            raise ConfigError(
                f"model '{model}' says neither by an attribute input_type nor by the parameter loss_type (CE or BPR) "
                f"what it trains on; RecBole wants one of them: put loss_type into {model}.yaml beside its module"
            )
        task = task_of(model_class)
        shared = {key: ours[key] for key in SHARED} | {"train_neg_sample_args": negatives(model, task, kind, loss)}
        self.internal_config_dict.update({key: value for key, value in shared.items() if key not in set_by_model})
        if "train_neg_sample_args" in self.external_config_dict:
            given = self.external_config_dict["train_neg_sample_args"]
            check_negatives(given, model, task, kind, loss)

    def _init_device(self) -> None:
        """RecBole's, which shows the process the GPU `gpu_id` alone; under torchrun each one takes its own of all."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            super()._init_device()
            return
        values = self.final_config_dict
        on_gpu = str(values["gpu_id"]) != "" and torch.cuda.is_available()
        values |= {"device": torch.device("cuda" if on_gpu else "cpu"), "single_spec": True, "local_rank": 0}


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Overrides, `--learning_rate=0.003` as RecBole's or `--learning_rate 0.003`, as a dictionary.

    Raises:
        ConfigError: an argument of another form, or a key given twice with different values.
    """
    overrides: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, separator, text = argument.removeprefix("--").partition("=")
        if not separator and rest and not rest[0].startswith("--"):
            separator, text = " ", rest.pop(0)
        if not argument.startswith("--") or not separator or not name:
            raise ConfigError(
                f"argument '{argument}' is not understood; parameters are given as --name=value or --name value (see "
                "--help)"
            )
        value = None if text in ("None", "~") else _argument_value(name, text)
        if name in overrides and overrides[name] != value:
            raise ConfigError(f"'{name}' is given twice, as {overrides[name]!r} and {value!r}; give it once")
        overrides[name] = value
    return overrides


def _argument_value(name: str, text: str) -> Any:
    try:
        return parse_yaml(f"value: {text}", "it")["value"]
    except ConfigError as error:
        raise ConfigError(
            f"argument --{name}: {text!r} is not a value in YAML; write a space after each colon and quotes around the "
            "whole, such as '--eval_args={split: {time: [0.8, 0.9]}}'"
        ) from error


def known_keys(models: Iterable[str]) -> set[str]:
    """Every key RecBole or this package reads when these models run."""
    return _keys({model: defaults_of(model) for model in models})


def _keys(defaults: Mapping[str, Mapping[str, Any]]) -> set[str]:
    keys: set[str] = set(EXTRA_RECBOLE_KEYS) | {TRUST_KEY} | {parameter.name for parameter in PARAMETERS}
    if any(model in CUSTOM for model in defaults):
        keys.add("loss_type")  # RecBole reads it of every sequential model without an `input_type`
    for name in ("general_arguments", "training_arguments", "evaluation_arguments", "dataset_arguments"):
        keys |= set(getattr(recbole_arguments, name))
    return keys.union(*defaults.values())


def defaults_of(model: str) -> dict[str, Any]:
    """What stands in the property files that RecBole or this package reads when the model runs."""
    recbole = Path(str(importlib.util.find_spec("recbole").submodule_search_locations[0]))  # type: ignore[union-attr, index]
    files = [
        recbole / "properties/overall.yaml",
        recbole / "properties/dataset/sample.yaml",
        properties_dir() / "overall.yaml",
        recbole / f"properties/model/{model}.yaml",
        *model_files(model),
    ]
    return {key: value for file in files if file.is_file() for key, value in read_yaml(file).items()}


def load_configs(file: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> list[LSVCRConfig]:
    """The configurations of a run's tasks, as `load_config` reads them: for `task: both` those of `LSVCR` and of
    `LSVCRComment`, else one.

    Raises:
        ConfigError: as `load_config`.
    """
    given = {**(read_yaml(Path(file)) if file is not None else {}), **(overrides or {})}
    if given.get("task") != "both":
        return [load_config(None, given)]
    if given.get("model", "LSVCR") != "LSVCR":
        raise ConfigError(
            f"task = both fine-tunes {' and '.join(MODEL_OF.values())}; leave out model = {given['model']!r}, or name "
            "one task"
        )
    defaults = {model: defaults_of(model) for model in MODEL_OF.values()}
    return [_load({**given, "model": model, "task": task}, defaults) for task, model in MODEL_OF.items()]


def load_config(file: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> LSVCRConfig:
    """The configuration of a run: a YAML file, the overrides above it, everything else from the defaults.

    Without `model` it is that of the task (`LSVCR` for videos, `LSVCRComment` for comments); without `task` that of the
    model. A `model` of the form `my_module:MyModel` is the user's own: it is registered, `model` becomes its class name
    and `custom_model` keeps the path.

    Raises:
        ConfigError: an unknown key (the nearest known one is named), a value outside what is accepted, a missing data
        set, a model RecBole does not know, that cannot be imported or that does not do the task, more than one task.
    """
    given = {**(read_yaml(Path(file)) if file is not None else {}), **(overrides or {})}
    resolve_model(given)
    task = given.get("task")
    if task == "both":
        raise ConfigError("task = both has two configurations: load them with load_configs, or name one task")
    if given.get("joint"):
        raise ConfigError("joint = True trains one model on both tasks; give task: both (--task both) with it")
    if isinstance(task, str) and task in MODEL_OF and given.get("model", "LSVCR") == "LSVCR":
        given["model"] = MODEL_OF[task]
    model = given.setdefault("model", "LSVCR")
    check_model(model, task)
    given.setdefault("task", task_of(get_model(model)))
    return _load(given, {model: defaults_of(model)})


def _load(given: dict[str, Any], defaults: Mapping[str, Mapping[str, Any]]) -> LSVCRConfig:
    """The configuration of one model, whose task is named; its keys may be those of several models, whose `defaults`
    are given."""
    model = given["model"]
    check_keys(given, _keys(defaults), model)
    check_values(given.items(), model, defaults[model])
    if given["task"] == "video" and given.get("repeatable") is False:
        raise ConfigError("repeatable = False is not accepted: sequential models rank watched videos too; leave it out")
    given["eval_args"] = checked_eval_args(given.get("eval_args"))
    if "dataset" not in given:
        raise ConfigError(
            f"no data set: give 'dataset: <name>' in the configuration (a folder below data_path, or {SAMPLE})"
        )
    config = LSVCRConfig(config_dict=given)
    _check_together(config)
    return config


def check_model(model: Any, task: Any) -> None:
    """Refuse what is no model for one of the tasks, or not for `task` (None: for either).

    Raises:
        ConfigError: it is neither RecBole's nor ours, or ranks something else.
    """
    try:
        model_class = get_model(str(model))
    except (ValueError, AttributeError, ModuleNotFoundError) as error:
        # RecBole looks for an unknown name among its wrappers of these packages last, and imports all of them for it.
        wrapped = isinstance(error, ModuleNotFoundError) and error.name in ("lightgbm", "xgboost")
        if isinstance(error, ModuleNotFoundError) and (not wrapped or str(model).lower() == error.name):
            raise ConfigError(f"model '{model}' needs the package {error.name}, which is not installed") from error
        ours = ", ".join(MODELS)
        raise ConfigError(
            f"model '{model}' is not known; accepted: {ours}, and RecBole's sequential models (task video) and "
            "context-aware models (task comment) by their class names; one of yours as my_module:MyModel"
        ) from error
    if model_class.type not in (ModelType.SEQUENTIAL, ModelType.CONTEXT):
        raise ConfigError(
            f"model '{model}' is a {model_class.type.name.lower()} model of RecBole; task video ranks with sequential "
            "models (SASRec, GRU4Rec, LSVCR …), task comment with context-aware ones (FM, LSVCRComment …)"
        )
    if model in KNOWLEDGE:
        raise ConfigError(
            f"model '{model}' reads the vectors of a knowledge graph of the videos, which these data sets do not have; "
            "choose another one (GRU4Rec, SASRec, LSVCR …)"
        )
    if task in MODEL_OF and task != task_of(model_class):
        raise ConfigError(
            f"model '{model}' ranks {task_of(model_class)}s, not {task}s; leave out the task, or choose a model such "
            f"as {MODEL_OF[task]}"
        )


def check_keys(given: Mapping[str, Any], known: set[str], model: str = "") -> None:
    """Refuse keys that nothing reads, naming the nearest that something does.

    Raises:
        ConfigError: there are such keys.
    """
    unknown = [key for key in given if key not in known]
    if unknown:
        hints = []
        for key in unknown:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hints.append(f"'{key}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        raise ConfigError(
            f"unknown configuration key {', '.join(hints)}; accepted are RecBole's parameters, those of the "
            "model, and ours (README, Parameters)"
            + (f"; those of {model} are the keys of a {model}.yaml beside its module" if model in CUSTOM else "")
        )


def check_values(given: Iterable[tuple[str, Any]], model: str, defaults: Mapping[str, Any] | None = None) -> None:
    """Refuse values of parameters that `model`, whose `defaults` may be given, cannot have; what only several values
    together do is not looked at.

    Raises:
        ConfigError: there is one; accepted ones are named.
    """
    defaults = defaults_of(model) if defaults is None else defaults
    for key, value in given:
        ours = BY_NAME.get(key)
        if ours is not None and (ours in PARAMETERS or model in MODELS):
            ours.require(value)
        else:
            check_recbole_value(model, key, value, defaults.get(key))


def _check_together(config: LSVCRConfig) -> None:
    folder = Path(config["data_path"])
    if config["dataset"] != SAMPLE and not folder.is_dir():
        raise ConfigError(
            f"data set folder {folder} does not exist; convert raw logs into it with 'python -m dataset_tools "
            f"<source> RAW {folder}' or set data_path/dataset"
        )
    check_related(config)
    metric, _, cut = str(config["valid_metric"]).partition("@")
    if (
        metric.lower() not in [name.lower() for name in config["metrics"]]
        or not cut.isdigit()
        or int(cut) not in config["topk"]
    ):
        raise ConfigError(
            f"valid_metric = {config['valid_metric']!r} must be one of metrics {config['metrics']} at one of "
            f"topk {config['topk']}, such as {config['metrics'][0]}@{config['topk'][0]}"
        )
    if 0 < config["epochs"] < config["eval_step"]:
        raise ConfigError(
            f"eval_step = {config['eval_step']} is more than epochs = {config['epochs']}: no epoch would be validated; "
            "give at most as many, or 0 for no validation"
        )
    if config["task"] == "comment" and (catalogue := [name for name in config["metrics"] if needs_items(name)]):
        raise ConfigError(
            f"metrics: {', '.join(catalogue)} is of ranked videos; task comment has metrics of ranks (NDCG …)"
        )
    if config["alignment"]:
        load_alignment_config(config["alignment"])
    check_settings(config)
    if config["trainable_text"] and not getattr(get_model(config["model"]), "trains_text", False):
        raise ConfigError(
            f"trainable_text = {config['trainable_text']!r} is for the comment baselines (CommentDSSM, CommentGRU …); "
            f"{config['model']} reads the text store: choose its encoder by text_encoder, or an alignment"
        )


def output_folder(config: Any) -> Path:
    """The folder of the run.

    Raises:
        ConfigError: none is named.
    """
    if not config["output"]:
        raise ConfigError("no output folder: give --output DIR (or 'output: DIR' in the configuration)")
    return Path(config["output"])


def plain(value: Any) -> Any:
    """A configuration value as JSON and YAML can hold it."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
