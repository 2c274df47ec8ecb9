"""Models of the user's own, named by import path: `my_package.my_module:MyModel`.

`register_model` enters the class into `registry.CUSTOM`, which the plugin's import hook reads, so that RecBole's
`get_model` finds it by its class name. A configuration whose `model` is an import path is given the class name instead
and keeps the path as `custom_model`, so that it can be resolved again in another process. A checkpoint keeps the path
too, but nothing is imported because a checkpoint says so.

The defaults of a model are those of the classes it derives from (RecBole's, ours, the user's), each in a YAML of the
class's name; the user's lie beside the file that defines the class.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, MutableMapping
from functools import wraps
from pathlib import Path
from typing import Any

from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.registry import CONTEXT, CUSTOM, MODELS, Model, properties_dir

PATH_KEY = "custom_model"
_FORM = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
_OURS = ("recbole", "recbole_lsvcr", "dataset_tools")
_FAMILIES = ("general", "context_aware", "sequential", "knowledge_aware", "exlib")
_READS = ("reads_text", "reads_comments", "reads_times", "reads_candidates")  # only our data set has what these want


def register_model(path: str) -> str:
    """Make a model class usable by its name wherever RecBole takes the name of a model.

    Args:
        path: `package.module:ClassName` of a class deriving from RecBole's `SequentialRecommender` (it ranks videos) or
            `ContextRecommender` (comments). The working directory is put first on Python's path, as `python -m` does.

    Returns:
        the class name. Registering a path again changes nothing.

    Raises:
        ConfigError: not of that form, a module that cannot be imported, no such class in it, a class of another kind,
        or a name that RecBole, this package or another registered model has.
    """
    found = _FORM.fullmatch(path)
    if found is None:
        raise ConfigError(
            f"model '{path}' is not an import path; accepted: package.module:ClassName (dots between folders, without "
            ".py), such as my_models.gru:MyGRU for the class MyGRU in my_models/gru.py"
        )
    module, name = found.groups()
    if name in CUSTOM and CUSTOM[name].module == module:
        return name
    model = _class_of(path, module, name)
    _check_name(path, name)
    context = not issubclass(model, _base("SequentialRecommender"))
    family = CONTEXT if context else Model.family
    homes = [base.__module__.partition(".")[0] for base in model.__mro__]
    joint = "recbole_lsvcr" in homes or any(getattr(model, needed, False) for needed in _READS)
    CUSTOM[name] = Model(module, family, joint, tuple(_default_files(model, context and joint)))
    return name


def resolve_model(given: MutableMapping[str, Any]) -> None:
    """Put the class name in the place of an import path that `model` holds, and the path under `custom_model`.

    Without `model`, `custom_model` names the model; beside the name of another model it is dropped.

    Raises:
        ConfigError: as `register_model`.
    """
    model, path = given.get("model"), given.get(PATH_KEY)
    if isinstance(model, str) and ":" in model:
        model, path = None, model
    if path is not None:
        name = register_model(str(path))
        model = name if model is None else model
        given["model"] = model
    if isinstance(model, str) and model in CUSTOM:
        given[PATH_KEY] = f"{CUSTOM[model].module}:{model}"
    else:
        given.pop(PATH_KEY, None)


def takes_paths(stock: Callable[..., Any]) -> Callable[..., Any]:
    """RecBole's `Config._get_model_and_dataset`, with which a model can be an import path too."""

    @wraps(stock)
    def get_model_and_dataset(config: Any, model: Any, dataset: str | None) -> Any:
        said = config.external_config_dict
        if isinstance(model, str):
            said["model"] = model
        if model is None or isinstance(model, str):  # else it is a class
            resolve_model(said)
            model = said.get("model")
        return stock(config, model, dataset)

    return get_model_and_dataset


