"""What the configuration of a benchmark may say: what is its own, what all models have in common, what nobody reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recbole_lsvcr.benchmark.sizes import NAMES
from recbole_lsvcr.benchmark.tuning import Tuning
from recbole_lsvcr.benchmark.vocabulary import COMMENT_PROTOCOLS, PERIOD, PROTOCOLS
from recbole_lsvcr.config import MODEL_OF, check_keys, check_model, check_values, known_keys
from recbole_lsvcr.custom_models import PATH_KEY
from recbole_lsvcr.errors import ConfigError
from recbole_lsvcr.eval_args import DEFAULT_EVAL_ARGS, selection_mode

logger = logging.getLogger()
CUT = 10  # of the metrics that models are compared on
# Keys of the configuration that the benchmark itself reads, or sets for each cell.
OWN_KEYS = (
    "benchmark",
    "seeds",
    "tune",
    "model_settings",
    "task",
    "model",
    PATH_KEY,
    "seed",
    "output",
    "stage",
    "joint",
)
# No model has one of its own: data, split, lists, and what is made of the ranks are the same for all.
COMMON = (
    *OWN_KEYS,
    "dataset",
    "data_path",
    "eval_args",
    "candidate_seed",
    "sample_num",
    "comment_list_limit",
    "protocols",
    "comment_protocols",
    "valid_protocol",
    "comment_valid_protocol",
    "metrics",
    "topk",
    "valid_metric",
    "report_phases",
    "save_instances",
)
# Keys that say where things are, and what is reported: they decide no number.
PLACES = (
    "data_path",
    "text_store",
    "alignment_folder",
    "show_progress",
    "state",
    "gpu_id",
    "use_gpu",
    "data_cache",
    "report_phases",
)


def check_settings(
    given: Mapping[str, Any],
    model_settings: Mapping[str, Mapping[str, Any]],
    tuning: Tuning,
    models: Sequence[str],
    others: Mapping[str, bool],
) -> None:
    """Refuse what no model reads.

    Args:
        given: settings of all models. models: that take part. others: models that could, by the same configuration,
            and of which it may speak; False: one of the user's own, whose settings are not known here.

    Raises:
        ConfigError: a setting that no model has, or of no model, or one that is to be tuned as well.
    """
    if NAMES[0] in given:
        raise ConfigError(
            f"{NAMES[0]} = {given[NAMES[0]]!r} is the size of some models only; a benchmark's hidden_size is that of "
            "every model, whatever the model calls it"
        )
    known = [*models, *(name for name, is_known in others.items() if is_known)]
    check_keys(given, known_keys(known) | {"hidden_size"})
    read = known_keys(models) | {"hidden_size"}
    unread = [key for key in given if key not in read]
    for where, names in (("model_settings", model_settings), ("tune", tuning.models())):
        absent = [name for name in names if name not in models]
        if unknown := [name for name in absent if name not in others]:
            raise ConfigError(f"{where}: {', '.join(unknown)} is not in this benchmark; there are {', '.join(models)}")
        unread += [f"{where} of {name}" for name in absent]
    if unread:
        logger.info("no model of this benchmark reads %s", ", ".join(unread))
    for model, settings in model_settings.items():
        refuse_common(f"model_settings: {model}", settings)
        if model in known:
            check_keys(settings, known_keys([model]))
        if both := settings.keys() & tuning.space.get(model, {}).keys():
            raise ConfigError(f"{', '.join(both)} of {model} is in model_settings and in tune; leave it out in one")


def check_tuning(tuning: Tuning, model: str) -> None:
    """Refuse a space that the model does not read, or values that its parameters cannot have.

    Raises:
        ConfigError: it is such a space.
    """
    space = tuning.of(model)
    refuse_common("tune", space)
    try:
        check_keys(space, known_keys([model]))
    except ConfigError as error:
        raise ConfigError(
            f"tune: {model} does not read all of the space ({error}); name such a parameter under the models that "
            "have it: space: {learning_rate: […], SASRec: {hidden_dropout_prob: […]}}"
        ) from error
    try:
        check_values(tuning.values(model), model)
    except ConfigError as error:
        raise ConfigError(f"tune: {model}: {error}") from error


def refuse_common(where: str, settings: Iterable[str]) -> None:
    """Refuse a setting of one model that a benchmark gives to all, and would not read there.

    Raises:
        ConfigError: there is one; `where` names the model in the message.
    """
    if common := [key for key in settings if key in COMMON]:
        raise ConfigError(
            f"{where} sets {', '.join(common)}, which is the same for every model of a benchmark; leave it out there, "
            "or give it at the top of the configuration or on the command line"
        )


def with_what_is_judged(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with what a report is made of: rankings, and metrics at 10, on which the models are compared.

    Raises:
        ConfigError: `eval_args.mode` does not rank.
    """
    given = _with_protocols(settings)
    cuts = given.get("topk")
    if cuts is not None:
        every = cuts if isinstance(cuts, list) else [cuts]
        given["topk"] = cuts if CUT in every else [*every, CUT]
    return given


def _with_protocols(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the rankings that are reported, that of model selection among them and first.

    Where the configuration chooses by none, videos are ranked against those of the same days: against any video a model
    has but to see which of them are new.

    Raises:
        ConfigError: `eval_args.mode` does not rank.
    """
    given = dict(settings)
    eval_args = given.get("eval_args")
    eval_args = eval_args if isinstance(eval_args, Mapping) else {}
    mode = selection_mode({**DEFAULT_EVAL_ARGS, **eval_args})
    if not given.get("valid_protocol") and "mode" not in eval_args:
        given["valid_protocol"] = PERIOD
    by_mode = f"all+{mode.negatives}{mode.sample_num or ''}"
    comments_by_mode = COMMENT_PROTOCOLS[mode.is_full]
    for prefix, default, protocols in (("", by_mode, PROTOCOLS), ("comment_", comments_by_mode, COMMENT_PROTOCOLS)):
        chosen = given.get(f"{prefix}valid_protocol") or default
        wanted = given.get(f"{prefix}protocols") or [*protocols]
        if isinstance(wanted, list):
            wanted = [chosen, *(name for name in wanted if name != chosen)]
        given[f"{prefix}protocols"] = wanted
    return given


def refuse_single(given: Mapping[str, Any]) -> None:
    """Settings of a single run that a benchmark cannot follow."""
    model = given.get("model") or given.get(PATH_KEY)
    if model not in (None, *MODEL_OF.values()):
        raise ConfigError(
            f"model = {model!r} is for a single run; name the models of a benchmark by --benchmark {model} (LSVCR is "
            "always among them)"
        )
    if model == MODEL_OF["comment"]:
        check_model(model, given.get("task"))
    if given.get("joint"):
        raise ConfigError("joint = True is for a single run; a benchmark trains every model on its own task")
    if given.get("save_instances", True) is not True:
        raise ConfigError(
            "save_instances = False is for a single run; a benchmark's intervals and tests are of instances"
        )
    phases = given.get("report_phases")
    if isinstance(phases, list) and "test" not in phases:
        raise ConfigError(f"report_phases = {phases} is for a single run; a benchmark compares on the test period")
    if given.get("stage") not in (None, "all"):
        raise ConfigError(f"stage = {given['stage']!r} is for a single run; a benchmark runs all stages")
