"""Hyper-parameter search with the same number of trials for every model, judged by validation alone.

Optuna proposes, we train: its ask-and-tell interface leaves the training to resumable cells, and a sampler with a seed
asks for the same trials again when a killed benchmark starts anew and tells it what the finished cells found. Ray Tune,
which RecBole brings, wants to run the trials itself, in workers of a cluster it starts, and keeps its own results; it
serves RecBole's `HyperTuning`, which works over LSVCR as over any model (examples/).
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from recbole_lsvcr.errors import ConfigError

RATES = (0.005, 0.003, 0.001, 0.0005, 0.0001)  # the paper's learning rates, for all models (section 4.1.4)
TUNE_KEYS = ("budget", "space")
_RANGE_KEYS = {"low", "high", "log", "step"}
_PROPOSALS = 20  # for each trial, known ones among them, before the grid's next is taken

logger = logging.getLogger()
Space = Mapping[str, Any]
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Tuning:
    """How many trials each model has, and among what.

    Attributes:
        budget: trials of every model that learns; 0: none.
        space: parameter -> list of choices, or a range {low, high, log, step}; a model's name -> more of these.
    """

    budget: int
    space: Space

    @classmethod
    def parse(cls, value: Any, models: Sequence[str]) -> Tuning:
        """From `tune` of the configuration; nothing: the paper's learning rates, each once; off: no tuning.

        No model has more trials than another (arms that fix a tuned parameter have fewer): the budget is at most what
        the smallest of their spaces has to try, and that where none is given.

        Args:
            models: those of the benchmark that learn.

        Raises:
            ConfigError: another form; or some models have something to try, and others nothing.
        """
        if value is False:
            return cls(0, {})
        given = {} if value is None else value
        if not isinstance(given, Mapping) or set(given) - set(TUNE_KEYS):
            raise ConfigError(
                f"tune = {value!r} is not accepted; accepted: off, {{budget: N, space: {{learning_rate: [0.001]}}}}"
            )
        space = given.get("space") or {"learning_rate": list(RATES)}
        if not isinstance(space, Mapping):
            raise ConfigError(f"tune: space = {space!r} is not a mapping of parameters to choices or ranges")
        for name, values in space.items():
            if _is_model(name) and not isinstance(values, Mapping):
                raise ConfigError(f"tune: space of the model {name} is {values!r}; give {{parameter: [choices]}}")
            for parameter, choices in values.items() if _is_model(name) else [(name, values)]:
                _check(parameter, choices)
        tuning = cls(0, space)
        sizes = {model: size for model in models if (size := _grid_size(tuning.of(model))) is not None}
        most = min(sizes.values(), default=None)  # that every model can have
        budget = given.get("budget", most if sizes.keys() >= set(models) else None)
        if not isinstance(budget, int) or isinstance(budget, bool) or budget < 0:
            raise ConfigError(
                "tune: budget must be a whole number of trials of each model (0: none); it may be left out only where "
                f"every parameter has a list of choices or a range of whole numbers. Given: {budget!r}"
            )
        idle = [model for model in models if budget and not tuning.of(model)]
        if idle and len(idle) < len(models):
            raise ConfigError(
                f"tune: {', '.join(idle)} would have nothing to try, but every model is to have as many trials; give "
                "the space a parameter of all models too, such as learning_rate: [0.003, 0.001, 0.0005]"
            )
        if most is not None and budget > most:
            name = next(model for model, size in sizes.items() if size == most)
            logger.info("tune: %d trials of every model, not %d: %s has no more to try", most, budget, name)
            budget = most
        return cls(budget, space)

    def of(self, model: str) -> Space:
        """The parameters to be chosen for one model."""
        common = {name: values for name, values in self.space.items() if not _is_model(name)}
        return {**common, **self.space.get(model, {})}

    def values(self, model: str) -> list[tuple[str, Any]]:
        """Every choice and both ends of every range for one model, each with its parameter."""
        ends = {name: [v["low"], v["high"]] if isinstance(v, Mapping) else v for name, v in self.of(model).items()}
        return [(name, value) for name, values in ends.items() for value in values]

    def models(self) -> list[str]:
        """The models that have parameters of their own in the space."""
        return [name for name in self.space if _is_model(name)]


@dataclass(frozen=True)
class Trial:
    """What was tried, and the validation score it reached; None: it failed."""

    parameters: Mapping[str, Any]
    score: float | None


def search(
    space: Space,
    budget: int,
    *,
    first: Mapping[str, Any],
    seed: int,
    bigger_is_better: bool,
    run: Callable[[Mapping[str, Any]], float | None],
) -> list[Trial]:
    """Try `budget` settings one after the other; the same arguments and scores give the same trials.

    A space that the budget covers is tried completely, in its order; otherwise the first trial is `first`, and a
    tree-structured Parzen estimator proposes the others, none of them twice.

    Args:
        space: see `Tuning`. first: the model's own values of the parameters.
        seed: of the sampler. run: trains with these parameters and returns the validation score, None if it failed.
    """
    distributions = {name: _distribution(values) for name, values in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(direction="maximize" if bigger_is_better else "minimize", sampler=sampler)
    size = _grid_size(space)
    if size is not None and size <= budget:
        budget = size
        for parameters in _grid(space):
            study.enqueue_trial(parameters)
    else:
        study.enqueue_trial({name: value for name, value in first.items() if _inside(space.get(name), value)})
    trials: list[Trial] = []
    known: dict[str, float | None] = {}
    for repeated in itertools.count():
        if len(trials) == budget:
            break
        if size is not None and repeated > _PROPOSALS * budget:  # it wants to try nothing new any more
            study.enqueue_trial(next(one for one in _grid(space) if _key(one) not in known))
        asked = study.ask(distributions)
        key = _key(asked.params)
        if key not in known:
            known[key] = run(asked.params)
            trials.append(Trial(dict(asked.params), known[key]))
        score = known[key]
        if score is None or not math.isfinite(score):
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, score)
    return trials


def _key(parameters: Mapping[str, Any]) -> str:
    """Of equal settings equal, however their numbers were calculated."""
    rounded = {name: float(f"{value:.9g}") if _is_number(value) else value for name, value in parameters.items()}
    return repr(sorted(rounded.items()))


def best(trials: list[Trial], bigger_is_better: bool) -> Mapping[str, Any] | None:
    """The parameters of the best trial, the first of equals; None if all failed."""
    scored = [(trial.score, trial) for trial in trials if trial.score is not None and math.isfinite(trial.score)]
    if not scored:
        return None
    return (max if bigger_is_better else min)(scored, key=lambda pair: pair[0])[1].parameters


def _is_model(name: str) -> bool:
    """Models have capitals; of the parameters only some of RecBole's have, such as MAX_ITEM_LIST_LENGTH."""
    return name[:1].isupper() and not (name.isupper() and "_" in name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(name: str, values: Any) -> None:
    if isinstance(values, list | tuple) and values and all(isinstance(v, int | float | str | bool) for v in values):
        return
    if isinstance(values, Mapping) and {"low", "high"} <= set(values) <= _RANGE_KEYS:
        low, high, log, step = values["low"], values["high"], values.get("log", False), values.get("step")
        whole = isinstance(low, int) and isinstance(high, int)
        stepped = step is None or (_is_number(step) and step > 0 and not log and (isinstance(step, int) or not whole))
        ordered = _is_number(low) and _is_number(high) and low < high and (low > 0 or not log)
        if ordered and stepped and isinstance(log, bool):
            return
    raise ConfigError(
        f"tune: space of {name} is {values!r}; give a list of choices, or {{low: 0.0001, high: 0.01, log: true}} "
        "with low below high (and above 0 for log), or {low: 1, high: 9, step: 2} without log; whole numbers make a "
        "range of whole numbers, with a whole step"
    )


def _distribution(values: Any) -> optuna.distributions.BaseDistribution:
    if not isinstance(values, Mapping):
        return optuna.distributions.CategoricalDistribution(list(values))
    low, high, log, step = values["low"], values["high"], values.get("log", False), values.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return optuna.distributions.IntDistribution(low, high, log=log, step=step or 1)
    return optuna.distributions.FloatDistribution(low, high, log=log, step=step)


def _inside(values: Any, value: Any) -> bool:
    if values is None or value is None:
        return False
    if isinstance(values, Mapping):
        return _is_number(value) and values["low"] <= value <= values["high"]
    return value in values


def _choices(values: Any) -> Sequence[Any] | None:
    """What there is to try of a parameter; None: real numbers of a range."""
    if not isinstance(values, Mapping):
        return list(dict.fromkeys(values))
    low, high, step = values["low"], values["high"], values.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return range(low, high + 1, step or 1)
    return None if step is None else [low + n * step for n in range(int((high - low) / step + 1e-9) + 1)]


def _grid_size(space: Space) -> int | None:
    """How many settings there are to try; None where real numbers are among them."""
    choices = [_choices(values) for values in space.values()]
    return None if None in choices else math.prod(len(one) for one in choices if one is not None)


def _grid(space: Space) -> Iterator[dict[str, Any]]:
    """Every setting of a space that can be counted, in its order."""
    for values in itertools.product(*(_choices(one) or () for one in space.values())):
        yield dict(zip(space, values, strict=True))
