"""Charts of training, slices and differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_lsvcr.benchmark.report import differences, tables
from recbole_lsvcr.benchmark.report.figure import (
    SLICE_COLORS,
    Chart,
    layout,
    line_style,
    row_height,
    rows_axis,
    shown,
    vertical,
)
from recbole_lsvcr.benchmark.report.view import (
    Task,
    group,
    is_ours,
    mean,
    number,
    ours,
    primary,
    probability,
    score,
    signed,
)
from recbole_lsvcr.benchmark.vocabulary import MAIN
from recbole_lsvcr.titles import metric_title, slice_title


def curves(task: Task) -> Chart | None:
    """Validation score by epoch: the mean over seeds as long as all of them train, each seed faintly, the best epochs
    as dots."""
    data: list[dict[str, Any]] = []
    arms = [arm for arm in group(task, MAIN) if arm["curves"]]
    counts = {True: 0, False: 0}
    for arm in arms:
        style = line_style(counts[is_ours(arm)], arm)
        counts[is_ours(arm)] += 1
        runs = [run for run in map(_run, arm["curves"]) if run]
        if not runs:
            continue
        name, together = shown(arm["name"]), {"legendgroup": f"arm{len(data)}"}
        common = sorted(set.intersection(*(set(run) for run in runs)))
        averages = [sum(run[epoch] for run in runs) / len(runs) for epoch in common]
        each = [(epoch, run.get(epoch)) for run in runs for epoch in [*sorted(run), None]] if len(runs) > 1 else []
        data.append(
            {
                **together,
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendrank": 1 if is_ours(arm) else 2,  # ours first, as they lie above the others
                "x": common,
                "y": averages,
                "line": style,
                "hovertemplate": "epoch %{x}: %{y:.4f}",
            }
        )
        if each:
            data.append(
                {
                    **together,
                    "type": "scatter",
                    "mode": "lines",
                    "x": [epoch for epoch, _ in each],
                    "y": [value for _, value in each],
                    "line": {**style, "width": 1},
                    "opacity": 0.3,
                    "showlegend": False,
                    "hoverinfo": "skip",
                }
            )
        best = [
            (curve["best_epoch"], run[curve["best_epoch"]])
            for curve in arm["curves"]
            if curve.get("best_epoch") in (run := _run(curve))
        ]
        data.append(
            {
                **together,
                "type": "scatter",
                "mode": "markers",
                "x": [epoch for epoch, _ in best],
                "y": [value for _, value in best],
                "marker": {"size": 7, "color": style["color"]},
                "showlegend": False,
                "name": name,
                "hovertemplate": "best epoch %{x}: %{y:.4f}",
            }
        )
    if not data:
        return None
    last = max((epoch for trace in data for epoch in trace["x"] if epoch is not None), default=0)
    look = layout(
        {"title": {"text": "epoch"}, "rangemode": "tozero", **({"dtick": 1} if last <= 10 else {})},
        {"title": {"text": "validation score"}},
        legend={"orientation": "v", "x": 1.01, "y": 0.94, "groupclick": "togglegroup", "tracegroupgap": 2},
    )
    caption = (
        "Thick: the mean over seeds, as long as all of them train; faint: each seed; dots: best epochs."
        " A click on a name hides it, a double click leaves it alone."
    )
    return Chart("Learning curves", caption, data, look, max(440, 140 + 22 * len(arms)))  # the whole legend


def _run(curve: Mapping[str, Any]) -> dict[Any, float]:
    """epoch -> validation score."""
    return {
        epoch: value
        for epoch, one in zip(curve.get("epochs") or [], curve.get("valid") or [], strict=False)
        if (value := number(one)) is not None and number(epoch) is not None
    }


def slices(task: Task) -> Chart | None:
    """A heatmap: every arm in every slice, shaded from the worst to the best of its column."""
    protocol, metric = primary(task)
    columns = tables.slice_columns(task)
    known = [arm for arm in group(task, MAIN) if mean(arm, protocol, metric) is not None]
    arms = sorted(known, key=lambda arm: -(mean(arm, protocol, metric) or 0.0))
    if not arms or len(columns) < 2:
        return None
    values = [[mean(arm, protocol, metric, name) for name, *_ in columns] for arm in arms]
    shades: list[list[float | None]] = [[None] * len(columns) for _ in arms]
    for place in range(len(columns)):
        column = [row[place] for row in values if row[place] is not None]
        low, high = (edge((one for one in column if one is not None), default=0.0) for edge in (min, max))
        for line, row in zip(shades, values, strict=True):
            one = row[place]
            line[place] = None if one is None else (one - low) / ((high - low) or 1)
    data = {
        "type": "heatmap",
        "x": list(range(len(columns))),
        "y": list(range(len(arms))),
        "z": shades,
        "zmin": 0,
        "zmax": 1,
        "text": [["" if one is None else f"{one:.3f}" for one in row] for row in values],
        "texttemplate": "%{text}",
        "textfont": {"size": 11, "color": "#1c2127"},
        "hovertext": [
            [
                f"{shown(arm['name'], 60)}<br>{slice_title(name)}: {score(one)}<br>{count:,} instances, {users:,} users"
                for one, (name, count, users) in zip(row, columns, strict=True)
            ]
            for arm, row in zip(arms, values, strict=True)
        ],
        "hoverinfo": "text",
        "colorscale": [[0, "#ffffff"], [0.5, "#cfe2f2"], [1, "#6fabd9"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 1,
    }
    titles = [
        f"{shown(slice_title(name)).replace(' ', '<br>', 1)}{'' if ' ' in slice_title(name) else '<br>'}<br>n={count:,}"
        for name, count, _ in columns
    ]
    x = {"tickvals": list(range(len(columns))), "ticktext": titles, "side": "top", "tickangle": 0, "ticks": ""}
    y = {**rows_axis([str(arm["name"]) for arm in arms]), "range": [len(arms) - 0.5, -0.5], "showgrid": False}
    caption = (
        f"{metric_title(metric)} under {protocol}; n: instances. Shaded from the worst to the best of a column; small"
        " slices are noise."
    )
    look = layout({**x, "showgrid": False, "zeroline": False}, y, margin={"l": 60, "r": 15, "t": 70, "b": 10})
    return Chart("Slices", caption, [data], look, row_height(len(arms)), 190 + 66 * len(columns))


def forest(task: Task, arm: str) -> Chart | None:
    """The differences of one of our arms to every baseline with their intervals, in each slice that was compared."""
    # Five slices of fifteen baselines are no chart: the others stand in the tables.
    given = [one for one in differences.headline(task) if one["arm"] == arm and one["slice"] in SLICE_COLORS]
    found = [one for one in given if number(one.get("mean")) is not None]
    if not found:
        return None
    names = list(dict.fromkeys(str(one["baseline"]) for one in found))
    first = {str(one["baseline"]): float(one["mean"]) for one in reversed(found)}
    names.sort(key=lambda name: first[name])
    parts = list(dict.fromkeys(str(one["slice"]) for one in found))
    data = []
    for place, part in enumerate(parts):
        some = [one for one in found if one["slice"] == part]
        offset = 0.22 * (place - (len(parts) - 1) / 2)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{slice_title(part)} (n={max(int(number(one.get('instances')) or 0) for one in some):,})",
                "x": [one["mean"] for one in some],
                "y": [names.index(str(one["baseline"])) + offset for one in some],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_reach(one, "high") for one in some],
                    "arrayminus": [_reach(one, "low") for one in some],
                    "thickness": 1.5,
                    "width": 3,
                },
                "marker": {"size": 8 if part == "all" else 6, "color": SLICE_COLORS[part]},
                "text": [_difference_hover(one) for one in some],
                "hoverinfo": "text",
            }
        )
    protocol, metric = primary(task)
    look = layout(
        {"title": {"text": f"difference in {metric_title(metric)}"}, "zeroline": False},
        rows_axis(names),
        shapes=[vertical(0, "#1c2127", "solid")],
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    )
    caption = f"{protocol}; right of zero {arm} is better. 95 % intervals that draw users."
    return Chart(f"{arm} against every baseline", caption, data, look, max(220, 110 + 34 * len(names)))


def _reach(one: Mapping[str, Any], end: str) -> float:
    """How far the interval reaches from the mean; 0 where there is none."""
    found, middle = number(one.get(end)), float(one["mean"])
    if found is None:
        return 0.0
    return max(0.0, found - middle if end == "high" else middle - found)


def _difference_hover(one: Mapping[str, Any]) -> str:
    low, high = signed(number(one.get("low"))), signed(number(one.get("high")))
    p = probability(number(one.get("p_holm")))
    head = f"{shown(one['arm'], 40)} – {shown(one['baseline'], 40)}, {slice_title(str(one['slice']))}"
    return f"{head}<br>{signed(number(one['mean']))} [{low}, {high}]<br>p (Holm) {p}"


def compared_arms(task: Task) -> list[str]:
    """The names of our arms with a comparison under the primary protocol and metric."""
    names = [str(arm["name"]) for arm in ours(task)]
    compared = {str(one["arm"]) for one in differences.headline(task)}
    return [name for name in dict.fromkeys(names) if name in compared]
