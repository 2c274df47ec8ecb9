"""The files of RecBole's own trainers and models, kept as `recbole_lsvcr.checkpoint` keeps files.

`plugin.py` puts `save` and `load` in the place of `torch.save` and `torch.load` in RecBole's modules, and asks about
RecBole's caches here. RecBole itself is imported inside functions: its modules are being imported when this one is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from recbole_lsvcr.checkpoint import load_checkpoint, pack, save_checkpoint
from recbole_lsvcr.errors import CheckpointError

# What a machine decides for itself; `local_rank` would make `Config` join a process group.
MACHINE_KEYS = frozenset({"device", "local_rank", "single_spec"})
TRUST_KEY, TRUST_VARIABLE = "trusted_pickles", "LSVCR_TRUSTED_PICKLES"
_trusted: set[Path] = set()  # caches that RecBole may unpickle


def save(state: Any, file: str | os.PathLike[str], **_: Any) -> None:
    """Write what a RecBole trainer (a dictionary) or model (itself) hands to `torch.save` as tensors and plain data.

    The configuration becomes a dictionary of plain values. Layers among the other parameters are left out: FDSA, DIN
    and their kind list one that `state_dict` holds anyway.

    Raises:
        CheckpointError: another parameter that cannot be stored.
    """
    state = {"state_dict": state.state_dict()} if isinstance(state, nn.Module) else dict(state)
    settings = getattr(state.get("config"), "final_config_dict", None)
    if settings is not None:
        state["config"] = {key: _plain(value) for key, value in settings.items()}
    if isinstance(state.get("other_parameter"), dict):
        others = state["other_parameter"].items()
        state["other_parameter"] = {key: value for key, value in others if not isinstance(value, nn.Module)}
    save_checkpoint(file, state)


def _plain(value: Any) -> Any:
    """A configuration value as a checkpoint can hold it: of an object that it cannot hold, the text."""
    try:
        return pack(value, "config")
    except CheckpointError:
        return str(value)


def load(file: str | os.PathLike[str], map_location: Any = None, **_: Any) -> dict[str, Any]:
    """Read a checkpoint where RecBole calls `torch.load`.

    Raises:
        CheckpointError: as `recbole_lsvcr.checkpoint.load_checkpoint`.
    """
    return load_checkpoint(file, "cpu" if map_location is None else map_location)


def trust_pickles(paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> None:
    """Let RecBole unpickle the named caches. A pickle can run any code: name only files that you wrote yourself."""
    named = [paths] if isinstance(paths, str | os.PathLike) else paths
    _trusted.update(Path(path).resolve() for path in named)


def check_cache(file: str) -> None:
    """Refuse a cached data set or cached data loaders (pickles) unless the user has named the file.

    By `trusted_pickles: [saved/old.pth]` in the configuration, by the environment variable `LSVCR_TRUSTED_PICKLES`
    (paths separated as in PATH), or by `trust_pickles`.

    Raises:
        CheckpointError: the file is not named.
    """
    variable = [Path(name).resolve() for name in os.environ.get(TRUST_VARIABLE, "").split(os.pathsep) if name]
    if Path(file).resolve() not in _trusted.union(variable):
        raise CheckpointError(
            f"RecBole's cache {file} is a pickle, which can run any code when it is read, so it was not read: delete "
            "it and the data set's own files are read again, or, if you wrote it yourself, name it: "
            f"{TRUST_KEY}: ['{file}'] in the configuration, or {TRUST_VARIABLE}={file} in the environment"
        )


def announce_cache(file: str) -> None:
    """Say what RecBole has just cached, and how to use it; this process may read it, since it knows what it wrote."""
    trust_pickles(file)
    advice = (
        f"RecBole's cache {file} is a pickle: this run may read it again, later runs if told {TRUST_KEY}: ['{file}']"
    )
    logging.getLogger().warning(advice)


def restore_config(values: dict[str, Any]) -> Any:
    """The `Config` whose plain values a checkpoint holds.

    Nothing in the file is evaluated and `sys.argv` is not read; the device is chosen on this machine.
    """
    from recbole.config import Config
    from recbole.utils import EvaluatorType, InputType, ModelType, get_model

    from recbole_lsvcr.custom_models import PATH_KEY
    from recbole_lsvcr.registry import CUSTOM

    config = Config.__new__(Config)
    config._init_parameters_category()
    config.yaml_loader = config._build_yaml_loader()
    config.file_config_dict, config.variable_config_dict, config.cmd_config_dict = {}, {}, {}
    config.internal_config_dict, config.external_config_dict = {}, {}
    path = values.get(PATH_KEY)
    if path and values["model"] not in CUSTOM:  # a file decides on no import
        raise CheckpointError(
            f"the checkpoint's model is a class of your own, {path}: call recbole_lsvcr.register_model({path!r}) first"
        )
    config.model, config.dataset, config.model_class = values["model"], values["dataset"], get_model(values["model"])
    config.final_config_dict = {key: value for key, value in values.items() if key not in MACHINE_KEYS}
    for key, kind in (("MODEL_TYPE", ModelType), ("MODEL_INPUT_TYPE", InputType), ("eval_type", EvaluatorType)):
        if key in values:
            config[key] = kind[values[key].rpartition(".")[2]]
    config._init_device()
    return config


def load_data_and_model(model_file: str | os.PathLike[str]) -> tuple[Any, Any, Any, Any, Any, Any]:
    """RecBole's function of that name, for checkpoints of plain data.

    Returns:
        configuration, model (with the checkpoint's weights), data set, loaders of training, validation and test.

    Raises:
        CheckpointError: the file cannot be read, or is not a trainer's.
    """
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, init_logger, init_seed

    checkpoint = load_checkpoint(model_file)
    settings = checkpoint.get("config")
    if not isinstance(settings, dict) or not {"model", "dataset"} <= set(settings) or "state_dict" not in checkpoint:
        raise CheckpointError(
            f"{model_file} holds no configuration or no weights: give a checkpoint that RecBole's trainer wrote"
        )
    config = restore_config(settings)
    config.compatibility_settings()  # NumPy's old names, which RecBole's code uses and `Config.__init__` brings back
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    logger = logging.getLogger()
    logger.info(config)
    dataset = create_dataset(config)
    logger.info(dataset)
    train, valid, test = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train._dataset).to(config["device"])
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter(checkpoint.get("other_parameter"))
    return config, model, dataset, train, valid, test
