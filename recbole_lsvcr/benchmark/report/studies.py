"""The tables of the further studies: ablation, alignment steps, what alignment learnt, cold start."""

from __future__ import annotations

import json

from recbole_lsvcr.benchmark.report import differences
from recbole_lsvcr.benchmark.report.tables import quality_rows
from recbole_lsvcr.benchmark.report.view import (
    Arm,
    Cell,
    Row,
    Table,
    Task,
    amount,
    group,
    is_ours,
    kind,
    mean,
    name_cell,
    number,
    primary,
    quality,
    score,
    shown_metrics,
    signed,
    size,
)
from recbole_lsvcr.benchmark.vocabulary import ABLATION, COLD, MAIN, STEPS
from recbole_lsvcr.titles import metric_title, slice_title

COLD_SLICES = ("unseen_items", "unseen_users")
TABLE_4 = ("recall@10", "ndcg@10")
STEP_SLICES = ("all", "seen_items", "unseen_items")


def full_model(task: Task) -> Arm | None:
    """What an ablation takes something from: what its arms are compared with, else our first arm; of the group itself,
    else of the main one."""
    named = [one["baseline"] for one in differences.compared(task, ABLATION)]
    named += [arm["name"] for arm in group(task, MAIN) if is_ours(arm)]
    for name in named[:1]:
        for home in (ABLATION, MAIN):
            found = [arm for arm in group(task, home) if arm["name"] == name]
            if found:
                return found[0]
    return None


def variants(task: Task) -> list[Arm]:
    """The arms of the ablation, the full model first."""
    full = full_model(task)
    return [*([] if full is None else [full]), *(arm for arm in group(task, ABLATION) if arm is not full)]


def ablation_table(task: Task) -> Table | None:
    """The full model and each variant in the metrics of Table 4 (all metrics, where none of them was computed), with
    the difference to the full model; None without any."""
    if not group(task, ABLATION):
        return None
    protocol, metric = primary(task)
    full, arms = full_model(task), variants(task)
    metrics = [name for name in shown_metrics(task) if name in TABLE_4] or shown_metrics(task)
    rows = []
    for arm, row in zip(arms, quality_rows(arms, [(protocol, name, "all") for name in metrics]), strict=True):
        own = mean(arm, protocol, metric)
        base = None if full is None or full is arm else mean(full, protocol, metric)
        found = {} if full is None else differences.comparison(task, arm["name"], full["name"], ABLATION) or {}
        gap, low, high = (number(found.get(key)) for key in ("mean", "low", "high"))
        if gap is None and own is not None and base is not None:
            gap = own - base
        text = signed(gap) if low is None or high is None else f"{signed(gap)} [{signed(low)}, {signed(high)}]"
        rows.append(Row((*row.cells, Cell(text, gap)), "ours" if arm is full else row.kind, row.status))
    return Table(
        f"Ablation: {protocol}",
        ("", *(metric_title(name) for name in metrics), f"{metric_title(metric)} less full"),
        tuple(rows),
        caption="" if full is None else f"Differences are to {full['name']}, with 95 % intervals by user where known.",
    )


def steps(arm: Arm) -> int:
    """How many alignment steps an arm had; 0 without alignment."""
    return int(number((arm.get("alignment") or {}).get("steps")) or 0)


def steps_table(task: Task) -> Table | None:
    """The primary metric by alignment steps, in the slices where alignment may matter; None without such arms."""
    arms = sorted(group(task, STEPS), key=steps)
    if not arms:
        return None
    protocol, metric = primary(task)
    parts = [name for name in STEP_SLICES if size(arms, protocol, name)[0]]
    rows = [
        Row((row.cells[0], _steps_cell(arm, row), *row.cells[1:]), row.kind, row.status)
        for arm, row in zip(arms, quality_rows(arms, [(protocol, metric, name) for name in parts]), strict=True)
    ]
    return Table(
        f"Alignment steps: {metric_title(metric)}, {protocol}",
        ("", "steps", *(slice_title(name) for name in parts)),
        tuple(rows),
    )


def _steps_cell(arm: Arm, row: Row) -> Cell:
    return Cell(f"{steps(arm):,}", None if row.empty else float(steps(arm)))


def aligned(task: Task) -> list[Arm]:
    """Arms of any group that were aligned, the full model first; of those that share an alignment the first."""
    found: dict[str, Arm] = {}
    for arm in task["arms"]:
        if arm.get("alignment"):
            found.setdefault(json.dumps(arm["alignment"], sort_keys=True), arm)
    return list(found.values())


def health_table(task: Task) -> Table | None:
    """The held-out figures of every aligned arm, of its first seed; None where nothing was aligned."""
    arms = aligned(task)
    if not arms:
        return None
    names = list(dict.fromkeys(name for arm in arms for name in arm["alignment"].get("held_out") or {}))
    rows = []
    for arm in arms:
        held = arm["alignment"].get("held_out") or {}
        values = [number(held.get(name)) for name in names]
        first = (name_cell(arm), Cell(f"{steps(arm):,}", float(steps(arm))))
        rows.append(Row((*first, *(Cell(amount(value), value) for value in values)), kind(arm)))
    return Table(
        "Alignment: held-out figures",
        ("", "steps", *names),
        tuple(rows),
        caption="Losses and health on instances that the alignment has not read, each arm's alignment that of its first"
        " seed; cosine_own should stand above cosine_others.",
    )


def cold_arms(task: Task) -> list[Arm]:
    """The arms of the cold-start study."""
    return group(task, COLD)


def cold_table(task: Task) -> Table | None:
    """Unseen videos and users: every metric that is shown; None without such arms."""
    arms = cold_arms(task)
    protocol = primary(task)[0]
    parts = [name for name in COLD_SLICES if size(arms, protocol, name)[0]]
    if not arms or not parts:
        return None
    wanted = [name for name in shown_metrics(task) if name in ("recall@10", "ndcg@10")] or [primary(task)[1]]
    columns = [(protocol, name, part) for part in parts for name in wanted]
    counts = [f"{slice_title(part)}: {size(arms, protocol, part)[0]:,} instances" for part in parts]
    return Table(
        f"Cold start: {protocol}",
        ("", *(f"{slice_title(part)}, {metric_title(name)}" for _, name, part in columns)),
        quality_rows(arms, columns),
        caption="; ".join(counts) + ".",
    )


def spread(arm: Arm, protocol: str, metric: str, part: str = "all") -> str:
    """Mean ± std of a metric as text."""
    found = quality(arm, protocol, metric, part)
    return score(number(found.get("mean")), number(found.get("std")))
