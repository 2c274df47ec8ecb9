"""Comparisons of results.json: looked up, and as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recbole_lsvcr.benchmark.report.view import (
    Cell,
    Row,
    Table,
    Task,
    number,
    percent,
    primary,
    probability,
    setting,
    signed,
    whole,
)
from recbole_lsvcr.benchmark.statistics import FEW_USERS, MANY_USERS
from recbole_lsvcr.benchmark.vocabulary import MAIN
from recbole_lsvcr.titles import metric_title, slice_title

Comparison = Mapping[str, Any]
_COLUMNS = ("difference", "95 % interval", "relative", "p", "p (Holm)", "instances", "users", "seeds")
_INTERVALS = (
    f"draw users with replacement (of fewer than {FEW_USERS} or more than {MANY_USERS:,}: those of the t that p is of)"
)
_ABOUT = (
    "Mean over instances, each arm averaged over its own seeds (their numbers in the last column); intervals"
    f" {_INTERVALS}; p of a paired test clustered by user, Holm over the baselines of the same protocol,"
    " metric and slice."
)
_ABOUT_GROUP = f"95 % intervals {_INTERVALS}; Holm over the arms of the same metric and slice."


def compared(task: Task, group: str = MAIN) -> list[Comparison]:
    """The comparisons within a group of arms."""
    return [one for one in task["comparisons"] if one.get("group", MAIN) == group]


def headline(task: Task, group: str = MAIN) -> list[Comparison]:
    """Those by the primary protocol and metric, in all slices."""
    return [one for one in compared(task, group) if (one["protocol"], one["metric"]) == primary(task)]


def comparison(task: Task, arm: str, baseline: str, group: str = MAIN) -> Comparison | None:
    """That of two arms by the primary protocol and metric over all instances."""
    for one in headline(task, group):
        if (one["slice"], one["arm"], one["baseline"]) == ("all", arm, baseline):
            return one
    return None


def best(task: Task, arm: str) -> Comparison | None:
    """That of an arm of ours with the best baseline."""
    found = (one for one in headline(task) if one["slice"] == "all" and one["arm"] == arm and one.get("best"))
    return next(found, None)


def family(task: Task, one: Comparison) -> int:
    """How many comparisons Holm's correction of this one is over."""
    names = ("protocol", "metric", "slice", "arm")
    return sum(all(other[name] == one[name] for name in names) for other in compared(task))


def main_table(task: Task) -> Table | None:
    """Ours less every baseline over all instances; None where nothing was compared."""
    found = [one for one in headline(task) if one["slice"] == "all"]
    protocol, metric = primary(task)
    return _table(f"Differences: {metric_title(metric)}, {protocol}", found, (), _ABOUT)


def slice_table(task: Task) -> Table | None:
    """The same in every slice."""
    found = [one for one in headline(task) if one["slice"] != "all"]
    protocol, metric = primary(task)
    return _table(f"Differences in slices: {metric_title(metric)}, {protocol}", found, ("slice",))


def other_table(task: Task, *, whole_only: bool = False) -> Table | None:
    """The differences under the other protocols and by other metrics; `whole_only`: over all instances alone."""
    found = [one for one in compared(task) if (one["protocol"], one["metric"]) != primary(task)]
    found = [one for one in found if not whole_only or one["slice"] == "all"]
    columns = ("protocol", "metric") if whole_only else ("protocol", "metric", "slice")
    return _table("Differences under other protocols and by other metrics", found, columns)


def group_table(task: Task, group: str) -> Table | None:
    """The arms of another group less what they are compared with, in every slice; None where nothing was compared."""
    protocol, metric = primary(task)
    title = f"Differences between these arms: {metric_title(metric)}, {protocol}"
    return _table(title, headline(task, group), ("slice",), _ABOUT_GROUP, "arm less the one compared with")


def _table(
    title: str,
    found: Sequence[Comparison],
    columns: Sequence[str],
    caption: str = "",
    pairs: str = "ours less baseline",
) -> Table | None:
    if not found:
        return None
    several = len({one["arm"] for one in found}) > 1
    first = pairs if several else f"{found[0]['arm']} less"
    rows = tuple(_row(one, columns, several=several) for one in found)
    return Table(title, (first, *columns, *_COLUMNS), rows, caption=caption)


def _row(one: Comparison, columns: Sequence[str], *, several: bool) -> Row:
    write: dict[str, Callable[[str], str]] = {"metric": metric_title, "slice": slice_title}
    titles = [write.get(name, str)(str(one[name])) for name in columns]
    low, high, seeds = number(one.get("low")), number(one.get("high")), one.get("seeds") or {}
    name = f"{one['arm']} less {one['baseline']}" if several else str(one["baseline"])
    cells = (
        Cell(name, name, note="best baseline" if one.get("best") else ""),
        *(Cell(title, title) for title in titles),
        _value(signed, one.get("mean")),
        Cell(f"[{signed(low)}, {signed(high)}]", low),
        _value(percent, one.get("relative")),
        _value(probability, one.get("p")),
        _value(probability, one.get("p_holm")),
        _value(whole, one.get("instances")),
        _value(whole, one.get("users")),
        Cell(f"{setting(seeds.get('arm'))} / {setting(seeds.get('baseline'))}", number(seeds.get("baseline"))),
    )
    return Row(cells)


def _value(write: Callable[[float | None], str], value: Any) -> Cell:
    found = number(value)
    return Cell(write(found), found)
