"""What the numbers say, in sentences."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_lsvcr.benchmark.report import differences
from recbole_lsvcr.benchmark.report.view import (
    Arm,
    Task,
    best_baseline,
    group,
    is_ours,
    mean,
    number,
    ours,
    percent,
    primary,
    probability,
    score,
    signed,
    whole,
)
from recbole_lsvcr.benchmark.vocabulary import MAIN
from recbole_lsvcr.titles import metric_title, slice_title

LEVEL = 0.05
_PARTS = ("seen_items", "unseen_items")


@dataclass(frozen=True)
class Finding:
    """A sentence and what it amounts to: "ahead", "unclear", "behind", "none"."""

    verdict: str
    text: str


def findings(task: Task) -> list[Finding]:
    """One finding for each of our arms in the main group."""
    arms = [arm for arm in group(task, MAIN) if is_ours(arm)]
    if not arms:
        return [Finding("none", "None of our models is among the arms.")]
    known = {id(arm) for arm in ours(task)}
    return [
        _finding(task, arm) if id(arm) in known else Finding("none", f"{arm['name']} has no result ({arm['status']}).")
        for arm in arms
    ]


def _finding(task: Task, arm: Arm) -> Finding:
    protocol, metric = primary(task)
    own, best = mean(arm, protocol, metric), _best(task, arm)
    title = f"{metric_title(metric)} under {protocol}"
    if best is None:
        return Finding("none", f"{arm['name']} has {title} {score(own)}; there is no baseline to compare it with.")
    base = mean(best, protocol, metric)
    assert own is not None and base is not None
    one = differences.comparison(task, arm["name"], best["name"])
    gap = own - base if one is None else number(one.get("mean"))
    gap = own - base if gap is None else gap
    verdict = _verdict(gap, one)
    against = "the best baseline" if best.get("role") != "rule" else "the best baseline (a rule)"
    lead = {
        "ahead": f"{arm['name']} is ahead of {against}, {best['name']}",
        "behind": f"{arm['name']} is NOT ahead: it is behind {against}, {best['name']}",
        "unclear": f"{arm['name']} is not shown to be ahead of {against}, {best['name']}, nor behind",
    }[verdict]
    relative = percent(number((one or {}).get("relative")) if one else (gap / base if base else None))
    text = f"{lead}: {title} {score(own)} against {score(base)}, a difference of {signed(gap)} ({relative}"
    return Finding(verdict, f"{text}{_certainty(task, one)}{_parts(task, arm, best)}{_learned(task, arm, best)}")


def _best(task: Task, arm: Arm) -> Arm | None:
    """The best baseline: the one that the comparisons say, else by its mean."""
    protocol, metric = primary(task)
    found = differences.best(task, arm["name"])
    if found is not None:
        for other in group(task, MAIN):
            if other["name"] == found["baseline"] and mean(other, protocol, metric) is not None:
                return other
    return best_baseline(task, arm, protocol, metric)


def _certainty(task: Task, one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "); the two were not compared instance by instance, so how certain this is is not known."
    low, high = number(one.get("low")), number(one.get("high"))
    family = differences.family(task, one)
    seeds = one.get("seeds") or {}
    counts = f"{whole(one.get('instances'))} instances of {whole(one.get('users'))} users"
    return (
        f"; 95 % interval by user [{signed(low)}, {signed(high)}], p {_equals(number(one.get('p_holm')))} after Holm"
        f" over {family} baseline{'s' * (family > 1)}); {counts}, {_seeds(seeds.get('arm'))} against"
        f" {_seeds(seeds.get('baseline'))}."
    )


def _parts(task: Task, arm: Arm, best: Arm) -> str:
    """The same difference among seen and unseen videos: one kind can carry the whole."""
    said = []
    for one in differences.headline(task):
        if (one["arm"], one["baseline"]) == (arm["name"], best["name"]) and one["slice"] in _PARTS:
            low, high = signed(number(one.get("low"))), signed(number(one.get("high")))
            said.append(f"{signed(number(one.get('mean')))} [{low}, {high}] on {slice_title(one['slice'])}")
    return f" Taken apart: {', '.join(said)}." if said else ""


def _equals(p: float | None) -> str:
    said = probability(p)
    return said if said.startswith("<") else f"= {said}"


def _seeds(count: Any) -> str:
    return f"{whole(count)} seed{'' if count == 1 else 's'}"


def _verdict(gap: float, one: Mapping[str, Any] | None) -> str:
    """Ahead or behind only where interval and test both say so; without them by the means."""
    if one is not None:
        low, high, p = (number(one.get(key)) for key in ("low", "high", "p_holm"))
        if low is None or high is None or low <= 0 <= high or (p is not None and p >= LEVEL):
            return "unclear"
    return "ahead" if gap > 0 else "behind" if gap < 0 else "unclear"


def _learned(task: Task, arm: Arm, best: Arm) -> str:
    """How it stands against trained models, where a rule is the best baseline."""
    protocol, metric = primary(task)
    other = best_baseline(task, arm, protocol, metric, learned=True)
    if best.get("role") != "rule" or other is None:
        return ""
    one = differences.comparison(task, arm["name"], other["name"])
    own, base = mean(arm, protocol, metric), mean(other, protocol, metric)
    assert own is not None and base is not None
    gap, interval = None, ""
    if one is not None:
        gap, interval = (
            number(one.get("mean")),
            f" [{signed(number(one.get('low')))}, {signed(number(one.get('high')))}]",
        )
    gap = own - base if gap is None else gap
    return f" Against the best trained baseline, {other['name']} ({score(base)}): {signed(gap)}{interval}."


def facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the study is, as names and values."""
    tune = results.get("tune") or {}
    return [
        ("data set", f"{results['dataset']}{' (SYNTHETIC)' if results['synthetic'] else ''}"),
        ("split", str(results.get("split"))),
        ("history", str(results.get("history"))),
        ("seeds", ", ".join(str(seed) for seed in results.get("seeds") or [])),
        ("selection", str(results.get("selection"))),
        ("tuning", f"{_at_most(results)}{tune.get('budget')} trials an arm" if tune else "none"),
        *((f"space of {name}", str(space)) for name, space in (tune.get("space") or {}).items()),
    ]


def _at_most(results: Mapping[str, Any]) -> str:
    """Arms that fix what is tuned have fewer trials than others."""
    arms = [arm for task in results["tasks"].values() for arm in task["arms"] if arm["group"] == MAIN]
    return "at most " if len({len(arm["trials"]) for arm in arms if arm["trials"]}) > 1 else ""


def command(results: Mapping[str, Any]) -> str:
    """The command as a shell takes it."""
    return shlex.join(str(part) for part in results.get("command") or [])


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as names joined by dots."""
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", str(value)))
    return rows
