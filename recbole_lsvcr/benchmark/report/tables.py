"""The tables of quality, differences, cost and hyper-parameters."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_lsvcr.benchmark.report.view import (
    Arm,
    Cell,
    Row,
    Table,
    Task,
    amount,
    best_baseline,
    group,
    is_ours,
    kind,
    marks,
    mean,
    name_cell,
    number,
    percent,
    primary,
    quality,
    score,
    setting,
    settings,
    shown_metrics,
    size,
    size_of,
    status,
    usual_size,
    whole,
)
from recbole_lsvcr.benchmark.vocabulary import MAIN
from recbole_lsvcr.titles import metric_title, slice_title

COSTS = {
    "parameters": "parameters",
    "seconds_per_epoch": "s / epoch",
    "seconds_to_best": "s to best epoch",
    "pretraining_seconds": "s pretraining",
    "alignment_seconds": "s alignment",
    "peak_memory_mb": "peak memory, MB",
    "ranked_per_second": "ranked / s",
}

_READING = "Means over seeds ± their standard deviation; the best bold, the second underlined."


def quality_rows(arms: Sequence[Arm], columns: Sequence[tuple[str, str, str]]) -> tuple[Row, ...]:
    """A row an arm: mean ± std of each column (protocol, metric, slice), the best and the second marked. A mean over
    other instances than most arms have is shown with their number, and no mark."""
    usual = [usual_size(arms, protocol, part) for protocol, _, part in columns]
    marked = []
    for column, expected in zip(columns, usual, strict=True):
        alike = [size_of(arm, column[0], column[2]) == expected for arm in arms]
        marked.append(marks([mean(arm, *column) if one else None for arm, one in zip(arms, alike, strict=True)]))
    rows = []
    for place, arm in enumerate(arms):
        cells = [name_cell(arm)]
        for column, found, expected in zip(columns, marked, usual, strict=True):
            some = quality(arm, *column)
            value, counts = number(some.get("mean")), size_of(arm, column[0], column[2])
            other = value is not None and counts != expected
            note = f"{counts[0]:,} instances of {counts[1]:,} users" if other else ""
            seeds = ", ".join(f"seed {seed}: {score(number(one))}" for seed, one in (some.get("values") or {}).items())
            cells.append(Cell(score(value, number(some.get("std"))), value, found[place], seeds, note))
        rows.append(Row(tuple(cells), kind(arm), status(arm, columns[0][0] if columns else None)))
    return tuple(rows)


def main_table(task: Task, protocol: str) -> Table:
    """All arms of the main group under a protocol; below them what a random order gives and our relative gain."""
    arms, metrics = group(task, MAIN), shown_metrics(task)
    ranked = task["ranked"].get(protocol) or {}
    chance = {name: number((ranked.get("chance") or {}).get(name)) for name in metrics}
    known = any(value is not None for value in chance.values())
    foot = [_foot("chance", [score(chance[name]) for name in metrics])] if known else []
    for arm in arms:
        compared = best_baseline(task, arm, protocol, metrics[0]) is not None
        if compared and is_ours(arm) and any(mean(arm, protocol, name) is not None for name in metrics):
            foot.append(_gain(task, arm, protocol, metrics))
    return Table(
        protocol or "nothing was ranked",
        ("", *(metric_title(name) for name in metrics)),
        quality_rows(arms, [(protocol, name, "all") for name in metrics]),
        tuple(foot),
        f"{about_protocol(task, protocol)} {_READING}".lstrip(),
    )


def _gain(task: Task, arm: Arm, protocol: str, metrics: Sequence[str]) -> Row:
    shown, hints = [], []
    for name in metrics:
        best, own = best_baseline(task, arm, protocol, name), mean(arm, protocol, name)
        base = None if best is None else mean(best, protocol, name)
        shown.append(percent((own - base) / base if own is not None and base else None))
        hints.append("" if best is None else f"against {best['name']}")
    return _foot(f"gain of {arm['name']} over the best baseline", shown, hints)


def _foot(title: str, texts: Sequence[str], hints: Sequence[str] = ()) -> Row:
    hints = hints or [""] * len(texts)
    cells = [Cell(text, hint=hint) for text, hint in zip(texts, hints, strict=True)]
    return Row((Cell(title), *cells))


def about_protocol(task: Task, protocol: str) -> str:
    """What is ranked under a protocol, in words."""
    found = task["ranked"].get(protocol) or {}
    if not found:
        return ""
    parts = [f"{whole(found.get('instances'))} instances of {whole(found.get('users'))} users"]
    if number(found.get("mean_length")) is not None:
        parts.append(f"{amount(number(found['mean_length']))} candidates on average")
    if number(found.get("enough")) is not None:
        parts.append(f"{whole(found['enough'])} lists with all the candidates asked for")
    if number(found.get("left_out")):
        parts.append(f"{whole(found['left_out'])} left out")
    if found.get("candidates_hash"):
        parts.append(f"candidates {str(found['candidates_hash'])[:12]}")
    return "; ".join(parts) + "."


def cost_table(task: Task) -> Table | None:
    """What each arm of the main group costs; None where that is not known of any."""
    arms = group(task, MAIN)
    shown = [key for key in COSTS if any(number((arm.get("cost") or {}).get(key)) is not None for arm in arms)]
    if not shown:
        return None
    rows = []
    for arm in arms:
        values = [number((arm.get("cost") or {}).get(key)) for key in shown]
        texts = [
            whole(value) if key == "parameters" else amount(value) for key, value in zip(shown, values, strict=True)
        ]
        cells = [Cell(text, value) for text, value in zip(texts, values, strict=True)]
        rows.append(Row((name_cell(arm), *cells), kind(arm), status(arm)))
    return Table(
        "Cost",
        ("", *(COSTS[key] for key in shown)),
        tuple(rows),
        caption="Means over seeds; memory: the most of any, to train and rank. Pretraining and alignment come on top.",
    )


def slice_columns(task: Task) -> list[tuple[str, int, int]]:
    """The slices that hold an instance under the primary protocol: name, instances, users."""
    arms, protocol = group(task, MAIN), primary(task)[0]
    found = [(name, *size(arms, protocol, name)) for name in task["slices"]]
    return [one for one in found if one[1]]


def slice_table(task: Task) -> Table | None:
    """The primary metric of every arm in every slice; None where there is no slice but all."""
    protocol, metric = primary(task)
    columns, arms = slice_columns(task), group(task, MAIN)
    if len(columns) < 2:
        return None
    counts = [[Cell(f"{one[place]:,}", float(one[place])) for one in columns] for place in (1, 2)]
    return Table(
        f"Slices: {metric_title(metric)}, {protocol}",
        ("", *(slice_title(name) for name, *_ in columns)),
        quality_rows(arms, [(protocol, metric, name) for name, *_ in columns]),
        tuple(Row((Cell(title), *cells)) for title, cells in zip(("instances", "users"), counts, strict=True)),
    )


def tuned_arms(task: Task) -> list[Arm]:
    """The arms that tuning chose for: those of the main group, and of other groups what was tried for them alone."""
    found = group(task, MAIN)
    known = {(arm["model"], arm["setting"]) for arm in found}
    for arm in task["arms"]:
        if arm["trials"] and (arm["model"], arm["setting"]) not in known:
            known.add((arm["model"], arm["setting"]))
            found.append(arm)
    return [arm for arm in found if arm["trials"] or arm.get("chosen")]


def tuning_table(task: Task) -> Table | None:
    """What tuning chose for each arm; None where nothing was tuned."""
    arms = tuned_arms(task)
    if not arms:
        return None
    rows = []
    for arm in arms:
        scores = [found for trial in arm["trials"] if (found := number(trial.get("valid_score"))) is not None]
        failed = sum(trial.get("status") != "done" for trial in arm["trials"])
        best = max(scores, default=None)
        chosen = settings(arm.get("chosen") or {})
        cells = (
            name_cell(arm),
            Cell(str(len(arm["trials"])), float(len(arm["trials"]))),
            Cell(str(failed), float(failed)),
            Cell(score(best), best),
            Cell(score(min(scores, default=None)), min(scores, default=None)),
            Cell(chosen, chosen),
        )
        rows.append(Row(cells, "ours" if is_ours(arm) else ""))
    return Table("Hyper-parameters", ("", "trials", "failed", "best score", "worst score", "chosen"), tuple(rows))


def trial_table(arm: Arm) -> Table:
    """Every trial of an arm."""
    names = list(dict.fromkeys(name for trial in arm["trials"] for name in trial.get("parameters") or {}))
    scores = [number(trial.get("valid_score")) for trial in arm["trials"]]
    rows = []
    for place, (trial, found, mark) in enumerate(zip(arm["trials"], scores, marks(scores), strict=True), start=1):
        values = [(trial.get("parameters") or {}).get(name) for name in names]
        said = ": ".join(str(part) for part in (trial.get("status"), trial.get("reason")) if part)
        cells = (
            Cell(str(place), float(place)),
            *(Cell(setting(value), value if isinstance(value, str) else number(value)) for value in values),
            Cell(setting(trial.get("seed")), number(trial.get("seed"))),
            Cell(score(found), found, mark),
            Cell(said, said),
        )
        rows.append(Row(cells, "failed" if found is None else ""))
    return Table(str(arm["name"]), ("trial", *names, "seed", "validation score", "status"), tuple(rows))
