"""Hyper-parameter search: the same trials again, the budget kept, the best by validation, nonsense refused."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_lsvcr.benchmark.tuning import RATES, Trial, Tuning, best, search
from recbole_lsvcr.errors import ConfigError

RANGES = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "n_layers": {"low": 1, "high": 3}}


def score(parameters: Mapping[str, Any]) -> float:
    """A valley with its bottom at 0.001 and two layers."""
    return abs(math.log10(parameters["learning_rate"]) + 3) + abs(parameters.get("n_layers", 2) - 2)


def trials(space: Mapping[str, Any], budget: int, seed: int = 0, **first: Any) -> list[Trial]:
    return search(space, budget, first=first, seed=seed, bigger_is_better=False, run=score)


def test_a_grid_the_budget_covers_is_tried_completely_in_its_order() -> None:
    space = {"learning_rate": [0.01, 0.001], "n_layers": [1, 2, 3]}
    found = trials(space, 6)
    assert [tuple(t.parameters.values()) for t in found] == list(itertools.product(*space.values()))
    assert trials(space, 50) == found
    assert best(found, bigger_is_better=False) == {"learning_rate": 0.001, "n_layers": 2}
    assert best(found, bigger_is_better=True) == {"learning_rate": 0.01, "n_layers": 1}


@settings(max_examples=15, deadline=None)
@given(budget=st.integers(1, 12), seed=st.integers(0, 5))
def test_a_range_has_exactly_the_budget_and_starts_with_the_models_own_values(budget: int, seed: int) -> None:
    found = trials(RANGES, budget, seed, learning_rate=0.003, n_layers=2)
    assert len(found) == budget
    assert found[0].parameters == {"learning_rate": 0.003, "n_layers": 2}
    assert all(1e-4 <= t.parameters["learning_rate"] <= 1e-2 and t.parameters["n_layers"] in (1, 2, 3) for t in found)
    assert found == trials(RANGES, budget, seed, learning_rate=0.003, n_layers=2)


def test_a_range_with_a_step_keeps_to_it() -> None:
    space = {"learning_rate": {"low": 0.1, "high": 0.5, "step": 0.2}, "n_layers": {"low": 1, "high": 7, "step": 3}}
    assert Tuning.parse({"budget": 9, "space": space}, ["SASRec"]).budget == 9
    assert Tuning.parse({"space": space}, ["SASRec"]).budget == 9
    found = [t.parameters for t in search(space, 9, first={}, seed=0, bigger_is_better=True, run=lambda _: 0.0)]
    grid = itertools.product([0.1, 0.3, 0.5], [1, 4, 7])
    assert [(round(one["learning_rate"], 9), one["n_layers"]) for one in found] == list(grid)
    some = search(space, 8, first={}, seed=0, bigger_is_better=True, run=lambda _: 0.0)
    assert len({(round(t.parameters["learning_rate"], 9), t.parameters["n_layers"]) for t in some}) == len(some) == 8


def test_later_trials_depend_on_what_the_earlier_ones_found() -> None:
    def run(high: bool) -> list[Trial]:
        return search(RANGES, 25, first={}, seed=1, bigger_is_better=high, run=score)

    low, high = run(False)[-8:], run(True)[-8:]
    assert sum(t.score or 0.0 for t in low) < sum(t.score or 0.0 for t in high)


def test_a_value_of_the_model_outside_the_space_is_not_tried() -> None:
    found = trials(RANGES, 1, learning_rate=0.5, n_layers=2)
    assert found[0].parameters["learning_rate"] <= 1e-2 and found[0].parameters["n_layers"] == 2
    assert trials(RANGES, 1, learning_rate="auto", n_layers=[64, 32])[0].parameters["n_layers"] in (1, 2, 3)


@settings(max_examples=30, deadline=None)
@given(choices=st.integers(2, 6), budget=st.integers(1, 40), seed=st.integers(0, 5), fails=st.booleans())
def test_nothing_is_tried_twice_and_the_budget_is_used_up(choices: int, budget: int, seed: int, fails: bool) -> None:
    asked: list[Mapping[str, Any]] = []

    def run(parameters: Mapping[str, Any]) -> float | None:
        asked.append(parameters)
        return None if fails else 1.0

    space = {"n_layers": [*range(choices), 0], "hidden_act": ["gelu", "relu"], "n_heads": {"low": 1, "high": 3}}
    found = search(space, budget, first={}, seed=seed, bigger_is_better=True, run=run)
    distinct = {tuple(t.parameters.items()) for t in found}
    assert len(asked) == len(found) == len(distinct) == min(budget, choices * 2 * 3)


def test_failed_trials_are_passed_over_and_the_first_of_equals_is_best() -> None:
    given_scores = iter([None, 0.2, math.nan, 0.2, 0.1])
    found = search(
        {"n_layers": [1, 2, 3, 4, 5]}, 5, first={}, seed=0, bigger_is_better=True, run=lambda _: next(given_scores)
    )
    assert best(found, bigger_is_better=True) == {"n_layers": 2}
    assert best([Trial({"n_layers": 1}, None)], bigger_is_better=True) is None


def test_defaults_are_the_papers_learning_rates_and_off_is_off() -> None:
    assert Tuning.parse(None, ["SASRec"]).of("SASRec") == {"learning_rate": list(RATES)}
    assert Tuning.parse(None, ["SASRec"]).budget == 5
    assert Tuning.parse(False, ["SASRec"]).budget == 0
    assert Tuning.parse({"budget": 2}, ["SASRec"]).budget == 2


def test_a_model_may_have_parameters_of_its_own_with_the_same_budget() -> None:
    space = {"learning_rate": [0.1, 0.01], "MBHT": {"n_layers": [1, 2]}}
    tuning = Tuning.parse({"budget": 2, "space": space}, ["MBHT", "SASRec"])
    assert tuning.of("MBHT") == {"learning_rate": [0.1, 0.01], "n_layers": [1, 2]}
    assert tuning.of("SASRec") == {"learning_rate": [0.1, 0.01]}
    assert tuning.models() == ["MBHT"]
    listed = Tuning.parse({"space": {"MAX_ITEM_LIST_LENGTH": [10, 20]}}, ["SASRec"])
    assert listed.models() == [] and listed.budget == 2


def test_no_model_has_more_trials_than_another(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    space = {"learning_rate": [0.1, 0.01], "MBHT": {"n_layers": [1, 2]}}
    assert Tuning.parse({"budget": 4, "space": space}, ["MBHT"]).budget == 4 and not caplog.messages
    assert Tuning.parse({"budget": 4, "space": space}, ["MBHT", "SASRec"]).budget == 2
    assert caplog.messages == ["tune: 2 trials of every model, not 4: SASRec has no more to try"]
    assert Tuning.parse({"space": space}, ["MBHT", "SASRec"]).budget == 2
    ranges = {**RANGES, "MBHT": {"n_heads": [1, 2]}}
    assert Tuning.parse({"budget": 40, "space": ranges}, ["MBHT", "SASRec"]).budget == 40
    alone = {"space": {"MBHT": {"n_layers": [1, 2]}}}
    assert Tuning.parse(alone, ["MBHT"]).budget == 2
    with pytest.raises(ConfigError, match="tune: SASRec would have nothing to try"):
        Tuning.parse(alone, ["MBHT", "SASRec"])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([0.1], "tune = "),
        ({"trials": 3}, "tune = "),
        ({"space": [0.1]}, "not a mapping"),
        ({"budget": -1}, "budget"),
        ({"budget": True}, "budget"),
        ({"budget": 2.5}, "budget"),
        ({"space": RANGES}, "budget"),
        ({"space": {"learning_rate": []}}, "space of learning_rate"),
        ({"space": {"learning_rate": 0.1}}, "space of learning_rate"),
        ({"space": {"learning_rate": [[0.1]]}}, "space of learning_rate"),
        ({"budget": 1, "space": {"learning_rate": {"low": 1, "high": 0.1}}}, "space of learning_rate"),
        ({"budget": 1, "space": {"learning_rate": {"low": 0, "high": 0.1, "log": True}}}, "space of learning_rate"),
        ({"budget": 1, "space": {"learning_rate": {"low": 0.1}}}, "space of learning_rate"),
        ({"budget": 1, "space": {"n_layers": {"low": 1, "high": 4, "step": "two"}}}, "space of n_layers"),
        ({"budget": 1, "space": {"n_layers": {"low": 1, "high": 4, "step": 0.5}}}, "space of n_layers"),
        ({"budget": 1, "space": {"n_layers": {"low": 1, "high": 4, "step": 0}}}, "space of n_layers"),
        ({"budget": 1, "space": {"n_layers": {"low": 1, "high": 4, "step": 2, "log": True}}}, "space of n_layers"),
        ({"budget": 1, "space": {"n_layers": {"low": 1, "high": 4, "log": "yes"}}}, "space of n_layers"),
        ({"budget": 1, "space": {"MBHT": [1, 2]}}, "MBHT"),
        ({"budget": 1, "space": {"MBHT": {"n_layers": "two"}}}, "space of n_layers"),
    ],
)
def test_what_cannot_be_searched_is_refused(value: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Tuning.parse(value, ["MBHT", "SASRec"])
    assert "\n" not in str(caught.value)