def source_files(name: str) -> list[Path]:
    """The user's files that decide what a registered model does: its module, what that imports of the same folder or
    package (imports inside functions apart), and the YAML files of its defaults."""
    start = CUSTOM[name].module
    package, dot, _ = start.partition(".")
    file = getattr(sys.modules[start], "__file__", None)
    home = None if dot or file is None else Path(file).resolve().parent
    seen: dict[str, Path | None] = {}
    left = [start]
    while left:
        module = left.pop()
        file = getattr(sys.modules.get(module), "__file__", None)
        path = None if file is None else Path(file).resolve()
        top = module.partition(".")[0]
        near = path is not None and home in path.parents and "site-packages" not in path.parts and top not in _OURS
        if module in seen or not (top == package or near):
            continue
        seen[module] = path
        for value in list(vars(sys.modules[module]).values()):
            owner = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            left += [owner] if isinstance(owner, str) else []
    files = {path for path in seen.values() if path is not None} | set(CUSTOM[name].defaults)
    return sorted(path for path in files if path.is_file())


def _recbole(*parts: str) -> Path:
    return Path(str(importlib.import_module("recbole").__file__)).parent.joinpath(*parts)


def _base(name: str) -> type:
    return getattr(importlib.import_module("recbole.model.abstract_recommender"), name)


def _class_of(path: str, module: str, name: str) -> type:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the module may have been written a moment ago
    try:
        holder = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"model '{path}': there is no module {error.name} in {folder} or on Python's path; start from the "
                "folder above it, or add that folder to PYTHONPATH"
            ) from error
        raise ConfigError(
            f"model '{path}': its module needs the module {error.name}, which is not installed or not on Python's path"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"model '{path}': its module cannot be imported: {type(error).__name__}: {error}; 'python -c \"import "
            f"{module}\"' shows where"
        ) from error
    model = getattr(holder, name, None)
    if model is None:
        own = [key for key, value in vars(holder).items() if inspect.isclass(value) and value.__module__ == module]
        raise ConfigError(f"model '{path}': module {module} has no {name}; its classes are: {', '.join(own) or 'none'}")
    accepted = _base("SequentialRecommender"), _base("ContextRecommender")
    if not (inspect.isclass(model) and issubclass(model, accepted)) or model in accepted or inspect.isabstract(model):
        lacking = ", ".join(sorted(getattr(model, "__abstractmethods__", ())))
        kind = "is not a class" if not inspect.isclass(model) else "is a class of another kind"
        raise ConfigError(
            f"model '{path}' {f'is abstract ({lacking} is missing)' if lacking else kind}; accepted: a class deriving "
            "from RecBole's SequentialRecommender (videos), ContextRecommender (comments), or a model of these"
        )
    return model


def _check_name(path: str, name: str) -> None:
    """Refuse a name under which `get_model`, which looks in a module of the name in small letters, has a model."""
    lower = name.lower()
    owner = None
    if lower in map(str.lower, MODELS):
        owner = "recbole-lsvcr"
    for other, model in CUSTOM.items():
        owner = f"'{model.module}:{other}'" if lower == other.lower() else owner
    if owner is None and (
        any(_recbole("model", f"{family}_recommender", f"{lower}.py").exists() for family in _FAMILIES)
        or hasattr(importlib.import_module("recbole.trainer"), f"{name}Trainer")
    ):
        owner = "RecBole"
    if owner is not None:
        raise ConfigError(
            f"model '{path}': the name {name} is taken by {owner} (large and small letters are the same here); give "
            "the class another name"
        )


def _default_files(model: type, comments: bool) -> list[Path]:
    """The YAML files of the defaults of a model and the classes it derives from, the model's own last."""
    packages = {
        "recbole": _recbole("properties", "model"),
        "recbole_lsvcr": properties_dir() / "model",
    }
    files = [packages["recbole_lsvcr"] / "LSVCRComment.yaml"] if comments else []
    for base in reversed(model.__mro__):
        source = getattr(sys.modules.get(base.__module__), "__file__", None)
        folder = packages.get(base.__module__.partition(".")[0]) or (Path(source).resolve().parent if source else None)
        file = folder / f"{base.__name__}.yaml" if folder else None
        if file is not None and file.is_file() and file not in files:
            files.append(file)
    return files
