"""What `import recbole_lsvcr` does to RecBole 1.2.1: it finds our models by name, and works with PyTorch >= 2.6.

HOW. One import hook (`_Hook`, first in `sys.meta_path`) answers for two kinds of names and for no others:
  * `recbole.model.<family>.<model>` of a model in `MODELS` or `CUSTOM` (the user's own): a module holding the class,
    where `get_model` looks for it;
  * the RecBole modules in `PATCHES`: the real module, patched as soon as it has run.
So nothing of RecBole (or of ray) is imported for the plugin's sake, and the package is importable without RecBole; what
is imported already when the plugin comes is patched at once. Only names inside RecBole's modules are replaced: `torch`
or `pickle` as ONE module sees them (`_Stand`), a method of `Config` and of `Dataset`, four functions.

WHAT, and why:
  * `recbole.trainer.<Model>Trainer`, `recbole.data.dataset.<Model>Dataset`, `get_dataloader`: ours, for our models.
  * `Config` takes `my_module:MyModel` for a model (`recbole_lsvcr.custom_models`).
  * Defaults: our property files lie over RecBole's and under the user's; a data set's own `<name>.yaml` is read;
    sequential models load the time column and, with the CE loss, take no negative samples, which stock RecBole makes
    everybody write down.
  * Checkpoints (`recbole_lsvcr.recbole_files`): stock RecBole pickles its `Config` into them, and PyTorch >= 2.6 does
    not load that: evaluation, resuming, `load_data_and_model` and pre-trained models fail. Trainers and models get a
    `torch` whose `save` and `load` know tensors and plain data only. RecBole's pickled caches are read only if named.
  * `run(nproc=N)` and Ray start processes that know nothing of the plugin: what they are told to call is a function of
    this module, so that they import it first.
  * `lsvcr-sample` is generated on first use; other downloads no longer end in an error about a process group.
  * Importing RecBole's sequential models leaves autograd's anomaly detection on for the whole process: it is off again.
  * SciPy >= 1.13 has dropped the method that LightGCN and six other models build their graphs with.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from recbole_lsvcr.registry import CONTEXT, CUSTOM, MODELS, Model, joint_model, model_files, properties_dir

SAMPLE = "lsvcr-sample"
DATA_KEYS = ("numerical_features", "discretization")  # settings of a data set that RecBole's list of them leaves out


@contextmanager
def hidden_argv() -> Iterator[None]:
    """Hide the command line's arguments from RecBole's `Config`, which reads `sys.argv` by itself."""
    kept = sys.argv
    sys.argv = kept[:1]
    try:
        yield
    finally:
        sys.argv = kept


def install() -> None:
    """Put the hook in place and patch what is imported already; doing it twice changes nothing."""
    if any(isinstance(finder, _Hook) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Hook())
    # What this stack has to say about RecBole's own lines (chained in-place fills, which pandas < 3 still does, and
    # `torch.cuda.amp.GradScaler`) and about ray's use of pkg_resources is nothing that a user could act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", category=UserWarning)
    for name, patch in PATCHES.items():
        if name in sys.modules:
            patch(sys.modules[name])


# ---- the hook ----


class _Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if not fullname.startswith("recbole."):
            return None
        for name, model in (*MODELS.items(), *CUSTOM.items()):
            if fullname == f"recbole.model.{model.family}.{name.lower()}":
                return ModuleSpec(fullname, _ModelLoader(name, model), origin=model.module)
        patch = PATCHES.get(fullname)
        if patch is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _PatchingLoader(spec.loader, patch)
                return spec
        return None


class _ModelLoader(importlib.abc.Loader):
    """Makes the module in which RecBole looks for a model of ours or of the user's."""

    def __init__(self, name: str, model: Model) -> None:
        self.name, self.model = name, model

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, self.name, getattr(importlib.import_module(self.model.module), self.name))


class _PatchingLoader(importlib.abc.Loader):
    """Runs a module as its own loader does, then patches it."""

    def __init__(self, loader: Any, patch: Callable[[ModuleType], None]) -> None:
        self.loader, self.patch = loader, patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        self.patch(module)

    def __getattr__(self, name: str) -> Any:  # sources and resources, for tracebacks and inspection
        return getattr(self.loader, name)


class _Stand(ModuleType):
    """Stands for a module where one RecBole module uses it: some names replaced, all others the module's own."""

    def __init__(self, module: ModuleType, **replaced: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(replaced, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _replace(module: ModuleType, name: str, replacement: Any) -> None:
    """Bind `name` anew in `module` and wherever it has been imported from there: no order of imports is wrong."""
    stock = getattr(module, name)
    for holder in list(sys.modules.values()):
        if getattr(holder, "__dict__", {}).get(name) is stock:
            setattr(holder, name, replacement)
    setattr(module, name, replacement)


# ---- the patches ----


def _patch_config(module: ModuleType) -> None:
    from recbole_lsvcr.custom_models import takes_paths

    stock = module.Config._load_internal_config_dict

    @wraps(stock)
    def load_internal(self: Any, model: str, model_class: type, dataset: str) -> None:
        stock(self, model, model_class, dataset)
        _add_defaults(self, model, model_class, dataset)

    module.Config._load_internal_config_dict = load_internal
    module.Config._get_model_and_dataset = takes_paths(module.Config._get_model_and_dataset)


def _add_defaults(config: Any, model: str, model_class: Any, dataset: str) -> None:
    """Lay our defaults over RecBole's; what the user says (`external_config_dict`) comes on top of both."""
    from recbole_lsvcr.errors import ConfigError
    from recbole_lsvcr.recbole_files import TRUST_KEY, trust_pickles

    defaults, said = config.internal_config_dict, config.external_config_dict
    named = said.get(TRUST_KEY) or []
    if not isinstance(named, str | list | tuple):
        raise ConfigError(f"{TRUST_KEY} is {named!r}: list the caches that may be unpickled, by name")
    trust_pickles(named)
    ours = properties_dir()
    for file in (ours / "overall.yaml", *model_files(model), ours / "dataset" / f"{dataset}.yaml"):
        defaults.update(_settings(file))
    own = _settings(Path(said.get("data_path") or defaults["data_path"], dataset) / f"{dataset}.yaml")
    # Written for RecBole without the plugin, it may hold a model's settings too; a data set decides on data only.
    defaults.update({key: value for key, value in own.items() if key in {*config.parameters["Dataset"], *DATA_KEYS}})
    if model_class.type.name != "SEQUENTIAL":
        return
    settings, columns = {**defaults, **said}, defaults.get("load_col")
    if isinstance(columns, dict) and isinstance(columns.get("inter"), list):
        time = settings["TIME_FIELD"]
        defaults["load_col"] = {**columns, "inter": columns["inter"] + [time] * (time not in columns["inter"])}
    if settings.get("loss_type") == "CE" and not hasattr(model_class, "input_type"):
        defaults["train_neg_sample_args"] = None


def _settings(file: Path) -> dict[str, Any]:
    from recbole_lsvcr.yaml_files import read_yaml

    return read_yaml(file) if file.is_file() else {}


def _patch_torch(module: ModuleType) -> None:
    from recbole_lsvcr import recbole_files

    module.torch = _Stand(module.torch, load=recbole_files.load, save=recbole_files.save)  # type: ignore[attr-defined]


def _patch_pickle(module: ModuleType) -> None:
    from recbole_lsvcr import recbole_files

    stock = module.pickle

    def load(file: Any) -> Any:
        recbole_files.check_cache(file.name)
        return stock.load(file)

    def dump(value: Any, file: Any) -> None:
        stock.dump(value, file)
        recbole_files.announce_cache(file.name)

    module.pickle = _Stand(stock, load=load, dump=dump)  # type: ignore[attr-defined]


def _patch_data_utils(module: ModuleType) -> None:
    _patch_pickle(module)
    stock = module.get_dataloader

    @wraps(stock)
    def get_dataloader(config: Any, phase: str) -> Any:
        model = joint_model(config["model"])
        if model is None:
            return stock(config, phase)
        loaders = importlib.import_module("recbole_lsvcr.data.loader")
        if phase == "train":
            return loaders.JointTrainLoader
        return loaders.CommentEvalLoader if model.family == CONTEXT else loaders.JointEvalLoader

    _replace(module, "get_dataloader", get_dataloader)


def _patch_dataset(module: ModuleType) -> None:
    _patch_pickle(module)
    distributed, stock = module.torch.distributed, module.Dataset._download

    def barrier() -> None:
        if distributed.is_initialized():
            distributed.barrier()

    @wraps(stock)
    def download(self: Any) -> None:
        if self.dataset_name != SAMPLE:
            stock(self)
            return
        if self.config["local_rank"] == 0:
            _generate_sample(Path(self.dataset_path))
        barrier()

    module.torch = _Stand(module.torch, distributed=_Stand(distributed, barrier=barrier))  # type: ignore[attr-defined]
    module.Dataset._download = download


def _generate_sample(folder: Path) -> None:
    from dataset_tools.errors import DataToolError
    from dataset_tools.sample import generate
    from recbole_lsvcr.errors import DataError

    try:
        generate(folder)
    except DataToolError as error:
        raise DataError(str(error)) from error


def _answer(ending: str, where: str, what: str) -> Callable[[ModuleType], None]:
    """The patch that makes `<Model><ending>` of every joint model an attribute, imported when it is asked for."""

    def patch(module: ModuleType) -> None:
        def __getattr__(name: str) -> Any:
            if name.endswith(ending) and joint_model(name.removesuffix(ending)) is not None:
                return getattr(importlib.import_module(where), what)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__getattr__ = __getattr__  # type: ignore[method-assign]

    return patch


def _patch_anomaly(module: ModuleType) -> None:
    """Importing SINE, as RecBole does with every sequential model, has autograd check each gradient: twice the time."""
    module.torch.autograd.set_detect_anomaly(False)


def _patch_graph(module: ModuleType) -> None:
    class dok_matrix(module.sp.dok_matrix):  # type: ignore[name-defined]
        def _update(self, entries: dict[tuple[int, int], float]) -> None:
            self._dict.update(entries)

    module.sp = _Stand(module.sp, dok_matrix=dok_matrix)  # type: ignore[attr-defined]


def _patch_quick_start(module: ModuleType) -> None:
    from recbole_lsvcr import recbole_files

    for name, ours in (("run_recboles", run_recboles), ("objective_function", objective_function)):
        _stock[name] = getattr(module, name)
        _replace(module, name, ours)
    _replace(module, "load_data_and_model", recbole_files.load_data_and_model)


_stock: dict[str, Callable[..., Any]] = {}


def run_recboles(rank: int, *args: Any) -> None:
    """RecBole's; a process started by `run(nproc=N)` finds it here and so has the plugin."""
    importlib.import_module("recbole.quick_start")
    _stock["run_recboles"](rank, *args)


def objective_function(config_dict: Any = None, config_file_list: Any = None, saved: bool = True) -> dict[str, Any]:
    """RecBole's; a Ray worker finds it here and so has the plugin.

    The test metrics stand in the result too: Ray takes what is returned for a trial's last report and wants them.
    """
    importlib.import_module("recbole.quick_start")
    result = _stock["objective_function"](config_dict=config_dict, config_file_list=config_file_list, saved=saved)
    return {**result, **result["test_result"]}


_GENERAL, _KNOWLEDGE = "recbole.model.general_recommender", "recbole.model.knowledge_aware_recommender"

PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "recbole.config.configurator": _patch_config,
    "recbole.data.utils": _patch_data_utils,
    "recbole.data.dataset": _answer("Dataset", "recbole_lsvcr.data.dataset", "JointDataset"),
    "recbole.data.dataset.dataset": _patch_dataset,
    "recbole.trainer": _answer("Trainer", "recbole_lsvcr.trainer", "LSVCRTrainer"),
    "recbole.trainer.trainer": _patch_torch,
    "recbole.quick_start.quick_start": _patch_quick_start,
    "recbole.model.sequential_recommender.s3rec": _patch_torch,
    "recbole.model.sequential_recommender.sine": _patch_anomaly,
    "recbole.model.context_aware_recommender.kd_dagfm": _patch_torch,
    **{f"{_GENERAL}.{name}": _patch_torch for name in ("convncf", "nais", "neumf", "ract")},
    **{f"{_GENERAL}.{name}": _patch_graph for name in ("gcmc", "lightgcn", "ncl", "ngcf", "spectralcf")},
    **{f"{_KNOWLEDGE}.{name}": _patch_graph for name in ("kgin", "mcclk")},
}
